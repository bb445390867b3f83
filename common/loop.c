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
 * Timers and watches differ in the handle only; what they share is a `source`.
 *
 * Threads: the queue, `stopping` and a source's `is_closed` are guarded by the
 * lock; uv handles are the loop thread's.
 */
#include "common/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
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
	unsigned sources;      /* that exist */
	pthread_cond_t closed; /* some source's handle was closed */

	uv_loop_t uv;
	uv_async_t wake;
	pthread_t thread;
	char name[16];
};

/* What calls fn now and then, and whose end is waited for. */
struct source {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	struct loop_call start, stop; /* never fails for want of memory */
	bool is_closed;               /* the loop's lock */
	bool forgotten;               /* freed on the loop's thread, whose field this is */

	union {
		uv_handle_t handle;
		uv_timer_t timer;
		uv_poll_t poll;
	} uv;
};

struct loop_timer {
	struct source source; /* first */
	uint64_t first_ms, repeat_ms;
};

struct loop_watch {
	struct source source; /* first */
	int fd;
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

struct visit {
	struct loop_call call;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void visit(void *arg)
{
	struct visit *v = arg;

	v->fn(v->arg);
	sem_post(&v->done);
}

void loop_run(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct visit v = { .call = { .fn = visit, .arg = &v }, .fn = fn, .arg = arg };

	assert(!loop_is_current(l));
	sem_init(&v.done, 0, 0);
	loop_post_call(l, &v.call);
	while (sem_wait(&v.done) < 0)
		assert(errno == EINTR);
	sem_destroy(&v.done);
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
	assert(!l->first && !l->sources);
	free_parts(l);
}

/* Sources -------------------------------------------------------------------- */

static void source_fire(struct source *s)
{
	if (!s->forgotten)
		s->fn(s->arg);
}

static void on_source_closed(uv_handle_t *h)
{
	struct source *s = h->data;
	bool forgotten = s->forgotten;

	{
		WITH_LOCK(&s->loop->lock);
		s->is_closed = true;
		s->loop->sources--;
		pthread_cond_broadcast(&s->loop->closed);
	}
	/* Otherwise s may be gone by now: who waited frees it. */
	if (forgotten)
		free(s);
}

static void source_stop(void *arg)
{
	struct source *s = arg;

	uv_close(&s->uv.handle, on_source_closed); /* it stops it as well */
}

static void source_init(struct source *s, struct loop *l, void (*fn)(void *arg), void *arg,
			void (*start)(void *source))
{
	*s = (struct source){ .loop = l, .fn = fn, .arg = arg,
			      .start = { .fn = start, .arg = s },
			      .stop = { .fn = source_stop, .arg = s } };
	WITH_LOCK(&l->lock);
	l->sources++;
}

static void source_free(struct source *s)
{
	struct loop *l = s->loop;

	if (loop_is_current(l)) {
		/* Stopping is posted, too: it may not have been started yet. */
		s->forgotten = true;
		loop_post_call(l, &s->stop);
		return;
	}
	lock_assert_none();
	loop_post_call(l, &s->stop);
	{
		WITH_LOCK(&l->lock);
		while (!s->is_closed)
			lock_wait(&l->lock, &l->closed);
	}
	free(s);
}

/* Timers --------------------------------------------------------------------- */

static void on_timer(uv_timer_t *uv)
{
	source_fire(uv->data);
}

static void start_timer(void *arg)
{
	struct loop_timer *t = arg;
	uv_timer_t *uv = &t->source.uv.timer;

	uv_timer_init(&t->source.loop->uv, uv); /* these two cannot fail */
	uv->data = t;
	if (t->first_ms == LOOP_NEVER)
		return;
	uv_update_time(&t->source.loop->uv);
	uv_timer_start(uv, on_timer, t->first_ms, t->repeat_ms);
}

int loop_timer_new(struct loop *l, uint64_t first_ms, uint64_t repeat_ms,
		   void (*fn)(void *arg), void *arg, struct loop_timer **ret)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->first_ms = first_ms;
	t->repeat_ms = repeat_ms;
	source_init(&t->source, l, fn, arg, start_timer);
	/* Before the first call, which may want to free it by this very name. */
	*ret = t;
	if (loop_is_current(l))
		start_timer(t); /* for loop_timer_set() */
	else
		loop_post_call(l, &t->source.start);
	return 0;
}

void loop_timer_set(struct loop_timer *t, uint64_t at_ns)
{
	uv_timer_t *uv = &t->source.uv.timer;
	uint64_t now = clock_ns();

	assert(loop_is_current(t->source.loop) && !t->repeat_ms);
	uv_timer_stop(uv);
	if (!at_ns)
		return;
	uv_update_time(&t->source.loop->uv);
	uv_timer_start(uv, on_timer, at_ns > now ? (at_ns - now) / 1000000 + 1 : 0, 0);
}

void loop_timer_free(struct loop_timer *t)
{
	if (t)
		source_free(&t->source);
}

/* Watches -------------------------------------------------------------------- */

static void on_readable(uv_poll_t *uv, int status, int events)
{
	(void)status; /* who reads sees the error */
	(void)events;
	source_fire(uv->data);
}

static void start_watch(void *arg)
{
	struct loop_watch *w = arg;
	uv_poll_t *uv = &w->source.uv.poll;

	/* They fail only for what is no descriptor that can be polled. */
	int r = uv_poll_init(&w->source.loop->uv, uv, w->fd);
	assert(r == 0);
	uv->data = w;
	r = uv_poll_start(uv, UV_READABLE, on_readable);
	assert(r == 0);
}

int loop_watch_new(struct loop *l, int fd, void (*fn)(void *arg), void *arg,
		   struct loop_watch **ret)
{
	struct loop_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->fd = fd;
	source_init(&w->source, l, fn, arg, start_watch);
	*ret = w;
	loop_post_call(l, &w->source.start);
	return 0;
}

void loop_watch_free(struct loop_watch *w)
{
	if (!w)
		return;
	assert(!loop_is_current(w->source.loop)); /* fd would be closed too early */
	source_free(&w->source);
}
