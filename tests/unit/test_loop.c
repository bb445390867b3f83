/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: order of calls, timers and their ends, from all threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/loop.h"
#include "common/metrics.h"

static struct loop *loop;
static atomic_uint ticks;

static int setup(void **state)
{
	(void)state;
	atomic_store(&ticks, 0);
	return loop_new("test-loop", &loop);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	loop = NULL;
	return metrics_busy(NULL) ? -1 : 0;
}

static void wait_for(atomic_uint *n, unsigned at_least)
{
	uint64_t end = clock_ns() + 20 * NS_PER_S;

	while (atomic_load(n) < at_least && clock_ns() < end)
		usleep(500);
	assert_true(atomic_load(n) >= at_least);
}

static void tick(void *arg)
{
	assert(loop_is_current(loop));
	lock_assert_none();
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static void note_name(void *arg)
{
	pthread_getname_np(pthread_self(), arg, 16);
	atomic_fetch_add(&ticks, 1);
}

static void test_thread_has_a_name(void **state)
{
	char name[16];
	(void)state;

	assert_false(loop_is_current(loop));
	assert_int_equal(loop_post(loop, note_name, name), 0);
	wait_for(&ticks, 1);
	assert_string_equal(name, "test-loop");
}

static struct order {
	unsigned next, wrong;
} order;

static void expect_in_order(void *arg)
{
	order.wrong += order.next++ != (unsigned)(uintptr_t)arg;
}

static void test_calls_keep_their_order(void **state)
{
	(void)state;
	order = (struct order){ 0 };
	for (uintptr_t i = 0; i < 10000; i++)
		assert_int_equal(loop_post(loop, expect_in_order, (void *)i), 0);
	loop_free(loop); /* runs what was posted */
	loop = NULL;
	assert_int_equal(order.next, 10000);
	assert_int_equal(order.wrong, 0);
}

static void post_again(void *arg)
{
	if (atomic_fetch_add(&ticks, 1) < 100)
		assert(loop_post(loop, post_again, arg) == 0);
}

static void test_a_call_may_post(void **state)
{
	(void)state;
	loop_post(loop, post_again, NULL);
	wait_for(&ticks, 101);
}

struct seen {
	unsigned before; /* that were posted earlier, and have run */
	bool on_loop;
};

static void see(void *arg)
{
	struct seen *s = arg;

	s->before = atomic_load(&ticks);
	s->on_loop = loop_is_current(loop);
}

/* It comes back after what was posted before, and has run on the loop. */
static void test_a_call_is_waited_for(void **state)
{
	struct seen s = { 0 };

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		loop_post(loop, tick, &ticks);
	loop_run(loop, see, &s);
	assert_int_equal(s.before, 50);
	assert_true(s.on_loop);
	assert_false(loop_is_current(loop));
}

static void test_timers(void **state)
{
	struct loop_timer *once, *often, *late;
	atomic_uint n_once = 0, n_late = 0;
	(void)state;

	assert_int_equal(loop_timer_new(loop, 1, 0, tick, &n_once, &once), 0);
	assert_int_equal(loop_timer_new(loop, 0, 2, tick, &ticks, &often), 0);
	assert_int_equal(loop_timer_new(loop, 3600000, 0, tick, &n_late, &late), 0);
	wait_for(&ticks, 5);
	wait_for(&n_once, 1);
	loop_timer_free(often);
	unsigned n = atomic_load(&ticks);
	usleep(20000);
	assert_int_equal(atomic_load(&ticks), n);
	assert_int_equal(atomic_load(&n_once), 1);
	assert_int_equal(atomic_load(&n_late), 0);
	loop_timer_free(once);
	loop_timer_free(late);
	loop_timer_free(NULL);
}

static atomic_bool inside;

static void dawdle(void *arg)
{
	(void)arg;
	atomic_store(&inside, true);
	usleep(30000);
	atomic_store(&inside, false);
	atomic_fetch_add(&ticks, 1);
}

static struct loop_timer *again_timer;

/* Each time in two milliseconds again, three times; then never. */
static void tick_again(void *arg)
{
	tick(arg);
	loop_timer_set(again_timer, atomic_load(&ticks) < 3 ? clock_ns() + 2000000 : 0);
}

static void set_again(void *arg)
{
	(void)arg;
	loop_timer_set(again_timer, clock_ns() + 3600 * NS_PER_S);
	loop_timer_set(again_timer, clock_ns());
}

static void test_a_timer_can_be_set_again(void **state)
{
	(void)state;
	assert_int_equal(loop_timer_new(loop, LOOP_NEVER, 0, tick_again, &ticks, &again_timer), 0);
	usleep(20000);
	assert_int_equal(atomic_load(&ticks), 0);
	assert_int_equal(loop_post(loop, set_again, NULL), 0);
	wait_for(&ticks, 3);
	usleep(20000);
	assert_int_equal(atomic_load(&ticks), 3);
	loop_timer_free(again_timer);
}

static void test_freeing_waits_for_the_call(void **state)
{
	struct loop_timer *t;
	(void)state;

	assert_int_equal(loop_timer_new(loop, 0, 1, dawdle, NULL, &t), 0);
	while (!atomic_load(&inside))
		usleep(100);
	loop_timer_free(t);
	assert_false(atomic_load(&inside));
	assert_true(atomic_load(&ticks) >= 1);
}

struct suicide {
	struct loop_timer *timer;
	unsigned left;
};

static void free_own_timer(void *arg)
{
	struct suicide *s = arg;

	if (--s->left)
		return;
	loop_timer_free(s->timer);
	free(s);
	atomic_fetch_add(&ticks, 1);
}

static void test_a_timer_may_free_itself(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		struct suicide *s = calloc(1, sizeof(*s));
		assert_non_null(s);
		s->left = 1 + i % 3;
		assert_int_equal(loop_timer_new(loop, 0, 1, free_own_timer, s, &s->timer), 0);
	}
	wait_for(&ticks, 100);
}

static void make_and_free(void *arg)
{
	struct loop_timer *t;

	assert(loop_timer_new(loop, 0, 0, tick, &ticks, &t) == 0);
	loop_timer_free(t);
	atomic_fetch_add((atomic_uint *)arg, 1);
}

/* Freed before it was started: never called. */
static void test_made_and_freed_on_the_loop(void **state)
{
	atomic_uint made = 0;
	(void)state;

	for (unsigned i = 0; i < 100; i++)
		loop_post(loop, make_and_free, &made);
	wait_for(&made, 100);
	loop_free(loop);
	loop = NULL;
	assert_int_equal(atomic_load(&ticks), 0);
}

/* A pipe and how many bytes came out of it. */
struct watched {
	int fds[2];
	atomic_uint bytes;
};

static void read_one(void *arg)
{
	struct watched *w = arg;
	char c;

	assert(loop_is_current(loop));
	if (read(w->fds[0], &c, 1) == 1)
		atomic_fetch_add(&w->bytes, 1);
}

static void test_watches(void **state)
{
	struct watched w = { 0 };
	struct loop_watch *watch;
	(void)state;

	assert_int_equal(pipe(w.fds), 0);
	assert_int_equal(write(w.fds[1], "abc", 3), 3);
	assert_int_equal(loop_watch_new(loop, w.fds[0], read_one, &w, &watch), 0);
	wait_for(&w.bytes, 3);
	assert_int_equal(write(w.fds[1], "d", 1), 1);
	wait_for(&w.bytes, 4);
	loop_watch_free(watch);
	loop_watch_free(NULL);
	assert_int_equal(write(w.fds[1], "e", 1), 1);
	usleep(20000);
	assert_int_equal(atomic_load(&w.bytes), 4);
	/* Watched anew, and freed with something to read. */
	assert_int_equal(loop_watch_new(loop, w.fds[0], read_one, &w, &watch), 0);
	loop_watch_free(watch);
	close(w.fds[0]);
	close(w.fds[1]);
}

static void *walk(void *arg)
{
	struct loop_timer *t[8] = { NULL };
	unsigned seed = (unsigned)(uintptr_t)arg;
	atomic_uint mine = 0, posted = 0;

	for (unsigned i = 0; i < 3000; i++) {
		unsigned x = (unsigned)rand_r(&seed) % 8;

		if (t[x]) {
			loop_timer_free(t[x]);
			t[x] = NULL;
		} else if (i % 3) {
			assert(loop_timer_new(loop, x, x % 3, tick, &mine, &t[x]) == 0);
		} else {
			assert(loop_post(loop, tick, &posted) == 0);
			atomic_fetch_sub(&posted, 1);
		}
	}
	for (unsigned x = 0; x < 8; x++)
		loop_timer_free(t[x]);
	while (atomic_load(&posted)) /* they point to this stack */
		usleep(100);
	return NULL;
}

static void test_random_walk_of_threads(void **state)
{
	pthread_t threads[4];
	const char *env = getenv("SEED");
	unsigned seed = env ? (unsigned)strtoul(env, NULL, 0) : (unsigned)time(NULL);
	(void)state;

	print_message("SEED=%u\n", seed);
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, walk, (void *)(seed + i));
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_thread_has_a_name),
		TEST(test_calls_keep_their_order),
		TEST(test_a_call_may_post),
		TEST(test_a_call_is_waited_for),
		TEST(test_timers),
		TEST(test_a_timer_can_be_set_again),
		TEST(test_freeing_waits_for_the_call),
		TEST(test_a_timer_may_free_itself),
		TEST(test_made_and_freed_on_the_loop),
		TEST(test_watches),
		TEST(test_random_walk_of_threads),
	};

	loop_free(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
