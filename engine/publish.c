/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing: a draft becomes a version, in one index transaction.
 *
 *	seal -> put new blocks -> index_publish -> delete blocks that only the
 *	                                           version before it had
 *
 * A crash before index_publish leaves the old version whole: slices are rebuilt
 * from the index (I2), and blocks that no record names are orphans. After it, the
 * new one is whole, and what the old one had is free for the same reason. If it is only
 * we who die, and the index goes on, it has notes of all those blocks (collect.c).
 *
 * References are nobody's business here: whoever has the index counts them (refs.h),
 * and our map's pins hold the slices until then.
 *
 * A version may share blocks with the one that it grew from. If that was replaced
 * meanwhile (by another mount, or by a publish of ours of which no answer came), its
 * blocks may be gone: so it is put together once more, of new blocks only, and takes
 * the place of whatever is there (INDEX_CHANGED).
 *
 * The whole file is ours (range lock) from the seal to the end. Readers go on.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/publish.h"

#define publish_of(o) ((struct publish *)((char *)(o) - offsetof(struct publish, op)))

static void publish_end(struct publish *p)
{
	struct work *w = p->w;
	void (*done)(struct work *w, int r) = p->done;
	int r = p->result;

	if (r < 0)
		metric_add(M_PUBLISHES_FAILED, 1);
	parts_fini(p);
	free(p);
	w->publish = NULL;
	done(w, r);
}

static void new_op(struct publish *p, void (*done)(struct index_op *op, int outcome))
{
	index_op_fini(&p->op);
	p->op = (struct index_op){
		.fileid = p->w->f->fileid,
		.call = kv_call_of(&p->w->op->call),
		.done = done,
	};
}

/* After the end, for better or worse: blocks that nothing names --------------------- */

static void warn_of_blocks(const struct index_op *op, int outcome)
{
	if (outcome < 0)
		log_warn("file", "%u extent blocks of file %lu, and their slices, stay behind "
			 "until the next start: %s", op->nblocks, (unsigned long)op->fileid,
			 strerror(-outcome));
}

static void blocks_deleted(struct index_op *op, int outcome)
{
	struct publish *p = publish_of(op);

	warn_of_blocks(op, outcome);
	index_op_fini(op);
	publish_end(p);
}

static void delete_blocks(struct publish *p, struct block_ref *v, uint32_t n)
{
	new_op(p, blocks_deleted);
	if (!n) {
		publish_end(p);
		return;
	}
	p->op.call = (struct kv_call){ 0 };
	p->op.blocks = v;
	p->op.nblocks = n;
	p->op.note = p->note;
	index_del_blocks(p->w->f->e->ix, &p->op);
}

/* The draft is as it was; `put`: our blocks are in the index. */
static void publish_failed(struct publish *p, int r, bool put)
{
	struct file *f = p->w->f;

	/* Of a session that has ended: whatever the next one made of it. */
	p->result = f->lost ? -EIO : r;
	{
		WITH_LOCK(&f->lock);
		map_unpublished(&f->map);
	}
	delete_blocks(p, p->put, put ? p->nput : 0);
}

/* Committed -------------------------------------------------------------------------- */

static void attr_repaired(struct index_op *op, int outcome)
{
	struct publish *p = publish_of(op);

	if (outcome < 0)
		log_error("file", "attributes of file %lu changed while it was published "
			  "and were not stored: %s", (unsigned long)op->fileid,
			  strerror(-outcome));
	delete_blocks(p, p->del, p->ndel);
}

static unsigned attr_diff(const struct attr *a, const struct attr *b)
{
	unsigned mask = 0;

	if (a->mode != b->mode)
		mask |= INDEX_SET_MODE;
	if (a->uid != b->uid)
		mask |= INDEX_SET_UID;
	if (a->gid != b->gid)
		mask |= INDEX_SET_GID;
	return mask | keep_diff(&a->keep, &b->keep);
}

/* A draft's owner and mode are the file's own until now: chmod may have come
 * while the transaction was under way. */
static bool repair_attr(struct publish *p)
{
	struct file *f = p->w->f;
	struct attr now;
	struct place place;

	file_attr(f, &now);
	file_place(f, &place);
	unsigned mask = attr_diff(&now, &p->attr);
	if (!mask)
		return false;
	new_op(p, attr_repaired);
	p->op.call.of = NULL; /* it is published: no way back */
	p->op.place = place;
	p->op.mask = mask;
	p->op.attr = now;
	index_setattr(f->e->ix, &p->op);
	return true;
}

/* A name of this draft replaced an object, which may be open here. */
static void drop_replaced(struct publish *p, const struct gone *g)
{
	struct engine *e = p->w->f->e;
	struct file_op *op = p->w->op;

	if (!g->fileid)
		return;
	files_set_nlink(e, g->fileid, g->attr.nlink);
	if (!g->attr.nlink && !(op->replaced && op->replaced(op, g)))
		engine_drop(e, g);
}

static void drop_old(struct publish *p)
{
	struct engine *e = p->w->f->e;

	if (p->op.gone2.fileid) {
		p->ndel = 0; /* they go with the version that had them */
		engine_drop(e, &p->op.gone2);
	}
	drop_replaced(p, &p->op.gone);
	for (uint32_t i = 0; i < p->op.nmore_gone; i++)
		drop_replaced(p, &p->op.more_gone[i]);
}

static void committed(struct publish *p)
{
	struct file *f = p->w->f;
	bool was_draft;

	crash_point(CRASH_PUBLISH_COMMITTED);
	{
		const struct entry *en = &p->op.entry;
		WITH_LOCK(&f->lock);
		was_draft = f->draft;
		f->attr.version = en->attr.version;
		f->attr.has_xattrs |= en->attr.has_xattrs;
		f->place = en->place;
		p->attr = en->attr;
		f->draft = f->dirty = f->publishing = false;
		file_count(f);
	}
	p->note = was_draft ? 0 : p->attr.version - 1; /* index_publish() */
	drop_old(p);
	{
		WITH_LOCK(&f->lock);
		map_published(&f->map);
		free(f->nodes);
		f->nodes = steal(&p->nodes);
		f->nnodes = p->nnodes;
	}
	crash_point(CRASH_PUBLISH_DONE);
	metric_add(M_PUBLISHES, 1);
	if (!was_draft || !repair_attr(p))
		delete_blocks(p, p->del, p->ndel);
}

/* Steps ------------------------------------------------------------------------------ */

static void publish_anew(struct publish *p, bool unsure);

static void transacted(struct index_op *op, int outcome)
{
	struct publish *p = publish_of(op);

	if (!outcome) {
		committed(p);
		return;
	}
	{
		WITH_LOCK(&p->w->f->lock);
		p->w->f->publishing = false;
	}
	if (outcome == INDEX_CHANGED) {
		publish_anew(p, op->unsure);
		return;
	}
	/* If an answer was lost the version may be there, with its blocks. */
	publish_failed(p, outcome == INDEX_UNLINKED ? 0 : outcome > 0 ? -EIO : outcome,
		       !op->unsure);
}

static void publish_transact(struct publish *p)
{
	struct file *f = p->w->f;

	crash_point(CRASH_PUBLISH_BLOCKS);
	new_op(p, transacted);
	p->op.flags = p->shares ? PUBLISH_SHARES : 0;
	file_place(f, &p->op.place);
	p->op.session = p->session;
	p->op.attr = p->attr;
	p->op.body = p->body;
	p->op.blocks = p->del;
	p->op.nblocks = p->ndel;
	{
		WITH_LOCK(&f->lock);
		f->publishing = true;
	}
	index_publish(f->e->ix, &p->op);
}

static void blocks_put(struct index_op *op, int outcome)
{
	struct publish *p = publish_of(op);

	if (outcome < 0) /* none of them is left behind */
		publish_failed(p, outcome, false);
	else
		publish_transact(p);
}

static void publish_build(struct publish *p)
{
	int r = parts_build(p);

	if (r < 0) {
		publish_failed(p, r, false);
		return;
	}
	if (!p->nput) {
		publish_transact(p);
		return;
	}
	new_op(p, blocks_put);
	p->op.blocks = p->put;
	p->op.values = p->values;
	p->op.nblocks = p->nput;
	index_put_blocks(p->w->f->e->ix, &p->op);
}

static void anew_deleted(struct index_op *op, int outcome)
{
	struct publish *p = publish_of(op);
	struct file *f = p->w->f;

	warn_of_blocks(op, outcome);
	parts_reset(p);
	{
		WITH_LOCK(&f->lock);
		map_forget_blocks(&f->map);
		free(steal(&f->nodes));
		f->nnodes = 0;
	}
	publish_build(p);
}

/* Sharing was in vain, or an answer was lost. What was put for it goes, and all blocks are new.
 * `unsure`: the version may have been there, and another mount's that followed share its blocks. */
static void publish_anew(struct publish *p, bool unsure)
{
	new_op(p, anew_deleted);
	p->op.call = (struct kv_call){ 0 };
	p->op.blocks = p->put;
	p->op.nblocks = unsure ? 0 : p->nput;
	index_del_blocks(p->w->f->e->ix, &p->op);
}

static void sealed(struct work *w, int r)
{
	if (r < 0) {
		publish_failed(w->publish, r, false);
		return;
	}
	crash_point(CRASH_PUBLISH_SEALED);
	publish_build(w->publish);
}

static void tail_cleaned(struct work *w, int r)
{
	if (r < 0)
		sealed(w, r);
	else
		seal_start(w, sealed);
}

/* All that it consists of is of one session. If that is not any more the one that it was written
 * in, the file is lost by now. */
static void publish_begin(struct publish *p)
{
	struct file *f = p->w->f;

	crash_point(CRASH_PUBLISH_BEGIN);
	p->session = index_session(f->e->ix);
	if (file_is_lost(f))
		publish_failed(p, -EIO, false);
	else
		work_clean(p->w, tail_cleaned);
}

static void writer_begun(struct registering *g, int outcome)
{
	struct publish *p = (struct publish *)((char *)g - offsetof(struct publish, writer));

	if (!outcome)
		publish_begin(p);
	else if (outcome == INDEX_MISS && p->w->f->e->alone)
		publish_failed(p, 0, false); /* unlinked, as we are about to hear */
	else /* another mount may have renamed it */
		publish_failed(p, outcome < 0 ? outcome : -EIO, false);
}

/* It was opened for writing when it had no name, which need not be told (open.c), and
 * has one again: the draft that hid it was given up. */
static void publish_register(struct publish *p)
{
	p->writer = (struct registering){
		.f = p->w->f, .call = &p->w->op->call, .done = writer_begun,
	};
	file_place(p->w->f, &p->writer.place);
	registering_start(&p->writer);
}

/* 1: there is something to do. A draft that the index does not know (any more) has lost
 * its names, whatever is yet to be heard of them. */
static int publish_due(struct file *f, bool *ret_registered)
{
	WITH_LOCK(&f->lock);
	bool due = (f->dirty || f->draft) && f->attr.nlink;
	*ret_registered = f->registered;
	if (due && f->lost)
		return -EIO;
	return due && (f->registered || !f->draft);
}

void publish_start(struct work *w, void (*done)(struct work *w, int r))
{
	bool registered;
	int r = publish_due(w->f, &registered);

	if (r <= 0) {
		done(w, r);
		return;
	}
	struct publish *p = calloc(1, sizeof(*p));
	if (!p) {
		done(w, -ENOMEM);
		return;
	}
	p->w = w;
	p->done = done;
	w->publish = p;
	if (registered)
		publish_begin(p);
	else
		publish_register(p);
}

/* file_publish() --------------------------------------------------------------------- */

static void published(struct work *w, int r)
{
	work_end(w, r);
}

static void publish_locked(struct work *w, int r)
{
	struct file *f = w->f;
	bool not_now;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		not_now = (f->draft && !f->dirty && !w->op->off) || /* untouched */
			  (w->op->len && f->nwriters > 1 && !f->draft);
	}
	if (not_now)
		work_end(w, 0);
	else
		publish_start(w, published);
}

void file_publish(struct file_op *op)
{
	struct file *f = op->file;
	bool due;

	{
		WITH_LOCK(&f->lock);
		/* Also when clean by now, if somebody is changing or publishing it:
		 * his version is what we promise. */
		due = f->dirty || (f->draft && op->off) || !ranges_idle(&f->ranges);
	}
	if (!due) {
		op->done(op, 0);
		return;
	}
	struct work *w = work_new(op, sizeof(*w));
	if (w)
		work_lock(w, 0, RANGE_END, publish_locked);
}
