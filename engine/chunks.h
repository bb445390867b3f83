/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An array that grows without moving: item n is in chunk n / CHUNK, which stays where it is.
 * And linear hashing (W. Litwin, "Linear hashing: a new tool for file and table addressing",
 * VLDB 1980): a table that grows by one place at a time, so that no call pays for all.
 *
 * Threads: its owner's lock. Who has learned that an item is there may look at it without.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
	CHUNK = 16384,
	CHUNKS = 1 << 18, /* for all that 32 bits can number; memory that is not touched */
};

struct chunks {
	void **v;
	size_t n;
	uint64_t bytes; /* of memory */
};

static inline int chunks_init(struct chunks *c)
{
	c->v = calloc(CHUNKS, sizeof(*c->v));
	return c->v ? 0 : -ENOMEM;
}

static inline void chunks_fini(struct chunks *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->v[i]);
	free(c->v);
}

/* So that there are n at least, all zeros. -ENOMEM. */
static inline int chunks_room(struct chunks *c, uint64_t n, size_t size)
{
	if (n <= c->n * CHUNK)
		return 0;
	if (c->n == CHUNKS)
		return -ENOMEM;
	c->v[c->n] = calloc(CHUNK, size);
	if (!c->v[c->n])
		return -ENOMEM;
	c->n++;
	c->bytes += CHUNK * size + sizeof(*c->v);
	return 0;
}

static inline void *chunks_at(const struct chunks *c, uint64_t n, size_t size)
{
	return (uint8_t *)c->v[n / CHUNK] + n % CHUNK * size;
}

/* With n places: where h is. */
static inline uint64_t linear_place(uint64_t h, uint64_t n)
{
	unsigned level = 63 - (unsigned)__builtin_clzll(n);
	uint64_t at = h & ((1ULL << level) - 1);

	return at < n - (1ULL << level) ? h & ((2ULL << level) - 1) : at; /* it is split, or not */
}

/* With n places: which one is to be split, into itself and n. */
static inline uint64_t linear_split(uint64_t n)
{
	return n - (1ULL << (63 - __builtin_clzll(n)));
}
