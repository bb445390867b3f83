/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes come from a disk that may have lost its last moment: a record is looked at only when
 * its checksum holds, and its entries are taken apart before the first of them counts.
 */
#include "engine/tier_replay.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/cleanup.h"
#include "index/kv.h"

enum { MAGIC = 0x316a6c73 }; /* "slj1" */

enum entry_type { HEAD = 1, PUT, DEL, SEGMENT, END };

/* Writing ---------------------------------------------------------------------------------- */

void entry_head(struct writer *w, const struct record_head *h)
{
	write_u8(w, HEAD);
	write_u32(w, h->version);
	write_u64(w, h->pool_id);
	write_u64(w, h->fs_id);
	write_u64(w, h->number);
}

void entry_put(struct writer *w, struct bytes key, struct bytes value)
{
	write_u8(w, PUT);
	write_u16(w, (uint16_t)key.len);
	write_u32(w, (uint32_t)value.len);
	write_bytes(w, key.p, key.len);
	write_bytes(w, value.p, value.len);
}

void entry_del(struct writer *w, struct bytes key)
{
	write_u8(w, DEL);
	write_u16(w, (uint16_t)key.len);
	write_bytes(w, key.p, key.len);
}

void entry_segment(struct writer *w, uint32_t n, uint32_t gen)
{
	write_u8(w, SEGMENT);
	write_u32(w, n);
	write_u32(w, gen);
}

void entry_end(struct writer *w)
{
	write_u8(w, END);
}

struct entry_of {
	enum entry_type type;
	struct record_head head;
	struct bytes key, value;
	uint32_t n, gen;
};

/* Takes one; sets r->bad where there is none. */
static void read_entry(struct reader *r, struct entry_of *e)
{
	*e = (struct entry_of){ .type = (enum entry_type)read_u8(r) };
	switch (e->type) {
	case HEAD:
		e->head.version = read_u32(r);
		e->head.pool_id = read_u64(r);
		e->head.fs_id = read_u64(r);
		e->head.number = read_u64(r);
		return;
	case PUT:
	case DEL:
		e->key.len = read_u16(r);
		e->value.len = e->type == PUT ? read_u32(r) : 0;
		e->key.p = read_bytes(r, e->key.len);
		e->value.p = e->type == PUT ? read_bytes(r, e->value.len) : NULL;
		r->bad = r->bad || !e->key.len || e->key.len > KV_KEY_MAX ||
			 e->value.len > KV_VALUE_MAX ||
			 (e->type == PUT && !e->value.len) || kv_key_is_session(e->key);
		return;
	case SEGMENT:
		e->n = read_u32(r);
		e->gen = read_u32(r);
		r->bad |= !e->gen;
		return;
	case END:
		return;
	}
	r->bad = true;
}

static uint64_t sum_of(const uint8_t *head, struct bytes entries)
{
	XXH3_state_t x;

	XXH3_INITSTATE(&x);
	XXH3_64bits_reset(&x);
	XXH3_64bits_update(&x, head, RECORD_HEADER - 8);
	XXH3_64bits_update(&x, entries.p, entries.len);
	return XXH3_64bits_digest(&x);
}

static void record_write(struct writer *w, uint64_t *number, struct bytes entries)
{
	uint8_t head[RECORD_HEADER];

	put_le(head, MAGIC, 4);
	put_le(head + 4, entries.len, 4);
	put_le(head + 8, (*number)++, 8);
	put_le(head + 16, sum_of(head, entries), 8);
	write_bytes(w, head, sizeof(head));
	write_bytes(w, entries.p, entries.len);
}

void records_write(struct writer *w, uint64_t *number, struct bytes entries)
{
	struct reader r = reader_of(entries);
	struct entry_of e;

	while (r.left) {
		const uint8_t *from = r.p, *to = from;
		while (r.left && !r.bad) {
			read_entry(&r, &e);
			if (to > from && r.p - from > RECORD_MAX)
				break;
			to = r.p;
		}
		if (r.bad)
			to = from + (entries.len - (size_t)(from - (const uint8_t *)entries.p));
		record_write(w, number, BYTES_OF(from, (size_t)(to - from)));
		r = reader_of(BYTES_OF(to, entries.len - (size_t)(to - (const uint8_t *)entries.p)));
	}
}

/* Reading ------------------------------------------------------------------------------------ */

static bool entries_hold(struct bytes b, uint64_t number)
{
	struct reader r = reader_of(b);
	struct entry_of e;
	unsigned n = 0;

	for (; r.left && !r.bad; n++) {
		read_entry(&r, &e);
		if ((e.type == HEAD) != (number == 0))
			return false;
	}
	return !r.bad && n && (number || n == 1);
}

static int visit(const struct record_visitor *v, struct bytes b)
{
	struct reader r = reader_of(b);
	struct entry_of e;
	int got = 0;

	while (r.left && !got) {
		read_entry(&r, &e);
		switch (e.type) {
		case HEAD:
			if (e.head.version > RECORD_VERSION)
				return -EPROTONOSUPPORT;
			got = v->head ? v->head(v->arg, &e.head) : 0;
			break;
		case PUT:
			got = v->put ? v->put(v->arg, e.key, e.value) : 0;
			break;
		case DEL:
			got = v->del ? v->del(v->arg, e.key) : 0;
			break;
		case SEGMENT:
			got = v->segment ? v->segment(v->arg, e.n, e.gen) : 0;
			break;
		case END:
			got = v->end ? v->end(v->arg) : 0;
			break;
		}
	}
	return got;
}

int records_read(struct bytes b, uint64_t *number, const struct record_visitor *v, size_t *ret_len)
{
	struct reader r = reader_of(b);
	int got = 0;

	*ret_len = 0;
	while (r.left >= RECORD_HEADER) {
		const uint8_t *head = r.p;
		uint32_t magic = read_u32(&r), len = read_u32(&r);
		uint64_t n = read_u64(&r), sum = read_u64(&r);
		/* One entry may be longer than a record is meant to be. */
		if (magic != MAGIC || n != *number || len > RECORD_MAX + KV_VALUE_MAX + KV_KEY_MAX + 64)
			return 1;
		if (r.left < len)
			return 0;
		struct bytes entries = BYTES_OF(read_bytes(&r, len), len);
		if (sum_of(head, entries) != sum || !entries_hold(entries, n))
			return 1;
		got = visit(v, entries);
		if (got)
			return got;
		++*number;
		*ret_len = b.len - r.left;
	}
	return 0;
}

enum { CHUNK = 16 << 20 };

/* *n more bytes at `at`; 0 at the end. */
static int read_more(int fd, uint8_t *at, size_t len, size_t *ret)
{
	ssize_t n;

	do {
		n = read(fd, at, len);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret = (size_t)n;
	return 0;
}

int records_read_file(int fd, const struct record_visitor *v, uint64_t *ret_len, bool *ret_torn)
{
	_cleanup_(freep) uint8_t *buf = malloc(CHUNK);
	size_t have = 0, got = 1, len;
	uint64_t number = 0, all = 0;
	int r = buf ? 0 : -ENOMEM;

	while (!r && got) {
		r = read_more(fd, buf + have, CHUNK - have, &got);
		have += r ? 0 : got;
		if (!r)
			r = records_read(BYTES_OF(buf, have), &number, v, &len);
		if (r < 0)
			return r;
		all += len;
		have -= len;
		memmove(buf, buf + len, have);
	}
	if (r < 0)
		return r;
	if (!number)
		return -EUCLEAN;
	*ret_len = all;
	if (ret_torn)
		*ret_torn = have;
	return 0;
}
