/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>

/*
 * A process beside a mount's daemon, `slicefs guard`, which ends the FUSE connection when the daemon
 * has been killed. The kernel does so when the last descriptor of /dev/fuse is closed; but a thread of
 * the daemon that waits in the kernel for a lock (of the directory of which it was telling that a
 * name is gone) keeps them open, and who has that lock may wait for an answer of the daemon,
 * which never comes.
 */

/* Of the mount at dir, which is canonical. Call it from the main thread: when that has gone, the daemon
 * has. -EACCES, -ENOENT, ...: there is none, and all else is as without it. */
int guard_begin(const char *dir);
/* The process itself: main()'s arguments, if these are one's. True: *ret_status is its exit status. */
bool guard_main(int argc, char **argv, int *ret_status);
