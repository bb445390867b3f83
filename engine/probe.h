/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node looked at from where a mount would be, one step after the other: find it,
 * reach it, be let in, and move bytes the way files do. And what else the engine alone
 * knows of this host. This is a second public header of engine/, for `slicefs doctor`.
 *
 * Every step ends within its timeout and a moment, whatever the node does. What was taken
 * there is given back by probe_close(), or ends with the session.
 *
 * Threads: one at a time for each probe. Everything here blocks.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct probe;

enum { PROBE_NAME = 64 };

/* The address of a node, "host" or "host:port". -EINVAL, -ENOENT: no such host,
 * -ETIMEDOUT: nobody answers what asks for names. */
int probe_find(const char *node, uint32_t timeout_ms, struct sockaddr_storage *ret);

struct probe_path {
	char name[PROBE_NAME];         /* of the node, "1.2.3.4:7747" */
	struct sockaddr_storage local; /* our end of a connection to it */
	uint64_t connect_ns;
	uint32_t mtu_bytes;            /* of the way there, as the kernel knows; 0: unknown */
};

/* Connects, says nothing, and closes. -ECONNREFUSED and its like, -ETIMEDOUT. */
int probe_reach(const struct sockaddr_storage *at, uint32_t timeout_ms, struct probe_path *ret);

struct probe_node {
	uint32_t version; /* of the protocol */
	uint64_t session, pool_bytes, free_bytes;
	uint32_t lanes;   /* data connections at a time */
};

/* Has a session at `name`, as an address of probe_reach(). token_file may be NULL. Errors
 * as engine_open() with a node; -EBADF: it is the token file of this host that is wrong. */
int probe_open(const char *name, const char *token_file, uint32_t timeout_ms, struct probe **ret,
	       char **ret_why);
void probe_close(struct probe *p); /* NULL is fine */

/* What the node says of itself. -ETIMEDOUT, -ENOTCONN. */
int probe_node(struct probe *p, struct probe_node *ret);

struct probe_pings {
	unsigned n; /* that were answered */
	uint64_t min_ns, avg_ns, max_ns;
};

/* One after the other, over the session's connection, by TCP. -ETIMEDOUT, -ENOTCONN. */
int probe_ping(struct probe *p, unsigned n, struct probe_pings *ret);
/* The same in one more session, whose requests go by RDMA. -EOPNOTSUPP: they do not, as a
 * mount's would not. Errors of probe_open(), too. */
int probe_ping_rdma(struct probe *p, unsigned n, struct probe_pings *ret);

enum probe_way { PROBE_TCP, PROBE_RDMA, PROBE_WAYS };

/* Opens a way, and takes some slices; the calls below do it, too, without a sentence.
 * -ENOSPC: the pool is full. -EOPNOTSUPP: the node, or this slicefs, does not have that
 * way. -ENOENT: no RDMA device here, -ENODEV: none there, or none that reaches it.
 * -ETIMEDOUT, -ENOTCONN, -EIO. *ret_why may stay NULL. */
int probe_way(struct probe *p, enum probe_way way, char **ret_why);

/* Reads some bytes of a slice, once after the other, that way. */
int probe_touch(struct probe *p, enum probe_way way, unsigned n, struct probe_pings *ret);

struct probe_moved {
	uint64_t bytes, ns;
};

/* Writes or reads slices for so long, in pieces of 1 MiB, several at a time. */
int probe_move(struct probe *p, enum probe_way way, bool write, uint32_t ms,
	       struct probe_moved *ret);

struct probe_memory {
	uint64_t total_bytes, available_bytes; /* of the machine, or of our control group */
	uint64_t left_bytes;                   /* what a new store leaves to others of these */
};

/* -EIO: /proc is not there, or not as expected. */
int probe_memory(struct probe_memory *ret);
