/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's doors (engine/doors.h) and who has no business there: wrong tickets, used
 * ones, those of a session that has ended, and the keys of a session that may write in
 * the hands of one that only reads. Runs in the virtual machine (tests/vm/test-rdma).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/log.h"
#include "engine/pool.h"
#include "engine/remote.h"
#include "engine/server.h"
#include "index/kv.h"
#include "rdma_world.h"

enum { POOL_BYTES = 4 << 20 };

static struct world world; /* its mount's device is used, and its loop */
static struct kv *kv;
static struct pool *pool;
static struct server *server;
static char where[32];
static const struct rdma_conn_opts usual = { .spin_us = RDMA_SPIN_US };

static int setup(void **state)
{
	struct pool_opts po = { .bytes = POOL_BYTES, .create = true };
	struct server_opts so = { .listen = "10.77.0.1:0", .anybody = true, .threads = 1 };

	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	world_open(&world);
	assert_int_equal(pool_open(&po, &pool), 0);
	assert_int_equal(kv_mem_open(&kv), 0);
	so.kv = kv;
	so.pool = pool;
	enter_netns("h1");
	assert_int_equal(server_open(&so, &server, NULL), 0);
	snprintf(where, sizeof(where), "10.77.0.1:%u", server_port(server));
	enter_netns("h2");
	return 0;
}

static int teardown(void **state)
{
	int64_t value;

	(void)state;
	server_close(server);
	kv_close(kv);
	pool_close(pool);
	world_close(&world);
	const char *busy = metrics_busy(&value);
	if (busy)
		fprintf(stderr, "%s is %lld\n", busy, (long long)value);
	return busy ? -1 : 0;
}

static struct remote *session(bool read_only)
{
	struct remote_opts o = { .node = where, .name = "test", .rdma = true,
				 .read_only = read_only };
	struct remote *x;

	assert_int_equal(remote_open(&o, &x, NULL), 0);
	return x;
}

/* What the session is told for one more connection. */
struct offer {
	struct writer body;
	struct wire_rdma told; /* points into it */
};

static void ask(struct remote *x, struct offer *ret)
{
	struct writer body = { 0 };

	*ret = (struct offer){ 0 };
	wire_write_fence(&body, remote_number(x));
	assert_int_equal(remote_ask(x, WIRE_RDMA, body, clock_ns() + 10 * NS_PER_S, &ret->body), 0);
	assert_int_equal(wire_read_rdma(writer_bytes(&ret->body), &ret->told), 0);
	assert_true(ret->told.nports && ret->told.nsegments == 1);
}

static void offer_fini(struct offer *o)
{
	wire_rdma_fini(&o->told);
	writer_fini(&o->body);
}

static void knock(struct offer *o, struct bytes ticket, struct end *e)
{
	struct dial d = { &world, e, ticket, ipv4("10.77.0.1", o->told.ports[0].port), usual };

	on_loop(world.mount.loop, dial_run, &d);
	while (!atomic_load(&e->up) && !atomic_load(&e->closed))
		usleep(200);
}

static void refused(struct offer *o, struct bytes ticket)
{
	struct end e;

	knock(o, ticket, &e);
	wait_true(&e.closed, "refused");
	print_message("%d: %s\n", e.reason, e.why);
	assert_false(atomic_load(&e.up));
	assert_int_equal(e.reason, -EACCES);
}

static struct bytes ticket_of(const struct offer *o)
{
	return BYTES_OF(o->told.ticket, WIRE_TICKET);
}

static void a_ticket_is_good_once(void **state)
{
	struct remote *x = session(false);
	uint8_t wrong[WIRE_TICKET];
	struct offer o;
	struct end e;

	(void)state;
	ask(x, &o);
	refused(&o, BYTES_NONE);
	memset(wrong, 0, sizeof(wrong));
	refused(&o, BYTES_OF(wrong, sizeof(wrong)));
	memcpy(wrong, o.told.ticket, sizeof(wrong));
	wrong[WIRE_TICKET - 1] ^= 1;
	refused(&o, BYTES_OF(wrong, sizeof(wrong)));
	refused(&o, BYTES_OF(o.told.ticket, WIRE_TICKET - 1));
	knock(&o, ticket_of(&o), &e);
	assert_true(atomic_load(&e.up));
	refused(&o, ticket_of(&o));
	hang_up(&e);
	refused(&o, ticket_of(&o));
	offer_fini(&o);
	remote_close(x);
}

static void a_ticket_ends_with_its_session(void **state)
{
	struct remote *x = session(false);
	struct offer o;

	(void)state;
	ask(x, &o);
	remote_close(x);
	refused(&o, ticket_of(&o));
	offer_fini(&o);
}

/* One page of the pool, by a way of one session and the key that another was told. */
static int move(struct offer *way, struct offer *key, enum rdma_kind kind)
{
	struct end e;
	struct task t;

	knock(way, ticket_of(way), &e);
	assert_true(atomic_load(&e.up));
	task_init(&t, &world, kind, 0, 0, 4096);
	t.op.remote = way->told.segments[0].base;
	t.op.key = key->told.keys[0];
	assert_int_equal(post_all(e.conn, &t.op), 0);
	task_wait(&t);
	if (!t.result)
		hang_up(&e);
	wait_true(&e.closed, "closed"); /* an op that fails ends it */
	return t.result;
}

static void who_only_reads_writes_with_no_key(void **state)
{
	struct remote *writer = session(false), *reader = session(true);
	struct offer w, r, mine;
	uint8_t *page = pool_segment(pool, 0).base;

	(void)state;
	ask(writer, &w);
	memset(page, 1, 4096);
	memset(world.mount.memory, 2, 4096);
	ask(reader, &r);
	assert_int_not_equal(w.told.keys[0], r.told.keys[0]);
	assert_true(move(&r, &w, RDMA_WRITE) < 0);
	offer_fini(&r);
	ask(reader, &r);
	assert_true(move(&r, &r, RDMA_WRITE) < 0);
	offer_fini(&r);
	assert_int_equal(page[0], 1);
	assert_int_equal(world.mount.memory[0], 2);
	ask(reader, &r);
	assert_int_equal(move(&r, &r, RDMA_READ), 0);
	assert_int_equal(world.mount.memory[0], 1);
	memset(world.mount.memory, 3, 4096);
	ask(writer, &mine);
	assert_int_equal(move(&mine, &w, RDMA_WRITE), 0);
	assert_int_equal(page[0], 3);
	offer_fini(&mine);
	offer_fini(&w);
	offer_fini(&r);
	remote_close(reader);
	remote_close(writer);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_ticket_is_good_once),
		TEST(a_ticket_ends_with_its_session),
		TEST(who_only_reads_writes_with_no_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
