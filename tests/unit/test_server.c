/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node (engine/server.h), as mounts and as peers see it that are none: who is
 * let in, what a session holds and that it is given back, and what becomes of
 * requests that have no answer. Hostile peers speak through plain sockets.
 */
#include <sys/resource.h>

#include "tests/unit/net_kit.h"
#include "tests/unit/refs_kit.h"

#include "engine/refs.h"
#include "engine/remote.h"
#include "engine/server.h"
#include "index/keys.h"
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
		kv_ring(kv, req);
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

static void gate_close(struct kv *kv)
{
	kv_close(((struct gate *)kv)->inner);
}

static const struct kv_ops gate_ops = { .name = "gate", .submit = gate_submit, .caps = gate_caps,
					.stat = gate_stat, .session_end = gate_end,
					.close = gate_close };

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
	kv_close(&gate.kv);
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

/* Who says nothing makes room for who does. */
static void test_silent_connections_keep_nobody_out(void **state)
{
	enum { MANY = 1100 };
	const struct rlimit files = { 4096, 4096 };
	struct remote *x;
	int fds[MANY];

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	start();
	for (unsigned i = 0; i < MANY; i++)
		fds[i] = raw_connect(server_port(server));
	assert_int_equal(join_as(&token, false, &x), 0);
	remote_close(x);
	for (unsigned i = 0; i < MANY; i++)
		close(fds[i]);
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

static struct writer an_open(uint32_t max)
{
	struct writer w = { 0 };

	wire_write_open(&w, &(struct wire_open){ 1, bytes_str("D1"), BYTES_NONE, max });
	return w;
}

static void print_nothing(void *arg, struct writer *w)
{
	(void)arg;
	(void)w;
}

static void test_what_does_not_parse_ends_the_session(void **state)
{
	static const uint16_t types[] = { WIRE_KV, WIRE_WATCH, WIRE_UNWATCH, WIRE_ALLOC, WIRE_SEAL,
					  WIRE_PIN, WIRE_OPEN, WIRE_STAT, WIRE_DROP_KEYS, WIRE_EVICT,
					  WIRE_ABOUT, WIRE_READ,
					  WIRE_WRITE, WIRE_FENCE, WIRE_SCRUB, WIRE_RECALL,
					  WIRE_STATS };
	static const uint16_t plain[] = { WIRE_HELLO, WIRE_CHALLENGE, WIRE_PROOF, WIRE_WELCOME,
					  WIRE_READY, WIRE_RING, WIRE_UNPIN };
	struct wire_header h;
	struct raw w;

	(void)state;
	opts.print_stats = print_nothing;
	start();
	for (unsigned i = 0; i < sizeof(types) / sizeof(*types) + 7; i++) {
		struct writer body = { 0 };
		w = raw_join();
		write_bytes(&body, "x", 1);
		if (i < 7)
			raw_plain(&w, plain[i], body);
		else
			raw_message(w.fd, (struct wire_header){ .type = types[i - 7], .id = 1 },
				    body);
		raw_end(&w);
	}
	w = raw_join(); /* more than comes with a record */
	raw_message(w.fd, (struct wire_header){ .type = WIRE_OPEN, .id = 1 },
		    an_open(WIRE_OPEN_MAX));
	raw_expect(&w, WIRE_OPEN);
	raw_message(w.fd, (struct wire_header){ .type = WIRE_OPEN, .id = 2 },
		    an_open(WIRE_OPEN_MAX + 1));
	assert_false(raw_next(w.fd, &h, &w.in));
	raw_end(&w);
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

/* Requests that are read, and wait for one before them, which waits as well. */
enum { READ_BEHIND = 200 }; /* 25 MiB of answers */

static struct raw raw_reads_behind(void)
{
	struct kv_read rd = { .from = bytes_str("D1") };
	struct kv_write wr = { bytes_str("D2"), bytes_str("v") };
	struct kv_req put = { .writes = &wr, .nwrites = 1 }, req = { .reads = &rd, .nreads = 1 };
	static uint8_t big[KV_VALUE_MAX];
	struct writer body = { 0 };

	assert_int_equal(put_bytes(gate.inner, bytes_str("D1"), BYTES_OF(big, sizeof(big))), 0);
	start();
	gate_shut(&gate);
	struct raw w = raw_join();
	wire_write_kv(&body, &put, false);
	raw_message(w.fd, (struct wire_header){ .type = WIRE_KV, .id = ++w.id }, body);
	for (unsigned i = 0; i < READ_BEHIND; i++) {
		body = (struct writer){ 0 };
		wire_write_kv(&body, &req, true);
		raw_message(w.fd, (struct wire_header){ .type = WIRE_KV, .id = ++w.id }, body);
	}
	WAIT_FOR(gate_held(&gate) == 1);
	usleep(100000);
	return w;
}

/* They are begun one by one as the answers are taken. */
static void test_who_takes_no_answers_is_not_answered(void **state)
{
	struct raw w = raw_reads_behind();
	int64_t reads = metric_get(M_INDEX_READS);

	(void)state;
	gate_open(&gate);
	usleep(300000);
	assert_in_range(metric_get(M_INDEX_READS) - reads, 1, 150);
	for (unsigned i = 0; i < READ_BEHIND + 1; i++)
		raw_expect(&w, WIRE_KV);
	assert_int_equal(metric_get(M_INDEX_READS) - reads, READ_BEHIND);
	raw_plain(&w, WIRE_BYE, (struct writer){ 0 });
	raw_end(&w);
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
}

/* And who goes meanwhile is not waited for. */
static void test_who_takes_no_answers_and_goes(void **state)
{
	struct raw w = raw_reads_behind();

	(void)state;
	gate_open(&gate);
	usleep(100000);
	shutdown(w.fd, SHUT_RDWR);
	close(w.fd);
	writer_fini(&w.hello);
	writer_fini(&w.in);
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
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

/* The node counts by what is committed: a mount that dies leaves no wrong count, and
 * what a mount writes is looked at. */
static void test_references_are_the_nodes_business(void **state)
{
	struct key d = key_name(INDEX_ROOT, 256, bytes_str("f")), g = key_gone(7, 0, 1);
	struct record rec = { .attr = { .fileid = 7, .mode = S_IFREG, .nlink = 1 } };
	uint64_t sum = 1;
	struct extent e = { .pool_id = pool_id(pool), .npages = 3, .slice_pages = 3, .sums = &sum };
	struct writer body = { 0 }, value = { 0 };
	struct wire_items got;
	struct slice_view v;
	struct refs *refs;
	struct remote *x;
	struct kv *kv;

	(void)state;
	assert_int_equal(refs_open(pool, NULL, gate.inner, &refs), 0);
	start();
	assert_int_equal(join_as(&token, false, &x), 0);
	remote_last(x);
	assert_int_equal(kv_remote_open(x, &kv), 0);
	assert_int_equal(kv_observe(kv, &(struct kv_observer){ .kinds = "D" }), -EOPNOTSUPP);
	assert_int_equal(ask_items(x, WIRE_ALLOC, one_slice(WIRE_PAGES, 0, 0, 3), &got), 0);
	struct slice_id s = got.v[0].slice;
	wire_items_fini(&got);
	e.slice = s.page;
	e.gen = s.gen;
	struct extents one = { &e, 1, 1 };
	assert_int_equal(body_encode_extents(&one, &body), 0);
	rec.body = (struct body){ BODY_EXTENTS, writer_bytes(&body) };
	record_encode(&rec, &value);
	assert_int_equal(put_bytes(kv, key_bytes(&d), writer_bytes(&value)), -EINVAL);
	assert_int_equal(seal(x, s, 3), 0);
	assert_int_equal(put_bytes(kv, key_bytes(&d), writer_bytes(&value)), 0);
	assert_true(pool_next(pool, 0, &v));
	assert_int_equal(v.refs, 1);
	/* Gone, and not dropped; then it dies. */
	struct writer gone = { 0 };
	gone_encode(&rec.body, &gone);
	struct kv_write w[2] = { { key_bytes(&d), BYTES_NONE },
				 { key_bytes(&g), writer_bytes(&gone) } };
	struct kv_req req = { .writes = w, .nwrites = 2 };
	assert_int_equal(run(kv, &req), 0);
	assert_true(pool_next(pool, 0, &v));
	assert_int_equal(v.state, SLICE_LIVE);
	assert_int_equal(kv->ops->session_end(kv, 1), 0);
	kv_close(kv);
	remote_close(x);
	server_close(server);
	server = NULL;
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
	kv_observe_no_more(gate.inner, NULL);
	refs_close(refs);
	writer_fini(&body);
	writer_fini(&value);
	writer_fini(&gone);
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

/* Lanes ------------------------------------------------------------------------------- */

static struct wire_welcome welcome_of(struct raw *w)
{
	struct wire_welcome m;

	assert_int_equal(wire_read_welcome(writer_bytes(&w->in), &m), 0);
	return m;
}

static struct raw lane_hello(uint64_t session, uint32_t number)
{
	struct wire_hello m = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				.kind = WIRE_DATA, .session = session, .number = number };
	struct raw w = raw_begin();
	struct writer body = { 0 };

	auth_random(m.nonce);
	wire_write_hello(&w.hello, &m);
	write_bytes(&body, w.hello.p, w.hello.len);
	raw_plain(&w, WIRE_HELLO, body);
	return w;
}

static void lane_challenged(struct raw *w)
{
	raw_expect(w, WIRE_CHALLENGE);
	assert_int_equal(wire_read_challenge(writer_bytes(&w->in), &w->challenge), 0);
}

/* Up to its PROOF, under its session's secret. */
static struct raw lane_proven(const struct wire_welcome *m, uint32_t number)
{
	struct raw w = lane_hello(m->session, number);
	struct auth_key key;

	lane_challenged(&w);
	memcpy(key.b, m->secret, sizeof(key.b));
	raw_plain(&w, WIRE_PROOF, proof_of(&w, &key));
	return w;
}

static struct raw raw_lane(const struct wire_welcome *m, uint32_t number)
{
	struct raw w = lane_proven(m, number);

	raw_expect(&w, WIRE_READY);
	return w;
}

static struct slice_id raw_alloc(struct raw *w, uint32_t pages)
{
	struct wire_items got;

	raw_message(w->fd, (struct wire_header){ .type = WIRE_ALLOC, .id = ++w->id },
		    one_slice(WIRE_PAGES, 0, 0, pages));
	raw_expect(w, WIRE_ALLOC);
	assert_int_equal(wire_read_items(writer_bytes(&w->in), WIRE_SLICE_PAGES, &got), 0);
	struct slice_id s = got.v[0].slice;
	wire_items_fini(&got);
	return s;
}

/* WRITE of `bytes` says the span; `there` bytes follow it, of `len` in the header. */
static void raw_write(struct raw *w, struct wire_span span, uint32_t len, uint32_t there)
{
	static uint8_t zs[WIRE_BODY_MAX];
	struct wire_header h = { .type = WIRE_WRITE, .id = ++w->id, .len = len };
	struct writer body = { 0 };

	wire_put_header(write_room(&body, WIRE_HEADER), &h);
	write_u32(&body, span.slice.page);
	write_u32(&body, span.slice.gen);
	write_u32(&body, span.off);
	write_u32(&body, span.bytes);
	memset(zs, 'z', sizeof(zs));
	write_bytes(&body, zs, there);
	raw_send(w->fd, body.p, body.len);
	writer_fini(&body);
}

static void raw_read_span(struct raw *w, struct wire_span span)
{
	struct writer body = { 0 };

	wire_write_span(&body, &span);
	raw_message(w->fd, (struct wire_header){ .type = WIRE_READ, .id = ++w->id }, body);
}

static int raw_answer(struct raw *w)
{
	struct wire_header h;

	assert_true(raw_next(w->fd, &h, &w->in));
	assert_int_equal(h.id, w->id);
	return wire_errno(h.result);
}

static int raw_fence(struct raw *w, uint32_t number)
{
	struct writer body = { 0 };

	wire_write_fence(&body, number);
	raw_message(w->fd, (struct wire_header){ .type = WIRE_FENCE, .id = ++w->id }, body);
	return raw_answer(w);
}

static void raw_ping(struct raw *w)
{
	raw_message(w->fd, (struct wire_header){ .type = WIRE_PING, .id = ++w->id },
		    (struct writer){ 0 });
	assert_int_equal(raw_answer(w), 0);
}

static void raw_leave(struct raw *w)
{
	shutdown(w->fd, SHUT_WR);
	raw_end(w);
}

static void test_lanes_are_let_in_by_their_session(void **state)
{
	struct writer none = { 0 };
	struct raw w, x, lane, lane2;

	(void)state;
	opts.max_lanes = 2;
	start();
	w = raw_join();
	struct wire_welcome m = welcome_of(&w), other;
	assert_int_equal(m.max_lanes, 2);
	x = lane_hello(m.session + 77, 1); /* of none */
	raw_end(&x);
	x = lane_hello(m.session, 1); /* with the token */
	lane_challenged(&x);
	raw_plain(&x, WIRE_PROOF, proof_of(&x, &token));
	raw_end(&x);
	x = raw_join(); /* with another session's secret */
	other = welcome_of(&x);
	other.session = m.session;
	lane = lane_proven(&other, 1);
	raw_end(&lane);
	raw_leave(&x);
	x = lane_hello(m.session, 1); /* requests before it is let in */
	lane_challenged(&x);
	raw_message(x.fd, (struct wire_header){ .type = WIRE_PING, .id = 1 }, none);
	raw_end(&x);
	lane = raw_lane(&m, 1);
	raw_ping(&lane);
	x = lane_proven(&m, 1); /* its number again */
	raw_end(&x);
	lane2 = raw_lane(&m, UINT32_MAX);
	x = lane_proven(&m, 2); /* one too many */
	raw_end(&x);
	raw_leave(&lane);
	raw_ping(&lane2);
	raw_ping(&w);
	x = lane_hello(m.session, 3); /* its session ends meanwhile */
	lane_challenged(&x);
	raw_leave(&w);
	raw_end(&lane2); /* and takes its lanes along */
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
	struct auth_key key;
	memcpy(key.b, m.secret, sizeof(key.b));
	raw_plain(&x, WIRE_PROOF, proof_of(&x, &key));
	raw_end(&x);
	x = lane_hello(m.session, 4); /* or has ended */
	raw_end(&x);
}

static void test_what_does_not_parse_ends_a_lane(void **state)
{
	static const uint16_t types[] = { WIRE_KV, WIRE_ALLOC, WIRE_FENCE, WIRE_STAT };
	struct writer none = { 0 };
	struct raw w, x;
	uint32_t number = 0;

	(void)state;
	start();
	w = raw_join();
	struct wire_welcome m = welcome_of(&w);
	struct slice_id s = raw_alloc(&w, 300);
	memset(pool_page(pool, s.page), 'a', 300 * 4096);
	struct wire_span bad[] = { { s, 0, 0 }, { s, 0, WIRE_RUN_MAX + 1 }, { s, 0, 100 } };
	for (unsigned i = 0; i < 2; i++) {
		x = raw_lane(&m, ++number);
		raw_read_span(&x, bad[i]);
		raw_end(&x);
		x = raw_lane(&m, ++number); /* as much as it says, which may not be */
		raw_write(&x, bad[i], WIRE_SPAN + bad[i].bytes, bad[i].bytes);
		raw_end(&x);
	}
	for (uint32_t there = 99; there <= 101; there += 2) { /* fewer, or more */
		x = raw_lane(&m, ++number);
		raw_write(&x, bad[2], WIRE_SPAN + there, there);
		raw_end(&x);
	}
	x = raw_lane(&m, ++number); /* no span */
	raw_message(x.fd, (struct wire_header){ .type = WIRE_WRITE, .id = 1 },
		    one_slice(WIRE_SLICES, 1, 1, 1));
	raw_end(&x);
	x = raw_lane(&m, ++number); /* an id that does not rise */
	x.id = 5;
	raw_write(&x, (struct wire_span){ s, 4096, 8 }, WIRE_SPAN + 8, 8);
	assert_int_equal(raw_answer(&x), 0);
	x.id = 5;
	raw_write(&x, (struct wire_span){ s, 8192, 8 }, WIRE_SPAN + 8, 8);
	raw_end(&x);
	for (unsigned i = 0; i < 4; i++) { /* what is for the other connection */
		x = raw_lane(&m, ++number);
		raw_message(x.fd, (struct wire_header){ .type = types[i], .id = 1 }, none);
		raw_end(&x);
	}
	raw_ping(&w); /* the session goes on */
	uint8_t *p = pool_page(pool, s.page);
	for (unsigned i = 0; i < 300 * 4096; i++)
		assert_int_equal(p[i], i >= 4096 && i < 4104 ? 'z' : 'a');
	x = raw_join(); /* FENCE of no number */
	raw_message(x.fd, (struct wire_header){ .type = WIRE_FENCE, .id = 1 },
		    (struct writer){ .p = calloc(1, 4), .len = 4, .cap = 4 });
	raw_end(&x);
	raw_leave(&w);
}

static void test_lanes_move_what_the_session_holds(void **state)
{
	struct raw w, x;

	(void)state;
	start();
	w = raw_join();
	struct wire_welcome m = welcome_of(&w);
	struct slice_id s = raw_alloc(&w, 2);
	x = raw_lane(&m, 9);
	static const struct {
		uint32_t gen, off, bytes;
		int r;
	} says[] = {
		{ 0, 0, 8192, 0 }, { 0, 1, 8191, 0 }, { 0, 1, 8192, -EINVAL },
		{ 0, 8192, 1, -EINVAL }, { 0, UINT32_MAX, 2, -EINVAL },
		{ 0, UINT32_MAX - 8191, 8192, -EINVAL }, { 1, 0, 1, -ESTALE },
		{ 0, 0, WIRE_RUN_MAX, -EINVAL }, { 1, 0, WIRE_RUN_MAX, -ESTALE },
	};
	for (unsigned i = 0; i < sizeof(says) / sizeof(*says); i++) {
		struct wire_span v = { { s.page, s.gen + says[i].gen }, says[i].off,
				       says[i].bytes };
		raw_write(&x, v, WIRE_SPAN + v.bytes, v.bytes);
		assert_int_equal(raw_answer(&x), says[i].r);
		assert_int_equal(x.in.len, 0);
		raw_read_span(&x, v);
		assert_int_equal(raw_answer(&x), says[i].r);
		assert_int_equal(x.in.len, says[i].r ? 0 : v.bytes);
		for (size_t k = 0; k < x.in.len; k++)
			assert_int_equal(x.in.p[k], 'z');
	}
	raw_leave(&x);
	raw_leave(&w);
}

/* Half of a WRITE has come: its slice stays whatever is unpinned, until the rest came,
 * its lane is fenced, or its session ends (I6). */
static void test_a_slice_stays_while_it_is_written_to(void **state)
{
	struct raw w, x;

	(void)state;
	start();
	for (unsigned how = 0; how < 4; how++) {
		w = raw_join();
		struct wire_welcome m = welcome_of(&w);
		struct slice_id s = raw_alloc(&w, 256), t;
		x = raw_lane(&m, 1);
		raw_write(&x, (struct wire_span){ s, 0, 1 << 20 }, WIRE_SPAN + (1 << 20), 500000);
		WAIT_FOR(metric_get(M_PINS) == 2);
		raw_plain(&w, WIRE_UNPIN, one_slice(WIRE_SLICES, s.page, s.gen, 0));
		raw_ping(&w);
		assert_int_equal(metric_get(M_PINS), 1);
		t = raw_alloc(&w, 256); /* it is not that one */
		assert_int_not_equal(t.page, s.page);
		if (how == 0) {
			struct writer rest = { 0 };
			write_room(&rest, (1 << 20) - 500000);
			memset(rest.p, 'z', rest.len);
			raw_send(x.fd, rest.p, rest.len);
			writer_fini(&rest);
			assert_int_equal(raw_answer(&x), 0);
		} else if (how == 1) {
			assert_int_equal(raw_fence(&w, 1), 0);
		} else if (how == 2) {
			shutdown(x.fd, SHUT_WR);
		} else {
			shutdown(w.fd, SHUT_WR);
		}
		if (how < 2) /* at once */
			assert_int_equal(metric_get(M_PINS), 1);
		WAIT_FOR(metric_get(M_PINS) == (how < 3));
		raw_leave(&x);
		raw_leave(&w);
		WAIT_FOR(metric_get(M_PINS) == 0);
	}
}

static void test_fences(void **state)
{
	struct raw w, x, other;

	(void)state;
	start();
	w = raw_join();
	other = raw_join();
	struct wire_welcome m = welcome_of(&w);
	x = raw_lane(&m, 7);
	assert_int_equal(raw_fence(&w, 8), 0); /* there is none */
	assert_int_equal(raw_fence(&other, 7), 0); /* another one's */
	raw_ping(&x);
	for (unsigned i = 0; i < 3; i++) { /* asked three times at once */
		struct writer body = { 0 };
		wire_write_fence(&body, 7);
		raw_message(w.fd, (struct wire_header){ .type = WIRE_FENCE, .id = ++w.id }, body);
	}
	for (unsigned i = 0; i < 3; i++)
		raw_expect(&w, WIRE_FENCE);
	raw_end(&x);
	assert_int_equal(raw_fence(&w, 7), 0);
	x = raw_lane(&m, 7);
	raw_leave(&other);
	raw_leave(&w);
	raw_end(&x);
}

/* Asks for much, and takes nothing of it. */
static void test_a_lane_that_takes_nothing_is_not_read(void **state)
{
	struct raw w, x;

	(void)state;
	opts.keep_alive_ms = 400;
	start();
	w = raw_join();
	struct wire_welcome m = welcome_of(&w);
	struct slice_id s = raw_alloc(&w, 512);
	x = raw_lane(&m, 1);
	for (unsigned i = 0; i < 200; i++)
		raw_read_span(&x, (struct wire_span){ s, i * 4096, 1 << 20 });
	int64_t most = 0;
	while (metric_get(M_SESSIONS)) {
		most = metric_get(M_PINS) > most ? metric_get(M_PINS) : most;
		usleep(1000);
	}
	assert_true(most > 1 && most < 10); /* of 4 MiB and one more */
	raw_end(&x);
	raw_end(&w);
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

static int put_quiet(struct kv *kv, const char *key)
{
	struct kv_write w = { bytes_str(key), bytes_str("v") };
	struct kv_req req = { .writes = &w, .nwrites = 1, .session = 1 };
	int r = kv_wait(kv, &req);

	kv_req_fini(&req);
	return r;
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
	/* Its own need not. */
	struct kv_watch *own;
	atomic_uint own_rings = 0;
	assert_int_equal(kv_watch(kx, bytes_str("D"), ring, &own_rings, &own), 0);
	assert_int_equal(put_quiet(kx, "D1"), KV_DONE);
	WAIT_FOR(rings == 2);
	assert_int_equal(own_rings, 0);
	assert_int_equal(put(kx, "D1", "v"), KV_DONE);
	assert_int_equal(own_rings, 1);
	WAIT_FOR(rings == 3);
	kv_unwatch(kx, own);
	rings = 1;
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
		T(test_silent_connections_keep_nobody_out),
		T(test_the_beginning_goes_one_way_only),
		T(test_a_proof_that_was_heard_is_of_no_use),
		T(test_what_does_not_parse_ends_the_session),
		T(test_rubbish),
		T(test_a_silent_session_ends),
		T(test_who_takes_no_answers_is_not_read),
		T(test_who_takes_no_answers_is_not_answered),
		T(test_who_takes_no_answers_and_goes),
		T(test_slices_belong_to_their_session),
		T(test_references_are_the_nodes_business),
		T(test_limits_of_a_session),
		T(test_lanes_are_let_in_by_their_session),
		T(test_what_does_not_parse_ends_a_lane),
		T(test_lanes_move_what_the_session_holds),
		T(test_a_slice_stays_while_it_is_written_to),
		T(test_fences),
		T(test_a_lane_that_takes_nothing_is_not_read),
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
