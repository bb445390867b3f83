/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where `slicefs warm` copies to: a folder in a mount (warm_mount.c), by system calls, or
 * one of a node (warm_node.c), by a session. What is copied, and what is not, is decided
 * above (cmd_warm.c).
 *
 * What comes to be under its name is whole, whenever it ends (P1): in a mount a file is
 * written under another name (temps.h), at a node as a draft. What had the name keeps its
 * other ones.
 *
 * Threads: any, but begin() and end().
 */
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "tools/send.h"

/* A name below SRC and DIR: "a/b"; and of the folder that it is in, in DIR: */
struct warm_at {
	const char *rel;
	uint64_t dir; /* its number at a node */
	bool fresh;   /* this command has made it: nothing else is there */
};

struct warm_target {
	const struct warm_ops *ops;
	const char *word;        /* DIR, as the user wrote it */
	bool only_looks;
	struct progress *progress; /* is told of bytes that are copied */
	struct send s;           /* s.owner: owners are kept; the rest is the node's */
	struct client *c;        /* also in a mount: the command's name */
	const char *path;        /* at a node: word without HOST */
};

/* Those that return int: 0, or a negative errno, which the caller says (ops->say). */
struct warm_ops {
	/* DIR is there, or made like st; ret->rel: "". Exit status. */
	int (*begin)(struct warm_target *t, const struct stat *st, struct warm_at *ret);
	void (*end)(struct warm_target *t);
	/* What has the name, links not followed; st_ino tells objects apart. -ENOENT. */
	int (*look)(struct warm_target *t, const struct warm_at *at, struct stat *ret);
	/* 1: the file there has the same `size` bytes as fd; 0. */
	int (*same)(struct warm_target *t, const struct warm_at *at, int fd, uint64_t size);
	/* All of fd, `local` in messages; its attributes, too. Says itself what fails. */
	int (*file)(struct warm_target *t, const struct warm_at *at, int fd, const struct stat *st,
		    const char *local);
	int (*link)(struct warm_target *t, const struct warm_at *at, const char *target,
		    const struct stat *st);
	int (*read_link)(struct warm_target *t, const struct warm_at *at, char ret[PATH_MAX]);
	/* One more name of what was copied to `first`. */
	int (*name)(struct warm_target *t, const struct warm_at *at, const struct warm_at *first);
	/* ret: of what is in it. */
	int (*folder)(struct warm_target *t, const struct warm_at *at, const struct stat *st,
		      struct warm_at *ret);
	/* Mode, owner (t->s.owner) and times, of a file or folder. */
	int (*attr)(struct warm_target *t, const struct warm_at *at, const struct stat *st);
	/* The extended attributes of a folder here, fd. */
	int (*xattrs)(struct warm_target *t, const struct warm_at *at, int fd);
	void (*say)(struct warm_target *t, const struct warm_at *at, int err);
};

extern const struct warm_ops warm_mount_ops, warm_node_ops;

enum { WARM_LOT = 1 << 20 };

/* A buffer of WARM_LOT bytes of this thread's, aligned to pages. NULL: no memory. `which`:
 * 0 or 1. */
unsigned char *warm_buffer(unsigned which);
/* As much of fd as there is, up to len. Or a negative errno. */
ssize_t warm_read(int fd, unsigned char *to, size_t len, uint64_t off);

/* What an errno of the calls above means. */
const char *warm_error(int err);

/* The extended attributes of fd that can be kept elsewhere: set(arg, ...) for each until it
 * fails. That, 0, or a negative errno (-E2BIG: more than the other side has room for in one file).
 * What the other side does not have at all is no failure. */
int warm_xattrs(int fd, int (*set)(void *arg, const char *name, const void *value, size_t len),
		void *arg);
