/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading: where the bytes are. A read never waits for a write: it pins what the
 * map says at one moment, under the file's lock, and takes its time after that.
 *
 * The usual read is of one extent, in memory that this process reaches, with
 * nothing to verify: then all it needs fits into op->priv and costs no
 * allocation. Else a list of pieces is fetched, and what had to be copied lives
 * until file_read_end().
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/metrics.h"
#include "engine/open.h"
#include "engine/xfer.h"

struct piece {
	struct fetch fetch;   /* hold: NULL in a hole */
	struct slice_id id;   /* if pinned */
	bool pinned;
	uint64_t skip, len;   /* bytes: before what was asked, and asked */
	struct reading *reading;
};

/* A read that needed more than one extent, or care. */
struct reading {
	struct file_op *op;
	uint64_t len;
	uint32_t n, cap;
	_Atomic uint32_t left;
	_Atomic int error;
	struct iovec *iov;
	struct piece *v;
};

/* What a read keeps in op->priv. */
struct kept {
	struct node *node;
	struct iovec iov;
	struct slice_id id;
	bool pinned;
	void *copy;              /* of small content */
	struct reading *reading;
};
_Static_assert(sizeof(struct kept) <= sizeof(((struct file_op *)0)->priv),
	       "a read's state fits into its op");

static struct kept *kept_of(struct file_op *op)
{
	return (struct kept *)op->priv;
}

/* Under the file's lock: everything is in one extent, here, and needs no check. */
static bool read_quickly(struct file *f, struct file_op *op, uint64_t len)
{
	struct kept *k = kept_of(op);
	struct map_view v;
	uint64_t end = page_end(op->off + len);

	if (!map_at(&f->map, page_of(op->off), &v) || v.page + v.npages < end)
		return false;
	uint32_t off = v.off + (uint32_t)(page_of(op->off) - v.page);
	uint32_t n = (uint32_t)(end - page_of(op->off));
	if (!v.hold->writing && fetch_must_verify(f->e, v.hold, off, n))
		return false;
	uint8_t *base = fetch_map(f->e, v.hold->id);
	if (!base)
		return false;
	int r = node_pin(f->e->node, v.hold->id);
	assert(!r); /* the map's own pin is there */
	k->node = f->e->node;
	k->id = v.hold->id;
	k->pinned = true;
	k->iov = (struct iovec){
		base + (uint64_t)off * PAGE_BYTES + op->off % PAGE_BYTES, len };
	op->iov = &k->iov;
	op->niov = 1;
	return true;
}

/* Of bytes that are here, small or early. */
static int read_small(const uint8_t *bytes, struct file_op *op, uint64_t len)
{
	struct kept *k = kept_of(op);

	k->copy = malloc(len);
	if (!k->copy)
		return -ENOMEM;
	memcpy(k->copy, bytes + op->off, len);
	k->iov = (struct iovec){ k->copy, len };
	op->iov = &k->iov;
	op->niov = 1;
	return 0;
}

/* In pieces ------------------------------------------------------------------ */

static int add_piece(struct reading *rd, const struct map_view *v, uint64_t at,
		     uint64_t len)
{
	if (array_room(rd->v, rd->cap, rd->n + 1, 4) < 0)
		return -ENOMEM;
	struct piece *p = &rd->v[rd->n++];
	*p = (struct piece){ .len = len };
	if (!v)
		return 0;
	p->skip = at % PAGE_BYTES;
	p->id = v->hold->id;
	p->fetch.fileid = rd->op->file->fileid;
	p->fetch.hold = map_hold_ref(v->hold);
	p->fetch.off = v->off + (uint32_t)(page_of(at) - v->page);
	p->fetch.npages = (uint32_t)(page_end(at + len) - page_of(at));
	p->fetch.sealed = !v->hold->writing;
	return 0;
}

/* Once all is fetched only the pins are needed, and memory of our own: the file
 * may be closed between done() and file_read_end(). */
static void let_go_of_map(struct file *f, struct reading *rd)
{
	WITH_LOCK(&f->lock);
	for (uint32_t i = 0; i < rd->n; i++) {
		struct fetch *t = &rd->v[i].fetch;
		if (t->hold)
			t->hold = map_hold_unref(&f->map, t->hold);
	}
}

static void drop_pieces(struct node *node, struct reading *rd)
{
	for (uint32_t i = 0; i < rd->n; i++) {
		fetch_end(&rd->v[i].fetch);
		if (!rd->v[i].pinned)
			continue;
		int r = node_unpin(node, rd->v[i].id);
		assert(!r);
	}
	free(rd->v);
	free(rd->iov);
	free(rd);
}

/* Under the file's lock: pins all extents of [off, off + len). */
static int collect(struct file *f, struct reading *rd, uint64_t off, uint64_t len)
{
	uint64_t at = off, end = off + len;

	while (at < end) {
		struct map_view v;
		bool any = map_next(&f->map, page_of(at), &v);
		uint64_t from = any ? v.page * PAGE_BYTES : end;
		uint64_t to = end;
		int r;
		if (from > at) {
			to = from < end ? from : end;
			if (to - at > XFER_RUN_MAX)
				to = at + XFER_RUN_MAX;
			r = add_piece(rd, NULL, at, to - at);
		} else {
			uint64_t last = (v.page + v.npages) * PAGE_BYTES;
			to = last < end ? last : end;
			r = add_piece(rd, &v, at, to - at);
			if (!r) {
				r = node_pin(f->e->node, v.hold->id);
				assert(!r);
				rd->v[rd->n - 1].pinned = true;
			}
		}
		if (r < 0)
			return r;
		at = to;
	}
	return 0;
}

static void reading_done(struct reading *rd)
{
	struct file_op *op = rd->op;
	int r = rd->error;

	struct node *node = op->file->e->node;

	let_go_of_map(op->file, rd);
	if (r < 0) {
		drop_pieces(node, rd);
		op->done(op, r);
		return;
	}
	for (uint32_t i = 0; i < rd->n; i++) {
		struct piece *p = &rd->v[i];
		const uint8_t *base = p->pinned ? p->fetch.ptr : file_zeros;
		rd->iov[i] = (struct iovec){ (void *)(base + p->skip), p->len };
	}
	op->iov = rd->iov;
	op->niov = rd->n;
	*kept_of(op) = (struct kept){ .reading = rd, .node = node };
	metric_add(M_READ_BYTES, (int64_t)rd->len);
	op->done(op, (int64_t)rd->len);
}

static void piece_done(struct fetch *t, int r)
{
	struct reading *rd = t->arg;

	if (r < 0)
		rd->error = r;
	if (!--rd->left)
		reading_done(rd);
}

/* Starts all fetches; the last to end answers. */
static void read_pieces(struct file *f, struct file_op *op, struct reading *rd)
{
	uint32_t n = rd->n;
	struct fetch none = { .arg = rd };

	rd->iov = calloc(n, sizeof(*rd->iov));
	rd->left = n + 1; /* one is ours, so that nobody is last before us */
	if (!rd->iov)
		rd->error = -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct fetch *t = &rd->v[i].fetch;
		t->arg = rd;
		t->done = piece_done;
		t->call = &op->call;
		if (t->hold && !rd->error)
			fetch_start(f->e, t);
		else
			rd->left--;
	}
	piece_done(&none, 0);
}

/* 1: wait for pieces; else the result. */
static int64_t read_look(struct file *f, struct file_op *op, struct reading **ret)
{
	uint64_t len = op->len;

	WITH_LOCK(&f->lock);
	if (!len || op->off >= f->attr.size)
		return 0;
	if (len > f->attr.size - op->off)
		len = f->attr.size - op->off;
	if (f->small || f->early) {
		int r = read_small(f->small ? f->content : f->early, op, len);
		return r < 0 ? r : (int64_t)len;
	}
	if (read_quickly(f, op, len))
		return (int64_t)len;
	struct reading *rd = calloc(1, sizeof(*rd));
	if (!rd)
		return -ENOMEM;
	*ret = rd;
	rd->op = op;
	rd->len = len;
	return collect(f, rd, op->off, len);
}

void file_read(struct file_op *op)
{
	struct file *f = op->file;
	struct reading *rd = NULL;

	*kept_of(op) = (struct kept){ 0 };
	op->iov = NULL;
	op->niov = 0;
	int64_t r = f->lost ? -EIO : read_look(f, op, &rd);
	if (rd && r < 0) {
		/* The piece that could not be added has no pin. */
		let_go_of_map(f, rd);
		drop_pieces(f->e->node, rd);
	} else if (rd) {
		read_pieces(f, op, rd);
		return;
	}
	if (r > 0)
		metric_add(M_READ_BYTES, r);
	op->done(op, r);
}

void file_read_end(struct file_op *op)
{
	struct kept *k = kept_of(op);

	if (k->pinned) {
		int r = node_unpin(k->node, k->id);
		assert(!r);
		k->pinned = false;
	}
	free(k->copy);
	k->copy = NULL;
	if (k->reading)
		drop_pieces(k->node, k->reading);
	k->reading = NULL;
	op->iov = NULL;
	op->niov = 0;
}
