/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/tier_log.h: a random walk of takes, references, readers and clearing beside a model
 * that knows of each page which generation it was given out with. What is live or being read
 * is never given out again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "engine/tier_log.h"

enum { SEGMENTS = 6, SEGMENT = 1024, RUNS = 64, STEPS = 20000 };

static struct tier_log *l;

struct run {
	struct slice_run s;
	bool live, read;
};

static void check(void)
{
	struct writer w = { 0 };
	int n = tier_log_check_all(l, &w);

	if (n)
		fail_msg("%.*s", (int)w.len, (const char *)w.p);
	writer_fini(&w);
}

static void begin(const uint32_t *gens, uint32_t newest)
{
	assert_int_equal(tier_log_new(42, SEGMENTS, SEGMENT, gens, newest, &l), 0);
}

static bool overlap(const struct slice_run *a, const struct slice_run *b)
{
	return a->id.page < b->id.page + b->npages && b->id.page < a->id.page + a->npages;
}

/* Clears what can be; all generations are on the disk at once. */
static void clear(void)
{
	uint64_t id;
	uint32_t n, gen;

	for (unsigned i = 0; i < SEGMENTS && tier_log_wants(l); i++) {
		while (tier_log_next(l, &id))
			assert_true(id);
		if (tier_log_clear(l, &n, &gen))
			tier_log_ready(l, n);
		check();
	}
}

static void let_go(struct run *r)
{
	if (r->live)
		assert_int_equal(tier_log_unref(l, &r->s, 1), 0);
	if (r->read)
		tier_log_leave(l, &r->s);
	*r = (struct run){ 0 };
}

static void step(struct run *v, unsigned i)
{
	struct run *r = &v[i];

	if (r->s.npages) {
		assert_int_equal(tier_log_check(l, &r->s), 0); /* it is held */
		let_go(r);
		assert_int_equal(tier_log_unref(l, &(struct slice_run){ { 1, 1 }, 1 }, 1), -ESTALE);
		return;
	}
	r->s.npages = 1 + (uint32_t)rand() % 200;
	int e = tier_log_take(l, r->s.npages, 1 + (uint64_t)rand() % 100, &r->s.id);
	if (e == TIER_FULL) {
		r->s.npages = 0;
		clear();
		return;
	}
	assert_int_equal(e, 0);
	for (unsigned k = 0; k < RUNS; k++)
		if (k != i && v[k].s.npages)
			assert_false(overlap(&v[k].s, &r->s));
	r->live = rand() % 2;
	r->read = !r->live;
	assert_int_equal(r->live ? tier_log_ref(l, &r->s, 1) : tier_log_enter(l, &r->s), 0);
}

static void nothing_that_is_held_is_given_out_again(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	struct run v[RUNS] = { 0 };
	struct tier_log_stat st;

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	begin(NULL, SEGMENTS - 1);
	for (unsigned i = 0; i < STEPS; i++) {
		step(v, (unsigned)rand() % RUNS);
		check();
	}
	for (unsigned i = 0; i < RUNS; i++) {
		let_go(&v[i]);
		check();
	}
	tier_log_stat(l, &st);
	assert_int_equal(st.live, 0);
	check();
	tier_log_free(l);
}

static void what_was_there_is_not_ready(void **state)
{
	const uint32_t gens[SEGMENTS] = { 5, 6, 7, 8, 2, 3 };
	struct slice_run s = { { TIER_HEAD_PAGES + 2 * SEGMENT + 3, 7 }, 10 }, at = { .npages = 1 };
	uint32_t n, gen;
	uint64_t id;

	(void)state;
	begin(gens, 3);
	assert_int_equal(tier_log_adopt(l, &s, 77), 0);
	s.id.gen = 6;
	assert_int_equal(tier_log_adopt(l, &s, 77), -ESTALE);
	check();
	assert_int_equal(tier_log_take(l, 1, 1, &at.id), TIER_FULL);
	/* The oldest one first, the one behind the newest. */
	assert_false(tier_log_next(l, &id));
	assert_true(tier_log_clear(l, &n, &gen));
	assert_int_equal(n, 4);
	assert_int_equal(gen, 3);
	assert_int_equal(tier_log_take(l, 1, 1, &at.id), TIER_FULL); /* it is not on the disk yet */
	tier_log_ready(l, n);
	assert_int_equal(tier_log_take(l, 1, 1, &at.id), 0);
	assert_int_equal(at.id.page, TIER_HEAD_PAGES + 4 * SEGMENT);
	assert_int_equal(at.id.gen, 3);
	/* 5, 0, 1, 3 are empty, 2 is not, and goes last though 3 is younger. */
	for (unsigned i = 0; i < 4; i++) {
		assert_false(tier_log_next(l, &id));
		assert_true(tier_log_clear(l, &n, &gen));
	}
	assert_int_equal(n, 3);
	assert_true(tier_log_next(l, &id));
	assert_int_equal(id, 77);
	assert_true(tier_log_is_next(l, s.id.page));
	assert_false(tier_log_next(l, &id));
	assert_false(tier_log_clear(l, &n, &gen));
	check();
	tier_log_free(l);
}

/* A journal that was lost: the first that is in a segment says of which generation that is. */
static void what_memory_knows_is_full(void **state)
{
	struct slice_run s = { { TIER_HEAD_PAGES + SEGMENT, 9 }, 10 };
	struct tier_log_stat st;

	(void)state;
	begin(NULL, SEGMENTS - 1);
	assert_int_equal(tier_log_adopt(l, &s, 77), 0);
	check();
	tier_log_stat(l, &st);
	assert_int_equal(st.live, 10);
	assert_int_equal(st.ready, SEGMENTS - 1);
	assert_int_equal(tier_log_unref(l, &s, 1), 0);
	check();
	tier_log_free(l);
}

static struct slice_run put(uint32_t npages, uint64_t fileid, bool live)
{
	struct slice_run s = { .npages = npages };

	assert_int_equal(tier_log_take(l, npages, fileid, &s.id), 0);
	if (live)
		assert_int_equal(tier_log_ref(l, &s, 1), 0);
	return s;
}

/* One that was cleared, and is full again before the next is looked for, is the newest: the
 * oldest goes first, and of that each object from the first on. */
static void what_was_cleared_and_filled_is_not_the_oldest(void **state)
{
	enum { SMALL = 20, PAGES = SEGMENT / SMALL };
	struct slice_run small[SMALL];
	uint32_t n, gen;
	uint64_t id;

	(void)state;
	begin(NULL, SEGMENTS - 1);
	for (unsigned i = 0; i < SMALL; i++)
		small[i] = put(PAGES, 1 + i, true);
	put(SEGMENT, 50, false);
	for (unsigned i = 2; i < SEGMENTS; i++)
		put(SEGMENT, 50 + i, true);
	assert_false(tier_log_next(l, &id));
	assert_true(tier_log_clear(l, &n, &gen)); /* nothing is in it */
	assert_int_equal(n, 1);
	tier_log_ready(l, n);
	for (unsigned i = 0; i < SMALL; i++) {
		assert_true(tier_log_next(l, &id));
		assert_int_equal(id, 1 + i);
		assert_int_equal(tier_log_unref(l, &small[i], 1), 0);
	}
	assert_false(tier_log_next(l, &id));
	assert_true(tier_log_clear(l, &n, &gen));
	assert_int_equal(n, 0);
	tier_log_ready(l, n);
	assert_false(tier_log_wants(l));
	put(SEGMENT, 60, true);
	put(SEGMENT, 60, true);
	assert_true(tier_log_wants(l));
	assert_true(tier_log_next(l, &id));
	assert_int_equal(id, 52);
	tier_log_free(l);
}

static void what_cannot_be_is_refused(void **state)
{
	static const struct slice_run bad[] = {
		{ { 0, 1 }, 1 },                                      /* the head */
		{ { TIER_HEAD_PAGES, 2 }, 1 },                        /* another generation */
		{ { TIER_HEAD_PAGES, 1 }, 0 },
		{ { TIER_HEAD_PAGES, 1 }, SLICE_PAGES_MAX + 1 },
		{ { TIER_HEAD_PAGES + SEGMENT - 1, 1 }, 2 },          /* two segments */
		{ { TIER_HEAD_PAGES + SEGMENTS * SEGMENT, 1 }, 1 },   /* the end */
		{ { UINT32_MAX, 1 }, 1 },
	};
	struct slice_run both[2] = { { { TIER_HEAD_PAGES, 1 }, 1 } };
	struct tier_log_stat st;

	(void)state;
	begin(NULL, SEGMENTS - 1);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_true(tier_log_check(l, &bad[i]) < 0);
		both[1] = bad[i];
		assert_true(tier_log_ref(l, both, 2) < 0);
	}
	tier_log_stat(l, &st);
	assert_int_equal(st.live, 0);
	tier_log_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_that_is_held_is_given_out_again),
		cmocka_unit_test(what_was_there_is_not_ready),
		cmocka_unit_test(what_memory_knows_is_full),
		cmocka_unit_test(what_was_cleared_and_filled_is_not_the_oldest),
		cmocka_unit_test(what_cannot_be_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
