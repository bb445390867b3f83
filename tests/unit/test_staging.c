/* SPDX-License-Identifier: Apache-2.0 */
/* Registered buffers: nobody gets another's bytes, all who wait are served, in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/staging.h"

enum { BYTES = 4 << 20 };

static struct staging *staging;

static int setup(void **state)
{
	(void)state;
	return staging_new(BYTES, &staging, NULL);
}

static int teardown(void **state)
{
	(void)state;
	staging_free(staging);
	return metrics_busy(NULL) ? -1 : 0;
}

struct waiter {
	struct staging_wait w; /* first */
	void *at;
	atomic_uint got;
	unsigned order;
};

static atomic_uint order;

static void note(struct staging_wait *w, void *at)
{
	struct waiter *x = (struct waiter *)w;

	lock_assert_none();
	x->at = at;
	x->order = atomic_fetch_add(&order, 1);
	assert(atomic_fetch_add(&x->got, 1) == 0);
}

static void wait_for_room(struct waiter *x, size_t len)
{
	*x = (struct waiter){ .w = { .len = len, .got = note } };
	staging_wait(staging, &x->w);
}

static void all_of_it_can_be_taken(void **state)
{
	void *at[4];
	(void)state;

	assert_int_equal(staging_new(4096, &staging, NULL), -EINVAL);
	for (unsigned i = 0; i < 4; i++) {
		at[i] = staging_take(staging, STAGING_MAX);
		assert_non_null(at[i]);
		assert_int_equal((uintptr_t)at[i] % 4096, 0);
		memset(at[i], (int)i, STAGING_MAX);
	}
	assert_null(staging_take(staging, 1));
	assert_int_equal(metric_get(M_STAGED), BYTES);
	for (unsigned i = 0; i < 4; i++)
		staging_give(staging, at[i], STAGING_MAX);
	staging_free(NULL);
}

static void who_waits_is_served_in_order(void **state)
{
	void *at[4];
	struct waiter large, small, one;
	(void)state;

	for (unsigned i = 0; i < 4; i++)
		at[i] = staging_take(staging, STAGING_MAX - 4096);
	wait_for_room(&large, STAGING_MAX);
	wait_for_room(&small, 4096);
	wait_for_room(&one, 1);
	/* There are pages, but not for the one who came first. */
	assert_int_equal(atomic_load(&small.got), 0);
	assert_null(staging_take(staging, 1));
	staging_give(staging, at[0], STAGING_MAX - 4096);
	assert_int_equal(atomic_load(&large.got), 1);
	assert_int_equal(atomic_load(&one.got), 1);
	assert_true(large.order < small.order && small.order < one.order);
	for (unsigned i = 1; i < 4; i++)
		staging_give(staging, at[i], STAGING_MAX - 4096);
	staging_give(staging, large.at, STAGING_MAX);
	staging_give(staging, small.at, 4096);
	staging_give(staging, one.at, 1);
}

static void who_gives_up_is_not_served(void **state)
{
	void *at[4];
	struct waiter large, small;
	(void)state;

	for (unsigned i = 0; i < 4; i++)
		at[i] = staging_take(staging, STAGING_MAX - 4096);
	wait_for_room(&large, STAGING_MAX);
	wait_for_room(&small, 4096);
	assert_true(staging_cancel(staging, &large.w));
	assert_int_equal(atomic_load(&small.got), 1); /* it was in its way */
	assert_false(staging_cancel(staging, &small.w));
	wait_for_room(&large, STAGING_MAX);
	assert_true(staging_cancel(staging, &large.w)); /* the last in the line */
	wait_for_room(&large, 4096);
	assert_int_equal(atomic_load(&large.got), 1);
	staging_give(staging, small.at, 4096);
	staging_give(staging, large.at, 4096);
	for (unsigned i = 0; i < 4; i++)
		staging_give(staging, at[i], STAGING_MAX - 4096);
}

/* Each marks its bytes and finds them so when it gives them back. */
static void *walk(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (unsigned i = 0; i < 2000; i++) {
		size_t len = 1 + random_next(&seed) % (random_next(&seed) % 4 ? 9000 : STAGING_MAX);
		uint64_t mark = random_next(&seed), *at = staging_take(staging, len);
		struct waiter x;

		if (!at) {
			wait_for_room(&x, len);
			if (random_next(&seed) % 4 == 0 && staging_cancel(staging, &x.w))
				continue;
			while (!atomic_load(&x.got))
				sched_yield();
			at = x.at;
		}
		for (size_t k = 0; k < len; k += 4096)
			at[k / 8] = mark;
		if (i % 8 == 0)
			sched_yield();
		for (size_t k = 0; k < len; k += 4096)
			assert(at[k / 8] == mark);
		staging_give(staging, at, len);
	}
	return NULL;
}

static void random_walk_of_threads(void **state)
{
	const char *env = getenv("SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
	pthread_t threads[8];
	(void)state;

	print_message("SEED=%llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, walk, (void *)(uintptr_t)(seed + i));
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(metric_get(M_STAGED), 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(all_of_it_can_be_taken),
		TEST(who_waits_is_served_in_order),
		TEST(who_gives_up_is_not_served),
		TEST(random_walk_of_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
