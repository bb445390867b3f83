/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/warm_list.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/table.h"
#include "tools/client.h"

struct listed {
	UT_hash_handle hh;
	char name[];
};

char *warm_path(const struct warm_list *l, const char *rel)
{
	return *rel ? client_join(l->root, rel) : strdup(l->root);
}

/* A pattern with a slash is of the whole name, else of its last part. */
static bool is_excluded(const struct warm_list *l, const char *rel)
{
	const char *slash = strrchr(rel, '/');

	for (size_t i = 0; i < l->nexcludes; i++) {
		const char *p = l->excludes[i];
		const char *of = strchr(p, '/') || !slash ? rel : slash + 1;
		if (!fnmatch(p + (*p == '/'), of, FNM_PATHNAME))
			return true;
	}
	return false;
}

static void visit_one(const struct warm_list *l, const char *rel, warm_visit *visit, void *arg)
{
	_cleanup_(freep) char *path = warm_path(l, rel);
	struct stat st;

	if (!path)
		visit(arg, rel, NULL, -ENOMEM);
	else if ((l->follows ? stat(path, &st) : lstat(path, &st)) < 0)
		visit(arg, rel, NULL, -errno);
	else if (!S_ISDIR(st.st_mode) || st.st_dev != l->skip_dev || st.st_ino != l->skip_ino)
		visit(arg, rel, &st, 0);
}

void warm_list_folder(const struct warm_list *l, const char *rel, warm_visit *visit, void *arg)
{
	_cleanup_(freep) char *path = warm_path(l, rel);
	DIR *d = path ? opendir(path) : NULL;

	if (!d) {
		visit(arg, rel, NULL, path ? -errno : -ENOMEM);
		return;
	}
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e)
			break;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		_cleanup_(freep) char *name = *rel ? client_join(rel, e->d_name) :
						     strdup(e->d_name);
		if (!name)
			visit(arg, rel, NULL, -ENOMEM);
		else if (!is_excluded(l, name))
			visit_one(l, name, visit, arg);
	}
	if (errno)
		visit(arg, rel, NULL, -errno);
	closedir(d);
}

/* Left out if it, or a folder above it, is excluded. */
void warm_list_name(const struct warm_list *l, const char *rel, warm_visit *visit, void *arg)
{
	_cleanup_(freep) char *part = strdup(rel);

	for (char *p = part; p; p = strchr(p + 1, '/')) {
		if (p != part)
			*p = '\0';
		bool out = p != part && is_excluded(l, part);
		if (p != part)
			*p = '/';
		if (out)
			return;
	}
	if (part && is_excluded(l, rel))
		return;
	visit_one(l, rel, visit, arg);
}

static int add_once(struct warm_list *l, const char *name)
{
	size_t len = strlen(name);
	struct listed *x;

	HASH_FIND(hh, l->table, name, len, x);
	if (x)
		return 0;
	x = array_room(l->names, l->cap, l->nnames + 1, 16) < 0 ? NULL : malloc(sizeof(*x) + len + 1);
	if (!x)
		return -ENOMEM;
	memcpy(x->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, l->table, x->name, len, x);
	l->names[l->nnames++] = x->name;
	return 0;
}

int warm_list_add(struct warm_list *l, const char *name)
{
	_cleanup_(freep) char *plain = calloc(1, strlen(name) + 1);
	char *to = plain;

	if (!plain)
		return -ENOMEM;
	if (*name == '/')
		return -EINVAL;
	for (const char *p = name + strspn(name, "/"); *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");
		if (n == 2 && !memcmp(p, "..", 2))
			return -EINVAL;
		if (n > 1 || *p != '.') {
			to += to > plain ? (*to = '/', 1) : 0;
			memcpy(to, p, n);
			to += n;
		}
		p += n;
	}
	return to == plain ? 0 : add_once(l, plain); /* root itself */
}

int warm_list_read(struct warm_list *l, const char *file, bool nul, char **ret_bad)
{
	_cleanup_(fclosep) FILE *opened = strcmp(file, "-") ? fopen(file, "re") : NULL;
	FILE *f = opened ? opened : stdin;
	_cleanup_(freep) char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int r = 0;

	if (!opened && strcmp(file, "-"))
		return -errno;
	if (array_room(l->names, l->cap, 1, 16) < 0) /* none at all is a list, too */
		return -ENOMEM;
	errno = 0;
	while (!r && (n = getdelim(&line, &cap, nul ? '\0' : '\n', f)) > 0) {
		if (line[n - 1] == '\n' && !nul)
			line[n - 1] = '\0';
		r = *line ? warm_list_add(l, line) : 0;
	}
	if (r == -EINVAL)
		*ret_bad = steal(&line);
	return r ? r : ferror(f) ? -EIO : 0;
}

void warm_list_fini(struct warm_list *l)
{
	struct listed *x, *next;

	HASH_ITER(hh, l->table, x, next) {
		HASH_DEL(l->table, x);
		free(x);
	}
	free(l->names);
	free(l->root);
}
