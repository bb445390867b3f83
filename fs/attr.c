/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getattr, setattr, readlink, statfs.
 *
 * Attributes of an object live in the index; while it is open, its file knows
 * better about size and times; while it is a draft or has lost its last name,
 * only this process knows them (inode.c sorts that out). Truncating is the
 * file's business and goes first, so that a failed one changes nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "common/log.h"
#include "fs/priv.h"

void attr_to_stat(const struct attr *a, struct stat *st)
{
	*st = (struct stat){
		.st_ino = a->fileid,
		.st_mode = a->mode,
		.st_nlink = a->nlink,
		.st_uid = a->uid,
		.st_gid = a->gid,
		.st_rdev = a->rdev,
		.st_size = (off_t)a->size,
		.st_blksize = REQUEST_BYTES, /* cp and cat use it */
		.st_blocks = (blkcnt_t)a->pages * (PAGE_BYTES / 512),
		.st_atim = a->atime,
		.st_mtim = a->mtime,
		.st_ctim = a->ctime,
	};
	if (S_ISDIR(a->mode))
		st->st_size = PAGE_BYTES;
	/* Content in the record itself takes no pages; tar would take a file
	 * without blocks for one hole. */
	if (S_ISREG(a->mode) && !a->pages && a->size && a->size <= INDEX_INLINE_MAX)
		st->st_blocks = (blkcnt_t)(a->size + 511) / 512;
}

static void stat_done(struct index_op *op, int r);

static void learn_go(struct req *q)
{
	int r = inode_check_lost(q->fs->inodes, q->inode);

	if (r < 0) {
		req_error(q, r);
		return;
	}
	req_place(q);
	if (inode_attr_here(q->fs->inodes, q->inode, &q->now)) {
		q->learned(q);
		return;
	}
	q->ix.done = stat_done;
	index_stat(q->fs->ix, &q->ix);
}

static void stat_missed(struct req *q)
{
	index_op_fini(&q->ix);
	if (req_inode_again(q, learn_go))
		return;
	if (inode_attr_missed(q->fs->inodes, q->inode, &q->now))
		q->learned(q);
	else
		req_error(q, -ESTALE);
}

static void stat_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (r == INDEX_MISS || r == -ENOENT) {
		stat_missed(q);
		return;
	}
	if (r) {
		req_error(q, r);
		return;
	}
	q->now = op->entry.attr;
	index_op_fini(op);
	inode_attr_overlay(q->fs->inodes, q->inode, &q->now);
	q->learned(q);
}

void learn_attr(struct req *q, void (*next)(struct req *q))
{
	q->learned = next;
	learn_go(q);
}

static void reply_now(struct req *q)
{
	req_attr(q, &q->now);
}

static void reply_heard(struct req *q)
{
	lately_heard(q, &q->now);
	reply_now(q);
}

static void stat_go(struct req *q)
{
	if (lately_attr(q, &q->now))
		reply_now(q);
	else
		learn_attr(q, reply_heard);
}

/* The root of a node's store: who asks for it asks for the mount, and is answered
 * though the node is not there (P6). It has a moment to say something newer. */
enum { ROOT_WAIT_MS = 250 };

static void root_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct fs *fs = q->fs;
	bool known = !r;
	{
		WITH_LOCK(&fs->root_lock);
		if (!r)
			fs->root_attr = op->entry.attr;
		else if (r == -ETIMEDOUT || r == -ENOTCONN)
			known = fs->root_attr.fileid;
		q->now = fs->root_attr;
	}
	if (r)
		q->since_ns = 0; /* it is as old as can be */
	if (known)
		req_attr(q, &q->now);
	else
		req_error(q, r < 0 ? r : -EIO);
}

static void root_stat(struct req *q)
{
	uint64_t until_ns = q->start_ns + ROOT_WAIT_MS * NS_PER_MS;

	req_place(q);
	if (until_ns < q->ix.call.deadline_ns)
		q->ix.call.deadline_ns = until_ns;
	q->ix.done = root_done;
	index_stat(q->fs->ix, &q->ix);
}

static void getattr_go(struct req *q)
{
	if (q->inode->nodeid == INDEX_ROOT && engine_is_remote(q->fs->engine))
		root_stat(q);
	else
		stat_go(q);
}

void fs_getattr(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	if (is_control(ino)) {
		control_getattr(f, ino);
		return;
	}
	struct req *q = req_begin_on(f, MOP_GETATTR, ino);
	if (q)
		getattr_go(q);
}

/* statx: the kernel asks so for the time of birth ------------------------------- */

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
static struct statx_timestamp stamp(struct timespec t)
{
	return (struct statx_timestamp){ .tv_sec = t.tv_sec,
					 .tv_nsec = (uint32_t)t.tv_nsec };
}

static struct statx statx_of(const struct stat *st)
{
	return (struct statx){
		.stx_mask = STATX_BASIC_STATS,
		.stx_blksize = (uint32_t)st->st_blksize,
		.stx_nlink = (uint32_t)st->st_nlink,
		.stx_uid = st->st_uid,
		.stx_gid = st->st_gid,
		.stx_mode = (uint16_t)st->st_mode,
		.stx_ino = st->st_ino,
		.stx_size = (uint64_t)st->st_size,
		.stx_blocks = (uint64_t)st->st_blocks,
		.stx_atime = stamp(st->st_atim),
		.stx_ctime = stamp(st->st_ctim),
		.stx_mtime = stamp(st->st_mtim),
		.stx_rdev_major = major(st->st_rdev),
		.stx_rdev_minor = minor(st->st_rdev),
	};
}

static void answer_statx(fuse_req_t f, struct statx *x, double cache_s)
{
	/* -ENOSYS: a library without statx; it has not answered. */
	if (fuse_reply_statx(f, 0, x, cache_s) == -ENOSYS)
		fuse_reply_err(f, ENOSYS);
}

void reply_statx(struct req *q, const struct attr *a)
{
	struct stat st;

	attr_to_stat(a, &st);
	struct statx x = statx_of(&st);
	x.stx_mask |= STATX_BTIME;
	x.stx_btime = stamp(a->btime);
	double keeps = req_attr_keeps(q, a);
	answer_statx(req_answer(q, 0), &x, keeps);
	req_free(q);
}

/* Nobody knows when they were born. */
static void answer_control_statx(fuse_req_t f, fuse_ino_t ino)
{
	struct stat st;
	int r = control_stat(fuse_req_userdata(f), ino, &st);

	if (r < 0) {
		fuse_reply_err(f, -r);
		return;
	}
	struct statx x = statx_of(&st);
	answer_statx(f, &x, KERNEL_CACHE_S);
}

void fs_statx(fuse_req_t f, fuse_ino_t ino, int flags, int mask,
	      struct fuse_file_info *fi)
{
	(void)flags;
	(void)mask;
	(void)fi;
	if (is_control(ino)) {
		answer_control_statx(f, ino);
		return;
	}
	struct req *q = req_begin_on(f, MOP_GETATTR, ino);
	if (!q)
		return;
	q->statx = true;
	getattr_go(q);
}
#else
void reply_statx(struct req *q, const struct attr *a)
{
	(void)a;
	req_error(q, -ENOSYS); /* nothing sets q->statx */
}
#endif

/* Changing attributes ----------------------------------------------------------- */

static void change_done(struct index_op *op, int r);

static void change_failed(struct req *q, int r)
{
	index_op_fini(&q->ix);
	if (q->lenient)
		q->then(q);
	else
		req_error(q, r);
}

static void change_go(struct req *q);

static void change_told(void *arg)
{
	change_go(arg);
}

/* True: what was read before is being told to the index, which comes first. */
static bool change_waits(struct req *q)
{
	return q->mask & INDEX_SET_ATIME && q->fs->accesses &&
	       access_forget(q->fs->accesses, q->inode->fileid, change_told, q);
}

static void change_go(struct req *q)
{
	if (change_waits(q))
		return;
	int r = inode_check_lost(q->fs->inodes, q->inode);

	if (r == 0) {
		req_place(q);
		r = inode_set_here(q->fs->inodes, q->inode, q->mask, &q->attr);
	}
	if (r == INODE_BUSY) {
		if (!req_again(q, change_go))
			change_failed(q, -ETIMEDOUT);
	} else if (r == INODE_INDEX) {
		q->ix.mask = q->mask;
		q->ix.attr = q->attr;
		q->ix.done = change_done;
		index_setattr(q->fs->ix, &q->ix);
	} else if (r < 0) {
		change_failed(q, r);
	} else {
		q->then(q);
	}
}

static void change_missed(struct req *q)
{
	index_op_fini(&q->ix);
	if (req_inode_again(q, change_go))
		return;
	if (inode_set_missed(q->fs->inodes, q->inode, q->mask, &q->attr))
		q->then(q);
	else
		change_failed(q, -ESTALE);
}

static void change_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (r == INDEX_MISS || r == -ENOENT) {
		change_missed(q);
	} else if (r) {
		change_failed(q, r);
	} else {
		inode_set_done(q->fs->inodes, q->inode, q->mask, &op->entry.attr);
		/* What others here have open of it shows that as well. */
		if (q->fs->watched && q->inode->nodeid != q->inode->fileid)
			watched_forget(q->fs->watched, q->inode->fileid);
		index_op_fini(op);
		q->then(q);
	}
}

void change_attr(struct req *q, void (*then)(struct req *q))
{
	q->then = then;
	change_go(q);
}

/* setattr --------------------------------------------------------------------- */

/* If the draft has been published meanwhile, its ACL went by the new mode. */
static void draft_acl_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	index_op_fini(op);
	if (r < 0 && r != -ENOENT)
		req_error(q, r);
	else
		stat_go(q);
}

/* A draft's attributes are here, but its access ACL, which follows the mode, is
 * in the index. */
static void chmod_draft_acl(struct req *q)
{
	req_place(q);
	q->ix.mask = INDEX_SET_MODE;
	q->ix.attr = q->attr;
	q->ix.done = draft_acl_done;
	index_setattr(q->fs->ix, &q->ix);
}

static void setattr_reply(struct req *q)
{
	if ((q->mask & INDEX_SET_MODE) &&
	    req_maybe_xattrs(q) &&
	    inode_place(q->fs->inodes, q->inode).kind == PLACE_DRAFT)
		chmod_draft_acl(q);
	else
		stat_go(q);
}

static void truncated(struct req *q, int64_t r)
{
	if (r < 0 && q->close)
		req_error(q, (int)r);
	else if (r < 0)
		req_io_error(q, r);
	else if (q->mask & ~INDEX_SET_CTIME)
		change_attr(q, setattr_reply);
	else
		stat_go(q);
}

static void truncate_closed(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	/* The first of the two errors. */
	truncated(q, q->flags < 0 ? q->flags : r);
}

static void truncate_close(struct req *q)
{
	struct file_op *op = req_file(q, q->file.file, truncate_closed);

	inode_keep_file(q->fs->inodes, q->inode, op->file);
	notify_kept(q->fs);
	file_close(op, FILE_WRITE);
}

static void truncate_published(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	req_published(q, r);
	if (q->flags >= 0)
		q->flags = (int)r;
	truncate_close(q);
}

static void truncate_done(struct file_op *op, int64_t r);

static void truncate_file(struct req *q, struct file *f)
{
	struct file_op *op = req_file(q, f, truncate_done);

	op->off = q->off;
	file_truncate(op);
}

static void truncate_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (req_made_room(q, r)) {
		truncate_file(q, op->file);
		return;
	}
	if (!q->close) {
		truncated(q, r);
		return;
	}
	q->flags = (int)r;
	req_see_through(q); /* or what closing publishes were lost */
	/* The close publishes if nobody else writes; a promise (away.c) does not. */
	if (q->fs->shared)
		req_publish(q, op->file, truncate_published);
	else
		truncate_close(q);
}

static void truncate_open(struct req *q);

static void truncate_opened(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (r == -ESTALE) {
		open_stale(q, truncate_open);
	} else if (r < 0) {
		req_error(q, (int)r);
	} else {
		inode_drop_kept(q->fs->inodes, q->inode);
		q->close = true;
		truncate_file(q, op->file);
	}
}

static void truncate_open(struct req *q)
{
	open_inode(q, FILE_WRITE, truncate_opened);
}

static void decode(struct req *q, const struct stat *st, int to_set)
{
	struct timespec now = clock_now();

	q->attr.mode = st->st_mode;
	q->attr.uid = st->st_uid;
	q->attr.gid = st->st_gid;
	q->attr.atime = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : st->st_atim;
	q->attr.mtime = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : st->st_mtim;
	q->attr.ctime = now;
	q->mask = INDEX_SET_CTIME;
	if (to_set & FUSE_SET_ATTR_MODE)
		q->mask |= INDEX_SET_MODE;
	if (to_set & FUSE_SET_ATTR_UID)
		q->mask |= INDEX_SET_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		q->mask |= INDEX_SET_GID;
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		q->mask |= INDEX_SET_ATIME;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		q->mask |= INDEX_SET_MTIME;
}

static void setattr_go(struct req *q)
{
	if (!q->resize)
		/* Nothing to set: chown(-1, -1), which moves the ctime. */
		change_attr(q, setattr_reply);
	else if (q->on && q->on->file)
		truncate_file(q, q->on->file);
	else
		truncate_open(q);
}

/* Set-gid without group execute, which meant mandatory locking once: local file
 * systems take it away when somebody outside the group changes the file. FUSE's
 * side of the kernel does not. */
static bool has_bare_setgid(uint32_t mode)
{
	return !S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == S_ISGID;
}

static void setattr_learned(struct req *q)
{
	uint32_t mode = q->mask & INDEX_SET_MODE ? q->attr.mode : q->now.mode;

	if (has_bare_setgid((q->now.mode & S_IFMT) | (mode & 07777)) &&
	    caller_is_outside(q, q->now.gid)) {
		q->mask |= INDEX_SET_MODE;
		q->attr.mode = mode & ~(uint32_t)S_ISGID;
	}
	setattr_go(q);
}

void fs_setattr(fuse_req_t f, fuse_ino_t ino, struct stat *st, int to_set,
		struct fuse_file_info *fi)
{
	const int changes = FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
	struct req *q = req_begin_on(f, MOP_SETATTR, ino);

	if (!q)
		return;
	decode(q, st, to_set);
	q->resize = to_set & FUSE_SET_ATTR_SIZE;
	q->off = (uint64_t)st->st_size;
	q->on = fi ? handle_of(fi) : NULL;
	if ((to_set & changes) &&
	    has_bare_setgid(inode_mode(q->fs->inodes, q->inode)))
		learn_attr(q, setattr_learned);
	else
		setattr_go(q);
}

/* Set-id bits ----------------------------------------------------------------- */

/* A stat that follows may ask for the mode alone, which the kernel has; so it is
 * told before the caller gets an answer. */
static void setid_cleared(struct req *q)
{
	notify_attr(q->fs, q->inode->nodeid, q->next_step, q);
}

static void setid_learned(struct req *q)
{
	uint32_t mode = q->now.mode, kill = 0;

	if (q->all_setid)
		kill = S_ISUID | (mode & S_IXGRP ? S_ISGID : 0);
	if (has_bare_setgid(mode) && caller_is_outside(q, q->now.gid))
		kill |= S_ISGID;
	if (!(mode & kill)) {
		q->next_step(q);
		return;
	}
	q->mask = INDEX_SET_MODE | INDEX_SET_CTIME;
	q->attr = (struct attr){ .mode = mode & ~kill, .ctime = clock_now() };
	change_attr(q, setid_cleared);
}

void clear_setid(struct req *q, bool all, void (*next)(struct req *q))
{
	/* As last heard of: enough to see that there is nothing to do. */
	uint32_t mode = inode_mode(q->fs->inodes, q->inode);

	if (!S_ISREG(mode) ||
	    !(all ? mode & (S_ISUID | S_ISGID) : has_bare_setgid(mode))) {
		next(q);
		return;
	}
	q->next_step = next;
	q->all_setid = all;
	learn_attr(q, setid_learned);
}

/* readlink, statfs ----------------------------------------------------- */

static void reply_target(struct req *q, const char *target)
{
	fuse_reply_readlink(req_answer(q, 0), target);
	req_free(q);
}

static void readlink_done(struct index_op *op, int r);

static void readlink_go(struct req *q)
{
	req_place(q);
	q->text = inode_relic_target(q->fs->inodes, q->inode);
	if (q->text) {
		reply_target(q, q->text);
		return;
	}
	q->ix.done = readlink_done;
	index_stat(q->fs->ix, &q->ix);
}

static void readlink_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct bytes b = op->entry.body.bytes;

	if (r == INDEX_MISS) {
		req_missed(q, readlink_go, -ESTALE);
		return;
	}
	if (!r && (op->entry.body.kind != BODY_INLINE || !b.len))
		r = -EINVAL;
	if (!r) {
		q->text = strndup(b.p, b.len);
		r = q->text ? 0 : -ENOMEM;
	}
	if (r)
		req_error(q, r);
	else
		reply_target(q, q->text);
}

void fs_readlink(fuse_req_t f, fuse_ino_t ino)
{
	struct req *q = req_begin_on(f, MOP_READLINK, ino);

	if (q)
		readlink_go(q);
}

/* What an object takes in the index, about: for "how many more files". */
enum { INDEX_BYTES_A_FILE = 512 };

void fs_statfs(fuse_req_t f, fuse_ino_t ino)
{
	struct req *q = req_begin(f, MOP_STATFS);
	struct engine_space s;

	(void)ino;
	if (!q)
		return;
	engine_space(q->fs->engine, &s);
	/* What only the kernel still knows gives way to who needs the room. */
	s.free_bytes += inodes_kept_bytes(q->fs->inodes);
	if (s.free_bytes > s.total_bytes)
		s.free_bytes = s.total_bytes;
	/* And so does what can be evicted. */
	uint64_t available = s.free_bytes + s.evictable_bytes;
	if (available > s.total_bytes)
		available = s.total_bytes;
	uint64_t left = s.index_size_bytes > s.index_used_bytes ?
				s.index_size_bytes - s.index_used_bytes : 0;
	/* The kernel asks for no available ones apart from the free ones. */
	uint64_t files = s.index_size_bytes / INDEX_BYTES_A_FILE;
	uint64_t more = left / INDEX_BYTES_A_FILE + s.evictable_objects;
	if (more > files)
		more = files;
	struct statvfs v = {
		.f_bsize = PAGE_BYTES,
		.f_frsize = PAGE_BYTES,
		.f_blocks = s.total_bytes / PAGE_BYTES,
		.f_bfree = s.free_bytes / PAGE_BYTES,
		.f_bavail = available / PAGE_BYTES,
		.f_files = files,
		.f_ffree = more,
		.f_favail = more,
		.f_namemax = INDEX_NAME_MAX,
	};
	fuse_reply_statfs(req_answer(q, 0), &v);
	req_free(q);
}
