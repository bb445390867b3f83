/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/register.h"

#include <stddef.h>

#define registering_of(ptr, member)                                            \
	((struct registering *)((char *)(ptr) - offsetof(struct registering, member)))

static void recalled(struct node_call *c, int r)
{
	struct registering *g = registering_of(c, recall);

	if (r < 0)
		g->done(g, r);
	else
		registering_start(g);
}

static void told(struct index_op *op, int outcome)
{
	struct registering *g = registering_of(op, op);

	if (!outcome || op->unsure) {
		WITH_LOCK(&g->f->lock);
		g->f->registered = true;
	}
	index_op_fini(op);
	if (outcome != INDEX_ON_DISK) {
		g->done(g, outcome);
		return;
	}
	g->recall = (struct node_call){ .of = g->call, .done = recalled };
	node_recall(g->f->e->node, g->f->fileid, g->place, true, &g->recall);
}

void registering_start(struct registering *g)
{
	g->op = (struct index_op){ .fileid = g->f->fileid, .place = g->place, .done = told };
	if (g->call)
		g->op.call = kv_call_of(g->call);
	index_writer(g->f->e->ix, &g->op);
}
