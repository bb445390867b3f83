/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A set of blocks (fileid, id), as a sorted array: filled, sorted once, then
 * asked (index/ only). One thread.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"

struct blockset_item {
	uint64_t fileid, id;
};

struct blockset {
	struct blockset_item *v;
	size_t n, cap;
};

static inline void blockset_fini(struct blockset *s)
{
	free(s->v);
	*s = (struct blockset){ 0 };
}

static inline int blockset_add(struct blockset *s, uint64_t fileid, uint64_t id)
{
	if (array_room(s->v, s->cap, s->n + 1, 64) < 0)
		return -ENOMEM;
	s->v[s->n++] = (struct blockset_item){ fileid, id };
	return 0;
}

/* All of `from` as well, which is empty then. -ENOMEM: nothing has moved. */
static inline int blockset_move(struct blockset *s, struct blockset *from)
{
	if (from->n && array_room(s->v, s->cap, s->n + from->n, 64) < 0)
		return -ENOMEM;
	if (from->n)
		memcpy(s->v + s->n, from->v, from->n * sizeof(*s->v));
	s->n += from->n;
	blockset_fini(from);
	return 0;
}

static inline int blockset_cmp(const void *a, const void *b)
{
	const struct blockset_item *x = a, *y = b;

	if (x->fileid != y->fileid)
		return x->fileid < y->fileid ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static inline void blockset_sort(struct blockset *s)
{
	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), blockset_cmp);
}

/* After blockset_sort(). */
static inline bool blockset_has(const struct blockset *s, uint64_t fileid, uint64_t id)
{
	struct blockset_item key = { fileid, id };

	return s->n && bsearch(&key, s->v, s->n, sizeof(key), blockset_cmp);
}
