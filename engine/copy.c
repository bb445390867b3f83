/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying between files (or within one) without moving what can be shared. Whole
 * pages that lie alike in both are shared: the destination's extents name the
 * source's slices, each with a pin of its own, and whoever writes to them next
 * copies. For that they must not change any more, so the source is sealed first.
 * The rest (odd ends, content of small files, pages that do not line up) is read
 * and written, at most COPY_BYTES at a time.
 *
 * A copy is a loop of such steps. Sharing holds all of both files; between steps
 * others get their turn, as between two writes.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "engine/open.h"

enum { COPY_BYTES = 1 << 20 };

struct copy {
	struct work to;   /* first: freed by work_end() */
	struct work from;
	struct file_op sub;
	uint64_t at, len; /* done, and to be done */
	uint64_t n;       /* of this step */
	bool tail;        /* the last page is shared in part: both end in it */
	uint8_t *buf;
	struct put_run *v; /* on their way to the destination */
	uint32_t nv, cap;
};

#define copy_of(ptr, member)                                                   \
	((struct copy *)((char *)(ptr) - offsetof(struct copy, member)))

static void copy_step(struct work *w, int r);

/* What was copied before an error counts, as in write(2). */
static void copy_end(struct copy *c, int r)
{
	free(c->buf);
	free(c->v);
	work_end(&c->to, c->at || !r ? (int64_t)c->at : r);
}

static void step_done(struct copy *c, int r)
{
	if (r < 0) {
		copy_end(c, r);
		return;
	}
	c->at += c->n;
	work_later(&c->to, copy_step, 0);
}

/* Bytes ------------------------------------------------------------------------- */

static void copy_written(struct file_op *op, int64_t r)
{
	struct copy *c = copy_of(op, sub);

	step_done(c, r < 0 ? (int)r : 0);
}

static void copy_read(struct file_op *op, int64_t r)
{
	struct copy *c = copy_of(op, sub);
	struct file_op *asked = c->to.op;
	uint64_t n = 0;

	if (r <= 0) {
		/* 0: the source has become shorter meanwhile. */
		c->len = c->at;
		c->n = 0;
		step_done(c, (int)r);
		return;
	}
	for (unsigned i = 0; i < op->niov; i++) {
		memcpy(c->buf + n, op->iov[i].iov_base, op->iov[i].iov_len);
		n += op->iov[i].iov_len;
	}
	file_read_end(op);
	c->n = n;
	c->sub = (struct file_op){
		.file = asked->to, .off = asked->off2 + c->at, .buf = c->buf, .len = n,
		.call = kv_call_of(&asked->call), .done = copy_written,
	};
	file_write(&c->sub);
}

static void copy_bytes(struct copy *c)
{
	struct file_op *op = c->to.op;
	uint64_t from = op->off + c->at, to = op->off2 + c->at;
	uint64_t n = c->len - c->at;

	if (n > COPY_BYTES)
		n = COPY_BYTES;
	/* Up to where sharing may begin. */
	uint64_t in = from % PAGE_BYTES;
	if (in && in == to % PAGE_BYTES && n > PAGE_BYTES - in)
		n = PAGE_BYTES - in;
	if (!c->buf)
		c->buf = malloc(c->len < COPY_BYTES ? c->len : COPY_BYTES);
	if (!c->buf) {
		copy_end(c, -ENOMEM);
		return;
	}
	c->sub = (struct file_op){
		.file = op->file, .off = from, .len = n,
		.call = kv_call_of(&op->call), .done = copy_read,
	};
	file_read(&c->sub);
}

/* Sharing ------------------------------------------------------------------------- */

static void share_end(struct copy *c, int r, bool shared)
{
	if (c->from.range.to)
		work_unlock(&c->from);
	if (c->to.range.to)
		work_unlock(&c->to);
	if (!r && !shared)
		copy_bytes(c);
	else
		step_done(c, r);
}

/* Under the source's lock: one run of pages, for one region of the destination. */
static int take_share(struct copy *c, const struct map_view *v, uint64_t page,
		      uint32_t n, uint64_t to_page)
{
	struct hold *h;

	if (array_room(c->v, c->cap, c->nv + 1, 16) < 0)
		return -ENOMEM;
	int r = map_hold_new(NULL, v->hold->id, v->hold->npages, v->hold->pool_id, false, &h);
	if (r < 0)
		return r;
	h->valid = v->hold->valid;
	memcpy(h->sums, v->hold->sums,
	       (h->npages + SUM_PAGES - 1u) / SUM_PAGES * sizeof(h->sums[0]));
	r = node_pin(c->from.f->e->node, h->id);
	assert(!r);
	c->v[c->nv++] = (struct put_run){
		.page = to_page, .npages = n, .off = v->off + (uint32_t)(page - v->page),
		.hold = h, .fresh = true,
	};
	return 0;
}

static int take_shares(struct copy *c, uint64_t page, uint64_t to_page, uint64_t npages)
{
	struct file *f = c->from.f;
	uint64_t end = page + npages;
	struct map_view v;

	WITH_LOCK(&f->lock);
	c->nv = 0;
	while (page < end && map_next(&f->map, page, &v) && v.page < end) {
		if (v.page > page) {
			to_page += v.page - page;
			page = v.page;
		}
		uint64_t n = v.page + v.npages - page;
		uint64_t to_region = REGION_PAGES - to_page % REGION_PAGES;
		if (n > end - page)
			n = end - page;
		if (n > to_region)
			n = to_region;
		int r = take_share(c, &v, page, (uint32_t)n, to_page);
		if (r < 0)
			return r;
		page += n;
		to_page += n;
	}
	return 0;
}

static void drop_shares(struct copy *c)
{
	while (c->nv) {
		struct put_run *s = &c->v[--c->nv];
		node_unpin(c->to.f->e->node, s->hold->id);
		map_hold_unref(NULL, s->hold);
	}
}

static int give_shares(struct copy *c, uint64_t to_page, uint64_t npages)
{
	struct file *f = c->to.f;
	uint64_t end = c->to.op->off2 + c->at + c->n;

	WITH_LOCK(&f->lock);
	int r = map_reserve_cut(&f->map, to_page, to_page + npages);
	if (!r)
		r = put_reserve(&f->map, c->v, c->nv);
	if (r < 0)
		return r;
	map_cut(&f->map, to_page, to_page + npages);
	for (uint32_t i = 0; i < c->nv; i++) {
		struct put_run *s = &c->v[i];
		map_insert(&f->map, s->page, s->npages, s->hold, s->off);
		map_hold_unref(&f->map, s->hold);
	}
	c->nv = 0;
	if (f->attr.size < end)
		f->attr.size = end;
	file_changed(f);
	return 0;
}

static void share_sealed(struct work *w, int r)
{
	struct copy *c = copy_of(w, from);
	struct file_op *op = c->to.op;
	uint64_t page = page_of(op->off + c->at), to_page = page_of(op->off2 + c->at);
	uint64_t npages = page_end(c->n);

	if (!r)
		r = take_shares(c, page, to_page, npages);
	if (!r)
		r = give_shares(c, to_page, npages);
	if (r < 0)
		drop_shares(c);
	share_end(c, r, true);
}

static void share_cleaned(struct work *w, int r)
{
	if (r < 0)
		share_end(copy_of(w, from), r, true);
	else
		seal_only(w, share_sealed);
}

/* The source's last page goes with what is behind its end: zeros. */
static void share_spilled(struct work *w, int r)
{
	struct copy *c = copy_of(w, to);

	if (r < 0)
		share_end(c, r, true);
	else
		work_clean(&c->from, share_cleaned);
}

/* How many bytes, from here on, can be shared: whole pages, and the rest of a
 * last one if both files end with it. */
static uint64_t shareable(struct copy *c)
{
	struct file_op *op = c->to.op;
	uint64_t left = c->len - c->at, from_size, to_size;
	bool small;

	if ((op->off + c->at) % PAGE_BYTES || (op->off2 + c->at) % PAGE_BYTES)
		return 0;
	{
		WITH_LOCK(&c->from.f->lock);
		from_size = c->from.f->attr.size;
		small = c->from.f->small;
	}
	{
		WITH_LOCK(&c->to.f->lock);
		to_size = c->to.f->attr.size;
	}
	if (small || op->off + c->at >= from_size)
		return 0;
	if (left > from_size - (op->off + c->at))
		left = from_size - (op->off + c->at);
	if (op->off + c->at + left == from_size && op->off2 + c->at + left >= to_size)
		return left;
	return left / PAGE_BYTES * PAGE_BYTES;
}

/* Both files are ours. */
static void share_locked(struct copy *c)
{
	c->n = shareable(c);
	if (!c->n)
		share_end(c, 0, false);
	else
		work_spill(&c->to, share_spilled);
}

static void to_last(struct work *w, int r)
{
	(void)r;
	share_locked(copy_of(w, to));
}

static void from_last(struct work *w, int r)
{
	(void)r;
	share_locked(copy_of(w, from));
}

static void to_first(struct work *w, int r)
{
	(void)r;
	work_lock(&copy_of(w, to)->from, 0, RANGE_END, from_last);
}

static void from_first(struct work *w, int r)
{
	(void)r;
	work_lock(&copy_of(w, from)->to, 0, RANGE_END, to_last);
}

/* In the order of their addresses, so that two copies do not wait for each other. */
static void share(struct copy *c)
{
	if (c->to.f == c->from.f)
		work_lock(&c->to, 0, RANGE_END, to_last);
	else if (c->to.f < c->from.f)
		work_lock(&c->to, 0, RANGE_END, to_first);
	else
		work_lock(&c->from, 0, RANGE_END, from_first);
}

/* ---------------------------------------------------------------------------------- */

static void copy_step(struct work *w, int r)
{
	struct copy *c = copy_of(w, to);

	(void)r;
	if (c->at == c->len)
		copy_end(c, 0);
	else if (shareable(c))
		share(c);
	else
		copy_bytes(c);
}

void file_copy(struct file_op *op)
{
	uint64_t end = op->off + op->len, end2 = op->off2 + op->len;
	struct attr a;

	file_attr(op->file, &a);
	if (end < op->off || end2 < op->off2 || end2 > FILE_BYTES_MAX) {
		op->done(op, -EFBIG);
		return;
	}
	if (op->file->lost || op->to->lost) {
		op->done(op, -EIO);
		return;
	}
	if (op->file == op->to && op->off < end2 && op->off2 < end) {
		op->done(op, -EINVAL);
		return;
	}
	uint64_t len = op->off < a.size ? a.size - op->off : 0;
	if (len > op->len)
		len = op->len;
	struct copy *c = len ? (struct copy *)work_new(op, sizeof(*c)) : NULL;
	if (!c) {
		if (!len)
			op->done(op, 0);
		return;
	}
	c->len = len;
	c->to.f = op->to;
	c->from.f = op->file;
	c->from.op = op;
	copy_step(&c->to, 0);
}
