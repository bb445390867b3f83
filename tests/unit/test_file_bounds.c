/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an open file costs: pages of the pool for its bytes, index writes and
 * copied bytes for a small change; and what several threads may do to one file
 * at the same time (run it under tsan, too).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/falloc.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/open.h"
#include "tests/unit/file_kit.h"

enum { MIB = 1 << 20 };

/* Counts what is written to the index ------------------------------------------- */

struct counting {
	struct kv kv;
	struct kv *inner;
	_Atomic uint64_t writes, bytes;
};

static struct counting *counting;

static void count_submit(struct kv *kv, struct kv_req *req)
{
	struct counting *c = (struct counting *)kv;

	for (uint32_t i = 0; i < req->nwrites; i++) {
		c->writes++;
		c->bytes += req->writes[i].key.len + req->writes[i].value.len;
	}
	c->inner->ops->submit(c->inner, req);
}

static struct kv_caps count_caps(struct kv *kv)
{
	struct kv *inner = ((struct counting *)kv)->inner;

	return inner->ops->caps(inner);
}

static int count_stat(struct kv *kv, struct kv_stat *ret)
{
	struct kv *inner = ((struct counting *)kv)->inner;

	return inner->ops->stat(inner, ret);
}

static int count_session_end(struct kv *kv, uint64_t session)
{
	struct kv *inner = ((struct counting *)kv)->inner;

	return inner->ops->session_end(inner, session);
}

static struct kv *count_inner(struct kv *kv)
{
	return ((struct counting *)kv)->inner;
}

static int count_check(struct kv *kv, struct writer *report)
{
	struct kv *inner = ((struct counting *)kv)->inner;

	return inner->ops->check(inner, report);
}

static void count_close(struct kv *kv)
{
	kv_close(((struct counting *)kv)->inner);
	free(kv);
}

static const struct kv_ops count_ops = {
	.name = "counting", .submit = count_submit, .caps = count_caps, .stat = count_stat,
	.session_end = count_session_end, .inner = count_inner, .check = count_check,
	.close = count_close,
};

static int wrap_kv(struct kv *inner, struct kv **ret)
{
	counting = calloc(1, sizeof(*counting));
	counting->kv.ops = &count_ops;
	counting->inner = inner;
	*ret = &counting->kv;
	return 0;
}

static struct engine *open_engine(uint64_t pool_bytes, uint64_t fault_seed)
{
	struct engine_opts o = {
		.in_memory = true, .pool_bytes = pool_bytes, .index_bytes = 64 * MIB,
		.wrap_kv = wrap_kv, .fault_seed = fault_seed,
	};
	struct engine *e = NULL;
	char *why = NULL;

	if (engine_open(&o, &e, &why))
		fail_msg("%s", why);
	return e;
}

static void close_engine(struct engine *e)
{
	struct writer r = { 0 };

	assert_true(kit_is_idle());
	int bad = engine_check(e, false, &r, NULL);
	if (bad)
		fail_msg("%d violations:\n%.*s", bad, (int)r.len, r.p);
	writer_fini(&r);
	engine_close(e);
}

static uint64_t used_bytes(struct engine *e)
{
	struct engine_space s;

	engine_space(e, &s);
	return s.total_bytes - s.free_bytes;
}

static uint8_t *pattern(size_t n, unsigned seed)
{
	uint8_t *p = malloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((i * 2654435761u >> 13) + seed);
	return p;
}

static void write_file(struct engine *e, const char *name, const uint8_t *p, uint64_t size,
		       uint64_t each)
{
	struct file *f = NULL;

	assert_int_equal(kit_create(e, name, &f), 0);
	for (uint64_t at = 0; at < size; at += each) {
		uint64_t n = size - at < each ? size - at : each;
		assert_int_equal(kit_write(f, at, p + at, n), n);
	}
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

/* Space --------------------------------------------------------------------------- */

static void a_file_takes_little_more_than_its_bytes(void **state)
{
	static const uint64_t sizes[] = { 4096, 3300, 8192, 65536, MIB + 1, 3 * MIB + 7,
		5 * MIB + 4097, 9 * MIB };
	static const uint64_t each[] = { 4096, 1000, 65536, MIB, 16 * MIB };
	struct engine *e = open_engine(64 * MIB, 0);
	uint8_t *p = pattern(16 * MIB, 1);

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		for (unsigned k = 0; k < sizeof(each) / sizeof(*each); k++) {
			write_file(e, "f", p, sizes[i], each[k]);
			double used = (double)used_bytes(e) / (double)sizes[i];
			if (used > (sizes[i] > MIB ? 1.01 : 1.25))
				fail_msg("%lu bytes in writes of %lu take %.3f of themselves",
					 sizes[i], each[k], used);
			assert_int_equal(kit_unlink(e, "f"), 0);
			assert_int_equal(used_bytes(e), 0);
		}
	}
	write_file(e, "tiny", p, INDEX_INLINE_MAX, 100);
	assert_int_equal(used_bytes(e), 0);
	free(p);
	close_engine(e);
}

/* Overwriting in small pieces, published each time, keeps about twice the file. */
static void overwriting_keeps_space_bounded(void **state)
{
	struct engine *e = open_engine(64 * MIB, 0);
	uint8_t *p = pattern(4 * MIB, 2), *got = malloc(4 * MIB);
	struct file *f = NULL;
	uint64_t random = 1;

	(void)state;
	write_file(e, "f", p, 4 * MIB, MIB);
	assert_int_equal(kit_open_name(e, "f", FILE_WRITE, &f), 0);
	int64_t copied = metric_get(M_COPIED_BYTES);
	for (int i = 0; i < 3000; i++) {
		random = random * 6364136223846793005ULL + 1;
		uint64_t off = (random >> 33) % 1024 * 4096;
		memset(p + off, i, 4096);
		assert_int_equal(kit_write(f, off, p + off, 4096), 4096);
		assert_int_equal(kit_publish(f, true), 0);
		if (used_bytes(e) > 9 * MIB)
			fail_msg("%lu bytes of the pool for 4 MiB", used_bytes(e));
	}
	copied = metric_get(M_COPIED_BYTES) - copied;
	printf("%ld KiB copied for 3000 pages, %u extents\n", copied / 1024, f->map.v[0]->n);
	/* A publish brings at most 32 pages together, and adds two extents. */
	assert_true(copied <= 3000 * 32 * 4096L);
	assert_true(f->map.v[0]->n < 256);
	assert_int_equal(kit_read(f, 0, got, 4 * MIB), 4 * MIB);
	assert_memory_equal(got, p, 4 * MIB);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	free(p);
	free(got);
	close_engine(e);
}

/* 1 GiB of a file, in a small pool: 4 MiB of it, shared 256 times. */
static void a_small_change_of_a_large_file_costs_little(void **state)
{
	struct engine *e = open_engine(64 * MIB, 0);
	uint8_t *p = pattern(4 * MIB, 3), *got = malloc(4 * MIB);
	struct file *f = NULL, *big = NULL;

	(void)state;
	write_file(e, "f", p, 4 * MIB, MIB);
	assert_int_equal(kit_open_name(e, "f", 0, &f), 0);
	assert_int_equal(kit_create(e, "big", &big), 0);
	for (uint64_t i = 0; i < 256; i++)
		assert_int_equal(kit_copy(f, 0, big, i * 4 * MIB, 4 * MIB), 4 * MIB);
	assert_int_equal(kit_publish(big, true), 0);
	assert_int_equal(used_bytes(e), 4 * MIB);

	uint64_t writes = counting->writes, bytes = counting->bytes;
	int64_t copied = metric_get(M_COPIED_BYTES);
	assert_int_equal(kit_write(big, 512 * (uint64_t)MIB + 100, p, 4096), 4096);
	assert_int_equal(kit_publish(big, true), 0);
	assert_int_equal(metric_get(M_COPIED_BYTES) - copied, 2 * 4096);
	/* The new block, the record, and the old block's end; in memory what was put, and
	 * the list of what the version does without, which comes and goes. */
	assert_true(counting->writes - writes <= 6);
	assert_true(counting->bytes - bytes < 8192);
	assert_int_equal(used_bytes(e), 4 * MIB + 8192);

	assert_int_equal(kit_close(big, FILE_WRITE), 0);
	assert_int_equal(kit_open_name(e, "big", 0, &big), 0);
	assert_int_equal(kit_read(big, 512 * (uint64_t)MIB, got, 4 * MIB), 4 * MIB);
	assert_memory_equal(got, p, 100);
	assert_memory_equal(got + 100, p, 4096);
	assert_memory_equal(got + 4196, p + 4196, 4 * MIB - 4196);
	assert_int_equal(kit_close(big, 0), 0);
	assert_int_equal(kit_close(f, 0), 0);
	assert_int_equal(kit_unlink(e, "f"), 0);
	assert_int_equal(kit_unlink(e, "big"), 0);
	assert_int_equal(used_bytes(e), 0);
	free(p);
	free(got);
	close_engine(e);
}

/* Sparse to the last offset: regions far apart, a tree of blocks. */
static void a_file_may_be_huge_and_sparse(void **state)
{
	struct engine *e = open_engine(64 * MIB, 0);
	const uint64_t step = 256ULL << 20, end = 1ULL << 43;
	uint8_t b[8], zero[8] = { 0 };
	struct file *f = NULL;

	(void)state;
	/* References to blocks beyond 64 KiB need some 7,000 regions. */
	assert_int_equal(kit_create(e, "f", &f), 0);
	for (uint64_t off = 0; off < end / 4; off += step)
		assert_int_equal(kit_write(f, off, &off, 8), 8);
	assert_int_equal(kit_publish(f, true), 0);
	assert_int_equal(kit_write(f, end - 8, &end, 8), 8);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_open_name(e, "f", FILE_WRITE, &f), 0);
	assert_true(f->nnodes > 1);
	for (uint64_t off = 0; off < end / 4; off += step) {
		assert_int_equal(kit_read(f, off, b, 8), 8);
		assert_memory_equal(b, &off, 8);
		assert_int_equal(kit_read(f, off + step / 2, b, 8), 8);
		assert_memory_equal(b, zero, 8);
	}
	assert_int_equal(kit_read(f, end - 8, b, 8), 8);
	assert_memory_equal(b, &end, 8);
	assert_int_equal(kit_write(f, FILE_BYTES_MAX, b, 1), -EFBIG);
	assert_int_equal(kit_truncate(f, FILE_BYTES_MAX + 1), -EFBIG);
	/* One change: a block, its node, the record. */
	uint64_t writes = counting->writes;
	assert_int_equal(kit_write(f, 4 * step, b, 8), 8);
	assert_int_equal(kit_publish(f, true), 0);
	assert_true(counting->writes - writes <= 8);
	assert_int_equal(kit_truncate(f, 10), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(used_bytes(e), 0);
	close_engine(e);
}

/* Bytes that do not match are not returned (P9). */
static void damaged_bytes_are_not_returned(void **state)
{
	struct engine_opts o = {
		.in_memory = true, .pool_bytes = 16 * MIB, .index_bytes = 64 * MIB,
		.verify = true,
	};
	uint8_t *p = pattern(MIB, 4), *got = malloc(MIB);
	struct map_view v;
	struct engine *e;
	struct file *f = NULL;

	(void)state;
	assert_int_equal(engine_open(&o, &e, NULL), 0);
	write_file(e, "f", p, MIB, MIB);
	assert_int_equal(kit_open_name(e, "f", FILE_WRITE, &f), 0);
	assert_int_equal(kit_read(f, 0, got, MIB), MIB);
	int64_t failures = metric_get(M_CHECKSUM_FAILURES);
	assert_true(map_at(&f->map, 40, &v));
	uint8_t *byte = pool_page(e->pool, v.hold->id.page + v.off + (uint32_t)(40 - v.page));
	*byte ^= 1;
	assert_int_equal(kit_read(f, 0, got, MIB), -EIO);
	assert_int_equal(kit_read(f, 40 * 4096, got, 10), -EIO);
	assert_int_equal(kit_read(f, 0, got, 65536), 65536);
	assert_int_equal(kit_write(f, 40 * 4096 + 1, "x", 1), -EIO); /* copy on write */
	assert_true(metric_get(M_CHECKSUM_FAILURES) >= failures + 3);
	*byte ^= 1;
	assert_int_equal(kit_read(f, 0, got, MIB), MIB);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	free(p);
	free(got);
	close_engine(e);
}

/* Threads --------------------------------------------------------------------------- */

enum { NTHREADS = 4, NPAGES = 1400, ROUNDS = 300 };

struct crowd {
	struct engine *e;
	struct file *f;
	_Atomic bool stop;
	_Atomic unsigned next;
	unsigned rounds;
};

static void fill_page(uint8_t *p, uint32_t page, uint32_t value)
{
	for (unsigned i = 0; i < 1024; i++)
		((uint32_t *)p)[i] = page * 100000 + value;
}

/* Owns the runs of four pages whose number is its own modulo NTHREADS. */
static void *writer_thread(void *arg)
{
	struct crowd *c = arg;
	unsigned me = c->next++;
	uint64_t random = me + 1;
	uint32_t *values = calloc(NPAGES, sizeof(*values));
	uint8_t *buf = malloc(4 * 4096), *got = malloc(4 * 4096);

	for (unsigned i = 0; i < c->rounds; i++) {
		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		uint32_t run = (uint32_t)(random >> 33) % (NPAGES / 4 / NTHREADS);
		uint32_t page = (run * NTHREADS + me) * 4, n = 1 + (uint32_t)(random >> 20) % 4;
		for (uint32_t k = 0; k < n; k++) {
			values[page + k] = i + 1;
			fill_page(buf + k * 4096, page + k, i + 1);
		}
		int64_t r = kit_write(c->f, page * 4096ULL, buf, n * 4096);
		assert(r == n * 4096);
		r = kit_read(c->f, page * 4096ULL, got, n * 4096);
		assert(r == n * 4096 && !memcmp(got, buf, n * 4096));
	}
	for (uint32_t page = 0; page < NPAGES; page++) {
		if (!values[page])
			continue;
		fill_page(buf, page, values[page]);
		int64_t r = kit_read(c->f, page * 4096ULL, got, 4096);
		assert(r == 4096 && !memcmp(got, buf, 4096));
	}
	free(values);
	free(buf);
	free(got);
	return NULL;
}

static void *publisher_thread(void *arg)
{
	struct crowd *c = arg;

	while (!c->stop) {
		int64_t r = kit_publish(c->f, true);
		assert(!r);
	}
	return NULL;
}

static void *visitor_thread(void *arg)
{
	struct crowd *c = arg;
	uint64_t random = 99;
	struct attr a;

	while (!c->stop) {
		struct file *f = NULL;
		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		unsigned flags = random >> 63 ? FILE_WRITE : 0;
		int r = kit_open_name(c->e, "f", flags, &f);
		assert(!r);
		file_attr(f, &a);
		assert(a.size == NPAGES * 4096ULL);
		if (flags) {
			r = (int)kit_truncate(f, NPAGES * 4096ULL);
			assert(!r);
		}
		r = kit_close(f, flags);
		assert(!r);
	}
	return NULL;
}

static void crowd_at_one_file(uint64_t fault_seed, unsigned rounds)
{
	struct crowd c = { .e = open_engine(64 * MIB, fault_seed), .rounds = rounds };
	pthread_t t[NTHREADS], others[2];

	assert_int_equal(kit_create(c.e, "f", &c.f), 0);
	assert_int_equal(kit_truncate(c.f, NPAGES * 4096ULL), 0);
	assert_int_equal(kit_publish(c.f, true), 0);
	for (int i = 0; i < NTHREADS; i++)
		pthread_create(&t[i], NULL, writer_thread, &c);
	pthread_create(&others[0], NULL, publisher_thread, &c);
	pthread_create(&others[1], NULL, visitor_thread, &c);
	for (int i = 0; i < NTHREADS; i++)
		pthread_join(t[i], NULL);
	c.stop = true;
	pthread_join(others[0], NULL);
	pthread_join(others[1], NULL);
	assert_int_equal(kit_close(c.f, FILE_WRITE), 0);
	assert_int_equal(kit_unlink(c.e, "f"), 0);
	assert_int_equal(used_bytes(c.e), 0);
	close_engine(c.e);
}

static void threads_may_share_a_file(void **state)
{
	(void)state;
	crowd_at_one_file(0, ROUNDS * 10);
	crowd_at_one_file(17, ROUNDS / 3);
}

/* Whole writes of one range: the last one wins, whole. */
static void *overlap_thread(void *arg)
{
	struct crowd *c = arg;
	unsigned me = c->next++;
	uint8_t *buf = malloc(300000);

	memset(buf, 'a' + (int)me, 300000);
	for (unsigned i = 0; i < c->rounds; i++) {
		int64_t r = kit_write(c->f, 5000, buf, 300000);
		assert(r == 300000);
	}
	free(buf);
	return NULL;
}

static void overlapping_writes_do_not_mix(void **state)
{
	uint8_t *got = malloc(300000);
	pthread_t t[NTHREADS];

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct crowd c = { .e = open_engine(16 * MIB, round % 2 ? round : 0), .rounds = 3 };
		assert_int_equal(kit_create(c.e, "f", &c.f), 0);
		for (int i = 0; i < NTHREADS; i++)
			pthread_create(&t[i], NULL, overlap_thread, &c);
		for (int i = 0; i < NTHREADS; i++)
			pthread_join(t[i], NULL);
		assert_int_equal(kit_read(c.f, 5000, got, 300000), 300000);
		for (unsigned i = 1; i < 300000; i++)
			if (got[i] != got[0])
				fail_msg("byte %u is of another write", i);
		assert_int_equal(kit_close(c.f, FILE_WRITE), 0);
		close_engine(c.e);
	}
	free(got);
}

/* A write in place that failed may have left bytes behind the end; a copy takes the
 * last page and not those. */
static void a_copy_takes_no_byte_behind_the_end(void **state)
{
	uint8_t buf[PAGE_BYTES], zeros[PAGE_BYTES] = { 0 };
	struct file *from = NULL, *to = NULL;

	(void)state;
	memset(buf, 'x', sizeof(buf));
	for (unsigned seed = 1; seed <= 20; seed++) {
		struct engine *e = open_engine(16 * MIB, seed);
		assert_int_equal(kit_create(e, "from", &from), 0);
		assert_int_equal(kit_create(e, "to", &to), 0);
		assert_int_equal(kit_write(from, 0, buf, 2000), 2000);
		transport_fault_arm(e->transport, 1, 0);
		assert_int_equal(kit_write(from, 1000, buf, 3000), -EIO);
		assert_int_equal(kit_copy(from, 0, to, 0, 2000), 2000);
		assert_int_equal(kit_truncate(to, PAGE_BYTES), 0);
		assert_int_equal(kit_read(to, 2000, buf, 2096), 2096);
		assert_memory_equal(buf, zeros, 2096);
		memset(buf, 'x', sizeof(buf));
		assert_int_equal(kit_close(from, FILE_WRITE), 0);
		assert_int_equal(kit_close(to, FILE_WRITE), 0);
		close_engine(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_takes_little_more_than_its_bytes),
		cmocka_unit_test(overwriting_keeps_space_bounded),
		cmocka_unit_test(a_small_change_of_a_large_file_costs_little),
		cmocka_unit_test(a_file_may_be_huge_and_sparse),
		cmocka_unit_test(damaged_bytes_are_not_returned),
		cmocka_unit_test(threads_may_share_a_file),
		cmocka_unit_test(overlapping_writes_do_not_mix),
		cmocka_unit_test(a_copy_takes_no_byte_behind_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
