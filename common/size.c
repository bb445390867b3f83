/* SPDX-License-Identifier: Apache-2.0 */
#include "common/size.h"

#include <stdbool.h>
#include <stdio.h>

/* In the largest unit that is full, and its number. */
static double in_unit(uint64_t bytes, unsigned *ret_unit)
{
	double v = (double)bytes;

	for (*ret_unit = 0; v >= 1024; ++*ret_unit)
		v /= 1024;
	return v;
}

static struct size_text text_of(double v, unsigned unit, bool tenths)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	struct size_text t;

	snprintf(t.s, sizeof(t.s), tenths ? "%.1f %s" : "%.0f %s", v, units[unit]);
	return t;
}

struct size_text size_text(uint64_t bytes)
{
	unsigned unit;
	double v = in_unit(bytes, &unit);

	return text_of(v, unit, v < 100 && v != (double)(uint64_t)v);
}

struct size_text size_column(uint64_t bytes)
{
	unsigned unit;
	double v = in_unit(bytes, &unit);

	return text_of(v, unit, v < 100 && unit);
}
