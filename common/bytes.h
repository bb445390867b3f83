/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A run of bytes that somebody else owns, and a checked reader and a growing
 * writer over such runs. Encodings on disk and on the wire are made of these;
 * integers are little-endian in values and messages, big-endian in keys.
 */
#include <endian.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
	const void *p;
	size_t len;
};

#define BYTES_NONE ((struct bytes){ NULL, 0 })
#define BYTES_OF(ptr, n) ((struct bytes){ (ptr), (n) })

static inline struct bytes bytes_str(const char *s)
{
	return (struct bytes){ s, strlen(s) };
}

/* <0, 0 or >0 in the order of memcmp; a prefix sorts before what it begins. */
static inline int bytes_cmp(struct bytes a, struct bytes b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int r = n ? memcmp(a.p, b.p, n) : 0;

	if (r)
		return r;
	return a.len < b.len ? -1 : a.len > b.len;
}

static inline bool bytes_eq(struct bytes a, struct bytes b)
{
	return a.len == b.len && (!a.len || !memcmp(a.p, b.p, a.len));
}

/*
 * Reads from hostile bytes: a read past the end sets `bad` and yields zeros, so
 * that a parser reads everything first and asks once.
 */
struct reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct reader reader_of(struct bytes b)
{
	return (struct reader){ b.p, b.len, false };
}

/* n bytes, or NULL (and `bad`) if there are fewer. */
static inline const void *read_bytes(struct reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || r->left < n) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	r->left -= n;
	return p;
}

/* n: 8 at most. */
static inline uint64_t read_le(struct reader *r, unsigned n)
{
	const uint8_t *p = read_bytes(r, n);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, n); /* one load; a loop over bytes is not made one */
	return le64toh(v);
}

static inline uint8_t read_u8(struct reader *r) { return (uint8_t)read_le(r, 1); }
static inline uint16_t read_u16(struct reader *r) { return (uint16_t)read_le(r, 2); }
static inline uint32_t read_u32(struct reader *r) { return (uint32_t)read_le(r, 4); }
static inline uint64_t read_u64(struct reader *r) { return read_le(r, 8); }

static inline uint64_t read_be64(struct reader *r)
{
	const uint8_t *p = read_bytes(r, 8);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, 8);
	return be64toh(v);
}

/*
 * Writes into a buffer that it grows on the heap. A failed allocation sets
 * `bad`; the writer goes on as if nothing had happened and is asked once.
 */
struct writer {
	uint8_t *p;
	size_t len, cap;
	bool bad;
};

static inline void *write_room(struct writer *w, size_t n)
{
	if (w->bad)
		return NULL;
	if (w->cap - w->len < n) {
		size_t cap = w->cap ? w->cap : 128;
		while (cap - w->len < n)
			cap *= 2;
		uint8_t *p = realloc(w->p, cap);
		if (!p) {
			w->bad = true;
			return NULL;
		}
		w->p = p;
		w->cap = cap;
	}
	w->len += n;
	return w->p + w->len - n;
}

static inline void write_bytes(struct writer *w, const void *p, size_t n)
{
	void *to = write_room(w, n);

	if (to && n)
		memcpy(to, p, n);
}

/* Where there is room for n bytes already. */
static inline void put_le(uint8_t *to, uint64_t v, unsigned n)
{
	v = htole64(v);
	memcpy(to, &v, n);
}

static inline void write_le(struct writer *w, uint64_t v, unsigned n)
{
	uint8_t *p = write_room(w, n);

	if (p)
		put_le(p, v, n);
}

static inline void write_u8(struct writer *w, uint8_t v) { write_le(w, v, 1); }
static inline void write_u16(struct writer *w, uint16_t v) { write_le(w, v, 2); }
static inline void write_u32(struct writer *w, uint32_t v) { write_le(w, v, 4); }
static inline void write_u64(struct writer *w, uint64_t v) { write_le(w, v, 8); }

static inline void write_be64(struct writer *w, uint64_t v)
{
	uint8_t *p = write_room(w, 8);

	v = htobe64(v);
	if (p)
		memcpy(p, &v, 8);
}

/* Formatted text, of any length, without a NUL. */
static inline __attribute__((format(printf, 2, 0))) void write_vformat(struct writer *w,
								       const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *p = n < 0 ? NULL : write_room(w, (size_t)n + 1);
	if (p) {
		vsnprintf(p, (size_t)n + 1, fmt, again);
		w->len--; /* the NUL */
	}
	va_end(again);
}

static inline __attribute__((format(printf, 2, 3))) void write_format(struct writer *w,
								      const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_vformat(w, fmt, ap);
	va_end(ap);
}

static inline struct bytes writer_bytes(const struct writer *w)
{
	return BYTES_OF(w->p, w->len);
}

static inline void writer_fini(struct writer *w)
{
	free(w->p);
	*w = (struct writer){ 0 };
}
