/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Keeps the machine's processors from going to sleep while requests follow each
 * other closely: the kernel's PM QoS for latency, /dev/cpu_dma_latency, which is
 * for root and lasts as long as the descriptor is open, so it dies with us.
 *
 * What it is good for: a request and its answer wake a thread each, and waking a
 * thread on a processor that has halted costs a virtual machine some 20 us, more
 * than the operation. With this an idle processor polls instead, in the kernel's
 * idle loop, and takes up a thread in 1 to 2 us.
 *
 * Threads: one at a time; `held` may be read by any.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct awake {
	int fd;              /* < 0: may not, or shall not */
	int32_t latency_us;  /* that an idle processor may take to wake, while held */
	atomic_bool held;
};

/* Without the right to it, or not `wanted`: the calls below do nothing. */
void awake_init(struct awake *a, bool wanted);
void awake_fini(struct awake *a); /* lets go */

static inline bool awake_possible(const struct awake *a)
{
	return a->fd >= 0;
}

/* Holding twice is holding once. Each change costs some microseconds. */
void awake_hold(struct awake *a);
void awake_release(struct awake *a);
