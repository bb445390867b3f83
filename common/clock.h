/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Time: monotonic nanoseconds for waiting, wall clock for what users see. */
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

/* The time for mtime and its like. The coarse clock, as in the kernel's own
 * file systems: a few ns instead of a TSC read; a tick of resolution. */
static inline struct timespec clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return t;
}

static inline bool time_is_same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Is a the later one of two that differ? */
static inline bool time_is_after(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* The first whole second that is not before t: what lasts from there on lasts long enough. */
static inline int64_t time_up_s(struct timespec t)
{
	return t.tv_sec + (t.tv_nsec && t.tv_sec < INT64_MAX);
}

static inline struct timespec time_later(struct timespec a, struct timespec b)
{
	return time_is_after(a, b) ? a : b;
}
