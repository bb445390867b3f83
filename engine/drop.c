/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drops: what an object consisted of is given back when it is gone.
 *
 * A small object's extents are in its body: done in the call. A larger one's are
 * in blocks, which have to be read first, and the blocks of a tree before them:
 *
 *	TREE ---> LEAVES ---> DELETE
 *	blocks of block       blocks of extents:     all blocks of both kinds
 *	references are        references of their
 *	collected             slices are given back
 *
 * A step is one index call for up to DROP_BATCH blocks. With an index in the
 * process all of it happens inside engine_drop(), so that who unlinks a file has
 * its space at once; with another one it goes on in the index's completions. The
 * loop in drop_run() takes the place of recursion: a call that completes before
 * it returns is noticed there, one that does not goes on from its completion.
 *
 * Nothing needs to remember a drop: if the process dies, the next rebuild counts
 * references anew and collects the blocks (I2). For the same reason an index that
 * cannot be read ends in a line in the log: the slices stay until then.
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

enum drop_step { STEP_TREE, STEP_LEAVES, STEP_DELETE, STEP_END };

/* How one call's completion and the loop that made it find each other. */
enum drop_hand { HAND_OUT, HAND_LEFT, HAND_DONE };

struct blocks {
	struct block_ref *v;
	uint32_t n;
};

struct drop {
	struct engine *e;
	uint64_t fileid;
	struct index_op op;
	enum drop_step step;
	struct blocks trees, leaves; /* all of them, until deleted */
	uint32_t at, n;              /* under way: n from `at` on, of this step */
	unsigned tries;
	bool alone;   /* one block a call: somewhere here is a bad one */
	bool leaks;   /* something could not be read */
	int outcome;
	_Atomic enum drop_hand hand;
};

/* References --------------------------------------------------------------------- */

static void drop_extents(struct engine *e, uint64_t fileid, const struct extents *x)
{
	for (uint32_t i = 0; i < x->n; i++) {
		const struct extent *t = &x->v[i];
		struct slice_id s = { t->slice, t->gen };
		int r = t->pool_id == e->node->pool_id ? node_add_refs(e->node, s, -1) : -ESTALE;

		/* fsck drops objects because they name what is not there. */
		if (r < 0 && !e->offline)
			log_error("drop", "object %" PRIu64 ": slice %u generation %u: %s",
				  fileid, s.page, s.gen, error_text(r));
	}
}

static int drop_encoded(struct engine *e, uint64_t fileid, struct bytes b)
{
	struct extents x = { 0 };
	int r = body_decode_extents(b, &x);

	if (r < 0)
		return r;
	drop_extents(e, fileid, &x);
	extents_fini(&x);
	return 0;
}

/* Steps ---------------------------------------------------------------------------- */

/* The blocks of this step: the leaves are deleted first, then what names them. */
static const struct blocks *step_blocks(const struct drop *d)
{
	return d->step == STEP_TREE ? &d->trees : &d->leaves;
}

static void next_step(struct drop *d)
{
	d->at = 0;
	d->alone = false;
	switch (d->step) {
	case STEP_TREE:
		d->step = STEP_LEAVES;
		break;
	case STEP_LEAVES:
		crash_point(CRASH_UNLINK_DROPPED);
		d->step = STEP_DELETE;
		break;
	case STEP_DELETE:
		/* once more, for the trees */
		free(d->leaves.v);
		d->leaves = d->trees;
		d->trees = (struct blocks){ 0 };
		if (!d->leaves.n)
			d->step = STEP_END;
		break;
	case STEP_END:
		break;
	}
}

static int use_row(struct drop *d, struct bytes value)
{
	if (d->step == STEP_TREE)
		return body_append_blocks(value, &d->leaves.v, &d->leaves.n);
	return drop_encoded(d->e, d->fileid, value);
}

/* What a call brought. A block that cannot be read keeps its slices, and its own
 * place in the index, until the next rebuild. */
static void use_outcome(struct drop *d)
{
	int r = d->outcome;

	for (uint32_t i = 0; !r && d->step != STEP_DELETE && i < d->n; i++) {
		int bad = d->op.rows && i < d->op.rows->nrows ?
			  use_row(d, d->op.rows->rows[i].value) : -EUCLEAN;
		if (bad < 0) {
			log_error("drop", "object %" PRIu64 ": extent block %" PRIu64 ": %s",
				  d->fileid, step_blocks(d)->v[d->at + i].id, error_text(bad));
			d->leaks = true;
		}
	}
	index_op_fini(&d->op);
	if (r && ++d->tries < DROP_TRIES)
		return; /* the same once more */
	d->tries = 0;
	if (r && !d->alone && d->n > 1) {
		d->alone = true;
		return;
	}
	if (r) {
		log_error("drop", "object %" PRIu64 ": cannot %s extent block %" PRIu64 ": %s",
			  d->fileid, d->step == STEP_DELETE ? "delete" : "read",
			  step_blocks(d)->v[d->at].id, error_text(r));
		d->leaks = true;
	}
	d->at += d->n;
}

static void drop_done(struct index_op *op, int outcome);

/* Makes the next call; false: there is none. */
static bool start(struct drop *d)
{
	while (d->step != STEP_END && d->at == step_blocks(d)->n)
		next_step(d);
	if (d->step == STEP_END)
		return false;

	const struct blocks *b = step_blocks(d);
	d->n = b->n - d->at < DROP_BATCH ? b->n - d->at : DROP_BATCH;
	if (d->alone)
		d->n = 1;
	d->op = (struct index_op){
		.fileid = d->fileid,
		.blocks = b->v + d->at,
		.nblocks = d->n,
		.done = drop_done,
		.arg = d,
	};
	if (d->step == STEP_DELETE)
		index_del_blocks(d->e->ix, &d->op);
	else
		index_get_blocks(d->e->ix, &d->op);
	return true;
}

/* The end --------------------------------------------------------------------------- */

static void drops_add(struct drops *ds, int n)
{
	WITH_LOCK(&ds->lock);
	ds->n += (uint64_t)n;
	metric_add(M_DROPS, n);
	if (!ds->n)
		pthread_cond_broadcast(&ds->none);
}

static void drop_free(struct drop *d)
{
	if (d->leaks)
		log_warn("drop", "object %" PRIu64 ": some of its slices stay allocated until the "
			 "next mount", d->fileid);
	free(d->trees.v);
	free(d->leaves.v);
	drops_add(&d->e->drops, -1);
	free(d);
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

static int drop_blocks(struct engine *e, const struct gone *g)
{
	struct drop *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;

	bool tree = g->body.kind == BODY_TREE;
	struct blocks *to = tree ? &d->trees : &d->leaves;
	int r = body_append_blocks(g->body.bytes, &to->v, &to->n);
	if (r < 0) {
		free(d->trees.v);
		free(d->leaves.v);
		free(d);
		return r;
	}
	d->e = e;
	d->fileid = g->fileid;
	d->step = tree ? STEP_TREE : STEP_LEAVES;
	drops_add(&e->drops, 1);
	drop_run(d);
	return 0;
}

void engine_drop(struct engine *e, const struct gone *g)
{
	int r = 0;

	lock_assert_none();
	if (!g->fileid || g->draft || g->attr.nlink)
		return;
	if (g->body.kind == BODY_EXTENTS)
		r = drop_encoded(e, g->fileid, g->body.bytes);
	else if (g->body.kind == BODY_BLOCKS || g->body.kind == BODY_TREE)
		r = drop_blocks(e, g);
	if (r < 0)
		log_error("drop", "object %" PRIu64 ": %s; its slices stay allocated until the next "
			  "mount", g->fileid, error_text(r));
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
	assert(!ds->n);
	pthread_cond_destroy(&ds->none);
	lock_fini(&ds->lock);
}
