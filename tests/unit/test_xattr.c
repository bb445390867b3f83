/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes and ACLs, case by case: index/xattr.c. */
#include "tests/unit/names_kit.h"

static void test_xattrs(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	static char large[65537];
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");

	(void)state;
	struct entry e = kit_entry(ix, INDEX_ROOT, "f");
	struct bytes v = bytes_str("value");
	assert_int_equal(kit_getxattr(ix, &op, f, e.place, "user.x"), INDEX_MISS);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.x", v, XATTR_REPLACE), -ENODATA);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.x", v, XATTR_CREATE), 0);
	assert_true(op.entry.attr.has_xattrs);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.x", v, XATTR_CREATE), -EEXIST);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.empty", BYTES_NONE, 0), 0);
	assert_int_equal(kit_getxattr(ix, &op, f, e.place, "user.empty"), 0);
	assert_int_equal(op.bytes.len, 0);
	assert_int_equal(kit_getxattr(ix, &op, f, e.place, "user.x"), 0);
	assert_true(bytes_eq(op.bytes, v));
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.l", BYTES_OF(large, 65537), 0),
			 -E2BIG);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.l", BYTES_OF(large, 65536), 0),
			 0);
	assert_int_equal(kit_getxattr(ix, &op, f, e.place, "user.l"), 0);
	assert_int_equal(op.bytes.len, 65536);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, "user.m", BYTES_OF(large, 65536), 0),
			 -ENOSPC);
	assert_int_equal(kit(ix, &op, index_listxattr, (struct index_op){ .fileid = f }), 0);
	assert_true(bytes_eq(op.bytes, BYTES_OF("user.empty\0user.l\0user.x", 25)));
	assert_int_equal(kit_setxattr(ix, &op, e.attr, by_id, "user.x", v, 0), INDEX_MISS);
	assert_int_equal(kit(ix, &op, index_removexattr, (struct index_op){
		.fileid = f, .place = e.place, .name = "user.none" }), -ENODATA);
	assert_int_equal(kit(ix, &op, index_removexattr, (struct index_op){
		.fileid = f, .place = e.place, .name = "user.l" }), 0);
	assert_true(op.entry.attr.has_xattrs);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_keys(ix, "X"), 0);
	kit_close(ix, &op);
}

static void test_so_many_xattrs(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	char name[32];
	unsigned n;
	int r = 0;

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "f");
	for (n = 0; !r; n++) {
		snprintf(name, sizeof(name), "user.%u", n);
		r = kit_setxattr(ix, &op, a, a_draft, name, bytes_str("v"), 0);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(n, 65);
	assert_int_equal(kit_publish(ix, &op, a, "x"), 0);
	assert_true(op.entry.attr.has_xattrs);
	assert_int_equal(kit_keys(ix, "X"), 64);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_keys(ix, "X"), 0);
	kit_close(ix, &op);
}

#define ENTRY(tag, perm, id) tag, 0, perm, 0, id, 0, 0, 0
static const uint8_t acl_named[] = { 2, 0, 0, 0, ENTRY(1, 7, 0), ENTRY(2, 5, 9), ENTRY(4, 4, 0),
				     ENTRY(16, 6, 0), ENTRY(32, 1, 0) };
static const uint8_t acl_mode[] = { 2, 0, 0, 0, ENTRY(1, 6, 0), ENTRY(4, 4, 0), ENTRY(32, 0, 0) };
static const uint8_t acl_none[] = { 2, 0, 0, 0 };
#define ACL(a) BYTES_OF(acl_##a, sizeof(acl_##a))

static const char access_acl[] = "system.posix_acl_access";
static const char default_acl[] = "system.posix_acl_default";

/* The access ACL's permissions of mask (or group). */
static int mask_of(struct index *ix, uint64_t fileid, struct place place)
{
	struct index_op op = { 0 };
	int r = kit_getxattr(ix, &op, fileid, place, access_acl);

	if (!r) {
		assert_int_equal(op.bytes.len, sizeof(acl_named));
		r = ((const uint8_t *)op.bytes.p)[4 + 8 * 3 + 2];
	} else {
		assert_int_equal(r, INDEX_MISS);
		r = -1;
	}
	index_op_fini(&op);
	return r;
}

static void test_access_acl(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");

	(void)state;
	struct entry e = kit_entry(ix, INDEX_ROOT, "f");
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, access_acl, bytes_str("no"), 0),
			 -EINVAL);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, access_acl, ACL(named), 0), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0761);
	assert_int_equal(mask_of(ix, f, e.place), 6);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f, .place = e.place, .attr = { .mode = 0640 }, .mask = INDEX_SET_MODE }), 0);
	assert_int_equal(mask_of(ix, f, e.place), 4);
	/* One that says no more than the mode is not stored. */
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, access_acl, ACL(mode), 0), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0640);
	assert_false(op.entry.attr.has_xattrs);
	assert_int_equal(mask_of(ix, f, e.place), -1);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, access_acl, ACL(named), 0), 0);
	assert_int_equal(kit(ix, &op, index_removexattr, (struct index_op){
		.fileid = f, .place = e.place, .name = access_acl }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0761);
	assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, default_acl, ACL(named), 0), -EACCES);
	kit_close(ix, &op);
}

static void test_access_acl_of_a_draft(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "f");
	assert_int_equal(kit_setxattr(ix, &op, a, a_draft, access_acl, ACL(named), 0), 0);
	a = op.entry.attr;
	assert_int_equal(a.mode, S_IFREG | 0761);
	assert_true(a.has_xattrs);
	assert_int_equal(mask_of(ix, a.fileid, a_draft), 6);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = a.fileid, .place = a_draft, .attr = { .mode = 0600 },
		.mask = INDEX_SET_MODE }), 0);
	assert_int_equal(mask_of(ix, a.fileid, a_draft), 0);
	a.mode = S_IFREG | 0650; /* a chmod that only the caller knows of */
	assert_int_equal(kit_publish(ix, &op, a, "x"), 0);
	struct place place = op.entry.place;
	assert_int_equal(op.entry.attr.mode, S_IFREG | 0650);
	assert_int_equal(mask_of(ix, a.fileid, place), 5);
	assert_int_equal(kit_keys(ix, "x"), 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

static void test_default_acl(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	struct attr a = { .fileid = d, .mode = S_IFDIR };

	(void)state;
	assert_int_equal(kit_setxattr(ix, &op, a, by_id, default_acl, ACL(named), 0), 0);
	assert_true(op.entry.attr.has_default_acl);
	assert_int_equal(op.entry.attr.mode, S_IFDIR | 0755);
	/* A directory inherits it, the umask does not count. */
	assert_int_equal(kit(ix, &op, index_make, (struct index_op){
		.parent = d, .name = "e", .attr = { .mode = S_IFDIR | 0777 }, .umask = 0777 }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFDIR | 0761);
	assert_true(op.entry.attr.has_default_acl);
	uint64_t sub = op.entry.attr.fileid;
	assert_int_equal(mask_of(ix, sub, by_id), 6);
	assert_int_equal(kit_getxattr(ix, &op, sub, by_id, default_acl), 0);
	/* A draft, too: in its own keys until it is published. */
	assert_int_equal(kit(ix, &op, index_draft, (struct index_op){
		.parent = sub, .name = "f", .attr = { .mode = S_IFREG | 0640 }, .umask = 0777 }), 0);
	struct attr f = op.entry.attr;
	assert_int_equal(f.mode, S_IFREG | 0640);
	assert_true(f.has_xattrs);
	assert_int_equal(mask_of(ix, f.fileid, a_draft), 4);
	assert_int_equal(kit_publish(ix, &op, f, "x"), 0);
	struct place place = op.entry.place;
	assert_int_equal(mask_of(ix, f.fileid, place), 4);
	assert_int_equal(kit_end(ix, f.fileid), 0);
	/* An empty list removes it. */
	assert_int_equal(kit_setxattr(ix, &op, a, by_id, default_acl, ACL(none), 0), 0);
	assert_false(op.entry.attr.has_default_acl);
	assert_int_equal(kit(ix, &op, index_make, (struct index_op){
		.parent = d, .name = "g", .attr = { .mode = S_IFDIR | 0777 }, .umask = 0022 }), 0);
	assert_int_equal(op.entry.attr.mode, S_IFDIR | 0755);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_xattrs),
		cmocka_unit_test(test_so_many_xattrs),
		cmocka_unit_test(test_access_acl),
		cmocka_unit_test(test_access_acl_of_a_draft),
		cmocka_unit_test(test_default_acl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
