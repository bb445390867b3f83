/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes. Bytes come into one buffer, in which messages are handled where they
 * lie. What does not fit there, or has a place of its own, is begun there, and its
 * rest is read straight to where it goes (struct conn_rest).
 *
 *	 in:  | handled | whole message | whole message | part |   room ...   |
 *	                 ^in_at                                ^in_len
 *
 * While there is a rest to come the buffer has nothing that is not handled.
 */
#include <errno.h>

#include "common/clock.h"
#include "engine/conn_priv.h"

/* Answers alone can pile up here: who asks of nobody reads on, whatever it sends, so
 * that two ends never wait for each other. */
static bool must_wait(const struct conn *c)
{
	return c->limits.max_owed &&
	       (c->owed >= c->limits.max_owed || c->out_bytes > CONN_OUT_MAX);
}

/* Handling ----------------------------------------------------------------------- */

/* Into e->parts; a negative errno: it cannot be. */
static int add_part(struct conn_entry *e, struct bytes body)
{
	if (e->parts.len + body.len > CONN_ANSWER_MAX)
		return -EPROTO;
	if (e->call)
		write_bytes(&e->parts, body.p, body.len);
	return e->parts.bad ? -ENOMEM : 0;
}

static int on_answer(struct conn *c, const struct wire_header *h, struct bytes body)
{
	struct conn_entry *e = conn_entry_find(c, h->id);
	int r = wire_errno(h->result);

	if (!e || e->type != h->type || e->is_answered)
		return -EPROTO;
	if (e->call && e->call->into && r >= 0 && body.p != e->call->into)
		return -EPROTO;
	if (h->flags & WIRE_MORE || e->parts.len) {
		int bad = add_part(e, body);
		if (bad < 0)
			return bad;
	}
	if (h->flags & WIRE_MORE)
		return 0;
	if (e->is_sending) { /* the loop hears of the answer first */
		e->is_answered = true;
		e->result = r;
		return body.len ? -EPROTO : 0;
	}
	conn_entry_end(c, e, r, e->parts.len ? writer_bytes(&e->parts) : body);
	conn_start_waiting(c);
	return 0;
}

static bool may_ask(const struct conn *c, const struct wire_header *h)
{
	return c->limits.max_owed && h->id > c->last_id;
}

static int on_request(struct conn *c, const struct wire_header *h, struct bytes body)
{
	if (!h->id)
		return c->ops->message(c->arg, h, body);
	if (!may_ask(c, h))
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
		conn_stop_now(c, r < 0 ? r : -EPROTO);
}

/* Messages with a rest ------------------------------------------------------------- */

/* The message at in_at, whose header and first `skip` bytes are there. */
static void begin_rest(struct conn *c, const struct wire_header *h, size_t skip, uint8_t *to,
		       struct bytes body)
{
	const uint8_t *from = c->in + c->in_at + WIRE_HEADER + skip;
	size_t there = c->in_len - c->in_at - WIRE_HEADER - skip;
	struct conn_rest *m = &c->rest;

	m->is_there = true;
	m->header = *h;
	m->body = body;
	m->to = to;
	m->len = h->len - skip;
	m->at = there < m->len ? there : m->len;
	if (to && m->at)
		memcpy(to, from, m->at);
	c->in_at += WIRE_HEADER + skip + m->at;
}

/* A body that does not fit into the buffer. */
static int begin_big(struct conn *c, const struct wire_header *h)
{
	uint8_t *p = malloc(h->len);

	if (!p)
		return -ENOMEM;
	c->rest.own = p;
	begin_rest(c, h, 0, p, BYTES_OF(p, h->len));
	return 0;
}

static bool is_placed(const struct conn *c, const struct wire_header *h)
{
	return c->ops->place_type && h->type == c->ops->place_type && !(h->flags & WIRE_ANSWER);
}

static int begin_placed(struct conn *c, const struct wire_header *h)
{
	struct conn_rest *m = &c->rest;

	if (!may_ask(c, h))
		return -EPROTO;
	memcpy(m->head, c->in + c->in_at + WIRE_HEADER, CONN_HEAD);
	begin_rest(c, h, CONN_HEAD, c->ops->place(c->arg, h, m->head),
		   BYTES_OF(m->head, CONN_HEAD));
	return 0;
}

/* The call that this answers and that says where its body goes, or NULL. */
static struct conn_call *call_into(struct conn *c, const struct wire_header *h)
{
	struct conn_entry *e = h->flags & WIRE_ANSWER && h->len ? conn_entry_find(c, h->id) : NULL;

	return e && e->type == h->type && e->call && e->call->into ? e->call : NULL;
}

static int begin_into(struct conn *c, const struct wire_header *h, struct conn_call *call)
{
	if (h->len != call->into_len || h->flags & WIRE_MORE)
		return -EPROTO;
	begin_rest(c, h, 0, call->into, BYTES_OF(call->into, h->len));
	return 0;
}

/* All of it is there: handles it. */
static bool handle_rest(struct conn *c)
{
	struct conn_rest *m = &c->rest;
	uint8_t *own = m->own;

	if (m->at < m->len)
		return false;
	m->is_there = false;
	m->own = NULL;
	handle(c, &m->header, m->body);
	free(own);
	return true;
}

/* Reading -------------------------------------------------------------------------- */

/* The next message, of which `len` bytes are there at p, is begun: 1. 0: not yet. */
static int handle_next(struct conn *c, const uint8_t *p, size_t len)
{
	struct wire_header h;
	struct conn_call *call;

	if (len < WIRE_HEADER)
		return 0;
	if (wire_get_header(p, &h) < 0 || h.len > c->limits.max_body ||
	    (is_placed(c, &h) && h.len < CONN_HEAD))
		return -EPROTO;
	if (is_placed(c, &h) && len < WIRE_HEADER + CONN_HEAD)
		return 0;
	int r = 0;
	if (is_placed(c, &h)) {
		r = begin_placed(c, &h);
	} else if ((call = call_into(c, &h))) {
		r = begin_into(c, &h, call);
	} else if (WIRE_HEADER + (size_t)h.len > CONN_IN_BYTES) {
		r = begin_big(c, &h);
	} else if (len < WIRE_HEADER + (size_t)h.len) {
		return 0;
	} else {
		c->in_at += WIRE_HEADER + h.len;
		handle(c, &h, BYTES_OF(p + WIRE_HEADER, h.len));
	}
	return r < 0 ? r : 1;
}

/* False: there is nothing that could be handled. */
static bool handle_one(struct conn *c)
{
	if (c->rest.is_there)
		return handle_rest(c);
	int r = handle_next(c, c->in + c->in_at, c->in_len - c->in_at);
	if (r < 0)
		conn_stop_now(c, r);
	return r > 0;
}

/* All that is there, as long as the other side need not wait; then reads on or
 * not. Called within itself it leaves that to the outer one. */
void conn_handle_messages(struct conn *c)
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

static size_t lesser(size_t a, size_t b)
{
	return a < b ? a : b;
}

void *conn_room(void *arg, size_t *ret_len)
{
	struct conn *c = arg;
	struct conn_rest *m = &c->rest;

	if (m->is_there && m->to) {
		*ret_len = m->len - m->at;
		return m->to + m->at;
	}
	c->in_len -= c->in_at;
	memmove(c->in, c->in + c->in_at, c->in_len);
	c->in_at = 0;
	if (m->is_there) /* into the buffer, as if it were nothing */
		*ret_len = lesser(m->len - m->at, CONN_IN_BYTES);
	else if (c->limits.ahead)
		*ret_len = lesser(c->limits.ahead, CONN_IN_BYTES - c->in_len);
	else
		*ret_len = CONN_IN_BYTES - c->in_len;
	return c->in + c->in_len;
}

void conn_arrived(void *arg, size_t n)
{
	struct conn *c = arg;

	c->heard_ns = clock_ns();
	if (c->rest.is_there)
		c->rest.at += n;
	else
		c->in_len += n;
	conn_handle_messages(c);
}
