/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libbsd's red-black tree (a header, nothing to link) over rows that are one
 * allocation each: link, key and value together.
 */
#include "index/ordered.h"

#include <errno.h>

static int row_cmp(const struct ordered_row *a, const struct ordered_row *b)
{
	return bytes_cmp(a->row.key, b->row.key);
}

RB_GENERATE_INTERNAL(ordered_tree, ordered_row, link, row_cmp,
		     __attribute__((unused)) static)

int ordered_row_new(struct bytes key, struct bytes value, uint64_t revision,
		    struct ordered_row **ret)
{
	struct ordered_row *r = malloc(sizeof(*r) + key.len + value.len);

	if (!r)
		return -ENOMEM;
	memcpy(r->b, key.p, key.len);
	if (value.len)
		memcpy(r->b + key.len, value.p, value.len);
	r->row.key = BYTES_OF(r->b, key.len);
	r->row.value = BYTES_OF(r->b + key.len, value.len);
	r->row.revision = revision;
	r->gone = !value.p;
	*ret = r;
	return 0;
}

void ordered_row_free(struct ordered_row *row)
{
	free(row);
}

/* The tree's own functions take no const; looking does not change it. */
static struct ordered_tree *tree_of(const struct ordered *o)
{
	return (struct ordered_tree *)&o->tree;
}

static void unlink_row(struct ordered *o, struct ordered_row *row)
{
	RB_REMOVE(ordered_tree, &o->tree, row);
	o->n--;
	ordered_row_free(row);
}

void ordered_insert(struct ordered *o, struct ordered_row *row)
{
	struct ordered_row *old = RB_INSERT(ordered_tree, &o->tree, row);

	if (old) {
		unlink_row(o, old);
		RB_INSERT(ordered_tree, &o->tree, row);
	}
	o->n++;
}

bool ordered_remove(struct ordered *o, struct bytes key)
{
	struct ordered_row *row = ordered_get(o, key);

	if (row)
		unlink_row(o, row);
	return row != NULL;
}

void ordered_clear(struct ordered *o)
{
	struct ordered_row *row;

	while ((row = RB_ROOT(&o->tree)))
		unlink_row(o, row);
}

void ordered_end_session(struct ordered *o, uint64_t session, struct kv *kv)
{
	struct ordered_row *row = ordered_at(o, BYTES_NONE);

	while (row) {
		struct ordered_row *next = ordered_next(row);
		struct bytes key = row->row.key;
		if (kv_key_is_session(key) && kv_key_session(key) == session) {
			if (kv_is_observed(kv, key))
				kv_observe_write(kv, key, row->row.value, BYTES_NONE);
			unlink_row(o, row);
		}
		row = next;
	}
	if (kv->observers)
		kv_observe_end(kv, true);
}

void ordered_apply(struct ordered *to, struct ordered *from)
{
	struct ordered_row *row;

	while ((row = RB_ROOT(&from->tree))) {
		RB_REMOVE(ordered_tree, &from->tree, row);
		from->n--;
		if (!row->gone) {
			ordered_insert(to, row);
			continue;
		}
		ordered_remove(to, row->row.key);
		ordered_row_free(row);
	}
}

struct ordered_row *ordered_get(const struct ordered *o, struct bytes key)
{
	struct ordered_row probe = { .row.key = key };

	return RB_FIND(ordered_tree, tree_of(o), &probe);
}

struct ordered_row *ordered_at(const struct ordered *o, struct bytes key)
{
	struct ordered_row probe = { .row.key = key };

	return RB_NFIND(ordered_tree, tree_of(o), &probe);
}

struct ordered_row *ordered_next(struct ordered_row *row)
{
	return RB_NEXT(ordered_tree, NULL, row);
}

int ordered_check(const struct ordered *o, struct writer *report)
{
	static const char order[] = "keys in memory are not in order\n";
	static const char count[] = "keys in memory are not as many as counted\n";
	struct ordered_row *row, *before = NULL;
	uint64_t n = 0;
	int bad = 0;

	RB_FOREACH(row, ordered_tree, tree_of(o)) {
		if (before && row_cmp(before, row) >= 0) {
			write_bytes(report, order, sizeof(order) - 1);
			bad++;
		}
		before = row;
		n++;
	}
	if (n != o->n) {
		write_bytes(report, count, sizeof(count) - 1);
		bad++;
	}
	return bad;
}
