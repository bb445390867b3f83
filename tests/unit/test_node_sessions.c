/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that share the index of a node: what one may do to another one's drafts, and
 * what is left of a mount that dies, comes back, or takes long to be ended.
 */
#include "tests/unit/names_kit.h"
#include "tests/unit/net_kit.h"

#include <fcntl.h>

#include "common/cleanup.h"
#include "engine/remote.h"
#include "engine/server.h"

/* An engine in memory whose sessions end when they may ------------------------------- */

struct slow {
	struct kv kv;
	struct kv *inner;
	atomic_bool holds; /* ends wait */
	atomic_int waiting;
};

static void slow_submit(struct kv *kv, struct kv_req *req)
{
	struct slow *s = (struct slow *)kv;
	int r = kv_wait(s->inner, req);

	if (req->nwrites && r == KV_DONE)
		kv_ring(kv, req);
	kv_req_done(kv, req, r);
}

static struct kv_caps slow_caps(struct kv *kv)
{
	struct kv *inner = ((struct slow *)kv)->inner;

	return inner->ops->caps(inner);
}

static int slow_stat(struct kv *kv, struct kv_stat *ret)
{
	struct kv *inner = ((struct slow *)kv)->inner;

	return inner->ops->stat(inner, ret);
}

static int slow_end(struct kv *kv, uint64_t session)
{
	struct slow *s = (struct slow *)kv;

	atomic_fetch_add(&s->waiting, 1);
	while (atomic_load(&s->holds))
		usleep(500);
	atomic_fetch_sub(&s->waiting, 1);
	return s->inner->ops->session_end(s->inner, session);
}

static int slow_check(struct kv *kv, struct writer *report)
{
	struct kv *inner = ((struct slow *)kv)->inner;

	return inner->ops->check(inner, report);
}

static void slow_close(struct kv *kv)
{
	kv_close(((struct slow *)kv)->inner);
}

static const struct kv_ops slow_ops = {
	.name = "slow", .submit = slow_submit, .caps = slow_caps, .stat = slow_stat,
	.session_end = slow_end, .check = slow_check, .close = slow_close,
};

/* A node and its mounts --------------------------------------------------------------- */

static struct slow slow;
static struct index *node_ix;
static struct pool *pool;
static struct server *server;
static char where[32];

static int setup(void **state)
{
	struct pool_opts po = { .bytes = 4 << 20, .create = true };
	struct server_opts o = { .listen = "127.0.0.1:0" };

	(void)state;
	slow = (struct slow){ .kv.ops = &slow_ops };
	assert_int_equal(kv_mem_open(&slow.inner), 0);
	assert_int_equal(index_open(&slow.kv, INDEX_SESSION_OWN, true, &node_ix), 0);
	assert_int_equal(pool_open(&po, &pool), 0);
	o.ix = node_ix;
	o.pool = pool;
	assert_int_equal(server_open(&o, &server, NULL), 0);
	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(server));
	return 0;
}

static int teardown(void **state)
{
	struct index_op none = { 0 };

	(void)state;
	atomic_store(&slow.holds, false); /* of a test that failed meanwhile */
	server_close(server);
	pool_close(pool);
	kit_close(node_ix, &none);
	return 0;
}

struct mount {
	struct remote *remote;
	struct kv *kv; /* the index's */
	struct index *ix;
	uint64_t session;
};

static struct mount mount_new(void)
{
	struct remote_opts o = { .node = where, .name = "test" };
	struct mount m;

	assert_int_equal(remote_open(&o, &m.remote, NULL), 0);
	assert_int_equal(kv_remote_open(m.remote, &m.kv), 0);
	m.session = remote_session(m.remote);
	assert_int_equal(index_open(m.kv, m.session, false, &m.ix), 0);
	return m;
}

static void mount_end(struct mount *m)
{
	index_close(m->ix);
	remote_close(m->remote);
}

static unsigned keys_of(uint64_t session)
{
	struct kv_read all = { BYTES_OF("a", 1), BYTES_OF("{", 1), UINT32_MAX };
	struct kv_req req = { .reads = &all, .nreads = 1 };
	unsigned n = 0;

	assert_int_equal(kv_wait(slow.inner, &req), KV_DONE);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++)
		n += kv_key_session(req.rows[0].rows[i].key) == session;
	kv_req_fini(&req);
	return n;
}

static int see_block(void *arg, uint64_t fileid, uint64_t id)
{
	(void)fileid;
	(void)id;
	++*(unsigned *)arg;
	return 0;
}

static unsigned orphans(void)
{
	unsigned n = 0;
	struct index_visitor v = { .orphan_block = see_block, .arg = &n };

	assert_int_equal(index_scan(node_ix, &v), 0);
	return n;
}

static void put_blocks(struct index *ix, uint64_t fileid)
{
	struct block_ref refs[] = { { 0, index_new_id(ix) }, { 1, index_new_id(ix) } };
	struct bytes values[] = { bytes_str("one"), bytes_str("two") };
	struct index_op op = { 0 };

	assert_int_equal(kit(ix, &op, index_put_blocks, (struct index_op){
		.fileid = fileid, .blocks = refs, .values = values, .nblocks = 2 }), 0);
	index_op_fini(&op);
}

static int draft_excl(struct index *ix, const char *name, uint64_t *ret)
{
	struct index_op op = { 0 };
	int r = kit(ix, &op, index_draft, (struct index_op){
		.parent = INDEX_ROOT, .name = name, .flags = O_EXCL,
		.attr = { .mode = S_IFREG | 0644 } });

	*ret = op.entry.attr.fileid;
	index_op_fini(&op);
	return r;
}

/* Sharing ----------------------------------------------------------------------------- */

static void test_drafts_are_their_mounts(void **state)
{
	struct mount a = mount_new(), b = mount_new();
	struct index_op op = { 0 };
	uint64_t id;

	(void)state;
	assert_true(a.session > INDEX_SESSION_OWN && b.session > a.session);
	struct attr d = kit_new_draft(a.ix, INDEX_ROOT, "f");
	assert_int_equal(kit_lookup(b.ix, &op, INDEX_ROOT, "f"), INDEX_MISS);
	assert_int_equal(draft_excl(b.ix, "f", &id), -EEXIST);
	assert_int_equal(kit_publish(a.ix, &op, d, "one"), 0);
	assert_int_equal(kit_lookup(b.ix, &op, INDEX_ROOT, "f"), 0);
	assert_false(op.entry.draft);
	/* What a plan of b writes of a's keys is let through. */
	assert_int_equal(kit_rename(b.ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "g", 0), 0);
	d.version = 1;
	assert_int_equal(kit_publish(a.ix, &op, d, "two"), 0);
	kit_new_draft(a.ix, INDEX_ROOT, "t");
	assert_int_equal(kit(b.ix, &op, index_setattr, (struct index_op){
		.fileid = INDEX_ROOT, .place = by_id, .mask = INDEX_SET_MTIME,
		.attr.mtime.tv_sec = 1000 }), 0);
	assert_int_equal(kit_dir_attr(a.ix, INDEX_ROOT).mtime.tv_sec, 1000);
	mount_end(&b);
	assert_true(keys_of(a.session) > 0);
	index_op_fini(&op);
	mount_end(&a);
	assert_int_equal(keys_of(a.session), 0);
}

static int put_key(struct mount *m, struct key k, struct bytes value)
{
	return put_bytes(m->kv, key_bytes(&k), value);
}

static int drop_keys(struct mount *m, uint64_t session)
{
	struct writer w = { 0 };

	wire_write_session(&w, session);
	return remote_ask(m->remote, WIRE_DROP_KEYS, w, 0, NULL);
}

static void test_keys_of_others_are_refused(void **state)
{
	struct mount a = mount_new(), b = mount_new();
	uint64_t id = kit_new_draft(a.ix, INDEX_ROOT, "f").fileid;
	struct key n = key_draft_name(INDEX_ROOT, 512, bytes_str("x"), a.session);
	unsigned before = keys_of(a.session);
	char short_key[] = "n";

	(void)state;
	assert_int_equal(put_key(&b, n, bytes_str("v")), -ESTALE);
	assert_int_equal(put_key(&b, key_writer(id, a.session), BYTES_NONE), -ESTALE);
	assert_int_equal(put_key(&b, key_note(id, 1, a.session), bytes_str("v")), -ESTALE);
	assert_int_equal(put_key(&b, key_draft_times(INDEX_ROOT, a.session), bytes_str("v")),
			 -ESTALE);
	assert_int_equal(put_key(&b, key_draft_xattr(id, bytes_str("user.x"), a.session),
				 BYTES_NONE), -ESTALE);
	assert_int_equal(put_bytes(b.kv, bytes_str(short_key), bytes_str("v")), -ESTALE);
	assert_int_equal(put_key(&b, key_writer(id, INDEX_SESSION_OWN), bytes_str("v")), -ESTALE);
	assert_int_equal(drop_keys(&b, a.session), -ESTALE);
	assert_int_equal(drop_keys(&b, INDEX_SESSION_OWN), -ESTALE);
	assert_int_equal(drop_keys(&b, b.session), 0);
	assert_int_equal(keys_of(a.session), before);
	assert_int_equal(kit_end(a.ix, id), 0);
	mount_end(&a);
	mount_end(&b);
}

/* Where an object is that another one writes, a mount may say: where that one has said
 * that it writes it, and of no draft. */
static void test_where_a_mount_may_write(void **state)
{
	struct writer_name name = { 1, 512, bytes_str("n"), 0 };
	struct writer_state at = { .place = { PLACE_NAME, 1, 512 } };
	struct writer_state draft = { .draft = true, .names = &name, .nnames = 1 };
	struct writer good = { 0 }, bad = { 0 };
	struct key w = key_writer(7, 5), t = key_draft_times(7, 5);
	struct kv_compare is = { .kind = KV_REVISION, .key = key_bytes(&w), .revision = 9 };
	struct kv_write put = { .key = key_bytes(&w) };
	struct kv_req req = { .compares = &is, .ncompares = 1, .writes = &put, .nwrites = 1 };

	(void)state;
	writer_state_encode(&at, &good);
	writer_state_encode(&draft, &bad);
	put.value = writer_bytes(&good);
	assert_int_equal(index_request_check(&req, 4), 0);
	assert_int_equal(index_request_check(&req, 5), 0);
	is.revision = 0; /* absent */
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	is.revision = 9;
	is.kind = KV_ABSENT;
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	is.kind = KV_REVISION;
	is.key = key_bytes(&t);
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	is.key = key_bytes(&w);
	put.value = writer_bytes(&bad);
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	assert_int_equal(index_request_check(&req, 5), 0);
	put.value = bytes_str("rubbish");
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	put.value = BYTES_NONE;
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	put.key = key_bytes(&t);
	assert_int_equal(index_request_check(&req, 4), 0);
	put.value = bytes_str("v");
	assert_int_equal(index_request_check(&req, 4), -ESTALE);
	put.key = bytes_str("Durable");
	assert_int_equal(index_request_check(&req, 4), 0);
	writer_fini(&good);
	writer_fini(&bad);
}

/* Ends -------------------------------------------------------------------------------- */

static void test_a_mount_that_dies_leaves_nothing(void **state)
{
	struct mount a = mount_new(), b = mount_new();
	struct index_op op = { 0 };
	uint64_t id;

	(void)state;
	struct attr d = kit_new_draft(a.ix, INDEX_ROOT, "f");
	put_blocks(a.ix, d.fileid);
	assert_int_equal(orphans(), 2);
	remote_last(a.remote);
	remote_stop(a.remote, -ECANCELED);
	WAIT_FOR(metric_get(M_SESSIONS) == 1);
	assert_int_equal(keys_of(a.session), 0);
	assert_int_equal(orphans(), 0);
	assert_int_equal(kit_publish(a.ix, &op, d, "late"), -ENOTCONN);
	assert_int_equal(draft_excl(b.ix, "f", &id), 0);
	assert_int_equal(kit_end(b.ix, id), 0);
	index_op_fini(&op);
	mount_end(&a);
	mount_end(&b);
}

static void test_one_that_drops_its_keys_leaves_no_blocks(void **state)
{
	struct mount a = mount_new();

	(void)state;
	put_blocks(a.ix, kit_new_draft(a.ix, INDEX_ROOT, "f").fileid);
	assert_int_equal(orphans(), 2);
	assert_int_equal(drop_keys(&a, a.session), 0);
	assert_int_equal(keys_of(a.session), 0);
	assert_int_equal(orphans(), 0);
	mount_end(&a);
}

static void test_one_that_comes_back_ends_the_session_before(void **state)
{
	struct mount a = mount_new(), b = mount_new();
	struct index_op op = { 0 };
	uint64_t id;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		uint64_t session = remote_session(a.remote);
		struct attr d = kit_new_draft(a.ix, INDEX_ROOT, "f");
		put_blocks(a.ix, d.fileid);
		atomic_store(&slow.holds, true); /* the end takes a while */
		remote_stop(a.remote, -ECANCELED);
		WAIT_FOR(slow.waiting == 1);
		usleep(i ? 0 : 300000);
		WAIT_FOR(remote_session(a.remote) == 0); /* for that it waits */
		/* And nobody else does. */
		assert_int_equal(kit_lookup(b.ix, &op, INDEX_ROOT, "f"), INDEX_MISS);
		assert_int_equal(draft_excl(b.ix, "f", &id), -EEXIST);
		atomic_store(&slow.holds, false);
		WAIT_FOR(remote_is_up(a.remote));
		assert_true(remote_session(a.remote) > session);
		assert_int_equal(keys_of(session), 0);
		assert_int_equal(orphans(), 0);
		assert_int_equal(metric_get(M_SESSIONS), 2);
		/* What the old one would still write is refused; the new one begins afresh. */
		assert_int_equal(kit_draft(a.ix, &op, INDEX_ROOT, "g"), -ESTALE);
		assert_int_equal(kit_publish(a.ix, &op, d, "late"), -EINVAL);
		index_set_session(a.ix, remote_session(a.remote));
		assert_int_equal(kit_lookup(a.ix, &op, INDEX_ROOT, "f"), INDEX_MISS);
		assert_int_equal(draft_excl(b.ix, "f", &id), 0);
		assert_int_equal(kit_end(b.ix, id), 0);
	}
	index_op_fini(&op);
	mount_end(&a);
	mount_end(&b);
}

/* A raw beginning, with whatever proof for the session before. */
static void take_place(uint64_t session, const struct auth_key *secret)
{
	struct wire_hello hello = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				    .session = session };
	const struct auth_key none = { { 0 } };
	struct writer body = { 0 }, sent = { 0 }, in = { 0 };
	struct wire_challenge c;
	struct wire_header h;
	struct wire_proof m;
	int fd = raw_connect(server_port(server));

	wire_write_hello(&body, &hello);
	wire_write_hello(&sent, &hello);
	raw_message(fd, (struct wire_header){ .type = WIRE_HELLO }, body);
	assert_true(raw_next(fd, &h, &in));
	assert_int_equal(wire_read_challenge(writer_bytes(&in), &c), 0);
	auth_prove(&none, AUTH_MOUNT, writer_bytes(&sent), &c, m.proof);
	auth_prove(secret, AUTH_MOUNT, writer_bytes(&sent), &c, m.before);
	body = (struct writer){ 0 };
	wire_write_proof(&body, &m);
	raw_message(fd, (struct wire_header){ .type = WIRE_PROOF }, body);
	assert_true(raw_next(fd, &h, &in));
	assert_int_equal(h.type, WIRE_WELCOME);
	shutdown(fd, SHUT_WR);
	raw_expect_end(fd);
	writer_fini(&sent);
	writer_fini(&in);
}

static void test_nobody_takes_the_place_of_another_one(void **state)
{
	struct mount a = mount_new();
	const struct auth_key other = { { 7 } };
	struct auth_key secret;

	(void)state;
	uint64_t id = kit_new_draft(a.ix, INDEX_ROOT, "f").fileid;
	take_place(a.session, &other);
	take_place(INDEX_SESSION_OWN, &other);
	take_place(a.session + 1000, &other); /* there is none */
	assert_int_equal(remote_session(a.remote), a.session);
	assert_int_equal(kit_end(a.ix, id), 0);
	memcpy(secret.b, remote_welcome(a.remote)->secret, sizeof(secret.b));
	remote_last(a.remote);
	take_place(a.session, &secret);
	WAIT_FOR(metric_get(M_SESSIONS) == 0);
	mount_end(&a);
	struct mount b = mount_new(); /* a number above all that were named */
	assert_true(b.session > a.session + 1000);
	mount_end(&b);
}

static void *end_server(void *arg)
{
	server_close(arg);
	return NULL;
}

/* The node stops while a mount waits for the end of its session before. */
static void test_a_node_stops_while_one_waits(void **state)
{
	struct mount a = mount_new();
	pthread_t t;

	(void)state;
	kit_new_draft(a.ix, INDEX_ROOT, "f");
	atomic_store(&slow.holds, true);
	remote_stop(a.remote, -ECANCELED);
	WAIT_FOR(slow.waiting == 1);
	usleep(100000);
	assert_int_equal(pthread_create(&t, NULL, end_server, server), 0);
	server = NULL;
	usleep(50000);
	assert_int_equal(metric_get(M_SESSIONS), 1);
	atomic_store(&slow.holds, false);
	pthread_join(t, NULL);
	assert_int_equal(metric_get(M_SESSIONS), 0);
	assert_int_equal(keys_of(a.session), 0);
	remote_last(a.remote);
	mount_end(&a);
}

/* What it counts ------------------------------------------------------------------------ */

static const char *_Atomic told; /* what it says of itself, */
static atomic_uint told_times, told_late_ms; /* so often, so late */

static void tell(void *arg, struct writer *w)
{
	(void)arg;
	usleep(told_late_ms * 1000);
	for (unsigned i = 0; i < told_times; i++)
		write_bytes(w, told, strlen(told));
}

static struct engine *open_engine(const struct engine_opts *o)
{
	struct engine *e;

	assert_int_equal(engine_open(o, &e, NULL), 0);
	return e;
}

/* A whole store, for a whole engine to be its mount. */
static struct engine *node;

static struct engine *mount_of_node(bool tells)
{
	node = open_engine(&(struct engine_opts){ .in_memory = true, .pool_bytes = 4 << 20 });
	struct server_opts o = { .listen = "127.0.0.1:0", .ix = engine_index(node),
				 .pool = engine_pool(node), .print_stats = tells ? tell : NULL };

	server_close(server);
	assert_int_equal(server_open(&o, &server, NULL), 0);
	snprintf(where, sizeof(where), "127.0.0.1:%u", server_port(server));
	return open_engine(&(struct engine_opts){ .node = where });
}

static void end_of_node(struct engine *mount)
{
	engine_close(mount);
	server_close(server);
	server = NULL;
	engine_close(node);
}

static void asked(struct engine_ask *a, int r)
{
	atomic_store((_Atomic int *)a->arg, r);
}

/* *ret_len: of the text, which is what was told if it is not empty. */
static int ask_stats(struct engine *e, unsigned ms, bool cancel, size_t *ret_len)
{
	_Atomic int r = 1;
	struct engine_ask a = { .call.deadline_ns = clock_ns() + ms * NS_PER_MS, .done = asked,
				.arg = &r };

	engine_node_stats(e, &a);
	atomic_store(&a.call.cancelled, cancel);
	WAIT_FOR(atomic_load(&r) <= 0);
	*ret_len = a.text.len;
	if (a.text.len)
		assert_memory_equal(a.text.p, told, strlen(told));
	writer_fini(&a.text);
	return r;
}

static int ask_for(struct engine *e, const char *text, unsigned times, size_t *ret_len)
{
	told = text;
	told_times = times;
	return ask_stats(e, 5000, false, ret_len);
}

static void test_a_node_tells_what_it_counts(void **state)
{
	size_t n;

	(void)state;
	struct engine *e = mount_of_node(true);
	assert_int_equal(ask_for(e, "slicefs_sessions 1\n", 1, &n), 0);
	assert_int_equal(n, 19);
	assert_int_equal(ask_for(e, "", 0, &n), 0);
	assert_int_equal(ask_for(e, "1234567\n", 1 << 17, &n), 0);
	assert_int_equal(n, WIRE_STATS_MAX);
	assert_int_equal(ask_for(e, "1234567\n", (1 << 17) + 1, &n), -E2BIG);
	/* What would be more than text on a terminal. */
	assert_int_equal(ask_for(e, "\x1b[2J\n", 1, &n), -EPROTO);
	assert_int_equal(ask_for(e, "caf\xc3\xa9\n", 1, &n), -EPROTO);
	assert_int_equal(ask_for(e, "no end", 1, &n), -EPROTO);
	assert_int_equal(n, 0);
	assert_int_equal(ask_for(e, "and on\n", 1, &n), 0);
	end_of_node(e);
}

static void test_a_node_that_is_slow_to_tell(void **state)
{
	size_t n;

	(void)state;
	struct engine *e = mount_of_node(true);
	told = "late\n";
	told_times = 1;
	told_late_ms = 400;
	uint64_t from = clock_ns();
	assert_int_equal(ask_stats(e, 100, false, &n), -ETIMEDOUT);
	assert_true(clock_ns() - from < 350 * NS_PER_MS);
	assert_int_equal(ask_stats(e, 5000, true, &n), -ECANCELED);
	told_late_ms = 0;
	assert_int_equal(ask_stats(e, 5000, false, &n), 0);
	end_of_node(e);
}

static void test_who_cannot_be_asked_what_it_counts(void **state)
{
	size_t n;

	(void)state;
	struct engine *e = mount_of_node(false);
	assert_int_equal(ask_for(e, "x\n", 1, &n), -EOPNOTSUPP);
	assert_int_equal(ask_for(node, "x\n", 1, &n), -EOPNOTSUPP);
	end_of_node(e);
}

static int64_t misses(struct mount *m, const char *name)
{
	struct index_op op = { 0 };
	int64_t before = metric_get(M_MISSES);

	if (name)
		kit_lookup(m->ix, &op, INDEX_ROOT, name);
	else
		assert_int_equal(kit_list(m->ix, &op, INDEX_ROOT, 0, 256, true), 0);
	index_op_fini(&op);
	return metric_get(M_MISSES) - before;
}

static void test_a_node_sees_who_finds_nothing(void **state)
{
	struct mount a = mount_new(), b = mount_new();

	(void)state;
	assert_int_equal(misses(&a, NULL), 0); /* nothing is listed, and nothing missed */
	assert_int_equal(misses(&a, "x"), 1);
	kit_mkdir(a.ix, INDEX_ROOT, "x");
	assert_int_equal(misses(&a, "x"), 0);
	assert_int_equal(misses(&b, "x"), 0);
	assert_int_equal(misses(&b, "y"), 1);
	kit_new_draft(a.ix, INDEX_ROOT, "d");
	assert_int_equal(misses(&a, "d"), 0);
	mount_end(&a);
	mount_end(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_drafts_are_their_mounts),
		T(test_keys_of_others_are_refused),
		T(test_where_a_mount_may_write),
		T(test_a_mount_that_dies_leaves_nothing),
		T(test_one_that_drops_its_keys_leaves_no_blocks),
		T(test_one_that_comes_back_ends_the_session_before),
		T(test_nobody_takes_the_place_of_another_one),
		T(test_a_node_stops_while_one_waits),
		T(test_a_node_tells_what_it_counts),
		T(test_a_node_that_is_slow_to_tell),
		T(test_who_cannot_be_asked_what_it_counts),
		T(test_a_node_sees_who_finds_nothing),
	};

	if (getenv("TEST"))
		cmocka_set_test_filter(getenv("TEST"));
	alarm(250);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
