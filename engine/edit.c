/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a file's shape: truncate, fallocate; and asking for it: seek. All of
 * them take the whole file, so that its size does not change under them.
 *
 * The page at the end of a file is zero behind the end, always: shrinking makes
 * it so, and growing relies on it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "engine/open.h"

static void set_size(struct file *f, uint64_t size)
{
	WITH_LOCK(&f->lock);
	f->attr.size = size;
	file_changed(f);
}

static bool has_page(struct file *f, uint64_t page)
{
	struct map_view v;

	WITH_LOCK(&f->lock);
	return map_at(&f->map, page, &v);
}

/* Truncate ---------------------------------------------------------------------- */

static void truncate_cut(struct work *w, int r)
{
	struct file *f = w->f;
	uint64_t size = w->op->off;

	if (!r) {
		WITH_LOCK(&f->lock);
		map_cut(&f->map, page_end(size), UINT64_MAX);
		if (!size && !f->small) {
			f->small = true;
			memset(f->content, 0, sizeof(f->content));
		}
		f->attr.size = size;
		f->unclean = 0;
		file_changed(f);
	}
	work_end(w, r);
}

static void truncate_grow(struct work *w, int r)
{
	if (!r)
		set_size(w->f, w->op->off);
	work_end(w, r);
}

/* Under the file's lock: content[] suffices. */
static bool truncate_small(struct file *f, uint64_t size)
{
	if (!f->small || size > INDEX_INLINE_MAX)
		return false;
	if (size < f->attr.size)
		memset(f->content + size, 0, f->attr.size - size);
	f->attr.size = size;
	file_changed(f);
	return true;
}

static void truncate_locked(struct work *w, int r)
{
	struct file *f = w->f;
	uint64_t size = w->op->off, old;
	bool done;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		old = f->attr.size;
		done = truncate_small(f, size);
	}
	if (done)
		work_end(w, 0);
	else if (size >= old)
		work_spill(w, truncate_grow);
	else if (size % PAGE_BYTES && has_page(f, page_of(size)))
		work_put(w, size, NULL, PAGE_BYTES - size % PAGE_BYTES, PUT_DATA,
			 truncate_cut);
	else
		truncate_cut(w, 0);
}

void file_truncate(struct file_op *op)
{
	if (op->off > FILE_BYTES_MAX || op->file->lost) {
		op->done(op, op->file->lost ? -EIO : -EFBIG);
		return;
	}
	struct work *w = work_new(op, sizeof(*w));
	if (w)
		work_lock(w, 0, RANGE_END, truncate_locked);
}

/* Allocate, zero ------------------------------------------------------------------ */

static void allocated(struct work *w, int r)
{
	struct file *f = w->f;
	uint64_t end = w->op->off + w->op->len;

	if (!r) {
		WITH_LOCK(&f->lock);
		if (!(w->op->mode & FALLOC_FL_KEEP_SIZE) && f->attr.size < end)
			f->attr.size = end;
		file_changed(f);
	}
	work_end(w, r);
}

static void allocate_put(struct work *w, int r)
{
	uint64_t off = w->op->off, end = off + w->op->len;

	if (r < 0) {
		work_end(w, r);
	} else if (w->op->mode & FALLOC_FL_ZERO_RANGE) {
		work_put(w, off, NULL, end - off, 0, allocated);
	} else {
		off = page_of(off) * PAGE_BYTES;
		end = page_end(end) * PAGE_BYTES;
		work_put(w, off, NULL, end - off, PUT_HOLES, allocated);
	}
}

/* Punch --------------------------------------------------------------------------- */

static void punch_cut(struct work *w, int r)
{
	struct file *f = w->f;
	uint64_t from = page_end(w->op->off), to = page_of(w->op->off + w->op->len);

	{
		WITH_LOCK(&f->lock);
		if (!r && from < to)
			r = map_reserve_cut(&f->map, from, to);
		if (!r && from < to)
			map_cut(&f->map, from, to);
		file_changed(f); /* an edge may have been zeroed if nothing else */
	}
	work_end(w, r);
}

static void punch_tail(struct work *w, int r)
{
	uint64_t end = w->op->off + w->op->len, from = page_of(end) * PAGE_BYTES;

	if (r < 0)
		punch_cut(w, r);
	else if (end % PAGE_BYTES && from >= w->op->off)
		work_put(w, from, NULL, end - from, PUT_DATA, punch_cut);
	else
		punch_cut(w, 0);
}

static void punch_head(struct work *w)
{
	uint64_t off = w->op->off, end = off + w->op->len;
	uint64_t to = page_end(off) * PAGE_BYTES;

	if (off % PAGE_BYTES)
		work_put(w, off, NULL, (to < end ? to : end) - off, PUT_DATA, punch_tail);
	else
		punch_tail(w, 0);
}

/* fallocate ------------------------------------------------------------------------ */

/* Under the file's lock: what content[] suffices for. */
static bool fallocate_small(struct file *f, const struct file_op *op)
{
	uint64_t end = op->off + op->len, size = f->attr.size;

	/* Nothing is touched yet by what needs a slice and may not get it. */
	if (!f->small || (end > INDEX_INLINE_MAX && !(op->mode & FALLOC_FL_PUNCH_HOLE)))
		return false;
	if (op->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && op->off < size)
		memset(f->content + op->off, 0, (end < size ? end : size) - op->off);
	if (!(op->mode & FALLOC_FL_KEEP_SIZE) && end > size)
		f->attr.size = end;
	file_changed(f);
	return true;
}

/* Under the file's lock: more is asked for than the pool has in all, and nobody's files are
 * to be forgotten for that. */
static bool fallocate_in_vain(const struct file *f, const struct file_op *op)
{
	uint64_t from = page_of(op->off), to = page_end(op->off + op->len);
	uint32_t most = f->e->node->npages;

	return !(op->mode & FALLOC_FL_PUNCH_HOLE) && to - from > most &&
	       map_missing(&f->map, from, to) > most;
}

static void fallocate_locked(struct work *w, int r)
{
	struct file *f = w->f;
	bool done, in_vain;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		in_vain = fallocate_in_vain(f, w->op);
		done = !in_vain && fallocate_small(f, w->op);
	}
	if (in_vain)
		work_end(w, -ENOSPC);
	else if (done)
		work_end(w, 0);
	else if (w->op->mode & FALLOC_FL_PUNCH_HOLE)
		punch_head(w);
	else
		work_spill(w, allocate_put);
}

static int fallocate_check(const struct file_op *op)
{
	uint64_t end = op->off + op->len;

	switch (op->mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!op->len)
		return -EINVAL;
	return end < op->off || end > FILE_BYTES_MAX ? -EFBIG : 0;
}

void file_fallocate(struct file_op *op)
{
	int r = op->file->lost ? -EIO : fallocate_check(op);

	if (r < 0) {
		op->done(op, r);
		return;
	}
	struct work *w = work_new(op, sizeof(*w));
	if (w)
		work_lock(w, 0, RANGE_END, fallocate_locked);
}

/* Seek ------------------------------------------------------------------------------ */

static int64_t seek_data(const struct file *f, uint64_t off)
{
	struct map_view v;

	if (f->small)
		return (int64_t)off;
	if (!map_next(&f->map, page_of(off), &v))
		return -ENXIO;
	uint64_t at = v.page * PAGE_BYTES;
	if (at < off)
		at = off;
	return at < f->attr.size ? (int64_t)at : -ENXIO;
}

static int64_t seek_hole(const struct file *f, uint64_t off)
{
	uint64_t at = off;
	struct map_view v;

	if (f->small)
		return (int64_t)f->attr.size;
	while (at < f->attr.size && map_at(&f->map, page_of(at), &v))
		at = (v.page + v.npages) * PAGE_BYTES;
	return (int64_t)(at < f->attr.size ? at : f->attr.size);
}

static int64_t seek(struct file *f, const struct file_op *op)
{
	WITH_LOCK(&f->lock);
	if (op->off >= f->attr.size)
		return -ENXIO;
	switch (op->mode) {
	case SEEK_DATA:
		return seek_data(f, op->off);
	case SEEK_HOLE:
		return seek_hole(f, op->off);
	default:
		return -EINVAL;
	}
}

void file_seek(struct file_op *op)
{
	op->done(op, seek(op->file, op));
}
