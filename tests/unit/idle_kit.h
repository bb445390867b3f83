/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* P10: what is under way ends, and then all gauges of such things are at zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "common/metrics.h"

/* All that is under way has ended, or something is left, which it says. */
static inline bool kit_is_idle(void)
{
	int64_t v = 0;
	const char *busy;

	for (unsigned i = 0; metrics_busy(&v) && i < 5000; i++)
		usleep(1000);
	busy = metrics_busy(&v);
	if (busy)
		print_message("%s is %lld\n", busy, (long long)v);
	return !busy;
}

static inline void assert_idle(void)
{
	assert_true(kit_is_idle());
}
