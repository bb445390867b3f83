/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between two commits there are two lists: `added`, references that were counted
 * already and are taken back if the commit fails; `dropped`, those to be taken away
 * once it has succeeded. An extent that is in the old value and in the new one goes
 * up before it goes down, and a slice that moves from row to row in one transaction
 * is never without.
 *
 * Taken back, a slice that was SEALED is DYING: its owner has it pinned, and it
 * becomes LIVE when the next try adds its references.
 */
#include "engine/refs.h"

#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/error.h"
#include "common/log.h"
#include "index/index.h"

struct runs {
	struct slice_run *v;
	size_t n, cap;
};

struct refs {
	struct kv_observer observer;
	struct pool *pool;
	struct runs added, dropped; /* since the last end */
};

enum { KEEP_RUNS = 4096 }; /* of a list's memory, from one commit to the next */

static void runs_clear(struct runs *r)
{
	r->n = 0;
	if (r->cap <= KEEP_RUNS)
		return;
	free(r->v);
	*r = (struct runs){ 0 };
}

/* Decoding ------------------------------------------------------------------------ */

struct gather {
	struct refs *refs;
	struct runs *to;
	bool foreign; /* an extent of another pool was among them */
};

static int gather_extent(void *arg, const struct extent *e)
{
	struct gather *g = arg;
	struct runs *to = g->to;

	if (e->pool_id != pool_id(g->refs->pool)) {
		g->foreign = true;
		return 0;
	}
	if (array_room(to->v, to->cap, to->n + 1, 64) < 0)
		return -ENOMEM;
	to->v[to->n++] = (struct slice_run){ { e->slice, e->gen }, e->slice_pages };
	return 0;
}

/* Appends the row's; -EUCLEAN: it does not decode, and *ret_foreign is not set. */
static int gather(struct refs *r, struct runs *to, struct bytes key, struct bytes value,
		  bool *ret_foreign)
{
	struct gather g = { .refs = r, .to = to };
	size_t before = to->n;
	int e = index_row_extents(key, value, gather_extent, &g);

	if (e < 0)
		to->n = before;
	else
		*ret_foreign = g.foreign;
	return e;
}

/* The observer -------------------------------------------------------------------- */

static int refuse(struct bytes key, int r, const char *why)
{
	log_warn("refs", "a row of kind %c was refused: %s", *(const char *)key.p, why);
	return r;
}

static int add(struct refs *r, struct bytes key, struct bytes value)
{
	struct runs *a = &r->added;
	size_t before = a->n;
	bool foreign = false;
	int e = gather(r, a, key, value, &foreign);

	if (e == -ENOMEM)
		return e;
	if (e < 0 || foreign)
		e = -EUCLEAN;
	else if (a->n > before)
		e = pool_ref(r->pool, a->v + before, (uint32_t)(a->n - before));
	if (!e)
		return 0;
	a->n = before;
	switch (e) {
	case -EUCLEAN:
		return refuse(key, -EINVAL, foreign ? "it names another pool" : "it does not decode");
	case -EINVAL:
		return refuse(key, e, "it names a slice that is not sealed");
	default:
		return refuse(key, e, "it names a slice that is not there");
	}
}

static int drop(struct refs *r, struct bytes key, struct bytes value)
{
	bool foreign = false;
	int e = gather(r, &r->dropped, key, value, &foreign);

	if (e == -ENOMEM)
		return e;
	/* Nothing that we have let in. Let it go. */
	if (e < 0 || foreign)
		log_error("refs", "a row of kind %c that goes %s", *(const char *)key.p,
			  foreign ? "names another pool" : "does not decode");
	return 0;
}

static int refs_write(void *arg, struct bytes key, struct bytes before, struct bytes after)
{
	struct refs *r = arg;
	int e = 0;

	if (before.p && after.p && index_row_is_same(key, before, after))
		return 0;
	if (after.p)
		e = add(r, key, after);
	if (!e && before.p)
		e = drop(r, key, before);
	return e;
}

static void refs_end(void *arg, bool committed)
{
	struct refs *r = arg;
	struct runs *goes = committed ? &r->dropped : &r->added;
	int e = pool_unref(r->pool, goes->v, (uint32_t)goes->n);

	if (e < 0)
		log_error("refs", "references that go were not there: %s", error_text(e));
	runs_clear(&r->added);
	runs_clear(&r->dropped);
}

int refs_open(struct pool *p, struct kv *kv, struct refs **ret)
{
	struct refs *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->observer = (struct kv_observer){
		.kinds = INDEX_EXTENT_KINDS, .write = refs_write, .end = refs_end, .arg = r,
	};
	r->pool = p;
	int e = kv_observe(kv, &r->observer);
	if (e < 0) {
		free(r);
		return e;
	}
	*ret = r;
	return 0;
}

void refs_close(struct refs *r)
{
	if (!r)
		return;
	free(r->added.v);
	free(r->dropped.v);
	free(r);
}
