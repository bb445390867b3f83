/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Sizes as people read them. */
#include <stdint.h>

struct size_text {
	char s[24];
};

/* For a sentence, as --pool-size reads it, up to rounding: "1.5 GiB", "512 MiB",
 * "0 B". */
struct size_text size_text(uint64_t bytes);

/* For a column, where tenths line up: "4.0 KiB", "512 MiB", "17 B". */
struct size_text size_column(uint64_t bytes);
