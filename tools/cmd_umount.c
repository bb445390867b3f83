/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs umount: unmounts, waits until the daemon has let go of its store, and
 * gives the store's memory back if asked to. Pool and index stay otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "engine/engine.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/stores.h"

enum { LET_GO_MS = 15000, SAID_BYTES = 512 };

struct umount_opts {
	int discard, abort, lazy;
};

void cmd_umount_help(void)
{
	printf("  --discard  give the store's memory back: its objects are gone\n"
	       "  --abort    end the connection first: a stuck daemon cannot hold it up\n"
	       "  --lazy     detach now, end when nobody uses it any more\n");
}

/* Runs it; what it says goes to said. Its status, or negative errno. */
static int run_fusermount(const char *dir, bool lazy, char said[SAID_BYTES])
{
	int fds[2], status;
	size_t n = 0;
	ssize_t got;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	_cleanup_(closep) int in = fds[0];
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", dir,
		       (char *)NULL);
		dprintf(STDERR_FILENO, "fusermount3: %s", strerror(errno));
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0)
		return -errno;
	while (n < SAID_BYTES - 1 && (got = read(in, said + n, SAID_BYTES - 1 - n)) > 0)
		n += (size_t)got;
	said[n] = '\0';
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* 0, negative errno, or 1 with the reason in said. */
static int by_fusermount(const struct mount_line *m, bool lazy, char said[SAID_BYTES])
{
	int r = m->uid == getuid() ? run_fusermount(m->dir, lazy, said) : -EPERM;

	if (r <= 0)
		return r;
	said[strcspn(said, "\n")] = '\0';
	return strstr(said, strerror(EBUSY)) ? -EBUSY : 1;
}

static int detach(const struct mount_line *m, bool lazy, char said[SAID_BYTES])
{
	if (geteuid() != 0)
		return by_fusermount(m, lazy, said);
	return umount2(m->dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
}

/* The daemon keeps the store's lock until it has written what it had. */
static int wait_stopped(const char *dir, pid_t *ret_pid)
{
	struct store_stat st = { 0 };

	for (int ms = 0; ms < LET_GO_MS; ms += 10) {
		int r = engine_store_stat(dir, &st);
		if (r == -ENOENT || (r == 0 && st.state != STORE_RUNNING))
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
	}
	*ret_pid = st.pid;
	return -ETIMEDOUT;
}

static int fail_detach(const char *dir, int err, const char *said)
{
	if (err > 0)
		return cmd_fail(EXIT_FAILED, "umount", "%s: %s. Try: sudo slicefs umount %s", dir,
				said, dir);
	if (err == -EBUSY)
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: busy: a process has a file or its working directory in "
				"it, or there is a mount below it. Try: fuser -vm %s; or: "
				"slicefs umount --lazy %s",
				dir, dir, dir);
	if (err == -EPERM)
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: not permitted: it was mounted by another user. Try: sudo "
				"slicefs umount %s", dir, dir);
	return cmd_fail(EXIT_FAILED, "umount", "%s: %s", dir, strerror(-err));
}

static int discard(const char *name, const char *store)
{
	int r = engine_store_remove(store, true);

	if (r < 0 && r != -ENOENT)
		return cmd_fail(EXIT_FAILED, "umount",
				"store %s is still there: %s. Try: slicefs store rm %s", name,
				strerror(-r), name);
	return EXIT_DONE;
}

/* A node's store, where a directory was to be named? */
static bool is_served(const char *name, struct store_stat *ret)
{
	char dir[PATH_MAX];

	if (!stores_name_ok(name))
		return false;
	stores_dir(name, dir);
	return engine_store_stat(dir, ret) == 0 && *ret->serves;
}

static int umount_one(const char *arg, const struct umount_opts *o)
{
	char dir[PATH_MAX], store[PATH_MAX], said[SAID_BYTES];
	struct mount_line m;
	struct store_stat st;
	pid_t pid;
	int r = mounts_canonical(arg, dir);

	if (r < 0)
		return cmd_fail(EXIT_FAILED, "umount", "%s: %s", arg, strerror(-r));
	if (!mounts_find(dir, &m) && is_served(arg, &st))
		return cmd_fail(EXIT_FAILED, "umount", "%s: no mount, but a store that process %d "
				"serves at %s. Try: kill %d, which ends it in order", arg,
				(int)st.pid, st.serves, (int)st.pid);
	if (!mounts_find(dir, &m))
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: no slicefs is mounted there. Try: slicefs status", dir);
	if (o->discard && !stores_name_ok(m.source))
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: its store is that of node %s, and stays. Try: slicefs umount %s",
				dir, m.source, dir);
	if (o->discard && m.uid != geteuid())
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: its store is user %u's. Try: slicefs umount %s; then, as "
				"that user: slicefs store rm %s", dir, m.uid, dir, m.source);
	if (o->abort) {
		r = mounts_abort(&m);
		if (r < 0)
			return cmd_fail(EXIT_FAILED, "umount",
					"%s: cannot abort connection %u: %s. Try as root", dir,
					m.minor, strerror(-r));
	}
	r = detach(&m, o->lazy || o->abort, said);
	if (r)
		return fail_detach(dir, r, said);
	if (m.uid != geteuid() || !stores_name_ok(m.source))
		return EXIT_DONE;
	stores_dir(m.source, store);
	if (!o->lazy && wait_stopped(store, &pid) < 0)
		return cmd_fail(EXIT_FAILED, "umount",
				"%s: unmounted, but its daemon has not ended after %d s; what "
				"was published is safe. Try: kill -9 %d", dir, LET_GO_MS / 1000,
				(int)pid);
	return o->discard ? discard(m.source, store) : EXIT_DONE;
}

int cmd_umount(int argc, char **argv)
{
	struct umount_opts o = { 0 };
	const struct option longs[] = {
		{ "discard", no_argument, &o.discard, 1 },
		{ "abort", no_argument, &o.abort, 1 },
		{ "lazy", no_argument, &o.lazy, 1 },
		{ 0 },
	};
	int c, status = EXIT_DONE;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (c == '?')
			return cmd_bad_option("umount", argv);
	if (optind == argc)
		return cmd_usage("umount", "which directory?");
	if (o.discard && o.lazy)
		return cmd_usage("umount", "--discard needs the daemon's end, --lazy does not "
					   "wait for it: give one of them");
	for (int i = optind; i < argc; i++) {
		int s = umount_one(argv[i], &o);
		status = s ? s : status;
	}
	return status;
}
