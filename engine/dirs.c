/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dirs.h"

#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "common/table.h"

enum {
	DEPTH_MAX = 4096, /* of steps up: rows in any order may make a ring for a moment */
	COUNT_LOT = 250,  /* directories that are counted in one go */
};

struct dir {
	uint64_t fileid, parent; /* parent 0: heard of by what is in it only */
	int64_t pages;           /* of files in it */
	uint64_t quota;
	int64_t below;           /* pages of all below it that are counted, too; */
	uint32_t walk;           /* in that walk, and of those before nothing is true */
	bool is_counted;         /* its own pages are in that of all above it */
	uint64_t rests_ns;       /* not over until then */
	struct dir *prev, *next; /* of those that have a quota */
	UT_hash_handle hh;
};

struct dirs {
	struct dir *table, *quotas;
	bool is_whole;           /* all have been heard of */
	bool counts;             /* what is below each: while there are quotas */
	uint32_t walk;           /* which it is of those that counted all */
	struct dir *next;        /* is to be counted next; NULL: all are */
};

static struct dir *in_walk(const struct dirs *d, struct dir *x)
{
	if (x->walk != d->walk) {
		x->walk = d->walk;
		x->below = 0;
		x->is_counted = false;
	}
	return x;
}

static struct dir *find(const struct dirs *d, uint64_t fileid)
{
	struct dir *x;

	HASH_FIND(hh, d->table, &fileid, sizeof(fileid), x);
	return x;
}

static struct dir *find_or_new(struct dirs *d, uint64_t fileid)
{
	struct dir *x = find(d, fileid);

	if (x)
		return x;
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	x->fileid = fileid;
	x->walk = d->walk;
	x->is_counted = !d->next; /* or it comes to be the last one */
	HASH_ADD(hh, d->table, fileid, sizeof(x->fileid), x);
	return x;
}

static struct dir *above(const struct dirs *d, const struct dir *x)
{
	return x->parent && x->parent != x->fileid ? find(d, x->parent) : NULL;
}

static void add_above(struct dirs *d, struct dir *x, int64_t pages)
{
	for (unsigned i = 0; x && i < DEPTH_MAX; i++, x = above(d, x))
		in_walk(d, x)->below += pages;
}

bool dirs_is_counting(const struct dirs *d)
{
	return d->next;
}

bool dirs_count_more(struct dirs *d)
{
	for (unsigned i = 0; d->next && i < COUNT_LOT; i++) {
		struct dir *x = in_walk(d, d->next);
		if (!x->is_counted)
			add_above(d, x, x->pages);
		x->is_counted = true;
		d->next = x->hh.next;
	}
	return dirs_is_counting(d);
}

/* Begins with the first quota, and ends with the last one. */
static void count_if_wanted(struct dirs *d)
{
	bool wanted = d->quotas && d->is_whole;

	if (wanted == d->counts)
		return;
	d->counts = wanted;
	d->next = wanted ? d->table : NULL;
	d->walk++;
	dirs_count_more(d);
}

void dirs_count(struct dirs *d)
{
	d->is_whole = true;
	count_if_wanted(d);
}

int dirs_put(struct dirs *d, uint64_t dir, uint64_t parent, uint64_t quota)
{
	struct dir *x = find_or_new(d, dir);

	if (!x)
		return -ENOMEM;
	bool moves = d->counts && x->parent != parent, changes = !x->quota != !quota;
	if (moves)
		add_above(d, above(d, x), -in_walk(d, x)->below);
	if (changes && quota)
		DL_APPEND(d->quotas, x);
	else if (changes)
		DL_DELETE(d->quotas, x);
	x->parent = parent;
	x->quota = quota;
	if (moves)
		add_above(d, above(d, x), x->below);
	count_if_wanted(d);
	return 0;
}

void dirs_remove(struct dirs *d, uint64_t dir)
{
	struct dir *x = find(d, dir);

	if (!x)
		return;
	if (x->quota)
		DL_DELETE(d->quotas, x);
	if (d->next == x)
		d->next = x->hh.next;
	HASH_DEL(d->table, x);
	free(x);
	count_if_wanted(d);
}

int dirs_add(struct dirs *d, uint64_t dir, int64_t pages)
{
	struct dir *x = find_or_new(d, dir);

	if (!x)
		return -ENOMEM;
	x->pages += pages;
	if (d->counts && in_walk(d, x)->is_counted)
		add_above(d, x, pages);
	return 0;
}

bool dirs_have_quotas(const struct dirs *d)
{
	return d->quotas;
}

static uint64_t below(const struct dirs *d, const struct dir *x)
{
	return d->counts && x->walk == d->walk && x->below > 0 ? (uint64_t)x->below : 0;
}

uint64_t dirs_used(const struct dirs *d, uint64_t dir)
{
	struct dir *x = find(d, dir);

	return x && x->quota ? below(d, x) : 0;
}

static bool is_over(const struct dirs *d, const struct dir *x)
{
	return below(d, x) > x->quota;
}

uint64_t dirs_quotas(const struct dirs *d, uint64_t *ret_over)
{
	uint64_t n = 0, over = 0;
	struct dir *x;

	DL_FOREACH(d->quotas, x) {
		n++;
		over += is_over(d, x);
	}
	*ret_over = over;
	return n;
}

void dirs_rest(struct dirs *d, uint64_t dir, uint64_t until_ns)
{
	struct dir *x = find(d, dir);

	if (x)
		x->rests_ns = until_ns;
}

uint64_t dirs_over(const struct dirs *d, uint64_t after, uint64_t now_ns, uint64_t *ret_pages)
{
	struct dir *x = after ? find(d, after) : NULL;

	x = x && x->quota ? x->next : after ? NULL : d->quotas;
	for (; x; x = x->next) {
		if (!is_over(d, x) || now_ns < x->rests_ns)
			continue;
		*ret_pages = below(d, x) - x->quota;
		return x->fileid;
	}
	return 0;
}

bool dirs_is_below(const struct dirs *d, uint64_t dir, uint64_t which)
{
	struct dir *x = find(d, dir);

	for (unsigned i = 0; x && i < DEPTH_MAX; i++, x = above(d, x))
		if (x->fileid == which)
			return true;
	return false;
}

int dirs_new(struct dirs **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void dirs_free(struct dirs *d)
{
	struct dir *x, *next;

	if (!d)
		return;
	HASH_ITER(hh, d->table, x, next) {
		HASH_DEL(d->table, x);
		free(x);
	}
	free(d);
}
