/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that are watched, and what of them the kernel was told to keep.
 *
 * What the index said may be told for long if no ring can have been missed:
 *
 *	watch begins < asked < .. no ring of this directory .. < told
 *
 * Each ring notes its time, and what was told before that is dropped: it is not looked
 * at when the bell rings (the thread that commits rings it), but by a thread of our own,
 * which finds it at the beginning of the directory's list. Names that were told are
 * kept here for that. Who finds no room for one tells the kernel to ask again soon, as
 * without a watch: so the queue cannot grow, and nothing is left out of it.
 *
 * An answer that is on its way to the kernel can be overtaken by what drops it: the
 * kernel takes it in when the caller's thread runs. So what was told less than
 * ON_ITS_WAY_MS before the ring is dropped once more after that time.
 *
 * Where bells ring all the time, dropping would cost more than it saves, and each answer
 * would be dropped a moment later. So for a while after a ring answers are kept for no
 * longer than that while, and are not noted.
 *
 * Dropping a name takes the lock of its directory in the kernel, which a request that is
 * under way may hold. If its answer does not come (the node is gone), the thread would
 * be stuck in the kernel, and whoever kills this process with it. So directories whose
 * requests are not being answered have to wait.
 *
 * The node may refuse a watch, which is heard of later, with a ring. Such a directory is not
 * watched, until another try.
 *
 * What the kernel keeps without asking is not used, as seen from here. So a directory
 * makes room for another one only when all that was told of it is over.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "common/table.h"
#include "fs/watched.h"

#define ON_ITS_WAY_NS (100 * NS_PER_MS)
#define ANSWERED_NS (20 * NS_PER_MS) /* ago: requests there are being answered */
#define BUSY_NS (2 * NS_PER_MS)      /* until a directory is looked at again */

enum { BUSY_SLOTS = 256 };

struct busy { /* directories, by their number */
	atomic_uint requests;
	_Atomic uint64_t answered_ns; /* the last one */
};

struct dir {
	uint64_t fileid;
	UT_hash_handle hh;
	struct watched *all;
	struct index_watch watch;
	uint64_t begun_ns;   /* the watch has; 0: not yet, or it could not */
	uint64_t rung_ns;
	uint64_t used_ns;    /* asked for or told */
	uint64_t listed_ns;  /* the kernel began to keep its list then; or 0 */
	uint64_t attr_ns;    /* its own attributes were told then; 0: they were not */
	struct told *told;   /* the oldest first */
	bool ended;          /* not in the table any more */
	bool queued;
	struct dir *prev, *next;         /* the one that was used longest ago first */
	struct dir *before, *behind;     /* of those that have rung, or have ended */
};

struct told { /* one for a nodeid */
	uint64_t nodeid;
	UT_hash_handle hh;
	struct dir *dir;     /* NULL: among those that are dropped once more */
	uint64_t parent;
	uint64_t ns;         /* told then; or to be dropped then */
	struct told *prev, *next;        /* of the directory, or of those */
	struct told *older, *newer;      /* of all */
	char name[];
};

struct watched {
	struct lock lock;
	pthread_cond_t more;
	struct dir *dirs, *by_use;
	struct dir *queue;
	struct told *told, *by_time;
	struct told *late;   /* the one that is due first, first */
	unsigned ndirs, ntold;
	unsigned nended;     /* whose watches have not ended yet */
	bool ending;

	struct busy busy[BUSY_SLOTS];
	struct watched_opts o;
	pthread_t thread;
	bool stopped;
};

/* What was told ----------------------------------------------------------------------- */

static struct told *told_find(struct watched *t, uint64_t nodeid)
{
	struct told *n;

	HASH_FIND(hh, t->told, &nodeid, sizeof(nodeid), n);
	return n;
}

static struct dir *dir_find(struct watched *t, uint64_t fileid)
{
	struct dir *d;

	HASH_FIND(hh, t->dirs, &fileid, sizeof(fileid), d);
	return d;
}

static struct told *told_take(struct watched *t, struct told *n)
{
	HASH_DEL(t->told, n);
	DL_DELETE2(t->by_time, n, older, newer);
	DL_DELETE(n->dir->told, n);
	n->dir = NULL;
	return n;
}

static void told_free(struct watched *t, struct told *n)
{
	t->ntold--;
	free(n);
}

static void told_put(struct watched *t, struct told *n, struct dir *d)
{
	n->dir = d;
	n->parent = d->fileid;
	n->ns = d->used_ns = clock_ns();
	HASH_ADD(hh, t->told, nodeid, sizeof(n->nodeid), n);
	DL_APPEND2(t->by_time, n, older, newer);
	DL_APPEND(d->told, n);
}

/* Its bell rings. It has rung since it is known that it does not. */
static bool is_watched(const struct dir *d)
{
	return d->begun_ns && !index_watch_is_dead(&d->watch);
}

/* Is what the index said after since_ns still so? */
static bool is_since(const struct dir *d, uint64_t since_ns)
{
	return is_watched(d) && since_ns > d->begun_ns && since_ns > d->rung_ns;
}

/* NULL is fine. */
static enum watched_for how_long(const struct dir *d, uint64_t since_ns)
{
	if (!d || !is_watched(d) || since_ns <= d->begun_ns)
		return WATCHED_NOT;
	return since_ns > d->rung_ns + WATCHED_SOON_MS * NS_PER_MS ? WATCHED_KEEP : WATCHED_SOON;
}

static bool is_in_force(const struct told *n)
{
	return n->ns > n->dir->rung_ns;
}

/* It is not watched any more: the thread drops it now. */
static void drop_now(struct watched *t, struct told *n)
{
	n->ns = 0;
	DL_PREPEND(t->late, n);
	pthread_cond_signal(&t->more);
}

static void purge(struct watched *t, uint64_t now)
{
	for (unsigned i = 0; i < 2 && t->by_time && t->by_time->ns + t->o.keep_ns < now; i++)
		told_free(t, told_take(t, t->by_time));
}

static struct told *told_new(struct watched *t, uint64_t nodeid, const char *name)
{
	size_t len = strlen(name) + 1;

	purge(t, clock_ns());
	struct told *n = t->ntold < t->o.max_told ? calloc(1, sizeof(*n) + len) : NULL;
	if (!n)
		return NULL;
	t->ntold++;
	n->nodeid = nodeid;
	memcpy(n->name, name, len);
	return n;
}

/* The record of nodeid as `name` in d, in place of another one, of which the kernel may
 * still have the name. NULL: there is no room, and what is known stays. */
static bool tell(struct watched *t, struct dir *d, const char *name, uint64_t nodeid)
{
	struct told *n = told_find(t, nodeid);

	if (n && n->dir == d && !strcmp(n->name, name)) {
		told_put(t, told_take(t, n), d);
		return true;
	}
	struct told *made = told_new(t, nodeid, name);
	if (!made)
		return false;
	n = told_find(t, nodeid); /* it may have been too old */
	if (n)
		drop_now(t, told_take(t, n));
	told_put(t, made, d);
	return true;
}

enum watched_for watched_name(struct watched *t, uint64_t dir, const char *name, uint64_t nodeid,
			  uint64_t since_ns)
{
	WITH_LOCK(&t->lock);
	struct dir *d = dir_find(t, dir);
	enum watched_for r = how_long(d, since_ns);

	return r == WATCHED_KEEP && !tell(t, d, name, nodeid) ? WATCHED_NOT : r;
}

enum watched_for watched_attr(struct watched *t, uint64_t nodeid, uint64_t since_ns)
{
	WITH_LOCK(&t->lock);
	struct told *n = told_find(t, nodeid);
	struct dir *d = n ? n->dir : NULL;
	enum watched_for r = how_long(d, since_ns);

	if (r == WATCHED_KEEP && !is_in_force(n))
		return WATCHED_SOON;
	if (r == WATCHED_KEEP)
		told_put(t, told_take(t, n), d);
	return r;
}

enum watched_for watched_dir_attr(struct watched *t, uint64_t dir, uint64_t since_ns)
{
	WITH_LOCK(&t->lock);
	struct dir *d = dir_find(t, dir);
	enum watched_for r = how_long(d, since_ns);

	if (r == WATCHED_KEEP)
		d->attr_ns = d->used_ns = clock_ns();
	return r;
}

bool watched_holds(struct watched *t, uint64_t nodeid, bool is_dir)
{
	WITH_LOCK(&t->lock);
	struct told *n = is_dir ? NULL : told_find(t, nodeid);
	struct dir *d = is_dir ? dir_find(t, nodeid) : NULL;
	uint64_t told_ns = 0;

	if (n && is_in_force(n))
		told_ns = n->ns;
	if (d && d->attr_ns > d->rung_ns)
		told_ns = d->attr_ns;
	return told_ns && clock_ns() < told_ns + t->o.keep_ns;
}

void watched_moved(struct watched *t, uint64_t nodeid, uint64_t dir, const char *name,
		   uint64_t since_ns)
{
	WITH_LOCK(&t->lock);
	struct told *n = told_find(t, nodeid);
	struct dir *d = dir_find(t, dir);

	/* It may be being dropped by its old name, which waits for the rename. */
	if (!n && !t->queue && !t->late)
		return;
	struct told *to = told_new(t, nodeid, name);
	n = told_find(t, nodeid);
	/* By its old name it is not known any more. */
	bool keeps = n && is_in_force(n) && d && is_since(d, since_ns);
	if (n)
		told_free(t, told_take(t, n));
	if (!to)
		return; /* out of memory or room: its time runs out */
	if (keeps) {
		told_put(t, to, d);
	} else {
		to->parent = dir;
		drop_now(t, to);
	}
}

void watched_forget(struct watched *t, uint64_t nodeid)
{
	WITH_LOCK(&t->lock);
	struct told *n = told_find(t, nodeid);

	if (n)
		drop_now(t, told_take(t, n));
}

bool watched_list(struct watched *t, uint64_t dir, bool *ret_cache)
{
	WITH_LOCK(&t->lock);
	struct dir *d = dir_find(t, dir);
	uint64_t now = clock_ns();

	*ret_cache = d && is_watched(d) && now > d->begun_ns && now > d->rung_ns;
	if (!*ret_cache)
		return false;
	if (d->listed_ns > d->rung_ns && now < d->listed_ns + t->o.keep_ns)
		return true;
	d->listed_ns = d->used_ns = now;
	return false;
}

/* Watches ----------------------------------------------------------------------------- */

static void enqueue(struct dir *d)
{
	struct watched *t = d->all;

	if (d->queued)
		return;
	d->queued = true;
	DL_APPEND2(t->queue, d, before, behind);
	pthread_cond_signal(&t->more);
}

static void ring(void *arg)
{
	struct dir *d = arg;

	metric_add(M_RINGS, 1);
	WITH_LOCK(&d->all->lock);
	if (d->ended)
		return;
	d->rung_ns = clock_ns();
	if (d->told || d->attr_ns)
		enqueue(d);
}

/* Under the lock: what was told of it is over. The thread ends the watch. */
static void dir_end(struct watched *t, struct dir *d)
{
	while (d->told)
		told_free(t, told_take(t, d->told));
	HASH_DEL(t->dirs, d);
	DL_DELETE(t->by_use, d);
	t->ndirs--;
	t->nended++;
	d->ended = true;
	enqueue(d);
}

/* The node did not take its watch, and may now. What was told before that rang is over. */
static bool is_due_again(const struct watched *t, const struct dir *d, uint64_t now)
{
	return d->begun_ns && !is_watched(d) && d->rung_ns + t->o.keep_ns < now;
}

/* There is room, or there will be when the thread has ended a watch. */
static bool make_room(struct watched *t, uint64_t now)
{
	struct dir *d = t->by_use;

	if (t->ndirs + t->nended < t->o.max_dirs)
		return true;
	if (!t->nended && d->begun_ns && d->used_ns + t->o.keep_ns < now)
		dir_end(t, d);
	return false;
}

/* Under the lock: dir is used. What it returns is to be watched yet. */
static struct dir *use(struct watched *t, uint64_t fileid)
{
	uint64_t now = clock_ns();
	struct dir *d = dir_find(t, fileid);

	if (d && is_due_again(t, d, now)) {
		dir_end(t, d); /* who uses it next begins again */
		return NULL;
	}
	if (d) {
		d->used_ns = now;
		DL_DELETE(t->by_use, d);
		DL_APPEND(t->by_use, d);
		return NULL;
	}
	d = make_room(t, now) ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return NULL;
	d->all = t;
	d->fileid = fileid;
	d->used_ns = now;
	HASH_ADD(hh, t->dirs, fileid, sizeof(d->fileid), d);
	DL_APPEND(t->by_use, d);
	t->ndirs++;
	return d;
}

void watched_use(struct watched *t, uint64_t dir)
{
	struct index_watch w = { 0 };
	struct dir *d;
	{
		WITH_LOCK(&t->lock);
		d = use(t, dir);
	}
	if (!d)
		return;
	/* Until it has begun nobody ends it. */
	int r = index_watch_dir(t->o.ix, dir, ring, d, &w);
	if (r == 0)
		metric_add(M_WATCHES, 1);
	WITH_LOCK(&t->lock);
	d->watch = w;
	d->begun_ns = clock_ns();
	if (r < 0)
		dir_end(t, d);
}

/* Frees it. */
static void unwatch(struct watched *t, struct dir *d)
{
	if (d->watch.names)
		metric_add(M_WATCHES, -1);
	index_unwatch(t->o.ix, &d->watch);
	free(d);
	WITH_LOCK(&t->lock);
	t->nended--;
}

/* The thread -------------------------------------------------------------------------- */

static void drop(struct watched *t, uint64_t dir, const char *name, uint64_t nodeid)
{
	metric_add(M_INVALIDATIONS, 1);
	t->o.drop(t->o.arg, dir, name, nodeid);
}

/* The next one that was told before the bell rang; NULL: none, and it is not queued. */
static struct told *next_old(struct watched *t, struct dir *d, uint64_t *ret_rung_ns)
{
	WITH_LOCK(&t->lock);
	struct told *n = d->told;

	*ret_rung_ns = d->rung_ns;
	if (n && !is_in_force(n))
		return told_take(t, n);
	if (d->ended)
		return NULL;
	d->queued = false;
	DL_DELETE2(t->queue, d, before, behind);
	return NULL;
}

static struct busy *busy_of(struct watched *t, uint64_t dir)
{
	return &t->busy[table_hash(&dir, sizeof(dir)) % BUSY_SLOTS];
}

void watched_enter(struct watched *t, uint64_t dir)
{
	atomic_fetch_add(&busy_of(t, dir)->requests, 1);
}

void watched_leave(struct watched *t, uint64_t dir)
{
	struct busy *b = busy_of(t, dir);

	atomic_store(&b->answered_ns, clock_ns());
	atomic_fetch_sub(&b->requests, 1);
}

/* Its lock in the kernel will be had soon. */
static bool is_answering(struct watched *t, uint64_t dir)
{
	struct busy *b = busy_of(t, dir);

	return !atomic_load(&b->requests) ||
	       clock_ns() - atomic_load(&b->answered_ns) < ANSWERED_NS;
}

/* The directory that was looked at first has to wait. */
static void come_back(struct watched *t, struct dir *d)
{
	uint64_t until = clock_ns() + BUSY_NS;
	WITH_LOCK(&t->lock);

	DL_DELETE2(t->queue, d, before, behind);
	DL_APPEND2(t->queue, d, before, behind);
	while (!t->ending && clock_ns() < until)
		lock_wait_until(&t->lock, &t->more, until);
}

/* It has been dropped, when the bell rang at rung_ns. */
static void dropped(struct watched *t, struct told *n, uint64_t rung_ns)
{
	WITH_LOCK(&t->lock);

	if (n->ns + ON_ITS_WAY_NS < rung_ns) {
		told_free(t, n);
	} else {
		n->ns = clock_ns() + ON_ITS_WAY_NS;
		DL_APPEND(t->late, n);
	}
}

static void drop_dir(struct watched *t, struct dir *d)
{
	uint64_t rung_ns;
	struct told *n;
	bool self;

	{
		WITH_LOCK(&t->lock);
		self = d->attr_ns && d->attr_ns <= d->rung_ns;
		if (self)
			d->attr_ns = 0;
	}
	if (self)
		drop(t, 0, NULL, d->fileid);
	for (;;) {
		if (!is_answering(t, d->fileid)) {
			come_back(t, d);
			return;
		}
		n = next_old(t, d, &rung_ns);
		if (!n)
			return;
		drop(t, n->parent, n->name, n->nodeid);
		dropped(t, n, rung_ns);
	}
}

static void drop_late(struct watched *t, struct told *n)
{
	bool now = is_answering(t, n->parent);

	if (now)
		drop(t, n->parent, n->name, n->nodeid);
	WITH_LOCK(&t->lock);
	if (now) {
		told_free(t, n);
	} else {
		n->ns = clock_ns() + ON_ITS_WAY_NS;
		DL_APPEND(t->late, n);
	}
}

/* Under the lock: waits until there is something to do. False: it is the end. */
static bool wait_for_work(struct watched *t)
{
	while (!t->ending && !t->queue && (!t->late || t->late->ns > clock_ns()))
		lock_wait_until(&t->lock, &t->more, t->late ? t->late->ns : 0);
	return !t->ending;
}

/* One of three: a directory that has rung or has ended, or a name that is due. */
static bool next_work(struct watched *t, struct dir **ret_d, struct told **ret_n)
{
	WITH_LOCK(&t->lock);
	*ret_d = NULL;
	*ret_n = NULL;
	if (!wait_for_work(t))
		return false;
	if (t->late && t->late->ns <= clock_ns()) {
		*ret_n = t->late;
		DL_DELETE(t->late, t->late);
		return true;
	}
	*ret_d = t->queue;
	if (t->queue && t->queue->ended)
		DL_DELETE2(t->queue, t->queue, before, behind);
	return true;
}

static void *run(void *arg)
{
	struct watched *t = arg;
	struct told *n;
	struct dir *d;

	pthread_setname_np(pthread_self(), "fs-watched");
	while (next_work(t, &d, &n)) {
		if (n) {
			drop_late(t, n);
		} else if (d && d->ended) {
			unwatch(t, d);
		} else if (d) {
			drop_dir(t, d);
		}
	}
	return NULL;
}

/* The beginning and the end ------------------------------------------------------------ */

int watched_new(const struct watched_opts *o, struct watched **ret)
{
	struct watched *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->o = *o;
	lock_init(&t->lock, LOCK_FS_NOTIFY);
	lock_cond_init(&t->more);
	int r = pthread_create(&t->thread, NULL, run, t);
	if (r) {
		pthread_cond_destroy(&t->more);
		lock_fini(&t->lock);
		free(t);
		return -r;
	}
	*ret = t;
	return 0;
}

/* Without the lock: who rings takes it. */
static void free_dirs(struct watched *t)
{
	struct dir *d, *next;

	HASH_ITER(hh, t->dirs, d, next) {
		WITH_LOCK(&t->lock);
		if (d->queued)
			DL_DELETE2(t->queue, d, before, behind);
		d->queued = false;
		dir_end(t, d);
	}
	DL_FOREACH_SAFE2(t->queue, d, next, behind) {
		DL_DELETE2(t->queue, d, before, behind);
		unwatch(t, d);
	}
}

void watched_stop(struct watched *t)
{
	if (!t)
		return;
	{
		WITH_LOCK(&t->lock);
		t->ending = true;
		pthread_cond_signal(&t->more);
	}
	pthread_join(t->thread, NULL);
	t->stopped = true;
}

struct watched *watched_free(struct watched *t)
{
	struct told *n, *next;

	if (!t)
		return NULL;
	if (!t->stopped)
		watched_stop(t);
	free_dirs(t);
	DL_FOREACH_SAFE(t->late, n, next)
		told_free(t, n);
	assert(!t->ntold && !t->ndirs && !t->nended);
	pthread_cond_destroy(&t->more);
	lock_fini(&t->lock);
	free(t);
	return NULL;
}

void watched_check(struct watched *t)
{
	WITH_LOCK(&t->lock);
	unsigned n = 0, ndirs = 0, late = 0;
	struct told *one;

	for (struct dir *d = t->dirs; d; d = d->hh.next, ndirs++) {
		uint64_t ns = 0;
		assert(!d->ended);
		DL_FOREACH(d->told, one) {
			assert(one->dir == d && one->ns >= ns && told_find(t, one->nodeid) == one);
			assert(one->parent == d->fileid);
			/* What is to be dropped is in the queue. */
			assert(is_in_force(one) || d->queued);
			ns = one->ns;
			n++;
		}
	}
	DL_FOREACH(t->late, one)
		late++;
	assert(ndirs == t->ndirs && ndirs <= t->o.max_dirs);
	assert(n == HASH_COUNT(t->told) && n + late <= t->ntold && t->ntold <= t->o.max_told);
}
