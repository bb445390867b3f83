/* SPDX-License-Identifier: Apache-2.0 */
/*
 * twin: random file operations on two trees side by side, by two processes.
 *
 *	twin [-s SEED] [-n STEPS] DIR-UNDER-TEST REFERENCE-DIR
 *
 * Two workers take turns. In each step one of them does the same operation in
 * both trees and compares what came back: result, errno, bytes. Handles stay
 * open in their worker across steps, so that one process reads what the other
 * writes, unlinks what the other has open, and so on. Every COMPARE_EVERY steps
 * both trees are compared whole: names, types, modes, owners, sizes, link
 * counts, targets, extended attributes and contents. The first difference ends
 * the run with status 1, the step and the seed that repeats it.
 *
 * What file systems may differ in is left out of the comparison: st_blocks,
 * sizes of directories, offsets of holes, the order of listings.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { NHANDLES = 12, NAMES = 9, DEPTH = 3, MAX_IO = 300 * 1024, MAX_SIZE = 12 << 20,
       COMPARE_EVERY = 400 };

static const char *roots[2];
static uint64_t rng;
static unsigned step;
static uint64_t seed;

static uint64_t rnd(void) /* xorshift64* */
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * 2685821657736338717ULL;
}

static uint64_t below(uint64_t n)
{
	return (rnd() >> 11) % n;
}

static void differ(const char *what, const char *path, long long a, long long b)
{
	fprintf(stderr, "twin: step %u, seed %" PRIu64 ": %s %s: %lld (%s) here, %lld (%s) in the "
			"reference\n", step, seed, what, path ? path : "", a,
		a < 0 ? strerror((int)-a) : "", b, b < 0 ? strerror((int)-b) : "");
	exit(1);
}

struct handle {
	int fd[2];
	int flags;
	char path[256];
};
static struct handle handles[NHANDLES];

static void path_of(char *out, size_t n, int tree, const char *rel)
{
	snprintf(out, n, "%s/%s", roots[tree], rel);
}

static void random_path(char rel[256])
{
	unsigned depth = (unsigned)below(DEPTH) + 1;
	size_t at = 0;

	for (unsigned d = 0; d < depth; d++) {
		bool dir = d + 1 < depth;
		at += (size_t)snprintf(rel + at, 256 - at, "%s%c%u", d ? "/" : "",
				       dir ? 'd' : below(4) ? 'f' : 'd',
				       (unsigned)below(dir ? 3 : NAMES));
	}
}

static long long sys(long long r)
{
	return r < 0 ? -errno : r;
}

/* fn(tree's path) in both trees; results must be equal. */
#define BOTH(what, rel, expr)                                                  \
	do {                                                                   \
		long long r_[2];                                               \
		for (int t = 0; t < 2; t++) {                                  \
			char p[512];                                           \
			path_of(p, sizeof(p), t, rel);                         \
			r_[t] = sys(expr);                                     \
		}                                                              \
		if (r_[0] != r_[1])                                            \
			differ(what, rel, r_[0], r_[1]);                       \
	} while (0)

#define BOTH2(what, a, b, expr)                                                \
	do {                                                                   \
		long long r_[2];                                               \
		for (int t = 0; t < 2; t++) {                                  \
			char p[512], q[512];                                   \
			path_of(p, sizeof(p), t, a);                           \
			path_of(q, sizeof(q), t, b);                           \
			r_[t] = sys(expr);                                     \
		}                                                              \
		if (r_[0] != r_[1])                                            \
			differ(what, b, r_[0], r_[1]);                         \
	} while (0)

static unsigned char buf[2][MAX_IO + 8192];

static void fill(size_t n)
{
	uint64_t x = rnd();

	for (size_t i = 0; i < n; i++)
		buf[0][i] = (unsigned char)(x >> (i % 57) ^ i);
}

static void close_handle(struct handle *h)
{
	if (h->fd[0] < 0)
		return;
	int a = (int)sys(close(h->fd[0])), b = (int)sys(close(h->fd[1]));
	h->fd[0] = h->fd[1] = -1;
	if (a != b)
		differ("close", h->path, a, b);
}

static struct handle *random_handle(void)
{
	struct handle *h = &handles[below(NHANDLES)];

	return h->fd[0] >= 0 ? h : NULL;
}

static void op_open(void)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	static const int extra[] = { 0, O_CREAT, O_CREAT, O_CREAT | O_EXCL, O_TRUNC,
				     O_CREAT | O_TRUNC, O_APPEND, O_CREAT | O_APPEND };
	struct handle *h = &handles[below(NHANDLES)];
	char rel[256];
	long long r[2];

	close_handle(h);
	random_path(rel);
	h->flags = modes[below(3)] | extra[below(8)];
	for (int t = 0; t < 2; t++) {
		char p[512];
		path_of(p, sizeof(p), t, rel);
		h->fd[t] = open(p, h->flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
		r[t] = h->fd[t] < 0 ? -errno : 0;
	}
	if (r[0] != r[1])
		differ("open", rel, r[0], r[1]);
	snprintf(h->path, sizeof(h->path), "%s", rel);
	if (r[0] < 0)
		h->fd[0] = h->fd[1] = -1;
}

static uint64_t random_off(void)
{
	switch (below(4)) {
	case 0: return below(8192);
	case 1: return below(64) * 4096;
	case 2: return below(1 << 20);
	default: return below(MAX_SIZE - MAX_IO);
	}
}

static size_t random_len(void)
{
	switch (below(4)) {
	case 0: return below(100) + 1;
	case 1: return (below(8) + 1) * 4096;
	default: return below(below(4) ? 20000 : MAX_IO) + 1;
	}
}

static void op_write(void)
{
	struct handle *h = random_handle();
	size_t n = random_len();
	uint64_t off = random_off();
	long long r[2];

	if (!h)
		return;
	fill(n);
	for (int t = 0; t < 2; t++)
		r[t] = sys(pwrite(h->fd[t], buf[0], n, (off_t)off));
	if (r[0] != r[1])
		differ("write", h->path, r[0], r[1]);
}

static void op_read(void)
{
	struct handle *h = random_handle();
	size_t n = random_len();
	uint64_t off = random_off();
	long long r[2];

	if (!h)
		return;
	for (int t = 0; t < 2; t++)
		r[t] = sys(pread(h->fd[t], buf[t], n, (off_t)off));
	if (r[0] != r[1])
		differ("read", h->path, r[0], r[1]);
	for (long long i = 0; i < r[0]; i++)
		if (buf[0][i] != buf[1][i])
			differ("read: byte at", h->path, (long long)off + i, buf[1][i]);
}

static void op_mmap(void)
{
	struct handle *h = random_handle();
	bool writes = below(2);
	struct stat st;
	void *map[2];

	if (!h || (h->flags & O_ACCMODE) == O_WRONLY ||
	    (writes && (h->flags & O_ACCMODE) != O_RDWR) || fstat(h->fd[1], &st) < 0 ||
	    !S_ISREG(st.st_mode) || st.st_size == 0)
		return;
	size_t n = (size_t)st.st_size, at = below(n), len = below(n - at < 9000 ? n - at : 9000);
	fill(len);
	for (int t = 0; t < 2; t++) {
		map[t] = mmap(NULL, n, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, h->fd[t], 0);
		if (map[t] == MAP_FAILED)
			differ("mmap", h->path, t, errno);
		if (writes)
			memcpy((char *)map[t] + at, buf[0], len);
	}
	if (memcmp((char *)map[0] + at, (char *)map[1] + at, len))
		differ("mmap: bytes at", h->path, (long long)at, (long long)len);
	for (int t = 0; t < 2; t++)
		munmap(map[t], n);
}

static void op_ftruncate(void)
{
	struct handle *h = random_handle();
	uint64_t size = random_off();

	if (!h)
		return;
	long long a = sys(ftruncate(h->fd[0], (off_t)size)), b = sys(ftruncate(h->fd[1], (off_t)size));
	if (a != b)
		differ("ftruncate", h->path, a, b);
}

static void op_fallocate(void)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
	struct handle *h = random_handle();
	int mode = modes[below(3)];
	uint64_t off = random_off();
	size_t n = random_len();

	if (!h)
		return;
	long long a = sys(fallocate(h->fd[0], mode, (off_t)off, (off_t)n));
	long long b = sys(fallocate(h->fd[1], mode, (off_t)off, (off_t)n));
	if (a != b)
		differ("fallocate", h->path, a, b);
}

static void op_copy(void)
{
	struct handle *h = random_handle(), *to = random_handle();
	uint64_t from = random_off(), off = random_off();
	size_t n = below(2) ? random_len() : (below(30) + 1) * 4096;
	long long r[2];

	if (!h || !to || (to->flags & O_APPEND))
		return;
	for (int t = 0; t < 2; t++) {
		off_t in = (off_t)from, out = (off_t)off;
		r[t] = sys(copy_file_range(h->fd[t], &in, to->fd[t], &out, n, 0));
	}
	if (r[0] != r[1] && !(r[0] < 0 && r[1] < 0)) /* which error comes first is free */
		differ("copy_file_range", h->path, r[0], r[1]);
}

static void op_sync(void)
{
	struct handle *h = random_handle();

	if (h)
		fsync(h->fd[0]);
}

static void op_rename(void)
{
	char a[256], b[256];
	unsigned flags = below(4) ? 0 : below(2) ? RENAME_NOREPLACE : RENAME_EXCHANGE;

	random_path(a);
	random_path(b);
	BOTH2("rename", a, b, renameat2(AT_FDCWD, p, AT_FDCWD, q, flags));
}

static void op_name(void)
{
	char a[256], b[256];
	struct timespec times[2] = { { (time_t)below(2000000000), 0 },
				     { (time_t)below(2000000000), 5 } };
	mode_t mode = (mode_t)below(010000);
	uint64_t size = random_off();
	char value[300];

	random_path(a);
	random_path(b);
	memset(value, 'a' + (int)below(26), sizeof(value));
	size_t vlen = below(sizeof(value));
	char name[32];
	snprintf(name, sizeof(name), "user.x%u", (unsigned)below(3));
	switch (below(16)) {
	case 0: case 1: BOTH("mkdir", a, mkdir(p, 0755)); break;
	case 2: BOTH("rmdir", a, rmdir(p)); break;
	case 3: case 4: BOTH("unlink", a, unlink(p)); break;
	case 5: case 6: BOTH2("link", a, b, link(p, q)); break;
	case 7: BOTH("symlink", a, symlink("f1", p)); break;
	case 8: BOTH("chmod", a, chmod(p, mode)); break;
	case 9: BOTH("chown", a, lchown(p, (uid_t)(mode & 7), (gid_t)(size & 7))); break;
	case 10: BOTH("utimens", a, utimensat(AT_FDCWD, p, times, AT_SYMLINK_NOFOLLOW)); break;
	case 11: BOTH("truncate", a, truncate(p, (off_t)size)); break;
	case 12: BOTH("mknod", a, mknod(p, (size & 1 ? S_IFIFO : S_IFREG) | 0640, 0)); break;
	case 13: BOTH("setxattr", a, lsetxattr(p, name, value, vlen, 0)); break;
	case 14: BOTH("removexattr", a, lremovexattr(p, name)); break;
	default: BOTH("access", a, access(p, F_OK)); break;
	}
}

static void op_close(void)
{
	struct handle *h = random_handle();

	if (h)
		close_handle(h);
}

static void compare_stat(const char *rel, const struct stat *a, const struct stat *b)
{
	if (a->st_mode != b->st_mode)
		differ("mode", rel, a->st_mode, b->st_mode);
	if (a->st_nlink != b->st_nlink)
		differ("nlink", rel, (long long)a->st_nlink, (long long)b->st_nlink);
	if (a->st_uid != b->st_uid || a->st_gid != b->st_gid)
		differ("owner", rel, a->st_uid, b->st_uid);
	if (!S_ISDIR(a->st_mode) && a->st_size != b->st_size)
		differ("size", rel, a->st_size, b->st_size);
}

static void op_fstat(void)
{
	struct handle *h = random_handle();
	struct stat a, b;

	if (!h)
		return;
	if (fstat(h->fd[0], &a) < 0 || fstat(h->fd[1], &b) < 0)
		differ("fstat", h->path, -errno, 0);
	compare_stat(h->path, &a, &b);
}

/* ---- Whole trees ---------------------------------------------------------- */

static void compare_content(const char *rel, const char *pa, const char *pb)
{
	int a = open(pa, O_RDONLY | O_CLOEXEC), b = open(pb, O_RDONLY | O_CLOEXEC);
	off_t off = 0;

	if (a < 0 || b < 0)
		differ("open to compare", rel, -errno, b);
	for (;;) {
		ssize_t m = read(a, buf[0], MAX_IO), n = read(b, buf[1], MAX_IO);
		if (m != n)
			differ("length of content", rel, m, n);
		if (m > 0 && memcmp(buf[0], buf[1], (size_t)m))
			for (ssize_t i = 0; i < m; i++)
				if (buf[0][i] != buf[1][i])
					differ("content at", rel, off + i, buf[1][i]);
		if (m <= 0)
			break;
		off += m;
	}
	close(a);
	close(b);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void compare_xattrs(const char *rel, const char *pa, const char *pb)
{
	for (unsigned i = 0; i < 3; i++) {
		char name[32], va[400], vb[400];
		snprintf(name, sizeof(name), "user.x%u", i);
		long long a = sys(lgetxattr(pa, name, va, sizeof(va)));
		long long b = sys(lgetxattr(pb, name, vb, sizeof(vb)));
		if (a != b || (a > 0 && memcmp(va, vb, (size_t)a)))
			differ(name, rel, a, b);
	}
}

static unsigned names_of(const char *path, char **ret, unsigned max)
{
	DIR *d = opendir(path);
	struct dirent *e;
	unsigned n = 0;

	if (!d)
		err(1, "%s", path);
	while ((e = readdir(d)) && n < max)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			ret[n++] = strdup(e->d_name);
	closedir(d);
	qsort(ret, n, sizeof(*ret), by_text);
	return n;
}

static void compare_tree(const char *rel)
{
	char pa[512], pb[512], la[512], lb[512];
	struct stat a, b;

	path_of(pa, sizeof(pa), 0, rel);
	path_of(pb, sizeof(pb), 1, rel);
	if (lstat(pa, &a) < 0 || lstat(pb, &b) < 0)
		differ("lstat", rel, -errno, 0);
	if (*rel)
		compare_stat(rel, &a, &b);
	if (*rel)
		compare_xattrs(rel, pa, pb);
	if (S_ISREG(a.st_mode))
		compare_content(rel, pa, pb);
	if (S_ISLNK(a.st_mode)) {
		ssize_t m = readlink(pa, la, sizeof(la)), n = readlink(pb, lb, sizeof(lb));
		if (m != n || memcmp(la, lb, (size_t)m))
			differ("readlink", rel, m, n);
	}
	if (!S_ISDIR(a.st_mode))
		return;
	char *names[2][64];
	unsigned n = names_of(pa, names[0], 64), m = names_of(pb, names[1], 64);
	for (unsigned i = 0; i < n || i < m; i++) {
		if (i >= n || i >= m || strcmp(names[0][i], names[1][i])) {
			fprintf(stderr, "twin: in %s: %s here, %s in the reference\n", rel,
				i < n ? names[0][i] : "(end)", i < m ? names[1][i] : "(end)");
			differ("listing", rel, n, m);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		char sub[256];
		snprintf(sub, sizeof(sub), "%s%s%.60s", rel, *rel ? "/" : "", names[0][i]);
		compare_tree(sub);
		free(names[0][i]);
		free(names[1][i]);
	}
}

/* ---- Workers -------------------------------------------------------------- */

static void do_step(void)
{
	static void (*const ops[])(void) = {
		op_open, op_open, op_open, op_write, op_write, op_write, op_write, op_read,
		op_read, op_read, op_name, op_name, op_name, op_name, op_rename, op_ftruncate,
		op_fallocate, op_mmap, op_copy, op_sync, op_close, op_close, op_fstat,
	};

	ops[below(sizeof(ops) / sizeof(*ops))]();
}

/* Takes a step whenever a number comes in, answers with the generator's state;
 * a step 0 compares the trees; the end of the pipe closes everything. */
static void work(int in, int out)
{
	uint64_t msg[2];

	for (unsigned i = 0; i < NHANDLES; i++)
		handles[i].fd[0] = handles[i].fd[1] = -1;
	while (read(in, msg, sizeof(msg)) == sizeof(msg)) {
		step = (unsigned)msg[0];
		rng = msg[1];
		if (step % COMPARE_EVERY == 0)
			compare_tree("");
		do_step();
		msg[1] = rng;
		if (write(out, msg, sizeof(msg)) != sizeof(msg))
			exit(2);
	}
	for (unsigned i = 0; i < NHANDLES; i++)
		close_handle(&handles[i]);
	exit(0);
}

int main(int argc, char **argv)
{
	unsigned steps = 20000;
	int c, to[2][2], from[2][2];
	pid_t pids[2];

	seed = (uint64_t)time(NULL);
	while ((c = getopt(argc, argv, "s:n:")) != -1)
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			steps = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	if (optind + 2 != argc)
		errx(2, "usage: twin [-s SEED] [-n STEPS] DIR-UNDER-TEST REFERENCE-DIR");
	roots[0] = argv[optind];
	roots[1] = argv[optind + 1];
	umask(0);
	rng = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (int w = 0; w < 2; w++) {
		if (pipe2(to[w], O_CLOEXEC) < 0 || pipe2(from[w], O_CLOEXEC) < 0)
			err(1, "pipe");
		pids[w] = fork();
		if (pids[w] == 0) {
			close(to[w][1]);
			if (w == 1)
				close(to[0][1]);
			work(to[w][0], from[w][1]);
		}
		close(to[w][0]);
		close(from[w][1]);
	}
	int failed = 0;
	for (unsigned s = 1; s <= steps && !failed; s++) {
		int w = (int)below(2);
		uint64_t msg[2] = { s, rng };
		if (write(to[w][1], msg, sizeof(msg)) != sizeof(msg) ||
		    read(from[w][0], msg, sizeof(msg)) != sizeof(msg))
			failed = 1;
		rng = msg[1];
	}
	close(to[0][1]);
	close(to[1][1]);
	for (int w = 0; w < 2; w++) {
		int status;
		waitpid(pids[w], &status, 0);
		failed |= status != 0;
	}
	if (!failed)
		compare_tree("");
	printf("twin: seed %" PRIu64 ", %u steps: %s\n", seed, steps, failed ? "DIFFERENT" : "equal");
	return failed;
}
