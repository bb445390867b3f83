/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node: listens, lets mounts in that have the token, and serves its index and
 * its pool to the session of each (engine/session.h).
 *
 * Threads: server_open() and server_close() block; one loop of its own ("node")
 * does everything else, index requests included when the engine is in the
 * process; but for the ends of sessions in the index ("node-ends"), and the bytes
 * of slices: data connections are spread over loops of their own ("node-bytes").
 */
#include "engine/auth.h"
#include "engine/conn.h"
#include "engine/engine.h"

struct server;

struct server_opts {
	const char *listen; /* "host:port"; NULL: loopback and SERVER_PORT */
	const struct auth_key *key; /* NULL: no token; then loopback only */
	bool anybody;       /* beyond loopback without a token: it was told to */
	struct index *ix;   /* whose sessions they are; it has one of its own */
	struct kv *kv;      /* without ix: a bare engine. Then any session may write any
			       key, and a session's end deletes its keys only */
	struct pool *pool;
	struct evict *evict; /* or NULL */
	struct scrubs *scrubs; /* or NULL */
	struct tier *tier;   /* or NULL; all of these outlive the server */
	/* Appends what STATS answers with, on the node's thread; or NULL: nobody is told. */
	void (*print_stats)(void *arg, struct writer *w);
	void *stats_arg;
	bool verify;        /* mounts are to verify whatever they read */
	/* 0: what is usual */
	uint32_t keep_alive_ms, max_sessions, max_requests, max_pins, max_lanes;
	struct engine_rdma rdma; /* RDMA: no other data connections are let in */
	uint32_t threads; /* for data connections; as many as processors, 8 at most */
};

enum { SERVER_PORT = 7747 };

/* Would it do? Of `o`, the address, key and anybody count. Errors as server_open(). */
int server_check(const struct server_opts *o, char **ret_why);

/* Listens when it returns. -EPERM (beyond loopback without a token), -EINVAL and
 * -ENOENT (no such address), -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: with a sentence. */
int server_open(const struct server_opts *o, struct server **ret, char **ret_why);

/* Takes nobody in any more; returns when no session has anything under way (requests,
 * slices that it has allocated and nothing refers to yet), or after so many ms. */
void server_drain(struct server *s, uint32_t ms);

/* Takes nobody in any more, ends all sessions, and returns when everything that
 * they held was given back. NULL is fine. */
void server_close(struct server *s);

uint16_t server_port(const struct server *s); /* that it listens at */
void server_address(const struct server *s, char ret[STREAM_NAME]);
