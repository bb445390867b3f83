/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry a slice, in a hash table. An entry is there while the session has pins
 * on the slice or a span of it is in use; each pin and each use is one of the
 * pool's pins.
 */
#include "engine/holds.h"

#include <assert.h>
#include <errno.h>

#include "common/lock.h"
#include "common/table.h"
#include "index/index.h"

struct hold {
	struct slice_id slice;
	uint32_t npages;
	uint32_t pins;         /* the session's */
	uint32_t reads, writes; /* spans in use */
	uint64_t read_end;      /* no read in use goes further, bytes */
	bool is_writing;       /* allocated here, and not sealed yet */
	bool is_own;           /* allocated here */
	UT_hash_handle hh;
};

struct holds {
	struct pool *pool;
	struct lock lock;
	struct hold *table;
	uint32_t npins, max, nused;
};

int holds_new(struct pool *p, uint32_t max, struct holds **ret)
{
	struct holds *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	*h = (struct holds){ .pool = p, .max = max };
	lock_init(&h->lock, LOCK_HOLDS);
	*ret = h;
	return 0;
}

static struct hold *find(struct holds *h, struct slice_id s)
{
	struct hold *x;

	HASH_FIND(hh, h->table, &s, sizeof(s), x);
	return x;
}

static struct hold *add(struct holds *h, struct slice_id s, uint32_t npages)
{
	struct hold *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	*x = (struct hold){ .slice = s, .npages = npages };
	HASH_ADD(hh, h->table, slice, sizeof(x->slice), x);
	return x;
}

/* Gives one of the pool's pins back, and the entry if that was the last. */
static void let_go(struct holds *h, struct hold *x)
{
	int r = pool_unpin(h->pool, x->slice);

	assert(r == 0); /* I4: it was pinned until now */
	if (x->pins || x->reads || x->writes)
		return;
	HASH_DEL(h->table, x);
	free(x);
}

static void drop_pin(struct holds *h, struct hold *x)
{
	assert(x->pins);
	x->pins--;
	h->npins--;
	let_go(h, x);
}

void holds_free(struct holds *h)
{
	struct hold *x, *next;

	if (!h)
		return;
	assert(!h->nused); /* I6: sockets are closed before anything is freed */
	HASH_ITER(hh, h->table, x, next) {
		for (uint32_t n = x->pins; n; n--)
			drop_pin(h, x);
	}
	assert(!h->table && !h->npins);
	lock_fini(&h->lock);
	free(h);
}

uint32_t holds_npins(struct holds *h)
{
	WITH_LOCK(&h->lock);
	return h->npins;
}

uint32_t holds_nwriting(struct holds *h)
{
	WITH_LOCK(&h->lock);
	uint32_t n = 0;

	for (struct hold *x = h->table; x; x = x->hh.next)
		n += x->is_writing;
	return n;
}

/* Allocating and sealing ---------------------------------------------------------- */

static int alloc_one(struct holds *h, uint32_t npages, struct wire_item *ret)
{
	struct wire_item got;
	int r = pool_alloc(h->pool, npages, &got.slice, &got.pages);

	if (r)
		return r;
	struct hold *x = add(h, got.slice, got.pages);
	if (!x) {
		pool_unpin(h->pool, got.slice);
		return -ENOMEM;
	}
	x->pins = 1;
	x->is_writing = x->is_own = true;
	h->npins++;
	*ret = got;
	return 0;
}

int holds_alloc(struct holds *h, const struct wire_items *asked, struct wire_items *ret)
{
	struct wire_items m = { 0 };
	int r = 0;

	for (uint32_t i = 0; i < asked->n; i++)
		if (!asked->v[i].pages || asked->v[i].pages > SLICE_PAGES_MAX)
			return -EINVAL;
	WITH_LOCK(&h->lock);
	if (asked->n > h->max - h->npins)
		return -EAGAIN;
	m.v = calloc(asked->n ? asked->n : 1, sizeof(*m.v));
	if (!m.v)
		return -ENOMEM;
	while (!r && m.n < asked->n) {
		r = alloc_one(h, asked->v[m.n].pages, &m.v[m.n]);
		m.n += !r;
	}
	if (r < 0) {
		while (m.n)
			drop_pin(h, find(h, m.v[--m.n].slice));
		wire_items_fini(&m);
		return r;
	}
	*ret = m;
	return r;
}

static int seal_one(struct holds *h, const struct wire_item *w)
{
	struct hold *x = find(h, w->slice);

	if (!x || !x->pins || !x->is_own)
		return -ESTALE;
	if (!w->pages || w->pages > x->npages || (!x->is_writing && w->pages != x->npages))
		return -EINVAL;
	if (x->writes || (x->reads && w->pages * (uint64_t)PAGE_BYTES < x->read_end))
		return -EAGAIN; /* what it would lose is being used */
	if (w->pages < x->npages) {
		int r = pool_trim(h->pool, w->slice, w->pages);
		if (r < 0)
			return r;
		x->npages = w->pages;
	}
	int r = x->is_writing ? pool_seal(h->pool, w->slice) : 0;
	if (!r)
		x->is_writing = false;
	return r;
}

int holds_seal(struct holds *h, const struct wire_items *asked, struct wire_results *ret)
{
	struct wire_results m = { .n = asked->n };

	m.v = calloc(m.n ? m.n : 1, sizeof(*m.v));
	if (!m.v)
		return -ENOMEM;
	WITH_LOCK(&h->lock);
	for (uint32_t i = 0; i < m.n; i++)
		m.v[i] = wire_result(seal_one(h, &asked->v[i]));
	*ret = m;
	return 0;
}

/* Pins ----------------------------------------------------------------------------- */

/* A slice that is not in the table: pinned first, so that what is then seen of
 * it stays so; what is not LIVE is somebody's draft, or gone. */
static int pin_new(struct holds *h, const struct wire_item *w, struct hold **ret)
{
	struct slice_view v;
	int r = pool_pin(h->pool, w->slice);

	if (r < 0)
		return r;
	if (!pool_next(h->pool, w->slice.page, &v) || v.id.page != w->slice.page ||
	    v.state != SLICE_LIVE)
		r = -ESTALE;
	else if (w->pages != v.npages)
		r = -EINVAL;
	else if (!(*ret = add(h, w->slice, v.npages)))
		r = -ENOMEM;
	if (r < 0)
		pool_unpin(h->pool, w->slice);
	return r;
}

/* Its bytes come from before the node's start, and a block was never looked at. */
static bool is_unverified(struct holds *h, const struct hold *x)
{
	for (uint32_t b = 0; b * SUM_PAGES < x->npages; b++)
		if (pool_needs_verify(h->pool, x->slice, b))
			return true;
	return false;
}

static int pin_one(struct holds *h, const struct wire_item *w)
{
	struct hold *x = find(h, w->slice);
	int r;

	if (h->npins == h->max)
		return -EAGAIN;
	if (x && w->pages != x->npages)
		return -EINVAL;
	r = x ? pool_pin(h->pool, w->slice) : pin_new(h, w, &x);
	if (r < 0)
		return r;
	x->pins++;
	h->npins++;
	return is_unverified(h, x) ? WIRE_UNVERIFIED : 0;
}

int holds_pin(struct holds *h, const struct wire_pin *asked, struct wire_results *ret)
{
	const struct wire_items *items = &asked->items;
	struct wire_results m = { .v = calloc(items->n ? items->n : 1, sizeof(*m.v)) };

	if (!m.v)
		return -ENOMEM;
	WITH_LOCK(&h->lock);
	for (; m.n < items->n; m.n++) {
		int r = pin_one(h, &items->v[m.n]);
		if (r < 0 && !asked->each) {
			while (m.n)
				drop_pin(h, find(h, items->v[--m.n].slice));
			wire_results_fini(&m);
			return r;
		}
		m.v[m.n] = wire_result(r);
	}
	*ret = m;
	return 0;
}

int holds_unpin(struct holds *h, const struct wire_items *asked)
{
	WITH_LOCK(&h->lock);
	for (uint32_t i = 0; i < asked->n; i++) {
		struct hold *x = find(h, asked->v[i].slice);
		if (!x || !x->pins)
			return -EPROTO;
		drop_pin(h, x);
	}
	return 0;
}

/* Spans ----------------------------------------------------------------------------- */

int holds_use(struct holds *h, const struct wire_span *s, bool writes, void **ret)
{
	WITH_LOCK(&h->lock);
	struct hold *x = find(h, s->slice);

	if (!x || !x->pins || (writes && !x->is_writing))
		return -ESTALE;
	uint64_t bytes = (uint64_t)x->npages * PAGE_BYTES;
	if (!s->bytes || s->off > bytes || s->bytes > bytes - s->off)
		return -EINVAL;
	int r = pool_pin(h->pool, s->slice);
	if (r < 0)
		return r;
	if (!writes && (!x->reads || x->read_end < (uint64_t)s->off + s->bytes))
		x->read_end = (uint64_t)s->off + s->bytes;
	*(writes ? &x->writes : &x->reads) += 1;
	h->nused++;
	*ret = (uint8_t *)pool_page(h->pool, s->slice.page) + s->off;
	return 0;
}

void holds_unuse(struct holds *h, struct slice_id s, bool writes)
{
	WITH_LOCK(&h->lock);
	struct hold *x = find(h, s);

	assert(x && (writes ? x->writes : x->reads));
	*(writes ? &x->writes : &x->reads) -= 1;
	h->nused--;
	let_go(h, x);
}
