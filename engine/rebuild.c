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
 * Threads: one, before there are others.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/priv.h"
#include "engine/tier.h"

struct orphan {
	uint64_t fileid;
	struct block_ref block;
};

struct rebuild {
	struct engine *e;
	char **ret_why;
	uint64_t extents, objects, refused, last_fileid;
	struct orphan *orphans;
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
		return why(b->ret_why, r, "object %" PRIu64 " (%" PRIu64 " bytes) is on a disk. Try: "
			   "with --ssd and the folder of that; else", a->fileid, a->size);
	return why(b->ret_why, -EXDEV, "object %" PRIu64 " (%" PRIu64 " bytes) is on a disk, and "
		   "not on this one as it is now. Try: with the folder of that; else", a->fileid,
		   a->size);
}

static int adopt(struct rebuild *b, const struct attr *a, const struct extent *x)
{
	struct pool *pool = b->e->pool;
	struct slice_id s = { x->slice, x->gen };

	if (a->away || x->pool_id == b->e->disk_id)
		return adopt_away(b, a, x);
	int r = x->pool_id == pool_id(pool) ? pool_adopt(pool, s, x->slice_pages) : -EXDEV;

	if (r == -EUCLEAN || r == -EXDEV) {
		if (b->e->offline) {
			b->refused++;
			return 0;
		}
		/* -EXDEV: that the index could not be read is another matter */
		return why(b->ret_why, -EXDEV, "object %" PRIu64 " (%" PRIu64 " bytes) names "
			   "slice %u generation %u, %s", a->fileid, a->size, x->slice, x->gen,
			   r == -EXDEV ? "of another pool" :
			   "which lies outside the pool or across another slice");
	}
	return r;
}

static int visit_extents(void *arg, const struct attr *a, const struct extents *x)
{
	struct rebuild *b = arg;

	if (a->fileid != b->last_fileid)
		b->objects++;
	b->last_fileid = a->fileid;
	for (uint32_t i = 0; i < x->n; i++) {
		int r = adopt(b, a, &x->v[i]);
		if (r < 0)
			return r;
	}
	b->extents += x->n;
	return 0;
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

int engine_rebuild(struct engine *e, char **ret_why)
{
	struct rebuild b = { .e = e, .ret_why = ret_why };
	struct index_visitor v = {
		.extents = visit_extents, .orphan_block = visit_orphan, .arg = &b
	};
	uint64_t begun = clock_ns();
	int r = index_scan(e->ix, &v);

	if (r == -EXDEV)
		return -EUCLEAN;
	/* A fsck that only looks goes on with what could be read; its check says that
	 * the rest could not. One that repairs would take that rest for lost. */
	if (r == -EUCLEAN && e->read_only)
		r = 0;
	if (!r) {
		pool_adopted(e->pool);
		crash_point(CRASH_REBUILD_SCANNED);
		if (!e->read_only)
			r = delete_orphans(&b);
	}
	if (!r && (b.extents || b.norphans))
		log_info("store", "%" PRIu64 " objects in slices, %" PRIu64 " extents; %zu extent "
			 "blocks collected; %" PRIu64 " ms", b.objects, b.extents,
			 e->read_only ? 0 : b.norphans, (clock_ns() - begun) / 1000000);
	if (b.refused)
		log_warn("store", "%" PRIu64 " extents name slices that cannot be", b.refused);
	free(b.orphans);
	crash_point(CRASH_REBUILD_DONE);
	return r;
}
