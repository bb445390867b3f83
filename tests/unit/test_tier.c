/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/tier.h: what does not fit into the pool is on the disk and is read as it was written;
 * a disk that is slow, full, failing, torn or lying costs objects, never a wrong byte, and holds
 * nobody up; and what is on it is there when memory is lost. Each page says which file it is of
 * and which version.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/pool.h"
#include "engine/tier.h"
#include "tests/unit/disk_kit.h"
#include "tests/unit/file_kit.h"

enum {
	POOL_BYTES = 16 << 20,
	DISK_BYTES = 700 << 20,
	FILE_BYTES = 1 << 20,
	AT_ONCE = 64 << 10, /* is written and read of a file */
	PATIENT_MS = 20000,
	LARGE_BYTES = 10 << 20,
	LARGE_PARTS = 380, /* pages of it that were written anew */
};

static struct engine *e;
static const char *folder;
static struct disk_faults faults;
static char kept[40]; /* its store, where memory is not lost */
static bool is_kept;
static uint64_t disk_bytes;
static unsigned high; /* percent; 0: what is usual */
static uint32_t end_ms;
static bool has_no_disk;

static int begin_with(struct engine_opts o, uint64_t bytes, uint32_t wait_ms)
{
	char *why = NULL;

	o.pool_bytes = POOL_BYTES;
	o.verify = true;
	o.evict_high = high;
	o.evict_low = 90;
	o.ssd = has_no_disk ? NULL : folder;
	o.ssd_bytes = bytes;
	o.ssd_wait_ms = wait_ms;
	o.ssd_end_ms = end_ms;
	o.ssd_faults = &faults;
	int r = engine_open(&o, &e, &why);

	if (r < 0)
		print_message("%s\n", why ? why : "no reason");
	free(why);
	return r;
}

static int begin(uint32_t wait_ms)
{
	const struct engine_opts memory = { .in_memory = true },
				 store = { .dir = kept, .index_bytes = POOL_BYTES };

	return begin_with(is_kept ? store : memory, disk_bytes, wait_ms);
}

static void check(void)
{
	kit_is_idle();
	kit_check_engine(e);
}

static int setup_of(uint64_t bytes, uint32_t wait_ms)
{
	disk_bytes = bytes;
	folder = disk_kit_begin();
	faults = (struct disk_faults){ 0 };
	return begin(wait_ms);
}

static int setup(void **state)
{
	(void)state;
	return setup_of(DISK_BYTES, PATIENT_MS);
}

static int setup_small(void **state)
{
	(void)state;
	return setup_of(40 << 20, PATIENT_MS);
}

static int setup_kept(uint64_t bytes)
{
	strcpy(kept, "/dev/shm/slicefs-tier-XXXXXX");
	is_kept = mkdtemp(kept);
	return is_kept ? setup_of(bytes, PATIENT_MS) : -1;
}

static int setup_kept_small(void **state)
{
	(void)state;
	return setup_kept(40 << 20);
}

static int setup_kept_large(void **state)
{
	(void)state;
	return setup_kept(DISK_BYTES);
}

/* Only who finds no room at all has any made. */
static int setup_late(void **state)
{
	(void)state;
	high = 100;
	return setup_of(DISK_BYTES, 0);
}

static int setup_late_patient(void **state)
{
	(void)state;
	high = 100;
	return setup_of(DISK_BYTES, PATIENT_MS);
}

static int setup_late_small(void **state)
{
	(void)state;
	high = 100;
	return setup_of(40 << 20, PATIENT_MS);
}

static int setup_hasty(void **state)
{
	(void)state;
	return setup_of(DISK_BYTES, 0);
}

static int teardown(void **state)
{
	(void)state;
	if (e)
		check();
	bool idle = kit_is_idle();
	engine_close(e);
	e = NULL;
	disk_kit_end();
	if (is_kept) {
		disk_kit_empty(kept);
		rmdir(kept);
	}
	is_kept = false;
	high = 0;
	return idle ? 0 : -1;
}

/* Memory is lost, the disk is not. */
static void reboot(void)
{
	engine_close(e);
	assert_int_equal(begin(PATIENT_MS), 0);
}

static int write_all(struct file *f, uint64_t of, size_t bytes)
{
	uint64_t words[AT_ONCE / 8];
	int r = 0;

	for (unsigned i = 0; i < AT_ONCE / 8 && i < bytes / 8; i++)
		words[i] = of;
	for (size_t at = 0; r >= 0 && at < bytes; at += AT_ONCE)
		r = (int)kit_write(f, at, words, bytes - at < AT_ONCE ? bytes - at : AT_ONCE);
	return r;
}

static int put(const char *name, uint64_t of, size_t bytes)
{
	struct file *f = NULL;
	int r = kit_create(e, name, &f);

	if (r)
		return r;
	r = write_all(f, of, bytes);
	int closed = kit_close(f, r < 0 ? FILE_WRITE | FILE_DISCARD : FILE_WRITE);
	return r < 0 ? r : closed;
}

static struct attr attr_of(const char *name)
{
	struct attr a = { 0 };
	struct place place;

	return kit_lookup(e, name, &a, &place) ? (struct attr){ 0 } : a;
}

static bool is_there(const char *name)
{
	return attr_of(name).fileid;
}

/* Bytes, all of which are right; or the error. */
static int64_t read_it(const char *name, uint64_t of)
{
	uint64_t words[AT_ONCE / 8], at = 0;
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;
	int r = kit_lookup(e, name, &a, &place);

	r = r ? -ENOENT : kit_open(e, a.fileid, place, 0, &f);
	if (r < 0)
		return r;
	for (int64_t n = 1; n; at += (uint64_t)n) {
		n = kit_read(f, at, words, sizeof(words));
		assert_true(n >= 0);
		for (int64_t i = 0; i < n / 8; i++)
			if (words[i] != of) /* so many calls are what a sanitizer takes its time for */
				assert_int_equal(words[i], of);
	}
	assert_int_equal(kit_close(f, 0), 0);
	return (int64_t)at;
}

static const char *number(unsigned i)
{
	static char name[16]; /* until the next one */

	snprintf(name, sizeof(name), "%u", i);
	return name;
}

static void put_many(unsigned n, size_t bytes)
{
	for (unsigned i = 0; i < n; i++) {
		kit_unlink(e, number(i));
		assert_int_equal(put(number(i), i + 1, bytes), 0);
	}
}

static void all_are_right(unsigned n, size_t bytes)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(read_it(number(i), i + 1), bytes);
}

static unsigned away(unsigned n)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		k += attr_of(number(i)).away;
	return k;
}

static void ten_times_the_pool_is_there(void **state)
{
	int64_t demoted = metric_get(M_DISK_DEMOTED), back = metric_get(M_DISK_PROMOTED);

	(void)state;
	put_many(160, FILE_BYTES);
	assert_true(away(160) > 140);
	assert_true(metric_get(M_DISK_DEMOTED) - demoted > 140);
	all_are_right(160, FILE_BYTES);
	assert_true(metric_get(M_DISK_PROMOTED) - back > 140);
	check();
}

/* Of a page, of some, of a region and a bit; with blocks of extents. */
static void of_all_sizes(void **state)
{
	static const size_t sizes[] = { 4096, 8192, 65536, 69632, 5 << 20, 4096 * 17 };
	enum { N = 90 };

	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < N; i++) {
			char name[20];
			snprintf(name, sizeof(name), "%u-%u", k, i);
			assert_int_equal(put(name, i + 1, sizes[i % 6]), 0);
		}
		for (unsigned i = 0; i < N; i++) {
			char name[20];
			snprintf(name, sizeof(name), "%u-%u", k, i);
			assert_int_equal(read_it(name, i + 1), sizes[i % 6]);
		}
		check();
	}
}

/* Written here and there, so that its extents are many, and parts of slices. */
static void put_in_parts(const char *name, uint64_t of, size_t bytes, unsigned n)
{
	uint64_t words[512];
	struct file *f = NULL;
	struct attr a = { 0 };
	struct place place;

	assert_int_equal(put(name, of, bytes), 0);
	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	for (unsigned i = 0; i < 512; i++)
		words[i] = of;
	for (unsigned k = 0; k < n; k++) {
		assert_int_equal(kit_open(e, a.fileid, place, FILE_WRITE, &f), 0);
		assert_true(kit_write(f, k * 7 * 4096ULL % bytes, words, sizeof(words)) > 0);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
	}
}

static void of_many_extents(void **state)
{
	(void)state;
	put_in_parts("a", 5, 3 << 20, 200);
	uint64_t version = attr_of("a").version;
	for (unsigned round = 0; round < 3; round++) {
		/* It was used often, and so must the others be. */
		for (unsigned i = 0; i < 20 && !attr_of("a").away; i++) {
			put_many(20, FILE_BYTES);
			all_are_right(20, FILE_BYTES);
			all_are_right(20, FILE_BYTES);
		}
		assert_true(attr_of("a").away);
		assert_int_equal(read_it("a", 5), 3 << 20);
		assert_false(attr_of("a").away);
		check();
	}
	assert_true(attr_of("a").version >= version);
}

static void what_is_open_stays_in_memory(void **state)
{
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;
	uint64_t words[512];

	(void)state;
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	assert_int_equal(kit_lookup(e, "a", &a, &place), 0);
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), 0);
	put_many(60, FILE_BYTES);
	assert_false(attr_of("a").away);
	assert_int_equal(kit_read(f, 0, words, sizeof(words)), sizeof(words));
	assert_int_equal(words[7], 5);
	assert_int_equal(kit_close(f, 0), 0);
}

/* It is in the index that somebody writes it. Others go instead, also when the disk is so slow that
 * it has not ended with that one. */
static void what_cannot_move_is_passed_over(void **state)
{
	struct index_op op = { 0 };

	(void)state;
	assert_int_equal(put("written", 1, FILE_BYTES), 0);
	assert_int_equal(kit_lookup(e, "written", &op.attr, &op.place), 0);
	op = (struct index_op){ .fileid = op.attr.fileid, .place = op.place };
	assert_int_equal(index_wait(engine_index(e), &op, index_writer), 0);
	index_op_fini(&op);
	put_many(15, FILE_BYTES);
	atomic_store(&faults.delay_ms, 1000);
	for (unsigned i = 100; i < 115; i++)
		assert_int_equal(put(number(i), i, FILE_BYTES), 0);
	atomic_store(&faults.delay_ms, 0);
	put_many(60, FILE_BYTES);
	assert_true(is_there("written"));
	assert_false(attr_of("written").away);
	op = (struct index_op){ .fileid = attr_of("written").fileid };
	assert_int_equal(index_wait(engine_index(e), &op, index_writer_end), 0);
	index_op_fini(&op);
}

static void what_is_away_is_written_and_unlinked(void **state)
{
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;

	(void)state;
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	assert_int_equal(put("b", 6, FILE_BYTES), 0);
	put_many(60, FILE_BYTES);
	assert_true(attr_of("a").away);
	assert_true(attr_of("b").away);
	assert_int_equal(kit_lookup(e, "a", &a, &place), 0);
	assert_int_equal(kit_open(e, a.fileid, place, FILE_WRITE, &f), 0);
	assert_true(write_all(f, 7, FILE_BYTES) >= 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_false(attr_of("a").away);
	assert_int_equal(read_it("a", 7), FILE_BYTES);
	assert_int_equal(kit_unlink(e, "b"), 0);
	assert_false(is_there("b"));
	put_many(60, FILE_BYTES);
	assert_int_equal(read_it("a", 7), FILE_BYTES);
}

/* The log comes round: what was there longest goes. */
static void a_disk_that_is_full_forgets(void **state)
{
	unsigned there = 0;

	(void)state;
	put_many(200, FILE_BYTES);
	for (unsigned i = 0; i < 200; i++) {
		int64_t n = is_there(number(i)) ? read_it(number(i), i + 1) : 0;
		there += n == FILE_BYTES;
	}
	assert_true(there >= 20);
	assert_true(there < 60);
	assert_int_equal(read_it(number(199), 200), FILE_BYTES);
}

/* Three times as many as it has room for: what was there longest makes way for what comes, however many
 * there are in a segment. */
static void what_comes_of(unsigned bytes)
{
	unsigned n = (unsigned)(3 * disk_bytes / bytes), room = n / 3, old = 0, young = 0;
	int64_t full = metric_get(M_DISK_NOT_FULL);

	put_many(n, bytes);
	for (unsigned i = 0; i < room; i++)
		old += is_there(number(i));
	for (unsigned i = n - room / 2; i < n; i++)
		young += is_there(number(i));
	full = metric_get(M_DISK_NOT_FULL) - full;
	print_message("of %u, %ld found it full; there are %u of the oldest %u, %u of the youngest "
		      "%u\n", n, full, old, room, young, room / 2);
	assert_in_range(full, 0, n / 100);
	assert_int_equal(old, 0);
	assert_in_range(young, room / 2 - (unsigned)full, room / 2);
}

static void what_is_small_makes_way(void **state)
{
	(void)state;
	what_comes_of(PAGE_BYTES);
}

static void what_is_large_makes_way(void **state)
{
	(void)state;
	what_comes_of(AT_ONCE);
	what_comes_of(3 * FILE_BYTES / 10);
	what_comes_of(3 * FILE_BYTES / 2);
	what_comes_of(5 * FILE_BYTES);
}

static void it_is_there_after_a_reboot(void **state)
{
	unsigned there = 0, was;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		put_many(100, FILE_BYTES);
		was = away(100);
		assert_true(was > 80);
		reboot();
		there = 0;
		for (unsigned i = 0; i < 100; i++)
			there += is_there(number(i));
		assert_true(there >= was); /* some more may have gone there meanwhile */
		check();
		for (unsigned i = 0; i < 100; i++)
			if (is_there(number(i)))
				assert_int_equal(read_it(number(i), i + 1), FILE_BYTES);
		check();
	}
}

/* What came back and was written is not what the disk had. */
static void no_older_version_comes_back(void **state)
{
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;

	(void)state;
	put_many(60, FILE_BYTES);
	for (unsigned i = 0; i < 10; i++) {
		assert_true(attr_of(number(i)).away);
		assert_int_equal(kit_lookup(e, number(i), &a, &place), 0);
		assert_int_equal(kit_open(e, a.fileid, place, FILE_WRITE, &f), 0);
		assert_true(write_all(f, 1000 + i, FILE_BYTES) >= 0);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
	}
	reboot();
	for (unsigned i = 0; i < 10; i++)
		if (is_there(number(i)))
			assert_int_equal(read_it(number(i), 1000 + i), FILE_BYTES);
}

/* Copies --------------------------------------------------------------------------------- */

/* Opens it for writing, and closes it again. */
static int touch(const char *name)
{
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;

	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	int r = kit_open(e, a.fileid, place, FILE_WRITE, &f);
	return r < 0 ? r : kit_close(f, FILE_WRITE);
}

/* Out of memory. It may have been used, and so must those be that it is to make way for. */
static void push_out(const char *name)
{
	char other[16];

	for (unsigned i = 0; !attr_of(name).away; i++) {
		snprintf(other, sizeof(other), "p%u", i % 20);
		kit_unlink(e, other);
		assert_int_equal(put(other, i + 1, FILE_BYTES), 0);
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(read_it(other, i + 1), FILE_BYTES);
		assert_true(is_there(name) && i < 400);
	}
}

/* Those that others made way for. */
static void unlink_others(void)
{
	for (unsigned i = 0; i < 20; i++) {
		char name[16];
		snprintf(name, sizeof(name), "p%u", i);
		kit_unlink(e, name);
	}
	assert_true(kit_is_idle()); /* what is freed is */
}

static void push_out_number(unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", i);
	push_out(name);
}

static void what_was_there_is_not_written_again(void **state)
{
	enum { N = 40 };
	int64_t written, demoted;

	(void)state;
	put_many(N, FILE_BYTES);
	for (unsigned i = 0; i < N; i++)
		push_out_number(i);
	written = metric_get(M_DISK_WRITTEN);
	demoted = metric_get(M_DISK_DEMOTED);
	for (unsigned round = 0; round < 4; round++)
		all_are_right(N, FILE_BYTES);
	assert_true(metric_get(M_DISK_DEMOTED) - demoted > 2 * N);
	/* But what pushed them out, of which some was in memory only. */
	assert_true(metric_get(M_DISK_WRITTEN) - written <= (int64_t)POOL_BYTES);
	check();
}

static void what_is_copied_is_there_after_a_reboot(void **state)
{
	(void)state;
	put_many(40, FILE_BYTES);
	push_out("3");
	push_out("4");
	push_out("5");
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	assert_int_equal(read_it("4", 5), FILE_BYTES);
	assert_int_equal(read_it("5", 6), FILE_BYTES);
	assert_false(attr_of("3").away);
	assert_true(attr_of("3").copied);
	kit_unlink(e, "4");
	assert_int_equal(touch("5"), 0);
	assert_false(attr_of("5").copied);
	check();
	reboot();
	assert_true(attr_of("3").away);
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	assert_false(is_there("4"));
	assert_false(is_there("5")); /* it could have been changed */
	check();
}

/* Each time: what is there after a reboot is what was last closed, or nothing. */
static void what_was_written_is_there_or_nothing(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		put_many(20, FILE_BYTES);
		for (unsigned i = 0; i < 20; i++)
			push_out_number(i);
		all_are_right(10, FILE_BYTES);
		for (unsigned i = 0; i < 10; i++) {
			struct attr a = { 0 };
			struct place place;
			struct file *f = NULL;
			assert_int_equal(kit_lookup(e, number(i), &a, &place), 0);
			assert_int_equal(kit_open(e, a.fileid, place, FILE_WRITE, &f), 0);
			assert_true(write_all(f, 500 + i, FILE_BYTES) >= 0);
			assert_int_equal(kit_close(f, FILE_WRITE), 0);
		}
		if (round % 2)
			push_out("7");
		reboot();
		for (unsigned i = 0; i < 20; i++)
			if (is_there(number(i)))
				assert_int_equal(read_it(number(i), i < 10 ? 500 + i : i + 1),
						 FILE_BYTES);
		assert_true(is_there("15"));
		assert_true(is_there("7") || !(round % 2));
	}
}

/* The log comes round to the copy of what is in memory, and open: that stays. */
static void a_copy_makes_way(void **state)
{
	struct attr a = { 0 };
	struct place place;
	struct file *f = NULL;
	uint64_t word;

	(void)state;
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	push_out("a");
	assert_int_equal(kit_lookup(e, "a", &a, &place), 0);
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), 0);
	assert_true(attr_of("a").copied);
	put_many(200, FILE_BYTES);
	assert_true(is_there("a"));
	assert_int_equal(kit_read(f, 8192, &word, sizeof(word)), sizeof(word));
	assert_int_equal(word, 5);
	assert_int_equal(kit_close(f, 0), 0);
	check();
	push_out("a");
	assert_int_equal(read_it("a", 5), FILE_BYTES);
}

static void pin(const char *name)
{
	struct index_op op = { .mask = INDEX_SET_PIN };
	struct attr a = { 0 };

	assert_int_equal(kit_lookup(e, name, &a, &op.place), 0);
	op.fileid = a.fileid;
	op.attr.keep.pinned = KEEP_FOREVER;
	assert_int_equal(index_wait(engine_index(e), &op, index_setattr), 0);
	index_op_fini(&op);
}

/* And to those of what is pinned, of which there is some in each segment. */
static void copies_of_what_is_pinned_make_way(void **state)
{
	enum { N = 30, BYTES = 64 << 10 };
	int64_t demoted;
	char name[16];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		assert_int_equal(put(name, i + 1, BYTES), 0);
		push_out(name);
		assert_int_equal(read_it(name, i + 1), BYTES);
		assert_true(attr_of(name).copied);
		pin(name);
	}
	demoted = metric_get(M_DISK_DEMOTED);
	put_many(100, FILE_BYTES);
	assert_true(metric_get(M_DISK_DEMOTED) - demoted > 50);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		assert_false(attr_of(name).away);
		assert_int_equal(read_it(name, i + 1), BYTES);
	}
	check();
}

/* What has a copy goes back, whatever the disk does. */
static void a_copy_costs_a_failing_disk_nothing(void **state)
{
	enum { N = 8 };

	(void)state;
	put_many(N, FILE_BYTES);
	for (unsigned i = 0; i < N; i++)
		push_out_number(i);
	all_are_right(N, FILE_BYTES);
	atomic_store(&faults.error, -EIO);
	atomic_store(&faults.only, DISK_WRITES);
	for (unsigned i = 100; i < 140; i++) {
		atomic_store(&faults.fail_in, 1);
		assert_int_equal(put(number(i), i, FILE_BYTES), 0);
	}
	atomic_store(&faults.fail_in, 0);
	for (unsigned i = 0; i < N; i++) {
		assert_true(attr_of(number(i)).away || attr_of(number(i)).copied);
		assert_int_equal(read_it(number(i), i + 1), FILE_BYTES);
	}
}

/* Failing -------------------------------------------------------------------------------- */

static void wait_gone(const char *name)
{
	for (unsigned i = 0; i < 5000 && is_there(name); i++)
		usleep(1000);
	assert_false(is_there(name));
}

static void what_cannot_be_read_is_an_error_and_goes(void **state)
{
	int64_t failed = metric_get(M_DISK_FAILED_READ), sums = metric_get(M_CHECKSUM_FAILURES);

	(void)state;
	put_many(60, FILE_BYTES);
	atomic_store(&faults.only, DISK_READS);
	atomic_store(&faults.error, -EIO);
	atomic_store(&faults.fail_in, 2);
	assert_int_equal(read_it("3", 4), -EIO);
	wait_gone("3");
	assert_int_equal(metric_get(M_DISK_FAILED_READ), failed + 1);
	atomic_store(&faults.flip_in, 1);
	assert_int_equal(read_it("4", 5), -EIO);
	wait_gone("4");
	assert_int_equal(metric_get(M_CHECKSUM_FAILURES), sums + 1);
	assert_int_equal(put("3", 7, FILE_BYTES), 0);
	assert_int_equal(read_it("3", 7), FILE_BYTES);
	assert_int_equal(read_it("5", 6), FILE_BYTES);
}

/* Puts a little until something is written, which ends late; meanwhile the eviction waits. */
static void hold_eviction(uint32_t delay_ms)
{
	atomic_store(&faults.delay_ms, delay_ms);
	uint64_t count = atomic_load(&faults.count);
	static unsigned next = 200;
	for (unsigned i = 0; atomic_load(&faults.count) == count; i++, next++) {
		assert_true(i < 200);
		assert_int_equal(put(number(next), next + 1, FILE_BYTES / 16), 0);
		usleep(20000);
	}
	atomic_store(&faults.delay_ms, 0);
}

static void fail_read(const char *name, unsigned id)
{
	atomic_store(&faults.fail_in, 1);
	assert_int_equal(read_it(name, id), -EIO);
}

/* False: its turn to go came before that. */
static bool write_again(const char *name, unsigned id, size_t bytes)
{
	struct file *f = NULL;
	int r = kit_open_name(e, name, FILE_WRITE, &f);

	if (r) {
		assert_true(r == -ESTALE || r == -ENOENT);
		return false;
	}
	assert_true(write_all(f, id, bytes) >= 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	return true;
}

/* What could not be read once is there and written when its turn comes to go. */
static void what_came_back_meanwhile_stays(void **state)
{
	enum { BYTES = 16384, TRIES = 6, N = 3 * TRIES };
	char names[N][16];
	bool tried = false;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "a%u", i);
		assert_int_equal(put(names[i], i + 1, BYTES), 0);
	}
	for (unsigned i = 0; i < N; i++)
		push_out(names[i]);
	unlink_others();
	put_many(14, FILE_BYTES);
	atomic_store(&faults.only, DISK_READS);
	atomic_store(&faults.error, -EIO);
	for (unsigned i = 0; i < N && !tried; i += 3) {
		atomic_store(&faults.only, 0);
		hold_eviction(3000);
		atomic_store(&faults.only, DISK_READS);
		fail_read(names[i], i + 1);
		if (!write_again(names[i], 99, BYTES))
			continue;
		tried = true;
		for (unsigned k = i + 1; k < i + 3; k++) {
			fail_read(names[k], k + 1);
			wait_gone(names[k]); /* the eviction has seen to all before */
		}
		assert_int_equal(read_it(names[i], 99), BYTES);
	}
	assert_true(tried);
}

/* In the batch that is torn, and the one that is flipped: as what was written is compared. */
static void what_is_torn_is_an_error(void **state)
{
	unsigned bad = 0, good = 0;

	(void)state;
	atomic_store(&faults.only, DISK_WRITES);
	atomic_store(&faults.tear_in, 2);
	atomic_store(&faults.flip_in, 4);
	put_many(60, FILE_BYTES);
	for (unsigned i = 0; i < 60; i++) {
		int64_t n = read_it(number(i), i + 1);
		assert_true(n == FILE_BYTES || n == -EIO);
		bad += n == -EIO;
		good += n == FILE_BYTES;
	}
	assert_true(bad >= 1);
	assert_true(bad <= 20);
	assert_true(good >= 40);
}

static void a_disk_that_takes_nothing_costs_objects(void **state)
{
	static const int errors[] = { -EIO, -ENOSPC };
	unsigned there = 0;

	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		int64_t refused = metric_get(M_DISK_NOT_FAILED);
		atomic_store(&faults.error, errors[k]);
		atomic_store(&faults.only, DISK_WRITES);
		usleep(1100000); /* the disk is left alone for a while after an error */
		for (unsigned i = 0; i < 60; i++) {
			atomic_store(&faults.fail_in, 1);
			kit_unlink(e, number(i));
			assert_int_equal(put(number(i), i + 1, FILE_BYTES), 0);
		}
		atomic_store(&faults.fail_in, 0);
		assert_true(metric_get(M_DISK_NOT_FAILED) > refused);
		for (unsigned i = 0; i < 60; i++)
			if (is_there(number(i))) {
				assert_int_equal(read_it(number(i), i + 1), FILE_BYTES);
				there++;
			}
		assert_true(there);
	}
}

/* A disk that answers late holds up nobody who writes. */
static void a_slow_disk_holds_up_nobody(void **state)
{
	uint64_t worst = 0;
	unsigned held = 0;
	int64_t slow = metric_get(M_DISK_NOT_SLOW);

	(void)state;
	atomic_store(&faults.delay_ms, 400);
	for (unsigned i = 0; i < 100; i++) {
		uint64_t begun = clock_ns();
		assert_int_equal(put(number(i), i + 1, FILE_BYTES), 0);
		uint64_t took = clock_ns() - begun;
		worst = took > worst ? took : worst;
		held += took >= 400 * NS_PER_MS;
	}
	print_message("the longest of 100 puts: %.1f ms, held up: %u\n", (double)worst / 1e6,
		      held);
	/* The pool is full after 16 of them. A shared host holds up one now and then. */
	assert_true(held < 4);
	assert_true(metric_get(M_DISK_NOT_SLOW) > slow);
	atomic_store(&faults.delay_ms, 0);
	for (unsigned i = 0; i < 100; i++)
		if (is_there(number(i)))
			assert_int_equal(read_it(number(i), i + 1), FILE_BYTES);
}

/* Of small objects, so that what is written at a time is little while it is taken for slow. */
static void a_disk_that_was_slow_is_fast_again(void **state)
{
	enum { N = 2000, BYTES = 8192 };
	int64_t slow = metric_get(M_DISK_NOT_SLOW), demoted;
	unsigned n = 0;

	(void)state;
	atomic_store(&faults.delay_ms, 60);
	/* Some batches that are late, and the pool is full before that. */
	for (; metric_get(M_DISK_NOT_SLOW) < slow + 200; n++) {
		assert_true(n < 40000);
		assert_int_equal(put(number(n), n + 1, BYTES), 0);
	}
	atomic_store(&faults.delay_ms, 0);
	demoted = metric_get(M_DISK_DEMOTED);
	for (; metric_get(M_DISK_DEMOTED) < demoted + N / 2; n++) {
		assert_true(n < 200000);
		assert_int_equal(put(number(n), n + 1, BYTES), 0);
	}
	demoted = metric_get(M_DISK_DEMOTED);
	uint64_t count = atomic_load(&faults.count);
	for (unsigned i = 0; i < N; i++, n++)
		assert_int_equal(put(number(n), n + 1, BYTES), 0);
	count = atomic_load(&faults.count) - count;
	demoted = metric_get(M_DISK_DEMOTED) - demoted;
	print_message("%lu writes for %ld objects\n", count, demoted);
	assert_true(demoted > N / 4);
	assert_true((int64_t)count < demoted / 8);
}

static void who_waits_for_a_slow_disk_gives_up_in_time(void **state)
{
	struct attr a = { 0 };
	struct place place;
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .done = kit_done, .arg = &w };

	(void)state;
	put_many(60, FILE_BYTES);
	assert_true(attr_of("1").away);
	assert_int_equal(kit_lookup(e, "1", &a, &place), 0);
	atomic_store(&faults.delay_ms, 3000);
	op.call.deadline_ns = clock_ns() + 50 * NS_PER_MS;
	uint64_t begun = clock_ns();
	file_open(e, a.fileid, place, 0, &op);
	assert_int_equal(kit_wait(&w), -ETIMEDOUT);
	assert_true(clock_ns() - begun < 2000 * NS_PER_MS);
	atomic_store(&faults.delay_ms, 0);
	assert_int_equal(read_it("1", 2), FILE_BYTES);
}

/* An open that is under way. */
struct opening {
	struct kit_wait w;
	struct file_op op;
};

static void begin_open(struct opening *o, const char *name, uint64_t timeout_ms)
{
	struct attr a = { 0 };
	struct place place;

	*o = (struct opening){ .w = KIT_WAIT, .op = { .done = kit_done, .arg = &o->w } };
	o->op.call.deadline_ns = timeout_ms ? clock_ns() + timeout_ms * NS_PER_MS : 0;
	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	assert_true(a.away);
	file_open(e, a.fileid, place, 0, &o->op);
}

static void wait_requests(uint64_t count)
{
	while (atomic_load(&faults.count) <= count)
		usleep(100);
}

/* It is given up as well where nobody waits for room: the thread has other things to do. */
static void a_dead_disk_does_not_hold_the_eviction(void **state)
{
	int64_t slow = metric_get(M_DISK_NOT_SLOW);

	(void)state;
	put_many(14, FILE_BYTES);
	uint64_t begun = clock_ns();
	hold_eviction(7000);
	while (metric_get(M_DISK_NOT_SLOW) == slow && clock_ns() - begun < 6900 * NS_PER_MS)
		usleep(10000);
	assert_true(metric_get(M_DISK_NOT_SLOW) > slow);
}

/* Hundreds of reads, each of which ends soon: three seconds of them. */
static void who_waits_for_a_long_read_gives_up_in_time(void **state)
{
	struct opening o;

	(void)state;
	put_in_parts("a", 5, LARGE_BYTES, LARGE_PARTS);
	push_out("a");
	atomic_store(&faults.delay_ms, 60);
	uint64_t begun = clock_ns();
	begin_open(&o, "a", 50);
	assert_int_equal(kit_wait(&o.w), -ETIMEDOUT);
	assert_true(clock_ns() - begun < 1500 * NS_PER_MS);
	/* It goes on for who comes again; without anybody who may, it does not. */
	begin_open(&o, "a", 0);
	assert_int_equal(kit_wait(&o.w), 0);
	assert_int_equal(kit_close(o.op.file, 0), 0);
	push_out("a");
	int64_t back = metric_get(M_DISK_PROMOTED);
	uint64_t count = atomic_load(&faults.count), was = 0;
	begin_open(&o, "a", 0);
	wait_requests(count);
	atomic_store(&o.op.call.cancelled, true);
	begun = clock_ns();
	assert_int_equal(kit_wait(&o.w), -ECANCELED);
	assert_true(clock_ns() - begun < 1500 * NS_PER_MS);
	for (count = atomic_load(&faults.count); count != was; count = atomic_load(&faults.count)) {
		was = count;
		usleep(100000);
	}
	assert_int_equal(metric_get(M_DISK_PROMOTED), back);
	assert_true(attr_of("a").away);
	atomic_store(&faults.delay_ms, 0);
	assert_int_equal(read_it("a", 5), LARGE_BYTES);
}

/* What is under way of a read that was given up comes to its end: who asks meanwhile has it anew. */
static void who_asks_while_another_one_gives_up_is_served(void **state)
{
	struct opening o, after;

	(void)state;
	assert_int_equal(put("a", 5, LARGE_BYTES), 0);
	push_out("a");
	unlink_others();
	atomic_store(&faults.apart_ms, 100);
	uint64_t count = atomic_load(&faults.count);
	begin_open(&o, "a", 0);
	wait_requests(count + 7);
	atomic_store(&o.op.call.cancelled, true);
	assert_int_equal(kit_wait(&o.w), -ECANCELED);
	usleep(200000); /* one more has ended, and others have not */
	begin_open(&after, "a", 0);
	assert_int_equal(kit_wait(&after.w), 0);
	atomic_store(&faults.apart_ms, 0);
	assert_int_equal(kit_close(after.op.file, 0), 0);
	assert_int_equal(read_it("a", 5), LARGE_BYTES);
}

/* Who waits behind others and gives up costs them nothing. */
static void what_nobody_waits_for_is_not_read(void **state)
{
	struct opening o[4], late, after;

	(void)state;
	put_many(60, FILE_BYTES);
	for (unsigned i = 50; i < 60; i++) /* room, so that nothing is written */
		assert_int_equal(kit_unlink(e, number(i)), 0);
	atomic_store(&faults.delay_ms, 1500);
	uint64_t count = atomic_load(&faults.count);
	for (unsigned i = 0; i < 4; i++)
		begin_open(&o[i], number(i), 0);
	wait_requests(count + 3);
	begin_open(&late, "4", 50);
	begin_open(&after, "5", 0);
	assert_int_equal(kit_wait(&late.w), -ETIMEDOUT);
	atomic_store(&faults.delay_ms, 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(kit_wait(&o[i].w), 0);
		assert_int_equal(kit_close(o[i].op.file, 0), 0);
	}
	assert_int_equal(kit_wait(&after.w), 0);
	assert_int_equal(kit_close(after.op.file, 0), 0);
	assert_int_equal(read_it("6", 7), FILE_BYTES);
	assert_true(attr_of("4").away);
	assert_int_equal(read_it("4", 5), FILE_BYTES);
}

static void a_journal_that_fails_leaves_nothing(void **state)
{
	(void)state;
	put_many(40, FILE_BYTES);
	atomic_store(&faults.journal_error, -EIO);
	assert_int_equal(put("x", 1, FILE_BYTES), 0);
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	/* Of what was under way some may have gone there still. */
	int64_t written = -1;
	for (unsigned i = 0; i < 20 && metric_get(M_DISK_WRITTEN) != written; i++) {
		written = metric_get(M_DISK_WRITTEN);
		put_many(40, FILE_BYTES);
	}
	assert_int_equal(metric_get(M_DISK_WRITTEN), written);
	atomic_store(&faults.journal_error, 0);
	reboot();
	for (unsigned i = 0; i < 40; i++)
		assert_false(is_there(number(i)));
}

/* Its files would bring back what is on the disk: that is read, and not written. */
static void what_a_journal_that_stays_knows_is_not_written(void **state)
{
	(void)state;
	put_many(40, FILE_BYTES);
	push_out("3");
	push_out("4");
	push_out("5");
	assert_int_equal(read_it("4", 5), FILE_BYTES);
	assert_true(attr_of("4").copied);
	unlink_others(); /* so that nothing has to go, which would be without the disk */
	atomic_store(&faults.journal_stays, true);
	atomic_store(&faults.journal_error, -EIO);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(touch("3"), -EROFS);
		assert_int_equal(touch("4"), -EROFS);
	}
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	assert_int_equal(read_it("4", 5), FILE_BYTES);
	assert_int_equal(put("x", 1, FILE_BYTES), 0);
	assert_int_equal(touch("x"), 0);
	atomic_store(&faults.journal_error, 0);
	reboot();
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	assert_int_equal(read_it("4", 5), FILE_BYTES);
	assert_int_equal(touch("3"), 0);
	atomic_store(&faults.journal_stays, false);
}

static int sync_names(uint64_t timeout_ms)
{
	struct engine_ask a = { .call.deadline_ns = timeout_ms ? clock_ns() +
				timeout_ms * NS_PER_MS : 0 };

	return kit_ask(e, engine_sync_names, &a);
}

/* Who wants to know that it is so after a power loss waits until it is. */
static void what_was_done_to_names_is_synced(void **state)
{
	(void)state;
	put_many(40, FILE_BYTES);
	push_out("3");
	push_out("4");
	assert_int_equal(sync_names(0), 0);
	atomic_store(&faults.journal_ms, 1500);
	assert_int_equal(kit_unlink(e, "3"), 0);
	assert_int_equal(sync_names(50), -ETIMEDOUT);
	uint64_t begun = clock_ns();
	assert_int_equal(sync_names(0), 0);
	assert_true(clock_ns() - begun > 50 * NS_PER_MS);
	atomic_store(&faults.journal_ms, 0);
	atomic_store(&faults.journal_stays, true);
	atomic_store(&faults.journal_error, -EIO);
	assert_int_equal(kit_unlink(e, "4"), 0);
	assert_int_equal(sync_names(0), -EIO);
	atomic_store(&faults.journal_stays, false);
	atomic_store(&faults.journal_error, 0);
}

/* With the disk's answer goes the end: in a process of its own, for that ends there. */
static void close_without_answer(void)
{
	struct attr a = { 0 };
	struct place place;
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .done = kit_done, .arg = &w };

	alarm(60);
	end_ms = 300;
	assert_int_equal(begin(PATIENT_MS), 0);
	put_many(60, FILE_BYTES);
	assert_true(attr_of("1").away);
	assert_int_equal(kit_lookup(e, "1", &a, &place), 0);
	atomic_store(&faults.delay_ms, 1000000);
	op.call.deadline_ns = clock_ns() + 50 * NS_PER_MS;
	file_open(e, a.fileid, place, 0, &op);
	assert_int_equal(kit_wait(&w), -ETIMEDOUT);
	engine_close(e);
	_exit(0);
}

static void end_within(unsigned s, void (*close)(void))
{
	int status = 0;
	uint64_t begun = clock_ns();

	engine_close(e);
	e = NULL;
	pid_t child = fork();
	if (!child)
		close();
	assert_int_equal(waitpid(child, &status, 0), child);
	print_message("%.1f s\n", (double)(clock_ns() - begun) / 1e9);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_true(clock_ns() - begun < s * NS_PER_S);
	assert_int_equal(begin(PATIENT_MS), 0);
	check();
}

static void the_end_does_not_wait_for_a_dead_disk(void **state)
{
	unsigned there = 0;

	(void)state;
	end_within(60, close_without_answer);
	for (unsigned i = 0; i < 60; i++)
		there += is_there(number(i)) && read_it(number(i), i + 1) == FILE_BYTES;
	assert_in_range(there, 55, 60); /* what was to go there at the end may have gone */
}

/* Something is on its way there, and who wants room would wait for a minute. */
static void close_while_it_is_written(void)
{
	alarm(60);
	end_ms = 300;
	assert_int_equal(begin(60000), 0);
	put_many(14, FILE_BYTES);
	hold_eviction(1000000);
	engine_close(e);
	_exit(0);
}

static void the_end_waits_no_longer_than_who_wants_room(void **state)
{
	(void)state;
	end_within(15, close_while_it_is_written);
}

static unsigned percent_used(void)
{
	struct engine_space s;

	engine_space(e, &s);
	return 100 - (unsigned)(100 * s.free_bytes / POOL_BYTES);
}

/* The same for room on the disk: its segments are cleared, and that is not known there. */
static void close_while_none_is_ready(void)
{
	alarm(60);
	end_ms = 300;
	assert_int_equal(begin(60000), 0);
	put_many(60, FILE_BYTES);
	while (percent_used() > 95) /* or the first put would wait for the disk */
		usleep(1000);
	atomic_store(&faults.journal_ms, 1000000);
	for (unsigned i = 1000; percent_used() < 98; i++) {
		assert_int_equal(put(number(i), i, AT_ONCE), 0);
		for (unsigned ms = 0; percent_used() > 96 && ms < 400; ms++)
			usleep(1000);
	}
	engine_close(e);
	_exit(0);
}

static void the_end_waits_for_no_room_on_a_dead_disk(void **state)
{
	(void)state;
	end_within(15, close_while_none_is_ready);
}

/* What is on the disk is known in memory, which was not lost, to the generation of a segment. */
static void without_a_journal_memory_knows(void **state)
{
	unsigned there, n = 120;
	char path[400];

	(void)state;
	put_many(n, FILE_BYTES);
	atomic_store(&faults.journal_error, -EIO);
	for (; disk_kit_find("rows-", path, sizeof(path)); n++)
		assert_int_equal(put(number(n), n + 1, FILE_BYTES), 0);
	there = away(n);
	assert_true(there > 20);
	engine_close(e);
	atomic_store(&faults.journal_error, 0);
	assert_int_equal(begin(PATIENT_MS), 0);
	check();
	assert_true(away(n) > there / 2); /* some may have gone there, or have left it, meanwhile */
	for (unsigned i = 0; i < 20; i++, n++)
		assert_int_equal(put(number(n), n + 1, FILE_BYTES), 0);
	there = 0;
	for (unsigned i = 0; i < n; i++)
		there += is_there(number(i)) && read_it(number(i), i + 1) == FILE_BYTES;
	assert_true(there > 10);
	reboot();
	assert_true(away(n));
}

/* As it is in between when it is going to be written; and the journal has that not yet. */
static void drop_copy(const char *name)
{
	struct index_op op = { 0 };
	struct attr a = { 0 };

	assert_int_equal(kit_lookup(e, name, &a, &op.place), 0);
	op.fileid = a.fileid;
	assert_int_equal(index_wait(engine_index(e), &op, index_copy_drop), 0);
	index_op_fini(&op);
}

/* Nothing is there any more, and nothing of it comes back: with the disk, and when memory is lost. */
static void without_its_disk_all_is_written(void **state)
{
	char path[400];
	struct stat st;

	(void)state;
	for (unsigned is_lost = 0; is_lost < 2; is_lost++) {
		kit_unlink(e, "a");
		assert_int_equal(put("a", 5, FILE_BYTES), 0);
		push_out("a");
		unlink_others();
		assert_int_equal(read_it("a", 5), FILE_BYTES);
		assert_int_equal(sync_names(0), 0);
		assert_true(disk_kit_find("journal-", path, sizeof(path)));
		assert_int_equal(stat(path, &st), 0);
		drop_copy("a");
		assert_true(attr_of("a").copied);
		engine_close(e);
		assert_int_equal(truncate(path, st.st_size), 0);
		has_no_disk = true;
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_int_equal(touch("a"), 0);
		assert_false(attr_of("a").copied);
		assert_true(write_again("a", 7, FILE_BYTES));
		engine_close(e);
		has_no_disk = false;
		assert_true(!is_lost || !engine_store_remove(kept, false));
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_true(is_there("a") == !is_lost);
		assert_true(is_lost || read_it("a", 7) == FILE_BYTES);
	}
}

/* Refused ---------------------------------------------------------------------------------- */

static int try(const char *dir, uint64_t bytes, const char *says)
{
	const struct engine_opts o = { .in_memory = true, .pool_bytes = POOL_BYTES, .ssd = dir,
				       .ssd_bytes = bytes };
	struct engine *other;
	char *why = NULL;
	int r = engine_open(&o, &other, &why);

	if (!r) {
		engine_close(other);
	} else {
		assert_non_null(why);
		if (!strstr(why, says))
			fail_msg("\"%s\" does not say \"%s\"", why, says);
	}
	free(why);
	return r;
}

static void damage(const char *file, off_t at)
{
	char path[400];
	int fd;

	assert_true(disk_kit_find(file, path, sizeof(path)));
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "?", 1, at), 1);
	close(fd);
}

static void store_text(const char *name, const char *text)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void move_to(const char *from, const char *to)
{
	char a[400], b[400];

	assert_true(disk_kit_find(from, a, sizeof(a)));
	snprintf(b, sizeof(b), "%s/%s%s", folder, to, strrchr(a, '/') + 1);
	assert_int_equal(rename(a, b), 0);
}

/* Who was interrupted while he removed, or moved aside, what was there. */
static void what_is_left_of_another_is_in_nobodys_way(void **state)
{
	char path[400];

	(void)state;
	put_many(40, FILE_BYTES);
	engine_close(e);
	assert_true(disk_kit_find("data", path, sizeof(path)));
	assert_int_equal(unlink(path), 0);
	store_text("rows-2024.csv", "a user's");
	store_text("rows-00000009", "not whole");
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_int_equal(is_there("3"), i > 0);
		put_many(40, FILE_BYTES);
		push_out("3");
		engine_close(e);
	}
	assert_true(disk_kit_find("rows-2024.csv", path, sizeof(path)));
	snprintf(path, sizeof(path), "%s/aside", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	move_to("rows-0", "aside/");
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_true(is_there("3"));
	engine_close(e);
	assert_int_equal(access(path, F_OK), -1);
	const struct engine_opts o = { .in_memory = true, .fresh = true };
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), 0);
	assert_false(is_there("3"));
	put_many(40, FILE_BYTES);
	engine_close(e);
	snprintf(path, sizeof(path), "%s/old/data", folder);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), -EEXIST);
	assert_int_equal(begin(PATIENT_MS), 0);
}

/* Whatever it is refused for, and killed in the midst of it. */
static void what_fresh_is_refused_for_is_there(void **state)
{
	const struct engine_opts o = { .in_memory = true, .fresh = true };
	char path[400];

	(void)state;
	put_many(40, FILE_BYTES);
	push_out("3");
	engine_close(e);
	assert_int_equal(begin_with(o, 0, PATIENT_MS), -EINVAL);
	assert_int_equal(begin_with(o, 1ULL << 43, PATIENT_MS), -ENOSPC);
	atomic_store(&faults.journal_error, -EIO);
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), -EIO);
	atomic_store(&faults.journal_error, 0);
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	engine_close(e);
	snprintf(path, sizeof(path), "%s/aside", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	move_to("rows-0", "aside/");
	move_to("journal-0", "aside/");
	move_to("data", "aside/");
	store_text("rows-00000001", "the new one's");
	store_text("data", "the new one's");
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_int_equal(read_it("3", 4), FILE_BYTES);
	snprintf(path, sizeof(path), "%s/old", folder);
	assert_int_equal(access(path, F_OK), -1);
}

/* As before tier_keep(). */
static void old_is_aside(void)
{
	char old[400], aside[400];

	snprintf(old, sizeof(old), "%s/old", folder);
	snprintf(aside, sizeof(aside), "%s/aside", folder);
	assert_int_equal(rename(old, aside), 0);
}

static bool folder_has(const char *name)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return !access(path, F_OK);
}

/* Killed when the store that was made anew was there, and what was on its disk was not kept yet. */
static void what_came_to_be_is_not_replaced(void **state)
{
	const struct engine_opts o = { .dir = kept, .index_bytes = POOL_BYTES, .fresh = true };
	char path[400];

	(void)state;
	put_many(40, FILE_BYTES);
	push_out("3");
	engine_close(e);
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), 0);
	assert_false(is_there("3"));
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	push_out("a");
	engine_close(e);
	old_is_aside();
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_true(folder_has("old/data") && !folder_has("aside"));
	assert_false(is_there("3"));
	assert_int_equal(read_it("a", 5), FILE_BYTES);
	push_out("a");
	engine_close(e);
	/* Something else is in the way. */
	old_is_aside();
	snprintf(path, sizeof(path), "%s/old", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	store_text("old/mine", "a user's");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_true(folder_has("old/mine") && folder_has("aside/data"));
		assert_true(is_there("a"));
		engine_close(e);
		assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), -EEXIST);
	}
	snprintf(path, sizeof(path), "%s/old/mine", folder);
	assert_int_equal(unlink(path), 0);
	/* It goes with its store, and what it has replaced does not. */
	assert_int_equal(engine_store_remove(kept, true), 0);
	assert_true(folder_has("old/data") && !folder_has("aside") && !folder_has("data"));
	assert_int_equal(begin(PATIENT_MS), 0);
}

/* Killed before that: the store is the one that was. Its disk was noted without an id once. */
static void what_did_not_come_to_be_is_put_back(void **state)
{
	static const char *const names[] = { "rows-0", "journal-0", "data" };
	const struct engine_opts o = { .dir = kept, .index_bytes = POOL_BYTES, .fresh = true };
	char path[400], note[400];

	(void)state;
	put_many(40, FILE_BYTES);
	for (unsigned i = 0; i < 6; i++) {
		push_out("3");
		engine_close(e);
		if (i == 5) {
			snprintf(path, sizeof(path), "%s/current/disk.txt", kept);
			snprintf(note, sizeof(note), "%s/disk.txt", kept);
			assert_int_equal(rename(path, note), 0);
			FILE *f = fopen(note, "w");
			assert_non_null(f);
			fprintf(f, "%s\n", folder);
			fclose(f);
		}
		atomic_store(&faults.journal_error, -EIO);
		assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), -EIO);
		atomic_store(&faults.journal_error, 0);
		assert_false(folder_has("aside"));
		snprintf(path, sizeof(path), "%s/aside", folder);
		assert_int_equal(mkdir(path, 0700), 0);
		for (unsigned k = 0; k < 3 && k < i; k++) /* as far as it had come */
			move_to(names[k], "aside/");
		if (i > 3) {
			store_text("rows-00000001", "the new one's");
			store_text("data", "the new one's");
		}
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_true(!folder_has("aside") && !folder_has("old"));
		assert_int_equal(read_it("3", 4), FILE_BYTES);
	}
	assert_int_equal(access(note, F_OK), -1);
	engine_close(e);
	assert_int_equal(engine_store_remove(kept, true), 0);
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(begin(PATIENT_MS), 0);
}

/* All else is there by then: it is no error, and nothing is put back. */
static void what_cannot_be_kept_stays_aside(void **state)
{
	struct tier_opts o = { .dir = folder, .bytes = DISK_BYTES, .store = "", .fresh = true };
	struct tier *t = NULL;
	char *why = NULL, path[400];

	(void)state;
	engine_close(e);
	assert_int_equal(tier_open(&o, &t, &why), 0);
	assert_true(folder_has("aside/data"));
	snprintf(path, sizeof(path), "%s/old", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	store_text("old/mine", "a user's");
	tier_keep(t);
	tier_free(t);
	assert_true(folder_has("aside/data") && folder_has("old/mine"));
	assert_int_equal(begin(PATIENT_MS), 0);
}

/* Killed when it had its size, and no head yet. */
static void what_was_never_made_is_made(void **state)
{
	char path[400];

	(void)state;
	engine_close(e);
	disk_kit_empty(folder);
	store_text("data", "");
	snprintf(path, sizeof(path), "%s/data", folder);
	assert_int_equal(truncate(path, DISK_BYTES / 2), 0);
	assert_int_equal(begin(PATIENT_MS), 0);
	put_many(40, FILE_BYTES);
	push_out("3");
	engine_close(e);
	/* It was: that is damage. */
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(truncate(path, DISK_BYTES), 0);
	assert_int_equal(try(folder, 0, "not what slicefs writes"), -EUCLEAN);
	disk_kit_empty(folder);
	assert_int_equal(begin(PATIENT_MS), 0);
}

static void what_is_not_ours_is_refused(void **state)
{
	char path[400];

	(void)state;
	assert_int_equal(try(folder, DISK_BYTES, "in use"), -EBUSY);
	put_many(40, FILE_BYTES);
	engine_close(e);
	assert_int_equal(try(folder, DISK_BYTES * 2, "has 700 MiB"), -EINVAL);
	assert_int_equal(try("/dev/shm", DISK_BYTES, "is memory"), -EINVAL);
	damage("rows-", 30);
	assert_int_equal(try(folder, 0, "rows-"), -EUCLEAN);
	assert_true(disk_kit_find("journal-", path, sizeof(path)));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(try(folder, 0, "rows-"), -EUCLEAN);
	damage("data", 3);
	assert_int_equal(try(folder, 0, "not what slicefs writes"), -EUCLEAN);
	disk_kit_empty(folder);
	assert_int_equal(try(folder, 0, "--ssd-size"), -EINVAL);
	assert_int_equal(try(folder, 4 << 20, "too little"), -EINVAL);
	assert_int_equal(try(folder, 1000, "too little"), -EINVAL);
	assert_int_equal(try(folder, 1ULL << 43, "no room"), -ENOSPC);
	assert_false(disk_kit_find("data", path, sizeof(path)));
	snprintf(path, sizeof(path), "%s/none", folder);
	assert_int_equal(try(path, 0, "--ssd-size"), -EINVAL);
	assert_int_equal(access(path, F_OK), -1); /* nothing is left of it */
	assert_int_equal(begin(PATIENT_MS), 0);
}

/* Nobody knows what is there: it may be as it was when it is there again. */
static void without_its_disk_it_is_not_written(void **state)
{
	char elsewhere[400], note[400];

	(void)state;
	snprintf(elsewhere, sizeof(elsewhere), "%s.elsewhere", folder);
	snprintf(note, sizeof(note), "%s/current/disk.txt", kept);
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	push_out("a");
	assert_int_equal(read_it("a", 5), FILE_BYTES);
	unlink_others();
	drop_copy("a");
	assert_true(attr_of("a").copied);
	engine_close(e);
	assert_int_equal(rename(folder, elsewhere), 0);
	for (unsigned i = 0; i < 3; i++) {
		if (i) /* where it was mounted */
			assert_int_equal(mkdir(folder, 0700), 0);
		if (i == 2)
			store_text("data", "another's");
		has_no_disk = true;
		assert_int_equal(begin(PATIENT_MS), 0);
		assert_int_equal(touch("a"), -EROFS);
		assert_int_equal(read_it("a", 5), FILE_BYTES);
		kit_unlink(e, "b");
		assert_int_equal(put("b", 6, FILE_BYTES), 0);
		assert_int_equal(touch("b"), 0);
		engine_close(e);
		has_no_disk = false;
		if (i == 2)
			disk_kit_empty(folder);
		assert_int_equal(begin(PATIENT_MS), -ENOENT);
		rmdir(folder);
	}
	assert_int_equal(rename(elsewhere, folder), 0);
	has_no_disk = true;
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_int_equal(touch("a"), 0);
	engine_close(e);
	has_no_disk = false;
	assert_int_equal(begin(PATIENT_MS), 0);
	push_out("a");
	assert_int_equal(read_it("a", 5), FILE_BYTES);
	unlink_others();
	assert_int_equal(kit_unlink(e, "b"), 0);
	drop_copy("a");
	engine_close(e);
	/* It is gone for good: another one takes its place. */
	disk_kit_empty(folder);
	assert_int_equal(begin(PATIENT_MS), -ENOENT);
	assert_int_equal(unlink(note), 0);
	assert_int_equal(begin(PATIENT_MS), 0);
	assert_int_equal(touch("a"), 0);
}

/* Also while `data` is being moved: the folder has the lock, too. */
static void what_is_in_use_is_refused(void **state)
{
	char path[400], moved[400];

	(void)state;
	assert_true(disk_kit_find("data", path, sizeof(path)));
	snprintf(moved, sizeof(moved), "%s/moved", folder);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(try(folder, DISK_BYTES, "is in use by another"), -EBUSY);
		assert_int_equal(tier_forget(folder, "", 0), -EBUSY);
		assert_int_equal(tier_remove(folder, "", 0), -EBUSY);
		if (i)
			assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(i ? rename(moved, path) : rename(path, moved), 0);
	}
}

/* No room --------------------------------------------------------------------------------- */

/* A file that is open, of as many pages as are to be free no more. */
static struct file *fill_but(uint64_t bytes)
{
	uint64_t words[512] = { 0 };
	struct file *f = NULL;

	assert_int_equal(kit_create(e, "fills", &f), 0);
	for (uint64_t at = 0; at < POOL_BYTES - bytes; at += sizeof(words))
		assert_int_equal(kit_write(f, at, words, sizeof(words)), sizeof(words));
	return f;
}

/* Some pages are free, and too few for what is written at once. */
static void who_needs_more_than_there_is_is_told(void **state)
{
	static uint8_t buf[2 * FILE_BYTES];
	struct file *f = NULL, *more = NULL;

	(void)state;
	assert_int_equal(put("fills", 1, POOL_BYTES - FILE_BYTES), 0);
	assert_int_equal(kit_open_name(e, "fills", 0, &f), 0);
	assert_int_equal(kit_create(e, "more", &more), 0);
	uint64_t begun_ns = clock_ns();
	assert_int_equal(kit_write(more, 0, buf, sizeof(buf)), -ENOSPC);
	assert_true(clock_ns() - begun_ns < 5 * NS_PER_S);
	assert_int_equal(kit_close(more, FILE_WRITE | FILE_DISCARD), 0);
	assert_int_equal(kit_close(f, 0), 0);
}

static void *closes_soon(void *arg)
{
	usleep(100000);
	assert_int_equal(kit_close(arg, FILE_WRITE | FILE_DISCARD), 0);
	return NULL;
}

/* It comes back when those let go who have all there is. */
static void what_is_away_waits_for_room(void **state)
{
	pthread_t t;

	(void)state;
	put_many(40, FILE_BYTES);
	assert_true(attr_of("0").away);
	struct file *f = fill_but(0);
	assert_int_equal(pthread_create(&t, NULL, closes_soon, f), 0);
	assert_int_equal(read_it("0", 1), FILE_BYTES);
	pthread_join(t, NULL);
}

enum { LARGE = 3 };

/* Here and there a page: while it is open others wait. */
static void *reads_large(void *arg)
{
	const unsigned *i = arg;
	struct file *f = NULL;
	uint64_t words[512];
	char name[16];

	snprintf(name, sizeof(name), "large %u", *i);
	assert_int_equal(kit_open_name(e, name, 0, &f), 0);
	for (uint64_t at = 0; at < LARGE_BYTES; at += FILE_BYTES) {
		assert_int_equal(kit_read(f, at, words, sizeof(words)), sizeof(words));
		assert_int_equal(words[at / FILE_BYTES], *i + 1);
	}
	assert_int_equal(kit_close(f, 0), 0);
	return NULL;
}

/* There is room for one of them at a time, and what is evicted for them is small: none has a part
 * of that room and waits for what another one has. */
static void large_ones_come_back_at_once(void **state)
{
	unsigned numbers[LARGE];
	pthread_t t[LARGE];

	(void)state;
	for (unsigned i = 0; i < LARGE; i++) {
		char name[16];
		snprintf(name, sizeof(name), "large %u", i);
		assert_int_equal(put(name, i + 1, LARGE_BYTES), 0);
		numbers[i] = i;
	}
	for (unsigned round = 0; round < 5; round++) {
		put_many(40, FILE_BYTES);
		for (unsigned i = 0; i < LARGE; i++)
			assert_int_equal(pthread_create(&t[i], NULL, reads_large, &numbers[i]), 0);
		for (unsigned i = 0; i < LARGE; i++)
			pthread_join(t[i], NULL);
	}
}

/* In pieces of three pages, so that blocks begin and end in the midst of them. */
static void it_comes_back_in_pieces(void **state)
{
	enum { BYTES = 3 * 4096, N = POOL_BYTES / BYTES };

	(void)state;
	assert_int_equal(put("a", 5, FILE_BYTES), 0);
	assert_int_equal(put("b", 6, FILE_BYTES), 0);
	push_out("a");
	push_out("b");
	put_many(N, BYTES);
	for (unsigned i = 0; i < N; i += 2)
		kit_unlink(e, number(i));
	assert_true(kit_is_idle()); /* what is freed is */
	assert_true(attr_of("a").away && attr_of("b").away);
	uint64_t count = atomic_load(&faults.count);
	assert_int_equal(read_it("a", 5), FILE_BYTES);
	assert_true(atomic_load(&faults.count) - count > 50);
	atomic_store(&faults.only, DISK_READS);
	atomic_store(&faults.flip_in, 20);
	assert_int_equal(read_it("b", 6), -EIO);
	wait_gone("b");
}

/* All at once ------------------------------------------------------------------------------- */

enum { WALKERS = 4, NAMES = 150, STEPS = 400 };

static void *walk(void *arg)
{
	unsigned seed = *(unsigned *)arg;
	char name[16];

	for (unsigned i = 0; i < STEPS; i++) {
		unsigned k = (unsigned)rand_r(&seed) % NAMES;
		snprintf(name, sizeof(name), "w%u", k);
		switch (rand_r(&seed) % 8) {
		case 0:
			kit_unlink(e, name);
			break;
		case 1: {
			char to[16];
			snprintf(to, sizeof(to), "w%u", (unsigned)rand_r(&seed) % NAMES / 2 * 2);
			if (k % 2 == 0 && strcmp(to, name))
				kit_unlink(e, to);
			break;
		}
		case 2:
		case 3: {
			int r = put(name, k + 1, 65536U << rand_r(&seed) % 5);
			assert_true(!r || r == -EEXIST || r == -ENOENT);
			break;
		}
		default: {
			int64_t n = read_it(name, k + 1);
			assert_true(n >= 0 || n == -ENOENT || n == -ESTALE);
		}
		}
	}
	return NULL;
}

static void all_at_once(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	unsigned seeds[WALKERS];
	pthread_t t[WALKERS];
	int64_t demoted = metric_get(M_DISK_DEMOTED), back = metric_get(M_DISK_PROMOTED);

	(void)state;
	print_message("SEED=%u\n", seed);
	for (unsigned i = 0; i < WALKERS; i++) {
		seeds[i] = seed + i;
		assert_int_equal(pthread_create(&t[i], NULL, walk, &seeds[i]), 0);
	}
	for (unsigned i = 0; i < WALKERS; i++)
		pthread_join(t[i], NULL);
	check();
	assert_true(metric_get(M_DISK_DEMOTED) > demoted);
	assert_true(metric_get(M_DISK_PROMOTED) > back);
	reboot();
	for (unsigned k = 0; k < NAMES; k++) {
		char name[16];
		snprintf(name, sizeof(name), "w%u", k);
		int64_t n = read_it(name, k + 1);
		assert_true(n > 0 || n == -ENOENT);
	}
}

/* Memory is lost, and there is less of it for names than there was. */
static void as_much_is_there_as_the_index_has_room_for(void **state)
{
	enum { N = 6000, BYTES = 8192, INDEX_BYTES = 16 << 20, LESS = 1 << 20 };
	char dir[] = "/dev/shm/slicefs-test-XXXXXX";
	unsigned there = 0;

	(void)state;
	engine_close(e);
	assert_non_null(mkdtemp(dir));
	struct engine_opts o = { .dir = dir, .index_bytes = INDEX_BYTES };
	disk_kit_empty(folder);
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), 0);
	put_many(N, BYTES);
	unsigned before = away(N);
	engine_close(e);
	assert_int_equal(engine_store_remove(dir, false), 0);
	o.index_bytes = LESS;
	assert_int_equal(begin_with(o, DISK_BYTES, PATIENT_MS), 0);
	for (unsigned i = 0; i < N; i++) {
		int64_t r = is_there(number(i)) ? read_it(number(i), i + 1) : 0;
		/* It may go meanwhile. */
		assert_true(r == BYTES || r == 0 || r == -ENOENT || r == -ESTALE);
		there += r == BYTES;
	}
	assert_in_range(there, 1, before - 1);
	assert_int_equal(put("another", 1, FILE_BYTES), 0);
	check();
	engine_close(e);
	assert_int_equal(engine_store_remove(dir, true), 0);
	rmdir(dir);
	disk_kit_end();
	assert_int_equal(setup(state), 0);
}

int main(void)
{
#define TEST(fn, begins) cmocka_unit_test_setup_teardown(fn, begins, teardown)
	const struct CMUnitTest tests[] = {
		TEST(ten_times_the_pool_is_there, setup),
		TEST(of_all_sizes, setup),
		TEST(of_many_extents, setup),
		TEST(what_is_open_stays_in_memory, setup),
		TEST(what_cannot_move_is_passed_over, setup_late),
		TEST(what_is_away_is_written_and_unlinked, setup),
		TEST(a_disk_that_is_full_forgets, setup_small),
		TEST(what_is_small_makes_way, setup_small),
		TEST(what_is_large_makes_way, setup_late_small),
		TEST(it_is_there_after_a_reboot, setup),
		TEST(as_much_is_there_as_the_index_has_room_for, setup),
		TEST(no_older_version_comes_back, setup),
		TEST(what_was_there_is_not_written_again, setup),
		TEST(what_is_copied_is_there_after_a_reboot, setup),
		TEST(what_was_written_is_there_or_nothing, setup),
		TEST(a_copy_makes_way, setup_small),
		TEST(copies_of_what_is_pinned_make_way, setup_small),
		TEST(a_copy_costs_a_failing_disk_nothing, setup),
		TEST(what_cannot_be_read_is_an_error_and_goes, setup),
		TEST(what_came_back_meanwhile_stays, setup),
		TEST(what_is_torn_is_an_error, setup),
		TEST(a_disk_that_takes_nothing_costs_objects, setup),
		TEST(a_slow_disk_holds_up_nobody, setup_hasty),
		TEST(a_disk_that_was_slow_is_fast_again, setup_hasty),
		TEST(who_waits_for_a_slow_disk_gives_up_in_time, setup),
		TEST(a_dead_disk_does_not_hold_the_eviction, setup_hasty),
		TEST(who_waits_for_a_long_read_gives_up_in_time, setup),
		TEST(who_asks_while_another_one_gives_up_is_served, setup),
		TEST(what_nobody_waits_for_is_not_read, setup),
		TEST(the_end_does_not_wait_for_a_dead_disk, setup_kept_large),
		TEST(the_end_waits_no_longer_than_who_wants_room, setup_kept_large),
		TEST(the_end_waits_for_no_room_on_a_dead_disk, setup_kept_small),
		TEST(a_journal_that_fails_leaves_nothing, setup),
		TEST(what_a_journal_that_stays_knows_is_not_written, setup),
		TEST(what_was_done_to_names_is_synced, setup),
		TEST(without_a_journal_memory_knows, setup_kept_small),
		TEST(without_a_journal_memory_knows, setup_kept_large),
		TEST(without_its_disk_all_is_written, setup_kept_large),
		TEST(without_its_disk_it_is_not_written, setup_kept_large),
		TEST(what_is_left_of_another_is_in_nobodys_way, setup),
		TEST(what_fresh_is_refused_for_is_there, setup),
		TEST(what_came_to_be_is_not_replaced, setup_kept_large),
		TEST(what_did_not_come_to_be_is_put_back, setup_kept_large),
		TEST(what_cannot_be_kept_stays_aside, setup),
		TEST(what_was_never_made_is_made, setup),
		TEST(what_is_not_ours_is_refused, setup),
		TEST(what_is_in_use_is_refused, setup),
		TEST(who_needs_more_than_there_is_is_told, setup),
		TEST(what_is_away_waits_for_room, setup),
		TEST(large_ones_come_back_at_once, setup),
		TEST(it_comes_back_in_pieces, setup_late_patient),
		TEST(all_at_once, setup),
	};
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
