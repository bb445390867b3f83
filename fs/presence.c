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
#include "fs/presence.h"

#include <ctype.h>
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
	STEP_MS = 20,   /* the eviction's thread, or an end, waits for it */
	CALL_MS = 2000, /* for the index */
	ALONE = 3,      /* links of the folder of threads where there is one */
};

static bool look(int at, const char *path, struct statx *ret)
{
	return !statx(at, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		      STATX_TYPE | STATX_INO | STATX_NLINK, ret);
}

static void look_at(struct presence *p, int at, const char *path)
{
	struct statx st;

	if (!look(at, path, &st) || !S_ISDIR(st.stx_mode) || st.stx_dev_major != p->major ||
	    st.stx_dev_minor != p->minor || st.stx_ino == INDEX_ROOT ||
	    (p->n && p->dirs[p->n - 1] == st.stx_ino))
		return;
	if (!array_room(p->dirs, p->cap, p->n + 1, 16))
		p->dirs[p->n++] = st.stx_ino;
}

static int open_at(int at, const char *name)
{
	return openat(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* A thread may have said that where it stands is its own (CLONE_FS). */
static void look_at_thread(struct presence *p, int at, const char *name)
{
	_cleanup_(closep) int thread = open_at(at, name);

	look_at(p, thread, "cwd");
	look_at(p, thread, "root");
}

static void each_in(struct presence *p, int at, const char *folder,
		    void (*visit)(struct presence *p, int at, const char *name))
{
	_cleanup_(closedirp) DIR *d = dir_open_at(at, folder, 0);

	for (struct dirent *e; d && (e = readdir(d));)
		if (isdigit((unsigned char)e->d_name[0]))
			visit(p, dirfd(d), e->d_name);
}

static void look_at_process(struct presence *p, int at, const char *name)
{
	_cleanup_(closep) int process = open_at(at, name);
	struct statx st;

	if (process < 0)
		return;
	look_at(p, process, "cwd");
	look_at(p, process, "root");
	each_in(p, process, "fd", look_at);
	if (look(process, "task", &st) && st.stx_nlink > ALONE)
		each_in(p, process, "task", look_at_thread);
}

void presence_fini(struct presence *p)
{
	closedirp(&p->proc);
	free(p->dirs);
	*p = (struct presence){ 0 };
}

bool presence_begin(struct presence *p, const char *path)
{
	struct statx st;

	presence_fini(p);
	if (!look(AT_FDCWD, path, &st))
		return false;
	p->major = st.stx_dev_major;
	p->minor = st.stx_dev_minor;
	p->proc = opendir("/proc");
	return p->proc;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void end_find(struct presence *p)
{
	size_t n = 0;

	closedirp(&p->proc);
	p->proc = NULL;
	if (p->n)
		qsort(p->dirs, p->n, sizeof(*p->dirs), by_number);
	for (size_t i = 0; i < p->n; i++)
		if (!n || p->dirs[n - 1] != p->dirs[i])
			p->dirs[n++] = p->dirs[i];
	p->n = n;
}

bool presence_find(struct presence *p, uint64_t until_ns)
{
	while (p->proc) {
		struct dirent *e = readdir(p->proc);
		if (!e)
			end_find(p);
		else if (isdigit((unsigned char)e->d_name[0]))
			look_at_process(p, dirfd(p->proc), e->d_name);
		if (clock_ns() >= until_ns)
			break;
	}
	return !p->proc;
}

/* Its time of reading is now; not more often than `every_ms`. */
static void is_used(struct fs *fs, uint64_t dir, uint64_t every_ms)
{
	uint64_t until_ns = clock_ns() + CALL_MS * NS_PER_MS;
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

bool presence_tell(struct fs *fs, struct presence *p, bool begin)
{
	uint64_t until_ns = clock_ns() + STEP_MS * NS_PER_MS;
	/* A session that only reads can tell nobody. */
	bool may = !fs->read_only || engine_is_alone(fs->engine);
	uint64_t ms = may ? dirs_ms(fs) : 0;

	if (!ms || (begin && !presence_begin(p, fs->dir)))
		return true;
	if (!presence_find(p, until_ns))
		return false;
	while (p->n && clock_ns() < until_ns)
		is_used(fs, p->dirs[--p->n], engine_dirs_tell_ms(ms));
	if (p->n)
		return false;
	presence_fini(p);
	return true;
}

unsigned presence_interval_ms(struct fs *fs)
{
	return (unsigned)engine_dirs_tell_ms(dirs_ms(fs));
}
