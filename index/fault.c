/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index engine around another one, for tests: fails a chosen request, and
 * answers late, in another order, and from a thread that knows nothing.
 *
 * Each request is passed on as a copy (`struct call`), whose completion is held
 * back until it is due; what came of it is then moved to the request asked for.
 *
 * Threads: any submit. The one that answers late holds no lock while it does.
 */
#include <errno.h>

#include "common/clock.h"
#include "common/lock.h"
#include "common/random.h"
#include "index/kv.h"

enum { DELAY_MAX_NS = 1000000 };

struct call {
	struct kv_req req; /* passed on */
	struct kv_req *asked;
	struct fault *fault;
	bool is_lost; /* the answer is KV_UNKNOWN, whatever it was */
	int outcome;
	uint64_t due_ns;
	struct call *next;
};

struct fault {
	struct kv kv;
	struct kv *inner;
	bool async;
	pthread_t thread;
	_Atomic uint64_t count;

	struct lock lock; /* guards all below */
	uint64_t random;
	uint64_t fail_at; /* the count at which `failure` happens; 0: none */
	int failure;
	struct call *late; /* the next one due comes first */
	pthread_cond_t changed;
	bool held;
	bool stop;
};

static struct fault *fault_of(struct kv *kv)
{
	return (struct fault *)kv;
}

/* Answers ------------------------------------------------------------------------ */

/* Nothing of f is touched behind the answer: it may be closed by then. */
static void answer(struct call *c)
{
	struct kv_req *asked = c->asked;
	struct kv *kv = &c->fault->kv;
	int outcome = c->is_lost ? KV_UNKNOWN : c->outcome;

	if (c->is_lost) {
		kv_req_fini(&c->req);
		c->req.revision = 0;
	}
	asked->rows = c->req.rows;
	asked->memory = c->req.memory;
	asked->revision = c->req.revision;
	free(c);
	kv_req_done(kv, asked, outcome);
}

static void hold_back(struct fault *f, struct call *c)
{
	struct call **at = &f->late;

	WITH_LOCK(&f->lock);
	c->due_ns = clock_ns() + random_next(&f->random) % DELAY_MAX_NS;
	while (*at && (*at)->due_ns <= c->due_ns)
		at = &(*at)->next;
	c->next = *at;
	*at = c;
	pthread_cond_signal(&f->changed);
}

static void finish(struct call *c, int outcome)
{
	c->outcome = outcome;
	if (c->fault->async)
		hold_back(c->fault, c);
	else
		answer(c);
}

static void inner_done(struct kv_req *req, int outcome)
{
	struct call *c = (struct call *)req;

	if (outcome == KV_DONE && req->nwrites)
		kv_ring(&c->fault->kv, req);
	finish(c, outcome);
}

/* The next one that is due; NULL: there will be none. */
static struct call *next_due(struct fault *f)
{
	WITH_LOCK(&f->lock);
	for (;;) {
		struct call *c = f->held ? NULL : f->late;

		if (c && c->due_ns <= clock_ns()) {
			f->late = c->next;
			return c;
		}
		if (!f->late && f->stop)
			return NULL;
		lock_wait_until(&f->lock, &f->changed, c ? c->due_ns : 0);
	}
}

static void *answer_late(void *arg)
{
	struct call *c;

	while ((c = next_due(arg)))
		answer(c);
	return NULL;
}

/* Requests ------------------------------------------------------------------------- */

/* What is to happen to the next one: 0, or the failure; *ret_goes: pass it on? */
static int decide(struct fault *f, bool *ret_goes)
{
	WITH_LOCK(&f->lock);
	*ret_goes = true;
	if (atomic_fetch_add(&f->count, 1) + 1 != f->fail_at)
		return 0;
	*ret_goes = f->failure == KV_UNKNOWN && random_next(&f->random) % 2;
	return f->failure;
}

static void fault_submit(struct kv *kv, struct kv_req *req)
{
	struct fault *f = fault_of(kv);
	struct call *c = malloc(sizeof(*c));
	bool goes;
	int failure;

	if (!c) {
		kv_req_done(kv, req, -ENOMEM);
		return;
	}
	failure = decide(f, &goes);
	*c = (struct call){ .req = *req, .asked = req, .fault = f,
			    .is_lost = failure == KV_UNKNOWN };
	c->req.done = inner_done;
	if (goes)
		kv_submit(f->inner, &c->req);
	else
		finish(c, failure);
}

void kv_fault_arm(struct kv *kv, uint64_t nth, int failure)
{
	struct fault *f = fault_of(kv);

	WITH_LOCK(&f->lock);
	f->fail_at = nth ? atomic_load(&f->count) + nth : 0;
	f->failure = failure;
}

void kv_fault_hold(struct kv *kv, bool hold)
{
	struct fault *f = fault_of(kv);

	assert(f->async);
	WITH_LOCK(&f->lock);
	f->held = hold;
	pthread_cond_signal(&f->changed);
}

uint64_t kv_fault_count(struct kv *kv)
{
	return atomic_load(&fault_of(kv)->count);
}

/* What is passed on ---------------------------------------------------------------- */

static struct kv_caps fault_caps(struct kv *kv)
{
	struct kv *inner = fault_of(kv)->inner;

	return inner->ops->caps(inner);
}

static int fault_stat(struct kv *kv, struct kv_stat *ret)
{
	struct kv *inner = fault_of(kv)->inner;

	return inner->ops->stat(inner, ret);
}

static int fault_session_end(struct kv *kv, uint64_t session)
{
	struct kv *inner = fault_of(kv)->inner;
	int r = inner->ops->session_end(inner, session);

	kv_ring_session_end(kv);
	return r;
}

static struct kv *fault_inner(struct kv *kv)
{
	return fault_of(kv)->inner;
}

static int fault_check(struct kv *kv, struct writer *report)
{
	struct kv *inner = fault_of(kv)->inner;

	return inner->ops->check(inner, report);
}

static void stop_thread(struct fault *f)
{
	{
		WITH_LOCK(&f->lock);
		assert(!f->late);
		f->stop = true;
		pthread_cond_signal(&f->changed);
	}
	pthread_join(f->thread, NULL);
}

static void fault_close(struct kv *kv)
{
	struct fault *f = fault_of(kv);

	if (f->async)
		stop_thread(f);
	kv_close(f->inner);
	pthread_cond_destroy(&f->changed);
	lock_fini(&f->lock);
	free(f);
}

static const struct kv_ops fault_ops = {
	.name = "fault",
	.submit = fault_submit,
	.caps = fault_caps,
	.stat = fault_stat,
	.session_end = fault_session_end,
	.inner = fault_inner,
	.check = fault_check,
	.close = fault_close,
};

int kv_fault_open(struct kv *inner, uint64_t seed, bool async, struct kv **ret)
{
	struct fault *f = calloc(1, sizeof(*f));
	int r;

	if (!f) {
		kv_close(inner);
		return -ENOMEM;
	}
	f->kv.ops = &fault_ops;
	f->inner = inner;
	f->random = seed;
	f->async = async;
	lock_init(&f->lock, LOCK_INDEX_QUEUE);
	lock_cond_init(&f->changed);
	r = async ? pthread_create(&f->thread, NULL, answer_late, f) : 0;
	if (r) {
		f->async = false;
		fault_close(&f->kv);
		return -r;
	}
	if (async)
		pthread_setname_np(f->thread, "index-fault");
	*ret = &f->kv;
	return 0;
}
