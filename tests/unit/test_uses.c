/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/uses.h: whatever is done to names, the policy knows of exactly the objects that the
 * index has, where they are, and how large; and of several names all. By hand, and a random
 * walk of several threads, on an engine that commits in groups.
 */
#include "tests/unit/names_kit.h"
#include "tests/unit/kv_kit.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/random.h"
#include "engine/uses.h"

static struct folder folder;
static struct index *ix;
static struct policy *policy;
static struct expiry *expiry;
static struct uses *uses;
static struct index_op op;

enum { TEMP_S = 100 };

static void begin_uses(void)
{
	struct uses_opts o = { .temp_s = TEMP_S, .all_pinned = true };

	assert_int_equal(policy_new(&policy), 0);
	assert_int_equal(expiry_new(&expiry), 0);
	o.policy = policy;
	o.expiry = expiry;
	assert_int_equal(uses_open(ix, &o, &uses), 0);
}

static int begin(struct kv *kv)
{
	assert_int_equal(index_open(kv, INDEX_SESSION_OWN, true, &ix), 0);
	begin_uses();
	assert_int_equal(uses_fill(uses, ix), 0);
	op = (struct index_op){ 0 };
	return 0;
}

static int setup(void **state)
{
	struct kv *kv;

	(void)state;
	assert_int_equal(kv_mem_open(&kv), 0);
	return begin(kv);
}

static int setup_lmdb(void **state)
{
	struct kv *kv;

	(void)state;
	folder_make(&folder);
	struct kv_lmdb_opts o = { .path = folder_file(&folder, "index"), .size_bytes = 64 << 20,
				  .create = true };
	assert_int_equal(kv_lmdb_open(&o, &kv), 0);
	return begin(kv);
}

static int teardown(void **state)
{
	(void)state;
	uses_close(uses);
	policy_free(policy);
	expiry_free(expiry);
	kit_close(ix, &op);
	return 0;
}

static int teardown_lmdb(void **state)
{
	teardown(state);
	folder_remove(&folder);
	return 0;
}

static void set_quota(uint64_t dir, uint64_t bytes)
{
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = dir, .place = by_id, .mask = INDEX_SET_QUOTA,
		.attr.keep.quota = bytes }), 0);
}

static void check(void)
{
	struct writer report = { 0 };

	if (uses_check(uses, policy, ix, &report))
		fail_msg("%.*s", (int)report.len, (const char *)report.p);
	writer_fini(&report);
}

static struct place place_of(const char *name)
{
	return kit_entry(ix, INDEX_ROOT, name).place;
}

/* As after a restart. */
static void again(void)
{
	uses_close(uses);
	policy_free(policy);
	expiry_free(expiry);
	begin_uses();
}

/* By hand ------------------------------------------------------------------------------------- */

static void files_come_and_go(void **state)
{
	struct policy_object o;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "content");
	check();
	assert_int_equal(kit_make(ix, &op, INDEX_ROOT, "link", S_IFLNK | 0777), 0);
	kit_mkdir(ix, INDEX_ROOT, "dir");
	check();
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "new"); /* not there yet */
	check();
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "new", INDEX_ROOT, "f", 0), 0);
	assert_true(policy_get(policy, f, &o));
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_false(policy_get(policy, f, &o));
	check();
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	check();
}

static void moved_and_exchanged(void **state)
{
	(void)state;
	kit_file(ix, INDEX_ROOT, "a", "a");
	kit_file(ix, INDEX_ROOT, "b", "b");
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "a", dir, "a", 0), 0);
	check();
	assert_int_equal(kit_rename(ix, &op, dir, "a", INDEX_ROOT, "b", 2 /* EXCHANGE */), 0);
	check();
	assert_int_equal(kit_rename(ix, &op, dir, "a", INDEX_ROOT, "b", 0), 0);
	check();
}

static void several_names(void **state)
{
	struct index_name *names;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "a", "a");
	assert_int_equal(uses_names(uses, f, &names), -ENOENT);
	assert_int_equal(kit_link(ix, &op, f, place_of("a"), INDEX_ROOT, "b"), 0);
	check();
	assert_int_equal(kit_link(ix, &op, f, place_of("a"), INDEX_ROOT, "c"), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "b", INDEX_ROOT, "d", 0), 0);
	check();
	int n = uses_names(uses, f, &names);
	assert_int_equal(n, 3);
	assert_int_equal(kit(ix, &op, index_evict, (struct index_op){
				 .fileid = f, .place = by_id, .names = names, .nnames = 3 }), 0);
	free(names);
	check();
	assert_int_equal(uses_names(uses, f, &names), -ENOENT);
}

static void set_keep(uint64_t f, const char *name, unsigned mask, struct keep keep)
{
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f, .place = place_of(name), .mask = mask, .attr.keep = keep }), 0);
}

static void what_is_pinned_is_nobodys(void **state)
{
	int64_t now = clock_now().tv_sec, next;
	struct expiry_end end;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "f");
	set_keep(f, "f", INDEX_SET_PIN, (struct keep){ .pinned = KEEP_FOREVER });
	check();
	assert_int_equal(expiry_number(expiry), 1); /* so that it can be found */
	assert_int_equal(expiry_at(expiry, f), 0);
	assert_int_equal(expiry_take(expiry, INT64_MAX - 1, &end, &next), INDEX_MISS);
	struct place place;
	assert_true(expiry_place(expiry, f, &place));
	assert_int_equal(place.parent, INDEX_ROOT);
	set_keep(f, "f", INDEX_SET_PIN, (struct keep){ .pinned = now + 2 });
	check();
	assert_int_equal(expiry_number(expiry), 1);
	assert_int_equal(expiry_at(expiry, f), 0); /* it does not end */
	assert_int_equal(expiry_take(expiry, now + 2, &end, &next), 0);
	assert_int_equal(end.reason, EXPIRY_PIN);
	assert_int_equal(uses_look(uses, ix, &end), 0); /* early: as it is by now */
	check();
	assert_int_equal(expiry_number(expiry), 1);
	assert_int_equal(expiry_at(expiry, f), 0); /* it does not end */
	usleep(2100000);
	assert_int_equal(uses_look(uses, ix, &end), 0);
	check();
	assert_int_equal(expiry_number(expiry), 0);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(uses_look(uses, ix, &end), INDEX_MISS);
	check();
}

/* What was used while it was pinned has its time from then on, whatever its record says. */
static void what_was_used_while_it_was_pinned_stays(void **state)
{
	int64_t now = clock_now().tv_sec, next;
	struct expiry_end end;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "f");
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ .ttl = 50, .ttl_by_use = true, .since = now });
	set_keep(f, "f", INDEX_SET_PIN, (struct keep){ .pinned = now + 1 });
	expiry_use(expiry, f, now + 7);
	assert_int_equal(expiry_at(expiry, f), now + 57);
	usleep(1100000);
	assert_int_equal(expiry_take(expiry, now + 1, &end, &next), 0);
	assert_int_equal(end.used, now + 7);
	assert_int_equal(uses_look(uses, ix, &end), 0);
	check();
	assert_int_equal(expiry_at(expiry, f), now + 57);
	assert_int_equal(expiry_take(expiry, now + 56, &end, &next), INDEX_MISS);
}

/* And has the end that its name gives it. */
static void what_was_pinned_and_is_temporary_ends(void **state)
{
	int64_t now = clock_now().tv_sec, next;
	struct expiry_end end;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "f.tmp", "f");
	set_keep(f, "f.tmp", INDEX_SET_PIN, (struct keep){ .pinned = now + 1 });
	assert_in_range(expiry_at(expiry, f), now + TEMP_S, now + TEMP_S + 10);
	usleep(1100000);
	assert_int_equal(expiry_take(expiry, now + 1, &end, &next), 0);
	assert_int_equal(uses_look(uses, ix, &end), 0);
	check();
	assert_in_range(expiry_at(expiry, f), now + TEMP_S, now + TEMP_S + 10);
	/* Renamed before it was looked at: no more. */
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f.tmp", INDEX_ROOT, "f", 0), 0);
	assert_int_equal(uses_look(uses, ix, &end) < 0, 0);
	assert_int_equal(expiry_number(expiry), 0);
}

static void ends_are_known(void **state)
{
	int64_t now = clock_now().tv_sec;

	(void)state;
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "f");
	assert_int_equal(expiry_number(expiry), 0);
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ .ttl = 50 });
	int64_t at = expiry_at(expiry, f);
	assert_in_range(at, now + 50, now + 60);
	expiry_use(expiry, f, at);
	assert_int_equal(expiry_at(expiry, f), at);
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ .ttl = 50, .ttl_by_use = true });
	expiry_use(expiry, f, at);
	assert_int_equal(expiry_at(expiry, f), at + 50);
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ 0 });
	assert_int_equal(expiry_number(expiry), 0);
	/* Left over, and renamed. */
	uint64_t t = kit_file(ix, INDEX_ROOT, "x.tmp", "f");
	assert_in_range(expiry_at(expiry, t), now + TEMP_S, now + TEMP_S + 10);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "x.tmp", INDEX_ROOT, "x", 0), 0);
	assert_int_equal(expiry_number(expiry), 0);
	static const char *const others[] = { ".tmp", "tmp", "a.tmpx", "a.tmp-b", ".tmp.a", "xtmp" };
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		kit_file(ix, INDEX_ROOT, others[i], "f");
	assert_int_equal(expiry_number(expiry), 0);
	kit_file(ix, INDEX_ROOT, "a.tmpx.tmp.1", "f");
	assert_int_equal(expiry_number(expiry), 1);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "a.tmpx.tmp.1"), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "x", INDEX_ROOT, "y.tmp", 0), 0);
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ .ttl = 50 });
	assert_int_equal(expiry_number(expiry), 2);
	/* At the next start, too. */
	again();
	assert_int_equal(uses_fill(uses, ix), 0);
	assert_int_equal(expiry_number(expiry), 2);
	assert_in_range(expiry_at(expiry, f), now + 50, now + 60);
	check();
}

/* Who opened it in the life before is in no record. */
static void a_time_after_the_last_use_begins_anew_at_the_start(void **state)
{
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "f");

	(void)state;
	set_keep(f, "f", INDEX_SET_TTL, (struct keep){ .ttl = 1, .ttl_by_use = true });
	usleep(2100000);
	int64_t now = clock_now().tv_sec;
	assert_in_range(expiry_at(expiry, f), 1, now);
	again();
	assert_int_equal(uses_fill(uses, ix), 0);
	assert_in_range(expiry_at(expiry, f), now + 1, now + 10);
	check();
}

/* Who is written or read anew has been used: it stays when others go. */
static void new_versions_and_times_are_uses(void **state)
{
	uint64_t f[5];
	char name[] = "0";
	struct policy_object o;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		name[0] = (char)('0' + i);
		f[i] = kit_file(ix, INDEX_ROOT, name, "x");
	}
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f[0], .place = place_of("0"), .mask = INDEX_SET_ATIME,
		.attr = { .atime = { 1ULL << 33, 0 } } }), 0);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f[4], .place = place_of("4"), .mask = INDEX_SET_MTIME,
		.attr = { .mtime = { 1ULL << 33, 0 } } }), 0);
	struct attr a = kit_entry(ix, INDEX_ROOT, "2").attr;
	assert_int_equal(kit(ix, &op, index_writer, (struct index_op){
		.fileid = f[2], .place = place_of("2") }), 0);
	assert_int_equal(kit_publish(ix, &op, a, "y"), 0);
	assert_int_equal(kit_end(ix, f[2]), 0);
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = f[1], .place = place_of("1"), .mask = INDEX_SET_MODE,
		.attr = { .mode = 0600 } }), 0); /* no use */
	assert_true(policy_take(policy, POLICY_BARE, &o));
	assert_int_equal(o.fileid, f[1]);
	assert_true(policy_take(policy, POLICY_BARE, &o));
	assert_int_equal(o.fileid, f[3]);
	assert_int_equal(policy_hits(policy, f[4]), 1);
}

/* In the order of their last use. */
static void what_is_stored_is_known_at_start(void **state)
{
	uint64_t f[3];
	char name[] = "0";
	struct policy_object o;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		name[0] = (char)('0' + i);
		f[i] = kit_file(ix, INDEX_ROOT, name, "x");
	}
	assert_int_equal(kit_link(ix, &op, f[2], place_of("2"), INDEX_ROOT, "other"), 0);
	for (unsigned i = 0; i < 3; i++) {
		name[0] = (char)('0' + i);
		assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
			.fileid = f[i], .place = place_of(name),
			.mask = INDEX_SET_ATIME | INDEX_SET_MTIME,
			.attr = { .atime = { 1000 + (i + 1) % 3, 0 },
				  .mtime = { 1000, i } } }), 0);
	}
	again();
	assert_int_equal(uses_fill(uses, ix), 0);
	check();
	for (unsigned i = 0; i < 3; i++) {
		assert_true(policy_take(policy, POLICY_BARE, &o));
		assert_int_equal(o.fileid, f[(i + 2) % 3]);
	}
}

/* What users may set: no sum of these overflows. */
static void times_far_away(void **state)
{
	static const int64_t ends[] = { INT64_MIN, INT64_MIN / 2, INT64_MAX / 2, INT64_MAX };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		char name[] = "0.tmp";
		name[0] = (char)('0' + i);
		uint64_t f = kit_file(ix, INDEX_ROOT, name, "x");
		assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
			.fileid = f, .place = place_of(name),
			.mask = INDEX_SET_ATIME | INDEX_SET_MTIME | INDEX_SET_CTIME | INDEX_SET_TTL,
			.attr = { .atime = { ends[i], 0 }, .mtime = { ends[i], 0 },
				  .ctime = { ends[i], 0 },
				  .keep = { .ttl = i & 1 ? 9 : 0, .ttl_by_use = i & 1 } } }), 0);
	}
	again();
	assert_int_equal(uses_fill(uses, ix), 0);
	check();
}

/* What the policy has no room for in its numbers is left to be; the others are known. */
static void numbers_beyond_48_bits(void **state)
{
	struct policy_object o;
	struct policy_stat st;
	struct record rec = { .kind = RECORD_WHOLE, .attr = {
		.fileid = 1ULL << 48, .mode = S_IFIFO | 0644, .nlink = 1 } };

	(void)state;
	kit_put_record(index_kv(ix), key_name(INDEX_ROOT, 256, bytes_str("x")), &rec);
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "x");
	for (unsigned start = 0; start < 2; start++) {
		assert_false(policy_get(policy, rec.attr.fileid, &o));
		assert_true(policy_get(policy, f, &o));
		policy_stat(policy, &st);
		assert_int_equal(st.objects[POLICY_BARE], 1);
		if (start)
			break;
		again();
		assert_int_equal(uses_fill(uses, ix), 0);
	}
	kit_del(index_kv(ix), key_name(INDEX_ROOT, 256, bytes_str("x")));
	check();
}

/* Several at once ------------------------------------------------------------------------------ */

enum { DIRS = 3, NAMES = 8 };

static uint64_t dirs[DIRS];

static int object_at(struct index_op *o, uint64_t dir, const char *name)
{
	return kit_lookup(ix, o, dir, name) || S_ISDIR(o->entry.attr.mode) || o->entry.draft;
}

/* A file that takes so many pages; whatever comes of it. */
static void sized(struct index_op *o, uint64_t dir, const char *name, uint16_t pages)
{
	uint64_t sum = 0;
	struct extent e = { .pool_id = 1, .npages = pages, .slice_pages = pages, .sums = &sum };
	struct writer body = { 0 };
	struct index_op d = { 0 };

	body_encode_extents(&(struct extents){ &e, 1, 1 }, &body);
	if (!kit_draft(ix, &d, dir, name)) {
		struct attr at = d.entry.attr;
		at.size = pages * PAGE_BYTES;
		at.pages = pages;
		kit(ix, o, index_publish, (struct index_op){
			.fileid = at.fileid, .attr = at,
			.body = { BODY_EXTENTS, writer_bytes(&body) } });
		kit_end(ix, at.fileid);
	}
	index_op_fini(&d);
	writer_fini(&body);
}

/* Whatever comes of it. */
static void act(struct index_op *o, uint64_t x)
{
	char a[] = "a", b[] = "a";
	uint64_t from = dirs[(x >> 8 & 0xff) % DIRS], to = dirs[(x >> 16 & 0xff) % DIRS];

	a[0] = (char)('a' + (x >> 24) % NAMES);
	b[0] = (char)('a' + (x >> 32) % NAMES);
	switch (x % 9) {
	case 8: /* one of them into another, or out of it */
		a[0] = (char)('A' + DIRS - 1);
		kit_rename(ix, o, x >> 40 & 1 ? INDEX_ROOT : dirs[0], a,
			   x >> 41 & 1 ? INDEX_ROOT : dirs[0], a, 0);
		break;
	case 0:
		sized(o, from, a, 1 + (x >> 48) % 5);
		break;
	case 1:
		kit_make(ix, o, from, a, S_IFLNK | 0777);
		break;
	case 2:
		kit_unlink(ix, o, from, a);
		break;
	case 3: case 4:
		kit_rename(ix, o, from, a, to, b, x >> 40 & 1 ? 2 : 0);
		break;
	case 5: case 6:
		if (!object_at(o, from, a))
			kit_link(ix, o, o->entry.attr.fileid, o->entry.place, to, b);
		break;
	default:
		if (!object_at(o, from, a)) {
			struct entry e = o->entry;
			struct index_name *names = NULL;
			int n = uses_names(uses, e.attr.fileid, &names);
			kit(ix, o, index_evict, (struct index_op){
				.fileid = e.attr.fileid, .place = e.place, .names = names,
				.nnames = n < 0 ? 0 : (uint32_t)n });
			free(names);
		}
	}
	index_op_fini(o);
}

static void *acts(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	struct index_op o = { 0 };

	for (unsigned i = 0; i < 3000 / KIT_SLOW; i++)
		act(&o, random_next(&seed));
	return NULL;
}

static void make_dirs(void)
{
	char name[] = "A";

	for (unsigned i = 0; i < DIRS; i++) {
		name[0] = (char)('A' + i);
		dirs[i] = kit_mkdir(ix, INDEX_ROOT, name);
	}
	set_quota(INDEX_ROOT, 1ULL << 40);
	set_quota(dirs[0], 1); /* as good as a page */
}

/* What was there is read while it is changed, moved and removed: nothing is missing, and
 * nothing there that is not. */
static void filled_beside_others(void **state)
{
	uint64_t seed = clock_ns();
	pthread_t t[2];

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	make_dirs();
	for (unsigned i = 0; i < 2000 / KIT_SLOW; i++) { /* so that it takes a while */
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		kit_make(ix, &op, dirs[i % DIRS], name, S_IFLNK | 0777);
		index_op_fini(&op);
	}
	for (unsigned round = 0; round < 12; round++) {
		again();
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&t[i], NULL, acts,
							(void *)(uintptr_t)random_next(&seed)), 0);
		assert_int_equal(uses_fill(uses, ix), 0);
		for (unsigned i = 0; i < 2; i++)
			pthread_join(t[i], NULL);
		check();
	}
	again();
	uses_stop(uses);
	assert_int_equal(uses_fill(uses, ix), -ECANCELED);
	again();
	assert_int_equal(uses_fill(uses, ix), 0);
}

static void random_names(void **state)
{
	uint64_t seed = clock_ns();
	pthread_t t[4];

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	make_dirs();
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&t[i], NULL, acts,
							(void *)(uintptr_t)random_next(&seed)), 0);
		for (unsigned i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
		check();
	}
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(files_come_and_go),
		TEST(moved_and_exchanged),
		TEST(several_names),
		TEST(what_is_pinned_is_nobodys),
		TEST(what_was_used_while_it_was_pinned_stays),
		TEST(what_was_pinned_and_is_temporary_ends),
		TEST(ends_are_known),
		TEST(a_time_after_the_last_use_begins_anew_at_the_start),
		TEST(new_versions_and_times_are_uses),
		TEST(what_is_stored_is_known_at_start),
		TEST(times_far_away),
		TEST(numbers_beyond_48_bits),
		TEST(random_names),
		TEST(filled_beside_others),
		cmocka_unit_test_setup_teardown(filled_beside_others, setup_lmdb, teardown_lmdb),
		cmocka_unit_test_setup_teardown(random_names, setup_lmdb, teardown_lmdb),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
