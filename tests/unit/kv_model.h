/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The plainest engine: an array of rows in order. model_step() makes up a
 * request, says what must come of it, and compares that with what an engine
 * makes of it.
 */
#include "tests/unit/kv_kit.h"

struct model_row {
	struct bytes key, value; /* each its own allocation */
	uint64_t revision;
};

struct model {
	struct model_row *rows;
	uint32_t nrows, cap;
	uint64_t revision; /* the newest that was seen */
};

/* A request and the memory that its bytes are in. */
struct made {
	struct kv_compare compares[3];
	struct kv_write writes[5];
	struct kv_read reads[3];
	struct kv_req req;
	struct kv_req pool; /* its row memory serves for the bytes */
};

/* Rows ------------------------------------------------------------------------- */

static inline struct bytes copy_of(struct bytes b)
{
	void *p = malloc(b.len + 1);

	if (b.len)
		memcpy(p, b.p, b.len);
	return BYTES_OF(p, b.len);
}

static inline uint32_t model_at(const struct model *m, struct bytes key)
{
	uint32_t from = 0, to = m->nrows;

	while (from < to) {
		uint32_t half = (from + to) / 2;
		if (bytes_cmp(m->rows[half].key, key) < 0)
			from = half + 1;
		else
			to = half;
	}
	return from;
}

static inline struct model_row *model_get(const struct model *m, struct bytes key)
{
	uint32_t i = model_at(m, key);

	return i < m->nrows && bytes_eq(m->rows[i].key, key) ? &m->rows[i] : NULL;
}

static inline void model_remove(struct model *m, uint32_t i)
{
	free((void *)m->rows[i].key.p);
	free((void *)m->rows[i].value.p);
	memmove(&m->rows[i], &m->rows[i + 1], (m->nrows - i - 1) * sizeof(*m->rows));
	m->nrows--;
}

static inline void model_write(struct model *m, const struct kv_write *w,
			       uint64_t revision)
{
	uint32_t i = model_at(m, w->key);

	if (i < m->nrows && bytes_eq(m->rows[i].key, w->key))
		model_remove(m, i);
	if (!w->value.p)
		return;
	if (m->nrows == m->cap) {
		m->cap = m->cap ? 2 * m->cap : 64;
		m->rows = realloc(m->rows, m->cap * sizeof(*m->rows));
	}
	memmove(&m->rows[i + 1], &m->rows[i], (m->nrows - i) * sizeof(*m->rows));
	m->nrows++;
	m->rows[i] = (struct model_row){ copy_of(w->key), copy_of(w->value), revision };
}

static inline void model_end_session(struct model *m, uint64_t session)
{
	for (uint32_t i = m->nrows; i-- > 0;)
		if (kv_key_is_session(m->rows[i].key) &&
		    kv_key_session(m->rows[i].key) == session)
			model_remove(m, i);
}

/* The engine is closed: all of them end. */
static inline void model_end_sessions(struct model *m)
{
	for (uint32_t i = m->nrows; i-- > 0;)
		if (kv_key_is_session(m->rows[i].key))
			model_remove(m, i);
}

enum { MODEL_SESSIONS = 4 }; /* and 0: of keys too short to be anyone's */

/* Numbers whose bytes are also found in names. */
static inline uint64_t model_session(uint64_t i)
{
	static const uint64_t sessions[MODEL_SESSIONS] = { 1, 2, 0x6b6b6b6b6b6b6b6b,
							   UINT64_MAX };

	return sessions[i];
}

/* What must come of a request ------------------------------------------------------ */

static inline bool model_holds(const struct model *m, const struct kv_compare *c)
{
	const struct model_row *row = model_get(m, c->key);
	uint32_t i;

	switch (c->kind) {
	case KV_ABSENT:
		return !row;
	case KV_PRESENT:
		return row;
	case KV_REVISION:
		return c->revision == (row ? row->revision : 0);
	case KV_RANGE_EMPTY:
		i = model_at(m, c->key);
		return bytes_cmp(c->key, c->end) >= 0 || i == m->nrows ||
		       bytes_cmp(m->rows[i].key, c->end) >= 0;
	}
	return false;
}

static inline void assert_row(const struct kv_row *row, const struct model_row *expect)
{
	assert_true(bytes_eq(row->key, expect->key));
	assert_true(bytes_eq(row->value, expect->value));
	assert_int_equal(row->revision, expect->revision);
}

static inline void model_check_read(const struct model *m, const struct kv_read *rd,
				    const struct kv_rows *rows)
{
	struct model_row *row = model_get(m, rd->from);
	uint32_t at, n = 0;

	if (!rd->to.p) {
		assert_int_equal(rows->nrows, row ? 1 : 0);
		assert_false(rows->more);
		if (row)
			assert_row(&rows->rows[0], row);
		return;
	}
	for (at = model_at(m, rd->from); at + n < m->nrows && n < rd->limit; n++) {
		if (bytes_cmp(m->rows[at + n].key, rd->to) >= 0)
			break;
		assert_true(n < rows->nrows);
		assert_row(&rows->rows[n], &m->rows[at + n]);
	}
	assert_int_equal(rows->nrows, n);
	assert_int_equal(rows->more, n == rd->limit && at + n < m->nrows &&
			 bytes_cmp(m->rows[at + n].key, rd->to) < 0);
}

/* Everything there is, at most `limit` rows of it. */
static inline struct kv_rows *read_everything(struct kv *kv, struct kv_req *req)
{
	static uint8_t end[KV_KEY_MAX];
	static struct kv_read rd;

	memset(end, 0xff, sizeof(end));
	rd = (struct kv_read){ BYTES_NONE, BYTES_OF(end, sizeof(end)), UINT32_MAX };
	*req = (struct kv_req){ .reads = &rd, .nreads = 1 };
	/* An armed failure may hit this one. */
	for (int r; (r = kv_wait(kv, req)) != KV_DONE; kv_req_fini(req))
		assert_true(r == KV_UNKNOWN || r < 0);
	return req->rows;
}

static inline void model_compare_all(const struct model *m, struct kv *kv)
{
	struct kv_req req;
	struct kv_rows *rows = read_everything(kv, &req);

	assert_int_equal(rows->nrows, m->nrows);
	for (uint32_t i = 0; i < m->nrows; i++)
		assert_row(&rows->rows[i], &m->rows[i]);
	kv_req_fini(&req);
}

/* KV_UNKNOWN: all of it was done, or nothing: makes the model follow. */
static inline void model_find_out(struct model *m, struct kv *kv,
				  const struct kv_req *asked, bool could)
{
	struct kv_req req;
	struct kv_rows *rows = read_everything(kv, &req);
	uint64_t newest = 0;

	for (uint32_t i = 0; i < rows->nrows; i++)
		if (rows->rows[i].revision > newest)
			newest = rows->rows[i].revision;
	if (newest > m->revision) { /* a put of it is there */
		assert_true(could);
		m->revision = newest;
		for (uint32_t i = 0; i < asked->nwrites; i++)
			model_write(m, &asked->writes[i], newest);
	} else if (could && rows->nrows < m->nrows) { /* a deletion of it was done */
		for (uint32_t i = 0; i < asked->nwrites; i++)
			model_write(m, &asked->writes[i], m->revision);
	}
	kv_req_fini(&req);
	model_compare_all(m, kv);
}

/* Making requests up ----------------------------------------------------------------- */

static inline struct bytes random_bytes(struct made *d, struct rng *g, size_t n)
{
	uint8_t *p = kv_req_alloc(&d->pool, n + 1);

	memset(p, (int)draw(g), n);
	for (size_t i = 0; i < n && i < 32; i++)
		p[i] = (uint8_t)draw(g);
	return BYTES_OF(p, n);
}

/* Few enough that they meet often; some very long. */
static inline struct bytes random_key(struct made *d, struct rng *g)
{
	static const char kinds[] = "\x01" "DFTZ`anz{\xff", tails[] = "\0az\xff";
	size_t n = 1 + below(g, 4);
	uint8_t *p = kv_req_alloc(&d->pool, KV_KEY_MAX);

	p[0] = (uint8_t)kinds[below(g, sizeof(kinds) - 1)];
	for (size_t i = 1; i < n; i++)
		p[i] = (uint8_t)tails[below(g, 4)];
	if (chance(g, 2)) {
		memset(p + n, 'k', KV_KEY_MAX - n);
		n = KV_KEY_MAX;
	} else if (p[0] >= 'a' && p[0] <= 'z' && chance(g, 80)) {
		uint64_t be = htobe64(model_session(below(g, MODEL_SESSIONS)));
		memcpy(p + n, &be, sizeof(be));
		n += sizeof(be);
	}
	return BYTES_OF(p, n);
}

static inline struct bytes random_value(struct made *d, struct rng *g)
{
	if (chance(g, 25))
		return BYTES_NONE;
	if (chance(g, 1))
		return random_bytes(d, g, below(g, KV_VALUE_MAX + 1));
	return random_bytes(d, g, below(g, chance(g, 10) ? 9000 : 100));
}

static inline void random_compare(struct model *m, struct made *d, struct rng *g,
				  struct kv_compare *c)
{
	const struct model_row *row;

	*c = (struct kv_compare){ (enum kv_compare_kind)below(g, 4),
				  .key = random_key(d, g), .end = random_key(d, g) };
	row = model_get(m, c->key);
	if (chance(g, 70)) /* mostly ones that hold */
		c->revision = row ? row->revision : 0;
	else
		c->revision = below(g, m->revision + 2);
	if (c->kind != KV_RANGE_EMPTY && chance(g, 50) && !model_holds(m, c))
		c->kind = row ? KV_PRESENT : KV_ABSENT;
}

static inline void random_req(struct model *m, struct made *d, struct rng *g)
{
	*d = (struct made){ 0 };
	d->req = (struct kv_req){
		.compares = d->compares, .ncompares = (uint32_t)below(g, 3),
		.writes = d->writes, .nwrites = (uint32_t)below(g, 6),
		.reads = d->reads, .nreads = (uint32_t)below(g, 4),
	};
	if (chance(g, 25))
		d->req.nwrites = 0;
	for (uint32_t i = 0; i < d->req.ncompares; i++)
		random_compare(m, d, g, &d->compares[i]);
	for (uint32_t i = 0; i < d->req.nwrites; i++)
		d->writes[i] = (struct kv_write){ random_key(d, g), random_value(d, g) };
	for (uint32_t i = 0; i < d->req.nreads; i++) {
		d->reads[i] = (struct kv_read){ .from = random_key(d, g),
						.limit = (uint32_t)below(g, 40) };
		if (chance(g, 50))
			d->reads[i].to = random_key(d, g);
		if (d->reads[i].to.p && chance(g, 10))
			d->reads[i].from = BYTES_NONE;
	}
}

static inline void model_step(struct model *m, struct kv *kv, struct rng *g)
{
	struct made d;
	bool holds = true;
	int r;

	random_req(m, &d, g);
	for (uint32_t i = 0; i < d.req.ncompares; i++)
		holds &= model_holds(m, &d.compares[i]);
	r = kv_wait(kv, &d.req);
	if (r == KV_UNKNOWN) {
		model_find_out(m, kv, &d.req, holds);
	} else if (r >= 0) {
		assert_int_equal(r, holds ? KV_DONE : KV_CONFLICT);
		for (uint32_t i = 0; i < d.req.nreads && !(holds && d.req.nwrites); i++)
			model_check_read(m, &d.reads[i], &d.req.rows[i]);
		if (holds && d.req.nwrites) {
			assert_true(d.req.revision > m->revision);
			m->revision = d.req.revision;
		}
		for (uint32_t i = 0; i < d.req.nwrites && holds; i++)
			model_write(m, &d.writes[i], d.req.revision);
	} else {
		assert_true(r == -EIO || r == -ENOSPC || r == -ETIMEDOUT);
	}
	kv_req_fini(&d.req);
	kv_req_fini(&d.pool);
}

/* Deletes all there is, from the engine too. */
static inline void model_empty(struct model *m, struct kv *kv)
{
	while (m->nrows) {
		struct bytes key = copy_of(m->rows[m->nrows - 1].key);
		assert_int_equal(put_bytes(kv, key, BYTES_NONE), KV_DONE);
		free((void *)key.p);
		model_remove(m, m->nrows - 1);
	}
	model_compare_all(m, kv);
	free(m->rows);
	*m = (struct model){ 0 };
}
