/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Two hosts in one process, for tests of engine/rdma.h in the virtual machine: a loop
 * and a device in each network namespace, which its thread is in; memory of a node at
 * h1, which mounts at h2 read and write. Calls return -1 at nothing: they assert.
 */
#include <assert.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/rdma.h"

enum { WORLD_BYTES = 4 << 20, WORLD_PORT = 7747 };

struct host {
	struct loop *loop;
	struct rdma_dev *dev;
	uint8_t *memory; /* WORLD_BYTES */
	atomic_uint lost;
};

/* One end of a connection. */
struct end {
	struct host *host;
	struct rdma_conn *conn;
	bool keep; /* the test frees it */
	atomic_bool up, closed;
	int reason;
	char why[160];
	uint64_t closed_ns;
};

struct world {
	struct host node, mount;
	struct rdma_mem *readable, *writable; /* the node's */
	struct rdma_mem *mine;                /* the mount's */
	struct rdma_listener *listener;
	enum rdma_rights peer; /* that the node gives */
	uint8_t ticket[32];
	struct end ends[64]; /* the node's, by request */
	atomic_uint nends;
	struct sockaddr_storage at; /* of the listener */
};

/* The longest time that a loop has let nobody have a turn. */
struct pulse {
	struct loop_timer *timer;
	uint64_t last_ns, longest_ns; /* the loop's, until it is stopped */
};

static inline void pulse_beat(void *arg)
{
	struct pulse *p = arg;
	uint64_t now = clock_ns();

	if (p->last_ns && now - p->last_ns > p->longest_ns)
		p->longest_ns = now - p->last_ns;
	p->last_ns = now;
}

static inline void pulse_start(struct pulse *p, struct loop *l)
{
	*p = (struct pulse){ 0 };
	assert(loop_timer_new(l, 0, 2, pulse_beat, p, &p->timer) == 0);
}

static inline double pulse_stop(struct pulse *p) /* ms */
{
	loop_timer_free(p->timer);
	return (double)p->longest_ns / 1e6;
}

static inline void wait_true(atomic_bool *b, const char *what)
{
	uint64_t end = clock_ns() + 60 * NS_PER_S;

	while (!atomic_load(b)) {
		if (clock_ns() > end) {
			fprintf(stderr, "waited in vain for: %s\n", what);
			abort();
		}
		usleep(200);
	}
}

static inline void enter_netns(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert(fd >= 0);
	assert(setns(fd, CLONE_NEWNET) == 0);
	close(fd);
}

static inline struct sockaddr_storage ipv4(const char *host, uint16_t port)
{
	struct sockaddr_storage a = { 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a;

	v4->sin_family = AF_INET;
	v4->sin_port = htons(port);
	assert(inet_pton(AF_INET, host, &v4->sin_addr) == 1);
	return a;
}

static inline void host_on_lost(void *arg, const char *text)
{
	struct host *h = arg;

	(void)text;
	atomic_fetch_add(&h->lost, 1);
}

static inline void host_open(struct host *h, const char *netns, const char *address)
{
	struct sockaddr_storage local = ipv4(address, 0);
	struct rdma_want want = { .numa_node = -1, .gid_index = -1, .local = &local };
	struct rdma_choice choice;
	struct rdma_port *v;
	unsigned n;
	char *text = NULL;

	enter_netns(netns);
	*h = (struct host){ 0 };
	assert(loop_new(netns, &h->loop) == 0);
	assert(rdma_ports(&v, &n, NULL) == 0);
	int r = rdma_choose(v, n, &want, &choice, &text);
	rdma_ports_free(v, n);
	if (!r)
		r = rdma_dev_open(h->loop, &choice, host_on_lost, h, &h->dev, &text);
	if (r < 0)
		fprintf(stderr, "%s\n", text);
	assert(r == 0);
	h->memory = mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	assert(h->memory != MAP_FAILED);
}

static inline void host_close(struct host *h)
{
	rdma_dev_close(h->dev);
	loop_free(h->loop);
	munmap(h->memory, WORLD_BYTES);
}

static inline void end_on_up(void *arg)
{
	struct end *e = arg;

	atomic_store(&e->up, true);
}

static inline void end_on_closed(void *arg, int reason, const char *text)
{
	struct end *e = arg;

	assert(!atomic_load(&e->closed));
	e->reason = reason;
	e->closed_ns = clock_ns();
	snprintf(e->why, sizeof(e->why), "%s", text);
	if (!e->keep)
		rdma_conn_free(e->conn);
	atomic_store(&e->closed, true);
}

static const struct rdma_conn_ops end_ops = { .up = end_on_up, .closed = end_on_closed };

static inline void world_on_request(void *arg, struct rdma_conn *c, struct bytes ticket)
{
	struct world *w = arg;
	struct rdma_conn_opts o = { .peer = w->peer };

	/* The connection manager pads what it carries with zeros. */
	if (ticket.len < sizeof(w->ticket) || memcmp(ticket.p, w->ticket, sizeof(w->ticket))) {
		rdma_conn_reject(c, -EKEYREJECTED);
		return;
	}
	unsigned i = atomic_load(&w->nends);
	struct end *e = &w->ends[i % 64];
	assert(i < 64 || atomic_load(&e->closed));
	*e = (struct end){ .host = &w->node, .conn = c };
	rdma_conn_accept(c, &o, &end_ops, e);
	atomic_store(&w->nends, i + 1);
}

static inline void world_listen(void *arg)
{
	struct world *w = arg;

	w->at = ipv4("10.77.0.1", WORLD_PORT);
	assert(rdma_listener_new(w->node.dev, &w->at, world_on_request, w, &w->listener, NULL) == 0);
	assert(rdma_listener_port(w->listener) == WORLD_PORT);
}

static inline void world_deafen(void *arg)
{
	struct world *w = arg;

	rdma_listener_free(w->listener);
	w->listener = NULL;
}

static inline void world_open(struct world *w)
{
	*w = (struct world){ .peer = RDMA_PEERS_WRITE };
	memset(w->ticket, 0x5a, sizeof(w->ticket));
	host_open(&w->node, "h1", "10.77.0.1");
	host_open(&w->mount, "h2", "10.77.0.2");
	assert(!rdma_mem_new(w->node.dev, w->node.memory, WORLD_BYTES, RDMA_PEERS_READ,
			     &w->readable, NULL));
	assert(!rdma_mem_new(w->node.dev, w->node.memory, WORLD_BYTES, RDMA_PEERS_WRITE,
			     &w->writable, NULL));
	assert(!rdma_mem_new(w->mount.dev, w->mount.memory, WORLD_BYTES, RDMA_MINE, &w->mine, NULL));
	loop_run(w->node.loop, world_listen, w);
}

/* Also what a failed test has left. */
static inline void world_stop(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < 64 && i < atomic_load(&w->nends); i++)
		if (!atomic_load(&w->ends[i].closed))
			rdma_conn_stop(w->ends[i].conn, -ESHUTDOWN);
}

static inline void world_close(struct world *w)
{
	if (w->listener)
		loop_run(w->node.loop, world_deafen, w);
	loop_run(w->node.loop, world_stop, w);
	for (unsigned i = 0; i < 64 && i < atomic_load(&w->nends); i++)
		wait_true(&w->ends[i].closed, "the node's end closed");
	rdma_mem_free(w->readable);
	rdma_mem_free(w->writable);
	rdma_mem_free(w->mine);
	host_close(&w->node);
	host_close(&w->mount);
}

/* Begins to connect from h2. */
struct dial {
	struct world *w;
	struct end *e;
	struct bytes ticket;
	struct sockaddr_storage to;
	struct rdma_conn_opts o;
};

static inline void dial_run(void *arg)
{
	struct dial *d = arg;

	*d->e = (struct end){ .host = &d->w->mount };
	assert(rdma_conn_new(d->w->mount.dev, &d->to, d->ticket, &d->o, &end_ops, d->e,
			     &d->e->conn) == 0);
}

static inline void dial(struct world *w, struct end *e, const struct rdma_conn_opts *o)
{
	struct dial d = { w, e, BYTES_OF(w->ticket, sizeof(w->ticket)), w->at, *o };

	loop_run(w->mount.loop, dial_run, &d);
}

static inline void connect_to_node(struct world *w, struct end *e, const struct rdma_conn_opts *o)
{
	uint64_t end = clock_ns() + 60 * NS_PER_S;

	dial(w, e, o);
	while (!atomic_load(&e->up) && clock_ns() < end) {
		if (atomic_load(&e->closed)) {
			fprintf(stderr, "not connected: %d %s\n", e->reason, e->why);
			abort();
		}
		usleep(200);
	}
	assert(atomic_load(&e->up));
}

/* The node's end of its n-th connection, once it is up. */
static inline struct end *node_end(struct world *w, unsigned n)
{
	while (atomic_load(&w->nends) <= n)
		usleep(200);
	wait_true(&w->ends[n].up, "the node's end up");
	return &w->ends[n];
}

static inline void hang_up(struct end *e)
{
	rdma_conn_stop(e->conn, -ECANCELED);
	wait_true(&e->closed, "closed");
}

/* An op, and how often it was done. */
struct task {
	struct rdma_op op; /* first */
	struct rdma_sge sge[RDMA_SGES_MAX];
	atomic_uint done;
	int result;
	uint64_t done_ns;
	atomic_uint *count; /* or NULL */
};

static inline void task_done(struct rdma_op *op, int r)
{
	struct task *t = (struct task *)op;
	atomic_uint *count = t->count;

	t->result = r;
	t->done_ns = clock_ns();
	assert(atomic_fetch_add(&t->done, 1) == 0); /* t is its owner's again */
	if (count)
		atomic_fetch_add(count, 1);
}

/* [off, off + len) of the mount's memory and of the node's, in one piece. */
static inline void task_init(struct task *t, const struct world *w, enum rdma_kind kind,
			     uint64_t local, uint64_t remote, uint32_t len)
{
	*t = (struct task){ .op = { .kind = kind,
				    .remote = (uintptr_t)w->node.memory + remote,
				    .key = rdma_mem_key(w->writable),
				    .nsge = 1,
				    .done = task_done } };
	t->sge[0] = (struct rdma_sge){ w->mount.memory + local, len, w->mine };
	t->op.sge = t->sge;
}

static inline void task_wait(struct task *t)
{
	uint64_t end = clock_ns() + 60 * NS_PER_S;

	while (!atomic_load(&t->done) && clock_ns() < end)
		usleep(50);
	assert(atomic_load(&t->done) == 1);
}

/* Posts one or a chain, and again where there is no room yet. */
static inline int post_all(struct rdma_conn *c, struct rdma_op *chain)
{
	int r;

	while ((r = rdma_post(c, chain)) == -EAGAIN)
		usleep(100);
	return r;
}

static inline void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(random_mix(seed + i / 8 * RANDOM_STEP) >> (i % 8 * 8));
}
