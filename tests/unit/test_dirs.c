/* SPDX-License-Identifier: Apache-2.0 */
/* engine/dirs.h: what is below a directory that has a quota, whatever is moved; against sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/random.h"
#include "engine/dirs.h"

enum { N = 40, STEPS = 20000 };

static struct dirs *d;

static int setup(void **state)
{
	(void)state;
	return dirs_new(&d);
}

static int teardown(void **state)
{
	(void)state;
	dirs_free(d);
	return 0;
}

static void by_hand(void **state)
{
	uint64_t pages = 0;

	(void)state;
	/* 1 / 2 / 3, heard of in another order. */
	assert_int_equal(dirs_add(d, 3, 5), 0);
	assert_int_equal(dirs_put(d, 3, 2, 4), 0);
	assert_int_equal(dirs_put(d, 2, 1, 100), 0);
	assert_int_equal(dirs_put(d, 1, 1, 0), 0);
	dirs_count(d);
	assert_true(dirs_have_quotas(d));
	assert_int_equal(dirs_used(d, 3), 5);
	assert_int_equal(dirs_used(d, 2), 5);
	assert_int_equal(dirs_used(d, 1), 0);
	assert_int_equal(dirs_over(d, 0, 9, &pages), 3);
	assert_int_equal(pages, 1);
	assert_int_equal(dirs_over(d, 3, 9, &pages), 0);
	assert_true(dirs_is_below(d, 3, 1));
	assert_true(dirs_is_below(d, 3, 3));
	assert_false(dirs_is_below(d, 2, 3));
	assert_int_equal(dirs_add(d, 2, 96), 0);
	assert_int_equal(dirs_over(d, 3, 9, &pages), 2);
	dirs_rest(d, 3, 10); /* the others are looked at */
	assert_int_equal(dirs_over(d, 0, 9, &pages), 2);
	assert_int_equal(dirs_over(d, 0, 10, &pages), 3);
	assert_int_equal(dirs_put(d, 3, 1, 4), 0); /* moved away */
	assert_int_equal(dirs_used(d, 2), 96);
	assert_int_equal(dirs_put(d, 3, 1, 0), 0);
	assert_int_equal(dirs_put(d, 2, 1, 0), 0);
	assert_false(dirs_have_quotas(d));
}

struct model {
	uint64_t parent, quota; /* parent 0: it is not there */
	int64_t pages, below;
} m[N + 1];

static bool is_below(const struct model *v, uint64_t dir, uint64_t which)
{
	for (; dir != 1 && dir != which; dir = v[dir].parent)
		;
	return dir == which;
}

static void sum_up(struct model *v, unsigned n)
{
	for (unsigned i = 1; i <= n; i++)
		v[i].below = 0;
	for (unsigned i = 1; i <= n; i++)
		for (uint64_t at = i; v[i].parent; at = v[at].parent) {
			v[at].below += v[i].pages;
			if (at == 1)
				break;
		}
}

static void check(void)
{
	sum_up(m, N);
	for (uint64_t i = 1; i <= N; i++)
		if (m[i].parent)
			assert_int_equal(dirs_used(d, i), m[i].quota ? m[i].below : 0);
}

static void random_dirs(void **state)
{
	uint64_t seed = clock_ns();

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	m[1] = (struct model){ .parent = 1 };
	assert_int_equal(dirs_put(d, 1, 1, 0), 0);
	dirs_count(d);
	for (unsigned step = 0; step < STEPS; step++) {
		uint64_t roll = random_next(&seed), dir = 1 + roll % N;
		uint64_t parent = 1 + (roll >> 8) % N;
		if (!m[parent].parent)
			parent = 1;
		bool is_empty = !m[dir].pages;
		for (uint64_t k = 2; k <= N; k++)
			is_empty &= m[k].parent != dir;
		if (!m[dir].parent) {
			m[dir] = (struct model){ .parent = parent };
			assert_int_equal(dirs_put(d, dir, parent, 0), 0);
		} else if (roll >> 16 & 1) {
			int64_t pages = (int64_t)(roll >> 20 & 15) - m[dir].pages;
			m[dir].pages += pages;
			assert_int_equal(dirs_add(d, dir, pages), 0);
		} else if (roll >> 17 & 1) {
			m[dir].quota = roll >> 20 & 3;
			assert_int_equal(dirs_put(d, dir, m[dir].parent, m[dir].quota), 0);
		} else if (dir != 1 && is_empty) {
			m[dir].parent = m[dir].quota = 0;
			dirs_remove(d, dir);
		} else if (dir != 1 && !is_below(m, parent, dir)) {
			m[dir].parent = parent;
			assert_int_equal(dirs_put(d, dir, parent, m[dir].quota), 0);
		}
		if (!(step % 16))
			check();
	}
	check();
}

/* What a first quota counts in lots, and what is changed meanwhile. */
enum { MANY = 5000 };

/* In any order of their numbers, so that those above come after those below as well. */
static void change_one(struct model *v, uint64_t roll)
{
	uint64_t dir = 2 + roll % (MANY - 1), parent = 1 + (roll >> 16) % MANY;
	int64_t pages = (int64_t)(roll >> 40 & 15) - v[dir].pages;

	if (!v[dir].parent) {
		v[dir] = (struct model){ .parent = 1 };
		assert_int_equal(dirs_put(d, dir, 1, 0), 0);
	} else if (roll >> 32 & 1) {
		v[dir].pages += pages;
		assert_int_equal(dirs_add(d, dir, pages), 0);
	} else if (v[parent].parent && !is_below(v, parent, dir)) {
		v[dir].parent = parent;
		assert_int_equal(dirs_put(d, dir, parent, dir % 7 ? 0 : 1), 0);
	}
}

static void remove_empty(struct model *v)
{
	_cleanup_(freep) bool *full = calloc(MANY + 1, sizeof(*full));

	assert_non_null(full);
	for (unsigned i = 1; i <= MANY; i++)
		full[v[i].parent] = true;
	for (unsigned i = 2; i <= MANY; i++)
		if (v[i].parent && !full[i] && !v[i].pages) {
			dirs_remove(d, i);
			v[i] = (struct model){ 0 };
		}
}

static void some_at_a_time(void **state)
{
	uint64_t seed = clock_ns(), over;
	_cleanup_(freep) struct model *v = calloc(MANY + 1, sizeof(*v));

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	assert_non_null(v);
	v[1].parent = 1;
	assert_int_equal(dirs_put(d, 1, 1, 0), 0);
	dirs_count(d);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 20000; i++)
			change_one(v, random_next(&seed));
		for (uint64_t i = 2; i <= MANY; i++)
			if (v[i].parent)
				assert_int_equal(dirs_put(d, i, v[i].parent, 0), 0);
		assert_false(dirs_have_quotas(d));
		assert_int_equal(dirs_put(d, 1, 1, 1), 0);
		sum_up(v, MANY);
		assert_true(dirs_used(d, 1) < (uint64_t)v[1].below);
		unsigned lots = 1;
		do {
			for (unsigned i = 0; i < 200; i++)
				change_one(v, random_next(&seed));
			remove_empty(v);
			sum_up(v, MANY);
			assert_true(dirs_used(d, 1) <= (uint64_t)v[1].below);
			lots++;
		} while (dirs_count_more(d));
		assert_in_range(lots, 10, MANY / 100);
		for (unsigned i = 0; i < 1000; i++)
			change_one(v, random_next(&seed));
		sum_up(v, MANY);
		assert_int_equal(dirs_used(d, 1), v[1].below);
		for (uint64_t i = 2; i <= MANY; i++)
			if (v[i].parent) {
				assert_int_equal(dirs_put(d, i, v[i].parent, 1), 0);
				assert_int_equal(dirs_used(d, i), v[i].below);
			}
		assert_true(dirs_quotas(d, &over) && over);
		assert_int_equal(dirs_put(d, 1, 1, 0), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_hand, setup, teardown),
		cmocka_unit_test_setup_teardown(random_dirs, setup, teardown),
		cmocka_unit_test_setup_teardown(some_at_a_time, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
