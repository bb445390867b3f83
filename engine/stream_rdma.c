/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written is copied into buffers and sent, as far as credits and buffers go; the
 * rest waits in a list of writes. A write leaves it when the SEND with its last byte is
 * done. What comes waits in a ring until its owner takes it.
 *
 *	stream_write() -> writes -> [ sends ] ---SEND---> [ receives ] -> come -> arrived()
 *	          done() <---------- done                     '---- its buffer waits again
 *
 * Nothing is taken, and nobody woken, from within a call: only from the loop.
 */
#include "engine/stream_rdma.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/stream_kind.h"
#include "engine/credits.h"

enum {
	/* 4.096 us << 18, seven times: 7.5 s. A session lives through as long a loss of
	 * the net as by TCP, whatever becomes of the bytes' connections meanwhile. */
	ACK_TIMEOUT = 18,
	DEPTH = 2 * CREDITS_MAX, /* see rdma_post(): each may take two places */
	PAGE = 4096,
	SLABS = 2, /* before and after stream_widen() */
};

/* What a connection is asked for with: this, and a version. */
static const uint8_t hello[] = { 's', 'l', 'i', 'c', 'e', 'f', 's', 'M', 1, 0, 0, 0 };

struct write {
	struct iovec iov[STREAM_IOV_MAX];
	unsigned n, at;    /* at: the run that is next to be copied */
	size_t off;        /* in that */
	uint64_t end;      /* of all that was ever written */
	void (*done)(void *arg, int r);
	void *arg;
	struct write *next;
};

struct send {
	struct rdma_op op; /* first */
	struct carrier *carrier;
	unsigned number;
	bool is_out;
	uint64_t end; /* bytes of the stream up to there are in it, and before it */
};

/* Bytes that came, in the buffer of that number. */
struct come {
	unsigned number;
	uint32_t at, end;
};

/* Registered: as many buffers for what comes, and then as many for what is sent. */
struct slab {
	uint8_t *at;
	struct rdma_mem *mem;
};

struct carrier {
	struct stream s; /* first */
	struct stream_rdma_opts o;
	struct rdma_dev *dev;
	struct rdma_conn *conn;
	struct loop_timer *timer;
	struct loop_call take_call, free_call;
	struct credits credits;
	struct slab slabs[SLABS];
	struct rdma_sge first[CREDITS_FIRST]; /* lent until it is up */
	bool asks, is_up, paused, takes_soon;

	struct send sends[CREDITS_MAX];
	struct write *writes, **last; /* that are not done; oldest first */
	struct write *copies;         /* the first that is not copied in full */
	uint64_t written, copied;     /* bytes, ever */

	struct come come[CREDITS_MAX]; /* a ring */
	unsigned first_come, ncome;
};

static struct carrier *of(struct stream *s)
{
	return (struct carrier *)s;
}

/* Buffers ------------------------------------------------------------------------------ */

static unsigned slab_buffers(unsigned i)
{
	return i ? CREDITS_MAX - CREDITS_FIRST : CREDITS_FIRST;
}

static int slab_open(struct carrier *x, unsigned i, char **ret_why)
{
	size_t bytes = 2 * (size_t)slab_buffers(i) * CREDITS_SEND;
	struct slab *s = &x->slabs[i];

	s->at = aligned_alloc(PAGE, bytes);
	if (!s->at)
		return -ENOMEM;
	return rdma_mem_new(x->dev, s->at, bytes, RDMA_MINE, &s->mem, ret_why);
}

static void slab_close(struct slab *s)
{
	rdma_mem_free(s->mem);
	free(s->at);
	*s = (struct slab){ 0 };
}

/* Buffer `number` for what comes, or is sent. */
static struct rdma_sge buffer(const struct carrier *x, unsigned number, bool sent)
{
	unsigned i = number >= CREDITS_FIRST, n = number - i * CREDITS_FIRST;
	size_t at = (n + (sent ? slab_buffers(i) : 0)) * (size_t)CREDITS_SEND;

	return (struct rdma_sge){ x->slabs[i].at + at, CREDITS_SEND, x->slabs[i].mem };
}

static bool wait_in(struct carrier *x, unsigned number)
{
	struct rdma_sge b = buffer(x, number, false);
	int r = rdma_receive(x->conn, number, &b);

	if (r < 0)
		stream_stop(&x->s, r);
	return r >= 0;
}

/* Sending ------------------------------------------------------------------------------ */

/* Up to `room` bytes of what is written; how many. */
static uint32_t copy(struct carrier *x, uint8_t *to, uint32_t room)
{
	uint32_t len = 0;

	while (len < room && x->copies) {
		struct write *w = x->copies;
		const struct iovec *v = &w->iov[w->at];
		size_t n = v->iov_len - w->off < room - len ? v->iov_len - w->off : room - len;

		memcpy(to + len, (const uint8_t *)v->iov_base + w->off, n);
		len += (uint32_t)n;
		w->off += n;
		if (w->off < v->iov_len)
			continue;
		w->off = 0;
		if (++w->at == w->n)
			x->copies = w->next;
	}
	x->copied += len;
	return len;
}

static struct send *free_send(struct carrier *x)
{
	for (unsigned i = 0; i < x->credits.all; i++)
		if (!x->sends[i].is_out)
			return &x->sends[i];
	return NULL;
}

static void send_out(struct carrier *x, struct send *m)
{
	struct rdma_sge b = buffer(x, m->number, true);
	uint8_t *p = b.at;
	uint32_t len = credits_may_send(&x->credits) ? copy(x, p + CREDITS_HEAD, CREDITS_BYTES) : 0;

	credits_send(&x->credits, len, p);
	b.len = CREDITS_HEAD + len;
	m->end = x->copied;
	m->op.nsge = 1;
	m->op.sge = &b;
	m->op.next = NULL;
	m->is_out = true;
	int r = rdma_post(x->conn, &m->op);
	if (r >= 0) {
		metric_add(M_SENDS, 1);
		return;
	}
	m->is_out = false;
	stream_stop(&x->s, r);
}

static void pump(struct carrier *x)
{
	struct send *m;

	while (x->is_up && !x->s.reason && (m = free_send(x)) &&
	       ((x->copies && credits_may_send(&x->credits)) || credits_must_tell(&x->credits)))
		send_out(x, m);
}

static void write_end(struct carrier *x, int r)
{
	struct write *w = x->writes;

	x->writes = w->next;
	if (!x->writes)
		x->last = &x->writes;
	w->done(w->arg, r);
	free(w);
}

/* With an error the connection is ending, which ends all writes. */
static void on_sent(struct rdma_op *op, int r)
{
	struct send *m = (struct send *)op;
	struct carrier *x = m->carrier;

	m->is_out = false;
	if (r < 0)
		return;
	while (x->writes && x->writes->end <= m->end)
		write_end(x, 0);
	pump(x);
}

static int carrier_write(struct stream *s, const struct iovec *iov, unsigned n,
			 void (*done)(void *arg, int r), void *arg)
{
	struct carrier *x = of(s);
	struct write *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_len)
			w->iov[w->n++] = iov[i];
		x->written += iov[i].iov_len;
	}
	assert(w->n);
	w->end = x->written;
	w->done = done;
	w->arg = arg;
	*x->last = w;
	x->last = &w->next;
	if (!x->copies)
		x->copies = w;
	pump(x);
	return 0;
}

/* Receiving ---------------------------------------------------------------------------- */

/* All that is there, as long as it is wanted. Its buffer waits again before the owner
 * hears of the last byte, who may have it answered at once. */
static void take(struct carrier *x)
{
	while (x->ncome && x->is_up && !x->paused && !x->s.reason) {
		struct come *m = &x->come[x->first_come];
		const uint8_t *from = buffer(x, m->number, false).at;
		size_t room = 0, left = m->end - m->at;
		void *to = x->s.ops->room(x->s.arg, &room);
		size_t n = left < room ? left : room;

		assert(n);
		memcpy(to, from + m->at, n);
		m->at += (uint32_t)n;
		if (m->at == m->end) {
			x->first_come = (x->first_come + 1) % CREDITS_MAX;
			x->ncome--;
			if (!wait_in(x, m->number))
				return;
			credits_free(&x->credits);
		}
		x->s.ops->arrived(x->s.arg, n);
	}
	pump(x);
}

static void take_posted(void *arg)
{
	struct carrier *x = arg;

	x->takes_soon = false;
	take(x);
}

static void take_soon(struct carrier *x)
{
	if (!x->takes_soon)
		loop_post_call(x->o.loop, &x->take_call);
	x->takes_soon = true;
}

static void on_received(void *arg, unsigned number, uint32_t bytes)
{
	struct carrier *x = arg;

	if (x->s.reason)
		return;
	int len = credits_came(&x->credits, buffer(x, number, false).at, bytes);
	if (len < 0) {
		stream_stop(&x->s, len);
	} else if (!len) {
		if (wait_in(x, number))
			credits_free(&x->credits);
		pump(x);
	} else {
		unsigned at = (x->first_come + x->ncome++) % CREDITS_MAX;
		x->come[at] = (struct come){ number, CREDITS_HEAD, CREDITS_HEAD + (uint32_t)len };
		take(x);
	}
}

static void carrier_pause(struct stream *s, bool pause)
{
	of(s)->paused = pause;
	if (!pause && of(s)->ncome)
		take_soon(of(s));
}

/* Time --------------------------------------------------------------------------------- */

static void on_timer(void *arg)
{
	struct carrier *x = arg;

	if (!x->s.reason)
		x->s.ops->woken(x->s.arg);
}

static void carrier_wake(struct stream *s, uint64_t at_ns)
{
	loop_timer_set(of(s)->timer, at_ns);
}

/* Beginning and end ---------------------------------------------------------------------- */

static void on_up(void *arg)
{
	struct carrier *x = arg;

	if (x->s.reason)
		return;
	x->is_up = true;
	if (x->asks)
		x->s.ops->connected(x->s.arg);
	pump(x);
}

/* What was posted before, as take_posted(), finds it still. */
static void free_now(void *arg)
{
	free(arg);
}

/* Buffers are nobody else's any more: the queue pair is gone. */
static void carrier_fini(struct carrier *x)
{
	loop_timer_free(x->timer);
	for (unsigned i = 0; i < SLABS; i++)
		slab_close(&x->slabs[i]);
}

static void on_closed(void *arg, int reason, const char *text)
{
	struct carrier *x = arg;

	(void)text;
	if (!x->s.reason)
		x->s.reason = reason;
	while (x->writes)
		write_end(x, x->s.reason);
	carrier_fini(x);
	rdma_conn_free(x->conn);
	if (x->o.gone)
		x->o.gone(x->o.arg);
	stream_over(&x->s);
	x->free_call = (struct loop_call){ .fn = free_now, .arg = x };
	loop_post_call(x->o.loop, &x->free_call);
}

static void carrier_stop(struct stream *s)
{
	loop_timer_set(of(s)->timer, 0);
	rdma_conn_stop(of(s)->conn, s->reason);
}

/* Where there is no memory it goes on with what it has. */
static void carrier_widen(struct stream *s)
{
	_cleanup_(freep) char *text = NULL;
	struct carrier *x = of(s);

	if (!x->is_up || x->credits.all == CREDITS_MAX)
		return;
	int r = slab_open(x, 1, &text);
	if (r < 0) {
		log_warn("rdma", "%s: few buffers: %s", s->peer, text ? text : error_text(r));
		slab_close(&x->slabs[1]);
		return;
	}
	for (unsigned i = CREDITS_FIRST; i < CREDITS_MAX; i++)
		if (!wait_in(x, i))
			return;
	credits_grow(&x->credits, CREDITS_MAX - CREDITS_FIRST);
	pump(x);
}

static const struct stream_kind carrier_kind = {
	.pause = carrier_pause, .write = carrier_write, .wake = carrier_wake,
	.widen = carrier_widen, .stop = carrier_stop,
};

static void carrier_free(struct carrier *x)
{
	carrier_fini(x);
	free(x);
}
DEFINE_CLEANUP(struct carrier *, carrier_free)

static int carrier_new(struct rdma_dev *d, const struct stream_rdma_opts *o, struct carrier **ret)
{
	_cleanup_(carrier_freep) struct carrier *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->s.kind = &carrier_kind;
	x->o = *o;
	x->dev = d;
	x->last = &x->writes;
	x->take_call = (struct loop_call){ .fn = take_posted, .arg = x };
	credits_init(&x->credits);
	for (unsigned i = 0; i < CREDITS_MAX; i++)
		x->sends[i] = (struct send){ .op = { .kind = RDMA_SEND, .done = on_sent },
					     .carrier = x, .number = i };
	int r = slab_open(x, 0, NULL);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < CREDITS_FIRST; i++)
		x->first[i] = buffer(x, i, false);
	r = loop_timer_new(o->loop, LOOP_NEVER, 0, on_timer, x, &x->timer);
	if (r < 0)
		return r;
	*ret = steal(&x);
	return 0;
}

static struct rdma_conn_opts conn_opts(const struct carrier *x)
{
	return (struct rdma_conn_opts){ .peer = RDMA_MINE, .depth = DEPTH,
					.deadline_ns = x->o.until_ns, .ack_timeout = ACK_TIMEOUT,
					.max_receives = CREDITS_MAX, .nfirst = CREDITS_FIRST,
					.first = x->first };
}

static const struct rdma_conn_ops conn_ops = {
	.up = on_up, .received = on_received, .closed = on_closed,
};

/* "1.2.3.4:5 (RDMA)" */
static void name_peer(struct carrier *x, const struct sockaddr_storage *a)
{
	static const char by[] = " (RDMA)";

	stream_name(a, x->s.peer);
	size_t len = strlen(x->s.peer);
	if (len + sizeof(by) <= sizeof(x->s.peer))
		memcpy(x->s.peer + len, by, sizeof(by));
}

int stream_rdma_connect(struct rdma_dev *d, const struct sockaddr_storage *to,
			const struct stream_rdma_opts *o, struct stream **ret)
{
	_cleanup_(carrier_freep) struct carrier *x = NULL;
	int r = carrier_new(d, o, &x);

	if (r < 0)
		return r;
	struct rdma_conn_opts co = conn_opts(x);
	x->asks = true;
	name_peer(x, to);
	r = rdma_conn_new(d, to, BYTES_OF(hello, sizeof(hello)), &co, &conn_ops, x, &x->conn);
	if (r < 0)
		return r;
	*ret = &steal(&x)->s;
	return 0;
}

bool stream_rdma_is_wanted(struct bytes ticket)
{
	return ticket.len >= sizeof(hello) && !memcmp(ticket.p, hello, sizeof(hello));
}

int stream_rdma_accept(struct rdma_conn *c, const struct stream_rdma_opts *o,
		       struct stream **ret)
{
	struct carrier *x;
	int r = carrier_new(rdma_conn_dev(c), o, &x);

	if (r < 0) {
		rdma_conn_reject(c, r);
		return r;
	}
	struct rdma_conn_opts co = conn_opts(x);
	struct sockaddr_storage peer;
	rdma_conn_peer(c, &peer);
	name_peer(x, &peer);
	x->conn = c;
	*ret = &x->s;
	rdma_conn_accept(c, &co, &conn_ops, x);
	return 0;
}
