/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine that is lent: passes all on to another one, and leaves it open when it
 * is closed itself. For tests of several mounts of one index in one process: each
 * has an engine of its own, with watches of its own, and is told that it is not alone.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "index/kv.h"

struct lent_watch {
	struct lent_watch *next;
	struct kv *kv;         /* the lent one, whose watch `number` it is */
	uint32_t number;
	struct kv_watch *inner;
};

struct lend {
	struct kv kv;
	struct kv *inner;
	struct lock lock;      /* guards the list */
	struct lent_watch *watches;
};

static struct lend *lend_of(struct kv *kv)
{
	return (struct lend *)kv;
}

static void lend_submit(struct kv *kv, struct kv_req *req)
{
	struct kv *inner = lend_of(kv)->inner;

	/* Its kv_req_done() takes it off the count that ours put it on. */
	inner->ops->submit(inner, req);
}

static struct kv_caps lend_caps(struct kv *kv)
{
	struct kv *inner = lend_of(kv)->inner;
	struct kv_caps caps = inner->ops->caps(inner);

	caps.alone = false;
	return caps;
}

static int lend_stat(struct kv *kv, struct kv_stat *ret)
{
	struct kv *inner = lend_of(kv)->inner;

	return inner->ops->stat(inner, ret);
}

static int lend_session_end(struct kv *kv, uint64_t session)
{
	struct kv *inner = lend_of(kv)->inner;

	return inner->ops->session_end(inner, session);
}

static int lend_check(struct kv *kv, struct writer *report)
{
	struct kv *inner = lend_of(kv)->inner;

	return inner->ops->check(inner, report);
}

/* Watches --------------------------------------------------------------------------- */

static void rung(void *arg)
{
	struct lent_watch *w = arg;

	kv_ring_number(w->kv, w->number);
}

static int lend_watch(struct kv *kv, uint32_t number, struct bytes prefix, uint64_t session)
{
	struct lend *l = lend_of(kv);
	struct lent_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->kv = kv;
	w->number = number;
	int r = kv_watch_others(l->inner, prefix, session, rung, w, &w->inner);
	if (r < 0) {
		free(w);
		return r;
	}
	WITH_LOCK(&l->lock);
	w->next = l->watches;
	l->watches = w;
	return 0;
}

static struct lent_watch *take(struct lend *l, uint32_t number)
{
	WITH_LOCK(&l->lock);
	struct lent_watch **at = &l->watches, *w;

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	w = *at;
	if (w)
		*at = w->next;
	return w;
}

static void lend_unwatch(struct kv *kv, uint32_t number)
{
	struct lend *l = lend_of(kv);
	struct lent_watch *w = take(l, number);

	if (w)
		kv_unwatch(l->inner, w->inner);
	free(w);
}

static void lend_close(struct kv *kv)
{
	struct lend *l = lend_of(kv);

	assert(!l->watches);
	lock_fini(&l->lock);
	free(l);
}

static const struct kv_ops lend_ops = {
	.name = "lend",
	.submit = lend_submit,
	.caps = lend_caps,
	.stat = lend_stat,
	.session_end = lend_session_end,
	.check = lend_check,
	.close = lend_close,
	.watch = lend_watch,
	.unwatch = lend_unwatch,
};

int kv_lend(struct kv *inner, struct kv **ret)
{
	struct lend *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->kv.ops = &lend_ops;
	l->inner = inner;
	lock_init(&l->lock, LOCK_INDEX_IDS);
	*ret = &l->kv;
	return 0;
}
