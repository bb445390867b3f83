/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting bytes into a file: see put.h. Five steps: plan (which page goes where;
 * slices are taken), fill (edge pages from below), transfer, sums, insert.
 *
 * Where pages go. Behind a slice that is written in place and ends where these
 * pages begin, into its room; else into a new slice. A writer that goes on where
 * the last one stopped gets slices that double up to 4 MiB, so that neither a
 * small file nor a long one wastes more than it uses, and sealing gives the room
 * back; any other gets just the pages it writes.
 *
 * Sums are taken here for blocks that one put writes whole, for one that a put begins (it
 * counts if the slice ends there, as with small files), and for the block
 * that a put completes if nobody else has been in that slice since: while they
 * are in the cache. What is missing is computed at seal, for which bytes that are
 * elsewhere have to be fetched. A put in place clears
 * the sums that it invalidates when it begins, and `epoch` tells who computed one
 * meanwhile that it is not to be believed.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/crash.h"
#include "common/metrics.h"
#include "engine/open.h"
#include "engine/xfer.h"

/* Plan ----------------------------------------------------------------------- */

static uint64_t put_end(const struct put *p)
{
	return p->off + p->len;
}

static int add_run(struct put *p, const struct put_run *run)
{
	if (p->nruns == p->cap) {
		uint32_t cap = p->cap * 4;
		struct put_run *v = malloc(cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		memcpy(v, p->runs, p->nruns * sizeof(*v));
		if (p->runs != p->few)
			free(p->runs);
		p->runs = v;
		p->cap = cap;
	}
	p->runs[p->nruns++] = *run;
	return 0;
}

/* A write begins in these pages of the slice: their sums are gone. */
static uint32_t hold_enter(struct hold *h, uint32_t off, uint32_t npages)
{
	for (uint32_t b = off / SUM_PAGES; b * SUM_PAGES < off + npages; b++) {
		h->valid &= ~(1ULL << b);
		map_hold_forget_tail(h, b);
	}
	return ++h->epoch;
}

static bool is_in_place(const struct hold *h)
{
	return h->writing && !h->ending;
}

static int add_in_place(struct put *p, const struct map_view *v, uint64_t page,
			uint64_t to)
{
	struct put_run run = {
		.page = page,
		.npages = (uint32_t)(to - page),
		.off = v->off + (uint32_t)(page - v->page),
		.hold = v->hold,
	};
	int r = node_is_lost(p->f->e->node, v->hold->id) ? -EIO : add_run(p, &run);

	if (r < 0)
		return r;
	map_hold_ref(v->hold);
	v->hold->busy++;
	p->runs[p->nruns - 1].epoch = hold_enter(v->hold, run.off, run.npages);
	return 0;
}

/* n pages of the slice behind what was given out; takes over the caller's pin. */
static int add_fresh(struct put *p, struct hold *h, uint64_t page, uint32_t n)
{
	struct put_run run = {
		.page = page, .npages = n, .off = h->used, .hold = h, .fresh = true,
	};
	int r = add_run(p, &run);

	if (r < 0)
		return r;
	map_hold_ref(h);
	h->busy++;
	h->used = (uint16_t)(h->used + n);
	p->runs[p->nruns - 1].epoch = hold_enter(h, run.off, n);
	return 0;
}

/* The slice in writing whose last given-out page is the file's page before
 * `page`: somebody writes on where he stopped. */
static struct hold *hold_before(struct put *p, uint64_t page)
{
	struct map_view v;

	if (p->nruns) {
		struct put_run *last = &p->runs[p->nruns - 1];
		if (last->page + last->npages == page)
			return last->off + last->npages == last->hold->used ?
				last->hold : NULL;
	}
	if (!page || !map_at(&p->f->map, page - 1, &v) || !is_in_place(v.hold))
		return NULL;
	return v.off + v.npages == v.hold->used && v.page + v.npages == page ?
		v.hold : NULL;
}

static int add_room(struct put *p, struct hold *h, uint64_t page, uint32_t n)
{
	if (node_is_lost(p->f->e->node, h->id))
		return -EIO;
	int r = node_pin(p->f->e->node, h->id);
	assert(!r);
	r = add_fresh(p, h, page, n);
	if (r < 0)
		node_unpin(p->f->e->node, h->id);
	return r;
}

static int add_slice(struct put *p, uint64_t page, uint32_t n, uint32_t want,
		     uint32_t *ret_n)
{
	struct engine *e = p->f->e;
	struct slice_id id;
	struct hold *h;
	uint32_t got;
	int r = node_alloc(e->node, want, &id, &got);

	if (r == NODE_FULL)
		return -ENOSPC;
	if (r == NODE_WAIT)
		p->want = want;
	if (r)
		return r;
	r = map_hold_new(&p->f->map, id, got, e->node->pool_id, true, &h);
	if (r < 0) {
		node_give_back(e->node, id);
		return r;
	}
	h->region = page / REGION_PAGES;
	*ret_n = n < got ? n : got;
	r = add_fresh(p, h, page, *ret_n);
	if (r < 0)
		node_give_back(e->node, id);
	map_hold_unref(&p->f->map, h);
	return r;
}

/* New slices for [page, to), which lies in one region. */
static int plan_fresh(struct put *p, uint64_t page, uint64_t to)
{
	uint32_t to_region = REGION_PAGES - (uint32_t)(page % REGION_PAGES);
	struct hold *h = hold_before(p, page);
	uint32_t grow = p->flags & PUT_MOVE ? p->ahead : h ? h->npages * 2u : 0;
	int r;

	if (h && page % REGION_PAGES && h->used < h->npages) {
		uint32_t room = h->npages - h->used, n = (uint32_t)(to - page);
		if (n > room)
			n = room;
		r = add_room(p, h, page, n);
		if (r < 0)
			return r;
		page += n;
		to_region -= n;
	}
	while (page < to) {
		uint32_t n = (uint32_t)(to - page);
		uint32_t want = grow > n ? grow : n;
		r = add_slice(p, page, n, want < to_region ? want : to_region, &n);
		if (r)
			return r;
		page += n;
		to_region -= n;
	}
	return 0;
}

/* The next stretch of pages from *page on that is treated alike. */
static int plan_step(struct put *p, uint64_t *page, uint64_t end)
{
	struct map_view v;
	bool any = map_next(&p->f->map, *page, &v);
	uint64_t from = *page, to = (from / REGION_PAGES + 1) * REGION_PAGES;
	bool covered = any && v.page <= from;

	if (to > end)
		to = end;
	if (covered && v.page + v.npages < to)
		to = v.page + v.npages;
	if (any && !covered && v.page < to)
		to = v.page;
	*page = to;
	if (covered ? p->flags & PUT_HOLES : p->flags & PUT_DATA)
		return 0;
	if (covered && is_in_place(v.hold) && !(p->flags & PUT_MOVE))
		return add_in_place(p, &v, from, to);
	/* One slice for all that follows and is to be new as well. */
	while (!(p->flags & (PUT_HOLES | PUT_DATA)) && to < end && to % REGION_PAGES) {
		uint64_t stop = (to / REGION_PAGES + 1) * REGION_PAGES;
		any = map_next(&p->f->map, to, &v);
		if (any && v.page <= to && is_in_place(v.hold) && !(p->flags & PUT_MOVE))
			break;
		if (any && v.page <= to)
			stop = v.page + v.npages;
		else if (any && v.page < stop)
			stop = v.page;
		to = stop < end ? stop : end;
	}
	*page = to;
	return plan_fresh(p, from, to);
}

/* Undoes what the plan took; under the file's lock. Slices are let go by
 * node_unpin(), or node_give_back() as long as nothing was transferred. */
static void put_undo(struct put *p, int (*let_go)(struct node *n, struct slice_id s))
{
	struct map *m = &p->f->map;

	while (p->nruns) {
		struct put_run *run = &p->runs[--p->nruns];
		struct hold *h = run->hold;
		h->busy--;
		if (run->fresh) {
			if (h->used == run->off + run->npages)
				h->used = (uint16_t)run->off;
			let_go(m->node, h->id);
		}
		map_hold_unref(m, h);
	}
}

static struct put_run *run_of(struct put *p, uint64_t page)
{
	for (uint32_t i = 0; i < p->nruns; i++)
		if (p->runs[i].page <= page && page < p->runs[i].page + p->runs[i].npages)
			return &p->runs[i];
	return NULL;
}

/* Is this page new and written in part? Then it is filled from below. */
static bool must_fill(struct put *p, uint64_t page, struct fetch *ret)
{
	struct put_run *run = run_of(p, page);
	struct map_view v;

	if (!run || !run->fresh)
		return false;
	*ret = (struct fetch){ 0 };
	if (!map_at(&p->f->map, page, &v))
		return true;
	ret->fileid = p->f->fileid;
	ret->hold = v.hold; /* our range keeps this page's extent in the map */
	ret->off = v.off + (uint32_t)(page - v.page);
	ret->npages = 1;
	ret->sealed = !v.hold->writing;
	return true;
}

/* Pages of the file's slices in writing that nothing was put into yet. */
static uint64_t room_of_its_own(const struct map *m)
{
	uint64_t n = 0;

	for (const struct hold *h = m->writing; h; h = h->next)
		n += h->npages - h->used;
	return n;
}

/* A large fallocate that cannot have what it needs does not take what there is, either: others
 * would be refused until it has found out. */
static bool is_too_much(const struct put *p, uint64_t page, uint64_t end)
{
	const struct map *m = &p->f->map;
	uint64_t nfree = node_nfree(p->f->e->node);

	return !p->buf && !(p->flags & (PUT_DATA | PUT_MOVE)) && end - page > nfree &&
	       map_missing(m, page, end) > nfree + room_of_its_own(m);
}

int put_reserve(struct map *to, const struct put_run *v, uint32_t n)
{
	uint32_t same = 0;
	int r = 0;

	for (uint32_t i = 0; !r && i < n; i += same) {
		uint64_t region = v[i].page / REGION_PAGES;
		for (same = 1; i + same < n && v[i + same].page / REGION_PAGES == region;)
			same++;
		r = map_reserve(to, v[i].page, same);
	}
	return r;
}

/* 0, NODE_WAIT or negative; of the latter two nothing remains. */
static int put_plan(struct put *p)
{
	struct file *f = p->f;
	uint64_t page = page_of(p->off), end = page_end(put_end(p));
	int r = 0;

	WITH_LOCK(&f->lock);
	if (is_too_much(p, page, end))
		return -ENOSPC;
	while (!r && page < end)
		r = plan_step(p, &page, end);
	if (!r)
		r = put_reserve(&f->map, p->runs, p->nruns);
	if (r) {
		put_undo(p, node_give_back);
		return r;
	}
	uint64_t first = page_of(p->off), last = page_of(put_end(p) - 1);
	bool head = p->off % PAGE_BYTES, tail = put_end(p) % PAGE_BYTES;
	if (head || (tail && first == last))
		p->fill_head = must_fill(p, first, &p->head);
	if (tail && first != last)
		p->fill_tail = must_fill(p, last, &p->tail);
	return 0;
}

/* Fill ----------------------------------------------------------------------- */

static void put_transfer(struct put *p);
static void put_finish(struct put *p, int r);

/* The part of this page that the put writes, over what is in `edge`. */
static void overlay(struct put *p, uint64_t page, uint8_t *edge)
{
	uint64_t from = page * PAGE_BYTES, to = from + PAGE_BYTES, at = 0;

	if (from < p->off) {
		at = p->off - from;
		from = p->off;
	}
	if (to > put_end(p))
		to = put_end(p);
	if (p->buf)
		memcpy(edge + at, p->buf + (from - p->off), to - from);
	else
		memset(edge + at, 0, to - from);
}

static void fill(struct put *p, struct fetch *t, uint64_t page, uint8_t *edge)
{
	if (t->ptr) {
		memcpy(edge, t->ptr, PAGE_BYTES);
		metric_add(M_COPIED_BYTES, PAGE_BYTES);
	} else {
		memset(edge, 0, PAGE_BYTES);
	}
	overlay(p, page, edge);
	fetch_end(t);
}

static void filled(struct fetch *t, int r)
{
	struct put *p = t->arg;

	if (r < 0)
		p->error = r;
	if (--p->fetching)
		return;
	r = p->error;
	p->error = 0;
	if (!r && p->fill_head)
		fill(p, &p->head, page_of(p->off), p->edges);
	if (!r && p->fill_tail)
		fill(p, &p->tail, page_of(put_end(p) - 1), p->edges + PAGE_BYTES);
	if (r < 0) {
		fetch_end(&p->head);
		fetch_end(&p->tail);
		put_finish(p, r);
		return;
	}
	put_transfer(p);
}

static void put_fill(struct put *p)
{
	struct engine *e = p->f->e;

	p->edges = malloc(2 * PAGE_BYTES);
	if (!p->edges) {
		put_finish(p, -ENOMEM);
		return;
	}
	p->head.arg = p->tail.arg = p;
	p->head.done = p->tail.done = filled;
	p->head.call = p->tail.call = p->call;
	/* One more than there are, so that the last one is ours to count. */
	bool head = p->fill_head && p->head.hold, tail = p->fill_tail && p->tail.hold;
	p->fetching = 1 + head + tail;
	if (head)
		fetch_start(e, &p->head);
	if (tail)
		fetch_start(e, &p->tail);
	struct fetch none = { .arg = p };
	filled(&none, 0);
}

/* Transfer ------------------------------------------------------------------- */

static unsigned put_capacity(const struct put *p)
{
	uint64_t n = p->len / XFER_RUN_MAX + 2;

	return (unsigned)(n + p->nruns * 3ULL);
}

static int add_bytes(struct put *p, struct batch *b, const struct put_run *run,
		     uint64_t from, uint64_t to)
{
	uint64_t at = (uint64_t)run->off * PAGE_BYTES + (from - run->page * PAGE_BYTES);

	if (p->buf)
		return batch_add(b, POST_WRITE, run->hold->id, at,
				 (void *)(p->buf + (from - p->off)), to - from);
	while (from < to) {
		uint64_t n = to - from < XFER_RUN_MAX ? to - from : XFER_RUN_MAX;
		int r = batch_add(b, POST_WRITE, run->hold->id, at, file_zeros, n);
		if (r < 0)
			return r;
		from += n;
		at += n;
	}
	return 0;
}

static int add_edge(struct batch *b, const struct put_run *run, uint64_t page,
		    uint8_t *edge)
{
	return batch_add(b, POST_WRITE, run->hold->id,
			 (run->off + (page - run->page)) * PAGE_BYTES, edge, PAGE_BYTES);
}

static int add_transfers(struct put *p, struct batch *b, const struct put_run *run)
{
	uint64_t first = page_of(p->off), last = page_of(put_end(p) - 1);
	uint64_t from = run->page * PAGE_BYTES, to = from + run->npages * (uint64_t)PAGE_BYTES;
	uint64_t last_of_run = run->page + run->npages - 1;
	int r = 0;

	if (from < p->off)
		from = p->off;
	if (to > put_end(p))
		to = put_end(p);
	if (p->fill_head && run->page == first) {
		r = add_edge(b, run, first, p->edges);
		from = (first + 1) * PAGE_BYTES;
	}
	if (!r && p->fill_tail && last_of_run == last) {
		r = add_edge(b, run, last, p->edges + PAGE_BYTES);
		to = last * PAGE_BYTES;
	}
	return r < 0 || from >= to ? r : add_bytes(p, b, run, from, to);
}

static void put_placed(void *arg, int r);

static void put_transfer(struct put *p)
{
	struct batch *b;
	int r = batch_new(p->f->e->transport, put_capacity(p), &b);

	for (uint32_t i = 0; !r && i < p->nruns; i++) {
		r = add_transfers(p, b, &p->runs[i]);
		if (r < 0)
			batch_free(b);
	}
	if (r < 0)
		put_finish(p, r);
	else
		batch_submit(b, p->call, put_placed, p);
}

/* Sums ----------------------------------------------------------------------- */

/* Of one run. */
struct summed {
	uint64_t mask;     /* of these blocks of the slice, */
	uint32_t tail;     /* and, not 0, of the begun one that ends with this page */
	uint64_t sums[64]; /* a slice has 64 blocks */
};

/* What has been written as these whole pages of the file. 0: a part is not known here. */
static unsigned written(const struct put *p, uint64_t at, uint64_t n, struct iovec v[3])
{
	uint64_t first = page_of(p->off), last = page_of(put_end(p) - 1), to = at + n;
	unsigned nv = 0;

	if (p->fill_head && page_of(at) == first) {
		v[nv++] = (struct iovec){ p->edges, PAGE_BYTES };
		at += PAGE_BYTES;
	}
	bool tail = at < to && p->fill_tail && page_of(to - 1) == last;
	if (tail)
		to -= PAGE_BYTES;
	if (at < to && (at < p->off || to > put_end(p)))
		return 0;
	if (at < to)
		v[nv++] = (struct iovec){
			(void *)(p->buf ? p->buf + (at - p->off) : file_zeros), to - at };
	if (tail)
		v[nv++] = (struct iovec){ p->edges + PAGE_BYTES, PAGE_BYTES };
	return nv;
}

/* Blocks that this run wrote from their beginning on, from the caller's bytes. */
static void sum_written(struct put *p, const struct put_run *run, struct summed *ret)
{
	uint32_t end = run->off + run->npages;

	for (uint32_t b = (run->off + SUM_PAGES - 1) / SUM_PAGES; b * SUM_PAGES < end; b++) {
		uint64_t page = run->page + (b * SUM_PAGES - run->off);
		struct iovec v[3];
		unsigned n = written(p, page * PAGE_BYTES, fetch_block_bytes(end, b), v);
		if (!n)
			continue; /* an edge page is in it, in place */
		ret->sums[b] = fetch_sum_of(v, n);
		if ((b + 1) * SUM_PAGES <= end)
			ret->mask |= 1ULL << b;
		else
			ret->tail = end;
	}
}

/* The block that this run completed, if nobody else is or was in the slice. */
static void sum_completed(struct put *p, const struct put_run *run, struct summed *ret)
{
	struct hold *h = run->hold;
	uint32_t end = run->off + run->npages, b = end / SUM_PAGES - 1;
	uint8_t *base;

	if (!run->fresh || end % SUM_PAGES || run->npages >= SUM_PAGES)
		return;
	{
		WITH_LOCK(&p->f->lock);
		if (h->busy != 1 || h->epoch != run->epoch)
			return;
	}
	base = fetch_map(p->f->e, h->id);
	if (!base)
		return;
	ret->sums[b] = fetch_sum(base + (uint64_t)b * SUM_PAGES * PAGE_BYTES,
				 SUM_PAGES * PAGE_BYTES);
	ret->mask = 1ULL << b;
}

/* Insert --------------------------------------------------------------------- */

/* The sums that this run has found become its slice's. */
static void take_sums(const struct put_run *run, const struct summed *s)
{
	struct hold *h = run->hold;
	bool alone = h->epoch == run->epoch;
	uint32_t begun = s->tail / SUM_PAGES;

	for (uint64_t left = s->mask; left; left &= left - 1) {
		int b = __builtin_ctzll(left);
		if (!alone && run->npages < SUM_PAGES)
			continue; /* completed, but somebody came */
		map_hold_forget_tail(h, (uint32_t)b);
		h->sums[b] = s->sums[b];
		h->valid |= 1ULL << b;
	}
	if (s->tail && !(h->valid >> begun & 1)) {
		h->sums[begun] = s->sums[begun];
		h->tail = (uint16_t)s->tail;
	}
}

/* A session that ended since the bytes were placed has taken them with it; one that ends
 * from here on finds them in the map (files_lost()). */
static bool any_lost(const struct put *p)
{
	for (uint32_t i = 0; i < p->nruns; i++)
		if (p->runs[i].fresh && node_is_lost(p->f->e->node, p->runs[i].hold->id))
			return true;
	return false;
}

static int put_insert(struct put *p, const struct summed *s)
{
	struct map *m = &p->f->map;
	int r = any_lost(p) ? -EIO : put_reserve(m, p->runs, p->nruns);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < p->nruns; i++) {
		struct put_run *run = &p->runs[i];
		struct hold *h = run->hold;
		if (s)
			take_sums(run, &s[i]);
		h->busy--;
		if (run->fresh) {
			map_cut(m, run->page, run->page + run->npages);
			map_insert(m, run->page, run->npages, h, run->off);
		}
		map_hold_unref(m, h);
	}
	p->nruns = 0;
	return 0;
}

static void put_finish(struct put *p, int r)
{
	if (r < 0) {
		WITH_LOCK(&p->f->lock);
		put_undo(p, node_unpin);
	}
	if (p->runs != p->few)
		free(p->runs);
	free(p->edges);
	p->done(p, r);
}

static void put_refused(struct put *p, int r)
{
	if (r == -ENOSPC && !(p->flags & PUT_MOVE))
		metric_add(M_POOL_FULL, 1);
	put_finish(p, r);
}

enum { SUM_RUNS = 4 }; /* beyond that many runs, sums wait for the seal */

static void put_placed(void *arg, int r)
{
	struct put *p = arg;
	struct summed s[SUM_RUNS];

	if (!r) {
		crash_point(CRASH_WRITE_COPIED);
		for (uint32_t i = 0; i < p->nruns && p->nruns <= SUM_RUNS; i++) {
			s[i].mask = s[i].tail = 0;
			sum_written(p, &p->runs[i], &s[i]);
			if (!s[i].mask)
				sum_completed(p, &p->runs[i], &s[i]);
		}
		WITH_LOCK(&p->f->lock);
		r = put_insert(p, p->nruns <= SUM_RUNS ? s : NULL);
	}
	put_finish(p, r);
}

static void put_begin(struct put *p);
static void put_full(struct put *p);

static void put_wanted(struct node_call *c, int r)
{
	struct put *p = (struct put *)((char *)c - offsetof(struct put, wanted));

	if (r == -ENOSPC)
		put_full(p);
	else if (r < 0)
		put_refused(p, r);
	else
		put_begin(p);
}

static void put_room(struct task *t)
{
	put_begin((struct put *)((char *)t - offsetof(struct put, room.task)));
}

static void put_evicted(struct task *t)
{
	struct put *p = (struct put *)((char *)t - offsetof(struct put, evicted.task));

	if (p->evicted.in_vain)
		put_refused(p, -ENOSPC);
	else
		put_begin(p);
}

/* What is about to be free counts as free, and what can be evicted, too (P7). */
static void put_full(struct put *p)
{
	struct engine *e = p->f->e;

	p->room.task.fn = put_room;
	p->evicted.task.fn = put_evicted;
	if (p->flags & PUT_MOVE) {
		put_refused(p, -ENOSPC);
		return;
	}
	if (drops_wait_room(&e->drops, p->drops_ended, &p->room))
		return;
	if (evict_makes_room(e->evict))
		evict_wait(e->evict, p->evictions, &p->evicted);
	else
		put_refused(p, -ENOSPC);
}

static void put_begin(struct put *p)
{
	struct engine *e = p->f->e;

	p->drops_ended = drops_ended(&e->drops);
	p->evictions = e->evict ? evict_number(e->evict) : 0;
	int r = put_plan(p);

	if (r == NODE_WAIT) {
		p->wanted = (struct node_call){ .of = p->call, .done = put_wanted };
		node_want(e->node, p->want, &p->wanted);
	} else if (r == -ENOSPC) {
		put_full(p);
	} else if (r < 0) {
		put_refused(p, r);
	} else if (!p->nruns) { /* nothing there, or nothing missing */
		put_finish(p, 0);
	} else {
		crash_point(CRASH_WRITE_ALLOCATED);
		if (p->fill_head || p->fill_tail)
			put_fill(p);
		else
			put_transfer(p);
	}
}

void put_start(struct put *p)
{
	p->runs = p->few;
	p->nruns = 0;
	p->cap = PUT_RUNS;
	p->edges = NULL;
	p->fill_head = p->fill_tail = false;
	p->error = 0;
	p->evicted = (struct evict_waiter){ 0 };
	put_begin(p);
}
