/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The eviction: makes room in the pool and in the index, where both are, by letting go of
 * the objects that the policy says (policy.h). From the high watermark down to the low
 * one it does so in the background; who finds no room at all waits for it (P7).
 *
 * An object that goes loses all of its names in one transaction, as if unlinked (victim.h). Not
 * what is open here or held by a mount, what somebody writes, or what a draft hides one name of.
 * Who opens it in that moment keeps what he has (P4).
 *
 * It also ends what has an end (expiry.h), what a directory has above its quota, directories that
 * it has emptied, and whatever somebody asks it to: all of that with high 0 as well.
 *
 * Threads: one of its own ("evict"), which blocks in the index and holds no lock meanwhile;
 * calls from any, LOCK_EVICT for moments.
 */
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/task.h"
#include "engine/victim.h"
#include "engine/wire.h"

struct evict;

/* Who found no room in the pool. It is the eviction's from evict_wait() on, until the task is
 * run. (Who finds none in the index waits there: kv_make_room().) All zeros but the first two at first;
 * who finds no room again waits with the same one. */
struct evict_waiter {
	struct task task;
	bool patient; /* it is held in any case: who opens is not to be told that there is no room */
	bool in_vain; /* nothing is left that could go */
	uint64_t vain_ns; /* since when nothing could go for it; 0: something could, lately */
	struct evict_waiter *next;
};

struct evict_opts {
	unsigned high, low; /* percent; high 0: never, and nobody waits for room */
	uint32_t temp_s;    /* as of uses.h */
	uint64_t dirs_ms;   /* so long after that left it empty, a directory goes; 0: it stays */
};

/* e's index and pool are open, nothing is under way. */
int evict_open(struct engine *e, const struct evict_opts *o, struct evict **ret);
/* Runs all waiters (in_vain); none comes any more. The index is open still. */
void evict_stop(struct evict *x);
/* Nothing is under way in the index any more. Both: NULL is fine. */
void evict_free(struct evict *x);

/* Does it make room at all? Of NULL as well: no. Otherwise there is nothing to wait for. */
bool evict_makes_room(const struct evict *x);
/* How often room was made; read before looking for some. */
uint64_t evict_number(struct evict *x);
/* If evict_makes_room(): there was no page free after `number` was read. Makes room, then runs
 * w->task; at once if some has been made since. */
void evict_wait(struct evict *x, uint64_t number, struct evict_waiter *w);

uint64_t evict_dirs_ms(const struct evict *x); /* as it was opened with */

/* As engine_watch_eviction(). */
void evict_watch(struct evict *x, const struct eviction *v);

/* Bytes of objects that could go: what is open cannot, and what is both open and pinned by its users is
 * left out twice. What several share counts for each, also what one of them keeps here. */
uint64_t evict_bytes(struct evict *x);
uint64_t evict_objects(struct evict *x); /* that are known, and not pinned by users */

/* Sets the gauges of quotas. */
void evict_count_quotas(struct evict *x);

/* As victim_go(), since somebody asked for it. */
void evict_go(struct evict *x, struct victim *v);
int evict_go_wait(struct evict *x, uint64_t fileid, struct place place); /* blocks */
void evict_about(struct evict *x, uint64_t fileid, struct wire_about *ret);

/* Somebody opened it, or said that it is in use. */
void evict_use(struct evict *x, uint64_t fileid);

/* As uses_check(). */
int evict_check(struct evict *x, struct writer *report);
