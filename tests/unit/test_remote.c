/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount's link to a node: sessions that end and others that follow, the parts
 * that are told, and the calls that wait meanwhile.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "engine/remote.h"
#include "engine/server.h"
#include "tests/unit/net_kit.h"

static struct kv *kv;
static struct pool *pool;
static struct server *server;
static char where[32];
static const struct auth_key token = { { 1, 2, 3 } };

/* The first one chooses the port, the others listen at it. */
static void start_node(void)
{
	struct server_opts o = { .listen = *where ? where : "127.0.0.1:0", .kv = kv, .pool = pool,
				 .key = &token };

	assert_int_equal(server_open(&o, &server, NULL), 0);
	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(server));
}

static void stop_node(void)
{
	server_close(server);
	server = NULL;
}

static int setup(void **state)
{
	struct pool_opts po = { .bytes = 4 << 20, .create = true };

	(void)state;
	*where = '\0';
	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(pool_open(&po, &pool), 0);
	start_node();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stop_node();
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
	pool_close(pool);
	kv_close(kv);
	assert_nothing_in_flight();
	return 0;
}

static struct remote *join(void)
{
	struct remote_opts o = { .node = where, .name = "test", .key = &token };
	struct remote *x;

	assert_int_equal(remote_open(&o, &x, NULL), 0);
	return x;
}

static uint64_t in_ms(unsigned ms)
{
	return clock_ns() + ms * UINT64_C(1000000);
}

static int ping(struct remote *x, unsigned ms)
{
	return remote_ask(x, WIRE_PING, (struct writer){ 0 }, ms ? in_ms(ms) : 0, NULL);
}

/* Parts -------------------------------------------------------------------------- */

struct part {
	struct remote_part part; /* first */
	struct remote *remote;
	struct part *before; /* must be ready when this one begins */
	bool ready, silent;
	atomic_int begun, lost, refuse;
	struct conn_call call;
};

static void part_asked(struct conn_call *call, int r, struct bytes body)
{
	struct part *p = (struct part *)((char *)call - offsetof(struct part, call));

	(void)body;
	if (r == -ENOTCONN)
		return; /* lost() comes */
	assert_int_equal(r, 0);
	p->ready = true;
	bool refuse = atomic_load(&p->refuse) > 0 && atomic_fetch_sub(&p->refuse, 1) > 0;
	remote_ready(p->remote, &p->part, refuse ? -EIO : 0);
}

/* Asks the node before it is ready, as one that pins does. */
static void part_begun(void *arg)
{
	struct part *p = arg;

	assert_true(!p->before || p->before->ready);
	assert_false(remote_is_up(p->remote));
	p->ready = false;
	p->call = (struct conn_call){ .type = WIRE_STAT, .done = part_asked,
				      .session = remote_session(p->remote) };
	atomic_fetch_add(&p->begun, 1);
	if (!p->silent)
		remote_call(p->remote, &p->call);
}

static void part_lost(void *arg)
{
	struct part *p = arg;

	assert_int_equal(remote_session(p->remote), 0);
	atomic_fetch_add(&p->lost, 1);
}

static void part_join(struct part *p, struct remote *x, struct part *before)
{
	*p = (struct part){ .part = { .lost = part_lost, .begun = part_begun, .arg = p },
			    .remote = x, .before = before, .ready = true };
	remote_join(x, &p->part);
}

/* Tests ------------------------------------------------------------------------------ */

static void test_another_session_follows(void **state)
{
	struct remote *x = join();
	struct part a, b;

	(void)state;
	part_join(&a, x, NULL);
	part_join(&b, x, &a);
	uint64_t session = remote_session(x);
	assert_true(session > 0 && remote_is_up(x));
	remote_stop(x, -ECANCELED);
	WAIT_FOR(a.begun == 1 && b.begun == 1 && remote_is_up(x));
	assert_int_equal(a.lost + b.lost, 2);
	assert_true(remote_session(x) > session);
	assert_int_equal(ping(x, 0), 0);
	remote_leave(x, &a.part);
	remote_stop(x, -ECANCELED);
	WAIT_FOR(b.begun == 2 && remote_is_up(x));
	assert_int_equal(a.begun, 1);
	remote_leave(x, &b.part);
	remote_close(x);
}

static void test_a_node_that_comes_back(void **state)
{
	struct remote *x = join();
	struct part a;

	(void)state;
	part_join(&a, x, NULL);
	stop_node();
	WAIT_FOR(a.lost == 1);
	assert_int_equal(ping(x, 100), -ETIMEDOUT);
	assert_int_equal(a.begun, 0);
	start_node();
	assert_int_equal(ping(x, 30000), 0); /* it has waited for the session */
	assert_int_equal(a.begun, 1);
	remote_leave(x, &a.part);
	remote_close(x);
}

/* One that cannot join costs the session, and the next one is tried. */
static void test_a_part_that_is_not_ready(void **state)
{
	struct remote *x = join();
	struct part a, b;

	(void)state;
	part_join(&a, x, NULL);
	part_join(&b, x, &a);
	a.refuse = 1;
	remote_stop(x, -ECANCELED);
	WAIT_FOR(a.begun == 2 && remote_is_up(x));
	assert_int_equal(b.begun, 1);
	assert_int_equal(a.lost, 2);
	assert_int_equal(b.lost, 1); /* it had not begun the other one */
	remote_leave(x, &b.part);
	remote_leave(x, &a.part);
	remote_close(x);
}

/* What is one session's does not come into the next. */
static void test_calls_of_a_session(void **state)
{
	struct remote *x = join();
	struct part a;

	(void)state;
	part_join(&a, x, NULL);
	a.silent = true;
	uint64_t old = remote_session(x);
	remote_stop(x, -ECANCELED);
	WAIT_FOR(a.begun == 1);
	uint64_t now = remote_session(x);
	assert_true(now > old && !remote_is_up(x));
	struct writer body = { 0 };
	remote_send(x, old, WIRE_BYE, body); /* dropped */
	assert_int_equal(ping(x, 50), -ETIMEDOUT); /* it waits until all are ready */
	remote_leave(x, &a.part);
	WAIT_FOR(remote_is_up(x));
	assert_int_equal(remote_session(x), now);
	assert_int_equal(ping(x, 0), 0);
	remote_send(x, now, WIRE_BYE, body);
	WAIT_FOR(remote_session(x) > now);
	remote_close(x);
}

static void test_the_last_one(void **state)
{
	struct remote *x = join();

	(void)state;
	remote_last(x);
	assert_int_equal(ping(x, 0), 0);
	stop_node();
	WAIT_FOR(!remote_is_up(x));
	assert_int_equal(ping(x, 0), -ENOTCONN);
	start_node();
	usleep(100000);
	assert_int_equal(ping(x, 0), -ENOTCONN);
	remote_close(x);
}

static void test_closing_while_it_is_down(void **state)
{
	struct remote *x = join();

	(void)state;
	stop_node();
	WAIT_FOR(!remote_is_up(x));
	remote_close(x);
	start_node();
}

/* Its slices and pages would not be what the mount remembers. */
static void test_a_node_with_another_pool(void **state)
{
	struct pool_opts po = { .bytes = 4 << 20, .create = true };
	struct remote *x = join();
	struct pool *old = pool;

	(void)state;
	stop_node();
	WAIT_FOR(!remote_is_up(x));
	assert_int_equal(pool_open(&po, &pool), 0);
	start_node();
	assert_int_equal(ping(x, 300), -ETIMEDOUT);
	stop_node();
	pool_close(pool);
	pool = old;
	start_node();
	assert_int_equal(ping(x, 30000), 0);
	remote_close(x);
}

/* The index goes on: reads are asked again, watches begun again. */
static void ring(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static int kv_do(struct kv *k, const char *key, const char *value)
{
	struct kv_write w = { .key = bytes_str(key), .value = bytes_str(value) };
	struct kv_req req = { .writes = &w, .nwrites = 1 };
	int r = kv_wait(k, &req);

	kv_req_fini(&req);
	return r;
}

static void *stop_again_and_again(void *arg)
{
	for (unsigned i = 0; i < 30; i++) {
		usleep(10000);
		remote_stop(arg, -ECANCELED);
	}
	return NULL;
}

static void test_the_index_goes_on(void **state)
{
	struct remote *x = join();
	struct kv_read read = { .from = bytes_str("D1"), .limit = 1 };
	struct kv_watch *w;
	atomic_uint rings = 0;
	struct kv *k;
	pthread_t t;

	(void)state;
	assert_int_equal(kv_remote_open(x, &k), 0);
	assert_int_equal(kv_do(k, "D1", "v"), 0);
	assert_int_equal(kv_watch(k, bytes_str("D"), ring, &rings, &w), 0);
	uint64_t begun = remote_session(x);
	assert_int_equal(pthread_create(&t, NULL, stop_again_and_again, x), 0);
	do {
		struct kv_req req = { .reads = &read, .nreads = 1 };
		assert_int_equal(kv_wait(k, &req), 0);
		assert_int_equal(req.rows[0].nrows, 1);
		kv_req_fini(&req);
	} while (remote_session(x) < begun + 10);
	pthread_join(t, NULL);
	WAIT_FOR(remote_is_up(x));
	/* What is asked now comes after the watch. */
	assert_int_equal(kv_do(k, "D1", "w"), 0);
	rings = 0;
	assert_int_equal(kv_do(kv, "D2", "v"), 0); /* the node's own */
	WAIT_FOR(rings >= 1);
	kv_unwatch(k, w);
	kv_close(k);
	remote_close(x);
}

static unsigned dead(struct kv_watch *const *w, unsigned n)
{
	unsigned dead = 0;

	for (unsigned i = 0; i < n; i++)
		dead += kv_watch_is_dead(w[i]);
	return dead;
}

/* What the node refuses is known to be so, and the next session begins all once more. */
static void test_more_watches_than_a_node_takes(void **state)
{
	enum { MORE = 3, N = KV_WATCHES_MAX + MORE };
	static struct kv_watch *w[N];
	struct remote *x = join();
	atomic_uint rings = 0, last = 0;
	struct kv *k;

	(void)state;
	assert_int_equal(kv_remote_open(x, &k), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(kv_watch(k, bytes_str("D"), ring, i < N - 1 ? &rings : &last,
					  &w[i]), 0);
	WAIT_FOR(last == 1);
	assert_int_equal(dead(w, N), MORE);
	assert_true(kv_watch_is_dead(w[N - 1]) && !kv_watch_is_dead(w[0]));
	for (unsigned i = 0; i < MORE; i++)
		kv_unwatch(k, w[i]);
	assert_int_equal(dead(w + MORE, KV_WATCHES_MAX), MORE);
	uint64_t session = remote_session(x);
	remote_stop(x, -ECANCELED);
	WAIT_FOR(remote_session(x) > session && remote_is_up(x));
	assert_int_equal(ping(x, 0), 0); /* after all of them */
	assert_int_equal(dead(w + MORE, KV_WATCHES_MAX), 0);
	last = 0;
	assert_int_equal(kv_do(kv, "D2", "v"), 0);
	WAIT_FOR(last >= 1);
	for (unsigned i = MORE; i < N; i++)
		kv_unwatch(k, w[i]);
	kv_close(k);
	remote_close(x);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_another_session_follows),
		T(test_a_node_that_comes_back),
		T(test_a_part_that_is_not_ready),
		T(test_calls_of_a_session),
		T(test_the_last_one),
		T(test_closing_while_it_is_down),
		T(test_a_node_with_another_pool),
		T(test_the_index_goes_on),
		T(test_more_watches_than_a_node_takes),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
