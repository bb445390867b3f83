/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index engine on LMDB. Its hard idea: requests that write are committed in
 * groups, by the threads that submit them.
 *
 * Who commits. A submitter puts its request into the queue. If nobody commits
 * it becomes the one who does ("leads"); else it leaves, and its request is
 * somebody else's business. Nothing is ever stranded, because
 *
 *   - a leader that has committed a group gives the lead up *before* it calls
 *     that group's done()s, so that the next submitter can lead meanwhile (also
 *     one in kv_wait() below such a done()),
 *   - and looks at the queue again after them: if something is there and nobody
 *     leads, it leads again. It goes only when the queue is empty or another
 *     one leads.
 *
 * So that no thread leads for ever while others submit, one that has done
 * TERM_GROUPS groups is `tired`: the next submitter then waits for the group
 * under way to end, and is given the lead. What a done() submits to the engine
 * that called it is left to the loop around that done(): no recursion.
 *
 * A group. All its requests are evaluated in order against one LMDB transaction
 * and the session keys with the group's own changes over them (`pending`); so
 * each sees what those before it wrote. Then one commit, if a durable key was
 * written. If something fails (the map is full), LMDB's transaction and
 * `pending` are thrown away, and each request is done again in a group of its
 * own, so that one that does not fit fails alone. (A map may also seem full
 * because pages that were just freed cannot be used yet: lmdb_make_room().)
 *
 * What readers see. Those who only read do so in their own thread, at an LMDB
 * snapshot. Session keys change right after the commit, under state_lock. Until
 * then `behind` has the commit's number: a reader whose snapshot has that
 * commit waits for it to pass. So a commit happens, for everybody, at the moment
 * when `behind` is reset.
 *
 * The reserve. Requests are refused with -ENOSPC before they can bring free
 * pages below `reserve_pages`, unless they say that they free something: also
 * deleting copies pages first.
 */
#include <errno.h>

#include "common/crash.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "index/lmdb_rows.h"

enum {
	GROUP_MAX = 64,          /* requests in one commit */
	TERM_GROUPS = 8,         /* groups that one thread commits in a row */
	REVISIONS_STEP = 1 << 20,/* reserved at once */
	WRITE_SLACK_PAGES = 8,   /* that a request needs for splits on its way */
	FULL_SLACK_PAGES = 32,   /* free above the reserve when kv_stat says full:
				    for what was begun before */
	RESERVE_BYTES = 5 << 20, /* what the largest request may copy, or 2 %;
				    a quarter of a small map */
};

#define NOT_BEHIND UINT64_MAX

struct lmdb {
	struct kv kv;
	struct lmdb_env env;
	uint64_t reserve_pages, total_pages;

	struct lock queue_lock; /* guards to `closing` */
	pthread_cond_t turn;    /* the lead is offered, or a leader has gone */
	struct kv_req *first, **last;
	bool is_led, is_tired;
	bool is_offered;        /* led, by the first heir that wakes up */
	unsigned heirs;         /* wait to be given the lead */
	unsigned inside;        /* threads that lead, will, or did and are not gone */

	struct lock state_lock; /* who changes `session` leads, and holds this */
	pthread_cond_t applied;
	struct ordered session;
	_Atomic uint64_t behind; /* set by who leads */

	uint64_t revision; /* the last one given; who leads */
};

struct group {
	struct kv_req *reqs[GROUP_MAX];
	int outcomes[GROUP_MAX];
	unsigned n;

	/* While it is evaluated: */
	MDB_txn *txn;               /* if it may write durable keys */
	struct lmdb_reader *reader; /* else, if it looks at some */
	struct lmdb_view durable;
	struct ordered pending;
	bool is_dirty;              /* durable keys were written */
};

/* Whose done()s the innermost lead() of this thread is calling. */
static _Thread_local struct lmdb *leading;

static struct lmdb *lmdb_of(struct kv *kv)
{
	return (struct lmdb *)kv;
}

/* A group ----------------------------------------------------------------------- */

static int group_begin(struct lmdb *l, struct group *g)
{
	unsigned writes = 0, looks = 0;
	int r = 0;

	for (unsigned i = 0; i < g->n; i++) {
		writes |= views_written(g->reqs[i]);
		looks |= views_looked_at(g->reqs[i]);
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

static void group_end(struct lmdb *l, struct group *g)
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
static int check_room(struct lmdb *l, struct group *g, const struct kv_req *req)
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
	if (!puts || req->reserve)
		return 0;
	r = lmdb_used(&l->env, g->txn, &used, &keys);
	if (r < 0)
		return r;
	return used + pages + l->reserve_pages > l->total_pages ? -ENOSPC : 0;
}

static int make_session_rows(struct group *g, const struct kv_req *req)
{
	for (uint32_t i = 0; i < req->nwrites; i++) {
		const struct kv_write *w = &req->writes[i];
		struct ordered_row *row;

		if (!kv_key_is_session(w->key))
			continue;
		int r = ordered_row_new(w->key, w->value, req->revision, &row);
		if (r < 0)
			return r;
		ordered_insert(&g->pending, row);
	}
	return 0;
}

/* A failure in here leaves half of req in the group, which is thrown away. */
static int write_all(struct lmdb *l, struct group *g, struct kv_req *req)
{
	req->revision = ++l->revision;
	for (uint32_t i = 0; i < req->nwrites; i++) {
		if (kv_key_is_session(req->writes[i].key))
			continue;
		int r = lmdb_write(&l->env, g->txn, &req->writes[i], req->revision);
		if (r < 0)
			return r;
		g->is_dirty = true;
	}
	return make_session_rows(g, req);
}

/* What becomes of req alone goes to *ret_outcome; negative: of the group. */
static int evaluate(struct lmdb *l, struct group *g, struct kv_req *req,
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
static int group_commit(struct lmdb *l, struct group *g)
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
	atomic_store(&l->behind, NOT_BEHIND);
	pthread_cond_broadcast(&l->applied);
	return r;
}

/* 0: outcomes are set. Negative: nothing happened, as if it had not been tried. */
static int group_try(struct lmdb *l, struct group *g)
{
	int r = group_begin(l, g);

	for (unsigned i = 0; !r && i < g->n; i++)
		r = evaluate(l, g, g->reqs[i], &g->outcomes[i]);
	if (!r)
		r = group_commit(l, g);
	group_end(l, g);
	for (unsigned i = 0; r && i < g->n; i++) {
		kv_req_fini(g->reqs[i]);
		g->reqs[i]->revision = 0;
		g->outcomes[i] = r;
	}
	return r;
}

static int group_try_twice(struct lmdb *l, struct group *g)
{
	int r = group_try(l, g);

	return r == -ENOSPC && !lmdb_make_room(&l->env) ? group_try(l, g) : r;
}

static void group_run(struct lmdb *l, struct group *g)
{
	int r = group_try_twice(l, g);

	for (unsigned i = 0; r && g->n > 1 && i < g->n; i++) {
		struct group alone = { .reqs = { g->reqs[i] }, .n = 1 };

		group_try_twice(l, &alone);
		g->outcomes[i] = alone.outcomes[0];
	}
}

/* Tells the outcomes. */
static void group_done(struct lmdb *l, struct group *g)
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
		kv_ring(&l->kv, req->writes, req->nwrites);
	}
	for (unsigned i = 0; i < g->n; i++)
		kv_req_done(&l->kv, g->reqs[i], g->outcomes[i]);
}

/* Who commits -------------------------------------------------------------------- */

/* Takes the next ones off the queue; the caller leads and holds queue_lock. */
static void take_group(struct lmdb *l, struct group *g)
{
	g->n = 0;
	while (l->first && g->n < GROUP_MAX) {
		g->reqs[g->n] = l->first;
		l->first = g->reqs[g->n++]->next;
	}
	if (!l->first)
		l->last = &l->first;
}

/* The caller leads, and holds queue_lock. */
static void give_up_lead(struct lmdb *l)
{
	l->is_tired = false;
	l->is_led = l->is_offered = l->heirs > 0;
	if (l->heirs)
		pthread_cond_broadcast(&l->turn);
}

/* Leads, and is counted as `inside`, when it returns; holds queue_lock. */
static void wait_for_lead(struct lmdb *l)
{
	l->inside++;
	l->heirs++;
	while (l->is_led && !l->is_offered)
		lock_wait(&l->queue_lock, &l->turn);
	l->heirs--;
	l->is_led = true;
	l->is_offered = false;
}

/* The caller leads, and has counted itself as `inside`. */
static void lead(struct lmdb *l)
{
	struct lmdb *outer = leading;
	bool goes_on = true;

	for (unsigned groups = 1; goes_on; groups++) {
		struct group g = { 0 };

		{
			WITH_LOCK(&l->queue_lock);
			take_group(l, &g);
			l->is_tired = groups >= TERM_GROUPS;
		}
		group_run(l, &g);
		{
			WITH_LOCK(&l->queue_lock);
			give_up_lead(l);
		}
		leading = l;
		group_done(l, &g);
		leading = outer;
		WITH_LOCK(&l->queue_lock);
		goes_on = !l->is_led && l->first;
		if (goes_on) {
			l->is_led = true;
		} else if (!--l->inside) {
			pthread_cond_broadcast(&l->turn); /* for close */
		}
	}
}

/* True: the caller is to lead. */
static bool enqueue(struct lmdb *l, struct kv_req *req)
{
	WITH_LOCK(&l->queue_lock);
	req->next = NULL;
	*l->last = req;
	l->last = &req->next;
	if (leading == l && kv_completing == &l->kv)
		return false; /* the loop around this done() will look */
	if (l->is_led && (!l->is_tired || l->heirs))
		return false;
	wait_for_lead(l);
	return true;
}

/* Reading ------------------------------------------------------------------------- */

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

static int read_durable(struct lmdb *l, struct kv_req *req, int *outcome)
{
	struct lmdb_reader *r;
	int rc = lmdb_reader_get(&l->env, &r);

	if (rc < 0)
		return rc;
	if (reader_is_ahead(l, r)) {
		WITH_LOCK(&l->state_lock);
		while (reader_is_ahead(l, r))
			lock_wait(&l->state_lock, &l->applied);
	}
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

/* -EAGAIN: there is no free reader slot. */
static int read_now(struct lmdb *l, struct kv_req *req)
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

/* Calls --------------------------------------------------------------------------- */

static void lmdb_submit(struct kv *kv, struct kv_req *req)
{
	struct lmdb *l = lmdb_of(kv);
	int r = -EAGAIN;

	if (lmdb_env_is_forked(&l->env))
		r = -EIO;
	else if (req->nwrites && l->env.read_only)
		r = -EROFS;
	else if (!req->nwrites)
		r = read_now(l, req);
	if (!req->nwrites && r != -EAGAIN)
		metric_add(M_INDEX_READS, 1);
	if (r != -EAGAIN) {
		kv_req_done(kv, req, r);
		return;
	}
	kv_req_fini(req);
	if (enqueue(l, req))
		lead(l);
}

static struct kv_caps lmdb_caps(struct kv *kv)
{
	(void)kv;
	return (struct kv_caps){ .max_compares = 1024, .max_writes = 1024,
				 .max_reads = 1024, .max_bytes = 1 << 20,
				 .alone = true };
}

static int lmdb_stat(struct kv *kv, struct kv_stat *ret)
{
	struct lmdb *l = lmdb_of(kv);
	struct lmdb_reader *reader;
	uint64_t pages, keys;
	int r = lmdb_env_is_forked(&l->env) ? -EIO : lmdb_reader_get(&l->env, &reader);

	if (r < 0)
		return r;
	r = lmdb_used(&l->env, reader->txn, &pages, &keys);
	lmdb_reader_put(&l->env, reader);
	if (r < 0)
		return r;
	WITH_LOCK(&l->state_lock);
	*ret = (struct kv_stat){
		.used_bytes = pages * l->env.page_bytes,
		.size_bytes = l->env.bytes,
		.keys = keys,
		.session_keys = l->session.n,
		.full = pages + FULL_SLACK_PAGES + l->reserve_pages > l->total_pages,
	};
	return 0;
}

/* For what only the one who leads may do. lead() afterwards does what was
 * queued meanwhile, and gives the lead up. */
static void begin_to_lead(struct lmdb *l)
{
	lock_assert_none();
	WITH_LOCK(&l->queue_lock);
	wait_for_lead(l);
}

static int lmdb_session_end(struct kv *kv)
{
	struct lmdb *l = lmdb_of(kv);

	begin_to_lead(l);
	{
		WITH_LOCK(&l->state_lock);
		metric_add(M_SESSION_KEYS, -(int64_t)l->session.n);
		ordered_clear(&l->session);
	}
	lead(l);
	return 0;
}

static int lmdb_check(struct kv *kv, struct writer *report)
{
	struct lmdb *l = lmdb_of(kv);
	uint64_t newest;

	if (lmdb_env_is_forked(&l->env))
		return -EIO;
	begin_to_lead(l);
	newest = l->env.revisions;
	lead(l);
	int bad = lmdb_check_rows(&l->env, newest, report);
	if (bad < 0)
		return bad;
	WITH_LOCK(&l->state_lock);
	return bad + ordered_check(&l->session, report);
}

static void lmdb_close(struct kv *kv)
{
	struct lmdb *l = lmdb_of(kv);

	if (lmdb_env_is_forked(&l->env))
		return; /* the parent's, with locks that its threads may hold */
	{
		WITH_LOCK(&l->queue_lock);
		while (l->inside) /* its last request may be done already */
			lock_wait(&l->queue_lock, &l->turn);
		assert(!l->first);
	}
	metric_add(M_SESSION_KEYS, -(int64_t)l->session.n);
	ordered_clear(&l->session);
	lmdb_env_fini(&l->env);
	lock_fini(&l->queue_lock);
	lock_fini(&l->state_lock);
	pthread_cond_destroy(&l->turn);
	pthread_cond_destroy(&l->applied);
	free(l);
}

static const struct kv_ops lmdb_ops = {
	.name = "lmdb",
	.submit = lmdb_submit,
	.caps = lmdb_caps,
	.stat = lmdb_stat,
	.session_end = lmdb_session_end,
	.check = lmdb_check,
	.close = lmdb_close,
};

static uint64_t reserve_bytes(uint64_t bytes)
{
	uint64_t reserve = bytes / 50;

	if (reserve < RESERVE_BYTES)
		reserve = RESERVE_BYTES;
	return reserve < bytes / 4 ? reserve : bytes / 4;
}

static void init(struct lmdb *l)
{
	struct kv_stat st;

	l->kv.ops = &lmdb_ops;
	l->last = &l->first;
	l->behind = NOT_BEHIND;
	lock_init(&l->queue_lock, LOCK_INDEX_QUEUE);
	lock_init(&l->state_lock, LOCK_INDEX_STATE);
	pthread_cond_init(&l->turn, NULL);
	pthread_cond_init(&l->applied, NULL);
	l->revision = l->env.revisions;
	l->total_pages = l->env.bytes / l->env.page_bytes;
	l->reserve_pages = reserve_bytes(l->env.bytes) / l->env.page_bytes;
	metric_set(M_INDEX_SIZE, (int64_t)l->env.bytes);
	if (!lmdb_stat(&l->kv, &st))
		metric_set(M_INDEX_BYTES, (int64_t)st.used_bytes);
}

int kv_lmdb_open(const struct kv_lmdb_opts *opts, struct kv **ret)
{
	struct lmdb *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	r = lmdb_env_open(&l->env, opts);
	if (r < 0) {
		lmdb_env_fini(&l->env);
		free(l);
		return r;
	}
	init(l);
	*ret = &l->kv;
	return 0;
}
