/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an LMDB file: looked at within their bounds, and judged. */
#include <assert.h>
#include <stddef.h>

#include "index/lmdb_guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lmdb_shape shape = { 0 };
	const char *why = NULL;
	int r = lmdb_guard(data, size, &shape, &why);

	assert(r ? why != NULL : shape.used_bytes <= size && shape.map_bytes <= size);
	lmdb_shape_fini(&shape);
	return 0;
}
