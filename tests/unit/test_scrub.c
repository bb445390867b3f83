/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/scrub.h: what rotted is found, in bodies of all kinds, by its path, and nothing else
 * is; what changes under it is no damage. One at a time, no faster than it was told, and it
 * stops when it is told.
 */
#include "engine/scrub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <pthread.h>
#include <unistd.h>

#include "common/log.h"
#include "engine/disk.h"
#include "engine/evict.h"
#include "engine/tier.h"

#include "tests/unit/disk_kit.h"
#include "tests/unit/file_kit.h"
#include "tests/unit/objects.h"

enum { POOL_BYTES = 64 << 20 };

static struct engine *e;

static int setup(void **state)
{
	const struct engine_opts o = { .in_memory = true, .pool_bytes = POOL_BYTES,
				       .evict_high = 80, .evict_low = 60 };

	(void)state;
	return engine_open(&o, &e, NULL);
}

static int teardown(void **state)
{
	(void)state;
	bool idle = kit_is_idle();
	engine_close(e);
	return idle ? 0 : -1;
}

/* One from its beginning to its end -------------------------------------------------- */

struct outcome {
	struct scrub_report all;
	char paths[4096]; /* of what is bad, each with a blank behind it */
	unsigned reasons; /* bits */
};

static void add_bad(struct outcome *o, const struct scrub_report *r)
{
	for (uint32_t i = 0; i < r->nbad; i++) {
		size_t at = strlen(o->paths);
		snprintf(o->paths + at, sizeof(o->paths) - at, "%.*s ", (int)r->bad[i].path.len,
			 (const char *)r->bad[i].path.p);
		o->reasons |= 1u << r->bad[i].reason;
	}
}

static bool look(struct scrub *s, struct outcome *o)
{
	struct writer w = { 0 };
	struct scrub_report r;

	scrub_write(s, &w);
	assert_true(w.len <= 64 << 10);
	assert_int_equal(scrub_read(writer_bytes(&w), &r), 0);
	add_bad(o, &r);
	o->all = r;
	scrub_report_fini(&r);
	writer_fini(&w);
	return r.ended;
}

static struct outcome scrub(bool evict_bad)
{
	struct scrub_opts opts = { .evict_bad = evict_bad };
	struct outcome o = { 0 };
	struct scrub *s;

	assert_int_equal(engine_scrub(e, &opts, &s), 0);
	while (!look(s, &o))
		usleep(1000);
	scrub_end(s);
	return o;
}

static void assert_sound(uint64_t objects)
{
	struct outcome o = scrub(false);

	assert_string_equal(o.paths, "");
	assert_int_equal(o.all.result, 0);
	assert_int_equal(o.all.bad_objects, 0);
	assert_int_equal(o.all.objects, objects);
}

static void assert_bad(struct outcome o, const char *paths, enum scrub_reason reason)
{
	assert_string_equal(o.paths, paths);
	assert_int_equal(o.all.result, 0);
	assert_int_equal(o.reasons, 1u << reason);
}

/* Objects ------------------------------------------------------------------------------ */

static void put(const char *name, uint64_t bytes, uint8_t with)
{
	uint8_t *b = malloc(bytes ? bytes : 1);
	struct file *f = NULL;

	memset(b, with, bytes);
	assert_int_equal(kit_create(e, name, &f), 0);
	assert_int_equal(kit_write(f, 0, b, bytes), bytes);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	free(b);
}

/* The byte changes that page p of the object of this number begins with. */
struct rot {
	uint64_t fileid, page;
	bool done;
};

static int rot_extents(void *arg, const struct attr *a, const struct extents *x)
{
	struct rot *r = arg;

	for (uint32_t i = 0; i < x->n && a->fileid == r->fileid; i++) {
		const struct extent *t = &x->v[i];
		if (r->page < t->page || r->page >= t->page + t->npages)
			continue;
		uint32_t page = t->slice + t->slice_off + (uint32_t)(r->page - t->page);
		*(volatile uint8_t *)pool_page(e->pool, page) ^= 1;
		r->done = true;
	}
	return 0;
}

static void rot(uint64_t fileid, uint64_t page)
{
	struct rot r = { fileid, page, false };
	struct index_visitor v = { .extents = rot_extents, .arg = &r };

	assert_int_equal(index_scan(e->ix, &v), 0);
	assert_true(r.done);
}

static uint64_t number_of(const char *name)
{
	struct attr a = { 0 };
	struct place place;

	assert_int_equal(kit_lookup(e, name, &a, &place), 0);
	return a.fileid;
}

static int64_t read_page(const char *name, uint64_t page)
{
	uint8_t b[PAGE_BYTES];
	struct file *f = NULL;

	assert_int_equal(kit_open_name(e, name, 0, &f), 0);
	int64_t r = kit_read(f, page * PAGE_BYTES, b, sizeof(b));
	assert_int_equal(kit_close(f, 0), 0);
	return r;
}

static void all_kinds(void **state)
{
	(void)state;
	assert_sound(0);
	put("empty", 0, 0);
	put("tiny", 100, 1);
	put("a", 300000, 2);
	put("b", 9 << 20, 3);
	assert_sound(4);
	rot(number_of("b"), 1500);
	assert_bad(scrub(false), "b ", SCRUB_BYTES);
	/* Who reads that block now finds out as well; who reads another does not. */
	assert_int_equal(read_page("b", 1500), -EIO);
	assert_int_equal(read_page("b", 1488), -EIO);
	assert_int_equal(read_page("b", 1487), PAGE_BYTES);
	assert_int_equal(read_page("a", 0), PAGE_BYTES);
	rot(number_of("a"), 73); /* its last page, of which it uses a part */
	assert_int_equal(scrub(false).all.bad_objects, 2);
	assert_int_equal(kit_unlink(e, "a"), 0);
	assert_int_equal(kit_unlink(e, "b"), 0);
	put("b", 9 << 20, 3);
	put("a", 300000, 2);
	assert_sound(4);
}

/* Single pages, so far from each other; how many extents there are says how they are listed. */
static void put_pages(const char *name, unsigned n, uint64_t stride)
{
	struct file *f = NULL;

	assert_int_equal(kit_create(e, name, &f), 0);
	for (unsigned i = 0; i < n; i++) {
		uint64_t words[PAGE_BYTES / 8] = { i };
		assert_int_equal(kit_write(f, i * stride, words, sizeof(words)), sizeof(words));
	}
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

static enum body_kind kind_of(const char *name)
{
	struct index_op op = { .fileid = number_of(name) };
	struct attr a;

	assert_int_equal(kit_lookup(e, name, &a, &op.place), 0);
	assert_int_equal(index_wait(e->ix, &op, index_stat), 0);
	enum body_kind kind = op.entry.body.kind;
	index_op_fini(&op);
	return kind;
}

static void in_blocks_and_trees(void **state)
{
	(void)state;
	put_pages("blocks", 600, 3 * PAGE_BYTES);
	put_pages("tree", 9000, REGION_PAGES * PAGE_BYTES);
	assert_int_equal(kind_of("blocks"), BODY_BLOCKS);
	assert_int_equal(kind_of("tree"), BODY_TREE);
	assert_sound(2);
	rot(number_of("blocks"), 3 * 599);
	assert_bad(scrub(false), "blocks ", SCRUB_BYTES);
	rot(number_of("blocks"), 3 * 599); /* and back */
	rot(number_of("tree"), 8999 * REGION_PAGES);
	assert_bad(scrub(true), "tree ", SCRUB_BYTES);
	assert_sound(1);
}

static struct index_op op_link(const char *name, const char *to, uint64_t dir)
{
	struct index_op op = { .parent = dir, .name = to };

	op.fileid = number_of(name);
	struct attr a = { 0 };
	assert_int_equal(kit_lookup(e, name, &a, &op.place), 0);
	return op;
}

static uint64_t make_dir(uint64_t parent, const char *name)
{
	struct index_op op = { .parent = parent, .name = name, .attr = { .mode = S_IFDIR | 0755 } };

	assert_int_equal(index_wait(e->ix, &op, index_make), 0);
	uint64_t dir = op.entry.attr.fileid;
	index_op_fini(&op);
	return dir;
}

static bool is_there(const char *name)
{
	struct attr a = { 0 };
	struct place place;

	return !kit_lookup(e, name, &a, &place);
}

static void told(void *arg, const struct gone *g, const struct entry *names, uint32_t n)
{
	(void)g;
	(void)names;
	*(unsigned *)arg += n;
}

static void evicted_with_all_names(void **state)
{
	uint64_t dir = make_dir(make_dir(INDEX_ROOT, "d"), "inner");
	unsigned names = 0;

	(void)state;
	put("f", 100000, 1);
	put("g", 100000, 2);
	struct index_op op = op_link("f", "second", dir);
	assert_int_equal(index_wait(e->ix, &op, index_link), 0);
	index_op_fini(&op);
	assert_sound(2);
	rot(number_of("f"), 3);
	struct outcome o = scrub(false);
	assert_true(!strcmp(o.paths, "f ") || !strcmp(o.paths, "d/inner/second "));
	assert_int_equal(o.all.evicted, 0);
	assert_true(is_there("f"));
	engine_watch_eviction(e, &(struct eviction){ .evicted = told, .arg = &names });
	o = scrub(true);
	engine_watch_eviction(e, NULL);
	assert_int_equal(o.all.evicted, 1);
	assert_int_equal(names, 2);
	assert_false(is_there("f"));
	assert_sound(1);
	check_clean(e);
}

/* It has another name, and its record is elsewhere, when its last block is looked at. */
static void what_moves_meanwhile_is_told_of_by_its_new_name(void **state)
{
	struct scrub_opts opts = { .evict_bad = true, .rate = 2 << 20 };
	struct outcome o = { 0 };
	struct scrub *s;

	(void)state;
	put("f", 4 << 20, 1);
	put("g", 100000, 2);
	uint64_t fileid = number_of("f");
	assert_int_equal(engine_scrub(e, &opts, &s), 0);
	while (!look(s, &o) && !o.all.bytes)
		usleep(1000);
	struct index_op op = op_link("f", "second", INDEX_ROOT);
	assert_int_equal(index_wait(e->ix, &op, index_link), 0);
	index_op_fini(&op);
	assert_int_equal(kit_unlink(e, "f"), 0);
	rot(fileid, (4 << 20) / PAGE_BYTES - 1);
	while (!look(s, &o))
		usleep(1000);
	scrub_end(s);
	assert_bad(o, "second ", SCRUB_BYTES);
	assert_int_equal(o.all.evicted, 1);
	assert_false(is_there("second"));
	assert_sound(1);
	check_clean(e);
}

static void what_is_open_or_a_draft_stays(void **state)
{
	uint8_t b[PAGE_BYTES] = { 7 };
	struct file *f = NULL, *draft = NULL;

	(void)state;
	put("f", 100000, 1);
	assert_int_equal(kit_open_name(e, "f", 0, &f), 0);
	assert_int_equal(kit_create(e, "draft", &draft), 0);
	assert_int_equal(kit_write(draft, 0, b, sizeof(b)), sizeof(b));
	assert_sound(1); /* what nobody has published has no sum */
	rot(number_of("f"), 3);
	struct outcome o = scrub(true);
	assert_int_equal(o.all.bad_objects, 1);
	assert_int_equal(o.all.evicted, 0);
	assert_true(is_there("f"));
	assert_int_equal(kit_close(f, 0), 0);
	assert_int_equal(scrub(true).all.evicted, 1);
	assert_int_equal(kit_close(draft, FILE_WRITE), 0);
	assert_sound(1);
}

/* Rows as no session may write them: nobody looks at what is written any more. */
static void damaged_and_foreign(void **state)
{
	struct extents x = { 0 };
	struct writer w = { 0 };
	struct attr a = object_attr(77, 1, 8);

	(void)state;
	put("sound", 100000, 1);
	evict_stop(e->evict);
	evict_free(e->evict);
	kv_observe_no_more(index_kv(e->ix), NULL);
	assert_true(make_extents(e, 77, 1, 8, 8, &x));
	x.v[0].pool_id++; /* as of a pool of another kind */
	put_record(e, &a, make_body(e, 77, BODY_EXTENTS, &x, &w));
	assert_int_equal(scrub(false).all.elsewhere, 1);
	assert_sound(2);
	x.v[0].pool_id--;
	x.v[0].gen++; /* a slice that is not there */
	w.len = 0;
	put_record(e, &a, make_body(e, 77, BODY_EXTENTS, &x, &w));
	assert_bad(scrub(false), "77 ", SCRUB_NO_SLICE);
	struct block_ref missing = { 0, 4711 };
	w.len = 0;
	assert_int_equal(body_encode_blocks(&missing, 1, &w), 0);
	put_record(e, &a, (struct body){ BODY_BLOCKS, writer_bytes(&w) });
	assert_bad(scrub(true), "77 ", SCRUB_BLOCKS);
	put_row(e, object_key(e, 78), BYTES_OF("\1rubbish", 8));
	struct outcome o = scrub(true);
	assert_int_equal(o.all.bad_objects, 1);
	assert_bad(o, "78 ", SCRUB_RECORD);
	x.v[0].gen--;
	unpin_extents(e, &x);
	extents_fini(&x);
	writer_fini(&w);
	put_row(e, object_key(e, 78), BYTES_NONE);
	e->evict = NULL;
}

/* What is on the disk --------------------------------------------------------------------- */

enum { DISK_FILES = 24, DISK_FILE_BYTES = 700000, SMALL_POOL_BYTES = 8 << 20 };

static struct disk_faults faults;

static int setup_disk(void **state)
{
	const struct engine_opts o = {
		.in_memory = true, .pool_bytes = SMALL_POOL_BYTES, .evict_high = 80,
		.evict_low = 60, .ssd = disk_kit_begin(), .ssd_bytes = 64 << 20,
		.ssd_wait_ms = 20000, .ssd_faults = &faults,
	};

	(void)state;
	faults = (struct disk_faults){ 0 };
	int r = engine_open(&o, &e, NULL);
	for (unsigned i = 0; !r && i < DISK_FILES; i++) {
		char name[8];
		snprintf(name, sizeof(name), "f%u", i);
		put(name, DISK_FILE_BYTES, (uint8_t)(i + 1));
	}
	return r;
}

static int teardown_disk(void **state)
{
	int r = teardown(state);

	disk_kit_end();
	return r;
}

/* The first object that is on the disk, and the page of the disk's file that it begins at. */
struct away {
	uint64_t fileid;
	uint32_t page;
};

static int away_extents(void *arg, const struct attr *a, const struct extents *x)
{
	struct away *w = arg;

	if (!w->fileid && x->n && x->v[0].pool_id == tier_id(e->tier))
		*w = (struct away){ a->fileid, x->v[0].slice };
	return 0;
}

static struct away find_away(void)
{
	struct away w = { 0 };
	struct index_visitor v = { .extents = away_extents, .arg = &w };

	assert_int_equal(index_scan(e->ix, &v), 0);
	assert_true(w.fileid);
	return w;
}

static void flip_on_disk(uint32_t page)
{
	char path[128];
	uint8_t byte;
	off_t at = (off_t)page * PAGE_BYTES + 4000;

	snprintf(path, sizeof(path), "%s/data", disk_kit_dir);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	assert_int_equal(close(fd), 0);
}

static unsigned files_there(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DISK_FILES; i++) {
		char name[8];
		struct attr a;
		struct place place;
		snprintf(name, sizeof(name), "f%u", i);
		n += !kit_lookup(e, name, &a, &place);
	}
	return n;
}

static void on_the_disk(void **state)
{
	(void)state;
	int64_t back = metric_get(M_DISK_PROMOTED);
	struct outcome o = scrub(false);

	assert_string_equal(o.paths, "");
	assert_int_equal(o.all.objects, DISK_FILES);
	assert_int_equal(o.all.elsewhere, 0);
	assert_true(o.all.bytes >= DISK_FILES * DISK_FILE_BYTES); /* more than the pool has */
	assert_true(o.all.total >= DISK_FILES * DISK_FILE_BYTES);
	flip_on_disk(find_away().page);
	o = scrub(false);
	assert_int_equal(o.all.bad_objects, 1);
	assert_int_equal(o.reasons, 1u << SCRUB_BYTES);
	o = scrub(true);
	assert_int_equal(o.all.evicted, 1);
	assert_int_equal(files_there(), DISK_FILES - 1);
	assert_int_equal(scrub(false).all.bad_objects, 0);
	assert_int_equal(metric_get(M_DISK_PROMOTED), back); /* that was no use of them */
}

static void a_disk_that_cannot_read(void **state)
{
	(void)state;
	atomic_store(&faults.only, DISK_READS);
	atomic_store(&faults.error, -EIO);
	atomic_store(&faults.fail_in, 2);
	struct outcome o = scrub(false);
	assert_int_equal(o.all.bad_objects, 1);
	assert_int_equal(o.reasons, 1u << SCRUB_UNREAD);
	assert_int_equal(scrub(false).all.bad_objects, 0); /* it has recovered */
}

static void one_at_a_time(void **state)
{
	struct scrub_opts slow = { .rate = 1 << 20 }, fast = { 0 };
	struct outcome o = { 0 };
	struct scrub *s, *other;

	(void)state;
	put("f", 8 << 20, 1);
	assert_int_equal(engine_scrub(e, &slow, &s), 0);
	assert_int_equal(engine_scrub(e, &fast, &other), -EBUSY);
	scrub_end(s);
	for (unsigned i = 0; metric_get(M_SCRUBS) && i < 1000; i++)
		usleep(1000);
	assert_int_equal(metric_get(M_SCRUBS), 0);
	int r;
	while ((r = engine_scrub(e, &fast, &s)) == -EBUSY)
		usleep(100); /* it is on its last lines */
	assert_int_equal(r, 0);
	while (!look(s, &o))
		usleep(1000);
	/* One that has ended is in nobody's way. */
	assert_int_equal(engine_scrub(e, &fast, &other), 0);
	scrub_end(other);
	scrub_end(s);
	scrub_end(NULL);
}

static void the_engine_ends_it(void **state)
{
	struct scrub_opts slow = { .rate = 1 << 20 };
	struct scrub *s;

	put("f", 8 << 20, 1);
	assert_int_equal(engine_scrub(e, &slow, &s), 0);
	scrub_end(s);
	engine_close(e);
	assert_int_equal(metric_get(M_SCRUBS), 0);
	assert_int_equal(setup(state), 0);
}

static void no_faster_than_it_was_told(void **state)
{
	struct scrub_opts o = { .rate = 8 << 20 };
	struct outcome out = { 0 };
	uint64_t from = clock_ns();
	struct scrub *s;

	(void)state;
	put("f", 4 << 20, 1);
	assert_int_equal(engine_scrub(e, &o, &s), 0);
	while (!look(s, &out))
		usleep(1000);
	scrub_end(s);
	assert_int_equal(out.all.bytes, 4 << 20);
	assert_true(clock_ns() - from >= 400 * NS_PER_MS); /* of 500, with one burst */
}

/* It is no use: who was scrubbed last goes when it is his turn all the same. And more bad ones
 * than one report holds are all told of. */
static void many_bad_ones(void **state)
{
	enum { MANY = 600 };
	struct scrub_opts opts = { 0 };
	struct outcome o = { 0 };
	struct scrub *s;
	unsigned told_of = 0;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%u", i);
		put(name, 5000, (uint8_t)i);
	}
	for (unsigned i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%u", i);
		rot(number_of(name), 0);
	}
	assert_int_equal(engine_scrub(e, &opts, &s), 0);
	for (bool ended = false; !ended;) {
		struct writer w = { 0 };
		scrub_write(s, &w);
		assert_int_equal(scrub_read(writer_bytes(&w), &o.all), 0);
		told_of += o.all.nbad;
		ended = o.all.ended;
		scrub_report_fini(&o.all);
		writer_fini(&w);
		usleep(ended ? 0 : 50000);
	}
	scrub_end(s);
	assert_int_equal(o.all.bad_objects, MANY);
	assert_int_equal(told_of, MANY);
}

/* A block is found bad while a read of it is under way that fetches less than the block. */
static int setup_far(void **state)
{
	const struct engine_opts o = { .in_memory = true, .pool_bytes = POOL_BYTES, .fault_seed = 1 };

	(void)state;
	return engine_open(&o, &e, NULL);
}

static int distrust(void *arg, const struct attr *a, const struct extents *x)
{
	struct slice_id s = { x->v[0].slice, x->v[0].gen };

	(void)a;
	assert_int_equal(pool_pin(e->pool, s), 0);
	if (arg)
		pool_distrust(e->pool, s, 0);
	else
		pool_verified(e->pool, s, 0);
	assert_int_equal(pool_unpin(e->pool, s), 0);
	return 0;
}

static void found_while_it_is_read(void **state)
{
	struct index_visitor all = { .extents = distrust, .arg = &all }, none = { .extents = distrust };
	struct file *f = NULL;

	(void)state;
	put("f", 300000, 1);
	assert_int_equal(kit_open_name(e, "f", 0, &f), 0);
	for (unsigned i = 0; i < 50; i++) {
		struct kit_wait w = KIT_WAIT;
		struct file_op op = { .file = f, .len = PAGE_BYTES, .done = kit_done, .arg = &w };
		assert_int_equal(index_scan(e->ix, &none), 0);
		file_read(&op);
		assert_int_equal(index_scan(e->ix, &all), 0);
		assert_int_equal(kit_wait(&w), PAGE_BYTES);
		file_read_end(&op);
	}
	assert_int_equal(kit_close(f, 0), 0);
}

/* Under others ---------------------------------------------------------------------------- */

static atomic_bool stop_storm;

static void *storm(void *arg)
{
	struct rng r = { (uintptr_t)arg };
	static const uint64_t sizes[] = { 0, 100, 5000, 70000, 300000, 2 << 20 };
	uint8_t *b = malloc(2 << 20);

	memset(b, (int)(uintptr_t)arg, 2 << 20);
	while (!stop_storm) {
		char name[16], to[16];
		struct file *f = NULL;
		/* Each its own: they are after the scrub, not after each other. */
		snprintf(name, sizeof(name), "%u-%u", (unsigned)(uintptr_t)arg,
			 (unsigned)rnd_below(&r, 6));
		snprintf(to, sizeof(to), "%u-%u", (unsigned)(uintptr_t)arg,
			 (unsigned)rnd_below(&r, 6));
		unsigned what = (unsigned)rnd_below(&r, 8);
		if (what < 5 && !kit_create(e, name, &f)) {
			kit_write(f, 0, b, sizes[rnd_below(&r, 6)]);
			kit_close(f, FILE_WRITE);
		} else if (what == 5 && !kit_open_name(e, name, FILE_WRITE, &f)) {
			kit_write(f, rnd_below(&r, 100000), b, 1 + rnd_below(&r, 9000));
			kit_close(f, FILE_WRITE);
		} else if (what == 6) {
			kit_unlink(e, name);
		} else {
			struct index_op op = { .parent = INDEX_ROOT, .name = name,
					       .parent2 = INDEX_ROOT, .name2 = to };
			if (!index_wait(e->ix, &op, index_rename) && op.gone.fileid &&
			    !op.gone.draft && !op.gone.attr.nlink)
				engine_drop(e, &op.gone);
			index_op_fini(&op);
		}
	}
	free(b);
	return NULL;
}

static void what_changes_under_it_is_not_bad(void **state)
{
	const char *n = getenv("STEPS");
	unsigned times = n ? (unsigned)atoi(n) : 60;
	uint64_t objects = 0;
	pthread_t t[3];

	(void)state;
	atomic_store(&stop_storm, false);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, storm, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < times; i++) {
		struct outcome o = scrub(i % 2);
		assert_string_equal(o.paths, "");
		assert_int_equal(o.all.bad_objects, 0);
		objects += o.all.objects;
		usleep(2000);
	}
	atomic_store(&stop_storm, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_true(objects > times);
	drops_wait(&e->drops);
	check_clean(e);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_kinds),
		TEST(in_blocks_and_trees),
		TEST(evicted_with_all_names),
		TEST(what_moves_meanwhile_is_told_of_by_its_new_name),
		TEST(what_is_open_or_a_draft_stays),
		TEST(damaged_and_foreign),
		TEST(one_at_a_time),
		TEST(the_engine_ends_it),
		TEST(no_faster_than_it_was_told),
		TEST(many_bad_ones),
		cmocka_unit_test_setup_teardown(found_while_it_is_read, setup_far, teardown),
		cmocka_unit_test_setup_teardown(on_the_disk, setup_disk, teardown_disk),
		cmocka_unit_test_setup_teardown(a_disk_that_cannot_read, setup_disk,
						teardown_disk),
		TEST(what_changes_under_it_is_not_bad),
	};

	log_open("/dev/null"); /* of hundreds that are bad */
	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
