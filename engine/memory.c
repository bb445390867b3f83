/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory there is, and a tmpfs to keep a store on.
 *
 * What may be used is the least of what the machine has left and what each
 * control group above us has left: tmpfs pages are charged to whoever touches
 * them first, and that is us when the pool is prefaulted. A pool that does not
 * fit must be an error at start and not the kernel's OOM killer later.
 */
#include "engine/memory.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "common/cleanup.h"

#define MIB (1ULL << 20)

/* The number behind `name` at the beginning of a line of the file; false if
 * there is none ("max"). An empty name: the number the file consists of. */
static bool number_in(const char *path, const char *name, uint64_t *ret)
{
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	size_t len = strlen(name);
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long v;

		if (!strncmp(line, name, len) && sscanf(line + len, " %llu", &v) == 1) {
			*ret = v;
			return true;
		}
	}
	return false;
}

/* Names of one version of control groups. Page cache that nobody uses counts
 * as used there, though it gives way. */
struct group_files {
	const char *root, *max, *now, *cache;
};

static const struct group_files group_v2 = {
	"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "
};
static const struct group_files group_v1 = {
	"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
	"memory.usage_in_bytes", "total_inactive_file "
};

static void limit_by_group(struct memory *m, const struct group_files *g,
			   const char *path)
{
	char file[4096];
	uint64_t max, now, cache = 0;

	snprintf(file, sizeof(file), "%s%s/%s", g->root, path, g->max);
	if (!number_in(file, "", &max))
		return;
	snprintf(file, sizeof(file), "%s%s/%s", g->root, path, g->now);
	if (!number_in(file, "", &now))
		return;
	snprintf(file, sizeof(file), "%s%s/memory.stat", g->root, path);
	number_in(file, g->cache, &cache);
	now -= MIN(now, cache);
	m->total_bytes = MIN(m->total_bytes, max);
	m->available_bytes = MIN(m->available_bytes, max - MIN(max, now));
}

/* Our group and all above it: path shrinks to "". */
static void limit_by_groups(struct memory *m, const struct group_files *g,
			    char *path)
{
	if (!strcmp(path, "/"))
		*path = '\0';
	for (;;) {
		limit_by_group(m, g, path);
		char *slash = strrchr(path, '/');
		if (!slash)
			break;
		*slash = '\0';
	}
}

int memory_now(struct memory *ret)
{
	struct memory m;
	char line[4096];

	if (!number_in("/proc/meminfo", "MemTotal:", &m.total_bytes) ||
	    !number_in("/proc/meminfo", "MemAvailable:", &m.available_bytes))
		return -EIO;
	m.total_bytes *= 1024;
	m.available_bytes *= 1024;

	_cleanup_(fclosep) FILE *f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		char *v1 = strstr(line, ":memory:");
		if (!strncmp(line, "0::", 3))
			limit_by_groups(&m, &group_v2, line + 3);
		else if (v1)
			limit_by_groups(&m, &group_v1, v1 + strlen(":memory:"));
	}
	*ret = m;
	return 0;
}

uint64_t memory_margin(const struct memory *m)
{
	return MIN(MAX(m->total_bytes / 32, 64 * MIB), 512 * MIB);
}

int memory_mount(const char *at, uint64_t bytes, bool *ret_huge)
{
	static const char *const options[] = {
		"mode=0700,size=%llu,huge=always",
		"mode=0700,size=%llu",
	};

	for (unsigned i = 0;; i++) {
		char o[80];
		snprintf(o, sizeof(o), options[i], (unsigned long long)bytes);
		if (mount("slicefs", at, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, o)) {
			/* EINVAL: a kernel without huge pages for shared memory */
			if (errno == EINVAL && i == 0)
				continue;
			return -errno;
		}
		/* What somebody mounts below it is no business of the other
		 * namespaces. No harm if that does not work. */
		(void)mount(NULL, at, NULL, MS_PRIVATE, NULL);
		*ret_huge = i == 0;
		return 0;
	}
}

int memory_resize(const char *at, uint64_t bytes)
{
	char o[40];

	snprintf(o, sizeof(o), "size=%llu", (unsigned long long)bytes);
	if (mount("slicefs", at, "tmpfs",
		  MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, o))
		return -errno;
	return 0;
}

int memory_unmount(const char *at)
{
	return umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;
}

bool memory_is_mounted(const char *at)
{
	char above[4096];
	struct stat st, up;
	struct statfs fs;

	if (snprintf(above, sizeof(above), "%s/..", at) >= (int)sizeof(above))
		return false;
	return !lstat(at, &st) && S_ISDIR(st.st_mode) && !stat(above, &up) &&
	       st.st_dev != up.st_dev && !statfs(at, &fs) &&
	       fs.f_type == TMPFS_MAGIC;
}
