/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What inode.c and lines.c share: the table as it is. All functions here are called
 * under its lock.
 */
#include "fs/inode.h"

struct inodes {
	struct lock lock;
	struct inode *table;
	struct shown *objects; /* by fileid; of a shared table */
	struct kept *kept; /* all of them */
	uint64_t last_line;

	bool shared;        /* set at the beginning */
	uint64_t window_ns;

	struct accesses *accesses; /* or NULL; set at the beginning */
	void (*drop)(void *arg, const struct gone *g); /* set at the beginning */
	void *drop_arg;
};

/* What an object without a name consists of: one of the two. */
struct kept {
	struct relic *relic; /* whose it is */
	struct kept *prev, *next;
	struct gone *gone; /* what the index said; hidden: not ours to drop yet */
	struct file *file; /* held: it was open, and may have changed since */
	struct file_op op; /* to close it */
	uint64_t since_ns;
};

struct opens {
	struct file *file;
	unsigned handles, promises, writers, cached, readers;
	unsigned dropping;   /* handles that have the kernel drop what it has */
	struct req *waiting; /* until that is done */
	bool failed; /* the last publish has */
	/* How often it may have got a security.capability, and up to which of them it
	 * has been removed. */
	unsigned capability, no_capability;
};

struct relic {
	struct attr attr;
	struct kept *kept; /* or NULL */
	char target[]; /* of a symbolic link, else "" */
};

struct inode *inode_find(struct inodes *t, uint64_t nodeid); /* no reference */

/* lines.c: all nodeids of an object ------------------------------------------------ */

/* The first nodeid of an object in a shared table. */
struct shown *line_object(struct inodes *t, uint64_t fileid);
void line_add(struct inodes *t, struct inode *i);
void line_del(struct inodes *t, struct shown *s);
struct inode *line_first(struct inodes *t, uint64_t fileid);
struct inode *line_next(struct inodes *t, struct inode *i);

#define FOR_LINES(t, i, fileid)                                                \
	for (struct inode *i = line_first(t, fileid); i; i = line_next(t, i))

/* The nodeid for who has found version v; NULL: a new one. INODE_BUSY. */
int line_pick(struct inodes *t, const struct attr *a, struct inode **ret);
void line_doubt(struct inodes *t, struct inode *i);
/* The record was found at p. */
void line_found(struct inodes *t, struct inode *i, struct place p, uint64_t begun_ns);
/* Of a shared table. While it is open, the kernel knows the size from what is done
 * here. */
void line_told(struct inode *i, const struct attr *a);
/* Which nodeid has f open; i itself not looked at. */
bool line_is_open_as(struct inodes *t, struct inode *i, const struct file *f);
int line_may_open(struct inodes *t, struct inode *i, struct file *f, bool last);
/* What the kernel knows of another version is not to outlive this open. */
void line_take(struct inode *i, struct file *f, const struct open_how *how, bool first,
	       struct caching *c);
