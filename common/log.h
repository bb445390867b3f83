/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Log lines: an area ("fs", "pool", ...), then a sentence with the numbers one
 * needs to act. They go to stderr until log_open() names another place. Each
 * call site is limited to LOG_BURST lines in ten seconds; what was held back is
 * counted in the site's next line. Callable from any thread, under any lock.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum { LOG_BURST = 20 };

struct log_site {
	_Atomic uint64_t window_s; /* start of the current ten seconds */
	atomic_uint lines;         /* printed in them */
	atomic_uint held_back;
};

/* Where lines go: NULL is stderr, "syslog", or a file that is appended to.
 * 0, or a negative errno (the old place stays). */
int log_open(const char *where);

/* The most talkative level that is printed; default LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

void log_print(struct log_site *site, enum log_level level, const char *area,
	       const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/*
 * For who would say again and again that something is wrong: is this another sentence
 * than the last one? It is remembered. NULL: nothing is wrong any more, and no news.
 * Zeros at first; its owner's threads.
 */
struct log_complaint {
	char text[256];
};
bool log_is_news(struct log_complaint *last, const char *text);

#define LOG_(level, area, ...)                                                 \
	do {                                                                   \
		static struct log_site log_site_;                              \
		log_print(&log_site_, level, area, __VA_ARGS__);               \
	} while (0)
#define log_error(area, ...) LOG_(LOG_LEVEL_ERROR, area, __VA_ARGS__)
#define log_warn(area, ...)  LOG_(LOG_LEVEL_WARN, area, __VA_ARGS__)
#define log_info(area, ...)  LOG_(LOG_LEVEL_INFO, area, __VA_ARGS__)
#define log_debug(area, ...) LOG_(LOG_LEVEL_DEBUG, area, __VA_ARGS__)
