/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extent map: see map.h. The hard part is what must not fail: a write has
 * placed its bytes when its extents are inserted, so room for them is reserved
 * first (map_reserve()), and map_cut() and map_insert() have no error.
 *
 * Invariants (map_check()): regions and extents are sorted and do not overlap;
 * an extent lies inside its slice and, while the slice is written, below `used`;
 * a hold's `pages` and the map's `npages` are the sums of their extents; each
 * extent has one pin; a region that differs from its base is `changed`.
 */
#include <assert.h>
#include <errno.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "engine/map.h"

void map_init(struct map *m, struct node *n)
{
	*m = (struct map){ .node = n };
}

static void region_free(struct region *g)
{
	free(g->v);
	free(g->base);
	free(g->next);
	free(g);
}

void map_fini(struct map *m)
{
	map_cut(m, 0, UINT64_MAX);
	assert(!m->writing && !m->npages);
	for (uint32_t i = 0; i < m->n; i++)
		region_free(m->v[i]);
	free(m->v);
	*m = (struct map){ 0 };
}

/* Holds ---------------------------------------------------------------------- */

int map_hold_new(struct map *m, struct slice_id id, uint32_t npages,
		 uint64_t pool_id, bool writing, struct hold **ret)
{
	uint32_t nsums = (npages + SUM_PAGES - 1) / SUM_PAGES;
	struct hold *h = calloc(1, sizeof(*h) + nsums * sizeof(h->sums[0]));

	if (!h)
		return -ENOMEM;
	h->id = id;
	h->pool_id = pool_id;
	h->refs = 1;
	h->npages = (uint16_t)npages;
	h->writing = writing;
	if (writing) {
		h->next = m->writing;
		if (h->next)
			h->next->prev = h;
		m->writing = h;
	} else {
		h->used = h->npages;
	}
	*ret = h;
	return 0;
}

struct hold *map_hold_ref(struct hold *h)
{
	h->refs++;
	return h;
}

void map_hold_sealed(struct map *m, struct hold *h)
{
	if (!h->writing)
		return;
	h->writing = false;
	if (h->prev)
		h->prev->next = h->next;
	else
		m->writing = h->next;
	if (h->next)
		h->next->prev = h->prev;
	h->prev = h->next = NULL;
}

void map_hold_forget_tail(struct hold *h, uint32_t block)
{
	if (h->tail && (h->tail - 1U) / SUM_PAGES == block)
		h->tail = 0;
}

struct hold *map_hold_unref(struct map *m, struct hold *h)
{
	if (h && !--h->refs) {
		assert(!h->pages);
		map_hold_sealed(m, h);
		free(h);
	}
	return NULL;
}

/* Finding -------------------------------------------------------------------- */

uint32_t map_region_at(const struct map *m, uint64_t index)
{
	uint32_t lo = 0, hi = m->n;

	/* Most files grow at their end. */
	if (hi && m->v[hi - 1]->index < index)
		return hi;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (m->v[mid]->index < index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct region *map_region(const struct map *m, uint64_t index)
{
	uint32_t i = map_region_at(m, index);

	return i < m->n && m->v[i]->index == index ? m->v[i] : NULL;
}

/* The first extent of g that ends behind `page` (counted in the region). */
static uint32_t region_find(const struct region *g, uint32_t page)
{
	uint32_t lo = 0, hi = g->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if ((uint32_t)g->v[mid].page + g->v[mid].npages <= page)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void view_of(const struct region *g, const struct ext *x,
		    struct map_view *ret)
{
	*ret = (struct map_view){
		.page = g->index * REGION_PAGES + x->page,
		.npages = x->npages,
		.off = x->off,
		.hold = x->hold,
	};
}

bool map_next(const struct map *m, uint64_t page, struct map_view *ret)
{
	uint64_t index = page / REGION_PAGES;

	for (uint32_t i = map_region_at(m, index); i < m->n; i++) {
		const struct region *g = m->v[i];
		uint32_t k = g->index == index ?
			region_find(g, (uint32_t)(page % REGION_PAGES)) : 0;
		if (k < g->n) {
			view_of(g, &g->v[k], ret);
			return true;
		}
	}
	return false;
}

bool map_at(const struct map *m, uint64_t page, struct map_view *ret)
{
	struct region *g = map_region(m, page / REGION_PAGES);
	uint32_t in = (uint32_t)(page % REGION_PAGES);

	if (!g)
		return false;
	uint32_t k = region_find(g, in);
	if (k >= g->n || g->v[k].page > in)
		return false;
	view_of(g, &g->v[k], ret);
	return true;
}

uint64_t map_missing(const struct map *m, uint64_t page, uint64_t end)
{
	uint64_t missing = end - page;
	struct map_view v;

	for (uint64_t at = page; map_next(m, at, &v) && v.page < end; at = v.page + v.npages) {
		uint64_t from = v.page > page ? v.page : page, to = v.page + v.npages;
		missing -= (to < end ? to : end) - from;
	}
	return missing;
}

/* Room ----------------------------------------------------------------------- */

static int region_reserve(struct region *g, uint32_t n)
{
	uint32_t need = g->n + n;

	if (need > REGION_PAGES)
		need = REGION_PAGES;
	return array_room(g->v, g->cap, need, 1);
}

static int region_get(struct map *m, uint64_t index, struct region **ret)
{
	uint32_t i = map_region_at(m, index);

	if (i < m->n && m->v[i]->index == index) {
		*ret = m->v[i];
		return 0;
	}
	if (array_room(m->v, m->cap, m->n + 1, 1) < 0)
		return -ENOMEM;
	struct region *g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->index = index;
	memmove(m->v + i + 1, m->v + i, (m->n - i) * sizeof(*m->v));
	m->v[i] = g;
	m->n++;
	*ret = g;
	return 0;
}

int map_reserve(struct map *m, uint64_t page, uint32_t n)
{
	struct region *g;
	int r = region_get(m, page / REGION_PAGES, &g);

	return r < 0 ? r : region_reserve(g, n + 1);
}

int map_reserve_cut(struct map *m, uint64_t page, uint64_t end)
{
	struct region *g = map_region(m, page / REGION_PAGES);

	/* Only a cut inside of one extent leaves more extents than before. */
	if (!g || page / REGION_PAGES != (end - 1) / REGION_PAGES)
		return 0;
	return region_reserve(g, 1);
}

/* Changing ------------------------------------------------------------------- */

static void ext_unpin(struct map *m, struct hold *h)
{
	int r = node_unpin(m->node, h->id);

	assert(!r);
	map_hold_unref(m, h);
}

static void region_cut(struct map *m, struct region *g, uint32_t from, uint32_t to)
{
	uint32_t i = region_find(g, from), gone = 0;

	if (i < g->n && g->v[i].page < from) {
		struct ext *x = &g->v[i];
		uint32_t end = (uint32_t)x->page + x->npages;
		uint32_t cut_to = end < to ? end : to;

		g->changed = true;
		x->hold->pages -= cut_to - from;
		m->npages -= cut_to - from;
		if (end > to) { /* a hole in its middle: one extent more */
			assert(g->n < g->cap);
			memmove(x + 2, x + 1, (g->n - i - 1) * sizeof(*x));
			g->n++;
			x[1] = (struct ext){ .hold = map_hold_ref(x->hold),
				.page = (uint16_t)to, .npages = (uint16_t)(end - to),
				.off = (uint16_t)(x->off + (to - x->page)) };
			int r = node_pin(m->node, x->hold->id);
			assert(!r);
		}
		x->npages = (uint16_t)(from - x->page);
		i++;
	}
	while (i + gone < g->n && g->v[i + gone].page < to) {
		struct ext *x = &g->v[i + gone];
		uint32_t end = (uint32_t)x->page + x->npages;
		uint32_t n = (end < to ? end : to) - x->page;

		g->changed = true;
		x->hold->pages -= n;
		m->npages -= n;
		if (end > to) {
			x->off = (uint16_t)(x->off + n);
			x->page = (uint16_t)to;
			x->npages = (uint16_t)(x->npages - n);
			break;
		}
		ext_unpin(m, x->hold);
		gone++;
	}
	if (gone) {
		memmove(g->v + i, g->v + i + gone, (g->n - i - gone) * sizeof(*g->v));
		g->n = (uint16_t)(g->n - gone);
	}
}

void map_cut(struct map *m, uint64_t page, uint64_t end)
{
	for (uint32_t i = map_region_at(m, page / REGION_PAGES); i < m->n; i++) {
		struct region *g = m->v[i];
		uint64_t base = g->index * REGION_PAGES;

		if (base >= end)
			break;
		uint64_t from = page > base ? page - base : 0;
		uint64_t to = end - base < REGION_PAGES ? end - base : REGION_PAGES;
		region_cut(m, g, (uint32_t)from, (uint32_t)to);
	}
}

/* b goes on where a ends, in the file and in the slice, which two holds may stand
 * for (after a copy within the file). */
static bool ext_continues(const struct ext *a, const struct ext *b)
{
	return a->page + a->npages == b->page && a->off + a->npages == b->off &&
	       a->hold->id.page == b->hold->id.page && a->hold->id.gen == b->hold->id.gen;
}

/* Both are of one sealed slice; each may know the blocks only that its extents
 * touch. */
static void take_sums(struct hold *to, const struct hold *from)
{
	for (uint64_t left = from->valid & ~to->valid; left; left &= left - 1) {
		int b = __builtin_ctzll(left);
		to->sums[b] = from->sums[b];
	}
	to->valid |= from->valid;
}

/* Joins g->v[i] and g->v[i + 1] if they are one run. */
static bool region_join(struct map *m, struct region *g, uint32_t i)
{
	struct ext *x = &g->v[i];

	if (i + 1 >= g->n || !ext_continues(x, x + 1))
		return false;
	if (x->hold != x[1].hold)
		take_sums(x->hold, x[1].hold);
	x->npages = (uint16_t)(x->npages + x[1].npages);
	x->hold->pages += x[1].npages;
	x[1].hold->pages -= x[1].npages;
	ext_unpin(m, x[1].hold);
	g->n--;
	memmove(x + 1, x + 2, (g->n - i - 1) * sizeof(*x));
	return true;
}

/* Returns where in its region. */
static uint32_t insert(struct map *m, uint64_t page, uint32_t npages, struct hold *h,
		       uint32_t off)
{
	struct region *g = map_region(m, page / REGION_PAGES);
	uint32_t in = (uint32_t)(page % REGION_PAGES);

	assert(g && g->n < g->cap && npages && in + npages <= REGION_PAGES);
	assert(off + npages <= h->used);
	uint32_t i = region_find(g, in);
	assert(i == g->n || g->v[i].page >= in + npages);
	memmove(g->v + i + 1, g->v + i, (g->n - i) * sizeof(*g->v));
	g->v[i] = (struct ext){ .hold = map_hold_ref(h), .page = (uint16_t)in,
		.npages = (uint16_t)npages, .off = (uint16_t)off };
	g->n++;
	g->changed = true;
	h->pages += npages;
	m->npages += npages;
	return i;
}

void map_insert(struct map *m, uint64_t page, uint32_t npages, struct hold *h,
		uint32_t off)
{
	struct region *g = map_region(m, page / REGION_PAGES);
	uint32_t i = insert(m, page, npages, h, off);

	region_join(m, g, i);
	if (i)
		region_join(m, g, i - 1);
}

void map_load(struct map *m, uint64_t page, uint32_t npages, struct hold *h,
	      uint32_t off)
{
	insert(m, page, npages, h, off);
}

/* What is published ---------------------------------------------------------- */

static int by_slice(const void *a, const void *b)
{
	const struct slice_id *x = a, *y = b;

	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

static int region_slices(struct region *g)
{
	free(g->next);
	g->next = malloc((g->n ? g->n : 1) * sizeof(*g->next));
	if (!g->next)
		return -ENOMEM;
	for (uint32_t i = 0; i < g->n; i++)
		g->next[i] = g->v[i].hold->id;
	g->nnext = g->n;
	qsort(g->next, g->n, sizeof(*g->next), by_slice);
	return 0;
}

int map_publishing(struct map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct region *g = m->v[i];
		if (!g->changed)
			continue;
		int r = region_slices(g);
		if (r < 0) {
			map_unpublished(m);
			return r;
		}
	}
	return 0;
}

void map_published(struct map *m)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->n; i++) {
		struct region *g = m->v[i];
		if (g->changed) {
			free(g->base);
			g->base = steal(&g->next);
			g->nbase = g->nnext;
			g->changed = false;
		}
		g->block = g->next_block;
		if (!g->n && !g->nbase)
			region_free(g);
		else
			m->v[kept++] = g;
	}
	m->n = kept;
}

void map_unpublished(struct map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct region *g = m->v[i];
		free(steal(&g->next));
		g->next_block = g->block;
	}
}

void map_forget_blocks(struct map *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		m->v[i]->block = m->v[i]->next_block = 0;
}

int map_loaded(struct map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct region *g = m->v[i];
		int r = region_slices(g);
		if (r < 0)
			return r;
		g->next_block = g->block;
		g->changed = true;
	}
	map_published(m);
	return 0;
}

int map_extents(const struct map *m, uint32_t from, uint32_t to,
		struct extents *ret)
{
	for (uint32_t i = from; i < to; i++) {
		const struct region *g = m->v[i];
		if (array_room(ret->v, ret->cap, ret->n + g->n, 0) < 0)
			return -ENOMEM;
		for (uint32_t k = 0; k < g->n; k++) {
			const struct ext *x = &g->v[k];
			struct hold *h = x->hold;
			ret->v[ret->n++] = (struct extent){
				.pool_id = h->pool_id,
				.page = g->index * REGION_PAGES + x->page,
				.slice = h->id.page,
				.gen = h->id.gen,
				.npages = x->npages,
				.slice_pages = h->npages,
				.slice_off = x->off,
				.sums = h->sums + x->off / SUM_PAGES,
			};
		}
	}
	return 0;
}
