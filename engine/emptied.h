/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Directories that an eviction has emptied: they go when nothing has happened to them for a time
 * (--evict-dirs). The index knows which ones they are (index_some_evicted()); here they are looked
 * for now and then, and let go some at a time, between whatever else there is to evict. Where the
 * index is full they go sooner: no more of them than it takes.
 *
 * Threads: the eviction's.
 */
#include "engine/victim.h"

struct emptied;

/* ms: so long after that left it empty, one goes; 0: none does. vs and ix outlive it. */
int emptied_new(struct victims *vs, struct index *ix, uint64_t ms, struct emptied **ret);
void emptied_free(struct emptied *x); /* NULL is fine */

uint64_t emptied_ms(const struct emptied *x); /* as it was made with */

/* Both do some of it, so that others may have their turn; both block in the index. */

/* Some go, if it is time to. True: there is more to do. */
bool emptied_serve(struct emptied *x);
/* The index is full, and nothing else can go: some that have been so for a thousandth of that time
 * (ten minutes of a week), or for so long that mounts have said twice which are in use. *ret_gone:
 * how many. True: others may go if it is called again. */
bool emptied_press(struct emptied *x, unsigned *ret_gone);
