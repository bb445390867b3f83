/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The FUSE side: mounts a directory and serves it from an engine. This is fs/'s
 * public header. Only fs/ knows FUSE.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct engine;
struct fs;
struct keep;
struct fs_config; /* what .slicefs/config prints: common/config.h */

/*
 * An ioctl on a directory of a mount: waits until `name` in it is published, by whatever
 * mount. What somebody still writes is not, also on this mount. 0; ETIMEDOUT, after
 * timeout_ms or, where many wait, sooner; ESTALE: there is no such directory any more;
 * EINTR; ENOTTY: nothing can be published there.
 */
struct fs_wait {
	uint32_t timeout_ms; /* FS_WAIT_MS_MAX at most count */
	char name[260];      /* with its NUL */
};
#define FS_WAIT _IOW('s', 0x77, struct fs_wait)
enum { FS_WAIT_MS_MAX = 10000 };

struct fs_opts {
	const char *dir;        /* mount point, absolute, canonical */
	const char *source;     /* shown in /proc/mounts */
	const char *options;    /* "allow_other,ro,nosuid,...": mount(8)'s, checked;
				 * as root dev and suid unless it says otherwise */
	unsigned threads;       /* workers; 0: as many as cores, 2..8 */
	unsigned timeout_ms;    /* deadline of an op (P6) */
	bool read_only;
	bool xattrs;            /* off: ENOSYS, and the kernel asks once only */
	bool noatime;
	const char *config;     /* text of .slicefs/config; borrowed */
	const char *control;    /* name of the control directory, ".slicefs" */
	unsigned spin_us;       /* how long an idle worker polls before it sleeps */
	uint64_t direct_from_bytes; /* larger files are read past the page cache */
	uint64_t cache_ms;      /* how long names and attributes may be kept that other
				 * mounts can change; a mount that is alone keeps them */
	const struct keep *keep; /* of what is made, where its directory says nothing; or NULL */
};

/* The libfuse that runs, and the one that it was built with: that decides what is used. */
struct fs_library {
	const char *running; /* "3.14.0"; a constant */
	unsigned major, minor;
};
void fs_library(struct fs_library *ret);

/*
 * Mounts. The kernel may send requests from now on; fs_run() answers them.
 * On failure *ret_why is a sentence for the user, to be freed. -EACCES, -EPERM,
 * -ENODEV (no /dev/fuse), -ENOTCONN (a dead mount is in the way), -EINVAL.
 */
int fs_mount(struct engine *e, const struct fs_opts *o, struct fs **ret,
	     char **ret_why);

/*
 * fs_mount(), with the reason that fusermount3 gives on stderr when it refuses in
 * *ret_why. Stderr is the process's: whatever else is written there meanwhile is
 * written there in the end. For who has no other threads that write there.
 */
int fs_mount_told(struct engine *e, const struct fs_opts *o, struct fs **ret,
		  char **ret_why);

/* What can be wrong with dir, options and this machine, before anything is made:
 * 0, or as fs_mount(), which looks again. */
int fs_check(const struct fs_opts *o, char **ret_why);

/* Serves until unmounted or fs_stop(); returns when all requests are answered
 * and all files are closed. 0, or the negative errno that ended it. */
int fs_run(struct fs *fs);

/* Ends fs_run(). From any thread or a signal handler. */
void fs_stop(struct fs *fs);

/* Unmounts if that has not happened, frees. NULL is fine. */
void fs_free(struct fs *fs);
