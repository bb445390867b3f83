/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which RDMA port a process uses, and why. A port is known to the connection
 * manager by the IP addresses of its network interface, each of which is an entry
 * of its GID table; so choosing an entry is choosing the address from which, or at
 * which, connections are made. `slicefs doctor` prints what is listed here.
 *
 * Threads: any. rdma_choose() and what is below it are pure; rdma_ports() asks the
 * kernel, for some milliseconds a device.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum rdma_link { RDMA_LINK_OTHER, RDMA_LINK_IB, RDMA_LINK_ETHERNET };

enum rdma_gid_kind { RDMA_GID_IB, RDMA_GID_ROCE_V1, RDMA_GID_ROCE_V2 };

enum { RDMA_NAME = 64 };

struct rdma_gid {
	unsigned index; /* in the port's table, which has gaps */
	enum rdma_gid_kind kind;
	uint8_t raw[16];
	unsigned interface; /* number of the network interface; 0: none */
};

struct rdma_port {
	char device[RDMA_NAME];
	unsigned port;     /* from 1 on */
	const char *state; /* "active", "down", ...: a constant */
	bool active;
	bool iwarp;
	enum rdma_link link;
	unsigned mtu_bytes;
	struct rdma_gid *gids;
	unsigned ngids;
};

/* All ports of all devices, to be freed by rdma_ports_free(); none is no error.
 * -EOPNOTSUPP: built without RDMA; -ENOMEM. */
int rdma_ports(struct rdma_port **ret, unsigned *ret_n, char **ret_why);
void rdma_ports_free(struct rdma_port *v, unsigned n); /* NULL is fine */

struct rdma_want {
	const char *device; /* --rdma-device: "mlx5_0", "mlx5_0:1"; NULL: any */
	int gid_index;      /* --gid-index; -1: any */
	/* The local address of the TCP connection to the other side, or that is
	 * listened at: its port is the first choice. NULL: none. */
	const struct sockaddr_storage *local;
};

struct rdma_choice {
	char device[RDMA_NAME];
	unsigned port, gid_index;
	/* Of the GID; its family is AF_UNSPEC on InfiniBand, whose GIDs are none. */
	struct sockaddr_storage address;
	const char *reason; /* a constant: why this one of those that could be used */
};

/*
 * The best of these ports and of their GIDs: one that is the address `local`, then
 * RoCE v2 with an IPv4 address, with an IPv6 address, InfiniBand, and last RoCE v2
 * with a link-local address; in that order the first in the list. RoCE v1 and iWARP
 * are never chosen. -ENODEV with a sentence that says what is wrong with each.
 */
int rdma_choose(const struct rdma_port *v, unsigned n, const struct rdma_want *w,
		struct rdma_choice *ret, char **ret_why);

/* The IP address that a RoCE GID stands for, port 0. */
void rdma_gid_address(const struct rdma_gid *g, struct sockaddr_storage *ret);
/* Whatever the port. */
bool rdma_gid_is_address(const struct rdma_gid *g, const struct sockaddr_storage *a);

const char *rdma_gid_kind_name(enum rdma_gid_kind k);
const char *rdma_link_name(enum rdma_link l);
