/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: the first byte says of which kind, the rest is the body. */
#include "tests/fuzz/wire_trips.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n)
		trip(p[0] % NTRIPS, BYTES_OF(p + 1, n - 1));
	return 0;
}
