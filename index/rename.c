/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rename, in all its combinations, as one plan. Each of the two names may show a
 * published object, a draft, or a draft that hides a published object, and with
 * RENAME_EXCHANGE both go on showing something.
 *
 * The idea: first decide what each name shows afterwards (`settle`), then who has
 * lost a name by it. What a draft name hides stays where it is as long as a draft
 * name is over it, and is lost as soon as none is. So at most one hidden object is
 * lost in one rename (gone2), beside what was replaced in sight (gone):
 *
 *	from        to            to's D afterwards     lost
 *	published   -             the moved one
 *	published   published     the moved one         to's
 *	published   draft[/old]   the moved one         the draft [and old]
 *	draft[/old] -             -                     [old]
 *	draft[/old] published     stays, hidden         to's, when published [old]
 *	draft[/old] draft[/old2]  [stays, hidden]       the draft [old]
 *
 * All of this is about drafts of this session: those of others are over none of its
 * names. Only RENAME_NOREPLACE and directories, which no draft may hide, mind them.
 *
 * No cycles: a directory that moves elsewhere is compared, with each directory
 * above its new place, to be as it was read; all moves rewrite that record.
 */
#include <errno.h>

#include "index/ops.h"

struct side {
	struct name_view v;
	struct object o; /* what the name shows, if it is there */
};

struct move {
	struct side from, to;
	bool exchange;
};

static bool side_is_dir(const struct side *s)
{
	return name_is_dir(&s->v);
}

/* Is `dir` at or below `moved`? Guards that it stays as it is. */
static int check_not_below(struct plan *p, uint64_t dir, uint64_t moved)
{
	uint64_t slow = dir; /* half as fast: met again means a circle */

	for (uint64_t id = dir, n = 1; id != INDEX_ROOT; n++) {
		const struct kv_row *row;
		struct record rec;
		if (id == moved)
			return -EINVAL;
		int r = plan_get(p, key_file(id), &row);
		if (r == INDEX_MISS)
			return id == dir ? -ENOENT : -EUCLEAN;
		if (!r)
			r = record_decode(row->value, &rec);
		if (r)
			return r;
		plan_expect_same(p, key_file(id));
		id = rec.parent;
		if (id == slow)
			return -EUCLEAN;
		if (!(n & (n - 1)))
			slow = id;
	}
	return 0;
}

static int check_types(const struct move *m)
{
	/* To another session the name is a file's: that of its draft. */
	if (side_is_dir(&m->from) && m->to.v.foreign)
		return -ENOTDIR;
	if (m->exchange)
		return side_is_dir(&m->to) && m->from.v.foreign ? -ENOTDIR : 0;
	if (!name_exists(&m->to.v))
		return 0;
	if (side_is_dir(&m->from) && !side_is_dir(&m->to))
		return -ENOTDIR;
	if (!side_is_dir(&m->from) && side_is_dir(&m->to))
		return -EISDIR;
	return 0;
}

static int check_cycles(struct plan *p, const struct move *m)
{
	const struct name_view *from = &m->from.v, *to = &m->to.v;
	int r = 0;

	if (from->parent == to->parent)
		return 0;
	if (side_is_dir(&m->from))
		r = check_not_below(p, to->parent, from->fileid);
	if (m->exchange && side_is_dir(&m->to))
		r = plan_both(r, check_not_below(p, from->parent, to->fileid));
	return r;
}

/* Directories come and go: links of the parents. */
static int count_dirs(struct plan *p, const struct move *m)
{
	uint64_t from = m->from.v.parent, to = m->to.v.parent;
	int n_from = 0, n_to = 0, r = 0;

	if (side_is_dir(&m->from)) {
		n_from--;
		n_to++;
	}
	if (side_is_dir(&m->to)) {
		n_to--;
		n_from += m->exchange;
	}
	if (from == to) {
		n_to += n_from;
		n_from = 0;
	}
	if (n_from)
		r = dir_add_dirs(p, from, n_from);
	if (n_to)
		r = plan_both(r, dir_add_dirs(p, to, n_to));
	return r;
}

/* What the rename takes a name from. */
static int lose(struct plan *p, struct index_op *op, struct move *m)
{
	bool draft = m->from.v.draft;
	struct name_view *to = &m->to.v, *lost = NULL;
	struct object *kept[2] = { &m->from.o, &m->to.o };
	struct gone *ret = &op->gone2;
	int r = 0;

	if (draft && m->from.v.published && !(m->exchange && to->draft))
		lost = &m->from.v;
	if (!draft && to->draft && to->published)
		lost = to;
	if (!m->exchange && to->draft) {
		r = draft_lose(p, to, &op->gone);
	} else if (!m->exchange && side_is_dir(&m->to)) {
		r = object_lose(p, &m->to.o, 1, &op->gone);
	} else if (!m->exchange && to->published && draft) {
		/* What loses another of its names here is told of that one. That was hidden,
		 * and this one is now: as many are as before. */
		if (lost && lost->rec.attr.fileid == to->rec.attr.fileid)
			return object_lose(p, &m->to.o, 1, &op->gone2);
		object_hidden(&m->to.o, 1, &op->gone);
	} else if (!m->exchange && to->published) {
		lost = to;
		ret = &op->gone;
	}
	if (!lost)
		return r;
	return plan_both(r, objects_lose(p, lost, 1, kept, m->exchange ? 2 : 1, ret));
}

/* The name at v, if a draft comes there. `leaves`: as name_settle(). */
static struct writer_name hiding_name(const struct name_view *v, bool leaves)
{
	struct writer_name n = writer_name_of(v);

	if (v->published && v->rec.kind == RECORD_REF && (v->draft || !leaves))
		n.hides = v->rec.attr.fileid;
	return n;
}

/* o takes its new name: its own keys. */
static int object_move(struct plan *p, struct object *o, const struct name_view *from,
		       const struct name_view *to, bool leaves)
{
	struct writer_name a = writer_name_of(from), b = hiding_name(to, leaves);

	if (o->draft)
		return draft_rename(p, o->fileid, &a, &b, NULL);
	o->rec.attr.ctime = plan_now(p);
	if (o->place.kind == PLACE_NAME) {
		o->place = (struct place){ PLACE_NAME, to->parent, to->h };
		o->key = name_key_d(to);
		plan_put_encoded(p, o->key, record_encode, &o->rec);
		return writer_moved(p, o->fileid, o->place);
	}
	if (S_ISDIR(o->rec.attr.mode)) {
		o->rec.parent = to->parent;
		o->rec.name = to->name;
	}
	object_put(p, o);
	ref_put(p, name_key_d(to), &o->rec.attr);
	return 0;
}

/* The keys that name v has no more: `in` is what it shows from now on, if anything;
 * `leaves`: what it showed has gone elsewhere. Before object_move(). */
static void name_settle(struct plan *p, const struct name_view *v, const struct object *in,
			bool leaves)
{
	if (v->published && (!in || (in->draft && leaves && !v->draft)))
		plan_del(p, name_key_d(v));
	if (in && in->draft)
		plan_put_encoded(p, name_key_n(p, v), number_encode, in->fileid);
	else if (v->draft)
		plan_del(p, name_key_n(p, v));
}

/* The session's times if only its own keys change, else everybody's. */
static int touch(struct plan *p, const struct move *m)
{
	const struct name_view *from = &m->from.v, *to = &m->to.v;
	struct writer_name left = writer_name_of(from);

	if (from->draft && (m->exchange ? to->draft : !from->published)) {
		dir_touch_draft(p, to->parent);
		if (from->parent == to->parent)
			return 0;
		if (!m->exchange)
			return dir_touch_left(p, from->parent, &left, 1);
		dir_touch_draft(p, from->parent);
		return 0;
	}
	dir_touch(p, from->parent);
	dir_touch(p, to->parent);
	if (from->draft || to->draft) {
		plan_del(p, own_times(p, from->parent));
		plan_del(p, own_times(p, to->parent));
	}
	return 0;
}

static int side_entry(struct plan *p, const struct side *s, const struct name_view *at,
		      struct entry *ret)
{
	int r = object_entry(p, &s->o, ret);

	if (r)
		return r;
	ret->parent = at->parent;
	ret->h = at->h;
	return 0;
}

/* After both have moved: one may hide now what the other one did. */
static void hides_settle(struct plan *p, const struct move *m)
{
	struct writer_name at_to = hiding_name(&m->to.v, m->exchange);
	struct writer_name at_from = hiding_name(&m->from.v, true);

	if (m->from.o.draft)
		hides_put(p, &at_to);
	if (m->exchange && m->to.o.draft)
		hides_put(p, &at_from);
}

static int move_all(struct plan *p, struct index_op *op, struct move *m)
{
	struct side *from = &m->from, *to = &m->to;
	int r = check_cycles(p, m), r_lose = r < 0 ? r : lose(p, op, m);

	if (r || r_lose)
		return r ? r : r_lose; /* a circle is said before "not empty" */
	name_expect(p, &from->v);
	name_expect(p, &to->v);
	if (m->exchange && side_is_dir(from))
		name_expect_alone(p, &to->v);
	if (m->exchange && side_is_dir(to))
		name_expect_alone(p, &from->v);
	name_settle(p, &from->v, m->exchange ? &to->o : NULL, true);
	name_settle(p, &to->v, &from->o, m->exchange);
	r = plan_both(object_move(p, &from->o, &from->v, &to->v, m->exchange), count_dirs(p, m));
	if (m->exchange)
		r = plan_both(r, object_move(p, &to->o, &to->v, &from->v, true));
	hides_settle(p, m);
	r = plan_both(r, touch(p, m));
	r = plan_both(r, side_entry(p, from, &to->v, &op->entry));
	if (m->exchange)
		r = plan_both(r, side_entry(p, to, &from->v, &op->entry2));
	return r;
}

/* On a repeat: is it not for this plan to do any more? Then *ret is the outcome. What has been
 * exchanged is not exchanged back; what is under `from` by now may be another one's. */
static bool rename_is_over(struct plan *p, struct index_op *op, struct move *m, int *ret)
{
	uint64_t from = name_exists(&m->from.v) ? m->from.v.fileid : 0;
	uint64_t to = name_exists(&m->to.v) ? m->to.v.fileid : 0;
	uint64_t moved = plan_target(p, 0, from), other = plan_target(p, 1, to);
	int r;

	if (from == moved && (to == other || !m->exchange))
		return false;
	*ret = INDEX_MISS;
	if (to != moved || (m->exchange && from != other))
		return true;
	r = object_of_name(p, &m->to.v, &m->to.o);
	r = r ? r : side_entry(p, &m->to, &m->to.v, &op->entry);
	if (m->exchange) {
		int r2 = object_of_name(p, &m->from.v, &m->from.o);
		r2 = r2 ? r2 : side_entry(p, &m->from, &m->from.v, &op->entry2);
		r = plan_both(r, r2);
	}
	*ret = r;
	return true;
}

static int rename_plan(struct plan *p, struct index_op *op)
{
	struct move m = { .exchange = op->flags & RENAME_EXCHANGE };
	struct side *from = &m.from, *to = &m.to;
	int r = plan_both(name_find(p, op->parent, op->name, &from->v),
			  name_find(p, op->parent2, op->name2, &to->v));

	r = plan_both(r, parent_find(p, op->parent2, NULL));
	if (r || rename_is_over(p, op, &m, &r))
		return r;
	if (!name_exists(&from->v))
		return INDEX_MISS;
	if ((name_exists(&to->v) || to->v.foreign) && op->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!name_exists(&to->v) && m.exchange)
		return -ENOENT;
	if (!to->v.h)
		return -ENOSPC;
	r = object_of_name(p, &from->v, &from->o);
	if (name_exists(&to->v))
		r = plan_both(r, object_of_name(p, &to->v, &to->o));
	if (r)
		return r;
	if (from->v.fileid == to->v.fileid)
		return side_entry(p, from, &from->v, &op->entry);
	r = check_types(&m);
	return r ? r : move_all(p, op, &m);
}

void index_rename(struct index *ix, struct index_op *op)
{
	const unsigned flags = RENAME_NOREPLACE | RENAME_EXCHANGE;

	if (op->flags & ~flags || op->flags == flags)
		op->done(op, -EINVAL);
	else
		plan_run_ahead(ix, op, rename_plan);
}
