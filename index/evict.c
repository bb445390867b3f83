/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicting: an object loses all of its names in one transaction, as if each had been
 * unlinked, unless somebody is about to change it. And which object a row is of, for who
 * decides about that (engine/uses.c).
 */
#include <errno.h>

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
	char *name = plan_alloc(p, k->name.len + 1);

	if (!op->entries || !name)
		return;
	memcpy(name, k->name.p, k->name.len);
	name[k->name.len] = 0;
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
	plan_expect_range(p, prefix, key_prefix_end(prefix), rows);
	plan_del(p, d);
	note_name(p, op, &k);
	dir_touch(p, k.parent);
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
	if (o.place.kind != op->place.kind || o.draft ||
	    (o.place.kind == PLACE_FILEID && o.rec.attr.nlink != op->nnames))
		return INDEX_MISS;
	plan_use_reserve(p);
	return object_lose(p, &o, o.rec.attr.nlink, &op->gone);
}

void index_evict(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, evict_plan);
}

/* Moving --------------------------------------------------------------------------------- */

/* Numbers of notes: 0 is an object that is gone, versions count from 1. */
static uint64_t move_note(struct plan *p)
{
	return index_nonce(plan_index(p)) | 1ULL << 63;
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
	if (o.draft || rec->attr.away == op->attr.away || !bytes_eq(rec->body.bytes, op->value))
		return INDEX_MISS;
	plan_use_reserve(p);
	if (rec->body.kind != BODY_EXTENTS) {
		op->gone = (struct gone){ .fileid = op->fileid, .attr = rec->attr,
					  .body = rec->body };
		op->gone.attr.nlink = 0;
		gone_note(p, &op->gone, move_note(p));
	}
	if (rec->body.kind != BODY_EXTENTS || op->body.kind != BODY_EXTENTS)
		rec->attr.version++;
	rec->attr.away = op->attr.away;
	rec->body = op->body;
	object_put(p, &o);
	return object_entry(p, &o, &op->entry);
}

void index_move(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, move_plan);
}

/* Rows ------------------------------------------------------------------------------- */

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
		.is_record = rec.kind == RECORD_WHOLE, .attr = rec.attr,
	};
	return S_ISDIR(rec.attr.mode) ? INDEX_MISS : 0;
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
