/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/warm_list.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "tools/client.h"

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
	else if (lstat(path, &st) < 0)
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
	if (to == plain) /* root itself */
		return 0;
	if (!(l->nnames & (l->nnames - 1))) { /* a power of two: it is full */
		char **more = reallocarray(l->names, l->nnames ? 2 * l->nnames : 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->names = more;
	}
	l->names[l->nnames++] = steal(&plain);
	return 0;
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
	if (!l->names && !(l->names = malloc(sizeof(*l->names)))) /* none at all is a list, too */
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
	for (size_t i = 0; i < l->nnames; i++)
		free(l->names[i]);
	free(l->names);
	free(l->root);
}
