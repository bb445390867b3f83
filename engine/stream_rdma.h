/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A stream of bytes (common/stream.h) by SENDs over an RDMA connection of its own: the
 * second carrier of messages, beside TCP. Who sends when: engine/credits.h. Bytes are
 * copied once at each end, into and out of registered buffers; a write is done when the
 * other side's adapter has its bytes.
 *
 * Nobody on the other side may touch memory here: neither keys nor rights are given. Its
 * buffers, CREDITS_FIRST of each direction, become CREDITS_MAX with stream_widen(): 128
 * KiB of registered memory before, 512 KiB after it.
 *
 * What is not a SEND as it should be ends the stream with -EPROTO. A peer that cannot be
 * reached ends it, too: but only after some seconds, as long as a TCP connection of ours
 * lives without a word.
 *
 * Threads: the device's loop.
 */
#include "common/stream.h"
#include "engine/rdma.h"

struct stream_rdma_opts {
	struct loop *loop; /* the device's */
	uint64_t until_ns; /* to be up by then (clock_ns()); 0: in 10 s */
	void (*gone)(void *arg); /* or NULL: once, before ended(): the connection was freed */
	void *arg;
};

/* As stream_connect(), to a node's door at `to`. */
int stream_rdma_connect(struct rdma_dev *d, const struct sockaddr_storage *to,
			const struct stream_rdma_opts *o, struct stream **ret);

/* Do these private data, with which a connection is asked for, ask for a stream? */
bool stream_rdma_is_wanted(struct bytes ticket);

/* Accepts c as a stream, which is for stream_start() or stream_stop() at once. On failure,
 * -ENOMEM or -ENODEV, there is none, no gone(), and c was rejected. */
int stream_rdma_accept(struct rdma_conn *c, const struct stream_rdma_opts *o,
		       struct stream **ret);
