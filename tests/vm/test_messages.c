/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams by SENDs (engine/stream_rdma.h), and connections over them, between two hosts:
 * runs in the virtual machine (tests/vm/test-rdma).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/conn.h"
#include "engine/credits.h"
#include "engine/stream_rdma.h"
#include "rdma_world.h"

static struct world world;

/* One end of a stream ------------------------------------------------------------------- */

/* What is written is a sequence that each end knows of the other. */
struct half {
	struct host *host;
	struct stream *s;
	uint64_t mine, its; /* seeds */
	bool pauses;
	uint64_t written, arrived; /* the loop's */
	atomic_ulong done, came;   /* bytes */
	atomic_uint failed, ups, gone;
	atomic_bool ended, started;
	int reason;
	unsigned out; /* writes without done() */
	uint8_t in[20000];
};

struct chunk {
	struct half *h;
	size_t len;
	uint8_t bytes[];
};

static uint8_t byte_at(uint64_t seed, uint64_t at)
{
	return (uint8_t)(random_mix(seed + at / 8 * RANDOM_STEP) >> (at % 8 * 8));
}

static void half_connected(void *arg)
{
	struct half *h = arg;

	atomic_fetch_add(&h->ups, 1);
}

static void *half_room(void *arg, size_t *ret_len)
{
	struct half *h = arg;

	assert(!h->pauses && !atomic_load(&h->ended));
	*ret_len = 1 + random_mix(h->its + h->arrived) % sizeof(h->in);
	return h->in;
}

static void half_arrived(void *arg, size_t n)
{
	struct half *h = arg;

	for (size_t i = 0; i < n; i++)
		assert(h->in[i] == byte_at(h->its, h->arrived + i));
	h->arrived += n;
	atomic_store(&h->came, h->arrived);
}

static void half_woken(void *arg)
{
	(void)arg;
}

static void half_gone(void *arg)
{
	struct half *h = arg;

	assert(!atomic_load(&h->ended));
	atomic_fetch_add(&h->gone, 1);
}

static void half_ended(void *arg, int reason)
{
	struct half *h = arg;

	assert(!h->out && atomic_load(&h->gone) == 1); /* all writes have come back */
	h->reason = reason;
	atomic_store(&h->ended, true);
}

static const struct stream_ops half_ops = {
	half_connected, half_room, half_arrived, half_woken, half_ended,
};

static void on_done(void *arg, int r)
{
	struct chunk *c = arg;
	struct half *h = c->h;

	h->out--;
	if (r)
		atomic_fetch_add(&h->failed, 1);
	else
		atomic_fetch_add(&h->done, c->len);
	memset(c->bytes, 0xee, c->len); /* it is ours again */
	free(c);
}

static void half_write(struct half *h, size_t len)
{
	struct chunk *c = malloc(sizeof(*c) + len);
	struct iovec iov[3];
	unsigned n = 1;

	assert(c);
	*c = (struct chunk){ h, len };
	for (size_t i = 0; i < len; i++)
		c->bytes[i] = byte_at(h->mine, h->written + i);
	iov[0] = (struct iovec){ c->bytes, len };
	if (len > 2) {
		n = 3;
		iov[0].iov_len = 1;
		iov[1] = (struct iovec){ c->bytes + 1, len / 2 };
		iov[2] = (struct iovec){ c->bytes + 1 + len / 2, len - 1 - len / 2 };
	}
	h->out++;
	h->written += len;
	int r = stream_write(h->s, iov, n, on_done, c);
	if (r < 0) {
		h->out--;
		free(c);
	}
}

/* On the loop of h. */
struct act {
	struct half *h;
	enum { WRITE, PAUSE, GO_ON, WIDEN, STOP } what;
	size_t len;
};

static void act_run(void *arg)
{
	const struct act *a = arg;
	struct half *h = a->h;

	if (atomic_load(&h->ended))
		return;
	if (a->what == WRITE)
		half_write(h, a->len);
	else if (a->what == WIDEN)
		stream_widen(h->s);
	else if (a->what == STOP)
		stream_stop(h->s, -ECANCELED);
	else
		stream_pause(h->s, h->pauses = a->what == PAUSE);
}

static void act(struct half *h, int what, size_t len)
{
	struct act a = { h, what, len };

	loop_run(h->host->loop, act_run, &a);
}

/* The two hosts -------------------------------------------------------------------------- */

static struct half node, mount;
static struct rdma_listener *listener;
static void (*accepted)(struct stream *s); /* NULL: `node` has it */

static void on_request(void *arg, struct rdma_conn *c, struct bytes ticket)
{
	struct stream_rdma_opts o = { .loop = world.node.loop, .gone = half_gone, .arg = &node };
	struct stream *s;

	(void)arg;
	if (!stream_rdma_is_wanted(ticket)) {
		rdma_conn_reject(c, -EACCES);
		return;
	}
	if (accepted)
		o.gone = NULL;
	assert(stream_rdma_accept(c, &o, &s) == 0);
	assert(!strncmp(stream_peer(s), "10.77.0.2:", 10) && strstr(stream_peer(s), " (RDMA)"));
	if (accepted) {
		accepted(s);
		return;
	}
	node.s = s;
	stream_start(s, &half_ops, &node);
	atomic_store(&node.started, true);
}

static void listen_now(void *arg)
{
	(void)arg;
	world_deafen(&world);
	assert(rdma_listener_new(world.node.dev, &world.at, on_request, NULL, &listener, NULL) == 0);
}

static void deafen(void *arg)
{
	(void)arg;
	rdma_listener_free(listener);
}

static void connect_mount(void *arg)
{
	struct stream_rdma_opts o = { .loop = world.mount.loop, .gone = half_gone, .arg = &mount };

	(void)arg;
	assert(stream_rdma_connect(world.mount.dev, &world.at, &o, &mount.s) == 0);
	stream_start(mount.s, &half_ops, &mount);
}

static int setup(void **state)
{
	(void)state;
	world_open(&world);
	accepted = NULL;
	node = (struct half){ .host = &world.node, .mine = 17, .its = 4711 };
	mount = (struct half){ .host = &world.mount, .mine = 4711, .its = 17 };
	loop_run(world.node.loop, listen_now, NULL);
	return 0;
}

static int teardown(void **state)
{
	int64_t value;

	(void)state;
	loop_run(world.node.loop, deafen, NULL);
	world_close(&world);
	const char *busy = metrics_busy(&value);
	if (busy)
		fprintf(stderr, "%s is %lld\n", busy, (long long)value);
	return busy ? -1 : 0;
}

static void connect_both(void)
{
	loop_run(world.mount.loop, connect_mount, NULL);
	wait_true(&node.started, "the node was asked");
	while (!atomic_load(&mount.ups))
		usleep(200);
}

static void end_both(void)
{
	act(&mount, STOP, 0);
	wait_true(&mount.ended, "the mount's end");
	wait_true(&node.ended, "the node's end");
	assert_int_equal(mount.reason, -ECANCELED);
	assert_int_equal(node.reason, -ECONNRESET);
	assert_int_equal(mount.ups, 1);
}

static void wait_bytes(atomic_ulong *n, uint64_t wanted)
{
	uint64_t end = clock_ns() + 120 * NS_PER_S;

	while (atomic_load(n) < wanted && clock_ns() < end)
		usleep(500);
	assert_int_equal(atomic_load(n), wanted);
}

static void all_has_come(void)
{
	wait_bytes(&node.came, mount.written);
	wait_bytes(&mount.came, node.written);
	wait_bytes(&node.done, node.written);
	wait_bytes(&mount.done, mount.written);
}

/* What it does -------------------------------------------------------------------------- */

static void bytes_come_in_order(void **state)
{
	static const size_t sizes[] = { 1, 24, CREDITS_BYTES - 1, CREDITS_BYTES, CREDITS_BYTES + 1,
					100000, 1 << 20 };

	(void)state;
	connect_both();
	for (unsigned wide = 0; wide < 2; wide++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			act(&mount, WRITE, sizes[i]);
			act(&node, WRITE, sizes[i]);
			all_has_come();
		}
		act(&node, WIDEN, 0);
		act(&mount, WIDEN, 0);
	}
	end_both();
}

/* Few buffers before the other side has proved anything, and never more than there are. */
static void who_takes_nothing_is_not_sent_to(void **state)
{
	(void)state;
	connect_both();
	act(&node, PAUSE, 0);
	act(&mount, WRITE, 1);
	for (unsigned i = 0; i < 100; i++)
		act(&mount, WRITE, CREDITS_BYTES);
	usleep(300000);
	print_message("%lu bytes have gone\n", atomic_load(&mount.done));
	assert_true(atomic_load(&mount.done) <= 3 * CREDITS_BYTES);
	act(&node, WIDEN, 0);
	usleep(300000);
	print_message("%lu bytes have gone\n", atomic_load(&mount.done));
	assert_true(atomic_load(&mount.done) > 6 * CREDITS_BYTES);
	assert_true(atomic_load(&mount.done) <= CREDITS_MAX * CREDITS_BYTES);
	assert_int_equal(atomic_load(&node.came), 0);
	act(&node, WRITE, 100000); /* the other direction goes on */
	wait_bytes(&mount.came, 100000);
	act(&node, GO_ON, 0);
	all_has_come();
	end_both();
}

static void two_full_sides_go_on(void **state)
{
	(void)state;
	connect_both();
	act(&node, PAUSE, 0);
	act(&mount, PAUSE, 0);
	for (unsigned i = 0; i < 4; i++) {
		act(&mount, WRITE, 1 << 20);
		act(&node, WRITE, 1 << 20);
	}
	usleep(200000);
	act(&mount, GO_ON, 0);
	wait_bytes(&mount.came, node.written);
	act(&node, GO_ON, 0);
	all_has_come();
	end_both();
}

static void random_walk(void **state)
{
	const char *env = getenv("SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : clock_ns();

	(void)state;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	connect_both();
	for (unsigned i = 0; i < 600; i++) {
		uint64_t dice = random_next(&seed);
		struct half *h = dice & 1 ? &node : &mount;

		switch (dice >> 1 & 7) {
		case 0:
			act(h, PAUSE, 0);
			break;
		case 1:
			act(h, GO_ON, 0);
			break;
		case 2:
			act(h, i > 300 ? WIDEN : WRITE, 1);
			break;
		case 3:
			act(h, WRITE, 1 + (dice >> 8) % 200000);
			break;
		default:
			act(h, WRITE, 1 + (dice >> 8) % 300);
		}
	}
	act(&node, GO_ON, 0);
	act(&mount, GO_ON, 0);
	all_has_come();
	print_message("%lu and %lu bytes\n", node.written, mount.written);
	end_both();
}

/* Whoever ends it, whenever: each write comes back, and then it is over. */
static void ended_with_writes_under_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		node = (struct half){ .host = &world.node, .mine = 17, .its = 4711 };
		mount = (struct half){ .host = &world.mount, .mine = 4711, .its = 17 };
		connect_both();
		if (i & 2)
			act(&node, PAUSE, 0);
		for (unsigned k = 0; k < 10; k++) {
			act(&mount, WRITE, 50000);
			act(&node, WRITE, 50000);
		}
		act(i & 1 ? &node : &mount, STOP, 0);
		wait_true(&mount.ended, "the mount's end");
		wait_true(&node.ended, "the node's end");
		assert_int_equal(i & 1 ? node.reason : mount.reason, -ECANCELED);
		assert_true(!(i & 2) || atomic_load(&mount.failed));
	}
}

static void stop_at_once(void *arg)
{
	connect_mount(arg);
	stream_stop(mount.s, -ECANCELED);
}

static void refuse(struct stream *s)
{
	stream_stop(s, -EUSERS);
}

static void it_may_end_before_it_is_up(void **state)
{
	(void)state;
	accepted = refuse;
	loop_run(world.mount.loop, stop_at_once, NULL);
	wait_true(&mount.ended, "the mount's end");
	assert_int_equal(mount.reason, -ECANCELED);
	mount = (struct half){ .host = &world.mount, .mine = 4711, .its = 17 };
	loop_run(world.mount.loop, connect_mount, NULL);
	wait_true(&mount.ended, "the mount's end");
	print_message("who is refused sees %d\n", mount.reason);
}

static void run(const char *command)
{
	int status = system(command);

	if (status)
		fail_msg("%s: status %#x", command, (unsigned)status);
}

/* A session lives through that: what is lost is sent again for longer than bytes are. */
static void some_seconds_without_a_net(void **state)
{
	(void)state;
	connect_both();
	act(&mount, WRITE, 1000);
	all_has_come();
	run("tc -n h1 qdisc replace dev eth0 root netem loss 100%");
	act(&mount, WRITE, 100000);
	act(&node, WRITE, 100000);
	sleep(4);
	assert_false(atomic_load(&mount.ended) || atomic_load(&node.ended));
	run("tc -n h1 qdisc del dev eth0 root");
	all_has_come();
	end_both();
}

/* Hostile peers ------------------------------------------------------------------------- */

static atomic_uint told; /* SENDs that came */

static void raw_received(void *arg, unsigned number, uint32_t bytes)
{
	(void)arg;
	(void)number;
	(void)bytes;
	atomic_fetch_add(&told, 1);
}

static const struct rdma_conn_ops raw_ops = {
	.up = end_on_up, .received = raw_received, .closed = end_on_closed,
};

static void raw_dial(void *arg)
{
	static const uint8_t hello[] = "slicefsM\1\0\0"; /* and a zero */
	static struct rdma_sge first[CREDITS_MAX];
	struct end *e = arg;
	struct rdma_conn_opts o = { .peer = RDMA_MINE, .max_receives = CREDITS_MAX,
				    .nfirst = CREDITS_MAX, .first = first };

	for (unsigned i = 0; i < CREDITS_MAX; i++)
		first[i] = (struct rdma_sge){ world.mount.memory + (1 << 20) + i * CREDITS_SEND,
					      CREDITS_SEND, world.mine };
	*e = (struct end){ .host = &world.mount };
	assert(rdma_conn_new(world.mount.dev, &world.at, BYTES_OF(hello, sizeof(hello)), &o,
			     &raw_ops, e, &e->conn) == 0);
}

/* Its bytes are at the beginning of the mount's memory. */
static int raw_send(struct end *e, uint32_t bytes)
{
	struct task t;

	task_init(&t, &world, RDMA_SEND, 0, 0, bytes);
	assert_int_equal(post_all(e->conn, &t.op), 0);
	task_wait(&t);
	return t.result;
}

static void raw_connect(struct end *e)
{
	node = (struct half){ .host = &world.node, .mine = 17, .its = 4711 };
	loop_run(world.mount.loop, raw_dial, e);
	wait_true(&e->up, "up");
	wait_true(&node.started, "the node was asked");
}

static void put_head(unsigned credits, unsigned zero, uint32_t len)
{
	uint8_t *p = world.mount.memory;

	put_le(p, credits, 2);
	put_le(p + 2, zero, 2);
	put_le(p + 4, len, 4);
	for (unsigned i = 0; i < 100; i++)
		p[CREDITS_HEAD + i] = byte_at(4711, i);
}

/* Ends the node's end, for this reason. */
static int hostile(unsigned credits, unsigned zero, uint32_t len, uint32_t bytes)
{
	struct end e;

	raw_connect(&e);
	put_head(credits, zero, len);
	raw_send(&e, bytes);
	wait_true(&node.ended, "the node's end");
	wait_true(&e.closed, "closed");
	assert_int_equal(node.arrived, 0);
	return node.reason;
}

static void what_breaks_the_rules_ends_it(void **state)
{
	(void)state;
	assert_int_equal(hostile(0, 0, 11, 18), -EPROTO);
	assert_int_equal(hostile(0, 0, 9, 18), -EPROTO);
	assert_int_equal(hostile(0, 1, 10, 18), -EPROTO);
	assert_int_equal(hostile(0, 0, 0, 8), -EPROTO);
	assert_int_equal(hostile(1, 0, 0, 7), -EPROTO);
	assert_int_equal(hostile(CREDITS_MAX - CREDITS_FIRST + 1, 0, 10, 18), -EPROTO);
	assert_int_equal(hostile(0xffff, 0, 0, 8), -EPROTO);
	/* Longer than the buffer: devices differ in what they say first. */
	int r = hostile(0, 0, CREDITS_BYTES + 1, CREDITS_SEND + 1);
	assert_true(r == -EMSGSIZE || r == -EIO);
}

/* More than it may: there is no buffer for the fifth. */
static void who_sends_without_credit_is_cut_off(void **state)
{
	struct end e;
	int r = 0;

	(void)state;
	raw_connect(&e);
	act(&node, PAUSE, 0);
	put_head(0, 0, 10);
	for (unsigned i = 0; i < CREDITS_FIRST; i++)
		assert_int_equal(raw_send(&e, 18), 0);
	r = raw_send(&e, 18);
	assert_int_equal(r, -ETIMEDOUT);
	wait_true(&e.closed, "closed");
	wait_true(&node.ended, "the node's end");
	print_message("%s; the node sees %d\n", e.why, node.reason);
}

/* It gives no credits: it gets what it began with, less the last one. */
static void who_gives_no_credits_gets_no_more(void **state)
{
	struct end e;

	(void)state;
	atomic_store(&told, 0);
	raw_connect(&e);
	for (unsigned i = 0; i < 20; i++)
		act(&node, WRITE, CREDITS_BYTES);
	usleep(300000);
	assert_int_equal(atomic_load(&told), CREDITS_FIRST - 1);
	act(&node, STOP, 0);
	wait_true(&node.ended, "the node's end");
	wait_true(&e.closed, "closed");
	assert_true(atomic_load(&node.failed) > 10);
}

/* With any key there is: that connection gives no right to anything. */
static void it_reaches_no_memory(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct end e;
		struct task t;

		raw_connect(&e);
		memset(world.node.memory, 1, 4096);
		task_init(&t, &world, i ? RDMA_WRITE : RDMA_READ, 0, 0, 4096);
		memset(world.mount.memory, 2, 4096);
		assert_int_equal(post_all(e.conn, &t.op), 0);
		task_wait(&t);
		assert_true(t.result < 0);
		wait_true(&node.ended, "the node's end");
		wait_true(&e.closed, "closed");
		assert_int_equal(world.node.memory[0], 1);
		assert_int_equal(world.mount.memory[0], 2);
	}
}

/* Connections ---------------------------------------------------------------------------- */

enum { CALLS = 300 };

struct talker {
	struct host *host;
	struct conn *conn;
	atomic_bool up, ended;
	int reason;
	atomic_uint answered;
};

static struct talker asks, serves;

struct question {
	struct conn_call call; /* first */
	struct talker *from;
	uint64_t seed;
	uint32_t len;
};

static void talker_up(void *arg)
{
	struct talker *t = arg;

	atomic_store(&t->up, true);
}

static int talker_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct talker *t = arg;
	struct writer w = { 0 };

	write_bytes(&w, body.p, body.len);
	conn_answer(t->conn, h, 0, w);
	return 0;
}

static void talker_ended(void *arg, int reason)
{
	struct talker *t = arg;

	t->reason = reason;
	conn_free(t->conn);
	atomic_store(&t->ended, true);
}

static const struct conn_ops talker_ops = { .up = talker_up, .message = talker_message,
					    .ended = talker_ended };
static const struct conn_limits limits = { .max_body = WIRE_BODY_MAX, .max_calls = 32,
					   .max_owed = 32, .idle_ms = 20000 };

static void serve(struct stream *s)
{
	assert(conn_accept(world.node.loop, s, &limits, &talker_ops, &serves, &serves.conn) == 0);
	atomic_store(&serves.up, true);
}

static void ask_node(void *arg)
{
	struct stream_rdma_opts o = { .loop = world.mount.loop };
	struct stream *s;

	(void)arg;
	assert(stream_rdma_connect(world.mount.dev, &world.at, &o, &s) == 0);
	assert(conn_over(world.mount.loop, s, &limits, &talker_ops, &asks, &asks.conn) == 0);
}

static void on_answer(struct conn_call *call, int r, struct bytes body)
{
	struct question *q = (struct question *)call;
	const uint8_t *p = body.p;

	assert(r == 0 && body.len == q->len);
	for (uint32_t i = 0; i < q->len; i++)
		assert(p[i] == byte_at(q->seed, i));
	atomic_fetch_add(&q->from->answered, 1);
	free(q);
}

static void ask(struct talker *t, uint64_t dice)
{
	static const uint32_t sizes[] = { 100, 1000, 70000, 1 << 20 };
	struct question *q = calloc(1, sizeof(*q));

	assert(q);
	q->from = t;
	q->seed = dice;
	q->len = (uint32_t)(dice >> 8) % sizes[dice % 16 ? dice % 2 : dice / 16 % 4];
	q->call = (struct conn_call){ .type = WIRE_KV, .done = on_answer };
	for (uint32_t i = 0; i < q->len; i++)
		write_u8(&q->call.body, byte_at(dice, i));
	conn_call(t->conn, &q->call);
}

static void calls_go_both_ways(void **state)
{
	uint64_t seed = clock_ns(), end = clock_ns() + 120 * NS_PER_S;

	(void)state;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	asks = (struct talker){ .host = &world.mount };
	serves = (struct talker){ .host = &world.node };
	accepted = serve;
	loop_run(world.mount.loop, ask_node, NULL);
	wait_true(&serves.up, "the node was asked");
	wait_true(&asks.up, "up");
	for (unsigned i = 0; i < CALLS; i++) {
		ask(&asks, random_next(&seed));
		ask(&serves, random_next(&seed));
	}
	while (atomic_load(&asks.answered) + atomic_load(&serves.answered) < 2 * CALLS &&
	       clock_ns() < end)
		usleep(1000);
	assert_int_equal(atomic_load(&asks.answered), CALLS);
	assert_int_equal(atomic_load(&serves.answered), CALLS);
	conn_stop(asks.conn, -ECANCELED);
	wait_true(&asks.ended, "the mount's end");
	wait_true(&serves.ended, "the node's end");
	assert_int_equal(serves.reason, -ECONNRESET);
}

/* The last test: see test_rdma.c. */
static void the_device_is_removed(void **state)
{
	(void)state;
	connect_both();
	act(&node, PAUSE, 0);
	act(&mount, WRITE, 1 << 20);
	run("rdma link delete rxe2 & echo");
	wait_true(&mount.ended, "the mount's end");
	assert_int_equal(mount.reason, -ENODEV);
	wait_true(&node.ended, "the node's end");
}

int main(int argc, char **argv)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(bytes_come_in_order),
		TEST(who_takes_nothing_is_not_sent_to),
		TEST(two_full_sides_go_on),
		TEST(random_walk),
		TEST(ended_with_writes_under_way),
		TEST(it_may_end_before_it_is_up),
		TEST(what_breaks_the_rules_ends_it),
		TEST(who_sends_without_credit_is_cut_off),
		TEST(who_gives_no_credits_gets_no_more),
		TEST(it_reaches_no_memory),
		TEST(calls_go_both_ways),
		TEST(some_seconds_without_a_net),
		TEST(the_device_is_removed),
	};

	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
