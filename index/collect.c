/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a session that was given up. Its drafts go with its keys; what it leaves
 * otherwise are extent blocks, put for a version that was never published. It has
 * noted the ids of what it put last for each object (blocks.c), and its `w` says where
 * the record is that names them, or would. So the notes are read and settled first,
 * and then the session ends.
 *
 * The hard idea is what may change meanwhile. Nobody but the session itself, which is
 * silent by now, could come to name one of its blocks. Other sessions may move the
 * record, or replace the version: who does that deletes what it named, and it does no
 * harm to be faster. So "the record does not name it" stays true, once seen, and one
 * look at a record is enough, at whatever moment; it is repeated only if the record
 * could not be read whole.
 *
 * What had lost its last name and was not dropped yet, and the blocks that a version did
 * without, lie under `g`, whose rows say all that is to be deleted: nobody else deletes
 * it, or names it. The extents in such a row itself go with it, and so with the session.
 *
 * Threads: the caller's own; it blocks.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "index/blockset.h"
#include "index/keys.h"
#include "index/walk.h"

enum { COLLECT_TRIES_MAX = 100 };

struct collect {
	struct index *ix;
	uint64_t session;
	struct blockset notes; /* by their keys: fileid, number */
	unsigned deleted;
};

static void collect_fini(struct collect *c)
{
	blockset_fini(&c->notes);
}

static int collect_row(void *arg, const struct kv_row *row)
{
	struct collect *c = arg;
	uint64_t fileid, id;

	if (kv_key_session(row->key) != c->session)
		return 0;
	int r = key_parse_block(row->key, &fileid, &id);
	return r ? r : blockset_add(&c->notes, fileid, id);
}

/* What the record names ---------------------------------------------------------- */

static int add_named(void *arg, uint64_t fileid, uint64_t id)
{
	return blockset_add(arg, fileid, id);
}

/* All blocks of the object's version, if there is a record. -EAGAIN: it moved, or
 * was replaced, while it was read. */
static int read_named(struct collect *c, uint64_t fileid, struct place place,
		      struct blockset *ret)
{
	_cleanup_(index_op_fini) struct index_op op = { .fileid = fileid, .place = place };
	struct body_visitor v = { .block = add_named, .arg = ret };

	if (place.kind == PLACE_NONE || place.kind == PLACE_DRAFT)
		return 0;
	int r = index_wait(c->ix, &op, index_stat);
	if (!r)
		r = walk_body(c->ix, &op.entry.attr, &op.entry.body, &v);
	blockset_sort(ret);
	return r == INDEX_MISS || r == -EUCLEAN ? -EAGAIN : r;
}

/* One note ------------------------------------------------------------------------- */

static int note_delete(struct collect *c, struct key note, uint64_t fileid, const uint64_t *ids,
		       uint32_t n, const struct blockset *named)
{
	_cleanup_(freep) struct key *keys = calloc(n, sizeof(*keys));
	_cleanup_(freep) struct kv_write *writes = calloc(n + 1, sizeof(*writes));
	struct kv_compare is_there = { .kind = KV_PRESENT, .key = key_bytes(&note) };
	uint32_t nwrites = 0;

	if (!keys || !writes)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (blockset_has(named, fileid, ids[i]))
			continue;
		keys[nwrites] = key_block(fileid, ids[i]);
		writes[nwrites].key = key_bytes(&keys[nwrites]);
		nwrites++;
	}
	unsigned deleted = nwrites;
	writes[nwrites++].key = key_bytes(&note);
	struct kv_req req = { .compares = &is_there, .ncompares = 1, .writes = writes,
			      .nwrites = nwrites, .reserve = true };
	int r = kv_wait(index_kv(c->ix), &req);
	kv_req_fini(&req);
	if (r == KV_DONE)
		c->deleted += deleted;
	if (r == KV_UNKNOWN)
		return -EAGAIN;
	return r < 0 ? r : 0; /* a conflict: somebody has done it */
}

/* Where the record is, as the session's `w` says at the same moment. INDEX_MISS: it
 * had stopped to write, and its blocks are settled. */
static int writer_place(const struct kv_rows *rows, struct place *ret)
{
	struct writer_state w;

	if (!rows->nrows)
		return INDEX_MISS;
	int r = writer_state_decode(rows->rows[0].value, &w);
	if (r < 0)
		return r;
	*ret = w.draft ? (struct place){ .kind = PLACE_DRAFT } : w.place;
	writer_state_fini(&w);
	return 0;
}

/* -EAGAIN: once more. */
static int note_try(struct collect *c, const struct blockset_item *item)
{
	_cleanup_(blockset_fini) struct blockset named = { 0 };
	_cleanup_(freep) uint64_t *ids = NULL;
	_cleanup_(kv_req_fini) struct kv_req req = { 0 };
	struct key note = key_note(item->fileid, item->id, c->session);
	struct key w = key_writer(item->fileid, c->session);
	struct kv_read reads[] = { { .from = key_bytes(&note) }, { .from = key_bytes(&w) } };
	struct place place;
	uint32_t n = 0;

	req.reads = reads;
	req.nreads = 2;
	int r = kv_wait(index_kv(c->ix), &req);
	if (r)
		return r < 0 ? r : -EAGAIN;
	if (!req.rows[0].nrows)
		return 0;
	r = note_decode(req.rows[0].rows[0].value, &ids, &n);
	if (!r)
		r = writer_place(&req.rows[1], &place);
	if (!r)
		r = read_named(c, item->fileid, place, &named);
	if (r)
		return r == INDEX_MISS ? 0 : r;
	return note_delete(c, note, item->fileid, ids, n, &named);
}

static int collect_note(struct collect *c, const struct blockset_item *item)
{
	int r = -EAGAIN;

	for (unsigned try = 0; r == -EAGAIN && try < COLLECT_TRIES_MAX; try++)
		r = note_try(c, item);
	return r == -EAGAIN ? -EIO : r;
}

/* What was gone -------------------------------------------------------------------- */

static int gone_delete(struct collect *c, uint64_t fileid, const struct blockset *blocks)
{
	_cleanup_(freep) struct block_ref *refs = calloc(blocks->n, sizeof(*refs));
	_cleanup_(index_op_fini) struct index_op op = { .fileid = fileid, .blocks = refs };

	if (!refs)
		return -ENOMEM;
	for (size_t i = 0; i < blocks->n; i++)
		refs[i].id = blocks->v[i].id;
	op.nblocks = (uint32_t)blocks->n;
	int r = index_wait(c->ix, &op, index_del_blocks);
	if (!r)
		c->deleted += op.nblocks;
	return r;
}

struct listed {
	struct blockset *blocks;
	uint64_t fileid;
};

static int add_listed(void *arg, uint64_t id)
{
	struct listed *l = arg;

	return blockset_add(l->blocks, l->fileid, id);
}

/* What a version did without is listed as such. */
static int gone_read(struct collect *c, const struct attr *a, const struct body *body,
		     struct blockset *ret)
{
	struct body_visitor v = { .block = add_named, .arg = ret };
	struct listed l = { ret, a->fileid };

	return body->kind == BODY_NONE ? gone_ids(body, add_listed, &l)
				       : walk_body(c->ix, a, body, &v);
}

static int gone_row(void *arg, const struct kv_row *row)
{
	_cleanup_(blockset_fini) struct blockset blocks = { 0 };
	struct collect *c = arg;
	struct attr a = { 0 };
	struct body body;
	uint64_t note;

	if (kv_key_session(row->key) != c->session)
		return 0;
	int r = key_parse_gone(row->key, &a.fileid, &note);
	if (!r)
		r = gone_decode(row->value, &body);
	if (!r)
		r = gone_read(c, &a, &body, &blocks);
	/* -EUCLEAN: blocks of a tree are deleted last, and some of them were. */
	if (r && r != -EUCLEAN)
		return r;
	return blocks.n ? gone_delete(c, a.fileid, &blocks) : 0;
}

/* All of them ---------------------------------------------------------------------- */

static int walk_again(struct collect *c, char kind, walk_row *row)
{
	unsigned failed = 0;
	int r;

	do {
		c->notes.n = 0;
		r = walk_kind(index_kv(c->ix), kind, row, c);
	} while (r == -EIO && ++failed < COLLECT_TRIES_MAX); /* perhaps an answer was lost */
	return r;
}

static int collect(struct collect *c)
{
	int r = walk_again(c, 'b', collect_row), failed = r;

	for (size_t i = 0; !r && i < c->notes.n; i++) {
		int one = collect_note(c, &c->notes.v[i]);
		if (one < 0)
			failed = one;
	}
	r = walk_again(c, 'g', gone_row);
	return r < 0 ? r : failed;
}

int index_session_end(struct index *ix, uint64_t session, unsigned *ret_blocks)
{
	_cleanup_(collect_fini) struct collect c = { .ix = ix, .session = session };
	struct kv *kv = index_kv(ix);
	int r = collect(&c);

	if (r < 0)
		log_warn("index", "blocks of session %llu stay behind until the next start: %s",
			 (unsigned long long)session, strerror(-r));
	if (ret_blocks)
		*ret_blocks = c.deleted;
	int end = kv->ops->session_end(kv, session);
	return end < 0 ? end : r;
}
