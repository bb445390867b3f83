/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* splitmix64: numbers that look random and follow from a seed, for faults and tests. */
#include <stdint.h>

#define RANDOM_STEP 0x9e3779b97f4a7c15U

/* The number that belongs to a state, which goes on by RANDOM_STEP. */
static inline uint64_t random_mix(uint64_t state)
{
	state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9U;
	state = (state ^ state >> 27) * 0x94d049bb133111ebU;
	return state ^ state >> 31;
}

static inline uint64_t random_next(uint64_t *state)
{
	return random_mix(*state += RANDOM_STEP);
}
