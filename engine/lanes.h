/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The node's side of a session's lanes, its data connections: READ and WRITE, straight
 * between socket and slice.
 *
 * A lane is fenced (I6) when its socket is closed and no span is in use by it: from
 * then on nothing that was sent over it can touch a slice, whenever it comes.
 *
 * Threads: everything here is called, and calls back, on the session's loop. Each lane
 * works on the loop that lanes_add() named, which may be another.
 */
#include "engine/conn.h"
#include "engine/holds.h"

struct lanes;

struct lanes_opts {
	struct loop *loop; /* the session's */
	struct holds *holds; /* there until the last lane is gone */
	bool read_only;
	uint32_t max;      /* lanes at a time */
	uint32_t max_requests, keep_alive_ms; /* of each */
	void (*gone)(void *arg); /* after lanes_close(): the last one is */
	void *arg;
};

int lanes_new(const struct lanes_opts *o, struct lanes **ret);
void lanes_free(struct lanes *l); /* there is none; NULL is fine */

/* A lane of the connected socket fd, which it takes over, also on failure; it says
 * READY to the mount. `on` outlives lanes_free() and runs what is posted. -EEXIST (the
 * number), -EUSERS (over max), -ENOTCONN (after lanes_close()), -ENOMEM. */
int lanes_add(struct lanes *l, struct loop *on, int fd, uint32_t number);

bool lanes_has(const struct lanes *l, uint32_t number);

/* Closes the lane of that number, if there is one. done(arg, h) when it is fenced,
 * possibly before this returns. -ENOMEM: no done(). */
int lanes_fence(struct lanes *l, uint32_t number, const struct wire_header *h,
		void (*done)(void *arg, const struct wire_header *h), void *arg);

/* Closes all of them. True: there is none left. Otherwise gone() follows. */
bool lanes_close(struct lanes *l);
