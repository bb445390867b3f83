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
 * What a group is: lmdb_group.c. Requests that only read take no part in this:
 * lmdb_read.c.
 */
#include <errno.h>

#include "common/metrics.h"
#include "index/lmdb_priv.h"

enum {
	TERM_GROUPS = 8,         /* groups that one thread commits in a row */
	RESERVE_BYTES = 5 << 20, /* what the largest request may copy, or 2 %;
				    a quarter of a small map */
};

/* Whose done()s the innermost lead() of this thread is calling. */
static _Thread_local struct lmdb *leading;

static struct lmdb *lmdb_of(struct kv *kv)
{
	return (struct lmdb *)kv;
}

/* Who commits -------------------------------------------------------------------- */

/* Takes the next ones off the queue; the caller leads and holds queue_lock. */
static void take_group(struct lmdb *l, struct lmdb_group *g)
{
	g->n = 0;
	while (l->first && g->n < LMDB_GROUP_MAX) {
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
		struct lmdb_group g = { 0 };

		{
			WITH_LOCK(&l->queue_lock);
			take_group(l, &g);
			l->is_tired = groups >= TERM_GROUPS;
		}
		lmdb_group_run(l, &g);
		{
			WITH_LOCK(&l->queue_lock);
			give_up_lead(l);
		}
		leading = l;
		lmdb_group_done(l, &g);
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
		r = lmdb_read(l, req);
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
		.room_bytes = (l->total_pages - l->reserve_pages) * l->env.page_bytes,
		.keys = keys,
		.session_keys = l->session.n,
		.full = pages + LMDB_FULL_SLACK_PAGES + l->reserve_pages > l->total_pages,
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

/* Between two groups, so that none of them has seen half of it. */
static int lmdb_session_end(struct kv *kv, uint64_t session)
{
	struct lmdb *l = lmdb_of(kv);

	if (lmdb_env_is_forked(&l->env))
		return -EIO;
	begin_to_lead(l);
	{
		WITH_LOCK(&l->state_lock);
		int64_t before = (int64_t)l->session.n;
		ordered_end_session(&l->session, session, kv);
		metric_add(M_SESSION_KEYS, (int64_t)l->session.n - before);
	}
	lead(l);
	kv_ring_session_end(kv);
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

static const struct bytes *lmdb_marks(struct kv *kv, unsigned *ret_n)
{
	const struct lmdb_shape *shape = &lmdb_of(kv)->env.shape;

	*ret_n = shape->nmarks;
	return shape->marks;
}

static const struct kv_ops lmdb_ops = {
	.name = "lmdb",
	.submit = lmdb_submit,
	.caps = kv_local_caps,
	.stat = lmdb_stat,
	.session_end = lmdb_session_end,
	.observes = true,
	.scan = lmdb_scan,
	.marks = lmdb_marks,
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
	l->behind = LMDB_NOT_BEHIND;
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
