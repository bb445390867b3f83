/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node in this process, a link to it, and slices that its session holds: what the
 * tests of the transport over TCP share. And a proxy that may stand between the two,
 * which cuts connections, stops passing bytes on, or passes them on too late.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/remote.h"
#include "engine/server.h"
#include "engine/transport_tcp.h"
#include "tests/unit/tsan_kit.h"

/* Slices ----------------------------------------------------------------------------- */

static inline struct writer tcp_item(enum wire_form form, struct slice_id s, uint32_t pages)
{
	struct wire_item v = { s, pages };
	struct writer w = { 0 };

	wire_write_items(&w, form, &(struct wire_items){ 1, &v });
	return w;
}

/* 0, POOL_FULL, or negative. */
static inline int tcp_alloc(struct remote *x, uint32_t pages, struct wire_item *ret)
{
	struct writer got = { 0 };
	struct wire_items items = { 0 };
	int r = remote_ask(x, WIRE_ALLOC, tcp_item(WIRE_PAGES, (struct slice_id){ 0 }, pages), 0,
			   &got);

	if (!r && wire_read_items(writer_bytes(&got), WIRE_SLICE_PAGES, &items) < 0)
		abort();
	if (!r)
		*ret = items.v[0];
	wire_items_fini(&items);
	writer_fini(&got);
	return r;
}

static inline int tcp_seal(struct remote *x, struct slice_id s, uint32_t pages)
{
	struct writer got = { 0 };
	struct wire_results results = { 0 };
	int r = remote_ask(x, WIRE_SEAL, tcp_item(WIRE_SLICE_PAGES, s, pages), 0, &got);

	if (!r && wire_read_results(writer_bytes(&got), &results) < 0)
		abort();
	if (!r)
		r = wire_errno(results.v[0]);
	wire_results_fini(&results);
	writer_fini(&got);
	return r;
}

static inline struct writer tcp_pin_body(struct slice_id s, uint32_t pages)
{
	struct wire_item item = { s, pages };
	struct wire_pin m = { .items = { 1, &item } };
	struct writer w = { 0 };

	wire_write_pin(&w, &m);
	return w;
}

static inline int tcp_pin(struct remote *x, struct slice_id s, uint32_t pages)
{
	return remote_ask(x, WIRE_PIN, tcp_pin_body(s, pages), 0, NULL);
}

/* Returns when the node has done it. */
static inline int tcp_unpin(struct remote *x, struct slice_id s)
{
	remote_send(x, remote_session(x), WIRE_UNPIN, tcp_item(WIRE_SLICES, s, 0));
	return remote_ask(x, WIRE_PING, (struct writer){ 0 }, 0, NULL);
}

/* A proxy ---------------------------------------------------------------------------- */

enum { PROXY_PAIRS = 64, PROXY_BYTES = 4 << 20, KIND_AT = WIRE_HEADER + 16 };

struct proxy_way {
	uint8_t *b;
	size_t at, len;
	bool has_ended; /* no more comes in */
};

struct proxy_pair {
	int fd[2];                /* of the mount, of the node; -1: closed */
	struct proxy_way way[2];  /* from fd[i] */
	size_t nup;               /* bytes that came from the mount */
	bool is_lane;
	int64_t quota;            /* that go on to the node while they are held */
};

struct proxy {
	int fd;
	uint16_t port, to;
	pthread_t thread;
	struct proxy_pair pairs[PROXY_PAIRS]; /* the thread's */
	atomic_bool ends;
	atomic_bool holds_lanes;  /* what lanes carry is not passed on */
	atomic_bool holds_all;
	atomic_int quota;         /* but so many bytes to the node, on each lane */
	atomic_int cut_lanes;     /* so many are to be closed at once */
	atomic_uint lanes_seen;
	atomic_ullong held;       /* bytes for the node that wait here */
};

static inline int proxy_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		abort();
	return fd;
}

static inline void proxy_accept(struct proxy *x)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(x->to),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int in = accept(x->fd, NULL, NULL), out = proxy_socket(), one = 1;
	struct proxy_pair *p = NULL;

	for (unsigned i = 0; i < PROXY_PAIRS && !p; i++)
		if (x->pairs[i].fd[0] < 0 && x->pairs[i].fd[1] < 0)
			p = &x->pairs[i];
	if (!p || in < 0 || connect(out, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(in);
		close(out);
		return;
	}
	setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*p = (struct proxy_pair){ .fd = { in, out } };
	for (unsigned i = 0; i < 2; i++)
		if (!(p->way[i].b = malloc(PROXY_BYTES)))
			abort();
}

static inline void proxy_close(struct proxy_pair *p)
{
	for (unsigned i = 0; i < 2; i++) {
		if (p->fd[i] >= 0)
			close(p->fd[i]);
		p->fd[i] = -1;
		free(p->way[i].b);
		p->way[i] = (struct proxy_way){ 0 };
	}
}

/* What may be passed on now of what came from fd[i]. */
static inline size_t proxy_may(struct proxy *x, struct proxy_pair *p, unsigned i)
{
	size_t n = p->way[i].len - p->way[i].at;
	bool holds = atomic_load(&x->holds_all) || (p->is_lane && atomic_load(&x->holds_lanes));

	if (!holds) {
		p->quota = 0;
		return n;
	}
	if (i || atomic_load(&x->quota) <= p->quota)
		return 0;
	size_t left = (size_t)(atomic_load(&x->quota) - p->quota);
	return n < left ? n : left;
}

static inline void proxy_read(struct proxy *x, struct proxy_pair *p, unsigned i)
{
	struct proxy_way *w = &p->way[i];

	if (w->at == w->len)
		w->at = w->len = 0;
	if (w->len == PROXY_BYTES || w->has_ended)
		return;
	ssize_t n = recv(p->fd[i], w->b + w->len, PROXY_BYTES - w->len, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		w->has_ended = true;
	if (n <= 0)
		return;
	if (!i && p->nup <= KIND_AT && p->nup + (size_t)n > KIND_AT) {
		p->is_lane = w->b[w->len + KIND_AT - p->nup] == WIRE_DATA;
		atomic_fetch_add(&x->lanes_seen, p->is_lane);
	}
	p->nup += i ? 0 : (size_t)n;
	w->len += (size_t)n;
}

/* False: the other end takes nothing any more. */
static inline bool proxy_write(struct proxy *x, struct proxy_pair *p, unsigned i)
{
	struct proxy_way *w = &p->way[i];
	size_t may = proxy_may(x, p, i);

	if (!may)
		return true;
	ssize_t n = send(p->fd[!i], w->b + w->at, may, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN;
	w->at += (size_t)n;
	p->quota += n;
	return true;
}

/* A pair goes when one end has closed and all that it sent was passed on: so what is
 * held reaches the node after the mount has closed. */
static inline void proxy_turn(struct proxy *x, struct proxy_pair *p)
{
	for (unsigned i = 0; i < 2; i++)
		proxy_read(x, p, i);
	bool is_fine = proxy_write(x, p, 0) && (p->way[0].has_ended || proxy_write(x, p, 1));
	bool is_empty = p->way[0].at == p->way[0].len;
	bool is_over = is_empty && (p->way[0].has_ended || (p->way[1].has_ended &&
							   p->way[1].at == p->way[1].len));
	bool is_cut = p->is_lane && atomic_load(&x->cut_lanes) > 0;
	if (is_cut)
		atomic_fetch_sub(&x->cut_lanes, 1);
	if (!is_fine || is_over || is_cut)
		proxy_close(p);
}

static inline void *proxy_main(void *arg)
{
	struct proxy *x = arg;
	struct pollfd p[1 + 2 * PROXY_PAIRS];

	while (!atomic_load(&x->ends)) {
		unsigned n = 1;
		uint64_t held = 0;
		p[0] = (struct pollfd){ .fd = x->fd, .events = POLLIN };
		for (unsigned i = 0; i < PROXY_PAIRS; i++) {
			for (unsigned k = 0; k < 2; k++) {
				struct proxy_way *w = &x->pairs[i].way[k];
				short out = proxy_may(x, &x->pairs[i], !k) ? POLLOUT : 0;
				short in = w->has_ended || w->len == PROXY_BYTES ? 0 : POLLIN;
				if (x->pairs[i].fd[k] >= 0 && (in || out))
					p[n++] = (struct pollfd){ .fd = x->pairs[i].fd[k],
								  .events = in | out };
			}
			held += x->pairs[i].way[0].len - x->pairs[i].way[0].at;
		}
		atomic_store(&x->held, held);
		poll(p, n, 2);
		if (p[0].revents)
			proxy_accept(x);
		for (unsigned i = 0; i < PROXY_PAIRS; i++)
			if (x->pairs[i].fd[0] >= 0)
				proxy_turn(x, &x->pairs[i]);
	}
	for (unsigned i = 0; i < PROXY_PAIRS; i++)
		proxy_close(&x->pairs[i]);
	return NULL;
}

static inline struct proxy *proxy_start(uint16_t to)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	struct proxy *x = calloc(1, sizeof(*x));

	if (!x)
		abort();
	x->to = to;
	x->fd = proxy_socket();
	for (unsigned i = 0; i < PROXY_PAIRS; i++)
		x->pairs[i].fd[0] = x->pairs[i].fd[1] = -1;
	if (bind(x->fd, (struct sockaddr *)&a, sizeof(a)) || listen(x->fd, 64) ||
	    getsockname(x->fd, (struct sockaddr *)&a, &len) ||
	    pthread_create(&x->thread, NULL, proxy_main, x))
		abort();
	x->port = ntohs(a.sin_port);
	return x;
}

static inline void proxy_stop(struct proxy *x)
{
	if (!x)
		return;
	atomic_store(&x->ends, true);
	pthread_join(x->thread, NULL);
	close(x->fd);
	free(x);
}
