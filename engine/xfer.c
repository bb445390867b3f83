/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers and batches: submit, complete, retry, cancel, time out.
 *
 * The hard idea: each transfer has one word that says who may act on it. From
 * NEW it is taken by compare-and-swap: whoever moved it is the one who acts,
 * everybody else finds that there is nothing to do. POSTED has one owner, the
 * transport, so its completion needs no rivalry, only a check.
 *
 *	        post()                completion
 *	NEW ------------> POSTED ------------------> ENDED
 *	 ^                  |                          ^
 *	 '------------------'                          |
 *	 |  refused (-EAGAIN)                          |
 *	 '---------------------------------------------'
 *	   cancelled, timed out, an earlier one failed
 *
 * So a transfer that is posted ends only by its completion (I9), one that is
 * not posted can be ended by anybody, once. `unended` counts what has not ended
 * and one more for the submitter; whoever takes it to 0 finishes the batch: the
 * result is known then, nothing touches the lent memory any more, and done() is
 * called (I10).
 *
 * The record of a post lies in the batch, and the reference that submit took is
 * given back only when unended is 0: a late completion finds its own record.
 * A word that is not one of the three states is not a transfer.
 *
 * Threads: any may complete, cancel, retry. The thread "retry" tries refused
 * posts again; it runs only while there are some (and a second longer).
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/xfer.h"

enum {
	RETRY_FIRST_NS = 50 * 1000,
	RETRY_MOST_NS = 5 * 1000 * 1000,
	LINGER_NS = 1000 * 1000 * 1000,
};

/* Also magic numbers: they are checked in what a transport hands back. */
enum xfer_state {
	XFER_NEW = 0x78664e45,
	XFER_POSTED = 0x7866504f,
	XFER_ENDED = 0x7866454e,
};

struct xfer {
	struct post post;
	struct batch *batch;
	atomic_int state;
};

struct batch {
	struct transport *transport;
	void (*done)(void *arg, int result);
	void *arg;
	const struct kv_call *call; /* or NULL; there until done() */
	uint64_t deadline_ns;  /* the call's */
	atomic_int refs;
	atomic_int unended;
	atomic_int result;     /* the first error */
	atomic_bool submitted;
	atomic_bool stopping;  /* posts nothing more */
	atomic_bool deferred;  /* something did not complete within submit */
	unsigned n, capacity;  /* the owner's; fixed once submitted */

	/* Under retry.lock: */
	bool waits;            /* on retry.list; holds a reference */
	struct batch *prev, *next;
	uint64_t retry_ns, pause_ns;

	struct xfer xfers[];
};

static struct {
	struct lock lock;
	pthread_cond_t cond;
	struct batch *list;    /* in order of arrival */
	bool runs;             /* the thread exists */
	bool kicked;           /* a post completed: there may be room */
	atomic_uint waiting;   /* length of the list; a glance without lock */
} retry = { .lock = LOCK_INIT(LOCK_XFER) };

static void pump(struct batch *b);

/* A batch before it is submitted -------------------------------------------- */

int batch_new(struct transport *t, unsigned capacity, struct batch **ret)
{
	struct batch *b = malloc(sizeof(*b) + capacity * sizeof(b->xfers[0]));

	if (!b)
		return -ENOMEM;
	*b = (struct batch){ .transport = t, .capacity = capacity, .refs = 1,
			     .unended = 1, .pause_ns = RETRY_FIRST_NS };
	metric_add(M_BATCHES, 1);
	*ret = b;
	return 0;
}

struct batch *batch_ref(struct batch *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

/* acq_rel: who frees must see what the others did. Who holds the only reference
 * need not count: nobody can take one from him. */
struct batch *batch_unref(struct batch *b)
{
	if (!b)
		return NULL;
	if (atomic_load_explicit(&b->refs, memory_order_acquire) > 1) {
		int refs = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
		assert(refs > 0);
		if (refs > 1)
			return NULL;
	}
	free(b);
	return NULL;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	assert(!b->submitted);
	metric_add(M_BATCHES, -1);
	batch_unref(b);
}

/* Ending --------------------------------------------------------------------- */

/* done() once, with nothing counted any more and no lock held. */
static void finish(struct batch *b)
{
	int result = atomic_load(&b->result);

	/* What came too late is no success. */
	if (!result && atomic_load(&b->deferred)) {
		if (b->deadline_ns && clock_ns() > b->deadline_ns)
			result = -ETIMEDOUT;
		else if (kv_call_is_cancelled(b->call))
			result = -ECANCELED;
	}
	metric_add(M_TRANSFERS, -(int64_t)b->n);
	metric_add(M_BATCHES, -1);
	lock_assert_none();
	b->done(b->arg, result);
}

static void set_result(struct batch *b, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&b->result, &none, error);
}

/* One of the counted has ended. b is not the caller's afterwards, unless he has
 * a reference or another count. */
static void count_ended(struct batch *b)
{
	/* The last one need not count: there is nobody left to compete with. */
	int before = atomic_load_explicit(&b->unended, memory_order_acquire);

	if (before != 1)
		before = atomic_fetch_sub_explicit(&b->unended, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before == 1) {
		finish(b);
		batch_unref(b);
	}
}

/* Is the submitter's reference the only one? Then there is nobody to cancel or
 * to retry, and he need not compete: locked instructions are most of what a
 * small transfer costs. */
static bool alone(struct batch *b)
{
	return atomic_load_explicit(&b->refs, memory_order_acquire) == 1;
}

static bool claim(struct xfer *x, enum xfer_state to)
{
	int new = XFER_NEW;

	return atomic_compare_exchange_strong(&x->state, &new, (int)to);
}

/* Ends all that is not posted. What is posted is waited for. The caller has a
 * reference, or is the submitter. */
static void stop(struct batch *b, int error)
{
	bool any = false;

	atomic_store(&b->stopping, true);
	for (unsigned i = 0; i < b->n; i++)
		if (claim(&b->xfers[i], XFER_ENDED)) {
			if (!any)
				set_result(b, error);
			any = true;
			count_ended(b);
		}
}

static void kick(void)
{
	WITH_LOCK(&retry.lock);
	retry.kicked = true;
	pthread_cond_signal(&retry.cond);
}

static void post_done(struct post *p, int result)
{
	struct xfer *x = (struct xfer *)p;

	/* I9: a post completes once, and only if it was accepted. Relaxed: while
	 * it is posted nobody else writes the word, and what the post moved is
	 * handed on by the count. */
	assert(atomic_load_explicit(&x->state, memory_order_relaxed) == XFER_POSTED);
	atomic_store_explicit(&x->state, XFER_ENDED, memory_order_relaxed);
	if (result < 0) {
		set_result(x->batch, result);
		atomic_store(&x->batch->stopping, true);
	}
	count_ended(x->batch);
	if (atomic_load(&retry.waiting))
		kick();
}

int batch_add(struct batch *b, enum post_kind kind, struct slice_id s,
	      uint64_t off, void *local, uint64_t len)
{
	uint64_t runs = len / XFER_RUN_MAX + (len % XFER_RUN_MAX != 0);

	assert(!b->submitted);
	if (runs > b->capacity - b->n)
		return -ENOSPC;
	for (uint64_t at = 0; at < len; at += XFER_RUN_MAX) {
		struct xfer *x = &b->xfers[b->n++];
		uint64_t left = len - at;
		x->post = (struct post){
			.kind = kind,
			.slice = s,
			.off = off + at,
			.local = (char *)local + at,
			.len = (uint32_t)(left < XFER_RUN_MAX ? left : XFER_RUN_MAX),
			.done = post_done,
		};
		x->batch = b;
		atomic_init(&x->state, XFER_NEW);
	}
	return 0;
}

/* Trying again ---------------------------------------------------------------- */

/* Takes the first batch whose turn it is off the list. If there is none, when
 * the next one is due; 0: the list is empty. */
static struct batch *take_due(uint64_t now, uint64_t *ret_next_ns)
{
	struct batch *b;

	*ret_next_ns = 0;
	DL_FOREACH(retry.list, b) {
		if (b->retry_ns <= now) {
			DL_DELETE(retry.list, b);
			b->waits = false;
			atomic_fetch_sub(&retry.waiting, 1);
			return b;
		}
		if (!*ret_next_ns || b->retry_ns < *ret_next_ns)
			*ret_next_ns = b->retry_ns;
	}
	return NULL;
}

/* Waits for what is due; NULL: nothing came for a while and the thread ends. */
static struct batch *wait_due(void)
{
	WITH_LOCK(&retry.lock);
	uint64_t quit_ns = clock_ns() + LINGER_NS;

	for (;;) {
		uint64_t now = clock_ns(), next_ns;
		struct batch *b, *due = take_due(now, &next_ns);
		if (due)
			return due;
		if (retry.kicked) {
			retry.kicked = false;
			DL_FOREACH(retry.list, b)
				b->retry_ns = 0;
			if (retry.list)
				continue;
		}
		if (!next_ns && now >= quit_ns) {
			retry.runs = false;
			return NULL;
		}
		lock_wait_until(&retry.lock, &retry.cond, next_ns ? next_ns : quit_ns);
	}
}

static void *retry_main(void *arg)
{
	struct batch *b;

	(void)arg;
	pthread_setname_np(pthread_self(), "retry");
	while ((b = wait_due())) {
		if (b->deadline_ns && clock_ns() >= b->deadline_ns)
			stop(b, -ETIMEDOUT);
		else
			pump(b);
		batch_unref(b);
	}
	return NULL;
}

static pthread_once_t retry_once = PTHREAD_ONCE_INIT;

static void retry_init(void)
{
	lock_cond_init(&retry.cond);
}

/* Under retry.lock. */
static int retry_start(void)
{
	pthread_attr_t a;
	pthread_t thread;

	if (retry.runs)
		return 0;
	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	int r = pthread_create(&thread, &a, retry_main, NULL);
	pthread_attr_destroy(&a);
	retry.runs = !r;
	return -r;
}

/* Puts b on the list, unless it is there: the pause doubles each time, but ends
 * at the deadline. */
static int wait_for_room(struct batch *b)
{
	pthread_once(&retry_once, retry_init);
	WITH_LOCK(&retry.lock);
	int r = retry_start();

	if (r < 0 || b->waits)
		return r;
	b->retry_ns = clock_ns() + b->pause_ns;
	if (b->deadline_ns && b->retry_ns > b->deadline_ns)
		b->retry_ns = b->deadline_ns;
	b->pause_ns = b->pause_ns < RETRY_MOST_NS / 2 ? b->pause_ns * 2 : RETRY_MOST_NS;
	b->waits = true;
	batch_ref(b);
	DL_APPEND(retry.list, b);
	atomic_fetch_add(&retry.waiting, 1);
	pthread_cond_signal(&retry.cond);
	return 0;
}

/* Submitting ------------------------------------------------------------------ */

/* 0: went its way. -EAGAIN: no room, it is NEW again. */
static int post_one(struct batch *b, struct xfer *x)
{
	if (alone(b) && atomic_load_explicit(&x->state, memory_order_relaxed) == XFER_NEW)
		atomic_store_explicit(&x->state, XFER_POSTED, memory_order_relaxed);
	else if (!claim(x, XFER_POSTED))
		return 0;
	x->post.deadline_ns = b->deadline_ns;
	/* While a transfer is ours done() has not been called, and the call is
	 * still there. */
	int r = kv_call_is_cancelled(b->call) ?
			-ECANCELED : b->transport->ops->post(b->transport, &x->post);
	if (r >= 0)
		return 0;
	if (r == -EAGAIN) {
		atomic_store(&x->state, XFER_NEW);
		return r;
	}
	set_result(b, r);
	atomic_store(&b->stopping, true);
	atomic_store(&x->state, XFER_ENDED);
	count_ended(b);
	return 0;
}

/*
 * Posts what is NEW. `stopping` is looked at again after the last change of
 * state made here: whoever sets it sweeps afterwards, so that one of the two
 * sees what the other did.
 */
static void pump(struct batch *b)
{
	for (unsigned i = 0; i < b->n && !atomic_load(&b->stopping); i++) {
		int r = post_one(b, &b->xfers[i]);
		if (r == -EAGAIN)
			r = wait_for_room(b);
		if (r < 0) {
			stop(b, r);
			return;
		}
		if (atomic_load_explicit(&b->xfers[i].state, memory_order_relaxed) == XFER_NEW)
			break; /* it waits; the rest would be refused too */
	}
	if (atomic_load(&b->stopping))
		stop(b, -ECANCELED);
}

/* A tick late at most, and a tenth of the price. */
static uint64_t coarse_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void batch_submit(struct batch *b, const struct kv_call *call,
		  void (*done)(void *arg, int result), void *arg)
{
	uint64_t deadline_ns = call ? call->deadline_ns : 0;

	b->done = done;
	b->arg = arg;
	b->call = call;
	b->deadline_ns = deadline_ns;
	metric_add(M_TRANSFERS, b->n);
	/* Who cancels before `submitted` does not look at the count. */
	atomic_store_explicit(&b->unended, (int)b->n + 1, memory_order_relaxed);
	if (alone(b))
		atomic_store_explicit(&b->submitted, true, memory_order_relaxed);
	else
		atomic_store(&b->submitted, true);
	if (deadline_ns && coarse_ns() >= deadline_ns)
		stop(b, -ETIMEDOUT);
	else
		pump(b);
	if (atomic_load(&b->unended) > 1)
		atomic_store_explicit(&b->deferred, true, memory_order_relaxed);
	count_ended(b);
}

void batch_cancel(struct batch *b)
{
	atomic_store(&b->stopping, true);
	if (atomic_load(&b->submitted))
		stop(b, -ECANCELED);
}
