/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sessions hold (engine/holds.h): random walks of two sessions at one pool,
 * which name slices of their own, of each other, and none at all. The pool is
 * checked after each step, and is empty again when both have ended.
 */
#include "tests/unit/kv_kit.h"
#include "tests/unit/refs_kit.h"

#include "engine/holds.h"
#include "index/index.h"

enum { PAGES = 2048, KNOWN = 64, MAX_PINS = 60 };

struct walk {
	struct pool *pool;
	struct holds *h[2];
	struct rng rng;
	struct wire_item known[KNOWN]; /* slices that there are or were */
	unsigned nknown;
	struct wire_span used[8]; /* of session 0 */
	bool writes[8];
	unsigned nused;
};

static void know(struct walk *w, struct wire_item v)
{
	w->known[w->nknown < KNOWN ? w->nknown++ : below(&w->rng, KNOWN)] = v;
}

/* Mostly one that there is or was; pages that fit, or not. */
static struct wire_item some(struct walk *w)
{
	struct wire_item v = { { (uint32_t)below(&w->rng, PAGES + 9), 1 }, 1 };

	if (w->nknown && chance(&w->rng, 90))
		v = w->known[below(&w->rng, w->nknown)];
	if (chance(&w->rng, 10))
		v.pages = (uint32_t)below(&w->rng, 1100);
	if (chance(&w->rng, 5))
		v.slice.gen++;
	return v;
}

static void step_alloc(struct walk *w, struct holds *h)
{
	struct wire_item v[3];
	struct wire_items asked = { 1 + (uint32_t)below(&w->rng, 3), v }, got;
	uint32_t before = holds_npins(h);

	for (unsigned i = 0; i < 3; i++)
		v[i].pages = (uint32_t)below(&w->rng, chance(&w->rng, 90) ? 40 : 1100);
	int r = holds_alloc(h, &asked, &got);
	if (r < 0) {
		assert_true(r == -EINVAL || r == -EAGAIN);
		assert_int_equal(holds_npins(h), before);
		return;
	}
	assert_true(r == POOL_FULL ? got.n < asked.n : got.n == asked.n);
	for (uint32_t i = 0; i < got.n; i++)
		know(w, got.v[i]);
	assert_int_equal(holds_npins(h), before + got.n);
	wire_items_fini(&got);
}

static void step_seal(struct walk *w, struct holds *h)
{
	struct wire_item v = some(w);
	struct wire_results got;

	assert_int_equal(holds_seal(h, &(struct wire_items){ 1, &v }, &got), 0);
	if (!got.v[0]) {
		know(w, v);
		if (chance(&w->rng, 30))
			assert_int_equal(add_refs(w->pool, v.slice, 1), 0);
	}
	wire_results_fini(&got);
}

/* All or none, or each on its own. */
static void step_pin(struct walk *w, struct holds *h)
{
	struct wire_item v[3] = { some(w), some(w), some(w) };
	struct wire_pin asked = { chance(&w->rng, 50), { 1 + (uint32_t)below(&w->rng, 3), v } };
	uint32_t before = holds_npins(h), n = 0;
	struct wire_results got = { 0 };
	int r = holds_pin(h, &asked, &got);

	assert_true(r == 0 || r == -ESTALE || r == -EINVAL || r == -EAGAIN);
	assert_true(r == 0 || !asked.each);
	assert_int_equal(got.n, r ? 0 : asked.items.n);
	for (uint32_t i = 0; i < got.n; i++) {
		assert_true(!got.v[i] || asked.each);
		n += !got.v[i];
	}
	assert_int_equal(holds_npins(h), before + n);
	assert_true(holds_npins(h) <= MAX_PINS);
	wire_results_fini(&got);
}

static void step_unpin(struct walk *w, struct holds *h)
{
	struct wire_item v = some(w);
	uint32_t before = holds_npins(h);
	int r = holds_unpin(h, &(struct wire_items){ 1, &v });

	assert_true(r == 0 || r == -EPROTO);
	assert_int_equal(holds_npins(h), before - !r);
}

static void step_unuse(struct walk *w)
{
	unsigned i = (unsigned)below(&w->rng, w->nused);

	holds_unuse(w->h[0], w->used[i].slice, w->writes[i]);
	w->used[i] = w->used[--w->nused];
	w->writes[i] = w->writes[w->nused];
}

/* What is written there is nobody else's: the pool's check sees the rest. */
static void step_use(struct walk *w)
{
	struct wire_item v = some(w);
	struct wire_span s = { v.slice, (uint32_t)below(&w->rng, 9000),
			       (uint32_t)below(&w->rng, 9000) };
	bool writes = chance(&w->rng, 50);
	void *p;

	if (w->nused == 8) {
		step_unuse(w);
		return;
	}
	int r = holds_use(w->h[0], &s, writes, &p);
	assert_true(r == 0 || r == -ESTALE || r == -EINVAL);
	if (r)
		return;
	assert_ptr_equal(p, (char *)pool_page(w->pool, s.slice.page) + s.off);
	w->used[w->nused] = s;
	w->writes[w->nused++] = writes;
}

static void check(struct walk *w)
{
	struct writer report = { 0 };
	int r = pool_check(w->pool, &report);

	if (r)
		print_error("%.*s", (int)report.len, (const char *)report.p);
	assert_int_equal(r, 0);
	writer_fini(&report);
	assert_int_equal(metric_get(M_PINS),
			 holds_npins(w->h[0]) + holds_npins(w->h[1]) + w->nused);
}

static void step(struct walk *w)
{
	struct holds *h = w->h[below(&w->rng, 2)];

	switch (below(&w->rng, 6)) {
	case 0:
		step_alloc(w, h);
		break;
	case 1:
		step_seal(w, h);
		break;
	case 2:
		step_pin(w, h);
		break;
	case 3:
	case 4:
		step_unpin(w, h);
		break;
	case 5:
		step_use(w);
		break;
	}
}

static void drop_refs(struct pool *p)
{
	struct slice_view v;

	for (uint32_t page = 0; pool_next(p, page, &v); page = v.id.page + v.npages) {
		assert_int_equal(v.state, SLICE_LIVE); /* of nobody else */
		assert_int_equal(v.pins, 0);
		assert_int_equal(add_refs(p, v.id, -(int)v.refs), 0);
	}
}

static void walk(void *arg, uint64_t seed)
{
	struct pool_opts o = { .bytes = PAGES * 4096, .create = true };
	struct walk w = { .rng = { seed } };

	(void)arg;
	assert_int_equal(pool_open(&o, &w.pool), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(holds_new(w.pool, MAX_PINS, &w.h[i]), 0);
	for (unsigned i = 0; i < 8000; i++) {
		step(&w);
		check(&w);
	}
	while (w.nused)
		step_unuse(&w);
	for (unsigned i = 0; i < 2; i++)
		holds_free(w.h[i]);
	drop_refs(w.pool);
	assert_int_equal(pool_nfree(w.pool), PAGES);
	pool_close(w.pool);
	assert_nothing_in_flight();
}

static void test_random_sessions(void **state)
{
	(void)state;
	for_seeds("holds", walk, NULL);
}

/* A session that has allocated a slice of four pages. */
static void take_four(struct pool **ret_pool, struct holds **ret, struct wire_items *ret_got)
{
	struct pool_opts o = { .bytes = PAGES * 4096, .create = true };
	struct wire_item four = { .pages = 4 };
	struct wire_items asked = { 1, &four };

	assert_int_equal(pool_open(&o, ret_pool), 0);
	assert_int_equal(holds_new(*ret_pool, MAX_PINS, ret), 0);
	assert_int_equal(holds_alloc(*ret, &asked, ret_got), 0);
}

/* I4, I6: what is in use stays, whatever is unpinned or sealed meanwhile. */
static void test_what_is_in_use_stays(void **state)
{
	struct wire_results results;
	struct wire_items got;
	struct pool *pool;
	struct holds *h;
	void *p;

	(void)state;
	take_four(&pool, &h, &got);
	struct wire_span all = { got.v[0].slice, 0, 4 * 4096 }, past = { all.slice, 1, 4 * 4096 };
	struct wire_span far = { all.slice, UINT32_MAX, UINT32_MAX }, none = { all.slice, 0, 0 };
	assert_int_equal(holds_use(h, &past, true, &p), -EINVAL);
	assert_int_equal(holds_use(h, &far, true, &p), -EINVAL);
	assert_int_equal(holds_use(h, &none, true, &p), -EINVAL);
	assert_int_equal(holds_use(h, &all, true, &p), 0);
	assert_int_equal(holds_seal(h, &got, &results), 0);
	assert_int_equal(wire_errno(results.v[0]), -EAGAIN);
	wire_results_fini(&results);
	assert_int_equal(holds_unpin(h, &got), 0);
	assert_int_equal(holds_npins(h), 0);
	assert_int_equal(pool_nfree(pool), PAGES - 4);
	assert_int_equal(holds_unpin(h, &got), -EPROTO);
	assert_int_equal(holds_use(h, &all, false, &p), -ESTALE); /* not held any more */
	memset(p, 1, 4 * 4096);
	holds_unuse(h, all.slice, true);
	assert_int_equal(pool_nfree(pool), PAGES);
	wire_items_fini(&got);
	holds_free(h);
	pool_close(pool);
	assert_nothing_in_flight();
}

/* A read whose bytes are on their way, and nothing of what it reads goes. */
static void test_a_seal_gives_back_what_nobody_reads(void **state)
{
	struct wire_results results;
	struct wire_items got;
	struct pool *pool;
	struct holds *h;
	void *p;

	(void)state;
	take_four(&pool, &h, &got);
	struct wire_span two = { got.v[0].slice, 4096, 4096 };
	assert_int_equal(holds_use(h, &two, false, &p), 0);
	got.v[0].pages = 1; /* would take its page away */
	assert_int_equal(holds_seal(h, &got, &results), 0);
	assert_int_equal(wire_errno(results.v[0]), -EAGAIN);
	wire_results_fini(&results);
	got.v[0].pages = 2;
	assert_int_equal(holds_seal(h, &got, &results), 0);
	assert_int_equal(results.v[0], 0);
	wire_results_fini(&results);
	assert_int_equal(pool_nfree(pool), PAGES - 2);
	holds_unuse(h, two.slice, false);
	wire_items_fini(&got);
	holds_free(h);
	assert_int_equal(pool_nfree(pool), PAGES);
	pool_close(pool);
	assert_nothing_in_flight();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_seal_gives_back_what_nobody_reads),
		cmocka_unit_test(test_random_sessions),
		cmocka_unit_test(test_what_is_in_use_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
