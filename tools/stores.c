/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/stores.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "tools/cmd.h"

bool stores_name_ok(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > STORES_NAME_MAX || name[0] == '.')
		return false;
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return false;
	return true;
}

void stores_name_of_dir(const char *dir, char ret[STORES_NAME_MAX + 1])
{
	uint32_t hash = (uint32_t)XXH3_64bits(dir, strlen(dir));
	size_t room = STORES_NAME_MAX - 9, n = strlen(dir), at = 0;
	const char *p = n > room ? dir + n - room : dir;

	for (; *p; p++) {
		if (isalnum((unsigned char)*p) || (at && (*p == '_' || *p == '.')))
			ret[at++] = *p;
		else if (at && ret[at - 1] != '-')
			ret[at++] = '-';
	}
	if (!at)
		ret[at++] = 'r';
	snprintf(ret + at, 10, "-%08x", hash);
}

void stores_root(char *ret, size_t n)
{
	uid_t uid = geteuid();

	if (uid == 0)
		snprintf(ret, n, "/run/slicefs");
	else
		snprintf(ret, n, "/dev/shm/slicefs-%u", uid);
}

void stores_dir(const char *name, char ret[PATH_MAX])
{
	char root[64];

	stores_root(root, sizeof(root));
	snprintf(ret, PATH_MAX, "%s/%s", root, name);
}

/* -EPERM: it is somebody else's. */
static int make_root(const char *root)
{
	struct stat st;

	if (mkdir(root, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (lstat(root, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return -EPERM;
	return 0;
}

int stores_root_make(const char *cmd)
{
	char root[64];

	stores_root(root, sizeof(root));
	int r = make_root(root);
	if (r == -EPERM)
		return cmd_fail(EXIT_FAILED, cmd,
				"%s: not a folder that is this user's and that nobody else may "
				"write to. Try: as root: mv %s %s.away", root, root, root);
	return r < 0 ? cmd_fail(EXIT_FAILED, cmd, "%s: cannot be made: %s", root,
				strerror(-r)) : EXIT_DONE;
}

static int only_names(const struct dirent *d)
{
	return stores_name_ok(d->d_name);
}

int stores_each(int (*fn)(const char *name, const char *dir, void *arg), void *arg)
{
	char root[64], dir[PATH_MAX];
	struct dirent **names;
	int r = 0;

	stores_root(root, sizeof(root));
	int n = scandir(root, &names, only_names, alphasort);
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		if (r == 0) {
			stores_dir(names[i]->d_name, dir);
			r = fn(names[i]->d_name, dir, arg);
		}
		free(names[i]);
	}
	free(names);
	return r;
}
