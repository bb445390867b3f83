/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/output.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/size.h"

void table_init(struct table *t, const char *const *columns)
{
	*t = (struct table){ .columns = columns, .rows = json_array() };
	while (columns[t->ncolumns])
		t->ncolumns++;
}

void table_row(struct table *t)
{
	json_array_append_new(t->rows, json_object());
	t->at = 0;
}

static void put(struct table *t, json_t *v)
{
	json_t *rows = t->rows;
	json_t *row = json_array_get(rows, json_array_size(rows) - 1);

	json_object_set_new(row, t->columns[t->at++], v);
}

void table_str(struct table *t, const char *s)
{
	put(t, json_text(s, strlen(s)));
}

void table_int(struct table *t, int64_t n)
{
	put(t, json_integer(n));
}

void table_none(struct table *t)
{
	put(t, json_null());
}

void table_size(struct table *t, uint64_t bytes)
{
	t->sizes |= 1ULL << t->at;
	put(t, json_integer((json_int_t)bytes));
}

char *name_quoted(const char *name)
{
	size_t cap = 4 * strlen(name) + 8;
	char *quoted = isatty(STDOUT_FILENO) ? malloc(cap) : NULL;

	if (quoted)
		error_quote(quoted, cap, name);
	return quoted;
}

void print_name(const char *name)
{
	_cleanup_(freep) char *quoted = name_quoted(name);

	fputs(quoted ? quoted : name, stdout);
}

static const char *cell(const struct table *t, json_t *row, unsigned c, char buf[32])
{
	json_t *v = json_object_get(row, t->columns[c]);

	if (json_is_string(v))
		return json_string_value(v);
	if (json_is_null(v))
		return "-";
	if (t->sizes >> c & 1)
		snprintf(buf, 32, "%s", size_column((uint64_t)json_integer_value(v)).s);
	else
		snprintf(buf, 32, "%" PRId64, (int64_t)json_integer_value(v));
	return buf;
}

/* Before it is known how wide they are. */
static void quote(const struct table *t)
{
	const char *key;
	size_t i;
	json_t *row, *v;

	json_array_foreach(t->rows, i, row)
		json_object_foreach(row, key, v) {
			_cleanup_(freep) char *quoted = json_is_string(v) ?
				name_quoted(json_string_value(v)) : NULL;
			if (quoted)
				json_string_set(v, quoted);
		}
}

static void print_text(const struct table *t)
{
	int width[64] = { 0 };
	char buf[32];
	size_t i;
	json_t *row;

	quote(t);
	for (unsigned c = 0; c < t->ncolumns; c++)
		width[c] = (int)strlen(t->columns[c]);
	json_array_foreach(t->rows, i, row)
		for (unsigned c = 0; c < t->ncolumns; c++) {
			int n = (int)strlen(cell(t, row, c, buf));
			width[c] = n > width[c] ? n : width[c];
		}
	for (unsigned c = 0; c < t->ncolumns; c++)
		printf("%-*s%s", width[c], t->columns[c], c + 1 < t->ncolumns ? "  " : "\n");
	json_array_foreach(t->rows, i, row)
		for (unsigned c = 0; c < t->ncolumns; c++)
			printf("%-*s%s", width[c], cell(t, row, c, buf),
			       c + 1 < t->ncolumns ? "  " : "\n");
}

void table_print(struct table *t, bool json)
{
	if (!json) {
		print_text(t);
		return;
	}
	json_dumpf(t->rows, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

void table_fini(struct table *t)
{
	json_decref(t->rows);
	t->rows = NULL;
}

json_t *json_text(const char *s, size_t n)
{
	json_t *v = json_stringn(s, n);
	_cleanup_(freep) char *plain = v ? NULL : malloc(4 * n + 1);
	char *to = plain;

	if (!plain)
		return v;
	for (const char *p = s; p < s + n; p++)
		to += (unsigned char)*p < 0x80 ? sprintf(to, "%c", *p)
					       : sprintf(to, "\\x%02x", (unsigned char)*p);
	return json_stringn(plain, (size_t)(to - plain));
}

void print_writer(const struct writer *w)
{
	if (w->len)
		fwrite(w->p, 1, w->len, stdout);
}
