/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: read, write, fallocate, lseek, copy_file_range. Reads are answered
 * straight from the pool, whose slices stay pinned until the kernel has copied
 * them; a write's bytes are in the worker's receive buffer, which the request
 * holds until the engine is done with them (I10).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>

#include "fs/priv.h"

static void read_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (r < 0) {
		req_io_error(q, r);
		return;
	}
	fuse_req_t f = req_answer(q, 0);
	if (r == 0)
		fuse_reply_buf(f, NULL, 0);
	else
		fuse_reply_iov(f, op->iov, (int)op->niov);
	file_read_end(op);
	req_free(q);
}

/* What libfuse does not pass on of a READ and a WRITE. NULL: another request. */
static const void *request_of(uint32_t opcode)
{
	const struct fuse_in_header *h = rbuf_request();

	return h && h->opcode == opcode ? h + 1 : NULL;
}

/* A read(2) names the owner of its locks; what the kernel reads to fill a page
 * does not. */
static bool fills_pages(void)
{
	const struct fuse_read_in *r = request_of(FUSE_READ);

	return r && !(r->read_flags & FUSE_READ_LOCKOWNER);
}

static int write_flags(void)
{
	const struct fuse_write_in *w = request_of(FUSE_WRITE);

	return w ? (int)w->write_flags : 0;
}

enum {
	PIECE_BYTES = 128 * 1024, /* less than this is a piece */
	PIECES = 2,               /* in a row: an odd end is not read in pieces */
};

/* Before a READ through a direct handle: is the page cache better for this file?
 * Too late for this handle, but not for the next one. */
static void watch_stream(struct req *q, pid_t pid)
{
	struct handle *h = q->on;

	if (fills_pages())
		inode_mapped(q->fs->inodes, q->inode, &h->caching);
	else if (q->size >= PIECE_BYTES)
		atomic_store(&h->pieces, 0);
	else if (!(q->flags & O_DIRECT) && atomic_fetch_add(&h->pieces, 1) + 1 == PIECES) {
		inode_read_in_pieces(q->fs->inodes, q->inode);
		atomic_store(pieces_pid(q->fs, pid), pid);
	}
}

static void read_go(struct req *q)
{
	struct file_op *op = req_file(q, q->on->file, read_done);

	op->off = q->off;
	op->len = q->size;
	file_read(op);
}

/* As `relatime` does: what was read after it was changed is noted once, and then
 * once a day. */
static bool atime_due(const struct attr *a, struct timespec now)
{
	return !time_is_after(a->atime, a->mtime) || !time_is_after(a->atime, a->ctime) ||
	       now.tv_sec - a->atime.tv_sec >= 24 * 60 * 60;
}

/* Of what is published the index is told later (access.c). */
static bool access_is_noted(struct req *q, struct timespec before)
{
	struct fs *fs = q->fs;
	int r = inode_set_here(fs->inodes, q->inode, INDEX_SET_ATIME, &q->attr);

	if (r != INODE_INDEX)
		return !r;
	if (!access_note(fs->accesses, q->inode, before, q->attr.atime))
		return false;
	file_set_attr(q->on->file, INDEX_SET_ATIME, &q->attr);
	/* What others here have open of it shows that as well. */
	if (fs->watched && q->inode->nodeid != q->inode->fileid)
		watched_forget(fs->watched, q->inode->fileid);
	return true;
}

/* Before the answer, after which the kernel asks for the attributes again. */
static void note_access(struct req *q)
{
	if (!q->fs->accesses || q->flags & O_NOATIME || atomic_exchange(&q->on->has_read, true)) {
		read_go(q);
		return;
	}
	file_attr(q->on->file, &q->attr);
	struct timespec before = q->attr.atime, now = clock_now();
	access_overlay(q->fs->accesses, q->inode->fileid, &q->attr);
	bool due = atime_due(&q->attr, now);
	q->attr.atime = now;
	if (!due || access_is_noted(q, before)) {
		read_go(q);
		return;
	}
	q->mask = INDEX_SET_ATIME | INDEX_SET_CTIME;
	q->lenient = true;
	change_attr(q, read_go);
}

void fs_read(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
	     struct fuse_file_info *fi)
{
	if (is_control(ino)) {
		control_read(f, handle_of(fi), size, off);
		return;
	}
	struct req *q = req_begin_on(f, MOP_READ, ino);
	if (!q)
		return;
	q->on = handle_of(fi);
	q->size = size;
	q->off = (uint64_t)off;
	q->flags = fi->flags;
	if (q->on->caching.direct)
		watch_stream(q, fuse_req_ctx(f)->pid);
	note_access(q);
}

static void write_reply(struct req *q)
{
	fuse_reply_write(req_answer(q, 0), q->size);
	req_free(q);
}

/* What the kernel writes back from its cache, its cache has. */
static bool goes_past_cache(const struct req *q)
{
	return q->on->caching.direct && !(q->flags & FUSE_WRITE_CACHE);
}

static void write_published(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	req_published(q, r);
	if (req_made_room(q, r))
		req_publish(q, op->file, write_published);
	else if (r < 0)
		req_io_error(q, r);
	else
		write_reply(q);
}

static void written(struct req *q)
{
	if (q->sync)
		req_publish(q, q->on->file, write_published);
	else
		write_reply(q);
}

static void write_go(struct req *q);

static void write_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (req_made_room(q, r))
		write_go(q);
	else if (r < 0)
		req_io_error(q, r);
	else if (goes_past_cache(q) && inode_wrote(q->fs->inodes, q->inode))
		notify_range(q->fs, q->inode->nodeid, q->off, q->size, written, q);
	else
		written(q);
}

static void write_go(struct req *q)
{
	struct file_op *op = req_file(q, q->on->file, write_done);

	op->off = q->off;
	op->len = q->size;
	op->buf = q->data;
	file_write(op);
}

static void write_setid_cleared(struct req *q)
{
	if (goes_past_cache(q))
		drop_capability(q, write_go);
	else
		write_go(q);
}

void fs_write(fuse_req_t f, fuse_ino_t ino, const char *buf, size_t size,
	      off_t off, struct fuse_file_info *fi)
{
	if (is_control(ino)) {
		control_write(f, ino, handle_of(fi), buf, size);
		return;
	}
	struct req *q = req_begin_on(f, MOP_WRITE, ino);

	if (!q)
		return;
	q->on = handle_of(fi);
	q->data = buf;
	q->size = size;
	q->off = (uint64_t)off;
	q->flags = write_flags();
	/* Capabilities and O_SYNC: what goes through its cache the kernel sees to. */
	q->sync = goes_past_cache(q) && fi->flags & O_DSYNC;
	if (q->flags & FUSE_WRITE_CACHE) /* of a mapping: nobody writes now */
		write_go(q);
	else
		clear_setid(q, q->flags & FUSE_WRITE_KILL_SUIDGID, write_setid_cleared);
}

static void fallocate_go(struct req *q)
{
	file_fallocate(&q->file);
}

static void fallocate_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (req_made_room(q, r))
		fallocate_go(q);
	else if (r < 0)
		req_io_error(q, r);
	else
		req_ok(q);
}

void fs_fallocate(fuse_req_t f, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct req *q = req_begin_on(f, MOP_FALLOCATE, ino);

	if (!q)
		return;
	struct file_op *op = req_file(q, handle_of(fi)->file, fallocate_done);
	op->mode = mode;
	op->off = (uint64_t)off;
	op->len = (uint64_t)len;
	clear_setid(q, false, fallocate_go);
}

static void seek_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (r < 0) {
		req_io_error(q, r);
		return;
	}
	fuse_reply_lseek(req_answer(q, 0), r);
	req_free(q);
}

void fs_lseek(fuse_req_t f, fuse_ino_t ino, off_t off, int whence,
	      struct fuse_file_info *fi)
{
	struct req *q = req_begin_on(f, MOP_LSEEK, ino);

	if (!q)
		return;
	struct file_op *op = req_file(q, handle_of(fi)->file, seek_done);
	op->off = (uint64_t)off;
	op->mode = whence;
	file_seek(op);
}

static void copy_go(struct req *q)
{
	file_copy(&q->file);
}

static void copy_done(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (req_made_room(q, r)) {
		copy_go(q);
		return;
	}
	if (r < 0) {
		req_io_error(q, r);
		return;
	}
	fuse_reply_write(req_answer(q, 0), (size_t)r);
	req_free(q);
}

/* The answer has 32 bits for the length. */
enum { COPY_MAX = 1 << 30 };

void fs_copy_file_range(fuse_req_t f, fuse_ino_t ino, off_t off,
			struct fuse_file_info *fi, fuse_ino_t to_ino,
			off_t to_off, struct fuse_file_info *to_fi, size_t len,
			int flags)
{
	if (flags || is_control(ino) || is_control(to_ino)) {
		fuse_reply_err(f, flags ? EINVAL : EXDEV);
		return;
	}
	struct req *q = req_begin_on(f, MOP_COPY_FILE_RANGE, to_ino);
	if (!q)
		return;
	struct file_op *op = req_file(q, handle_of(fi)->file, copy_done);
	op->to = handle_of(to_fi)->file;
	op->off = (uint64_t)off;
	op->off2 = (uint64_t)to_off;
	op->len = len < COPY_MAX ? len : COPY_MAX;
	clear_setid(q, false, copy_go);
}
