/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: the record, its blocks, a pin on each slice. Between reading the
 * record and pinning, the object may be unlinked and its slices freed: a pin
 * names a generation and is refused then (I3), blocks are missing; upon either
 * the record is read again.
 *
 * What comes from the index was written by us, but lives on a disk: it is checked
 * before it is believed.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "engine/load.h"

enum {
	LOAD_LOT = 128,  /* blocks of one index call */
	LOAD_TRIES = 16, /* of a record that does not stand still */
};

#define load_of(ptr, member)                                                   \
	((struct load *)((char *)(ptr) - offsetof(struct load, member)))

static void load_again(struct load *l, int r);
static void load_blocks(struct load *l);

static void lot_fini(struct load *l)
{
	extents_fini(&l->lot);
	l->lot = (struct extents){ 0 };
	free(steal(&l->runs));
}

static void load_reset(struct load *l)
{
	struct file *f = l->f;

	index_op_fini(&l->op);
	lot_fini(l);
	free(steal(&l->refs));
	free(steal(&l->nodes));
	l->nrefs = l->nnodes = l->at = l->nblocks = 0;
	WITH_LOCK(&f->lock);
	map_fini(&f->map);
	map_init(&f->map, f->e->node);
	memset(f->content, 0, sizeof(f->content));
}

static void load_end(struct load *l, int r)
{
	struct file *f = l->f;

	if (!r) {
		WITH_LOCK(&f->lock);
		r = map_loaded(&f->map);
		if (!r) {
			f->nodes = steal(&l->nodes);
			f->nnodes = l->nnodes;
			f->state = FILE_OPEN;
		}
	}
	index_op_fini(&l->op);
	lot_fini(l);
	free(steal(&l->refs));
	free(steal(&l->nodes));
	if (r < 0)
		load_reset(l);
	l->done(l, r);
}

static void new_op(struct load *l, void (*done)(struct index_op *op, int outcome))
{
	index_op_fini(&l->op);
	l->op = (struct index_op){
		.fileid = l->f->fileid,
		.call = kv_call_of(l->call),
		.done = done,
	};
}

/* Extents ------------------------------------------------------------------------ */

static int check_extent(struct file *f, const struct extent *x)
{
	struct node *n = f->e->node;

	if (x->pool_id != n->pool_id) {
		log_error("file", "file %lu has an extent in pool %lx, which is not here",
			  (unsigned long)f->fileid, (unsigned long)x->pool_id);
		return -EIO;
	}
	if (x->npages == 0 || x->slice_pages > SLICE_PAGES_MAX ||
	    x->slice_off + x->npages > x->slice_pages ||
	    (uint64_t)x->slice + x->slice_pages > n->npages ||
	    x->page % REGION_PAGES + x->npages > REGION_PAGES ||
	    (x->page + x->npages) * PAGE_BYTES > FILE_BYTES_MAX)
		return -EUCLEAN;
	return 0;
}

/* What the region knows of that slice already, with a reference; or anew. */
static int hold_of(struct file *f, struct region *g, const struct extent *x,
		   struct hold **ret)
{
	struct slice_id id = { x->slice, x->gen };

	for (uint32_t i = g->n; i--;) {
		struct hold *h = g->v[i].hold;
		if (h->id.page != id.page)
			continue;
		if (h->id.gen != id.gen || h->npages != x->slice_pages)
			return -EUCLEAN;
		*ret = map_hold_ref(h);
		return 0;
	}
	return map_hold_new(&f->map, id, x->slice_pages, x->pool_id, false, ret);
}

/* Its slice is pinned for it: that is the map's from here, or given back. */
static int add_extent(struct file *f, const struct extent *x)
{
	struct map_view v;
	struct hold *h;
	int r = 0;

	if (map_next(&f->map, x->page, &v))
		return -EUCLEAN; /* they are sorted, and do not overlap */
	r = map_reserve(&f->map, x->page, x->page + x->npages, 1);
	if (!r)
		r = hold_of(f, map_region(&f->map, x->page / REGION_PAGES), x, &h);
	if (r < 0)
		return r;
	uint32_t first = x->slice_off / SUM_PAGES;
	for (uint32_t i = 0; i < extent_nsums(x); i++) {
		h->sums[first + i] = x->sums[i];
		h->valid |= 1ULL << (first + i);
	}
	map_load(&f->map, x->page, x->npages, h, x->slice_off);
	map_hold_unref(&f->map, h);
	return 0;
}

/* Reads the next lot of the n blocks in v. */
static void read_lot(struct load *l, const struct block_ref *v, uint32_t n,
		     void (*done)(struct index_op *op, int outcome))
{
	new_op(l, done);
	l->op.blocks = v + l->at;
	l->op.nblocks = n - l->at < LOAD_LOT ? n - l->at : LOAD_LOT;
	index_get_blocks(l->f->e->ix, &l->op);
}

/* What was made of a lot of n blocks is r: `next` is the one behind it. */
static void end_lot(struct load *l, int r, uint32_t n, void (*next)(struct task *t))
{
	if (r) {
		load_again(l, r);
		return;
	}
	l->at += n;
	l->task.fn = next;
	task_run(&l->task);
}

/* Each region's block, now that its extents are there. */
static int note_blocks(struct load *l)
{
	for (uint32_t i = 0; i < l->nblocks; i++) {
		const struct block_ref *in = &l->refs[l->at + i];
		struct region *g = map_region(&l->f->map, in->region);
		if (!g)
			return -EUCLEAN; /* an empty block */
		g->block = in->id;
	}
	return 0;
}

static int add_lot(struct load *l)
{
	struct file *f = l->f;
	uint32_t i = 0;
	int r = 0;

	WITH_LOCK(&f->lock);
	for (; !r && i < l->lot.n; i++)
		r = add_extent(f, &l->lot.v[i]);
	if (r < 0)
		for (i--; i < l->lot.n; i++)
			node_unpin(f->e->node, l->runs[i].id);
	return r ? r : note_blocks(l);
}

static void blocks_task(struct task *t)
{
	load_blocks(load_of(t, task));
}

static void lot_taken(struct node_call *c, int r)
{
	struct load *l = load_of(c, taken);

	if (!r)
		r = add_lot(l);
	lot_fini(l);
	end_lot(l, r, l->nblocks, blocks_task);
}

/* Pins the slices of the lot, all or none, and goes on. */
static void take_lot(struct load *l)
{
	uint32_t n = l->lot.n;

	l->runs = calloc(n ? n : 1, sizeof(*l->runs));
	if (!l->runs) {
		load_again(l, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct extent *x = &l->lot.v[i];
		l->runs[i] = (struct slice_run){ { x->slice, x->gen }, x->slice_pages };
	}
	l->taken = (struct node_call){ .of = l->call, .done = lot_taken };
	node_take(l->f->e->node, l->runs, n, &l->taken);
}

/* Adds to the lot; `in`: the block that they come from. */
static int decode_extents(struct load *l, struct bytes b, const struct block_ref *in)
{
	_cleanup_(extents_fini) struct extents x = { 0 };
	int r = body_decode_extents(b, &x);

	for (uint32_t i = 0; !r && i < x.n; i++) {
		r = check_extent(l->f, &x.v[i]);
		if (!r && in && x.v[i].page / REGION_PAGES != in->region)
			r = -EUCLEAN;
	}
	return r ? r : extents_move(&l->lot, &x);
}

/* Blocks -------------------------------------------------------------------------- */

static int decode_rows(struct load *l)
{
	const struct kv_rows *rows = l->op.rows;
	int r = 0;

	for (uint32_t i = 0; !r && i < l->op.nblocks; i++)
		r = decode_extents(l, rows->rows[i].value, &l->refs[l->at + i]);
	l->nblocks = l->op.nblocks;
	return r;
}

static void blocks_read(struct index_op *op, int outcome)
{
	struct load *l = load_of(op, op);
	int r = outcome ? outcome : decode_rows(l);

	if (r)
		load_again(l, r);
	else
		take_lot(l);
}

static void load_blocks(struct load *l)
{
	if (l->at == l->nrefs)
		load_end(l, 0);
	else
		read_lot(l, l->refs, l->nrefs, blocks_read);
}

/* The references in one block of a tree, behind those before. */
static int add_refs(struct load *l, struct bytes b, const struct block_ref *in)
{
	uint32_t first = l->nrefs;
	int r = body_append_blocks(b, &l->refs, &l->nrefs);

	if (r < 0)
		return r;
	return l->nrefs > first && l->refs[first].region == in->region ? 0 : -EUCLEAN;
}

static void load_nodes(struct load *l);

static void nodes_task(struct task *t)
{
	load_nodes(load_of(t, task));
}

static void nodes_read(struct index_op *op, int outcome)
{
	struct load *l = load_of(op, op);
	int r = outcome;

	for (uint32_t i = 0; !r && i < op->nblocks; i++)
		r = add_refs(l, op->rows->rows[i].value, &l->nodes[l->at + i]);
	end_lot(l, r, op->nblocks, nodes_task);
}

static void load_nodes(struct load *l)
{
	if (l->at < l->nnodes) {
		read_lot(l, l->nodes, l->nnodes, nodes_read);
		return;
	}
	l->at = 0;
	load_blocks(l);
}

/* Record -------------------------------------------------------------------------- */

static int take_inline(struct file *f, struct bytes b)
{
	WITH_LOCK(&f->lock);
	if (b.len > INDEX_INLINE_MAX || b.len != f->attr.size)
		return -EUCLEAN;
	memcpy(f->content, b.p, b.len);
	return 0;
}

static int take_record(struct load *l, const struct entry *en)
{
	struct file *f = l->f;
	enum body_kind kind = en->body.kind;

	if (en->draft)
		return -ESTALE;
	if (!S_ISREG(en->attr.mode))
		return -EINVAL;
	if (en->attr.size > FILE_BYTES_MAX)
		return -EUCLEAN;
	WITH_LOCK(&f->lock);
	f->attr = en->attr;
	f->place = en->place;
	f->small = kind == BODY_INLINE || (kind == BODY_NONE && !en->attr.size);
	return 0;
}

enum { BODY_WHOLE = 0, BODY_MORE = 1, BODY_SLICES = 2 };

/* All there is; or blocks have to be read; or slices to be taken. */
static int take_body(struct load *l, const struct entry *en)
{
	int r;

	switch (en->body.kind) {
	case BODY_NONE:
		return BODY_WHOLE;
	case BODY_INLINE:
		return take_inline(l->f, en->body.bytes);
	case BODY_EXTENTS:
		r = decode_extents(l, en->body.bytes, NULL);
		return r < 0 ? r : BODY_SLICES;
	case BODY_BLOCKS:
		r = body_decode_blocks(en->body.bytes, &l->refs, &l->nrefs);
		return r < 0 ? r : BODY_MORE;
	case BODY_TREE:
		r = body_decode_blocks(en->body.bytes, &l->nodes, &l->nnodes);
		return r < 0 ? r : BODY_MORE;
	}
	return -EUCLEAN;
}

static void take_entry(struct load *l, const struct entry *en)
{
	bool tree = en->body.kind == BODY_TREE;
	int r = take_record(l, en);

	if (r < 0) {
		load_end(l, r);
		return;
	}
	r = take_body(l, en);
	if (r < 0)
		load_again(l, r);
	else if (r == BODY_WHOLE)
		load_end(l, 0);
	else if (r == BODY_SLICES)
		take_lot(l);
	else if (tree)
		load_nodes(l);
	else
		load_blocks(l);
}

static void stat_done(struct index_op *op, int outcome)
{
	struct load *l = load_of(op, op);

	if (outcome)
		load_end(l, outcome == INDEX_MISS ? -ESTALE : outcome > 0 ? -EIO : outcome);
	else
		take_entry(l, &op->entry);
}

static void load_stat(struct load *l)
{
	if (l->gone) {
		take_entry(l, &(struct entry){ .attr = l->gone->attr, .body = l->gone->body });
		return;
	}
	new_op(l, stat_done);
	l->op.place = l->place;
	index_stat(l->f->e->ix, &l->op);
}

static void stat_task(struct task *t)
{
	load_stat(load_of(t, task));
}

/* It may have gone while we read it: the next look at the record says. */
static void load_again(struct load *l, int r)
{
	if (l->gone && (r == -ESTALE || r == -EUCLEAN)) {
		load_end(l, -ESTALE); /* it has been dropped */
		return;
	}
	if ((r != -ESTALE && r != -EUCLEAN) || ++l->tries >= LOAD_TRIES) {
		if (r == -ESTALE || r == -EUCLEAN) {
			log_error("file", "file %lu names slices or blocks that are not there",
				  (unsigned long)l->f->fileid);
			r = -EIO;
		}
		load_end(l, r);
		return;
	}
	load_reset(l);
	l->task.fn = stat_task;
	task_run(&l->task);
}

void load_start(struct load *l)
{
	l->op = (struct index_op){ 0 };
	l->refs = l->nodes = NULL;
	l->lot = (struct extents){ 0 };
	l->runs = NULL;
	l->nrefs = l->nnodes = l->at = l->nblocks = 0;
	l->tries = 0;
	load_stat(l);
}
