/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_disk DIR [MIB [FILE-MIB]]: what the disk below the pool reads and writes, MB/s, in a
 * folder on it. Objects of FILE-MIB are made until the pool has been written to the disk twice
 * over, and read again, one after the other and by four threads: what is timed is the disk's
 * part, from the first byte demoted to the last, and from the first open to the last close.
 * tests/perf/disk sets fio beside it, in turns.
 */
#include <inttypes.h>
#include <stdatomic.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "tests/unit/file_kit.h"

enum { THREADS = 4, CHUNK = 1 << 20 };

static struct engine *e;
static uint64_t file_bytes, nfiles;
static uint8_t *chunk;

static void die(const char *what, int64_t r)
{
	fprintf(stderr, "bench_disk: %s: %s\n", what, strerror((int)-r));
	exit(1);
}

static void name_of(uint64_t i, char ret[32])
{
	snprintf(ret, 32, "%" PRIu64, i);
}

static void put(uint64_t i)
{
	struct file *f = NULL;
	char name[32];

	name_of(i, name);
	int64_t r = kit_create(e, name, &f);
	for (uint64_t at = 0; r >= 0 && at < file_bytes; at += CHUNK)
		r = kit_write(f, at, chunk, file_bytes - at < CHUNK ? file_bytes - at : CHUNK);
	if (r >= 0)
		r = kit_close(f, FILE_WRITE);
	if (r < 0)
		die("write", r);
}

static bool get(uint64_t i)
{
	struct file *f = NULL;
	char name[32];

	name_of(i, name);
	int r = kit_open_name(e, name, 0, &f);
	if (r == -ENOENT)
		return false;
	if (r < 0)
		die("open", r);
	kit_close(f, 0);
	return true;
}

static atomic_ullong next_file;

static void *get_some(void *arg)
{
	uint64_t i;

	(void)arg;
	while ((i = atomic_fetch_add(&next_file, 1)) < nfiles / 2)
		get(i);
	return NULL;
}

static double rate(int64_t bytes, uint64_t begun_ns)
{
	return (double)bytes / ((double)(clock_ns() - begun_ns) / 1e9) / 1e6;
}

static double time_reads(unsigned nthreads)
{
	int64_t before = metric_get(M_DISK_READ);
	uint64_t begun = clock_ns();
	pthread_t t[THREADS];

	atomic_store(&next_file, 0);
	for (unsigned i = 0; i < nthreads; i++)
		pthread_create(&t[i], NULL, get_some, NULL);
	for (unsigned i = 0; i < nthreads; i++)
		pthread_join(t[i], NULL);
	return rate(metric_get(M_DISK_READ) - before, begun);
}

static double time_writes(uint64_t from, uint64_t to)
{
	int64_t before = metric_get(M_DISK_WRITTEN);
	uint64_t begun = clock_ns();

	for (uint64_t i = from; i < to; i++)
		put(i);
	return rate(metric_get(M_DISK_WRITTEN) - before, begun);
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 2 ? strtoull(argv[2], NULL, 0) : 512;
	double file_mib = argc > 3 ? strtod(argv[3], NULL) : 16;
	struct engine_opts o = { .in_memory = true, .ssd = argc > 1 ? argv[1] : "bench-disk",
				 .evict_low = 90, .ssd_wait_ms = 10000 };
	char *why = NULL;

	o.pool_bytes = mib << 20;
	o.ssd_bytes = mib * 5 << 20;
	file_bytes = (uint64_t)(file_mib * (1 << 20));
	nfiles = (mib << 20) * 3 / file_bytes;
	chunk = malloc(CHUNK);
	memset(chunk, 7, CHUNK);
	int r = engine_open(&o, &e, &why);
	if (r < 0) {
		fprintf(stderr, "bench_disk: %s\n", why ? why : strerror(-r));
		return 1;
	}
	uint64_t fills = (mib << 20) / file_bytes;
	for (uint64_t i = 0; i < fills; i++)
		put(i);
	double w = time_writes(fills, nfiles);
	/* Each half has twice what the pool can keep of it: nothing that is read is there. */
	double r1 = time_reads(1), r4 = time_reads(THREADS);
	printf("%.1f MiB: demotion %.0f, promotion %.0f, by four %.0f MB/s; %ld demoted, %ld back, "
	       "%ld evicted\n", file_mib, w, r1, r4, (long)metric_get(M_DISK_DEMOTED),
	       (long)metric_get(M_DISK_PROMOTED), (long)metric_get(M_EVICTED_POOL));
	engine_close(e);
	free(chunk);
	return 0;
}
