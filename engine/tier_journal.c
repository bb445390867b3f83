/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one commit says is gathered while its rows are told, and goes to the buffer when it
 * has been done: one record, so that it is there whole or not. The thread takes the buffer
 * as it is, and all that came together meanwhile is one fdatasync().
 *
 * When the journal cannot be written, what is on the disk stands still while the store goes
 * on, and would bring back what has changed since: so its files are removed, and nothing will be
 * there after a reboot. Where not even that can be done, nobody writes what they know of. The log
 * says which.
 */
#include "engine/tier_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/dir.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "index/index.h"

enum {
	ROTATE = 64 << 20,     /* bytes of a journal, */
	ROTATE_TIMES = 2,      /* and of what its rows have */
	ROTATE_REST_MS = 10000,/* after it could not be done */
	BUFFER_MAX = 64 << 20, /* that the disk is behind; then it is given up */
	ROWS_LOT = 1 << 20,
	ROWS_SYNC = 4 << 20, /* that are synced at a time: others wait for the thread meanwhile */
	ROWS_SEEN = 1024, /* then it is looked whether somebody waits */
};

#define ROWS_NEW "rows-new"

struct journal {
	struct journal_opts o;
	struct kv_observer observer;
	struct writer pending; /* of a commit under way; the committer's, */
	bool is_told;          /* as this: there is one */

	struct lock lock;
	struct writer buffer;  /* commits: u32 bytes of entries, entries */
	uint64_t added, durable;
	uint64_t ncommits;     /* that have been told of, */
	bool in_commit;        /* and one is about to be: its rows may be seen already */
	bool data_written, ending, ended;
	int lost;   /* why it is going to fail: something was not added */
	int error;
	bool stays; /* after it: its files could not be removed */
	pthread_cond_t more, done;

	/* The thread's */
	int fd;
	uint64_t next_record;  /* of its file */
	uint64_t bytes, rows_bytes, rests_ns;
	uint64_t number;
	bool has_thread, observes;
	pthread_t thread;
};

/* Files ------------------------------------------------------------------------------------ */

struct file_name {
	char s[32];
};

static struct file_name name_of(const char *what, uint64_t number)
{
	struct file_name n;

	snprintf(n.s, sizeof(n.s), "%s-%08" PRIx64, what, number);
	return n;
}

static bool parse_name(const char *s, const char *what, uint64_t *ret)
{
	char *end;
	size_t n = strlen(what);

	if (strncmp(s, what, n) || s[n] != '-')
		return false;
	uint64_t v = strtoull(s + n + 1, &end, 16);
	if (strcmp(s, name_of(what, v).s))
		return false;
	*ret = v;
	return true;
}

static void answered(struct journal *j)
{
	if (j->o.answered_ns)
		atomic_store(j->o.answered_ns, clock_ns());
}

static int write_all(struct journal *j, int fd, struct bytes b)
{
	int fault = disk_fault_of_journal(j->o.faults);

	if (fault)
		return fault;
	while (b.len) {
		ssize_t n = write(fd, b.p, b.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		b = BYTES_OF((const uint8_t *)b.p + n, b.len - (size_t)n);
	}
	answered(j);
	return 0;
}

static int create(struct journal *j, const char *name, uint64_t *number, int *ret)
{
	struct record_head head = j->o.head;
	struct writer entry = { 0 }, w = { 0 };
	int fd = openat(j->o.dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	head.version = RECORD_VERSION;
	head.number = j->number;
	entry_head(&entry, &head);
	*number = 0;
	records_write(&w, number, writer_bytes(&entry));
	int r = w.bad || entry.bad ? -ENOMEM : write_all(j, fd, writer_bytes(&w));
	writer_fini(&w);
	writer_fini(&entry);
	if (r < 0)
		close(fd);
	else
		*ret = fd;
	return r;
}

static int remove_one(struct journal *j, const char *name)
{
	int fault = disk_fault_of_removal(j->o.faults);

	return fault ? fault : unlinkat(j->o.dir, name, 0) && errno != ENOENT ? -errno : 0;
}

/* The one of the smallest number from `from` on; 0: there is none. */
static int find_first(int dir, const char *what, uint64_t from, uint64_t *ret)
{
	_cleanup_(closedirp) DIR *d = dir_open_at(dir, ".", 0);
	struct dirent *e;
	uint64_t n;

	if (!d)
		return -errno;
	*ret = 0;
	while ((errno = 0, e = readdir(d)))
		if (parse_name(e->d_name, what, &n) && n >= from && (!*ret || n < *ret))
			*ret = n;
	return -errno;
}

/* Those of a number below this one, the oldest first. */
static int remove_before(struct journal *j, const char *what, uint64_t number)
{
	uint64_t n = 0;
	int r;

	while (!(r = find_first(j->o.dir, what, n + 1, &n)) && n && n < number) {
		r = remove_one(j, name_of(what, n).s);
		if (r < 0)
			return r;
	}
	return r;
}

/* Rows are gone for good before the first journal goes: without those that follow them they are what
 * there was before. So whatever stops this leaves all that is known, or nothing: journals that stay
 * are nothing without rows. */
static int remove_all(struct journal *j)
{
	int r = remove_before(j, "rows", UINT64_MAX);

	if (!r)
		r = fsync(j->o.dir) ? -errno : 0;
	if (!r)
		remove_before(j, "journal", UINT64_MAX);
	return r;
}

/* The buffer ---------------------------------------------------------------------------------- */

static void complain(int r, int removed)
{
	if (!removed) {
		log_error("disk", "its journal cannot be written: %s. What is on the disk will not be "
			  "there after a reboot, and nothing more goes there. Try: a look at the "
			  "disk, then another start", error_text(r));
		return;
	}
	log_error("disk", "its journal cannot be written: %s; and it cannot be removed: %s. After a "
		  "reboot what is on the disk may be there as it is now, so none of it is opened for "
		  "writing any more, and what is unlinked may be there again. Nothing more goes there. "
		  "Try: a look at the disk, then another start", error_text(r), error_text(removed));
}

static void drop_buffer(struct journal *j)
{
	writer_fini(&j->buffer);
	j->buffer = (struct writer){ 0 };
}

/* Who waits is told when nothing is left that could bring back what he may change then; or that
 * there is. */
static void fail(struct journal *j, int r)
{
	{
		WITH_LOCK(&j->lock);
		if (j->error)
			return;
	}
	int removed = remove_all(j);
	{
		WITH_LOCK(&j->lock);
		j->error = r;
		j->stays = removed;
		drop_buffer(j);
		pthread_cond_broadcast(&j->done);
	}
	complain(r, removed);
}

/* Under the lock. A disk that does not answer must not cost all memory: the thread finds it lost
 * when it comes back from there, and who waits is told then. */
static uint64_t add(struct journal *j, struct bytes entries)
{
	if (!j->lost && !j->error) {
		write_u32(&j->buffer, (uint32_t)entries.len);
		write_bytes(&j->buffer, entries.p, entries.len);
		j->lost = j->buffer.bad ? -ENOMEM : j->buffer.len > BUFFER_MAX ? -ENOBUFS : 0;
		if (j->lost)
			drop_buffer(j);
	}
	pthread_cond_signal(&j->more);
	return ++j->added;
}

/* Bytes first. */
static int sync_data(struct journal *j)
{
	{
		WITH_LOCK(&j->lock);
		if (!j->data_written)
			return 0;
		j->data_written = false;
	}
	return fdatasync(j->o.data) ? -errno : 0;
}

static int write_commits(struct journal *j, const struct writer *commits)
{
	struct reader r = reader_of(writer_bytes(commits));
	struct writer w = { 0 };

	while (r.left) {
		uint32_t n = read_u32(&r);
		records_write(&w, &j->next_record, BYTES_OF(read_bytes(&r, n), n));
	}
	int e = w.bad ? -ENOMEM : write_all(j, j->fd, writer_bytes(&w));
	if (!e && w.len) {
		e = fdatasync(j->fd) ? -errno : 0;
		disk_fault_sync(j->o.faults, 0);
	}
	j->bytes += w.len;
	writer_fini(&w);
	return e;
}

/* All that there is. */
static int flush(struct journal *j)
{
	struct writer w;
	uint64_t added;
	int r;

	{
		WITH_LOCK(&j->lock);
		w = j->buffer;
		added = j->added;
		j->buffer = (struct writer){ 0 };
		if (j->error)
			return j->error;
		r = j->lost;
	}
	if (!r)
		r = sync_data(j);
	if (!r)
		r = write_commits(j, &w);
	writer_fini(&w);
	if (r < 0) {
		fail(j, r);
		return r;
	}
	answered(j);
	crash_point(CRASH_DISK_JOURNALED);
	WITH_LOCK(&j->lock);
	j->durable = added;
	pthread_cond_broadcast(&j->done);
	return 0;
}

/* Rows ------------------------------------------------------------------------------------------ */

struct rows {
	struct journal *j;
	int fd;
	uint64_t number, bytes, synced, seen;
	struct writer entries, kept;
};

static int rows_sync(struct rows *s)
{
	int r = fdatasync(s->fd) ? -errno : 0;

	if (s->bytes > s->synced)
		disk_fault_sync(s->j->o.faults, s->bytes - s->synced);
	s->synced = s->bytes;
	if (!r)
		answered(s->j);
	return r;
}

static int rows_write(struct rows *s)
{
	struct writer w = { 0 };

	records_write(&w, &s->number, writer_bytes(&s->entries));
	int r = w.bad || s->entries.bad ? -ENOMEM : write_all(s->j, s->fd, writer_bytes(&w));
	s->bytes += w.len;
	writer_fini(&w);
	s->entries.len = 0;
	return !r && s->bytes - s->synced >= ROWS_SYNC ? rows_sync(s) : r;
}

static int see_row(void *arg, const struct kv_row *row)
{
	struct rows *s = arg;
	struct bytes kept;

	s->kept.len = 0;
	kept = index_row_kept(row->key, row->value, s->j->o.head.pool_id, &s->kept);
	if (kept.len)
		entry_put(&s->entries, row->key, kept);
	if (s->kept.bad)
		return -ENOMEM;
	bool is_lot = s->entries.len >= ROWS_LOT;
	int r = is_lot ? rows_write(s) : 0;
	/* Others are waiting for what has come meanwhile. */
	bool looks = ++s->seen % ROWS_SEEN == 0 || is_lot;
	return !r && looks && s->j->has_thread ? flush(s->j) : r;
}

/* Of a commit meanwhile some rows may have been seen in time, and others too early: all of it is to
 * be in the journal before these are believed. */
static int rows_settle(struct rows *s)
{
	struct journal *j = s->j;

	if (!j->has_thread)
		return 0;
	{
		WITH_LOCK(&j->lock);
		for (uint64_t n = j->ncommits; j->in_commit && j->ncommits == n;)
			lock_wait(&j->lock, &j->done);
	}
	return flush(j);
}

static int see_segment(void *arg, uint32_t n, uint32_t gen)
{
	struct rows *s = arg;

	entry_segment(&s->entries, n, gen);
	return 0;
}

static int write_rows(struct journal *j)
{
	struct rows s = { .j = j };
	int r = create(j, ROWS_NEW, &s.number, &s.fd);

	if (r < 0)
		return r;
	tier_log_gens(j->o.log, see_segment, &s);
	for (const char *kind = INDEX_KEPT_KINDS; !r && *kind; kind++)
		r = index_rows(j->o.kv, *kind, see_row, &s);
	entry_end(&s.entries);
	if (!r)
		r = rows_write(&s);
	if (!r)
		r = sync_data(j);
	if (!r)
		r = rows_sync(&s);
	if (!r)
		r = rows_settle(&s);
	crash_point(CRASH_DISK_ROWS);
	if (!r)
		r = renameat(j->o.dir, ROWS_NEW, j->o.dir, name_of("rows", j->number).s) ||
		    fsync(j->o.dir) ? -errno : 0;
	close(s.fd);
	writer_fini(&s.entries);
	writer_fini(&s.kept);
	if (r < 0) {
		unlinkat(j->o.dir, ROWS_NEW, 0);
		return r;
	}
	j->rows_bytes = s.bytes;
	/* Or they are there, and count for nothing. */
	if (!remove_before(j, "rows", j->number))
		remove_before(j, "journal", j->number);
	return 0;
}

/* What comes from now on goes to the next one. */
static int begin_next(struct journal *j)
{
	const struct file_name name = name_of("journal", j->number + 1);
	uint64_t number;
	int fd;

	j->number++;
	int r = create(j, name.s, &number, &fd);
	if (!r && (fdatasync(fd) || fsync(j->o.dir))) {
		r = -errno;
		close(fd);
	}
	if (r < 0) { /* the one that there is goes on */
		unlinkat(j->o.dir, name.s, 0);
		j->number--;
		return r;
	}
	if (j->fd >= 0)
		close(j->fd);
	j->fd = fd;
	j->next_record = number;
	j->bytes = 0;
	return 0;
}

/* Where that cannot be done (no room, say), what there is goes on: rows and all journals since. */
static void rotate(struct journal *j)
{
	int r = begin_next(j);

	if (!r)
		r = write_rows(j);
	if (r < 0 && journal_has(j, 0))
		log_warn("disk", "its journal cannot be begun anew, and grows: %s. Try: room for it",
			 error_text(r));
	j->rests_ns = r < 0 ? clock_ns() + ROTATE_REST_MS * NS_PER_MS : 0;
}

static bool must_rotate(const struct journal *j)
{
	uint64_t least = j->o.rotate_bytes ? j->o.rotate_bytes : ROTATE;

	return j->bytes > least && j->bytes > ROTATE_TIMES * j->rows_bytes &&
	       clock_ns() >= j->rests_ns;
}

/* ----------------------------------------------------------------------------------------------- */

static bool has_work(const struct journal *j)
{
	return j->buffer.len || (j->lost && !j->error);
}

static bool wait_for_more(struct journal *j)
{
	WITH_LOCK(&j->lock);
	while (!has_work(j) && !j->ending)
		lock_wait(&j->lock, &j->more);
	return has_work(j);
}

static void *run(void *arg)
{
	struct journal *j = arg;

	pthread_setname_np(pthread_self(), "journal");
	while (wait_for_more(j))
		if (!flush(j) && must_rotate(j))
			rotate(j);
	WITH_LOCK(&j->lock);
	j->ended = true;
	pthread_cond_broadcast(&j->done);
	return NULL;
}

static void set_in_commit(struct journal *j)
{
	WITH_LOCK(&j->lock);
	j->in_commit = true;
}

/* The observer. What was a kept row and is none any more goes; of what comes back, or goes there
 * again, nothing changes. */
static int observe(void *arg, struct bytes key, struct bytes before, struct bytes after)
{
	_cleanup_(writer_fini) struct writer w_was = { 0 }, w_is = { 0 };
	struct journal *j = arg;
	uint64_t id = j->o.head.pool_id;

	if (!j->is_told) {
		j->is_told = true;
		set_in_commit(j);
	}
	struct bytes was = index_row_kept(key, before, id, &w_was);
	struct bytes is = index_row_kept(key, after, id, &w_is);

	if (is.len && !bytes_eq(was, is))
		entry_put(&j->pending, key, is);
	else if (!is.len && was.len)
		entry_del(&j->pending, key);
	return j->pending.bad || w_was.bad || w_is.bad ? -ENOMEM : 0;
}

static void observed(void *arg, bool committed)
{
	struct journal *j = arg;

	{
		WITH_LOCK(&j->lock);
		if (committed && j->pending.len)
			add(j, writer_bytes(&j->pending));
		if (j->in_commit) {
			j->in_commit = false;
			j->ncommits++;
			pthread_cond_broadcast(&j->done);
		}
	}
	j->is_told = false;
	if (j->pending.bad)
		writer_fini(&j->pending);
	j->pending.len = 0;
	j->pending.bad = false;
}

int journal_open(const struct journal_opts *o, struct journal **ret)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->o = *o;
	j->fd = -1;
	j->number = o->head.number - 1;
	j->data_written = true; /* by who was killed, maybe: the rows name that */
	j->observer = (struct kv_observer){ .kinds = INDEX_KEPT_KINDS, .write = observe,
					    .end = observed, .arg = j };
	lock_init(&j->lock, LOCK_JOURNAL);
	pthread_cond_init(&j->more, NULL);
	lock_cond_init(&j->done);
	int r = begin_next(j);
	if (!r)
		r = write_rows(j);
	if (!r)
		r = kv_observe(o->kv, &j->observer);
	j->observes = !r;
	if (!r)
		r = -pthread_create(&j->thread, NULL, run, j);
	j->has_thread = !r;
	if (r < 0) {
		journal_close(j);
		return r;
	}
	*ret = j;
	return 0;
}

static void stop_observing(struct journal *j)
{
	if (j->observes)
		kv_observe_no_more(j->o.kv, &j->observer);
	j->observes = false;
}

bool journal_end(struct journal *j, uint64_t deadline_ns)
{
	stop_observing(j);
	WITH_LOCK(&j->lock);
	j->ending = true;
	pthread_cond_signal(&j->more);
	while (!j->ended)
		if (lock_wait_until(&j->lock, &j->done, deadline_ns) == ETIMEDOUT)
			return false;
	return true;
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	if (j->has_thread) {
		while (!journal_end(j, clock_ns() + NS_PER_S))
			;
		pthread_join(j->thread, NULL);
	}
	stop_observing(j);
	if (j->fd >= 0)
		close(j->fd);
	writer_fini(&j->buffer);
	writer_fini(&j->pending);
	pthread_cond_destroy(&j->more);
	pthread_cond_destroy(&j->done);
	lock_fini(&j->lock);
	free(j);
}

uint64_t journal_segment(struct journal *j, uint32_t n, uint32_t gen)
{
	uint8_t room[16];
	struct writer w = { .p = room, .cap = sizeof(room) };

	entry_segment(&w, n, gen);
	WITH_LOCK(&j->lock);
	return add(j, writer_bytes(&w));
}

uint64_t journal_mark(struct journal *j)
{
	WITH_LOCK(&j->lock);
	return j->added;
}

bool journal_has(struct journal *j, uint64_t mark)
{
	WITH_LOCK(&j->lock);
	return !j->error && !j->lost && j->durable >= mark;
}

int journal_wait(struct journal *j, uint64_t mark, uint64_t deadline_ns)
{
	WITH_LOCK(&j->lock);
	while (!j->error && j->durable < mark)
		if (lock_wait_until(&j->lock, &j->done, deadline_ns) == ETIMEDOUT)
			return -ETIMEDOUT;
	return j->error;
}

bool journal_stays(struct journal *j)
{
	WITH_LOCK(&j->lock);
	return j->stays;
}

void journal_data(struct journal *j)
{
	WITH_LOCK(&j->lock);
	j->data_written = true;
}

/* Reading ------------------------------------------------------------------------------------ */

struct reading {
	const struct record_visitor *v;
	struct record_head head; /* that the files are to have */
	uint64_t number;
	bool whole;
};

static int read_head(void *arg, const struct record_head *h)
{
	struct reading *g = arg;

	if (h->number != g->number || (g->head.version && (h->pool_id != g->head.pool_id ||
							   h->fs_id != g->head.fs_id)))
		return -EUCLEAN;
	g->head = *h;
	return g->v->head ? g->v->head(g->v->arg, h) : 0;
}

static int read_put(void *arg, struct bytes key, struct bytes value)
{
	struct reading *g = arg;
	return g->v->put ? g->v->put(g->v->arg, key, value) : 0;
}

static int read_del(void *arg, struct bytes key)
{
	struct reading *g = arg;
	return g->v->del ? g->v->del(g->v->arg, key) : 0;
}

static int read_segment(void *arg, uint32_t n, uint32_t gen)
{
	struct reading *g = arg;
	return g->v->segment ? g->v->segment(g->v->arg, n, gen) : 0;
}

static int read_end(void *arg)
{
	((struct reading *)arg)->whole = true;
	return 0;
}

static int read_one(int dir, const char *name, struct reading *g, bool *ret_torn)
{
	const struct record_visitor v = { read_head, read_put, read_del, read_segment, read_end, g };
	_cleanup_(closep) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t len;

	return fd < 0 ? -errno : records_read_file(fd, &v, &len, ret_torn);
}

/* The last rows-N, and the last journal. 0: there is none. */
static int find_last(int dir, uint64_t *ret_rows, uint64_t *ret_journal)
{
	_cleanup_(closedirp) DIR *d = dir_open_at(dir, ".", 0);
	struct dirent *e;
	uint64_t n;

	if (!d)
		return -errno;
	*ret_rows = *ret_journal = 0;
	while ((e = readdir(d))) {
		if (parse_name(e->d_name, "rows", &n) && n > *ret_rows)
			*ret_rows = n;
		if (parse_name(e->d_name, "journal", &n) && n > *ret_journal)
			*ret_journal = n;
	}
	return 0;
}

/* Of one that died while it made it: nothing was ever said in it. */
static bool is_bare(int dir, uint64_t journal)
{
	struct stat st;

	return fstatat(dir, name_of("journal", journal).s, &st, AT_SYMLINK_NOFOLLOW) ||
	       st.st_size <= RECORD_FIRST;
}

int journal_read(int dir, const struct record_visitor *v, struct journal_found *ret,
		 char **ret_file)
{
	struct reading g = { .v = v };
	struct file_name name;
	uint64_t rows = 0, last = 0;
	int r = find_last(dir, &rows, &last);

	if (r < 0)
		return r;
	*ret = (struct journal_found){ .next = (last > rows ? last : rows) + 1 };
	if (!rows)
		return 0;
	name = name_of("rows", g.number = rows);
	r = read_one(dir, name.s, &g, NULL);
	if (!r && !g.whole)
		r = -EUCLEAN;
	/* The first one was there before the rows, and goes after them. Those that were to follow, and
	 * were not made any more, are no loss. Behind what was cut off there is nothing: else it was
	 * not a power loss that did it. */
	for (g.number = rows; !r && (g.number == rows || g.number <= last); g.number++) {
		struct file_name now = name_of("journal", g.number);
		bool bare = g.number > rows && is_bare(dir, g.number), torn = false;
		if (ret->torn && !bare) {
			r = -EUCLEAN;
			break;
		}
		name = now;
		r = read_one(dir, name.s, &g, &torn);
		if (r == -EUCLEAN && bare)
			r = 0;
		ret->torn |= torn;
	}
	ret->head = g.head;
	if (r < 0)
		*ret_file = strdup(name.s);
	return r;
}
