/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files: random operations on a few files against byte arrays, one of what
 * readers of an open file must see and one of what was published last; locally,
 * over a transport that shows no memory and completes late, over ones that fail,
 * and in a pool that is too small. The operations and the model are in
 * file_world.h. SEED=n repeats a walk, STEPS=n makes it longer.
 */
#include "tests/unit/file_world.h"
#include "tests/unit/slow.h"

static struct world *world_new(uint64_t seed, const struct engine_opts *o)
{
	struct world *w = calloc(1, sizeof(*w));
	char *why = NULL;

	assert_non_null(w);
	printf("file: SEED=%lu\n", seed);
	w->random = seed;
	if (engine_open(o, &w->e, &why))
		fail_msg("%s", why);
	for (int i = 0; i < NFILES; i++)
		snprintf(w->slot[i].name, sizeof(w->slot[i].name), "file%d", i);
	return w;
}

static void reopen_all(struct world *w)
{
	for (int i = 0; i < NFILES; i++) {
		struct slot *s = &w->slot[i];
		check_name(w, s);
		if (!s->named)
			continue;
		assert_int_equal(kit_open_name(w->e, s->name, 0, &s->h[0]), 0);
		s->writes[0] = false;
		check_file(w, s);
	}
}

static void world_free(struct world *w)
{
	struct engine_space space;

	w->faults = false;
	close_all(w);
	drops_wait(&w->e->drops);
	assert_idle();
	check_engine(w);
	reopen_all(w);
	close_all(w);
	for (int i = 0; i < NFILES; i++)
		step_unlink(w, &w->slot[i]);
	drops_wait(&w->e->drops);
	assert_idle();
	engine_space(w->e, &space);
	assert_int_equal(space.free_bytes, space.total_bytes);
	engine_close(w->e);
	free(w);
}

static unsigned steps(unsigned n)
{
	const char *s = getenv("STEPS");

	return s ? (unsigned)strtoul(s, NULL, 0) : n;
}

static uint64_t seed_of(uint64_t seed)
{
	const char *s = getenv("SEED");

	return s ? strtoull(s, NULL, 0) : seed ? seed : clock_ns();
}

/* The same seeds are walked to the end with asan; tsan looks for other things. */
static void walk(uint64_t seed, const struct engine_opts *o, unsigned n)
{
	struct world *w = world_new(seed_of(seed), o);

	if (!getenv("STEPS"))
		n /= kit_cut(1 + KIT_SLOW / 6, 1);
	for (unsigned i = 0; i < n; i++) {
		step(w);
		if (i % 64 == 63)
			check_engine(w);
	}
	world_free(w);
}

static const struct engine_opts local = {
	.in_memory = true, .pool_bytes = 128 << 20, .index_bytes = 64 << 20,
};

static void local_walk_matches_the_model(void **state)
{
	(void)state;
	walk(1, &local, steps(1500));
	walk(0, &local, steps(1500));
}

static void verified_walk_matches_the_model(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.verify = true;
	walk(2, &o, steps(1000));
}

static void late_walk_matches_the_model(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 3;
	walk(3, &o, steps(300));
}

static void failing_walk_leaves_no_wrong_byte(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.fault_seed = 5;
	o.wrap_kv = wrap_kv;
	for (int i = 0; i < 3; i++) {
		struct world *w = world_new(seed_of(i < 2 ? 5 + (uint64_t)i : 0), &o);
		w->faults = true;
		for (unsigned k = 0; k < steps(300); k++) {
			arm(w);
			step(w);
			disarm(w);
		}
		assert_true(w->failed > 10);
		world_free(w);
	}
}

static void small_pool_refuses_whole_writes(void **state)
{
	struct engine_opts o = local;

	(void)state;
	o.pool_bytes = 4 << 20;
	int64_t before = metric_get(M_POOL_FULL);
	walk(4, &o, steps(1500));
	walk(0, &o, steps(1500));
	assert_true(metric_get(M_POOL_FULL) > before + 10 || getenv("SEED"));
}

/* A new file that is given up has no name and no page; an old one is as it was. */
static void what_is_discarded_was_never_there(void **state)
{
	struct engine_opts o = local;
	struct engine_space space;
	struct engine *e;
	struct file *f = NULL, *reader = NULL;
	struct attr a;
	struct place place;
	static char bytes[1 << 20], back[16];

	(void)state;
	o.pool_bytes = 4 << 20;
	assert_int_equal(engine_open(&o, &e, NULL), 0);
	assert_int_equal(kit_create(e, "new", &f), 0);
	assert_int_equal(kit_write(f, 0, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(kit_close(f, FILE_WRITE | FILE_DISCARD), 0);
	assert_int_equal(kit_lookup(e, "new", &a, &place), INDEX_MISS);

	assert_int_equal(kit_create(e, "old", &f), 0);
	assert_int_equal(kit_write(f, 0, "as it was", 9), 9);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_open_name(e, "old", FILE_WRITE | FILE_TRUNCATE, &f), 0);
	assert_int_equal(kit_write(f, 0, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(kit_open_name(e, "old", 0, &reader), 0);
	assert_int_equal(kit_close(f, FILE_WRITE | FILE_DISCARD), 0);
	assert_int_equal(kit_read(reader, 0, back, sizeof(back)), -EIO);
	assert_int_equal(kit_close(reader, 0), 0);
	assert_int_equal(kit_open_name(e, "old", 0, &reader), 0);
	assert_int_equal(kit_read(reader, 0, back, sizeof(back)), 9);
	assert_memory_equal(back, "as it was", 9);
	assert_int_equal(kit_close(reader, 0), 0);

	/* Somebody else writes it, too: his is published. */
	assert_int_equal(kit_open_name(e, "old", FILE_WRITE, &f), 0);
	assert_int_equal(kit_open_name(e, "old", FILE_WRITE, &reader), 0);
	assert_int_equal(kit_write(f, 9, ", and more", 10), 10);
	assert_int_equal(kit_close(reader, FILE_WRITE | FILE_DISCARD), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_lookup(e, "old", &a, &place), 0);
	assert_int_equal(a.size, 19);
	engine_space(e, &space);
	assert_int_equal(space.free_bytes, space.total_bytes);
	assert_idle();
	engine_close(e);
}

static void unlink_behind(struct engine *e, const char *name, struct gone *ret)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name };

	assert_int_equal(index_wait(engine_index(e), &op, index_unlink), 0);
	*ret = op.gone;
	ret->body.bytes = BYTES_NONE;
	index_op_fini(&op);
}

/* One reads the record, the name goes, and another one who knows that opens the file,
 * which still says that it has a name. */
static void what_was_opened_before_an_unlink_is_opened_after_it(void **state)
{
	struct file *reader = NULL, *f = NULL;
	struct gone g;
	struct engine *e;

	(void)state;
	assert_int_equal(engine_open(&local, &e, NULL), 0);
	for (int kept = 0; kept < 2; kept++) {
		assert_int_equal(kit_create(e, "a", &f), 0);
		assert_int_equal(kit_write(f, 0, "it was", 6), 6);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		assert_int_equal(kit_open_name(e, "a", 0, &reader), 0);
		unlink_behind(e, "a", &g);
		if (kept)
			assert_int_equal(kit_open_gone(e, &g, FILE_WRITE, &f), 0);
		else
			assert_int_equal(kit_open(e, g.fileid, (struct place){ 0 }, FILE_WRITE, &f),
					 0);
		assert_ptr_equal(f, reader);
		assert_int_equal(kit_write(f, 0, "is", 2), 2);
		assert_int_equal(kit_publish(f, true), 0);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		assert_int_equal(kit_close(reader, 0), 0);
	}
	assert_idle();
	engine_close(e);
}

enum { REGIONS = 24, REGION_BYTES = REGION_PAGES * PAGE_BYTES };

static void assert_fits(const struct map *m)
{
	assert_int_equal(m->n, REGIONS);
	for (uint32_t i = 0; i < m->n; i++) {
		assert_int_equal(m->v[i]->n, 1);
		assert_true(m->v[i]->cap <= 4);
	}
}

/* Each region's memory is for what is in it, however many there are. */
static void regions_take_memory_for_themselves(void **state)
{
	struct file *f = NULL, *copy = NULL;
	struct engine *e;

	(void)state;
	assert_int_equal(engine_open(&local, &e, NULL), 0);
	assert_int_equal(kit_create(e, "a", &f), 0);
	assert_int_equal(kit_fallocate(f, 0, 0, REGIONS * REGION_BYTES), 0);
	assert_fits(&f->map);
	assert_int_equal(kit_create(e, "b", &copy), 0);
	assert_int_equal(kit_copy(f, 0, copy, 0, REGIONS * REGION_BYTES), REGIONS * REGION_BYTES);
	assert_fits(&copy->map);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_close(copy, FILE_WRITE), 0);
	assert_idle();
	engine_close(e);
}

static struct node_ops counting;
static int (*alloc)(struct node *n, uint32_t npages, struct slice_id *ret, uint32_t *ret_npages);
static unsigned nallocs;

static int count_alloc(struct node *n, uint32_t npages, struct slice_id *ret, uint32_t *ret_npages)
{
	nallocs++;
	return alloc(n, npages, ret, ret_npages);
}

static void count_allocs(struct node *n)
{
	counting = *n->ops;
	alloc = counting.alloc;
	counting.alloc = count_alloc;
	n->ops = &counting;
}

/* Nor for a moment, in which others would be refused. */
static void what_is_not_free_takes_nothing(void **state)
{
	const struct engine_opts small = { .in_memory = true, .pool_bytes = 4 * REGION_BYTES };
	struct file *f = NULL;
	struct engine *e;

	(void)state;
	assert_int_equal(engine_open(&small, &e, NULL), 0);
	count_allocs(e->node);
	assert_int_equal(kit_create(e, "a", &f), 0);
	assert_int_equal(kit_fallocate(f, 0, 0, 2 * REGION_BYTES), 0);
	assert_int_equal(nallocs, 2);
	assert_int_equal(kit_fallocate(f, 0, 2 * REGION_BYTES, 3 * REGION_BYTES), -ENOSPC);
	assert_int_equal(kit_fallocate(f, FALLOC_FL_ZERO_RANGE, 0, 5 * REGION_BYTES), -ENOSPC);
	assert_int_equal(nallocs, 2);
	assert_int_equal(kit_fallocate(f, 0, 0, 4 * REGION_BYTES), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_idle();
	engine_close(e);
}

/* Slices that were taken and not filled count as well. */
static void room_of_its_own_is_taken_first(void **state)
{
	const struct engine_opts small = { .in_memory = true, .pool_bytes = 2 * REGION_BYTES };
	_cleanup_(freep) uint8_t *bytes = calloc(1, REGION_BYTES / 2);
	struct file *f = NULL;
	struct engine *e;

	(void)state;
	assert_int_equal(engine_open(&small, &e, NULL), 0);
	assert_int_equal(kit_create(e, "a", &f), 0);
	for (unsigned i = 0; i < 9; i++)
		assert_int_equal(kit_write(f, i * 65536, bytes, 65536), 65536);
	assert_int_equal(kit_fallocate(f, 0, 0, 2 * REGION_BYTES), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_idle();
	engine_close(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(local_walk_matches_the_model),
		cmocka_unit_test(verified_walk_matches_the_model),
		cmocka_unit_test(late_walk_matches_the_model),
		cmocka_unit_test(failing_walk_leaves_no_wrong_byte),
		cmocka_unit_test(small_pool_refuses_whole_writes),
		cmocka_unit_test(what_is_discarded_was_never_there),
		cmocka_unit_test(what_was_opened_before_an_unlink_is_opened_after_it),
		cmocka_unit_test(regions_take_memory_for_themselves),
		cmocka_unit_test(what_is_not_free_takes_nothing),
		cmocka_unit_test(room_of_its_own_is_taken_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
