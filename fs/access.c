/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A note has the time of reading that there was before. Where the index has another one
 * by now, somebody has set it since (by hand, by publishing, by a later read), and that
 * one counts, here and there. All else may change meanwhile, also where the record is:
 * the inode, which is held, knows.
 *
 * A failure loses times of reading and nothing else; who reads again notes them again.
 */
#include "fs/access.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "fs/inode.h"

enum {
	NOTES_MAX = 4096,
	LOT = 64,         /* told in one transaction */
	LATE_MS = 1000,   /* at most, but for the transaction itself */
	LAST_MS = 2000,   /* which gets no more when the mount ends */
};

struct waiting {
	void (*then)(void *arg);
	void *arg;
	struct waiting *next;
};

struct note {
	uint64_t fileid;
	UT_hash_handle hh;
	struct inode *inode; /* held */
	struct timespec before, at;
	bool telling;
	struct waiting *waiting; /* for the end of that */
};

struct accesses {
	struct lock lock;
	pthread_cond_t more;
	struct note *notes;  /* the oldest first */
	uint64_t due_ns;     /* of the oldest */
	bool ending;
	atomic_uint n;       /* changed under the lock */

	struct index *ix;
	struct inodes *inodes;
	unsigned timeout_ms;
	pthread_t thread;
};

static struct note *find(struct accesses *a, uint64_t fileid)
{
	struct note *n;

	HASH_FIND(hh, a->notes, &fileid, sizeof(fileid), n);
	return n;
}

static void take_out(struct accesses *a, struct note *n)
{
	HASH_DEL(a->notes, n);
	atomic_fetch_sub(&a->n, 1);
	metric_add(M_ACCESSES, -1);
}

/* Telling -------------------------------------------------------------------------- */

/* The next lot, which stays in the table while it is told. 0: it is the end. */
static unsigned next_lot(struct accesses *a, struct note *ret[LOT])
{
	unsigned n = 0;
	WITH_LOCK(&a->lock);

	while (!a->ending && (!a->n || (a->n < LOT && clock_ns() < a->due_ns)))
		lock_wait_until(&a->lock, &a->more, a->n ? a->due_ns : 0);
	for (struct note *x = a->notes; x && n < LOT; x = x->hh.next) {
		x->telling = true;
		ret[n++] = x;
	}
	a->due_ns = clock_ns() + LATE_MS * NS_PER_MS; /* of those that are left */
	return n;
}

static void tell(struct accesses *a, struct note *const notes[], unsigned n)
{
	struct index_access v[LOT];
	bool last;
	{
		WITH_LOCK(&a->lock);
		last = a->ending;
	}
	uint64_t ms = last && a->timeout_ms > LAST_MS ? LAST_MS : a->timeout_ms;
	for (unsigned i = 0; i < n; i++)
		v[i] = (struct index_access){ notes[i]->fileid,
					      inode_place(a->inodes, notes[i]->inode),
					      notes[i]->before, notes[i]->at };
	struct index_op op = { .accesses = v, .naccesses = n,
			       .call.deadline_ns = clock_ns() + ms * NS_PER_MS };
	int r = index_wait(a->ix, &op, index_accessed);
	index_op_fini(&op);
	if (r < 0)
		log_debug("fs", "times of reading of %u files are lost: %d", n, r);
}

static void end_lot(struct accesses *a, struct note *const notes[], unsigned n)
{
	{
		WITH_LOCK(&a->lock);
		for (unsigned i = 0; i < n; i++)
			take_out(a, notes[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		for (struct waiting *w = notes[i]->waiting, *next; w; w = next) {
			next = w->next;
			w->then(w->arg);
			free(w);
		}
		inode_put(a->inodes, notes[i]->inode);
		free(notes[i]);
	}
}

static void *run(void *arg)
{
	struct accesses *a = arg;
	struct note *lot[LOT];

	pthread_setname_np(pthread_self(), "fs-access");
	for (unsigned n; (n = next_lot(a, lot));) {
		tell(a, lot, n);
		end_lot(a, lot, n);
	}
	return NULL;
}

/* Noting --------------------------------------------------------------------------- */

static struct note *note_new(struct accesses *a, struct inode *i)
{
	struct note *n = a->n < NOTES_MAX && !a->ending ? calloc(1, sizeof(*n)) : NULL;

	if (!n)
		return NULL;
	n->fileid = i->fileid;
	n->inode = i;
	HASH_ADD(hh, a->notes, fileid, sizeof(n->fileid), n);
	metric_add(M_ACCESSES, 1);
	if (!atomic_fetch_add(&a->n, 1))
		a->due_ns = clock_ns() + LATE_MS * NS_PER_MS;
	if (a->n == 1 || a->n == LOT)
		pthread_cond_signal(&a->more);
	return n;
}

/* A reference of i is taken if there is a new note. False: there is no room. */
static bool note(struct accesses *a, struct inode *i, struct timespec before,
		 struct timespec at, bool *ret_new)
{
	WITH_LOCK(&a->lock);
	struct note *n = find(a, i->fileid);

	*ret_new = !n;
	if (!n && (n = note_new(a, i)))
		n->before = before;
	if (n && !n->telling)
		n->at = at; /* else it was read a moment before, too */
	return n;
}

bool access_note(struct accesses *a, struct inode *i, struct timespec before,
		 struct timespec at)
{
	bool is_new;

	inode_ref(a->inodes, i); /* not under our lock */
	bool done = note(a, i, before, at, &is_new);
	if (!done || !is_new)
		inode_put(a->inodes, i);
	return done;
}

void access_overlay(struct accesses *a, uint64_t fileid, struct attr *attr)
{
	/* What this thread has noted it sees; of others any order will do. */
	if (!atomic_load(&a->n))
		return;
	WITH_LOCK(&a->lock);
	const struct note *n = find(a, fileid);
	if (n && time_is_same(attr->atime, n->before))
		attr->atime = n->at;
}

/* True: then() is called. */
static bool wait_for(struct note *n, void (*then)(void *arg), void *arg)
{
	struct waiting *w = malloc(sizeof(*w));

	if (!w)
		return false; /* the two are in no order, then */
	*w = (struct waiting){ then, arg, n->waiting };
	n->waiting = w;
	return true;
}

bool access_forget(struct accesses *a, uint64_t fileid, void (*then)(void *arg), void *arg)
{
	struct note *n = NULL;

	if (!atomic_load(&a->n))
		return false;
	{
		WITH_LOCK(&a->lock);
		n = find(a, fileid);
		if (n && n->telling)
			return wait_for(n, then, arg);
		if (n)
			take_out(a, n);
	}
	if (n)
		inode_put(a->inodes, n->inode);
	free(n);
	return false;
}

/* ------------------------------------------------------------------------------------ */

int accesses_new(struct index *ix, struct inodes *t, unsigned timeout_ms,
		 struct accesses **ret)
{
	struct accesses *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	*a = (struct accesses){ .ix = ix, .inodes = t, .timeout_ms = timeout_ms };
	lock_init(&a->lock, LOCK_FS_NOTIFY);
	lock_cond_init(&a->more);
	int r = pthread_create(&a->thread, NULL, run, a);
	if (r) {
		pthread_cond_destroy(&a->more);
		lock_fini(&a->lock);
		free(a);
		return -r;
	}
	*ret = a;
	return 0;
}

struct accesses *accesses_free(struct accesses *a)
{
	if (!a)
		return NULL;
	{
		WITH_LOCK(&a->lock);
		a->ending = true;
		pthread_cond_signal(&a->more);
	}
	pthread_join(a->thread, NULL);
	assert(!a->notes);
	pthread_cond_destroy(&a->more);
	lock_fini(&a->lock);
	free(a);
	return NULL;
}
