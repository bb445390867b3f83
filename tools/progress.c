/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/size.h"
#include "tools/cmd.h"

enum {
	BAR_MS = 200,
	LINE_MS = 1000,
	BAR_WIDTH = 10, /* so that the rest has room in 80 columns */
	RATE_S = 3, /* what was moved before that counts for less and less */
};

static struct progress *shown;
static enum progress_how how_shown;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool ending; /* under the lock */

static _Thread_local uint64_t moved_here; /* of the file that this thread copies */

void progress_moved(struct progress *p, uint64_t bytes)
{
	atomic_fetch_add(&p->moved, bytes);
	moved_here += bytes;
}

void progress_ended(struct progress *p, uint64_t bytes)
{
	if (bytes > moved_here)
		atomic_fetch_add(&p->passed, bytes - moved_here);
	moved_here = 0;
}

struct rate {
	uint64_t ns, moved;
	double per_s; /* bytes */
};

static void rate_next(struct rate *r, uint64_t moved)
{
	uint64_t now = clock_ns();
	double s = (double)(now - r->ns) / NS_PER_S;
	double per_s = s > 0 ? (double)(moved - r->moved) / s : 0;
	double weight = r->per_s > 0 ? s / (s + RATE_S) : 1;

	r->per_s += (per_s - r->per_s) * weight;
	r->ns = now;
	r->moved = moved;
}

/* Of total_bytes. */
static uint64_t done_bytes(const struct progress *p)
{
	return atomic_load(&p->moved) + atomic_load(&p->passed) + atomic_load(&p->skipped_bytes);
}

/* Seconds; negative: nobody knows. */
static double left_s(const struct progress *p, const struct rate *r)
{
	uint64_t done = done_bytes(p);
	uint64_t total = atomic_load(&p->total_bytes);

	if (!atomic_load(&p->is_total) || r->per_s < 1)
		return -1;
	return done < total ? (double)(total - done) / r->per_s : 0;
}

/* ---- On a terminal ------------------------------------------------------------- */

/* Under the lock of stderr. */
static void clear_bar(void)
{
	fputs("\r\033[K", stderr);
}

static unsigned columns(void)
{
	struct winsize w;

	return !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col ? w.ws_col : 80;
}

void progress_show(const char *line)
{
	flockfile(stderr);
	clear_bar();
	fprintf(stderr, "%.*s", (int)columns() - 1, line);
	fflush(stderr);
	funlockfile(stderr);
}

/* "[#         ]  12%", of bytes; nothing while the total is not known. */
static void put_bar(char *to, size_t cap, const struct progress *p)
{
	uint64_t done = done_bytes(p);
	uint64_t total = atomic_load(&p->total_bytes);
	double part = total && done < total ? (double)done / (double)total : 1;
	int n = (int)(part * BAR_WIDTH);

	*to = '\0';
	if (atomic_load(&p->is_total))
		snprintf(to, cap, "[%.*s%*s] %3d%%  ", n, "##########", BAR_WIDTH - n, "",
			 (int)(part * 100));
}

static void show_bar(const struct progress *p, const struct rate *r)
{
	char bar[64], eta[32] = "", line[256];
	double s = left_s(p, r);
	uint64_t files = atomic_load(&p->files) + atomic_load(&p->skipped);

	put_bar(bar, sizeof(bar), p);
	if (s >= 0)
		snprintf(eta, sizeof(eta), "  ETA %d:%02d", (int)(s / 60), (int)s % 60);
	snprintf(line, sizeof(line), "%s%llu of %llu files  %s of %s  %s/s%s", bar,
		 (unsigned long long)files, (unsigned long long)atomic_load(&p->total_files),
		 size_column(done_bytes(p)).s,
		 size_column(atomic_load(&p->total_bytes)).s, size_column((uint64_t)r->per_s).s, eta);
	progress_show(line);
}

/* ---- As lines ------------------------------------------------------------------ */

void progress_event(const char *event, json_t *more)
{
	static bool is_lost; /* under the lock of stdout */
	json_t *o = json_pack("{s:s}", "event", event);

	if (o && more)
		json_object_update(o, more);
	json_decref(more);
	if (o) {
		flockfile(stdout);
		json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
		if (fflush(stdout) && !is_lost) {
			is_lost = true;
			cmd_fail(EXIT_FAILED, NULL, "standard output: %s. It goes on without",
				 error_text(errno));
		}
		funlockfile(stdout);
	}
	json_decref(o);
}

json_t *progress_numbers(const struct progress *p)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I}",
			 "files", (json_int_t)atomic_load(&p->files),
			 "bytes", (json_int_t)atomic_load(&p->bytes),
			 "skipped", (json_int_t)atomic_load(&p->skipped),
			 "skipped_bytes", (json_int_t)atomic_load(&p->skipped_bytes),
			 "failed", (json_int_t)atomic_load(&p->failed));
}

static void show_line(const struct progress *p, const struct rate *r)
{
	bool all = atomic_load(&p->is_total);
	double s = left_s(p, r);
	json_t *o = progress_numbers(p);

	if (!o)
		return;
	json_object_set_new(o, "moved", json_integer((json_int_t)atomic_load(&p->moved)));
	json_object_set_new(o, "total_files", !all ? json_null() :
			    json_integer((json_int_t)atomic_load(&p->total_files)));
	json_object_set_new(o, "total_bytes", !all ? json_null() :
			    json_integer((json_int_t)atomic_load(&p->total_bytes)));
	json_object_set_new(o, "bytes_per_s", json_integer((json_int_t)r->per_s));
	json_object_set_new(o, "eta_s", s < 0 ? json_null() : json_integer((json_int_t)s));
	progress_event("progress", o);
}

/* ---- The thread ------------------------------------------------------------------ */

/* False: it is the end. */
static bool pause_ms(unsigned ms)
{
	const struct timespec until = clock_timespec(clock_ns() + ms * NS_PER_MS);
	int r = 0;

	pthread_mutex_lock(&lock);
	while (!ending && !r)
		r = pthread_cond_timedwait(&changed, &lock, &until);
	bool goes_on = !ending;
	pthread_mutex_unlock(&lock);
	return goes_on;
}

static void *run(void *arg)
{
	struct rate r = { .ns = clock_ns() };

	(void)arg;
	while (pause_ms(how_shown == PROGRESS_BAR ? BAR_MS : LINE_MS)) {
		rate_next(&r, atomic_load(&shown->moved));
		if (how_shown == PROGRESS_BAR)
			show_bar(shown, &r);
		else
			show_line(shown, &r);
	}
	return NULL;
}

void progress_begin(struct progress *p, enum progress_how how)
{
	pthread_condattr_t a;

	if (how == PROGRESS_NONE)
		return;
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &a);
	pthread_condattr_destroy(&a);
	shown = p;
	how_shown = how;
	if (pthread_create(&thread, NULL, run, NULL)) {
		shown = NULL;
		return;
	}
	pthread_setname_np(thread, "progress");
	if (how == PROGRESS_BAR)
		cmd_before_line = clear_bar;
}

void progress_end(void)
{
	if (!shown)
		return;
	pthread_mutex_lock(&lock);
	ending = true;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	if (how_shown == PROGRESS_BAR) {
		clear_bar();
		fflush(stderr);
	}
	cmd_before_line = NULL;
	shown = NULL;
}
