/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's buddies (buddy.h) over memory of our own. First come, first served:
 * while somebody waits nobody takes, so a large buffer is not overtaken for ever by
 * small ones.
 */
#include "engine/staging.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/buddy.h"
#include "engine/rdma.h"
#include "index/index.h"

struct staging {
	struct lock lock;
	struct buddy buddy;
	struct slice *table;
	struct staging_wait *first, **last;
	uint32_t taken; /* pages */

	uint8_t *base;
	uint64_t bytes;
};

static uint32_t pages_of(size_t len)
{
	assert(len && len <= STAGING_MAX);
	return (uint32_t)((len + PAGE_BYTES - 1) / PAGE_BYTES);
}

void staging_free(struct staging *s)
{
	if (!s)
		return;
	assert(!s->taken && !s->first);
	if (s->base)
		munmap(s->base, s->bytes);
	free(s->table);
	lock_fini(&s->lock);
	free(s);
}
DEFINE_CLEANUP(struct staging *, staging_free)

static int map(struct staging *s, uint64_t bytes)
{
	uint32_t npages = (uint32_t)(bytes / PAGE_BYTES);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	s->base = p;
	s->bytes = bytes;
	madvise(p, bytes, MADV_HUGEPAGE); /* faster, where there are some */
	s->table = calloc(npages, sizeof(*s->table));
	if (!s->table)
		return -ENOMEM;
	buddy_init(&s->buddy, s->table, npages);
	return 0;
}

int staging_new(uint64_t bytes, struct staging **ret, char **ret_why)
{
	uint64_t top = (uint64_t)BUDDY_TOP_PAGES * PAGE_BYTES;

	if (!bytes || bytes % top || bytes / PAGE_BYTES > UINT32_MAX)
		return why(ret_why, -EINVAL, "buffers of %llu bytes: not a multiple of 4 MiB",
			   (unsigned long long)bytes);
	_cleanup_(staging_freep) struct staging *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	lock_init(&s->lock, LOCK_STAGING);
	s->last = &s->first;
	int r = map(s, bytes);
	if (r < 0)
		return why(ret_why, r, "no memory for %llu MiB of buffers",
			   (unsigned long long)bytes >> 20);
	*ret = steal(&s);
	return 0;
}

int staging_register(struct staging *s, struct rdma_dev *d, struct rdma_mem **ret,
		     char **ret_why)
{
	return rdma_mem_new(d, s->base, s->bytes, RDMA_MINE, ret, ret_why);
}

/* The lock is held. */
static void *take(struct staging *s, uint32_t npages)
{
	uint32_t page, n = buddy_take(&s->buddy, npages, &page);

	if (n < npages) {
		if (n)
			buddy_give(&s->buddy, page, page + n);
		return NULL;
	}
	s->taken += n;
	metric_add(M_STAGED, (int64_t)n * PAGE_BYTES);
	return s->base + (uint64_t)page * PAGE_BYTES;
}

void *staging_take(struct staging *s, size_t len)
{
	WITH_LOCK(&s->lock);
	return s->first ? NULL : take(s, pages_of(len));
}

/* Those at the head of the line for whom there is room, as a list. */
static struct staging_wait *serve(struct staging *s)
{
	struct staging_wait *served = s->first, **end = &served;

	while (*end && ((*end)->at = take(s, pages_of((*end)->len))))
		end = &(*end)->next;
	s->first = *end;
	*end = NULL;
	if (!s->first)
		s->last = &s->first;
	return served;
}

static void tell(struct staging_wait *list)
{
	lock_assert_none();
	for (struct staging_wait *next; list; list = next) {
		next = list->next;
		list->got(list, list->at);
	}
}

void staging_give(struct staging *s, void *at, size_t len)
{
	uint64_t off = (uint64_t)((uint8_t *)at - s->base);
	uint32_t page = (uint32_t)(off / PAGE_BYTES), n = pages_of(len);
	struct staging_wait *served;

	assert(off < s->bytes && !(off % PAGE_BYTES));
	{
		WITH_LOCK(&s->lock);
		assert(s->taken >= n);
		s->taken -= n;
		metric_add(M_STAGED, -(int64_t)n * PAGE_BYTES);
		buddy_give(&s->buddy, page, page + n);
		served = serve(s);
	}
	tell(served);
}

void staging_wait(struct staging *s, struct staging_wait *w)
{
	struct staging_wait *served;

	w->next = NULL;
	{
		WITH_LOCK(&s->lock);
		*s->last = w;
		s->last = &w->next;
		served = serve(s);
	}
	tell(served);
}

/* Takes w out of the line; false: it is not there. */
static bool leave(struct staging *s, struct staging_wait *w)
{
	struct staging_wait **p = &s->first;

	while (*p && *p != w)
		p = &(*p)->next;
	if (!*p)
		return false;
	*p = w->next;
	if (s->last == &w->next)
		s->last = p;
	return true;
}

bool staging_cancel(struct staging *s, struct staging_wait *w)
{
	struct staging_wait *served = NULL;
	bool found;

	{
		WITH_LOCK(&s->lock);
		found = leave(s, w);
		if (found)
			served = serve(s); /* who stood behind a large one may fit */
	}
	tell(served);
	return found;
}
