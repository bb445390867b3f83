/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes and ACLs. The kernel asks for security.capability before
 * each write through its cache, so "there is none" is answered from the inode,
 * without the index, for objects that certainly have none.
 *
 * Two are read only and not stored: `slicefs.layout`, where the object's bytes
 * are (layout.c), and on the root `slicefs.control`, the control directory's name.
 * `user.slicefs.*` are in the record: keep.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/priv.h"

#define LAYOUT "slicefs.layout"
#define CONTROL "slicefs.control"
#define CAPABILITY "security.capability"
#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

static bool is_acl(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

static bool has_prefix(const char *name, const char *prefix)
{
	return !strncmp(name, prefix, strlen(prefix));
}

/* The namespaces that there are. The kernel has checked who may, but leaves
 * names that it does not know to the file system. */
static int check_name(const char *name)
{
	static const char *const spaces[] = { "user.", "trusted.", "security." };

	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (has_prefix(name, spaces[i]))
			return name[strlen(spaces[i])] ? 0 : -EINVAL;
	return is_acl(name) ? 0 : -EOPNOTSUPP;
}

void reply_bytes(struct req *q, struct bytes b)
{
	if (!q->size) {
		fuse_reply_xattr(req_answer(q, 0), b.len);
		req_free(q);
	} else if (q->size < b.len) {
		req_error(q, -ERANGE);
	} else {
		fuse_reply_buf(req_answer(q, 0), b.p, b.len);
		req_free(q);
	}
}

/* A request on ino, unless xattrs are off: the kernel then asks no more. */
static struct req *begin(fuse_req_t f, enum metric_op kind, fuse_ino_t ino)
{
	struct fs *fs = fuse_req_userdata(f);

	if (!fs->xattrs) {
		fuse_reply_err(f, ENOSYS);
		return NULL;
	}
	if (is_control(ino)) {
		fuse_reply_err(f, kind == MOP_SETXATTR ? EPERM : ENODATA);
		return NULL;
	}
	return req_begin_on(f, kind, ino);
}

/* get, list --------------------------------------------------------------------- */

static void got(struct index_op *op, int r);

static void get_go(struct req *q)
{
	req_place(q);
	q->ix.done = got;
	if (q->kind == MOP_GETXATTR)
		index_getxattr(q->fs->ix, &q->ix);
	else
		index_listxattr(q->fs->ix, &q->ix);
}

/* Only root sees the names of trusted.*, as he alone may read them. */
static void reply_names(struct req *q, struct bytes all)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	const char *end = (const char *)all.p + all.len;

	for (const char *n = (const char *)all.p; n < end; n += strlen(n) + 1)
		if (!fuse_req_ctx(q->fuse)->uid || !has_prefix(n, "trusted."))
			write_bytes(&w, n, strlen(n) + 1);
	keep_list(&q->now.keep, &w);
	if (w.bad)
		req_error(q, -ENOMEM);
	else
		reply_bytes(q, writer_bytes(&w));
}

static void got(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (r == INDEX_MISS || r == -ENOENT)
		req_error(q, -ENODATA);
	else if (r)
		req_error(q, r);
	else if (q->kind == MOP_LISTXATTR)
		reply_names(q, op->bytes);
	else
		reply_bytes(q, op->bytes);
}

void fs_getxattr(fuse_req_t f, fuse_ino_t ino, const char *name, size_t size)
{
	struct req *q = begin(f, MOP_GETXATTR, ino);

	if (!q)
		return;
	int r = check_name(name);
	q->size = size;
	q->ix.name = name;
	if (!strcmp(name, LAYOUT))
		layout_go(q);
	else if (ino == FUSE_ROOT_ID && !strcmp(name, CONTROL))
		reply_bytes(q, bytes_str(q->fs->control));
	else if (r < 0)
		req_error(q, has_prefix(name, "slicefs.") ? -ENODATA : r);
	else if (keep_what(name))
		keep_get_go(q);
	else if (!req_maybe_xattrs(q))
		req_error(q, -ENODATA);
	else
		get_go(q);
}

void fs_listxattr(fuse_req_t f, fuse_ino_t ino, size_t size)
{
	struct req *q;

	if (is_control(ino)) {
		if (size)
			fuse_reply_buf(f, NULL, 0);
		else
			fuse_reply_xattr(f, 0);
		return;
	}
	q = begin(f, MOP_LISTXATTR, ino);
	if (!q)
		return;
	q->size = size;
	if (req_maybe_xattrs(q) || inode_maybe_keep(q->fs->inodes, q->inode))
		learn_attr(q, get_go);
	else
		reply_bytes(q, BYTES_NONE);
}

/* set, remove ------------------------------------------------------------------- */

static void set_done(struct index_op *op, int r);

static void set_go(struct req *q)
{
	req_place(q);
	/* For a draft the index goes by these. */
	inode_attr_here(q->fs->inodes, q->inode, &q->ix.attr);
	q->ix.done = set_done;
	if (q->kind == MOP_SETXATTR)
		index_setxattr(q->fs->ix, &q->ix);
	else
		index_removexattr(q->fs->ix, &q->ix);
}

/* What the index did not set along with the xattr: a draft's attributes, which
 * it only says, and set-gid. */
static bool left_to_set(struct req *q, const struct entry *e)
{
	bool acl = q->kind == MOP_SETXATTR && !strcmp(q->ix.name, ACL_ACCESS);

	q->attr = e->attr;
	q->mask = INDEX_SET_MODE | INDEX_SET_CTIME;
	/* As with chmod. */
	if (!acl || !(e->attr.mode & S_ISGID) || !caller_is_outside(q, e->attr.gid))
		return e->draft;
	q->attr.mode &= ~(uint32_t)S_ISGID;
	return true;
}

/* Removing an ACL that is not there succeeds, and moves the ctime. */
static void not_there(struct req *q)
{
	if (!is_acl(q->ix.name)) {
		req_error(q, -ENODATA);
		return;
	}
	index_op_fini(&q->ix);
	q->mask = INDEX_SET_CTIME;
	q->attr.ctime = clock_now();
	change_attr(q, req_ok);
}

/* Who was sent away looked the path up again, and what he found has lost its name since: as if
 * it had a moment later. */
static void set_missed(struct req *q)
{
	int err = q->kind == MOP_SETXATTR ? -ENOENT : -ENODATA;

	index_op_fini(&q->ix);
	if (req_again(q, set_go))
		return;
	if (q->promise)
		req_ok(q);
	else
		req_error(q, q->fs->shared ? -ESTALE : err);
}

static void set_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	/* Whatever r is: a failed one may have been done. */
	if (!strcmp(q->ix.name, CAPABILITY))
		inode_has_capability(q->fs->inodes, q->inode);
	if (r == -ENODATA && q->kind == MOP_REMOVEXATTR) {
		not_there(q);
		return;
	}
	if (r == INDEX_MISS || r == -ENOENT) {
		set_missed(q);
		return;
	}
	if (r) {
		req_error(q, r);
		return;
	}
	inode_has_xattrs(q->fs->inodes, q->inode);
	if (left_to_set(q, &op->entry)) {
		index_op_fini(op);
		change_attr(q, req_ok);
		return;
	}
	inode_set_done(q->fs->inodes, q->inode, INDEX_SET_MODE | INDEX_SET_CTIME,
		       &op->entry.attr);
	req_ok(q);
}

void fs_setxattr(fuse_req_t f, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags)
{
	struct req *q = begin(f, MOP_SETXATTR, ino);

	if (!q)
		return;
	int r = has_prefix(name, "slicefs.") ? -EPERM : check_name(name);
	if (r < 0) {
		req_error(q, r);
		return;
	}
	q->ix.name = name;
	q->ix.value = BYTES_OF(value, size);
	q->ix.flags = (unsigned)flags;
	if (keep_what(name))
		keep_set_go(q);
	else
		set_go(q);
}

void fs_removexattr(fuse_req_t f, fuse_ino_t ino, const char *name)
{
	struct req *q = begin(f, MOP_REMOVEXATTR, ino);

	if (!q)
		return;
	int r = has_prefix(name, "slicefs.") ? -EPERM : check_name(name);
	q->ix.name = name;
	if (r < 0)
		req_error(q, r);
	else if (keep_what(name))
		keep_set_go(q);
	else if (!req_maybe_xattrs(q))
		not_there(q);
	else
		set_go(q);
}

/* What a write takes away ---------------------------------------------------------- */

static void capability_gone(struct index_op *op, int r);

static void capability_go(struct req *q)
{
	req_place(q);
	inode_attr_here(q->fs->inodes, q->inode, &q->ix.attr);
	q->ix.name = CAPABILITY;
	q->ix.done = capability_gone;
	index_removexattr(q->fs->ix, &q->ix);
}

static void capability_gone(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	bool missed = r == INDEX_MISS || r == -ENOENT;

	if (missed) {
		index_op_fini(op);
		if (req_inode_again(q, capability_go))
			return;
	} else if (r && r != -ENODATA) {
		req_io_error(q, r);
		return;
	} else {
		if (!r) /* the ctime is the write's */
			inode_set_done(q->fs->inodes, q->inode, 0, &op->entry.attr);
		index_op_fini(op);
		inode_no_capability(q->fs->inodes, q->inode, q->capability);
	}
	q->next_step(q);
}

void drop_capability(struct req *q, void (*next)(struct req *q))
{
	if (!q->fs->xattrs || !req_maybe_xattrs(q) ||
	    !inode_maybe_capability(q->fs->inodes, q->inode, &q->capability)) {
		next(q);
		return;
	}
	q->next_step = next;
	capability_go(q);
}
