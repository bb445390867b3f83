/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What readers see. Those who only read do so in their own thread, at an LMDB
 * snapshot. Session keys change right after the commit, under state_lock. Until
 * then `behind` has the commit's number: a reader whose snapshot has that
 * commit waits for it to pass. So a commit happens, for everybody, at the moment
 * when `behind` is reset.
 */
#include <errno.h>

#include "index/lmdb_priv.h"

/* The commit that reader r sees is not whole before session keys follow. */
static bool reader_is_ahead(struct lmdb *l, const struct lmdb_reader *r)
{
	return mdb_txn_id(r->txn) >= atomic_load(&l->behind);
}

/* Compares and reads of these kinds; KV_CONFLICT in *outcome stays. */
static int read_kinds(const struct views *v, struct kv_req *req, unsigned kinds,
		      int *outcome)
{
	int r = views_compare(v, req, kinds);

	if (r >= 0) {
		*outcome |= r;
		r = views_read(v, req, kinds);
	}
	return r;
}

/* A snapshot that is whole; the caller gives it back. */
static int durable_reader(struct lmdb *l, struct lmdb_reader **ret)
{
	int rc = lmdb_reader_get(&l->env, ret);

	if (rc < 0 || !reader_is_ahead(l, *ret))
		return rc;
	WITH_LOCK(&l->state_lock);
	while (reader_is_ahead(l, *ret))
		lock_wait(&l->state_lock, &l->applied);
	return 0;
}

static int read_durable(struct lmdb *l, struct kv_req *req, int *outcome)
{
	struct lmdb_reader *r;
	int rc = durable_reader(l, &r);

	if (rc < 0)
		return rc;
	struct lmdb_view durable = lmdb_view_of_reader(&l->env, r);
	struct views views = { .durable = &durable.view };
	rc = read_kinds(&views, req, VIEW_DURABLE, outcome);
	lmdb_reader_put(&l->env, r);
	return rc;
}

static int read_session(struct lmdb *l, struct kv_req *req, int *outcome)
{
	struct view_ordered session = view_of(&l->session, NULL);
	struct views views = { .session = &session.view };

	WITH_LOCK(&l->state_lock);
	return read_kinds(&views, req, VIEW_SESSION, outcome);
}

/* Session keys and a snapshot of the same moment; the snapshot is then read
 * without the lock, unless one range spans both kinds. */
static int read_both(struct lmdb *l, struct kv_req *req, unsigned kinds,
		     int *outcome)
{
	struct view_ordered session = view_of(&l->session, NULL);
	struct lmdb_view durable;
	struct views views = { &durable.view, &session.view };
	struct lmdb_reader *r;
	int rc;

	{
		WITH_LOCK(&l->state_lock);
		rc = lmdb_reader_get(&l->env, &r);
		while (!rc && reader_is_ahead(l, r)) {
			lmdb_reader_put(&l->env, r);
			lock_wait(&l->state_lock, &l->applied);
			rc = lmdb_reader_get(&l->env, &r);
		}
		if (rc < 0)
			return rc;
		durable = lmdb_view_of_reader(&l->env, r);
		rc = read_kinds(&views, req,
				kinds & VIEW_MIXED ? VIEW_ANY : VIEW_SESSION, outcome);
	}
	if (!rc && !(kinds & VIEW_MIXED))
		rc = read_kinds(&views, req, VIEW_DURABLE, outcome);
	lmdb_reader_put(&l->env, r);
	return rc;
}

int lmdb_read(struct lmdb *l, struct kv_req *req)
{
	unsigned kinds = views_looked_at(req);
	int outcome = KV_DONE, r;

	if (!(kinds & VIEW_SESSION))
		r = read_durable(l, req, &outcome);
	else if (!(kinds & VIEW_DURABLE))
		r = read_session(l, req, &outcome);
	else
		r = read_both(l, req, kinds, &outcome);
	return r < 0 ? r : outcome;
}

/* Rows lie in their page in no order: who goes through them waits for each, unless all of the page
 * is asked for when the first one is met. (A page that is not at a multiple of its size, or a
 * large value, has a few lines asked for in vain.) */
struct scan {
	view_visit *visit;
	void *arg;
	uintptr_t page_bytes, page;
};

static int scan_row(void *arg, const struct kv_row *row)
{
	struct scan *s = arg;
	uintptr_t page = (uintptr_t)row->key.p & ~(s->page_bytes - 1);

	for (uintptr_t at = page; s->page != page && at < page + s->page_bytes; at += 64)
		__builtin_prefetch((const void *)at);
	s->page = page;
	return s->visit(s->arg, row);
}

int lmdb_scan(struct kv *kv, struct bytes from, struct bytes to, view_visit *visit, void *arg)
{
	struct lmdb *l = (struct lmdb *)kv;
	struct lmdb_reader *reader;
	int r = lmdb_env_is_forked(&l->env) ? -EIO : durable_reader(l, &reader);

	if (r < 0)
		return r;
	struct lmdb_view v = lmdb_view_of_reader(&l->env, reader);
	struct scan s = { visit, arg, l->env.page_bytes, 0 };
	r = v.view.scan(&v.view, from, to, scan_row, &s);
	lmdb_reader_put(&l->env, reader);
	return r;
}
