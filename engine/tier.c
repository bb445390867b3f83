/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk's folder:
 *
 *	DIR/data          its first page is a text that says whose it is; then segments
 *	DIR/rows-N, journal-N   what is on it (tier_journal.h)
 *	DIR/old/          what `fresh` moved aside
 *	DIR/aside/        the same until all else has been opened; then it becomes old/. Whoever
 *	                  finds it does that if the store has come to be that `data` was made for:
 *	                  it has noted that one's id; else he puts it back
 *
 * The folder has the lock, so that who moves what is in it is alone; and so has `data`, for what a
 * process that was killed had asked of the disk holds that until it is done.
 *
 * `data` is allocated in full when it is made, so that a write cannot find the disk full
 * later. It is there before a journal is: a folder with the one and without
 * the other was never used. It goes last, so that who goes on from where somebody was interrupted
 * finds it; what is left without it is nobody's, and goes when it is made.
 */
#include "engine/tier.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/dir.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/size.h"
#include "engine/auth.h"
#include "engine/fetch.h"
#include "engine/folder.h"
#include "engine/tier_priv.h"

enum {
	FORMAT = 1,
	SEGMENT_MAX = 16384, /* pages: 64 MiB */
	SEGMENTS = 16,       /* of a disk that is smaller than so many of those */
	LOCK_MS = 2000,
	END_MS = 10000,
	LOOK_MS = 25,
};

#define FRESH_HINT "Try: another folder, or --fresh, which keeps what is there aside"

uint64_t tier_id(const struct tier *t) { return t->head.pool_id; }
bool tier_is_new(const struct tier *t) { return t->is_new; }
uint64_t tier_fs(const struct tier *t) { return t->found.head.fs_id; }
struct tier_log *tier_log_of(struct tier *t) { return t->log; }

int tier_disk(struct tier *t, unsigned depth, struct disk **ret)
{
	struct disk *d, *late;
	int r = disk_open(t->fd, depth, &d);

	if (r < 0 || !t->faults) {
		if (!r)
			*ret = d;
		return r;
	}
	r = disk_fault_open(d, t->faults, &late);
	if (r < 0)
		disk_close(d);
	else
		*ret = late;
	return r;
}

uint64_t tier_next_look(void)
{
	return clock_ns() + LOOK_MS * NS_PER_MS;
}

void tier_waits(struct tier *t)
{
	uint64_t ending = atomic_load(&t->ending_ns), answered = atomic_load(&t->answered_ns);
	uint64_t since = answered > ending ? answered : ending;

	if (!ending || clock_ns() < since + t->end_ms * NS_PER_MS)
		return;
	log_error("disk", "%s: has not answered for %" PRIu32 " ms, and we are to end: it is left as "
		  "it is, as by a kill -9. Try: a look at the disk, then another start", t->path,
		  t->end_ms);
	_exit(EXIT_FAILURE);
}

int tier_reap(struct tier *t, struct disk *d, uint64_t deadline_ns, struct disk_req **ret)
{
	int r = disk_reap(d, deadline_ns, ret);

	if (!r)
		atomic_store(&t->answered_ns, clock_ns());
	else if (r == -ETIMEDOUT)
		tier_waits(t);
	return r;
}

/* Sizes ---------------------------------------------------------------------------------- */

static int cut(struct tier *t, uint64_t bytes)
{
	uint64_t pages = bytes / PAGE_BYTES;
	uint64_t seg = pages / SEGMENTS / SLICE_PAGES_MAX * SLICE_PAGES_MAX;

	seg = seg < SLICE_PAGES_MAX ? SLICE_PAGES_MAX : seg > SEGMENT_MAX ? SEGMENT_MAX : seg;
	uint64_t n = pages > TIER_HEAD_PAGES ? (pages - TIER_HEAD_PAGES) / seg : 0;
	if (n < TIER_SEGMENTS_MIN || pages > UINT32_MAX)
		return -EINVAL;
	t->segment_pages = (uint32_t)seg;
	t->nsegments = (uint32_t)n;
	return 0;
}

/* Files ---------------------------------------------------------------------------------- */

/* In the order in which they go. Rows without all of their journals are an older state, journals
 * without rows are nothing: so an interruption leaves nothing that is believed. */
enum ours { ROWS, JOURNALS, DATA, OURS };

static bool is_of(const char *name, enum ours what)
{
	static const char *const begins[] = { "rows-", "journal-", "data" };
	size_t n = strlen(begins[what]);

	if (strncmp(name, begins[what], n))
		return false;
	if (what == DATA || (what == ROWS && !strcmp(name + n, "new")))
		return what != DATA || !name[n];
	return strlen(name + n) >= 8 && !name[n + strspn(name + n, "0123456789abcdef")];
}

static int each_of(int dir, enum ours what, int (*visit)(int dir, const char *name))
{
	_cleanup_(closedirp) DIR *d = dir_open_at(dir, ".", 0);
	int r = d ? 0 : -errno;
	struct dirent *e;

	while (!r && (e = readdir(d)))
		if (is_of(e->d_name, what))
			r = visit(dir, e->d_name);
	return r;
}

/* Those before `end`. What has gone of one is gone for good before the next one goes. */
static int each_of_ours(int dir, enum ours end, int (*visit)(int dir, const char *name))
{
	int r = 0;

	for (enum ours what = ROWS; !r && what < end; what++) {
		r = each_of(dir, what, visit);
		if (!r && fsync(dir))
			r = -errno;
	}
	return r;
}

static int remove_one(int dir, const char *name)
{
	return unlinkat(dir, name, 0) ? -errno : 0;
}

static int move_aside_one(int dir, const char *name)
{
	char to[300];

	snprintf(to, sizeof(to), "aside/%s", name);
	return renameat(dir, name, dir, to) ? -errno : 0;
}

static int put_back_one(int aside, const char *name)
{
	char to[300];

	snprintf(to, sizeof(to), "../%s", name);
	return renameat(aside, name, aside, to) ? -errno : 0;
}

/* What was moved aside for something that was not to be. While `data` is there, what is in the folder
 * is of that. 1: there was something. */
static int put_back(int dir)
{
	_cleanup_(closep) int aside = openat(dir, "aside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (aside < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!faccessat(aside, "data", F_OK, AT_SYMLINK_NOFOLLOW)) {
		r = each_of_ours(dir, DATA, remove_one);
		if (!r)
			r = put_back_one(aside, "data");
	}
	if (!r)
		r = fsync(dir) ? -errno : each_of_ours(aside, DATA, put_back_one);
	if (!r)
		r = fsync(dir) || unlinkat(dir, "aside", AT_REMOVEDIR) ? -errno : 0;
	return r < 0 ? r : 1;
}

/* It has been replaced for good. */
static void keep_aside(const char *path, int dir)
{
	if (renameat(dir, "aside", dir, "old") || fsync(dir))
		log_warn("disk", "%s: what --fresh has replaced is in %s/aside still, and %s/old "
			 "cannot be made of it: %s. Try: another place for what is in %s/old; the "
			 "next start does the rest", path, path, path, error_text(errno), path);
}

/* `data` ----------------------------------------------------------------------------------- */

static int write_head(struct tier *t, const struct tier_opts *o, uint64_t bytes)
{
	_cleanup_(freep) char *page = NULL;
	char store[3 * 256];

	page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	if (!page)
		return -ENOMEM;
	memset(page, 0, PAGE_BYTES);
	error_quote(store, sizeof(store), o->store);
	snprintf(page, PAGE_BYTES, "slicefs disk %d\nid %016" PRIx64 "\nbytes %" PRIu64
		 "\nstore [%s]\n", FORMAT, t->head.pool_id, bytes, store);
	ssize_t n = pwrite(t->fd, page, PAGE_BYTES, 0);
	return n != PAGE_BYTES ? n < 0 ? -errno : -EIO : fsync(t->fd) ? -errno : 0;
}

struct disk_head {
	unsigned format;
	uint64_t id, bytes;
	char store[3 * 256];
};

static int read_head(int fd, struct disk_head *ret)
{
	_cleanup_(freep) char *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);

	if (!page)
		return -ENOMEM;
	ssize_t n = pread(fd, page, PAGE_BYTES, 0);
	if (n != PAGE_BYTES)
		return n < 0 ? -errno : -EUCLEAN;
	page[PAGE_BYTES - 1] = 0;
	if (sscanf(page, "slicefs disk %u", &ret->format) != 1)
		return -EUCLEAN;
	if (ret->format > FORMAT)
		return -EPROTONOSUPPORT;
	if (sscanf(page, "slicefs disk %u\nid %" SCNx64 "\nbytes %" SCNu64 "\nstore [%767[^\n]",
		   &ret->format, &ret->id, &ret->bytes, ret->store) != 4 || !ret->id)
		return -EUCLEAN;
	ret->store[strlen(ret->store) - 1] = 0; /* the bracket */
	return 0;
}

/* What is aside after a kill. `fd`: data. 1: that may be another file by now. */
static int settle(const char *path, int dir, int fd, uint64_t id)
{
	struct disk_head h = { 0 };
	bool is_whole = !faccessat(dir, "aside/data", F_OK, AT_SYMLINK_NOFOLLOW);
	int r = is_whole && id ? read_head(fd, &h) : -EUCLEAN;

	if (r < 0 && r != -EUCLEAN)
		return r;
	if (r < 0 || h.id != id)
		return put_back(dir);
	keep_aside(path, dir);
	return 0;
}

static int why_data(const struct tier *t, int r, char **ret_why)
{
	if (r == -EPROTONOSUPPORT)
		return why(ret_why, r, "disk %s: made by a newer slicefs than this one (%s). Try: "
			   "that one, or --fresh, which keeps what is there aside", t->path,
			   SLICEFS_VERSION);
	if (r == -EUCLEAN)
		return why(ret_why, r, "disk %s: data is not what slicefs writes, or damaged. "
			   FRESH_HINT, t->path);
	return why(ret_why, r, "disk %s: data: %s. Try: a look at the disk", t->path, error_text(r));
}

/* To find that out by allocating would leave nothing to anybody else meanwhile. */
static bool has_room(int fd, uint64_t bytes)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || bytes / (uint64_t)fs.f_bsize < fs.f_bavail;
}

static int why_no_room(const struct tier *t, uint64_t bytes, char **ret_why)
{
	return why(ret_why, -ENOSPC, "disk %s: there is no room for %s. Try: a smaller --ssd-size",
		   t->path, size_text(bytes).s);
}

/* Is there to be one of this size, and room for it? */
static int check_size(struct tier *t, const struct tier_opts *o, char **ret_why)
{
	uint64_t bytes = o->bytes / PAGE_BYTES * PAGE_BYTES;

	if (!o->bytes)
		return why(ret_why, -EINVAL, "disk %s: how much of it is to be used? Try: "
			   "--ssd-size 100G", t->path);
	if (cut(t, bytes) < 0)
		return why(ret_why, -EINVAL, "disk %s: %s is too little or too much. Try: "
			   "--ssd-size 1G", t->path, size_text(bytes).s);
	return has_room(t->dir, bytes) ? 0 : why_no_room(t, bytes, ret_why);
}

static int make_data(struct tier *t, const struct tier_opts *o, char **ret_why)
{
	uint64_t bytes = o->bytes / PAGE_BYTES * PAGE_BYTES;

	t->made_data = true;
	t->head.pool_id = auth_random_number() | 1;
	t->is_new = true;
	int r = each_of_ours(t->dir, DATA, remove_one);
	if (!r)
		r = -posix_fallocate(t->fd, 0, (off_t)bytes);
	if (r == -ENOSPC)
		return why_no_room(t, bytes, ret_why);
	if (!r)
		r = write_head(t, o, bytes);
	return r < 0 ? why_data(t, r, ret_why) : 0;
}

static int take_data(struct tier *t, const struct tier_opts *o, char **ret_why)
{
	struct disk_head h;
	struct stat st;
	char store[3 * 256];
	int r = fstat(t->fd, &st) ? -errno : read_head(t->fd, &h);

	if (r < 0)
		return why_data(t, r, ret_why);
	uint64_t size = (uint64_t)st.st_size;
	if (h.bytes > size || cut(t, h.bytes) < 0)
		return why(ret_why, -EUCLEAN, "disk %s: data was cut short: it has %s of %s. "
			   FRESH_HINT, t->path, size_text(size).s, size_text(h.bytes).s);
	error_quote(store, sizeof(store), o->store);
	if (strcmp(h.store, store))
		return why(ret_why, -EUCLEAN, "disk %s: belongs to the store %s. " FRESH_HINT, t->path,
			   h.store);
	if (o->bytes && o->bytes / PAGE_BYTES * PAGE_BYTES != h.bytes)
		return why(ret_why, -EINVAL, "disk %s: has %" PRIu64 " MiB, and %" PRIu64 " MiB were "
			   "asked for. Try: without --ssd-size, or with --fresh, which keeps what is "
			   "there aside", t->path, h.bytes >> 20, o->bytes >> 20);
	t->head.pool_id = h.id;
	return 0;
}

/* Locks ---------------------------------------------------------------------------------------- */

/* Nobody else has it. -EBUSY; others: it cannot be locked. */
static int lock_one(int fd)
{
	uint64_t until = clock_ns() + LOCK_MS * NS_PER_MS;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (clock_ns() >= until)
			return -EBUSY;
		usleep(1000);
	}
	return 0;
}

/* What a process that was killed had asked of the disk holds its lock until that is done, and the
 * kernel has looked after it. */
static int lock_data(int fd)
{
	return lock_one(fd) < 0 ? -EBUSY : 0;
}

/* A folder that its file system cannot lock has that of `data` only. 1: who had it has removed it. */
static int lock_folder(int dir, const char *path)
{
	struct stat was, is;

	if (lock_one(dir) == -EBUSY)
		return -EBUSY;
	if (fstat(dir, &was))
		return -errno;
	if (stat(path, &is))
		return errno == ENOENT ? 1 : -errno;
	return was.st_dev != is.st_dev || was.st_ino != is.st_ino;
}

static int why_busy(const struct tier *t, char **ret_why)
{
	return why(ret_why, -EBUSY, "disk %s: is in use by another process. Try: slicefs status",
		   t->path);
}

/* The folder --------------------------------------------------------------------------------- */

/* Until tier_keep(). */
static int move_aside(struct tier *t, char **ret_why)
{
	/* An empty one is nobody's. */
	if (unlinkat(t->dir, "old", AT_REMOVEDIR) && errno != ENOENT)
		return why(ret_why, -EEXIST, "disk %s: something is kept aside already, in %s/old, and "
			   "only one set is. Try: rm -r %s/old", t->path, t->path, t->path);
	int r = mkdirat(t->dir, "aside", 0700) ? -errno : 0;
	t->is_aside = !r;
	if (!r)
		r = each_of_ours(t->dir, OURS, move_aside_one);
	return r < 0 ? why_data(t, r, ret_why) : 0;
}

void tier_keep(struct tier *t)
{
	if (t->is_aside)
		keep_aside(t->path, t->dir);
	t->is_aside = false;
}

static int open_folder(struct tier *t)
{
	int r = folder_make(t->path);

	t->made_dir |= !r;
	if (r && r != -EEXIST)
		return r;
	closep(&t->dir);
	t->dir = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->dir < 0 ? -errno : lock_folder(t->dir, t->path);
}

static int open_dir(struct tier *t, char **ret_why)
{
	struct statfs fs;
	int r;

	while ((r = open_folder(t)) > 0)
		;
	if (r == -EBUSY)
		return why_busy(t, ret_why);
	if (!r)
		r = fstatfs(t->dir, &fs) ? -errno : 0;
	if (r < 0)
		return why(ret_why, r, "disk %s: %s. Try: --ssd with a folder on a disk", t->path,
			   error_text(r));
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
		return why(ret_why, -EINVAL, "disk %s: is memory. Try: --ssd with a folder on a disk",
			   t->path);
	return 0;
}

static int open_file(struct tier *t, char **ret_why)
{
	t->fd = openat(t->dir, "data", O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (t->fd < 0 && errno == EINVAL)
		return why(ret_why, -EINVAL, "disk %s: its file system cannot be read and written "
			   "directly (O_DIRECT). Try: --ssd with a folder on ext4 or xfs", t->path);
	if (t->fd < 0)
		return why_data(t, -errno, ret_why);
	if (lock_data(t->fd) < 0)
		return why_busy(t, ret_why);
	return 0;
}

static int open_file_anew(struct tier *t, char **ret_why)
{
	close(t->fd);
	return open_file(t, ret_why);
}

static int is_one(int dir, const char *name)
{
	(void)dir;
	(void)name;
	return 1;
}

/* By who was killed before the head was written it is not. */
static int is_made(struct tier *t, bool *ret)
{
	_cleanup_(freep) char *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);

	if (!page)
		return -ENOMEM;
	ssize_t n = pread(t->fd, page, PAGE_BYTES, 0);
	if (n < 0)
		return -errno;
	*ret = n && (n < PAGE_BYTES || page[0] || memcmp(page, page + 1, PAGE_BYTES - 1) ||
		     each_of(t->dir, ROWS, is_one) || each_of(t->dir, JOURNALS, is_one));
	return 0;
}

static int open_data(struct tier *t, const struct tier_opts *o, char **ret_why)
{
	int r = open_file(t, ret_why);
	bool made = false;

	if (r < 0)
		return r;
	r = settle(t->path, t->dir, t->fd, o->id);
	if (r < 0)
		return why_data(t, r, ret_why);
	if (r)
		r = open_file_anew(t, ret_why);
	if (r < 0)
		return r;
	r = is_made(t, &made);
	if (r < 0)
		return why_data(t, r, ret_why);
	if (made && !o->fresh)
		return take_data(t, o, ret_why);
	t->made_data = !made;
	if (!made && ftruncate(t->fd, 0))
		return why_data(t, -errno, ret_why);
	r = check_size(t, o, ret_why);
	if (!r && made)
		r = move_aside(t, ret_why);
	if (!r && made)
		r = open_file_anew(t, ret_why);
	return r < 0 ? r : make_data(t, o, ret_why);
}

/* The folder and its `data`, locked. -ENOENT: they are not there. */
static int open_of(const char *dir, int *folder, int *fd)
{
	*folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*folder < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	int r = lock_folder(*folder, dir);
	if (r)
		return r < 0 ? r : -ENOENT;
	*fd = openat(*folder, "data", O_RDWR | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
	return *fd < 0 ? -errno : lock_data(*fd);
}

/* -ENOENT: it is not there, as far as one can see. */
static int remove_of(const char *dir, const char *store, uint64_t id, enum ours end)
{
	_cleanup_(closep) int folder = -1, fd = -1;
	struct disk_head h;
	char quoted[3 * 256];
	int r = open_of(dir, &folder, &fd);

	if (r < 0)
		return r;
	r = settle(dir, folder, fd, id);
	if (r < 0)
		return r;
	if (r) { /* `data` may be another file by now */
		closep(&fd);
		closep(&folder);
		folder = fd = -1;
		return remove_of(dir, store, id, end);
	}
	error_quote(quoted, sizeof(quoted), store);
	if (read_head(fd, &h) < 0 || strcmp(h.store, quoted) || (end < OURS && id && h.id != id))
		return -ENOENT;
	r = each_of_ours(folder, end, remove_one);
	if (!r)
		rmdir(dir); /* others may have something in it */
	return r;
}

int tier_remove(const char *dir, const char *store, uint64_t id)
{
	int r = remove_of(dir, store, id, OURS);

	return r == -ENOENT ? 0 : r;
}

int tier_forget(const char *dir, const char *store, uint64_t id)
{
	return remove_of(dir, store, id, DATA);
}

/* The log as it was ----------------------------------------------------------------------------- */

struct gens {
	uint32_t *v, n, newest;
	uint64_t id;
};

static int see_head(void *arg, const struct record_head *h)
{
	return h->pool_id == ((struct gens *)arg)->id ? 0 : -EUCLEAN;
}

static int see_segment(void *arg, uint32_t n, uint32_t gen)
{
	struct gens *g = arg;

	if (n >= g->n)
		return -EUCLEAN;
	g->v[n] = gen;
	g->newest = n;
	return 0;
}

static int why_journal(const struct tier *t, int r, const char *file, char **ret_why)
{
	if (r == -EPROTONOSUPPORT)
		return why_data(t, r, ret_why);
	return why(ret_why, r == -ENOENT ? -EUCLEAN : r, "disk %s: %s: %s. " FRESH_HINT, t->path,
		   file ? file : "its journal",
		   r == -EUCLEAN ? "is not what slicefs writes, or damaged" : error_text(r));
}

static int open_log(struct tier *t, char **ret_why)
{
	_cleanup_(freep) uint32_t *v = calloc(t->nsegments, sizeof(*v));
	_cleanup_(freep) char *file = NULL;
	struct gens g = { v, t->nsegments, 0, t->head.pool_id };
	const struct record_visitor visitor = { .head = see_head, .segment = see_segment, .arg = &g };

	if (!v)
		return -ENOMEM;
	int r = t->is_new ? 0 : journal_read(t->dir, &visitor, &t->found, &file);
	if (r < 0)
		return why_journal(t, r, file, ret_why);
	if (!t->found.next)
		t->found.next = 1;
	bool used = t->found.head.version;
	for (uint32_t i = 0; used && i < t->nsegments; i++)
		if (!v[i])
			return why_journal(t, -EUCLEAN, NULL, ret_why);
	if (t->found.torn)
		log_info("disk", "%s: the end of its journal was cut off, which is what a power loss "
			 "leaves", t->path);
	if (!used && t->found.next > 1)
		log_warn("disk", "%s: its journal has no rows to go on from, as when it failed, or its "
			 "first start did: what is on the disk is there as far as memory knows of it",
			 t->path);
	t->is_new = !used;
	return tier_log_new(t->head.pool_id, t->nsegments, t->segment_pages, used ? v : NULL,
			    used ? g.newest : t->nsegments - 1, &t->log);
}

int tier_open(const struct tier_opts *o, struct tier **ret, char **ret_why)
{
	struct tier *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->dir = t->fd = -1;
	t->faults = o->faults;
	t->wait_ms = o->wait_ms ? o->wait_ms : WAIT_MS;
	t->end_ms = o->end_ms ? o->end_ms : END_MS;
	t->path = strdup(o->dir);
	int r = t->path ? open_dir(t, ret_why) : -ENOMEM;
	if (!r)
		r = open_data(t, o, ret_why);
	if (!r)
		r = open_log(t, ret_why);
	if (r < 0) {
		tier_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

/* After memory was lost ------------------------------------------------------------------------ */

enum {
	FILL_ROWS = 256,
	FILL_MOST = 90, /* percent of the index, where it is too small: others need some, too */
};

/* Rows are written many at a time, in the order in which they came. */
struct fill {
	struct tier *t;
	struct kv *kv;
	struct kv_write writes[FILL_ROWS];
	size_t at[FILL_ROWS]; /* where key and value begin in `bytes` */
	uint32_t n;
	struct writer bytes;
	uint64_t dropped, no_room;
};

static int write_rows(struct fill *f, const struct kv_write *v, uint32_t n, bool reserve)
{
	struct kv_req req = { .writes = v, .nwrites = n, .reserve = reserve };
	int r = n ? kv_wait(f->kv, &req) : 0;

	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static bool is_full(struct fill *f)
{
	struct kv_stat s = { 0 };

	return !f->kv->ops->stat(f->kv, &s) && s.used_bytes > s.room_bytes / 100 * FILL_MOST;
}

/* What has no room is not there, nor what was there before it. */
static int write_what_fits(struct fill *f)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < f->n; i++) {
		const struct kv_write *w = &f->writes[i], del = { w->key, BYTES_NONE };
		r = w->value.len && !is_full(f) ? write_rows(f, w, 1, false) : -ENOSPC;
		if (r != -ENOSPC)
			continue;
		f->no_room += w->value.len != 0;
		r = write_rows(f, &del, 1, true);
	}
	return r;
}

static int fill_write(struct fill *f)
{
	if (f->bytes.bad)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->n; i++) {
		struct kv_write *w = &f->writes[i];
		w->key.p = f->bytes.p + f->at[i];
		if (w->value.len)
			w->value.p = f->bytes.p + f->at[i] + w->key.len;
	}
	int r = is_full(f) ? -ENOSPC : write_rows(f, f->writes, f->n, false);
	if (r == -ENOSPC)
		r = write_what_fits(f);
	f->n = 0;
	f->bytes.len = 0;
	return r;
}

static int fill_row(struct fill *f, struct bytes key, struct bytes value)
{
	int r = f->n == FILL_ROWS || f->bytes.len + key.len + value.len > 512 << 10 ?
		fill_write(f) : 0;

	if (r < 0)
		return r;
	f->at[f->n] = f->bytes.len;
	f->writes[f->n++] = (struct kv_write){ { NULL, key.len }, { NULL, value.len } };
	write_bytes(&f->bytes, key.p, key.len);
	write_bytes(&f->bytes, value.p, value.len);
	return 0;
}

static int fill_put(void *arg, struct bytes key, struct bytes value)
{
	return fill_row(arg, key, value);
}

static int fill_del(void *arg, struct bytes key)
{
	return fill_row(arg, key, BYTES_NONE);
}

static int is_stale(void *arg, const struct extent *x)
{
	struct fill *f = arg;
	struct slice_run s = { { x->slice, x->gen }, x->slice_pages };

	return x->pool_id != f->t->head.pool_id || tier_log_check(f->t->log, &s) < 0;
}

/* What has been written over is not there. What of it is left is for the index's check. */
static int drop_stale(void *arg, const struct kv_row *row)
{
	struct fill *f = arg;

	if (!index_row_extents(row->key, row->value, is_stale, f))
		return 0;
	f->dropped++;
	return fill_row(f, row->key, BYTES_NONE);
}

int tier_fill(struct tier *t, struct kv *kv, char **ret_why)
{
	struct fill *f = calloc(1, sizeof(*f));
	const struct record_visitor v = { .put = fill_put, .del = fill_del, .arg = f };
	_cleanup_(freep) char *file = NULL;

	if (!f)
		return -ENOMEM;
	f->t = t;
	f->kv = kv;
	int r = journal_read(t->dir, &v, &t->found, &file);
	if (!r)
		r = fill_write(f);
	for (const char *kind = "DEF"; !r && *kind; kind++) {
		r = index_rows(kv, *kind, drop_stale, f);
		if (!r)
			r = fill_write(f);
	}
	if (f->dropped)
		log_info("disk", "%s: %" PRIu64 " records of what has been written over were dropped",
			 t->path, f->dropped);
	if (f->no_room)
		log_warn("disk", "%s: the index has no room for %" PRIu64 " records of what is on it, "
			 "which is gone. Try: a larger --index-size", t->path, f->no_room);
	writer_fini(&f->bytes);
	free(f);
	return r < 0 ? why_journal(t, r, file, ret_why) : 0;
}

int tier_adopt(struct tier *t, const struct extent *x, uint64_t fileid)
{
	struct slice_run s = { { x->slice, x->gen }, x->slice_pages };

	return tier_log_adopt(t->log, &s, fileid);
}

/* ------------------------------------------------------------------------------------------------- */

int tier_begin(struct tier *t, struct engine *e, char **ret_why)
{
	struct journal_opts o = {
		.dir = t->dir, .data = t->fd, .kv = index_kv(e->ix), .log = t->log,
		.head = t->head, .faults = t->faults, .answered_ns = &t->answered_ns,
	};

	t->e = e;
	o.head.fs_id = index_super(e->ix)->fs_id;
	o.head.number = t->found.next;
	int r = tier_out_begin(t);
	if (r == -ENOSYS || r == -EPERM)
		return why(ret_why, r, "disk %s: this kernel does not let us use io_uring: %s. Try: "
			   "sysctl kernel.io_uring_disabled=0, or without --ssd", t->path,
			   error_text(r));
	if (!r)
		r = journal_open(&o, &t->journal);
	if (!r)
		r = tier_back_begin(t);
	if (r < 0)
		return why(ret_why, r, "disk %s: cannot begin with it: %s. Try: a look at the disk",
			   t->path, error_text(r));
	t->made_data = false;
	struct tier_space s;
	tier_space(t, &s);
	log_info("disk", "%s: %s, %s in use", t->path, size_text(s.total_bytes).s,
		 size_text(s.live_bytes).s);
	return 0;
}

void tier_set_calls(struct tier *t, const struct tier_calls *c)
{
	t->calls = *c;
}

void tier_ending(struct tier *t)
{
	if (t)
		atomic_store(&t->ending_ns, clock_ns());
}

void tier_stop(struct tier *t)
{
	if (!t)
		return;
	tier_back_end(t);
	tier_out_end(t);
}

void tier_end(struct tier *t)
{
	if (!t)
		return;
	while (t->journal && !journal_end(t->journal, tier_next_look()))
		tier_waits(t);
	journal_close(t->journal);
	t->journal = NULL;
}

void tier_free(struct tier *t)
{
	if (!t)
		return;
	tier_stop(t);
	tier_end(t);
	tier_log_free(t->log);
	int r = t->is_aside ? put_back(t->dir) : 0;
	if (r < 0)
		log_warn("disk", "%s: what was moved aside could not be put back: %s. Try: a start "
			 "without --fresh, which does", t->path, error_text(r));
	if (!t->is_aside && t->made_data && t->dir >= 0) { /* and never begun with */
		unlinkat(t->dir, "data", 0);
		if (t->made_dir)
			rmdir(t->path);
	}
	if (t->fd >= 0)
		close(t->fd);
	if (t->dir >= 0)
		close(t->dir);
	free(t->path);
	free(t);
}

void tier_space(struct tier *t, struct tier_space *ret)
{
	struct tier_log_stat st;

	tier_log_stat(t->log, &st);
	*ret = (struct tier_space){ st.pages * PAGE_BYTES, st.live * PAGE_BYTES };
	metric_set(M_DISK_BYTES, (int64_t)ret->live_bytes);
	metric_set(M_DISK_SIZE, (int64_t)ret->total_bytes);
}

int tier_check(struct tier *t, struct writer *report)
{
	return tier_log_check_all(t->log, report);
}
