/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/evict_inbox.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/metrics.h"

enum {
	HOLD_MS = 500,  /* so long there is a round now and then for who would wait in vain, */
	HOLD_LOOK_MS = 4,   /* the first one after this time, */
	HOLD_PAUSE_MS = 64, /* and then after twice as long, up to this; */
	HOLD_NONE_MS = 100, /* when it was in vain, for nobody so long */
};

void inbox_init(struct inbox *b)
{
	lock_init(&b->lock, LOCK_EVICT);
	lock_cond_init(&b->more);
}

void inbox_fini(struct inbox *b)
{
	for (struct condemned *c; (c = b->condemned);) {
		LL_DELETE(b->condemned, c);
		free(c);
	}
	pthread_cond_destroy(&b->more);
	lock_fini(&b->lock);
}

/* Coming in ---------------------------------------------------------------------------- */

void inbox_wait_pages(struct inbox *b, uint64_t number, struct evict_waiter *w)
{
	{
		WITH_LOCK(&b->lock);
		w->in_vain = b->ending;
		if (!b->ending && atomic_load(&b->number) == number) {
			metric_add(M_EVICT_WAITS, 1);
			LL_PREPEND(b->waiters, w);
			pthread_cond_signal(&b->more);
			return;
		}
	}
	task_run(&w->task);
}

bool inbox_wait_index(struct inbox *b, struct kv_req *req)
{
	WITH_LOCK(&b->lock);
	if (b->ending)
		return false;
	LL_PREPEND(b->reqs, req);
	metric_add(M_EVICT_WAITS, 1);
	pthread_cond_signal(&b->more);
	return true;
}

void inbox_condemn(struct inbox *b, uint64_t fileid, struct bytes body)
{
	struct condemned *c = malloc(sizeof(*c) + body.len);

	if (!c)
		return; /* who opens it next will say so again */
	c->fileid = fileid;
	c->len = body.len;
	memcpy(c->body, body.p, body.len);
	WITH_LOCK(&b->lock);
	LL_PREPEND(b->condemned, c);
	pthread_cond_signal(&b->more);
}

void inbox_poke(struct inbox *b)
{
	WITH_LOCK(&b->lock);
	b->poked = true;
	pthread_cond_signal(&b->more);
}

static bool is_over(const struct pause *p)
{
	return clock_ns() >= p->until_ns;
}

static bool is_due(const struct held *h)
{
	return h->waiters && is_over(&h->pause);
}

static bool are_due(const struct held_reqs *h)
{
	return h->reqs && is_over(&h->pause);
}

bool inbox_is_waited(struct inbox *b)
{
	WITH_LOCK(&b->lock);
	return b->waiters || b->reqs || b->ending || is_due(&b->held) || are_due(&b->held_reqs);
}

bool inbox_is_ending(struct inbox *b)
{
	WITH_LOCK(&b->lock);
	return b->ending;
}

void inbox_end(struct inbox *b)
{
	WITH_LOCK(&b->lock);
	b->ending = true;
	pthread_cond_signal(&b->more);
}

/* Seeing to it ------------------------------------------------------------------------- */

static uint64_t next_look(const struct inbox *b, uint64_t ms)
{
	uint64_t at = clock_ns() + ms * NS_PER_MS;

	if (b->held.waiters && b->held.pause.until_ns < at)
		at = b->held.pause.until_ns;
	if (b->held_reqs.reqs && b->held_reqs.pause.until_ns < at)
		at = b->held_reqs.pause.until_ns;
	return at;
}

bool inbox_sleep(struct inbox *b, uint64_t ms, bool more)
{
	WITH_LOCK(&b->lock);
	if (!more && !b->waiters && !b->reqs && !b->poked && !b->ending && !b->condemned)
		lock_wait_until(&b->lock, &b->more, next_look(b, ms));
	b->poked = false;
	return !b->ending;
}

struct condemned *inbox_take_condemned(struct inbox *b)
{
	WITH_LOCK(&b->lock);
	return steal(&b->condemned);
}

struct evict_waiter *inbox_take_waiters(struct inbox *b)
{
	struct evict_waiter *w, *in_order = NULL;

	WITH_LOCK(&b->lock);
	while ((w = b->waiters)) {
		LL_DELETE(b->waiters, w);
		LL_PREPEND(in_order, w);
	}
	if (in_order || is_due(&b->held) || b->ending) {
		LL_CONCAT(b->held.waiters, in_order);
		in_order = steal(&b->held.waiters);
	}
	return in_order;
}

struct kv_req *inbox_take_reqs(struct inbox *b)
{
	struct kv_req *req, *in_order = NULL;

	WITH_LOCK(&b->lock);
	while ((req = b->reqs)) {
		LL_DELETE(b->reqs, req);
		LL_PREPEND(in_order, req);
	}
	if (in_order || are_due(&b->held_reqs) || b->ending) {
		LL_CONCAT(b->held_reqs.reqs, in_order);
		in_order = steal(&b->held_reqs.reqs);
	}
	return in_order;
}

/* Answers ------------------------------------------------------------------------------ */

static void run_waiter(struct evict_waiter *w, bool in_vain)
{
	w->in_vain = in_vain;
	metric_add(M_EVICT_WAITS, -1);
	task_run(&w->task);
}

/* Something has gone for them: who finds no room again has as much time as before. Or it is the
 * end. */
static void run_waiters(struct evict_waiter *w, bool in_vain)
{
	while (w) {
		struct evict_waiter *next = w->next;
		w->vain_ns = 0;
		run_waiter(w, in_vain);
		w = next;
	}
}

/* Nothing could go for it. What was let go of by others may be enough: it sees that itself, once
 * for all that was free when it came, and then for each page more than when it was tried last. */
static void end_in_vain(struct held *h, struct evict_waiter *w, bool busy, uint32_t nfree)
{
	bool more = nfree > (w->vain_ns ? h->nfree : 0);
	uint64_t now = clock_ns();

	w->vain_ns = w->vain_ns ? w->vain_ns : now;
	w->next = NULL;
	if (now >= w->vain_ns + HOLD_MS * NS_PER_MS) {
		if (!w->patient)
			h->none_ns = now + HOLD_NONE_MS * NS_PER_MS;
		run_waiter(w, true);
	} else if (more || (!w->patient && (!busy || now < h->none_ns))) {
		run_waiter(w, !more);
	} else {
		LL_APPEND(h->waiters, w);
	}
}

static void pause_begin(struct pause *p, bool is_first)
{
	p->ms = is_first ? HOLD_LOOK_MS : p->ms * 2;
	if (p->ms > HOLD_PAUSE_MS)
		p->ms = HOLD_PAUSE_MS;
	p->until_ns = clock_ns() + p->ms * NS_PER_MS;
}

void inbox_answer(struct inbox *b, struct evict_waiter *w, unsigned n, bool busy, uint32_t nfree)
{
	struct held *h = &b->held;
	bool is_first = w && !w->vain_ns;

	if (n) {
		h->none_ns = h->pause.until_ns = 0;
		run_waiters(w, false);
	}
	if (n || !w)
		return;
	for (struct evict_waiter *next; w; w = next) {
		next = w->next;
		end_in_vain(h, w, busy, nfree);
	}
	h->nfree = nfree;
	pause_begin(&h->pause, is_first);
}

static void run_reqs(struct kv *kv, struct kv_req *req, bool in_vain)
{
	while (req) {
		struct kv_req *next = req->next;
		req->next = NULL;
		metric_add(M_EVICT_WAITS, -1);
		if (in_vain)
			kv_end_full(kv, req);
		else
			kv_submit_again(kv, req);
		req = next;
	}
}

static uint64_t used_bytes(struct kv *kv)
{
	struct kv_stat st;

	return kv->ops->stat(kv, &st) < 0 ? 0 : st.used_bytes;
}

/* Nothing could go, and are they to wait for that? Who comes to others that are held is held as
 * long as they are. */
static bool is_held(struct held_reqs *h, bool busy)
{
	uint64_t now = clock_ns();

	h->vain_ns = h->vain_ns ? h->vain_ns : now;
	if (now >= h->vain_ns + HOLD_MS * NS_PER_MS)
		h->none_ns = now + HOLD_NONE_MS * NS_PER_MS;
	return busy && now >= h->none_ns;
}

/* What others delete makes room as well: it is seen by the bytes in use. */
void inbox_answer_reqs(struct inbox *b, struct kv *kv, struct kv_req *req, unsigned n, bool busy)
{
	struct held_reqs *h = &b->held_reqs;
	bool is_first = !h->vain_ns;

	if (!req)
		return;
	uint64_t used = used_bytes(kv);
	if (n || (!is_first && used < h->used)) {
		h->vain_ns = h->none_ns = 0;
		run_reqs(kv, req, false);
	} else if (is_held(h, busy)) {
		h->reqs = req;
		h->used = used;
		pause_begin(&h->pause, is_first);
	} else {
		h->vain_ns = 0;
		run_reqs(kv, req, true);
	}
}

void inbox_answer_all(struct inbox *b, struct kv *kv)
{
	run_waiters(inbox_take_waiters(b), true);
	run_reqs(kv, inbox_take_reqs(b), true);
}
