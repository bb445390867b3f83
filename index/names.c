/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name in its directory. Its key holds a hash of which the lowest bits are a
 * disambiguator, chosen when the name is made: the first value that no other name
 * of that hash has, published or a draft of any session. A name that is several of
 * these (drafts of two sessions, and what they hide) has one value of h: so whoever
 * publishes finds under it what the others have published.
 *
 * The hard idea is the guard of a name that is not there. "The slot is free" does
 * not do: two makers of one name could choose two slots, when a third name of the
 * same hash comes or goes between them. So it is the whole set of names of that
 * hash that has to be as it was: each one still there, and nothing in between.
 * Nearly always the set is empty, and the guard is one empty range in D and in n.
 *
 * Other sessions' drafts of a name are no part of what it shows; but who makes a
 * name that must be new is refused by them, and so is a directory that would come
 * under one: a draft never hides a directory.
 */
#include <errno.h>

#include "index/ops.h"


/* The rows of one name among those of its hash. */
struct found {
	const struct kv_row *d, *n; /* published; this session's draft; or NULL */
	bool foreign;               /* drafts of other sessions */
	uint64_t h;                 /* of all of them; 0: there is none */
};

static int find_rows(const struct kv_rows *rows, struct bytes name, uint64_t session,
		     struct found *f)
{
	for (uint32_t i = 0; i < rows->nrows; i++) {
		struct name_key k;
		if (key_parse_name(rows->rows[i].key, &k) || !bytes_eq(k.name, name))
			continue;
		if (f->h && f->h != k.h)
			return -EUCLEAN;
		f->h = k.h;
		if (k.kind == 'D')
			f->d = &rows->rows[i];
		else if (k.session == session)
			f->n = &rows->rows[i];
		else
			f->foreign = true;
	}
	return 0;
}

static bool h_is_taken(const struct kv_rows *rows, uint64_t h)
{
	for (uint32_t i = 0; i < rows->nrows; i++) {
		struct name_key k;
		if (!key_parse_name(rows->rows[i].key, &k) && k.h == h)
			return true;
	}
	return false;
}

static uint64_t h_choose(const struct name_view *v, uint64_t base)
{
	for (uint64_t h = base; h < base + NAME_SLOTS; h++)
		if (!h_is_taken(v->rows_d, h) && !h_is_taken(v->rows_n, h))
			return h;
	return 0;
}

static int name_decode_rows(struct name_view *v, uint64_t base, uint64_t session)
{
	struct found f = { .h = 0 };
	int r = find_rows(v->rows_d, v->name, session, &f);

	if (!r)
		r = find_rows(v->rows_n, v->name, session, &f);
	if (r)
		return r;
	v->h = f.h ? f.h : h_choose(v, base);
	v->draft = f.n;
	v->published = f.d;
	v->foreign = f.foreign;
	if (f.d) {
		r = record_decode(f.d->value, &v->rec);
		v->fileid = r ? 0 : v->rec.attr.fileid;
	}
	if (f.n && !r)
		r = number_decode(f.n->value, &v->fileid);
	return r;
}

int name_find(struct plan *p, uint64_t parent, const char *name, struct name_view *ret)
{
	struct name_view v = { .parent = parent, .name = bytes_str(name) };

	if (!v.name.len)
		return -ENOENT;
	if (v.name.len > INDEX_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(v.name.p, '/', v.name.len))
		return -EINVAL;
	uint64_t base = name_hash(index_super(plan_index(p))->hash_key, v.name);
	struct key last_d = key_prefix_h('D', parent, base + NAME_STEP - 1);
	struct key last_n = key_prefix_h('n', parent, base + NAME_STEP - 1);
	int r = plan_both(plan_range(p, key_prefix_h('D', parent, base), key_prefix_end(last_d),
				     NAME_SLOTS, &v.rows_d),
			  plan_range(p, key_prefix_h('n', parent, base), key_prefix_end(last_n),
				     UINT32_MAX, &v.rows_n));
	if (r)
		return r;
	r = name_decode_rows(&v, base, plan_session(p));
	if (!r)
		*ret = v;
	return r;
}

bool index_name_fits(struct index *ix, const char *name, uint64_t h)
{
	return name_hash(index_super(ix)->hash_key, bytes_str(name)) == h_hash(h);
}

int name_find_shown(struct plan *p, uint64_t parent, const char *name, struct name_view *ret)
{
	struct name_view v;
	int r = name_find(p, parent, name, &v);

	if (r)
		return r;
	if (!name_exists(&v))
		return INDEX_MISS;
	*ret = v;
	return 0;
}

/* The names of one hash in one space are those that were read. */
static void expect_rows(struct plan *p, char kind, uint64_t parent, uint64_t base,
			const struct kv_rows *rows)
{
	struct key from = key_prefix_h(kind, parent, base);

	for (uint32_t i = 0; i < rows->nrows; i++) {
		struct name_key k;
		if (key_parse_name(rows->rows[i].key, &k))
			continue;
		struct key prefix = key_prefix_h(kind, parent, k.h);
		if (bytes_cmp(key_bytes(&from), key_bytes(&prefix)) < 0)
			plan_expect_empty(p, from, prefix);
		plan_expect_present(p, kind == 'D' ? key_name(parent, k.h, k.name)
						   : key_draft_name(parent, k.h, k.name, k.session));
		from = key_prefix_end(prefix);
	}
	struct key end = key_prefix_end(key_prefix_h(kind, parent, base + NAME_STEP - 1));
	if (bytes_cmp(key_bytes(&from), key_bytes(&end)) < 0)
		plan_expect_empty(p, from, end);
}

void name_expect(struct plan *p, const struct name_view *v)
{
	if (name_exists(v)) {
		plan_expect_same(p, name_key_d(v));
		plan_expect_same(p, name_key_n(p, v));
		return;
	}
	uint64_t base = h_hash(v->h);
	expect_rows(p, 'D', v->parent, base, v->rows_d);
	expect_rows(p, 'n', v->parent, base, v->rows_n);
}

void name_expect_alone(struct plan *p, const struct name_view *v)
{
	struct key from = key_prefix_h('n', v->parent, v->h), own = name_key_n(p, v);
	uint64_t session = plan_session(p);

	plan_expect_empty(p, from, own);
	if (session != UINT64_MAX)
		plan_expect_empty(p, key_draft_name(v->parent, v->h, v->name, session + 1),
				  key_prefix_end(from));
}

int parent_find(struct plan *p, uint64_t parent, struct record *ret)
{
	const struct kv_row *row;
	struct record rec;
	int r = plan_get(p, key_file(parent), &row);

	if (r)
		return r == INDEX_MISS ? -ENOENT : r;
	r = record_decode(row->value, &rec);
	if (r)
		return r;
	if (!S_ISDIR(rec.attr.mode))
		return -ENOTDIR;
	plan_expect_present(p, key_file(parent));
	if (ret)
		*ret = rec;
	return 0;
}
