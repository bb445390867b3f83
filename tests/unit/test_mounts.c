/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two mounts of one index and one pool, through the kernel: what is closed on one is
 * seen by who opens on the other (P2), what is open stays (P4), names come and go.
 * By hand, by several at once, and a random walk against a model. As in test_fs.c, children
 * use the mounts and this process only serves. SEED=n repeats the walk, STEPS=n makes
 * it longer, ONLY=pattern runs some, TRACE=1 says what it does. All of it twice, with
 * --cache 1s and with 0; the walk moves names in the second round only, because the
 * kernel itself decides by names that it has cached what a rename or link is about. What
 * an old directory must not hide also with 61s, where no ring makes the kernel forget it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/e2e/two_mounts.h"
#include "tests/unit/mounts_kit.h"
#include "tests/unit/tsan_kit.h"

#include "common/clock.h"
#include "common/log.h"
#include "fs/fs.h"

static struct mounts m;
static char dir[KIT_MOUNTS][32];
static struct fs *fs[KIT_MOUNTS];
static pthread_t server[KIT_MOUNTS];
static uint64_t seed, cache_ms;

static void *serve(void *arg)
{
	return (void *)(intptr_t)fs_run(arg);
}

static int mount_one(unsigned i)
{
	struct fs_opts o = {
		.dir = dir[i], .source = "test_mounts", .options = "", .threads = 3,
		.timeout_ms = 5000, .xattrs = true, .spin_us = 0, .config = "",
		.cache_ms = cache_ms,
	};
	char *why = NULL;

	snprintf(dir[i], sizeof(dir[i]), "/tmp/test_mounts.XXXXXX");
	if (!mkdtemp(dir[i]))
		return -errno;
	int r = fs_mount(m.e[i], &o, &fs[i], &why);
	if (r < 0)
		print_message("not mounted: %s\n", why ? why : strerror(-r));
	free(why);
	return r < 0 ? r : -pthread_create(&server[i], NULL, serve, fs[i]);
}

static void unmount_all(void)
{
	for (unsigned i = 0; i < KIT_MOUNTS; i++) {
		if (fs[i]) {
			fs_stop(fs[i]);
			pthread_join(server[i], NULL);
		}
		fs_free(fs[i]);
		fs[i] = NULL;
		rmdir(dir[i]);
	}
}

/* In the child ------------------------------------------------------------------- */

static int A, B; /* the test's directory on the two mounts */
static char path_of[KIT_MOUNTS][64];
static unsigned ntests;

/* So that no name of an earlier test is in the kernel's cache. */
static void in_own_directory(void)
{
	snprintf(path_of[0], sizeof(path_of[0]), "%s/t%u", dir[0], ntests);
	snprintf(path_of[1], sizeof(path_of[1]), "%s/t%u", dir[1], ntests);
	EXPECT(mkdir(path_of[0], 0755) == 0);
	close(A);
	close(B);
	A = open(path_of[0], O_RDONLY | O_DIRECTORY);
	B = open(path_of[1], O_RDONLY | O_DIRECTORY);
	EXPECT(A >= 0 && B >= 0);
}

static int in_child(void (*fn)(void))
{
	int status;

	ntests++;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(100);
		/* Not the servers': the kernel would wait for them. */
		close_range(3, ~0U, 0);
		A = open(dir[0], O_RDONLY | O_DIRECTORY);
		B = open(dir[1], O_RDONLY | O_DIRECTORY);
		EXPECT(A >= 0 && B >= 0);
		in_own_directory();
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void put(int at, const char *name, const char *text)
{
	int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	EXPECT(fd >= 0);
	EXPECT(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	EXPECT(close(fd) == 0);
}

static bool reads(int fd, const char *text)
{
	char buf[100];
	ssize_t n = pread(fd, buf, sizeof(buf), 0);
	struct stat st;

	EXPECT(n >= 0 && fstat(fd, &st) == 0);
	if (n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n) && st.st_size == n)
		return true;
	fprintf(stderr, "\"%.*s\", size %ld; wanted \"%s\"\n", (int)n, buf, (long)st.st_size, text);
	errno = 0;
	return false;
}

static bool has(int at, const char *name, const char *text)
{
	int fd = openat(at, name, O_RDONLY);

	if (fd < 0)
		return false;
	bool is = reads(fd, text);
	close(fd);
	return is;
}

static bool is_missing(int at, const char *name)
{
	return openat(at, name, O_RDONLY) < 0 && errno == ENOENT;
}

static ino_t number(int fd)
{
	struct stat st;

	EXPECT(fstat(fd, &st) == 0);
	return st.st_ino;
}

/* P2 ------------------------------------------------------------------------------- */

static void opens_see_closes(void)
{
	static const char *const texts[] = { "one", "longer than that", "2", "3", "four", "five" };

	put(A, "f", "zero");
	EXPECT(has(B, "f", "zero"));
	for (unsigned i = 0; i < 6; i++) {
		put(i % 2 ? B : A, "f", texts[i]);
		EXPECT(has(i % 2 ? A : B, "f", texts[i]));
		EXPECT(has(i % 2 ? B : A, "f", texts[i]));
	}
	/* fsync publishes as well. */
	int fd = openat(A, "f", O_WRONLY | O_TRUNC);
	EXPECT(write(fd, "synced", 6) == 6 && fsync(fd) == 0 && has(B, "f", "synced"));
	EXPECT(write(fd, " more", 5) == 5 && has(B, "f", "synced"));
	EXPECT(close(fd) == 0 && has(B, "f", "synced more"));
	/* Where it goes on is known at once, and what can be mapped. */
	put(A, "f", "1234");
	fd = openat(B, "f", O_WRONLY | O_APPEND);
	EXPECT(write(fd, "56", 2) == 2 && close(fd) == 0 && has(A, "f", "123456"));
	fd = openat(B, "f", O_RDONLY);
	EXPECT(ftruncate(fd, 0) < 0 && close(fd) == 0);
	fd = openat(A, "f", O_RDWR);
	EXPECT(ftruncate(fd, 10000) == 0 && pwrite(fd, "z", 1, 9000) == 1 && close(fd) == 0);
	fd = openat(B, "f", O_RDONLY);
	char *p = mmap(NULL, 12288, PROT_READ, MAP_SHARED, fd, 0);
	EXPECT(p != MAP_FAILED && p[9000] == 'z' && p[5] == '6');
	munmap(p, 12288);
	close(fd);
	EXPECT(unlinkat(B, "f", 0) == 0 && is_missing(A, "f"));
}

/* P4 ------------------------------------------------------------------------------- */

static void what_is_open_stays(void)
{
	char big[3 * 4096], buf[sizeof(big)];

	memset(big, 'a', sizeof(big));
	put(A, "f", "");
	int fd = openat(A, "f", O_WRONLY);
	EXPECT(write(fd, big, sizeof(big)) == sizeof(big) && close(fd) == 0);
	int old = openat(B, "f", O_RDONLY);
	EXPECT(pread(old, buf, 4096, 0) == 4096); /* one page only is cached */
	char *map = mmap(NULL, sizeof(big), PROT_READ, MAP_SHARED, old, 0);
	put(A, "f", "new");
	int new = openat(B, "f", O_RDONLY);
	EXPECT(new >= 0 && reads(new, "new"));
	EXPECT(pread(old, buf, sizeof(buf), 0) == sizeof(buf) && !memcmp(buf, big, sizeof(big)));
	EXPECT(!memcmp(map, big, sizeof(big)));
	EXPECT(number(old) == number(new));
	struct stat st;
	EXPECT(fstat(old, &st) == 0 && st.st_size == sizeof(big));
	/* Both, and a third version. */
	put(A, "f", "third!");
	EXPECT(reads(new, "new") && has(B, "f", "third!"));
	EXPECT(pread(old, buf, sizeof(buf), 0) == sizeof(buf) && !memcmp(buf, big, sizeof(big)));
	munmap(map, sizeof(big));
	close(old);
	close(new);
	EXPECT(has(B, "f", "third!") && has(A, "f", "third!"));
	/* Who opens for writing what somebody reads an old version of. */
	old = openat(B, "f", O_RDONLY);
	put(A, "f", "4th");
	put(B, "f", "fifth");
	EXPECT(reads(old, "third!") && has(A, "f", "fifth") && has(B, "f", "fifth"));
	/* On its mount it is changed in place (P3). */
	new = openat(B, "f", O_RDONLY);
	fd = openat(B, "f", O_RDWR);
	EXPECT(pwrite(fd, "F", 1, 0) == 1 && reads(new, "Fifth") && has(B, "f", "Fifth"));
	EXPECT(has(A, "f", "fifth") && reads(old, "third!"));
	close(new);
	close(old);
	EXPECT(close(fd) == 0 && has(A, "f", "Fifth"));
	EXPECT(unlinkat(A, "f", 0) == 0);
}

/* Two that write ------------------------------------------------------------------- */

static void the_last_close_wins(void)
{
	put(A, "f", "start");
	int a = openat(A, "f", O_RDWR), b = openat(B, "f", O_RDWR);
	EXPECT(pwrite(a, "A", 1, 0) == 1 && pwrite(b, "B", 1, 1) == 1);
	EXPECT(reads(a, "Atart") && reads(b, "sBart"));
	EXPECT(fsync(a) == 0 && has(B, "f", "Atart") && reads(b, "sBart"));
	EXPECT(fsync(b) == 0 && has(A, "f", "sBart") && reads(a, "Atart") && has(B, "f", "sBart"));
	EXPECT(pwrite(a, "C", 1, 2) == 1 && close(a) == 0);
	EXPECT(has(A, "f", "AtCrt") && has(B, "f", "AtCrt") && reads(b, "sBart"));
	/* Two lines on one mount. */
	int c = openat(B, "f", O_RDWR);
	EXPECT(pwrite(c, "D", 1, 3) == 1 && pwrite(b, "E", 1, 4) == 1);
	EXPECT(reads(c, "AtCDt") && reads(b, "sBarE"));
	EXPECT(close(c) == 0 && has(A, "f", "AtCDt") && has(B, "f", "AtCDt"));
	EXPECT(reads(b, "sBarE") && fsync(b) == 0 && has(A, "f", "sBarE") && has(B, "f", "sBarE"));
	/* It is what is published: who opens it there shares it. */
	c = openat(B, "f", O_RDONLY);
	EXPECT(pwrite(b, "x", 1, 0) == 1 && reads(c, "xBarE") && has(A, "f", "sBarE"));
	EXPECT(close(b) == 0 && has(A, "f", "xBarE"));
	close(c);
	EXPECT(unlinkat(B, "f", 0) == 0);
}

static void truncated_by_name(void)
{
	put(A, "f", "abcdef");
	int old = openat(B, "f", O_RDONLY);
	EXPECT(reads(old, "abcdef"));
	put(A, "f", "ABCDEFGH");
	char path[80];
	snprintf(path, sizeof(path), "%s/f", path_of[1]);
	EXPECT(truncate(path, 4) == 0);
	EXPECT(reads(old, "abcdef") && has(A, "f", "ABCD") && has(B, "f", "ABCD"));
	int fd = openat(B, "f", O_RDWR | O_TRUNC);
	EXPECT(fd >= 0 && reads(old, "abcdef") && close(fd) == 0 && has(A, "f", ""));
	close(old);
	put(A, "f", "12345678");
	EXPECT(truncate(path, 2) == 0 && has(A, "f", "12") && has(B, "f", "12"));
	EXPECT(unlinkat(A, "f", 0) == 0);
}

/* Names ----------------------------------------------------------------------------- */

static void names_that_change(void)
{
	struct stat st;

	/* The kernel has the old ones cached. */
	EXPECT(fstatat(B, "f", &st, 0) < 0);
	put(A, "f", "first");
	EXPECT(has(B, "f", "first"));
	put(A, "tmp", "renamed");
	EXPECT(fstatat(B, "tmp", &st, 0) == 0);
	EXPECT(renameat(A, "tmp", A, "f") == 0);
	EXPECT(has(B, "f", "renamed") && is_missing(B, "tmp"));
	EXPECT(renameat(A, "f", A, "g") == 0);
	put(A, "f", "other");
	EXPECT(has(B, "f", "other") && has(B, "g", "renamed"));
	/* f is shown under its new name before the old one is asked for. */
	EXPECT(renameat(A, "f", A, "h") == 0 && fstatat(B, "h", &st, 0) == 0);
	put(A, "f", "again");
	EXPECT(has(B, "f", "again") && has(B, "h", "other"));
	EXPECT(unlinkat(A, "f", 0) == 0 && is_missing(B, "f"));
	/* Open, and moved: what was opened stays. */
	int fd = openat(B, "g", O_RDONLY);
	EXPECT(renameat(A, "h", A, "g") == 0 && has(B, "g", "other") && reads(fd, "renamed"));
	close(fd);
	/* Writing to what was moved. */
	fd = openat(B, "g", O_RDWR);
	EXPECT(renameat(A, "g", A, "i") == 0 && is_missing(B, "g"));
	EXPECT(pwrite(fd, "O", 1, 0) == 1 && close(fd) == 0);
	EXPECT(has(A, "i", "Other") && has(B, "i", "Other"));
	EXPECT(unlinkat(B, "i", 0) == 0 && is_missing(A, "i"));
	EXPECT(unlinkat(A, "i", 0) < 0 && errno == ENOENT);
}

static void links(void)
{
	put(A, "f", "linked");
	EXPECT(has(B, "f", "linked"));
	EXPECT(linkat(A, "f", A, "g", 0) == 0 && has(B, "g", "linked"));
	put(B, "g", "by g");
	EXPECT(has(A, "f", "by g") && has(B, "f", "by g"));
	put(A, "tmp", "new");
	EXPECT(renameat(A, "tmp", A, "f") == 0 && has(B, "f", "new") && has(B, "g", "by g"));
	/* Linked here, replaced there. */
	EXPECT(linkat(B, "f", B, "h", 0) == 0);
	put(A, "tmp", "newer");
	EXPECT(renameat(A, "tmp", A, "f") == 0 && has(B, "f", "newer") && has(B, "h", "new"));
	EXPECT(linkat(B, "nothing", B, "x", 0) < 0 && errno == ENOENT);
	EXPECT(unlinkat(A, "g", 0) == 0 && linkat(B, "g", B, "x", 0) < 0 && errno == ENOENT);
	EXPECT(unlinkat(B, "f", 0) == 0 && unlinkat(B, "h", 0) == 0);
}

static void what_is_open_goes_on(void)
{
	struct stat st;
	char buf[10];

	put(A, "f", "bytes");
	int fd = openat(B, "f", O_RDWR);
	int reader = openat(B, "f", O_RDONLY);
	EXPECT(unlinkat(A, "f", 0) == 0 && is_missing(B, "f"));
	usleep(1100000);
	EXPECT(reads(fd, "bytes") && fstat(fd, &st) == 0 && st.st_nlink == 0);
	EXPECT(fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0600);
	EXPECT(pwrite(fd, "B", 1, 0) == 1 && fsync(fd) == 0 && pread(reader, buf, 5, 0) == 5);
	EXPECT(!memcmp(buf, "Bytes", 5) && ftruncate(fd, 3) == 0 && reads(reader, "Byt"));
	/* A new one of that name is another file. */
	put(A, "f", "other");
	EXPECT(has(B, "f", "other") && reads(reader, "Byt"));
	/* Opened again through its descriptor. */
	char path[80];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", reader);
	int again = open(path, O_RDONLY);
	EXPECT(again >= 0 && reads(again, "Byt") && close(again) == 0);
	EXPECT(close(fd) == 0 && close(reader) == 0 && has(A, "f", "other"));
	EXPECT(unlinkat(A, "f", 0) == 0);
}

static void directories(void)
{
	EXPECT(mkdirat(A, "d", 0755) == 0 && mkdirat(B, "d", 0755) < 0 && errno == EEXIST);
	put(B, "d/f", "inside");
	EXPECT(has(A, "d/f", "inside"));
	EXPECT(unlinkat(A, "d", AT_REMOVEDIR) < 0 && errno == ENOTEMPTY);
	EXPECT(renameat(A, "d", A, "e") == 0 && has(B, "e/f", "inside"));
	EXPECT(unlinkat(B, "e/f", 0) == 0 && unlinkat(A, "e", AT_REMOVEDIR) == 0);
	EXPECT(is_missing(B, "e/f"));
	int fd = openat(B, "e/g", O_WRONLY | O_CREAT, 0600);
	EXPECT(fd < 0 && errno == ENOENT);
	EXPECT(mkdirat(B, "e", 0700) == 0 && mkdirat(A, "e/h", 0700) == 0);
	EXPECT(unlinkat(B, "e", AT_REMOVEDIR) < 0 && errno == ENOTEMPTY);
	EXPECT(unlinkat(B, "e/h", AT_REMOVEDIR) == 0 && unlinkat(A, "e", AT_REMOVEDIR) == 0);
}

static void drafts(void)
{
	struct stat st;
	int fd = openat(A, "f", O_WRONLY | O_CREAT | O_EXCL, 0600);

	EXPECT(fd >= 0 && write(fd, "draft", 5) == 5);
	EXPECT(fstatat(B, "f", &st, 0) < 0 && errno == ENOENT && is_missing(B, "f"));
	EXPECT(openat(B, "f", O_WRONLY | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	EXPECT(mkdirat(B, "f", 0700) < 0 && errno == EEXIST);
	EXPECT(close(fd) == 0 && has(B, "f", "draft"));
	EXPECT(openat(B, "f", O_WRONLY | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	EXPECT(unlinkat(B, "f", 0) == 0);
	/* Two that make one name. */
	int a = openat(A, "f", O_RDWR | O_CREAT, 0600), b = openat(B, "f", O_RDWR | O_CREAT, 0600);
	EXPECT(a >= 0 && b >= 0 && write(a, "a", 1) == 1 && write(b, "bb", 2) == 2);
	EXPECT(has(A, "f", "a") && has(B, "f", "bb"));
	EXPECT(close(a) == 0 && has(B, "f", "bb") && has(A, "f", "a"));
	EXPECT(close(b) == 0 && has(A, "f", "bb") && has(B, "f", "bb"));
	/* A draft over a name that others see. */
	fd = openat(A, "tmp", O_WRONLY | O_CREAT, 0600);
	EXPECT(write(fd, "over", 4) == 4 && renameat(A, "tmp", A, "f") == 0);
	EXPECT(has(A, "f", "over") && has(B, "f", "bb"));
	EXPECT(close(fd) == 0 && has(B, "f", "over") && has(A, "f", "over"));
	/* Made here, published there before the kernel asks. */
	fd = openat(B, "f", O_RDWR | O_CREAT, 0600);
	EXPECT(fd >= 0 && reads(fd, "over") && close(fd) == 0);
	EXPECT(unlinkat(A, "f", 0) == 0);
}

static bool lists(int at, const char *const *names)
{
	char path[80];
	unsigned n = 0, want = 0;

	snprintf(path, sizeof(path), "ls %s", path_of[at == B]);
	FILE *f = popen(path, "r");
	char line[100];
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		bool known = false;
		for (unsigned i = 0; names[i]; i++)
			known |= !strcmp(names[i], line);
		n += known;
		if (!known)
			n = 1000;
	}
	pclose(f);
	while (names[want])
		want++;
	return n == want;
}

static void listings(void)
{
	EXPECT(lists(A, (const char *[]){ NULL }) && lists(B, (const char *[]){ NULL }));
	put(A, "f", "f");
	EXPECT(lists(B, (const char *[]){ "f", NULL }) && lists(A, (const char *[]){ "f", NULL }));
	int fd = openat(A, "g", O_WRONLY | O_CREAT, 0600);
	EXPECT(lists(B, (const char *[]){ "f", NULL }) && lists(A, (const char *[]){ "f", "g", NULL }));
	/* Without that it would be published by the release, which nobody waits for. */
	EXPECT(write(fd, "g", 1) == 1 && close(fd) == 0);
	EXPECT(lists(B, (const char *[]){ "f", "g", NULL }));
	EXPECT(unlinkat(B, "f", 0) == 0 && lists(A, (const char *[]){ "g", NULL }));
	EXPECT(unlinkat(A, "g", 0) == 0 && lists(B, (const char *[]){ NULL }));
}

static void attributes_come_after_a_while(void)
{
	struct stat st;

	put(A, "f", "1");
	EXPECT(fstatat(B, "f", &st, 0) == 0 && st.st_size == 1);
	put(A, "f", "333");
	EXPECT(fchmodat(A, "f", 0600, 0) == 0 && setxattr("/dev/null", "user.x", "", 0, 0) < 0);
	char path[80];
	snprintf(path, sizeof(path), "%s/f", path_of[0]);
	EXPECT(setxattr(path, "user.x", "y", 1, 0) == 0);
	usleep(1100000);
	EXPECT(fstatat(B, "f", &st, 0) == 0 && st.st_size == 3 && (st.st_mode & 07777) == 0600);
	snprintf(path, sizeof(path), "%s/f", path_of[1]);
	char v;
	EXPECT(getxattr(path, "user.x", &v, 1) == 1 && v == 'y');
	EXPECT(unlinkat(A, "f", 0) == 0);
	usleep(1100000);
	EXPECT(fstatat(B, "f", &st, 0) < 0 && errno == ENOENT);
}

/* Directories that the other mount replaces ------------------------------------------ */

static void make_tree(int at, const char *name)
{
	char path[40];

	EXPECT(mkdirat(at, name, 0755) == 0);
	snprintf(path, sizeof(path), "%s/sub", name);
	EXPECT(mkdirat(at, path, 0755) == 0);
	snprintf(path, sizeof(path), "%s/sub/f", name);
	put(at, path, name);
	snprintf(path, sizeof(path), "%s/f", name);
	put(at, path, name);
	snprintf(path, sizeof(path), "%s/one", name);
	put(at, path, name);
	char second[40];
	snprintf(second, sizeof(second), "%s/two", name);
	EXPECT(linkat(at, path, at, second, 0) == 0); /* it is looked up each time */
}

static void remove_tree(int at, const char *name)
{
	static const char *const in[] = { "f", "one", "two", "sub/f", "sub/x", "sub", "x" };
	char path[40];

	for (unsigned i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", name, in[i]);
		if (unlinkat(at, path, 0) < 0)
			unlinkat(at, path, AT_REMOVEDIR);
	}
	EXPECT(unlinkat(at, name, AT_REMOVEDIR) == 0);
}

/* At each moment there is one of that name, with all that is in it. */
static void replace_tree(int at, const char *name)
{
	make_tree(at, "new");
	EXPECT(renameat2(at, "new", at, name, RENAME_EXCHANGE) == 0);
	remove_tree(at, "new");
}

static bool is_there(int at, const char *name)
{
	struct stat st;

	return fstatat(at, name, &st, 0) == 0;
}

enum { REPLACED = 20 };

/* One thread is sent away by each of them, in a row. */
static void replaced_in_a_row(void)
{
	make_tree(A, "d");
	make_tree(A, "e");
	for (unsigned i = 0; i < REPLACED; i++) {
		EXPECT(is_there(A, "d/f") && is_there(A, "e/f"));
		replace_tree(B, "d");
		replace_tree(B, "e");
		EXPECT(is_there(A, "d/f") && is_there(A, "e/f"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/f"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/sub"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/sub/f"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/one") && is_there(A, "d/two"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/one") && is_there(A, "d/two"));
	}
	/* What has no path that leads elsewhere is not there. */
	int fd = openat(A, "d", O_RDONLY | O_DIRECTORY);
	EXPECT(fd >= 0 && is_there(fd, "f"));
	replace_tree(B, "d");
	EXPECT(!is_there(fd, "f") && errno == ENOENT);
	EXPECT(!is_there(fd, "new") && errno == ENOENT);
	EXPECT(!is_there(fd, "sub/new") && errno == ENOENT);
	EXPECT(mkdirat(fd, "new", 0755) < 0 && errno == ENOENT);
	close(fd);
	remove_tree(B, "d");
	remove_tree(B, "e");
}

static void replace_file(int at, const char *name)
{
	put(at, "tmp", "replaced");
	EXPECT(renameat(at, "tmp", at, name) == 0);
}

/* A thread was sent away, and comes back by another call, to something else. */
static void sent_away_before(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/g", path_of[0]);
	make_tree(A, "d");
	make_tree(A, "e");
	put(A, "g", "");
	for (unsigned i = 0; i < REPLACED; i++) {
		EXPECT(is_there(A, "d/f") && is_there(A, "d/sub"));
		EXPECT(is_there(A, "g") && is_there(A, "e/f"));
		replace_tree(B, "d");
		replace_file(B, "g");
		EXPECT(is_there(A, "d/f") && fchmodat(A, "g", 0600, 0) == 0);
		EXPECT(is_there(A, "g"));
		replace_tree(B, "d");
		replace_file(B, "g");
		EXPECT(is_there(A, "d/sub") && setxattr(path, "user.x", "x", 1, 0) == 0);
		EXPECT(is_there(A, "g"));
		replace_tree(B, "d");
		replace_file(B, "g");
		EXPECT(is_there(A, "d/sub") && utimensat(A, "g", NULL, 0) == 0);
		EXPECT(is_there(A, "e") && is_there(A, "d/f"));
		replace_tree(B, "d");
		replace_tree(B, "e");
		EXPECT(is_there(A, "d/sub") && fchmodat(A, "e", 0700, 0) == 0);
		EXPECT(is_there(A, "d/sub"));
		replace_tree(B, "d");
		EXPECT(is_there(A, "d/sub"));
		replace_tree(B, "d");
		EXPECT(fchmodat(A, "d/sub", 0700, 0) == 0);
	}
	EXPECT(unlinkat(B, "g", 0) == 0);
	remove_tree(B, "d");
	remove_tree(B, "e");
}

/* mkdir(2) and the like, which the kernel has look again but for what is made. */
static void made_in_what_is_replaced(void)
{
	make_tree(A, "d");
	make_tree(A, "e");
	for (unsigned i = 0; i < REPLACED; i++) {
		EXPECT(is_there(A, "d/sub"));
		replace_tree(B, "d");
		EXPECT(mkdirat(A, "d/sub/x", 0755) == 0);
		replace_tree(B, "d");
		EXPECT(mkdirat(A, "d/x/", 0755) == 0);
		replace_tree(B, "d");
		EXPECT(mknodat(A, "d/x", S_IFIFO | 0644, 0) == 0);
		replace_tree(B, "d");
		EXPECT(symlinkat("d/x", A, "d/sub//x") == 0);
		replace_tree(B, "d");
		EXPECT(linkat(A, "d/f", A, "e/x", 0) == 0 && unlinkat(A, "e/x", 0) == 0);
		replace_tree(B, "d");
		EXPECT(linkat(A, "e/f", A, "d/sub/x", 0) == 0);
		replace_tree(B, "d");
		EXPECT(mkdirat(A, "d/f/x", 0755) < 0 && errno == ENOTDIR);
		EXPECT(mkdirat(A, "nothing/x", 0755) < 0 && errno == ENOENT);
	}
	remove_tree(B, "d");
	remove_tree(B, "e");
}

/* Several at once ---------------------------------------------------------------------- */

enum { ROUNDS = 300, FILL = 3000 };

/* What they tell each other. */
static struct together {
	_Atomic unsigned closed_version;
	_Atomic bool over;
} *together;

/* Processes, since threads of a child are beyond what tsan can follow. */
static void run_together(void *(*const fn[])(void *), unsigned n)
{
	bool failed = false;
	int status;

	together = mmap(NULL, sizeof(*together), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(together != MAP_FAILED);
	for (uintptr_t i = 0; i < n; i++) {
		if (fork())
			continue;
		alarm(90);
		fn[i]((void *)i);
		_exit(0);
	}
	for (unsigned i = 0; i < n; i++) {
		EXPECT(wait(&status) > 0);
		failed |= status != 0;
		together->over |= failed;
	}
	EXPECT(!failed);
}

/* A version is its number, again and again; its size depends on it. */
static size_t fill(unsigned version, unsigned *v)
{
	size_t n = 1 + version * 7 % FILL;

	for (size_t i = 0; i < n; i++)
		v[i] = version;
	return n * sizeof(*v);
}

static void *overwrites(void *arg)
{
	static unsigned v[FILL];

	(void)arg;
	for (unsigned i = 1; i <= ROUNDS; i++) {
		int fd = openat(A, "f", O_WRONLY | O_CREAT | O_TRUNC, 0644);
		size_t n = fill(i, v);
		EXPECT(fd >= 0 && write(fd, v, n) == (ssize_t)n && close(fd) == 0);
		together->closed_version = i;
		if (i % 10 == 0)
			usleep(1000);
	}
	together->over = true;
	return NULL;
}

static void *replaces(void *arg)
{
	static unsigned v[FILL];

	(void)arg;
	for (unsigned i = 1; i <= ROUNDS; i++) {
		int fd = openat(A, "tmp", O_WRONLY | O_CREAT | O_EXCL, 0644);
		size_t n = fill(i, v);
		EXPECT(fd >= 0 && write(fd, v, n) == (ssize_t)n && close(fd) == 0);
		EXPECT(renameat(A, "tmp", A, "f") == 0);
		together->closed_version = i;
		if (i % 10 == 0)
			usleep(1000);
	}
	together->over = true;
	return NULL;
}

static void *watches(void *arg)
{
	unsigned v[FILL + 1], held = 0;
	int keep = -1;

	for (unsigned i = 0; !together->over; i++) {
		unsigned least = together->closed_version;
		int fd = openat(B, "f", O_RDONLY);
		EXPECT(fd >= 0);
		ssize_t n = read(fd, v, sizeof(v));
		if (n <= 0 || v[0] < least || (size_t)n != (1 + v[0] * 7 % FILL) * sizeof(*v)) {
			fprintf(stderr, "%zd bytes of version %u, after %u was closed\n", n,
				n > 0 ? v[0] : 0, least);
			_exit(1);
		}
		for (size_t k = 0; k < (size_t)n / sizeof(*v); k++)
			EXPECT(v[k] == v[0]);
		/* One is held on to for a while. */
		if (i % 16 == (uintptr_t)arg) {
			unsigned now = v[0];
			if (keep >= 0) {
				EXPECT(pread(keep, v, sizeof(*v), 0) == sizeof(*v) && v[0] == held);
				close(keep);
			}
			keep = fd;
			held = now;
		} else {
			close(fd);
		}
	}
	close(keep);
	return NULL;
}

static void run_watched(void *(*writer)(void *))
{
	unsigned zero = 0;
	int fd = openat(A, "f", O_WRONLY | O_CREAT, 0644);

	EXPECT(write(fd, &zero, sizeof(zero)) == sizeof(zero) && close(fd) == 0);
	run_together((void *(*[])(void *)){ watches, watches, watches, writer }, 4);
	EXPECT(unlinkat(B, "f", 0) == 0);
}

static void overwritten_all_the_time(void) { run_watched(overwrites); }
static void replaced_all_the_time(void) { run_watched(replaces); }

static void *makes_and_removes(void *arg)
{
	int at = (uintptr_t)arg % 2 ? A : B;

	for (unsigned i = 0; i < 2 * ROUNDS; i++) {
		int fd = openat(at, "f", O_RDWR | O_CREAT | (i % 4 ? 0 : O_TRUNC), 0644);
		EXPECT(fd >= 0);
		EXPECT(fd < 0 || (write(fd, "x", 1) == 1 && close(fd) == 0));
		fd = openat(at, "f", O_RDONLY);
		EXPECT(fd >= 0 || errno == ENOENT);
		close(fd);
		EXPECT(unlinkat(at, "f", 0) == 0 || errno == ENOENT);
	}
	return NULL;
}

static void made_and_removed_all_the_time(void)
{
	void *(*const f)(void *) = makes_and_removes;

	run_together((void *(*[])(void *)){ f, f, f, f }, 4);
}

static void *writes_along(void *arg)
{
	int at = (uintptr_t)arg % 2 ? A : B;

	for (unsigned i = 0; i < ROUNDS; i++) {
		int fd = openat(at, "f", i % 3 ? O_RDWR : O_RDWR | O_TRUNC);
		EXPECT(fd >= 0);
		char c = (char)('a' + (uintptr_t)arg);
		EXPECT(pwrite(fd, &c, 1, (off_t)(i * 37 % 20000)) == 1 && close(fd) == 0);
		if (i % 16 == 0) {
			char path[80];
			snprintf(path, sizeof(path), "%s/f", path_of[at == B]);
			EXPECT(truncate(path, i * 11) == 0);
		}
	}
	return NULL;
}

static void written_from_both(void)
{
	void *(*const f)(void *) = writes_along;

	put(A, "f", "x");
	run_together((void *(*[])(void *)){ f, f, f, f }, 4);
	EXPECT(unlinkat(A, "f", 0) == 0);
}

static void random_walk(void)
{
	const char *steps = getenv("STEPS"), *paths[] = { path_of[0], path_of[1] };

	walk(paths, seed, steps ? (unsigned)atoi(steps) : 4000, !cache_ms);
}

/* The tests ---------------------------------------------------------------------------- */

static void run_child(void (*fn)(void))
{
	assert_int_equal(in_child(fn), 0);
	mounts_check(&m);
}

#define TEST(fn)                                                               \
	static void test_##fn(void **state)                                    \
	{                                                                      \
		(void)state;                                                   \
		run_child(fn);                                                 \
	}

TEST(opens_see_closes)
TEST(what_is_open_stays)
TEST(the_last_close_wins)
TEST(truncated_by_name)
TEST(names_that_change)
TEST(links)
TEST(what_is_open_goes_on)
TEST(directories)
TEST(drafts)
TEST(listings)
TEST(attributes_come_after_a_while)
TEST(replaced_in_a_row)
TEST(sent_away_before)
TEST(made_in_what_is_replaced)
TEST(overwritten_all_the_time)
TEST(replaced_all_the_time)
TEST(made_and_removed_all_the_time)
TEST(written_from_both)
TEST(random_walk)

#define REPLACED_TESTS                                                         \
	cmocka_unit_test(test_replaced_in_a_row),                              \
	cmocka_unit_test(test_sent_away_before),                               \
	cmocka_unit_test(test_made_in_what_is_replaced)

int main(void)
{
	const struct CMUnitTest remembering[] = { REPLACED_TESTS };
	const struct CMUnitTest tests[] = {
		REPLACED_TESTS,
		cmocka_unit_test(test_opens_see_closes),
		cmocka_unit_test(test_what_is_open_stays),
		cmocka_unit_test(test_the_last_close_wins),
		cmocka_unit_test(test_truncated_by_name),
		cmocka_unit_test(test_names_that_change),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_what_is_open_goes_on),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_drafts),
		cmocka_unit_test(test_listings),
		cmocka_unit_test(test_attributes_come_after_a_while),
		cmocka_unit_test(test_overwritten_all_the_time),
		cmocka_unit_test(test_replaced_all_the_time),
		cmocka_unit_test(test_made_and_removed_all_the_time),
		cmocka_unit_test(test_written_from_both),
		cmocka_unit_test(test_random_walk),
	};
	const char *given = getenv("SEED");
	int r = 0, failed = 0;

	seed = given ? strtoull(given, NULL, 0) : clock_ns();
	print_message("SEED=%llu\n", (unsigned long long)seed);
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	for (unsigned round = 0; round < 3; round++) {
		cache_ms = (unsigned[]){ 1000, 0, 61000 }[round];
		m = mounts_open((struct engine_opts){ .verify = true });
		r = 0;
		for (unsigned i = 0; i < KIT_MOUNTS && r >= 0; i++)
			r = mount_one(i);
		if (r >= 0 && round == 2)
			failed += cmocka_run_group_tests(remembering, NULL, NULL);
		else if (r >= 0)
			failed += cmocka_run_group_tests(tests, NULL, NULL);
		unmount_all();
		if (r < 0)
			return r == -ENODEV || r == -EPERM || r == -EACCES ? 0 : 1;
		if (!failed)
			mounts_close(&m);
	}
	return failed;
}
