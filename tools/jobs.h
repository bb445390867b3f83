/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Work for several threads: who finds it adds it, and waits while enough lies ready.
 *
 * Threads: jobs_add() and jobs_end() are one thread's; fn() runs in those of the jobs.
 */
struct jobs;

/* n threads, at least one. NULL: no memory, no threads. */
struct jobs *jobs_new(unsigned n);

/* fn(arg), soon; its exit status counts. */
void jobs_add(struct jobs *j, int (*fn)(void *arg), void *arg);

/* When all are done: 0, or what one of them returned that failed. Frees j; NULL: 0. */
int jobs_end(struct jobs *j);
