/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who goes when there is no room: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are
 * all you need for cache eviction", SOSP 2023), by object.
 *
 *	                 used                      used
 *	put --> SMALL ---------------> MAIN <-----------------+
 *	 |        | not used            ^ |                   |
 *	 |        v                     | +--> its end -------+
 *	 |      taken, and its name     |           | not used
 *	 |      remembered: a ghost     |           v
 *	 +------------------------------+         taken
 *	      whose name is a ghost's
 *
 * What is new stands in a small queue, a tenth of all. Who has been used when its turn comes
 * moves to the main queue; there each use, three at most, is good for one more turn. So what
 * is read once, be it as much as there is room for, passes through and pushes out nothing
 * that is in use. An object that comes back is a new one, with another fileid: it is known
 * again by its name.
 *
 * There are such pairs of queues of objects that have pages, weighed by them, and of those
 * that are in the index only, each of the weight 1; and of either for each priority: while there
 * is anything of a lower one, nothing of a higher one goes.
 *
 * What is not in here is not evicted, and nothing else depends on it: it is told of what is
 * committed, and who takes an object out of here looks at what it is now.
 *
 * Memory: 28 bytes an object, and 3 for what it is found by and for ghosts, of which there are
 * half as many as objects. It does not shrink.
 *
 * Threads: any. LOCK_POLICY, held for moments (who looks for a victim lets it go between
 * whiles); who observes a commit takes it. Not who uses an object: policy_use().
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

struct policy;

enum policy_kind {
	POLICY_PAGES, /* objects that have pages in the pool */
	POLICY_BARE,  /* others */
	POLICY_KINDS,
};

enum {
	POLICY_PRIORITIES = 3,
	POLICY_H_LOW = 31, /* bits of h, of 63, that are not kept */
};

struct policy_object {
	uint64_t fileid;
	uint64_t parent, h; /* where its name is; 0, 0: it has several */
	uint32_t pages;
	uint8_t priority; /* below POLICY_PRIORITIES: who has a lower one goes first */
};

struct policy_stat {
	uint64_t objects[POLICY_KINDS];
	uint64_t pages; /* of all, what several share counted for each */
	uint64_t taken; /* of all objects */
	uint64_t back;  /* ever: came back soon after they had gone */
	uint64_t bytes; /* of memory */
};

int policy_new(struct policy **ret);
struct policy *policy_free(struct policy *p); /* NULL is fine, and returned */

/* It is there, new or changed; who is taken stays so. It is not known, or as it was before:
 * -ENOMEM; -ERANGE: fileid or parent has more than 48 bits, or h more than 63. */
int policy_put(struct policy *p, const struct policy_object *o);
/* It is not there any more. Of what was taken the name is remembered, where that is of
 * use. Unknown is fine. */
void policy_remove(struct policy *p, uint64_t fileid);
/* Somebody opens it, reads it without, or says that it is in use. Unknown is fine. Takes no
 * lock, and writes nothing once 63 of them are known. */
void policy_use(struct policy *p, uint64_t fileid);

/* How often, since it was put, up to 63 times; 0 of what is not known. */
unsigned policy_hits(struct policy *p, uint64_t fileid);

/* As it was put, but for the lower bits of h, which are 0, and pages of more than 8 MiB, which
 * are too few by less than a thousandth (here, in weights and sums). False: it is not known. */
bool policy_get(struct policy *p, uint64_t fileid, struct policy_object *ret);

/* Takes the object of this kind whose turn it is: nobody else gets it until policy_keep()
 * or policy_remove(). False: there is none that is not taken. */
bool policy_take(struct policy *p, enum policy_kind kind, struct policy_object *ret);
/* The same of one that is known and not taken. */
bool policy_take_this(struct policy *p, uint64_t fileid, struct policy_object *ret);

/* Objects of a kind in about the order in which they would go, the next n of them: how many there
 * are, 0 at the end. Cursor: all zeros at first. What comes and goes meanwhile may be seen, or not;
 * others may be seen twice. */
struct policy_cursor {
	uint32_t queue, slot;
};
unsigned policy_see(struct policy *p, enum policy_kind kind, struct policy_cursor *c,
		    struct policy_object *v, unsigned n);

/* What was taken could not go now: it has its turn again after all others. */
void policy_keep(struct policy *p, uint64_t fileid);

void policy_stat(struct policy *p, struct policy_stat *ret);

/* For tests: the queues, the table and the sums. Lines to report; the number of violations. */
int policy_check(struct policy *p, struct writer *report);
