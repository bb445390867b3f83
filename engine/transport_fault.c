/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport that misbehaves within its contract: it wraps another, refuses,
 * fails, delays and reorders, as networks do. With the same seed and the same
 * posts in the same order it decides the same.
 *
 * The hard idea: *when* the bytes move is not when the completion is told. For
 * each delayed post a coin decides whether the inner post is made at once (the
 * bytes are there early, the news comes late) or just before the completion
 * (the write lands late, perhaps long after its transfer's deadline). A failing
 * post may have moved its bytes or not.
 *
 *	post() -> refused
 *	       -> told at once                          (delay_us == 0, not held)
 *	       -> item on `items` -> thread "fault", when due and not held -> told
 *
 * Each accepted post has an item of its own with its own inner post, so the
 * caller's record is touched only by its done(). Completions are told with no
 * lock held.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/cleanup.h"
#include "common/lock.h"
#include "common/random.h"
#include "engine/transport.h"

struct item {
	struct post inner;   /* a copy, with our done() */
	struct post *post;   /* whose it is */
	struct fault *fault;
	uint64_t due_ns;
	bool moved;          /* the inner transport has completed it */
	bool skip;           /* its bytes never move */
	int result;
	struct item *prev, *next;
};

struct fault {
	struct transport transport;
	struct transport *inner;
	struct fault_opts opts;
	pthread_t thread;

	struct lock lock;
	pthread_cond_t changed;  /* items, held, stopping */
	pthread_cond_t idle;     /* nout is 0, or the thread has nothing to do */
	struct item *items;
	uint64_t random;
	uint64_t nout;           /* accepted, done() has not returned */
	bool busy;               /* the thread is telling one */
	bool held;
	bool quiescing;          /* everything is due; posts are refused */
	bool stopping;           /* the thread ends */
};

static struct fault *of(struct transport *t)
{
	return (struct fault *)t;
}

/* Under the lock. */
static uint64_t draw(struct fault *f)
{
	return random_next(&f->random);
}

static bool happens(struct fault *f, uint32_t ppm)
{
	return draw(f) % 1000000 < ppm;
}

/* Counts *nth down; true when it arrives at 0. */
static bool is_nth(uint64_t *nth)
{
	return *nth && !--*nth;
}

/* Telling ---------------------------------------------------------------------- */

static void tell(struct item *it)
{
	struct fault *f = it->fault;

	it->post->done(it->post, it->result);
	free(it);
	WITH_LOCK(&f->lock);
	if (!--f->nout)
		pthread_cond_broadcast(&f->idle);
}

static void late_inner_done(struct post *p, int result)
{
	struct item *it = (struct item *)p;

	if (!it->result)
		it->result = result;
	tell(it);
}

/* Its time has come: moves the bytes if they have not, and tells. */
static void deliver(struct item *it)
{
	struct transport *inner = it->fault->inner;

	if (it->moved || it->skip) {
		tell(it);
		return;
	}
	it->inner.done = late_inner_done;
	int r = inner->ops->post(inner, &it->inner);
	if (r < 0) { /* ours was accepted: so it completes with the reason */
		it->result = r == -EAGAIN ? -EIO : r;
		tell(it);
	}
}

/* The inner completion of what is told later. */
static void early_inner_done(struct post *p, int result)
{
	struct item *it = (struct item *)p;
	struct fault *f = it->fault;

	WITH_LOCK(&f->lock);
	it->moved = true;
	if (!it->result)
		it->result = result;
	DL_APPEND(f->items, it);
	pthread_cond_signal(&f->changed);
}

/* The earliest that may be told now, or NULL and when to look again. */
static struct item *take_due(struct fault *f, uint64_t *ret_next_ns)
{
	struct item *it, *first = NULL;

	*ret_next_ns = 0;
	if (f->held && !f->quiescing)
		return NULL;
	DL_FOREACH(f->items, it)
		if (!first || it->due_ns < first->due_ns)
			first = it;
	if (first && !f->quiescing && first->due_ns > clock_ns()) {
		*ret_next_ns = first->due_ns;
		return NULL;
	}
	if (first)
		DL_DELETE(f->items, first);
	return first;
}

static struct item *wait_due(struct fault *f)
{
	WITH_LOCK(&f->lock);
	f->busy = false;
	for (;;) {
		uint64_t next_ns;
		struct item *it = take_due(f, &next_ns);
		f->busy = it;
		if (it) {
			/* What has not moved when all is ended may not move. */
			if (f->quiescing && !it->moved && !it->skip && draw(f) & 1) {
				it->skip = true;
				it->result = -ECANCELED;
			}
			return it;
		}
		if (f->stopping)
			return NULL;
		pthread_cond_broadcast(&f->idle);
		lock_wait_until(&f->lock, &f->changed, next_ns);
	}
}

static void *fault_main(void *arg)
{
	struct fault *f = arg;
	struct item *it;

	pthread_setname_np(pthread_self(), "fault");
	while ((it = wait_due(f)))
		deliver(it);
	return NULL;
}

/* Posting ---------------------------------------------------------------------- */

enum fate { NOW, EARLY, LATE };

/* Decides, under the lock. 0, or why it is refused. */
static int decide(struct fault *f, struct item *it, enum fate *ret)
{
	WITH_LOCK(&f->lock);
	if (f->quiescing)
		return -ENOTCONN;
	bool refuse = is_nth(&f->opts.refuse_nth);
	if (happens(f, f->opts.refuse_ppm) || refuse)
		return -EAGAIN;
	bool fail = is_nth(&f->opts.fail_nth);
	if (happens(f, f->opts.fail_ppm) || fail) {
		it->result = -EIO;
		it->skip = draw(f) & 1;
	}
	bool late = draw(f) & 1;
	uint64_t delay = f->opts.delay_us ? draw(f) % (f->opts.delay_us * 1000ull + 1) : 0;
	f->nout++;
	if (!f->opts.delay_us && !f->held) {
		*ret = NOW;
		return 0;
	}
	it->due_ns = clock_ns() + delay;
	*ret = late || it->skip ? LATE : EARLY;
	if (*ret == LATE) {
		DL_APPEND(f->items, it);
		pthread_cond_signal(&f->changed);
	}
	return 0;
}

static int fault_post(struct transport *t, struct post *p)
{
	struct fault *f = of(t);
	struct item *it = calloc(1, sizeof(*it));
	enum fate fate;

	if (!it)
		return -EAGAIN;
	it->fault = f;
	it->post = p;
	it->inner = *p;
	int r = decide(f, it, &fate);
	if (r < 0) {
		free(it);
		return r;
	}
	if (fate == NOW)
		deliver(it);
	if (fate != EARLY)
		return 0;
	it->inner.done = early_inner_done;
	r = f->inner->ops->post(f->inner, &it->inner);
	if (r < 0) {
		it->skip = true;
		early_inner_done(&it->inner, r == -EAGAIN ? -EIO : r);
	}
	return 0;
}

static void fault_quiesce(struct transport *t)
{
	struct fault *f = of(t);

	{ /* first what the inner one does not have yet */
		WITH_LOCK(&f->lock);
		f->quiescing = true;
		pthread_cond_signal(&f->changed);
		while (f->items || f->busy)
			lock_wait(&f->lock, &f->idle);
	}
	f->inner->ops->quiesce(f->inner);
	WITH_LOCK(&f->lock);
	while (f->nout)
		lock_wait(&f->lock, &f->idle);
}

static void *fault_map(struct transport *t, struct slice_id s)
{
	struct fault *f = of(t);

	return f->opts.hide_map ? NULL : f->inner->ops->map(f->inner, s);
}

static void fault_close(struct transport *t)
{
	struct fault *f = of(t);

	{
		WITH_LOCK(&f->lock);
		assert(!f->nout); /* quiesced before */
		f->stopping = true;
		pthread_cond_signal(&f->changed);
	}
	pthread_join(f->thread, NULL);
	assert(!f->items);
	f->inner->ops->close(f->inner);
	pthread_cond_destroy(&f->changed);
	pthread_cond_destroy(&f->idle);
	lock_fini(&f->lock);
	free(f);
}

static const struct transport_ops fault_ops = {
	.name = "fault",
	.post = fault_post,
	.quiesce = fault_quiesce,
	.map = fault_map,
	.close = fault_close,
};

int transport_fault_open(struct transport *inner, const struct fault_opts *o,
			 struct transport **ret)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->transport.ops = &fault_ops;
	f->inner = inner;
	f->opts = *o;
	f->random = o->seed;
	lock_init(&f->lock, LOCK_TRANSPORT);
	lock_cond_init(&f->changed);
	lock_cond_init(&f->idle);
	int r = pthread_create(&f->thread, NULL, fault_main, f);
	if (r) {
		lock_fini(&f->lock);
		free(f);
		return -r;
	}
	*ret = &f->transport;
	return 0;
}

void transport_fault_hold(struct transport *t, bool hold)
{
	struct fault *f = of(t);

	assert(t->ops == &fault_ops);
	WITH_LOCK(&f->lock);
	f->held = hold;
	pthread_cond_signal(&f->changed);
}

void transport_fault_arm(struct transport *t, uint64_t fail_nth, uint64_t refuse_nth)
{
	struct fault *f = of(t);

	assert(t->ops == &fault_ops);
	WITH_LOCK(&f->lock);
	f->opts.fail_nth = fail_nth;
	f->opts.refuse_nth = refuse_nth;
}
