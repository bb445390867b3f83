/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Buddy allocator over the slice table: which pages are free. Blocks of 2^0 to
 * 2^10 pages, each at a multiple of its size; free neighbours that make up the
 * next larger block are always merged. It owns the entries of free blocks.
 * Threads: its owner's lock.
 */
#include "common/bytes.h"
#include "engine/slice.h"

enum { BUDDY_ORDERS = 11, BUDDY_TOP_PAGES = 1 << (BUDDY_ORDERS - 1) };

struct buddy {
	struct slice *table;
	uint32_t npages;               /* a multiple of BUDDY_TOP_PAGES */
	uint32_t fresh;                /* from here on nothing was ever used: free
					* blocks of the top order on no list */
	uint32_t first[BUDDY_ORDERS];  /* free lists: page, or NO_PAGE */
	uint32_t orders;               /* bit: that list is not empty */
};

void buddy_init(struct buddy *b, struct slice *table, uint32_t npages);

/* A run of npages, or where there is none that long the longest one. Its head
 * entry is no longer HEAD. The number of pages, 0 if nothing is free. */
uint32_t buddy_take(struct buddy *b, uint32_t npages, uint32_t *ret_page);

/* [page, end) becomes free. */
void buddy_give(struct buddy *b, uint32_t page, uint32_t end);

/* At start: [0, page) is not free, its owner gives back what is. */
void buddy_skip_fresh(struct buddy *b, uint32_t page);

/* The smallest order whose blocks hold npages. */
unsigned buddy_order(uint32_t npages);

/* Lists against table. Lines to report; the number of violations. */
int buddy_check(const struct buddy *b, struct writer *report);
