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

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sched.h>
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
	uint64_t h = (uint64_t)(uint32_t)fileid << POLICY_H_LOW;

	return (struct policy_object){ fileid, 7, h, pages, 1 };
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

/* Whoever goes, from the middle or the ends, or changes its kind: the others stay in order. */
static void from_the_middle(void **state)
{
	struct policy_object o = { .pages = 1 }; /* without a name: never a ghost */

	(void)state;
	for (unsigned bits = 0; bits < 1 << 12; bits += 7) {
		uint64_t first = 1000 + 16 * bits, left[12];
		unsigned n = 0;
		for (o.fileid = first; o.fileid < first + 12; o.fileid++)
			assert_int_equal(policy_put(p, &o), 0);
		for (unsigned i = 0; i < 12; i++) {
			if (!(bits >> i & 1))
				left[n++] = first + i;
			else if (i % 2)
				put(first + i, 0);
			else
				policy_remove(p, first + i);
		}
		check();
		for (unsigned i = 0; i < n; i++)
			evict(left[i]);
		assert_int_equal(take(POLICY_PAGES), 0);
		for (uint64_t gone; (gone = take(POLICY_BARE));)
			policy_remove(p, gone);
	}
	check();
}

static void what_is_kept_of_an_object(void **state)
{
	const uint64_t large = (1ULL << 48) - 1;
	struct policy_object o = { large, large - 1, (1ULL << 63) - 1, 2047, 2 }, got;
	struct policy_stat st;

	(void)state;
	assert_int_equal(policy_put(p, &o), 0);
	assert_true(policy_get(p, large, &got));
	assert_int_equal(got.fileid, large);
	assert_int_equal(got.parent, large - 1);
	assert_int_equal(got.h, o.h >> POLICY_H_LOW << POLICY_H_LOW);
	assert_int_equal(got.pages, 2047);
	assert_int_equal(got.priority, 2);
	for (uint64_t pages = 1; pages <= UINT32_MAX; pages = pages * 5 / 4 + 1) {
		o.pages = (uint32_t)pages;
		assert_int_equal(policy_put(p, &o), 0);
		assert_true(policy_get(p, large, &got));
		assert_true(got.pages <= pages && got.pages >= pages - pages / 1000);
		policy_stat(p, &st);
		assert_int_equal(st.pages, got.pages);
		check();
	}
	for (unsigned i = 0; i < 4; i++) {
		struct policy_object wide = { i == 0 ? large + 1 : 1, i == 1 ? large + 1 : 1,
					      i == 2 ? 1ULL << 63 : 0, 1, i == 3 ? 3 : 0 };
		assert_int_equal(policy_put(p, &wide), -ERANGE);
		assert_false(policy_get(p, wide.fileid, &got));
	}
	policy_remove(p, large);
	policy_stat(p, &st);
	assert_int_equal(st.pages, 0);
}

/* Of those that went last about half as many names are known as there are objects, also when
 * there have been more, and none of who went long before. */
static void half_as_many_names_as_objects(void **state)
{
	enum { ALL = 40000, LEFT = 5000 };
	struct policy_stat before, st;
	unsigned next = 1;

	(void)state;
	for (; next <= ALL; next++)
		put(next, 1);
	for (unsigned i = 1; i <= ALL - LEFT; i++)
		evict(i);
	for (; next <= 3 * ALL; next++) {
		put(next, 1);
		uint64_t gone = take(POLICY_PAGES);
		policy_remove(p, gone);
	}
	/* The newest of them; and some who went three times as long ago as are known. */
	const uint64_t gone = next - 1 - LEFT, froms[] = { gone - LEFT / 4, gone - 3 * LEFT / 2 };
	for (unsigned part = 0; part < 2; part++) {
		policy_stat(p, &before);
		for (unsigned i = 1; i <= LEFT / 4; i++) {
			struct policy_object again = object(froms[part] + i, 1);
			again.fileid += 1000000;
			assert_int_equal(policy_put(p, &again), 0);
			policy_remove(p, again.fileid);
		}
		policy_stat(p, &st);
		print_message("%u of %u names known\n", (unsigned)(st.back - before.back), LEFT / 4);
		if (part)
			assert_true(st.back - before.back < LEFT / 40);
		else
			assert_true(st.back - before.back > LEFT / 4 - LEFT / 40);
	}
	check();
}

/* Lower ones first, whatever is in use. */
static void by_priority(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 30; i++) {
		struct policy_object o = object(i + 1, 1);
		o.priority = (uint8_t)(i % 3);
		assert_int_equal(policy_put(p, &o), 0);
		if (!o.priority)
			policy_use(p, o.fileid);
	}
	check();
	struct policy_object raised = object(1, 1);
	raised.priority = 2;
	assert_int_equal(policy_put(p, &raised), 0);
	check();
	for (unsigned i = 0; i < 30; i++) {
		struct policy_object o;
		assert_true(policy_take(p, POLICY_PAGES, &o));
		assert_int_equal(o.priority, i < 9 ? 0 : i < 19 ? 1 : 2);
		check();
	}
}

static void hits_are_counted(void **state)
{
	(void)state;
	put(1, 1);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(policy_hits(p, 1), i < 63 ? i : 63);
		policy_use(p, 1);
	}
	assert_int_equal(policy_hits(p, 2), 0);
	put(2, 1);
	uint64_t gone = take(POLICY_PAGES); /* a turn costs a use, and no hit */
	assert_int_equal(gone, 2);
	assert_int_equal(policy_hits(p, 1), 63);
}

/* All are seen, also while some go; and taken one by one. */
static void seen_in_order(void **state)
{
	enum { N = 1000 };
	struct policy_cursor c = { 0 };
	struct policy_object v[7], o;
	bool seen[N + 1] = { 0 };
	unsigned n, all = 0, gone = 0;

	(void)state;
	for (unsigned i = 1; i <= N; i++) {
		o = object(i, i % 5);
		o.priority = (uint8_t)(i % 3);
		assert_int_equal(policy_put(p, &o), 0);
	}
	while ((n = policy_see(p, POLICY_PAGES, &c, v, 7))) {
		for (unsigned i = 0; i < n; i++) {
			assert_true(v[i].pages);
			all += !seen[v[i].fileid];
			seen[v[i].fileid] = true;
			if (v[i].fileid % 4)
				continue;
			if (policy_take_this(p, v[i].fileid, &o)) {
				assert_int_equal(o.fileid, v[i].fileid);
				assert_false(policy_take_this(p, v[i].fileid, &o));
				policy_remove(p, v[i].fileid);
				gone++;
			}
			check();
		}
	}
	assert_int_equal(all, N - N / 5);
	assert_int_equal(gone, N / 4 - N / 20);
	assert_false(policy_take_this(p, 4, &o));
	c = (struct policy_cursor){ 0 };
	for (n = 0; policy_see(p, POLICY_BARE, &c, v, 1); n++)
		;
	assert_int_equal(n, N / 5);
}

/* A model ---------------------------------------------------------------------------- */

enum { NMODEL = 400 };

/* Objects in order, what is new first; who is where. */
struct model_queue {
	uint64_t v[NMODEL];
	unsigned n;
};

static struct model {
	struct policy_object o[NMODEL]; /* by fileid */
	unsigned uses[NMODEL], from[NMODEL];
	bool there[NMODEL], taken[NMODEL];
	struct model_queue q[POLICY_KINDS][POLICY_PRIORITIES][2];
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
		struct model_queue *q = &m.q[kind_of(fileid)][m.o[fileid].priority][where];
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
	for (unsigned priority = 0; priority < POLICY_PRIORITIES;) {
		struct model_queue *small = &m.q[kind][priority][0], *big = &small[1];
		bool is_small = small->n && (!big->n || sum(small) * 10 >= sum(small) + sum(big));
		struct model_queue *q = is_small ? small : big;
		if (!q->n) {
			priority++;
			continue;
		}
		uint64_t fileid = q->v[--q->n];
		if (!m.uses[fileid]) {
			m.taken[fileid] = true;
			return fileid;
		}
		m.uses[fileid] = is_small ? 0 : m.uses[fileid] - 1;
		model_push(big, fileid);
	}
	return 0;
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
		model_push(&m.q[kind_of(fileid)][o->priority][where], fileid);
}

static void step(uint64_t *seed)
{
	uint64_t x = random_next(seed), fileid = 1 + (x >> 8) % (NMODEL - 1);
	struct policy_object o = object(fileid, (uint32_t)(x >> 20) % 7);

	/* Without a name it is never a ghost, which the model does not know. */
	o.parent = o.h = 0;
	o.priority = (uint8_t)((x >> 40) % POLICY_PRIORITIES);
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
			model_push(&m.q[kind_of(fileid)][m.o[fileid].priority][1], fileid);
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

/* 32 bytes an object is what is promised for a million. The rest is up to a chunk of each. */
static void memory_is_flat(void **state)
{
	enum { MANY = 200000 };
	struct policy_stat before, st;

	(void)state;
	for (unsigned i = 1; i <= 5 * MANY; i++) {
		put(i, 1);
		if (i % 3 == 0)
			policy_remove(p, i - i / 3 % 500); /* by somebody, from wherever it is */
		policy_stat(p, &st);
		while (st.objects[POLICY_PAGES] > MANY) {
			uint64_t gone = take(POLICY_PAGES);
			assert_true(gone);
			policy_remove(p, gone);
			policy_stat(p, &st);
		}
		if (i == 2 * MANY)
			before = st;
	}
	assert_int_equal(st.bytes, before.bytes);
	assert_int_equal(st.objects[POLICY_PAGES], MANY);
	print_message("%.1f bytes an object\n", (double)st.bytes / MANY);
	assert_true(st.bytes < 36ULL * MANY);
	check();
}

enum { OURS = 500 }; /* objects of each thread */

/* Uses are of the others' as well. */
static void *works(void *arg)
{
	uint64_t me = (uintptr_t)arg, seed = me;
	struct policy_object o;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t x = random_next(&seed), fileid = me << 32 | x % OURS;
		o = object(fileid, x >> 12 & 1);
		if (x >> 13 & 1)
			assert_int_equal(policy_put(p, &o), 0);
		policy_use(p, (1 + (x >> 16 & 3)) << 32 | x % OURS);
		if (i % 3 == 0 && policy_take(p, x >> 14 & 1, &o)) {
			if (x >> 15 & 1)
				policy_remove(p, o.fileid);
			else
				policy_keep(p, o.fileid);
		}
		if (i % 7 == 0)
			policy_remove(p, me << 32 | (x >> 20) % OURS);
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

enum { STABLE = 1000 };
static _Atomic bool is_using;
static _Atomic uint64_t nuses;

static void *uses_all(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (is_using) {
		policy_use(p, 1 + random_next(&seed) % STABLE);
		nuses++;
	}
	return NULL;
}

/* While the table grows and slots change their objects, uses find theirs: who is used
 * again and again stays, and the others go. */
static void uses_without_the_lock_count(void **state)
{
	pthread_t t[2];
	unsigned left = 0;
	struct policy_object o;

	(void)state;
	for (unsigned i = 1; i <= STABLE; i++)
		put(i, 1);
	is_using = true;
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, uses_all, (void *)(i + 1)), 0);
	uint64_t until = clock_ns() + 200 * NS_PER_MS;
	for (unsigned i = STABLE + 1; clock_ns() < until || i < 30000; i++) {
		put(i, 1);
		/* However busy the machine is, each is used now and then. */
		for (uint64_t want = nuses + (i % 64 ? 0 : 8 * STABLE); nuses < want;)
			sched_yield();
		if (i % 2)
			policy_remove(p, i - i % 16);
		if (i > 20 * STABLE) {
			uint64_t gone = take(POLICY_PAGES);
			policy_remove(p, gone);
		}
		if (i % 1024 == 0)
			sched_yield();
	}
	is_using = false;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 1; i <= STABLE; i++)
		left += policy_get(p, i, &o);
	print_message("%u of %d left\n", left, STABLE);
	assert_true(left > STABLE * 9 / 10);
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
		TEST(from_the_middle),
		TEST(what_is_kept_of_an_object),
		TEST(by_priority),
		TEST(hits_are_counted),
		TEST(seen_in_order),
		TEST(half_as_many_names_as_objects),
		TEST(random_walk),
		TEST(memory_is_flat),
		TEST(by_several_threads),
		TEST(uses_without_the_lock_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
