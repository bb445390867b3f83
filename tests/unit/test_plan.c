/* SPDX-License-Identifier: Apache-2.0 */
/* The runner of plans, over an engine that does to it what engines can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>
#include <errno.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "index/plan.h"
#include "index/priv.h"
#include "kv_shaky.h"

static uint64_t seed;

static struct shaky *last; /* the engine under the index that was opened last */

static struct index *open_over(struct shaky_opts o)
{
	struct index *ix;
	struct kv *kv;

	o.seed = seed;
	assert_int_equal(kv_mem_open(&kv), 0);
	last = shaky_over(kv, (struct shaky_opts){ .seed = seed });
	assert_int_equal(index_open(&last->kv, INDEX_SESSION_OWN, true, &ix), 0);
	struct kv_caps caps = o.caps;
	last->o = o;
	last->o.caps = caps;
	atomic_store(&last->nsubmits, 0);
	atomic_store(&last->nwaves, 0);
	return ix;
}

static int run(struct index *ix, struct index_op *op, plan_fn *fn);

/* index_wait() takes a call without the function: here it is. */
static _Thread_local plan_fn *fn_to_run;

static void call_plan(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, fn_to_run);
}

static int run(struct index *ix, struct index_op *op, plan_fn *fn)
{
	fn_to_run = fn;
	return index_wait(ix, op, call_plan);
}

static int get_number(struct plan *p, struct key k, uint64_t *ret)
{
	const struct kv_row *row;
	int r = plan_get(p, k, &row);

	*ret = 0;
	if (r)
		return r == INDEX_MISS ? 0 : r;
	return number_decode(row->value, ret);
}

static uint64_t stored(struct index *ix, struct key k)
{
	struct kv_read read = { .from = key_bytes(&k), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	uint64_t n = 0;

	assert_int_equal(kv_wait(last->inner, &req), 0);
	(void)ix;
	if (req.rows[0].nrows)
		assert_int_equal(number_decode(req.rows[0].rows[0].value, &n), 0);
	kv_req_fini(&req);
	return n;
}

/* Counters: each op counts exactly once, whatever happens ----------------------- */

enum { COUNTERS = 3, COUNTER_BASE = 1000 };

/* fileid: which counter; parent: the op's own number, its mark in the index */
static int count_plan(struct plan *p, struct index_op *op)
{
	struct key mark = key_ndirs(op->parent);
	struct key counter = key_times(op->fileid);
	uint64_t n, marked;
	int r = get_number(p, counter, &n);
	int r2 = get_number(p, mark, &marked);

	if (r || r2)
		return r ? r : r2;
	if (marked) {
		/* It is there already; only an unknown outcome can do that. */
		assert_true(plan_is_repeat(p));
		return 0;
	}
	plan_expect_same(p, counter);
	plan_expect_absent(p, mark);
	plan_put_encoded(p, counter, number_encode, n + 1);
	plan_put_encoded(p, mark, number_encode, 1);
	return 0;
}

enum { THREADS = 4 };

struct counting {
	struct index *ix;
	_Atomic uint64_t state, marks;
	atomic_uint counted[COUNTERS];
	unsigned nops;
};

static void *count_thread(void *arg)
{
	struct counting *c = arg;

	for (unsigned i = 0; i < c->nops; i++) {
		unsigned which = (unsigned)(random_of(&c->state) % COUNTERS);
		struct index_op op = {
			.fileid = COUNTER_BASE + which,
			.parent = atomic_fetch_add(&c->marks, 1),
		};
		assert_int_equal(run(c->ix, &op, count_plan), 0);
		index_op_fini(&op);
		atomic_fetch_add(&c->counted[which], 1);
	}
	return NULL;
}

static void count_over(struct shaky_opts o, unsigned nops)
{
	struct counting c = { .ix = open_over(o), .state = seed, .marks = 10000, .nops = nops };
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, count_thread, &c);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < COUNTERS; i++)
		assert_int_equal(stored(c.ix, key_times(COUNTER_BASE + i)), c.counted[i]);
	index_close(c.ix);
}

static void test_counts_are_exact(void **state)
{
	(void)state;
	count_over((struct shaky_opts){ 0 }, 1000);
	count_over((struct shaky_opts){ .conflict = 30 }, 500);
	count_over((struct shaky_opts){ .later = 50 }, 500);
	count_over((struct shaky_opts){ .conflict = 20, .unknown_done = 20, .unknown_lost = 20,
					.later = 50 }, 500);
}

/* One moment: what a plan reads in several waves belongs together ---------------- */

/* Keeps A == B, and the range of marks as long as A says, up to 8. */
static int pair_write_plan(struct plan *p, struct index_op *op)
{
	uint64_t a, b;
	int r = get_number(p, key_times(1), &a);
	int r2 = get_number(p, key_times(2), &b);

	if (r || r2)
		return r ? r : r2;
	assert_int_equal(a, b);
	plan_expect_same(p, key_times(1));
	plan_put_encoded(p, key_times(1), number_encode, a + 1);
	plan_put_encoded(p, key_times(2), number_encode, a + 1);
	struct key mark = key_block(77, 1 + a % 8);
	if (a / 8 % 2 == 0)
		plan_put_encoded(p, mark, number_encode, a);
	else
		plan_del(p, mark);
	(void)op;
	return 0;
}

static uint32_t marks_at(uint64_t a)
{
	return a / 8 % 2 == 0 ? a % 8 : 8 - a % 8;
}

/* One key a wave, the range in the last: 5 if they are of different moments. */
static int pair_read_plan(struct plan *p, struct index_op *op)
{
	const struct kv_rows *rows;
	uint64_t a, b;
	int r = get_number(p, key_times(1), &a);

	(void)op;
	if (!r)
		r = get_number(p, key_times(2), &b);
	if (!r)
		r = plan_range(p, key_prefix('E', 77), key_prefix_end(key_prefix('E', 77)), 100,
			       &rows);
	if (r)
		return r;
	return a != b || rows->nrows != marks_at(a) ? 5 : 0;
}

struct pairing {
	struct index *ix;
	atomic_bool stop;
	_Atomic uint64_t nreads;
};

static void *pair_reader(void *arg)
{
	struct pairing *c = arg;

	while (!atomic_load(&c->stop)) {
		struct index_op op = { 0 };
		assert_int_equal(run(c->ix, &op, pair_read_plan), 0);
		index_op_fini(&op);
		atomic_fetch_add(&c->nreads, 1);
	}
	return NULL;
}

static void test_a_plan_sees_one_moment(void **state)
{
	struct pairing c = { .ix = open_over((struct shaky_opts){ .later = 50, .unknown_lost = 5 }) };
	pthread_t readers[2];
	unsigned n;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&readers[i], NULL, pair_reader, &c);
	for (n = 0; n < 2000 || atomic_load(&c.nreads) < 500; n++) {
		struct index_op op = { 0 };
		int r = run(c.ix, &op, pair_write_plan);
		assert_int_equal(r, 0);
		index_op_fini(&op);
	}
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	assert_true(stored(c.ix, key_times(1)) >= n);
	index_close(c.ix);
}

/* The ways out -------------------------------------------------------------------- */

static atomic_uint runs;

static int blind_plan(struct plan *p, struct index_op *op)
{
	atomic_fetch_add(&runs, 1);
	plan_put_encoded(p, key_times(op->fileid), number_encode, 1);
	op->entry.attr.fileid = op->fileid; /* an output */
	return 0;
}

static int read_write_plan(struct plan *p, struct index_op *op)
{
	uint64_t n;
	int r = get_number(p, key_times(op->fileid), &n);

	return r ? r : blind_plan(p, op);
}

static void *lose_all_races(void *arg)
{
	struct index_op op = { .fileid = 9 };

	atomic_store(&runs, 0);
	assert_int_equal(run(arg, &op, read_write_plan), -EIO);
	assert_true(atomic_load(&runs) >= 500);
	assert_int_equal(op.entry.attr.fileid, 0);
	index_op_fini(&op);
	return NULL;
}

/* On a small stack: an inline engine must not make the runner recurse. */
static void test_gives_up_after_many_conflicts(void **state)
{
	int outcomes[] = { KV_CONFLICT, KV_UNKNOWN };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct index *ix = open_over((struct shaky_opts){ .always = outcomes[i] });
		pthread_attr_t attr;
		pthread_t thread;

		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 128 * 1024);
		pthread_create(&thread, &attr, lose_all_races, ix);
		pthread_join(thread, NULL);
		pthread_attr_destroy(&attr);
		assert_int_equal(stored(ix, key_times(9)), 0);
		index_close(ix);
	}
}

static void test_errors_pass_through_and_clear_outputs(void **state)
{
	int errors[] = { -ENOSPC, -EIO, -ETIMEDOUT, -EUCLEAN };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct index *ix = open_over((struct shaky_opts){ .always = errors[i] });
		struct index_op op = { .fileid = 9 };
		assert_int_equal(run(ix, &op, blind_plan), errors[i]);
		assert_int_equal(op.entry.attr.fileid, 0);
		index_op_fini(&op);
		index_close(ix);
	}
}

static void test_deadline_and_cancel_end_retries(void **state)
{
	struct index *ix = open_over((struct shaky_opts){ .always = KV_CONFLICT });
	struct index_op op = { .fileid = 9 };

	(void)state;
	op.call.deadline_ns = clock_ns() + 1;
	assert_int_equal(run(ix, &op, read_write_plan), -ETIMEDOUT);
	index_op_fini(&op);
	op.call.deadline_ns = 0;
	atomic_store(&op.call.cancelled, true);
	assert_int_equal(run(ix, &op, read_write_plan), -ECANCELED);
	index_op_fini(&op);
	index_close(ix);
}

static void cancel(void *arg)
{
	struct kv_call *call = arg;

	atomic_store(&call->cancelled, true);
}

/* Cancelling ends retries of what is known not to be done. What may be done is
 * found out, and done: the caller must not be left with neither. */
static void test_cancelled_while_an_answer_is_lost(void **state)
{
	static const int outcomes[] = { KV_CONFLICT, KV_UNKNOWN };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct kv_call whole = { 0 };
		struct index *ix = open_over((struct shaky_opts){
			.nth_write = 1, .nth_outcome = outcomes[i],
			.before_write = cancel, .arg = &whole });
		struct index_op op = { .fileid = 9, .call = kv_call_of(&whole) };
		bool known = outcomes[i] == KV_CONFLICT;
		assert_int_equal(run(ix, &op, blind_plan), known ? -ECANCELED : 0);
		assert_false(op.unsure);
		assert_int_equal(!stored(ix, key_times(9)), known);
		index_op_fini(&op);
		index_close(ix);
	}
}

static int wide_plan(struct plan *p, struct index_op *op)
{
	for (uint32_t i = 0; i < op->limit; i++)
		plan_put_encoded(p, key_times(100 + i), number_encode, i);
	return 0;
}

static void test_too_large_is_refused(void **state)
{
	struct index *ix = open_over((struct shaky_opts){ 0 });
	struct index_op op = { .limit = last->kv.ops->caps(&last->kv).max_writes };

	(void)state;
	assert_int_equal(run(ix, &op, wide_plan), 0);
	index_op_fini(&op);
	op.limit++;
	assert_int_equal(run(ix, &op, wide_plan), -E2BIG);
	index_op_fini(&op);
	index_close(ix);
}

/* What plans lean on ---------------------------------------------------------------- */

static struct bytes big_copy(struct plan *p, size_t n, uint8_t fill)
{
	void *b = plan_alloc(p, n);

	assert_non_null(b);
	assert_int_equal((uintptr_t)b % 16, 0);
	memset(b, fill, n);
	return BYTES_OF(b, n);
}

/* Many reads, guards and writes, in more memory than one block; two waves. */
static int many_plan(struct plan *p, struct index_op *op)
{
	enum { N = 60 };
	uint64_t n;
	int r = 0;

	for (uint64_t i = 0; i < N; i++) {
		int one = get_number(p, key_times(100 + i), &n);
		r = one ? one : r;
	}
	if (r)
		return r;
	r = get_number(p, key_times(5000), &n);
	if (r)
		return r;
	for (uint64_t i = 0; i < N; i++) {
		plan_expect_same(p, key_times(100 + i));
		plan_expect_same(p, key_times(100 + i));
		plan_expect_present(p, key_file(INDEX_ROOT));
		plan_put(p, key_times(100 + i), big_copy(p, 100 + i * 100, 1));
		plan_del(p, key_times(100 + i));
		plan_put_encoded(p, key_times(100 + i), number_encode, i + n);
	}
	plan_put_encoded(p, key_times(5000), number_encode, n + 1);
	op->bytes = big_copy(p, 100000, 7);
	return 0;
}

static void test_tables_grow_and_the_last_write_counts(void **state)
{
	struct index *ix = open_over((struct shaky_opts){ .conflict = 50 });

	(void)state;
	for (unsigned k = 0; k < 20; k++) {
		struct index_op op = { 0 };
		assert_int_equal(run(ix, &op, many_plan), 0);
		assert_int_equal(((const uint8_t *)op.bytes.p)[99999], 7);
		index_op_fini(&op);
		for (uint64_t i = 0; i < 60; i++)
			assert_int_equal(stored(ix, key_times(100 + i)), i + k);
	}
	index_close(ix);
}

/* expect_same() of keys that only a range showed, there or not. */
static int by_range_plan(struct plan *p, struct index_op *op)
{
	const struct kv_rows *rows;
	int r = plan_range(p, key_prefix('E', 5), key_prefix_end(key_prefix('E', 5)), 10, &rows);

	if (r)
		return r;
	op->nentries = rows->nrows;
	plan_expect_same(p, key_block(5, 1));
	plan_expect_same(p, key_block(5, 2));
	plan_put_encoded(p, key_block(5, 1), number_encode, 1);
	if (op->fileid) {
		/* Somebody else is faster, once. */
		struct kv_write w = { BYTES_NONE, bytes_str("x") };
		struct kv_req req = { .writes = &w, .nwrites = 1 };
		struct key k = key_block(5, op->fileid);

		w.key = key_bytes(&k);
		assert_int_equal(kv_wait(last->inner, &req), 0);
		kv_req_fini(&req);
		op->fileid = 0;
	}
	return 0;
}

static void test_guards_of_ranges(void **state)
{
	struct index *ix = open_over((struct shaky_opts){ 0 });

	(void)state;
	for (uint64_t i = 1; i <= 3; i++) {
		struct index_op op = { .fileid = i };
		/* Key 3 was none that it relied upon: 1 run, else 2. */
		uint64_t before = atomic_load(&last->nsubmits);
		assert_int_equal(run(ix, &op, by_range_plan), 0);
		assert_int_equal(atomic_load(&last->nsubmits) - before, i == 3 ? 2 : 3);
		index_op_fini(&op);
	}
	index_close(ix);
}

/* A conflict brings fresh rows along: no wave of its own. */
static void test_waves_are_counted(void **state)
{
	struct index *ix = open_over((struct shaky_opts){ 0 });
	struct index_op op = { 0 };

	(void)state;
	assert_int_equal(run(ix, &op, pair_write_plan), 0);
	assert_int_equal(atomic_load(&last->nwaves), 1);
	assert_int_equal(atomic_load(&last->nsubmits), 2);
	index_op_fini(&op);
	assert_int_equal(run(ix, &op, pair_read_plan), 0);
	assert_int_equal(atomic_load(&last->nwaves), 4);
	index_op_fini(&op);
	index_close(ix);
}

static int test_end(void **state)
{
	int64_t v = 0;
	const char *busy = metrics_busy(&v);

	(void)state;
	if (busy)
		fprintf(stderr, "%s is %lld\n", busy, (long long)v);
	return busy ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_are_exact),
		cmocka_unit_test(test_a_plan_sees_one_moment),
		cmocka_unit_test(test_gives_up_after_many_conflicts),
		cmocka_unit_test(test_errors_pass_through_and_clear_outputs),
		cmocka_unit_test(test_deadline_and_cancel_end_retries),
		cmocka_unit_test(test_cancelled_while_an_answer_is_lost),
		cmocka_unit_test(test_too_large_is_refused),
		cmocka_unit_test(test_tables_grow_and_the_last_write_counts),
		cmocka_unit_test(test_guards_of_ranges),
		cmocka_unit_test(test_waves_are_counted),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, test_end);
}
