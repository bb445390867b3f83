/* SPDX-License-Identifier: Apache-2.0 */
/*
 * races DIR SECONDS: some processes make, remove, link, rename and exchange a few
 * names all the time, others use those names. A name that has just gone is ENOENT;
 * what no local file system says (ESTALE, EIO, ...) fails. Prints what was said.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MAKERS = 2, USERS = 4, ERRNOS = 140, BYTES = 6000 };

static const char *const names[] = { "a", "b", "d/a", "d/b", "d", "l" };
static char bytes[BYTES];
static unsigned seed;

static unsigned pick(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % n;
}

/* Mostly of a file. */
static const char *name(void)
{
	return names[pick(pick(8) ? 4 : sizeof(names) / sizeof(names[0]))];
}

static int closed(int fd)
{
	return fd < 0 ? -1 : close(fd);
}

/* Who changes names ----------------------------------------------------------------- */

static void make_file(const char *p)
{
	int fd = open(p, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		return;
	if (write(fd, bytes, pick(3) ? sizeof(bytes) : 10) < 0)
		err(1, "write");
	close(fd);
}

static void change(void)
{
	const char *p = name(), *q = name();

	switch (pick(12)) {
	case 0:
		mkdir("d", 0755);
		break;
	case 1:
		rmdir(p);
		break;
	case 2:
		rename(p, q);
		break;
	case 3:
		renameat2(AT_FDCWD, p, AT_FDCWD, q, RENAME_EXCHANGE);
		break;
	case 4:
		link(p, q);
		break;
	case 5:
		symlink("a", "l");
		break;
	default:
		unlink(p);
		make_file(p);
	}
}

/* Who uses them --------------------------------------------------------------------- */

static int use_stat(const char *p)
{
	struct stat st;

	return stat(p, &st);
}

static int use_lstat(const char *p)
{
	struct stat st;

	return lstat(p, &st);
}

static int use_open(const char *p)
{
	int fd = open(p, O_RDONLY);
	char buf[BYTES];

	if (fd < 0)
		return -1;
	/* What was opened stays whole. */
	if (read(fd, buf, sizeof(buf)) < 0 && errno != EISDIR)
		err(1, "read %s", p);
	return close(fd);
}

static int use_write(const char *p)
{
	int fd = open(p, O_WRONLY);

	if (fd >= 0 && pwrite(fd, "w", 1, pick(BYTES) ? 0 : BYTES - 1) != 1)
		err(1, "write %s", p);
	return closed(fd);
}

static int use_trunc(const char *p)
{
	return closed(open(p, O_RDWR | O_TRUNC));
}

static int use_creat(const char *p)
{
	return closed(open(p, O_RDWR | O_CREAT, 0644));
}

static int use_truncate(const char *p)
{
	return truncate(p, 1);
}

static int use_opendir(const char *p)
{
	return closed(open(p, O_RDONLY | O_DIRECTORY));
}

static int use_chmod(const char *p)
{
	return chmod(p, 0644 + (pick(2) ? 0111 : 0));
}

static int use_chown(const char *p)
{
	return lchown(p, pick(3), pick(3));
}

static int use_utimes(const char *p)
{
	return utimensat(AT_FDCWD, p, NULL, 0);
}

static int use_access(const char *p)
{
	return access(p, R_OK);
}

static int use_readlink(const char *p)
{
	char buf[100];

	return readlink(p, buf, sizeof(buf)) < 0 ? -1 : 0;
}

static int use_getxattr(const char *p)
{
	char buf[100];

	return getxattr(p, "user.r", buf, sizeof(buf)) < 0 ? -1 : 0;
}

static int use_setxattr(const char *p)
{
	return setxattr(p, "user.r", "v", 1, 0);
}

static int use_removexattr(const char *p)
{
	return removexattr(p, "user.r");
}

static int use_listxattr(const char *p)
{
	char buf[100];

	return listxattr(p, buf, sizeof(buf)) < 0 ? -1 : 0;
}

static int use_link(const char *p)
{
	return link(p, name());
}

static int use_unlink(const char *p)
{
	return pick(2) ? unlink(p) : rmdir(p);
}

static int use_rename(const char *p)
{
	return rename(p, name());
}

static int use_symlink(const char *p)
{
	return symlink("a", p);
}

static int use_mknod(const char *p)
{
	return mknod(p, S_IFREG | 0644, 0);
}

/* The path in two steps: what the first one found is used by the second. */
static int use_o_path(const char *p)
{
	int fd = open(p, O_PATH | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		err(1, "fstat %s", p);
	return close(fd);
}

static const struct use {
	const char *name;
	int (*fn)(const char *p);
	int may[4]; /* beside ENOENT, ENOTDIR, EISDIR, ELOOP */
} uses[] = {
	{ "stat", use_stat, { 0 } },
	{ "lstat", use_lstat, { 0 } },
	{ "open", use_open, { 0 } },
	{ "open to write", use_write, { 0 } },
	{ "open O_TRUNC", use_trunc, { 0 } },
	{ "open O_CREAT", use_creat, { 0 } },
	{ "open O_DIRECTORY", use_opendir, { 0 } },
	{ "open O_PATH", use_o_path, { 0 } },
	{ "truncate", use_truncate, { 0 } },
	{ "chmod", use_chmod, { 0 } },
	{ "chown", use_chown, { 0 } },
	{ "utimes", use_utimes, { 0 } },
	{ "access", use_access, { 0 } },
	{ "readlink", use_readlink, { EINVAL } },
	{ "getxattr", use_getxattr, { ENODATA } },
	{ "setxattr", use_setxattr, { 0 } },
	{ "removexattr", use_removexattr, { ENODATA } },
	{ "listxattr", use_listxattr, { 0 } },
	{ "link", use_link, { EEXIST, EPERM } },
	{ "unlink", use_unlink, { ENOTEMPTY } },
	{ "rename", use_rename, { EEXIST, ENOTEMPTY, EINVAL } },
	{ "symlink", use_symlink, { EEXIST } },
	{ "mknod", use_mknod, { EEXIST } },
};

enum { NUSES = sizeof(uses) / sizeof(uses[0]) };

static unsigned (*said)[ERRNOS]; /* shared: how often, by use and errno */

static bool fine(const struct use *u, int e)
{
	if (e == 0 || e == ENOENT || e == ENOTDIR || e == EISDIR || e == ELOOP)
		return true;
	for (unsigned i = 0; i < sizeof(u->may) / sizeof(u->may[0]); i++)
		if (u->may[i] == e)
			return true;
	return false;
}

static void work(unsigned who, time_t end)
{
	seed = (unsigned)time(NULL) * 31 + who;
	while (time(NULL) < end) {
		if (who < MAKERS) {
			change();
			continue;
		}
		unsigned u = pick(NUSES);
		int e = uses[u].fn(name()) < 0 ? errno : 0;
		__atomic_add_fetch(&said[u][e % ERRNOS], 1, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static int report(void)
{
	int bad = 0;

	for (unsigned u = 0; u < NUSES; u++) {
		printf("%-16s", uses[u].name);
		for (int e = 0; e < ERRNOS; e++) {
			if (!said[u][e])
				continue;
			printf(" %s%s %u", fine(&uses[u], e) ? "" : "WRONG ",
			       e ? strerrorname_np(e) : "done", said[u][e]);
			bad |= !fine(&uses[u], e);
		}
		putchar('\n');
	}
	return bad;
}

int main(int argc, char **argv)
{
	int status, bad = 0;

	if (argc != 3)
		errx(2, "usage: races DIR SECONDS");
	if (chdir(argv[1]) < 0)
		err(2, "%s", argv[1]);
	said = mmap(NULL, sizeof(*said) * NUSES, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (said == MAP_FAILED)
		err(2, "mmap");
	memset(bytes, 'r', sizeof(bytes));
	time_t end = time(NULL) + strtol(argv[2], NULL, 10);
	for (unsigned i = 0; i < MAKERS + USERS; i++)
		if (fork() == 0)
			work(i, end);
	while (wait(&status) > 0)
		bad |= status;
	return report() || bad;
}
