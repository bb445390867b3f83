/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments are passed over where something in them cannot go now (somebody writes it, or
 * its row is on its way out), and looked at again when the log comes round once more: the
 * log is no ring in the strict sense, and nothing depends on its being one.
 *
 * One that nothing is in any more is cleared before the oldest is: nobody loses anything by it.
 *
 * At start all segments that were ever in use are FULL, whatever is in them: one that
 * nothing names is cleared as others are, in no time, and its generation goes up.
 */
#include "engine/tier_log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/lock.h"

enum {
	AHEAD = 2,      /* segments that are READY or CLEARED */
	REST_MS = 1000, /* when none could be cleared */
};

enum segment_state { READY, CURRENT, FULL, CLEARED, STATES };

struct segment {
	enum segment_state state;
	uint32_t gen, live, readers;
	uint64_t *ids;
	size_t nids, cap;
};

/* Of all segments. Whoever changes one takes it out and puts it in again: that is cheaper than looking
 * at all of them for each object, of which a large disk has a hundred thousand. */
struct tally {
	uint64_t live;           /* pages */
	uint32_t states[STATES];
	uint64_t empty;          /* FULL, and nothing is in it nor read from it */
};

struct tier_log {
	uint64_t id;
	uint32_t nsegments, segment_pages;

	struct lock lock;
	struct segment *v;
	struct tally tally;
	uint32_t current, used; /* its pages that are taken */
	uint32_t next;          /* the oldest that is to be cleared, */
	size_t at;              /* from this of its ids on; */
	uint32_t target;        /* or one that nothing is in any more */
	uint32_t in_vain;       /* that were passed over, one after the other */
	uint64_t rests_ns;
};

uint64_t tier_log_id(const struct tier_log *l) { return l->id; }
uint32_t tier_log_nsegments(const struct tier_log *l) { return l->nsegments; }

uint64_t tier_log_pages(const struct tier_log *l)
{
	return (uint64_t)l->nsegments * l->segment_pages;
}

static uint32_t after(const struct tier_log *l, uint32_t n)
{
	return n + 1 == l->nsegments ? 0 : n + 1;
}

static bool is_empty(const struct segment *s)
{
	return s->state == FULL && !s->live && !s->readers;
}

static void put_in(struct tally *c, const struct segment *s)
{
	c->live += s->live;
	c->states[s->state]++;
	c->empty += is_empty(s);
}

static void take_out(struct tally *c, const struct segment *s)
{
	c->live -= s->live;
	c->states[s->state]--;
	c->empty -= is_empty(s);
}

/* The one way in which a segment becomes another. */
static void become(struct tier_log *l, struct segment *s, struct segment next)
{
	take_out(&l->tally, s);
	*s = next;
	put_in(&l->tally, s);
}

static void set_state(struct tier_log *l, struct segment *s, enum segment_state state)
{
	struct segment next = *s;

	next.state = state;
	become(l, s, next);
}

/* So many more pages are live, and so many more read. */
static void add(struct tier_log *l, struct segment *s, int64_t live, int readers)
{
	struct segment next = *s;

	next.live += (uint32_t)live;
	next.readers += (uint32_t)readers;
	become(l, s, next);
}

int tier_log_new(uint64_t pool_id, uint32_t nsegments, uint32_t segment_pages,
		 const uint32_t *gens, uint32_t newest, struct tier_log **ret)
{
	struct tier_log *l = calloc(1, sizeof(*l));

	assert(nsegments >= TIER_SEGMENTS_MIN && segment_pages >= SLICE_PAGES_MAX);
	if (!l)
		return -ENOMEM;
	l->v = calloc(nsegments, sizeof(*l->v));
	if (!l->v) {
		free(l);
		return -ENOMEM;
	}
	l->id = pool_id;
	l->nsegments = nsegments;
	l->segment_pages = segment_pages;
	lock_init(&l->lock, LOCK_TIER);
	for (uint32_t i = 0; i < nsegments; i++) {
		l->v[i] = (struct segment){ .state = gens ? FULL : READY, .gen = gens ? gens[i] : 1 };
		put_in(&l->tally, &l->v[i]);
	}
	l->current = newest < nsegments ? newest : nsegments - 1;
	l->used = segment_pages; /* the first one to be used is the one behind it */
	l->next = after(l, l->current);
	*ret = l;
	return 0;
}

struct tier_log *tier_log_free(struct tier_log *l)
{
	if (!l)
		return NULL;
	for (uint32_t i = 0; i < l->nsegments; i++)
		free(l->v[i].ids);
	free(l->v);
	lock_fini(&l->lock);
	free(l);
	return NULL;
}

void tier_log_gens(struct tier_log *l, int (*visit)(void *arg, uint32_t n, uint32_t gen), void *arg)
{
	WITH_LOCK(&l->lock);
	uint32_t n = l->current;

	for (uint32_t i = 0; i < l->nsegments; i++) {
		n = after(l, n);
		if (visit(arg, n, l->v[n].gen))
			return;
	}
}

/* References ---------------------------------------------------------------------------- */

static struct segment *segment_at(struct tier_log *l, uint32_t page)
{
	return &l->v[(page - TIER_HEAD_PAGES) / l->segment_pages];
}

static int check_bounds(struct tier_log *l, const struct slice_run *s)
{
	uint64_t first = s->id.page, pages = (uint64_t)l->nsegments * l->segment_pages;

	if (first < TIER_HEAD_PAGES || !s->npages || s->npages > SLICE_PAGES_MAX)
		return -EINVAL;
	first -= TIER_HEAD_PAGES;
	if (first + s->npages > pages || first % l->segment_pages + s->npages > l->segment_pages)
		return -EINVAL;
	return 0;
}

static int check_run(struct tier_log *l, const struct slice_run *s)
{
	int r = check_bounds(l, s);

	return r ? r : segment_at(l, s->id.page)->gen == s->id.gen ? 0 : -ESTALE;
}

int tier_log_check(struct tier_log *l, const struct slice_run *s)
{
	WITH_LOCK(&l->lock);
	return check_run(l, s);
}

int tier_log_ref(struct tier_log *l, const struct slice_run *v, uint32_t nv)
{
	WITH_LOCK(&l->lock);

	for (uint32_t i = 0; i < nv; i++) {
		int r = check_run(l, &v[i]);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; i < nv; i++)
		add(l, segment_at(l, v[i].id.page), v[i].npages, 0);
	return 0;
}

int tier_log_unref(struct tier_log *l, const struct slice_run *v, uint32_t nv)
{
	int r = 0;

	WITH_LOCK(&l->lock);
	for (uint32_t i = 0; i < nv; i++) {
		if (check_run(l, &v[i]) || segment_at(l, v[i].id.page)->live < v[i].npages)
			r = -ESTALE;
		else
			add(l, segment_at(l, v[i].id.page), -(int64_t)v[i].npages, 0);
	}
	return r;
}

/* Those of one object come one behind the other. */
static int note_id(struct segment *s, uint64_t fileid)
{
	if (s->nids && s->ids[s->nids - 1] == fileid)
		return 0;
	int r = array_room(s->ids, s->cap, s->nids + 1, 16);
	if (!r)
		s->ids[s->nids++] = fileid;
	return r;
}

/* Of a disk whose journal was lost, and memory was not: the first that is in it says how it was. */
static void learn(struct tier_log *l, struct segment *s, uint32_t gen)
{
	if (s->state == READY && gen)
		become(l, s, (struct segment){ .state = FULL, .gen = gen });
}

int tier_log_adopt(struct tier_log *l, const struct slice_run *s, uint64_t fileid)
{
	WITH_LOCK(&l->lock);
	int r = check_bounds(l, s);

	if (!r)
		learn(l, segment_at(l, s->id.page), s->id.gen);
	if (!r)
		r = check_run(l, s);
	if (!r)
		r = note_id(segment_at(l, s->id.page), fileid);
	if (!r)
		add(l, segment_at(l, s->id.page), s->npages, 0);
	return r;
}

int tier_log_enter(struct tier_log *l, const struct slice_run *s)
{
	WITH_LOCK(&l->lock);
	int r = check_run(l, s);

	if (!r)
		add(l, segment_at(l, s->id.page), 0, 1);
	return r;
}

void tier_log_leave(struct tier_log *l, const struct slice_run *s)
{
	WITH_LOCK(&l->lock);
	assert(segment_at(l, s->id.page)->readers);
	add(l, segment_at(l, s->id.page), 0, -1);
}

/* Taking ---------------------------------------------------------------------------------- */

/* The next one that is ready, from the current one on. */
static int go_on(struct tier_log *l)
{
	uint32_t n = after(l, l->current);

	if (!l->tally.states[READY])
		return TIER_FULL;
	for (; n != l->current && l->v[n].state != READY; n = after(l, n))
		;
	if (l->v[l->current].state == CURRENT)
		set_state(l, &l->v[l->current], FULL);
	set_state(l, &l->v[n], CURRENT);
	l->current = n;
	l->used = 0;
	return 0;
}

int tier_log_take(struct tier_log *l, uint32_t npages, uint64_t fileid, struct slice_id *ret)
{
	WITH_LOCK(&l->lock);
	int r = l->used + npages > l->segment_pages ? go_on(l) : 0;
	struct segment *s = &l->v[l->current];

	if (!r)
		r = note_id(s, fileid);
	if (r)
		return r;
	*ret = (struct slice_id){ TIER_HEAD_PAGES + l->current * l->segment_pages + l->used, s->gen };
	l->used += npages;
	return 0;
}

uint64_t tier_log_room(struct tier_log *l)
{
	WITH_LOCK(&l->lock);
	return (l->tally.states[READY] + 1ULL) * l->segment_pages - l->used;
}

/* Clearing ---------------------------------------------------------------------------------- */

bool tier_log_wants(struct tier_log *l)
{
	WITH_LOCK(&l->lock);
	return l->tally.states[READY] + l->tally.states[CLEARED] < AHEAD &&
	       clock_ns() >= l->rests_ns;
}

static void look_further(struct tier_log *l)
{
	l->next = after(l, l->next);
	l->at = 0;
}

static void pass_over(struct tier_log *l)
{
	look_further(l);
	if (++l->in_vain < l->nsegments)
		return;
	l->in_vain = 0;
	l->rests_ns = clock_ns() + REST_MS * NS_PER_MS;
}

static void choose_target(struct tier_log *l)
{
	for (uint32_t i = 0; i < l->nsegments && l->v[l->next].state != FULL; i++)
		look_further(l);
	l->target = l->next;
	while (l->tally.empty && !is_empty(&l->v[l->target]))
		l->target = after(l, l->target);
}

bool tier_log_next(struct tier_log *l, uint64_t *ret_fileid)
{
	WITH_LOCK(&l->lock);
	choose_target(l);
	struct segment *s = &l->v[l->target];

	if (s->state != FULL || !s->live || l->at == s->nids)
		return false;
	*ret_fileid = s->ids[l->at++];
	return true;
}

bool tier_log_clear(struct tier_log *l, uint32_t *ret_n, uint32_t *ret_gen)
{
	WITH_LOCK(&l->lock);
	struct segment *s = &l->v[l->target];

	if (!is_empty(s)) {
		pass_over(l);
		return false;
	}
	free(s->ids);
	become(l, s, (struct segment){ .state = CLEARED, .gen = s->gen + 1 ? s->gen + 1 : 1 });
	*ret_n = l->target;
	*ret_gen = s->gen;
	l->in_vain = 0;
	if (l->target == l->next) /* it may be FULL again before the next one is looked for */
		look_further(l);
	return true;
}

void tier_log_ready(struct tier_log *l, uint32_t n)
{
	WITH_LOCK(&l->lock);
	assert(l->v[n].state == CLEARED);
	set_state(l, &l->v[n], READY);
}

bool tier_log_is_next(struct tier_log *l, uint32_t page)
{
	WITH_LOCK(&l->lock);
	return page >= TIER_HEAD_PAGES &&
	       (page - TIER_HEAD_PAGES) / l->segment_pages == l->next;
}

/* ---------------------------------------------------------------------------------------------- */

void tier_log_stat(struct tier_log *l, struct tier_log_stat *ret)
{
	WITH_LOCK(&l->lock);

	*ret = (struct tier_log_stat){ .pages = tier_log_pages(l), .live = l->tally.live,
				       .segments = l->nsegments, .ready = l->tally.states[READY] };
}

int tier_log_check_all(struct tier_log *l, struct writer *report)
{
	WITH_LOCK(&l->lock);
	struct tally c = { 0 };
	int bad = 0;

	for (uint32_t i = 0; i < l->nsegments; i++) {
		const struct segment *s = &l->v[i];
		put_in(&c, s);
		bool empty = s->state == READY || s->state == CLEARED;
		if (s->live <= l->segment_pages && !(empty && (s->live || s->nids)) &&
		    (s->live == 0 || s->nids) && (s->state == CURRENT) <= (i == l->current))
			continue;
		bad++;
		write_format(report, "disk: segment %u (state %d): %u pages live of %zu objects\n",
			     i, s->state, s->live, s->nids);
	}
	if (!memcmp(&c, &l->tally, sizeof(c)))
		return bad;
	write_format(report, "disk: %" PRIu64 " pages live, %u segments ready, %u cleared, %" PRIu64
		     " empty: there are %" PRIu64 ", %u, %u, %" PRIu64 "\n", l->tally.live,
		     l->tally.states[READY], l->tally.states[CLEARED], l->tally.empty, c.live,
		     c.states[READY], c.states[CLEARED], c.empty);
	return bad + 1;
}
