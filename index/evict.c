/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicting: an object loses all of its names in one transaction, as if each had been
 * unlinked, unless somebody is about to change it. And which object a row is of, for who
 * decides about that (engine/uses.c).
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "index/ops.h"
#include "index/priv.h"
#include "index/walk.h"

/* Is there a row of this kind of the object's, of whatever session? */
static int is_any(struct plan *p, char kind, uint64_t fileid, bool *ret)
{
	struct key prefix = key_prefix(kind, fileid), end = key_prefix_end(prefix);
	const struct kv_rows *rows;
	int r = plan_range(p, prefix, end, 1, &rows);

	if (r)
		return r;
	*ret |= rows->nrows != 0;
	plan_expect_empty(p, prefix, end);
	return 0;
}

/* Which name went, for op->entries. */
static void note_name(struct plan *p, struct index_op *op, const struct name_key *k)
{
	char *name = plan_name(p, k->name);

	if (!op->entries || !name)
		return;
	op->entries[op->nentries++] = (struct entry){
		.attr.fileid = op->fileid, .parent = k->parent, .h = k->h, .name = name,
		.name_len = (uint16_t)k->name.len,
	};
}

/* The name is the object's, and goes. Of a file that has no other it is the record: *ret. */
static int name_goes(struct plan *p, struct index_op *op, const struct index_name *n,
		     struct object *ret)
{
	struct key prefix = key_prefix_h('D', n->parent, n->h);
	const struct kv_rows *rows;
	struct name_key k;
	struct record rec;
	int r = plan_range(p, prefix, key_prefix_end(prefix), 1, &rows);

	if (r)
		return r;
	if (!rows->nrows)
		return INDEX_MISS;
	r = key_parse_name(rows->rows[0].key, &k);
	if (!r)
		r = record_decode(rows->rows[0].value, &rec);
	if (r)
		return r;
	if (rec.attr.fileid != op->fileid || S_ISDIR(rec.attr.mode))
		return INDEX_MISS;
	struct key d = key_name(k.parent, k.h, k.name);
	plan_expect_same(p, d);
	plan_del(p, d);
	note_name(p, op, &k);
	dir_touch_evicted(p, k.parent);
	if (rec.kind != RECORD_WHOLE)
		return 0;
	*ret = (struct object){ .fileid = op->fileid, .key = d, .rec = rec,
				.place = { PLACE_NAME, k.parent, k.h } };
	return 0;
}

static int names_go(struct plan *p, struct index_op *op, struct object *o)
{
	const struct index_name one = { op->place.parent, op->place.h };
	bool alone = op->place.kind == PLACE_NAME;
	uint32_t n = alone ? 1 : op->nnames;
	int r = 0, miss = 0;

	op->entries = plan_alloc(p, n * sizeof(*op->entries));
	for (uint32_t i = 0; i < n; i++) {
		int got = name_goes(p, op, alone ? &one : &op->names[i], o);
		miss |= got == INDEX_MISS;
		r = plan_both(r, got);
	}
	return r ? r : miss ? INDEX_MISS : 0;
}

/* It was to end, and may have been given more time since. */
static bool has_more_time(const struct index_op *op, const struct attr *a)
{
	int64_t at;

	return op->mask & INDEX_SET_TTL && (!keep_end(a, &at) || at > op->attr.mtime.tv_sec);
}

static int evict_plan(struct plan *p, struct index_op *op)
{
	struct object o = { .place = { .kind = PLACE_NONE } };
	bool busy = false;
	int r_o = op->place.kind == PLACE_FILEID ?
		object_find(p, op->fileid, op->place, &o) : 0;
	int r_n = names_go(p, op, &o);
	int r = plan_both(r_o, r_n);

	r = plan_both(r, is_any(p, 'w', op->fileid, &busy));
	r = plan_both(r, is_any(p, 'h', op->fileid, &busy));
	if (r || r_o || r_n)
		return r ? r : INDEX_MISS;
	if (busy)
		return -EBUSY;
	if (o.rec.attr.keep.pinned > plan_now(p).tv_sec)
		return -EPERM;
	if (o.place.kind == PLACE_NONE || o.place.kind != op->place.kind || o.draft ||
	    has_more_time(op, &o.rec.attr) ||
	    (o.place.kind == PLACE_FILEID && o.rec.attr.nlink != op->nnames) ||
	    (op->value.p && !bytes_eq(o.rec.body.bytes, op->value)))
		return INDEX_MISS;
	plan_use_reserve(p);
	return object_lose(p, &o, o.rec.attr.nlink, &op->gone);
}

void index_evict(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, evict_plan);
}

/* Directories --------------------------------------------------------------------------- */

/* One that is made anew would be told the same by the directory above it. */
static bool says_nothing_new(const struct keep *k, const struct keep *above)
{
	return !(keep_said(k) & keep_diff(k, above)) && !k->quota;
}

/* Nothing has happened in it, or to it, since then, but that it was emptied. */
static int is_left(struct plan *p, const struct object *o, struct timespec since, bool *ret)
{
	const struct attr *a = &o->rec.attr;
	const struct kv_row *row;
	struct dir_times t = { 0 };
	struct object above;
	int r_t = plan_get(p, key_times(o->fileid), &row);
	int r_a = object_find(p, o->rec.parent, (struct place){ .kind = PLACE_FILEID }, &above);
	int r = plan_both(r_t, r_a);

	if (!r && !r_t)
		r = dir_times_decode(row->value, &t);
	if (r)
		return r;
	*ret = !r_a && t.evicted && !time_is_after(t.mtime, since) && !time_is_after(a->atime, since) &&
	       !time_is_after(a->ctime, since) && !a->has_xattrs &&
	       says_nothing_new(&a->keep, &above.rec.attr.keep);
	plan_expect_same(p, key_times(o->fileid));
	plan_expect_same(p, key_file(o->rec.parent));
	return 0;
}

static int evict_dir_plan(struct plan *p, struct index_op *op)
{
	struct name_view v;
	struct object o;
	bool left = false;
	int r = object_find(p, op->fileid, op->place, &o);

	if (r)
		return r;
	if (!S_ISDIR(o.rec.attr.mode) || o.fileid == INDEX_ROOT)
		return INDEX_MISS;
	char *name = plan_name(p, o.rec.name);
	if (!name)
		return -ENOMEM;
	r = plan_both(is_left(p, &o, op->attr.mtime, &left),
		      name_find(p, o.rec.parent, name, &v));
	if (r)
		return r;
	if (!left || v.draft || !v.published || v.rec.attr.fileid != o.fileid)
		return -EBUSY;
	op->entries = plan_alloc(p, sizeof(*op->entries));
	note_name(p, op, &(struct name_key){ .parent = v.parent, .h = v.h, .name = v.name });
	name_expect(p, &v);
	return dir_remove(p, &v, dir_touch_evicted, &op->gone);
}

void index_evict_dir(struct index *ix, struct index_op *op)
{
	op->place = (struct place){ .kind = PLACE_FILEID };
	plan_run(ix, op, evict_dir_plan);
}

enum { SOME = 1024 }; /* rows in one go */

/* What does not decode is none that goes. */
int index_some_evicted(struct index *ix, struct timespec since, uint64_t *at,
		       int (*visit)(void *arg, uint64_t dir), void *arg)
{
	struct key from = key_times(*at);
	struct kv_read read = { key_bytes(&from), BYTES_OF("U", 1) /* behind T */, SOME };
	_cleanup_(kv_req_fini) struct kv_req req = { .reads = &read, .nreads = 1 };
	int r = kv_wait(index_kv(ix), &req);
	uint64_t dir, last = 0;

	for (uint32_t i = 0; !r && i < req.rows->nrows; i++) {
		const struct kv_row *row = &req.rows->rows[i];
		struct dir_times t;
		if (key_parse_id(row->key, 'T', &dir))
			continue;
		last = dir;
		if (!dir_times_decode(row->value, &t) && t.evicted && !time_is_after(t.mtime, since))
			r = visit(arg, dir);
	}
	if (r)
		return r < 0 ? r : -EIO;
	*at = req.rows->more && last ? last + 1 : 0;
	return 0;
}

/* Finding what may be evicted ---------------------------------------------------------- */

static int near_plan(struct plan *p, struct index_op *op)
{
	uint64_t low = (1ULL << INDEX_NEAR_BITS) - 1, first = op->place.h & ~low;
	struct key from = key_prefix_h('D', op->place.parent, first);
	struct key to = key_prefix_end(key_prefix_h('D', op->place.parent, first | low));
	const struct kv_rows *rows;
	int r = plan_range(p, from, to, UINT32_MAX, &rows);

	/* Nearly always one. What does not decode is none that goes. */
	for (uint32_t i = 0; !r && i < rows->nrows; i++) {
		struct object o = { .fileid = op->fileid };
		struct name_key k;
		if (key_parse_name(rows->rows[i].key, &k) ||
		    record_decode(rows->rows[i].value, &o.rec) ||
		    o.rec.kind != RECORD_WHOLE || o.rec.attr.fileid != op->fileid)
			continue;
		o.place = (struct place){ PLACE_NAME, k.parent, k.h };
		return object_entry(p, &o, &op->entry);
	}
	return r ? r : INDEX_MISS;
}

void index_stat_near(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, near_plan);
}

/* Moving --------------------------------------------------------------------------------- */

/* Numbers of notes: 0 is an object that is gone, versions count from 1. */
static uint64_t move_note(struct plan *p)
{
	return index_nonce(plan_index(p)) | 1ULL << 63;
}

/* What is on the disk as b stays there, and is known of as long as a record has room for it. */
static struct bytes copy_of(const struct body *b)
{
	return b->kind == BODY_EXTENTS && b->bytes.len <= INDEX_BODY_MAX ? b->bytes : BYTES_NONE;
}

static int move_plan(struct plan *p, struct index_op *op)
{
	struct object o = { 0 };
	bool busy = false;
	int r_o = object_find(p, op->fileid, op->place, &o);
	int r = plan_both(r_o, is_any(p, 'w', op->fileid, &busy));

	if (r || r_o)
		return r ? r : INDEX_MISS;
	if (busy)
		return -EBUSY;
	struct record *rec = &o.rec;
	struct body to = op->body;
	if (op->attr.away && to.kind == BODY_NONE && rec->copy.len)
		to = (struct body){ BODY_EXTENTS, rec->copy };
	if (o.draft || rec->attr.away == op->attr.away || !bytes_eq(rec->body.bytes, op->value) ||
	    to.kind == BODY_NONE)
		return INDEX_MISS;
	plan_use_reserve(p);
	if (rec->body.kind != BODY_EXTENTS) {
		op->gone = (struct gone){ .fileid = op->fileid, .attr = rec->attr,
					  .body = rec->body };
		op->gone.attr.nlink = 0;
		gone_note(p, &op->gone, move_note(p));
	}
	if (rec->body.kind != BODY_EXTENTS || to.kind != BODY_EXTENTS)
		rec->attr.version++;
	rec->attr.away = op->attr.away;
	rec->attr.copied = !op->attr.away;
	rec->copy = op->attr.away ? BYTES_NONE : copy_of(&rec->body);
	rec->body = to;
	object_put(p, &o);
	return object_entry(p, &o, &op->entry);
}

void index_move(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, move_plan);
}

static int find_copied(struct plan *p, struct index_op *op, struct object *ret)
{
	int r = object_find(p, op->fileid, op->place, ret);

	if (r)
		return r;
	plan_use_reserve(p);
	return ret->draft || !ret->rec.attr.copied ? INDEX_MISS : 0;
}

static int copy_drop_plan(struct plan *p, struct index_op *op)
{
	struct object o;
	int r = find_copied(p, op, &o);

	if (r)
		return r;
	o.rec.copy = BYTES_NONE;
	object_put(p, &o);
	return object_entry(p, &o, &op->entry);
}

void index_copy_drop(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, copy_drop_plan);
}

static int copy_end_plan(struct plan *p, struct index_op *op)
{
	struct object o;
	int r = find_copied(p, op, &o);

	if (r)
		return r;
	if (o.rec.copy.len)
		return -EBUSY;
	o.rec.attr.copied = false;
	object_put(p, &o);
	return object_entry(p, &o, &op->entry);
}

void index_copy_end(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, copy_end_plan);
}

/* Rows ------------------------------------------------------------------------------- */

/* Of the pool: content in the record is shown as a page, and takes none. */
uint64_t index_pool_pages(const struct attr *a, const struct body *b)
{
	return a->away || b->kind == BODY_NONE || b->kind == BODY_INLINE ? 0 : a->pages;
}

/* "*.tmp", "*.tmp.*" */
static bool is_temp(struct bytes name)
{
	static const char end[] = ".tmp";
	size_t n = sizeof(end) - 1;
	const char *p = name.len > n ? memmem((const char *)name.p + 1, name.len - 1, end, n) : NULL;

	for (; p; p = memmem(p, (size_t)((const char *)name.p + name.len - p), end, n)) {
		p += n;
		if (p == (const char *)name.p + name.len || *p == '.')
			return true;
	}
	return false;
}

int index_row_object(struct bytes key, struct bytes value, struct index_row *ret)
{
	struct name_key k = { 0 };
	struct record rec;
	uint64_t fileid;
	int r;

	switch (key.len ? *(const char *)key.p : 0) {
	case 'D':
		r = key_parse_name(key, &k);
		break;
	case 'F':
		r = key_parse_id(key, 'F', &fileid);
		break;
	default:
		return INDEX_MISS;
	}
	if (!r)
		r = record_decode(value, &rec);
	if (r)
		return r;
	*ret = (struct index_row){
		.name = { k.parent, k.h }, .is_name = k.parent,
		.is_record = rec.kind == RECORD_WHOLE, .is_temp = is_temp(k.name),
		.attr = rec.attr,
	};
	ret->attr.pages = index_pool_pages(&rec.attr, &rec.body);
	return S_ISDIR(rec.attr.mode) ? INDEX_MISS : 0;
}

int index_row_dir(struct bytes key, struct bytes value, struct index_dir *ret)
{
	struct record rec;
	uint64_t dir;

	if (!key.len || *(const char *)key.p != 'F')
		return INDEX_MISS;
	int r = key_parse_id(key, 'F', &dir);
	if (!r)
		r = record_decode(value, &rec);
	if (r)
		return r;
	if (rec.kind != RECORD_WHOLE || !S_ISDIR(rec.attr.mode))
		return INDEX_MISS;
	*ret = (struct index_dir){ dir, rec.parent, rec.attr.keep.quota };
	return 0;
}

struct dir_rows {
	int (*visit)(void *arg, const struct index_dir *d);
	void *arg;
};

static int see_dir(void *arg, const struct kv_row *row)
{
	struct dir_rows *all = arg;
	struct index_dir d;
	int r = index_row_dir(row->key, row->value, &d);

	return r == INDEX_MISS ? 0 : r ? r : all->visit(all->arg, &d);
}

int index_all_dirs(struct index *ix, int (*visit)(void *arg, const struct index_dir *d), void *arg)
{
	struct dir_rows all = { visit, arg };

	return walk_kind(index_kv(ix), 'F', see_dir, &all);
}

struct rows {
	int (*visit)(void *arg, const struct index_row *row);
	void *arg;
};

static int see_row(void *arg, const struct kv_row *row)
{
	struct rows *all = arg;
	struct index_row o;
	int r = index_row_object(row->key, row->value, &o);

	return r == INDEX_MISS ? 0 : r ? r : all->visit(all->arg, &o);
}

int index_all_objects(struct index *ix, int (*visit)(void *arg, const struct index_row *row),
		      void *arg)
{
	struct rows all = { visit, arg };
	int r = walk_kind(index_kv(ix), 'D', see_row, &all);

	return r ? r : walk_kind(index_kv(ix), 'F', see_row, &all);
}

static int end_copy(void *arg, const struct index_row *row)
{
	struct index_op op = {
		.fileid = row->attr.fileid,
		.place = { row->is_name ? PLACE_NAME : PLACE_FILEID, row->name.parent, row->name.h },
	};

	if (!row->is_record || !row->attr.copied)
		return 0;
	int r = index_wait(arg, &op, index_copy_end);
	index_op_fini(&op);
	return r < 0 ? r : 0;
}

int index_end_copies(struct index *ix)
{
	return index_all_objects(ix, end_copy, ix);
}
