/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane is taken care of by two threads, one after the other: the session's loop
 * makes it, its own loop works, and tells the session's when the connection has ended
 * and all its spans are given back; that one takes it off the list and sends it back
 * to be freed behind everything that was posted to it.
 *
 *	session's loop        its loop
 *	lanes_add()  ------>  lane_begin()
 *	lane_stop()  ------>  lane_stopped()
 *	lane_gone()  <------  lane_ended()
 *	             ------>  lane_free()
 */
#include "engine/lanes.h"

#include <assert.h>
#include <errno.h>

#include "common/cleanup.h"
#include "common/log.h"

enum { AHEAD = 16 * 1024 }; /* of a message: what is read ahead is copied */

struct fence {
	struct wire_header header;
	void (*done)(void *arg, const struct wire_header *h);
	void *arg;
	struct fence *next;
};

struct lane {
	struct lanes *lanes;
	struct loop *loop;
	uint32_t number;
	int fd;
	struct loop_call post, stop; /* begin, gone, free, in this order; and stop */

	/* The session's loop only. */
	bool is_stopping;
	struct fence *fences; /* that wait for its end */
	struct lane *prev, *next;

	/* Its own loop only. */
	struct conn *conn;
	int refused;             /* why the WRITE that comes is thrown away */
	bool is_placing;         /* it comes into a span of this slice: */
	struct slice_id placing;
};

struct lanes {
	struct lanes_opts o;
	struct lane *first;
	uint32_t n;
	bool closing;
};

int lanes_new(const struct lanes_opts *o, struct lanes **ret)
{
	struct lanes *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->o = *o;
	*ret = l;
	return 0;
}

void lanes_free(struct lanes *l)
{
	if (!l)
		return;
	assert(!l->first);
	free(l);
}

/* Requests -------------------------------------------------------------------------- */

/* A slice as a number, which conn.h hands back. */
static uint64_t cookie_of(struct slice_id s)
{
	return (uint64_t)s.gen << 32 | s.page;
}

static void on_returned(void *arg, uint64_t cookie)
{
	struct lane *x = arg;
	struct slice_id s = { (uint32_t)cookie, (uint32_t)(cookie >> 32) };

	holds_unuse(x->lanes->o.holds, s, false);
}

static int on_read(struct lane *x, const struct wire_header *h, struct bytes body)
{
	struct wire_span span;
	void *from;

	if (wire_read_span(body, &span) < 0)
		return -EPROTO;
	int r = holds_use(x->lanes->o.holds, &span, false, &from);
	if (r < 0)
		conn_answer(x->conn, h, r, (struct writer){ 0 });
	else
		conn_answer_lent(x->conn, h, BYTES_OF(from, span.bytes), cookie_of(span.slice));
	return 0;
}

/* The bytes of a WRITE come: into the slice, or, refused, nowhere. */
static void *on_place(void *arg, const struct wire_header *h, const uint8_t *head)
{
	struct lane *x = arg;
	struct wire_span span;
	void *to = NULL;

	if (wire_read_span(BYTES_OF(head, WIRE_SPAN), &span) < 0 ||
	    span.bytes != h->len - WIRE_SPAN)
		x->refused = -EPROTO;
	else if (x->lanes->o.read_only)
		x->refused = -EROFS;
	else
		x->refused = holds_use(x->lanes->o.holds, &span, true, &to);
	if (x->refused)
		return NULL;
	x->is_placing = true;
	x->placing = span.slice;
	return to;
}

static void end_placing(struct lane *x)
{
	if (x->is_placing)
		holds_unuse(x->lanes->o.holds, x->placing, true);
	x->is_placing = false;
}

/* They have come: so it is placed (I5). */
static int on_write(struct lane *x, const struct wire_header *h)
{
	end_placing(x);
	if (x->refused == -EPROTO)
		return -EPROTO;
	conn_answer(x->conn, h, x->refused, (struct writer){ 0 });
	return 0;
}

static int on_message(void *arg, const struct wire_header *h, struct bytes body)
{
	switch (h->type) {
	case WIRE_READ:
		return on_read(arg, h, body);
	case WIRE_WRITE:
		return on_write(arg, h);
	default:
		return -EPROTO;
	}
}

/* Its life -------------------------------------------------------------------------- */

static void lane_free(void *arg)
{
	struct lane *x = arg;

	conn_free(x->conn);
	free(x);
}

static void lane_gone(void *arg)
{
	struct lane *x = arg;
	struct lanes *l = x->lanes;

	*(x->prev ? &x->prev->next : &l->first) = x->next;
	if (x->next)
		x->next->prev = x->prev;
	l->n--;
	for (struct fence *f; (f = x->fences);) {
		x->fences = f->next;
		f->done(f->arg, &f->header);
		free(f);
	}
	x->post = (struct loop_call){ .fn = lane_free, .arg = x };
	loop_post_call(x->loop, &x->post);
	if (l->closing && !l->first)
		l->o.gone(l->o.arg);
}

static void lane_end(struct lane *x)
{
	end_placing(x);
	x->post = (struct loop_call){ .fn = lane_gone, .arg = x };
	loop_post_call(x->lanes->o.loop, &x->post);
}

static void on_ended(void *arg, int reason)
{
	struct lane *x = arg;

	if (reason == -EPROTO)
		log_warn("node", "%s: a data connection ends: what it said does not parse",
			 conn_peer(x->conn));
	lane_end(x);
}

static const struct conn_ops lane_ops = {
	.message = on_message, .ended = on_ended, .place_type = WIRE_WRITE, .place = on_place,
	.returned = on_returned,
};

static void lane_begin(void *arg)
{
	struct lane *x = arg;
	const struct lanes_opts *o = &x->lanes->o;
	struct conn_limits limits = { .max_body = WIRE_SPAN + WIRE_RUN_MAX,
				      .max_owed = o->max_requests,
				      .idle_ms = o->keep_alive_ms, .ahead = AHEAD };
	struct stream *s;
	int r = stream_open(x->loop, x->fd, &s);

	if (!r)
		r = conn_accept(x->loop, s, &limits, &lane_ops, x, &x->conn);
	if (r < 0)
		lane_end(x);
	else
		conn_send(x->conn, WIRE_READY, (struct writer){ 0 });
}

static void lane_stopped(void *arg)
{
	struct lane *x = arg;

	if (x->conn)
		conn_stop(x->conn, -ECANCELED);
}

static void lane_stop(struct lane *x)
{
	if (x->is_stopping)
		return;
	x->is_stopping = true;
	x->stop = (struct loop_call){ .fn = lane_stopped, .arg = x };
	loop_post_call(x->loop, &x->stop);
}

static struct lane *find(const struct lanes *l, uint32_t number)
{
	struct lane *x = l->first;

	while (x && x->number != number)
		x = x->next;
	return x;
}

bool lanes_has(const struct lanes *l, uint32_t number)
{
	return find(l, number);
}

int lanes_add(struct lanes *l, struct loop *on, int fd, uint32_t number)
{
	_cleanup_(closep) int owned = fd;
	struct lane *x;

	if (l->closing)
		return -ENOTCONN;
	if (l->n == l->o.max)
		return -EUSERS;
	if (find(l, number))
		return -EEXIST;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	*x = (struct lane){ .lanes = l, .loop = on, .number = number, .fd = fd,
			    .next = l->first };
	owned = -1;
	if (x->next)
		x->next->prev = x;
	l->first = x;
	l->n++;
	x->post = (struct loop_call){ .fn = lane_begin, .arg = x };
	loop_post_call(on, &x->post);
	return 0;
}

int lanes_fence(struct lanes *l, uint32_t number, const struct wire_header *h,
		void (*done)(void *arg, const struct wire_header *h), void *arg)
{
	struct lane *x = find(l, number);
	struct fence *f;

	if (!x) {
		done(arg, h);
		return 0;
	}
	f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct fence){ *h, done, arg, x->fences };
	x->fences = f;
	lane_stop(x);
	return 0;
}

bool lanes_close(struct lanes *l)
{
	l->closing = true;
	for (struct lane *x = l->first; x; x = x->next)
		lane_stop(x);
	return !l->first;
}
