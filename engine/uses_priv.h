/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What uses.c (what is committed) and uses_fill.c (what was there before) share. Who calls
 * any of it holds the lock, but for uses_end_of() and uses_object_of().
 */
#include <stdatomic.h>

#include "common/lock.h"
#include "engine/uses.h"

struct uses {
	struct kv_observer observer;
	struct kv *kv; /* or NULL: it does not observe yet */
	struct uses_opts o;
	struct event *events; /* since the last end; the committer's */
	size_t nevents, cap;
	struct dir_event *dir_events;
	size_t ndir_events, dir_cap;
	struct dirs *dirs;
	struct lock lock;
	struct names *names;
	bool is_filling;
	struct told *told; /* meanwhile */
	uint64_t counted;  /* what files up to this fileid take is in `dirs` */
	atomic_bool is_told_of; /* a commit that is not applied yet: the walk may have seen it */
	atomic_ulong ends;      /* of commits */
	bool has_complained;
	uint64_t looked_at; /* by uses_look() */
	bool overtaken;     /* something has come to it since */
	atomic_bool stopped;
};

/* Once, in the log, if r is an error: what of the object could not be noted. */
void uses_complain(struct uses *u, uint64_t fileid, int r);
/* One name more of a file that has several. -ENOMEM. */
int uses_names_add(struct uses *u, uint64_t fileid, const struct index_name *name);
/* To the policy, or to what has an end, as its record says. */
int uses_enter(struct uses *u, const struct index_row *row);
/* When this object ends, if it does. */
bool uses_end_of(const struct uses *u, const struct index_row *row, int64_t now,
		 struct expiry_end *ret);
struct policy_object uses_object_of(const struct index_row *row);

/* A commit says something of this record or name; of what has this number. What the filling
 * reads of it from now on counts for nothing. */
void uses_tell(struct uses *u, const struct index_row *row);
void uses_tell_id(struct uses *u, uint64_t fileid);
/* A file in this directory takes so many pages more, or less. False: what it takes was counted
 * already, so the caller counts that; else it is noted, and counted in the end. */
bool uses_tell_pages(struct uses *u, uint64_t fileid, uint64_t dir, int64_t pages);
void uses_forget_told(struct uses *u);
