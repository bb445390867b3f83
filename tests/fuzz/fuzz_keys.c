/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: what is taken apart is put together again as it was. */
#include "tests/fuzz/roundtrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	trip_key(BYTES_OF(p, n));
	return 0;
}
