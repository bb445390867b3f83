/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session after the other. Each has a connection of its own, which goes
 *
 *	CONNECTING --up--> GREETED --CHALLENGE--> PROVEN --WELCOME--> JOINING --> UP
 *
 * and back to DOWN when the connection ends, from wherever it was; but when one by RDMA
 * ends before there is a session, from there to CONNECTING once more, by TCP. A node
 * that refused by RDMA, and says by TCP that it knows RDMA, has come just now: it is asked
 * by RDMA once more. The node's proof is checked before ours is sent: who has not the
 * token learns nothing that would help elsewhere.
 *
 * While the link is DOWN a timer ticks: it ends calls that wait too long or are cancelled,
 * and connects again when it is time to, first at once, then after pauses that double.
 *
 * Threads: the loop's has all of it, but for what is atomic.
 */
#include <assert.h>
#include <errno.h>
#include <semaphore.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/remote_priv.h"

enum {
	TICK_MS = 20,      /* how late a call that waits may end */
	PAUSE_MIN_MS = 50, /* between two attempts to connect */
	PAUSE_MAX_MS = 2000,
	ATTEMPT_MS = 5000, /* of one, after the first */
	RDMA_MS = 3000,    /* of it, to be connected by RDMA; half of it at most */
	/* By RDMA a session that ends in silence sooner than this is followed by one by TCP: what
	 * is short may get through where what is long does not. */
	RDMA_LASTS_MS = 10000,
	RDMA_AVOID_MS = 60000,
};

static void go_down(struct remote *x);

/* The beginning of a session --------------------------------------------------------- */

static uint32_t offered(const struct remote *x)
{
	return WIRE_FEATURE_VERIFY | WIRE_FEATURE_SCRUB | WIRE_FEATURE_STATS |
	       (x->o.rdma ? WIRE_FEATURE_RDMA : 0);
}

static void on_up(void *arg)
{
	struct remote *x = arg;
	struct wire_hello m = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				.read_only = x->o.read_only, .features = offered(x),
				.session = x->welcome.session, /* the one before */
				.name = BYTES_OF(x->name, strlen(x->name)) };
	struct writer w = { 0 };

	auth_random(m.nonce);
	writer_fini(&x->hello);
	wire_write_hello(&x->hello, &m);
	write_bytes(&w, x->hello.p, x->hello.len);
	x->state = REMOTE_GREETED;
	conn_send(x->conn, WIRE_HELLO, w);
}

static int on_challenge(struct remote *x, const struct wire_header *h, struct bytes body)
{
	struct wire_challenge c;
	struct auth_key secret;
	struct wire_proof m;
	struct writer w = { 0 };
	int r = auth_challenged(&x->key, &x->hello, offered(x), h, body, &c, m.proof);

	if (r < 0)
		return r;
	atomic_store(&x->features, c.features);
	x->ask_again = !x->by_rdma && x->rdma_tries == 1 && x->rdma_reason == -ECONNREFUSED &&
		       c.features & WIRE_FEATURE_RDMA;
	if (x->ask_again)
		return -EAGAIN;
	memcpy(secret.b, x->welcome.secret, sizeof(secret.b)); /* of the one before */
	auth_prove(&secret, AUTH_MOUNT, writer_bytes(&x->hello), &c, m.before);
	wire_write_proof(&w, &m);
	x->state = REMOTE_PROVEN;
	conn_send(x->conn, WIRE_PROOF, w);
	return 0;
}

/* Is it the node that the first session was at, and can it do as much? */
static bool is_the_same(const struct wire_welcome *was, const struct wire_welcome *is)
{
	return was->pool_id == is->pool_id && was->pool_pages == is->pool_pages &&
	       was->kv_compares <= is->kv_compares && was->kv_writes <= is->kv_writes &&
	       was->kv_reads <= is->kv_reads && was->kv_bytes <= is->kv_bytes;
}

static void take_welcome(struct remote *x, const struct wire_welcome *m)
{
	struct wire_welcome *w = &x->welcome;

	if (!x->had_session) {
		*w = *m;
		return;
	}
	/* What other threads read stays. */
	w->session = m->session;
	w->incarnation = m->incarnation;
	w->keep_alive_ms = m->keep_alive_ms;
	w->max_requests = m->max_requests;
	w->max_lanes = m->max_lanes;
	memcpy(w->secret, m->secret, sizeof(w->secret));
}

static void say_back(struct remote *x)
{
	double down_s = (double)(clock_ns() - x->lost_ns) / NS_PER_S;

	log_info("node", "%s: session %llu, %.1f s after the one before had ended", x->node,
		 (unsigned long long)x->session, down_s);
}

/* Of the session that is there, or just was. */
static void count_link(struct remote *x, int change)
{
	metric_add(x->by_rdma ? M_LINKS_RDMA : M_LINKS_TCP, change);
}

/* Once, and when it has changed. */
static void say_carrier(struct remote *x)
{
	int carrier = x->by_rdma ? 2 : 1;

	if (!x->rdma || carrier == x->said_carrier)
		return;
	x->said_carrier = carrier;
	if (x->by_rdma)
		log_info("node", "%s: requests go by RDMA", x->node);
	else
		log_warn("node", "%s: requests go by TCP: by RDMA %s", x->node,
			 conn_reason_text(x->rdma_reason));
}

/* All parts are ready. */
static void go_up(struct remote *x)
{
	x->joining = NULL;
	x->state = REMOTE_UP;
	atomic_store(&x->is_up, true);
	say_carrier(x);
	if (x->had_session)
		say_back(x);
	else
		sem_post(&x->opened);
	x->had_session = true;
	remote_call_again(x);
}

/* The next part, or those that have nothing to do and the one behind them. */
static void join_next(struct remote *x)
{
	struct remote_part *p = x->joining ? x->joining->next : x->parts;

	while (p && !p->begun)
		p = p->next;
	x->joining = p;
	if (p)
		p->begun(p->arg);
	else
		go_up(x);
}

void remote_ready(struct remote *x, struct remote_part *p, int r)
{
	assert(loop_is_current(x->loop));
	if (x->state != REMOTE_JOINING || x->joining != p)
		return;
	if (r < 0)
		conn_stop(x->conn, r);
	else
		join_next(x);
}

static int on_welcome(struct remote *x, const struct wire_header *h, struct bytes body)
{
	struct wire_welcome m;

	if (h->type != WIRE_WELCOME || wire_read_welcome(body, &m) < 0 || !m.session)
		return -EPROTO;
	if (x->had_session && !is_the_same(&x->welcome, &m))
		return -ESTALE;
	take_welcome(x, &m);
	struct conn_limits limits = {
		.max_body = WIRE_BODY_MAX,
		.max_calls = m.max_requests,
		.idle_ms = m.keep_alive_ms,
		.ping_ms = (m.keep_alive_ms + 2) / 3,
	};
	conn_set_limits(x->conn, &limits);
	x->state = REMOTE_JOINING;
	x->joining = NULL;
	x->begun_ns = clock_ns();
	count_link(x, 1);
	atomic_store(&x->is_by_rdma, x->by_rdma);
	atomic_store(&x->session, m.session);
	join_next(x);
	return 0;
}

static int on_ring(struct remote *x, const struct wire_header *h, struct bytes body)
{
	uint32_t watch;

	if (h->type != WIRE_RING || wire_read_watch_number(body, &watch) < 0)
		return -EPROTO;
	if (x->ring)
		x->ring(x->ring_arg, watch);
	return 0;
}

static int on_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct remote *x = arg;

	switch (x->state) {
	case REMOTE_DOWN:
	case REMOTE_CONNECTING:
		return -EPROTO;
	case REMOTE_GREETED:
		return on_challenge(x, h, body);
	case REMOTE_PROVEN:
		return on_welcome(x, h, body);
	case REMOTE_JOINING:
	case REMOTE_UP:
		return on_ring(x, h, body);
	}
	return -EPROTO;
}

/* The end of one ---------------------------------------------------------------------- */

static const char *reason_text(int reason)
{
	switch (reason) {
	case -EKEYREJECTED:
		return "it has another token";
	case -EPROTONOSUPPORT:
		return "it is of another version";
	case -ESTALE:
		return "it has another pool than before: unmount, and mount again";
	default:
		return conn_reason_text(reason);
	}
}

/* Up to the one that was joining; all, if it was up. */
static void tell_lost(struct remote *x)
{
	struct remote_part *until = x->joining ? x->joining->next : NULL;

	x->joining = NULL;
	for (struct remote_part *p = x->parts; p != until; p = p->next)
		if (p->lost)
			p->lost(p->arg);
}

static void session_lost(struct remote *x, enum remote_state was, int reason)
{
	log_error("node", "%s: session %llu has ended: %s", x->node,
		  (unsigned long long)x->session, reason_text(reason));
	atomic_store(&x->is_up, false);
	atomic_store(&x->session, 0);
	bool silent = reason == -ETIMEDOUT || reason == -EIO;
	uint64_t now = clock_ns();
	if (x->by_rdma && silent && now - x->begun_ns < RDMA_LASTS_MS * NS_PER_MS) {
		x->avoid_ns = now + RDMA_AVOID_MS * NS_PER_MS;
		x->rdma_reason = reason;
	}
	if (was == REMOTE_UP) { /* not one that cannot join, again and again */
		x->lost_ns = clock_ns();
		x->pause_ms = 0;
	}
	x->complained = 0;
	tell_lost(x);
}

static void attempt_failed(struct remote *x, int reason)
{
	if (x->complained != reason)
		log_warn("node", "%s: no session yet: %s. Trying again", x->node,
			 reason_text(reason));
	x->complained = reason;
}

void remote_closed(struct remote *x)
{
	atomic_store(&x->is_up, false);
	atomic_store(&x->session, 0);
	assert(!x->first);
	sem_post(&x->ended);
}

static int attempt_by_rdma(struct remote *x);
static int attempt_by_tcp(struct remote *x);

/* One that has begun no session has ended: there may be another way. */
static int attempt_otherwise(struct remote *x, int reason)
{
	bool ask_again = x->ask_again;

	x->ask_again = false;
	if (x->closing || x->is_last || !(x->by_rdma || ask_again))
		return reason;
	if (x->by_rdma)
		x->rdma_reason = reason;
	return ask_again && !attempt_by_rdma(x) ? 0 : attempt_by_tcp(x);
}

static void on_ended(void *arg, int reason)
{
	struct remote *x = arg;
	enum remote_state was = x->state;

	conn_free(x->conn);
	x->conn = NULL;
	x->state = REMOTE_DOWN;
	if (was >= REMOTE_JOINING)
		count_link(x, -1);
	else if ((reason = attempt_otherwise(x, reason)) >= 0)
		return;
	if (x->closing) {
		remote_closed(x);
	} else if (was >= REMOTE_JOINING) {
		session_lost(x, was, reason);
		go_down(x);
	} else if (x->had_session) {
		attempt_failed(x, reason);
		go_down(x);
	} else {
		x->reason = reason;
		sem_post(&x->opened);
	}
}

static const struct conn_ops ops = { .up = on_up, .message = on_message,
				    .unsent = remote_unsent, .ended = on_ended };

/* Connecting again -------------------------------------------------------------------- */

static int attempt_by_tcp(struct remote *x)
{
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX, .until_ns = x->until_ns };
	int r = conn_connect(x->loop, &x->to, &limits, &ops, x, &x->conn);

	x->by_rdma = false;
	if (r >= 0)
		x->state = REMOTE_CONNECTING;
	return r;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int attempt_by_rdma(struct remote *x)
{
	uint64_t now = clock_ns(), half = now + (x->until_ns - now) / 2;
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX, .until_ns = half };
	struct stream *s;

	x->rdma_tries++;
	if (!x->rdma || now < x->avoid_ns || now >= x->until_ns)
		return -ENODEV;
	int r = remote_rdma_connect(x->rdma, earlier(half, now + RDMA_MS * NS_PER_MS), &s);
	if (!r)
		r = conn_over(x->loop, s, &limits, &ops, x, &x->conn);
	if (r < 0) {
		x->rdma_reason = r;
		return r;
	}
	x->by_rdma = true;
	x->state = REMOTE_CONNECTING;
	return 0;
}

int remote_attempt(struct remote *x, uint64_t until_ns)
{
	x->until_ns = until_ns;
	x->rdma_tries = 0;
	return attempt_by_rdma(x) < 0 ? attempt_by_tcp(x) : 0;
}

static void tick(void *arg)
{
	struct remote *x = arg;

	remote_end_late(x);
	if (x->state == REMOTE_UP && x->timer) {
		loop_timer_free(x->timer);
		x->timer = NULL;
	}
	if (x->state != REMOTE_DOWN || clock_ns() < x->next_ns)
		return;
	int r = remote_attempt(x, clock_ns() + ATTEMPT_MS * NS_PER_MS);
	if (r < 0) {
		attempt_failed(x, r);
		go_down(x);
	}
}

/* Ticks, and knows when it is time for the next attempt. */
static void go_down(struct remote *x)
{
	if (x->is_last) {
		remote_call_again(x); /* they end */
		return;
	}
	x->next_ns = clock_ns() + x->pause_ms * NS_PER_MS;
	x->pause_ms = x->pause_ms ? x->pause_ms * 2 : PAUSE_MIN_MS;
	if (x->pause_ms > PAUSE_MAX_MS)
		x->pause_ms = PAUSE_MAX_MS;
	if (!x->timer && loop_timer_new(x->loop, 1, TICK_MS, tick, x, &x->timer) < 0)
		abort(); /* out of memory for a few bytes */
}

