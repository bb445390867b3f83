/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What one session holds of the pool: for each slice, how many pins are its.
 * Whatever a peer says of slices is held against this table, and what is in it
 * when the session ends is given back: nothing else has to remember (I2).
 *
 * A session may pin what is LIVE, and more often what it holds already; what
 * another session is writing it can neither pin nor read. It may seal and write
 * what it has allocated itself.
 *
 * Threads: any: requests come on the session's loop, spans are used and given back
 * on those of its data connections. One lock (LOCK_HOLDS) each; bytes are moved
 * without it.
 */
#include "engine/wire.h"

struct holds;

/* At most `max` pins. -ENOMEM. */
int holds_new(struct pool *p, uint32_t max, struct holds **ret);
/* Gives all pins back. No span may be in use. NULL is fine. */
void holds_free(struct holds *h);
uint32_t holds_npins(struct holds *h);
/* Slices that it allocated and has not sealed. */
uint32_t holds_nwriting(struct holds *h);

/* Slices of up to these pages, in this order, until the pool is full: POOL_FULL.
 * ret is for wire_items_fini(), also then. -EINVAL (pages), -EAGAIN (over max),
 * -ENOMEM: nothing was taken. */
int holds_alloc(struct holds *h, const struct wire_items *asked, struct wire_items *ret);

/* Each keeps its first `pages` and becomes SEALED; results are 0, -ESTALE (not
 * one that it allocated), -EINVAL (pages; it was sealed with others), -EAGAIN
 * (something is being written to it). 0, or -ENOMEM. */
int holds_seal(struct holds *h, const struct wire_items *asked, struct wire_results *ret);

/* One pin on each, or on none; or, if `each`, on those that can be. Results are 0,
 * WIRE_UNVERIFIED, -ESTALE, -EINVAL (it has another number of pages), -EAGAIN (over
 * max), -ENOMEM. 0: *ret is for wire_results_fini(); or the error of the first that
 * cannot be, and nothing was pinned. */
int holds_pin(struct holds *h, const struct wire_pin *asked, struct wire_results *ret);
/* One less on each. -EPROTO: it does not hold that. */
int holds_unpin(struct holds *h, const struct wire_items *asked);

/* Where the span's bytes are, pinned once more until holds_unuse(), so that they
 * stay there whatever is unpinned meanwhile. -ESTALE: not held, or not to be
 * written to. -EINVAL: outside. */
int holds_use(struct holds *h, const struct wire_span *s, bool writes, void **ret);
void holds_unuse(struct holds *h, struct slice_id s, bool writes);
