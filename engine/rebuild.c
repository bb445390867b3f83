/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slice table from the index (I2). Nothing of the table outlives the process:
 * every extent of every published version adopts its slice, each extent counts a
 * reference, and what nobody adopted is free. So whatever a dead process held,
 * wrote or was about to free is settled by counting, and nothing had to be
 * remembered. Blocks that no record refers to are deleted in the end.
 *
 * An extent that cannot be (another pool's, outside, across another slice) means
 * that index and pool do not belong together or that one of them is damaged: the
 * mount is refused and names the object, rather than guess which of two was right.
 *
 * Threads: as many as there are processors go through the records, each with a lot of its own to
 * adopt; all others come after it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/crew.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/priv.h"
#include "engine/tier.h"

enum { LOT = 64 };

struct orphan {
	uint64_t fileid;
	struct block_ref block;
};

/* Whose extent it is, for the sentence. */
struct owner {
	uint64_t fileid, size;
};

struct rebuild { /* one a thread */
	struct engine *e;
	char *why;
	uint64_t extents, objects, refused, last_fileid;
	struct slice_run lot[LOT]; /* to be adopted */
	struct owner owners[LOT];
	uint32_t nlot;
	struct orphan *orphans; /* the first one's */
	size_t norphans, cap;
};

/* Offline nobody has opened the disk; what is on it is not looked at. */
static int adopt_away(struct rebuild *b, const struct attr *a, const struct extent *x)
{
	struct engine *e = b->e;
	int r = e->tier && x->pool_id == tier_id(e->tier) ? tier_adopt(e->tier, x, a->fileid) :
		e->offline && x->pool_id == e->disk_id ? 0 : -EXDEV;

	if (!r || r == -ENOMEM)
		return r;
	if (r == -EXDEV && !e->tier)
		return why(&b->why, r, "object %" PRIu64 " (%" PRIu64 " bytes) is on a disk. Try: "
			   "with --ssd and the folder of that; else", a->fileid, a->size);
	return why(&b->why, -EXDEV, "object %" PRIu64 " (%" PRIu64 " bytes) is on a disk, and "
		   "not on this one as it is now. Try: with the folder of that; else", a->fileid,
		   a->size);
}

/* -EXDEV: that the index could not be read is another matter. */
static int refuse(struct rebuild *b, const struct owner *o, const struct slice_id *s,
		  const char *what)
{
	if (b->e->offline) {
		b->refused++;
		return 0;
	}
	return why(&b->why, -EXDEV, "object %" PRIu64 " (%" PRIu64 " bytes) names slice %u "
		   "generation %u, %s", o->fileid, o->size, s->page, s->gen, what);
}

static int adopt_lot(struct rebuild *b)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < b->nlot; i++) {
		i += pool_adopt(b->e->pool, b->lot + i, b->nlot - i);
		if (i < b->nlot)
			r = refuse(b, &b->owners[i], &b->lot[i].id,
				   "which lies outside the pool or across another slice");
	}
	b->nlot = 0;
	return r;
}

static int visit_extent(void *arg, const struct attr *a, const struct extent *x)
{
	struct rebuild *b = arg;
	struct owner o = { a->fileid, a->size };
	struct slice_id s = { x->slice, x->gen };

	b->objects += a->fileid != b->last_fileid;
	b->last_fileid = a->fileid;
	b->extents++;
	if (a->away || x->pool_id == b->e->disk_id)
		return adopt_away(b, a, x);
	if (x->pool_id != pool_id(b->e->pool))
		return refuse(b, &o, &s, "of another pool");
	pool_expect(b->e->pool, s.page);
	b->lot[b->nlot] = (struct slice_run){ s, x->slice_pages };
	b->owners[b->nlot++] = o;
	return b->nlot < LOT ? 0 : adopt_lot(b);
}

static int visit_orphan(void *arg, uint64_t fileid, uint64_t id)
{
	struct rebuild *b = arg;

	if (array_room(b->orphans, b->cap, b->norphans + 1, 64) < 0)
		return -ENOMEM;
	b->orphans[b->norphans++] = (struct orphan){ fileid, { .id = id } };
	return 0;
}

/* One object's at a time: they come in order of fileid. */
static int delete_orphans(struct rebuild *b)
{
	for (size_t i = 0, n; i < b->norphans; i += n) {
		struct block_ref refs[64];
		struct index_op op = { .fileid = b->orphans[i].fileid, .blocks = refs };

		for (n = 0; n < 64 && i + n < b->norphans; n++) {
			if (b->orphans[i + n].fileid != op.fileid)
				break;
			refs[n] = b->orphans[i + n].block;
		}
		op.nblocks = (uint32_t)n;
		int r = index_wait(b->e->ix, &op, index_del_blocks);
		index_op_fini(&op);
		if (r < 0)
			return r;
	}
	return 0;
}

static void rebuilds_free(struct rebuild *v)
{
	for (unsigned i = 0; i < CREW_MAX; i++) {
		free(v[i].why);
		free(v[i].orphans);
	}
	free(v);
}
DEFINE_CLEANUP(struct rebuild *, rebuilds_free)

/* All records, by n threads; what they have found is the first one's then. */
static int scan(struct rebuild *v, unsigned n)
{
	void *args[CREW_MAX];
	const struct index_visitor visitor = {
		.extent = visit_extent, .orphan_block = visit_orphan, .arg = v,
		.args = args, .nargs = n,
	};

	for (unsigned i = 0; i < n; i++)
		args[i] = &v[i];
	int r = index_scan(v->e->ix, &visitor);
	for (unsigned i = 0; i < n; i++) {
		int r2 = adopt_lot(&v[i]);
		r = r ? r : r2;
		if (!i)
			continue;
		v->objects += v[i].objects;
		v->extents += v[i].extents;
		v->refused += v[i].refused;
		if (!v->why)
			v->why = steal(&v[i].why);
	}
	return r;
}

int engine_rebuild(struct engine *e, char **ret_why)
{
	_cleanup_(rebuilds_freep) struct rebuild *b = calloc(CREW_MAX, sizeof(*b));
	uint64_t begun = clock_ns();

	if (!b)
		return -ENOMEM;
	for (unsigned i = 0; i < CREW_MAX; i++)
		b[i].e = e;
	int r = scan(b, crew_size());
	if (r == -EXDEV) {
		*ret_why = steal(&b->why);
		return -EUCLEAN;
	}
	/* A fsck that only looks goes on with what could be read; its check says that
	 * the rest could not. One that repairs would take that rest for lost. */
	if (r == -EUCLEAN && e->read_only)
		r = 0;
	if (!r) {
		pool_adopted(e->pool);
		crash_point(CRASH_REBUILD_SCANNED);
		if (!e->read_only)
			r = delete_orphans(b);
	}
	if (!r && (b->extents || b->norphans))
		log_info("store", "%" PRIu64 " objects in slices, %" PRIu64 " extents; %zu extent "
			 "blocks collected; %" PRIu64 " ms", b->objects, b->extents,
			 e->read_only ? 0 : b->norphans, (clock_ns() - begun) / 1000000);
	if (b->refused)
		log_warn("store", "%" PRIu64 " extents name slices that cannot be", b->refused);
	crash_point(CRASH_REBUILD_DONE);
	return r;
}
