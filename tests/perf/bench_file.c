/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What open files cost without FUSE: ns per 4 KiB read and write, GB/s of 1 MiB
 * ones, microseconds for create-write-close and open-read-close. It reports and
 * never fails. The pool is anonymous memory without huge pages; the bytes are
 * copied out as FUSE would.
 */
#include "common/clock.h"
#include "engine/engine.h"
#include "tests/unit/file_kit.h"

enum { MIB = 1 << 20, FILE_MIB = 64 };

static uint8_t *buf;

/* The calls complete before they return here: no waiting. */
static void keep(struct file_op *op, int64_t r)
{
	*(int64_t *)op->arg = r;
}

static int64_t do_write(struct file *f, uint64_t off, uint64_t len)
{
	int64_t r = -1;
	struct file_op op = { .file = f, .off = off, .buf = buf, .len = len,
			      .done = keep, .arg = &r };

	file_write(&op);
	return r;
}

static int64_t do_read(struct file *f, uint64_t off, uint64_t len, bool copy)
{
	int64_t r = -1;
	struct file_op op = { .file = f, .off = off, .len = len, .done = keep, .arg = &r };

	file_read(&op);
	for (unsigned i = 0; copy && r > 0 && i < op.niov; i++)
		memcpy(buf, op.iov[i].iov_base, op.iov[i].iov_len);
	if (r >= 0)
		file_read_end(&op);
	return r;
}

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "bench_file: %s failed\n", what);
		exit(1);
	}
}

static void report(const char *what, uint64_t start, uint64_t n, uint64_t each)
{
	double ns = (double)(clock_ns() - start);

	printf("%-34s %9.0f ns each", what, ns / (double)n);
	if (each)
		printf("  %6.2f GB/s", (double)n * (double)each / ns);
	printf("\n");
}

static uint64_t scatter(uint64_t i, uint64_t pages)
{
	return (i * 2654435761u) % pages * 4096;
}

static void bench_stream(struct file *f, uint64_t each, const char *w, const char *r)
{
	uint64_t n = (uint64_t)FILE_MIB * MIB / each, t = clock_ns();

	for (uint64_t i = 0; i < n; i++)
		must(do_write(f, i * each, each) == (int64_t)each, w);
	report(w, t, n, each);
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++)
		must(do_read(f, i * each, each, true) == (int64_t)each, r);
	report(r, t, n, each);
}

static void bench_pages(struct file *f)
{
	uint64_t pages = FILE_MIB * MIB / 4096, n = 200000, t = clock_ns();

	for (uint64_t i = 0; i < n; i++)
		must(do_write(f, scatter(i, pages), 4096) == 4096, "write in place");
	report("4 KiB random write, in place", t, n, 4096);
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++)
		must(do_read(f, scatter(i, pages), 4096, true) == 4096, "read");
	report("4 KiB random read, copied out", t, n, 4096);
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++)
		must(do_read(f, scatter(i, pages), 4096, false) == 4096, "read");
	report("4 KiB random read, no copy", t, n, 0);
}

static void bench_cow(struct file *f)
{
	uint64_t pages = FILE_MIB * MIB / 4096, n = 8000, t;

	must(!kit_publish(f, true), "publish");
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++)
		must(do_write(f, scatter(i, pages), 4096) == 4096, "copy on write");
	report("4 KiB random write, copy on write", t, n, 4096);
	t = clock_ns();
	must(!kit_publish(f, true), "publish");
	report("publish of those", t, 1, 0);
	t = clock_ns();
	for (uint64_t i = 0; i < 100; i++) {
		must(do_write(f, scatter(i, pages), 4096) == 4096, "write");
		must(!kit_publish(f, true), "publish");
	}
	report("4 KiB write and publish, 64 MiB", t, 100, 0);
}

static void bench_small(struct engine *e, uint64_t size)
{
	char name[32], what[64];
	uint64_t n = 20000, t = clock_ns();
	struct file *f = NULL;

	for (uint64_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "s%lu-%lu", size, i);
		must(!kit_create(e, name, &f), "create");
		must(do_write(f, 0, size) == (int64_t)size, "write");
		must(!kit_close(f, FILE_WRITE), "close");
	}
	snprintf(what, sizeof(what), "create, write %lu, close", size);
	report(what, t, n, 0);
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "s%lu-%lu", size, i);
		must(!kit_open_name(e, name, 0, &f), "open");
		must(do_read(f, 0, size, true) == (int64_t)size, "read");
		must(!kit_close(f, 0), "close");
	}
	snprintf(what, sizeof(what), "look up, open, read %lu, close", size);
	report(what, t, n, 0);
	t = clock_ns();
	for (uint64_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "s%lu-%lu", size, i);
		must(!kit_unlink(e, name), "unlink");
	}
	report("unlink", t, n, 0);
}

int main(void)
{
	struct engine_opts o = {
		.in_memory = true, .pool_bytes = 512 * MIB, .index_bytes = 256 * MIB,
	};
	struct engine *e = NULL;
	struct file *f = NULL;
	char *why = NULL;

	if (engine_open(&o, &e, &why)) {
		fprintf(stderr, "bench_file: %s\n", why);
		return 1;
	}
	buf = malloc(MIB);
	memset(buf, 7, MIB);
	for (int i = 0; i < 2; i++) {
		must(!kit_create(e, i ? "b" : "a", &f), "create");
		bench_stream(f, MIB, "1 MiB write", "1 MiB read, copied out");
		bench_pages(f);
		bench_cow(f);
		must(!kit_close(f, FILE_WRITE), "close");
		must(!kit_create(e, i ? "d" : "c", &f), "create");
		bench_stream(f, 4096, "4 KiB append", "4 KiB read, copied out");
		must(!kit_close(f, FILE_WRITE), "close");
		bench_small(e, 600);
		bench_small(e, 4096);
	}
	engine_close(e);
	free(buf);
	return 0;
}
