/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which extents a row names: a record in its body, an extent block, the body of
 * what is gone. The blocks of a tree lie among those of extents, and hold nothing
 * but references; a list of references does not decode as extents: the pools that
 * it would begin with leave no number for the pool of the first extent.
 *
 * Threads: any; index_all_extents() blocks.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "index/keys.h"
#include "index/value.h"
#include "index/walk.h"

static int record_bodies(struct bytes value, struct body *ret, struct bytes *ret_copy)
{
	struct record rec;
	int r = record_decode(value, &rec);

	if (r < 0)
		return r;
	*ret = rec.kind == RECORD_WHOLE ? rec.body : (struct body){ BODY_NONE, BYTES_NONE };
	*ret_copy = rec.copy;
	return 0;
}

static int row_bodies(struct bytes key, struct bytes value, struct body *ret,
		      struct bytes *ret_copy)
{
	struct reader content;
	int r;

	*ret_copy = BYTES_NONE;
	switch (key.len ? *(const char *)key.p : 0) {
	case 'D':
	case 'F':
		return record_bodies(value, ret, ret_copy);
	case 'g':
		return gone_decode(value, ret);
	case 'E':
		r = value_open(value, &content);
		if (!r)
			*ret = (struct body){ BODY_EXTENTS, BYTES_OF(content.p, content.left) };
		return r;
	}
	return -EINVAL;
}

static bool is_references(struct bytes b)
{
	_cleanup_(freep) struct block_ref *refs = NULL;
	uint32_t n;

	return !body_decode_blocks(b, &refs, &n);
}

int index_row_extents(struct bytes key, struct bytes value,
		      int (*visit)(void *arg, const struct extent *e), void *arg)
{
	struct bytes copy;
	struct body b;
	int r = row_bodies(key, value, &b, &copy);

	if (!r && copy.len)
		r = body_each_extent(copy, visit, arg);
	if (r)
		return r;
	if (b.kind == BODY_BLOCKS || b.kind == BODY_TREE)
		return is_references(b.bytes) ? 0 : -EUCLEAN;
	if (b.kind != BODY_EXTENTS)
		return 0;
	r = body_each_extent(b.bytes, visit, arg);
	if (r == -EUCLEAN && *(const char *)key.p == 'E' && is_references(b.bytes))
		return 0;
	return r;
}

bool index_row_is_same(struct bytes key, struct bytes a, struct bytes b)
{
	struct bytes copy_x, copy_y;
	struct body x, y;

	if (row_bodies(key, a, &x, &copy_x) || row_bodies(key, b, &y, &copy_y))
		return false;
	return x.kind == y.kind && bytes_eq(x.bytes, y.bytes) && bytes_eq(copy_x, copy_y);
}

/* Which outlive memory --------------------------------------------------------------- */

static struct bytes record_kept(struct bytes value, struct writer *w)
{
	struct record rec;

	if (record_decode(value, &rec) < 0)
		return BYTES_NONE;
	if (rec.kind == RECORD_REF || S_ISDIR(rec.attr.mode) || rec.attr.away)
		return value;
	if (!rec.copy.len)
		return BYTES_NONE;
	rec.attr.away = true;
	rec.attr.copied = false;
	rec.body = (struct body){ BODY_EXTENTS, rec.copy };
	rec.copy = BYTES_NONE;
	record_encode(&rec, w);
	return w->bad ? BYTES_NONE : writer_bytes(w);
}

struct in_pool {
	uint64_t pool;
	bool is;
};

static int is_in_pool(void *arg, const struct extent *e)
{
	struct in_pool *in = arg;

	in->is = e->pool_id == in->pool;
	return 1; /* one will do */
}

struct bytes index_row_kept(struct bytes key, struct bytes value, uint64_t disk, struct writer *w)
{
	struct in_pool in = { disk, true }; /* of references: they name no pool */
	bool kept = value.p;

	switch (kept && key.len ? *(const char *)key.p : 0) {
	case 'D':
	case 'F':
		return record_kept(value, w);
	case 'E':
		kept = index_row_extents(key, value, is_in_pool, &in) >= 0 && in.is;
		break;
	case 'M':
	case 'L':
	case 'X':
		break;
	default:
		kept = false;
	}
	return kept ? value : BYTES_NONE;
}

int index_rows(struct kv *kv, char kind, int (*visit)(void *arg, const struct kv_row *row),
	       void *arg)
{
	return walk_kind(kv, kind, visit, arg);
}

/* All of them --------------------------------------------------------------------- */

struct all {
	int (*visit)(void *arg, uint64_t fileid, const struct extent *e);
	void *arg;
	uint64_t fileid;
};

static int all_extent(void *arg, const struct extent *e)
{
	struct all *a = arg;

	return a->visit(a->arg, a->fileid, e);
}

/* Whose row it is; 0: that does not show. */
static uint64_t fileid_of(const struct kv_row *row)
{
	struct record rec;
	uint64_t fileid, id;

	if (!key_parse_block(row->key, &fileid, &id) || !key_parse_gone(row->key, &fileid, &id))
		return fileid;
	return record_decode(row->value, &rec) ? 0 : rec.attr.fileid;
}

static int all_row(void *arg, const struct kv_row *row)
{
	struct all *a = arg;

	a->fileid = fileid_of(row);
	return index_row_extents(row->key, row->value, all_extent, a);
}

int index_all_extents(struct index *ix, int (*visit)(void *arg, uint64_t fileid,
			      const struct extent *e), void *arg)
{
	struct all a = { .visit = visit, .arg = arg };
	int r = 0;

	for (const char *kind = INDEX_EXTENT_KINDS; !r && *kind; kind++)
		r = walk_kind(index_kv(ix), *kind, all_row, &a);
	return r;
}
