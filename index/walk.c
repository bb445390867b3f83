/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks: all keys of a kind, and all that a body refers to. Rows are read a page
 * at a time and blocks a lot at a time, so that the memory that it takes does not
 * depend on how much there is. Threads: the caller's own.
 */
#include "index/walk.h"

#include <errno.h>

#include "common/cleanup.h"
#include "index/keys.h"
#include "index/priv.h"

enum {
	WALK_PAGE = 256, /* rows; the largest are 64 KiB */
	WALK_LOT = 32,   /* blocks; of 28 KiB at most, mostly below 1 */
};

/* Keys ---------------------------------------------------------------------- */

struct page {
	struct kv_req req;
	struct kv_read read;
	struct writer from; /* the first key that was not seen yet */
};

static void page_fini(struct page *p)
{
	kv_req_fini(&p->req);
	writer_fini(&p->from);
}

/* The next page begins right behind this key: its bytes and a zero. */
static void page_from(struct page *p, struct bytes key)
{
	p->from.len = 0;
	write_bytes(&p->from, key.p, key.len);
	write_u8(&p->from, 0);
}

static int page_read(struct kv *kv, struct page *p, const uint8_t *end)
{
	kv_req_fini(&p->req);
	if (p->from.bad)
		return -ENOMEM;
	p->read = (struct kv_read){
		.from = writer_bytes(&p->from),
		.to = BYTES_OF(end, 1),
		.limit = WALK_PAGE,
	};
	p->req = (struct kv_req){ .reads = &p->read, .nreads = 1 };
	int r = kv_wait(kv, &p->req);
	return r > 0 ? -EIO : r;
}

int walk_kind(struct kv *kv, char kind, walk_row *row, void *arg)
{
	_cleanup_(page_fini) struct page p = { .req = { 0 } };
	uint8_t end = (uint8_t)kind + 1;
	bool more = true;

	write_u8(&p.from, (uint8_t)kind);
	while (more) {
		int r = page_read(kv, &p, &end);
		if (r < 0)
			return r;
		const struct kv_rows *rows = p.req.rows;
		for (uint32_t i = 0; i < rows->nrows; i++) {
			r = row(arg, &rows->rows[i]);
			if (r)
				return r;
		}
		more = rows->more && rows->nrows;
		if (more)
			page_from(&p, rows->rows[rows->nrows - 1].key);
	}
	return 0;
}

/* Bodies --------------------------------------------------------------------- */

struct body_walk {
	struct index *ix;
	const struct attr *attr;
	const struct body_visitor *v;
};

static int walk_extents(struct body_walk *w, struct bytes b, const struct block_ref *in)
{
	_cleanup_(extents_fini) struct extents e = { 0 };
	int r = body_decode_extents(b, &e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; in && i < e.n; i++)
		if (e.v[i].page / REGION_PAGES != in->region)
			return -EUCLEAN;
	return w->v->extents ? w->v->extents(w->v->arg, w->attr, &e) : 0;
}

static int walk_refs(struct body_walk *w, struct bytes b, bool tree, const struct block_ref *in);

/* Reads and visits a lot of blocks: of extents, or, in a tree, of references. */
static int walk_lot(struct body_walk *w, const struct block_ref *refs, uint32_t n, bool tree)
{
	_cleanup_(index_op_fini) struct index_op op = {
		.fileid = w->attr->fileid, .blocks = refs, .nblocks = n,
	};
	int r = index_wait(w->ix, &op, index_get_blocks);

	for (uint32_t i = 0; !r && i < n; i++) {
		struct bytes b = op.rows->rows[i].value;
		r = tree ? walk_refs(w, b, false, &refs[i]) : walk_extents(w, b, &refs[i]);
	}
	return r;
}

static int walk_refs(struct body_walk *w, struct bytes b, bool tree, const struct block_ref *in)
{
	_cleanup_(freep) struct block_ref *refs = NULL;
	uint32_t n;
	int r = body_decode_blocks(b, &refs, &n);

	if (r < 0)
		return r;
	if (in && (!n || refs[0].region != in->region))
		return -EUCLEAN;
	for (uint32_t i = 0; w->v->block && !r && i < n; i++)
		r = w->v->block(w->v->arg, w->attr->fileid, refs[i].id);
	/* Leaves are read for their extents only, a tree's blocks for both. */
	for (uint32_t i = 0; !r && i < n && (tree || w->v->extents); i += WALK_LOT)
		r = walk_lot(w, refs + i, n - i < WALK_LOT ? n - i : WALK_LOT, tree);
	return r;
}

int walk_body(struct index *ix, const struct attr *a, const struct body *b,
	      const struct body_visitor *v)
{
	struct body_walk w = { .ix = ix, .attr = a, .v = v };

	switch (b->kind) {
	case BODY_NONE:
	case BODY_INLINE:
		return 0;
	case BODY_EXTENTS:
		return walk_extents(&w, b->bytes, NULL);
	case BODY_BLOCKS:
		return walk_refs(&w, b->bytes, false, NULL);
	case BODY_TREE:
		return walk_refs(&w, b->bytes, true, NULL);
	}
	return -EUCLEAN;
}
