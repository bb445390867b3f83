/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses as people write them, and the ends of streams (common/stream.h): each
 * write's done() and then ended(), once. What flows through is in test_conn.c.
 */
#include "tests/unit/net_kit.h"

static int named(const char *where, const char *name)
{
	struct sockaddr_storage a;
	char found[STREAM_NAME];
	int r = stream_resolve(where, 7000, &a);

	if (r < 0)
		return r;
	stream_name(&a, found);
	assert_string_equal(found, name);
	return stream_is_loopback(&a);
}

static void test_addresses(void **state)
{
	(void)state;
	assert_int_equal(named("127.0.0.1", "127.0.0.1:7000"), 1);
	assert_int_equal(named("127.9.9.9:1", "127.9.9.9:1"), 1);
	assert_int_equal(named("", "127.0.0.1:7000"), 1);
	assert_int_equal(named(":80", "127.0.0.1:80"), 1);
	assert_int_equal(named("10.0.0.1:65535", "10.0.0.1:65535"), 0);
	assert_int_equal(named("0.0.0.0", "0.0.0.0:7000"), 0);
	assert_int_equal(named("[::1]:5", "[::1]:5"), 1);
	assert_int_equal(named("[::1]", "[::1]:7000"), 1);
	assert_int_equal(named("fe80::2", "[fe80::2]:7000"), 0);
	assert_int_equal(named("10.0.0.1:65536", ""), -EINVAL);
	assert_int_equal(named("10.0.0.1:", ""), -EINVAL);
	assert_int_equal(named("10.0.0.1:-1", ""), -EINVAL);
	assert_int_equal(named("10.0.0.1:x", ""), -EINVAL);
	assert_int_equal(named("[::1", ""), -EINVAL);
	assert_int_equal(named("[::1]x", ""), -EINVAL);
	assert_int_equal(named("no.such.host.invalid", ""), -ENOENT);
}

/* Ends ----------------------------------------------------------------------------- */

enum { WRITES = 8, BYTES = 4 << 20 };

struct one {
	struct stream *stream;
	struct listener *listener;
	uint16_t port;
	unsigned done, connected, ended_at; /* done, when ended() came */
	int reason;
	sem_t ended;
};

static void *no_room(void *arg, size_t *ret_len)
{
	static char sink[100];

	(void)arg;
	*ret_len = sizeof(sink);
	return sink;
}

static void one_arrived(void *arg, size_t n)
{
	(void)arg;
	(void)n;
}

static void one_done(void *arg, int r)
{
	(void)r;
	((struct one *)arg)->done++;
}

static void one_connected(void *arg)
{
	static char bytes[BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct one *o = arg;

	o->connected++;
	for (unsigned i = 0; i < WRITES; i++) /* more than any socket takes */
		assert_int_equal(stream_write(o->stream, &iov, 1, one_done, o), 0);
	stream_stop(o->stream, -ESTALE);
	stream_stop(o->stream, -EIO);
	assert_int_equal(stream_write(o->stream, &iov, 1, one_done, o), -ENOTCONN);
}

static void one_ended(void *arg, int reason)
{
	struct one *o = arg;

	o->reason = reason;
	o->ended_at = o->done;
	sem_post(&o->ended);
}

static void one_woken(void *arg)
{
	stream_stop(((struct one *)arg)->stream, -ETIME);
}

static const struct stream_ops one_ops = { one_connected, no_room, one_arrived, one_woken,
					   one_ended };

static void start_one(void *arg)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(((struct one *)arg)->port) };
	struct one *o = arg;

	assert_int_equal(stream_connect(net_loop, (struct sockaddr_storage *)&a, &o->stream), 0);
	stream_start(o->stream, &one_ops, o);
}

static void test_writes_end_before_the_stream(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct one o = { 0 };

	(void)state;
	sem_init(&o.ended, 0, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	o.port = ntohs(a.sin_port);
	on_loop(start_one, &o);
	sem_take(&o.ended);
	assert_int_equal(o.connected, 1);
	assert_int_equal(o.ended_at, WRITES);
	assert_int_equal(o.reason, -ESTALE); /* the first one */
	close(fd);
	o = (struct one){ .port = o.port };
	sem_init(&o.ended, 0, 0);
	on_loop(start_one, &o);
	sem_take(&o.ended);
	assert_int_equal(o.connected, 0);
	assert_int_equal(o.reason, -ECONNREFUSED);
}

/* Accepted, and then never a word: its alarm ends it. */
static void take_one(void *arg, struct stream *s)
{
	struct one *o = arg;

	o->stream = s;
	stream_start(s, &one_ops, o);
	stream_wake(s, clock_ns() + 1000 * NS_PER_S);
	stream_wake(s, clock_ns() + 10000000);
}

static void refuse_one(void *arg, struct stream *s)
{
	(void)arg;
	stream_stop(s, -EBUSY);
}

static void (*accept_as)(void *arg, struct stream *s);

static void listen_one(void *arg)
{
	struct sockaddr_storage a;
	struct one *o = arg;
	struct listener *second;

	assert_int_equal(stream_resolve("127.0.0.1:0", 0, &a), 0);
	assert_int_equal(listener_new(net_loop, &a, accept_as, o, &o->listener), 0);
	listener_address(o->listener, &a);
	o->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	assert_int_equal(listener_new(net_loop, &a, accept_as, o, &second), -EADDRINUSE);
}

static void closed(void *arg)
{
	sem_post(arg);
}

static void stop_one(void *arg)
{
	struct one *o = arg;

	listener_stop(o->listener, closed, &o->ended);
}

static void test_accepted_streams(void **state)
{
	struct one o = { 0 };

	(void)state;
	sem_init(&o.ended, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		accept_as = i ? refuse_one : take_one;
		on_loop(listen_one, &o);
		int fd = raw_connect(o.port);
		raw_expect_end(fd);
		if (!i)
			sem_take(&o.ended);
		on_loop(stop_one, &o);
		sem_take(&o.ended);
	}
	assert_int_equal(o.reason, -ETIME);
}

static int setup(void **state)
{
	(void)state;
	return loop_new("test-net", &net_loop);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(net_loop);
	assert_nothing_in_flight();
	return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_addresses),
		T(test_writes_end_before_the_stream),
		T(test_accepted_streams),
	};

	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
