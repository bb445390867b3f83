/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pool and its transfers cost: slices a second, nanoseconds a batch
 * beyond its memcpy, memcpy rates, opening times. It reports; nothing passes or
 * fails.
 *
 *	bench_pool [FOLDER]    FOLDER: where to make a 1 GiB pool (/dev/shm)
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "engine/xfer.h"
#include "index/index.h"

static struct pool *pool;
static struct transport *way;

static void die(const char *what, int r)
{
	fprintf(stderr, "bench_pool: %s: %s\n", what, strerror(r < 0 ? -r : 0));
	exit(1);
}

static void report(const char *what, double value, const char *unit)
{
	printf("%-44s %10.1f %s\n", what, value, unit);
}

static double seconds(uint64_t since)
{
	return (double)(clock_ns() - since) / 1e9;
}

/* Slices -------------------------------------------------------------------------- */

struct spinner {
	uint32_t npages;
	unsigned rounds;
};

static void *spin_slices(void *arg)
{
	const struct spinner *sp = arg;

	for (unsigned i = 0; i < sp->rounds; i++) {
		struct slice_id s[16];
		uint32_t n;
		for (unsigned k = 0; k < 16; k++)
			if (pool_alloc(pool, sp->npages, &s[k], &n))
				die("pool_alloc", 0);
		for (unsigned k = 0; k < 16; k++)
			pool_unpin(pool, s[k]);
	}
	return NULL;
}

static void bench_slices(uint32_t npages, unsigned threads)
{
	struct spinner sp = { npages, 40000 };
	pthread_t t[8];
	char what[80];
	uint64_t begin = clock_ns();

	for (unsigned i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, spin_slices, &sp);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	snprintf(what, sizeof(what), "alloc + free, %u pages, %u threads", npages, threads);
	report(what, seconds(begin) * 1e9 / sp.rounds / 16, "ns each, a thread");
}

static void bench_pins(void)
{
	struct slice_id s;
	uint32_t n;
	unsigned rounds = 4000000;

	pool_alloc(pool, 1, &s, &n);
	uint64_t begin = clock_ns();
	for (unsigned i = 0; i < rounds; i++) {
		pool_pin(pool, s);
		pool_unpin(pool, s);
	}
	report("pin + unpin", seconds(begin) * 1e9 / rounds, "ns");
	pool_unpin(pool, s);
}

/* Batches ------------------------------------------------------------------------- */

static void nothing(void *arg, int result)
{
	(void)arg;
	if (result)
		die("batch", result);
}

static struct kv_call call;

static void run_batch(unsigned n, struct slice_id s, uint8_t *buf, uint32_t len,
		      uint64_t deadline_ns)
{
	struct batch *b;
	int r = batch_new(way, n, &b);

	for (unsigned i = 0; !r && i < n; i++)
		r = batch_add(b, POST_WRITE, s, 0, buf, len);
	if (r)
		die("batch", r);
	call.deadline_ns = deadline_ns;
	batch_submit(b, &call, nothing, NULL);
}

static void bench_batches(unsigned n, uint32_t len, bool deadline)
{
	uint64_t deadline_ns = deadline ? clock_ns() + 1000 * NS_PER_S : 0;
	unsigned rounds = len > 1024 ? 300000 : 3000000;
	uint8_t *buf = calloc(1, len + 1);
	struct slice_id s;
	uint32_t got;
	char what[80];

	pool_alloc(pool, 1, &s, &got);
	memset(pool_page(pool, s.page), 1, PAGE_BYTES);
	uint64_t begin = clock_ns();
	for (unsigned i = 0; i < rounds; i++)
		run_batch(n, s, buf, len, deadline_ns);
	double with = seconds(begin);
	begin = clock_ns();
	for (unsigned i = 0; i < rounds * n; i++) {
		memcpy(pool_page(pool, s.page), buf, len);
		__asm__ volatile("" ::: "memory");
	}
	double without = seconds(begin);
	snprintf(what, sizeof(what), "batch of %u x %u bytes%s, beyond memcpy", n, len,
		 deadline ? ", deadline" : "");
	report(what, (with - without) * 1e9 / rounds, "ns");
	pool_unpin(pool, s);
	free(buf);
}

/* Bytes --------------------------------------------------------------------------- */

static void bench_copy(enum post_kind kind)
{
	enum { N = 192 };
	uint8_t *buf = malloc(1 << 20);
	struct slice_id s[N];
	uint32_t n;

	memset(buf, 1, 1 << 20);
	for (unsigned i = 0; i < N; i++)
		if (pool_alloc(pool, 1024, &s[i], &n))
			die("pool_alloc", 0);
	uint64_t begin = clock_ns();
	for (unsigned i = 0; i < 4 * N; i++) {
		struct batch *b;
		if (batch_new(way, 1, &b) ||
		    batch_add(b, kind, s[i / 4], (i % 4) << 20, buf, 1 << 20))
			die("batch", 0);
		batch_submit(b, NULL, nothing, NULL);
	}
	report(kind == POST_WRITE ? "write, 1 MiB batches" : "read, 1 MiB batches",
	       4 * N / 1024.0 * 1.073741824 / seconds(begin), "GB/s");
	for (unsigned i = 0; i < N; i++)
		pool_unpin(pool, s[i]);
	free(buf);
}

int main(int argc, char **argv)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/slicefs-bench-%d", argc > 1 ? argv[1] : "/dev/shm",
		 (int)getpid());
	struct pool_opts o = { .path = path, .bytes = 1 << 30, .create = true };
	uint64_t begin = clock_ns();
	int r = pool_open(&o, &pool);
	if (r)
		die(path, r);
	report("make and prefault 1 GiB", seconds(begin) * 1e3, "ms");
	pool_close(pool);
	o.create = false;
	begin = clock_ns();
	r = pool_open(&o, &pool);
	if (r)
		die(path, r);
	report("open 1 GiB again", seconds(begin) * 1e3, "ms");
	unlink(path);
	r = transport_local_open(pool, &way);
	if (r)
		die("transport", r);
	for (unsigned threads = 1; threads <= 2; threads++) {
		bench_slices(1, threads);
		bench_slices(17, threads);
		bench_slices(256, threads);
	}
	bench_pins();
	bench_batches(1, 8, false);
	bench_batches(1, 8, true);
	bench_batches(4, 8, false);
	bench_batches(1, 4096, false);
	for (unsigned i = 0; i < 2; i++) {
		bench_copy(POST_WRITE);
		bench_copy(POST_READ);
	}
	way->ops->close(way);
	pool_close(pool);
	return 0;
}
