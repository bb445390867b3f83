/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What transports to another host's node have in common: posts that wait, are sent over
 * connections that come and go, and are done once. A transport is a kind of connection
 * (`struct slot_kind`): transport_tcp.c, transport_rdma.c.
 *
 * A post that was accepted is done, over another connection if one breaks, until its
 * deadline. A write that was out on a connection that broke may have been done, or may still
 * be: it is neither tried again nor told of before the node has fenced that connection, or
 * the session has ended, and its slices with it: -ENOTCONN. Reads wait for the next
 * session, in which their slices have been pinned again: this is for joining the link
 * behind who does that (remote_join()).
 *
 * A post whose deadline passes while it is out takes its connection with it, and is done
 * once nothing can touch its memory any more.
 *
 * Threads: as transport.h. One loop of its own does everything, calls all of the kind's
 * functions, and done().
 */
#include <stdatomic.h>

#include "common/loop.h"
#include "common/metrics.h"
#include "engine/conn.h"
#include "engine/remote.h"
#include "engine/transport.h"

struct slots;

/* An accepted post. Kinds embed this as the first member of theirs. */
struct slot_op {
	struct post *post;
	struct slots *slots;
	uint64_t deadline_ns;
	uint64_t session;  /* in which it was posted: a write's slices end with it */
	struct slot *slot; /* while it is out */
	struct slot_op *prev, *next;
};

/* A place for one connection after the other. */
struct slot {
	struct slots *slots;
	void *lane;       /* the kind's connection; NULL: none */
	uint64_t session; /* the connection's, */
	uint32_t number;  /* and its number */
	/* The kind's: connections of the least are filled first, equal ones by turns. */
	uint8_t cost;

	/* slots.c only. */
	bool is_up, was_up;
	bool has_failed; /* its last attempt; no connection of any slot has been up since */
	bool is_recalled;
	bool is_full;   /* until something is done */
	struct slot_op *out, *fenced;
	uint32_t nout;
	uint64_t bytes; /* of what is out */
	bool is_fencing;
	struct conn_call fence;
	struct loop_call fence_post; /* from the link's loop to ours */
	int fence_result;
	uint64_t again_ns, pause_ms;
};

struct slot_kind {
	const char *name;   /* of the transport, and the log's area */
	const char *thread; /* of the loop */
	size_t op_bytes;
	enum metric moved; /* bytes of posts that were done */
	enum metric nup;   /* connections that are up */
	bool always_fences;   /* also where no write was out: the node keeps something */

	/* Begins to connect and sets s->lane; until until_ns. slot_up() or slot_ended()
	 * follow, never before it returns. On failure neither. */
	int (*open)(struct slot *s, uint64_t until_ns);
	/* Before each sending: what the op needs that is not its caller's, and whether it
	 * may be sent. 0, -EAGAIN (none now, but when something is done), or why the post
	 * fails. NULL: it may. */
	int (*prepare)(struct slot_op *op);
	/* slot_done() follows, possibly before it returns. */
	void (*send)(struct slot *s, struct slot_op *op);
	/* What was sent goes now, if it has not yet. NULL: it has. */
	void (*flush)(struct slot *s);
	/* The op is over: what prepare() took is given back. NULL: nothing. */
	void (*over)(struct slot_op *op, int result);
	void (*stop)(struct slot *s, int reason); /* slot_ended() follows */
	void (*free)(struct slot *s);             /* s->lane, after slot_ended() */
	void (*fini)(void *arg); /* all is over, the loop runs still; or NULL */
};

struct slots_opts {
	const struct slot_kind *kind;
	void *arg;           /* the kind's own, slots_arg() */
	uint32_t conns;      /* SLOTS_MAX at most */
	uint32_t timeout_ms; /* of a post that has no deadline; 0: 10 s */
	uint32_t max_posts;  /* that are out or wait; more are refused with -EAGAIN; 0: 1024 */
	uint64_t max_bytes;  /* of all of these; 0: 256 MiB */
	bool gives_up; /* slots_give_up() when all slots have failed, and none is up */
};

enum { SLOTS_MAX = 16, SLOT_POSTS = 64 /* out on a connection at a time */ };

/* 0: then slots_begin(), or slots_free(). */
int slots_new(struct remote *x, const struct slots_opts *o, struct slots **ret);
void slots_free(struct slots *t); /* one that has not begun */
/* Joins the link and connects. Blocks for a moment, not from a loop of either. The
 * transport is for quiesce and close from here on. */
void slots_begin(struct slots *t, struct transport **ret);

struct slots *slots_of(struct transport *t);
void *slots_arg(const struct slots *t);
struct loop *slots_loop(const struct slots *t);
struct remote *slots_remote(const struct slots *t);
/* The session that connections are of: the loop's thread only. */
const uint8_t *slots_secret(const struct slots *t);
uint32_t slots_keep_alive_ms(const struct slots *t);

unsigned slot_index(const struct slot *s); /* 0.. */

void slot_up(struct slot *s);
/* One that is up takes no more, ends when what is out is done, and is opened anew at once:
 * there is a better way. On the loop. */
void slot_recall(struct slot *s);
/* text: a sentence, or NULL. */
void slot_ended(struct slot *s, int reason, const char *text);

/* What of an op that was sent has become. */
enum slot_end {
	SLOT_ANSWERED, /* the node, or who knows for it, says r */
	SLOT_UNSENT,   /* nothing of it has left; r: why */
	SLOT_CUT,      /* the connection has ended: it may have been done */
	SLOT_FAILED,   /* r, and nothing can touch its memory any more */
};
void slot_done(struct slot_op *op, enum slot_end how, int r);

/* On the loop: no connection is opened any more; all posts end with -ENODEV, of
 * writes that were out after they have been fenced. */
void slots_give_up(struct slots *t, const char *text);

/* Waits until a connection is up: 0; or it has given up: -ENODEV; until_ns: -ETIMEDOUT; or
 * *cancelled: -ECANCELED. Not from the loop. */
int slots_wait_up(struct slots *t, uint64_t until_ns, const atomic_bool *cancelled,
		  char **ret_why);
bool slots_has_given_up(struct slots *t, char **ret_why); /* any thread */
