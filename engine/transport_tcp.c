/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An accepted post has a record here, `struct op`, from a fixed number of them, and is
 * in one place:
 *
 *	 post()          room on a lane         answer
 *	------> INBOX -> WAITING ------> OUT ------------> done()
 *	                   ^  ^           |  the lane ends
 *	                   |  '-- read ---+
 *	                   '-- FENCED <---'  write
 *
 * Lanes end by themselves, or because something on them is past its deadline. Then
 * what was out comes back: reads wait for another lane; writes that were sent wait
 * until the node has fenced the old one. Each of a fixed number of slots has one lane
 * after the other, and opens the next only when the last is fenced, so that there is
 * one fence at a time in each.
 *
 * Everything is the thread's of a loop of its own, so that requests to the node do not
 * wait behind the bytes; but for the inbox, the free records and the sums that bound
 * them, and for the session, of which the link tells on its own loop: the lock guards
 * these. Whoever takes from the inbox learns of the session at the same moment.
 */
#include "engine/transport_tcp.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "engine/remote_lane.h"

enum {
	SLOTS_MAX = 16,
	SLOT_POSTS = 64,         /* out on a lane at a time, */
	SLOT_BYTES = 4 << 20,    /* and bytes of them: what a broken lane sets back */
	OPEN_MS = 5000,          /* for a lane to be let in */
	PAUSE_MIN_MS = 50,       /* between two attempts */
	PAUSE_MAX_MS = 2000,
};

#define NS_PER_MS UINT64_C(1000000)

struct op {
	struct conn_call call; /* first: done() gets it */
	struct tcp *tcp;
	struct post *post;
	uint64_t deadline_ns;
	uint64_t session;  /* in which it was posted: a write's slices end with it */
	struct slot *slot; /* while OUT */
	struct op *prev, *next;
};

struct slot {
	struct tcp *tcp;
	struct remote_lane *lane; /* NULL: none */
	bool is_up;
	uint64_t session;         /* the lane's */
	uint32_t number;
	struct op *out, *fenced;
	uint32_t nout;
	uint64_t bytes;           /* of what is out */
	bool is_fencing;
	struct conn_call fence;
	struct loop_call fence_post; /* from the link's loop to ours */
	int fence_result;
	uint64_t again_ns, pause_ms;
};

/* A session of the link, all parts before ours being ready. */
struct tcp_session {
	uint64_t number; /* 0: none */
	uint8_t secret[WIRE_NONCE];
	uint32_t keep_alive_ms;
};

struct tcp {
	struct transport transport;
	struct remote *remote;
	struct loop *loop;        /* ours */
	struct transport_tcp_opts o;
	struct remote_part part;
	struct loop_call kick, errand;

	struct lock lock;
	pthread_cond_t idle;      /* nout is 0 and it is quiet */
	struct op *free, *inbox;
	uint32_t nout;            /* accepted, done() has not returned */
	uint64_t bytes;           /* of these */
	bool has_begun, is_kicked, is_quiescing, is_quiet;
	struct tcp_session linked; /* as the link says */

	/* The loop's thread only. */
	struct tcp_session session; /* that lanes are of */
	struct op *waiting;
	bool pumping, ending;
	uint32_t last_number;
	struct loop_timer *timer;
	uint64_t alarm_ns;        /* 0: none */
	uint32_t nslots;
	struct slot slots[SLOTS_MAX];
	struct op ops[];
};

static void pump(struct tcp *t);

static struct tcp *of(struct transport *t)
{
	return (struct tcp *)t;
}

/* Records -------------------------------------------------------------------------- */

/* The post is over. Its record is free before it is told, for who posts again then. */
static void complete(struct op *op, int result)
{
	struct tcp *t = op->tcp;
	struct post *p = op->post;

	{
		WITH_LOCK(&t->lock);
		t->bytes -= p->len;
		LL_PREPEND(t->free, op);
	}
	lock_assert_none();
	p->done(p, result);
	WITH_LOCK(&t->lock);
	if (!--t->nout && t->is_quiet)
		pthread_cond_broadcast(&t->idle);
}

static bool is_late(const struct op *op, uint64_t now)
{
	return now >= op->deadline_ns;
}

static bool is_lost(const struct op *op)
{
	return op->post->kind == POST_WRITE && op->session != op->tcp->session.number;
}

static void alarm_at(struct tcp *t, uint64_t at_ns)
{
	if (t->alarm_ns && t->alarm_ns <= at_ns)
		return;
	t->alarm_ns = at_ns;
	loop_timer_set(t->timer, at_ns);
}

/* Ends it where that is due already; else it waits, in front of those that came later. */
static void again(struct op *op)
{
	struct tcp *t = op->tcp;

	if (t->ending)
		complete(op, -ECANCELED);
	else if (is_lost(op))
		complete(op, -ENOTCONN);
	else if (is_late(op, clock_ns()))
		complete(op, -ETIMEDOUT);
	else
		DL_PREPEND(t->waiting, op);
}

static void again_all(struct op *list)
{
	struct op *op, *next;

	DL_FOREACH_SAFE(list, op, next) {
		DL_DELETE(list, op);
		again(op);
	}
}

/* Lanes ------------------------------------------------------------------------------ */

static void slot_stop(struct slot *s, int reason)
{
	s->is_up = false;
	if (s->lane)
		remote_lane_stop(s->lane, reason);
}

static void off_slot(struct op *op)
{
	struct slot *s = op->slot;

	DL_DELETE(s->out, op);
	s->nout--;
	s->bytes -= op->post->len;
	op->slot = NULL;
}

static void on_answered(struct conn_call *call, int r, struct bytes body)
{
	struct op *op = (struct op *)call;
	struct tcp *t = op->tcp;
	struct slot *s = op->slot;

	(void)body;
	off_slot(op);
	if (call->answered)
		s->pause_ms = 0; /* it works */
	if (call->answered || r != -ENOTCONN) {
		complete(op, r > 0 ? -EIO : r);
	} else {
		s->is_up = false; /* it ends */
		if (op->post->kind == POST_WRITE && call->sent)
			DL_APPEND(s->fenced, op);
		else
			again(op);
	}
	pump(t);
}

static void send_op(struct slot *s, struct op *op)
{
	struct post *p = op->post;
	struct wire_span span = { p->slice, (uint32_t)p->off, p->len };
	struct conn_call *call = &op->call;

	*call = (struct conn_call){ .done = on_answered };
	wire_write_span(&call->body, &span);
	if (p->kind == POST_WRITE) {
		call->type = WIRE_WRITE;
		call->tail = BYTES_OF(p->local, p->len);
	} else {
		call->type = WIRE_READ;
		call->into = p->local;
		call->into_len = p->len;
	}
	op->slot = s;
	DL_APPEND(s->out, op);
	s->nout++;
	s->bytes += p->len;
	remote_lane_call(s->lane, call);
}

/* The lane with the least under way, if any has room. */
static struct slot *best_slot(struct tcp *t)
{
	struct slot *best = NULL;

	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		if (s->is_up && s->nout < SLOT_POSTS && s->bytes < SLOT_BYTES &&
		    (!best || s->bytes < best->bytes))
			best = s;
	return best;
}

/* Fences ------------------------------------------------------------------------------- */

/* Nothing that was sent over the lane can touch a slice any more: the node says so, or
 * the session has ended. Its writes go again, or end. */
static void slot_fenced(void *arg)
{
	struct slot *s = arg;
	struct op *list = s->fenced;
	int r = s->fence_result;

	s->is_fencing = false;
	s->fenced = NULL;
	if (r && r != -ENOTCONN) {
		r = r < 0 ? r : -EPROTO;
		log_error("tcp", "a data connection cannot be fenced: %s. The session is given up",
			  error_text(r));
		remote_stop(s->tcp->remote, r);
	}
	if (r) {
		struct op *op, *next;
		DL_FOREACH_SAFE(list, op, next) {
			DL_DELETE(list, op);
			complete(op, s->tcp->ending ? -ECANCELED : -ENOTCONN);
		}
	}
	again_all(list);
	pump(s->tcp);
}

/* On the link's loop. */
static void on_fenced(struct conn_call *call, int r, struct bytes body)
{
	struct slot *s = (struct slot *)((char *)call - offsetof(struct slot, fence));

	(void)body;
	s->fence_result = r;
	s->fence_post = (struct loop_call){ .fn = slot_fenced, .arg = s };
	loop_post_call(s->tcp->loop, &s->fence_post);
}

static void slot_fence(struct slot *s)
{
	struct conn_call *call = &s->fence;

	s->is_fencing = true;
	*call = (struct conn_call){ .type = WIRE_FENCE, .session = s->session,
				    .done = on_fenced };
	wire_write_fence(&call->body, s->number);
	remote_call(s->tcp->remote, call);
}

/* Opening lanes ------------------------------------------------------------------------- */

static void on_lane_up(void *arg)
{
	struct slot *s = arg;

	s->is_up = s->session == s->tcp->session.number && !s->tcp->ending;
	pump(s->tcp);
}

static void try_later(struct slot *s)
{
	s->again_ns = clock_ns() + s->pause_ms * NS_PER_MS;
	s->pause_ms = s->pause_ms ? s->pause_ms * 2 : PAUSE_MIN_MS;
	if (s->pause_ms > PAUSE_MAX_MS)
		s->pause_ms = PAUSE_MAX_MS;
}

static void on_lane_ended(void *arg, int reason)
{
	struct slot *s = arg;
	struct tcp *t = s->tcp;

	assert(!s->out);
	if (s->session == t->session.number && !t->ending)
		log_warn("tcp", "data connection %u has ended: %s", s->number, error_text(reason));
	remote_lane_free(s->lane);
	s->lane = NULL;
	s->is_up = false;
	try_later(s);
	if (s->fenced)
		slot_fence(s);
	pump(t);
}

static void slot_open(struct slot *s)
{
	struct tcp *t = s->tcp;
	struct remote_lane_opts o = {
		.loop = t->loop, .to = remote_address(t->remote), .session = t->session.number,
		.secret = t->session.secret, .number = ++t->last_number,
		.keep_alive_ms = t->session.keep_alive_ms, .max_calls = SLOT_POSTS + 1,
		.until_ns = clock_ns() + OPEN_MS * NS_PER_MS, .up = on_lane_up,
		.ended = on_lane_ended, .arg = s,
	};

	s->session = o.session;
	s->number = o.number;
	if (remote_lane_open(&o, &s->lane) < 0)
		try_later(s);
}

static bool slot_is_idle(const struct slot *s)
{
	return !s->lane && !s->is_fencing;
}

static void open_lanes(struct tcp *t)
{
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		if (!slot_is_idle(s) || !t->session.number || t->ending)
			continue;
		if (clock_ns() >= s->again_ns)
			slot_open(s);
		if (!s->lane)
			alarm_at(t, s->again_ns);
	}
}

/* Sessions --------------------------------------------------------------------------- */

static void kick(struct tcp *t)
{
	{
		WITH_LOCK(&t->lock);
		if (t->is_kicked)
			return;
		t->is_kicked = true;
	}
	loop_post_call(t->loop, &t->kick);
}

static void link_session(struct tcp *t, uint64_t number)
{
	const struct wire_welcome *w = remote_welcome(t->remote);

	{
		WITH_LOCK(&t->lock);
		t->linked.number = number;
		t->linked.keep_alive_ms = w->keep_alive_ms;
		memcpy(t->linked.secret, w->secret, sizeof(t->linked.secret));
	}
	kick(t);
}

/* On the link's loop, as the next one. */
static void on_lost(void *arg)
{
	link_session(arg, 0);
}

/* The slices are pinned again, by who joined before. */
static void on_begun(void *arg)
{
	struct tcp *t = arg;

	link_session(t, remote_session(t->remote));
	remote_ready(t->remote, &t->part, 0);
}

/* From one session, or none, to another one, or none. */
static void take_session(struct tcp *t, const struct tcp_session *is)
{
	struct op *list = t->waiting;

	t->session = *is;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		slot_stop(s, -ENOTCONN);
		s->again_ns = s->pause_ms = 0;
	}
	t->waiting = NULL;
	again_all(list); /* writes of the old one end */
}

/* Posts -------------------------------------------------------------------------------- */

static void take_inbox(struct tcp *t)
{
	struct tcp_session linked;
	struct op *op, *next;

	{
		WITH_LOCK(&t->lock);
		linked = t->linked;
		DL_FOREACH_SAFE(t->inbox, op, next) {
			DL_DELETE(t->inbox, op);
			DL_APPEND(t->waiting, op);
			alarm_at(t, op->deadline_ns);
		}
	}
	if (linked.number != t->session.number)
		take_session(t, &linked);
}

/* Is all over, and nothing left that could begin something? */
static void say_quiet(struct tcp *t)
{
	if (t->is_quiet) /* set here only */
		return;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		if (!slot_is_idle(s))
			return;
	WITH_LOCK(&t->lock);
	t->is_quiet = true;
	pthread_cond_broadcast(&t->idle);
}

/* Sends what waits as long as a lane has room. Called below itself, by completions, it
 * leaves that to the outer one. */
static void pump(struct tcp *t)
{
	struct slot *s;

	if (t->pumping)
		return;
	t->pumping = true;
	for (;;) {
		struct op *op;
		take_inbox(t);
		op = t->waiting;
		if (!op)
			break;
		if (t->ending || is_lost(op) || is_late(op, clock_ns())) {
			DL_DELETE(t->waiting, op);
			again(op);
			continue;
		}
		s = best_slot(t);
		if (!s)
			break;
		DL_DELETE(t->waiting, op);
		send_op(s, op);
	}
	open_lanes(t);
	t->pumping = false;
	if (t->ending)
		say_quiet(t);
}

static void on_kick(void *arg)
{
	struct tcp *t = arg;

	{
		WITH_LOCK(&t->lock);
		t->is_kicked = false;
	}
	pump(t);
}

/* What is out past its deadline takes its lane with it. */
static void end_late(struct slot *s, uint64_t now, uint64_t *next_ns)
{
	struct op *op;

	if (!s->is_up)
		return;
	DL_FOREACH(s->out, op) {
		if (is_late(op, now)) {
			slot_stop(s, -ETIMEDOUT);
			return;
		}
		if (op->deadline_ns < *next_ns)
			*next_ns = op->deadline_ns;
	}
}

static void on_alarm(void *arg)
{
	struct tcp *t = arg;
	struct op *op, *next, *late = NULL;
	uint64_t now = clock_ns(), next_ns = UINT64_MAX;

	t->alarm_ns = 0;
	take_inbox(t);
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		end_late(s, now, &next_ns);
	DL_FOREACH_SAFE(t->waiting, op, next) {
		if (is_late(op, now)) {
			DL_DELETE(t->waiting, op);
			DL_APPEND(late, op);
		} else if (op->deadline_ns < next_ns) {
			next_ns = op->deadline_ns;
		}
	}
	if (next_ns != UINT64_MAX)
		alarm_at(t, next_ns);
	again_all(late);
	pump(t);
}

/* Puts it into the inbox. 0, or why it is refused. *ret_kick: the loop does not know. */
static int accept_post(struct tcp *t, struct post *p, bool *ret_kick)
{
	WITH_LOCK(&t->lock);
	struct op *op = t->free;

	if (t->is_quiescing || (!t->linked.number && p->kind == POST_WRITE))
		return -ENOTCONN;
	if (!op || (t->bytes && t->bytes + p->len > t->o.max_bytes))
		return -EAGAIN;
	LL_DELETE(t->free, op);
	op->tcp = t;
	op->post = p;
	op->session = t->linked.number;
	op->deadline_ns = p->deadline_ns ? p->deadline_ns
					 : clock_ns() + t->o.timeout_ms * NS_PER_MS;
	DL_APPEND(t->inbox, op);
	t->nout++;
	t->bytes += p->len;
	*ret_kick = !t->is_kicked && !loop_is_current(t->loop);
	t->is_kicked |= *ret_kick;
	return 0;
}

static int tcp_post(struct transport *transport, struct post *p)
{
	struct tcp *t = of(transport);
	bool must_kick;

	if (!p->len || p->len > WIRE_RUN_MAX || p->off > UINT32_MAX - p->len)
		return -EINVAL;
	int r = accept_post(t, p, &must_kick);
	if (r < 0)
		return r;
	if (loop_is_current(t->loop))
		pump(t);
	else if (must_kick)
		loop_post_call(t->loop, &t->kick);
	return 0;
}

static void *tcp_map(struct transport *t, struct slice_id s)
{
	(void)t;
	(void)s;
	return NULL;
}

/* Opening and closing ------------------------------------------------------------------ */

static void quiesce_on_loop(void *arg)
{
	struct tcp *t = arg;

	t->ending = true;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		slot_stop(s, -ECANCELED);
	pump(t);
}

static void tcp_quiesce(struct transport *transport)
{
	struct tcp *t = of(transport);

	{
		WITH_LOCK(&t->lock);
		t->is_quiescing = true;
	}
	assert(!loop_is_current(t->loop));
	t->errand = (struct loop_call){ .fn = quiesce_on_loop, .arg = t };
	loop_post_call(t->loop, &t->errand);
	WITH_LOCK(&t->lock);
	while (t->nout || !t->is_quiet)
		lock_wait(&t->lock, &t->idle);
}

static void tcp_free(struct tcp *t)
{
	loop_timer_free(t->timer);
	loop_free(t->loop);
	pthread_cond_destroy(&t->idle);
	lock_fini(&t->lock);
	free(t);
}

static void tcp_close(struct transport *transport)
{
	struct tcp *t = of(transport);

	{
		WITH_LOCK(&t->lock);
		assert(t->is_quiet && !t->nout); /* quiesced before */
	}
	remote_leave(t->remote, &t->part); /* nothing comes from there any more */
	tcp_free(t);
}

static const struct transport_ops tcp_ops = {
	.name = "tcp",
	.post = tcp_post,
	.quiesce = tcp_quiesce,
	.map = tcp_map,
	.close = tcp_close,
};

/* On the link's loop: otherwise on_begun() comes, or has come. */
static void begin_on_link(void *arg)
{
	struct tcp *t = arg;

	if (remote_is_up(t->remote))
		link_session(t, remote_session(t->remote));
	WITH_LOCK(&t->lock);
	t->has_begun = true;
	pthread_cond_broadcast(&t->idle);
}

static void begin(struct tcp *t)
{
	remote_join(t->remote, &t->part);
	t->errand = (struct loop_call){ .fn = begin_on_link, .arg = t };
	loop_post_call(remote_loop(t->remote), &t->errand);
	WITH_LOCK(&t->lock);
	while (!t->has_begun)
		lock_wait(&t->lock, &t->idle);
}

static struct tcp *tcp_new(struct remote *x, const struct transport_tcp_opts *o)
{
	uint32_t max_posts = o->max_posts ? o->max_posts : 1024;
	struct tcp *t = calloc(1, sizeof(*t) + max_posts * sizeof(t->ops[0]));

	if (!t)
		return NULL;
	t->transport.ops = &tcp_ops;
	t->remote = x;
	t->o = *o;
	t->o.timeout_ms = o->timeout_ms ? o->timeout_ms : 10000;
	t->o.max_bytes = o->max_bytes ? o->max_bytes : 256 << 20;
	t->part = (struct remote_part){ .lost = on_lost, .begun = on_begun, .arg = t };
	t->kick = (struct loop_call){ .fn = on_kick, .arg = t };
	lock_init(&t->lock, LOCK_TRANSPORT);
	pthread_cond_init(&t->idle, NULL);
	for (uint32_t i = max_posts; i--;)
		LL_PREPEND(t->free, &t->ops[i]);
	return t;
}

int transport_tcp_open(struct remote *x, const struct transport_tcp_opts *o,
		       struct transport **ret)
{
	uint32_t most = remote_welcome(x)->max_lanes;
	struct tcp *t;

	if (!most)
		return -EOPNOTSUPP;
	t = tcp_new(x, o);
	if (!t)
		return -ENOMEM;
	t->nslots = o->conns ? o->conns : 2;
	if (t->nslots > most)
		t->nslots = most;
	if (t->nslots > SLOTS_MAX)
		t->nslots = SLOTS_MAX;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		s->tcp = t;
	int r = loop_new("remote-bytes", &t->loop);
	if (r >= 0)
		r = loop_timer_new(t->loop, LOOP_NEVER, 0, on_alarm, t, &t->timer);
	if (r < 0) {
		tcp_free(t);
		return r;
	}
	begin(t);
	*ret = &t->transport;
	return 0;
}
