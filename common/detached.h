/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Work that may take for ever, on a detached thread: who asked for it waits no longer than
 * he likes, and the work may outlive him. The two share one object of the heap that begins
 * with a struct detached; what the work leaves there is read once it has ended.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct detached {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned users; /* the thread, and who waits for it; under the mutex, as `ended` */
	bool ended;
	void (*work)(struct detached *d);
};

/* Begins work(d) on a thread of that name, of 15 bytes at most. d comes zeroed from calloc().
 * 0: detached_unref() it once. Negative errno: it has not begun, and d is freed. */
int detached_start(struct detached *d, const char *name, void (*work)(struct detached *d));

/* Has it ended, within that time? */
bool detached_wait(struct detached *d, uint64_t timeout_ms);

/* Not to be used any more by the caller. The last of the two frees it. */
void detached_unref(struct detached *d);
