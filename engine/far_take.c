/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of another host's node that pin, open and seal slices; see node_remote.c.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "common/metrics.h"
#include "engine/far.h"
#include "index/index.h"

uint64_t far_all_blocks(uint32_t npages)
{
	uint32_t n = (npages + SUM_PAGES - 1) / SUM_PAGES;

	return n >= 64 ? UINT64_MAX : (1ULL << n) - 1;
}

/* The node has pinned it for us once. */
static int pinned_locked(struct remote_node *n, const struct wire_item *w, int32_t result)
{
	struct held *h = far_find(n, w->slice);

	if (!h) {
		h = far_held_new(w->slice, w->pages);
		if (!h)
			return -ENOMEM;
		far_add(n, h);
		if (result == WIRE_UNVERIFIED)
			h->verify = far_all_blocks(w->pages);
	}
	h->node_pins++;
	return 0;
}

/* One that stays until it is dropped, whoever has pins on it. */
static void touch_locked(struct remote_node *n, struct slice_id s)
{
	struct held *h = far_find(n, s);

	if (h && !h->pins) {
		far_pin(h);
		far_unpin(n, h);
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
			/* After the end nobody takes anything out of the table. */
			int bad = !wanted && n->closing ? -ESHUTDOWN : pinned_locked(n, w, got->v[k]);
			k++;
			if (bad < 0) {
				far_unpins_add(&back, w->slice, 1);
				r = bad;
				continue;
			}
			for (uint32_t p = 0; wanted && p < a->v[i].pins; p++)
				far_pin(far_find(n, w->slice));
			if (wanted)
				a->v[i].here = true;
			else
				touch_locked(n, w->slice);
		}
	}
	far_unpins_send(n, &back);
	return r;
}

/* All that it has pinned so far, or 0 if it has them all and none is lost. */
static int take_settle(struct ask *a, int r)
{
	struct remote_node *n = a->n;
	WITH_LOCK(&n->lock);

	for (uint32_t i = 0; !r && i < a->nv; i++) {
		struct held *h = far_find(n, a->v[i].wire.slice);
		if (!h || h->lost)
			r = -ESTALE;
	}
	for (uint32_t i = 0; r < 0 && i < a->nv; i++) {
		struct held *h = a->v[i].here ? far_find(n, a->v[i].wire.slice) : NULL;
		for (uint32_t p = 0; h && p < a->v[i].pins; p++)
			far_unpin(n, h);
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
	far_finish(c, r);
}

/* Pinned here at once if it can be. */
static int take_begin(struct remote_node *n, struct ask *a, const struct slice_run *v, uint32_t nv,
		      bool *ret_asks)
{
	WITH_LOCK(&n->lock);

	a->nv = 0;
	for (uint32_t i = 0; i < nv; i++) {
		struct held *h = far_find(n, v[i].id);
		struct ask_item *last = a->nv ? &a->v[a->nv - 1] : NULL;
		bool here = h && h->node_pins;
		if (h && (h->lost || h->npages != v[i].npages))
			return -ESTALE;
		if (here)
			far_pin(h);
		*ret_asks |= !here;
		if (last && last->here == here && last->wire.slice.page == v[i].id.page &&
		    last->wire.slice.gen == v[i].id.gen && last->wire.pages == v[i].npages)
			last->pins++;
		else
			a->v[a->nv++] = (struct ask_item){ { v[i].id, v[i].npages }, 1, here };
	}
	return 0;
}

void far_take(struct node *node, const struct slice_run *v, uint32_t nv,
			struct node_call *c)
{
	struct remote_node *n = far_of(node);
	struct ask *a = nv <= UINT16_MAX ? far_ask_new(n, WIRE_PIN, nv, take_answer) : NULL;
	bool asks = false;

	if (!a) {
		far_finish(c, nv <= UINT16_MAX ? -ENOMEM : -E2BIG);
		return;
	}
	far_ask_is_part_of(a, c);
	int r = take_begin(n, a, v, nv, &asks);
	if (!r && asks) {
		far_ask_begin(a);
		return;
	}
	if (r < 0)
		take_settle(a, r);
	far_ask_free(a);
	far_finish(c, r);
}

/* Opening ---------------------------------------------------------------------------- */

static struct slice_id slice_of(const struct extent *x)
{
	return (struct slice_id){ x->slice, x->gen };
}

static int opened_pin(struct remote_node *n, const struct extent *x, int32_t result)
{
	struct wire_item w = { slice_of(x), x->slice_pages };
	int r = far_is_slice(n, &w) ? pinned_locked(n, &w, result) : -EUCLEAN;

	if (!r)
		far_pin(far_find(n, w.slice));
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
		bool keeps = wanted || !n->closing;
		for (; keeps && !r && i < x->n; i++)
			r = opened_pin(n, &x->v[i], pins->v[i]);
		if (r < 0)
			i--; /* it has none of ours */
		for (uint32_t k = i; k < x->n; k++)
			far_unpins_add(&back, slice_of(&x->v[k]), 1);
		while ((r < 0 || !wanted) && i--)
			far_unpin(n, far_find(n, slice_of(&x->v[i])));
	}
	far_unpins_send(n, &back);
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
		far_finish(c, r > 0 ? NODE_MISS : take_error(r));
}

void far_open(struct node *node, struct node_open *o, struct node_call *c)
{
	struct ask *a = far_ask_new(far_of(node), WIRE_OPEN, 0, open_answer);

	o->memory = NULL;
	node_open_fini(o);
	if (!a) {
		far_finish(c, -ENOMEM);
		return;
	}
	a->open = o;
	a->fileid = o->fileid;
	far_ask_is_part_of(a, c);
	far_ask_begin(a);
}

/* Coming back from the disk -------------------------------------------------------- */

static void recall_answer(struct ask *a, int r, struct bytes body, bool late)
{
	(void)body;
	if (!late)
		far_finish(a->of, r > 0 ? -EIO : r);
}

void far_recall(struct node *node, uint64_t fileid, struct place place, bool writes,
		struct node_call *c)
{
	struct ask *a = far_ask_new(far_of(node), WIRE_RECALL, 0, recall_answer);

	if (!a) {
		far_finish(c, -ENOMEM);
		return;
	}
	a->fileid = fileid;
	a->place = place;
	a->writes = writes;
	far_ask_is_part_of(a, c);
	far_ask_begin(a);
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
			struct held *h = far_find(n, a->v[i].wire.slice);
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
		far_finish(c, seal_error(r));
}

static int seal_begin(struct remote_node *n, struct ask *a, const struct slice_run *v)
{
	WITH_LOCK(&n->lock);

	for (uint32_t i = 0; i < a->nv; i++) {
		struct held *h = far_find(n, v[i].id);
		if (!h || !h->pins)
			return -ESTALE;
		if (h->lost || !h->node_pins)
			return -EIO;
		a->v[i].wire = (struct wire_item){ v[i].id, v[i].npages };
	}
	return 0;
}

void far_seal(struct node *node, const struct slice_run *v, uint32_t nv,
			struct node_call *c)
{
	struct remote_node *n = far_of(node);
	struct ask *a = nv <= UINT16_MAX ? far_ask_new(n, WIRE_SEAL, nv, seal_answer) : NULL;

	if (!a) {
		far_finish(c, nv <= UINT16_MAX ? -ENOMEM : -E2BIG);
		return;
	}
	far_ask_is_part_of(a, c);
	a->call.session = remote_session(n->remote);
	int r = a->call.session ? seal_begin(n, a, v) : -EIO;
	if (!r) {
		far_ask_begin(a);
		return;
	}
	far_ask_free(a);
	far_finish(c, r);
}

