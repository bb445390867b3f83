/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of memos: a range of keys and all rows of it. Each has its one place, by what the
 * key is of: the object or directory, and for names the hash; so a name's range, which a
 * look-up reads, and its key, which a publish reads, meet there. Who comes later takes the
 * place.
 */
#include "index/recall.h"

#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "index/keys.h"
#include "index/plan.h"

enum {
	PLACES = 4096,
	ROWS_MAX = 32,
	BYTES_MAX = 2048, /* of a memo */
	HEAD_ID = 9,      /* of a key: its kind, and a number */
	HEAD_NAME = 17,   /* and the hash of a name, the last byte of which counts on */
};

struct memo {
	struct bytes from, to;
	uint32_t n;
	struct kv_row rows[]; /* in order; all bytes stand behind them */
};

struct recall {
	struct lock lock;
	struct memo *memos[PLACES];
};

int recall_new(struct recall **ret)
{
	struct recall *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	lock_init(&r->lock, LOCK_INDEX_RECALL);
	*ret = r;
	return 0;
}

void recall_clear(struct recall *r)
{
	if (!r)
		return;
	WITH_LOCK(&r->lock);
	for (unsigned i = 0; i < PLACES; i++)
		free(steal(&r->memos[i]));
}

struct recall *recall_free(struct recall *r)
{
	if (!r)
		return NULL;
	recall_clear(r);
	lock_fini(&r->lock);
	free(r);
	return NULL;
}

/* Memos ---------------------------------------------------------------------------- */

static struct memo **place_of(struct recall *r, struct bytes key)
{
	const uint8_t *p = key.p;
	bool named = key.len >= HEAD_NAME && (*p == 'D' || *p == 'n');
	size_t n = named ? HEAD_NAME - 1 : key.len < HEAD_ID ? key.len : HEAD_ID;

	return &r->memos[crc32c(BYTES_OF(p, n)) % PLACES];
}

static bool memo_has(const struct memo *m, struct bytes key)
{
	return m && bytes_cmp(m->from, key) <= 0 && bytes_cmp(key, m->to) < 0;
}

static struct bytes put(uint8_t **at, struct bytes b)
{
	uint8_t *p = *at;

	if (b.len)
		memcpy(p, b.p, b.len);
	*at += b.len;
	return BYTES_OF(p, b.len);
}

/* NULL: too much, or no memory. */
static struct memo *memo_new(struct bytes from, struct bytes to, const struct kv_row *rows,
			     uint32_t n)
{
	size_t size = sizeof(struct memo) + n * sizeof(*rows) + from.len + to.len;

	for (uint32_t i = 0; i < n; i++)
		size += rows[i].key.len + rows[i].value.len;
	struct memo *m = n <= ROWS_MAX && size <= BYTES_MAX ? malloc(size) : NULL;
	if (!m)
		return NULL;
	uint8_t *at = (uint8_t *)&m->rows[n];
	m->from = put(&at, from);
	m->to = put(&at, to);
	m->n = n;
	for (uint32_t i = 0; i < n; i++) {
		m->rows[i].key = put(&at, rows[i].key);
		m->rows[i].value = put(&at, rows[i].value);
		m->rows[i].revision = rows[i].revision;
	}
	return m;
}

/* The range that is one key: up to the next one that there could be. */
static struct bytes behind(struct bytes key, uint8_t buf[KV_KEY_MAX + 1])
{
	memcpy(buf, key.p, key.len);
	buf[key.len] = 0;
	return BYTES_OF(buf, key.len + 1);
}

/* Of this key now: `row`, or none. */
static void note_key(struct recall *r, struct bytes key, const struct kv_row *row)
{
	struct memo **place = place_of(r, key), *old = *place;
	struct kv_row rows[ROWS_MAX + 1];
	uint8_t buf[KV_KEY_MAX + 1];
	uint32_t n = 0, i = 0;

	if (key.len > KV_KEY_MAX)
		return;
	if (!memo_has(old, key)) {
		*place = memo_new(key, behind(key, buf), row, row != NULL);
		free(old);
		return;
	}
	while (i < old->n && bytes_cmp(old->rows[i].key, key) < 0)
		rows[n++] = old->rows[i++];
	if (row)
		rows[n++] = *row;
	if (i < old->n && bytes_eq(old->rows[i].key, key))
		i++;
	while (i < old->n)
		rows[n++] = old->rows[i++];
	*place = memo_new(old->from, old->to, rows, n);
	free(old);
}

/* ------------------------------------------------------------------------------------ */

void recall_read(struct recall *r, const struct kv_read *read, const struct kv_rows *rows)
{
	WITH_LOCK(&r->lock);

	if (!read->to.p) {
		note_key(r, read->from, rows->nrows ? rows->rows : NULL);
	} else if (!rows->more) {
		struct memo **place = place_of(r, read->from);
		free(*place);
		*place = memo_new(read->from, read->to, rows->rows, rows->nrows);
	}
}

void recall_wrote(struct recall *r, const struct kv_write *w, uint64_t revision)
{
	struct kv_row row = { w->key, w->value, revision };
	WITH_LOCK(&r->lock);

	note_key(r, w->key, w->value.p ? &row : NULL);
}

static struct bytes copy(struct plan *p, struct bytes b)
{
	void *to = plan_alloc(p, b.len + 1);

	if (to && b.len)
		memcpy(to, b.p, b.len);
	return BYTES_OF(to, b.len);
}

static bool is_in(const struct kv_read *read, struct bytes key)
{
	return read->to.p ? bytes_cmp(read->from, key) <= 0 && bytes_cmp(key, read->to) < 0
			  : bytes_eq(read->from, key);
}

/* Those of [first, first + n), for p. */
static bool copy_rows(struct plan *p, const struct kv_row *first, uint32_t n,
		      struct kv_rows *ret)
{
	struct kv_row *v = plan_alloc(p, (n + 1) * sizeof(*v));
	bool ok = v;

	for (uint32_t i = 0; ok && i < n; i++) {
		v[i] = (struct kv_row){ copy(p, first[i].key), copy(p, first[i].value),
					first[i].revision };
		ok = v[i].key.p && v[i].value.p;
	}
	if (ok)
		*ret = (struct kv_rows){ .rows = v, .nrows = n };
	return ok;
}

bool recall_find(struct recall *r, const struct kv_read *read, struct plan *p,
		 struct kv_rows *ret)
{
	WITH_LOCK(&r->lock);
	const struct memo *m = *place_of(r, read->from);
	uint32_t first = 0, end;

	if (!memo_has(m, read->from) || (read->to.p && bytes_cmp(read->to, m->to) > 0))
		return false;
	while (first < m->n && !is_in(read, m->rows[first].key))
		first++;
	for (end = first; end < m->n && is_in(read, m->rows[end].key);)
		end++;
	if (read->to.p && end - first > read->limit)
		return false;
	return copy_rows(p, m->rows + first, end - first, ret);
}
