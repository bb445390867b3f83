/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names: lookup and forget, make, link, remove, rename. Each is
 * one call of the index; then the inode table is told, then the kernel.
 *
 * The kernel holds the lock of each directory that an operation changes, and
 * that of each object whose name it changes, until the answer. So a lookup
 * never runs beside a change of the name that it looks for; what does run
 * beside (attributes, publishing) is sorted out in inode.c and req.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/crash.h"
#include "fs/priv.h"

/* lookup ---------------------------------------------------------------------- */

bool entry_attr(struct fs *fs, const struct entry *e, struct attr *ret)
{
	struct inode *i;
	bool here;

	*ret = e->attr;
	if (!e->draft)
		return true;
	i = inode_get(fs->inodes, e->attr.fileid);
	here = i && inode_attr_here(fs->inodes, i, ret);
	inode_put(fs->inodes, i);
	return here;
}

static void lookup_done(struct index_op *op, int r);

static void lookup_go(struct req *q)
{
	req_place(q);
	q->ix.parent = q->off;
	q->ix.flags = q->fs->shared ? LOOKUP_CHECK_DIR : 0;
	q->ix.done = lookup_done;
	index_lookup(q->fs->ix, &q->ix);
}

/* It has gone, is open as something else by now, or about to be. */
static void promise_again(struct req *q)
{
	if (clock_ns() > q->ix.call.deadline_ns)
		req_error(q, -ETIMEDOUT);
	else if (!req_again(q, lookup_go))
		lookup_go(q);
}

static unsigned promise_flags(struct req *q)
{
	return q->fs->read_only ? 0 : FILE_WRITE;
}

/* What has been found is open: it is held for who is going to open it (away.c). */
static void promise_made(struct file_op *op, int64_t r)
{
	struct req *q = op->arg;
	struct attr a;

	if (r < 0) {
		/* Gone since: what is there now? Else do without. */
		q->no_promise = r != -ESTALE;
		promise_again(q);
		return;
	}
	struct place place = q->ix.place;
	struct fuse_file_info fi;
	struct inode *i;
	file_attr(op->file, &a);
	/* Others may have changed attributes since it was opened here. */
	if (q->attr.version && a.version == q->attr.version)
		a = q->attr;
	if (!q->handle || inode_show(q->fs->inodes, &a, place, q->start_ns, &i)) {
		req_leave(q, promise_flags(q), promise_again);
		return;
	}
	q->inode = i;
	struct handle *h = handle_open(q, op->file, promise_flags(q), &fi);
	if (!h) {
		inode_forget(q->fs->inodes, i->nodeid, 1);
		q->inode = inode_put(q->fs->inodes, i);
		req_leave(q, promise_flags(q), promise_again);
		return;
	}
	away_promise(q, h);
	q->inode = NULL;
	req_reply_entry(q, i, &a, place);
}

static void promise(struct req *q)
{
	struct place place = q->ix.entry.place;
	uint64_t fileid = q->ix.entry.attr.fileid;

	q->attr = q->ix.entry.attr;
	index_op_fini(&q->ix);
	q->ix.place = place;
	q->flags = O_WRONLY;
	if (!q->handle)
		q->handle = handle_new(q->fs, false);
	q->no_promise = !q->handle;
	file_open(q->fs->engine, fileid, place, FILE_HERE | promise_flags(q),
		  req_file(q, NULL, promise_made));
}

static bool must_promise(struct req *q, const struct entry *e)
{
	return away_is(q) && S_ISREG(e->attr.mode) && !q->no_promise;
}

static void lookup_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct attr a;

	if (r == -ESTALE && away_may_go(q)) {
		/* Another mount has removed the directory, and there may be a new one. */
		req_error(q, r);
	} else if (r) {
		away_missed(q);
		metric_add(M_MISSES, r == INDEX_MISS);
		req_error(q, r == INDEX_MISS || r == -ESTALE ? -ENOENT : r);
	} else if (!entry_attr(q->fs, &op->entry, &a)) {
		/* Of a draft that is just being made there is nothing to open yet: the kernel
		 * asks about names that it has without the directory's lock. */
		if (away_is(q)) {
			index_op_fini(op);
			promise_again(q);
		} else {
			req_missed(q, lookup_go, -ESTALE);
		}
	} else if (must_promise(q, &op->entry)) {
		promise(q);
	} else {
		away_found(q);
		req_entry(q, &a, op->entry.place, lookup_go);
	}
}

/* "." and "..", which only the NFS server and open_by_handle_at() look up, maybe
 * of an inode that the kernel has forgotten: then only the index knows it. */
static void dot_go(struct req *q);

static void dot_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct attr a;

	if (r || !entry_attr(q->fs, &op->entry, &a)) {
		req_error(q, r < 0 ? r : -ESTALE);
		return;
	}
	q->off = op->entry.attr.fileid;
	req_entry(q, &a, op->entry.place, dot_go);
}

static void dot_go(struct req *q)
{
	q->ix.fileid = q->off;
	q->ix.place = (struct place){ .kind = PLACE_FILEID };
	if (q->inode && q->inode->fileid == q->off)
		req_place(q);
	q->ix.done = dot_done;
	index_stat(q->fs->ix, &q->ix);
}

static void dotdot_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	uint64_t parent = op->entry.parent;

	index_op_fini(op);
	if (r) {
		req_error(q, r < 0 ? r : -ESTALE);
		return;
	}
	op->fileid = parent ? parent : INDEX_ROOT;
	op->place = (struct place){ .kind = PLACE_FILEID };
	op->done = dot_done;
	index_stat(q->fs->ix, op);
}

static void lookup_dot(struct req *q, uint64_t fileid, bool parent)
{
	q->inode = inode_get(q->fs->inodes, fileid);
	req_place(q);
	if (!q->inode) {
		q->ix.fileid = fileid;
		q->ix.place = (struct place){ .kind = PLACE_FILEID };
	}
	struct attr a;
	if (!parent && q->inode &&
	    inode_attr_here(q->fs->inodes, q->inode, &a)) {
		req_entry(q, &a, q->ix.place, dot_go);
		return;
	}
	q->ix.done = parent ? dotdot_done : dot_done;
	index_stat(q->fs->ix, &q->ix);
}

void fs_lookup(fuse_req_t f, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fuse_req_userdata(f);

	if (is_control(parent) || is_control_name(fs, parent, name)) {
		control_lookup(f, parent, name);
		return;
	}
	struct req *q = req_begin(f, MOP_LOOKUP);
	if (!q)
		return;
	if (!strcmp(name, ".") || !strcmp(name, "..")) {
		lookup_dot(q, parent, name[1]);
		return;
	}
	req_enter(q, parent);
	q->off = parent;
	q->ix.name = name;
	lookup_go(q);
}

void fs_forget(fuse_req_t f, fuse_ino_t ino, uint64_t n)
{
	struct fs *fs = fuse_req_userdata(f);

	inode_forget(fs->inodes, ino, n);
	fuse_reply_none(f);
}

void fs_forget_multi(fuse_req_t f, size_t n, struct fuse_forget_data *v)
{
	struct fs *fs = fuse_req_userdata(f);

	for (size_t i = 0; i < n; i++)
		inode_forget(fs->inodes, v[i].ino, v[i].nlookup);
	fuse_reply_none(f);
}

/* mknod, mkdir, symlink -------------------------------------------------------- */

static int may_make(struct fs *fs, fuse_ino_t parent, const char *name)
{
	if (is_control(parent))
		return -EPERM;
	return is_control_name(fs, parent, name) ? -EEXIST : 0;
}

static void made(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (r)
		req_error(q, r == -ENOENT ? away_error(q) : r);
	else
		req_entry(q, &op->entry.attr, op->entry.place, NULL);
}

static struct req *begin_make(fuse_req_t f, enum metric_op kind,
			      fuse_ino_t parent, const char *name, mode_t mode)
{
	struct req *q = req_begin(f, kind);
	int r;

	if (!q)
		return NULL;
	r = may_make(q->fs, parent, name);
	if (r < 0) {
		req_error(q, r);
		return NULL;
	}
	new_object(q, parent, name, mode);
	q->ix.done = made;
	return q;
}

void fs_mknod(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev)
{
	struct req *q = begin_make(f, MOP_MKNOD, parent, name, mode);

	if (!q)
		return;
	q->ix.attr.rdev = rdev;
	if (S_ISREG(mode)) {
		q->ix.flags = O_EXCL;
		q->ix.done = draft_for_mknod;
		move_begin(q->fs);
		index_draft(q->fs->ix, &q->ix);
	} else {
		index_make(q->fs->ix, &q->ix);
	}
}

void fs_mkdir(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct req *q = begin_make(f, MOP_MKDIR, parent, name,
				   S_IFDIR | (mode & 07777));

	if (q)
		index_make(q->fs->ix, &q->ix);
}

void fs_symlink(fuse_req_t f, const char *target, fuse_ino_t parent,
		const char *name)
{
	struct req *q = begin_make(f, MOP_SYMLINK, parent, name, S_IFLNK | 0777);

	if (!q)
		return;
	q->ix.umask = 0;
	q->ix.body = (struct body){ BODY_INLINE, bytes_str(target) };
	index_make(q->fs->ix, &q->ix);
}

/* link ------------------------------------------------------------------------ */

static void link_done(struct index_op *op, int r);
static void link_check(struct req *q);
static void link_go(struct req *q);

/* What became of it, by the index. */
static void link_look(struct req *q)
{
	index_op_fini(&q->ix);
	req_place(q);
	q->ix.done = dot_done;
	index_stat(q->fs->ix, &q->ix);
}

/* The kernel says what is linked, and not by what name it came to it. */
static void link_found(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct place place = op->entry.place;

	index_op_fini(op);
	if (r == INDEX_MISS || r == -ENOENT)
		req_missed(q, link_check, -ESTALE);
	else if (r)
		req_error(q, r);
	else if (!q->away_ns && !q->back && !inode_is_at(q->fs->inodes, q->inode, &place))
		req_missed(q, link_check, -ESTALE);
	else
		link_go(q);
}

static void link_check(struct req *q)
{
	req_place(q);
	q->ix.done = link_found;
	index_stat(q->fs->ix, &q->ix);
}

static void link_go(struct req *q)
{
	move_begin(q->fs);
	req_place(q);
	q->ix.done = link_done;
	index_link(q->fs->ix, &q->ix);
}

static void link_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct entry *e = &op->entry;
	struct attr a;

	if (!r)
		inode_moved(q->fs->inodes, e, true);
	if (!r && q->fs->watched) /* with several names no ring tells of it */
		watched_forget(q->fs->watched, e->attr.fileid);
	move_end(q->fs);
	if (r == INDEX_MISS) {
		q->moves_seen++; /* our own move's end is no news */
		req_missed(q, link_go, q->fs->shared ? -ESTALE : -ENOENT);
	} else if (r) {
		req_error(q, r == -ENOENT ? away_error(q) : r);
	} else if (entry_attr(q->fs, e, &a)) {
		req_entry(q, &a, e->place, link_look);
	} else {
		link_look(q); /* published since */
	}
}

void fs_link(fuse_req_t f, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct req *q = req_begin_on(f, MOP_LINK, ino);

	if (!q)
		return;
	int r = may_make(q->fs, parent, name);
	if (r < 0) {
		req_error(q, r);
		return;
	}
	req_enter(q, parent);
	q->ix.parent = parent;
	q->ix.name = name;
	if (q->fs->shared)
		link_check(q);
	else
		link_go(q);
}

/* unlink, rmdir, rename --------------------------------------------------------- */

static void take_gone(struct fs *fs, const struct gone *g)
{
	if (!g->fileid)
		return;
	inode_gone(fs->inodes, g);
	if (g->draft || g->attr.nlink)
		return;
	notify_kept(fs);
	if (inode_keep(fs->inodes, g))
		return;
	if (!g->hidden && g->body.kind != BODY_NONE)
		engine_drop(fs->engine, g);
}

static void remove_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!r) {
		crash_point(CRASH_UNLINK_COMMITTED);
		bool plain = op->gone.fileid && !op->gone.draft && !op->gone.hidden;
		lately_touched(q->fs, op->parent, plain ? &op->gone.attr.ctime : NULL);
		take_gone(q->fs, &op->gone);
		take_gone(q->fs, &op->gone2);
	}
	move_end(q->fs);
	if (r)
		req_error(q, r);
	else
		req_ok(q);
}

static struct req *begin_remove(fuse_req_t f, enum metric_op kind,
				fuse_ino_t parent, const char *name)
{
	struct req *q = req_begin(f, kind);

	if (!q)
		return NULL;
	if (is_control(parent) || is_control_name(q->fs, parent, name)) {
		req_error(q, -EPERM);
		return NULL;
	}
	req_enter(q, parent);
	q->ix.parent = parent;
	q->ix.name = name;
	q->ix.done = remove_done;
	move_begin(q->fs);
	return q;
}

void fs_unlink(fuse_req_t f, fuse_ino_t parent, const char *name)
{
	struct req *q = begin_remove(f, MOP_UNLINK, parent, name);

	if (q)
		index_unlink(q->fs->ix, &q->ix);
}

void fs_rmdir(fuse_req_t f, fuse_ino_t parent, const char *name)
{
	struct req *q = begin_remove(f, MOP_RMDIR, parent, name);

	if (q)
		index_rmdir(q->fs->ix, &q->ix);
}

/* It went from (parent, name). If the kernel has it by another name as well, since
 * another mount has moved it before, that one is not to be believed any more. */
static void moved(struct fs *fs, const struct entry *e, uint64_t parent, const char *name)
{
	struct place p;

	if (!e->attr.fileid)
		return;
	if (fs->shared && inode_place_of(fs->inodes, e->attr.fileid, &p) &&
	    p.kind == PLACE_NAME &&
	    (p.parent != parent || !index_name_fits(fs->ix, name, p.h)))
		inode_doubt(fs->inodes, e->attr.fileid);
	inode_moved(fs->inodes, e, false);
}

static void kept_moved(struct req *q, const struct entry *e, uint64_t parent, const char *name)
{
	if (e->attr.fileid && q->fs->watched)
		watched_moved(q->fs->watched, e->attr.fileid, parent, name, q->since_ns);
}

/* The kernel may have kept a listing of the directory that moved, with "..", and only
 * asks for another when its mtime has moved. Dropping pages takes no directory's lock. */
static void forget_dotdot(struct req *q, const struct entry *e, void (*next)(struct req *q))
{
	if (e->attr.fileid && S_ISDIR(e->attr.mode) && q->ix.parent != q->ix.parent2)
		notify_range(q->fs, e->attr.fileid, 0, 0, next, q);
	else
		next(q);
}

static void dotdot_forgotten(struct req *q)
{
	forget_dotdot(q, &q->ix.entry2, req_ok);
}

static void rename_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!r) {
		crash_point(CRASH_RENAME_COMMITTED);
		moved(q->fs, &op->entry, op->parent, op->name);
		moved(q->fs, &op->entry2, op->parent2, op->name2);
		kept_moved(q, &op->entry, op->parent2, op->name2);
		kept_moved(q, &op->entry2, op->parent, op->name);
		take_gone(q->fs, &op->gone);
		take_gone(q->fs, &op->gone2);
	}
	move_end(q->fs);
	if (r)
		req_error(q, r);
	else
		forget_dotdot(q, &op->entry, dotdot_forgotten);
}

void fs_rename(fuse_req_t f, fuse_ino_t parent, const char *name,
	       fuse_ino_t parent2, const char *name2, unsigned flags)
{
	struct req *q = req_begin(f, MOP_RENAME);

	if (!q)
		return;
	if (is_control(parent) || is_control(parent2) ||
	    is_control_name(q->fs, parent, name) ||
	    is_control_name(q->fs, parent2, name2)) {
		req_error(q, -EPERM);
		return;
	}
	req_enter(q, parent);
	if (parent2 != parent)
		req_enter(q, parent2);
	q->ix.parent = parent;
	q->ix.name = name;
	q->ix.parent2 = parent2;
	q->ix.name2 = name2;
	q->ix.flags = flags;
	q->ix.done = rename_done;
	move_begin(q->fs);
	index_rename(q->fs->ix, &q->ix);
}
