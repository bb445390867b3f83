/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each message has its two functions beside each other, so that a field that is
 * in one and not in the other is seen. A reader reads everything and asks once;
 * where a count comes, it is held against the bytes that are left, divided by the
 * least that one item takes, before anything is allocated.
 */
#include "engine/wire_parts.h"

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
