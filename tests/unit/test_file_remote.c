/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files whose slices are another host's: the walks of test_file.c over a node
 * that is reached through loopback, late, failing, and in a pool that is too small.
 * Their bytes go straight to the pool, which is in this process.
 */
#include "tests/unit/disk_kit.h"
#include "tests/unit/file_world.h"
#include "tests/unit/relay.h"

#include "engine/node_remote.h"
#include "engine/peer.h"
#include "engine/server.h"

/* A node over the wire ------------------------------------------------------------- */

static struct server *server;
static struct relay relay;
static struct remote *to_node;

/* The engine's own pool and index are the node's; it comes to the pool's slices
 * over the wire. */
static void go_far(struct engine *e, bool faults)
{
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = index_kv(e->ix), .pool = e->pool };
	struct node *n;
	char where[32];

	assert_int_equal(server_open(&so, &server, NULL), 0);
	relay_open(&relay, server_port(server));
	snprintf(where, sizeof(where), "127.0.0.1:%u", relay.port);
	struct remote_opts ro = { .node = where, .name = "test" };
	assert_int_equal(remote_open(&ro, &to_node, NULL), 0);
	assert_int_equal(node_remote_open(to_node, &n), 0);
	node_close(e->node);
	e->node = n;
	if (faults)
		assert_int_equal(node_fault_open(n, &e->node), 0);
}

static void come_back(struct engine *e)
{
	node_close(steal(&e->node));
	remote_close(to_node);
	relay_close(&relay);
	server_close(server);
}

/* Walks -------------------------------------------------------------------------------- */

static struct world *world_new(uint64_t seed, const struct engine_opts *o)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *s = getenv("SEED");
	char *reason = NULL;

	w->random = s ? strtoull(s, NULL, 0) : seed ? seed : clock_ns();
	printf("file_remote: SEED=%lu\n", w->random);
	if (engine_open(o, &w->e, &reason))
		fail_msg("%s", reason);
	for (int i = 0; i < NFILES; i++)
		snprintf(w->slot[i].name, sizeof(w->slot[i].name), "file%d", i);
	go_far(w->e, o->fault_seed);
	return w;
}

static void world_free(struct world *w)
{
	struct engine_space space;

	w->faults = false;
	close_all(w);
	WAIT_FOR(!metric_get(M_STOCK) && !metric_get(M_PINS)); /* P10 */
	assert_int_equal(metric_get(M_REMOTE_PINS), 0);
	check_engine(w);
	for (int i = 0; i < NFILES; i++) {
		struct slot *s = &w->slot[i];
		check_name(w, s);
		if (!s->named)
			continue;
		assert_int_equal(kit_open_name(w->e, s->name, 0, &s->h[0]), 0);
		s->writes[0] = false;
		check_file(w, s);
	}
	close_all(w);
	for (int i = 0; i < NFILES; i++)
		step_unlink(w, &w->slot[i]);
	drops_wait(&w->e->drops);
	WAIT_FOR(!metric_get(M_STOCK) && !metric_get(M_PINS));
	engine_space(w->e, &space);
	assert_int_equal(space.free_bytes, space.total_bytes);
	come_back(w->e);
	engine_close(w->e);
	assert_idle();
	free(w);
}

static unsigned steps(unsigned n)
{
	const char *s = getenv("STEPS");

	return s ? (unsigned)strtoul(s, NULL, 0) : n;
}

static const struct engine_opts local = {
	.in_memory = true, .pool_bytes = 128 << 20, .index_bytes = 64 << 20,
};

static void walk(uint64_t seed, const struct engine_opts *o, unsigned n, unsigned late_us)
{
	struct world *w = world_new(seed, o);

	relay.late_us = late_us;
	for (unsigned i = 0; i < n; i++)
		step(w);
	world_free(w);
}

static void test_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	walk(1, &o, steps(1000), 0);
	o.verify = true;
	walk(0, &o, steps(500), 0);
}

static void test_late_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 3;
	walk(3, &o, steps(300), 500);
}

static void test_walk_in_a_small_pool(void **state)
{
	struct engine_opts o = local;
	int64_t before = metric_get(M_POOL_FULL);

	(void)state;
	o.pool_bytes = 4 << 20;
	walk(4, &o, steps(800), 0);
	walk(0, &o, steps(800), 200);
	assert_true(metric_get(M_POOL_FULL) > before + 5 || getenv("SEED"));
}

/* Calls of node, transport and index fail, done or not. */
static void test_failing_walk(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 5;
	o.wrap_kv = wrap_kv;
	struct world *w = world_new(0, &o);
	w->faults = true;
	for (unsigned i = 0; i < steps(300); i++) {
		arm(w);
		step(w);
		disarm(w);
	}
	assert_true(w->failed > 10);
	world_free(w);
}

/* One engine's files, as a mount has them whose index is the node's, too -------------- */

static struct index *near_ix;

static void index_far(struct engine *e)
{
	struct kv *kv;

	near_ix = e->ix;
	assert_int_equal(kv_remote_open(to_node, &kv), 0);
	assert_int_equal(index_open(kv, remote_session(to_node), false, &e->ix), 0);
}

static void index_back(struct engine *e)
{
	index_close(e->ix);
	e->ix = near_ix;
}

static int64_t requests;

static void assert_requests(int64_t n)
{
	assert_int_equal(metric_get(M_REMOTE_REQUESTS) - requests, n);
	requests = metric_get(M_REMOTE_REQUESTS);
}

static void put_file(struct engine *e, const char *name, const uint8_t *bytes, uint64_t n)
{
	struct file *f = NULL;

	assert_int_equal(kit_create(e, name, &f), 0);
	assert_int_equal(kit_write(f, 0, bytes, n), n);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

static struct engine *far_engine(bool verify)
{
	struct engine_opts o = local;
	struct engine *e;

	o.verify = verify;
	assert_int_equal(engine_open(&o, &e, NULL), 0);
	go_far(e, false);
	index_far(e);
	return e;
}

static void close_far(struct engine *e)
{
	WAIT_FOR(!metric_get(M_STOCK) && !metric_get(M_PINS));
	index_back(e);
	come_back(e);
	engine_close(e);
	assert_idle();
}

static const uint8_t *some_bytes(uint64_t n)
{
	static uint8_t bytes[100000];
	struct rng g = { n };

	assert_true(n <= sizeof(bytes));
	for (uint64_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)below(&g, 256);
	return bytes;
}

/* Of a small file: one to find it, one to open it, none to read and to close it. */
static void round_trips(bool verify)
{
	struct engine *e = far_engine(verify);
	const uint8_t *bytes = some_bytes(70000);
	static uint8_t got[70000];
	struct place place = { 0 };
	struct attr a = { 0 };
	struct file *f = NULL;

	put_file(e, "small", bytes, 10000);
	put_file(e, "16k", bytes, 16384);
	put_file(e, "large", bytes, 70000);
	put_file(e, "tiny", bytes, 100);
	WAIT_FOR(!metric_get(M_STOCK));
	requests = metric_get(M_REMOTE_REQUESTS);
	for (unsigned i = 0; i < 4; i++) {
		const char *name = i == 0 ? "small" : i == 1 ? "16k" : i == 2 ? "large" : "tiny";
		assert_int_equal(kit_lookup(e, name, &a, &place), 0);
		assert_requests(1);
		assert_int_equal(kit_open(e, a.fileid, place, 0, &f), 0);
		assert_requests(1);
		assert_int_equal(f->early != NULL, i < 2);
		assert_int_equal(kit_read(f, 3, got, sizeof(got)), a.size - 3);
		assert_memory_equal(got, bytes + 3, a.size - 3);
		assert_int_equal(kit_close(f, 0), 0);
		assert_requests(0);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(kit_unlink(e, i == 0 ? "small" : i == 1 ? "16k" :
					    i == 2 ? "large" : "tiny"), 0);
	close_far(e);
}

static void test_round_trips(void **state)
{
	(void)state;
	round_trips(false);
	round_trips(true);
}

/* Making one does not ask for room first. */
static void test_round_trips_of_a_new_file(void **state)
{
	static const unsigned sizes[] = { 4096, 10000, 65536, 70000 };
	struct engine *e = far_engine(false);
	const uint8_t *bytes = some_bytes(70000);
	static uint8_t got[70000];
	struct file *f = NULL;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		WAIT_FOR(!metric_get(M_REMOTE_CALLS));
		requests = metric_get(M_REMOTE_REQUESTS);
		struct place place;
		struct attr a;
		assert_int_equal(kit_lookup(e, "f", &a, &place), INDEX_MISS);
		assert_requests(1);
		assert_int_equal(kit_create(e, "f", &f), 0);
		assert_requests(i ? 1 : 2); /* at first nothing is known of the directory */
		assert_int_equal(kit_write(f, 0, bytes, sizes[i]), sizes[i]);
		WAIT_FOR(!metric_get(M_REMOTE_CALLS));
		requests = metric_get(M_REMOTE_REQUESTS);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		assert_requests(3); /* one seals, one publishes, one ends writing */
		assert_int_equal(kit_open_name(e, "f", 0, &f), 0);
		assert_int_equal(kit_read(f, 0, got, sizeof(got)), sizes[i]);
		assert_memory_equal(got, bytes, sizes[i]);
		assert_int_equal(kit_close(f, 0), 0);
		WAIT_FOR(!metric_get(M_REMOTE_CALLS));
		requests = metric_get(M_REMOTE_REQUESTS);
		assert_int_equal(kit_unlink(e, "f"), 0);
		/* And the note of what is gone, maybe later. */
		assert_in_range(metric_get(M_REMOTE_REQUESTS) - requests, 1, 2);
	}
	close_far(e);
}

/* Bytes that go by posts only: of what was written, blocks whose sums are missing (those
 * that several writes make up) are read back before they are sealed, and nothing else. */
static void test_what_is_read_back(void **state)
{
	const struct fault_opts hidden = { .hide_map = true };
	const uint8_t *bytes = some_bytes(100000);
	static uint8_t got[100000];
	struct engine *e = far_engine(true);
	struct attr a = { 0 };
	struct place place = { 0 };
	struct file *f = NULL;

	(void)state;
	assert_int_equal(transport_fault_open(e->transport, &hidden, &e->transport), 0);
	int64_t before = metric_get(M_MOVED_LOCAL);
	put_file(e, "whole", bytes, 65536);
	assert_int_equal(metric_get(M_MOVED_LOCAL) - before, 65536);
	before = metric_get(M_MOVED_LOCAL);
	put_file(e, "tail", bytes, 100000); /* 25 pages, 9 of them behind the first block */
	assert_int_equal(metric_get(M_MOVED_LOCAL) - before, 25 * 4096);
	before = metric_get(M_MOVED_LOCAL);
	assert_int_equal(kit_create(e, "two", &f), 0);
	assert_int_equal(kit_write(f, 0, bytes, 17 * 4096), 17 * 4096);
	const uint64_t second = 17 * 4096, n = 100000 - second;
	assert_int_equal(kit_write(f, second, bytes + second, n), n);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(metric_get(M_MOVED_LOCAL) - before, (25 + 9) * 4096);
	assert_int_equal(kit_lookup(e, "tail", &a, &place), 0);
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), 0);
	assert_int_equal(kit_read(f, 0, got, sizeof(got)), sizeof(got)); /* its sums hold */
	assert_memory_equal(got, bytes, sizeof(got));
	assert_int_equal(kit_close(f, 0), 0);
	assert_int_equal(kit_unlink(e, "whole"), 0);
	assert_int_equal(kit_unlink(e, "tail"), 0);
	assert_int_equal(kit_unlink(e, "two"), 0);
	close_far(e);
}

/* Rows of blocks here and there, as random writes leave them. */
static void test_walk_where_bytes_are_elsewhere(void **state)
{
	const struct fault_opts hidden = { .hide_map = true };
	struct engine_opts o = local;

	(void)state;
	o.verify = true;
	struct world *w = world_new(0, &o);
	assert_int_equal(transport_fault_open(w->e->transport, &hidden, &w->e->transport), 0);
	for (unsigned i = 0; i < steps(500); i++)
		step(w);
	world_free(w);
}

/* What came with the record is not believed once somebody writes, nor if it does not
 * match. */
static void test_early_bytes_are_the_version(void **state)
{
	struct engine *e = far_engine(true);
	const uint8_t *bytes = some_bytes(9000);
	struct file *r = NULL, *w = NULL;
	uint8_t got[9000];

	(void)state;
	put_file(e, "f", bytes, 9000);
	assert_int_equal(kit_open_name(e, "f", 0, &r), 0);
	assert_non_null(r->early);
	assert_int_equal(kit_open_name(e, "f", FILE_WRITE, &w), 0);
	assert_null(r->early);
	assert_int_equal(kit_write(w, 5000, "new", 3), 3);
	assert_int_equal(kit_read(r, 5000, got, 3), 3);
	assert_memory_equal(got, "new", 3);
	assert_int_equal(kit_close(w, FILE_WRITE), 0);
	assert_int_equal(kit_close(r, 0), 0);
	assert_int_equal(kit_open_name(e, "f", 0, &r), 0);
	assert_null(r->early); /* of two slices, neither whole: it cannot be verified */
	assert_int_equal(kit_read(r, 4999, got, 5), 5);
	assert_memory_equal(got + 1, "new", 3);
	assert_int_equal(kit_close(r, 0), 0);
	assert_int_equal(kit_unlink(e, "f"), 0);
	put_file(e, "f", bytes, 9000);
	assert_int_equal(kit_open_name(e, "f", 0, &r), 0);
	assert_non_null(r->early);
	struct map_view v;
	assert_true(map_at(&r->map, 0, &v));
	uint8_t *at = pool_page(e->pool, v.hold->id.page);
	at[0] ^= 1;
	assert_int_equal(kit_close(r, 0), 0);
	assert_int_equal(kit_open_name(e, "f", 0, &r), 0);
	assert_null(r->early);
	assert_int_equal(kit_read(r, 0, got, 5), -EIO);
	assert_int_equal(kit_close(r, 0), 0);
	at[0] ^= 1;
	assert_int_equal(kit_unlink(e, "f"), 0);
	close_far(e);
}

/* Renamed, linked, unlinked between the look and the open. */
static void test_who_has_moved_is_found(void **state)
{
	struct engine *e = far_engine(false);
	struct place place = { 0 };
	struct attr a = { 0 };
	struct file *f = NULL;

	(void)state;
	put_file(e, "f", some_bytes(9000), 9000);
	assert_int_equal(kit_lookup(e, "f", &a, &place), 0);
	struct index_op op = { .fileid = a.fileid, .place = place, .parent = INDEX_ROOT,
			       .name = "g" };
	assert_int_equal(index_wait(e->ix, &op, index_link), 0);
	index_op_fini(&op);
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), 0); /* under its fileid now */
	assert_int_equal(kit_close(f, 0), 0);
	assert_int_equal(kit_open_name(e, "g", 0, &f), 0);
	assert_non_null(f->early);
	assert_int_equal(kit_close(f, 0), 0);
	assert_int_equal(kit_unlink(e, "f"), 0);
	assert_int_equal(kit_unlink(e, "g"), 0);
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), -ESTALE);
	put_file(e, "f", some_bytes(9000), 9000); /* another one at its place */
	assert_int_equal(kit_open(e, a.fileid, place, 0, &f), -ESTALE);
	assert_int_equal(kit_unlink(e, "f"), 0);
	close_far(e);
}

/* Closing, while sessions end and begin ------------------------------------------------- */

static void *cut_soon(void *arg)
{
	usleep(*(useconds_t *)arg);
	relay_cut(&relay);
	return NULL;
}

/* Whoever hears of the end of a session, and of a new one, is there as long. */
static void test_closed_while_sessions_end(void **state)
{
	struct engine *node;
	struct server *at = NULL;
	char where[32], name[16];
	struct rng g = { 1 };

	(void)state;
	assert_int_equal(engine_open(&local, &node, NULL), 0);
	struct server_opts so = { .listen = "127.0.0.1:0", .kv = index_kv(node->ix),
				  .pool = node->pool };
	assert_int_equal(server_open(&so, &at, NULL), 0);
	for (unsigned i = 0; i < 40; i++) {
		struct engine_opts o = { .node = where, .timeout_ms = 2000 };
		useconds_t late = (useconds_t)below(&g, 1500);
		bool twice = chance(&g, 50);
		struct file *f = NULL;
		struct engine *e;
		pthread_t thread;

		relay_open(&relay, server_port(at));
		snprintf(where, sizeof(where), "127.0.0.1:%u", relay.port);
		assert_int_equal(engine_open(&o, &e, NULL), 0);
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(kit_create(e, name, &f), 0);
		assert_int_equal(kit_write(f, 0, "x", 1), 1);
		if (twice) /* there is a new session, and it is told of f, when it ends */
			relay_cut(&relay);
		assert_int_equal(pthread_create(&thread, NULL, cut_soon, &late), 0);
		kit_close(f, FILE_WRITE);
		usleep((useconds_t)below(&g, 1000));
		engine_close(e);
		pthread_join(thread, NULL);
		relay_close(&relay);
	}
	server_close(at);
	engine_close(node);
	assert_idle();
}

/* A publish that waits to be sent when its session ends -------------------------------------- */

/* Around the node's index: the first publish stops the node, and then the next that only reads
 * waits for its answer. */
struct gate {
	struct kv kv;
	struct kv *inner;
	atomic_bool armed;
	bool parks;
	struct kv_req *parked;
	sem_t reached, go, has_parked;
};

static struct gate gate;

static void gate_pass(struct kv_req *req)
{
	int r = kv_wait(gate.inner, req);

	kv_req_done(&gate.kv, req, r);
}

static bool publishes(const struct kv_req *req)
{
	for (uint32_t i = 0; i < req->nwrites; i++)
		if (*(const char *)req->writes[i].key.p == 'D')
			return true;
	return false;
}

static void gate_submit(struct kv *kv, struct kv_req *req)
{
	bool stops = publishes(req) && atomic_exchange(&gate.armed, false);

	(void)kv;
	if (stops) {
		sem_post(&gate.reached);
		sem_take(&gate.go);
		gate.parks = true;
	} else if (gate.parks && !req->nwrites) {
		gate.parks = false;
		gate.parked = req;
		sem_post(&gate.has_parked);
		return;
	}
	gate_pass(req);
}

static struct kv_caps gate_caps(struct kv *kv)
{
	(void)kv;
	return gate.inner->ops->caps(gate.inner);
}

static int gate_stat(struct kv *kv, struct kv_stat *ret)
{
	(void)kv;
	return gate.inner->ops->stat(gate.inner, ret);
}

static int gate_session_end(struct kv *kv, uint64_t session)
{
	(void)kv;
	return gate.inner->ops->session_end(gate.inner, session);
}

static struct kv *gate_inner(struct kv *kv)
{
	(void)kv;
	return gate.inner;
}

static int gate_check(struct kv *kv, struct writer *report)
{
	(void)kv;
	return gate.inner->ops->check(gate.inner, report);
}

static void gate_close(struct kv *kv)
{
	(void)kv;
	kv_close(gate.inner);
}

static int gate_open(struct kv *inner, struct kv **ret)
{
	static const struct kv_ops ops = {
		.name = "gate", .submit = gate_submit, .caps = gate_caps, .stat = gate_stat,
		.session_end = gate_session_end, .inner = gate_inner, .check = gate_check,
		.close = gate_close,
	};

	gate = (struct gate){ .kv.ops = &ops, .inner = inner };
	sem_init(&gate.reached, 0, 0);
	sem_init(&gate.go, 0, 0);
	sem_init(&gate.has_parked, 0, 0);
	*ret = &gate.kv;
	return 0;
}

/* Pages here and there: more extents than a record has room for. */
enum { SCATTERED = 400 };

static void scatter(struct file *f)
{
	uint8_t page[PAGE_BYTES] = { 2 };

	for (uint64_t i = 0; i < SCATTERED; i++)
		assert_int_equal(kit_write(f, 2 * i * PAGE_BYTES, page, PAGE_BYTES), PAGE_BYTES);
}

struct closing {
	struct file *f;
	int r;
};

static void *close_it(void *arg)
{
	struct closing *c = arg;

	c->r = kit_close(c->f, FILE_WRITE);
	return NULL;
}

static void stat_done(struct index_op *op, int outcome)
{
	(void)outcome;
	sem_post(op->arg);
}

/* Its first request loses a race; before the next one is sent somebody else is answered. */
static void leave_it_unsent(struct engine *node, struct engine *e, struct index_op *look)
{
	struct index_op chmod = { .fileid = look->fileid, .place = look->place,
				  .mask = INDEX_SET_MODE, .attr.mode = 0600 };

	sem_take(&gate.reached);
	assert_int_equal(index_wait(node->ix, &chmod, index_setattr), 0);
	index_op_fini(&chmod);
	index_stat(e->ix, look);
	usleep(200000);
	sem_post(&gate.go);
	sem_take(&gate.has_parked);
	usleep(200000);
}

static void assert_old_version(struct engine *e)
{
	uint8_t got[PAGE_BYTES];
	struct file *f = NULL;

	assert_int_equal(kit_open_name(e, "f", 0, &f), 0);
	assert_int_equal(kit_read(f, 0, got, PAGE_BYTES), PAGE_BYTES);
	assert_int_equal(got[0], 1);
	assert_int_equal(kit_close(f, 0), 0);
}

/* A node with a mount behind the relay. */
struct pair {
	struct engine *node, *e;
	struct server *at;
	uint64_t session; /* the mount's, when somebody looked last */
};

static void pair_listen(struct pair *p, uint32_t max_requests)
{
	struct server_opts so = { .listen = "127.0.0.1:0", .ix = p->node->ix,
				  .pool = p->node->pool, .evict = p->node->evict,
				  .tier = p->node->tier, .max_requests = max_requests };

	assert_int_equal(server_open(&so, &p->at, NULL), 0);
}

static struct pair pair_open(const struct engine_opts *no, uint32_t max_requests)
{
	struct engine_opts mo = { .timeout_ms = 5000 };
	struct pair p = { 0 };
	char where[32];

	assert_int_equal(engine_open(no, &p.node, NULL), 0);
	pair_listen(&p, max_requests);
	relay_open(&relay, server_port(p.at));
	snprintf(where, sizeof(where), "127.0.0.1:%u", relay.port);
	mo.node = where;
	assert_int_equal(engine_open(&mo, &p.e, NULL), 0);
	p.session = remote_session(peer_remote(p.e->peer));
	return p;
}

static bool pair_is_back(struct pair *p)
{
	struct remote *x = peer_remote(p->e->peer);

	return remote_is_up(x) && remote_session(x) != p->session;
}

/* The mount's session ends, and it has the next one. */
static void pair_cut(struct pair *p)
{
	p->session = remote_session(peer_remote(p->e->peer));
	relay_cut(&relay);
	WAIT_FOR(pair_is_back(p));
}

static void pair_close(struct pair *p)
{
	engine_close(p->e);
	relay_close(&relay);
	server_close(p->at);
	kit_check_engine(p->node);
	engine_close(p->node);
	assert_idle();
}

static void test_a_publish_unsent_when_its_session_ends(void **state)
{
	struct engine_opts no = local;
	struct closing c = { .r = 1 };
	struct place place = { 0 };
	struct attr a = { 0 };
	pthread_t thread;
	sem_t looked;

	(void)state;
	no.wrap_kv = gate_open;
	struct pair p = pair_open(&no, 1);
	struct engine *e = p.e;

	put_file(e, "f", (uint8_t[PAGE_BYTES]){ 1 }, PAGE_BYTES);
	assert_int_equal(kit_open_name(e, "f", FILE_WRITE, &c.f), 0);
	scatter(c.f);
	assert_int_equal(kit_lookup(e, "f", &a, &place), 0);
	sem_init(&looked, 0, 0);
	struct index_op look = { .fileid = a.fileid, .place = place, .done = stat_done,
				 .arg = &looked };
	atomic_store(&gate.armed, true);
	assert_int_equal(pthread_create(&thread, NULL, close_it, &c), 0);
	leave_it_unsent(p.node, e, &look);
	relay_cut(&relay);
	WAIT_FOR(remote_session(peer_remote(e->peer)) != p.session);
	gate_pass(gate.parked);
	pthread_join(thread, NULL);
	assert_int_equal(c.r, -EIO);
	assert_true(remote_session(peer_remote(e->peer)) > p.session);
	sem_take(&looked);
	index_op_fini(&look);

	assert_old_version(e);
	assert_int_equal(kit_unlink(e, "f"), 0);
	pair_close(&p);
	sem_destroy(&looked);
}

/* What a session's end leaves of calls of several steps ---------------------------------------- */

/* What is published is there for who opens it now. */
static void assert_opens(struct engine *e, const char *name, const uint8_t *bytes, uint64_t n)
{
	_cleanup_(freep) uint8_t *got = malloc(n + 1);
	struct file *f = NULL;

	assert_int_equal(kit_open_name(e, name, 0, &f), 0);
	assert_int_equal(kit_read(f, 0, got, n + 1), n);
	assert_memory_equal(got, bytes, n);
	assert_int_equal(kit_close(f, 0), 0);
}

/* Its content has moved to a slice for a write that then found no room. */
static void test_what_had_begun_to_change_is_lost(void **state)
{
	_cleanup_(freep) uint8_t *large = calloc(1, 5 << 20);
	const uint8_t *bytes = some_bytes(100);
	struct engine_opts no = local;
	struct file *r = NULL, *w = NULL;
	uint8_t got[100];

	(void)state;
	no.pool_bytes = 4 << 20;
	struct pair p = pair_open(&no, 0);
	put_file(p.e, "f", bytes, 100);
	assert_int_equal(kit_open_name(p.e, "f", 0, &r), 0);
	assert_int_equal(kit_open_name(p.e, "f", FILE_WRITE, &w), 0);
	assert_int_equal(kit_write(w, 500, large, 5 << 20), -ENOSPC);
	assert_int_equal(kit_read(r, 0, got, 100), 100);
	assert_memory_equal(got, bytes, 100);
	pair_cut(&p);
	assert_int_equal(kit_read(r, 0, got, 100), -EIO);
	assert_opens(p.e, "f", bytes, 100);
	assert_int_equal(kit_publish(w, false), -EIO);
	assert_int_equal(kit_close(w, FILE_WRITE), -EIO);
	assert_int_equal(kit_close(r, 0), 0);
	assert_opens(p.e, "f", bytes, 100);
	assert_int_equal(kit_unlink(p.e, "f"), 0);
	pair_close(&p);
}

struct writing {
	struct file *f;
	const uint8_t *bytes;
	int64_t r;
};

static void *write_it(void *arg)
{
	struct writing *w = arg;

	w->r = kit_write(w->f, 0, w->bytes, 8192);
	return NULL;
}

/* Bytes were placed in the session before: they are not, and what is published is as it was. */
static void test_what_was_placed_is_gone_with_its_session(void **state)
{
	const struct fault_opts early = { .seed = 1 }; /* moved at once, and told when it is let go */
	const uint8_t *bytes = some_bytes(9000);
	struct writing w = { .bytes = bytes, .r = 1 };
	int64_t moved;
	pthread_t thread;

	(void)state;
	struct pair p = pair_open(&local, 0);
	put_file(p.e, "f", bytes, 9000);
	assert_int_equal(kit_open_name(p.e, "f", FILE_WRITE, &w.f), 0);
	assert_int_equal(transport_fault_open(p.e->transport, &early, &p.e->transport), 0);
	moved = metric_get(M_MOVED_TCP);
	transport_fault_hold(p.e->transport, true);
	assert_int_equal(pthread_create(&thread, NULL, write_it, &w), 0);
	WAIT_FOR(metric_get(M_MOVED_TCP) > moved);
	pair_cut(&p);
	transport_fault_hold(p.e->transport, false);
	pthread_join(thread, NULL);
	assert_int_equal(w.r, -EIO);
	assert_opens(p.e, "f", bytes, 9000);
	assert_int_equal(kit_write(w.f, 0, bytes + 1, 8192), 8192); /* in this session it can be */
	assert_int_equal(kit_close(w.f, FILE_WRITE), 0);
	assert_int_equal(kit_unlink(p.e, "f"), 0);
	pair_close(&p);
}

/* What goes to the node's disk while there is no session ---------------------------------- */

enum { DISK_POOL_BYTES = 8 << 20, FILLERS = 20, FILLER_BYTES = 700000 };

static bool is_away(struct engine *e, const char *name)
{
	struct attr a = { 0 };
	struct place place;

	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	return a.away;
}

/* Others are used more often than it is. */
static void push_out(struct engine *node, const char *name)
{
	_cleanup_(freep) uint8_t *bytes = calloc(1, FILLER_BYTES);
	char filler[16];

	for (unsigned i = 0; i < 10 * FILLERS && !is_away(node, name); i++) {
		snprintf(filler, sizeof(filler), "filler%u", i % FILLERS);
		if (i < FILLERS)
			put_file(node, filler, bytes, FILLER_BYTES);
		else
			assert_opens(node, filler, bytes, FILLER_BYTES);
	}
	assert_true(is_away(node, name));
}

static struct pair pair_open_disk(void)
{
	struct engine_opts no = { .in_memory = true, .pool_bytes = DISK_POOL_BYTES,
				  .index_bytes = 64 << 20, .evict_high = 80, .evict_low = 60,
				  .ssd = disk_kit_begin(), .ssd_bytes = 64 << 20,
				  .ssd_wait_ms = 20000 };

	return pair_open(&no, 0);
}

/* The mount's session ends, and f has gone to the disk when it has the next one. */
static void push_out_between(struct pair *p, const char *name)
{
	p->session = remote_session(peer_remote(p->e->peer));
	relay_stop(&relay);
	WAIT_FOR(!metric_get(M_PINS));
	push_out(p->node, name);
	relay_go_on(&relay);
	WAIT_FOR(pair_is_back(p));
}

static void pair_close_disk(struct pair *p)
{
	pair_close(p);
	disk_kit_end();
}

static bool reads_as(struct file *f, const uint8_t *bytes, uint64_t n)
{
	_cleanup_(freep) uint8_t *got = malloc(n + 1);

	return kit_read(f, 0, got, n + 1) == (int64_t)n && !memcmp(got, bytes, n);
}

static void test_who_has_it_open_reads_on_from_the_disk(void **state)
{
	const uint8_t *bytes = some_bytes(70000);
	struct file *r = NULL, *w = NULL;

	(void)state;
	struct pair p = pair_open_disk();
	put_file(p.e, "f", bytes, 70000);
	put_file(p.e, "g", bytes, 70000);
	assert_int_equal(kit_open_name(p.e, "f", 0, &r), 0);
	assert_int_equal(kit_open_name(p.e, "g", FILE_WRITE, &w), 0);
	push_out_between(&p, "f");
	assert_opens(p.e, "f", bytes, 70000);
	assert_true(reads_as(r, bytes, 70000));
	WAIT_FOR(reads_as(w, bytes, 70000));
	assert_int_equal(kit_write(w, 0, bytes, 5000), 5000);
	assert_int_equal(kit_close(w, FILE_WRITE), 0);
	assert_opens(p.e, "g", bytes, 70000);
	assert_int_equal(kit_close(r, 0), 0);
	pair_close_disk(&p);
}

/* Which has another version then: there are more extents than a record has room for. */
static void test_what_has_blocks_is_opened_anew(void **state)
{
	const uint64_t n = (2 * SCATTERED - 1) * PAGE_BYTES;
	_cleanup_(freep) uint8_t *bytes = calloc(1, n);
	struct file *f = NULL;

	(void)state;
	struct pair p = pair_open_disk();
	assert_int_equal(kit_create(p.e, "f", &f), 0);
	scatter(f);
	assert_int_equal(kit_read(f, 0, bytes, n), n);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_open_name(p.e, "f", 0, &f), 0);
	push_out_between(&p, "f");
	assert_opens(p.e, "f", bytes, n);
	assert_int_equal(kit_read(f, 0, bytes, PAGE_BYTES), -EIO);
	assert_int_equal(kit_close(f, 0), 0);
	pair_close_disk(&p);
}

/* Of the version that they have open nothing is left. */
static void test_what_was_replaced_meanwhile_is_opened_anew(void **state)
{
	const uint8_t *bytes = some_bytes(70000);
	struct file *r = NULL, *w = NULL, *other = NULL;
	uint8_t got[100];

	(void)state;
	struct pair p = pair_open(&local, 0);
	put_file(p.e, "f", bytes, 70000);
	assert_int_equal(kit_open_name(p.e, "f", 0, &r), 0);
	assert_int_equal(kit_open_name(p.e, "f", FILE_WRITE, &w), 0);
	p.session = remote_session(peer_remote(p.e->peer));
	relay_stop(&relay);
	WAIT_FOR(!metric_get(M_PINS));
	assert_int_equal(kit_open_name(p.node, "f", FILE_WRITE | FILE_TRUNCATE, &other), 0);
	assert_int_equal(kit_write(other, 0, bytes + 1, 60000), 60000);
	assert_int_equal(kit_close(other, FILE_WRITE), 0);
	relay_go_on(&relay);
	WAIT_FOR(pair_is_back(&p));
	assert_opens(p.e, "f", bytes + 1, 60000);
	assert_int_equal(kit_read(r, 0, got, 100), -EIO);
	assert_int_equal(kit_close(r, 0), 0);
	assert_int_equal(kit_close(w, FILE_WRITE), 0);
	assert_opens(p.e, "f", bytes + 1, 60000);
	assert_int_equal(kit_unlink(p.e, "f"), 0);
	pair_close(&p);
}

static bool is_all_regained(struct engine *e)
{
	WITH_LOCK(&e->files->lock);
	return !e->files->nregains;
}

/* The node has no room to bring it back from its disk at first. */
static void test_who_writes_goes_on_when_there_is_room_again(void **state)
{
	const uint8_t *bytes = some_bytes(70000);
	struct file *r = NULL, *w = NULL, *full = NULL;
	uint64_t n = 0;

	(void)state;
	struct pair p = pair_open_disk();
	put_file(p.e, "f", bytes, 70000);
	assert_int_equal(kit_open_name(p.e, "f", FILE_WRITE, &w), 0);
	p.session = remote_session(peer_remote(p.e->peer));
	relay_stop(&relay);
	WAIT_FOR(!metric_get(M_PINS));
	push_out(p.node, "f");
	assert_int_equal(kit_create(p.node, "full", &full), 0);
	while (n < DISK_POOL_BYTES && kit_write(full, n, bytes, 60000) == 60000)
		n += 60000;
	assert_true(n > DISK_POOL_BYTES / 2);
	relay_go_on(&relay);
	WAIT_FOR(pair_is_back(&p));
	WAIT_FOR(is_all_regained(p.e));
	assert_false(reads_as(w, bytes, 70000));
	assert_int_equal(kit_unlink(p.node, "full"), 0);
	assert_int_equal(kit_close(full, FILE_WRITE), 0);
	WAIT_FOR(r || !kit_open_name(p.e, "f", 0, &r));
	assert_true(reads_as(r, bytes, 70000));
	assert_int_equal(kit_write(w, 0, bytes + 1, 5000), 5000);
	assert_int_equal(kit_close(w, FILE_WRITE), 0);
	assert_int_equal(kit_close(r, 0), 0);
	assert_int_equal(kit_unlink(p.e, "f"), 0);
	pair_close_disk(&p);
}

/* What has no name any more and went with a session, whoever opens it afterwards. */
static void test_what_had_no_name_is_gone_with_its_session(void **state)
{
	const uint8_t *bytes = some_bytes(70000);
	struct file *r = NULL, *w = NULL;
	uint8_t got[100];

	(void)state;
	struct pair p = pair_open(&local, 0);
	put_file(p.e, "f", bytes, 70000);
	struct index_op op = { .parent = INDEX_ROOT, .name = "f" };
	assert_int_equal(index_wait(engine_index(p.e), &op, index_unlink), 0);
	assert_int_equal(kit_open_gone(p.e, &op.gone, 0, &r), 0);
	assert_true(reads_as(r, bytes, 70000));
	p.session = remote_session(peer_remote(p.e->peer));
	relay_stop(&relay);
	WAIT_FOR(!metric_get(M_PINS));
	relay_go_on(&relay);
	WAIT_FOR(pair_is_back(&p));
	int error = kit_open_gone(p.e, &op.gone, FILE_WRITE, &w);
	assert_true(!error || error == -ESTALE);
	assert_int_equal(kit_read(r, 0, got, 100), -EIO);
	if (w)
		assert_int_equal(kit_close(w, FILE_WRITE), 0);
	assert_int_equal(kit_close(r, 0), 0);
	engine_drop(p.e, &op.gone);
	index_op_fini(&op);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_late_walk),
		cmocka_unit_test(test_walk_in_a_small_pool),
		cmocka_unit_test(test_failing_walk),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_round_trips_of_a_new_file),
		cmocka_unit_test(test_what_is_read_back),
		cmocka_unit_test(test_walk_where_bytes_are_elsewhere),
		cmocka_unit_test(test_early_bytes_are_the_version),
		cmocka_unit_test(test_who_has_moved_is_found),
		cmocka_unit_test(test_closed_while_sessions_end),
		cmocka_unit_test(test_a_publish_unsent_when_its_session_ends),
		cmocka_unit_test(test_what_had_begun_to_change_is_lost),
		cmocka_unit_test(test_what_was_placed_is_gone_with_its_session),
		cmocka_unit_test(test_who_has_it_open_reads_on_from_the_disk),
		cmocka_unit_test(test_what_has_blocks_is_opened_anew),
		cmocka_unit_test(test_what_was_replaced_meanwhile_is_opened_anew),
		cmocka_unit_test(test_who_writes_goes_on_when_there_is_room_again),
		cmocka_unit_test(test_what_had_no_name_is_gone_with_its_session),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
