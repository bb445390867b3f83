/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One LMDB environment: opened, checked and allocated in full; its rows; its
 * cached readers. A row's value begins with the revision that wrote it. One row,
 * behind all that users may have, is the engine's own: the file's format and
 * how far revisions have been given out.
 *
 * Threads: readers may be any; writing is the business of one at a time.
 */
#include <lmdb.h>

#include "index/view.h"

enum { LMDB_IDLE_READERS = 64, LMDB_READERS_MAX = 510 };

struct lmdb_reader {
	MDB_txn *txn;
	MDB_cursor *cursor;
};

struct lmdb_env {
	MDB_env *env;
	MDB_dbi dbi;
	int fd;            /* holds the file's flock */
	unsigned forks;    /* how often this process had been forked */
	bool read_only;
	uint64_t bytes;    /* of file and map */
	uint32_t page_bytes;
	uint64_t revisions; /* given out up to here, says the file */

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

/* A reader that sees what is committed now; -EAGAIN: all slots are in use. */
int lmdb_reader_get(struct lmdb_env *e, struct lmdb_reader **ret);
void lmdb_reader_put(struct lmdb_env *e, struct lmdb_reader *r); /* NULL is fine */

/*
 * The map is full, it seems. Pages that the last commit freed can be used by the
 * second one behind it, if no reader looks at them any more: so waits for readers
 * that do (a second at most; they are short, but a thread may lose its processor
 * in the middle), and commits nothing. 0: try again.
 */
int lmdb_make_room(struct lmdb_env *e);

/* The durable rows as a transaction sees them; cursor may be NULL: it is opened
 * when needed, and closed by lmdb_view_fini(). */
struct lmdb_view {
	struct view view;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cursor;
	bool owns_cursor, is_renewed;
};
struct lmdb_view lmdb_view_of_reader(struct lmdb_env *e, struct lmdb_reader *r);
struct lmdb_view lmdb_view_of_txn(struct lmdb_env *e, MDB_txn *txn);
void lmdb_view_fini(struct lmdb_view *v);

/* value.p NULL: delete. */
int lmdb_write(struct lmdb_env *e, MDB_txn *txn, const struct kv_write *w,
	       uint64_t revision);

/* Commits, frees txn in any case. */
int lmdb_commit(struct lmdb_env *e, MDB_txn *txn);

/* Writes and commits that revisions up to `upto` may be given out. */
int lmdb_reserve_revisions(struct lmdb_env *e, uint64_t upto);

/* Pages that rows and the list of free pages fill; rows. */
int lmdb_used(struct lmdb_env *e, MDB_txn *txn, uint64_t *ret_pages,
	      uint64_t *ret_keys);

/* Pages that w may need at most, beside those that it copies and frees. */
uint64_t lmdb_pages_for(const struct lmdb_env *e, const struct kv_write *w);
