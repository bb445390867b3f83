/* SPDX-License-Identifier: Apache-2.0 */
/* The lock is held over unlink() and rename(), so that the list is right whenever the
 * process ends, and is never given back by who ends it: nothing is made after that. */
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

enum { TICK_MS = 100, TRIES = 1000 };

struct temp {
	struct temp *next;
	char *name;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct temp *temps;
static uint64_t limit_ns; /* 0: none */
static const char *limit_sentence;
static const char *watched_cmd;

static void remove_all(void)
{
	pthread_mutex_lock(&lock);
	for (struct temp *t = temps; t; t = t->next)
		unlink(t->name);
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

static char *name_beside(const char *path)
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

int temps_open(const char *path, mode_t mode, char **ret_name)
{
	struct temp *t = malloc(sizeof(*t));
	int fd = -1;

	if (!t)
		return -ENOMEM;
	pthread_mutex_lock(&lock);
	for (int i = 0; fd < 0 && i < TRIES; i++) {
		t->name = name_beside(path);
		fd = t->name ? open(t->name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode) : -1;
		if (fd >= 0)
			break;
		int err = t->name ? errno : ENOMEM;
		free(t->name);
		if (err != EEXIST || i == TRIES - 1) {
			pthread_mutex_unlock(&lock);
			free(t);
			return -err;
		}
	}
	t->next = temps;
	temps = t;
	pthread_mutex_unlock(&lock);
	*ret_name = t->name;
	return fd;
}

/* Under the lock. */
static void forget(char *name)
{
	for (struct temp **at = &temps; *at; at = &(*at)->next)
		if ((*at)->name == name) {
			struct temp *t = *at;
			*at = t->next;
			free(t);
			break;
		}
	free(name);
}

int temps_keep(char *name, const char *path)
{
	pthread_mutex_lock(&lock);
	int r = rename(name, path) < 0 ? -errno : 0;
	if (r < 0)
		unlink(name);
	forget(name);
	pthread_mutex_unlock(&lock);
	return r;
}

void temps_drop(char *name)
{
	if (!name)
		return;
	pthread_mutex_lock(&lock);
	unlink(name);
	forget(name);
	pthread_mutex_unlock(&lock);
}

int temps_make(const char *path, int (*make)(const char *as, const void *arg), const void *arg)
{
	pthread_mutex_lock(&lock);
	char *name = name_beside(path);
	int r = !name ? -ENOMEM : make(name, arg) < 0 ? -errno : 0;
	if (!r) {
		r = rename(name, path) < 0 ? -errno : 0;
		unlink(name); /* which rename() leaves there if both are one file's */
	}
	pthread_mutex_unlock(&lock);
	free(name);
	return r;
}
