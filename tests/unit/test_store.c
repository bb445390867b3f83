/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores: made, kept, refused with a sentence that helps, and never changed by
 * being refused.
 */
#include "tests/unit/objects.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/size.h"
#include "engine/memory.h"

#define MIB (1ULL << 20)
#define POOL_BYTES (16 * MIB) /* the smallest one */
#define INDEX_BYTES (4 * MIB)

static char base[64]; /* on tmpfs, for all stores of this run */
static char dir[80];  /* the store of this test */
static bool opened;   /* index_open() succeeds: it reserves numbers in the index */

static struct engine_opts opts(void)
{
	return (struct engine_opts){
		.dir = dir, .pool_bytes = POOL_BYTES, .index_bytes = INDEX_BYTES
	};
}

static struct engine *open_with(const struct engine_opts *o)
{
	struct engine *e = NULL;
	char *reason = NULL;

	if (engine_open(o, &e, &reason))
		fail_msg("%s", reason);
	assert_null(reason);
	return e;
}

static struct engine *open_store(void)
{
	struct engine_opts o = opts();

	return open_with(&o);
}

/* A store with objects 100 .. 100+n, stopped. */
static void make_store(unsigned n)
{
	struct engine *e = open_store();

	for (unsigned i = 0; i < n; i++)
		assert_true(make_object(e, 100 + i, 1, 20 + i, 16, BODY_EXTENTS));
	engine_close(e);
}

static void assert_objects(uint64_t pages)
{
	struct engine *e = open_store();
	struct verify v = { .e = e };

	verify_all(&v);
	assert_int_equal(v.pages, pages);
	check_clean(e);
	engine_close(e);
}

static char *path_of(const char *file)
{
	static char path[4][256];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, file);
	return path[i];
}

/* Names, sizes and contents of all that is in the store. */
static uint64_t fingerprint(const char *folder)
{
	uint64_t sum = 0;
	DIR *d = opendir(folder);

	for (struct dirent *e; d && (e = readdir(d));) {
		char path[512];
		struct stat st;
		if (e->d_name[0] == '.' || !strcmp(e->d_name, "store.lock"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		assert_int_equal(lstat(path, &st), 0);
		sum += XXH3_64bits(path, strlen(path));
		if (S_ISDIR(st.st_mode)) {
			sum += fingerprint(path);
			continue;
		}
		/* LMDB's lock file changes by being looked at. */
		if (strstr(path, "-lock") || (opened && strstr(path, "index.lmdb")))
			continue;
		char *bytes = malloc((size_t)st.st_size + 1);
		int fd = open(path, O_RDONLY);
		assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
		sum += XXH3_64bits_withSeed(bytes, (size_t)st.st_size, (uint64_t)st.st_size);
		close(fd);
		free(bytes);
	}
	if (d)
		closedir(d);
	return sum;
}

/* Is refused, says so with these words (NULL ends), and changes nothing. */
static void refused(const struct engine_opts *o, int err, ...)
{
	uint64_t before = fingerprint(dir);
	bool was_there = !access(dir, F_OK);
	struct engine *e = (struct engine *)1;
	char *reason = NULL;
	va_list ap;

	assert_int_equal(engine_open(o, &e, &reason), err);
	assert_ptr_equal(e, (struct engine *)1);
	assert_non_null(reason);
	if (!strstr(reason, "Try: ") || !strstr(reason, dir) || strchr(reason, '\n'))
		fail_msg("no help: %s", reason);
	va_start(ap, err);
	for (const char *word; (word = va_arg(ap, const char *));)
		if (!strstr(reason, word))
			fail_msg("no \"%s\": %s", word, reason);
	va_end(ap);
	free(reason);
	assert_int_equal(fingerprint(dir), before);
	assert_int_equal(!access(dir, F_OK), was_there);
	assert_idle();
}

static void write_at(const char *file, off_t off, const void *p, size_t n)
{
	int fd = open(path_of(file), O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	if (off < 0)
		off += lseek(fd, 0, SEEK_END);
	assert_int_equal(pwrite(fd, p, n, off), n);
	close(fd);
}

static void read_at(const char *file, off_t off, void *p, size_t n)
{
	int fd = open(path_of(file), O_RDONLY);

	assert_true(fd >= 0);
	if (off < 0)
		off += lseek(fd, 0, SEEK_END);
	assert_int_equal(pread(fd, p, n, off), n);
	close(fd);
}

static enum store_state state_of(void)
{
	struct store_stat st;

	assert_int_equal(engine_store_stat(dir, &st), 0);
	return st.state;
}

/* Making and taking up again -------------------------------------------------------- */

static void test_new(void **state)
{
	struct engine *e = open_store();
	struct engine_space sp;
	struct store_stat st;
	(void)state;

	engine_space(e, &sp);
	assert_int_equal(sp.total_bytes, POOL_BYTES);
	assert_int_equal(sp.free_bytes, POOL_BYTES);
	assert_int_equal(sp.index_size_bytes, INDEX_BYTES);
	assert_true(sp.index_used_bytes > 0 && sp.index_used_bytes < sp.index_size_bytes);
	assert_int_not_equal(sp.pool_id, 0);
	assert_int_equal(metric_get(M_INDEX_SIZE), INDEX_BYTES);
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_RUNNING);
	assert_int_equal(st.pid, getpid());
	assert_int_equal(st.pool_bytes, POOL_BYTES);
	assert_int_equal(st.index_bytes, INDEX_BYTES);
	check_clean(e);
	engine_close(e);
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_STOPPED);
	assert_int_equal(st.pid, 0);

	e = open_store();
	uint64_t id = sp.pool_id;
	engine_space(e, &sp);
	assert_int_equal(sp.pool_id, id);
	engine_close(e);
}

static void test_kept(void **state)
{
	struct engine_opts o = { .dir = dir }; /* sizes: as they were */
	(void)state;

	make_store(3);
	assert_objects(20 + 21 + 22);
	struct engine *e = open_with(&o);
	struct engine_space sp;
	engine_space(e, &sp);
	assert_int_equal(sp.total_bytes, POOL_BYTES);
	engine_close(e);
}

static void test_default_sizes(void **state)
{
	struct engine_opts o = { .dir = dir, .pool_bytes = 17 * MIB };
	struct engine_space sp;
	(void)state;

	struct engine *e = open_with(&o);
	engine_space(e, &sp);
	assert_int_equal(sp.total_bytes, 20 * MIB); /* whole slices of 4 MiB */
	assert_int_equal(sp.index_size_bytes, 64 * MIB);
	engine_close(e);
	e = open_with(&o); /* asking for the same again */
	engine_close(e);
}

static void test_died_while_making(void **state)
{
	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(mkdir(path_of("new"), 0700), 0);
	write_at("new/pool.0", 0, "half", 4);
	assert_int_equal(state_of(), STORE_NONE);
	make_store(1);
	assert_objects(20);
	assert_int_equal(access(path_of("new"), F_OK), -1);
}

/* Killed at any moment of making a store, or of making it anew: the next one takes
 * up what is whole, or makes a new one; what was published before is kept. */
static void test_killed_while_making(void **state)
{
	struct rng r = { rnd_seed() };
	(void)state;

	for (unsigned i = 0; i < 40; i++) {
		struct engine_opts o = opts();
		int status;

		o.huge = !geteuid() && i % 2;
		o.fresh = i % 3 > 0;
		pid_t child = fork();
		if (!child) {
			struct engine *e;
			char *reason = NULL;
			if (engine_open(&o, &e, &reason)) {
				fprintf(stderr, "round %u: %s\n", i, reason);
				_exit(1);
			}
			engine_close(e);
			_exit(0);
		}
		usleep((useconds_t)rnd_below(&r, 12000));
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		assert_true(WIFSIGNALED(status) || !WEXITSTATUS(status));

		o.fresh = false;
		struct engine *e = open_with(&o);
		struct verify v = { .e = e };
		verify_all(&v);
		check_clean(e);
		if (!v.pages)
			assert_true(make_object(e, 100, 1, 20, 16, BODY_EXTENTS));
		engine_close(e);
		assert_int_equal(state_of(), STORE_STOPPED);
		char cmd[256];
		snprintf(cmd, sizeof(cmd), "rm -rf %s/old-* %s/mem/old-*", dir, dir);
		assert_int_equal(system(cmd), 0);
	}
}

/* Of several that open a store in the same moment, one has it. */
static void test_race(void **state)
{
	(void)state;

	for (unsigned round = 0; round < 20; round++) {
		int go[2], results[2];
		char c, outcome[4] = "";

		assert_int_equal(pipe(go), 0);
		assert_int_equal(pipe(results), 0);
		for (unsigned i = 0; i < 3; i++) {
			if (fork())
				continue;
			struct engine_opts o = opts();
			struct engine *e;
			close(go[1]);
			if (read(go[0], &c, 1))
				_exit(1);
			int r = engine_open(&o, &e, NULL);
			c = r == 0 ? 'y' : r == -EBUSY ? 'b' : '?';
			if (write(results[1], &c, 1) == 1 && c == 'y')
				pause();
			_exit(0);
		}
		close(go[0]);
		close(go[1]);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(read(results[0], &outcome[i], 1), 1);
		struct store_stat st;
		assert_int_equal(engine_store_stat(dir, &st), 0);
		assert_int_equal(st.state, STORE_RUNNING);
		kill(st.pid, SIGKILL);
		while (wait(NULL) > 0)
			;
		close(results[0]);
		close(results[1]);
		unsigned won = 0, busy = 0;
		for (unsigned i = 0; i < 3; i++) {
			won += outcome[i] == 'y';
			busy += outcome[i] == 'b';
		}
		assert_int_equal(won, 1);
		assert_int_equal(busy, 2);
		if (round % 2)
			assert_int_equal(engine_store_remove(dir, true), 0);
	}
}

static void use_and_remove(uint64_t seed)
{
	struct engine_opts o = opts();
	struct rng r = { seed };
	char mark[96];

	snprintf(mark, sizeof(mark), "%s/mark", base);
	for (unsigned i = 0; i < 60; i++) {
		struct engine *e;
		char *reason = NULL;
		int bad = engine_open(&o, &e, &reason);
		if (bad && bad != -EBUSY) {
			fprintf(stderr, "%s\n", reason);
			_exit(1);
		}
		free(reason);
		if (!bad) {
			int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
			if (fd < 0)
				_exit(2);
			close(fd);
			unlink(mark);
			engine_close(e);
		}
		if (rnd_below(&r, 2)) {
			bad = engine_store_remove(dir, true);
			if (bad && bad != -EBUSY && bad != -ENOENT)
				_exit(3);
		}
	}
	_exit(0);
}

/* Processes that use and remove one store: never two at once. */
static void test_exclusive(void **state)
{
	uint64_t seed = rnd_seed();
	int status;
	(void)state;

	for (unsigned i = 0; i < 4; i++)
		if (!fork())
			use_and_remove(seed + i);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
}

/* Refused ----------------------------------------------------------------------------- */

static void test_busy(void **state)
{
	struct engine *e = open_store();
	struct engine_opts o = opts();
	char pid[16];
	(void)state;

	snprintf(pid, sizeof(pid), "%d", getpid());
	refused(&o, -EBUSY, pid, "in use", "slicefs umount", NULL);
	o.fresh = true;
	refused(&o, -EBUSY, pid, NULL);
	o = opts();
	o.read_only = true;
	refused(&o, -EBUSY, pid, NULL);
	assert_int_equal(engine_store_remove(dir, true), -EBUSY);
	check_clean(e);
	engine_close(e);
}

/* The lock of a process that was killed is nobody's. */
static void test_killed(void **state)
{
	int ready[2], status;
	char c;
	(void)state;

	assert_int_equal(pipe(ready), 0);
	pid_t child = fork();
	if (!child) {
		struct engine *e = open_store();
		make_object(e, 100, 1, 20, 16, BODY_EXTENTS);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	struct store_stat st;
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_RUNNING);
	assert_int_equal(st.pid, child);
	assert_false(st.ends);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(ready[0]);
	close(ready[1]);
	assert_int_equal(state_of(), STORE_STOPPED);
	assert_objects(20);
}

/* One that was killed, and has the lock still while the kernel takes it away, is waited for: from
 * the kill on. */
static void test_killed_just_now(void **state)
{
	int ready[2], status;
	char c;
	(void)state;

	make_store(2);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(pipe(ready), 0);
		pid_t child = fork();
		if (!child) {
			open_store();
			if (write(ready[1], "x", 1) == 1)
				pause();
			_exit(1);
		}
		assert_int_equal(read(ready[0], &c, 1), 1);
		kill(child, SIGKILL);
		assert_objects(20 + 21);
		waitpid(child, &status, 0);
		close(ready[0]);
		close(ready[1]);
	}
}

/* To the end of its last thread. Here who has the lock so long is another process. */
static void test_ending(void **state)
{
	siginfo_t info;
	int status;
	(void)state;

	make_store(2);
	pid_t child = fork();
	if (!child) {
		open_store();
		pid_t first = getpid();
		if (!fork()) {
			while (getppid() == first)
				usleep(1000);
			usleep(300000);
		}
		_exit(0);
	}
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	struct store_stat st;
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_RUNNING);
	assert_int_equal(st.pid, child);
	assert_true(st.ends);
	assert_objects(20 + 21);
	waitpid(child, &status, 0);
}

static void test_other_sizes(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	make_store(2);
	o.pool_bytes = 64 * MIB;
	refused(&o, -EINVAL, "pool", "16 MiB", "64 MiB", "--pool-size", "--fresh", NULL);
	o = opts();
	o.index_bytes = 20 * MIB;
	refused(&o, -EINVAL, "index", "4 MiB", "20 MiB", "--index-size", NULL);
	assert_objects(20 + 21);
}

/* Where no folder can be made. */
static void test_no_place(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	strcpy(dir, "/proc/none/here");
	refused(&o, -ENOENT, "cannot make", "--store", NULL);
	strcpy(dir, "/etc/passwd/here");
	refused(&o, -ENOTDIR, "cannot make", NULL);
	strcpy(dir, "/etc/passwd");
	refused(&o, -ENOTDIR, "not a folder", NULL);
	snprintf(dir, sizeof(dir), "%s/none", base);
}

static void test_too_small(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	o.pool_bytes = 1;
	refused(&o, -EINVAL, "too small", "16 MiB", "--pool-size", NULL);
	assert_int_equal(access(dir, F_OK), -1);
}

static void test_too_large(void **state)
{
	static const uint64_t sizes[] = { 1ULL << 44, UINT64_MAX, UINT64_MAX / 2 };
	struct engine_opts o = opts();
	struct memory m;
	(void)state;

	assert_int_equal(memory_now(&m), 0);
	assert_true(m.available_bytes <= m.total_bytes);
	for (unsigned i = 0; i < 3; i++) {
		o.pool_bytes = sizes[i];
		refused(&o, -ENOMEM, "available", size_text(m.total_bytes).s, "--pool-size", NULL);
	}
	o.pool_bytes = m.total_bytes;
	refused(&o, -ENOMEM, "available", "left to others", "--pool-size", NULL);
	o = opts();
	o.index_bytes = UINT64_MAX;
	refused(&o, -ENOMEM, "available", NULL);
	assert_int_equal(access(dir, F_OK), -1);
}

static void test_no_space(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	if (geteuid())
		skip();
	char *mnt = strdup(dir);
	assert_int_equal(mkdir(mnt, 0700), 0);
	assert_int_equal(mount("test", mnt, "tmpfs", 0, "size=18M"), 0);
	snprintf(dir, sizeof(dir), "%s/in", mnt);
	refused(&o, -ENOSPC, "no space", "16 MiB", "are free", "store rm", NULL);
	assert_int_equal(access(dir, F_OK), -1);

	/* A pool that would fit is named, and does. */
	assert_int_equal(mount("test", mnt, "tmpfs", MS_REMOUNT, "size=32M"), 0);
	o.pool_bytes = 64 << 20;
	refused(&o, -ENOSPC, "no space", "64 MiB", "are free", "--pool-size 24M", NULL);
	o.pool_bytes = 24 << 20;
	engine_close(open_with(&o));
	assert_int_equal(engine_store_remove(dir, true), 0);
	o.pool_bytes = opts().pool_bytes;

	/* One that fits is made. */
	assert_int_equal(mount("test", mnt, "tmpfs", MS_REMOUNT, "size=22M"), 0);
	engine_close(open_with(&o));
	strcpy(dir, mnt);
	assert_int_equal(umount(mnt), 0);
	free(mnt);
}

static void test_cut_short(void **state)
{
	static const char *const files[] = { "current/pool.0", "current/index.lmdb" };
	struct engine_opts o = opts();
	(void)state;

	make_store(2);
	for (unsigned i = 0; i < 2; i++) {
		struct stat st;
		assert_int_equal(stat(path_of(files[i]), &st), 0);
		char *keep = malloc((size_t)st.st_size);
		read_at(files[i], 0, keep, (size_t)st.st_size);
		for (unsigned k = 0; k < 3; k++) {
			off_t lens[] = { st.st_size - 1, st.st_size / 2, 0 };
			assert_int_equal(truncate(path_of(files[i]), lens[k]), 0);
			refused(&o, -EUCLEAN, files[i], "--fresh", NULL);
			assert_int_equal(state_of() == STORE_DAMAGED || k == 0, 1);
		}
		write_at(files[i], 0, keep, (size_t)st.st_size);
		free(keep);
	}
	assert_objects(20 + 21);
}

static void test_foreign(void **state)
{
	static const char *const files[] = { "current/pool.0", "current/index.lmdb" };
	struct engine_opts o = opts();
	struct rng r = { 5 };
	(void)state;

	make_store(2);
	for (unsigned i = 0; i < 2; i++) {
		struct stat st;
		assert_int_equal(stat(path_of(files[i]), &st), 0);
		size_t n = (size_t)st.st_size;
		char *keep = malloc(n), *junk = calloc(1, n);
		read_at(files[i], 0, keep, n);
		write_at(files[i], 0, junk, n);
		refused(&o, -EUCLEAN, "--fresh", "slicefs fsck", NULL);
		for (size_t k = 0; k < n; k += 8)
			*(uint64_t *)(junk + k) = rnd(&r);
		write_at(files[i], 0, junk, n);
		refused(&o, -EUCLEAN, "--fresh", "slicefs fsck", NULL);
		write_at(files[i], 0, keep, n);
		free(keep);
		free(junk);
	}
	assert_objects(20 + 21);
}

static void test_missing(void **state)
{
	static const char *const files[] = {
		"current/pool.0", "current/index.lmdb", "current/sizes.txt", "store.txt"
	};
	struct engine_opts o = opts();
	(void)state;

	make_store(2);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(rename(path_of(files[i]), path_of("aside")), 0);
		refused(&o, -EUCLEAN, strrchr(files[i], '/') ? strrchr(files[i], '/') + 1 :
			files[i], "--fresh", NULL);
		assert_int_equal(state_of(), STORE_DAMAGED);
		assert_int_equal(rename(path_of("aside"), path_of(files[i])), 0);
	}
	assert_objects(20 + 21);
}

static void test_texts(void **state)
{
	static const char *const files[] = { "store.txt", "current/sizes.txt" };
	struct engine_opts o = opts();
	(void)state;

	make_store(1);
	for (unsigned i = 0; i < 2; i++) {
		char keep[256] = "", text[256];
		struct stat st;
		assert_int_equal(stat(path_of(files[i]), &st), 0);
		read_at(files[i], 0, keep, (size_t)st.st_size);

		snprintf(text, sizeof(text), "slicefs %s 2\n", i ? "sizes" : "store");
		write_at(files[i], 0, text, strlen(text));
		refused(&o, -EPROTONOSUPPORT, "newer", "--fresh", NULL);
		write_at(files[i], 0, "what is this", 12);
		refused(&o, -EUCLEAN, strrchr(files[i], 's'), "--fresh", NULL);
		assert_int_equal(truncate(path_of(files[i]), 0), 0);
		refused(&o, -EUCLEAN, "--fresh", NULL);
		write_at(files[i], 0, keep, strlen(keep));
	}
	assert_objects(20);
}

static void test_newer_pool(void **state)
{
	struct engine_opts o = opts();
	uint8_t head[64], keep[64];
	(void)state;

	make_store(1);
	read_at("current/pool.0", POOL_BYTES, head, sizeof(head));
	memcpy(keep, head, sizeof(head));
	head[8] = 99;
	uint64_t sum = XXH3_64bits(head, 56);
	memcpy(head + 56, &sum, 8);
	write_at("current/pool.0", POOL_BYTES, head, sizeof(head));
	refused(&o, -EPROTONOSUPPORT, "pool", "newer", "--fresh", NULL);
	head[8] = 98; /* and a wrong checksum */
	write_at("current/pool.0", POOL_BYTES, head, sizeof(head));
	refused(&o, -EUCLEAN, "pool.0", "--fresh", NULL);
	write_at("current/pool.0", POOL_BYTES, keep, sizeof(keep));
	assert_objects(20);
}

static void test_newer_index(void **state)
{
	struct engine *e = open_store();
	struct engine_opts o = opts();
	struct key k = key_meta("super");
	struct kv_read read = { .from = key_bytes(&k), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	(void)state;

	assert_int_equal(kv_wait(index_kv(e->ix), &req), 0);
	assert_int_equal(req.rows[0].nrows, 1);
	uint8_t v[256];
	size_t n = req.rows[0].rows[0].value.len;
	memcpy(v, req.rows[0].rows[0].value.p, n);
	kv_req_fini(&req);
	v[0] = 99; /* the format version comes first in all values */
	assert_int_equal(put_row(e, k, BYTES_OF(v, n)), 0);
	engine_close(e);
	refused(&o, -EPROTONOSUPPORT, "index", "newer", "--fresh", NULL);
}

/* Pool and index of two stores. */
static void test_mixed(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	make_store(1);
	assert_int_equal(rename(path_of("current/pool.0"), path_of("pool.0")), 0);
	char *aside = strdup(path_of("pool.0"));
	assert_int_equal(rename(path_of("store.txt"), path_of("store.txt.1")), 0);
	assert_int_equal(rename(path_of("current"), path_of("first")), 0);
	make_store(1);
	assert_int_equal(rename(aside, path_of("current/pool.0")), 0);
	opened = true;
	refused(&o, -EUCLEAN, "do not belong together", "--fresh", NULL);
	free(aside);
	unlink(path_of("store.txt.1"));
	unlink(path_of("first/index.lmdb"));
	unlink(path_of("first/index.lmdb-lock"));
	unlink(path_of("first/sizes.txt"));
	rmdir(path_of("first"));
}

static void test_no_permission(void **state)
{
	int status;
	(void)state;

	if (geteuid())
		skip();
	make_store(1);
	assert_int_equal(chmod(base, 0755), 0);
	pid_t child = fork();
	if (!child) {
		struct engine_opts o = opts();
		struct engine *e;
		char *reason = NULL;
		if (setgid(65534) || setuid(65534))
			_exit(2);
		int r = engine_open(&o, &e, &reason);
		if (r != -EACCES || !strstr(reason, dir) || !strstr(reason, "Try: "))
			_exit(3);
		snprintf(dir, sizeof(dir), "%s/not/mine", base);
		r = engine_open(&o, &e, &reason);
		_exit(r != -EACCES || !strstr(reason, "Permission denied") ||
		      !strstr(reason, "Try: "));
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_objects(20);
}

/* Fresh -------------------------------------------------------------------------------- */

static void find_old(char *ret, size_t n)
{
	DIR *d = opendir(dir);

	*ret = '\0';
	for (struct dirent *e; (e = readdir(d));)
		if (!strncmp(e->d_name, "old-", 4))
			snprintf(ret, n, "%.40s", e->d_name);
	closedir(d);
}

static void remove_old(const char *old)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "rm -r '%s/%s'", dir, old);
	assert_int_equal(system(cmd), 0);
}

static void test_fresh(void **state)
{
	struct engine_opts o = opts();
	char old[64], again[96];
	(void)state;

	o.fresh = true;
	engine_close(open_with(&o)); /* of nothing: nothing to keep */
	find_old(old, sizeof(old));
	assert_string_equal(old, "");

	struct engine *e = open_store();
	assert_true(make_object(e, 100, 1, 20, 16, BODY_EXTENTS));
	engine_close(e);
	write_at("current/index.lmdb", 0, "garbage!", 8);
	o.pool_bytes = 20 * MIB;
	e = open_with(&o);
	find_old(old, sizeof(old));
	assert_string_not_equal(old, "");
	char head[8];
	snprintf(again, sizeof(again), "%s/index.lmdb", old);
	read_at(again, 0, head, 8);
	assert_memory_equal(head, "garbage!", 8);
	struct engine_space sp;
	engine_space(e, &sp);
	assert_int_equal(sp.free_bytes, 20 * MIB);
	engine_close(e);

	/* One set is kept, and none is thrown away. */
	refused(&o, -EEXIST, "rm -r", old, NULL);
	remove_old(old);
	engine_close(open_with(&o));
	find_old(again, sizeof(again));
	assert_string_not_equal(again, "");
	remove_old(again);
}

/* What is kept aside can be put back. */
static void test_fresh_and_back(void **state)
{
	struct engine_opts o = opts();
	char old[64];
	(void)state;

	make_store(2);
	o.fresh = true;
	engine_close(open_with(&o));
	find_old(old, sizeof(old));
	remove_old("current");
	assert_int_equal(rename(path_of(old), path_of("current")), 0);
	assert_objects(20 + 21);
}

static void test_fresh_refused(void **state)
{
	struct engine_opts o = opts();
	struct memory m;
	(void)state;

	make_store(1);
	assert_int_equal(memory_now(&m), 0);
	o.fresh = true;
	o.pool_bytes = m.total_bytes;
	refused(&o, -ENOMEM, "rm -r", path_of("current"), "--pool-size", NULL);
	assert_objects(20);
}

/* Memory of its own ----------------------------------------------------------------------- */

static int wrap_fails(struct kv *inner, struct kv **ret)
{
	(void)inner;
	(void)ret;
	return -EIO;
}

static void test_tmpfs(void **state)
{
	struct engine_opts o = opts();
	char *mem = strdup(path_of("mem"));
	struct stat st;
	(void)state;

	if (geteuid())
		skip();
	o.huge = true;
	struct engine *e = open_with(&o);
	assert_true(memory_is_mounted(mem));
	assert_int_equal(stat(mem, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_true(make_object(e, 100, 1, 20, 16, BODY_EXTENTS));
	engine_close(e);
	assert_true(memory_is_mounted(mem));
	assert_objects(20);

	/* fresh: both are on it for a while, and it grows, if all goes well */
	struct statvfs was, is;
	assert_int_equal(statvfs(mem, &was), 0);
	o.fresh = true;
	o.wrap_kv = wrap_fails;
	assert_int_equal(engine_open(&o, &e, NULL), -EIO);
	assert_int_equal(statvfs(mem, &is), 0);
	assert_int_equal(is.f_blocks, was.f_blocks);
	assert_objects(20);
	o.wrap_kv = NULL;
	engine_close(open_with(&o));
	char cmd[256];
	snprintf(cmd, sizeof(cmd), "ls -d %s/old-*/pool.0 %s/current/pool.0 >/dev/null", mem, mem);
	assert_int_equal(system(cmd), 0);
	o.fresh = false;

	/* gone without a reboot: damage; after one: empty */
	assert_int_equal(umount(mem), 0);
	refused(&o, -EUCLEAN, "not mounted", mem, "--fresh", NULL);
	assert_int_equal(state_of(), STORE_DAMAGED);
	write_at("store.txt", 0, "slicefs store 1\nmemory tmpfs\nboot 1-2-3\n", 41);
	assert_int_equal(truncate(path_of("store.txt"), 41), 0);
	assert_int_equal(state_of(), STORE_NONE);
	engine_close(open_with(&o));
	assert_true(memory_is_mounted(mem));

	assert_int_equal(engine_store_remove(dir, true), 0);
	assert_int_equal(access(dir, F_OK), -1);
	free(mem);
}

/* Whatever fails, nothing of what was being made is left. */
static void test_undone(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	o.wrap_kv = wrap_fails;
	for (unsigned huge = 0; huge < 2; huge++) {
		struct engine *e;
		char *reason = NULL;
		o.huge = huge;
		assert_int_equal(engine_open(&o, &e, &reason), -EIO);
		assert_non_null(strstr(reason, dir));
		free(reason);
		assert_int_equal(access(dir, F_OK), -1);
	}
	/* and of what was there, all is */
	make_store(2);
	uint64_t before = fingerprint(dir);
	o.fresh = true;
	for (unsigned huge = 0; huge < 2; huge++) {
		struct engine *e;
		o.huge = huge;
		assert_int_equal(engine_open(&o, &e, NULL), -EIO);
		assert_false(memory_is_mounted(path_of("mem")));
		assert_int_equal(fingerprint(dir), before);
	}
	assert_objects(20 + 21);
}

static uint64_t fail_nth, submits;
static int fail_with;
static struct kv *failing;

static int wrap_nth(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, 1, false, ret);

	if (!r)
		kv_fault_arm(*ret, fail_nth, fail_with);
	failing = *ret;
	return r;
}

/* The index fails at each call of opening, in turn: what was there stays, what was
 * not there does not begin to be. */
static void test_failing_index(void **state)
{
	static const int faults[] = { -EIO, -ENOSPC, -ETIMEDOUT, KV_UNKNOWN };
	struct engine_opts o = opts();
	unsigned failed = 0;
	(void)state;

	o.wrap_kv = wrap_nth;
	for (unsigned round = 0; round < 8; round++) {
		bool there = round >= 4, armed = true;
		fail_with = faults[round % 4];
		if (round == 4)
			make_store(2);
		for (fail_nth = 1; armed; fail_nth++) {
			struct engine *e = NULL;
			char *reason = NULL;
			int r = engine_open(&o, &e, &reason);
			if (r < 0) {
				failed++;
				if (!strstr(reason, dir))
					fail_msg("%s", reason);
				assert_int_equal(!access(dir, F_OK), there);
			} else {
				submits = kv_fault_count(failing);
				armed = submits >= fail_nth;
				engine_close(e);
				if (!there)
					assert_int_equal(engine_store_remove(dir, true), 0);
			}
			free(reason);
			assert_idle();
		}
	}
	assert_true(failed >= 8);
	assert_objects(20 + 21);
}

/* From plain files to huge pages: the old ones stay where they are. */
static void test_fresh_to_tmpfs(void **state)
{
	struct engine_opts o = opts();
	char old[64];
	(void)state;

	if (geteuid())
		skip();
	make_store(1);
	o.fresh = o.huge = true;
	struct engine *e = open_with(&o);
	assert_true(memory_is_mounted(path_of("mem")));
	find_old(old, sizeof(old));
	assert_string_not_equal(old, "");
	assert_int_equal(access(path_of("current"), F_OK), -1);
	engine_close(e);
	o.fresh = false;
	e = open_with(&o);
	engine_close(e);
}

/* Files on a disk outlive a reboot, which they are not safe over. */
static void test_disk(void **state)
{
	struct engine_opts o = opts();
	(void)state;

	snprintf(dir, sizeof(dir), "/var/tmp/slicefs-test-%d", getpid());
	make_store(1);
	assert_objects(20);
	char text[] = "slicefs store 1\nmemory plain\nboot 1-2-3\n";
	assert_int_equal(truncate(path_of("store.txt"), 0), 0);
	write_at("store.txt", 0, text, strlen(text));
	if (access("/var/tmp", W_OK) == 0)
		refused(&o, -EUCLEAN, "started again", "--fresh", NULL);
}

/* Looking and removing ------------------------------------------------------------------------ */

static void test_read_only(void **state)
{
	struct engine_opts o = opts();
	struct engine *e;
	struct writer w = { 0 };
	(void)state;

	o.read_only = true;
	refused(&o, -ENOENT, NULL);
	make_store(3);
	uint64_t before = fingerprint(dir);
	e = open_with(&o);
	assert_int_equal(engine_check(e, false, &w, NULL), 0);
	assert_int_equal(engine_check(e, true, &w, NULL), -EINVAL);
	struct verify v = { .e = e };
	verify_all(&v);
	assert_int_equal(v.pages, 20 + 21 + 22);
	engine_close(e);
	assert_int_equal(fingerprint(dir), before);
	writer_fini(&w);
}

/* A store that is served says where, for as long as it is. */
static void test_served(void **state)
{
	struct serve_opts so = { .listen = "127.0.0.1:0" };
	struct engine_opts o = opts();
	struct store_stat st;
	char at[64], pid[32];
	(void)state;

	struct engine *e = open_store();
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_string_equal(st.serves, "");
	assert_int_equal(engine_serve(e, &so, NULL), 0);
	assert_false(engine_is_alone(e));
	engine_serve_address(e, at);
	assert_int_equal(atoi(at + strlen("127.0.0.1:")), engine_serve_port(e));
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_RUNNING);
	assert_int_equal(st.pid, getpid());
	assert_string_equal(st.serves, at);
	snprintf(pid, sizeof(pid), "Try: kill %d", (int)getpid());
	refused(&o, -EBUSY, "serves it at", at, pid, NULL);
	assert_int_equal(engine_store_remove(dir, true), -EBUSY);
	engine_serve_end(e, 0);
	engine_close(e);
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_int_equal(st.state, STORE_STOPPED);
	assert_string_equal(st.serves, "");
	e = open_store();
	assert_int_equal(engine_store_stat(dir, &st), 0);
	assert_string_equal(st.serves, "");
	engine_close(e);
}

static void test_remove(void **state)
{
	struct store_stat st;
	(void)state;

	assert_int_equal(engine_store_remove(dir, true), -ENOENT);
	assert_int_equal(engine_store_stat(dir, &st), -ENOENT);
	make_store(1);
	struct engine_opts o = opts();
	o.fresh = true;
	engine_close(open_with(&o));
	assert_int_equal(engine_store_remove(dir, true), 0);
	assert_int_equal(access(dir, F_OK), -1);

	/* what is not ours stays */
	make_store(1);
	write_at("mine", 0, "x", 1);
	assert_int_equal(engine_store_remove(dir, true), 0);
	assert_int_equal(access(path_of("mine"), F_OK), 0);
	unlink(path_of("mine"));
	rmdir(dir);
}

static int setup(void **state)
{
	static unsigned n;

	(void)state;
	opened = false;
	snprintf(dir, sizeof(dir), "%s/s%u", base, n++);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_idle();
	engine_store_remove(dir, true);
	rmdir(dir);
	return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_new), T(test_kept), T(test_default_sizes), T(test_died_while_making),
		T(test_killed_while_making), T(test_race), T(test_exclusive),
		T(test_busy), T(test_killed), T(test_killed_just_now), T(test_ending),
		T(test_other_sizes),
		T(test_no_place), T(test_too_small),
		T(test_too_large), T(test_no_space), T(test_cut_short), T(test_foreign),
		T(test_missing), T(test_texts), T(test_newer_pool), T(test_newer_index),
		T(test_mixed), T(test_no_permission), T(test_fresh), T(test_fresh_and_back),
		T(test_fresh_refused), T(test_tmpfs), T(test_undone), T(test_failing_index),
		T(test_fresh_to_tmpfs), T(test_disk), T(test_read_only), T(test_remove),
		T(test_served),
	};

	strcpy(base, "/dev/shm/slicefs-store-XXXXXX");
	if (!mkdtemp(base))
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	if (rmdir(base)) {
		fprintf(stderr, "%s is not empty\n", base);
		return 1;
	}
	return r;
}
