/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	       look()                  the device is lost
 *	NONE ---------> usable ------------------------------> LOST
 *	 ^                                                      |
 *	 '---- its last stream is gone, then: take_down() ------'
 *
 * The device is opened and closed on our own thread, but before that begins and after it
 * has ended; everything else is the link's loop's, to which that thread goes and waits.
 */
#include "engine/remote_rdma.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/stream_rdma.h"

enum { LOOK_EVERY_MS = 3000 };

struct remote_rdma {
	struct remote_rdma_opts o;
	char name[RDMA_NAME + 16]; /* of the device that is asked for */
	struct loop *own;
	struct loop_timer *timer;

	/* Our own thread's. */
	struct rdma_dev *dev;
	struct log_complaint complaint;

	/* The link's loop's. */
	struct rdma_dev *usable; /* NULL: none, or it is lost */
	bool is_lost;            /* the last that was opened */
};

/* The device --------------------------------------------------------------------------- */

static void on_lost(void *arg, const char *text)
{
	struct remote_rdma *d = arg;

	(void)text; /* it is in the log */
	d->is_lost = true;
	d->usable = NULL;
}

static void begin_use(void *arg)
{
	struct remote_rdma *d = arg;

	if (!d->is_lost)
		d->usable = d->dev;
}

/* Calls on the link's loop that are waited for: what is asked, and the answer. */
struct question {
	struct remote_rdma *d;
	bool yes;
};

static void is_usable(void *arg)
{
	struct question *q = arg;

	q->yes = q->d->usable;
}

/* And does nobody else use it any more? */
static void end_use(void *arg)
{
	struct question *q = arg;

	q->d->usable = NULL;
	q->yes = !rdma_dev_nconns(q->d->dev);
}

static bool ask(struct remote_rdma *d, void (*fn)(void *arg))
{
	struct question q = { .d = d };

	loop_run(d->o.loop, fn, &q);
	return q.yes;
}

/* Once nobody uses it. */
static bool take_down(struct remote_rdma *d)
{
	if (!d->dev)
		return true;
	if (!ask(d, end_use))
		return false;
	rdma_dev_close(d->dev);
	d->dev = NULL;
	return true;
}

static int look(struct remote_rdma *d)
{
	_cleanup_(freep) char *text = NULL;
	struct rdma_choice found[RDMA_CHOICES_MAX];
	struct sockaddr_storage own;
	bool known = stream_source(&d->o.to, &own);
	unsigned n;
	int r = rdma_find(&d->o.rdma, known ? &own : NULL, found, &n, &text);

	d->is_lost = false;
	if (!r) /* the first one has that address, if any */
		r = rdma_dev_open(d->o.loop, &found[0], on_lost, d, &d->dev, &text);
	if (!r) {
		log_is_news(&d->complaint, NULL);
		loop_run(d->o.loop, begin_use, d);
		return 0;
	}
	const char *said = text ? text : error_text(r);
	if (log_is_news(&d->complaint, said))
		log_info("rdma", "no RDMA for requests now: %s", said);
	return r;
}

static void on_tick(void *arg)
{
	struct remote_rdma *d = arg;

	if (!ask(d, is_usable) && take_down(d))
		look(d);
}

/* Streams ------------------------------------------------------------------------------ */

int remote_rdma_connect(struct remote_rdma *d, uint64_t until_ns, struct stream **ret)
{
	struct stream_rdma_opts o = { .loop = d->o.loop, .until_ns = until_ns };

	assert(loop_is_current(d->o.loop));
	return d->usable ? stream_rdma_connect(d->usable, &d->o.to, &o, ret) : -ENODEV;
}

/* Opening and closing -------------------------------------------------------------------- */

void remote_rdma_close(struct remote_rdma *d)
{
	if (!d)
		return;
	loop_timer_free(d->timer);
	loop_free(d->own);
	bool down = take_down(d);
	assert(down);
	free(d);
}
DEFINE_CLEANUP(struct remote_rdma *, remote_rdma_close)

int remote_rdma_open(const struct remote_rdma_opts *o, struct remote_rdma **ret)
{
	if (stream_is_loopback(&o->to))
		return -EOPNOTSUPP; /* a node that listens there has no door */
	_cleanup_(remote_rdma_closep) struct remote_rdma *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->o = *o;
	if (o->rdma.device) {
		snprintf(d->name, sizeof(d->name), "%s", o->rdma.device);
		d->o.rdma.device = d->name;
	}
	if (look(d) == -EOPNOTSUPP)
		return -EOPNOTSUPP;
	int r = loop_new("remote-device", &d->own);
	if (r >= 0)
		r = loop_timer_new(d->own, LOOK_EVERY_MS, LOOK_EVERY_MS, on_tick, d, &d->timer);
	if (r < 0)
		return r;
	*ret = steal(&d);
	return 0;
}
