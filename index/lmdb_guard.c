/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB's file format (lmdb 0.9, 64 bit), as its mdb.c writes it:
 *
 *	page 0, 1   headers ("meta"), written in turn; the higher txnid counts
 *	others      header, then a branch or leaf (offsets growing up, nodes
 *	            growing down), or the first of a run of overflow pages
 *
 * There are two trees: the list of free pages (key: a txnid; value: a count and
 * that many page numbers, falling), and the rows. A page has one place: it is
 * marked when it is met, and met twice is damage.
 *
 * A header that was being written when its process died has the older txnid
 * still: of the older one only what never changes is looked at.
 *
 * The rows' tree is walked in parts, which several threads take one after the other: its
 * upper levels are opened until there are many pages on one of them, and what lies below
 * each is a part. A part lies between two separators, and its keys have to: then the parts
 * together are in order. (A separator may equal the first key that it leads to.)
 */
#include "index/lmdb_guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/crew.h"

struct tree_head { /* MDB_db */
	uint32_t pad; /* in the first tree: the page size */
	uint16_t flags, depth;
	uint64_t branch, leaf, overflow, entries, root;
};

struct meta { /* MDB_meta */
	uint32_t magic, version;
	uint64_t address, map_bytes;
	struct tree_head trees[2]; /* free pages; rows */
	uint64_t last_page, txnid;
};
_Static_assert(sizeof(struct meta) == 136, "as LMDB has it");

struct page { /* MDB_page's head */
	uint64_t number;
	uint16_t pad, flags;
	union {
		struct { uint16_t lower, upper; };
		uint32_t run; /* overflow: how many pages */
	};
};
_Static_assert(sizeof(struct page) == 16, "as LMDB has it");

struct node { /* MDB_node's head: then the key, then the value */
	uint16_t lo, hi, flags, key_len;
};

enum {
	META_MAGIC = 0xBEEFC0DE, META_VERSION = 1,
	PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8,
	PAGE_KINDS = 0x6f, /* with LEAF2 and SUBP, which these trees have not */
	NODE_BIG = 1,      /* the value is a page number: an overflow run */
	TREE_INTEGER_KEY = 8,
	TREE_FLAGS = 0xff, /* the first tree's others are the environment's */
	DEPTH_MAX = 32, KEY_MAX = 511,
	PARTS = 128, /* so many at least, where there are */
	MARKS_MAX = 256,
};
#define NO_PAGE UINT64_MAX
#define TXNID_MAX (UINT64_MAX / 2) /* it is counted on from there */

/* What lies below a page of the rows' tree. */
struct part {
	uint64_t page;
	struct bytes from; /* the separator that leads to it; none: the first */
};

struct parts {
	struct part *v;
	size_t n, cap;
	unsigned depth; /* of their pages, which lie on one level */
};

struct guard {
	const uint8_t *file;
	uint64_t npages, txnid;
	uint32_t page_bytes;
	_Atomic uint8_t *seen; /* a bit a page; relaxed: it stands for itself alone */
	const char *why;

	/* The tree that is being walked. */
	const struct tree_head *head;
	struct tree_head found; /* counts of what was met */
	bool is_free_list;
	struct bytes last; /* key or separator met last */
	bool last_is_separator;
};

static int damaged(struct guard *g, const char *why)
{
	g->why = why;
	return -EUCLEAN;
}

/* Headers ------------------------------------------------------------------- */

static struct page page_head(const struct guard *g, uint64_t number)
{
	struct page p;

	memcpy(&p, g->file + number * g->page_bytes, sizeof(p));
	return p;
}

static int read_meta(struct guard *g, uint64_t offset, struct meta *ret)
{
	struct page p;

	memcpy(&p, g->file + offset, sizeof(p));
	memcpy(ret, g->file + offset + sizeof(p), sizeof(*ret));
	if (!(p.flags & PAGE_META) || ret->magic != META_MAGIC)
		return damaged(g, "it does not begin as an LMDB file does");
	if (ret->version != META_VERSION) {
		g->why = "its LMDB format is another one";
		return -EPROTONOSUPPORT;
	}
	return 0;
}

/* The header that counts, and the page size that both must have. */
static int choose_meta(struct guard *g, uint64_t bytes, struct meta *ret)
{
	struct meta m[2];
	uint32_t size;
	int r;

	if (bytes < 2 * 512)
		return damaged(g, "it is too short");
	r = read_meta(g, 0, &m[0]);
	if (r < 0)
		return r;
	size = m[0].trees[0].pad;
	if (size < 512 || size > 32768 || (size & (size - 1)) || bytes < 2 * size)
		return damaged(g, "its page size is impossible");
	r = read_meta(g, size, &m[1]);
	if (r < 0)
		return r;
	if (m[1].trees[0].pad != size)
		return damaged(g, "its two headers differ in page size");
	g->page_bytes = size;
	*ret = m[m[1].txnid > m[0].txnid];
	/* LMDB goes by the last bit of the number to find the header again. */
	if (ret->txnid != m[ret->txnid & 1].txnid || ret->txnid > TXNID_MAX)
		return damaged(g, "its newer header has an impossible number");
	g->txnid = ret->txnid;
	return 0;
}

static int check_meta(struct guard *g, const struct meta *m, uint64_t bytes)
{
	if (m->map_bytes > bytes)
		return damaged(g, "it has been cut short");
	if (m->last_page < 1 || m->last_page >= bytes / g->page_bytes)
		return damaged(g, "its header names pages behind its end");
	if ((m->trees[0].flags & TREE_FLAGS) != TREE_INTEGER_KEY ||
	    m->trees[1].flags)
		return damaged(g, "its trees are of another kind");
	g->npages = m->last_page + 1;
	return 0;
}

/* Pages ---------------------------------------------------------------------- */

static int mark(struct guard *g, uint64_t number, uint64_t run)
{
	if (number < 2 || number >= g->npages || run > g->npages - number)
		return damaged(g, "a page number is outside");
	for (uint64_t i = number; i < number + run; i++) {
		uint8_t bit = (uint8_t)(1 << i % 8);
		if (atomic_fetch_or_explicit(&g->seen[i / 8], bit, memory_order_relaxed) & bit)
			return damaged(g, "a page has two places");
	}
	return 0;
}

static int key_cmp(const struct guard *g, struct bytes a, struct bytes b)
{
	uint64_t x, y;

	if (!g->is_free_list)
		return bytes_cmp(a, b);
	memcpy(&x, a.p, sizeof(x));
	memcpy(&y, b.p, sizeof(y));
	return x < y ? -1 : x > y;
}

/* Keys rise; a branch's separator may equal the first key that it leads to. */
static int check_key(struct guard *g, struct bytes key, bool is_separator)
{
	int d;

	if (g->is_free_list ? key.len != 8 : !key.len || key.len > KEY_MAX)
		return damaged(g, "a key has an impossible length");
	d = g->last.p ? key_cmp(g, g->last, key) : -1;
	if (d > 0 || (d == 0 && !g->last_is_separator))
		return damaged(g, "keys are not in order");
	g->last = key;
	g->last_is_separator = is_separator;
	return 0;
}

/* A record of the free list: what the transaction `key` freed. */
static int check_free_pages(struct guard *g, struct bytes key, struct bytes value)
{
	uint64_t n, number, txnid, before = NO_PAGE;

	memcpy(&txnid, key.p, 8);
	if (!txnid || txnid > g->txnid)
		return damaged(g, "pages were freed by a transaction to come");
	if (value.len < 8)
		return damaged(g, "a list of free pages is too short");
	memcpy(&n, value.p, 8);
	if (n > value.len / 8 - 1)
		return damaged(g, "a list of free pages is too long");
	for (uint64_t i = 1; i <= n; i++) {
		memcpy(&number, (const uint8_t *)value.p + 8 * i, 8);
		if (number >= before)
			return damaged(g, "a list of free pages is not in order");
		before = number;
		int r = mark(g, number, 1);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A value on pages of its own: found there, and marked. */
static int follow_big(struct guard *g, const uint8_t *at, uint64_t len,
		      struct bytes *ret)
{
	uint64_t number, need = (sizeof(struct page) - 1 + len) / g->page_bytes + 1;
	struct page p;
	int r;

	memcpy(&number, at, sizeof(number));
	if (number < 2 || number >= g->npages)
		return damaged(g, "a page number is outside");
	p = page_head(g, number);
	if (p.number != number || (p.flags & PAGE_KINDS) != PAGE_OVERFLOW ||
	    p.run < need)
		return damaged(g, "a large value's pages are not its own");
	r = mark(g, number, p.run);
	if (r < 0)
		return r;
	g->found.overflow += p.run;
	*ret = BYTES_OF(g->file + number * g->page_bytes + sizeof(p), len);
	return 0;
}

/* The i-th node of a page, and how many bytes there are from its head on. */
static int node_at(struct guard *g, const uint8_t *page, const struct page *p,
		   unsigned i, struct node *ret, uint32_t *ret_at)
{
	uint16_t at;

	memcpy(&at, page + sizeof(*p) + 2 * i, sizeof(at));
	if (at < p->upper || at + sizeof(*ret) > g->page_bytes)
		return damaged(g, "a node is outside its page");
	memcpy(ret, page + at, sizeof(*ret));
	if (at + sizeof(*ret) + ret->key_len > g->page_bytes)
		return damaged(g, "a key is outside its page");
	*ret_at = at;
	return 0;
}

static int walk_leaf(struct guard *g, const uint8_t *page, const struct page *p,
		     unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct node node;
		struct bytes value;
		uint32_t at, len, room;
		int r = node_at(g, page, p, i, &node, &at);

		if (r < 0)
			return r;
		at += sizeof(node);
		r = check_key(g, BYTES_OF(page + at, node.key_len), false);
		if (r < 0)
			return r;
		at += node.key_len;
		len = node.lo | (uint32_t)node.hi << 16;
		room = node.flags & NODE_BIG ? 8 : len;
		if ((node.flags & ~NODE_BIG) || room > g->page_bytes - at)
			return damaged(g, "a value is outside its page");
		value = BYTES_OF(page + at, len);
		if (node.flags & NODE_BIG)
			r = follow_big(g, page + at, len, &value);
		if (!r && g->is_free_list)
			r = check_free_pages(g, g->last, value);
		if (r < 0)
			return r;
		g->found.entries++;
	}
	return 0;
}

/* Marks a page of the tree, counts it, and looks at its head. */
static int enter_page(struct guard *g, uint64_t number, bool is_leaf, struct page *ret,
		      unsigned *ret_n)
{
	struct page p;
	int r = mark(g, number, 1);

	if (r < 0)
		return r;
	p = page_head(g, number);
	if (p.number != number ||
	    (p.flags & PAGE_KINDS) != (is_leaf ? PAGE_LEAF : PAGE_BRANCH))
		return damaged(g, "a page is not what its place says");
	if (p.lower < sizeof(p) || p.lower > p.upper || p.upper > g->page_bytes)
		return damaged(g, "a page's bounds are impossible");
	*ret_n = (p.lower - (unsigned)sizeof(p)) / 2;
	if (!*ret_n || (!is_leaf && *ret_n < 2 && !g->is_free_list))
		return damaged(g, "a page is empty");
	if (is_leaf)
		g->found.leaf++;
	else
		g->found.branch++;
	*ret = p;
	return 0;
}

/* Where the i-th node of a branch leads to; the key that leads there is checked. */
static int child_at(struct guard *g, const uint8_t *page, const struct page *p, unsigned i,
		    uint64_t *ret)
{
	struct node node;
	uint32_t at;
	int r = node_at(g, page, p, i, &node, &at);

	if (!r && i) /* the first one's key does not count */
		r = check_key(g, BYTES_OF(page + at + sizeof(node), node.key_len), true);
	if (!r)
		*ret = node.lo | (uint64_t)node.hi << 16 | (uint64_t)node.flags << 32;
	return r;
}

static int walk(struct guard *g, uint64_t number, unsigned depth)
{
	bool is_leaf = depth == g->head->depth;
	const uint8_t *page;
	uint64_t child;
	struct page p;
	unsigned n;
	int r = enter_page(g, number, is_leaf, &p, &n);

	if (r < 0)
		return r;
	page = g->file + number * g->page_bytes;
	/* Its nodes lie in no order: asked for now, they are not waited for one by one. */
	for (uint32_t at = 0; at < g->page_bytes; at += 64)
		__builtin_prefetch(page + at);
	if (is_leaf)
		return walk_leaf(g, page, &p, n);
	for (unsigned i = 0; !r && i < n; i++) {
		r = child_at(g, page, &p, i, &child);
		if (!r)
			r = walk(g, child, depth + 1);
	}
	return r;
}

/* Parts ------------------------------------------------------------------------ */

/* Appends what lies below a branch to `to`. */
static int open_part(struct guard *g, const struct part *part, struct parts *to)
{
	const uint8_t *page;
	uint64_t child;
	struct page p;
	unsigned n;
	int r = enter_page(g, part->page, false, &p, &n);

	if (r < 0)
		return r;
	page = g->file + part->page * g->page_bytes;
	g->last = part->from;
	for (unsigned i = 0; i < n; i++) {
		r = child_at(g, page, &p, i, &child);
		if (!r)
			r = array_room(to->v, to->cap, to->n + 1, PARTS);
		if (r < 0)
			return r;
		to->v[to->n++] = (struct part){ child, g->last };
	}
	return 0;
}

/* Opens levels until there are many parts, or the next one is the leaves. */
static int find_parts(struct guard *g, struct parts *ret)
{
	int r = array_room(ret->v, ret->cap, 1, PARTS);

	if (r < 0)
		return r;
	ret->v[0] = (struct part){ .page = g->head->root };
	ret->n = ret->depth = 1;
	while (ret->n < PARTS && ret->depth < g->head->depth) {
		struct parts below = { .depth = ret->depth + 1 };
		for (size_t i = 0; !r && i < ret->n; i++) {
			g->last_is_separator = true;
			r = open_part(g, &ret->v[i], &below);
		}
		free(ret->v);
		*ret = below;
		if (r < 0)
			return r;
	}
	return 0;
}

static int walk_part(struct guard *g, const struct parts *parts, size_t i)
{
	g->last = parts->v[i].from;
	g->last_is_separator = true;
	int r = walk(g, parts->v[i].page, parts->depth);
	return r || i + 1 == parts->n ? r : check_key(g, parts->v[i + 1].from, true);
}

struct walkers {
	struct guard v[CREW_MAX];
	const struct parts *parts;
	atomic_size_t next;
};

static int walk_parts(void *arg, unsigned i)
{
	struct walkers *w = arg;
	size_t k;
	int r = 0;

	while (!r && (k = atomic_fetch_add(&w->next, 1)) < w->parts->n)
		r = walk_part(&w->v[i], w->parts, k);
	return r;
}

static void add_found(struct guard *g, const struct guard *part)
{
	g->found.branch += part->found.branch;
	g->found.leaf += part->found.leaf;
	g->found.overflow += part->found.overflow;
	g->found.entries += part->found.entries;
	if (part->why)
		g->why = part->why;
}

static int walk_by_several(struct guard *g, const struct parts *parts)
{
	struct walkers w = { .parts = parts };
	unsigned n = parts->n < PARTS ? 1 : crew_size();

	for (unsigned i = 0; i < n; i++) {
		w.v[i] = *g;
		w.v[i].found = (struct tree_head){ 0 };
	}
	int r = crew_run(n, walk_parts, &w);
	for (unsigned i = 0; i < n; i++)
		add_found(g, &w.v[i]);
	return r;
}

static int copy_marks(const struct parts *parts, struct lmdb_shape *ret)
{
	size_t step = parts->n / MARKS_MAX + 1, bytes = 0, n = 0;

	for (size_t i = step; i < parts->n; i += step, n++)
		bytes += parts->v[i].from.len;
	ret->marks = n ? malloc(n * sizeof(*ret->marks) + bytes) : NULL;
	if (!ret->marks)
		return n ? -ENOMEM : 0;
	uint8_t *to = (uint8_t *)(ret->marks + n);
	for (size_t i = step; i < parts->n; i += step) {
		struct bytes from = parts->v[i].from;
		memcpy(to, from.p, from.len);
		ret->marks[ret->nmarks++] = BYTES_OF(to, from.len);
		to += from.len;
	}
	return 0;
}

void lmdb_shape_fini(struct lmdb_shape *s)
{
	free(s->marks);
	*s = (struct lmdb_shape){ 0 };
}

static int walk_rows(struct guard *g, struct lmdb_shape *ret)
{
	struct parts parts = { 0 };
	int r = find_parts(g, &parts);

	if (!r)
		r = walk_by_several(g, &parts);
	if (!r)
		r = copy_marks(&parts, ret);
	free(parts.v);
	return r;
}

/* The file ------------------------------------------------------------------------ */

/* ret: the tree is that of the rows. */
static int walk_tree(struct guard *g, const struct tree_head *head, struct lmdb_shape *ret)
{
	int r = 0;

	g->head = head;
	g->found = (struct tree_head){ 0 };
	g->is_free_list = !ret;
	g->last = BYTES_NONE;
	if (head->depth > DEPTH_MAX || !head->depth != (head->root == NO_PAGE))
		return damaged(g, "a tree's depth is impossible");
	if (head->depth)
		r = ret ? walk_rows(g, ret) : walk(g, head->root, 1);
	if (r < 0)
		return r;
	if (g->found.branch != head->branch || g->found.leaf != head->leaf ||
	    g->found.overflow != head->overflow ||
	    g->found.entries != head->entries)
		return damaged(g, "a tree is not as large as its header says");
	return 0;
}

int lmdb_guard(const void *file, uint64_t bytes, struct lmdb_shape *ret,
	       const char **ret_why)
{
	struct guard g = { .file = file };
	struct lmdb_shape shape = { 0 };
	_cleanup_(freep) void *seen = NULL;
	struct meta m;
	int r = choose_meta(&g, bytes, &m);

	if (!r)
		r = check_meta(&g, &m, bytes);
	if (!r) {
		g.seen = seen = calloc(1, g.npages / 8 + 1);
		r = seen ? 0 : -ENOMEM;
	}
	if (!r)
		r = walk_tree(&g, &m.trees[1], &shape);
	if (!r)
		r = walk_tree(&g, &m.trees[0], NULL);
	if (r < 0) {
		lmdb_shape_fini(&shape);
		*ret_why = g.why;
		return r;
	}
	shape.map_bytes = m.map_bytes;
	shape.used_bytes = g.npages * g.page_bytes;
	*ret = shape;
	return 0;
}
