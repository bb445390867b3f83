/* SPDX-License-Identifier: Apache-2.0 */
#include "index/lmdb_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "index/lmdb_tsan.h"

enum {
	REVISION_BYTES = 8,
	LMDB_PAGE_HEAD = 16, LMDB_NODE_HEAD = 8,
};

/* Readers ----------------------------------------------------------------------- */

/*
 * Idle readers are kept in slots that threads begin to look at in different
 * places. Taking one is an exchange, so there is no list whose head could be
 * another's meanwhile. They are reset: an idle one keeps no page from reuse.
 */
static unsigned first_slot(void)
{
	static atomic_uint threads;
	static _Thread_local unsigned mine;

	if (!mine)
		mine = atomic_fetch_add(&threads, 1) + 1;
	return mine;
}

static void free_reader(struct lmdb_reader *r)
{
	if (!r)
		return;
	if (r->cursor)
		mdb_cursor_close(r->cursor);
	if (r->txn)
		mdb_txn_abort(r->txn);
	free(r);
}

void lmdb_readers_fini(struct lmdb_env *e)
{
	for (unsigned i = 0; i < LMDB_IDLE_READERS; i++)
		free_reader(atomic_exchange(&e->idle[i], NULL));
}

static int new_reader(struct lmdb_env *e, struct lmdb_reader **ret)
{
	struct lmdb_reader *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &r->txn);
	if (!rc)
		rc = mdb_cursor_open(r->txn, e->dbi, &r->cursor);
	if (rc) {
		free_reader(r);
		return lmdb_error(rc);
	}
	tsan_after(&e->writer_ends);
	*ret = r;
	return 0;
}

int lmdb_reader_get(struct lmdb_env *e, struct lmdb_reader **ret)
{
	unsigned first = first_slot();

	for (unsigned i = 0; i < LMDB_IDLE_READERS; i++) {
		unsigned at = (first + i) % LMDB_IDLE_READERS;
		struct lmdb_reader *r;
		int rc;

		if (!atomic_load_explicit(&e->idle[at], memory_order_relaxed))
			continue;
		r = atomic_exchange(&e->idle[at], NULL);
		if (!r)
			continue;
		rc = mdb_txn_renew(r->txn);
		if (rc) {
			free_reader(r);
			return lmdb_error(rc);
		}
		tsan_after(&e->writer_ends);
		*ret = r;
		return 0;
	}
	return new_reader(e, ret);
}

void lmdb_reader_put(struct lmdb_env *e, struct lmdb_reader *r)
{
	unsigned first = first_slot();

	if (!r)
		return;
	tsan_before(&e->readers_end);
	mdb_txn_reset(r->txn);
	for (unsigned i = 0; i < LMDB_IDLE_READERS; i++) {
		struct lmdb_reader *none = NULL;

		if (atomic_compare_exchange_strong(
			    &e->idle[(first + i) % LMDB_IDLE_READERS], &none, r))
			return;
	}
	free_reader(r);
}

/* A line of LMDB's table of readers ends in a transaction's number or a dash. */
static int find_oldest(const char *line, void *arg)
{
	const char *last = strrchr(line, ' ');
	uint64_t *oldest = arg, id;
	char *end;

	if (!last)
		return 0;
	id = strtoull(last + 1, &end, 10);
	if (end > last + 1 && id < *oldest)
		*oldest = id;
	return 0;
}

static bool readers_lag(struct lmdb_env *e)
{
	uint64_t oldest = UINT64_MAX;
	MDB_envinfo info;

	if (mdb_env_info(e->env, &info) || mdb_reader_list(e->env, find_oldest, &oldest) < 0)
		return false;
	return oldest < info.me_last_txnid;
}

int lmdb_make_room(struct lmdb_env *e)
{
	static const struct timespec ms = { 0, 1000000 };
	int dead;

	mdb_reader_check(e->env, &dead);
	for (unsigned i = 0; readers_lag(e); i++) {
		if (i == 1000)
			return -ENOSPC;
		nanosleep(&ms, NULL);
	}
	return lmdb_reserve_revisions(e, e->revisions);
}

/* Rows -------------------------------------------------------------------------- */

static int row_of(const MDB_val *key, const MDB_val *value, struct kv_row *ret)
{
	if (value->mv_size < REVISION_BYTES)
		return -EUCLEAN;
	ret->key = BYTES_OF(key->mv_data, key->mv_size);
	ret->value = BYTES_OF((const uint8_t *)value->mv_data + REVISION_BYTES,
			      value->mv_size - REVISION_BYTES);
	memcpy(&ret->revision, value->mv_data, REVISION_BYTES);
	return 0;
}

static int view_get(struct view *view, struct bytes key, struct kv_row *ret)
{
	struct lmdb_view *v = (struct lmdb_view *)view;
	MDB_val k = { key.len, (void *)key.p }, value;
	int rc = mdb_get(v->txn, v->dbi, &k, &value);

	if (rc == MDB_NOTFOUND)
		return 1;
	return rc ? lmdb_error(rc) : row_of(&k, &value, ret);
}

static int view_cursor(struct lmdb_view *v)
{
	int rc = 0;

	if (!v->cursor) {
		rc = mdb_cursor_open(v->txn, v->dbi, &v->cursor);
		v->owns_cursor = !rc;
	} else if (!v->owns_cursor && !v->is_renewed) {
		rc = mdb_cursor_renew(v->txn, v->cursor);
		v->is_renewed = true;
	}
	return lmdb_error(rc);
}

static int view_scan(struct view *view, struct bytes from, struct bytes to,
		     view_visit *visit, void *arg)
{
	struct lmdb_view *v = (struct lmdb_view *)view;
	MDB_val key = { from.len, (void *)from.p }, value;
	MDB_cursor_op op = from.len ? MDB_SET_RANGE : MDB_FIRST;
	int r = view_cursor(v);

	for (; !r; op = MDB_NEXT) {
		struct kv_row row;
		int rc = mdb_cursor_get(v->cursor, &key, &value, op);

		if (rc == MDB_NOTFOUND)
			return 0;
		if (rc)
			return lmdb_error(rc);
		if (bytes_cmp(BYTES_OF(key.mv_data, key.mv_size), to) >= 0)
			return 0;
		r = row_of(&key, &value, &row);
		if (!r)
			r = visit(arg, &row);
	}
	return r;
}

struct lmdb_view lmdb_view_of_txn(struct lmdb_env *e, MDB_txn *txn)
{
	return (struct lmdb_view){ .view = { view_get, view_scan }, .txn = txn,
				   .dbi = e->dbi };
}

struct lmdb_view lmdb_view_of_reader(struct lmdb_env *e, struct lmdb_reader *r)
{
	struct lmdb_view v = lmdb_view_of_txn(e, r->txn);

	v.cursor = r->cursor;
	return v;
}

void lmdb_view_fini(struct lmdb_view *v)
{
	if (v->owns_cursor)
		mdb_cursor_close(v->cursor);
	v->cursor = NULL;
	v->owns_cursor = false;
}

int lmdb_write(struct lmdb_env *e, MDB_txn *txn, const struct kv_write *w,
	       uint64_t revision)
{
	MDB_val key = { w->key.len, (void *)w->key.p };
	MDB_val value = { REVISION_BYTES + w->value.len, NULL };
	int rc;

	if (!w->value.p) {
		rc = mdb_del(txn, e->dbi, &key, NULL);
		return rc == MDB_NOTFOUND ? 0 : lmdb_error(rc);
	}
	rc = mdb_put(txn, e->dbi, &key, &value, MDB_RESERVE);
	if (rc)
		return lmdb_error(rc);
	tsan_after(&e->readers_end);
	memcpy(value.mv_data, &revision, REVISION_BYTES);
	memcpy((uint8_t *)value.mv_data + REVISION_BYTES, w->value.p, w->value.len);
	return 0;
}

int lmdb_commit(struct lmdb_env *e, MDB_txn *txn)
{
	tsan_before(&e->writer_ends);
	return lmdb_error(mdb_txn_commit(txn));
}

int lmdb_used(struct lmdb_env *e, MDB_txn *txn, uint64_t *ret_pages,
	      uint64_t *ret_keys)
{
	MDB_stat rows, free_list; /* the latter is LMDB's tree 0 */
	int rc = mdb_stat(txn, e->dbi, &rows);

	if (!rc)
		rc = mdb_stat(txn, 0, &free_list);
	if (rc)
		return lmdb_error(rc);
	*ret_pages = 2 + rows.ms_branch_pages + rows.ms_leaf_pages +
		     rows.ms_overflow_pages + free_list.ms_branch_pages +
		     free_list.ms_leaf_pages + free_list.ms_overflow_pages;
	*ret_keys = rows.ms_entries - 1; /* the engine's own */
	return 0;
}

uint64_t lmdb_pages_for(const struct lmdb_env *e, const struct kv_write *w)
{
	uint64_t value = REVISION_BYTES + w->value.len;
	uint64_t node = LMDB_NODE_HEAD + w->key.len + value;

	if (!w->value.p)
		return 0;
	/* A leaf holds at least two nodes; what is larger has pages of its own. */
	if (node <= (e->page_bytes - LMDB_PAGE_HEAD) / 2 - 2)
		return 1;
	return 1 + (LMDB_PAGE_HEAD - 1 + value) / e->page_bytes + 1;
}

/* Checking ---------------------------------------------------------------------- */

/* All rows, in reads of a bounded length: a long one would keep pages from
 * being used again. */
struct walk {
	struct writer *report;
	uint64_t newest;
	uint8_t last[KV_KEY_MAX];
	size_t last_len;
	unsigned rows;
	int bad;
};

enum { WALK_ROWS = 4096 };

static int check_row(void *arg, const struct kv_row *row)
{
	static const char order[] = "a durable key is not behind the one before it\n";
	static const char future[] = "a durable key has a revision not given yet\n";
	static const char kind[] = "a session key is among the durable ones\n";
	struct walk *w = arg;
	struct bytes last = BYTES_OF(w->last, w->last_len);

	if (w->last_len && w->rows && bytes_cmp(last, row->key) >= 0)
		w->bad++, write_bytes(w->report, order, sizeof(order) - 1);
	if (!row->revision || row->revision > w->newest)
		w->bad++, write_bytes(w->report, future, sizeof(future) - 1);
	if (kv_key_is_session(row->key))
		w->bad++, write_bytes(w->report, kind, sizeof(kind) - 1);
	if (row->key.len > KV_KEY_MAX)
		return -EUCLEAN;
	memcpy(w->last, row->key.p, row->key.len);
	w->last_len = row->key.len;
	return ++w->rows >= WALK_ROWS;
}

/* 1: there is more. */
static int check_some(struct lmdb_env *e, struct walk *w)
{
	static const char unreadable[] = "durable rows cannot be read\n";
	uint8_t end[KV_KEY_MAX];
	struct lmdb_reader *reader;
	struct lmdb_view v;
	int r = lmdb_reader_get(e, &reader);

	if (r < 0)
		return r;
	memset(end, 0xff, sizeof(end));
	v = lmdb_view_of_reader(e, reader);
	w->rows = 0;
	r = v.view.scan(&v.view, BYTES_OF(w->last, w->last_len),
			BYTES_OF(end, sizeof(end)), check_row, w);
	lmdb_reader_put(e, reader);
	if (r == -EUCLEAN) {
		w->bad++, write_bytes(w->report, unreadable, sizeof(unreadable) - 1);
		r = 0;
	}
	return r;
}

int lmdb_check_rows(struct lmdb_env *e, uint64_t newest, struct writer *report)
{
	struct walk w = { .report = report, .newest = newest };
	int r;

	do {
		r = check_some(e, &w);
	} while (r == 1);
	return r < 0 ? r : w.bad;
}
