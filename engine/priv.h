/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What engine/'s files know of each other's engine. Everything in it is set by
 * engine_open() before anybody else sees it and stays until engine_close(), so
 * it is read without a lock; what changes has its own.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/lock.h"
#include "engine/engine.h"
#include "engine/node.h"
#include "engine/task.h"
#include "engine/transport.h"

struct evict;
struct files;
struct peer;
struct refs;
struct scrubs;
struct server;
struct store;
struct tier;

/* Who found no free page, and looks again when a drop has ended. */
struct drop_waiter {
	struct task task;
	struct drop_waiter *next;
};

/* drop.c: the drops under way, for who has to wait for the last, or for room. */
struct drops {
	struct lock lock; /* LOCK_DROPS */
	uint64_t n;
	_Atomic uint64_t ended; /* how many ever did */
	struct drop_waiter *waiters;
	pthread_cond_t none;
};

struct engine {
	struct store *store;         /* its folder and lock; NULL: in_memory */
	struct index *ix;
	struct pool *pool;           /* in this process */
	struct refs *refs;           /* counts what the index names in it; offline:
					nobody does */
	struct node *node;           /* whose slices the files are made of */
	struct transport *transport; /* to the pool; maybe with faults; NULL: ENGINE_NONE */
	struct files *files;         /* file.c's table of open files */
	struct evict *evict;         /* makes room; NULL: nobody does */
	struct scrubs *scrubs;       /* compares what there is with its checksums; NULL: a
					peer's, offline, tests */
	struct tier *tier;           /* the disk below the pool; NULL: none */
	uint64_t disk_id;            /* of the one that the index names; 0: none */
	struct drops drops;
	struct peer *peer;           /* another host's node; NULL: our own pool */
	struct server *server;       /* serves them to others; NULL: nobody does */
	bool alone;                  /* nobody else changes the index */
	bool pool_is_lent;           /* tests: it is somebody else's */
	bool verify;                 /* checksums on every read */
	bool read_only;
	bool offline;                /* fsck's: no file is ever opened; what a
					mount refuses is let in */

	/* What engine_check_index() found, for engine_check() to tell. */
	struct writer index_report;
	int index_violations;
	unsigned index_repaired;
};

/*
 * rebuild.c: the slice table from the index (I2), before anything else happens.
 * -EUCLEAN and a sentence: an object names slices that cannot be. Offline that
 * is let pass; engine_check() will find it again.
 */
int engine_rebuild(struct engine *e, char **ret_why);

/* check.c: checks and repairs the index, before anything is built on it. */
int engine_check_index(struct engine *e);

void drops_init(struct drops *d);
void drops_wait(struct drops *d); /* until none is under way */
void drops_fini(struct drops *d);

/*
 * After looking for room in vain: w->task is run when the next drop has ended, or
 * at once if one has since drops_ended() was `ended`, which was read before looking.
 * False: none has and none is under way.
 */
uint64_t drops_ended(struct drops *d);
bool drops_wait_room(struct drops *d, uint64_t ended, struct drop_waiter *w);
