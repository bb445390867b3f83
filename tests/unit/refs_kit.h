/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* References without an index: for tests of what lies below it. */
#include <errno.h>
#include <stdint.h>

#include "engine/pool.h"

/* n references of the slice more, or less. -ESTALE; -EINVAL: not sealed, or it has
 * not as many. */
static inline int add_refs(struct pool *p, struct slice_id s, int n)
{
	struct slice_run run = { s, 1 };
	struct slice_view v;
	int r = 0;

	if (pool_next(p, s.page, &v) && v.id.page == s.page && v.id.gen == s.gen) {
		run.npages = v.npages;
		if (n < 0 && v.refs < (uint32_t)-n)
			return -EINVAL;
	}
	for (; !r && n > 0; n--)
		r = pool_ref(p, &run, 1);
	for (; !r && n < 0; n++)
		r = pool_unref(p, &run, 1);
	return r;
}

/* One slice alone. 0, or -EUCLEAN. */
static inline int adopt_slice(struct pool *p, struct slice_id s, uint32_t npages)
{
	struct slice_run run = { s, npages };

	return pool_adopt(p, &run, 1) == 1 ? 0 : -EUCLEAN;
}
