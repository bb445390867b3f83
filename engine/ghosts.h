/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Names of what has gone lately, for policy.c: what comes back is a new object, and known again
 * by its name. There are half as many as there are objects. Of 2,000 new names one is taken for
 * another's.
 *
 * Threads: its owner's lock.
 */
#include <stdbool.h>

#include "engine/chunks.h"
#include "engine/policy.h"

struct ghosts {
	struct chunks prints;
	uint64_t nsets;
};

int ghosts_init(struct ghosts *g); /* all zeros. -ENOMEM */
void ghosts_fini(struct ghosts *g);

/* Of an object without a name: nothing. nobjects: that there are. Without memory there are fewer. */
void ghosts_add(struct ghosts *g, const struct policy_object *o, uint64_t nobjects);
/* Is its name there? It is forgotten with that. */
bool ghosts_take(struct ghosts *g, const struct policy_object *o);
