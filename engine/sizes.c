/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes of a new store. The pool is prefaulted and the index allocated in full,
 * so that what is promised here is really there later: a store that does not
 * fit is refused before anything of it has been made.
 */
#include "engine/sizes.h"

#include <errno.h>
#include <stdio.h>
#include <sys/param.h>
#include <sys/statvfs.h>

#include "common/error.h"
#include "common/size.h"
#include "engine/memory.h"
#include "engine/pool.h"

#define MIB (1ULL << 20)

static const uint64_t pool_unit = (uint64_t)SLICE_PAGES_MAX * PAGE_BYTES;
static const uint64_t pool_min = 16 * MIB;
static const uint64_t index_min = MIB;
static const uint64_t index_default_min = 64 * MIB;
/* A tmpfs of huge pages takes 2 MiB for each of its small files. */
static const uint64_t slack = 16 * MIB;

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return n > UINT64_MAX - unit ? n / unit * unit : (n + unit - 1) / unit * unit;
}

uint64_t sizes_pool(uint64_t asked_bytes)
{
	return round_up(asked_bytes, pool_unit);
}

uint64_t sizes_index(uint64_t asked_bytes)
{
	return round_up(asked_bytes, MIB);
}

uint64_t sizes_total(const struct sizes *s)
{
	return s->pool_bytes + s->index_bytes + slack;
}

/* The largest pool, in MiB, that fits into `room` together with its index. */
static unsigned long long pool_that_fits(uint64_t room, const struct engine_opts *o)
{
	uint64_t index = o->index_bytes ? sizes_index(o->index_bytes)
					: MAX(round_up(room / 9, MIB), index_default_min);

	room -= MIN(room, slack);
	room -= MIN(room, index);
	return room / pool_unit * pool_unit / MIB;
}

/* Does it fit into `room` bytes? No sum of what was asked for may overflow. */
static bool fits(const struct sizes *s, uint64_t room)
{
	return room >= slack && s->pool_bytes <= room - slack &&
	       s->index_bytes <= room - slack - s->pool_bytes;
}

static int check_memory(const struct engine_opts *o, const struct memory *m, const char *old,
			const struct sizes *s, char **ret_why)
{
	uint64_t margin = memory_margin(m);
	uint64_t room = m->available_bytes - MIN(m->available_bytes, margin);
	unsigned long long mib = pool_that_fits(room, o);
	char hint[64] = "freeing some memory";

	if (fits(s, room))
		return 0;
	if (mib >= pool_min / MIB)
		snprintf(hint, sizeof(hint), "--pool-size %lluM", mib);
	return why(ret_why, -ENOMEM, "store %s: a pool of %s with an index of %s does not fit into "
		   "the memory: %s of %s are available, of which %s are left to others. "
		   "Try: %s%s%s", o->dir, size_text(s->pool_bytes).s,
		   size_text(s->index_bytes).s, size_text(m->available_bytes).s,
		   size_text(m->total_bytes).s, size_text(margin).s, hint,
		   old ? "; or give the old contents up: rm -r " : "", old ? old : "");
}

int sizes_choose(const struct engine_opts *o, const char *old, struct sizes *ret,
		 char **ret_why)
{
	struct memory m;
	struct sizes s = { sizes_pool(o->pool_bytes), sizes_index(o->index_bytes) };
	int r = memory_now(&m);

	if (r < 0)
		return why(ret_why, r, "store %s: cannot read how much memory there is. "
			   "Is /proc mounted?", o->dir);
	if (!s.pool_bytes)
		s.pool_bytes = MAX(m.total_bytes / 4 / pool_unit * pool_unit, pool_min);
	if (!s.index_bytes)
		s.index_bytes = MAX(round_up(s.pool_bytes / 8, MIB), index_default_min);
	if (s.pool_bytes < pool_min || s.index_bytes < index_min)
		return why(ret_why, -EINVAL, "store %s: a pool of %s with an index of %s is too "
			   "small: at least %s and %s. Try: --pool-size 64M", o->dir,
			   size_text(s.pool_bytes).s, size_text(s.index_bytes).s,
			   size_text(pool_min).s, size_text(index_min).s);
	r = check_memory(o, &m, old, &s, ret_why);
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}

int sizes_fit(const struct engine_opts *o, const char *folder, const struct sizes *s,
	      char **ret_why)
{
	struct statvfs v;

	if (statvfs(folder, &v))
		return why(ret_why, -errno, "store %s: %s: %s", o->dir, folder, error_text(errno));
	uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
	/* Our own tmpfs has the slack for its texts, other ones need less. */
	uint64_t roomy = room + slack - MIB;
	unsigned long long mib = pool_that_fits(roomy, o);
	char hint[64] = "slicefs store ls, then slicefs store rm of what is not needed";
	if (fits(s, roomy))
		return 0;
	if (mib >= pool_min / MIB)
		snprintf(hint, sizeof(hint), "--pool-size %lluM", mib);
	return why(ret_why, -ENOSPC, "store %s: no space for a pool of %s and an index of %s in "
		   "%s: %s are free. Try: %s", o->dir, size_text(s->pool_bytes).s,
		   size_text(s->index_bytes).s, folder, size_text(room).s, hint);
}
