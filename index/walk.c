/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks: all keys of a kind, and all that a body refers to. Rows are read a page
 * at a time and blocks a lot at a time, so that the memory that it takes does not
 * depend on how much there is; where the engine lets one look at its rows in their place, some
 * at a time too, so that its room is not kept. Threads: the caller's own, and of walk_rows().
 */
#include "index/walk.h"

#include <errno.h>

#include "common/cleanup.h"
#include "common/crew.h"
#include "index/keys.h"
#include "index/priv.h"

enum {
	WALK_PAGE = 256, /* rows; the largest are 64 KiB */
	WALK_LOOK = 4096, /* rows that are looked at in their place in one go */
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

/* To go on right behind this key: its bytes and a zero. */
static void go_on_behind(struct writer *from, struct bytes key)
{
	from->len = 0;
	write_bytes(from, key.p, key.len);
	write_u8(from, 0);
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
			go_on_behind(&p.from, rows->rows[rows->nrows - 1].key);
	}
	return 0;
}

/* In their place --------------------------------------------------------------- */

struct look {
	walk_row *row;
	void *arg;
	unsigned left;      /* in this go */
	int result;         /* row()'s, which ends it */
	struct writer from; /* left == 0: where the next one begins */
};

static void look_fini(struct look *l)
{
	writer_fini(&l->from);
}

static int look_at(void *arg, const struct kv_row *row)
{
	struct look *l = arg;

	l->result = l->row(l->arg, row);
	if (!l->result && !--l->left)
		go_on_behind(&l->from, row->key);
	return l->result || !l->left;
}

static int look_between(struct kv *kv, struct bytes from, struct bytes to, walk_row *row, void *arg)
{
	_cleanup_(look_fini) struct look l = { .row = row, .arg = arg };
	int r;

	write_bytes(&l.from, from.p, from.len);
	do {
		if (l.from.bad)
			return -ENOMEM;
		l.left = WALK_LOOK;
		r = kv->ops->scan(kv, writer_bytes(&l.from), to, look_at, &l);
	} while (r > 0 && !l.result);
	return r < 0 ? r : l.result;
}

/* All rows of a kind in parts, which are taken by whoever has time. */
struct parts {
	struct kv *kv;
	struct bytes from, to;
	const struct bytes *marks; /* those between: a part before each, and one behind */
	unsigned nmarks;
	atomic_uint next;
	walk_row *row;
	void *const *args;
};

static int look_at_parts(void *arg, unsigned i)
{
	struct parts *p = arg;
	unsigned k;
	int r = 0;

	while (!r && (k = atomic_fetch_add(&p->next, 1)) <= p->nmarks)
		r = look_between(p->kv, k ? p->marks[k - 1] : p->from,
				 k < p->nmarks ? p->marks[k] : p->to, p->row, p->args[i]);
	return r;
}

static void find_marks(struct parts *p)
{
	unsigned n = 0;
	const struct bytes *v = p->kv->ops->marks ? p->kv->ops->marks(p->kv, &n) : NULL;

	for (; n && bytes_cmp(*v, p->from) <= 0; v++)
		n--;
	while (n && bytes_cmp(v[n - 1], p->to) >= 0)
		n--;
	p->marks = v;
	p->nmarks = n;
}

int walk_rows(struct kv *kv, char kind, walk_row *row, void *const *args, unsigned n)
{
	const uint8_t begin = (uint8_t)kind, end = begin + 1;
	struct parts p = {
		.kv = kv, .from = BYTES_OF(&begin, 1), .to = BYTES_OF(&end, 1),
		.row = row, .args = args,
	};

	if (!kv->ops->scan)
		return walk_kind(kv, kind, row, args[0]);
	find_marks(&p);
	return crew_run(n < p.nmarks + 1 ? n : p.nmarks + 1, look_at_parts, &p);
}

/* Bodies --------------------------------------------------------------------- */

struct body_walk {
	struct index *ix;
	const struct attr *attr;
	const struct body_visitor *v;
	const struct block_ref *in; /* the block whose extents they are, or NULL */
};

static int walk_extent(void *arg, const struct extent *x)
{
	struct body_walk *w = arg;

	if (w->in && x->page / REGION_PAGES != w->in->region)
		return -EUCLEAN;
	return w->v->extent(w->v->arg, w->attr, x);
}

static int walk_extents(struct body_walk *w, struct bytes b, const struct block_ref *in)
{
	_cleanup_(extents_fini) struct extents e = { 0 };

	w->in = in;
	if (w->v->extent)
		return body_each_extent(b, walk_extent, w);
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
	for (uint32_t i = 0; !r && i < n && (tree || w->v->extents || w->v->extent);
	     i += WALK_LOT)
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
