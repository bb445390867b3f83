/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One object, open on two mounts: what each open sees, what each handle goes on
 * seeing, and what is published when two write (engine/open.c, publish.c). A random
 * walk against a model of lines; then threads, with the index answering late.
 * SEED=n repeats a walk, STEPS=n makes it longer.
 */
#include <pthread.h>
#include <unistd.h>

#include "tests/unit/mounts_kit.h"

#include "common/clock.h"
#include "common/random.h"
#include "engine/open.h"
#include "tests/unit/file_kit.h"

enum {
	CELLS = 160,            /* stamps in the file, each an extent: so many that */
	STRIDE = 132 << 10,     /* their list leaves the record for blocks */
	HANDLES = 10,
};

struct content {
	uint64_t size;
	uint32_t cell[CELLS];
};

/* What handles of one mount share. */
struct line {
	struct file *f;
	unsigned handles, writers, mount;
	uint64_t id;            /* of the published version that it has grown from */
	bool dirty;
	struct content is;
};

struct handle {
	struct line *line;
	bool writes;
};

struct world {
	uint64_t random, id;
	struct mounts m;
	struct content published;
	struct line line[HANDLES];
	struct handle h[HANDLES];
	uint32_t stamp;
};

static struct mounts *mounts;

static unsigned pick(struct world *w, unsigned n)
{
	return (unsigned)(random_next(&w->random) % n);
}

static uint64_t seed_of(uint64_t seed)
{
	const char *s = getenv("SEED");

	return s ? strtoull(s, NULL, 0) : seed ? seed : clock_ns();
}

static unsigned steps(unsigned n)
{
	const char *s = getenv("STEPS");

	return s ? (unsigned)strtoul(s, NULL, 0) : n;
}

/* The walk ---------------------------------------------------------------------------- */

/* What an open on this mount is to find: a line of the published version, or none. */
static struct line *line_of(struct world *w, unsigned mount)
{
	for (unsigned i = 0; i < HANDLES; i++) {
		struct line *l = &w->line[i];
		if (l->handles && l->mount == mount && l->id == w->id)
			return l;
	}
	return NULL;
}

static struct line *line_new(struct world *w, unsigned mount, struct file *f)
{
	struct line *l = w->line;

	while (l->handles)
		l++;
	*l = (struct line){ .f = f, .mount = mount, .id = w->id, .is = w->published };
	return l;
}

static void check_line(struct world *w, struct line *l)
{
	unsigned from = pick(w, CELLS);
	struct attr a;

	file_attr(l->f, &a);
	assert_int_equal(a.size, l->is.size);
	for (unsigned n = 0; n < 8; n++) {
		unsigned i = (from + n * 13) % CELLS;
		uint32_t got = 0;
		int64_t r = kit_read(l->f, (uint64_t)i * STRIDE, &got, sizeof(got));
		assert_true(r >= 0);
		assert_int_equal(got, l->is.cell[i]);
	}
}

static void step_open(struct world *w, struct handle *h)
{
	unsigned mount = pick(w, KIT_MOUNTS), flags = pick(w, 3) ? FILE_WRITE : 0;
	struct line *l = line_of(w, mount);
	struct file *f;

	if (flags && !pick(w, 8))
		flags |= FILE_TRUNCATE;
	assert_int_equal(kit_open_name(w->m.e[mount], "f", flags, &f), 0);
	if (!l) {
		for (unsigned i = 0; i < HANDLES; i++)
			assert_true(!w->line[i].handles || w->line[i].f != f);
		l = line_new(w, mount, f);
	}
	assert_ptr_equal(l->f, f);
	l->handles++;
	l->writers += !!flags;
	h->line = l;
	h->writes = flags;
	if (flags & FILE_TRUNCATE) {
		l->is = (struct content){ 0 };
		l->dirty = true;
	}
}

static void published(struct world *w, struct line *l)
{
	if (!l->dirty)
		return;
	w->published = l->is;
	l->id = ++w->id;
	l->dirty = false;
}

static void step_close(struct world *w, struct handle *h)
{
	struct line *l = h->line;

	if (h->writes && !--l->writers)
		published(w, l);
	assert_int_equal(kit_close(l->f, h->writes ? FILE_WRITE : 0), 0);
	l->handles--;
	h->line = NULL;
}

static void step_write(struct world *w, struct line *l)
{
	for (unsigned n = 1 + pick(w, 4); n; n--) {
		unsigned i = pick(w, 4) ? pick(w, CELLS) : 0;
		uint32_t stamp = ++w->stamp;
		uint64_t off = (uint64_t)i * STRIDE;
		assert_int_equal(kit_write(l->f, off, &stamp, sizeof(stamp)), sizeof(stamp));
		l->is.cell[i] = stamp;
		if (l->is.size < off + sizeof(stamp))
			l->is.size = off + sizeof(stamp);
	}
	l->dirty = true;
}

static void step_fill(struct world *w, struct line *l)
{
	for (unsigned i = 0; i < CELLS; i++) {
		uint32_t stamp = ++w->stamp;
		assert_int_equal(kit_write(l->f, (uint64_t)i * STRIDE, &stamp, sizeof(stamp)),
				 sizeof(stamp));
		l->is.cell[i] = stamp;
	}
	l->is.size = (CELLS - 1ULL) * STRIDE + sizeof(uint32_t);
	l->dirty = true;
}

static void step_truncate(struct world *w, struct line *l)
{
	unsigned cells = pick(w, CELLS);

	l->is.size = (uint64_t)cells * STRIDE;
	assert_int_equal(kit_truncate(l->f, l->is.size), 0);
	for (unsigned i = cells; i < CELLS; i++)
		l->is.cell[i] = 0;
	l->dirty = true;
}

static void step(struct world *w)
{
	struct handle *h = &w->h[pick(w, HANDLES)];
	struct line *l = h->line;

	if (!l) {
		step_open(w, h);
		return;
	}
	unsigned what = pick(w, 12);
	if (what < 4)
		step_close(w, h);
	else if (what < 8 && h->writes)
		step_write(w, l);
	else if (what == 8 && h->writes)
		step_truncate(w, l);
	else if (what == 9 && h->writes)
		step_fill(w, l);
	else if (what == 10 && h->writes) {
		assert_int_equal(kit_publish(l->f, true), 0);
		published(w, l);
	} else
		check_line(w, l);
}

static void walk(uint64_t seed, struct engine_opts o, unsigned n)
{
	static struct world world;
	struct world *w = &world;
	struct file *f;

	printf("lines: SEED=%lu\n", seed);
	*w = (struct world){ .random = seed, .id = 1, .m = mounts_open(o) };
	assert_int_equal(kit_create(w->m.e[0], "f", &f), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	for (unsigned i = 0; i < n; i++)
		step(w);
	for (unsigned i = 0; i < HANDLES; i++)
		if (w->h[i].line)
			step_close(w, &w->h[i]);
	mounts_check(&w->m);
	assert_int_equal(kit_unlink(w->m.e[1], "f"), 0);
	mounts_idle();
	struct engine_space space;
	engine_space(w->m.e[0], &space);
	assert_int_equal(space.free_bytes, space.total_bytes);
	mounts_close(&w->m);
}

static void opens_and_publishes_match_the_model(void **state)
{
	(void)state;
	walk(seed_of(1), (struct engine_opts){ .verify = true }, steps(3000));
	walk(seed_of(0), (struct engine_opts){ 0 }, steps(3000));
}

static int wrap_kv(struct kv *inner, struct kv **ret)
{
	return kv_fault_open(inner, 11, true, ret);
}

static void the_same_when_answers_are_late(void **state)
{
	struct engine_opts o = { .wrap_kv = wrap_kv, .fault_seed = 3 };

	(void)state;
	walk(seed_of(2), o, steps(500));
}

/* What a lost session leaves open --------------------------------------------------------- */

static void what_was_lost_hinders_no_open(void **state)
{
	struct mounts m = mounts_open((struct engine_opts){ 0 });
	struct file *f, *g;
	char buf[5];

	(void)state;
	assert_int_equal(kit_create(m.e[0], "f", &f), 0);
	assert_int_equal(kit_write(f, 0, "first", 5), 5);
	assert_int_equal(kit_publish(f, true), 0);
	assert_int_equal(kit_write(f, 0, "other", 5), 5);
	f->lost = true; /* regain.c */
	assert_int_equal(kit_open_name(m.e[0], "f", FILE_WRITE, &g), 0);
	assert_ptr_not_equal(f, g);
	assert_int_equal(kit_read(g, 0, buf, 5), 5);
	assert_memory_equal(buf, "first", 5);
	assert_int_equal(kit_read(f, 0, buf, 5), -EIO);
	assert_int_equal(kit_close(f, FILE_WRITE), -EIO);
	assert_int_equal(kit_write(g, 0, "third", 5), 5);
	assert_int_equal(kit_close(g, FILE_WRITE), 0);
	assert_int_equal(kit_unlink(m.e[1], "f"), 0);
	mounts_close(&m);
}

/* Moved and removed elsewhere ---------------------------------------------------------------- */

static int open_at(struct engine *e, const struct attr *a, struct place at, unsigned flags,
		   struct file *known, struct file **ret)
{
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .done = kit_done, .arg = &w, .known = known };

	file_open(e, a->fileid, at, flags, &op);
	int r = (int)kit_wait(&w);
	if (!r)
		*ret = op.file;
	return r;
}

static void rename_to(struct engine *e, const char *from, const char *to)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = from,
			       .parent2 = INDEX_ROOT, .name2 = to };

	assert_int_equal(index_wait(engine_index(e), &op, index_rename), 0);
	if (op.gone.fileid && !op.gone.attr.nlink)
		engine_drop(e, &op.gone);
	index_op_fini(&op);
}

static void a_name_that_was_moved_is_not_opened(void **state)
{
	struct mounts m = mounts_open((struct engine_opts){ 0 });
	struct attr a = { 0 };
	struct place at = { 0 };
	struct file *f, *g;

	(void)state;
	assert_int_equal(kit_create(m.e[0], "f", &f), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_lookup(m.e[1], "f", &a, &at), 0);
	rename_to(m.e[0], "f", "g");
	/* Nothing is open. */
	assert_int_equal(open_at(m.e[1], &a, at, FILE_HERE, NULL, &f), -ESTALE);
	/* It is written to: so it can be followed, and is not at the name asked for. */
	assert_int_equal(kit_open_name(m.e[1], "g", FILE_WRITE, &f), 0);
	assert_int_equal(open_at(m.e[1], &a, at, FILE_HERE, NULL, &g), -ESTALE);
	assert_int_equal(open_at(m.e[1], &a, at, 0, NULL, &g), 0);
	assert_ptr_equal(f, g);
	assert_int_equal(kit_close(g, 0), 0);
	/* Removed: who has it may open it again, who knows its name may not. */
	assert_int_equal(kit_unlink(m.e[0], "g"), 0);
	assert_int_equal(open_at(m.e[1], &a, at, 0, NULL, &g), -ESTALE);
	assert_int_equal(open_at(m.e[1], &a, at, FILE_HERE, f, &g), -ESTALE);
	assert_int_equal(open_at(m.e[1], &a, at, 0, f, &g), 0);
	assert_ptr_equal(f, g);
	assert_int_equal(kit_close(g, 0), 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	mounts_close(&m);
}

/* Threads ---------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 150 };

static _Atomic uint32_t closed_stamp; /* the latest that a close has returned for */

static void fail_thread(const char *why, int64_t r)
{
	fprintf(stderr, "%s: %ld\n", why, (long)r);
	abort();
}

/* Versions say when they were made; who opens sees none from before the last close,
 * and all of his cells from one version. */
static void *reader(void *arg)
{
	struct engine *e = mounts->e[(uintptr_t)arg % KIT_MOUNTS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t least = closed_stamp, first = 0, other = 0;
		struct file *f;
		int r = kit_open_name(e, "f", 0, &f);
		if (r)
			fail_thread("open", r);
		int64_t n = kit_read(f, 0, &first, sizeof(first));
		if (n != sizeof(first) || first < least)
			fail_thread("an old version", (int64_t)first - least);
		n = kit_read(f, STRIDE, &other, sizeof(other));
		if (n != sizeof(other) || other != first)
			fail_thread("a torn version", other);
		kit_close(f, 0);
	}
	return NULL;
}

static _Atomic uint32_t next_stamp;
static pthread_mutex_t writing[KIT_MOUNTS] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
static pthread_mutex_t one_writer = PTHREAD_MUTEX_INITIALIZER;

static void write_both(struct file *f, uint32_t stamp)
{
	if (kit_write(f, 0, &stamp, sizeof(stamp)) < 0 ||
	    kit_write(f, STRIDE, &stamp, sizeof(stamp)) < 0)
		fail_thread("write", 0);
}

/* Stamps rise in the order of the closes, since only one mount writes at a time; a
 * reader on the writer's mount sees the draft (P3), so he is not looked at there. */
static void *writer(void *arg)
{
	struct engine *e = mounts->e[(uintptr_t)arg % KIT_MOUNTS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct file *f;
		pthread_mutex_lock(&one_writer);
		uint32_t stamp = ++next_stamp;
		int r = kit_open_name(e, "f", FILE_WRITE, &f);
		if (r)
			fail_thread("open", r);
		write_both(f, stamp);
		r = kit_close(f, FILE_WRITE);
		if (r)
			fail_thread("close", r);
		closed_stamp = stamp;
		pthread_mutex_unlock(&one_writer);
	}
	return NULL;
}

static void threads_see_what_was_closed(struct engine_opts o)
{
	struct mounts m = mounts_open(o);
	pthread_t t[THREADS];
	struct file *f;

	mounts = &m;
	next_stamp = closed_stamp = 0;
	assert_int_equal(kit_create(m.e[0], "f", &f), 0);
	write_both(f, 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, i % 2 ? reader : writer, (void *)(i % 2));
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(kit_unlink(m.e[0], "f"), 0);
	mounts_close(&m);
}

/* Two that write at once on each mount: the last close wins, whole. */
static void *rival(void *arg)
{
	unsigned mount = (uintptr_t)arg % KIT_MOUNTS;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct file *f;
		int r = kit_open_name(mounts->e[mount], "f", FILE_WRITE, &f);
		if (r)
			fail_thread("open", r);
		pthread_mutex_lock(&writing[mount]);
		write_both(f, ++next_stamp);
		if (i % 3 == 0) {
			r = (int)kit_publish(f, true);
			if (r)
				fail_thread("publish", r);
		}
		pthread_mutex_unlock(&writing[mount]);
		r = kit_close(f, FILE_WRITE);
		if (r)
			fail_thread("close", r);
	}
	return NULL;
}

static void rivals(struct engine_opts o)
{
	struct mounts m = mounts_open(o);
	pthread_t t[THREADS];
	struct file *f;

	mounts = &m;
	assert_int_equal(kit_create(m.e[0], "f", &f), 0);
	write_both(f, 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, rival, (void *)i);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	mounts_check(&m);
	assert_int_equal(kit_unlink(m.e[0], "f"), 0);
	mounts_close(&m);
}

static void readers_see_every_close(void **state)
{
	(void)state;
	threads_see_what_was_closed((struct engine_opts){ 0 });
	threads_see_what_was_closed((struct engine_opts){ .wrap_kv = wrap_kv, .fault_seed = 5 });
}

static void rivals_publish_whole_versions(void **state)
{
	(void)state;
	rivals((struct engine_opts){ 0 });
	rivals((struct engine_opts){ .wrap_kv = wrap_kv, .fault_seed = 5 });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_and_publishes_match_the_model),
		cmocka_unit_test(the_same_when_answers_are_late),
		cmocka_unit_test(what_was_lost_hinders_no_open),
		cmocka_unit_test(a_name_that_was_moved_is_not_opened),
		cmocka_unit_test(readers_see_every_close),
		cmocka_unit_test(rivals_publish_whole_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
