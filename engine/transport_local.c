/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool is in this process: a post is a memcpy, and over when post() returns.
 * So nothing is ever out, and there is nothing to quiesce.
 *
 * Threads: any.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "engine/transport.h"

struct local {
	struct transport transport;
	struct pool *pool;
};

static struct local *of(struct transport *t)
{
	return (struct local *)t;
}

static int local_post(struct transport *t, struct post *p)
{
	void *bytes = pool_span(of(t)->pool, p->slice, p->off, p->len);

	if (!bytes)
		return -EINVAL;
	if (p->kind == POST_WRITE)
		memcpy(bytes, p->local, p->len);
	else
		memcpy(p->local, bytes, p->len);
	metric_add(M_MOVED_LOCAL, p->len);
	p->done(p, 0);
	return 0;
}

static void local_quiesce(struct transport *t)
{
	(void)t;
}

static void *local_map(struct transport *t, struct slice_id s)
{
	return pool_span(of(t)->pool, s, 0, 0);
}

static void local_close(struct transport *t)
{
	free(of(t));
}

static const struct transport_ops local_ops = {
	.name = "local",
	.post = local_post,
	.quiesce = local_quiesce,
	.map = local_map,
	.close = local_close,
};

int transport_local_open(struct pool *p, struct transport **ret)
{
	struct local *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->transport.ops = &local_ops;
	l->pool = p;
	*ret = &l->transport;
	return 0;
}
