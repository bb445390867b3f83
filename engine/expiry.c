/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A heap whose root ends first, and a table by fileid. A use does not move an object in the
 * heap: it is seen when its turn comes, and then it goes down to where it belongs by now.
 */
#include "engine/expiry.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/lock.h"
#include "common/table.h"

enum { IDLE_PLACES = 4096 };

struct item {
	struct expiry_end end;
	int64_t used; /* s */
	size_t at;    /* in the heap */
	UT_hash_handle hh;
};

struct expiry {
	struct lock lock;
	struct item **heap;
	size_t n, cap;
	struct item *table;
	/* How many a use is of interest to, by a hash of their fileids: all others need no lock. */
	atomic_uint idle[IDLE_PLACES];
};

static atomic_uint *idle_of(struct expiry *x, uint64_t fileid)
{
	return &x->idle[random_mix(fileid) % IDLE_PLACES];
}

static void count_idle(struct expiry *x, const struct expiry_end *end, unsigned n)
{
	if (end->idle)
		atomic_fetch_add(idle_of(x, end->fileid), n);
}

static void place_at(struct expiry *x, size_t i, struct item *t)
{
	x->heap[i] = t;
	t->at = i;
}

static void up(struct expiry *x, size_t i)
{
	struct item *t = x->heap[i];

	for (; i && x->heap[(i - 1) / 2]->end.at > t->end.at; i = (i - 1) / 2)
		place_at(x, i, x->heap[(i - 1) / 2]);
	place_at(x, i, t);
}

static void down(struct expiry *x, size_t i)
{
	struct item *t = x->heap[i];

	for (size_t child; (child = 2 * i + 1) < x->n; i = child) {
		if (child + 1 < x->n && x->heap[child + 1]->end.at < x->heap[child]->end.at)
			child++;
		if (x->heap[child]->end.at >= t->end.at)
			break;
		place_at(x, i, x->heap[child]);
	}
	place_at(x, i, t);
}

static struct item *find(struct expiry *x, uint64_t fileid)
{
	struct item *t;

	HASH_FIND(hh, x->table, &fileid, sizeof(fileid), t);
	return t;
}

/* It is the caller's then. */
static void leave(struct expiry *x, struct item *t)
{
	struct item *last = x->heap[--x->n];

	if (last != t) {
		place_at(x, t->at, last);
		down(x, last->at);
		up(x, last->at);
	}
	HASH_DEL(x->table, t);
	count_idle(x, &t->end, -1u);
}

static int enter(struct expiry *x, const struct expiry_end *end)
{
	struct item *t;

	if (array_room(x->heap, x->cap, x->n + 1, 64) < 0)
		return -ENOMEM;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->end = *end;
	t->used = end->used;
	HASH_ADD(hh, x->table, end.fileid, sizeof(t->end.fileid), t);
	count_idle(x, end, 1);
	place_at(x, x->n++, t);
	up(x, t->at);
	return 0;
}

int expiry_put(struct expiry *x, const struct expiry_end *end)
{
	WITH_LOCK(&x->lock);
	struct item *t = find(x, end->fileid);

	if (!t)
		return enter(x, end);
	count_idle(x, end, 1); /* first: at no time are there too few */
	count_idle(x, &t->end, -1u);
	t->end = *end;
	down(x, t->at);
	up(x, t->at);
	return 0;
}

int expiry_keep(struct expiry *x, const struct expiry_end *end)
{
	WITH_LOCK(&x->lock);

	return find(x, end->fileid) ? 0 : enter(x, end);
}

void expiry_remove(struct expiry *x, uint64_t fileid)
{
	WITH_LOCK(&x->lock);
	struct item *t = find(x, fileid);

	if (!t)
		return;
	leave(x, t);
	free(t);
}

void expiry_use(struct expiry *x, uint64_t fileid, int64_t now)
{
	if (!atomic_load(idle_of(x, fileid)))
		return;
	WITH_LOCK(&x->lock);
	struct item *t = find(x, fileid);

	if (t && t->end.idle && t->used < now)
		t->used = now;
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Its time, from its last use on; 0: none. */
static int64_t idle_end(const struct item *t)
{
	return t->end.idle && t->used ? t->used + t->end.idle : 0;
}

/* When it is its turn. */
static int64_t end_of(const struct item *t)
{
	return t->end.reason == EXPIRY_PIN ? t->end.at : later(t->end.at, idle_end(t));
}

int expiry_take(struct expiry *x, int64_t now, struct expiry_end *ret, int64_t *ret_at)
{
	WITH_LOCK(&x->lock);

	while (x->n) {
		struct item *t = x->heap[0];
		*ret_at = t->end.at;
		if (t->end.at > now)
			return INDEX_MISS;
		if (end_of(t) > now) { /* it was used */
			t->end.at = end_of(t);
			down(x, 0);
			continue;
		}
		leave(x, t);
		*ret = t->end;
		ret->used = t->used;
		free(t);
		return 0;
	}
	*ret_at = INT64_MAX;
	return INDEX_MISS;
}

int64_t expiry_at(struct expiry *x, uint64_t fileid)
{
	WITH_LOCK(&x->lock);
	struct item *t = find(x, fileid);

	if (!t || (t->end.reason == EXPIRY_PIN && (!t->end.then || t->end.at == KEEP_FOREVER)))
		return 0;
	return later(later(t->end.at, t->end.then), idle_end(t));
}

bool expiry_place(struct expiry *x, uint64_t fileid, struct place *ret)
{
	WITH_LOCK(&x->lock);
	struct item *t = find(x, fileid);

	if (t)
		*ret = t->end.place;
	return t;
}

uint64_t expiry_number(struct expiry *x)
{
	WITH_LOCK(&x->lock);

	return x->n;
}

int expiry_new(struct expiry **ret)
{
	struct expiry *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	lock_init(&x->lock, LOCK_EXPIRY);
	*ret = x;
	return 0;
}

void expiry_free(struct expiry *x)
{
	if (!x)
		return;
	HASH_CLEAR(hh, x->table);
	for (size_t i = 0; i < x->n; i++)
		free(x->heap[i]);
	free(x->heap);
	lock_fini(&x->lock);
	free(x);
}
