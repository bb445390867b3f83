/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * RDMA as long as it works, else TCP (ENGINE_AUTO), or else nothing (ENGINE_RDMA): owns
 * a transport of each and says by which a post goes. What was out by RDMA when that
 * ended goes on the other way, or waits for its return until its deadline. RDMA is
 * tried again every few seconds.
 *
 * Threads: as transport.h; one of its own ("transports") opens and closes.
 */
#include "engine/engine.h"
#include "engine/node.h"
#include "engine/remote.h"
#include "engine/transport.h"

struct transport_auto_opts {
	struct engine_rdma rdma;
	struct node *node;
	uint32_t timeout_ms; /* of a post that has no deadline; 0: 10 s */
};

/* Borrows x and node. Blocks for some seconds at most, not from a loop. Negative: there
 * is no RDMA, and TCP is not wanted, or not to be had either; with a sentence. */
int transport_auto_open(struct remote *x, const struct transport_auto_opts *o,
			struct transport **ret, char **ret_why);
