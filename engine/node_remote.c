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
 * the node has said that its pool is full, or has given less than was asked for
 * (`tight`), nothing is asked for ahead, and a slice of any length serves whoever needs
 * one: so there is no room in stock that a write which fails for lack of it could have
 * had, and nobody takes all of a pool that is in pieces.
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
#include <assert.h>
#include <errno.h>

#include "common/metrics.h"
#include "engine/far.h"
#include "index/index.h"

enum {
	STOCK_PAGES = 4096, /* 16 MiB; and a sixteenth of the pool */
	PIN_LOT = 4096,     /* slices of one PIN, when all are pinned again */
};

void far_unref(struct remote_node *n)
{
	if (atomic_fetch_sub(&n->refs, 1) > 1)
		return;
	pthread_cond_destroy(&n->no_asks);
	lock_fini(&n->lock);
	free(n);
}

/* The table ------------------------------------------------------------------------- */

struct held *far_find(struct remote_node *n, struct slice_id s)
{
	struct held *h;

	HASH_FIND(hh, n->table, &s, sizeof(s), h);
	return h;
}

void far_add(struct remote_node *n, struct held *h)
{
	h->next = NULL;
	HASH_ADD(hh, n->table, id, sizeof(h->id), h);
}

struct held *far_held_new(struct slice_id s, uint32_t npages)
{
	struct held *h = calloc(1, sizeof(*h));

	if (h) {
		h->id = s;
		h->npages = npages;
	}
	return h;
}

void far_pin(struct held *h)
{
	h->pins++;
	metric_add(M_REMOTE_PINS, 1);
}

void far_post_turn(struct remote_node *n)
{
	if (n->posted)
		return;
	n->posted = true;
	loop_post_call(n->loop, &n->turn);
}

/* The last pin puts it aside: who takes it before the loop's next turn has it. */
void far_unpin(struct remote_node *n, struct held *h)
{
	assert(h->pins);
	h->pins--;
	metric_add(M_REMOTE_PINS, -1);
	if (h->pins || h->dropped)
		return;
	h->dropped = true;
	h->next = n->dropped;
	n->dropped = h;
	far_post_turn(n);
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
		far_unpins_add(ret, h->id, h->node_pins);
		HASH_DEL(n->table, h);
		free(h);
	}
	n->dropped = NULL;
}

/* Pins ------------------------------------------------------------------------------- */

static int remote_pin(struct node *node, struct slice_id s)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	far_pin(h);
	return 0;
}

static int remote_unpin(struct node *node, struct slice_id s)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	if (!h || !h->pins)
		return -ESTALE;
	far_unpin(n, h);
	return 0;
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

/* Nor how many pages are free by now. */
static uint32_t remote_nfree(struct node *node)
{
	(void)node;
	return UINT32_MAX;
}

static bool remote_is_lost(struct node *node, struct slice_id s)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	return h && h->lost;
}

static int remote_covers(struct node *node, struct slice_id s, uint64_t off, uint32_t len)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	if (!h)
		return -ESTALE;
	if (!slice_covers(h->npages, off, len))
		return -EINVAL;
	return h->lost ? -EIO : 0;
}

static bool remote_needs_verify(struct node *node, struct slice_id s, uint32_t block)
{
	struct remote_node *n = far_of(node);
	bool always = remote_has(n->remote, WIRE_FEATURE_VERIFY);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	return h && (always || h->verify >> block & 1);
}

static void remote_verified(struct node *node, struct slice_id s, uint32_t block)
{
	struct remote_node *n = far_of(node);
	WITH_LOCK(&n->lock);
	struct held *h = far_find(n, s);

	if (h)
		h->verify &= ~(1ULL << block);
}

/* Sessions ------------------------------------------------------------------------------ */

/* What was posted: UNPINs of all that was let go in the turn before, and ALLOCs. */
static void turn(void *arg)
{
	struct remote_node *n = arg;
	struct unpins u = { 0 };
	bool asks[FAR_BINS] = { 0 };
	{
		WITH_LOCK(&n->lock);
		n->posted = false;
		for (uint32_t i = 0; i < FAR_BINS; i++) {
			asks[i] = n->bins[i].refill;
			n->bins[i].refill = false;
		}
	}
	take_dropped(n, &u);
	far_unpins_send(n, &u);
	for (uint32_t i = 0; i < FAR_BINS; i++)
		if (asks[i])
			far_ask_alloc(n, i);
}

static void lost(void *arg)
{
	struct remote_node *n = arg;
	struct unpins gone = { 0 };

	{
		WITH_LOCK(&n->lock);
		far_drop_stock(n, &gone);
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
	far_unref(n);
}

static void lose(struct remote_node *n, struct slice_id s)
{
	struct held *h = far_find(n, s);

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
		struct held *h = far_find(n, w->slice);
		if (got.v[i] < 0) {
			lose(n, w->slice);
		} else if (h) {
			h->node_pins++;
			if (got.v[i] == WIRE_UNVERIFIED) /* the node has been down */
				h->verify = far_all_blocks(h->npages);
		} else {
			far_unpins_add(&back, w->slice, 1);
		}
	}
	wire_results_fini(&got);
	far_unpins_send(n, &back);
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
	struct remote_node *n = far_of(node);
	struct unpins u = { 0 };

	end_asks(n);
	stop_timers(n);
	{
		WITH_LOCK(&n->lock);
		far_drop_stock(n, &u);
	}
	far_unpins_send(n, &u);
	remote_leave(n->remote, &n->part); /* what was posted has run */
	assert(!n->table);
	far_unref(n);
}

static const struct node_ops remote_ops = {
	.name = "remote",
	.alloc = far_alloc,
	.want = far_want,
	.take = far_take,
	.seal = far_seal,
	.open = far_open,
	.recall = far_recall,
	.pin = remote_pin,
	.unpin = remote_unpin,
	.give_back = far_give_back,
	.nfree = remote_nfree,
	.peek = remote_peek,
	.is_lost = remote_is_lost,
	.covers = remote_covers,
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
	for (uint32_t i = 0; i < FAR_BINS; i++)
		n->bins[i].last = &n->bins[i].waiting;
	n->turn = (struct loop_call){ .fn = turn, .arg = n };
	n->part = (struct remote_part){ .lost = lost, .begun = begun, .arg = n };
	remote_join(x, &n->part);
	*ret = &n->node;
	return 0;
}
