/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What objects consist of, one after the other while others write (for who compares their
 * bytes), and what they are called. Nothing is read in one moment: a body may be gone when it
 * is gone through, and a path is that of some moment, or of none.
 *
 * Threads: any; all of it blocks.
 */
#include <errno.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "index/keys.h"
#include "index/walk.h"

struct bodies {
	int (*visit)(void *arg, const struct index_body *b);
	void *arg;
};

static int see_row(void *arg, const struct kv_row *row)
{
	struct bodies *all = arg;
	struct index_body b = { .place = { .kind = PLACE_FILEID } };
	struct name_key k;
	struct record rec;
	int r = record_decode(row->value, &rec);

	if (r == -ENOMEM || r == -EPROTONOSUPPORT)
		return r;
	if (!key_parse_name(row->key, &k)) {
		b.place = (struct place){ PLACE_NAME, k.parent, k.h };
		b.name = k.name;
	} else if (key_parse_id(row->key, 'F', &b.attr.fileid)) {
		return -EUCLEAN;
	}
	b.damaged = r < 0;
	if (!r && (rec.kind == RECORD_REF || S_ISDIR(rec.attr.mode)))
		return 0;
	if (!r) {
		b.attr = rec.attr;
		b.body = rec.body;
		b.copy = rec.copy;
	}
	return all->visit(all->arg, &b);
}

int index_all_bodies(struct index *ix, int (*visit)(void *arg, const struct index_body *b),
		     void *arg)
{
	struct bodies all = { visit, arg };
	int r = walk_kind(index_kv(ix), 'D', see_row, &all);

	return r ? r : walk_kind(index_kv(ix), 'F', see_row, &all);
}

int index_body_extents(struct index *ix, const struct index_body *b,
		       int (*visit)(void *arg, const struct attr *a, const struct extents *e),
		       void *arg)
{
	const struct body_visitor v = { .extents = visit, .arg = arg };

	return walk_body(ix, &b->attr, &b->body, &v);
}

/* Names ------------------------------------------------------------------------------- */

struct links {
	uint64_t fileid;
	int (*visit)(void *arg, const struct index_name *at, struct bytes name);
	void *arg;
};

static int see_link(void *arg, const struct kv_row *row)
{
	struct links *l = arg;
	struct name_key k;
	struct record rec;

	if (key_parse_name(row->key, &k) || record_decode(row->value, &rec) ||
	    rec.attr.fileid != l->fileid)
		return 0;
	return l->visit(l->arg, &(struct index_name){ k.parent, k.h }, k.name);
}

int index_names_of(struct index *ix, uint64_t fileid,
		   int (*visit)(void *arg, const struct index_name *at, struct bytes name),
		   void *arg)
{
	struct links l = { fileid, visit, arg };

	return walk_kind(index_kv(ix), 'D', see_link, &l);
}

static void fini_req(struct kv_req *req)
{
	kv_req_fini(req);
}

/* What stands before `*at` in path gets the directory's name in front, and *dir becomes the
 * one that it is in. */
static int prepend_dir(struct index *ix, uint64_t *dir, char *path, size_t *at)
{
	struct key key = key_file(*dir);
	struct kv_read read = { .from = key_bytes(&key) };
	_cleanup_(fini_req) struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;
	int r = kv_wait(index_kv(ix), &req);

	if (r)
		return r < 0 ? r : -EIO;
	if (!req.rows->nrows)
		return -ENOENT;
	r = record_decode(req.rows->rows[0].value, &rec);
	if (r < 0)
		return r;
	if (!S_ISDIR(rec.attr.mode) || !rec.parent || !rec.name.len || rec.name.len + 1 > *at)
		return -ENAMETOOLONG;
	*at -= rec.name.len + 1;
	memcpy(path + *at, rec.name.p, rec.name.len);
	path[*at + rec.name.len] = '/';
	*dir = rec.parent;
	return 0;
}

int index_path(struct index *ix, uint64_t dir, struct bytes name, char ret[INDEX_PATH_MAX])
{
	size_t at = INDEX_PATH_MAX - 1 - name.len;
	int r = 0;

	if (name.len > INDEX_NAME_MAX)
		return -ENAMETOOLONG;
	ret[INDEX_PATH_MAX - 1] = 0;
	memcpy(ret + at, name.p, name.len);
	while (!r && dir != INDEX_ROOT)
		r = prepend_dir(ix, &dir, ret, &at);
	if (!r)
		memmove(ret, ret + at, INDEX_PATH_MAX - at);
	return r;
}
