/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node's doors for RDMA: all ports of this host that can be used, or those that were
 * asked for; at each the pool, registered twice (to be read; to be written, too), and a
 * listener. What comes in is for the session whose ticket it brings (engine/ways.h), or
 * carries messages (engine/stream_rdma.h).
 *
 * A device may go away and come back, and take only its own door with it: all are looked
 * after every few seconds, on a thread of their own ("node-doors"), since to open one and
 * to register a pool takes time. While there is none sessions are told why.
 *
 * Threads: doors_open(), doors_close() block, and any but the node's loop; all else, and
 * the callbacks, the node's loop.
 */
#include "engine/engine.h"
#include "engine/rdma.h"
#include "engine/wire.h"

struct doors;

struct doors_opts {
	struct loop *loop; /* the node's */
	struct pool *pool; /* both outlive it */
	/* That the node listens at, or will; lent for the call. Its port is the first
	 * choice. Loopback: no door. */
	const struct sockaddr_storage *at;
	struct engine_rdma rdma;
	void (*request)(void *arg, struct rdma_conn *c, struct bytes ticket);
	void *arg;
};

/* Opens what can be opened now; listens when doors_listen() says. Also 0 if there is
 * nothing: *ret_why says so (else it is not written), and it goes on looking.
 * -EOPNOTSUPP: there never will be, with a sentence. -ENOMEM. */
int doors_open(const struct doors_opts *o, struct doors **ret, char **ret_why);
/* With the port number of this address, where that is free. Once. Negative: none yet. */
int doors_listen(struct doors *d, const struct sockaddr_storage *at);
const char *doors_why(const struct doors *d); /* there is none now */
/* All connections were freed. NULL is fine. */
void doors_close(struct doors *d);

/* Segments, ports and keys, as a session may have them; ret is for wire_rdma_fini(),
 * its `why` is there until the next call. -ENOMEM. */
int doors_tell(struct doors *d, bool read_only, struct wire_rdma *ret);
