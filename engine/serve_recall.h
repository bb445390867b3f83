/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A session's requests to have objects brought back from the disk (tier.h): each is answered
 * when that has been done, or its time is over. Answers to others overtake it.
 *
 * Threads: the session's loop's.
 */
#include "engine/conn.h"
#include "engine/tier.h"

struct recalls {
	struct loop *loop;
	struct tier *tier; /* or NULL: nothing is away */
	bool read_only;    /* it writes nothing */
	struct conn *conn;
	void (*gone)(void *arg); /* none waits any more, after recalls_close() said false */
	void *arg;
	struct recall_ask *first;
	bool closing;
};

/* Answers, now or later. -EPROTO: that is no such request. */
int recalls_ask(struct recalls *a, const struct wire_header *h, struct bytes body);

/* Those who wait are told to give up. Does nobody? Else gone() follows. */
bool recalls_close(struct recalls *a);
