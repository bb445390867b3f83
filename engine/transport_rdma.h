/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node's slices by one-sided RDMA. What becomes of posts: engine/slots.h. The node
 * checks nothing of what is read and written so. Before a post is sent this side does:
 * that its slice is held, is not lost, and has those bytes (node_covers()); and where the
 * session only reads, writes are refused (-EROFS).
 *
 * Bytes are copied once, between the caller's memory and registered buffers
 * (engine/staging.h), whose number bounds what is under way.
 *
 * It has a connection for each port of this host that reaches one of the node's, two at
 * least (rdma_path.h), and posts go over all of them. When one ends, posts go on by the
 * others; with none left, or no device (nics.h), it gives up (slots.h), and another
 * one is to be opened (transport_auto.c).
 *
 * Threads: as slots.h; its loop is "remote-rdma".
 */
#include <stdatomic.h>

#include "engine/engine.h"
#include "engine/node.h"
#include "engine/remote.h"
#include "engine/transport.h"

struct transport_rdma_opts {
	struct engine_rdma rdma;
	struct node *node;      /* NULL: tests, which post to no slice that may be lost */
	const atomic_bool *cancelled; /* or NULL: it returns soon when that is set */
	/* 0: what is usual */
	uint32_t conns, timeout_ms, max_posts, open_ms;
	unsigned turn; /* begins with the turn-th of the ways there are (rdma_path.h) */
	uint64_t max_bytes;
	uint64_t staging_bytes; /* a multiple of 4 MiB */
};

/* Borrows x: close it before remote_close(). Returns when a connection is up. Blocks,
 * not from a loop of x. -EOPNOTSUPP (not built in), -ENOENT (no device here), -ENODEV,
 * -ENOMEM, -ETIMEDOUT, ...: with a sentence. */
int transport_rdma_open(struct remote *x, const struct transport_rdma_opts *o,
			struct transport **ret, char **ret_why);
/* Looks for ports that have come back, and leads connections back to where they would be
 * if nothing had happened. Every few seconds, by who opened it. Blocks. */
void transport_rdma_look(struct transport *t);
/* It has given up: close it. Any thread. */
bool transport_rdma_is_over(struct transport *t, char **ret_why);
