/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libuv's handles belong to the loop's thread; the one thing that others may do
 * is uv_async_send(). So everything else, starting and stopping timers
 * included, is a call posted to the thread, in one queue and hence in order:
 *
 *   loop_timer_free() posts "stop this one" and waits until the handle is
 *   closed. Since callbacks and posted calls run on the one thread, the
 *   timer's fn cannot be running then.
 *
 * Threads: the queue, `stopping` and a timer's `closed` are guarded by the
 * lock; uv handles are the loop thread's.
 */
#include "common/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/loop_uv.h"

struct loop {
	struct lock lock;
	struct loop_call *first, **last;
	bool stopping;
	unsigned timers;       /* that exist */
	pthread_cond_t closed; /* some timer's handle was closed */

	uv_loop_t uv;
	uv_async_t wake;
	pthread_t thread;
	char name[16];
};

struct loop_timer {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	uint64_t first_ms, repeat_ms;
	struct loop_call start, stop; /* never fails for want of memory */
	bool is_closed;          /* the loop's lock */
	bool forgotten;          /* freed on the loop's thread, whose field this is */

	uv_timer_t uv;
};

static _Thread_local const struct loop *current; /* that this thread runs */

bool loop_is_current(const struct loop *l)
{
	return l == current;
}

uv_loop_t *loop_uv(struct loop *l)
{
	assert(loop_is_current(l));
	return &l->uv;
}

/* Posted calls --------------------------------------------------------------- */

/* The lock is held over uv_async_send(), which never blocks: the thread that
 * drops it last has not seen the loop close `wake` before. */
void loop_post_call(struct loop *l, struct loop_call *c)
{
	c->next = NULL;
	WITH_LOCK(&l->lock);
	*l->last = c;
	l->last = &c->next;
	uv_async_send(&l->wake);
}

static struct loop_call *dequeue_all(struct loop *l)
{
	WITH_LOCK(&l->lock);
	struct loop_call *c = l->first;

	l->first = NULL;
	l->last = &l->first;
	return c;
}

/* What is posted meanwhile waits for the next wake-up, so that timers get their
 * turn. A call's memory is fn's from the moment that it is called. */
static void run_posted(struct loop *l)
{
	for (struct loop_call *c = dequeue_all(l), *next; c; c = next) {
		next = c->next;
		c->fn(c->arg);
	}
}

struct posted {
	struct loop_call call;
	void (*fn)(void *arg);
	void *arg;
};

static void run_and_free(void *arg)
{
	struct posted p = *(struct posted *)arg;

	free(arg);
	p.fn(p.arg);
}

int loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct posted *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct posted){ .call = { .fn = run_and_free, .arg = p }, .fn = fn, .arg = arg };
	loop_post_call(l, &p->call);
	return 0;
}

/* The thread ----------------------------------------------------------------- */

static void on_wake(uv_async_t *wake)
{
	struct loop *l = wake->data;
	bool stop;

	run_posted(l);
	{
		WITH_LOCK(&l->lock);
		stop = l->stopping && !l->first;
	}
	if (stop && !uv_is_closing((uv_handle_t *)wake))
		uv_close((uv_handle_t *)wake, NULL); /* the last handle: uv_run() returns */
}

static void *loop_main(void *arg)
{
	struct loop *l = arg;

	current = l;
	pthread_setname_np(pthread_self(), l->name);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	return NULL;
}

static int start_thread(struct loop *l)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = -pthread_create(&l->thread, NULL, loop_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

static void free_parts(struct loop *l)
{
	int r = uv_loop_close(&l->uv);

	assert(r == 0); /* all handles are closed */
	pthread_cond_destroy(&l->closed);
	lock_fini(&l->lock);
	free(l);
}

int loop_new(const char *name, struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	strncpy(l->name, name, sizeof(l->name) - 1);
	l->last = &l->first;
	r = uv_loop_init(&l->uv); /* uv's errors are negative errnos */
	if (r < 0) {
		free(l);
		return r;
	}
	lock_init(&l->lock, LOCK_LOOP);
	pthread_cond_init(&l->closed, NULL);
	r = uv_async_init(&l->uv, &l->wake, on_wake);
	if (r < 0) {
		free_parts(l);
		return r;
	}
	l->wake.data = l;
	r = start_thread(l);
	if (r < 0) {
		uv_close((uv_handle_t *)&l->wake, NULL);
		uv_run(&l->uv, UV_RUN_DEFAULT);
		free_parts(l);
		return r;
	}
	*ret = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	assert(!loop_is_current(l));
	{
		WITH_LOCK(&l->lock);
		l->stopping = true;
		uv_async_send(&l->wake);
	}
	pthread_join(l->thread, NULL);
	assert(!l->first && !l->timers);
	free_parts(l);
}

/* Timers --------------------------------------------------------------------- */

static void on_timer(uv_timer_t *uv)
{
	struct loop_timer *t = uv->data;

	if (!t->forgotten)
		t->fn(t->arg);
}

static void start_timer(void *arg)
{
	struct loop_timer *t = arg;

	uv_timer_init(&t->loop->uv, &t->uv); /* these two cannot fail */
	t->uv.data = t;
	if (t->first_ms == LOOP_NEVER)
		return;
	uv_update_time(&t->loop->uv);
	uv_timer_start(&t->uv, on_timer, t->first_ms, t->repeat_ms);
}

static void on_timer_closed(uv_handle_t *h)
{
	struct loop_timer *t = h->data;
	bool forgotten = t->forgotten;

	{
		WITH_LOCK(&t->loop->lock);
		t->is_closed = true;
		t->loop->timers--;
		pthread_cond_broadcast(&t->loop->closed);
	}
	/* Otherwise t may be gone by now: who waited frees it. */
	if (forgotten)
		free(t);
}

static void stop_timer(void *arg)
{
	struct loop_timer *t = arg;

	uv_timer_stop(&t->uv);
	uv_close((uv_handle_t *)&t->uv, on_timer_closed);
}

int loop_timer_new(struct loop *l, uint64_t first_ms, uint64_t repeat_ms,
		   void (*fn)(void *arg), void *arg, struct loop_timer **ret)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	*t = (struct loop_timer){ .loop = l, .fn = fn, .arg = arg,
				  .first_ms = first_ms, .repeat_ms = repeat_ms,
				  .start = { .fn = start_timer, .arg = t },
				  .stop = { .fn = stop_timer, .arg = t } };
	{
		WITH_LOCK(&l->lock);
		l->timers++;
	}
	/* Before the first call, which may want to free it by this very name. */
	*ret = t;
	loop_post_call(l, &t->start);
	return 0;
}

void loop_timer_set(struct loop_timer *t, uint64_t at_ns)
{
	uint64_t now = clock_ns();

	assert(loop_is_current(t->loop) && !t->repeat_ms);
	uv_timer_stop(&t->uv);
	if (!at_ns)
		return;
	uv_update_time(&t->loop->uv);
	uv_timer_start(&t->uv, on_timer, at_ns > now ? (at_ns - now) / 1000000 + 1 : 0, 0);
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	if (loop_is_current(t->loop)) {
		/* Stopping is posted, too: it may not have been started yet. */
		t->forgotten = true;
		loop_post_call(t->loop, &t->stop);
		return;
	}
	lock_assert_none();
	loop_post_call(t->loop, &t->stop);
	{
		WITH_LOCK(&t->loop->lock);
		while (!t->is_closed)
			lock_wait(&t->loop->lock, &t->loop->closed);
	}
	free(t);
}
