/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coming back. Who opens an object that is away waits in a list of those who want it; one of
 * these threads reads all of it into slices of its own, compares it with its sums, and has
 * the record name them. All who wait are answered while the slices are pinned still.
 *
 *	read the record, hold its segments --> take slices --> read, compare --> seal,
 *	index_move() --> the journal has it --> answers
 *
 * The segments are held so that what is read is not written over meanwhile; the object itself
 * may be evicted, unlinked or replaced: then index_move() says so, and whoever waits looks again.
 * It stays on the disk, too, as its copy, until somebody is going to write it; that the journal
 * has the end of that before he has an answer is what keeps an older version from coming back
 * after a power loss: tier_journal.h. One recall at a time is at an object, which that rests on
 * (tests/model/copy.pml).
 *
 * Where there is no room, one object at a time has some and waits for more; others give back
 * what they have, and wait for their turn. Else several would have all there is, and none enough.
 *
 * A disk that does not answer holds a thread; whoever waits is answered when his time is
 * over all the same, by whichever thread looks first (expire()). They look by the clock, also
 * while they read and compare: who waits in the queue does so because all of them are at something.
 * What nobody waits for any more is not begun; what is being read is given up if none of those who
 * waited is likely to ask again.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/table.h"
#include "engine/evict.h"
#include "engine/fetch.h"
#include "engine/tier_priv.h"

/* No object has this number, nor one of those before it. */
#define NO_OBJECT UINT64_MAX

struct recall {
	uint64_t fileid;
	struct place place;
	bool writes; /* one who waits does, or did */
	bool again;  /* the time of one was over while it was read: he may ask again */
	bool syncs;  /* no object: whether the journal has what was done until then */
	uint64_t mark;
	struct node_call *calls;
	struct recall *next; /* in the queue */
	UT_hash_handle hh;
};

struct back {
	struct tier *t;
	struct lock lock;
	pthread_cond_t more;
	struct recall *table, *queue, *last;
	bool ending;
	_Atomic uint64_t look_ns; /* when somebody is to look who has given up */
	uint64_t nsyncs;
	struct coming *turn;    /* who may wait for room with slices in hand; NULL: nobody does */
	unsigned nreading;      /* that have all of theirs */
	uint64_t nsettled;      /* so often one of these has ended, or what was taken given back */
	pthread_cond_t settled;
	struct worker {
		struct back *back;
		struct disk *disk;
		bool has_thread;
		pthread_t thread;
	} workers[NBACK];
};

/* Who waits ------------------------------------------------------------------------------ */

static void answer(struct node_call *calls, int r)
{
	struct node_call *c;

	while ((c = calls)) {
		LL_DELETE(calls, c);
		metric_add(M_RECALLS, -1);
		c->done(c, r);
	}
}

static int given_up(const struct node_call *c)
{
	if (!c->of)
		return 0;
	if (kv_call_is_cancelled(c->of))
		return -ECANCELED;
	return c->of->deadline_ns && clock_ns() >= c->of->deadline_ns ? -ETIMEDOUT : 0;
}

static struct node_call *take_given_up(struct back *b)
{
	struct node_call *late = NULL, *c, *next;
	struct recall *q, *tmp;

	WITH_LOCK(&b->lock);
	HASH_ITER(hh, b->table, q, tmp) {
		LL_FOREACH_SAFE(q->calls, c, next) {
			int r = given_up(c);
			if (!r)
				continue;
			LL_DELETE(q->calls, c);
			q->again |= r == -ETIMEDOUT;
			c->result = r;
			LL_PREPEND(late, c);
		}
	}
	return late;
}

/* Now and then by each thread that waits for something. */
static void expire(struct back *b)
{
	struct node_call *late = take_given_up(b), *c;

	while ((c = late)) {
		LL_DELETE(late, c);
		metric_add(M_RECALLS, -1);
		c->done(c, c->result);
	}
}

/* The same by who is at something, if it is time to. */
static void look(struct back *b)
{
	uint64_t due = atomic_load(&b->look_ns);

	if (clock_ns() >= due &&
	    atomic_compare_exchange_strong(&b->look_ns, &due, tier_next_look()))
		expire(b);
}

/* Under the lock. */
static void enqueue(struct back *b, struct recall *q)
{
	q->next = NULL;
	*(b->queue ? &b->last->next : &b->queue) = q;
	b->last = q;
	pthread_cond_signal(&b->more);
}

/* It is over: nobody joins any more. Who joined after it was given up, and while what was under way
 * of it came to its end, has it begun anew. */
static void finish(struct back *b, struct recall *q, int r)
{
	struct node_call *calls;

	{
		WITH_LOCK(&b->lock);
		if (r == -ECANCELED && q->calls) {
			enqueue(b, q);
			return;
		}
		HASH_DEL(b->table, q);
		calls = steal(&q->calls);
	}
	answer(calls, r);
	free(q);
}

void tier_recall(struct tier *t, uint64_t fileid, struct place place, bool writes,
		 struct node_call *c)
{
	struct back *b = t->back;
	struct recall *q = NULL;
	int r = -ESHUTDOWN;

	metric_add(M_RECALLS, 1);
	{
		WITH_LOCK(&b->lock);
		HASH_FIND(hh, b->table, &fileid, sizeof(fileid), q);
		if (!q && !b->ending) {
			r = -ENOMEM;
			q = calloc(1, sizeof(*q));
			if (q) {
				*q = (struct recall){ .fileid = fileid, .place = place };
				HASH_ADD(hh, b->table, fileid, sizeof(q->fileid), q);
				enqueue(b, q);
			}
		}
		if (q) {
			LL_PREPEND(q->calls, c);
			q->writes |= writes;
		}
	}
	if (!q)
		answer(c, r);
}

void tier_sync(struct tier *t, struct node_call *c)
{
	uint64_t mark = journal_mark(t->journal);
	struct back *b = t->back;
	int r = -ESHUTDOWN;

	if (journal_has(t->journal, mark)) {
		c->done(c, 0);
		return;
	}
	struct recall *q = calloc(1, sizeof(*q));
	metric_add(M_RECALLS, 1);
	{
		WITH_LOCK(&b->lock);
		if (q && !b->ending) {
			r = 0;
			*q = (struct recall){ .fileid = NO_OBJECT - b->nsyncs++, .syncs = true,
					      .mark = mark, .calls = c };
			HASH_ADD(hh, b->table, fileid, sizeof(q->fileid), q);
			enqueue(b, q);
		}
	}
	if (r < 0) {
		answer(c, q ? r : -ENOMEM);
		free(q);
	}
}

/* An object ------------------------------------------------------------------------------- */

/* A part of an extent and the slice that it goes to. */
struct piece {
	uint32_t extent, off, npages;
	struct slice_id id;
};

struct coming {
	struct worker *k;
	struct tier *t;
	struct recall *q;
	struct index_op op;      /* its record */
	struct extents from, to;
	bool is_reading;         /* it has all its slices */
	bool bad;                /* what the disk has cannot be read, or is not what it was */
	uint64_t vain_ns;        /* evict.h */
	uint32_t held;           /* segments, of from.v[] */
	struct piece *v;
	size_t n, cap;
	struct part {            /* of a piece: one read */
		struct disk_req req;
		struct iovec iov;
		size_t piece;
		uint32_t extent, off, npages; /* of the extent's pages */
		bool is_alone;   /* whole blocks: can be compared without others */
	} *parts;
	size_t nparts;
};

static uint8_t *page_of(const struct coming *g, const struct piece *p, uint32_t off)
{
	return pool_page(g->t->e->pool, p->id.page + off);
}

/* Is it to be gone on with? -ECANCELED: nobody waits for it. By who is at it: others are looked
 * after. */
static int goes_on(struct coming *g)
{
	struct back *b = g->k->back;

	look(b);
	WITH_LOCK(&b->lock);
	if (b->ending)
		return -ESHUTDOWN;
	return g->q->calls || g->q->again ? 0 : -ECANCELED;
}

/* What it had is free, or can be evicted. */
static void give_back(struct coming *g)
{
	struct back *b = g->k->back;

	for (size_t i = 0; i < g->n; i++)
		pool_unpin(g->t->e->pool, g->v[i].id);
	g->n = g->nparts = 0;
	WITH_LOCK(&b->lock);
	b->nreading -= g->is_reading;
	g->is_reading = false;
	b->nsettled++;
	pthread_cond_broadcast(&b->settled);
}

static void coming_fini(struct coming *g)
{
	for (uint32_t i = 0; i < g->held; i++)
		tier_log_leave(g->t->log, &(struct slice_run){
			{ g->from.v[i].slice, g->from.v[i].gen }, g->from.v[i].npages });
	give_back(g);
	free(g->v);
	free(g->parts);
	extents_fini(&g->from);
	extents_fini(&g->to);
	index_op_fini(&g->op);
}

/* 1: it is not away. */
static int read_record(struct coming *g)
{
	struct index *ix = g->t->e->ix;

	g->op = (struct index_op){ .fileid = g->q->fileid, .place = g->q->place };
	int r = index_wait(ix, &g->op, index_stat);
	if (r || !g->op.entry.attr.away)
		return r < 0 ? r : 1;
	r = tier_body_read(ix, g->q->fileid, &g->op.entry.body, &g->from);
	/* A block may have gone with it. */
	return r == -EUCLEAN ? 1 : r;
}

static int hold_segments(struct coming *g)
{
	for (uint32_t i = 0; i < g->from.n; i++) {
		const struct extent *x = &g->from.v[i];
		struct slice_run s = { { x->slice, x->gen }, x->npages };
		if (x->pool_id != tier_log_id(g->t->log) || x->slice_off ||
		    x->slice_pages != x->npages) {
			g->bad = true;
			return -EUCLEAN;
		}
		int r = tier_log_enter(g->t->log, &s);
		if (r < 0)
			return r == -ESTALE ? 1 : r;
		g->held++;
	}
	return 0;
}

struct room {
	struct evict_waiter w;
	struct lock lock;
	pthread_cond_t come;
	bool done;
};

static void room_come(struct task *t)
{
	struct room *m = (struct room *)((char *)t - offsetof(struct room, w.task));

	WITH_LOCK(&m->lock);
	m->done = true;
	pthread_cond_signal(&m->come);
}

/* Waits for the eviction, as whoever writes does. True: in vain. */
static bool wait_evicted(struct coming *g, uint64_t number)
{
	struct room m = { .w = { .task.fn = room_come, .patient = true, .vain_ns = g->vain_ns } };

	lock_init(&m.lock, LOCK_RECALL);
	lock_cond_init(&m.come);
	evict_wait(g->t->e->evict, number, &m.w);
	for (bool done = false; !done;) {
		{
			WITH_LOCK(&m.lock);
			if (!m.done)
				lock_wait_until(&m.lock, &m.come, tier_next_look());
			done = m.done;
		}
		if (!done)
			expire(g->k->back);
	}
	lock_fini(&m.lock);
	pthread_cond_destroy(&m.come);
	g->vain_ns = m.w.vain_ns;
	return m.w.in_vain;
}

/* Nothing could go. What others bring in can, when they have been answered: false if nobody has
 * settled since, or is going to, or nobody waits for this one any more. */
static bool wait_others(struct coming *g, uint64_t nsettled)
{
	struct back *b = g->k->back;
	bool worth;
	{
		WITH_LOCK(&b->lock);
		worth = (b->nreading || b->nsettled != nsettled) && g->q->calls;
		if (worth && b->nsettled == nsettled)
			lock_wait_until(&b->lock, &b->settled, tier_next_look());
	}
	expire(b);
	g->vain_ns = 0; /* who opens that has as much time as before */
	return worth;
}

/* May it wait for room with slices in hand? */
static bool take_turn(struct coming *g, uint64_t *ret_nsettled)
{
	struct back *b = g->k->back;

	WITH_LOCK(&b->lock);
	if (!b->turn)
		b->turn = g;
	*ret_nsettled = b->nsettled;
	return b->turn == g;
}

static void wait_turn(struct coming *g)
{
	struct back *b = g->k->back;
	uint64_t nsettled;

	while (!take_turn(g, &nsettled)) {
		{
			WITH_LOCK(&b->lock);
			if (b->turn)
				lock_wait_until(&b->lock, &b->settled, tier_next_look());
		}
		expire(b);
	}
}

/* It has all its slices, or gets none. */
static void end_turn(struct coming *g, bool has_all)
{
	struct back *b = g->k->back;

	WITH_LOCK(&b->lock);
	if (b->turn == g)
		b->turn = NULL;
	g->is_reading = has_all;
	b->nreading += has_all;
	pthread_cond_broadcast(&b->settled);
}

enum { NOT_ITS_TURN = 1 };

static int wait_room(struct coming *g, uint64_t number)
{
	uint64_t nsettled;

	if (!evict_makes_room(g->t->e->evict))
		return -ENOSPC;
	if (!take_turn(g, &nsettled))
		return NOT_ITS_TURN;
	return wait_evicted(g, number) && !wait_others(g, nsettled) ? -ENOSPC : 0;
}

static int take_slice(struct coming *g, uint32_t want, struct slice_id *ret, uint32_t *ret_npages)
{
	struct evict *ev = g->t->e->evict;
	struct pool *p = g->t->e->pool;

	for (;;) {
		uint64_t number = ev ? evict_number(ev) : 0;
		int r = pool_alloc(p, want, ret, ret_npages);
		if (r != POOL_FULL)
			break;
		r = wait_room(g, number);
		if (r)
			return r;
	}
	g->vain_ns = 0;
	/* What goes on behind it is to begin a block. */
	if (*ret_npages < want && *ret_npages > SUM_PAGES && *ret_npages % SUM_PAGES) {
		*ret_npages -= *ret_npages % SUM_PAGES;
		pool_trim(p, *ret, *ret_npages);
	}
	return 0;
}

static int take_all(struct coming *g)
{
	for (uint32_t i = 0; i < g->from.n; i++) {
		for (uint32_t off = 0, n; off < g->from.v[i].npages; off += n) {
			struct piece p = { .extent = i, .off = off };
			int r = goes_on(g);
			if (!r)
				r = array_room(g->v, g->cap, g->n + 1, 16);
			if (!r)
				r = take_slice(g, g->from.v[i].npages - off, &p.id, &p.npages);
			if (r)
				return r;
			n = p.npages;
			g->v[g->n++] = p;
			g->nparts += (n + BACK_PAGES - 1) / BACK_PAGES;
		}
	}
	return 0;
}

static int take_slices(struct coming *g)
{
	int r;

	while ((r = take_all(g)) == NOT_ITS_TURN) {
		give_back(g);
		wait_turn(g);
	}
	end_turn(g, !r);
	return r;
}

/* Reading and comparing ---------------------------------------------------------------------- */

static void list_parts(struct coming *g)
{
	struct part *a = g->parts;

	for (size_t i = 0; i < g->n; i++) {
		const struct piece *p = &g->v[i];
		const struct extent *x = &g->from.v[p->extent];
		for (uint32_t at = 0; at < p->npages; at += a->npages, a++) {
			uint32_t n = p->npages - at < BACK_PAGES ? p->npages - at : BACK_PAGES;
			uint32_t off = p->off + at;
			*a = (struct part){ .piece = i, .extent = p->extent, .off = off, .npages = n };
			a->is_alone = off % SUM_PAGES == 0 &&
				      (n % SUM_PAGES == 0 || off + n == x->npages);
			a->iov = (struct iovec){ page_of(g, p, at), n * (size_t)PAGE_BYTES };
			a->req = (struct disk_req){
				.off = ((uint64_t)x->slice + off) * PAGE_BYTES,
				.bytes = a->iov.iov_len, .iov = &a->iov, .niov = 1,
			};
		}
	}
}

static int complain(struct coming *g, const struct extent *x, uint32_t block)
{
	g->bad = true;
	metric_add(M_CHECKSUM_FAILURES, 1);
	log_error("disk", "%s/data: file %lu: page %u does not match its checksum: not returned",
		  g->t->path, (unsigned long)g->q->fileid, x->slice + block * SUM_PAGES);
	return -EIO;
}

static int compare_part(struct coming *g, const struct part *a)
{
	const struct extent *x = &g->from.v[a->extent];
	int64_t bad = tier_body_bad_block(x, a->iov.iov_base, a->off, a->npages);

	return bad < 0 ? 0 : complain(g, x, (uint32_t)bad);
}

/* A block that begins in the piece, and whose pages are in those after it, too: they are in order. */
static int compare_block(struct coming *g, size_t piece, uint32_t b)
{
	const struct piece *p = &g->v[piece];
	const struct extent *x = &g->from.v[p->extent];
	uint32_t at = b * SUM_PAGES, to = at + fetch_block_bytes(x->npages, b) / PAGE_BYTES;
	struct iovec iov[SUM_PAGES];
	unsigned n = 0;

	for (; at < to; p++) {
		uint32_t end = p->off + p->npages < to ? p->off + p->npages : to;
		iov[n++] = (struct iovec){ page_of(g, p, at - p->off),
					   (end - at) * (size_t)PAGE_BYTES };
		at = end;
	}
	return fetch_sum_of(iov, n) == x->sums[b] ? 0 : complain(g, x, b);
}

/* The blocks that begin in parts which were not compared when they had been read. */
static int compare_rest(struct coming *g)
{
	int r = 0;

	for (size_t i = 0; !r && i < g->nparts; i++) {
		const struct part *a = &g->parts[i];
		uint32_t b = (a->off + SUM_PAGES - 1) / SUM_PAGES;
		r = goes_on(g);
		for (; !r && !a->is_alone && b * SUM_PAGES < a->off + a->npages; b++)
			r = compare_block(g, a->piece, b);
	}
	return r;
}

/* `bad`: another one was wrong, and one line says so. */
static int reap(struct coming *g, bool bad)
{
	struct disk_req *q;
	int r;

	while ((r = tier_reap(g->t, g->k->disk, tier_next_look(), &q)) == -ETIMEDOUT)
		expire(g->k->back);
	if (r < 0)
		return r;
	struct part *a = (struct part *)q;
	if (q->result < 0) {
		g->bad = true;
		metric_add(M_DISK_FAILED_READ, 1);
		log_error("disk", "%s/data: file %lu: cannot read page %lu: %s", g->t->path,
			  (unsigned long)g->q->fileid, (unsigned long)(q->off / PAGE_BYTES),
			  error_text(q->result));
		return -EIO;
	}
	return a->is_alone && !bad ? compare_part(g, a) : 0;
}

/* All that was begun has ended when this returns. */
static int read_all(struct coming *g)
{
	size_t sent = 0;
	int r = 0;

	g->parts = calloc(g->nparts ? g->nparts : 1, sizeof(*g->parts));
	if (!g->parts)
		return -ENOMEM;
	list_parts(g);
	while ((!r && sent < g->nparts) || g->k->disk->out) {
		int on = goes_on(g);
		r = r ? r : on;
		if (!r && sent < g->nparts && g->k->disk->out < BACK_DEPTH) {
			r = disk_submit(g->k->disk, &g->parts[sent].req);
			sent += !r;
			continue;
		}
		int e = reap(g, r);
		r = r ? r : e;
	}
	return r ? r : compare_rest(g);
}

/* In memory ------------------------------------------------------------------------------------ */

static int add_extent(struct coming *g, const struct piece *p)
{
	const struct extent *x = &g->from.v[p->extent];
	struct extent *y = &g->to.v[g->to.n];
	uint32_t nsums = (p->npages + SUM_PAGES - 1) / SUM_PAGES;

	*y = (struct extent){
		.pool_id = pool_id(g->t->e->pool), .page = x->page + p->off,
		.slice = p->id.page, .gen = p->id.gen, .npages = (uint16_t)p->npages,
		.slice_pages = (uint16_t)p->npages,
		.sums = calloc(nsums, sizeof(*y->sums)),
	};
	if (!y->sums)
		return -ENOMEM;
	g->to.n++;
	bool same = p->off % SUM_PAGES == 0 &&
		    (p->npages % SUM_PAGES == 0 || p->off + p->npages == x->npages);
	for (uint32_t b = 0; b < nsums; b++)
		y->sums[b] = same ? x->sums[p->off / SUM_PAGES + b] :
				    fetch_sum(page_of(g, p, b * SUM_PAGES),
					      fetch_block_bytes(p->npages, b));
	return pool_seal(g->t->e->pool, p->id);
}

static int make_extents(struct coming *g)
{
	int r = 0;

	g->to.v = calloc(g->n ? g->n : 1, sizeof(*g->to.v));
	if (!g->to.v)
		return -ENOMEM;
	for (size_t i = 0; !r && i < g->n; i++) {
		r = goes_on(g);
		if (!r)
			r = add_extent(g, &g->v[i]);
	}
	return r;
}

/* 1: it has gone, or is another version by now. */
static int move(struct coming *g)
{
	struct index *ix = g->t->e->ix;
	struct made_body m;
	int r = tier_body_make(ix, g->q->fileid, &g->to, false, &m);

	if (r < 0)
		return r;
	struct index_op op = { .fileid = g->q->fileid, .place = g->op.entry.place,
			       .body = m.body, .value = g->op.entry.body.bytes };
	r = index_wait(ix, &op, index_move);
	crash_point(CRASH_DISK_BACK);
	tier_body_made(ix, g->q->fileid, &m, !r);
	if (!r)
		engine_drop(g->t->e, &op.gone);
	index_op_fini(&op);
	return r == -EBUSY ? 1 : r;
}

/* 0: it has what was done, or has ended and is not there any more. */
static int wait_journal(struct back *b, uint64_t mark)
{
	struct journal *j = b->t->journal;
	int r;

	while ((r = journal_wait(j, mark, tier_next_look())) == -ETIMEDOUT) {
		expire(b);
		tier_waits(b->t);
	}
	return r < 0 && journal_stays(j) ? -EROFS : 0;
}

/* Who comes later finds nothing done for him, and asks again. */
static bool is_to_be_written(struct coming *g)
{
	WITH_LOCK(&g->k->back->lock);
	return g->q->writes;
}

/* It is going to be written: what it is now must not come back when memory is lost. Not before
 * the journal has that is it copied no more, and then nobody need wait for it. */
static int end_copy(struct coming *g)
{
	_cleanup_(index_op_fini) struct index_op op = {
		.fileid = g->q->fileid, .place = g->q->place,
	};
	int r = index_wait(g->t->e->ix, &op, index_copy_drop);

	index_op_fini(&op);
	if (r)
		return r == INDEX_MISS ? 0 : r;
	crash_point(CRASH_DISK_DROPPED);
	r = wait_journal(g->k->back, journal_mark(g->t->journal));
	if (r < 0)
		return r;
	r = index_wait(g->t->e->ix, &op, index_copy_end);
	return r == INDEX_MISS || r == -EBUSY ? 0 : r;
}

/* 1: nothing was to be brought. */
static int bring(struct coming *g)
{
	int r = goes_on(g);

	if (!r)
		r = read_record(g);
	if (!r)
		r = hold_segments(g);
	if (!r)
		r = take_slices(g);
	if (!r)
		r = read_all(g);
	if (!r)
		r = make_extents(g);
	if (!r)
		r = move(g);
	if (!r) {
		metric_add(M_DISK_PROMOTED, 1);
		metric_add(M_DISK_READ, (int64_t)g->op.entry.attr.pages * PAGE_BYTES);
	}
	return r;
}

static int bring_back(struct coming *g)
{
	int r = bring(g);

	if (r >= 0 && is_to_be_written(g))
		return end_copy(g);
	return r > 0 ? 0 : r;
}

static void serve(struct worker *k, struct recall *q)
{
	struct coming g = { .k = k, .t = k->back->t, .q = q };
	uint64_t fileid = q->fileid;
	int r = bring_back(&g);

	finish(k->back, q, r == -EUCLEAN ? -EIO : r);
	if (r < 0 && g.bad && g.t->calls.condemn)
		g.t->calls.condemn(g.t->calls.arg, fileid, g.op.entry.body.bytes);
	coming_fini(&g); /* the slices were pinned until now */
}

static struct recall *next(struct back *b)
{
	WITH_LOCK(&b->lock);
	while (!b->queue && !b->ending)
		lock_wait(&b->lock, &b->more);
	struct recall *q = b->queue;
	if (q) {
		b->queue = q->next;
		q->again = false;
	}
	return q;
}

static void *run(void *arg)
{
	struct worker *k = arg;
	struct recall *q;

	pthread_setname_np(pthread_self(), "recall");
	while ((q = next(k->back))) {
		if (q->syncs)
			finish(k->back, q, wait_journal(k->back, q->mark) < 0 ? -EIO : 0);
		else
			serve(k, q);
	}
	return NULL;
}

int tier_back_begin(struct tier *t)
{
	struct back *b = calloc(1, sizeof(*b));
	int r = 0;

	if (!b)
		return -ENOMEM;
	t->back = b;
	b->t = t;
	lock_init(&b->lock, LOCK_RECALL);
	pthread_cond_init(&b->more, NULL);
	lock_cond_init(&b->settled);
	for (unsigned i = 0; !r && i < NBACK; i++) {
		struct worker *k = &b->workers[i];
		k->back = b;
		r = tier_disk(t, BACK_DEPTH, &k->disk);
		if (!r)
			r = -pthread_create(&k->thread, NULL, run, k);
		k->has_thread = !r;
	}
	return r;
}

void tier_back_end(struct tier *t)
{
	struct back *b = t->back;

	if (!b)
		return;
	{
		WITH_LOCK(&b->lock);
		b->ending = true;
		pthread_cond_broadcast(&b->more);
	}
	for (unsigned i = 0; i < NBACK; i++) {
		if (b->workers[i].has_thread)
			pthread_join(b->workers[i].thread, NULL);
		disk_close(b->workers[i].disk);
	}
	assert(!b->table);
	pthread_cond_destroy(&b->settled);
	pthread_cond_destroy(&b->more);
	lock_fini(&b->lock);
	free(b);
	t->back = NULL;
}
