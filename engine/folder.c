/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of a store: they consist of files only, and are renamed as a whole. */
#include "engine/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

char *folder_join(const char *a, const char *b)
{
	char *p;

	return asprintf(&p, "%s/%s", a, b) < 0 ? NULL : p;
}

bool folder_has(const char *folder, const char *file)
{
	_cleanup_(freep) char *p = folder_join(folder, file);

	return p && !access(p, F_OK);
}

int folder_make(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		int r = mkdir(path, 0755);
		*p = '/';
		if (r && errno != EEXIST)
			return -errno;
	}
	return mkdir(path, 0700) ? -errno : 0;
}

int folder_remove(const char *parent, const char *name)
{
	_cleanup_(freep) char *path = folder_join(parent, name);
	if (!path)
		return -ENOMEM;
	DIR *d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;

	int r = 0;
	for (const struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0))
			r = -errno;
	}
	closedir(d);
	return rmdir(path) && !r ? -errno : r;
}

int folder_find(const char *folder, const char *prefix, char **ret)
{
	DIR *d = opendir(folder);
	if (!d)
		return -errno;

	int r = -ENOENT;
	for (const struct dirent *e; r == -ENOENT && (e = readdir(d));) {
		if (!strncmp(e->d_name, prefix, strlen(prefix))) {
			*ret = strdup(e->d_name);
			r = *ret ? 0 : -ENOMEM;
		}
	}
	closedir(d);
	return r;
}

int folder_write_text(const char *folder, const char *file, const char *text)
{
	_cleanup_(freep) char *path = folder_join(folder, file), *tmp = NULL;
	if (!path || asprintf(&tmp, "%s.new", path) < 0)
		return -ENOMEM;

	_cleanup_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC |
					O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || rename(tmp, path)) {
		int r = errno ? -errno : -ENOSPC;
		unlink(tmp);
		return r;
	}
	return 0;
}

int folder_rename(const char *folder, const char *from, const char *to)
{
	_cleanup_(freep) char *a = folder_join(folder, from), *b = folder_join(folder, to);

	if (!a || !b)
		return -ENOMEM;
	return rename(a, b) ? -errno : 0;
}
