/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where stores are: /run/slicefs/NAME for root, /dev/shm/slicefs-UID/NAME for
 * everybody else. A store's name is given, or derived from its directory.
 */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

enum { STORES_NAME_MAX = 64 };

/* 1..STORES_NAME_MAX of letters, digits, '.', '_', '-'; not beginning with '.' */
bool stores_name_ok(const char *name);

/* A name for a canonical directory: its path in legible form and a short hash. */
void stores_name_of_dir(const char *dir, char ret[STORES_NAME_MAX + 1]);

/* The folder that this user's stores are in. */
void stores_root(char *ret, size_t n);

/* The store's folder. */
void stores_dir(const char *name, char ret[PATH_MAX]);

/* Makes the root folder if missing: mode 0700, and really ours (not a link that
 * somebody else planted). Exit status; said under the name of the command. */
int stores_root_make(const char *cmd);

/* Calls fn(name, dir) for each store in the order of names until non-zero. */
int stores_each(int (*fn)(const char *name, const char *dir, void *arg), void *arg);
