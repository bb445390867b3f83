/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node (engine/server.h), as mounts and as peers see it that are none: who is
 * let in, what a session holds and that it is given back, and what becomes of
 * requests that have no answer. Hostile peers speak through plain sockets.
 */
#include "tests/unit/net_kit.h"
#include "tests/unit/refs_kit.h"

#include "engine/remote.h"
#include "engine/server.h"
#include "tests/fuzz/wire_trips.h"

/* An index whose writes wait while it is shut -------------------------------------- */

struct gate {
	struct kv kv;
	struct kv *inner;
	pthread_mutex_t mutex;
	bool shut;
	unsigned nheld;
	struct held {
		struct kv_req req;
		struct kv_req *asked;
		struct gate *gate;
	} held[16];
};

static void held_done(struct kv_req *req, int outcome)
{
	struct held *h = (struct held *)req;

	h->asked->rows = req->rows;
	h->asked->memory = req->memory;
	h->asked->revision = req->revision;
	kv_req_done(&h->gate->kv, h->asked, outcome);
}

static void gate_submit(struct kv *kv, struct kv_req *req)
{
	struct gate *g = (struct gate *)kv;

	pthread_mutex_lock(&g->mutex);
	bool holds = g->shut && req->nwrites;
	if (holds) {
		struct held *h = &g->held[g->nheld++];
		*h = (struct held){ .req = *req, .asked = req, .gate = g };
		h->req.done = held_done;
		h->req.call = NULL; /* it has begun */
	}
	pthread_mutex_unlock(&g->mutex);
	if (holds)
		return;
	int r = kv_wait(g->inner, req);
	if (req->nwrites && r == KV_DONE)
		kv_ring(kv, req->writes, req->nwrites);
	kv_req_done(kv, req, r);
}

static void gate_shut(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	g->shut = true;
	pthread_mutex_unlock(&g->mutex);
}

static unsigned gate_held(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	unsigned n = g->nheld;
	pthread_mutex_unlock(&g->mutex);
	return n;
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	unsigned n = g->nheld;
	g->shut = false;
	g->nheld = 0;
	pthread_mutex_unlock(&g->mutex);
	for (unsigned i = 0; i < n; i++)
		kv_submit(g->inner, &g->held[i].req);
}

static struct kv_caps gate_caps(struct kv *kv)
{
	struct kv *inner = ((struct gate *)kv)->inner;

	return inner->ops->caps(inner);
}

static int gate_stat(struct kv *kv, struct kv_stat *ret)
{
	struct kv *inner = ((struct gate *)kv)->inner;

	return inner->ops->stat(inner, ret);
}

static int gate_end(struct kv *kv, uint64_t session)
{
	struct kv *inner = ((struct gate *)kv)->inner;

	return inner->ops->session_end(inner, session);
}

static const struct kv_ops gate_ops = { .name = "gate", .submit = gate_submit, .caps = gate_caps,
					.stat = gate_stat, .session_end = gate_end };

/* A node ---------------------------------------------------------------------------- */

static struct gate gate;
static struct pool *pool;
static struct server *server;
static struct server_opts opts;
static const struct auth_key token = { { 4, 5, 6 } }, other_token = { { 4, 5, 7 } };

static int setup(void **state)
{
	struct pool_opts po = { .bytes = 4 << 20, .create = true };

	(void)state;
	gate = (struct gate){ .kv.ops = &gate_ops, .mutex = PTHREAD_MUTEX_INITIALIZER };
	assert_int_equal(kv_mem_open(&gate.inner), 0);
	assert_int_equal(pool_open(&po, &pool), 0);
	opts = (struct server_opts){ .listen = "127.0.0.1:0", .kv = &gate.kv, .pool = pool,
				     .key = &token, .max_pins = 100 };
	return 0;
}

static void start(void)
{
	char *reason = NULL;

	assert_int_equal(server_open(&opts, &server, &reason), 0);
}

static int teardown(void **state)
{
	(void)state;
	server_close(server);
	server = NULL;
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
	pool_close(pool);
	kv_close(gate.inner);
	assert_nothing_in_flight();
	return 0;
}

static int join_as(const struct auth_key *key, bool read_only, struct remote **ret)
{
	_cleanup_(freep) char *reason = NULL;
	char where[32];

	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(server));
	struct remote_opts o = { .node = where, .name = "test \n mount", .key = key,
				 .read_only = read_only };
	int r = remote_open(&o, ret, &reason);
	assert_int_equal(r < 0, reason != NULL);
	return r;
}

/* Letting in -------------------------------------------------------------------------- */

static void test_only_who_has_the_token_is_let_in(void **state)
{
	struct remote *x;

	(void)state;
	start();
	assert_int_equal(join_as(&other_token, false, &x), -EKEYREJECTED);
	assert_int_equal(join_as(NULL, false, &x), -EKEYREJECTED);
	assert_int_equal(join_as(&token, false, &x), 0);
	assert_true(remote_is_up(x));
	assert_int_equal(remote_welcome(x)->pool_pages, pool_npages(pool));
	assert_int_equal(remote_ask(x, WIRE_PING, (struct writer){ 0 }, 0, NULL), 0);
	remote_close(x);
}

static void test_who_listens_to_all_has_a_token(void **state)
{
	_cleanup_(freep) char *reason = NULL;
	struct server *s;

	(void)state;
	start();
	opts.key = NULL;
	opts.listen = "0.0.0.0:0";
	assert_int_equal(server_open(&opts, &s, &reason), -EPERM);
	assert_non_null(strstr(reason, "--token-file"));
	assert_int_equal(server_check(&opts, &reason), -EPERM);
	opts.listen = "127.0.0.1:x";
	assert_int_equal(server_open(&opts, &s, &reason), -EINVAL);
	assert_int_equal(server_check(&opts, &reason), -EINVAL);
	char where[32];
	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(server));
	opts.listen = where;
	assert_int_equal(server_open(&opts, &s, &reason), -EADDRINUSE);
	assert_int_equal(server_check(&opts, &reason), -EADDRINUSE);
	assert_non_null(strstr(reason, where));
	opts.listen = "192.0.2.1:1"; /* a document's, nobody's */
	opts.anybody = true;
	assert_int_equal(server_open(&opts, &s, &reason), -EADDRNOTAVAIL);
	assert_int_equal(server_check(&opts, &reason), -EADDRNOTAVAIL);
	opts.listen = "0.0.0.0:0";
	assert_int_equal(server_check(&opts, &reason), 0);
	assert_int_equal(server_open(&opts, &s, &reason), 0);
	server_close(s);
}

static void test_a_full_node_lets_nobody_in(void **state)
{
	struct remote *x, *y;

	(void)state;
	opts.max_sessions = 1;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	assert_int_equal(join_as(&token, false, &y), -ECONNRESET);
	remote_close(x);
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
	assert_int_equal(join_as(&token, false, &y), 0);
	remote_close(y);
}

/* Peers that are none ------------------------------------------------------------------ */

struct raw {
	int fd;
	struct writer hello, in;
	struct wire_challenge challenge;
	uint64_t id;
	struct auth_key before; /* secret of the session that it takes the place of */
};

static struct raw raw_begin(void)
{
	return (struct raw){ .fd = raw_connect(server_port(server)) };
}

static void raw_end(struct raw *w)
{
	raw_expect_end(w->fd);
	writer_fini(&w->hello);
	writer_fini(&w->in);
}

static void raw_plain(struct raw *w, uint16_t type, struct writer body)
{
	raw_message(w->fd, (struct wire_header){ .type = type }, body);
}

static void raw_hello(struct raw *w, uint16_t version)
{
	struct wire_hello m = { .version_min = version, .version_max = version,
				.name = bytes_str("raw") };
	struct writer body = { 0 };

	auth_random(m.nonce);
	wire_write_hello(&w->hello, &m);
	write_bytes(&body, w->hello.p, w->hello.len);
	raw_plain(w, WIRE_HELLO, body);
}

static void raw_expect(struct raw *w, uint16_t type)
{
	struct wire_header h;

	assert_true(raw_next(w->fd, &h, &w->in));
	assert_int_equal(h.type, type);
}

static struct writer proof_of(struct raw *w, const struct auth_key *key)
{
	struct writer body = { 0 };
	struct wire_proof m;

	auth_prove(key, AUTH_MOUNT, writer_bytes(&w->hello), &w->challenge, m.proof);
	auth_prove(&w->before, AUTH_MOUNT, writer_bytes(&w->hello), &w->challenge, m.before);
	wire_write_proof(&body, &m);
	return body;
}

static void raw_challenged(struct raw *w)
{
	raw_hello(w, WIRE_VERSION);
	raw_expect(w, WIRE_CHALLENGE);
	assert_int_equal(wire_read_challenge(writer_bytes(&w->in), &w->challenge), 0);
	assert_true(auth_proves(&token, AUTH_NODE, writer_bytes(&w->hello), &w->challenge,
				w->challenge.proof));
}

static struct raw raw_join(void)
{
	struct raw w = raw_begin();

	raw_challenged(&w);
	raw_plain(&w, WIRE_PROOF, proof_of(&w, &token));
	raw_expect(&w, WIRE_WELCOME);
	return w;
}

static void test_the_beginning_goes_one_way_only(void **state)
{
	struct writer none = { 0 };
	struct raw w;

	(void)state;
	start();
	w = raw_begin(); /* a request first */
	raw_message(w.fd, (struct wire_header){ .type = WIRE_PING, .id = 1 }, none);
	raw_end(&w);
	w = raw_begin(); /* the second before the first */
	raw_plain(&w, WIRE_PROOF, proof_of(&w, &token));
	raw_end(&w);
	w = raw_begin(); /* another version */
	raw_hello(&w, WIRE_VERSION + 1);
	raw_end(&w);
	w = raw_begin(); /* twice the first */
	raw_challenged(&w);
	raw_hello(&w, WIRE_VERSION);
	raw_end(&w);
	w = raw_begin(); /* a request before the proof */
	raw_challenged(&w);
	raw_message(w.fd, (struct wire_header){ .type = WIRE_STAT, .id = 1 }, none);
	raw_end(&w);
	w = raw_begin(); /* the node's own proof */
	raw_challenged(&w);
	struct writer body = { 0 };
	write_bytes(&body, w.challenge.proof, WIRE_NONCE);
	write_bytes(&body, w.challenge.proof, WIRE_NONCE);
	raw_plain(&w, WIRE_PROOF, body);
	raw_end(&w);
	w = raw_begin(); /* another token's */
	raw_challenged(&w);
	raw_plain(&w, WIRE_PROOF, proof_of(&w, &other_token));
	raw_end(&w);
	w = raw_begin(); /* more than a beginning can be */
	body = (struct writer){ 0 };
	write_room(&body, 1000);
	memset(body.p, 0, body.len);
	raw_plain(&w, WIRE_HELLO, body);
	raw_end(&w);
	assert_int_equal(metric_get(M_SESSIONS), 0);
}

static void test_a_proof_that_was_heard_is_of_no_use(void **state)
{
	struct raw w, again;

	(void)state;
	start();
	w = raw_join();
	again = raw_begin();
	struct writer hello = { 0 };
	write_bytes(&hello, w.hello.p, w.hello.len);
	raw_plain(&again, WIRE_HELLO, hello);
	raw_expect(&again, WIRE_CHALLENGE);
	raw_plain(&again, WIRE_PROOF, proof_of(&w, &token));
	raw_end(&again);
	shutdown(w.fd, SHUT_WR);
	raw_end(&w);
}

static struct writer one_slice(enum wire_form form, uint32_t page, uint32_t gen, uint32_t pages)
{
	struct wire_item v = { { page, gen }, pages };
	struct writer w = { 0 };

	wire_write_items(&w, form, &(struct wire_items){ 1, &v });
	return w;
}

static void test_what_does_not_parse_ends_the_session(void **state)
{
	static const uint16_t types[] = { WIRE_KV, WIRE_WATCH, WIRE_UNWATCH, WIRE_ALLOC, WIRE_SEAL,
					  WIRE_PIN, WIRE_STAT, WIRE_DROP_KEYS, WIRE_READ,
					  WIRE_WRITE };
	static const uint16_t plain[] = { WIRE_HELLO, WIRE_CHALLENGE, WIRE_PROOF, WIRE_WELCOME,
					  WIRE_RING, WIRE_UNPIN };
	struct raw w;

	(void)state;
	start();
	for (unsigned i = 0; i < sizeof(types) / sizeof(*types) + 6; i++) {
		struct writer body = { 0 };
		w = raw_join();
		write_bytes(&body, "x", 1);
		if (i < 6)
			raw_plain(&w, plain[i], body);
		else
			raw_message(w.fd, (struct wire_header){ .type = types[i - 6], .id = 1 },
				    body);
		raw_end(&w);
	}
	w = raw_join(); /* what it does not hold */
	raw_plain(&w, WIRE_UNPIN, one_slice(WIRE_SLICES, 0, 1, 0));
	raw_end(&w);
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
}

/* Messages that are right, or nearly: the node lives, and nothing is left. */
static void walk_rubbish(void *arg, uint64_t seed)
{
	static const enum trip trips[] = { TRIP_KV, TRIP_WATCH, TRIP_NUMBER, TRIP_PAGES,
					   TRIP_SLICE_PAGES, TRIP_SLICES };
	static const uint16_t types[] = { WIRE_KV, WIRE_WATCH, WIRE_UNWATCH, WIRE_ALLOC, WIRE_SEAL,
					  WIRE_UNPIN };
	struct dice d = { seed };

	(void)arg;
	for (unsigned n = 0; n < 60; n++) {
		struct raw w = raw_join();
		unsigned messages = (unsigned)roll(&d, 40);
		for (uint64_t id = 1; id <= messages; id++) {
			unsigned k = (unsigned)roll(&d, 6);
			struct writer body = { 0 };
			random_message(&d, trips[k], &body);
			if (!roll(&d, 30))
				body.p[roll(&d, body.len)] ^= (uint8_t)roll(&d, 256);
			raw_message(w.fd, (struct wire_header){ .type = types[k],
								.id = k == 5 ? 0 : id }, body);
		}
		shutdown(w.fd, SHUT_WR);
		raw_end(&w);
	}
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
}

static void test_rubbish(void **state)
{
	(void)state;
	start();
	for_seeds("rubbish", walk_rubbish, NULL);
}

static void test_a_silent_session_ends(void **state)
{
	(void)state;
	opts.keep_alive_ms = 100;
	start();
	struct raw w = raw_join();
	raw_message(w.fd, (struct wire_header){ .type = WIRE_ALLOC, .id = 1 },
		    one_slice(WIRE_PAGES, 0, 0, 7));
	raw_expect(&w, WIRE_ALLOC);
	assert_int_equal(metric_get(M_PINS), 1);
	raw_end(&w);
	WAIT_FOR(metric_get(M_PINS) == 0);
	struct remote *x; /* whereas a mount keeps itself alive */
	assert_int_equal(join_as(&token, false, &x), 0);
	usleep(500000);
	assert_true(remote_is_up(x));
	remote_close(x);
}

/* Asks for a large row again and again, and takes no answer: it waits, and then
 * it has been silent for too long. */
static void test_who_takes_no_answers_is_not_read(void **state)
{
	struct kv_read rd = { .from = bytes_str("D1") };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	static uint8_t big[KV_VALUE_MAX];
	uint64_t id = 0;

	(void)state;
	assert_int_equal(put_bytes(gate.inner, bytes_str("D1"), BYTES_OF(big, sizeof(big))), 0);
	opts.keep_alive_ms = 300;
	start();
	struct raw w = raw_join();
	int64_t reads = metric_get(M_INDEX_READS);
	for (unsigned i = 0; i < 200; i++) { /* 25 MiB */
		struct writer body = { 0 };
		wire_write_kv(&body, &req, false);
		raw_message(w.fd, (struct wire_header){ .type = WIRE_KV, .id = ++id }, body);
	}
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
	assert_true(metric_get(M_INDEX_READS) - reads < 150);
	raw_end(&w);
}

/* Slices ------------------------------------------------------------------------------ */

static int ask_items(struct remote *x, uint16_t type, struct writer body, struct wire_items *ret)
{
	struct writer w = { 0 };
	int r = remote_ask(x, type, body, 0, &w);

	if (r >= 0 && ret)
		assert_int_equal(wire_read_items(writer_bytes(&w), WIRE_SLICE_PAGES, ret), 0);
	writer_fini(&w);
	return r;
}

static int seal(struct remote *x, struct slice_id s, uint32_t keep)
{
	struct wire_results got;
	struct writer w = { 0 };

	assert_int_equal(remote_ask(x, WIRE_SEAL, one_slice(WIRE_SLICE_PAGES, s.page, s.gen, keep),
				    0, &w), 0);
	assert_int_equal(wire_read_results(writer_bytes(&w), &got), 0);
	assert_int_equal(got.n, 1);
	int r = wire_errno(got.v[0]);
	wire_results_fini(&got);
	writer_fini(&w);
	return r;
}

static struct slice_id alloc(struct remote *x, uint32_t pages)
{
	struct wire_items got;

	assert_int_equal(ask_items(x, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, pages), &got), 0);
	struct slice_id s = got.v[0].slice;
	assert_int_equal(got.v[0].pages, pages);
	wire_items_fini(&got);
	return s;
}

static int pin(struct remote *x, struct slice_id s, uint32_t pages)
{
	struct wire_item v = { s, pages };
	struct writer w = { 0 };

	wire_write_pin(&w, &(struct wire_pin){ .items = { 1, &v } });
	return ask_items(x, WIRE_PIN, w, NULL);
}

/* Each on its own: what becomes of it. */
static void pin_each(struct remote *x, const struct wire_item *v, uint32_t n, int *ret)
{
	struct wire_pin m = { .each = true, .items = { n, (struct wire_item *)v } };
	struct wire_results got;
	struct writer body = { 0 }, w = { 0 };

	wire_write_pin(&body, &m);
	assert_int_equal(remote_ask(x, WIRE_PIN, body, 0, &w), 0);
	assert_int_equal(wire_read_results(writer_bytes(&w), &got), 0);
	assert_int_equal(got.n, n);
	for (uint32_t i = 0; i < n; i++)
		ret[i] = wire_errno(got.v[i]);
	wire_results_fini(&got);
	writer_fini(&w);
}

static void test_slices_belong_to_their_session(void **state)
{
	struct remote *x, *y, *ro;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	assert_int_equal(join_as(&token, false, &y), 0);
	assert_int_equal(join_as(&token, true, &ro), 0);
	struct slice_id s = alloc(x, 10);
	assert_int_equal(pin(y, s, 1), -ESTALE); /* a draft of another */
	assert_int_equal(seal(y, s, 10), -ESTALE);
	assert_int_equal(seal(x, (struct slice_id){ s.page, s.gen + 1 }, 10), -ESTALE);
	assert_int_equal(pin(x, s, 11), -EINVAL);
	assert_int_equal(pin(x, s, 10), 0);
	assert_int_equal(seal(x, s, 0), -EINVAL);
	assert_int_equal(seal(x, s, 11), -EINVAL);
	assert_int_equal(seal(x, s, 6), 0); /* keeps 6 */
	assert_int_equal(pool_nfree(pool), pool_npages(pool) - 6);
	assert_int_equal(seal(x, s, 6), 0);
	assert_int_equal(seal(x, s, 5), -EINVAL);
	assert_int_equal(pin(y, s, 1), -ESTALE);
	assert_int_equal(add_refs(pool, s, 1), 0); /* published */
	assert_int_equal(pin(y, s, 7), -EINVAL);
	assert_int_equal(pin(y, s, 5), -EINVAL);
	assert_int_equal(pin(y, s, 6), 0);
	struct wire_item v[3] = { { s, 5 }, { s, 6 }, { { s.page, s.gen + 1 }, 6 } };
	int each[3];
	pin_each(y, v, 3, each);
	assert_int_equal(each[0], -EINVAL);
	assert_int_equal(each[1], 0);
	assert_int_equal(each[2], -ESTALE);
	assert_int_equal(pin(ro, s, 6), 0);
	assert_int_equal(seal(y, s, 6), -ESTALE);
	assert_int_equal(ask_items(ro, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, 1), NULL), -EROFS);
	assert_int_equal(metric_get(M_PINS), 5);
	assert_int_equal(add_refs(pool, s, -1), 0); /* unlinked: DYING */
	remote_close(x);
	WAIT_FOR(metric_get(M_PINS) == 3);
	remote_close(y);
	remote_close(ro);
	WAIT_FOR(metric_get(M_PINS) == 0);
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
}

static void test_limits_of_a_session(void **state)
{
	struct wire_item v[101] = { 0 };
	struct wire_items asked = { 101, v }, got;
	struct writer w = { 0 };
	struct remote *x;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	for (unsigned i = 0; i < 101; i++)
		v[i].pages = 1;
	wire_write_items(&w, WIRE_PAGES, &asked);
	assert_int_equal(ask_items(x, WIRE_ALLOC, w, NULL), -EAGAIN); /* 100 pins at most */
	assert_int_equal(ask_items(x, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, 0), NULL), -EINVAL);
	assert_int_equal(ask_items(x, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, 1025), NULL),
			 -EINVAL);
	asked.n = 3;
	v[0].pages = v[1].pages = v[2].pages = 1024; /* the pool is one of them */
	w = (struct writer){ 0 };
	wire_write_items(&w, WIRE_PAGES, &asked);
	assert_int_equal(ask_items(x, WIRE_ALLOC, w, &got), POOL_FULL);
	assert_int_equal(got.n, 1);
	for (unsigned i = 0; i < 99; i++)
		assert_int_equal(pin(x, got.v[0].slice, 1024), 0);
	assert_int_equal(pin(x, got.v[0].slice, 1024), -EAGAIN);
	wire_items_fini(&got);
	remote_close(x);
	WAIT_FOR(metric_get(M_PINS) == 0);
}

/* The index ---------------------------------------------------------------------------- */

static int put_within(struct kv *kv, const char *key, uint64_t ms)
{
	struct kv_call call = { .deadline_ns = clock_ns() + ms * 1000000 };
	struct kv_write w = { bytes_str(key), bytes_str("v") };
	struct kv_req req = { .writes = &w, .nwrites = 1, .call = &call };

	return run(kv, &req);
}

struct getting {
	struct kv *kv;
	atomic_bool done;
	char value[64];
};

static void *get_it(void *arg)
{
	struct getting *g = arg;

	strcpy(g->value, get(g->kv, "D1"));
	g->done = true;
	return NULL;
}

static void test_a_read_resolves_what_had_no_answer(void **state)
{
	struct getting g = { 0 };
	struct remote *x;
	pthread_t t;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	assert_int_equal(kv_remote_open(x, &g.kv), 0);
	gate_shut(&gate);
	assert_int_equal(put_within(g.kv, "D1", 50), KV_UNKNOWN);
	assert_int_equal(gate_held(&gate), 1);
	assert_int_equal(pthread_create(&t, NULL, get_it, &g), 0);
	usleep(50000);
	assert_false(g.done); /* it would say "no such key" */
	gate_open(&gate);
	pthread_join(t, NULL);
	assert_string_equal(g.value, "v");
	gate_shut(&gate); /* settled: reads overtake again */
	assert_int_equal(put_within(g.kv, "D2", 0), -ETIMEDOUT); /* not sent */
	assert_string_equal(get(g.kv, "D2"), "-");
	gate_open(&gate);
	kv_close(g.kv);
	remote_close(x);
}

struct putting {
	struct kv *kv;
	uint64_t session;
	int outcome;
};

static void *put_it(void *arg)
{
	struct putting *p = arg;

	char key[16];

	p->outcome = put_bytes(p->kv, session_key(key, "n1", p->session), bytes_str("v"));
	return NULL;
}

static void *close_server(void *arg)
{
	server_close(arg);
	return NULL;
}

static void test_the_end_of_a_session_waits_for_what_is_under_way(void **state)
{
	struct putting p = { 0 };
	struct remote *x;
	struct kv_stat st;
	pthread_t t, closer;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	remote_last(x);
	assert_int_equal(kv_remote_open(x, &p.kv), 0);
	p.session = remote_welcome(x)->session;
	gate_shut(&gate);
	assert_int_equal(pthread_create(&t, NULL, put_it, &p), 0);
	WAIT_FOR(gate_held(&gate) == 1);
	assert_int_equal(pthread_create(&closer, NULL, close_server, server), 0);
	server = NULL;
	pthread_join(t, NULL);
	assert_int_equal(p.outcome, KV_UNKNOWN);
	assert_int_equal(put(p.kv, "n2", "v"), -ENOTCONN);
	assert_int_equal(p.kv->ops->stat(p.kv, &st), -ENOTCONN);
	assert_int_equal(p.kv->ops->session_end(p.kv, p.session), 0);
	assert_false(remote_is_up(x));
	usleep(20000);
	assert_int_equal(metric_get(M_SESSIONS), 1); /* its request is still there */
	gate_open(&gate);
	pthread_join(closer, NULL);
	assert_int_equal(metric_get(M_SESSIONS), 0);
	assert_int_equal(metric_get(M_SESSION_KEYS), 0); /* written, and gone with it */
	kv_close(p.kv);
	remote_close(x);
}

static void ring(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static void test_others_commits_ring(void **state)
{
	struct remote *x, *y;
	struct kv *kx, *ky;
	struct kv_watch *w;
	atomic_uint rings = 0;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	assert_int_equal(join_as(&token, true, &y), 0);
	assert_int_equal(kv_remote_open(x, &kx), 0);
	assert_int_equal(kv_remote_open(y, &ky), 0);
	assert_int_equal(kv_watch(ky, bytes_str("D"), ring, &rings, &w), 0);
	assert_string_equal(get(ky, "D1"), "-"); /* the watch has begun */
	assert_int_equal(put(kx, "D1", "v"), KV_DONE);
	WAIT_FOR(rings == 1);
	assert_int_equal(put(kx, "E1", "v"), KV_DONE);
	assert_string_equal(get(ky, "D1"), "v");
	assert_int_equal(rings, 1);
	assert_int_equal(put(ky, "D2", "v"), -EROFS);
	kv_unwatch(ky, w);
	assert_int_equal(put(kx, "D1", "w"), KV_DONE);
	assert_string_equal(get(ky, "D1"), "w");
	assert_int_equal(rings, 1);
	kv_close(ky);
	kv_close(kx);
	remote_close(y);
	remote_close(x);
}

/* Mounts that go away at any moment, while others go on. */
static void *come_and_go(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 15; i++) {
		struct remote *x;
		struct kv *kv;
		struct kv_watch *w;
		atomic_uint rings = 0;

		assert_int_equal(join_as(&token, false, &x), 0);
		assert_int_equal(kv_remote_open(x, &kv), 0);
		assert_int_equal(kv_watch(kv, bytes_str("D"), ring, &rings, &w), 0);
		for (unsigned k = 0; k < 20; k++) {
			int r = put(kv, "D1", "v");
			assert_true(r == KV_DONE || r == KV_UNKNOWN || r == -ENOTCONN);
			ask_items(x, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, 1), NULL);
			if (i % 3 == 0 && k == 10)
				remote_stop(x, -ECANCELED);
		}
		kv_unwatch(kv, w);
		kv_close(kv);
		remote_close(x);
	}
	return NULL;
}

static void test_sessions_come_and_go(void **state)
{
	pthread_t t[4];

	(void)state;
	start();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, come_and_go, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
}

/* What is being written may be finished, and nobody new comes in. */
static void *drain_it(void *arg)
{
	server_drain(arg, 60000);
	return NULL;
}

static void test_draining(void **state)
{
	struct remote *x, *y;
	pthread_t t;

	(void)state;
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	struct slice_id s = alloc(x, 3);
	assert_int_equal(pthread_create(&t, NULL, drain_it, server), 0);
	usleep(50000);
	assert_int_equal(join_as(&token, false, &y), -ECONNREFUSED);
	assert_int_equal(remote_ask(x, WIRE_PING, (struct writer){ 0 }, 0, NULL), 0);
	assert_int_equal(pthread_tryjoin_np(t, NULL), EBUSY);
	assert_int_equal(seal(x, s, 3), 0);
	pthread_join(t, NULL);
	assert_true(remote_is_up(x));
	alloc(x, 3);
	server_drain(server, 50); /* not for ever */
	remote_last(x);
	server_close(server);
	server = NULL;
	remote_close(x);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_only_who_has_the_token_is_let_in),
		T(test_who_listens_to_all_has_a_token),
		T(test_a_full_node_lets_nobody_in),
		T(test_the_beginning_goes_one_way_only),
		T(test_a_proof_that_was_heard_is_of_no_use),
		T(test_what_does_not_parse_ends_the_session),
		T(test_rubbish),
		T(test_a_silent_session_ends),
		T(test_who_takes_no_answers_is_not_read),
		T(test_slices_belong_to_their_session),
		T(test_limits_of_a_session),
		T(test_a_read_resolves_what_had_no_answer),
		T(test_the_end_of_a_session_waits_for_what_is_under_way),
		T(test_others_commits_ring),
		T(test_sessions_come_and_go),
		T(test_draining),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
