/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the index (wire.c). */
#include "common/cleanup.h"
#include "engine/wire_parts.h"

_Static_assert(WIRE_KV_BYTES + 13 * WIRE_KV_COMPARES + 7 * WIRE_KV_WRITES + 9 * WIRE_KV_READS +
		       7 <= WIRE_BODY_MAX,
	       "every KV fits into a message");

void wire_write_stat(struct writer *w, const struct wire_stat *m)
{
	write_u64(w, m->total);
	write_u64(w, m->free);
	write_u64(w, m->evictable);
	write_u64(w, m->evictable_objects);
	write_u64(w, m->evict_dirs_ms);
	write_u64(w, m->index_size);
	write_u64(w, m->index_used);
	write_u64(w, m->keys);
	write_u64(w, m->session_keys);
	write_u8(w, m->index_full);
}

int wire_read_stat(struct bytes body, struct wire_stat *ret)
{
	struct reader r = reader_of(body);
	struct wire_stat m = { .total = read_u64(&r) };

	m.free = read_u64(&r);
	m.evictable = read_u64(&r);
	m.evictable_objects = read_u64(&r);
	m.evict_dirs_ms = read_u64(&r);
	m.index_size = read_u64(&r);
	m.index_used = read_u64(&r);
	m.keys = read_u64(&r);
	m.session_keys = read_u64(&r);
	m.index_full = read_bool(&r);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

enum { KV_RESERVE = 1, KV_AFTER = 2, KV_QUIET = 4, KV_ROOM = 8 }; /* flags */

/* What a kind has no use for is zero, whatever the struct says. */
static void write_compare(struct writer *w, const struct kv_compare *c)
{
	write_u8(w, c->kind);
	write_short(w, c->key);
	write_short(w, c->kind == KV_RANGE_EMPTY ? c->end : BYTES_NONE);
	write_u64(w, c->kind == KV_REVISION ? c->revision : 0);
}

static void read_compare(struct reader *r, struct kv_compare *c)
{
	uint8_t kind = read_u8(r);

	c->kind = kind;
	c->key = read_short(r);
	c->end = read_short(r);
	c->revision = read_u64(r);
	if (kind > KV_RANGE_EMPTY || (kind != KV_RANGE_EMPTY && c->end.len) ||
	    (kind != KV_REVISION && c->revision))
		r->bad = true;
	if (kind != KV_RANGE_EMPTY)
		c->end = BYTES_NONE;
}

static void write_write(struct writer *w, const struct kv_write *x)
{
	write_short(w, x->key);
	write_u8(w, !x->value.p);
	write_long(w, x->value.p ? x->value : BYTES_NONE);
}

static void read_write(struct reader *r, struct kv_write *x)
{
	x->key = read_short(r);
	bool is_delete = read_bool(r);
	x->value = read_long(r);
	if (is_delete && x->value.len)
		r->bad = true;
	if (is_delete)
		x->value = BYTES_NONE;
}

static void write_read(struct writer *w, const struct kv_read *x)
{
	write_short(w, x->from);
	write_u8(w, !!x->to.p);
	write_short(w, x->to.p ? x->to : BYTES_NONE);
	write_u32(w, x->to.p ? x->limit : 0);
}

static void read_read(struct reader *r, struct kv_read *x)
{
	x->from = read_short(r);
	bool is_range = read_bool(r);
	x->to = read_short(r);
	x->limit = read_u32(r);
	if (!is_range && (x->to.len || x->limit))
		r->bad = true;
	if (!is_range)
		x->to = BYTES_NONE;
}

void wire_write_kv(struct writer *w, const struct kv_req *req, bool after)
{
	write_u8(w, (uint8_t)((req->reserve ? KV_RESERVE : 0) | (after ? KV_AFTER : 0) |
			      (req->session ? KV_QUIET : 0) |
			      (req->needs_room ? KV_ROOM : 0)));
	write_u16(w, (uint16_t)req->ncompares);
	write_u16(w, (uint16_t)req->nwrites);
	write_u16(w, (uint16_t)req->nreads);
	for (uint32_t i = 0; i < req->ncompares; i++)
		write_compare(w, &req->compares[i]);
	for (uint32_t i = 0; i < req->nwrites; i++)
		write_write(w, &req->writes[i]);
	for (uint32_t i = 0; i < req->nreads; i++)
		write_read(w, &req->reads[i]);
}

/* NULL arrays: what failed, r says. */
static void read_kv_arrays(struct reader *r, struct wire_kv *m)
{
	m->compares = read_room(r, m->ncompares, 13, sizeof(*m->compares));
	for (uint32_t i = 0; m->compares && i < m->ncompares; i++)
		read_compare(r, &m->compares[i]);
	m->writes = read_room(r, m->nwrites, 7, sizeof(*m->writes));
	for (uint32_t i = 0; m->writes && i < m->nwrites; i++)
		read_write(r, &m->writes[i]);
	m->reads = read_room(r, m->nreads, 9, sizeof(*m->reads));
	for (uint32_t i = 0; m->reads && i < m->nreads; i++)
		read_read(r, &m->reads[i]);
}

int wire_read_kv(struct bytes body, struct wire_kv *ret)
{
	struct reader r = reader_of(body);
	_cleanup_(wire_kv_fini) struct wire_kv m = { 0 };
	uint8_t flags = read_u8(&r);

	m.ncompares = read_u16(&r);
	m.nwrites = read_u16(&r);
	m.nreads = read_u16(&r);
	read_kv_arrays(&r, &m);
	if (!r.bad && !(m.compares && m.writes && m.reads))
		return -ENOMEM;
	if (finish(&r) < 0 || flags & ~(KV_RESERVE | KV_AFTER | KV_QUIET | KV_ROOM))
		return -EPROTO;
	m.reserve = flags & KV_RESERVE;
	m.needs_room = flags & KV_ROOM;
	m.after = flags & KV_AFTER;
	m.quiet = flags & KV_QUIET;
	*ret = m;
	m = (struct wire_kv){ 0 };
	return 0;
}

void wire_kv_fini(struct wire_kv *m)
{
	free(m->compares);
	free(m->writes);
	free(m->reads);
	*m = (struct wire_kv){ 0 };
}

void wire_write_kv_answer(struct writer *w, const struct kv_req *req)
{
	uint32_t n = req->rows ? req->nreads : 0;

	write_u64(w, req->revision);
	write_u16(w, (uint16_t)n);
	for (uint32_t i = 0; i < n; i++) {
		const struct kv_rows *rows = &req->rows[i];

		write_u8(w, rows->more);
		write_u32(w, rows->nrows);
		for (uint32_t k = 0; k < rows->nrows; k++) {
			write_short(w, rows->rows[k].key);
			write_long(w, rows->rows[k].value);
			write_u64(w, rows->rows[k].revision);
		}
	}
}

/* -ENOMEM, or 0, and then r says whether it is bad. */
static int read_rows(struct reader *r, struct kv_req *req, struct kv_rows *ret)
{
	bool more = read_bool(r);
	uint32_t n = read_u32(r);

	if (r->bad || r->left / 14 < n) {
		r->bad = true;
		return 0;
	}
	struct kv_row *rows = kv_req_alloc(req, n * sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		rows[i].key = read_short(r);
		rows[i].value = read_long(r);
		rows[i].revision = read_u64(r);
	}
	*ret = (struct kv_rows){ rows, n, more };
	return 0;
}

int wire_read_kv_answer(struct bytes body, struct kv_req *req)
{
	struct reader r = reader_of(body);
	uint64_t revision = read_u64(&r);
	uint32_t n = read_u16(&r);
	struct kv_rows *rows = NULL;

	if (r.bad || (n && n != req->nreads))
		return -EPROTO;
	if (n && !(rows = kv_req_alloc(req, n * sizeof(*rows))))
		return -ENOMEM;
	for (uint32_t i = 0; i < n && !r.bad; i++)
		if (read_rows(&r, req, &rows[i]) < 0)
			return -ENOMEM;
	if (finish(&r) < 0)
		return -EPROTO;
	req->revision = revision;
	req->rows = rows;
	return 0;
}

void wire_write_watch(struct writer *w, const struct wire_watch *m)
{
	write_u32(w, m->watch);
	write_short(w, m->prefix);
}

int wire_read_watch(struct bytes body, struct wire_watch *ret)
{
	struct reader r = reader_of(body);
	struct wire_watch m = { .watch = read_u32(&r) };

	m.prefix = read_short(&r);
	if (finish(&r) < 0 || m.prefix.len > KV_KEY_MAX)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_watch_number(struct writer *w, uint32_t watch)
{
	write_u32(w, watch);
}

int wire_read_watch_number(struct bytes body, uint32_t *ret)
{
	struct reader r = reader_of(body);
	uint32_t watch = read_u32(&r);

	if (finish(&r) < 0)
		return -EPROTO;
	*ret = watch;
	return 0;
}

void wire_write_object(struct writer *w, const struct wire_object *m)
{
	bool named = m->place.kind == PLACE_NAME;

	write_u64(w, m->fileid);
	write_u64(w, named ? m->place.parent : 0);
	write_u64(w, named ? m->place.h : 0);
}

static void read_object(struct reader *r, struct wire_object *m)
{
	m->fileid = read_u64(r);
	m->place.parent = read_u64(r);
	m->place.h = read_u64(r);
	m->place.kind = m->place.parent ? PLACE_NAME : PLACE_FILEID;
	r->bad |= !m->fileid || (m->place.h && !m->place.parent);
}

int wire_read_object(struct bytes body, struct wire_object *ret)
{
	struct reader r = reader_of(body);
	struct wire_object m = { 0 };

	read_object(&r, &m);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_recall(struct writer *w, const struct wire_recall *m)
{
	wire_write_object(w, &m->object);
	write_u8(w, m->writes);
}

int wire_read_recall(struct bytes body, struct wire_recall *ret)
{
	struct reader r = reader_of(body);
	struct wire_recall m = { 0 };

	read_object(&r, &m.object);
	m.writes = read_bool(&r);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_about(struct writer *w, const struct wire_about *m)
{
	write_u64(w, m->hits);
	write_u64(w, (uint64_t)m->expires);
	write_u64(w, m->used);
}

int wire_read_about(struct bytes body, struct wire_about *ret)
{
	struct reader r = reader_of(body);
	struct wire_about m = { .hits = read_u64(&r) };

	m.expires = (int64_t)read_u64(&r);
	m.used = read_u64(&r);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_stats(struct writer *w, struct bytes text)
{
	write_long(w, text);
}

static bool is_plain(uint8_t c)
{
	return c == '\n' || (c >= ' ' && c <= '~');
}

int wire_read_stats(struct bytes body, struct bytes *ret)
{
	struct reader r = reader_of(body);
	struct bytes text = read_long(&r);
	const uint8_t *p = text.p;

	if (finish(&r) < 0 || text.len > WIRE_STATS_MAX)
		return -EPROTO;
	for (size_t i = 0; i < text.len; i++)
		if (!is_plain(p[i]))
			return -EPROTO;
	if (text.len && p[text.len - 1] != '\n')
		return -EPROTO;
	*ret = text;
	return 0;
}

void wire_write_session(struct writer *w, uint64_t session)
{
	write_u64(w, session);
}

int wire_read_session(struct bytes body, uint64_t *ret)
{
	struct reader r = reader_of(body);
	uint64_t session = read_u64(&r);

	if (finish(&r) < 0)
		return -EPROTO;
	*ret = session;
	return 0;
}
