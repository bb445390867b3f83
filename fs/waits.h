/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Names that somebody waits for, until they are published. Nobody is parked for that but
 * one thread, which looks when a bell rings and ends what has waited for long enough.
 * No FUSE in it.
 *
 * All functions are callable from any thread, and block for nothing but the list's lock.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "index/index.h"

struct waits;

enum { WAITS_MAX = 256 }; /* a watch each; who comes then looks, and does not wait */

/* One, in the caller's memory, until done(). */
struct wait {
	uint64_t parent;
	char name[INDEX_NAME_MAX + 1];
	uint64_t deadline_ns;
	atomic_bool cancelled; /* set by the caller, before waits_kick() */
	/*
	 * Once, from the thread, no lock held. 0: it is published. -ETIMEDOUT: by the
	 * deadline, or sooner if there are too many, it was not. -ESTALE: the directory is
	 * gone. -ECANCELED; -ENOTCONN: the mount ends. Or what the index says; that its
	 * node is away is no reason.
	 */
	void (*done)(struct wait *w, int r);

	/* The list's. */
	struct waits *all;
	struct index_watch watch;
	bool begun, rung;
	uint64_t looked_ns;
	struct wait *prev, *next;
};

struct waits *waits_new(struct index *ix); /* NULL: no memory */
/* All end, and what is added from now on ends at once. Returns when they have; NULL is
 * fine. */
void waits_stop(struct waits *t);
struct waits *waits_free(struct waits *t); /* after waits_stop(), or nobody ever waited */

/* 0: done() will be called, or has been. Negative, and it is not: there is no thread. */
int waits_add(struct waits *t, struct wait *w);
/* One of them is `cancelled`. */
void waits_kick(struct waits *t);
/* This mount may have published something, for which no bell rings over a wire. */
void waits_ring(struct waits *t);
