/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The extent map of an open file: which page of the file is which page of which
 * slice. A sorted array of regions (4 MiB each), each with a sorted array of
 * extents as they are now, and with the slices that its published version
 * names; comparing the two tells which slices gain and lose references.
 *
 *	region 0                region 7              (regions 1..6: holes)
 *	 ext ext ext             ext
 *	  |   |   |               |
 *	 hold A  hold B          hold C               what is known of a slice
 *
 * Each extent in the map holds one pin on its slice. Several extents may share
 * a hold (a slice that was split by writing into its middle).
 *
 * Pure data and pins: no transfers, no index. Threads: the caller's lock.
 */
#include "engine/node.h"
#include "index/index.h"

/*
 * A slice as one file knows it. While `writing`, the slice is this draft's: it
 * is written in place, and its pages from `used` on are room that no extent has
 * named yet. Afterwards nothing in it changes any more.
 */
struct hold {
	struct slice_id id;
	uint64_t pool_id;
	uint32_t refs;    /* extents in the map, and works under way */
	uint32_t pages;   /* that extents of the map name */
	uint16_t npages;  /* of the slice */
	uint16_t used;    /* given out so far, from its beginning */
	bool writing;
	bool ending;      /* and was to be sealed: nothing is written to it any more */
	uint32_t busy;    /* puts under way in it */
	uint32_t epoch;   /* one up with every put that begins in it */
	uint64_t region;  /* while writing: the one that its extents are in */
	uint64_t valid;   /* bit n: sums[n] is that of block n */
	uint16_t tail;    /* not 0: so many pages of the slice end with a block of which
			     sums[] has the sum, should these be all of its pages */
	struct hold *prev, *next; /* of the map's `writing` list */
	uint64_t sums[];  /* one per 64 KiB block */
};

struct ext {
	struct hold *hold;
	uint16_t page;   /* in its region */
	uint16_t npages;
	uint16_t off;    /* in the slice, pages */
};

struct region {
	uint64_t index;         /* page / REGION_PAGES */
	struct ext *v;
	struct slice_id *base;  /* of the published version, one an extent */
	struct slice_id *next;  /* what base becomes if publishing succeeds */
	uint64_t block;         /* that holds the published extents; 0: none */
	uint64_t next_block;
	uint16_t n, cap, nbase, nnext;
	bool changed;           /* since it was published */
};

struct map {
	struct node *node;
	struct region **v;
	uint32_t n, cap;
	uint64_t npages;      /* that extents name */
	struct hold *writing; /* slices that are written in place */
};

/* An extent as its file sees it. */
struct map_view {
	uint64_t page;
	uint32_t npages;
	uint32_t off;
	struct hold *hold;
};

void map_init(struct map *m, struct node *n);
void map_fini(struct map *m); /* unpins everything */

/* A slice just taken (WRITING), or one that is sealed; one ref, the caller's. */
int map_hold_new(struct map *m, struct slice_id id, uint32_t npages,
		 uint64_t pool_id, bool writing, struct hold **ret);
struct hold *map_hold_ref(struct hold *h);
/* Returns NULL. The last one frees; pins are not its business. */
struct hold *map_hold_unref(struct map *m, struct hold *h);
/* It was sealed: in-place writing ends. */
void map_hold_sealed(struct map *m, struct hold *h);
/* Its sums[block] is about to be another one, or that of other bytes. */
void map_hold_forget_tail(struct hold *h, uint32_t block);

/* The extent that covers `page`, else the next one behind it. */
bool map_next(const struct map *m, uint64_t page, struct map_view *ret);
/* The extent that covers `page`. */
bool map_at(const struct map *m, uint64_t page, struct map_view *ret);

/* Pages of [page, end) that no extent names. */
uint64_t map_missing(const struct map *m, uint64_t page, uint64_t end);

/* Memory for `n` inserts and the cuts before them into the region of `page`, which
 * follow each other in it, so that these cannot fail. -ENOMEM. */
int map_reserve(struct map *m, uint64_t page, uint32_t n);
/* The same for a cut alone. */
int map_reserve_cut(struct map *m, uint64_t page, uint64_t end);

/* Takes [page, end) out and unpins what is no longer named. */
void map_cut(struct map *m, uint64_t page, uint64_t end);
/* Names a hole's pages; they lie in one region. Takes over one pin of the
 * caller's; joins neighbours that continue each other. */
void map_insert(struct map *m, uint64_t page, uint32_t npages, struct hold *h,
		uint32_t off);
/* The same without joining: the index counts references by its own extents, and
 * so must the base that they become. */
void map_load(struct map *m, uint64_t page, uint32_t npages, struct hold *h,
	      uint32_t off);

/* The region of that index, or NULL; the first one at or behind it. */
struct region *map_region(const struct map *m, uint64_t index);
uint32_t map_region_at(const struct map *m, uint64_t index);

/* Changed regions are about to be published: notes the slices that they name.
 * map_published() makes that the base, map_unpublished() forgets it. -ENOMEM. */
int map_publishing(struct map *m);
void map_published(struct map *m);
void map_unpublished(struct map *m);

/* What is published has been replaced by somebody: no block of ours is in it. */
void map_forget_blocks(struct map *m);

/* After loading: what is there is what is published. -ENOMEM. */
int map_loaded(struct map *m);

/* Appends [from, to) of regions' extents as the index wants them; their sums
 * are borrowed from the holds. -ENOMEM. */
int map_extents(const struct map *m, uint32_t from, uint32_t to,
		struct extents *ret);

/* All invariants, a line each to report; the number of violations. */
int map_check(const struct map *m, struct writer *report);
