/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node around another that is as late as one on another host: calls are
 * answered from a thread of its own, in order. After each want there are a few
 * slices in hand, 1, 2, 4, ... of them, and then alloc has to wait for the next.
 * For tests.
 *
 * Threads: any. Calls wait in a queue under `lock`; the thread hands them on.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/lock.h"
#include "engine/node.h"

enum kind { WANT, TAKE, SEAL, OPEN };
enum { HAND_MAX = 1024 };

struct late {
	enum kind kind;
	uint32_t npages, nv;
	const struct slice_run *v; /* lent to us until the call is done */
	struct node_open *open;
	struct node_call *call;    /* the caller's */
	struct node_call inner;
	struct fault *fault;
	struct late *next;
};

struct fault {
	struct node node;
	struct node_ops ops; /* without what inner has not */
	struct node *inner;

	struct lock lock;
	pthread_cond_t more;
	struct late *first, **last;
	bool ending;
	uint64_t nth;   /* calls until one fails; 0: none will */
	int error;
	uint32_t hand;  /* allocs until the next has to wait */
	uint32_t next;  /* hand, after the next want */

	pthread_t thread;
};

static struct fault *of(struct node *n)
{
	return (struct fault *)n;
}

static void answered(struct node_call *inner, int r)
{
	struct late *l = (struct late *)((char *)inner - offsetof(struct late, inner));
	struct node_call *c = l->call;

	free(l);
	c->done(c, r);
}

static struct late *next_late(struct fault *f, int *ret_error)
{
	WITH_LOCK(&f->lock);

	while (!f->first && !f->ending)
		lock_wait(&f->lock, &f->more);
	struct late *l = f->first;
	if (!l)
		return NULL;
	f->first = l->next;
	if (!f->first)
		f->last = &f->first;
	*ret_error = f->nth && !--f->nth ? f->error : 0;
	if (l->kind == WANT) {
		f->hand = f->next;
		f->next = f->next < HAND_MAX ? f->next * 2 : 1;
	}
	return l;
}

static void hand_on(struct fault *f, struct late *l)
{
	l->inner = (struct node_call){ .of = l->call->of, .done = answered };
	switch (l->kind) {
	case WANT:
		node_want(f->inner, l->npages, &l->inner);
		break;
	case TAKE:
		node_take(f->inner, l->v, l->nv, &l->inner);
		break;
	case SEAL:
		node_seal(f->inner, l->v, l->nv, &l->inner);
		break;
	case OPEN:
		node_open(f->inner, l->open, &l->inner);
		break;
	}
}

static void *run(void *arg)
{
	struct fault *f = arg;
	struct late *l;
	int error = 0;

	pthread_setname_np(pthread_self(), "node-fault");
	while ((l = next_late(f, &error))) {
		if (error)
			answered(&l->inner, error);
		else
			hand_on(f, l);
	}
	return NULL;
}

static void put_off(struct node *n, const struct late *what)
{
	struct fault *f = of(n);
	struct late *l = malloc(sizeof(*l));

	if (!l) {
		what->call->done(what->call, -ENOMEM);
		return;
	}
	*l = *what;
	l->fault = f;
	l->next = NULL;
	WITH_LOCK(&f->lock);
	*f->last = l;
	f->last = &l->next;
	pthread_cond_signal(&f->more);
}

static int fault_alloc(struct node *n, uint32_t npages, struct slice_id *ret,
		       uint32_t *ret_npages)
{
	struct fault *f = of(n);
	{
		WITH_LOCK(&f->lock);
		if (!f->hand)
			return NODE_WAIT;
		f->hand--;
	}
	return node_alloc(f->inner, npages, ret, ret_npages);
}

static void fault_want(struct node *n, uint32_t npages, struct node_call *c)
{
	put_off(n, &(struct late){ .kind = WANT, .npages = npages, .call = c });
}

static void fault_take(struct node *n, const struct slice_run *v, uint32_t nv,
		       struct node_call *c)
{
	put_off(n, &(struct late){ .kind = TAKE, .v = v, .nv = nv, .call = c });
}

static void fault_seal(struct node *n, const struct slice_run *v, uint32_t nv,
		       struct node_call *c)
{
	put_off(n, &(struct late){ .kind = SEAL, .v = v, .nv = nv, .call = c });
}

static void fault_open(struct node *n, struct node_open *o, struct node_call *c)
{
	put_off(n, &(struct late){ .kind = OPEN, .open = o, .call = c });
}

/* Late enough by itself. */
static void fault_recall(struct node *n, uint64_t fileid, struct place place, bool writes,
			  struct node_call *c)
{
	node_recall(of(n)->inner, fileid, place, writes, c);
}

static void fault_set_tier(struct node *n, struct tier *t)
{
	node_set_tier(of(n)->inner, t);
}

static int fault_pin(struct node *n, struct slice_id s) { return node_pin(of(n)->inner, s); }
static int fault_unpin(struct node *n, struct slice_id s) { return node_unpin(of(n)->inner, s); }

static int fault_give_back(struct node *n, struct slice_id s)
{
	return node_give_back(of(n)->inner, s);
}

static bool fault_is_lost(struct node *n, struct slice_id s)
{
	return node_is_lost(of(n)->inner, s);
}

static int fault_covers(struct node *n, struct slice_id s, uint64_t off, uint32_t len)
{
	return node_covers(of(n)->inner, s, off, len);
}

static uint32_t fault_nfree(struct node *n) { return node_nfree(of(n)->inner); }

static bool fault_peek(struct node *n, struct slice_id s, struct slice_view *ret)
{
	return node_peek(of(n)->inner, s, ret);
}

static bool fault_needs_verify(struct node *n, struct slice_id s, uint32_t block)
{
	return node_needs_verify(of(n)->inner, s, block);
}

static void fault_verified(struct node *n, struct slice_id s, uint32_t block)
{
	node_verified(of(n)->inner, s, block);
}

static void fault_close(struct node *n)
{
	struct fault *f = of(n);
	{
		WITH_LOCK(&f->lock);
		assert(!f->first);
		f->ending = true;
		pthread_cond_signal(&f->more);
	}
	pthread_join(f->thread, NULL);
	node_close(f->inner);
	pthread_cond_destroy(&f->more);
	lock_fini(&f->lock);
	free(f);
}

static const struct node_ops fault_ops = {
	.name = "fault",
	.alloc = fault_alloc,
	.want = fault_want,
	.take = fault_take,
	.seal = fault_seal,
	.open = fault_open,
	.recall = fault_recall,
	.set_tier = fault_set_tier,
	.pin = fault_pin,
	.unpin = fault_unpin,
	.give_back = fault_give_back,
	.nfree = fault_nfree,
	.peek = fault_peek,
	.is_lost = fault_is_lost,
	.covers = fault_covers,
	.needs_verify = fault_needs_verify,
	.verified = fault_verified,
	.close = fault_close,
};

int node_fault_open(struct node *inner, struct node **ret)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->node = *inner;
	f->ops = fault_ops;
	if (!node_opens(inner))
		f->ops.open = NULL;
	f->node.ops = &f->ops;
	f->inner = inner;
	f->last = &f->first;
	f->next = 1;
	lock_init(&f->lock, LOCK_NODE);
	lock_cond_init(&f->more);
	int r = pthread_create(&f->thread, NULL, run, f);
	if (r) {
		pthread_cond_destroy(&f->more);
		lock_fini(&f->lock);
		free(f);
		return -r;
	}
	*ret = &f->node;
	return 0;
}

void node_fault_arm(struct node *n, uint64_t nth, int error)
{
	struct fault *f = of(n);

	assert(f->node.ops == &f->ops);
	WITH_LOCK(&f->lock);
	f->nth = nth;
	f->error = error;
}
