/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that change a file: taking their range, their steps, their end. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "engine/open.h"
#include "engine/xfer.h"

uint8_t file_zeros[XFER_RUN_MAX];

#define work_of(ptr, member)                                                   \
	((struct work *)((char *)(ptr) - offsetof(struct work, member)))

struct work *work_new(struct file_op *op, size_t size)
{
	struct work *w = calloc(1, size);

	if (!w) {
		op->done(op, -ENOMEM);
		return NULL;
	}
	w->f = op->file;
	w->op = op;
	return w;
}

static void granted(struct task *t)
{
	struct work *w = work_of(t, range.task);

	w->run(w, 0);
}

void work_lock(struct work *w, uint64_t from, uint64_t to,
	       void (*run)(struct work *w, int r))
{
	bool now;

	w->range.from = from;
	w->range.to = to;
	w->range.task.fn = granted;
	w->run = run;
	{
		WITH_LOCK(&w->f->lock);
		now = range_take(&w->f->ranges, &w->range);
	}
	if (now)
		run(w, 0);
}

void work_unlock(struct work *w)
{
	struct task *woken;

	{
		WITH_LOCK(&w->f->lock);
		woken = range_give(&w->f->ranges, &w->range);
	}
	w->range.to = 0; /* none held */
	range_wake(woken);
}

static void later(struct task *t)
{
	struct work *w = work_of(t, task);

	w->run(w, w->result);
}

void work_later(struct work *w, void (*run)(struct work *w, int r), int r)
{
	w->run = run;
	w->result = r;
	w->task.fn = later;
	task_run(&w->task);
}

void work_end(struct work *w, int64_t r)
{
	struct file_op *op = w->op;

	if (w->range.to)
		work_unlock(w);
	free(w);
	op->done(op, r);
}

static void put_done(struct put *p, int r)
{
	struct work *w = work_of(p, put);

	w->run(w, r);
}

void work_put(struct work *w, uint64_t off, const void *buf, uint64_t len,
	      unsigned flags, void (*run)(struct work *w, int r))
{
	assert(len);
	w->run = run;
	w->put.f = w->f;
	w->put.off = off;
	w->put.len = len;
	w->put.buf = buf;
	w->put.flags = flags;
	w->put.ahead = w->ahead;
	w->put.call = &w->op->call;
	w->put.done = put_done;
	put_start(&w->put);
}
