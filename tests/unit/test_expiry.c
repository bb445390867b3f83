/* SPDX-License-Identifier: Apache-2.0 */
/* engine/expiry.h: ends come in order, a use puts one off, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/random.h"
#include "engine/expiry.h"

static struct expiry *x;

static int setup(void **state)
{
	(void)state;
	return expiry_new(&x);
}

static int teardown(void **state)
{
	(void)state;
	expiry_free(x);
	return 0;
}

static void put(uint64_t fileid, int64_t at, uint32_t idle)
{
	assert_int_equal(expiry_put(x, &(struct expiry_end){ .fileid = fileid, .at = at,
							    .idle = idle }), 0);
}

/* The fileid whose end comes, or 0; *next: that of the first that does not. */
static uint64_t take(int64_t now, int64_t *next)
{
	struct expiry_end end;

	return expiry_take(x, now, &end, next) ? 0 : end.fileid;
}

static void in_order(void **state)
{
	int64_t next;

	(void)state;
	assert_int_equal(take(100, &next), 0);
	assert_int_equal(next, INT64_MAX);
	put(1, 30, 0);
	put(2, 10, 0);
	put(3, 20, 0);
	put(1, 5, 0); /* another end */
	assert_int_equal(take(4, &next), 0);
	assert_int_equal(next, 5);
	assert_int_equal(take(20, &next), 1);
	assert_int_equal(take(20, &next), 2);
	expiry_remove(x, 3);
	expiry_remove(x, 3);
	assert_int_equal(take(20, &next), 0);
	assert_int_equal(expiry_number(x), 0);
}

static void a_use_puts_it_off(void **state)
{
	struct expiry_end end = { .fileid = 2, .at = 11 };
	int64_t next;

	(void)state;
	put(1, 10, 5);
	put(2, 11, 0);
	expiry_use(x, 1, 8);
	expiry_use(x, 1, 7);
	expiry_use(x, 2, 8);
	expiry_use(x, 3, 8);
	assert_int_equal(expiry_at(x, 1), 13);
	assert_int_equal(expiry_at(x, 2), 11);
	assert_int_equal(expiry_at(x, 3), 0);
	assert_int_equal(take(12, &next), 2);
	assert_int_equal(take(12, &next), 0);
	assert_int_equal(next, 13);
	assert_int_equal(expiry_keep(x, &end), 0);
	end.at = 99;
	assert_int_equal(expiry_keep(x, &end), 0); /* it has one by now */
	assert_int_equal(take(13, &next), 2);
	assert_int_equal(take(13, &next), 1);
}

/* Against a plain array. */
static void random_ends(void **state)
{
	enum { N = 200, STEPS = 50000 };
	struct { int64_t at, used; uint32_t idle; bool is; } all[N + 1] = { 0 };
	uint64_t seed = clock_ns();
	int64_t now = 0, next;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned step = 0; step < STEPS; step++) {
		uint64_t roll = random_next(&seed), f = 1 + roll % N;
		int64_t at = now + (int64_t)(roll >> 8 & 63);
		switch (roll >> 16 & 7) {
		case 0: case 1: case 2:
			all[f].idle = roll >> 32 & 1 ? 1 + (roll >> 33 & 31) : 0;
			if (!all[f].is)
				all[f].used = 0;
			all[f].at = at;
			all[f].is = true;
			put(f, at, all[f].idle);
			break;
		case 3:
			all[f].is = false;
			expiry_remove(x, f);
			break;
		case 4: case 5:
			if (all[f].is && all[f].idle && now > all[f].used)
				all[f].used = now;
			expiry_use(x, f, now);
			break;
		default:
			now++;
			for (uint64_t t; (t = take(now, &next));) {
				assert_true(all[t].is && all[t].at <= now);
				assert_false(all[t].idle && all[t].used &&
					     all[t].used + all[t].idle > now);
				all[t].is = false;
			}
			for (unsigned i = 1; i <= N; i++)
				assert_true(!all[i].is || all[i].at > now || (all[i].idle &&
					    all[i].used + all[i].idle > now));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(a_use_puts_it_off, setup, teardown),
		cmocka_unit_test_setup_teardown(random_ends, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
