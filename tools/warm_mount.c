/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To a folder in a mount. A file gets its name while it is open yet: what is open is not
 * evicted, so that it cannot be gone by then; others see it when it is closed, which is
 * when it is published.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/carry.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/progress.h"
#include "tools/temps.h"
#include "tools/warm.h"

/* ---- What both kinds use ---------------------------------------------------------- */

static pthread_key_t buffers[2]; /* freed when their thread ends */
static bool have_buffers;

static void make_buffers(void)
{
	have_buffers = !pthread_key_create(&buffers[0], free) &&
		       !pthread_key_create(&buffers[1], free);
}

unsigned char *warm_buffer(unsigned which)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	void *made;

	pthread_once(&once, make_buffers);
	void *there = have_buffers ? pthread_getspecific(buffers[which]) : NULL;
	if (there || !have_buffers || posix_memalign(&made, 4096, WARM_LOT))
		return there;
	if (!pthread_setspecific(buffers[which], made))
		return made;
	free(made);
	return NULL;
}

ssize_t warm_read(int fd, unsigned char *to, size_t len, uint64_t off)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = pread(fd, to + at, len - at, (off_t)(off + at));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n)
			break;
		at += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)at;
}

/* Not what others than the user and his files' owners put there (labels, another file
 * system's), nor what is said to this cache. */
static bool is_kept(const char *name)
{
	static const char *const some[] = { "system.posix_acl_access", "system.posix_acl_default",
					    "security.capability" };

	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++)
		if (!strcmp(name, some[i]))
			return true;
	return (!strncmp(name, "user.", 5) && strncmp(name, "user.slicefs.", 13)) ||
	       !strncmp(name, "trusted.", 8);
}

static bool is_refused(int r)
{
	return r == -EPERM || r == -EACCES || r == -EOPNOTSUPP || r == -ENODATA;
}

int warm_xattrs(int fd, int (*set)(void *arg, const char *name, const void *value, size_t len),
		void *arg)
{
	char few[1024];
	ssize_t n = flistxattr(fd, few, sizeof(few));
	_cleanup_(freep) char *many = n < 0 && errno == ERANGE ? malloc(XATTR_LIST_MAX) : NULL;
	_cleanup_(freep) char *value = NULL;
	size_t number = 0, bytes = 0;
	int r = 0;

	if (many)
		n = flistxattr(fd, many, XATTR_LIST_MAX);
	if (n <= 0)
		return n < 0 && errno != EOPNOTSUPP && errno != ENOSYS ? -errno : 0;
	const char *names = many ? many : few;
	for (const char *p = names; p < names + n && (!r || is_refused(r)); p += strlen(p) + 1) {
		r = 0;
		if (!is_kept(p))
			continue;
		if (!value && !(value = malloc(XATTR_SIZE_MAX)))
			return -ENOMEM;
		ssize_t len = fgetxattr(fd, p, value, XATTR_SIZE_MAX);
		r = len < 0 ? -errno : set(arg, p, value, (size_t)len);
		bytes += strlen(p) + (len < 0 ? 0 : (size_t)len);
		number += !is_refused(r);
		if (r == -ENOSPC && (number > INDEX_XATTRS_MAX || bytes > INDEX_XATTRS_BYTES_MAX))
			r = -E2BIG; /* which is no want of room */
	}
	return is_refused(r) ? 0 : r;
}

const char *warm_error(int err)
{
	return err == -E2BIG ? "has more extended attributes than a file may have there" :
			       error_text(err);
}

/* ---- A mount ------------------------------------------------------------------------ */

static char *path_of(const struct warm_target *t, const struct warm_at *at)
{
	return *at->rel ? client_join(t->word, at->rel) : strdup(t->word);
}

static void say(struct warm_target *t, const struct warm_at *at, int err)
{
	_cleanup_(freep) char *path = path_of(t, at);

	cmd_fail(EXIT_FAILED, t->c->cmd, "%s: %s%s", path ? path : at->rel, warm_error(err),
		 err != -ENOSPC ? "" : ", and nothing is evicted. Try: slicefs status, "
				       "--evict-high 95 where it is mounted or served");
}

static int begin(struct warm_target *t, const struct stat *st, struct warm_at *ret)
{
	char real[PATH_MAX];
	struct stat there;
	bool fresh = stat(t->word, &there) < 0;
	int r = !fresh ? 0 : errno != ENOENT ? -errno : mounts_canonical(t->word, real);

	*ret = (struct warm_at){ .rel = "", .fresh = fresh };
	if (!r && fresh) {
		*strrchr(real, '/') = '\0';
		r = stat(*real ? real : "/", &there) < 0 ? -errno : 0;
	}
	if (!r && !S_ISDIR(there.st_mode))
		r = -ENOTDIR;
	if (!r && !mounts_is_device(there.st_dev))
		return cmd_fail(EXIT_USAGE, t->c->cmd, "%s: is in no slicefs mount. Try: slicefs "
				"status, or HOST:/PATH for a node", t->word);
	if (!r && fresh && !t->only_looks && mkdir(t->word, (st->st_mode & 0777) | 0700) < 0) {
		ret->fresh = false;
		r = errno == EEXIST ? 0 : -errno; /* another one has made it meanwhile */
	}
	if (!r)
		r = temps_watch(t->c->cmd);
	return r < 0 ? cmd_fail(EXIT_FAILED, t->c->cmd, "%s: %s%s", t->word, error_text(r),
				r == -ENOENT ? ". Try: mkdir -p" : "") : EXIT_DONE;
}

static void end(struct warm_target *t)
{
	(void)t;
}

static int look(struct warm_target *t, const struct warm_at *at, struct stat *ret)
{
	_cleanup_(freep) char *path = path_of(t, at);

	return !path ? -ENOMEM : lstat(path, ret) < 0 ? -errno : 0;
}

static int same(struct warm_target *t, const struct warm_at *at, int fd, uint64_t size)
{
	_cleanup_(freep) char *path = path_of(t, at);
	unsigned char *a = warm_buffer(0), *b = warm_buffer(1);
	_cleanup_(closep) int there = path ? open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
	ssize_t n = 0;

	if (there < 0 || !a || !b)
		return path && a && b ? -errno : -ENOMEM;
	for (uint64_t off = 0; off < size; off += (uint64_t)n) {
		n = warm_read(fd, a, WARM_LOT, off);
		if (n < 0)
			return (int)n;
		if (!n || warm_read(there, b, WARM_LOT, off) != n || memcmp(a, b, (size_t)n))
			return 0;
	}
	return 1;
}

/* ---- A file -------------------------------------------------------------------------- */

static int write_full(int fd, const unsigned char *from, size_t len, uint64_t off)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = pwrite(fd, from + at, len - at, (off_t)(off + at));
		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* From off to end. */
static int pour_run(struct warm_target *t, int fd, int out, uint64_t off, uint64_t end_off,
		    bool *ret_local)
{
	unsigned char *buf = warm_buffer(0);
	int r = buf ? 0 : -ENOMEM;

	while (!r && off < end_off) {
		size_t len = end_off - off < WARM_LOT ? (size_t)(end_off - off) : WARM_LOT;
		ssize_t n = warm_read(fd, buf, len, off);
		*ret_local = n != (ssize_t)len;
		if (*ret_local)
			return n < 0 ? (int)n : -ESTALE;
		r = write_full(out, buf, len, off);
		progress_moved(t->progress, len);
		off += len;
	}
	return r;
}

static int pour(struct warm_target *t, int fd, int out, uint64_t size, bool *ret_local)
{
	uint64_t at = 0;
	int r = 0;

	for (uint64_t off = 0, end_off; !r && carry_next_run(fd, size, &off, &end_off); off = end_off) {
		r = pour_run(t, fd, out, off, end_off, ret_local);
		at = end_off;
	}
	return !r && at < size && ftruncate(out, (off_t)size) < 0 ? -errno : r; /* a hole */
}

static int set_one(void *arg, const char *name, const void *value, size_t len)
{
	const int *fd = arg;

	return fsetxattr(*fd, name, value, len, 0) < 0 ? -errno : 0;
}

static bool is_own(const struct stat *st)
{
	return st->st_uid == geteuid() && st->st_gid == getegid();
}

/* A new file may be made with these permissions. */
static bool is_plain(const struct warm_target *t, const struct stat *st)
{
	return !(st->st_mode & 07000) && (!t->s.owner || is_own(st));
}

static int dress(struct warm_target *t, int fd, int out, const struct stat *st)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	struct stat now;

	if (!is_plain(t, st) && t->s.owner && fchown(out, st->st_uid, st->st_gid) < 0)
		return -errno;
	if (fstat(out, &now) < 0) /* a default ACL of its folder says more than open() */
		return -errno;
	if ((now.st_mode ^ st->st_mode) & 07777 && fchmod(out, st->st_mode & 07777) < 0)
		return -errno;
	int r = warm_xattrs(fd, set_one, &out);
	return !r && futimens(out, times) < 0 ? -errno : r;
}

static int file(struct warm_target *t, const struct warm_at *at, int fd, const struct stat *st,
		const char *local)
{
	_cleanup_(freep) char *path = path_of(t, at);
	char *temp = NULL;
	bool is_local = false;
	int out = path ? temps_open(path, is_plain(t, st) ? st->st_mode & 0777 : 0600, &temp) :
			 -ENOMEM;
	int r = out < 0 ? out : pour(t, fd, out, (uint64_t)st->st_size, &is_local);

	if (!r)
		r = dress(t, fd, out, st);
	if (!r && send_has_changed(fd, st)) {
		is_local = true;
		r = -ESTALE;
	}
	if (!r) {
		r = temps_keep(temp, path);
		temp = NULL;
	}
	temps_drop(temp);
	if (out >= 0 && close(out) < 0 && !r)
		r = -errno;
	if (r < 0 && is_local)
		send_fail_here(&t->s, r, local);
	else if (r < 0)
		say(t, at, r);
	return r;
}

/* ---- The rest -------------------------------------------------------------------------- */

static int make_link(const char *as, const void *arg)
{
	return symlink(arg, as);
}

static int make_name(const char *as, const void *arg)
{
	return link(arg, as);
}

static int set_link(struct warm_target *t, const struct warm_at *at, const char *target,
		    const struct stat *st)
{
	_cleanup_(freep) char *path = path_of(t, at);
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	int r = path ? temps_make(path, make_link, target) : -ENOMEM;

	if (!r && t->s.owner && !is_own(st) && lchown(path, st->st_uid, st->st_gid) < 0)
		r = -errno;
	return !r && utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : r;
}

static int read_link(struct warm_target *t, const struct warm_at *at, char ret[PATH_MAX])
{
	_cleanup_(freep) char *path = path_of(t, at);
	ssize_t n = path ? readlink(path, ret, PATH_MAX - 1) : -1;

	if (n < 0)
		return path ? -errno : -ENOMEM;
	ret[n] = '\0';
	return 0;
}

static int set_name(struct warm_target *t, const struct warm_at *at, const struct warm_at *first)
{
	_cleanup_(freep) char *path = path_of(t, at);
	_cleanup_(freep) char *other = path_of(t, first);

	return path && other ? temps_make(path, make_name, other) : -ENOMEM;
}

/* Ours alone until all is in it, if it is one that we could not write into. */
static int folder(struct warm_target *t, const struct warm_at *at, const struct stat *st,
		  struct warm_at *ret)
{
	_cleanup_(freep) char *path = path_of(t, at);
	bool fresh = path && !mkdir(path, (st->st_mode & 0777) | 0700);
	int err = path ? errno : ENOMEM;
	struct stat there;

	if (!fresh && err != EEXIST)
		return -err;
	if (!fresh && lstat(path, &there) < 0) /* a link could lead out of the mount */
		return -errno;
	if (!fresh && !S_ISDIR(there.st_mode))
		return -ENOTDIR;
	ret->fresh = fresh;
	return 0;
}

static int attr(struct warm_target *t, const struct warm_at *at, const struct stat *st)
{
	_cleanup_(freep) char *path = path_of(t, at);
	const struct timespec times[2] = { st->st_atim, st->st_mtim };

	if (!path)
		return -ENOMEM;
	if (t->s.owner && lchown(path, st->st_uid, st->st_gid) < 0)
		return -errno;
	if (fchmodat(AT_FDCWD, path, st->st_mode & 07777, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_path(void *arg, const char *name, const void *value, size_t len)
{
	return lsetxattr(arg, name, value, len, 0) < 0 ? -errno : 0;
}

static int xattrs(struct warm_target *t, const struct warm_at *at, int fd)
{
	_cleanup_(freep) char *path = path_of(t, at);

	return path ? warm_xattrs(fd, set_path, path) : -ENOMEM;
}

const struct warm_ops warm_mount_ops = {
	begin, end, look, same, file, set_link, read_link, set_name, folder, attr, xattrs, say,
};
