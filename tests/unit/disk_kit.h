/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A folder on a disk, for tests of what needs one: below the working directory, or /var/tmp
 * where that is memory. */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static char disk_kit_dir[64];

static inline const char *disk_kit_begin(void)
{
	struct statfs fs;

	strcpy(disk_kit_dir, "disk-XXXXXX");
	if (statfs(".", &fs) || fs.f_type == TMPFS_MAGIC)
		strcpy(disk_kit_dir, "/var/tmp/slicefs-disk-XXXXXX");
	char *made = mkdtemp(disk_kit_dir);
	assert(made);
	return made;
}

static inline void disk_kit_empty(const char *dir)
{
	DIR *d = opendir(dir);
	char path[1024];

	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= (int)sizeof(path))
			continue;
		if (unlink(path)) {
			disk_kit_empty(path);
			rmdir(path);
		}
	}
	if (d)
		closedir(d);
}

static inline void disk_kit_end(void)
{
	disk_kit_empty(disk_kit_dir);
	rmdir(disk_kit_dir);
}

/* The one whose name begins so; false: there is none. */
static inline bool disk_kit_find(const char *prefix, char *ret, size_t len)
{
	DIR *d = opendir(disk_kit_dir);
	bool found = false;

	for (struct dirent *e; d && !found && (e = readdir(d));) {
		found = !strncmp(e->d_name, prefix, strlen(prefix));
		if (found)
			found = snprintf(ret, len, "%s/%s", disk_kit_dir, e->d_name) < (int)len;
	}
	if (d)
		closedir(d);
	return found;
}
