/* SPDX-License-Identifier: Apache-2.0 */
/* The queue is the thread's own: no lock, and order is kept. */
#include <stddef.h>

#include "common/lock.h"
#include "engine/task.h"

static _Thread_local struct {
	struct task *first, **last;
	int running;
} queue;

void task_run(struct task *t)
{
	lock_assert_none();
	t->next = NULL;
	if (queue.running) {
		*queue.last = t;
		queue.last = &t->next;
		return;
	}
	queue.running = 1;
	queue.first = t;
	queue.last = &t->next;
	while (queue.first) {
		struct task *now = queue.first;
		queue.first = now->next;
		if (!queue.first)
			queue.last = &queue.first;
		now->fn(now);
	}
	queue.running = 0;
}
