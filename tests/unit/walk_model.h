/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a walker has put into a store that forgets, and what may be found of it: each has names
 * of its own, of which it knows everything, while all of them, and the eviction, fight for the
 * room. The model lies in memory that is shared with whoever goes on when the process was killed.
 *
 * A step changes `next`, does it, and then `next` is what is. Who dies in between leaves two
 * answers, of which one is right for all names alike.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/random.h"
#include "index/index.h"

enum {
	WALKERS = 3,
	NAMES = 24, /* of each; a third of them in each of its directories */
	PLACES = 3, /* the root, one with a quota, one whose files have an end */
	TEMPS = 2,  /* the first names are temporary ones */
	BYTES_MAX = 1 << 20,
	HEAD_BYTES = 128,
	PASTS = 4,
	SAID = 256,
	QUOTA_BYTES = 1 << 20,
	/* Of each walker; with what is open and written there is room for all of that. */
	PINNED_BYTES = 1 << 20,
	TEMP_S = 2,
	LATE_NS = 2000000000, /* until then the journal on the disk has it, on any host */
};

/* Ends the process: asserts of cmocka are for one thread. */
#define must(cond, ...)                                                                         \
	do {                                                                                    \
		if (!(cond)) {                                                                  \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);              \
			fprintf(stderr, __VA_ARGS__);                                           \
			fputc('\n', stderr);                                                    \
			abort();                                                                \
		}                                                                               \
	} while (0)

/* Content, all of which follows from this; 0: there is none. */
struct version {
	uint64_t id; /* of the object, for ever */
	uint32_t number, bytes;
};

struct object {
	struct version v;
	struct keep keep;
	int64_t touched_s; /* when anything was done to it last */
};

/* Objects have no identity but what their names show: two names show the same id. */
struct past {
	struct version v;
	uint64_t until_ns;
};

struct walker {
	unsigned number;
	uint64_t random;
	uint64_t ids; /* given */
	bool busy;    /* between now and next */
	struct object now[NAMES], next[NAMES];
	struct past past[NAMES][PASTS];
	unsigned npast[NAMES];
	bool was_away[NAMES]; /* when it was stopped in order */
	uint64_t dir[PLACES]; /* 0: it is not there, as far as is known */
	unsigned done, missed;
	char said[SAID][48]; /* the last steps */
	unsigned nsaid;

	/* Of this process. */
	struct file *open; /* one that is kept open */
	struct version shows;
	uint8_t *buf, *want;
};

static inline uint64_t dice(struct walker *w, uint64_t n)
{
	return random_next(&w->random) % n;
}

static inline void say(struct walker *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static inline void say(struct walker *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->said[w->nsaid++ % SAID], sizeof(w->said[0]), fmt, ap);
	va_end(ap);
}

static inline void print_said(const struct walker *w)
{
	for (unsigned i = w->nsaid > SAID ? w->nsaid - SAID : 0; i < w->nsaid; i++)
		fprintf(stderr, "walker %u: %s\n", w->number, w->said[i % SAID]);
}

static inline int64_t now_s(void)
{
	return clock_now().tv_sec;
}

static inline bool is_same(struct version a, struct version b)
{
	return a.id == b.id && a.number == b.number && a.bytes == b.bytes;
}

/* Content ------------------------------------------------------------------------------- */

static inline uint64_t mixed(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	return x ^ x >> 29;
}

static inline uint32_t some_bytes(uint64_t x)
{
	static const uint32_t most[] = { 600, 4096, 70000, 70000, 600000, BYTES_MAX - HEAD_BYTES };

	return HEAD_BYTES + (uint32_t)(x >> 8) % most[x % 6];
}

/* The head says what it is, and each word after it too. */
static inline void make_content(struct version v, uint8_t *to)
{
	memset(to, 0, HEAD_BYTES);
	snprintf((char *)to, HEAD_BYTES, "object %llu version %u of %u bytes\n",
		 (unsigned long long)v.id, v.number, v.bytes);
	for (uint32_t i = HEAD_BYTES; i < v.bytes; i += 8) {
		uint64_t word = mixed(v.id << 40 ^ (uint64_t)v.number << 24 ^ i);
		memcpy(to + i, &word, v.bytes - i < 8 ? v.bytes - i : 8);
	}
}

/* Which version n bytes are, all of them; id 0: none. */
static inline struct version which(const uint8_t *b, uint64_t n, uint8_t *want)
{
	unsigned long long id;
	struct version v = { 0 };

	if (n < HEAD_BYTES || n > BYTES_MAX || b[HEAD_BYTES - 1] ||
	    sscanf((const char *)b, "object %llu version %u of %u", &id, &v.number, &v.bytes) != 3)
		return (struct version){ 0 };
	v.id = id;
	if (v.bytes != n)
		return (struct version){ 0 };
	make_content(v, want);
	return memcmp(b, want, n) ? (struct version){ 0 } : v;
}

/* Steps --------------------------------------------------------------------------------- */

/* A reboot may bring back what was lost without being opened in the last moment. */
static inline void note_past(struct walker *w, unsigned i, struct version v)
{
	if (!v.id)
		return;
	w->past[i][w->npast[i]++ % PASTS] = (struct past){ v, clock_ns() };
}

/* It was opened, and the disk knows that: nothing of it comes back. */
static inline void forget_past(struct walker *w, uint64_t id)
{
	for (unsigned i = 0; i < NAMES; i++)
		for (unsigned k = 0; k < PASTS; k++)
			if (w->past[i][k].v.id == id)
				w->past[i][k].v.id = 0;
}

static inline void begin_step(struct walker *w)
{
	memcpy(w->next, w->now, sizeof(w->next));
}

/* From here on it may happen. */
static inline void step_is_on(struct walker *w)
{
	atomic_signal_fence(memory_order_seq_cst);
	w->busy = true;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void step_done(struct walker *w, bool happened)
{
	for (unsigned i = 0; happened && i < NAMES; i++)
		if (w->now[i].v.id != w->next[i].v.id)
			note_past(w, i, w->now[i].v);
	for (unsigned i = 0; i < NAMES; i++)
		if (memcmp(&w->now[i].v, &w->next[i].v, sizeof(w->now[i].v)))
			say(w, "  %u: %llu.%u, was %llu.%u%s", i,
			    (unsigned long long)w->next[i].v.id, w->next[i].v.number,
			    (unsigned long long)w->now[i].v.id, w->now[i].v.number,
			    happened ? "" : ", not");
	atomic_signal_fence(memory_order_seq_cst);
	if (happened)
		memcpy(w->now, w->next, sizeof(w->now));
	atomic_signal_fence(memory_order_seq_cst);
	w->busy = false;
}

/* All names of an object, in `next`. */
#define each_name_of(w, id, i)                                                                  \
	for (unsigned i = 0; i < NAMES; i++)                                                    \
		if ((w)->next[i].v.id == (id))

static inline void touch(struct walker *w, uint64_t id)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (w->now[i].v.id == id)
			w->now[i].touched_s = now_s();
}

static inline bool is_pinned(const struct object *o)
{
	return o->keep.pinned > now_s();
}

/* The object has been evicted, it seems. */
static inline void is_gone(struct walker *w, uint64_t id)
{
	say(w, "  %llu is gone", (unsigned long long)id);
	for (unsigned i = 0; i < NAMES; i++) {
		if (w->now[i].v.id != id)
			continue;
		must(!is_pinned(&w->now[i]), "walker %u: name %u was pinned until %lld, and is "
		     "gone", w->number, i, (long long)w->now[i].keep.pinned);
		note_past(w, i, w->now[i].v);
		w->now[i] = (struct object){ 0 };
	}
	w->missed++;
}

static inline uint64_t pinned_bytes(const struct walker *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < NAMES; i++)
		n += is_pinned(&w->now[i]) ? w->now[i].v.bytes : 0;
	return n;
}
