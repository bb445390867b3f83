/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices: their states, generations, pins and references, over one segment of
 * memory (segment.c) whose free pages buddy.c knows.
 *
 * The hard idea: nobody frees a slice. A slice is free as soon as no pin and no
 * reference keeps it (settle()), in whatever order they go, so there is no path
 * on which somebody could forget to free it or do it twice (I2), and a pinned
 * slice is never reused (I4). Each free bumps the generation of its first page,
 * so an id that was kept too long finds nothing, never another's bytes (I3).
 *
 * Invariants (pool_check() walks them):
 * I1  each page is in one slice or one free block; what slices and free blocks
 *     hold adds up to the pool, by state, and so do the gauges.
 *     WRITING, SEALED: pins > 0, refs == 0. LIVE: refs > 0. DYING: pins > 0,
 *     refs == 0. No slice is longer than 1024 pages or begins where a block of
 *     its size could not.
 *
 * Threads: any; p->lock guards everything but the bytes. An entry's gen and
 * npages do not change while it is pinned (but by its owner's own pool_trim()),
 * so pool_span() and the verify bits go without the lock.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/auth.h"
#include "engine/buddy.h"
#include "engine/pool.h"
#include "engine/segment.h"
#include "index/index.h"

#define NSTATES 5u /* of enum slice_state */
#define WORD_BITS 64u

_Static_assert((int)SLICE_PAGES_MAX == (int)BUDDY_TOP_PAGES, "a slice is one block at most");

struct pool {
	uint32_t npages;         /* these are set by pool_open() and stay */
	uint32_t first_gen;      /* of a page that has none yet */
	struct segment segment;
	struct slice *table;
	/* A bit a page: adopted and not verified since. While adopting: in use. */
	_Atomic uint64_t *adopted;
	atomic_bool has_adopted; /* else nobody needs to look */

	struct lock lock;
	struct buddy buddy;
	uint32_t pages[NSTATES];
	uint32_t slices[NSTATES]; /* but FREE */
	uint64_t pins;
	_Atomic uint32_t nheld;  /* pages of what is LIVE and pinned */
	_Atomic uint32_t nfree;  /* = pages[SLICE_FREE]; read as a glance: relaxed */
	uint32_t low_pages;      /* pool_watch() */
	void (*low)(void *arg);
	void *low_arg;
};

/* How many pools this process has: with one, the gauges are its own. */
static atomic_int npools;

static const struct {
	const char *name;
	enum metric bytes, count;
} states[NSTATES] = {
	[SLICE_FREE] = { "free", M_SLICES_FREE, M_COUNT },
	[SLICE_WRITING] = { "writing", M_SLICES_WRITING, M_NSLICES_WRITING },
	[SLICE_SEALED] = { "sealed", M_SLICES_SEALED, M_NSLICES_SEALED },
	[SLICE_LIVE] = { "live", M_SLICES_LIVE, M_NSLICES_LIVE },
	[SLICE_DYING] = { "dying", M_SLICES_DYING, M_NSLICES_DYING },
};

const char *slice_state_name(enum slice_state s)
{
	return s < NSTATES ? states[s].name : "?";
}

static void count(struct pool *p, enum slice_state s, int64_t npages, int slices)
{
	p->pages[s] += (uint32_t)npages;
	metric_add(states[s].bytes, npages * PAGE_BYTES);
	if (s == SLICE_FREE) {
		atomic_store_explicit(&p->nfree, p->pages[s], memory_order_relaxed);
	} else if (slices) {
		p->slices[s] += (uint32_t)slices;
		metric_add(states[s].count, slices);
	}
}

static void count_pins(struct pool *p, int64_t n)
{
	p->pins += (uint64_t)n;
	metric_add(M_PINS, n);
}

static uint32_t held(const struct slice *e)
{
	return e->state == SLICE_LIVE && e->pins ? e->npages : 0;
}

/* After pins or the state changed, of a slice of which so much was held. */
static void count_held(struct pool *p, const struct slice *e, uint32_t was)
{
	uint32_t is = held(e);

	if (is != was)
		atomic_fetch_add_explicit(&p->nheld, is - was, memory_order_relaxed);
}

/* The only place where a slice's state changes (I1). */
static void become(struct pool *p, struct slice *e, enum slice_state to)
{
	count(p, e->state, -(int64_t)e->npages, -1);
	count(p, to, e->npages, 1);
	e->state = (uint8_t)to;
}

static void release(struct pool *p, struct slice *e)
{
	uint32_t page = (uint32_t)(e - p->table);

	become(p, e, SLICE_FREE);
	e->flags = 0;
	if (!++e->gen) /* I3 */
		e->gen = 1;
	buddy_give(&p->buddy, page, page + e->npages);
}

/* After pins or refs went down: what keeps it now? */
static void settle(struct pool *p, struct slice *e)
{
	if (e->refs)
		return;
	if (!e->pins)
		release(p, e);
	else if (e->state == SLICE_LIVE)
		become(p, e, SLICE_DYING);
}

/* The slice's entry, or NULL: it is gone (I3). */
static struct slice *find(struct pool *p, struct slice_id s)
{
	if (s.page >= p->npages)
		return NULL;
	struct slice *e = &p->table[s.page];
	bool is_it = (e->flags & ENTRY_HEAD) && e->state != SLICE_FREE && e->gen == s.gen;
	return is_it ? e : NULL;
}

/* Opening ------------------------------------------------------------------- */

static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Entries are looked up in no order, and the processor finds few small pages at once: when
	 * a store is opened that was half of the time. It costs memory where slices are
	 * large, since only their first entry is used: 0.4 % of the pool then, instead of 0.1. */
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

static size_t bitmap_bytes(const struct pool *p)
{
	return p->npages / 8;
}

static void fini(struct pool *p)
{
	if (p->table)
		munmap(p->table, (size_t)p->npages * sizeof(*p->table));
	if (p->adopted)
		munmap(p->adopted, bitmap_bytes(p));
	segment_fini(&p->segment);
	lock_fini(&p->lock);
	free(p);
}
DEFINE_CLEANUP(struct pool *, fini)

static int open_segment(const struct pool_opts *o, struct segment *ret)
{
	const uint64_t unit = (uint64_t)SLICE_PAGES_MAX * PAGE_BYTES;
	bool makes = o->create || !o->path;

	/* 2^31 pages are 8 TiB, and NO_PAGE is none of them. */
	if (makes && (!o->bytes || o->bytes % unit || o->bytes / PAGE_BYTES > 1u << 31))
		return -EINVAL;
	if (!o->path)
		return segment_anonymous(o->bytes, ret);
	if (o->create)
		return segment_create(o->path, o->bytes, ret);
	int r = segment_open(o->path, ret);
	if (r < 0)
		return r;
	if (ret->bytes % unit || ret->bytes / PAGE_BYTES > 1u << 31) {
		segment_fini(ret);
		return -EUCLEAN;
	}
	return 0;
}

int pool_open(const struct pool_opts *o, struct pool **ret)
{
	_cleanup_(finip) struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->segment = SEGMENT_NONE;
	lock_init(&p->lock, LOCK_POOL);
	int r = open_segment(o, &p->segment);
	if (r < 0)
		return r;
	p->npages = (uint32_t)(p->segment.bytes / PAGE_BYTES);
	/* What was given out before this start, and is in nobody's record, is known to sessions
	 * yet: so it begins elsewhere each time (I3). */
	p->first_gen = (uint32_t)auth_random_number() >> 1 | 1;
	p->table = reserve((size_t)p->npages * sizeof(*p->table));
	p->adopted = reserve(bitmap_bytes(p));
	if (!p->table || !p->adopted)
		return -ENOMEM;
	buddy_init(&p->buddy, p->table, p->npages);
	count(p, SLICE_FREE, p->npages, 0);
	atomic_fetch_add(&npools, 1);
	*ret = steal(&p);
	return 0;
}

void pool_close(struct pool *p)
{
	if (!p)
		return;
	assert(!p->pins);
	for (unsigned s = 0; s < NSTATES; s++)
		count(p, s, -(int64_t)p->pages[s], -(int)p->slices[s]);
	atomic_fetch_sub(&npools, 1);
	fini(p);
}

uint64_t pool_id(const struct pool *p)
{
	return p->segment.pool_id;
}

uint32_t pool_npages(const struct pool *p)
{
	return p->npages;
}

uint32_t pool_nfree(const struct pool *p)
{
	return atomic_load_explicit(&p->nfree, memory_order_relaxed);
}

uint32_t pool_nheld(const struct pool *p)
{
	return atomic_load_explicit(&p->nheld, memory_order_relaxed);
}

uint32_t pool_nsegments(const struct pool *p)
{
	(void)p;
	return 1;
}

struct pool_segment pool_segment(const struct pool *p, uint32_t i)
{
	assert(i == 0);
	return (struct pool_segment){ p->segment.base, 0, p->npages };
}

void *pool_page(struct pool *p, uint32_t page)
{
	assert(page < p->npages);
	return p->segment.base + (size_t)page * PAGE_BYTES;
}

/* Of a slice that is pinned, whose flags only pool_distrust() changes. */
static uint8_t flags_of(const struct slice *e)
{
	return __atomic_load_n(&e->flags, __ATOMIC_RELAXED);
}

void *pool_span(struct pool *p, struct slice_id s, uint64_t off, uint64_t len)
{
	const struct slice *e = &p->table[s.page < p->npages ? s.page : 0];

	/* The state may be changing, so it is not looked at; a free block has
	 * a generation that nobody was given yet. */
	if (s.page >= p->npages || !(flags_of(e) & ENTRY_HEAD) || e->gen != s.gen)
		return NULL;
	/* Relaxed: its owner may be trimming what the caller does not ask for. */
	uint64_t bytes = (uint64_t)__atomic_load_n(&e->npages, __ATOMIC_RELAXED) * PAGE_BYTES;
	if (off > bytes || len > bytes - off)
		return NULL;
	return (uint8_t *)pool_page(p, s.page) + off;
}

/* The life of a slice ------------------------------------------------------- */

int pool_alloc(struct pool *p, uint32_t npages, struct slice_id *ret,
	       uint32_t *ret_npages)
{
	uint32_t page;

	assert(npages >= 1 && npages <= SLICE_PAGES_MAX);
	WITH_LOCK(&p->lock);
	uint32_t n = buddy_take(&p->buddy, npages, &page);
	if (!n)
		return POOL_FULL;
	struct slice *e = &p->table[page];
	if (!e->gen)
		e->gen = p->first_gen;
	e->flags = ENTRY_HEAD;
	e->npages = (uint16_t)n;
	e->state = SLICE_WRITING;
	e->pins = 1;
	e->refs = 0;
	count(p, SLICE_FREE, -(int64_t)n, 0);
	count(p, SLICE_WRITING, n, 1);
	count_pins(p, 1);
	*ret = (struct slice_id){ page, e->gen };
	*ret_npages = n;
	if (p->low && p->pages[SLICE_FREE] < p->low_pages)
		p->low(p->low_arg);
	return 0;
}

void pool_watch(struct pool *p, uint32_t npages, void (*low)(void *arg), void *arg)
{
	WITH_LOCK(&p->lock);

	p->low_pages = npages;
	p->low = low;
	p->low_arg = arg;
}

int pool_trim(struct pool *p, struct slice_id s, uint32_t npages)
{
	WITH_LOCK(&p->lock);
	struct slice *e = find(p, s);

	if (!e)
		return -ESTALE;
	if (e->state != SLICE_WRITING || !npages || npages > e->npages)
		return -EINVAL;
	uint32_t end = s.page + e->npages, tail = e->npages - npages;
	__atomic_store_n(&e->npages, (uint16_t)npages, __ATOMIC_RELAXED);
	count(p, SLICE_WRITING, -(int64_t)tail, 0);
	count(p, SLICE_FREE, tail, 0);
	buddy_give(&p->buddy, s.page + npages, end);
	return 0;
}

int pool_pin(struct pool *p, struct slice_id s)
{
	WITH_LOCK(&p->lock);
	struct slice *e = find(p, s);

	if (!e)
		return -ESTALE;
	assert(e->pins < UINT32_MAX); /* each is an extent of some map in memory */
	uint32_t was = held(e);
	e->pins++;
	count_pins(p, 1);
	count_held(p, e, was);
	return 0;
}

int pool_unpin(struct pool *p, struct slice_id s)
{
	WITH_LOCK(&p->lock);
	struct slice *e = find(p, s);

	if (!e)
		return -ESTALE;
	if (!e->pins)
		return -EINVAL;
	uint32_t was = held(e);
	e->pins--;
	count_pins(p, -1);
	settle(p, e);
	count_held(p, e, was);
	return 0;
}

int pool_seal(struct pool *p, struct slice_id s)
{
	WITH_LOCK(&p->lock);
	struct slice *e = find(p, s);

	if (!e)
		return -ESTALE;
	if (e->state == SLICE_WRITING)
		become(p, e, SLICE_SEALED);
	return e->state == SLICE_SEALED ? 0 : -EINVAL;
}

/* Under the lock, as the next one. */
static int ref_one(struct pool *p, const struct slice_run *s)
{
	struct slice *e = find(p, s->id);

	if (!e || e->npages != s->npages)
		return -ESTALE;
	if (e->state == SLICE_WRITING || e->refs == UINT32_MAX)
		return -EINVAL;
	uint32_t was = held(e);
	e->refs++;
	if (e->state != SLICE_LIVE)
		become(p, e, SLICE_LIVE);
	count_held(p, e, was);
	return 0;
}

static int unref_one(struct pool *p, const struct slice_run *s)
{
	struct slice *e = find(p, s->id);

	if (!e || !e->refs)
		return -ESTALE;
	uint32_t was = held(e);
	e->refs--;
	settle(p, e);
	count_held(p, e, was);
	return 0;
}

int pool_ref(struct pool *p, const struct slice_run *v, uint32_t nv)
{
	WITH_LOCK(&p->lock);

	for (uint32_t i = 0; i < nv; i++) {
		int r = ref_one(p, &v[i]);
		if (r < 0) {
			while (i--)
				unref_one(p, &v[i]);
			return r;
		}
	}
	return 0;
}

int pool_unref(struct pool *p, const struct slice_run *v, uint32_t nv)
{
	WITH_LOCK(&p->lock);
	int r = 0;

	for (uint32_t i = 0; i < nv; i++) {
		int one = unref_one(p, &v[i]);
		r = r ? r : one;
	}
	return r;
}

/* Rebuild ------------------------------------------------------------------- */

static bool test_bit(const struct pool *p, uint32_t page)
{
	/* Relaxed: the bit says something about bytes that nobody changes. */
	return atomic_load_explicit(&p->adopted[page / WORD_BITS], memory_order_relaxed) >>
	       page % WORD_BITS & 1;
}

/* The bits of [page, end) that lie in page's word. */
static uint64_t word_mask(uint32_t page, uint32_t end)
{
	uint32_t from = page % WORD_BITS, n = end - page;

	return (n < WORD_BITS ? (UINT64_C(1) << n) - 1 : UINT64_MAX) << from;
}

static uint32_t next_word(uint32_t page)
{
	return (page / WORD_BITS + 1) * WORD_BITS;
}

/* Does [page, page + npages) touch a slice that was adopted? Else it is now. */
static bool claim(struct pool *p, uint32_t page, uint32_t npages)
{
	uint32_t end = page + npages;

	for (uint32_t i = page; i < end; i = next_word(i))
		if (atomic_load_explicit(&p->adopted[i / WORD_BITS], memory_order_relaxed) &
		    word_mask(i, end))
			return false;
	for (uint32_t i = page; i < end; i = next_word(i))
		atomic_fetch_or_explicit(&p->adopted[i / WORD_BITS], word_mask(i, end),
					 memory_order_relaxed);
	return true;
}

static bool can_be(const struct pool *p, const struct slice_run *s)
{
	return s->npages && s->npages <= SLICE_PAGES_MAX && s->id.page < p->npages &&
	       s->npages <= p->npages - s->id.page && s->id.gen &&
	       !(s->id.page & ((1u << buddy_order(s->npages)) - 1));
}

/* Under the lock. False: another slice is there. */
static bool adopt_one(struct pool *p, const struct slice_run *s, bool *ret_is_new)
{
	struct slice *e = &p->table[s->id.page];

	*ret_is_new = !(e->flags & ENTRY_HEAD);
	if (!*ret_is_new) {
		if (e->gen != s->id.gen || e->npages != s->npages || e->refs == UINT32_MAX)
			return false;
		e->refs++;
		return true;
	}
	if (!claim(p, s->id.page, s->npages))
		return false;
	*e = (struct slice){ .gen = s->id.gen, .refs = 1, .npages = (uint16_t)s->npages,
			     .state = SLICE_LIVE, .flags = ENTRY_HEAD | ENTRY_ADOPTED };
	return true;
}

void pool_expect(const struct pool *p, uint32_t page)
{
	if (page >= p->npages)
		return;
	__builtin_prefetch(&p->table[page], 1);
	__builtin_prefetch((const void *)&p->adopted[page / WORD_BITS], 1);
}

uint32_t pool_adopt(struct pool *p, const struct slice_run *v, uint32_t nv)
{
	uint32_t n = 0, pages = 0, slices = 0;
	bool is_new;

	WITH_LOCK(&p->lock);
	assert(!p->buddy.fresh); /* nothing was allocated yet */
	for (; n < nv && can_be(p, &v[n]) && adopt_one(p, &v[n], &is_new); n++) {
		pages += is_new ? v[n].npages : 0;
		slices += is_new;
	}
	if (slices)
		atomic_store_explicit(&p->has_adopted, true, memory_order_relaxed);
	count(p, SLICE_FREE, -(int64_t)pages, 0);
	count(p, SLICE_LIVE, pages, (int)slices);
	return n;
}

/* The first page from `page` on whose bit is `set`, or npages. */
static uint32_t next_bit(const struct pool *p, uint32_t page, bool set)
{
	while (page < p->npages) {
		uint64_t w = p->adopted[page / WORD_BITS];
		w = (set ? w : ~w) >> page % WORD_BITS;
		if (w)
			return page + (uint32_t)__builtin_ctzll(w);
		page = (page / WORD_BITS + 1) * WORD_BITS;
	}
	return p->npages;
}

void pool_adopted(struct pool *p)
{
	segment_map_rest(&p->segment); /* until now, adopting needed the processors */
	WITH_LOCK(&p->lock);
	uint32_t end = p->npages;

	if (!p->has_adopted)
		return;
	while (!p->adopted[end / WORD_BITS - 1])
		end -= WORD_BITS;
	buddy_skip_fresh(&p->buddy, end);
	for (uint32_t page = 0; page < p->buddy.fresh;) {
		uint32_t from = next_bit(p, page, false);
		page = next_bit(p, from, true);
		if (page > p->buddy.fresh)
			page = p->buddy.fresh;
		if (from < page)
			buddy_give(&p->buddy, from, page);
	}
}

bool pool_needs_verify(struct pool *p, struct slice_id s, uint32_t block)
{
	if (!atomic_load_explicit(&p->has_adopted, memory_order_relaxed) ||
	    !(flags_of(&p->table[s.page]) & ENTRY_ADOPTED))
		return false;
	return test_bit(p, s.page + block * SUM_PAGES);
}

void pool_verified(struct pool *p, struct slice_id s, uint32_t block)
{
	uint32_t page = s.page + block * SUM_PAGES;

	atomic_fetch_and_explicit(&p->adopted[page / WORD_BITS],
				  ~(UINT64_C(1) << page % WORD_BITS), memory_order_relaxed);
}

void pool_distrust(struct pool *p, struct slice_id s, uint32_t block)
{
	uint32_t page = s.page + block * SUM_PAGES;

	WITH_LOCK(&p->lock);
	/* First the bit: other blocks' may be from what was here before, which costs them a
	 * comparison. */
	atomic_fetch_or_explicit(&p->adopted[page / WORD_BITS], UINT64_C(1) << page % WORD_BITS,
				 memory_order_relaxed);
	struct slice *e = find(p, s);
	if (e)
		__atomic_store_n(&e->flags, e->flags | ENTRY_ADOPTED, __ATOMIC_RELAXED);
	atomic_store_explicit(&p->has_adopted, true, memory_order_relaxed);
}

/* Looking at it -------------------------------------------------------------- */

bool pool_next(struct pool *p, uint32_t page, struct slice_view *ret)
{
	WITH_LOCK(&p->lock);
	/* While adopting there are slices behind `fresh`. */
	uint32_t end = p->buddy.fresh ? p->buddy.fresh : p->has_adopted ? p->npages : 0;

	while (page < end) {
		const struct slice *e = &p->table[page];
		if (!(e->flags & ENTRY_HEAD)) {
			page++;
		} else if (e->state == SLICE_FREE) {
			page += e->npages;
		} else {
			*ret = (struct slice_view){ { page, e->gen }, e->state,
						    e->npages, e->pins, e->refs };
			return true;
		}
	}
	return false;
}

struct census {
	uint32_t pages[NSTATES], slices[NSTATES];
	uint64_t pins, held;
	struct writer *report;
	int bad;
};

static void __attribute__((format(printf, 2, 3)))
violation(struct census *c, const char *fmt, ...)
{
	char line[160];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	write_bytes(c->report, "pool: ", 6);
	write_bytes(c->report, line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
	write_bytes(c->report, "\n", 1);
	c->bad++;
}

static void check_head(struct census *c, uint32_t page, const struct slice *e)
{
	bool pins = e->pins, refs = e->refs, ok = false;

	switch ((enum slice_state)e->state) {
	case SLICE_FREE:
		return; /* buddy_check() */
	case SLICE_WRITING:
	case SLICE_SEALED:
	case SLICE_DYING:
		ok = pins && !refs;
		break;
	case SLICE_LIVE:
		ok = refs;
		break;
	}
	if (!ok)
		violation(c, "slice %u is %s with %u pins and %u references", page,
			  slice_state_name(e->state), e->pins, e->refs);
	if (!e->gen)
		violation(c, "slice %u has no generation", page);
	if (e->npages && page & ((1u << buddy_order(e->npages)) - 1))
		violation(c, "slice %u of %u pages cannot begin there", page, e->npages);
	c->pins += e->pins;
	c->held += held(e);
}

/* One pass over all pages that were ever used. */
static void check_table(struct pool *p, struct census *c)
{
	uint32_t page = 0, end = p->buddy.fresh;

	while (page < end) {
		const struct slice *e = &p->table[page];
		if (!(e->flags & ENTRY_HEAD) || e->state >= NSTATES || !e->npages ||
		    e->npages > SLICE_PAGES_MAX || e->npages > end - page) {
			violation(c, "page %u belongs to nothing", page);
			page++;
			continue;
		}
		check_head(c, page, e);
		for (uint32_t i = 1; i < e->npages; i++)
			if (e[i].flags & ENTRY_HEAD)
				violation(c, "page %u lies in what begins at %u",
					  page + i, page);
		c->pages[e->state] += e->npages;
		c->slices[e->state] += e->state != SLICE_FREE;
		page += e->npages;
	}
	c->pages[SLICE_FREE] += p->npages - end;
}

static void check_sums(struct pool *p, struct census *c)
{
	bool alone = atomic_load(&npools) == 1;

	for (unsigned s = 0; s < NSTATES; s++) {
		if (c->pages[s] != p->pages[s] || c->slices[s] != p->slices[s])
			violation(c, "%s: counted %u slices, %u pages; kept %u, %u",
				  states[s].name, c->slices[s], c->pages[s], p->slices[s],
				  p->pages[s]);
		if (!alone)
			continue;
		if (metric_get(states[s].bytes) != (int64_t)p->pages[s] * PAGE_BYTES ||
		    (s && metric_get(states[s].count) != p->slices[s]))
			violation(c, "%s: the gauge differs", states[s].name);
	}
	if (c->held != p->nheld)
		violation(c, "pages held: counted %llu, kept %u", (unsigned long long)c->held,
			  (unsigned)p->nheld);
	if (c->pins != p->pins || (alone && metric_get(M_PINS) != (int64_t)p->pins))
		violation(c, "pins: counted %llu, kept %llu, gauge %lld",
			  (unsigned long long)c->pins, (unsigned long long)p->pins,
			  (long long)metric_get(M_PINS));
	if (pool_nfree(p) != p->pages[SLICE_FREE])
		violation(c, "%u pages free at a glance, %u in truth", pool_nfree(p),
			  p->pages[SLICE_FREE]);
}

int pool_check(struct pool *p, struct writer *report)
{
	struct census c = { .report = report };

	WITH_LOCK(&p->lock);
	check_table(p, &c);
	check_sums(p, &c);
	return c.bad + buddy_check(&p->buddy, report);
}
