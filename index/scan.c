/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scan from which the slice table is rebuilt (I2): all records with their
 * extents, then all blocks that no record refers to. Records lie under D and,
 * of hard-linked files, under F; so each object is met once. To know the
 * orphans, the names of all blocks that are referred to are kept, 16 bytes each
 * (a block is a region of 4 MiB of a file that has many); nothing else is.
 *
 * Threads: the caller's own, and as many more as it wants; it blocks.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/crew.h"
#include "common/log.h"
#include "index/blockset.h"
#include "index/keys.h"
#include "index/walk.h"

struct scan {
	struct index *ix;
	const struct index_visitor *v;
	void *arg; /* the visitor's */
	struct blockset blocks;
};

struct scans { /* one a thread */
	struct scan v[CREW_MAX];
	void *args[CREW_MAX];
	unsigned n;
};

static void scans_fini(struct scans *s)
{
	for (unsigned i = 0; i < s->n; i++)
		blockset_fini(&s->v[i].blocks);
}

static int scan_extents(void *arg, const struct attr *a, const struct extents *e)
{
	struct scan *s = arg;

	return s->v->extents(s->arg, a, e);
}

static int scan_extent(void *arg, const struct attr *a, const struct extent *x)
{
	struct scan *s = arg;

	return s->v->extent(s->arg, a, x);
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
	const struct body_visitor v = {
		.extents = s->v->extents ? scan_extents : NULL,
		.extent = s->v->extent ? scan_extent : NULL,
		.block = scan_block, .arg = s,
	};
	r = walk_body(s->ix, &rec.attr, &rec.body, &v);
	if (!r && rec.copy.len)
		r = walk_body(s->ix, &rec.attr, &(struct body){ BODY_EXTENTS, rec.copy }, &v);
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

/* The blocks that all of them have met, sorted, are the first one's. */
static int gather_blocks(struct scans *s)
{
	int r = 0;

	for (unsigned i = 1; !r && i < s->n; i++)
		r = blockset_move(&s->v[0].blocks, &s->v[i].blocks);
	blockset_sort(&s->v[0].blocks);
	return r;
}

int index_scan(struct index *ix, const struct index_visitor *v)
{
	_cleanup_(scans_fini) struct scans s = { .n = v->nargs ? v->nargs : 1 };
	struct kv *kv = index_kv(ix);

	for (unsigned i = 0; i < s.n; i++) {
		s.v[i] = (struct scan){ .ix = ix, .v = v, .arg = v->nargs ? v->args[i] : v->arg };
		s.args[i] = &s.v[i];
	}
	int r = walk_rows(kv, 'D', scan_record, s.args, s.n);
	if (!r)
		r = walk_rows(kv, 'F', scan_record, s.args, s.n);
	if (!r)
		r = gather_blocks(&s);
	s.v[0].arg = v->arg;
	return r ? r : walk_rows(kv, 'E', scan_block_row, s.args, 1);
}
