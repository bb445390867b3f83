/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What must not be left behind by a command that ends before it is done: files under
 * temporary names. One thread waits for SIGINT, SIGTERM and SIGHUP, removes them, and
 * lets the signal end the process; it also ends the process where something that has no
 * time limit of its own takes too long.
 *
 * Threads: any, but for temps_watch(), which comes first, while there is one thread.
 */
#include <stdint.h>
#include <sys/types.h>

/* Signals are waited for from here on; SIGPIPE is ignored. `cmd`: whose messages. 0, or
 * a negative errno. */
int temps_watch(const char *cmd);

/* Makes a file beside `path`, of that mode less the umask, and opens it for writing only; its
 * name goes to *ret_name, to
 * be given to one of the next two. A descriptor, or a negative errno. */
int temps_open(const char *path, mode_t mode, char **ret_name);
/* It becomes `path`, whatever was there. Frees name. 0, or a negative errno: it is
 * gone. */
int temps_keep(char *name, const char *path);
void temps_drop(char *name); /* removes it, frees name; NULL is fine */

/* A name beside `path`, in its folder: ".path.PID-N.tmp". To be freed; NULL: no memory. */
char *temps_name(const char *path);

/* What make(as, arg) makes (0, or -1 and errno) becomes `path` at once, whatever was there but a
 * folder. 0, or a negative errno: it is gone. */
int temps_make(const char *path, int (*make)(const char *as, const void *arg), const void *arg);

/* Until temps_limit(0, NULL): if `ms` pass, the process ends with status 1 and this
 * sentence. */
void temps_limit(uint64_t ms, const char *sentence);

/* Removes what there is, and ends the process as it stands. */
_Noreturn void temps_exit(int status);
