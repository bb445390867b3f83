/* SPDX-License-Identifier: Apache-2.0 */
/* fs/waits.c: a name that is waited for is answered when it is published, and only then. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "fs/waits.h"
#include "tests/unit/names_kit.h"

enum { PENDING = 1 };

/* Of two sessions, as of two mounts; the first one's names are waited for. */
static struct index *ix, *other;
static struct waits *waits;
static struct index_op op;

struct one {
	struct wait wait; /* first */
	atomic_int r;
	uint64_t ended_ns;
};

static void done(struct wait *w, int r)
{
	struct one *o = (struct one *)w;

	o->ended_ns = clock_ns();
	atomic_store(&o->r, r);
}

static void begin(struct one *o, uint64_t dir, const char *name, unsigned ms)
{
	*o = (struct one){ .wait = { .parent = dir, .done = done,
				     .deadline_ns = clock_ns() + ms * NS_PER_MS } };
	strcpy(o->wait.name, name);
	atomic_store(&o->r, PENDING);
	assert_int_equal(waits_add(waits, &o->wait), 0);
}

static int ended(struct one *o)
{
	for (unsigned i = 0; atomic_load(&o->r) == PENDING; i++) {
		assert_true(i < 30000);
		usleep(1000);
	}
	return atomic_load(&o->r);
}

static bool goes_on(struct one *o)
{
	usleep(60000);
	return atomic_load(&o->r) == PENDING;
}

static struct index *session(struct kv *kv, uint64_t number)
{
	struct index *one;
	struct kv *lent;

	assert_int_equal(kv_lend(kv, &lent), 0);
	assert_int_equal(index_open(lent, number, true, &one), 0);
	return one;
}

/* Of an index that is far away. */
static const struct kv_ops *fast;
static struct kv_ops ops;
static atomic_bool is_slow;

static void slow_submit(struct kv *kv, struct kv_req *req)
{
	if (atomic_load(&is_slow))
		usleep(15000);
	fast->submit(kv, req);
}

static int setup(void **state)
{
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	fast = kv->ops;
	ops = *fast;
	ops.submit = slow_submit;
	kv->ops = &ops;
	ix = session(kv, 1);
	other = session(kv, 2);
	*state = kv;
	waits = waits_new(ix);
	assert_non_null(waits);
	return 0;
}

static int teardown(void **state)
{
	waits_stop(waits);
	waits_free(waits);
	index_op_fini(&op);
	index_close(other);
	kit_close(ix, &op); /* P10 */
	kv_close(*state);
	return 0;
}

static void test_there_already_and_published_by_anybody(void **state)
{
	struct one a, b, c;

	(void)state;
	kit_file(ix, INDEX_ROOT, "a", "x");
	begin(&a, INDEX_ROOT, "a", 20000);
	assert_int_equal(ended(&a), 0);
	begin(&b, INDEX_ROOT, "b", 20000);
	begin(&c, INDEX_ROOT, "c", 20000);
	assert_true(goes_on(&b));
	kit_file(other, INDEX_ROOT, "b", "x");
	assert_int_equal(ended(&b), 0);
	assert_true(goes_on(&c));
	kit_file(ix, INDEX_ROOT, "c", "x");
	assert_int_equal(ended(&c), 0);
}

/* Nor is one that hides what was published before: who opens the name here gets that. */
static void test_a_draft_is_not_published(void **state)
{
	struct one a, b;
	struct attr mine = kit_new_draft(ix, INDEX_ROOT, "draft");
	struct attr theirs = kit_new_draft(other, INDEX_ROOT, "theirs");

	(void)state;
	kit_file(other, INDEX_ROOT, "hidden", "old");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "draft", INDEX_ROOT, "hidden", 0), 0);
	begin(&a, INDEX_ROOT, "hidden", 20000);
	begin(&b, INDEX_ROOT, "theirs", 20000);
	assert_true(goes_on(&a));
	assert_true(goes_on(&b));
	assert_int_equal(kit_publish(ix, &op, mine, "whole"), 0);
	assert_int_equal(ended(&a), 0);
	assert_true(goes_on(&b));
	assert_int_equal(kit_publish(other, &op, theirs, "whole"), 0);
	assert_int_equal(ended(&b), 0);
	assert_int_equal(kit_end(ix, mine.fileid), 0);
	assert_int_equal(kit_end(other, theirs.fileid), 0);
}

static void test_rename_link_and_folder_publish(void **state)
{
	struct one a, b, c;

	(void)state;
	kit_file(other, INDEX_ROOT, "tmp", "x");
	begin(&a, INDEX_ROOT, "moved", 20000);
	begin(&b, INDEX_ROOT, "linked", 20000);
	begin(&c, INDEX_ROOT, "folder", 20000);
	assert_true(goes_on(&a));
	assert_int_equal(kit_rename(other, &op, INDEX_ROOT, "tmp", INDEX_ROOT, "moved", 0), 0);
	assert_int_equal(ended(&a), 0);
	struct entry e = kit_entry(other, INDEX_ROOT, "moved");
	assert_int_equal(kit_link(other, &op, e.attr.fileid, e.place, INDEX_ROOT, "linked"), 0);
	assert_int_equal(ended(&b), 0);
	assert_true(goes_on(&c));
	kit_mkdir(other, INDEX_ROOT, "folder");
	assert_int_equal(ended(&c), 0);
}

static void test_time_and_cancelling_end_it(void **state)
{
	struct one a, b, now;
	uint64_t from = clock_ns();

	(void)state;
	begin(&a, INDEX_ROOT, "never", 100);
	begin(&b, INDEX_ROOT, "never", 60000);
	begin(&now, INDEX_ROOT, "never", 0);
	assert_int_equal(ended(&now), -ETIMEDOUT);
	assert_int_equal(ended(&a), -ETIMEDOUT);
	assert_true(a.ended_ns - from >= 100 * NS_PER_MS);
	atomic_store(&b.wait.cancelled, true);
	waits_kick(waits);
	assert_int_equal(ended(&b), -ECANCELED);
	/* Cancelled before it was added. */
	b = (struct one){ .wait = { .parent = INDEX_ROOT, .name = "never", .done = done,
				    .deadline_ns = clock_ns() + 60 * NS_PER_S } };
	atomic_store(&b.wait.cancelled, true);
	atomic_store(&b.r, PENDING);
	assert_int_equal(waits_add(waits, &b.wait), 0);
	assert_int_equal(ended(&b), -ECANCELED);
}

static void test_a_folder_that_goes(void **state)
{
	struct one a;

	(void)state;
	uint64_t dir = kit_mkdir(other, INDEX_ROOT, "gone");
	assert_int_equal(kit_rmdir(other, &op, INDEX_ROOT, "gone"), 0);
	begin(&a, dir, "f", 20000);
	assert_int_equal(ended(&a), -ESTALE);
}

/* What a wire does not ring for. */
static void test_a_ring_for_all(void **state)
{
	struct one a;
	int64_t before;

	(void)state;
	begin(&a, INDEX_ROOT, "never", 60000);
	assert_true(goes_on(&a));
	before = metric_get(M_INDEX_READS);
	waits_ring(waits);
	assert_true(goes_on(&a));
	assert_true(metric_get(M_INDEX_READS) > before);
	/* However often it rings, it is looked at now and then. */
	before = metric_get(M_INDEX_READS);
	for (uint64_t until = clock_ns() + 100 * NS_PER_MS; clock_ns() < until;)
		waits_ring(waits);
	assert_true(metric_get(M_INDEX_READS) - before < 100);
	atomic_store(&a.wait.cancelled, true);
	waits_kick(waits);
	assert_int_equal(ended(&a), -ECANCELED);
}

/* However often it rings, and however long a look takes: each has its turn. */
static void test_each_in_turn(void **state)
{
	struct one v[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		begin(&v[i], INDEX_ROOT, "never", i < 3 ? 60000 : 300);
	assert_true(goes_on(&v[0]));
	atomic_store(&is_slow, true);
	for (uint64_t until = clock_ns() + 3 * NS_PER_S;
	     atomic_load(&v[3].r) == PENDING && clock_ns() < until; usleep(1000))
		waits_ring(waits);
	assert_int_equal(atomic_load(&v[3].r), -ETIMEDOUT);
	atomic_store(&is_slow, false);
	for (unsigned i = 0; i < 3; i++) {
		atomic_store(&v[i].wait.cancelled, true);
		waits_kick(waits);
		assert_int_equal(ended(&v[i]), -ECANCELED);
	}
}

/* Not behind those that are to be looked at. */
static void test_who_gives_up_is_not_held_up(void **state)
{
	enum { MANY = 100 };
	static struct one all[MANY];
	struct one last;

	(void)state;
	atomic_store(&is_slow, true);
	for (unsigned i = 0; i < MANY; i++)
		begin(&all[i], INDEX_ROOT, "never", 60000);
	begin(&last, INDEX_ROOT, "never", 60000);
	uint64_t from = clock_ns();
	atomic_store(&last.wait.cancelled, true);
	waits_kick(waits);
	assert_int_equal(ended(&last), -ECANCELED);
	assert_true(last.ended_ns - from < MANY * 15 * NS_PER_MS / 2);
	for (unsigned i = 0; i < MANY; i++)
		atomic_store(&all[i].wait.cancelled, true);
	waits_kick(waits);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(ended(&all[i]), -ECANCELED);
	atomic_store(&is_slow, false);
}

/* Who is one too many learns whether it is there, and does not wait. */
static void test_many(void **state)
{
	enum { MANY = 260 };
	static struct one all[MANY];
	unsigned refused = 0;

	(void)state;
	for (unsigned i = 0; i < MANY; i++)
		begin(&all[i], INDEX_ROOT, "many", 60000);
	for (unsigned i = 256; i < MANY; i++)
		refused += ended(&all[i]) == -ETIMEDOUT;
	assert_int_equal(refused, MANY - 256);
	kit_file(other, INDEX_ROOT, "many", "x");
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(ended(&all[i]), 0);
}

/* The end of a mount ends them. */
static void test_the_end(void **state)
{
	struct one a;

	(void)state;
	begin(&a, INDEX_ROOT, "never", 60000);
	waits_stop(waits);
	assert_int_equal(ended(&a), -ENOTCONN);
	assert_int_equal(waits_add(waits, &a.wait), -ENOTCONN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_already_and_published_by_anybody),
		cmocka_unit_test(test_a_draft_is_not_published),
		cmocka_unit_test(test_rename_link_and_folder_publish),
		cmocka_unit_test(test_time_and_cancelling_end_it),
		cmocka_unit_test(test_a_folder_that_goes),
		cmocka_unit_test(test_a_ring_for_all),
		cmocka_unit_test(test_each_in_turn),
		cmocka_unit_test(test_who_gives_up_is_not_held_up),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_the_end),
	};

	return cmocka_run_group_tests_name("waits", tests, setup, teardown);
}
