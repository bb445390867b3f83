/* SPDX-License-Identifier: Apache-2.0 */
/* fs/access.c: times of reading reach the index, many at a time, and what is set by hand wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "fs/access.h"
#include "fs/inode.h"
#include "tests/unit/names_kit.h"

enum { FILES = 150 };

static struct index *ix;
static struct inodes *inodes;
static struct accesses *accesses;
static struct index_op op;
static struct inode *known[FILES]; /* as by the kernel */
static struct timespec before[FILES];

static const char *name_of(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	return name;
}

static struct entry entry_of(unsigned i)
{
	return kit_entry(ix, INDEX_ROOT, name_of(i));
}

static int setup(void **state)
{
	(void)state;
	ix = kit_open();
	inodes = inodes_new();
	assert_int_equal(accesses_new(ix, inodes, 5000, &accesses), 0);
	inodes_set_accesses(inodes, accesses);
	for (unsigned i = 0; i < FILES; i++) {
		kit_file(ix, INDEX_ROOT, name_of(i), "x");
		struct entry e = entry_of(i);
		before[i] = e.attr.atime;
		known[i] = inode_know(inodes, &e.attr, e.place);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	accesses_free(accesses);
	assert_int_equal(metric_get(M_ACCESSES), 0); /* P10 */
	for (unsigned i = 0; i < FILES; i++) {
		uint64_t nodeid = known[i]->nodeid;
		inode_put(inodes, known[i]);
		inode_forget(inodes, nodeid, 1);
	}
	inodes_set_accesses(inodes, NULL);
	inodes_free(inodes);
	kit_close(ix, &op);
	return 0;
}

static bool note(unsigned i, time_t when)
{
	return access_note(accesses, known[i], before[i], (struct timespec){ when, 1 });
}

static time_t shown(unsigned i)
{
	struct attr a = entry_of(i).attr;

	inode_attr_overlay(inodes, known[i], &a);
	return a.atime.tv_sec;
}

static void wait_told(void)
{
	for (unsigned n = 0; metric_get(M_ACCESSES); n++) {
		assert_true(n < 10000);
		usleep(1000);
	}
}

static void test_many_at_a_time(void **state)
{
	int64_t commits = metric_get(M_INDEX_TXNS);

	(void)state;
	for (unsigned i = 0; i < FILES; i++) {
		assert_true(note(i, 100 + i));
		assert_int_equal(shown(i), 100 + i); /* at once */
	}
	wait_told();
	assert_true(metric_get(M_INDEX_TXNS) - commits <= FILES / 10);
	for (unsigned i = 0; i < FILES; i++)
		assert_int_equal(entry_of(i).attr.atime.tv_sec, 100 + i);
}

/* Wherever the record is by then. */
static void test_what_has_moved_is_found(void **state)
{
	(void)state;
	assert_true(note(1, 500));
	assert_int_equal(kit(ix, &op, index_rename, (struct index_op){
		.parent = INDEX_ROOT, .name = "f1", .parent2 = INDEX_ROOT, .name2 = "moved" }), 0);
	inode_moved(inodes, &op.entry, false);
	wait_told();
	assert_int_equal(kit_entry(ix, INDEX_ROOT, "moved").attr.atime.tv_sec, 500);
	assert_int_equal(kit(ix, &op, index_rename, (struct index_op){
		.parent = INDEX_ROOT, .name = "moved", .parent2 = INDEX_ROOT, .name2 = "f1" }), 0);
	inode_moved(inodes, &op.entry, false);
}

static void then(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_what_is_set_by_hand_wins(void **state)
{
	atomic_int told = 0;

	(void)state;
	/* Here, and back to what it was. */
	assert_true(note(2, 600));
	if (access_forget(accesses, known[2]->fileid, then, &told))
		fail_msg("it is told at once");
	assert_int_equal(shown(2), before[2].tv_sec);
	/* By another mount. */
	assert_true(note(3, 700));
	struct entry e = entry_of(3);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = e.attr.fileid, .place = e.place, .mask = INDEX_SET_ATIME,
		.attr.atime = { 1, 2 } }), 0);
	assert_int_equal(shown(3), 1);
	wait_told();
	assert_int_equal(entry_of(2).attr.atime.tv_sec, before[2].tv_sec);
	assert_int_equal(entry_of(3).attr.atime.tv_sec, 1);
	assert_int_equal(told, 0);
}

/* Who sets it while it is being told comes after that. */
static void test_in_order(void **state)
{
	static atomic_int told[100];
	int waited = 0;

	(void)state;
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 64; i++) { /* a lot: it goes at once */
			before[i] = entry_of(i).attr.atime;
			assert_true(note(i, 1000 + round));
		}
		usleep(round * 2);
		bool waits = access_forget(accesses, known[0]->fileid, then, &told[round]);
		struct entry e = entry_of(0);
		wait_told();
		for (unsigned n = 0; waits && !told[round]; n++) { /* a moment later */
			assert_true(n < 10000);
			usleep(100);
		}
		assert_int_equal(told[round], waits);
		waited += waits;
		if (!waits && e.attr.atime.tv_sec != 1000 + round)
			assert_int_equal(entry_of(0).attr.atime.tv_sec, before[0].tv_sec);
	}
	print_message("%d of 100 waited\n", waited);
}

static void test_the_end_tells_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++)
		assert_true(note(i, 800));
	accesses = accesses_free(accesses);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(entry_of(i).attr.atime.tv_sec, 800);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_many_at_a_time),
		TEST(test_what_has_moved_is_found),
		TEST(test_what_is_set_by_hand_wins),
		TEST(test_in_order),
		TEST(test_the_end_tells_all),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
