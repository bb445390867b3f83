/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store's folder.
 *
 *	DIR/store.lock      locked while a process uses it; its pid
 *	DIR/store.txt       format, kind of memory, boot in which it was made
 *	DIR/mem/            as root: a tmpfs of its own with huge pages, DATA;
 *	                    else DATA is DIR
 *	DATA/current/       pool.0, index.lmdb, index.lmdb-lock, sizes.txt; disk.txt: where its
 *	                    disk is and its id, if it has one (tier.h; once it was DIR/disk.txt,
 *	                    without the id)
 *	DATA/new/           the same while they are being made
 *	DATA/old-TIME/      what `fresh` replaced
 *
 * The hard idea: a store comes and goes by renaming a folder, so that a process
 * that dies at any moment leaves a whole store or none. `new` was never used and
 * is removed by the next one; `current` and `old-TIME` are never removed but by
 * store_remove() or the user.
 *
 * Pool and index have one life: both are memory, both outlive a process and
 * neither a reboot. A tmpfs that is not mounted any more is therefore an empty
 * store after a reboot, and damage before it. Files on a disk do outlive a
 * reboot, but were never synced: they are refused then.
 *
 * Threads: a store belongs to whoever opened it.
 */
#include "engine/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/folder.h"
#include "engine/lockfile.h"
#include "engine/memory.h"
#include "engine/sizes.h"
#include "engine/tier.h"

#define MIB (1ULL << 20)

enum {
	STORE_FORMAT = 1,
	BOOT_MAX = 40,
};

#define FRESH_HINT "Try: slicefs fsck, or slicefs mount --fresh, which keeps the old contents aside"

struct store {
	char *dir, *data;
	const char *folder; /* "current", or "new" until it is committed */
	int lock_fd;
	struct sizes sizes;
	bool is_new;              /* to be made */
	char *replaces;           /* the folder that goes aside then, or NULL */
	bool made_dir, mounted;   /* what an undo has to undo */
	uint64_t resized_from;    /* the tmpfs, for the undo; 0: it was not */
};

bool store_is_new(const struct store *s) { return s->is_new; }
uint64_t store_pool_bytes(const struct store *s) { return s->sizes.pool_bytes; }
uint64_t store_index_bytes(const struct store *s) { return s->sizes.index_bytes; }
const char *store_dir(const struct store *s) { return s->dir; }

char *store_path(const struct store *s, const char *file)
{
	char *p;

	return asprintf(&p, "%s/%s/%s", s->data, s->folder, file) < 0 ? NULL : p;
}

/* store.txt and sizes.txt ----------------------------------------------------- */

struct made {
	char memory[8]; /* "tmpfs" or "plain" */
	char boot[BOOT_MAX];
};

static void boot_id(char ret[BOOT_MAX])
{
	_cleanup_(fclosep) FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (!f || fscanf(f, "%39s", ret) != 1)
		strcpy(ret, "unknown");
}

/* Reads "slicefs WHAT FORMAT\n" and then two more values. */
static int read_text(const char *folder, const char *file, const char *head,
		     const char *fmt, void *ret_a, void *ret_b)
{
	_cleanup_(freep) char *path = folder_join(folder, file);
	if (!path)
		return -ENOMEM;
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	if (!f)
		return -errno;

	char what[16];
	unsigned format;
	if (fscanf(f, "slicefs %15s %u ", what, &format) != 2 || strcmp(what, head))
		return -EUCLEAN;
	if (format > STORE_FORMAT)
		return -EPROTONOSUPPORT;
	return fscanf(f, fmt, ret_a, ret_b) == 2 ? 0 : -EUCLEAN;
}

static int read_made(const char *dir, struct made *ret)
{
	return read_text(dir, "store.txt", "store", "memory %7s boot %39s",
			 ret->memory, ret->boot);
}

static int read_sizes(const char *data, struct sizes *ret)
{
	unsigned long long pool, index;
	int r = read_text(data, "current/sizes.txt", "sizes", "pool %llu index %llu",
			  &pool, &index);
	if (r < 0)
		return r;
	*ret = (struct sizes){ .pool_bytes = pool, .index_bytes = index };
	return 0;
}

static int take_lock(struct store *s, bool create, char **ret_why)
{
	_cleanup_(freep) char *path = folder_join(s->dir, "store.lock");
	struct lockfile_owner owner = { 0 };
	int r = path ? lockfile_take(path, create, &s->lock_fd, &owner) : -ENOMEM;

	if (r == -EBUSY && *owner.serves)
		return why(ret_why, r, "store %s: in use by process %d, which serves it at %s. "
			   "Try: kill %d, which ends it in order", s->dir, (int)owner.pid,
			   owner.serves, (int)owner.pid);
	if (r == -EBUSY && owner.pid)
		return why(ret_why, r, "store %s: in use by process %d. Try: slicefs status, "
			   "or slicefs umount", s->dir, (int)owner.pid);
	if (r == -EBUSY)
		return why(ret_why, r, "store %s: in use by another process. Try: slicefs status",
			   s->dir);
	if (r == -ENOENT)
		return why(ret_why, r, "store %s: there is none. Try: slicefs store ls", s->dir);
	if (r < 0)
		return why(ret_why, r, "store %s: cannot lock store.lock: %s. "
			   "Try: as the user who mounted it, or as root", s->dir, error_text(r));
	return 0;
}

/* What is there --------------------------------------------------------------- */

/* Where the files are, or would be without a tmpfs of our own. */
static int find_data(const char *dir, char **ret_data, char **ret_current)
{
	_cleanup_(freep) char *mem = folder_join(dir, "mem"), *data = strdup(dir);
	if (!mem || !data)
		return -ENOMEM;

	if (memory_is_mounted(mem) && (folder_has(mem, "current") || !folder_has(dir, "current"))) {
		free(data);
		data = steal(&mem);
	}
	char *current = NULL;
	if (folder_has(data, "current") && !(current = folder_join(data, "current")))
		return -ENOMEM;
	*ret_current = current;
	*ret_data = steal(&data);
	return 0;
}

static bool is_volatile(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Is one of the files missing or cut short? */
static int check_files(const char *dir, const char *data, const struct sizes *sizes,
		       char **ret_why)
{
	const struct {
		const char *name;
		uint64_t bytes;
	} files[] = { { STORE_POOL, sizes->pool_bytes }, { STORE_INDEX, sizes->index_bytes } };

	for (unsigned i = 0; i < 2; i++) {
		_cleanup_(freep) char *path = NULL;
		struct stat st;
		if (asprintf(&path, "%s/current/%s", data, files[i].name) < 0)
			return -ENOMEM;
		if (stat(path, &st))
			return why(ret_why, errno == ENOENT ? -EUCLEAN : -errno,
				   "store %s: %s: %s. " FRESH_HINT, dir, path,
				   error_text(errno));
		if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < files[i].bytes)
			return why(ret_why, -EUCLEAN,
				   "store %s: %s was cut short: it has %llu bytes of %llu. "
				   FRESH_HINT, dir, path, (unsigned long long)st.st_size,
				   (unsigned long long)files[i].bytes);
	}
	return 0;
}

/*
 * Can what is there be taken up again? 1: there is nothing (any more); 0, and
 * its sizes; negative: damaged, foreign, newer.
 */
static int examine(const char *dir, const char *data, bool has_current,
		   struct sizes *ret, char **ret_why)
{
	struct made m;
	char boot[BOOT_MAX];
	int r = read_made(dir, &m);

	boot_id(boot);
	if (!has_current && (r == -ENOENT || (!r && strcmp(m.boot, boot))))
		return 1;
	if (!has_current && !r && (!strcmp(data, dir) && !strcmp(m.memory, "tmpfs")))
		return why(ret_why, -EUCLEAN, "store %s: its memory is not mounted at %s/mem: "
			   "it was unmounted, or made in another mount namespace. Try: "
			   "slicefs mount --fresh", dir, dir);
	if (!has_current && !r)
		return 1;
	if (!r)
		r = read_sizes(data, ret);
	if (r == -EPROTONOSUPPORT)
		return why(ret_why, r, "store %s: made by a newer slicefs than this one (%s). "
			   "Try: that one, or slicefs mount --fresh, which keeps the old "
			   "contents aside", dir, SLICEFS_VERSION);
	if (r == -ENOENT || r == -EUCLEAN)
		return why(ret_why, -EUCLEAN, "store %s: store.txt or %s/current/sizes.txt is "
			   "%s. " FRESH_HINT, dir, data,
			   r == -ENOENT ? "missing" : "not what slicefs writes");
	if (r < 0)
		return why(ret_why, r, "store %s: cannot read it: %s. Try: as the user who "
			   "mounted it, or as root", dir, error_text(r));
	if (strcmp(m.boot, boot) && !is_volatile(data))
		return why(ret_why, -EUCLEAN, "store %s: was in use before the machine was "
			   "started again, and its files are on a disk that was not synced. Try: "
			   "slicefs mount --fresh, which keeps the old contents aside", dir);
	return check_files(dir, data, ret, ret_why);
}

/* A size that the user asked for must be the one that is there. */
static int same_size(const struct store *s, const char *what, uint64_t asked,
		     uint64_t there, char **ret_why)
{
	if (!asked || asked == there)
		return 0;
	return why(ret_why, -EINVAL, "store %s: its %s has %llu MiB, and %llu MiB were asked for. "
		   "Try: without --%s-size, or with --fresh, which keeps the old contents "
		   "aside", s->dir, what, (unsigned long long)(there / MIB),
		   (unsigned long long)(asked / MIB), what);
}

/* What is to be made ------------------------------------------------------------- */

/* A tmpfs of our own, or a larger one if there is something in it to keep. */
static int provide_tmpfs(struct store *s)
{
	_cleanup_(freep) char *mem = folder_join(s->dir, "mem");
	uint64_t bytes = sizes_total(&s->sizes);
	bool huge = true;
	struct statvfs v;

	if (!mem)
		return -ENOMEM;
	if (memory_is_mounted(mem)) {
		if (statvfs(mem, &v))
			return -errno;
		uint64_t was = (uint64_t)v.f_blocks * v.f_frsize;
		uint64_t used = was - (uint64_t)v.f_bfree * v.f_frsize;
		int r = memory_resize(mem, used + bytes);
		if (r < 0)
			return r;
		s->resized_from = was;
		free(s->data);
		s->data = steal(&mem);
		return 0;
	}
	if (mkdir(mem, 0700) && errno != EEXIST)
		return -errno;
	int r = memory_mount(mem, bytes, &huge);
	if (r < 0) {
		rmdir(mem);
		return r;
	}
	s->mounted = true;
	free(s->data);
	s->data = steal(&mem);
	if (!huge)
		log_info("store", "%s: this kernel has no huge pages for tmpfs; going on without",
			 s->dir);
	return 0;
}

static int refuse_second_old(const struct store *s, char **ret_why)
{
	_cleanup_(freep) char *old = NULL;
	int r = folder_find(s->data, "old-", &old);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return why(ret_why, r, "store %s: cannot read it: %s", s->dir, error_text(r));
	return why(ret_why, -EEXIST, "store %s: old contents are kept already, in %s/%s, and only "
		   "one set is. Try: rm -r %s/%s", s->dir, s->data, old, s->data, old);
}

/* Of one that died while it made a store: they may hold much memory. */
static void remove_leftovers(const char *dir)
{
	_cleanup_(freep) char *mem = folder_join(dir, "mem");

	folder_remove(dir, "new");
	if (mem && memory_is_mounted(mem))
		folder_remove(mem, "new");
}

static int prepare_new(struct store *s, const struct engine_opts *o, char **ret_why)
{
	int r = s->replaces ? refuse_second_old(s, ret_why) : 0;

	remove_leftovers(s->dir);
	if (!r)
		r = sizes_choose(o, s->replaces, &s->sizes, ret_why);
	if (r < 0)
		return r;
	if (o->huge || strcmp(s->data, s->dir)) {
		r = provide_tmpfs(s);
		if (r < 0)
			log_warn("store", "%s: cannot mount a tmpfs with huge pages: %s; using plain "
				 "files, which is slower", s->dir, error_text(r));
	}
	r = sizes_fit(o, s->data, &s->sizes, ret_why);
	if (r < 0)
		return r;
	s->folder = "new";
	s->is_new = true;
	_cleanup_(freep) char *folder = folder_join(s->data, s->folder);
	if (!folder)
		return -ENOMEM;
	if (mkdir(folder, 0700))
		return why(ret_why, -errno, "store %s: cannot make %s: %s", s->dir, folder,
			   error_text(errno));
	return 0;
}

/* Calls ------------------------------------------------------------------------ */

static int enter_dir(struct store *s, bool create, char **ret_why)
{
	struct stat st;
	int r = create ? folder_make(s->dir) : -EEXIST;

	s->made_dir = r == 0;
	if (r < 0 && r != -EEXIST)
		return why(ret_why, r, "cannot make the store's folder %s: %s. Try: as root, or "
			   "with --store at another place", s->dir, error_text(r));
	if (stat(s->dir, &st))
		return why(ret_why, -errno, "store %s: %s. Try: slicefs store ls", s->dir,
			   error_text(errno));
	if (!S_ISDIR(st.st_mode))
		return why(ret_why, -ENOTDIR, "store %s: is not a folder. Try: --store with "
			   "another name", s->dir);
	/* In /dev/shm anybody may have made it. */
	if (geteuid() && st.st_uid != geteuid())
		return why(ret_why, -EACCES, "store %s: belongs to user %u, not to you (%u). "
			   "Try: --store with another name", s->dir, (unsigned)st.st_uid,
			   (unsigned)geteuid());
	return 0;
}

/* Somebody may remove the store between the two: then there is none, once more. */
static int enter_and_lock(struct store *s, bool create, char **ret_why)
{
	int r = -ENOENT;

	for (unsigned tries = 0; r == -ENOENT && tries < (create ? 100 : 1); tries++) {
		r = enter_dir(s, create, ret_why);
		if (!r)
			r = take_lock(s, create, ret_why);
	}
	return r;
}

static int use_current(struct store *s, const struct engine_opts *o, char **ret_why)
{
	int r = same_size(s, "pool", sizes_pool(o->pool_bytes), s->sizes.pool_bytes, ret_why);

	if (!r)
		r = same_size(s, "index", sizes_index(o->index_bytes), s->sizes.index_bytes, ret_why);
	if (!r && o->huge && !strcmp(s->data, s->dir))
		log_info("store", "%s: made without huge pages; slicefs mount --fresh makes it "
			 "anew", s->dir);
	return r;
}

int store_open(const struct engine_opts *o, struct store **ret, char **ret_why)
{
	struct store *s = calloc(1, sizeof(*s));
	bool create = !o->read_only && !o->repair;
	int r = -ENOMEM;

	if (!s)
		return r;
	s->lock_fd = -1;
	s->folder = "current";
	s->dir = strdup(o->dir);
	if (s->dir && !(r = enter_and_lock(s, create, ret_why)) &&
	    !(r = find_data(s->dir, &s->data, &s->replaces))) {
		if (!o->fresh)
			r = examine(s->dir, s->data, s->replaces, &s->sizes, ret_why);
		if (!o->fresh && !r)
			r = use_current(s, o, ret_why);
		else if (r >= 0 && create)
			r = prepare_new(s, o, ret_why);
		else if (r >= 0)
			r = why(ret_why, -ENOENT, "store %s: there is nothing in it", s->dir);
	}
	if (r < 0) {
		store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* Its disk ------------------------------------------------------------------- */

struct note {
	char *file;          /* it is in that one; NULL: there is none */
	char path[PATH_MAX]; /* of the disk */
	uint64_t id;         /* 0: it is not known */
};

static void note_fini(struct note *n)
{
	free(n->file);
}

static int read_note(struct note *n)
{
	char id[32];
	_cleanup_(fclosep) FILE *f = fopen(n->file, "re");

	if (!f)
		return -errno;
	if (!fgets(n->path, sizeof(n->path), f) || *n->path == '\n')
		return -ENOENT;
	n->path[strcspn(n->path, "\n")] = 0;
	if (!fgets(id, sizeof(id), f) || sscanf(id, "id %" SCNx64, &n->id) != 1)
		n->id = 0;
	return 0;
}

/* Of the store that is there, not of one that is being made. `ret` is empty, and remains so if
 * there is none. */
static int find_note(const char *dir, struct note *ret)
{
	_cleanup_(freep) char *data = NULL, *current = NULL;
	int r = find_data(dir, &data, &current);

	if (r < 0)
		return r;
	const char *folders[] = { current, dir };
	for (unsigned i = 0; i < 2; i++) {
		ret->file = folders[i] ? folder_join(folders[i], "disk.txt") : NULL;
		if (folders[i] && !ret->file)
			return -ENOMEM;
		r = ret->file ? read_note(ret) : -ENOENT;
		if (r != -ENOENT)
			return r;
		free(steal(&ret->file));
	}
	return 0;
}

static int write_note(struct store *s, const char *path, uint64_t id)
{
	_cleanup_(freep) char *folder = folder_join(s->data, s->folder), *text = NULL;

	if (!folder || asprintf(&text, "%s\nid %016" PRIx64 "\n", path, id) < 0)
		return -ENOMEM;
	return folder_write_text(folder, "disk.txt", text);
}

static void remove_old_note(struct store *s)
{
	_cleanup_(freep) char *note = folder_join(s->dir, "disk.txt");

	if (note)
		unlink(note);
}

int store_note_disk(struct store *s, const char *path, uint64_t id)
{
	int r = write_note(s, path, id);

	if (!r && !s->is_new)
		remove_old_note(s);
	return r;
}

/* What is made without a disk keeps in mind the one of what it replaces: it goes with the store. */
static int hand_on_note(struct store *s)
{
	_cleanup_(note_fini) struct note n = { 0 };
	_cleanup_(freep) char *folder = folder_join(s->data, s->folder);
	int r = folder ? find_note(s->dir, &n) : -ENOMEM;

	return r || !n.file || folder_has(folder, "disk.txt") ? r : write_note(s, n.path, n.id);
}

int store_disk(const struct store *s, uint64_t *ret_id)
{
	_cleanup_(note_fini) struct note n = { 0 };
	int r = find_note(s->dir, &n);

	if (!r)
		*ret_id = n.id;
	return r;
}

/* One that is not there any more is no error, nor another store's. */
static int remove_disk(const char *dir)
{
	_cleanup_(note_fini) struct note n = { 0 };
	int r = find_note(dir, &n);

	return r || !n.file ? r : tier_remove(n.path, dir, n.id);
}

static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int store_forget_disk(struct store *s, uint64_t id, const char *now, char **ret_why)
{
	_cleanup_(note_fini) struct note n = { 0 };
	int r = find_note(s->dir, &n);

	if (!r && n.file)
		r = now && is_same(n.path, now) ? -ENOENT :
						  tier_forget(n.path, s->dir, n.id ? n.id : id);
	if (r < 0)
		return why(ret_why, r, "store %s: the disk that it had, in %s, %s%s: after a reboot "
			   "what has a copy there could be as it is now. Try: a start when it is "
			   "there, without --ssd or with it; or, if it is gone for good, rm %s and "
			   "another start", s->dir, n.file ? n.path : "a folder that is not known",
			   r == -ENOENT ? "is not there" : "cannot be made to forget: ",
			   r == -ENOENT ? "" : error_text(r), n.file ? n.file : "disk.txt");
	return 0;
}

/* ------------------------------------------------------------------------------ */

static int write_texts(struct store *s)
{
	_cleanup_(freep) char *folder = folder_join(s->data, s->folder);
	char text[160], boot[BOOT_MAX];

	if (!folder)
		return -ENOMEM;
	snprintf(text, sizeof(text), "slicefs sizes %d\npool %llu\nindex %llu\n", STORE_FORMAT,
		 (unsigned long long)s->sizes.pool_bytes, (unsigned long long)s->sizes.index_bytes);
	int r = folder_write_text(folder, "sizes.txt", text);
	if (r < 0)
		return r;
	boot_id(boot);
	snprintf(text, sizeof(text), "slicefs store %d\nmemory %s\nboot %s\n", STORE_FORMAT,
		 strcmp(s->data, s->dir) ? "tmpfs" : "plain", boot);
	return folder_write_text(s->dir, "store.txt", text);
}

/* DATA/current becomes DATA/old-TIME, where DATA may not be where the new one is. */
static int move_aside(struct store *s)
{
	_cleanup_(freep) char *data = strndup(s->replaces, strlen(s->replaces) - strlen("/current"));
	time_t now = time(NULL);
	char old[32];
	struct tm tm;

	if (!data)
		return -ENOMEM;
	strftime(old, sizeof(old), "old-%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
	int r = folder_rename(data, "current", old);
	if (!r)
		log_info("store", "%s: the old contents are in %s/%s; rm -r gives their memory "
			 "back", s->dir, data, old);
	return r;
}

int store_commit(struct store *s, char **ret_why)
{
	int r = write_texts(s);
	if (!r)
		r = hand_on_note(s);
	if (!r && s->replaces)
		r = move_aside(s);
	if (!r)
		r = folder_rename(s->data, "new", "current");
	if (r < 0)
		return why(ret_why, r, "store %s: cannot write to it: %s", s->dir, error_text(r));
	crash_point(CRASH_STORE_COMMITTED);
	remove_old_note(s);
	s->folder = "current";
	s->is_new = s->made_dir = s->mounted = false;
	s->resized_from = 0;
	return 0;
}

static void undo(struct store *s)
{
	if (s->is_new && s->data)
		folder_remove(s->data, "new");
	if (s->mounted) {
		memory_unmount(s->data);
		rmdir(s->data);
	}
	if (s->resized_from)
		memory_resize(s->data, s->resized_from);
	/* Without the lock it is somebody else's by now. */
	if (s->made_dir && s->lock_fd >= 0) {
		_cleanup_(freep) char *lock = folder_join(s->dir, "store.lock");
		if (lock)
			unlink(lock);
		rmdir(s->dir);
	}
}

int store_note_served(struct store *s, const char *where)
{
	return lockfile_note(s->lock_fd, where);
}

struct store *store_free(struct store *s)
{
	if (!s)
		return NULL;
	undo(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->dir);
	free(s->data);
	free(s->replaces);
	free(s);
	return NULL;
}

int engine_store_stat(const char *dir, struct store_stat *ret)
{
	_cleanup_(freep) char *lock = folder_join(dir, "store.lock"), *data = NULL, *current = NULL;
	struct store_stat st = { .state = STORE_NONE };
	struct sizes sizes = { 0 };

	if (!lock)
		return -ENOMEM;
	if (access(dir, R_OK | X_OK))
		return -errno;
	int r = find_data(dir, &data, &current);
	if (r < 0)
		return r;
	r = examine(dir, data, current, &sizes, NULL);
	if (r < 0)
		st.state = STORE_DAMAGED;
	else if (r == 0)
		st.state = STORE_STOPPED;
	st.pool_bytes = sizes.pool_bytes;
	st.index_bytes = sizes.index_bytes;

	_cleanup_(closep) int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 && lockfile_is_taken(fd)) {
		struct lockfile_owner owner = lockfile_owner(fd);

		st.state = STORE_RUNNING;
		st.pid = owner.pid;
		st.ends = owner.ends;
		memcpy(st.serves, owner.serves, sizeof(st.serves));
	}
	*ret = st;
	return 0;
}

int engine_store_await(const char *dir, struct store_stat *ret)
{
	uint64_t until = clock_ns() + LOCKFILE_END_MS * NS_PER_MS;
	int r;

	while (!(r = engine_store_stat(dir, ret)) && ret->ends && clock_ns() < until)
		usleep(1000);
	return r;
}

/* Everything in data that is ours. */
static int remove_contents(const char *data)
{
	_cleanup_(freep) char *old = NULL;
	int r = folder_remove(data, "current"), r2 = folder_remove(data, "new");

	if (!r)
		r = r2;
	while (!r && !(r2 = folder_find(data, "old-", &old))) {
		r = folder_remove(data, old);
		free(steal(&old));
	}
	return r;
}

int engine_store_remove(const char *dir, bool disk)
{
	_cleanup_(freep) char *mem = folder_join(dir, "mem"), *text = folder_join(dir, "store.txt"),
			      *lock = folder_join(dir, "store.lock"),
			      *note = folder_join(dir, "disk.txt");
	_cleanup_(closep) int fd = -1;
	struct lockfile_owner owner;

	if (!mem || !text || !lock || !note)
		return -ENOMEM;
	if (access(dir, F_OK))
		return -errno;
	int r = lockfile_take(lock, true, &fd, &owner);
	if (r < 0)
		return r;
	r = disk ? remove_disk(dir) : 0;
	if (r < 0)
		return r;
	if (memory_is_mounted(mem)) {
		/* First the files: the memory is to come back even if somebody
		 * keeps the mount busy. */
		r = remove_contents(mem);
		int r2 = memory_unmount(mem);
		if (r < 0 || r2 < 0)
			return r < 0 ? r : r2;
	}
	r = remove_contents(dir);
	if (r < 0)
		return r;
	rmdir(mem);
	unlink(text);
	unlink(note);
	unlink(lock);
	return rmdir(dir) && errno != ENOTEMPTY && errno != EBUSY ? -errno : 0;
}
