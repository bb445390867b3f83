/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the index: the bytes as they are, and behind a frame that is right. */
#include "tests/fuzz/roundtrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct writer w = { 0 };

	framed(BYTES_OF(p, n), &w);
	for (unsigned i = 0; i < 2; i++) {
		struct bytes v = i ? writer_bytes(&w) : BYTES_OF(p, n);
		trip_record(v);
		trip_writer_state(v);
		trip_gone(v);
		trip_small(v);
	}
	writer_fini(&w);
	return 0;
}
