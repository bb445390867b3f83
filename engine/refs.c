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
#include "engine/tier_log.h"
#include "index/index.h"

struct runs {
	struct slice_run *v;
	size_t n, cap;
};

struct refs {
	struct kv_observer observer;
	struct pool *pool;
	struct tier_log *log;       /* of the disk; NULL: there is none */
	struct runs added, dropped; /* since the last end */
	struct runs log_added, log_dropped; /* the same on the disk */
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
	struct runs *to, *log;
	bool foreign; /* an extent of another pool was among them */
};

static int gather_extent(void *arg, const struct extent *e)
{
	struct gather *g = arg;
	const struct refs *r = g->refs;
	struct runs *to = g->to;

	if (r->log && e->pool_id == tier_log_id(r->log)) {
		to = g->log;
	} else if (e->pool_id != pool_id(r->pool)) {
		g->foreign = true;
		return 0;
	}
	if (array_room(to->v, to->cap, to->n + 1, 64) < 0)
		return -ENOMEM;
	to->v[to->n++] = (struct slice_run){ { e->slice, e->gen }, e->slice_pages };
	return 0;
}

/* Appends the row's; -EUCLEAN: it does not decode, and *ret_foreign is not set. */
static int gather(struct refs *r, struct runs *to, struct runs *log, struct bytes key,
		  struct bytes value, bool *ret_foreign)
{
	struct gather g = { .refs = r, .to = to, .log = log };
	size_t before = to->n, log_before = log->n;
	int e = index_row_extents(key, value, gather_extent, &g);

	if (e < 0) {
		to->n = before;
		log->n = log_before;
	} else {
		*ret_foreign = g.foreign;
	}
	return e;
}

/* The observer -------------------------------------------------------------------- */

static int refuse(struct bytes key, int r, const char *why)
{
	log_warn("refs", "a row of kind %c was refused: %s", *(const char *)key.p, why);
	return r;
}

/* Those that were gathered from `before` and `log_before` on. */
static int count(struct refs *r, size_t before, size_t log_before)
{
	struct runs *a = &r->added, *l = &r->log_added;
	int e = a->n > before ? pool_ref(r->pool, a->v + before, (uint32_t)(a->n - before)) : 0;

	if (e || l->n == log_before)
		return e;
	e = tier_log_ref(r->log, l->v + log_before, (uint32_t)(l->n - log_before));
	if (e && a->n > before)
		pool_unref(r->pool, a->v + before, (uint32_t)(a->n - before));
	return e;
}

static int add(struct refs *r, struct bytes key, struct bytes value)
{
	size_t before = r->added.n, log_before = r->log_added.n;
	bool foreign = false;
	int e = gather(r, &r->added, &r->log_added, key, value, &foreign);

	if (e == -ENOMEM)
		return e;
	e = e < 0 || foreign ? -EUCLEAN : count(r, before, log_before);
	if (!e)
		return 0;
	r->added.n = before;
	r->log_added.n = log_before;
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
	int e = gather(r, &r->dropped, &r->log_dropped, key, value, &foreign);

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
	struct runs *log_goes = committed ? &r->log_dropped : &r->log_added;
	int e = pool_unref(r->pool, goes->v, (uint32_t)goes->n);

	if (log_goes->n) {
		int e2 = tier_log_unref(r->log, log_goes->v, (uint32_t)log_goes->n);
		e = e ? e : e2;
	}

	if (e < 0)
		log_error("refs", "references that go were not there: %s", error_text(e));
	runs_clear(&r->added);
	runs_clear(&r->dropped);
	runs_clear(&r->log_added);
	runs_clear(&r->log_dropped);
}

int refs_open(struct pool *p, struct tier *t, struct kv *kv, struct refs **ret)
{
	struct refs *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->observer = (struct kv_observer){
		.kinds = INDEX_EXTENT_KINDS, .write = refs_write, .end = refs_end, .arg = r,
	};
	r->pool = p;
	r->log = t ? tier_log_of(t) : NULL;
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
	free(r->log_added.v);
	free(r->log_dropped.v);
	free(r);
}
