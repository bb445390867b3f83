/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The pool: a node's memory, cut into slices. It is made of segments (a file,
 * its mapping); page numbers run through all of them, and a slice lies in one.
 * A slice is a run of 1..1024 pages that begins where a buddy of its size may
 * begin. The table has one entry a page; a slice's is the one of its first.
 *
 *	          alloc                seal              publish
 *	  FREE ----------> WRITING ----------> SEALED ----------> LIVE
 *	   ^  pins -> 0       |    pins -> 0      |      refs -> 0  |
 *	   |<-----------------'<------------------'                 |
 *	   |<------------------------------------------ pins == 0 --|
 *	   |             pins -> 0                                   |
 *	   '<----------------------- DYING <------------ pins > 0 ---'
 *
 * pins: holds by open files and reads under way; while WRITING or SEALED, the
 * pins *are* the session's ownership, so what nobody remembers is free (I2).
 * refs: extents in the index that name the slice: in records, in extent blocks
 * (whether a record names those yet or not), in what is gone and not dropped yet.
 * Whoever observes the index counts them (refs.h), nobody else.
 *
 * Threads: any; one lock (LOCK_POOL) guards table and free lists. Bytes are
 * read and written without it, by whoever holds a pin.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

enum slice_state {
	SLICE_FREE,
	SLICE_WRITING,
	SLICE_SEALED,
	SLICE_LIVE,
	SLICE_DYING,
};

enum {
	SLICE_PAGES_MAX = 1024, /* 4 MiB */
	POOL_FULL = 1,          /* outcome of pool_alloc() */
};

struct pool;

struct slice_id {
	uint32_t page; /* first page, through all segments */
	uint32_t gen;
};

struct slice_run {
	struct slice_id id;
	uint32_t npages; /* of the slice; of a seal: that it keeps */
};

struct pool_opts {
	const char *path;    /* of the first segment's file, which is a page longer
				(2 MiB on huge pages); NULL: anonymous */
	uint64_t bytes;      /* a multiple of 4 MiB */
	bool create;         /* else the file must be there; its size counts */
};

/* Maps and prefaults (in full: later there is no SIGBUS). All is FREE.
 * -ENOMEM, -ENOSPC, -EEXIST, -ENOENT, -EINVAL (bytes), -EUCLEAN (not a pool, or
 * cut short), -EPROTONOSUPPORT. */
int pool_open(const struct pool_opts *o, struct pool **ret);
void pool_close(struct pool *p); /* nothing may be pinned; NULL is fine */

uint64_t pool_id(const struct pool *p);    /* made when it was created */
uint32_t pool_npages(const struct pool *p);
uint32_t pool_nfree(const struct pool *p); /* pages; a glance, no lock */
uint32_t pool_nheld(const struct pool *p); /* the same, of what has references, and is pinned */
/* An alloc that leaves fewer than npages free calls low(), under LOCK_POOL; NULL: no more. */
void pool_watch(struct pool *p, uint32_t npages, void (*low)(void *arg), void *arg);

struct pool_segment {
	uint8_t *base;
	uint32_t page, npages; /* the first, through all segments */
};

/* Memory that is one piece, in the order of pages: for who registers it. */
uint32_t pool_nsegments(const struct pool *p);
struct pool_segment pool_segment(const struct pool *p, uint32_t i);

/* The bytes of a page: contiguous to the end of its slice. The caller holds a
 * pin. */
void *pool_page(struct pool *p, uint32_t page);

/* [off, off + len) of a slice, or NULL: another generation, or past its end. No
 * lock; the caller holds a pin. */
void *pool_span(struct pool *p, struct slice_id s, uint64_t off, uint64_t len);

/*
 * A slice of up to `npages` (1..SLICE_PAGES_MAX), WRITING, with one pin, the
 * caller's. Where no run of that length is free the longest one is given: the
 * caller asks again for the rest. POOL_FULL. Its bytes are *not* zeroed: no
 * reader may see one that was not written (P9).
 */
int pool_alloc(struct pool *p, uint32_t npages, struct slice_id *ret,
	       uint32_t *ret_npages);

/* Gives the pages behind the first `npages` of a WRITING slice back. */
int pool_trim(struct pool *p, struct slice_id s, uint32_t npages);

/* One hold more on a slice that is not FREE. -ESTALE: other generation (I3). */
int pool_pin(struct pool *p, struct slice_id s);
/* One less; frees what nothing else keeps. -ESTALE, -EINVAL (there is none). */
int pool_unpin(struct pool *p, struct slice_id s);

/* WRITING -> SEALED; SEALED stays (publishing again). -ESTALE, -EINVAL. */
int pool_seal(struct pool *p, struct slice_id s);

/* A reference more on each of these slices, as often as it is listed (SEALED and
 * DYING become LIVE); all or none. -ESTALE: one of them has another generation or
 * length. -EINVAL: it is not sealed (I5). */
int pool_ref(struct pool *p, const struct slice_run *v, uint32_t nv);
/* One less on each; frees what nothing else keeps. -ESTALE, if one is not there or
 * has none: the others are done. */
int pool_unref(struct pool *p, const struct slice_run *v, uint32_t nv);

/* Rebuild (I2), before anything is allocated: extents name these slices. Counts one
 * reference each. How many were: nv, or v[that] is outside, or overlaps another. */
uint32_t pool_adopt(struct pool *p, const struct slice_run *v, uint32_t nv);
/* One that begins here is about to be adopted. A hint: slices come in no order, and nearly all
 * of what an adoption costs is waiting for its entry, of which others need not be waited for
 * meanwhile. */
void pool_expect(const struct pool *p, uint32_t page);
/* After the last one: what was not adopted becomes free runs. */
void pool_adopted(struct pool *p);

/* Was the slice adopted, and this block of it (SUM_PAGES pages) not verified
 * since; or is it distrusted? Cheap, no lock. pool_verified() says that it has been now. */
bool pool_needs_verify(struct pool *p, struct slice_id s, uint32_t block);
void pool_verified(struct pool *p, struct slice_id s, uint32_t block);

/* The block does not match its checksum: whoever reads it is to see that, too. The caller holds
 * a pin. */
void pool_distrust(struct pool *p, struct slice_id s, uint32_t block);

struct slice_view {
	struct slice_id id;
	enum slice_state state;
	uint32_t npages, pins, refs;
};
/* The slice at or after `page` that is not FREE; false: none. */
bool pool_next(struct pool *p, uint32_t page, struct slice_view *ret);

/* All invariants: I1, sums, free lists, buddies. Lines to report; violations. */
int pool_check(struct pool *p, struct writer *report);

const char *slice_state_name(enum slice_state s);
