/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Folders of a store and small texts in them. Names are of entries in `folder`. */
#include <stdbool.h>

/* "a/b" on the heap; NULL: no memory. */
char *folder_join(const char *a, const char *b);
bool folder_has(const char *folder, const char *name);

/* With all above it (0755), itself 0700. -EEXIST, -EACCES, ... */
int folder_make(char *path);

/* With the files in it; what is not a file stays, and is the error. None there is
 * no error. */
int folder_remove(const char *parent, const char *name);

/* Any entry whose name begins with prefix, on the heap. -ENOENT. */
int folder_find(const char *folder, const char *prefix, char **ret);

int folder_rename(const char *folder, const char *from, const char *to);

/* Replaces the file by one of that content, at once. */
int folder_write_text(const char *folder, const char *name, const char *text);
