/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A mount's link to a node: it connects, proves that it has the token, and has a
 * session there, the counterpart of engine/session.h, through which requests go.
 *
 * What a session held ends with it (P5), and nothing of it comes back. The link
 * then connects again, as often as it takes, and begins another session, which
 * names the one before, so that the node ends that one first:
 *
 *	      lost() of each part            begun(), one part after the other
 *	UP --------------------> DOWN .. connects .. JOINING ----------> UP
 *
 * Each attempt to connect is made by RDMA first, where that is wanted, and then by TCP. A
 * session stays with what it began by, and ends with it.
 *
 * Parts are who has something that is the session's: pins, doorbells, data
 * connections. Until all of them are ready only their own calls (`early`) go
 * through; others wait.
 *
 * Threads: any. remote_open(), remote_close(), remote_join() and remote_leave()
 * block, and are not called from the loop.
 */
#include "engine/auth.h"
#include "engine/conn.h"
#include "engine/engine.h"

struct remote;

struct remote_opts {
	const char *node;    /* "host" or "host:port" */
	const char *name;    /* of this mount, for people */
	const struct auth_key *key; /* NULL: no token */
	bool read_only;
	bool rdma;           /* we would use it for bytes */
	/* By RDMA, as long as the node takes them so; else, and NULL: requests go by TCP. Lent
	 * for the call. */
	const struct engine_rdma *requests;
	uint32_t timeout_ms; /* to be let in at first; 0: 10 s */
};

/* Returns when the node has let it in. -ENOENT (no such host), -ECONNREFUSED and
 * its like, -ETIMEDOUT, -EKEYREJECTED (the node has another token),
 * -EPROTONOSUPPORT, -EPROTO: with a sentence. */
int remote_open(const struct remote_opts *o, struct remote **ret, char **ret_why);

/* No session follows the one that is there: once it has ended, or if there is none,
 * calls end with -ENOTCONN. */
void remote_last(struct remote *x);

/* Says BYE, and waits until the node has closed or a second is over. All calls
 * must have ended, all parts have left. NULL is fine. */
void remote_close(struct remote *x);

/* Pool and limits of a KV are those of the first session, and hold for all: a node
 * that has another pool, or less room, gets no other session. The rest (session,
 * incarnation, secret) is the last one's, for the loop's thread. */
const struct wire_welcome *remote_welcome(const struct remote *x);
struct loop *remote_loop(struct remote *x);
const struct sockaddr_storage *remote_address(const struct remote *x);

/* Another one for each data connection, whichever way it goes. */
uint32_t remote_number(struct remote *x);
bool remote_is_by_rdma(struct remote *x); /* requests of the last session go so */
bool remote_has(struct remote *x, uint32_t feature); /* enum wire_feature, of its node */
bool remote_has_rdma(struct remote *x); /* the last session's node knows RDMA */
bool remote_reads_only(const struct remote *x);

/* The session's number, JOINING or UP; 0: DOWN. It rises. */
uint64_t remote_session(struct remote *x);
bool remote_is_up(struct remote *x);

struct remote_part {
	/* On the loop, once for each session's end, after all of its calls have ended;
	 * not when remote_close() ends it. */
	void (*lost)(void *arg);
	/* On the loop: another session is there. Then remote_ready(), once, unless
	 * lost() comes before. Not for the session that is there when it joins. NULL:
	 * ready at once. */
	void (*begun)(void *arg);
	void *arg;
	struct remote_part *next; /* the link's */
};

/* Parts are called in the order of joining. When remote_leave() returns, none of
 * its calls is under way. */
void remote_join(struct remote *x, struct remote_part *p);
void remote_leave(struct remote *x, struct remote_part *p);
/* On the loop. With r < 0 the session is given up, and the link connects again. */
void remote_ready(struct remote *x, struct remote_part *p, int r);

/*
 * A request, as conn_call(): done() once, on the loop. Which session it goes to:
 * call->session. 0: the one that is there; if none is, it waits for the next, until
 * its deadline. Otherwise that one; -ENOTCONN when it has ended. What was sent is
 * never sent again: `sent` and -ENOTCONN when its session ends.
 */
void remote_call(struct remote *x, struct conn_call *call);
/* Sends a message without an id to that session (not 0), or drops it. Takes body. */
void remote_send(struct remote *x, uint64_t session, uint16_t type, struct writer body);
void remote_stop(struct remote *x, int reason); /* gives the session up */

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
