/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Mutex with a rank. A thread may take a lock only if its rank is above the
 * rank of every lock that it holds; so locks are taken in one order, and
 * released in the reverse one. The enum is the lock order of the whole program.
 * The check stays on in production: it costs two thread-local accesses.
 */
#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/clock.h"

enum lock_rank {
	LOCK_NONE,
	LOCK_FS_INODES,    /* fs/inode.c: the nodeid table */
	LOCK_FS_INODE,     /* fs/inode.c: one inode's cache mode and handles */
	LOCK_FS_NOTIFY,    /* fs/notify.c: queue of kernel notifications; fs/watched.c,
			      fs/waits.c, fs/access.c (also under the table) */
	LOCK_FILES,        /* engine/file.c: the table of open files */
	LOCK_FILE,         /* engine/file.c: one open file */
	LOCK_DROPS,        /* engine/drop.c: how many are under way */
	LOCK_RECALL,       /* engine/tier_back.c: who waits for objects on the disk */
	LOCK_PEER,         /* engine/peer.c: what is known of another host's node */
	LOCK_NODE,         /* engine/node_remote.c, node_fault.c: one node */
	LOCK_HOLDS,        /* engine/holds.c: what one session holds */
	LOCK_XFER,         /* engine/xfer.c: batches that wait to be posted again */
	LOCK_TRANSPORT,    /* engine/transport_*.c: posts that are out, or held back */
	LOCK_RDMA,         /* engine/rdma_post.c: one queue pair's requests */
	LOCK_STAGING,      /* engine/staging.c: registered buffers */
	LOCK_INDEX_IDS,    /* index/index.c: numbers in hand */
	LOCK_INDEX_RECALL, /* index/recall.c: what was read last */
	LOCK_INDEX_QUEUE,  /* index/lmdb.c, mem.c: queue of writers */
	LOCK_INDEX_STATE,  /* index/lmdb.c: volatile keys; idle readers */
	LOCK_INDEX_WATCH,  /* index/kv.c: watchers */
	LOCK_POOL,         /* engine/pool.c: free lists and slice table; taken
			      by who observes a commit (index/kv.h) */
	LOCK_TIER,         /* engine/tier_log.c: segments of the disk; as LOCK_POOL */
	LOCK_JOURNAL,      /* engine/tier_journal.c: what is to be written; as LOCK_POOL */
	LOCK_EVICT,        /* engine/evict_inbox.c: who waits for room; under LOCK_POOL */
	LOCK_SCRUB,        /* engine/scrub.c: the one that is under way, and what it has found */
	LOCK_USES,         /* engine/uses.c: names of files that have several; as LOCK_POOL */
	LOCK_POLICY,       /* engine/policy.c: who goes next; as LOCK_POOL */
	LOCK_EXPIRY,       /* engine/expiry.c: what has an end; as LOCK_POOL */
	LOCK_LOOP,         /* common/loop.c: posted calls */
	LOCK_LOG,          /* common/log.c: may be taken under any other */
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
	enum lock_rank outer; /* what the holder held before; owner only */
};

#define LOCK_INIT(r) { .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (r) }

/* The highest rank that this thread holds. */
extern _Thread_local enum lock_rank lock_held;

static inline void lock_init(struct lock *l, enum lock_rank rank)
{
	pthread_mutex_init(&l->mutex, NULL);
	l->rank = rank;
	l->outer = LOCK_NONE;
}

static inline void lock_fini(struct lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

static inline struct lock *lock_take(struct lock *l)
{
	assert(lock_held < l->rank);
	pthread_mutex_lock(&l->mutex);
	l->outer = lock_held;
	lock_held = l->rank;
	return l;
}

static inline void lock_drop(struct lock *l)
{
	assert(lock_held == l->rank);
	lock_held = l->outer;
	pthread_mutex_unlock(&l->mutex);
}

/* Waits for c with the lock given up meanwhile; as always, look again after. */
static inline void lock_wait(struct lock *l, pthread_cond_t *c)
{
	enum lock_rank outer = l->outer;

	assert(lock_held == l->rank);
	pthread_cond_wait(c, &l->mutex);
	l->outer = outer;
}

static inline void lock_dropp(struct lock **lp)
{
	lock_drop(*lp);
}

/* The same, until deadline_ns (clock_ns(); 0: none) at most; c was made with
 * lock_cond_init(). 0, or ETIMEDOUT. */
static inline int lock_wait_until(struct lock *l, pthread_cond_t *c,
				  uint64_t deadline_ns)
{
	enum lock_rank outer = l->outer;
	struct timespec t = clock_timespec(deadline_ns);
	int r = deadline_ns ? pthread_cond_timedwait(c, &l->mutex, &t)
			    : pthread_cond_wait(c, &l->mutex);

	l->outer = outer;
	return r;
}

static inline void lock_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(c, &a);
	pthread_condattr_destroy(&a);
}

/* Call before FUSE, the network, an index call or a foreign callback. */
static inline void lock_assert_none(void)
{
	assert(lock_held == LOCK_NONE);
}

#define LOCK_CAT2_(a, b) a##b
#define LOCK_CAT_(a, b)	 LOCK_CAT2_(a, b)
/* Holds the lock to the end of the block. clang wants the `unused`. */
#define WITH_LOCK(l)                                                           \
	_cleanup_(lock_dropp) __attribute__((unused)) struct lock *            \
		LOCK_CAT_(lock_guard_, __COUNTER__) = lock_take(l)
