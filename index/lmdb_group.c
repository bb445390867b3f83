/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group. All its requests are evaluated in order against one LMDB transaction
 * and the session keys with the group's own changes over them (`pending`); so
 * each sees what those before it wrote. Then one commit, if a durable key was
 * written. If something fails (the map is full), LMDB's transaction and
 * `pending` are thrown away, and each request is done again in a group of its
 * own, so that one that does not fit, or that who observes refuses, fails alone.
 * (A map may also seem full because pages that were just freed cannot be used
 * yet: lmdb_make_room().)
 *
 * The reserve. Requests are refused with -ENOSPC before they can bring free
 * pages below `reserve_pages`, unless they say that they free something: also
 * deleting copies pages first.
 */
#include <errno.h>

#include "common/crash.h"
#include "common/metrics.h"
#include "index/lmdb_priv.h"

enum {
	REVISIONS_STEP = 1 << 20,/* reserved at once */
	WRITE_SLACK_PAGES = 8,   /* that a request needs for splits on its way */
};

static int group_begin(struct lmdb *l, struct lmdb_group *g)
{
	unsigned writes = 0, looks = 0;
	int r = 0;

	for (unsigned i = 0; i < g->n; i++) {
		writes |= views_written(g->reqs[i]);
		looks |= views_looked_at(g->reqs[i]);
		looks |= g->reqs[i]->needs_room ? VIEW_DURABLE : 0;
	}
	g->is_dirty = false;
	if (writes && l->revision + g->n > l->env.revisions)
		r = lmdb_reserve_revisions(&l->env, l->revision + g->n + REVISIONS_STEP);
	if (r < 0)
		return r;
	if (writes & VIEW_DURABLE) {
		r = lmdb_error(mdb_txn_begin(l->env.env, NULL, 0, &g->txn));
		g->durable = lmdb_view_of_txn(&l->env, g->txn);
	} else if (looks & VIEW_DURABLE) {
		r = lmdb_reader_get(&l->env, &g->reader);
		if (!r)
			g->durable = lmdb_view_of_reader(&l->env, g->reader);
	}
	return r;
}

static void group_end(struct lmdb *l, struct lmdb_group *g)
{
	lmdb_view_fini(&g->durable);
	lmdb_reader_put(&l->env, g->reader);
	if (g->txn)
		mdb_txn_abort(g->txn);
	ordered_clear(&g->pending);
	g->txn = NULL;
	g->reader = NULL;
}

/* 0: it fits, with the reserve left free. */
static int check_room(struct lmdb *l, struct lmdb_group *g, const struct kv_req *req)
{
	uint64_t pages = WRITE_SLACK_PAGES, used, keys;
	bool puts = false;
	int r;

	for (uint32_t i = 0; i < req->nwrites; i++) {
		if (kv_key_is_session(req->writes[i].key))
			continue;
		pages += lmdb_pages_for(&l->env, &req->writes[i]);
		puts |= req->writes[i].value.p != NULL;
	}
	if (!req->needs_room && (!puts || req->reserve))
		return 0;
	if (req->needs_room && pages < LMDB_FULL_SLACK_PAGES)
		pages = LMDB_FULL_SLACK_PAGES;
	r = lmdb_used(&l->env, g->txn ? g->txn : g->reader->txn, &used, &keys);
	if (r < 0)
		return r;
	return used + pages + l->reserve_pages > l->total_pages ? -ENOSPC : 0;
}

/* The row as it is, with what the group has written so far, is about to change. */
static int observe(struct lmdb *l, struct lmdb_group *g, struct view *v, const struct kv_write *w)
{
	struct kv_row old = { 0 };

	if (!kv_is_observed(&l->kv, w->key))
		return 0;
	int r = v->get(v, w->key, &old);
	if (r < 0)
		return r;
	g->is_observed = true;
	return kv_observe_write(&l->kv, w->key, r ? BYTES_NONE : old.value, w->value);
}

static int make_session_rows(struct lmdb *l, struct lmdb_group *g, const struct kv_req *req)
{
	struct view_ordered now = view_of(&l->session, &g->pending);

	for (uint32_t i = 0; i < req->nwrites; i++) {
		const struct kv_write *w = &req->writes[i];
		struct ordered_row *row;

		if (!kv_key_is_session(w->key))
			continue;
		int r = observe(l, g, &now.view, w);
		if (!r)
			r = ordered_row_new(w->key, w->value, req->revision, &row);
		if (r < 0)
			return r;
		ordered_insert(&g->pending, row);
	}
	return 0;
}

/* A failure in here leaves half of req in the group, which is thrown away. */
static int write_all(struct lmdb *l, struct lmdb_group *g, struct kv_req *req)
{
	req->revision = ++l->revision;
	for (uint32_t i = 0; i < req->nwrites; i++) {
		if (kv_key_is_session(req->writes[i].key))
			continue;
		int r = observe(l, g, &g->durable.view, &req->writes[i]);
		if (!r)
			r = lmdb_write(&l->env, g->txn, &req->writes[i], req->revision);
		if (r < 0)
			return r;
		g->is_dirty = true;
	}
	return make_session_rows(l, g, req);
}

/* What becomes of req alone goes to *ret_outcome; negative: of the group. */
static int evaluate(struct lmdb *l, struct lmdb_group *g, struct kv_req *req,
		    int *ret_outcome)
{
	struct view_ordered session = view_of(&l->session, &g->pending);
	struct views views = { &g->durable.view, &session.view };
	int r = kv_req_given_up(req);

	if (!r)
		r = views_compare(&views, req, VIEW_ANY);
	if (r == KV_DONE && req->nwrites)
		r = check_room(l, g, req);
	*ret_outcome = r;
	if (r < 0)
		return 0;
	if (r == KV_DONE && req->nwrites)
		return write_all(l, g, req);
	r = views_read(&views, req, VIEW_ANY);
	if (r < 0)
		*ret_outcome = r;
	return 0;
}

/* Commits, and makes what was pending the session's keys. */
static int group_commit(struct lmdb *l, struct lmdb_group *g)
{
	bool changes_session = g->pending.n;
	int64_t before = (int64_t)l->session.n;
	uint64_t used, keys;
	int r = 0;

	if (g->is_dirty) {
		lmdb_view_fini(&g->durable);
		r = lmdb_used(&l->env, g->txn, &used, &keys);
		if (r < 0)
			return r;
		crash_point(CRASH_INDEX_BEFORE_COMMIT);
		if (changes_session)
			atomic_store(&l->behind, mdb_txn_id(g->txn));
		r = lmdb_commit(&l->env, g->txn);
		g->txn = NULL;
		crash_point(CRASH_INDEX_AFTER_COMMIT);
	}
	if (!r && g->is_dirty) {
		metric_add(M_INDEX_COMMITS, 1);
		metric_set(M_INDEX_BYTES, (int64_t)(used * l->env.page_bytes));
	}
	if (!changes_session)
		return r;
	WITH_LOCK(&l->state_lock);
	if (!r)
		ordered_apply(&l->session, &g->pending);
	metric_add(M_SESSION_KEYS, (int64_t)l->session.n - before);
	atomic_store(&l->behind, LMDB_NOT_BEHIND);
	pthread_cond_broadcast(&l->applied);
	return r;
}

/* 0: outcomes are set. Negative: nothing happened, as if it had not been tried. */
static int group_try(struct lmdb *l, struct lmdb_group *g)
{
	int r = group_begin(l, g);

	for (unsigned i = 0; !r && i < g->n; i++)
		r = evaluate(l, g, g->reqs[i], &g->outcomes[i]);
	if (!r)
		r = group_commit(l, g);
	if (g->is_observed)
		kv_observe_end(&l->kv, !r);
	g->is_observed = false;
	group_end(l, g);
	for (unsigned i = 0; r && i < g->n; i++) {
		kv_req_fini(g->reqs[i]);
		g->reqs[i]->revision = 0;
		g->outcomes[i] = r;
	}
	return r;
}

static int group_try_twice(struct lmdb *l, struct lmdb_group *g)
{
	int r = group_try(l, g);

	return r == -ENOSPC && !lmdb_make_room(&l->env) ? group_try(l, g) : r;
}

void lmdb_group_run(struct lmdb *l, struct lmdb_group *g)
{
	int r = group_try_twice(l, g);

	for (unsigned i = 0; r && g->n > 1 && i < g->n; i++) {
		struct lmdb_group alone = { .reqs = { g->reqs[i] }, .n = 1 };

		group_try_twice(l, &alone);
		g->outcomes[i] = alone.outcomes[0];
	}
}

void lmdb_group_done(struct lmdb *l, struct lmdb_group *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		struct kv_req *req = g->reqs[i];

		if (!req->nwrites)
			continue;
		if (g->outcomes[i] == KV_CONFLICT)
			metric_add(M_INDEX_CONFLICTS, 1);
		if (g->outcomes[i] != KV_DONE)
			continue;
		metric_add(M_INDEX_TXNS, 1);
		kv_ring(&l->kv, req);
	}
	for (unsigned i = 0; i < g->n; i++)
		kv_req_done(&l->kv, g->reqs[i], g->outcomes[i]);
}
