/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The directories: which is in which, how much of the pool the files in each take, and of
 * those that have a quota how much there is below them. A file of several names is counted in none.
 *
 * What is put and added is what rows of the index say. At first in any order, and then
 * dirs_count(); after that a directory comes before what is in it.
 *
 * A change of a file, or the move of a directory, costs a step for each directory above it where
 * there is any quota, and one step where there is none. The first quota costs a walk over all, in
 * lots: until its end less is known to be below a directory than there is, and never more.
 *
 * Memory: some 120 bytes a directory.
 *
 * Threads: one at a time; uses.h has the lock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/index.h"

struct dirs;

int dirs_new(struct dirs **ret);
void dirs_free(struct dirs *d); /* NULL is fine */

/* It is there, in `parent` (of the root: itself), with a quota of so many pages; 0: none.
 * -ENOMEM: what it was before. */
int dirs_put(struct dirs *d, uint64_t dir, uint64_t parent, uint64_t quota);
void dirs_remove(struct dirs *d, uint64_t dir); /* unknown is fine */

/* So many bytes as a quota: less than a page is one, not none. */
static inline uint64_t dirs_quota_of(uint64_t bytes)
{
	return bytes && bytes < PAGE_BYTES ? 1 : bytes / PAGE_BYTES;
}

/* All have been heard of, and are counted where there is a quota. Until then nothing is over. */
void dirs_count(struct dirs *d);

/* A lot more of the walk that the first quota has begun. False: it is at its end. */
bool dirs_count_more(struct dirs *d);
bool dirs_is_counting(const struct dirs *d); /* it is not */

/* Files in it take so many pages more, or less. -ENOMEM: they are not counted. */
int dirs_add(struct dirs *d, uint64_t dir, int64_t pages);

bool dirs_have_quotas(const struct dirs *d);
/* Pages below a directory that has a quota; 0: it has none. */
uint64_t dirs_used(const struct dirs *d, uint64_t dir);
/* One that has more than that and does not rest at now_ns, behind `after` (0: the first one); 0:
 * there is none. *ret_pages: how many too much. */
uint64_t dirs_over(const struct dirs *d, uint64_t after, uint64_t now_ns, uint64_t *ret_pages);
/* It could not be kept to its quota: until then it is not looked at again. Unknown is fine. */
void dirs_rest(struct dirs *d, uint64_t dir, uint64_t until_ns);
/* How many have one; *ret_over: and more than that. */
uint64_t dirs_quotas(const struct dirs *d, uint64_t *ret_over);
/* Is it this one, or below it? */
bool dirs_is_below(const struct dirs *d, uint64_t dir, uint64_t above);
