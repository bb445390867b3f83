/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `w`: that a session writes an object, and where it is. For a draft, which is one
 * session's, the list of its names, which publishing needs and which every rename,
 * link and unlink keeps right; for a published object, which several sessions may
 * write, the place of its record. That is kept right for all of them by whichever
 * session moves or removes it, so that a publish never looks where the object once
 * was. Guarded by the whole set of them: one that begins to write meanwhile has
 * guarded the record, and one that ends takes its `w` away; neither is overlooked.
 */
#include <errno.h>

#include "index/ops.h"

static int writer_decode(struct plan *p, const struct kv_row *row, struct writer_state *ret)
{
	struct writer_state s;
	struct writer_name *names;
	int r = writer_state_decode(row->value, &s);

	if (r)
		return r;
	/* From the heap to where nobody has to free them. */
	names = plan_alloc(p, (s.nnames + 1) * sizeof(*names));
	if (names && s.nnames)
		memcpy(names, s.names, s.nnames * sizeof(*names));
	if (names) {
		*ret = s;
		ret->names = names;
	}
	writer_state_fini(&s);
	return names ? 0 : -ENOMEM;
}

int writer_get(struct plan *p, uint64_t fileid, struct writer_state *ret)
{
	const struct kv_row *row;
	int r = plan_get(p, own_writer(p, fileid), &row);

	return r ? r : writer_decode(p, row, ret);
}

void writer_put(struct plan *p, uint64_t fileid, const struct writer_state *s)
{
	plan_put_encoded(p, own_writer(p, fileid), writer_state_encode, s);
}

/* Those of all sessions. */
static int writers_read(struct plan *p, uint64_t fileid, const struct kv_rows **ret)
{
	struct key prefix = key_prefix('w', fileid);

	return plan_range(p, prefix, key_prefix_end(prefix), UINT32_MAX, ret);
}

int writer_knows(struct plan *p, uint64_t fileid, bool *ret_draft, struct place *ret)
{
	const struct kv_rows *rows;
	int r = writers_read(p, fileid, &rows);
	int found = INDEX_MISS;

	for (uint32_t i = 0; !r && i < rows->nrows; i++) {
		bool own = kv_key_session(rows->rows[i].key) == plan_session(p);
		struct writer_state w;
		r = writer_decode(p, &rows->rows[i], &w);
		if (r || (w.draft && !own))
			continue;
		*ret_draft = w.draft;
		*ret = w.place;
		found = 0;
	}
	return r ? r : found;
}

int writer_moved(struct plan *p, uint64_t fileid, struct place to)
{
	struct key prefix = key_prefix('w', fileid);
	const struct kv_rows *rows;
	int r = writers_read(p, fileid, &rows);

	if (r)
		return r;
	plan_expect_range(p, prefix, key_prefix_end(prefix), rows);
	for (uint32_t i = 0; i < rows->nrows; i++) {
		uint64_t session = kv_key_session(rows->rows[i].key);
		struct writer_state w;
		r = writer_decode(p, &rows->rows[i], &w);
		if (r || w.draft)
			return r ? r : -EUCLEAN;
		w.place = to;
		plan_put_encoded(p, key_writer(fileid, session), writer_state_encode, &w);
	}
	return 0;
}

int notes_drop(struct plan *p, uint64_t fileid)
{
	/* Of some 1,000 blocks each. What one transaction has no room for goes with the
	 * session, which then leaves alone what they say. */
	struct kv *kv = index_kv(plan_index(p));
	uint32_t limit = kv->ops->caps(kv).max_writes / 4;
	struct key prefix = key_prefix('b', fileid);
	const struct kv_rows *rows;
	uint64_t of, id;
	int r = plan_range(p, prefix, key_prefix_end(prefix), limit, &rows);

	for (uint32_t i = 0; !r && i < rows->nrows; i++) {
		if (kv_key_session(rows->rows[i].key) != plan_session(p))
			continue;
		r = key_parse_block(rows->rows[i].key, &of, &id);
		if (!r)
			plan_del(p, key_note(of, id, plan_session(p)));
	}
	return r;
}

void hides_put(struct plan *p, const struct writer_name *n)
{
	if (n->hides)
		plan_put(p, key_hides(n->hides, n->parent, n->h, plan_session(p)), BYTES_NONE);
}

void hides_del(struct plan *p, const struct writer_name *n)
{
	if (n->hides)
		plan_del(p, key_hides(n->hides, n->parent, n->h, plan_session(p)));
}

static bool same_name(const struct writer_name *a, const struct writer_name *b)
{
	return a->parent == b->parent && a->h == b->h && bytes_eq(a->name, b->name);
}

int draft_hides(struct plan *p, uint64_t fileid, const struct writer_name *n)
{
	struct writer_state w;
	int r = writer_get(p, fileid, &w);

	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	for (uint32_t i = 0; i < w.nnames; i++)
		if (same_name(&w.names[i], n))
			w.names[i].hides = n->hides;
	plan_expect_same(p, own_writer(p, fileid));
	writer_put(p, fileid, &w);
	hides_put(p, n);
	return 0;
}

int draft_rename(struct plan *p, uint64_t fileid, const struct writer_name *from,
		 const struct writer_name *to, uint32_t *ret_left)
{
	struct writer_name names[DRAFT_NAMES_MAX + 1];
	struct writer_state w;
	uint32_t n = 0;
	int r = writer_get(p, fileid, &w);

	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	if (!w.draft || w.nnames > DRAFT_NAMES_MAX)
		return -EUCLEAN;
	for (uint32_t i = 0; i < w.nnames; i++) {
		if (!from || !same_name(&w.names[i], from))
			names[n++] = w.names[i];
		else
			hides_del(p, &w.names[i]);
	}
	if (from && n + 1 != w.nnames)
		return -EUCLEAN;
	if (to)
		names[n++] = *to;
	if (n > DRAFT_NAMES_MAX)
		return -EMLINK;
	w.names = names;
	w.nnames = n;
	plan_expect_same(p, own_writer(p, fileid));
	writer_put(p, fileid, &w);
	if (ret_left)
		*ret_left = n;
	return 0;
}
