/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the tests of connections share: a loop, things done on it, a listener, a
 * socket of the test's own that can say anything, and one end of a connection
 * that notes what happens to it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "common/lock.h"
#include "common/loop.h"
#include "common/stream.h"
#include "engine/conn.h"
#include "tests/unit/kv_kit.h"
#include "tests/unit/tsan_kit.h"

static struct loop *net_loop __attribute__((unused));

static inline void sem_take(sem_t *s)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 60;
	while (sem_timedwait(s, &end) < 0)
		assert_int_equal(errno, EINTR);
}

static inline void on_loop(void (*fn)(void *arg), void *arg)
{
	loop_run(net_loop, fn, arg);
}

static inline void nothing(void *arg)
{
	(void)arg;
}

/* Waits up to a minute until it holds. */
#define WAIT_FOR(x)                                                                               \
	do {                                                                                      \
		uint64_t end_ = clock_ns() + 60 * NS_PER_S;                                       \
		while (!(x) && clock_ns() < end_)                                                 \
			usleep(500);                                                              \
		assert_true(x);                                                                   \
	} while (0)

/* A socket of the test's own ---------------------------------------------------- */

static inline int raw_connect(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static inline void raw_send(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
		if (k < 0 && (errno == EPIPE || errno == ECONNRESET))
			return; /* it has closed already */
		assert_true(k > 0);
		at += (size_t)k;
	}
}

/* A whole message; the body is written by the caller, and freed here. */
static inline void raw_message(int fd, struct wire_header h, struct writer body)
{
	uint8_t b[WIRE_HEADER];

	h.len = (uint32_t)body.len;
	wire_put_header(b, &h);
	raw_send(fd, b, sizeof(b));
	raw_send(fd, body.p, body.len);
	writer_fini(&body);
}

/* Exactly n bytes; false: it was closed before. */
static inline bool raw_read(int fd, void *to, size_t n)
{
	for (size_t at = 0; at < n;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		assert_int_equal(poll(&p, 1, 60000), 1);
		ssize_t k = recv(fd, (char *)to + at, n - at, 0);
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return true;
}

/* The next message, its body in w; false: it was closed. */
static inline bool raw_next(int fd, struct wire_header *ret, struct writer *w)
{
	uint8_t b[WIRE_HEADER];

	w->len = 0;
	if (!raw_read(fd, b, sizeof(b)))
		return false;
	assert_int_equal(wire_get_header(b, ret), 0);
	return raw_read(fd, write_room(w, ret->len), ret->len);
}

/* Reads until the other side has closed, as it must. */
static inline void raw_expect_end(int fd)
{
	char b[4096];

	while (raw_read(fd, b, 1))
		;
	close(fd);
}
