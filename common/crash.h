/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Named points at which a test can have the process killed, as by kill -9:
 *
 *     SLICEFS_CRASH=publish.sealed:3     dies when that point is passed the
 *                                        third time
 *
 * Compiled in only with -DSLICEFS_CRASH_POINTS (test builds); else nothing.
 * `slicefs help crash-points` of a test build lists the names: a point is
 * declared in common/crash.def, and crash_point() takes its identifier.
 */
enum crash_point {
#define CRASH_POINT(id, name, sentence) CRASH_##id,
#include "common/crash.def"
#undef CRASH_POINT
	CRASH_NPOINTS
};

#ifdef SLICEFS_CRASH_POINTS
void crash_point(enum crash_point p);
#else
static inline void crash_point(enum crash_point p)
{
	(void)p;
}
#endif

/* The name of point p, and what is true there; NULL past the last. */
const char *crash_point_name(unsigned p);
const char *crash_point_sentence(unsigned p);
