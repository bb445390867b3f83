/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/transport_tcp.c against a node of its own: bytes are right whatever becomes of
 * the connections, every post ends by its deadline, and what has ended never moves a
 * byte again.
 */
#include "tests/unit/net_kit.h"
#include "tests/unit/refs_kit.h"
#include "tests/unit/tcp_kit.h"

#include "common/log.h"
#include "engine/xfer.h"
#include "index/index.h"

#define MS UINT64_C(1000000)

static struct kv *kv;
static struct pool *pool;
static struct server *server;
static struct proxy *proxy;
static struct remote *mount;
static struct transport *way;
static struct server_opts opts;
static const struct auth_key token = { { 7, 7, 7 } };

/* The node begins; join() comes to it through the proxy, if there is one. */
static void start(void)
{
	assert_int_equal(server_open(&opts, &server, NULL), 0);
}

static struct remote *join(bool read_only)
{
	char where[32];
	struct remote_opts o = { .node = where, .name = "test", .key = &token,
				 .read_only = read_only };
	struct remote *x;

	snprintf(where, sizeof(where), "127.0.0.1:%u", proxy ? proxy->port : server_port(server));
	assert_int_equal(remote_open(&o, &x, NULL), 0);
	return x;
}

static void begin(struct transport_tcp_opts o)
{
	start();
	mount = join(false);
	assert_int_equal(transport_tcp_open(mount, &o, &way), 0);
}

static void begin_behind_proxy(struct transport_tcp_opts o)
{
	start();
	proxy = proxy_start(server_port(server));
	mount = join(false);
	assert_int_equal(transport_tcp_open(mount, &o, &way), 0);
}

static int setup(void **state)
{
	struct pool_opts po = { .bytes = 32 << 20, .create = true };

	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(pool_open(&po, &pool), 0);
	opts = (struct server_opts){ .listen = "127.0.0.1:0", .kv = kv, .pool = pool,
				     .key = &token, .threads = 2 };
	return 0;
}

static void close_way(void)
{
	if (!way)
		return;
	way->ops->quiesce(way);
	way->ops->close(way);
	way = NULL;
}

static int teardown(void **state)
{
	(void)state;
	close_way();
	remote_close(mount);
	mount = NULL;
	proxy_stop(proxy);
	proxy = NULL;
	server_close(server);
	server = NULL;
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
	pool_close(pool);
	kv_close(kv);
	assert_nothing_in_flight();
	return 0;
}

/* Posts ------------------------------------------------------------------------------- */

struct moved {
	struct post post; /* first */
	sem_t done;
	atomic_int times;
	int r;
};

static void on_moved(struct post *p, int r)
{
	struct moved *m = (struct moved *)p;

	m->r = r;
	if (atomic_fetch_add(&m->times, 1))
		abort();
	sem_post(&m->done);
}

static int post(struct moved *m, enum post_kind kind, struct slice_id s, uint64_t off,
		void *local, uint32_t len, unsigned ms)
{
	*m = (struct moved){ .post = { .kind = kind, .slice = s, .off = off, .local = local,
				       .len = len, .done = on_moved,
				       .deadline_ns = ms ? clock_ns() + ms * MS : 0 } };
	sem_init(&m->done, 0, 0);
	return way->ops->post(way, &m->post);
}

static int moved(struct moved *m)
{
	sem_take(&m->done);
	sem_destroy(&m->done);
	return m->r;
}

static int move(enum post_kind kind, struct slice_id s, uint64_t off, void *local, uint32_t len)
{
	struct moved m;
	int r = post(&m, kind, s, off, local, len, 20000);

	return r < 0 ? r : moved(&m);
}

static struct slice_id take(uint32_t pages)
{
	struct wire_item v;

	assert_int_equal(tcp_alloc(mount, pages, &v), 0);
	assert_int_equal(v.pages, pages);
	return v.slice;
}

static bool all(const void *p, size_t n, uint8_t c)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i] != c)
			return false;
	return true;
}

/* The node's memory, behind its back. Its lock is what orders this thread with those
 * that move bytes, for who cannot see order in what goes over sockets. */
static uint8_t *peek(struct slice_id s)
{
	struct slice_view v;

	pool_next(pool, 0, &v);
	return pool_page(pool, s.page);
}

static void poke(struct slice_id s, uint32_t pages, uint8_t c)
{
	memset(peek(s), c, pages * (size_t)4096);
	peek(s);
}

/* Random transfers against a model ---------------------------------------------------- */

enum { MOST = 24 };

struct mover {
	uint64_t seed;
	unsigned steps;
	struct slice_id slice;
	uint32_t bytes;
	uint8_t *model, *got;
	unsigned failures; /* that may be: -EIO of a transport that fails */
	bool may_fail;
};

struct run {
	enum post_kind kind;
	uint32_t off, len;
};

/* Runs that do not touch each other, of any length. */
static unsigned draw_runs(struct rng *g, uint32_t bytes, struct run v[MOST])
{
	unsigned n = 0;

	for (uint32_t at = (uint32_t)below(g, 5000); at < bytes && n < MOST;) {
		uint32_t most = chance(g, 70) ? 9000 : XFER_RUN_MAX;
		uint32_t len = 1 + (uint32_t)below(g, most);
		if (len > bytes - at)
			len = bytes - at;
		v[n++] = (struct run){ chance(g, 50) ? POST_READ : POST_WRITE, at, len };
		at += len + (uint32_t)below(g, chance(g, 50) ? 3 : 100000);
	}
	return n;
}

struct waits {
	sem_t done;
	int r;
};

static void batch_done(void *arg, int r)
{
	struct waits *w = arg;

	w->r = r;
	sem_post(&w->done);
}

/* All of them in one batch. */
static int run_all(struct mover *m, const struct run *v, unsigned n)
{
	struct kv_call call = { .deadline_ns = clock_ns() + 30 * NS_PER_S };
	struct waits w = { .r = 1 };
	struct batch *b;

	sem_init(&w.done, 0, 0);
	assert_int_equal(batch_new(way, n, &b), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(batch_add(b, v[i].kind, m->slice, v[i].off,
					   (v[i].kind == POST_READ ? m->got : m->model) + v[i].off,
					   v[i].len), 0);
	batch_submit(b, &call, batch_done, &w);
	sem_take(&w.done);
	sem_destroy(&w.done);
	return w.r;
}

static void move_once(struct mover *m, struct rng *g)
{
	struct run v[MOST];
	unsigned n = draw_runs(g, m->bytes, v);
	int r;

	for (unsigned i = 0; i < n; i++)
		for (uint32_t k = 0; v[i].kind == POST_WRITE && k < v[i].len; k += 61)
			m->model[v[i].off + k] = (uint8_t)draw(g);
	while ((r = run_all(m, v, n)) < 0) { /* writes of the same bytes: again */
		assert_true(m->may_fail && r == -EIO);
		m->failures++;
	}
	for (unsigned i = 0; i < n; i++)
		if (v[i].kind == POST_READ &&
		    memcmp(m->got + v[i].off, m->model + v[i].off, v[i].len))
			abort();
}

static void *move_about(void *arg)
{
	struct mover *m = arg;
	struct rng g = { m->seed };
	struct run whole = { POST_WRITE, 0, m->bytes };

	while (run_all(m, &whole, 1) < 0)
		assert_true(m->may_fail);
	for (unsigned i = 0; i < m->steps; i++)
		move_once(m, &g);
	return NULL;
}

static unsigned walk_all(uint64_t seed, unsigned steps, bool may_fail,
			 void (*meanwhile)(struct rng *g, atomic_bool *ends))
{
	struct mover m[3];
	pthread_t t[3];
	struct rng g = { seed };
	unsigned failures = 0;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t pages = 1 + (uint32_t)below(&g, i ? 250 : 20);
		m[i] = (struct mover){ .seed = draw(&g), .steps = steps, .slice = take(pages),
				       .bytes = pages * 4096, .may_fail = may_fail };
		m[i].model = calloc(1, m[i].bytes);
		m[i].got = calloc(1, m[i].bytes);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, move_about, &m[i]), 0);
	atomic_bool ends = false;
	if (meanwhile)
		meanwhile(&g, &ends);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		assert_memory_equal(peek(m[i].slice), m[i].model, m[i].bytes);
		assert_int_equal(tcp_unpin(mount, m[i].slice), 0);
		free(m[i].model);
		free(m[i].got);
		failures += m[i].failures;
	}
	return failures;
}

static void walk_plain(void *arg, uint64_t seed)
{
	(void)arg;
	walk_all(seed, 60, false, NULL);
}

static void test_bytes_are_right(void **state)
{
	(void)state;
	begin((struct transport_tcp_opts){ 0 });
	for_seeds("bytes", walk_plain, NULL);
}

static void test_bytes_are_right_with_little_room(void **state)
{
	(void)state;
	begin((struct transport_tcp_opts){ .conns = 1, .max_posts = 3, .max_bytes = 100000 });
	for_seeds("little room", walk_plain, NULL);
}

static void cut_lanes(struct rng *g, atomic_bool *ends)
{
	(void)ends;
	for (unsigned i = 0; i < 25; i++) {
		usleep((useconds_t)below(g, 30000));
		atomic_store(&proxy->cut_lanes, 1 + (int)below(g, 4));
	}
	atomic_store(&proxy->cut_lanes, 0);
}

static void walk_cut(void *arg, uint64_t seed)
{
	(void)arg;
	walk_all(seed, 60, false, cut_lanes);
}

static void test_bytes_are_right_while_lanes_are_cut(void **state)
{
	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ 0 });
	for_seeds("cut", walk_cut, NULL);
	assert_true(atomic_load(&proxy->lanes_seen) > 8); /* else this has shown nothing */
	assert_true(remote_is_up(mount));
}

/* At random: lanes are late, stop in the middle of a message, go on, or are cut there, so
 * that what was sent before may come after what was sent again. */
static void trouble(struct rng *g, atomic_bool *ends)
{
	(void)ends;
	for (unsigned i = 0; i < 20; i++) {
		usleep((useconds_t)below(g, 3000));
		atomic_store(&proxy->quota, (int)below(g, chance(g, 50) ? 60 : 300000));
		atomic_store(&proxy->holds_lanes, true);
		usleep((useconds_t)below(g, 6000));
		if (chance(g, 60))
			atomic_store(&proxy->cut_lanes, 1 + (int)below(g, 2));
		if (chance(g, 50))
			usleep((useconds_t)below(g, 3000));
		atomic_store(&proxy->holds_lanes, false);
		if (chance(g, 20))
			atomic_store(&proxy->cut_lanes, 0);
	}
	atomic_store(&proxy->cut_lanes, 0);
}

static void walk_trouble(void *arg, uint64_t seed)
{
	(void)arg;
	walk_all(seed, 60, false, trouble);
}

static void test_bytes_are_right_in_all_trouble(void **state)
{
	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 3 });
	for_seeds("trouble", walk_trouble, NULL);
	assert_true(atomic_load(&proxy->lanes_seen) > 8); /* else this has shown nothing */
	assert_true(remote_is_up(mount));
}

static void test_faults_around_it(void **state)
{
	struct fault_opts o = { .seed = 5, .delay_us = 300, .fail_ppm = 3000,
				.refuse_ppm = 20000 };
	struct transport *inner;

	(void)state;
	begin((struct transport_tcp_opts){ 0 });
	inner = way;
	assert_int_equal(transport_fault_open(inner, &o, &way), 0);
	assert_true(walk_all(o.seed, 60, true, NULL) > 0);
}

/* Refused ------------------------------------------------------------------------------ */

static void test_what_is_not_the_sessions_is_refused(void **state)
{
	struct transport *other_way;
	struct transport_tcp_opts o = { .conns = 1 };
	static uint8_t buf[1 << 20];
	uint8_t got[4096];

	(void)state;
	begin(o);
	struct slice_id s = take(300), sealed = take(2), gone = take(1);
	poke(s, 300, 3);
	memset(buf, 4, sizeof(buf));
	struct slice_id wrong = { s.page, s.gen + 1 }, middle = { s.page + 1, s.gen };
	assert_int_equal(tcp_seal(mount, sealed, 2), 0);
	assert_int_equal(tcp_unpin(mount, gone), 0);
	static const uint32_t lens[] = { 1, 4096, 20000, 1 << 20 };
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(move(POST_WRITE, wrong, 0, buf, lens[i]), -ESTALE);
		assert_int_equal(move(POST_WRITE, middle, 0, buf, lens[i]), -ESTALE);
		assert_int_equal(move(POST_WRITE, gone, 0, buf, lens[i]), -ESTALE);
		assert_int_equal(move(POST_WRITE, sealed, 0, buf, lens[i]), -ESTALE);
		assert_int_equal(move(POST_WRITE, s, 300 * 4096 - lens[i] + 1, buf, lens[i]),
				 -EINVAL);
		assert_int_equal(move(POST_READ, s, 300 * 4096 - lens[i] + 1, buf, lens[i]),
				 -EINVAL);
		assert_int_equal(move(POST_READ, wrong, 0, buf, lens[i]), -ESTALE);
	}
	assert_int_equal(move(POST_WRITE, s, UINT32_MAX, buf, 1), -EINVAL);
	assert_int_equal(move(POST_WRITE, s, 0, buf, 0), -EINVAL);
	assert_int_equal(move(POST_WRITE, s, 0, buf, (1 << 20) + 1), -EINVAL);
	assert_true(all(peek(s), 300 * 4096, 3) && all(buf, sizeof(buf), 4));
	assert_int_equal(move(POST_READ, s, 5, got, sizeof(got)), 0); /* the lane goes on */
	assert_true(all(got, sizeof(got), 3));

	struct remote *other = join(false), *reader = join(true);
	struct transport *mine = way;
	assert_int_equal(transport_tcp_open(other, &o, &other_way), 0);
	way = other_way;
	assert_int_equal(move(POST_WRITE, s, 0, buf, 4096), -ESTALE);
	assert_int_equal(move(POST_READ, s, 0, got, 4096), -ESTALE);
	close_way();
	remote_close(other);
	assert_int_equal(transport_tcp_open(reader, &o, &way), 0);
	assert_int_equal(move(POST_WRITE, s, 0, buf, 4096), -EROFS);
	close_way();
	remote_close(reader);
	way = mine;
	assert_true(all(peek(s), 300 * 4096, 3));
	assert_int_equal(move(POST_WRITE, s, 0, buf, sizeof(buf)), 0);
}

static void test_a_node_has_a_number_of_lanes(void **state)
{
	struct transport_tcp_opts o = { .conns = 9 };
	uint8_t buf[100] = { 1 };

	(void)state;
	opts.max_lanes = 2;
	begin(o);
	assert_int_equal(move(POST_WRITE, take(1), 0, buf, 100), 0);
	struct transport *mine = way; /* a second one of the same session: no room */
	assert_int_equal(transport_tcp_open(mount, &o, &way), 0);
	struct moved m;
	assert_int_equal(post(&m, POST_WRITE, take(1), 0, buf, 100, 200), 0);
	assert_int_equal(moved(&m), -ETIMEDOUT);
	close_way();
	way = mine;
	assert_int_equal(move(POST_WRITE, take(1), 0, buf, 100), 0);
}

/* Frozen and late ---------------------------------------------------------------------- */

static void test_a_frozen_lane_ends_what_is_late(void **state)
{
	enum { N = 12, LEN = 200000 };
	static uint8_t buf[N][LEN];
	struct moved m[N];

	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 2 });
	struct slice_id s = take(600);
	poke(s, 600, 7);
	atomic_store(&proxy->holds_lanes, true);
	uint64_t begun = clock_ns();
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(post(&m[i], i % 2 ? POST_READ : POST_WRITE, s, i * LEN, buf[i],
				      LEN, 300), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(moved(&m[i]), -ETIMEDOUT);
	assert_true(clock_ns() - begun < 5 * NS_PER_S);
	memset(buf, 0xdd, sizeof(buf));
	poke(s, 600, 0xee);
	atomic_store(&proxy->holds_lanes, false);
	usleep(100000);
	assert_true(all(buf, sizeof(buf), 0xdd)); /* I9 */
	assert_true(all(peek(s), 600 * 4096, 0xee));
	assert_int_equal(move(POST_READ, s, 0, buf[0], LEN), 0);
	assert_true(all(buf[0], LEN, 0xee));
	assert_true(remote_is_up(mount));
}

/* A read is late on a lane; the others that are out on it go another way. */
static void test_who_shares_a_lane_with_a_late_one_is_done(void **state)
{
	enum { N = 8, LEN = 50000 };
	static uint8_t buf[N][LEN];
	struct moved m[N], late;

	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 1 });
	struct slice_id s = take(200);
	poke(s, 200, 7);
	for (unsigned i = 0; i < N; i++)
		memset(buf[i], (int)i, LEN);
	atomic_store(&proxy->holds_lanes, true);
	uint8_t late_buf[10];
	assert_int_equal(post(&late, POST_READ, s, 0, late_buf, 10, 100), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(post(&m[i], i % 2 ? POST_READ : POST_WRITE, s, i * LEN, buf[i],
				      LEN, 20000), 0);
	assert_int_equal(moved(&late), -ETIMEDOUT);
	atomic_store(&proxy->holds_lanes, false);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(moved(&m[i]), 0);
		assert_true(all(buf[i], LEN, i % 2 ? 7 : (uint8_t)i));
	}
}

/* Half of a write has come to the node, the rest is somewhere on its way, when it is
 * told to be over. Its slice is freed, taken by another session, and filled: not a
 * byte of the old write appears, though all of it arrives now. */
static void late_write(unsigned quota)
{
	enum { LEN = 1 << 20 };
	static uint8_t buf[LEN];
	struct moved m;

	atomic_store(&proxy->holds_lanes, false);
	struct slice_id s = take(256);
	poke(s, 256, 0);
	memset(buf, 0xbb, LEN);
	assert_int_equal(move(POST_WRITE, s, 0, buf, 1), 0);
	atomic_store(&proxy->quota, (int)quota);
	atomic_store(&proxy->holds_lanes, true);
	assert_int_equal(post(&m, POST_WRITE, s, 0, buf, LEN, 150), 0);
	assert_int_equal(moved(&m), -ETIMEDOUT);
	assert_true(atomic_load(&proxy->held) > 0);
	/* The session writes there again by other means: all that it wrote stays. */
	poke(s, 256, 0xaa);
	usleep(20000);
	assert_true(all(peek(s), LEN, 0xaa));
	atomic_store(&proxy->holds_lanes, false);
	WAIT_FOR(atomic_load(&proxy->held) == 0);
	usleep(30000);
	assert_true(all(peek(s), LEN, 0xaa)); /* I6 */
	assert_int_equal(tcp_unpin(mount, s), 0);
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
}

static void test_a_late_write_finds_nothing(void **state)
{
	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 1 });
	late_write(0);
	late_write(30);      /* not even its span */
	late_write(WIRE_HEADER + WIRE_SPAN);
	late_write(500000);
	late_write(WIRE_HEADER + WIRE_SPAN + (1 << 20) - 1);
}

static void test_a_frozen_node_ends_all(void **state)
{
	enum { N = 10, LEN = 100000 };
	static uint8_t buf[N][LEN];
	struct moved m[N];

	(void)state;
	opts.keep_alive_ms = 600;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 2 });
	struct slice_id s = take(300);
	atomic_store(&proxy->holds_all, true);
	uint64_t begun = clock_ns();
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(post(&m[i], i % 2 ? POST_READ : POST_WRITE, s, i * LEN, buf[i],
				      LEN, 1500), 0);
	for (unsigned i = 0; i < N; i++) { /* writes end with the session, reads wait */
		int r = moved(&m[i]);
		assert_int_equal(r, i % 2 ? -ETIMEDOUT : -ENOTCONN);
	}
	assert_true(clock_ns() - begun < 10 * NS_PER_S);
	atomic_store(&proxy->holds_all, false);
	WAIT_FOR(remote_is_up(mount));
}

/* The end of a session ------------------------------------------------------------------ */

/* Who pins the slice again in each session, as engine/node_remote.c does. */
struct pinner {
	struct remote_part part;
	struct slice_id slice;
	struct conn_call call;
	atomic_uint begun;
};

static void on_pinned(struct conn_call *call, int r, struct bytes body)
{
	struct pinner *p = (struct pinner *)((char *)call - offsetof(struct pinner, call));

	(void)body;
	if (r != -ENOTCONN)
		remote_ready(mount, &p->part, r);
}

static void on_begun(void *arg)
{
	struct pinner *p = arg;

	atomic_fetch_add(&p->begun, 1);
	p->call = (struct conn_call){ .type = WIRE_PIN, .session = remote_session(mount),
				      .body = tcp_pin_body(p->slice, 300),
				      .done = on_pinned };
	remote_call(mount, &p->call);
}

static void test_reads_outlive_their_session(void **state)
{
	enum { N = 10, LEN = 100000 };
	static uint8_t buf[N][LEN], out[N][LEN];
	struct pinner p = { .part = { .begun = on_begun, .arg = &p } };
	struct moved reads[N], writes[N];

	(void)state;
	start();
	proxy = proxy_start(server_port(server));
	mount = join(false);
	remote_join(mount, &p.part); /* before the transport */
	assert_int_equal(transport_tcp_open(mount, &(struct transport_tcp_opts){ 0 }, &way), 0);
	struct slice_id draft = take(300);
	p.slice = take(300);
	poke(p.slice, 300, 9);
	assert_int_equal(tcp_seal(mount, p.slice, 300), 0);
	assert_int_equal(add_refs(pool, p.slice, 1), 0); /* published */
	atomic_store(&proxy->holds_lanes, true);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(post(&reads[i], POST_READ, p.slice, i * LEN, buf[i], LEN, 20000),
				 0);
		assert_int_equal(post(&writes[i], POST_WRITE, draft, i * LEN, out[i], LEN, 20000),
				 0);
	}
	usleep(20000);
	remote_stop(mount, -ECANCELED);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(moved(&writes[i]), -ENOTCONN);
	atomic_store(&proxy->holds_lanes, false);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(moved(&reads[i]), 0);
		assert_true(all(buf[i], LEN, 9));
	}
	assert_true(atomic_load(&p.begun) >= 1);
	assert_int_equal(add_refs(pool, p.slice, -1), 0);
	close_way();
	remote_leave(mount, &p.part);
}

static void test_a_node_that_stops_ends_all(void **state)
{
	enum { N = 40, LEN = 1 << 20 };
	static uint8_t buf[N][LEN];
	struct moved m[N];

	(void)state;
	begin((struct transport_tcp_opts){ 0 });
	struct slice_id s = take(1024);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(post(&m[i], i % 2 ? POST_READ : POST_WRITE, s,
				      (i % 4) * (uint64_t)LEN, buf[i], LEN, 1000), 0);
	server_close(server); /* with data in flight */
	server = NULL;
	for (unsigned i = 0; i < N; i++) {
		int r = moved(&m[i]);
		assert_true(r == 0 || r == (i % 2 ? -ETIMEDOUT : -ENOTCONN));
	}
	assert_int_equal(post(&m[0], POST_WRITE, s, 0, buf[0], 1, 1000), -ENOTCONN);
}

/* Room, and the end ---------------------------------------------------------------------- */

static void test_posts_and_bytes_are_bounded(void **state)
{
	uint8_t buf[1000];
	struct moved m[4];

	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 1, .max_posts = 3,
							 .max_bytes = 2500 });
	struct slice_id s = take(1);
	atomic_store(&proxy->holds_lanes, true);
	assert_int_equal(post(&m[0], POST_READ, s, 0, buf, 1000, 20000), 0);
	assert_int_equal(post(&m[1], POST_READ, s, 0, buf, 1000, 20000), 0);
	assert_int_equal(post(&m[2], POST_READ, s, 0, buf, 501, 20000), -EAGAIN);
	assert_int_equal(post(&m[2], POST_READ, s, 0, buf, 500, 20000), 0);
	assert_int_equal(post(&m[3], POST_READ, s, 0, buf, 1, 20000), -EAGAIN);
	atomic_store(&proxy->holds_lanes, false);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(moved(&m[i]), 0);
	assert_int_equal(move(POST_READ, s, 0, buf, 1000), 0);
}

static void test_quiesce_ends_all(void **state)
{
	enum { N = 60, LEN = 100000 };
	static uint8_t buf[N][LEN];
	struct moved m[N];

	(void)state;
	begin_behind_proxy((struct transport_tcp_opts){ .conns = 2 });
	struct slice_id s = take(1024);
	atomic_store(&proxy->quota, 300000);
	atomic_store(&proxy->holds_lanes, true);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(post(&m[i], i % 2 ? POST_READ : POST_WRITE, s,
				      (i % 40) * (uint64_t)LEN, buf[i], LEN, 20000), 0);
	usleep(20000);
	way->ops->quiesce(way);
	for (unsigned i = 0; i < N; i++) {
		int r = (assert_int_equal(atomic_load(&m[i].times), 1), moved(&m[i]));
		assert_true(r == 0 || r == -ECANCELED);
	}
	memset(buf, 0xdd, sizeof(buf));
	poke(s, 1024, 0xee);
	atomic_store(&proxy->holds_lanes, false);
	WAIT_FOR(atomic_load(&proxy->held) == 0);
	usleep(30000);
	assert_true(all(buf, sizeof(buf), 0xdd));
	assert_true(all(peek(s), 1024 * 4096, 0xee));
	assert_int_equal(post(&m[0], POST_READ, s, 0, buf[0], 1, 1000), -ENOTCONN);
	assert_null(way->ops->map(way, s));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_bytes_are_right),
		T(test_bytes_are_right_with_little_room),
		T(test_bytes_are_right_while_lanes_are_cut),
		T(test_bytes_are_right_in_all_trouble),
		T(test_faults_around_it),
		T(test_what_is_not_the_sessions_is_refused),
		T(test_a_node_has_a_number_of_lanes),
		T(test_a_frozen_lane_ends_what_is_late),
		T(test_who_shares_a_lane_with_a_late_one_is_done),
		T(test_a_late_write_finds_nothing),
		T(test_a_frozen_node_ends_all),
		T(test_reads_outlive_their_session),
		T(test_a_node_that_stops_ends_all),
		T(test_posts_and_bytes_are_bounded),
		T(test_quiesce_ends_all),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
