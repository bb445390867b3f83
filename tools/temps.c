/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name is in the list before it is made, and until it is gone. Nothing is made under the lock,
 * for calls into a mount may take long: so who ends the process waits for those that are
 * making something, and for what is removed then, but not for longer than END_MS. Whoever wants
 * to make something after that waits for the end.
 */
#include "tools/temps.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tools/cmd.h"

enum { TICK_MS = 100, END_MS = 2000, TRIES = 1000 };

struct temp {
	struct temp *next;
	char *name;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct temp *temps;
static unsigned making;
static bool ending, removed;
static uint64_t limit_ns; /* 0: none */
static const char *limit_sentence;
static const char *watched_cmd;

/* Nobody changes the list any more. */
static void *remove_temps(void *arg)
{
	for (struct temp *t = temps; t; t = t->next)
		unlink(t->name);
	pthread_mutex_lock(&lock);
	removed = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return arg;
}

static void remove_all(void)
{
	struct timespec until;
	pthread_t thread;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_MS / 1000;
	pthread_mutex_lock(&lock);
	if (ending) { /* somebody else does it */
		pthread_mutex_unlock(&lock);
		for (;;)
			pause();
	}
	ending = true;
	while (making && !pthread_cond_timedwait(&changed, &lock, &until))
		;
	until.tv_sec += END_MS / 1000;
	bool removes = temps && !pthread_create(&thread, NULL, remove_temps, NULL);
	while (removes && !removed && !pthread_cond_timedwait(&changed, &lock, &until))
		;
	pthread_mutex_unlock(&lock);
}

void temps_exit(int status)
{
	remove_all();
	fflush(stdout);
	_exit(status);
}

/* As if nobody had waited for it. */
static void end_by(int sig)
{
	sigset_t set;

	remove_all();
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	_exit(128 + sig);
}

static bool is_late(void)
{
	pthread_mutex_lock(&lock);
	bool late = limit_ns && clock_ns() > limit_ns;
	pthread_mutex_unlock(&lock);
	return late;
}

static void *watch(void *arg)
{
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };

	for (;;) {
		int sig = sigtimedwait(arg, NULL, &tick);
		if (sig > 0)
			end_by(sig);
		if (is_late())
			temps_exit(cmd_fail(EXIT_FAILED, watched_cmd, "%s", limit_sentence));
	}
}

int temps_watch(const char *cmd)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	static sigset_t set;
	struct sigaction was;
	pthread_t thread;

	watched_cmd = cmd;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &was) && was.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]); /* nohup's, and a shell's "&" */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	int r = pthread_create(&thread, NULL, watch, &set);
	if (r)
		return -r;
	pthread_setname_np(thread, "watch");
	pthread_detach(thread);
	return 0;
}

void temps_limit(uint64_t ms, const char *sentence)
{
	pthread_mutex_lock(&lock);
	limit_ns = ms ? clock_ns() + ms * NS_PER_MS : 0;
	limit_sentence = sentence;
	pthread_mutex_unlock(&lock);
}

/* ---- Files ------------------------------------------------------------------ */

char *temps_name(const char *path)
{
	static atomic_uint counter;
	const char *base = strrchr(path, '/');
	char *name;

	base = base ? base + 1 : path;
	/* As much of the name as leaves room for the rest of it. In a mount a "*.tmp" that is left
	 * over, since this was killed, goes by itself. */
	if (asprintf(&name, "%.*s.%.200s.%d-%u.tmp", (int)(base - path), path, base, (int)getpid(),
		     atomic_fetch_add(&counter, 1)) < 0)
		return NULL;
	return name;
}

/* Takes the lock; not if the process is about to end. */
static void enter(void)
{
	pthread_mutex_lock(&lock);
	while (ending)
		pthread_cond_wait(&changed, &lock);
}

/* Of a name beside path, which is about to be made. NULL: no memory. */
static struct temp *begin(const char *path)
{
	struct temp *t = malloc(sizeof(*t));

	if (t)
		t->name = temps_name(path);
	if (!t || !t->name) {
		free(t);
		return NULL;
	}
	enter();
	t->next = temps;
	temps = t;
	making++;
	pthread_mutex_unlock(&lock);
	return t;
}

/* It has been made, or not. */
static void made(void)
{
	pthread_mutex_lock(&lock);
	if (!--making)
		pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void forget(char *name)
{
	struct temp *t = NULL;

	enter();
	for (struct temp **at = &temps; *at; at = &(*at)->next)
		if ((*at)->name == name) {
			t = *at;
			*at = t->next;
			break;
		}
	pthread_mutex_unlock(&lock);
	free(t);
	free(name);
}

int temps_open(const char *path, mode_t mode, char **ret_name)
{
	int err = EEXIST;

	for (int i = 0; i < TRIES && err == EEXIST; i++) {
		struct temp *t = begin(path);
		if (!t)
			return -ENOMEM;
		int fd = open(t->name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
		err = errno;
		made();
		if (fd >= 0) {
			*ret_name = t->name;
			return fd;
		}
		forget(t->name);
	}
	return -err;
}

int temps_keep(char *name, const char *path)
{
	int r = rename(name, path) < 0 ? -errno : 0;

	if (r < 0)
		unlink(name);
	forget(name);
	return r;
}

void temps_drop(char *name)
{
	if (!name)
		return;
	unlink(name);
	forget(name);
}

int temps_make(const char *path, int (*make)(const char *as, const void *arg), const void *arg)
{
	int r = make(path, arg) < 0 ? -errno : 0;
	struct temp *t = r == -EEXIST ? begin(path) : NULL;

	if (!t)
		return r == -EEXIST ? -ENOMEM : r;
	r = make(t->name, arg) < 0 ? -errno : 0;
	made();
	if (!r) {
		r = rename(t->name, path) < 0 ? -errno : 0;
		unlink(t->name); /* which rename() leaves there if both are one file's */
	}
	forget(t->name);
	return r;
}
