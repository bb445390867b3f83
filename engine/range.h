/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An asynchronous lock on ranges of a file's pages: what overlaps is done one
 * after the other, in the order in which it came, and nobody's thread waits. A
 * holder may complete on another thread than it began on.
 *
 * Threads: everything here under the file's lock, but the tasks of what has
 * been granted are run by the caller without it.
 */
#include <stdbool.h>
#include <stdint.h>

#include "engine/task.h"

#define RANGE_END UINT64_MAX

struct range {
	uint64_t from, to; /* pages; to is behind the last one */
	bool granted;
	struct task task;  /* run when it is granted later */
	struct range *prev, *next;
};

struct ranges { /* holders and waiters, in the order in which they came */
	struct range *first, *last;
};

static inline bool ranges_idle(const struct ranges *q)
{
	return !q->first;
}

/* True: granted. False: r->task runs when it is. */
bool range_take(struct ranges *q, struct range *r);

/* Gives a granted one back; returns the tasks to run, a list by `next`. */
struct task *range_give(struct ranges *q, struct range *r);

/* Runs such a list. */
void range_wake(struct task *list);
