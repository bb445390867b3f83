/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What LMDB guarantees and ThreadSanitizer, which does not see into the
 * library, has to be told: a page that a writer gets is no longer seen by any
 * reader (readers_end), and what a reader sees was written before it was
 * committed (writer_ends). Nothing in other builds.
 */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define LMDB_TSAN
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(LMDB_TSAN)
#include <sanitizer/tsan_interface.h>

static inline void tsan_after(void *what) { __tsan_acquire(what); }
static inline void tsan_before(void *what) { __tsan_release(what); }

/* The library's own memcpy()s into pages are seen, its order is not. A test that knows
 * of more has one of its own (tests/unit/tsan_kit.h). */
const char *__tsan_default_suppressions(void) __attribute__((weak));
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:liblmdb.so\n";
}
#else
static inline void tsan_after(void *what) { (void)what; }
static inline void tsan_before(void *what) { (void)what; }
#endif
