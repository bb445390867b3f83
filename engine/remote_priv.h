/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What remote.c (opening, closing, use) and remote_session.c (one session after the other)
 * share. The loop's thread has all of it, but for what is atomic. */
#include <semaphore.h>
#include <stdatomic.h>

#include "engine/remote.h"
#include "engine/remote_rdma.h"

enum remote_state {
	REMOTE_DOWN,
	REMOTE_CONNECTING,
	REMOTE_GREETED,
	REMOTE_PROVEN,
	REMOTE_JOINING,
	REMOTE_UP,
};

struct remote {
	struct remote_opts o; /* its strings: until remote_open() returns */
	char node[300], name[WIRE_NAME_MAX + 1];
	struct auth_key key;
	struct sockaddr_storage to;
	struct loop *loop;
	struct wire_welcome welcome; /* see remote_welcome() */
	sem_t opened, ended; /* what remote_open() and remote_close() wait for */
	int reason;          /* why there is no first session */
	_Atomic uint64_t session;
	atomic_bool is_up, is_by_rdma;
	_Atomic uint32_t features; /* that the last session's node shares */
	struct remote_rdma *rdma; /* for requests; NULL: they go by TCP */
	atomic_uint last_number; /* remote_number() */
	atomic_flag stop_asked; /* whoever sets it has the next three */
	uint64_t stop_session;
	int stop_reason;
	struct loop_call stop_post;

	/* The loop's thread only. */
	enum remote_state state;
	struct conn *conn; /* of any state but DOWN */
	struct writer hello;
	bool had_session, is_last, closing;
	struct remote_part *parts;
	struct remote_part *joining;      /* whose begun() was called last */
	struct conn_call *first, **last; /* that wait for a session */
	struct loop_timer *timer;         /* while DOWN */
	uint64_t next_ns, pause_ms;       /* of the next attempt */
	uint64_t until_ns;                /* of this attempt */
	uint64_t begun_ns, lost_ns;       /* when the last session began, ended */
	uint64_t avoid_ns;                /* no RDMA before that */
	bool by_rdma;                     /* this connection is */
	unsigned rdma_tries;              /* in this attempt */
	bool ask_again;                   /* by RDMA, when this one has ended */
	int rdma_reason;                  /* why the last one by RDMA began no session */
	int said_carrier;                 /* 1 TCP, 2 RDMA; 0: nothing yet */
	int complained;                   /* of why attempts fail, since then; 0: not */
	void (*ring)(void *arg, uint32_t watch);
	void *ring_arg;
};

/* remote_session.c --------------------------------------------------------------------- */

/* Connects, by the ways that there are, and begins a session until then. 0: parts, waiting calls
 * and `opened` are told what comes of it. */
int remote_attempt(struct remote *x, uint64_t until_ns);
/* There is nothing any more that could begin a session, or end one. */
void remote_closed(struct remote *x);

/* remote.c ----------------------------------------------------------------------------- */

/* The connection ends, and has not sent it. */
void remote_unsent(void *arg, struct conn_call *call);
/* All that wait once more, or end, or go to the session that is there now. */
void remote_call_again(struct remote *x);
/* The same, but those whose time has come, or that are cancelled, end. */
void remote_end_late(struct remote *x);
