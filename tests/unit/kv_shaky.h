/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An engine for tests: kv_mem behind it, and in front whatever can happen to a
 * request, at random by a seed: a conflict that is none (somebody else's
 * transaction that changed nothing we look at), no answer after it was done, no
 * answer and it was not done, an answer that comes later from another thread, in
 * another order. Rates are in percent; `always` is an outcome for every request
 * with writes.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/random.h"
#include "index/index.h"

struct shaky_opts {
	uint64_t seed;
	unsigned conflict, unknown_done, unknown_lost, later;
	int always; /* KV_CONFLICT, KV_UNKNOWN or negative; 0: not */
	int nth_write, nth_outcome; /* the n-th request with writes: that, once */
	bool nth_done; /* it is done all the same; one that conflicts does not count */
	void (*nth_lost)(void *arg); /* called then, before anybody hears of it; or NULL */
	bool full;  /* what may not use the reserve has no room */
	bool keep;  /* closing it leaves the inner one open */
	uint64_t session; /* not 0: it asks nothing else than this one may */
	struct kv_caps caps; /* max_writes 0: kv_mem's */
	/* Called once, before the next request that writes. */
	void (*before_write)(void *arg);
	void *arg;
};

struct shaky {
	struct kv kv;
	struct kv *inner;
	struct shaky_opts o;
	_Atomic uint64_t state;
	_Atomic uint64_t nsubmits, nwaves;

	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct kv_req *queue[256];
	unsigned nqueue;
	bool stop;
	pthread_t thread;
};

static inline uint64_t random_of(_Atomic uint64_t *state)
{
	return random_mix(atomic_fetch_add(state, RANDOM_STEP) + RANDOM_STEP);
}

static inline bool shaky_happens(struct shaky *s, unsigned percent)
{
	return percent && random_of(&s->state) % 100 < percent;
}

/* Passes parts of req on, and takes over what came of it. */
static inline int shaky_pass(struct shaky *s, struct kv_req *req, bool writes)
{
	struct kv_req inner = {
		.compares = req->compares, .ncompares = writes ? req->ncompares : 0,
		.writes = req->writes, .nwrites = writes ? req->nwrites : 0,
		.reads = req->reads, .nreads = req->nreads,
		.reserve = req->reserve, .call = req->call,
	};
	int r = kv_wait(s->inner, &inner);

	req->memory = inner.memory;
	req->rows = inner.rows;
	req->revision = inner.revision;
	return r;
}

static inline int shaky_lose(struct shaky *s, struct kv_req *req)
{
	if (s->o.nth_done) {
		int r = shaky_pass(s, req, true);
		if (r != KV_DONE) {
			s->o.nth_write = 1;
			return r;
		}
		kv_req_fini(req);
	}
	if (s->o.nth_lost)
		s->o.nth_lost(s->o.arg);
	return s->o.nth_outcome;
}

static inline int shaky_do(struct shaky *s, struct kv_req *req)
{
	bool writes = req->nwrites;

	if (writes && s->o.nth_write && !--s->o.nth_write)
		return shaky_lose(s, req);
	if (writes && s->o.full && !req->reserve)
		return -ENOSPC;
	if (writes && s->o.always) {
		if (s->o.always != KV_CONFLICT)
			return s->o.always;
		int r = shaky_pass(s, req, false);
		return r < 0 ? r : KV_CONFLICT;
	}
	if (writes && shaky_happens(s, s->o.conflict)) {
		int r = shaky_pass(s, req, false);
		return r < 0 ? r : KV_CONFLICT;
	}
	if (shaky_happens(s, s->o.unknown_lost))
		return KV_UNKNOWN;
	int r = shaky_pass(s, req, true);
	if (r == KV_DONE && shaky_happens(s, s->o.unknown_done)) {
		kv_req_fini(req);
		return KV_UNKNOWN;
	}
	return r;
}

static inline void shaky_submit(struct kv *kv, struct kv_req *req)
{
	struct shaky *s = (struct shaky *)kv;

	atomic_fetch_add(&s->nsubmits, 1);
	assert(!s->o.session || !index_request_check(req, s->o.session));
	if (!req->nwrites)
		atomic_fetch_add(&s->nwaves, 1);
	if (req->nwrites && s->o.before_write) {
		void (*before_write)(void *arg) = s->o.before_write;
		s->o.before_write = NULL;
		before_write(s->o.arg);
	}
	if (shaky_happens(s, s->o.later)) {
		pthread_mutex_lock(&s->mutex);
		assert(s->nqueue < 256);
		s->queue[s->nqueue++] = req;
		pthread_cond_signal(&s->cond);
		pthread_mutex_unlock(&s->mutex);
		return;
	}
	kv_req_done(kv, req, shaky_do(s, req));
}

static inline void *shaky_thread(void *arg)
{
	struct shaky *s = arg;

	pthread_mutex_lock(&s->mutex);
	for (;;) {
		while (!s->nqueue && !s->stop)
			pthread_cond_wait(&s->cond, &s->mutex);
		if (!s->nqueue)
			break;
		unsigned i = (unsigned)(random_of(&s->state) % s->nqueue);
		struct kv_req *req = s->queue[i];
		s->queue[i] = s->queue[--s->nqueue];
		pthread_mutex_unlock(&s->mutex);
		kv_req_done(&s->kv, req, shaky_do(s, req));
		pthread_mutex_lock(&s->mutex);
	}
	pthread_mutex_unlock(&s->mutex);
	return NULL;
}

static inline struct kv_caps shaky_caps(struct kv *kv)
{
	struct shaky *s = (struct shaky *)kv;

	struct kv_caps c = s->o.caps.max_writes ? s->o.caps : s->inner->ops->caps(s->inner);

	c.alone = false; /* plans run ahead, too */
	return c;
}

static inline int shaky_stat(struct kv *kv, struct kv_stat *ret)
{
	struct shaky *s = (struct shaky *)kv;

	return s->inner->ops->stat(s->inner, ret);
}

static inline int shaky_session_end(struct kv *kv, uint64_t session)
{
	struct shaky *s = (struct shaky *)kv;

	return s->inner->ops->session_end(s->inner, session);
}

static inline struct kv *shaky_inner(struct kv *kv)
{
	return ((struct shaky *)kv)->inner;
}

static inline int shaky_check(struct kv *kv, struct writer *report)
{
	struct shaky *s = (struct shaky *)kv;

	return s->inner->ops->check(s->inner, report);
}

static inline void shaky_close(struct kv *kv)
{
	struct shaky *s = (struct shaky *)kv;

	pthread_mutex_lock(&s->mutex);
	s->stop = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->mutex);
	pthread_join(s->thread, NULL);
	if (!s->o.keep)
		kv_close(s->inner);
	free(s);
}

/* Takes `inner` over. */
static inline struct shaky *shaky_over(struct kv *inner, struct shaky_opts o)
{
	static const struct kv_ops ops = {
		.name = "shaky", .submit = shaky_submit, .caps = shaky_caps,
		.stat = shaky_stat, .session_end = shaky_session_end,
		.inner = shaky_inner, .check = shaky_check, .close = shaky_close,
	};
	struct shaky *s = calloc(1, sizeof(*s));

	s->kv.ops = &ops;
	s->inner = inner;
	s->o = o;
	s->state = o.seed;
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->cond, NULL);
	pthread_create(&s->thread, NULL, shaky_thread, s);
	return s;
}
