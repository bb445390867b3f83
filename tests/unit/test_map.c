/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/map.c: a random walk of inserts, cuts, seals, publishes (some fail) and
 * reloads against an array that says for each page of the file which page of
 * which slice it should be; map_check() and pool_check() after each step.
 * engine/range.c: random takers against the rule that it promises.
 * SEED=n repeats a walk.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/map.h"
#include "engine/range.h"

enum { NREGIONS = 4, NPAGES = NREGIONS * REGION_PAGES };

/* The file's pages that the walk touches: regions far apart, and neighbours. */
static const uint64_t regions[NREGIONS] = { 0, 1, 7, 1ULL << 21 };

struct page {
	struct slice_id id; /* gen 0: a hole */
	uint32_t off;
};

struct walk {
	uint64_t random;
	struct pool *pool;
	struct node *node;
	struct map map;
	struct page model[NPAGES];
	struct slice_run *published; /* a reference each */
	uint32_t npublished;
};

static uint32_t pick(struct walk *w, uint32_t n)
{
	return (uint32_t)(random_next(&w->random) % n);
}

static uint64_t page_at(uint32_t i)
{
	return regions[i / REGION_PAGES] * REGION_PAGES + i % REGION_PAGES;
}

static void assert_none(int bad, struct writer *w)
{
	if (bad)
		fail_msg("%d violations:\n%.*s", bad, (int)w->len, w->p);
	writer_fini(w);
}

static void assert_matches(const struct walk *w)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < NPAGES; i++) {
		const struct page *p = &w->model[i];
		struct map_view v;
		bool there = map_at(&w->map, page_at(i), &v);
		assert_int_equal(there, p->id.gen != 0);
		if (!there)
			continue;
		pages++;
		assert_int_equal(v.hold->id.page, p->id.page);
		assert_int_equal(v.hold->id.gen, p->id.gen);
		assert_int_equal(v.off + (page_at(i) - v.page), p->off);
		struct map_view n;
		assert_true(map_next(&w->map, page_at(i), &n));
		assert_int_equal(n.page, v.page);
	}
	assert_int_equal(w->map.npages, pages);
}

/* Each extent one pin, and nobody else any. */
static void assert_pins(const struct walk *w)
{
	uint64_t extents = 0;

	for (uint32_t i = 0; i < w->map.n; i++)
		extents += w->map.v[i]->n;
	assert_int_equal(metric_get(M_PINS), extents);
}

static void assert_sound(const struct walk *w)
{
	struct writer r = { 0 };

	assert_none(map_check(&w->map, &r), &r);
	assert_none(pool_check(w->pool, &r), &r);
	assert_pins(w);
}

/* Steps ------------------------------------------------------------------------ */

/* A run inside one region: where in the model, and how long. */
static uint32_t pick_run(struct walk *w, uint32_t *ret_n)
{
	uint32_t at = pick(w, NPAGES), left = REGION_PAGES - at % REGION_PAGES;
	uint32_t n = 1 + pick(w, pick(w, 4) ? 16 : 300);

	*ret_n = n < left ? n : left;
	return at;
}

static void model_set(struct walk *w, uint32_t at, uint32_t n, struct slice_id id,
		      uint32_t off)
{
	for (uint32_t i = 0; i < n; i++)
		w->model[at + i] = (struct page){ id, id.gen ? off + i : 0 };
}

static void step_insert(struct walk *w)
{
	struct slice_id id;
	struct hold *h;
	uint32_t n, got, at = pick_run(w, &n);
	uint64_t page = page_at(at);

	if (pool_alloc(w->pool, n + pick(w, 8), &id, &got) == POOL_FULL)
		return;
	assert_int_equal(map_hold_new(&w->map, id, got, 4711, true, &h), 0);
	h->region = page / REGION_PAGES;
	n = n < got ? n : got;
	h->used = (uint16_t)n;
	assert_int_equal(map_reserve(&w->map, page, 1), 0);
	map_cut(&w->map, page, page + n);
	map_insert(&w->map, page, n, h, 0);
	map_hold_unref(&w->map, h);
	model_set(w, at, n, id, 0);
}

/* Goes on in the room behind an extent. */
static void step_extend(struct walk *w)
{
	struct map_view v;
	uint32_t at = pick(w, NPAGES), n = 1 + pick(w, 3);

	if (!map_at(&w->map, page_at(at), &v) || !v.hold->writing)
		return;
	uint32_t room = v.hold->npages - v.hold->used;
	if (room < n || v.off + v.npages != v.hold->used)
		return;
	uint64_t page = v.page + v.npages;
	if (page / REGION_PAGES != v.page / REGION_PAGES ||
	    (page + n - 1) / REGION_PAGES != v.page / REGION_PAGES)
		return;
	uint32_t off = v.hold->used;
	struct hold *h = map_hold_ref(v.hold);
	h->used = (uint16_t)(h->used + n);
	assert_int_equal(pool_pin(w->pool, h->id), 0);
	assert_int_equal(map_reserve(&w->map, page, 1), 0);
	map_cut(&w->map, page, page + n);
	map_insert(&w->map, page, n, h, off);
	model_set(w, (uint32_t)(at + (page - page_at(at))), n, h->id, off);
	map_hold_unref(&w->map, h);
}

static void step_cut(struct walk *w)
{
	uint32_t n, at = pick_run(w, &n);
	uint64_t page = page_at(at);

	if (!pick(w, 40)) { /* as truncate does */
		map_cut(&w->map, page, UINT64_MAX);
		model_set(w, at, NPAGES - at, (struct slice_id){ 0 }, 0);
		return;
	}
	assert_int_equal(map_reserve_cut(&w->map, page, page + n), 0);
	map_cut(&w->map, page, page + n);
	model_set(w, at, n, (struct slice_id){ 0 }, 0);
}

static void seal_all(struct walk *w)
{
	while (w->map.writing) {
		struct hold *h = w->map.writing;
		assert_int_equal(pool_seal(w->pool, h->id), 0);
		map_hold_sealed(&w->map, h);
	}
}

/* What the index would name now: references, before those of the version before go. */
static struct slice_run *add_refs(struct walk *w, uint32_t *ret_n)
{
	struct extents x = { 0 };

	assert_int_equal(map_extents(&w->map, 0, w->map.n, &x), 0);
	struct slice_run *v = calloc(x.n + 1, sizeof(*v));
	for (uint32_t i = 0; i < x.n; i++)
		v[i] = (struct slice_run){ { x.v[i].slice, x.v[i].gen }, x.v[i].slice_pages };
	assert_int_equal(pool_ref(w->pool, v, x.n), 0);
	*ret_n = x.n;
	free(x.v);
	return v;
}

/* The base of each region is what was published of it, sorted. */
static void assert_base(const struct walk *w)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->map.n; i++) {
		const struct region *g = w->map.v[i];
		assert_int_equal(g->nbase, g->n);
		n += g->nbase;
		for (uint32_t k = 1; k < g->nbase; k++)
			assert_true(g->base[k - 1].page <= g->base[k].page);
	}
	assert_int_equal(n, w->npublished);
}

/* As many references to a slice as extents that name it. */
static void assert_refs(const struct walk *w)
{
	struct slice_view v;

	for (uint32_t page = 0; pool_next(w->pool, page, &v); page = v.id.page + 1) {
		uint32_t n = 0;
		for (uint32_t i = 0; i < w->map.n; i++)
			for (uint32_t k = 0; k < w->map.v[i]->n; k++)
				n += w->map.v[i]->v[k].hold->id.page == v.id.page;
		assert_int_equal(v.refs, n);
		assert_int_equal(v.pins, n);
		assert_int_equal(v.state, SLICE_LIVE);
	}
}

static void step_publish(struct walk *w, bool fails)
{
	struct slice_run *v;
	uint32_t n;

	seal_all(w);
	assert_int_equal(map_publishing(&w->map), 0);
	v = add_refs(w, &n);
	if (fails) {
		assert_int_equal(pool_unref(w->pool, v, n), 0);
		map_unpublished(&w->map);
		free(v);
		return;
	}
	map_published(&w->map);
	assert_int_equal(pool_unref(w->pool, w->published, w->npublished), 0);
	free(w->published);
	w->published = v;
	w->npublished = n;
	assert_refs(w);
	assert_base(w);
}

/* What the index would store gives the same map again. */
static void step_reload(struct walk *w)
{
	_cleanup_(extents_fini) struct extents out = { 0 };
	struct writer enc = { 0 };
	struct extents x = { 0 };

	step_publish(w, false);
	assert_int_equal(map_extents(&w->map, 0, w->map.n, &x), 0);
	assert_int_equal(body_encode_extents(&x, &enc), 0);
	free(x.v);
	assert_int_equal(body_decode_extents(writer_bytes(&enc), &out), 0);
	writer_fini(&enc);
	struct map old = w->map;
	map_init(&w->map, w->node);
	for (uint32_t i = 0; i < out.n; i++) {
		const struct extent *e = &out.v[i];
		struct slice_id id = { e->slice, e->gen };
		struct hold *h;
		assert_int_equal(map_hold_new(&w->map, id, e->slice_pages, e->pool_id, false,
					      &h), 0);
		assert_int_equal(map_reserve(&w->map, e->page, 1), 0);
		assert_int_equal(pool_pin(w->pool, id), 0);
		map_load(&w->map, e->page, e->npages, h, e->slice_off);
		map_hold_unref(&w->map, h);
	}
	assert_int_equal(map_loaded(&w->map), 0);
	map_fini(&old);
}

static void drop_published(struct walk *w)
{
	map_cut(&w->map, 0, UINT64_MAX);
	assert_int_equal(map_publishing(&w->map), 0);
	map_published(&w->map);
	assert_int_equal(pool_unref(w->pool, w->published, w->npublished), 0);
	free(w->published);
	assert_int_equal(w->map.n, 0);
}

static void walk(uint64_t seed, unsigned steps)
{
	struct pool_opts o = { .bytes = 8192 * (uint64_t)PAGE_BYTES };
	struct walk *w = calloc(1, sizeof(*w));

	printf("map: SEED=%llu\n", (unsigned long long)seed);
	w->random = seed;
	assert_int_equal(pool_open(&o, &w->pool), 0);
	assert_int_equal(node_local_open(w->pool, &w->node), 0);
	map_init(&w->map, w->node);
	for (unsigned i = 0; i < steps; i++) {
		uint32_t what = pick(w, 100);
		if (what < 45)
			step_insert(w);
		else if (what < 60)
			step_extend(w);
		else if (what < 85)
			step_cut(w);
		else if (what < 90)
			seal_all(w);
		else if (what < 98)
			step_publish(w, pick(w, 3) == 0);
		else
			step_reload(w);
		assert_sound(w);
		if (i % 16 == 0)
			assert_matches(w);
	}
	assert_matches(w);
	drop_published(w);
	map_fini(&w->map);
	assert_int_equal(pool_nfree(w->pool), pool_npages(w->pool));
	node_close(w->node);
	pool_close(w->pool);
	free(w);
}

static void random_walk_matches_the_model(void **state)
{
	const char *seed = getenv("SEED");

	(void)state;
	if (seed) {
		walk(strtoull(seed, NULL, 0), 4000);
		return;
	}
	for (uint64_t i = 1; i <= 4; i++)
		walk(i, 2000);
	walk(clock_ns(), 2000);
}

/* A test of the test's instrument. */
static void check_finds_what_is_wrong(void **state)
{
	struct pool_opts o = { .bytes = 1024 * (uint64_t)PAGE_BYTES };
	struct walk w = { 0 };
	struct writer r = { 0 };

	(void)state;
	assert_int_equal(pool_open(&o, &w.pool), 0);
	assert_int_equal(node_local_open(w.pool, &w.node), 0);
	map_init(&w.map, w.node);
	while (!w.map.npages)
		step_insert(&w);
	assert_int_equal(map_check(&w.map, &r), 0);
	w.map.npages++;
	assert_int_equal(map_check(&w.map, &r), 1);
	w.map.npages--;
	w.map.v[0]->changed = false;
	assert_true(map_check(&w.map, &r) > 0);
	w.map.v[0]->changed = true;
	w.map.v[0]->v[0].npages++;
	assert_true(map_check(&w.map, &r) > 0);
	w.map.v[0]->v[0].npages--;
	assert_int_equal(map_check(&w.map, &r), 0);
	writer_fini(&r);
	map_fini(&w.map);
	node_close(w.node);
	pool_close(w.pool);
}

/* Ranges ------------------------------------------------------------------------- */

enum { NTAKERS = 40 };

struct taker {
	struct range range;
	unsigned ticket;
	bool out, woken;
};

static void woken(struct task *t)
{
	struct taker *k = (struct taker *)((char *)t - offsetof(struct taker, range.task));

	assert_true(k->range.granted && !k->woken);
	k->woken = true;
}

static bool overlap(const struct taker *a, const struct taker *b)
{
	return a->range.from < b->range.to && b->range.from < a->range.to;
}

/* Held iff nothing that came earlier overlaps. */
static void assert_fair(const struct taker *v)
{
	for (int i = 0; i < NTAKERS; i++) {
		bool blocked = false;
		if (!v[i].out)
			continue;
		for (int k = 0; k < NTAKERS; k++)
			blocked |= v[k].out && v[k].ticket < v[i].ticket && overlap(&v[i], &v[k]);
		assert_int_equal(v[i].range.granted, !blocked);
		assert_int_equal(v[i].range.granted, v[i].woken);
	}
}

static void ranges_are_fair_and_exclusive(void **state)
{
	static struct taker v[NTAKERS];
	struct ranges q = { 0 };
	uint64_t random = 5;
	unsigned tickets = 0;

	(void)state;
	for (int step = 0; step < 20000; step++) {
		struct taker *k = &v[random_next(&random) % NTAKERS];
		if (!k->out) {
			uint64_t from = random_next(&random) % 64;
			*k = (struct taker){ .out = true, .ticket = ++tickets };
			k->range.from = from;
			k->range.to = random_next(&random) % 8 ?
				from + 1 + random_next(&random) % 6 : RANGE_END;
			k->range.task.fn = woken;
			k->woken = range_take(&q, &k->range);
		} else if (k->range.granted) {
			k->out = false;
			range_wake(range_give(&q, &k->range));
		}
		assert_fair(v);
	}
	for (bool more = true; more;) {
		more = false;
		for (int i = 0; i < NTAKERS; i++) {
			if (!v[i].out || !v[i].range.granted)
				continue;
			v[i].out = false;
			more = true;
			range_wake(range_give(&q, &v[i].range));
		}
	}
	assert_true(ranges_idle(&q));
}

/* Tasks: a long chain in a stack that does not grow. */
struct chain {
	struct task task;
	unsigned left;
	char *lowest;
};

static void chain_step(struct task *t)
{
	struct chain *c = (struct chain *)t;
	char here;

	if (!c->lowest || &here < c->lowest)
		c->lowest = &here;
	if (c->left--)
		task_run(t);
}

static void tasks_do_not_nest(void **state)
{
	struct chain c = { .task.fn = chain_step, .left = 1000000 };
	char here;

	(void)state;
	task_run(&c.task);
	assert_int_equal(c.left, (unsigned)-1);
	assert_true(&here - c.lowest < 64 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_walk_matches_the_model),
		cmocka_unit_test(check_finds_what_is_wrong),
		cmocka_unit_test(ranges_are_fair_and_exclusive),
		cmocka_unit_test(tasks_do_not_nest),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	int64_t n = 0;
	const char *busy = metrics_busy(&n);

	if (busy)
		fprintf(stderr, "%s is %lld\n", busy, (long long)n);
	return failed || busy;
}
