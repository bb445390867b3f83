/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between reading the record and pinning, the object may be unlinked and its slices
 * freed: then a pin is refused (I3), and the mount asks again.
 */
#include "engine/serve_open.h"

#include <errno.h>

#include "common/cleanup.h"

/* Are they all in this pool? */
static bool are_here(const struct pool *p, const struct extents *x)
{
	for (uint32_t i = 0; i < x->n; i++)
		if (x->v[i].pool_id != pool_id(p) || x->v[i].slice >= pool_npages(p))
			return false;
	return x->n && x->n <= UINT16_MAX;
}

static void wire_pin_fini(struct wire_pin *m)
{
	wire_items_fini(&m->items);
}

/* All or none: nothing is pinned if it fails. */
static int pin_extents(struct holds *h, const struct extents *x, struct wire_pin *m,
		       struct wire_results *ret)
{
	m->items = (struct wire_items){ x->n, calloc(x->n, sizeof(struct wire_item)) };
	if (!m->items.v)
		return -ENOMEM;
	for (uint32_t i = 0; i < x->n; i++)
		m->items.v[i] = (struct wire_item){ { x->v[i].slice, x->v[i].gen },
						    x->v[i].slice_pages };
	return holds_pin(h, m, ret);
}

/* They are pinned. Nothing, if it is more than was asked for. */
static void add_pages(struct pool *p, const struct extents *x, uint32_t max, struct writer *w)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < x->n; i++)
		bytes += x->v[i].npages * (uint64_t)PAGE_BYTES;
	for (uint32_t i = 0; bytes <= max && i < x->n; i++) {
		const struct extent *e = &x->v[i];
		uint64_t n = e->npages * (uint64_t)PAGE_BYTES;
		const void *from = pool_span(p, (struct slice_id){ e->slice, e->gen },
					     e->slice_off * (uint64_t)PAGE_BYTES, n);
		if (!from) {
			writer_fini(w); /* the record names more than the slice has */
			return;
		}
		write_bytes(w, from, n);
	}
}

int serve_open(struct holds *h, struct pool *p, const struct wire_open *asked,
	       const struct kv_rows *rows, struct writer *w)
{
	_cleanup_(wire_results_fini) struct wire_results pins = { 0 };
	_cleanup_(wire_pin_fini) struct wire_pin pinned = { 0 };
	_cleanup_(extents_fini) struct extents x = { 0 };
	_cleanup_(writer_fini) struct writer pages = { 0 };
	struct entry en;

	if (!rows->nrows)
		return WIRE_NOT_THERE;
	int r = index_record(asked->fileid, rows->rows[0].value, &en);
	if (r)
		return r == INDEX_MISS ? WIRE_NOT_THERE : r;
	if (en.body.kind == BODY_EXTENTS) {
		r = body_decode_extents(en.body.bytes, &x);
		if (!r && are_here(p, &x))
			r = pin_extents(h, &x, &pinned, &pins);
		if (r < 0)
			return r;
		if (pins.n && en.attr.size <= asked->max)
			add_pages(p, &x, asked->max, &pages);
	}
	struct wire_opened m = { rows->rows[0].revision, rows->rows[0].value, pins,
				 pages.bad ? BYTES_NONE : writer_bytes(&pages) };
	wire_write_opened(w, &m);
	if (!w->bad)
		return 0;
	/* Nobody is told of them. */
	if (pins.n)
		holds_unpin(h, &pinned.items);
	writer_fini(w);
	return -ENOMEM;
}
