/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What there is to evict, where the index is: as its rows are written, by whichever mount,
 * objects come to the policy (policy.h), change their names and sizes, and go; a time of
 * reading or a version that is another one is a use. Of files with several names it knows
 * all of them. What is pinned is not the policy's; what has an end is in expiry.h.
 *
 * It follows what is committed, and is told before whoever asked for it has an answer. What
 * there is no memory for is not known, which is said once in the log: it stays in the cache
 * until the next start.
 *
 * Threads: those of whoever commits, and any; LOCK_USES for moments.
 */
#include "engine/expiry.h"
#include "engine/policy.h"
#include "index/index.h"

struct uses;

struct uses_opts {
	struct policy *policy;
	struct expiry *expiry;
	uint32_t temp_s; /* after its last use a temporary file ends; 0: it does not */
	bool all_pinned; /* the expiry knows also what is pinned for ever */
	/* A directory has more than its quota, or all are to be counted; under no lock. Or NULL. */
	void (*over)(void *arg);
	void *arg;
};

/* Follows from here on. -EOPNOTSUPP: the index is not in this process. Nothing is under way in
 * the index while this is called, nor uses_close(), which comes before it is closed. */
int uses_open(struct index *ix, const struct uses_opts *o, struct uses **ret);
/* Reads what there was before, those first whose last use is longest ago. Once, on a thread that
 * may block, beside whatever is written; what comes meanwhile may stand before all of it.
 * -ECANCELED: uses_stop(). */
int uses_fill(struct uses *u, struct index *ix);
void uses_stop(struct uses *u);
void uses_close(struct uses *u); /* NULL is fine */

/* What the object of such an end is by now counts: it is not pinned any more, since time has
 * passed. Blocks; one thread at a time. INDEX_MISS: it is not there (any more); what comes to it
 * meanwhile is known as always. */
int uses_look(struct uses *u, struct index *ix, const struct expiry_end *end);

/* All names of a file that has several, or had: how many; they are the caller's to free.
 * -ENOENT: it has one or none; -ENOMEM. */
int uses_names(struct uses *u, uint64_t fileid, struct index_name **ret);

/* As of dirs.h, in pages. */
uint64_t uses_over(struct uses *u, uint64_t after, uint64_t *ret_pages);
void uses_rest(struct uses *u, uint64_t dir, uint64_t until_ns);
uint64_t uses_below(struct uses *u, uint64_t dir);
uint64_t uses_quotas(struct uses *u, uint64_t *ret_over);
bool uses_is_below(struct uses *u, uint64_t dir, uint64_t above);
bool uses_count_more(struct uses *u); /* is due when `over` is called */

/* For tests, while nothing is written or evicted: what is known, here and to the policy, is what
 * the index has. Blocks. Lines to report; the number of violations, or negative. */
int uses_check(struct uses *u, struct policy *p, struct index *ix, struct writer *report);
