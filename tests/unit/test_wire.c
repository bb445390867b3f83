/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages (engine/wire.h): random ones come out as they went in; cut short,
 * with bytes behind them or with bytes changed they parse as the same bytes or
 * not at all; and each thing that a header or body must not say, by hand.
 */
#include "tests/unit/kv_kit.h"

#include "tests/fuzz/wire_trips.h"

/* The bytes in a block of their own, so that a sanitizer sees any overrun. */
static bool trip_exact(enum trip t, struct bytes b)
{
	_cleanup_(freep) uint8_t *p = malloc(b.len ? b.len : 1);

	if (b.len)
		memcpy(p, b.p, b.len);
	return trip(t, BYTES_OF(p, b.len));
}

static void walk(void *arg, uint64_t seed)
{
	struct dice d = { seed };

	(void)arg;
	for (unsigned i = 0; i < 3000; i++) {
		enum trip t = i % NTRIPS;
		struct writer w = { 0 };

		random_message(&d, t, &w);
		assert_false(w.bad);
		assert_true(trip_exact(t, writer_bytes(&w)));
		for (size_t n = 0; n < w.len; n += 1 + (w.len > 3000 ? roll(&d, 50) : 0))
			assert_false(trip_exact(t, BYTES_OF(w.p, n)));
		write_u8(&w, 0);
		assert_false(trip_exact(t, writer_bytes(&w)));
		w.len--;
		for (unsigned k = 0; k < 20; k++) {
			w.p[roll(&d, w.len)] ^= (uint8_t)(1 << roll(&d, 8));
			trip_exact(t, writer_bytes(&w));
		}
		writer_fini(&w);
	}
}

static void test_what_is_written_is_read_and_nothing_else(void **state)
{
	(void)state;
	for_seeds("wire", walk, NULL);
}

static int header_with(unsigned at, unsigned n, uint64_t v)
{
	struct wire_header good = { .len = 10, .type = WIRE_KV, .id = 7 }, h;
	uint8_t b[WIRE_HEADER];

	wire_put_header(b, &good);
	for (unsigned i = 0; i < n; i++)
		b[at + i] = (uint8_t)(v >> 8 * i);
	return wire_get_header(b, &h);
}

static void test_headers(void **state)
{
	(void)state;
	assert_int_equal(header_with(0, 4, WIRE_BODY_MAX), 0);
	assert_int_equal(header_with(0, 4, WIRE_BODY_MAX + 1), -EPROTO);
	assert_int_equal(header_with(0, 4, UINT32_MAX), -EPROTO);
	for (unsigned type = 0; type < 70; type++) {
		bool known = (type >= 1 && type <= 5) || (type >= 16 && type <= 23) ||
			     (type >= 32 && type <= 43) ||
			     type == 48 || type == 49;
		bool plain = type <= 5 || type == WIRE_BYE || type == WIRE_RING ||
			     type == WIRE_UNPIN;
		assert_int_equal(header_with(4, 2, type), known && !plain ? 0 : -EPROTO);
		assert_string_not_equal(wire_type_name((uint16_t)type), known ? "?" : "");
	}
	assert_int_equal(header_with(4, 2, UINT16_MAX), -EPROTO);
	assert_int_equal(header_with(6, 2, WIRE_ANSWER), 0);
	assert_int_equal(header_with(6, 2, WIRE_ANSWER | WIRE_MORE), 0);
	assert_int_equal(header_with(6, 2, WIRE_MORE), -EPROTO);
	assert_int_equal(header_with(6, 2, 4), -EPROTO);
	assert_int_equal(header_with(6, 2, 0x8001), -EPROTO);
	assert_int_equal(header_with(8, 8, 0), -EPROTO);
	assert_int_equal(header_with(8, 8, UINT64_MAX), 0);
	assert_int_equal(header_with(16, 4, UINT32_MAX), 0);
	for (unsigned i = 20; i < 24; i++)
		assert_int_equal(header_with(i, 1, 1), -EPROTO);
}

static void test_an_error_has_no_body_and_no_parts(void **state)
{
	struct wire_header h = { .type = WIRE_KV, .flags = WIRE_ANSWER, .id = 1, .result = -5 };
	uint8_t b[WIRE_HEADER];

	(void)state;
	wire_put_header(b, &h);
	assert_int_equal(wire_get_header(b, &h), 0);
	assert_int_equal(h.result, -5);
	h.len = 1;
	wire_put_header(b, &h);
	assert_int_equal(wire_get_header(b, &h), -EPROTO);
	h = (struct wire_header){ .type = WIRE_KV, .flags = WIRE_ANSWER | WIRE_MORE, .id = 1 };
	wire_put_header(b, &h);
	assert_int_equal(wire_get_header(b, &h), -EPROTO); /* an empty part */
	h = (struct wire_header){ .type = WIRE_STAT, .flags = WIRE_ANSWER | WIRE_MORE, .id = 1,
				  .len = 1 };
	wire_put_header(b, &h);
	assert_int_equal(wire_get_header(b, &h), -EPROTO);
}

static void test_results(void **state)
{
	static const int same[] = { 0, 1, 2, -EPERM, -EIO, -E2BIG, -EAGAIN, -ENOMEM, -EINVAL,
				    -ENOSPC, -EROFS, -EPROTO, -ETIMEDOUT, -ESTALE, -EUCLEAN,
				    -ECANCELED };

	(void)state;
	for (unsigned i = 0; i < sizeof(same) / sizeof(*same); i++)
		assert_int_equal(wire_errno(wire_result(same[i])), same[i]);
	assert_int_equal(wire_result(-ENOTTY), -5);
	assert_int_equal(wire_errno(-9999), -EIO);
	assert_int_equal(wire_errno(INT32_MIN), -EIO);
}

/* A good HELLO with one byte put in. */
static int hello_with(unsigned at, uint8_t v)
{
	struct wire_hello m = { .version_min = 1, .version_max = 1, .name = bytes_str("me") };
	struct writer w = { 0 };

	wire_write_hello(&w, &m);
	w.p[at] = v;
	int r = wire_read_hello(writer_bytes(&w), &m);
	writer_fini(&w);
	return r;
}

static void test_hello(void **state)
{
	(void)state;
	assert_int_equal(hello_with(0, 's'), 0);
	assert_int_equal(hello_with(0, 'S'), -EPROTO);
	assert_int_equal(hello_with(7, 1), -EPROTO);
	assert_int_equal(hello_with(8, 2), -EPROTO);  /* least over most */
	assert_int_equal(hello_with(16, 1), -EPROTO); /* data, of no session */
	assert_int_equal(hello_with(16, 2), -EPROTO);
	assert_int_equal(hello_with(17, 1), 0);
	assert_int_equal(hello_with(17, 2), -EPROTO);
	assert_int_equal(hello_with(18, 1), -EPROTO);
	assert_int_equal(hello_with(20, 1), 0); /* control, after a session */
	assert_int_equal(hello_with(28, 1), -EPROTO); /* a number, of no data connection */
	assert_int_equal(hello_with(64, 3), -EPROTO);
	assert_int_equal(hello_with(65, 1), -EPROTO);
}

static int kv_body(const char *hex)
{
	struct writer w = { 0 };
	struct wire_kv m;

	for (unsigned byte; sscanf(hex, " %2x", &byte) == 1; hex += strspn(hex, " ") + 2)
		write_u8(&w, (uint8_t)byte);
	_cleanup_(freep) uint8_t *exact = malloc(w.len);
	memcpy(exact, w.p, w.len);
	int r = wire_read_kv(BYTES_OF(exact, w.len), &m);
	if (!r)
		wire_kv_fini(&m);
	writer_fini(&w);
	return r;
}

static void test_kv_bodies(void **state)
{
	(void)state;
	assert_int_equal(kv_body("00 0000 0000 0000"), 0);
	assert_int_equal(kv_body("0b 0000 0000 0000"), 0);
	assert_int_equal(kv_body("10 0000 0000 0000"), -EPROTO);
	/* Counts that the bytes cannot hold. */
	assert_int_equal(kv_body("00 ffff 0000 0000"), -EPROTO);
	assert_int_equal(kv_body("00 0000 ffff 0000"), -EPROTO);
	assert_int_equal(kv_body("00 0000 0000 ffff"), -EPROTO);
	/* Compares: kind, key, end, revision. */
	assert_int_equal(kv_body("00 0100 0000 0000 00 0100 41 0000 0000000000000000"), 0);
	assert_int_equal(kv_body("00 0100 0000 0000 04 0100 41 0000 0000000000000000"), -EPROTO);
	assert_int_equal(kv_body("00 0100 0000 0000 00 0100 41 0000 0100000000000000"), -EPROTO);
	assert_int_equal(kv_body("00 0100 0000 0000 02 0100 41 0000 0100000000000000"), 0);
	assert_int_equal(kv_body("00 0100 0000 0000 01 0100 41 0100 42 0000000000000000"), -EPROTO);
	assert_int_equal(kv_body("00 0100 0000 0000 03 0100 41 0100 42 0000000000000000"), 0);
	assert_int_equal(kv_body("00 0100 0000 0000 00 ffff 41 0000 0000000000000000"), -EPROTO);
	/* Writes: key, delete, value. */
	assert_int_equal(kv_body("00 0000 0100 0000 0100 41 00 00000000"), 0);
	assert_int_equal(kv_body("00 0000 0100 0000 0100 41 01 00000000"), 0);
	assert_int_equal(kv_body("00 0000 0100 0000 0100 41 02 00000000"), -EPROTO);
	assert_int_equal(kv_body("00 0000 0100 0000 0100 41 01 01000000 42"), -EPROTO);
	assert_int_equal(kv_body("00 0000 0100 0000 0100 41 00 ffffffff 42"), -EPROTO);
	/* Reads: from, range, to, limit. */
	assert_int_equal(kv_body("00 0000 0000 0100 0100 41 00 0000 00000000"), 0);
	assert_int_equal(kv_body("00 0000 0000 0100 0100 41 00 0000 01000000"), -EPROTO);
	assert_int_equal(kv_body("00 0000 0000 0100 0100 41 00 0100 42 00000000"), -EPROTO);
	assert_int_equal(kv_body("00 0000 0000 0100 0100 41 01 0100 42 01000000"), 0);
}

static void test_an_empty_value_is_no_deletion(void **state)
{
	struct kv_write x[] = { { bytes_str("D"), bytes_str("") }, { bytes_str("D"), BYTES_NONE } };
	struct kv_read rd = { bytes_str("D"), bytes_str(""), 1 };
	struct kv_req req = { .writes = x, .nwrites = 2, .reads = &rd, .nreads = 1 };
	struct writer w = { 0 };
	struct wire_kv m;

	(void)state;
	wire_write_kv(&w, &req, false);
	assert_int_equal(wire_read_kv(writer_bytes(&w), &m), 0);
	assert_non_null(m.writes[0].value.p);
	assert_null(m.writes[1].value.p);
	assert_non_null(m.reads[0].to.p); /* a range, though a wrong one */
	wire_kv_fini(&m);
	writer_fini(&w);
}

static void test_an_answer_fits_its_question(void **state)
{
	struct kv_rows rows = { 0 };
	struct kv_req said = { .rows = &rows, .nreads = 1, .revision = 5 };
	struct kv_req asked = { .nreads = 2 };
	struct writer w = { 0 };

	(void)state;
	wire_write_kv_answer(&w, &said);
	assert_int_equal(wire_read_kv_answer(writer_bytes(&w), &asked), -EPROTO);
	assert_null(asked.rows);
	kv_req_fini(&asked);
	asked.nreads = 1;
	assert_int_equal(wire_read_kv_answer(writer_bytes(&w), &asked), 0);
	assert_non_null(asked.rows);
	assert_int_equal(asked.revision, 5);
	kv_req_fini(&asked);
	w.p[11] = 0xff; /* rows that are not there */
	w.p[14] = 0xff;
	assert_int_equal(wire_read_kv_answer(writer_bytes(&w), &asked), -EPROTO);
	kv_req_fini(&asked);
	writer_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read_and_nothing_else),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_an_error_has_no_body_and_no_parts),
		cmocka_unit_test(test_results),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_kv_bodies),
		cmocka_unit_test(test_an_empty_value_is_no_deletion),
		cmocka_unit_test(test_an_answer_fits_its_question),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
