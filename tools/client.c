/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each call carries a deadline, and most end by then. Some the engine may not end, such
 * as a write whose bytes may still arrive: a little later (GRACE_MS) the wait for it ends
 * the command as a whole, and with it the session.
 *
 * What the engine logs about connections is not shown: who runs a command reads one
 * line, with what it means for the file that he named.
 */
#include "tools/client.h"

#include <errno.h>
#include <linux/futex.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/error.h"
#include "common/log.h"
#include "common/size.h"
#include "tools/cmd.h"
#include "tools/temps.h"

enum { GRACE_MS = 2000, LINKS_MAX = 40, LIST_LOT = 512 };

/* ---- The command line -------------------------------------------------------- */

void client_help(void)
{
	printf("  --token-file PATH  the node's token: a file that only its owner can read\n"
	       "  --timeout TIME     how long one call may take: 500ms, 10s, 2m (10s)\n");
}

void client_init(struct client *c, const char *cmd, bool only_reads)
{
	*c = (struct client){ .cmd = cmd, .only_reads = only_reads, .timeout_ms = 10000,
			      .by = ENGINE_NONE };
}

/* --timeout and --transport have the words and bounds of a mount's. */
static int take_setting(struct client *c, const char *name)
{
	_cleanup_(freep) char *why = NULL;
	struct config config;
	int r = config_init(&config, CONFIG_OF_MOUNT);

	if (r >= 0)
		r = config_set(&config, name, optarg, &why);
	if (r >= 0 && !strcmp(name, "timeout"))
		c->timeout_ms = config.timeout_ms;
	else if (r >= 0)
		c->by = (enum engine_bytes_by)config.transport;
	config_fini(&config);
	return r < 0 ? cmd_fail(EXIT_USAGE, c->cmd, "%s", why ? why : error_text(r)) : EXIT_DONE;
}

int client_option(struct client *c, int option, char **argv)
{
	switch (option) {
	case CLIENT_TOKEN:
		c->token_file = optarg;
		return EXIT_DONE;
	case CLIENT_TIMEOUT:
		return take_setting(c, "timeout");
	case CLIENT_TRANSPORT:
		return take_setting(c, "transport");
	case ':':
		return cmd_usage(c->cmd, "option \"%s\" needs a value", argv[optind - 1]);
	default:
		return cmd_bad_option(c->cmd, argv);
	}
}

enum { JOBS_MAX = 64 };

int client_jobs(struct client *c, unsigned *ret)
{
	char *end;
	long n = strtol(optarg, &end, 10);

	if (*end || end == optarg || n < 1 || n > JOBS_MAX)
		return cmd_usage(c->cmd, "-j \"%s\": a number from 1 to %d", optarg, JOBS_MAX);
	*ret = (unsigned)n;
	return EXIT_DONE;
}

bool client_is_remote(const char *word)
{
	const char *slash = strchr(word, '/');

	return slash && slash > word && slash[-1] == ':';
}

/* "::1" may be an address, or a host and a port: brackets tell. */
static bool is_ambiguous(const char *node)
{
	const char *colon = strchr(node, ':');

	return *node != '[' && colon && strchr(colon + 1, ':');
}

int client_take(struct client *c, const char *word, const char **ret_path)
{
	char node[CLIENT_NODE_MAX], named[CLIENT_NODE_MAX];
	const char *slash = strchr(word, '/');

	if (!client_is_remote(word))
		return cmd_usage(c->cmd, "\"%s\" is no path on a node. Try: HOST:/path or "
				 "HOST:PORT:/path", word);
	int n = snprintf(named, sizeof(named), "%.*s", (int)(slash - 1 - word), word);
	if (slash[1] == '/' && !strchr(named, ':'))
		return cmd_usage(c->cmd, "\"%s\" is a URL, and not a path on a node. Try: "
				 "HOST:/path or HOST:PORT:/path", word);
	if (n >= (int)sizeof(named) || is_ambiguous(named))
		return cmd_usage(c->cmd, "\"%s\": which part is the port? Try: [ADDRESS]:/path or "
				 "[ADDRESS]:PORT:/path", word);
	int r = engine_node_name(named, node, sizeof(node));
	if (r < 0)
		return cmd_usage(c->cmd, "\"%s\": \"%s\" is no node. Try: HOST or HOST:PORT before "
				 "the path", word, named);
	if (*c->node && strcmp(c->node, node))
		return cmd_usage(c->cmd, "\"%s\" is on another node than the path before it, which "
				 "is on %s. Try: a command for each", word, c->node);
	memcpy(c->node, node, sizeof(node));
	*ret_path = slash;
	return EXIT_DONE;
}

/* ---- A session ---------------------------------------------------------------- */

int client_open(struct client *c)
{
	static char late[CLIENT_NODE_MAX + 80];
	_cleanup_(freep) char *why = NULL;
	struct engine_opts o = {
		.node = c->node, .token_file = c->token_file, .name = c->cmd,
		.timeout_ms = (uint32_t)c->timeout_ms, .only_reads = c->only_reads,
		.rdma = { .by = c->by },
	};
	int r = temps_watch(c->cmd);

	/* Buffers of reads are used again, rather than given to the kernel. */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	log_open("/dev/null");
	snprintf(late, sizeof(late), "%s: the node has not answered in time. Try: --timeout, or "
		 "see whether it runs", c->node);
	temps_limit(c->timeout_ms + GRACE_MS, late);
	if (r >= 0)
		r = engine_open(&o, &c->engine, &why);
	temps_limit(0, NULL);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, c->cmd, "%s", why ? why : error_text(r));
	c->ix = engine_index(c->engine);
	return EXIT_DONE;
}

void client_close(struct client *c)
{
	static char late[CLIENT_NODE_MAX + 80];

	if (!c->engine)
		return;
	snprintf(late, sizeof(late), "%s: all is done, but the node does not answer any more",
		 c->node);
	temps_limit(c->timeout_ms + GRACE_MS, late);
	engine_close(c->engine);
	temps_limit(0, NULL);
	c->engine = NULL;
}

/* ---- Calls -------------------------------------------------------------------- */

static void wait_begin(struct client *c, struct client_wait *w, struct kv_call *call)
{
	*w = (struct client_wait){ .until_ns = clock_ns() + c->timeout_ms * NS_PER_MS };
	call->deadline_ns = w->until_ns;
}

static void wait_end(struct client_wait *w, int64_t r)
{
	_Atomic int *ended = &w->ended;

	w->r = r;
	atomic_store(ended, 1);
	/* w may be gone by now: waking an address that nobody waits at is no harm. */
	syscall(SYS_futex, ended, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int64_t client_await(struct client *c, struct client_wait *w, const char *about)
{
	uint64_t until_ns = w->until_ns + GRACE_MS * NS_PER_MS;
	struct timespec until = clock_timespec(until_ns);

	while (!atomic_load(&w->ended)) {
		syscall(SYS_futex, &w->ended, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, NULL,
			FUTEX_BITSET_MATCH_ANY);
		if (!atomic_load(&w->ended) && clock_ns() > until_ns)
			client_fail(c, -ETIMEDOUT, about);
	}
	return w->r;
}

/* Of a call of the index's kind. */
static int outcome_of(struct client *c, struct client_wait *w)
{
	int64_t r = client_await(c, w, "");

	return r == INDEX_MISS ? -ENOENT : (int)r;
}

static void index_done(struct index_op *op, int outcome)
{
	wait_end(op->arg, outcome);
}

int client_index(struct client *c, struct index_op *op,
		 void (*call)(struct index *ix, struct index_op *op))
{
	struct client_wait w;

	wait_begin(c, &w, &op->call);
	op->done = index_done;
	op->arg = &w;
	call(c->ix, op);
	return outcome_of(c, &w);
}

static void ask_done(struct engine_ask *a, int r)
{
	wait_end(a->arg, r);
}

int client_ask(struct client *c, struct engine_ask *a,
	       void (*call)(struct engine *e, struct engine_ask *a))
{
	struct client_wait w;

	wait_begin(c, &w, &a->call);
	a->done = ask_done;
	a->arg = &w;
	call(c->engine, a);
	return outcome_of(c, &w);
}

static void file_done(struct file_op *op, int64_t r)
{
	wait_end(op->arg, r);
}

void client_begin(struct client *c, struct file_op *op, struct client_wait *w)
{
	wait_begin(c, w, &op->call);
	op->done = file_done;
	op->arg = w;
}

int64_t client_file(struct client *c, struct file_op *op, void (*call)(struct file_op *op))
{
	struct client_wait w;

	client_begin(c, op, &w);
	call(op);
	return client_await(c, &w, "");
}

int client_open_file(struct client *c, uint64_t fileid, struct place place, unsigned flags,
		     struct file **ret)
{
	struct file_op op = { 0 };
	struct client_wait w;

	client_begin(c, &op, &w);
	file_open(c->engine, fileid, place, flags, &op);
	int r = (int)client_await(c, &w, "");
	if (r >= 0)
		*ret = op.file;
	return r;
}

int client_close_file(struct client *c, struct file *f, unsigned flags)
{
	struct file_op op = { .file = f };
	struct client_wait w;

	client_begin(c, &op, &w);
	file_close(&op, flags);
	return (int)client_await(c, &w, "");
}

/* ---- Failures ------------------------------------------------------------------ */

static int fail_full(struct client *c, const char *path)
{
	struct engine_space s;

	engine_space(c->engine, &s);
	return cmd_fail(EXIT_FAILED, c->cmd, "%s: no space on node %s (pool: %s of %s free, index: "
			"%s of %s used). Try: slicefs rm", path, c->node,
			size_text(s.free_bytes).s, size_text(s.total_bytes).s,
			size_text(s.index_used_bytes).s, size_text(s.index_size_bytes).s);
}

/* Whose node is gone has no other files to do. */
static _Noreturn void fail_gone(struct client *c, int err, const char *path)
{
	temps_exit(cmd_fail(EXIT_FAILED, c->cmd, "%s%snode %s has %s. Try: again, --timeout, or "
			    "see whether it runs", path, *path ? ": " : "", c->node,
			    err == -ETIMEDOUT ? "not answered in time" : "gone away"));
}

static const char *hint(int err)
{
	switch (err) {
	case -ENOENT:
		return ". Try: slicefs ls on the folder that it should be in";
	case -ELOOP:
		return ": its symbolic links lead nowhere";
	case -EIO:
		return ": bytes were lost with the session, or fail their checksum. Try: again";
	case -EINVAL:
		return ": what is there is no file";
	case -EISDIR:
		return ". Try: -r";
	case -E2BIG:
		return ": more extended attributes than a file may have";
	case -EBUSY:
	case -EEXIST:
		return ": somebody else is writing it. Try: again";
	default:
		return "";
	}
}

int client_fail(struct client *c, int err, const char *path)
{
	if (err == -ETIMEDOUT || err == -ENOTCONN)
		fail_gone(c, err, path);
	if (err == -ENOSPC)
		return fail_full(c, path);
	return cmd_fail(EXIT_FAILED, c->cmd, "%s: %s%s", path, error_text(err), hint(err));
}

/* ---- Names --------------------------------------------------------------------- */

struct walk {
	struct client *c;
	uint64_t dir;
	char *rest; /* what is still to be looked up, on the heap */
	unsigned links;
};

static int stat_dir(struct client *c, uint64_t dir, struct found *ret)
{
	struct index_op op = { .fileid = dir, .place = { .kind = PLACE_FILEID } };
	int r = client_index(c, &op, index_stat);

	if (!r)
		*ret = (struct found){ .parent = op.entry.parent ? op.entry.parent : INDEX_ROOT,
				       .is_there = true, .attr = op.entry.attr,
				       .place = op.entry.place };
	index_op_fini(&op);
	return r;
}

static int go_up(struct walk *w)
{
	struct found f;
	int r = stat_dir(w->c, w->dir, &f);

	if (!r)
		w->dir = f.parent;
	return r;
}

/* A link's text takes the place of its name. */
static int follow_link(struct walk *w, struct bytes target, const char *behind)
{
	char *rest;

	if (++w->links > LINKS_MAX)
		return -ELOOP;
	if (!target.len)
		return -ENOENT;
	if (asprintf(&rest, "%.*s/%s", (int)target.len, (const char *)target.p, behind) < 0)
		return -ENOMEM;
	/* No slash was behind it: then it need not be a directory. */
	if (!*behind)
		rest[target.len] = '\0';
	free(w->rest);
	w->rest = rest;
	if (*rest == '/')
		w->dir = INDEX_ROOT;
	return 0;
}

enum { WALK_ON = 1 };

/* The name at the front, which is `len` long, with `behind` after its slashes. */
static int walk_name(struct walk *w, size_t len, const char *behind, bool slash, bool follow,
		     struct found *ret)
{
	struct found f = { .parent = w->dir };
	struct index_op op = { .parent = w->dir, .name = f.name };

	if (len > INDEX_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(f.name, w->rest, len);
	int r = client_index(w->c, &op, index_lookup);
	const struct entry *e = &op.entry;
	if (r == -ENOENT) {
		r = *behind ? -ENOENT : 0;
	} else if (!r && S_ISLNK(e->attr.mode) && (follow || slash)) {
		r = follow_link(w, e->body.bytes, slash && !*behind ? "." : behind);
		r = r ? r : WALK_ON;
	} else if (!r && slash && !S_ISDIR(e->attr.mode)) {
		r = -ENOTDIR;
	} else if (!r) {
		f.is_there = true;
		f.is_draft = e->draft;
		f.attr = e->attr;
		f.place = e->place;
		if (*behind) {
			w->dir = e->attr.fileid;
			memmove(w->rest, behind, strlen(behind) + 1);
			r = WALK_ON;
		}
	}
	index_op_fini(&op);
	if (!r)
		*ret = f;
	return r;
}

static int walk_step(struct walk *w, bool follow, struct found *ret)
{
	char *at = w->rest + strspn(w->rest, "/");
	size_t len = strcspn(at, "/");
	const char *behind = at + len + strspn(at + len, "/");
	bool slash = at[len];
	int r = 0;

	memmove(w->rest, at, strlen(at) + 1);
	behind -= at - w->rest;
	if (!len)
		return stat_dir(w->c, w->dir, ret);
	bool up = len == 2 && !memcmp(w->rest, "..", 2);
	if (!up && !(len == 1 && *w->rest == '.'))
		return walk_name(w, len, behind, slash, follow, ret);
	if (up)
		r = go_up(w);
	memmove(w->rest, behind, strlen(behind) + 1);
	return r ? r : WALK_ON;
}

int client_find(struct client *c, uint64_t from, const char *path, bool follow,
		struct found *ret)
{
	struct walk w = { .c = c, .dir = *path == '/' ? INDEX_ROOT : from, .rest = strdup(path) };
	int r = w.rest ? WALK_ON : -ENOMEM;

	while (r == WALK_ON)
		r = walk_step(&w, follow, ret);
	free(w.rest);
	return r;
}

char *client_name_of(const char *path)
{
	size_t n = strlen(path);

	while (n && path[n - 1] == '/')
		n--;
	const char *base = path + n;
	while (base > path && base[-1] != '/')
		base--;
	n -= (size_t)(base - path);
	return !n || (n == 2 && !memcmp(base, "..", 2)) ? strdup(".") : strndup(base, n);
}

/* What is in "." goes into the folder itself, by names of its own. */
static int check_names(const struct client *c, char **words, char **names, int n)
{
	for (int i = 0; i < n; i++)
		for (int k = 0; k < i; k++)
			if (!strcmp(names[i], names[k]) && strcmp(names[i], "."))
				return cmd_fail(EXIT_USAGE, c->cmd, "%s and %s would both become "
						"\"%s\". Try: a command for each", words[k], words[i],
						names[i]);
	return EXIT_DONE;
}

int client_check_names(const struct client *c, char **words, int n,
		       char *(*name_of)(const char *word))
{
	char **names = calloc((size_t)n, sizeof(*names));
	bool all = names;

	for (int i = 0; all && i < n; i++)
		all = (names[i] = name_of ? name_of(words[i]) :
					    client_name_of(strchr(words[i], '/')));
	int status = all ? check_names(c, words, names, n) :
			   cmd_fail(EXIT_FAILED, c->cmd, "%s", error_text(-ENOMEM));
	for (int i = 0; names && i < n; i++)
		free(names[i]);
	free(names);
	return status;
}

int client_link(struct client *c, const struct attr *a, struct place place, char **ret)
{
	struct index_op op = { .fileid = a->fileid, .place = place };
	int r = client_index(c, &op, index_stat);

	if (!r) {
		*ret = strndup((const char *)op.entry.body.bytes.p, op.entry.body.bytes.len);
		r = *ret ? 0 : -ENOMEM;
	}
	index_op_fini(&op);
	return r;
}

int client_list(struct client *c, uint64_t dir, bool plus,
		int (*each)(void *arg, const struct entry *e), void *arg)
{
	uint64_t from = 0;
	bool more = true;
	int r = 0;

	while (!r && more) {
		struct index_op op = { .parent = dir, .from = from, .limit = LIST_LOT, .plus = plus };
		r = client_index(c, &op, index_list);
		for (uint32_t i = 0; !r && i < op.nentries; i++) {
			from = op.entries[i].h;
			r = each(arg, &op.entries[i]);
		}
		more = op.more && op.nentries;
		index_op_fini(&op);
	}
	return r;
}

static void drop_one(struct client *c, const struct gone *g)
{
	if (g->fileid && !g->draft && !g->attr.nlink && !g->hidden && g->body.kind != BODY_NONE)
		engine_drop(c->engine, g);
}

void client_drop(struct client *c, struct index_op *op)
{
	drop_one(c, &op->gone);
	drop_one(c, &op->gone2);
}

char *client_join(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	char *path;

	return asprintf(&path, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name) < 0 ? NULL :
											     path;
}
