/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `w`: that this session writes an object, and where it is. For a draft the list
 * of its names, which publishing needs and which every rename, link and unlink
 * keeps right; for a published object the place of its record, kept right in the
 * same way, so that a publish never looks where the object once was.
 */
#include <errno.h>

#include "index/ops.h"

int writer_get(struct plan *p, uint64_t fileid, struct writer_state *ret)
{
	struct writer_state s = { 0 };
	struct writer_name *names;
	const struct kv_row *row;
	int r = plan_get(p, own_writer(p, fileid), &row);

	if (!r)
		r = writer_state_decode(row->value, &s);
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

void writer_put(struct plan *p, uint64_t fileid, const struct writer_state *s)
{
	plan_put_encoded(p, own_writer(p, fileid), writer_state_encode, s);
}

int writer_moved(struct plan *p, uint64_t fileid, struct place to)
{
	struct writer_state w;
	int r = writer_get(p, fileid, &w);

	if (r < 0 || r == PLAN_WAIT)
		return r;
	plan_expect_same(p, own_writer(p, fileid));
	if (r == INDEX_MISS)
		return 0;
	if (w.draft)
		return -EUCLEAN;
	w.place = to;
	writer_put(p, fileid, &w);
	return 0;
}

static bool same_name(const struct writer_name *a, const struct writer_name *b)
{
	return a->parent == b->parent && a->h == b->h && bytes_eq(a->name, b->name);
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
	for (uint32_t i = 0; i < w.nnames; i++)
		if (!from || !same_name(&w.names[i], from))
			names[n++] = w.names[i];
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
