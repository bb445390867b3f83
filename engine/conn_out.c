/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending. Every message is one write to the stream, which keeps their order: a
 * header, a body that is freed when it is gone, and a tail that is lent.
 */
#include <assert.h>
#include <errno.h>

#include "common/clock.h"
#include "engine/conn_priv.h"

enum { MUCH = 64 << 10 };

struct out {
	struct conn *conn;
	uint8_t header[WIRE_HEADER];
	struct writer body;
	struct bytes tail;
	struct conn_entry *entry; /* of a call that lends the tail */
	bool is_answer_lent;
	uint64_t cookie;
	size_t bytes;
};

bool conn_is_full(const struct conn *c)
{
	return !c->stopped && c->out_bytes > CONN_OUT_MAX;
}

static void on_sent(void *arg, int r)
{
	struct out o = *(struct out *)arg;
	struct conn *c = o.conn;
	struct conn_entry *e = o.entry;
	bool was_full = c->out_bytes > CONN_OUT_MAX;

	free(arg);
	c->out_bytes -= o.bytes;
	writer_fini(&o.body);
	if (o.is_answer_lent)
		c->ops->returned(c->arg, o.cookie);
	if (e)
		e->is_sending = false;
	if (r < 0) {
		c->stopped = true; /* by the stream, or before */
		return;
	}
	/* So much fits into no buffer on the way for long: the other side takes it. Small messages
	 * say nothing of it. */
	if (o.bytes >= MUCH || was_full)
		c->heard_ns = clock_ns();
	if (e && e->is_answered)
		conn_entry_end(c, e, e->result, BYTES_NONE);
	if (was_full && !conn_is_full(c) && c->ops->taken)
		c->ops->taken(c->arg);
	conn_start_waiting(c);
	conn_handle_messages(c);
}

static int hand_over(struct conn *c, const struct wire_header *h, const struct out *what)
{
	struct out *o = malloc(sizeof(*o));
	struct iovec iov[3];
	unsigned n = 1;

	if (!o)
		return -ENOMEM;
	*o = *what;
	o->conn = c;
	o->bytes = WIRE_HEADER + h->len;
	wire_put_header(o->header, h);
	iov[0] = (struct iovec){ o->header, WIRE_HEADER };
	if (o->body.len)
		iov[n++] = (struct iovec){ o->body.p, o->body.len };
	if (o->tail.len)
		iov[n++] = (struct iovec){ (void *)(uintptr_t)o->tail.p, o->tail.len };
	c->out_bytes += o->bytes;
	c->sent_ns = clock_ns();
	int r = stream_write(c->stream, iov, n, on_sent, o);
	if (r >= 0)
		return 0;
	c->out_bytes -= o->bytes;
	free(o);
	return r;
}

/* One message. Was it handed over? If not, the body is freed. */
static bool send_one(struct conn *c, const struct wire_header *h, struct out *what)
{
	int r = hand_over(c, h, what);

	if (r >= 0)
		return true;
	writer_fini(&what->body);
	conn_stop_now(c, r);
	return false;
}

/* Takes the body, whatever becomes of it. Parts are copies: each is freed alone. */
static bool send_message(struct conn *c, struct wire_header h, struct writer body)
{
	size_t at = 0;

	if (body.bad && !c->stopped)
		conn_stop_now(c, -ENOMEM);
	for (; !c->stopped && body.len - at > WIRE_BODY_MAX; at += WIRE_BODY_MAX) {
		struct wire_header part = h;
		struct writer copy = { 0 };

		part.len = WIRE_BODY_MAX;
		part.flags |= WIRE_MORE;
		write_bytes(&copy, body.p + at, WIRE_BODY_MAX);
		if (copy.bad)
			conn_stop_now(c, -ENOMEM);
		else
			send_one(c, &part, &(struct out){ .body = copy });
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
	return send_one(c, &h, &(struct out){ .body = body });
}

bool conn_send_request(struct conn *c, struct wire_header h, struct writer body,
		       struct bytes tail, struct conn_entry *e)
{
	if (!tail.len)
		return send_message(c, h, body);
	h.len = (uint32_t)(body.len + tail.len);
	assert(h.len <= WIRE_BODY_MAX);
	e->is_sending = send_one(c, &h, &(struct out){ .body = body, .tail = tail, .entry = e });
	return e->is_sending;
}

void conn_send(struct conn *c, uint16_t type, struct writer body)
{
	/* Nobody waits for these, so nothing else bounds them. */
	if (c->out_bytes > 2 * CONN_OUT_MAX && !c->stopped)
		conn_stop_now(c, -ETIMEDOUT);
	send_message(c, (struct wire_header){ .type = type }, body);
}

static struct wire_header answer_to(struct conn *c, const struct wire_header *h)
{
	assert(c->owed);
	c->owed--;
	return (struct wire_header){ .type = h->type, .flags = WIRE_ANSWER, .id = h->id };
}

void conn_answer(struct conn *c, const struct wire_header *h, int r, struct writer body)
{
	struct wire_header answer = answer_to(c, h);

	if (body.len > CONN_ANSWER_MAX)
		r = -E2BIG;
	if (r < 0)
		writer_fini(&body);
	answer.result = wire_result(r);
	send_message(c, answer, body);
	conn_handle_messages(c);
}

void conn_answer_lent(struct conn *c, const struct wire_header *h, struct bytes lent,
		      uint64_t cookie)
{
	struct wire_header answer = answer_to(c, h);

	assert(lent.len && lent.len <= WIRE_BODY_MAX);
	answer.len = (uint32_t)lent.len;
	struct out what = { .tail = lent, .is_answer_lent = true, .cookie = cookie };
	if (c->stopped || !send_one(c, &answer, &what))
		c->ops->returned(c->arg, cookie);
	conn_handle_messages(c);
}
