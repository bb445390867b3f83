/* SPDX-License-Identifier: Apache-2.0 */
/* fs/inode.c: references, places, and that no reader sees an old page. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "fs/inode.h"

static struct engine *engine;
static uint64_t seed;

static unsigned pick(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)(seed >> 32) % n;
}

static void walk(void (*one)(void))
{
	const char *given = getenv("SEED");
	uint64_t seeds[] = { 1, 2, 3, (uint64_t)time(NULL) | 1 };
	unsigned n = sizeof(seeds) / sizeof(seeds[0]);

	if (given) {
		seeds[0] = strtoull(given, NULL, 0);
		n = 1;
	}
	for (unsigned i = 0; i < n; i++) {
		seed = seeds[i] * 0x9e3779b97f4a7c15ULL;
		print_message("SEED=%llu\n", (unsigned long long)seeds[i]);
		one();
	}
}

static struct attr attr_of(uint64_t fileid)
{
	return (struct attr){ .fileid = fileid, .mode = S_IFREG | 0644, .nlink = 1 };
}

static const struct place named = { .kind = PLACE_NAME, .parent = 1, .h = 256 };
static const struct place draft = { .kind = PLACE_DRAFT };

static void drafted(struct index_op *op, int r)
{
	*(int *)op->arg = r;
}

/* An open draft without a name; with kv_mem every call is done when it returns. */
static struct file *file_new(struct attr *ret)
{
	int r = 1;
	struct index_op op = { .parent = INDEX_ROOT, .attr.mode = S_IFREG | 0644,
			       .done = drafted, .arg = &r };
	struct file *f;

	index_draft(engine_index(engine), &op);
	assert_int_equal(r, 0);
	*ret = op.entry.attr;
	index_op_fini(&op);
	assert_int_equal(file_create(engine, ret, &f), 0);
	return f;
}

static void closed(struct file_op *op, int64_t r)
{
	*(int64_t *)op->arg = r;
}

static void file_drop(struct file *f)
{
	int64_t r = 1;
	struct file_op op = { .file = f, .done = closed, .arg = &r };

	file_close(&op, FILE_WRITE);
	assert_true(r <= 0);
}

static void file_drop_reader(struct file *f)
{
	int64_t r = 1;
	struct file_op op = { .file = f, .done = closed, .arg = &r };

	file_close(&op, 0);
	assert_int_equal(r, 0);
}

/* References ------------------------------------------------------------------ */

enum { OBJECTS = 20 };

struct model {
	uint64_t nlookup;
	struct inode *refs[8];
	unsigned nrefs;
};

static void step_refs(struct inodes *t, struct model *m, uint64_t fileid)
{
	struct attr a = attr_of(fileid);
	struct inode *i;

	switch (pick(4)) {
	case 0:
		i = inode_know(t, &a, named);
		assert_non_null(i);
		assert_int_equal(i->nodeid, fileid);
		m->nlookup++;
		inode_put(t, i);
		break;
	case 1:
		i = inode_get(t, fileid);
		assert_int_equal(!!i, m->nlookup || m->nrefs);
		if (i && m->nrefs < 8)
			m->refs[m->nrefs++] = i;
		else
			inode_put(t, i);
		break;
	case 2:
		if (m->nrefs)
			inode_put(t, m->refs[--m->nrefs]);
		break;
	default:
		if (m->nlookup) {
			uint64_t n = 1 + pick((unsigned)m->nlookup);
			inode_forget(t, fileid, n);
			m->nlookup -= n;
		}
	}
}

static void walk_refs(void)
{
	struct model m[OBJECTS] = { 0 };
	struct inodes *t = inodes_new();

	for (int i = 0; i < 20000; i++) {
		unsigned known = 0, k = pick(OBJECTS);
		step_refs(t, &m[k], 100 + k);
		for (k = 0; k < OBJECTS; k++)
			known += m[k].nlookup || m[k].nrefs;
		assert_int_equal(metric_get(M_INODES), known);
		inodes_check(t);
	}
	for (unsigned k = 0; k < OBJECTS; k++)
		while (m[k].nrefs)
			inode_put(t, m[k].refs[--m[k].nrefs]);
	inodes_free(t);
	assert_int_equal(metric_get(M_INODES), 0);
}

static void test_refs(void **state)
{
	(void)state;
	walk(walk_refs);
}

/* Page cache ------------------------------------------------------------------ */

/*
 * The kernel in small: one page, which it has (of some version of the content)
 * or has not; handles that go through it or not, and are answered some time after
 * they were opened. Whoever reads must get the version that was written last.
 */
struct kernel {
	struct inodes *t;
	struct inode *i;
	struct file *f;
	unsigned written; /* the newest version */
	unsigned page;    /* the version in the page cache, 0: none */
	struct {
		bool open, reads, writes;
		bool answered; /* the program has it */
		struct req *next;
		struct caching caching;
	} h[6];
};

static void kernel_open(struct kernel *k, unsigned n)
{
	static const int flags[] = {
		O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_DIRECT,
		O_WRONLY | O_DIRECT, O_RDWR | O_DIRECT,
	};
	int f = flags[pick(6)];
	struct opens *spare = opens_new();

	struct open_how how = {
		.flags = f,
		.writer = (f & O_ACCMODE) != O_RDONLY,
		.stream = f == O_RDONLY && pick(2),
	};
	struct caching *c = &k->h[n].caching;

	inode_open(k->t, k->i, k->f, &how, &spare, c);
	free(spare);
	k->h[n].open = true;
	k->h[n].reads = (f & O_ACCMODE) != O_WRONLY;
	k->h[n].writes = (f & O_ACCMODE) != O_RDONLY;
	if (f & O_DIRECT)
		assert_true(c->direct);
	if (k->h[n].reads && !(f & O_DIRECT) && !how.stream)
		assert_false(c->direct);
	k->h[n].answered = false;
	if (!c->told && !inode_wait_dropped(k->t, k->i, (struct req *)&k->h[n], &k->h[n].next))
		k->h[n].answered = true;
}

/* The kernel has dropped its page. Whom that was for goes on, and who has waited. */
static void kernel_drop(struct kernel *k, unsigned n)
{
	if (!k->h[n].caching.told)
		return;
	k->page = 0;
	k->h[n].answered = true;
	struct req *q = inode_dropped(k->t, k->i);
	while (q) {
		for (n = 0; (struct req *)&k->h[n] != q;)
			n++;
		k->h[n].answered = true;
		q = k->h[n].next;
	}
}

static void kernel_close(struct kernel *k, unsigned n)
{
	if (k->h[n].writes)
		inode_stop_writing(k->t, k->i);
	inode_close(k->t, k->i, &k->h[n].caching);
	k->h[n].open = false;
}

/* Through the page cache: read(2) of a cached handle; of a direct one what was
 * mapped, or sendfile(2), which the table hears of only if there is no page. */
static void kernel_read(struct kernel *k, unsigned n)
{
	if (!k->h[n].reads)
		return;
	if (!k->page) {
		if (k->h[n].caching.direct)
			inode_mapped(k->t, k->i, &k->h[n].caching);
		k->page = k->written;
	}
	assert_int_equal(k->page, k->written);
}

static void kernel_write(struct kernel *k, unsigned n)
{
	if (!k->h[n].writes)
		return;
	k->written++;
	if (!k->h[n].caching.direct)
		k->page = k->written;
	else if (inode_wrote(k->t, k->i))
		k->page = 0;
}

static void walk_cache(void)
{
	struct attr a;
	struct kernel k = { .t = inodes_new(), .f = file_new(&a), .written = 1 };

	k.i = inode_know(k.t, &a, named);
	for (int i = 0; i < 50000; i++) {
		unsigned n = pick(6), what = pick(8);
		if (!k.h[n].open)
			kernel_open(&k, n);
		else if (!k.h[n].answered)
			kernel_drop(&k, n);
		else if (what == 0)
			kernel_close(&k, n);
		else if (what < 4)
			kernel_write(&k, n);
		else
			kernel_read(&k, n);
		inodes_check(k.t);
	}
	for (unsigned n = 0; n < 6; n++)
		if (k.h[n].open && !k.h[n].answered)
			kernel_drop(&k, n);
	for (unsigned n = 0; n < 6; n++)
		if (k.h[n].open)
			kernel_close(&k, n);
	file_drop(k.f);
	inode_put(k.t, k.i);
	inodes_free(k.t);
}

static void test_cache(void **state)
{
	(void)state;
	walk(walk_cache);
}

/* Places and attributes -------------------------------------------------------- */

struct fixture {
	struct inodes *t;
	struct inode *i;
	struct file *f;
	struct caching caching;
};

static struct fixture open_draft(void)
{
	struct attr a;
	struct fixture x = { .t = inodes_new(), .f = file_new(&a) };
	struct opens *spare = opens_new();

	x.i = inode_know(x.t, &a, draft);
	const struct open_how how = { .flags = O_WRONLY, .writer = true };

	inode_open(x.t, x.i, x.f, &how, &spare, &x.caching);
	assert_null(spare);
	return x;
}

static void close_draft(struct fixture *x)
{
	assert_true(inode_stop_writing(x->t, x->i));
	inode_close(x->t, x->i, &x->caching);
	file_drop(x->f);
}

static void end(struct fixture *x)
{
	inode_put(x->t, x->i);
	inodes_free(x->t);
}

static void test_draft_attributes(void **state)
{
	struct fixture x = open_draft();
	struct attr a, set = { .mode = 0600, .uid = 5 };

	(void)state;
	assert_true(inode_attr_here(x.t, x.i, &a));
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(inode_set_here(x.t, x.i, INDEX_SET_MODE | INDEX_SET_UID,
					&set), 0);
	assert_true(inode_attr_here(x.t, x.i, &a));
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_int_equal(a.uid, 5);
	assert_int_equal(inode_mode(x.t, x.i), S_IFREG | 0600);
	/* Attributes stand still while they are being published. */
	inode_publish_begin(x.t, x.i);
	assert_int_equal(inode_set_here(x.t, x.i, INDEX_SET_MODE, &set),
			 INODE_BUSY);
	inode_publish_end(x.t, x.i, 0);
	close_draft(&x);
	end(&x);
}

/* truncate(2) publishes without a handle: who opens the object meanwhile does not wait
 * for ever. */
static void test_published_without_a_handle(void **state)
{
	struct attr a, set = { .mode = 0600 };
	struct fixture x = { .t = inodes_new(), .f = file_new(&a) };
	const struct open_how how = { .flags = O_WRONLY, .writer = true };
	struct opens *spare = opens_new();

	(void)state;
	x.i = inode_know(x.t, &a, draft);
	inode_publish_begin(x.t, x.i);
	inode_open(x.t, x.i, x.f, &how, &spare, &x.caching);
	assert_int_equal(inode_set_here(x.t, x.i, INDEX_SET_MODE, &set), INODE_BUSY);
	inode_publish_end(x.t, x.i, 0);
	assert_int_equal(inode_set_here(x.t, x.i, INDEX_SET_MODE, &set), 0);
	inodes_check(x.t);
	close_draft(&x);
	end(&x);
}

static void test_lost_draft(void **state)
{
	struct fixture x = open_draft();
	struct attr a = attr_of(x.i->fileid);

	/* It had a name. */
	file_add_links(x.f, 1);

	(void)state;
	assert_int_equal(inode_check_lost(x.t, x.i), 0);
	inode_publish_begin(x.t, x.i);
	inode_publish_end(x.t, x.i, -ENOSPC);
	close_draft(&x);
	assert_int_equal(inode_check_lost(x.t, x.i), -ESTALE);
	assert_int_equal(inode_place(x.t, x.i).kind, PLACE_NONE);
	/* The published object that it hid is found again. */
	inode_put(x.t, inode_know(x.t, &a, named));
	assert_int_equal(inode_check_lost(x.t, x.i), 0);
	assert_int_equal(inode_place(x.t, x.i).kind, PLACE_NAME);
	end(&x);
}

/* Its unlink is done, and says so only after the last close: which had no name to
 * publish to, and lost nothing. */
static void test_draft_unlinked_at_its_close(void **state)
{
	struct fixture x = open_draft();
	struct gone g = { .fileid = x.i->fileid, .draft = true };
	struct attr a;

	(void)state;
	file_add_links(x.f, 1);
	inode_publish_begin(x.t, x.i);
	inode_publish_end(x.t, x.i, 0);
	close_draft(&x);
	inode_gone(x.t, &g);
	assert_int_equal(inode_check_lost(x.t, x.i), 0);
	assert_true(inode_attr_here(x.t, x.i, &a));
	assert_int_equal(a.nlink, 0);
	end(&x);
}

static void read_at_once(struct file_op *op, int64_t r)
{
	assert_int_equal(r, 0);
	*(struct file **)op->arg = op->file;
}

/* The file of an object without a name stays, with what was written, while the
 * kernel knows the object or until the room is needed. */
static void test_kept_file(void **state)
{
	(void)state;
	for (int forgotten = 0; forgotten < 2; forgotten++) {
		struct fixture x = open_draft();
		struct file *f = NULL, *was = x.f;
		struct file_op op = { .done = read_at_once, .arg = &f };
		close_draft(&x);
		assert_null(inode_kept(x.t, x.i));
		file_open(engine, x.i->fileid, inode_place(x.t, x.i), 0, &op);
		assert_ptr_equal(f, was);
		file_drop_reader(f);
		if (forgotten) {
			inode_forget(x.t, x.i->nodeid, 1);
			x.i = inode_put(x.t, x.i);
		} else {
			assert_true(inodes_drop_kept(x.t));
		}
		assert_false(inodes_drop_kept(x.t));
		end(&x);
	}
}

/* An answer from before the last name went, heard after it (an access time is set
 * without a lock of the kernel's). */
static void test_late_answer_names_nothing(void **state)
{
	struct fixture x = open_draft();
	struct gone g = { .fileid = x.i->fileid, .attr = attr_of(x.i->fileid) };
	struct attr a = g.attr;

	(void)state;
	file_add_links(x.f, 1);
	g.attr.nlink = 0;
	inode_gone(x.t, &g);
	inode_set_done(x.t, x.i, INDEX_SET_ATIME, &a);
	file_attr(x.f, &a);
	assert_int_equal(a.nlink, 0);
	close_draft(&x);
	end(&x);
}

static void test_unlinked(void **state)
{
	struct inodes *t = inodes_new();
	struct attr a = attr_of(40), got;
	struct gone g = { .fileid = 40, .attr = a };
	struct entry e = { .attr = a, .place = { .kind = PLACE_FILEID } };

	(void)state;
	a.mode = g.attr.mode = S_IFLNK | 0777;
	g.body = (struct body){ BODY_INLINE, bytes_str("over there") };
	struct inode *i = inode_know(t, &a, named);
	assert_false(inode_attr_here(t, i, &got));
	inode_moved(t, &e, true); /* a hard link */
	assert_int_equal(inode_place(t, i).kind, PLACE_FILEID);
	g.attr.nlink = 1;
	inode_gone(t, &g);
	assert_false(inode_attr_here(t, i, &got));
	g.attr.nlink = 0;
	inode_gone(t, &g);
	assert_true(inode_attr_here(t, i, &got));
	assert_int_equal(got.nlink, 0);
	/* Its attributes change here, but that it stays would be a promise about nothing. */
	assert_int_equal(inode_set_here(t, i, INDEX_SET_UID, &a), 0);
	assert_int_equal(inode_set_here(t, i, INDEX_SET_PIN | INDEX_SET_CTIME, &a), -ESTALE);
	char *target = inode_relic_target(t, i);
	assert_string_equal(target, "over there");
	free(target);
	inode_put(t, i);
	inodes_free(t);
}

/* What is evicted does not wait for who is looking at its name, or has just moved it. */
static void test_evicted_meanwhile(void **state)
{
	struct inodes *t = inodes_new();
	struct attr a = attr_of(46), got;
	struct gone g = { .fileid = 46, .attr = a };
	struct entry moved = { .attr = a, .place = { PLACE_NAME, 9, 512 } };
	struct inode *i = inode_know(t, &a, named), *again;

	(void)state;
	g.attr.nlink = 0;
	inode_gone(t, &g);
	inode_moved(t, &moved, false);
	assert_int_equal(inode_show(t, &a, named, 1, &again), 0);
	assert_ptr_equal(again, i);
	assert_int_equal(inode_place(t, i).kind, PLACE_NONE);
	assert_true(inode_attr_here(t, i, &got));
	assert_int_equal(got.nlink, 0);
	inode_put(t, again);
	inode_put(t, i);
	inodes_free(t);
}

/* A draft that was published, and forgotten by the kernel, while it was looked up as one. */
static void test_published_meanwhile(void **state)
{
	struct inodes *t = inodes_new();
	struct attr a = attr_of(47);
	struct inode *i;

	(void)state;
	assert_int_equal(inode_show(t, &a, draft, 1, &i), INODE_BUSY);
	assert_int_equal(inode_show(t, &a, named, 1, &i), 0);
	assert_int_equal(inode_place(t, i).kind, PLACE_NAME);
	inode_put(t, i);
	inodes_free(t);
}

static void test_given_up_meanwhile(void **state)
{
	struct fixture x = open_draft();
	struct attr a = attr_of(x.i->fileid);
	struct inode *i;

	(void)state;
	assert_int_equal(inode_show(x.t, &a, draft, 1, &i), 0);
	inode_put(x.t, i);
	close_draft(&x);
	assert_int_equal(inode_show(x.t, &a, draft, 1, &i), INODE_BUSY);
	assert_int_equal(inode_place(x.t, x.i).kind, PLACE_NONE);
	end(&x);
}

/* A lookup that is older than a move does not undo it. */
static void test_old_lookup(void **state)
{
	struct inodes *t = inodes_new();
	struct attr a = attr_of(50);
	struct entry e = { .attr = a, .place = { PLACE_NAME, 9, 512 } };
	struct inode *i = inode_know(t, &a, named);

	(void)state;
	inode_moved(t, &e, false);
	inode_put(t, inode_know(t, &a, named));
	assert_int_equal(inode_place(t, i).parent, 9);
	inode_put(t, i);
	inodes_free(t);
}

/* Files behind the table -------------------------------------------------------- */

/* With kv_mem all calls are done when they return. */
static struct index_op call(struct index_op op, void (*fn)(struct index *ix, struct index_op *op))
{
	int r = 1;

	op.done = drafted;
	op.arg = &r;
	fn(engine_index(engine), &op);
	assert_int_equal(r, 0);
	return op;
}

static struct file *file_named(const char *name, struct attr *ret)
{
	struct index_op op = call((struct index_op){ .parent = INDEX_ROOT, .name = name,
						     .attr.mode = S_IFREG | 0644 }, index_draft);
	struct file *f;

	*ret = op.entry.attr;
	index_op_fini(&op);
	assert_int_equal(file_create(engine, ret, &f), 0);
	return f;
}

static struct file *file_again(struct inodes *t, struct inode *i, unsigned flags)
{
	struct file *f = NULL;
	struct file_op op = { .done = read_at_once, .arg = &f };

	file_open(engine, i->fileid, inode_place(t, i), flags, &op);
	assert_non_null(f);
	return f;
}

static int64_t file_run(struct file *f, uint64_t off, void (*fn)(struct file_op *op))
{
	int64_t r = 1;
	struct file_op op = { .file = f, .off = off, .done = closed, .arg = &r };

	fn(&op);
	return r;
}

static uint64_t published_size(struct inode *i, struct place place)
{
	struct index_op op = call((struct index_op){ .fileid = i->fileid, .place = place },
				  index_stat);
	uint64_t size = op.entry.attr.size;

	index_op_fini(&op);
	return size;
}

static struct place published_place(uint64_t fileid)
{
	struct index_op op = call((struct index_op){ .fileid = fileid, .place = draft },
				  index_stat);
	struct place place = op.entry.place;

	index_op_fini(&op);
	return place;
}

static void unlink_named(const char *name)
{
	struct index_op op = call((struct index_op){ .parent = INDEX_ROOT, .name = name },
				  index_unlink);

	engine_drop(engine, &op.gone);
	index_op_fini(&op);
}

/* The index has unlinked the draft, its last close has found that out, it is opened to
 * write, and only then the unlink says so here. */
static void test_unlink_is_heard_of_late(void **state)
{
	struct inodes *t = inodes_new();
	const struct open_how how = { .flags = O_RDWR, .writer = true };
	struct opens *spare = opens_new();
	struct caching c;
	struct attr a;
	struct file *f = file_named("f", &a);
	struct inode *i = inode_know(t, &a, draft);
	struct gone g = { .fileid = a.fileid, .draft = true };

	(void)state;
	inode_open(t, i, f, &how, &spare, &c);
	unlink_named("f");
	assert_true(inode_stop_writing(t, i));
	inode_close(t, i, &c);
	file_drop(f);
	f = file_again(t, i, FILE_WRITE);
	spare = opens_new();
	inode_open(t, i, f, &how, &spare, &c);
	inode_gone(t, &g);
	file_attr(f, &a);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(file_run(f, 10, file_truncate), 0);
	assert_int_equal(file_run(f, 1, file_publish), 0);
	assert_true(inode_stop_writing(t, i));
	inode_close(t, i, &c);
	file_drop(f);
	inode_put(t, i);
	inodes_free(t);
}

/* A draft hides the file, which is open and opened to write; the draft is given up, so
 * that the file shows again: what is written then is published. */
static void test_shown_again_while_open(void **state)
{
	struct inodes *t = inodes_new();
	const struct open_how reads = { .flags = O_RDONLY };
	const struct open_how writes = { .flags = O_RDWR, .writer = true };
	struct opens *spare = opens_new();
	struct caching c, c2;
	struct attr a, hider;
	struct file *f = file_named("f", &a), *d;
	struct inode *i;

	(void)state;
	assert_int_equal(file_run(f, 1, file_publish), 0);
	struct place place = published_place(a.fileid);
	file_attr(f, &a);
	i = inode_know(t, &a, place);
	file_drop(f);
	f = file_again(t, i, 0);
	inode_open(t, i, f, &reads, &spare, &c);
	d = file_named("d", &hider);
	struct index_op op = call((struct index_op){
		.parent = INDEX_ROOT, .name = "d", .parent2 = INDEX_ROOT, .name2 = "f",
	}, index_rename);
	assert_true(op.gone.hidden);
	inode_gone(t, &op.gone);
	index_op_fini(&op);
	assert_ptr_equal(file_again(t, i, FILE_WRITE), f);
	inode_open(t, i, f, &writes, &spare, &c2);
	/* Its only handle discards it. */
	int64_t r = 1;
	struct file_op end_d = { .file = d, .done = closed, .arg = &r };
	file_close(&end_d, FILE_WRITE | FILE_DISCARD);
	assert_int_equal(r, 0);
	inode_put(t, inode_know(t, &a, place));
	file_attr(f, &a);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(file_run(f, 10, file_truncate), 0);
	assert_int_equal(published_size(i, place), 0);
	assert_int_equal(file_run(f, 1, file_publish), 0);
	assert_int_equal(published_size(i, place), 10);
	assert_true(inode_stop_writing(t, i));
	inode_close(t, i, &c2);
	file_drop(f);
	inode_close(t, i, &c);
	file_drop_reader(f);
	inode_put(t, i);
	inodes_free(t);
	unlink_named("f");
}

/* Who opens beside an open that has the kernel drop what it had waits for that. */
static void test_opened_beside_a_drop(void **state)
{
	struct inodes *t = inodes_new();
	const struct open_how how = { .flags = O_RDWR };
	struct opens *spare = opens_new();
	struct caching first, other[2];
	struct req *q[2] = { (struct req *)&other[0], (struct req *)&other[1] }, *next[2];
	struct attr a, old;
	struct file *f = file_new(&a);

	(void)state;
	inodes_share(t, 0);
	struct inode *i = inode_know(t, &a, named);
	old = a;
	old.version = a.version + 1;
	inode_told(t, i, &old);
	assert_int_equal(inode_open(t, i, f, &how, &spare, &first), 0);
	assert_true(first.told);
	for (unsigned n = 0; n < 2; n++) {
		assert_int_equal(inode_open(t, i, f, &how, &spare, &other[n]), 0);
		assert_false(other[n].told);
		assert_true(inode_wait_dropped(t, i, q[n], &next[n]));
		inodes_check(t);
	}
	assert_ptr_equal(inode_dropped(t, i), q[1]);
	assert_ptr_equal(next[1], q[0]);
	assert_null(next[0]);
	assert_false(inode_wait_dropped(t, i, q[0], &next[0]));
	inode_close(t, i, &first);
	for (unsigned n = 0; n < 2; n++)
		inode_close(t, i, &other[n]);
	file_drop(f);
	inode_put(t, i);
	inodes_free(t);
}

static int setup(void **state)
{
	const struct engine_opts o = { .in_memory = true,
				       .pool_bytes = 16 << 20,
				       .index_bytes = 64 << 20 };
	char *why = NULL;

	(void)state;
	int r = engine_open(&o, &engine, &why);
	if (r < 0)
		print_error("%s\n", why ? why : "engine_open");
	return r;
}

static int teardown(void **state)
{
	int64_t v = 0;
	const char *busy;

	(void)state;
	busy = metrics_busy(&v);
	if (busy)
		print_error("%s is %lld\n", busy, (long long)v);
	engine_close(engine);
	return busy ? -1 : 0;
}

static void count_drop(void *arg, const struct gone *g)
{
	assert_false(g->hidden);
	(*(unsigned *)arg)++;
}

/* What a draft's name hides is not the table's to drop before it is lost; and it is
 * itself again if the draft is given up. */
static void test_hidden(void **state)
{
	unsigned drops = 0;
	struct inodes *t = inodes_new();
	struct attr a = attr_of(60);
	struct gone g = { .fileid = 60, .attr = a, .hidden = true,
			  .body = { BODY_INLINE, bytes_str("x") } };

	(void)state;
	g.attr.nlink = 0;
	inodes_set_drop(t, count_drop, &drops);
	for (int lost = 0; lost < 2; lost++) {
		struct inode *i = inode_know(t, &a, named);
		inode_gone(t, &g);
		assert_true(inode_keep(t, &g));
		struct gone *kept = inode_kept(t, i);
		assert_true(kept && bytes_eq(kept->body.bytes, bytes_str("x")));
		free(kept);
		if (lost) {
			assert_true(inode_keep(t, &g));
			assert_false(inode_keep(t, &g));
		} else {
			inode_put(t, inode_know(t, &a, named));
			assert_int_equal(inode_place(t, i).kind, PLACE_NAME);
			assert_null(inode_kept(t, i));
		}
		inode_put(t, i);
		inode_forget(t, 60, 2);
		assert_int_equal(drops, lost);
	}
	inodes_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refs),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_draft_attributes),
		cmocka_unit_test(test_published_without_a_handle),
		cmocka_unit_test(test_lost_draft),
		cmocka_unit_test(test_draft_unlinked_at_its_close),
		cmocka_unit_test(test_kept_file),
		cmocka_unit_test(test_late_answer_names_nothing),
		cmocka_unit_test(test_unlinked),
		cmocka_unit_test(test_evicted_meanwhile),
		cmocka_unit_test(test_published_meanwhile),
		cmocka_unit_test(test_given_up_meanwhile),
		cmocka_unit_test(test_old_lookup),
		cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_unlink_is_heard_of_late),
		cmocka_unit_test(test_shown_again_while_open),
		cmocka_unit_test(test_opened_beside_a_drop),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
