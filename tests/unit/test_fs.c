/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs/ through the kernel: a mount of an engine in memory whose index answers
 * late, from other threads and in any order, or not at all. The program itself
 * only serves; what uses the mount is a child process, since a process that
 * waits for a mount of its own can deadlock. Passes without having looked where
 * there is no FUSE to be had.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "fs/fs.h"
#include "tests/unit/expect.h"
#include "tests/unit/slow.h"
#include "tests/unit/tsan_kit.h"

static char dir[] = "/tmp/test_fs.XXXXXX";
static struct engine *engine;
static struct kv *faults;
static struct fs *fs;
static pthread_t server;
static uint64_t seed;
static char doing[80]; /* for messages */

static int wrap(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, seed, true, ret);

	faults = r < 0 ? NULL : *ret;
	return r;
}

static void *serve(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)fs_run(fs);
}

static int mount_it(void)
{
	const struct engine_opts o = {
		.in_memory = true, .pool_bytes = 64 << 20,
		.index_bytes = 64 << 20, .verify = true,
		.fault_seed = seed, .wrap_kv = wrap,
	};
	const struct fs_opts f = {
		.dir = dir, .source = "test_fs", .options = "", .threads = 2,
		.timeout_ms = 5000, .xattrs = true, .spin_us = 50,
		.config = "a = 1\n", .control = ".slicefs",
	};
	char *why = NULL;
	int r = engine_open(&o, &engine, &why);

	if (r == 0)
		r = fs_mount(engine, &f, &fs, &why);
	if (r < 0)
		print_message("not mounted: %s\n", why ? why : strerror(-r));
	free(why);
	if (r < 0)
		return r;
	return -pthread_create(&server, NULL, serve, NULL);
}

/* Runs fn in a child, in the mount; its exit status. A child that hangs is a
 * failure: every call has a deadline. */
static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(60);
		/* Not the server's: the kernel would wait for it. */
		close_range(3, ~0U, 0);
		/* Once more: it may be this that the index was told to fail. */
		if (chdir(dir) < 0 && chdir(dir) < 0)
			_exit(99);
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_idle(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	const char *busy;
	int64_t v = 0;

	/* RELEASE and FORGET are answered after the child has ended. */
	for (int i = 0; (busy = metrics_busy(&v)) && i < 5000; i++)
		nanosleep(&ms, NULL);
	if (busy)
		fail_msg("%s: %s is %lld", doing, busy, (long long)v);
}

static void assert_sound(void)
{
	struct writer w = { 0 };
	int n = engine_check(engine, false, &w, NULL);

	if (n)
		fail_msg("%d violations:\n%.*s", n, (int)w.len, (char *)w.p);
	writer_fini(&w);
}

/* Every kind of operation, whatever comes of it --------------------------------- */

static void use_file(const char *name)
{
	char buf[10000] = "content";
	int fd = open(name, O_RDWR | O_CREAT, 0644);

	if (fd < 0)
		return;
	(void)!write(fd, buf, sizeof(buf));
	(void)!pwrite(fd, buf, 10, 100000);
	(void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096);
	(void)!ftruncate(fd, 50000);
	(void)!fchmod(fd, 04755);
	(void)!fsync(fd);
	(void)!fsetxattr(fd, "user.a", "b", 1, 0);
	(void)!pread(fd, buf, sizeof(buf), 3000);
	lseek(fd, 0, SEEK_HOLE);
	close(fd);
}

static void everything(void)
{
	struct stat st;
	char buf[100];
	int a, b;

	mkdir("d", 0755);
	use_file("a");
	use_file("d/b");
	(void)!link("a", "d/c");
	(void)!symlink("a", "l");
	(void)!readlink("l", buf, sizeof(buf));
	mknod("p", S_IFIFO | 0600, 0);
	mknod("r", S_IFREG | 0600, 0);
	a = open("a", O_RDONLY);
	b = open("copy", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	(void)!copy_file_range(a, NULL, b, NULL, 20000, 0);
	close(a);
	close(b);
	(void)!rename("a", "d/b");
	(void)!truncate("d/b", 10);
	stat("d/b", &st);
	(void)!chmod("d", 0700);
	(void)!chown("copy", 1, 1);
	a = open("copy", O_WRONLY | O_TRUNC);
	(void)!write(a, "x", 1);
	unlink("copy");
	close(a);
	getxattr("d/b", "user.a", buf, sizeof(buf));
	listxattr("d/b", buf, sizeof(buf));
	removexattr("d/b", "user.a");
}

static void clean(void)
{
	const char *names[] = { "a", "d/b", "d/c", "l", "p", "r", "copy" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		EXPECT(unlink(names[i]) == 0 || errno == ENOENT);
	EXPECT(rmdir("d") == 0 || errno == ENOENT);
}

/* One call of the index fails, each in turn: nothing hangs, nothing is left. */
static void test_faults(void **state)
{
	static const int kinds[] = { -EIO, -ENOSPC, -ETIMEDOUT, KV_UNKNOWN };
	uint64_t before = kv_fault_count(faults), calls;

	(void)state;
	assert_int_equal(in_child(everything), 0);
	assert_int_equal(in_child(clean), 0);
	calls = kv_fault_count(faults) - before;
	print_message("%llu index calls\n", (unsigned long long)calls);
	log_set_level(getenv("SEED") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	/* A third of them, or a sixth where a sanitizer makes it slow; by the seed. */
	uint64_t step = getenv("ALL") ? 1 : kit_cut(KIT_SLOW > 1 ? 6 : 3, 1);
	for (uint64_t n = 1 + seed % step; n <= calls; n += step) {
		snprintf(doing, sizeof(doing), "call %llu fails with %d",
			 (unsigned long long)n, kinds[n / step % 4]);
		kv_fault_arm(faults, n, kinds[n / step % 4]);
		assert_int_equal(in_child(everything), 0);
		kv_fault_arm(faults, 0, 0);
		assert_int_equal(in_child(clean), 0);
		assert_idle();
	}
	log_set_level(LOG_LEVEL_INFO);
	assert_sound();
}

/* Who sees what was written, in each order of opening ----------------------------- */

enum { PAGE = 4096, PAGES = 4 };

struct user {
	int fd;
	char *map;
	bool direct, reads, writes;
};

static char *aligned;

static struct user user_open(unsigned kind)
{
	static const int flags[] = { O_RDONLY, O_RDWR, O_RDONLY | O_DIRECT,
				     O_RDWR | O_DIRECT, O_WRONLY,
				     O_WRONLY | O_DIRECT, O_RDWR };
	struct user u = { .fd = open("m", flags[kind]) };
	int mode = flags[kind] & O_ACCMODE;

	EXPECT(u.fd >= 0);
	u.reads = mode != O_WRONLY;
	u.writes = mode != O_RDONLY;
	u.direct = flags[kind] & O_DIRECT;
	if (kind == 6) {
		u.map = mmap(NULL, PAGE * PAGES, PROT_READ | PROT_WRITE,
			     MAP_SHARED, u.fd, 0);
		EXPECT(u.map != MAP_FAILED);
		close(u.fd);
		u.fd = -1;
	}
	return u;
}

static void user_write(struct user *u, unsigned page, char c)
{
	if (u->map) {
		memset(u->map + page * PAGE, c, PAGE);
		/* O_DIRECT readers see what has left the page cache. */
		EXPECT(msync(u->map, PAGE * PAGES, MS_SYNC) == 0);
		return;
	}
	memset(aligned, c, PAGE);
	EXPECT(pwrite(u->fd, aligned, PAGE, page * PAGE) == PAGE);
}

static void user_check(struct user *u, unsigned page, char c)
{
	char *p = aligned;

	if (u->map)
		p = u->map + page * PAGE;
	else
		EXPECT(pread(u->fd, p, PAGE, page * PAGE) == PAGE);
	EXPECT(p[0] == c && p[PAGE - 1] == c);
}

static void user_close(struct user *u)
{
	if (u->map)
		munmap(u->map, PAGE * PAGES);
	else
		close(u->fd);
}

enum { KINDS = 7 };

static void three_users(unsigned a, unsigned b, unsigned c)
{
	char now[PAGES] = { 'a', 'a', 'a', 'a' };
	unsigned kinds[3] = { a, b, c };
	struct user u[3];

	for (unsigned n = 0; n < 3; n++) {
		u[n] = user_open(kinds[n]);
		for (unsigned w = 0; w <= n; w++) {
			unsigned page = (n + w) % PAGES;
			if (!u[w].writes)
				continue;
			now[page]++;
			user_write(&u[w], page, now[page]);
			for (unsigned r = 0; r <= n; r++)
				for (page = 0; u[r].reads && page < PAGES; page++)
					user_check(&u[r], page, now[page]);
		}
	}
	for (unsigned n = 0; n < 3; n++)
		user_close(&u[n]);
	u[0] = user_open(0);
	for (unsigned page = 0; page < PAGES; page++)
		user_check(&u[0], page, now[page]);
	user_close(&u[0]);
}

static void all_orders(void)
{
	char full[PAGE * PAGES];

	EXPECT(posix_memalign((void **)&aligned, PAGE, PAGE) == 0);
	memset(full, 'a', sizeof(full));
	for (unsigned i = 0; i < KINDS * KINDS * KINDS; i++) {
		int fd = open("m", O_WRONLY | O_CREAT | O_TRUNC, 0600);
		EXPECT(write(fd, full, sizeof(full)) == sizeof(full));
		close(fd);
		three_users(i % KINDS, i / KINDS % KINDS, i / KINDS / KINDS);
	}
	EXPECT(unlink("m") == 0);
}

static void test_cache_matrix(void **state)
{
	(void)state;
	assert_int_equal(in_child(all_orders), 0);
	assert_idle();
}

/* The layout of an object whose extents are in many blocks -------------------------- */

enum { LAYOUT_PAGES = 9000 };

static void laid_out(void)
{
	static char page[PAGE], text[64 << 10];
	int fd = open("many", O_RDWR | O_CREAT, 0600);
	unsigned n = 0;

	/* 150 blocks, which take more than one call of the index. */
	for (unsigned i = 0; i < LAYOUT_PAGES; i++)
		EXPECT(pwrite(fd, page, PAGE, i * 65536LL) == PAGE);
	EXPECT(close(fd) == 0);
	ssize_t len = getxattr("many", "slicefs.layout", text, sizeof(text) - 1);
	EXPECT(len > 60000);
	for (const char *p = text; (p = strstr(p, "\"offset\"")); p++)
		n++;
	const char *more = strstr(text, "\"more_extents\":");
	EXPECT(more && n > 400 && n + strtoul(more + 15, NULL, 10) == LAYOUT_PAGES);
	EXPECT(unlink("many") == 0);
}

static void test_layout(void **state)
{
	(void)state;
	assert_int_equal(in_child(laid_out), 0);
	assert_idle();
}

/* What is left of objects without a name ------------------------------------------- */

static void unlinked(void)
{
	struct stat st;
	char buf[10];
	int fd = open("u", O_RDWR | O_CREAT, 0640), pub, link, fifo, d;

	EXPECT(fd >= 0 && write(fd, "12345", 5) == 5 && unlink("u") == 0);
	EXPECT(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 5);
	EXPECT(fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0);
	EXPECT((st.st_mode & 07777) == 0600 && pread(fd, buf, 5, 0) == 5);
	close(fd);
	fd = open("u", O_RDWR | O_CREAT, 0640);
	EXPECT(write(fd, "12345", 5) == 5 && close(fd) == 0);
	pub = open("u", O_RDONLY);
	EXPECT(unlink("u") == 0 && pread(pub, buf, 5, 0) == 5);
	EXPECT(fstat(pub, &st) == 0 && st.st_nlink == 0 && st.st_size == 5);
	close(pub);
	EXPECT(symlink("target", "s") == 0 && mkfifo("f", 0600) == 0 &&
	       mkdir("d", 0700) == 0);
	link = open("s", O_PATH | O_NOFOLLOW);
	fifo = open("f", O_PATH);
	d = open("d", O_RDONLY | O_DIRECTORY);
	EXPECT(unlink("s") == 0 && unlink("f") == 0 && rmdir("d") == 0);
	EXPECT(fstat(link, &st) == 0 && S_ISLNK(st.st_mode) && !st.st_nlink);
	EXPECT(readlinkat(link, "", buf, sizeof(buf)) == 6);
	EXPECT(fstat(fifo, &st) == 0 && S_ISFIFO(st.st_mode) && !st.st_nlink);
	EXPECT(fstat(d, &st) == 0 && S_ISDIR(st.st_mode) && !st.st_nlink);
	close(link);
	close(fifo);
	close(d);
}

static void test_unlinked(void **state)
{
	(void)state;
	assert_int_equal(in_child(unlinked), 0);
	assert_idle();
}

/* Signals --------------------------------------------------------------------------- */

static void rings(int sig)
{
	(void)sig;
}

/* Not EINTR, whatever else; a call that may fail says so otherwise. */
#define UNINTERRUPTED(x) EXPECT((x) >= 0 || errno != EINTR)

static void under_a_timer(void)
{
	const struct itimerval often = { { 0, 300 }, { 0, 300 } };
	struct sigaction a = { .sa_handler = rings }; /* no SA_RESTART */
	char buf[PAGE] = "x";
	struct stat st;

	EXPECT(sigaction(SIGALRM, &a, NULL) == 0);
	EXPECT(setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (unsigned i = 0; i < 100; i++) {
		int fd = open("timed", O_RDWR | O_CREAT | O_TRUNC, 0600);
		UNINTERRUPTED(fd);
		for (unsigned k = 0; k < 20; k++)
			UNINTERRUPTED(pwrite(fd, buf, sizeof(buf), k * 65536));
		UNINTERRUPTED(fsync(fd));
		UNINTERRUPTED(pread(fd, buf, sizeof(buf), 65536));
		UNINTERRUPTED(ftruncate(fd, 5000));
		UNINTERRUPTED(close(fd));
		UNINTERRUPTED(rename("timed", "tamed"));
		UNINTERRUPTED(truncate("tamed", 3000));
		UNINTERRUPTED(chmod("tamed", 0640));
		UNINTERRUPTED(stat("tamed", &st));
		UNINTERRUPTED(mkdir("dir", 0700));
		UNINTERRUPTED(rmdir("dir"));
		UNINTERRUPTED(unlink("tamed"));
	}
}

static void test_a_timer_interrupts_nobody(void **state)
{
	(void)state;
	assert_int_equal(in_child(under_a_timer), 0);
	assert_idle();
}

static void make_blocks(void)
{
	int fd = open("blocks", O_WRONLY | O_CREAT, 0600);

	for (unsigned i = 0; i < 200; i++)
		EXPECT(pwrite(fd, "x", 1, i * 65536LL) == 1);
	EXPECT(close(fd) == 0);
}

static void unlink_blocks(void)
{
	EXPECT(unlink("blocks") == 0);
}

static int talk; /* the child's end */

static void open_blocks(void)
{
	struct stat st;
	char c;

	EXPECT(stat("blocks", &st) == 0); /* it is looked up */
	EXPECT(write(talk, "r", 1) == 1 && read(talk, &c, 1) == 1);
	open("blocks", O_RDONLY);
	_exit(0);
}

/* Who is killed while his open waits for the index: what was asked is waited for,
 * and nothing more is. */
static void test_killed_while_it_waits(void **state)
{
	const struct timespec some = { .tv_nsec = 50000000 };
	int status, pair[2];
	char c;

	(void)state;
	assert_int_equal(in_child(make_blocks), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid_t pid = fork();
	if (pid == 0) {
		talk = dup2(pair[1], 3);
		close_range(4, ~0U, 0);
		EXPECT(chdir(dir) == 0);
		open_blocks();
	}
	assert_int_equal(read(pair[0], &c, 1), 1);
	assert_idle();
	kv_fault_hold(faults, true);
	uint64_t calls = kv_fault_count(faults);
	assert_int_equal(write(pair[0], "g", 1), 1);
	while (kv_fault_count(faults) == calls)
		nanosleep(&some, NULL);
	kill(pid, SIGINT);
	nanosleep(&some, NULL);
	kv_fault_hold(faults, false);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
	assert_idle();
	assert_int_equal(kv_fault_count(faults) - calls, 1);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(in_child(unlink_blocks), 0);
	assert_idle();
}

/* Publishing ----------------------------------------------------------------------- */

static void mapping_outlives_descriptor(void)
{
	int fd = open("late", O_RDWR | O_CREAT, 0600);
	char *p, c;

	EXPECT(ftruncate(fd, PAGE) == 0);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(p != MAP_FAILED && close(fd) == 0);
	p[7] = 'z';
	munmap(p, PAGE);
	fd = open("late", O_RDONLY | O_DIRECT);
	EXPECT(pread(fd, &c, 1, 7) == 1 && c == 'z');
	close(fd);
	EXPECT(unlink("late") == 0);
}

static void test_late_mapping(void **state)
{
	(void)state;
	assert_int_equal(in_child(mapping_outlives_descriptor), 0);
	assert_idle();
}

enum { LOST = 12 };

static void lose_drafts(void)
{
	struct stat st;
	char c;

	for (unsigned n = 0; n < LOST; n++) {
		int fd = open("lost", O_WRONLY | O_CREAT | O_EXCL, 0600);
		EXPECT(fd >= 0 && write(talk, "r", 1) == 1 && read(talk, &c, 1) == 1);
		close(fd);
		EXPECT(write(talk, "r", 1) == 1 && read(talk, &c, 1) == 1);
		if (n % 3 == 0)
			EXPECT(stat("lost", &st) < 0 && errno == ENOENT);
		if (n % 3 == 1)
			EXPECT(mkdir("lost", 0700) == 0 && rmdir("lost") == 0);
	}
	_exit(0);
}

/* The next two calls of the index fail: its being published, and once more at its close. */
static void fail_twice(void)
{
	uint64_t calls = kv_fault_count(faults);

	kv_fault_hold(faults, true);
	kv_fault_arm(faults, 1, -EIO);
	assert_int_equal(write(talk, "g", 1), 1);
	while (kv_fault_count(faults) == calls)
		;
	kv_fault_arm(faults, 1, -EIO);
	kv_fault_hold(faults, false);
}

/* A draft that could not be published: its name is free, whatever the kernel knew of it. */
static void test_lost_name(void **state)
{
	const struct timespec some = { .tv_nsec = 20000000 };
	int status, pair[2];
	int64_t lost = metric_get(M_DRAFTS_LOST);
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid_t pid = fork();
	if (pid == 0) {
		talk = dup2(pair[1], 3);
		close_range(4, ~0U, 0);
		alarm(60);
		EXPECT(chdir(dir) == 0);
		lose_drafts();
	}
	close(pair[1]);
	talk = pair[0];
	for (unsigned n = 0; n < LOST; n++) {
		assert_int_equal(read(talk, &c, 1), 1);
		fail_twice();
		assert_int_equal(read(talk, &c, 1), 1);
		/* Its release is not waited for. */
		for (unsigned k = 0; k < 500 && metric_get(M_DRAFTS_LOST) - lost <= n; k++)
			nanosleep(&some, NULL);
		kv_fault_arm(faults, 0, 0);
		assert_idle();
		assert_int_equal(write(talk, "g", 1), 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(metric_get(M_DRAFTS_LOST) - lost, LOST);
	close(talk);
	assert_idle();
}

/* What a listing says --------------------------------------------------------------- */

enum { LISTED = 1000 }; /* directories: more than an answer takes */

static void make_listed(void)
{
	char name[20];

	EXPECT(close(open("listed-before", O_WRONLY | O_CREAT, 0600)) == 0); /* a move */
	EXPECT(mkdir("listed", 0755) == 0);
	for (unsigned i = 0; i < LISTED; i++) {
		snprintf(name, sizeof(name), "listed/%u", i);
		EXPECT(mkdir(name, 0755) == 0);
	}
}

/* As ls -l does: upon that the kernel asks for attributes with the names. */
static void list_and_look(void)
{
	DIR *d = opendir("listed");
	const struct dirent *e;
	unsigned n = 0;
	struct stat st;

	EXPECT(d != NULL);
	while ((e = readdir(d)))
		n += !fstatat(dirfd(d), e->d_name, &st, 0);
	EXPECT(n == LISTED + 2);
	closedir(d);
}

static void remove_listed(void)
{
	char name[20];

	for (unsigned i = 0; i < LISTED; i++) {
		snprintf(name, sizeof(name), "listed/%u", i);
		EXPECT(rmdir(name) == 0);
	}
	EXPECT(rmdir("listed") == 0 && unlink("listed-before") == 0);
}

/* The attributes of directories on all pages of a list, whatever was made before. */
static void test_listed_once(void **state)
{
	(void)state;
	assert_int_equal(in_child(make_listed), 0);
	int64_t before = metric_get(M_INDEX_READS);
	assert_int_equal(in_child(list_and_look), 0);
	assert_true(metric_get(M_INDEX_READS) - before < LISTED / 10);
	assert_int_equal(in_child(remove_listed), 0);
	assert_idle();
}

/* The control directory -------------------------------------------------------------- */

static void control(void)
{
	char buf[100];
	int fd = open(".slicefs/config", O_RDONLY);

	EXPECT(read(fd, buf, sizeof(buf)) == 6 && !memcmp(buf, "a = 1\n", 6));
	close(fd);
	EXPECT(mkdir(".slicefs", 0755) < 0 && errno == EEXIST);
	EXPECT(open(".slicefs/x", O_WRONLY | O_CREAT, 0600) < 0 && errno == EPERM);
	EXPECT(rename(".slicefs", "other") < 0 && errno == EPERM);
	EXPECT(rmdir(".slicefs") < 0 && errno == EPERM);
	fd = open(".slicefs/check", O_RDONLY);
	EXPECT(fd >= 0 && read(fd, buf, sizeof(buf)) == 0); /* no violation */
	close(fd);
}

static void test_control(void **state)
{
	(void)state;
	assert_int_equal(in_child(control), 0);
	assert_idle();
}

/* Last: the mount is ended while a program has files open, and a page that the kernel would
 * write back before it dropped it; and what was written cannot be published. */
static void test_stop(void **state)
{
	struct timespec until;
	int ready[2];
	char c;
	void *r;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ready[1], 3);
		close_range(4, ~0U, 0);
		if (chdir(dir) < 0)
			_exit(1);
		int fd = open("held", O_RDWR | O_CREAT, 0600);
		(void)!write(fd, "unpublished", 11);
		char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			_exit(1);
		map[0] = 'U';
		(void)!write(3, "1", 1);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	kv_fault_arm(faults, 1, -EIO);
	fs_stop(fs);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 30;
	if (pthread_timedjoin_np(server, &r, &until)) {
		umount2(dir, MNT_FORCE); /* ends its connection: else this never does */
		kill(pid, SIGKILL);
		fail_msg("it has not ended");
	}
	kv_fault_arm(faults, 0, 0);
	assert_int_equal((intptr_t)r, 0);
	fs_free(fs);
	fs = NULL;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_idle();
	assert_sound();
	close(ready[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_unlinked),
		cmocka_unit_test(test_late_mapping),
		cmocka_unit_test(test_a_timer_interrupts_nobody),
		cmocka_unit_test(test_killed_while_it_waits),
		cmocka_unit_test(test_lost_name),
		cmocka_unit_test(test_listed_once),
		cmocka_unit_test(test_cache_matrix),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_stop),
	};
	const char *given = getenv("SEED");

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	print_message("SEED=%llu\n", (unsigned long long)seed);
	if (!mkdtemp(dir))
		return 1;
	int r = mount_it();
	if (r < 0) {
		rmdir(dir);
		return r == -ENODEV || r == -EPERM || r == -EACCES ? 0 : 1;
	}
	r = cmocka_run_group_tests(tests, NULL, NULL);
	if (fs) {
		fs_stop(fs);
		pthread_join(server, NULL);
		fs_free(fs);
	}
	engine_close(engine);
	rmdir(dir);
	return r;
}
