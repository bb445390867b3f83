/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A file that is locked while a process uses a store, with its pid in it. */
#include <stdbool.h>
#include <sys/types.h>

/* Held until *ret_fd is closed. -EBUSY: somebody has it (*ret_pid, 0: he has not
 * said so yet). -ENOENT: there is none and it was not to be made. */
int lockfile_take(const char *path, bool create, int *ret_fd, pid_t *ret_pid);

/* Of an open lock file, without touching it. */
bool lockfile_is_taken(int fd);
pid_t lockfile_pid(int fd);
