/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A segment: a file of the pool and its mapping. The bytes come first, so that
 * they lie on huge pages from the file's beginning; the header, which names the
 * pool, is the page behind them.
 */
#include <stdbool.h>
#include <stdint.h>

enum { SEGMENT_VERSION = 1 };

struct mapping;

struct segment {
	int fd;          /* -1: anonymous */
	uint8_t *base;   /* NULL: not mapped */
	uint64_t bytes;  /* without the header */
	uint64_t pool_id;
	bool has_rest;           /* not all of it is in the page tables */
	struct mapping *mapping; /* goes on in the background; NULL: it does not */
};

#define SEGMENT_NONE ((struct segment){ .fd = -1 })

/* Makes the file whole or not at all, all of it in memory, with a new pool id.
 * -EEXIST, -ENOSPC, -ENOMEM, or what the file system says. */
int segment_create(const char *path, uint64_t bytes, struct segment *ret);

/* -ENOENT, -EUCLEAN: not a segment, damaged or cut short; -EPROTONOSUPPORT: of
 * a newer version. Changes nothing in the file. Where all of it is in memory already it
 * is not in the page tables yet. */
int segment_open(const char *path, struct segment *ret);

/* Begins with that, in the background (thread "map-pool"). A wish: who touches what is not there
 * yet has it made there. */
void segment_map_rest(struct segment *s);

/* Without a file, for tests. */
int segment_anonymous(uint64_t bytes, struct segment *ret);

/* Waits for what goes on in the background. For who measures; nobody else needs to. */
void segment_wait(struct segment *s);

void segment_fini(struct segment *s);
