/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scan from which the slice table is rebuilt (I2): all records with their
 * extents, then all blocks that no record refers to. Records lie under D and,
 * of hard-linked files, under F; so each object is met once. To know the
 * orphans, the names of all blocks that are referred to are kept, 16 bytes each
 * (a block is a region of 4 MiB of a file that has many); nothing else is.
 *
 * Threads: the caller's own; it blocks.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "index/blockset.h"
#include "index/keys.h"
#include "index/walk.h"

struct scan {
	struct index *ix;
	const struct index_visitor *v;
	struct blockset blocks;
};

static void scan_fini(struct scan *s)
{
	blockset_fini(&s->blocks);
}

static int scan_extents(void *arg, const struct attr *a, const struct extents *e)
{
	struct scan *s = arg;

	return s->v->extents ? s->v->extents(s->v->arg, a, e) : 0;
}

static int scan_block(void *arg, uint64_t fileid, uint64_t id)
{
	struct scan *s = arg;

	return blockset_add(&s->blocks, fileid, id);
}

static int scan_record(void *arg, const struct kv_row *row)
{
	struct scan *s = arg;
	struct record rec;
	int r = record_decode(row->value, &rec);

	if (r < 0 || rec.kind == RECORD_REF)
		return r;
	struct body_visitor v = { .extents = scan_extents, .block = scan_block, .arg = s };
	r = walk_body(s->ix, &rec.attr, &rec.body, &v);
	if (r == -EUCLEAN)
		log_error("index", "the body of object %llu is damaged",
			  (unsigned long long)rec.attr.fileid);
	return r;
}

static int scan_block_row(void *arg, const struct kv_row *row)
{
	struct scan *s = arg;
	uint64_t fileid, id;
	int r = key_parse_block(row->key, &fileid, &id);

	if (r < 0 || blockset_has(&s->blocks, fileid, id) || !s->v->orphan_block)
		return r;
	return s->v->orphan_block(s->v->arg, fileid, id);
}

int index_scan(struct index *ix, const struct index_visitor *v)
{
	_cleanup_(scan_fini) struct scan s = { .ix = ix, .v = v };
	struct kv *kv = index_kv(ix);
	int r = walk_kind(kv, 'D', scan_record, &s);

	if (!r)
		r = walk_kind(kv, 'F', scan_record, &s);
	blockset_sort(&s.blocks);
	if (!r)
		r = walk_kind(kv, 'E', scan_block_row, &s);
	return r;
}
