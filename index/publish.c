/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing: a version becomes what the names show, in one transaction.
 *
 * A draft's first publish turns its draft names into published ones: with one name
 * the record is written there, with several to F and a reference to each. What a
 * name hid until now is replaced, and handed out in `gone`. The object goes on
 * being written afterwards, so its `w` stays, as that of a published object.
 *
 * Later publishes replace the record wherever `w` says that it is by now. Content
 * is the writer's (size, pages, times, body); all else is the record's. Of several
 * sessions that write one object each publishes its whole version, and the last one
 * counts: it is told of a version that it replaced and was not based on (`gone2`).
 *
 * A version is its session's until then: the blocks that it names go with that, and so does
 * the `w` that is relied on, whichever session the request comes to be done in. Where another
 * one has followed it is not looked for what is that one's, which knows nothing of this version.
 *
 * The directory's times do not change: its session has seen the names before. So
 * `t`, which it remembered them in, moves to T.
 */
#include <errno.h>

#include "common/clock.h"
#include "index/ops.h"
#include "index/priv.h"

/* A published object ---------------------------------------------------------------- */

/* After an answer that was lost: is it done? */
static bool is_ours(const struct record *rec, const struct index_op *op)
{
	return rec->attr.version > op->attr.version && rec->attr.size == op->attr.size &&
	       time_is_same(rec->attr.mtime, op->attr.mtime) &&
	       rec->body.kind == op->body.kind &&
	       bytes_eq(rec->body.bytes, op->body.bytes);
}

static void gone_version(struct plan *p, const struct object *o, struct gone *ret)
{
	*ret = (struct gone){ .fileid = o->fileid, .attr = o->rec.attr, .body = o->rec.body };
	ret->attr.nlink = 0;
	gone_note(p, ret, o->rec.attr.version);
}

static int publish_version(struct plan *p, struct index_op *op, const struct writer_state *w)
{
	struct object o;
	struct attr *a = &o.rec.attr;

	if (w->place.kind == PLACE_NONE)
		return INDEX_UNLINKED;
	int r = object_find(p, op->fileid, w->place, &o);
	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	if (o.draft)
		return -EUCLEAN;
	if (!S_ISREG(a->mode))
		return -EINVAL;
	if (a->away || a->copied) /* who has begun to write it has seen to that */
		return -EUCLEAN;
	if (plan_is_repeat(p) && is_ours(&o.rec, op)) {
		/* What it replaced is not known any more, but that it was not the one
		 * that it was based on. */
		if (a->version > op->attr.version + 1)
			op->gone2 = (struct gone){ .fileid = op->fileid };
		return object_entry(p, &o, &op->entry);
	}
	/* On a repeat this version may have been there, and what it consists of have gone with it. */
	if (a->version != op->attr.version && (op->flags & PUBLISH_SHARES || plan_is_repeat(p)))
		return INDEX_CHANGED;
	if (a->version != op->attr.version)
		gone_version(p, &o, &op->gone2);
	else
		gone_note_blocks(p, op->fileid, a->version, op->blocks, op->nblocks);
	a->version++;
	a->size = op->attr.size;
	a->pages = op->attr.pages;
	a->atime = op->attr.atime;
	a->mtime = op->attr.mtime;
	a->ctime = op->attr.ctime;
	keep_begin(p, &a->keep);
	o.rec.body = op->body;
	object_put(p, &o);
	plan_expect_same(p, own_writer(p, op->fileid)); /* and with it the session is there */
	return object_entry(p, &o, &op->entry);
}

/* A draft ----------------------------------------------------------------------------- */

/* The names, and what is published under them now. */
static int names_read(struct plan *p, const struct writer_state *w, struct name_view *hidden,
		      uint32_t *ret_nhidden)
{
	uint32_t n = 0;
	int r = 0;

	for (uint32_t i = 0; i < w->nnames; i++) {
		const struct writer_name *name = &w->names[i];
		struct key k = key_name(name->parent, name->h, name->name);
		const struct kv_row *row;
		int got = plan_get(p, k, &row);
		struct name_view *v = &hidden[n];
		r = plan_both(r, got);
		if (got)
			continue;
		*v = (struct name_view){ .parent = name->parent, .h = name->h,
					 .name = name->name, .draft = true,
					 .published = true };
		int bad = record_decode(row->value, &v->rec);
		if (!bad && S_ISDIR(v->rec.attr.mode)) /* names.c keeps them apart */
			bad = -EUCLEAN;
		r = plan_both(r, bad);
		n++;
	}
	*ret_nhidden = n;
	return r;
}

/* The names' keys: n goes, D comes. */
static void names_write(struct plan *p, const struct writer_state *w, const struct record *rec)
{
	for (uint32_t i = 0; i < w->nnames; i++) {
		const struct writer_name *name = &w->names[i];
		struct key k = key_name(name->parent, name->h, name->name);
		plan_expect_same(p, k);
		if (w->nnames == 1)
			plan_put_encoded(p, k, record_encode, rec);
		else
			ref_put(p, k, &rec->attr);
		plan_del(p, own_name(p, name->parent, name->h, name->name));
		hides_del(p, name);
	}
	if (w->nnames > 1)
		plan_put_encoded(p, key_file(rec->attr.fileid), record_encode, rec);
}

/* What the session alone knew of the directory's times is now for all. */
static int times_keep(struct plan *p, uint64_t dir)
{
	const struct kv_row *row_t = NULL, *row_d = NULL;
	struct dir_times t, d;
	int r = plan_both(plan_get(p, key_times(dir), &row_t),
			  plan_get(p, own_times(p, dir), &row_d));

	plan_expect_present(p, key_file(dir));
	if (r || !row_d)
		return r;
	r = dir_times_decode(row_d->value, &d);
	if (!r && row_t)
		r = dir_times_decode(row_t->value, &t);
	if (r)
		return r;
	/* As it was seen: else a later `t` would go, or this one stay behind. */
	plan_expect_same(p, own_times(p, dir));
	plan_del(p, own_times(p, dir));
	if (row_t && !t.evicted && !time_is_after(d.mtime, t.mtime) &&
	    !time_is_after(d.ctime, t.ctime))
		return 0; /* T only becomes later, or goes with `t` */
	if (row_t) {
		d.mtime = time_later(d.mtime, t.mtime);
		d.ctime = time_later(d.ctime, t.ctime);
	}
	d.by = index_nonce(plan_index(p)); /* not of who has put `t`, nor of who else moves it */
	plan_expect_same(p, key_times(dir));
	plan_put_encoded(p, key_times(dir), dir_times_encode, &d);
	return 0;
}

/* x becomes X; an access ACL follows the mode that the caller had meanwhile. */
static int xattrs_publish(struct plan *p, struct attr *a)
{
	const struct kv_rows *rows;
	struct bytes name;
	uint64_t id;
	int r = xattrs_read(p, 'x', a->fileid, &rows);

	if (r)
		return r;
	for (uint32_t i = 0; i < rows->nrows; i++) {
		if (key_parse_xattr(rows->rows[i].key, &id, &name))
			return -EUCLEAN;
		plan_put(p, key_xattr(a->fileid, name), rows->rows[i].value);
		plan_del(p, own_xattr(p, a->fileid, name));
	}
	a->has_xattrs = rows->nrows;
	return rows->nrows ? xattrs_chmod(p, 'x', 'X', a->fileid, a->mode) : 0;
}

static void place_of_draft(const struct writer_state *w, struct place *ret)
{
	if (w->nnames == 1)
		*ret = (struct place){ PLACE_NAME, w->names[0].parent, w->names[0].h };
	else
		*ret = (struct place){ .kind = PLACE_FILEID };
}

/* What the names hid is replaced. */
static int hidden_lose(struct plan *p, struct index_op *op, const struct name_view *hidden,
		       uint32_t n)
{
	struct gone *gone;

	if (!n)
		return 0;
	gone = plan_alloc(p, n * sizeof(*gone));
	if (!gone)
		return -ENOMEM;
	int r = objects_lose(p, hidden, n, NULL, 0, gone);
	if (r)
		return r;
	op->gone = gone[0];
	op->more_gone = gone + 1;
	op->nmore_gone = n - 1;
	return 0;
}

static int publish_draft(struct plan *p, struct index_op *op, const struct writer_state *w)
{
	struct name_view hidden[DRAFT_NAMES_MAX];
	struct object o = { .fileid = op->fileid };
	struct attr *a = &o.rec.attr;
	uint32_t nhidden = 0;

	if (!w->nnames)
		return INDEX_UNLINKED;
	if (w->nnames > DRAFT_NAMES_MAX)
		return -EUCLEAN;
	place_of_draft(w, &o.place);
	*a = op->attr;
	a->fileid = op->fileid;
	a->version++;
	a->nlink = w->nnames;
	a->has_default_acl = a->away = a->copied = false;
	keep_begin(p, &a->keep);
	o.rec.body = op->body;
	int r = names_read(p, w, hidden, &nhidden);
	r = plan_both(r, xattrs_publish(p, a));
	for (uint32_t i = 0; i < w->nnames; i++)
		r = plan_both(r, times_keep(p, w->names[i].parent));
	if (!r)
		r = hidden_lose(p, op, hidden, nhidden);
	if (r)
		return r;
	names_write(p, w, &o.rec);
	plan_expect_same(p, own_writer(p, op->fileid));
	writer_put(p, op->fileid, &(struct writer_state){ .place = o.place });
	return object_entry(p, &o, &op->entry);
}

/* An earlier run, of which no answer came, has made a published object of it. */
static int publish_plan(struct plan *p, struct index_op *op)
{
	struct writer_state w;

	if (!plan_is_of_session(p, op->session))
		return -EIO; /* what it names has gone with that one */
	int r = writer_get(p, op->fileid, &w);
	if (r)
		return r == INDEX_MISS ? -EINVAL : r;
	return w.draft ? publish_draft(p, op, &w) : publish_version(p, op, &w);
}

void index_publish(struct index *ix, struct index_op *op)
{
	if (!S_ISREG(op->attr.mode) && op->attr.mode)
		op->done(op, -EINVAL);
	else
		plan_run_ahead(ix, op, publish_plan);
}
