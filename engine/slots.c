/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An accepted post has a record here, `struct slot_op`, from a fixed number of them, and is
 * in one place:
 *
 *	 post()          room on a connection   answer
 *	------> INBOX -> WAITING ------> OUT ------------> done()
 *	                   ^  ^           |  that ends
 *	                   |  '-- read ---+
 *	                   '-- FENCED <---'  write
 *
 * Connections end by themselves, or because something on them is past its deadline. Then
 * what was out comes back: reads wait for another one; writes that were sent wait
 * until the node has fenced the old one. Each of a fixed number of slots has one connection
 * after the other, and opens the next only when the last is fenced, so that there is
 * one fence at a time in each.
 *
 * Everything is the thread's of a loop of its own, so that requests to the node do not
 * wait behind the bytes; but for the inbox, the free records and the sums that bound
 * them, and for the session, of which the link tells on its own loop: the lock guards
 * these. Whoever takes from the inbox learns of the session at the same moment.
 */
#include "engine/slots.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"

enum {
	SLOT_BYTES = 4 << 20,    /* out on a connection at a time: what a broken one sets back */
	OPEN_MS = 5000,          /* for a connection to be let in */
	PAUSE_MIN_MS = 50,       /* between two attempts */
	PAUSE_MAX_MS = 2000,
	LOOK_MS = 50,            /* at *cancelled */
};

/* A session of the link, all parts before ours being ready. */
struct link_session {
	uint64_t number; /* 0: none */
	uint8_t secret[WIRE_NONCE];
	uint32_t keep_alive_ms;
};

struct slots {
	struct transport transport;
	struct transport_ops ops; /* its; by the kind's name */
	struct remote *remote;
	struct loop *loop;        /* ours */
	struct slots_opts o;
	struct remote_part part;
	struct loop_call kick, errand;

	struct lock lock;
	pthread_cond_t idle;      /* nout is 0 and it is quiet */
	struct slot_op *free, *inbox;
	uint32_t nout;            /* accepted, done() has not returned */
	uint64_t bytes;           /* of these */
	bool has_begun, is_kicked, is_quiescing, is_quiet, has_given_up;
	char why[192];            /* of has_given_up */
	uint32_t nup;
	struct link_session linked; /* as the link says */

	/* The loop's thread only. */
	struct link_session session; /* that connections are of */
	struct slot_op *waiting;
	bool pumping, ending;
	struct loop_timer *timer;
	uint64_t alarm_ns;        /* 0: none */
	uint32_t turn;            /* slot that is looked at first */
	uint32_t nslots;
	struct slot slots[SLOTS_MAX];
	char records[]; /* of ops, o.kind->op_bytes each */
};

static void pump(struct slots *t);

struct slots *slots_of(struct transport *t)
{
	return (struct slots *)t;
}

/* Records -------------------------------------------------------------------------- */

/* The post is over. Its record is free before it is told, for who posts again then. */
static void complete(struct slot_op *op, int result)
{
	struct slots *t = op->slots;
	struct post *p = op->post;

	if (t->o.kind->over)
		t->o.kind->over(op, result);
	if (!result)
		metric_add(t->o.kind->moved, p->len);
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

static bool is_late(const struct slot_op *op, uint64_t now)
{
	return now >= op->deadline_ns;
}

static bool is_lost(const struct slot_op *op)
{
	return op->post->kind == POST_WRITE && op->session != op->slots->session.number;
}

static void alarm_at(struct slots *t, uint64_t at_ns)
{
	if (t->alarm_ns && t->alarm_ns <= at_ns)
		return;
	t->alarm_ns = at_ns;
	loop_timer_set(t->timer, at_ns);
}

/* Ends it where that is due already; else it waits, in front of those that came later. */
static void again(struct slot_op *op)
{
	struct slots *t = op->slots;

	if (is_lost(op))
		complete(op, -ENOTCONN);
	else if (t->has_given_up) /* set on this thread only */
		complete(op, -ENODEV);
	else if (t->ending)
		complete(op, -ECANCELED);
	else if (is_late(op, clock_ns()))
		complete(op, -ETIMEDOUT);
	else
		DL_PREPEND(t->waiting, op);
}

static void again_all(struct slot_op *list)
{
	struct slot_op *op, *next;

	DL_FOREACH_SAFE(list, op, next) {
		DL_DELETE(list, op);
		again(op);
	}
}

static void kick(struct slots *t)
{
	{
		WITH_LOCK(&t->lock);
		if (t->is_kicked)
			return;
		t->is_kicked = true;
	}
	loop_post_call(t->loop, &t->kick);
}

/* Connections ------------------------------------------------------------------------------ */

static void set_up(struct slot *s, bool is_up)
{
	struct slots *t = s->slots;

	if (s->is_up == is_up)
		return;
	s->is_up = is_up;
	metric_add(t->o.kind->nup, is_up ? 1 : -1);
	WITH_LOCK(&t->lock);
	t->nup += is_up ? 1 : (uint32_t)-1;
	pthread_cond_broadcast(&t->idle);
}

static void slot_stop(struct slot *s, int reason)
{
	set_up(s, false);
	if (s->lane)
		s->slots->o.kind->stop(s, reason);
}

static void off_slot(struct slot_op *op)
{
	struct slot *s = op->slot;

	DL_DELETE(s->out, op);
	s->nout--;
	s->bytes -= op->post->len;
	op->slot = NULL;
}

/* A kind that sends what has come together waits for more of it. */
static void pump_soon(struct slots *t)
{
	if (!t->o.kind->flush || t->ending)
		pump(t);
	else if (t->waiting)
		kick(t);
}

void slot_done(struct slot_op *op, enum slot_end how, int r)
{
	struct slots *t = op->slots;
	struct slot *s = op->slot;

	off_slot(op);
	if (s->is_recalled && !s->nout)
		slot_stop(s, -ECANCELED);
	s->is_full = how == SLOT_UNSENT && r == -EAGAIN;
	if (how == SLOT_ANSWERED)
		s->pause_ms = 0; /* it works */
	if (how == SLOT_ANSWERED || how == SLOT_FAILED) {
		complete(op, r > 0 ? -EIO : r);
	} else {
		if (!s->is_full)
			set_up(s, false); /* it ends */
		if (op->post->kind == POST_WRITE && how == SLOT_CUT)
			DL_APPEND(s->fenced, op);
		else
			again(op);
	}
	pump_soon(t);
}

static void send_op(struct slot *s, struct slot_op *op)
{
	op->slot = s;
	DL_APPEND(s->out, op);
	s->nout++;
	s->bytes += op->post->len;
	s->slots->o.kind->send(s, op);
}

static bool has_room(const struct slot *s)
{
	return s->is_up && !s->is_recalled && !s->is_full && s->nout < SLOT_POSTS &&
	       s->bytes < SLOT_BYTES;
}

static bool is_better(const struct slot *a, const struct slot *b)
{
	return a->cost != b->cost ? a->cost < b->cost : a->bytes < b->bytes;
}

/* The connection with the least under way, if any has room; equals by turns. */
static struct slot *best_slot(struct slots *t)
{
	struct slot *best = NULL;

	for (uint32_t i = 0; i < t->nslots; i++) {
		struct slot *s = &t->slots[(t->turn + i) % t->nslots];
		if (has_room(s) && (!best || is_better(s, best)))
			best = s;
	}
	if (best)
		t->turn = slot_index(best) + 1;
	return best;
}

/* Fences ------------------------------------------------------------------------------- */

/* Nothing that was sent over the connection can touch a slice any more: the node says so, or
 * the session has ended. Its writes go again, or end. */
static void slot_fenced(void *arg)
{
	struct slot *s = arg;
	struct slot_op *list = s->fenced;
	int r = s->fence_result;

	s->is_fencing = false;
	s->fenced = NULL;
	if (r && r != -ENOTCONN) {
		r = r < 0 ? r : -EPROTO;
		log_error(s->slots->o.kind->name, "a data connection cannot be fenced: %s. The "
			  "session is given up", error_text(r));
		remote_stop(s->slots->remote, r);
	}
	if (r) {
		struct slot_op *op, *next;
		DL_FOREACH_SAFE(list, op, next) {
			DL_DELETE(list, op);
			complete(op, s->slots->ending ? -ECANCELED : -ENOTCONN);
		}
	}
	again_all(list);
	pump(s->slots);
}

/* On the link's loop. */
static void on_fenced(struct conn_call *call, int r, struct bytes body)
{
	struct slot *s = (struct slot *)((char *)call - offsetof(struct slot, fence));

	(void)body;
	s->fence_result = r;
	s->fence_post = (struct loop_call){ .fn = slot_fenced, .arg = s };
	loop_post_call(s->slots->loop, &s->fence_post);
}

static void slot_fence(struct slot *s)
{
	struct conn_call *call = &s->fence;

	s->is_fencing = true;
	*call = (struct conn_call){ .type = WIRE_FENCE, .session = s->session,
				    .done = on_fenced };
	wire_write_fence(&call->body, s->number);
	remote_call(s->slots->remote, call);
}

/* Opening connections -------------------------------------------------------------------- */

static void try_later(struct slot *s)
{
	s->again_ns = clock_ns() + s->pause_ms * NS_PER_MS;
	s->pause_ms = s->pause_ms ? s->pause_ms * 2 : PAUSE_MIN_MS;
	if (s->pause_ms > PAUSE_MAX_MS)
		s->pause_ms = PAUSE_MAX_MS;
}

unsigned slot_index(const struct slot *s)
{
	return (unsigned)(s - s->slots->slots);
}

static void forget_failures(struct slots *t)
{
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		s->has_failed = false;
}

void slot_recall(struct slot *s)
{
	s->is_recalled = true;
	if (!s->nout)
		slot_stop(s, -ECANCELED);
}

void slot_up(struct slot *s)
{
	struct slots *t = s->slots;

	s->was_up = true;
	forget_failures(t);
	set_up(s, s->session == t->session.number && !t->ending && !t->has_given_up);
	pump(t);
}

void slots_give_up(struct slots *t, const char *text)
{
	struct slot_op *list = t->waiting;

	if (t->has_given_up)
		return;
	{
		WITH_LOCK(&t->lock);
		t->has_given_up = true;
		snprintf(t->why, sizeof(t->why), "%s", text);
		pthread_cond_broadcast(&t->idle);
	}
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		slot_stop(s, -ECANCELED);
	t->waiting = NULL;
	again_all(list);
	pump(t);
}

/* Of an attempt that has failed, with nothing else to go by: each slot has its own way. The
 * session's end is told by the link. */
static bool is_hopeless(struct slot *s, int reason)
{
	struct slots *t = s->slots;

	if (s->was_up || reason == -ENOTCONN || t->ending || s->session != t->session.number)
		return false;
	s->has_failed = true;
	for (struct slot *o = t->slots; o < t->slots + t->nslots; o++)
		if (!o->has_failed)
			return false;
	return t->o.gives_up && !t->nup;
}

void slot_ended(struct slot *s, int reason, const char *text)
{
	struct slots *t = s->slots;

	assert(!s->out);
	if (!text)
		text = error_text(reason);
	if (s->session == t->session.number && !t->ending && !t->has_given_up && !s->is_recalled)
		log_warn(t->o.kind->name, "data connection %u has ended: %s", s->number, text);
	set_up(s, false);
	bool hopeless = is_hopeless(s, reason);
	if (hopeless)
		slots_give_up(t, text);
	t->o.kind->free(s);
	s->lane = NULL;
	if (!s->is_recalled)
		try_later(s);
	s->is_recalled = false;
	if (s->fenced || t->o.kind->always_fences)
		slot_fence(s);
	pump(t);
}

static void slot_open(struct slot *s)
{
	struct slots *t = s->slots;

	s->session = t->session.number;
	s->number = remote_number(t->remote);
	s->was_up = s->is_full = false;
	if (t->o.kind->open(s, clock_ns() + OPEN_MS * NS_PER_MS) < 0)
		try_later(s);
}

static bool slot_is_idle(const struct slot *s)
{
	return !s->lane && !s->is_fencing;
}

static void open_slots(struct slots *t)
{
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		if (!slot_is_idle(s) || !t->session.number || t->ending ||
		    t->has_given_up)
			continue;
		if (clock_ns() >= s->again_ns)
			slot_open(s);
		if (!s->lane)
			alarm_at(t, s->again_ns);
	}
}

/* Sessions --------------------------------------------------------------------------- */

static void link_session(struct slots *t, uint64_t number)
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
	struct slots *t = arg;

	link_session(t, remote_session(t->remote));
	remote_ready(t->remote, &t->part, 0);
}

/* From one session, or none, to another one, or none. */
static void take_session(struct slots *t, const struct link_session *is)
{
	struct slot_op *list = t->waiting;

	t->session = *is;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++) {
		slot_stop(s, -ENOTCONN);
		s->again_ns = s->pause_ms = 0;
	}
	forget_failures(t);
	t->waiting = NULL;
	again_all(list); /* writes of the old one end */
}

/* Posts -------------------------------------------------------------------------------- */

static void take_inbox(struct slots *t)
{
	struct link_session linked;
	struct slot_op *op, *next;

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
static void say_quiet(struct slots *t)
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

/* The first of those that wait is sent, or ends. False: none does, or it must wait. */
static bool send_next(struct slots *t)
{
	int r = 0;

	take_inbox(t);
	struct slot_op *op = t->waiting;
	if (!op)
		return false;
	if (t->ending || t->has_given_up || is_lost(op) || is_late(op, clock_ns())) {
		DL_DELETE(t->waiting, op);
		again(op);
		return true;
	}
	struct slot *s = best_slot(t);
	if (s && t->o.kind->prepare)
		r = t->o.kind->prepare(op);
	if (!s || r == -EAGAIN)
		return false;
	DL_DELETE(t->waiting, op);
	if (r < 0)
		complete(op, r);
	else
		send_op(s, op);
	return true;
}

static void flush_all(struct slots *t)
{
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		if (s->lane)
			t->o.kind->flush(s);
}

/* Sends what waits as long as a connection has room. Called below itself, by completions, it
 * leaves that to the outer one. */
static void pump(struct slots *t)
{
	if (t->pumping)
		return;
	t->pumping = true;
	while (send_next(t))
		;
	if (t->o.kind->flush)
		flush_all(t);
	open_slots(t);
	t->pumping = false;
	if (t->ending)
		say_quiet(t);
}

static void on_kick(void *arg)
{
	struct slots *t = arg;

	{
		WITH_LOCK(&t->lock);
		t->is_kicked = false;
	}
	pump(t);
}

/* What is out past its deadline takes its connection with it. */
static void end_late(struct slot *s, uint64_t now, uint64_t *next_ns)
{
	struct slot_op *op;

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
	struct slots *t = arg;
	struct slot_op *op, *next, *late = NULL;
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
static int accept_post(struct slots *t, struct post *p, bool *ret_kick)
{
	WITH_LOCK(&t->lock);
	struct slot_op *op = t->free;

	if (t->has_given_up)
		return -ENODEV;
	if (t->is_quiescing || (!t->linked.number && p->kind == POST_WRITE))
		return -ENOTCONN;
	if (!op || (t->bytes && t->bytes + p->len > t->o.max_bytes))
		return -EAGAIN;
	LL_DELETE(t->free, op);
	op->slots = t;
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

static int slots_post(struct transport *transport, struct post *p)
{
	struct slots *t = slots_of(transport);
	bool must_kick;

	if (!p->len || p->len > WIRE_RUN_MAX || p->off > UINT32_MAX - p->len)
		return -EINVAL;
	int r = accept_post(t, p, &must_kick);
	if (r < 0)
		return r;
	if (loop_is_current(t->loop) && !t->o.kind->flush)
		pump(t);
	else if (loop_is_current(t->loop))
		kick(t); /* with what else is posted in this turn */
	else if (must_kick)
		loop_post_call(t->loop, &t->kick);
	return 0;
}

static void *slots_map(struct transport *t, struct slice_id s)
{
	(void)t;
	(void)s;
	return NULL;
}

/* Opening and closing ------------------------------------------------------------------ */

static void quiesce_on_loop(void *arg)
{
	struct slots *t = arg;

	t->ending = true;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		slot_stop(s, -ECANCELED);
	pump(t);
}

static void slots_quiesce(struct transport *transport)
{
	struct slots *t = slots_of(transport);

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

void slots_free(struct slots *t)
{
	if (t->o.kind->fini)
		t->o.kind->fini(t->o.arg);
	loop_timer_free(t->timer);
	loop_free(t->loop);
	pthread_cond_destroy(&t->idle);
	lock_fini(&t->lock);
	free(t);
}

static void slots_close(struct transport *transport)
{
	struct slots *t = slots_of(transport);

	{
		WITH_LOCK(&t->lock);
		assert(t->is_quiet && !t->nout); /* quiesced before */
	}
	remote_leave(t->remote, &t->part); /* nothing comes from there any more */
	slots_free(t);
}

static const struct transport_ops slots_ops = {
	.post = slots_post,
	.quiesce = slots_quiesce,
	.map = slots_map,
	.close = slots_close,
};

/* On the link's loop: otherwise on_begun() comes, or has come. */
static void begin_on_link(void *arg)
{
	struct slots *t = arg;

	if (remote_is_up(t->remote))
		link_session(t, remote_session(t->remote));
	WITH_LOCK(&t->lock);
	t->has_begun = true;
	pthread_cond_broadcast(&t->idle);
}

void slots_begin(struct slots *t, struct transport **ret)
{
	remote_join(t->remote, &t->part);
	t->errand = (struct loop_call){ .fn = begin_on_link, .arg = t };
	loop_post_call(remote_loop(t->remote), &t->errand);
	WITH_LOCK(&t->lock);
	while (!t->has_begun)
		lock_wait(&t->lock, &t->idle);
	*ret = &t->transport;
}

static struct slots *alloc(struct remote *x, const struct slots_opts *o)
{
	uint32_t max_posts = o->max_posts ? o->max_posts : 1024;
	struct slots *t = calloc(1, sizeof(*t) + max_posts * o->kind->op_bytes);

	if (!t)
		return NULL;
	t->ops = slots_ops;
	t->ops.name = o->kind->name;
	t->transport.ops = &t->ops;
	t->remote = x;
	t->o = *o;
	t->o.timeout_ms = o->timeout_ms ? o->timeout_ms : 10000;
	t->o.max_bytes = o->max_bytes ? o->max_bytes : 256 << 20;
	t->part = (struct remote_part){ .lost = on_lost, .begun = on_begun, .arg = t };
	t->kick = (struct loop_call){ .fn = on_kick, .arg = t };
	lock_init(&t->lock, LOCK_TRANSPORT);
	lock_cond_init(&t->idle);
	for (uint32_t i = max_posts; i--;) {
		struct slot_op *op = (struct slot_op *)(t->records + i * o->kind->op_bytes);
		LL_PREPEND(t->free, op);
	}
	t->nslots = o->conns;
	for (struct slot *s = t->slots; s < t->slots + t->nslots; s++)
		s->slots = t;
	return t;
}

int slots_new(struct remote *x, const struct slots_opts *o, struct slots **ret)
{
	assert(o->conns && o->conns <= SLOTS_MAX);
	struct slots *t = alloc(x, o);
	if (!t)
		return -ENOMEM;
	int r = loop_new(o->kind->thread, &t->loop);
	if (r >= 0)
		r = loop_timer_new(t->loop, LOOP_NEVER, 0, on_alarm, t, &t->timer);
	if (r < 0) {
		slots_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

/* What is asked -------------------------------------------------------------------------- */

void *slots_arg(const struct slots *t)
{
	return t->o.arg;
}

struct loop *slots_loop(const struct slots *t)
{
	return t->loop;
}

struct remote *slots_remote(const struct slots *t)
{
	return t->remote;
}

const uint8_t *slots_secret(const struct slots *t)
{
	return t->session.secret;
}

uint32_t slots_keep_alive_ms(const struct slots *t)
{
	return t->session.keep_alive_ms;
}

bool slots_has_given_up(struct slots *t, char **ret_why)
{
	WITH_LOCK(&t->lock);
	if (t->has_given_up && ret_why)
		why(ret_why, 0, "%s", t->why);
	return t->has_given_up;
}

int slots_wait_up(struct slots *t, uint64_t until_ns, const atomic_bool *cancelled,
		  char **ret_why)
{
	WITH_LOCK(&t->lock);
	while (!t->nup && !t->has_given_up) {
		uint64_t now = clock_ns();
		if (cancelled && atomic_load(cancelled))
			return why(ret_why, -ECANCELED, "it was cancelled");
		if (now >= until_ns)
			return why(ret_why, -ETIMEDOUT, "no connection in time");
		lock_wait_until(&t->lock, &t->idle, now + LOOK_MS * NS_PER_MS);
	}
	return t->nup ? 0 : why(ret_why, -ENODEV, "%s", t->why);
}
