/* SPDX-License-Identifier: Apache-2.0 */
/* The small parts of common/: sentences, metrics, log lines, crash points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/crash.h"
#include "common/crew.h"
#include "common/detached.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/size.h"

static void test_why(void **state)
{
	char *s = NULL;
	(void)state;

	assert_int_equal(why(NULL, -EBUSY, "%s", "nobody asks"), -EBUSY);
	assert_int_equal(why(&s, -EBUSY, "%s is busy", "/a"), -EBUSY);
	assert_int_equal(why(&s, -EIO, "open: %s", s), -EIO);
	assert_string_equal(s, "open: /a is busy");
	free(s);
	assert_string_equal(error_name(-ENOSPC), "ENOSPC");
	assert_string_equal(error_name(4711), "E4711");
	assert_string_equal(error_text(-ENOENT), "No such file or directory");
	assert_string_equal(error_text(INT32_MIN), "Error 2147483648");
}

static void test_quote(void **state)
{
	char to[12], big[64];
	(void)state;

	error_quote(big, sizeof(big), "a\n\x7f\xc3\xa4");
	assert_string_equal(big, "a\\x0a\\x7f\xc3\xa4");
	error_quote(big, sizeof(big), "\xc2\x9b" "31m\xc2\xa0\xe2\x82\xac\xc2");
	assert_string_equal(big, "\\xc2\\x9b31m\xc2\xa0\xe2\x82\xac\xc2");
	error_quote(to, sizeof(to), "12345678901234");
	assert_string_equal(to, "12345678...");
	error_quote(to, sizeof(to), "1\n\n\n");
	assert_string_equal(to, "1\\x0a...");
	for (size_t cap = 8; cap < sizeof(big); cap++) { /* under asan */
		char *exact = malloc(cap);
		error_quote(exact, cap, "some\ntext\twith\x01" "all\x7fsorts of bytes in it");
		assert_true(strlen(exact) < cap);
		free(exact);
	}
}

static char *metrics_text(void)
{
	struct writer w = { 0 };

	metrics_print(&w);
	write_u8(&w, 0);
	assert_false(w.bad);
	return (char *)w.p;
}

static void has_line(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no line \"%s\" in\n%s", line, text);
}

static void test_metrics_text(void **state)
{
	(void)state;
	metric_op_done(MOP_READ, 0, 0);
	metric_op_done(MOP_READ, 1000, 0);
	metric_op_done(MOP_READ, 1001, ENOENT);
	metric_op_done(MOP_READ, 2000000, -ENOENT);
	metric_op_done(MOP_READ, UINT64_MAX / 1024, 133);
	metric_op_done(MOP_READ, 1, 100000);
	metric_set(M_INODES, 7);
	metric_add(M_READ_BYTES, 1LL << 40);
	_cleanup_(freep) char *s = metrics_text();
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"0.000001\"} 3\n");
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"0.000002\"} 4\n");
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"0.001024\"} 4\n");
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"0.002048\"} 5\n");
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"16.777216\"} 5\n");
	has_line(s, "\nslicefs_op_duration_seconds_bucket{op=\"read\",le=\"+Inf\"} 6\n");
	has_line(s, "\nslicefs_op_duration_seconds_count{op=\"read\"} 6\n");
	has_line(s, "\nslicefs_op_errors_total{op=\"read\",errno=\"ENOENT\"} 2\n");
	has_line(s, "\nslicefs_op_errors_total{op=\"read\",errno=\"EHWPOISON\"} 1\n");
	has_line(s, "\nslicefs_op_errors_total{op=\"read\",errno=\"other\"} 1\n");
	has_line(s, "\nslicefs_inodes 7\n");
	has_line(s, "\nslicefs_read_bytes_total 1099511627776\n");
	assert_null(strstr(s, "op=\"write\""));
	metric_set(M_INODES, 0);
}

/* One HELP, with a sentence, and one TYPE a family, in front of its lines. */
static void test_metric_families(void **state)
{
	_cleanup_(freep) char *s = metrics_text();
	char *rest = s, family[128] = "", seen[160];
	(void)state;

	for (char *line; (line = strsep(&rest, "\n")) && *line;) {
		if (!strncmp(line, "# HELP ", 7)) {
			assert_int_equal(sscanf(line + 7, "%127s", family), 1);
			assert_true(strlen(line) > 7 + strlen(family) + 8);
			snprintf(seen, sizeof(seen), "# HELP %s ", family);
			assert_null(rest ? strstr(rest, seen) : NULL);
		} else if (strncmp(line, "# TYPE ", 7) != 0) {
			assert_int_equal(strncmp(line, family, strlen(family)), 0);
			assert_true(strchr("{ _", line[strlen(family)]));
		}
	}
}

static void test_busy(void **state)
{
	int64_t v = 0;
	(void)state;

	assert_null(metrics_busy(&v));
	metric_add(M_DRAFTS, -1);
	assert_string_equal(metrics_busy(&v), "drafts");
	assert_int_equal(v, -1);
	metric_add(M_DRAFTS, 1);
	metric_add(M_SLICES_LIVE, 5);
	assert_null(metrics_busy(NULL));
	metric_set(M_SLICES_LIVE, 0);
}

static char *read_all(const char *path)
{
	_cleanup_(fclosep) FILE *f = fopen(path, "r");
	char *s = calloc(1, 1 << 20);

	assert_non_null(f);
	assert_non_null(s);
	assert_true(fread(s, 1, (1 << 20) - 1, f) > 0);
	return s;
}

static void test_news_are_said_once(void **state)
{
	struct log_complaint last = { "" };
	char a[300], b[300];

	(void)state;
	assert_false(log_is_news(&last, NULL));
	assert_true(log_is_news(&last, "one"));
	assert_false(log_is_news(&last, "one"));
	assert_true(log_is_news(&last, "another"));
	assert_false(log_is_news(&last, NULL));
	assert_true(log_is_news(&last, "another"));
	memset(a, 'x', sizeof(a)); /* longer than what is remembered */
	memset(b, 'x', sizeof(b));
	a[290] = 'y';
	a[299] = b[299] = 0;
	assert_true(log_is_news(&last, a));
	assert_false(log_is_news(&last, b));
}

static void test_log(void **state)
{
	char path[] = "/tmp/test_log.XXXXXX";
	_cleanup_(closep) int fd = mkstemp(path);
	int64_t errors = metric_get(M_LOG_ERRORS);
	(void)state;

	assert_true(fd >= 0);
	assert_int_equal(log_open("/nowhere/at/all"), -ENOENT);
	assert_int_equal(log_open(path), 0);
	log_debug("test", "not heard");
	errno = EXDEV;
	log_error("test", "name %s: %m", "a\nb");
	assert_int_equal(errno, EXDEV);
	for (int i = 0; i < LOG_BURST + 100; i++)
		log_info("test", "line %d", i);
	assert_int_equal(log_open(NULL), 0);
	unlink(path); /* fd keeps it */
	char proc[64];
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	_cleanup_(freep) char *s = read_all(proc);
	has_line(s, "Z error: test: name a\\x0ab: Invalid cross-device link\n");
	has_line(s, "Z info: test: line 19\n");
	assert_null(strstr(s, "not heard"));
	assert_null(strstr(s, "line 20\n"));
	assert_int_equal(metric_get(M_LOG_ERRORS), errors + 1);
}

/* The wait status of a child in which `passes` points were passed. */
static int crash_status(const char *env, int passes)
{
	pid_t pid = fork();

	if (!pid) {
		if (env)
			setenv("SLICEFS_CRASH", env, 1);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		for (int i = 0; i < passes; i++) {
			crash_point(CRASH_WRITE_ALLOCATED);
			crash_point(CRASH_WRITE_DONE);
		}
		_exit(0);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	return status;
}

static void test_crash_points(void **state)
{
	(void)state;
	for (unsigned p = 0; p < CRASH_NPOINTS; p++) {
		assert_non_null(crash_point_name(p));
		assert_true(strlen(crash_point_sentence(p)) > 10);
	}
	assert_null(crash_point_name(CRASH_NPOINTS));
	unsetenv("SLICEFS_CRASH");
	assert_int_equal(crash_status(NULL, 9), 0);
#ifdef SLICEFS_CRASH_POINTS
	assert_int_equal(crash_status("write.done", 1), SIGKILL);
	assert_int_equal(crash_status("write.done:3", 3), SIGKILL);
	assert_int_equal(crash_status("write.done:3", 2), 0);
	assert_int_equal(crash_status("publish.begin", 9), 0);
	assert_int_equal(crash_status("write.don", 1), 2 << 8);
	assert_int_equal(crash_status("write.done:", 1), 2 << 8);
	assert_int_equal(crash_status("write.done:0", 1), 2 << 8);
	assert_int_equal(crash_status("write.done:1x", 1), 2 << 8);
#endif
}

static void test_sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text, *column;
	} sizes[] = {
		{ 0, "0 B", "0 B" },
		{ 1023, "1023 B", "1023 B" },
		{ 4096, "4 KiB", "4.0 KiB" },
		{ 3 << 19, "1.5 MiB", "1.5 MiB" },
		{ 64 << 20, "64 MiB", "64.0 MiB" },
		{ (512ULL << 20) + 1, "512 MiB", "512 MiB" },
		{ UINT64_MAX, "16 EiB", "16.0 EiB" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		assert_string_equal(size_text(sizes[i].bytes).s, sizes[i].text);
		assert_string_equal(size_column(sizes[i].bytes).s, sizes[i].column);
	}
}

struct gang {
	atomic_uint done; /* a bit each */
	unsigned fails_from;
};

static int lift(void *arg, unsigned i)
{
	struct gang *g = arg;

	assert_false(atomic_fetch_or(&g->done, 1u << i) & 1u << i);
	return i >= g->fails_from ? -(int)i : 0;
}

/* All of it is done, once, whoever fails; the first failure is told. */
static void test_crew(void **state)
{
	unsigned size = crew_size();
	(void)state;

	assert_true(size >= 1 && size <= CREW_MAX);
	for (unsigned n = 1; n <= CREW_MAX; n++) {
		struct gang g = { .fails_from = CREW_MAX }, bad = { .fails_from = 3 };
		assert_int_equal(crew_run(n, lift, &g), 0);
		assert_int_equal(g.done, (1u << n) - 1);
		assert_int_equal(crew_run(n, lift, &bad), n > 3 ? -3 : 0);
		assert_int_equal(bad.done, (1u << n) - 1);
	}
}

struct slow_work {
	struct detached detached;
	sem_t *goes_on, *over;
	int found;
};

static void work_slowly(struct detached *d)
{
	struct slow_work *w = (struct slow_work *)d;

	while (sem_wait(w->goes_on) && errno == EINTR)
		;
	w->found = 7;
	sem_post(w->over); /* it may be waited for no more */
}

/* Who waits gives up, or reads what was found; whichever of the two is last frees it. */
static void test_detached(void **state)
{
	sem_t goes_on, over;
	(void)state;

	sem_init(&goes_on, 0, 0);
	sem_init(&over, 0, 0);
	for (int late = 0; late < 2; late++) {
		struct slow_work *w = calloc(1, sizeof(*w));
		assert_non_null(w);
		w->goes_on = &goes_on;
		w->over = &over;
		assert_int_equal(detached_start(&w->detached, "slow-work", work_slowly), 0);
		assert_false(detached_wait(&w->detached, 10));
		if (!late) {
			sem_post(&goes_on);
			assert_true(detached_wait(&w->detached, 60000));
			assert_int_equal(w->found, 7);
			assert_true(detached_wait(&w->detached, 0));
		}
		detached_unref(&w->detached);
		if (late)
			sem_post(&goes_on);
		while (sem_wait(&over) && errno == EINTR)
			;
	}
	sem_destroy(&goes_on);
	sem_destroy(&over);
}

static void test_array_room(void **state)
{
	uint64_t *v = NULL;
	uint16_t cap = 0;

	(void)state;
	assert_int_equal(array_room(v, cap, 0, 4), 0);
	assert_null(v);
	assert_int_equal(array_room(v, cap, 1, 4), 0);
	assert_int_equal(cap, 4);
	v[3] = 7;
	assert_int_equal(array_room(v, cap, 4, 4), 0);
	assert_int_equal(cap, 4);
	assert_int_equal(array_room(v, cap, 5, 4), 0);
	assert_int_equal(cap, 8);
	assert_int_equal(array_room(v, cap, 100, 4), 0);
	assert_int_equal(cap, 100);
	assert_int_equal(v[3], 7);
	free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_why),	      cmocka_unit_test(test_quote),
		cmocka_unit_test(test_metrics_text),  cmocka_unit_test(test_metric_families),
		cmocka_unit_test(test_busy),	      cmocka_unit_test(test_log),
		cmocka_unit_test(test_news_are_said_once),
		cmocka_unit_test(test_crash_points),  cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_array_room),    cmocka_unit_test(test_crew),
		cmocka_unit_test(test_detached),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	return failed || metrics_busy(NULL);
}
