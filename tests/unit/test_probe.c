/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at a node (engine/probe.h): it sees what is there, takes slices and gives
 * them back, and ends in time when the node, or what is between, does not answer.
 */
#include "tests/unit/net_kit.h"
#include "tests/unit/refs_kit.h"
#include "tests/unit/slow.h"
#include "tests/unit/tcp_kit.h"

#include "engine/probe.h"

enum { POOL_BYTES = 64 << 20, SOON_MS = KIT_SLOW == 1 ? 400 : 2000 };

static struct kv *kv;
static struct pool *pool;
static struct server *server;
static struct proxy *proxy;
static struct probe *probe;

static void start(uint64_t bytes, uint32_t max_sessions)
{
	struct pool_opts o = { .bytes = bytes, .create = true };

	assert_int_equal(pool_open(&o, &pool), 0);
	assert_int_equal(kv_mem_open(&kv), 0);
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = kv, .pool = pool,
				  .max_sessions = max_sessions };
	assert_int_equal(server_open(&so, &server, NULL), 0);
	proxy = proxy_start(server_port(server));
}

static int look(uint32_t timeout_ms, char **ret_why)
{
	char where[32];

	snprintf(where, sizeof(where), "127.0.0.1:%u", proxy->port);
	return probe_open(where, NULL, timeout_ms, &probe, ret_why);
}

/* The pool is whole when nobody looks any more. */
static void stop(void)
{
	probe_close(probe);
	probe = NULL;
	proxy_stop(proxy);
	WAIT_FOR(pool_nfree(pool) == pool_npages(pool));
	server_close(server);
	pool_close(pool);
	kv_close(kv);
	assert_null(metrics_busy(&(int64_t){ 0 }));
}

static void test_finds_and_reaches(void **state)
{
	struct sockaddr_storage at;
	struct probe_path path;
	char where[32];

	(void)state;
	start(POOL_BYTES, 0);
	snprintf(where, sizeof(where), "localhost:%u", server_port(server));
	assert_int_equal(probe_find(where, 10000, &at), 0);
	assert_int_equal(probe_reach(&at, 10000, &path), 0);
	assert_true(path.connect_ns > 0 && path.mtu_bytes >= 1280);
	assert_int_equal(path.local.ss_family, at.ss_family);
	assert_int_equal(probe_find("a:b:c:99999", 10000, &at), -ENOENT);
	assert_int_equal(probe_find("nobody.invalid", 10000, &at), -ENOENT);
	assert_int_equal(probe_find("127.0.0.1:nonsense", 10000, &at), -EINVAL);
	assert_int_equal(probe_find("127.0.0.1:1", 10000, &at), 0);
	assert_int_equal(probe_reach(&at, 10000, &path), -ECONNREFUSED);
	stop();
}

static void test_moves_and_gives_back(void **state)
{
	struct probe_node node;
	struct probe_pings pings;
	struct probe_moved moved;

	(void)state;
	start(POOL_BYTES, 0);
	assert_int_equal(look(10000, NULL), 0);
	assert_int_equal(probe_node(probe, &node), 0);
	assert_int_equal(node.pool_bytes, POOL_BYTES);
	assert_int_equal(node.free_bytes, POOL_BYTES);
	assert_true(node.session && node.lanes && node.version == WIRE_VERSION);
	assert_int_equal(probe_ping(probe, 100, &pings), 0);
	assert_int_equal(pings.n, 100);
	assert_true(pings.min_ns <= pings.avg_ns && pings.avg_ns <= pings.max_ns);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(probe_move(probe, PROBE_TCP, !(i & 1), 50, &moved), 0);
		assert_true(moved.bytes >= 16 << 20 && moved.ns > 0);
	}
	assert_true(pool_nfree(pool) < pool_npages(pool));
	/* No device here, or none at a node that listens at loopback. */
	int r = probe_move(probe, PROBE_RDMA, true, 50, &moved);
	assert_true(r == -ENOENT || r == -ENODEV || r == -EOPNOTSUPP);
	stop();
}

static void test_a_full_pool_is_said_to_be(void **state)
{
	struct probe_moved moved;

	(void)state;
	start(8 << 20, 0);
	assert_int_equal(look(10000, NULL), 0);
	assert_int_equal(probe_move(probe, PROBE_TCP, true, 50, &moved), -ENOSPC);
	stop();
}

static void test_who_is_not_let_in_learns_why(void **state)
{
	struct probe *first;
	char *why = NULL;

	(void)state;
	start(POOL_BYTES, 1);
	assert_int_equal(look(10000, NULL), 0);
	first = probe;
	probe = NULL;
	assert_int_equal(look(10000, &why), -ECONNRESET);
	assert_non_null(strstr(why, "full"));
	free(why);
	why = NULL;
	assert_int_equal(probe_open("127.0.0.1:1", "/nonexistent/token", 100, &probe, &why),
			 -EBADF);
	assert_non_null(strstr(why, "/nonexistent/token"));
	free(why);
	probe = first;
	stop();
}

static void assert_soon(uint64_t begun)
{
	assert_true(clock_ns() - begun < (2 * SOON_MS + 4000) * UINT64_C(1000000));
}

static void test_silence_ends_each_step(void **state)
{
	struct probe_moved moved;
	struct probe_pings pings;
	struct probe_node node;

	(void)state;
	start(POOL_BYTES, 0);
	atomic_store(&proxy->holds_all, true);
	uint64_t begun = clock_ns();
	assert_int_equal(look(SOON_MS, NULL), -ETIMEDOUT);
	assert_soon(begun);
	atomic_store(&proxy->holds_all, false);
	assert_int_equal(look(SOON_MS, NULL), 0);
	atomic_store(&proxy->holds_all, true);
	begun = clock_ns();
	assert_int_equal(probe_ping(probe, 100, &pings), -ETIMEDOUT);
	assert_int_equal(probe_node(probe, &node), -ENOTCONN);
	assert_int_equal(probe_move(probe, PROBE_TCP, true, 50, &moved), -ENOTCONN);
	stop();
	assert_soon(begun);
}

static void *hold_soon(void *arg)
{
	(void)arg;
	usleep(200000);
	atomic_store(&proxy->holds_all, true);
	return NULL;
}

/* Writes and reads under way, fences that nobody answers. */
static void test_silence_ends_what_moves(void **state)
{
	struct probe_moved moved;
	pthread_t thread;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		start(POOL_BYTES, 0);
		assert_int_equal(look(SOON_MS, NULL), 0);
		assert_int_equal(probe_move(probe, PROBE_TCP, true, 10, &moved), 0);
		pthread_create(&thread, NULL, hold_soon, NULL);
		uint64_t begun = clock_ns();
		int r = probe_move(probe, PROBE_TCP, !i, 600, &moved);
		assert_true(r == -ETIMEDOUT || r == -ENOTCONN);
		pthread_join(thread, NULL);
		stop();
		assert_soon(begun);
	}
}

/* The node goes while bytes move. */
static void *close_soon(void *arg)
{
	(void)arg;
	usleep(100000);
	server_close(server);
	return NULL;
}

static void test_its_end_ends_what_moves(void **state)
{
	struct probe_moved moved;
	pthread_t thread;

	(void)state;
	start(POOL_BYTES, 0);
	assert_int_equal(look(2000, NULL), 0);
	pthread_create(&thread, NULL, close_soon, NULL);
	assert_true(probe_move(probe, PROBE_TCP, true, 1000, &moved) < 0);
	pthread_join(thread, NULL);
	server = NULL;
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_and_reaches),
		cmocka_unit_test(test_moves_and_gives_back),
		cmocka_unit_test(test_a_full_pool_is_said_to_be),
		cmocka_unit_test(test_who_is_not_let_in_learns_why),
		cmocka_unit_test(test_silence_ends_each_step),
		cmocka_unit_test(test_silence_ends_what_moves),
		cmocka_unit_test(test_its_end_ends_what_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
