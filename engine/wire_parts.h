/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What wire.c, wire_kv.c and wire_slices.c write and read messages with. What is read is borrowed
 * from the body; a reader that found something wrong is bad. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/wire.h"

/* All has been read, and was there. */
static inline int finish(const struct reader *r)
{
	return r->bad || r->left ? -EPROTO : 0;
}

static inline bool read_bool(struct reader *r)
{
	uint8_t v = read_u8(r);

	if (v > 1)
		r->bad = true;
	return v;
}

static inline void read_zeros(struct reader *r, unsigned n)
{
	if (read_le(r, n))
		r->bad = true;
}

static inline void read_fixed(struct reader *r, void *to, size_t n)
{
	const void *p = read_bytes(r, n);

	if (p)
		memcpy(to, p, n);
}

static inline struct bytes read_run(struct reader *r, size_t len)
{
	const void *p = read_bytes(r, len);

	return p ? BYTES_OF(p, len) : BYTES_NONE;
}

static inline struct bytes read_short(struct reader *r)
{
	return read_run(r, read_u16(r));
}

static inline struct bytes read_long(struct reader *r)
{
	return read_run(r, read_u32(r));
}

static inline void write_short(struct writer *w, struct bytes b)
{
	write_u16(w, (uint16_t)b.len);
	write_bytes(w, b.p, b.len);
}

static inline void write_long(struct writer *w, struct bytes b)
{
	write_u32(w, (uint32_t)b.len);
	write_bytes(w, b.p, b.len);
}

/* Room for n items, or NULL: out of memory, or the bytes that are left cannot be
 * n of `least` bytes (then r is bad). */
static inline void *read_room(struct reader *r, uint32_t n, size_t least, size_t size)
{
	if (r->bad || r->left / least < n) {
		r->bad = true;
		return NULL;
	}
	return calloc(n ? n : 1, size);
}
