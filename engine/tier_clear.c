/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of the disk comes round: what is in its oldest segment leaves it, so that the segment
 * can be written anew. Its rows go first (journal_segment()); what is cleared is not ready
 * before they are on the disk. And how long "evict" waits for that, and for its writes.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "engine/tier_priv.h"

enum {
	LOOK_MS = 5,      /* how often somebody is looked for who waits */
	BEHIND_MS = 5000, /* for what nobody waits for */
};

/* Patience ----------------------------------------------------------------------------- */

struct patience patience_for(uint64_t since_ns, uint64_t wait_ns)
{
	uint64_t long_ns = BEHIND_MS * NS_PER_MS;

	if (since_ns)
		return (struct patience){ since_ns + wait_ns, 0 };
	return (struct patience){ clock_ns() + (wait_ns > long_ns ? wait_ns : long_ns), wait_ns / 2 };
}

/* Somebody may have begun to wait. */
static uint64_t patience_until(struct tier *t, struct patience *p)
{
	if (p->less_ns && t->calls.is_waited && t->calls.is_waited(t->calls.arg)) {
		uint64_t end = clock_ns() + p->less_ns;
		p->until_ns = end < p->until_ns ? end : p->until_ns;
		p->less_ns = 0;
	}
	return p->until_ns;
}

uint64_t patience_look(struct tier *t, struct patience *p)
{
	uint64_t end = patience_until(t, p), look = clock_ns() + LOOK_MS * NS_PER_MS;

	return end < look ? end : look;
}

bool patience_over(struct tier *t, struct patience *p)
{
	return clock_ns() >= patience_until(t, p);
}

/* Clearing ---------------------------------------------------------------------------- */

static bool is_in_next(struct tier *t, const struct extents *x)
{
	for (uint32_t i = 0; i < x->n; i++)
		if (x->v[i].pool_id == tier_log_id(t->log) &&
		    tier_log_is_next(t->log, x->v[i].slice))
			return true;
	return false;
}

static void drop_copy(struct tier *t, uint64_t fileid, struct place place)
{
	_cleanup_(index_op_fini) struct index_op op = { .fileid = fileid, .place = place };

	index_wait(t->e->ix, &op, index_copy_drop); /* or it stays, and the segment with it */
}

/* What is in the segment goes; it may have gone, or come back, long since. */
static void leave(struct tier *t, uint64_t fileid)
{
	_cleanup_(index_op_fini) struct index_op op = { 0 };
	_cleanup_(extents_fini) struct extents x = { 0 };

	if (t->calls.find(t->calls.arg, fileid, &op))
		return;
	const struct body copy = { BODY_EXTENTS, op.entry.copy };
	bool away = op.entry.attr.away;
	if ((!away && !copy.bytes.len) ||
	    tier_body_read(t->e->ix, fileid, away ? &op.entry.body : &copy, &x) ||
	    !is_in_next(t, &x))
		return;
	if (away)
		t->calls.evict(t->calls.arg, fileid);
	else
		drop_copy(t, fileid, op.entry.place);
}

static void note_ready(struct tier *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->ncleared; i++) {
		if (journal_has(t->journal, t->cleared[i].mark))
			tier_log_ready(t->log, t->cleared[i].n);
		else
			t->cleared[n++] = t->cleared[i];
	}
	t->ncleared = n;
}

void tier_clear(struct tier *t, unsigned lot, uint64_t until_ns)
{
	uint64_t fileid;
	uint32_t n, gen;

	note_ready(t);
	while (lot && t->ncleared < CLEARED_MAX && tier_log_wants(t->log) &&
	       clock_ns() < until_ns) {
		if (tier_log_next(t->log, &fileid)) {
			leave(t, fileid);
			lot--;
		} else if (tier_log_clear(t->log, &n, &gen)) {
			t->cleared[t->ncleared++] = (struct cleared){
				n, journal_segment(t->journal, n, gen) };
		}
	}
}

void tier_clear_as_many(struct tier *t, unsigned least, uint64_t until_ns)
{
	unsigned lot = t->came > least ? t->came : least;

	t->came = 0;
	tier_clear(t, lot, until_ns);
}

/* False: that is over, or the journal has failed. */
static bool wait_ready(struct tier *t, struct patience *p)
{
	int r = journal_wait(t->journal, t->cleared[0].mark, patience_look(t, p));

	if (r == -ETIMEDOUT)
		tier_waits(t);
	note_ready(t);
	return !r || (r == -ETIMEDOUT && !patience_over(t, p));
}

/* What is cleared and not on the disk yet is worth a wait. */
uint64_t tier_make_room(struct tier *t, struct patience *p)
{
	uint64_t n;
	bool more = true;

	while ((n = tier_log_room(t->log)) < SLICE_PAGES_MAX && more) {
		if (t->ncleared) {
			more = wait_ready(t, p);
		} else {
			tier_clear(t, CLEAR_LOT / 4, patience_until(t, p));
			more = t->ncleared || (tier_log_wants(t->log) && !patience_over(t, p));
		}
	}
	return n;
}
