/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's doors (engine/doors.h) and who has no business there: wrong tickets, used
 * ones, those of a session that has ended, the keys of a session that may write in
 * the hands of one that only reads, and connections for messages that have proved nothing.
 * And what is on its way when it is given up (I6, I9): packets of RDMA are late while
 * requests go over a cable of their own. Runs in the virtual machine (tests/vm/test-rdma).
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
#include "engine/stream_rdma.h"
#include "index/kv.h"
#include "rdma_world.h"
#include "tests/unit/tcp_kit.h"

enum { POOL_BYTES = 4 << 20 };

static struct world world; /* its mount's device is used, and its loop */
static struct kv *kv;
static struct pool *pool;
static struct server *server;
static char where[32];
static const struct rdma_conn_opts usual = { .spin_us = RDMA_SPIN_US };

/* Mounts come to it at `host`. */
static void start_server(const char *listen, const char *host, enum engine_bytes_by by)
{
	struct server_opts so = { .listen = listen, .anybody = true, .threads = 1, .kv = kv,
				  .pool = pool, .rdma = { .by = by } };

	enter_netns("h1");
	assert_int_equal(server_open(&so, &server, NULL), 0);
	snprintf(where, sizeof(where), "%s:%u", host, server_port(server));
	enter_netns("h2");
}

static int begin(const char *listen, const char *host)
{
	struct pool_opts po = { .bytes = POOL_BYTES, .create = true };

	log_set_level(LOG_LEVEL_ERROR);
	world_open(&world);
	assert_int_equal(pool_open(&po, &pool), 0);
	assert_int_equal(kv_mem_open(&kv), 0);
	start_server(listen, host, ENGINE_AUTO);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return begin("10.77.0.1:0", "10.77.0.1");
}

static void run(const char *command)
{
	int status = system(command);

	if (status)
		fail_msg("%s: status %#x", command, (unsigned)status);
}

/* Requests go over the second one. */
static int setup_two_cables(void **state)
{
	(void)state;
	run("ip link add eth1 netns h1 type veth peer name eth1 netns h2;"
	    "for n in 1 2; do ip -n h$n addr add 10.79.0.$n/24 dev eth1;"
	    "ip -n h$n link set eth1 up; done");
	return begin("0.0.0.0:0", "10.79.0.1");
}

static int teardown(void **state)
{
	int64_t value;

	(void)state;
	(void)!system("ip -n h1 link del eth1 2>/dev/null");
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

	loop_run(world.mount.loop, dial_run, &d);
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

/* Messages ------------------------------------------------------------------------------ */

/* Who comes by RDMA to speak. */
struct caller {
	struct conn *conn;
	struct writer hello; /* sent when it is up */
	const struct auth_key *key; /* answers the challenge */
	atomic_bool up, challenged, ended;
	int reason;
};

static void caller_up(void *arg)
{
	struct caller *c = arg;
	struct writer w = { 0 };

	write_bytes(&w, c->hello.p, c->hello.len);
	if (c->hello.len)
		conn_send(c->conn, WIRE_HELLO, w);
	atomic_store(&c->up, true);
}

static int caller_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct caller *c = arg;
	struct wire_challenge challenge;
	struct wire_proof m = { .proof = { 0 } };
	struct writer w = { 0 };

	assert(!atomic_load(&c->challenged));
	assert(auth_challenged(c->key, &c->hello, 0, h, body, &challenge, m.proof) == 0);
	wire_write_proof(&w, &m);
	conn_send(c->conn, WIRE_PROOF, w);
	atomic_store(&c->challenged, true);
	return 0;
}

static void caller_ended(void *arg, int reason)
{
	struct caller *c = arg;

	c->reason = reason;
	conn_free(c->conn);
	writer_fini(&c->hello);
	atomic_store(&c->ended, true);
}

static const struct conn_ops caller_ops = { .up = caller_up, .message = caller_message,
					    .ended = caller_ended };

static void call_on_loop(void *arg)
{
	static const struct conn_limits limits = { .max_body = WIRE_BODY_MAX };
	struct stream_rdma_opts o = { .loop = world.mount.loop };
	struct sockaddr_storage to = ipv4("10.77.0.1", server_port(server));
	struct caller *c = arg;
	struct stream *s;

	assert(stream_rdma_connect(world.mount.dev, &to, &o, &s) == 0);
	assert(conn_over(world.mount.loop, s, &limits, &caller_ops, c, &c->conn) == 0);
}

static void call(struct caller *c)
{
	loop_run(world.mount.loop, call_on_loop, c);
	while (!atomic_load(&c->up) && !atomic_load(&c->ended))
		usleep(200);
}

static void who_says_nothing_is_not_kept(void **state)
{
	struct caller c = { 0 };
	uint64_t begin = clock_ns();

	(void)state;
	call(&c);
	assert_true(atomic_load(&c.up));
	wait_true(&c.ended, "ended");
	double s = (double)(clock_ns() - begin) / NS_PER_S;
	print_message("ended after %.1f s\n", s);
	assert_true(s > 3 && s < 15);
}

static void who_has_proved_nothing_says_little(void **state)
{
	static const uint8_t much[1000];
	struct caller c = { 0 };

	(void)state;
	write_bytes(&c.hello, much, sizeof(much));
	call(&c);
	wait_true(&c.ended, "ended");
	assert_false(atomic_load(&c.challenged));
	assert_int_equal(c.reason, -ECONNRESET);
}

/* Its secret is right, but there is no socket that could go on as a lane. */
static void data_connections_go_by_tcp(void **state)
{
	struct remote *x = session(false);
	struct caller c = { 0 };
	struct auth_key secret;
	struct wire_hello m = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				.kind = WIRE_DATA, .session = remote_session(x), .number = 1,
				.name = bytes_str("test") };

	(void)state;
	memcpy(secret.b, remote_welcome(x)->secret, sizeof(secret.b));
	wire_write_hello(&c.hello, &m);
	c.key = &secret;
	call(&c);
	wait_true(&c.ended, "ended");
	assert_true(atomic_load(&c.challenged));
	assert_int_equal(c.reason, -ECONNRESET);
	assert_true(remote_is_up(x));
	remote_close(x);
}

static void a_node_that_stops_ends_them(void **state)
{
	struct caller v[5] = { 0 }, late = { 0 };

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		call(&v[i]);
		assert_true(atomic_load(&v[i].up));
	}
	server_drain(server, 0);
	call(&late);
	assert_true(atomic_load(&late.ended));
	assert_int_equal(late.reason, -ECONNREFUSED);
	server_close(server);
	server = NULL;
	for (unsigned i = 0; i < 5; i++)
		wait_true(&v[i].ended, "ended");
}

/* A mount's requests ---------------------------------------------------------------------- */

static struct remote *session_by_rdma(void)
{
	static const struct engine_rdma any = { .by = ENGINE_RDMA };
	struct remote_opts o = { .node = where, .name = "test", .rdma = true, .requests = &any };
	struct remote *x;

	assert_int_equal(remote_open(&o, &x, NULL), 0);
	return x;
}

static void ping(struct remote *x, unsigned n)
{
	while (n--)
		assert_int_equal(remote_ask(x, WIRE_PING, (struct writer){ 0 },
					    clock_ns() + 10 * NS_PER_S, NULL), 0);
}

static void requests_go_by_rdma(void **state)
{
	int64_t before = metric_get(M_SENDS);
	struct remote *x = session_by_rdma(), *tcp;

	(void)state;
	assert_true(remote_is_by_rdma(x));
	ping(x, 200);
	int64_t sends = metric_get(M_SENDS) - before;
	print_message("%lld SENDs for 200 requests and their answers\n", (long long)sends);
	assert_true(sends >= 400 && sends < 800);
	assert_int_equal(metric_get(M_LINKS_RDMA), 1);
	tcp = session(false);
	before = metric_get(M_SENDS);
	ping(tcp, 10);
	assert_int_equal(metric_get(M_SENDS), before);
	assert_false(remote_is_by_rdma(tcp));
	assert_int_equal(metric_get(M_LINKS_TCP), 1);
	remote_close(tcp);
	remote_close(x);
	assert_int_equal(metric_get(M_LINKS_RDMA) + metric_get(M_LINKS_TCP), 0);
}

/* The node comes back so, and the mount has another session there. */
static void restart(struct remote *x, enum engine_bytes_by by, bool by_rdma)
{
	uint64_t before = remote_session(x), end = clock_ns() + 30 * NS_PER_S;
	uint16_t port = server_port(server);
	char listen[32];

	server_close(server);
	snprintf(listen, sizeof(listen), "10.77.0.1:%u", port);
	start_server(listen, "10.77.0.1", by);
	while ((!remote_is_up(x) || remote_session(x) == before) && clock_ns() < end)
		usleep(1000);
	ping(x, 3);
	assert_int_equal(remote_is_by_rdma(x), by_rdma);
}

static void each_session_goes_as_it_can(void **state)
{
	struct remote *x = session_by_rdma();

	(void)state;
	assert_true(remote_is_by_rdma(x));
	restart(x, ENGINE_TCP, false);
	restart(x, ENGINE_AUTO, true);
	restart(x, ENGINE_AUTO, true);
	remote_close(x);
}

/* Late ----------------------------------------------------------------------------------- */

enum { LATE_OPS = 16, LATE_LEN = 65536, LATE_BYTES = LATE_OPS * LATE_LEN, LATE_MS = 1200,
       LATE_LEAST = LATE_BYTES / 8 /* rxe has some 64 packets under way, and waits */ };

/* What this host sends by the first cable comes so much later. */
static void delay(const char *host, unsigned ms)
{
	char command[128];

	snprintf(command, sizeof(command), "tc -n %s qdisc replace dev eth0 root netem delay %ums "
		 "limit 100000", host, ms);
	run(command);
}

/* What follows `name` in what the command prints. */
static uint64_t number_of(const char *name, const char *command)
{
	char text[4096] = "";
	FILE *f = popen(command, "r");

	assert_non_null(f);
	(void)!fread(text, 1, sizeof(text) - 1, f);
	pclose(f);
	const char *at = strstr(text, name);
	assert_non_null(at);
	return strtoull(at + strlen(name), NULL, 10);
}

static uint64_t received(const char *host)
{
	char command[128];

	snprintf(command, sizeof(command),
		 "ip netns exec %s cat /sys/class/net/eth0/statistics/rx_bytes", host);
	return number_of("", command);
}

/* Until so much is on the cable. */
static void wait_sent(const char *host)
{
	uint64_t end = clock_ns() + 20 * NS_PER_S;
	char command[128];

	snprintf(command, sizeof(command), "tc -n %s -s -j qdisc show dev eth0", host);
	while (number_of("\"backlog\":", command) < LATE_LEAST)
		assert_true(clock_ns() < end);
}

/* Has enough come since? Not where this host was so slow that all had come before. */
static bool came_late(const char *host, uint64_t before)
{
	uint64_t end = clock_ns() + 4 * NS_PER_S;

	while (received(host) < before + LATE_LEAST && clock_ns() < end)
		usleep(10000);
	usleep(100000); /* the last of it goes where it goes */
	return received(host) >= before + LATE_LEAST;
}

static bool all(const uint8_t *p, size_t n, uint8_t c)
{
	return p[0] == c && !memcmp(p, p + 1, n - 1);
}

/* One connection, with ops under way whose bytes are on the cable. */
struct late {
	struct remote *session;
	struct offer offer;
	struct end end;
	uint32_t number;
	struct task tasks[LATE_OPS];
	struct wire_item slice;
	uint8_t *at; /* the slice, at the node */
};

static void late_begin(struct late *l, enum rdma_kind kind, const char *delayed)
{
	struct writer body = { 0 };

	l->session = session(false);
	l->number = remote_number(l->session);
	wire_write_fence(&body, l->number);
	l->offer = (struct offer){ 0 };
	assert_int_equal(remote_ask(l->session, WIRE_RDMA, body, clock_ns() + 10 * NS_PER_S,
				    &l->offer.body), 0);
	assert_int_equal(wire_read_rdma(writer_bytes(&l->offer.body), &l->offer.told), 0);
	assert_int_equal(tcp_alloc(l->session, LATE_BYTES / 4096, &l->slice), 0);
	l->at = (uint8_t *)pool_segment(pool, 0).base + l->slice.slice.page * 4096ULL;
	knock(&l->offer, ticket_of(&l->offer), &l->end);
	assert_true(atomic_load(&l->end.up));
	memset(world.mount.memory, 0xbb, LATE_BYTES);
	memset(l->at, 0x11, LATE_BYTES);
	delay(delayed, LATE_MS);
	for (unsigned i = 0; i < LATE_OPS; i++) {
		struct task *t = &l->tasks[i];
		task_init(t, &world, kind, i * LATE_LEN, 0, LATE_LEN);
		t->op.remote = l->offer.told.segments[0].base +
			       l->slice.slice.page * 4096ULL + i * LATE_LEN;
		t->op.key = l->offer.told.keys[0];
		assert_int_equal(post_all(l->end.conn, &t->op), 0);
	}
	wait_sent(delayed);
}

static void late_end(struct late *l)
{
	run("for h in h1 h2; do tc -n $h qdisc del dev eth0 root 2>/dev/null; done; true");
	if (!atomic_load(&l->end.closed))
		hang_up(&l->end);
	offer_fini(&l->offer);
	remote_close(l->session);
}

/* All are done; how many failed? */
static unsigned late_failures(struct late *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LATE_OPS; i++) {
		task_wait(&l->tasks[i]);
		n += l->tasks[i].result < 0;
	}
	return n;
}

/* A write is given up; its connection is fenced, its slice freed, taken by another session,
 * and filled. Then the bytes arrive (I6). */
static bool late_write(struct remote *other)
{
	struct wire_item taken = { 0 };
	struct writer body = { 0 };
	struct late l;

	late_begin(&l, RDMA_WRITE, "h2");
	wire_write_fence(&body, l.number);
	assert_int_equal(remote_ask(l.session, WIRE_FENCE, body, 0, NULL), 0);
	assert_int_equal(tcp_unpin(l.session, l.slice.slice), 0);
	assert_int_equal(tcp_alloc(other, LATE_BYTES / 4096, &taken), 0);
	assert_int_equal(taken.slice.page, l.slice.slice.page);
	assert_int_not_equal(taken.slice.gen, l.slice.slice.gen);
	memset(l.at, 0xaa, LATE_BYTES);
	bool shown = came_late("h1", received("h1"));
	assert_true(all(l.at, LATE_BYTES, 0xaa));
	shown &= late_failures(&l) > 0;
	late_end(&l);
	assert_true(all(l.at, LATE_BYTES, 0xaa));
	assert_int_equal(tcp_unpin(other, taken.slice), 0);
	return shown;
}

/* A read is given up: when its op is done, its memory is used for something else. Then the
 * bytes arrive (I9). */
static bool late_read(struct remote *other)
{
	struct late l;

	(void)other;
	late_begin(&l, RDMA_READ, "h1");
	hang_up(&l.end);
	bool shown = late_failures(&l) > 0;
	memset(world.mount.memory, 0xdd, WORLD_BYTES);
	shown &= came_late("h2", received("h2"));
	assert_true(all(world.mount.memory, WORLD_BYTES, 0xdd));
	late_end(&l);
	return shown;
}

/* Bytes that nobody has fenced, nor ended the connection of. On a slow host an op fails. */
static bool lands_late(enum rdma_kind kind, const char *delayed)
{
	struct late l;

	late_begin(&l, kind, delayed);
	uint8_t *to = kind == RDMA_WRITE ? l.at : world.mount.memory;
	memset(to, 0xaa, LATE_BYTES);
	bool shown = late_failures(&l) == 0 && !all(to, LATE_BYTES, 0xaa);
	late_end(&l);
	return shown;
}

static bool unfenced_write(struct remote *other)
{
	(void)other;
	return lands_late(RDMA_WRITE, "h2");
}

static bool unended_read(struct remote *other)
{
	(void)other;
	return lands_late(RDMA_READ, "h1");
}

static void until_shown(bool (*round)(struct remote *other))
{
	struct remote *other = session(false);
	bool shown = false;

	for (unsigned i = 0; i < 8 && !shown; i++)
		shown = round(other);
	remote_close(other);
	assert_true(shown);
}

/* Else the next tests would show nothing. */
static void what_is_not_fenced_lands_late(void **state)
{
	(void)state;
	until_shown(unfenced_write);
	until_shown(unended_read);
}

static void a_late_write_finds_nothing(void **state)
{
	(void)state;
	until_shown(late_write);
}

static void a_late_read_finds_nothing(void **state)
{
	(void)state;
	until_shown(late_read);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
#define LATE(t) cmocka_unit_test_setup_teardown(t, setup_two_cables, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_ticket_is_good_once),
		TEST(a_ticket_ends_with_its_session),
		TEST(who_only_reads_writes_with_no_key),
		TEST(who_says_nothing_is_not_kept),
		TEST(who_has_proved_nothing_says_little),
		TEST(data_connections_go_by_tcp),
		TEST(a_node_that_stops_ends_them),
		TEST(requests_go_by_rdma),
		TEST(each_session_goes_as_it_can),
		LATE(what_is_not_fenced_lands_late),
		LATE(a_late_write_finds_nothing),
		LATE(a_late_read_finds_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
