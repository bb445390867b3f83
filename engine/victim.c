/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an object is in use is seen by what it consists of: an open file has pinned all of
 * its slices, so one of them will do. A body in the record has no slices: what is inline or a
 * symlink's target goes, and who has it open has a copy.
 */
#include "engine/victim.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/metrics.h"
#include "engine/pool.h"
#include "engine/priv.h"

struct victims {
	struct engine *e;
	struct uses *uses;
	struct lock lock;
	struct eviction watcher;
	unsigned ntelling;
	pthread_cond_t told;
};

/* Who is at it -------------------------------------------------------------------------- */

struct look {
	struct pool *pool;
	unsigned ours; /* pins that do not count */
};

static int one_pinned(void *arg, const struct extent *x)
{
	const struct look *l = arg;
	struct slice_view v;

	return x->pool_id == pool_id(l->pool) && pool_next(l->pool, x->slice, &v) &&
	       v.id.page == x->slice && v.pins > l->ours;
}

/* The first block that a list of them names: its extents, or a list. */
static int first_block(struct victims *vs, uint64_t fileid, struct bytes list, struct index_op *op)
{
	_cleanup_(freep) struct block_ref *v = NULL;
	uint32_t n = 0;
	int r = body_append_blocks(list, &v, &n);

	if (r < 0 || !n)
		return r < 0 ? r : -EUCLEAN;
	*op = (struct index_op){ .fileid = fileid, .blocks = v, .nblocks = 1 };
	return index_wait(vs->e->ix, op, index_get_blocks);
}

/* 1: one of its slices is; 0; negative: it cannot be read. */
static int is_pinned(struct victims *vs, uint64_t fileid, const struct body *b, bool lent)
{
	struct look l = { vs->e->pool, lent };
	_cleanup_(index_op_fini) struct index_op node = { 0 }, leaf = { 0 };
	struct bytes list = b->bytes;
	int r = 0;

	if (b->kind == BODY_EXTENTS)
		return body_each_extent(list, one_pinned, &l);
	if (b->kind != BODY_BLOCKS && b->kind != BODY_TREE)
		return 0;
	if (b->kind == BODY_TREE) {
		r = first_block(vs, fileid, list, &node);
		if (!r)
			list = node.rows->rows[0].value;
	}
	if (!r)
		r = first_block(vs, fileid, list, &leaf);
	return r ? r : body_each_extent(leaf.rows->rows[0].value, one_pinned, &l);
}

static bool is_open(struct victims *vs, uint64_t fileid)
{
	struct file *f = file_find(vs->e, fileid);

	if (f)
		file_unref(f);
	return f;
}

int victim_look(struct victims *vs, const struct entry *e, bool lent)
{
	int r = is_open(vs, e->attr.fileid) ? 1 : is_pinned(vs, e->attr.fileid, &e->body, lent);

	return r > 0 ? -EBUSY : r;
}

/* Who is told --------------------------------------------------------------------------- */

/* Between these the watcher stays. */
static struct eviction tell_begin(struct victims *vs)
{
	WITH_LOCK(&vs->lock);

	vs->ntelling++;
	return vs->watcher;
}

static void tell_end(struct victims *vs)
{
	WITH_LOCK(&vs->lock);

	if (!--vs->ntelling)
		pthread_cond_broadcast(&vs->told);
}

static void tell(struct victims *vs, const struct index_op *op)
{
	const struct eviction v = tell_begin(vs);

	if (v.evicted)
		v.evicted(v.arg, &op->gone, op->entries, op->nentries);
	tell_end(vs);
}

bool victims_spare(struct victims *vs)
{
	const struct eviction v = tell_begin(vs);
	bool has = v.spare && v.spare(v.arg);

	tell_end(vs);
	return has;
}

bool victims_look(struct victims *vs, bool begin)
{
	const struct eviction v = tell_begin(vs);
	bool all = !v.look || v.look(v.arg, begin);

	tell_end(vs);
	return all;
}

void victims_watch(struct victims *vs, const struct eviction *v)
{
	WITH_LOCK(&vs->lock);

	while (vs->ntelling)
		lock_wait(&vs->lock, &vs->told);
	vs->watcher = v ? *v : (struct eviction){ 0 };
}

/* Going --------------------------------------------------------------------------------- */

static int begin(struct victims *vs, struct victim *v)
{
	int n = 0;

	v->of = vs;
	v->names = NULL;
	if (v->place.kind == PLACE_FILEID)
		n = uses_names(vs->uses, v->fileid, &v->names);
	v->op = (struct index_op){
		.fileid = v->fileid, .place = v->place, .names = v->names,
		.nnames = n > 0 ? (uint32_t)n : 0, .call = kv_call_of(&v->call),
		.mask = v->lived_at ? INDEX_SET_TTL : 0, .attr.mtime.tv_sec = v->lived_at,
		.value = v->body,
	};
	return n == -ENOENT ? INDEX_MISS : n < 0 ? n : 0;
}

static void end(struct victim *v, int r)
{
	struct index_op *op = &v->op;

	if (!r) {
		metric_add(v->reason, 1);
		metric_add(M_EVICTED_BYTES, (int64_t)(index_pool_pages(&op->gone.attr,
						      &op->gone.body) * PAGE_BYTES));
		tell(v->of, op);
		engine_drop(v->of->e, &op->gone);
	}
	index_op_fini(op);
	free(steal(&v->names));
}

static void gone(struct index_op *op, int r)
{
	struct victim *v = op->arg;

	end(v, r);
	v->done(v, r);
}

void victim_go(struct victims *vs, struct victim *v)
{
	int r = begin(vs, v);

	if (r) {
		v->done(v, r);
		return;
	}
	v->op.done = gone;
	v->op.arg = v;
	index_evict(vs->e->ix, &v->op);
}

int victim_go_now(struct victims *vs, struct victim *v)
{
	int r = begin(vs, v);

	if (!r) {
		r = index_wait(vs->e->ix, &v->op, index_evict);
		end(v, r);
	}
	return r;
}

int victim_go_wait(struct victims *vs, uint64_t fileid, struct place place, enum metric reason)
{
	struct victim v = { .fileid = fileid, .place = place, .reason = reason };

	return victim_go_now(vs, &v);
}

int victim_dir_go_wait(struct victims *vs, uint64_t dir, struct timespec since)
{
	_cleanup_(index_op_fini) struct index_op op = { .fileid = dir, .attr.mtime = since };
	int r = index_wait(vs->e->ix, &op, index_evict_dir);

	if (!r) {
		metric_add(M_EVICTED_DIRS, 1);
		tell(vs, &op);
	}
	return r;
}

int victims_new(struct engine *e, struct uses *u, struct victims **ret)
{
	struct victims *vs = calloc(1, sizeof(*vs));

	if (!vs)
		return -ENOMEM;
	vs->e = e;
	vs->uses = u;
	lock_init(&vs->lock, LOCK_EVICT);
	pthread_cond_init(&vs->told, NULL);
	*ret = vs;
	return 0;
}

void victims_free(struct victims *vs)
{
	if (!vs)
		return;
	pthread_cond_destroy(&vs->told);
	lock_fini(&vs->lock);
	free(vs);
}
