/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/evict.h: who writes more than the pool holds goes on, and what goes is what nobody
 * uses; what is open, written or has just been used stays, and if all is there is no room at
 * once. By hand; then several that write, read, rename, link and unlink under pressure, each
 * byte of which tells what it is of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/evict_inbox.h"
#include "engine/pool.h"
#include "tests/unit/file_kit.h"

enum { POOL_BYTES = 16 << 20, FILE_BYTES = 1 << 20, TEMP_S = 2 };

static struct engine *e;
static int64_t pool_evictions; /* before the test */

static int begin(unsigned high, unsigned low)
{
	const struct engine_opts o = { .in_memory = true, .pool_bytes = POOL_BYTES, .verify = true,
				       .evict_high = high, .evict_low = low,
				       .temp_s = TEMP_S, .evict_dirs_ms = 2000 };

	pool_evictions = metric_get(M_EVICTED_POOL);
	return engine_open(&o, &e, NULL);
}

static uint64_t kit_mkdir(struct engine *e_, const char *name)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name,
			       .attr.mode = S_IFDIR | 0755 };

	assert_int_equal(index_wait(engine_index(e_), &op, index_make), 0);
	uint64_t dir = op.entry.attr.fileid;
	index_op_fini(&op);
	return dir;
}

static int kit_move(struct engine *e_, const char *name, uint64_t dir)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name, .parent2 = dir, .name2 = name };
	int r = index_wait(engine_index(e_), &op, index_rename);

	index_op_fini(&op);
	return r;
}

static int setup(void **state)
{
	(void)state;
	return begin(95, 90);
}

/* Only who finds no room at all has any made. */
static int setup_late(void **state)
{
	(void)state;
	return begin(100, 100);
}

/* What has an end ends, and nothing else goes. */
static int setup_off(void **state)
{
	(void)state;
	return begin(0, 0);
}

static char store[64];

/* Its index is so small that it is full soon; nothing goes unless it is. */
static int setup_small_index(void **state)
{
	struct engine_opts o = { .dir = store, .pool_bytes = POOL_BYTES, .index_bytes = 1 << 20,
				 .verify = true, .evict_high = 100, .evict_low = 100 };

	(void)state;
	snprintf(store, sizeof(store), "/dev/shm/slicefs-test-XXXXXX");
	assert_non_null(mkdtemp(store));
	return engine_open(&o, &e, NULL);
}

static void check(void)
{
	kit_is_idle();
	kit_check_engine(e);
}

static int teardown(void **state)
{
	(void)state;
	check();
	bool idle = kit_is_idle();
	engine_close(e);
	e = NULL;
	return idle ? 0 : -1;
}

static int teardown_small_index(void **state)
{
	int r = teardown(state);

	engine_store_remove(store, true);
	rmdir(store);
	return r;
}

static uint8_t page[4096];

/* Each page says which file it is of. 0, or the error; then nothing of it is left. */
static int put(const char *name, uint64_t of, size_t bytes)
{
	struct file *f;
	int r = kit_create(e, name, &f);

	if (r)
		return r;
	for (size_t at = 0; r >= 0 && at < bytes; at += sizeof(page)) {
		uint64_t words[512];
		for (unsigned i = 0; i < 512; i++)
			words[i] = of;
		r = (int)kit_write(f, at, words, sizeof(words));
	}
	int closed = kit_close(f, r < 0 ? FILE_WRITE | FILE_DISCARD : FILE_WRITE);
	return r < 0 ? r : closed;
}

/* Number i, by its name. */
static int put_number(unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", i);
	return put(name, i, FILE_BYTES);
}

static bool is_there(const char *name)
{
	struct attr a;
	struct place place;

	return !kit_lookup(e, name, &a, &place);
}

static bool is_number_there(unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", i);
	return is_there(name);
}

static void set_keep(const char *name, unsigned mask, struct keep keep)
{
	struct attr a = { 0 };
	struct place place = { 0 };

	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	struct index_op op = { .fileid = a.fileid, .place = place, .mask = mask,
			       .attr.keep = keep };
	assert_int_equal(index_wait(engine_index(e), &op, index_setattr), 0);
	index_op_fini(&op);
}

/* All of it is of the file. */
static void reads(struct file *f, uint64_t of)
{
	uint64_t words[512];

	for (uint64_t at = 0;; at += sizeof(words)) {
		int64_t n = kit_read(f, at, words, sizeof(words));
		assert_true(n >= 0);
		for (int64_t i = 0; i < n / 8; i++)
			assert_int_equal(words[i], of);
		if (n < (int64_t)sizeof(words))
			break;
	}
}

static uint64_t free_bytes(void)
{
	struct engine_space s;

	engine_space(e, &s);
	return s.free_bytes;
}

/* By hand -------------------------------------------------------------------------------- */

static void a_pool_that_is_full_goes_on(void **state)
{
	unsigned there = 0;

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(put_number(i), 0);
	for (unsigned i = 0; i < 100; i++)
		there += is_number_there(i);
	assert_true(there >= 8 && there <= 16); /* 16: on a busy host the thread comes late */
	assert_true(is_number_there(99));
	assert_false(is_number_there(0));
}

static void from_the_high_mark_to_the_low_one(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(put_number(i), 0);
	assert_int_equal(put("some", 99, FILE_BYTES / 2), 0); /* 97 percent */
	/* It may have begun while more was taken than was needed, and have ended before. */
	for (unsigned i = 0; free_bytes() < POOL_BYTES / 20 && i < 5000; i++)
		usleep(1000);
	assert_true(free_bytes() >= POOL_BYTES / 20);
	assert_true(free_bytes() < POOL_BYTES / 10 + 2 * FILE_BYTES);
	assert_false(is_number_there(0));
	assert_true(is_number_there(4));
}

static void what_is_open_stays(void **state)
{
	struct file *f[14];
	char name[16];

	(void)state;
	for (unsigned i = 0; i < 14; i++) {
		assert_int_equal(put_number(i), 0);
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(kit_open_name(e, name, 0, &f[i]), 0);
	}
	for (unsigned i = 14; i < 60; i++)
		assert_int_equal(put_number(i), 0);
	for (unsigned i = 0; i < 14; i++) {
		assert_true(is_number_there(i));
		reads(f[i], i);
		assert_int_equal(kit_close(f[i], 0), 0);
	}
}

/* At once, and nothing half-done is left (P7). */
static uint64_t evictable(void)
{
	struct engine_space s;

	engine_space(e, &s);
	return s.evictable_bytes;
}

static void no_room_if_all_is_open(void **state)
{
	struct file *f, *other = NULL;
	uint64_t n = 0;

	(void)state;
	assert_int_equal(put("other", 5, FILE_BYTES), 0);
	assert_int_equal(evictable(), FILE_BYTES);
	assert_int_equal(kit_open_name(e, "other", 0, &other), 0);
	assert_int_equal(evictable(), 0);
	assert_int_equal(kit_create(e, "fills", &f), 0);
	while (kit_write(f, n * sizeof(page), page, sizeof(page)) == sizeof(page))
		n++;
	assert_int_equal(n, (POOL_BYTES - FILE_BYTES) / sizeof(page));
	assert_int_equal(put("more", 1, FILE_BYTES), -ENOSPC);
	assert_false(is_there("more"));
	assert_int_equal(free_bytes(), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(put("more", 1, FILE_BYTES), 0);
	assert_false(is_there("fills"));
	reads(other, 5);
	assert_int_equal(kit_close(other, 0), 0);
}

/* Who has it open lets go of it in a moment, as a mount does whose message is on its way. */
static void *closes_soon(void *arg)
{
	usleep(100000);
	assert_int_equal(kit_close(arg, 0), 0);
	return NULL;
}

static void what_is_let_go_of_soon_makes_room(void **state)
{
	struct file *f, *other;
	uint64_t n = 0;
	pthread_t t;

	(void)state;
	assert_int_equal(put("other", 5, FILE_BYTES), 0);
	assert_int_equal(kit_open_name(e, "other", 0, &other), 0);
	assert_int_equal(kit_create(e, "fills", &f), 0);
	while (n < (POOL_BYTES - FILE_BYTES) / sizeof(page)) {
		assert_int_equal(kit_write(f, n * sizeof(page), page, sizeof(page)), sizeof(page));
		n++;
	}
	assert_int_equal(free_bytes(), 0);
	assert_int_equal(pthread_create(&t, NULL, closes_soon, other), 0);
	assert_int_equal(put("more", 1, FILE_BYTES), 0);
	pthread_join(t, NULL);
	assert_false(is_there("other"));
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

/* In the index ----------------------------------------------------------------------------- */

enum { LONG_NAME = 200, FEW = 60, MANY = 160 };

/* Of what takes as much of the index as any name does. */
static void long_name(const char *kind, unsigned i, char ret[LONG_NAME])
{
	snprintf(ret, LONG_NAME, "%.8s%0180u", kind, i);
}

static int mkdir_long(unsigned i)
{
	char name[LONG_NAME];
	struct index_op op = { .parent = INDEX_ROOT, .name = name,
			       .attr.mode = S_IFDIR | 0755 };

	long_name("d", i, name);
	int r = index_wait(engine_index(e), &op, index_make);
	index_op_fini(&op);
	return r;
}

/* Until there is no room: directories do not go. How many there are. */
static unsigned fill_index(unsigned from)
{
	int r;

	while (!(r = mkdir_long(from)))
		from++;
	assert_int_equal(r, -ENOSPC);
	return from;
}

/* Files beside each other, so that pages of the index are free when they have gone; `open`: they
 * are. */
static void put_long(const char *kind, unsigned n, size_t bytes, struct file **open)
{
	uint64_t dir = kit_mkdir(e, kind);
	char name[LONG_NAME];

	for (unsigned i = 0; i < n; i++) {
		long_name(kind, i, name);
		assert_int_equal(put(name, i, bytes), 0);
		if (open)
			assert_int_equal(kit_open_name(e, name, 0, &open[i]), 0);
		assert_int_equal(kit_move(e, name, dir), 0);
	}
}

static void close_all(struct file **open, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(kit_close(open[i], 0), 0);
}

/* Of a kind that there is less of, too, if none of the other one can. */
static void each_kind_makes_room_in_the_index(size_t bytes_few, size_t bytes_many)
{
	struct file *open[MANY];
	int64_t before = metric_get(M_EVICTED_INDEX);

	put_long("many", MANY, bytes_many, open);
	put_long("few", FEW, bytes_few, NULL);
	fill_index(0);
	assert_int_equal(metric_get(M_EVICTED_INDEX) - before, FEW);
	close_all(open, MANY);
}

static void what_has_pages_makes_room_in_the_index(void **state)
{
	(void)state;
	each_kind_makes_room_in_the_index(4096, 0);
}

static void what_has_none_makes_room_in_the_index(void **state)
{
	(void)state;
	each_kind_makes_room_in_the_index(0, 4096);
}

static void *close_many_soon(void *arg)
{
	usleep(100000);
	close_all(arg, MANY);
	return NULL;
}

/* Who wants room in the index waits a moment as well. */
static void what_is_let_go_of_soon_makes_room_in_the_index(void **state)
{
	struct file *open[MANY];
	pthread_t t;

	(void)state;
	put_long("many", MANY, 0, open);
	unsigned n = fill_index(0);
	usleep(200000); /* nobody is held soon after that was in vain */
	assert_int_equal(pthread_create(&t, NULL, close_many_soon, open), 0);
	assert_int_equal(mkdir_long(n), 0);
	pthread_join(t, NULL);
}

/* And what others delete meanwhile is room as well. */
static void *unlink_soon(void *arg)
{
	uint64_t dir = *(uint64_t *)arg;
	char name[LONG_NAME];

	usleep(100000);
	for (unsigned i = 0; i < MANY; i++) {
		struct index_op op = { .parent = dir, .name = name };
		long_name("many", i, name);
		assert_int_equal(index_wait(engine_index(e), &op, index_unlink), 0);
		index_op_fini(&op);
	}
	return NULL;
}

static void what_is_unlinked_makes_room_in_the_index(void **state)
{
	struct file *open[MANY];
	struct attr a = { 0 };
	struct place place;
	pthread_t t;

	(void)state;
	put_long("many", MANY, 0, open);
	assert_int_equal(kit_lookup(e, "many", &a, &place), 0);
	unsigned n = fill_index(0);
	usleep(200000);
	assert_int_equal(pthread_create(&t, NULL, unlink_soon, &a.fileid), 0);
	assert_int_equal(mkdir_long(n), 0);
	pthread_join(t, NULL);
	close_all(open, MANY);
}

/* Who waits -------------------------------------------------------------------------------- */

static unsigned ntasks; /* that were run */

static void counts(struct task *t)
{
	(void)t;
	ntasks++;
}

/* All that wait, and they are answered as after a round in which n went. */
static void answer(struct inbox *b, unsigned n)
{
	inbox_answer(b, inbox_take_waiters(b), n, true, 0);
}

/* How long nothing went for somebody is counted from when something went last. */
static void what_goes_gives_more_time(void **state)
{
	struct evict_waiter w = { .task.fn = counts }, other = { .task.fn = counts };
	struct inbox b = { 0 };

	(void)state;
	ntasks = 0;
	inbox_init(&b);
	inbox_wait_pages(&b, 0, &w);
	answer(&b, 0);
	assert_int_equal(ntasks, 0);
	assert_true(w.vain_ns);
	w.vain_ns -= 10 * NS_PER_S;
	inbox_wait_pages(&b, 0, &other);
	answer(&b, 1);
	assert_int_equal(ntasks, 2);
	inbox_wait_pages(&b, 0, &w);
	answer(&b, 0);
	assert_int_equal(ntasks, 2); /* it is held again */
	w.vain_ns -= 10 * NS_PER_S;
	inbox_wait_pages(&b, 0, &other);
	answer(&b, 0);
	assert_int_equal(ntasks, 4); /* and so is the other one at once */
	assert_true(w.in_vain && other.in_vain);
	inbox_fini(&b);
}

/* When somebody has just waited in vain, others do not wait as long. */
static void many_have_no_room_soon(void **state)
{
	struct file *f;
	uint64_t n = 0;

	(void)state;
	assert_int_equal(kit_create(e, "fills", &f), 0);
	while (kit_write(f, n * sizeof(page), page, sizeof(page)) == sizeof(page))
		n++;
	uint64_t begun_ns = clock_ns();
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(put_number(i), -ENOSPC);
	assert_true(clock_ns() - begun_ns < 5 * NS_PER_S);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

/* At once, and nothing goes for it; what is removed by hand makes room. */
static void without_marks_a_full_pool_refuses(void **state)
{
	struct engine_space s;
	unsigned n = 0;
	int r;

	(void)state;
	while (!(r = put_number(n)))
		n++;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(n, POOL_BYTES / FILE_BYTES);
	uint64_t from_ns = clock_ns();
	assert_int_equal(put("more", 1, FILE_BYTES), -ENOSPC);
	assert_true(clock_ns() - from_ns < NS_PER_S);
	usleep(1500000); /* it looks at the marks each second */
	for (unsigned i = 0; i < n; i++)
		assert_true(is_number_there(i));
	engine_space(e, &s);
	assert_int_equal(s.evictable_bytes, 0);
	assert_int_equal(kit_unlink(e, "0"), 0);
	assert_int_equal(put("more", 1, FILE_BYTES), 0);
	assert_int_equal(metric_get(M_EVICTED_POOL), pool_evictions);
}

static void who_is_used_again_stays(void **state)
{
	(void)state;
	assert_int_equal(put("used", 77, FILE_BYTES), 0);
	for (unsigned i = 0; i < 100; i++) {
		struct file *f;
		assert_int_equal(put_number(i), 0);
		assert_int_equal(kit_open_name(e, "used", 0, &f), 0);
		reads(f, 77);
		assert_int_equal(kit_close(f, 0), 0);
	}
}

/* With all of its names; and what shares its slices keeps them. */
static void linked_and_shared(void **state)
{
	struct index_op op = { 0 };
	struct file *from = NULL, *to = NULL;
	struct attr a = { 0 };
	struct place place = { 0 };

	(void)state;
	assert_int_equal(put("one", 1, FILE_BYTES), 0);
	assert_int_equal(kit_lookup(e, "one", &a, &place), 0);
	op = (struct index_op){ .fileid = a.fileid, .place = place, .parent = INDEX_ROOT,
				.name = "two" };
	assert_int_equal(index_wait(engine_index(e), &op, index_link), 0);
	index_op_fini(&op);
	assert_int_equal(kit_open_name(e, "one", 0, &from), 0);
	assert_int_equal(kit_create(e, "copy", &to), 0);
	assert_int_equal(kit_copy(from, 0, to, 0, FILE_BYTES), FILE_BYTES);
	assert_int_equal(kit_publish(to, false), 0); /* and it is open still */
	assert_int_equal(kit_close(from, 0), 0);
	for (unsigned i = 10; i < 110; i++)
		assert_int_equal(put_number(i), 0);
	assert_int_equal(is_there("one"), is_there("two"));
	assert_true(is_there("copy"));
	reads(to, 1);
	assert_int_equal(kit_close(to, FILE_WRITE), 0);
}

struct told {
	unsigned n, names;
};

static void told(void *arg, const struct gone *g, const struct entry *names, uint32_t n)
{
	struct told *t = arg;

	assert_true(g->fileid && !g->attr.nlink);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(names[i].parent, INDEX_ROOT);
		assert_int_equal(strlen(names[i].name), names[i].name_len);
		t->names++;
	}
	t->n++;
}

static void each_is_told_of(void **state)
{
	struct told t = { 0 };
	unsigned there = 0;

	(void)state;
	engine_watch_eviction(e, &(struct eviction){ .evicted = told, .arg = &t });
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(put_number(i), 0);
	engine_watch_eviction(e, NULL);
	for (unsigned i = 0; i < 50; i++)
		there += is_number_there(i);
	assert_true(t.n && t.n == t.names);
	assert_int_equal(t.n + there, 50);
}

/* Extents in blocks of a tree, of which one has to be looked at. */
static void large_files_too(void **state)
{
	struct file *f, *open;

	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(kit_create(e, k ? "kept" : "large", &f), 0);
		for (uint64_t i = 0; i < 400; i++) /* each page a slice of its own */
			assert_int_equal(kit_write(f, (799 - i * 2) * 4096, page, 4096), 4096);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
	}
	assert_int_equal(kit_open_name(e, "kept", 0, &open), 0);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(put_number(i), 0);
	assert_false(is_there("large"));
	assert_true(is_there("kept"));
	assert_int_equal(kit_close(open, 0), 0);
}

/* A storm ------------------------------------------------------------------------------- */

enum { NAMES = 24, THREADS = 4 };

struct actor {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	unsigned wrote, read, missed;
};

static int act_put(uint64_t x, const char *name)
{
	return put(name, x | 1, 4096 + (x >> 8) % (2 * FILE_BYTES));
}

/* All words are those of one version. */
static void act_read(struct actor *a, const char *name)
{
	uint64_t word = 0;
	struct file *f;
	int r = kit_open_name(e, name, 0, &f);

	if (r) {
		assert_true(r == -ENOENT || r == -ESTALE);
		a->missed++;
		return;
	}
	if (kit_read(f, 0, &word, sizeof(word)) == sizeof(word))
		reads(f, word);
	assert_int_equal(kit_close(f, 0), 0);
	a->read++;
}

static void act_name(uint64_t x, const char *name, const char *other)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name, .parent2 = INDEX_ROOT,
			       .name2 = other };
	struct attr at;
	struct place place;

	if (x & 1) {
		int r = index_wait(engine_index(e), &op, index_rename);
		assert_true(r == 0 || r == INDEX_MISS);
		if (!r && op.gone.fileid && !op.gone.attr.nlink && !op.gone.hidden && !op.gone.draft)
			engine_drop(e, &op.gone);
	} else if (!kit_lookup(e, name, &at, &place)) {
		op = (struct index_op){ .fileid = at.fileid, .place = place,
					.parent = INDEX_ROOT, .name = other };
		int r = index_wait(engine_index(e), &op, index_link);
		assert_true(r == 0 || r == INDEX_MISS || r == -EEXIST);
	}
	index_op_fini(&op);
}

static void *acts(void *arg)
{
	struct actor *a = arg;
	char name[8], other[8];

	for (unsigned i = 0; i < 150; i++) {
		uint64_t x = random_next(&a->seed);
		snprintf(name, sizeof(name), "n%u", (unsigned)((x >> 32) % NAMES));
		snprintf(other, sizeof(other), "n%u", (unsigned)((x >> 40) % NAMES));
		switch (x % 8) {
		case 0: case 1: case 2: {
			/* Its own name: two drafts of one would be one too many. */
			snprintf(other, sizeof(other), "t%u", a->number);
			/* All of it may be open for a moment. */
			int r = act_put(x >> 3, other);
			assert_true(r == 0 || r == -ENOSPC);
			if (!r)
				act_name(1, other, name);
			a->wrote += !r;
			break;
		}
		case 3:
			act_name(x >> 3, name, other);
			break;
		default:
			act_read(a, name);
		}
	}
	return NULL;
}

static void what_is_pinned_stays(void **state)
{
	(void)state;
	put_number(1000);
	put_number(1001);
	set_keep("1000", INDEX_SET_PIN, (struct keep){ .pinned = KEEP_FOREVER });
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(put_number(i), 0);
	assert_true(is_number_there(1000));
	assert_false(is_number_there(1001));
	for (unsigned i = 0; i < 60; i++)
		if (is_number_there(i)) {
			char name[16];
			snprintf(name, sizeof(name), "%u", i);
			set_keep(name, INDEX_SET_PIN, (struct keep){ .pinned = KEEP_FOREVER });
		}
	for (unsigned i = 60; i < 70; i++) /* fills up what is left */
		if (put_number(i) == 0) {
			char name[16];
			snprintf(name, sizeof(name), "%u", i);
			set_keep(name, INDEX_SET_PIN, (struct keep){ .pinned = KEEP_FOREVER });
		}
	uint64_t began_ns = clock_ns();
	assert_int_equal(put_number(70), -ENOSPC);
	assert_true(clock_ns() - began_ns < 5 * NS_PER_S); /* at once, and not after a time-out */
	set_keep("1000", INDEX_SET_PIN, (struct keep){ 0 });
	assert_int_equal(put_number(71), 0);
	assert_false(is_number_there(1000));
}

static int ask(const char *name, void (*call)(struct engine *e, struct engine_ask *a),
	       struct engine_ask *x)
{
	struct attr a = { 0 };

	*x = (struct engine_ask){ 0 };
	assert_int_equal(kit_lookup(e, name, &a, &x->place), 0);
	x->fileid = a.fileid;
	return kit_ask(e, call, x);
}

static uint64_t dir_with_quota(const char *name, uint64_t bytes)
{
	uint64_t dir = kit_mkdir(e, name);
	struct index_op op = { .fileid = dir, .place = { .kind = PLACE_FILEID },
			       .mask = INDEX_SET_QUOTA, .attr.keep.quota = bytes };

	assert_int_equal(index_wait(engine_index(e), &op, index_setattr), 0);
	index_op_fini(&op);
	return dir;
}

static void put_into(uint64_t dir, const char *name)
{
	assert_int_equal(put(name, 1, FILE_BYTES), 0);
	assert_int_equal(kit_move(e, name, dir), 0);
}

/* How much there is in it, as soon as that is no more than so many bytes. */
static uint64_t is_kept_to(const char *dir, uint64_t bytes)
{
	struct engine_ask x = { 0 };

	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(ask(dir, engine_about, &x), 0);
		if (x.used && x.used <= bytes) /* 0: it is not known yet */
			break;
		usleep(10000);
	}
	return x.used;
}

/* Nothing else goes for it, and it may not be more for long. */
static void a_quota_is_kept_by_its_own(void **state)
{
	(void)state;
	put_number(1000);
	uint64_t dir = dir_with_quota("dir", 4 * FILE_BYTES);
	for (unsigned i = 0; i < 10; i++) {
		char name[16];
		snprintf(name, sizeof(name), "new%u", i);
		put_into(dir, name);
	}
	assert_in_range(is_kept_to("dir", 4 * FILE_BYTES), 2 * FILE_BYTES, 4 * FILE_BYTES);
	assert_true(is_number_there(1000));
	assert_int_equal(metric_get(M_EVICTED_POOL), pool_evictions);
}

/* Nor do others wait for one that cannot be kept. */
static void a_quota_that_cannot_be_kept_is_of_its_own(void **state)
{
	struct file *f = NULL;

	(void)state;
	uint64_t first = dir_with_quota("first", FILE_BYTES / 2);
	uint64_t second = dir_with_quota("second", 2 * FILE_BYTES);
	assert_int_equal(put("open", 1, FILE_BYTES), 0);
	assert_int_equal(kit_open_name(e, "open", 0, &f), 0);
	assert_int_equal(kit_move(e, "open", first), 0);
	put_into(second, "a");
	put_into(second, "b");
	put_into(second, "c");
	assert_in_range(is_kept_to("second", 2 * FILE_BYTES), FILE_BYTES, 2 * FILE_BYTES);
	assert_int_equal(is_kept_to("first", FILE_BYTES), FILE_BYTES);
	assert_int_equal(kit_close(f, 0), 0);
}

/* However much has to go for it. */
static void an_end_does_not_wait_for_a_quota(void **state)
{
	enum { FILES = 3000 };
	uint64_t dir = kit_mkdir(e, "dir");
	int64_t before = metric_get(M_EVICTED_QUOTA);
	char name[16];

	(void)state;
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(put(name, i, sizeof(page)), 0);
		assert_int_equal(kit_move(e, name, dir), 0);
	}
	struct index_op op = { .fileid = dir, .place = { .kind = PLACE_FILEID },
			       .mask = INDEX_SET_QUOTA, .attr.keep.quota = 1 };
	assert_int_equal(index_wait(engine_index(e), &op, index_setattr), 0);
	index_op_fini(&op);
	while (metric_get(M_EVICTED_QUOTA) == before)
		;
	engine_close(e);
	assert_true(metric_get(M_EVICTED_QUOTA) - before < FILES - 1);
	assert_int_equal(begin(95, 90), 0);
}

static void who_is_lower_goes_first(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(put_number(i), 0);
	set_keep("0", INDEX_SET_PRIORITY, (struct keep){ .priority = KEEP_HIGH });
	set_keep("3", INDEX_SET_PRIORITY, (struct keep){ .priority = KEEP_LOW });
	for (unsigned i = 4; i < 17; i++)
		assert_int_equal(put_number(i), 0);
	assert_false(is_number_there(3));
	assert_true(is_number_there(0));
	for (unsigned i = 17; i < 60; i++)
		assert_int_equal(put_number(i), 0);
	assert_true(is_number_there(0));
	assert_false(is_number_there(1));
}

/* Others go instead, though it comes before them. */
static void who_is_lower_and_open_holds_up_nobody(void **state)
{
	struct file *f = NULL;

	(void)state;
	assert_int_equal(put("low", 1, FILE_BYTES), 0);
	set_keep("low", INDEX_SET_PRIORITY, (struct keep){ .priority = KEEP_LOW });
	assert_int_equal(kit_open_name(e, "low", 0, &f), 0);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(put_number(i), 0);
	assert_true(is_there("low"));
	assert_int_equal(kit_close(f, 0), 0);
}

static bool goes(const char *name)
{
	for (unsigned i = 0; is_there(name) && i < 500; i++)
		usleep(10000);
	return !is_there(name);
}

static void what_has_lived_goes(void **state)
{
	struct file *f = NULL;

	(void)state;
	assert_int_equal(put("short", 1, 4096), 0);
	assert_int_equal(put("long", 2, 4096), 0);
	assert_int_equal(put("left.tmp", 3, 4096), 0);
	assert_int_equal(put("open.tmp", 4, 4096), 0);
	assert_int_equal(kit_open_name(e, "open.tmp", 0, &f), 0);
	set_keep("long", INDEX_SET_TTL, (struct keep){ .ttl = 3600 });
	set_keep("short", INDEX_SET_TTL, (struct keep){ .ttl = 1 });
	assert_true(goes("short"));
	assert_true(goes("left.tmp"));
	assert_true(is_there("long"));
	assert_true(is_there("open.tmp"));
	reads(f, 4);
	assert_int_equal(kit_close(f, 0), 0);
}

static void who_is_asked_to_go_goes(void **state)
{
	struct engine_ask x;
	struct file *f = NULL;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(put_number(i), 0);
	assert_int_equal(kit_open_name(e, "1", 0, &f), 0);
	assert_int_equal(ask("1", engine_about, &x), 0);
	assert_int_equal(x.hits, 1);
	assert_int_equal(x.expires, 0);
	assert_int_equal(ask("1", engine_evict, &x), 0);
	assert_false(is_number_there(1));
	reads(f, 1); /* P4 */
	assert_int_equal(kit_close(f, 0), 0);
	set_keep("2", INDEX_SET_PIN, (struct keep){ .pinned = KEEP_FOREVER });
	assert_int_equal(ask("2", engine_evict, &x), -EPERM);
	assert_int_equal(kit_open_name(e, "3", FILE_WRITE, &f), 0);
	assert_int_equal(ask("3", engine_evict, &x), -EBUSY);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	set_keep("3", INDEX_SET_TTL, (struct keep){ .ttl = 3600 });
	assert_int_equal(ask("3", engine_about, &x), 0);
	assert_true(x.expires > clock_now().tv_sec);
}

static void a_storm(void **state)
{
	struct actor a[THREADS];
	uint64_t seed = clock_ns();
	unsigned wrote = 0, read = 0, missed = 0;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < THREADS; i++) {
		a[i] = (struct actor){ .number = i, .seed = random_next(&seed) };
		assert_int_equal(pthread_create(&a[i].thread, NULL, acts, &a[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(a[i].thread, NULL);
		wrote += a[i].wrote;
		read += a[i].read;
		missed += a[i].missed;
	}
	print_message("%u written, %u read, %u were not there\n", wrote, read, missed);
	assert_true(wrote > 100 && read > 20);
}

#define TEST(t, s) cmocka_unit_test_setup_teardown(t, s, teardown)
#define SMALL_INDEX(t) \
	cmocka_unit_test_setup_teardown(t, setup_small_index, teardown_small_index)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_pool_that_is_full_goes_on, setup),
		TEST(from_the_high_mark_to_the_low_one, setup),
		TEST(what_is_open_stays, setup_late),
		TEST(no_room_if_all_is_open, setup_late),
		TEST(what_is_let_go_of_soon_makes_room, setup),
		TEST(what_is_let_go_of_soon_makes_room, setup_late),
		SMALL_INDEX(what_has_pages_makes_room_in_the_index),
		SMALL_INDEX(what_has_none_makes_room_in_the_index),
		SMALL_INDEX(what_is_let_go_of_soon_makes_room_in_the_index),
		SMALL_INDEX(what_is_unlinked_makes_room_in_the_index),
		cmocka_unit_test(what_goes_gives_more_time),
		TEST(many_have_no_room_soon, setup_late),
		TEST(without_marks_a_full_pool_refuses, setup_off),
		TEST(who_is_used_again_stays, setup),
		TEST(linked_and_shared, setup),
		TEST(each_is_told_of, setup_late),
		TEST(large_files_too, setup),
		TEST(what_is_pinned_stays, setup_late),
		TEST(a_quota_is_kept_by_its_own, setup),
		TEST(a_quota_is_kept_by_its_own, setup_off),
		TEST(a_quota_that_cannot_be_kept_is_of_its_own, setup),
		TEST(an_end_does_not_wait_for_a_quota, setup),
		TEST(who_is_lower_goes_first, setup_late),
		TEST(who_is_lower_and_open_holds_up_nobody, setup),
		TEST(who_is_lower_and_open_holds_up_nobody, setup_late),
		TEST(what_has_lived_goes, setup),
		TEST(what_has_lived_goes, setup_off),
		TEST(who_is_asked_to_go_goes, setup),
		TEST(who_is_asked_to_go_goes, setup_off),
		TEST(a_storm, setup),
		TEST(a_storm, setup_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
