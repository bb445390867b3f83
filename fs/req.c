/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request: begun on a worker, answered exactly once from wherever
 * the core completes it, freed. Nobody waits for it: a worker goes back to the
 * kernel's queue as soon as the core has taken the call.
 *
 * Moves. An inode's place is where its record was after the last move. Between
 * the index's commit of a rename (link, publish, ...) and the note of it in the
 * inode table, another request may look in the old place. So:
 *
 *	a miss counts only if no move was under way or ended meanwhile.
 *
 * Who moves something calls move_begin() before the index and move_end() after
 * the inode table knows. Who misses calls req_again(): it starts over if a move
 * has ended since it looked, waits for the next end if one is under way, and
 * believes the miss otherwise. Moves are short and have deadlines, so does the
 * request.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/priv.h"

/*
 * A signal has come for the caller, who still waits for the answer. Local file
 * systems are not interrupted but by death: programs do not expect EINTR from a
 * file because a timer, a child or a profiler calls, and the kernel does not
 * begin such a call again. So it is given up only for who will not see it.
 */
static void interrupted(fuse_req_t f, void *arg)
{
	struct req *q = arg;

	if (!caller_is_dying(f))
		return;
	atomic_store(&q->ix.call.cancelled, true);
	atomic_store(&q->file.call.cancelled, true);
}

struct req *req_begin(fuse_req_t f, enum metric_op kind)
{
	struct fs *fs = fuse_req_userdata(f);
	struct req *q = calloc(1, sizeof(*q));

	if (!q) {
		fuse_reply_err(f, ENOMEM);
		return NULL;
	}
	q->fuse = f;
	q->fs = fs;
	q->kind = kind;
	q->start_ns = q->since_ns = clock_ns();
	q->ix.arg = q->file.arg = q;
	q->ix.call.deadline_ns = q->file.call.deadline_ns =
		q->start_ns + fs->timeout_ms * NS_PER_MS;
	q->buf = rbuf_hold(); /* names and bytes that libfuse points to */
	atomic_fetch_add(&fs->pending, 1);
	metric_add(M_REQUESTS, 1);
	fuse_req_interrupt_func(f, interrupted, q);
	lately_begin(q);
	if (fs->shared)
		away_begin(q);
	return q;
}

struct req *req_begin_on(fuse_req_t f, enum metric_op kind, fuse_ino_t ino)
{
	struct req *q = req_begin(f, kind);

	if (!q)
		return NULL;
	q->inode = inode_get(q->fs->inodes, ino);
	if (q->inode) {
		away_take(q);
		return q;
	}
	req_error(q, is_control(ino) ? -EPERM : -ESTALE);
	return NULL;
}

void req_enter(struct req *q, uint64_t dir)
{
	if (!q->fs->watched)
		return;
	assert(!q->dirs[1]);
	q->dirs[q->dirs[0] != 0] = dir;
	watched_enter(q->fs->watched, dir);
	watched_use(q->fs->watched, dir);
	q->since_ns = clock_ns();
}

/* A name may be there by it that was not. */
static bool publishes(enum metric_op kind)
{
	switch (kind) {
	case MOP_FLUSH:
	case MOP_FSYNC:
	case MOP_RELEASE:
	case MOP_RENAME:
	case MOP_LINK:
	case MOP_MKDIR:
	case MOP_MKNOD:
	case MOP_SYMLINK:
		return true;
	default:
		return false;
	}
}

fuse_req_t req_answer(struct req *q, int err)
{
	assert(!q->answered);
	q->answered = true;
	/* Waits for a running interrupted(): q may be freed afterwards. */
	fuse_req_interrupt_func(q->fuse, NULL, NULL);
	lately_end(q, err);
	metric_op_done(q->kind, clock_ns() - q->start_ns, err);
	if (err != ESTALE)
		away_over(q);
	if (q->fs->shared && (publishes(q->kind) || q->sync))
		waits_ring(q->fs->waits);
	/* Before the answer, so that who got it finds the gauge down. */
	metric_add(M_REQUESTS, -1);
	return q->fuse;
}

void req_see_through(struct req *q)
{
	/* Waits for a running interrupted(). */
	fuse_req_interrupt_func(q->fuse, NULL, NULL);
	atomic_store(&q->ix.call.cancelled, false);
	atomic_store(&q->file.call.cancelled, false);
}

void req_free(struct req *q)
{
	struct fs *fs = q->fs;

	assert(q->answered);
	index_op_fini(&q->ix);
	inode_put(fs->inodes, q->inode);
	rbuf_drop(q->buf);
	if (q->handle)
		handle_free(fs, q->handle);
	promise_drop(fs, q->promise);
	for (unsigned i = 0; i < 2; i++)
		if (q->dirs[i])
			watched_leave(fs->watched, q->dirs[i]);
	if (q->known)
		file_unref(q->known);
	free(q->text);
	free(q);
	atomic_fetch_sub(&fs->pending, 1);
}

void req_error(struct req *q, int r)
{
	/* Positive outcomes that an op has no meaning for: it is not there. */
	int err = r > 0 ? ENOENT : r == -ECANCELED ? EINTR : -r;

	if (r == -ESTALE && away_note(q))
		err = ENOENT;
	fuse_reply_err(req_answer(q, err), err);
	req_free(q);
}

void req_ok(struct req *q)
{
	fuse_reply_err(req_answer(q, 0), 0);
	req_free(q);
}

void req_attr(struct req *q, const struct attr *a)
{
	struct stat st;

	inode_told(q->fs->inodes, q->inode, a);
	if (q->statx) {
		reply_statx(q, a);
		return;
	}
	attr_to_stat(a, &st);
	double keeps = req_attr_keeps(q, a);
	fuse_reply_attr(req_answer(q, 0), &st, keeps);
	req_free(q);
}

/* Rings tell of what is with its one name only; and of two nodeids of an object it is
 * the one that all names show. */
static bool is_rung(const struct fs *fs, const struct inode *i, const struct attr *a)
{
	return fs->watched && i->nodeid == i->fileid && (S_ISDIR(a->mode) || a->nlink == 1);
}

static double seconds(const struct fs *fs, enum watched_for how)
{
	const double soon = WATCHED_SOON_MS / 1000.0;

	if (how == WATCHED_KEEP)
		return WATCHED_CACHE_S;
	return how == WATCHED_SOON && soon < fs->cache_s ? soon : fs->cache_s;
}

/* Names have been made or removed since it was asked for, or are. Who did that is answered
 * before us, maybe, and upon that the kernel asks again; our word, heard then, would count
 * as newer. Elsewhere it counts for a moment only, or rings tell of it. */
static bool may_be_old(struct req *q, const struct attr *a)
{
	struct moves *m = &q->fs->moves;

	if (q->fs->shared || !S_ISDIR(a->mode) || q->kind == MOP_MKDIR)
		return false;
	WITH_LOCK(&m->lock);
	return m->busy || m->ended != q->moves_seen;
}

void req_entry_keeps(struct req *q, const char *name, struct inode *i,
		     const struct attr *a, struct place p, struct fuse_entry_param *e)
{
	const struct fs *fs = q->fs;
	bool dir = S_ISDIR(a->mode);

	e->attr_timeout = may_be_old(q, a) ? 0 : fs->cache_s;
	e->entry_timeout = fs->cache_s;
	if (q->promises) {
		e->entry_timeout = 0;
		return;
	}
	/* An open finds out that the name is not its object's any more by the place of
	 * the record (FILE_HERE); that of several names is not with one of them. */
	if (fs->shared && p.kind == PLACE_FILEID && S_ISREG(a->mode))
		e->entry_timeout = 0;
	if (!is_rung(fs, i, a) || !q->dirs[0] || !name || (p.kind == PLACE_FILEID && !dir))
		return;
	enum watched_for how = watched_name(fs->watched, q->dirs[0], name, i->nodeid, q->since_ns);
	double keeps = seconds(fs, how);
	if (how == WATCHED_KEEP)
		inode_name_kept(fs->inodes, i, clock_ns() + WATCHED_CACHE_S * NS_PER_S);
	e->entry_timeout = keeps;
	e->attr_timeout = dir ? seconds(fs, watched_dir_attr(fs->watched, i->nodeid,
							     q->since_ns))
			      : keeps;
}

double req_attr_keeps(struct req *q, const struct attr *a)
{
	struct watched *w = q->fs->watched;
	struct inode *i = q->inode;

	if (may_be_old(q, a))
		return 0;
	if (!is_rung(q->fs, i, a))
		return q->fs->cache_s;
	return seconds(q->fs, S_ISDIR(a->mode) ? watched_dir_attr(w, i->nodeid, q->since_ns)
					       : watched_attr(w, i->nodeid, q->since_ns));
}

void req_io_error(struct req *q, int64_t r)
{
	req_error(q, r == -ESTALE ? -EIO : (int)r);
}

bool req_maybe_xattrs(struct req *q)
{
	struct watched *w = q->fs->watched;
	struct inode *i = q->inode;
	bool dir = S_ISDIR(inode_mode(q->fs->inodes, i));

	return inode_maybe_xattrs(q->fs->inodes, i, w && watched_holds(w, i->nodeid, dir));
}

struct inode *req_show(struct req *q, struct attr *a, struct place p,
		       void (*again)(struct req *q))
{
	struct inode *i;
	int r = inode_show(q->fs->inodes, a, p, q->start_ns, &i);

	if (!r)
		return i;
	if (r == INODE_BUSY)
		req_missed(q, again, -ETIMEDOUT);
	else
		req_error(q, r);
	return NULL;
}

void req_reply_entry(struct req *q, struct inode *i, const struct attr *a, struct place p)
{
	struct fuse_entry_param e = {
		.ino = i->nodeid,
		.generation = GENERATION,
	};

	q->promises |= away_show(q, i->nodeid);
	req_entry_keeps(q, q->ix.name, i, a, p, &e);
	attr_to_stat(a, &e.attr);
	/* The request was interrupted and is gone: so is the lookup. */
	if (fuse_reply_entry(req_answer(q, 0), &e) == -ENOENT)
		inode_forget(q->fs->inodes, i->nodeid, 1);
	inode_put(q->fs->inodes, i);
	req_free(q);
}

void req_entry(struct req *q, const struct attr *known, struct place p,
	       void (*again)(struct req *q))
{
	struct attr a = *known;
	struct inode *i = req_show(q, &a, p, again);

	if (i)
		req_reply_entry(q, i, &a, p);
}

/* Moves ----------------------------------------------------------------------- */

void move_begin(struct fs *fs)
{
	WITH_LOCK(&fs->moves.lock);

	fs->moves.busy++;
}

void move_end(struct fs *fs)
{
	struct req *q;

	{
		WITH_LOCK(&fs->moves.lock);
		assert(fs->moves.busy);
		fs->moves.busy--;
		fs->moves.ended++;
		q = steal(&fs->moves.waiting);
	}
	while (q) {
		struct req *next = q->next;
		q->again(q);
		q = next;
	}
}

void req_place(struct req *q)
{
	{
		WITH_LOCK(&q->fs->moves.lock);
		q->moves_seen = q->fs->moves.ended;
	}
	if (!q->inode)
		return;
	q->ix.fileid = q->inode->fileid;
	q->ix.place = inode_place(q->fs->inodes, q->inode);
}

bool req_again(struct req *q, void (*again)(struct req *q))
{
	struct moves *m = &q->fs->moves;

	if (clock_ns() > q->ix.call.deadline_ns)
		return false;
	{
		WITH_LOCK(&m->lock);
		if (m->ended == q->moves_seen) {
			if (!m->busy)
				return false;
			q->again = again;
			q->next = m->waiting;
			m->waiting = q;
			return true;
		}
	}
	again(q);
	return true;
}

bool req_inode_again(struct req *q, void (*again)(struct req *q))
{
	bool knew = q->ix.place.kind == PLACE_NONE && inode_is_gone(q->fs->inodes, q->inode);

	return !knew && req_again(q, again);
}

void req_missed(struct req *q, void (*again)(struct req *q), int err)
{
	index_op_fini(&q->ix);
	if (!req_again(q, again))
		req_error(q, err);
}

bool req_made_room(struct req *q, int64_t r)
{
	if (r != -ENOSPC || q->retried)
		return false;
	q->retried = true;
	return inodes_drop_kept(q->fs->inodes);
}

struct file_op *req_file(struct req *q, struct file *f,
			 void (*done)(struct file_op *op, int64_t r))
{
	uint64_t deadline_ns = q->file.call.deadline_ns;

	q->file.file = f;
	q->file.to = q->file.known = NULL;
	q->file.off = q->file.off2 = q->file.len = 0;
	q->file.mode = 0;
	q->file.done = done;
	q->file.call.deadline_ns = deadline_ns;
	return &q->file;
}
