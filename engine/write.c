/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing. What stays within INDEX_INLINE_MAX bytes goes into the file's own
 * content buffer; a file that outgrows it is spilled into a slice first.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/metrics.h"
#include "engine/open.h"

void file_count(struct file *f)
{
	bool count = f->draft || f->dirty;

	if (count != f->counted)
		metric_add(M_DRAFTS, count ? 1 : -1);
	f->counted = count;
}

void file_changed(struct file *f)
{
	assert(!f->early);
	f->dirty = true;
	f->attr.mtime = f->attr.ctime = clock_now();
	file_count(f);
}

/*
 * A write in place behind the end of the file whose transfer failed may have left
 * bytes where zeros are promised, up to `unclean`. It could not be undone then,
 * very likely; so whoever moves the end, or publishes, begins by making it good.
 */
static void cleaned(struct work *w, int r)
{
	if (!r) {
		WITH_LOCK(&w->f->lock);
		w->f->unclean = 0;
	}
	w->after(w, r);
}

void work_clean(struct work *w, void (*run)(struct work *w, int r))
{
	struct file *f = w->f;

	w->after = run;
	if (f->unclean > f->attr.size)
		work_put(w, f->attr.size, NULL, f->unclean - f->attr.size, PUT_DATA, cleaned);
	else
		cleaned(w, 0);
}

/* Content too large for content[]: the whole file is ours ---------------------- */

static void spilled(struct work *w, int r)
{
	if (!r) {
		WITH_LOCK(&w->f->lock);
		w->f->small = false;
		memset(w->f->content, 0, sizeof(w->f->content));
	}
	w->after(w, r);
}

void work_spill(struct work *w, void (*run)(struct work *w, int r))
{
	struct file *f = w->f;

	if (!f->small) {
		work_clean(w, run);
		return;
	}
	w->after = run;
	/* The map is empty, so the rest of the page is filled with zeros. Readers
	 * see `small` and the buffer until the page is in the map. */
	if (f->attr.size)
		work_put(w, 0, f->content, f->attr.size, 0, spilled);
	else
		spilled(w, 0);
}

/* file_write() ----------------------------------------------------------------- */

static void write_done(struct work *w, int r)
{
	struct file *f = w->f;
	uint64_t len = w->op->len, end = w->op->off + len;

	if (r < 0) {
		{
			WITH_LOCK(&f->lock);
			if (r != -ENOSPC && end > f->attr.size && end > f->unclean)
				f->unclean = end;
		}
		work_end(w, r);
		return;
	}
	{
		WITH_LOCK(&f->lock);
		if (f->attr.size < end)
			f->attr.size = end;
		file_changed(f);
	}
	metric_add(M_WRITTEN_BYTES, (int64_t)len);
	crash_point(CRASH_WRITE_DONE);
	work_end(w, (int64_t)len);
}

static void write_put(struct work *w, int r)
{
	if (r < 0)
		work_end(w, r);
	else
		work_put(w, w->op->off, w->op->buf, w->op->len, 0, write_done);
}

/* Under the file's lock, nobody else at it: fits into content[]. */
static void write_small(struct file *f, const struct file_op *op)
{
	memcpy(f->content + op->off, op->buf, op->len);
	if (f->attr.size < op->off + op->len)
		f->attr.size = op->off + op->len;
	file_changed(f);
	metric_add(M_WRITTEN_BYTES, (int64_t)op->len);
}

static void write_locked(struct work *w, int r)
{
	struct file *f = w->f;
	struct file_op *op = w->op;
	bool whole = w->range.to == RANGE_END, narrow = false, done = false, plain;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		if (f->small && !f->attr.size && op->off + op->len > INDEX_INLINE_MAX)
			f->small = false;
		plain = !f->small && !f->unclean;
		if (!plain && !whole) {
			narrow = true; /* it has become so while we waited */
		} else if (f->small && op->off + op->len <= INDEX_INLINE_MAX) {
			write_small(f, op);
			done = true;
		}
	}
	if (narrow) {
		work_unlock(w);
		work_lock(w, 0, RANGE_END, write_locked);
	} else if (done) {
		work_end(w, (int64_t)op->len);
	} else if (plain) {
		write_put(w, 0);
	} else {
		work_spill(w, write_put);
	}
}

void file_write(struct file_op *op)
{
	struct file *f = op->file;
	uint64_t end = op->off + op->len;
	bool whole, done = false;

	if (!op->len || end < op->off || end > FILE_BYTES_MAX) {
		op->done(op, op->len ? -EFBIG : 0);
		return;
	}
	if (f->lost) {
		op->done(op, -EIO);
		return;
	}
	{
		WITH_LOCK(&f->lock);
		whole = f->small ? f->attr.size || end <= INDEX_INLINE_MAX : f->unclean;
		if (f->small && end <= INDEX_INLINE_MAX && ranges_idle(&f->ranges)) {
			write_small(f, op);
			done = true;
		}
	}
	if (done) {
		op->done(op, (int64_t)op->len);
		return;
	}
	struct work *w = work_new(op, sizeof(*w));
	if (!w)
		return;
	if (whole)
		work_lock(w, 0, RANGE_END, write_locked);
	else
		work_lock(w, page_of(op->off), page_end(end), write_locked);
}
