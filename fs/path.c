/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the caller is at: a look-up says one name of a path, not which one of how many, nor
 * what for. His system call is in /proc/TID/syscall, with the addresses of its paths, and
 * these are in his memory. The thread waits for us, so the call stands still; a server in
 * the kernel is in none.
 *
 * Others may write to that memory: who is told something wrong by it has only himself to
 * blame. And reading it may take as long as he likes, where it has to be fetched from a
 * file system of his. So a thread does that (`fs-path`) for which nobody waits longer than
 * READ_MS; it needs nothing of ours and may outlive the mount. Of those there are READS_MAX
 * at most, then nothing can be found out until they are through.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "common/detached.h"
#include "fs/priv.h"

enum { READ_MS = 1000, READS_MAX = 16 };

/* The call ----------------------------------------------------------------------------- */

struct call {
	pid_t pid;
	long nr;
	uint64_t args[4];
};

static bool call_of(fuse_req_t f, struct call *ret)
{
	char name[40];

	*ret = (struct call){ .pid = fuse_req_ctx(f)->pid };
	snprintf(name, sizeof(name), "/proc/%ld/syscall", (long)ret->pid);
	_cleanup_(fclosep) FILE *file = fopen(name, "re");
	return file && fscanf(file, "%ld %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64, &ret->nr,
			      &ret->args[0], &ret->args[1], &ret->args[2], &ret->args[3]) == 5;
}

/* Which of its arguments is the path of what it makes; -1: it makes nothing. Not of open(2)
 * and rename(2), which the kernel has come back for that name, too. */
static int made_by(long nr)
{
	switch (nr) {
	case SYS_linkat:
		return 3;
	case SYS_symlinkat:
		return 2;
	case SYS_mkdirat:
	case SYS_mknodat:
		return 1;
#ifdef SYS_mkdir /* older architectures */
	case SYS_symlink:
	case SYS_link:
		return 1;
	case SYS_mkdir:
	case SYS_mknod:
		return 0;
#endif
	default:
		return -1;
	}
}

bool path_has_other(fuse_req_t f)
{
	struct call c;

	if (!call_of(f, &c))
		return false;
	switch (c.nr) {
	case SYS_linkat:
	case SYS_renameat2:
#ifdef SYS_renameat
	case SYS_renameat:
#endif
#ifdef SYS_rename
	case SYS_link:
	case SYS_rename:
#endif
		return true;
	default:
		return false;
	}
}

/* Its memory --------------------------------------------------------------------------- */

struct reading {
	struct detached detached; /* first: detached_start() */
	pid_t pid;
	uint64_t at[2]; /* of the first of these addresses at which there is any: the string */
	bool good;
	char text[PATH_MAX];
};

static atomic_uint readings;

static void *address(uint64_t at)
{
	return (void *)(uintptr_t)at;
}

/* A path ends within PATH_MAX bytes, and where the next page begins there may be nothing. */
static bool read_string(pid_t pid, uint64_t at, char text[PATH_MAX])
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), first = page - at % page;

	if (first > PATH_MAX)
		first = PATH_MAX;
	struct iovec to = { text, PATH_MAX };
	struct iovec from[] = {
		{ address(at), first },
		{ address(at + first), PATH_MAX - first },
	};
	ssize_t n = process_vm_readv(pid, &to, 1, from, 2, 0);
	return n > 0 && memchr(text, 0, (size_t)n);
}

static void read_it(struct detached *d)
{
	struct reading *r = (struct reading *)d;

	r->good = read_string(r->pid, r->at[0], r->text) ||
		  (r->at[1] && read_string(r->pid, r->at[1], r->text));
	atomic_fetch_sub(&readings, 1);
}

/* NULL: it could not be begun. */
static struct reading *reading_begin(pid_t pid, uint64_t at, uint64_t or_at)
{
	struct reading *r = atomic_fetch_add(&readings, 1) < READS_MAX ? calloc(1, sizeof(*r))
								       : NULL;

	if (r) {
		r->pid = pid;
		r->at[0] = at;
		r->at[1] = or_at;
		if (!detached_start(&r->detached, "fs-path", read_it))
			return r;
	}
	atomic_fetch_sub(&readings, 1);
	return NULL;
}

static bool path_is(pid_t pid, uint64_t at, uint64_t or_at, const char *name,
		    bool (*is)(const char *path, const char *name))
{
	struct reading *r = reading_begin(pid, at, or_at);

	if (!r)
		return false;
	bool yes = detached_wait(&r->detached, READ_MS) && r->good && is(r->text, name);
	detached_unref(&r->detached);
	return yes;
}

/* What it says ------------------------------------------------------------------------- */

static bool ends_with(const char *path, const char *name)
{
	size_t len = strlen(path), n = strlen(name);

	while (len && path[len - 1] == '/')
		len--;
	return len >= n && !memcmp(path + len - n, name, n) &&
	       (len == n || path[len - n - 1] == '/');
}

static bool begins_with(const char *path, const char *name)
{
	size_t n = strlen(name);

	while (!strncmp(path, "./", 2))
		for (path += 2; *path == '/';)
			path++;
	return !strncmp(path, name, n) && (!path[n] || path[n] == '/');
}

bool path_makes(fuse_req_t f, const char *name)
{
	struct call c;

	if (!call_of(f, &c))
		return false;
	int i = made_by(c.nr);
	return i >= 0 && path_is(c.pid, c.args[i], 0, name, ends_with);
}

/* The first path of a system call is its first argument, or the second after a descriptor. */
bool path_begins(fuse_req_t f, const char *name)
{
	struct call c;

	if (!call_of(f, &c))
		return false;
	int i = made_by(c.nr);
	return path_is(c.pid, c.args[0], c.args[1], name, begins_with) ||
	       (i > 1 && path_is(c.pid, c.args[i], 0, name, begins_with));
}
