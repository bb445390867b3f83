/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All invariants: slice table against itself (pool_check), index against itself
 * (index_check), and the index against the slice table: each extent names a slice
 * that is there, and each slice has as many references as extents in rows of the
 * index name it (pool.h). On a stopped store the bytes are compared with their
 * checksums, too.
 *
 * The index cannot be read in one moment while others write: an object that is
 * published, renamed or dropped meanwhile is counted twice or not at all. So what
 * looks wrong is only a suspect; it is looked at again after a while, and a
 * violation is what looked wrong in the very same way every time. What is really
 * wrong stays so, and what moves does not.
 *
 * Repair drops objects: all names of one, as unlink would. Which bytes were meant
 * nobody knows any more, so it never cuts, pads or redirects anything.
 *
 * Threads: one; beside it, others may do what they like if nothing is repaired.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/priv.h"
#include "engine/tier.h"
#include "engine/tier_log.h"

enum {
	ROUNDS = 8,            /* how often a suspect is looked at */
	FIRST_PAUSE_MS = 10,   /* doubles with each round: 1.3 s in all */
	LIST_PAGE = 256,
	LINES_MAX = 1000,      /* of one kind; the rest is counted */
};

enum suspect_kind { NO_SLICE, OTHER_REFS, OTHER_BYTES };

struct suspect {
	enum suspect_kind kind;
	uint32_t count;         /* OTHER_REFS: in the index. OTHER_BYTES: block */
	struct slice_id slice;
	uint64_t fileid;        /* 0: OTHER_REFS */
};

struct suspects {
	struct suspect *v;
	size_t n, cap;
};

static void suspects_fini(struct suspects *s)
{
	free(s->v);
}

static int add_suspect(struct suspects *s, struct suspect x)
{
	if (array_room(s->v, s->cap, s->n + 1, 64) < 0)
		return -ENOMEM;
	s->v[s->n++] = x;
	return 0;
}

#define CMP(a, b) ((a) < (b) ? -1 : (a) > (b))

static int suspect_cmp(const void *pa, const void *pb)
{
	const struct suspect *a = pa, *b = pb;
	int r = CMP(a->fileid, b->fileid);

	if (!r)
		r = CMP(a->slice.page, b->slice.page);
	if (!r)
		r = CMP(a->slice.gen, b->slice.gen);
	if (!r)
		r = CMP(a->kind, b->kind);
	return r ? r : CMP(a->count, b->count);
}

/* Sorts, and leaves each once. */
static void suspects_settle(struct suspects *s)
{
	size_t n = 0;

	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), suspect_cmp);
	for (size_t i = 0; i < s->n; i++)
		if (!n || suspect_cmp(&s->v[n - 1], &s->v[i]))
			s->v[n++] = s->v[i];
	s->n = n;
}

/* Keeps those of s that are in `again`, too; both are settled. */
static void suspects_keep(struct suspects *s, const struct suspects *again)
{
	size_t n = 0;

	for (size_t i = 0, j = 0; i < s->n && j < again->n;) {
		int r = suspect_cmp(&s->v[i], &again->v[j]);
		if (!r)
			s->v[n++] = s->v[i];
		i += r <= 0;
		j += r >= 0;
	}
	s->n = n;
}

/* One look ------------------------------------------------------------------------- */

struct look {
	struct engine *e;
	struct suspects *suspects;
	uint32_t *refs; /* by first page, of extents whose slice is there */
};

static uint64_t block_sum(struct pool *p, const struct extent *x, uint32_t block)
{
	uint32_t from = block * SUM_PAGES, n = x->slice_pages - from;

	if (n > SUM_PAGES)
		n = SUM_PAGES;
	return XXH3_64bits(pool_page(p, x->slice + from), (size_t)n * PAGE_BYTES);
}

/* Nothing else runs on a stopped store, so no pin is needed. */
static int look_at_bytes(struct look *l, uint64_t fileid, const struct extent *x)
{
	uint32_t first = x->slice_off / SUM_PAGES;
	int r = 0;

	for (unsigned i = 0; !r && i < extent_nsums(x); i++) {
		if (block_sum(l->e->pool, x, first + i) != x->sums[i])
			r = add_suspect(l->suspects, (struct suspect){
				.kind = OTHER_BYTES, .count = first + i, .fileid = fileid,
				.slice = { x->slice, x->gen } });
	}
	return r;
}

/* Offline the disk is not open, and what is on it is not looked at. */
static int look_away(struct look *l, uint64_t fileid, const struct extent *t)
{
	struct slice_run s = { { t->slice, t->gen }, t->slice_pages };

	if (!l->e->tier || !tier_log_check(tier_log_of(l->e->tier), &s))
		return 0;
	return add_suspect(l->suspects, (struct suspect){
		.kind = NO_SLICE, .fileid = fileid, .slice = { t->slice, t->gen } });
}

static int look_at_extent(void *arg, uint64_t fileid, const struct extent *t)
{
	struct look *l = arg;
	struct pool *p = l->e->pool;
	struct slice_view v;

	if (t->pool_id == l->e->disk_id)
		return look_away(l, fileid, t);
	if (t->pool_id != pool_id(p) || t->slice >= pool_npages(p) ||
	    !pool_next(p, t->slice, &v) || v.id.page != t->slice || v.id.gen != t->gen ||
	    v.npages != t->slice_pages)
		return add_suspect(l->suspects, (struct suspect){
			.kind = NO_SLICE, .fileid = fileid, .slice = { t->slice, t->gen } });
	l->refs[t->slice]++;
	return l->e->offline ? look_at_bytes(l, fileid, t) : 0;
}

static int look_at_extents(void *arg, const struct attr *a, const struct extents *x)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < x->n; i++)
		r = look_at_extent(arg, a->fileid, &x->v[i]);
	return r;
}

/* On a stopped store what versions consist of, as the rebuild has counted it: blocks
 * that a publish left behind are for the next start to collect. On a live one every
 * row counts, also of what is not published yet or gone already. */
static int look_at_index(struct look *l)
{
	struct index_visitor visitor = { .extents = look_at_extents, .arg = l };

	return l->e->offline ? index_scan(l->e->ix, &visitor) :
			       index_all_extents(l->e->ix, look_at_extent, l);
}

static int look(struct engine *e, struct suspects *ret)
{
	_cleanup_(freep) uint32_t *refs = calloc(pool_npages(e->pool), sizeof(*refs));
	_cleanup_(suspects_fini) struct suspects found = { 0 };
	struct look l = { .e = e, .suspects = &found, .refs = refs };
	struct slice_view v;

	if (!refs)
		return -ENOMEM;
	int r = look_at_index(&l);
	for (uint32_t page = 0; !r && pool_next(e->pool, page, &v); page = v.id.page + v.npages) {
		if (v.refs != refs[v.id.page])
			r = add_suspect(&found, (struct suspect){
				.kind = OTHER_REFS, .slice = v.id, .count = refs[v.id.page] });
	}
	if (r < 0)
		return r;
	suspects_settle(&found);
	*ret = found;
	found = (struct suspects){ 0 };
	return 0;
}

/* Longer and longer: on a busy machine an op may stand still for a while. */
static void pause_before(unsigned round)
{
	unsigned ms = FIRST_PAUSE_MS << (round - 1);
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* What looks wrong every time. -EUCLEAN: the index could not be read through, which
 * on a live engine may be an object that went while it was read. */
static int find_violations(struct engine *e, struct suspects *ret)
{
	_cleanup_(suspects_fini) struct suspects s = { 0 };
	bool have = false;
	int r = 0;

	for (unsigned round = 0; round < ROUNDS && !(have && !s.n); round++) {
		_cleanup_(suspects_fini) struct suspects again = { 0 };
		if (round)
			pause_before(round);
		r = look(e, &again);
		if (r < 0 && (r != -EUCLEAN || e->offline))
			return r;
		if (r < 0)
			continue;
		if (have) {
			suspects_keep(&s, &again);
		} else {
			s = again;
			again = (struct suspects){ 0 };
			have = true;
		}
		if (e->offline)
			break; /* nothing moves */
	}
	if (!have)
		return r;
	*ret = s;
	s = (struct suspects){ 0 };
	return 0;
}

/* Report ----------------------------------------------------------------------------- */

static uint32_t refs_of(struct engine *e, struct slice_id s)
{
	struct slice_view v;

	return pool_next(e->pool, s.page, &v) && v.id.page == s.page && v.id.gen == s.gen ?
	       v.refs : 0;
}

static void report_suspects(struct engine *e, const struct suspects *s, struct writer *w)
{
	for (size_t i = 0; i < s->n && i < LINES_MAX; i++) {
		const struct suspect *x = &s->v[i];
		switch (x->kind) {
		case NO_SLICE:
			write_format(w, "object %" PRIu64 ": names slice %u generation %u, which is "
				     "not there\n", x->fileid, x->slice.page, x->slice.gen);
			break;
		case OTHER_REFS:
			write_format(w, "slice %u generation %u: counts %u references, the index has "
				     "%u\n", x->slice.page, x->slice.gen, refs_of(e, x->slice),
				     x->count);
			break;
		case OTHER_BYTES:
			write_format(w, "object %" PRIu64 ": slice %u generation %u: the bytes of "
				     "block %u do not match their checksum\n", x->fileid,
				     x->slice.page, x->slice.gen, x->count);
			break;
		}
	}
	if (s->n > LINES_MAX)
		write_format(w, "... and %zu more\n", s->n - LINES_MAX);
}

/* Repair ------------------------------------------------------------------------------- */

/* A directory that is still to be gone through. */
struct todo {
	uint64_t fileid;
	char *path;
	struct todo *next;
};

struct repair {
	struct engine *e;
	const struct suspects *bad; /* settled: in order of fileid */
	struct writer *report;
	struct todo *todo;
	unsigned repaired;
};

static bool is_bad(const struct suspects *s, uint64_t fileid)
{
	size_t from = 0, to = s->n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		if (s->v[mid].fileid < fileid)
			from = mid + 1;
		else
			to = mid;
	}
	return from < s->n && s->v[from].fileid == fileid;
}

static int push(struct repair *p, uint64_t fileid, const char *parent, const char *name)
{
	struct todo *t = calloc(1, sizeof(*t));

	if (!t || asprintf(&t->path, "%s%s/", parent, name) < 0) {
		free(t);
		return -ENOMEM;
	}
	t->fileid = fileid;
	t->next = p->todo;
	p->todo = t;
	return 0;
}

/* In one line, whatever the names are. */
static void write_dropped(struct writer *report, uint64_t fileid, const char *dir, const char *name)
{
	_cleanup_(freep) char *path = NULL;
	size_t cap = 4 * (strlen(dir) + strlen(name)) + 8;
	_cleanup_(freep) char *quoted = malloc(cap);

	if (!quoted || asprintf(&path, "%s%s", dir, name) < 0) {
		report->bad = true;
		return;
	}
	error_quote(quoted, cap, path);
	write_format(report, "dropped object %" PRIu64 ": %s\n", fileid, quoted);
}

static int drop_name(struct repair *p, const struct todo *dir, const struct entry *en)
{
	struct index_op op = { .parent = dir->fileid, .name = en->name };
	int r = index_wait(p->e->ix, &op, index_unlink);

	if (!r) {
		engine_drop(p->e, &op.gone);
		write_dropped(p->report, en->attr.fileid, dir->path, en->name);
		p->repaired += op.gone.attr.nlink == 0;
	}
	index_op_fini(&op);
	return r == INDEX_MISS ? 0 : r;
}

static int drop_page(struct repair *p, const struct todo *dir, const struct index_op *page)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < page->nentries; i++) {
		const struct entry *en = &page->entries[i];
		if (S_ISDIR(en->attr.mode))
			r = push(p, en->attr.fileid, dir->path, en->name);
		else if (is_bad(p->bad, en->attr.fileid))
			r = drop_name(p, dir, en);
	}
	return r;
}

static int drop_in(struct repair *p, const struct todo *dir)
{
	uint64_t from = 0;
	bool more = true;
	int r = 0;

	while (!r && more) {
		struct index_op op = { .parent = dir->fileid, .from = from, .limit = LIST_PAGE };
		r = index_wait(p->e->ix, &op, index_list);
		if (!r)
			r = drop_page(p, dir, &op);
		more = op.more && op.nentries;
		if (op.nentries)
			from = op.entries[op.nentries - 1].h;
		index_op_fini(&op);
	}
	return r;
}

/* Goes through all directories: an object does not know its names. */
static int drop_bad(struct repair *p)
{
	int r = push(p, INDEX_ROOT, "", "");

	while (p->todo) {
		struct todo *t = p->todo;
		p->todo = t->next;
		if (!r)
			r = drop_in(p, t);
		free(t->path);
		free(t);
	}
	drops_wait(&p->e->drops);
	return r;
}

/* Calls ---------------------------------------------------------------------------------- */

static int check_slices(struct engine *e, bool repair, struct writer *report, unsigned *repaired)
{
	_cleanup_(suspects_fini) struct suspects s = { 0 };
	int r = find_violations(e, &s);

	if (r == -EUCLEAN) {
		write_format(report, "slices were not compared with the index: it cannot be read "
			     "through\n");
		return 1;
	}
	if (r < 0)
		return r;
	report_suspects(e, &s, report);
	if (repair && s.n) {
		struct repair p = { .e = e, .bad = &s, .report = report };
		r = drop_bad(&p);
		*repaired += p.repaired;
		if (r < 0)
			return r;
	}
	return s.n > INT32_MAX ? INT32_MAX : (int)s.n;
}

static void writer_finip(struct writer *w)
{
	writer_fini(w);
}

static bool has_line(const struct writer *w, struct bytes line)
{
	struct bytes left = writer_bytes(w);

	while (left.len >= line.len && left.len) {
		const char *end = memchr(left.p, '\n', left.len);
		size_t n = end ? (size_t)(end - (const char *)left.p) + 1 : left.len;
		if (bytes_eq(BYTES_OF(left.p, n), line))
			return true;
		left = BYTES_OF((const char *)left.p + n, left.len - n);
	}
	return false;
}

/* Keeps the lines of w that are in `again`, too; how many. */
static int keep_lines(struct writer *w, const struct writer *again)
{
	size_t kept = 0;
	int lines = 0;

	for (size_t at = 0, n; at < w->len; at += n) {
		const uint8_t *end = memchr(w->p + at, '\n', w->len - at);
		n = end ? (size_t)(end - (w->p + at)) + 1 : w->len - at;
		if (has_line(again, BYTES_OF(w->p + at, n))) {
			memmove(w->p + kept, w->p + at, n);
			kept += n;
			lines++;
		}
	}
	w->len = kept;
	return lines;
}

static int report_index(struct engine *e, struct writer *report)
{
	return index_check(e->ix, e->offline ? INDEX_CHECK_STOPPED : INDEX_CHECK_LIVE, report, NULL);
}

/* What moves to the disk or back is counted in two places for a moment. */
static int report_disk(struct engine *e, struct writer *report)
{
	return e->tier ? tier_check(e->tier, report) : 0;
}

/* On a live engine, what is said every time. */
static int report_again(struct engine *e, int (*see)(struct engine *e, struct writer *report),
		      struct writer *report)
{
	_cleanup_(writer_finip) struct writer found = { 0 };
	int r = see(e, &found);

	for (unsigned round = 1; r > 0 && round < ROUNDS && !e->offline; round++) {
		_cleanup_(writer_finip) struct writer again = { 0 };
		pause_before(round);
		int r2 = see(e, &again);
		if (r2 < 0)
			return r2;
		r = keep_lines(&found, &again);
	}
	write_bytes(report, found.p, found.len);
	return r;
}

int engine_check_index(struct engine *e)
{
	int r = index_check(e->ix, INDEX_CHECK_REPAIR, &e->index_report, &e->index_repaired);

	if (r < 0)
		return r;
	e->index_violations = r;
	return 0;
}

int engine_check(struct engine *e, bool repair, struct writer *report, unsigned *ret_repaired)
{
	unsigned repaired = 0;
	int index, slices, table, disk;

	if (repair && (!e->offline || e->read_only))
		return -EINVAL;
	if (e->peer)
		return 0;
	table = pool_check(e->pool, report);
	disk = report_again(e, report_disk, report);
	if (repair) {
		/* It was checked, and repaired, before the slices were rebuilt. */
		write_bytes(report, e->index_report.p, e->index_report.len);
		index = e->index_violations;
		repaired = e->index_repaired;
	} else {
		index = report_again(e, report_index, report);
	}
	if (table < 0 || index < 0)
		return table < 0 ? table : index;
	slices = check_slices(e, repair, report, &repaired);
	if (slices < 0)
		return slices;
	if (report->bad)
		return -ENOMEM;
	if (ret_repaired)
		*ret_repaired = repaired;
	return table + disk + index + slices;
}
