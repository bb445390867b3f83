/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of config.def: reading and writing the values of its settings.
 * Command lines and -o lists are taken apart in config_parse.c.
 *
 * Values are written by config_print() in the form that config_set() takes, so
 * that one line of .slicefs/config is one option; a test holds that.
 */
#include "common/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config_table.h"
#include "common/error.h"
#include "common/units.h"

const struct config_row config_rows[CONFIG_COUNT] = {
#define CONFIG(id, of, type, name, def, min, max, unit, sentence)              \
	[CONFIG_##id] = { name, def, unit, sentence, CONFIG_OF_##of,           \
			  CONFIG_TYPE_##type, min, max, offsetof(struct config, id) },
#include "common/config.def"
#undef CONFIG
};

const struct config_row *config_row_of(enum config_of of, const struct config_row *from)
{
	for (; from < config_rows + CONFIG_COUNT; from++)
		if (from->of & of)
			return from;
	return NULL;
}

static const struct unit *units_of(const struct config_row *row)
{
	return row->type == CONFIG_TYPE_SIZE ? units_of_size : units_of_time;
}

/* What one unit of the field is in its smallest one. */
static uint64_t base_of(const struct config_row *row)
{
	return row->type == CONFIG_TYPE_TIME && !strcmp(row->unit, "ms") ? 1000 : 1;
}

static void *field(const struct config_row *row, const struct config *c)
{
	return (char *)c + row->offset;
}

/* Parsing values ------------------------------------------------------------- */

/* What does not come out even is refused. */
static int parse_time(const char *s, uint64_t base_us, uint64_t *ret)
{
	uint64_t us;
	int r = units_time(s, &us);

	if (!r && us % base_us)
		r = -EINVAL;
	if (!r)
		*ret = us / base_us;
	return r;
}

static int parse_number(const struct config_row *row, const char *s, uint64_t *ret)
{
	uint64_t v;
	int r;

	if (row->type == CONFIG_TYPE_SIZE)
		r = units_size(s, &v);
	else if (row->type == CONFIG_TYPE_TIME)
		r = parse_time(s, base_of(row), &v);
	else if ((r = units_digits(&s, &v)) == 0 && *s)
		r = -EINVAL;
	if (r < 0)
		return r;
	if (v < row->min || v > row->max)
		return -ERANGE;
	*ret = v;
	return 0;
}

static int parse_bool(const char *s, bool *ret)
{
	static const char *const words[][2] = {
		{ "off", "on" }, { "no", "yes" }, { "false", "true" }, { "0", "1" },
	};

	for (unsigned i = 0; i < 4; i++)
		for (int v = 0; v < 2; v++)
			if (!strcmp(s, words[i][v])) {
				*ret = v;
				return 0;
			}
	return -EINVAL;
}

/* The n-th of "a|b|c" and its length; NULL past the last. */
static const char *nth_word(const char *words, uint64_t n, size_t *ret_len)
{
	for (;; n--) {
		*ret_len = strcspn(words, "|");
		if (!n)
			return words;
		if (!words[*ret_len])
			return NULL;
		words += *ret_len + 1;
	}
}

static int parse_word(const struct config_row *row, const char *s, int *ret)
{
	const char *word;
	size_t len;

	for (uint64_t i = 0; (word = nth_word(row->unit, i, &len)); i++) {
		if (strncmp(word, s, len) || s[len])
			continue;
		*ret = (int)i;
		return 0;
	}
	return -EINVAL;
}

/* Control characters would break the lines that a value is printed on, what is
 * not UTF-8 the JSON. */
static int check_string(const struct config_row *row, const char *s)
{
	size_t len = strlen(s);
	json_t *utf8 = json_stringn(s, len);

	json_decref(utf8);
	if (!utf8)
		return -EINVAL;

	if (len < row->min || len > row->max)
		return -ERANGE;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return -EINVAL;
	if (!strcmp(row->unit, "PATH"))
		return 0;
	return strchr(s, '/') || !strcmp(s, ".") || !strcmp(s, "..") ? -EINVAL : 0;
}

static int parse_string(const struct config_row *row, const char *s, char **field_)
{
	int r = check_string(row, s);
	char *copy;

	if (r < 0)
		return r;
	copy = strdup(s);
	if (!copy)
		return -ENOMEM;
	free(*field_);
	*field_ = copy;
	return 0;
}

int config_row_parse(const struct config_row *row, struct config *c, const char *value)
{
	switch (row->type) {
	case CONFIG_TYPE_BOOL:
		return parse_bool(value, field(row, c));
	case CONFIG_TYPE_ENUM:
		return parse_word(row, value, field(row, c));
	case CONFIG_TYPE_STRING:
		return parse_string(row, value, field(row, c));
	default:
		return parse_number(row, value, field(row, c));
	}
}

/* Printing values ------------------------------------------------------------ */

static void print_number(const struct config_row *row, uint64_t v, struct writer *w)
{
	if (row->type == CONFIG_TYPE_COUNT)
		write_format(w, "%" PRIu64, v);
	else
		write_format(w, "%s", units_text(units_of(row), v * base_of(row)).s);
}

static void print_value(const struct config_row *row, const struct config *c, struct writer *w)
{
	const void *f = field(row, c);
	const char *word;
	size_t len;

	switch (row->type) {
	case CONFIG_TYPE_BOOL:
		write_format(w, "%s", *(const bool *)f ? "on" : "off");
		break;
	case CONFIG_TYPE_ENUM:
		word = nth_word(row->unit, (uint64_t)*(const int *)f, &len);
		assert(word);
		write_format(w, "%.*s", (int)len, word);
		break;
	case CONFIG_TYPE_STRING:
		write_format(w, "%s", *(char *const *)f);
		break;
	default:
		print_number(row, *(const uint64_t *)f, w);
	}
}

/* What to try instead of a value that was refused. */
void config_row_print_try(const struct config_row *row, struct writer *w)
{
	bool name = !strcmp(row->unit, "NAME"), path = !strcmp(row->unit, "PATH");

	switch (row->type) {
	case CONFIG_TYPE_BOOL:
		write_format(w, "on or off");
		return;
	case CONFIG_TYPE_ENUM:
		for (const char *s = row->unit; *s; s++)
			write_format(w, *s == '|' ? " or " : "%c", *s);
		return;
	case CONFIG_TYPE_STRING:
		write_format(w, "a %s of %" PRIu64 " to %" PRIu64 " bytes that print%s",
			     name ? "name" : path ? "path" : row->unit, row->min, row->max,
			     path ? "" : ", without /");
		return;
	case CONFIG_TYPE_SIZE:
		write_format(w, "512M, 4G or 25%%; ");
		break;
	case CONFIG_TYPE_TIME:
		write_format(w, !strcmp(row->unit, "us") ? "50us or 1ms; " : "100ms, 10s or 2m; ");
		break;
	case CONFIG_TYPE_COUNT:
		break;
	}
	print_number(row, row->min, w);
	write_format(w, " to ");
	print_number(row, row->max, w);
}

void config_print(const struct config *c, struct writer *w)
{
	CONFIG_EACH_ROW(row, c->of) {
		if (c->unused >> (row - config_rows) & 1)
			continue;
		write_format(w, "%s=", row->name);
		print_value(row, c, w);
		write_format(w, "\n");
	}
}

static json_t *value_json(const struct config_row *row, const struct config *c)
{
	const void *f = field(row, c);
	const char *word;
	size_t len;

	switch (row->type) {
	case CONFIG_TYPE_BOOL:
		return json_boolean(*(const bool *)f);
	case CONFIG_TYPE_ENUM:
		word = nth_word(row->unit, (uint64_t)*(const int *)f, &len);
		return json_stringn(word, len);
	case CONFIG_TYPE_STRING:
		return json_string(*(char *const *)f);
	default:
		return json_integer((json_int_t)*(const uint64_t *)f);
	}
}

/* Numbers are in bytes, or in the unit that the key ends with. */
void config_print_json(const struct config *c, struct writer *w)
{
	json_t *o = json_object();
	char key[64];

	CONFIG_EACH_ROW(row, c->of) {
		snprintf(key, sizeof(key), "%s%s%s", row->name,
			 row->type == CONFIG_TYPE_TIME ? "-" : "",
			 row->type == CONFIG_TYPE_TIME ? row->unit : "");
		if (json_object_set_new(o, key, value_json(row, c)))
			w->bad = true;
	}
	_cleanup_(freep) char *s = json_dumps(o, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	json_decref(o);
	if (s)
		write_format(w, "%s\n", s);
	else
		w->bad = true;
}

/* Describing settings -------------------------------------------------------- */

/* "SIZE", "auto|on|off": what stands after the name; "" for a switch. */
static const char *placeholder(const struct config_row *row)
{
	static const char *const words[] = {
		[CONFIG_TYPE_BOOL] = "",
		[CONFIG_TYPE_SIZE] = "SIZE",
		[CONFIG_TYPE_TIME] = "TIME",
		[CONFIG_TYPE_COUNT] = "N",
	};

	return row->type == CONFIG_TYPE_STRING || row->type == CONFIG_TYPE_ENUM ? row->unit :
										  words[row->type];
}

static bool is_on(const struct config_row *row)
{
	return row->type == CONFIG_TYPE_BOOL && !strcmp(row->def, "on");
}

/* So that --help fits a screen. */
static bool is_seldom(const struct config_row *row)
{
	static const bool seldom[CONFIG_COUNT] = {
		[CONFIG_evict_low] = true, [CONFIG_temp_ms] = true, [CONFIG_evict_dirs_ms] = true,
		[CONFIG_ttl_from] = true, [CONFIG_priority] = true, [CONFIG_spin_us] = true,
		[CONFIG_direct_from_bytes] = true, [CONFIG_control] = true,
		[CONFIG_gid_index] = true, [CONFIG_keep_alive_ms] = true,
		[CONFIG_ssd_wait_ms] = true,
	};

	return seldom[row - config_rows];
}

void config_print_help(enum config_of of, bool often, struct writer *w)
{
	CONFIG_EACH_ROW(row, of) {
		if (often && is_seldom(row))
			continue;
		const char *what = placeholder(row);
		char left[64];

		/* Of a switch that is on, the way to turn it off is news. */
		snprintf(left, sizeof(left), "--%s%s%s%s", is_on(row) ? "no-" : "", row->name,
			 *what ? " " : "", what);
		if (is_on(row))
			write_format(w, "  %-34s No %c%s", left, tolower(*row->sentence),
				     row->sentence + 1);
		else
			write_format(w, "  %-34s %s", left, row->sentence);
		if (row->type != CONFIG_TYPE_BOOL && *row->def && strcmp(row->def, "0") != 0)
			write_format(w, " (%s)", row->def);
		write_format(w, "\n");
	}
}

/* troff takes - for a hyphen, and a dot in front for a request. */
static void print_troff(struct writer *w, const char *s)
{
	for (; *s; s++)
		if (*s == '-' || *s == '\\')
			write_format(w, "\\%c", *s == '-' ? '-' : 'e');
		else
			write_format(w, "%c", *s);
}

void config_print_man(enum config_of of, struct writer *w)
{
	CONFIG_EACH_ROW(row, of) {
		write_format(w, ".TP\n\\fB\\-\\-");
		print_troff(w, row->name);
		write_format(w, "\\fR");
		if (*placeholder(row)) {
			write_format(w, " \\fI");
			print_troff(w, placeholder(row));
			write_format(w, "\\fR");
		} else {
			write_format(w, ", \\fB\\-\\-no\\-");
			print_troff(w, row->name);
			write_format(w, "\\fR");
		}
		write_format(w, "\n");
		print_troff(w, row->sentence);
		write_format(w, ".");
		if (*row->def) {
			write_format(w, " Default: ");
			print_troff(w, row->def);
			write_format(w, ".");
		}
		write_format(w, "\n");
	}
}
