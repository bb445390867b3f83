/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dies where a test says. SLICEFS_CRASH is read once, when the first point is
 * passed; one that names no point ends the process there, loudly, for a test
 * that misspells a point would otherwise pass without having tested anything.
 */
#include "common/crash.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name, *sentence;
} points[CRASH_NPOINTS] = {
#define CRASH_POINT(id, name, sentence) [CRASH_##id] = { name, sentence },
#include "common/crash.def"
#undef CRASH_POINT
};

const char *crash_point_name(unsigned p)
{
	return p < CRASH_NPOINTS ? points[p].name : NULL;
}

const char *crash_point_sentence(unsigned p)
{
	return p < CRASH_NPOINTS ? points[p].sentence : NULL;
}

#ifdef SLICEFS_CRASH_POINTS

static pthread_once_t parsed = PTHREAD_ONCE_INIT;
static unsigned armed = CRASH_NPOINTS; /* the point to die at; none */
static atomic_long left;               /* how often it is passed before that */

static unsigned find_point(const char *name, size_t len)
{
	unsigned p = 0;

	while (p < CRASH_NPOINTS && (strncmp(points[p].name, name, len) || points[p].name[len]))
		p++;
	return p;
}

static void parse(void)
{
	const char *env = getenv("SLICEFS_CRASH");
	char *end;

	if (!env || !*env)
		return;
	size_t len = strcspn(env, ":");
	long n = env[len] ? strtol(env + len + 1, &end, 10) : 1;

	armed = find_point(env, len);
	if (armed == CRASH_NPOINTS || n < 1 || (env[len] && *end)) {
		fprintf(stderr, "slicefs: SLICEFS_CRASH=%s: not a crash point. "
			"Try: NAME or NAME:COUNT, names from slicefs help crash-points\n", env);
		_exit(2);
	}
	atomic_store(&left, n);
}

void crash_point(enum crash_point p)
{
	pthread_once(&parsed, parse);
	if (p != armed || atomic_fetch_sub(&left, 1) != 1)
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause(); /* nothing after this point may happen */
}

#endif
