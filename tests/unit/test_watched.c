/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs/watched.c: what may be kept, and that all of it is dropped when another session
 * changes the directory. Two sessions of one index in memory; "the kernel" only notes
 * what it is told to drop. SEED=n repeats the walk.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "fs/watched.h"

#define MS UINT64_C(1000000)

enum { MINE = 7, OTHER = 8, NODEIDS = 64 };

static struct kv *mem;
static struct index *mine, *other;
static struct watched *w;
static atomic_uint dropped[NODEIDS]; /* names, by nodeid */
static atomic_uint dropped_attr;
static _Atomic uint64_t last_dir;

static void nap(unsigned ms)
{
	const struct timespec t = { .tv_nsec = ms * 1000000L };

	nanosleep(&t, NULL);
}

#define WAIT_FOR(x)                                                            \
	do {                                                                   \
		for (int i_ = 0; !(x) && i_ < 5000; i_++)                      \
			nap(1);                                                \
		assert_true(x);                                                \
	} while (0)

static void drop(void *arg, uint64_t dir, const char *name, uint64_t nodeid)
{
	assert_ptr_equal(arg, dropped);
	last_dir = dir;
	if (name)
		atomic_fetch_add(&dropped[nodeid % NODEIDS], 1);
	else
		atomic_fetch_add(&dropped_attr, 1);
}

static void begin(unsigned max_dirs, unsigned max_told, uint64_t keep_ms)
{
	const struct watched_opts o = { .ix = mine, .keep_ns = keep_ms * MS, .drop = drop,
					.max_dirs = max_dirs, .max_told = max_told,
					.arg = dropped };

	assert_int_equal(watched_new(&o, &w), 0);
	memset(dropped, 0, sizeof(dropped));
	dropped_attr = 0;
}

static struct index *open_as(uint64_t session)
{
	struct index *ix;
	struct kv *kv;

	assert_int_equal(kv_lend(mem, &kv), 0);
	assert_int_equal(index_open(kv, session, session == MINE, &ix), 0);
	return ix;
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(kv_mem_open(&mem), 0);
	mine = open_as(MINE);
	other = open_as(OTHER);
	return 0;
}

static int teardown(void **state)
{
	int64_t v;

	(void)state;
	w = watched_free(w);
	assert_int_equal(metric_get(M_WATCHES), 0);
	index_close(mine);
	index_close(other);
	kv_close(mem);
	assert_null(metrics_busy(&v));
	return 0;
}

/* A change of the directory. */
static uint64_t make(struct index *ix, uint64_t parent)
{
	static unsigned n;
	char name[16];

	snprintf(name, sizeof(name), "d%u", n++);
	struct index_op op = { .parent = parent, .name = name, .attr.mode = S_IFDIR | 0755 };
	assert_int_equal(index_wait(ix, &op, index_make), 0);
	uint64_t fileid = op.entry.attr.fileid;
	index_op_fini(&op);
	return fileid;
}

static void chmod_dir(struct index *ix, uint64_t dir)
{
	struct index_op op = { .fileid = dir, .place.kind = PLACE_FILEID,
			       .mask = INDEX_SET_MODE, .attr.mode = 0700 };

	assert_int_equal(index_wait(ix, &op, index_setattr), 0);
	index_op_fini(&op);
}

static uint64_t use(uint64_t dir)
{
	watched_use(w, dir);
	return clock_ns();
}

/* As a lookup that has found something. */
static void keep(uint64_t dir, const char *name, uint64_t nodeid)
{
	assert_int_equal(watched_name(w, dir, name, nodeid, use(dir)), WATCHED_KEEP);
}

static void test_it_is_dropped_when_another_changes_it(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	uint64_t before = clock_ns();
	keep(1, "a", 5);
	keep(1, "b", 6);
	assert_int_equal(watched_name(w, 1, "c", 7, before), WATCHED_NOT);
	assert_int_equal(watched_name(w, 2, "c", 7, clock_ns()), WATCHED_NOT);
	assert_int_equal(watched_attr(w, 5, clock_ns()), WATCHED_KEEP);
	assert_int_equal(watched_attr(w, 7, clock_ns()), WATCHED_NOT);
	assert_int_equal(watched_dir_attr(w, 1, clock_ns()), WATCHED_KEEP);
	assert_true(watched_holds(w, 5, false) && watched_holds(w, 1, true));
	uint64_t asked = clock_ns();
	int64_t rings = metric_get(M_RINGS);
	make(other, 1);
	assert_true(metric_get(M_RINGS) > rings);
	assert_false(watched_holds(w, 5, false) || watched_holds(w, 1, true));
	/* What was asked before the bell rang. */
	assert_int_equal(watched_name(w, 1, "c", 7, asked), WATCHED_SOON);
	/* Once more, since the answers may have been on their way. */
	WAIT_FOR(dropped[5] == 2 && dropped[6] == 2 && dropped_attr == 1);
	assert_int_equal(last_dir, 1);
	WAIT_FOR(watched_name(w, 1, "a", 5, clock_ns()) == WATCHED_KEEP);
	watched_check(w);
}

static void test_a_list_is_kept_until_it_rings(void **state)
{
	bool cache;

	(void)state;
	begin(10, 100, 60000);
	assert_false(watched_list(w, 1, &cache));
	assert_false(cache);
	use(1);
	assert_false(watched_list(w, 1, &cache));
	assert_true(cache);
	assert_true(watched_list(w, 1, &cache));
	make(mine, 1); /* the kernel knows */
	assert_true(watched_list(w, 1, &cache));
	make(other, 1);
	assert_false(watched_list(w, 1, &cache));
	assert_true(cache);
	assert_true(watched_list(w, 1, &cache));
}

static void test_its_own_record_rings(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	uint64_t dir = make(mine, 1);
	keep(dir, "a", 5);
	chmod_dir(other, dir);
	WAIT_FOR(dropped[5]);
	chmod_dir(other, 1); /* is not watched */
	make(other, 1);
	WAIT_FOR(watched_name(w, dir, "a", 5, clock_ns()) == WATCHED_KEEP);
	make(other, 1);
	assert_true(watched_holds(w, 5, false));
}

static void test_ones_own_changes_do_not_ring(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	keep(1, "a", 5);
	assert_int_equal(watched_dir_attr(w, 1, clock_ns()), WATCHED_KEEP);
	int64_t rings = metric_get(M_RINGS);
	make(mine, 1);
	chmod_dir(mine, 1);
	assert_int_equal(metric_get(M_RINGS), rings);
	assert_true(watched_holds(w, 5, false) && watched_holds(w, 1, true));
}

/* What the engine does when the link to the node breaks. */
static void test_all_is_dropped_with_the_link(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	uint64_t dir = make(mine, 1);
	keep(1, "a", 5);
	keep(dir, "b", 6);
	kv_ring_all(index_kv(mine));
	assert_false(watched_holds(w, 5, false) || watched_holds(w, 6, false));
	WAIT_FOR(dropped[5] && dropped[6]);
}

/* What the engine does when the node takes no more watches. Numbers are given in a row. */
static void refuse_all(struct index *ix)
{
	for (uint32_t n = 0; n < 1000; n++)
		kv_watch_refused(index_kv(ix), n);
}

static void test_what_is_refused_is_not_watched(void **state)
{
	bool cache;

	(void)state;
	begin(10, 100, 150);
	uint64_t dir = make(mine, 1);
	keep(1, "a", 5);
	assert_int_equal(watched_dir_attr(w, 1, clock_ns()), WATCHED_KEEP);
	refuse_all(mine);
	WAIT_FOR(dropped[5] && dropped_attr);
	nap(WATCHED_SOON_MS + 10);
	assert_int_equal(watched_name(w, 1, "a", 5, use(1)), WATCHED_NOT);
	assert_int_equal(watched_dir_attr(w, 1, clock_ns()), WATCHED_NOT);
	assert_false(watched_list(w, 1, &cache) || cache);
	assert_false(watched_holds(w, 5, false) || watched_holds(w, 1, true));
	keep(dir, "b", 6);
	watched_check(w);
	/* After a while it is tried again. */
	WAIT_FOR(watched_name(w, 1, "a", 5, use(1)) == WATCHED_KEEP);
	WAIT_FOR(metric_get(M_WATCHES) == 2); /* the thread ends the one that was refused */
	watched_check(w);
}

static void test_a_rename_is_followed(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	uint64_t dir = make(mine, 1), unwatched = make(mine, 1);
	keep(1, "a", 5);
	watched_moved(w, 5, dir, "b", use(dir));
	assert_true(watched_holds(w, 5, false));
	make(other, 1); /* concerns it no more */
	assert_true(watched_holds(w, 5, false));
	make(other, dir);
	WAIT_FOR(dropped[5]);
	assert_int_equal(last_dir, dir);
	/* To where nobody would tell: it is dropped by its new name. */
	WAIT_FOR(watched_name(w, dir, "b", 5, clock_ns()) == WATCHED_KEEP && dropped[5] == 2);
	watched_moved(w, 5, unwatched, "c", clock_ns());
	WAIT_FOR(dropped[5] == 3);
	assert_int_equal(last_dir, unwatched);
	assert_false(watched_holds(w, 5, false));
	/* Known by another name: the first one is dropped. */
	keep(dir, "d", 6);
	keep(dir, "e", 6);
	WAIT_FOR(dropped[6] == 1);
	assert_true(watched_holds(w, 6, false));
	watched_forget(w, 6);
	assert_false(watched_holds(w, 6, false));
	WAIT_FOR(dropped[6] == 2);
}

static void test_there_is_no_more_than_room(void **state)
{
	(void)state;
	begin(2, 3, 200);
	uint64_t a = make(mine, 1), b = make(mine, 1);
	keep(1, "a", 1);
	keep(a, "b", 2);
	assert_int_equal(watched_name(w, b, "c", 3, use(b)), WATCHED_NOT);
	assert_int_equal(metric_get(M_WATCHES), 2);
	keep(a, "d", 4);
	assert_int_equal(watched_name(w, a, "e", 5, use(a)), WATCHED_NOT);
	watched_check(w);
	/* When what was told is over, there is some. */
	WAIT_FOR(watched_name(w, b, "c", 3, use(b)) == WATCHED_KEEP);
	WAIT_FOR(metric_get(M_WATCHES) == 2);
	assert_false(watched_holds(w, 1, false));
	watched_check(w);
	make(other, 1);
	assert_int_equal(dropped[1], 0);
	make(other, b);
	WAIT_FOR(dropped[3]);
}

/* A request that holds the directory and has no answer: it would be waited for. */
static void test_what_is_not_answered_is_not_waited_for(void **state)
{
	(void)state;
	begin(10, 100, 60000);
	uint64_t dir = make(mine, 1);
	keep(1, "a", 5);
	keep(dir, "b", 6);
	watched_enter(w, 1);
	nap(30);
	make(other, 1);
	make(other, dir);
	WAIT_FOR(dropped[6]);
	assert_int_equal(dropped[5], 0);
	watched_leave(w, 1);
	WAIT_FOR(dropped[5]);
}

/* A random walk ------------------------------------------------------------------------ */

enum { DIRS = 4 };

struct model {
	unsigned dir[NODEIDS]; /* in which it is held; DIRS: in none */
};

static void model_ring(struct model *m, unsigned dir)
{
	for (unsigned i = 0; i < NODEIDS; i++)
		if (m->dir[i] == dir)
			m->dir[i] = DIRS;
}

static void step(struct model *m, const uint64_t *dirs, uint64_t *random)
{
	unsigned d = (unsigned)(random_next(random) % DIRS);
	unsigned n = (unsigned)(random_next(random) % NODEIDS);
	char name[16];

	snprintf(name, sizeof(name), "n%u", (unsigned)(random_next(random) % 100));
	switch (random_next(random) % 32) {
	case 0:
		make(other, dirs[d]);
		model_ring(m, d);
		break;
	case 1:
		watched_forget(w, n);
		m->dir[n] = DIRS;
		break;
	case 2: case 3: case 4:
		watched_moved(w, n, dirs[d], name, use(dirs[d]));
		m->dir[n] = watched_holds(w, n, false) ? d : DIRS;
		break;
	case 5: case 6: case 7: {
		bool held = m->dir[n] != DIRS;
		assert_true(held || watched_attr(w, n, clock_ns()) != WATCHED_KEEP);
		break;
	}
	default:
		if (watched_name(w, dirs[d], name, n, use(dirs[d])) == WATCHED_KEEP)
			m->dir[n] = d;
	}
	for (unsigned i = 0; i < NODEIDS; i++)
		assert_true(m->dir[i] != DIRS || !watched_holds(w, i, false));
}

static void test_random_walk(void **state)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL), random = seed;
	uint64_t dirs[DIRS];
	struct model m;

	(void)state;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	begin(DIRS, 40, 60000);
	for (unsigned i = 0; i < DIRS; i++)
		dirs[i] = make(mine, 1);
	for (unsigned i = 0; i < NODEIDS; i++)
		m.dir[i] = DIRS;
	for (unsigned i = 0; i < 4000; i++) {
		step(&m, dirs, &random);
		watched_check(w);
		if (i % 64 == 0)
			nap(WATCHED_SOON_MS / 4);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_it_is_dropped_when_another_changes_it),
		T(test_a_list_is_kept_until_it_rings),
		T(test_its_own_record_rings),
		T(test_ones_own_changes_do_not_ring),
		T(test_all_is_dropped_with_the_link),
		T(test_what_is_refused_is_not_watched),
		T(test_a_rename_is_followed),
		T(test_there_is_no_more_than_room),
		T(test_what_is_not_answered_is_not_waited_for),
		T(test_random_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
