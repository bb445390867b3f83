/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices of another host's node that nobody uses yet; see node_remote.c.
 */
#include <assert.h>
#include <errno.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/far.h"
#include "index/index.h"

enum {
	BIN_WIDER = 2,       /* a slice may be 2^n times as long as was asked for */
	AHEAD_MAX = 64,      /* slices of a bin */
	IDLE_MS = 500,       /* what was not used for that long is given back */
	REFILLS_MAX = 4,     /* in that time: more, and there is more ahead */
	LOOK_MS = 20,        /* how late the end of a want may be */
	ASK_S = 10,          /* what nobody waits for is given up */
};

_Static_assert(1 << (FAR_BINS - 1) == SLICE_PAGES_MAX, "a bin for each length");

static void finish_all(struct node_call *list)
{
	for (struct node_call *next; list; list = next) {
		next = list->next;
		far_finish(list, list->result);
	}
}

static uint32_t bin_at_least(uint32_t npages)
{
	return npages < 2 ? 0 : 32 - (uint32_t)__builtin_clz(npages - 1);
}

static uint32_t bin_of(uint32_t npages)
{
	return 31 - (uint32_t)__builtin_clz(npages);
}

static void idle_tick(void *arg);

/* The stock's own timer; without memory for it, what is there stays until close. */
static void start_idle(struct remote_node *n)
{
	if (!n->idle && !n->closing)
		(void)loop_timer_new(n->loop, IDLE_MS, IDLE_MS, idle_tick, n, &n->idle);
}

static void stock_put(struct remote_node *n, struct held *h)
{
	struct bin *b = &n->bins[bin_of(h->npages)];

	h->next = b->first;
	b->first = h;
	b->n++;
	n->stock_pages += h->npages;
	metric_add(M_STOCK, h->npages * (int64_t)PAGE_BYTES);
	start_idle(n);
}

static struct held *stock_take(struct remote_node *n, struct bin *b)
{
	struct held *h = b->first;

	if (!h)
		return NULL;
	b->first = h->next;
	b->n--;
	if (b->least > b->n)
		b->least = b->n;
	n->stock_pages -= h->npages;
	metric_add(M_STOCK, -(h->npages * (int64_t)PAGE_BYTES));
	return h;
}

static struct held *stock_find(struct remote_node *n, uint32_t npages)
{
	uint32_t at = bin_at_least(npages), end = n->tight ? FAR_BINS : at + BIN_WIDER + 1;
	struct held *h = NULL;

	for (uint32_t i = at; !h && i < end && i < FAR_BINS; i++)
		h = stock_take(n, &n->bins[i]);
	for (uint32_t i = at; n->tight && !h && i--;)
		h = stock_take(n, &n->bins[i]);
	return h;
}

static uint32_t ahead_max(const struct remote_node *n, uint32_t bin)
{
	uint32_t most = n->stock_max >> bin;

	return most < AHEAD_MAX ? most : AHEAD_MAX;
}

/* How many slices of this bin there may be more. */
static uint32_t ahead_room(const struct remote_node *n, uint32_t bin)
{
	const struct bin *b = &n->bins[bin];
	uint32_t want = b->ahead > b->n ? b->ahead - b->n : 0;
	uint32_t room = n->stock_pages < n->stock_max ? (n->stock_max - n->stock_pages) >> bin : 0;

	return n->tight ? 0 : want < room ? want : room;
}

static void more_ahead(struct remote_node *n, uint32_t bin)
{
	struct bin *b = &n->bins[bin];
	uint32_t ahead = b->ahead ? b->ahead * 2 : 1, most = ahead_max(n, bin);

	b->ahead = ahead < most ? ahead : most;
}

static void refill(struct remote_node *n, uint32_t bin)
{
	struct bin *b = &n->bins[bin];

	if (b->asking || b->n * 2 >= b->ahead || !ahead_room(n, bin) || n->closing)
		return;
	if (++b->refills > REFILLS_MAX) {
		b->refills = 0;
		more_ahead(n, bin);
	}
	b->asking = b->refill = true;
	far_post_turn(n);
}

int far_alloc(struct node *node, uint32_t npages, struct slice_id *ret,
			uint32_t *ret_npages)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = stock_find(n, npages);

	if (!h)
		return NODE_WAIT;
	refill(n, bin_at_least(npages));
	if (far_find(n, h->id)) { /* which the node has given before */
		free(h);
		return -EIO;
	}
	far_add(n, h);
	far_pin(h);
	*ret = h->id;
	*ret_npages = h->npages;
	return 0;
}

static void alloc_answer(struct ask *a, int r, struct bytes body, bool late);

/* For all that wait, and some ahead; under the lock. NULL: out of memory. */
static struct ask *alloc_ask(struct remote_node *n, uint32_t bin)
{
	struct bin *b = &n->bins[bin];
	uint32_t nwaiting = 0, ahead = n->closing ? 0 : ahead_room(n, bin), at = 0;

	for (struct node_call *c = b->waiting; c && nwaiting < UINT16_MAX / 2; c = c->next)
		nwaiting++;
	struct ask *a = far_ask_new(n, WIRE_ALLOC, nwaiting + ahead, alloc_answer);
	if (!a)
		return NULL;
	a->bin = bin;
	a->was_tight = n->tight;
	a->call.of = &n->ahead;
	a->call.deadline_ns = clock_ns() + ASK_S * NS_PER_S;
	for (struct node_call *c = b->waiting; at < nwaiting; c = c->next)
		a->v[at++].wire.pages = n->tight ? c->npages : 1u << bin;
	while (at < a->nv)
		a->v[at++].wire.pages = 1u << bin;
	return a;
}

static struct node_call *take_waiting(struct bin *b, int r)
{
	struct node_call *list = b->waiting;

	for (struct node_call *c = list; c; c = c->next)
		c->result = r;
	b->waiting = NULL;
	b->last = &b->waiting;
	return list;
}

/* Asks for slices of this bin, which is marked as asking. */
void far_ask_alloc(struct remote_node *n, uint32_t bin)
{
	struct node_call *failed = NULL;
	struct ask *a;
	{
		WITH_LOCK(&n->lock);
		a = alloc_ask(n, bin);
		if (!a || !a->nv) { /* out of memory, or nobody needs any now */
			n->bins[bin].asking = false;
			failed = take_waiting(&n->bins[bin], -ENOMEM);
		}
	}
	if (a && a->nv)
		far_ask_begin(a);
	else if (a)
		far_ask_free(a);
	finish_all(failed);
}

/* Is what the node gives possible at all? */
bool far_is_slice(const struct remote_node *n, const struct wire_item *v)
{
	return v->pages && v->pages <= SLICE_PAGES_MAX && v->slice.page < n->node.npages &&
	       v->pages <= n->node.npages - v->slice.page;
}

/* Into stock; those for which there is no memory are given back. *ret_short: there is no
 * run in the pool that is as long as was asked for. */
static int stock_answer(struct remote_node *n, const struct ask *a, struct bytes body,
			uint32_t *ret_n, bool *ret_short)
{
	struct unpins back = { 0 };
	struct wire_items got;
	int r = wire_read_items(body, WIRE_SLICE_PAGES, &got);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < got.n; i++)
		if (got.n > a->nv || !far_is_slice(n, &got.v[i]))
			r = -EPROTO;
	for (uint32_t i = 0; !r && i < got.n; i++) {
		*ret_short |= got.v[i].pages < a->v[i].wire.pages;
		struct held *h = far_held_new(got.v[i].slice, got.v[i].pages);
		WITH_LOCK(&n->lock);
		if (h && !n->closing) {
			h->writing = true;
			h->node_pins = 1;
			stock_put(n, h);
			continue;
		}
		free(h);
		far_unpins_add(&back, got.v[i].slice, 1);
	}
	*ret_n = got.n;
	wire_items_fini(&got);
	far_unpins_send(n, &back);
	return r;
}

/* What those who waited are told: to try again, or why not. */
static int alloc_outcome(struct remote_node *n, const struct ask *a, int r, uint32_t got,
			 bool is_short)
{
	if (r == -EAGAIN)
		return -ENOSPC; /* the session has as many as it may */
	if (r < 0)
		return r;
	n->tight = r == POOL_FULL || is_short;
	if (got || r != POOL_FULL)
		return 0;
	/* Any length serves from now on; who has tried that already has failed. */
	return a->was_tight || !n->stock_pages ? -ENOSPC : 0;
}

static void alloc_answer(struct ask *a, int r, struct bytes body, bool late)
{
	struct remote_node *n = a->n;
	struct bin *b = &n->bins[a->bin];
	struct node_call *list = NULL;
	uint32_t got = 0;
	bool more, is_short = false;

	if (r >= 0) {
		int bad = stock_answer(n, a, body, &got, &is_short);
		if (bad < 0) {
			remote_stop(n->remote, bad);
			r = -EIO;
		}
	}
	if (late)
		return;
	{
		WITH_LOCK(&n->lock);
		int outcome = alloc_outcome(n, a, r, got, is_short);
		/* It was given up, and they were not. */
		more = (r == -ETIMEDOUT || r == -ECANCELED) && b->waiting && !n->closing;
		if (!more) {
			b->asking = false;
			list = take_waiting(b, outcome);
		}
	}
	if (more)
		far_ask_alloc(n, a->bin);
	finish_all(list);
}

static int call_given_up(const struct node_call *c, uint64_t now)
{
	if (kv_call_is_cancelled(c->of))
		return -ECANCELED;
	return c->of && c->of->deadline_ns && now >= c->of->deadline_ns ? -ETIMEDOUT : 0;
}

/* Those who are given up, out of all bins. */
static struct node_call *take_given_up(struct remote_node *n, bool *ret_left)
{
	struct node_call *list = NULL;
	uint64_t now = clock_ns();

	for (struct bin *b = n->bins; b < n->bins + FAR_BINS; b++) {
		struct node_call **at = &b->waiting;
		while (*at) {
			struct node_call *c = *at;
			c->result = call_given_up(c, now);
			if (!c->result) {
				at = &c->next;
				continue;
			}
			*at = c->next;
			c->next = list;
			list = c;
		}
		b->last = at;
		*ret_left |= b->waiting != NULL;
	}
	return list;
}

static void look(void *arg)
{
	struct remote_node *n = arg;
	struct node_call *list;
	{
		WITH_LOCK(&n->lock);
		bool left = false;
		list = take_given_up(n, &left);
		if (!left) {
			loop_timer_free(n->look); /* NULL: close() does */
			n->look = NULL;
		}
	}
	finish_all(list);
}

/* Somebody has to wait: there were too few ahead. */
static int want_locked(struct remote_node *n, struct node_call *c, uint32_t bin)
{
	struct bin *b = &n->bins[bin];

	if (!n->look) {
		int r = loop_timer_new(n->loop, LOOK_MS, LOOK_MS, look, n, &n->look);
		if (r < 0)
			return r;
	}
	c->next = NULL;
	*b->last = c;
	b->last = &c->next;
	if (b->asking)
		return 0;
	b->asking = true;
	more_ahead(n, bin);
	return 1;
}

void far_want(struct node *node, uint32_t npages, struct node_call *c)
{
	struct remote_node *n = far_of(node);
	uint32_t bin = bin_at_least(npages);
	int r = call_given_up(c, clock_ns());

	assert(npages && npages <= SLICE_PAGES_MAX);
	c->npages = npages;
	if (!r) {
		WITH_LOCK(&n->lock);
		assert(!n->closing);
		r = want_locked(n, c, bin);
	}
	if (r > 0)
		far_ask_alloc(n, bin);
	else if (r < 0)
		far_finish(c, r);
}

/* What lay there all the time is more than is used. */
static void take_idle(struct remote_node *n, struct unpins *ret)
{
	for (struct bin *b = n->bins; b < n->bins + FAR_BINS; b++) {
		if (b->least)
			b->ahead /= 2;
		while (b->least && b->n) {
			struct held *h = stock_take(n, b);
			far_unpins_add(ret, h->id, h->node_pins);
			free(h);
			b->least--;
		}
		b->least = b->n;
		b->refills = 0;
		if (!b->n)
			b->ahead /= 2;
	}
}

static void idle_tick(void *arg)
{
	struct remote_node *n = arg;
	struct unpins u = { 0 };
	{
		WITH_LOCK(&n->lock);
		take_idle(n, &u);
		if (!n->stock_pages) {
			loop_timer_free(n->idle); /* NULL: close() does */
			n->idle = NULL;
		}
	}
	far_unpins_send(n, &u);
}

int far_give_back(struct node *node, struct slice_id s)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	if (h->pins > 1 || h->lost || h->dropped || !h->writing || n->closing) {
		far_unpin(n, h);
		return 0;
	}
	h->pins = 0;
	metric_add(M_REMOTE_PINS, -1);
	HASH_DEL(n->table, h);
	stock_put(n, h);
	return 0;
}

void far_drop_stock(struct remote_node *n, struct unpins *ret)
{
	struct held *h;

	for (struct bin *b = n->bins; b < n->bins + FAR_BINS; b++) {
		while ((h = stock_take(n, b))) {
			far_unpins_add(ret, h->id, h->node_pins);
			free(h);
		}
	}
}

