/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Memory of a fixed size, registered with devices, from which buffers of up to 1 MiB are taken for
 * the time of an op: what the kernel's requests point to is not registered. It is
 * the bound of what a mount has under way; who finds it empty waits in line.
 *
 * Threads: any. LOCK_STAGING, held for moments.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rdma_dev;
struct rdma_mem;
struct staging;

enum { STAGING_MAX = 1 << 20 };

/* bytes: a multiple of 4 MiB. -ENOMEM, -EINVAL. */
int staging_new(uint64_t bytes, struct staging **ret, char **ret_why);
/* All was given back, no device has it any more; NULL is fine. */
void staging_free(struct staging *s);

/* At each device that is to use it (RDMA_MINE), as rdma_mem_new(), for rdma_mem_free(). */
int staging_register(struct staging *s, struct rdma_dev *d, struct rdma_mem **ret,
		     char **ret_why);

/* len bytes (1..STAGING_MAX) at a multiple of 4 KiB, whatever was in them before;
 * NULL: there are none now, or others wait. */
void *staging_take(struct staging *s, size_t len);

/* Gives back what was taken, with the same len; serves those who wait. */
void staging_give(struct staging *s, void *at, size_t len);

/* Who waits keeps this until got(), which comes once, from whoever gives back, with
 * no lock held. at: its buffer, to be given back. */
struct staging_wait {
	size_t len;
	void (*got)(struct staging_wait *w, void *at);
	struct staging_wait *next; /* staging's, as the rest */
	void *at;
};

/* Waits in line; got() may come before it returns. */
void staging_wait(struct staging *s, struct staging_wait *w);
/* Waits no more. False: got() has come or is coming. */
bool staging_cancel(struct staging *s, struct staging_wait *w);
