/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/pool.c and buddy.c: a random walk against a model that is an array of
 * what each page should be, with pool_check() after each step; the same from
 * several threads; what happens when the pool is full, chopped up or adopted.
 * SEED=n repeats a walk.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/pool.h"
#include "index/index.h"
#include "tests/unit/ranges.h"
#include "tests/unit/refs_kit.h"

static struct pool *open_pool(uint32_t npages)
{
	struct pool_opts o = { .bytes = (uint64_t)npages * PAGE_BYTES };
	struct pool *p = NULL;

	assert_int_equal(pool_open(&o, &p), 0);
	return p;
}

static void assert_sound(struct pool *p)
{
	struct writer w = { 0 };
	int bad = pool_check(p, &w);

	if (bad)
		fail_msg("%d violations:\n%.*s", bad, (int)w.len, w.p);
	writer_fini(&w);
}

static void assert_idle(void)
{
	int64_t n = 0;
	const char *busy = metrics_busy(&n);

	if (busy)
		fail_msg("%s is %lld", busy, (long long)n);
}

/* The model -------------------------------------------------------------------- */

struct held {
	struct slice_id id;
	uint32_t npages, pins, refs;
	enum slice_state state;
};

struct model {
	struct pool *pool;
	uint64_t random;
	struct held *v;
	size_t n, cap;
	struct slice_id *gone; /* ids that must be dead */
	size_t ngone;
	uint8_t *used;
};

enum { GONE = 64 };

static uint32_t below(struct model *m, uint32_t n)
{
	return (uint32_t)(random_next(&m->random) % n);
}

static void model_init(struct model *m, struct pool *p, uint64_t seed)
{
	*m = (struct model){ .pool = p, .random = seed };
	m->gone = calloc(GONE, sizeof(*m->gone));
	m->used = calloc(pool_npages(p), 1);
}

static void model_fini(struct model *m)
{
	free(m->v);
	free(m->gone);
	free(m->used);
}

static void set_used(struct model *m, uint32_t page, uint32_t npages, bool used)
{
	for (uint32_t i = page; i < page + npages; i++) {
		assert_int_equal(m->used[i], !used);
		m->used[i] = used;
	}
}

static void model_add(struct model *m, struct held h)
{
	if (m->n == m->cap)
		m->v = realloc(m->v, (m->cap = m->cap * 2 + 16) * sizeof(*m->v));
	m->v[m->n++] = h;
	set_used(m, h.id.page, h.npages, true);
}

/* After pins or refs changed: the same rule in the model's own words. */
static void model_settle(struct model *m, size_t i)
{
	struct held *h = &m->v[i];

	if (h->pins || h->refs) {
		if (h->state == SLICE_LIVE && !h->refs)
			h->state = SLICE_DYING;
		return;
	}
	set_used(m, h->id.page, h->npages, false);
	m->gone[m->ngone++ % GONE] = h->id;
	*h = m->v[--m->n];
}

static void assert_same(struct model *m)
{
	struct slice_view v;
	size_t seen = 0;
	uint32_t used = 0;

	for (uint32_t page = 0; pool_next(m->pool, page, &v); page = v.id.page + v.npages) {
		size_t i = 0;
		while (i < m->n && m->v[i].id.page != v.id.page)
			i++;
		assert_true(i < m->n);
		assert_int_equal(m->v[i].id.gen, v.id.gen);
		assert_int_equal(m->v[i].npages, v.npages);
		assert_int_equal(m->v[i].pins, v.pins);
		assert_int_equal(m->v[i].refs, v.refs);
		assert_int_equal(m->v[i].state, v.state);
		used += v.npages;
		seen++;
	}
	assert_int_equal(seen, m->n);
	assert_int_equal(pool_nfree(m->pool), pool_npages(m->pool) - used);
}

static void step_alloc(struct model *m)
{
	uint32_t want = below(m, 3) ? 1 + below(m, 40) : 1 + below(m, SLICE_PAGES_MAX), n = 0;
	uint32_t free_before = pool_nfree(m->pool);
	struct slice_id s;
	int r = pool_alloc(m->pool, want, &s, &n);

	if (!free_before) {
		assert_int_equal(r, POOL_FULL);
		return;
	}
	assert_int_equal(r, 0); /* never fails while a page is free */
	assert_uint_in_range(n, 1, want);
	assert_int_not_equal(s.gen, 0);
	model_add(m, (struct held){ s, n, 1, 0, SLICE_WRITING });
}

static void step_trim(struct model *m, struct held *h)
{
	uint32_t to = below(m, h->npages + 2);
	int r = pool_trim(m->pool, h->id, to);

	if (h->state != SLICE_WRITING || !to || to > h->npages) {
		assert_int_equal(r, -EINVAL);
		return;
	}
	assert_int_equal(r, 0);
	set_used(m, h->id.page + to, h->npages - to, false);
	h->npages = to;
}

static void step_seal(struct model *m, struct held *h)
{
	bool may = h->state == SLICE_WRITING || h->state == SLICE_SEALED;

	assert_int_equal(pool_seal(m->pool, h->id), may ? 0 : -EINVAL);
	if (may)
		h->state = SLICE_SEALED;
}

static void step_refs(struct model *m, size_t i)
{
	struct held *h = &m->v[i];
	int n = (int)below(m, 5) - 2;
	int r = add_refs(m->pool, h->id, n);

	if ((n > 0 && h->state == SLICE_WRITING) || (int)h->refs + n < 0) {
		assert_int_equal(r, -EINVAL);
		return;
	}
	assert_int_equal(r, 0);
	h->refs += (uint32_t)n;
	if (n > 0)
		h->state = SLICE_LIVE;
	if (n)
		model_settle(m, i);
}

static void step_unpin(struct model *m, size_t i)
{
	struct held *h = &m->v[i];

	assert_int_equal(pool_unpin(m->pool, h->id), h->pins ? 0 : -EINVAL);
	if (h->pins) {
		h->pins--;
		model_settle(m, i);
	}
}

/* I3: an id that was freed finds nothing, whoever has the page now. */
static void step_stale(struct model *m)
{
	size_t n = m->ngone < GONE ? m->ngone : GONE;
	struct slice_id s = { pool_npages(m->pool) + below(m, 100), 1 };

	if (n && below(m, 10))
		s = m->gone[below(m, (uint32_t)n)];
	assert_int_equal(pool_pin(m->pool, s), -ESTALE);
	assert_int_equal(pool_unpin(m->pool, s), -ESTALE);
	assert_int_equal(pool_seal(m->pool, s), -ESTALE);
	assert_int_equal(pool_trim(m->pool, s, 1), -ESTALE);
	assert_int_equal(add_refs(m->pool, s, 1), -ESTALE);
	assert_null(pool_span(m->pool, s, 0, 1));
}

static void step_span(struct model *m, const struct held *h)
{
	uint64_t bytes = (uint64_t)h->npages * PAGE_BYTES;
	uint64_t off = below(m, (uint32_t)bytes + 2), len = below(m, (uint32_t)bytes + 2);
	uint8_t *p = pool_span(m->pool, h->id, off, len);

	if (off + len > bytes)
		assert_null(p);
	else
		assert_ptr_equal(p, (uint8_t *)pool_page(m->pool, h->id.page) + off);
	assert_null(pool_span(m->pool, h->id, UINT64_MAX, 2));
}

static void step(struct model *m)
{
	uint32_t what = below(m, 100);
	size_t i = m->n ? below(m, (uint32_t)m->n) : 0;

	if (what < 25 || !m->n) {
		step_alloc(m);
	} else if (what < 35) {
		step_trim(m, &m->v[i]);
	} else if (what < 45) {
		assert_int_equal(pool_pin(m->pool, m->v[i].id), 0);
		m->v[i].pins++;
	} else if (what < 65) {
		step_unpin(m, i);
	} else if (what < 75) {
		step_seal(m, &m->v[i]);
	} else if (what < 90) {
		step_refs(m, i);
	} else if (what < 95) {
		step_stale(m);
	} else {
		step_span(m, &m->v[i]);
	}
}

static void let_go(struct model *m)
{
	while (m->n) {
		struct held h = m->v[m->n - 1];
		for (uint32_t i = 0; i < h.pins; i++)
			assert_int_equal(pool_unpin(m->pool, h.id), 0);
		if (h.refs)
			assert_int_equal(add_refs(m->pool, h.id, -(int)h.refs), 0);
		assert_int_equal(pool_unpin(m->pool, h.id), -ESTALE);
		m->n--;
	}
}

static void walk(uint64_t seed, uint32_t npages, unsigned steps)
{
	struct pool *p = open_pool(npages);
	struct model m;

	print_message("SEED=%llu\n", (unsigned long long)seed);
	model_init(&m, p, seed);
	for (unsigned i = 0; i < steps; i++) {
		step(&m);
		assert_sound(p);
		assert_same(&m);
	}
	let_go(&m);
	assert_sound(p);
	assert_int_equal(pool_nfree(p), npages);
	model_fini(&m);
	pool_close(p);
}

static void random_walk_matches_the_model(void **state)
{
	const char *seed = getenv("SEED");

	(void)state;
	if (seed) {
		walk(strtoull(seed, NULL, 0), 4096, 5000);
		return;
	}
	for (uint64_t i = 1; i <= 4; i++)
		walk(i, (uint32_t)i * 1024, 2500);
	walk(clock_ns(), 2048, 2500);
	assert_idle();
}

/* Space ---------------------------------------------------------------------------- */

static void free_space_is_always_usable(void **state)
{
	enum { PAGES = 2048 };
	struct pool *p = open_pool(PAGES);
	struct slice_id *s = calloc(PAGES, sizeof(*s)), big;
	uint32_t n = 0, got = 0;

	(void)state;
	for (uint32_t i = 0; i < PAGES; i++)
		assert_int_equal(pool_alloc(p, 1, &s[i], &n), 0);
	assert_int_equal(pool_alloc(p, 1, &big, &n), POOL_FULL);
	/* every other page: the worst there is */
	for (uint32_t i = 0; i < PAGES; i++)
		if (s[i].page % 2)
			assert_int_equal(pool_unpin(p, s[i]), 0);
	assert_sound(p);
	struct slice_id *t = calloc(PAGES, sizeof(*t));
	while (!pool_alloc(p, SLICE_PAGES_MAX, &t[got], &n)) {
		assert_int_equal(n, 1);
		got++;
	}
	assert_int_equal(got, PAGES / 2);
	assert_int_equal(pool_nfree(p), 0);
	for (uint32_t i = 0; i < got; i++)
		assert_int_equal(pool_unpin(p, t[i]), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		if (s[i].page % 2 == 0)
			assert_int_equal(pool_unpin(p, s[i]), 0);
	/* all merged again: the longest slice is there, as often as it fits */
	for (uint32_t i = 0; i < PAGES / SLICE_PAGES_MAX; i++) {
		assert_int_equal(pool_alloc(p, SLICE_PAGES_MAX, &t[i], &n), 0);
		assert_int_equal(n, SLICE_PAGES_MAX);
	}
	assert_sound(p);
	for (uint32_t i = 0; i < PAGES / SLICE_PAGES_MAX; i++)
		assert_int_equal(pool_unpin(p, t[i]), 0);
	free(s);
	free(t);
	pool_close(p);
	assert_idle();
}

static void longest_run_is_given_where_none_is_long_enough(void **state)
{
	struct pool *p = open_pool(1024);
	struct slice_id a, b, c;
	uint32_t n;

	(void)state;
	assert_int_equal(pool_alloc(p, 700, &a, &n), 0); /* leaves 324 = 4+64+256 */
	assert_int_equal(n, 700);
	assert_int_equal(pool_alloc(p, 300, &b, &n), 0);
	assert_int_equal(n, 256);
	assert_int_equal(pool_alloc(p, 300, &c, &n), 0);
	assert_int_equal(n, 64);
	assert_sound(p);
	assert_int_equal(pool_unpin(p, a), 0);
	assert_int_equal(pool_unpin(p, b), 0);
	assert_int_equal(pool_unpin(p, c), 0);
	pool_close(p);
	assert_idle();
}

static void nothing_is_wasted_but_the_last_page(void **state)
{
	struct pool *p = open_pool(4096);

	(void)state;
	for (uint32_t want = 1; want <= SLICE_PAGES_MAX; want++) {
		struct slice_id s;
		uint32_t n;
		assert_int_equal(pool_alloc(p, want, &s, &n), 0);
		assert_int_equal(n, want);
		assert_int_equal(pool_nfree(p), 4096 - want);
		assert_int_equal(pool_unpin(p, s), 0);
	}
	assert_sound(p);
	pool_close(p);
}

static void generation_skips_zero(void **state)
{
	struct pool *p = open_pool(1024);
	struct slice_id s = { 0, UINT32_MAX }, t;
	uint32_t n;

	(void)state;
	assert_int_equal(adopt_slice(p, s, 1024), 0);
	pool_adopted(p);
	assert_int_equal(add_refs(p, s, -1), 0);
	assert_int_equal(pool_alloc(p, 1024, &t, &n), 0);
	assert_int_equal(t.page, 0);
	assert_int_equal(t.gen, 1);
	assert_int_equal(pool_unpin(p, t), 0);
	pool_close(p);
}

static void freed_while_pinned_lives_on_as_dying(void **state)
{
	struct pool *p = open_pool(1024);
	struct slice_id s, t;
	struct slice_view v;
	uint32_t n;

	(void)state;
	assert_int_equal(pool_alloc(p, 1024, &s, &n), 0);
	assert_int_equal(add_refs(p, s, 1), -EINVAL); /* not sealed: I5 */
	assert_int_equal(pool_seal(p, s), 0);
	assert_int_equal(pool_trim(p, s, 1), -EINVAL);
	assert_int_equal(add_refs(p, s, 2), 0);
	assert_int_equal(add_refs(p, s, -2), 0);
	assert_true(pool_next(p, 0, &v));
	assert_int_equal(v.state, SLICE_DYING);
	assert_int_equal(pool_alloc(p, 1, &t, &n), POOL_FULL); /* I4 */
	assert_int_equal(add_refs(p, s, 1), 0); /* shared again meanwhile */
	assert_true(pool_next(p, 0, &v));
	assert_int_equal(v.state, SLICE_LIVE);
	assert_int_equal(pool_unpin(p, s), 0);
	assert_int_equal(pool_unpin(p, s), -EINVAL);
	assert_int_equal(metric_get(M_NSLICES_LIVE), 1);
	assert_int_equal(add_refs(p, s, -1), 0);
	assert_false(pool_next(p, 0, &v));
	assert_sound(p);
	pool_close(p);
	assert_idle();
}

/* Rebuild ------------------------------------------------------------------------- */

static void adopt_random(uint64_t seed, uint32_t npages)
{
	struct pool *p = open_pool(npages);
	struct model m;

	print_message("SEED=%llu\n", (unsigned long long)seed);
	/* make a layout by living a while, then rebuild it in an empty pool */
	model_init(&m, p, seed);
	for (unsigned i = 0; i < 400; i++)
		step(&m);
	struct pool *q = open_pool(npages);
	uint32_t used = 0;
	for (size_t i = 0; i < m.n; i++) {
		struct held *h = &m.v[i];
		uint32_t refs = 1 + below(&m, 3);
		for (uint32_t k = 0; k < refs; k++)
			assert_int_equal(adopt_slice(q, h->id, h->npages), 0);
		struct slice_id other = { h->id.page, h->id.gen + 1 };
		assert_int_equal(adopt_slice(q, other, h->npages), -EUCLEAN);
		assert_int_equal(adopt_slice(q, h->id, h->npages + 1), -EUCLEAN);
		if (h->npages > 1) {
			struct slice_id in = { h->id.page + below(&m, h->npages - 1) + 1, 7 };
			assert_int_equal(adopt_slice(q, in, 1), -EUCLEAN);
		}
		used += h->npages;
	}
	pool_adopted(q);
	assert_int_equal(pool_nfree(q), npages - used);
	let_go(&m);
	model_fini(&m);
	pool_close(p);
	assert_sound(q);
	/* what was not adopted is free, every page of it */
	struct slice_id s;
	uint32_t n, total = 0;
	while (!pool_alloc(q, SLICE_PAGES_MAX, &s, &n)) {
		assert_sound(q);
		total += n;
	}
	assert_int_equal(total, npages - used);
	struct slice_view v;
	for (uint32_t page = 0; pool_next(q, page, &v); page = v.id.page + v.npages)
		assert_int_equal(v.refs ? add_refs(q, v.id, -(int)v.refs)
					: pool_unpin(q, v.id), 0);
	assert_sound(q);
	assert_int_equal(pool_nfree(q), npages);
	pool_close(q);
}

static void what_was_not_adopted_is_free(void **state)
{
	const char *seed = getenv("SEED");

	(void)state;
	if (seed) {
		adopt_random(strtoull(seed, NULL, 0), 4096);
		return;
	}
	for (uint64_t i = 1; i <= 20; i++)
		adopt_random(i, 4096);
	adopt_random(clock_ns(), 4096);
	assert_idle();
}

static void nonsense_is_not_adopted(void **state)
{
	struct pool *p = open_pool(2048);

	(void)state;
	assert_int_equal(adopt_slice(p, (struct slice_id){ 0, 0 }, 1), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ 0, 1 }, 0), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ 0, 1 }, 1025), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ 2048, 1 }, 1), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ 2044, 1 }, 5), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ UINT32_MAX, 1 }, 2), -EUCLEAN);
	assert_int_equal(adopt_slice(p, (struct slice_id){ 2, 1 }, 3), -EUCLEAN);
	pool_adopted(p);
	assert_int_equal(pool_nfree(p), 2048);
	assert_sound(p);
	pool_close(p);
}

/* A lot ends before what cannot be; what was before that is adopted. */
static void a_lot_is_adopted_up_to_nonsense(void **state)
{
	struct pool *p = open_pool(2048);
	const struct slice_run lot[] = {
		{ { 0, 1 }, 3 }, { { 4, 2 }, 4 }, { { 0, 1 }, 3 }, { { 1024, 9 }, 1024 },
		{ { 5, 1 }, 1 }, { { 8, 1 }, 1 },
	};
	struct slice_view v;

	(void)state;
	assert_int_equal(pool_adopt(p, lot, 0), 0);
	assert_int_equal(pool_adopt(p, lot, 6), 4);
	assert_int_equal(pool_adopt(p, lot + 5, 1), 1);
	pool_adopted(p);
	assert_sound(p);
	assert_int_equal(pool_nfree(p), 2048 - 3 - 4 - 1024 - 1);
	assert_true(pool_next(p, 0, &v));
	assert_int_equal(v.refs, 2);
	assert_true(pool_next(p, 3, &v));
	assert_int_equal(v.id.page, 4);
	assert_int_equal(v.refs, 1);
	assert_int_equal(add_refs(p, lot[0].id, -2), 0);
	assert_int_equal(add_refs(p, lot[1].id, -1), 0);
	assert_int_equal(add_refs(p, lot[3].id, -1), 0);
	assert_int_equal(add_refs(p, lot[5].id, -1), 0);
	assert_sound(p);
	pool_close(p);
}

static void adopted_blocks_are_verified_once(void **state)
{
	struct pool *p = open_pool(2048);
	struct slice_id s = { 1024, 5 }, small = { 3, 9 }, t;
	uint32_t n;

	(void)state;
	assert_int_equal(adopt_slice(p, s, 100), 0);
	assert_int_equal(adopt_slice(p, small, 1), 0);
	pool_adopted(p);
	for (uint32_t b = 0; b < 7; b++)
		assert_true(pool_needs_verify(p, s, b));
	pool_verified(p, s, 3);
	for (uint32_t b = 0; b < 7; b++)
		assert_int_equal(pool_needs_verify(p, s, b), b != 3);
	assert_true(pool_needs_verify(p, small, 0));
	pool_verified(p, small, 0);
	assert_false(pool_needs_verify(p, small, 0));
	/* its pages are somebody else's later: nothing to verify there */
	assert_int_equal(add_refs(p, s, -1), 0);
	assert_int_equal(pool_alloc(p, 1024, &t, &n), 0);
	assert_int_equal(t.page, 1024);
	for (uint32_t b = 0; b < 64; b++)
		assert_false(pool_needs_verify(p, t, b));
	assert_int_equal(pool_unpin(p, t), 0);
	assert_sound(p);
	pool_close(p);
	assert_idle();
}

/* Threads -------------------------------------------------------------------------- */

enum { THREADS = 4, THREAD_STEPS = 20000 };

struct walker {
	struct pool *pool;
	uint64_t random;
	unsigned id;
	atomic_bool *stop;
};

/* Each owns its slices and marks their first and last page as its own: a slice
 * that two of them got would show. */
static void *walker_main(void *arg)
{
	struct walker *w = arg;
	struct slice_id held[32];
	uint32_t sizes[32], n = 0;

	for (unsigned i = 0; i < THREAD_STEPS; i++) {
		uint32_t want = 1 + (uint32_t)(random_next(&w->random) % 64);
		if (n < 32 && !pool_alloc(w->pool, want, &held[n], &sizes[n])) {
			uint32_t keep = 1 + (uint32_t)(random_next(&w->random) % sizes[n]);
			if (pool_trim(w->pool, held[n], keep))
				abort();
			sizes[n] = keep;
			memset(pool_page(w->pool, held[n].page), (int)w->id, 64);
			memset(pool_page(w->pool, held[n].page + keep - 1), (int)w->id, 64);
			n++;
		}
		if (!n || (n < 32 && random_next(&w->random) & 1))
			continue;
		uint32_t k = (uint32_t)(random_next(&w->random) % n);
		uint8_t *first = pool_page(w->pool, held[k].page);
		uint8_t *last = pool_page(w->pool, held[k].page + sizes[k] - 1);
		if (first[0] != w->id || last[63] != w->id)
			abort();
		int r = 0;
		if (random_next(&w->random) & 1) {
			r |= pool_seal(w->pool, held[k]);
			r |= add_refs(w->pool, held[k], 1);
			r |= pool_unpin(w->pool, held[k]);
			r |= pool_pin(w->pool, held[k]);
			r |= add_refs(w->pool, held[k], -1);
		}
		r |= pool_unpin(w->pool, held[k]);
		if (r)
			abort();
		held[k] = held[--n];
		sizes[k] = sizes[n];
	}
	while (n--)
		if (pool_unpin(w->pool, held[n]))
			abort();
	return NULL;
}

static void *checker_main(void *arg)
{
	struct walker *w = arg;

	while (!atomic_load(w->stop)) {
		struct writer report = { 0 };
		struct slice_view v;
		if (pool_check(w->pool, &report)) {
			fprintf(stderr, "%.*s", (int)report.len, report.p);
			abort();
		}
		for (uint32_t page = 0; pool_next(w->pool, page, &v);)
			page = v.id.page + v.npages;
		pool_nfree(w->pool);
	}
	return NULL;
}

static void threads_never_share_a_slice(void **state)
{
	struct pool *p = open_pool(4096);
	pthread_t threads[THREADS + 1];
	struct walker walkers[THREADS + 1];
	atomic_bool stop = false;

	(void)state;
	for (unsigned i = 0; i <= THREADS; i++) {
		walkers[i] = (struct walker){ p, i + 1, i + 1, &stop };
		assert_int_equal(pthread_create(&threads[i], NULL,
						i < THREADS ? walker_main : checker_main,
						&walkers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&stop, true);
	pthread_join(threads[THREADS], NULL);
	assert_sound(p);
	assert_int_equal(pool_nfree(p), 4096);
	pool_close(p);
	assert_idle();
}

struct reader_of_slice {
	struct pool *pool;
	struct slice_id s;
	atomic_bool stop;
	unsigned reads;
};

static void *read_first_page(void *arg)
{
	struct reader_of_slice *rd = arg;

	while (!atomic_load(&rd->stop) || !rd->reads) {
		const uint8_t *b = pool_span(rd->pool, rd->s, 0, PAGE_BYTES);
		if (!b || b[0] != 0x42 || b[PAGE_BYTES - 1] != 0x42)
			abort();
		rd->reads++;
	}
	if (pool_unpin(rd->pool, rd->s))
		abort();
	return NULL;
}

static void reader_goes_on_while_the_owner_trims_and_seals(void **state)
{
	struct pool *p = open_pool(1024);
	struct reader_of_slice rd = { .pool = p };
	pthread_t thread;
	uint32_t n;

	(void)state;
	assert_int_equal(pool_alloc(p, 1024, &rd.s, &n), 0);
	memset(pool_page(p, rd.s.page), 0x42, PAGE_BYTES);
	assert_int_equal(pool_pin(p, rd.s), 0); /* the reader's */
	assert_int_equal(pthread_create(&thread, NULL, read_first_page, &rd), 0);
	for (uint32_t keep = 1023; keep; keep--)
		assert_int_equal(pool_trim(p, rd.s, keep), 0);
	assert_int_equal(pool_seal(p, rd.s), 0);
	assert_int_equal(add_refs(p, rd.s, 1), 0);
	assert_int_equal(add_refs(p, rd.s, -1), 0);
	assert_int_equal(pool_unpin(p, rd.s), 0);
	atomic_store(&rd.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(pool_nfree(p), 1024);
	assert_sound(p);
	pool_close(p);
	assert_idle();
}

/* A test of the test's instrument: pool_check() does find what is wrong. */
static void check_finds_a_foreign_gauge(void **state)
{
	struct pool *p = open_pool(1024);
	struct writer w = { 0 };

	(void)state;
	metric_add(M_PINS, 1);
	assert_int_equal(pool_check(p, &w), 1);
	metric_add(M_PINS, -1);
	metric_add(M_SLICES_FREE, -PAGE_BYTES);
	assert_int_equal(pool_check(p, &w), 1);
	metric_add(M_SLICES_FREE, PAGE_BYTES);
	assert_int_equal(pool_check(p, &w), 0);
	writer_fini(&w);
	pool_close(p);
	assert_idle();
	assert_int_equal(metric_get(M_SLICES_FREE), 0);
	assert_int_equal(metric_get(M_SLICES_LIVE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_walk_matches_the_model),
		cmocka_unit_test(free_space_is_always_usable),
		cmocka_unit_test(longest_run_is_given_where_none_is_long_enough),
		cmocka_unit_test(nothing_is_wasted_but_the_last_page),
		cmocka_unit_test(generation_skips_zero),
		cmocka_unit_test(freed_while_pinned_lives_on_as_dying),
		cmocka_unit_test(what_was_not_adopted_is_free),
		cmocka_unit_test(nonsense_is_not_adopted),
		cmocka_unit_test(a_lot_is_adopted_up_to_nonsense),
		cmocka_unit_test(adopted_blocks_are_verified_once),
		cmocka_unit_test(threads_never_share_a_slice),
		cmocka_unit_test(reader_goes_on_while_the_owner_trims_and_seals),
		cmocka_unit_test(check_finds_a_foreign_gauge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
