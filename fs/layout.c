/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `slicefs.layout`: where the bytes of the published version are, as JSON. What is
 * being written is not laid out yet.
 *
 * Extents are in the record, or in blocks, or in blocks that blocks name; those
 * are read a lot at a time. An attribute has 64 KiB at most: extents that find no
 * room are counted. A version that is replaced meanwhile takes its blocks with it:
 * then all begins again with the record that is there now.
 *
 * Threads: a layout belongs to one thread at a time. The index may answer before
 * the call returns, and a loop over many lots must not nest: see run().
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/priv.h"

enum {
	LAYOUT_BYTES = 64 * 1024, /* XATTR_SIZE_MAX */
	LINE_BYTES = 256,
	TAIL_BYTES = 64,   /* what comes behind the extents */
	LOT = 128,         /* blocks of one index call */
	TRIES = 16,        /* of a version that is replaced meanwhile */
};

struct layout {
	struct req *q;
	struct writer text;
	unsigned tries;

	uint64_t shown, more;   /* extents in text, and beyond it */
	struct block_ref *nodes; /* of blocks that name blocks */
	struct block_ref *refs; /* of blocks of extents */
	uint32_t nnodes, nrefs;
	uint32_t at;            /* how many of refs, then of nodes have been read */

	/* Who goes on: the last to say so, of the caller whom the index has left
	 * and of the answer. Both sides see what the other wrote before it. */
	atomic_int turn;
	int outcome;
};

enum { TURN_NOBODY, TURN_CALLER, TURN_ANSWER };

/* Text ------------------------------------------------------------------------ */

static void put(struct writer *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n > 0)
		write_bytes(w, line, (size_t)n);
}

static void put_head(struct layout *l, const struct entry *e)
{
	static const char *const kinds[] = {
		[BODY_NONE] = "none",
		[BODY_INLINE] = "inline",
		[BODY_EXTENTS] = "extents",
		[BODY_BLOCKS] = "blocks",
		[BODY_TREE] = "tree",
	};

	put(&l->text, "{\"fileid\":%" PRIu64 ",\"version\":%" PRIu64
	    ",\"size\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"body\":\"%s\"",
	    e->attr.fileid, e->attr.version, e->attr.size, e->attr.pages,
	    kinds[e->body.kind]);
	if (e->body.kind != BODY_NONE && e->body.kind != BODY_INLINE)
		put(&l->text, ",\"extents\":[");
}

static void put_extent(struct layout *l, const struct extent *x)
{
	if (l->text.len > LAYOUT_BYTES - TAIL_BYTES - LINE_BYTES) {
		l->more++;
		return;
	}
	put(&l->text, "%s{\"offset\":%" PRIu64 ",\"bytes\":%u,\"pool\":\"%016" PRIx64
	    "\",\"slice\":%u,\"generation\":%u,\"slice_offset\":%u}",
	    l->shown++ ? "," : "", x->page * PAGE_BYTES, x->npages * PAGE_BYTES,
	    x->pool_id, x->slice, x->gen, x->slice_off * PAGE_BYTES);
}

static void put_tail(struct layout *l, bool extents)
{
	if (extents)
		put(&l->text, "]");
	if (l->more)
		put(&l->text, ",\"more_extents\":%" PRIu64, l->more);
	put(&l->text, "}\n");
}

/* The end, and from the beginning ---------------------------------------------- */

static void layout_reset(struct layout *l)
{
	index_op_fini(&l->q->ix);
	writer_fini(&l->text);
	l->text = (struct writer){ 0 };
	free(steal(&l->nodes));
	free(steal(&l->refs));
	l->nnodes = l->nrefs = l->at = 0;
	l->shown = l->more = 0;
}

static void layout_end(struct layout *l, int r, bool extents)
{
	struct req *q = l->q;

	if (r == 0) {
		put_tail(l, extents);
		r = l->text.bad ? -ENOMEM : 0;
	}
	if (r)
		req_error(q, r);
	else
		reply_bytes(q, writer_bytes(&l->text));
	writer_fini(&l->text);
	free(l->nodes);
	free(l->refs);
	free(l);
}

static void layout_stat(struct layout *l);

static void stat_again(struct req *q)
{
	layout_stat(q->layout);
}

/* Blocks are not there, or are damaged: the next look at the record says. */
static void layout_failed(struct layout *l, int r)
{
	if (r == -EUCLEAN && ++l->tries < TRIES) {
		layout_reset(l);
		layout_stat(l);
	} else {
		layout_end(l, r == -EUCLEAN ? -EIO : r, false);
	}
}

/* Blocks ----------------------------------------------------------------------- */

static int take_extents(struct layout *l, struct bytes b)
{
	_cleanup_(extents_fini) struct extents v = { 0 };
	int r = body_decode_extents(b, &v);

	for (uint32_t i = 0; r == 0 && i < v.n; i++)
		put_extent(l, &v.v[i]);
	return r;
}

static int take_lot(struct layout *l)
{
	struct index_op *op = &l->q->ix;
	bool nodes = l->nnodes;
	int r = l->outcome;

	for (uint32_t i = 0; r == 0 && i < op->nblocks; i++) {
		struct bytes b = op->rows->rows[i].value;
		r = nodes ? body_append_blocks(b, &l->refs, &l->nrefs) : take_extents(l, b);
	}
	l->at += op->nblocks;
	index_op_fini(op);
	return r;
}

static void lot_read(struct index_op *op, int outcome);

/* The next lot is in q->ix, or there is none. */
static bool next_lot(struct layout *l)
{
	struct index_op *op = &l->q->ix;

	if (l->nnodes && l->at == l->nnodes)
		l->nnodes = l->at = 0; /* all references are known */
	uint32_t left = (l->nnodes ? l->nnodes : l->nrefs) - l->at;
	op->blocks = (l->nnodes ? l->nodes : l->refs) + l->at;
	op->nblocks = left < LOT ? left : LOT;
	op->done = lot_read;
	return left;
}

static void run(struct layout *l)
{
	int r;

	while (next_lot(l)) {
		atomic_store(&l->turn, TURN_NOBODY);
		index_get_blocks(l->q->fs->ix, &l->q->ix);
		if (atomic_exchange(&l->turn, TURN_CALLER) != TURN_ANSWER)
			return; /* l is the answer's */
		r = take_lot(l);
		if (r < 0) {
			layout_failed(l, r);
			return;
		}
	}
	layout_end(l, 0, true);
}

static void lot_read(struct index_op *op, int outcome)
{
	struct layout *l = req_of(op)->layout;

	l->outcome = outcome > 0 ? -EIO : outcome;
	if (atomic_exchange(&l->turn, TURN_ANSWER) != TURN_CALLER)
		return; /* run() goes on */
	int r = take_lot(l);
	if (r < 0)
		layout_failed(l, r);
	else
		run(l);
}

/* The record ------------------------------------------------------------------- */

static void take_body(struct layout *l, const struct body *b)
{
	int r = 0;

	switch (b->kind) {
	case BODY_NONE:
	case BODY_INLINE:
		layout_end(l, 0, false);
		return;
	case BODY_EXTENTS:
		r = take_extents(l, b->bytes);
		break;
	case BODY_BLOCKS:
		r = body_decode_blocks(b->bytes, &l->refs, &l->nrefs);
		break;
	case BODY_TREE:
		r = body_decode_blocks(b->bytes, &l->nodes, &l->nnodes);
		break;
	}
	index_op_fini(&l->q->ix);
	if (r < 0)
		layout_failed(l, r);
	else
		run(l);
}

static void stat_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct layout *l = q->layout;

	if (r == INDEX_MISS || r == -ENOENT || (!r && op->entry.draft)) {
		index_op_fini(op);
		if (!req_again(q, stat_again))
			layout_end(l, -ENODATA, false);
	} else if (r) {
		layout_end(l, r, false);
	} else {
		put_head(l, &op->entry);
		take_body(l, &op->entry.body);
	}
}

static void layout_stat(struct layout *l)
{
	struct req *q = l->q;

	req_place(q);
	q->ix.done = stat_done;
	index_stat(q->fs->ix, &q->ix);
}

void layout_go(struct req *q)
{
	struct layout *l = calloc(1, sizeof(*l));

	if (!l) {
		req_error(q, -ENOMEM);
		return;
	}
	l->q = q;
	q->layout = l;
	layout_stat(l);
}
