/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects by their fileid: reading and setting attributes, and who writes them, as
 * plans. Names are in dir.c, publishing in publish.c.
 */
#include <errno.h>

#include "common/clock.h"
#include "index/ops.h"

/* Attributes ---------------------------------------------------------------------- */

static int stat_plan(struct plan *p, struct index_op *op)
{
	struct object o;
	struct attr a = { .fileid = op->fileid };
	int r = object_find(p, op->fileid, op->place, &o);

	/* Likely a directory: asks for what that has in the same round trip. */
	if (r == PLAN_WAIT && op->place.kind == PLACE_FILEID)
		dir_attr(p, &a);
	if (r)
		return r;
	return object_entry(p, &o, &op->entry);
}

void index_stat(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, stat_plan);
}

/* Times set by hand count until names come or go again: T and t make way, after
 * what they said has moved to the record. */
static int dir_fold_times(struct plan *p, struct attr *a)
{
	struct key prefix = key_prefix('t', a->fileid);
	const struct kv_rows *drafts;
	uint32_t nlink = a->nlink;
	int r = plan_both(dir_attr(p, a), plan_range(p, prefix, key_prefix_end(prefix),
						     UINT32_MAX, &drafts));

	if (r)
		return r;
	a->nlink = nlink;
	plan_expect_same(p, key_times(a->fileid));
	plan_expect_same(p, own_times(p, a->fileid));
	plan_del(p, key_times(a->fileid));
	for (uint32_t i = 0; i < drafts->nrows; i++)
		plan_del(p, key_draft_times(a->fileid, kv_key_session(drafts->rows[i].key)));
	return 0;
}

void attr_apply(struct attr *a, unsigned mask, const struct attr *from)
{
	if (mask & INDEX_SET_MODE)
		a->mode = (a->mode & S_IFMT) | (from->mode & 07777);
	if (mask & INDEX_SET_UID)
		a->uid = from->uid;
	if (mask & INDEX_SET_GID)
		a->gid = from->gid;
	if (mask & INDEX_SET_ATIME)
		a->atime = from->atime;
	if (mask & INDEX_SET_MTIME)
		a->mtime = from->mtime;
	if (mask & INDEX_SET_CTIME)
		a->ctime = from->ctime;
	keep_apply(&a->keep, mask, &from->keep);
}

/* The caller has the attributes; an ACL is here, and follows the mode. */
static int setattr_draft(struct plan *p, struct index_op *op, const struct object *o)
{
	struct writer_state w;
	int r = 0;

	if (op->place.kind != PLACE_DRAFT)
		return -ENOENT;
	if (op->mask & INDEX_SET_MODE)
		r = plan_both(writer_get(p, op->fileid, &w),
			      xattrs_chmod(p, 'x', 'x', op->fileid, op->attr.mode));
	if (r)
		return r;
	if (op->mask & INDEX_SET_MODE) {
		plan_expect_same(p, own_writer(p, op->fileid));
		writer_put(p, op->fileid, &w);
	}
	return object_entry(p, o, &op->entry);
}

static int setattr_plan(struct plan *p, struct index_op *op)
{
	struct object o;
	struct attr *a = &o.rec.attr;
	int r = object_find(p, op->fileid, op->place, &o);

	if (r)
		return r;
	if (o.draft)
		return setattr_draft(p, op, &o);
	bool is_dir = S_ISDIR(a->mode);
	if (!is_dir && op->mask & INDEX_SET_QUOTA)
		return -ENOTDIR;
	if (is_dir && op->mask & (INDEX_SET_MTIME | INDEX_SET_CTIME))
		r = dir_fold_times(p, a);
	if (op->mask & INDEX_SET_MODE && a->has_xattrs)
		r = plan_both(r, xattrs_chmod(p, 'X', 'X', op->fileid, op->attr.mode));
	if (r)
		return r;
	a->ctime = plan_now(p);
	attr_apply(a, op->mask, &op->attr);
	if (op->mask & INDEX_SET_TTL)
		keep_begin(p, &a->keep);
	object_put(p, &o);
	r = object_entry(p, &o, &op->entry);
	if (!r && is_dir && op->mask & (INDEX_SET_MTIME | INDEX_SET_CTIME)) {
		op->entry.attr.mtime = a->mtime; /* not T and t as they were */
		op->entry.attr.ctime = a->ctime;
	}
	return r;
}

void index_setattr(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, setattr_plan);
}

/* Who has been set since, or has gone, is left alone. Records stay as long as they are: so it may use
 * the reserve, and waits for no eviction, which asks for it (engine_watch_eviction()). */
static int accessed_plan(struct plan *p, struct index_op *op)
{
	int r = 0;

	plan_use_reserve(p);

	for (uint32_t i = 0; i < op->naccesses; i++) {
		const struct index_access *a = &op->accesses[i];
		struct object o;
		int got = object_find(p, a->fileid, a->place, &o);
		if (got == PLAN_WAIT)
			r = got;
		if (got < 0 && got != -EUCLEAN)
			return got;
		if (got || o.draft || !time_is_same(o.rec.attr.atime, a->before))
			continue;
		o.rec.attr.atime = a->at;
		object_put(p, &o);
	}
	return r;
}

void index_accessed(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, accessed_plan);
}

/* Writers ------------------------------------------------------------------------- */

static int writer_plan(struct plan *p, struct index_op *op)
{
	struct writer_state w = { 0 }, before;
	struct object o;
	int r_w = writer_get(p, op->fileid, &before);
	int r_o = object_find(p, op->fileid, op->place, &o);
	int r = plan_both(r_w, r_o);

	if (r || r_o)
		return r ? r : r_o;
	r = object_entry(p, &o, &op->entry);
	if (r || !r_w)
		return r; /* it is known to be written already */
	if (o.rec.attr.away || o.rec.attr.copied)
		return INDEX_ON_DISK;
	w.place = o.place;
	plan_expect_same(p, own_writer(p, op->fileid));
	plan_expect_same(p, o.key); /* the key could be another object's by now */
	writer_put(p, op->fileid, &w);
	return 0;
}

void index_writer(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, writer_plan);
}

/* A draft's names go; what they hid shows again. */
static int draft_end(struct plan *p, uint64_t fileid, const struct writer_state *w)
{
	int r = xattrs_drop(p, 'x', fileid);

	for (uint32_t i = 0; i < w->nnames; i++) {
		const struct writer_name *n = &w->names[i];
		plan_del(p, own_name(p, n->parent, n->h, n->name));
		hides_del(p, n);
		r = plan_both(r, dir_touch_left(p, n->parent, w->names, w->nnames));
	}
	return r;
}

static int writer_end_plan(struct plan *p, struct index_op *op)
{
	struct writer_state w;

	/* All that there was to end has ended with that session. If the next one writes the
	 * object, that is not over. */
	if (!plan_is_of_session(p, op->session))
		return 0;
	int r_n = notes_drop(p, op->fileid);
	int r = writer_get(p, op->fileid, &w);

	if (r_n || r)
		return plan_both(r_n, r);
	plan_use_reserve(p);
	plan_expect_same(p, own_writer(p, op->fileid));
	plan_del(p, own_writer(p, op->fileid));
	return w.draft ? draft_end(p, op->fileid, &w) : 0;
}

void index_writer_end(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, writer_end_plan);
}
