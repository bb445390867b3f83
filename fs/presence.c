/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which directories of this mount processes stand in, or have open: the eviction takes an empty
 * directory away that has not been used for long (--evict-dirs), and neither the kernel nor the
 * index says whether somebody is there. So now and then this mount looks for itself, at what
 * /proc says of working directories, roots and open files, and sets the time of reading of those
 * that it finds. A mount that may not look into a process (another user's) does not see where
 * that one is.
 *
 * It asks for what the kernel has in its memory only (AT_STATX_DONT_SYNC): so no file system
 * that hangs can hold it up, nor is it one of its own requests.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/dir.h"
#include "fs/priv.h"

enum {
	FOUND_MAX = 4096,
	TELL_MS = 2000,          /* for all of them: an end is not seen meanwhile (fs_run()) */
};

struct found {
	uint32_t major, minor;   /* of this mount */
	uint64_t *v;             /* fileids */
	size_t n, cap;
};

static bool look(int at, const char *path, struct statx *ret)
{
	return !statx(at, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, ret);
}

static void look_at(struct found *f, int at, const char *path)
{
	struct statx st;

	if (!look(at, path, &st) || !S_ISDIR(st.stx_mode) || st.stx_dev_major != f->major ||
	    st.stx_dev_minor != f->minor || st.stx_ino == INDEX_ROOT || f->n == FOUND_MAX)
		return;
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i] == st.stx_ino)
			return;
	if (!array_room(f->v, f->cap, f->n + 1, 16))
		f->v[f->n++] = st.stx_ino;
}

/* /proc/PID, of which `at` is open. */
static void look_into(struct found *f, int at)
{
	look_at(f, at, "cwd");
	look_at(f, at, "root");
	_cleanup_(closedirp) DIR *d = dir_open_at(at, "fd", 0);

	for (struct dirent *e; d && (e = readdir(d));)
		if (isdigit((unsigned char)e->d_name[0]))
			look_at(f, dirfd(d), e->d_name);
}

static void look_around(struct found *f)
{
	_cleanup_(closedirp) DIR *d = opendir("/proc");

	for (struct dirent *e; d && (e = readdir(d));) {
		_cleanup_(closep) int at = isdigit((unsigned char)e->d_name[0]) ?
			openat(dirfd(d), e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
		if (at >= 0)
			look_into(f, at);
	}
}

/* Its time of reading is now; not more often than `every_ms`. */
static void is_used(struct fs *fs, uint64_t dir, uint64_t every_ms, uint64_t until_ns)
{
	struct index_op op = { .fileid = dir, .place = { .kind = PLACE_FILEID },
			       .call.deadline_ns = until_ns };
	struct timespec now = clock_now();
	int r = index_wait(fs->ix, &op, index_stat);
	struct index_access a = { dir, op.entry.place, op.entry.attr.atime, now };

	index_op_fini(&op);
	if (r || !S_ISDIR(op.entry.attr.mode) ||
	    (uint64_t)(now.tv_sec - a.before.tv_sec) * 1000 + 1000 <= every_ms)
		return;
	op = (struct index_op){ .accesses = &a, .naccesses = 1, .call.deadline_ns = until_ns };
	index_wait(fs->ix, &op, index_accessed);
	index_op_fini(&op);
}

static uint64_t dirs_ms(struct fs *fs)
{
	struct engine_space s;

	engine_space(fs->engine, &s);
	return s.evict_dirs_ms;
}

void presence_tell(struct fs *fs)
{
	/* A session that only reads can tell nobody. */
	bool may = !fs->read_only || engine_is_alone(fs->engine);
	uint64_t ms = may ? dirs_ms(fs) : 0;
	struct found f = { 0 };
	struct statx st;

	if (!ms || !look(AT_FDCWD, fs->dir, &st))
		return;
	f.major = st.stx_dev_major;
	f.minor = st.stx_dev_minor;
	look_around(&f);
	uint64_t until_ns = clock_ns() + TELL_MS * NS_PER_MS;
	for (size_t i = 0; i < f.n && clock_ns() < until_ns; i++)
		is_used(fs, f.v[i], engine_dirs_tell_ms(ms), until_ns);
	free(f.v);
}

unsigned presence_interval_ms(struct fs *fs)
{
	return (unsigned)engine_dirs_tell_ms(dirs_ms(fs));
}
