/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What /proc/self/mountinfo says of slicefs mounts. */
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/bytes.h"

struct mount_line {
	unsigned major, minor;  /* of st_dev: minor names the FUSE connection */
	char dir[PATH_MAX];
	char type[64];          /* "fuse.slicefs" */
	char source[256];
	uid_t uid;              /* who mounted it */
};

/* Calls fn for each slicefs mount, in the order of mounting, until it returns
 * non-zero; that, 0, or negative errno. */
int mounts_each(int (*fn)(const struct mount_line *m, void *arg), void *arg);

/* The topmost slicefs mount at exactly this path (canonical). false: none. */
bool mounts_find(const char *dir, struct mount_line *ret);

/* Is what is on this device (st_dev) in a slicefs mount? */
bool mounts_is_device(dev_t dev);

/* Makes dir absolute and canonical without touching its last component (which
 * may be a dead mount). 0 or negative errno. */
int mounts_canonical(const char *dir, char ret[PATH_MAX]);

/* Is the mount dead: its daemon gone (ENOTCONN)? Asks in a child process for at
 * most timeout_ms: 1 dead, 0 answers, -ETIMEDOUT. */
int mounts_is_dead(const char *dir, unsigned timeout_ms);

/* 0 once a statfs of dir was answered by a slicefs; negative errno; never hangs
 * for longer than timeout_ms (-ETIMEDOUT). */
int mounts_probe(const char *dir, unsigned timeout_ms);

/* Appends the text of a control file ("stats", "config", ...) of the mount at dir
 * to w. 0, -ETIMEDOUT, or what open or read said. */
int mounts_read_control(const char *dir, const char *file, unsigned timeout_ms,
			struct writer *w);

/* The same for what the cache knows of the object at path, as JSON. -ENODATA, -EOPNOTSUPP: it is in
 * no slicefs mount; -ENOSYS: in one with --no-xattrs. */
int mounts_read_layout(const char *path, unsigned timeout_ms, struct writer *w);

/* Opens it, for who stays with it: in this process, which waits as long as the mount does
 * (mounts_probe() first). A descriptor, or negative errno. */
int mounts_open_control(const char *dir, const char *file, int flags);

/* For who wants to do that later, by writing something: a descriptor, or negative errno. */
int mounts_open_abort(const struct mount_line *m);
/* Ends the FUSE connection by force: all calls on it fail. */
int mounts_abort(const struct mount_line *m);
