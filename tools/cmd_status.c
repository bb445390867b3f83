/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs status: what is mounted and how full it is, from each mount's own
 * statistics; a mount that does not answer is named as such, in bounded time. Then
 * the stores of this user that are served to others, of which only the sizes are known
 * here.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "engine/engine.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/stores.h"

enum { ANSWER_MS = 3000 };

void cmd_status_help(void)
{
	printf("  --json  an array of objects, sizes in bytes\n"
	       "  DIR     of this mount only\n");
}

/* The value of a line `slicefs_<series> <value>` of Prometheus text; 0: absent. */
static uint64_t value_of(const char *text, const char *series)
{
	size_t n = strlen(series);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, "slicefs_", 8) && !strncmp(p + 8, series, n) && p[8 + n] == ' ')
			return strtoull(p + 9 + n, NULL, 10);
	}
	return 0;
}

struct status {
	struct table t;
	const char *only; /* canonical, or NULL */
	unsigned found, silent;
};

static const char *const columns[] = { "dir",  "store", "state", "pool",    "used",
				       "free", "index", "index used", "handles", "drafts",
				       "transport", "requests", "disk", "disk used", NULL };

static void add_silent(struct status *s, const struct mount_line *m, int err)
{
	table_str(&s->t, err == -ETIMEDOUT ? "does not answer" :
			 err == -ENOTCONN  ? "dead" : strerror(-err));
	for (unsigned i = 0; i < 7; i++)
		table_int(&s->t, 0);
	for (unsigned i = 0; i < 4; i++) /* transport, requests, disk and its use */
		table_none(&s->t);
	s->silent++;
	if (err == -EACCES || err == -EPERM)
		cmd_fail(EXIT_FAILED, "status", "%s: %s: it lets in only user %u, who mounted it. "
			 "Try: as that user", m->dir, strerror(-err), m->uid);
	else
		cmd_fail(EXIT_FAILED, "status", "%s: %s. Try: slicefs umount %s%s", m->dir,
			 err == -ETIMEDOUT ? "no answer within 3 s" : strerror(-err),
			 err == -ETIMEDOUT ? "--abort " : "", m->dir);
}

/* By which something goes to another host's node now; no entry where no connection is up. */
static void add_transport(struct status *s, const char *text, const char *rdma, const char *tcp)
{
	if (value_of(text, rdma))
		table_str(&s->t, "rdma");
	else if (value_of(text, tcp))
		table_str(&s->t, "tcp");
	else
		table_none(&s->t);
}

static void add_values(struct status *s, const char *text)
{
	uint64_t free_bytes = value_of(text, "pool_bytes{state=\"free\"}");
	uint64_t used = value_of(text, "pool_bytes{state=\"live\"}") +
			value_of(text, "pool_bytes{state=\"writing\"}") +
			value_of(text, "pool_bytes{state=\"sealed\"}") +
			value_of(text, "pool_bytes{state=\"dying\"}");

	table_str(&s->t, "mounted");
	table_size(&s->t, free_bytes + used);
	table_size(&s->t, used);
	table_size(&s->t, free_bytes);
	table_size(&s->t, value_of(text, "index_bytes{kind=\"size\"}"));
	table_size(&s->t, value_of(text, "index_bytes{kind=\"used\"}"));
	table_int(&s->t, (int64_t)value_of(text, "handles"));
	table_int(&s->t, (int64_t)value_of(text, "drafts"));
	/* Beside connections for RDMA those for TCP are kept. */
	add_transport(s, text, "data_connections{transport=\"rdma\"}",
		      "data_connections{transport=\"tcp\"}");
	add_transport(s, text, "request_connections{transport=\"rdma\"}",
		      "request_connections{transport=\"tcp\"}");
	uint64_t disk = value_of(text, "disk_bytes{kind=\"size\"}");
	if (disk) {
		table_size(&s->t, disk);
		table_size(&s->t, value_of(text, "disk_bytes{kind=\"used\"}"));
	} else {
		table_none(&s->t);
		table_none(&s->t);
	}
}

static int add_mount(const struct mount_line *m, void *arg)
{
	struct status *s = arg;
	struct writer w = { 0 };

	if (s->only && strcmp(s->only, m->dir))
		return 0;
	s->found++;
	table_row(&s->t);
	table_str(&s->t, m->dir);
	table_str(&s->t, m->source);
	int r = mounts_read_control(m->dir, "stats", ANSWER_MS, &w);
	write_u8(&w, 0);
	if (r < 0 || w.bad)
		add_silent(s, m, r < 0 ? r : -ENOMEM);
	else
		add_values(s, (const char *)w.p);
	writer_fini(&w);
	return 0;
}

static int add_served(const char *name, const char *dir, void *arg)
{
	struct status *s = arg;
	struct store_stat st;

	if (s->only || engine_store_stat(dir, &st) < 0 || !*st.serves)
		return 0;
	table_row(&s->t);
	table_none(&s->t);
	table_str(&s->t, name);
	table_str(&s->t, "serving");
	table_size(&s->t, st.pool_bytes);
	table_none(&s->t); /* used, free */
	table_none(&s->t);
	table_size(&s->t, st.index_bytes);
	/* used, handles, drafts, transport, requests, disk and its use */
	for (unsigned i = 0; i < 7; i++)
		table_none(&s->t);
	return 0;
}

int cmd_status(int argc, char **argv)
{
	char dir[PATH_MAX];
	struct status s = { 0 };
	int c, r = 0, json = 0;
	const struct option longs[] = { { "json", no_argument, &json, 1 }, { 0 } };

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (c == '?')
			return cmd_bad_option("status", argv);
	if (argc > optind + 1)
		return cmd_usage("status", "one directory at most");
	if (argc > optind) {
		r = mounts_canonical(argv[optind], dir);
		s.only = dir;
	}
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "status", "%s: %s", argv[optind], strerror(-r));
	table_init(&s.t, columns);
	r = mounts_each(add_mount, &s);
	if (r == 0)
		stores_each(add_served, &s);
	if (r == 0 && !(s.only && !s.found))
		table_print(&s.t, json);
	table_fini(&s.t);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "status", "/proc/self/mountinfo: %s", strerror(-r));
	if (s.only && !s.found)
		return cmd_fail(EXIT_FAILED, "status", "%s: no slicefs is mounted there. "
				"Try: slicefs mount %s", s.only, s.only);
	return s.silent ? EXIT_FAILED : EXIT_DONE;
}
