/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Calls that are put off until the stack has unwound. Completions may come
 * before the call that asked for them has returned, so a loop over many of them
 * would nest as deep as it is long, and so would a queue of waiters that each
 * wake the next. task_run() runs the task at once if this thread is in no task,
 * else when the present one returns.
 */
struct task {
	void (*fn)(struct task *t); /* may free t */
	struct task *next;
};

void task_run(struct task *t);
