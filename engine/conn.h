/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A connection that carries messages (engine/wire.h) over a stream: it frames
 * them, matches answers with calls, and knows when the other side is gone. It is
 * the same at both ends; what messages mean, its owner knows.
 *
 * Calls. conn_call() sends a request; its done() comes exactly once, from the
 * loop's thread, with the answer, with -ETIMEDOUT at its deadline, with -ECANCELED
 * soon after what it is a part of was cancelled, or with -ENOTCONN when the
 * connection ends. What was given up keeps a record of the connection's own until
 * the late answer or the end comes, which finds that record and nobody's call
 * (I9); or late() of the call, if it has one: for who must give back what comes.
 * At most max_calls are out; more wait here, in memory that is their callers'.
 *
 * The other side's requests. message() gets each; those with an id are owed
 * exactly one conn_answer(). With max_owed of them under way, or OUT_MAX bytes
 * that the other side does not take, nothing more is read: so it waits, and
 * memory has a bound.
 *
 * Bytes of slices are not copied. An answer may lend its body, a call may lend a
 * tail that is sent behind its body, and both may say where bytes that come are to
 * be put, which are read from the socket straight to there.
 *
 * The end: conn_stop(), or the other side; then nothing is read any more, the
 * socket is closed, all calls end, and last ended() comes. conn_free() is after
 * that.
 *
 * Threads: conn_call() and conn_stop() any, as long as conn_free() has not been
 * called; all else the loop's only. No locks: all state is the loop thread's.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/stream.h"
#include "engine/wire.h"

struct conn;
struct conn_call;

struct conn_limits {
	uint32_t max_body;  /* of a message from the other side */
	uint32_t max_calls; /* out at a time; 0: none may be made yet */
	uint32_t max_owed;  /* requests of the other side under way; 0: none yet */
	uint32_t idle_ms;   /* ends it when nothing has come for so long; 0: never */
	uint32_t ahead;     /* bytes that are read ahead of a message; 0: 64 KiB */
	uint32_t ping_ms;   /* sends a PING when nothing was sent for so long */
	uint64_t until_ns;  /* ends it at that time (clock_ns()); 0: never */
};

struct conn_ops {
	void (*up)(void *arg); /* it is connected; not of conn_accept() */
	/* A message that is no answer; body is there for the time of the call.
	 * Not 0: a negative errno with which the connection is to end. */
	int (*message)(void *arg, const struct wire_header *h, struct bytes body);
	/* A call that was not sent, when the connection ends: it is the owner's now, who
	 * can hand it to another one. NULL: it ends with -ENOTCONN. */
	void (*unsent)(void *arg, struct conn_call *call);
	/* What conn_is_full() held up may go on; or NULL. */
	void (*taken)(void *arg);
	void (*ended)(void *arg, int reason); /* once; see stream_ops */

	/* Of a request of type place_type the first CONN_HEAD bytes of the body are a
	 * head. When they are there, place() says where the others go: memory for
	 * h->len - CONN_HEAD bytes, or NULL: they are thrown away. When they have
	 * come, message() gets the head alone as its body; only then comes the next
	 * place(). If the connection ends before, nothing is put there after ended(). */
	uint16_t place_type; /* 0: none */
	void *(*place)(void *arg, const struct wire_header *h, const uint8_t *head);
	/* What conn_answer_lent() lent is its owner's again; always before ended(). */
	void (*returned)(void *arg, uint64_t cookie);
};

/* On the loop's thread. On failure there is no connection, and no ended(). By TCP. */
int conn_connect(struct loop *l, const struct sockaddr_storage *to,
		 const struct conn_limits *limits, const struct conn_ops *ops, void *arg,
		 struct conn **ret);
/* Take s over, also on failure: one that connects, of any kind; one that came in. */
int conn_over(struct loop *l, struct stream *s, const struct conn_limits *limits,
	      const struct conn_ops *ops, void *arg, struct conn **ret);
int conn_accept(struct loop *l, struct stream *s, const struct conn_limits *limits,
		const struct conn_ops *ops, void *arg, struct conn **ret);
/* Why a connection has ended, as people understand it: ended()'s reason. */
const char *conn_reason_text(int reason);
/* With calls, or requests of the other side, in them: it has proved who it is. */
void conn_set_limits(struct conn *c, const struct conn_limits *limits);
const char *conn_peer(const struct conn *c);

void conn_stop(struct conn *c, int reason);
void conn_free(struct conn *c); /* after ended(); NULL is fine */

/* A request. Its caller keeps it until done(), or until late() if `owes_late`. */
struct conn_call {
	uint16_t type;        /* one that has an id */
	struct writer body;   /* the connection's from conn_call() on, which frees it */
	uint64_t deadline_ns; /* clock_ns(); 0: none */
	const struct kv_call *of; /* that it is a part of, and lives until done(); or NULL */
	/* r: the answer's result (outcome or negative errno) with its body, which
	 * is there for the time of the call; or the errors above. */
	void (*done)(struct conn_call *call, int r, struct bytes body);

	/* Or NULL. Once after a done() that found owes_late set: the answer, or
	 * -ENOTCONN. */
	void (*late)(struct conn_call *call, int r, struct bytes body);

	/* Lent until done(), so such a call is not given up: its connection ends it. */
	struct bytes tail; /* is sent behind the body */
	void *into;        /* an answer without an error has as many bytes, which go */
	uint32_t into_len; /* here; with another length the connection ends */

	bool sent;      /* the other side may have got it */
	bool answered;  /* r is what it said */
	bool owes_late; /* it was sent, is given up, and has a late() */

	/* remote_call()'s (engine/remote.h). */
	uint64_t session;
	void *remote;

	/* The connection's. */
	struct conn *conn;
	struct loop_call post;
	struct conn_call *next;
	int why;
};

void conn_call(struct conn *c, struct conn_call *call);

/* A message that has no id. Takes the body. Out of memory ends the connection, and
 * so does twice CONN_OUT_MAX that the other side has not taken. */
void conn_send(struct conn *c, uint16_t type, struct writer body);

/* The answer to request h; r as for wire_result(). Takes the body, which is sent
 * only with r >= 0. On a connection that has ended it only frees. */
void conn_answer(struct conn *c, const struct wire_header *h, int r, struct writer body);

/* Of what is sent so much has not been taken that nothing is read any more. Who has requests
 * at hand that he has read, but not begun, begins none until taken(). False after the end. */
bool conn_is_full(const struct conn *c);

/* 0, and these bytes, which are lent until ops->returned(arg, cookie). That comes once,
 * possibly before this returns; also on a connection that has ended. */
void conn_answer_lent(struct conn *c, const struct wire_header *h, struct bytes lent,
		      uint64_t cookie);

/* Its socket once more, for stream_open() on another loop; c is to be stopped then, and
 * sends and reads nothing more. -EPROTO: something has come that was not handled. */
int conn_socket(struct conn *c);

enum {
	CONN_LOOK_MS = 25,           /* how often it is asked who was cancelled */
	CONN_HEAD = 16,
	CONN_OUT_MAX = 4 << 20,      /* bytes sent and not taken: no reading */
	CONN_ANSWER_MAX = 256 << 20, /* of one answer in parts */
};
