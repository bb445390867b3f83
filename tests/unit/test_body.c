/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies as bytes: index/body.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>
#include <errno.h>

#include "common/metrics.h"
#include "tests/fuzz/roundtrip.h"
#include "tests/unit/bodies_kit.h"
#include "tests/unit/ranges.h"

static uint64_t seed;

static void assert_same_extents(const struct extents *a, const struct extents *b)
{
	assert_int_equal(a->n, b->n);
	for (uint32_t i = 0; i < a->n; i++) {
		const struct extent *x = &a->v[i], *y = &b->v[i];
		assert_int_equal(x->pool_id, y->pool_id);
		assert_int_equal(x->page, y->page);
		assert_int_equal(x->slice, y->slice);
		assert_int_equal(x->gen, y->gen);
		assert_int_equal(x->npages, y->npages);
		assert_int_equal(x->slice_pages, y->slice_pages);
		assert_int_equal(x->slice_off, y->slice_off);
		assert_memory_equal(x->sums, y->sums, extent_nsums(x) * sizeof(*x->sums));
	}
}

static void test_extents_come_back(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		struct extents e = random_extents(&d, (uint32_t)roll(&d, roll(&d, 4) ? 20 : 300)), is;
		struct writer w = { 0 };
		assert_int_equal(body_encode_extents(&e, &w), 0);
		assert_int_equal(body_decode_extents(writer_bytes(&w), &is), 0);
		assert_same_extents(&e, &is);
		assert_true(trip_extents(writer_bytes(&w)));
		extents_fini(&is);
		extents_fini(&e);
		writer_fini(&w);
	}
}

/* A tree's block must not be taken for one of extents. */
static void test_references_are_no_extents(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t n = 1 + (uint32_t)roll(&d, 40);
		struct block_ref v[40];
		struct writer w = { 0 };
		uint64_t region = roll(&d, 2) ? roll(&d, 4) : roll(&d, 300);
		uint64_t id = roll(&d, UINT64_C(1) << (8 + roll(&d, 40)));
		for (uint32_t k = 0; k < n; k++) {
			v[k] = (struct block_ref){ region, ++id };
			region += 1 + (roll(&d, 4) ? 0 : roll(&d, 300));
			id += roll(&d, 4) ? 0 : roll(&d, 1 << 20);
		}
		assert_int_equal(body_encode_blocks(v, n, &w), 0);
		assert_false(trip_extents(writer_bytes(&w)));
		writer_fini(&w);
	}
}

static void test_blocks_come_back(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		uint32_t n = (uint32_t)roll(&d, 200), is_n;
		struct block_ref *v = random_blocks(&d, n), *is;
		struct writer w = { 0 };
		assert_int_equal(body_encode_blocks(v, n, &w), 0);
		assert_int_equal(body_decode_blocks(writer_bytes(&w), &is, &is_n), 0);
		assert_int_equal(is_n, n);
		assert_memory_equal(is, v, n * sizeof(*v));
		assert_true(trip_blocks(writer_bytes(&w)));
		/* Behind what is there; what does not decode changes nothing. */
		assert_int_equal(body_append_blocks(writer_bytes(&w), &is, &is_n), 0);
		assert_int_equal(body_append_blocks(BYTES_OF("x", 1), &is, &is_n), -EUCLEAN);
		assert_int_equal(is_n, 2 * n);
		assert_memory_equal(is + n, v, n * sizeof(*v));
		free(is);
		free(v);
		writer_fini(&w);
	}
}

/* Cut at any place, or with a byte more: never taken for a whole one that is not
 * what an encoder writes. */
static void test_cut_and_changed_bytes(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 400; i++) {
		struct extents e = random_extents(&d, 1 + (uint32_t)roll(&d, 12));
		struct writer w = { 0 };
		assert_int_equal(body_encode_extents(&e, &w), 0);
		for (size_t n = 0; n < w.len; n++) {
			trip_extents(BYTES_OF(w.p, n));
			trip_blocks(BYTES_OF(w.p, n));
		}
		for (unsigned k = 0; k < 200; k++) {
			size_t at = roll(&d, w.len);
			uint8_t was = w.p[at];
			w.p[at] = (uint8_t)roll(&d, roll(&d, 2) ? 4 : 256);
			trip_extents(writer_bytes(&w));
			if (roll(&d, 2))
				w.p[at] = was;
		}
		extents_fini(&e);
		writer_fini(&w);
	}
}

/* One extent, and one thing that is wrong with it ---------------------------------- */

static uint64_t two_sums[2] = { 1, 2 };

static struct extent good(void)
{
	return (struct extent){ .pool_id = 3, .page = 5, .slice = 7, .gen = 1, .npages = 4,
				.slice_pages = 20, .slice_off = 2, .sums = two_sums };
}

static int encode_one(struct extent x)
{
	struct extents e = { &x, 1, 1 };
	struct writer w = { 0 };
	int r = body_encode_extents(&e, &w);

	writer_fini(&w);
	return r;
}

static void test_encoder_refuses_what_decoders_would(void **state)
{
	struct extent x;

	(void)state;
	assert_int_equal(encode_one(good()), 0);
	x = good(), x.npages = 0;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.page = REGION_PAGES - 3;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.slice_off = 17;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.slice_pages = 1025;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.slice = UINT32_MAX - 18;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.pool_id = 0;
	assert_int_equal(encode_one(x), -EINVAL);
	x = good(), x.page = UINT64_C(1) << 51;
	assert_int_equal(encode_one(x), -EINVAL);
	struct extent two[] = { good(), good() };
	struct extents e = { two, 2, 2 };
	struct writer w = { 0 };
	two[1].page = 8;
	assert_int_equal(body_encode_extents(&e, &w), -EINVAL);
	two[1].page = 9;
	assert_int_equal(body_encode_extents(&e, &w), 0);
	writer_fini(&w);
}

/* The encoding of good(): where its fields are, and what each must not be. */
static void test_decoder_refuses_each_wrong_field(void **state)
{
	enum { REGION = 9, COUNT = 10, FIXED = 11, POOL = 27, FLAGS = 28 };
	static const struct { unsigned at; uint8_t value; } wrong[] = {
		{ 0, 0 },              /* no pool */
		{ 0, 2 },              /* a pool that is not used, or not there */
		{ REGION, 0x80 },      /* a varint that does not end where it could */
		{ COUNT, 0 },          /* a region without extents */
		{ COUNT, 2 },          /* more than there are */
		{ FIXED + 1, 4 },      /* page 1029 of 1024 */
		{ FIXED, 0xff },       /* still fine by itself; see below */
		{ FIXED + 2, 0 },      /* no pages */
		{ FIXED + 2, 19 },     /* past its slice */
		{ FIXED + 4, 17 },     /* the same */
		{ FIXED + 6, 0 },      /* slice too short */
		{ FIXED + 7, 8 },      /* slice too long */
		{ POOL, 1 },           /* no such pool */
		{ FLAGS, 1 },          /* flags that are none */
	};
	struct extent x = good();
	struct extents e = { &x, 1, 1 }, is;
	struct writer w = { 0 };

	(void)state;
	assert_int_equal(body_encode_extents(&e, &w), 0);
	assert_int_equal(w.len, 1 + 8 + 2 + 18 + 8);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		uint8_t was = w.p[wrong[i].at];
		w.p[wrong[i].at] = wrong[i].value;
		int r = body_decode_extents(writer_bytes(&w), &is);
		assert_int_equal(r, wrong[i].value == 0xff ? 0 : -EUCLEAN);
		if (!r)
			extents_fini(&is);
		w.p[wrong[i].at] = was;
	}
	memset(w.p + 1, 0, 8);
	assert_int_equal(body_decode_extents(writer_bytes(&w), &is), -EUCLEAN);
	writer_fini(&w);
}

/* The figures that docs speak of. */
static void test_sizes(void **state)
{
	uint64_t sums[64] = { 0 };
	struct extent page = { .pool_id = 3, .page = 0, .slice = 7, .gen = 1, .npages = 1,
			       .slice_pages = 1, .sums = sums };
	struct extent region = { .pool_id = 3, .slice = 7, .npages = 1024, .slice_pages = 1024,
				 .sums = sums };
	struct extents one = { &page, 1, 1 }, all = { &region, 1, 1 };
	struct writer w = { 0 }, r = { 0 }, v = { 0 };

	(void)state;
	assert_int_equal(body_encode_extents(&one, &w), 0);
	struct record rec = { .attr = { .fileid = 2, .mode = S_IFREG | 0644, .nlink = 1 },
			      .body = { BODY_EXTENTS, writer_bytes(&w) } };
	record_encode(&rec, &v);
	assert_uint_in_range(v.len, 1, 150);
	assert_int_equal(body_encode_extents(&all, &r), 0);
	assert_uint_in_range(r.len, 1, 550);
	writer_fini(&w);
	writer_fini(&r);
	writer_fini(&v);
}

static int test_end(void **state)
{
	(void)state;
	return metrics_busy(NULL) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extents_come_back),
		cmocka_unit_test(test_blocks_come_back),
		cmocka_unit_test(test_references_are_no_extents),
		cmocka_unit_test(test_cut_and_changed_bytes),
		cmocka_unit_test(test_encoder_refuses_what_decoders_would),
		cmocka_unit_test(test_decoder_refuses_each_wrong_field),
		cmocka_unit_test(test_sizes),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, test_end);
}
