/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Pages of a slice brought to where they can be read: a pointer into the pool
 * where this process reaches it, else a copy that a batch fetched. What was
 * sealed is checked against its sums where that is due (P9).
 *
 *	fetch_start(e, &f);  ... f.done(&f, r), perhaps before it returns;
 *	f.ptr is good until fetch_end(&f) if r == 0.
 *
 * The caller keeps the slice pinned and the hold referred to until fetch_end().
 */
#include <sys/uio.h>

#include "engine/map.h"
#include "engine/priv.h"

struct fetch {
	uint64_t fileid;      /* for who reads the log */
	struct hold *hold;
	uint32_t off, npages; /* in the slice */
	bool sealed;          /* as the map said: sums hold, bytes do not change */
	const struct kv_call *call; /* that it is a part of */
	const uint8_t *ptr;
	void (*done)(struct fetch *f, int r);
	void *arg;

	struct engine *e;     /* fetch.c's */
	uint8_t *bounce;
	uint32_t from;        /* page of the slice at which bounce begins */
	bool check;           /* it is to be verified, and whole blocks are there for that */
};

void fetch_start(struct engine *e, struct fetch *f);
void fetch_end(struct fetch *f); /* frees; twice is fine */

/* Must any of these pages be checked before somebody reads them? */
bool fetch_must_verify(struct engine *e, const struct hold *h, uint32_t off,
		       uint32_t npages);
/* The bytes of the slice, or NULL if they are elsewhere. */
uint8_t *fetch_map(struct engine *e, struct slice_id id);

uint64_t fetch_sum(const void *p, uint64_t len);
uint64_t fetch_sum_of(const struct iovec *v, unsigned n); /* one behind the other */
/* Bytes of block `block` of a slice of npages. */
uint32_t fetch_block_bytes(uint32_t npages, uint32_t block);
