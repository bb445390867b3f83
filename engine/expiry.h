/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which objects have an end, and when: of those that somebody gave a time to live, or pinned
 * until some day (where there is a disk also for ever, which never comes: nobody else knows where
 * these are), and of
 * temporary files that nobody has renamed. All others are not in here.
 *
 * Times are seconds since the epoch, as in records: what is to live for a day does so across
 * a restart, and across a clock that was set, by that clock.
 *
 * Memory: some 140 bytes an object that has an end.
 *
 * Threads: any; LOCK_EXPIRY for moments (who observes a commit takes it).
 */
#include <stdbool.h>
#include <stdint.h>

#include "index/index.h"

struct expiry;

enum expiry_reason {
	EXPIRY_TTL,  /* it has lived */
	EXPIRY_TEMP, /* a temporary name that was left over */
	EXPIRY_PIN,  /* it is not pinned any more */
	EXPIRY_REASONS,
};

struct expiry_end {
	uint64_t fileid;
	struct place place;        /* of the record */
	int64_t at;                /* s */
	int64_t then;              /* EXPIRY_PIN: when it ends itself, which may be earlier; 0: never */
	int64_t used;              /* s, when it was used last, as far as is known; or 0 */
	uint32_t idle;             /* s after its last use, if that is later; or 0 */
	enum expiry_reason reason;
	bool is_temp;              /* EXPIRY_PIN: by its name, and so it has an end after that */
};

int expiry_new(struct expiry **ret);
void expiry_free(struct expiry *x); /* NULL is fine */

/* It has this end now, instead of any other. -ENOMEM: it has none. */
int expiry_put(struct expiry *x, const struct expiry_end *end);
/* What was taken has it still, unless it has been given another one meanwhile. */
int expiry_keep(struct expiry *x, const struct expiry_end *end);
/* It has none, or is gone. Unknown is fine. */
void expiry_remove(struct expiry *x, uint64_t fileid);
/* It is used, at `now`. Of no effect, and without a lock, where that does not matter. */
void expiry_use(struct expiry *x, uint64_t fileid, int64_t now);

/* Which end comes next: 0, and it is not in here any more; INDEX_MISS: there is none until `now`;
 * *ret_at: that of the first, INT64_MAX: none is known. */
int expiry_take(struct expiry *x, int64_t now, struct expiry_end *ret, int64_t *ret_at);
/* When it ends if it is not used, not before its pin does; 0: never, or it is not known. */
int64_t expiry_at(struct expiry *x, uint64_t fileid);
/* Where the record is of one that is in here. */
bool expiry_place(struct expiry *x, uint64_t fileid, struct place *ret);
uint64_t expiry_number(struct expiry *x);
