/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which names below SRC: all, or those of a list, less those that are excluded.
 *
 * Threads: any; once it is made, nothing changes it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct warm_list {
	char *root;      /* SRC, or the folder of the file that it is; heap */
	char **excludes; /* patterns; borrowed */
	size_t nexcludes;
	bool follows;    /* SRC itself may be a link, to what is copied */
	char **names;    /* below root; NULL: all */
	size_t nnames, cap;
	struct listed *table; /* of them */
	dev_t skip_dev;  /* the folder that it is not to go into: DIR itself */
	ino_t skip_ino;
};

/* One of the names: rel is "a/b"; depth-first, a folder before what is in it. Of a name
 * that cannot be looked at st is NULL, and err says why. */
typedef void warm_visit(void *arg, const char *rel, const struct stat *st, int err);

/* "root/rel", to be freed. NULL: no memory. */
char *warm_path(const struct warm_list *l, const char *rel);

/* Each name in the folder rel, but for what is in folders there. */
void warm_list_folder(const struct warm_list *l, const char *rel, warm_visit *visit, void *arg);
/* A name of the list. */
void warm_list_name(const struct warm_list *l, const char *rel, warm_visit *visit, void *arg);

/* Adds a name, once: "./a//b/" is "a/b". -EINVAL: it is not below root. */
int warm_list_add(struct warm_list *l, const char *name);
/* All that `file` ("-": standard input) lists, a line each, or ended by NUL. 0, or a
 * negative errno; *ret_bad: a name that is not below root, heap. */
int warm_list_read(struct warm_list *l, const char *file, bool nul, char **ret_bad);

void warm_list_fini(struct warm_list *l);
