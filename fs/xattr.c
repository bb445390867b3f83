/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes and ACLs. The kernel asks for security.capability before
 * each write through its cache, so "there is none" is answered from the inode,
 * without the index, for objects that certainly have none.
 *
 * Two are read only and not stored: `slicefs.layout`, where the object's bytes
 * are, and on the root `slicefs.control`, the control directory's name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/priv.h"

#define LAYOUT "slicefs.layout"
#define CONTROL "slicefs.control"
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

/* Answers a query: the size, or the bytes if they fit. */
static void reply_bytes(struct req *q, struct bytes b)
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

/* layout ---------------------------------------------------------------------- */

static void put(struct writer *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n > 0)
		write_bytes(w, line, (size_t)n);
}

static int put_extents(struct writer *w, struct bytes body)
{
	struct extents v = { 0 };
	int r = body_decode_extents(body, &v);

	if (r < 0)
		return r;
	put(w, ",\"extents\":[");
	for (uint32_t i = 0; i < v.n; i++)
		put(w, "%s{\"offset\":%" PRIu64 ",\"bytes\":%u,\"pool\":\"%016" PRIx64
		       "\",\"slice\":%u,\"generation\":%u,\"slice_offset\":%u}",
		    i ? "," : "", v.v[i].page * PAGE_BYTES,
		    v.v[i].npages * PAGE_BYTES, v.v[i].pool_id, v.v[i].slice,
		    v.v[i].gen, v.v[i].slice_off * PAGE_BYTES);
	put(w, "]");
	extents_fini(&v);
	return 0;
}

static int put_blocks(struct writer *w, struct bytes body)
{
	struct block_ref *v;
	uint32_t n;
	int r = body_decode_blocks(body, &v, &n);

	if (r < 0)
		return r;
	put(w, ",\"blocks\":[");
	for (uint32_t i = 0; i < n; i++)
		put(w, "%s{\"region\":%" PRIu64 ",\"id\":%" PRIu64 "}",
		    i ? "," : "", v[i].region, v[i].id);
	put(w, "]");
	free(v);
	return 0;
}

/* Of the published version: what is being written is not laid out yet. */
static int put_layout(struct writer *w, const struct entry *e)
{
	static const char *const kinds[] = {
		[BODY_NONE] = "none",
		[BODY_INLINE] = "inline",
		[BODY_EXTENTS] = "extents",
		[BODY_BLOCKS] = "blocks",
		[BODY_TREE] = "tree",
	};
	int r = 0;

	put(w, "{\"fileid\":%" PRIu64 ",\"version\":%" PRIu64 ",\"size\":%" PRIu64
	       ",\"pages\":%" PRIu64 ",\"body\":\"%s\"",
	    e->attr.fileid, e->attr.version, e->attr.size, e->attr.pages,
	    kinds[e->body.kind]);
	if (e->body.kind == BODY_EXTENTS)
		r = put_extents(w, e->body.bytes);
	else if (e->body.kind == BODY_BLOCKS || e->body.kind == BODY_TREE)
		r = put_blocks(w, e->body.bytes);
	put(w, "}\n");
	return r < 0 ? r : w->bad ? -ENOMEM : 0;
}

static void layout_done(struct index_op *op, int r);

static void layout_go(struct req *q)
{
	req_place(q);
	q->ix.done = layout_done;
	index_stat(q->fs->ix, &q->ix);
}

static void layout_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	_cleanup_(writer_fini) struct writer w = { 0 };

	if (r == INDEX_MISS || r == -ENOENT || (!r && op->entry.draft)) {
		req_missed(q, layout_go, -ENODATA);
		return;
	}
	if (!r)
		r = put_layout(&w, &op->entry);
	if (r < 0)
		req_error(q, r);
	else
		reply_bytes(q, writer_bytes(&w));
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
	else if (!inode_maybe_xattrs(q->fs->inodes, q->inode))
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
	if (inode_maybe_xattrs(q->fs->inodes, q->inode))
		get_go(q);
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

static void set_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	if (r == -ENODATA && q->kind == MOP_REMOVEXATTR) {
		not_there(q);
		return;
	}
	if (r == INDEX_MISS || r == -ENOENT) {
		req_missed(q, set_go, q->kind == MOP_SETXATTR ? -ENOENT : -ENODATA);
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
	else if (!inode_maybe_xattrs(q->fs->inodes, q->inode))
		not_there(q);
	else
		set_go(q);
}
