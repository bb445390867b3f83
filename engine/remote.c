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
 * Calls that no session takes wait in a list. While the link is DOWN a timer ticks:
 * it ends what waits too long or is cancelled, and connects again when it is time
 * to, first at once, then after pauses that double.
 *
 * Threads: the loop's has all of it, but for what is atomic.
 */
#include "engine/remote.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/remote_rdma.h"
#include "engine/server.h"

enum remote_state {
	REMOTE_DOWN,
	REMOTE_CONNECTING,
	REMOTE_GREETED,
	REMOTE_PROVEN,
	REMOTE_JOINING,
	REMOTE_UP,
};

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

struct remote {
	struct remote_opts o; /* its strings: until remote_open() returns */
	char node[300], name[WIRE_NAME_MAX + 1];
	struct auth_key key;
	struct sockaddr_storage to;
	struct loop *loop;
	struct wire_welcome welcome; /* see remote_welcome() */
	sem_t opened, ended; /* what remote_open() and remote_close() wait for */
	int reason;          /* why there is no first session */
	_Atomic uint64_t session;
	atomic_bool is_up, is_by_rdma;
	_Atomic uint32_t features; /* that the last session's node shares */
	struct remote_rdma *rdma; /* for requests; NULL: they go by TCP */
	atomic_uint last_number; /* remote_number() */
	atomic_flag stop_asked; /* whoever sets it has the next three */
	uint64_t stop_session;
	int stop_reason;
	struct loop_call stop_post;

	/* The loop's thread only. */
	enum remote_state state;
	struct conn *conn; /* of any state but DOWN */
	struct writer hello;
	bool had_session, is_last, closing;
	struct remote_part *parts;
	struct remote_part *joining;      /* whose begun() was called last */
	struct conn_call *first, **last; /* that wait for a session */
	struct loop_timer *timer;         /* while DOWN */
	uint64_t next_ns, pause_ms;       /* of the next attempt */
	uint64_t until_ns;                /* of this attempt */
	uint64_t begun_ns, lost_ns;       /* when the last session began, ended */
	uint64_t avoid_ns;                /* no RDMA before that */
	bool by_rdma;                     /* this connection is */
	unsigned rdma_tries;              /* in this attempt */
	bool ask_again;                   /* by RDMA, when this one has ended */
	int rdma_reason;                  /* why the last one by RDMA began no session */
	int said_carrier;                 /* 1 TCP, 2 RDMA; 0: nothing yet */
	int complained;                   /* of why attempts fail, since then; 0: not */
	void (*ring)(void *arg, uint32_t watch);
	void *ring_arg;
};

static void go_down(struct remote *x);

/* Calls ---------------------------------------------------------------------------- */

static void call_end(struct conn_call *call, int r)
{
	writer_fini(&call->body);
	metric_add(M_REMOTE_CALLS, -1);
	call->done(call, r, BYTES_NONE);
}

static void wait_for_session(struct remote *x, struct conn_call *call)
{
	call->next = NULL;
	*x->last = call;
	x->last = &call->next;
}

/* It is counted as under way: by us, or by the connection. */
static void hand_over(struct remote *x, struct conn_call *call)
{
	metric_add(M_REMOTE_CALLS, -1);
	conn_call(x->conn, call);
}

static void call_begin(void *arg)
{
	struct conn_call *call = arg;
	struct remote *x = call->remote;

	if (call->session ? call->session == x->session : x->state == REMOTE_UP)
		hand_over(x, call);
	else if (call->session || x->is_last)
		call_end(call, -ENOTCONN);
	else
		wait_for_session(x, call);
}

void remote_call(struct remote *x, struct conn_call *call)
{
	lock_assert_none();
	metric_add(M_REMOTE_CALLS, 1);
	call->remote = x;
	call->sent = call->answered = call->owes_late = false;
	call->post = (struct loop_call){ .fn = call_begin, .arg = call };
	if (loop_is_current(x->loop))
		call_begin(call);
	else
		loop_post_call(x->loop, &call->post);
}

/* The connection ends, and has not sent it. */
static void on_unsent(void *arg, struct conn_call *call)
{
	struct remote *x = arg;

	metric_add(M_REMOTE_CALLS, 1);
	if (call->session || x->is_last)
		call_end(call, -ENOTCONN);
	else
		wait_for_session(x, call);
}

static struct conn_call *take_waiting(struct remote *x)
{
	struct conn_call *list = x->first;

	x->first = NULL;
	x->last = &x->first;
	return list;
}

/* All that wait once more, or end, or go to the session that is there now. */
static void call_again(struct remote *x)
{
	for (struct conn_call *call = take_waiting(x), *next; call; call = next) {
		next = call->next;
		call_begin(call);
	}
}

static void end_late(struct remote *x)
{
	uint64_t now = clock_ns();

	for (struct conn_call *call = take_waiting(x), *next; call; call = next) {
		next = call->next;
		if (kv_call_is_cancelled(call->of))
			call_end(call, -ECANCELED);
		else if (call->deadline_ns && now >= call->deadline_ns)
			call_end(call, -ETIMEDOUT);
		else
			call_begin(call);
	}
}

struct sending {
	struct loop_call post;
	struct remote *remote;
	uint64_t session;
	uint16_t type;
	struct writer body;
};

static void send_on_loop(void *arg)
{
	struct sending *s = arg;
	struct remote *x = s->remote;

	if (s->session == x->session)
		conn_send(x->conn, s->type, s->body);
	else
		writer_fini(&s->body);
	free(s);
}

void remote_send(struct remote *x, uint64_t session, uint16_t type, struct writer body)
{
	struct sending *s = malloc(sizeof(*s));

	if (!s) {
		writer_fini(&body);
		remote_stop(x, -ENOMEM); /* the node must not miss it */
		return;
	}
	*s = (struct sending){ { .fn = send_on_loop, .arg = s }, x, session, type, body };
	if (loop_is_current(x->loop))
		send_on_loop(s);
	else
		loop_post_call(x->loop, &s->post);
}

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
	call_again(x);
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

static void close_now(struct remote *x)
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
		close_now(x);
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
				    .unsent = on_unsent, .ended = on_ended };

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

static int attempt(struct remote *x, uint64_t until_ns)
{
	x->until_ns = until_ns;
	x->rdma_tries = 0;
	return attempt_by_rdma(x) < 0 ? attempt_by_tcp(x) : 0;
}

static void tick(void *arg)
{
	struct remote *x = arg;

	end_late(x);
	if (x->state == REMOTE_UP && x->timer) {
		loop_timer_free(x->timer);
		x->timer = NULL;
	}
	if (x->state != REMOTE_DOWN || clock_ns() < x->next_ns)
		return;
	int r = attempt(x, clock_ns() + ATTEMPT_MS * NS_PER_MS);
	if (r < 0) {
		attempt_failed(x, r);
		go_down(x);
	}
}

/* Ticks, and knows when it is time for the next attempt. */
static void go_down(struct remote *x)
{
	if (x->is_last) {
		call_again(x); /* they end */
		return;
	}
	x->next_ns = clock_ns() + x->pause_ms * NS_PER_MS;
	x->pause_ms = x->pause_ms ? x->pause_ms * 2 : PAUSE_MIN_MS;
	if (x->pause_ms > PAUSE_MAX_MS)
		x->pause_ms = PAUSE_MAX_MS;
	if (!x->timer && loop_timer_new(x->loop, 1, TICK_MS, tick, x, &x->timer) < 0)
		abort(); /* out of memory for a few bytes */
}

/* Opening and closing -------------------------------------------------------------- */

static void sem_take(sem_t *s)
{
	while (sem_wait(s) < 0)
		assert(errno == EINTR);
}

/* What a call on the loop is about, and what came of it. */
struct errand {
	struct remote *remote;
	struct remote_part *part;
	void (*ring)(void *arg, uint32_t watch);
	void *arg;
	int r;
};

static void remote_free(struct remote *x)
{
	remote_rdma_close(x->rdma);
	loop_free(x->loop);
	writer_fini(&x->hello);
	sem_destroy(&x->opened);
	sem_destroy(&x->ended);
	free(x);
}
DEFINE_CLEANUP(struct remote *, remote_free)

static void connect_first(void *arg)
{
	struct errand *d = arg;
	uint32_t ms = d->remote->o.timeout_ms;

	d->r = attempt(d->remote, clock_ns() + (ms ? ms : 10000) * NS_PER_MS);
}

/* 0: it is up. Negative: it has ended, or was never begun. */
static int connect_and_wait(struct remote *x)
{
	struct errand d = { .remote = x };

	loop_run(x->loop, connect_first, &d);
	int r = d.r;

	if (r < 0)
		return r;
	sem_take(&x->opened);
	return x->reason;
}

static int say_why(const struct remote *x, int r, char **ret_why)
{
	switch (r) {
	case -EKEYREJECTED:
		return why(ret_why, r, "%s: the node has another token. Try: --token-file",
			   x->node);
	case -ECONNRESET:
		return why(ret_why, r, "%s: the node closed the connection: it has another token "
			   "or version, or is full; its log says which", x->node);
	case -EPROTO:
		return why(ret_why, r, "%s: what answers there is no slicefs node", x->node);
	default:
		return why(ret_why, r, "%s: %s. Is a node running there?", x->node,
			   error_text(r));
	}
}

static int open_rdma(struct remote *x, const struct engine_rdma *rdma)
{
	struct remote_rdma_opts o = { .loop = x->loop, .rdma = *rdma, .to = x->to };
	int r = remote_rdma_open(&o, &x->rdma);

	return r == -EOPNOTSUPP ? 0 : r;
}

int remote_open(const struct remote_opts *o, struct remote **ret, char **ret_why)
{
	_cleanup_(remote_freep) struct remote *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->o = *o;
	x->last = &x->first;
	snprintf(x->node, sizeof(x->node), "%s", o->node);
	snprintf(x->name, sizeof(x->name), "%s", o->name ? o->name : "");
	if (o->key)
		x->key = *o->key;
	sem_init(&x->opened, 0, 0);
	sem_init(&x->ended, 0, 0);
	r = stream_resolve(o->node, SERVER_PORT, &x->to);
	if (r < 0)
		return why(ret_why, r, "%s: %s", o->node,
			   r == -EINVAL ? "not a node. Try: host or host:port" : "no such host");
	r = loop_new("remote", &x->loop);
	if (!r && o->requests)
		r = open_rdma(x, o->requests);
	if (r < 0)
		return r;
	r = connect_and_wait(x);
	if (r < 0)
		return say_why(x, r, ret_why);
	*ret = steal(&x);
	return 0;
}

static void last_on_loop(void *arg)
{
	struct remote *x = arg;

	x->is_last = true;
	loop_timer_free(x->timer);
	x->timer = NULL;
	if (x->state == REMOTE_DOWN)
		call_again(x);
	else if (x->state < REMOTE_JOINING)
		conn_stop(x->conn, -ECANCELED);
}

void remote_last(struct remote *x)
{
	loop_run(x->loop, last_on_loop, x);
}

/* BYE, and then the node closes. */
static void close_on_loop(void *arg)
{
	struct remote *x = arg;
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX,
				      .until_ns = clock_ns() + NS_PER_S };

	assert(!x->parts);
	last_on_loop(x);
	x->closing = true;
	if (x->state == REMOTE_DOWN) {
		close_now(x);
	} else if (x->state >= REMOTE_JOINING) {
		conn_send(x->conn, WIRE_BYE, (struct writer){ 0 });
		conn_set_limits(x->conn, &limits);
	}
}

void remote_close(struct remote *x)
{
	if (!x)
		return;
	loop_run(x->loop, close_on_loop, x);
	sem_take(&x->ended);
	remote_free(x);
}

/* Parts ------------------------------------------------------------------------------ */

static void join_on_loop(void *arg)
{
	struct errand *d = arg;
	struct remote_part **at = &d->remote->parts;

	while (*at)
		at = &(*at)->next;
	d->part->next = NULL;
	*at = d->part;
}

void remote_join(struct remote *x, struct remote_part *p)
{
	loop_run(x->loop, join_on_loop, &(struct errand){ .remote = x, .part = p });
}

static void leave_on_loop(void *arg)
{
	struct errand *d = arg;
	struct remote *x = d->remote;
	struct remote_part **at = &x->parts;

	if (x->joining == d->part)
		remote_ready(x, d->part, 0);
	while (*at != d->part)
		at = &(*at)->next;
	*at = d->part->next;
}

void remote_leave(struct remote *x, struct remote_part *p)
{
	loop_run(x->loop, leave_on_loop, &(struct errand){ .remote = x, .part = p });
}

/* Use ------------------------------------------------------------------------------ */

const struct wire_welcome *remote_welcome(const struct remote *x)
{
	return &x->welcome;
}

struct loop *remote_loop(struct remote *x)
{
	return x->loop;
}

const struct sockaddr_storage *remote_address(const struct remote *x)
{
	return &x->to;
}

uint32_t remote_number(struct remote *x)
{
	uint32_t n;

	do
		n = atomic_fetch_add(&x->last_number, 1) + 1;
	while (!n);
	return n;
}

bool remote_is_by_rdma(struct remote *x)
{
	return atomic_load(&x->is_by_rdma);
}

bool remote_has(struct remote *x, uint32_t feature)
{
	return atomic_load(&x->features) & feature;
}

bool remote_has_rdma(struct remote *x)
{
	return remote_has(x, WIRE_FEATURE_RDMA);
}

bool remote_reads_only(const struct remote *x)
{
	return x->o.read_only;
}

uint64_t remote_session(struct remote *x)
{
	return atomic_load(&x->session);
}

bool remote_is_up(struct remote *x)
{
	return atomic_load(&x->is_up);
}

static void stop_on_loop(void *arg)
{
	struct remote *x = arg;
	uint64_t session = x->stop_session;
	int reason = x->stop_reason;

	atomic_flag_clear(&x->stop_asked);
	if (session && session == x->session)
		conn_stop(x->conn, reason);
}

void remote_stop(struct remote *x, int reason)
{
	if (atomic_flag_test_and_set(&x->stop_asked))
		return;
	x->stop_session = remote_session(x);
	x->stop_reason = reason;
	x->stop_post = (struct loop_call){ .fn = stop_on_loop, .arg = x };
	loop_post_call(x->loop, &x->stop_post);
}

struct ask {
	struct conn_call call; /* first: done() gets it */
	sem_t done;
	int r;
	struct writer *ret;
};

static void ask_done(struct conn_call *call, int r, struct bytes body)
{
	struct ask *a = (struct ask *)call;

	a->r = r;
	if (r >= 0 && a->ret) {
		write_bytes(a->ret, body.p, body.len);
		if (a->ret->bad)
			a->r = -ENOMEM;
	}
	sem_post(&a->done);
}

int remote_ask(struct remote *x, uint16_t type, struct writer body, uint64_t deadline_ns,
	       struct writer *ret)
{
	struct ask a = { .call = { .type = type, .body = body, .deadline_ns = deadline_ns,
				   .done = ask_done },
			 .ret = ret };

	assert(!loop_is_current(x->loop));
	sem_init(&a.done, 0, 0);
	remote_call(x, &a.call);
	sem_take(&a.done);
	sem_destroy(&a.done);
	return a.r;
}

static void set_ring_on_loop(void *arg)
{
	struct errand *d = arg;

	d->remote->ring = d->ring;
	d->remote->ring_arg = d->arg;
}

void remote_set_ring(struct remote *x, void (*ring)(void *arg, uint32_t watch), void *arg)
{
	loop_run(x->loop, set_ring_on_loop,
		 &(struct errand){ .remote = x, .ring = ring, .arg = arg });
}
