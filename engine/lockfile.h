/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A file that is locked while a process uses a store, with a line in it: its pid, and,
 * if it serves the store to others, where.
 */
#include <stdbool.h>
#include <sys/types.h>

#define LOCKFILE_END_MS 10000

struct lockfile_owner {
	pid_t pid;       /* 0: he has not said so yet */
	char serves[64]; /* host:port, or "" */
	bool ends;       /* he has been killed, and the kernel is taking him away */
};

/* Held until *ret_fd is closed. -EBUSY: somebody has it (*ret_owner, which is set
 * then only); one that ends is waited for, LOCKFILE_END_MS at most. -ENOENT: there is none and
 * it was not to be made. */
int lockfile_take(const char *path, bool create, int *ret_fd, struct lockfile_owner *ret_owner);

/* By its owner. */
int lockfile_note(int fd, const char *serves);

/* Of an open lock file, without touching it. */
bool lockfile_is_taken(int fd);
struct lockfile_owner lockfile_owner(int fd);
