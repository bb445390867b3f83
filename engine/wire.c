/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each message has its two functions beside each other, so that a field that is
 * in one and not in the other is seen. A reader reads everything and asks once;
 * where a count comes, it is held against the bytes that are left, divided by the
 * least that one item takes, before anything is allocated.
 */
#include "engine/wire.h"

#include <errno.h>

#include "common/cleanup.h"
#include "index/index.h"

_Static_assert(WIRE_KV_BYTES + 13 * WIRE_KV_COMPARES + 7 * WIRE_KV_WRITES + 9 * WIRE_KV_READS +
		       7 <= WIRE_BODY_MAX,
	       "every KV fits into a message");
_Static_assert(WIRE_SPAN + WIRE_RUN_MAX <= WIRE_BODY_MAX, "and so does every WRITE");
_Static_assert(WIRE_STATS_MAX + 4 <= WIRE_BODY_MAX, "and what is counted");

/* Headers ---------------------------------------------------------------------- */

enum { IS_TYPE = 1, HAS_ID = 2, LONG_ANSWER = 4 };

static const struct {
	const char *name;
	unsigned what;
} types[] = {
	[WIRE_HELLO] = { "HELLO", IS_TYPE },
	[WIRE_CHALLENGE] = { "CHALLENGE", IS_TYPE },
	[WIRE_PROOF] = { "PROOF", IS_TYPE },
	[WIRE_WELCOME] = { "WELCOME", IS_TYPE },
	[WIRE_READY] = { "READY", IS_TYPE },
	[WIRE_PING] = { "PING", IS_TYPE | HAS_ID },
	[WIRE_BYE] = { "BYE", IS_TYPE },
	[WIRE_STAT] = { "STAT", IS_TYPE | HAS_ID },
	[WIRE_KV] = { "KV", IS_TYPE | HAS_ID | LONG_ANSWER },
	[WIRE_WATCH] = { "WATCH", IS_TYPE | HAS_ID },
	[WIRE_UNWATCH] = { "UNWATCH", IS_TYPE | HAS_ID },
	[WIRE_RING] = { "RING", IS_TYPE },
	[WIRE_DROP_KEYS] = { "DROP_KEYS", IS_TYPE | HAS_ID },
	[WIRE_ALLOC] = { "ALLOC", IS_TYPE | HAS_ID },
	[WIRE_SEAL] = { "SEAL", IS_TYPE | HAS_ID },
	[WIRE_PIN] = { "PIN", IS_TYPE | HAS_ID },
	[WIRE_UNPIN] = { "UNPIN", IS_TYPE },
	[WIRE_FENCE] = { "FENCE", IS_TYPE | HAS_ID },
	[WIRE_OPEN] = { "OPEN", IS_TYPE | HAS_ID },
	[WIRE_RDMA] = { "RDMA", IS_TYPE | HAS_ID },
	[WIRE_SCRUB] = { "SCRUB", IS_TYPE | HAS_ID },
	[WIRE_EVICT] = { "EVICT", IS_TYPE | HAS_ID },
	[WIRE_ABOUT] = { "ABOUT", IS_TYPE | HAS_ID },
	[WIRE_RECALL] = { "RECALL", IS_TYPE | HAS_ID },
	[WIRE_STATS] = { "STATS", IS_TYPE | HAS_ID },
	[WIRE_READ] = { "READ", IS_TYPE | HAS_ID },
	[WIRE_WRITE] = { "WRITE", IS_TYPE | HAS_ID },
};

enum { NTYPES = sizeof(types) / sizeof(*types) };

const char *wire_type_name(uint16_t type)
{
	return type < NTYPES && types[type].name ? types[type].name : "?";
}

void wire_put_header(uint8_t to[WIRE_HEADER], const struct wire_header *h)
{
	put_le(to, h->len, 4);
	put_le(to + 4, h->type, 2);
	put_le(to + 6, h->flags, 2);
	put_le(to + 8, h->id, 8);
	put_le(to + 16, h->timeout_ms, 4);
	put_le(to + 20, 0, 4);
}

static bool flags_are_fine(const struct wire_header *h, unsigned what)
{
	if (!(h->flags & WIRE_ANSWER))
		return !h->flags;
	if (!(what & HAS_ID) || h->flags & ~(WIRE_ANSWER | WIRE_MORE))
		return false;
	/* A part that is empty would be one of endlessly many. */
	return !(h->flags & WIRE_MORE) || (what & LONG_ANSWER && h->result >= 0 && h->len);
}

int wire_get_header(const uint8_t from[WIRE_HEADER], struct wire_header *ret)
{
	struct reader r = reader_of(BYTES_OF(from, WIRE_HEADER));
	struct wire_header h = { .len = read_u32(&r), .type = read_u16(&r) };

	h.flags = read_u16(&r);
	h.id = read_u64(&r);
	h.timeout_ms = read_u32(&r);
	uint32_t zero = read_u32(&r);
	unsigned what = h.type < NTYPES ? types[h.type].what : 0;
	if (h.len > WIRE_BODY_MAX || !what || zero || !h.id == !!(what & HAS_ID) ||
	    !flags_are_fine(&h, what))
		return -EPROTO;
	if (h.flags & WIRE_ANSWER && h.result < 0 && h.len)
		return -EPROTO; /* an error has no body */
	*ret = h;
	return 0;
}

/* Results ------------------------------------------------------------------------ */

static const struct {
	int32_t wire;
	int err;
} errors[] = {
	{ -1, -EPERM },     { -5, -EIO },	 { -7, -E2BIG },   { -11, -EAGAIN },
	{ -12, -ENOMEM },   { -16, -EBUSY },	 { -22, -EINVAL }, { -28, -ENOSPC },
	{ -30, -EROFS },    { -71, -EPROTO },	 { -95, -EOPNOTSUPP }, { -110, -ETIMEDOUT },
	{ -116, -ESTALE },  { -117, -EUCLEAN },	 { -125, -ECANCELED },
};

int32_t wire_result(int r)
{
	if (r >= 0)
		return r;
	for (unsigned i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].err == r)
			return errors[i].wire;
	return -5;
}

int wire_errno(int32_t result)
{
	if (result >= 0)
		return result;
	for (unsigned i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].wire == result)
			return errors[i].err;
	return -EIO;
}

/* Parts -------------------------------------------------------------------------- */

/* All has been read, and was there. */
static int finish(const struct reader *r)
{
	return r->bad || r->left ? -EPROTO : 0;
}

static bool read_bool(struct reader *r)
{
	uint8_t v = read_u8(r);

	if (v > 1)
		r->bad = true;
	return v;
}

static void read_zeros(struct reader *r, unsigned n)
{
	if (read_le(r, n))
		r->bad = true;
}

static void read_fixed(struct reader *r, void *to, size_t n)
{
	const void *p = read_bytes(r, n);

	if (p)
		memcpy(to, p, n);
}

static struct bytes read_run(struct reader *r, size_t len)
{
	const void *p = read_bytes(r, len);

	return p ? BYTES_OF(p, len) : BYTES_NONE;
}

static struct bytes read_short(struct reader *r)
{
	return read_run(r, read_u16(r));
}

static struct bytes read_long(struct reader *r)
{
	return read_run(r, read_u32(r));
}

static void write_short(struct writer *w, struct bytes b)
{
	write_u16(w, (uint16_t)b.len);
	write_bytes(w, b.p, b.len);
}

static void write_long(struct writer *w, struct bytes b)
{
	write_u32(w, (uint32_t)b.len);
	write_bytes(w, b.p, b.len);
}

/* Room for n items, or NULL: out of memory, or the bytes that are left cannot be
 * n of `least` bytes (then r is bad). */
static void *read_room(struct reader *r, uint32_t n, size_t least, size_t size)
{
	if (r->bad || r->left / least < n) {
		r->bad = true;
		return NULL;
	}
	return calloc(n ? n : 1, size);
}

/* Beginning --------------------------------------------------------------------- */

static const char magic[8] = "slicefs";

void wire_write_hello(struct writer *w, const struct wire_hello *m)
{
	write_bytes(w, magic, sizeof(magic));
	write_u16(w, m->version_min);
	write_u16(w, m->version_max);
	write_u32(w, m->features);
	write_u8(w, m->kind);
	write_u8(w, m->read_only);
	write_u16(w, 0);
	write_u64(w, m->session);
	write_u32(w, m->number);
	write_bytes(w, m->nonce, sizeof(m->nonce));
	write_short(w, m->name);
}

int wire_read_hello(struct bytes body, struct wire_hello *ret)
{
	struct reader r = reader_of(body);
	struct wire_hello m = { 0 };
	char is[sizeof(magic)] = "";

	read_fixed(&r, is, sizeof(is));
	m.version_min = read_u16(&r);
	m.version_max = read_u16(&r);
	m.features = read_u32(&r);
	m.kind = read_u8(&r);
	m.read_only = read_bool(&r);
	read_zeros(&r, 2);
	m.session = read_u64(&r);
	m.number = read_u32(&r);
	read_fixed(&r, m.nonce, sizeof(m.nonce));
	m.name = read_short(&r);
	if (finish(&r) < 0 || memcmp(is, magic, sizeof(magic)) || m.kind > WIRE_DATA ||
	    m.version_min > m.version_max || m.name.len > WIRE_NAME_MAX ||
	    (!m.session && m.kind == WIRE_DATA) || !m.number != (m.kind == WIRE_CONTROL))
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_challenge(struct writer *w, const struct wire_challenge *m)
{
	write_u16(w, m->version);
	write_u16(w, 0);
	write_u32(w, m->features);
	write_bytes(w, m->nonce, sizeof(m->nonce));
	write_bytes(w, m->proof, sizeof(m->proof));
}

int wire_read_challenge(struct bytes body, struct wire_challenge *ret)
{
	struct reader r = reader_of(body);
	struct wire_challenge m = { .version = read_u16(&r) };

	read_zeros(&r, 2);
	m.features = read_u32(&r);
	read_fixed(&r, m.nonce, sizeof(m.nonce));
	read_fixed(&r, m.proof, sizeof(m.proof));
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_proof(struct writer *w, const struct wire_proof *m)
{
	write_bytes(w, m->proof, sizeof(m->proof));
	write_bytes(w, m->before, sizeof(m->before));
}

int wire_read_proof(struct bytes body, struct wire_proof *ret)
{
	struct reader r = reader_of(body);
	struct wire_proof m;

	read_fixed(&r, m.proof, sizeof(m.proof));
	read_fixed(&r, m.before, sizeof(m.before));
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_welcome(struct writer *w, const struct wire_welcome *m)
{
	write_u64(w, m->session);
	write_u64(w, m->incarnation);
	write_u64(w, m->pool_id);
	write_u32(w, m->pool_pages);
	write_u32(w, m->keep_alive_ms);
	write_u32(w, m->max_requests);
	write_u32(w, m->max_pins);
	write_u32(w, m->max_lanes);
	write_u32(w, m->kv_compares);
	write_u32(w, m->kv_writes);
	write_u32(w, m->kv_reads);
	write_u32(w, m->kv_bytes);
	write_bytes(w, m->secret, sizeof(m->secret));
}

int wire_read_welcome(struct bytes body, struct wire_welcome *ret)
{
	struct reader r = reader_of(body);
	struct wire_welcome m = { .session = read_u64(&r) };

	m.incarnation = read_u64(&r);
	m.pool_id = read_u64(&r);
	m.pool_pages = read_u32(&r);
	m.keep_alive_ms = read_u32(&r);
	m.max_requests = read_u32(&r);
	m.max_pins = read_u32(&r);
	m.max_lanes = read_u32(&r);
	m.kv_compares = read_u32(&r);
	m.kv_writes = read_u32(&r);
	m.kv_reads = read_u32(&r);
	m.kv_bytes = read_u32(&r);
	read_fixed(&r, m.secret, sizeof(m.secret));
	if (finish(&r) < 0 || !m.session || !m.max_requests || !m.keep_alive_ms ||
	    m.kv_compares > WIRE_KV_COMPARES || m.kv_writes > WIRE_KV_WRITES ||
	    m.kv_reads > WIRE_KV_READS || m.kv_bytes > WIRE_KV_BYTES)
		return -EPROTO;
	*ret = m;
	return 0;
}

/* The index --------------------------------------------------------------------- */

void wire_write_stat(struct writer *w, const struct wire_stat *m)
{
	write_u64(w, m->total);
	write_u64(w, m->free);
	write_u64(w, m->evictable);
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

/* Scrubbing ---------------------------------------------------------------------- */

void wire_write_scrub(struct writer *w, const struct wire_scrub *m)
{
	write_u8(w, m->begins);
	write_u8(w, m->evict_bad);
	write_u64(w, m->rate);
}

int wire_read_scrub(struct bytes body, struct wire_scrub *ret)
{
	struct reader r = reader_of(body);
	struct wire_scrub m = { .begins = read_bool(&r) };

	m.evict_bad = read_bool(&r);
	m.rate = read_u64(&r);
	if (!m.begins && (m.evict_bad || m.rate))
		return -EPROTO;
	int e = finish(&r);
	if (!e)
		*ret = m;
	return e;
}

enum { BAD_MIN = 8 + 1 + 1 + 2 }; /* bytes of one that is bad, without its path */

void wire_write_scrub_report(struct writer *w, const struct scrub_report *m)
{
	write_u8(w, m->ended);
	write_u32(w, (uint32_t)wire_result(m->result));
	write_u64(w, m->objects);
	write_u64(w, m->bytes);
	write_u64(w, m->total);
	write_u64(w, m->bad_objects);
	write_u64(w, m->evicted);
	write_u64(w, m->changed);
	write_u64(w, m->elsewhere);
	write_u16(w, (uint16_t)m->nbad);
	for (uint32_t i = 0; i < m->nbad; i++) {
		write_u64(w, m->bad[i].fileid);
		write_u8(w, (uint8_t)m->bad[i].reason);
		write_u8(w, m->bad[i].evicted);
		write_short(w, m->bad[i].path);
	}
}

static int read_all_bad(struct reader *r, struct scrub_report *m)
{
	m->nbad = read_u16(r);
	m->bad = read_room(r, m->nbad, BAD_MIN, sizeof(*m->bad));
	if (!m->bad)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m->nbad; i++) {
		struct scrub_bad *b = &m->bad[i];
		b->fileid = read_u64(r);
		uint8_t reason = read_u8(r);
		b->evicted = read_bool(r);
		b->path = read_short(r);
		if (reason < SCRUB_BYTES || reason > SCRUB_UNREAD)
			return -EPROTO;
		b->reason = (enum scrub_reason)reason;
	}
	return finish(r);
}

int wire_read_scrub_report(struct bytes body, struct scrub_report *ret)
{
	struct reader r = reader_of(body);
	struct scrub_report m = { .ended = read_bool(&r) };
	int32_t result = (int32_t)read_u32(&r);

	m.result = wire_errno(result);
	m.objects = read_u64(&r);
	m.bytes = read_u64(&r);
	m.total = read_u64(&r);
	m.bad_objects = read_u64(&r);
	m.evicted = read_u64(&r);
	m.changed = read_u64(&r);
	m.elsewhere = read_u64(&r);
	/* One encoding: an errno, and none of what goes on. */
	int e = r.bad || result > 0 || wire_result(m.result) != result ||
		(result && !m.ended) ? -EPROTO : read_all_bad(&r, &m);
	if (e < 0)
		scrub_report_fini(&m);
	else
		*ret = m;
	return e;
}

/* Slices ------------------------------------------------------------------------- */

static void write_slice(struct writer *w, struct slice_id s)
{
	write_u32(w, s.page);
	write_u32(w, s.gen);
}

static struct slice_id read_slice(struct reader *r)
{
	struct slice_id s = { .page = read_u32(r) };

	s.gen = read_u32(r);
	return s;
}

static size_t item_bytes(enum wire_form form)
{
	return (form == WIRE_PAGES ? 0 : 8) + (form == WIRE_SLICES ? 0 : 4);
}

void wire_write_items(struct writer *w, enum wire_form form, const struct wire_items *m)
{
	write_u16(w, (uint16_t)m->n);
	for (uint32_t i = 0; i < m->n; i++) {
		if (form != WIRE_PAGES)
			write_slice(w, m->v[i].slice);
		if (form != WIRE_SLICES)
			write_u32(w, m->v[i].pages);
	}
}

/* To the end of the body. */
static int read_items(struct reader *r, enum wire_form form, struct wire_items *ret)
{
	struct wire_items m = { .n = read_u16(r) };

	if (r->bad || r->left != m.n * item_bytes(form))
		return -EPROTO;
	m.v = calloc(m.n ? m.n : 1, sizeof(*m.v));
	if (!m.v)
		return -ENOMEM;
	for (uint32_t i = 0; i < m.n; i++) {
		if (form != WIRE_PAGES)
			m.v[i].slice = read_slice(r);
		if (form != WIRE_SLICES)
			m.v[i].pages = read_u32(r);
	}
	*ret = m;
	return 0;
}

int wire_read_items(struct bytes body, enum wire_form form, struct wire_items *ret)
{
	struct reader r = reader_of(body);

	return read_items(&r, form, ret);
}

void wire_items_fini(struct wire_items *m)
{
	free(m->v);
	*m = (struct wire_items){ 0 };
}

void wire_write_pin(struct writer *w, const struct wire_pin *m)
{
	write_u8(w, m->each);
	wire_write_items(w, WIRE_SLICE_PAGES, &m->items);
}

int wire_read_pin(struct bytes body, struct wire_pin *ret)
{
	struct reader r = reader_of(body);
	struct wire_pin m = { .each = read_bool(&r) };
	int result = read_items(&r, WIRE_SLICE_PAGES, &m.items);

	if (!result)
		*ret = m;
	return result;
}

void wire_write_results(struct writer *w, const struct wire_results *m)
{
	write_u16(w, (uint16_t)m->n);
	for (uint32_t i = 0; i < m->n; i++)
		write_u32(w, (uint32_t)m->v[i]);
}

static int read_results(struct reader *r, struct wire_results *ret)
{
	struct wire_results m = { .n = read_u16(r) };

	m.v = read_room(r, m.n, 4, sizeof(*m.v));
	if (!m.v)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m.n; i++)
		m.v[i] = (int32_t)read_u32(r);
	*ret = m;
	return 0;
}

int wire_read_results(struct bytes body, struct wire_results *ret)
{
	struct reader r = reader_of(body);
	_cleanup_(wire_results_fini) struct wire_results m = { 0 };
	int result = read_results(&r, &m);

	if (result < 0)
		return result;
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	m = (struct wire_results){ 0 };
	return 0;
}

void wire_results_fini(struct wire_results *m)
{
	free(m->v);
	*m = (struct wire_results){ 0 };
}

void wire_write_open(struct writer *w, const struct wire_open *m)
{
	write_u64(w, m->fileid);
	write_short(w, m->from);
	write_short(w, m->to);
	write_u32(w, m->max);
}

int wire_read_open(struct bytes body, struct wire_open *ret)
{
	struct reader r = reader_of(body);
	struct wire_open m = { .fileid = read_u64(&r) };

	m.from = read_short(&r);
	m.to = read_short(&r);
	m.max = read_u32(&r);
	if (finish(&r) < 0 || !m.from.len || m.from.len > KV_KEY_MAX || m.to.len > KV_KEY_MAX)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_opened(struct writer *w, const struct wire_opened *m)
{
	write_u64(w, m->revision);
	write_long(w, m->value);
	wire_write_results(w, &m->pins);
	write_long(w, m->pages);
}

int wire_read_opened(struct bytes body, struct wire_opened *ret)
{
	struct reader r = reader_of(body);
	struct wire_opened m = { .revision = read_u64(&r) };

	m.value = read_long(&r);
	int result = read_results(&r, &m.pins);
	if (result < 0)
		return result;
	m.pages = read_long(&r);
	if (finish(&r) < 0) {
		wire_results_fini(&m.pins);
		return -EPROTO;
	}
	*ret = m;
	return 0;
}

void wire_write_span(struct writer *w, const struct wire_span *m)
{
	write_slice(w, m->slice);
	write_u32(w, m->off);
	write_u32(w, m->bytes);
}

int wire_read_span(struct bytes body, struct wire_span *ret)
{
	struct reader r = reader_of(body);
	struct wire_span m = { .slice = read_slice(&r) };

	m.off = read_u32(&r);
	m.bytes = read_u32(&r);
	if (finish(&r) < 0 || !m.bytes || m.bytes > WIRE_RUN_MAX)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_rdma(struct writer *w, const struct wire_rdma *m)
{
	write_bytes(w, m->ticket, sizeof(m->ticket));
	write_short(w, m->why);
	write_u16(w, (uint16_t)m->nsegments);
	for (uint32_t i = 0; i < m->nsegments; i++) {
		write_u32(w, m->segments[i].page);
		write_u32(w, m->segments[i].pages);
		write_u64(w, m->segments[i].base);
	}
	write_u16(w, (uint16_t)m->nports);
	for (uint32_t i = 0; i < m->nports; i++) {
		write_bytes(w, m->ports[i].address, sizeof(m->ports[i].address));
		write_u16(w, m->ports[i].port);
		for (uint32_t k = 0; k < m->nsegments; k++)
			write_u32(w, m->keys[i * m->nsegments + k]);
	}
}

static bool segment_is_fine(const struct wire_segment *s, uint64_t from)
{
	uint64_t bytes = (uint64_t)s->pages * PAGE_BYTES;

	return s->page >= from && s->pages && s->pages <= UINT32_MAX - s->page &&
	       bytes <= UINT64_MAX - s->base;
}

static int read_segments(struct reader *r, struct wire_rdma *m)
{
	uint64_t from = 0;

	m->nsegments = read_u16(r);
	m->segments = read_room(r, m->nsegments, 16, sizeof(*m->segments));
	if (!m->segments)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m->nsegments; i++) {
		struct wire_segment *s = &m->segments[i];

		s->page = read_u32(r);
		s->pages = read_u32(r);
		s->base = read_u64(r);
		if (!segment_is_fine(s, from))
			return -EPROTO;
		from = (uint64_t)s->page + s->pages;
	}
	return 0;
}

static int read_ports(struct reader *r, struct wire_rdma *m)
{
	m->nports = read_u16(r);
	m->ports = read_room(r, m->nports, 18 + 4 * (size_t)m->nsegments, sizeof(*m->ports));
	if (!m->ports)
		return r->bad ? -EPROTO : -ENOMEM;
	m->keys = calloc((size_t)m->nports * m->nsegments + 1, sizeof(*m->keys));
	if (!m->keys)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->nports; i++) {
		read_fixed(r, m->ports[i].address, sizeof(m->ports[i].address));
		m->ports[i].port = read_u16(r);
		for (uint32_t k = 0; k < m->nsegments; k++)
			m->keys[i * m->nsegments + k] = read_u32(r);
	}
	return 0;
}

int wire_read_rdma(struct bytes body, struct wire_rdma *ret)
{
	struct reader r = reader_of(body);
	_cleanup_(wire_rdma_fini) struct wire_rdma m = { 0 };

	read_fixed(&r, m.ticket, sizeof(m.ticket));
	m.why = read_short(&r);
	int result = read_segments(&r, &m);
	if (!result)
		result = read_ports(&r, &m);
	if (result < 0)
		return result;
	if (finish(&r) < 0 || m.why.len > WIRE_WHY_MAX)
		return -EPROTO;
	*ret = m;
	m = (struct wire_rdma){ 0 };
	return 0;
}

void wire_rdma_fini(struct wire_rdma *m)
{
	free(m->segments);
	free(m->ports);
	free(m->keys);
	*m = (struct wire_rdma){ 0 };
}

void wire_write_fence(struct writer *w, uint32_t number)
{
	write_u32(w, number);
}

int wire_read_fence(struct bytes body, uint32_t *ret)
{
	struct reader r = reader_of(body);
	uint32_t number = read_u32(&r);

	if (finish(&r) < 0 || !number)
		return -EPROTO;
	*ret = number;
	return 0;
}
