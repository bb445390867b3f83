/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A post has a record here from post() to done(), since it may go twice. It goes again
 * only after -ENODEV, with which a transport that has given up says that nothing of it
 * can touch anything any more. In another session than its own a write is refused: by
 * the node (TCP), or since its slice is lost (RDMA).
 */
#include "engine/transport_auto.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "engine/transport_rdma.h"
#include "engine/transport_tcp.h"

enum { RECORDS = 1024, TICK_MS = 100, TRY_EVERY_MS = 3000 };

struct record {
	struct post post; /* first: what is posted below */
	struct post *outer;
	struct chooser *chooser;
	bool by_rdma;
	struct record *prev, *next;
};

struct chooser {
	struct transport transport;
	struct remote *remote;
	struct transport_auto_opts o;
	struct transport *tcp; /* NULL: none */
	struct loop *loop;
	struct loop_timer *timer;
	atomic_bool cancelled;

	struct lock lock;
	pthread_cond_t idle;     /* nposting or nout is 0 */
	struct transport *rdma;  /* NULL: none now */
	uint32_t nposting;       /* who have looked at that and not come back */
	uint32_t nout;           /* records in use */
	bool is_quiescing;
	struct record *free, *waiting;

	/* Our thread's. */
	uint64_t next_try_ns;
	unsigned failures;   /* to open RDMA, one after the other */
	bool never;          /* not built in */
	struct log_complaint complaint;
	struct record records[RECORDS];
};

static struct chooser *of(struct transport *t)
{
	return (struct chooser *)t;
}

/* Posts ---------------------------------------------------------------------------------- */

static void record_free(struct record *r)
{
	struct chooser *c = r->chooser;

	WITH_LOCK(&c->lock);
	LL_PREPEND(c->free, r);
	if (!--c->nout)
		pthread_cond_broadcast(&c->idle);
}

/* The record is in use until done() has returned: who quiesces waits for that. */
static void complete(struct record *r, int result)
{
	lock_assert_none();
	r->outer->done(r->outer, result);
	record_free(r);
}

static void park(struct record *r)
{
	WITH_LOCK(&r->chooser->lock);
	DL_APPEND(r->chooser->waiting, r);
}

static int post_by_rdma(struct record *r)
{
	struct chooser *c = r->chooser;
	struct transport *t;

	{
		WITH_LOCK(&c->lock);
		t = c->rdma;
		c->nposting += t != NULL;
	}
	if (!t)
		return -ENODEV;
	r->by_rdma = true;
	int result = t->ops->post(t, &r->post); /* r may be gone */
	WITH_LOCK(&c->lock);
	if (!--c->nposting)
		pthread_cond_broadcast(&c->idle);
	return result;
}

static int post_by_tcp(struct record *r)
{
	struct chooser *c = r->chooser;

	r->by_rdma = false;
	return c->tcp ? c->tcp->ops->post(c->tcp, &r->post) : -ENODEV;
}

static int send_on(struct record *r)
{
	int result = post_by_rdma(r);

	return result == -ENODEV ? post_by_tcp(r) : result;
}

/* It was accepted, so it goes, or waits, or ends. */
static void go_on(struct record *r)
{
	bool ends;
	{
		WITH_LOCK(&r->chooser->lock);
		ends = r->chooser->is_quiescing;
	}
	int result = ends				 ? -ECANCELED :
		     clock_ns() >= r->post.deadline_ns ? -ETIMEDOUT :
							   send_on(r);
	if (result == -ENODEV || result == -EAGAIN)
		park(r);
	else if (result < 0)
		complete(r, result);
}

static void on_done(struct post *p, int result)
{
	struct record *r = (struct record *)p;

	if (result == -ENODEV && r->by_rdma)
		go_on(r);
	else
		complete(r, result);
}

static struct record *record_new(struct chooser *c, struct post *p)
{
	struct record *r;
	{
		WITH_LOCK(&c->lock);
		r = c->is_quiescing ? NULL : c->free;
		if (!r)
			return NULL;
		LL_DELETE(c->free, r);
		c->nout++;
	}
	r->post = *p;
	r->post.done = on_done;
	if (!p->deadline_ns)
		r->post.deadline_ns = clock_ns() + c->o.timeout_ms * NS_PER_MS;
	r->outer = p;
	r->chooser = c;
	return r;
}

static int auto_post(struct transport *t, struct post *p)
{
	struct record *r = record_new(of(t), p);

	if (!r)
		return -EAGAIN;
	int result = send_on(r);
	if (result == -ENODEV) {
		park(r);
		return 0;
	}
	if (result < 0)
		record_free(r);
	return result;
}

/* Our thread ----------------------------------------------------------------------------- */

static void go_on_all(struct chooser *c)
{
	struct record *list, *r, *next;
	{
		WITH_LOCK(&c->lock);
		list = c->waiting;
		c->waiting = NULL;
	}
	DL_FOREACH_SAFE(list, r, next) {
		DL_DELETE(list, r);
		go_on(r);
	}
}

static void close_rdma(struct chooser *c)
{
	struct transport *t;
	{
		WITH_LOCK(&c->lock);
		t = c->rdma;
		c->rdma = NULL;
		while (c->nposting)
			lock_wait(&c->lock, &c->idle);
	}
	if (!t)
		return;
	t->ops->quiesce(t);
	t->ops->close(t);
}

/* One line for each reason. */
static void complain(struct chooser *c, int r, const char *text)
{
	const char *then = c->tcp ? "TCP is used" : "nothing goes until there is";

	if (!log_is_news(&c->complaint, text))
		return;
	if (r == -ENOENT || r == -EOPNOTSUPP)
		log_info("rdma", "no RDMA, %s: %s", then, text);
	else
		log_warn("rdma", "no RDMA now, %s: %s", then, text);
}

static int open_rdma(struct chooser *c, char **ret_why)
{
	struct transport_rdma_opts o = { .rdma = c->o.rdma, .node = c->o.node,
					 .timeout_ms = c->o.timeout_ms,
					 .cancelled = &c->cancelled, .turn = c->failures };
	struct transport *t;
	int r = transport_rdma_open(c->remote, &o, &t, ret_why);

	c->next_try_ns = clock_ns() + TRY_EVERY_MS * NS_PER_MS;
	c->never = r == -EOPNOTSUPP;
	c->failures = r < 0 ? c->failures + 1 : 0;
	if (r < 0)
		return r;
	log_is_news(&c->complaint, NULL);
	log_info("rdma", "bytes go by RDMA");
	WITH_LOCK(&c->lock);
	c->rdma = t;
	return 0;
}

static void look_after_rdma(struct chooser *c)
{
	_cleanup_(freep) char *text = NULL;

	if (c->rdma && transport_rdma_is_over(c->rdma, &text)) { /* written by this thread */
		complain(c, -ENODEV, text ? text : "it has ended");
		close_rdma(c);
		c->next_try_ns = clock_ns() + TRY_EVERY_MS * NS_PER_MS;
	}
	if (c->never || clock_ns() < c->next_try_ns || !remote_is_up(c->remote))
		return;
	if (c->rdma) {
		transport_rdma_look(c->rdma);
		c->next_try_ns = clock_ns() + TRY_EVERY_MS * NS_PER_MS;
		return;
	}
	int r = open_rdma(c, &text);
	if (r < 0 && r != -ECANCELED)
		complain(c, r, text ? text : error_text(r));
}

static void on_tick(void *arg)
{
	look_after_rdma(arg);
	go_on_all(arg);
}

/* Opening and closing ---------------------------------------------------------------------- */

static void auto_quiesce(struct transport *t)
{
	struct chooser *c = of(t);
	{
		WITH_LOCK(&c->lock);
		c->is_quiescing = true;
	}
	atomic_store(&c->cancelled, true);
	loop_timer_free(c->timer);
	c->timer = NULL;
	close_rdma(c);
	if (c->tcp)
		c->tcp->ops->quiesce(c->tcp);
	go_on_all(c); /* they end */
	WITH_LOCK(&c->lock);
	while (c->nout)
		lock_wait(&c->lock, &c->idle);
}

static void auto_free(struct chooser *c)
{
	if (c->tcp)
		c->tcp->ops->close(c->tcp);
	loop_free(c->loop);
	pthread_cond_destroy(&c->idle);
	lock_fini(&c->lock);
	free(c);
}

static void auto_close(struct transport *t)
{
	auto_free(of(t));
}

static void *auto_map(struct transport *t, struct slice_id s)
{
	(void)t;
	(void)s;
	return NULL;
}

static const struct transport_ops auto_ops = {
	.name = "auto",
	.post = auto_post,
	.quiesce = auto_quiesce,
	.map = auto_map,
	.close = auto_close,
};

static struct chooser *chooser_new(struct remote *x, const struct transport_auto_opts *o)
{
	struct chooser *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->transport.ops = &auto_ops;
	c->remote = x;
	c->o = *o;
	c->o.timeout_ms = o->timeout_ms ? o->timeout_ms : 10000;
	lock_init(&c->lock, LOCK_TRANSPORT);
	pthread_cond_init(&c->idle, NULL);
	for (unsigned i = RECORDS; i--;)
		LL_PREPEND(c->free, &c->records[i]);
	return c;
}

static int open_tcp(struct chooser *c)
{
	struct transport_tcp_opts o = { .timeout_ms = c->o.timeout_ms };

	return c->o.rdma.by == ENGINE_RDMA ? -EOPNOTSUPP :
					     transport_tcp_open(c->remote, &o, &c->tcp);
}

static int open_both(struct chooser *c, char **ret_why)
{
	_cleanup_(freep) char *text = NULL;
	int tcp = open_tcp(c);

	if (tcp < 0 && tcp != -EOPNOTSUPP)
		return tcp;
	int r = open_rdma(c, &text);
	if (r < 0 && !c->tcp)
		return why(ret_why, r, "%s: no RDMA%s: %s",
			   c->o.rdma.by == ENGINE_RDMA ? "--transport rdma" : "--transport auto",
			   c->o.rdma.by == ENGINE_RDMA ? "" : ", and the node has no TCP",
			   text ? text : error_text(r));
	if (r < 0)
		complain(c, r, text ? text : error_text(r));
	r = loop_new("transports", &c->loop);
	return r < 0 ? r : loop_timer_new(c->loop, TICK_MS, TICK_MS, on_tick, c, &c->timer);
}

int transport_auto_open(struct remote *x, const struct transport_auto_opts *o,
			struct transport **ret, char **ret_why)
{
	struct chooser *c = chooser_new(x, o);

	if (!c)
		return -ENOMEM;
	int r = open_both(c, ret_why);
	if (r < 0) {
		auto_quiesce(&c->transport);
		auto_free(c);
		return r;
	}
	*ret = &c->transport;
	return 0;
}
