/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version put together: the body of its record and the blocks that it needs.
 * A few extents go into the record; many go into a block per region, and only
 * regions that changed get a new one; too many references to blocks go into
 * blocks themselves, one per NODE_REGIONS regions, again only where something
 * changed. So 4 KiB written into 1 GiB cost a block and a record.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "engine/publish.h"

enum {
	NODE_REGIONS = 1024,      /* of a tree's block: 4 GiB of a file */
	REFS_MAX = 64 * 1024,     /* bytes of references in a record */
	RECORD_REGIONS = 128,     /* with more than that, do not even try */
};

static int add_put(struct publish *p, struct block_ref ref, struct writer *w)
{
	if (w->bad)
		return -ENOMEM;
	if (array_room(p->put, p->put_cap, p->nput + 1, 4) < 0 ||
	    array_room(p->values, p->values_cap, p->nput + 1, 4) < 0)
		return -ENOMEM;
	p->put[p->nput] = ref;
	p->values[p->nput++] = writer_bytes(w);
	*w = (struct writer){ 0 };
	return 0;
}

static int add_del(struct publish *p, struct block_ref ref)
{
	if (array_room(p->del, p->del_cap, p->ndel + 1, 4) < 0)
		return -ENOMEM;
	p->del[p->ndel++] = ref;
	return 0;
}

static int new_block(struct publish *p, uint64_t region, struct writer *w,
		     uint64_t *ret_id)
{
	struct block_ref ref = { region, index_new_id(p->w->f->e->ix) };

	if (!ref.id)
		return -EIO;
	int r = add_put(p, ref, w);
	if (!r)
		*ret_id = ref.id;
	return r;
}

/* Extents ---------------------------------------------------------------------- */

static int encode_extents(const struct map *m, uint32_t from, uint32_t to,
			  struct writer *w)
{
	struct extents x = { 0 };
	int r = map_extents(m, from, to, &x);

	if (!r)
		r = body_encode_extents(&x, w);
	free(x.v); /* the sums are the holds' */
	return r < 0 ? r : w->bad ? -ENOMEM : 0;
}

/* 1: they do not fit into the record. */
static int build_extents(struct publish *p)
{
	struct map *m = &p->w->f->map;

	if (m->n > RECORD_REGIONS)
		return 1;
	int r = encode_extents(m, 0, m->n, &p->bytes);
	if (r < 0)
		return r;
	if (p->bytes.len > INDEX_BODY_MAX) {
		writer_fini(&p->bytes);
		return 1;
	}
	p->body.kind = BODY_EXTENTS;
	return 0;
}

/* Blocks ----------------------------------------------------------------------- */

static int build_block(struct publish *p, uint32_t i)
{
	struct region *g = p->w->f->map.v[i];

	g->next_block = g->n ? g->block : 0;
	if (!g->n)
		return 0;
	if (g->block && !g->changed) {
		p->shares = true;
		return 0;
	}
	struct writer w = { 0 };
	int r = encode_extents(&p->w->f->map, i, i + 1, &w);
	if (!r)
		r = new_block(p, g->index, &w, &g->next_block);
	writer_fini(&w);
	return r;
}

static int build_refs(struct publish *p, struct block_ref **ret, uint32_t *ret_n)
{
	struct map *m = &p->w->f->map;
	struct block_ref *v = malloc((m->n + 1) * sizeof(*v));
	uint32_t n = 0;

	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->n; i++)
		if (m->v[i]->n)
			v[n++] = (struct block_ref){ m->v[i]->index, m->v[i]->next_block };
	*ret = v;
	*ret_n = n;
	return 0;
}

/* Tree ------------------------------------------------------------------------- */

/* Did a region of this node's change since it was written? */
static bool node_changed(struct publish *p, uint64_t node)
{
	struct map *m = &p->w->f->map;

	for (uint32_t i = map_region_at(m, node * NODE_REGIONS);
	     i < m->n && m->v[i]->index / NODE_REGIONS == node; i++)
		if (m->v[i]->next_block != m->v[i]->block)
			return true;
	return false;
}

static uint64_t node_before(const struct file *f, struct block_ref first)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].region == first.region)
			return f->nodes[i].id;
	return 0;
}

static int build_node(struct publish *p, const struct block_ref *refs, uint32_t n)
{
	struct block_ref *node = &p->nodes[p->nnodes++];
	struct writer w = { 0 };

	*node = (struct block_ref){ refs[0].region, node_before(p->w->f, refs[0]) };
	if (node->id && !node_changed(p, refs[0].region / NODE_REGIONS))
		return 0;
	int r = body_encode_blocks(refs, n, &w);
	if (!r)
		r = new_block(p, refs[0].region, &w, &node->id);
	writer_fini(&w);
	return r;
}

static int build_tree(struct publish *p, const struct block_ref *refs, uint32_t n)
{
	p->nodes = calloc(n, sizeof(*p->nodes));
	if (!p->nodes)
		return -ENOMEM;
	for (uint32_t i = 0, k; i < n; i = k) {
		for (k = i; k < n; k++)
			if (refs[k].region / NODE_REGIONS != refs[i].region / NODE_REGIONS)
				break;
		int r = build_node(p, refs + i, k - i);
		if (r < 0)
			return r;
	}
	writer_fini(&p->bytes);
	p->body.kind = BODY_TREE;
	return body_encode_blocks(p->nodes, p->nnodes, &p->bytes);
}

static int build_blocks(struct publish *p)
{
	_cleanup_(freep) struct block_ref *refs = NULL;
	uint32_t n = 0;
	int r = 0;

	for (uint32_t i = 0; !r && i < p->w->f->map.n; i++)
		r = build_block(p, i);
	if (!r)
		r = build_refs(p, &refs, &n);
	if (!r)
		r = body_encode_blocks(refs, n, &p->bytes);
	if (r < 0)
		return r;
	p->body.kind = BODY_BLOCKS;
	return p->bytes.len > REFS_MAX ? build_tree(p, refs, n) : 0;
}

/* ------------------------------------------------------------------------------ */

/* Blocks of the published version that the new one does not name. */
static int build_dels(struct publish *p)
{
	struct file *f = p->w->f;
	int r = 0;

	for (uint32_t i = 0; !r && i < f->map.n; i++) {
		struct region *g = f->map.v[i];
		if (g->block && g->block != g->next_block)
			r = add_del(p, (struct block_ref){ g->index, g->block });
	}
	for (uint32_t i = 0; !r && i < f->nnodes; i++) {
		bool kept = false;
		for (uint32_t k = 0; k < p->nnodes; k++)
			kept |= p->nodes[k].id == f->nodes[i].id;
		if (!kept)
			r = add_del(p, f->nodes[i]);
	}
	return r;
}

static int build_body(struct publish *p)
{
	struct file *f = p->w->f;
	struct map *m = &f->map;
	int r = 1;

	if (f->small || !m->npages) {
		p->body.kind = f->small && f->attr.size ? BODY_INLINE : BODY_NONE;
		if (p->body.kind == BODY_INLINE)
			write_bytes(&p->bytes, f->content, f->attr.size);
		r = 0;
	} else {
		r = build_extents(p);
	}
	if (r == 1)
		return build_blocks(p);
	for (uint32_t i = 0; i < m->n; i++)
		m->v[i]->next_block = 0;
	return r;
}

int parts_build(struct publish *p)
{
	struct file *f = p->w->f;
	int r = build_body(p);

	if (!r && p->bytes.bad)
		r = -ENOMEM;
	if (!r)
		r = build_dels(p);
	if (!r)
		r = map_publishing(&f->map);
	if (r < 0)
		return r;
	p->body.bytes = writer_bytes(&p->bytes);
	file_attr(f, &p->attr);
	return 0;
}

void parts_fini(struct publish *p)
{
	writer_fini(&p->bytes);
	for (uint32_t i = 0; i < p->nput; i++)
		free((void *)p->values[i].p);
	free(p->values);
	free(p->put);
	free(p->del);
	free(p->nodes);
}

void parts_reset(struct publish *p)
{
	parts_fini(p);
	p->values = NULL;
	p->put = p->del = p->nodes = NULL;
	p->nput = p->put_cap = p->values_cap = 0;
	p->ndel = p->del_cap = p->nnodes = 0;
	p->body = (struct body){ 0 };
	p->shares = false;
}
