/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A mount's RDMA device for its requests, beside that of its bytes (transport_rdma.h): it
 * is opened before there is a session, and outlives each of them. One that is lost is
 * closed, and looked for every few seconds, on a thread of its own ("remote-device"); until
 * then requests go by TCP.
 *
 * Threads: opening and closing block, and not on a loop; remote_rdma_connect() the link's
 * loop.
 */
#include "common/stream.h"
#include "engine/engine.h"

struct remote_rdma;

struct remote_rdma_opts {
	struct loop *loop; /* the link's; outlives it */
	struct engine_rdma rdma;
	struct sockaddr_storage to; /* the node */
};

/* 0 also if there is no device now. -EOPNOTSUPP: there never will be one that leads there.
 * -ENOMEM. */
int remote_rdma_open(const struct remote_rdma_opts *o, struct remote_rdma **ret);
void remote_rdma_close(struct remote_rdma *d); /* all streams have ended; NULL is fine */

/* A stream to the node's address, as stream_connect(). -ENODEV: there is no device now. */
int remote_rdma_connect(struct remote_rdma *d, uint64_t until_ns, struct stream **ret);
