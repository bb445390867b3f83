/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Time: monotonic nanoseconds for waiting, wall clock for what users see. */
#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ULL

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The time for mtime and its like. The coarse clock, as in the kernel's own
 * file systems: a few ns instead of a TSC read; a tick of resolution. */
static inline struct timespec clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return t;
}
