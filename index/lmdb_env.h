/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One LMDB environment: opened, checked and allocated in full. One row, behind
 * all that users may have, is the engine's own: the file's format and how far
 * revisions have been given out. The others are lmdb_rows.h's.
 *
 * Threads: one opens and closes; writing is the business of one at a time.
 */
#include <lmdb.h>

#include "index/lmdb_guard.h"
#include "index/view.h"

enum { LMDB_IDLE_READERS = 64, LMDB_READERS_MAX = 510 };

struct lmdb_reader;

struct lmdb_env {
	MDB_env *env;
	MDB_dbi dbi;
	int fd;            /* holds the file's flock */
	unsigned forks;    /* how often this process had been forked */
	bool read_only;
	uint64_t bytes;    /* of file and map */
	uint32_t page_bytes;
	uint64_t revisions; /* given out up to here, says the file */
	struct lmdb_shape shape; /* of the file when it was opened */

	/* lmdb_rows.c's: */
	_Atomic(struct lmdb_reader *) idle[LMDB_IDLE_READERS];
	char readers_end, writer_ends; /* for lmdb_tsan.h; only addresses */
};

/* kv_lmdb_open()'s errors. */
int lmdb_env_open(struct lmdb_env *e, const struct kv_lmdb_opts *o);
void lmdb_env_fini(struct lmdb_env *e); /* also after a failed open */

/* In the child of a fork LMDB works in silence and damages the file. */
bool lmdb_env_is_forked(const struct lmdb_env *e);

/* LMDB's codes in ours; 0 stays 0. */
int lmdb_error(int rc);

/* Writes and commits that revisions up to `upto` may be given out. */
int lmdb_reserve_revisions(struct lmdb_env *e, uint64_t upto);
