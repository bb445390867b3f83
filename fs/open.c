/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: open, create, mknod of files, flush, fsync, release.
 *
 * When what was written becomes visible is decided here and by file_publish():
 * FLUSH (each close of a descriptor), fsync and a write with O_DSYNC publish what
 * was written since the last time, so that they return the error (P2). What comes later, the
 * dirty pages of a mapping that outlived its descriptor, and a new file that
 * nothing was written to, is published by the release of the last handle that
 * could write. Its error can be told to nobody: it is logged, and the kernel
 * told to forget what it knows of the object.
 *
 * Closing has its own record (struct closing), because handles are also closed
 * without a request: after an interrupted open, and at the end.
 *
 * Opening where other mounts publish, too (fs->shared). The engine finds out what is
 * published, and says ESTALE if the record is not where the name is. Then
 *
 *	the nodeid is open as another line      the kernel is sent away: its lookup gets
 *	 or the kernel has another size of it   the right nodeid, and its size
 *	it is not open, and of another version  pages and attributes are dropped
 *	else                                    go on, pages are kept
 *
 * Who comes back gets what he was promised (away.c), or what others here have opened
 * the nodeid as meanwhile.
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
	lock_init(&h->scrub_lock, LOCK_FS_INODE);
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
	scrub_end(h->scrub);
	lock_fini(&h->scrub_lock);
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

enum publish_what {
	PUBLISH_WRITTEN, /* FLUSH */
	PUBLISH_ALL,     /* fsync: also a new file that nothing was written to */
	PUBLISH_LAST,    /* release: what came later, if nobody else writes */
};

static void publish(struct fs *fs, struct inode *i, struct file_op *op, enum publish_what what,
		    bool (*replaced)(struct file_op *op, const struct gone *g))
{
	move_begin(fs);
	inode_publish_begin(fs->inodes, i);
	op->off = what != PUBLISH_WRITTEN;
	op->len = what == PUBLISH_LAST;
	op->replaced = replaced;
	file_publish(op);
}

static void published(struct fs *fs, struct inode *i, int64_t r)
{
	inode_published(fs->inodes, i);
	inode_publish_end(fs->inodes, i, r);
	move_end(fs);
}

/* The draft's name replaced this object, which is lost now. */
static bool replaced(struct fs *fs, const struct gone *g)
{
	inode_gone(fs->inodes, g);
	notify_kept(fs);
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

	published(q->fs, q->inode, r);
	if (req_made_room(q, r))
		publish(q->fs, q->inode, op, op->off ? PUBLISH_ALL : PUBLISH_WRITTEN,
			flush_replaced);
	else if (r < 0)
		req_io_error(q, r);
	else
		req_ok(q);
}

void req_publish(struct req *q, struct file *f, void (*done)(struct file_op *op, int64_t r))
{
	publish(q->fs, q->inode, req_file(q, f, done), PUBLISH_ALL, flush_replaced);
}

void req_published(struct req *q, int64_t r)
{
	published(q->fs, q->inode, r);
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
		publish(q->fs, q->inode, req_file(q, h->file, flush_done),
			all ? PUBLISH_ALL : PUBLISH_WRITTEN, flush_replaced);
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
	if (c->fs->shared && inode_place(c->fs->inodes, h->inode).kind == PLACE_NONE)
		notify_kept(c->fs);
	c->op.file = h->file;
	c->op.done = closed;
	file_close(&c->op, h->writer ? FILE_WRITE : 0);
}

static void close_published(struct file_op *op, int64_t r)
{
	struct closing *c = op->arg;

	published(c->fs, c->handle->inode, r);
	if (r == -ENOSPC && !c->retried && inodes_drop_kept(c->fs->inodes)) {
		c->retried = true;
		publish(c->fs, c->handle->inode, op, PUBLISH_LAST, close_replaced);
		return;
	}
	c->r = r;
	close_file(c);
}

void handle_close(struct fs *fs, struct handle *h,
		  void (*done)(struct req *q, int64_t r), struct req *q)
{
	struct closing *c = calloc(1, sizeof(*c));

	/* There is no way to keep a handle that the kernel has given up. */
	if (!c)
		abort();
	{
		WITH_LOCK(&fs->handles_lock);
		h->closing = true; /* handles_close() leaves it to us */
	}
	*c = (struct closing){ .fs = fs, .handle = h, .done = done, .q = q };
	c->op.arg = c;
	c->op.call.deadline_ns = clock_ns() + fs->timeout_ms * NS_PER_MS;
	if (h->writer && inode_stop_writing(fs->inodes, h->inode)) {
		c->op.file = h->file;
		c->op.done = close_published;
		publish(fs, h->inode, &c->op, PUBLISH_LAST, close_replaced);
	} else {
		close_file(c);
	}
}

static void release_done(struct req *q, int64_t r)
{
	if (r < 0)
		req_io_error(q, r);
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

struct handle *handle_open(struct req *q, struct file *f, bool writer,
			   struct fuse_file_info *ret)
{
	struct handle *h = q->handle;
	struct inode *i = q->inode;
	int flags = q->flags;
	struct open_how how = {
		.flags = flags,
		.writer = writer,
		.stream = may_stream(q->fs, f, flags, writer, fuse_req_ctx(q->fuse)->pid),
		.promise = q->kind == MOP_LOOKUP,
		.last = q->away_ns || q->kind == MOP_LOOKUP,
		.begun_ns = q->away_ns ? q->away_ns : q->start_ns,
	};

	if (inode_open(q->fs->inodes, i, f, &how, &h->spare, &h->caching) < 0)
		return NULL;
	q->handle = NULL;
	h->file = f;
	h->writer = writer;
	h->inode = inode_ref(q->fs->inodes, i);
	*ret = (struct fuse_file_info){
		.fh = (uintptr_t)h,
		.flags = flags,
		.direct_io = h->caching.direct,
		.keep_cache = !h->caching.fresh,
		.noflush = !writer, /* O_RDONLY | O_TRUNC is one */
	};
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
	ret->parallel_direct_writes = h->caching.direct;
#endif
	return h;
}

/* What is open ---------------------------------------------------------------- */

static void left(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	(void)r;
	q->next_step(q);
}

void req_leave(struct req *q, unsigned flags, void (*next)(struct req *q))
{
	struct file *f = q->file.file;

	q->next_step = next;
	file_close(req_file(q, f, left), flags);
}

static void told_stale(struct req *q)
{
	q->sent_away = !q->away_ns;
	q->opened(&q->file, -ESTALE);
}

static void open_known(struct req *q);

static void line_opened(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (q->known)
		file_unref(steal(&q->known));
	if (r >= 0 && inode_may_open(q->fs->inodes, q->inode, op->file, q->away_ns) < 0)
		req_leave(q, q->open_flags & FILE_WRITE, q->away_ns ? open_known : told_stale);
	else
		q->opened(op, r);
}

static void open_by(struct req *q, unsigned flags)
{
	struct file_op *op = req_file(q, NULL, line_opened);

	op->known = q->known;
	file_open(q->fs->engine, q->ix.fileid, q->ix.place, q->open_flags | flags, op);
}

/* The line that q's nodeid has open. */
static void open_known(struct req *q)
{
	q->known = inode_file(q->fs->inodes, q->inode);
	if (q->known && inode_seen(q->fs->inodes, q->inode, q->away_ns))
		open_by(q, FILE_KNOWN);
	else
		told_stale(q);
}

static void open_line(struct req *q)
{
	if (q->known) /* of an earlier try */
		file_unref(steal(&q->known));
	if (q->promise) {
		q->known = file_ref(q->promise->file);
		open_by(q, FILE_KNOWN);
	} else if (q->away_ns || q->ix.place.kind == PLACE_NONE) {
		q->known = inode_file(q->fs->inodes, q->inode);
		open_by(q, 0);
	} else if (inode_in_doubt(q->fs->inodes, q->inode)) {
		told_stale(q);
	} else {
		open_by(q, FILE_HERE);
	}
}

void open_inode(struct req *q, unsigned flags,
		void (*done)(struct file_op *op, int64_t r))
{
	struct engine *e = q->fs->engine;

	req_place(q);
	q->open_flags = flags;
	q->opened = done;
	_cleanup_(freep) struct gone *g = inode_kept(q->fs->inodes, q->inode);
	if (g)
		file_open_gone(e, g, flags, req_file(q, NULL, done));
	else if (q->fs->shared)
		open_line(q);
	else
		file_open(e, q->ix.fileid, q->ix.place, flags, req_file(q, NULL, done));
}

void open_stale(struct req *q, void (*again)(struct req *q))
{
	bool away = q->sent_away; /* whatever moves here: the path is looked up again */

	q->sent_away = false;
	if (away || !req_inode_again(q, again))
		req_error(q, -ESTALE);
}

/* open(2) ---------------------------------------------------------------------- */

static void open_reply(struct req *q)
{
	metric_add(M_HITS, q->kind == MOP_OPEN);
	if (fuse_reply_open(req_answer(q, 0), &q->fi) == -ENOENT)
		handle_close(q->fs, q->made, NULL, NULL);
	req_free(q);
}

static void open_dropped(struct req *q)
{
	struct req *waited = inode_dropped(q->fs->inodes, q->inode);

	q->reply(q);
	while (waited) {
		struct req *next = waited->next;
		waited->reply(waited);
		waited = next;
	}
}

/* The kernel drops what is old of what it has before it is told that it is open:
 * what OPEN's answer says (keep_cache) comes too late for who opens it beside. */
static void open_end(struct req *q)
{
	if (q->made->caching.told && q->made->caching.fresh)
		notify_range(q->fs, q->inode->nodeid, 0, 0, open_dropped, q);
	else if (q->made->caching.told)
		notify_attr(q->fs, q->inode->nodeid, open_dropped, q);
	/* It is not told once more: an answer with the size that is under way would
	 * count for nothing. */
	else if (!inode_wait_dropped(q->fs->inodes, q->inode, q, &q->next))
		q->reply(q);
}

static void cut_closed(struct req *q, int64_t r)
{
	(void)r; /* it has been told already, or will be by the other error */
	if (q->kind == MOP_CREATE) /* found_shown() has counted it */
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
	req_error(q, (int)q->size);
}

static void cut_failed(struct req *q)
{
	handle_close(q->fs, q->made, cut_closed, q);
}

static void cut(struct file_op *op, int64_t r);

/* O_TRUNC, now that it is certain of what. */
static void open_cut(struct req *q)
{
	struct file_op *op = req_file(q, q->made->file, cut);

	file_truncate(op);
}

static void cut(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (req_made_room(q, r)) {
		open_cut(q);
		return;
	}
	if (r < 0) {
		/* What is to be dropped for it is: the table takes it for done. */
		q->size = (size_t)r;
		q->reply = cut_failed;
	}
	open_end(q);
}

/* Of what open_inode() has opened: a handle, and reply(q). */
static void open_handle(struct req *q, struct file *f, void (*reply)(struct req *q))
{
	bool writer = q->open_mask & FILE_WRITE;

	if (writer)
		inode_drop_kept(q->fs->inodes, q->inode);
	q->made = handle_open(q, f, writer, &q->fi);
	q->reply = reply;
	if (!q->made) /* somebody else was faster */
		req_leave(q, q->open_flags & FILE_WRITE, q->away_ns ? open_known : told_stale);
	else if (q->fs->shared && q->open_mask & FILE_TRUNCATE)
		open_cut(q);
	else
		open_end(q);
}

static void open_go(struct req *q);

static void opened(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (r == -ESTALE)
		open_stale(q, open_go);
	else if (r < 0)
		req_error(q, (int)r);
	else
		open_handle(q, op->file, open_reply);
}

/* Which of its flags the engine is to see to. */
static unsigned engine_flags(const struct req *q)
{
	return q->fs->shared ? q->open_mask & ~(unsigned)FILE_TRUNCATE : q->open_mask;
}

static void open_go(struct req *q)
{
	int r = inode_check_lost(q->fs->inodes, q->inode);

	if (r < 0) {
		req_error(q, r);
		return;
	}
	open_inode(q, engine_flags(q), opened);
}

static void mask_of(struct req *q, int flags)
{
	q->flags = flags;
	if ((flags & O_ACCMODE) != O_RDONLY)
		q->open_mask |= FILE_WRITE;
	if (flags & O_TRUNC)
		q->open_mask |= FILE_WRITE | FILE_TRUNCATE;
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
	mask_of(q, fi->flags);
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

	req_enter(q, parent);
	q->ix.parent = parent;
	q->ix.name = name;
	q->ix.umask = c->umask;
	q->ix.attr = (struct attr){ .mode = mode, .uid = c->uid, .gid = c->gid };
	/* Not of directories: what others make in them is not by way of this mount. */
	if (!S_ISDIR(mode))
		q->ix.attr.keep = q->fs->keep;
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

	if (!q->handle)
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

static void create_go(struct req *q);
static void create_found(struct req *q);

static void create_reply(struct req *q)
{
	struct fuse_entry_param e = {
		.ino = q->inode->nodeid,
		.generation = GENERATION,
	};

	away_end(q);
	req_entry_keeps(q, q->ix.name, q->inode, &q->now, q->ix.place, &e);
	attr_to_stat(&q->now, &e.attr);
	if (fuse_reply_create(req_answer(q, 0), &e, &q->fi) == -ENOENT) {
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
		handle_close(q->fs, q->made, NULL, NULL);
	}
	req_free(q);
}

static void create_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!r) {
		crash_point(CRASH_CREATE_NAMED);
		lately_touched(q->fs, op->parent, &op->entry.attr.ctime);
	}
	if (r) {
		move_end(q->fs);
		if (r == -EEXIST && !(q->flags & O_EXCL))
			create_found(q);
		else
			req_error(q, r);
		return;
	}
	q->now = op->entry.attr;
	q->ix.place = op->entry.place;
	q->made = draft_open(q, &q->fi);
	if (q->made)
		create_reply(q);
}

/* Somebody else has published the name since the kernel looked for it -------------- */

/* Upon this the kernel looks again, and opens what is there. */
static void create_stale(struct req *q)
{
	req_error(q, -ESTALE);
}

static void create_look(struct req *q);

static void found_opened(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;

	if (r >= 0) {
		file_attr(op->file, &q->now);
		open_handle(q, op->file, create_reply);
		return;
	}
	/* Overtaken or removed meanwhile: what is there now? */
	inode_forget(q->fs->inodes, q->inode->nodeid, 1);
	q->inode = inode_put(q->fs->inodes, q->inode);
	if (r == -ESTALE && clock_ns() < q->ix.call.deadline_ns)
		create_look(q);
	else
		req_error(q, (int)r);
}

static void found_shown(struct req *q, const struct entry *e)
{
	struct attr a = e->attr;
	struct place place = e->place;
	int r = inode_show(q->fs->inodes, &a, place, q->looked_ns, &q->inode);

	index_op_fini(&q->ix);
	if (r == INODE_BUSY) {
		if (!req_again(q, create_look))
			req_error(q, -ETIMEDOUT);
		return;
	}
	if (r < 0) {
		req_error(q, r);
		return;
	}
	q->ix.place = place;
	open_inode(q, engine_flags(q), found_opened);
}

static void create_looked(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	const struct entry *e = &op->entry;

	if (r == INDEX_MISS) {
		index_op_fini(op);
		create_go(q);
	} else if (r) {
		req_error(q, r);
	} else if (e->draft || !S_ISREG(e->attr.mode) ||
		   !caller_may_open(q, &e->attr, q->flags)) {
		create_stale(q);
	} else {
		found_shown(q, e);
	}
}

static void create_look(struct req *q)
{
	req_place(q);
	q->looked_ns = clock_ns();
	q->ix.done = create_looked;
	index_lookup(q->fs->ix, &q->ix);
}

/*
 * The kernel would look again but once, and where mounts create and remove one name
 * all the time it could meet that twice. It takes for an answer that there was a file
 * by now; but it does not ask then whether the caller may open it: so only if that is
 * certain.
 */
static void create_found(struct req *q)
{
	if (!q->fs->shared) {
		create_stale(q);
		return;
	}
	index_op_fini(&q->ix);
	mask_of(q, q->flags);
	if (!q->handle)
		q->handle = handle_new(q->fs, false);
	if (q->handle)
		create_look(q);
	else
		req_error(q, -ENOMEM);
}

static void create_go(struct req *q)
{
	q->ix.done = create_done;
	move_begin(q->fs);
	index_draft(q->fs->ix, &q->ix);
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
	create_go(q);
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
	create_go(q);
}

/* mknod of a regular file: open, publish, close, and look at what came of it. */
static void mknod_look(struct req *q);

static void mknod_looked(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!q->retried)
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
	q->retried = true;
	if (r == INDEX_MISS)
		req_missed(q, mknod_look, -ENOENT); /* somebody has taken it away at once */
	else if (r)
		req_error(q, r);
	else
		req_entry(q, &op->entry.attr, op->entry.place, mknod_look);
}

static void mknod_look(struct req *q)
{
	req_place(q);
	q->ix.done = mknod_looked;
	index_stat(q->fs->ix, &q->ix);
}

static void mknod_closed(struct req *q, int64_t r)
{
	index_op_fini(&q->ix);
	if (r < 0) {
		inode_forget(q->fs->inodes, q->inode->nodeid, 1);
		req_error(q, (int)r);
		return;
	}
	mknod_look(q);
}

void draft_for_mknod(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct fuse_file_info fi;

	if (r) {
		move_end(q->fs);
		req_error(q, r == -ENOENT ? away_error(q) : r);
		return;
	}
	q->flags = O_WRONLY;
	struct handle *h = draft_open(q, &fi);
	if (h)
		handle_close(q->fs, h, mknod_closed, q);
}
