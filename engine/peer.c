/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's room is asked for once a second, and when somebody wants to know. Who
 * does waits for the answer, but not for long, and not at all while the last one is
 * overdue: statfs is answered from what came last then, so that a node that hangs
 * hangs no `df` (P6).
 *
 * A session that is lost takes with it what was written and not published (P5):
 * the files that it belonged to are told so (files_lost()), and fail. What was
 * published goes on: its slices are pinned again by the node's part of the link,
 * which has joined before this one; or it is loaded again (files_torn()).
 */
#include "engine/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/file.h"
#include "engine/server.h"

enum { STAT_EVERY_MS = 1000, STAT_OLD_MS = 5, STAT_WAIT_MS = 100 };

struct peer {
	struct engine *engine;
	struct remote *remote;
	struct remote_part part;
	struct loop_timer *timer;

	struct lock lock; /* LOCK_PEER: the rest */
	struct wire_stat stat;
	uint64_t asked_ns; /* when the node was asked last */
	bool is_asked;     /* and has not answered */
	bool is_late;      /* somebody has waited for that in vain */
	bool ending;
	pthread_cond_t answered;
	struct conn_call call;
};

struct remote *peer_remote(struct peer *p)
{
	return p->remote;
}

/* The node's room ------------------------------------------------------------------- */

static void stat_done(struct conn_call *call, int r, struct bytes body)
{
	struct peer *p = (struct peer *)((char *)call - offsetof(struct peer, call));
	struct wire_stat m;
	bool good = r >= 0 && wire_read_stat(body, &m) == 0;

	WITH_LOCK(&p->lock);
	if (good)
		p->stat = m;
	p->is_asked = p->is_late = false;
	pthread_cond_broadcast(&p->answered);
}

/* One question at a time, and none while there is no session. */
static void ask(struct peer *p, uint64_t at_most_every_ms)
{
	uint64_t now = clock_ns(), session = remote_session(p->remote);
	{
		WITH_LOCK(&p->lock);
		if (!session || p->is_asked || p->ending ||
		    now - p->asked_ns < at_most_every_ms * NS_PER_MS)
			return;
		p->is_asked = true;
		p->asked_ns = now;
	}
	p->call = (struct conn_call){ .type = WIRE_STAT, .session = session, .done = stat_done };
	remote_call(p->remote, &p->call);
}

static void tick(void *arg)
{
	ask(arg, 0);
}

void peer_stat(struct peer *p, struct wire_stat *ret)
{
	uint64_t until_ns = clock_ns() + STAT_WAIT_MS * NS_PER_MS;

	ask(p, STAT_OLD_MS);
	WITH_LOCK(&p->lock);
	while (p->is_asked && !p->is_late)
		p->is_late = lock_wait_until(&p->lock, &p->answered, until_ns) == ETIMEDOUT;
	*ret = p->stat;
}

static int ask_first(struct peer *p)
{
	struct writer body = { 0 };
	int r = remote_ask(p->remote, WIRE_STAT, (struct writer){ 0 }, clock_ns() + 10 * NS_PER_S,
			   &body);

	if (r >= 0)
		r = wire_read_stat(writer_bytes(&body), &p->stat);
	writer_fini(&body);
	return r;
}

/* Sessions --------------------------------------------------------------------------- */

static void on_lost(void *arg)
{
	struct peer *p = arg;

	unsigned n = files_lost(p->engine);
	if (n)
		log_error("file", "%u files lost what was written to them and not published", n);
}

static void on_begun(void *arg)
{
	struct peer *p = arg;

	index_set_session(p->engine->ix, remote_session(p->remote));
	files_torn(p->engine);
	remote_ready(p->remote, &p->part, 0);
	files_regained(p->engine); /* its calls wait until the link is up */
	ask(p, 0);
}

/* Names -------------------------------------------------------------------------------- */

int engine_node_name(const char *node, char *ret, size_t len)
{
	size_t n = strlen(node);
	bool bare = n && (node[n - 1] == ']' || !strchr(node, ':'));
	struct sockaddr_storage at;
	int put;

	if (!n || *node == ':')
		return -EINVAL;
	put = bare ? snprintf(ret, len, "%s:%u", node, SERVER_PORT) :
	      node[n - 1] == ':' ? snprintf(ret, len, "%s%u", node, SERVER_PORT) :
				   snprintf(ret, len, "%s", node);
	if (put < 0 || (size_t)put >= len)
		return -EINVAL;
	return stream_resolve(ret, SERVER_PORT, &at) == -EINVAL ? -EINVAL : 0;
}

bool engine_node_resolves(const char *name)
{
	struct sockaddr_storage at;

	return stream_resolve(name, SERVER_PORT, &at) == 0;
}

/* Opening and closing ------------------------------------------------------------------ */

static void peer_free(struct peer *p)
{
	loop_timer_free(p->timer);
	remote_close(p->remote);
	pthread_cond_destroy(&p->answered);
	lock_fini(&p->lock);
	free(p);
}

int peer_open(struct engine *e, const struct engine_opts *o, struct peer **ret, char **ret_why)
{
	struct remote_opts ro = { .node = o->node, .name = o->name, .read_only = o->only_reads,
				  .rdma = o->rdma.by == ENGINE_AUTO || o->rdma.by == ENGINE_RDMA,
				  /* A session ends with the connection of its requests. With
				   * ENGINE_AUTO the loss of RDMA costs speed, and nothing else. */
				  .requests = o->rdma.by == ENGINE_RDMA ? &o->rdma : NULL,
				  .timeout_ms = o->timeout_ms };
	struct auth_key key;
	struct peer *p;
	int r = 0;

	if (o->token_file) {
		r = auth_key_load(o->token_file, &key, ret_why);
		ro.key = &key;
	}
	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->engine = e;
	lock_init(&p->lock, LOCK_PEER);
	lock_cond_init(&p->answered);
	r = remote_open(&ro, &p->remote, ret_why);
	if (!r)
		r = ask_first(p);
	if (!r)
		r = loop_timer_new(remote_loop(p->remote), STAT_EVERY_MS, STAT_EVERY_MS, tick, p,
				   &p->timer);
	if (r < 0) {
		peer_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void peer_begin(struct peer *p)
{
	p->part = (struct remote_part){ .lost = on_lost, .begun = on_begun, .arg = p };
	remote_join(p->remote, &p->part);
}

void peer_last(struct peer *p)
{
	remote_last(p->remote);
}

void peer_end(struct peer *p)
{
	peer_last(p);
	if (p->part.arg)
		remote_leave(p->remote, &p->part);
}

void peer_close(struct peer *p)
{
	if (!p)
		return;
	{
		WITH_LOCK(&p->lock);
		p->ending = true;
		while (p->is_asked)
			lock_wait(&p->lock, &p->answered);
	}
	peer_free(p);
}
