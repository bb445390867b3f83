/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of an object that loses names: by unlink, rmdir, by a rename over
 * it, or when a draft that hid it is published. The name itself (its D or n key)
 * is the caller's to delete or to overwrite; here it is about the object.
 *
 * With the last name go the record, extended attributes, times and counts; a
 * writer is told that there is no place left. The body is handed out in `gone`, and
 * lies under a key of the session, `g`, until the engine has dropped it: so there is
 * always a row that names its slices, for as long as they may be asked for.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "index/ops.h"

static int expect_dir_empty(struct plan *p, uint64_t dir)
{
	const struct kv_rows *d, *n;
	struct key prefix_d = key_prefix('D', dir), prefix_n = key_prefix('n', dir);
	int r = plan_both(plan_range(p, prefix_d, key_prefix_end(prefix_d), 1, &d),
			  plan_range(p, prefix_n, key_prefix_end(prefix_n), 1, &n));

	if (r)
		return r;
	if (d->nrows || n->nrows)
		return -ENOTEMPTY;
	plan_expect_empty(p, prefix_d, key_prefix_end(prefix_d));
	plan_expect_empty(p, prefix_n, key_prefix_end(prefix_n));
	return 0;
}

static int dir_vanish(struct plan *p, uint64_t dir)
{
	int r = expect_dir_empty(p, dir);

	plan_del(p, key_times(dir));
	plan_del(p, own_times(p, dir));
	plan_del(p, key_ndirs(dir));
	return r;
}

static int object_vanish(struct plan *p, const struct object *o)
{
	int r = 0;

	if (o->rec.attr.has_xattrs)
		r = xattrs_drop(p, 'X', o->fileid);
	if (o->place.kind == PLACE_FILEID) {
		plan_expect_same(p, o->key);
		plan_del(p, o->key);
	}
	if (S_ISDIR(o->rec.attr.mode))
		return plan_both(r, dir_vanish(p, o->fileid));
	return plan_both(r, writer_moved(p, o->fileid, (struct place){ PLACE_NONE, 0, 0 }));
}

int object_lose(struct plan *p, struct object *o, uint32_t n, struct gone *ret)
{
	struct attr *a = &o->rec.attr;
	int r = 0;

	if (S_ISDIR(a->mode))
		a->nlink = n = 1;
	if (a->nlink < n)
		return -EUCLEAN;
	if (a->nlink > n && o->place.kind != PLACE_FILEID)
		return -EUCLEAN; /* a record with its name, and more links than that */
	a->nlink -= n;
	a->ctime = plan_now(p);
	*ret = (struct gone){ .fileid = o->fileid, .attr = *a };
	if (a->nlink) {
		object_put(p, o);
		ret->attr.nlink = object_links(o);
		if (!ret->attr.nlink)
			object_hidden(o, 0, ret);
	} else {
		r = object_vanish(p, o);
		ret->body = o->rec.body;
		gone_note(p, ret, 0);
	}
	return r;
}

void gone_note(struct plan *p, struct gone *g, uint64_t note)
{
	g->note = note;
	if (gone_is_noted(&g->body))
		plan_put_encoded(p, key_gone(g->fileid, note, plan_session(p)), gone_encode,
				 &g->body);
}

/* Of some 32 GiB that were written anew; more than that stays behind if the mount dies. */
enum { GONE_IDS_MAX = 8192 };

void gone_note_blocks(struct plan *p, uint64_t fileid, uint64_t note,
		      const struct block_ref *blocks, uint32_t n)
{
	_cleanup_(writer_fini) struct writer ids = { 0 };

	for (uint32_t i = 0; i < n && i < GONE_IDS_MAX; i++)
		write_u64(&ids, blocks[i].id);
	struct body b = { BODY_NONE, writer_bytes(&ids) };
	struct writer w = { 0 };
	if (!n)
		return;
	/* Out of memory: it is a note less. */
	if (!ids.bad) {
		gone_encode(&b, &w);
		plan_put_writer(p, key_gone(fileid, note, plan_session(p)), &w);
	}
}

static int gone_end_plan(struct plan *p, struct index_op *op)
{
	plan_del(p, key_gone(op->fileid, op->note, plan_session(p)));
	return 0;
}

void index_gone_end(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, gone_end_plan);
}

void object_hidden(const struct object *o, uint32_t n, struct gone *ret)
{
	uint32_t nlink = object_links(o);

	*ret = (struct gone){ .fileid = o->fileid, .attr = o->rec.attr, .hidden = true };
	ret->attr.nlink = nlink > n ? nlink - n : 0;
	if (!ret->attr.nlink)
		ret->body = o->rec.body;
}

static void unhide(struct object *o, uint32_t n)
{
	o->nhidden -= n < o->nhidden ? n : o->nhidden;
}

static int kept_lose(struct object *const *kept, uint32_t nkept, uint64_t fileid, uint32_t n,
		     uint32_t nhidden)
{
	for (uint32_t i = 0; i < nkept; i++) {
		if (kept[i]->draft || kept[i]->fileid != fileid)
			continue;
		if (kept[i]->rec.attr.nlink <= n)
			return -EUCLEAN;
		kept[i]->rec.attr.nlink -= n;
		unhide(kept[i], nhidden);
		return 1;
	}
	return 0;
}

int objects_lose(struct plan *p, const struct name_view *v, uint32_t n,
		 struct object *const *kept, uint32_t nkept, struct gone *ret)
{
	int r = 0;

	memset(ret, 0, n * sizeof(*ret));
	for (uint32_t i = 0; i < n; i++) {
		uint64_t fileid = v[i].rec.attr.fileid;
		uint32_t before = 0, times = 0, nhidden = 0;
		for (uint32_t j = 0; j < n; j++) {
			bool same = v[j].rec.attr.fileid == fileid;
			before += j < i && same;
			times += same;
			nhidden += same && v[j].draft;
		}
		if (before)
			continue;
		int is_kept = kept_lose(kept, nkept, fileid, times, nhidden);
		if (is_kept < 0)
			return is_kept;
		if (is_kept)
			continue;
		struct object o;
		int got = object_published(p, &v[i], &o);
		if (!got)
			unhide(&o, nhidden);
		r = plan_both(r, got ? got : object_lose(p, &o, times, &ret[i]));
	}
	return r;
}

int draft_lose(struct plan *p, const struct name_view *v, struct gone *ret)
{
	struct writer_name name = writer_name_of(v);
	uint32_t left = 0;
	int r = draft_rename(p, v->fileid, &name, NULL, &left);

	*ret = (struct gone){ .fileid = v->fileid, .draft = true };
	ret->attr.fileid = v->fileid;
	ret->attr.mode = S_IFREG;
	ret->attr.nlink = left;
	plan_del(p, name_key_n(p, v));
	return r;
}
