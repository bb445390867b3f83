/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Looks at the bytes of an LMDB file before LMDB does: LMDB follows page
 * numbers, offsets and lengths from the file unchecked, and a damaged one makes
 * it crash or write elsewhere. What passes here it can be trusted with.
 */
#include <stdint.h>

#include "common/bytes.h"

struct lmdb_shape {
	uint64_t map_bytes;  /* what the file was made or grown to */
	uint64_t used_bytes; /* from its beginning to the last page ever used */
	/* Keys, rising, between which there are about as many rows each; copies. */
	struct bytes *marks;
	unsigned nmarks;
};

void lmdb_shape_fini(struct lmdb_shape *s);

/*
 * Walks every page that the newer of the two headers can reach, and the list of
 * free ones, by as many threads as there are processors. 0; -ENOMEM;
 * -EPROTONOSUPPORT (LMDB, of another format); -EUCLEAN, with the reason (a phrase,
 * static) in *ret_why.
 */
int lmdb_guard(const void *file, uint64_t bytes, struct lmdb_shape *ret,
	       const char **ret_why);
