/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Demoting. A batch of victims is pinned, their pages are written straight out of the pool,
 * many objects' to one write, and then each record says that its bytes are on the disk.
 *
 *	read the record, pin --> take pages of the log, write --> all written --> index_move()
 *	                                                      '-> too late: `stuck`
 *
 * The hard idea is whom a slow disk holds up: nobody. Who waits for room waits for a batch
 * as long as it has been told to, and the batch is made as long as the disk was fast lately. Where
 * nobody waits for room others do for the thread (what has lived long enough, quotas, directories):
 * so it waits longer, but not for ever.
 * What is not written by then is evicted as if there were no disk. Its writes are out,
 * though, and lend pages of the pool to the kernel until they end (I9): so the batch and its
 * pins stay, and nothing else is given to the disk before it has come to its end.
 *
 * Bytes are not synced here: the journal does that before it names them (tier_journal.h).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/tier_priv.h"

enum {
	REST_MS = 1000,         /* after an error */
	BUDGET_MAX = 16384,     /* pages of a batch: 64 MiB */
	MEASURE_PAGES = 64,     /* that are written, at least, to measure it */
	BEGIN_PAGES_PER_MS = 64,/* 256 MiB/s, before it was measured */
};

struct out_write {
	struct disk_req req;
	struct slice_run run;
	unsigned niov;
	struct iovec iov[OUT_PAGES];
};

struct out_victim {
	struct tier_victim *v;
	struct index_op op;       /* its record */
	struct extents x;         /* what it becomes; */
	struct slice_id *pinned;  /* what it was, and how many */
	uint32_t npinned;
	uint32_t first, end;      /* its writes */
	bool is_there;            /* as its copy, and nothing is to be written */
	int r;
};

struct out_batch {
	struct tier *t;
	struct out_victim v[TIER_MAX];
	unsigned n;
	struct out_write **writes;
	size_t nwrites, cap;
	size_t nsent;
	uint64_t begun_ns;
	struct patience patience;
	uint64_t pages;
	bool full; /* room was made in vain */
	bool late;
};

/* Why it does not go to the disk. */
static int not_now(enum metric reason)
{
	metric_add(reason, 1);
	return TIER_NOT;
}

/* Pins --------------------------------------------------------------------------------- */

static int pin(struct tier *t, const struct extent *x)
{
	struct slice_id id = { x->slice, x->gen };
	struct pool *p = t->e->pool;
	struct slice_view v;

	if (x->pool_id != pool_id(p) || pool_pin(p, id) < 0)
		return -EBUSY;
	if (pool_next(p, id.page, &v) && v.id.page == id.page && v.npages == x->slice_pages)
		return 0;
	pool_unpin(p, id);
	return -EBUSY;
}

static int pin_all(struct tier *t, struct out_victim *o)
{
	o->pinned = calloc(o->x.n ? o->x.n : 1, sizeof(*o->pinned));
	if (!o->pinned)
		return -ENOMEM;
	for (uint32_t i = 0; i < o->x.n; i++) {
		int r = pin(t, &o->x.v[i]);
		if (r < 0)
			return r;
		o->pinned[o->npinned++] = (struct slice_id){ o->x.v[i].slice, o->x.v[i].gen };
	}
	return 0;
}

static void victim_fini(struct tier *t, struct out_victim *o)
{
	for (uint32_t i = 0; i < o->npinned; i++)
		pool_unpin(t->e->pool, o->pinned[i]);
	free(o->pinned);
	extents_fini(&o->x);
	index_op_fini(&o->op);
}

static void batch_free(struct out_batch *b)
{
	for (unsigned i = 0; i < b->n; i++)
		victim_fini(b->t, &b->v[i]);
	for (size_t i = 0; i < b->nwrites; i++) {
		tier_log_leave(b->t->log, &b->writes[i]->run);
		free(b->writes[i]);
	}
	free(b->writes);
	free(b);
}

/* Writes ----------------------------------------------------------------------------------- */

/* One ends, or it is too late: false. */
static bool reap(struct out_batch *b)
{
	struct disk_req *q;
	int r = -ETIMEDOUT;

	while (r == -ETIMEDOUT && !patience_over(b->t, &b->patience))
		r = tier_reap(b->t, b->t->out, patience_look(b->t, &b->patience), &q);
	b->late = r < 0;
	return !b->late;
}

static void send_last(struct out_batch *b)
{
	struct tier *t = b->t;

	while (b->nsent < b->nwrites && !b->late) {
		struct out_write *w = b->writes[b->nsent];
		if (t->out->out == OUT_DEPTH && !reap(b))
			return;
		w->req = (struct disk_req){
			.write = true, .off = w->run.id.page * (uint64_t)PAGE_BYTES,
			.bytes = w->run.npages * (uint64_t)PAGE_BYTES,
			.iov = w->iov, .niov = w->niov,
		};
		int r = disk_submit(t->out, &w->req);
		if (r < 0)
			w->req.result = r;
		b->nsent++;
	}
}

/* The one that these pages go on; a new one if they do not follow. Nothing names what is written yet:
 * so the segment is held, for others are cleared meanwhile. */
static int write_for(struct out_batch *b, struct slice_id at, uint32_t npages, struct out_write **ret)
{
	struct out_write *w = b->nwrites > b->nsent ? b->writes[b->nwrites - 1] : NULL;
	struct slice_run both = w ? w->run : (struct slice_run){ 0 };

	both.npages += npages;
	/* Longer than a slice, or in two segments: that is no run. */
	if (w && w->run.id.page + w->run.npages == at.page && !tier_log_check(b->t->log, &both)) {
		*ret = w;
		return 0;
	}
	send_last(b);
	if (b->late)
		return -ETIMEDOUT;
	if (array_room(b->writes, b->cap, b->nwrites + 1, 16) < 0)
		return -ENOMEM;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->run = (struct slice_run){ at, npages };
	int r = tier_log_enter(b->t->log, &w->run);
	assert(!r); /* the segment is the current one */
	w->run.npages = 0;
	w->niov = 0;
	w->req.result = -EIO;
	b->writes[b->nwrites++] = *ret = w;
	return 0;
}

static void add_pages(struct out_write *w, uint8_t *from, uint32_t npages)
{
	struct iovec *last = w->niov ? &w->iov[w->niov - 1] : NULL;
	size_t len = npages * (size_t)PAGE_BYTES;

	w->run.npages += npages;
	if (last && (uint8_t *)last->iov_base + last->iov_len == from)
		last->iov_len += len;
	else
		w->iov[w->niov++] = (struct iovec){ from, len };
}

/* Pages of the log for one extent. What is ahead may be too little for what is large; but not most of
 * what there is leaves for one, nor is the time for writing used up by it. */
static int take(struct out_batch *b, const struct policy_object *p, uint32_t npages,
		struct slice_id *ret)
{
	struct tier_log *l = b->t->log;
	int r = tier_log_take(l, npages, p->fileid, ret);

	if (r != TIER_FULL || b->full || p->pages > tier_log_pages(l) / 2)
		return r;
	struct patience half = b->patience;
	uint64_t now = clock_ns();
	half.until_ns -= half.until_ns > now ? (half.until_ns - now) / 2 : 0;
	half.less_ns /= 2;
	b->full = tier_make_room(b->t, &half) < SLICE_PAGES_MAX;
	return b->full ? r : tier_log_take(l, npages, p->fileid, ret);
}

/* The extent's pages on their way; it is what it will be. */
static int add_extent(struct out_batch *b, const struct policy_object *p, struct extent *x)
{
	struct tier *t = b->t;
	uint8_t *slice = pool_page(t->e->pool, x->slice);
	uint8_t *from = slice + x->slice_off * (uint64_t)PAGE_BYTES;
	struct out_write *w;
	struct slice_id at;
	int r = tier_body_alone(x, slice);

	if (!r)
		r = take(b, p, x->npages, &at);
	if (!r)
		r = write_for(b, at, x->npages, &w);
	if (r)
		return r;
	add_pages(w, from, x->npages);
	x->pool_id = tier_log_id(t->log);
	x->slice = at.page;
	x->gen = at.gen;
	b->pages += x->npages;
	return 0;
}

/* Victims ------------------------------------------------------------------------------------- */

int tier_go_back(struct tier *t, const struct index_op *record)
{
	struct index_op op = { .fileid = record->fileid, .place = record->entry.place,
			       .attr.away = true, .value = record->entry.body.bytes };

	if (!record->entry.copy.len)
		return INDEX_MISS;
	int r = index_wait(t->e->ix, &op, index_move);
	crash_point(CRASH_DISK_MOVED);
	if (!r) {
		metric_add(M_DISK_DEMOTED, 1);
		engine_drop(t->e, &op.gone);
	}
	index_op_fini(&op);
	return r;
}

static int read_victim(struct tier *t, struct out_victim *o)
{
	const struct policy_object *p = &o->v->object;

	o->op = (struct index_op){ .fileid = p->fileid, .place = o->v->place };
	int r = index_wait(t->e->ix, &o->op, index_stat);
	if (!r && o->op.entry.attr.away)
		r = -EBUSY;
	o->is_there = !r && !tier_go_back(t, &o->op);
	if (o->is_there)
		return 0;
	if (!r)
		r = tier_body_read(t->e->ix, p->fileid, &o->op.entry.body, &o->x);
	if (r == -E2BIG)
		return not_now(M_DISK_NOT_LARGE);
	if (!r)
		r = pin_all(t, o);
	return r > 0 ? -EBUSY : r;
}

static int why_not(int r)
{
	switch (r) {
	case TIER_FULL:
		return not_now(M_DISK_NOT_FULL);
	case -ETIMEDOUT:
		return not_now(M_DISK_NOT_SLOW);
	case -EIO: /* its bytes in memory are not what they were */
		return -EBUSY;
	}
	return not_now(M_DISK_NOT_FAILED);
}

static void add_victim(struct out_batch *b, struct tier_victim *v)
{
	struct out_victim *o = &b->v[b->n++];

	*o = (struct out_victim){ .v = v };
	o->r = read_victim(b->t, o);
	if (o->r || o->is_there)
		return;
	o->first = (uint32_t)(b->nwrites > b->nsent ? b->nwrites - 1 : b->nwrites);
	int r = 0;
	for (uint32_t i = 0; !r && i < o->x.n; i++)
		r = add_extent(b, &v->object, &o->x.v[i]);
	o->end = (uint32_t)b->nwrites;
	if (r)
		o->r = why_not(r);
}

/* The first error among its writes. */
static int written(struct out_batch *b, const struct out_victim *o)
{
	for (uint32_t i = o->first; i < o->end; i++)
		if (b->writes[i]->req.result < 0)
			return b->writes[i]->req.result;
	return 0;
}

static int move(struct tier *t, struct out_victim *o)
{
	struct made_body m;
	int r = tier_body_make(t->e->ix, o->op.fileid, &o->x, true, &m);

	if (r < 0)
		return r == -E2BIG ? not_now(M_DISK_NOT_LARGE) : not_now(M_DISK_NOT_FAILED);
	struct index_op op = { .fileid = o->op.fileid, .place = o->op.place, .body = m.body,
			       .attr.away = true, .value = o->op.entry.body.bytes };
	r = index_wait(t->e->ix, &op, index_move);
	crash_point(CRASH_DISK_MOVED);
	tier_body_made(t->e->ix, o->op.fileid, &m, !r);
	if (!r)
		engine_drop(t->e, &op.gone);
	index_op_fini(&op);
	if (r == -ENOSPC || r == -ENOMEM || r == -E2BIG)
		return not_now(M_DISK_NOT_FAILED);
	if (!r) {
		metric_add(M_DISK_DEMOTED, 1);
		metric_add(M_DISK_WRITTEN, (int64_t)o->v->object.pages * PAGE_BYTES);
	}
	return r > 0 ? -EBUSY : r;
}

static void failed(struct tier *t, int r)
{
	metric_add(M_DISK_FAILED_WRITE, 1);
	log_error("disk", "%s/data: cannot write: %s; what would go there is evicted", t->path,
		  error_text(r));
	t->rests_ns = clock_ns() + REST_MS * NS_PER_MS;
}

static void settle(struct out_batch *b)
{
	struct tier *t = b->t;
	int error = 0;

	crash_point(CRASH_DISK_WRITTEN);
	if (b->pages)
		journal_data(t->journal);
	for (unsigned i = 0; i < b->n; i++) {
		struct out_victim *o = &b->v[i];
		int r = o->r ? 0 : written(b, o);
		if (r < 0) {
			error = r;
			o->r = not_now(M_DISK_NOT_FAILED);
		}
		bool moves = !o->r && !o->is_there;
		o->v->outcome = moves ? move(t, o) : o->r;
		t->came += moves && !o->v->outcome;
	}
	if (error)
		failed(t, error);
}

/* How fast it is; of little it cannot be told, so of several batches where they are small, as they are
 * when it was slow. */
static void measure(struct out_batch *b)
{
	struct tier *t = b->t;

	t->measured_pages += b->pages;
	t->measured_ns += b->pages ? clock_ns() - b->begun_ns : 0;
	if (t->measured_pages < MEASURE_PAGES || !t->measured_ns)
		return;
	double now = (double)t->measured_pages / (double)t->measured_ns;
	t->pages_per_ns += (now - t->pages_per_ns) / 2;
	t->measured_pages = t->measured_ns = 0;
}

/* Its victims go as if there were no disk; what is lent to it is not forgotten. */
static void become_stuck(struct out_batch *b)
{
	struct tier *t = b->t;

	log_warn("disk", "%s/data is slow: %u objects that were to go there were not written in time, "
		 "and are evicted", t->path, b->n);
	t->pages_per_ns /= 2;
	t->measured_pages = t->measured_ns = 0;
	for (unsigned i = 0; i < b->n; i++) {
		struct out_victim *o = &b->v[i];
		o->v->outcome = o->r ? o->r : o->is_there ? 0 : not_now(M_DISK_NOT_SLOW);
		o->v->lent = o->npinned && t->out->out;
		o->v = NULL;
	}
	if (t->out->out)
		t->stuck = b;
	else
		batch_free(b);
}

void tier_demote(struct tier *t, struct tier_victim *v, unsigned n, uint64_t since_ns)
{
	struct out_batch *b = calloc(1, sizeof(*b));

	assert(!t->stuck && n <= TIER_MAX);
	for (unsigned i = 0; i < n; i++)
		v[i].outcome = TIER_NOT;
	if (!b) {
		metric_add(M_DISK_NOT_FAILED, n);
		return;
	}
	b->t = t;
	b->begun_ns = clock_ns();
	b->patience = patience_for(since_ns, t->wait_ms * NS_PER_MS);
	for (unsigned i = 0; i < n && !b->late; i++)
		add_victim(b, &v[i]);
	send_last(b);
	while (!b->late && t->out->out)
		reap(b);
	if (b->late) {
		metric_add(M_DISK_NOT_SLOW, n - b->n);
		become_stuck(b);
		return;
	}
	measure(b);
	settle(b);
	batch_free(b);
}

/* Has what was too late come to its end by now? */
static bool is_free(struct tier *t)
{
	struct disk_req *q;

	while (t->stuck && t->out->out)
		if (disk_reap(t->out, 1, &q))
			return false;
	if (t->stuck) {
		batch_free(t->stuck);
		t->stuck = NULL;
	}
	return true;
}

/* What it takes now --------------------------------------------------------------------------- */

static uint64_t none_now(struct tier *t, enum metric reason)
{
	t->reason = reason;
	return 0;
}

uint64_t tier_budget(struct tier *t, bool waited)
{
	uint64_t now = clock_ns(), wait_ns = t->wait_ms * NS_PER_MS, ns = wait_ns / 4;
	struct patience p = patience_for(waited ? now : 0, wait_ns / 2);

	if (now < t->rests_ns || !journal_has(t->journal, 0))
		return none_now(t, M_DISK_NOT_FAILED);
	if (!is_free(t))
		return none_now(t, M_DISK_NOT_SLOW);
	tier_clear_as_many(t, waited ? CLEAR_LOT / 4 : CLEAR_LOT, now + ns);
	uint64_t most = tier_make_room(t, &p), took_ns = clock_ns() - now;
	if (!most)
		return none_now(t, M_DISK_NOT_FULL);
	if (waited) /* half of what is left of it */
		ns = took_ns < wait_ns ? (wait_ns - took_ns) / 2 : 0;
	uint64_t pages = (uint64_t)(t->pages_per_ns * (double)ns) + 1;
	if (pages > BUDGET_MAX)
		pages = BUDGET_MAX;
	return pages < most ? pages : most;
}

void tier_passed(struct tier *t, unsigned n)
{
	metric_add(t->reason, n);
}

void tier_tend(struct tier *t)
{
	if (is_free(t))
		tier_clear(t, CLEAR_LOT / 4, UINT64_MAX);
}

int tier_out_begin(struct tier *t)
{
	t->pages_per_ns = BEGIN_PAGES_PER_MS / (double)NS_PER_MS;
	return tier_disk(t, OUT_DEPTH, &t->out);
}

void tier_out_end(struct tier *t)
{
	struct disk_req *q;
	int r = 0;

	while (t->stuck && t->out->out && (!r || r == -ETIMEDOUT))
		r = tier_reap(t, t->out, tier_next_look(), &q);
	if (t->stuck)
		batch_free(t->stuck);
	t->stuck = NULL;
	t->out = disk_close(t->out);
}
