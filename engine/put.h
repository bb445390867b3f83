/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Bytes put into an open file: the one way in which pages of slices are written
 * and come into the map. write, truncate, fallocate, copy and compaction are made
 * of it.
 *
 * Pages in slices that this draft writes are written in place; all others get
 * new slices (copy on write), whole pages, edges filled from what was there or
 * with zeros. Extents are inserted after all bytes have been placed, so no
 * reader sees a byte that nobody wrote (P9). If it fails before, nothing of it
 * remains; where a transfer fails, what was to be written in place may have been.
 *
 * The caller holds a range lock on the pages, and changes size and times itself.
 */
#include "engine/fetch.h"
#include "engine/evict.h"
#include "engine/priv.h"

struct file;
struct map;

enum {
	PUT_HOLES = 1 << 0, /* only where there is nothing (fallocate) */
	PUT_DATA = 1 << 1,  /* only where there is something (punching) */
	PUT_MOVE = 1 << 2,  /* into new slices in any case (compaction) */
};

struct put_run {
	uint64_t page;
	uint32_t npages;
	uint32_t off;       /* in the slice */
	struct hold *hold;  /* a reference of ours */
	uint32_t epoch;     /* hold's, when we began */
	bool fresh;         /* to be inserted; has a pin of ours */
};

enum { PUT_RUNS = 4 };

struct put {
	struct file *f;
	uint64_t off, len;
	const uint8_t *buf; /* NULL: zeros */
	unsigned flags;
	uint32_t ahead;     /* pages that are likely to follow: room for them */
	const struct kv_call *call; /* that it is a part of */
	void (*done)(struct put *p, int r); /* no lock held */

	/* put.c's */
	struct node_call wanted;
	struct drop_waiter room;
	struct evict_waiter evicted;
	uint64_t drops_ended, evictions; /* when it looked for pages */
	uint32_t want;      /* pages of the slice that it waits for */
	struct put_run *runs, few[PUT_RUNS];
	uint32_t nruns, cap;
	struct fetch head, tail; /* of the pages that are filled from below */
	uint8_t *edges;          /* two pages, if there are such */
	bool fill_head, fill_tail;
	_Atomic int fetching;
	_Atomic int error;
};

/* Memory for these n, each in one region and in the file's order, in `to`: map_reserve(). */
int put_reserve(struct map *to, const struct put_run *v, uint32_t n);
/* p is the caller's, filled up to `done`; it stays until done(). */
void put_start(struct put *p);
