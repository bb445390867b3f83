/* SPDX-License-Identifier: Apache-2.0 */
/* Objects, case by case: attributes and times (index/object.c, place.c) and what a
 * publish makes of them (publish.c). */
#include "tests/unit/names_kit.h"

#include <time.h>

/* Times ----------------------------------------------------------------------------- */

/* Sets the directory's mtime to `s` seconds. */
static void set_mtime(struct index *ix, uint64_t dir, time_t s)
{
	struct index_op op = { 0 };

	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = dir, .place = by_id, .mask = INDEX_SET_MTIME,
		.attr = { .mtime = { .tv_sec = s } } }), 0);
	assert_int_equal(op.entry.attr.mtime.tv_sec, s);
	index_op_fini(&op);
	assert_int_equal(kit_dir_attr(ix, dir).mtime.tv_sec, s);
}

static bool is_now(struct timespec t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return t.tv_sec >= now.tv_sec - 5 && t.tv_sec <= now.tv_sec;
}

/* From the past and from the future: what happens next wins, and it alone. */
static void test_times_of_a_directory(void **state)
{
	static const time_t set[] = { 1000, 1ll << 40 };
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		set_mtime(ix, d, set[i]);
		struct attr a = kit_new_draft(ix, d, "f");
		assert_true(is_now(kit_dir_attr(ix, d).mtime));
		assert_true(is_now(kit_dir_attr(ix, d).ctime));
		set_mtime(ix, d, set[i]);
		/* The name was there already: publishing it changes nothing. */
		assert_int_equal(kit_publish(ix, &op, a, "x"), 0);
		assert_int_equal(kit_dir_attr(ix, d).mtime.tv_sec, set[i]);
		assert_int_equal(kit_end(ix, a.fileid), 0);
		assert_int_equal(kit_dir_attr(ix, d).mtime.tv_sec, set[i]);
		assert_int_equal(kit_rename(ix, &op, d, "f", d, "g", 0), 0);
		assert_true(is_now(kit_dir_attr(ix, d).mtime));
		set_mtime(ix, d, set[i]);
		assert_int_equal(kit_unlink(ix, &op, d, "g"), 0);
		assert_true(is_now(kit_dir_attr(ix, d).mtime));
		set_mtime(ix, d, set[i]);
		kit_mkdir(ix, d, "e");
		assert_true(is_now(kit_dir_attr(ix, d).mtime));
		set_mtime(ix, d, set[i]);
		assert_int_equal(kit_rmdir(ix, &op, d, "e"), 0);
		assert_true(is_now(kit_dir_attr(ix, d).mtime));
		/* Renaming a directory is no change of what is in it. */
		set_mtime(ix, d, set[i]);
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "d", INDEX_ROOT, "D", 0), 0);
		assert_int_equal(op.entry.attr.mtime.tv_sec, set[i]);
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "D", INDEX_ROOT, "d", 0), 0);
	}
	kit_close(ix, &op);
}

/* A published file keeps the time of its directory that its draft gave it. */
static void test_times_after_a_publish(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");

	(void)state;
	set_mtime(ix, d, 1000);
	kit_file(ix, d, "f", "x");
	assert_true(is_now(kit_dir_attr(ix, d).mtime));
	assert_int_equal(kit_keys(ix, "t"), 0);
	assert_int_equal(index_kv(ix)->ops->session_end(index_kv(ix), index_session(ix)), 0);
	assert_true(is_now(kit_dir_attr(ix, d).mtime));
	kit_close(ix, &op);
}

/* Drafts come and go without a durable write, but for the last of a directory. */
static void test_drafts_and_the_times(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d"), ids[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		ids[i] = kit_new_draft(ix, d, (char[]){ (char)('a' + i), 0 }).fileid;
	assert_int_equal(kit_keys(ix, "T"), 1); /* the root's */
	assert_int_equal(kit_rename(ix, &op, d, "a", d, "x", 0), 0);
	assert_int_equal(kit_unlink(ix, &op, d, "x"), 0);
	assert_int_equal(kit_unlink(ix, &op, d, "b"), 0);
	assert_int_equal(kit_keys(ix, "T"), 1);
	assert_int_equal(kit_keys(ix, "t"), 1);
	assert_int_equal(kit_unlink(ix, &op, d, "c"), 0);
	assert_int_equal(kit_keys(ix, "T"), 2);
	assert_int_equal(kit_keys(ix, "t"), 0);
	assert_true(is_now(kit_dir_attr(ix, d).mtime));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(kit_end(ix, ids[i]), 0);
	kit_close(ix, &op);
}

/* Attributes ------------------------------------------------------------------------ */

static void test_setattr(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");

	(void)state;
	struct place place = kit_entry(ix, INDEX_ROOT, "f").place;
	struct attr a = { .mode = 04711, .uid = 1, .gid = 2, .atime = { 3, 4 }, .mtime = { 5, 6 },
			  .ctime = { 7, 8 } };
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f, .place = place, .attr = a,
		.mask = INDEX_SET_MODE | INDEX_SET_UID | INDEX_SET_ATIME }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 04711);
	assert_int_equal(op.entry.attr.uid, 1);
	assert_int_equal(op.entry.attr.gid, 8);
	assert_int_equal(op.entry.attr.atime.tv_sec, 3);
	assert_true(is_now(op.entry.attr.mtime));
	assert_true(is_now(op.entry.attr.ctime));
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f, .place = place, .attr = a,
		.mask = INDEX_SET_GID | INDEX_SET_MTIME | INDEX_SET_CTIME }), 0);
	assert_int_equal(kit_stat(ix, &op, f, place), 0);
	assert_int_equal(op.entry.attr.gid, 2);
	assert_int_equal(op.entry.attr.mtime.tv_nsec, 6);
	assert_int_equal(op.entry.attr.ctime.tv_sec, 7);
	assert_true(bytes_eq(op.entry.body.bytes, bytes_str("x")));
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){ .fileid = 99, .place = by_id }),
			 INDEX_MISS);
	uint64_t g = kit_new_draft(ix, INDEX_ROOT, "g").fileid;
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){ .fileid = g, .place = by_id }),
			 -ENOENT);
	assert_int_equal(kit_end(ix, g), 0);
	kit_close(ix, &op);
}

static struct timespec atime_of(struct index *ix, struct index_op *op, uint64_t fileid)
{
	assert_int_equal(kit_stat(ix, op, fileid, by_id), 0);
	return op->entry.attr.atime;
}

static struct index_access read_at(struct index *ix, const char *name, time_t when)
{
	struct entry e = kit_entry(ix, INDEX_ROOT, name);

	return (struct index_access){ e.attr.fileid, e.place, e.attr.atime, { when, 5 } };
}

/* Of all that are as they were; the rest is left alone. */
static void test_accessed(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct index_access v[5];

	(void)state;
	kit_file(ix, INDEX_ROOT, "is", "x");
	kit_file(ix, INDEX_ROOT, "linked", "x");
	kit_file(ix, INDEX_ROOT, "set", "x");
	kit_file(ix, INDEX_ROOT, "gone", "x");
	v[0] = read_at(ix, "is", 11);
	v[1] = read_at(ix, "linked", 22);
	v[2] = read_at(ix, "set", 33);
	v[3] = read_at(ix, "gone", 44);
	struct timespec ctime = kit_entry(ix, INDEX_ROOT, "is").attr.ctime;
	assert_int_equal(kit(ix, &op, index_link, (struct index_op){
		.fileid = v[1].fileid, .place = v[1].place, .parent = INDEX_ROOT, .name = "too" }), 0);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = v[2].fileid, .place = v[2].place, .mask = INDEX_SET_ATIME,
		.attr.atime = { 1, 2 } }), 0);
	assert_int_equal(kit(ix, &op, index_unlink, (struct index_op){
		.parent = INDEX_ROOT, .name = "gone" }), 0);
	v[4] = (struct index_access){ kit_new_draft(ix, INDEX_ROOT, "draft").fileid, by_id,
				      { 0 }, { 55, 5 } };
	assert_int_equal(kit(ix, &op, index_accessed, (struct index_op){
		.accesses = v, .naccesses = 5 }), 0);
	assert_int_equal(kit_entry(ix, INDEX_ROOT, "is").attr.atime.tv_sec, 11);
	struct timespec now = kit_entry(ix, INDEX_ROOT, "is").attr.ctime;
	assert_memory_equal(&now, &ctime, sizeof(ctime));
	assert_int_equal(atime_of(ix, &op, v[1].fileid).tv_sec, 22);
	assert_int_equal(kit_entry(ix, INDEX_ROOT, "set").attr.atime.tv_sec, 1);
	assert_int_equal(kit_end(ix, v[4].fileid), 0);
	assert_int_equal(kit(ix, &op, index_accessed, (struct index_op){ .accesses = v }), 0);
	kit_close(ix, &op);
}

static void test_publish_merges(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "one");

	(void)state;
	struct entry e = kit_entry(ix, INDEX_ROOT, "f");
	assert_int_equal(kit_publish(ix, &op, e.attr, "x"), -EINVAL); /* no index_writer() */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(kit(ix, &op, index_writer, (struct index_op){
			.fileid = f, .place = e.place }), 0);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f, .place = e.place, .attr = { .mode = 0600 }, .mask = INDEX_SET_MODE }), 0);
	struct attr a = e.attr;
	a.pages = 3;
	a.mtime = a.ctime = (struct timespec){ 9, 9 };
	assert_int_equal(kit_publish(ix, &op, a, "two!"), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0600);
	assert_int_equal(op.entry.attr.version, 2);
	assert_int_equal(op.entry.attr.size, 4);
	assert_int_equal(op.entry.attr.mtime.tv_sec, 9);
	assert_int_equal(op.gone2.fileid, 0);
	/* Based on the first version still: the second one is what it replaces. */
	assert_int_equal(kit_publish(ix, &op, e.attr, "three"), 0);
	assert_int_equal(op.entry.attr.version, 3);
	assert_int_equal(op.gone2.fileid, f);
	assert_int_equal(op.gone2.attr.nlink, 0);
	assert_true(bytes_eq(op.gone2.body.bytes, bytes_str("two!")));
	assert_int_equal(kit_end(ix, f), 0);
	assert_int_equal(kit_end(ix, f), 0);
	kit_close(ix, &op);
}

static void test_what_a_new_object_inherits(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");

	(void)state;
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = d, .place = by_id, .attr = { .mode = 02775, .gid = 99 },
		.mask = INDEX_SET_MODE | INDEX_SET_GID }), 0);
	assert_int_equal(kit(ix, &op, index_make, (struct index_op){
		.parent = d, .name = "e", .attr = { .mode = S_IFDIR | 0777, .gid = 5 },
		.umask = 0027 }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFDIR | 02750);
	assert_int_equal(op.entry.attr.gid, 99);
	assert_int_equal(kit(ix, &op, index_draft, (struct index_op){
		.parent = d, .name = "f", .attr = { .mode = S_IFREG | 0666, .gid = 5 },
		.umask = 0022 }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0644);
	assert_int_equal(op.entry.attr.gid, 99);
	assert_int_equal(kit_end(ix, op.entry.attr.fileid), 0);
	assert_int_equal(kit(ix, &op, index_make, (struct index_op){
		.parent = d, .name = "c", .attr = { .mode = S_IFCHR | 0600, .rdev = 0x1234, .gid = 5 },
		.umask = 0022 }), 0);
	assert_int_equal(op.entry.attr.rdev, 0x1234);
	kit_make(ix, &op, d, "s", S_IFLNK);
	assert_int_equal(op.entry.attr.mode, S_IFLNK | 0777);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_times_of_a_directory),
		cmocka_unit_test(test_times_after_a_publish),
		cmocka_unit_test(test_drafts_and_the_times),
		cmocka_unit_test(test_setattr),
		cmocka_unit_test(test_accessed),
		cmocka_unit_test(test_publish_merges),
		cmocka_unit_test(test_what_a_new_object_inherits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
