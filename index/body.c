/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies: extents and block references as bytes. Extents of one region (a block
 * E) and of a whole file (in its record) have one encoding:
 *
 *   u8 npools, npools times u64 pool id
 *   per region:  varint regions since the one before (the first: since 0),
 *                varint count of extents
 *     per extent:  u16 page in the region, npages, slice_off, slice_pages,
 *                  u32 slice, gen, u8 pool, u8 flags (0)             18 bytes
 *                  u64 sums[extent_nsums()]
 *
 * so that a file of one page has 37 bytes, its record 149. References:
 *
 *   per block:   varint regions since the one before, u64 id
 *
 * Integers are little-endian, varints 7 bits a byte, lowest first, none longer
 * than need be; pools are listed in order of their first use. So what decodes has
 * one encoding only, and encodes to the same bytes again.
 *
 * Bytes come from a disk: a decoder allocates in proportion to what it has read,
 * and takes nothing that the pool could not hold. Pure functions; any thread.
 */
#include <errno.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "index/index.h"

enum {
	POOLS_MAX = 255,
	POOL_BYTES = 8,
	EXTENT_BYTES = 18,
	EXTENT_BYTES_MIN = EXTENT_BYTES + 8,
	SLICE_PAGES = 1024, /* the longest slice, as in engine/pool.h */
};

/* One more than the last region: offsets have 63 bits. */
static const uint64_t REGIONS_MAX = (UINT64_C(1) << 63) / PAGE_BYTES / REGION_PAGES;

static void write_varint(struct writer *w, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		write_u8(w, (uint8_t)(v | 0x80));
	write_u8(w, (uint8_t)v);
}

/* Sets `bad` on an overflow, and on a last byte of zero: it could be left out. */
static uint64_t read_varint(struct reader *r)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 63; shift += 7) {
		uint8_t b = read_u8(r);
		v |= (uint64_t)(b & 0x7f) << shift;
		if (b & 0x80)
			continue;
		if (!b && shift)
			r->bad = true;
		return v;
	}
	r->bad = true;
	return 0;
}

/* What a pool can hold, and a region. */
static bool extent_is_valid(const struct extent *e)
{
	uint64_t in_region = e->page % REGION_PAGES;

	return e->npages && in_region + e->npages <= REGION_PAGES &&
	       e->slice_pages && e->slice_pages <= SLICE_PAGES &&
	       (uint32_t)e->slice_off + e->npages <= e->slice_pages &&
	       (uint64_t)e->slice + e->slice_pages <= UINT64_C(1) << 32;
}

void extents_fini(struct extents *e)
{
	for (uint32_t i = 0; i < e->n; i++)
		free(e->v[i].sums);
	free(e->v);
	*e = (struct extents){ 0 };
}

int extents_move(struct extents *to, struct extents *from)
{
	uint32_t n = to->n + from->n;

	if (n > to->cap) {
		struct extent *v = realloc(to->v, n * sizeof(*v));
		if (!v)
			return -ENOMEM;
		to->v = v;
		to->cap = n;
	}
	if (from->n)
		memcpy(to->v + to->n, from->v, from->n * sizeof(*from->v));
	to->n = n;
	from->n = 0; /* its sums are to's */
	extents_fini(from);
	return 0;
}

/* Decoding extents ------------------------------------------------------------ */

struct decoder {
	struct reader r;
	uint64_t pools[POOLS_MAX];
	unsigned npools, used; /* pools are used in order of their numbers */
	struct extents out;
	/* If set, each goes there, without its sums, and not to `out`. */
	int (*visit)(void *arg, const struct extent *e);
	void *arg;
};

static int decode_pools(struct decoder *d)
{
	d->npools = read_u8(&d->r);
	for (unsigned i = 0; i < d->npools; i++) {
		d->pools[i] = read_u64(&d->r);
		if (!d->pools[i])
			return -EUCLEAN;
		for (unsigned k = 0; k < i; k++)
			if (d->pools[k] == d->pools[i])
				return -EUCLEAN;
	}
	return d->r.bad ? -EUCLEAN : 0;
}

/* The fixed part; everything of e but its sums. */
static int decode_fixed(struct decoder *d, uint64_t region, struct extent *e)
{
	struct reader *r = &d->r;
	uint16_t in_region = read_u16(r);

	e->page = region * REGION_PAGES + in_region;
	e->npages = read_u16(r);
	e->slice_off = read_u16(r);
	e->slice_pages = read_u16(r);
	e->slice = read_u32(r);
	e->gen = read_u32(r);
	uint8_t pool = read_u8(r);
	uint8_t flags = read_u8(r);

	if (r->bad || in_region >= REGION_PAGES || flags || !extent_is_valid(e))
		return -EUCLEAN;
	if (pool > d->used || pool >= d->npools)
		return -EUCLEAN;
	if (pool == d->used)
		d->used++;
	e->pool_id = d->pools[pool];
	return 0;
}

static int decode_sums(struct reader *r, struct extent *e, bool skip)
{
	unsigned n = extent_nsums(e);

	if (r->left / 8 < n)
		return -EUCLEAN;
	if (skip) {
		read_bytes(r, n * sizeof(*e->sums));
		return 0;
	}
	e->sums = malloc(n * sizeof(*e->sums));
	if (!e->sums)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		e->sums[i] = read_u64(r);
	return 0;
}

static int decode_extent(struct decoder *d, uint64_t region, uint64_t *end_page)
{
	struct extent e = { 0 };
	int r = decode_fixed(d, region, &e);

	if (r < 0)
		return r;
	if (e.page < *end_page)
		return -EUCLEAN;
	r = decode_sums(&d->r, &e, d->visit);
	if (r < 0)
		return r;
	*end_page = e.page + e.npages;
	if (d->visit)
		return d->visit(d->arg, &e);
	d->out.v[d->out.n++] = e;
	return 0;
}

/* Room for n extents more, which the bytes that are left can hold. */
static int decode_room(struct decoder *d, uint64_t n)
{
	if (!n || n > REGION_PAGES || d->r.left / EXTENT_BYTES_MIN < n)
		return -EUCLEAN;
	if (d->visit)
		return 0;
	/* It doubles: many regions of an extent each are to cost no square. */
	return array_room(d->out.v, d->out.cap, d->out.n + n, 0);
}

/* The regions since the one before; the first may be region 0, later ones not. */
static int decode_region(struct reader *r, bool first, uint64_t *region)
{
	uint64_t since = read_varint(r);

	if (r->bad || (!since && !first) || since >= REGIONS_MAX - *region)
		return -EUCLEAN;
	*region += since;
	return 0;
}

static int decode_all(struct decoder *d)
{
	uint64_t region = 0;
	int r = decode_pools(d);

	if (r < 0)
		return r;
	for (bool first = true; d->r.left; first = false) {
		r = decode_region(&d->r, first, &region);
		if (r < 0)
			return r;
		uint64_t n = read_varint(&d->r), end_page = 0;
		r = decode_room(d, d->r.bad ? 0 : n);
		for (uint64_t i = 0; !r && i < n; i++)
			r = decode_extent(d, region, &end_page);
		if (r)
			return r;
	}
	return d->used == d->npools ? 0 : -EUCLEAN;
}

int body_decode_extents(struct bytes b, struct extents *ret)
{
	struct decoder d;

	d.r = reader_of(b);
	d.used = 0;
	d.out = (struct extents){ 0 };
	d.visit = NULL;
	int r = decode_all(&d);
	if (r < 0) {
		extents_fini(&d.out);
		return r;
	}
	*ret = d.out;
	return 0;
}

int body_each_extent(struct bytes b, int (*visit)(void *arg, const struct extent *e), void *arg)
{
	struct decoder d;

	d.r = reader_of(b);
	d.used = 0;
	d.visit = visit;
	d.arg = arg;
	return decode_all(&d);
}

/* Encoding extents ------------------------------------------------------------- */

struct pools {
	uint64_t id[POOLS_MAX];
	unsigned n;
};

/* The pool's number, new ones at the end; negative: more than a body can name. */
static int pools_number(struct pools *t, uint64_t id)
{
	/* Nearly always the only one. */
	for (unsigned i = 0; i < t->n; i++)
		if (t->id[i] == id)
			return (int)i;
	if (!id)
		return -EINVAL;
	if (t->n == POOLS_MAX)
		return -EOVERFLOW;
	t->id[t->n] = id;
	return (int)t->n++;
}

static int encode_pools(const struct extents *e, struct pools *t, struct writer *w)
{
	t->n = 0;
	for (uint32_t i = 0; i < e->n; i++) {
		int r = pools_number(t, e->v[i].pool_id);
		if (r < 0)
			return r;
	}
	write_u8(w, (uint8_t)t->n);
	for (unsigned i = 0; i < t->n; i++)
		write_u64(w, t->id[i]);
	return 0;
}

static void encode_extent(const struct extent *e, uint8_t pool, struct writer *w)
{
	write_u16(w, (uint16_t)(e->page % REGION_PAGES));
	write_u16(w, e->npages);
	write_u16(w, e->slice_off);
	write_u16(w, e->slice_pages);
	write_u32(w, e->slice);
	write_u32(w, e->gen);
	write_u8(w, pool);
	write_u8(w, 0);
	for (unsigned i = 0; i < extent_nsums(e); i++)
		write_u64(w, e->sums[i]);
}

/* How many extents from v[i] on lie in its region. */
static uint32_t region_run(const struct extents *e, uint32_t i)
{
	uint64_t region = e->v[i].page / REGION_PAGES;
	uint32_t n = 1;

	while (i + n < e->n && e->v[i + n].page / REGION_PAGES == region)
		n++;
	return n;
}

static bool extents_are_valid(const struct extents *e)
{
	uint64_t end_page = 0;

	for (uint32_t i = 0; i < e->n; i++) {
		const struct extent *x = &e->v[i];
		if (!extent_is_valid(x) || !x->sums || x->page < end_page ||
		    x->page / REGION_PAGES >= REGIONS_MAX)
			return false;
		end_page = x->page + x->npages;
	}
	return true;
}

int body_encode_extents(const struct extents *e, struct writer *w)
{
	struct pools pools;

	if (!extents_are_valid(e))
		return -EINVAL;
	int r = encode_pools(e, &pools, w);
	if (r < 0)
		return r;
	for (uint32_t i = 0, n, last = 0; i < e->n; i += n, last = i - 1) {
		uint64_t since = e->v[i].page / REGION_PAGES -
				 (i ? e->v[last].page / REGION_PAGES : 0);
		n = region_run(e, i);
		write_varint(w, since);
		write_varint(w, n);
		for (uint32_t k = i; k < i + n; k++)
			encode_extent(&e->v[k], (uint8_t)pools_number(&pools, e->v[k].pool_id), w);
	}
	return w->bad ? -ENOMEM : 0;
}

/* Block references --------------------------------------------------------------- */

int body_decode_blocks(struct bytes b, struct block_ref **ret, uint32_t *ret_n)
{
	enum { REF_BYTES_MIN = 1 + 8 };
	struct reader r = reader_of(b);
	uint64_t region = 0;
	uint32_t n = 0;

	if (b.len / REF_BYTES_MIN >= UINT32_MAX)
		return -EUCLEAN;
	_cleanup_(freep) struct block_ref *v = calloc(b.len / REF_BYTES_MIN + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (; r.left; n++) {
		if (r.left < REF_BYTES_MIN || decode_region(&r, !n, &region) < 0)
			return -EUCLEAN;
		v[n] = (struct block_ref){ .region = region, .id = read_u64(&r) };
		if (r.bad || !v[n].id)
			return -EUCLEAN;
	}
	*ret = steal(&v);
	*ret_n = n;
	return 0;
}

int body_append_blocks(struct bytes b, struct block_ref **v, uint32_t *n)
{
	_cleanup_(freep) struct block_ref *more = NULL;
	uint32_t nmore;
	int r = body_decode_blocks(b, &more, &nmore);

	if (r < 0 || !nmore)
		return r;
	struct block_ref *all = reallocarray(*v, (size_t)*n + nmore, sizeof(*all));
	if (!all)
		return -ENOMEM;
	memcpy(all + *n, more, nmore * sizeof(*more));
	*v = all;
	*n += nmore;
	return 0;
}

int body_encode_blocks(const struct block_ref *v, uint32_t n, struct writer *w)
{
	for (uint32_t i = 0; i < n; i++) {
		if (!v[i].id || v[i].region >= REGIONS_MAX)
			return -EINVAL;
		if (i && v[i].region <= v[i - 1].region)
			return -EINVAL;
		write_varint(w, v[i].region - (i ? v[i - 1].region : 0));
		write_u64(w, v[i].id);
	}
	return w->bad ? -ENOMEM : 0;
}
