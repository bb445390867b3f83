/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was there before is read while others write: of what has been told of since, that is the
 * truth, and what was read of it may be older (`told`).
 */
#include "engine/uses_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/table.h"
#include "engine/dirs.h"

enum { COUNT_LOT = 1024 }; /* objects that are counted under the lock in one go */

/* That the object, or that it has this name, was told of. */
struct told_key {
	uint64_t fileid;
	struct index_name name; /* or zeros */
};

struct told {
	struct told_key key;
	uint64_t parent; /* where its pages are by now, */
	int64_t pages;   /* and how many: 0 of what is gone, or counts for nothing */
	UT_hash_handle hh;
};

/* What was told of meanwhile -------------------------------------------------------------- */

static struct told_key key_of(const struct index_row *row)
{
	struct told_key k;

	memset(&k, 0, sizeof(k)); /* what lies between, too */
	k.fileid = row->attr.fileid;
	if (!row->is_record)
		k.name = row->name;
	return k;
}

static struct told *find_told(struct uses *u, const struct told_key *k)
{
	struct told *t;

	HASH_FIND(hh, u->told, k, sizeof(*k), t);
	return t;
}

static struct told *tell_key(struct uses *u, const struct told_key *k)
{
	struct told *t = find_told(u, k);

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t) { /* rather too little than what is not there */
		uses_complain(u, k->fileid, -ENOMEM);
		atomic_store(&u->stopped, true);
		return NULL;
	}
	t->key = *k;
	HASH_ADD(hh, u->told, key, sizeof(t->key), t);
	return t;
}

void uses_tell(struct uses *u, const struct index_row *row)
{
	struct told_key k = key_of(row);

	if (u->is_filling)
		tell_key(u, &k);
}

static struct told_key key_of_id(uint64_t fileid)
{
	const struct index_row row = { .is_record = true, .attr.fileid = fileid };

	return key_of(&row);
}

static bool is_told_id(struct uses *u, uint64_t fileid)
{
	struct told_key k = key_of_id(fileid);

	return find_told(u, &k) != NULL;
}

void uses_tell_id(struct uses *u, uint64_t fileid)
{
	struct told_key k = key_of_id(fileid);

	if (u->is_filling)
		tell_key(u, &k);
}

bool uses_tell_pages(struct uses *u, uint64_t fileid, uint64_t dir, int64_t pages)
{
	struct told_key k = key_of_id(fileid);

	if (!u->is_filling || fileid <= u->counted)
		return false;
	struct told *t = tell_key(u, &k);
	if (t && pages > 0)
		*t = (struct told){ t->key, dir, pages, t->hh };
	else if (t && t->parent == dir)
		t->pages = 0;
	return true;
}

void uses_forget_told(struct uses *u)
{
	struct told *t, *next;

	HASH_ITER(hh, u->told, t, next) {
		HASH_DEL(u->told, t);
		free(t);
	}
}

/* What was there before ---------------------------------------------------------------------- */

struct one {
	struct timespec used;
	struct policy_object object;
	bool is_kept; /* entered already */
};

struct all {
	struct uses *uses;
	struct one *v;
	size_t n, cap;
};

static int see_name(struct uses *u, const struct index_row *row)
{
	struct told_key k = key_of(row);
	WITH_LOCK(&u->lock);

	return find_told(u, &k) ? 0 : uses_names_add(u, row->attr.fileid, &row->name);
}

/* What has an end, or is pinned, at once: few have, and the others need less memory. */
static int see_kept(struct uses *u, const struct index_row *row)
{
	struct expiry_end end;
	int64_t now = clock_now().tv_sec;

	if (!uses_end_of(u, row, now, &end) && row->attr.keep.pinned <= now)
		return INDEX_MISS;
	WITH_LOCK(&u->lock);
	if (is_told_id(u, row->attr.fileid))
		return 0;
	int r = uses_enter(u, row);
	/* Not each use is in its record: it has all of its time once more. */
	if (!r && end.idle && end.reason != EXPIRY_TEMP)
		expiry_use(u->o.expiry, end.fileid, now);
	return r;
}

static int see(void *arg, const struct index_row *row)
{
	struct all *all = arg;
	struct uses *u = all->uses;

	if (atomic_load(&u->stopped))
		return -ECANCELED;
	if (!row->is_record)
		return see_name(u, row);
	int r = see_kept(u, row);
	bool is_kept = !r;
	if (r >= 0)
		r = array_room(all->v, all->cap, all->n + 1, 1024);
	if (!r)
		all->v[all->n++] = (struct one){
			time_later(row->attr.atime, row->attr.mtime), uses_object_of(row),
			is_kept };
	return r;
}

static int by_use(const void *a, const void *b)
{
	const struct one *x = a, *y = b;

	return time_is_after(x->used, y->used) - time_is_after(y->used, x->used);
}

static int by_fileid(const void *a, const void *b)
{
	uint64_t x = ((const struct one *)a)->object.fileid;
	uint64_t y = ((const struct one *)b)->object.fileid;

	return (x > y) - (x < y);
}

static int put(struct uses *u, const struct one *one)
{
	WITH_LOCK(&u->lock);
	int r = one->is_kept || is_told_id(u, one->object.fileid) ? 0 :
		policy_put(u->o.policy, &one->object);

	if (r == -ERANGE) {
		uses_complain(u, one->object.fileid, r);
		r = 0;
	}
	return r;
}

static int see_dir(void *arg, const struct index_dir *d)
{
	struct uses *u = arg;

	if (atomic_load(&u->stopped))
		return -ECANCELED;
	WITH_LOCK(&u->lock);
	return is_told_id(u, d->dir) ? 0 :
		dirs_put(u->dirs, d->dir, d->parent, dirs_quota_of(d->quota));
}

/* A change is told of before others can see it, and applied after that. So what has been seen by
 * now is applied when who was about to has ended. */
static void wait_for_end(struct uses *u)
{
	const struct timespec ms = { .tv_nsec = (long)NS_PER_MS };
	unsigned long ends = atomic_load(&u->ends);

	while (atomic_load(&u->is_told_of) && atomic_load(&u->ends) == ends)
		nanosleep(&ms, NULL);
}

/* By fileid, so that it is known at any moment whose pages are counted; some at a time. */
static int count_all(struct uses *u, struct all *all)
{
	int r = 0;

	wait_for_end(u);
	qsort(all->v, all->n, sizeof(*all->v), by_fileid);
	for (size_t i = 0; !r && i < all->n;) {
		WITH_LOCK(&u->lock);
		for (size_t n = 0; !r && n < COUNT_LOT && i < all->n; n++, i++) {
			const struct policy_object *o = &all->v[i].object;
			if (o->parent && o->pages && !is_told_id(u, o->fileid))
				r = dirs_add(u->dirs, o->parent, o->pages);
			u->counted = o->fileid;
		}
	}
	return r;
}

static int see_all(struct uses *u, struct index *ix)
{
	struct all all = { .uses = u };
	int r = index_all_dirs(ix, see_dir, u);

	if (!r)
		r = index_all_objects(ix, see, &all);
	if (!r && all.n)
		qsort(all.v, all.n, sizeof(*all.v), by_use);
	for (size_t i = 0; !r && i < all.n; i++)
		r = atomic_load(&u->stopped) ? -ECANCELED : put(u, &all.v[i]);
	if (!r && all.n)
		r = count_all(u, &all);
	free(all.v);
	return r;
}

/* What was noted meanwhile is counted, too. */
static void count_told(struct uses *u)
{
	struct told *t, *next;

	HASH_ITER(hh, u->told, t, next)
		if (t->pages)
			uses_complain(u, t->key.fileid, dirs_add(u->dirs, t->parent, t->pages));
}

int uses_fill(struct uses *u, struct index *ix)
{
	int r = see_all(u, ix);
	WITH_LOCK(&u->lock);

	count_told(u);
	dirs_count(u->dirs);
	u->is_filling = false;
	uses_forget_told(u);
	return r;
}

void uses_stop(struct uses *u)
{
	atomic_store(&u->stopped, true);
}
