/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_drop(): all slices and blocks of an object come back, whatever its body
 * is, whenever the index answers, and while others use the pool.
 */
#include "tests/unit/objects.h"

#include <pthread.h>
#include <unistd.h>

static struct kv *fault; /* of the last engine with `faulty` */

static int wrap_async(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, 7, true, ret);

	fault = *ret;
	return r;
}

static int wrap_sync(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, 7, false, ret);

	fault = *ret;
	return r;
}

static struct engine *open_engine(int (*wrap)(struct kv *, struct kv **))
{
	struct engine_opts o = { .in_memory = true, .pool_bytes = 32 << 20, .wrap_kv = wrap };
	struct engine *e = NULL;
	char *reason = NULL;

	if (engine_open(&o, &e, &reason))
		fail_msg("%s", reason);
	return e;
}

static int count_orphan(void *arg, uint64_t fileid, uint64_t id)
{
	(void)fileid;
	(void)id;
	++*(unsigned *)arg;
	return 0;
}

static unsigned orphans(struct engine *e)
{
	unsigned n = 0;
	struct index_visitor v = { .orphan_block = count_orphan, .arg = &n };

	assert_int_equal(index_scan(e->ix, &v), 0);
	return n;
}

static void assert_all_free(struct engine *e)
{
	struct writer w = { 0 };

	assert_int_equal(pool_nfree(e->pool), pool_npages(e->pool));
	assert_int_equal(pool_check(e->pool, &w), 0);
	writer_fini(&w);
	assert_int_equal(orphans(e), 0);
}

static void test_each_kind(void **state)
{
	static const enum body_kind kinds[] = { BODY_EXTENTS, BODY_BLOCKS, BODY_TREE };
	(void)state;

	for (unsigned k = 0; k < 3; k++) {
		struct engine *e = open_engine(NULL);
		uint64_t id = index_new_id(e->ix);

		assert_true(make_object(e, id, 1, k ? 5000 : 40, k ? 100 : 16, kinds[k]));
		check_clean(e);
		assert_true(pool_nfree(e->pool) < pool_npages(e->pool));
		/* An index in the process: the space is there when it returns. */
		assert_true(unlink_object(e, id));
		assert_int_equal(metric_get(M_DROPS), 0);
		assert_all_free(e);
		engine_close(e);
	}
}

/* Nothing is dropped of what has a name left, of drafts, and of nothing. */
static void test_not_gone(void **state)
{
	struct engine *e = open_engine(NULL);
	uint64_t id = index_new_id(e->ix);
	struct gone g;
	void *row;
	(void)state;

	assert_true(make_object(e, id, 1, 40, 16, BODY_EXTENTS));
	uint32_t nfree = pool_nfree(e->pool);
	assert_true(get_gone(e, id, &g, &row));
	struct gone linked = g, draft = g, nobody = { 0 };
	linked.attr.nlink = 1;
	draft.draft = true;
	engine_drop(e, &linked);
	engine_drop(e, &draft);
	engine_drop(e, &nobody);
	assert_int_equal(pool_nfree(e->pool), nfree);
	check_clean(e);
	free(row);
	assert_true(unlink_object(e, id));
	assert_all_free(e);
	engine_close(e);
}

/* A pinned slice goes on as DYING and is free when its pin goes (I4). */
static void test_pinned(void **state)
{
	struct engine *e = open_engine(NULL);
	uint64_t id = index_new_id(e->ix);
	struct slice_view v;
	(void)state;

	assert_true(make_object(e, id, 1, 40, 64, BODY_EXTENTS));
	assert_true(pool_next(e->pool, 0, &v));
	assert_int_equal(pool_pin(e->pool, v.id), 0);
	assert_true(unlink_object(e, id));
	assert_true(pool_next(e->pool, 0, &v));
	assert_int_equal(v.state, SLICE_DYING);
	assert_true(page_holds(pool_page(e->pool, v.id.page), page_word(id, 1, 0)));
	assert_int_equal(pool_unpin(e->pool, v.id), 0);
	assert_all_free(e);
	engine_close(e);
}

/* The index fails at each call in turn, once: it is tried again. */
static void test_failing_once(void **state)
{
	static const int faults[] = { -EIO, -ETIMEDOUT, -ENOSPC, KV_UNKNOWN };
	(void)state;

	for (unsigned f = 0; f < 8; f++) {
		/* Many blocks, which go on one at a time, or a single one. */
		bool armed = true, many = f < 4;
		for (uint64_t nth = 1; armed; nth++) {
			struct engine *e = open_engine(wrap_sync);
			uint64_t id = index_new_id(e->ix);
			struct gone g;
			void *row = NULL;

			assert_true(make_object(e, id, 1, many ? 5000 : 900, 200,
						many ? BODY_TREE : BODY_BLOCKS));
			assert_true(get_gone(e, id, &g, &row));
			assert_int_equal(put_row(e, object_key(e, id), BYTES_NONE), 0);
			uint64_t before = kv_fault_count(fault);
			kv_fault_arm(fault, nth, faults[f % 4]);
			engine_drop(e, &g);
			armed = kv_fault_count(fault) - before >= nth;
			kv_fault_arm(fault, 0, 0);
			free(row);
			assert_all_free(e);
			engine_close(e);
		}
	}
}

/* What is missing costs what only it named, and nothing else: a block of extents no
 * more than itself, one of a tree the blocks of extents that it led to. The next
 * rebuild has those back. */
static void test_missing_block(void **state)
{
	(void)state;

	for (unsigned tree = 0; tree < 2; tree++) {
		struct engine *e = open_engine(NULL);
		uint64_t id = index_new_id(e->ix);
		struct block_ref *refs;
		uint32_t n;
		struct gone g;
		void *row;

		assert_true(make_object(e, id, 1, 5000, 1024, tree ? BODY_TREE : BODY_BLOCKS));
		assert_true(get_gone(e, id, &g, &row));
		assert_int_equal(body_decode_blocks(g.body.bytes, &refs, &n), 0);
		assert_int_equal(n, tree ? 2 : 5); /* of three regions, and of two */
		assert_int_equal(put_row(e, key_block(id, refs[1].id), BYTES_NONE), 0);
		assert_int_equal(put_row(e, object_key(e, id), BYTES_NONE), 0);
		engine_drop(e, &g);
		assert_int_equal(pool_npages(e->pool) - pool_nfree(e->pool),
				 tree ? 5000 - 3 * REGION_PAGES : 0);
		assert_int_equal(orphans(e), tree ? 2 : 0);
		free(refs);
		free(row);
		engine_close(e);
	}
}

struct worker {
	struct engine *e;
	uint64_t seed;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct rng r = { w->seed };

	for (unsigned i = 0; i < 60; i++) {
		static const enum body_kind kinds[] = { BODY_EXTENTS, BODY_BLOCKS, BODY_TREE };
		uint64_t id = index_new_id(w->e->ix);
		uint64_t npages = 1 + rnd_below(&r, 1500);

		assert_int_not_equal(id, 0);
		if (make_object(w->e, id, 1, npages, 1 + (uint32_t)rnd_below(&r, 300),
				kinds[rnd_below(&r, 3)]))
			assert_true(unlink_object(w->e, id));
	}
	return NULL;
}

/* Closing waits for the drops that are still under way. */
static void test_threads(void **state)
{
	uint64_t seed = rnd_seed();
	(void)state;

	for (unsigned async = 0; async < 2; async++) {
		struct engine *e = open_engine(async ? wrap_async : NULL);
		struct worker w[3];
		pthread_t t[3];

		for (unsigned i = 0; i < 3; i++) {
			w[i] = (struct worker){ e, seed + i };
			assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
		}
		for (unsigned i = 0; i < 3; i++)
			pthread_join(t[i], NULL);
		drops_wait(&e->drops);
		assert_all_free(e);
		check_clean(e);

		uint64_t id = index_new_id(e->ix);
		assert_true(make_object(e, id, 1, 5000, 300, BODY_TREE));
		assert_true(unlink_object(e, id));
		engine_close(e);
		assert_int_equal(metric_get(M_DROPS), 0);
	}
}

static int idle(void **state)
{
	(void)state;
	assert_idle();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_each_kind, idle),
		cmocka_unit_test_teardown(test_not_gone, idle),
		cmocka_unit_test_teardown(test_pinned, idle),
		cmocka_unit_test_teardown(test_failing_once, idle),
		cmocka_unit_test_teardown(test_missing_block, idle),
		cmocka_unit_test_teardown(test_threads, idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
