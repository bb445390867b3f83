/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file is made under another name, in full, and then renamed: what is found
 * under the right one was whole at some time. Before LMDB sees it, its length
 * is checked and all of its pages are walked (lmdb_guard.c), and it is
 * allocated in full: with MDB_WRITEMAP, a page for which there is no memory
 * would be a SIGBUS.
 *
 * The file's flock keeps out other processes and a second open in this one.
 * (LMDB allows the latter, and its close drops the first one's locks.)
 */
#include "index/lmdb_env.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/lock.h"
#include "common/log.h"
#include "index/lmdb_guard.h"
#include "index/lmdb_tsan.h"

enum {
	ENGINE_MAGIC = 0x766b7373, /* "sskv" */
	ENGINE_VERSION = 1,
	ENGINE_KEY_LEN = KV_KEY_MAX + 1,
	REVISION_BYTES = 8,
	MIN_BYTES = 1 << 20,
	LMDB_PAGE_HEAD = 16, LMDB_NODE_HEAD = 8,
};

/* Errors, forks ---------------------------------------------------------------- */

int lmdb_error(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return 0;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
		return -ENOSPC;
	case MDB_READERS_FULL:
		return -EAGAIN;
	case MDB_VERSION_MISMATCH:
		return -EPROTONOSUPPORT;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_PAGE_FULL:
	case MDB_CURSOR_FULL:
		return -EUCLEAN;
	default: /* MDB_PANIC and what only a bug of ours could cause */
		return rc > 0 ? -rc : -EIO;
	}
}

static atomic_uint forks;

static void after_fork(void)
{
	atomic_fetch_add(&forks, 1);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, after_fork);
}

bool lmdb_env_is_forked(const struct lmdb_env *e)
{
	return atomic_load_explicit(&forks, memory_order_relaxed) != e->forks;
}

/* The engine's own row ------------------------------------------------------------ */

struct engine_row {
	uint32_t magic, version;
	uint64_t revisions;
};
_Static_assert(sizeof(struct engine_row) == 16, "as it is in files");

/* Behind every key and every end of a range that a request may have. */
static MDB_val engine_key(uint8_t b[static ENGINE_KEY_LEN])
{
	memset(b, 0xff, ENGINE_KEY_LEN);
	return (MDB_val){ ENGINE_KEY_LEN, b };
}

static int put_engine_row(MDB_txn *txn, MDB_dbi dbi, uint64_t revisions)
{
	struct engine_row row = { ENGINE_MAGIC, ENGINE_VERSION, revisions };
	uint8_t b[ENGINE_KEY_LEN];
	MDB_val key = engine_key(b), value = { sizeof(row), &row };

	return lmdb_error(mdb_put(txn, dbi, &key, &value, 0));
}

static int get_engine_row(MDB_txn *txn, MDB_dbi dbi, uint64_t *ret)
{
	uint8_t b[ENGINE_KEY_LEN];
	MDB_val key = engine_key(b), value;
	struct engine_row row;
	int rc = mdb_get(txn, dbi, &key, &value);

	if (rc && rc != MDB_NOTFOUND)
		return lmdb_error(rc);
	if (rc == MDB_NOTFOUND || value.mv_size != sizeof(row))
		return -EUCLEAN;
	memcpy(&row, value.mv_data, sizeof(row));
	if (row.magic != ENGINE_MAGIC)
		return -EUCLEAN;
	if (row.version != ENGINE_VERSION)
		return -EPROTONOSUPPORT;
	*ret = row.revisions;
	return 0;
}

static void abort_txn(MDB_txn **txn)
{
	if (*txn)
		mdb_txn_abort(*txn);
}

static int commit(MDB_txn **txn)
{
	return lmdb_error(mdb_txn_commit(steal(txn)));
}

int lmdb_reserve_revisions(struct lmdb_env *e, uint64_t upto)
{
	_cleanup_(abort_txn) MDB_txn *txn = NULL;
	int r = lmdb_error(mdb_txn_begin(e->env, NULL, 0, &txn));

	if (!r)
		r = put_engine_row(txn, e->dbi, upto);
	if (!r)
		r = commit(&txn);
	if (!r)
		e->revisions = upto;
	return r;
}

/* Making a file ------------------------------------------------------------------- */

static void close_env(MDB_env **env)
{
	if (*env)
		mdb_env_close(*env);
}

/* An LMDB file with the engine's row, as short as it may be. */
static int make_lmdb(const char *path, uint64_t bytes)
{
	_cleanup_(close_env) MDB_env *env = NULL;
	_cleanup_(abort_txn) MDB_txn *txn = NULL;
	MDB_dbi dbi;
	int rc = mdb_env_create(&env);

	if (!rc)
		rc = mdb_env_set_mapsize(env, bytes);
	if (!rc)
		rc = mdb_env_open(env, path, MDB_NOSUBDIR, 0600);
	if (!rc)
		rc = mdb_txn_begin(env, NULL, 0, &txn);
	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &dbi);
	if (rc)
		return lmdb_error(rc);
	int r = put_engine_row(txn, dbi, 0);
	return r < 0 ? r : commit(&txn);
}

static int allocate(const char *path, uint64_t bytes)
{
	_cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = posix_fallocate(fd, 0, (off_t)bytes);
	if (r)
		return -r;
	return fsync(fd) < 0 ? -errno : 0;
}

static int make_at(const char *made, const char *path, uint64_t bytes)
{
	int r = make_lmdb(made, bytes);

	if (!r)
		r = allocate(made, bytes);
	if (!r && rename(made, path) < 0)
		r = -errno;
	return r;
}

static int make_file(const struct kv_lmdb_opts *o, uint64_t bytes)
{
	_cleanup_(freep) char *made = NULL, *lock = NULL;
	int r;

	if (asprintf(&made, "%s.new", o->path) < 0 ||
	    asprintf(&lock, "%s.new-lock", o->path) < 0)
		return -ENOMEM;
	unlink(made); /* of one who died while he made it */
	r = make_at(made, o->path, bytes);
	unlink(made);
	unlink(lock);
	return r;
}

/* Opening one ----------------------------------------------------------------------- */

static int open_file(struct lmdb_env *e, const struct kv_lmdb_opts *o)
{
	int flags = (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	struct stat st;

	e->fd = open(o->path, flags);
	if (e->fd < 0)
		return -errno;
	if (flock(e->fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(e->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EUCLEAN;
	e->bytes = (uint64_t)st.st_size;
	return 0;
}

/* Is it one that LMDB can be trusted with? */
static int look_at_file(struct lmdb_env *e, const char *path)
{
	struct lmdb_shape shape;
	const char *why = NULL;
	void *p = MAP_FAILED;
	int r;

	if (e->bytes)
		p = mmap(NULL, e->bytes, PROT_READ, MAP_SHARED, e->fd, 0);
	if (p == MAP_FAILED)
		return e->bytes ? -errno : -EUCLEAN;
	r = lmdb_guard(p, e->bytes, &shape, &why);
	munmap(p, e->bytes);
	if (why)
		log_error("index", "%s cannot be used: %s", path, why);
	return r;
}

static unsigned env_flags(const struct kv_lmdb_opts *o)
{
	unsigned flags = MDB_NOSUBDIR | MDB_NOTLS;

	if (o->read_only)
		return flags | MDB_RDONLY;
	return o->sync ? flags : flags | MDB_NOSYNC | MDB_WRITEMAP;
}

static int open_env(struct lmdb_env *e, const struct kv_lmdb_opts *o)
{
	MDB_stat st;
	int dead, rc = mdb_env_create(&e->env);

	if (!rc)
		rc = mdb_env_set_mapsize(e->env, e->bytes);
	if (!rc)
		rc = mdb_env_set_maxreaders(e->env, LMDB_READERS_MAX);
	if (!rc)
		rc = mdb_env_open(e->env, o->path, env_flags(o), 0600);
	if (!rc)
		rc = mdb_reader_check(e->env, &dead);
	if (!rc)
		rc = mdb_env_stat(e->env, &st);
	if (rc)
		return lmdb_error(rc);
	e->page_bytes = st.ms_psize;
	return 0;
}

static int open_rows(struct lmdb_env *e)
{
	_cleanup_(abort_txn) MDB_txn *txn = NULL;
	int rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn);

	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &e->dbi);
	if (rc)
		return lmdb_error(rc);
	int r = get_engine_row(txn, e->dbi, &e->revisions);
	return r < 0 ? r : commit(&txn);
}

static int open_or_make(struct lmdb_env *e, const struct kv_lmdb_opts *o,
			uint64_t bytes)
{
	int r = open_file(e, o);

	if (r != -ENOENT || !o->create || o->read_only)
		return r;
	r = make_file(o, bytes);
	return r < 0 ? r : open_file(e, o);
}

int lmdb_env_open(struct lmdb_env *e, const struct kv_lmdb_opts *o)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint64_t bytes = (o->size_bytes + 0xffff) & ~(uint64_t)0xffff;
	int r;

	pthread_once(&once, watch_forks);
	*e = (struct lmdb_env){ .fd = -1, .forks = atomic_load(&forks),
				.read_only = o->read_only };
	if (bytes < MIN_BYTES)
		bytes = MIN_BYTES;
	r = open_or_make(e, o, bytes);
	if (!r)
		r = look_at_file(e, o->path);
	if (!r && !o->read_only) {
		e->bytes = e->bytes < bytes ? bytes : e->bytes;
		r = -posix_fallocate(e->fd, 0, (off_t)e->bytes);
	}
	if (!r)
		r = open_env(e, o);
	return r < 0 ? r : open_rows(e);
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

void lmdb_env_fini(struct lmdb_env *e)
{
	if (lmdb_env_is_forked(e))
		return; /* all of it is the parent's */
	for (unsigned i = 0; i < LMDB_IDLE_READERS; i++)
		free_reader(atomic_exchange(&e->idle[i], NULL));
	if (e->env)
		mdb_env_close(e->env);
	closep(&e->fd);
}

/* Readers ------------------------------------------------------------------------------ */

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

/* Rows ------------------------------------------------------------------------------------ */

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
