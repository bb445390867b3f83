/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bigdir make|list|seek|turns|remove DIR N: a directory of N entries "e0".."eN-1".
 * list: each is there once. seek: at random places telldir(), and after other
 * entries came and went, seekdir() finds the same entry again; entries that were
 * there all the time are listed exactly once meanwhile. turns: two list it, call by
 * call, and what went before the second one began is not shown to that.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long n;
static unsigned char *seen;

static int make_entry(int dir, const char *name)
{
	return mknodat(dir, name, S_IFREG | 0644, 0);
}

static int remove_entry(int dir, const char *name)
{
	return unlinkat(dir, name, 0);
}

static void for_each(const char *dir, int (*fn)(int dir, const char *name))
{
	char name[32];
	int at = open(dir, O_RDONLY | O_DIRECTORY);

	if (at < 0)
		err(1, "%s", dir);
	for (unsigned long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "e%lu", i);
		if (fn(at, name))
			err(1, "%s/%s", dir, name);
	}
	close(at);
}

static void make(const char *dir)
{
	if (mkdir(dir, 0755))
		err(1, "%s", dir);
	for_each(dir, make_entry);
}

/* Counts an entry; 0 for "." and others. */
static int count(const char *name)
{
	char *end;

	if (*name != 'e')
		return 0;
	unsigned long i = strtoul(name + 1, &end, 10);
	if (*end || i >= n)
		errx(1, "%s: was never made", name);
	if (seen[i]++)
		errx(1, "%s: listed twice", name);
	return 1;
}

static void all_seen(unsigned long from)
{
	for (unsigned long i = from; i < n; i++)
		if (!seen[i])
			errx(1, "e%lu: not listed", i);
}

static void list(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned long got = 0;

	if (!d)
		err(1, "%s", dir);
	while ((e = readdir(d)))
		got += (unsigned long)count(e->d_name);
	closedir(d);
	all_seen(0);
	printf("bigdir: %lu entries, each once\n", got);
}

static void churn(const char *dir, unsigned long round)
{
	char path[4096];

	for (unsigned i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), "%s/x%lu.%u", dir, round, i);
		if (mknod(path, S_IFREG | 0600, 0))
			err(1, "%s", path);
	}
	for (unsigned i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), "%s/x%lu.%u", dir, round, i);
		if (unlink(path))
			err(1, "%s", path);
	}
}

static void seek(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned long i = 0;

	if (!d)
		err(1, "%s", dir);
	while ((e = readdir(d))) {
		count(e->d_name);
		if (++i % (n / 200 + 1))
			continue;
		long at = telldir(d);
		struct dirent *next = readdir(d);
		if (!next)
			break;
		char name[256];
		snprintf(name, sizeof(name), "%s", next->d_name);
		churn(dir, i);
		seekdir(d, at);
		next = readdir(d);
		if (!next || strcmp(next->d_name, name))
			errx(1, "after seekdir(%ld): %s, not %s", at,
			     next ? next->d_name : "end", name);
		count(next->d_name);
	}
	closedir(d);
	all_seen(0);
	printf("bigdir: the same entries after seekdir, each once\n");
}

/* One call; what it says of entries that are there yet is counted if `counts`. False:
 * the end. */
static bool list_some(int dir, bool counts)
{
	char buf[32768];
	long got = syscall(SYS_getdents64, dir, buf, sizeof(buf));

	if (got < 0)
		err(1, "getdents64");
	for (long at = 0; at < got;) {
		const struct dirent *e = (const void *)(buf + at); /* as the call has it on 64 bits */
		if (counts)
			count(e->d_name);
		at += e->d_reclen;
	}
	return got > 0;
}

/* The second half goes between the first calls of the two; the first one ends between the
 * calls of the second. */
static void turns(const char *dir)
{
	int one = open(dir, O_RDONLY | O_DIRECTORY), two;
	char path[4096];

	list_some(one, false);
	for (unsigned long left = n / 2; n > left; n--) {
		snprintf(path, sizeof(path), "%s/e%lu", dir, n - 1);
		if (unlink(path))
			err(1, "%s", path);
	}
	two = open(dir, O_RDONLY | O_DIRECTORY);
	if (one < 0 || two < 0)
		err(1, "%s", dir);
	list_some(two, true);
	while (list_some(one, false))
		;
	while (list_some(two, true))
		;
	close(one);
	close(two);
	all_seen(0);
	printf("bigdir: %lu entries, each once, and none that had gone\n", n);
}

static void remove_all(const char *dir)
{
	for_each(dir, remove_entry);
	if (rmdir(dir))
		err(1, "rmdir %s", dir);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: bigdir make|list|seek|turns|remove DIR N");
	n = strtoul(argv[3], NULL, 10);
	seen = calloc(n, 1);
	if (!seen)
		err(1, "calloc");
	if (!strcmp(argv[1], "make"))
		make(argv[2]);
	else if (!strcmp(argv[1], "list"))
		list(argv[2]);
	else if (!strcmp(argv[1], "seek"))
		seek(argv[2]);
	else if (!strcmp(argv[1], "turns"))
		turns(argv[2]);
	else
		remove_all(argv[2]);
	return 0;
}
