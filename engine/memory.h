/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The memory that a store lives in: how much of it there is, and a tmpfs with
 * huge pages to put pool and index on. Any thread; nothing is kept.
 */
#include <stdbool.h>
#include <stdint.h>

struct memory {
	uint64_t total_bytes;     /* of the machine, or of our control group */
	uint64_t available_bytes; /* without swapping, as the kernel guesses */
};

/* -EIO: /proc is not there, or not as expected. */
int memory_now(struct memory *ret);

/* What a store leaves to others: a 32nd of the total, 64 to 512 MiB. */
uint64_t memory_margin(const struct memory *m);

/*
 * Mounts a tmpfs of that size at the existing folder `at`, mode 0700, with huge
 * pages (*ret_huge), or without where this kernel has none. It is in the mount
 * namespace of the process, so it outlives it. -EPERM, ...
 */
int memory_mount(const char *at, uint64_t bytes, bool *ret_huge);
int memory_resize(const char *at, uint64_t bytes);

/* Also while somebody has a file in it open, or stands in it. */
int memory_unmount(const char *at);

/* Is a tmpfs mounted at exactly this folder? */
bool memory_is_mounted(const char *at);
