/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/output.h"

static const char *const verdicts[] = { "ok", "warn", "bad", "skipped" };

void report_init(struct report *r)
{
	*r = (struct report){ .rows = json_array() };
}

void report_fini(struct report *r)
{
	json_decref(r->rows);
	r->rows = NULL;
}

/* One line, whatever came from outside. */
static json_t *vtext(const char *fmt, va_list ap)
{
	_cleanup_(freep) char *said = NULL, *line = NULL;

	if (vasprintf(&said, fmt, ap) < 0)
		said = NULL;
	size_t cap = said ? 4 * strlen(said) + 8 : 0;
	line = malloc(cap);
	if (!said || !line)
		return json_string("out of memory");
	error_quote(line, cap, said);
	return json_text(line, strlen(line));
}

void report_add(struct report *r, enum verdict v, const char *check, const char *fmt, ...)
{
	json_t *row = json_object();
	va_list ap;

	va_start(ap, fmt);
	json_object_set_new(row, "verdict", json_string(verdicts[v]));
	json_object_set_new(row, "check", json_text(check, strlen(check)));
	json_object_set_new(row, "found", vtext(fmt, ap));
	json_object_set_new(row, "try", json_null());
	json_array_append_new(r->rows, row);
	va_end(ap);
	r->nbad += v == CHECK_BAD;
}

void report_try(struct report *r, const char *fmt, ...)
{
	json_t *row = json_array_get(r->rows, json_array_size(r->rows) - 1);
	va_list ap;

	va_start(ap, fmt);
	json_object_set_new(row, "try", vtext(fmt, ap));
	va_end(ap);
}

static const char *text_of(json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "";
}

static void print_text(const struct report *r)
{
	size_t i;
	json_t *row;
	int width = 0;

	json_array_foreach(r->rows, i, row) {
		int n = (int)strlen(text_of(row, "check"));
		width = n > width ? n : width;
	}
	json_array_foreach(r->rows, i, row) {
		printf("%-7s  %-*s  %s\n", text_of(row, "verdict"), width, text_of(row, "check"),
		       text_of(row, "found"));
		if (*text_of(row, "try"))
			printf("%-7s  %-*s  Try: %s\n", "", width, "", text_of(row, "try"));
	}
}

void report_print(const struct report *r, bool json)
{
	if (!json) {
		print_text(r);
		return;
	}
	json_dumpf(r->rows, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}
