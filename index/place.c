/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an object's record is, and what belongs to a directory beside its record.
 *
 * Times of a directory: T says when names in it came or went, t the same for draft
 * names of one session, to which the later of T and its own t counts instead of the
 * record's mtime, of the ctimes the latest. So whoever sets the times by hand removes
 * T and the t of all sessions. A `t` is only there while its session has a draft name
 * in the directory, so that an idle session has no keys.
 */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "index/ops.h"
#include "index/priv.h"

/* Finding ------------------------------------------------------------------- */

static int object_decode(const struct kv_row *row, uint64_t fileid, struct object *ret)
{
	int r = record_decode(row->value, &ret->rec);

	if (r)
		return r;
	if (ret->rec.kind != RECORD_WHOLE || ret->rec.attr.fileid != fileid)
		return -EUCLEAN;
	ret->fileid = fileid;
	return 0;
}

/* Is the name at (parent, h) one of the object's, and a draft of this session over it? */
static int is_hidden(struct plan *p, uint64_t fileid, uint64_t parent, uint64_t h, bool *ret)
{
	struct key from_d = key_prefix_h('D', parent, h), from_n = key_prefix_h('n', parent, h);
	const struct kv_rows *d, *n;
	struct record rec;
	int r = plan_both(plan_range(p, from_d, key_prefix_end(from_d), 1, &d),
			  plan_range(p, from_n, key_prefix_end(from_n), UINT32_MAX, &n));

	*ret = false;
	if (r || !d->nrows)
		return r;
	r = record_decode(d->rows[0].value, &rec);
	for (uint32_t i = 0; !r && i < n->nrows; i++)
		*ret |= rec.attr.fileid == fileid &&
			kv_key_session(n->rows[i].key) == plan_session(p);
	return r;
}

/* What is noted may be over: another session has replaced what was hidden. */
static int count_hidden(struct plan *p, uint64_t fileid, uint32_t *ret)
{
	struct key from = key_prefix('h', fileid);
	const struct kv_rows *rows;
	uint64_t id, parent, h;
	int r = plan_range(p, from, key_prefix_end(from), UINT32_MAX, &rows);

	for (uint32_t i = 0, n = r ? 0 : rows->nrows; i < n; i++) {
		bool is = false;
		if (kv_key_session(rows->rows[i].key) != plan_session(p))
			continue;
		int got = key_parse_hides(rows->rows[i].key, &id, &parent, &h);
		r = plan_both(r, got ? got : is_hidden(p, fileid, parent, h, &is));
		*ret += is;
	}
	return r;
}

static int find_by_fileid(struct plan *p, uint64_t fileid, struct object *ret)
{
	struct object o = { .place = { .kind = PLACE_FILEID }, .key = key_file(fileid) };
	const struct kv_row *row;
	int r = plan_get(p, o.key, &row);

	if (!r || r == PLAN_WAIT)
		r = plan_both(r, count_hidden(p, fileid, &o.nhidden));
	if (!r)
		r = object_decode(row, fileid, &o);
	if (!r)
		*ret = o;
	return r;
}

/* Is the whole record of `fileid` with the name at (parent, h)? */
static int find_by_name(struct plan *p, uint64_t fileid, struct place place, struct object *ret)
{
	struct key prefix = key_prefix_h('D', place.parent, place.h);
	struct object o = { .fileid = fileid, .place = place };
	const struct kv_rows *rows;
	struct name_key k;
	int r = plan_range(p, prefix, key_prefix_end(prefix), 1, &rows);

	if (r)
		return r;
	if (!rows->nrows)
		return INDEX_MISS;
	if (key_parse_name(rows->rows[0].key, &k))
		return -EUCLEAN;
	r = record_decode(rows->rows[0].value, &o.rec);
	if (r)
		return r;
	if (o.rec.kind != RECORD_WHOLE || o.rec.attr.fileid != fileid)
		return INDEX_MISS;
	o.key = key_name(k.parent, k.h, k.name);
	*ret = o;
	return 0;
}

/* The same without a plan. */
bool index_record_at(uint64_t fileid, struct place place, struct index_at *ret)
{
	struct key from, to = { 0 };

	if (place.kind == PLACE_NAME) {
		from = key_prefix_h('D', place.parent, place.h);
		to = key_prefix_end(from);
	} else if (place.kind == PLACE_FILEID) {
		from = key_file(fileid);
	} else {
		return false;
	}
	*ret = (struct index_at){ .nfrom = (uint8_t)from.len, .nto = (uint8_t)to.len };
	memcpy(ret->from, from.b, from.len);
	memcpy(ret->to, to.b, to.len);
	return true;
}

int index_record(uint64_t fileid, struct bytes value, struct entry *ret)
{
	struct record rec;
	int r = record_decode(value, &rec);

	if (r < 0)
		return r;
	if (rec.kind != RECORD_WHOLE || rec.attr.fileid != fileid || S_ISDIR(rec.attr.mode))
		return INDEX_MISS;
	*ret = (struct entry){ .attr = rec.attr, .body = rec.body, .copy = rec.copy };
	return 0;
}

static int find_at(struct plan *p, uint64_t fileid, struct place place, struct object *ret)
{
	switch (place.kind) {
	case PLACE_NAME:
		return find_by_name(p, fileid, place, ret);
	case PLACE_FILEID:
		return find_by_fileid(p, fileid, ret);
	default:
		return INDEX_MISS;
	}
}

/* It is not where it was said to be: who writes it knows, or it has more names now. */
static int object_follow(struct plan *p, uint64_t fileid, struct object *ret)
{
	struct place place;
	bool draft;
	int r_w = writer_knows(p, fileid, &draft, &place);
	int r_f = find_by_fileid(p, fileid, ret);

	if (plan_both(r_w, r_f))
		return plan_both(r_w, r_f);
	if (!r_f || r_w == INDEX_MISS)
		return r_f;
	if (!draft)
		return find_at(p, fileid, place, ret);
	*ret = (struct object){ .fileid = fileid, .draft = true,
				.place = { .kind = PLACE_DRAFT } };
	return 0;
}

int object_find(struct plan *p, uint64_t fileid, struct place place, struct object *ret)
{
	int r = find_at(p, fileid, place, ret);

	return r == INDEX_MISS ? object_follow(p, fileid, ret) : r;
}

int object_published(struct plan *p, const struct name_view *v, struct object *ret)
{
	if (v->rec.kind == RECORD_WHOLE) {
		*ret = (struct object){
			.fileid = v->rec.attr.fileid,
			.place = { PLACE_NAME, v->parent, v->h },
			.key = name_key_d(v),
			.rec = v->rec,
		};
		return 0;
	}
	/* A reference to nothing is damage: a plan sees one moment. */
	int r = find_by_fileid(p, v->rec.attr.fileid, ret);
	return r == INDEX_MISS ? -EUCLEAN : r;
}

int object_of_name(struct plan *p, const struct name_view *v, struct object *ret)
{
	if (!v->draft)
		return object_published(p, v, ret);
	*ret = (struct object){ .fileid = v->fileid, .draft = true,
				.place = { .kind = PLACE_DRAFT } };
	return 0;
}

void ref_put(struct plan *p, struct key k, const struct attr *a)
{
	struct record ref = { .kind = RECORD_REF };

	ref.attr.fileid = a->fileid;
	ref.attr.mode = a->mode & S_IFMT;
	plan_put_encoded(p, k, record_encode, &ref);
}

void keep_begin(struct plan *p, struct keep *k)
{
	k->since = k->ttl ? time_up_s(plan_now(p)) : 0;
}

void object_put(struct plan *p, const struct object *o)
{
	plan_expect_same(p, o->key);
	plan_put_encoded(p, o->key, record_encode, &o->rec);
}

/* Showing ------------------------------------------------------------------- */

static int times_get(struct plan *p, struct key k, struct dir_times *ret)
{
	const struct kv_row *row;
	int r = plan_get(p, k, &row);

	return r ? r : dir_times_decode(row->value, ret);
}

static int ndirs_get(struct plan *p, uint64_t dir, uint64_t *ret)
{
	const struct kv_row *row;
	int r = plan_get(p, key_ndirs(dir), &row);

	if (r == INDEX_MISS)
		*ret = 0;
	return r ? r : number_decode(row->value, ret);
}

int dir_attr(struct plan *p, struct attr *a)
{
	struct dir_times last = { 0 }, t;
	uint64_t ndirs = 0;
	int r_l = ndirs_get(p, a->fileid, &ndirs);
	int r_t = times_get(p, key_times(a->fileid), &last);
	int r_d = times_get(p, own_times(p, a->fileid), &t);
	int r = plan_both(r_l, plan_both(r_t, r_d));

	if (r)
		return r;
	if (!r_d && r_t)
		last = t;
	else if (!r_d)
		last = (struct dir_times){ .mtime = time_later(last.mtime, t.mtime),
					   .ctime = time_later(last.ctime, t.ctime) };
	a->nlink = 2 + (uint32_t)ndirs;
	if (!r_d || !r_t) {
		a->mtime = last.mtime;
		a->ctime = time_later(a->ctime, last.ctime);
	}
	return 0;
}

int object_entry(struct plan *p, const struct object *o, struct entry *ret)
{
	struct entry e = { .place = o->place, .draft = o->draft };
	int r = 0;

	if (o->draft) {
		e.attr.fileid = o->fileid;
		e.attr.mode = S_IFREG;
	} else {
		e.attr = o->rec.attr;
		e.attr.nlink = object_links(o);
		if (!e.attr.nlink)
			e.attr.nlink = 1;
		e.body = o->rec.body;
		e.copy = o->rec.copy;
		if (o->place.kind == PLACE_NAME) {
			e.parent = o->place.parent;
			e.h = o->place.h;
		}
	}
	if (S_ISDIR(e.attr.mode)) {
		e.parent = o->rec.parent;
		r = dir_attr(p, &e.attr);
	}
	if (!r)
		*ret = e;
	return r;
}

/* Changing ------------------------------------------------------------------ */

static void times_put(struct plan *p, struct key k, bool evicted)
{
	struct dir_times now = { plan_now(p), plan_now(p), index_nonce(plan_index(p)), evicted };

	plan_put_encoded(p, k, dir_times_encode, &now);
}

void dir_touch(struct plan *p, uint64_t dir) { times_put(p, key_times(dir), false); }
void dir_touch_evicted(struct plan *p, uint64_t dir) { times_put(p, key_times(dir), true); }
void dir_touch_draft(struct plan *p, uint64_t dir) { times_put(p, own_times(p, dir), false); }

static bool is_one_of(const struct name_key *k, const struct writer_name *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i].parent == k->parent && v[i].h == k->h && bytes_eq(v[i].name, k->name))
			return true;
	return false;
}

/* Another draft name of this session in dir. INDEX_MISS: there is none, or it stands
 * behind too many of other sessions (then a `t` less is no harm: T says it, too). */
static int other_draft(struct plan *p, uint64_t dir, const struct writer_name *gone,
		       uint32_t ngone, struct name_key *ret)
{
	enum { LOOK_MAX = 1024 };
	struct key prefix = key_prefix('n', dir);
	const struct kv_rows *rows;

	for (uint32_t limit = ngone + 1;; limit *= 16) {
		int r = plan_range(p, prefix, key_prefix_end(prefix), limit, &rows);
		if (r)
			return r;
		for (uint32_t i = 0; i < rows->nrows; i++) {
			if (key_parse_name(rows->rows[i].key, ret))
				return -EUCLEAN;
			if (ret->session == plan_session(p) && !is_one_of(ret, gone, ngone))
				return 0;
		}
		/* Of this session alone they were enough to tell. */
		if (!rows->more || limit >= LOOK_MAX)
			return INDEX_MISS;
	}
}

int dir_touch_left(struct plan *p, uint64_t dir, const struct writer_name *gone, uint32_t ngone)
{
	struct name_key k;
	int r = other_draft(p, dir, gone, ngone, &k);

	if (r < 0 || r == PLAN_WAIT)
		return r;
	if (!r) {
		plan_expect_present(p, own_name(p, dir, k.h, k.name));
		dir_touch_draft(p, dir);
		return 0;
	}
	dir_touch(p, dir);
	plan_del(p, own_times(p, dir));
	return 0;
}

int dir_add_dirs(struct plan *p, uint64_t dir, int n)
{
	struct key k = key_ndirs(dir);
	uint64_t ndirs = 0;
	int r = ndirs_get(p, dir, &ndirs);

	if (r < 0 || r == PLAN_WAIT)
		return r;
	if (n < 0 && ndirs < (uint64_t)-n)
		return -EUCLEAN;
	ndirs += (uint64_t)n;
	plan_expect_same(p, k);
	if (ndirs)
		plan_put_encoded(p, k, number_encode, ndirs);
	else
		plan_del(p, k);
	return 0;
}
