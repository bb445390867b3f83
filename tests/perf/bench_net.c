/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the bytes of slices cost over TCP and loopback, from batch_submit() to done(),
 * a node in one process and a mount in another. It reports; nothing passes or fails.
 *
 *	bench_net [CONNS [THREADS [SECONDS [BYTES]]]]
 *
 * lanes, loops of the node, of each line; transfers of that size only.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "engine/server.h"
#include "engine/transport_tcp.h"
#include "engine/xfer.h"
#include "index/index.h"

enum { SLICES = 32 }; /* of 4 MiB */

static struct remote *x;
static struct transport *way;
static struct slice_id slices[SLICES];
static double run_s = 2;
static uint32_t only; /* 0: all sizes */
static pid_t child; /* the node */

static void die(const char *what, int r)
{
	fprintf(stderr, "bench_net: %s: %s\n", what, strerror(r < 0 ? -r : 0));
	exit(1);
}

/* The node: says its port, and serves until `until` is closed. */
static void serve(int to, int until, uint32_t threads)
{
	struct pool_opts po = { .bytes = (SLICES + 1) * UINT64_C(4194304), .create = true };
	struct pool *pool;
	struct kv *kv;
	struct server *s;
	char c;

	if (pool_open(&po, &pool) || kv_mem_open(&kv))
		die("pool", -ENOMEM);
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = kv, .pool = pool,
				  .threads = threads };
	int r = server_open(&so, &s, NULL);
	if (r)
		die("server_open", r);
	uint16_t port = server_port(s);
	if (write(to, &port, sizeof(port)) != sizeof(port) || read(until, &c, 1) < 0)
		die("pipe", -EPIPE);
	server_close(s);
	pool_close(pool);
	kv_close(kv);
}

static void take_slices(void)
{
	struct wire_item v[SLICES];
	struct wire_items items = { SLICES, v };
	struct writer w = { 0 }, got = { 0 };

	for (unsigned i = 0; i < SLICES; i++)
		v[i].pages = SLICE_PAGES_MAX;
	wire_write_items(&w, WIRE_PAGES, &items);
	int r = remote_ask(x, WIRE_ALLOC, w, 0, &got);
	if (r || wire_read_items(writer_bytes(&got), WIRE_SLICE_PAGES, &items))
		die("ALLOC", r);
	for (unsigned i = 0; i < SLICES; i++)
		slices[i] = items.v[i].slice;
	wire_items_fini(&items);
	writer_fini(&got);
}

/* A number of transfers that are always under way ------------------------------------ */

struct stream_of {
	enum post_kind kind;
	uint32_t len;
	uint64_t until_ns;
	atomic_uint next, running;
	_Atomic uint64_t bytes, count;
	sem_t done;
};

struct runner {
	struct stream_of *of;
	uint8_t *buf;
};

static void go_on(void *arg, int result)
{
	struct runner *r = arg;
	struct stream_of *s = r->of;
	struct batch *b;

	if (result)
		die("batch", result);
	if (clock_ns() >= s->until_ns) {
		if (atomic_fetch_sub(&s->running, 1) == 1)
			sem_post(&s->done);
		return;
	}
	unsigned i = atomic_fetch_add(&s->next, 1);
	uint64_t per = 4194304 / s->len;
	atomic_fetch_add(&s->bytes, s->len);
	atomic_fetch_add(&s->count, 1);
	if (batch_new(way, 1, &b) || batch_add(b, s->kind, slices[i / per % SLICES],
						i % per * s->len, r->buf, s->len))
		die("batch", -ENOMEM);
	batch_submit(b, NULL, go_on, r);
}

/* Seconds of processor that a process has used; 0: this one. */
static double cpu_s(pid_t pid)
{
	struct timespec t;
	clockid_t c;

	if (clock_getcpuclockid(pid, &c) || clock_gettime(c, &t))
		die("clock", -EINVAL);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* How long a request over the control connection takes beside that. */
static void bench_pings(uint64_t until_ns)
{
	uint64_t begin = clock_ns(), longest = 0;
	unsigned n = 0;

	for (uint64_t at = begin; at < until_ns; n++) {
		int r = remote_ask(x, WIRE_PING, (struct writer){ 0 }, 0, NULL);
		uint64_t now = clock_ns();
		if (r)
			die("PING", r);
		longest = now - at > longest ? now - at : longest;
		at = now;
	}
	printf("      requests beside it: %8.1f us each, the longest %8.1f\n",
	       (double)(clock_ns() - begin) / 1e3 / n, (double)longest / 1e3);
}

static void bench(enum post_kind kind, uint32_t len, unsigned depth, bool pings)
{
	if (only && len != only)
		return;
	struct stream_of s = { .kind = kind, .len = len, .running = depth };
	struct runner *r = calloc(depth, sizeof(*r));
	double mount = cpu_s(0), node = cpu_s(child);
	uint64_t begin = clock_ns();

	sem_init(&s.done, 0, 0);
	s.until_ns = begin + (uint64_t)(run_s * 1e9);
	for (unsigned i = 0; i < depth; i++) {
		r[i] = (struct runner){ &s, malloc(len) };
		memset(r[i].buf, 1, len);
	}
	for (unsigned i = 0; i < depth; i++)
		go_on(&r[i], 0);
	if (pings)
		bench_pings(s.until_ns);
	while (sem_wait(&s.done) < 0)
		;
	double took = (double)(clock_ns() - begin) / 1e9;
	mount = cpu_s(0) - mount;
	node = cpu_s(child) - node;
	printf("%-5s %7u bytes, %2u out: %6.2f GB/s %7.0f/s %8.1f us each; per second of processor "
	       "%5.2f GB (mount %5.2f, node %5.2f)\n",
	       kind == POST_WRITE ? "write" : "read", len, depth, (double)s.bytes / took / 1e9,
	       (double)s.count / took, took * 1e6 / (double)s.count * depth,
	       (double)s.bytes / 1e9 / (mount + node), (double)s.bytes / 1e9 / mount,
	       (double)s.bytes / 1e9 / node);
	fflush(stdout);
	for (unsigned i = 0; i < depth; i++)
		free(r[i].buf);
	free(r);
	sem_destroy(&s.done);
}

int main(int argc, char **argv)
{
	struct transport_tcp_opts o = { .conns = argc > 1 ? (uint32_t)atoi(argv[1]) : 0 };
	uint32_t threads = argc > 2 ? (uint32_t)atoi(argv[2]) : 0;
	int up[2], down[2];
	uint16_t port;
	char where[32], *reason = NULL;

	run_s = argc > 3 ? atof(argv[3]) : run_s;
	only = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
	log_set_level(LOG_LEVEL_ERROR);
	if (pipe(up) || pipe(down))
		die("pipe", -errno);
	child = fork(); /* before there are threads */
	if (child < 0)
		die("fork", -errno);
	if (!child) {
		close(down[1]);
		serve(up[1], down[0], threads);
		_exit(0);
	}
	close(down[0]);
	if (read(up[0], &port, sizeof(port)) != sizeof(port))
		die("node", -EPIPE);
	snprintf(where, sizeof(where), "127.0.0.1:%u", port);
	int r = remote_open(&(struct remote_opts){ .node = where, .name = "bench" }, &x, &reason);
	if (r)
		die(reason, r);
	take_slices();
	r = transport_tcp_open(x, &o, &way);
	if (r)
		die("transport", r);
	for (unsigned k = 0; k < 2; k++) {
		enum post_kind kind = k ? POST_READ : POST_WRITE;
		bench(kind, 1 << 20, 1, false);
		bench(kind, 1 << 20, 4, false);
		bench(kind, 1 << 20, 16, false);
		bench(kind, 1 << 20, 16, true);
		bench(kind, 64 << 10, 16, false);
		bench(kind, 4096, 1, false);
		bench(kind, 4096, 64, false);
	}
	way->ops->quiesce(way);
	way->ops->close(way);
	remote_close(x);
	close(down[1]);
	waitpid(child, NULL, 0);
	return 0;
}
