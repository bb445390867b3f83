/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The references of slices, counted where the index is: as its rows are written, by
 * whichever mount, each extent in the new value of a row is a reference more, and
 * each in the old one a reference less. So who writes rows need not count, and a
 * mount that dies leaves no wrong count.
 *
 * A reference is there before the commit: who reads the row finds LIVE slices. It
 * is gone after the commit, and before whoever asked for it has an answer: what it
 * freed can be taken at once.
 *
 * What a row names is looked at, too: an extent of another pool, or of a slice that
 * is not there with that generation and length or not sealed (I5), and a row that
 * does not decode, are refused with the transaction that would write it. At the
 * next start they would be damage.
 *
 * Threads: those of whoever commits; LOCK_POOL for moments.
 */
#include "engine/pool.h"
#include "engine/tier.h"
#include "index/kv.h"

struct refs;

/* Counts from here on, until kv has no observers any more or is closed; refs_close() comes
 * after that. What is stored was counted by the rebuild. -EOPNOTSUPP: kv is not in
 * this process. t: the disk, whose extents are counted by segment; NULL: there is none. */
int refs_open(struct pool *p, struct tier *t, struct kv *kv, struct refs **ret);
void refs_close(struct refs *r); /* NULL is fine */
