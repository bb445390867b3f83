/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk's records: whatever is on the disk, nothing is read past it, what holds is written
 * again as the same bytes, and what is visited can be a row. The first byte says whether the
 * rest is a file, or entries of which a record is made that holds (a fuzzer finds no checksum).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tier_replay.h"
#include "index/kv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct writer again;

static int head(void *arg, const struct record_head *h)
{
	(void)arg;
	entry_head(&again, h);
	return 0;
}

static int put(void *arg, struct bytes key, struct bytes value)
{
	(void)arg;
	assert(key.len && key.len <= KV_KEY_MAX && value.len && value.len <= KV_VALUE_MAX);
	assert(!kv_key_is_session(key));
	entry_put(&again, key, value);
	return 0;
}

static int del(void *arg, struct bytes key)
{
	(void)arg;
	assert(key.len && key.len <= KV_KEY_MAX);
	entry_del(&again, key);
	return 0;
}

static int segment(void *arg, uint32_t k, uint32_t gen)
{
	(void)arg;
	entry_segment(&again, k, gen);
	return 0;
}

static int end(void *arg)
{
	(void)arg;
	entry_end(&again);
	return 0;
}

static void take(struct bytes b, uint64_t from)
{
	const struct record_visitor v = { head, put, del, segment, end, NULL };
	uint64_t number = from;
	size_t len;
	int r = records_read(b, &number, &v, &len);

	assert(len <= b.len);
	if (r >= 0 && number == from + 1) { /* one: its entries are what was visited */
		struct writer w = { 0 };
		uint64_t n = from;
		records_write(&w, &n, writer_bytes(&again));
		if (n == from + 1)
			assert(bytes_eq(writer_bytes(&w), BYTES_OF(b.p, len)));
		writer_fini(&w);
	}
	writer_fini(&again);
	again = (struct writer){ 0 };
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct writer w = { 0 };
	uint64_t number = 1;

	if (!n)
		return 0;
	if (*p & 1) {
		take(BYTES_OF(p + 1, n - 1), 0);
		return 0;
	}
	records_write(&w, &number, BYTES_OF(p + 1, n - 1));
	take(writer_bytes(&w), 1);
	writer_fini(&w);
	return 0;
}
