/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Looks at the bytes of an LMDB file before LMDB does: LMDB follows page
 * numbers, offsets and lengths from the file unchecked, and a damaged one makes
 * it crash or write elsewhere. What passes here it can be trusted with.
 */
#include <stdint.h>

struct lmdb_shape {
	uint64_t map_bytes;  /* what the file was made or grown to */
	uint64_t used_bytes; /* from its beginning to the last page ever used */
};

/*
 * Walks every page that the newer of the two headers can reach, and the list of
 * free ones. 0; -EPROTONOSUPPORT (LMDB, of another format); -EUCLEAN, with the
 * reason (a phrase, static) in *ret_why.
 */
int lmdb_guard(const void *file, uint64_t bytes, struct lmdb_shape *ret,
	       const char **ret_why);
