/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One piece of work, done by several threads at once while its caller waits: at start-up,
 * where there is much to go through and nobody else is there yet.
 */

enum { CREW_MAX = 16 };

/* As many as there are processors for this process, CREW_MAX at most. */
unsigned crew_size(void);

/* work(arg, i) for each i below n (1..CREW_MAX), each on a thread of its own ("crew"), one on
 * the caller's; what no thread can be made for is done there, too. When all have ended: 0, or
 * the first in order of i that is not. */
int crew_run(unsigned n, int (*work)(void *arg, unsigned i), void *arg);
