/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs fsck: all checks of a store. A stopped one is opened (read-only
 * without --repair); a mounted one answers for itself through its control file.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "engine/engine.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/stores.h"

enum { CHECK_MS = 600 * 1000 };

struct fsck {
	int repair, json;
	const char *what; /* as the user named it */
	struct writer report;
	unsigned repaired;
	int left; /* problems, after a repair */
};

void cmd_fsck_help(void)
{
	printf("  --repair  free or drop what is reported; never invents anything\n"
	       "  --json    an object: target, problems (array), repaired, left\n"
	       "  STORE     a stopped store (slicefs store ls)\n"
	       "  DIR       a mounted directory: checked while it works\n");
}

static void print_text(const struct fsck *f)
{
	unsigned n = 0;

	for (size_t i = 0; i < f->report.len; i++)
		n += f->report.p[i] == '\n';
	print_writer(&f->report);
	if (n == 0)
		printf("%s: clean\n", f->what);
	else if (f->repair)
		printf("%s: %u repaired, %d left\n", f->what, f->repaired, f->left);
	else
		printf("%s: %d problem%s\n", f->what, f->left, f->left == 1 ? "" : "s");
}

static void print_json(const struct fsck *f)
{
	json_t *problems = json_array();
	const char *p = (const char *)f->report.p, *end = p + f->report.len;

	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p);
		json_array_append_new(problems, json_text(p, n));
		p += n + 1;
	}
	json_t *o = json_pack("{s:o, s:o, s:i, s:i}", "target", json_text(f->what, strlen(f->what)),
			      "problems", problems, "repaired", (int)f->repaired, "left", f->left);
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(o);
}

static int answer(const struct fsck *f)
{
	if (f->json)
		print_json(f);
	else
		print_text(f);
	return f->left ? EXIT_FAILED : EXIT_DONE;
}

static int check_mounted(struct fsck *f, const struct mount_line *m)
{
	const char *dir = m->dir;

	if (strchr(m->source, ':'))
		return cmd_fail(EXIT_FAILED, "fsck",
				"%s: its store is that of node %s, and is checked there, when it is "
				"stopped. Try: slicefs fsck NAME there, or slicefs scrub %s", dir,
				m->source, m->source);
	if (f->repair)
		return cmd_fail(EXIT_FAILED, "fsck",
				"%s: repairs are for stopped stores. Try: slicefs umount %s", dir,
				dir);
	int r = mounts_read_control(dir, "check", CHECK_MS, &f->report);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "fsck", "%s: cannot check: %s", dir, strerror(-r));
	for (size_t i = 0; i < f->report.len; i++)
		f->left += f->report.p[i] == '\n';
	return answer(f);
}

/* What a repair has left, as the next start finds it. */
static int look_again(const char *dir, char **why)
{
	_cleanup_(writer_fini) struct writer report = { 0 };
	struct engine_opts o = { .dir = dir, .read_only = true };
	unsigned repaired = 0;
	struct engine *e;
	int r = engine_open(&o, &e, why);

	if (r < 0)
		return r;
	r = engine_check(e, false, &report, &repaired);
	engine_close(e);
	return r;
}

static int check_stopped(struct fsck *f, const char *name)
{
	char dir[PATH_MAX];
	_cleanup_(freep) char *why = NULL;
	struct engine *e;

	stores_dir(name, dir);
	struct engine_opts o = { .dir = dir, .read_only = !f->repair, .repair = f->repair };
	struct store_stat st;
	int r = engine_store_stat(dir, &st);
	if (r < 0 || st.state == STORE_NONE)
		return cmd_fail(EXIT_FAILED, "fsck", "%s: no such store. Try: slicefs store ls",
				f->what);
	r = engine_open(&o, &e, &why);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "fsck", "%s", why ? why : strerror(-r));
	r = engine_check(e, f->repair, &f->report, &f->repaired);
	engine_close(e);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "fsck", "%s: cannot check: %s", name, strerror(-r));
	f->left = r;
	r = r > 0 && f->repair ? look_again(dir, &why) : r;
	if (r >= 0)
		f->left = r;
	int status = answer(f);
	return r >= 0 ? status :
			cmd_fail(EXIT_FAILED, "fsck", "%s: cannot see what is left: %s. Try: "
				 "slicefs fsck %s", name, why ? why : strerror(-r), name);
}

static int check(struct fsck *f)
{
	char dir[PATH_MAX];
	struct mount_line m;

	if (mounts_canonical(f->what, dir) == 0 && mounts_find(dir, &m))
		return check_mounted(f, &m);
	if (stores_name_ok(f->what))
		return check_stopped(f, f->what);
	if (mounts_canonical(f->what, dir) == 0) {
		char name[STORES_NAME_MAX + 1];
		stores_name_of_dir(dir, name);
		return check_stopped(f, name);
	}
	return cmd_fail(EXIT_FAILED, "fsck", "%s: neither a store nor a mounted directory. Try: "
			"slicefs store ls", f->what);
}

int cmd_fsck(int argc, char **argv)
{
	struct fsck f = { 0 };
	const struct option longs[] = {
		{ "repair", no_argument, &f.repair, 1 },
		{ "json", no_argument, &f.json, 1 },
		{ 0 },
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (c == '?')
			return cmd_bad_option("fsck", argv);
	if (optind + 1 != argc)
		return cmd_usage("fsck", "which store or directory?");
	f.what = argv[optind];
	int status = check(&f);
	writer_fini(&f.report);
	return status;
}
