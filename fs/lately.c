/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory in which this mount makes or removes names: after each the kernel asks for
 * its attributes again, since it checks permissions by them. Where the index is elsewhere
 * that is a round trip for each file, though nothing has changed but the times, which this
 * mount has set itself. So what the index said last of one directory is kept, with the
 * times of what was done there since.
 *
 * It is told as long as the kernel could have been told to keep it (watched.c: no ring
 * since it was asked for), but no longer than --cache. Whatever else this mount changes
 * drops it; and it is only kept if nothing was being changed while it was asked for.
 */
#include "fs/priv.h"

static bool changes_names(enum metric_op kind)
{
	switch (kind) {
	case MOP_CREATE:
	case MOP_UNLINK:
	case MOP_MKNOD:
	case MOP_MKDIR:
	case MOP_RMDIR:
	case MOP_SYMLINK:
	case MOP_RENAME:
	case MOP_LINK:
	case MOP_SETATTR:
	case MOP_SETXATTR:
	case MOP_REMOVEXATTR:
		return true;
	default:
		return false;
	}
}

/* Of the first two it is known what they change. */
static bool is_told(enum metric_op kind)
{
	return kind == MOP_CREATE || kind == MOP_UNLINK;
}

void lately_begin(struct req *q)
{
	struct lately *l = &q->fs->lately;

	if (!q->fs->watched || !changes_names(q->kind))
		return;
	q->changes = true;
	WITH_LOCK(&l->lock);
	l->busy++;
	if (!is_told(q->kind))
		l->attr.fileid = 0;
}

void lately_end(struct req *q, int err)
{
	struct lately *l = &q->fs->lately;

	if (!q->changes)
		return;
	WITH_LOCK(&l->lock);
	l->busy--;
	l->ended++;
	if (err || !is_told(q->kind))
		l->attr.fileid = 0; /* what was done in part is not known */
}

void lately_touched(struct fs *fs, uint64_t dir, const struct timespec *when)
{
	struct lately *l = &fs->lately;
	WITH_LOCK(&l->lock);

	if (l->attr.fileid != dir)
		return;
	if (!when) {
		l->attr.fileid = 0;
		return;
	}
	l->attr.mtime = time_later(l->attr.mtime, *when);
	l->attr.ctime = time_later(l->attr.ctime, *when);
}

static bool is_fresh(struct fs *fs, uint64_t dir, uint64_t heard_ns)
{
	return clock_ns() < heard_ns + (uint64_t)(fs->cache_s * NS_PER_S) &&
	       watched_dir_attr(fs->watched, dir, heard_ns) == WATCHED_KEEP;
}

bool lately_attr(struct req *q, struct attr *ret)
{
	struct lately *l = &q->fs->lately;
	uint64_t heard_ns;

	if (!q->fs->watched)
		return false;
	{
		WITH_LOCK(&l->lock);
		q->changes_seen = l->busy ? UINT64_MAX : l->ended;
		if (l->attr.fileid != q->inode->fileid)
			return false;
		*ret = l->attr;
		heard_ns = l->heard_ns;
	}
	if (!is_fresh(q->fs, ret->fileid, heard_ns))
		return false;
	q->since_ns = heard_ns;
	return true;
}

void lately_heard(struct req *q, const struct attr *a)
{
	struct lately *l = &q->fs->lately;

	if (!q->fs->watched || !S_ISDIR(a->mode))
		return;
	WITH_LOCK(&l->lock);
	if (l->busy || l->ended != q->changes_seen)
		return;
	l->attr = *a;
	l->heard_ns = q->since_ns;
}
