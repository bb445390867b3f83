/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/segment.c as pool_open() uses it: the file outlives the process that
 * made it, and what is damaged, cut short, foreign or newer is refused and left
 * as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/metrics.h"
#include "engine/pool.h"
#include "engine/segment.h"
#include "index/index.h"
#include "tests/unit/refs_kit.h"

enum { BYTES = 4 << 20, HEADER = 64 };

static char dir[64], path[96], path_new[100];

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/dev/shm/slicefs-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/pool", dir);
	snprintf(path_new, sizeof(path_new), "%s.new", path);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	unlink(path_new);
	return rmdir(dir);
}

static int open_pool(bool create, uint64_t bytes, struct pool **ret)
{
	struct pool_opts o = { .path = path, .bytes = bytes, .create = create };

	return pool_open(&o, ret);
}

static int try_open(void)
{
	struct pool *p = NULL;
	int r = open_pool(false, 0, &p);

	if (r < 0)
		assert_null(p); /* outputs are written on success only */
	pool_close(p);
	return r;
}

static void create(void)
{
	struct pool *p = NULL;

	unlink(path);
	assert_int_equal(open_pool(true, BYTES, &p), 0);
	pool_close(p);
}

static void poke(off_t at, const void *bytes, size_t n)
{
	_cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_int_equal(pwrite(fd, bytes, n, at), n);
}

static void peek(off_t at, void *bytes, size_t n)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pread(fd, bytes, n, at), n);
}

static void bytes_and_id_outlive_the_pool(void **state)
{
	struct pool *p;
	struct slice_id s;
	uint32_t n;

	(void)state;
	assert_int_equal(open_pool(true, 2 * BYTES, &p), 0);
	uint64_t id = pool_id(p);
	assert_int_not_equal(id, 0);
	assert_int_equal(pool_npages(p), 2 * BYTES / PAGE_BYTES);
	assert_int_equal(pool_alloc(p, 600, &s, &n), 0);
	memset(pool_page(p, s.page), 0x5a, 600 * PAGE_BYTES);
	assert_int_equal(pool_unpin(p, s), 0);
	pool_close(p);

	assert_int_equal(open_pool(false, 0, &p), 0);
	assert_true(pool_id(p) == id);
	assert_int_equal(pool_npages(p), 2 * BYTES / PAGE_BYTES);
	assert_int_equal(pool_nfree(p), pool_npages(p)); /* all is FREE at first */
	assert_int_equal(adopt_slice(p, s, 600), 0);
	pool_adopted(p);
	const uint8_t *b = pool_span(p, s, 0, 600 * PAGE_BYTES);
	for (size_t i = 0; i < 600 * PAGE_BYTES; i++)
		if (b[i] != 0x5a)
			fail_msg("byte %zu", i);
	pool_close(p);
	unlink(path);

	assert_int_equal(open_pool(true, BYTES, &p), 0);
	assert_true(pool_id(p) != id); /* emptied: another pool */
	pool_close(p);
}

static void survives_a_killed_process(void **state)
{
	(void)state;
	unlink(path);
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct pool *p;
		struct slice_id s;
		uint32_t n;
		if (open_pool(true, BYTES, &p) || pool_alloc(p, 1, &s, &n))
			_exit(1);
		memset(pool_page(p, s.page), 0x77, PAGE_BYTES);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	struct pool *p;
	assert_int_equal(open_pool(false, 0, &p), 0);
	assert_int_equal(((uint8_t *)pool_page(p, 0))[PAGE_BYTES - 1], 0x77);
	pool_close(p);
}

static void every_damaged_header_byte_is_found(void **state)
{
	(void)state;
	create();
	for (unsigned i = 0; i < HEADER; i++) {
		uint8_t was, bad;
		peek(BYTES + i, &was, 1);
		for (unsigned bit = 0; bit < 8; bit++) {
			bad = was ^ (uint8_t)(1 << bit);
			poke(BYTES + i, &bad, 1);
			assert_int_equal(try_open(), -EUCLEAN);
		}
		peek(BYTES + i, &bad, 1);
		assert_int_equal(bad, was ^ 0x80); /* refused and kept */
		poke(BYTES + i, &was, 1);
	}
	assert_int_equal(try_open(), 0);
}

/* A whole header with one field changed and the checksum right. */
static void forge(unsigned at, uint64_t value, unsigned n)
{
	uint8_t h[HEADER];

	peek(BYTES, h, sizeof(h));
	for (unsigned i = 0; i < n; i++)
		h[at + i] = (uint8_t)(value >> (8 * i));
	uint64_t sum = XXH3_64bits(h, HEADER - 8);
	for (unsigned i = 0; i < 8; i++)
		h[HEADER - 8 + i] = (uint8_t)(sum >> (8 * i));
	poke(BYTES, h, sizeof(h));
}

/* A page that is missing would be a SIGBUS when the tmpfs has none left: it is had when the pool
 * is opened, or the pool is not. */
static void what_is_missing_is_had_at_once(void **state)
{
	struct stat st;
	struct pool *p = NULL;

	(void)state;
	create();
	_cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20,
				   1 << 20), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks < BYTES / 512);
	assert_int_equal(open_pool(false, 0, &p), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks >= BYTES / 512);
	pool_close(p);
}

/* Is the page in the page tables? */
static bool is_mapped(const void *p)
{
	_cleanup_(closep) int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	assert_int_equal(pread(fd, &entry, 8, (off_t)((uintptr_t)p / PAGE_BYTES * 8)), 8);
	return entry >> 63;
}

/* What is all there is mapped while it is used, and need not be for being closed. */
static void what_is_there_is_mapped_later(void **state)
{
	struct segment s;

	(void)state;
	create();
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(segment_open(path, &s), 0);
		assert_true(s.has_rest);
		assert_null(s.mapping);
		if (i % 2) {
			segment_map_rest(&s);
			assert_non_null(s.mapping);
		}
		segment_fini(&s);
	}
	assert_int_equal(segment_open(path, &s), 0);
	segment_map_rest(&s);
	segment_wait(&s);
	segment_map_rest(&s); /* there is none any more */
	assert_null(s.mapping);
	for (unsigned i = 0; i < BYTES; i += PAGE_BYTES)
		assert_true(is_mapped(s.base + i));
	segment_fini(&s);
}

static void newer_format_is_refused_as_newer(void **state)
{
	(void)state;
	create();
	forge(8, 2, 4);
	assert_int_equal(try_open(), -EPROTONOSUPPORT);
	forge(8, 0, 4);
	assert_int_equal(try_open(), -EUCLEAN);
	forge(8, 1, 4);
	assert_int_equal(try_open(), 0);
}

static void header_that_contradicts_the_file_is_refused(void **state)
{
	(void)state;
	create();
	forge(12, 8192, 4);
	assert_int_equal(try_open(), -EUCLEAN);
	forge(12, PAGE_BYTES, 4);
	forge(16, 2 * BYTES, 8);
	assert_int_equal(try_open(), -EUCLEAN);
	forge(16, BYTES, 8);
	forge(24, 0, 8);
	assert_int_equal(try_open(), -EUCLEAN);
	forge(24, 1, 8);
	assert_int_equal(try_open(), 0);
}

static void file_of_another_length_is_refused(void **state)
{
	const off_t lengths[] = { 0, 1, PAGE_BYTES, BYTES - 1, BYTES, BYTES + 1,
				  BYTES + HEADER, BYTES + PAGE_BYTES - 1,
				  BYTES + 2 * PAGE_BYTES, 2 * BYTES + PAGE_BYTES };

	(void)state;
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct stat st;
		create();
		assert_int_equal(truncate(path, lengths[i]), 0);
		assert_int_equal(try_open(), -EUCLEAN);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, lengths[i]);
	}
	/* a valid header behind bytes that are no multiple of 4 MiB */
	create();
	uint8_t page[PAGE_BYTES];
	peek(BYTES, page, sizeof(page));
	assert_int_equal(truncate(path, PAGE_BYTES), 0);
	poke(PAGE_BYTES, page, sizeof(page));
	assert_int_equal(try_open(), -EUCLEAN);
}

static void what_is_no_pool_is_refused(void **state)
{
	struct pool *p = NULL;

	(void)state;
	unlink(path);
	assert_int_equal(try_open(), -ENOENT);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(try_open(), -EISDIR);
	assert_int_equal(open_pool(true, BYTES, &p), -EEXIST);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("/dev/zero", path), 0);
	assert_int_equal(try_open(), -ELOOP);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(try_open(), -EUCLEAN);
	unlink(path);
}

static void creating_never_touches_what_is_there(void **state)
{
	struct pool *p = NULL;
	uint8_t before[HEADER], after[HEADER];

	(void)state;
	create();
	peek(BYTES, before, sizeof(before));
	assert_int_equal(open_pool(true, BYTES, &p), -EEXIST);
	assert_null(p);
	peek(BYTES, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(access(path_new, F_OK), -1);
}

static void creation_that_died_leaves_no_pool(void **state)
{
	struct pool *p;

	(void)state;
	unlink(path);
	/* what a process that was killed while creating leaves */
	_cleanup_(closep) int fd = open(path_new, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, BYTES / 2), 0);
	assert_int_equal(try_open(), -ENOENT);
	assert_int_equal(open_pool(true, BYTES, &p), 0);
	pool_close(p);
	assert_int_equal(access(path_new, F_OK), -1);
	assert_int_equal(try_open(), 0);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
	const uint64_t sizes[] = { 0, 1, BYTES - 1, BYTES + PAGE_BYTES, 1ull << 44 };
	struct pool *p = NULL;

	(void)state;
	unlink(path);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct pool_opts o = { .bytes = sizes[i] };
		assert_int_equal(open_pool(true, sizes[i], &p), -EINVAL);
		assert_int_equal(pool_open(&o, &p), -EINVAL);
		assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(access(path_new, F_OK), -1);
	}
	assert_null(p);
}

/* Runs in a child with a mount namespace of its own; 77: may not mount. */
static int on_a_full_tmpfs(void)
{
	struct pool_opts o = { .path = "/mnt/pool", .bytes = 4 * BYTES, .create = true };
	struct pool *p = NULL;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("t", "/mnt", "tmpfs", 0, "size=8m"))
		return 77;
	if (pool_open(&o, &p) != -ENOSPC || p || !access("/mnt/pool", F_OK) ||
	    !access("/mnt/pool.new", F_OK))
		return 1;
	o.bytes = BYTES;
	if (pool_open(&o, &p))
		return 2;
	memset(pool_page(p, 0), 1, BYTES); /* no SIGBUS */
	pool_close(p);
	/* a hole where the file system has no room: an error, no SIGBUS */
	int fd = open("/mnt/pool", O_RDWR | O_CLOEXEC);
	int fill = open("/mnt/fill", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES))
		return 3;
	char block[4096] = { 0 };
	while (write(fill, block, sizeof(block)) > 0)
		;
	o.create = false;
	p = NULL;
	if (pool_open(&o, &p) != -ENOSPC || p)
		return 4;
	return 0;
}

static void full_file_system_is_an_error_at_start(void **state)
{
	int status;

	(void)state;
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(on_a_full_tmpfs());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void whole_pool_is_resident_when_it_is_open(void **state)
{
	struct pool *p;

	(void)state;
	unlink(path);
	assert_int_equal(open_pool(true, 4 * BYTES, &p), 0);
	uint8_t in_core[4 * BYTES / PAGE_BYTES];
	assert_int_equal(mincore(pool_page(p, 0), 4 * BYTES, in_core), 0);
	for (unsigned i = 0; i < sizeof(in_core); i++)
		assert_true(in_core[i] & 1);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 >= 4 * BYTES);
	assert_int_equal(st.st_mode & 0777, 0600);
	pool_close(p);
}

static void gauges_are_back(void **state)
{
	int64_t n;

	(void)state;
	assert_null(metrics_busy(&n));
	assert_int_equal(metric_get(M_SLICES_FREE), 0);
	assert_int_equal(metric_get(M_SLICES_LIVE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_id_outlive_the_pool),
		cmocka_unit_test(survives_a_killed_process),
		cmocka_unit_test(every_damaged_header_byte_is_found),
		cmocka_unit_test(what_is_missing_is_had_at_once),
		cmocka_unit_test(what_is_there_is_mapped_later),
		cmocka_unit_test(newer_format_is_refused_as_newer),
		cmocka_unit_test(header_that_contradicts_the_file_is_refused),
		cmocka_unit_test(file_of_another_length_is_refused),
		cmocka_unit_test(what_is_no_pool_is_refused),
		cmocka_unit_test(creating_never_touches_what_is_there),
		cmocka_unit_test(creation_that_died_leaves_no_pool),
		cmocka_unit_test(sizes_that_cannot_be_are_refused),
		cmocka_unit_test(full_file_system_is_an_error_at_start),
		cmocka_unit_test(whole_pool_is_resident_when_it_is_open),
		cmocka_unit_test(gauges_are_back),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
