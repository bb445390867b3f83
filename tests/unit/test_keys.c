/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of the index, as pure functions. */
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

/* Keys ----------------------------------------------------------------------- */

static struct key random_key(struct dice *d, char *name)
{
	uint64_t a = 1 + roll(d, roll(d, 2) ? 3 : UINT64_MAX - 1);
	uint64_t b = h_hash(NAME_STEP + roll(d, roll(d, 2) ? 3 : INT64_MAX - NAME_STEP)) +
		     roll(d, NAME_SLOTS);
	struct bytes n = BYTES_OF(name, 1 + roll(d, roll(d, 2) ? 3 : 255));

	memset(name, 'a' + (int)roll(d, 3), n.len);
	uint64_t session = 1 + roll(d, roll(d, 2) ? 3 : UINT64_MAX - 1);

	switch (roll(d, 12)) {
	case 0: return key_name(a, b, n);
	case 1: return key_draft_name(a, b, n, session);
	case 8: return key_note(a, b, session);
	case 5: return key_writer(a, session);
	case 6: return key_draft_times(a, session);
	case 7: return key_draft_xattr(a, n, session);
	case 2: return key_file(a);
	case 3: return key_block(a, b);
	case 4: return key_xattr(a, n);
	case 10: return key_hides(a, 1 + b, b, session);
	case 9: return key_gone(a, roll(d, 2) ? b : 0, session);
	default: return key_times(a);
	}
}

static void test_keys_come_apart_as_they_were_made(void **state)
{
	struct dice d = { seed };
	char name[255];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct key k = random_key(&d, name);
		assert_true(k.len <= KV_KEY_MAX);
		assert_true(trip_key(key_bytes(&k)));
		/* And nothing but that: a byte more or less is not it. */
		uint64_t id;
		k.len--;
		assert_int_equal(key_parse_id(key_bytes(&k), 'F', &id), -EUCLEAN);
		trip_key(key_bytes(&k));
	}
}

static void test_keys_sort_as_their_numbers(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t a = roll(&d, 0) >> roll(&d, 64), b = roll(&d, 0) >> roll(&d, 64);
		uint64_t h = roll(&d, 0) >> roll(&d, 64), h2 = roll(&d, 0) >> roll(&d, 64);
		struct key x = key_name(a, h, bytes_str("z")), y = key_name(b, h2, bytes_str("a"));
		int order = a != b ? (a < b ? -1 : 1) : h != h2 ? (h < h2 ? -1 : 1) : 1;
		int is = bytes_cmp(key_bytes(&x), key_bytes(&y));
		assert_int_equal(is < 0 ? -1 : 1, order);
	}
}

/* [prefix, end) holds what begins with it, and nothing else. */
static void test_a_prefix_is_a_range(void **state)
{
	struct dice d = { seed };
	char name[255];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct key k = random_key(&d, name);
		uint64_t id = roll(&d, 3) ? roll(&d, 4) : UINT64_MAX - roll(&d, 2);
		struct key from = roll(&d, 2) ? key_prefix("DFXE"[roll(&d, 4)], id)
					      : key_prefix_h('D', id, NAME_STEP + roll(&d, 3));
		struct key to = key_prefix_end(from);
		bool in = bytes_cmp(key_bytes(&k), key_bytes(&from)) >= 0 &&
			  bytes_cmp(key_bytes(&k), key_bytes(&to)) < 0;
		bool begins = k.len >= from.len && !memcmp(k.b, from.b, from.len);
		assert_int_equal(in, begins);
	}
}

static void test_bad_names_are_no_keys(void **state)
{
	const char *const bad[] = { "", "a/b", "/" };
	char with_nul[] = { 'D', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 'a', 0, 'b' };
	struct name_key k;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct key key = key_name(1, 256, bytes_str(bad[i]));
		assert_int_equal(key_parse_name(key_bytes(&key), &k), -EUCLEAN);
	}
	assert_int_equal(key_parse_name(BYTES_OF(with_nul, sizeof(with_nul)), &k), -EUCLEAN);
	assert_int_equal(key_parse_name(BYTES_OF(with_nul, 18), &k), 0);
	struct key low = key_name(1, 255, bytes_str("a")), none = key_name(0, 256, bytes_str("a"));
	struct key free = key_name(1, 256 + NAME_SLOTS, bytes_str("a"));
	assert_int_equal(key_parse_name(key_bytes(&free), &k), -EUCLEAN);
	assert_int_equal(key_parse_name(key_bytes(&low), &k), -EUCLEAN);
	assert_int_equal(key_parse_name(key_bytes(&none), &k), -EUCLEAN);
}

static void test_hashes_are_spread_and_keyed(void **state)
{
	const uint8_t key_a[16] = { 1 }, key_b[16] = { 2 };
	unsigned top[16] = { 0 };

	(void)state;
	for (unsigned i = 0; i < 16000; i++) {
		char name[32];
		snprintf(name, sizeof(name), "file-%u", i);
		uint64_t h = name_hash(key_a, bytes_str(name));
		assert_int_equal(h % NAME_STEP, 0);
		assert_true(h >= NAME_STEP && h <= INT64_MAX);
		assert_true(h != name_hash(key_b, bytes_str(name)));
		top[h >> 59]++;
	}
	for (unsigned i = 0; i < 16; i++)
		assert_uint_in_range(top[i], 800, 1200);
}

/* Values ------------------------------------------------------------------------ */

static void test_crc32c_is_the_known_one(void **state)
{
	struct dice d = { seed };
	uint8_t b[300];

	(void)state;
	assert_int_equal(crc32c(bytes_str("123456789")), 0xe3069283);
	assert_int_equal(crc32c(BYTES_NONE), 0);
	memset(b, 0, 32);
	assert_int_equal(crc32c(BYTES_OF(b, 32)), 0x8a9136aa); /* RFC 3720, B.4 */
	for (unsigned i = 0; i < 2000; i++) {
		size_t n = roll(&d, sizeof(b)), off = roll(&d, sizeof(b) - n + 1);
		b[roll(&d, sizeof(b))] = (uint8_t)roll(&d, 256);
		assert_int_equal(crc32c(BYTES_OF(b + off, n)), crc32c_portable(BYTES_OF(b + off, n)));
	}
}

static void test_records_come_back(void **state)
{
	struct dice d = { seed };
	char name[255];
	uint8_t body[64];

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		struct record r = random_record(&d, name, body), is;
		struct writer w = { 0 };
		record_encode(&r, &w);
		assert_int_equal(record_decode(writer_bytes(&w), &is), 0);
		assert_int_equal(is.kind, r.kind);
		assert_int_equal(is.attr.fileid, r.attr.fileid);
		assert_int_equal(is.attr.mode, r.attr.mode);
		if (r.kind == RECORD_WHOLE) {
			assert_int_equal(is.attr.size, r.attr.size);
			assert_int_equal(is.attr.version, r.attr.version);
			assert_int_equal(is.attr.pages, r.attr.pages);
			assert_int_equal(is.attr.rdev, r.attr.rdev);
			assert_int_equal(is.attr.nlink, r.attr.nlink);
			assert_int_equal(is.attr.uid, r.attr.uid);
			assert_int_equal(is.attr.gid, r.attr.gid);
			assert_memory_equal(&is.attr.atime, &r.attr.atime, 4 * sizeof(r.attr.atime));
			assert_int_equal(is.attr.has_xattrs, r.attr.has_xattrs);
			assert_int_equal(is.attr.has_default_acl, r.attr.has_default_acl);
			assert_int_equal(keep_diff(&is.attr.keep, &r.attr.keep), 0);
			assert_int_equal(is.attr.keep.since, r.attr.keep.since);
			assert_int_equal(is.body.kind, r.body.kind);
			assert_true(bytes_eq(is.body.bytes, r.body.bytes));
			assert_int_equal(is.attr.away, r.attr.away);
			assert_int_equal(is.attr.copied, r.attr.copied);
			assert_true(bytes_eq(is.copy, r.copy));
			assert_int_equal(is.parent, r.parent);
			assert_true(bytes_eq(is.name, r.name));
		}
		assert_true(trip_record(writer_bytes(&w)));
		writer_fini(&w);
	}
}

/* One bit, anywhere: never taken for something else. */
static void test_a_flipped_bit_is_noticed(void **state)
{
	struct dice d = { seed };
	char name[255];
	uint8_t body[64];

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		struct record r = random_record(&d, name, body), is;
		struct writer w = { 0 };
		record_encode(&r, &w);
		for (size_t bit = 0; bit < w.len * 8; bit++) {
			w.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
			int e = record_decode(writer_bytes(&w), &is);
			assert_int_equal(e, w.p[0] > VALUE_VERSION ? -EPROTONOSUPPORT : -EUCLEAN);
			w.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		for (size_t n = 0; n < w.len; n++)
			assert_int_equal(record_decode(BYTES_OF(w.p, n), &is), -EUCLEAN);
		writer_fini(&w);
	}
}

/* Right frames around wrong content: bytes changed, cut, added. */
static void test_wrong_content_never_passes_for_another(void **state)
{
	struct dice d = { seed };
	char name[255];
	uint8_t body[64];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct record r = random_record(&d, name, body);
		struct writer w = { 0 }, bad = { 0 };
		record_encode(&r, &w);
		size_t n = w.len - VALUE_HEADER;
		uint8_t *p = w.p + VALUE_HEADER;
		for (uint64_t k = roll(&d, 4); k; k--)
			p[roll(&d, n < 20 || roll(&d, 2) ? (n < 4 ? n : 4) : n)] =
				(uint8_t)roll(&d, roll(&d, 2) ? 8 : 256);
		framed(BYTES_OF(p, roll(&d, 2) ? n : roll(&d, n + 1)), &bad);
		trip_record(writer_bytes(&bad));
		trip_writer_state(writer_bytes(&bad));
		trip_small(writer_bytes(&bad));
		writer_fini(&bad);
		writer_fini(&w);
	}
}

static void refuse(struct record r, void (*spoil)(uint8_t *content, size_t n))
{
	struct writer w = { 0 }, bad = { 0 };
	struct record is;

	record_encode(&r, &w);
	assert_int_equal(record_decode(writer_bytes(&w), &is), 0);
	spoil(w.p + VALUE_HEADER, w.len - VALUE_HEADER);
	framed(BYTES_OF(w.p + VALUE_HEADER, w.len - VALUE_HEADER), &bad);
	assert_int_equal(record_decode(writer_bytes(&bad), &is), -EUCLEAN);
	writer_fini(&bad);
	writer_fini(&w);
}

static void bad_kind(uint8_t *p, size_t n) { (void)n; p[0] = 2; }
static void bad_flags(uint8_t *p, size_t n) { (void)n; p[1] = 8; }
static void bad_body_kind(uint8_t *p, size_t n) { (void)n; p[2] = BODY_TREE + 1; }
static void no_fileid(uint8_t *p, size_t n) { (void)n; memset(p + 3, 0, 8); }
static void huge_size(uint8_t *p, size_t n) { (void)n; p[3 + 23] = 0x80; }
static void bad_type(uint8_t *p, size_t n) { (void)n; p[3 + 40 + 1] = 0x30; }
static void bad_ns(uint8_t *p, size_t n) { (void)n; p[3 + 56 + 11] = 0x40; }
static void no_parent(uint8_t *p, size_t n) { (void)n; memset(p + 107, 0, 8); }
/* 107: s64 pinned, since, u64 quota, u32 ttl, u8 by use, s8 priority */
static void no_keep(uint8_t *p, size_t n) { (void)n; memset(p + 107, 0, 30); }
static void pinned_before_the_epoch(uint8_t *p, size_t n) { (void)n; p[107 + 7] = 0x80; }
static void since_without_ttl(uint8_t *p, size_t n) { (void)n; p[115] = 1; }
static void by_use_without_ttl(uint8_t *p, size_t n) { (void)n; p[135] = 1; }
static void quota_of_a_file(uint8_t *p, size_t n) { (void)n; p[123] = 1; }
static void bad_priority(uint8_t *p, size_t n) { (void)n; p[136] = 2; }
static void bad_by_use(uint8_t *p, size_t n) { (void)n; p[131] = 1; p[135] = 2; }
static void endless(uint8_t *p, size_t n)
{
	(void)n;
	p[131] = 1;
	memset(p + 115, 0xff, 7);
	p[122] = 0x7f;
}
static void slash_in_name(uint8_t *p, size_t n) { p[n - 1] = '/'; }
static void long_name(uint8_t *p, size_t n) { (void)n; p[115] = 9; }

static void test_each_wrong_field_is_refused(void **state)
{
	struct record file = { .attr = { .fileid = 2, .mode = S_IFREG | 0644, .nlink = 1 },
			       .body = { BODY_INLINE, bytes_str("abc") } };
	struct record dir = { .attr = { .fileid = 2, .mode = S_IFDIR | 0755 },
			      .parent = 1, .name = bytes_str("name") };

	struct record kept = file;

	(void)state;
	kept.attr.keep.pinned = 1;
	refuse(kept, no_keep);
	refuse(kept, pinned_before_the_epoch);
	refuse(kept, since_without_ttl);
	refuse(kept, by_use_without_ttl);
	refuse(kept, quota_of_a_file);
	refuse(kept, bad_priority);
	refuse(kept, bad_by_use);
	refuse(kept, endless);
	refuse(file, bad_kind);
	refuse(file, bad_flags);
	refuse(file, bad_body_kind);
	refuse(file, no_fileid);
	refuse(file, huge_size);
	refuse(file, bad_type);
	refuse(file, bad_ns);
	refuse(dir, no_parent);
	refuse(dir, slash_in_name);
	refuse(dir, long_name);
}

static void test_small_values_come_back(void **state)
{
	struct dice d = { seed };

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		struct writer_name names[5];
		struct writer_state s = { .draft = roll(&d, 2), .names = names };
		struct writer w = { 0 };
		for (s.nnames = 0; s.draft && s.nnames < roll(&d, 6); s.nnames++)
			names[s.nnames] = (struct writer_name){ roll(&d, 0), roll(&d, 0),
								bytes_str("some name"),
								roll(&d, 0) };
		if (!s.draft)
			s.place.kind = (enum place_kind)roll(&d, 3);
		if (s.place.kind == PLACE_NAME)
			s.place = (struct place){ PLACE_NAME, roll(&d, 0), roll(&d, 0) };
		writer_state_encode(&s, &w);
		struct writer_state is;
		assert_int_equal(writer_state_decode(writer_bytes(&w), &is), 0);
		assert_int_equal(is.draft, s.draft);
		assert_int_equal(is.nnames, s.nnames);
		assert_int_equal(is.place.h, s.place.h);
		for (uint32_t k = 0; k < is.nnames; k++)
			assert_int_equal(is.names[k].h, names[k].h);
		writer_state_fini(&is);
		assert_true(trip_writer_state(writer_bytes(&w)));
		writer_fini(&w);
		uint64_t number = roll(&d, 0), out;
		number_encode(number, &w);
		assert_int_equal(number_decode(writer_bytes(&w), &out), 0);
		assert_int_equal(out, number);
		assert_true(trip_small(writer_bytes(&w)));
		writer_fini(&w);
	}
}

static int test_end(void **state)
{
	(void)state;
	return metrics_busy(NULL) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys_come_apart_as_they_were_made),
		cmocka_unit_test(test_keys_sort_as_their_numbers),
		cmocka_unit_test(test_a_prefix_is_a_range),
		cmocka_unit_test(test_bad_names_are_no_keys),
		cmocka_unit_test(test_hashes_are_spread_and_keyed),
		cmocka_unit_test(test_crc32c_is_the_known_one),
		cmocka_unit_test(test_records_come_back),
		cmocka_unit_test(test_a_flipped_bit_is_noticed),
		cmocka_unit_test(test_wrong_content_never_passes_for_another),
		cmocka_unit_test(test_each_wrong_field_is_refused),
		cmocka_unit_test(test_small_values_come_back),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, test_end);
}
