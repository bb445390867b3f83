/* SPDX-License-Identifier: Apache-2.0 */
/* The index as a whole: opening, numbers, blocks, the scan, checks while others
 * write. */
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "kv_shaky.h"
#include "tests/unit/bodies_kit.h"
#include "tests/unit/names_kit.h"

static uint64_t seed;

/* Opening ----------------------------------------------------------------------- */

/* An index over `inner`, which stays when it is closed. */
static int open_kept(struct kv *inner, bool format, struct index **ret)
{
	struct shaky *s = shaky_over(inner, (struct shaky_opts){ .seed = seed, .keep = true });

	return index_open(&s->kv, INDEX_SESSION_OWN, format, ret);
}

static void test_open_makes_one_and_finds_it_again(void **state)
{
	struct index *ix;
	struct kv *kv;

	(void)state;
	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(open_kept(kv, false, &ix), -ENOENT);
	assert_int_equal(open_kept(kv, true, &ix), 0);
	struct index_super made = *index_super(ix);
	assert_int_equal(made.pool_id, 0);
	assert_int_equal(index_set_pool(ix, 77), 0);
	assert_int_equal(index_super(ix)->pool_id, 77);
	index_close(ix);
	for (unsigned format = 0; format < 2; format++) {
		assert_int_equal(open_kept(kv, format, &ix), 0);
		assert_int_equal(index_super(ix)->fs_id, made.fs_id);
		assert_int_equal(index_super(ix)->pool_id, 77);
		assert_memory_equal(index_super(ix)->hash_key, made.hash_key, 16);
		index_close(ix);
	}
	kv_close(kv);
}

static void test_open_refuses_what_is_damaged_or_newer(void **state)
{
	static const struct { const char *key, *value; int r; } cases[] = {
		{ "super", "\1rubbish", -EUCLEAN },
		{ "super", "\2rubbish", -EPROTONOSUPPORT },
		{ "super", "", -EUCLEAN },
		{ "other", "x", -EUCLEAN }, /* not empty, and not ours */
	};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct index *ix;
		struct kv *kv;
		assert_int_equal(kv_mem_open(&kv), 0);
		kit_put(kv, key_meta(cases[i].key), bytes_str(cases[i].value));
		for (unsigned format = 0; format < 2; format++)
			assert_int_equal(open_kept(kv, format, &ix), cases[i].r);
		kv_close(kv);
	}
}

/* Numbers ------------------------------------------------------------------------ */

enum { NUMBERS = 100000, TAKERS = 3 };

struct taker {
	pthread_t thread;
	struct index *ix;
	uint64_t *ids;
};

/* Half a lot lasts longer than an answer takes, but on a busy machine the thread
 * that answers may not run for so long. */
static uint64_t take_number(struct index *ix)
{
	uint64_t id = index_new_id(ix);

	for (unsigned ms = 0; !id && ms < 10000; ms++) {
		usleep(1000);
		id = index_new_id(ix);
	}
	return id;
}

static void *take_numbers(void *arg)
{
	struct taker *t = arg;

	for (unsigned i = 0; i < NUMBERS; i++)
		t->ids[i] = take_number(t->ix);
	return NULL;
}

static int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_numbers_are_never_given_twice(void **state)
{
	uint64_t *ids = calloc(2 * TAKERS * NUMBERS, sizeof(*ids));
	struct taker takers[TAKERS];
	struct kv *kv;
	size_t n = 0;

	(void)state;
	assert_int_equal(kv_mem_open(&kv), 0);
	for (unsigned session = 0; session < 2; session++) {
		struct index *ix;
		assert_int_equal(open_kept(kv, true, &ix), 0);
		for (unsigned i = 0; i < TAKERS; i++) {
			takers[i] = (struct taker){ .ix = ix, .ids = ids + n };
			n += NUMBERS;
			pthread_create(&takers[i].thread, NULL, take_numbers, &takers[i]);
		}
		for (unsigned i = 0; i < TAKERS; i++)
			pthread_join(takers[i].thread, NULL);
		index_close(ix);
	}
	qsort(ids, n, sizeof(*ids), u64_cmp);
	assert_true(ids[0] > INDEX_ROOT);
	for (size_t i = 1; i < n; i++)
		assert_true(ids[i] > ids[i - 1]);
	free(ids);
	kv_close(kv);
}

static struct index *open_shaky(struct shaky_opts o, struct shaky **ret)
{
	struct index *ix;
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	*ret = shaky_over(kv, (struct shaky_opts){ .seed = seed });
	assert_int_equal(index_open(&(*ret)->kv, INDEX_SESSION_OWN, true, &ix), 0);
	(*ret)->o = o;
	return ix;
}

/* Over an engine that answers late or not at all there is still always one. */
static void test_numbers_come_ahead_of_need(void **state)
{
	struct shaky *s;
	struct index *ix = open_shaky((struct shaky_opts){ .later = 100, .unknown_done = 30,
							   .unknown_lost = 30, .conflict = 30 }, &s);
	uint64_t last = 0;

	(void)state;
	for (unsigned i = 0; i < 300000; i++) {
		uint64_t id = take_number(ix);

		assert_true(id > last);
		last = id;
		if (i % 1024 == 0) /* half a lot takes longer than this to use up */
			usleep(100);
	}
	index_close(ix);
}

static void test_no_number_when_the_index_takes_no_writes(void **state)
{
	struct shaky *s;
	struct index *ix = open_shaky((struct shaky_opts){ .always = -ENOSPC }, &s);
	unsigned n = 0;

	(void)state;
	while (index_new_id(ix))
		n++;
	assert_int_equal(n, 65536);
	s->o.always = 0; /* there is room again */
	assert_true(index_new_id(ix));
	index_close(ix);
}

/* Blocks --------------------------------------------------------------------------- */

struct blocks {
	struct block_ref refs[300];
	struct bytes values[300];
	uint8_t bytes[300][40];
};

static void blocks_make(struct blocks *b, struct dice *d)
{
	for (unsigned i = 0; i < 300; i++) {
		b->refs[i] = (struct block_ref){ i, 1000 + i };
		for (unsigned k = 0; k < 40; k++)
			b->bytes[i][k] = (uint8_t)roll(d, 256);
		b->values[i] = BYTES_OF(b->bytes[i], 1 + roll(d, 40));
	}
}

static int blocks_call(struct index *ix, struct index_op *op, const struct blocks *b, uint32_t n,
		       index_call *call)
{
	return kit(ix, op, call, (struct index_op){ .fileid = 5, .blocks = b->refs,
						    .values = b->values, .nblocks = n });
}

static void assert_blocks(const struct index_op *op, const struct blocks *b, uint32_t n)
{
	assert_int_equal(op->rows->nrows, n);
	for (uint32_t i = 0; i < n; i++)
		assert_true(bytes_eq(op->rows->rows[i].value, b->values[i]));
}

/* Who makes something in a full index is told that it is full, and no number is missing. */
static void test_numbers_of_a_full_index(void **state)
{
	struct index_op op = { 0 };
	struct shaky *s;
	struct index *ix = open_shaky((struct shaky_opts){ .full = true }, &s);

	(void)state;
	for (unsigned i = 0; i < 200000; i++)
		assert_true(index_new_id(ix) > INDEX_ROOT);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "f", S_IFIFO | 0600), -ENOSPC);
	s->o.full = false;
	kit_close(ix, &op);
}

static void test_blocks_in_any_number(void **state)
{
	static const struct shaky_opts ways[] = {
		{ .seed = 0 },
		{ .later = 60 },
		{ .later = 30, .unknown_done = 20, .unknown_lost = 20 },
		{ .caps = { 3, 3, 3, 4096, true } },
	};
	struct dice d = { seed };
	struct blocks b;

	(void)state;
	blocks_make(&b, &d);
	for (unsigned i = 0; i < 4; i++) {
		struct index_op op = { 0 };
		struct shaky *s;
		struct index *ix = open_shaky(ways[i], &s);
		for (unsigned k = 0; k < 6; k++) {
			uint32_t n = k ? (uint32_t)roll(&d, 301) : 0;
			assert_int_equal(blocks_call(ix, &op, &b, n, index_put_blocks), 0);
			assert_int_equal(blocks_call(ix, &op, &b, n, index_get_blocks), 0);
			assert_blocks(&op, &b, n);
			if (n < 300)
				assert_int_equal(blocks_call(ix, &op, &b, n + 1, index_get_blocks),
						 -EUCLEAN);
			assert_int_equal(blocks_call(ix, &op, &b, n, index_del_blocks), 0);
		}
		index_op_fini(&op);
		s->o = (struct shaky_opts){ .seed = 0 };
		assert_int_equal(kit_keys(ix, "E"), 0);
		index_close(ix);
	}
}

/* Whichever request fails: nothing is left behind, and the reason is told. */
static void test_a_put_that_fails_leaves_nothing(void **state)
{
	static const int outcomes[] = { -ENOSPC, -ETIMEDOUT, -ECANCELED, -EIO };
	struct dice d = { seed };
	struct blocks b;

	(void)state;
	blocks_make(&b, &d);
	for (int nth = 1; nth <= 10; nth++) {
		int outcome = outcomes[nth % 4];
		struct index_op op = { 0 };
		struct shaky *s;
		struct index *ix = open_shaky((struct shaky_opts){
			.caps = { 30, 30, 30, 1 << 20, true },
			.nth_write = nth, .nth_outcome = outcome,
			.later = nth % 2 ? 50 : 0, .unknown_done = 20 }, &s);
		int r = blocks_call(ix, &op, &b, 300, index_put_blocks);
		index_op_fini(&op);
		s->o = (struct shaky_opts){ .seed = 0 };
		assert_int_equal(r, outcome);
		assert_int_equal(kit_keys(ix, "E"), 0);
		index_close(ix);
	}
}

static void test_blocks_that_are_wrong(void **state)
{
	static uint8_t large[KV_VALUE_MAX];
	struct bytes values[2] = { bytes_str("one"), BYTES_OF(large, sizeof(large)) };
	struct block_ref refs[2] = { { 0, 8 }, { 1, 9 } };
	struct index_op op = { .fileid = 5, .blocks = refs, .values = values, .nblocks = 2 };
	struct index *ix = kit_open();

	(void)state;
	assert_int_equal(index_wait(ix, &op, index_put_blocks), -E2BIG);
	index_op_fini(&op);
	assert_int_equal(kit_keys(ix, "E"), 0);
	op.nblocks = 1;
	assert_int_equal(index_wait(ix, &op, index_put_blocks), 0);
	index_op_fini(&op);
	kit_put(index_kv(ix), key_block(5, 8), bytes_str("\1what is this"));
	assert_int_equal(index_wait(ix, &op, index_get_blocks), -EUCLEAN);
	index_op_fini(&op);
	kit_put(index_kv(ix), key_block(5, 8), bytes_str("\2what is this"));
	assert_int_equal(index_wait(ix, &op, index_get_blocks), -EPROTONOSUPPORT);
	index_op_fini(&op);
	index_close(ix);
}

/* The scan --------------------------------------------------------------------------- */

struct seen {
	uint64_t extents, pages, objects, orphans, last;
	int fail;
};

static int see_extents(void *arg, const struct attr *a, const struct extents *e)
{
	struct seen *s = arg;

	for (uint32_t i = 0; i < e->n; i++) {
		s->extents++;
		s->pages += e->v[i].npages;
	}
	s->objects += s->last != a->fileid;
	s->last = a->fileid;
	return s->fail;
}

static int see_orphan(void *arg, uint64_t fileid, uint64_t id)
{
	struct seen *s = arg;

	assert_true(fileid && id);
	s->orphans++;
	return 0;
}

/* The extents of e in [from, to), as a value of its own. */
static void encode_part(const struct extents *e, uint32_t from, uint32_t to, struct writer *w)
{
	struct extents part = { e->v + from, to - from, to - from };

	assert_int_equal(body_encode_extents(&part, w), 0);
}

static uint64_t put_block(struct index *ix, uint64_t fileid, uint64_t region, struct writer *w,
			  struct block_ref *ret)
{
	struct bytes value = writer_bytes(w);
	struct index_op op = { .fileid = fileid, .blocks = ret, .values = &value, .nblocks = 1 };

	*ret = (struct block_ref){ region, index_new_id(ix) };
	assert_int_equal(index_wait(ix, &op, index_put_blocks), 0);
	index_op_fini(&op);
	writer_fini(w);
	return ret->id;
}

/* Regions to blocks, blocks to references. */
static uint32_t put_regions(struct index *ix, uint64_t fileid, const struct extents *e,
			    struct block_ref *refs)
{
	uint32_t n = 0;

	for (uint32_t i = 0, k; i < e->n; i = k) {
		uint64_t region = e->v[i].page / REGION_PAGES;
		struct writer w = { 0 };
		for (k = i; k < e->n && e->v[k].page / REGION_PAGES == region; k++)
			;
		encode_part(e, i, k, &w);
		put_block(ix, fileid, region, &w, &refs[n++]);
	}
	return n;
}

static struct body make_body(struct index *ix, uint64_t fileid, const struct extents *e,
			     enum body_kind kind, struct writer *w)
{
	struct block_ref refs[100], nodes[2];
	uint32_t n;

	if (kind == BODY_EXTENTS) {
		encode_part(e, 0, e->n, w);
		return (struct body){ kind, writer_bytes(w) };
	}
	n = put_regions(ix, fileid, e, refs);
	if (kind == BODY_TREE) {
		struct writer half[2] = { 0 };
		uint32_t m = n / 2;
		assert_int_equal(body_encode_blocks(refs, m, &half[0]), 0);
		assert_int_equal(body_encode_blocks(refs + m, n - m, &half[1]), 0);
		put_block(ix, fileid, refs[0].region, &half[0], &nodes[0]);
		put_block(ix, fileid, refs[m].region, &half[1], &nodes[1]);
		assert_int_equal(body_encode_blocks(nodes, 2, w), 0);
	} else {
		assert_int_equal(body_encode_blocks(refs, n, w), 0);
	}
	return (struct body){ kind, writer_bytes(w) };
}

/* A file with random extents, under some kind of body; counts them. */
static void make_file(struct index *ix, struct dice *d, unsigned i, struct seen *count)
{
	static const enum body_kind kinds[] = { BODY_EXTENTS, BODY_BLOCKS, BODY_TREE };
	struct extents e = random_extents(d, 20 + (uint32_t)roll(d, 60));
	struct index_op op = { 0 };
	struct writer w = { 0 };
	char name[32];

	snprintf(name, sizeof(name), "file-%u", i);
	struct attr a = kit_new_draft(ix, INDEX_ROOT, name);
	a.size = 1;
	for (uint32_t k = 0; k < e.n; k++)
		a.pages += e.v[k].npages;
	struct body body = make_body(ix, a.fileid, &e, kinds[roll(d, 3)], &w);
	assert_int_equal(kit(ix, &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a, .body = body }), 0);
	if (roll(d, 3) == 0) { /* with two names: met once all the same */
		name[0] = 'l';
		assert_int_equal(kit_link(ix, &op, a.fileid, op.entry.place, INDEX_ROOT, name), 0);
	}
	index_op_fini(&op);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	count->extents += e.n;
	count->pages += a.pages;
	count->objects++;
	extents_fini(&e);
	writer_fini(&w);
}

static void test_scan_meets_everything_once(void **state)
{
	struct seen should = { 0 }, is = { 0 };
	struct index_visitor v = {
		.extents = see_extents, .orphan_block = see_orphan, .arg = &is,
	};
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct dice d = { seed };
	struct writer report = { 0 };

	(void)state;
	for (unsigned i = 0; i < 400; i++)
		make_file(ix, &d, i, &should);
	assert_int_equal(index_check(ix, INDEX_CHECK_LIVE, &report, NULL), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct writer w = { 0 };
		struct block_ref ref;
		write_u8(&w, 0);
		put_block(ix, 3 + i * 50, 0, &w, &ref);
	}
	assert_int_equal(index_scan(ix, &v), 0);
	assert_int_equal(is.extents, should.extents);
	assert_int_equal(is.pages, should.pages);
	assert_int_equal(is.objects, should.objects);
	assert_int_equal(is.orphans, 5);
	is.fail = -EBUSY;
	assert_int_equal(index_scan(ix, &v), -EBUSY);
	assert_int_equal(index_check(ix, INDEX_CHECK_REPAIR, &report, NULL), 5);
	writer_fini(&report);
	kit_close(ix, &op);
}

/* The check beside others who write ---------------------------------------------------- */

struct busy {
	struct index *ix;
	uint64_t seed;
	atomic_bool stop;
	uint64_t dirs[3];
};

/* Makes, moves, links and removes; outcomes are as they may be. */
static void *be_busy(void *arg)
{
	struct busy *b = arg;
	struct index_op op = { 0 };
	struct dice d = { b->seed };

	while (!atomic_load(&b->stop)) {
		uint64_t dir = b->dirs[roll(&d, 3)], dir2 = b->dirs[roll(&d, 3)];
		char name[16], name2[16];
		snprintf(name, sizeof(name), "n%u", (unsigned)roll(&d, 20));
		snprintf(name2, sizeof(name2), "n%u", (unsigned)roll(&d, 20));
		switch (roll(&d, 6)) {
		case 0:
			kit_make(b->ix, &op, dir, name, S_IFDIR | 0755);
			break;
		case 1:
			kit_make(b->ix, &op, dir, name, S_IFIFO | 0600);
			break;
		case 2:
			kit_rename(b->ix, &op, dir, name, dir2, name2, 0);
			break;
		case 3:
			kit_unlink(b->ix, &op, dir, name);
			break;
		case 4:
			kit_rmdir(b->ix, &op, dir, name);
			break;
		default:
			if (!kit_lookup(b->ix, &op, dir, name) && !S_ISDIR(op.entry.attr.mode)) {
				struct entry e = op.entry;
				kit_link(b->ix, &op, e.attr.fileid, e.place, dir2, name2);
			}
		}
	}
	index_op_fini(&op);
	return NULL;
}

static void test_check_beside_writers_finds_nothing(void **state)
{
	struct busy b = { .ix = kit_open(), .seed = seed };
	struct writer report = { 0 };
	struct index_op op = { 0 };
	pthread_t thread;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		char name[] = { 'd', (char)('0' + i), 0 };
		b.dirs[i] = kit_mkdir(b.ix, INDEX_ROOT, name);
	}
	pthread_create(&thread, NULL, be_busy, &b);
	for (unsigned i = 0; i < 300; i++) {
		int n = index_check(b.ix, INDEX_CHECK_LIVE, &report, NULL);
		if (n)
			fprintf(stderr, "%.*s", (int)report.len, (char *)report.p);
		assert_int_equal(n, 0);
	}
	atomic_store(&b.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(index_check(b.ix, INDEX_CHECK_LIVE, &report, NULL), 0);
	writer_fini(&report);
	kit_close(b.ix, &op);
}

static int test_end(void **state)
{
	(void)state;
	return metrics_busy(NULL) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open_makes_one_and_finds_it_again),
		cmocka_unit_test(test_open_refuses_what_is_damaged_or_newer),
		cmocka_unit_test(test_numbers_are_never_given_twice),
		cmocka_unit_test(test_numbers_come_ahead_of_need),
		cmocka_unit_test(test_no_number_when_the_index_takes_no_writes),
		cmocka_unit_test(test_numbers_of_a_full_index),
		cmocka_unit_test(test_blocks_in_any_number),
		cmocka_unit_test(test_a_put_that_fails_leaves_nothing),
		cmocka_unit_test(test_blocks_that_are_wrong),
		cmocka_unit_test(test_scan_meets_everything_once),
		cmocka_unit_test(test_check_beside_writers_finds_nothing),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, test_end);
}
