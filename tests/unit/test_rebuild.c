/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebuild (I2) and checks: whenever a process dies, the next one finds every
 * published version whole and everything else free; what cannot be is refused,
 * found by a check, and dropped by a repair, alone.
 */
#include "tests/unit/objects.h"
#include "tests/unit/refs_kit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ULL << 20)

static char dir[64];

static struct engine_opts opts(void)
{
	return (struct engine_opts){
		.dir = dir, .pool_bytes = 32 * MIB, .index_bytes = 16 * MIB
	};
}

static struct engine *open_with(const struct engine_opts *o)
{
	struct engine *e = NULL;
	char *reason = NULL;

	if (engine_open(o, &e, &reason))
		fail_msg("%s", reason);
	return e;
}

static struct engine *open_store(void)
{
	struct engine_opts o = opts();

	return open_with(&o);
}

static uint32_t used_pages(struct engine *e)
{
	return pool_npages(e->pool) - pool_nfree(e->pool);
}

static int no_orphan(void *arg, uint64_t fileid, uint64_t id)
{
	(void)arg;
	fail_msg("block %llu of object %llu is an orphan", (unsigned long long)id,
		 (unsigned long long)fileid);
	return 0;
}

/* What holds after each opening; the pages of all objects. */
static uint64_t verify_store(struct engine *e)
{
	struct index_visitor orphans = { .orphan_block = no_orphan };
	struct verify v = { .e = e };
	struct writer w = { 0 };

	verify_all(&v);
	assert_int_equal(index_scan(e->ix, &orphans), 0);
	assert_int_equal(pool_check(e->pool, &w), 0);
	assert_int_equal(metric_get(M_NSLICES_LIVE), v.extents);
	check_clean(e);
	writer_fini(&w);
	return v.pages;
}

/* Random work ------------------------------------------------------------------------- */

enum { OBJECTS = 24 };

/* Replaces an object's version, as publish does it, or drops or makes one. */
static void step(struct engine *e, struct rng *r, uint64_t *versions)
{
	static const enum body_kind kinds[] = { BODY_EXTENTS, BODY_BLOCKS, BODY_TREE };
	unsigned i = (unsigned)rnd_below(r, OBJECTS);
	uint64_t id = 100 + i, npages = 1 + rnd_below(r, rnd_below(r, 8) ? 60 : 1500);
	struct gone old;
	void *row = NULL;

	if (!rnd_below(r, 4)) {
		unlink_object(e, id);
		return;
	}
	bool had = get_gone(e, id, &old, &row);
	if (make_object(e, id, ++versions[i], npages, 1 + (uint32_t)rnd_below(r, 200),
			kinds[npages > 60 ? 1 + rnd_below(r, 2) : rnd_below(r, 3)]) && had)
		engine_drop(e, &old);
	free(row);
}

static void test_reopened(void **state)
{
	struct rng r = { rnd_seed() };
	uint64_t versions[OBJECTS] = { 0 };
	(void)state;

	for (unsigned round = 0; round < 8; round++) {
		struct engine *e = open_store();
		for (unsigned i = 0; i < 40; i++)
			step(e, &r, versions);
		uint64_t pages = verify_store(e);
		uint32_t used = used_pages(e);
		engine_close(e);

		e = open_store();
		assert_int_equal(used_pages(e), used);
		assert_int_equal(verify_store(e), pages);
		engine_close(e);
	}
}

/* So many that several threads go through them: some in blocks, some of slices that two name. */
static void test_many(void **state)
{
	enum { MANY = 4000, ALL = MANY + 40 };
	struct engine_opts o = opts();
	struct engine *e = NULL;
	char *reason = NULL;
	struct extents x;
	struct writer w = { 0 };
	(void)state;

	e = open_with(&o);
	for (uint64_t i = 0; i < ALL; i++)
		assert_true(make_object(e, 100 + i, 1, i % 101 ? 1 : 100, 3,
					i % 101 ? BODY_EXTENTS : BODY_BLOCKS));
	uint64_t pages = verify_store(e);
	uint32_t used = used_pages(e);
	engine_close(e);
	e = open_with(&o);
	assert_int_equal(used_pages(e), used);
	assert_int_equal(verify_store(e), pages);

	/* One among them is damaged: it is named. */
	assert_true(make_extents(e, 9000, 1, 5, 5, &x));
	unpin_extents(e, &x);
	kv_observe_no_more(index_kv(e->ix), NULL);
	struct attr a = object_attr(9000, 1, 5);
	x.v[0].slice = pool_npages(e->pool) - 1;
	x.v[0].slice_pages = 8;
	put_record(e, &a, make_body(e, 9000, BODY_EXTENTS, &x, &w));
	writer_fini(&w);
	extents_fini(&x);
	engine_close(e);
	assert_int_equal(engine_open(&o, &e, &reason), -EUCLEAN);
	assert_non_null(strstr(reason, "object 9000 "));
	assert_non_null(strstr(reason, "outside the pool"));
	free(reason);
}

/* Two objects of the same slices, far from each other in the index. */
static void test_shared(void **state)
{
	struct engine *e = open_store();
	struct extents x;
	(void)state;

	for (uint64_t i = 0; i < 3000; i++)
		assert_true(make_object(e, 1000 + i, 1, 1, 1, BODY_EXTENTS));
	assert_true(make_extents(e, 100, 1, 40, 16, &x));
	for (uint64_t id = 100; id < 140; id++) {
		struct attr a = object_attr(id, 1, 40);
		struct writer w = { 0 };
		put_record(e, &a, make_body(e, id, BODY_EXTENTS, &x, &w));
		writer_fini(&w);
	}
	unpin_extents(e, &x);
	uint32_t used = used_pages(e), page = x.v[0].slice;
	extents_fini(&x);
	engine_close(e);

	struct slice_view v;
	e = open_store();
	assert_int_equal(used_pages(e), used);
	check_clean(e);
	assert_true(pool_next(e->pool, page, &v));
	assert_int_equal(v.id.page, page);
	assert_int_equal(v.refs, 40);
	engine_close(e);
}

/* A process that does as much as it can until it is killed, and has slices that
 * are written, sealed and pinned then, and blocks that nothing names yet. In a program of its own:
 * when this one forks, a thread that mapped its pool may be about to end, with a lock of malloc()
 * that nobody would give back to the child. */
static void work_until_killed(uint64_t seed, int ready)
{
	uint64_t versions[OBJECTS];
	struct rng r = { seed };
	struct slice_id s;
	uint32_t got;

	for (unsigned i = 0; i < OBJECTS; i++)
		versions[i] = rnd(&r) >> 20;
	struct engine *e = open_store();
	if (pool_alloc(e->pool, 64, &s, &got) == 0)
		page_fill(pool_page(e->pool, s.page), 4711);
	if (pool_alloc(e->pool, 64, &s, &got) == 0)
		pool_seal(e->pool, s);
	for (bool told = false;; told = true) {
		step(e, &r, versions);
		if (!told && write(ready, "x", 1) != 1)
			_exit(1);
	}
}

static void test_killed(void **state)
{
	struct rng r = { rnd_seed() };
	(void)state;

	for (unsigned round = 0; round < 25; round++) {
		int ready[2], status;
		char c, seed[24], fd[12];

		assert_int_equal(pipe(ready), 0);
		snprintf(seed, sizeof(seed), "%llu", (unsigned long long)rnd(&r));
		snprintf(fd, sizeof(fd), "%d", ready[1]);
		pid_t child = fork();
		if (!child) {
			execl("/proc/self/exe", "test_rebuild", dir, seed, fd, NULL);
			_exit(1);
		}
		close(ready[1]);
		assert_int_equal(read(ready[0], &c, 1), 1);
		close(ready[0]);
		usleep((useconds_t)rnd_below(&r, 30000));
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		struct engine *e = open_store();
		uint64_t pages = verify_store(e);
		engine_close(e);
		e = open_store();
		assert_int_equal(verify_store(e), pages);
		engine_close(e);
	}
}

/* Dies at a named point of unlinking or rebuilding. In a program of its own: where
 * to die is read from the environment once. */
static void work_until_crash(void)
{
	uint64_t versions[OBJECTS] = { 0 };
	struct rng r = { 1 };
	struct engine *e = open_store();

	for (unsigned k = 0; k < 200; k++)
		step(e, &r, versions);
}

static void test_crash_points(void **state)
{
#ifdef SLICEFS_CRASH_POINTS
	static const char *const points[] = {
		"unlink.dropped", "rebuild.scanned", "rebuild.done",
		"index.before-commit:30", "index.after-commit:30"
	};
	(void)state;

	for (unsigned i = 0; i < sizeof(points) / sizeof(*points); i++) {
		int status;
		pid_t child = fork();
		if (!child) {
			setenv("SLICEFS_CRASH", points[i], 1);
			execl("/proc/self/exe", "test_rebuild", dir, NULL);
			_exit(0);
		}
		waitpid(child, &status, 0);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		struct engine *e = open_store();
		verify_store(e);
		engine_close(e);
	}
#else
	(void)state;
	skip();
#endif
}

/* The orphans of a publish that did not come to its end. */
static void test_orphans(void **state)
{
	struct engine *e = open_store();
	struct extents x;
	struct writer w = { 0 };
	(void)state;

	assert_true(make_object(e, 100, 1, 3000, 100, BODY_TREE));
	uint32_t used = used_pages(e);
	for (uint64_t id = 200; id < 203; id++) {
		assert_true(make_extents(e, id, 1, 1500, 20, &x));
		make_body(e, id, BODY_TREE, &x, &w);
		unpin_extents(e, &x);
		extents_fini(&x);
		writer_fini(&w);
	}
	assert_int_equal(used_pages(e), used + 3 * 1500); /* they count while they are there */
	engine_close(e);
	e = open_store();
	assert_int_equal(used_pages(e), used);
	assert_int_equal(verify_store(e), 3000);
	engine_close(e);
}

/* What cannot be -------------------------------------------------------------------------- */

static unsigned lines(const struct writer *w)
{
	unsigned n = 0;

	for (size_t i = 0; i < w->len; i++)
		n += w->p[i] == '\n';
	return n;
}

static bool says(struct writer *w, const char *word)
{
	write_u8(w, 0);
	w->len--;
	return strstr((char *)w->p, word);
}

static bool has_object(struct engine *e, uint64_t id)
{
	struct gone g;
	void *row = NULL;
	bool has = get_gone(e, id, &g, &row);

	free(row);
	return has;
}

/*
 * The store is damaged in object `bad`: a mount refuses it (if refused), fsck
 * tells, repair drops that object and no other, and then all is well.
 */
static void damaged(uint64_t bad, bool refused, const char *word)
{
	struct engine_opts o = opts();
	struct engine *e = NULL;
	struct writer w = { 0 };
	char *reason = NULL, name[40];
	unsigned repaired;

	snprintf(name, sizeof(name), "object %llu", (unsigned long long)bad);
	if (refused) {
		assert_int_equal(engine_open(&o, &e, &reason), -EUCLEAN);
		if (!strstr(reason, name) || !strstr(reason, "fsck --repair") ||
		    !strstr(reason, dir))
			fail_msg("%s", reason);
		free(reason);
	}
	o.read_only = true;
	e = open_with(&o);
	assert_true(engine_check(e, false, &w, NULL) > 0);
	if (!says(&w, name) || !says(&w, word))
		fail_msg("%.*s", (int)w.len, (const char *)w.p);
	engine_close(e);
	writer_fini(&w);

	o = opts();
	o.repair = true;
	e = open_with(&o);
	assert_true(engine_check(e, true, &w, &repaired) > 0);
	assert_int_equal(repaired, 1);
	if (!says(&w, "dropped object"))
		fail_msg("%.*s", (int)w.len, (const char *)w.p);
	engine_close(e);
	writer_fini(&w);

	o.read_only = true;
	o.repair = false;
	e = open_with(&o);
	assert_int_equal(engine_check(e, false, &w, NULL), 0);
	assert_int_equal(lines(&w), 0);
	engine_close(e);
	writer_fini(&w);

	e = open_store();
	assert_false(has_object(e, bad));
	assert_int_equal(verify_store(e), 2 * 40);
	engine_close(e);
}

/* Objects 100 and 102 are sound; 101 is made of x. */
static struct engine *begin_damage(struct extents *ret)
{
	struct engine *e = open_store();

	assert_true(make_object(e, 100, 1, 40, 16, BODY_EXTENTS));
	assert_true(make_object(e, 102, 1, 40, 16, BODY_EXTENTS));
	assert_true(make_extents(e, 101, 1, 40, 16, ret));
	unpin_extents(e, ret);
	kv_observe_no_more(index_kv(e->ix), NULL); /* who would refuse what is to come */
	return e;
}

static void end_damage(struct engine *e, struct extents *x)
{
	struct attr a = object_attr(101, 1, 40);
	struct writer w = { 0 };

	put_record(e, &a, make_body(e, 101, BODY_EXTENTS, x, &w));
	writer_fini(&w);
	extents_fini(x);
	engine_close(e);
}

static void test_other_pool(void **state)
{
	struct extents x;
	struct engine *e = begin_damage(&x);
	(void)state;

	x.v[1].pool_id ^= 1;
	end_damage(e, &x);
	damaged(101, true, "not there");
}

static void test_outside(void **state)
{
	struct extents x;
	struct engine *e = begin_damage(&x);
	(void)state;

	x.v[2].slice = pool_npages(e->pool);
	end_damage(e, &x);
	damaged(101, true, "not there");
}

static void test_across(void **state)
{
	struct extents x;
	struct engine *e = begin_damage(&x);
	struct slice_view v;
	(void)state;

	/* The same page as an object's that comes first, in another generation. */
	assert_true(pool_next(e->pool, 0, &v));
	for (unsigned i = 0; i < x.n; i++) {
		x.v[i].slice = v.id.page;
		x.v[i].gen = v.id.gen + 1;
	}
	end_damage(e, &x);

	/* Which of them was there first is chance; the checksums know. */
	struct engine_opts o = opts();
	struct writer w = { 0 };
	char *reason = NULL;
	assert_int_equal(engine_open(&o, &e, &reason), -EUCLEAN);
	assert_non_null(strstr(reason, "fsck --repair"));
	free(reason);
	o.repair = true;
	unsigned repaired;
	e = open_with(&o);
	assert_true(engine_check(e, true, &w, &repaired) > 0);
	assert_true(repaired >= 1);
	assert_false(has_object(e, 101));
	engine_close(e);
	writer_fini(&w);
	e = open_store();
	verify_store(e);
	engine_close(e);
}

static void test_wrong_bytes(void **state)
{
	struct extents x;
	struct engine *e = begin_damage(&x);
	char path[128], bad = 'X';
	(void)state;

	off_t at = (off_t)(x.v[1].slice + 5) * PAGE_BYTES + 77;
	end_damage(e, &x);
	snprintf(path, sizeof(path), "%s/current/pool.0", dir);
	int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, &bad, 1, at), 1);
	close(fd);

	/* A mount goes on: it answers EIO for that file alone (P9). */
	e = open_store();
	check_clean(e);
	engine_close(e);
	damaged(101, false, "checksum");
}

/* A damaged body: found by the index's own check, and never taken for the end of
 * all that comes behind it. */
static void test_wrong_body(void **state)
{
	struct extents x;
	struct engine *e = begin_damage(&x);
	struct engine_opts o = opts();
	struct attr a = object_attr(101, 1, 40);
	struct writer w = { 0 };
	unsigned repaired;
	(void)state;

	put_record(e, &a, (struct body){ BODY_EXTENTS, bytes_str("not what it should be") });
	extents_fini(&x);
	engine_close(e);

	char *reason = NULL;
	assert_int_equal(engine_open(&o, &e, &reason), -EUCLEAN);
	assert_non_null(strstr(reason, "fsck --repair"));
	free(reason);
	o.read_only = true;
	e = open_with(&o);
	assert_true(engine_check(e, false, &w, NULL) > 0);
	engine_close(e);
	writer_fini(&w);

	o.read_only = false;
	o.repair = true;
	e = open_with(&o);
	assert_true(engine_check(e, true, &w, &repaired) > 0);
	assert_int_equal(repaired, 1);
	engine_close(e);
	writer_fini(&w);
	e = open_store();
	assert_int_equal(verify_store(e), 2 * 40);
	engine_close(e);
}

/* Checks while others work -------------------------------------------------------------- */

struct worker {
	struct engine *e;
	uint64_t seed;
	_Atomic bool *stop;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct rng r = { w->seed };

	while (!*w->stop) {
		uint64_t id = index_new_id(w->e->ix), npages = 1 + rnd_below(&r, 100);
		struct attr a = object_attr(id, 1, npages);
		struct writer body = { 0 };
		struct extents x;
		struct gone g;
		void *row;

		/* Slow where index and slices differ: a check is sure to come by. */
		if (!make_extents(w->e, id, 1, npages, 20, &x))
			continue;
		struct body b = make_body(w->e, id, rnd_below(&r, 2) ? BODY_EXTENTS : BODY_BLOCKS,
					  &x, &body);
		usleep(1000);
		put_record(w->e, &a, b);
		unpin_extents(w->e, &x);
		assert_true(get_gone(w->e, id, &g, &row));
		assert_int_equal(put_row(w->e, object_key(w->e, id), BYTES_NONE), 0);
		usleep(1000);
		engine_drop(w->e, &g);
		free(row);
		writer_fini(&body);
		extents_fini(&x);
	}
	return NULL;
}

static void test_live_check(void **state)
{
	struct engine_opts o = opts();
	struct worker w[2];
	pthread_t t[2];
	_Atomic bool stop = false;
	(void)state;

	o.in_memory = true;
	struct engine *e = open_with(&o);
	for (uint64_t id = 0; id < 50; id++)
		assert_true(make_object(e, index_new_id(e->ix), 1, 10, 5, BODY_EXTENTS));
	for (unsigned i = 0; i < 2; i++) {
		w[i] = (struct worker){ e, i, &stop };
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++)
		check_clean(e);

	/* A reference too much is seen, in all that moves. */
	struct slice_view v;
	struct writer report = { 0 };
	assert_true(pool_next(e->pool, 0, &v));
	while (v.state != SLICE_LIVE || v.npages != 5)
		assert_true(pool_next(e->pool, v.id.page + v.npages, &v));
	assert_int_equal(add_refs(e->pool, v.id, 1), 0);
	assert_true(engine_check(e, false, &report, NULL) > 0);
	assert_true(says(&report, "references"));
	writer_fini(&report);
	stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	engine_close(e);
}

static void expect_done(struct file_op *op, int64_t r)
{
	*(int64_t *)op->arg = r;
}

/* Live slices, and a draft's with the one who holds it. */
static void test_print_slices(void **state)
{
	struct engine_opts o = { .in_memory = true, .pool_bytes = 16 * MIB };
	struct engine *e = open_with(&o);
	struct index_op draft = { /* without a name */
		.parent = INDEX_ROOT, .attr = { .mode = S_IFREG | 0600 }
	};
	static const char bytes[2 * PAGE_BYTES] = "more than a record takes";
	struct file_op op = { .buf = bytes, .len = sizeof(bytes), .done = expect_done };
	struct writer w = { 0 };
	char held[40];
	int64_t r = -1;
	(void)state;

	op.arg = &r;
	assert_true(make_object(e, 100, 1, 40, 16, BODY_EXTENTS));
	engine_print_slices(e, &w);
	assert_int_equal(lines(&w), 1 + 3);
	assert_true(says(&w, " live "));
	writer_fini(&w);

	assert_int_equal(index_wait(e->ix, &draft, index_draft), 0);
	struct attr a = draft.entry.attr;
	index_op_fini(&draft);
	assert_int_equal(file_create(e, &a, &op.file), 0);
	file_write(&op);
	assert_int_equal(r, sizeof(bytes));
	engine_print_slices(e, &w);
	assert_int_equal(lines(&w), 1 + 4);
	snprintf(held, sizeof(held), " %llu*(0.", (unsigned long long)a.fileid);
	if (!says(&w, held) || !says(&w, " writing "))
		fail_msg("%s in %.*s", held, (int)w.len, (const char *)w.p);
	writer_fini(&w);
	file_close(&op, FILE_WRITE);
	engine_print_slices(e, &w);
	assert_int_equal(lines(&w), 1 + 3);
	writer_fini(&w);
	engine_close(e);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/dev/shm/slicefs-rebuild-XXXXXX");
	return !mkdtemp(dir);
}

static int teardown(void **state)
{
	(void)state;
	assert_idle();
	return engine_store_remove(dir, true);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		snprintf(dir, sizeof(dir), "%s", argv[1]);
		if (argc > 3)
			work_until_killed(strtoull(argv[2], NULL, 10), atoi(argv[3]));
		work_until_crash();
		return 0;
	}
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_reopened), T(test_many), T(test_shared), T(test_killed),
		T(test_crash_points), T(test_orphans),
		T(test_other_pool), T(test_outside), T(test_across), T(test_wrong_bytes),
		T(test_wrong_body), T(test_live_check), T(test_print_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
