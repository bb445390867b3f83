/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The disk as a log of segments: which pages of its file are whose. No bytes and no I/O.
 *
 *	file   | head |  segment 0  |  segment 1  |  segment 2  | ...
 *	               FULL          CURRENT       READY
 *
 * A segment is filled from its beginning to its end, once; then the next one is. When the
 * log comes round to it, what is still in it goes, and it has the next generation: an
 * extent names the generation with the page, so that one that was left behind somewhere
 * names nothing (as I3 of slices). The generation is on the disk before any byte is
 * written over.
 *
 *	READY -> CURRENT -> FULL -> CLEARED -> READY
 *	                      nothing    its next generation
 *	                      names it   is on the disk
 *
 * `live` counts the pages that rows of the index name, as refs.c sees them; `ids` are the
 * objects that came into it, some of which are not there any more.
 *
 * Threads: any; LOCK_TIER for moments. take(), next(), cleared() are the writer's alone.
 */
#include "engine/pool.h"

struct tier_log;

enum {
	TIER_FULL = 1,          /* no segment is ready */
	TIER_HEAD_PAGES = 256,  /* of the file, before the first segment */
	TIER_SEGMENTS_MIN = 4,
};

/* All are FULL, of these generations (lent), and the newest is number `newest`; or, with
 * gens NULL, READY. */
int tier_log_new(uint64_t pool_id, uint32_t nsegments, uint32_t segment_pages,
		 const uint32_t *gens, uint32_t newest, struct tier_log **ret);
struct tier_log *tier_log_free(struct tier_log *l); /* NULL is fine, and returned */

uint64_t tier_log_id(const struct tier_log *l);
uint32_t tier_log_nsegments(const struct tier_log *l);
uint64_t tier_log_pages(const struct tier_log *l); /* of all segments */
/* In the order of their age, the newest last: for who writes them down. */
void tier_log_gens(struct tier_log *l, int (*visit)(void *arg, uint32_t n, uint32_t gen), void *arg);

/* A reference to each of these runs, or one less, as pool_ref(). All or none: -ESTALE,
 * -EINVAL (outside, or across segments). */
int tier_log_ref(struct tier_log *l, const struct slice_run *v, uint32_t nv);
int tier_log_unref(struct tier_log *l, const struct slice_run *v, uint32_t nv);
/* At start: the object has this one. One that was READY is FULL then, and of this generation: who
 * knew of it is gone. -ESTALE, -EINVAL, -ENOMEM. */
int tier_log_adopt(struct tier_log *l, const struct slice_run *s, uint64_t fileid);
/* Is it a run that there can be? Of a segment that is the one it was. */
int tier_log_check(struct tier_log *l, const struct slice_run *s);

/* The segment keeps its bytes until tier_log_leave(). -ESTALE. */
int tier_log_enter(struct tier_log *l, const struct slice_run *s);
void tier_log_leave(struct tier_log *l, const struct slice_run *s);

/* So many pages, one behind the other, behind those taken last where they fit. TIER_FULL,
 * -ENOMEM. The object's name is noted with them. */
int tier_log_take(struct tier_log *l, uint32_t npages, uint64_t fileid, struct slice_id *ret);
/* How many pages can be taken without another segment to be cleared, about. */
uint64_t tier_log_room(struct tier_log *l);

/* Clearing: *ret_fileid is an object that was in the oldest segment; it is to go, or to be
 * looked at. False: none is left in it, or another one is empty, and tier_log_clear() says what
 * is to be done with that. */
bool tier_log_next(struct tier_log *l, uint64_t *ret_fileid);
/* True: it is CLEARED, n has generation gen from now on. False: something in it is there
 * still, and it was passed over. */
bool tier_log_clear(struct tier_log *l, uint32_t *ret_n, uint32_t *ret_gen);
/* Its generation is on the disk. */
void tier_log_ready(struct tier_log *l, uint32_t n);
/* Are there too few that are READY, or on the way to it? Not while all have been looked
 * at in vain and `rests` is not over. */
bool tier_log_wants(struct tier_log *l);
/* Is the run in the segment that is being cleared? */
bool tier_log_is_next(struct tier_log *l, uint32_t page);

struct tier_log_stat {
	uint64_t pages, live;
	uint32_t segments, ready;
};
void tier_log_stat(struct tier_log *l, struct tier_log_stat *ret);

/* Lines to report; violations. */
int tier_log_check_all(struct tier_log *l, struct writer *report);
