/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdlib.h>

/* Long walks are cut by this: so much slower is what a sanitizer watches. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#elif __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
enum { KIT_SLOW = 12 };
#elif defined(__SANITIZE_ADDRESS__)
enum { KIT_SLOW = 4 };
#else
enum { KIT_SLOW = 1 };
#endif

/* What is cut more with tests/run as it is, and not with --full. */
static inline unsigned kit_cut(unsigned by, unsigned by_full)
{
	return getenv("SLICEFS_FULL") ? by_full : by;
}
