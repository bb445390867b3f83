/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names: looking up, listing, making, linking and unlinking them, as plans.
 * Renaming is in rename.c; how a name is found and guarded in names.c.
 *
 * A draft name of this session is looked for before the published one of the same
 * name and hides it; unlinking it removes both. Those of other sessions are not
 * seen, but by what must be new: making, linking, a draft with O_EXCL. What writes
 * session keys only (a draft's names) touches the directory's `t`, everything else
 * its `T`.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "index/ops.h"

/* Lookup ------------------------------------------------------------------------ */

static int entry_of_name(struct plan *p, const struct name_view *v, struct entry *ret)
{
	struct object o;
	int r = object_of_name(p, v, &o);

	if (!r)
		r = object_entry(p, &o, ret);
	if (r)
		return r;
	ret->h = v->h;
	if (!S_ISDIR(ret->attr.mode))
		ret->parent = v->parent;
	return 0;
}

static int lookup_plan(struct plan *p, struct index_op *op)
{
	const struct kv_row *dir;
	struct name_view v;
	int there = op->flags & LOOKUP_CHECK_DIR ? plan_get(p, key_file(op->parent), &dir) : 0;
	int r = name_find_shown(p, op->parent, op->name, &v);

	if (r == INDEX_MISS && there)
		return there == INDEX_MISS ? -ESTALE : there;
	return r ? r : entry_of_name(p, &v, &op->entry);
}

void index_lookup(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, lookup_plan);
}

/* Listing ----------------------------------------------------------------------- */

static int list_entry(struct plan *p, const struct name_key *k, const struct kv_row *row,
		      bool plus, struct entry *ret)
{
	struct name_view v = { .parent = k->parent, .h = k->h, .name = k->name };
	struct object o;
	int r;

	if (k->kind == 'n') {
		v.draft = true;
		r = number_decode(row->value, &v.fileid);
	} else {
		v.published = true;
		r = record_decode(row->value, &v.rec);
	}
	if (!r && (plus || v.draft)) {
		r = entry_of_name(p, &v, ret);
	} else if (!r && v.rec.kind == RECORD_WHOLE) {
		r = object_published(p, &v, &o);
		ret->place = o.place;
	} else {
		ret->place = (struct place){ .kind = PLACE_FILEID };
	}
	if (r || v.draft || plus)
		return r;
	ret->attr.fileid = v.rec.attr.fileid;
	ret->attr.mode = v.rec.attr.mode & S_IFMT;
	ret->parent = k->parent;
	ret->h = k->h;
	return 0;
}

static int list_name(struct plan *p, const struct name_key *k, struct entry *e)
{
	e->name = plan_name(p, k->name);
	if (!e->name)
		return -ENOMEM;
	e->name_len = (uint16_t)k->name.len;
	return 0;
}

/* Two pages of rows, D and n, as one sequence in order of h; of n, those of this
 * session. No more names than D may have rows are taken from it; and where n was cut
 * off, it ends: what stands in D from there on may be hidden. */
struct merge {
	const struct kv_rows *rows[2];
	uint32_t next[2];
	uint64_t session;
};

static void merge_skip_foreign(struct merge *m)
{
	const struct kv_rows *n = m->rows[1];

	while (m->next[1] < n->nrows && kv_key_session(n->rows[m->next[1]].key) != m->session)
		m->next[1]++;
}

/* The next name: 1, 0 at the end, or -EUCLEAN. n (the second) hides D. */
static int merge_next(struct merge *m, struct name_key *ret_k, const struct kv_row **ret_row)
{
	struct name_key k[2] = { { .h = UINT64_MAX }, { .h = UINT64_MAX } };
	const struct kv_rows *n = m->rows[1];

	merge_skip_foreign(m);
	bool cut = n->more && m->next[1] == n->nrows;
	uint32_t at[2] = { m->next[0], m->next[1] - cut }; /* the last one bounds D */
	for (unsigned i = 0; i < 2; i++)
		if (at[i] < m->rows[i]->nrows &&
		    key_parse_name(m->rows[i]->rows[at[i]].key, &k[i]))
			return -EUCLEAN;
	unsigned i = k[1].h <= k[0].h;
	if (k[i].h == UINT64_MAX || (i && cut))
		return 0;
	if (k[0].h == k[1].h)
		m->next[0]++;
	*ret_k = k[i];
	*ret_row = &m->rows[i]->rows[m->next[i]++];
	return 1;
}

/* Is there anything that merge_next() has not given? */
static bool merge_has_more(struct merge *m)
{
	merge_skip_foreign(m);
	for (unsigned i = 0; i < 2; i++)
		if (m->rows[i]->more || m->next[i] < m->rows[i]->nrows)
			return true;
	return false;
}

/* How many reads the entry's attributes take (object_entry()). */
static uint32_t reads_for(const struct name_key *k, const struct kv_row *row)
{
	struct record rec;

	if (k->kind == 'n' || record_decode(row->value, &rec) || rec.kind == RECORD_WHOLE)
		return 0;
	return S_ISDIR(rec.attr.mode) ? 5 : 2;
}

/* With `plus`, a page ends also where its directories and hard links would need
 * more reads than one request takes. */
static int list_merged(struct plan *p, struct index_op *op, struct merge *m, uint32_t limit)
{
	struct kv *kv = index_kv(plan_index(p));
	uint32_t reads = 2, max_reads = kv->ops->caps(kv).max_reads;
	const struct kv_row *row;
	struct name_key k;
	int r = 0, more;

	while (op->nentries < limit && (more = merge_next(m, &k, &row))) {
		if (more < 0)
			return more;
		if (op->plus)
			reads += reads_for(&k, row);
		if (reads > max_reads) {
			op->more = true;
			return r;
		}
		struct entry *e = &op->entries[op->nentries++];
		*e = (struct entry){ 0 };
		r = plan_both(r, list_entry(p, &k, row, op->plus, e));
		r = plan_both(r, list_name(p, &k, e));
	}
	op->more = merge_has_more(m);
	return r;
}

/* Is there a name in it, or certainly none? */
static bool merge_is_enough(struct merge m)
{
	const struct kv_row *row;
	struct name_key k;

	return !m.rows[1]->more || merge_next(&m, &k, &row);
}

/* Where other sessions have many drafts, a page of them is only as long as it takes
 * to come to a name that is seen. */
static int list_read(struct plan *p, struct index_op *op, uint32_t limit, struct merge *m)
{
	struct key from_d = key_prefix_h('D', op->parent, op->from + 1);
	struct key from_n = key_prefix_h('n', op->parent, op->from + 1);
	struct key to_n = key_prefix_end(key_prefix('n', op->parent));
	int r = plan_both(plan_range(p, from_d, key_prefix_end(key_prefix('D', op->parent)),
				     limit, &m->rows[0]),
			  plan_range(p, from_n, to_n, limit, &m->rows[1]));

	for (uint64_t n = limit; !r && !merge_is_enough(*m);) {
		n = 8 * n < UINT32_MAX ? 8 * n : UINT32_MAX;
		r = plan_range(p, from_n, to_n, (uint32_t)n, &m->rows[1]);
	}
	return r;
}

static int list_plan(struct plan *p, struct index_op *op)
{
	uint32_t limit = op->limit ? op->limit : 1;
	struct merge m = { .session = plan_session(p) };

	if (op->from >= INT64_MAX)
		return 0;
	int r = list_read(p, op, limit, &m);
	if (r)
		return r;
	uint64_t n = (uint64_t)m.rows[0]->nrows + m.rows[1]->nrows;
	if (n > limit)
		n = limit;
	op->entries = plan_alloc(p, n * sizeof(*op->entries));
	if (!op->entries)
		return -ENOMEM;
	return list_merged(p, op, &m, limit);
}

void index_list(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, list_plan);
}

/* Making ------------------------------------------------------------------------ */

/* What making an object and making a draft begin with. INDEX_MISS: go on; 0: it
 * was made already, by an earlier run. `excl`: no other session has a draft of it. */
static int make_begin(struct plan *p, struct index_op *op, bool excl, struct record *ret_parent,
		      struct name_view *ret_v)
{
	int r = plan_both(parent_find(p, op->parent, ret_parent),
			  name_find(p, op->parent, op->name, ret_v));

	if (r)
		return r;
	if (!name_exists(ret_v)) {
		if (excl && ret_v->foreign)
			return -EEXIST;
		name_expect(p, ret_v);
		return ret_v->h ? INDEX_MISS : -ENOSPC;
	}
	return plan_is_repeat(p) && ret_v->fileid == op->fileid ? 0 : -EEXIST;
}

static int make_dir(struct plan *p, const struct name_view *v, struct object *o)
{
	o->place = (struct place){ .kind = PLACE_FILEID };
	o->rec.parent = v->parent;
	o->rec.name = v->name;
	o->key = key_file(o->fileid);
	plan_put_encoded(p, o->key, record_encode, &o->rec);
	ref_put(p, name_key_d(v), &o->rec.attr);
	return dir_add_dirs(p, v->parent, 1);
}

static int make_plan(struct plan *p, struct index_op *op)
{
	struct object o = { .fileid = op->fileid };
	struct record parent;
	struct name_view v;
	int r = make_begin(p, op, true, &parent, &v);

	if (!r)
		return entry_of_name(p, &v, &op->entry);
	/* The object of an earlier run may be somewhere else by now: this is another one. */
	if (r == INDEX_MISS && plan_is_repeat(p)) {
		op->fileid = o.fileid = index_new_id(plan_index(p));
		if (!o.fileid)
			return -EIO;
	}
	if (r == INDEX_MISS)
		r = attr_inherit(p, op, &parent, 'X', &o.rec.attr);
	if (r)
		return r;
	if (S_ISLNK(op->attr.mode)) {
		o.rec.body = (struct body){ BODY_INLINE, op->body.bytes };
		o.rec.attr.size = op->body.bytes.len;
	}
	if (S_ISDIR(op->attr.mode)) {
		r = make_dir(p, &v, &o);
	} else {
		o.place = (struct place){ PLACE_NAME, v.parent, v.h };
		plan_put_encoded(p, name_key_d(&v), record_encode, &o.rec);
	}
	dir_touch(p, v.parent);
	op->entry = (struct entry){ .attr = o.rec.attr, .place = o.place, .h = v.h,
				    .body = o.rec.body, .parent = v.parent };
	if (S_ISDIR(op->attr.mode))
		op->entry.attr.nlink = 2;
	return r;
}

void index_make(struct index *ix, struct index_op *op)
{
	bool link = S_ISLNK(op->attr.mode);
	int r = 0;

	if (!record_type_is_known(op->attr.mode) || (link && !op->body.bytes.len))
		r = -EINVAL;
	else if (link && op->body.bytes.len >= PATH_MAX)
		r = -ENAMETOOLONG;
	else if (!(op->fileid = index_new_id(ix)))
		r = -EIO;
	if (r)
		op->done(op, r);
	else
		plan_run_ahead(ix, op, make_plan);
}

/* A draft costs no durable key, its publishing does: where that would fail, who
 * creates it is told, since nobody looks at what a last close says. */
static int draft_plan(struct plan *p, struct index_op *op)
{
	struct writer_state w = { .draft = true };
	struct name_view v = { 0 };
	struct writer_name name;
	struct record parent;
	struct attr a;
	int r = op->name ? make_begin(p, op, op->flags & O_EXCL, &parent, &v)
			 : parent_find(p, op->parent, &parent);

	if (r < 0 || r == PLAN_WAIT)
		return r;
	bool done_before = op->name && !r;
	r = attr_inherit(p, op, &parent, 'x', &a);
	if (r)
		return r;
	a.version = 0;
	a.nlink = op->name ? 1 : 0;
	if (op->name && !done_before) {
		name = writer_name_of(&v);
		w.names = &name;
		w.nnames = 1;
		plan_put_encoded(p, name_key_n(p, &v), number_encode, op->fileid);
		dir_touch_draft(p, op->parent);
	}
	if (!done_before) {
		writer_put(p, op->fileid, &w);
		plan_need_room(p);
	}
	op->entry = (struct entry){ .attr = a, .place = { .kind = PLACE_DRAFT }, .h = v.h,
				    .parent = op->parent, .draft = true };
	return 0;
}

void index_draft(struct index *ix, struct index_op *op)
{
	if (!S_ISREG(op->attr.mode))
		op->done(op, -EINVAL);
	else if (!(op->fileid = index_new_id(ix)))
		op->done(op, -EIO);
	else
		plan_run_ahead(ix, op, draft_plan);
}

/* Linking ----------------------------------------------------------------------- */

/* The name that it had alone may be hidden: who did that is told that it has others now. */
static int link_hidden(struct plan *p, struct object *o)
{
	const struct kv_row *row;
	struct name_key k;
	uint64_t draft;

	if (key_parse_name(key_bytes(&o->key), &k))
		return -EUCLEAN;
	struct key own = own_name(p, k.parent, k.h, k.name);
	int r = plan_get(p, own, &row);
	if (r && r != INDEX_MISS)
		return r;
	plan_expect_same(p, own);
	if (r)
		return 0;
	r = number_decode(row->value, &draft);
	struct writer_name n = { k.parent, k.h, k.name, o->fileid };
	o->nhidden = 1;
	return r ? r : draft_hides(p, draft, &n);
}

/* A file's second name: the record moves to F and leaves a reference. */
static int link_move(struct plan *p, struct object *o)
{
	struct key k = key_file(o->fileid);
	int r = link_hidden(p, o);

	plan_expect_same(p, o->key);
	ref_put(p, o->key, &o->rec.attr);
	plan_expect_absent(p, k);
	plan_put_encoded(p, k, record_encode, &o->rec);
	o->key = k;
	o->place = (struct place){ .kind = PLACE_FILEID };
	return plan_both(r, writer_moved(p, o->fileid, o->place));
}

static int link_object(struct plan *p, struct object *o, const struct name_view *v)
{
	struct attr *a = &o->rec.attr;
	int r = 0;

	if (S_ISDIR(a->mode))
		return -EPERM;
	if (a->nlink >= FILE_LINKS_MAX)
		return -EMLINK;
	a->nlink++;
	a->ctime = plan_now(p);
	if (o->place.kind == PLACE_NAME)
		r = link_move(p, o);
	else
		object_put(p, o);
	ref_put(p, name_key_d(v), a);
	dir_touch(p, v->parent);
	return r;
}

static int link_draft(struct plan *p, uint64_t fileid, const struct name_view *v)
{
	struct writer_name name = writer_name_of(v);

	plan_put_encoded(p, name_key_n(p, v), number_encode, fileid);
	dir_touch_draft(p, v->parent);
	return draft_rename(p, fileid, NULL, &name, NULL);
}

static int link_plan(struct plan *p, struct index_op *op)
{
	struct record parent;
	struct name_view v;
	struct object o;
	int r_o = object_find(p, op->fileid, op->place, &o);
	int r = plan_both(r_o, make_begin(p, op, true, &parent, &v));

	if (r || r_o)
		return r ? r : r_o;
	if (name_exists(&v)) /* made by an earlier run */
		return object_entry(p, &o, &op->entry);
	r = o.draft ? link_draft(p, op->fileid, &v) : link_object(p, &o, &v);
	if (!r)
		r = object_entry(p, &o, &op->entry);
	op->entry.parent = v.parent;
	op->entry.h = v.h;
	return r;
}

void index_link(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, link_plan);
}

/* Unlinking --------------------------------------------------------------------- */

static int unlink_published(struct plan *p, const struct name_view *v, struct gone *ret)
{
	plan_del(p, name_key_d(v));
	return objects_lose(p, v, 1, NULL, 0, ret);
}

/* On a repeat: does the name not show any more what it was to be taken from? Then it has been,
 * by whomever. What its draft hid shows when the draft has gone with its session. */
static bool is_removed(struct plan *p, const struct name_view *v)
{
	uint64_t shown = plan_target(p, 0, v->fileid);
	uint64_t hidden = plan_target(p, 1, v->published ? v->rec.attr.fileid : 0);

	return v->fileid != shown && v->fileid != hidden;
}

/* INDEX_MISS, which on a repeat is no trouble: *ret_done. */
static int find_to_remove(struct plan *p, struct index_op *op, struct name_view *ret,
			  bool *ret_done)
{
	int r = name_find_shown(p, op->parent, op->name, ret);

	*ret_done = r == INDEX_MISS ? plan_is_repeat(p) : !r && is_removed(p, ret);
	return *ret_done ? 0 : r;
}

/* A draft name, with what it hides. */
static int unlink_draft(struct plan *p, struct index_op *op, const struct name_view *v)
{
	struct writer_name name = writer_name_of(v);
	int r = draft_lose(p, v, &op->gone);

	if (!v->published)
		return plan_both(r, dir_touch_left(p, v->parent, &name, 1));
	dir_touch(p, v->parent);
	plan_del(p, own_times(p, v->parent));
	return plan_both(r, unlink_published(p, v, &op->gone2));
}

static int unlink_plan(struct plan *p, struct index_op *op)
{
	struct name_view v;
	bool done;
	int r = find_to_remove(p, op, &v, &done);

	if (r || done)
		return r;
	if (name_is_dir(&v))
		return -EISDIR;
	plan_use_reserve(p);
	name_expect(p, &v);
	if (v.draft)
		return unlink_draft(p, op, &v);
	dir_touch(p, v.parent);
	return unlink_published(p, &v, &op->gone);
}

void index_unlink(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, unlink_plan);
}

int dir_remove(struct plan *p, const struct name_view *v,
	       void (*touch)(struct plan *p, uint64_t dir), struct gone *ret)
{
	plan_use_reserve(p);
	touch(p, v->parent);
	return plan_both(unlink_published(p, v, ret), dir_add_dirs(p, v->parent, -1));
}

static int rmdir_plan(struct plan *p, struct index_op *op)
{
	struct name_view v;
	bool done;
	int r = find_to_remove(p, op, &v, &done);

	if (r || done)
		return r;
	if (!name_is_dir(&v))
		return -ENOTDIR;
	name_expect(p, &v);
	return dir_remove(p, &v, dir_touch, &op->gone);
}

void index_rmdir(struct index *ix, struct index_op *op)
{
	plan_run_ahead(ix, op, rmdir_plan);
}
