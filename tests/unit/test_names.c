/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of the index, case by case: dir.c, object.c, publish.c, xattr.c.
 * Renames are in test_rename.c; random walks in test_names_random.c. */
#include "tests/unit/names_kit.h"

static const struct place by_id = { .kind = PLACE_FILEID };
static const struct place a_draft = { .kind = PLACE_DRAFT };

static void test_make_lookup_stat_list(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "d"), 0);
	assert_int_equal(op.entry.attr.fileid, d);
	assert_int_equal(op.entry.attr.nlink, 2);
	assert_int_equal(op.entry.parent, INDEX_ROOT);
	assert_int_equal(kit_stat(ix, &op, INDEX_ROOT, by_id), 0);
	assert_int_equal(op.entry.attr.nlink, 3);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "e"), INDEX_MISS);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "d", S_IFDIR | 0755), -EEXIST);
	assert_int_equal(kit_make(ix, &op, 99, "d", S_IFDIR | 0755), -ENOENT);
	assert_int_equal(kit_make(ix, &op, d, "l", S_IFLNK), 0);
	assert_int_equal(kit_lookup(ix, &op, d, "l"), 0);
	assert_true(bytes_eq(op.entry.body.bytes, bytes_str("target")));
	assert_int_equal(op.entry.attr.size, 6);
	assert_int_equal(kit_make(ix, &op, op.entry.attr.fileid, "x", S_IFIFO), -ENOENT);
	uint64_t f = kit_file(ix, d, "f", "hello");
	assert_int_equal(kit_list(ix, &op, d, 0, 10, true), 0);
	assert_int_equal(op.nentries, 2);
	assert_false(op.more);
	assert_int_equal(kit_lookup(ix, &op, d, "f"), 0);
	assert_int_equal(op.entry.attr.version, 1);
	struct place place = op.entry.place;
	assert_int_equal(kit_stat(ix, &op, f, place), 0);
	assert_true(bytes_eq(op.entry.body.bytes, bytes_str("hello")));
	kit_close(ix, &op);
}

static void test_draft_and_publish(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, "f"), 0);
	struct attr a = op.entry.attr;
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, "f"), -EEXIST);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), 0);
	assert_true(op.entry.draft);
	assert_int_equal(op.entry.attr.fileid, a.fileid);
	assert_int_equal(kit_stat(ix, &op, a.fileid, a_draft), 0);
	assert_true(op.entry.draft);
	assert_int_equal(kit_publish(ix, &op, a, "one"), 0);
	a = op.entry.attr;
	assert_int_equal(a.version, 1);
	assert_int_equal(kit_publish(ix, &op, a, "two"), 0);
	assert_int_equal(op.entry.attr.version, 2);
	assert_int_equal(op.gone2.fileid, 0);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), 0);
	assert_false(op.entry.draft);
	assert_true(bytes_eq(op.entry.body.bytes, bytes_str("two")));
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(op.gone.fileid, a.fileid);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("two")));
	assert_int_equal(kit_publish(ix, &op, a, "three"), INDEX_UNLINKED);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make_lookup_stat_list),
		cmocka_unit_test(test_draft_and_publish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
