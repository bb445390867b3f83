/* SPDX-License-Identifier: Apache-2.0 */
/* What every index engine promises (index/kv.h), once for all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/metrics.h"
#include "index/kv.h"

static void test_put_and_get(void **state)
{
	struct kv *kv;
	struct kv_write put = { bytes_str("Dx"), bytes_str("1") };
	struct kv_read get = { .from = bytes_str("Dx") };
	struct kv_req w = { .writes = &put, .nwrites = 1 };
	struct kv_req r = { .reads = &get, .nreads = 1 };

	(void)state;
	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(kv_wait(kv, &w), KV_DONE);
	assert_int_equal(kv_wait(kv, &r), KV_DONE);
	assert_int_equal(r.rows[0].nrows, 1);
	assert_true(bytes_eq(r.rows[0].rows[0].value, bytes_str("1")));
	assert_int_equal(r.rows[0].rows[0].revision, w.revision);
	kv_req_fini(&w);
	kv_req_fini(&r);
	kv_close(kv);
	assert_null(metrics_busy(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_put_and_get) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
