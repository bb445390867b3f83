/* SPDX-License-Identifier: Apache-2.0 */
/* Extents and block references. */
#include "tests/fuzz/roundtrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	trip_extents(BYTES_OF(p, n));
	trip_blocks(BYTES_OF(p, n));
	return 0;
}
