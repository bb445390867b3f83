/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One object, and how it goes: whether somebody is at it, the transaction in which it loses all
 * its names, who has to be told (engine_watch_eviction()), and its slices. Which object, and
 * why, is the business of others: evict.c, and the user.
 *
 * Threads: any.
 */
#include "common/metrics.h"
#include "engine/engine.h"
#include "engine/uses.h"

struct victims;

int victims_new(struct engine *e, struct uses *u, struct victims **ret); /* u outlives it */
void victims_free(struct victims *vs); /* NULL is fine */

/* As engine_watch_eviction(). */
void victims_watch(struct victims *vs, const struct eviction *v);
/* Its watcher has room to spare. */
bool victims_spare(struct victims *vs);

/* Its watcher is to say which directories are in use, as of look() in struct eviction. */
bool victims_look(struct victims *vs, bool begin);

struct victim {
	uint64_t fileid;
	struct place place;
	enum metric reason; /* a counter, which it raises */
	int64_t lived_at;   /* if not 0: INDEX_MISS unless its time to live has ended by then */
	struct bytes body;  /* unless NULL: that it has to have still */
	struct kv_call call;
	void (*done)(struct victim *v, int r);
	void *arg;

	/* Its own. */
	struct victims *of;
	struct index_name *names;
	struct index_op op;
};

/* 0: nobody has what index_stat() has said open here, and no mount has pinned it; -EBUSY. `lent`: one
 * pin of each of its slices is the disk's. Blocks. */
int victim_look(struct victims *vs, const struct entry *e, bool lent);

/* It goes, whoever has it open (P4). v is its until done(), which comes once, possibly before this
 * returns: 0; INDEX_MISS: it is not there, or not so; -EBUSY: somebody writes it; -EPERM: it
 * is pinned by the user; others. */
void victim_go(struct victims *vs, struct victim *v);
/* The same, here and now. */
int victim_go_now(struct victims *vs, struct victim *v);
int victim_go_wait(struct victims *vs, uint64_t fileid, struct place place, enum metric reason);

/* A directory that an eviction has emptied, and nothing has happened to since; as
 * index_evict_dir(). Blocks. */
int victim_dir_go_wait(struct victims *vs, uint64_t dir, struct timespec since);
