/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is formatted on the stack, made safe to print (names of files may
 * hold any byte) and written by one write(2). The lock guards the destination
 * only, so that log_open() does not close it under a writer; its rank is the
 * highest, so that anybody may log.
 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/metrics.h"

enum { LINE_BYTES = 2048, WINDOW_S = 10 };

static struct lock log_lock = LOCK_INIT(LOCK_LOG);
static enum { TO_STDERR, TO_SYSLOG, TO_FILE } dest;
static int log_fd = -1; /* TO_FILE */

static _Atomic enum log_level max_level = LOG_LEVEL_INFO;

static const char *const level_names[] = { "error", "warning", "info", "debug" };

int log_open(const char *where)
{
	_cleanup_(closep) int fd = -1;
	bool to_syslog = where && !strcmp(where, "syslog");

	if (where && !to_syslog) {
		fd = open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
		if (fd < 0)
			return -errno;
	}
	if (to_syslog)
		openlog("slicefs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	WITH_LOCK(&log_lock);
	int old = log_fd;
	log_fd = fd;
	fd = old; /* closed here */
	dest = to_syslog ? TO_SYSLOG : where ? TO_FILE : TO_STDERR;
	return 0;
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, level, memory_order_relaxed);
}

/*
 * True if the site may print now; *ret_held is how many it could not before.
 * Two threads that open a window at once may print a few lines more: harmless,
 * and the reason why relaxed order is enough.
 */
static bool site_may_print(struct log_site *site, unsigned *ret_held)
{
	uint64_t now = clock_ns() / NS_PER_S + 1; /* never the initial 0 */
	uint64_t start = atomic_load_explicit(&site->window_s, memory_order_relaxed);

	*ret_held = 0;
	if ((!start || now - start >= WINDOW_S) &&
	    atomic_compare_exchange_strong(&site->window_s, &start, now)) {
		atomic_store_explicit(&site->lines, 0, memory_order_relaxed);
		*ret_held = atomic_exchange(&site->held_back, 0);
	}
	if (atomic_fetch_add_explicit(&site->lines, 1, memory_order_relaxed) < LOG_BURST)
		return true;
	atomic_fetch_add_explicit(&site->held_back, 1, memory_order_relaxed);
	return false;
}

static void write_line(int fd, enum log_level level, const char *area, const char *text)
{
	char line[LINE_BYTES + 128];
	int n = 0;

	if (fd < 0) {
		fd = STDERR_FILENO;
		n = snprintf(line, sizeof(line), "slicefs: ");
	} else {
		struct timespec t;
		struct tm tm;

		clock_gettime(CLOCK_REALTIME, &t);
		gmtime_r(&t.tv_sec, &tm);
		n = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
		n += snprintf(line + n, sizeof(line) - (size_t)n, ".%03ldZ ", t.tv_nsec / 1000000);
	}
	n += snprintf(line + n, sizeof(line) - (size_t)n, "%s: %s: %s\n", level_names[level],
		      area, text);
	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	/* Where should one report that the log cannot be written? */
	(void)!write(fd, line, (size_t)n);
}

static void emit(enum log_level level, const char *area, const char *text)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	WITH_LOCK(&log_lock);
	if (dest == TO_SYSLOG)
		syslog(priorities[level], "%s: %s", area, text);
	else
		write_line(log_fd, level, area, text);
}

void log_print(struct log_site *site, enum log_level level, const char *area,
	       const char *fmt, ...)
{
	char raw[LINE_BYTES - 64], text[LINE_BYTES];
	unsigned held;
	int saved = errno;
	va_list ap;

	if (level == LOG_LEVEL_ERROR)
		metric_add(M_LOG_ERRORS, 1);
	if (level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	if (site_may_print(site, &held)) {
		errno = saved; /* for %m */
		va_start(ap, fmt);
		vsnprintf(raw, sizeof(raw), fmt, ap);
		va_end(ap);
		error_quote(text, sizeof(text) - 64, raw);
		if (held)
			snprintf(text + strlen(text), 64, " (and %u such lines held back)", held);
		emit(level, area, text);
	}
	errno = saved;
}

bool log_is_news(struct log_complaint *last, const char *text)
{
	bool news = text && strncmp(last->text, text, sizeof(last->text) - 1);

	snprintf(last->text, sizeof(last->text), "%s", text ? text : "");
	return news;
}
