/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Several engines on one index and one pool, each a session of its own: what mounts
 * on several hosts are to each other, without the network between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "common/metrics.h"
#include "engine/engine.h"

enum { KIT_MOUNTS = 2 };

struct mounts {
	struct engine *node; /* whose index and pool they are */
	struct engine *e[KIT_MOUNTS];
};

/* o: what is to be set besides. */
static inline struct mounts mounts_open(struct engine_opts o)
{
	const struct engine_opts no = { .in_memory = true, .pool_bytes = 64 << 20 };
	struct mounts m = { 0 };

	assert_int_equal(engine_open(&no, &m.node, NULL), 0);
	o.in_memory = true;
	o.lent_kv = index_kv(engine_index(m.node));
	o.lent_pool = engine_pool(m.node);
	for (unsigned i = 0; i < KIT_MOUNTS; i++) {
		o.session = 7 + i;
		assert_int_equal(engine_open(&o, &m.e[i], NULL), 0);
		assert_false(engine_is_alone(m.e[i]));
	}
	return m;
}

/* What is given back with late answers is given back. */
static inline void mounts_idle(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	const char *busy;
	int64_t v = 0;

	for (int i = 0; (busy = metrics_busy(&v)) && i < 5000; i++)
		nanosleep(&ms, NULL);
	if (busy)
		fail_msg("%s is %lld", busy, (long long)v);
}

/* All invariants hold and nothing is held. */
static inline void mounts_check(struct mounts *m)
{
	struct writer w = { 0 };

	mounts_idle();
	int n = engine_check(m->node, false, &w, NULL);
	if (n)
		fail_msg("%d violations:\n%.*s", n, (int)w.len, (char *)w.p);
	writer_fini(&w);
}

static inline void mounts_close(struct mounts *m)
{
	mounts_check(m);
	for (unsigned i = 0; i < KIT_MOUNTS; i++)
		engine_close(m->e[i]);
	engine_close(m->node);
}
