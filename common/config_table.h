/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The table of settings, shared by config.c and config_parse.c only. */
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum config_type {
	CONFIG_TYPE_BOOL,
	CONFIG_TYPE_SIZE,
	CONFIG_TYPE_TIME,
	CONFIG_TYPE_COUNT,
	CONFIG_TYPE_STRING,
	CONFIG_TYPE_ENUM,
};

struct config_row {
	const char *name, *def, *unit, *sentence;
	enum config_of of;
	enum config_type type;
	uint64_t min, max;
	size_t offset; /* of the field in struct config */
};

extern const struct config_row config_rows[CONFIG_COUNT];

/* The first row from `from` on that the command has; NULL: none. */
const struct config_row *config_row_of(enum config_of of, const struct config_row *from);

#define CONFIG_EACH_ROW(row, of_)                                                      \
	for (const struct config_row *row = config_row_of(of_, config_rows); row;      \
	     row = config_row_of(of_, row + 1))

/* Parses value into the row's field, which is changed on success only.
 * -EINVAL (not such a value), -ERANGE, -ENOMEM. */
int config_row_parse(const struct config_row *row, struct config *c, const char *value);

/* Appends what may be tried instead of a value that was refused. */
void config_row_print_try(const struct config_row *row, struct writer *w);
