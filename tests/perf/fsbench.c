/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsbench WHAT DIR: does one thing in DIR and prints a rate, and the seconds of processor
 * that it took itself.
 *
 *	write       1 GiB, 1 MiB requests, new file       MiB/s, close included
 *	read-direct the same file, O_DIRECT               MiB/s
 *	read-first  the same, page cache dropped before   MiB/s
 *	read-again  the same, just read                   MiB/s
 *	rand-read   4 KiB at random, none of it cached    1/s
 *	create      open, write 4 KiB, close              1/s
 *	open-read   open, read 4 KiB, close               1/s
 *	stat        stat of files not yet looked up       1/s
 *	list        readdir and stat of all (ls -l)       1/s (listings)
 *	unlink      of those files                        1/s
 *	cp-in, cp-out  what cp does, 1 GiB from and to tmpfs  MiB/s
 *
 * FSBENCH_MIB and FSBENCH_FILES change the sizes.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, PAGE = 4096 };

static char *big;
static char path[4096];
static size_t mib = 1024;
static unsigned nfiles = 5000;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *in(const char *dir, const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static const char *file(const char *dir, unsigned i)
{
	snprintf(path, sizeof(path), "%s/files/f%u", dir, i);
	return path;
}

static void write_big(int fd)
{
	for (size_t i = 0; i < mib; i++)
		if (write(fd, big, MIB) != MIB)
			err(1, "write %s", path);
}

static void read_big(int fd)
{
	for (size_t i = 0; i < mib; i++)
		if (read(fd, big, MIB) != MIB)
			err(1, "read %s", path);
}

static double per_s(double from, double what)
{
	return what / (now() - from);
}

static double b_write(const char *dir)
{
	unlink(in(dir, "big"));
	double t = now();
	int fd = open(in(dir, "big"), O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		err(1, "%s", path);
	write_big(fd);
	if (close(fd))
		err(1, "close %s", path);
	return per_s(t, (double)mib);
}

static double read_with(const char *dir, int flags, int drop)
{
	int fd = open(in(dir, "big"), O_RDONLY | flags);

	if (fd < 0)
		err(1, "%s", path);
	if (drop)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	double t = now();
	read_big(fd);
	double r = per_s(t, (double)mib);
	close(fd);
	return r;
}

static double b_read_direct(const char *dir) { return read_with(dir, O_DIRECT, 0); }
static double b_read_first(const char *dir) { return read_with(dir, 0, 1); }

static double b_read_again(const char *dir)
{
	read_with(dir, 0, 0);
	return read_with(dir, 0, 0);
}

static double b_rand_read(const char *dir)
{
	enum { N = 20000 };
	int fd = open(in(dir, "big"), O_RDONLY);
	uint64_t x = 88172645463325252ULL;

	if (fd < 0)
		err(1, "%s", path);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	double t = now();
	for (unsigned i = 0; i < N; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (pread(fd, big, PAGE, (off_t)(x % (mib * 256) * PAGE)) != PAGE)
			err(1, "pread %s", path);
	}
	double r = per_s(t, N);
	close(fd);
	return r;
}

static double b_create(const char *dir)
{
	mkdir(in(dir, "files"), 0755);
	double t = now();
	for (unsigned i = 0; i < nfiles; i++) {
		int fd = open(file(dir, i), O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0 || write(fd, big, PAGE) != PAGE || close(fd))
			err(1, "%s", path);
	}
	return per_s(t, nfiles);
}

static double b_open_read(const char *dir)
{
	double t = now();

	for (unsigned i = 0; i < nfiles; i++) {
		int fd = open(file(dir, i), O_RDONLY);
		if (fd < 0 || read(fd, big, PAGE) != PAGE || close(fd))
			err(1, "%s", path);
	}
	return per_s(t, nfiles);
}

static void drop_names(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd >= 0) {
		(void)!write(fd, "2", 1);
		close(fd);
	}
}

static double b_stat(const char *dir)
{
	struct stat st;

	drop_names();
	double t = now();
	for (unsigned i = 0; i < nfiles; i++)
		if (stat(file(dir, i), &st))
			err(1, "%s", path);
	return per_s(t, nfiles);
}

static double b_list(const char *dir)
{
	drop_names();
	double t = now();
	DIR *d = opendir(in(dir, "files"));
	struct dirent *e;
	struct stat st;
	unsigned n = 0;

	if (!d)
		err(1, "%s", path);
	while ((e = readdir(d)))
		n += fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	closedir(d);
	if (n != nfiles + 2)
		errx(1, "%s: %u entries", path, n);
	return per_s(t, 1);
}

static double b_unlink(const char *dir)
{
	double t = now();

	for (unsigned i = 0; i < nfiles; i++)
		if (unlink(file(dir, i)))
			err(1, "%s", path);
	return per_s(t, nfiles);
}

static double copy(const char *from, const char *to)
{
	char cmd[9000];

	unlink(to);
	snprintf(cmd, sizeof(cmd), "cp -- '%s' '%s'", from, to);
	double t = now();
	if (system(cmd))
		errx(1, "%s failed", cmd);
	return per_s(t, (double)mib);
}

static const char *outside(void)
{
	return getenv("FSBENCH_OUTSIDE"); /* a file of that size on tmpfs */
}

static double b_cp_in(const char *dir)
{
	char to[4096];

	snprintf(to, sizeof(to), "%s", in(dir, "copy"));
	return copy(outside(), to);
}

static double b_cp_out(const char *dir)
{
	char to[4096];

	snprintf(to, sizeof(to), "%s.out", outside());
	double r = copy(in(dir, "copy"), to);
	unlink(to);
	return r;
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		double (*run)(const char *dir);
	} all[] = {
		{ "write", b_write }, { "read-direct", b_read_direct },
		{ "read-first", b_read_first }, { "read-again", b_read_again },
		{ "rand-read", b_rand_read }, { "create", b_create },
		{ "open-read", b_open_read }, { "stat", b_stat }, { "list", b_list },
		{ "unlink", b_unlink }, { "cp-in", b_cp_in }, { "cp-out", b_cp_out },
	};

	if (getenv("FSBENCH_MIB"))
		mib = strtoul(getenv("FSBENCH_MIB"), NULL, 10);
	if (getenv("FSBENCH_FILES"))
		nfiles = (unsigned)strtoul(getenv("FSBENCH_FILES"), NULL, 10);
	big = aligned_alloc(PAGE, MIB);
	if (argc != 3 || !big)
		errx(2, "usage: fsbench WHAT DIR");
	memset(big, 'x', MIB);
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!strcmp(all[i].name, argv[1])) {
			double rate = all[i].run(argv[2]);
			printf("%.2f %.3f\n", rate, cpu_s());
			return 0;
		}
	errx(2, "no benchmark %s", argv[1]);
}
