/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of tier.h share. */
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/priv.h"
#include "engine/tier.h"
#include "engine/tier_journal.h"
#include "engine/tier_log.h"

enum {
	NBACK = 4,           /* threads that bring objects back */
	OUT_DEPTH = 4,       /* writes under way, */
	OUT_PAGES = 1024,    /* and the pages of one */
	BACK_DEPTH = 8,      /* reads of one thread, */
	BACK_PAGES = 256,    /* and theirs */
	WAIT_MS = 40,        /* for the disk, of the 50 that a write may take */
	CLEAR_LOT = 64,      /* objects that leave the disk in one go */
	CLEARED_MAX = 4,
};

struct out_batch;
struct back;

struct tier {
	struct engine *e;
	struct tier_calls calls;
	struct disk_faults *faults;
	uint32_t wait_ms, end_ms;
	_Atomic uint64_t ending_ns;   /* since when; 0: it is not */
	_Atomic uint64_t answered_ns; /* when the disk last did */
	char *path;
	int dir, fd;         /* its folder; `data`, O_DIRECT; both of them locked */
	bool is_new, made_data, made_dir;
	bool is_aside;       /* what was there, until tier_keep() */
	uint32_t nsegments, segment_pages;
	struct journal_found found;
	struct record_head head;
	struct tier_log *log;
	struct journal *journal;

	/* tier_out.c and tier_clear.c, "evict" only */
	struct disk *out;
	struct out_batch *stuck;     /* of which writes are out, too late for who waited */
	double pages_per_ns;         /* how fast it was lately; */
	uint64_t measured_pages, measured_ns; /* and since that was last said */
	uint64_t rests_ns;           /* after an error, until */
	unsigned came;               /* objects that were written since as many last left */
	enum metric reason;          /* why nothing was taken when somebody last asked */
	struct cleared {
		uint32_t n;
		uint64_t mark;
	} cleared[CLEARED_MAX];
	unsigned ncleared;

	struct back *back;           /* tier_back.c */
};

/* tier.c */
int tier_disk(struct tier *t, unsigned depth, struct disk **ret);
/* disk_reap() of one of those, by tier_next_look() at the latest: who waits for longer calls it again.
 * As all who wait for the disk they look meanwhile whether the end has waited too long, and then do
 * not return. */
int tier_reap(struct tier *t, struct disk *d, uint64_t deadline_ns, struct disk_req **ret);
void tier_waits(struct tier *t); /* the same look, of who waits otherwise */
uint64_t tier_next_look(void);

/* tier_out.c */
int tier_out_begin(struct tier *t);
void tier_out_end(struct tier *t);

/* tier_clear.c */

/* Until when the disk is waited for; it is sooner once somebody begins to wait for room. */
struct patience {
	uint64_t until_ns;
	uint64_t less_ns; /* so long from then on; 0: somebody does already */
};

/* since_ns: somebody waits since then, or 0. */
struct patience patience_for(uint64_t since_ns, uint64_t wait_ns);
bool patience_over(struct tier *t, struct patience *p);
/* When it is over, or when to look again whether it is. */
uint64_t patience_look(struct tier *t, struct patience *p);

/* So many objects leave what is to be written next, if that is wanted. */
void tier_clear(struct tier *t, unsigned lot, uint64_t until_ns);
/* The same: as many as came since the last time, so that a segment is free when the one before
 * it is full. */
void tier_clear_as_many(struct tier *t, unsigned least, uint64_t until_ns);
/* In pages. Where there is none, what is oldest leaves the disk: else what is to go now would be
 * forgotten, and that would stay. */
uint64_t tier_make_room(struct tier *t, struct patience *p);

/* tier_back.c */
int tier_back_begin(struct tier *t);
void tier_back_end(struct tier *t);

/* tier_body.c: bodies, read and made here and now. All block. */

/* All extents of the object, in order. -E2BIG: more than a record refers to at once. */
int tier_body_read(struct index *ix, uint64_t fileid, const struct body *b, struct extents *ret);

struct made_body {
	struct body body;
	struct writer bytes;
	struct block_ref *blocks; /* that were put for it */
	uint32_t nblocks;
};
/* reserve: room is made by who calls, so that he must not wait for any. */
int tier_body_make(struct index *ix, uint64_t fileid, const struct extents *x, bool reserve,
		   struct made_body *ret);
/* `moved`: a record names it. */
void tier_body_made(struct index *ix, uint64_t fileid, struct made_body *m, bool moved);

/* Of a slice, pages from `off` on, where a block begins, to the end of one, lie at p: the number of
 * the first block that does not match its sum in x, or -1. */
int64_t tier_body_bad_block(const struct extent *x, const uint8_t *p, uint32_t off, uint32_t npages);

/* Where the extent's bytes go, or come from: a slice of its own. Its sums stay where they
 * are of its own bytes alone; else they are made anew from these, after the old ones have
 * been compared. -EIO: they do not match. */
int tier_body_alone(struct extent *x, const uint8_t *slice);
