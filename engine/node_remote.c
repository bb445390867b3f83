/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another host's node: its slices, through one link (engine/remote.h).
 *
 *	stock -----alloc----> table <------ PIN's answer ------ take
 *	  ^ <---give_back----   |
 *	  |                     | last unpin
 *	ALLOC's answer          '-----> dropped --- next turn ---> UNPIN
 *
 * Stock. Slices that the node has given to this session and nobody uses yet lie in
 * bins, bin n having those of [2^n, 2^(n+1)) pages; ALLOC asks for powers of two,
 * and sealing gives back what is too long. Each bin has at most one ALLOC under
 * way, which serves all that wait for it, and brings some more: `ahead`, which
 * doubles whenever somebody had to wait and shrinks when slices lie idle. When half
 * of that is used up more is asked for, so that a steady writer never waits. Once
 * the node has said that its pool is full (`tight`), nothing is asked for ahead, and
 * a slice of any length serves whoever needs one: so there is no room in stock that
 * a write which fails for lack of it could have had.
 *
 * Only what was not written to since alloc goes back to stock (give_back). A slice
 * that was may have a WRITE on its way which nobody waits for any more; it goes
 * back to the node, which takes none for what the session does not hold.
 *
 * Pins. A slice has two counts: ours, of files and reads, and how many pins of the
 * node's are our session's. Answers add to the second, whoever waits for them; it
 * is given back as a whole when the first comes down to 0. So it does not matter in
 * which order UNPINs and PINs of one slice reach the node, nor how many there are.
 *
 * Answers that come too late, because a call was cancelled or past its deadline,
 * are taken like others (conn.h's late()): slices go to stock, pins are given back.
 *
 * Sessions. When one ends, its stock and what it was writing is gone: marked `lost`,
 * and only counted from then on. All else is pinned anew in the next session before
 * anybody uses that; what the node refuses is lost. All answers of a session have
 * come before lost(), so that what an answer says is of the session that is there.
 *
 * Threads: any. `lock` guards all of it; messages are sent with no lock held, those
 * without an answer by the loop.
 */
#include "engine/node_remote.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

/* Pages are spread by one multiplication. */
static inline unsigned slice_hash(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return (unsigned)((v * 0x9e3779b97f4a7c15ULL) >> 32);
}
#define HASH_FUNCTION(p, len, hash) ((hash) = slice_hash(p))
#include <uthash.h>

#include "common/array.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "index/index.h"

enum {
	BINS = 11,           /* 1 .. 1024 pages */
	BIN_WIDER = 2,       /* a slice may be 2^n times as long as was asked for */
	AHEAD_MAX = 64,      /* slices of a bin */
	STOCK_PAGES = 4096,  /* 16 MiB; and a sixteenth of the pool */
	IDLE_MS = 500,       /* what was not used for that long is given back */
	LOOK_MS = 20,        /* how late the end of a want may be */
	ASK_S = 10,          /* what nobody waits for is given up */
	PIN_LOT = 4096,      /* slices of one PIN, when all are pinned again */
	UNPIN_LOT = 4096,
};

_Static_assert(1 << (BINS - 1) == SLICE_PAGES_MAX, "a bin for each length");

struct held {
	struct slice_id id;
	uint32_t npages;
	uint32_t pins;      /* of files and reads */
	uint32_t node_pins; /* of our session, that we know of */
	uint64_t verify;    /* bit n: block n is to be compared before it is believed */
	bool writing;       /* as far as we know */
	bool lost;
	bool dropped;       /* in the list of those that nobody has pinned */
	struct held *next;  /* in stock, or dropped */
	UT_hash_handle hh;
};

struct bin {
	struct held *first;
	uint32_t n;
	uint32_t least;          /* n was, since the last look at idle ones */
	uint32_t ahead;
	bool asking;             /* an ALLOC is out, or about to be */
	bool refill;             /* it is to be sent by the loop */
	struct node_call *waiting, **last;
};

struct remote_node {
	struct node node;
	struct remote *remote;
	struct loop *loop;
	struct remote_part part;
	uint32_t stock_max; /* pages */
	atomic_uint refs;   /* the opener's, and each ask's */

	struct lock lock;
	struct held *table;
	struct bin bins[BINS];
	uint32_t stock_pages;
	bool tight, closing;
	struct held *dropped;
	bool posted;              /* `turn` is */
	struct loop_call turn;
	struct loop_timer *look;  /* while somebody waits for slices */
	struct loop_timer *idle;  /* while there is stock */
	uint32_t nasks;           /* whose done() is to come */
	pthread_cond_t no_asks;
	struct kv_call ahead;     /* what ALLOCs are a part of */
};

static struct remote_node *of(struct node *n)
{
	return (struct remote_node *)n;
}

static void node_unref(struct remote_node *n)
{
	if (atomic_fetch_sub(&n->refs, 1) > 1)
		return;
	pthread_cond_destroy(&n->no_asks);
	lock_fini(&n->lock);
	free(n);
}

static void finish(struct node_call *c, int r)
{
	c->done(c, r);
}

static void finish_all(struct node_call *list)
{
	for (struct node_call *next; list; list = next) {
		next = list->next;
		finish(list, list->result);
	}
}

/* Asking --------------------------------------------------------------------------- */

/* A request that is out. It lives until done(), or until late(). */
struct ask {
	struct conn_call call; /* first: done() gets it */
	struct remote_node *n;
	void (*answer)(struct ask *a, int r, struct bytes body, bool late);
	struct node_call *of;  /* of PIN, SEAL and OPEN */
	struct node_open *open;
	uint64_t fileid;       /* of OPEN */
	uint32_t bin;          /* of ALLOC */
	bool was_tight;
	uint32_t nv;
	struct ask_item {
		struct wire_item wire;
		uint32_t pins; /* that it is for */
		bool here;     /* was pinned at once */
	} v[];
};

static struct ask *ask_new(struct remote_node *n, uint16_t type, uint32_t nv,
			   void (*answer)(struct ask *a, int r, struct bytes body, bool late))
{
	struct ask *a = calloc(1, sizeof(*a) + nv * sizeof(a->v[0]));

	if (!a)
		return NULL;
	a->n = n;
	a->nv = nv;
	a->answer = answer;
	a->call.type = type;
	atomic_fetch_add(&n->refs, 1);
	return a;
}

static void ask_free(struct ask *a)
{
	struct remote_node *n = a->n;

	free(a);
	node_unref(n);
}

static void ask_ended(struct remote_node *n)
{
	WITH_LOCK(&n->lock);
	if (!--n->nasks)
		pthread_cond_broadcast(&n->no_asks);
}

static void ask_late(struct conn_call *call, int r, struct bytes body)
{
	struct ask *a = (struct ask *)call;

	a->answer(a, r, body, true);
	ask_free(a);
}

static void ask_send(struct ask *a);

/* What a session's end left without an answer goes to the next: it had no effect
 * that is left. What was not sent even so has no session to come. */
static bool asks_again(const struct ask *a, int r)
{
	return r == -ENOTCONN && a->call.sent && !a->call.answered && !a->call.session;
}

static void ask_done(struct conn_call *call, int r, struct bytes body)
{
	struct ask *a = (struct ask *)call;
	struct remote_node *n = a->n;

	if (asks_again(a, r)) {
		ask_send(a);
		return;
	}
	bool owes_late = call->owes_late;
	a->answer(a, r, body, false);
	if (!owes_late)
		ask_free(a);
	ask_ended(n);
}

static void items_of(const struct ask *a, struct wire_items *ret)
{
	ret->n = 0;
	for (uint32_t i = 0; i < a->nv; i++)
		if (!a->v[i].here)
			ret->v[ret->n++] = a->v[i].wire;
}

static void write_open(struct ask *a)
{
	const struct node_open *o = a->open;
	struct wire_open m = { o->fileid, BYTES_OF(o->at.from, o->at.nfrom),
			       BYTES_OF(o->at.to, o->at.nto), o->max };

	wire_write_open(&a->call.body, &m);
}

static void write_ask(struct ask *a)
{
	if (a->call.type == WIRE_OPEN) {
		write_open(a);
		return;
	}
	struct wire_items m = { .v = malloc((a->nv ? a->nv : 1) * sizeof(*m.v)) };

	if (!m.v) {
		a->call.body.bad = true; /* -ENOMEM */
		return;
	}
	items_of(a, &m);
	if (a->call.type == WIRE_PIN)
		wire_write_pin(&a->call.body, &(struct wire_pin){ .items = m });
	else
		wire_write_items(&a->call.body,
				 a->call.type == WIRE_ALLOC ? WIRE_PAGES : WIRE_SLICE_PAGES, &m);
	free(m.v);
}

static void ask_send(struct ask *a)
{
	a->call.done = ask_done;
	a->call.late = ask_late;
	write_ask(a);
	remote_call(a->n->remote, &a->call);
}

/* The first time. */
static void ask_begin(struct ask *a)
{
	{
		WITH_LOCK(&a->n->lock);
		a->n->nasks++;
	}
	ask_send(a);
}

static void ask_is_part_of(struct ask *a, struct node_call *c)
{
	a->of = c;
	a->call.of = c->of;
	a->call.deadline_ns = c->of ? c->of->deadline_ns : 0;
}

/* Of the session that is there; if there is none, there is nothing to give back. */
static void unpin_at_node(struct remote_node *n, const struct wire_item *v, uint32_t nv)
{
	uint64_t session = remote_session(n->remote);

	for (uint32_t at = 0; session && at < nv; at += UNPIN_LOT) {
		uint32_t k = nv - at < UNPIN_LOT ? nv - at : UNPIN_LOT;
		struct writer w = { 0 };
		wire_write_items(&w, WIRE_SLICES,
				 &(struct wire_items){ k, (struct wire_item *)v + at });
		remote_send(n->remote, session, WIRE_UNPIN, w);
	}
}

/* A list of slices that grows; what it has no memory for ends the session, which
 * gives it back. */
struct unpins {
	struct wire_item *v;
	uint32_t n, cap;
	bool bad;
};

static void unpins_add(struct unpins *u, struct slice_id s, uint32_t times)
{
	while (times--) {
		if (array_room(u->v, u->cap, u->n + 1, 16) < 0)
			u->bad = true;
		else
			u->v[u->n++] = (struct wire_item){ .slice = s };
	}
}

static void unpins_send(struct remote_node *n, struct unpins *u)
{
	if (u->bad)
		remote_stop(n->remote, -ENOMEM);
	else
		unpin_at_node(n, u->v, u->n);
	free(u->v);
	*u = (struct unpins){ 0 };
}

/* The table ------------------------------------------------------------------------- */

static struct held *find(struct remote_node *n, struct slice_id s)
{
	struct held *h;

	HASH_FIND(hh, n->table, &s, sizeof(s), h);
	return h;
}

static void add(struct remote_node *n, struct held *h)
{
	h->next = NULL;
	HASH_ADD(hh, n->table, id, sizeof(h->id), h);
}

static struct held *held_new(struct slice_id s, uint32_t npages)
{
	struct held *h = calloc(1, sizeof(*h));

	if (h) {
		h->id = s;
		h->npages = npages;
	}
	return h;
}

static void pin_locked(struct held *h)
{
	h->pins++;
	metric_add(M_REMOTE_PINS, 1);
}

static void post_turn(struct remote_node *n)
{
	if (n->posted)
		return;
	n->posted = true;
	loop_post_call(n->loop, &n->turn);
}

/* The last pin puts it aside: who takes it before the loop's next turn has it. */
static void unpin_locked(struct remote_node *n, struct held *h)
{
	assert(h->pins);
	h->pins--;
	metric_add(M_REMOTE_PINS, -1);
	if (h->pins || h->dropped)
		return;
	h->dropped = true;
	h->next = n->dropped;
	n->dropped = h;
	post_turn(n);
}

/* What was dropped, and not taken again: of the table no more. */
static void take_dropped(struct remote_node *n, struct unpins *ret)
{
	WITH_LOCK(&n->lock);
	for (struct held *h = n->dropped, *next; h; h = next) {
		next = h->next;
		h->dropped = false;
		if (h->pins)
			continue;
		unpins_add(ret, h->id, h->node_pins);
		HASH_DEL(n->table, h);
		free(h);
	}
	n->dropped = NULL;
}

/* Stock ----------------------------------------------------------------------------- */

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
	uint32_t at = bin_at_least(npages), end = n->tight ? BINS : at + BIN_WIDER + 1;
	struct held *h = NULL;

	for (uint32_t i = at; !h && i < end && i < BINS; i++)
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

static void refill(struct remote_node *n, uint32_t bin)
{
	struct bin *b = &n->bins[bin];

	if (b->asking || b->n * 2 >= b->ahead || !ahead_room(n, bin) || n->closing)
		return;
	b->asking = b->refill = true;
	post_turn(n);
}

static int remote_alloc(struct node *node, uint32_t npages, struct slice_id *ret,
			uint32_t *ret_npages)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = stock_find(n, npages);

	if (!h)
		return NODE_WAIT;
	refill(n, bin_at_least(npages));
	add(n, h);
	pin_locked(h);
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
	struct ask *a = ask_new(n, WIRE_ALLOC, nwaiting + ahead, alloc_answer);
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
static void alloc_begin(struct remote_node *n, uint32_t bin)
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
		ask_begin(a);
	else if (a)
		ask_free(a);
	finish_all(failed);
}

/* Is what the node gives possible at all? */
static bool is_slice(const struct remote_node *n, const struct wire_item *v)
{
	return v->pages && v->pages <= SLICE_PAGES_MAX && v->slice.page < n->node.npages &&
	       v->pages <= n->node.npages - v->slice.page;
}

/* Into stock; those for which there is no memory are given back. */
static int stock_answer(struct remote_node *n, const struct ask *a, struct bytes body,
			uint32_t *ret_n)
{
	struct unpins back = { 0 };
	struct wire_items got;
	int r = wire_read_items(body, WIRE_SLICE_PAGES, &got);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < got.n; i++)
		if (got.n > a->nv || !is_slice(n, &got.v[i]))
			r = -EPROTO;
	for (uint32_t i = 0; !r && i < got.n; i++) {
		struct held *h = held_new(got.v[i].slice, got.v[i].pages);
		WITH_LOCK(&n->lock);
		if (h && !n->closing) {
			h->writing = true;
			h->node_pins = 1;
			stock_put(n, h);
			continue;
		}
		free(h);
		unpins_add(&back, got.v[i].slice, 1);
	}
	*ret_n = got.n;
	wire_items_fini(&got);
	unpins_send(n, &back);
	return r;
}

/* What those who waited are told: to try again, or why not. */
static int alloc_outcome(struct remote_node *n, const struct ask *a, int r, uint32_t got)
{
	if (r == -EAGAIN)
		return -ENOSPC; /* the session has as many as it may */
	if (r < 0)
		return r;
	n->tight = r == POOL_FULL;
	if (got || !n->tight)
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
	bool more;

	if (r >= 0) {
		int bad = stock_answer(n, a, body, &got);
		if (bad < 0) {
			remote_stop(n->remote, bad);
			r = -EIO;
		}
	}
	if (late)
		return;
	{
		WITH_LOCK(&n->lock);
		int outcome = alloc_outcome(n, a, r, got);
		/* It was given up, and they were not. */
		more = (r == -ETIMEDOUT || r == -ECANCELED) && b->waiting && !n->closing;
		if (!more) {
			b->asking = false;
			list = take_waiting(b, outcome);
		}
	}
	if (more)
		alloc_begin(n, a->bin);
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

	for (struct bin *b = n->bins; b < n->bins + BINS; b++) {
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
	uint32_t ahead = b->ahead ? b->ahead * 2 : 1, most = ahead_max(n, bin);
	b->ahead = ahead < most ? ahead : most;
	return 1;
}

static void remote_want(struct node *node, uint32_t npages, struct node_call *c)
{
	struct remote_node *n = of(node);
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
		alloc_begin(n, bin);
	else if (r < 0)
		finish(c, r);
}

/* What lay there all the time is more than is used. */
static void take_idle(struct remote_node *n, struct unpins *ret)
{
	for (struct bin *b = n->bins; b < n->bins + BINS; b++) {
		if (b->least)
			b->ahead /= 2;
		while (b->least && b->n) {
			struct held *h = stock_take(n, b);
			unpins_add(ret, h->id, h->node_pins);
			free(h);
			b->least--;
		}
		b->least = b->n;
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
	unpins_send(n, &u);
}

static int remote_give_back(struct node *node, struct slice_id s)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	if (h->pins > 1 || h->lost || h->dropped || !h->writing || n->closing) {
		unpin_locked(n, h);
		return 0;
	}
	h->pins = 0;
	metric_add(M_REMOTE_PINS, -1);
	HASH_DEL(n->table, h);
	stock_put(n, h);
	return 0;
}

/* Pins ------------------------------------------------------------------------------- */

static int remote_pin(struct node *node, struct slice_id s)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	pin_locked(h);
	return 0;
}

static int remote_unpin(struct node *node, struct slice_id s)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	unpin_locked(n, h);
	return 0;
}

static uint64_t all_blocks(uint32_t npages)
{
	uint32_t n = (npages + SUM_PAGES - 1) / SUM_PAGES;

	return n >= 64 ? UINT64_MAX : (1ULL << n) - 1;
}

/* The node has pinned it for us once. */
static int pinned_locked(struct remote_node *n, const struct wire_item *w, int32_t result)
{
	struct held *h = find(n, w->slice);

	if (!h) {
		h = held_new(w->slice, w->pages);
		if (!h)
			return -ENOMEM;
		add(n, h);
		if (result == WIRE_UNVERIFIED)
			h->verify = all_blocks(w->pages);
	}
	h->node_pins++;
	return 0;
}

/* One that stays until it is dropped, whoever has pins on it. */
static void touch_locked(struct remote_node *n, struct slice_id s)
{
	struct held *h = find(n, s);

	if (h && !h->pins) {
		pin_locked(h);
		unpin_locked(n, h);
	}
}

/* Adds what the answer says to the table, and the pins that it was for if `wanted`;
 * what nobody wants is dropped. */
static int pins_answer(struct ask *a, const struct wire_results *got, bool wanted)
{
	struct remote_node *n = a->n;
	struct unpins back = { 0 };
	uint32_t k = 0;
	int r = 0;
	{
		WITH_LOCK(&n->lock);
		for (uint32_t i = 0; i < a->nv; i++) {
			struct wire_item *w = &a->v[i].wire;
			if (a->v[i].here)
				continue;
			int bad = pinned_locked(n, w, got->v[k++]);
			if (bad < 0) {
				unpins_add(&back, w->slice, 1);
				r = bad;
				continue;
			}
			for (uint32_t p = 0; wanted && p < a->v[i].pins; p++)
				pin_locked(find(n, w->slice));
			if (wanted)
				a->v[i].here = true;
			else
				touch_locked(n, w->slice);
		}
	}
	unpins_send(n, &back);
	return r;
}

/* All that it has pinned so far, or 0 if it has them all and none is lost. */
static int take_settle(struct ask *a, int r)
{
	struct remote_node *n = a->n;
	WITH_LOCK(&n->lock);

	for (uint32_t i = 0; !r && i < a->nv; i++) {
		struct held *h = find(n, a->v[i].wire.slice);
		if (!h || h->lost)
			r = -ESTALE;
	}
	for (uint32_t i = 0; r < 0 && i < a->nv; i++) {
		struct held *h = a->v[i].here ? find(n, a->v[i].wire.slice) : NULL;
		for (uint32_t p = 0; h && p < a->v[i].pins; p++)
			unpin_locked(n, h);
	}
	return r;
}

static int take_error(int r)
{
	return r == -EINVAL ? -ESTALE : /* it has another length */
	       r == -EAGAIN ? -ENFILE : r;
}

static void take_answer(struct ask *a, int r, struct bytes body, bool late)
{
	struct wire_results got = { 0 };
	struct node_call *c = a->of;
	uint32_t asked = 0;

	for (uint32_t i = 0; i < a->nv; i++)
		asked += !a->v[i].here;
	if (r >= 0) {
		r = wire_read_results(body, &got);
		if (!r && got.n != asked)
			r = -EPROTO;
		if (r < 0)
			remote_stop(a->n->remote, r);
		else
			r = pins_answer(a, &got, !late);
		wire_results_fini(&got);
	}
	if (late)
		return;
	r = take_settle(a, take_error(r));
	finish(c, r);
}

/* Pinned here at once if it can be. */
static int take_begin(struct remote_node *n, struct ask *a, const struct slice_run *v, uint32_t nv,
		      bool *ret_asks)
{
	WITH_LOCK(&n->lock);

	a->nv = 0;
	for (uint32_t i = 0; i < nv; i++) {
		struct held *h = find(n, v[i].id);
		struct ask_item *last = a->nv ? &a->v[a->nv - 1] : NULL;
		bool here = h && h->node_pins;
		if (h && (h->lost || h->npages != v[i].npages))
			return -ESTALE;
		if (here)
			pin_locked(h);
		*ret_asks |= !here;
		if (last && last->here == here && last->wire.slice.page == v[i].id.page &&
		    last->wire.slice.gen == v[i].id.gen && last->wire.pages == v[i].npages)
			last->pins++;
		else
			a->v[a->nv++] = (struct ask_item){ { v[i].id, v[i].npages }, 1, here };
	}
	return 0;
}

static void remote_take(struct node *node, const struct slice_run *v, uint32_t nv,
			struct node_call *c)
{
	struct remote_node *n = of(node);
	struct ask *a = nv <= UINT16_MAX ? ask_new(n, WIRE_PIN, nv, take_answer) : NULL;
	bool asks = false;

	if (!a) {
		finish(c, nv <= UINT16_MAX ? -ENOMEM : -E2BIG);
		return;
	}
	ask_is_part_of(a, c);
	int r = take_begin(n, a, v, nv, &asks);
	if (!r && asks) {
		ask_begin(a);
		return;
	}
	if (r < 0)
		take_settle(a, r);
	ask_free(a);
	finish(c, r);
}

/* Opening ---------------------------------------------------------------------------- */

static struct slice_id slice_of(const struct extent *x)
{
	return (struct slice_id){ x->slice, x->gen };
}

static int opened_pin(struct remote_node *n, const struct extent *x, int32_t result)
{
	struct wire_item w = { slice_of(x), x->slice_pages };
	int r = is_slice(n, &w) ? pinned_locked(n, &w, result) : -EUCLEAN;

	if (!r)
		pin_locked(find(n, w.slice));
	return r;
}

/* The slices of a record, with the pin that the node has given us for each; ours as
 * well if they are wanted, or none. */
static int opened_pins(struct ask *a, const struct extents *x, const struct wire_results *pins,
		       bool wanted)
{
	struct remote_node *n = a->n;
	struct unpins back = { 0 };
	uint32_t i = 0;
	int r = 0;
	{
		WITH_LOCK(&n->lock);
		for (; !r && i < x->n; i++)
			r = opened_pin(n, &x->v[i], pins->v[i]);
		if (r < 0)
			i--; /* it has none of ours */
		for (uint32_t k = i; k < x->n; k++)
			unpins_add(&back, slice_of(&x->v[k]), 1);
		while ((r < 0 || !wanted) && i--)
			unpin_locked(n, find(n, slice_of(&x->v[i])));
	}
	unpins_send(n, &back);
	return r;
}

/* Is this an answer to what was asked? And with pins, those of its extents. */
static int opened_extents(const struct wire_opened *m, uint64_t fileid, struct extents *ret)
{
	struct entry en;
	int r = index_record(fileid, m->value, &en);

	if (r || !m->pins.n)
		return r ? -EUCLEAN : 0;
	if (en.body.kind != BODY_EXTENTS)
		return -EPROTO;
	r = body_decode_extents(en.body.bytes, ret);
	return r < 0 ? r : ret->n == m->pins.n ? 0 : -EPROTO;
}

/* Of a copy, which lives as long as what came of it. */
static int opened(struct ask *a, struct bytes body, struct node_open *o)
{
	_cleanup_(wire_results_fini) struct wire_results pins = { 0 };
	_cleanup_(extents_fini) struct extents x = { 0 };
	_cleanup_(freep) uint8_t *copy = malloc(body.len ? body.len : 1);
	struct wire_opened m;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, body.p, body.len);
	int r = wire_read_opened(BYTES_OF(copy, body.len), &m);
	if (r < 0)
		return r;
	pins = m.pins;
	r = opened_extents(&m, a->fileid, &x);
	if (!r && x.n)
		r = opened_pins(a, &x, &pins, o != NULL);
	if (r < 0 || !o)
		return r;
	o->value = m.value;
	o->pages = m.pages;
	o->pinned = pins.n;
	o->memory = steal(&copy);
	return 0;
}

/* What it has pinned is not known then: only the session's end gives it back. */
static void open_answer(struct ask *a, int r, struct bytes body, bool late)
{
	struct node_call *c = a->of;
	bool was_there = r == 0;

	if (was_there)
		r = opened(a, body, late ? NULL : a->open);
	if (was_there && r < 0)
		remote_stop(a->n->remote, r);
	if (!late)
		finish(c, r > 0 ? NODE_MISS : take_error(r));
}

static void remote_open_object(struct node *node, struct node_open *o, struct node_call *c)
{
	struct ask *a = ask_new(of(node), WIRE_OPEN, 0, open_answer);

	o->memory = NULL;
	node_open_fini(o);
	if (!a) {
		finish(c, -ENOMEM);
		return;
	}
	a->open = o;
	a->fileid = o->fileid;
	ask_is_part_of(a, c);
	ask_begin(a);
}

/* Sealing ---------------------------------------------------------------------------- */

/* What was sealed is so, whoever waits for that; 0, or the first error. */
static int sealed(struct ask *a, struct bytes body)
{
	struct remote_node *n = a->n;
	struct wire_results got;
	int r = wire_read_results(body, &got);

	if (!r && got.n != a->nv) {
		wire_results_fini(&got);
		r = -EPROTO;
	}
	if (r < 0) {
		remote_stop(n->remote, r);
		return r;
	}
	{
		WITH_LOCK(&n->lock);
		for (uint32_t i = 0; i < a->nv; i++) {
			struct held *h = find(n, a->v[i].wire.slice);
			int one = wire_errno(got.v[i]);
			if (!one && h) {
				h->writing = false;
				h->npages = a->v[i].wire.pages;
			}
			r = r ? r : one > 0 ? -EIO : one;
		}
	}
	wire_results_fini(&got);
	return r;
}

/* A session that has ended, or never allocated it: its bytes are gone. */
static int seal_error(int r)
{
	return r == -ENOTCONN || r == -ESTALE || r == -EAGAIN ? -EIO : r;
}

static void seal_answer(struct ask *a, int r, struct bytes body, bool late)
{
	struct node_call *c = a->of;

	if (r >= 0)
		r = sealed(a, body);
	if (!late)
		finish(c, seal_error(r));
}

static int seal_begin(struct remote_node *n, struct ask *a, const struct slice_run *v)
{
	WITH_LOCK(&n->lock);

	for (uint32_t i = 0; i < a->nv; i++) {
		struct held *h = find(n, v[i].id);
		if (!h || !h->pins)
			return -ESTALE;
		if (h->lost || !h->node_pins)
			return -EIO;
		a->v[i].wire = (struct wire_item){ v[i].id, v[i].npages };
	}
	return 0;
}

static void remote_seal(struct node *node, const struct slice_run *v, uint32_t nv,
			struct node_call *c)
{
	struct remote_node *n = of(node);
	struct ask *a = nv <= UINT16_MAX ? ask_new(n, WIRE_SEAL, nv, seal_answer) : NULL;

	if (!a) {
		finish(c, nv <= UINT16_MAX ? -ENOMEM : -E2BIG);
		return;
	}
	ask_is_part_of(a, c);
	a->call.session = remote_session(n->remote);
	int r = a->call.session ? seal_begin(n, a, v) : -EIO;
	if (!r) {
		ask_begin(a);
		return;
	}
	ask_free(a);
	finish(c, r);
}

/* What is known ------------------------------------------------------------------------ */

/* How many others use it, only the node knows. */
static bool remote_peek(struct node *node, struct slice_id s, struct slice_view *ret)
{
	(void)node;
	(void)s;
	(void)ret;
	return false;
}

static bool remote_is_lost(struct node *node, struct slice_id s)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	return h && h->lost;
}

static bool remote_needs_verify(struct node *node, struct slice_id s, uint32_t block)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	return h && h->verify >> block & 1;
}

static void remote_verified(struct node *node, struct slice_id s, uint32_t block)
{
	struct remote_node *n = of(node);
	WITH_LOCK(&n->lock);
	struct held *h = find(n, s);

	if (h)
		h->verify &= ~(1ULL << block);
}

/* Sessions ------------------------------------------------------------------------------ */

/* What was posted: UNPINs of all that was let go in the turn before, and ALLOCs. */
static void turn(void *arg)
{
	struct remote_node *n = arg;
	struct unpins u = { 0 };
	bool asks[BINS] = { 0 };
	{
		WITH_LOCK(&n->lock);
		n->posted = false;
		for (uint32_t i = 0; i < BINS; i++) {
			asks[i] = n->bins[i].refill;
			n->bins[i].refill = false;
		}
	}
	take_dropped(n, &u);
	unpins_send(n, &u);
	for (uint32_t i = 0; i < BINS; i++)
		if (asks[i])
			alloc_begin(n, i);
}

static void drop_stock(struct remote_node *n, struct unpins *ret)
{
	struct held *h;

	for (struct bin *b = n->bins; b < n->bins + BINS; b++) {
		while ((h = stock_take(n, b))) {
			unpins_add(ret, h->id, h->node_pins);
			free(h);
		}
	}
}

static void lost(void *arg)
{
	struct remote_node *n = arg;
	struct unpins gone = { 0 };

	{
		WITH_LOCK(&n->lock);
		drop_stock(n, &gone);
		n->tight = false;
		for (struct held *h = n->table; h; h = h->hh.next) {
			h->node_pins = 0;
			h->lost |= h->writing;
		}
	}
	free(gone.v);
}

/* Pinning again what was pinned in the session before, one lot after the other. */
struct again {
	struct conn_call call; /* first */
	struct remote_node *n;
	struct wire_item *v;
	uint32_t nv, at, lot;
};

static void again_end(struct again *a, int r)
{
	struct remote_node *n = a->n;

	if (r != -ENOTCONN) /* then lost() comes */
		remote_ready(n->remote, &n->part, r);
	free(a->v);
	free(a);
	node_unref(n);
}

static void lose(struct remote_node *n, struct slice_id s)
{
	struct held *h = find(n, s);

	if (h && !h->node_pins)
		h->lost = true;
}

/* Those that were let go meanwhile are given back. */
static int again_answer(struct again *a, struct bytes body)
{
	struct remote_node *n = a->n;
	struct wire_results got;
	struct unpins back = { 0 };
	int r = wire_read_results(body, &got);

	if (r < 0)
		return r;
	if (got.n != a->lot)
		r = -EPROTO;
	for (uint32_t i = 0; !r && i < got.n; i++) {
		const struct wire_item *w = &a->v[a->at + i];
		WITH_LOCK(&n->lock);
		struct held *h = find(n, w->slice);
		if (got.v[i] < 0) {
			lose(n, w->slice);
		} else if (h) {
			h->node_pins++;
			if (got.v[i] == WIRE_UNVERIFIED) /* the node has been down */
				h->verify = all_blocks(h->npages);
		} else {
			unpins_add(&back, w->slice, 1);
		}
	}
	wire_results_fini(&got);
	unpins_send(n, &back);
	return r;
}

static void pin_again(struct again *a);

static void again_done(struct conn_call *call, int r, struct bytes body)
{
	struct again *a = (struct again *)call;

	if (r >= 0)
		r = again_answer(a, body);
	if (r < 0) {
		again_end(a, r);
		return;
	}
	a->at += a->lot;
	pin_again(a);
}

static void pin_again(struct again *a)
{
	uint32_t left = a->nv - a->at;

	if (!left) {
		again_end(a, 0);
		return;
	}
	a->lot = left < PIN_LOT ? left : PIN_LOT;
	a->call = (struct conn_call){ .type = WIRE_PIN, .done = again_done,
				      .session = remote_session(a->n->remote) };
	wire_write_pin(&a->call.body, &(struct wire_pin){ true, { a->lot, a->v + a->at } });
	remote_call(a->n->remote, &a->call);
}

/* All that somebody has pinned, and that is not lost yet. */
static int list_again(struct remote_node *n, struct again *a)
{
	WITH_LOCK(&n->lock);
	uint32_t most = HASH_COUNT(n->table);

	a->v = calloc(most ? most : 1, sizeof(*a->v));
	if (!a->v)
		return -ENOMEM;
	for (struct held *h = n->table; h; h = h->hh.next)
		if (h->pins && !h->lost)
			a->v[a->nv++] = (struct wire_item){ h->id, h->npages };
	return 0;
}

static void begun(void *arg)
{
	struct remote_node *n = arg;
	struct again *a = calloc(1, sizeof(*a));

	if (!a) {
		remote_ready(n->remote, &n->part, -ENOMEM);
		return;
	}
	a->n = n;
	atomic_fetch_add(&n->refs, 1);
	if (list_again(n, a) < 0)
		again_end(a, -ENOMEM);
	else
		pin_again(a);
}

/* Opening and closing ---------------------------------------------------------------------- */

/* No call is under way but ALLOCs that nobody waits for. */
static void end_asks(struct remote_node *n)
{
	atomic_store(&n->ahead.cancelled, true);
	WITH_LOCK(&n->lock);
	n->closing = true;
	while (n->nasks)
		lock_wait(&n->lock, &n->no_asks);
}

static void stop_timers(struct remote_node *n)
{
	struct loop_timer *look_timer, *idle_timer;
	{
		WITH_LOCK(&n->lock);
		look_timer = n->look;
		idle_timer = n->idle;
		n->look = n->idle = NULL;
	}
	loop_timer_free(look_timer);
	loop_timer_free(idle_timer);
}

static void remote_node_close(struct node *node)
{
	struct remote_node *n = of(node);
	struct unpins u = { 0 };

	end_asks(n);
	stop_timers(n);
	{
		WITH_LOCK(&n->lock);
		drop_stock(n, &u);
	}
	unpins_send(n, &u);
	remote_leave(n->remote, &n->part); /* what was posted has run */
	assert(!n->table);
	node_unref(n);
}

static const struct node_ops remote_ops = {
	.name = "remote",
	.alloc = remote_alloc,
	.want = remote_want,
	.take = remote_take,
	.seal = remote_seal,
	.open = remote_open_object,
	.pin = remote_pin,
	.unpin = remote_unpin,
	.give_back = remote_give_back,
	.peek = remote_peek,
	.is_lost = remote_is_lost,
	.needs_verify = remote_needs_verify,
	.verified = remote_verified,
	.close = remote_node_close,
};

int node_remote_open(struct remote *x, struct node **ret)
{
	const struct wire_welcome *w = remote_welcome(x);
	struct remote_node *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->node = (struct node){ &remote_ops, w->pool_id, w->pool_pages };
	n->remote = x;
	n->loop = remote_loop(x);
	n->stock_max = w->pool_pages / 16 < STOCK_PAGES ? w->pool_pages / 16 : STOCK_PAGES;
	atomic_store(&n->refs, 1);
	lock_init(&n->lock, LOCK_NODE);
	lock_cond_init(&n->no_asks);
	for (uint32_t i = 0; i < BINS; i++)
		n->bins[i].last = &n->bins[i].waiting;
	n->turn = (struct loop_call){ .fn = turn, .arg = n };
	n->part = (struct remote_part){ .lost = lost, .begun = begun, .arg = n };
	remote_join(x, &n->part);
	*ret = &n->node;
	return 0;
}
