/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bell is a hint, as everywhere: it may come late, and for what a draft of this mount hides
 * it does not come. Who waits begins again after a while (FS_WAIT), and with that looks.
 *
 * The thread asks the index and waits for the answer: all who wait here wait for the same
 * index. It gives the answer LOOK_MS and then goes on to who has waited for long enough.
 */
#include "fs/waits.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"

enum {
	LOOK_MS = 1000,
	PAUSE_MS = 10,    /* from one look to the next, however it rings */
	NOT_YET = 1,
};

struct waits {
	struct lock lock;
	pthread_cond_t more;
	struct wait *list;
	atomic_uint n; /* changed under the lock */
	bool started, ending;

	struct index *ix;
	pthread_t thread;
};

static void ring(void *arg)
{
	struct wait *w = arg;
	WITH_LOCK(&w->all->lock);

	w->rung = true;
	pthread_cond_signal(&w->all->more);
}

/* Is it published? */
static int look(struct waits *t, struct wait *w)
{
	struct index_op op = { .parent = w->parent, .name = w->name, .flags = LOOKUP_CHECK_DIR,
			       .call.deadline_ns = clock_ns() + LOOK_MS * NS_PER_MS };

	if (!w->begun) /* without a bell it is looked at by who waits: see above */
		index_watch_name(t->ix, w->parent, w->name, ring, w, &w->watch);
	w->begun = true;
	int r = index_wait(t->ix, &op, index_lookup);
	if (r == INDEX_MISS || r == -ENOTCONN || r == -ETIMEDOUT || (!r && op.entry.draft))
		r = NOT_YET;
	index_op_fini(&op);
	w->looked_ns = clock_ns();
	return r;
}

static void end(struct waits *t, struct wait *w, int r)
{
	{
		WITH_LOCK(&t->lock);
		DL_DELETE(t->list, w);
		atomic_fetch_sub(&t->n, 1);
	}
	if (w->watch.names)
		index_unwatch(t->ix, &w->watch);
	metric_add(M_WAITS, -1);
	w->done(w, r);
}

/* Under the lock: when there is something to do about it, and what. */
static uint64_t due_ns(const struct waits *t, const struct wait *w, int *ret)
{
	uint64_t look_ns = w->looked_ns ? w->looked_ns + PAUSE_MS * NS_PER_MS : 0;

	*ret = t->ending ? -ENOTCONN : atomic_load(&w->cancelled) ? -ECANCELED : -ETIMEDOUT;
	if (*ret != -ETIMEDOUT)
		return 0;
	if (w->rung && look_ns < w->deadline_ns) {
		*ret = 0;
		return look_ns;
	}
	return w->deadline_ns;
}

/* Under the lock: one that is due; one to be ended before those to be looked at, which takes
 * its time. NULL: none is, until *ret_ns. */
static struct wait *first_due(const struct waits *t, uint64_t *ret_ns, int *ret_end)
{
	uint64_t now = clock_ns();
	struct wait *w, *found = NULL;
	int end;

	*ret_ns = 0;
	DL_FOREACH(t->list, w) {
		uint64_t due = due_ns(t, w, &end);
		if (due <= now && (!found || end)) {
			found = w;
			*ret_end = end;
		}
		if (due <= now && end)
			break;
		*ret_ns = *ret_ns && *ret_ns < due ? *ret_ns : due;
	}
	return found;
}

/* Waits until there is one to be looked at (*ret_end 0) or to be ended; the others are before
 * it the next time. NULL: it is the end. */
static struct wait *next_wait(struct waits *t, int *ret_end)
{
	WITH_LOCK(&t->lock);

	while (!t->ending || t->list) {
		uint64_t first;
		struct wait *w = first_due(t, &first, ret_end);

		if (w) {
			w->rung = false;
			DL_DELETE(t->list, w);
			DL_APPEND(t->list, w);
			return w;
		}
		lock_wait_until(&t->lock, &t->more, first);
	}
	return NULL;
}

static void *run(void *arg)
{
	struct waits *t = arg;
	struct wait *w;
	int r;

	pthread_setname_np(pthread_self(), "fs-wait");
	while ((w = next_wait(t, &r))) {
		if (!r)
			r = look(t, w);
		if (r != NOT_YET)
			end(t, w, r);
	}
	return NULL;
}

int waits_add(struct waits *t, struct wait *w)
{
	WITH_LOCK(&t->lock);
	int r = t->ending ? ENOTCONN : t->started ? 0 : pthread_create(&t->thread, NULL, run, t);

	if (r)
		return -r;
	t->started = true;
	w->all = t;
	w->rung = true; /* the first look */
	if (atomic_fetch_add(&t->n, 1) >= WAITS_MAX)
		w->deadline_ns = 1;
	DL_APPEND(t->list, w);
	metric_add(M_WAITS, 1);
	pthread_cond_signal(&t->more);
	return 0;
}

void waits_kick(struct waits *t)
{
	WITH_LOCK(&t->lock);

	pthread_cond_signal(&t->more);
}

void waits_ring(struct waits *t)
{
	struct wait *w;

	/* Mostly nobody waits. */
	if (!atomic_load(&t->n))
		return;
	WITH_LOCK(&t->lock);
	DL_FOREACH(t->list, w)
		w->rung = true;
	pthread_cond_signal(&t->more);
}

struct waits *waits_new(struct index *ix)
{
	struct waits *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->ix = ix;
	lock_init(&t->lock, LOCK_FS_NOTIFY);
	lock_cond_init(&t->more);
	return t;
}

void waits_stop(struct waits *t)
{
	bool started;

	if (!t)
		return;
	{
		WITH_LOCK(&t->lock);
		t->ending = true;
		started = t->started;
		t->started = false;
		pthread_cond_signal(&t->more);
	}
	if (started)
		pthread_join(t->thread, NULL);
}

struct waits *waits_free(struct waits *t)
{
	if (!t)
		return NULL;
	assert(!t->list && !t->started);
	pthread_cond_destroy(&t->more);
	lock_fini(&t->lock);
	free(t);
	return NULL;
}
