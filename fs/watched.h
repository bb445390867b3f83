/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Watched directories: what the kernel may remember for longer than others' changes
 * may lag, because a doorbell rings when they come, upon which it is told to forget.
 * No FUSE in it.
 *
 * It is a hint only: a ring may come late, or never if the link to the node breaks
 * (then all ring when that is noticed). Nothing that must be right goes by it.
 *
 * All functions are callable from any thread, block for nothing but the table's lock,
 * and take nodeids of which a directory's is its fileid.
 */
#include <stdbool.h>
#include <stdint.h>

#include "index/index.h"

struct watched;

struct watched_opts {
	struct index *ix;
	uint64_t keep_ns;  /* how long the kernel may keep what it is told so */
	unsigned max_dirs; /* at a time; each takes two of the node's watches */
	unsigned max_told; /* names that are remembered here for that */
	/* On a thread of its own, no lock held: the kernel is to ask again what `name` in
	 * `dir` is, and for the attributes of nodeid. name NULL: attributes only. May wait
	 * for requests in dir that are under way: none waits for it. */
	void (*drop)(void *arg, uint64_t dir, const char *name, uint64_t nodeid);
	void *arg;
};

/* Its thread runs. -ENOMEM, -EAGAIN. */
int watched_new(const struct watched_opts *o, struct watched **ret);
/* Returns when nothing is being dropped, and nothing is from now on. While requests are
 * answered yet. Once; NULL is fine. */
void watched_stop(struct watched *t);
/* The same, and ends all watches. Nobody uses it any more. Returns NULL; NULL is fine. */
struct watched *watched_free(struct watched *t);
void watched_check(struct watched *t); /* asserts all invariants */

/*
 * The index is about to be asked for names in dir: begins to watch it, if there is
 * room. What came of that goes to the calls below with the time before it was asked
 * (since_ns, clock_ns(), taken after this).
 */
void watched_use(struct watched *t, uint64_t dir);

/* A request is under way for which the kernel may hold the lock of dir; it has been
 * answered. What is dropped waits for that lock. */
void watched_enter(struct watched *t, uint64_t dir);
void watched_leave(struct watched *t, uint64_t dir);

enum watched_for {
	WATCHED_NOT,  /* nobody would tell, or the node has refused to */
	WATCHED_SOON, /* it changes all the time, or has just now: for WATCHED_SOON_MS */
	WATCHED_KEEP, /* for keep_ns: it will be dropped if it changes */
};
enum { WATCHED_SOON_MS = 50 };

/* The kernel is about to be told that `name` in dir is nodeid: how long may it keep
 * that, and the attributes of what is no directory? */
enum watched_for watched_name(struct watched *t, uint64_t dir, const char *name, uint64_t nodeid,
		  uint64_t since_ns);
/* The same of the attributes only: of what was to be kept by watched_name() and is so yet; of
 * a directory, which is watched itself. */
enum watched_for watched_attr(struct watched *t, uint64_t nodeid, uint64_t since_ns);
enum watched_for watched_dir_attr(struct watched *t, uint64_t dir, uint64_t since_ns);
/* What the kernel was told of nodeid's attributes is still so, as far as is known. */
bool watched_holds(struct watched *t, uint64_t nodeid, bool is_dir);

/* This mount has renamed it: what the kernel knew by the old name it knows by this one. */
void watched_moved(struct watched *t, uint64_t nodeid, uint64_t dir, const char *name,
		   uint64_t since_ns);
/* It has changed in a way that no ring tells: drops it. */
void watched_forget(struct watched *t, uint64_t nodeid);

/* dir is opened to be listed, after watched_use(). True: the kernel may use the list that
 * it has from the last time that this was false; if `*ret_cache`, it may keep a new one. */
bool watched_list(struct watched *t, uint64_t dir, bool *ret_cache);
