/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes come into one buffer, in which messages are handled where they lie; one
 * that does not fit there gets memory of its own, and its rest is read straight
 * into that.
 *
 *	 in:  | handled | whole message | whole message | part |   room ...   |
 *	                 ^in_at                                ^in_len
 *
 * A call is a `struct entry` from the moment that it has an id: the one thing
 * that an answer can find. `call` in it is NULL once the call has ended otherwise,
 * or, if it has a late(), marked as owing that.
 *
 * Every message is one write to the stream, which keeps their order. Time is one
 * alarm (stream_wake()) at the earliest moment at which there is something to do.
 */
#include "engine/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"

/* Ids rise by one: their low bits are spread already. */
static inline unsigned id_hash(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return (unsigned)((v * 0x9e3779b97f4a7c15ULL) >> 32);
}
#define HASH_FUNCTION(p, len, hash) ((hash) = id_hash(p))
#include <uthash.h>

enum { IN_BYTES = 64 * 1024, NS_PER_MS = 1000000 };

struct entry {
	uint64_t id;
	uint16_t type;
	struct conn_call *call; /* NULL: ended before its answer; see owes_late */
	struct writer parts;    /* of an answer that goes on */
	UT_hash_handle hh;
};

struct out {
	struct conn *conn;
	uint8_t header[WIRE_HEADER];
	struct writer body; /* freed with the last part of it */
	size_t bytes;
};

struct conn {
	struct loop *loop;
	const struct conn_ops *ops;
	void *arg;
	struct conn_limits limits;
	struct stream *stream;
	bool up, stopped, ended;
	atomic_flag stop_asked;
	int stop_reason; /* of who set stop_asked */
	struct loop_call stop_post, free_post;
	char peer[STREAM_NAME];

	uint8_t *in;
	size_t in_at, in_len;
	struct wire_header big; /* of the message that is read into big_body */
	uint8_t *big_body;      /* NULL: none */
	size_t big_len;
	bool handling; /* somewhere below handle_messages() */
	uint64_t last_id; /* of the other side's requests */
	uint32_t owed;

	uint64_t next_id;
	struct entry *entries;
	uint32_t nentries;
	struct conn_call *first, **last; /* that have no entry yet */

	size_t out_bytes;
	uint64_t heard_ns, sent_ns; /* when something last came, or went */
	uint64_t wake_ns;           /* 0: none */
	struct conn_call ping;
	bool pinging;
};

static void start_waiting(struct conn *c);
static void handle_messages(struct conn *c);

/* Sending ------------------------------------------------------------------------ */

static bool must_wait(const struct conn *c)
{
	return (c->limits.max_owed && c->owed >= c->limits.max_owed) ||
	       c->out_bytes > CONN_OUT_MAX;
}

static void stop(struct conn *c, int reason)
{
	c->stopped = true;
	stream_stop(c->stream, reason);
}

static void on_sent(void *arg, int r)
{
	struct out *o = arg;
	struct conn *c = o->conn;

	c->out_bytes -= o->bytes;
	writer_fini(&o->body);
	free(o);
	if (r < 0) {
		c->stopped = true; /* by the stream, or before */
		return;
	}
	c->heard_ns = clock_ns(); /* the other side takes what we send */
	start_waiting(c);
	handle_messages(c);
}

/* One message, of a body that is freed when it is gone. Was it handed over? */
static bool send_one(struct conn *c, const struct wire_header *h, struct writer body)
{
	struct out *o = malloc(sizeof(*o));
	int r = -ENOMEM;

	if (o) {
		*o = (struct out){ .conn = c, .body = body, .bytes = WIRE_HEADER + h->len };
		wire_put_header(o->header, h);
		struct iovec iov[] = { { o->header, WIRE_HEADER }, { body.p, h->len } };
		c->out_bytes += o->bytes;
		c->sent_ns = clock_ns();
		r = stream_write(c->stream, iov, h->len ? 2 : 1, on_sent, o);
		if (r >= 0)
			return true;
		c->out_bytes -= o->bytes;
	}
	writer_fini(&body);
	free(o);
	stop(c, r);
	return false;
}

/* Takes the body, whatever becomes of it. Parts are copies: each is freed alone. */
static bool send_message(struct conn *c, struct wire_header h, struct writer body)
{
	size_t at = 0;

	if (body.bad && !c->stopped)
		stop(c, -ENOMEM);
	for (; !c->stopped && body.len - at > WIRE_BODY_MAX; at += WIRE_BODY_MAX) {
		struct wire_header part = h;
		struct writer copy = { 0 };

		part.len = WIRE_BODY_MAX;
		part.flags |= WIRE_MORE;
		write_bytes(&copy, body.p + at, WIRE_BODY_MAX);
		if (copy.bad)
			stop(c, -ENOMEM);
		else
			send_one(c, &part, copy);
	}
	if (c->stopped) {
		writer_fini(&body);
		return false;
	}
	if (at) {
		memmove(body.p, body.p + at, body.len - at);
		body.len -= at;
	}
	h.len = (uint32_t)body.len;
	return send_one(c, &h, body);
}

void conn_send(struct conn *c, uint16_t type, struct writer body)
{
	/* Nobody waits for these, so nothing else bounds them. */
	if (c->out_bytes > 2 * CONN_OUT_MAX && !c->stopped)
		stop(c, -ETIMEDOUT);
	send_message(c, (struct wire_header){ .type = type }, body);
}

void conn_answer(struct conn *c, const struct wire_header *h, int r, struct writer body)
{
	struct wire_header answer = { .type = h->type, .flags = WIRE_ANSWER, .id = h->id };

	assert(c->owed);
	c->owed--;
	if (body.len > CONN_ANSWER_MAX)
		r = -E2BIG;
	if (r < 0)
		writer_fini(&body);
	answer.result = wire_result(r);
	send_message(c, answer, body);
	handle_messages(c);
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
	return c->limits.idle_ms ? c->heard_ns + (uint64_t)c->limits.idle_ms * NS_PER_MS : 0;
}

static uint64_t ping_due_ns(const struct conn *c)
{
	return c->limits.ping_ms && !c->pinging
		       ? c->sent_ns + (uint64_t)c->limits.ping_ms * NS_PER_MS : 0;
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
		alarm_at(c, now + CONN_LOOK_MS * (uint64_t)NS_PER_MS);
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
	struct entry *e;

	if (r) {
		call_end(call, r, BYTES_NONE);
		return;
	}
	e = call->body.bad ? NULL : calloc(1, sizeof(*e));
	if (!e) {
		call_end(call, -ENOMEM, BYTES_NONE);
		return;
	}
	*e = (struct entry){ .id = ++c->next_id, .type = call->type, .call = call };
	HASH_ADD(hh, c->entries, id, sizeof(e->id), e);
	c->nentries++;
	watch_call(c, call, now);
	struct wire_header h = { .type = call->type, .id = e->id,
				 .timeout_ms = timeout_ms(call, now) };
	struct writer body = call->body;
	call->body = (struct writer){ 0 };
	call->sent = send_message(c, h, body); /* it calls nobody back */
}

static void start_waiting(struct conn *c)
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
	start_waiting(c);
}

void conn_call(struct conn *c, struct conn_call *call)
{
	lock_assert_none();
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
	struct entry *e, *next;

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
	handle_messages(c);
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
		stop(c, -ETIMEDOUT);
		return;
	}
	if (is_past(ping_due_ns(c), now))
		ping(c);
	end_given_up(c, now);
	set_alarms(c);
}

/* What comes --------------------------------------------------------------------- */

static int on_answer(struct conn *c, const struct wire_header *h, struct bytes body)
{
	struct entry *e;

	HASH_FIND(hh, c->entries, &h->id, sizeof(h->id), e);
	if (!e || e->type != h->type)
		return -EPROTO;
	if (h->flags & WIRE_MORE || e->parts.len) {
		if (e->parts.len + body.len > CONN_ANSWER_MAX)
			return -EPROTO;
		if (e->call)
			write_bytes(&e->parts, body.p, body.len);
		if (e->parts.bad)
			return -ENOMEM;
	}
	if (h->flags & WIRE_MORE)
		return 0;
	HASH_DEL(c->entries, e);
	c->nentries--;
	if (e->call) {
		e->call->answered = true;
		call_end(e->call, wire_errno(h->result),
			 e->parts.len ? writer_bytes(&e->parts) : body);
	}
	writer_fini(&e->parts);
	free(e);
	start_waiting(c);
	return 0;
}

static int on_request(struct conn *c, const struct wire_header *h, struct bytes body)
{
	if (!h->id)
		return c->ops->message(c->arg, h, body);
	if (!c->limits.max_owed || h->id <= c->last_id)
		return -EPROTO;
	c->last_id = h->id;
	c->owed++;
	if (h->type != WIRE_PING)
		return c->ops->message(c->arg, h, body);
	if (body.len)
		return -EPROTO;
	conn_answer(c, h, 0, (struct writer){ 0 });
	return 0;
}

static void handle(struct conn *c, const struct wire_header *h, struct bytes body)
{
	int r = h->flags & WIRE_ANSWER ? on_answer(c, h, body) : on_request(c, h, body);

	if (r && !c->stopped)
		stop(c, r < 0 ? r : -EPROTO);
}

static bool begin_big(struct conn *c, const struct wire_header *h)
{
	c->big_body = malloc(h->len);
	if (!c->big_body) {
		stop(c, -ENOMEM);
		return false;
	}
	c->big = *h;
	c->big_len = c->in_len - c->in_at - WIRE_HEADER; /* less than all of it */
	memcpy(c->big_body, c->in + c->in_at + WIRE_HEADER, c->big_len);
	c->in_at = c->in_len = 0;
	return true;
}

static bool handle_big(struct conn *c)
{
	uint8_t *body = c->big_body;

	if (c->big_len < c->big.len)
		return false;
	c->big_body = NULL;
	handle(c, &c->big, BYTES_OF(body, c->big.len));
	free(body);
	return true;
}

/* Handles the next message that is there; false: there is none. */
static bool handle_one(struct conn *c)
{
	size_t len = c->in_len - c->in_at;
	struct wire_header h;

	if (c->big_body)
		return handle_big(c);
	if (len < WIRE_HEADER)
		return false;
	const uint8_t *p = c->in + c->in_at;
	if (wire_get_header(p, &h) < 0 || h.len > c->limits.max_body) {
		stop(c, -EPROTO);
		return false;
	}
	if (WIRE_HEADER + (size_t)h.len > IN_BYTES)
		return begin_big(c, &h);
	if (len < WIRE_HEADER + (size_t)h.len)
		return false;
	c->in_at += WIRE_HEADER + h.len;
	handle(c, &h, BYTES_OF(p + WIRE_HEADER, h.len));
	return true;
}

/* All that is there, as long as the other side need not wait; then reads on or
 * not. Called within itself it leaves that to the outer one. */
static void handle_messages(struct conn *c)
{
	if (c->handling || c->stopped || !c->up)
		return;
	c->handling = true;
	while (!c->stopped && !must_wait(c) && handle_one(c))
		;
	c->handling = false;
	if (!c->stopped)
		stream_pause(c->stream, must_wait(c));
}

static void *on_room(void *arg, size_t *ret_len)
{
	struct conn *c = arg;

	if (c->big_body) {
		*ret_len = c->big.len - c->big_len;
		return c->big_body + c->big_len;
	}
	c->in_len -= c->in_at;
	memmove(c->in, c->in + c->in_at, c->in_len);
	c->in_at = 0;
	*ret_len = IN_BYTES - c->in_len;
	return c->in + c->in_len;
}

static void on_arrived(void *arg, size_t n)
{
	struct conn *c = arg;

	c->heard_ns = clock_ns();
	if (c->big_body)
		c->big_len += n;
	else
		c->in_len += n;
	handle_messages(c);
}

/* Beginning and end -------------------------------------------------------------- */

static void on_connected(void *arg)
{
	struct conn *c = arg;

	c->up = true;
	c->heard_ns = c->sent_ns = clock_ns();
	set_alarms(c);
	c->ops->up(c->arg);
	start_waiting(c);
}

/* All that has been sent, unlinked. */
static struct conn_call *take_sent(struct conn *c)
{
	struct conn_call *list = NULL;
	struct entry *e, *next;

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
	.connected = on_connected, .room = on_room, .arrived = on_arrived,
	.woken = on_woken, .ended = on_ended,
};

static struct conn *conn_new(struct loop *l, const struct conn_limits *limits,
			     const struct conn_ops *ops, void *arg)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c || !(c->in = malloc(IN_BYTES))) {
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

	free(c->big_body);
	free(c->in);
	free(c);
	metric_add(M_CONNS, -1);
}

int conn_connect(struct loop *l, const struct sockaddr_storage *to,
		 const struct conn_limits *limits, const struct conn_ops *ops, void *arg,
		 struct conn **ret)
{
	struct conn *c = conn_new(l, limits, ops, arg);

	if (!c)
		return -ENOMEM;
	int r = stream_connect(l, to, &stream_ops, c, &c->stream);
	if (r < 0) {
		free_now(c);
		return r;
	}
	snprintf(c->peer, sizeof(c->peer), "%s", stream_peer(c->stream));
	set_alarms(c);
	*ret = c;
	return 0;
}

int conn_accept(struct loop *l, struct stream *s, const struct conn_limits *limits,
		const struct conn_ops *ops, void *arg, struct conn **ret)
{
	struct conn *c = conn_new(l, limits, ops, arg);

	if (!c) {
		stream_stop(s, -ENOMEM);
		return -ENOMEM;
	}
	c->stream = s;
	c->up = true;
	snprintf(c->peer, sizeof(c->peer), "%s", stream_peer(s));
	*ret = c;
	set_alarms(c);
	stream_start(s, &stream_ops, c);
	return 0;
}

void conn_set_limits(struct conn *c, const struct conn_limits *limits)
{
	c->limits = *limits;
	set_alarms(c);
	start_waiting(c);
	handle_messages(c);
}

const char *conn_peer(const struct conn *c)
{
	return c->peer;
}

static void stop_posted(void *arg)
{
	struct conn *c = arg;

	if (!c->ended)
		stop(c, c->stop_reason);
}

void conn_stop(struct conn *c, int reason)
{
	if (loop_is_current(c->loop)) {
		if (!c->ended)
			stop(c, reason);
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
