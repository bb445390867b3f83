/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index/acl.c: by hand, on hostile bytes, and against the kernel, which does the
 * same to the files of a tmpfs (left out where there is none that takes ACLs).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "common/metrics.h"
#include "index/acl.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static unsigned seed;

static unsigned pick(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

static void seed_begin(void)
{
	const char *env = getenv("SEED");

	seed = env ? (unsigned)strtoul(env, NULL, 0) : (unsigned)time(NULL);
	print_message("SEED=%u\n", seed);
}

/* A valid list: with or without names and mask. */
static void acl_random(struct acl *a)
{
	bool named = pick(2);
	unsigned users = named ? pick(3) : 0, groups = named ? pick(3) : 0;

	a->n = 0;
	a->v[a->n++] = (struct acl_entry){ ACL_USER_OBJ, (uint16_t)pick(8), (uint32_t)ACL_NO_ID };
	for (unsigned i = 0; i < users; i++)
		a->v[a->n++] = (struct acl_entry){ ACL_USER, (uint16_t)pick(8), 100 + i };
	a->v[a->n++] = (struct acl_entry){ ACL_GROUP_OBJ, (uint16_t)pick(8), (uint32_t)ACL_NO_ID };
	for (unsigned i = 0; i < groups; i++)
		a->v[a->n++] = (struct acl_entry){ ACL_GROUP, (uint16_t)pick(8), 200 + i };
	if (named)
		a->v[a->n++] = (struct acl_entry){ ACL_MASK, (uint16_t)pick(8), (uint32_t)ACL_NO_ID };
	a->v[a->n++] = (struct acl_entry){ ACL_OTHER, (uint16_t)pick(8), (uint32_t)ACL_NO_ID };
}

static void assert_encodes_to(const struct acl *a, struct bytes b)
{
	struct writer w = { 0 };

	acl_encode(a, &w);
	assert_true(bytes_eq(writer_bytes(&w), b));
	writer_fini(&w);
}

static void test_a_list_survives_its_encoding(void **state)
{
	struct acl a, b;

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		struct writer w = { 0 };
		acl_random(&a);
		acl_encode(&a, &w);
		assert_int_equal(acl_decode(writer_bytes(&w), &b), 0);
		assert_encodes_to(&b, writer_bytes(&w));
		writer_fini(&w);
	}
}

static int decode_entries(const struct acl_entry *v, uint32_t n)
{
	struct acl a = { .n = n }, b;
	struct writer w = { 0 };

	memcpy(a.v, v, n * sizeof(*v));
	acl_encode(&a, &w);
	int r = acl_decode(writer_bytes(&w), &b);
	writer_fini(&w);
	return r;
}

#define DECODE(...) \
	decode_entries((struct acl_entry[]){ __VA_ARGS__ }, \
		       sizeof((struct acl_entry[]){ __VA_ARGS__ }) / sizeof(struct acl_entry))

static void test_what_is_no_list_is_refused(void **state)
{
	const struct acl_entry u = { ACL_USER_OBJ, 7, 0 }, g = { ACL_GROUP_OBJ, 5, 0 },
			       o = { ACL_OTHER, 5, 0 }, m = { ACL_MASK, 7, 0 };
	const struct acl_entry named = { ACL_USER, 7, 5 }, nobody = { ACL_USER, 7, UINT32_MAX };
	struct acl a;

	(void)state;
	assert_int_equal(DECODE(u, g, o), 0);
	assert_int_equal(DECODE(u, named, g, m, o), 0);
	assert_int_equal(DECODE(u, g), -EINVAL);
	assert_int_equal(DECODE(g, o), -EINVAL);
	assert_int_equal(DECODE(u, o), -EINVAL);
	assert_int_equal(DECODE(g, u, o), -EINVAL);
	assert_int_equal(DECODE(u, u, g, o), -EINVAL);
	assert_int_equal(DECODE(u, named, g, o), -EINVAL);
	assert_int_equal(DECODE(u, nobody, g, m, o), -EINVAL);
	assert_int_equal(DECODE(u, g, m, m, o), -EINVAL);
	assert_int_equal(DECODE(u, g, { ACL_OTHER, 8, 0 }), -EINVAL);
	assert_int_equal(DECODE(u, g, o, { 0x40, 7, 0 }), -EINVAL);
	assert_int_equal(DECODE(u, g, o, { 0, 7, 0 }), -EINVAL);
	assert_int_equal(acl_decode(BYTES_OF("\2\0\0", 3), &a), -EINVAL);
	assert_int_equal(acl_decode(BYTES_OF("\1\0\0\0", 4), &a), -EINVAL);
	assert_int_equal(acl_decode(BYTES_OF("\2\0\0\0\1", 5), &a), -EINVAL);
	assert_int_equal(acl_decode(BYTES_NONE, &a), -EINVAL);
	assert_int_equal(acl_decode(BYTES_OF("\2\0\0\0", 4), &a), 0);
	assert_int_equal(a.n, 0);
	uint8_t *long_one = calloc(1, 4 + 8 * (ACL_ENTRIES_MAX + 1));
	long_one[0] = 2;
	assert_int_equal(acl_decode(BYTES_OF(long_one, 4 + 8 * (ACL_ENTRIES_MAX + 1)), &a), -E2BIG);
	free(long_one);
}

/* Whatever is accepted is canonical but for the ids that do not count. */
static void test_hostile_bytes(void **state)
{
	uint8_t b[4 + 8 * 6];
	struct acl a, again;
	unsigned accepted = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		struct writer w = { 0 };
		acl_random(&a);
		acl_encode(&a, &w);
		size_t n = w.len < sizeof(b) ? w.len : sizeof(b);
		memcpy(b, w.p, n);
		writer_fini(&w);
		for (unsigned k = pick(3); k > 0; k--)
			b[pick((unsigned)n)] = (uint8_t)pick(256);
		if (acl_decode(BYTES_OF(b, n), &a))
			continue;
		accepted++;
		acl_encode(&a, &w);
		assert_int_equal(acl_decode(writer_bytes(&w), &again), 0);
		assert_encodes_to(&again, writer_bytes(&w));
		writer_fini(&w);
	}
	assert_true(accepted > 1000);
}

static void test_the_mode_of_a_list(void **state)
{
	struct acl a = { 4, { { ACL_USER_OBJ, 7, 0 }, { ACL_GROUP_OBJ, 1, 0 }, { ACL_MASK, 6, 0 },
			      { ACL_OTHER, 4, 0 } } };
	mode_t mode;

	(void)state;
	assert_false(acl_is_mode(&a, &mode));
	assert_int_equal(mode, 0764);
	acl_chmod(&a, 0123);
	assert_int_equal(a.v[1].perm, 1); /* the group's own stays */
	assert_int_equal(a.v[2].perm, 2);
	assert_false(acl_is_mode(&a, &mode));
	assert_int_equal(mode, 0123);
	a.v[2] = a.v[3];
	a.n = 3;
	assert_true(acl_is_mode(&a, &mode));
	assert_int_equal(mode, 0113);
	acl_chmod(&a, 0750);
	assert_true(acl_is_mode(&a, &mode));
	assert_int_equal(mode, 0750);
}

/* The kernel as a model ------------------------------------------------------------ */

static bool set_acl(const char *path, const char *name, const struct acl *a)
{
	struct writer w = { 0 };

	acl_encode(a, &w);
	bool ok = !setxattr(path, name, w.p, w.len, 0);
	writer_fini(&w);
	return ok;
}

/* What the kernel has is what we have; a list that is a mode is not kept. */
static void assert_kernel_has(const char *path, const struct acl *ours, mode_t mode)
{
	uint8_t b[1024];
	struct stat st;
	struct acl theirs;
	mode_t equal;
	ssize_t n = getxattr(path, ACCESS, b, sizeof(b));

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, mode & 0777);
	if (acl_is_mode(ours, &equal)) {
		assert_int_equal(n, -1);
		assert_int_equal(equal, mode & 0777);
		return;
	}
	assert_true(n > 0);
	assert_int_equal(acl_decode(BYTES_OF(b, (size_t)n), &theirs), 0);
	assert_encodes_to(ours, BYTES_OF(b, (size_t)n));
}

static void kernel_round(const char *dir)
{
	char path[128];
	struct acl a;
	mode_t mode = (mode_t)pick(01000);

	acl_random(&a);
	snprintf(path, sizeof(path), "%s/f", dir);
	assert_true(set_acl(dir, DEFAULT, &a));
	umask((mode_t)pick(01000)); /* does not count beside a default ACL */
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR, mode);
	assert_true(fd >= 0);
	close(fd);
	mode = acl_create(&a, mode);
	assert_kernel_has(path, &a, mode);
	mode = (mode_t)pick(01000);
	assert_int_equal(chmod(path, mode), 0);
	acl_chmod(&a, mode);
	assert_kernel_has(path, &a, mode);
	acl_random(&a);
	assert_true(set_acl(path, ACCESS, &a));
	acl_is_mode(&a, &mode);
	assert_kernel_has(path, &a, mode);
	assert_int_equal(unlink(path), 0);
}

static void test_as_the_kernel_does_it(void **state)
{
	char dir[] = "/dev/shm/slicefs-acl-XXXXXX";
	struct acl a;

	(void)state;
	if (!mkdtemp(dir))
		skip();
	acl_random(&a);
	if (!set_acl(dir, DEFAULT, &a)) {
		rmdir(dir);
		skip();
	}
	mode_t before = umask(0);
	for (unsigned i = 0; i < 2000; i++)
		kernel_round(dir);
	umask(before);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_list_survives_its_encoding),
		cmocka_unit_test(test_what_is_no_list_is_refused),
		cmocka_unit_test(test_hostile_bytes),
		cmocka_unit_test(test_the_mode_of_a_list),
		cmocka_unit_test(test_as_the_kernel_does_it),
	};

	seed_begin();
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	return failed || metrics_busy(NULL);
}
