/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of objects that move between the pool and the disk. A body has as many extents after
 * it as before or, where the pool had no run that was long enough, more; each has a slice
 * of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "engine/fetch.h"
#include "engine/tier_priv.h"

enum {
	LOT = 32,             /* blocks of one call */
	REFS_MAX = 64 * 1024, /* bytes of references in a record */
};

static int add_blocks(struct index *ix, uint64_t fileid, const struct block_ref *v, uint32_t n,
		      struct extents *to)
{
	_cleanup_(index_op_fini) struct index_op op = { .fileid = fileid, .blocks = v,
							.nblocks = n };
	int r = index_wait(ix, &op, index_get_blocks);

	for (uint32_t i = 0; !r && i < n; i++) {
		struct extents x = { 0 };
		r = body_decode_extents(op.rows->rows[i].value, &x);
		if (!r)
			r = extents_move(to, &x);
		extents_fini(&x);
	}
	return r;
}

int tier_body_read(struct index *ix, uint64_t fileid, const struct body *b, struct extents *ret)
{
	_cleanup_(freep) struct block_ref *refs = NULL;
	_cleanup_(extents_fini) struct extents all = { 0 };
	uint32_t n = 0;
	int r = -E2BIG;

	if (b->kind == BODY_EXTENTS)
		r = body_decode_extents(b->bytes, &all);
	else if (b->kind == BODY_BLOCKS)
		r = body_decode_blocks(b->bytes, &refs, &n);
	for (uint32_t i = 0; !r && i < n; i += LOT)
		r = add_blocks(ix, fileid, refs + i, n - i < LOT ? n - i : LOT, &all);
	if (r < 0)
		return r;
	*ret = all;
	all = (struct extents){ 0 };
	return 0;
}

/* The extents from v[i] on that are in its region. */
static uint32_t region_run(const struct extents *x, uint32_t i)
{
	uint32_t n = 1;

	while (i + n < x->n && x->v[i + n].page / REGION_PAGES == x->v[i].page / REGION_PAGES)
		n++;
	return n;
}

static int put_blocks(struct index *ix, uint64_t fileid, struct made_body *m,
		      const struct bytes *values, bool reserve)
{
	_cleanup_(index_op_fini) struct index_op op = {
		.fileid = fileid, .blocks = m->blocks, .values = values, .nblocks = m->nblocks,
		.flags = PUT_UNNOTED | (reserve ? PUT_RESERVE : 0),
	};
	int r = index_wait(ix, &op, index_put_blocks);

	if (r < 0)
		m->nblocks = 0; /* none is left behind */
	return r;
}

static int make_blocks(struct index *ix, uint64_t fileid, const struct extents *x, bool reserve,
		       struct made_body *m)
{
	_cleanup_(freep) struct writer *values = calloc(x->n, sizeof(*values));
	_cleanup_(freep) struct bytes *bytes = calloc(x->n, sizeof(*bytes));
	uint32_t n = 0;
	int r = 0;

	m->blocks = calloc(x->n, sizeof(*m->blocks));
	if (!values || !bytes || !m->blocks)
		return -ENOMEM;
	for (uint32_t i = 0, k; !r && i < x->n; i += k, n++) {
		k = region_run(x, i);
		m->blocks[n] = (struct block_ref){ x->v[i].page / REGION_PAGES, index_new_id(ix) };
		r = m->blocks[n].id ? body_encode_extents(&(struct extents){ x->v + i, k, k },
							  &values[n]) : -EIO;
		bytes[n] = writer_bytes(&values[n]);
	}
	if (!r)
		r = body_encode_blocks(m->blocks, n, &m->bytes);
	if (!r && m->bytes.len > REFS_MAX)
		r = -E2BIG;
	if (!r) {
		m->nblocks = n;
		r = put_blocks(ix, fileid, m, bytes, reserve);
	}
	for (uint32_t i = 0; i < n; i++)
		writer_fini(&values[i]);
	m->body = (struct body){ BODY_BLOCKS, writer_bytes(&m->bytes) };
	return r;
}

int tier_body_make(struct index *ix, uint64_t fileid, const struct extents *x, bool reserve,
		   struct made_body *ret)
{
	struct made_body m = { 0 };
	int r = body_encode_extents(x, &m.bytes);

	if (!r && m.bytes.len > INDEX_BODY_MAX) {
		writer_fini(&m.bytes);
		m.bytes = (struct writer){ 0 };
		r = make_blocks(ix, fileid, x, reserve, &m);
	} else if (!r) {
		m.body = (struct body){ BODY_EXTENTS, writer_bytes(&m.bytes) };
	}
	if (r < 0)
		tier_body_made(ix, fileid, &m, false);
	else
		*ret = m;
	return r;
}

void tier_body_made(struct index *ix, uint64_t fileid, struct made_body *m, bool moved)
{
	struct index_op op = { .fileid = fileid, .blocks = m->blocks, .nblocks = m->nblocks };

	if (!moved && m->nblocks) {
		if (index_wait(ix, &op, index_del_blocks) < 0)
			log_warn("disk", "%u extent blocks of file %lu stay behind until the next "
				 "start", m->nblocks, (unsigned long)fileid);
		index_op_fini(&op);
	}
	writer_fini(&m->bytes);
	free(m->blocks);
	*m = (struct made_body){ 0 };
}

/* One extent -------------------------------------------------------------------------- */

int64_t tier_body_bad_block(const struct extent *x, const uint8_t *p, uint32_t off, uint32_t npages)
{
	uint32_t first = x->slice_off / SUM_PAGES;

	for (uint32_t b = off / SUM_PAGES; b * SUM_PAGES < off + npages; b++) {
		uint32_t len = fetch_block_bytes(x->slice_pages, b);
		if (fetch_sum(p, len) != x->sums[b - first])
			return b;
		p += len;
	}
	return -1;
}

static bool is_sound(const struct extent *x, const uint8_t *slice)
{
	uint32_t off = x->slice_off / SUM_PAGES * SUM_PAGES;

	return tier_body_bad_block(x, slice + (uint64_t)off * PAGE_BYTES, off,
				   x->slice_off + x->npages - off) < 0;
}

int tier_body_alone(struct extent *x, const uint8_t *slice)
{
	const uint8_t *p = slice + x->slice_off * (uint64_t)PAGE_BYTES;
	bool begins = x->slice_off % SUM_PAGES == 0;
	bool ends = x->npages % SUM_PAGES == 0 || x->slice_off + x->npages == x->slice_pages;

	if (!begins || !ends) {
		uint32_t n = (x->npages + SUM_PAGES - 1) / SUM_PAGES;
		uint64_t *sums = calloc(n, sizeof(*sums));
		if (!sums)
			return -ENOMEM;
		if (!is_sound(x, slice)) {
			free(sums);
			return -EIO;
		}
		for (uint32_t i = 0; i < n; i++)
			sums[i] = fetch_sum(p + (uint64_t)i * SUM_PAGES * PAGE_BYTES,
					    fetch_block_bytes(x->npages, i));
		free(x->sums);
		x->sums = sums;
	}
	x->slice_off = 0;
	x->slice_pages = x->npages;
	return 0;
}
