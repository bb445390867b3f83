/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/emptied.h: directories that an eviction emptied go in time; those that a full index
 * found, only as many as it takes, and none before it is known who is there.
 */
#include "tests/unit/file_kit.h"

#include "common/clock.h"
#include "engine/emptied.h"
#include "engine/victim.h"

enum { LOT = 64 }; /* no more of them go, or are tried, at a time */

static struct engine *e;
static struct victims *victims;
static struct emptied *x;

static int setup(void **state)
{
	const struct engine_opts o = { .in_memory = true, .pool_bytes = 16 << 20 };
	int r = engine_open(&o, &e, NULL);

	(void)state;
	return r ? r : victims_new(e, NULL, &victims);
}

static int teardown(void **state)
{
	(void)state;
	emptied_free(x);
	x = NULL;
	victims_free(victims);
	kit_check_engine(e);
	engine_close(e);
	return kit_is_idle() ? 0 : -1;
}

static struct entry make(uint64_t parent, const char *name, unsigned mode)
{
	struct index_op op = { .parent = parent, .name = name, .attr.mode = mode };

	assert_int_equal(index_wait(engine_index(e), &op, index_make), 0);
	struct entry made = op.entry;
	index_op_fini(&op);
	return made;
}

/* n directories of which each has lost a name to an eviction; `other`: and has another one. */
static void make_evicted(const char *kind, unsigned n, bool other)
{
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%u", kind, i);
		uint64_t dir = make(INDEX_ROOT, name, S_IFDIR | 0755).attr.fileid;
		struct entry f = make(dir, "f", S_IFIFO | 0644);
		if (other)
			make(dir, "other", S_IFIFO | 0644);
		struct index_op op = { .fileid = f.attr.fileid,
				       .place = { PLACE_NAME, dir, f.h } };
		assert_int_equal(index_wait(engine_index(e), &op, index_evict), 0);
		index_op_fini(&op);
	}
}

static unsigned nleft(const char *kind, unsigned n)
{
	unsigned there = 0;
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		struct attr a;
		struct place place;
		snprintf(name, sizeof(name), "%s%u", kind, i);
		there += !kit_lookup(e, name, &a, &place);
	}
	return there;
}

static void begin(uint64_t ms)
{
	assert_int_equal(emptied_new(victims, engine_index(e), ms, &x), 0);
}

/* For want of room a quarter of the time is enough, but only for that. */
static void a_full_index_takes_no_more_than_it_needs(void **state)
{
	enum { N = 200, MS = 8000 };
	uint64_t begun_ns = clock_ns();
	unsigned gone = 0;

	(void)state;
	make_evicted("d", N, false);
	begin(MS);
	usleep((MS / 4 + 200) * 1000);
	while (!gone)
		assert_true(emptied_press(x, &gone));
	assert_in_range(gone, 1, LOT);
	/* Until it has looked for others as well. */
	for (uint64_t until_ns = clock_ns() + 2500 * NS_PER_MS; clock_ns() < until_ns;)
		if (!emptied_serve(x))
			usleep(10000);
	unsigned left = nleft("d", N);
	if (clock_ns() - begun_ns >= MS * NS_PER_MS)
		skip(); /* all have their time behind them */
	assert_int_equal(left, N - gone);
}

/* Each is a transaction, and others wait. */
static void those_that_have_names_are_tried_some_at_a_time(void **state)
{
	enum { N = 300 };
	unsigned calls = 0, gone = 0;

	(void)state;
	make_evicted("empty", 1, false);
	make_evicted("d", N, true);
	usleep(1200000);
	begin(4000);
	for (; !gone; calls++)
		assert_true(emptied_press(x, &gone));
	assert_in_range(calls, N / LOT, N);
	assert_int_equal(gone, 1);
	assert_int_equal(nleft("empty", 1), 0);
	assert_int_equal(nleft("d", N), N);
	/* And then there is an end of it. */
	for (calls = 0; emptied_press(x, &gone) && calls < N; calls++)
		assert_int_equal(gone, 0);
	assert_in_range(calls, N / LOT, N - 1);
}

enum { CALLS = 5 };

struct looked {
	unsigned begun, calls;
};

static bool looks(void *arg, bool from_the_beginning)
{
	struct looked *l = arg;

	l->begun += from_the_beginning;
	assert_int_equal(from_the_beginning, l->calls == 0 || l->calls >= CALLS);
	assert_true(l->calls >= CALLS || nleft("d", LOT) == LOT);
	return ++l->calls >= CALLS;
}

/* However many times it takes to say who is there. */
static void none_goes_before_it_is_known_who_is_there(void **state)
{
	struct looked l = { 0 };

	(void)state;
	make_evicted("d", LOT, false);
	victims_watch(victims, &(struct eviction){ .look = looks, .arg = &l });
	usleep(1200000);
	begin(1000);
	while (!emptied_serve(x))
		usleep(10000);
	while (emptied_serve(x))
		;
	victims_watch(victims, NULL);
	assert_true(l.begun >= 1 && l.calls >= CALLS);
	assert_int_equal(nleft("d", LOT), 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_full_index_takes_no_more_than_it_needs),
		TEST(those_that_have_names_are_tried_some_at_a_time),
		TEST(none_goes_before_it_is_known_who_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
