/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link (remote.h) without a file on it: its node (node_remote.h) gives slices, and
 * a transport moves their bytes, which are those of one buffer.
 *
 * What makes each step end: names are asked for by a thread of its own, which is left
 * behind when it takes too long; posts and calls have deadlines; and a node that did not
 * answer one is not waited for any more: its session is given up, which ends all that is
 * out (remote_stop()), and is what the node gives everything back for.
 */
#include "engine/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/detached.h"
#include "common/lock.h"
#include "common/stream.h"
#include "engine/memory.h"
#include "engine/node_remote.h"
#include "index/index.h"
#include "engine/server.h"
#include "engine/transport_rdma.h"
#include "engine/transport_tcp.h"

enum {
	PIECE_BYTES = WIRE_RUN_MAX,
	TOUCH_BYTES = 64,
	PIECES = 16, /* out at a time, each with a place in a slice of its own */
	SLICES = 4,
	SLICE_BYTES = PIECES / SLICES * PIECE_BYTES,
};

_Static_assert(SLICE_BYTES / PAGE_BYTES <= SLICE_PAGES_MAX, "a slice as long as that");

/* Finding it ------------------------------------------------------------------------- */

struct lookup {
	struct detached detached; /* first: detached_start() */
	char node[300];
	struct sockaddr_storage at;
	int r;
};

static void look_up(struct detached *d)
{
	struct lookup *l = (struct lookup *)d;

	l->r = stream_resolve(l->node, SERVER_PORT, &l->at);
}

int probe_find(const char *node, uint32_t timeout_ms, struct sockaddr_storage *ret)
{
	struct lookup *l;

	if (strlen(node) >= sizeof(l->node))
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	strcpy(l->node, node);
	int r = detached_start(&l->detached, "probe-find", look_up);
	if (r < 0)
		return r;
	r = detached_wait(&l->detached, timeout_ms) ? l->r : -ETIMEDOUT;
	if (!r)
		*ret = l->at;
	detached_unref(&l->detached);
	return r;
}

/* Reaching it ------------------------------------------------------------------------ */

static int await_connected(int fd, uint32_t timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	uint64_t until = clock_ns() + timeout_ms * NS_PER_MS;
	socklen_t len = sizeof(int);
	int n, error = 0;

	do {
		uint64_t now = clock_ns();
		n = poll(&p, 1, now < until ? (int)((until - now) / NS_PER_MS) + 1 : 0);
	} while (n < 0 && errno == EINTR);
	if (n < 1)
		return n ? -errno : -ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return -error;
}

static uint32_t mtu_of(int fd, sa_family_t family)
{
	socklen_t len = sizeof(int);
	int mtu = 0;

	if (family == AF_INET)
		getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &len);
	else
		getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &len);
	return mtu > 0 ? (uint32_t)mtu : 0;
}

int probe_reach(const struct sockaddr_storage *at, uint32_t timeout_ms, struct probe_path *ret)
{
	struct probe_path path = { 0 };
	socklen_t len = sizeof(path.local);
	uint64_t begun = clock_ns();

	_cleanup_(closep) int fd =
		socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)at,
			at->ss_family == AF_INET ? sizeof(struct sockaddr_in)
						 : sizeof(struct sockaddr_in6));
	if (r < 0 && errno != EINPROGRESS)
		return -errno;
	r = await_connected(fd, timeout_ms);
	if (r < 0)
		return r;
	path.connect_ns = clock_ns() - begun;
	path.mtu_bytes = mtu_of(fd, at->ss_family);
	getsockname(fd, (struct sockaddr *)&path.local, &len);
	stream_name(at, path.name);
	*ret = path;
	return 0;
}

/* A session -------------------------------------------------------------------------- */

struct flight {
	struct post post; /* first: done() gets it */
	struct probe *probe;
};

struct probe {
	struct remote *remote;
	char name[PROBE_NAME];
	struct auth_key key;
	bool has_key;
	uint32_t timeout_ms;
	bool gone; /* it did not answer, or its session has ended */

	/* From the first probe_move() on. */
	struct node *node;
	struct transport *transports[PROBE_WAYS], *transport; /* the last is used now */
	struct slice_id slices[SLICES];
	unsigned nslices;
	uint8_t *buf;

	/* While one is under way. */
	struct flight flights[PIECES];
	uint64_t until_ns;
	pthread_mutex_t mutex; /* the rest */
	pthread_cond_t none_out;
	unsigned nout;
	uint64_t last_ns, bytes;
	int error;
};

static uint64_t deadline(const struct probe *p)
{
	return clock_ns() + p->timeout_ms * NS_PER_MS;
}

/* Nothing is waited for any more, in order that all that is out ends. */
static int noted(struct probe *p, int r)
{
	if (r != -ETIMEDOUT && r != -ENOTCONN && r != -EPROTO)
		return r;
	if (!p->gone)
		remote_stop(p->remote, r);
	p->gone = true;
	return r;
}

static int open_session(const struct probe *p, const struct engine_rdma *requests,
			struct remote **ret, char **ret_why)
{
	struct remote_opts o = { .node = p->name, .name = "doctor", .rdma = true,
				 .key = p->has_key ? &p->key : NULL, .requests = requests,
				 .timeout_ms = p->timeout_ms };
	int r = remote_open(&o, ret, ret_why);

	if (!r)
		remote_last(*ret);
	return r;
}

int probe_open(const char *name, const char *token_file, uint32_t timeout_ms, struct probe **ret,
	       char **ret_why)
{
	struct auth_key key;
	struct probe *p;
	int r = auth_key_load(token_file, &key, ret_why);

	if (r < 0)
		return -EBADF;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->timeout_ms = timeout_ms;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->has_key = token_file;
	if (p->has_key)
		p->key = key;
	r = open_session(p, NULL, &p->remote, ret_why);
	if (r < 0) {
		free(p);
		return r;
	}
	pthread_mutex_init(&p->mutex, NULL);
	lock_cond_init(&p->none_out);
	*ret = p;
	return 0;
}

void probe_close(struct probe *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < PROBE_WAYS; i++) {
		struct transport *t = p->transports[i];
		if (!t)
			continue;
		t->ops->quiesce(t);
		t->ops->close(t);
	}
	for (unsigned i = 0; i < p->nslices; i++)
		node_unpin(p->node, p->slices[i]);
	node_close(p->node);
	remote_close(p->remote);
	pthread_cond_destroy(&p->none_out);
	pthread_mutex_destroy(&p->mutex);
	free(p->buf);
	free(p);
}

static int ask(struct probe *p, uint16_t type, struct writer *ret)
{
	if (p->gone)
		return -ENOTCONN;
	return noted(p, remote_ask(p->remote, type, (struct writer){ 0 }, deadline(p), ret));
}

int probe_node(struct probe *p, struct probe_node *ret)
{
	_cleanup_(writer_fini) struct writer body = { 0 };
	const struct wire_welcome *w = remote_welcome(p->remote);
	struct wire_stat st;
	int r = ask(p, WIRE_STAT, &body);

	if (r >= 0)
		r = wire_read_stat(writer_bytes(&body), &st);
	if (r < 0)
		return r;
	*ret = (struct probe_node){
		.version = WIRE_VERSION, .session = w->session, .pool_bytes = st.total,
		.free_bytes = st.free, .lanes = w->max_lanes,
	};
	return 0;
}

static void pings_add(struct probe_pings *m, uint64_t ns)
{
	m->avg_ns = (m->avg_ns * m->n + ns) / (m->n + 1);
	m->min_ns = m->n && m->min_ns < ns ? m->min_ns : ns;
	m->max_ns = ns > m->max_ns ? ns : m->max_ns;
	m->n++;
}

static int ping(struct remote *x, uint64_t until, unsigned n, struct probe_pings *ret)
{
	struct probe_pings m = { 0 };

	while (m.n < n && (!m.n || clock_ns() < until)) {
		uint64_t begun = clock_ns();
		int r = remote_ask(x, WIRE_PING, (struct writer){ 0 }, until, NULL);
		if (r < 0)
			return r;
		pings_add(&m, clock_ns() - begun);
	}
	*ret = m;
	return 0;
}

int probe_ping(struct probe *p, unsigned n, struct probe_pings *ret)
{
	return p->gone ? -ENOTCONN : noted(p, ping(p->remote, deadline(p), n, ret));
}

int probe_ping_rdma(struct probe *p, unsigned n, struct probe_pings *ret)
{
	static const struct engine_rdma any = { .by = ENGINE_RDMA };
	struct remote *x;
	int r = open_session(p, &any, &x, NULL);

	if (r < 0)
		return r;
	r = remote_is_by_rdma(x) ? ping(x, deadline(p), n, ret) : -EOPNOTSUPP;
	remote_close(x);
	return r;
}

/* Slices ----------------------------------------------------------------------------- */

struct want {
	struct node_call call; /* first: done() gets it */
	struct kv_call of;
	sem_t done;
	int r;
};

static void want_done(struct node_call *c, int r)
{
	struct want *w = (struct want *)c;

	w->r = r;
	sem_post(&w->done);
}

static int wait_for_slices(struct probe *p)
{
	struct want w = { .call = { .of = &w.of, .done = want_done },
			  .of = { .deadline_ns = deadline(p) } };

	sem_init(&w.done, 0, 0);
	node_want(p->node, SLICE_BYTES / PAGE_BYTES, &w.call);
	while (sem_wait(&w.done) < 0)
		;
	sem_destroy(&w.done);
	return w.r;
}

/* As long as they are wanted, or none: a shorter one is what a full pool has left. */
static int take_slice(struct probe *p)
{
	struct slice_id s;
	uint32_t npages;
	int r;

	while ((r = node_alloc(p->node, SLICE_BYTES / PAGE_BYTES, &s, &npages)) == NODE_WAIT) {
		r = noted(p, wait_for_slices(p));
		if (r < 0)
			return r;
	}
	if (r)
		return r < 0 ? r : -ENOSPC;
	if (npages < SLICE_BYTES / PAGE_BYTES) {
		node_give_back(p->node, s);
		return -ENOSPC;
	}
	p->slices[p->nslices++] = s;
	return 0;
}

static int open_way(struct probe *p, enum probe_way way, char **ret_why)
{
	struct transport_tcp_opts tcp = { .timeout_ms = p->timeout_ms };
	struct transport_rdma_opts rdma = { .node = p->node, .timeout_ms = p->timeout_ms,
					    .open_ms = p->timeout_ms };
	struct transport **ret = &p->transports[way];

	if (*ret)
		return 0;
	return way == PROBE_TCP ? transport_tcp_open(p->remote, &tcp, ret) :
				  transport_rdma_open(p->remote, &rdma, ret, ret_why);
}

int probe_way(struct probe *p, enum probe_way way, char **ret_why)
{
	int r = p->gone ? -ENOTCONN : 0;

	if (!r && !p->buf) {
		p->buf = malloc((size_t)PIECES * PIECE_BYTES);
		if (!p->buf)
			return -ENOMEM;
		memset(p->buf, 0x5a, (size_t)PIECES * PIECE_BYTES);
	}
	if (!r && !p->node)
		r = node_remote_open(p->remote, &p->node);
	if (!r)
		r = open_way(p, way, ret_why);
	while (!r && p->nslices < SLICES)
		r = take_slice(p);
	p->transport = p->transports[way];
	return r;
}

/* Moving bytes ------------------------------------------------------------------------ */

/* True: it takes off again at once, so that as many as there are stay out until time
 * is up. Otherwise it has landed. */
static bool count(struct probe *p, struct post *post, int r)
{
	uint64_t now = clock_ns();

	pthread_mutex_lock(&p->mutex);
	p->last_ns = now;
	p->bytes += r ? 0 : post->len;
	if (!p->error)
		p->error = r;
	bool again = !p->error && now < p->until_ns;
	if (!again && !--p->nout)
		pthread_cond_signal(&p->none_out);
	pthread_mutex_unlock(&p->mutex);
	return again;
}

static void flight_done(struct post *post, int r)
{
	struct probe *p = ((struct flight *)post)->probe;

	while (count(p, post, r)) {
		post->deadline_ns = deadline(p);
		r = p->transport->ops->post(p->transport, post);
		if (!r)
			return;
	}
}

static void take_off(struct probe *p, bool write, unsigned n, uint32_t bytes)
{
	p->error = 0;
	p->bytes = 0;
	p->nout = n;
	for (unsigned i = 0; i < n; i++) {
		struct flight *f = &p->flights[i];
		const unsigned each = PIECES / SLICES;
		f->probe = p;
		f->post = (struct post){
			.kind = write ? POST_WRITE : POST_READ,
			.slice = p->slices[i / each],
			.off = (uint64_t)(i % each) * PIECE_BYTES,
			.local = p->buf + (size_t)i * PIECE_BYTES,
			.len = bytes,
			.deadline_ns = deadline(p),
			.done = flight_done,
		};
	}
	for (unsigned i = 0; i < n; i++) {
		int r = p->transport->ops->post(p->transport, &p->flights[i].post);
		if (r < 0)
			flight_done(&p->flights[i].post, r);
	}
}

/* False: not by then. 0: for ever. */
static bool await_landed(struct probe *p, uint64_t until_ns)
{
	struct timespec until = clock_timespec(until_ns);
	int r = 0;

	pthread_mutex_lock(&p->mutex);
	while (p->nout && !r)
		r = until_ns ? pthread_cond_timedwait(&p->none_out, &p->mutex, &until)
			     : pthread_cond_wait(&p->none_out, &p->mutex);
	pthread_mutex_unlock(&p->mutex);
	return !r;
}

/* A write that nobody answers is not over before its session is. */
static int land(struct probe *p)
{
	if (!await_landed(p, p->until_ns + p->timeout_ms * NS_PER_MS)) {
		noted(p, -ETIMEDOUT);
		await_landed(p, 0);
		return -ETIMEDOUT;
	}
	return p->error ? noted(p, p->error) : 0;
}

int probe_move(struct probe *p, enum probe_way way, bool write, uint32_t ms,
	       struct probe_moved *ret)
{
	int r = probe_way(p, way, NULL);
	uint64_t begun = clock_ns();

	if (r < 0)
		return r;
	p->until_ns = begun + ms * NS_PER_MS;
	take_off(p, write, PIECES, PIECE_BYTES);
	r = land(p);
	if (!r)
		*ret = (struct probe_moved){ p->bytes, p->last_ns - begun };
	return r;
}

int probe_touch(struct probe *p, enum probe_way way, unsigned n, struct probe_pings *ret)
{
	struct probe_pings m = { 0 };
	uint64_t until = deadline(p);
	int r = probe_way(p, way, NULL);

	while (!r && m.n < n && (!m.n || clock_ns() < until)) {
		uint64_t begun = clock_ns();
		p->until_ns = begun; /* once */
		take_off(p, false, 1, TOUCH_BYTES);
		r = land(p);
		if (!r)
			pings_add(&m, clock_ns() - begun);
	}
	if (!r)
		*ret = m;
	return r;
}

/* This host --------------------------------------------------------------------------- */

int probe_memory(struct probe_memory *ret)
{
	struct memory m;
	int r = memory_now(&m);

	if (!r)
		*ret = (struct probe_memory){ m.total_bytes, m.available_bytes, memory_margin(&m) };
	return r;
}
