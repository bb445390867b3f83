/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount's side: calls and messages, which go to the session that is there; opening and closing.
 * How sessions begin and end is in remote_session.c. Calls that no session takes wait in a list.
 *
 * Threads: the loop's has all of it, but for what is atomic.
 */
#include "engine/remote.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/remote_priv.h"
#include "engine/server.h"

/* Calls ---------------------------------------------------------------------------- */

static void call_end(struct conn_call *call, int r)
{
	writer_fini(&call->body);
	metric_add(M_REMOTE_CALLS, -1);
	call->done(call, r, BYTES_NONE);
}

static void wait_for_session(struct remote *x, struct conn_call *call)
{
	call->next = NULL;
	*x->last = call;
	x->last = &call->next;
}

/* It is counted as under way: by us, or by the connection. */
static void hand_over(struct remote *x, struct conn_call *call)
{
	metric_add(M_REMOTE_CALLS, -1);
	conn_call(x->conn, call);
}

static void call_begin(void *arg)
{
	struct conn_call *call = arg;
	struct remote *x = call->remote;

	if (call->session ? call->session == x->session : x->state == REMOTE_UP)
		hand_over(x, call);
	else if (call->session || x->is_last)
		call_end(call, -ENOTCONN);
	else
		wait_for_session(x, call);
}

void remote_call(struct remote *x, struct conn_call *call)
{
	lock_assert_none();
	metric_add(M_REMOTE_CALLS, 1);
	call->remote = x;
	call->sent = call->answered = call->owes_late = false;
	call->post = (struct loop_call){ .fn = call_begin, .arg = call };
	if (loop_is_current(x->loop))
		call_begin(call);
	else
		loop_post_call(x->loop, &call->post);
}

/* The connection ends, and has not sent it. */
void remote_unsent(void *arg, struct conn_call *call)
{
	struct remote *x = arg;

	metric_add(M_REMOTE_CALLS, 1);
	if (call->session || x->is_last)
		call_end(call, -ENOTCONN);
	else
		wait_for_session(x, call);
}

static struct conn_call *take_waiting(struct remote *x)
{
	struct conn_call *list = x->first;

	x->first = NULL;
	x->last = &x->first;
	return list;
}

/* All that wait once more, or end, or go to the session that is there now. */
void remote_call_again(struct remote *x)
{
	for (struct conn_call *call = take_waiting(x), *next; call; call = next) {
		next = call->next;
		call_begin(call);
	}
}

void remote_end_late(struct remote *x)
{
	uint64_t now = clock_ns();

	for (struct conn_call *call = take_waiting(x), *next; call; call = next) {
		next = call->next;
		if (kv_call_is_cancelled(call->of))
			call_end(call, -ECANCELED);
		else if (call->deadline_ns && now >= call->deadline_ns)
			call_end(call, -ETIMEDOUT);
		else
			call_begin(call);
	}
}

struct sending {
	struct loop_call post;
	struct remote *remote;
	uint64_t session;
	uint16_t type;
	struct writer body;
};

static void send_on_loop(void *arg)
{
	struct sending *s = arg;
	struct remote *x = s->remote;

	if (s->session == x->session)
		conn_send(x->conn, s->type, s->body);
	else
		writer_fini(&s->body);
	free(s);
}

void remote_send(struct remote *x, uint64_t session, uint16_t type, struct writer body)
{
	struct sending *s = malloc(sizeof(*s));

	if (!s) {
		writer_fini(&body);
		remote_stop(x, -ENOMEM); /* the node must not miss it */
		return;
	}
	*s = (struct sending){ { .fn = send_on_loop, .arg = s }, x, session, type, body };
	if (loop_is_current(x->loop))
		send_on_loop(s);
	else
		loop_post_call(x->loop, &s->post);
}

/* Opening and closing -------------------------------------------------------------- */

static void sem_take(sem_t *s)
{
	while (sem_wait(s) < 0)
		assert(errno == EINTR);
}

/* What a call on the loop is about, and what came of it. */
struct errand {
	struct remote *remote;
	struct remote_part *part;
	void (*ring)(void *arg, uint32_t watch);
	void *arg;
	int r;
};

static void remote_free(struct remote *x)
{
	remote_rdma_close(x->rdma);
	loop_free(x->loop);
	writer_fini(&x->hello);
	sem_destroy(&x->opened);
	sem_destroy(&x->ended);
	free(x);
}
DEFINE_CLEANUP(struct remote *, remote_free)

static void connect_first(void *arg)
{
	struct errand *d = arg;
	uint32_t ms = d->remote->o.timeout_ms;

	d->r = remote_attempt(d->remote, clock_ns() + (ms ? ms : 10000) * NS_PER_MS);
}

/* 0: it is up. Negative: it has ended, or was never begun. */
static int connect_and_wait(struct remote *x)
{
	struct errand d = { .remote = x };

	loop_run(x->loop, connect_first, &d);
	int r = d.r;

	if (r < 0)
		return r;
	sem_take(&x->opened);
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

static int open_rdma(struct remote *x, const struct engine_rdma *rdma)
{
	struct remote_rdma_opts o = { .loop = x->loop, .rdma = *rdma, .to = x->to };
	int r = remote_rdma_open(&o, &x->rdma);

	return r == -EOPNOTSUPP ? 0 : r;
}

int remote_open(const struct remote_opts *o, struct remote **ret, char **ret_why)
{
	_cleanup_(remote_freep) struct remote *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->o = *o;
	x->last = &x->first;
	snprintf(x->node, sizeof(x->node), "%s", o->node);
	snprintf(x->name, sizeof(x->name), "%s", o->name ? o->name : "");
	if (o->key)
		x->key = *o->key;
	sem_init(&x->opened, 0, 0);
	sem_init(&x->ended, 0, 0);
	r = stream_resolve(o->node, SERVER_PORT, &x->to);
	if (r < 0)
		return why(ret_why, r, "%s: %s", o->node,
			   r == -EINVAL ? "not a node. Try: host or host:port" : "no such host");
	r = loop_new("remote", &x->loop);
	if (!r && o->requests)
		r = open_rdma(x, o->requests);
	if (r < 0)
		return r;
	r = connect_and_wait(x);
	if (r < 0)
		return say_why(x, r, ret_why);
	*ret = steal(&x);
	return 0;
}

static void last_on_loop(void *arg)
{
	struct remote *x = arg;

	x->is_last = true;
	loop_timer_free(x->timer);
	x->timer = NULL;
	if (x->state == REMOTE_DOWN)
		remote_call_again(x);
	else if (x->state < REMOTE_JOINING)
		conn_stop(x->conn, -ECANCELED);
}

void remote_last(struct remote *x)
{
	loop_run(x->loop, last_on_loop, x);
}

/* BYE, and then the node closes. */
static void close_on_loop(void *arg)
{
	struct remote *x = arg;
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX,
				      .until_ns = clock_ns() + NS_PER_S };

	assert(!x->parts);
	last_on_loop(x);
	x->closing = true;
	if (x->state == REMOTE_DOWN) {
		remote_closed(x);
	} else if (x->state >= REMOTE_JOINING) {
		conn_send(x->conn, WIRE_BYE, (struct writer){ 0 });
		conn_set_limits(x->conn, &limits);
	}
}

void remote_close(struct remote *x)
{
	if (!x)
		return;
	loop_run(x->loop, close_on_loop, x);
	sem_take(&x->ended);
	remote_free(x);
}

/* Parts ------------------------------------------------------------------------------ */

static void join_on_loop(void *arg)
{
	struct errand *d = arg;
	struct remote_part **at = &d->remote->parts;

	while (*at)
		at = &(*at)->next;
	d->part->next = NULL;
	*at = d->part;
}

void remote_join(struct remote *x, struct remote_part *p)
{
	loop_run(x->loop, join_on_loop, &(struct errand){ .remote = x, .part = p });
}

static void leave_on_loop(void *arg)
{
	struct errand *d = arg;
	struct remote *x = d->remote;
	struct remote_part **at = &x->parts;

	if (x->joining == d->part)
		remote_ready(x, d->part, 0);
	while (*at != d->part)
		at = &(*at)->next;
	*at = d->part->next;
}

void remote_leave(struct remote *x, struct remote_part *p)
{
	loop_run(x->loop, leave_on_loop, &(struct errand){ .remote = x, .part = p });
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

const struct sockaddr_storage *remote_address(const struct remote *x)
{
	return &x->to;
}

uint32_t remote_number(struct remote *x)
{
	uint32_t n;

	do
		n = atomic_fetch_add(&x->last_number, 1) + 1;
	while (!n);
	return n;
}

bool remote_is_by_rdma(struct remote *x)
{
	return atomic_load(&x->is_by_rdma);
}

bool remote_has(struct remote *x, uint32_t feature)
{
	return atomic_load(&x->features) & feature;
}

bool remote_has_rdma(struct remote *x)
{
	return remote_has(x, WIRE_FEATURE_RDMA);
}

bool remote_reads_only(const struct remote *x)
{
	return x->o.read_only;
}

uint64_t remote_session(struct remote *x)
{
	return atomic_load(&x->session);
}

bool remote_is_up(struct remote *x)
{
	return atomic_load(&x->is_up);
}

static void stop_on_loop(void *arg)
{
	struct remote *x = arg;
	uint64_t session = x->stop_session;
	int reason = x->stop_reason;

	atomic_flag_clear(&x->stop_asked);
	if (session && session == x->session)
		conn_stop(x->conn, reason);
}

void remote_stop(struct remote *x, int reason)
{
	if (atomic_flag_test_and_set(&x->stop_asked))
		return;
	x->stop_session = remote_session(x);
	x->stop_reason = reason;
	x->stop_post = (struct loop_call){ .fn = stop_on_loop, .arg = x };
	loop_post_call(x->loop, &x->stop_post);
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

static void set_ring_on_loop(void *arg)
{
	struct errand *d = arg;

	d->remote->ring = d->ring;
	d->remote->ring_arg = d->arg;
}

void remote_set_ring(struct remote *x, void (*ring)(void *arg, uint32_t watch), void *arg)
{
	loop_run(x->loop, set_ring_on_loop,
		 &(struct errand){ .remote = x, .ring = ring, .arg = arg });
}
