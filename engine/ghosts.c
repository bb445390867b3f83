/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ghosts are prints of names, of 16 bits, in sets that forget the oldest. There are as many sets
 * as there are to be ghosts for, by linear hashing; a new set is a copy of the one that it was
 * a part of.
 */
#include "engine/ghosts.h"

#include <string.h>

#include "common/random.h"

enum {
	WAYS = 32,       /* ghosts in a set */
	GHOST_SHARE = 2, /* objects a ghost: fewer or more find less (bench_policy) */
};

int ghosts_init(struct ghosts *g)
{
	return chunks_init(&g->prints);
}

void ghosts_fini(struct ghosts *g)
{
	chunks_fini(&g->prints);
}

static uint16_t *set_at(struct ghosts *g, uint64_t set)
{
	return chunks_at(&g->prints, set * WAYS, sizeof(uint16_t));
}

/* One set more or less, on the way to as many as there are to be. */
static void fit(struct ghosts *g, uint64_t nobjects)
{
	uint64_t wanted = nobjects / GHOST_SHARE / WAYS + 1;

	if (g->nsets > wanted + wanted / 8)
		g->nsets--;
	if (g->nsets >= wanted ||
	    chunks_room(&g->prints, (g->nsets + 1) * WAYS, sizeof(uint16_t)) < 0)
		return;
	if (g->nsets)
		memcpy(set_at(g, g->nsets), set_at(g, linear_split(g->nsets)),
		       WAYS * sizeof(uint16_t));
	g->nsets++;
}

/* Of which set a name is, and its print there. */
static uint16_t *set_of(struct ghosts *g, const struct policy_object *o, uint16_t *ret_print)
{
	uint64_t h = random_mix(o->parent * RANDOM_STEP ^ o->h >> POLICY_H_LOW);

	*ret_print = (uint16_t)(h >> 48 ? h >> 48 : 1);
	return set_at(g, linear_place(h, g->nsets));
}

static bool set_remove(uint16_t *set, uint16_t print)
{
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i] != print)
			continue;
		memmove(set + i, set + i + 1, (WAYS - 1 - i) * sizeof(*set));
		set[WAYS - 1] = 0;
		return true;
	}
	return false;
}

void ghosts_add(struct ghosts *g, const struct policy_object *o, uint64_t nobjects)
{
	uint16_t print;

	fit(g, nobjects);
	if (!g->nsets || !o->parent)
		return;
	uint16_t *set = set_of(g, o, &print);
	set_remove(set, print);
	memmove(set + 1, set, (WAYS - 1) * sizeof(*set));
	set[0] = print;
}

bool ghosts_take(struct ghosts *g, const struct policy_object *o)
{
	uint16_t print;

	if (!g->nsets || !o->parent)
		return false;
	uint16_t *set = set_of(g, o, &print);
	return set_remove(set, print);
}
