/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: open, create, mknod of files, flush, fsync, release.
 *
 * When what was written becomes visible is decided here and by file_publish():
 * FLUSH (each close of a descriptor) and fsync publish what was written since
 * the last time, so that close() returns the error (P2). What comes later, the
 * dirty pages of a mapping that outlived its descriptor, and a new file that
 * nothing was written to, is published by the release of the last handle that
 * could write. Its error can be told to nobody: it is logged, and the kernel
 * told to forget what it knows of the object.
 *
 * Closing has its own record (struct closing), because handles are also closed
 * without a request: after an interrupted open, and at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/error.h"
#include "common/log.h"
#include "common/crash.h"
#include "fs/priv.h"

struct handle *handle_new(struct fs *fs, bool control)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->spare = opens_new();
	if (!h->spare) {
		free(h);
		return NULL;
	}
	h->magic = HANDLE_MAGIC;
	h->control = control;
	if (!control) /* who looks at the gauges does not change them */
		metric_add(M_HANDLES, 1);
	WITH_LOCK(&fs->handles_lock);
	DL_APPEND(fs->handles, h);
	return h;
}

void handle_free(struct fs *fs, struct handle *h)
{
	{
		WITH_LOCK(&fs->handles_lock);
		DL_DELETE(fs->handles, h);
	}
	if (!h->control)
		metric_add(M_HANDLES, -1);
	h->magic = 0;
	free(h->spare);
	free(h->text);
	free(h);
}

struct handle *handle_of(const struct fuse_file_info *fi)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;

	assert(h && h->magic == HANDLE_MAGIC);
	return h;
}

/* Publishing ------------------------------------------------------------------- */

static void publish(struct fs *fs, struct inode *i, struct file_op *op, bool all,
		    bool (*replaced)(struct file_op *op, const struct gone *g))
{
	move_begin(fs);
	inode_publish_begin(fs->inodes, i);
	op->off = all;
	op->replaced = replaced;
	file_publish(op);
}

static void published(struct fs *fs, struct inode *i)
{
	inode_published(fs->inodes, i);
	inode_publish_end(fs->inodes, i);
	move_end(fs);
}

/* The draft's name replaced this object, which is lost now. */
static bool replaced(struct fs *fs, const struct gone *g)
{
	inode_gone(fs->inodes, g);
	return inode_keep(fs->inodes, g);
}

static bool flush_replaced(struct file_op *op, const struct gone *g)
{
	struct req *q = op->arg;

	return replaced(q->fs, g);
}

static void flush_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	published(q->fs, q->inode);
	if (req_made_room(q, r))
		publish(q->fs, q->inode, op, op->off, flush_replaced);
	else if (r < 0)
		req_error(q, (int)r);
	else
		req_ok(q);
}

static void flush(fuse_req_t f, enum metric_op kind, fuse_ino_t ino,
		  struct fuse_file_info *fi, bool all)
{
	struct handle *h = is_control(ino) ? NULL : handle_of(fi);

	if (!h || (!h->writer && !all)) {
		fuse_reply_err(f, 0);
		return;
	}
	struct req *q = req_begin_on(f, kind, ino);
	if (q)
		publish(q->fs, q->inode, req_file(q, h->file, flush_done), all,
			flush_replaced);
}

void fs_flush(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	flush(f, MOP_FLUSH, ino, fi, false);
}

void fs_fsync(fuse_req_t f, fuse_ino_t ino, int datasync,
	      struct fuse_file_info *fi)
{
	(void)datasync;
	flush(f, MOP_FSYNC, ino, fi, true);
}

/* Closing ------------------------------------------------------------------------ */

struct closing {
	struct fs *fs;
	struct handle *handle;
	struct file_op op;
	int64_t r;              /* of publishing */
	bool retried;           /* room was made for it */
	void (*done)(struct req *q, int64_t r);
	struct req *q;
};

static bool close_replaced(struct file_op *op, const struct gone *g)
{
	struct closing *c = op->arg;

	return replaced(c->fs, g);
}

static void closed(struct file_op *op, int64_t r)
{
	struct closing *c = op->arg;
	struct fs *fs = c->fs;
	struct inode *i = c->handle->inode;

	move_end(fs);
	if (c->r >= 0)
		c->r = r;
	if (c->r < 0) {
		log_error("fs", "object %llu: what was written last could not be "
			  "published: %s", (unsigned long long)i->fileid,
			  error_text((int)c->r));
		notify_range(fs, i->nodeid, 0, 0, NULL, NULL);
	}
	inode_put(fs->inodes, i);
	handle_free(fs, c->handle);
	if (c->done)
		c->done(c->q, c->r);
	free(c);
}

static void close_file(struct closing *c)
{
	struct handle *h = c->handle;

	move_begin(c->fs);
	inode_close(c->fs->inodes, h->inode, &h->caching);
	c->op.file = h->file;
	c->op.done = closed;
	file_close(&c->op, h->writer ? FILE_WRITE : 0);
}

static void close_published(struct file_op *op, int64_t r)
{
	struct closing *c = op->arg;

	published(c->fs, c->handle->inode);
	if (r == -ENOSPC && !c->retried && inodes_drop_kept(c->fs->inodes)) {
		c->retried = true;
		publish(c->fs, c->handle->inode, op, true, close_replaced);
		return;
	}
	c->r = r;
	close_file(c);
}

/* Takes the handle. done(q, r) may be NULL; r: what publishing said. */
static void handle_close(struct fs *fs, struct handle *h,
			 void (*done)(struct req *q, int64_t r), struct req *q)
{
	struct closing *c = calloc(1, sizeof(*c));

	/* There is no way to keep a handle that the kernel has given up. */
	if (!c)
		abort();
	*c = (struct closing){ .fs = fs, .handle = h, .done = done, .q = q };
	c->op.arg = c;
	c->op.call.deadline_ns = clock_ns() + fs->timeout_ms * 1000000ULL;
	if (h->writer && inode_stop_writing(fs->inodes, h->inode)) {
		c->op.file = h->file;
		c->op.done = close_published;
		publish(fs, h->inode, &c->op, true, close_replaced);
	} else {
		close_file(c);
	}
}

static void release_done(struct req *q, int64_t r)
{
	if (r < 0)
		req_error(q, (int)r);
	else
		req_ok(q);
}

void fs_release(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_control(ino)) {
		handle_free(fuse_req_userdata(f), handle_of(fi));
		fuse_reply_err(f, 0);
		return;
	}
	struct req *q = req_begin(f, MOP_RELEASE);
	if (q)
		handle_close(q->fs, handle_of(fi), release_done, q);
}

void handles_close(struct fs *fs)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	for (;;) {
		struct handle *h, *open = NULL;
		bool any;
		{
			WITH_LOCK(&fs->handles_lock);
			any = fs->handles;
			DL_FOREACH(fs->handles, h)
				if (!h->closing)
					open = h;
			if (open)
				open->closing = true;
		}
		if (open && open->control)
			handle_free(fs, open);
		else if (open)
			handle_close(fs, open, NULL, NULL);
		else if (any)
			nanosleep(&ms, NULL);
		else
			return;
	}
}

/* Opening ------------------------------------------------------------------------ */

/* execve(2)'s opens say so (the kernel's __FMODE_EXEC): they will be mapped. */
enum { OPEN_TO_EXECUTE = 040 };

/* May be read past the page cache: only for reading, large, and not by somebody
 * who was seen to read in small pieces. */
static bool may_stream(struct fs *fs, struct file *f, int flags, bool writer, pid_t pid)
{
	struct attr a;

	if (!fs->stream_bytes || writer || (flags & (O_ACCMODE | OPEN_TO_EXECUTE)) != O_RDONLY ||
	    atomic_load(pieces_pid(fs, pid)) == pid)
		return false;
	file_attr(f, &a);
	return a.size >= fs->stream_bytes;
}

/* q's handle opens f, and is not q's any more; fills what the kernel wants to
 * know of it. */
static struct handle *handle_open(struct req *q, struct file *f, bool writer,
				  struct fuse_file_info *ret)
{
	struct handle *h = steal(&q->handle);
	struct inode *i = q->inode;
	int flags = q->flags;
	struct open_how how = {
		.flags = flags,
		.writer = writer,
		.stream = may_stream(q->fs, f, flags, writer, fuse_req_ctx(q->fuse)->pid),
	};

	h->file = f;
	h->writer = writer;
	h->inode = inode_ref(q->fs->inodes, i);
	inode_open(q->fs->inodes, i, f, &how, &h->spare, &h->caching);
	*ret = (struct fuse_file_info){
		.fh = (uintptr_t)h,
		.flags = flags,
		.direct_io = h->caching.direct,
		.keep_cache = !h->caching.fresh,
		.noflush = (flags & O_ACCMODE) == O_RDONLY,
	};
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
	ret->parallel_direct_writes = h->caching.direct;
#endif
	return h;
}

void open_inode(struct req *q, unsigned flags,
		void (*done)(struct file_op *op, int64_t r))
{
	struct engine *e = q->fs->engine;
	struct file_op *op = req_file(q, NULL, done);

	req_place(q);
	_cleanup_(freep) struct gone *g = inode_kept(q->fs->inodes, q->inode);
	if (g)
		file_open_gone(e, g, flags, op);
	else
		file_open(e, q->ix.fileid, q->ix.place, flags, op);
}

static void open_go(struct req *q);

static void opened(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;
	struct fuse_file_info fi;
	struct handle *h;

	if (r < 0) {
		if (r != -ESTALE || !req_again(q, open_go))
			req_error(q, (int)r);
		return;
	}
	if (q->open_mask & FILE_WRITE)
		inode_drop_kept(q->fs->inodes, q->inode);
	h = handle_open(q, op->file, q->open_mask & FILE_WRITE, &fi);
	if (fuse_reply_open(req_answer(q, 0), &fi) == -ENOENT)
		handle_close(q->fs, h, NULL, NULL);
	req_free(q);
}

static void open_go(struct req *q)
{
	int r = inode_check_lost(q->fs->inodes, q->inode);

	if (r < 0) {
		req_error(q, r);
		return;
	}
	open_inode(q, q->open_mask, opened);
}

void fs_open(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (is_control(ino)) {
		control_open(f, ino, fi);
		return;
	}
	struct req *q = req_begin_on(f, MOP_OPEN, ino);
	if (!q)
		return;
	q->flags = fi->flags;
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		q->open_mask |= FILE_WRITE;
	if (fi->flags & O_TRUNC)
		q->open_mask |= FILE_WRITE | FILE_TRUNCATE;
	q->handle = handle_new(q->fs, false);
	if (!q->handle)
		req_error(q, -ENOMEM);
	else if ((fi->flags & O_TRUNC) && fuse_req_ctx(f)->uid)
		clear_setid(q, true, open_go);
	else
		open_go(q);
}

/* Making ------------------------------------------------------------------------- */

void new_object(struct req *q, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct fuse_ctx *c = fuse_req_ctx(q->fuse);

	q->ix.parent = parent;
	q->ix.name = name;
	q->ix.umask = c->umask;
	q->ix.attr = (struct attr){ .mode = mode, .uid = c->uid, .gid = c->gid };
}

/* It could not be opened after all: its names are given up. */
static void given_up(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	(void)r;
	move_end(q->fs);
	req_error(q, q->flags);
}

static void give_up(struct req *q, uint64_t fileid, int err)
{
	index_op_fini(&q->ix);
	req_see_through(q);
	q->flags = err;
	q->ix.fileid = fileid;
	q->ix.done = given_up;
	index_writer_end(q->fs->ix, &q->ix);
}

/* The index has a new draft: opens it. Its inode, with one lookup counted, goes
 * to q->inode. NULL: q is gone. */
static struct handle *draft_open(struct req *q, struct fuse_file_info *fi)
{
	const struct entry *e = &q->ix.entry;
	struct handle *h;
	struct file *file;
	int r = -ENOMEM;

	q->handle = handle_new(q->fs, false);
	if (q->handle)
		q->inode = inode_know(q->fs->inodes, &e->attr, e->place);
	if (q->inode)
		r = file_create(q->fs->engine, &e->attr, &file);
	if (r == 0) {
		h = handle_open(q, file, true, fi);
		move_end(q->fs);
		return h;
	}
	if (q->inode)
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
	give_up(q, e->attr.fileid, r);
	return NULL;
}

static void create_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!r)
		crash_point(CRASH_CREATE_NAMED);
	struct fuse_file_info fi;
	struct fuse_entry_param e = {
		.ino = op->entry.attr.fileid,
		.generation = GENERATION,
		.attr_timeout = KERNEL_CACHE_S,
		.entry_timeout = KERNEL_CACHE_S,
	};

	if (r) {
		move_end(q->fs);
		/* Somebody else has published this name since the kernel looked for
		 * it: upon this it looks again, and opens what is there. */
		req_error(q, r == -EEXIST && !(q->flags & O_EXCL) ? -ESTALE : r);
		return;
	}
	attr_to_stat(&op->entry.attr, &e.attr);
	struct handle *h = draft_open(q, &fi);
	if (!h)
		return;
	if (fuse_reply_create(req_answer(q, 0), &e, &fi) == -ENOENT) {
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
		handle_close(q->fs, h, NULL, NULL);
	}
	req_free(q);
}

void fs_create(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct req *q = req_begin(f, MOP_CREATE);

	if (!q)
		return;
	if (is_control(parent) || is_control_name(q->fs, parent, name)) {
		req_error(q, is_control(parent) ? -EPERM : -EEXIST);
		return;
	}
	new_object(q, parent, name, S_IFREG | (mode & 07777));
	q->flags = fi->flags;
	q->ix.flags = fi->flags & O_EXCL;
	q->ix.done = create_done;
	move_begin(q->fs);
	index_draft(q->fs->ix, &q->ix);
}

void fs_tmpfile(fuse_req_t f, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi)
{
	struct req *q = req_begin(f, MOP_TMPFILE);

	if (!q)
		return;
	if (is_control(parent)) {
		req_error(q, -EPERM);
		return;
	}
	new_object(q, parent, NULL, S_IFREG | (mode & 07777));
	q->flags = fi->flags;
	q->ix.done = create_done;
	move_begin(q->fs);
	index_draft(q->fs->ix, &q->ix);
}

/* mknod of a regular file: open, publish, close, and look at what came of it. */
static void mknod_looked(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	inode_forget(q->fs->inodes, q->inode->nodeid, 1);
	if (r)
		req_error(q, r < 0 ? r : -EIO);
	else
		req_entry(q, &op->entry.attr, op->entry.place);
}

static void mknod_closed(struct req *q, int64_t r)
{
	index_op_fini(&q->ix);
	if (r < 0) {
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
		req_error(q, (int)r);
		return;
	}
	req_place(q);
	q->ix.done = mknod_looked;
	index_stat(q->fs->ix, &q->ix);
}

void draft_for_mknod(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct fuse_file_info fi;

	if (r) {
		move_end(q->fs);
		req_error(q, r);
		return;
	}
	q->flags = O_WRONLY;
	struct handle *h = draft_open(q, &fi);
	if (h)
		handle_close(q->fs, h, mknod_closed, q);
}
