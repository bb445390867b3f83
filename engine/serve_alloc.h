/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A session's requests for slices: what finds the pool full waits until the eviction has
 * made room, or found none. Answers to others overtake it.
 *
 * Threads: the session's loop's.
 */
#include "engine/conn.h"
#include "engine/evict.h"
#include "engine/holds.h"

struct allocs {
	struct loop *loop;
	struct holds *holds;
	struct evict *evict; /* or NULL: nobody makes room */
	struct conn *conn;
	void (*gone)(void *arg); /* none waits any more, after allocs_close() said false */
	void *arg;
	uint32_t n; /* that wait */
	bool closing;
};

/* Answers, now or later; takes `asked`. */
void allocs_ask(struct allocs *a, const struct wire_header *h, struct wire_items *asked);

/* From here on nothing is given to those who wait. Does nobody? Else gone() follows. */
bool allocs_close(struct allocs *a);
