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
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "index/lmdb_rows.h"

enum {
	ENGINE_MAGIC = 0x766b7373, /* "sskv" */
	ENGINE_VERSION = 1,
	ENGINE_KEY_LEN = KV_KEY_MAX + 1,
	MIN_BYTES = 1 << 20,
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
	const char *why = NULL;
	void *p = MAP_FAILED;
	int r;

	if (e->bytes)
		p = mmap(NULL, e->bytes, PROT_READ, MAP_SHARED, e->fd, 0);
	if (p == MAP_FAILED)
		return e->bytes ? -errno : -EUCLEAN;
	r = lmdb_guard(p, e->bytes, &e->shape, &why);
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

void lmdb_env_fini(struct lmdb_env *e)
{
	if (lmdb_env_is_forked(e))
		return; /* all of it is the parent's */
	lmdb_readers_fini(e);
	lmdb_shape_fini(&e->shape);
	if (e->env)
		mdb_env_close(e->env);
	closep(&e->fd);
}
