/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The node's side of a session's ways, its RDMA connections. Each begins with a ticket
 * that the session is given and brings back once, at the doors. The mount then reads
 * and writes by itself, wherever its keys reach: a read-only session's can read.
 *
 * A way is fenced (I6) when it is closed: then its queue pair is gone, and nothing
 * that was sent over it can touch a slice.
 *
 * Threads: the session's loop.
 */
#include "engine/doors.h"

struct ways;

struct ways_opts {
	struct doors *doors; /* NULL: there are none */
	bool read_only;
	uint32_t max; /* ways and tickets at a time */
	void (*gone)(void *arg); /* after ways_close(): the last one is */
	void *arg;
};

int ways_new(const struct ways_opts *o, struct ways **ret);
void ways_free(struct ways *w); /* there is none; NULL is fine */

/* A ticket for a way of that number. -EEXIST (there is one), -EUSERS (over max),
 * -ENOTCONN (after ways_close()), -ENOMEM. */
int ways_offer(struct ways *w, uint32_t number, uint8_t ret_ticket[WIRE_TICKET]);
/* Takes c, if the ticket is one of these and nobody has used it. */
bool ways_accept(struct ways *w, struct rdma_conn *c, struct bytes ticket);

bool ways_has(const struct ways *w, uint32_t number);
/* As lanes_fence(), of a way or a ticket that is there. */
int ways_fence(struct ways *w, uint32_t number, const struct wire_header *h,
	       void (*done)(void *arg, const struct wire_header *h), void *arg);

/* Closes all of them. True: there is none left. Otherwise gone() follows. */
bool ways_close(struct ways *w);
