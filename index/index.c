/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index as a whole: opening it, making a new one, its superblock, numbers.
 * All of it is plans, too; here they are waited for.
 *
 * Numbers (fileids, block ids) are never given twice, also after a crash: `M
 * next` in the index is above all that were given. They are reserved a lot at a
 * time, the next lot when the last one is half used up, and nobody waits for it:
 * who needs a number may be on the very thread that commits.
 *
 * Threads: any, but for opening, closing and index_set_pool().
 */
#include "index/index.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sodium/randombytes.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/log.h"
#include "index/keys.h"
#include "index/plan.h"
#include "index/priv.h"
#include "index/recall.h"

enum { IDS_LOT = 65536 };

struct index {
	struct kv *kv;
	_Atomic uint64_t session;
	struct index_super super;
	struct recall *recall;     /* or NULL */

	struct lock lock;
	uint64_t next_id, end_id;  /* in hand: [next_id, end_id) */
	uint64_t spare_id;         /* first of the lot to use after them, or 0 */
	bool reserving;            /* ids_op is under way */
	pthread_cond_t reserved;   /* it has ended */

	_Atomic uint64_t nonce;
	struct index_op ids_op;    /* whose `reserving` it is */
};

DEFINE_CLEANUP(struct index *, index_close)

struct kv *index_kv(struct index *ix) { return ix->kv; }
const struct index_super *index_super(struct index *ix) { return &ix->super; }
struct recall *index_recall(struct index *ix) { return ix->recall; }
uint64_t index_session(const struct index *ix) { return ix->session; }

void index_set_session(struct index *ix, uint64_t session)
{
	ix->session = session;
	recall_clear(ix->recall);
}

/* Waiting -------------------------------------------------------------------- */

struct waiter {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	int outcome;
};

static void waiter_done(struct index_op *op, int outcome)
{
	struct waiter *w = op->arg;

	pthread_mutex_lock(&w->mutex);
	w->outcome = outcome;
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->mutex);
}

int index_wait(struct index *ix, struct index_op *op,
	       void (*call)(struct index *ix, struct index_op *op))
{
	struct waiter w = {
		.mutex = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
	};
	struct kv *outer = kv_completing;

	op->arg = &w;
	op->done = waiter_done;
	kv_completing = NULL; /* as in kv_wait() */
	call(ix, op);
	pthread_mutex_lock(&w.mutex);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.mutex);
	pthread_mutex_unlock(&w.mutex);
	kv_completing = outer;
	return w.outcome;
}

/* Numbers ---------------------------------------------------------------------- */

/* -> entry.attr.fileid: the first of a lot. After an unknown outcome it takes
 * another one; a lot that is lost is no loss. */
static int ids_plan(struct plan *p, struct index_op *op)
{
	const struct kv_row *row;
	uint64_t next;
	int r = plan_get(p, key_meta("next"), &row);

	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	r = number_decode(row->value, &next);
	if (r < 0)
		return r;
	if (next <= INDEX_ROOT || next > UINT64_MAX - 2 * IDS_LOT)
		return -EUCLEAN;
	plan_use_reserve(p); /* a full index says -ENOSPC for what is made, and not that it is broken */
	plan_expect_same(p, key_meta("next"));
	plan_put_encoded(p, key_meta("next"), number_encode, next + IDS_LOT);
	op->entry.attr.fileid = next;
	return 0;
}

static void ids_done(struct index_op *op, int outcome)
{
	struct index *ix = op->arg;
	uint64_t first = op->entry.attr.fileid;

	index_op_fini(op);
	WITH_LOCK(&ix->lock);
	if (!outcome)
		ix->spare_id = first;
	ix->reserving = false;
	pthread_cond_broadcast(&ix->reserved);
}

static void ids_reserve(struct index *ix)
{
	ix->ids_op = (struct index_op){ .done = ids_done, .arg = ix };
	plan_run(ix, &ix->ids_op, ids_plan);
}

/* The next number, or 0. */
static uint64_t ids_take(struct index *ix)
{
	WITH_LOCK(&ix->lock);
	if (ix->next_id == ix->end_id && ix->spare_id) {
		ix->next_id = ix->spare_id;
		ix->end_id = ix->spare_id + IDS_LOT;
		ix->spare_id = 0;
	}
	return ix->next_id < ix->end_id ? ix->next_id++ : 0;
}

/* Is the caller to reserve a lot now? Then he must. */
static bool ids_are_low(struct index *ix)
{
	WITH_LOCK(&ix->lock);
	if (ix->end_id - ix->next_id > IDS_LOT / 2 || ix->spare_id || ix->reserving)
		return false;
	ix->reserving = true;
	return true;
}

uint64_t index_new_id(struct index *ix)
{
	uint64_t id = ids_take(ix);

	/* Every 64th looks: half a lot is plenty to come to that. */
	if ((!id || id % 64 == 0) && ids_are_low(ix)) {
		ids_reserve(ix);
		if (!id)
			id = ids_take(ix);
	}
	if (!id)
		log_error("index", "no number left for a new object: the index takes no writes");
	return id;
}

uint64_t index_nonce(struct index *ix)
{
	/* Begins at random; 0 is left out once in a life. relaxed: it orders
	 * nothing. */
	uint64_t n = atomic_fetch_add_explicit(&ix->nonce, 1, memory_order_relaxed);

	return n ? n : index_nonce(ix);
}

static void ids_wait(struct index *ix)
{
	WITH_LOCK(&ix->lock);
	while (ix->reserving)
		lock_wait(&ix->lock, &ix->reserved);
}

/* The first lot, waited for. It may fail: who only reads never misses it. */
static void ids_begin(struct index *ix)
{
	ix->reserving = true; /* nobody else is here yet */
	ids_reserve(ix);
	ids_wait(ix);
}

/* Opening ---------------------------------------------------------------------- */

static struct key key_letter(char c)
{
	struct key k;

	k.len = 1;
	k.b[0] = (uint8_t)c;
	return k;
}

/* A superblock, the number behind the root's, and the root. */
static void format_plan(struct plan *p, const struct index_op *op)
{
	struct index_super super = { .made = plan_now(p) };
	struct record root = {
		.kind = RECORD_WHOLE,
		.attr = {
			.fileid = INDEX_ROOT, .version = 1,
			.mode = S_IFDIR | 0755, .nlink = 2,
			.uid = op->attr.uid, .gid = op->attr.gid,
			.atime = plan_now(p), .mtime = plan_now(p),
			.ctime = plan_now(p), .btime = plan_now(p),
		},
		.parent = INDEX_ROOT,
	};

	randombytes_buf(&super.fs_id, sizeof(super.fs_id));
	randombytes_buf(super.hash_key, sizeof(super.hash_key));
	plan_expect_absent(p, key_meta("super"));
	plan_put_encoded(p, key_meta("super"), super_encode, &super);
	plan_put_encoded(p, key_meta("next"), number_encode, INDEX_ROOT + 1);
	plan_put_encoded(p, key_file(INDEX_ROOT), record_encode, &root);
}

/* flags: format if empty. -> bytes: the superblock's value. 0 without it: made. */
static int open_plan(struct plan *p, struct index_op *op)
{
	const struct kv_row *super;
	const struct kv_rows *any;
	int has_super = plan_get(p, key_meta("super"), &super);
	/* All durable keys: 'A' to behind 'Z'. */
	int r = plan_range(p, key_letter('A'), key_letter('Z' + 1), 1, &any);

	if (has_super && has_super != INDEX_MISS)
		return has_super;
	if (r)
		return r;
	if (!has_super) {
		op->bytes = super->value;
		return 0;
	}
	if (any->nrows)
		return -EUCLEAN;
	if (!op->flags)
		return -ENOENT;
	format_plan(p, op);
	return 0;
}

static void open_call(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, open_plan);
}

/* Reads the superblock, after having made one if need be. */
static int index_load(struct index *ix, bool format)
{
	struct index_op op = { .flags = format, .attr = { .uid = geteuid(), .gid = getegid() } };
	int r = index_wait(ix, &op, open_call);

	if (!r && !op.bytes.p) {
		index_op_fini(&op);
		r = index_wait(ix, &op, open_call);
	}
	if (!r)
		r = op.bytes.p ? super_decode(op.bytes, &ix->super) : -EUCLEAN;
	index_op_fini(&op);
	return r;
}

int index_open(struct kv *kv, uint64_t session, bool format, struct index **ret)
{
	_cleanup_(index_closep) struct index *ix = calloc(1, sizeof(*ix));

	if (!ix) {
		kv_close(kv);
		return -ENOMEM;
	}
	assert(session);
	ix->kv = kv;
	ix->session = session;
	lock_init(&ix->lock, LOCK_INDEX_IDS);
	pthread_cond_init(&ix->reserved, NULL);
	uint64_t nonce;
	randombytes_buf(&nonce, sizeof(nonce));
	atomic_init(&ix->nonce, nonce);
	int r = kv->ops->caps(kv).alone ? 0 : recall_new(&ix->recall);
	if (!r)
		r = index_load(ix, format);
	if (r < 0)
		return r;
	ids_begin(ix);
	*ret = steal(&ix);
	return 0;
}

void index_close(struct index *ix)
{
	if (!ix)
		return;
	ids_wait(ix);
	int r = ix->kv->ops->session_end(ix->kv, ix->session);
	if (r < 0)
		log_error("index", "cannot end session %llu: %s",
			  (unsigned long long)ix->session, strerror(-r));
	kv_close(ix->kv);
	pthread_cond_destroy(&ix->reserved);
	lock_fini(&ix->lock);
	recall_free(ix->recall);
	free(ix);
}

/* The pool ----------------------------------------------------------------------- */

/* fileid: the pool's id */
static int set_pool_plan(struct plan *p, struct index_op *op)
{
	struct index_super super = *index_super(plan_index(p));
	const struct kv_row *row;
	int r = plan_get(p, key_meta("super"), &row);

	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	super.pool_id = op->fileid;
	plan_expect_same(p, key_meta("super"));
	plan_put_encoded(p, key_meta("super"), super_encode, &super);
	return 0;
}

static void set_pool_call(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, set_pool_plan);
}

int index_set_pool(struct index *ix, uint64_t pool_id)
{
	struct index_op op = { .fileid = pool_id };
	int r = index_wait(ix, &op, set_pool_call);

	index_op_fini(&op);
	if (!r)
		ix->super.pool_id = pool_id;
	return r;
}

/* -> entry.attr.fileid: the pool, or 0 */
static int disk_plan(struct plan *p, struct index_op *op)
{
	const struct kv_row *row;
	int r = plan_get(p, key_meta("disk"), &row);

	op->entry.attr.fileid = 0;
	if (r)
		return r == INDEX_MISS ? 0 : r;
	return number_decode(row->value, &op->entry.attr.fileid);
}

static void disk_call(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, disk_plan);
}

int index_disk(struct index *ix, uint64_t *ret_pool_id)
{
	struct index_op op = { 0 };
	int r = index_wait(ix, &op, disk_call);

	if (!r)
		*ret_pool_id = op.entry.attr.fileid;
	index_op_fini(&op);
	return r;
}

static int set_disk_plan(struct plan *p, struct index_op *op)
{
	plan_use_reserve(p); /* a full index is opened, too */
	plan_put_encoded(p, key_meta("disk"), number_encode, op->fileid);
	return 0;
}

static void set_disk_call(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, set_disk_plan);
}

int index_set_disk(struct index *ix, uint64_t pool_id)
{
	struct index_op op = { .fileid = pool_id };
	int r = index_wait(ix, &op, set_disk_call);

	index_op_fini(&op);
	return r;
}
