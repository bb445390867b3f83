/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Going through a folder that is named by a descriptor. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* The caller's to close. NULL: errno says why. `at` and what it is stay as they are, so "." is a
 * way to read an open folder from its beginning. flags: O_NOFOLLOW or 0. */
static inline DIR *dir_open_at(int at, const char *path, int flags)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0) {
		int e = errno;
		close(fd);
		errno = e;
	}
	return d;
}

static inline void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}
