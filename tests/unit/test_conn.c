/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections (engine/conn.h): every call ends once, whatever the other side
 * does: answers late, in any order, never, or says what it must not; and nothing
 * is left of any of it.
 */
#include "tests/unit/net_kit.h"

/* One end ------------------------------------------------------------------------ */

struct end {
	struct conn *conn;
	struct conn_limits limits;
	const struct conn_ops *ops;
	int (*message)(struct end *e, const struct wire_header *h, struct bytes body);
	sem_t ended;
	atomic_int reason;
	atomic_uint messages;
	struct wire_header kept[64]; /* requests that have no answer yet */
	unsigned nkept;
	atomic_bool is_up;
};

static void end_up(void *arg)
{
	((struct end *)arg)->is_up = true;
}

static int end_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct end *e = arg;
	int r = e->message ? e->message(e, h, body) : -EPROTO;

	atomic_fetch_add(&e->messages, 1);
	return r;
}

static void end_ended(void *arg, int reason)
{
	struct end *e = arg;

	assert_true(e->reason == 0);
	e->reason = reason;
	sem_post(&e->ended);
}

static const struct conn_ops end_ops = { .up = end_up, .message = end_message, .ended = end_ended };

static const struct conn_limits usual = { .max_body = WIRE_BODY_MAX, .max_calls = 16,
					  .max_owed = 16 };

/* A server that has one connection: what comes in gets the owner `server`. */
static struct end server, client;
static struct listener *listener;
static uint16_t port;
static sem_t accepted;

static void on_accept(void *arg, struct stream *s)
{
	(void)arg;
	if (server.conn) {
		stream_stop(s, -EBUSY);
		return;
	}
	assert_int_equal(conn_accept(net_loop, s, &server.limits, server.ops, &server,
				     &server.conn), 0);
	sem_post(&accepted);
}

static void start_listener(void *arg)
{
	struct sockaddr_storage a;

	(void)arg;
	assert_int_equal(stream_resolve("127.0.0.1:0", 0, &a), 0);
	assert_int_equal(listener_new(net_loop, &a, on_accept, NULL, &listener), 0);
	listener_address(listener, &a);
	port = ntohs(((struct sockaddr_in *)&a)->sin_port);
}

static void closed(void *arg)
{
	sem_post(arg);
}

static void stop_listener(void *arg)
{
	listener_stop(listener, closed, arg);
}

static void end_init(struct end *e)
{
	*e = (struct end){ .limits = usual, .ops = &end_ops };
	sem_init(&e->ended, 0, 0);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(loop_new("test-net", &net_loop), 0);
	end_init(&server);
	end_init(&client);
	sem_init(&accepted, 0, 0);
	on_loop(start_listener, NULL);
	return 0;
}

static void finish(struct end *e)
{
	if (!e->conn)
		return;
	conn_stop(e->conn, -ECANCELED);
	sem_take(&e->ended);
	conn_free(e->conn);
	e->conn = NULL;
}

static int teardown(void **state)
{
	sem_t s;

	(void)state;
	finish(&client);
	finish(&server);
	sem_init(&s, 0, 0);
	on_loop(stop_listener, &s);
	sem_take(&s);
	loop_free(net_loop);
	assert_nothing_in_flight();
	return 0;
}

static void connect_client(void *arg)
{
	struct sockaddr_storage a;
	char where[32];

	(void)arg;
	snprintf(where, sizeof(where), "127.0.0.1:%u", port);
	assert_int_equal(stream_resolve(where, 0, &a), 0);
	assert_int_equal(conn_connect(net_loop, &a, &client.limits, &end_ops, &client,
				      &client.conn), 0);
}

static void connect_both(void)
{
	on_loop(connect_client, NULL);
	sem_take(&accepted);
}

static int connect_raw(void)
{
	int fd = raw_connect(port);

	sem_take(&accepted);
	return fd;
}

/* What servers do ------------------------------------------------------------------ */

static void answer(struct end *e, const struct wire_header *h, int r, struct bytes body)
{
	struct writer w = { 0 };

	write_bytes(&w, body.p, body.len);
	conn_answer(e->conn, h, r, w);
}

static int echo(struct end *e, const struct wire_header *h, struct bytes body)
{
	if (h->id)
		answer(e, h, 0, body);
	return 0;
}

static int never(struct end *e, const struct wire_header *h, struct bytes body)
{
	(void)body;
	assert_true(e->nkept < 64);
	e->kept[e->nkept++] = *h;
	return 0;
}

/* Calls ---------------------------------------------------------------------------- */

struct asked {
	struct conn_call call;
	sem_t done;
	int r;
	struct writer body;
	unsigned times;
};

static void asked_done(struct conn_call *call, int r, struct bytes body)
{
	struct asked *a = (struct asked *)call;

	lock_assert_none();
	assert_int_equal(++a->times, 1);
	a->r = r;
	write_bytes(&a->body, body.p, body.len);
	sem_post(&a->done);
}

static void ask(struct asked *a, struct bytes body, uint64_t timeout_ms)
{
	*a = (struct asked){ .call = { .type = WIRE_KV, .done = asked_done } };
	sem_init(&a->done, 0, 0);
	write_bytes(&a->call.body, body.p, body.len);
	if (timeout_ms)
		a->call.deadline_ns = clock_ns() + timeout_ms * 1000000;
	conn_call(client.conn, &a->call);
}

static int asked_end(struct asked *a)
{
	sem_take(&a->done);
	writer_fini(&a->body);
	sem_destroy(&a->done);
	return a->r;
}

static void test_a_call_is_answered(void **state)
{
	struct asked a;

	(void)state;
	server.message = echo;
	connect_both();
	ask(&a, bytes_str("hello"), 0);
	sem_take(&a.done);
	assert_true(a.call.answered);
	assert_true(bytes_eq(writer_bytes(&a.body), bytes_str("hello")));
	sem_post(&a.done);
	assert_int_equal(asked_end(&a), 0);
}

static int long_answer(struct end *e, const struct wire_header *h, struct bytes body)
{
	struct writer w = { 0 };

	(void)body;
	for (uint32_t i = 0; i < 1000000; i++)
		write_u32(&w, i);
	conn_answer(e->conn, h, 1, w);
	return 0;
}

static void test_a_long_answer_comes_in_parts(void **state)
{
	struct asked a;

	(void)state;
	server.message = long_answer;
	connect_both();
	ask(&a, bytes_str(""), 0);
	sem_take(&a.done);
	assert_int_equal(a.body.len, 4000000);
	for (uint32_t i = 0; i < 1000000; i++)
		assert_memory_equal(a.body.p + 4 * i, &i, 4);
	sem_post(&a.done);
	assert_int_equal(asked_end(&a), 1);
}

static void test_the_end_ends_all_calls(void **state)
{
	struct asked a;

	(void)state;
	server.message = never;
	connect_both();
	ask(&a, bytes_str("x"), 0);
	WAIT_FOR(server.messages);
	finish(&server);
	assert_int_equal(asked_end(&a), -ENOTCONN);
	assert_true(a.call.sent && !a.call.answered);
	sem_take(&client.ended);
	assert_int_equal(client.reason, -ECONNRESET);
	sem_post(&client.ended);
	ask(&a, bytes_str("y"), 0);
	assert_int_equal(asked_end(&a), -ENOTCONN);
	assert_false(a.call.sent);
}

static void answer_kept(void *arg)
{
	struct end old = server; /* an answer makes room for another message */
	int *r = arg;

	server.nkept = 0;
	while (old.nkept)
		answer(&server, &old.kept[--old.nkept], *r, bytes_str("late"));
}

static void test_a_late_answer_finds_nobody(void **state)
{
	struct asked a, b;
	int late = -EROFS, again = -ENOSPC;

	(void)state;
	server.message = never;
	connect_both();
	ask(&a, bytes_str("x"), 30);
	assert_int_equal(asked_end(&a), -ETIMEDOUT);
	assert_true(a.call.sent && !a.call.answered);
	memset(&a, 0xee, sizeof(a)); /* it is nobody's any more */
	WAIT_FOR(server.messages == 1);
	ask(&b, bytes_str("y"), 0);
	WAIT_FOR(server.messages == 2);
	server.nkept = 1;
	on_loop(answer_kept, &late); /* of a */
	on_loop(nothing, NULL);
	assert_int_equal(b.times, 0);
	server.nkept = 0;
	server.kept[0] = server.kept[1];
	server.nkept = 1;
	on_loop(answer_kept, &again);
	assert_int_equal(asked_end(&b), -ENOSPC);
	assert_true(b.call.answered);
}

/* Cancelling ---------------------------------------------------------------------------- */

struct late {
	struct conn_call call; /* first */
	struct kv_call of;
	sem_t done, late;
	int r, late_r;
	unsigned times, late_times;
	size_t late_bytes;
};

static void late_done(struct conn_call *call, int r, struct bytes body)
{
	struct late *l = (struct late *)call;

	(void)body;
	assert_int_equal(++l->times, 1);
	assert_int_equal(l->late_times, 0);
	l->r = r;
	sem_post(&l->done);
}

static void late_late(struct conn_call *call, int r, struct bytes body)
{
	struct late *l = (struct late *)call;

	assert_int_equal(l->times, 1);
	assert_int_equal(++l->late_times, 1);
	l->late_r = r;
	l->late_bytes = body.len;
	sem_post(&l->late);
}

static void ask_late(struct late *l, uint64_t timeout_ms)
{
	*l = (struct late){
		.call = { .type = WIRE_KV, .done = late_done, .late = late_late, .of = &l->of },
	};
	if (timeout_ms)
		l->call.deadline_ns = clock_ns() + timeout_ms * 1000000;
	sem_init(&l->done, 0, 0);
	sem_init(&l->late, 0, 0);
	conn_call(client.conn, &l->call);
}

static void assert_prompt(uint64_t since_ns)
{
	assert_true(clock_ns() - since_ns < 10 * CONN_LOOK_MS * 1000000ull);
}

/* Through what it is a part of, as the calls of an op are. */
static void test_a_cancelled_call_ends_soon(void **state)
{
	struct kv_call op = { 0 };
	struct asked a;
	struct late b;

	(void)state;
	client.limits.max_calls = 2;
	server.message = never;
	connect_both();
	ask(&a, bytes_str("x"), 0);
	ask_late(&b, 0);
	struct kv_call part = kv_call_of(&op);
	struct late waits = { .call = { .type = WIRE_KV, .done = late_done, .late = late_late,
					.of = &part } };
	sem_init(&waits.done, 0, 0);
	conn_call(client.conn, &waits.call);
	WAIT_FOR(server.messages == 2);
	uint64_t now = clock_ns();
	atomic_store(&op.cancelled, true);
	sem_take(&waits.done);
	assert_prompt(now);
	assert_int_equal(waits.r, -ECANCELED);
	assert_false(waits.call.sent || waits.call.owes_late);
	now = clock_ns();
	atomic_store(&b.of.cancelled, true);
	sem_take(&b.done);
	assert_prompt(now);
	assert_int_equal(b.r, -ECANCELED);
	assert_true(b.call.sent && !b.call.answered && b.call.owes_late);
	int r = 1;
	on_loop(answer_kept, &r);
	sem_take(&b.late);
	assert_true(b.call.answered);
	assert_int_equal(b.late_r, 1);
	assert_int_equal(b.late_bytes, 4);
	assert_int_equal(asked_end(&a), 1);
	sem_destroy(&waits.done);
}

static void test_what_is_cancelled_at_once_is_not_sent(void **state)
{
	struct kv_call of = { .cancelled = true };
	struct late a = { .call = { .type = WIRE_KV, .done = late_done, .of = &of } };

	(void)state;
	server.message = never;
	connect_both();
	sem_init(&a.done, 0, 0);
	conn_call(client.conn, &a.call);
	sem_take(&a.done);
	assert_int_equal(a.r, -ECANCELED);
	assert_false(a.call.sent);
	sem_destroy(&a.done);
}

/* The end of the connection settles what a late answer was awaited for. */
static void test_the_end_is_the_last_answer(void **state)
{
	struct late a;

	(void)state;
	server.message = never;
	connect_both();
	ask_late(&a, 30);
	sem_take(&a.done);
	assert_int_equal(a.r, -ETIMEDOUT);
	assert_true(a.call.owes_late);
	WAIT_FOR(server.messages == 1);
	assert_int_equal(a.late_times, 0);
	finish(&server);
	sem_take(&a.late);
	assert_int_equal(a.late_r, -ENOTCONN);
	assert_false(a.call.answered);
}

static void test_what_has_no_room_waits_and_times_out(void **state)
{
	struct asked a[5];
	int r = 0;

	(void)state;
	client.limits.max_calls = 2;
	server.message = never;
	connect_both();
	for (unsigned i = 0; i < 5; i++)
		ask(&a[i], bytes_str("x"), i == 3 ? 30 : 0);
	assert_int_equal(asked_end(&a[3]), -ETIMEDOUT);
	assert_false(a[3].call.sent);
	WAIT_FOR(server.messages == 2);
	usleep(20000);
	assert_int_equal(server.messages, 2);
	on_loop(answer_kept, &r);
	assert_int_equal(asked_end(&a[0]), 0);
	assert_int_equal(asked_end(&a[1]), 0);
	WAIT_FOR(server.messages == 4);
	on_loop(answer_kept, &r);
	assert_int_equal(asked_end(&a[2]), 0);
	assert_int_equal(asked_end(&a[4]), 0);
}

static void test_requests_beyond_the_limit_are_not_read(void **state)
{
	struct asked a[10];
	int r = 0;

	(void)state;
	server.limits.max_owed = 3;
	server.message = never;
	connect_both();
	for (unsigned i = 0; i < 10; i++)
		ask(&a[i], bytes_str("x"), 0);
	WAIT_FOR(server.messages == 3);
	for (unsigned n = 3; n < 10; n += 3) {
		usleep(10000);
		assert_int_equal(server.messages, n);
		on_loop(answer_kept, &r);
		WAIT_FOR(server.messages == (n + 3 < 10 ? n + 3 : 10));
	}
	on_loop(answer_kept, &r);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(asked_end(&a[i]), 0);
}

static void test_nobody_listens(void **state)
{
	sem_t s;

	(void)state;
	sem_init(&s, 0, 0);
	on_loop(stop_listener, &s);
	sem_take(&s);
	struct asked a;
	on_loop(connect_client, NULL);
	ask(&a, bytes_str("x"), 0);
	assert_int_equal(asked_end(&a), -ENOTCONN);
	sem_take(&client.ended);
	assert_int_equal(client.reason, -ECONNREFUSED);
	assert_false(client.is_up);
	sem_post(&client.ended);
	on_loop(start_listener, NULL);
}

/* Silence ---------------------------------------------------------------------------- */

static void test_silence_ends_it(void **state)
{
	(void)state;
	server.limits.idle_ms = 50;
	int fd = connect_raw();
	raw_expect_end(fd);
	sem_take(&server.ended);
	assert_int_equal(server.reason, -ETIMEDOUT);
	sem_post(&server.ended);
}

static void tell(void *arg)
{
	struct writer w = { 0 };

	(void)arg;
	write_bytes(&w, "x", 1);
	conn_send(server.conn, WIRE_KV, w);
}

/* What goes into a buffer of the kernel's is heard by nobody yet. */
static void test_what_is_told_to_who_is_silent_does_not_keep_it(void **state)
{
	unsigned told = 0;

	(void)state;
	server.limits.idle_ms = 200;
	int fd = connect_raw();
	for (; told < 500 && sem_trywait(&server.ended); told++) {
		on_loop(tell, NULL);
		usleep(10000);
	}
	assert_true(told < 500);
	assert_int_equal(server.reason, -ETIMEDOUT);
	sem_post(&server.ended);
	close(fd);
}

static void test_pings_keep_it(void **state)
{
	struct asked a;

	(void)state;
	server.limits.idle_ms = client.limits.idle_ms = 400;
	client.limits.ping_ms = 40;
	server.message = echo;
	connect_both();
	usleep(1200000);
	ask(&a, bytes_str("x"), 0);
	assert_int_equal(asked_end(&a), 0);
}

/* It is connected by the kernel, and nobody is there. */
static void test_a_frozen_peer_ends_it(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t usual_port = port;
	struct asked x;

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	client.limits.idle_ms = 200;
	client.limits.ping_ms = 50;
	port = ntohs(a.sin_port);
	on_loop(connect_client, NULL);
	port = usual_port;
	ask(&x, bytes_str("x"), 0);
	assert_int_equal(asked_end(&x), -ENOTCONN);
	sem_take(&client.ended);
	assert_int_equal(client.reason, -ETIMEDOUT);
	sem_post(&client.ended);
	close(fd);
}

static void test_it_must_be_done_by_then(void **state)
{
	(void)state;
	server.limits.until_ns = clock_ns() + 30000000;
	int fd = connect_raw();
	raw_expect_end(fd);
	sem_take(&server.ended);
	assert_int_equal(server.reason, -ETIMEDOUT);
	sem_post(&server.ended);
}

/* Hostile peers ------------------------------------------------------------------------ */

static struct wire_header request(uint64_t id)
{
	return (struct wire_header){ .type = WIRE_KV, .id = id };
}

static struct writer text(const char *s)
{
	struct writer w = { 0 };

	write_bytes(&w, s, strlen(s));
	return w;
}

/* The server ends it for that reason. */
static void expect_refused(int fd, int reason)
{
	raw_expect_end(fd);
	sem_take(&server.ended);
	assert_int_equal(server.reason, reason);
	conn_free(server.conn);
	end_init(&server);
	server.message = echo;
}

static void test_hostile_bytes(void **state)
{
	uint8_t b[WIRE_HEADER], rubbish[300];
	struct wire_header h = request(1);
	int fd;

	(void)state;
	server.message = echo;
	memset(rubbish, 0xa5, sizeof(rubbish));
	fd = connect_raw();
	raw_send(fd, rubbish, sizeof(rubbish));
	expect_refused(fd, -EPROTO);

	fd = connect_raw(); /* a length that is too large */
	h.len = WIRE_BODY_MAX + 1;
	wire_put_header(b, &h);
	raw_send(fd, b, sizeof(b));
	expect_refused(fd, -EPROTO);

	server.limits.max_body = 100; /* or only for now */
	fd = connect_raw();
	h.len = 101;
	wire_put_header(b, &h);
	raw_send(fd, b, sizeof(b));
	expect_refused(fd, -EPROTO);

	fd = connect_raw(); /* half a message */
	h.len = 1000000;
	wire_put_header(b, &h);
	raw_send(fd, b, sizeof(b));
	raw_send(fd, rubbish, sizeof(rubbish));
	shutdown(fd, SHUT_WR);
	expect_refused(fd, -ECONNRESET);

	fd = connect_raw(); /* half a header */
	raw_send(fd, b, 11);
	shutdown(fd, SHUT_WR);
	expect_refused(fd, -ECONNRESET);
}

static void test_ids_that_do_not_rise(void **state)
{
	static const uint64_t second[] = { 5, 4, 1 };

	(void)state;
	server.message = echo;
	for (unsigned i = 0; i < 3; i++) {
		int fd = connect_raw();
		raw_message(fd, request(5), text("a"));
		raw_message(fd, request(second[i]), text("b"));
		expect_refused(fd, -EPROTO);
	}
	int fd = connect_raw();
	raw_message(fd, request(UINT64_MAX), text("a"));
	raw_message(fd, (struct wire_header){ .type = WIRE_PING, .id = UINT64_MAX }, text(""));
	expect_refused(fd, -EPROTO);
	fd = connect_raw();
	raw_message(fd, (struct wire_header){ .type = WIRE_PING, .id = 1 }, text("x"));
	expect_refused(fd, -EPROTO);
}

static void test_answers_that_nobody_asked_for(void **state)
{
	struct wire_header h = { .type = WIRE_KV, .id = 1, .flags = WIRE_ANSWER };

	(void)state;
	server.message = echo;
	int fd = connect_raw();
	raw_message(fd, h, text("a"));
	expect_refused(fd, -EPROTO);
	h.flags |= WIRE_MORE;
	fd = connect_raw();
	raw_message(fd, h, text("a"));
	expect_refused(fd, -EPROTO);
}

static void ask_of_server(void *arg)
{
	conn_call(server.conn, arg);
}

static void test_an_answer_of_another_kind(void **state)
{
	struct asked a = { .call = { .type = WIRE_STAT, .done = asked_done } };
	struct wire_header h;
	struct writer w = { 0 };

	(void)state;
	sem_init(&a.done, 0, 0);
	int fd = connect_raw();
	on_loop(ask_of_server, &a.call);
	assert_true(raw_next(fd, &h, &w));
	assert_int_equal(h.type, WIRE_STAT);
	raw_message(fd, (struct wire_header){ .type = WIRE_KV, .id = h.id, .flags = WIRE_ANSWER },
		    text("a"));
	expect_refused(fd, -EPROTO);
	assert_int_equal(asked_end(&a), -ENOTCONN);
	writer_fini(&w);
}

static void test_nothing_is_asked_before_it_may_be(void **state)
{
	(void)state;
	server.message = echo;
	server.limits.max_owed = 0;
	int fd = connect_raw();
	raw_message(fd, request(1), text("a"));
	expect_refused(fd, -EPROTO);
}

/* Asks for much and reads none of it. */
static void test_a_slow_reader_has_bounded_answers(void **state)
{
	uint64_t id = 0;
	uint8_t b[WIRE_HEADER];
	struct wire_header h;

	(void)state;
	server.message = long_answer;
	server.limits.idle_ms = 300;
	int fd = connect_raw();
	for (unsigned i = 0; i < 5000; i++) {
		h = request(++id);
		wire_put_header(b, &h);
		if (send(fd, b, sizeof(b), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	}
	sem_take(&server.ended);
	assert_int_equal(server.reason, -ETIMEDOUT);
	assert_true(server.messages < 10); /* 4 MB each */
	sem_post(&server.ended);
	close(fd);
}

/* One byte at a time, several in one: where messages end does not matter. */
static void test_messages_come_in_any_pieces(void **state)
{
	struct writer all = { 0 }, w = { 0 };
	struct rng g = { 1 };
	uint8_t b[WIRE_HEADER];
	static uint8_t body[200000];

	(void)state;
	server.message = echo;
	int fd = connect_raw();
	for (uint64_t id = 1; id <= 12; id++) {
		struct wire_header h = request(id);
		h.len = (uint32_t)(id % 4 == 3 ? below(&g, sizeof(body)) : below(&g, 100));
		wire_put_header(b, &h);
		write_bytes(&all, b, sizeof(b));
		write_bytes(&all, body, h.len);
	}
	for (size_t at = 0; at < all.len;) {
		size_t n = chance(&g, 80) ? 1 + below(&g, 30) : below(&g, 150000);
		n = n < all.len - at ? n : all.len - at;
		raw_send(fd, all.p + at, n);
		at += n;
		if (chance(&g, 3))
			usleep(1000);
	}
	for (uint64_t id = 1; id <= 12; id++) {
		struct wire_header h;
		assert_true(raw_next(fd, &h, &w));
		assert_int_equal(h.id, id);
	}
	close(fd);
	writer_fini(&all);
	writer_fini(&w);
}

/* Bytes that belong elsewhere ----------------------------------------------------------- */

enum { PLACES = 64, PLACE_LEN = 300000 };

/* Requests of type WRITE: the head says how many bytes are to come, and whether they
 * are wanted. What is wanted is put into `placed` and kept. */
static uint8_t placed[PLACE_LEN];
static uint32_t place_len;
static unsigned nplaced, nreturned;
static bool is_placing, place_wanted;

static void *place(void *arg, const struct wire_header *h, const uint8_t *head)
{
	(void)arg;
	assert_false(is_placing);
	is_placing = true;
	place_len = h->len - CONN_HEAD;
	place_wanted = head[0];
	memset(placed, 0, sizeof(placed));
	return place_wanted ? placed : NULL;
}

static int placed_message(struct end *e, const struct wire_header *h, struct bytes body)
{
	if (h->type != WIRE_WRITE) {
		static uint8_t lent[PLACE_LEN];
		memset(lent, (int)h->id, sizeof(lent));
		uint32_t n;
		memcpy(&n, body.p, 4);
		conn_answer_lent(e->conn, h, BYTES_OF(lent, n), h->id);
		return 0;
	}
	assert_true(is_placing && body.len == CONN_HEAD);
	is_placing = false;
	for (uint32_t i = 0; i < place_len; i++)
		assert_int_equal(placed[i], place_wanted ? (uint8_t)(i * 7 + h->id) : 0);
	nplaced++;
	conn_answer(e->conn, h, place_wanted ? 0 : -ESTALE, (struct writer){ 0 });
	return 0;
}

static void returned(void *arg, uint64_t cookie)
{
	(void)arg;
	(void)cookie;
	nreturned++;
}

static const struct conn_ops placing_ops = {
	.up = end_up, .message = end_message, .ended = end_ended, .place_type = WIRE_WRITE,
	.place = place, .returned = returned,
};

/* In pieces of any length, with other messages between, wanted and not. */
static void walk_places(void *arg, uint64_t seed)
{
	struct rng g = { seed };
	struct writer all = { 0 };
	uint8_t b[WIRE_HEADER], head[CONN_HEAD] = { 0 };
	int fd = connect_raw();
	unsigned nwrites = 0;

	(void)arg;
	nplaced = 0;
	for (uint64_t id = 1; id <= PLACES; id++) {
		struct wire_header h = { .type = WIRE_WRITE, .id = id };
		bool is_ping = chance(&g, 20);
		uint32_t n = is_ping ? 0 : (uint32_t)below(&g, chance(&g, 50) ? 100 : PLACE_LEN);
		h.type = is_ping ? WIRE_PING : WIRE_WRITE;
		h.len = is_ping ? 0 : CONN_HEAD + n;
		wire_put_header(b, &h);
		write_bytes(&all, b, sizeof(b));
		head[0] = chance(&g, 70);
		write_bytes(&all, head, is_ping ? 0 : sizeof(head));
		for (uint32_t i = 0; i < n; i++)
			write_u8(&all, (uint8_t)(i * 7 + id));
		nwrites += !is_ping;
	}
	for (size_t at = 0; at < all.len;) {
		size_t n = 1 + (chance(&g, 60) ? below(&g, 60) : below(&g, 200000));
		n = n < all.len - at ? n : all.len - at;
		raw_send(fd, all.p + at, n);
		at += n;
		if (chance(&g, 3))
			usleep(500);
	}
	for (uint64_t id = 1; id <= PLACES; id++) {
		struct wire_header h;
		all.len = 0;
		assert_true(raw_next(fd, &h, &all));
		assert_int_equal(h.id, id);
	}
	assert_int_equal(nplaced, nwrites);
	close(fd);
	sem_take(&server.ended);
	conn_free(server.conn);
	end_init(&server);
	server.ops = &placing_ops;
	server.message = placed_message;
	server.limits.ahead = 5000;
	writer_fini(&all);
}

static void test_bytes_go_straight_to_their_place(void **state)
{
	(void)state;
	server.ops = &placing_ops;
	server.message = placed_message;
	for_seeds("places", walk_places, NULL);
	is_placing = false;
	int fd = connect_raw(); /* a body that has no head */
	raw_message(fd, (struct wire_header){ .type = WIRE_WRITE, .id = 1 }, text("short"));
	raw_expect_end(fd);
	sem_take(&server.ended);
	assert_int_equal(server.reason, -EPROTO);
	assert_false(is_placing);
	sem_post(&server.ended);
}

static void ask_into(struct asked *a, uint32_t n, void *into)
{
	*a = (struct asked){ .call = { .type = WIRE_READ, .done = asked_done, .into = into,
				       .into_len = n } };
	sem_init(&a->done, 0, 0);
	write_u32(&a->call.body, n);
	conn_call(client.conn, &a->call);
}

static void test_answers_go_straight_to_their_place(void **state)
{
	static uint8_t into[20][PLACE_LEN];
	struct asked a[20], plain;
	struct rng g = { 3 };
	uint32_t n[20];

	(void)state;
	server.ops = &placing_ops;
	server.message = placed_message;
	nreturned = 0;
	connect_both();
	for (unsigned i = 0; i < 20; i++) {
		n[i] = 1 + (uint32_t)below(&g, i % 2 ? 200 : PLACE_LEN - 1);
		ask_into(&a[i], n[i], into[i]);
	}
	for (unsigned i = 0; i < 20; i++) {
		sem_take(&a[i].done);
		assert_int_equal(a[i].r, 0);
		assert_int_equal(a[i].body.len, n[i]);
		for (uint32_t k = 0; k < PLACE_LEN; k++)
			assert_int_equal(into[i][k], k < n[i] ? into[i][0] : 0);
		writer_fini(&a[i].body);
	}
	plain = (struct asked){ .call = { .type = WIRE_PING, .done = asked_done } };
	sem_init(&plain.done, 0, 0);
	conn_call(client.conn, &plain.call);
	assert_int_equal(asked_end(&plain), 0);
	assert_int_equal(nreturned, 20);
}

static int answer_with(struct end *e, const struct wire_header *h, struct bytes body)
{
	uint32_t n = 0;
	struct writer w = { 0 };

	memcpy(&n, body.p, body.len < 4 ? 0 : 4);
	write_room(&w, n + 1); /* one more than is wanted */
	memset(w.p, 5, w.len);
	conn_answer(e->conn, h, 0, w);
	return 0;
}

/* An answer of another length, or to a call whose tail has not gone out yet. */
static void test_answers_that_do_not_fit(void **state)
{
	static uint8_t into[PLACE_LEN];
	struct asked a;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		server.message = answer_with;
		connect_both();
		ask_into(&a, i == 0 ? 10 : i == 1 ? 100000 : 65536 - WIRE_HEADER, into);
		assert_int_equal(asked_end(&a), -ENOTCONN);
		assert_false(a.call.answered);
		for (unsigned k = 0; k < PLACE_LEN; k++)
			assert_int_equal(into[k], 0);
		sem_take(&client.ended);
		assert_int_equal(client.reason, -EPROTO);
		conn_free(client.conn);
		end_init(&client);
		sem_take(&server.ended);
		conn_free(server.conn);
		end_init(&server);
	}
	server.message = echo;
}

/* The tail is lent until all of it is gone, whatever comes before. */
static void test_an_answer_waits_for_the_tail(void **state)
{
	enum { N = 12 };
	static uint8_t tail[1 << 20];
	static struct asked a[N];
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
	uint16_t usual_port = port;

	(void)state;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	port = ntohs(at.sin_port);
	on_loop(connect_client, NULL);
	port = usual_port;
	int peer = accept(fd, NULL, NULL);
	assert_true(peer >= 0);
	for (unsigned i = 0; i < N; i++) { /* more than the sockets take */
		a[i] = (struct asked){ .call = { .type = WIRE_WRITE, .done = asked_done,
						 .tail = BYTES_OF(tail, sizeof(tail)) } };
		sem_init(&a[i].done, 0, 0);
		conn_call(client.conn, &a[i].call);
	}
	WAIT_FOR(client.is_up);
	/* The fourth is answered before it could be there. */
	raw_message(peer, (struct wire_header){ .type = WIRE_WRITE, .id = 4,
						.flags = WIRE_ANSWER }, text(""));
	usleep(50000);
	on_loop(nothing, NULL);
	assert_int_equal(a[3].times, 0);
	on_loop(nothing, NULL);
	close(peer);
	close(fd);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(asked_end(&a[i]), -ENOTCONN);
	sem_take(&client.ended);
	assert_true(client.reason == -ECONNRESET || client.reason == -EPIPE);
	sem_post(&client.ended);
}

/* Many threads ------------------------------------------------------------------------ */

static int sometimes(struct end *e, const struct wire_header *h, struct bytes body)
{
	if (e->nkept && h->id % 3) {
		unsigned i = (unsigned)(h->id * 7 % e->nkept);
		struct wire_header old = e->kept[i];
		e->kept[i] = e->kept[--e->nkept];
		answer(e, &old, 0, body);
	}
	if (e->nkept < 10 && h->id % 4)
		e->kept[e->nkept++] = *h;
	else
		answer(e, h, 0, body);
	return 0;
}

/* Given up at once, or as soon as it was sent; what is owed then comes. */
static void ask_and_give_up(unsigned i)
{
	struct late l;

	ask_late(&l, i % 8 ? 0 : 2);
	if (i % 16)
		usleep(i * 7 % 1000);
	if (i % 8)
		atomic_store(&l.of.cancelled, true);
	sem_take(&l.done);
	if (l.call.owes_late)
		sem_take(&l.late);
	assert_int_equal(l.late_times, l.call.owes_late);
}

static void *ask_many(void *arg)
{
	atomic_uint *ends = arg;

	for (unsigned i = 0; i < 400; i++) {
		struct asked a;
		if (i % 4 == 1) {
			ask_and_give_up(i / 4);
			continue;
		}
		ask(&a, bytes_str("body"), i % 3 ? 2 : 0);
		int r = asked_end(&a);
		assert_true(r == 0 || r == -ETIMEDOUT || r == -ENOTCONN);
		if (r == -ENOTCONN)
			atomic_fetch_add(ends, 1);
	}
	return NULL;
}

static void test_every_call_ends_once_while_it_is_cut(void **state)
{
	atomic_uint ends = 0;
	pthread_t t[4];

	(void)state;
	server.message = sometimes;
	client.limits.max_calls = 14;
	connect_both();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, ask_many, &ends), 0);
	usleep(150000);
	conn_stop(client.conn, -ECANCELED);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	sem_take(&client.ended);
	assert_int_equal(client.reason, -ECANCELED);
	sem_post(&client.ended);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_call_is_answered),
		T(test_a_long_answer_comes_in_parts),
		T(test_the_end_ends_all_calls),
		T(test_a_late_answer_finds_nobody),
		T(test_a_cancelled_call_ends_soon),
		T(test_what_is_cancelled_at_once_is_not_sent),
		T(test_the_end_is_the_last_answer),
		T(test_what_has_no_room_waits_and_times_out),
		T(test_requests_beyond_the_limit_are_not_read),
		T(test_nobody_listens),
		T(test_silence_ends_it),
		T(test_what_is_told_to_who_is_silent_does_not_keep_it),
		T(test_pings_keep_it),
		T(test_a_frozen_peer_ends_it),
		T(test_it_must_be_done_by_then),
		T(test_hostile_bytes),
		T(test_ids_that_do_not_rise),
		T(test_answers_that_nobody_asked_for),
		T(test_an_answer_of_another_kind),
		T(test_nothing_is_asked_before_it_may_be),
		T(test_a_slow_reader_has_bounded_answers),
		T(test_messages_come_in_any_pieces),
		T(test_bytes_go_straight_to_their_place),
		T(test_answers_go_straight_to_their_place),
		T(test_answers_that_do_not_fit),
		T(test_an_answer_waits_for_the_tail),
		T(test_every_call_ends_once_while_it_is_cut),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
