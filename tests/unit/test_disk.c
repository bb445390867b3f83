/* SPDX-License-Identifier: Apache-2.0 */
/* engine/disk.h: what is written is read again, several at a time; and its faults do what they
 * say, to memory nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "engine/disk.h"
#include "tests/unit/disk_kit.h"

enum { DEPTH = 4, BYTES = 64 << 10, ALL = 1 << 20 };

static int fd;
static struct disk *d;
static struct disk_faults f;

static int setup(void **state)
{
	char path[100];

	(void)state;
	snprintf(path, sizeof(path), "%s/file", disk_kit_begin());
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(posix_fallocate(fd, 0, ALL), 0);
	f = (struct disk_faults){ 0 };
	struct disk *inner;
	assert_int_equal(disk_open(fd, DEPTH, &inner), 0);
	assert_int_equal(disk_fault_open(inner, &f, &d), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	d = disk_close(d);
	close(fd);
	disk_kit_end();
	return 0;
}

struct one {
	struct disk_req req;
	struct iovec iov;
};

static void begin(struct one *o, bool write, uint64_t off, void *p)
{
	o->iov = (struct iovec){ p, BYTES };
	o->req = (struct disk_req){ .write = write, .off = off, .bytes = BYTES, .iov = &o->iov,
				    .niov = 1 };
	assert_int_equal(disk_submit(d, &o->req), 0);
}

static int wait_all(void)
{
	struct disk_req *q;
	int r = 0, e;

	while (!(e = disk_reap(d, 0, &q)))
		r = r ? r : q->result;
	assert_int_equal(e, -ENOENT);
	return r;
}

static int one(bool write, uint64_t off, void *p)
{
	struct one o;

	begin(&o, write, off, p);
	return wait_all();
}

static uint8_t *pages(uint8_t with)
{
	uint8_t *p = aligned_alloc(4096, BYTES);

	assert_non_null(p);
	memset(p, with, BYTES);
	return p;
}

static void what_is_written_is_read(void **state)
{
	struct one o[DEPTH];
	uint8_t *p[DEPTH];

	(void)state;
	for (unsigned i = 0; i < DEPTH; i++)
		begin(&o[i], true, i * BYTES, p[i] = pages((uint8_t)(i + 1)));
	assert_int_equal(wait_all(), 0);
	assert_int_equal(disk_sync(d), 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		memset(p[i], 0, BYTES);
		begin(&o[i], false, i * BYTES, p[i]);
	}
	assert_int_equal(wait_all(), 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		for (unsigned k = 0; k < BYTES; k++)
			assert_int_equal(p[i][k], i + 1);
		free(p[i]);
	}
}

static void past_the_end_is_an_error(void **state)
{
	_cleanup_(freep) uint8_t *p = pages(0);

	(void)state;
	assert_int_equal(one(false, ALL, p), -EIO);
}

static void it_fails_when_told_to(void **state)
{
	_cleanup_(freep) uint8_t *p = pages(7), *q = pages(0);

	(void)state;
	assert_int_equal(one(true, 0, p), 0);
	atomic_store(&f.error, -ENOSPC);
	atomic_store(&f.fail_in, 2);
	assert_int_equal(one(false, 0, q), 0);
	memset(p, 8, BYTES);
	assert_int_equal(one(true, 0, p), -ENOSPC);
	assert_int_equal(one(false, 0, q), 0);
	assert_int_equal(q[0], 7);
}

static void it_tears_and_flips(void **state)
{
	_cleanup_(freep) uint8_t *p = pages(1), *q = pages(0);

	(void)state;
	assert_int_equal(one(true, 0, p), 0);
	memset(p, 2, BYTES);
	atomic_store(&f.tear_in, 1);
	assert_int_equal(one(true, 0, p), 0);
	assert_int_equal(one(false, 0, q), 0);
	assert_int_equal(q[BYTES / 2 - 1], 2);
	assert_int_equal(q[BYTES / 2], 1);
	atomic_store(&f.flip_in, 1);
	assert_int_equal(one(true, 0, p), 0);
	assert_int_equal(p[0], 2);
	assert_int_equal(one(false, 0, q), 0);
	assert_int_equal(q[0], 3);
	atomic_store(&f.flip_in, 1);
	assert_int_equal(one(false, 0, q), 0);
	assert_int_equal(q[0], 2);
}

static void it_is_late(void **state)
{
	_cleanup_(freep) uint8_t *p = pages(1);
	uint64_t begun = clock_ns();
	struct disk_req *q;
	struct one o;

	(void)state;
	atomic_store(&f.delay_ms, 100);
	begin(&o, true, 0, p);
	assert_int_equal(disk_reap(d, clock_ns() + 10 * NS_PER_MS, &q), -ETIMEDOUT);
	assert_int_equal(wait_all(), 0);
	assert_true(clock_ns() - begun >= 100 * NS_PER_MS);
}

static void it_fails_as_often_as_told_to(void **state)
{
	enum { N = 400 };
	_cleanup_(freep) uint8_t *p = pages(7);
	unsigned failed = 0, full = 0;

	(void)state;
	assert_int_equal(disk_faults_parse("eio=0.25,only=reads,enospc=1", &f, NULL), 0);
	for (unsigned i = 0; i < N; i++) {
		int r = one(false, 0, p);
		assert_true(r == 0 || r == -EIO);
		failed += r < 0;
	}
	for (unsigned i = 0; i < 10; i++)
		full += one(true, 0, p) == -ENOSPC;
	assert_in_range(failed, N / 8, N / 2);
	assert_int_equal(full, 10);
}

static void bad_faults(const char *list, const char *word)
{
	struct disk_faults g;
	char *why = NULL;

	assert_int_equal(disk_faults_parse(list, &g, &why), -EINVAL);
	assert_non_null(strstr(why, word));
	assert_null(strchr(why, '\n'));
	free(why);
}

static void faults_are_read_strictly(void **state)
{
	static const char *const bad[] = {
		"", "eio", "eio=", "eio=2", "eio=-1", "eio=1e-3", "eio=0.1.2", "eio=nan",
		"delay=20", "delay=1000d", "only=", "only=both ", "journal=slow", "journal=0",
		"journal=1x", "stays=1", "flop=1", " eio=1", "eio=1,", "eio=1,,flip=1",
	};
	struct disk_faults g;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		bad_faults(bad[i], "not a fault of a disk. Try: ");
	bad_faults("eio=1,flop=\n1,flip=1", "flop=\\x0a1: ");
	assert_int_equal(disk_faults_parse("delay=20ms,eio=0.5,enospc=1,tear=0,flip=0.000001,"
					   "only=writes,journal=3,stays=yes", &g, NULL), 0);
	assert_int_equal(g.delay_ms, 20);
	assert_int_equal(g.often[DISK_EIO], 500000);
	assert_int_equal(g.often[DISK_ENOSPC], 1000000);
	assert_int_equal(g.often[DISK_TEAR], 0);
	assert_int_equal(g.often[DISK_FLIP], 1);
	assert_int_equal(g.only, DISK_WRITES);
	assert_int_equal(disk_fault_of_removal(&g), -EROFS);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(disk_fault_of_journal(&g), i < 2 ? 0 : -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(past_the_end_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(it_fails_when_told_to, setup, teardown),
		cmocka_unit_test_setup_teardown(it_tears_and_flips, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_late, setup, teardown),
		cmocka_unit_test_setup_teardown(it_fails_as_often_as_told_to, setup, teardown),
		cmocka_unit_test(faults_are_read_strictly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
