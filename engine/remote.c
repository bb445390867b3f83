/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount's side of the beginning, and of the end.
 *
 *	CONNECTING --up--> GREETED --CHALLENGE--> PROVEN --WELCOME--> UP
 *
 * remote_open() waits for UP or for the connection's end. The node's proof is
 * checked before ours is sent: who has not the token learns nothing that would
 * help elsewhere.
 */
#include "engine/remote.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/server.h"

enum remote_state { REMOTE_CONNECTING, REMOTE_GREETED, REMOTE_PROVEN, REMOTE_UP };

struct remote {
	struct remote_opts o; /* its strings: until remote_open() returns */
	char node[300];
	struct auth_key key;
	struct sockaddr_storage to;
	struct loop *loop;
	struct conn *conn;
	struct wire_welcome welcome;
	sem_t opened, ended;
	atomic_bool is_up, closing;
	int reason; /* why it ended */

	/* The loop's thread only. */
	enum remote_state state;
	uint64_t until_ns;
	struct writer hello;
	void (*ring)(void *arg, uint32_t watch);
	void *ring_arg;
};

/* The beginning ------------------------------------------------------------------ */

static void on_up(void *arg)
{
	struct remote *x = arg;
	const char *name = x->o.name ? x->o.name : "";
	size_t len = strlen(name);
	struct wire_hello m = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				.read_only = x->o.read_only };
	struct writer w = { 0 };

	m.name = BYTES_OF(name, len < WIRE_NAME_MAX ? len : WIRE_NAME_MAX);
	auth_random(m.nonce);
	wire_write_hello(&x->hello, &m);
	write_bytes(&w, x->hello.p, x->hello.len);
	x->state = REMOTE_GREETED;
	conn_send(x->conn, WIRE_HELLO, w);
}

static int on_challenge(struct remote *x, const struct wire_header *h, struct bytes body)
{
	struct wire_challenge c;
	struct wire_proof m;
	struct writer w = { 0 };

	if (h->type != WIRE_CHALLENGE || wire_read_challenge(body, &c) < 0 || x->hello.bad)
		return -EPROTO;
	if (!auth_proves(&x->key, AUTH_NODE, writer_bytes(&x->hello), &c, c.proof))
		return -EKEYREJECTED;
	if (c.version != WIRE_VERSION || c.features)
		return -EPROTONOSUPPORT;
	auth_prove(&x->key, AUTH_MOUNT, writer_bytes(&x->hello), &c, m.proof);
	wire_write_proof(&w, &m);
	x->state = REMOTE_PROVEN;
	conn_send(x->conn, WIRE_PROOF, w);
	return 0;
}

static int on_welcome(struct remote *x, const struct wire_header *h, struct bytes body)
{
	if (h->type != WIRE_WELCOME || wire_read_welcome(body, &x->welcome) < 0)
		return -EPROTO;
	struct conn_limits limits = {
		.max_body = WIRE_BODY_MAX,
		.max_calls = x->welcome.max_requests,
		.idle_ms = x->welcome.keep_alive_ms,
		.ping_ms = (x->welcome.keep_alive_ms + 2) / 3,
	};
	x->state = REMOTE_UP;
	conn_set_limits(x->conn, &limits);
	atomic_store(&x->is_up, true);
	sem_post(&x->opened);
	return 0;
}

static int on_ring(struct remote *x, const struct wire_header *h, struct bytes body)
{
	uint32_t watch;

	if (h->type != WIRE_RING || wire_read_watch_number(body, &watch) < 0)
		return -EPROTO;
	if (x->ring)
		x->ring(x->ring_arg, watch);
	return 0;
}

static int on_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct remote *x = arg;

	switch (x->state) {
	case REMOTE_CONNECTING:
		return -EPROTO;
	case REMOTE_GREETED:
		return on_challenge(x, h, body);
	case REMOTE_PROVEN:
		return on_welcome(x, h, body);
	case REMOTE_UP:
		return on_ring(x, h, body);
	}
	return -EPROTO;
}

static void on_ended(void *arg, int reason)
{
	struct remote *x = arg;
	bool was_up = atomic_exchange(&x->is_up, false);

	x->reason = reason;
	if (was_up && !atomic_load(&x->closing)) {
		log_error("node", "%s: the session has ended: %s", x->node, error_text(reason));
		if (x->o.lost)
			x->o.lost(x->o.arg);
	}
	if (!was_up)
		sem_post(&x->opened);
	sem_post(&x->ended);
}

static const struct conn_ops ops = { on_up, on_message, on_ended };

/* Opening and closing -------------------------------------------------------------- */

static void sem_take(sem_t *s)
{
	while (sem_wait(s) < 0)
		assert(errno == EINTR);
}

static void remote_free(struct remote *x)
{
	conn_free(x->conn);
	loop_free(x->loop);
	writer_fini(&x->hello);
	sem_destroy(&x->opened);
	sem_destroy(&x->ended);
	free(x);
}
DEFINE_CLEANUP(struct remote *, remote_free)

struct connecting {
	struct remote *remote;
	struct loop_call call;
	int r;
};

static void connect_on_loop(void *arg)
{
	struct connecting *c = arg;
	struct remote *x = c->remote;
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX, .until_ns = x->until_ns };

	c->r = conn_connect(x->loop, &x->to, &limits, &ops, x, &x->conn);
	sem_post(&x->opened);
}

/* 0: it is up. Negative: it has ended, or was never begun. */
static int connect_and_wait(struct remote *x)
{
	struct connecting c = { .remote = x, .call = { .fn = connect_on_loop, .arg = &c } };

	loop_post_call(x->loop, &c.call);
	sem_take(&x->opened);
	if (c.r < 0)
		return c.r;
	sem_take(&x->opened);
	if (atomic_load(&x->is_up))
		return 0;
	sem_take(&x->ended);
	return x->reason;
}

static int say_why(const struct remote *x, int r, char **ret_why)
{
	switch (r) {
	case -EKEYREJECTED:
		return why(ret_why, r, "%s: the node has another token. Try: --token-file",
			   x->node);
	case -ECONNRESET:
		return why(ret_why, r, "%s: the node closed the connection: it has another token "
			   "or version, or is full; its log says which", x->node);
	case -EPROTO:
		return why(ret_why, r, "%s: what answers there is no slicefs node", x->node);
	default:
		return why(ret_why, r, "%s: %s. Is a node running there?", x->node,
			   error_text(r));
	}
}

int remote_open(const struct remote_opts *o, struct remote **ret, char **ret_why)
{
	_cleanup_(remote_freep) struct remote *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->o = *o;
	snprintf(x->node, sizeof(x->node), "%s", o->node);
	if (o->key)
		x->key = *o->key;
	sem_init(&x->opened, 0, 0);
	sem_init(&x->ended, 0, 0);
	x->until_ns = clock_ns() + (o->timeout_ms ? o->timeout_ms : 10000) * UINT64_C(1000000);
	r = stream_resolve(o->node, SERVER_PORT, &x->to);
	if (r < 0)
		return why(ret_why, r, "%s: %s", o->node,
			   r == -EINVAL ? "not a node. Try: host or host:port" : "no such host");
	r = loop_new("remote", &x->loop);
	if (r < 0)
		return r;
	r = connect_and_wait(x);
	if (r < 0)
		return say_why(x, r, ret_why);
	*ret = steal(&x);
	return 0;
}

/* BYE, and then the node closes. */
static void bye_on_loop(void *arg)
{
	struct remote *x = arg;
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX,
				      .until_ns = clock_ns() + NS_PER_S };

	if (!atomic_load(&x->is_up))
		return;
	conn_send(x->conn, WIRE_BYE, (struct writer){ 0 });
	conn_set_limits(x->conn, &limits);
}

void remote_close(struct remote *x)
{
	struct loop_call bye = { .fn = bye_on_loop, .arg = x };

	if (!x)
		return;
	atomic_store(&x->closing, true);
	loop_post_call(x->loop, &bye);
	sem_take(&x->ended);
	remote_free(x); /* bye was run before ended, or is by loop_free() */
}

/* Use ------------------------------------------------------------------------------ */

const struct wire_welcome *remote_welcome(const struct remote *x)
{
	return &x->welcome;
}

struct loop *remote_loop(struct remote *x)
{
	return x->loop;
}

bool remote_is_up(struct remote *x)
{
	return atomic_load(&x->is_up);
}

void remote_call(struct remote *x, struct conn_call *call)
{
	conn_call(x->conn, call);
}

void remote_stop(struct remote *x, int reason)
{
	conn_stop(x->conn, reason);
}

struct ask {
	struct conn_call call; /* first: done() gets it */
	sem_t done;
	int r;
	struct writer *ret;
};

static void ask_done(struct conn_call *call, int r, struct bytes body)
{
	struct ask *a = (struct ask *)call;

	a->r = r;
	if (r >= 0 && a->ret) {
		write_bytes(a->ret, body.p, body.len);
		if (a->ret->bad)
			a->r = -ENOMEM;
	}
	sem_post(&a->done);
}

int remote_ask(struct remote *x, uint16_t type, struct writer body, uint64_t deadline_ns,
	       struct writer *ret)
{
	struct ask a = { .call = { .type = type, .body = body, .deadline_ns = deadline_ns,
				   .done = ask_done },
			 .ret = ret };

	assert(!loop_is_current(x->loop));
	sem_init(&a.done, 0, 0);
	remote_call(x, &a.call);
	sem_take(&a.done);
	sem_destroy(&a.done);
	return a.r;
}

struct set_ring {
	struct remote *remote;
	void (*ring)(void *arg, uint32_t watch);
	void *arg;
	struct loop_call call;
	sem_t done;
};

static void set_ring_on_loop(void *arg)
{
	struct set_ring *s = arg;

	s->remote->ring = s->ring;
	s->remote->ring_arg = s->arg;
	sem_post(&s->done);
}

void remote_set_ring(struct remote *x, void (*ring)(void *arg, uint32_t watch), void *arg)
{
	struct set_ring s = { .remote = x, .ring = ring, .arg = arg,
			      .call = { .fn = set_ring_on_loop, .arg = &s } };

	assert(!loop_is_current(x->loop));
	sem_init(&s.done, 0, 0);
	loop_post_call(x->loop, &s.call);
	sem_take(&s.done);
	sem_destroy(&s.done);
}
