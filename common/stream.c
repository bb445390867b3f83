/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream is two of libuv's handles, its socket and its timer, and is freed when
 * both are closed. libuv asks for memory, reads into it and tells of it in one
 * go, so between two callbacks nothing is being written anywhere. It gives each
 * write its callback before the socket's close callback.
 */
#include "common/stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop_uv.h"

enum { BACKLOG = 128 };

struct stream {
	const struct stream_ops *ops; /* NULL: accepted, and nobody's yet */
	void *arg;
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_connect_t connect;
	bool reads, paused, stopped;
	int reason;
	unsigned open; /* handles that are not closed */
	char peer[STREAM_NAME];
};

struct listener {
	uv_tcp_t tcp;
	void (*accept)(void *arg, struct stream *s);
	void *arg;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct write {
	uv_write_t uv;
	struct stream *stream;
	void (*done)(void *arg, int r);
	void *arg;
};

/* Addresses -------------------------------------------------------------------- */

/* "host", "host:port", "[v6]:port" into its two halves. */
static int split(const char *where, char host[256], char port[8])
{
	const char *colon = strrchr(where, ':'), *end = colon ? colon : where + strlen(where);

	if (*where == '[') {
		end = strchr(++where, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
	} else if (colon && memchr(where, ':', (size_t)(colon - where))) {
		colon = NULL; /* an address of IPv6, bare */
		end = where + strlen(where);
	}
	if (end - where >= 256 || (colon && (strlen(colon + 1) > 5 || !colon[1])))
		return -EINVAL;
	memcpy(host, where, (size_t)(end - where));
	host[end - where] = '\0';
	if (colon)
		strcpy(port, colon + 1);
	return 0;
}

int stream_resolve(const char *where, uint16_t default_port, struct sockaddr_storage *ret)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found;
	char host[256], port[8];

	snprintf(port, sizeof(port), "%u", default_port);
	int r = split(where, host, port);
	if (r < 0)
		return r;
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	if (*end || number > UINT16_MAX || *port == '-' || *port == '+')
		return -EINVAL;
	r = getaddrinfo(*host ? host : "127.0.0.1", port, &hints, &found);
	if (r)
		return r == EAI_MEMORY ? -ENOMEM : -ENOENT;
	*ret = (struct sockaddr_storage){ 0 };
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

bool stream_is_loopback(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	if (a->ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	return a->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

void stream_name(const struct sockaddr_storage *a, char ret[STREAM_NAME])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(ret, STREAM_NAME, "%s:%u", host, ntohs(v4->sin_port));
	} else {
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(ret, STREAM_NAME, "[%s]:%u", host, ntohs(v6->sin6_port));
	}
}

/* Beginning and end -------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *h)
{
	struct stream *s = h->data;

	if (--s->open)
		return;
	if (s->ops)
		s->ops->ended(s->arg, s->reason);
	free(s);
}

void stream_stop(struct stream *s, int reason)
{
	if (s->stopped)
		return;
	assert(reason < 0);
	s->stopped = true;
	s->reason = reason;
	uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
	uv_close((uv_handle_t *)&s->timer, on_handle_closed);
}

static struct stream *stream_new(uv_loop_t *uv)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	uv_tcp_init(uv, &s->tcp); /* these two cannot fail */
	uv_timer_init(uv, &s->timer);
	s->tcp.data = s->timer.data = s;
	s->open = 2;
	return s;
}

const char *stream_peer(const struct stream *s)
{
	return s->peer;
}

/* Reading ------------------------------------------------------------------------ */

static void on_room(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
	struct stream *s = h->data;
	size_t len = 0;

	(void)hint;
	ret->base = s->ops->room(s->arg, &len);
	ret->len = len;
	assert(len);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
	struct stream *s = h->data;

	(void)buf;
	if (n > 0)
		s->ops->arrived(s->arg, (size_t)n);
	else if (n < 0)
		stream_stop(s, n == UV_EOF ? -ECONNRESET : (int)n);
}

static void read_as_wanted(struct stream *s)
{
	bool reads = !s->paused && !s->stopped;

	if (reads == s->reads)
		return;
	s->reads = reads;
	int r = reads ? uv_read_start((uv_stream_t *)&s->tcp, on_room, on_read)
		      : uv_read_stop((uv_stream_t *)&s->tcp);
	if (r < 0)
		stream_stop(s, r);
}

void stream_pause(struct stream *s, bool pause)
{
	s->paused = pause;
	if (!s->stopped)
		read_as_wanted(s);
}

static void begin(struct stream *s)
{
	struct sockaddr_storage a = { 0 };
	int len = sizeof(a);

	if (!uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&a, &len))
		stream_name(&a, s->peer);
	uv_tcp_nodelay(&s->tcp, 1);
}

void stream_start(struct stream *s, const struct stream_ops *ops, void *arg)
{
	s->ops = ops;
	s->arg = arg;
	if (!s->stopped)
		read_as_wanted(s);
}

int stream_socket(struct stream *s)
{
	uv_os_fd_t fd;
	int r = uv_fileno((uv_handle_t *)&s->tcp, &fd);

	if (r < 0)
		return r;
	r = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return r < 0 ? -errno : r;
}

int stream_open(struct loop *l, int fd, struct stream **ret)
{
	struct stream *s = stream_new(loop_uv(l));

	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	int r = uv_tcp_open(&s->tcp, fd);
	if (r < 0) {
		close(fd);
		stream_stop(s, r); /* nobody's: it goes without a word */
		return r;
	}
	begin(s);
	*ret = s;
	return 0;
}

/* Connecting --------------------------------------------------------------------- */

static void on_connected(uv_connect_t *c, int r)
{
	struct stream *s = c->data;

	if (s->stopped)
		return;
	if (r < 0) {
		stream_stop(s, r);
		return;
	}
	begin(s);
	s->ops->connected(s->arg);
	if (!s->stopped)
		read_as_wanted(s);
}

int stream_connect(struct loop *l, const struct sockaddr_storage *to,
		   const struct stream_ops *ops, void *arg, struct stream **ret)
{
	struct stream *s = stream_new(loop_uv(l));

	if (!s)
		return -ENOMEM;
	stream_name(to, s->peer);
	s->connect.data = s;
	int r = uv_tcp_connect(&s->connect, &s->tcp, (const struct sockaddr *)to, on_connected);
	if (r < 0) {
		stream_stop(s, r); /* nobody's: it goes without a word */
		return r;
	}
	s->ops = ops;
	s->arg = arg;
	*ret = s;
	return 0;
}

/* Listening ---------------------------------------------------------------------- */

static void on_connection(uv_stream_t *h, int r)
{
	struct listener *x = h->data;
	struct stream *s;

	/* XXX: libuv listens no more after a connection that was not taken. */
	if (r < 0 || !(s = stream_new(x->tcp.loop)))
		return;
	r = uv_accept(h, (uv_stream_t *)&s->tcp);
	if (r < 0) {
		stream_stop(s, r);
		return;
	}
	begin(s);
	x->accept(x->arg, s);
	assert(s->ops || s->stopped);
}

static void on_listener_closed(uv_handle_t *h)
{
	struct listener *x = h->data;

	if (x->closed)
		x->closed(x->closed_arg);
	free(x);
}

void listener_stop(struct listener *x, void (*closed)(void *arg), void *arg)
{
	x->closed = closed;
	x->closed_arg = arg;
	uv_close((uv_handle_t *)&x->tcp, on_listener_closed);
}

int listener_new(struct loop *l, const struct sockaddr_storage *at,
		 void (*accept)(void *arg, struct stream *s), void *arg, struct listener **ret)
{
	struct listener *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	*x = (struct listener){ .accept = accept, .arg = arg };
	uv_tcp_init(loop_uv(l), &x->tcp);
	x->tcp.data = x;
	int r = uv_tcp_bind(&x->tcp, (const struct sockaddr *)at, 0);
	if (!r)
		r = uv_listen((uv_stream_t *)&x->tcp, BACKLOG, on_connection);
	if (r < 0) {
		listener_stop(x, NULL, NULL);
		return r;
	}
	*ret = x;
	return 0;
}

void listener_address(struct listener *x, struct sockaddr_storage *ret)
{
	int len = sizeof(*ret);

	*ret = (struct sockaddr_storage){ 0 };
	uv_tcp_getsockname(&x->tcp, (struct sockaddr *)ret, &len);
}

/* Writing ------------------------------------------------------------------------ */

static void on_written(uv_write_t *uv, int r)
{
	struct write w = *(struct write *)uv->data;

	free(uv->data);
	if (r < 0)
		stream_stop(w.stream, r);
	w.done(w.arg, r);
}

int stream_write(struct stream *s, const struct iovec *iov, unsigned n,
		 void (*done)(void *arg, int r), void *arg)
{
	uv_buf_t bufs[STREAM_IOV_MAX];
	struct write *w;

	assert(n <= STREAM_IOV_MAX);
	if (s->stopped)
		return -ENOTCONN;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct write){ .stream = s, .done = done, .arg = arg };
	w->uv.data = w;
	for (unsigned i = 0; i < n; i++)
		bufs[i] = uv_buf_init(iov[i].iov_base, (unsigned)iov[i].iov_len);
	int r = uv_write(&w->uv, (uv_stream_t *)&s->tcp, bufs, n, on_written);
	if (r < 0)
		free(w);
	return r;
}

/* Waking ------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *t)
{
	struct stream *s = t->data;

	s->ops->woken(s->arg);
}

void stream_wake(struct stream *s, uint64_t at_ns)
{
	uint64_t now = clock_ns();

	if (s->stopped)
		return;
	uv_timer_stop(&s->timer);
	if (!at_ns)
		return;
	uv_update_time(s->tcp.loop);
	uv_timer_start(&s->timer, on_timer,
		       at_ns > now ? (at_ns - now) / 1000000 + 1 : 0, 0);
}
