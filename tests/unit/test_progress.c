/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h: what is shown, on a terminal and elsewhere. Each in a process of its own, which has
 * copied half of a file, found a hole, and has half of the other file before it. */
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tools/cmd.h"
#include "tools/progress.h"

enum { MIB = 1 << 20, LONG_ENOUGH_MS = 2500 };

void (*cmd_before_line)(void);

int cmd_fail(int status, const char *cmd, const char *fmt, ...)
{
	(void)cmd;
	(void)fmt;
	return status;
}

static void copy_half(enum progress_how how)
{
	struct progress p = { .total_files = 3, .total_bytes = 100 * MIB, .is_total = true,
			      .skipped = 1, .skipped_bytes = 10 * MIB };

	progress_begin(&p, how);
	progress_ended(&p, 30 * MIB); /* nothing of it had to be moved */
	atomic_fetch_add(&p.files, 1);
	for (unsigned ms = 0; ms < LONG_ENOUGH_MS; ms += 100) {
		if (ms < 1000)
			progress_moved(&p, 2 * MIB);
		usleep(100 * 1000);
	}
	progress_end();
}

/* All that comes from fd. */
static void read_all(int fd, char *ret, size_t cap)
{
	size_t len = 0;

	for (ssize_t n; (n = read(fd, ret + len, cap - 1 - len)) > 0;)
		len += (size_t)n;
	ret[len] = '\0';
	close(fd);
}

static void on_terminal(unsigned short width, char *ret, size_t cap)
{
	struct winsize size = { .ws_row = 24, .ws_col = width };
	int fd, status;
	pid_t pid = forkpty(&fd, NULL, NULL, &size);

	if (!pid) {
		copy_half(PROGRESS_BAR);
		_exit(0);
	}
	assert_true(pid > 0);
	read_all(fd, ret, cap);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_bar_with_rate_and_time_left(void **state)
{
	char shown[16384];
	unsigned minutes, seconds;

	(void)state;
	on_terminal(80, shown, sizeof(shown));
	char *last = strstr(shown, "[######    ]  60%  2 of 3 files  ");
	assert_non_null(last);
	assert_non_null(strstr(last, "60.0 MiB of 100 MiB"));
	assert_non_null(strstr(last, "iB/s  ETA "));
	assert_int_equal(sscanf(strstr(last, "ETA "), "ETA %u:%2u", &minutes, &seconds), 2);
	/* It is cleared at the end. */
	assert_string_equal(shown + strlen(shown) - 4, "\r\033[K");
}

static void no_wider_than_the_terminal(void **state)
{
	char shown[16384], *save;
	unsigned n = 0;

	(void)state;
	on_terminal(30, shown, sizeof(shown));
	for (char *line = strtok_r(shown, "\r", &save); line; line = strtok_r(NULL, "\r", &save)) {
		assert_true(strlen(line) < strlen("\033[K") + 30);
		n += strlen(line) > strlen("\033[K");
	}
	assert_true(n > 0);
}

static void elsewhere_a_line_each_second(void **state)
{
	char shown[16384], *end;
	int fd[2], status;
	double rate, left;
	json_int_t moved, total;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	if (!pid) {
		dup2(fd[1], STDOUT_FILENO);
		close(fd[0]);
		copy_half(PROGRESS_LINES);
		_exit(0);
	}
	assert_true(pid > 0);
	close(fd[1]);
	read_all(fd[0], shown, sizeof(shown));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	end = strchr(shown, '\n');
	assert_non_null(end);
	json_t *o = json_loadb(shown, (size_t)(end - shown), 0, NULL);
	assert_int_equal(json_unpack(o, "{s:I,s:I,s:F,s:F}", "moved", &moved, "total_bytes", &total,
				     "bytes_per_s", &rate, "eta_s", &left), 0);
	assert_string_equal(json_string_value(json_object_get(o, "event")), "progress");
	assert_true(moved > 0 && moved <= 20 * MIB && moved % (2 * MIB) == 0);
	assert_int_equal(total, 100 * MIB);
	assert_true(rate > 0 && left > 0);
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bar_with_rate_and_time_left),
		cmocka_unit_test(no_wider_than_the_terminal),
		cmocka_unit_test(elsewhere_a_line_each_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
