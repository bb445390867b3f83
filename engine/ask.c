/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_about(), engine_evict(): of the eviction in this process, or of another host's node.
 * engine_node_stats(): of that only. engine_sync_names(): of the disk in this process.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "engine/evict.h"
#include "engine/peer.h"
#include "engine/tier.h"

static void told(struct engine_ask *a, int r, const struct wire_about *m)
{
	a->hits = m->hits;
	a->expires = m->expires;
	a->used = m->used;
	a->done(a, r);
}

/* Here ---------------------------------------------------------------------------------- */

static void gone(struct victim *v, int r)
{
	struct engine_ask *a = v->arg;

	free(v);
	a->done(a, r);
}

static void evict_here(struct engine *e, struct engine_ask *a)
{
	struct victim *v = calloc(1, sizeof(*v));

	if (!v) {
		a->done(a, -ENOMEM);
		return;
	}
	*v = (struct victim){ .fileid = a->fileid, .place = a->place, .call = kv_call_of(&a->call),
			      .done = gone, .arg = a };
	evict_go(e->evict, v);
}

/* At the node ---------------------------------------------------------------------------- */

struct far_ask {
	struct conn_call call;
	struct engine_ask *ask;
};

static int take_text(struct engine_ask *a, struct bytes body)
{
	struct bytes text;
	int r = wire_read_stats(body, &text);

	if (r < 0)
		return r;
	write_bytes(&a->text, text.p, text.len);
	return a->text.bad ? -ENOMEM : 0;
}

static void answered(struct conn_call *call, int r, struct bytes body)
{
	struct far_ask *f = (struct far_ask *)call;
	struct engine_ask *a = f->ask;
	struct wire_about m = { 0 };

	if (!r && call->type == WIRE_ABOUT)
		r = wire_read_about(body, &m);
	if (!r && call->type == WIRE_STATS)
		r = take_text(a, body);
	free(f);
	told(a, r, &m);
}

static void ask_node(struct engine *e, struct engine_ask *a, uint16_t type)
{
	struct far_ask *f = calloc(1, sizeof(*f));

	if (!f) {
		a->done(a, -ENOMEM);
		return;
	}
	f->ask = a;
	f->call = (struct conn_call){ .type = type, .deadline_ns = a->call.deadline_ns,
				      .of = &a->call, .done = answered };
	if (type != WIRE_STATS)
		wire_write_object(&f->call.body, &(struct wire_object){ a->fileid, a->place });
	remote_call(peer_remote(e->peer), &f->call);
}

void engine_about(struct engine *e, struct engine_ask *a)
{
	struct wire_about m;

	if (e->peer) {
		ask_node(e, a, WIRE_ABOUT);
	} else if (!e->evict) {
		a->done(a, -EOPNOTSUPP);
	} else {
		evict_about(e->evict, a->fileid, &m);
		told(a, 0, &m);
	}
}

void engine_evict(struct engine *e, struct engine_ask *a)
{
	if (e->peer)
		ask_node(e, a, WIRE_EVICT);
	else if (!e->evict)
		a->done(a, -EOPNOTSUPP);
	else
		evict_here(e, a);
}

struct sync_ask {
	struct node_call call;
	struct engine_ask *ask;
};

static void synced(struct node_call *c, int r)
{
	struct engine_ask *a = ((struct sync_ask *)c)->ask;

	free(c);
	a->done(a, r);
}

void engine_sync_names(struct engine *e, struct engine_ask *a)
{
	struct sync_ask *s = e->tier ? malloc(sizeof(*s)) : NULL;

	if (!s) {
		a->done(a, e->tier ? -ENOMEM : 0);
		return;
	}
	*s = (struct sync_ask){ .call = { .of = &a->call, .done = synced }, .ask = a };
	tier_sync(e->tier, &s->call);
}

void engine_node_stats(struct engine *e, struct engine_ask *a)
{
	if (e->peer && remote_has(peer_remote(e->peer), WIRE_FEATURE_STATS))
		ask_node(e, a, WIRE_STATS);
	else
		a->done(a, -EOPNOTSUPP);
}
