/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A relay on loopback between a mount and a node: what goes through it is late by
 * chance, and its connections can be cut.
 */
#include "tests/unit/net_kit.h"

enum { RELAY_CONNS = 256 };

struct relay_way {
	struct relay *relay;
	int from, to;
	struct rng rng;
	pthread_t thread;
};

struct relay {
	int fd;
	uint16_t port, node; /* where it listens; where it goes on to */
	atomic_uint late_us; /* of one read, at most */
	pthread_t thread;

	pthread_mutex_t mutex;
	struct relay_way way[RELAY_CONNS][2];
	unsigned n, first; /* connections; the first that was not cut */
	bool closing;
};

static inline void *relay_way(void *arg)
{
	struct relay_way *w = arg;
	char b[16384];
	ssize_t n;

	while ((n = recv(w->from, b, sizeof(b), 0)) > 0) {
		unsigned us = w->relay->late_us;
		if (us && chance(&w->rng, 50))
			usleep((useconds_t)below(&w->rng, us));
		raw_send(w->to, b, (size_t)n);
	}
	shutdown(w->to, SHUT_RDWR);
	shutdown(w->from, SHUT_RDWR);
	return NULL;
}

static inline void *relay_accept(void *arg)
{
	struct relay *r = arg;
	int fd;

	while ((fd = accept(r->fd, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&r->mutex);
		bool full = r->closing || r->n == RELAY_CONNS;
		assert_true(r->closing || !full);
		if (full) {
			close(fd);
		} else {
			int on = raw_connect(r->node), one = 1;
			setsockopt(on, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
			setsockopt(fd, IPPROTO_TCP, 1, &one, sizeof(one));
			struct relay_way *w = r->way[r->n++];
			w[0] = (struct relay_way){ r, fd, on, { r->n }, 0 };
			w[1] = (struct relay_way){ r, on, fd, { r->n + 1000 }, 0 };
			for (unsigned i = 0; i < 2; i++)
				assert_int_equal(pthread_create(&w[i].thread, NULL, relay_way,
								&w[i]), 0);
		}
		pthread_mutex_unlock(&r->mutex);
	}
	return NULL;
}

static inline void relay_open(struct relay *r, uint16_t node)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	*r = (struct relay){ .node = node, .mutex = PTHREAD_MUTEX_INITIALIZER };
	r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(r->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(r->fd, 16), 0);
	assert_int_equal(getsockname(r->fd, (struct sockaddr *)&a, &len), 0);
	r->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&r->thread, NULL, relay_accept, r), 0);
}

/* Cuts all connections that there are. */
static inline void relay_cut(struct relay *r)
{
	pthread_mutex_lock(&r->mutex);
	for (; r->first < r->n; r->first++)
		shutdown(r->way[r->first][0].from, SHUT_RDWR);
	pthread_mutex_unlock(&r->mutex);
}

/* The same, and new ones get nowhere until relay_go_on(). */
static inline void relay_stop(struct relay *r)
{
	relay_cut(r);
	pthread_mutex_lock(&r->mutex);
}

static inline void relay_go_on(struct relay *r)
{
	pthread_mutex_unlock(&r->mutex);
}

static inline void relay_close(struct relay *r)
{
	pthread_mutex_lock(&r->mutex);
	r->closing = true;
	pthread_mutex_unlock(&r->mutex);
	relay_cut(r);
	shutdown(r->fd, SHUT_RDWR);
	pthread_join(r->thread, NULL);
	close(r->fd);
	for (unsigned i = 0; i < r->n; i++) {
		pthread_join(r->way[i][0].thread, NULL);
		pthread_join(r->way[i][1].thread, NULL);
		close(r->way[i][0].from);
		close(r->way[i][0].to);
	}
}
