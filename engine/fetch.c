/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pages of a slice, verified: see fetch.h. Sums are of whole blocks of
 * 64 KiB, so where bytes are elsewhere and must be checked, whole blocks are
 * fetched.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/log.h"
#include "common/metrics.h"
#include "engine/fetch.h"
#include "engine/xfer.h"

uint64_t fetch_sum(const void *p, uint64_t len)
{
	return XXH3_64bits(p, len);
}

uint64_t fetch_sum_of(const struct iovec *v, unsigned n)
{
	XXH3_state_t x;

	if (n == 1)
		return fetch_sum(v->iov_base, v->iov_len);
	XXH3_INITSTATE(&x);
	XXH3_64bits_reset(&x);
	for (unsigned i = 0; i < n; i++)
		XXH3_64bits_update(&x, v[i].iov_base, v[i].iov_len);
	return XXH3_64bits_digest(&x);
}

uint32_t fetch_block_bytes(uint32_t npages, uint32_t block)
{
	uint32_t left = npages - block * SUM_PAGES;

	return (left < SUM_PAGES ? left : SUM_PAGES) * (uint32_t)PAGE_BYTES;
}

uint8_t *fetch_map(struct engine *e, struct slice_id id)
{
	return e->transport->ops->map(e->transport, id);
}

bool fetch_must_verify(struct engine *e, const struct hold *h, uint32_t off,
		       uint32_t npages)
{
	if (e->verify)
		return true;
	for (uint32_t b = off / SUM_PAGES; b * SUM_PAGES < off + npages; b++)
		if (node_needs_verify(e->node, h->id, b))
			return true;
	return false;
}

/* `bytes` begin at page `from` of the slice, which begins a block. */
static int verify(struct fetch *f, const uint8_t *bytes, uint32_t from)
{
	struct engine *e = f->e;
	struct hold *h = f->hold;
	uint32_t b = f->off / SUM_PAGES;

	for (; b * SUM_PAGES < f->off + f->npages; b++) {
		if (!e->verify && !node_needs_verify(e->node, h->id, b))
			continue;
		const uint8_t *p = bytes + (uint64_t)(b * SUM_PAGES - from) * PAGE_BYTES;
		if (fetch_sum(p, fetch_block_bytes(h->npages, b)) == h->sums[b]) {
			node_verified(e->node, h->id, b);
			continue;
		}
		metric_add(M_CHECKSUM_FAILURES, 1);
		log_error("file", "file %llu: block %u of slice %u (generation %u) does not match "
			  "its checksum: not returned", (unsigned long long)f->fileid, b,
			  h->id.page, h->id.gen);
		return -EIO;
	}
	return 0;
}

static void fetched(void *arg, int r)
{
	struct fetch *f = arg;

	if (!r && f->check)
		r = verify(f, f->bounce, f->from);
	if (!r)
		f->ptr = f->bounce + (uint64_t)(f->off - f->from) * PAGE_BYTES;
	f->done(f, r);
}

static int fetch_remote(struct fetch *f, struct batch **ret)
{
	uint32_t end = f->off + f->npages;

	f->from = f->off;
	if (f->check) {
		f->from -= f->from % SUM_PAGES;
		end = (end + SUM_PAGES - 1) / SUM_PAGES * SUM_PAGES;
		if (end > f->hold->npages)
			end = f->hold->npages;
	}
	uint64_t len = (uint64_t)(end - f->from) * PAGE_BYTES;
	f->bounce = malloc(len);
	if (!f->bounce)
		return -ENOMEM;
	struct batch *b;
	int r = batch_new(f->e->transport, (unsigned)(len / XFER_RUN_MAX + 1), &b);
	if (r < 0)
		return r;
	r = batch_add(b, POST_READ, f->hold->id, (uint64_t)f->from * PAGE_BYTES,
		      f->bounce, len);
	if (r < 0) {
		batch_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void fetch_start(struct engine *e, struct fetch *f)
{
	f->e = e;
	f->bounce = NULL;
	f->ptr = NULL;
	if (node_is_lost(e->node, f->hold->id)) {
		f->done(f, -EIO);
		return;
	}
	f->check = f->sealed && fetch_must_verify(e, f->hold, f->off, f->npages);
	uint8_t *base = fetch_map(e, f->hold->id);
	if (base) {
		int r = f->check ? verify(f, base, 0) : 0;
		if (!r)
			f->ptr = base + (uint64_t)f->off * PAGE_BYTES;
		f->done(f, r);
		return;
	}
	struct batch *b = NULL;
	int r = fetch_remote(f, &b);
	if (r < 0)
		f->done(f, r);
	else
		batch_submit(b, f->call, fetched, f);
}

void fetch_end(struct fetch *f)
{
	free(f->bounce);
	f->bounce = NULL;
	f->ptr = NULL;
}
