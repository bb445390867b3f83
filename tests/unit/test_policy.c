/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/policy.h: who goes, by hand and side by side with a model of arrays that are
 * searched from end to end; a scan, and names that come back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/random.h"
#include "engine/policy.h"

static struct policy *p;

static int setup(void **state)
{
	(void)state;
	return policy_new(&p);
}

static int teardown(void **state)
{
	(void)state;
	p = policy_free(p);
	return 0;
}

static void check(void)
{
	struct writer report = { 0 };

	if (policy_check(p, &report))
		fail_msg("%.*s", (int)report.len, (const char *)report.p);
	writer_fini(&report);
}

/* Its name is that of its number. */
static struct policy_object object(uint64_t fileid, uint32_t pages)
{
	return (struct policy_object){ fileid, 7, fileid << 8, pages };
}

static void put(uint64_t fileid, uint32_t pages)
{
	struct policy_object o = object(fileid, pages);

	assert_int_equal(policy_put(p, &o), 0);
}

/* Who goes; 0: nobody. */
static uint64_t take(enum policy_kind kind)
{
	struct policy_object o;

	return policy_take(p, kind, &o) ? o.fileid : 0;
}

static void evict(uint64_t fileid)
{
	assert_int_equal(take(POLICY_PAGES), fileid);
	policy_remove(p, fileid);
}

/* By hand -------------------------------------------------------------------------- */

static void first_in_first_out(void **state)
{
	(void)state;
	assert_int_equal(take(POLICY_PAGES), 0);
	for (unsigned i = 1; i <= 5; i++)
		put(i, 1);
	policy_remove(p, 3);
	policy_remove(p, 99);
	policy_use(p, 99);
	check();
	evict(1);
	evict(2);
	evict(4);
	evict(5);
	assert_int_equal(take(POLICY_PAGES), 0);
	check();
}

static void who_is_used_stays_once_for_each_use(void **state)
{
	(void)state;
	put(1, 1);
	put(2, 1);
	policy_use(p, 1);
	policy_use(p, 1);
	evict(2); /* 1 went to the main queue with no use left */
	put(3, 1);
	for (unsigned i = 0; i < 100; i++)
		policy_use(p, 1);
	evict(3);
	put(4, 1); /* the small queue has more than its share now */
	evict(4);
	evict(1);
	check();
}

static void kinds_go_by_themselves(void **state)
{
	struct policy_stat st;

	(void)state;
	put(1, 0);
	put(2, 5);
	put(3, 0);
	assert_int_equal(take(POLICY_BARE), 1);
	assert_int_equal(take(POLICY_PAGES), 2);
	policy_stat(p, &st);
	assert_int_equal(st.pages, 5);
	assert_int_equal(st.taken, 2);
	assert_int_equal(st.objects[POLICY_BARE], 2);
	policy_remove(p, 1);
	policy_remove(p, 2);
	put(3, 4); /* it has been written to */
	check();
	assert_int_equal(take(POLICY_BARE), 0);
	evict(3);
}

static void who_is_taken_is_taken_once(void **state)
{
	(void)state;
	put(1, 1);
	put(2, 1);
	assert_int_equal(take(POLICY_PAGES), 1);
	put(1, 3); /* changed meanwhile */
	check();
	assert_int_equal(take(POLICY_PAGES), 2);
	assert_int_equal(take(POLICY_PAGES), 0);
	policy_keep(p, 1);
	policy_keep(p, 1);
	policy_keep(p, 99);
	check();
	evict(1);
	policy_remove(p, 2);
	check();
}

/* Its name is known for a while, whatever number it has now; and so is a file's that gets
 * its name by a rename. */
static void who_comes_back_stays(void **state)
{
	struct policy_object again = object(1, 1), moved = object(2, 1);
	struct policy_stat st;

	(void)state;
	for (unsigned i = 1; i <= 100; i++)
		put(i, 1);
	evict(1);
	evict(2);
	again.fileid = 1001;
	assert_int_equal(policy_put(p, &again), 0);
	put(1002, 1); /* as a temporary name */
	moved.fileid = 1002;
	assert_int_equal(policy_put(p, &moved), 0);
	check();
	policy_stat(p, &st);
	assert_int_equal(st.back, 2);
	for (unsigned i = 3; i <= 100 - 10; i++)
		evict(i);
	/* Once. And not who was removed by somebody. */
	policy_remove(p, 1001);
	again.fileid = 2001;
	assert_int_equal(policy_put(p, &again), 0);
	policy_stat(p, &st);
	assert_int_equal(st.back, 2);
	check();
}

static void a_scan_pushes_out_nothing_that_is_used(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 900; i++)
		put(i, 1);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 1; i <= 800; i++)
			policy_use(p, i);
	for (unsigned i = 10000; i < 20000; i++) {
		put(i, 1);
		uint64_t gone = take(POLICY_PAGES);
		assert_true(gone > 800);
		policy_remove(p, gone);
	}
	check();
}

/* Ten pages are as much as ten of one. */
static void the_share_is_one_of_pages(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 9; i++) {
		put(i, 10);
		policy_use(p, i);
	}
	put(10, 10); /* a tenth, when the others have moved */
	evict(10);
	put(11, 9);
	evict(1);
	check();
}

/* A model ---------------------------------------------------------------------------- */

enum { NAMES = 300, NMODEL = 400 };

/* Objects in order, what is new first; who is where. */
struct model_queue {
	uint64_t v[NMODEL];
	unsigned n;
};

static struct model {
	struct policy_object o[NMODEL]; /* by fileid */
	unsigned uses[NMODEL], from[NMODEL];
	bool there[NMODEL], taken[NMODEL];
	struct model_queue q[POLICY_KINDS][2];
} m;

static enum policy_kind kind_of(uint64_t fileid)
{
	return m.o[fileid].pages ? POLICY_PAGES : POLICY_BARE;
}

static uint64_t weight(uint64_t fileid)
{
	return m.o[fileid].pages ? m.o[fileid].pages : 1;
}

static uint64_t sum(const struct model_queue *q)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < q->n; i++)
		n += weight(q->v[i]);
	return n;
}

static void model_push(struct model_queue *q, uint64_t fileid)
{
	memmove(q->v + 1, q->v, q->n++ * sizeof(q->v[0]));
	q->v[0] = fileid;
}

/* Which of the two queues it was in; 2: none. */
static unsigned model_pull(uint64_t fileid)
{
	for (unsigned where = 0; where < 2; where++) {
		struct model_queue *q = &m.q[kind_of(fileid)][where];
		for (unsigned i = 0; i < q->n; i++) {
			if (q->v[i] != fileid)
				continue;
			memmove(q->v + i, q->v + i + 1, (--q->n - i) * sizeof(q->v[0]));
			return where;
		}
	}
	return 2;
}

static uint64_t model_take(enum policy_kind kind)
{
	struct model_queue *small = &m.q[kind][0], *big = &m.q[kind][1];

	for (;;) {
		bool is_small = small->n && (!big->n || sum(small) * 10 >= sum(small) + sum(big));
		struct model_queue *q = is_small ? small : big;
		if (!q->n)
			return 0;
		uint64_t fileid = q->v[--q->n];
		if (!m.uses[fileid]) {
			m.taken[fileid] = true;
			return fileid;
		}
		m.uses[fileid] = is_small ? 0 : m.uses[fileid] - 1;
		model_push(big, fileid);
	}
}

static void model_put(const struct policy_object *o)
{
	uint64_t fileid = o->fileid;
	bool is_new = !m.there[fileid];

	if (!is_new && !memcmp(&m.o[fileid], o, sizeof(*o)))
		return;
	unsigned where = is_new ? 0 : model_pull(fileid);
	m.o[fileid] = *o;
	m.there[fileid] = true;
	if (is_new)
		m.uses[fileid] = 0;
	if (where < 2)
		model_push(&m.q[kind_of(fileid)][where], fileid);
}

static void step(uint64_t *seed)
{
	uint64_t x = random_next(seed), fileid = 1 + (x >> 8) % (NMODEL - 1);
	struct policy_object o = object(fileid, (uint32_t)(x >> 20) % 7);

	/* Without a name it is never a ghost, which the model does not know. */
	o.parent = o.h = 0;
	switch (x % 8) {
	case 0: case 1: case 2:
		assert_int_equal(policy_put(p, &o), 0);
		model_put(&o);
		break;
	case 3: case 4:
		policy_use(p, fileid);
		m.uses[fileid] += m.there[fileid] && m.uses[fileid] < 3;
		break;
	case 5:
		policy_remove(p, fileid);
		if (m.there[fileid] && !m.taken[fileid])
			model_pull(fileid);
		m.there[fileid] = m.taken[fileid] = false;
		break;
	case 6:
		assert_int_equal(take(x >> 16 & 1), model_take(x >> 16 & 1));
		break;
	default:
		policy_keep(p, fileid);
		if (m.there[fileid] && m.taken[fileid])
			model_push(&m.q[kind_of(fileid)][1], fileid);
		m.taken[fileid] = false;
	}
}

static void random_walk(void **state)
{
	uint64_t seed = clock_ns(), begun = seed;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)begun);
	m = (struct model){ 0 };
	for (unsigned i = 0; i < 60000; i++) {
		step(&seed);
		if (i % 97 == 0)
			check();
	}
	check();
}

/* Many ------------------------------------------------------------------------------- */

static void memory_is_flat(void **state)
{
	struct policy_stat before, st;

	(void)state;
	for (unsigned i = 1; i <= 200000; i++) {
		put(i, 1);
		if (i <= 20000)
			continue;
		uint64_t gone = take(POLICY_PAGES);
		assert_true(gone);
		policy_remove(p, gone);
		if (i == 60000)
			policy_stat(p, &before);
	}
	policy_stat(p, &st);
	assert_int_equal(st.bytes, before.bytes);
	assert_int_equal(st.objects[POLICY_PAGES], 20000);
	print_message("%.1f bytes an object\n", (double)st.bytes / 20000);
	assert_true(st.bytes / 20000 < 80);
	check();
}

static void *works(void *arg)
{
	uint64_t seed = (uintptr_t)arg, first = seed << 32;
	struct policy_object o;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t x = random_next(&seed), fileid = first + x % 500;
		o = object(fileid, x >> 12 & 1);
		if (x >> 13 & 1)
			policy_put(p, &o);
		policy_use(p, fileid);
		if (i % 3 == 0 && policy_take(p, x >> 14 & 1, &o)) {
			if (x >> 15 & 1)
				policy_remove(p, o.fileid);
			else
				policy_keep(p, o.fileid);
		}
	}
	return NULL;
}

static void by_several_threads(void **state)
{
	pthread_t t[4];
	struct policy_stat st;

	(void)state;
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, works, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	policy_stat(p, &st);
	assert_int_equal(st.taken, 0);
	check();
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(first_in_first_out),
		TEST(who_is_used_stays_once_for_each_use),
		TEST(kinds_go_by_themselves),
		TEST(who_is_taken_is_taken_once),
		TEST(who_comes_back_stays),
		TEST(a_scan_pushes_out_nothing_that_is_used),
		TEST(the_share_is_one_of_pages),
		TEST(random_walk),
		TEST(memory_is_flat),
		TEST(by_several_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
