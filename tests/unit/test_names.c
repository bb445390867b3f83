/* SPDX-License-Identifier: Apache-2.0 */
/* Names, case by case: index/dir.c, names.c, lose.c, and drafts. Renames are in
 * test_rename.c, objects in test_object.c, random walks in test_names_random.c. */
#include "tests/unit/names_kit.h"

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
	assert_int_equal(kit_dir_attr(ix, INDEX_ROOT).nlink, 3);
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
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "f");
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


/* Names ----------------------------------------------------------------------------- */

static void test_bad_names_and_types(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	char name[300];

	(void)state;
	memset(name, 'x', sizeof(name));
	name[256] = 0;
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, name, S_IFDIR), -ENAMETOOLONG);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, name), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, name, S_IFDIR), 0);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, name), 0);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "", S_IFDIR), -ENOENT);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "a/b", S_IFDIR), -EINVAL);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "x", 0644), -EINVAL);
	kit_file(ix, INDEX_ROOT, "f", "x");
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_draft(ix, &op, op.entry.attr.fileid, "y"), -ENOENT);
	kit_close(ix, &op);
}

static void test_unlink_and_rmdir_say_why_not(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");

	(void)state;
	kit_file(ix, INDEX_ROOT, "f", "x");
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "nothing"), INDEX_MISS);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "nothing"), INDEX_MISS);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "d"), -EISDIR);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "f"), -ENOTDIR);
	uint64_t draft = kit_new_draft(ix, d, "draft").fileid;
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "d"), -ENOTEMPTY);
	assert_int_equal(kit_rmdir(ix, &op, d, "draft"), -ENOTDIR);
	assert_int_equal(kit_unlink(ix, &op, d, "draft"), 0);
	assert_true(op.gone.draft);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "d"), 0);
	assert_int_equal(op.gone.fileid, d);
	assert_int_equal(kit_end(ix, draft), 0);
	assert_int_equal(kit_keys(ix, "FTL"), 2); /* F and T of the root */
	kit_close(ix, &op);
}

/* A record with its name that claims another one. */
static void test_a_record_of_more_links_than_it_can_have(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	kit_make(ix, &op, INDEX_ROOT, "f", S_IFIFO | 0600);
	struct record rec = { .attr = op.entry.attr };
	struct key k = key_name(INDEX_ROOT, op.entry.h, bytes_str("f"));
	rec.attr.nlink = 2;
	kit_put_record(index_kv(ix), k, &rec);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), -EUCLEAN);
	kit_del(index_kv(ix), k);
	kit_close(ix, &op);
}

/* A directory deleted leaves its parent's names alone, with all it had itself. */
static void test_nothing_is_left_of_a_directory(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");

	(void)state;
	kit_mkdir(ix, d, "sub");
	assert_int_equal(kit_rmdir(ix, &op, d, "sub"), 0);
	struct entry e = kit_entry(ix, INDEX_ROOT, "d");
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.x", bytes_str("v"), 0), 0);
	assert_int_equal(kit_keys(ix, "X"), 1);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "d"), 0);
	assert_int_equal(kit_keys(ix, "XLDt"), 0);
	assert_int_equal(kit_keys(ix, "FT"), 2);
	assert_int_equal(kit_stat(ix, &op, d, by_id), INDEX_MISS);
	assert_int_equal(kit_list(ix, &op, d, 0, 10, true), 0);
	assert_int_equal(op.nentries, 0);
	kit_close(ix, &op);
}

static void test_a_look_up_tells_whether_its_directory_is_there(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	struct index_op in_d = { .parent = d, .name = "f", .flags = LOOKUP_CHECK_DIR };
	struct index_op in_root = { .parent = INDEX_ROOT, .name = "f", .flags = LOOKUP_CHECK_DIR };
	assert_int_equal(kit(ix, &op, index_lookup, in_root), INDEX_MISS);
	assert_int_equal(kit(ix, &op, index_lookup, in_d), INDEX_MISS);
	kit_file(ix, d, "f", "there");
	assert_int_equal(kit(ix, &op, index_lookup, in_d), 0);
	assert_int_equal(kit_unlink(ix, &op, d, "f"), 0);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "d"), 0);
	assert_int_equal(kit(ix, &op, index_lookup, in_d), -ESTALE);
	assert_int_equal(kit_lookup(ix, &op, d, "f"), INDEX_MISS);
	kit_close(ix, &op);
}

static void test_links(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");

	(void)state;
	struct place old = kit_entry(ix, INDEX_ROOT, "f").place;
	assert_int_equal(kit_link(ix, &op, d, by_id, INDEX_ROOT, "e"), -EPERM);
	assert_int_equal(kit_link(ix, &op, f, old, INDEX_ROOT, "d"), -EEXIST);
	assert_int_equal(kit_link(ix, &op, f, old, 999, "g"), -ENOENT);
	assert_int_equal(kit_link(ix, &op, 999, by_id, INDEX_ROOT, "g"), INDEX_MISS);
	assert_int_equal(kit_link(ix, &op, f, old, d, "g"), 0);
	assert_int_equal(op.entry.attr.nlink, 2);
	assert_int_equal(op.entry.place.kind, PLACE_FILEID);
	/* Whoever knows the old place only is led to the new one. */
	assert_int_equal(kit_stat(ix, &op, f, old), 0);
	assert_int_equal(op.entry.attr.nlink, 2);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(op.gone.attr.nlink, 1);
	assert_int_equal(kit_unlink(ix, &op, d, "g"), 0);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("x")));
	kit_close(ix, &op);
}

/* Overwrites how many names the record says there are. */
static void set_nlink(struct index *ix, uint64_t fileid, uint32_t nlink)
{
	struct index_op op = { 0 };
	struct record r = { 0 };

	assert_int_equal(kit_stat(ix, &op, fileid, by_id), 0);
	r.attr = op.entry.attr;
	r.body = op.entry.body;
	r.attr.nlink = nlink;
	kit_put_record(index_kv(ix), key_file(fileid), &r);
	index_op_fini(&op);
}

static void test_a_file_has_so_many_names(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");

	(void)state;
	struct place place = kit_entry(ix, INDEX_ROOT, "f").place;
	assert_int_equal(kit_link(ix, &op, f, place, INDEX_ROOT, "g"), 0);
	set_nlink(ix, f, 1999);
	assert_int_equal(kit_link(ix, &op, f, by_id, INDEX_ROOT, "h"), 0);
	assert_int_equal(op.entry.attr.nlink, 2000);
	assert_int_equal(kit_link(ix, &op, f, by_id, INDEX_ROOT, "i"), -EMLINK);
	set_nlink(ix, f, 3);
	kit_close(ix, &op);
}

static void test_a_draft_has_so_many_names(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	char name[16];
	unsigned n;
	int r;

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "f");
	for (n = 1;; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		r = kit_link(ix, &op, a.fileid, a_draft, INDEX_ROOT, name);
		if (r)
			break;
	}
	assert_int_equal(r, -EMLINK);
	assert_int_equal(n, 32);
	assert_int_equal(kit_publish(ix, &op, a, "x"), 0);
	assert_int_equal(op.entry.attr.nlink, n);
	struct place place = op.entry.place;
	assert_int_equal(kit_link(ix, &op, a.fileid, place, INDEX_ROOT, name), 0);
	assert_int_equal(op.entry.attr.nlink, n + 1);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

/* O_TMPFILE: open, write, fsync, link, publish. */
static void test_a_draft_without_a_name(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, NULL);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(kit_publish(ix, &op, a, "x"), INDEX_UNLINKED);
	assert_int_equal(kit_link(ix, &op, a.fileid, a_draft, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_publish(ix, &op, a, "x"), 0);
	assert_int_equal(op.entry.attr.nlink, 1);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_int_equal(kit_draft(ix, &op, 999, NULL), -ENOENT);
	kit_close(ix, &op);
}

/* A draft name is seen, vanishes with its writer, and what it hid is back. */
static void test_a_draft_that_is_given_up(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t old = kit_file(ix, INDEX_ROOT, "f", "old");

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "g");
	assert_int_equal(kit_setxattr(ix, &op, a, a_draft, "user.x", bytes_str("v"), 0), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "g", INDEX_ROOT, "f", 0), 0);
	assert_int_equal(kit_list(ix, &op, INDEX_ROOT, 0, 10, true), 0);
	assert_int_equal(op.nentries, 1);
	assert_true(op.entries[0].draft);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(op.entry.attr.fileid, old);
	assert_true(bytes_eq(op.entry.body.bytes, bytes_str("old")));
	assert_int_equal(kit_stat(ix, &op, a.fileid, a_draft), INDEX_MISS);
	kit_close(ix, &op);
}

static void test_unlinking_a_draft_takes_what_it_hides(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t old = kit_file(ix, INDEX_ROOT, "f", "old");

	(void)state;
	uint64_t draft = kit_new_draft(ix, INDEX_ROOT, "g").fileid;
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "g", INDEX_ROOT, "f", 0), 0);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(op.gone.fileid, draft);
	assert_true(op.gone.draft);
	assert_int_equal(op.gone2.fileid, old);
	assert_true(bytes_eq(op.gone2.body.bytes, bytes_str("old")));
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), INDEX_MISS);
	assert_int_equal(kit_end(ix, draft), 0);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "f"), INDEX_MISS);
	kit_close(ix, &op);
}

/* Rows of other names in the slots of this one's hash. */
static void test_names_of_one_hash(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t base = name_hash(index_super(ix)->hash_key, bytes_str("a"));
	struct key other0 = key_name(INDEX_ROOT, base, bytes_str("x"));
	struct key other1 = key_draft_name(INDEX_ROOT, base + 1, bytes_str("y"), 9);
	struct key other3 = key_name(INDEX_ROOT, base + 3, bytes_str("z"));

	(void)state;
	kit_put_other(index_kv(ix), other0);
	kit_put_other(index_kv(ix), other1);
	kit_put_other(index_kv(ix), other3);
	uint64_t f = kit_file(ix, INDEX_ROOT, "a", "x");
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(op.entry.h, base + 2);
	kit_del(index_kv(ix), other0);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, "a"), -EEXIST);
	/* A draft that hides it has its slot, though a lower one is free. */
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "b");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "b", INDEX_ROOT, "a", 0), 0);
	assert_int_equal(op.entry.h, base + 2);
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(op.gone.fileid, f);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(op.entry.h, base + 2);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "a"), 0);
	kit_file(ix, INDEX_ROOT, "a", "x");
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(op.entry.h, base);
	kit_del(index_kv(ix), other1);
	kit_del(index_kv(ix), other3);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

static void test_no_slot_left(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t base = name_hash(index_super(ix)->hash_key, bytes_str("a"));

	(void)state;
	for (unsigned i = 0; i < NAME_SLOTS; i++)
		kit_put_other(index_kv(ix), key_name(INDEX_ROOT, base + i, bytes_str("x")));
	assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, "a"), -ENOSPC);
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "a", S_IFDIR), -ENOSPC);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "a"), INDEX_MISS);
	for (unsigned i = 0; i < NAME_SLOTS; i++)
		kit_del(index_kv(ix), key_name(INDEX_ROOT, base + i, bytes_str("x")));
	kit_close(ix, &op);
}

/* Listing --------------------------------------------------------------------------- */

static void test_a_listing_survives_change(void **state)
{
	enum { N = 300 };
	struct index *ix = kit_open();
	struct index_op op = { 0 }, other = { 0 };
	bool seen[N] = { false };
	uint64_t from = 0, drafts[N / 3];
	unsigned ndrafts = 0;
	char name[16];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%u", i);
		if (i % 3 == 0) {
			assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, name), 0);
			drafts[ndrafts++] = op.entry.attr.fileid;
		} else if (i % 3 == 1) {
			kit_mkdir(ix, INDEX_ROOT, name);
		} else {
			kit_file(ix, INDEX_ROOT, name, name);
		}
	}
	/* What is deleted and made meanwhile may be listed or not; the rest, once. */
	for (unsigned page = 0;; page++) {
		assert_int_equal(kit_list(ix, &op, INDEX_ROOT, from, 7, page % 2), 0);
		for (uint32_t i = 0; i < op.nentries; i++) {
			unsigned n = (unsigned)atoi(op.entries[i].name);
			assert_true(n >= N || !seen[n]);
			if (n < N)
				seen[n] = true;
			from = op.entries[i].h;
		}
		if (!op.more)
			break;
		snprintf(name, sizeof(name), "%u", page);
		kit_rename(ix, &other, INDEX_ROOT, name, INDEX_ROOT, "moved", 0);
		snprintf(name, sizeof(name), "%u", N + page);
		kit_rename(ix, &other, INDEX_ROOT, "moved", INDEX_ROOT, name, 0);
	}
	for (unsigned i = 50; i < N; i++)
		assert_true(seen[i]);
	index_op_fini(&other);
	for (unsigned i = 0; i < ndrafts; i++)
		assert_int_equal(kit_end(ix, drafts[i]), 0);
	kit_close(ix, &op);
}

/* More directories than one request has reads for. */
static void test_a_page_of_directories(void **state)
{
	enum { N = 1600 };
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t from = 0;
	unsigned n = 0, pages = 0;
	char name[16];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%u", i);
		kit_mkdir(ix, INDEX_ROOT, name);
	}
	do {
		assert_int_equal(kit_list(ix, &op, INDEX_ROOT, from, 10000, true), 0);
		assert_true(op.nentries);
		n += op.nentries;
		from = op.entries[op.nentries - 1].h;
		pages++;
	} while (op.more);
	assert_int_equal(n, N);
	assert_true(pages > 1);
	assert_int_equal(kit_list(ix, &op, INDEX_ROOT, UINT64_MAX, 10, true), 0);
	assert_int_equal(op.nentries, 0);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make_lookup_stat_list),
		cmocka_unit_test(test_draft_and_publish),
		cmocka_unit_test(test_bad_names_and_types),
		cmocka_unit_test(test_unlink_and_rmdir_say_why_not),
		cmocka_unit_test(test_a_record_of_more_links_than_it_can_have),
		cmocka_unit_test(test_nothing_is_left_of_a_directory),
		cmocka_unit_test(test_a_look_up_tells_whether_its_directory_is_there),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_a_file_has_so_many_names),
		cmocka_unit_test(test_a_draft_has_so_many_names),
		cmocka_unit_test(test_a_draft_without_a_name),
		cmocka_unit_test(test_a_draft_that_is_given_up),
		cmocka_unit_test(test_unlinking_a_draft_takes_what_it_hides),
		cmocka_unit_test(test_names_of_one_hash),
		cmocka_unit_test(test_no_slot_left),
		cmocka_unit_test(test_a_listing_survives_change),
		cmocka_unit_test(test_a_page_of_directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
