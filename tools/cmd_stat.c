/* SPDX-License-Identifier: Apache-2.0 */
/* slicefs stat: what the cache knows of an object, from `slicefs.layout`. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "common/size.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"

enum { ANSWER_MS = 10000 };

void cmd_stat_help(void)
{
	printf("  --json  an array with an object for each PATH, with its extents\n");
}

static const char *reason(int err)
{
	switch (err) {
	case -ENODATA:
	case -EOPNOTSUPP:
		return "not in a slicefs mount. Try: slicefs status";
	case -ENOSYS:
		return "its mount has --no-xattrs, by which this would be asked";
	case -ETIMEDOUT:
		return "no answer in time. Try: slicefs status";
	default:
		return error_text(err);
	}
}

static void print_line(const char *key, const char *value)
{
	printf("  %-9s ", key);
	print_name(value);
	putchar('\n');
}

static void print_object(const char *path, json_t *o)
{
	const char *key;
	json_t *v;

	print_name(path);
	putchar('\n');
	json_object_foreach(o, key, v) {
		if (!strcmp(key, "size"))
			printf("  %-9s %s (%lld bytes)\n", key,
			       size_column((uint64_t)json_integer_value(v)).s,
			       (long long)json_integer_value(v));
		else if (json_is_string(v))
			print_line(key, json_string_value(v));
		else if (json_is_array(v)) /* the extents: those listed, and more */
			printf("  %-9s %lld\n", key,
			       (long long)json_array_size(v) +
				       json_integer_value(json_object_get(o, "more_extents")));
		else if (!strcmp(key, "more_extents"))
			continue;
		else if (json_is_integer(v))
			printf("  %-9s %lld\n", key, (long long)json_integer_value(v));
		else
			printf("  %-9s %s\n", key, json_is_true(v) ? "yes" : "no");
	}
}

static int stat_one(const char *path, json_t *all)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	int r = mounts_read_layout(path, ANSWER_MS, &w);

	if (r < 0)
		return cmd_fail(EXIT_FAILED, "stat", "%s: %s", path, reason(r));
	json_error_t err;
	json_t *o = json_loadb((const char *)w.p, w.len, 0, &err);
	if (!o)
		return cmd_fail(EXIT_FAILED, "stat", "%s: cannot read its layout: %s", path,
				err.text);
	json_object_set_new(o, "path", json_text(path, strlen(path)));
	if (all) {
		json_array_append_new(all, o);
	} else {
		json_object_del(o, "path");
		print_object(path, o);
		json_decref(o);
	}
	return EXIT_DONE;
}

int cmd_stat(int argc, char **argv)
{
	int c, json = 0, status = EXIT_DONE;
	const struct option longs[] = { { "json", no_argument, &json, 1 }, { 0 } };

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (c == '?')
			return cmd_bad_option("stat", argv);
	if (optind == argc)
		return cmd_usage("stat", "of which path?");
	json_t *all = json ? json_array() : NULL;
	for (int i = optind; i < argc; i++) {
		int s = stat_one(argv[i], all);
		status = s ? s : status;
	}
	if (all) {
		json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		putchar('\n');
		json_decref(all);
	}
	return status;
}
