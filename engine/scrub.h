/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Scrubbing: all that is published is compared with its checksums while it is in use, where
 * pool and index are. One at a time; its calls are in engine.h.
 *
 *	scrubs_new() .. engine_scrub() -> thread "scrub" -> its end
 *	                      |  scrub_write() ...
 *	                      '- scrub_end(): it stops, and goes when it has stopped
 *
 * It holds a pin on a slice while it reads 64 KiB of it, a segment of the disk while it reads a
 * MiB of that, and no lock; counts as no use for the eviction; runs at the lowest priority, and
 * no faster than it was told. What moves on under it is no damage: a slice keeps its bytes as
 * long as it has its generation (I3), and an object whose record names other bytes by now is
 * looked at again, a few times, and then left to the next scrub. So it may pass over what is
 * renamed meanwhile, or see it twice.
 *
 * Threads: the scrub's own; calls from any, LOCK_SCRUB for moments.
 */
#include "engine/engine.h"
#include "engine/priv.h"

struct scrubs;

int scrubs_new(struct engine *e, struct scrubs **ret);
/* Stops the one that is under way, and waits for it. Whoever began it must have ended it.
 * NULL is fine. */
void scrubs_free(struct scrubs *x);

/* As engine_watch_eviction(): who is told of what goes because it is bad. */
void scrubs_watch(struct scrubs *x, const struct eviction *v);

/* As engine_scrub(). */
int scrub_begin(struct scrubs *x, const struct scrub_opts *o, struct scrub **ret);

/* What an extent's bytes are. */
enum scrub_found {
	SCRUB_SOUND,
	SCRUB_ELSEWHERE, /* in another pool, which nobody here can read */
	SCRUB_UNLISTED,  /* a block that lists extents is not there, or damaged */
	SCRUB_GONE,      /* the slice is not there (any more) */
	SCRUB_OTHER,     /* they do not match their checksums */
	SCRUB_FAILED,    /* the disk cannot read them */
	SCRUB_STOPPED,
};
