/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What an x_check() has found. Threads: its own. */
#include "common/bytes.h"

struct violations {
	struct writer *report; /* a line of each; or NULL */
	int n;
};

static inline __attribute__((format(printf, 2, 3))) void violation(struct violations *v,
								   const char *fmt, ...)
{
	va_list ap;

	v->n++;
	if (!v->report)
		return;
	va_start(ap, fmt);
	write_vformat(v->report, fmt, ap);
	va_end(ap);
	write_u8(v->report, '\n');
}
