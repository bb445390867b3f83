/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hard idea is that a slice need not be a power of two: it takes the first
 * pages of a block, and the rest goes back as the blocks that it consists of, so
 * a page is the most that is wasted. A block of 8 from which 3 were taken:
 *
 *	page  0 1 2 3 4 5 6 7
 *	      [slice][1][  4  ]
 *
 * Freeing merges: a block and its buddy (its page number with the bit of its
 * size flipped) become one of twice the size, as often as that goes.
 *
 * What was never used is not on a list, so that the table of a large pool costs
 * memory only where slices have been.
 */
#include <assert.h>
#include <stdio.h>

#include "engine/buddy.h"
#include "engine/pool.h"

unsigned buddy_order(uint32_t npages)
{
	return npages <= 1 ? 0 : 32 - (unsigned)__builtin_clz(npages - 1);
}

void buddy_init(struct buddy *b, struct slice *table, uint32_t npages)
{
	*b = (struct buddy){ .table = table, .npages = npages };
	for (unsigned i = 0; i < BUDDY_ORDERS; i++)
		b->first[i] = NO_PAGE;
}

static bool is_free_block(const struct buddy *b, uint32_t page, unsigned order)
{
	const struct slice *e = &b->table[page];

	return page < b->fresh && (e->flags & ENTRY_HEAD) && e->state == SLICE_FREE &&
	       e->npages == 1u << order;
}

static void list_remove(struct buddy *b, uint32_t page, unsigned order)
{
	struct slice *e = &b->table[page];

	assert(is_free_block(b, page, order));
	if (e->prev == NO_PAGE)
		b->first[order] = e->next;
	else
		b->table[e->prev].next = e->next;
	if (e->next != NO_PAGE)
		b->table[e->next].prev = e->prev;
	if (b->first[order] == NO_PAGE)
		b->orders &= ~(1u << order);
	e->flags = 0;
}

static void list_add(struct buddy *b, uint32_t page, unsigned order)
{
	struct slice *e = &b->table[page];

	assert(!(e->flags & ENTRY_HEAD)); /* I1: nothing is freed twice */
	e->state = SLICE_FREE;
	e->flags = ENTRY_HEAD;
	e->npages = (uint16_t)(1u << order);
	e->prev = NO_PAGE;
	e->next = b->first[order];
	if (e->next != NO_PAGE)
		b->table[e->next].prev = page;
	b->first[order] = page;
	b->orders |= 1u << order;
}

static void give_block(struct buddy *b, uint32_t page, unsigned order)
{
	while (order < BUDDY_ORDERS - 1) {
		uint32_t other = page ^ (1u << order);
		if (!is_free_block(b, other, order))
			break;
		list_remove(b, other, order);
		page &= other;
		order++;
	}
	list_add(b, page, order);
}

void buddy_give(struct buddy *b, uint32_t page, uint32_t end)
{
	assert(page <= end && end <= b->fresh);
	while (page < end) {
		unsigned order = page ? (unsigned)__builtin_ctz(page) : BUDDY_ORDERS - 1;
		if (order > BUDDY_ORDERS - 1)
			order = BUDDY_ORDERS - 1;
		while (end - page < 1u << order)
			order--;
		give_block(b, page, order);
		page += 1u << order;
	}
}

uint32_t buddy_take(struct buddy *b, uint32_t npages, uint32_t *ret_page)
{
	unsigned order = buddy_order(npages);
	uint32_t fits = b->orders >> order << order, page;

	assert(npages >= 1 && npages <= BUDDY_TOP_PAGES);
	if (!fits && b->fresh < b->npages) {
		order = BUDDY_ORDERS - 1;
		page = b->fresh;
		b->fresh += BUDDY_TOP_PAGES;
	} else if (fits || b->orders) {
		order = fits ? (unsigned)__builtin_ctz(fits)
			     : 31 - (unsigned)__builtin_clz(b->orders);
		page = b->first[order];
		list_remove(b, page, order);
	} else {
		return 0;
	}
	if (npages > 1u << order)
		npages = 1u << order;
	buddy_give(b, page + npages, page + (1u << order));
	*ret_page = page;
	return npages;
}

void buddy_skip_fresh(struct buddy *b, uint32_t page)
{
	assert(!b->fresh && !b->orders);
	b->fresh = (page + BUDDY_TOP_PAGES - 1) & ~(BUDDY_TOP_PAGES - 1u);
}

static int fault(struct writer *report, uint32_t page, const char *what)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "pool: page %u: %s\n", page, what);

	write_bytes(report, line, (size_t)n);
	return 1;
}

static int check_list(const struct buddy *b, unsigned order, struct writer *report)
{
	uint32_t prev = NO_PAGE, listed = 0, counted = 0, limit = b->npages >> order;
	int bad = 0;

	for (uint32_t p = b->first[order]; p != NO_PAGE; p = b->table[p].next) {
		if (p >= b->npages || !is_free_block(b, p, order))
			return bad + fault(report, p, "on a free list, but no free block");
		if (b->table[p].prev != prev)
			bad += fault(report, p, "wrong link in a free list");
		if (++listed > limit)
			return bad + fault(report, p, "free list goes round");
		prev = p;
	}
	for (uint32_t p = 0; p < b->fresh; p += 1u << order) {
		if (!is_free_block(b, p, order))
			continue;
		counted++;
		if (order < BUDDY_ORDERS - 1 && is_free_block(b, p ^ (1u << order), order))
			bad += fault(report, p, "its buddy is free as well");
	}
	if (listed != counted)
		bad += fault(report, b->first[order], "free blocks that are on no list");
	if (!(b->orders & 1u << order) != (b->first[order] == NO_PAGE))
		bad += fault(report, b->first[order], "wrong bit of a free list");
	return bad;
}

int buddy_check(const struct buddy *b, struct writer *report)
{
	int bad = 0;

	for (unsigned i = 0; i < BUDDY_ORDERS; i++)
		bad += check_list(b, i, report);
	return bad;
}
