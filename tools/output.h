/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Tables on stdout: aligned text for people, an array of objects for --json. */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "common/bytes.h"

struct table {
	const char *const *columns; /* ends with NULL; borrowed */
	json_t *rows;        /* one object a row */
	unsigned ncolumns, at;
	uint64_t sizes;             /* bit i: column i is bytes */
};

void table_init(struct table *t, const char *const *columns);
void table_row(struct table *t); /* then one value a column, in order */
void table_str(struct table *t, const char *s);
void table_int(struct table *t, int64_t n);
void table_none(struct table *t); /* not known, or there is none: "-", null */
void table_size(struct table *t, uint64_t bytes); /* text: "5.9 GiB" */
void table_print(struct table *t, bool json);
void table_fini(struct table *t);

/* On a terminal, which is not to obey what somebody called his file, a name without what does not
 * print, to be freed; NULL: as it is. */
char *name_quoted(const char *name);
void print_name(const char *name);

/* n bytes as a JSON string; bytes of what is not UTF-8 as \xNN. NULL: no memory. */
json_t *json_text(const char *s, size_t n);

/* All of w to stdout. */
void print_writer(const struct writer *w);
