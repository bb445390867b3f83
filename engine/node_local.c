/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool is in this process: every call is answered before it returns.
 *
 * Threads: any; the pool has a lock.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "engine/tier.h"

struct local {
	struct node node;
	struct pool *pool;
	struct tier *tier;
};

static struct pool *pool_of(struct node *n)
{
	return ((struct local *)n)->pool;
}

static bool local_peek(struct node *n, struct slice_id s, struct slice_view *ret)
{
	return pool_next(pool_of(n), s.page, ret) && ret->id.page == s.page &&
	       ret->id.gen == s.gen;
}

static int local_alloc(struct node *n, uint32_t npages, struct slice_id *ret,
		       uint32_t *ret_npages)
{
	int r = pool_alloc(pool_of(n), npages, ret, ret_npages);

	return r == POOL_FULL ? NODE_FULL : r;
}

static uint32_t local_nfree(struct node *n) { return pool_nfree(pool_of(n)); }

/* local_alloc() asks nobody to wait. */
static void local_want(struct node *n, uint32_t npages, struct node_call *c)
{
	(void)n;
	(void)npages;
	c->done(c, 0);
}

/* Of the length that the index says? */
static int take_one(struct node *n, const struct slice_run *s)
{
	struct slice_view v;
	int r = pool_pin(pool_of(n), s->id);

	if (r < 0 || (local_peek(n, s->id, &v) && v.npages == s->npages))
		return r;
	pool_unpin(pool_of(n), s->id);
	return -ESTALE;
}

static void local_take(struct node *n, const struct slice_run *v, uint32_t nv,
		       struct node_call *c)
{
	struct pool *p = pool_of(n);
	uint32_t i = 0;
	int r = 0;

	for (; !r && i < nv; i++)
		r = take_one(n, &v[i]);
	if (r < 0)
		for (i--; i--;)
			pool_unpin(p, v[i].id);
	c->done(c, r);
}

static void local_seal(struct node *n, const struct slice_run *v, uint32_t nv,
		       struct node_call *c)
{
	struct pool *p = pool_of(n);
	struct slice_view is;

	for (uint32_t i = 0; i < nv; i++) {
		/* The caller holds them: nothing of it can fail. */
		if (local_peek(n, v[i].id, &is) && is.npages > v[i].npages) {
			int r = pool_trim(p, v[i].id, v[i].npages);
			assert(!r);
		}
		int r = pool_seal(p, v[i].id);
		assert(!r);
	}
	c->done(c, 0);
}

static int local_pin(struct node *n, struct slice_id s) { return pool_pin(pool_of(n), s); }
static int local_unpin(struct node *n, struct slice_id s) { return pool_unpin(pool_of(n), s); }

/* One process: what it holds is lost with it. */
static bool local_is_lost(struct node *n, struct slice_id s)
{
	(void)n;
	(void)s;
	return false;
}

static int local_covers(struct node *n, struct slice_id s, uint64_t off, uint32_t len)
{
	struct slice_view is;

	if (!local_peek(n, s, &is))
		return -ESTALE;
	return slice_covers(is.npages, off, len) ? 0 : -EINVAL;
}

static bool local_needs_verify(struct node *n, struct slice_id s, uint32_t block)
{
	return pool_needs_verify(pool_of(n), s, block);
}

static void local_verified(struct node *n, struct slice_id s, uint32_t block)
{
	pool_verified(pool_of(n), s, block);
}

static void local_close(struct node *n)
{
	free(n);
}

static void local_recall(struct node *n, uint64_t fileid, struct place place, bool writes,
			 struct node_call *c)
{
	struct tier *t = ((struct local *)n)->tier;

	if (t)
		tier_recall(t, fileid, place, writes, c);
	else
		c->done(c, writes ? -EROFS : -EIO); /* its disk is not here, and has a copy */
}

static void local_set_tier(struct node *n, struct tier *t)
{
	((struct local *)n)->tier = t;
}

static const struct node_ops local_ops = {
	.name = "local",
	.alloc = local_alloc,
	.want = local_want,
	.take = local_take,
	.seal = local_seal,
	.pin = local_pin,
	.unpin = local_unpin,
	.give_back = local_unpin,
	.nfree = local_nfree,
	.peek = local_peek,
	.is_lost = local_is_lost,
	.covers = local_covers,
	.recall = local_recall,
	.needs_verify = local_needs_verify,
	.verified = local_verified,
	.set_tier = local_set_tier,
	.close = local_close,
};

int node_local_open(struct pool *p, struct node **ret)
{
	struct local *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->node = (struct node){ &local_ops, pool_id(p), pool_npages(p) };
	l->pool = p;
	*ret = &l->node;
	return 0;
}

void node_set_tier(struct node *n, struct tier *t)
{
	n->ops->set_tier(n, t);
}

void node_close(struct node *n)
{
	if (n)
		n->ops->close(n);
}
