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
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/lock.h"

enum {
	AHEAD = 2,      /* segments that are READY or CLEARED */
	REST_MS = 1000, /* when none could be cleared */
};

enum segment_state { READY, CURRENT, FULL, CLEARED };

struct segment {
	enum segment_state state;
	uint32_t gen, live, readers;
	uint64_t *ids;
	size_t nids, cap;
};

struct tier_log {
	uint64_t id;
	uint32_t nsegments, segment_pages;

	struct lock lock;
	struct segment *v;
	uint32_t current, used; /* its pages that are taken */
	uint32_t next;          /* the oldest that is to be cleared, */
	size_t at;              /* from this of its ids on; */
	uint32_t target;        /* or one that nothing is in any more */
	uint32_t in_vain;       /* that were passed over, one after the other */
	uint64_t rests_ns;
};

uint64_t tier_log_id(const struct tier_log *l) { return l->id; }
uint32_t tier_log_nsegments(const struct tier_log *l) { return l->nsegments; }

static uint32_t after(const struct tier_log *l, uint32_t n)
{
	return n + 1 == l->nsegments ? 0 : n + 1;
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
	for (uint32_t i = 0; i < nsegments; i++)
		l->v[i] = (struct segment){ .state = gens ? FULL : READY, .gen = gens ? gens[i] : 1 };
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
		segment_at(l, v[i].id.page)->live += v[i].npages;
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
			segment_at(l, v[i].id.page)->live -= v[i].npages;
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
static void learn(struct segment *s, uint32_t gen)
{
	if (s->state == READY && gen)
		*s = (struct segment){ .state = FULL, .gen = gen };
}

int tier_log_adopt(struct tier_log *l, const struct slice_run *s, uint64_t fileid)
{
	WITH_LOCK(&l->lock);
	int r = check_bounds(l, s);

	if (!r)
		learn(segment_at(l, s->id.page), s->id.gen);
	if (!r)
		r = check_run(l, s);
	if (!r)
		r = note_id(segment_at(l, s->id.page), fileid);
	if (!r)
		segment_at(l, s->id.page)->live += s->npages;
	return r;
}

int tier_log_enter(struct tier_log *l, const struct slice_run *s)
{
	WITH_LOCK(&l->lock);
	int r = check_run(l, s);

	if (!r)
		segment_at(l, s->id.page)->readers++;
	return r;
}

void tier_log_leave(struct tier_log *l, const struct slice_run *s)
{
	WITH_LOCK(&l->lock);
	assert(segment_at(l, s->id.page)->readers);
	segment_at(l, s->id.page)->readers--;
}

/* Taking ---------------------------------------------------------------------------------- */

/* The next one that is ready, from the current one on. */
static int go_on(struct tier_log *l)
{
	uint32_t n = after(l, l->current);

	for (; n != l->current && l->v[n].state != READY; n = after(l, n))
		;
	if (l->v[n].state != READY)
		return TIER_FULL;
	if (l->v[l->current].state == CURRENT)
		l->v[l->current].state = FULL;
	l->v[n].state = CURRENT;
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

static uint32_t count(const struct tier_log *l, enum segment_state a, enum segment_state b)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < l->nsegments; i++)
		n += l->v[i].state == a || l->v[i].state == b;
	return n;
}

uint64_t tier_log_room(struct tier_log *l)
{
	WITH_LOCK(&l->lock);
	return (uint64_t)count(l, READY, READY) * l->segment_pages + l->segment_pages - l->used;
}

/* Clearing ---------------------------------------------------------------------------------- */

bool tier_log_wants(struct tier_log *l)
{
	WITH_LOCK(&l->lock);
	return count(l, READY, CLEARED) < AHEAD && clock_ns() >= l->rests_ns;
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
	for (uint32_t i = 0, n = l->next; i < l->nsegments; i++, n = after(l, n))
		if (l->v[n].state == FULL && !l->v[n].live && !l->v[n].readers) {
			l->target = n;
			return;
		}
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

	if (s->state != FULL || s->live || s->readers) {
		pass_over(l);
		return false;
	}
	free(s->ids);
	*s = (struct segment){ .state = CLEARED, .gen = s->gen + 1 ? s->gen + 1 : 1 };
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
	l->v[n].state = READY;
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

	*ret = (struct tier_log_stat){ .pages = (uint64_t)l->nsegments * l->segment_pages,
				       .segments = l->nsegments, .ready = count(l, READY, READY) };
	for (uint32_t i = 0; i < l->nsegments; i++)
		ret->live += l->v[i].live;
}

int tier_log_check_all(struct tier_log *l, struct writer *report)
{
	WITH_LOCK(&l->lock);
	int bad = 0;

	for (uint32_t i = 0; i < l->nsegments; i++) {
		const struct segment *s = &l->v[i];
		bool empty = s->state == READY || s->state == CLEARED;
		if (s->live <= l->segment_pages && !(empty && (s->live || s->nids)) &&
		    (s->live == 0 || s->nids) && (s->state == CURRENT) <= (i == l->current))
			continue;
		bad++;
		write_format(report, "disk: segment %u (state %d): %u pages live of %zu objects\n",
			     i, s->state, s->live, s->nids);
	}
	return bad;
}
