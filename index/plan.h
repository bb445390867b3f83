/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Plans: index operations as pure functions (docs/architecture.md, "Plans").
 *
 *	static int rmdir_plan(struct plan *p, struct index_op *op)
 *	{
 *		const struct kv_row *row;
 *		int r = plan_get(p, key_file(op->parent), &row);
 *		if (r)                     // PLAN_WAIT, INDEX_MISS or negative
 *			return r == INDEX_MISS ? -ENOENT : r;
 *		plan_expect_present(p, key_file(op->parent));
 *		...
 *		plan_del(p, key_name(...));
 *		return 0;
 *	}
 *
 * A plan function must not keep anything between its runs but what it writes
 * into `op`'s outputs (which the runner clears before each run), must not look
 * at clocks (plan_now() is the same in all runs), and ends with 0 (submit), an
 * outcome > 0 or a negative errno (both: nothing is written; the answer is valid
 * as of the moment of its last read wave).
 *
 * Row bytes and what plan_alloc() gives live until index_op_fini(), so outputs
 * may point to them.
 */
#include "index/index.h"
#include "index/keys.h"

enum { PLAN_WAIT = 1000 }; /* not read yet: ask for more, then return this */

typedef int plan_fn(struct plan *p, struct index_op *op);

/* Runs fn for op until it has an outcome; then op->done(op, outcome). */
void plan_run(struct index *ix, struct index_op *op, plan_fn *fn);

/*
 * The same, of a plan that writes, where the index is elsewhere: its first run sees what
 * is recalled (recall.h), and nothing where nothing is. If it writes then, the request
 * compares all that it was shown, and no round trip was made for reading; else, or if that
 * was not so, it is as with plan_run().
 */
void plan_run_ahead(struct index *ix, struct index_op *op, plan_fn *fn);

/* A key's row. 0, INDEX_MISS, PLAN_WAIT, or the engine's error. */
int plan_get(struct plan *p, struct key k, const struct kv_row **ret);

/* [from, to), at most limit rows. 0 (also if empty), PLAN_WAIT, negative. */
int plan_range(struct plan *p, struct key from, struct key to, uint32_t limit,
	       const struct kv_rows **ret);

/* Guards. plan_expect_same(): the key is as plan_get() showed it (also absent). */
void plan_expect_same(struct plan *p, struct key k);
void plan_expect_present(struct plan *p, struct key k);
void plan_expect_absent(struct plan *p, struct key k);
void plan_expect_empty(struct plan *p, struct key from, struct key to);
/* [from, to), all of which was read: these rows as they are, and no other. */
void plan_expect_range(struct plan *p, struct key from, struct key to,
		       const struct kv_rows *rows);

/* Writes. Bytes are copied. The last one for a key counts. */
void plan_put(struct plan *p, struct key k, struct bytes value);
void plan_del(struct plan *p, struct key k);

/* May use the space that is kept back for deleting. */
void plan_use_reserve(struct plan *p);
void plan_need_room(struct plan *p); /* as kv_req has it */

struct timespec plan_now(struct plan *p);
struct index *plan_index(struct plan *p);
uint64_t plan_session(struct plan *p); /* in whose name it writes, in this run */
/* Is that this one, or, if it is 0, the one that its first run was in? */
bool plan_is_of_session(struct plan *p, uint64_t session);
void *plan_alloc(struct plan *p, size_t n);
char *plan_name(struct plan *p, struct bytes name); /* with a NUL; or NULL */
/* True in runs after an outcome that is not known, and could not be found out: the writes of
 * that run may have been done, and others may have changed what they changed since. */
bool plan_is_repeat(struct plan *p);
/* The n-th object that the plan is about to remove or to move: `fileid`, or, on a repeat, the
 * one that it was in the run of which no answer came. If that is another one, the plan has
 * nothing to do with what it sees now. */
enum { PLAN_TARGETS = 2 };
uint64_t plan_target(struct plan *p, unsigned n, uint64_t fileid);

/* put of a value made by an encoder: plan_put_encoded(p, k, record_encode, &r) */
#define plan_put_encoded(p, k, encode, v)                                      \
	do {                                                                   \
		struct writer plan_w_ = { 0 };                                 \
		encode((v), &plan_w_);                                         \
		plan_put_writer((p), (k), &plan_w_);                           \
	} while (0)
void plan_put_writer(struct plan *p, struct key k, struct writer *w); /* takes */
