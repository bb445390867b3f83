/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing what a draft has written: the last look at slices before nothing in
 * them may change any more (I5). The caller holds all of the file, so the map
 * stands still; only readers come and go.
 *
 *	move    slices of which the file uses less than half are copied over, so
 *	        that a file never keeps more than about twice its pages alive. Only
 *	        in regions that changed, and at most MOVE_BYTES a time: a slice is
 *	        moved once half of it has been overwritten, so moving copies no
 *	        more than was written. And where a region is in more than
 *	        TIDY_EXTENTS pieces (a log that is synced after each line, a
 *	        database), up to TIDY_PAGES of them that follow each other are
 *	        brought together, since each publish writes the list of them.
 *	shrink  content of INDEX_INLINE_MAX bytes goes back into content[]
 *	seal    missing sums are computed; the node gives room back and seals all
 *
 * Moving is a favour: if it fails, the slice stays as it is.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/metrics.h"
#include "engine/open.h"

enum { MOVE_BYTES = 16 << 20, TIDY_EXTENTS = 128, TIDY_PAGES = 32, TIDY_MIN = 4 };

struct move {
	uint64_t page;
	uint32_t npages;
	uint32_t ahead; /* pages of the moves that go on behind this one, and its own */
};

struct sealing {
	struct hold *hold; /* a reference of ours */
	uint16_t npages;   /* before it was trimmed */
};

struct seal {
	struct work *w;
	void (*done)(struct work *w, int r);
	struct fetch fetch;
	struct sealing *holds; /* to be sealed */
	struct slice_run *runs;
	uint32_t nholds, at; /* which of them is being summed */
	uint64_t summed;   /* blocks of that one, beyond those that were valid */
	struct node_call call;
	bool asked;        /* the node to seal them */
	struct move *v;
	uint32_t n, cap, i;
	uint64_t moving;   /* bytes so far */
};

/* It was not sealed: its room is there as before. */
static void untrim(struct hold *h, uint16_t npages)
{
	if (h->npages != npages && h->npages % SUM_PAGES)
		h->valid &= ~(1ULL << (h->npages / SUM_PAGES));
	h->npages = npages;
}

static void seal_end(struct work *w, int r)
{
	struct seal *s = steal(&w->seal);
	void (*done)(struct work *w, int r) = s->done;

	fetch_end(&s->fetch);
	{
		WITH_LOCK(&w->f->lock);
		for (uint32_t i = 0; i < s->nholds; i++) {
			struct hold *h = s->holds[i].hold;
			if (h->writing)
				untrim(h, s->holds[i].npages);
			if (h->writing && s->asked)
				h->ending = true; /* it may be sealed */
			map_hold_unref(&w->f->map, h);
		}
	}
	free(s->holds);
	free(s->runs);
	free(s->v);
	free(s);
	done(w, r);
}

static void fetched(struct fetch *t, int r)
{
	struct work *w = t->arg;

	work_later(w, w->run, r);
}

/* Pages of the file, which lie in one extent. */
static void seal_fetch(struct work *w, struct hold *h, uint32_t off, uint32_t npages,
		       void (*run)(struct work *w, int r))
{
	w->run = run;
	w->seal->fetch = (struct fetch){
		.fileid = w->f->fileid, .hold = h, .off = off, .npages = npages, .sealed = !h->writing,
		.call = &w->op->call, .done = fetched, .arg = w,
	};
	fetch_start(w->f->e, &w->seal->fetch);
}

/* Seal ------------------------------------------------------------------------- */

static uint64_t missing_sums(const struct hold *h)
{
	uint32_t n = (h->npages + SUM_PAGES - 1u) / SUM_PAGES;
	uint64_t all = n == 64 ? UINT64_MAX : (1ULL << n) - 1;

	return all & ~h->valid;
}

/* Of these blocks; bytes: from block `first` on. */
static void add_sums(struct hold *h, uint64_t blocks, uint32_t first, const uint8_t *bytes)
{
	for (; blocks; blocks &= blocks - 1) {
		uint32_t b = (uint32_t)__builtin_ctzll(blocks);
		map_hold_forget_tail(h, b); /* should sealing fail */
		h->sums[b] = fetch_sum(bytes + (uint64_t)(b - first) * SUM_PAGES * PAGE_BYTES,
				       fetch_block_bytes(h->npages, b));
	}
}

/* Those of them that are in a row with the first one. */
static uint64_t first_row(uint64_t blocks)
{
	uint64_t lowest = blocks & -blocks, behind = blocks + lowest; /* carries over the row */

	return blocks & ~behind;
}

/* Pages of the slice up to the last one that an extent names, and how many
 * extents do. */
static uint32_t named_end(const struct map *m, const struct hold *h, uint32_t *ret_n)
{
	const struct region *g = map_region(m, h->region);
	uint32_t end = 0, n = 0;

	for (uint32_t i = 0; g && i < g->n; i++) {
		const struct ext *x = &g->v[i];
		if (x->hold != h)
			continue;
		n++;
		if (x->off + x->npages > (int)end)
			end = (uint32_t)x->off + x->npages;
	}
	*ret_n = n;
	return end;
}

/*
 * The slice ends with what was given out; and, if no reader has it pinned, with
 * what is still named. (New readers pin under the lock that we hold, and find named
 * pages only.) The node gives the room behind it back when it seals.
 */
static void trim(struct file *f, struct hold *h)
{
	uint32_t keep = h->used, n;
	struct slice_view v;

	if (h->pages < keep && !h->ending && node_peek(f->e->node, h->id, &v)) {
		uint32_t end = named_end(&f->map, h, &n);
		if (v.pins == n)
			keep = end;
	}
	h->used = (uint16_t)keep;
	uint64_t last = keep % SUM_PAGES ? 1ULL << (keep / SUM_PAGES) : 0;
	if (keep != h->npages) /* its last block is shorter now */
		h->valid &= ~last;
	h->npages = (uint16_t)keep;
	if (h->tail == keep)
		h->valid |= last;
}

/* The slices to seal, trimmed. Those without a page are a reader's, and not the
 * file's any more. */
static int collect_holds(struct file *f, struct seal *s)
{
	uint32_t n = 0;

	WITH_LOCK(&f->lock);
	for (struct hold *h = f->map.writing; h; h = h->next)
		n += h->pages > 0;
	if (!n)
		return 0;
	s->holds = calloc(n, sizeof(*s->holds));
	s->runs = calloc(n, sizeof(*s->runs));
	if (!s->holds || !s->runs)
		return -ENOMEM;
	for (struct hold *h = f->map.writing; h; h = h->next) {
		if (!h->pages)
			continue;
		s->holds[s->nholds] = (struct sealing){ map_hold_ref(h), h->npages };
		trim(f, h);
		s->runs[s->nholds++] = (struct slice_run){ h->id, h->npages };
	}
	return 0;
}

/* Nothing in them changes any more. */
static void sealed(struct node_call *c, int r)
{
	struct seal *s = (struct seal *)((char *)c - offsetof(struct seal, call));
	struct work *w = s->w;

	if (!r) {
		WITH_LOCK(&w->f->lock);
		for (uint32_t i = 0; i < s->nholds; i++) {
			struct hold *h = s->holds[i].hold;
			h->valid |= missing_sums(h);
			map_hold_sealed(&w->f->map, h);
		}
	}
	seal_end(w, r);
}

static void sum_next(struct work *w);

static void sum_fetched(struct work *w, int r)
{
	struct seal *s = w->seal;

	if (r < 0) {
		seal_end(w, r);
		return;
	}
	struct hold *h = s->holds[s->at].hold;
	uint64_t row = first_row(missing_sums(h) & ~s->summed);
	add_sums(h, row, (uint32_t)__builtin_ctzll(row), s->fetch.ptr);
	s->summed |= row;
	fetch_end(&s->fetch);
	sum_next(w);
}

/* Blocks without a sum are nearly always few among many: the last one of a file. */
static void fetch_row(struct work *w, struct hold *h, uint64_t row)
{
	uint32_t first = (uint32_t)__builtin_ctzll(row) * SUM_PAGES;
	uint32_t n = (uint32_t)__builtin_popcountll(row) * SUM_PAGES;

	if (n > h->npages - first)
		n = h->npages - first;
	seal_fetch(w, h, first, n, sum_fetched);
}

/* Missing sums, of one slice after the other; then all are sealed. */
static void sum_next(struct work *w)
{
	struct seal *s = w->seal;
	struct file *f = w->f;

	for (; s->at < s->nholds; s->at++, s->summed = 0) {
		struct hold *h = s->holds[s->at].hold;
		uint8_t *bytes = fetch_map(f->e, h->id);
		uint64_t left = missing_sums(h) & ~s->summed;
		if (!bytes && left) {
			fetch_row(w, h, first_row(left));
			return;
		}
		if (bytes)
			add_sums(h, left, 0, bytes);
	}
	s->asked = true;
	s->call = (struct node_call){ .of = &w->op->call, .done = sealed };
	node_seal(f->e->node, s->runs, s->nholds, &s->call);
}

static void seal_all(struct work *w)
{
	int r = collect_holds(w->f, w->seal);

	if (r < 0 || !w->seal->nholds)
		seal_end(w, r);
	else
		sum_next(w);
}

/* Shrink ------------------------------------------------------------------------ */

static void shrunk(struct work *w, int r)
{
	struct file *f = w->f;
	const uint8_t *bytes = w->seal->fetch.ptr;

	if (r < 0) {
		seal_end(w, r);
		return;
	}
	{
		WITH_LOCK(&f->lock);
		if (bytes)
			memcpy(f->content, bytes, f->attr.size);
		f->small = true;
		map_cut(&f->map, 0, UINT64_MAX);
	}
	fetch_end(&w->seal->fetch);
	seal_all(w);
}

static void seal_shrink(struct work *w, int r)
{
	struct file *f = w->f;
	struct map_view v;
	bool fits, any;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		any = map_at(&f->map, 0, &v);
		/* Nothing that was allocated beyond the end is given up. */
		fits = !f->small && f->attr.size <= INDEX_INLINE_MAX &&
		       f->map.npages == any && page_end(f->attr.size) >= any;
	}
	if (!fits)
		seal_all(w);
	else if (any)
		seal_fetch(w, v.hold, v.off, 1, shrunk);
	else
		shrunk(w, 0);
}

/* Move -------------------------------------------------------------------------- */

static uint32_t base_count(const struct region *g, struct slice_id id)
{
	uint32_t lo = 0, hi = g->nbase, n = 0;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (g->base[mid].page < id.page ||
		    (g->base[mid].page == id.page && g->base[mid].gen < id.gen))
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < g->nbase && g->base[lo].page == id.page && g->base[lo].gen == id.gen; lo++)
		n++;
	return n;
}

/* Nobody else uses it, as far as one can see. */
static bool is_alone(struct file *f, const struct region *g, const struct hold *h)
{
	struct slice_view v;

	return h->writing ||
	       (node_peek(f->e->node, h->id, &v) &&
		v.refs <= base_count(g, h->id) && v.pins <= h->refs);
}

static bool wasteful(struct file *f, const struct region *g, const struct hold *h)
{
	return h->pages * 2 < (h->writing ? h->used : h->npages) && is_alone(f, g, h);
}

static int add_move(struct seal *s, const struct region *g, const struct ext *x,
		    uint32_t ahead)
{
	if (array_room(s->v, s->cap, s->n + 1, 8) < 0)
		return -ENOMEM;
	s->v[s->n++] = (struct move){ g->index * REGION_PAGES + x->page, x->npages, ahead };
	s->moving += x->npages * (uint64_t)PAGE_BYTES;
	return 0;
}

/* The most extents in a row, without a hole, that are TIDY_PAGES together. */
static uint32_t find_tidy(const struct region *g, uint32_t *ret_n, uint32_t *ret_pages)
{
	uint32_t best = 0, best_at = 0, best_pages = 0, at = 0, pages = 0;

	for (uint32_t i = 0; i < g->n; i++) {
		if (i > at && g->v[i].page != g->v[i - 1].page + g->v[i - 1].npages) {
			at = i;
			pages = 0;
		}
		pages += g->v[i].npages;
		while (pages > TIDY_PAGES)
			pages -= g->v[at++].npages;
		if (i + 1 - at > best) {
			best = i + 1 - at;
			best_at = at;
			best_pages = pages;
		}
	}
	*ret_n = best;
	*ret_pages = best_pages;
	return best_at;
}

static int add_tidy(struct seal *s, struct file *f, const struct region *g)
{
	uint32_t n, pages, at = find_tidy(g, &n, &pages);
	int r = 0;

	if (n < TIDY_MIN)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		if (!is_alone(f, g, g->v[at + i].hold))
			return 0;
	for (uint32_t i = 0; !r && i < n; i++) {
		r = add_move(s, g, &g->v[at + i], pages);
		pages -= g->v[at + i].npages;
	}
	return r;
}

static int add_moves(struct seal *s, struct file *f, const struct region *g)
{
	uint32_t before = s->n;

	for (uint32_t i = 0; i < g->n && s->moving < MOVE_BYTES; i++) {
		const struct ext *x = &g->v[i];
		int r = wasteful(f, g, x->hold) ? add_move(s, g, x, 0) : 0;
		if (r < 0)
			return r;
	}
	if (g->n > TIDY_EXTENTS && s->n == before && s->moving < MOVE_BYTES)
		return add_tidy(s, f, g);
	return 0;
}

static void move_next(struct work *w, int r);

static void move_put(struct work *w, int r)
{
	struct seal *s = w->seal;

	if (!r)
		metric_add(M_COPIED_BYTES, s->v[s->i].npages * (int64_t)PAGE_BYTES);
	else
		s->i = s->n; /* no room, or no luck: no more of it */
	fetch_end(&s->fetch);
	s->i++;
	work_later(w, move_next, 0);
}

static void move_fetched(struct work *w, int r)
{
	struct seal *s = w->seal;

	if (r < 0) {
		move_put(w, r);
	} else {
		w->ahead = s->v[s->i].ahead;
		work_put(w, s->v[s->i].page * PAGE_BYTES, s->fetch.ptr,
			 s->v[s->i].npages * (uint64_t)PAGE_BYTES, PUT_MOVE, move_put);
	}
}

static void move_next(struct work *w, int r)
{
	struct seal *s = w->seal;
	struct map_view v;

	(void)r;
	if (s->i >= s->n) {
		seal_shrink(w, 0);
		return;
	}
	const struct move *mv = &s->v[s->i];
	bool there;
	{
		WITH_LOCK(&w->f->lock);
		there = map_at(&w->f->map, mv->page, &v);
	}
	assert(there && v.page + v.npages >= mv->page + mv->npages);
	seal_fetch(w, v.hold, v.off + (uint32_t)(mv->page - v.page), mv->npages, move_fetched);
}

/* ------------------------------------------------------------------------------- */

static bool seal_new(struct work *w, void (*done)(struct work *w, int r))
{
	w->seal = calloc(1, sizeof(*w->seal));
	if (!w->seal) {
		done(w, -ENOMEM);
		return false;
	}
	w->seal->w = w;
	w->seal->done = done;
	return true;
}

void seal_start(struct work *w, void (*done)(struct work *w, int r))
{
	struct file *f = w->f;

	if (!seal_new(w, done))
		return;
	{
		WITH_LOCK(&f->lock);
		for (uint32_t i = 0; i < f->map.n; i++)
			if (f->map.v[i]->changed && add_moves(w->seal, f, f->map.v[i]) < 0)
				w->seal->n = 0;
	}
	if (w->seal->n)
		move_next(w, 0);
	else
		seal_shrink(w, 0);
}

void seal_only(struct work *w, void (*done)(struct work *w, int r))
{
	if (seal_new(w, done))
		seal_all(w);
}
