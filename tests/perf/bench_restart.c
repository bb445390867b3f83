/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it takes to take a store up again: fills one with objects, then closes and opens it
 * several times. It reports and never fails.
 *
 *	bench_restart FOLDER POOL_MIB OBJECT_BYTES OBJECTS [huge] [evict] [keep]
 *
 * huge: as root, a tmpfs of huge pages. evict: with eviction. keep: the store stays, and is not
 * filled again where it is there. What the parts took is in the log of each opening (stderr).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "engine/engine.h"
#include "tests/unit/file_kit.h"

enum { TIMES = 3, RUN = 1 << 20 };

static uint8_t *buf;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_restart: %s failed\n", what);
	exit(1);
}

/* Of all threads. Where others use the machine as well it says more than the clock does. */
static uint64_t processor_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static struct engine *open_store(const struct engine_opts *o, const char *what)
{
	struct engine *e = NULL;
	char *why = NULL;
	uint64_t t = clock_ns(), p = processor_ns();

	if (engine_open(o, &e, &why)) {
		fprintf(stderr, "bench_restart: %s\n", why);
		exit(1);
	}
	printf("%s: %.0f ms, of processors %.0f ms\n", what, (double)(clock_ns() - t) / 1e6,
	       (double)(processor_ns() - p) / 1e6);
	fflush(stdout);
	return e;
}

static void keep(struct file_op *op, int64_t r)
{
	*(int64_t *)op->arg = r;
}

static void put(struct engine *e, uint64_t number, uint64_t size)
{
	struct file *f = NULL;
	char name[32];

	snprintf(name, sizeof(name), "object-%lu", number);
	must(!kit_create(e, name, &f), "create");
	for (uint64_t off = 0; off < size; off += RUN) {
		int64_t r = -1;
		uint64_t n = size - off < RUN ? size - off : RUN;
		struct file_op op = { .file = f, .off = off, .buf = buf, .len = n,
				      .done = keep, .arg = &r };
		file_write(&op);
		must(r == (int64_t)n, "write");
	}
	must(!kit_close(f, FILE_WRITE), "close");
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		fprintf(stderr, "usage: bench_restart FOLDER POOL_MIB OBJECT_BYTES OBJECTS [huge] "
				"[evict] [keep]\n");
		return 2;
	}
	uint64_t size = strtoull(argv[3], NULL, 0), n = strtoull(argv[4], NULL, 0);
	struct engine_opts o = {
		.dir = argv[1],
		.pool_bytes = strtoull(argv[2], NULL, 0) << 20,
		.index_bytes = (64ULL << 20) + n * 1024,
	};
	bool keep_it = false, is_there = !access(argv[1], F_OK);

	for (int i = 5; i < argc; i++) {
		keep_it |= !strcmp(argv[i], "keep");
		o.huge |= !strcmp(argv[i], "huge");
		if (!strcmp(argv[i], "evict")) {
			o.evict_high = 99;
			o.evict_low = 98;
		}
	}
	buf = malloc(RUN);
	memset(buf, 7, RUN);

	struct engine *e = open_store(&o, is_there ? "there" : "new");
	for (uint64_t i = 0; !is_there && i < n; i++)
		put(e, i, size);
	engine_close(e);
	for (int i = 0; i < TIMES; i++) {
		e = open_store(&o, "again");
		engine_close(e);
	}
	free(buf);
	if (!keep_it)
		must(!engine_store_remove(argv[1], true), "remove");
	return 0;
}
