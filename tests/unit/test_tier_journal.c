/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/tier_journal.h and tier_replay.h: what is read again is what the index had, at whatever
 * byte the journal is cut or changed: some moment of its, never a mixture; also while it begins
 * new files. A disk that does not take it ends it, and leaves nothing that could be believed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "engine/tier_journal.h"
#include "index/index.h"
#include "tests/unit/disk_kit.h"

enum { ROWS = 16, MAX_BYTES = 1 << 20 };

static int dir;
static struct kv *kv;
static struct tier_log *tlog;
static struct journal *j;
static struct disk_faults faults;

/* Rows of extended attributes, which are kept whatever is in them. */
struct rows {
	uint32_t v[ROWS]; /* 0: it is not there */
};

static void key_of(unsigned i, char ret[12])
{
	memcpy(ret, "X\0\0\0\0\0\0\0\1aa", 12);
	ret[10] = (char)('a' + i);
}

static void put(struct rows *now, unsigned i, uint32_t value)
{
	char key[12];
	struct kv_write w = { { key, 11 }, { &value, sizeof(value) } };
	struct kv_req req = { .writes = &w, .nwrites = 1 };

	key_of(i, key);
	if (!value)
		w.value = BYTES_NONE;
	assert_int_equal(kv_wait(kv, &req), 0);
	kv_req_fini(&req);
	now->v[i] = value;
}

/* Two rows at one moment. */
static void put_two(struct rows *now, unsigned i, unsigned k, uint32_t value)
{
	char key[2][12];
	struct kv_write w[2] = { { { key[0], 11 }, { &value, 4 } }, { { key[1], 11 }, { &value, 4 } } };
	struct kv_req req = { .writes = w, .nwrites = 2 };

	key_of(i, key[0]);
	key_of(k, key[1]);
	assert_int_equal(kv_wait(kv, &req), 0);
	kv_req_fini(&req);
	now->v[i] = now->v[k] = value;
}

static int see_put(void *arg, struct bytes key, struct bytes value)
{
	struct rows *r = arg;
	uint32_t v;

	assert_int_equal(key.len, 11);
	assert_int_equal(value.len, sizeof(v));
	memcpy(&v, value.p, sizeof(v));
	r->v[((const char *)key.p)[10] - 'a'] = v;
	return 0;
}

static int see_del(void *arg, struct bytes key)
{
	((struct rows *)arg)->v[((const char *)key.p)[10] - 'a'] = 0;
	return 0;
}

static int read_it(struct rows *ret, struct journal_found *found)
{
	const struct record_visitor v = { .put = see_put, .del = see_del, .arg = ret };
	_cleanup_(freep) char *file = NULL;

	*ret = (struct rows){ 0 };
	return journal_read(dir, &v, found, &file);
}

static void begin(uint64_t rotate_bytes)
{
	struct journal_found found = { 0 };
	struct rows r;

	assert_int_equal(read_it(&r, &found), 0);
	const struct journal_opts o = {
		.dir = dir, .data = dir, .kv = kv, .log = tlog, .rotate_bytes = rotate_bytes,
		.head = { .pool_id = 42, .fs_id = 7, .number = found.next }, .faults = &faults,
	};
	assert_int_equal(journal_open(&o, &j), 0);
}

static void end(void)
{
	journal_close(j);
	j = NULL;
}

/* A walk over rows takes its time. */
static const struct kv_ops *fast;
static struct kv_ops ops;
static atomic_bool is_slow;
/* And something is committed meanwhile. */
static atomic_bool commits_in_walk;
static _Atomic uint64_t mark_in_walk;

static void slow_submit(struct kv *k, struct kv_req *req)
{
	if (atomic_load(&is_slow) && req->nreads)
		usleep(15000);
	if (req->nreads && atomic_exchange(&commits_in_walk, false)) {
		put_two(&(struct rows){ 0 }, 2, 3, 77);
		atomic_store(&mark_in_walk, journal_mark(j));
	}
	fast->submit(k, req);
}

static int setup(void **state)
{
	(void)state;
	dir = open(disk_kit_begin(), O_RDONLY | O_DIRECTORY);
	assert_true(dir >= 0);
	faults = (struct disk_faults){ 0 };
	assert_int_equal(kv_mem_open(&kv), 0);
	fast = kv->ops;
	ops = *fast;
	ops.submit = slow_submit;
	kv->ops = &ops;
	assert_int_equal(tier_log_new(42, 4, 1024, NULL, 3, &tlog), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	journal_close(j);
	j = NULL;
	kv_close(kv);
	tier_log_free(tlog);
	close(dir);
	disk_kit_end();
	return 0;
}

static void is(const struct rows *a)
{
	struct journal_found found;
	struct rows r;

	/* It may be about to remove what it has written anew, which no reader in earnest sees. */
	int e = -ENOENT;
	for (unsigned i = 0; e == -ENOENT && i < 100; i++)
		e = read_it(&r, &found);
	assert_int_equal(e, 0);
	assert_int_equal(found.head.pool_id, 42);
	assert_int_equal(found.head.fs_id, 7);
	assert_memory_equal(&r, a, sizeof(r));
}

static void what_is_committed_is_read(void **state)
{
	struct rows now = { 0 };

	(void)state;
	put(&now, 3, 9); /* before it begins */
	begin(0);
	is(&now);
	put(&now, 1, 5);
	put(&now, 2, 6);
	put(&now, 1, 0);
	assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
	is(&now);
	end();
	is(&now);
	begin(0);
	put(&now, 4, 4);
	end();
	is(&now);
}

static void nothing_is_read_of_nothing(void **state)
{
	struct journal_found found;
	struct rows r;

	(void)state;
	assert_int_equal(read_it(&r, &found), 0);
	assert_int_equal(found.head.version, 0);
	assert_int_equal(found.next, 1);
}

static void random_step(struct rows *now, uint32_t n)
{
	unsigned i = (unsigned)rand() % ROWS, k = (unsigned)rand() % ROWS;

	if (i != k && rand() % 3 == 0)
		put_two(now, i, k, n);
	else
		put(now, i, rand() % 4 ? n : 0);
}

static void it_begins_new_files_as_it_grows(void **state)
{
	struct rows now = { 0 };
	struct journal_found found;
	struct rows r;

	(void)state;
	begin(4096);
	for (uint32_t i = 1; i < 3000; i++) {
		random_step(&now, i);
		if (i % 100 == 0) {
			assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
			is(&now);
		}
	}
	end();
	is(&now);
	assert_int_equal(read_it(&r, &found), 0);
	assert_true(found.next > 4);
}

/* All moments that there were, in order. */
static struct rows moments[400];
static unsigned nmoments;

static bool is_a_moment(const struct rows *r)
{
	for (unsigned i = 0; i < nmoments; i++)
		if (!memcmp(r, &moments[i], sizeof(*r)))
			return true;
	return false;
}

static uint8_t *load(const char *path, size_t *ret_len)
{
	uint8_t *p = malloc(MAX_BYTES);
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, p, MAX_BYTES);

	assert_true(n > 0 && n < MAX_BYTES);
	close(fd);
	*ret_len = (size_t)n;
	return p;
}

static void store(const char *path, const uint8_t *p, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, p, len), len);
	close(fd);
}

static void make_moments(void)
{
	struct rows now = { 0 };

	srand(7);
	begin(0);
	nmoments = 0;
	moments[nmoments++] = now;
	for (uint32_t i = 1; i < 60; i++) {
		random_step(&now, i);
		moments[nmoments++] = now;
	}
	end();
}

static void a_cut_or_a_flip_anywhere_leaves_a_moment(void **state)
{
	_cleanup_(freep) uint8_t *p = NULL;
	struct journal_found found;
	struct rows r;
	char path[400];
	size_t len;
	int last = -1;

	(void)state;
	make_moments();
	assert_true(disk_kit_find("journal-", path, sizeof(path)));
	p = load(path, &len);
	for (size_t n = 0; n <= len; n++) {
		store(path, p, n);
		int e = read_it(&r, &found);
		assert_int_equal(e, n < RECORD_FIRST ? -EUCLEAN : 0); /* its head */
		assert_true(e || is_a_moment(&r));
	}
	assert_memory_equal(&r, &moments[nmoments - 1], sizeof(r));
	for (size_t n = 0; n < len; n++) {
		p[n] ^= 1 << (n % 8);
		store(path, p, len);
		p[n] ^= 1 << (n % 8);
		int e = read_it(&r, &found);
		assert_int_equal(e, n < RECORD_FIRST ? -EUCLEAN : 0);
		assert_true(e || (is_a_moment(&r) && found.torn));
		last = (int)n;
	}
	assert_int_equal(last, len - 1);
}

/* Rows have no end that may be missing. */
static void damaged_rows_are_refused(void **state)
{
	_cleanup_(freep) uint8_t *p = NULL;
	struct rows now = { 0 };
	struct journal_found found;
	struct rows r;
	char path[400];
	size_t len;

	(void)state;
	put(&now, 1, 1);
	begin(0);
	end();
	assert_true(disk_kit_find("rows-", path, sizeof(path)));
	p = load(path, &len);
	for (size_t n = 0; n < len; n++) {
		store(path, p, n);
		assert_int_equal(read_it(&r, &found), -EUCLEAN);
		p[n] ^= 4;
		store(path, p, len);
		p[n] ^= 4;
		assert_int_equal(read_it(&r, &found), -EUCLEAN);
	}
	store(path, p, len);
	is(&now);
}

static void a_newer_format_is_refused(void **state)
{
	struct writer entry = { 0 }, w = { 0 };
	struct record_head head = { .version = RECORD_VERSION + 1, .pool_id = 42, .fs_id = 7,
				    .number = 1 };
	struct journal_found found;
	struct rows r;
	uint64_t number = 0;
	char path[400];

	(void)state;
	begin(0);
	end();
	entry_head(&entry, &head);
	records_write(&w, &number, writer_bytes(&entry));
	assert_true(disk_kit_find("rows-", path, sizeof(path)));
	store(path, w.p, w.len);
	assert_int_equal(read_it(&r, &found), -EPROTONOSUPPORT);
	writer_fini(&w);
	writer_fini(&entry);
}

static void what_cannot_be_written_leaves_nothing(void **state)
{
	struct rows now = { 0 };
	struct journal_found found;
	struct rows r;

	(void)state;
	begin(0);
	put(&now, 1, 1);
	assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
	atomic_store(&faults.journal_error, -EIO);
	put(&now, 1, 2);
	uint64_t mark = journal_mark(j);
	assert_int_equal(journal_wait(j, mark, 0), -EIO);
	assert_false(journal_has(j, mark));
	put(&now, 1, 3); /* goes on without */
	end();
	assert_int_equal(read_it(&r, &found), 0);
	assert_int_equal(found.head.version, 0);
}

/* Who is told has been told last: what he changes then cannot be there as it was before. */
static void nothing_is_left_when_it_is_told(void **state)
{
	struct rows now = { 0 };
	char name[400];

	(void)state;
	begin(0);
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "%s/journal-%08x", disk_kit_dir, 0x1000 + i);
		store(name, NULL, 0);
	}
	atomic_store(&faults.journal_error, -EIO);
	put(&now, 1, 2);
	assert_int_equal(journal_wait(j, journal_mark(j), 0), -EIO);
	assert_false(disk_kit_find("journal-", name, sizeof(name)));
	assert_false(disk_kit_find("rows-", name, sizeof(name)));
	end();
}

/* Who was killed may have written them, and not synced: the rows name them. */
static void bytes_from_before_are_synced_first(void **state)
{
	int end[2]; /* what cannot be synced */

	(void)state;
	assert_int_equal(pipe(end), 0);
	const struct journal_opts o = {
		.dir = dir, .data = end[1], .kv = kv, .log = tlog,
		.head = { .pool_id = 42, .fs_id = 7, .number = 1 },
	};
	assert_int_equal(journal_open(&o, &j), -EINVAL);
	j = NULL;
	close(end[0]);
	close(end[1]);
}

/* Starts that each were cut off when they had made a new journal, and nothing in it yet. */
static void journals_that_were_never_begun_are_no_loss(void **state)
{
	struct rows now = { 0 };
	char path[400];

	(void)state;
	begin(0);
	put(&now, 1, 7);
	end();
	for (unsigned i = 2; i < 5; i++) {
		snprintf(path, sizeof(path), "%s/journal-%08x", disk_kit_dir, i);
		store(path, NULL, 0);
	}
	is(&now);
	begin(0);
	end();
	is(&now);
}

/* A journal goes on in another one when the rows cannot be written anew: *ret of the first, until
 * there is a second with something in it. */
static void begin_two_journals(struct rows *now, char first[400], char second[400])
{
	char path[400];
	struct stat st;

	snprintf(path, sizeof(path), "%s/rows-new", disk_kit_dir);
	begin(64); /* writes the rows, and then nothing can be where they were written */
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(first, 400, "%s/journal-%08x", disk_kit_dir, 1);
	snprintf(second, 400, "%s/journal-%08x", disk_kit_dir, 2);
	for (uint32_t i = 1; stat(second, &st) || st.st_size <= RECORD_FIRST; i++) {
		put(now, i % 7, i);
		assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
	}
}

static void end_two_journals(void)
{
	char path[400];

	end();
	snprintf(path, sizeof(path), "%s/rows-new", disk_kit_dir);
	assert_int_equal(rmdir(path), 0);
}

static void make_two_journals(struct rows *now, char first[400], char second[400])
{
	begin_two_journals(now, first, second);
	end_two_journals();
}

static void without_new_rows_the_old_ones_are_good(void **state)
{
	struct rows now = { 0 };
	char first[400], second[400];

	(void)state;
	make_two_journals(&now, first, second);
	is(&now);
	begin(0);
	assert_int_equal(access(first, F_OK), -1);
	end();
	is(&now);
}

/* Nothing is taken from behind a gap; where nothing is behind it, it is the end. */
static void a_gap_is_damage(void **state)
{
	struct rows now = { 0 }, r;
	struct journal_found found;
	char first[400], second[400];
	struct stat st;

	(void)state;
	make_two_journals(&now, first, second);
	assert_int_equal(stat(first, &st), 0);
	assert_int_equal(truncate(first, st.st_size - 3), 0);
	assert_int_equal(read_it(&r, &found), -EUCLEAN);
	assert_int_equal(truncate(second, RECORD_FIRST), 0);
	assert_int_equal(read_it(&r, &found), 0);
	assert_true(found.torn);
}

/* Wherever it is stopped, by a kill or a file that stays. */
static void a_failure_leaves_all_or_nothing(void **state)
{
	enum { FILES = 3 };
	struct journal_found found;
	char first[400], second[400];

	for (unsigned n = 1; n <= FILES + 1; n++) {
		struct rows now = { 0 }, r;
		put(&now, 9, 9);
		begin_two_journals(&now, first, second);
		put(&now, 9, 0);
		assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
		r = now;
		atomic_store(&faults.stays_in, n);
		atomic_store(&faults.journal_error, -EIO);
		put(&r, 1, 77);
		assert_int_equal(journal_wait(j, journal_mark(j), 0), -EIO);
		assert_int_equal(journal_stays(j), n == 1);
		end_two_journals();
		assert_int_equal(read_it(&r, &found), 0);
		assert_int_equal(found.head.version != 0, n == 1);
		if (n == 1)
			assert_memory_equal(&r, &now, sizeof(r));
		atomic_store(&faults.stays_in, 0);
		atomic_store(&faults.journal_error, 0);
		now.v[1] = 77;
		begin(0); /* anew, from what memory knows */
		end();
		is(&now);
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
	}
}

/* They are what there was before. */
static void rows_without_their_journal_are_refused(void **state)
{
	struct rows now = { 0 }, r;
	struct journal_found found;
	char path[400];

	(void)state;
	put(&now, 1, 1);
	begin(0);
	put(&now, 1, 0);
	end();
	assert_true(disk_kit_find("journal-", path, sizeof(path)));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(read_it(&r, &found), -ENOENT);
}

/* Records of what is in memory only, of which the journal takes none. */
static void put_others(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char key[24];
		int len = snprintf(key, sizeof(key), "D%08x", i);
		struct kv_write w = { { key, (size_t)len }, { "x", 1 } };
		struct kv_req req = { .writes = &w, .nwrites = 1 };
		assert_int_equal(kv_wait(kv, &req), 0);
		kv_req_fini(&req);
	}
}

/* However many rows there are to be looked at for new files. */
static void who_waits_does_not_wait_for_new_rows(void **state)
{
	struct rows now = { 0 };
	char path[400];

	(void)state;
	put_others(25000);
	begin(1);
	atomic_store(&is_slow, true); /* 1.5 s */
	for (uint32_t i = 1; !disk_kit_find("rows-new", path, sizeof(path)); i++) {
		put(&now, 1, i);
		usleep(1000);
	}
	put(&now, 2, 1);
	assert_int_equal(journal_wait(j, journal_mark(j), clock_ns() + 600 * NS_PER_MS), 0);
	assert_true(disk_kit_find("rows-new", path, sizeof(path)));
	atomic_store(&is_slow, false);
	end();
	is(&now);
}

/* Nor until all of them are synced. */
static void who_waits_does_not_wait_for_their_sync(void **state)
{
	enum { ROW_BYTES = 128 << 10, GROWS = 16 << 20 };
	_cleanup_(freep) uint8_t *value = calloc(1, ROW_BYTES);
	struct rows now = { 0 };
	uint64_t longest = 0;
	char path[400], key[24];

	(void)state;
	assert_non_null(value);
	snprintf(path, sizeof(path), "%s/rows-new", disk_kit_dir);
	begin(GROWS);
	atomic_store(&faults.sync_ms, 100); /* 1.6 s */
	for (unsigned i = 0; access(path, F_OK); i++) {
		int len = snprintf(key, sizeof(key), "X%08xy", i);
		struct kv_write w = { { key, (size_t)len }, { value, ROW_BYTES } };
		struct kv_req req = { .writes = &w, .nwrites = 1 };
		assert_int_equal(kv_wait(kv, &req), 0);
		kv_req_fini(&req);
		assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
	}
	for (uint32_t i = 1; !access(path, F_OK); i++) {
		put(&now, 1, i);
		uint64_t begun = clock_ns();
		assert_int_equal(journal_wait(j, journal_mark(j), 0), 0);
		uint64_t took = clock_ns() - begun;
		longest = took > longest ? took : longest;
	}
	print_message("the longest wait: %.0f ms\n", (double)longest / 1e6);
	assert_true(longest < 1000 * NS_PER_MS);
	end();
}

/* What it is behind costs so much memory and no more; who waits is told when nothing is left there. */
static void a_disk_that_does_not_answer_loses_the_journal(void **state)
{
	enum { ROW_BYTES = 128 << 10, N = 600 };
	_cleanup_(freep) uint32_t *value = calloc(1, ROW_BYTES);
	struct rows now = { 0 }, r;
	struct kv_write w = { { "X\0\0\0\0\0\0\0\1long", 13 }, { value, ROW_BYTES } };
	struct journal_found found;

	(void)state;
	assert_non_null(value);
	begin(0);
	atomic_store(&faults.journal_ms, 1000000);
	put(&now, 1, 1);
	uint64_t mark = journal_mark(j);
	usleep(100000); /* the thread has that, and is there */
	for (unsigned i = 0; i < N; i++) {
		struct kv_req req = { .writes = &w, .nwrites = 1 };
		value[0] = i + 1;
		assert_int_equal(kv_wait(kv, &req), 0);
		kv_req_fini(&req);
	}
	assert_false(journal_has(j, 0));
	assert_int_equal(journal_wait(j, journal_mark(j), clock_ns() + NS_PER_MS), -ETIMEDOUT);
	assert_int_equal(journal_wait(j, mark, clock_ns() + NS_PER_MS), -ETIMEDOUT);
	atomic_store(&faults.journal_ms, 0);
	assert_int_equal(journal_wait(j, journal_mark(j), 0), -ENOBUFS);
	assert_false(journal_stays(j));
	assert_int_equal(read_it(&r, &found), 0);
	assert_int_equal(found.head.version, 0);
	end();
}

/* What was committed while rows were read may be among them in part: the journal has it first. */
static void new_rows_are_behind_the_journal(void **state)
{
	struct rows now = { 0 };
	char path[400];

	(void)state;
	snprintf(path, sizeof(path), "%s/rows-new", disk_kit_dir);
	begin(1);
	atomic_store(&is_slow, true);
	atomic_store(&mark_in_walk, 0);
	atomic_store(&commits_in_walk, true);
	for (uint32_t i = 1; !atomic_load(&mark_in_walk); i++) {
		put(&now, 1, i);
		usleep(1000);
	}
	while (!access(path, F_OK))
		;
	assert_true(journal_has(j, atomic_load(&mark_in_walk)));
	atomic_store(&is_slow, false);
	now.v[2] = now.v[3] = 77;
	end();
	is(&now);
}

static void a_long_commit_is_several_records(void **state)
{
	struct writer entries = { 0 }, w = { 0 };
	_cleanup_(freep) uint8_t *value = calloc(1, 100000);
	uint64_t number = 1, at = 1;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		entry_put(&entries, bytes_str("Xkey"), BYTES_OF(value, 100000));
	records_write(&w, &number, writer_bytes(&entries));
	assert_int_equal(number, 1 + 3);
	const struct record_visitor none = { 0 };
	assert_int_equal(records_read(writer_bytes(&w), &at, &none, &len), 0);
	assert_int_equal(len, w.len);
	assert_int_equal(at, number);
	writer_fini(&w);
	writer_fini(&entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_committed_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_read_of_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(it_begins_new_files_as_it_grows, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cut_or_a_flip_anywhere_leaves_a_moment, setup,
						teardown),
		cmocka_unit_test_setup_teardown(damaged_rows_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_newer_format_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_written_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_left_when_it_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_from_before_are_synced_first, setup, teardown),
		cmocka_unit_test_setup_teardown(journals_that_were_never_begun_are_no_loss, setup,
						teardown),
		cmocka_unit_test_setup_teardown(without_new_rows_the_old_ones_are_good, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_gap_is_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failure_leaves_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(rows_without_their_journal_are_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(who_waits_does_not_wait_for_new_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(who_waits_does_not_wait_for_their_sync, setup,
						teardown),
		cmocka_unit_test_setup_teardown(new_rows_are_behind_the_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(a_disk_that_does_not_answer_loses_the_journal, setup,
						teardown),
		cmocka_unit_test(a_long_commit_is_several_records),
	};
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
