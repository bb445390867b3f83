/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of all values, and the checksum in it. Values are some 150 bytes and
 * each lookup checks one, so that crc32c must cost 20 ns and not 400: the CPU's
 * instruction where there is one (asked at run time, since distributions build
 * for CPUs without it), else the usual eight tables, eight bytes a step. Debian
 * has no library that is more than this. Pure functions; any thread.
 */
#include "index/value.h"

#include <endian.h>
#include <errno.h>
#ifdef __x86_64__
#include <nmmintrin.h>
#endif

#include "index/keys.h"

enum { CRC32C_POLY = 0x82f63b78 }; /* Castagnoli, bits reversed */

/* crc_table[k][b]: what byte b does to the crc when k more bytes follow. Filled
 * before main(), read only since. */
static uint32_t crc_table[8][256];

__attribute__((constructor)) static void crc_table_init(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t c = b;
		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ (uint32_t)CRC32C_POLY : c >> 1;
		crc_table[0][b] = c;
	}
	for (int k = 1; k < 8; k++) {
		for (int b = 0; b < 256; b++) {
			uint32_t c = crc_table[k - 1][b];
			crc_table[k][b] = c >> 8 ^ crc_table[0][c & 0xff];
		}
	}
}

static uint64_t load_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return le64toh(v);
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t v = load_le64(p) ^ crc;
		crc = 0;
		for (int k = 0; k < 8; k++)
			crc ^= crc_table[7 - k][v >> (8 * k) & 0xff];
	}
	while (n--)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 0xff];
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc_by_cpu(uint32_t crc32, const uint8_t *p,
							     size_t n)
{
	uint64_t crc = crc32;

	for (; n >= 8; p += 8, n -= 8)
		crc = _mm_crc32_u64(crc, load_le64(p));
	while (n--)
		crc = _mm_crc32_u8((uint32_t)crc, *p++);
	return (uint32_t)crc;
}
#endif

uint32_t crc32c(struct bytes b)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_by_cpu(~0u, b.p, b.len);
#endif
	return ~crc_by_table(~0u, b.p, b.len);
}

uint32_t crc32c_portable(struct bytes b)
{
	return ~crc_by_table(~0u, b.p, b.len);
}

size_t value_begin(struct writer *w)
{
	size_t begin = w->len;

	write_u8(w, VALUE_VERSION);
	write_u32(w, 0);
	return begin;
}

void value_end(struct writer *w, size_t begin)
{
	if (w->bad)
		return;
	size_t content = begin + VALUE_HEADER;
	uint32_t crc = htole32(crc32c(BYTES_OF(w->p + content, w->len - content)));
	memcpy(w->p + begin + 1, &crc, sizeof(crc));
}

int value_open(struct bytes v, struct reader *ret)
{
	struct reader r = reader_of(v);
	uint8_t version = read_u8(&r);
	uint32_t crc = read_u32(&r);

	if (version > VALUE_VERSION)
		return -EPROTONOSUPPORT;
	if (r.bad || version != VALUE_VERSION || crc != crc32c(BYTES_OF(r.p, r.left)))
		return -EUCLEAN;
	*ret = r;
	return 0;
}
