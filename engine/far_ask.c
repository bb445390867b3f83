/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of another host's node: each is a record of its own, which lives until its
 * answer has come, whoever waits for that.
 */
#include <assert.h>
#include <errno.h>

#include "common/array.h"
#include "engine/far.h"

enum { UNPIN_LOT = 4096 }; /* slices of one UNPIN */

struct ask *far_ask_new(struct remote_node *n, uint16_t type, uint32_t nv,
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

void far_ask_free(struct ask *a)
{
	struct remote_node *n = a->n;

	free(a);
	far_unref(n);
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
	far_ask_free(a);
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
		far_ask_free(a);
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

	assert(o->max <= WIRE_OPEN_MAX);
	wire_write_open(&a->call.body, &m);
}

static void write_ask(struct ask *a)
{
	if (a->call.type == WIRE_OPEN) {
		write_open(a);
		return;
	}
	if (a->call.type == WIRE_RECALL) {
		wire_write_recall(&a->call.body, &(struct wire_recall){
			{ a->fileid, a->place }, a->writes });
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
void far_ask_begin(struct ask *a)
{
	{
		WITH_LOCK(&a->n->lock);
		a->n->nasks++;
	}
	ask_send(a);
}

void far_ask_is_part_of(struct ask *a, struct node_call *c)
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

void far_unpins_add(struct unpins *u, struct slice_id s, uint32_t times)
{
	while (times--) {
		if (array_room(u->v, u->cap, u->n + 1, 16) < 0)
			u->bad = true;
		else
			u->v[u->n++] = (struct wire_item){ .slice = s };
	}
}

void far_unpins_send(struct remote_node *n, struct unpins *u)
{
	if (u->bad)
		remote_stop(n->remote, -ENOMEM);
	else
		unpin_at_node(n, u->v, u->n);
	free(u->v);
	*u = (struct unpins){ 0 };
}

