/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls and their time, the beginning and the end of a connection. What comes is in
 * conn_in.c, what is sent in conn_out.c.
 *
 * A call is a `struct conn_entry` from the moment that it has an id: the one thing
 * that an answer can find. `call` in it is NULL once the call has ended otherwise,
 * or, if it has a late(), marked as owing that.
 *
 * Time is one alarm (stream_wake()) at the earliest moment at which there is
 * something to do.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/conn_priv.h"

void conn_stop_now(struct conn *c, int reason)
{
	c->stopped = true;
	stream_stop(c->stream, reason);
}

/* Time --------------------------------------------------------------------------- */

static void alarm_at(struct conn *c, uint64_t at_ns)
{
	if (!at_ns || (c->wake_ns && c->wake_ns <= at_ns) || c->stopped)
		return;
	c->wake_ns = at_ns;
	stream_wake(c->stream, at_ns);
}

static uint64_t idle_ends_ns(const struct conn *c)
{
	return c->limits.idle_ms ? c->heard_ns + c->limits.idle_ms * NS_PER_MS : 0;
}

static uint64_t ping_due_ns(const struct conn *c)
{
	return c->limits.ping_ms && !c->pinging
		       ? c->sent_ns + c->limits.ping_ms * NS_PER_MS : 0;
}

static void set_alarms(struct conn *c)
{
	alarm_at(c, c->limits.until_ns);
	alarm_at(c, idle_ends_ns(c));
	alarm_at(c, ping_due_ns(c));
}

static bool is_past(uint64_t at_ns, uint64_t now)
{
	return at_ns && now >= at_ns;
}

/* Calls -------------------------------------------------------------------------- */

/* The second end of a call that was given up is its late(). */
static void call_end(struct conn_call *call, int r, struct bytes body)
{
	if (call->owes_late) {
		call->late(call, r, body);
		return;
	}
	writer_fini(&call->body);
	if (call != &call->conn->ping)
		metric_add(M_REMOTE_CALLS, -1);
	call->done(call, r, body);
}

/* Why it is to be given up; 0: it is not. */
static int given_up(const struct conn_call *call, uint64_t now)
{
	if (kv_call_is_cancelled(call->of))
		return -ECANCELED;
	return is_past(call->deadline_ns, now) ? -ETIMEDOUT : 0;
}

/* Of a call that waits: when it is to be looked at next. */
static void watch_call(struct conn *c, const struct conn_call *call, uint64_t now)
{
	alarm_at(c, call->deadline_ns);
	if (call->of)
		alarm_at(c, now + CONN_LOOK_MS * NS_PER_MS);
}

/* done() of the first, which is given up; returns the rest of the list. */
static struct conn_call *end_first(struct conn_call *call)
{
	struct conn_call *next = call->next;

	writer_fini(&call->body);
	metric_add(M_REMOTE_CALLS, -1);
	call->done(call, call->why, BYTES_NONE);
	return next;
}

struct conn_entry *conn_entry_find(struct conn *c, uint64_t id)
{
	struct conn_entry *e;

	HASH_FIND(hh, c->entries, &id, sizeof(id), e);
	return e;
}

/* It has its answer: that goes to the call, if there still is one. */
void conn_entry_end(struct conn *c, struct conn_entry *e, int r, struct bytes body)
{
	HASH_DEL(c->entries, e);
	c->nentries--;
	if (e->call) {
		e->call->answered = true;
		call_end(e->call, r, body);
	}
	writer_fini(&e->parts);
	free(e);
}

static void end_all(struct conn_call *list, int r)
{
	for (struct conn_call *next; list; list = next) {
		next = list->next;
		call_end(list, r, BYTES_NONE);
	}
}

static uint32_t timeout_ms(const struct conn_call *call, uint64_t now)
{
	uint64_t ms;

	if (!call->deadline_ns)
		return 0;
	ms = (call->deadline_ns - now) / NS_PER_MS + 1;
	return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

static void call_send(struct conn *c, struct conn_call *call)
{
	uint64_t now = clock_ns();
	int r = given_up(call, now);
	struct conn_entry *e;

	if (r) {
		call_end(call, r, BYTES_NONE);
		return;
	}
	e = call->body.bad ? NULL : calloc(1, sizeof(*e));
	if (!e) {
		call_end(call, -ENOMEM, BYTES_NONE);
		return;
	}
	*e = (struct conn_entry){ .id = ++c->next_id, .type = call->type, .call = call };
	HASH_ADD(hh, c->entries, id, sizeof(e->id), e);
	c->nentries++;
	watch_call(c, call, now);
	struct wire_header h = { .type = call->type, .id = e->id,
				 .timeout_ms = timeout_ms(call, now) };
	struct writer body = call->body;
	call->body = (struct writer){ 0 };
	/* Also if the connection ends over it: its body is gone, and it is for who
	 * asked to ask again, as when it ends a moment later. */
	call->sent = true;
	conn_send_request(c, h, body, call->tail, e);
	metric_add(M_REMOTE_REQUESTS, call != &c->ping);
}

void conn_start_waiting(struct conn *c)
{
	while (c->first && !c->stopped && c->nentries < c->limits.max_calls &&
	       c->out_bytes <= CONN_OUT_MAX) {
		struct conn_call *call = c->first;

		c->first = call->next;
		if (!c->first)
			c->last = &c->first;
		call_send(c, call);
	}
}

static void give_back(struct conn *c, struct conn_call *call)
{
	if (c->ops->unsent && call != &c->ping) {
		metric_add(M_REMOTE_CALLS, -1);
		c->ops->unsent(c->arg, call);
	} else {
		call_end(call, -ENOTCONN, BYTES_NONE);
	}
}

static void call_begin(void *arg)
{
	struct conn_call *call = arg;
	struct conn *c = call->conn;

	if (c->stopped) {
		give_back(c, call);
		return;
	}
	call->next = NULL;
	*c->last = call;
	c->last = &call->next;
	watch_call(c, call, clock_ns());
	conn_start_waiting(c);
}

void conn_call(struct conn *c, struct conn_call *call)
{
	lock_assert_none();
	assert((!call->deadline_ns && !call->of) || (!call->tail.len && !call->into));
	if (call != &c->ping)
		metric_add(M_REMOTE_CALLS, 1);
	call->conn = c;
	call->sent = call->answered = call->owes_late = false;
	call->post = (struct loop_call){ .fn = call_begin, .arg = call };
	if (loop_is_current(c->loop))
		call_begin(call);
	else
		loop_post_call(c->loop, &call->post);
}

/* Ends those that are given up, and sees to it that the others are looked at again.
 * done() may call anything: so they are collected first, by `next`. */
static void end_given_up(struct conn *c, uint64_t now)
{
	struct conn_call *list = NULL, **at = &c->first;
	struct conn_entry *e, *next;

	HASH_ITER(hh, c->entries, e, next) {
		struct conn_call *call = e->call;
		if (!call || call->owes_late)
			continue;
		call->why = given_up(call, now);
		if (!call->why) {
			watch_call(c, call, now);
			continue;
		}
		call->next = list;
		list = call;
		/* I9: the late answer finds e, and no call but one that asked for it. */
		if (!call->late)
			e->call = NULL;
		call->owes_late = call->late;
	}
	while (*at) {
		struct conn_call *call = *at;
		call->why = given_up(call, now);
		if (call->why) {
			*at = call->next;
			call->next = list;
			list = call;
		} else {
			watch_call(c, call, now);
			at = &call->next;
		}
	}
	c->last = at;
	c->handling = true; /* nobody's late() comes before his done() */
	while (list)
		list = end_first(list);
	c->handling = false;
	conn_handle_messages(c);
}

static void on_pinged(struct conn_call *call, int r, struct bytes body)
{
	(void)body;
	call->conn->pinging = false;
	if (!r)
		set_alarms(call->conn);
}

static void ping(struct conn *c)
{
	c->pinging = true;
	c->ping = (struct conn_call){ .type = WIRE_PING, .done = on_pinged };
	conn_call(c, &c->ping);
}

static void on_woken(void *arg)
{
	struct conn *c = arg;
	uint64_t now = clock_ns();

	c->wake_ns = 0;
	if (c->stopped)
		return;
	/* What we owe ourselves is not the other side's silence. */
	if (c->limits.max_owed && c->owed >= c->limits.max_owed)
		c->heard_ns = now;
	if (is_past(c->limits.until_ns, now) || is_past(idle_ends_ns(c), now)) {
		conn_stop_now(c, -ETIMEDOUT);
		return;
	}
	if (is_past(ping_due_ns(c), now))
		ping(c);
	end_given_up(c, now);
	set_alarms(c);
}

/* Beginning and end -------------------------------------------------------------- */

static void on_connected(void *arg)
{
	struct conn *c = arg;

	c->up = true;
	c->heard_ns = c->sent_ns = clock_ns();
	set_alarms(c);
	c->ops->up(c->arg);
	conn_start_waiting(c);
}

/* All that has been sent, unlinked. */
static struct conn_call *take_sent(struct conn *c)
{
	struct conn_call *list = NULL;
	struct conn_entry *e, *next;

	HASH_ITER(hh, c->entries, e, next) {
		HASH_DEL(c->entries, e);
		if (e->call) {
			e->call->next = list;
			list = e->call;
		}
		writer_fini(&e->parts);
		free(e);
	}
	c->nentries = 0;
	return list;
}

static void on_ended(void *arg, int reason)
{
	struct conn *c = arg;

	c->stopped = c->ended = true;
	c->stream = NULL;
	assert(!c->out_bytes); /* all writes have come back */
	end_all(take_sent(c), -ENOTCONN);
	for (struct conn_call *call; (call = c->first);) {
		c->first = call->next;
		give_back(c, call);
	}
	c->last = &c->first;
	c->ops->ended(c->arg, reason);
}

static const struct stream_ops stream_ops = {
	.connected = on_connected, .room = conn_room, .arrived = conn_arrived,
	.woken = on_woken, .ended = on_ended,
};

static struct conn *conn_new(struct loop *l, const struct conn_limits *limits,
			     const struct conn_ops *ops, void *arg)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c || !(c->in = malloc(CONN_IN_BYTES))) {
		free(c);
		return NULL;
	}
	c->loop = l;
	c->ops = ops;
	c->arg = arg;
	c->limits = *limits;
	c->last = &c->first;
	c->heard_ns = c->sent_ns = clock_ns();
	metric_add(M_CONNS, 1);
	return c;
}

static void free_now(void *arg)
{
	struct conn *c = arg;

	free(c->rest.own);
	free(c->in);
	free(c);
	metric_add(M_CONNS, -1);
}

static int take_over(struct loop *l, struct stream *s, bool is_up,
		     const struct conn_limits *limits, const struct conn_ops *ops, void *arg,
		     struct conn **ret)
{
	struct conn *c = conn_new(l, limits, ops, arg);

	if (!c) {
		stream_stop(s, -ENOMEM);
		return -ENOMEM;
	}
	c->stream = s;
	c->up = is_up;
	snprintf(c->peer, sizeof(c->peer), "%s", stream_peer(s));
	*ret = c;
	set_alarms(c);
	stream_start(s, &stream_ops, c);
	return 0;
}

int conn_over(struct loop *l, struct stream *s, const struct conn_limits *limits,
	      const struct conn_ops *ops, void *arg, struct conn **ret)
{
	return take_over(l, s, false, limits, ops, arg, ret);
}

int conn_connect(struct loop *l, const struct sockaddr_storage *to,
		 const struct conn_limits *limits, const struct conn_ops *ops, void *arg,
		 struct conn **ret)
{
	struct stream *s;
	int r = stream_connect(l, to, &s);

	return r < 0 ? r : conn_over(l, s, limits, ops, arg, ret);
}

int conn_accept(struct loop *l, struct stream *s, const struct conn_limits *limits,
		const struct conn_ops *ops, void *arg, struct conn **ret)
{
	return take_over(l, s, true, limits, ops, arg, ret);
}

void conn_set_limits(struct conn *c, const struct conn_limits *limits)
{
	c->limits = *limits;
	if (!c->ended && (limits->max_calls || limits->max_owed))
		stream_widen(c->stream);
	set_alarms(c);
	conn_start_waiting(c);
	conn_handle_messages(c);
}

int conn_socket(struct conn *c)
{
	if (c->stopped)
		return -ENOTCONN;
	if (c->in_at < c->in_len || c->out_bytes)
		return -EPROTO;
	return stream_socket(c->stream);
}

const char *conn_reason_text(int reason)
{
	switch (reason) {
	case -ECONNRESET:
		return "it closed the connection";
	case -ETIMEDOUT:
		return "nothing was heard of it";
	case -EPROTO:
		return "what it said does not parse";
	default:
		return error_text(reason);
	}
}

const char *conn_peer(const struct conn *c)
{
	return c->peer;
}

static void stop_posted(void *arg)
{
	struct conn *c = arg;

	if (!c->ended)
		conn_stop_now(c, c->stop_reason);
}

void conn_stop(struct conn *c, int reason)
{
	if (loop_is_current(c->loop)) {
		if (!c->ended)
			conn_stop_now(c, reason);
		return;
	}
	if (atomic_flag_test_and_set(&c->stop_asked))
		return;
	c->stop_reason = reason;
	c->stop_post = (struct loop_call){ .fn = stop_posted, .arg = c };
	loop_post_call(c->loop, &c->stop_post);
}

/* Posted, hence after every conn_stop() that was. */
void conn_free(struct conn *c)
{
	if (!c)
		return;
	c->free_post = (struct loop_call){ .fn = free_now, .arg = c };
	loop_post_call(c->loop, &c->free_post);
}
