/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What `slicefs doctor` found out: a line for each check, with a command that mends it
 * where one is needed.
 */
#include <stdbool.h>

#include <jansson.h>

enum verdict {
	CHECK_OK,
	CHECK_WARN,    /* works, and could be better or soon will not */
	CHECK_BAD,     /* does not work */
	CHECK_SKIPPED, /* not looked at, or of no use here */
};

struct report {
	json_t *rows;
	unsigned nbad;
};

void report_init(struct report *r);
void report_fini(struct report *r);

/* A line: which check, and what was found. */
void report_add(struct report *r, enum verdict v, const char *check, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The command that mends what the last line says. */
void report_try(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* To stdout. */
void report_print(const struct report *r, bool json);
