/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which ways there are from the ports of a mount to those of a node, and which of them a
 * connection takes. It has its first choice, its home, and others in the order in which
 * they are tried when that one fails:
 *
 *	own ports a, b     node's ports c, d, each reaches both
 *	connection 0: a-c  1: b-d  2: a-d  3: b-c
 *
 * All is pure. Threads: any.
 */
#include "engine/rdma_port.h"

/* From worst to best. */
enum rdma_reach {
	RDMA_REACH_OTHER,      /* another family: the kernel may know a way */
	RDMA_REACH_LINK_LOCAL, /* both have such an address; perhaps not on one link */
	RDMA_REACH_FAMILY,     /* both have addresses of one family */
	RDMA_REACH_ROUTE,      /* the kernel would go there from this port's address */
	RDMA_REACH_SUBNET,     /* in the subnet of one of its addresses */
};

/* A port of the node, as it says. */
struct rdma_far {
	struct sockaddr_storage address; /* and port */
	struct sockaddr_storage from;    /* whence the kernel would go there; AF_UNSPEC: unknown */
};

enum { RDMA_FAR_MAX = 64 }; /* of a node's ports that are looked at */

struct rdma_path {
	unsigned own, far;
	enum rdma_reach reach;
	struct sockaddr_storage from; /* AF_UNSPEC: wherever the kernel likes */
	struct sockaddr_storage to;   /* a link-local one: by the interface of the own port */
};

struct rdma_turn {
	unsigned conn;    /* number of the connection among those of the mount, from 0 on */
	unsigned offset;  /* the mount's own: so that mounts spread over the node's ports */
	unsigned attempt; /* 0: home; after the last one it begins anew */
	bool stays;       /* with the own port of its home: others are looked after */
};

/* False: there is none, since one of the lists is empty. Own ports are in the order in
 * which they are liked. */
bool rdma_path(const struct rdma_choice *const *own, unsigned nown, const struct rdma_far *far,
	       unsigned nfar, const struct rdma_turn *turn, struct rdma_path *ret);
