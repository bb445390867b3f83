/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An event loop with a thread of its own, on libuv. Housekeeping runs here, and
 * later the sockets: whatever is called from the loop must not block for long.
 * All functions are callable from any thread, also from the loop's own, except
 * loop_free() and loop_run(). Callbacks run on the loop's thread with no lock held.
 */
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct loop_watch;

/* Starts the thread, named `name` (15 bytes at most) and deaf to signals. Not
 * before a fork that is to go on. */
int loop_new(const char *name, struct loop **ret);

/* Runs what has been posted, ends the thread and waits for it. Timers and watches
 * must have been freed. Not from the loop's thread. NULL is fine. */
void loop_free(struct loop *l);

/* Has fn(arg) called once, in the order of posting. -ENOMEM. */
int loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

/* The same with memory that the caller keeps until then: it cannot fail. */
struct loop_call {
	struct loop_call *next; /* the loop's */
	void (*fn)(void *arg);
	void *arg;
};
void loop_post_call(struct loop *l, struct loop_call *c);

/* Calls fn(arg) on the loop's thread, in the order of posting, and returns when it has
 * returned. Not from the loop's thread; no lock is held that something there takes. */
void loop_run(struct loop *l, void (*fn)(void *arg), void *arg);

#define LOOP_NEVER UINT64_MAX

/* Has fn(arg) called after first_ms (LOOP_NEVER: when loop_timer_set() says), then every
 * repeat_ms; 0: only once.
 * A loop that is late skips calls rather than make up for them. -ENOMEM. */
int loop_timer_new(struct loop *l, uint64_t first_ms, uint64_t repeat_ms,
		   void (*fn)(void *arg), void *arg, struct loop_timer **ret);

/* On the loop's thread, of a timer without repeat: has fn called at at_ns (clock_ns()) or
 * up to two milliseconds later, whatever was asked before. 0: not at all. */
void loop_timer_set(struct loop_timer *t, uint64_t at_ns);

/* After this fn is not running and will not run: it waits for a call that is
 * under way, so hold no lock that fn takes. Also from fn itself, where it does
 * not wait. NULL is fine. */
void loop_timer_free(struct loop_timer *t);

/* Has fn(arg) called as long as fd has something to read, and once at an error. fd is
 * one that can be polled and that nothing else watches; it is the caller's, who
 * closes it after loop_watch_free(). -ENOMEM. */
int loop_watch_new(struct loop *l, int fd, void (*fn)(void *arg), void *arg,
		   struct loop_watch **ret);

/* As loop_timer_free(), but not from the loop's thread. */
void loop_watch_free(struct loop_watch *w);

bool loop_is_current(const struct loop *l); /* on this loop's thread? */
