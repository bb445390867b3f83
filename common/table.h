/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* uthash, whose own hash functions clang warns of; keys of any length. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/random.h"

static inline unsigned table_hash(const void *key, size_t len)
{
	const char *p = key;
	uint64_t h = len, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = random_mix(h * RANDOM_STEP + word);
	}
	word = 0;
	memcpy(&word, p, len);
	return (unsigned)(random_mix(h * RANDOM_STEP + word) >> 32);
}

#define HASH_FUNCTION(p, len, hash) ((hash) = table_hash(p, len))
#include <uthash.h>
