/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The RDMA ports that a mount uses: all of this host that can be used, or those that were
 * asked for, with its buffers registered at each. One whose device or address is lost goes
 * with its connections, and is opened anew when it is there again.
 *
 * Threads: nics_look() and nics_free() block: not from the loop, one at a time. All else, and
 * lost(), the loop's.
 */
#include "engine/engine.h"
#include "engine/rdma.h"
#include "engine/rdma_path.h"
#include "engine/staging.h"

struct nic;
struct nics;

struct nics_opts {
	struct loop *loop;       /* outlives it, as */
	struct staging *staging; /* the buffers */
	struct engine_rdma rdma;
	void (*lost)(void *arg, const char *why); /* the last one is */
	void *arg;
};

int nics_new(const struct nics_opts *o, struct nics **ret);
/* Nothing is under way by them, and connections were freed. NULL is fine. */
void nics_free(struct nics *x);

/* Opens what there is and has not been opened, closes what is lost and not in use. local:
 * from which the node is reached by TCP, or NULL. 0: there is one; or as rdma_find(),
 * rdma_dev_open(), rdma_mem_new(). */
int nics_look(struct nics *x, const struct sockaddr_storage *local, char **ret_why);
unsigned nics_count(const struct nics *x); /* that are open; also after nics_look() */

/* The way to go, by a port that is up. NULL: there is none. */
struct nic *nics_path(const struct nics *x, const struct rdma_far *far, unsigned nfar,
		      const struct rdma_turn *turn, struct rdma_path *ret);

/* Is there one that is up and has no connection? */
bool nics_has_idle(const struct nics *x);

/* As long as a connection of it is there. */
struct rdma_dev *nic_dev(const struct nic *n);
const struct rdma_mem *nic_mem(const struct nic *n); /* the buffers */
