/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs status: what is mounted and how full it is, from each mount's own
 * statistics; a mount that does not answer is named as such, in bounded time. Then
 * the stores of this user that are served to others, of which only the sizes are known
 * here. What only a node knows of itself is asked of it, by its mount or in a session of
 * our own.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "engine/engine.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/status_node.h"
#include "tools/stores.h"

enum { ANSWER_MS = 3000 };

void cmd_status_help(void)
{
	printf("  --json             an array of objects, sizes in bytes\n"
	       "  DIR                of this mount only\n"
	       "  HOST:PORT          of this node only, whether it is mounted here or not\n");
	client_help();
}

struct status {
	struct table t;
	json_t *nodes;    /* by their names: those that were asked already */
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
	if (stats_value(text, rdma))
		table_str(&s->t, "rdma");
	else if (stats_value(text, tcp))
		table_str(&s->t, "tcp");
	else
		table_none(&s->t);
}

/* `node`: what its node has said, or NULL. */
static void add_values(struct status *s, const char *text, const char *node)
{
	uint64_t free_bytes = stats_value(text, "pool_bytes{state=\"free\"}");
	uint64_t used = stats_value(text, "pool_bytes{state=\"live\"}") +
			stats_value(text, "pool_bytes{state=\"writing\"}") +
			stats_value(text, "pool_bytes{state=\"sealed\"}") +
			stats_value(text, "pool_bytes{state=\"dying\"}");

	table_str(&s->t, "mounted");
	table_size(&s->t, free_bytes + used);
	table_size(&s->t, used);
	table_size(&s->t, free_bytes);
	table_size(&s->t, stats_value(text, "index_bytes{kind=\"size\"}"));
	table_size(&s->t, stats_value(text, "index_bytes{kind=\"used\"}"));
	table_int(&s->t, (int64_t)stats_value(text, "handles"));
	table_int(&s->t, (int64_t)stats_value(text, "drafts"));
	/* Beside connections for RDMA those for TCP are kept. */
	add_transport(s, text, "data_connections{transport=\"rdma\"}",
		      "data_connections{transport=\"tcp\"}");
	add_transport(s, text, "request_connections{transport=\"rdma\"}",
		      "request_connections{transport=\"tcp\"}");
	const char *has_disk = node ? node : text;
	uint64_t disk = stats_value(has_disk, "disk_bytes{kind=\"size\"}");
	if (disk) {
		table_size(&s->t, disk);
		table_size(&s->t, stats_value(has_disk, "disk_bytes{kind=\"used\"}"));
	} else {
		table_none(&s->t);
		table_none(&s->t);
	}
}

/* The node of the last row. Of several mounts of one, the last answer is printed. */
static void add_node(struct status *s, const char *name, const char *text, const char *state)
{
	size_t last = json_array_size(s->t.rows) - 1;
	json_t *node = status_node(name, text, state);

	json_object_set(s->nodes, name, node);
	json_object_set_new(json_array_get(s->t.rows, last), "node", node);
}

/* What it counts for itself; empty if it does not say. `w` is a text in any case. */
static const char *ask_node_of(struct status *s, const struct mount_line *m, struct writer *w)
{
	int r = mounts_read_control(m->dir, "node-stats", ANSWER_MS, w);

	if (r < 0)
		w->len = 0;
	write_u8(w, 0);
	if (!r || r == -EOPNOTSUPP || r == -ENOENT) /* the node, or the mount, is an older one */
		return r ? "does not say" : "answers";
	s->silent++;
	cmd_fail(EXIT_FAILED, "status", "node %s: no answer by way of %s: %s. Try: slicefs doctor %s",
		 m->source, m->dir, error_text(r), m->source);
	return "does not answer";
}

static void add_answer(struct status *s, const struct mount_line *m, const char *text)
{
	_cleanup_(writer_fini) struct writer w = { 0 };

	if (!strchr(m->source, ':')) {
		add_values(s, text, NULL);
		return;
	}
	const char *state = ask_node_of(s, m, &w);
	const char *said = !w.bad && w.len > 1 ? (const char *)w.p : NULL;
	add_values(s, text, said);
	add_node(s, m->source, said, state);
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
		add_answer(s, m, (const char *)w.p);
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

static void print(struct status *s, int json)
{
	const char *name;
	json_t *node;

	table_print(&s->t, json);
	if (!json)
		json_object_foreach(s->nodes, name, node)
			status_node_print(node);
}

/* Exit status. */
static int status_of_mounts(struct status *s, int json)
{
	int r = mounts_each(add_mount, s);

	if (r == 0)
		stores_each(add_served, s);
	if (r == 0 && !(s->only && !s->found))
		print(s, json);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "status", "/proc/self/mountinfo: %s", strerror(-r));
	if (s->only && !s->found)
		return cmd_fail(EXIT_FAILED, "status", "%s: no slicefs is mounted there. "
				"Try: slicefs mount %s", s->only, s->only);
	return s->silent ? EXIT_FAILED : EXIT_DONE;
}

/* A row as of a mount, without what only a mount has. */
static void add_node_only(struct status *s, const char *name, const char *text)
{
	table_row(&s->t);
	table_none(&s->t);
	table_str(&s->t, name);
	add_values(s, text, NULL);
	json_t *row = json_array_get(s->t.rows, 0);
	json_object_set_new(row, "state", json_string("serving"));
	static const char *const of_mounts[] = { "handles", "drafts", "transport", "requests" };
	for (unsigned i = 0; i < sizeof(of_mounts) / sizeof(*of_mounts); i++)
		json_object_set_new(row, of_mounts[i], json_null());
	add_node(s, name, text, "answers");
}

static int status_of_node(struct status *s, struct client *c, const char *word, int json)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	struct engine_ask a = { 0 };

	if (engine_node_name(word, c->node, sizeof(c->node)) < 0)
		return cmd_usage("status", "\"%s\": neither a mounted directory nor HOST:PORT", word);
	int status = client_open(c);
	if (status)
		return status;
	int r = client_ask(c, &a, engine_node_stats);
	client_close(c);
	w = a.text;
	write_u8(&w, 0);
	if (r == -EOPNOTSUPP)
		return cmd_fail(EXIT_FAILED, "status", "%s: it does not tell what it counts. Try: a "
				"newer slicefs there", c->node);
	if (r < 0 || w.bad)
		return cmd_fail(EXIT_FAILED, "status", "%s: %s", c->node,
				error_text(r < 0 ? r : -ENOMEM));
	add_node_only(s, c->node, (const char *)w.p);
	print(s, json);
	return EXIT_DONE;
}

/* Of one mount, or of a node: what is no path. */
static int status_of(struct status *s, struct client *c, const char *word, int json)
{
	char dir[PATH_MAX];
	struct mount_line m;
	struct stat st;
	int r = mounts_canonical(word, dir);

	if (strchr(word, '/') || !*word || (r >= 0 && mounts_find(dir, &m)) || !stat(word, &st)) {
		if (r < 0)
			return cmd_fail(EXIT_FAILED, "status", "%s: %s", word, strerror(-r));
		s->only = dir;
		return status_of_mounts(s, json);
	}
	return status_of_node(s, c, word, json);
}

int cmd_status(int argc, char **argv)
{
	struct status s = { 0 };
	struct client client;
	int c, json = 0, status = EXIT_DONE;
	const struct option longs[] = { { "json", no_argument, &json, 1 }, CLIENT_OPTIONS, { 0 } };

	client_init(&client, "status", true);
	opterr = 0;
	while (!status && (c = getopt_long(argc, argv, ":", longs, NULL)) != -1)
		if (c)
			status = client_option(&client, c, argv);
	if (status)
		return status;
	if (argc > optind + 1)
		return cmd_usage("status", "one directory or node at most");
	table_init(&s.t, columns);
	s.nodes = json_object();
	status = argc > optind ? status_of(&s, &client, argv[optind], json) :
				 status_of_mounts(&s, json);
	json_decref(s.nodes);
	table_fini(&s.t);
	return status;
}
