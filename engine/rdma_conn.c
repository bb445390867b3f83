/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How connections begin and end (the picture is in rdma_verbs.h). Whatever goes wrong
 * calls conn_close(), the only way to DRAINING, which never calls anybody back; and
 * conn_finish(), the only way to CLOSED, runs from the loop when the queue pair is
 * flushed, or has had its time. A queue pair that does not flush is destroyed as it
 * is: after that, too, nothing of it is under way. Time only begins the fencing.
 *
 * An address that the kernel has no neighbour for is looked up anew only when its
 * time is over; so the first attempts are short.
 */
#include "engine/rdma_verbs.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"

enum {
	UP_MS = 10000,       /* to be up, where nobody says */
	DRAIN_MS = 2000,     /* to be flushed */
	RESOLVE_MS = 100,    /* of the first attempt; doubles */
	ROUTE_MS = 2000,
	BACKLOG = 64,
	REJECTION_BYTES = 12,
};

/* In a rejection, so that the errno is known from the bytes of others. */
static const char rejection_magic[] = "slicefsR";

/* A copy of an event, which must be acknowledged before anything is destroyed. */
struct event {
	enum rdma_cm_event_type type;
	int status;
	struct rdma_cm_id *id;
	void *of;       /* connection */
	void *listener; /* of a request */
	unsigned reads_in, reads_out;
	uint8_t text[256];
	size_t len;
};

/* The end ------------------------------------------------------------------------------ */

static void set_timer(struct rdma_conn *c, uint64_t ms, void (*fn)(void *arg))
{
	loop_timer_free(c->timer);
	c->timer = NULL;
	if (fn && loop_timer_new(c->dev->loop, ms, 0, fn, c, &c->timer) < 0)
		c->timer = NULL;
}

static void on_drain_limit(void *arg)
{
	struct rdma_conn *c = arg;

	log_warn("rdma", "a queue pair does not flush; it is destroyed as it is");
	c->force = true;
	conn_poll(c);
}

void conn_close(struct rdma_conn *c, int reason, const char *fmt, ...)
{
	bool was_up = c->state == CONN_UP;
	va_list ap;

	assert(reason < 0);
	if (c->state >= CONN_DRAINING)
		return;
	c->state = CONN_DRAINING;
	c->reason = reason;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	c->force = !c->qp || qp_to_error(c) < 0 || atomic_load(&c->dev->gone);
	post_end(c, !c->force);
	if (was_up && !atomic_load(&c->dev->gone))
		rdma_disconnect(c->id); /* the peer need not find out */
	set_timer(c, DRAIN_MS, on_drain_limit);
	if (!c->timer)
		c->force = true; /* no memory: fence at once */
	if (!c->poll_posted)
		loop_post_call(c->dev->loop, &c->poll_call);
	c->poll_posted = true;
}

void conn_finish(struct rdma_conn *c)
{
	assert(c->state == CONN_DRAINING);
	c->state = CONN_CLOSED;
	set_timer(c, 0, NULL);
	qp_free(c);
	rdma_destroy_id(c->id);
	c->id = NULL;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	post_fail_all(c, c->reason);
	metric_add(M_RDMA_CONNS, -1);
	c->ops->closed(c->arg, c->reason, c->why);
}

static void on_stop(void *arg)
{
	struct rdma_conn *c = arg;

	conn_close(c, c->stop_reason, "%s", error_text(c->stop_reason));
}

void rdma_conn_stop(struct rdma_conn *c, int reason)
{
	if (atomic_flag_test_and_set(&c->stop_asked))
		return;
	c->stop_reason = reason;
	loop_post_call(c->dev->loop, &c->stop_call);
}

static void on_free(void *arg)
{
	struct rdma_conn *c = arg;

	c->dev->nconns--;
	atomic_fetch_sub(&c->dev->users, 1);
	lock_fini(&c->lock);
	free(c->ring);
	free(c);
}

/* Calls that were posted before find it still. */
void rdma_conn_free(struct rdma_conn *c)
{
	if (!c)
		return;
	assert(c->state == CONN_CLOSED);
	c->free_call = (struct loop_call){ .fn = on_free, .arg = c };
	loop_post_call(c->dev->loop, &c->free_call);
}

/* Beginning ---------------------------------------------------------------------------- */

static void on_deadline(void *arg)
{
	conn_close(arg, -ETIMEDOUT, "it is not up in time");
}

static uint64_t left_ms(const struct rdma_conn *c)
{
	uint64_t now = clock_ns();

	return c->opts.deadline_ns > now ? (c->opts.deadline_ns - now) / NS_PER_MS + 1 : 0;
}

static struct rdma_conn *conn_alloc(struct rdma_dev *d, enum conn_state state)
{
	struct rdma_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct rdma_conn){ .magic = CONN_MAGIC, .dev = d, .state = state,
				 .stop_asked = ATOMIC_FLAG_INIT, .gap_ns = NS_PER_MS };
	c->failed_end = &c->failed;
	c->stop_call.fn = on_stop;
	c->poll_call.fn = conn_poll_posted;
	c->stop_call.arg = c->poll_call.arg = c;
	lock_init(&c->lock, LOCK_RDMA);
	d->nconns++;
	atomic_fetch_add(&d->users, 1);
	return c;
}

/* From here on it ends by conn_close(). */
static int conn_own(struct rdma_conn *c, const struct rdma_conn_opts *o,
		    const struct rdma_conn_ops *ops, void *arg)
{
	struct rdma_dev *d = c->dev;

	c->opts = *o;
	if (!c->opts.depth)
		c->opts.depth = RDMA_DEPTH;
	if (c->opts.depth > (unsigned)d->attr.max_qp_wr - 1) /* one is the marker */
		c->opts.depth = (unsigned)d->attr.max_qp_wr - 1;
	if (!c->opts.deadline_ns)
		c->opts.deadline_ns = clock_ns() + (uint64_t)UP_MS * NS_PER_MS;
	c->ops = ops;
	c->arg = arg;
	c->next = d->conns;
	c->prev = &d->conns;
	if (c->next)
		c->next->prev = &c->next;
	d->conns = c;
	metric_add(M_RDMA_CONNS, 1);
	c->ring = calloc(c->opts.depth + 1, sizeof(struct rdma_op *));
	if (!c->ring)
		return -ENOMEM;
	set_timer(c, left_ms(c), on_deadline);
	return c->timer ? 0 : -ENOMEM;
}

static void fail(struct rdma_conn *c, int error, const char *what)
{
	conn_close(c, error, "%s: %s", what, error_text(error));
}

void conn_go_up(struct rdma_conn *c)
{
	set_timer(c, 0, NULL);
	c->state = CONN_UP;
	c->done_ns = clock_ns();
	{
		WITH_LOCK(&c->lock);
		c->open = true;
	}
	c->ops->up(c->arg);
}

/* Connecting --------------------------------------------------------------------------- */

static uint8_t least(unsigned a, unsigned b)
{
	unsigned n = a < b ? a : b;

	return n < UINT8_MAX ? (uint8_t)n : UINT8_MAX - 1; /* 255 means: choose yourself */
}

static void resolve(struct rdma_conn *c)
{
	struct sockaddr *from = (struct sockaddr *)&c->opts.from;
	uint64_t left = left_ms(c);

	if (from->sa_family == AF_UNSPEC)
		from = (struct sockaddr *)&c->dev->choice.address;
	if (from->sa_family != c->to.ss_family)
		from = NULL; /* on_resolved() looks where this leads */
	c->resolve_ms = c->resolve_ms ? c->resolve_ms * 2 : RESOLVE_MS;
	if (c->resolve_ms > left)
		c->resolve_ms = (uint32_t)left;
	if (rdma_resolve_addr(c->id, from, (struct sockaddr *)&c->to, (int)c->resolve_ms))
		fail(c, errno == ENODEV ? -EHOSTUNREACH : -errno, "no way to the peer");
}

static void on_no_address(struct rdma_conn *c, int status)
{
	if (status == -ETIMEDOUT && left_ms(c))
		resolve(c);
	else
		conn_close(c, status == -ETIMEDOUT ? -ETIMEDOUT : -EHOSTUNREACH,
			   "no way to the peer: %s", error_text(status));
}

static void on_resolved(struct rdma_conn *c)
{
	const struct rdma_choice *w = &c->dev->choice;
	const char *name = c->id->verbs ? ibv_get_device_name(c->id->verbs->device) : "?";

	if (strcmp(name, w->device) || c->id->port_num != w->port) {
		conn_close(c, -EHOSTUNREACH, "the way to the peer is by %s:%u, not by %s:%u", name,
			   c->id->port_num, w->device, w->port);
		return;
	}
	c->state = CONN_ROUTING;
	if (rdma_resolve_route(c->id, ROUTE_MS))
		fail(c, -errno, "no route to the peer");
}

static int send_request(struct rdma_conn *c)
{
	struct rdma_conn_param p = {
		.private_data = c->ticket,
		.private_data_len = c->ticket_len,
		.responder_resources = c->reads_in,
		.initiator_depth = c->reads_out,
		.retry_count = RDMA_RETRIES,
		.rnr_retry_count = RDMA_RETRIES,
	};
	int r = qp_new(c);

	if (!r)
		r = qp_to_init(c);
	if (r < 0)
		return r;
	r = recv_first(c);
	if (r < 0)
		return r;
	p.qp_num = c->qp->qp_num;
	return rdma_connect(c->id, &p) ? -errno : 0;
}

static void on_routed(struct rdma_conn *c)
{
	bool peer_reads = c->opts.peer != RDMA_MINE;

	c->state = CONN_CONNECTING;
	c->reads_out = least((unsigned)c->dev->attr.max_qp_init_rd_atom, c->opts.depth);
	c->reads_in = peer_reads ? least((unsigned)c->dev->attr.max_qp_rd_atom, UINT8_MAX) : 0;
	int r = send_request(c);
	if (r < 0)
		fail(c, r, "cannot ask for a connection");
}

static void on_response(struct rdma_conn *c, const struct event *e)
{
	c->reads_out = least(c->reads_out, e->reads_out);
	c->reads_in = least(c->reads_in, e->reads_in);
	if (!c->reads_out && !c->opts.max_receives) {
		conn_close(c, -EACCES, "the peer lets nobody read");
		return;
	}
	int r = qp_to_rts(c);
	if (!r)
		r = rdma_establish(c->id) ? -errno : 0;
	if (r < 0)
		fail(c, r, "cannot use the connection");
	else
		conn_go_up(c);
}

static void on_rejected(struct rdma_conn *c, const struct event *e)
{
	struct reader r = reader_of(BYTES_OF(e->text, e->len));
	const void *magic = read_bytes(&r, 8);
	int error = -(int)read_u32(&r);

	if (r.bad || memcmp(magic, rejection_magic, 8))
		conn_close(c, -ECONNREFUSED, "nobody listens there (reason %d)", e->status);
	else if (error >= 0 || error < -4095)
		conn_close(c, -ECONNREFUSED, "the peer refuses");
	else
		conn_close(c, error, "the peer refuses: %s", error_text(error));
}

int rdma_conn_new(struct rdma_dev *d, const struct sockaddr_storage *to, struct bytes ticket,
		  const struct rdma_conn_opts *o, const struct rdma_conn_ops *ops, void *arg,
		  struct rdma_conn **ret)
{
	struct rdma_cm_id *id;

	assert(loop_is_current(d->loop) && ticket.len <= RDMA_TICKET_MAX);
	if (atomic_load(&d->gone))
		return -ENODEV;
	struct rdma_conn *c = conn_alloc(d, CONN_RESOLVING);
	if (!c)
		return -ENOMEM;
	if (rdma_create_id(d->cm, &id, c, RDMA_PS_TCP)) {
		int r = -errno;
		on_free(c);
		return r;
	}
	c->id = id;
	c->to = *to;
	if (ticket.len)
		memcpy(c->ticket, ticket.p, ticket.len);
	c->ticket_len = (uint8_t)ticket.len;
	int r = conn_own(c, o, ops, arg);
	if (r < 0)
		fail(c, r, "cannot begin to connect");
	else
		resolve(c);
	*ret = c;
	return 0;
}

/* Being connected to --------------------------------------------------------------------- */

static void on_request(struct rdma_dev *d, const struct event *e)
{
	struct rdma_listener *x = e->listener;
	const char *name = e->id->verbs ? ibv_get_device_name(e->id->verbs->device) : "?";

	assert(x->magic == LISTENER_MAGIC);
	struct rdma_conn *c = strcmp(name, d->choice.device) ? NULL : conn_alloc(d, CONN_REQUESTED);
	if (!c) {
		rdma_reject(e->id, NULL, 0);
		rdma_destroy_id(e->id);
		return;
	}
	c->id = e->id;
	c->id->context = c;
	c->reads_in = least((unsigned)d->attr.max_qp_rd_atom, e->reads_in);
	c->reads_out = least((unsigned)d->attr.max_qp_init_rd_atom, e->reads_out);
	x->request(x->arg, c, BYTES_OF(e->text, e->len));
}

void rdma_conn_reject(struct rdma_conn *c, int error)
{
	_cleanup_(writer_fini) struct writer w = { 0 };

	assert(c->state == CONN_REQUESTED);
	write_bytes(&w, rejection_magic, 8);
	write_u32(&w, (uint32_t)-error);
	rdma_reject(c->id, w.p, w.bad ? 0 : REJECTION_BYTES);
	rdma_destroy_id(c->id);
	on_free(c);
}

static int accept_request(struct rdma_conn *c)
{
	struct rdma_conn_param p = { .responder_resources = c->reads_in,
				     .initiator_depth = c->reads_out,
				     .rnr_retry_count = RDMA_RETRIES };
	int r = qp_new(c);

	if (!r)
		r = qp_to_init(c);
	if (!r)
		r = recv_first(c);
	if (!r)
		r = qp_to_rts(c);
	if (r < 0)
		return r;
	p.qp_num = c->qp->qp_num;
	return rdma_accept(c->id, &p) ? -errno : 0;
}

void rdma_conn_accept(struct rdma_conn *c, const struct rdma_conn_opts *o,
		      const struct rdma_conn_ops *ops, void *arg)
{
	assert(c->state == CONN_REQUESTED);
	c->state = CONN_ACCEPTING;
	int r = conn_own(c, o, ops, arg);
	if (!r)
		r = accept_request(c);
	if (r < 0)
		fail(c, r, "cannot accept the connection");
}

void rdma_conn_peer(const struct rdma_conn *c, struct sockaddr_storage *ret)
{
	const struct sockaddr *a = rdma_get_peer_addr(c->id);

	*ret = (struct sockaddr_storage){ 0 };
	memcpy(ret, a, a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
						  sizeof(struct sockaddr_in));
}

struct rdma_dev *rdma_conn_dev(const struct rdma_conn *c)
{
	return c->dev;
}

/* Events ----------------------------------------------------------------------------------- */

static void on_failure(struct rdma_conn *c, const struct event *e)
{
	const char *text = rdma_event_str(e->type);

	switch (e->type) {
	case RDMA_CM_EVENT_ADDR_ERROR:
		on_no_address(c, e->status);
		break;
	case RDMA_CM_EVENT_ROUTE_ERROR:
		conn_close(c, -EHOSTUNREACH, "no route to the peer");
		break;
	case RDMA_CM_EVENT_UNREACHABLE:
		conn_close(c, -ETIMEDOUT, "the peer does not answer");
		break;
	case RDMA_CM_EVENT_REJECTED:
		on_rejected(c, e);
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		/* A completion that is there may say why. */
		if (c->cq)
			post_take(c);
		conn_close(c, -ECONNRESET, "the peer has closed");
		break;
	case RDMA_CM_EVENT_CONNECT_ERROR:
		conn_close(c, -EIO, "%s (%d)", text, e->status);
		break;
	case RDMA_CM_EVENT_ADDR_CHANGE: /* a bond has changed over: connect again */
		conn_close(c, -ECONNRESET, "the address has moved to another device");
		break;
	default: /* TIMEWAIT_EXIT */
		break;
	}
}

static void on_conn_event(struct rdma_conn *c, const struct event *e)
{
	assert(c->magic == CONN_MAGIC);
	if (e->type == RDMA_CM_EVENT_ADDR_RESOLVED && c->state == CONN_RESOLVING)
		on_resolved(c);
	else if (e->type == RDMA_CM_EVENT_ROUTE_RESOLVED && c->state == CONN_ROUTING)
		on_routed(c);
	else if (e->type == RDMA_CM_EVENT_CONNECT_RESPONSE && c->state == CONN_CONNECTING)
		on_response(c, e);
	else if (e->type == RDMA_CM_EVENT_ESTABLISHED && c->state == CONN_ACCEPTING)
		conn_go_up(c);
	else
		on_failure(c, e);
}

static void handle(struct rdma_dev *d, const struct event *e)
{
	if (e->type == RDMA_CM_EVENT_DEVICE_REMOVAL)
		dev_lose(d, "the device has been removed");
	else if (e->type == RDMA_CM_EVENT_CONNECT_REQUEST)
		on_request(d, e);
	else
		on_conn_event(e->of, e);
}

static void copy(const struct rdma_cm_event *from, struct event *to)
{
	const struct rdma_conn_param *p = &from->param.conn;

	*to = (struct event){ .type = from->event, .status = from->status, .id = from->id,
			      .of = from->id->context };
	if (from->listen_id)
		to->listener = from->listen_id->context;
	to->reads_in = p->responder_resources;
	to->reads_out = p->initiator_depth;
	if (p->private_data && p->private_data_len) {
		to->len = p->private_data_len;
		memcpy(to->text, p->private_data, to->len);
	}
}

void dev_on_cm(void *arg)
{
	struct rdma_dev *d = arg;
	struct rdma_cm_event *event;
	struct event e;

	while (!rdma_get_cm_event(d->cm, &event)) {
		copy(event, &e);
		rdma_ack_cm_event(event);
		handle(d, &e);
	}
}

/* Listening -------------------------------------------------------------------------------- */

void listener_lose(struct rdma_listener *x)
{
	if (x->id)
		rdma_destroy_id(x->id);
	x->id = NULL;
}

void rdma_listener_free(struct rdma_listener *x)
{
	if (!x)
		return;
	struct rdma_listener **p = &x->dev->listeners;

	assert(loop_is_current(x->dev->loop));
	while (*p != x)
		p = &(*p)->next;
	*p = x->next;
	listener_lose(x);
	atomic_fetch_sub(&x->dev->users, 1);
	free(x);
}

static int begin_listening(struct rdma_listener *x, const struct sockaddr_storage *at)
{
	struct sockaddr_storage a = *at;

	if (rdma_create_id(x->dev->cm, &x->id, x, RDMA_PS_TCP))
		return -errno;
	if (rdma_bind_addr(x->id, (struct sockaddr *)&a) || rdma_listen(x->id, BACKLOG)) {
		int r = -errno;
		listener_lose(x);
		return r;
	}
	x->port = ntohs(rdma_get_src_port(x->id));
	return 0;
}

int rdma_listener_new(struct rdma_dev *d, const struct sockaddr_storage *at,
		      void (*request)(void *arg, struct rdma_conn *c, struct bytes ticket),
		      void *arg, struct rdma_listener **ret, char **ret_why)
{
	assert(loop_is_current(d->loop));
	_cleanup_(freep) struct rdma_listener *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	*x = (struct rdma_listener){ .magic = LISTENER_MAGIC, .dev = d, .request = request,
				     .arg = arg };
	int r = atomic_load(&d->gone) ? -ENODEV : begin_listening(x, at);
	if (r < 0)
		return why(ret_why, r, "cannot listen for RDMA on %s: %s", d->choice.device,
			   error_text(r));
	atomic_fetch_add(&d->users, 1);
	x->next = d->listeners;
	d->listeners = x;
	*ret = steal(&x);
	return 0;
}

uint16_t rdma_listener_port(const struct rdma_listener *x)
{
	return x->port;
}
