/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every index engine promises (index/kv.h), once for all of them: cases by
 * hand, random histories compared with a plain model (kv_model.h), and histories
 * of several threads that must look as if requests happened one at a time.
 */
#include "tests/unit/kv_model.h"

#include <pthread.h>
#include <semaphore.h>

#include "engine/remote.h"
#include "engine/server.h"

struct engine {
	const char *name;
	int (*open)(struct folder *f, struct kv **ret);
	bool keeps; /* durable keys are there after closing and opening again */
	bool slow;  /* answers take up to 1 ms each, or come from one thread */
	void (*closed)(void); /* what is behind it is closed, too */
};

struct fix {
	const struct engine *engine;
	struct kv *kv;
	struct folder folder;
};

/* Engines ----------------------------------------------------------------------- */

static int open_mem(struct folder *f, struct kv **ret)
{
	(void)f;
	return kv_mem_open(ret);
}

static int open_lmdb(struct folder *f, struct kv **ret)
{
	struct kv_lmdb_opts o = { .path = folder_file(f, "index"),
				  .size_bytes = 32 << 20, .create = true };

	return kv_lmdb_open(&o, ret);
}

static int open_synced(struct folder *f, struct kv **ret)
{
	struct kv_lmdb_opts o = { .path = folder_file(f, "index"), .create = true,
				  .size_bytes = 32 << 20, .sync = true };

	return kv_lmdb_open(&o, ret);
}

static int open_fault(struct folder *f, struct kv **ret)
{
	struct kv *inner;
	int r = open_mem(f, &inner);

	return r < 0 ? r : kv_fault_open(inner, 7, false, ret);
}

static int open_fault_async(struct folder *f, struct kv **ret)
{
	struct kv *inner;
	int r = open_lmdb(f, &inner);

	return r < 0 ? r : kv_fault_open(inner, 7, true, ret);
}

/* A node in this process, and a session at it over loopback. */
static struct {
	struct kv *kv;
	struct pool *pool;
	struct server *server;
	struct remote *remote;
} node;

static int open_remote_over(struct kv *kv, struct kv **ret)
{
	struct pool_opts pool = { .bytes = 4 << 20, .create = true };
	struct server_opts so = { .listen = "127.0.0.1:0" };
	char where[32];

	node.kv = so.kv = kv;
	assert_int_equal(pool_open(&pool, &node.pool), 0);
	so.pool = node.pool;
	assert_int_equal(server_open(&so, &node.server, NULL), 0);
	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(node.server));
	struct remote_opts ro = { .node = where, .name = "test" };
	assert_int_equal(remote_open(&ro, &node.remote, NULL), 0);
	return kv_remote_open(node.remote, ret);
}

static int open_remote(struct folder *f, struct kv **ret)
{
	struct kv *kv;
	int r = open_mem(f, &kv);

	return r < 0 ? r : open_remote_over(kv, ret);
}

static int open_remote_lmdb(struct folder *f, struct kv **ret)
{
	struct kv *kv;
	int r = open_lmdb(f, &kv);

	return r < 0 ? r : open_remote_over(kv, ret);
}

static int open_remote_late(struct folder *f, struct kv **ret)
{
	struct kv *kv;
	int r = open_fault_async(f, &kv);

	return r < 0 ? r : open_remote_over(kv, ret);
}

static void close_remote(void)
{
	remote_close(node.remote);
	server_close(node.server);
	assert_kv_fine(node.kv);
	kv_close(node.kv);
	pool_close(node.pool);
}

static const struct engine engines[] = {
	{ "mem", open_mem, false, false, NULL },
	{ "lmdb", open_lmdb, true, false, NULL },
	{ "lmdb synced", open_synced, true, false, NULL },
	{ "fault over mem", open_fault, false, false, NULL },
	{ "late fault over lmdb", open_fault_async, true, true, NULL },
	{ "remote over mem", open_remote, false, true, close_remote },
	{ "remote over lmdb", open_remote_lmdb, true, true, close_remote },
	{ "remote over late", open_remote_late, true, true, close_remote },
};

static void close_engine(const struct engine *e, struct kv *kv)
{
	kv_close(kv);
	if (e->closed)
		e->closed();
}

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	x->engine = *state;
	folder_make(&x->folder);
	*state = x;
	return x->engine->open(&x->folder, &x->kv);
}

static int teardown(void **state)
{
	struct fix *x = *state;

	assert_kv_fine(x->kv);
	close_engine(x->engine, x->kv);
	folder_remove(&x->folder);
	free(x);
	assert_nothing_in_flight();
	return 0;
}

static void reopen(struct fix *x)
{
	close_engine(x->engine, x->kv);
	assert_int_equal(x->engine->open(&x->folder, &x->kv), 0);
}

/* By hand ------------------------------------------------------------------------- */

static void test_what_is_put_is_got(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;

	assert_string_equal(get(kv, "Dx"), "-");
	assert_int_equal(put(kv, "Dx", "1"), KV_DONE);
	assert_string_equal(get(kv, "Dx"), "1");
	assert_int_equal(put(kv, "Dx", ""), KV_DONE);
	assert_string_equal(get(kv, "Dx"), "");
	assert_int_equal(del(kv, "Dx"), KV_DONE);
	assert_string_equal(get(kv, "Dx"), "-");
	assert_int_equal(del(kv, "Dx"), KV_DONE); /* nothing is no error */
}

static int txn1(struct kv *kv, struct kv_compare c, const char *key,
		const char *value)
{
	struct kv_write w = { bytes_str(key), bytes_str(value) };
	struct kv_req req = { .compares = &c, .ncompares = 1, .writes = &w,
			      .nwrites = 1 };

	return run(kv, &req);
}

static void test_compares(void **state)
{
	static const char *const prefixes[] = { "D", "n" };
	struct kv *kv = ((struct fix *)*state)->kv;

	for (unsigned i = 0; i < 2; i++) {
		char k[8], other[8];
		snprintf(k, sizeof(k), "%s1", prefixes[i]);
		snprintf(other, sizeof(other), "%s2", prefixes[i]);
		struct kv_compare absent = { KV_ABSENT, .key = bytes_str(k) };
		struct kv_compare present = { KV_PRESENT, .key = bytes_str(k) };
		struct kv_compare rev = { KV_REVISION, .key = bytes_str(k) };
		struct kv_compare empty = { KV_RANGE_EMPTY, .key = bytes_str(prefixes[i]),
					    .end = bytes_str(other) };

		assert_int_equal(txn1(kv, present, other, "x"), KV_CONFLICT);
		assert_int_equal(txn1(kv, rev, other, "a"), KV_DONE); /* 0: absent */
		assert_int_equal(txn1(kv, empty, other, "b"), KV_DONE);
		assert_int_equal(txn1(kv, absent, k, "1"), KV_DONE);
		assert_int_equal(txn1(kv, absent, other, "x"), KV_CONFLICT);
		assert_int_equal(txn1(kv, empty, other, "x"), KV_CONFLICT);
		assert_int_equal(txn1(kv, rev, other, "x"), KV_CONFLICT);
		assert_string_equal(get(kv, other), "b");
		rev.revision = revision_of(kv, k);
		assert_true(rev.revision > 0);
		assert_int_equal(txn1(kv, rev, k, "2"), KV_DONE);
		assert_int_equal(txn1(kv, rev, k, "3"), KV_CONFLICT);
		assert_string_equal(get(kv, k), "2");
		assert_int_equal(txn1(kv, present, k, "4"), KV_DONE);
	}
}

static void test_a_conflict_shows_what_is_there_and_writes_nothing(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	struct kv_compare c[] = { { KV_PRESENT, .key = bytes_str("D1") },
				  { KV_ABSENT, .key = bytes_str("n1") } };
	struct kv_write w[] = { { bytes_str("D2"), bytes_str("x") },
				{ bytes_str("n1"), BYTES_NONE } };
	struct kv_read rd[] = { { .from = bytes_str("n1") },
				{ bytes_str("D"), bytes_str("E"), 10 } };
	struct kv_req req = { .compares = c, .ncompares = 2, .writes = w,
			      .nwrites = 2, .reads = rd, .nreads = 2 };

	assert_int_equal(put(kv, "D1", "d"), KV_DONE);
	assert_int_equal(put(kv, "n1", "n"), KV_DONE);
	assert_int_equal(kv_wait(kv, &req), KV_CONFLICT);
	assert_int_equal(req.rows[0].nrows, 1);
	assert_true(bytes_eq(req.rows[0].rows[0].value, bytes_str("n")));
	assert_int_equal(req.rows[1].nrows, 1);
	assert_true(bytes_eq(req.rows[1].rows[0].key, bytes_str("D1")));
	kv_req_fini(&req);
	assert_string_equal(get(kv, "D2"), "-");
	assert_string_equal(get(kv, "n1"), "n");
	assert_int_equal(del(kv, "n1"), KV_DONE);
	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	assert_null(req.rows); /* with writes that are done, nothing is read */
	kv_req_fini(&req);
	assert_string_equal(get(kv, "D2"), "x");
}

static void test_the_last_write_for_a_key_counts(void **state)
{
	static const char *const keys[] = { "Dx", "nx" };
	struct kv *kv = ((struct fix *)*state)->kv;

	for (unsigned i = 0; i < 2; i++) {
		struct kv_write w[] = { { bytes_str(keys[i]), bytes_str("1") },
					{ bytes_str(keys[i]), BYTES_NONE },
					{ bytes_str(keys[i]), bytes_str("2") } };
		struct kv_req req = { .writes = w, .nwrites = 3 };

		assert_int_equal(run(kv, &req), KV_DONE);
		assert_string_equal(get(kv, keys[i]), "2");
		req.nwrites = 2;
		assert_int_equal(run(kv, &req), KV_DONE);
		assert_string_equal(get(kv, keys[i]), "-");
	}
}

static void assert_range(struct kv *kv, const char *from, const char *to,
			 uint32_t limit, const char *expect, bool more)
{
	struct kv_read rd = { bytes_str(from), bytes_str(to), limit };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	char found[64] = "";

	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++) {
		struct bytes k = req.rows[0].rows[i].key;
		snprintf(found + strlen(found), sizeof(found) - strlen(found), "%.*s ",
			 (int)k.len, (const char *)k.p);
	}
	assert_string_equal(found, expect);
	assert_int_equal(req.rows[0].more, more);
	kv_req_fini(&req);
}

static void test_ranges(void **state)
{
	static const char *const keys[] = { "A", "AA", "B", "a", "aa", "z", "{", "~" };
	struct kv *kv = ((struct fix *)*state)->kv;

	for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		assert_int_equal(put(kv, keys[i], "v"), KV_DONE);
	assert_range(kv, "", "\xff", 99, "A AA B a aa z { ~ ", false);
	assert_range(kv, "A", "B", 99, "A AA ", false); /* the end is not in it */
	assert_range(kv, "AA", "aa", 99, "AA B a ", false);
	assert_range(kv, "b", "|", 99, "z { ", false);
	assert_range(kv, "", "\xff", 4, "A AA B a ", true);
	assert_range(kv, "", "a", 3, "A AA B ", false);
	assert_range(kv, "", "aa", 3, "A AA B ", true);
	assert_range(kv, "A", "~", 0, "", true);
	assert_range(kv, "C", "Z", 9, "", false);
	assert_range(kv, "b", "c", 0, "", false);
	assert_range(kv, "B", "A", 9, "", false); /* backwards: empty */
	assert_range(kv, "z", "a", 9, "", false);
}

static void test_session_keys_end_with_their_session(void **state)
{
	struct fix *x = *state;
	struct kv_stat st;

	assert_int_equal(put(x->kv, "D1", "d"), KV_DONE);
	assert_int_equal(put(x->kv, "n1", "n"), KV_DONE);
	assert_int_equal(put(x->kv, "z1", "z"), KV_DONE);
	assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
	assert_int_equal(st.keys, 1);
	assert_int_equal(st.session_keys, 2);
	assert_int_equal(metric_get(M_SESSION_KEYS), 2);
	assert_true(st.used_bytes > 0 && st.used_bytes < st.size_bytes);
	assert_int_equal(x->kv->ops->session_end(x->kv, 0), 0);
	assert_int_equal(metric_get(M_SESSION_KEYS), 0);
	assert_range(x->kv, "", "\xff", 9, "D1 ", false);
	assert_int_equal(put(x->kv, "n1", "n"), KV_DONE);
	if (!x->engine->keeps)
		return;
	reopen(x);
	assert_range(x->kv, "", "\xff", 9, "D1 ", false);
}

static uint32_t count_keys(struct kv *kv)
{
	struct kv_req req;
	uint32_t n = read_everything(kv, &req)->nrows;

	kv_req_fini(&req);
	return n;
}

static void count_ring(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

/* Whose a key is is its last 8 bytes, whatever stands before them; a durable key
 * that ends with the same bytes is nobody's. */
static void test_a_session_ends_alone(void **state)
{
	static const uint64_t sessions[] = { 1, 2, 256, UINT64_MAX, 0x0100000000000000 };
	static const char *const kinds[] = { "n", "n\1", "w", "zzzzzzzzz", "D", "T1" };
	enum { N = sizeof(sessions) / sizeof(*sessions), K = sizeof(kinds) / sizeof(*kinds) };
	struct fix *x = *state;
	atomic_uint rings = 0, other = 0;
	struct kv_watch *w, *wd;
	uint32_t left = N * K;
	char buf[32];

	for (unsigned i = 0; i < N * K; i++)
		assert_int_equal(put_bytes(x->kv, session_key(buf, kinds[i % K], sessions[i / K]),
					   bytes_str("v")), KV_DONE);
	assert_int_equal(count_keys(x->kv), left);
	assert_int_equal(kv_watch(x->kv, bytes_str("n"), count_ring, &rings, &w), 0);
	assert_int_equal(kv_watch(x->kv, bytes_str("D"), count_ring, &other, &wd), 0);
	assert_int_equal(x->kv->ops->session_end(x->kv, 77), 0); /* there is none */
	assert_int_equal(count_keys(x->kv), left);
	for (unsigned i = 0; i < N; i++) {
		unsigned before = rings;
		assert_int_equal(x->kv->ops->session_end(x->kv, sessions[i]), 0);
		assert_true(rings > before);
		left -= 4;
		assert_int_equal(count_keys(x->kv), left);
		assert_int_equal(metric_get(M_SESSION_KEYS), left - 2 * N);
	}
	assert_int_equal(other, 0);
	kv_unwatch(x->kv, w);
	kv_unwatch(x->kv, wd);
}

static void test_revisions_rise_also_over_deletion_and_restart(void **state)
{
	struct fix *x = *state;
	uint64_t before = 0;

	for (unsigned i = 0; i < 20; i++) {
		const char *key = i % 3 ? "Dx" : "nx";
		struct kv_write w = { bytes_str(key), bytes_str("v") };
		struct kv_req req = { .writes = &w, .nwrites = 1 };

		assert_int_equal(run(x->kv, &req), KV_DONE);
		assert_true(req.revision > before);
		assert_int_equal(revision_of(x->kv, key), req.revision);
		before = req.revision;
		if (i % 2)
			assert_int_equal(del(x->kv, key), KV_DONE);
		if (i % 5 == 4 && x->engine->keeps)
			reopen(x);
	}
}

static void test_what_is_too_large_is_refused_whole(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	struct kv_caps caps = kv->ops->caps(kv);
	_cleanup_(freep) uint8_t *big = calloc(1, KV_VALUE_MAX + 1);
	struct kv_write w[200];
	struct kv_req req = { .writes = w, .nwrites = caps.max_writes + 1 };

	for (unsigned i = 0; i < 200; i++)
		w[i] = (struct kv_write){ bytes_str("Dx"), bytes_str("v") };
	assert_int_equal(run(kv, &req), -E2BIG);
	req.nwrites = caps.max_bytes / KV_VALUE_MAX + 1;
	for (unsigned i = 0; i < req.nwrites; i++)
		w[i].value = BYTES_OF(big, KV_VALUE_MAX);
	assert_int_equal(run(kv, &req), -E2BIG);
	assert_string_equal(get(kv, "Dx"), "-");
	assert_int_equal(put_bytes(kv, bytes_str("D"), BYTES_OF(big, KV_VALUE_MAX + 1)),
			 -E2BIG);
	assert_int_equal(put_bytes(kv, bytes_str("D"), BYTES_OF(big, KV_VALUE_MAX)),
			 KV_DONE);
	assert_int_equal(put_bytes(kv, BYTES_OF(big, KV_KEY_MAX + 1), bytes_str("v")),
			 -EINVAL);
	assert_int_equal(put_bytes(kv, BYTES_OF(big, 0), bytes_str("v")), -EINVAL);
	assert_int_equal(put_bytes(kv, BYTES_OF(big, KV_KEY_MAX), bytes_str("v")),
			 KV_DONE);
}

static void test_the_longest_and_last_key_can_be_had(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	uint8_t k[KV_KEY_MAX];

	memset(k, 0xff, sizeof(k));
	assert_int_equal(put_bytes(kv, BYTES_OF(k, KV_KEY_MAX - 1), bytes_str("v")),
			 KV_DONE);
	struct kv_read rd = { BYTES_OF(k, 1), BYTES_OF(k, KV_KEY_MAX), 9 };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	assert_int_equal(req.rows[0].nrows, 1);
	assert_false(req.rows[0].more);
	kv_req_fini(&req);
}

static void test_what_was_given_up_is_not_done(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	struct kv_call call = { .cancelled = true };
	struct kv_write w = { bytes_str("Dx"), bytes_str("v") };
	struct kv_req req = { .writes = &w, .nwrites = 1, .call = &call };

	assert_int_equal(run(kv, &req), -ECANCELED);
	call.cancelled = false;
	call.deadline_ns = clock_ns() - 1;
	assert_int_equal(run(kv, &req), -ETIMEDOUT);
	assert_string_equal(get(kv, "Dx"), "-");
	call.deadline_ns = clock_ns() + 10 * NS_PER_S;
	assert_int_equal(run(kv, &req), KV_DONE);
}

/* Doorbells ------------------------------------------------------------------------ */

static void ring(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_a_watch_rings_for_its_prefix(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	atomic_int d = 0, n = 0, all = 0;
	struct kv_watch *wd, *wn, *wall;

	assert_int_equal(kv_watch(kv, bytes_str("D1"), ring, &d, &wd), 0);
	assert_int_equal(kv_watch(kv, bytes_str("n"), ring, &n, &wn), 0);
	assert_int_equal(kv_watch(kv, bytes_str(""), ring, &all, &wall), 0);
	assert_int_equal(put(kv, "D1x", "v"), KV_DONE);
	assert_int_equal(d, 1);
	assert_int_equal(put(kv, "D", "v"), KV_DONE);
	assert_int_equal(put(kv, "D2", "v"), KV_DONE);
	assert_int_equal(txn1(kv, (struct kv_compare){ KV_PRESENT, .key = bytes_str("Q") },
			      "D1", "v"), KV_CONFLICT);
	assert_int_equal(d, 1);
	assert_int_equal(put(kv, "nx", "v"), KV_DONE);
	assert_int_equal(del(kv, "D1x"), KV_DONE);
	assert_int_equal(d, 2);
	assert_int_equal(n, 1);
	assert_int_equal(all, 5);
	kv_unwatch(kv, wd);
	assert_int_equal(put(kv, "D1x", "v"), KV_DONE);
	assert_int_equal(d, 2);
	kv_unwatch(kv, wall);
	kv_unwatch(kv, wn);
}

static int put_as(struct kv *kv, uint64_t session, const char *key)
{
	struct kv_write w = { bytes_str(key), bytes_str("v") };
	struct kv_req req = { .writes = &w, .nwrites = 1, .session = session };

	return run(kv, &req);
}

static void test_ones_own_commits_need_not_ring(void **state)
{
	struct kv *kv = ((struct fix *)*state)->kv;
	bool wire = !strcmp(kv->ops->name, "remote"); /* all that has a session is its own */
	atomic_int others = 0;
	struct kv_watch *w;

	assert_int_equal(kv_watch_others(kv, bytes_str("D"), 7, ring, &others, &w), 0);
	assert_int_equal(put_as(kv, 7, "D1"), KV_DONE);
	assert_int_equal(others, 0);
	assert_int_equal(put_as(kv, 0, "D1"), KV_DONE);
	assert_int_equal(others, 1);
	assert_int_equal(put_as(kv, 8, "D1"), KV_DONE);
	assert_int_equal(others, wire ? 1 : 2);
	kv_unwatch(kv, w);
}

/* They are found by how their prefixes begin. */
static void test_many_watches(void **state)
{
	enum { MANY = 1000 }; /* a node takes 1,024 of a session */
	struct kv *kv = ((struct fix *)*state)->kv;
	static struct kv_watch *w[MANY];
	static atomic_int rings[MANY];
	char key[16];

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "D%08u", i);
		rings[i] = 0;
		assert_int_equal(kv_watch(kv, bytes_str(key), ring, &rings[i], &w[i]), 0);
	}
	for (unsigned i = 0; i < MANY; i += 100) {
		snprintf(key, sizeof(key), "D%08uxy", i);
		assert_int_equal(put(kv, key, "v"), KV_DONE);
	}
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(rings[i], i % 100 == 0);
		kv_unwatch(kv, w[i]);
	}
}

struct bell {
	struct kv *kv;
	atomic_bool stop, is_alive;
};

static void ring_alive(void *arg)
{
	assert_true(((struct bell *)arg)->is_alive);
}

static void *keep_writing(void *arg)
{
	struct bell *b = arg;

	while (!b->stop)
		assert_int_equal(put(b->kv, "nb", "v"), KV_DONE);
	return NULL;
}

static void test_nothing_rings_after_unwatch(void **state)
{
	struct fix *x = *state;
	struct bell b = { .kv = x->kv };
	pthread_t t[2];

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, keep_writing, &b), 0);
	for (unsigned i = 0; i < 300; i++) {
		struct kv_watch *w;
		b.is_alive = true;
		assert_int_equal(kv_watch(x->kv, bytes_str("n"), ring_alive, &b, &w), 0);
		sched_yield();
		kv_unwatch(x->kv, w);
		b.is_alive = false;
	}
	b.stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* Random histories ------------------------------------------------------------------ */

static void walk(void *arg, uint64_t seed)
{
	struct fix *x = arg;
	struct rng g = { seed };
	struct model m = { 0 };
	unsigned steps = x->engine->slow ? 700 : 6000;

	for (unsigned i = 0; i < steps; i++) {
		model_step(&m, x->kv, &g);
		if (below(&g, 200) == 0) {
			uint64_t which = below(&g, MODEL_SESSIONS + 1);
			uint64_t session = which ? model_session(which - 1) : 0;
			assert_int_equal(x->kv->ops->session_end(x->kv, session), 0);
			model_end_session(&m, session);
			model_compare_all(&m, x->kv);
		}
		if (x->engine->keeps && below(&g, 200) == 0) {
			reopen(x);
			model_end_sessions(&m);
		}
		if (i % 100 == 0) {
			assert_kv_fine(x->kv);
			model_compare_all(&m, x->kv);
		}
	}
	model_compare_all(&m, x->kv);
	model_empty(&m, x->kv);
}

static void test_random_histories(void **state)
{
	struct fix *x = *state;

	for_seeds(x->engine->name, walk, x);
}

/* Failures -------------------------------------------------------------------------- */

static bool is_fault(const struct fix *x)
{
	return !strcmp(x->kv->ops->name, "fault");
}

static void walk_failing(void *arg, uint64_t seed)
{
	static const int failures[] = { -EIO, -ENOSPC, -ETIMEDOUT, KV_UNKNOWN };
	struct fix *x = arg;
	struct rng g = { seed };
	struct model m = { 0 };

	for (unsigned i = 0; i < (x->engine->slow ? 300 : 2000); i++) {
		if (chance(&g, 30))
			kv_fault_arm(x->kv, 1 + below(&g, 3), failures[below(&g, 4)]);
		model_step(&m, x->kv, &g);
	}
	kv_fault_arm(x->kv, 0, 0);
	model_compare_all(&m, x->kv);
	model_empty(&m, x->kv);
}

static void test_failures_do_nothing_and_unknown_does_all_or_nothing(void **state)
{
	struct fix *x = *state;

	if (is_fault(x))
		for_seeds(x->engine->name, walk_failing, x);
}

static void test_the_nth_request_fails(void **state)
{
	struct fix *x = *state;
	uint64_t n;

	if (!is_fault(x))
		return;
	n = kv_fault_count(x->kv);
	kv_fault_arm(x->kv, 2, -EIO);
	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	assert_int_equal(put(x->kv, "D2", "v"), -EIO);
	assert_int_equal(put(x->kv, "D3", "v"), KV_DONE);
	assert_int_equal(kv_fault_count(x->kv) - n, 3);
	assert_range(x->kv, "D", "E", 9, "D1 D3 ", false);
}

/* Several threads --------------------------------------------------------------------- */

enum { THREADS = 4 };

struct worker {
	struct fix *fix;
	unsigned number, rounds;
	struct rng rng;
	atomic_uint *done, *all;
	pthread_t thread;
};

static void run_threads(struct fix *x, unsigned rounds, void *(*fn)(void *arg),
			atomic_uint *done)
{
	struct worker w[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .fix = x, .number = i, .rounds = rounds,
					.rng = { i + 1 }, .done = done };
		assert_int_equal(pthread_create(&w[i].thread, NULL, fn, &w[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
}

/* Reads two numbers, at one moment; absent is 0. */
static void read_pair(struct kv *kv, const char *a, const char *b,
		      uint64_t number[2], uint64_t revision[2])
{
	struct kv_read rd[] = { { .from = bytes_str(a) }, { .from = bytes_str(b) } };
	struct kv_req req = { .reads = rd, .nreads = 2 };

	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	for (unsigned i = 0; i < req.nreads; i++) {
		number[i] = revision[i] = 0;
		if (!req.rows[i].nrows)
			continue;
		memcpy(&number[i], req.rows[i].rows[0].value.p, 8);
		revision[i] = req.rows[i].rows[0].revision;
	}
	kv_req_fini(&req);
}

static uint64_t read_number(struct kv *kv, const char *key)
{
	uint64_t number[2], revision[2];

	read_pair(kv, key, key, number, revision);
	return number[0];
}

/* One more in both, unless somebody was faster. */
static int count_up(struct kv *kv, const char *a, const char *b)
{
	uint64_t number[2], revision[2];

	read_pair(kv, a, b, number, revision);
	assert_int_equal(number[0], number[1]); /* at every moment */
	number[0]++;
	struct kv_compare c = { KV_REVISION, .key = bytes_str(a), .revision = revision[0] };
	struct kv_write w[] = { { bytes_str(a), BYTES_OF(number, 8) },
				{ bytes_str(b), BYTES_OF(number, 8) } };
	struct kv_req req = { .compares = &c, .ncompares = 1, .writes = w, .nwrites = 2 };
	return run(kv, &req);
}

static void *mirror(void *arg)
{
	struct worker *w = arg;
	struct kv *kv = w->fix->kv;

	for (unsigned i = 0; i < w->rounds; i++) {
		uint64_t first, second;

		switch (below(&w->rng, 5)) {
		case 0: /* session, then durable: what was seen stays seen */
			first = read_number(kv, "nx");
			second = read_number(kv, "Dx");
			assert_true(second >= first);
			break;
		case 1:
			first = read_number(kv, "Dx");
			second = read_number(kv, "nx");
			assert_true(second >= first);
			break;
		default:
			if (count_up(kv, "Dx", "nx") == KV_DONE)
				atomic_fetch_add(w->done, 1);
		}
	}
	return NULL;
}

static void test_durable_and_session_keys_change_at_one_moment(void **state)
{
	struct fix *x = *state;
	atomic_uint done = 0;

	run_threads(x, x->engine->slow ? 200 : 5000, mirror, &done);
	assert_int_equal(read_number(x->kv, "Dx"), done);
	assert_int_equal(read_number(x->kv, "nx"), done);
	assert_true(done > 0);
}

/* Two keys of one session, put at one moment; another session's stay. */
static void *put_and_end(void *arg)
{
	struct worker *w = arg;
	struct kv *kv = w->fix->kv;
	char a[16], b[16], from[16], to[16];
	struct kv_write both[] = { { session_key(a, "n", 5), bytes_str("v") },
				   { session_key(b, "w", 5), bytes_str("v") } };
	struct kv_read rd[] = {
		{ .from = both[0].key }, { .from = both[1].key }, { bytes_str("n"), bytes_str("x"), 9 },
		{ .from = session_key(from, "n", 6) }, { .from = session_key(to, "w", 6) },
	};

	for (unsigned i = 0; i < w->rounds; i++) {
		struct kv_req put_both = { .writes = both, .nwrites = 2 };
		struct kv_req look = { .reads = rd, .nreads = 5 };
		if (chance(&w->rng, 30))
			assert_int_equal(run(kv, &put_both), KV_DONE);
		if (chance(&w->rng, 30))
			assert_int_equal(kv->ops->session_end(kv, 5), 0);
		assert_int_equal(kv_wait(kv, &look), KV_DONE);
		assert_int_equal(look.rows[0].nrows, look.rows[1].nrows);
		assert_int_equal(look.rows[2].nrows, look.rows[0].nrows ? 4 : 2);
		assert_int_equal(look.rows[3].nrows + look.rows[4].nrows, 2);
		kv_req_fini(&look);
	}
	return NULL;
}

static void test_a_session_ends_at_one_moment(void **state)
{
	struct fix *x = *state;
	char a[16];

	assert_int_equal(put_bytes(x->kv, session_key(a, "n", 6), bytes_str("v")), KV_DONE);
	assert_int_equal(put_bytes(x->kv, session_key(a, "w", 6), bytes_str("v")), KV_DONE);
	run_threads(x, x->engine->slow ? 100 : 3000, put_and_end, NULL);
	assert_int_equal(x->kv->ops->session_end(x->kv, 5), 0);
	assert_int_equal(x->kv->ops->session_end(x->kv, 6), 0);
	assert_int_equal(count_keys(x->kv), 0);
}

static void *count_many(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->rounds;) {
		char a[4] = { (char)(chance(&w->rng, 50) ? 'D' : 'n'),
			      (char)('0' + below(&w->rng, 8)), 'a' };
		char b[4] = { a[0], a[1], 'b' };

		int r = count_up(w->fix->kv, a, b);
		assert_true(r == KV_DONE || r == KV_CONFLICT);
		i += r == KV_DONE;
	}
	return NULL;
}

static void test_no_count_is_lost(void **state)
{
	struct fix *x = *state;
	unsigned rounds = x->engine->slow ? 100 : 4000;
	uint64_t sum = 0;

	run_threads(x, rounds, count_many, NULL);
	for (unsigned i = 0; i < 16; i++) {
		char a[4] = { i % 2 ? 'D' : 'n', (char)('0' + i / 2), 'a' };
		sum += read_number(x->kv, a);
	}
	assert_int_equal(sum, rounds * THREADS);
}

/* Requests that go on from their done(): none is ever left behind. */
struct chain {
	struct kv_req req;
	struct kv_write write;
	struct kv_read read;
	struct worker *worker;
	struct rng rng;
	unsigned left;
	char key[8];
};

static sem_t chains_ended;

static void chain_next(struct chain *c);

static void chain_done(struct kv_req *req, int outcome)
{
	struct chain *c = (struct chain *)req;

	assert_int_equal(outcome, KV_DONE);
	assert_int_equal(metric_get(M_INDEX_CALLS) >= 0, 1);
	kv_req_fini(req);
	atomic_fetch_add(c->worker->done, 1);
	if (chance(&c->rng, 5) && !c->worker->fix->engine->slow)
		assert_int_equal(put(c->worker->fix->kv, "Dw", "v"), KV_DONE);
	if (--c->left) {
		chain_next(c);
		return;
	}
	free(c);
	sem_post(&chains_ended);
}

static void chain_next(struct chain *c)
{
	bool writes = chance(&c->rng, 70);

	c->key[0] = chance(&c->rng, 50) ? 'D' : 'n';
	c->write = (struct kv_write){ bytes_str(c->key), bytes_str("v") };
	c->read = (struct kv_read){ .from = bytes_str(c->key) };
	c->req = (struct kv_req){ .writes = &c->write, .nwrites = writes,
				  .reads = &c->read, .nreads = !writes,
				  .done = chain_done };
	kv_submit(c->worker->fix->kv, &c->req);
}

enum { CHAINS = 20 };

static void *start_chains(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < CHAINS; i++) {
		struct chain *c = calloc(1, sizeof(*c));
		c->worker = w;
		c->left = w->rounds;
		c->rng.x = draw(&w->rng);
		snprintf(c->key, sizeof(c->key), "?%u", i);
		chain_next(c);
	}
	for (unsigned i = 0; i < CHAINS; i++)
		while (sem_wait(&chains_ended) < 0)
			;
	return NULL;
}

static void test_no_request_is_left_behind(void **state)
{
	struct fix *x = *state;
	unsigned rounds = x->engine->slow ? 30 : 150;
	atomic_uint done = 0;

	sem_init(&chains_ended, 0, 0);
	run_threads(x, rounds, start_chains, &done);
	sem_destroy(&chains_ended);
	assert_int_equal(done, rounds * THREADS * CHAINS);
}

/* Closing right after the last answer, while who gave it is still on its way. */
struct last {
	struct kv_req req;
	struct kv *kv;
	sem_t told;
};

static void last_done(struct kv_req *req, int outcome)
{
	assert_int_equal(outcome, KV_DONE);
	kv_req_fini(req);
	sem_post(&((struct last *)req)->told);
	usleep(300); /* so it is closed meanwhile, if it can be */
}

static void *submit_last(void *arg)
{
	struct last *last = arg;

	kv_submit(last->kv, &last->req);
	return NULL;
}

static void test_close_waits_for_who_commits(void **state)
{
	struct fix *x = *state;
	struct kv_write w = { bytes_str("D1"), bytes_str("v") };
	pthread_t t;

	for (unsigned i = 0; i < 100; i++) {
		struct last last = { .kv = x->kv, .req = { .writes = &w, .nwrites = 1,
							   .done = last_done } };
		sem_init(&last.told, 0, 0);
		assert_int_equal(pthread_create(&t, NULL, submit_last, &last), 0);
		while (sem_wait(&last.told) < 0)
			;
		reopen(x);
		pthread_join(t, NULL);
		sem_destroy(&last.told);
	}
}

/* The list ------------------------------------------------------------------------------- */

#define T(f) { #f, f }
static const struct {
	const char *name;
	CMUnitTestFunction fn;
} tests[] = {
	T(test_what_is_put_is_got),
	T(test_compares),
	T(test_a_conflict_shows_what_is_there_and_writes_nothing),
	T(test_the_last_write_for_a_key_counts),
	T(test_ranges),
	T(test_session_keys_end_with_their_session),
	T(test_a_session_ends_alone),
	T(test_a_session_ends_at_one_moment),
	T(test_revisions_rise_also_over_deletion_and_restart),
	T(test_what_is_too_large_is_refused_whole),
	T(test_the_longest_and_last_key_can_be_had),
	T(test_what_was_given_up_is_not_done),
	T(test_a_watch_rings_for_its_prefix),
	T(test_ones_own_commits_need_not_ring),
	T(test_many_watches),
	T(test_nothing_rings_after_unwatch),
	T(test_random_histories),
	T(test_failures_do_nothing_and_unknown_does_all_or_nothing),
	T(test_the_nth_request_fails),
	T(test_durable_and_session_keys_change_at_one_moment),
	T(test_no_count_is_lost),
	T(test_no_request_is_left_behind),
	T(test_close_waits_for_who_commits),
};

enum { NTESTS = sizeof(tests) / sizeof(*tests),
       NENGINES = sizeof(engines) / sizeof(*engines) };

int main(void)
{
	struct CMUnitTest list[NTESTS * NENGINES];
	char names[NTESTS * NENGINES][100];

	for (unsigned i = 0; i < NTESTS * NENGINES; i++) {
		const struct engine *e = &engines[i / NTESTS];
		snprintf(names[i], sizeof(names[i]), "%s: %s", e->name,
			 tests[i % NTESTS].name);
		list[i] = (struct CMUnitTest){ names[i], tests[i % NTESTS].fn, setup,
					       teardown, (void *)e };
	}
	if (getenv("TEST")) /* a pattern: run some only */
		cmocka_set_test_filter(getenv("TEST"));
	alarm(200); /* a request that is left behind would wait for ever */
	return _cmocka_run_group_tests("kv", list, NTESTS * NENGINES, NULL, NULL);
}
