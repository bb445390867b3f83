/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/emptied.h"

#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"

enum {
	ROUND = 32,     /* that go in one */
	LOOKS = 8,      /* for them, in the time that they stay, */
	LOOK_MS = 1000, /* but no more often than that, */
	MAX_MS = 600 * 1000, /* and no less */
	PRESSED = 1000, /* what is left of the time that they stay if there is no room, but */
	TOLD = 2,       /* as long as mounts need to say twice that one is in use */
};

struct emptied {
	struct victims *victims;
	struct index *ix;
	uint64_t ms;
	uint64_t *dirs; /* that may be empty, and unused since */
	size_t n, cap;
	struct timespec since;
	uint64_t at_ns; /* when they are looked for again, */
	uint64_t press_ns; /* and for want of room */
};

static int note(void *arg, uint64_t dir)
{
	struct emptied *x = arg;
	int r = array_room(x->dirs, x->cap, x->n + 1, 64);

	if (!r)
		x->dirs[x->n++] = dir;
	return r;
}

static uint64_t every_ns(const struct emptied *x)
{
	uint64_t ms = x->ms / LOOKS;

	return (ms < LOOK_MS ? LOOK_MS : ms > MAX_MS ? MAX_MS : ms) * NS_PER_MS;
}

static uint64_t pressed_ms(const struct emptied *x)
{
	uint64_t part = x->ms / PRESSED, told = TOLD * engine_dirs_tell_ms(x->ms);

	return part > told ? part : told;
}

/* Those in which nothing has happened for so long since an eviction; some have names still. */
static void look(struct emptied *x, uint64_t ms)
{
	x->since = clock_now();
	x->since.tv_sec -= (time_t)(ms / 1000);
	index_all_evicted(x->ix, x->since, note, x);
	for (bool from_start = true; x->n && !victims_look(x->victims, from_start);)
		from_start = false;
}

/* Some of those that were found; how many have gone. */
static unsigned let_go(struct emptied *x)
{
	unsigned gone = 0;

	for (unsigned n = 0; n < ROUND && x->n; n++)
		gone += !victim_dir_go_wait(x->victims, x->dirs[--x->n], x->since);
	if (!x->n) {
		free(steal(&x->dirs));
		x->cap = 0;
	}
	return gone;
}

bool emptied_serve(struct emptied *x)
{
	if (x->ms && !x->n && clock_ns() >= x->at_ns) {
		x->at_ns = clock_ns() + every_ns(x);
		look(x, x->ms);
	}
	let_go(x);
	return x->n;
}

unsigned emptied_press(struct emptied *x)
{
	unsigned gone = let_go(x);

	if (gone || !x->ms || clock_ns() < x->press_ns)
		return gone;
	if (!x->n)
		look(x, pressed_ms(x));
	do {
		gone = let_go(x);
	} while (!gone && x->n);
	if (!gone)
		x->press_ns = clock_ns() + LOOK_MS * NS_PER_MS;
	return gone;
}

uint64_t emptied_ms(const struct emptied *x)
{
	return x->ms;
}

int emptied_new(struct victims *vs, struct index *ix, uint64_t ms, struct emptied **ret)
{
	struct emptied *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->victims = vs;
	x->ix = ix;
	x->ms = ms;
	x->at_ns = clock_ns() + every_ns(x);
	*ret = x;
	return 0;
}

void emptied_free(struct emptied *x)
{
	if (!x)
		return;
	free(x->dirs);
	free(x);
}
