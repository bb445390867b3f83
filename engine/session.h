/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The node's side of one session: what a mount asks for over its control
 * connection, done and answered; and what it holds, given back when it ends.
 *
 * The end, once the control connection has ended (session_end()):
 *
 *	data connections and RDMA connections are closed -> nothing of it is under way (I6)
 *	-> blocks that it did not publish, and its session keys, go
 *	-> its doorbells -> its pins -> ended()
 *
 * What goes from the index may take a while: that is done on `ends`, a loop whose
 * calls may block, one session after the other. Threads: else the loop's; lanes have
 * theirs (engine/lanes.h). Index requests are answered from any thread; they are
 * posted back.
 */
#include "engine/conn.h"
#include "engine/holds.h"
#include "engine/lanes.h"
#include "engine/ways.h"

struct session;
struct tier;

struct session_opts {
	uint64_t number;
	struct loop *loop, *ends;
	struct index *ix; /* or NULL: the engine is bare, its keys are nobody's */
	struct kv *kv;
	struct pool *pool;
	struct evict *evict; /* makes room; or NULL: nobody does */
	struct scrubs *scrubs; /* or NULL: nobody scrubs */
	struct tier *tier;   /* the disk below the pool; or NULL: none */
	struct doors *doors; /* or NULL: there is no RDMA */
	void (*print_stats)(void *arg, struct writer *w); /* as of struct server_opts */
	void *stats_arg;
	uint32_t max_pins, max_lanes, max_ways, max_requests, keep_alive_ms;
	bool read_only;
	struct bytes name; /* as the mount calls itself; copied */
	struct conn *conn; /* control; must be there until ended() */
	void (*ended)(void *arg); /* the session is gone then */
	void *arg;
};

int session_new(const struct session_opts *o, struct session **ret);
const uint8_t *session_secret(const struct session *s); /* WIRE_NONCE bytes */
const char *session_name(const struct session *s);      /* "5 (name)", printable */

/* A request that came over the control connection, as in conn_ops. */
int session_message(struct session *s, const struct wire_header *h, struct bytes body);

/* As in conn_ops: its mount takes answers again. */
void session_taken(struct session *s);

/* Has it requests without an answer, or slices that it is writing to? */
bool session_is_busy(const struct session *s);

/* A data connection of its mount, as lanes_add(). */
int session_add_lane(struct session *s, struct loop *on, int fd, uint32_t number);

/* A request at the doors, as ways_accept(). */
bool session_accept(struct session *s, struct rdma_conn *c, struct bytes ticket);

/* The control connection has ended. ended() may come before it returns. */
void session_end(struct session *s);
