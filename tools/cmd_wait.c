/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs wait: until names are published, by whomever. A name of which the parents are
 * not there either is waited for from the top: the first of its names that is missing,
 * then the next one.
 *
 * In a mount the daemon waits (FS_WAIT, fs/fs.h): it knows what is published from what
 * somebody writes yet, and a bell rings for it. At a node this process has a session, and
 * such a bell, of its own. A bell may fail to ring, and what has been looked at may be
 * another thing by now: so each path is looked at from its beginning every LOOK_MS.
 *
 * Nothing here calls into a mount, or to a node, but child processes: who of them does not
 * come back in time is left alone. They end with this one.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "fs/fs.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/mounts.h"

enum {
	EXIT_LATE = 124, /* as timeout(1) */
	LOOK_MS = 1000,
	GRACE_MS = 1000, /* for the child to say that it is late */
};

struct waiter {
	struct client c;
	char *said;        /* the user's word for how long */
	uint64_t until_ns; /* 0: for ever */
};

void cmd_wait_help(void)
{
	printf("  --timeout SECONDS  for so long at most: 10, 0.5, 500ms, 2m, 1h (for ever)\n"
	       "  --token-file PATH  a node's token: a file that only its owner can read\n"
	       "\nPATH is a name in a mount, or HOST:/PATH on a node. The status is 0 when all\n"
	       "are published, 124 if that takes too long. What is being written yet is not.\n");
}

static int late(const struct waiter *w, const char *path)
{
	return cmd_fail(EXIT_LATE, "wait", "%s: not published within %s", path, w->said);
}

static bool is_late(const struct waiter *w)
{
	return w->until_ns && clock_ns() >= w->until_ns;
}

/* The end of the next look, which is not beyond the time that there is. */
static uint64_t next_ns(const struct waiter *w)
{
	uint64_t ns = clock_ns() + LOOK_MS * NS_PER_MS;

	return w->until_ns && w->until_ns < ns ? w->until_ns : ns;
}

/* "a/b" of "a/b//c": returns its length, and where "c" begins. 0: there is no slash, or
 * it is the root's. */
static size_t parent_of(const char *path, size_t len, size_t *ret_name)
{
	while (len && path[len - 1] != '/')
		len--;
	*ret_name = len;
	while (len && path[len - 1] == '/')
		len--;
	return len;
}

static size_t without_slashes(const char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	return len;
}

/* ---- In a mount ---------------------------------------------------------------- */

/* The first name of a path that is missing, or its last one, in the directory fd. */
struct missing {
	int fd;
	size_t from, to; /* of the name, in the path */
};

static int find_missing(const char *path, struct missing *ret)
{
	size_t end = without_slashes(path), from;

	for (;;) {
		size_t len = parent_of(path, end, &from);
		_cleanup_(freep) char *dir = len ? strndup(path, len) : strdup(from ? "/" : ".");
		int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (fd >= 0) {
			*ret = (struct missing){ fd, from, end };
			return 0;
		}
		if (!dir || errno != ENOENT || !len)
			return dir ? -errno : -ENOMEM;
		end = len;
	}
}

/* 0, or a negative errno: as FS_WAIT, until then. */
static int wait_in(int fd, const char *name, size_t len, uint64_t until_ns)
{
	struct fs_wait asked = { 0 };
	uint64_t now = clock_ns();

	if (len >= sizeof(asked.name))
		return -ENAMETOOLONG;
	memcpy(asked.name, name, len);
	asked.timeout_ms = until_ns > now ? (uint32_t)((until_ns - now) / NS_PER_MS) + 1 : 0;
	return ioctl(fd, FS_WAIT, &asked) < 0 ? -errno : 0;
}

static void sleep_until(uint64_t ns)
{
	const struct timespec t = clock_timespec(ns);

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

enum { GO_ON = -1 }; /* no exit status */

static int fail_here(const char *path, int err)
{
	if (err == -ENOTCONN || err == -ECONNABORTED)
		return cmd_fail(EXIT_FAILED, "wait", "%s: its mount is gone. Try: slicefs status",
				path);
	if (err == -ENOTTY || err == -ENOSYS)
		return cmd_fail(EXIT_FAILED, "wait", "%s: nothing is published there, or its mount "
				"is of an older slicefs", path);
	return cmd_fail(EXIT_FAILED, "wait", "%s: %s", path, error_text(err));
}

static bool is_mount(const char *path)
{
	struct stat st;

	return !stat(path, &st) && mounts_is_device(st.st_dev);
}

static bool is_dots(const char *name, size_t len)
{
	return !strncmp(name, "..", len) && len <= 2;
}

/* One look at the path, for a while. An exit status, or GO_ON. *seen: up to where it was
 * there the last time. */
static int look_here(const struct waiter *w, const char *path, size_t *seen)
{
	uint64_t until = next_ns(w);
	struct missing m = { .fd = -1 };
	struct stat st;
	int r = find_missing(path, &m);

	if (r < 0)
		return r == -ESTALE ? GO_ON : fail_here(path, r);
	_cleanup_(closep) int fd = m.fd;
	bool last = m.to == without_slashes(path);
	if (fstat(fd, &st) < 0)
		return fail_here(path, -errno);
	if (last && (m.from == m.to || is_dots(path + m.from, m.to - m.from) ||
		     !mounts_is_device(st.st_dev)))
		return is_mount(path) ? EXIT_DONE : EXIT_USAGE;
	if (!mounts_is_device(st.st_dev))
		return EXIT_USAGE;
	r = wait_in(fd, path + m.from, m.to - m.from, until);
	if (!r && last)
		return EXIT_DONE;
	if (r && r != -ETIMEDOUT && r != -EINTR && r != -ESTALE)
		return fail_here(path, r);
	/* There, and nothing can be looked up in it: a link that leads nowhere, say. Or
	 * the daemon has no room for one more who waits. */
	if (r ? r != -EINTR : m.to == *seen)
		sleep_until(until);
	*seen = r ? 0 : m.to;
	return GO_ON;
}

static int wait_here(const struct waiter *w, const char *path)
{
	size_t seen = 0;
	int status;

	while ((status = look_here(w, path, &seen)) == GO_ON)
		if (is_late(w))
			return late(w, path);
	if (status == EXIT_USAGE)
		cmd_fail(EXIT_USAGE, "wait", "%s: is in no slicefs mount. Try: slicefs status, or "
			 "HOST:/PATH for one of a node", path);
	return status;
}

/* ---- At a node ----------------------------------------------------------------- */

static void ring(void *arg)
{
	sem_post(arg);
}

/* As find_missing(): is_there, or the first name that is not. */
static int find_there(struct client *c, const char *path, struct found *ret)
{
	_cleanup_(freep) char *p = strndup(path, without_slashes(path));
	size_t end = p ? strlen(p) : 0, from;
	int r = p ? -ENOENT : -ENOMEM;

	for (bool last = true; r == -ENOENT && end; last = false) {
		r = client_find(c, INDEX_ROOT, p, false, ret);
		if (!r && ret->is_there && !last) /* it has come meanwhile */
			ret->is_there = false;
		end = parent_of(p, end, &from);
		p[end ? end : 1] = '\0';
	}
	return r;
}

static int wait_ring(const struct waiter *w, sem_t *bell)
{
	const struct timespec t = clock_timespec(next_ns(w));

	return sem_clockwait(bell, CLOCK_MONOTONIC, &t) < 0 ? -errno : 0;
}

/* Until it rings for the name that is missing, or for a while. 0, or a negative errno. */
static int wait_name(struct waiter *w, const char *path, struct found *at)
{
	struct index_watch watch = { 0 };
	struct found was = *at;
	sem_t bell;

	sem_init(&bell, 0, 0);
	int r = index_watch_name(w->c.ix, at->parent, at->name, ring, &bell, &watch);
	/* Before it could ring it may have come. */
	if (!r)
		r = find_there(&w->c, path, at);
	if (!r && !at->is_there && at->parent == was.parent && !strcmp(at->name, was.name))
		wait_ring(w, &bell);
	index_unwatch(w->c.ix, &watch);
	sem_destroy(&bell);
	return r;
}

static int wait_at_node(struct waiter *w, const char *path, const char *shown)
{
	struct found at;

	for (;;) {
		int r = find_there(&w->c, path, &at);
		if (!r && at.is_there)
			return EXIT_DONE;
		if (!r && is_late(w))
			return late(w, shown);
		if (!r)
			r = wait_name(w, path, &at);
		if (r < 0)
			return client_fail(&w->c, r, shown);
	}
}

/* ---- The command ---------------------------------------------------------------- */

/* Seconds, unless it says otherwise. */
static int take_time(struct waiter *w)
{
	static const struct { const char *unit; double s; } units[] = {
		{ "", 1 }, { "s", 1 }, { "ms", 0.001 }, { "m", 60 }, { "h", 3600 },
		{ "d", 86400 },
	};
	char *end;
	double n = strtod(optarg, &end);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		double ns = n * units[i].s * NS_PER_S;
		if (end == optarg || strcmp(end, units[i].unit) || !isfinite(n) || n < 0 || ns > 1e18)
			continue;
		w->until_ns = clock_ns() + (uint64_t)ns;
		free(w->said);
		if (asprintf(&w->said, "%s%s", optarg, *end ? "" : " s") >= 0)
			return EXIT_DONE;
		w->said = NULL;
		return cmd_fail(EXIT_FAILED, "wait", "%s", error_text(-ENOMEM));
	}
	return cmd_usage("wait", "--timeout \"%s\": seconds, as in 10, 0.5, 500ms or 2m", optarg);
}

static int parse(struct waiter *w, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "timeout", required_argument, NULL, 't' },
		{ "token-file", required_argument, NULL, CLIENT_TOKEN }, { 0 },
	};
	int option, status = EXIT_DONE;

	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":", longs, NULL)) != -1)
		status = option == 't' ? take_time(w) : client_option(&w->c, option, argv);
	if (!status && optind == argc)
		return cmd_usage("wait", "for which path?");
	return status;
}

/* Those of all words that are at the node. */
static int wait_remote(struct waiter *w, char **words, int n)
{
	int status = client_open(&w->c);

	if (status)
		return status;
	for (int i = 0; i < n && !status; i++)
		if (client_is_remote(words[i]))
			status = wait_at_node(w, strchr(words[i], '/'), words[i]);
	client_close(&w->c);
	return status;
}

/* The status of the child, or EXIT_LATE: it is stuck in the mount, or at the node. */
static int await_child(const struct waiter *w, pid_t pid, const char *path)
{
	_cleanup_(closep) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	uint64_t until = w->until_ns + GRACE_MS * NS_PER_MS, now;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int status, n = 0;

	while (w->until_ns && n <= 0 && (now = clock_ns()) < until)
		n = poll(&p, 1, (int)((until - now) / NS_PER_MS % INT_MAX) + 1);
	if (w->until_ns && n <= 0) {
		kill(pid, SIGKILL); /* and not waited for: that would hang as it does */
		return late(w, path);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
}

/* The first of n words, if that is in a mount, or all at the node. */
static int wait_in_child(struct waiter *w, char **words, int n)
{
	pid_t self = getpid(), pid = fork();

	if (pid < 0)
		return fail_here(*words, -errno);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(EXIT_FAILED);
		_exit(client_is_remote(*words) ? wait_remote(w, words, n) : wait_here(w, *words));
	}
	return await_child(w, pid, *words);
}

static int wait_all(struct waiter *w, char **words, int n)
{
	const char *path;
	int first = -1, status = EXIT_DONE;

	for (int i = 0; i < n && !status; i++)
		if (client_is_remote(words[i])) {
			first = first < 0 ? i : first;
			status = client_take(&w->c, words[i], &path);
		}
	for (int i = 0; i < n && !status; i++)
		if (!client_is_remote(words[i]))
			status = wait_in_child(w, words + i, 1);
	return !status && first >= 0 ? wait_in_child(w, words + first, n - first) : status;
}

int cmd_wait(int argc, char **argv)
{
	struct waiter w = { 0 };

	client_init(&w.c, "wait", true);
	int status = parse(&w, argc, argv);
	if (!status)
		status = wait_all(&w, argv + optind, argc - optind);
	free(w.said);
	return status;
}
