/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What engine/rdma.h moves, to be compared with ib_write_bw and ib_read_bw of the
 * package perftest (tests/vm/bench-rdma does that in the virtual machine).
 *
 *	bench_rdma node ADDRESS PORT                     prints "AT KEY", waits to be killed
 *	bench_rdma mount OWN ADDRESS PORT AT KEY [SECONDS [read|write BYTES]]
 *
 * A line for each kind, size and length of chains, or for that kind and size: as many
 * chains are kept under way as the queue holds, and WINDOW bytes, each posted again by
 * its last done(). SPIN_US is how long completions are polled for. A write is said to be
 * done when it is placed, which ib_write_bw does not wait for: each chain ends in a read.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/rdma.h"

enum { MEMORY = 64 << 20, CHAIN_MAX = 16, DEPTH = 128 };

static unsigned window = 2 << 20; /* bytes under way at most; WINDOW */

static struct loop *loop;
static struct rdma_dev *dev;
static struct rdma_mem *mem;
static uint8_t *memory;
static struct sockaddr_storage peer;
static uint64_t peer_at;
static uint32_t peer_key;

struct chain {
	struct rdma_op op[CHAIN_MAX];
	struct rdma_sge sge[CHAIN_MAX];
	unsigned left;
};

/* One measurement; the loop thread's while it runs. */
static struct {
	enum rdma_kind kind;
	uint32_t bytes;
	unsigned length, running;
	uint64_t begin_ns, end_ns, ops;
	struct chain chains[DEPTH];
} bench;

static struct rdma_conn *conn;
static atomic_bool up;
static sem_t ended;

static struct sockaddr_storage address(const char *host, const char *port)
{
	struct sockaddr_storage a = { 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a;

	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)atoi(port));
	if (inet_pton(AF_INET, host, &v4->sin_addr) != 1)
		errx(2, "%s is no IPv4 address", host);
	return a;
}

static void open_device(const struct sockaddr_storage *own, enum rdma_rights rights)
{
	struct rdma_want want = { .numa_node = -1, .gid_index = -1, .local = own };
	struct rdma_choice choice;
	struct rdma_port *v;
	unsigned n;
	char *why = NULL;

	if (loop_new("bench", &loop) < 0 || rdma_ports(&v, &n, &why) < 0 ||
	    rdma_choose(v, n, &want, &choice, &why) < 0 ||
	    rdma_dev_open(loop, &choice, NULL, NULL, &dev, &why) < 0)
		errx(1, "%s", why ? why : "no loop");
	rdma_ports_free(v, n);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED || rdma_mem_new(dev, memory, MEMORY, rights, &mem, &why) < 0)
		errx(1, "%s", why ? why : "no memory");
}

/* The node ----------------------------------------------------------------------- */

static void node_up(void *arg)
{
	(void)arg;
}

static void node_closed(void *arg, int reason, const char *why)
{
	(void)arg;
	fprintf(stderr, "bench_rdma: node: %d: %s\n", reason, why);
}

static void on_request(void *arg, struct rdma_conn *c, struct bytes ticket)
{
	static const struct rdma_conn_ops ops = { .up = node_up, .closed = node_closed };
	static const struct rdma_conn_opts o = { .peer = RDMA_PEERS_WRITE };
	(void)arg;
	(void)ticket;

	rdma_conn_accept(c, &o, &ops, NULL);
}

static void listen_at(void *arg)
{
	struct rdma_listener *x;
	char *why = NULL;

	if (rdma_listener_new(dev, arg, on_request, NULL, &x, &why) < 0)
		errx(1, "%s", why);
	printf("%llu %u\n", (unsigned long long)(uintptr_t)memory, rdma_mem_key(mem));
	fflush(stdout);
}

static void node(const char *host, const char *port)
{
	struct sockaddr_storage at = address(host, port);

	open_device(&at, RDMA_PEERS_WRITE);
	loop_post(loop, listen_at, &at);
	for (;;)
		pause();
}

/* The mount ---------------------------------------------------------------------- */

static void on_up(void *arg)
{
	(void)arg;
	atomic_store(&up, true);
}

static void on_closed(void *arg, int reason, const char *why)
{
	(void)arg;
	if (reason != -ECANCELED)
		errx(1, "closed: %d: %s", reason, why);
	rdma_conn_free(conn);
	sem_post(&ended);
}

static void dial(void *arg)
{
	static const struct rdma_conn_ops ops = { .up = on_up, .closed = on_closed };
	const struct rdma_conn_opts *o = arg;

	if (rdma_conn_new(dev, &peer, BYTES_NONE, o, &ops, NULL, &conn) < 0)
		errx(1, "cannot connect");
}

static void start(struct chain *c);

static void on_done(struct rdma_op *op, int r)
{
	struct chain *c = &bench.chains[((uint8_t *)op - (uint8_t *)bench.chains) / sizeof(*c)];

	if (r)
		errx(1, "an op failed: %d", r);
	bench.ops++;
	if (--c->left)
		return;
	if (clock_ns() < bench.end_ns) {
		start(c);
		return;
	}
	if (!--bench.running) {
		bench.end_ns = clock_ns();
		sem_post(&ended);
	}
}

static void start(struct chain *c)
{
	uint64_t first = (uint64_t)(c - bench.chains) * bench.length * bench.bytes;

	for (unsigned i = 0; i < bench.length; i++) {
		uint64_t off = (first + (uint64_t)i * bench.bytes) % (MEMORY - bench.bytes + 1);

		c->sge[i] = (struct rdma_sge){ memory + off, bench.bytes, mem };
		c->op[i] = (struct rdma_op){ .kind = bench.kind, .remote = peer_at + off,
					     .key = peer_key, .nsge = 1, .sge = &c->sge[i],
					     .done = on_done };
		c->op[i].next = i + 1 < bench.length ? &c->op[i + 1] : NULL;
	}
	c->left = bench.length;
	int r = rdma_post(conn, &c->op[0]);
	if (r)
		errx(1, "cannot post: %d", r);
}

static void start_all(void *arg)
{
	unsigned n = DEPTH / (bench.length + 1), most = window / bench.bytes / bench.length;
	(void)arg;

	n = most && most < n ? most : n;
	if (bench.end_ns == bench.begin_ns)
		n = 1;
	bench.running = n;
	for (unsigned i = 0; i < n; i++)
		start(&bench.chains[i]);
}

static void wait_ended(void)
{
	while (sem_wait(&ended))
		;
}

static void measure(enum rdma_kind kind, uint32_t bytes, unsigned length, double seconds)
{
	bench.kind = kind;
	bench.bytes = bytes;
	bench.length = length;
	bench.ops = 0;
	bench.begin_ns = clock_ns();
	bench.end_ns = bench.begin_ns + (uint64_t)(seconds * 1e9);
	loop_post(loop, start_all, NULL);
	wait_ended();
	double s = (double)(bench.end_ns - bench.begin_ns) / 1e9;
	printf("%-5s %7u bytes, chains of %2u: %7.1f MiB/s, %8.0f ops/s\n",
	       kind == RDMA_READ ? "read" : "write", bytes, length,
	       (double)bench.ops * bytes / s / 1048576, (double)bench.ops / s);
	fflush(stdout);
}

/* One at a time, from one done() to the next. */
static void latency(enum rdma_kind kind, uint32_t bytes)
{
	enum { TIMES = 200 };
	uint64_t begin = clock_ns();

	for (unsigned i = 0; i < TIMES; i++) {
		bench.kind = kind;
		bench.bytes = bytes;
		bench.length = 1;
		bench.begin_ns = bench.end_ns = clock_ns();
		loop_post(loop, start_all, NULL);
		wait_ended();
	}
	printf("%-5s %7u bytes alone, from another thread: %.0f us\n",
	       kind == RDMA_READ ? "read" : "write", bytes,
	       (double)(clock_ns() - begin) / 1e3 / TIMES);
}

static void measure_all(double seconds)
{
	static const uint32_t sizes[] = { 4096, 65536, 1 << 20 };

	for (unsigned kind = RDMA_READ; kind <= RDMA_WRITE; kind++)
		for (unsigned i = 0; i < 3; i++) {
			measure(kind, sizes[i], 1, seconds);
			measure(kind, sizes[i], i < 2 ? CHAIN_MAX : 4, seconds);
		}
	latency(RDMA_READ, 4096);
	latency(RDMA_WRITE, 4096);
	printf("polls that found something: %lld, in vain: %lld\n",
	       (long long)metric_get(M_RDMA_POLLS_FOUND), (long long)metric_get(M_RDMA_POLLS_VAIN));
}

/* argv: OWN to BYTES; `only`: those of the last two are there. */
static void mount(char **argv, double seconds, bool only)
{
	const char *spin = getenv("SPIN_US");
	struct sockaddr_storage own = address(argv[0], "0");
	struct rdma_conn_opts o = { .depth = DEPTH, .spin_us = RDMA_SPIN_US };

	if (getenv("WINDOW"))
		window = (unsigned)atoi(getenv("WINDOW"));
	if (spin)
		o.spin_us = (uint32_t)atoi(spin);
	peer = address(argv[1], argv[2]);
	peer_at = strtoull(argv[3], NULL, 10);
	peer_key = (uint32_t)strtoul(argv[4], NULL, 10);
	sem_init(&ended, 0, 0);
	open_device(&own, RDMA_MINE);
	loop_post(loop, dial, &o);
	while (!atomic_load(&up))
		usleep(1000);
	if (only)
		measure(strcmp(argv[6], "write") ? RDMA_READ : RDMA_WRITE, (uint32_t)atoi(argv[7]),
			1, seconds);
	else
		measure_all(seconds);
	rdma_conn_stop(conn, -ECANCELED);
	wait_ended();
	rdma_mem_free(mem);
	rdma_dev_close(dev);
	loop_free(loop);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "node"))
		node(argv[2], argv[3]);
	else if ((argc == 7 || argc == 8 || argc == 10) && !strcmp(argv[1], "mount"))
		mount(argv + 2, argc >= 8 ? atof(argv[7]) : 2, argc == 10);
	else
		errx(2, "usage: bench_rdma node ADDRESS PORT |"
			" mount OWN ADDRESS PORT AT KEY [SECONDS [read|write BYTES]]");
	return 0;
}
