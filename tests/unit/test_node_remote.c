/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another host's node (engine/node_remote.h), over loopback and a relay that is
 * late and cuts: slices are given to one holder at a time, whoever gives up waiting
 * for them and whatever answer comes too late; what was published outlives its
 * session; and in the end all is the node's again. SEED=n repeats a walk.
 */
#include "tests/unit/relay.h"
#include "tests/unit/refs_kit.h"

#include "engine/node_remote.h"
#include "engine/server.h"
#include "index/index.h"

enum { POOL_BYTES = 64 << 20 };

static struct kv *kv;
static struct pool *pool;
static struct server *server;
static struct relay relay;
static struct remote *link_;
static struct node *node;

static void open_pool(uint64_t bytes)
{
	struct pool_opts o = { .bytes = bytes, .create = true };

	assert_int_equal(pool_open(&o, &pool), 0);
}

static void start(uint64_t bytes, uint32_t max_pins)
{
	char where[32];

	if (bytes)
		open_pool(bytes);
	assert_int_equal(kv_mem_open(&kv), 0);
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = kv, .pool = pool,
				  .max_pins = max_pins };
	assert_int_equal(server_open(&so, &server, NULL), 0);
	relay_open(&relay, server_port(server));
	snprintf(where, sizeof(where), "127.0.0.1:%u", relay.port);
	struct remote_opts ro = { .node = where, .name = "test" };
	assert_int_equal(remote_open(&ro, &link_, NULL), 0);
	assert_int_equal(node_remote_open(link_, &node), 0);
}

static void assert_pool_fine(void)
{
	struct writer report = { 0 };

	if (pool_check(pool, &report))
		fail_msg("%.*s", (int)report.len, (const char *)report.p);
	writer_fini(&report);
}

static void stop(void)
{
	node_close(node);
	remote_close(link_);
	relay_close(&relay);
	server_close(server);
	assert_pool_fine();
	assert_int_equal(pool_nfree(pool), pool_npages(pool));
	pool_close(pool);
	kv_close(kv);
	assert_nothing_in_flight();
}

/* Calls made to wait -------------------------------------------------------------- */

struct waiter {
	struct node_call c; /* first */
	struct kv_call of;
	sem_t sem;
	int r;
};

static void waiter_done(struct node_call *c, int r)
{
	struct waiter *w = (struct waiter *)c;

	lock_assert_none();
	w->r = r;
	sem_post(&w->sem);
}

static struct node_call *waiter_init(struct waiter *w, uint64_t timeout_us)
{
	*w = (struct waiter){ .c = { .of = &w->of, .done = waiter_done } };
	w->of.deadline_ns = timeout_us ? clock_ns() + timeout_us * 1000 : 0;
	sem_init(&w->sem, 0, 0);
	return &w->c;
}

static int waiter_end(struct waiter *w)
{
	sem_take(&w->sem);
	sem_destroy(&w->sem);
	return w->r;
}

static int want(uint32_t npages)
{
	struct waiter w;

	node_want(node, npages, waiter_init(&w, 0));
	return waiter_end(&w);
}

static int take(struct slice_id s, uint32_t npages)
{
	struct slice_run v = { s, npages };
	struct waiter w;

	node_take(node, &v, 1, waiter_init(&w, 0));
	return waiter_end(&w);
}

static int seal(struct slice_id s, uint32_t npages)
{
	struct slice_run v = { s, npages };
	struct waiter w;

	node_seal(node, &v, 1, waiter_init(&w, 0));
	return waiter_end(&w);
}

static struct slice_id get_slice(uint32_t npages, uint32_t *ret_npages)
{
	struct slice_id s;
	int r;

	while ((r = node_alloc(node, npages, &s, ret_npages)) == NODE_WAIT)
		assert_int_equal(want(npages), 0);
	assert_int_equal(r, 0);
	return s;
}

static bool state_of(struct slice_id s, struct slice_view *ret)
{
	return pool_next(pool, s.page, ret) && ret->id.page == s.page && ret->id.gen == s.gen;
}

/* Cases ------------------------------------------------------------------------------ */

static void test_stock_comes_and_goes(void **state)
{
	struct slice_id s[40];
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	assert_int_equal(node_alloc(node, 3, &s[0], &n), NODE_WAIT);
	for (unsigned i = 0; i < 40; i++) {
		s[i] = get_slice(3, &n);
		assert_true(n >= 3 && n <= 16);
	}
	WAIT_FOR(metric_get(M_STOCK) > 0);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(node_unpin(node, s[i]), 0);
	assert_int_equal(node_unpin(node, s[0]), -ESTALE);
	/* All of it is the node's again, though nothing is closed (P10). */
	uint64_t now = clock_ns();
	WAIT_FOR(pool_nfree(pool) == pool_npages(pool));
	assert_true(clock_ns() - now < 3 * NS_PER_S);
	assert_int_equal(metric_get(M_STOCK), 0);
	assert_int_equal(metric_get(M_REMOTE_PINS), 0);
	stop();
}

/* What was taken and not written to is had again at once. */
static void test_what_is_given_back_is_in_stock(void **state)
{
	struct slice_id s, t;
	uint32_t n, m;

	(void)state;
	start(POOL_BYTES, 0);
	s = get_slice(1024, &n);
	assert_int_equal(n, 1024);
	assert_int_equal(node_pin(node, s), 0);
	assert_int_equal(node_give_back(node, s), 0); /* one of two pins */
	assert_int_equal(node_give_back(node, s), 0);
	assert_int_equal(node_pin(node, s), -ESTALE);
	assert_int_equal(node_alloc(node, 1000, &t, &m), 0);
	assert_int_equal(node_unpin(node, t), 0);
	stop();
}

static void test_a_full_pool_is_used_up(void **state)
{
	struct slice_id s[4096];
	uint32_t n, pages = 0, count = 0;
	int r;

	(void)state;
	start(4 << 20, 0);
	/* Some stock of another length, which must not be missed. */
	s[count++] = get_slice(1, &n);
	pages += n;
	for (;;) {
		r = node_alloc(node, 200, &s[count], &n);
		if (r == NODE_WAIT) {
			r = want(200);
			if (r == -ENOSPC)
				break;
			assert_int_equal(r, 0);
			continue;
		}
		assert_int_equal(r, 0);
		pages += n;
		count++;
	}
	assert_int_equal(pages, 1024);
	assert_int_equal(pool_nfree(pool), 0);
	assert_int_equal(metric_get(M_STOCK), 0);
	while (count)
		assert_int_equal(node_unpin(node, s[--count]), 0);
	WAIT_FOR(pool_nfree(pool) == 1024);
	s[0] = get_slice(1024, &n);
	assert_int_equal(n, 1024);
	node_unpin(node, s[0]);
	stop();
}

/* Where there is no long run a short one does: others have use for the rest. */
static void test_a_pool_in_pieces_is_not_taken_whole(void **state)
{
	enum { N = 2048 };
	static struct slice_id held[N];
	uint32_t n;

	(void)state;
	start(N * PAGE_BYTES, 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(pool_alloc(pool, 1, &held[i], &n), 0);
	for (unsigned i = 0; i < N; i += 2)
		pool_unpin(pool, held[i]);
	for (unsigned i = 0; i < 20; i++) {
		struct slice_id s = get_slice(64, &n);
		assert_int_equal(n, 1);
		node_unpin(node, s);
	}
	assert_true(pool_nfree(pool) > N / 2 - 64);
	for (unsigned i = 1; i < N; i += 2)
		pool_unpin(pool, held[i]);
	stop();
}

static void test_sealed_published_taken(void **state)
{
	struct slice_view v;
	struct slice_id s, gone;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	s = get_slice(10, &n);
	gone = (struct slice_id){ s.page, s.gen + 1 };
	assert_int_equal(take(gone, n), -ESTALE);
	assert_int_equal(seal(s, 5), 0);
	assert_int_equal(seal(s, 5), 0);
	assert_true(state_of(s, &v));
	assert_int_equal(v.npages, 5);
	assert_int_equal(v.state, SLICE_SEALED);
	assert_int_equal(add_refs(pool, s, 1), 0);
	assert_int_equal(take(s, 10), -ESTALE);
	assert_int_equal(take(s, 5), 0);
	assert_int_equal(node_unpin(node, s), 0);
	assert_int_equal(node_unpin(node, s), 0);
	assert_int_equal(take(s, 5), 0); /* before the UNPIN, or after it */
	assert_int_equal(node_unpin(node, s), 0);
	WAIT_FOR(state_of(s, &v) && !v.pins);
	assert_int_equal(take(s, 5), 0);
	assert_true(state_of(s, &v));
	assert_int_equal(v.pins, 1);
	assert_int_equal(add_refs(pool, s, -1), 0);
	assert_int_equal(node_unpin(node, s), 0);
	WAIT_FOR(!state_of(s, &v));
	assert_int_equal(take(s, 5), -ESTALE);
	stop();
}

/* One PIN for many takes, and none for what is pinned. */
static void test_many_of_one_slice(void **state)
{
	struct slice_run v[600];
	struct waiter w;
	struct slice_view view;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 100); /* pins: fewer than are asked for here */
	struct slice_id s = get_slice(4, &n), t = get_slice(4, &n);
	assert_int_equal(seal(s, 4), 0);
	assert_int_equal(seal(t, 4), 0);
	add_refs(pool, s, 1);
	add_refs(pool, t, 1);
	node_unpin(node, s);
	WAIT_FOR(state_of(s, &view) && !view.pins);
	for (unsigned i = 0; i < 600; i++)
		v[i] = (struct slice_run){ i < 300 ? s : t, 4 };
	node_take(node, v, 600, waiter_init(&w, 0));
	assert_int_equal(waiter_end(&w), 0);
	assert_true(state_of(s, &view));
	assert_int_equal(view.pins, 1);
	v[599].npages = 3; /* all or none */
	node_take(node, v, 600, waiter_init(&w, 0));
	assert_int_equal(waiter_end(&w), -ESTALE);
	for (unsigned i = 0; i < 600; i++)
		assert_int_equal(node_unpin(node, v[i].id), 0);
	assert_int_equal(node_unpin(node, t), 0);
	assert_int_equal(node_unpin(node, t), -ESTALE);
	WAIT_FOR(state_of(s, &view) && !view.pins);
	add_refs(pool, s, -1);
	add_refs(pool, t, -1);
	stop();
}

/* Giving up --------------------------------------------------------------------------- */

static void test_who_gives_up_waits_no_longer(void **state)
{
	struct waiter w[3];
	struct slice_id s, t;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	s = get_slice(1, &n);
	t = get_slice(1, &n);
	assert_int_equal(seal(t, 1), 0);
	add_refs(pool, t, 1);
	node_unpin(node, t);
	WAIT_FOR(metric_get(M_STOCK) == 0);
	relay.late_us = 2000000;
	usleep(1000);
	uint64_t now = clock_ns();
	struct slice_run a = { s, 1 }, b = { t, 1 };
	node_want(node, 512, waiter_init(&w[0], 0));
	node_take(node, &b, 1, waiter_init(&w[1], 30000));
	node_seal(node, &a, 1, waiter_init(&w[2], 0));
	atomic_store(&w[0].of.cancelled, true);
	atomic_store(&w[2].of.cancelled, true);
	int r = waiter_end(&w[0]);
	assert_true(r == -ECANCELED || r == 0);
	r = waiter_end(&w[2]);
	assert_true(r == -ECANCELED || r == 0);
	r = waiter_end(&w[1]);
	assert_true(r == -ETIMEDOUT || r == 0);
	assert_true(clock_ns() - now < 400 * 1000000ull);
	relay.late_us = 0;
	node_unpin(node, s);
	if (!r)
		node_unpin(node, t);
	/* What came late was given back, too. */
	WAIT_FOR(metric_get(M_STOCK) == 0 && pool_nfree(pool) == pool_npages(pool) - 1);
	WAIT_FOR(metric_get(M_PINS) == 0);
	add_refs(pool, t, -1);
	stop();
}

/* Sessions ------------------------------------------------------------------------------ */

static void cut(void)
{
	uint64_t session = remote_session(link_);

	relay_cut(&relay);
	WAIT_FOR(remote_session(link_) != session && remote_is_up(link_));
}

static void test_what_is_published_outlives_its_session(void **state)
{
	struct slice_view v;
	struct slice_id live, sealed, writing, unlinked;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	live = get_slice(2, &n);
	unlinked = get_slice(2, &n);
	sealed = get_slice(2, &n);
	writing = get_slice(2, &n);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(seal(i == 0 ? live : i == 1 ? unlinked : sealed, 2), 0);
	add_refs(pool, live, 1);
	add_refs(pool, unlinked, 1);
	add_refs(pool, unlinked, -1);
	assert_true(state_of(unlinked, &v));
	cut();
	assert_false(node_is_lost(node, live));
	assert_true(node_is_lost(node, unlinked));
	assert_true(node_is_lost(node, sealed));
	assert_true(node_is_lost(node, writing));
	assert_true(state_of(live, &v));
	assert_int_equal(v.pins, 1);
	assert_false(state_of(writing, &v));
	assert_int_equal(seal(writing, 2), -EIO);
	assert_int_equal(take(unlinked, 2), -ESTALE);
	assert_int_equal(take(live, 2), 0);
	assert_int_equal(node_unpin(node, live), 0);
	assert_int_equal(node_unpin(node, live), 0);
	assert_int_equal(node_pin(node, writing), 0);
	assert_int_equal(node_unpin(node, writing), 0);
	assert_int_equal(node_unpin(node, writing), 0);
	assert_int_equal(node_unpin(node, sealed), 0);
	assert_int_equal(node_unpin(node, unlinked), 0);
	WAIT_FOR(state_of(live, &v) && !v.pins);
	add_refs(pool, live, -1);
	writing = get_slice(2, &n);
	assert_int_equal(seal(writing, 1), 0);
	node_unpin(node, writing);
	stop();
}

/* More than one message has room for. */
static void test_many_pins_are_taken_again(void **state)
{
	enum { N = 5000 };
	struct slice_id *s = calloc(N, sizeof(*s));
	struct slice_view v;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	for (unsigned i = 0; i < N; i++) {
		s[i] = get_slice(1, &n);
		struct slice_run run = { s[i], 1 };
		if (i % 500 == 0)
			assert_int_equal(seal(run.id, 1), 0);
	}
	for (unsigned i = 0; i < N; i++)
		if (i % 500)
			assert_int_equal(seal(s[i], 1), 0);
	for (unsigned i = 0; i < N; i++)
		add_refs(pool, s[i], 1);
	cut();
	for (unsigned i = 0; i < N; i++) {
		assert_false(node_is_lost(node, s[i]));
		assert_true(state_of(s[i], &v) && v.pins == 1);
		node_unpin(node, s[i]);
	}
	WAIT_FOR(metric_get(M_PINS) == 0);
	for (unsigned i = 0; i < N; i++)
		add_refs(pool, s[i], -1);
	free(s);
	stop();
}

/* A node that was restarted has not seen its bytes match; this session's have come
 * from here. */
static void test_what_is_not_in_a_slice_is_not_covered(void **state)
{
	struct slice_id s, other;
	uint32_t n;

	(void)state;
	start(POOL_BYTES, 0);
	s = get_slice(3, &n);
	const uint64_t bytes = (uint64_t)n * PAGE_BYTES;
	other = (struct slice_id){ s.page, s.gen + 1 };
	assert_int_equal(node_covers(node, s, 0, (uint32_t)bytes), 0);
	assert_int_equal(node_covers(node, s, bytes - 1, 1), 0);
	assert_int_equal(node_covers(node, s, bytes, 1), -EINVAL);
	assert_int_equal(node_covers(node, s, bytes - 1, 2), -EINVAL);
	assert_int_equal(node_covers(node, s, 1, UINT32_MAX), -EINVAL);
	assert_int_equal(node_covers(node, s, UINT64_MAX, 1), -EINVAL);
	assert_int_equal(node_covers(node, other, 0, 1), -ESTALE);
	/* Sealing gives the rest back, and from then on it is somebody else's. */
	assert_int_equal(seal(s, 2), 0);
	assert_int_equal(node_covers(node, s, 0, 2 * PAGE_BYTES), 0);
	assert_int_equal(node_covers(node, s, 2 * PAGE_BYTES, 1), -EINVAL);
	cut();
	assert_int_equal(node_covers(node, s, 0, 1), -EIO);
	assert_int_equal(node_unpin(node, s), 0);
	WAIT_FOR(node_covers(node, s, 0, 1) == -ESTALE);
	stop();
}

static void test_what_a_restarted_node_has_is_verified(void **state)
{
	struct slice_id old = { 64, 9 }, s;
	uint32_t n;

	(void)state;
	open_pool(POOL_BYTES);
	assert_int_equal(adopt_slice(pool, old, 40), 0);
	pool_adopted(pool);
	start(0, 0);
	assert_int_equal(take(old, 40), 0);
	for (uint32_t b = 0; b < 3; b++)
		assert_true(node_needs_verify(node, old, b));
	node_verified(node, old, 1);
	assert_false(node_needs_verify(node, old, 1));
	assert_true(node_needs_verify(node, old, 2));
	cut(); /* it may have been the node that was down */
	assert_true(node_needs_verify(node, old, 1));
	s = get_slice(40, &n);
	assert_int_equal(seal(s, 40), 0);
	assert_false(node_needs_verify(node, s, 0));
	node_unpin(node, s);
	node_unpin(node, old);
	WAIT_FOR(metric_get(M_PINS) == 0); /* stock, too */
	assert_int_equal(add_refs(pool, old, -1), 0);
	stop();
}

/* Walks ---------------------------------------------------------------------------------- */

enum { THREADS = 4, MINE = 24, PUBLISHED = 32 };

struct mine { /* a slice that a thread has pins on */
	struct slice_id id;
	uint32_t npages, pins;
	uint64_t paint; /* of its pages; 0: none */
	bool writing, asked; /* to be sealed, and then for as many pages again */
};

struct published {
	struct slice_id id;
	uint32_t npages;
	uint64_t paint;
};

static struct {
	pthread_mutex_t mutex;
	struct published v[PUBLISHED];
	unsigned n;
	bool cuts;
	uint32_t most, small; /* pages; percent that are few */
	atomic_uint lost, gave_up, full;
} all = { .mutex = PTHREAD_MUTEX_INITIALIZER };

struct walker {
	struct rng rng;
	unsigned number;
	struct mine v[MINE];
	unsigned n;
	uint64_t last;
};

/* Who looks at a slice that is lost may see another's paint. */
static void assert_paint(const struct mine *m)
{
	for (uint32_t i = 0; m->paint && i < m->npages; i++) {
		uint64_t is = *(_Atomic uint64_t *)pool_page(pool, m->id.page + i);
		if (is != m->paint && !node_is_lost(node, m->id))
			fail_msg("page %u of slice %u is somebody else's", i, m->id.page);
	}
}

static void paint(struct walker *w, struct mine *m)
{
	if (all.cuts)
		return;
	m->paint = (uint64_t)(w->number + 1) << 56 | ++w->last;
	for (uint32_t i = 0; i < m->npages; i++)
		*(_Atomic uint64_t *)pool_page(pool, m->id.page + i) = m->paint;
}

/* A call with a deadline soon, or one that is cancelled, or neither. */
static int end_call(struct walker *w, struct waiter *c, bool cancel)
{
	if (cancel) {
		usleep((useconds_t)below(&w->rng, 800));
		atomic_store(&c->of.cancelled, true);
	}
	uint64_t now = clock_ns();
	int r = waiter_end(c);
	if (cancel && clock_ns() - now > 5 * NS_PER_S)
		fail_msg("it took %llu ms", (unsigned long long)(clock_ns() - now) / 1000000);
	if (r == -ECANCELED || r == -ETIMEDOUT)
		atomic_fetch_add(&all.gave_up, 1);
	return r;
}

static uint64_t some_time(struct walker *w, bool *ret_cancel)
{
	*ret_cancel = chance(&w->rng, 15);
	return chance(&w->rng, 15) ? 1 + below(&w->rng, 2000) : 0;
}

static uint32_t some_pages(struct walker *w)
{
	return 1 + (uint32_t)below(&w->rng, chance(&w->rng, all.small) ? 8 : all.most);
}

static void step_alloc(struct walker *w)
{
	struct mine *m = &w->v[w->n];
	uint32_t npages = some_pages(w);
	struct waiter c;
	bool cancel;
	int r;

	while ((r = node_alloc(node, npages, &m->id, &m->npages)) == NODE_WAIT) {
		uint64_t us = some_time(w, &cancel);
		node_want(node, npages, waiter_init(&c, us));
		r = end_call(w, &c, cancel);
		if (r == -ENOSPC)
			atomic_fetch_add(&all.full, 1);
		if (r < 0) {
			assert_true(r == -ENOSPC || (r == -ECANCELED && cancel) ||
				    (r == -ETIMEDOUT && us));
			return;
		}
	}
	assert_int_equal(r, 0);
	m->pins = 1;
	m->writing = true;
	m->asked = false;
	m->paint = 0;
	if (chance(&w->rng, 10)) {
		assert_int_equal(node_give_back(node, m->id), 0);
		return;
	}
	paint(w, m);
	w->n++;
}

static void let_go(struct walker *w, unsigned i)
{
	struct mine *m = &w->v[i];

	assert_paint(m);
	assert_int_equal(node_unpin(node, m->id), 0);
	if (!--m->pins)
		w->v[i] = w->v[--w->n];
}

static void publish(struct walker *w, struct mine *m)
{
	pthread_mutex_lock(&all.mutex);
	bool room = all.n < PUBLISHED && chance(&w->rng, 70);
	int r = room ? add_refs(pool, m->id, 1) : 0;
	if (room && !r)
		all.v[all.n++] = (struct published){ m->id, m->npages, m->paint };
	else if (r)
		assert_true(r == -ESTALE && all.cuts);
	pthread_mutex_unlock(&all.mutex);
}

static void step_seal(struct walker *w, unsigned i)
{
	struct mine *m = &w->v[i];
	uint32_t keep = m->asked ? m->npages : 1 + (uint32_t)below(&w->rng, m->npages);
	struct slice_run run = { m->id, keep };
	struct waiter c;
	bool cancel;

	if (!m->writing)
		return;
	assert_paint(m);
	uint64_t us = some_time(w, &cancel);
	node_seal(node, &run, 1, waiter_init(&c, us));
	m->npages = keep;
	m->asked = true;
	int r = end_call(w, &c, cancel);
	if (r == -EIO)
		assert_true(all.cuts);
	else
		assert_true(!r || r == -ECANCELED || r == -ETIMEDOUT);
	if (r)
		return;
	m->writing = false;
	publish(w, m);
}

/* Some that are published, and may be unlinked meanwhile. */
static void step_take(struct walker *w)
{
	struct slice_run run[4];
	uint64_t paints[4];
	unsigned n = 0;
	struct waiter c;
	bool cancel;

	pthread_mutex_lock(&all.mutex);
	for (; all.n && n < 4 && w->n + n < MINE; n++) {
		struct published *p = &all.v[below(&w->rng, all.n)];
		run[n] = (struct slice_run){ p->id, p->npages };
		paints[n] = p->paint;
	}
	pthread_mutex_unlock(&all.mutex);
	uint64_t us = some_time(w, &cancel);
	node_take(node, run, n, waiter_init(&c, us));
	int r = end_call(w, &c, cancel);
	assert_true(!r || r == -ESTALE || r == -ECANCELED || r == -ETIMEDOUT);
	for (unsigned i = 0; !r && i < n; i++) {
		struct mine m = { run[i].id, run[i].npages, 1, paints[i], false, false };
		assert_paint(&m);
		w->v[w->n++] = m;
	}
}

static void unlink_one(struct walker *w)
{
	pthread_mutex_lock(&all.mutex);
	if (all.n) {
		unsigned i = (unsigned)below(&w->rng, all.n);
		assert_int_equal(add_refs(pool, all.v[i].id, -1), 0);
		all.v[i] = all.v[--all.n];
	}
	pthread_mutex_unlock(&all.mutex);
}

static void step(struct walker *w)
{
	unsigned what = (unsigned)below(&w->rng, 100), i = w->n ? (unsigned)below(&w->rng, w->n) : 0;

	if (what < 30 && w->n < MINE) {
		step_alloc(w);
	} else if (what < 45 && w->n) {
		step_seal(w, i);
	} else if (what < 65 && w->n < MINE) {
		step_take(w);
	} else if (what < 70) {
		unlink_one(w);
	} else if (what < 80 && w->n) {
		assert_int_equal(node_pin(node, w->v[i].id), 0);
		w->v[i].pins++;
	} else if (w->n) {
		if (node_is_lost(node, w->v[i].id))
			atomic_fetch_add(&all.lost, 1);
		let_go(w, i);
	}
}

static void *walk_thread(void *arg)
{
	struct walker *w = arg;

	for (unsigned i = 0; i < 1500; i++)
		step(w);
	while (w->n)
		let_go(w, w->n - 1);
	return NULL;
}

static void unlink_all(void)
{
	while (all.n)
		assert_int_equal(add_refs(pool, all.v[--all.n].id, -1), 0);
}

static void walk(uint64_t seed)
{
	struct walker w[THREADS];
	struct rng g = { seed ^ 77 };
	pthread_t t[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct walker){ .rng = { seed * 31 + i }, .number = i };
		assert_int_equal(pthread_create(&t[i], NULL, walk_thread, &w[i]), 0);
	}
	for (unsigned i = 0; all.cuts && i < 12; i++) {
		usleep((useconds_t)below(&g, 60000));
		relay_cut(&relay);
		if (chance(&g, 50))
			WAIT_FOR(remote_is_up(link_));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	unlink_all();
	assert_int_equal(metric_get(M_REMOTE_PINS), 0);
	WAIT_FOR(metric_get(M_STOCK) == 0 && pool_nfree(pool) == pool_npages(pool));
	assert_pool_fine();
}

static void walk_seed(void *arg, uint64_t seed)
{
	const unsigned *late_us = arg;

	all.lost = all.gave_up = 0;
	start(all.most > 200 ? 4 << 20 : POOL_BYTES, 0);
	relay.late_us = *late_us;
	walk(seed);
	print_message("  %u given up, %u found no room, %u lost\n", all.gave_up, all.full, all.lost);
	stop();
}

static void test_random_walk(void **state)
{
	unsigned late_us = 0;

	(void)state;
	all.cuts = false;
	all.most = 60;
	all.small = 80;
	for_seeds("node_remote", walk_seed, &late_us);
}

static void test_late_walk(void **state)
{
	unsigned late_us = 3000;

	(void)state;
	all.cuts = false;
	all.most = 60;
	all.small = 80;
	for_seeds("node_remote, late", walk_seed, &late_us);
	assert_true(all.gave_up);
}

static void test_walk_in_a_small_pool(void **state)
{
	unsigned late_us = 300;

	(void)state;
	all.cuts = false;
	all.most = 1000;
	all.small = 30;
	for_seeds("node_remote, full", walk_seed, &late_us);
	assert_true(all.full);
}

static void test_walk_that_is_cut(void **state)
{
	unsigned late_us = 1000;

	(void)state;
	all.cuts = true;
	all.most = 60;
	all.small = 80;
	for_seeds("node_remote, cut", walk_seed, &late_us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stock_comes_and_goes),
		cmocka_unit_test(test_what_is_given_back_is_in_stock),
		cmocka_unit_test(test_a_full_pool_is_used_up),
		cmocka_unit_test(test_a_pool_in_pieces_is_not_taken_whole),
		cmocka_unit_test(test_sealed_published_taken),
		cmocka_unit_test(test_many_of_one_slice),
		cmocka_unit_test(test_who_gives_up_waits_no_longer),
		cmocka_unit_test(test_what_is_published_outlives_its_session),
		cmocka_unit_test(test_many_pins_are_taken_again),
		cmocka_unit_test(test_what_is_not_in_a_slice_is_not_covered),
		cmocka_unit_test(test_what_a_restarted_node_has_is_verified),
		cmocka_unit_test(test_random_walk),
		cmocka_unit_test(test_late_walk),
		cmocka_unit_test(test_walk_in_a_small_pool),
		cmocka_unit_test(test_walk_that_is_cut),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
