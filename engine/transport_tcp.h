/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node's slices over data connections (lanes) of the session that a link has there.
 *
 * What becomes of posts: engine/slots.h.
 *
 * Threads: as transport.h; one loop of its own ("remote-bytes") does everything, and
 * done() is called there.
 */
#include "engine/remote.h"
#include "engine/transport.h"

struct transport_tcp_opts {
	/* 0: what is usual */
	uint32_t conns;      /* lanes; fewer where the node says so */
	uint32_t timeout_ms; /* of a post that has no deadline */
	uint32_t max_posts;  /* that are out or wait; more are refused with -EAGAIN */
	uint64_t max_bytes;  /* of all of these */
};

/* Borrows x: close it before remote_close(). Blocks for a moment, not from the loop.
 * -EOPNOTSUPP: the node has no data connections. */
int transport_tcp_open(struct remote *x, const struct transport_tcp_opts *o,
		       struct transport **ret);
