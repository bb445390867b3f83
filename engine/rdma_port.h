/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which RDMA ports a process uses, and why. A port is known to the connection
 * manager by the IP addresses of its network interface: with RoCE each of them is an
 * entry of its GID table, so choosing an entry is choosing the address from which, or
 * at which, connections are made; InfiniBand's GIDs are none, and its addresses those
 * of the interface with its hardware address (IPoIB). `slicefs doctor` prints what is
 * listed here.
 *
 * Threads: any. All is pure but what asks the kernel: rdma_ports() and rdma_find(), for
 * some milliseconds a device, rdma_ports_locate_here(), rdma_numa_node().
 */
#include <ifaddrs.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum rdma_link { RDMA_LINK_OTHER, RDMA_LINK_IB, RDMA_LINK_ETHERNET };

enum rdma_gid_kind { RDMA_GID_IB, RDMA_GID_ROCE_V1, RDMA_GID_ROCE_V2 };

enum {
	RDMA_NAME = 64,
	RDMA_CHOICES_MAX = 16, /* ports that a process uses */
	RDMA_ADDRESSES_MAX = 8, /* of a port, that are looked at */
};

struct engine_rdma;

struct rdma_gid {
	unsigned index; /* in the port's table, which has gaps */
	enum rdma_gid_kind kind;
	uint8_t raw[16];
	unsigned interface; /* number of the network interface; 0: none */

	/* rdma_ports_locate() */
	uint8_t ip[16];      /* InfiniBand: IPv6, IPv4 as ::ffff:1.2.3.4; or zeros */
	unsigned prefix_len; /* of the address, of 128 bits; 0: not known */
	bool elsewhere;      /* its address is in another network namespace */
};

struct rdma_port {
	char device[RDMA_NAME];
	unsigned port;     /* from 1 on */
	const char *state; /* "active", "down", ...: a constant */
	bool active;
	bool iwarp;
	enum rdma_link link;
	unsigned mtu_bytes;
	int numa_node; /* -1: not known */
	struct rdma_gid *gids;
	unsigned ngids;
};

/* All ports of all devices, to be freed by rdma_ports_free(); none is no error.
 * -EOPNOTSUPP: built without RDMA; -ENOMEM. */
int rdma_ports(struct rdma_port **ret, unsigned *ret_n, char **ret_why);
void rdma_ports_free(struct rdma_port *v, unsigned n); /* NULL is fine */

/* What the interfaces of this network namespace say of them: all devices may be seen in
 * all namespaces, and their addresses are where their interfaces are. */
void rdma_ports_locate(struct rdma_port *v, unsigned n, const struct ifaddrs *interfaces);
/* By those of the caller's namespace; where they cannot be listed nothing is known. */
void rdma_ports_locate_here(struct rdma_port *v, unsigned n);

/* The NUMA node in which this process runs; -1: in several, or nobody knows. */
int rdma_numa_node(void);

struct rdma_want {
	const char *device; /* --rdma-device: "mlx5_0", "mlx5_0:1"; NULL: any */
	int gid_index;      /* --gid-index; -1: any */
	/* The local address of the TCP connection to the other side, or that is
	 * listened at: its port is the first choice. NULL: none. */
	const struct sockaddr_storage *local;
	int numa_node; /* its ports come before others; -1: all are equal */
};

struct rdma_address {
	struct sockaddr_storage address; /* port 0 */
	unsigned prefix_len;             /* of 128 bits; 0: not known */
	unsigned interface;
};

struct rdma_choice {
	char device[RDMA_NAME];
	unsigned port, gid_index;
	/* Its family is AF_UNSPEC where InfiniBand has no interface. */
	struct sockaddr_storage address;
	const char *reason; /* a constant: why this one of those that could be used */
	enum rdma_link link;
	bool is_near; /* of rdma_want.numa_node */
	/* All that could be chosen, `address` first. */
	struct rdma_address addresses[RDMA_ADDRESSES_MAX];
	unsigned naddresses;
};

/*
 * All ports that can be used, each by the best of its GIDs, *ret_n of `max` at most. Of a
 * port: the address `local`, then RoCE v2 with an IPv4 address, with an IPv6 address,
 * InfiniBand, and last RoCE v2 with a link-local address. Of ports: that with `local`, then
 * near ones, then by their GIDs in that order, then as in the list. RoCE v1 and iWARP
 * are never chosen. None: -ENODEV with a sentence that says what is wrong with each.
 */
int rdma_choose_all(const struct rdma_port *v, unsigned n, const struct rdma_want *w,
		    struct rdma_choice *ret, unsigned max, unsigned *ret_n, char **ret_why);
/* The first of these. */
int rdma_choose(const struct rdma_port *v, unsigned n, const struct rdma_want *w,
		struct rdma_choice *ret, char **ret_why);

/* The choice of a node or a mount among the ports of this host, RDMA_CHOICES_MAX at most.
 * -ENOENT (there is no device), as rdma_ports() and rdma_choose_all(). */
int rdma_find(const struct engine_rdma *o, const struct sockaddr_storage *local,
	      struct rdma_choice *ret, unsigned *ret_n, char **ret_why);

/* By whichever of its GIDs. */
bool rdma_is_same_port(const struct rdma_choice *a, const struct rdma_choice *b);

/* The IP address that a GID stands for, port 0; AF_UNSPEC: none. */
void rdma_gid_address(const struct rdma_gid *g, struct sockaddr_storage *ret);
/* Whatever the port. */
bool rdma_gid_is_address(const struct rdma_gid *g, const struct sockaddr_storage *a);

const char *rdma_gid_kind_name(enum rdma_gid_kind k);
const char *rdma_link_name(enum rdma_link l);
