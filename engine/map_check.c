/* SPDX-License-Identifier: Apache-2.0 */
/* map_check(): walks all that map.c promises. For tests; O(extents * holds of a
 * region). */
#include "engine/map.h"
#include "engine/violations.h"

struct check {
	const struct map *m;
	struct violations found;
};

static void check_ext(struct check *c, const struct region *g, uint32_t k)
{
	const struct ext *x = &g->v[k];
	const struct hold *h = x->hold;
	uint64_t page = g->index * REGION_PAGES + x->page;

	if (!x->npages || x->page + x->npages > REGION_PAGES)
		violation(&c->found, "map: extent at page %lu leaves its region", page);
	if (k && x->page < x[-1].page + x[-1].npages)
		violation(&c->found, "map: extent at page %lu overlaps the one before", page);
	if (x->off + x->npages > h->used || h->used > h->npages)
		violation(&c->found, "map: extent at page %lu leaves its slice", page);
	if (!h->refs || h->pages < x->npages)
		violation(&c->found, "map: hold at page %lu is not counted", page);

	struct slice_view v;
	if (!node_peek(c->m->node, h->id, &v)) {
		/* Does it not say, or is it not there? */
		if (node_pin(c->m->node, h->id) < 0)
			violation(&c->found, "map: extent at page %lu names a stale slice", page);
		else
			node_unpin(c->m->node, h->id);
		return;
	}
	if (!v.pins)
		violation(&c->found, "map: extent at page %lu holds no pin", page);
	if (v.npages != h->npages)
		violation(&c->found, "map: slice at page %lu has %u pages, not %u", page,
			  v.npages, h->npages);
	if (h->writing != (v.state == SLICE_WRITING))
		violation(&c->found, "map: slice at page %lu is %s", page,
			  slice_state_name(v.state));
}

static int cmp_slice(struct slice_id a, struct slice_id b)
{
	return a.page != b.page ? (a.page < b.page ? -1 : 1) :
	       a.gen != b.gen	? (a.gen < b.gen ? -1 : 1) : 0;
}

static uint32_t count_now(const struct region *g, struct slice_id id)
{
	uint32_t n = 0;

	for (uint32_t k = 0; k < g->n; k++)
		n += !cmp_slice(g->v[k].hold->id, id);
	return n;
}

static void check_region(struct check *c, uint32_t i)
{
	const struct region *g = c->m->v[i];

	if (i && g->index <= c->m->v[i - 1]->index)
		violation(&c->found, "map: region %lu is out of order", g->index);
	if (g->n > g->cap)
		violation(&c->found, "map: region %lu has no room for itself", g->index);
	for (uint32_t k = 0; k < g->n; k++)
		check_ext(c, g, k);
	for (uint32_t k = 1; k < g->nbase; k++)
		if (cmp_slice(g->base[k - 1], g->base[k]) > 0)
			violation(&c->found, "map: base of region %lu is not sorted", g->index);
	if (g->changed)
		return;
	if (g->n != g->nbase)
		violation(&c->found, "map: region %lu differs from its base", g->index);
	for (uint32_t k = 0; k < g->nbase; k++)
		if (!count_now(g, g->base[k]))
			violation(&c->found, "map: region %lu lost a slice of its base", g->index);
}

/* The sums of holds: counts their extents anew. */
static void check_holds(struct check *c)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < c->m->n; i++)
		for (uint32_t k = 0; k < c->m->v[i]->n; k++)
			total += c->m->v[i]->v[k].npages;
	if (total != c->m->npages)
		violation(&c->found, "map: %lu pages counted, %lu said", total, c->m->npages);
	for (struct hold *h = c->m->writing; h; h = h->next) {
		uint64_t pages = 0;
		uint32_t n = 0;
		for (uint32_t i = 0; i < c->m->n; i++)
			for (uint32_t k = 0; k < c->m->v[i]->n; k++)
				if (c->m->v[i]->v[k].hold == h) {
					pages += c->m->v[i]->v[k].npages;
					n++;
				}
		if (!h->writing || (h->next && h->next->prev != h))
			violation(&c->found, "map: the list of slices in writing is broken");
		if (pages != h->pages || n > h->refs)
			violation(&c->found, "map: slice %u has %lu pages, says %u", h->id.page,
				  pages, h->pages);
	}
}

int map_check(const struct map *m, struct writer *report)
{
	struct check c = { .m = m, .found.report = report };

	for (uint32_t i = 0; i < m->n; i++)
		check_region(&c, i);
	check_holds(&c);
	return c.found.n;
}
