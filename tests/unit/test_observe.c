/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_observe(): who observes an engine in this process sees each write of the rows
 * that it asked for, once, in the order of commits, with the value before and after;
 * refuses a request alone; and hears what became of it. The observer here keeps a
 * copy of the rows by what it is told, and nothing else: each `before` must be what
 * it has, and in the end it must have what is stored.
 */
#include "tests/unit/kv_kit.h"

#include <pthread.h>
#include <semaphore.h>

enum { NKEYS = 24, KEY_BYTES = 2, THREADS = 4, UNDO_MAX = 1 << 16 };

#define KINDS "DEg"

struct copy {
	struct kv_observer o;
	uint64_t value[sizeof(KINDS) - 1][NKEYS]; /* 0: no row */
	struct {
		unsigned kind, key;
		uint64_t before;
	} undo[UNDO_MAX]; /* since the last end() */
	unsigned nundo, writes, refused, undone, ends;
	uint64_t refuse; /* values divisible by it are refused; 0: none */
};

static uint64_t value_of(struct bytes v)
{
	uint64_t n = 0;

	if (v.p)
		memcpy(&n, v.p, sizeof(n));
	return n;
}

static int copy_write(void *arg, struct bytes key, struct bytes before, struct bytes after)
{
	struct copy *c = arg;
	const uint8_t *k = key.p;
	const char *at = strchr(KINDS, k[0]);

	assert_non_null(at);
	assert_int_equal(key.len, KEY_BYTES);
	unsigned kind = (unsigned)(at - KINDS);
	uint64_t *v = &c->value[kind][k[1]];
	assert_int_equal(value_of(before), *v);
	assert_true(!before.p == !*v);
	if (c->refuse && after.p && value_of(after) % c->refuse == 0) {
		c->refused++;
		return -ESTALE;
	}
	assert_true(c->nundo < UNDO_MAX);
	c->undo[c->nundo].kind = kind;
	c->undo[c->nundo].key = k[1];
	c->undo[c->nundo++].before = *v;
	*v = value_of(after);
	c->writes++;
	return 0;
}

static void copy_end(void *arg, bool committed)
{
	struct copy *c = arg;

	c->ends++;
	if (!committed && c->nundo)
		c->undone++;
	while (c->nundo) {
		c->nundo--;
		if (!committed)
			c->value[c->undo[c->nundo].kind][c->undo[c->nundo].key] =
				c->undo[c->nundo].before;
	}
}

static struct copy *copy_new(struct kv *kv)
{
	struct copy *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->o = (struct kv_observer){ KINDS, copy_write, copy_end, c, NULL };
	assert_int_equal(kv_observe(kv, &c->o), 0);
	return c;
}

/* What is stored is what the observer was told. */
static void assert_same(struct kv *kv, struct copy *c)
{
	assert_int_equal(c->nundo, 0);
	for (unsigned k = 0; k < strlen(KINDS); k++) {
		for (unsigned i = 0; i < NKEYS; i++) {
			uint8_t key[KEY_BYTES] = { (uint8_t)KINDS[k], (uint8_t)i };
			struct kv_read rd = { .from = BYTES_OF(key, sizeof(key)) };
			struct kv_req req = { .reads = &rd, .nreads = 1 };
			assert_int_equal(kv_wait(kv, &req), KV_DONE);
			uint64_t is = req.rows[0].nrows ? value_of(req.rows[0].rows[0].value) : 0;
			assert_int_equal(is, c->value[k][i]);
			kv_req_fini(&req);
		}
	}
}

/* Engines ------------------------------------------------------------------------ */

struct fix {
	struct folder folder;
	struct kv *kv;
};

static void open_mem(struct fix *x, size_t bytes)
{
	(void)bytes;
	assert_int_equal(kv_mem_open(&x->kv), 0);
}

static void open_lmdb(struct fix *x, size_t bytes)
{
	struct kv_lmdb_opts o = { .path = folder_file(&x->folder, "index"),
				  .size_bytes = bytes, .create = true };

	assert_int_equal(kv_lmdb_open(&o, &x->kv), 0);
}

/* The observer is set on the engine within. */
static void open_fault(struct fix *x, size_t bytes)
{
	open_lmdb(x, bytes);
	assert_int_equal(kv_fault_open(x->kv, 7, false, &x->kv), 0);
}

static void (*const engines[])(struct fix *, size_t) = { open_mem, open_lmdb, open_fault };

/* Cases -------------------------------------------------------------------------- */

static int write_one(struct kv *kv, char kind, unsigned key, uint64_t value)
{
	uint8_t k[KEY_BYTES] = { (uint8_t)kind, (uint8_t)key };

	return put_bytes(kv, BYTES_OF(k, sizeof(k)),
			 value ? BYTES_OF(&value, sizeof(value)) : BYTES_NONE);
}

static void test_kinds(void **state)
{
	(void)state;
	for (unsigned e = 0; e < 3; e++) {
		struct fix x;

		folder_make(&x.folder);
		engines[e](&x, 8 << 20);
		struct copy *c = copy_new(x.kv);
		assert_int_equal(write_one(x.kv, 'D', 1, 7), 0);
		assert_int_equal(write_one(x.kv, 'g', 1, 8), 0);
		assert_int_equal(write_one(x.kv, 'D', 1, 9), 0);
		assert_int_equal(write_one(x.kv, 'D', 2, 0), 0); /* of nothing */
		assert_int_equal(c->writes, 4);
		assert_int_equal(write_one(x.kv, 'Z', 1, 7), 0);
		assert_int_equal(write_one(x.kv, 'n', 1, 7), 0);
		assert_int_equal(c->writes, 4);
		assert_same(x.kv, c);

		/* The end of the session: of its rows, those. */
		assert_int_equal(x.kv->ops->session_end(x.kv, 0), 0);
		assert_int_equal(c->writes, 5);
		assert_int_equal(c->value[2][1], 0);
		assert_same(x.kv, c);
		kv_observe_no_more(x.kv, &c->o);
		assert_int_equal(write_one(x.kv, 'D', 1, 10), 0);
		assert_int_equal(c->writes, 5);
		kv_close(x.kv);
		folder_remove(&x.folder);
		free(c);
	}
}

/* A request that writes a row twice, and one whose last write is refused. */
static void test_refused(void **state)
{
	(void)state;
	for (unsigned e = 0; e < 3; e++) {
		uint8_t d[KEY_BYTES] = { 'D', 1 }, g[KEY_BYTES] = { 'g', 2 };
		uint64_t one = 1, two = 2, bad = 100;
		struct kv_write twice[] = { { BYTES_OF(d, 2), BYTES_OF(&one, 8) },
					    { BYTES_OF(g, 2), BYTES_OF(&one, 8) },
					    { BYTES_OF(d, 2), BYTES_OF(&two, 8) } };
		struct kv_write last[] = { { BYTES_OF(d, 2), BYTES_NONE },
					   { BYTES_OF(g, 2), BYTES_OF(&bad, 8) } };
		struct fix x;

		folder_make(&x.folder);
		engines[e](&x, 8 << 20);
		struct copy *c = copy_new(x.kv);
		c->refuse = 100;
		struct kv_req req = { .writes = twice, .nwrites = 3 };
		assert_int_equal(run(x.kv, &req), KV_DONE);
		assert_int_equal(c->value[0][1], 2);
		assert_int_equal(c->value[2][2], 1);
		req = (struct kv_req){ .writes = last, .nwrites = 2 };
		assert_int_equal(run(x.kv, &req), -ESTALE);
		assert_int_equal(c->value[0][1], 2);
		assert_int_equal(c->value[2][2], 1);
		assert_same(x.kv, c);
		kv_close(x.kv);
		folder_remove(&x.folder);
		free(c);
	}
}

/* What one of them refuses none has seen; who asked for other rows is not told of these. */
static void test_several(void **state)
{
	(void)state;
	for (unsigned e = 0; e < 3; e++) {
		struct fix x;

		folder_make(&x.folder);
		engines[e](&x, 8 << 20);
		struct copy *c[3] = { copy_new(x.kv), copy_new(x.kv), copy_new(x.kv) };
		c[0]->refuse = 100;
		c[1]->refuse = 77;
		c[2]->o.kinds = "E";
		assert_int_equal(write_one(x.kv, 'D', 1, 5), 0);
		assert_int_equal(write_one(x.kv, 'D', 1, 77), -ESTALE);
		assert_int_equal(write_one(x.kv, 'g', 2, 100), -ESTALE);
		assert_int_equal(write_one(x.kv, 'g', 2, 6), 0);
		assert_same(x.kv, c[0]);
		assert_same(x.kv, c[1]);
		assert_int_equal(c[2]->writes, 0);
		kv_observe_no_more(x.kv, &c[0]->o);
		assert_int_equal(write_one(x.kv, 'E', 3, 100), 0);
		assert_int_equal(c[0]->value[1][3], 0);
		assert_int_equal(c[2]->value[1][3], 100);
		assert_same(x.kv, c[1]);
		kv_close(x.kv);
		folder_remove(&x.folder);
		for (unsigned i = 0; i < 3; i++)
			free(c[i]);
	}
}

/* A group --------------------------------------------------------------------------- */

enum { PARTY = 16 };

struct member {
	struct kv_req req;
	struct kv_write writes[2];
	uint8_t keys[2][KEY_BYTES];
	uint64_t value;
	int outcome;
	sem_t *done;
};

static void member_done(struct kv_req *req, int outcome)
{
	struct member *m = (struct member *)req;

	m->outcome = outcome;
	sem_post(m->done);
}

struct party {
	struct kv_req req;
	struct kv *kv;
	struct member m[PARTY];
};

/* From within a done() of the engine: they are queued, and then make one group. */
static void party_begins(struct kv_req *req, int outcome)
{
	struct party *p = (struct party *)req;

	assert_int_equal(outcome, KV_DONE);
	for (unsigned i = 0; i < PARTY; i++)
		kv_submit(p->kv, &p->m[i].req);
}

static void test_one_of_a_group(void **state)
{
	(void)state;
	for (unsigned bad = 0; bad < 2; bad++) {
		struct kv_write first = { bytes_str("Zfirst"), bytes_str("v") };
		struct party p = { 0 };
		struct fix x;
		sem_t done;

		folder_make(&x.folder);
		open_lmdb(&x, 8 << 20);
		struct copy *c = copy_new(x.kv);
		c->refuse = 100;
		sem_init(&done, 0, 0);
		for (unsigned i = 0; i < PARTY; i++) {
			struct member *m = &p.m[i];
			m->value = bad && i % 5 == 2 ? 100 : i + 1;
			m->done = &done;
			for (unsigned k = 0; k < 2; k++) {
				m->keys[k][0] = k ? 'g' : 'D';
				m->keys[k][1] = (uint8_t)(i / 2); /* two write each */
				m->writes[k] = (struct kv_write){ BYTES_OF(m->keys[k], 2),
								  BYTES_OF(&m->value, 8) };
			}
			m->req = (struct kv_req){ .writes = m->writes, .nwrites = 2,
						  .done = member_done };
		}
		p.kv = x.kv;
		p.req = (struct kv_req){ .writes = &first, .nwrites = 1, .done = party_begins };
		int64_t commits = metric_get(M_INDEX_COMMITS);
		kv_submit(x.kv, &p.req);
		for (unsigned i = 0; i < PARTY; i++)
			sem_wait(&done);
		for (unsigned i = 0; i < PARTY; i++)
			assert_int_equal(p.m[i].outcome,
					 bad && i % 5 == 2 ? -ESTALE : KV_DONE);
		if (!bad) {
			assert_int_equal(metric_get(M_INDEX_COMMITS) - commits, 2);
			assert_int_equal(c->ends, 1);
		} else {
			assert_true(c->undone > 0); /* they were tried together */
		}
		assert_same(x.kv, c);
		kv_close(x.kv);
		folder_remove(&x.folder);
		sem_destroy(&done);
		free(c);
	}
}

/* Random ------------------------------------------------------------------------- */

struct worker {
	struct kv *kv;
	uint64_t seed;
	bool large; /* and may not fit */
};

static void *work(void *arg)
{
	static const char kinds[] = KINDS "Zn";
	static const uint8_t padding[16 << 10];
	struct worker *w = arg;
	struct rng g = { w->seed };

	for (unsigned i = 0; i < 400; i++) {
		struct kv_write writes[6];
		uint8_t keys[6][KEY_BYTES], values[6][sizeof(padding)];
		unsigned n = 1 + (unsigned)below(&g, 6);
		for (unsigned k = 0; k < n; k++) {
			uint64_t v = 1 + below(&g, 1000000);
			keys[k][0] = (uint8_t)kinds[below(&g, 5)];
			keys[k][1] = (uint8_t)below(&g, NKEYS);
			memcpy(values[k], &v, sizeof(v));
			writes[k] = (struct kv_write){
				BYTES_OF(keys[k], KEY_BYTES),
				chance(&g, 30) ? BYTES_NONE :
				BYTES_OF(values[k], w->large && chance(&g, 40) ? sizeof(padding) : 8),
			};
		}
		struct kv_req req = { .writes = writes, .nwrites = n };
		int r = run(w->kv, &req);
		assert_true(r == KV_DONE || r == -ESTALE || (w->large && r == -ENOSPC));
	}
	return NULL;
}

static void walk(void *arg, uint64_t seed)
{
	(void)arg;
	for (unsigned e = 0; e < 6; e++) {
		bool large = e >= 3;
		struct worker w[THREADS];
		pthread_t t[THREADS];
		struct fix x;

		folder_make(&x.folder);
		/* Room for some of the large ones only: commits fail. */
		engines[e % 3](&x, large ? 1 << 20 : 8 << 20);
		struct copy *c = copy_new(x.kv);
		c->refuse = 20;
		for (unsigned i = 0; i < THREADS; i++) {
			w[i] = (struct worker){ x.kv, seed + i, large };
			assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		assert_true(c->refused > 0);
		assert_same(x.kv, c);
		assert_int_equal(x.kv->ops->session_end(x.kv, 0), 0);
		assert_same(x.kv, c);
		assert_kv_fine(x.kv);
		kv_close(x.kv);
		folder_remove(&x.folder);
		free(c);
	}
}

static void test_random(void **state)
{
	(void)state;
	for_seeds("observe", walk, NULL);
}

static int idle(void **state)
{
	(void)state;
	assert_nothing_in_flight();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_kinds, idle),
		cmocka_unit_test_teardown(test_refused, idle),
		cmocka_unit_test_teardown(test_several, idle),
		cmocka_unit_test_teardown(test_one_of_a_group, idle),
		cmocka_unit_test_teardown(test_random, idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
