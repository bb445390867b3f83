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
	LOOK_MS = 1000, /* but no more often than that (nor who is there), */
	MAX_MS = 600 * 1000, /* and no less */
	PRESSED = 1000, /* what is left of the time that they stay if there is no room, but */
	TOLD = 2,       /* as long as mounts need to say twice that one is in use */
};

enum phase {
	IDLE,   /* none were found, or all of them tried */
	FIND,   /* in the index, behind `at` */
	ASK,    /* who uses some is to say so, */
	ASK_ON, /* and has begun to */
	LET_GO,
};

struct emptied {
	struct victims *victims;
	struct index *ix;
	uint64_t ms;
	enum phase phase;
	bool pressed;   /* for want of room: what is left of these stays if there is some */
	uint64_t at;
	uint64_t *dirs; /* that may be empty, and unused since */
	size_t n, cap;
	struct timespec since;
	uint64_t fresh_ns; /* so long it is known who is there */
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

static void forget(struct emptied *x)
{
	free(steal(&x->dirs));
	x->n = x->cap = 0;
	x->at = 0;
	x->pressed = false;
	x->phase = IDLE;
}

/* Those in which nothing has happened for so long since an eviction; some have names still. */
static void begin(struct emptied *x, uint64_t ms, bool pressed)
{
	forget(x);
	x->since = clock_now();
	x->since.tv_sec -= (time_t)(ms / 1000);
	x->pressed = pressed;
	x->phase = FIND;
}

/* Some of those that were found; how many have gone. */
static unsigned let_go(struct emptied *x)
{
	unsigned gone = 0;

	for (unsigned n = 0; n < ROUND && x->n; n++)
		gone += !victim_dir_go_wait(x->victims, x->dirs[--x->n], x->since);
	return gone;
}

/* It is known who is there; else some is done for that. */
static bool is_known(struct emptied *x)
{
	if (x->phase == LET_GO && clock_ns() < x->fresh_ns)
		return true;
	bool all = !x->n || victims_look(x->victims, x->phase != ASK_ON);
	x->phase = all ? LET_GO : ASK_ON;
	x->fresh_ns = clock_ns() + LOOK_MS * NS_PER_MS;
	return all;
}

/* How many have gone. */
static unsigned step(struct emptied *x)
{
	unsigned gone = 0;

	if (x->phase == FIND) {
		if (index_some_evicted(x->ix, x->since, &x->at, note, x) || !x->at)
			x->phase = ASK;
		x->fresh_ns = clock_ns() + LOOK_MS * NS_PER_MS;
	} else if (x->phase != IDLE && is_known(x)) {
		gone = let_go(x);
		if (!x->n)
			forget(x);
	}
	return gone;
}

bool emptied_serve(struct emptied *x)
{
	if (x->pressed && clock_ns() < x->fresh_ns)
		return false;
	if (x->pressed) /* there has been room for a while: they stay */
		forget(x);
	if (x->phase == IDLE && x->ms && clock_ns() >= x->at_ns) {
		x->at_ns = clock_ns() + every_ns(x);
		begin(x, x->ms, false);
	}
	step(x);
	return x->phase != IDLE;
}

bool emptied_press(struct emptied *x, unsigned *ret_gone)
{
	*ret_gone = 0;
	if (x->phase != LET_GO && !x->pressed) {
		if (!x->ms || clock_ns() < x->press_ns)
			return false;
		begin(x, pressed_ms(x), true);
	}
	bool pressed = x->pressed;
	*ret_gone = step(x);
	bool more = *ret_gone || !pressed || x->phase != IDLE;
	if (!more)
		x->press_ns = clock_ns() + LOOK_MS * NS_PER_MS;
	return more;
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
