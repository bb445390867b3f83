/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A mount's session at a node: the counterpart of engine/session.h. It connects,
 * proves that it has the token, and is then what requests go through.
 *
 * A session that has ended does not come back: every call says -ENOTCONN from
 * then on, and a new one begins with nothing (its drafts are gone, P5).
 *
 * Threads: any. remote_open() and remote_close() block, and are not called from
 * the loop.
 */
#include "engine/auth.h"
#include "engine/conn.h"

struct remote;

struct remote_opts {
	const char *node;    /* "host" or "host:port" */
	const char *name;    /* of this mount, for people */
	const struct auth_key *key; /* NULL: no token */
	bool read_only;
	uint32_t timeout_ms; /* to be let in; 0: 10 s */
	/* The session has ended by itself; from the loop, once. Or NULL. */
	void (*lost)(void *arg);
	void *arg;
};

/* Returns when the node has let it in. -ENOENT (no such host), -ECONNREFUSED and
 * its like, -ETIMEDOUT, -EKEYREJECTED (the node has another token),
 * -EPROTONOSUPPORT, -EPROTO: with a sentence. */
int remote_open(const struct remote_opts *o, struct remote **ret, char **ret_why);

/* Says BYE, and waits until the node has closed or a second is over. All calls
 * must have ended. NULL is fine. */
void remote_close(struct remote *x);

const struct wire_welcome *remote_welcome(const struct remote *x);
struct loop *remote_loop(struct remote *x);
bool remote_is_up(struct remote *x);

void remote_call(struct remote *x, struct conn_call *call); /* conn_call() */
void remote_stop(struct remote *x, int reason);             /* conn_stop() */

/* A call that is waited for, not on the loop. Takes the body; 0, an outcome, or
 * negative. *ret, if not NULL, gets the answer's body, for writer_fini(). */
int remote_ask(struct remote *x, uint16_t type, struct writer body, uint64_t deadline_ns,
	       struct writer *ret);

/* Whom RING is for: one at a time, called on the loop. NULL: nobody. Returns when
 * none is under way. Not from the loop. */
void remote_set_ring(struct remote *x, void (*ring)(void *arg, uint32_t watch), void *arg);

/* An index engine (index/kv.h) over it, named "remote". It borrows x; kv_close()
 * before remote_close(). Its answers come from the loop's thread, so that
 * kv_wait() in a done() would wait for itself: it asserts. */
int kv_remote_open(struct remote *x, struct kv **ret);
