/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all engines share: the rules that a request has to keep, the memory of
 * its rows, waiting for it, and the watchers.
 *
 * A request is counted (gauge index_calls) from kv_submit() to kv_req_done().
 * Watchers are lists under one lock, by a hash of how their prefixes begin, since
 * each mount may watch hundreds of directories, and each commit looks for who is
 * concerned. A watch that is being rung is marked busy meanwhile, since a ring is
 * called without the lock.
 */
#include "index/kv.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/random.h"

_Thread_local struct kv *kv_completing;

/* Rows ------------------------------------------------------------------------ */

struct block {
	struct block *next;
	size_t used, cap;
	size_t total; /* bytes of this one and all before it */
	_Alignas(16) uint8_t b[];
};

enum { BLOCK_BYTES = 1000 }; /* the first one; most requests need no second */

void *kv_req_alloc(struct kv_req *req, size_t n)
{
	struct block *b = req->memory;

	n = (n + 15) & ~(size_t)15;
	if (!b || b->cap - b->used < n) {
		size_t cap = b ? 2 * b->cap : BLOCK_BYTES;
		struct block *more;

		if (cap > 256 * 1024)
			cap = 256 * 1024;
		if (cap < n)
			cap = n;
		size_t total = (b ? b->total : 0) + cap;
		if (req->max_memory && total > req->max_memory)
			return NULL;
		more = malloc(sizeof(*more) + cap);
		if (!more)
			return NULL;
		*more = (struct block){ .next = b, .cap = cap, .total = total };
		req->memory = b = more;
	}
	b->used += n;
	return b->b + b->used - n;
}

void kv_req_fini(struct kv_req *req)
{
	struct block *b = req->memory;

	while (b) {
		struct block *next = b->next;
		free(b);
		b = next;
	}
	req->memory = NULL;
	req->rows = NULL;
}

/* Rules -------------------------------------------------------------------------- */

static bool key_is_fine(struct bytes key)
{
	return key.p && key.len > 0 && key.len <= KV_KEY_MAX;
}

/* The beginning of a range may be empty: before all keys. */
static bool range_is_fine(struct bytes from, struct bytes to)
{
	return (from.p || !from.len) && from.len <= KV_KEY_MAX && key_is_fine(to);
}

static int check_compares(const struct kv_req *req, uint64_t *bytes)
{
	for (uint32_t i = 0; i < req->ncompares; i++) {
		const struct kv_compare *c = &req->compares[i];

		if (c->kind == KV_RANGE_EMPTY ? !range_is_fine(c->key, c->end)
					      : !key_is_fine(c->key))
			return -EINVAL;
		*bytes += c->key.len + c->end.len;
	}
	return 0;
}

static int check_writes(const struct kv_req *req, uint64_t *bytes)
{
	for (uint32_t i = 0; i < req->nwrites; i++) {
		const struct kv_write *w = &req->writes[i];

		if (!key_is_fine(w->key) || (!w->value.p && w->value.len))
			return -EINVAL;
		if (w->value.len > KV_VALUE_MAX)
			return -E2BIG;
		*bytes += w->key.len + w->value.len;
	}
	return 0;
}

static int check_reads(const struct kv_req *req, uint64_t *bytes)
{
	for (uint32_t i = 0; i < req->nreads; i++) {
		const struct kv_read *r = &req->reads[i];

		if (r->to.p ? !range_is_fine(r->from, r->to) : !key_is_fine(r->from))
			return -EINVAL;
		*bytes += r->from.len + r->to.len;
	}
	return 0;
}

static int check(struct kv *kv, const struct kv_req *req)
{
	struct kv_caps caps = kv->ops->caps(kv);
	uint64_t bytes = 0;
	int r;

	if (req->ncompares > caps.max_compares || req->nwrites > caps.max_writes ||
	    req->nreads > caps.max_reads)
		return -E2BIG;
	r = check_compares(req, &bytes);
	if (!r)
		r = check_writes(req, &bytes);
	if (!r)
		r = check_reads(req, &bytes);
	if (!r && bytes > caps.max_bytes)
		r = -E2BIG;
	return r ? r : kv_req_given_up(req);
}

struct kv_caps kv_local_caps(struct kv *kv)
{
	(void)kv;
	return (struct kv_caps){ .max_compares = KV_LOCAL_MAX, .max_writes = KV_LOCAL_MAX,
				 .max_reads = KV_LOCAL_MAX, .max_bytes = KV_LOCAL_BYTES,
				 .alone = true };
}

int kv_req_given_up(const struct kv_req *req)
{
	const struct kv_call *call = req->call;

	if (!call)
		return 0;
	if (kv_call_is_cancelled(call))
		return -ECANCELED;
	return call->deadline_ns && clock_ns() >= call->deadline_ns ? -ETIMEDOUT : 0;
}

/* Submitting ---------------------------------------------------------------------- */

void kv_submit(struct kv *kv, struct kv_req *req)
{
	int r;

	lock_assert_none();
	assert(!req->memory); /* an earlier use's rows were not freed */
	req->rows = NULL;
	req->revision = 0;
	metric_add(M_INDEX_CALLS, 1);
	r = check(kv, req);
	if (r)
		kv_req_done(kv, req, r);
	else
		kv->ops->submit(kv, req);
}

static struct kv *innermost(struct kv *kv)
{
	while (kv->ops->inner)
		kv = kv->ops->inner(kv);
	return kv;
}

static void end(struct kv *kv, struct kv_req *req, int outcome)
{
	struct kv *outer = kv_completing;

	metric_add(M_INDEX_CALLS, -1);
	kv_completing = kv;
	req->done(req, outcome);
	kv_completing = outer;
}

void kv_req_done(struct kv *kv, struct kv_req *req, int outcome)
{
	if (outcome == -ENOSPC && kv->full && kv->full(kv->full_arg, req))
		return;
	end(kv, req, outcome);
}

void kv_submit_again(struct kv *kv, struct kv_req *req)
{
	int r = kv_req_given_up(req);

	kv = innermost(kv);
	kv_req_fini(req);
	req->revision = 0;
	if (r)
		end(kv, req, r);
	else
		kv->ops->submit(kv, req);
}

void kv_end_full(struct kv *kv, struct kv_req *req)
{
	end(innermost(kv), req, -ENOSPC);
}

/* Observers ---------------------------------------------------------------------- */

void kv_make_room(struct kv *kv, kv_full_fn *full, void *arg)
{
	kv = innermost(kv);
	kv->full = full;
	kv->full_arg = arg;
}

int kv_observe(struct kv *kv, struct kv_observer *o)
{
	kv = innermost(kv);
	if (!kv->ops->observes)
		return -EOPNOTSUPP;
	LL_APPEND(kv->observers, o);
	return 0;
}

void kv_observe_no_more(struct kv *kv, struct kv_observer *o)
{
	kv = innermost(kv);
	if (!o)
		kv->observers = NULL;
	else if (kv->observers) /* or it was sent away with all others */
		LL_DELETE(kv->observers, o);
}

static bool observes(const struct kv_observer *o, struct bytes key)
{
	return key.len && strchr(o->kinds, *(const char *)key.p);
}

bool kv_is_observed(const struct kv *kv, struct bytes key)
{
	const struct kv_observer *o = kv->observers;

	while (o && !observes(o, key))
		o = o->next;
	return o;
}

int kv_observe_write(struct kv *kv, struct bytes key, struct bytes before, struct bytes after)
{
	struct kv_observer *o;
	int r = 0;

	LL_FOREACH(kv->observers, o)
		if (!r && observes(o, key))
			r = o->write(o->arg, key, before, after);
	return r;
}

void kv_observe_end(struct kv *kv, bool committed)
{
	struct kv_observer *o;

	LL_FOREACH(kv->observers, o)
		o->end(o->arg, committed);
}

struct waiter {
	struct kv_req req; /* a copy: done() has no other way to the waiter */
	sem_t sem;
	int outcome;
};

static void waiter_done(struct kv_req *req, int outcome)
{
	struct waiter *w = (struct waiter *)req;

	w->outcome = outcome;
	sem_post(&w->sem);
}

int kv_wait(struct kv *kv, struct kv_req *req)
{
	struct kv *outer = kv_completing;
	struct waiter w = { .req = *req };

	sem_init(&w.sem, 0, 0);
	w.req.done = waiter_done;
	/* An engine may leave what a done() submits to the loop that called it;
	 * that loop does not run while we wait here. */
	kv_completing = NULL;
	kv_submit(kv, &w.req);
	while (sem_wait(&w.sem) < 0 && errno == EINTR)
		;
	kv_completing = outer;
	sem_destroy(&w.sem);
	req->rows = w.req.rows;
	req->revision = w.req.revision;
	req->memory = w.req.memory;
	return w.outcome;
}

/* Watches --------------------------------------------------------------------------- */

struct kv_watch {
	struct kv_watch *next;
	void (*ring)(void *arg);
	void *arg;
	unsigned busy;   /* rings under way */
	atomic_bool is_dead;
	uint32_t number; /* for engines that are told of it */
	uint64_t session; /* whose requests do not ring; or 0 */
	size_t len;
	uint8_t prefix[];
};

enum {
	WATCH_HEAD = 9, /* of a prefix: a kind and a number. Shorter ones are at 0 */
	WATCH_LISTS = 1024,
};

struct kv_watches {
	unsigned n;
	struct kv_watch *of[WATCH_LISTS]; /* by hash of the head */
};

static struct lock watch_lock = LOCK_INIT(LOCK_INDEX_WATCH);
static pthread_cond_t watch_idle = PTHREAD_COND_INITIALIZER;
static uint32_t last_number;

static unsigned watch_hash(const uint8_t *head)
{
	uint64_t id;

	memcpy(&id, head + WATCH_HEAD - sizeof(id), sizeof(id));
	return 1 + (unsigned)(random_mix(id ^ head[0]) % (WATCH_LISTS - 1));
}

static struct kv_watch **watch_list(struct kv *kv, const struct kv_watch *w)
{
	return &kv->watches->of[w->len < WATCH_HEAD ? 0 : watch_hash(w->prefix)];
}

static int watch_add(struct kv *kv, struct kv_watch *w)
{
	WITH_LOCK(&watch_lock);
	if (!kv->watches) {
		struct kv_watches *all = calloc(1, sizeof(*all));
		if (!all)
			return -ENOMEM;
		__atomic_store_n(&kv->watches, all, __ATOMIC_RELEASE);
	}
	struct kv_watch **at = watch_list(kv, w);
	w->number = ++last_number;
	w->next = *at;
	*at = w;
	kv->watches->n++;
	return 0;
}

static void watch_remove(struct kv *kv, struct kv_watch *w)
{
	WITH_LOCK(&watch_lock);
	while (w->busy)
		lock_wait(&watch_lock, &watch_idle);
	struct kv_watch **at = watch_list(kv, w);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	if (--kv->watches->n)
		return;
	free(kv->watches);
	__atomic_store_n(&kv->watches, NULL, __ATOMIC_RELEASE);
}

int kv_watch(struct kv *kv, struct bytes prefix, void (*ring)(void *arg),
	     void *arg, struct kv_watch **ret)
{
	return kv_watch_others(kv, prefix, 0, ring, arg, ret);
}

int kv_watch_others(struct kv *kv, struct bytes prefix, uint64_t session,
		    void (*ring)(void *arg), void *arg, struct kv_watch **ret)
{
	struct kv_watch *w = malloc(sizeof(*w) + prefix.len);

	if (!w)
		return -ENOMEM;
	*w = (struct kv_watch){ .ring = ring, .arg = arg, .session = session,
				.len = prefix.len };
	if (prefix.len)
		memcpy(w->prefix, prefix.p, prefix.len);
	int r = watch_add(kv, w);
	if (r < 0) {
		free(w);
		return r;
	}
	r = kv->ops->watch ? kv->ops->watch(kv, w->number, prefix, session) : 0;
	if (r < 0) {
		watch_remove(kv, w);
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void kv_unwatch(struct kv *kv, struct kv_watch *w)
{
	if (!w)
		return;
	watch_remove(kv, w);
	if (kv->ops->unwatch)
		kv->ops->unwatch(kv, w->number);
	free(w);
}

static bool watch_concerns(const struct kv_watch *w, const struct kv_req *req)
{
	const struct kv_write *writes = req->writes;

	if (w->session && w->session == req->session)
		return false;
	for (uint32_t i = 0; i < req->nwrites; i++)
		if (writes[i].key.len >= w->len &&
		    !memcmp(writes[i].key.p, w->prefix, w->len))
			return true;
	return false;
}

/* The caller holds the lock, which is given up meanwhile: w stays in the list,
 * since it is busy, and next with it. */
static void ring_one(struct kv_watch *w)
{
	w->busy++;
	lock_drop(&watch_lock);
	w->ring(w->arg);
	lock_take(&watch_lock);
	if (!--w->busy)
		pthread_cond_broadcast(&watch_idle);
}

static bool watch_is_of_sessions(const struct kv_watch *w)
{
	return !w->len || kv_key_is_session(BYTES_OF(w->prefix, w->len));
}

static bool is_watched(const struct kv *kv)
{
	/* Mostly nobody watches. Who began to watch before the commit began is
	 * seen here, since commits are made under a lock. */
	return __atomic_load_n(&kv->watches, __ATOMIC_ACQUIRE);
}

/* The caller holds the lock. */
static void ring_list(struct kv_watch *w, const struct kv_req *req)
{
	for (; w; w = w->next)
		if (watch_concerns(w, req))
			ring_one(w);
}

void kv_ring(struct kv *kv, const struct kv_req *req)
{
	const uint8_t *last = NULL;

	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	if (!kv->watches)
		return;
	ring_list(kv->watches->of[0], req);
	for (uint32_t i = 0; i < req->nwrites; i++) {
		const uint8_t *key = req->writes[i].key.p;
		/* All writes are looked at for each list; they mostly come in rows. */
		if (req->writes[i].key.len < WATCH_HEAD ||
		    (last && !memcmp(last, key, WATCH_HEAD)))
			continue;
		last = key;
		ring_list(kv->watches->of[watch_hash(key)], req);
	}
}

#define FOR_WATCHES(kv, w)                                                     \
	for (unsigned list_ = 0; (kv)->watches && list_ < WATCH_LISTS; list_++) \
		for (struct kv_watch *w = (kv)->watches->of[list_]; w; w = w->next)

void kv_ring_session_end(struct kv *kv)
{
	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	FOR_WATCHES(kv, w)
		if (watch_is_of_sessions(w))
			ring_one(w);
}

static struct kv_watch *watch_find(struct kv *kv, uint32_t number)
{
	FOR_WATCHES(kv, w)
		if (w->number == number)
			return w;
	return NULL;
}

void kv_ring_number(struct kv *kv, uint32_t number)
{
	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	struct kv_watch *w = watch_find(kv, number);

	if (w)
		ring_one(w);
}

/* Dead before it rings: what is found after the ring is not taken for watched. */
void kv_watch_refused(struct kv *kv, uint32_t number)
{
	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	struct kv_watch *w = watch_find(kv, number);

	if (!w)
		return;
	atomic_store(&w->is_dead, true);
	ring_one(w);
}

bool kv_watch_is_dead(const struct kv_watch *w)
{
	return atomic_load(&w->is_dead);
}

/* w stays in the list meanwhile: it is busy. */
static void watch_one_again(struct kv *kv, struct kv_watch *w)
{
	w->busy++;
	lock_drop(&watch_lock);
	atomic_store(&w->is_dead, false); /* unless it is refused from here on */
	int r = kv->ops->watch(kv, w->number, BYTES_OF(w->prefix, w->len),
			       w->session);
	if (r < 0) {
		log_warn("index", "a watch does not ring any more: %s", error_text(r));
		atomic_store(&w->is_dead, true);
	}
	w->ring(w->arg);
	lock_take(&watch_lock);
	if (!--w->busy)
		pthread_cond_broadcast(&watch_idle);
}

void kv_watch_again(struct kv *kv)
{
	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	FOR_WATCHES(kv, w)
		watch_one_again(kv, w);
}

void kv_ring_all(struct kv *kv)
{
	if (!is_watched(kv))
		return;
	WITH_LOCK(&watch_lock);
	FOR_WATCHES(kv, w)
		ring_one(w);
}

void kv_close(struct kv *kv)
{
	if (!kv)
		return;
	assert(!kv->watches);
	kv->ops->close(kv);
}
