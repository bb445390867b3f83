/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What all values have in common (index/ only): one byte of format version, then
 * the crc32c of everything behind it, then the content.
 */
#include "common/bytes.h"

enum { VALUE_VERSION = 1, VALUE_HEADER = 5 };

/* Begins a value at the end of w; returns where, for value_end(). */
size_t value_begin(struct writer *w);
void value_end(struct writer *w, size_t begin);

/* Checks version and crc, and leaves *ret at the content. -EUCLEAN, or
 * -EPROTONOSUPPORT for a version above ours. */
int value_open(struct bytes v, struct reader *ret);

/* crc32c() without the CPU's instruction, for machines that lack it. */
uint32_t crc32c_portable(struct bytes b);
