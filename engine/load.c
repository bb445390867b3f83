/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: the record, its blocks, a pin on each slice. Between reading the
 * record and pinning, the object may be unlinked and its slices freed: a pin
 * names a generation and is refused then (I3), blocks are missing; upon either
 * the record is read again. Where the node reads records itself (node_open()), it
 * does all of that in one round trip, and gives the bytes of a small file as well:
 * they are kept as long as nobody opens the file for writing.
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
#include "engine/fetch.h"
#include "engine/load.h"

enum {
	EARLY_MAX = 16 << 10, /* bytes of a file that may come with its record */
	LOAD_LOT = 128,  /* blocks of one index call */
	LOAD_TRIES = 16, /* of a record that does not stand still */
};

#define load_of(ptr, member)                                                   \
	((struct load *)((char *)(ptr) - offsetof(struct load, member)))

static void load_again(struct load *l, int r);
static void load_blocks(struct load *l);

/* What was pinned and is not the map's. */
static void unpin_runs(struct load *l, uint32_t from)
{
	for (uint32_t i = from; i < l->lot.n; i++)
		node_unpin(l->f->e->node, l->runs[i].id);
}

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
	node_open_fini(&l->opened);
	lot_fini(l);
	free(steal(&l->refs));
	free(steal(&l->nodes));
	l->nrefs = l->nnodes = l->at = l->nblocks = 0;
	WITH_LOCK(&f->lock);
	map_fini(&f->map);
	map_init(&f->map, f->e->node);
	free(steal(&f->nodes));
	f->nnodes = 0;
	memset(f->content, 0, sizeof(f->content));
	free(steal(&f->early));
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
		}
	}
	if (!r && !l->spare)
		r = files_admit(f);
	index_op_fini(&l->op);
	node_open_fini(&l->opened);
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
	r = map_reserve(&f->map, x->page, 1);
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
		unpin_runs(l, i - 1);
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

static int list_runs(struct load *l)
{
	uint32_t n = l->lot.n;

	l->runs = calloc(n ? n : 1, sizeof(*l->runs));
	if (!l->runs)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const struct extent *x = &l->lot.v[i];
		l->runs[i] = (struct slice_run){ { x->slice, x->gen }, x->slice_pages };
	}
	return 0;
}

/* Pins the slices of the lot, all or none, and goes on. */
static void take_lot(struct load *l)
{
	uint32_t n = l->lot.n;

	if (list_runs(l) < 0) {
		load_again(l, -ENOMEM);
		return;
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

/* It is in memory by now, or was not to be found there: the record says. */
static void recalled(struct node_call *c, int r)
{
	struct load *l = load_of(c, taken);

	if (r < 0)
		load_end(l, r);
	else
		load_again(l, -ESTALE);
}

/* On the disk. Of what is gone nobody can say that it has come back. */
static void load_recall(struct load *l, struct place place)
{
	if (l->gone) {
		load_end(l, -ESTALE);
		return;
	}
	l->taken = (struct node_call){ .of = l->call, .done = recalled };
	node_recall(l->f->e->node, l->f->fileid, place, false, &l->taken);
}

static void take_entry(struct load *l, const struct entry *en)
{
	bool tree = en->body.kind == BODY_TREE;
	int r = take_record(l, en);

	if (r < 0) {
		load_end(l, r);
		return;
	}
	if (en->attr.away) {
		load_recall(l, en->place);
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

/* Early bytes ----------------------------------------------------------------------- */

/* Do these pages of the slice match their sums? Whole blocks do only. */
static bool early_is_sound(const struct extent *x, const uint8_t *pages)
{
	if (x->slice_off % SUM_PAGES ||
	    (x->npages % SUM_PAGES && x->slice_off + x->npages != x->slice_pages))
		return false;
	for (uint32_t b = 0; b < extent_nsums(x); b++) {
		uint64_t n = fetch_block_bytes(x->slice_pages, x->slice_off / SUM_PAGES + b);
		if (fetch_sum(pages + b * (uint64_t)SUM_PAGES * PAGE_BYTES, n) != x->sums[b])
			return false;
	}
	return true;
}

static bool early_must_verify(const struct engine *e, const struct extent *x)
{
	struct slice_id s = { x->slice, x->gen };

	for (uint32_t b = x->slice_off / SUM_PAGES; b * SUM_PAGES < x->slice_off + x->npages; b++)
		if (e->verify || node_needs_verify(e->node, s, b))
			return true;
	return false;
}

/* The file's bytes from those of its extents' pages. A favour: what does not match,
 * or has no room, is read as usual, and then complained of. */
static void take_early(struct load *l)
{
	struct file *f = l->f;
	const uint8_t *from = l->opened.pages.p, *end = from + l->opened.pages.len;
	uint64_t size = f->attr.size;
	_cleanup_(freep) uint8_t *early = NULL;

	if (from == end || !size || size > EARLY_MAX)
		return;
	early = calloc(1, size);
	for (uint32_t i = 0; early && i < l->lot.n; i++) {
		const struct extent *x = &l->lot.v[i];
		uint64_t at = x->page * PAGE_BYTES, n = x->npages * (uint64_t)PAGE_BYTES;
		if (n > (uint64_t)(end - from))
			return;
		if (early_must_verify(f->e, x) && !early_is_sound(x, from))
			return;
		if (at < size)
			memcpy(early + at, from, at + n < size ? n : size - at);
		from += n;
	}
	if (from != end)
		return;
	WITH_LOCK(&f->lock);
	f->early = steal(&early);
}

/* A record and its pins ----------------------------------------------------------------- */

static void opened_slices(struct load *l)
{
	int r = add_lot(l);

	if (!r)
		take_early(l);
	lot_fini(l);
	if (r < 0)
		load_again(l, r);
	else
		load_end(l, 0);
}

/* Of a record that is not to be: what the node has pinned for it. */
static void unpin_opened(struct load *l, const struct entry *en)
{
	_cleanup_(extents_fini) struct extents x = { 0 };

	if (body_decode_extents(en->body.bytes, &x) < 0)
		return; /* out of memory: they stay until the session ends */
	for (uint32_t i = 0; i < x.n; i++)
		node_unpin(l->f->e->node, (struct slice_id){ x.v[i].slice, x.v[i].gen });
}

/* All its extents are pinned: they are the map's, or let go. */
static void take_opened(struct load *l, const struct entry *en)
{
	int r = take_record(l, en);
	bool again = !r;

	if (!r)
		r = decode_extents(l, en->body.bytes, NULL);
	if (!r)
		r = list_runs(l);
	if (!r) {
		opened_slices(l);
		return;
	}
	unpin_opened(l, en);
	if (again)
		load_again(l, r);
	else
		load_end(l, r);
}

static void ask_index(struct load *l);

static void opened(struct node_call *c, int r)
{
	struct load *l = load_of(c, taken);
	struct entry en;

	if (!r)
		r = index_record(l->f->fileid, l->opened.value, &en);
	if (r == -ESTALE || r == -EUCLEAN) {
		load_again(l, r);
	} else if (r < 0) {
		load_end(l, r);
	} else if (r > 0) {
		ask_index(l); /* which knows where it has gone */
	} else {
		en.place = l->place;
		if (l->opened.pinned)
			take_opened(l, &en);
		else
			take_entry(l, &en);
	}
}

/* True: the node is asked for the record, and to pin what it names. */
static bool open_at_node(struct load *l)
{
	struct node *n = l->f->e->node;

	l->opened.fileid = l->f->fileid;
	if (!node_opens(n) || !index_record_at(l->f->fileid, l->place, &l->opened.at))
		return false;
	l->opened.max = EARLY_MAX;
	l->taken = (struct node_call){ .of = l->call, .done = opened };
	node_open(n, &l->opened, &l->taken);
	return true;
}

static void stat_done(struct index_op *op, int outcome)
{
	struct load *l = load_of(op, op);

	if (outcome)
		load_end(l, outcome == INDEX_MISS ? -ESTALE : outcome > 0 ? -EIO : outcome);
	else
		take_entry(l, &op->entry);
}

static void ask_index(struct load *l)
{
	new_op(l, stat_done);
	l->op.place = l->place;
	index_stat(l->f->e->ix, &l->op);
}

static void load_stat(struct load *l)
{
	if (l->gone) {
		take_entry(l, &(struct entry){ .attr = l->gone->attr, .body = l->gone->body });
		return;
	}
	if (!open_at_node(l))
		ask_index(l);
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
	l->opened = (struct node_open){ 0 };
	l->nrefs = l->nnodes = l->at = l->nblocks = 0;
	l->tries = 0;
	load_stat(l);
}
