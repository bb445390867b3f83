/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs scrub: has a daemon compare all that is published in its store with its checksums,
 * and says how far it is. The work is the daemon's: of the own store behind a mount by the
 * control file `scrub`, of a node's in a session there. Either ends with this process, and the
 * scrub with that; so there is nothing to do about Ctrl-C.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/error.h"
#include "common/size.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/stores.h"
#include "tools/temps.h"

#define RATE "500M"

enum { LOOK_MS = 200, JSON_MS = 1000, REPORT_ROOM = 128 << 10, ANSWER_MS = 10000 };

static const char full[] = "########################", empty[] = "........................";

struct scrubbing {
	struct client client; /* of a node */
	int fd;               /* or the control file of a mount; -1 */
	const char *what;     /* as the user named it */
	int json;
	struct scrub_opts o;
	uint64_t begun_ns, said_ns;
	bool has_line; /* one is on the terminal that is to be written over */
};

void cmd_scrub_help(void)
{
	printf("  --rate SIZE        read no more than that in a second; 0: no limit (" RATE ")\n"
	       "  --evict-bad        evict what is bad, so that who needs it makes it anew\n"
	       "  --store NAME       the store of that name, which is mounted or served here\n"
	       "  --json             a line for each second, each bad object, and the end\n");
	client_help();
	printf("  DIR                a directory whose own store is mounted there\n"
	       "  HOST:PORT          a node\n");
}

/* What is said ------------------------------------------------------------------------- */

static uint64_t rate_of(const struct scrubbing *s, const struct scrub_report *r)
{
	uint64_t ns = clock_ns() - s->begun_ns;

	return ns ? (uint64_t)((double)r->bytes * NS_PER_S / (double)ns) : 0;
}

/* Of the whole, as far as one knows: what is there may grow. */
static uint64_t total_of(const struct scrub_report *r)
{
	return r->ended || r->total < r->bytes ? r->bytes : r->total;
}

static void say_json(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(o);
	if (!fflush(stdout))
		return;
	if (errno == EPIPE)
		cmd_end_by_pipe();
	temps_exit(cmd_fail(EXIT_FAILED, "scrub", "standard output: %s", error_text(errno)));
}

static json_t *numbers(const struct scrubbing *s, const char *event, const struct scrub_report *r)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "event", event,
			 "objects", (json_int_t)r->objects, "bytes", (json_int_t)r->bytes,
			 "total", (json_int_t)total_of(r), "rate", (json_int_t)rate_of(s, r),
			 "bad", (json_int_t)r->bad_objects, "evicted", (json_int_t)r->evicted,
			 "changed", (json_int_t)r->changed, "elsewhere",
			 (json_int_t)r->elsewhere);
}

static uint64_t left_s(const struct scrubbing *s, const struct scrub_report *r)
{
	uint64_t rate = rate_of(s, r);

	return rate ? (total_of(r) - r->bytes) / rate : 0;
}

static void say_progress(struct scrubbing *s, const struct scrub_report *r)
{
	uint64_t total = total_of(r), now = clock_ns();
	int bar = sizeof(full) - 1;
	char line[256];
	int done = total ? (int)((double)r->bytes / (double)total * bar) : bar;

	if (s->json) {
		if (now - s->said_ns < JSON_MS * NS_PER_MS)
			return;
		s->said_ns = now;
		json_t *o = numbers(s, "progress", r);
		json_object_set_new(o, "eta_s", json_integer((json_int_t)left_s(s, r)));
		say_json(o);
		return;
	}
	s->has_line = true;
	uint64_t left = left_s(s, r);
	snprintf(line, sizeof(line), "[%.*s%.*s] %s of %s, %s/s, %" PRIu64 ":%02" PRIu64 " left",
		 done, full, bar - done, empty, size_text(r->bytes).s, size_text(total).s,
		 size_text(rate_of(s, r)).s, left / 60, left % 60);
	progress_show(line);
}

static void clear_line(struct scrubbing *s)
{
	if (s->has_line)
		fprintf(stderr, "\r\033[K");
	s->has_line = false;
}

static void say_bad(struct scrubbing *s, const struct scrub_bad *b)
{
	const char *reason = scrub_reason_text(b->reason);

	if (s->json) {
		say_json(json_pack("{s:s, s:o, s:I, s:s, s:b}", "event", "bad", "path",
				   json_text(b->path.p, b->path.len), "fileid",
				   (json_int_t)b->fileid, "reason", reason, "evicted", b->evicted));
		return;
	}
	char path[4 * INDEX_PATH_MAX], text[INDEX_PATH_MAX + 1];
	snprintf(text, sizeof(text), "%.*s", (int)b->path.len, (const char *)b->path.p);
	error_quote(path, sizeof(path), text);
	clear_line(s);
	printf("%s: %s%s\n", path, reason, b->evicted ? "; evicted" : "");
}

/* Exit status. */
static int say_end(struct scrubbing *s, const struct scrub_report *r)
{
	double seconds = (double)(clock_ns() - s->begun_ns) / NS_PER_S;

	clear_line(s);
	if (s->json) {
		json_t *o = numbers(s, "end", r);
		json_object_set_new(o, "seconds", json_real(seconds));
		json_object_set_new(o, "error", r->result ? json_string(error_text(r->result)) :
							    json_null());
		say_json(o);
	} else if (!r->result) {
		printf("%s: %" PRIu64 " objects, %s in %.1f s: %" PRIu64 " bad, %" PRIu64
		       " evicted, %" PRIu64 " changed meanwhile, %" PRIu64 " extents elsewhere\n",
		       s->what, r->objects, size_text(r->bytes).s, seconds, r->bad_objects,
		       r->evicted, r->changed, r->elsewhere);
	}
	if (r->result && r->result != -ECANCELED)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: cannot go on: %s. Try: slicefs fsck",
				s->what, error_text(r->result));
	if (r->result)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: it was stopped", s->what);
	return r->bad_objects ? EXIT_FAILED : EXIT_DONE;
}

/* Asking ---------------------------------------------------------------------------------- */

static uint64_t deadline(const struct scrubbing *s)
{
	return clock_ns() + s->client.timeout_ms * NS_PER_MS;
}

static int begin(struct scrubbing *s)
{
	char text[64];

	if (s->fd < 0)
		return engine_scrub_there(s->client.engine, SCRUB_BEGIN, &s->o, deadline(s), NULL);
	int n = snprintf(text, sizeof(text), "%" PRIu64 " %d\n", s->o.rate, s->o.evict_bad);
	return pwrite(s->fd, text, (size_t)n, 0) == n ? 0 : -errno;
}

static int look(struct scrubbing *s, struct writer *w)
{
	static char buf[REPORT_ROOM];

	if (s->fd < 0)
		return engine_scrub_there(s->client.engine, SCRUB_LOOK, &(struct scrub_opts){ 0 },
					  deadline(s), w);
	ssize_t n = pread(s->fd, buf, sizeof(buf), 0);
	if (n < 0)
		return -errno;
	write_bytes(w, buf, (size_t)n);
	return w->bad ? -ENOMEM : 0;
}

static int fail(struct scrubbing *s, int r)
{
	clear_line(s);
	if (r == -EBUSY)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: another scrub of it is under way. Try: "
				"when that has ended", s->what);
	if (r == -EOPNOTSUPP)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: it knows nothing of scrubs. Try: a newer "
				"slicefs there", s->what);
	if (r == -EINVAL || r == -ENOTCONN) /* another session than the one that began it, or none */
		return cmd_fail(EXIT_FAILED, "scrub", "%s: the connection was lost, and the scrub with "
				"it. Try: again", s->what);
	return cmd_fail(EXIT_FAILED, "scrub", "%s: %s", s->what, error_text(r));
}

/* 1: it has ended, with that exit status. */
static int look_once(struct scrubbing *s, int *ret_status)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	_cleanup_(scrub_report_fini) struct scrub_report report = { 0 };
	int r = look(s, &w);

	if (!r)
		r = scrub_read(writer_bytes(&w), &report);
	if (r < 0) {
		*ret_status = fail(s, r);
		return 1;
	}
	for (uint32_t i = 0; i < report.nbad; i++)
		say_bad(s, &report.bad[i]);
	if (!report.ended)
		say_progress(s, &report);
	else
		*ret_status = say_end(s, &report);
	return report.ended;
}

/* A daemon that does not answer must not keep this process. */
static void limit(const struct scrubbing *s)
{
	static char late[300];

	snprintf(late, sizeof(late), "%.200s: no answer in time. Try: slicefs status", s->what);
	temps_limit(s->client.timeout_ms + ANSWER_MS, late);
}

static int watch(struct scrubbing *s)
{
	const struct timespec pause = { .tv_nsec = LOOK_MS * NS_PER_MS };
	int status = EXIT_FAILED, r;

	s->begun_ns = s->said_ns = clock_ns();
	limit(s);
	r = begin(s);
	if (r < 0)
		return fail(s, r);
	while (!look_once(s, &status)) {
		temps_limit(0, NULL);
		nanosleep(&pause, NULL);
		limit(s);
	}
	temps_limit(0, NULL);
	return status;
}

/* Whom ------------------------------------------------------------------------------------ */

static int scrub_node(struct scrubbing *s, const char *node)
{
	if (engine_node_name(node, s->client.node, sizeof(s->client.node)) < 0)
		return cmd_usage("scrub", "\"%s\": neither a mounted directory nor HOST:PORT", node);
	s->client.only_reads = !s->o.evict_bad;
	int status = client_open(&s->client);
	if (status)
		return status;
	status = watch(s);
	client_close(&s->client);
	return status;
}

static int scrub_mount(struct scrubbing *s, const struct mount_line *m)
{
	if (strchr(m->source, ':'))
		return cmd_fail(EXIT_FAILED, "scrub", "%s: its files are those of node %s. Try: "
				"slicefs scrub %s", s->what, m->source, m->source);
	int r = mounts_probe(m->dir, ANSWER_MS);
	if (!r)
		r = temps_watch("scrub");
	if (!r) {
		limit(s);
		r = s->fd = mounts_open_control(m->dir, "scrub", O_RDWR);
	}
	if (r == -ENOENT)
		r = -EOPNOTSUPP;
	if (r < 0)
		return fail(s, r);
	int status = watch(s);
	close(s->fd);
	return status;
}

struct wanted {
	const char *store;
	struct mount_line *found;
};

static int is_wanted(const struct mount_line *m, void *arg)
{
	struct wanted *w = arg;

	if (strcmp(m->source, w->store))
		return 0;
	*w->found = *m;
	return 1;
}

static int scrub_store(struct scrubbing *s, const char *name)
{
	struct mount_line m;
	struct store_stat st;
	char dir[PATH_MAX];

	if (!stores_name_ok(name))
		return cmd_usage("scrub", "store \"%s\": that is no name of a store", name);
	stores_dir(name, dir);
	s->what = name;
	if (engine_store_stat(dir, &st) < 0 || st.state == STORE_NONE)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: no such store. Try: slicefs store ls",
				name);
	if (st.state != STORE_RUNNING)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: nobody uses it. Try: slicefs fsck %s, "
				"which compares bytes as well", name, name);
	if (*st.serves)
		return scrub_node(s, st.serves);
	if (mounts_each(is_wanted, &(struct wanted){ name, &m }) == 1)
		return scrub_mount(s, &m);
	return cmd_fail(EXIT_FAILED, "scrub", "%s: process %d uses it, and is neither a mount nor a "
			"node. Try: slicefs store ls", name, (int)st.pid);
}

static int scrub_named(struct scrubbing *s, const char *word)
{
	char dir[PATH_MAX];
	struct mount_line m;

	s->what = word;
	if (mounts_canonical(word, dir) == 0 && mounts_find(dir, &m))
		return scrub_mount(s, &m);
	if (strchr(word, '/') || access(word, F_OK) == 0)
		return cmd_fail(EXIT_FAILED, "scrub", "%s: no slicefs is mounted there. Try: slicefs "
				"status", word);
	return scrub_node(s, word);
}

/* The words of a size, of which a mount has one that may be 0. */
static int parse_rate(struct scrubbing *s, const char *text)
{
	_cleanup_(freep) char *why = NULL;
	struct config config;
	int r = config_init(&config, CONFIG_OF_MOUNT);

	if (r >= 0)
		r = config_set(&config, "direct-from", text, &why);
	if (r >= 0)
		s->o.rate = config.direct_from_bytes;
	config_fini(&config);
	return r < 0 ? cmd_usage("scrub", "--rate \"%s\": bytes a second. Try: 500M, or 0 for no "
				 "limit", text) : EXIT_DONE;
}

int cmd_scrub(int argc, char **argv)
{
	struct scrubbing s = { .fd = -1 };
	const char *store = NULL;
	enum { RATE_OPTION = CLIENT_MORE, EVICT, STORE };
	const struct option longs[] = {
		{ "rate", required_argument, NULL, RATE_OPTION },
		{ "evict-bad", no_argument, NULL, EVICT },
		{ "store", required_argument, NULL, STORE },
		{ "json", no_argument, &s.json, 1 },
		CLIENT_OPTIONS,
		{ 0 },
	};
	int c, status;

	client_init(&s.client, "scrub", true);
	status = parse_rate(&s, RATE);
	opterr = 0;
	while (!status && (c = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		if (c == RATE_OPTION)
			status = parse_rate(&s, optarg);
		else if (c == EVICT)
			s.o.evict_bad = true;
		else if (c == STORE)
			store = optarg;
		else if (c)
			status = client_option(&s.client, c, argv);
	}
	if (status)
		return status;
	if (optind + !store != argc)
		return cmd_usage("scrub", store ? "--store, or a directory or node: one of them" :
						  "which directory, node or store?");
	s.json = s.json || !isatty(STDOUT_FILENO) || !isatty(STDERR_FILENO);
	return store ? scrub_store(&s, store) : scrub_named(&s, argv[optind]);
}
