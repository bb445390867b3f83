/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another node's index, as an index engine: each request is one message there and
 * one back.
 *
 * What has no answer. A request that was not sent fails. One that was sent and
 * would only read fails, too. One that would write is KV_UNKNOWN, and its sender
 * resolves it by reading; but the request may still wait in the node, and be done
 * after a read that came later. So, as long as there is one of those, reads ask
 * not to be begun before all that came before them has ended (`after`): `lost`
 * counts such requests, and the answer to a read that asked so settles all that
 * were lost when it was sent.
 *
 * Sessions end, and others follow. What would only read and has no answer yet is
 * asked again. All watches are begun again, and rung once: nobody knows what they
 * missed.
 *
 * Doorbells. The node rings for all commits, ours among them unless they say that
 * they need not (KV's bit 2), before it answers them; so nothing is rung here but
 * when the session is lost.
 */
#include <assert.h>
#include <errno.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/remote.h"

enum { STAT_S = 10 };

struct kv_remote {
	struct kv kv;
	struct remote *remote;
	struct remote_part part;
	_Atomic uint64_t lost, settled;
	atomic_uint refs; /* the opener's, and one of each WATCH or UNWATCH that is out */
};

struct ask { /* a request that is out */
	struct conn_call call; /* first: done() gets it */
	struct kv_remote *remote;
	struct kv_req *req;
	bool after;
	uint64_t lost; /* when it was sent */
};

static struct kv_remote *remote_of(struct kv *kv)
{
	return (struct kv_remote *)kv;
}

static void unref(struct kv_remote *k)
{
	if (atomic_fetch_sub(&k->refs, 1) == 1)
		free(k);
}

/* Requests ------------------------------------------------------------------------ */

/* The body is copied to where the rows' bytes live as long as the request. */
static int take_answer(struct kv_req *req, int r, struct bytes body)
{
	uint8_t *p = kv_req_alloc(req, body.len);

	if (!p)
		return -ENOMEM;
	memcpy(p, body.p, body.len);
	int bad = wire_read_kv_answer(BYTES_OF(p, body.len), req);
	if (bad < 0)
		return bad;
	bool has_read = r == KV_CONFLICT || (r == KV_DONE && !req->nwrites);
	return has_read == !!req->rows || !req->nreads ? r : -EPROTO;
}

/* There was an answer that cannot be had, or none at all. */
static int without_answer(struct ask *a, int r)
{
	if (!a->req->nwrites || !a->call.sent)
		return r;
	if (!a->call.answered)
		atomic_fetch_add(&a->remote->lost, 1);
	return KV_UNKNOWN;
}

static int outcome_of(struct ask *a, int r, struct bytes body)
{
	struct remote *remote = a->remote->remote;

	if (!a->call.answered)
		return without_answer(a, r);
	if (r < 0)
		return r; /* it was not done */
	int taken = r <= KV_UNKNOWN ? take_answer(a->req, r, body) : -EPROTO;
	if (taken >= 0)
		return taken;
	kv_req_fini(a->req);
	a->req->revision = 0;
	if (taken == -EPROTO)
		remote_stop(remote, -EPROTO);
	return r == KV_CONFLICT ? -EIO : without_answer(a, -EIO);
}

static void settle(struct kv_remote *k, uint64_t lost)
{
	uint64_t old = atomic_load(&k->settled);

	while (old < lost && !atomic_compare_exchange_weak(&k->settled, &old, lost))
		;
}

static void ask_node(struct ask *a)
{
	struct kv_req *req = a->req;

	a->lost = atomic_load(&a->remote->lost);
	a->after = !req->nwrites && a->lost != atomic_load(&a->remote->settled);
	wire_write_kv(&a->call.body, req, a->after);
	remote_call(a->remote->remote, &a->call);
}

static void ask_done(struct conn_call *call, int r, struct bytes body)
{
	struct ask *a = (struct ask *)call;
	struct kv_remote *k = a->remote;
	struct kv_req *req = a->req;

	if (r == -ENOTCONN && call->sent && !call->answered && !req->nwrites) {
		ask_node(a);
		return;
	}
	int outcome = outcome_of(a, r, body);

	if (call->answered && a->after)
		settle(k, a->lost);
	free(a);
	kv_req_done(&k->kv, req, outcome);
}

static void remote_submit(struct kv *kv, struct kv_req *req)
{
	struct kv_remote *k = remote_of(kv);
	struct ask *a = calloc(1, sizeof(*a));

	if (!a) {
		kv_req_done(kv, req, -ENOMEM);
		return;
	}
	*a = (struct ask){ .remote = k, .req = req,
			   .call = { .type = WIRE_KV, .done = ask_done } };
	if (req->call)
		a->call.deadline_ns = req->call->deadline_ns;
	a->call.of = req->call;
	ask_node(a);
}

/* The rest ------------------------------------------------------------------------- */

static struct kv_caps remote_caps(struct kv *kv)
{
	const struct wire_welcome *w = remote_welcome(remote_of(kv)->remote);

	return (struct kv_caps){ .max_compares = w->kv_compares, .max_writes = w->kv_writes,
				 .max_reads = w->kv_reads, .max_bytes = w->kv_bytes };
}

static int remote_stat(struct kv *kv, struct kv_stat *ret)
{
	struct writer body = { 0 };
	struct wire_stat m;
	int r = remote_ask(remote_of(kv)->remote, WIRE_STAT, (struct writer){ 0 },
			   clock_ns() + STAT_S * NS_PER_S, &body);

	if (r >= 0)
		r = wire_read_stat(writer_bytes(&body), &m);
	writer_fini(&body);
	if (r < 0)
		return r;
	*ret = (struct kv_stat){ .used_bytes = m.index_used, .size_bytes = m.index_size,
				 .keys = m.keys, .session_keys = m.session_keys,
				 .full = m.index_full };
	return 0;
}

/* A session of ours that has ended has no keys any more: the node saw to that, before
 * it let us in again (-ESTALE), or will (-ENOTCONN). */
static int remote_session_end(struct kv *kv, uint64_t session)
{
	struct remote *x = remote_of(kv)->remote;
	struct writer w = { 0 };

	wire_write_session(&w, session);
	int r = remote_ask(x, WIRE_DROP_KEYS, w, clock_ns() + STAT_S * NS_PER_S, NULL);

	return r == -ENOTCONN || r == -ESTALE ? 0 : r;
}

static int remote_check(struct kv *kv, struct writer *report)
{
	(void)kv;
	(void)report;
	return 0; /* the node looks after its own */
}

/* Doorbells -------------------------------------------------------------------------- */

struct watch_ask {
	struct conn_call call;
	struct kv_remote *remote;
	uint32_t number;
};

/* A watch that the node did not take would never ring: say so, and ring once, so
 * that who watches looks. With the session all end, and the next one begins them again. */
static void watch_done(struct conn_call *call, int r, struct bytes body)
{
	struct watch_ask *a = (struct watch_ask *)call;

	(void)body;
	if (r < 0 && r != -ENOTCONN)
		log_warn("index", "a watch at the node: %s", error_text(r));
	/* They find none when it is closed. */
	if (r < 0 && r != -ENOTCONN && call->type == WIRE_WATCH)
		kv_watch_refused(&a->remote->kv, a->number);
	else if (r < 0 && call->type == WIRE_WATCH)
		kv_ring_number(&a->remote->kv, a->number);
	unref(a->remote);
	free(a);
}

static int watch_ask(struct kv_remote *k, uint16_t type, uint32_t number, struct bytes prefix)
{
	uint64_t session = remote_session(k->remote);
	struct watch_ask *a;

	if (!session)
		return 0; /* the next one begins with all watches */
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	*a = (struct watch_ask){
		.call = { .type = type, .done = watch_done, .session = session },
		.remote = k, .number = number,
	};
	if (type == WIRE_WATCH)
		wire_write_watch(&a->call.body, &(struct wire_watch){ number, prefix });
	else
		wire_write_watch_number(&a->call.body, number);
	atomic_fetch_add(&k->refs, 1);
	remote_call(k->remote, &a->call);
	return 0;
}

/* Whose they are the node knows. */
static int remote_watch(struct kv *kv, uint32_t number, struct bytes prefix, uint64_t session)
{
	(void)session;
	return watch_ask(remote_of(kv), WIRE_WATCH, number, prefix);
}

/* Out of memory: it goes on ringing for nobody. */
static void remote_unwatch(struct kv *kv, uint32_t number)
{
	watch_ask(remote_of(kv), WIRE_UNWATCH, number, BYTES_NONE);
}

static void on_ring(void *arg, uint32_t number)
{
	kv_ring_number(arg, number);
}

/* Who goes by rings is to know that none comes: he looks himself. */
static void on_lost(void *arg)
{
	struct kv_remote *k = arg;

	kv_ring_all(&k->kv);
}

static void on_begun(void *arg)
{
	struct kv_remote *k = arg;

	kv_watch_again(&k->kv);
	remote_ready(k->remote, &k->part, 0);
}

/* Opening and closing ------------------------------------------------------------------ */

static void remote_kv_close(struct kv *kv)
{
	struct kv_remote *k = remote_of(kv);

	remote_leave(k->remote, &k->part);
	remote_set_ring(k->remote, NULL, NULL);
	unref(k);
}

static const struct kv_ops remote_ops = {
	.name = "remote",
	.submit = remote_submit,
	.caps = remote_caps,
	.stat = remote_stat,
	.session_end = remote_session_end,
	.check = remote_check,
	.close = remote_kv_close,
	.watch = remote_watch,
	.unwatch = remote_unwatch,
};

int kv_remote_open(struct remote *x, struct kv **ret)
{
	struct kv_remote *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->kv.ops = &remote_ops;
	k->remote = x;
	atomic_store(&k->refs, 1);
	k->part = (struct remote_part){ .lost = on_lost, .begun = on_begun, .arg = k };
	remote_set_ring(x, on_ring, k);
	remote_join(x, &k->part);
	*ret = &k->kv;
	return 0;
}
