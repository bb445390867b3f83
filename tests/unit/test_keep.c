/* SPDX-License-Identifier: Apache-2.0 */
/* index/keep.c: what users write of how long an object stays, and what is written of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "index/index.h"

/* Set and read: as `want`; NULL: it is refused, and nothing has changed. */
static void says(const char *what, const char *text, const char *want)
{
	const struct keep before = { .pinned = 7, .ttl = 7, .priority = KEEP_HIGH, .quota = 7 };
	struct keep k = before;
	struct keep_text is;
	unsigned mask = 0;
	int r = keep_set(&k, what, bytes_str(text), &mask);

	if (!want) {
		assert_int_equal(r, -EINVAL);
		assert_int_equal(keep_diff(&k, &before), 0);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(keep_diff(&k, &before) & ~mask, 0);
	r = keep_get(&k, what, &is);
	if (!*want) {
		assert_int_equal(r, -ENODATA);
		return;
	}
	assert_int_equal(r, 0);
	assert_string_equal(is.s, want);
	struct keep again = before;
	assert_int_equal(keep_set(&again, what, bytes_str(is.s), &mask), 0);
	assert_int_equal(keep_diff(&again, &k), 0);
}

static void pins(void **state)
{
	(void)state;
	says("pin", "forever", "forever");
	says("pin", "1", "forever");
	says("pin", "yes", "forever");
	says("pin", "0", "");
	says("pin", "no", "");
	says("pin", "2026-12-01", "2026-12-01T00:00:00Z");
	says("pin", "2026-12-01T12:34:56Z", "2026-12-01T12:34:56Z");
	says("pin", "@1", "1970-01-01T00:00:01Z");
	says("pin", "@300000000000", "@300000000000");
	says("pin", "@9223372036854775807", NULL);
	says("pin", "@", NULL);
	says("pin", "@1x", NULL);
	says("pin", "", NULL);
	says("pin", "2", NULL);
	says("pin", "1960-01-01", NULL);
	says("pin", "2026-13-01", NULL);
	says("pin", "2026-12-01 ", NULL);
	says("pin", "2028-02-29", "2028-02-29T00:00:00Z");
	says("pin", "2026-02-29", NULL);
	says("pin", "2026-04-31T12:00:00Z", NULL);
}

static void ttls(void **state)
{
	(void)state;
	says("ttl", "90s", "90s");
	says("ttl", "120s", "2m");
	says("ttl", "48h", "2d");
	says("ttl", "1h after use", "1h after use");
	says("ttl", "1h after publishing", "1h");
	says("ttl", "0", "");
	says("ttl", "0 after use", "");
	says("ttl", "none", "");
	says("ttl", "none at all", NULL);
	says("ttl", "90", NULL);
	says("ttl", "1500ms", NULL);
	says("ttl", "1h after", NULL);
	says("ttl", "1h  after use", NULL);
	says("ttl", "100000d", NULL);
	says("ttl", "", NULL);
}

static void priorities_and_quotas(void **state)
{
	(void)state;
	says("priority", "low", "low");
	says("priority", "high", "high");
	says("priority", "-1", "low");
	says("priority", "normal", "");
	says("priority", "highest", NULL);
	says("quota", "10G", "10G");
	says("quota", "10GiB", "10G");
	says("quota", "1536M", "1536M");
	says("quota", "0", "");
	says("quota", "none", "");
	says("quota", "50%", NULL); /* of what? */
	says("quota", "much", NULL);
}

static void what_is_none_of_these(void **state)
{
	struct keep k = { .quota = 1 };
	struct keep_text text;
	unsigned mask = 0;
	char long_text[200];

	(void)state;
	memset(long_text, '1', sizeof(long_text));
	assert_int_equal(keep_set(&k, "hits", bytes_str("1"), &mask), -ENOENT);
	assert_int_equal(keep_unset(&k, "hits", &mask), -ENOENT);
	assert_int_equal(keep_get(&k, "hits", &text), -ENOENT);
	assert_int_equal(keep_set(&k, "quota", BYTES_OF(long_text, sizeof(long_text)), &mask),
			 -EINVAL);
	assert_int_equal(keep_set(&k, "pin", BYTES_OF("1\0", 2), &mask), -EINVAL);
	assert_int_equal(keep_set(&k, "quota", BYTES_NONE, &mask), -EINVAL);
	assert_int_equal(keep_unset(&k, "pin", &mask), -ENODATA);
	assert_int_equal(keep_unset(&k, "quota", &mask), 0);
	assert_int_equal(mask, INDEX_SET_QUOTA);
	assert_int_equal(k.quota, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pins),
		cmocka_unit_test(ttls),
		cmocka_unit_test(priorities_and_quotas),
		cmocka_unit_test(what_is_none_of_these),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
