/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drops: what an object consisted of is deleted when it is gone, and its slices
 * with it: whoever has the index counts their references by what is in it (refs.h).
 *
 *	READ ----------> LEAVES -------> NODES --------> NOTE
 *	a tree's blocks  its blocks of   what named      the key under which the
 *	of references    extents         those           unlink noted the body
 *
 * A small object's extents are in its body, so it goes with its note. What has no
 * blocks, or no tree, leaves steps out. The note is last: as long as it is there,
 * somebody may find by it what there is to delete.
 *
 * A step is one index call for up to DROP_BATCH blocks. With an index in the
 * process that nobody else is busy with, all of it happens inside engine_drop(); else
 * it goes on in the index's completions. Who finds no free page meanwhile waits for
 * it (drops_wait_room()), so that who unlinks a file may write as much at once. The
 * loop in drop_run() takes the place of recursion: a call that completes before
 * it returns is noticed there, one that does not goes on from its completion.
 *
 * Nothing needs to remember a drop beyond the process: if it dies, the next rebuild
 * counts anew and collects the blocks (I2). For the same reason an index that cannot
 * be read or written ends in a line in the log: the slices stay until then.
 *
 * Threads: any; a drop belongs to whoever runs its loop.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/crash.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/priv.h"

enum {
	DROP_BATCH = 64,
	DROP_TRIES = 5, /* of one call, before it is given up */
};

enum drop_step { STEP_READ, STEP_LEAVES, STEP_NODES, STEP_NOTE, STEP_END };

/* How one call's completion and the loop that made it find each other. */
enum drop_hand { HAND_OUT, HAND_LEFT, HAND_DONE };

struct blocks {
	struct block_ref *v;
	uint32_t n;
};

struct drop {
	struct engine *e;
	uint64_t fileid, note;
	struct index_op op;
	enum drop_step step;
	struct blocks nodes, leaves;
	uint32_t at, n;              /* under way: n from `at` on, of this step */
	unsigned tries;
	bool alone;   /* one block a call: somewhere here is a bad one */
	bool leaks;   /* something could not be read, or deleted */
	int outcome;
	_Atomic enum drop_hand hand;
};

/* Steps ---------------------------------------------------------------------------- */

static const struct blocks *step_blocks(const struct drop *d)
{
	return d->step == STEP_LEAVES ? &d->leaves : &d->nodes;
}

static void next_step(struct drop *d)
{
	if (d->step == STEP_LEAVES && d->leaves.n)
		crash_point(CRASH_UNLINK_DROPPED);
	d->step++;
	d->at = 0;
	d->alone = false;
}

static const char *step_verb(const struct drop *d)
{
	return d->step == STEP_READ ? "read" : "delete";
}

/* The same call once more, or block by block. */
static bool try_again(struct drop *d)
{
	if (++d->tries < DROP_TRIES)
		return true;
	d->tries = 0;
	if (d->step == STEP_NOTE || d->alone || d->n == 1)
		return false;
	d->alone = true;
	return true;
}

/* A block that cannot be read keeps what it names, until the next rebuild. */
static void use_rows(struct drop *d)
{
	for (uint32_t i = 0; i < d->n; i++) {
		int r = body_append_blocks(d->op.rows->rows[i].value, &d->leaves.v,
					   &d->leaves.n);
		if (r < 0) {
			log_error("drop", "object %" PRIu64 ": extent block %" PRIu64 ": %s",
				  d->fileid, d->nodes.v[d->at + i].id, error_text(r));
			d->leaks = true;
		}
	}
}

static void use_outcome(struct drop *d)
{
	int r = d->outcome;

	if (!r && d->step == STEP_READ)
		use_rows(d);
	index_op_fini(&d->op);
	if (r && try_again(d))
		return;
	d->tries = 0;
	if (r && d->step == STEP_NOTE)
		log_error("drop", "object %" PRIu64 ": its note cannot be deleted: %s", d->fileid,
			  error_text(r));
	else if (r)
		log_error("drop", "object %" PRIu64 ": cannot %s extent block %" PRIu64 ": %s",
			  d->fileid, step_verb(d), step_blocks(d)->v[d->at].id, error_text(r));
	d->leaks |= r != 0;
	if (d->step == STEP_NOTE)
		next_step(d);
	else
		d->at += d->n;
}

static void drop_done(struct index_op *op, int outcome);

static void start_blocks(struct drop *d)
{
	const struct blocks *b = step_blocks(d);

	d->n = b->n - d->at < DROP_BATCH ? b->n - d->at : DROP_BATCH;
	if (d->alone)
		d->n = 1;
	d->op.blocks = b->v + d->at;
	d->op.nblocks = d->n;
	if (d->step == STEP_READ)
		index_get_blocks(d->e->ix, &d->op);
	else
		index_del_blocks(d->e->ix, &d->op);
}

/* Makes the next call; false: there is none. */
static bool start(struct drop *d)
{
	while (d->step < STEP_NOTE && d->at == step_blocks(d)->n)
		next_step(d);
	if (d->step == STEP_END)
		return false;
	d->op = (struct index_op){ .fileid = d->fileid, .note = d->note, .done = drop_done,
				   .arg = d };
	if (d->step == STEP_NOTE)
		index_gone_end(d->e->ix, &d->op);
	else
		start_blocks(d);
	return true;
}

/* The end --------------------------------------------------------------------------- */

static void drops_begin(struct drops *ds)
{
	WITH_LOCK(&ds->lock);
	ds->n++;
	metric_add(M_DROPS, 1);
}

static void drops_end(struct drops *ds)
{
	struct drop_waiter *w;

	{
		WITH_LOCK(&ds->lock);
		ds->ended++;
		w = steal(&ds->waiters);
		metric_add(M_DROPS, -1);
		if (!--ds->n)
			pthread_cond_broadcast(&ds->none);
	}
	while (w) {
		struct drop_waiter *next = w->next;
		task_run(&w->task);
		w = next;
	}
}

static void drop_free(struct drop *d)
{
	struct drops *ds = &d->e->drops;

	if (d->leaks)
		log_warn("drop", "object %" PRIu64 ": some of its slices stay allocated until the "
			 "next mount", d->fileid);
	free(d->nodes.v);
	free(d->leaves.v);
	free(d);
	drops_end(ds);
}

/* Runs until a call is out. seq_cst on `hand`: whoever comes second, the one who
 * made the call or its completion, goes on, and sees what the first one wrote. */
static void drop_run(struct drop *d)
{
	for (;;) {
		d->hand = HAND_OUT;
		if (!start(d)) {
			drop_free(d);
			return;
		}
		if (atomic_exchange(&d->hand, HAND_LEFT) == HAND_OUT)
			return;
		use_outcome(d);
	}
}

static void drop_done(struct index_op *op, int outcome)
{
	struct drop *d = op->arg;

	d->outcome = outcome;
	if (atomic_exchange(&d->hand, HAND_DONE) == HAND_OUT)
		return;
	use_outcome(d);
	drop_run(d);
}

/* Calls ------------------------------------------------------------------------------ */

static int drop_start(struct engine *e, const struct gone *g)
{
	struct drop *d = calloc(1, sizeof(*d));
	bool tree = g->body.kind == BODY_TREE;

	if (!d)
		return -ENOMEM;
	struct blocks *to = tree ? &d->nodes : &d->leaves;
	int r = g->body.kind == BODY_EXTENTS ? 0 :
		body_append_blocks(g->body.bytes, &to->v, &to->n);
	if (r < 0) {
		free(d);
		return r;
	}
	d->e = e;
	d->fileid = g->fileid;
	d->note = g->note;
	d->step = tree ? STEP_READ : STEP_LEAVES;
	drops_begin(&e->drops);
	drop_run(d);
	return 0;
}

void engine_drop(struct engine *e, const struct gone *g)
{
	enum body_kind kind = g->body.kind;

	lock_assert_none();
	if (!g->fileid || g->draft || g->attr.nlink || kind == BODY_NONE || kind == BODY_INLINE)
		return;
	int r = drop_start(e, g);
	if (r < 0)
		log_error("drop", "object %" PRIu64 ": %s; its slices stay allocated until the next "
			  "mount", g->fileid, error_text(r));
}

uint64_t drops_ended(struct drops *ds)
{
	return atomic_load(&ds->ended);
}

bool drops_wait_room(struct drops *ds, uint64_t ended, struct drop_waiter *w)
{
	{
		WITH_LOCK(&ds->lock);
		if (ds->ended == ended && !ds->n)
			return false;
		if (ds->ended == ended) {
			w->next = ds->waiters;
			ds->waiters = w;
			return true;
		}
	}
	task_run(&w->task);
	return true;
}

void drops_init(struct drops *ds)
{
	lock_init(&ds->lock, LOCK_DROPS);
	pthread_cond_init(&ds->none, NULL);
}

void drops_wait(struct drops *ds)
{
	WITH_LOCK(&ds->lock);
	while (ds->n)
		lock_wait(&ds->lock, &ds->none);
}

void drops_fini(struct drops *ds)
{
	assert(!ds->n && !ds->waiters);
	pthread_cond_destroy(&ds->none);
	lock_fini(&ds->lock);
}
