/* SPDX-License-Identifier: Apache-2.0 */
#include "common/detached.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/lock.h"

static void detached_free(struct detached *d)
{
	pthread_cond_destroy(&d->cond);
	pthread_mutex_destroy(&d->mutex);
	free(d);
}

void detached_unref(struct detached *d)
{
	pthread_mutex_lock(&d->mutex);
	unsigned left = --d->users;
	pthread_mutex_unlock(&d->mutex);
	if (!left)
		detached_free(d);
}

static void *detached_main(void *arg)
{
	struct detached *d = arg;

	d->work(d);
	pthread_mutex_lock(&d->mutex);
	d->ended = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->mutex);
	detached_unref(d);
	return NULL;
}

int detached_start(struct detached *d, const char *name, void (*work)(struct detached *d))
{
	pthread_t thread;

	d->users = 2;
	d->work = work;
	pthread_mutex_init(&d->mutex, NULL);
	lock_cond_init(&d->cond);
	int r = pthread_create(&thread, NULL, detached_main, d);
	if (r) {
		detached_free(d);
		return -r;
	}
	pthread_setname_np(thread, name);
	pthread_detach(thread);
	return 0;
}

bool detached_wait(struct detached *d, uint64_t timeout_ms)
{
	struct timespec until = clock_timespec(clock_ns() + timeout_ms * NS_PER_MS);
	int late = 0;

	pthread_mutex_lock(&d->mutex);
	while (!d->ended && !late)
		late = pthread_cond_timedwait(&d->cond, &d->mutex, &until);
	bool ended = d->ended;
	pthread_mutex_unlock(&d->mutex);
	return ended;
}
