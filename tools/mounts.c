/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount whose daemon is gone or stuck must not stop the tool that is to mend
 * it: nothing here touches a mount but in a child process with a time limit.
 */
#include "tools/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to = *s;
		}
	}
	*to = '\0';
}

static bool parse_line(const char *line, struct mount_line *m)
{
	const char *tail = strstr(line, " - ");
	const char *uid = tail ? strstr(tail, "user_id=") : NULL;

	m->uid = uid ? (uid_t)strtoul(uid + strlen("user_id="), NULL, 10) : 0;
	if (!tail ||
	    sscanf(line, "%*d %*d %u:%u %*s %4095s", &m->major, &m->minor, m->dir) != 3 ||
	    sscanf(tail, " - %63s %255s", m->type, m->source) != 2)
		return false;
	unescape(m->dir);
	unescape(m->source);
	return !strcmp(m->type, "fuse.slicefs");
}

int mounts_each(int (*fn)(const struct mount_line *m, void *arg), void *arg)
{
	_cleanup_(fclosep) FILE *f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return -errno;
	_cleanup_(freep) char *line = NULL;
	size_t cap = 0;

	while (getline(&line, &cap, f) > 0) {
		struct mount_line m;
		if (!parse_line(line, &m))
			continue;
		int r = fn(&m, arg);
		if (r)
			return r;
	}
	return 0;
}

struct wanted {
	const char *dir;
	struct mount_line *found;
	bool any;
};

static int take_if_wanted(const struct mount_line *m, void *arg)
{
	struct wanted *w = arg;

	if (!strcmp(m->dir, w->dir)) {
		*w->found = *m;
		w->any = true;
	}
	return 0;
}

bool mounts_find(const char *dir, struct mount_line *ret)
{
	struct mount_line m;
	struct wanted w = { .dir = dir, .found = &m };

	mounts_each(take_if_wanted, &w);
	if (w.any)
		*ret = m;
	return w.any;
}

static int is_device(const struct mount_line *m, void *arg)
{
	const dev_t *dev = arg;

	return m->major == major(*dev) && m->minor == minor(*dev);
}

bool mounts_is_device(dev_t dev)
{
	return mounts_each(is_device, &dev) > 0;
}

int mounts_canonical(const char *dir, char ret[PATH_MAX])
{
	char parent[PATH_MAX], copy[PATH_MAX], real[PATH_MAX];
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	if (n == 0 || n >= PATH_MAX)
		return n ? -ENAMETOOLONG : -ENOENT;
	memcpy(copy, dir, n);
	copy[n] = '\0';
	memcpy(parent, copy, n + 1);
	const char *base = basename(copy);
	if (!strcmp(base, "/") || !strcmp(base, ".") || !strcmp(base, "..")) {
		if (!realpath(parent, ret))
			return -errno;
		return 0;
	}
	/* Not lstat(): of a mount whose daemon is stuck it would wait. */
	if (readlink(parent, real, sizeof(real)) >= 0)
		return realpath(parent, ret) ? 0 : -errno;
	if (!realpath(dirname(parent), real))
		return -errno;
	int len = snprintf(ret, PATH_MAX, "%s/%s", strcmp(real, "/") ? real : "", base);
	return len < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/*
 * What a child process is asked to do with a mount: it writes its answer to fd
 * and returns 0 or an errno, which becomes the last byte of the stream.
 */
typedef int child_fn(const char *dir, const char *file, int fd);

static void child(child_fn *fn, const char *dir, const char *file, int fd)
{
	unsigned char e = (unsigned char)fn(dir, file, fd);

	_exit(write(fd, &e, 1) == 1 ? 0 : 1);
}

/* Reads to the end of fd; -ETIMEDOUT if that takes longer than timeout_ms. */
static int drain(int fd, unsigned timeout_ms, struct writer *w)
{
	uint64_t until = clock_ns() + timeout_ms * NS_PER_MS;

	for (;;) {
		uint64_t now = clock_ns();
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (now >= until || poll(&p, 1, (int)((until - now) / 1000000) + 1) < 1)
			return -ETIMEDOUT;
		char buf[65536];
		ssize_t n = read(fd, buf, sizeof(buf));
		if (n < 0)
			return -errno;
		if (n == 0)
			return w->bad ? -ENOMEM : 0;
		write_bytes(w, buf, (size_t)n);
	}
}

/*
 * Runs fn in a child, and its output goes to w. A child that is stuck in the
 * kernel is killed and left to whoever outlives it: waiting for it would hang
 * as it does.
 */
static int in_child(child_fn *fn, const char *dir, const char *file, unsigned timeout_ms,
		    struct writer *w)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	_cleanup_(closep) int in = fds[0];
	pid_t pid = fork();
	if (pid == 0)
		child(fn, dir, file, fds[1]);
	close(fds[1]);
	if (pid < 0)
		return -errno;
	int r = drain(in, timeout_ms, w);
	if (r < 0 || w->len == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, WNOHANG);
		return r < 0 ? r : -EIO;
	}
	waitpid(pid, NULL, 0);
	w->len--;
	return -w->p[w->len];
}

static int statfs_of(const char *dir, const char *file, int fd)
{
	struct statfs st;

	(void)file;
	(void)fd;
	return statfs(dir, &st) < 0 ? errno : 0;
}

int mounts_probe(const char *dir, unsigned timeout_ms)
{
	struct writer w = { 0 };
	int r = in_child(statfs_of, dir, NULL, timeout_ms, &w);

	writer_fini(&w);
	return r;
}

int mounts_is_dead(const char *dir, unsigned timeout_ms)
{
	int r = mounts_probe(dir, timeout_ms);

	if (r == -ENOTCONN || r == -ECONNABORTED)
		return 1;
	return r == -ETIMEDOUT ? r : 0;
}

/* The control directory's name can be chosen at mount; the root tells it, but with --no-xattrs: then
 * it is looked for by the name that it has unless one was chosen. What has that may be anybody's: no
 * link is followed. */
int mounts_open_control(const char *dir, const char *file, int flags)
{
	char name[256] = ".slicefs", path[PATH_MAX];
	ssize_t n = lgetxattr(dir, "slicefs.control", name, sizeof(name) - 1);

	if (n < 0 && errno != EOPNOTSUPP)
		return -errno;
	if (n >= 0)
		name[n] = '\0';
	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	_cleanup_(closep) int at = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int fd = at < 0 ? -1 : openat(at, file, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int copy_layout(const char *path, const char *file, int fd)
{
	_cleanup_(freep) char *text = malloc(XATTR_SIZE_MAX);
	ssize_t n = text ? lgetxattr(path, "slicefs.layout", text, XATTR_SIZE_MAX) : -1;
	struct stat st;

	(void)file;
	if (n < 0 && errno == EOPNOTSUPP && !lstat(path, &st) && mounts_is_device(st.st_dev))
		return ENOSYS;
	if (n < 0)
		return errno;
	return write(fd, text, (size_t)n) == n ? 0 : EIO;
}

int mounts_read_layout(const char *path, unsigned timeout_ms, struct writer *w)
{
	return in_child(copy_layout, path, NULL, timeout_ms, w);
}

static int copy_control(const char *dir, const char *file, int fd)
{
	_cleanup_(closep) int in = mounts_open_control(dir, file, O_RDONLY);
	char buf[65536];
	ssize_t n;

	if (in < 0)
		return -in;
	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(fd, buf, (size_t)n) != n)
			return EIO;
	return n < 0 ? errno : 0;
}

int mounts_read_control(const char *dir, const char *file, unsigned timeout_ms,
			struct writer *w)
{
	return in_child(copy_control, dir, file, timeout_ms, w);
}

#define CONNECTIONS "/sys/fs/fuse/connections"

int mounts_open_abort(const struct mount_line *m)
{
	char path[64];

	snprintf(path, sizeof(path), CONNECTIONS "/%u/abort", m->minor);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	/* systemd mounts it at boot; where nobody did, we do. */
	if (fd < 0 && errno == ENOENT &&
	    mount("fusectl", CONNECTIONS, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
		fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int mounts_abort(const struct mount_line *m)
{
	_cleanup_(closep) int fd = mounts_open_abort(m);

	if (fd < 0)
		return fd;
	return write(fd, "1", 1) == 1 ? 0 : -errno;
}
