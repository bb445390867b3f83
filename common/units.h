/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Sizes and times as people write them: 4096, 64K, 512M, 4G, 1T, 4GiB, 25% (of the
 * machine's memory); 50us, 500ms, 10s, 2m, 6h, 7d. A time has a unit, or is 0.
 */
#include <stdint.h>

struct unit {
	const char *text;
	uint64_t factor;
};

/* The largest first, the last factor is 1, NULL after it: of bytes, of microseconds. */
extern const struct unit units_of_size[], units_of_time[];

/* Leading digits of *s, which is moved past them. -EINVAL, -ERANGE. */
int units_digits(const char **s, uint64_t *ret);
/* Bytes, microseconds. -EINVAL (not such a value), -ERANGE. */
int units_size(const char *s, uint64_t *ret);
int units_time(const char *s, uint64_t *ret_us);

/* "90s", "36h", "7d": in the largest unit in which it comes out even; 0: "0". */
struct units_text {
	char s[24];
};
struct units_text units_text(const struct unit *of, uint64_t n);
