/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index/evict.c: an object loses all of its names at one moment, or none; who writes it keeps
 * it. What rows say of objects, one by one and all.
 */
#include "tests/unit/sessions_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "index/keys.h"

static struct index_name name_of(struct index *ix, uint64_t dir, const char *name)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_lookup(ix, &op, dir, name), 0);
	struct index_name n = { dir, op.entry.h };
	index_op_fini(&op);
	return n;
}

static int evict_at(struct index *ix, struct index_op *op, uint64_t fileid, struct index_name n)
{
	return kit(ix, op, index_evict, (struct index_op){
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h } });
}

static int evict_all(struct index *ix, struct index_op *op, uint64_t fileid,
		     const struct index_name *v, uint32_t n)
{
	return kit(ix, op, index_evict, (struct index_op){
		.fileid = fileid, .place = by_id, .names = v, .nnames = n });
}

static void one_name(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir");
	uint64_t fileid = kit_file(ix, dir, "f", "content");
	struct index_name n = name_of(ix, dir, "f");
	struct timespec before = kit_dir_attr(ix, dir).mtime;
	struct attr a = kit_entry(ix, dir, "f").attr;

	(void)state;
	usleep(20000); /* of a clock that is not the finest */
	assert_int_equal(kit_setxattr(ix, &op, a, (struct place){ PLACE_NAME, n.parent, n.h },
				      "user.x", bytes_str("y"), 0), 0);
	assert_int_equal(evict_at(ix, &op, fileid + 1, n), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid, (struct index_name){ dir, n.h + 1 }), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid, n), 0);
	assert_int_equal(op.gone.fileid, fileid);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("content")));
	assert_int_equal(kit_lookup(ix, &op, dir, "f"), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid, n), INDEX_MISS);
	assert_int_equal(kit_keys(ix, "X"), 0);
	struct timespec after = kit_dir_attr(ix, dir).mtime;
	assert_true(after.tv_sec > before.tv_sec || after.tv_nsec > before.tv_nsec);
	assert_int_equal(kit_rmdir(ix, &op, INDEX_ROOT, "dir"), 0);
	kit_close(ix, &op);
}

static int set_keep(struct index *ix, struct index_op *op, uint64_t fileid, struct index_name n,
		    unsigned mask, struct keep keep)
{
	return kit(ix, op, index_setattr, (struct index_op){
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h }, .mask = mask,
		.attr.keep = keep });
}

static void what_is_pinned_stays(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "f");

	(void)state;
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_QUOTA,
				  (struct keep){ .quota = 1 }), -ENOTDIR);
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_PIN,
				  (struct keep){ .pinned = KEEP_FOREVER, .ttl = 9 }), 0);
	assert_int_equal(op.entry.attr.keep.ttl, 0);
	assert_int_equal(evict_at(ix, &op, fileid, n), -EPERM);
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_PIN,
				  (struct keep){ .pinned = 1 /* long ago */ }), 0);
	assert_int_equal(evict_at(ix, &op, fileid, n), 0);
	kit_close(ix, &op);
}

static int end_at(struct index *ix, struct index_op *op, uint64_t fileid, struct index_name n,
		  int64_t at)
{
	return kit(ix, op, index_evict, (struct index_op){
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h },
		.mask = INDEX_SET_TTL, .attr.mtime.tv_sec = at });
}

/* Who has seen that its time has ended does not evict what has been given more of it since. */
static void what_has_more_time_stays(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	const struct place place = { PLACE_NAME, n.parent, n.h };

	(void)state;
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_TTL, (struct keep){ .ttl = 9 }), 0);
	int64_t end = op.entry.attr.keep.since + 9;
	assert_int_equal(end_at(ix, &op, fileid, n, end - 1), INDEX_MISS);
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_TTL, (struct keep){ .ttl = 99 }), 0);
	assert_int_equal(end_at(ix, &op, fileid, n, end), INDEX_MISS);
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_TTL, (struct keep){ 0 }), 0);
	assert_int_equal(end_at(ix, &op, fileid, n, end), INDEX_MISS);
	assert_int_equal(set_keep(ix, &op, fileid, n, INDEX_SET_TTL,
				  (struct keep){ .ttl = 9, .ttl_by_use = true }), 0);
	end = op.entry.attr.keep.since + 9;
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = fileid, .place = place, .mask = INDEX_SET_ATIME,
		.attr.atime.tv_sec = end }), 0);
	assert_int_equal(end_at(ix, &op, fileid, n, end + 8), INDEX_MISS);
	assert_int_equal(end_at(ix, &op, fileid, n, end + 9), 0);
	kit_close(ix, &op);
}

/* It is not said to have gone now. */
static void what_was_unlinked_has_gone(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "content");

	(void)state;
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit(ix, &op, index_evict, (struct index_op){ .fileid = fileid }),
			 INDEX_MISS);
	kit_close(ix, &op);
}

/* Who has looked at one body does not evict another one. */
static void of_another_body_it_stays(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	struct index_op evict = {
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h },
		.value = BYTES_OF("CONTENT", 7),
	};

	(void)state;
	assert_int_equal(kit(ix, &op, index_evict, evict), INDEX_MISS);
	evict.value = BYTES_OF("content", 7);
	assert_int_equal(kit(ix, &op, index_evict, evict), 0);
	kit_close(ix, &op);
}

/* What is made in a directory begins as that says, and with its own ttl from then on. */
static void what_is_kept_is_inherited(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	const struct keep keep = { .pinned = KEEP_FOREVER, .ttl = 100, .ttl_by_use = true,
				   .since = 1, .quota = 1 << 20 };
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir");
	struct timespec now = clock_now();

	(void)state;
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){
		.fileid = dir, .place = by_id, .mask = INDEX_SET_KEEP,
		.attr.keep = keep }), 0);
	assert_int_equal(op.entry.attr.keep.quota, keep.quota);
	kit_mkdir(ix, dir, "below");
	assert_int_equal(kit(ix, &op, index_make, (struct index_op){
		.parent = dir, .name = "fifo", .attr = { .mode = S_IFIFO | 0644, .keep = {
			.pinned = 5, .priority = KEEP_HIGH } } }), 0);
	kit_file(ix, dir, "f", "content");
	static const char *const names[] = { "below", "fifo", "f" };
	for (unsigned i = 0; i < 3; i++) {
		struct keep k = kit_entry(ix, dir, names[i]).attr.keep;
		assert_int_equal(k.quota, 0);
		assert_int_equal(k.pinned, KEEP_FOREVER);
		assert_int_equal(k.ttl, 100);
		assert_true(k.ttl_by_use);
		assert_true(k.since >= now.tv_sec);
		assert_int_equal(k.priority, i == 1 ? KEEP_HIGH : KEEP_NORMAL);
	}
	kit_close(ix, &op);
}

static int evict_dir(struct index *ix, struct index_op *op, uint64_t dir, time_t since)
{
	return kit(ix, op, index_evict_dir, (struct index_op){
		.fileid = dir, .attr.mtime = { .tv_sec = clock_now().tv_sec + since } });
}

static int note_one(void *arg, uint64_t dir)
{
	*(uint64_t *)arg = *(uint64_t *)arg ? UINT64_MAX : dir;
	return 0;
}

static uint64_t the_evicted(struct index *ix, time_t since)
{
	struct timespec t = { clock_now().tv_sec + since, 0 };
	uint64_t dir = 0, at = 0;

	assert_int_equal(index_some_evicted(ix, t, &at, note_one, &dir), 0);
	assert_int_equal(at, 0);
	return dir;
}

static int keep_dir(struct index *ix, struct index_op *op, uint64_t dir, struct keep k)
{
	return kit(ix, op, index_setattr, (struct index_op){
		.fileid = dir, .place = by_id, .attr.keep = k,
		.mask = INDEX_SET_PIN | INDEX_SET_TTL | INDEX_SET_PRIORITY | INDEX_SET_QUOTA });
}

/* Only of what the eviction emptied, and nobody has touched since. */
static void emptied_directories_go(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t up = kit_mkdir(ix, INDEX_ROOT, "up"), dir = kit_mkdir(ix, up, "dir");
	uint64_t fileid = kit_file(ix, dir, "f", "content");
	uint64_t other = kit_file(ix, dir, "g", "content");
	struct index_name n = name_of(ix, dir, "f");

	(void)state;
	assert_int_equal(the_evicted(ix, 60), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), -EBUSY);
	assert_int_equal(evict_at(ix, &op, fileid, n), 0);
	assert_int_equal(the_evicted(ix, 60), dir);
	assert_int_equal(the_evicted(ix, -60), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), -ENOTEMPTY);
	assert_int_equal(evict_at(ix, &op, other, name_of(ix, dir, "g")), 0);
	assert_int_equal(evict_dir(ix, &op, dir, -60), -EBUSY);
	struct attr a = kit_new_draft(ix, dir, "draft");
	assert_int_equal(evict_dir(ix, &op, dir, 60), -ENOTEMPTY);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	/* Given up, it has made dir's names change by others than the eviction. */
	assert_int_equal(evict_dir(ix, &op, dir, 60), -EBUSY);
	fileid = kit_file(ix, dir, "f", "content");
	assert_int_equal(evict_at(ix, &op, fileid, name_of(ix, dir, "f")), 0);
	/* Somebody is there. */
	struct index_access used = { .fileid = dir, .place = by_id,
				     .before = kit_dir_attr(ix, dir).atime,
				     .at = { clock_now().tv_sec + 1000, 0 } };
	assert_int_equal(kit(ix, &op, index_accessed, (struct index_op){
		.accesses = &used, .naccesses = 1 }), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), -EBUSY);
	assert_int_equal(evict_dir(ix, &op, dir, 2000), 0);
	assert_int_equal(op.gone.fileid, dir);
	assert_int_equal(op.nentries, 1);
	assert_string_equal(op.entries[0].name, "dir");
	assert_int_equal(kit_lookup(ix, &op, up, "dir"), INDEX_MISS);
	assert_int_equal(evict_dir(ix, &op, dir, 2000), INDEX_MISS);
	/* Nor one of which something was said; what it has from above it would have again. */
	assert_int_equal(keep_dir(ix, &op, up, (struct keep){ .priority = KEEP_LOW }), 0);
	dir = kit_mkdir(ix, up, "dir");
	fileid = kit_file(ix, dir, "f", "content");
	assert_int_equal(evict_at(ix, &op, fileid, name_of(ix, dir, "f")), 0);
	assert_int_equal(kit_dir_attr(ix, dir).keep.priority, KEEP_LOW);
	assert_int_equal(keep_dir(ix, &op, dir, (struct keep){ .priority = KEEP_HIGH }), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), -EBUSY);
	assert_int_equal(keep_dir(ix, &op, dir, (struct keep){ .priority = KEEP_LOW, .quota = 1 }), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), -EBUSY);
	assert_int_equal(keep_dir(ix, &op, dir, (struct keep){ .priority = KEEP_LOW }), 0);
	assert_int_equal(evict_dir(ix, &op, dir, 60), 0);
	assert_int_equal(keep_dir(ix, &op, up, (struct keep){ 0 }), 0);
	/* Now the one above it has been emptied, too. */
	assert_int_equal(the_evicted(ix, 60), up);
	assert_int_equal(kit_dir_attr(ix, up).nlink, 2);
	assert_int_equal(kit_setxattr(ix, &op, kit_dir_attr(ix, up), by_id, "user.x",
				      bytes_str("y"), 0), 0);
	assert_int_equal(evict_dir(ix, &op, up, 60), -EBUSY);
	assert_int_equal(evict_dir(ix, &op, INDEX_ROOT, 60), INDEX_MISS);
	kit_close(ix, &op);
}

static int note_all(void *arg, uint64_t dir)
{
	uint64_t *last = arg;

	assert_true(dir > last[0]);
	last[0] = dir;
	last[1]++;
	return 0;
}

/* However many directories there are, each once. */
static void the_emptied_are_found_some_at_a_time(void **state)
{
	enum { DIRS = 2500 };
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t seen[2] = { 0 }, at = 0;
	unsigned calls = 0;
	char name[16];

	(void)state;
	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "%u", i);
		uint64_t dir = kit_mkdir(ix, INDEX_ROOT, name);
		if (i % 2)
			continue;
		uint64_t f = kit_file(ix, dir, "f", "content");
		assert_int_equal(evict_at(ix, &op, f, name_of(ix, dir, "f")), 0);
	}
	do {
		struct timespec t = { clock_now().tv_sec + 60, 0 };
		assert_int_equal(index_some_evicted(ix, t, &at, note_all, seen), 0);
		assert_true(at == 0 || at > seen[0]);
		calls++;
	} while (at);
	assert_int_equal(seen[1], DIRS / 2);
	assert_in_range(calls, 2, DIRS / 2);
	kit_close(ix, &op);
}

struct unsaid {
	struct index *ix;
	uint64_t dir;
};

static void unsay(void *arg)
{
	struct unsaid *u = arg;
	struct index_op op = { 0 };

	assert_int_equal(keep_dir(u->ix, &op, u->dir, (struct keep){ 0 }), 0);
	index_op_fini(&op);
}

/* What it has from above is unsaid a moment before it would go: it would not have it again. */
static void what_is_inherited_is_looked_at_in_the_same_moment(void **state)
{
	struct sessions s = sessions_new();
	struct index *ix = s.ix[0];
	struct index_op op = { 0 };
	uint64_t up = kit_mkdir(ix, INDEX_ROOT, "up");

	(void)state;
	assert_int_equal(keep_dir(ix, &op, up, (struct keep){ .priority = KEEP_LOW }), 0);
	uint64_t dir = kit_mkdir(ix, up, "dir"), f = kit_file(ix, dir, "f", "content");
	assert_int_equal(evict_at(ix, &op, f, name_of(ix, dir, "f")), 0);
	struct unsaid u = { ix, up };
	s.shaky[1]->o.before_write = unsay;
	s.shaky[1]->o.arg = &u;
	assert_int_equal(evict_dir(s.ix[1], &op, dir, 60), -EBUSY);
	assert_int_equal(kit_dir_attr(ix, dir).keep.priority, KEEP_LOW);
	sessions_close(&s, &op);
}

static void all_names_at_once(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir");
	uint64_t fileid = kit_file(ix, dir, "a", "content");
	struct index_name n[3] = { name_of(ix, dir, "a") };
	struct place place = { PLACE_NAME, n[0].parent, n[0].h };

	(void)state;
	assert_int_equal(kit_link(ix, &op, fileid, place, dir, "b"), 0);
	assert_int_equal(kit_link(ix, &op, fileid, by_id, INDEX_ROOT, "c"), 0);
	n[1] = name_of(ix, dir, "b");
	n[2] = name_of(ix, INDEX_ROOT, "c");
	/* Not all, too many, one that is another's, and where it was before. */
	assert_int_equal(evict_all(ix, &op, fileid, n, 2), INDEX_MISS);
	assert_int_equal(evict_all(ix, &op, fileid, n, 0), INDEX_MISS);
	kit_file(ix, dir, "other", "");
	struct index_name wrong[3] = { n[0], n[1], name_of(ix, dir, "other") };
	assert_int_equal(evict_all(ix, &op, fileid, wrong, 3), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid, n[0]), INDEX_MISS);
	assert_int_equal(kit_entry(ix, dir, "b").attr.nlink, 3);
	assert_int_equal(evict_all(ix, &op, fileid, n, 3), 0);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_int_equal(kit_lookup(ix, &op, dir, "a"), INDEX_MISS);
	assert_int_equal(kit_lookup(ix, &op, dir, "b"), INDEX_MISS);
	assert_int_equal(kit_lookup(ix, &op, INDEX_ROOT, "c"), INDEX_MISS);
	assert_int_equal(evict_all(ix, &op, fileid, n, 3), INDEX_MISS);
	kit_entry(ix, dir, "other");
	kit_close(ix, &op);
}

enum { NAMES_MAX = 2000, XATTRS_MAX = 64 };

/* Each in a directory of its own, whose times change as well. */
static void as_many_names_as_there_may_be(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dirs[NAMES_MAX + 1], fileid = 0;
	struct index_name n[NAMES_MAX];
	char name[256];

	(void)state;
	memset(name, 'n', 255);
	name[255] = 0;
	for (unsigned i = 0; i <= NAMES_MAX; i++) {
		char dir[16];
		snprintf(dir, sizeof(dir), "%u", i);
		dirs[i] = kit_mkdir(ix, INDEX_ROOT, dir);
	}
	fileid = kit_file(ix, dirs[0], name, "content");
	struct entry e = kit_entry(ix, dirs[0], name);
	for (unsigned i = 0; i < XATTRS_MAX; i++) {
		char xattr[16];
		snprintf(xattr, sizeof(xattr), "user.%u", i);
		assert_int_equal(kit_setxattr(ix, &op, e.attr, e.place, xattr, bytes_str("v"), 0),
				 0);
	}
	for (unsigned i = 1; i < NAMES_MAX; i++)
		assert_int_equal(kit_link(ix, &op, fileid, i > 1 ? by_id : e.place, dirs[i], name),
				 0);
	assert_int_equal(kit_link(ix, &op, fileid, by_id, dirs[NAMES_MAX], name), -EMLINK);
	for (unsigned i = 0; i < NAMES_MAX; i++)
		n[i] = name_of(ix, dirs[i], name);
	assert_int_equal(evict_all(ix, &op, fileid, n, NAMES_MAX), 0);
	assert_int_equal(op.nentries, NAMES_MAX);
	for (unsigned i = 0; i < NAMES_MAX; i++)
		assert_int_equal(kit_lookup(ix, &op, dirs[i], name), INDEX_MISS);
	assert_int_equal(kit_keys(ix, "X"), 0);
	kit_close(ix, &op);
}

static int find_near(struct index *ix, struct index_op *op, uint64_t fileid, struct index_name n)
{
	return kit(ix, op, index_stat_near, (struct index_op){
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h } });
}

struct hashed {
	uint64_t h;
	unsigned number;
};

static int by_h(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;

	return x->h < y->h ? -1 : x->h > y->h;
}

/* Two numbers whose names have the same upper bits of h: of 400,000 there are some 19. */
static void two_alike(struct index *ix, unsigned ret[2])
{
	enum { MANY = 400000 };
	struct hashed *v = calloc(MANY, sizeof(*v));
	char name[16];
	bool found = false;

	assert_non_null(v);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%u", i);
		v[i] = (struct hashed){ name_hash(index_super(ix)->hash_key, bytes_str(name)), i };
	}
	qsort(v, MANY, sizeof(*v), by_h);
	for (unsigned i = 0; i + 1 < MANY && !found; i++) {
		found = !((v[i].h ^ v[i + 1].h) >> INDEX_NEAR_BITS);
		ret[0] = v[i].number;
		ret[1] = v[i + 1].number;
	}
	free(v);
	assert_true(found);
}

/* Of two that are as near it is the right one; where none is it is none. */
static void found_by_half_of_a_hash(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir"), fileid[2];
	const uint64_t low = (1ULL << INDEX_NEAR_BITS) - 1;
	struct index_name n[2];
	unsigned alike[2];
	char name[16];

	(void)state;
	two_alike(ix, alike);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%u", alike[i]);
		fileid[i] = kit_file(ix, dir, name, i ? "one" : "two");
		n[i] = name_of(ix, dir, name);
	}
	assert_int_equal(n[0].h & ~low, n[1].h & ~low);
	for (unsigned i = 0; i < 2; i++) {
		struct index_name near = { dir, n[i].h & ~low };
		assert_int_equal(find_near(ix, &op, fileid[i], near), 0);
		assert_int_equal(op.entry.place.kind, PLACE_NAME);
		assert_int_equal(op.entry.place.parent, dir);
		assert_int_equal(op.entry.place.h, n[i].h);
		assert_true(bytes_eq(op.entry.body.bytes, bytes_str(i ? "one" : "two")));
		near.h |= low;
		assert_int_equal(find_near(ix, &op, fileid[i], near), 0);
		near.h += 1;
		assert_int_equal(find_near(ix, &op, fileid[i], near), INDEX_MISS);
		near = (struct index_name){ INDEX_ROOT, n[i].h };
		assert_int_equal(find_near(ix, &op, fileid[i], near), INDEX_MISS);
	}
	assert_int_equal(find_near(ix, &op, dir, n[0]), INDEX_MISS);
	/* Of several names none has the record. */
	assert_int_equal(kit_link(ix, &op, fileid[0], (struct place){ PLACE_NAME, dir, n[0].h },
				  INDEX_ROOT, "link"), 0);
	assert_int_equal(find_near(ix, &op, fileid[0], n[0]), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid[1], n[1]), 0);
	assert_int_equal(find_near(ix, &op, fileid[1], n[1]), INDEX_MISS);
	kit_close(ix, &op);
}

/* Also one that the other names of have gone. */
static void a_name_that_is_left(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "a", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "a");

	(void)state;
	assert_int_equal(kit_link(ix, &op, fileid, (struct place){ PLACE_NAME, n.parent, n.h },
				  INDEX_ROOT, "b"), 0);
	n = name_of(ix, INDEX_ROOT, "b");
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(evict_all(ix, &op, fileid, &n, 1), 0);
	assert_int_equal(kit_keys(ix, "F"), 1); /* the root */
	kit_close(ix, &op);
}

static void who_writes_keeps_it(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	struct place place = { PLACE_NAME, n.parent, n.h };

	(void)state;
	assert_int_equal(kit(ix, &op, index_writer, (struct index_op){ .fileid = fileid,
								      .place = place }), 0);
	assert_int_equal(evict_at(ix, &op, fileid, n), -EBUSY);
	assert_int_equal(kit_end(ix, fileid), 0);
	/* A draft hides one name of two. */
	assert_int_equal(kit_link(ix, &op, fileid, place, INDEX_ROOT, "g"), 0);
	struct index_name both[2] = { n, name_of(ix, INDEX_ROOT, "g") };
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "new");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "new", INDEX_ROOT, "g", 0), 0);
	assert_int_equal(evict_all(ix, &op, fileid, both, 2), -EBUSY);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(evict_all(ix, &op, fileid, &both[1], 1), -EBUSY);
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_int_equal(evict_all(ix, &op, fileid, &both[1], 1), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, a.fileid, name_of(ix, INDEX_ROOT, "g")), 0);
	kit_close(ix, &op);
}

/* Its only name: who sees the draft is not concerned. */
static void what_a_draft_hides_may_go(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t fileid = kit_file(ix, INDEX_ROOT, "f", "old");
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "new");

	(void)state;
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "new", INDEX_ROOT, "f", 0), 0);
	assert_int_equal(evict_at(ix, &op, a.fileid, n), INDEX_MISS);
	assert_int_equal(evict_at(ix, &op, fileid, n), 0);
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(op.gone.fileid, 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	assert_int_equal(kit_entry(ix, INDEX_ROOT, "f").attr.fileid, a.fileid);
	kit_close(ix, &op);
}

static void never_a_directory(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(ix, INDEX_ROOT, "dir");
	struct index_name n = name_of(ix, INDEX_ROOT, "dir");

	(void)state;
	assert_int_equal(evict_at(ix, &op, dir, n), INDEX_MISS);
	assert_int_equal(evict_all(ix, &op, dir, &n, 1), INDEX_MISS);
	assert_int_equal(evict_all(ix, &op, INDEX_ROOT, NULL, 0), INDEX_MISS);
	assert_int_equal(kit_make(ix, &op, dir, "link", S_IFLNK | 0777), 0);
	uint64_t fileid = op.entry.attr.fileid;
	assert_int_equal(evict_at(ix, &op, fileid, name_of(ix, dir, "link")), 0);
	kit_close(ix, &op);
}

/* Rows --------------------------------------------------------------------------------- */

struct seen {
	unsigned records, names, both;
	uint64_t fileids;
};

static int see(void *arg, const struct index_row *row)
{
	struct seen *s = arg;

	assert_true(row->is_name || row->is_record);
	assert_false(S_ISDIR(row->attr.mode));
	assert_true(!row->is_name || (row->name.parent == INDEX_ROOT && row->name.h));
	s->records += row->is_record && !row->is_name;
	s->names += row->is_name && !row->is_record;
	s->both += row->is_name && row->is_record;
	s->fileids += row->attr.fileid;
	return 0;
}

static void rows(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct index_row row;
	struct seen s = { 0 };

	(void)state;
	kit_mkdir(ix, INDEX_ROOT, "dir");
	uint64_t one = kit_file(ix, INDEX_ROOT, "one", "content");
	uint64_t two = kit_file(ix, INDEX_ROOT, "two", "content");
	struct index_name n = name_of(ix, INDEX_ROOT, "two");
	assert_int_equal(kit_link(ix, &op, two, (struct place){ PLACE_NAME, n.parent, n.h },
				  INDEX_ROOT, "three"), 0);
	assert_int_equal(index_all_objects(ix, see, &s), 0);
	assert_int_equal(s.records, 1);
	assert_int_equal(s.names, 2);
	assert_int_equal(s.both, 1);
	assert_int_equal(s.fileids, one + 3 * two);
	assert_int_equal(index_row_object(bytes_str("E"), BYTES_NONE, &row), INDEX_MISS);
	assert_int_equal(index_row_object(BYTES_NONE, BYTES_NONE, &row), INDEX_MISS);
	assert_int_equal(index_row_object(bytes_str("D"), BYTES_NONE, &row), -EUCLEAN);
	struct key k = key_file(two);
	assert_int_equal(index_row_object(key_bytes(&k), bytes_str("rubbish"), &row),
			 -EPROTONOSUPPORT);
	kit_close(ix, &op);
}

/* Moving ----------------------------------------------------------------------------- */

enum { HERE = 42, DISK = 43 };

/* One page of a pool. */
static void make_body(uint64_t pool, uint32_t slice, struct writer *w)
{
	uint64_t sum = 7;
	struct extent x = { .pool_id = pool, .slice = slice, .gen = 1, .npages = 1,
			    .slice_pages = 1, .sums = &sum };

	assert_int_equal(body_encode_extents(&(struct extents){ &x, 1, 1 }, w), 0);
}

static uint64_t publish_body(struct index *ix, const char *name, struct body b)
{
	struct index_op op = { 0 };
	struct attr a = kit_new_draft(ix, INDEX_ROOT, name);

	a.size = 4096;
	a.pages = 1;
	assert_int_equal(kit(ix, &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a, .body = b }), 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	index_op_fini(&op);
	return a.fileid;
}

/* The same content, in the pool and on the disk. */
struct both {
	struct writer w[2];
	struct body here, disk;
};

static void both_make(struct both *b)
{
	*b = (struct both){ 0 };
	make_body(HERE, 5, &b->w[0]);
	make_body(DISK, 9, &b->w[1]);
	b->here = (struct body){ BODY_EXTENTS, writer_bytes(&b->w[0]) };
	b->disk = (struct body){ BODY_EXTENTS, writer_bytes(&b->w[1]) };
}

static void both_fini(struct both *b)
{
	writer_fini(&b->w[0]);
	writer_fini(&b->w[1]);
}

static int move_it(struct index *ix, struct index_op *op, uint64_t fileid, struct index_name n,
		   struct body to, struct bytes from, bool away)
{
	return kit(ix, op, index_move, (struct index_op){
		.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h }, .body = to,
		.value = from, .attr.away = away });
}

static void content_moves(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct both b;

	(void)state;
	both_make(&b);
	uint64_t fileid = publish_body(ix, "f", b.here);
	struct index_name n = name_of(ix, INDEX_ROOT, "f");

	/* Another one's, of another body, to where it is. */
	assert_int_equal(move_it(ix, &op, fileid + 1, n, b.disk, b.here.bytes, true), INDEX_MISS);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.disk.bytes, true), INDEX_MISS);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, false), INDEX_MISS);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), 0);
	assert_int_equal(op.gone.fileid, 0);
	struct entry en = kit_entry(ix, INDEX_ROOT, "f");
	assert_true(en.attr.away);
	assert_int_equal(en.attr.version, 1);
	assert_int_equal(en.attr.pages, 1);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), INDEX_MISS);
	/* Nobody begins to write it there; and who does has it where it is. */
	const struct index_op it = { .fileid = fileid, .place = { PLACE_NAME, n.parent, n.h } };
	assert_int_equal(kit(ix, &op, index_writer, it), INDEX_ON_DISK);
	assert_int_equal(move_it(ix, &op, fileid, n, b.here, b.disk.bytes, false), 0);
	assert_false(kit_entry(ix, INDEX_ROOT, "f").attr.away);
	assert_int_equal(kit(ix, &op, index_copy_drop, it), 0);
	assert_int_equal(kit(ix, &op, index_copy_end, it), 0);
	assert_int_equal(kit(ix, &op, index_writer, it), 0);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), -EBUSY);
	assert_int_equal(kit_end(ix, fileid), 0);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), 0);
	both_fini(&b);
	kit_close(ix, &op);
}

static int count_disk(void *arg, uint64_t fileid, const struct extent *x)
{
	(void)fileid;
	*(unsigned *)arg += x->pool_id == DISK;
	return 0;
}

/* Extents on the disk that some row names. */
static unsigned on_disk(struct index *ix)
{
	unsigned n = 0;

	assert_int_equal(index_all_extents(ix, count_disk, &n), 0);
	return n;
}

/* What has come back is what it was on the disk, too, until somebody is going to write it. */
static void what_comes_back_is_copied(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct both b;
	const struct body none = { 0 };

	(void)state;
	both_make(&b);
	uint64_t fileid = publish_body(ix, "f", b.here);
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	struct index_op it = { .fileid = fileid, .place = { PLACE_NAME, n.parent, n.h } };

	assert_int_equal(kit(ix, &op, index_copy_drop, it), INDEX_MISS);
	assert_int_equal(move_it(ix, &op, fileid, n, none, b.here.bytes, true), INDEX_MISS);
	assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), 0);
	assert_int_equal(move_it(ix, &op, fileid, n, b.here, b.disk.bytes, false), 0);
	assert_true(op.entry.attr.copied);
	assert_true(bytes_eq(op.entry.copy, b.disk.bytes));
	assert_int_equal(on_disk(ix), 1);
	assert_int_equal(kit(ix, &op, index_writer, it), INDEX_ON_DISK);
	assert_int_equal(kit(ix, &op, index_copy_end, it), -EBUSY);

	/* It moves with the object, which goes there again at no cost. */
	assert_int_equal(kit_link(ix, &op, fileid, it.place, INDEX_ROOT, "g"), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "h", 0), 0);
	it.place = (struct place){ .kind = PLACE_FILEID };
	assert_int_equal(kit(ix, &op, index_setattr, (struct index_op){ .fileid = fileid,
		.place = it.place, .mask = INDEX_SET_MODE, .attr.mode = 0600 }), 0);
	assert_true(op.entry.attr.copied);
	assert_true(bytes_eq(op.entry.copy, b.disk.bytes));
	assert_int_equal(kit(ix, &op, index_move, (struct index_op){ .fileid = fileid,
		.place = it.place, .value = b.here.bytes, .attr.away = true }), 0);
	assert_true(op.entry.attr.away);
	assert_false(op.entry.attr.copied);
	assert_int_equal(op.entry.attr.version, 1);
	assert_true(bytes_eq(op.entry.body.bytes, b.disk.bytes));
	assert_int_equal(on_disk(ix), 1);

	/* It is dropped, then that is known; then it is as if it had never been there. */
	assert_int_equal(kit(ix, &op, index_move, (struct index_op){ .fileid = fileid,
		.place = it.place, .body = b.here, .value = b.disk.bytes }), 0);
	assert_int_equal(kit(ix, &op, index_copy_drop, it), 0);
	assert_true(op.entry.attr.copied);
	assert_int_equal(on_disk(ix), 0);
	assert_int_equal(kit(ix, &op, index_writer, it), INDEX_ON_DISK);
	assert_int_equal(kit(ix, &op, index_move, (struct index_op){ .fileid = fileid,
		.place = it.place, .value = b.here.bytes, .attr.away = true }), INDEX_MISS);
	assert_int_equal(kit(ix, &op, index_copy_end, it), 0);
	assert_false(op.entry.attr.copied);
	assert_int_equal(kit(ix, &op, index_writer, it), 0);
	assert_int_equal(kit_end(ix, fileid), 0);
	both_fini(&b);
	kit_close(ix, &op);
}

/* Nothing of it stays. */
static void a_copy_goes_with_its_object(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct both b;

	(void)state;
	both_make(&b);
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = { "unlinked", "evicted", "over" };
		uint64_t fileid = publish_body(ix, names[i], b.here);
		struct index_name n = name_of(ix, INDEX_ROOT, names[i]);
		assert_int_equal(move_it(ix, &op, fileid, n, b.disk, b.here.bytes, true), 0);
		assert_int_equal(move_it(ix, &op, fileid, n, b.here, b.disk.bytes, false), 0);
		assert_int_equal(on_disk(ix), 1);
		if (i == 0)
			assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, names[i]), 0);
		else if (i == 1)
			assert_int_equal(kit(ix, &op, index_evict, (struct index_op){
				.fileid = fileid, .place = { PLACE_NAME, n.parent, n.h } }), 0);
		else if (publish_body(ix, "new", b.here))
			assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "new", INDEX_ROOT,
						    names[i], 0), 0);
		assert_int_equal(on_disk(ix), 0);
	}
	both_fini(&b);
	kit_close(ix, &op);
}

/* Of blocks: another version, and the old body is handed out. */
static void blocks_move(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct writer value[2] = { { 0 }, { 0 } }, refs[2] = { { 0 }, { 0 } };
	struct block_ref ref[2] = { { 0, index_new_id(ix) }, { 0, index_new_id(ix) } };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		make_body(i ? DISK : HERE, 5, &value[i]);
		assert_int_equal(body_encode_blocks(&ref[i], 1, &refs[i]), 0);
	}
	struct body b[2] = { { BODY_BLOCKS, writer_bytes(&refs[0]) },
			     { BODY_BLOCKS, writer_bytes(&refs[1]) } };
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "f");
	a.size = 4096;
	a.pages = 1;
	struct bytes v = writer_bytes(&value[0]);
	assert_int_equal(kit(ix, &op, index_put_blocks, (struct index_op){
		.fileid = a.fileid, .blocks = &ref[0], .values = &v, .nblocks = 1 }), 0);
	assert_int_equal(kit(ix, &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a, .body = b[0] }), 0);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	struct index_name n = name_of(ix, INDEX_ROOT, "f");
	v = writer_bytes(&value[1]);
	assert_int_equal(kit(ix, &op, index_put_blocks, (struct index_op){
		.fileid = a.fileid, .blocks = &ref[1], .values = &v, .nblocks = 1,
		.flags = PUT_UNNOTED }), 0);
	assert_int_equal(kit_keys(ix, "b"), 0);
	assert_int_equal(move_it(ix, &op, a.fileid, n, b[1], b[0].bytes, true), 0);
	assert_int_equal(op.entry.attr.version, 2);
	assert_int_equal(op.gone.fileid, a.fileid);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, b[0].bytes));
	uint64_t note = op.gone.note;
	assert_true(note > 1);
	assert_int_equal(kit_keys(ix, "g"), 1);
	assert_int_equal(kit(ix, &op, index_del_blocks, (struct index_op){
		.fileid = a.fileid, .blocks = &ref[0], .nblocks = 1, .note = note }), 0);
	assert_int_equal(kit_keys(ix, "g"), 0);
	assert_int_equal(kit_keys(ix, "E"), 1);
	for (unsigned i = 0; i < 2; i++) {
		writer_fini(&value[i]);
		writer_fini(&refs[i]);
	}
	kit_close(ix, &op);
}

struct kept {
	unsigned d, f, e, x, m, l, away, other;
};

static int see_kept(void *arg, const struct kv_row *row)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	struct kept *k = arg;

	struct bytes is = index_row_kept(row->key, row->value, DISK, &w);
	struct index_row o;
	if (!is.len)
		return 0;
	k->away += !index_row_object(row->key, is, &o) && o.is_record && o.attr.away;
	switch (*(const char *)row->key.p) {
	case 'D': k->d++; break;
	case 'F': k->f++; break;
	case 'E': k->e++; break;
	case 'X': k->x++; break;
	case 'M': k->m++; break;
	case 'L': k->l++; break;
	default: k->other++;
	}
	return 0;
}

/* Of what is away, directories, and several names; not of what is in memory. */
static void what_is_kept(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct both b;
	struct kept k = { 0 };
	uint64_t id;

	(void)state;
	both_make(&b);
	publish_body(ix, "stays", b.here);
	uint64_t back = publish_body(ix, "back", b.here);
	assert_int_equal(move_it(ix, &op, back, name_of(ix, INDEX_ROOT, "back"), b.disk,
				 b.here.bytes, true), 0);
	assert_int_equal(move_it(ix, &op, back, name_of(ix, INDEX_ROOT, "back"), b.here,
				 b.disk.bytes, false), 0);
	uint64_t fileid = publish_body(ix, "goes", b.here);
	kit_file(ix, INDEX_ROOT, "inline", "content");
	kit_mkdir(ix, INDEX_ROOT, "dir");
	assert_int_equal(move_it(ix, &op, fileid, name_of(ix, INDEX_ROOT, "goes"), b.disk,
				 b.here.bytes, true), 0);
	for (const char *kind = "DEFLMTX"; *kind; kind++)
		assert_int_equal(index_rows(index_kv(ix), *kind, see_kept, &k), 0);
	assert_int_equal(k.d, 3); /* "goes", "dir", and "back" as if it were away */
	assert_int_equal(k.away, 2);
	assert_int_equal(k.f, 2); /* the root, "dir" */
	assert_int_equal(k.m, 2);
	assert_int_equal(k.l, 1);
	assert_int_equal(k.e + k.x + k.other, 0);
	assert_int_equal(index_disk(ix, &id), 0);
	assert_int_equal(id, 0);
	assert_int_equal(index_set_disk(ix, DISK), 0);
	assert_int_equal(index_disk(ix, &id), 0);
	assert_int_equal(id, DISK);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "goes"), 0);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "stays"), 0);
	both_fini(&b);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_name),
		cmocka_unit_test(what_is_pinned_stays),
		cmocka_unit_test(what_has_more_time_stays),
		cmocka_unit_test(what_was_unlinked_has_gone),
		cmocka_unit_test(of_another_body_it_stays),
		cmocka_unit_test(what_is_kept_is_inherited),
		cmocka_unit_test(emptied_directories_go),
		cmocka_unit_test(the_emptied_are_found_some_at_a_time),
		cmocka_unit_test(what_is_inherited_is_looked_at_in_the_same_moment),
		cmocka_unit_test(all_names_at_once),
		cmocka_unit_test(as_many_names_as_there_may_be),
		cmocka_unit_test(a_name_that_is_left),
		cmocka_unit_test(found_by_half_of_a_hash),
		cmocka_unit_test(who_writes_keeps_it),
		cmocka_unit_test(what_a_draft_hides_may_go),
		cmocka_unit_test(never_a_directory),
		cmocka_unit_test(rows),
		cmocka_unit_test(content_moves),
		cmocka_unit_test(what_comes_back_is_copied),
		cmocka_unit_test(a_copy_goes_with_its_object),
		cmocka_unit_test(blocks_move),
		cmocka_unit_test(what_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
