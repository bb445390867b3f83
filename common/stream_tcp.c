/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP: a stream of it is two of libuv's handles, its socket and its timer, and is freed
 * when both are closed. libuv asks for memory, reads into it and tells of it in one
 * go, so between two callbacks nothing is being written anywhere. It gives each
 * write its callback before the socket's close callback.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop_uv.h"
#include "common/stream_kind.h"

enum { BACKLOG = 128 };

struct socket {
	struct stream s; /* first */
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_connect_t connect;
	bool is_up, reads, paused;
	unsigned open; /* handles that are not closed */
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

static struct socket *of(struct stream *s)
{
	return (struct socket *)s;
}

/* Beginning and end -------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *h)
{
	struct socket *x = h->data;

	if (--x->open)
		return;
	stream_over(&x->s);
	free(x);
}

static void socket_stop(struct stream *s)
{
	uv_close((uv_handle_t *)&of(s)->tcp, on_handle_closed);
	uv_close((uv_handle_t *)&of(s)->timer, on_handle_closed);
}

/* Reading ------------------------------------------------------------------------ */

static void on_room(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
	struct socket *x = h->data;
	size_t len = 0;

	(void)hint;
	ret->base = x->s.ops->room(x->s.arg, &len);
	ret->len = len;
	assert(len);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
	struct socket *x = h->data;

	(void)buf;
	if (n > 0)
		x->s.ops->arrived(x->s.arg, (size_t)n);
	else if (n < 0)
		stream_stop(&x->s, n == UV_EOF ? -ECONNRESET : (int)n);
}

static void read_as_wanted(struct socket *x)
{
	bool reads = x->is_up && !x->paused;

	if (reads == x->reads)
		return;
	x->reads = reads;
	int r = reads ? uv_read_start((uv_stream_t *)&x->tcp, on_room, on_read)
		      : uv_read_stop((uv_stream_t *)&x->tcp);
	if (r < 0)
		stream_stop(&x->s, r);
}

static void socket_start(struct stream *s)
{
	read_as_wanted(of(s));
}

static void socket_pause(struct stream *s, bool pause)
{
	of(s)->paused = pause;
	read_as_wanted(of(s));
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

static int socket_write(struct stream *s, const struct iovec *iov, unsigned n,
			void (*done)(void *arg, int r), void *arg)
{
	uv_buf_t bufs[STREAM_IOV_MAX];
	struct write *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct write){ .stream = s, .done = done, .arg = arg };
	w->uv.data = w;
	for (unsigned i = 0; i < n; i++)
		bufs[i] = uv_buf_init(iov[i].iov_base, (unsigned)iov[i].iov_len);
	int r = uv_write(&w->uv, (uv_stream_t *)&of(s)->tcp, bufs, n, on_written);
	if (r < 0)
		free(w);
	return r;
}

/* Waking ------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *t)
{
	struct socket *x = t->data;

	x->s.ops->woken(x->s.arg);
}

static void socket_wake(struct stream *s, uint64_t at_ns)
{
	struct socket *x = of(s);
	uint64_t now = clock_ns();

	uv_timer_stop(&x->timer);
	if (!at_ns)
		return;
	uv_update_time(x->tcp.loop);
	uv_timer_start(&x->timer, on_timer,
		       at_ns > now ? (at_ns - now) / 1000000 + 1 : 0, 0);
}

/* Making ------------------------------------------------------------------------- */

static int socket_again(struct stream *s)
{
	uv_os_fd_t fd;
	int r = uv_fileno((uv_handle_t *)&of(s)->tcp, &fd);

	if (r < 0)
		return r;
	r = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return r < 0 ? -errno : r;
}

static const struct stream_kind socket_kind = {
	.start = socket_start, .pause = socket_pause, .write = socket_write,
	.wake = socket_wake, .stop = socket_stop, .socket = socket_again,
};

static struct socket *socket_new(uv_loop_t *uv)
{
	struct socket *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->s.kind = &socket_kind;
	uv_tcp_init(uv, &x->tcp); /* these two cannot fail */
	uv_timer_init(uv, &x->timer);
	x->tcp.data = x->timer.data = x;
	x->open = 2;
	return x;
}

static void begin(struct socket *x)
{
	struct sockaddr_storage a = { 0 };
	int len = sizeof(a);

	if (!uv_tcp_getpeername(&x->tcp, (struct sockaddr *)&a, &len))
		stream_name(&a, x->s.peer);
	uv_tcp_nodelay(&x->tcp, 1);
	x->is_up = true;
}

int stream_open(struct loop *l, int fd, struct stream **ret)
{
	struct socket *x = socket_new(loop_uv(l));

	if (!x) {
		close(fd);
		return -ENOMEM;
	}
	int r = uv_tcp_open(&x->tcp, fd);
	if (r < 0) {
		close(fd);
		stream_stop(&x->s, r); /* nobody's: it goes without a word */
		return r;
	}
	begin(x);
	*ret = &x->s;
	return 0;
}

static void on_connected(uv_connect_t *c, int r)
{
	struct socket *x = c->data;

	if (x->s.reason)
		return;
	if (r < 0) {
		stream_stop(&x->s, r);
		return;
	}
	begin(x);
	x->s.ops->connected(x->s.arg);
	if (!x->s.reason)
		read_as_wanted(x);
}

int stream_connect(struct loop *l, const struct sockaddr_storage *to, struct stream **ret)
{
	struct socket *x = socket_new(loop_uv(l));

	if (!x)
		return -ENOMEM;
	stream_name(to, x->s.peer);
	x->connect.data = x;
	int r = uv_tcp_connect(&x->connect, &x->tcp, (const struct sockaddr *)to, on_connected);
	if (r < 0) {
		stream_stop(&x->s, r); /* nobody's: it goes without a word */
		return r;
	}
	*ret = &x->s;
	return 0;
}

/* Listening ---------------------------------------------------------------------- */

static void on_connection(uv_stream_t *h, int r)
{
	struct listener *x = h->data;
	struct socket *s;

	/* XXX: libuv listens no more after a connection that was not taken. */
	if (r < 0 || !(s = socket_new(x->tcp.loop)))
		return;
	r = uv_accept(h, (uv_stream_t *)&s->tcp);
	if (r < 0) {
		stream_stop(&s->s, r);
		return;
	}
	begin(s);
	x->accept(x->arg, &s->s);
	assert(s->s.ops || s->s.reason);
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
