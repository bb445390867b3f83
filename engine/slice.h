/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The slice table: 16 bytes for each page of the pool. What a run of pages is
 * stands in the entry of its first page, its *head*; the entries of the others
 * keep only the generation that they had when they were heads.
 *
 *	            gen   pins       refs           npages  state  flags
 *	slice       its   holds      references     1..1024 !FREE  HEAD [ADOPTED]
 *	free block  next* next free  previous free  2^order FREE   HEAD
 *	inside      own   -          -              -       -      0
 *
 *	* of the slice that will begin here. 0: never used, stands for 1.
 *
 * It is anonymous memory that reads as zeros until it is used.
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	ENTRY_HEAD = 1 << 0,
	ENTRY_ADOPTED = 1 << 1, /* its bytes come from before this process, or were found bad */
};

struct slice {
	uint32_t gen;
	union {
		uint32_t pins;
		uint32_t next; /* NO_PAGE: none */
	};
	union {
		uint32_t refs;
		uint32_t prev;
	};
	uint16_t npages;
	uint8_t state; /* enum slice_state */
	uint8_t flags;
};

_Static_assert(sizeof(struct slice) == 16, "16 bytes a page");

#define NO_PAGE UINT32_MAX
