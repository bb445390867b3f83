/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What lies in an LMDB environment: its rows, as a reader or the writer sees
 * them, and how much room they take. A row's value begins with the revision that
 * wrote it.
 *
 * Threads: readers may be any; writing is the business of one at a time.
 */
#include "index/lmdb_env.h"

struct lmdb_reader {
	MDB_txn *txn;
	MDB_cursor *cursor;
};

/* A reader that sees what is committed now; -EAGAIN: all slots are in use. */
int lmdb_reader_get(struct lmdb_env *e, struct lmdb_reader **ret);
void lmdb_reader_put(struct lmdb_env *e, struct lmdb_reader *r); /* NULL is fine */
void lmdb_readers_fini(struct lmdb_env *e); /* frees those that are kept */

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

/* Pages that rows and the list of free pages fill; rows. */
int lmdb_used(struct lmdb_env *e, MDB_txn *txn, uint64_t *ret_pages,
	      uint64_t *ret_keys);

/* Pages that w may need at most, beside those that it copies and frees. */
uint64_t lmdb_pages_for(const struct lmdb_env *e, const struct kv_write *w);

/*
 * Are rows in order, durable, and of revisions up to `newest`? The number that
 * are not, of which report has a line each; or negative.
 */
int lmdb_check_rows(struct lmdb_env *e, uint64_t newest, struct writer *report);
