/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Objects made by hand, for tests of what lies between index and pool: slices
 * filled, sealed and referenced, their extents in a record in the root directory.
 * The bytes of page p of version v of an object are a function of (fileid, v, p),
 * so that whoever finds an extent later can tell what must be in it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/priv.h"
#include "index/keys.h"
#include "tests/unit/idle_kit.h"

struct rng {
	uint64_t s;
};

static inline uint64_t rnd(struct rng *r)
{
	return random_next(&r->s);
}

static inline uint64_t rnd_below(struct rng *r, uint64_t n)
{
	return rnd(r) % n;
}

static inline uint64_t rnd_seed(void)
{
	const char *env = getenv("SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : clock_ns() ^ (uint64_t)getpid() << 32;

	printf("SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* What page p of version v of an object holds. */
static inline uint64_t page_word(uint64_t fileid, uint64_t version, uint64_t page)
{
	struct rng r = { fileid * 0x100000001b3ULL ^ version << 48 ^ page };

	return rnd(&r);
}

static inline void page_fill(void *p, uint64_t word)
{
	uint64_t *w = p;

	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		w[i] = word + i;
}

static inline bool page_holds(const void *p, uint64_t word)
{
	const uint64_t *w = p;

	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		if (w[i] != word + i)
			return false;
	return true;
}

static inline void sum_extent(struct pool *p, struct extent *x)
{
	uint32_t first = x->slice_off / SUM_PAGES;

	x->sums = malloc(extent_nsums(x) * sizeof(*x->sums));
	for (unsigned i = 0; i < extent_nsums(x); i++) {
		uint32_t from = (first + i) * SUM_PAGES, n = x->slice_pages - from;
		if (n > SUM_PAGES)
			n = SUM_PAGES;
		x->sums[i] = XXH3_64bits(pool_page(p, x->slice + from), (size_t)n * PAGE_BYTES);
	}
}

/* A slice of at most n pages with the bytes of page.. of that version, SEALED with
 * one pin; false: the pool is full. */
static inline bool make_slice(struct engine *e, uint64_t fileid, uint64_t version, uint64_t page,
			      uint32_t n, struct extent *ret)
{
	struct slice_id s;
	uint32_t got;
	int r = pool_alloc(e->pool, n, &s, &got);

	if (r == POOL_FULL)
		return false;
	assert_int_equal(r, 0);
	for (uint32_t i = 0; i < got; i++)
		page_fill(pool_page(e->pool, s.page + i), page_word(fileid, version, page + i));
	*ret = (struct extent){
		.pool_id = pool_id(e->pool), .page = page, .slice = s.page, .gen = s.gen,
		.npages = (uint16_t)got, .slice_pages = (uint16_t)got,
	};
	sum_extent(e->pool, ret);
	assert_int_equal(pool_seal(e->pool, s), 0);
	return true;
}

/* They are in the index, or never will be: what names them there holds them now. */
static inline void unpin_extents(struct engine *e, const struct extents *x)
{
	for (uint32_t i = 0; i < x->n; i++)
		assert_int_equal(pool_unpin(e->pool, (struct slice_id){ x->v[i].slice,
									x->v[i].gen }), 0);
}

static inline void extents_add(struct extents *x, struct extent e)
{
	if (x->n == x->cap) {
		x->cap = x->cap ? 2 * x->cap : 16;
		x->v = realloc(x->v, x->cap * sizeof(*x->v));
	}
	x->v[x->n++] = e;
}

/* Slices of at most `run` pages for npages, pinned; false: full, and nothing is left. */
static inline bool make_extents(struct engine *e, uint64_t fileid, uint64_t version,
				uint64_t npages, uint32_t run, struct extents *ret)
{
	struct extents x = { 0 };

	for (uint64_t page = 0; page < npages;) {
		uint64_t left = REGION_PAGES - page % REGION_PAGES;
		struct extent one;

		if (left > npages - page)
			left = npages - page;
		if (left > run)
			left = run;
		if (!make_slice(e, fileid, version, page, (uint32_t)left, &one)) {
			unpin_extents(e, &x);
			extents_fini(&x);
			return false;
		}
		page += one.npages;
		extents_add(&x, one);
	}
	*ret = x;
	return true;
}

static inline void put_block(struct engine *e, uint64_t fileid, struct block_ref b, struct bytes v)
{
	struct index_op op = { .fileid = fileid, .blocks = &b, .nblocks = 1, .values = &v };

	assert_int_equal(index_wait(e->ix, &op, index_put_blocks), 0);
	index_op_fini(&op);
}

/* The extents as a body of that kind; its bytes go to w. */
static inline struct body make_body(struct engine *e, uint64_t fileid, enum body_kind kind,
				    const struct extents *x, struct writer *w)
{
	struct block_ref refs[1024], tree[64];
	uint32_t nrefs = 0, ntree = 0;

	if (kind == BODY_EXTENTS) {
		assert_int_equal(body_encode_extents(x, w), 0);
		return (struct body){ kind, writer_bytes(w) };
	}
	for (uint32_t i = 0, n; i < x->n; i += n) {
		uint64_t region = x->v[i].page / REGION_PAGES;
		struct writer one = { 0 };

		for (n = 0; i + n < x->n && x->v[i + n].page / REGION_PAGES == region; n++)
			;
		struct extents part = { .v = x->v + i, .n = n };
		assert_int_equal(body_encode_extents(&part, &one), 0);
		assert_true(nrefs < 1024);
		refs[nrefs] = (struct block_ref){ region, index_new_id(e->ix) };
		put_block(e, fileid, refs[nrefs++], writer_bytes(&one));
		writer_fini(&one);
	}
	for (uint32_t i = 0; kind == BODY_TREE && i < nrefs; i += 3) { /* small ones */
		struct writer one = { 0 };
		uint32_t n = nrefs - i < 3 ? nrefs - i : 3;

		assert_int_equal(body_encode_blocks(refs + i, n, &one), 0);
		assert_true(ntree < 64);
		tree[ntree] = (struct block_ref){ refs[i].region, index_new_id(e->ix) };
		put_block(e, fileid, tree[ntree++], writer_bytes(&one));
		writer_fini(&one);
	}
	if (kind == BODY_TREE)
		assert_int_equal(body_encode_blocks(tree, ntree, w), 0);
	else
		assert_int_equal(body_encode_blocks(refs, nrefs, w), 0);
	return (struct body){ kind, writer_bytes(w) };
}

static inline struct key object_key(struct engine *e, uint64_t fileid)
{
	char name[32];

	snprintf(name, sizeof(name), "%llu", (unsigned long long)fileid);
	return key_name(INDEX_ROOT, name_hash(index_super(e->ix)->hash_key, bytes_str(name)),
			bytes_str(name));
}

static inline int put_row(struct engine *e, struct key k, struct bytes value)
{
	struct kv_write w = { .key = key_bytes(&k), .value = value };
	struct kv_req req = { .writes = &w, .nwrites = 1 };
	int r = kv_wait(index_kv(e->ix), &req);

	kv_req_fini(&req);
	return r;
}

static inline struct attr object_attr(uint64_t fileid, uint64_t version, uint64_t npages)
{
	return (struct attr){
		.fileid = fileid, .version = version, .size = npages * PAGE_BYTES,
		.pages = npages, .mode = S_IFREG | 0644, .nlink = 1,
		.atime = clock_now(), .mtime = clock_now(), .ctime = clock_now(),
		.btime = clock_now(),
	};
}

static inline void put_record(struct engine *e, const struct attr *a, struct body body)
{
	struct record rec = { .kind = RECORD_WHOLE, .attr = *a, .body = body };
	struct writer w = { 0 };

	record_encode(&rec, &w);
	assert_false(w.bad);
	assert_int_equal(put_row(e, object_key(e, a->fileid), writer_bytes(&w)), 0);
	writer_fini(&w);
}

/* An object of that many pages; false: the pool is full. */
static inline bool make_object(struct engine *e, uint64_t fileid, uint64_t version,
			       uint64_t npages, uint32_t run, enum body_kind kind)
{
	struct attr a = object_attr(fileid, version, npages);
	struct extents x;
	struct writer w = { 0 };

	if (!make_extents(e, fileid, version, npages, run, &x))
		return false;
	put_record(e, &a, make_body(e, fileid, kind, &x, &w));
	unpin_extents(e, &x);
	writer_fini(&w);
	extents_fini(&x);
	return true;
}

/* Its record, as `gone` of an unlink; *ret_row is to be freed. False: no record. */
static inline bool get_gone(struct engine *e, uint64_t fileid, struct gone *ret, void **ret_row)
{
	struct key k = object_key(e, fileid);
	struct kv_read read = { .from = key_bytes(&k), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;

	assert_int_equal(kv_wait(index_kv(e->ix), &req), 0);
	bool found = req.rows[0].nrows == 1;
	if (found) {
		struct bytes v = req.rows[0].rows[0].value;
		void *copy = malloc(v.len);
		memcpy(copy, v.p, v.len);
		assert_int_equal(record_decode(BYTES_OF(copy, v.len), &rec), 0);
		*ret = (struct gone){ .fileid = fileid, .attr = rec.attr, .body = rec.body };
		ret->attr.nlink = 0;
		*ret_row = copy;
	}
	kv_req_fini(&req);
	return found;
}

static inline bool unlink_object(struct engine *e, uint64_t fileid)
{
	struct gone g;
	void *row;

	if (!get_gone(e, fileid, &g, &row))
		return false;
	assert_int_equal(put_row(e, object_key(e, fileid), BYTES_NONE), 0);
	engine_drop(e, &g);
	free(row);
	return true;
}

/* Every extent of every object holds what its version wrote; counts them. */
struct verify {
	struct engine *e;
	uint64_t extents, pages;
	void (*object)(void *arg, const struct attr *a);
	void *arg;
};

static inline int verify_extents(void *arg, const struct attr *a, const struct extents *x)
{
	struct verify *v = arg;

	for (uint32_t i = 0; i < x->n; i++) {
		const struct extent *t = &x->v[i];
		for (uint32_t p = 0; p < t->npages; p++)
			assert_true(page_holds(pool_page(v->e->pool, t->slice + t->slice_off + p),
					       page_word(a->fileid, a->version, t->page + p)));
		v->pages += t->npages;
	}
	v->extents += x->n;
	if (v->object)
		v->object(v->arg, a);
	return 0;
}

static inline void verify_all(struct verify *v)
{
	struct index_visitor visitor = { .extents = verify_extents, .arg = v };

	assert_int_equal(index_scan(v->e->ix, &visitor), 0);
}

/* engine_check() finds nothing. */
static inline void check_clean(struct engine *e)
{
	struct writer w = { 0 };
	int r = engine_check(e, false, &w, NULL);

	if (r)
		fprintf(stderr, "%.*s", (int)w.len, (const char *)w.p);
	assert_int_equal(r, 0);
	writer_fini(&w);
}

/* P10, once everything is closed. */
