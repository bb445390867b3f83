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

/* An entry's attributes as this mount shows them; false: it was a draft when
 * the index looked and is not any more. */
static bool show(struct req *q, const struct entry *e, struct attr *ret)
{
	struct inode *i;
	bool here;

	*ret = e->attr;
	if (!e->draft) {
		inode_attr_overlay(q->fs->inodes, e->attr.fileid, ret);
		return true;
	}
	i = inode_get(q->fs->inodes, e->attr.fileid);
	here = i && inode_attr_here(q->fs->inodes, i, ret);
	inode_put(q->fs->inodes, i);
	return here;
}

static void lookup_done(struct index_op *op, int r);

static void lookup_go(struct req *q)
{
	req_place(q);
	q->ix.parent = q->off;
	q->ix.done = lookup_done;
	index_lookup(q->fs->ix, &q->ix);
}

static void lookup_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct attr a;

	if (r) {
		req_error(q, r == INDEX_MISS ? -ENOENT : r);
	} else if (show(q, &op->entry, &a)) {
		req_entry(q, &a, op->entry.place);
	} else {
		req_missed(q, lookup_go, -ESTALE);
	}
}

/* "." and "..", which only the NFS server and open_by_handle_at() look up, maybe
 * of an inode that the kernel has forgotten: then only the index knows it. */
static void dot_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct attr a;

	if (r || !show(q, &op->entry, &a))
		req_error(q, r < 0 ? r : -ESTALE);
	else
		req_entry(q, &a, op->entry.place);
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
		req_entry(q, &a, q->ix.place);
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
		req_error(q, r);
	else
		req_entry(q, &op->entry.attr, op->entry.place);
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
	move_end(q->fs);
	if (r == INDEX_MISS) {
		q->moves_seen++; /* our own move's end is no news */
		req_missed(q, link_go, -ENOENT);
	} else if (r) {
		req_error(q, r);
	} else if (show(q, e, &a)) {
		req_entry(q, &a, e->place);
	} else {
		/* Published since: the index has the attributes now. */
		index_op_fini(op);
		req_place(q);
		op->done = dot_done;
		index_stat(q->fs->ix, op);
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
	q->ix.parent = parent;
	q->ix.name = name;
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

static void rename_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (!r) {
		crash_point(CRASH_RENAME_COMMITTED);
		if (op->entry.attr.fileid)
			inode_moved(q->fs->inodes, &op->entry, false);
		if (op->entry2.attr.fileid)
			inode_moved(q->fs->inodes, &op->entry2, false);
		take_gone(q->fs, &op->gone);
		take_gone(q->fs, &op->gone2);
	}
	move_end(q->fs);
	if (r)
		req_error(q, r);
	else
		req_ok(q);
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
	q->ix.parent = parent;
	q->ix.name = name;
	q->ix.parent2 = parent2;
	q->ix.name2 = name2;
	q->ix.flags = flags;
	q->ix.done = rename_done;
	move_begin(q->fs);
	index_rename(q->fs->ix, &q->ix);
}
