/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files whose slices are another host's: the walks of test_file.c over a node
 * that is reached through loopback, late, failing, and in a pool that is too small.
 * Their bytes go straight to the pool, which is in this process.
 */
#include "tests/unit/file_world.h"
#include "tests/unit/relay.h"

#include "engine/node_remote.h"
#include "engine/server.h"

/* A node over the wire ------------------------------------------------------------- */

static struct server *server;
static struct relay relay;
static struct remote *to_node;

/* The engine's own pool and index are the node's; it comes to the pool's slices
 * over the wire. */
static void go_far(struct engine *e, bool faults)
{
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = index_kv(e->ix), .pool = e->pool };
	struct node *n;
	char where[32];

	assert_int_equal(server_open(&so, &server, NULL), 0);
	relay_open(&relay, server_port(server));
	snprintf(where, sizeof(where), "127.0.0.1:%u", relay.port);
	struct remote_opts ro = { .node = where, .name = "test" };
	assert_int_equal(remote_open(&ro, &to_node, NULL), 0);
	assert_int_equal(node_remote_open(to_node, &n), 0);
	node_close(e->node);
	e->node = n;
	if (faults)
		assert_int_equal(node_fault_open(n, &e->node), 0);
}

static void come_back(struct engine *e)
{
	node_close(steal(&e->node));
	remote_close(to_node);
	relay_close(&relay);
	server_close(server);
}

/* Walks -------------------------------------------------------------------------------- */

static struct world *world_new(uint64_t seed, const struct engine_opts *o)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *s = getenv("SEED");
	char *reason = NULL;

	w->random = s ? strtoull(s, NULL, 0) : seed ? seed : clock_ns();
	printf("file_remote: SEED=%lu\n", w->random);
	if (engine_open(o, &w->e, &reason))
		fail_msg("%s", reason);
	for (int i = 0; i < NFILES; i++)
		snprintf(w->slot[i].name, sizeof(w->slot[i].name), "file%d", i);
	go_far(w->e, o->fault_seed);
	return w;
}

static void world_free(struct world *w)
{
	struct engine_space space;

	w->faults = false;
	close_all(w);
	WAIT_FOR(!metric_get(M_STOCK) && !metric_get(M_PINS)); /* P10 */
	assert_int_equal(metric_get(M_REMOTE_PINS), 0);
	check_engine(w);
	for (int i = 0; i < NFILES; i++) {
		struct slot *s = &w->slot[i];
		check_name(w, s);
		if (!s->named)
			continue;
		assert_int_equal(kit_open_name(w->e, s->name, 0, &s->h[0]), 0);
		s->writes[0] = false;
		check_file(w, s);
	}
	close_all(w);
	for (int i = 0; i < NFILES; i++)
		step_unlink(w, &w->slot[i]);
	drops_wait(&w->e->drops);
	WAIT_FOR(!metric_get(M_STOCK) && !metric_get(M_PINS));
	engine_space(w->e, &space);
	assert_int_equal(space.free_bytes, space.total_bytes);
	come_back(w->e);
	engine_close(w->e);
	assert_idle();
	free(w);
}

static unsigned steps(unsigned n)
{
	const char *s = getenv("STEPS");

	return s ? (unsigned)strtoul(s, NULL, 0) : n;
}

static const struct engine_opts local = {
	.in_memory = true, .pool_bytes = 128 << 20, .index_bytes = 64 << 20,
};

static void walk(uint64_t seed, const struct engine_opts *o, unsigned n, unsigned late_us)
{
	struct world *w = world_new(seed, o);

	relay.late_us = late_us;
	for (unsigned i = 0; i < n; i++)
		step(w);
	world_free(w);
}

static void test_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	walk(1, &o, steps(1000), 0);
	o.verify = true;
	walk(0, &o, steps(500), 0);
}

static void test_late_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 3;
	walk(3, &o, steps(300), 500);
}

static void test_walk_in_a_small_pool(void **state)
{
	struct engine_opts o = local;
	int64_t before = metric_get(M_POOL_FULL);

	(void)state;
	o.pool_bytes = 4 << 20;
	walk(4, &o, steps(800), 0);
	walk(0, &o, steps(800), 200);
	assert_true(metric_get(M_POOL_FULL) > before + 5 || getenv("SEED"));
}

/* Calls of node, transport and index fail, done or not. */
static void test_failing_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 5;
	o.wrap_kv = wrap_kv;
	struct world *w = world_new(0, &o);
	w->faults = true;
	for (unsigned i = 0; i < steps(300); i++) {
		arm(w);
		step(w);
		disarm(w);
	}
	assert_true(w->failed > 10);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_late_walk),
		cmocka_unit_test(test_walk_in_a_small_pool),
		cmocka_unit_test(test_failing_walk),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
