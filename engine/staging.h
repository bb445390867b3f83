/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Registered memory of a fixed size, from which buffers of up to 1 MiB are taken for
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

/* bytes: a multiple of 4 MiB. d: where it is registered (RDMA_MINE), outlives it; NULL:
 * nowhere, for tests. -ENOMEM, -EINVAL, or what rdma_mem_new() says. */
int staging_new(struct rdma_dev *d, uint64_t bytes, struct staging **ret, char **ret_why);
void staging_free(struct staging *s); /* all was given back; NULL is fine */

const struct rdma_mem *staging_mem(const struct staging *s);

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
