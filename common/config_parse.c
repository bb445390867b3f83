/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines and -o lists, taken apart into names and values. Everything
 * here comes from outside: a refusal is one printable line that says what was
 * wrong and what to try, and what was parsed before it stays set.
 *
 * A name is looked for among the command's settings first (also with _ for -), then
 * with "no" or "no-" taken from its front, then, of a mount, among mount(8)'s words.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/config_table.h"
#include "common/error.h"

enum mount_action { SET, KERNEL, SWALLOW, REFUSE };

static const struct mount_word {
	const char *word;
	enum mount_action action;
	const char *arg;
} mount_words[] = {
#define MOUNT_WORD(word, action, arg) { word, action, arg },
#include "common/config.def"
#undef MOUNT_WORD
	{ NULL, SET, NULL },
};

enum { QUOTED_BYTES = 80 };

static const char *command(enum config_of of)
{
	return of == CONFIG_OF_MOUNT ? "slicefs mount" : "slicefs serve";
}

/* Settings by name ----------------------------------------------------------- */

static bool same_name(const char *name, const char *word)
{
	for (; *name && *word; name++, word++)
		if (*word != *name && !(*word == '_' && *name == '-'))
			return false;
	return *name == *word;
}

static const struct config_row *find_row(enum config_of of, const char *word)
{
	CONFIG_EACH_ROW(row, of)
		if (same_name(row->name, word))
			return row;
	return NULL;
}

/* The switch that "noX" or "no-X" turns off. */
static const struct config_row *find_negated(enum config_of of, const char *word)
{
	const struct config_row *row;

	if (strncmp(word, "no", 2))
		return NULL;
	row = find_row(of, word + (word[2] == '-' || word[2] == '_' ? 3 : 2));
	return row && row->type == CONFIG_TYPE_BOOL ? row : NULL;
}

static const struct mount_word *find_mount_word(const char *item)
{
	const struct mount_word *m;

	for (m = mount_words; m->word; m++) {
		size_t n = strlen(m->word);

		if (m->word[n - 1] == '*' ? !strncmp(m->word, item, n - 1) : !strcmp(m->word, item))
			return m;
	}
	return NULL;
}

/* A name nearby, but not for two letters another two. */
static const char *nearest_name(enum config_of of, const char *word)
{
	const char *nearest = NULL;
	size_t len = strlen(word);
	unsigned least = len < 3 ? (unsigned)len : 3;

	CONFIG_EACH_ROW(row, of) {
		unsigned d = error_distance(word, row->name);

		if (d < least) {
			least = d;
			nearest = row->name;
		}
	}
	return nearest;
}

/* Another command's? */
static bool is_of_other(enum config_of of, const char *word)
{
	enum config_of other = CONFIG_OF_BOTH & ~of;

	return find_row(other, word) || find_negated(other, word);
}

static int refuse_unknown(enum config_of of, const char *word, char **ret_why)
{
	const char *nearest = nearest_name(of, word);
	const struct mount_word *m = of == CONFIG_OF_MOUNT ? find_mount_word(word) : NULL;
	char quoted[QUOTED_BYTES];

	error_quote(quoted, sizeof(quoted), word);
	if (m && m->action == REFUSE)
		return why(ret_why, -EINVAL, "%s: %s", quoted, m->arg);
	if (m)
		return why(ret_why, -EINVAL, "%s: no such option. Try: -o %s", quoted, quoted);
	if (is_of_other(of, word))
		return why(ret_why, -EINVAL, "%s: no such option of %s, but one of %s. Try: %s --help",
			   quoted, command(of), command(CONFIG_OF_BOTH & ~of), command(of));
	if (nearest)
		return why(ret_why, -EINVAL, "%s: no such option. Try: %s", quoted, nearest);
	return why(ret_why, -EINVAL, "%s: no such option. Try: %s --help", quoted, command(of));
}

static int refuse_value(const struct config_row *row, const char *value, int err, char **ret_why)
{
	struct writer w = { 0 };
	char quoted[QUOTED_BYTES];
	int r;

	if (err == -ENOMEM)
		return why(ret_why, err, "%s: out of memory", row->name);
	config_row_print_try(row, &w);
	error_quote(quoted, sizeof(quoted), value ? value : "");
	if (!value)
		r = why(ret_why, -EINVAL, "%s: needs a value. Try: %.*s", row->name, (int)w.len,
			w.p ? (char *)w.p : "");
	else
		r = why(ret_why, -EINVAL, "%s: \"%s\" is %s. Try: %.*s", row->name, quoted,
			err == -ERANGE ? "out of range" : "not a value for it", (int)w.len,
			w.p ? (char *)w.p : "");
	writer_fini(&w);
	return r;
}

static int set_row(struct config *c, const struct config_row *row, const char *value,
		   char **ret_why)
{
	int r;

	if (!value && row->type != CONFIG_TYPE_BOOL)
		return refuse_value(row, NULL, -EINVAL, ret_why);
	r = config_row_parse(row, c, value ? value : "on");
	if (r < 0)
		return refuse_value(row, value, r, ret_why);
	c->given |= 1ULL << (row - config_rows);
	return 0;
}

int config_set(struct config *c, const char *name, const char *value, char **ret_why)
{
	const struct config_row *row = find_row(c->of, name);
	char quoted[QUOTED_BYTES];

	if (row)
		return set_row(c, row, value, ret_why);
	row = find_negated(c->of, name);
	if (!row)
		return refuse_unknown(c->of, name, ret_why);
	if (!value)
		return set_row(c, row, "off", ret_why);
	error_quote(quoted, sizeof(quoted), value);
	return why(ret_why, -EINVAL, "no-%s: takes no value, but has \"%s\". Try: no-%s", row->name,
		   quoted, row->name);
}

/* -o lists ------------------------------------------------------------------- */

static int add_kernel_word(struct config *c, const char *word)
{
	char *s;

	if (asprintf(&s, "%s%s%s", c->kernel_words ? c->kernel_words : "",
		     c->kernel_words ? "," : "", word) < 0)
		return -ENOMEM;
	free(c->kernel_words);
	c->kernel_words = s;
	return 0;
}

static int set_pair(struct config *c, char *pair, char **ret_why)
{
	char *eq = strchr(pair, '=');

	if (eq)
		*eq++ = 0;
	return config_set(c, pair, eq, ret_why);
}

/* One item of the list; may be written to. */
static int parse_item(struct config *c, char *item, char **ret_why)
{
	const struct mount_word *m = find_mount_word(item);
	_cleanup_(freep) char *pair = NULL;

	if (!m)
		return set_pair(c, item, ret_why);
	switch (m->action) {
	case SWALLOW:
		return 0;
	case KERNEL:
		if (add_kernel_word(c, m->word) == 0)
			return 0;
		return why(ret_why, -ENOMEM, "%s: out of memory", m->word);
	case SET:
		pair = strdup(m->arg);
		if (!pair)
			return why(ret_why, -ENOMEM, "%s: out of memory", m->word);
		return set_pair(c, pair, ret_why);
	case REFUSE:
		break;
	}
	return why(ret_why, -EINVAL, "%s: %s", m->word, m->arg);
}

/* Copies the item at *s without its backslashes and moves *s behind it. */
static void next_item(const char **s, char *to)
{
	const char *p = *s;

	for (; *p && *p != ','; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*to++ = *p;
	}
	*to = 0;
	*s = *p ? p + 1 : p;
}

int config_parse_list(struct config *c, const char *list, char **ret_why)
{
	_cleanup_(freep) char *item = malloc(strlen(list) + 1);

	if (!item)
		return why(ret_why, -ENOMEM, "-o: out of memory");
	while (*list) {
		next_item(&list, item);
		if (!*item)
			continue; /* ",," and a comma at the end */
		int r = parse_item(c, item, ret_why);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Command lines -------------------------------------------------------------- */

/* --name, --name=value, or --name and the next argument; *i is moved over it. */
static int parse_long(struct config *c, int argc, char **argv, int *i, char **ret_why)
{
	_cleanup_(freep) char *name = strdup(argv[*i] + 2);
	const struct config_row *row;
	char *value;

	if (!name)
		return why(ret_why, -ENOMEM, "%s: out of memory", "--");
	value = strchr(name, '=');
	if (value)
		*value++ = 0;
	row = find_row(c->of, name);
	if (!value && row && row->type != CONFIG_TYPE_BOOL && *i + 1 < argc)
		return config_set(c, name, argv[++*i], ret_why);
	return config_set(c, name, value, ret_why);
}

/* -o list, -olist. */
static int parse_o(struct config *c, int argc, char **argv, int *i, char **ret_why)
{
	const char *list = argv[*i] + 2;

	if (!*list && *i + 1 >= argc)
		return why(ret_why, -EINVAL, "-o: needs a list. Try: -o ro,pool-size=4G");
	return config_parse_list(c, *list ? list : argv[++*i], ret_why);
}

static int parse_option(struct config *c, int argc, char **argv, int *i, char **ret_why)
{
	const char *arg = argv[*i];
	bool mount = c->of == CONFIG_OF_MOUNT;

	if (!strcmp(arg, "--help") || !strcmp(arg, "-h"))
		return CONFIG_HELP;
	if (mount && !strcmp(arg, "-r"))
		return config_set(c, "read-only", NULL, ret_why);
	if (mount && !strncmp(arg, "-o", 2))
		return parse_o(c, argc, argv, i, ret_why);
	if (!strncmp(arg, "--", 2))
		return parse_long(c, argc, argv, i, ret_why);
	return refuse_unknown(c->of, arg, ret_why);
}

/* Settings that do not go together. */
static int check(const struct config *c, char **ret_why)
{
	bool size = config_given(c, CONFIG_ssd_size_bytes);

	if (!*c->ssd && (size || config_given(c, CONFIG_ssd_wait_ms)))
		return why(ret_why, -EINVAL, "%s: of which disk? Try: with --ssd PATH",
			   size ? "ssd-size" : "ssd-wait");
	if (*c->ssd && !c->evict_high)
		return why(ret_why, -EINVAL, "evict-high: 0 keeps all in memory, and ssd is for what "
			   "goes out of it. Try: one of them");
	if (!c->evict_high || !config_given(c, CONFIG_evict_low) || c->evict_low <= c->evict_high)
		return 0;
	return why(ret_why, -EINVAL, "evict-low: %u percent is more than evict-high's %u. Try: less",
		   (unsigned)c->evict_low, (unsigned)c->evict_high);
}

int config_parse(struct config *c, int argc, char **argv, int *ret_argc, char **ret_why)
{
	int kept = 1, i = 1, r;

	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (argv[i][0] != '-' || !argv[i][1]) {
			argv[kept++] = argv[i];
			continue;
		}
		r = parse_option(c, argc, argv, &i, ret_why);
		if (r)
			return r;
	}
	for (i++; i < argc; i++) /* behind the -- */
		argv[kept++] = argv[i];
	if (kept < argc)
		argv[kept] = NULL;
	*ret_argc = kept;
	return check(c, ret_why);
}

/* Beginning and end ---------------------------------------------------------- */

int config_init(struct config *c, enum config_of of)
{
	*c = (struct config){ .of = of };
	CONFIG_EACH_ROW(row, of) {
		int r = config_row_parse(row, c, row->def);
		if (r < 0)
			return r;
	}
	return 0;
}

void config_fini(struct config *c)
{
	for (unsigned i = 0; i < CONFIG_COUNT; i++)
		if (config_rows[i].type == CONFIG_TYPE_STRING)
			free(*(char **)((char *)c + config_rows[i].offset));
	free(c->kernel_words);
	*c = (struct config){ 0 };
}

/* Later words count, so what the user said stands behind root's defaults. */
int config_mount_options(const struct config *c, bool as_root, char **ret)
{
	bool all = config_given(c, CONFIG_allow_other) ? c->allow_other : as_root;
	char *s;

	if (asprintf(&s, "%s%s%s%s%s%s", as_root ? ",dev,suid" : "", all ? ",allow_other" : "",
		     c->read_only ? ",ro" : "", c->noatime ? ",noatime" : "",
		     c->kernel_words ? "," : "", c->kernel_words ? c->kernel_words : "") < 0)
		return -ENOMEM;
	if (*s)
		memmove(s, s + 1, strlen(s)); /* the comma in front */
	*ret = s;
	return 0;
}
