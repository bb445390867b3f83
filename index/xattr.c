/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes: X keys of a published object, x keys of a draft, with their
 * flags in the record. Two of them are ACLs, which are tied to the mode: setting
 * system.posix_acl_access sets the mode, chmod rewrites the list, a list that says
 * no more than the mode is not stored, and a directory's system.posix_acl_default
 * is inherited by what is made in it.
 *
 * All attributes of an object are few enough to be moved or deleted in one
 * transaction (INDEX_XATTRS_MAX, INDEX_XATTRS_BYTES_MAX). Each change rewrites the record (or
 * a draft's `w`), which is what makes two changes, or a change and a publish,
 * notice each other.
 */
#include <errno.h>
#include <linux/limits.h>
#include <sys/xattr.h>

#include "common/cleanup.h"
#include "index/acl.h"
#include "index/ops.h"

static struct key key_of(struct plan *p, char kind, uint64_t fileid, struct bytes name)
{
	return kind == 'X' ? key_xattr(fileid, name) : own_xattr(p, fileid, name);
}

static int xattr_name(const struct index_op *op, struct bytes *ret)
{
	struct bytes name = bytes_str(op->name);

	if (!name.len)
		return -EINVAL;
	if (name.len > INDEX_NAME_MAX)
		return -ERANGE;
	*ret = name;
	return 0;
}

static void xattr_put(struct plan *p, char kind, uint64_t fileid, struct bytes name,
		      struct bytes value)
{
	plan_put_encoded(p, key_of(p, kind, fileid, name), xattr_encode, value);
}

static void acl_put(struct plan *p, char kind, uint64_t fileid, const char *name,
		    const struct acl *acl)
{
	struct writer w = { 0 };

	acl_encode(acl, &w);
	if (w.bad)
		plan_put_writer(p, key_of(p, kind, fileid, bytes_str(name)), &w); /* says so */
	else
		xattr_put(p, kind, fileid, bytes_str(name), writer_bytes(&w));
	writer_fini(&w);
}

/* INDEX_MISS: it has none. */
static int acl_get(struct plan *p, char kind, uint64_t fileid, const char *name, struct acl *ret)
{
	const struct kv_row *row;
	struct bytes value;
	int r = plan_get(p, key_of(p, kind, fileid, bytes_str(name)), &row);

	if (!r)
		r = xattr_decode(row->value, &value);
	if (!r && acl_decode(value, ret))
		r = -EUCLEAN;
	return r;
}

/* For the other operations ----------------------------------------------------- */

int xattrs_read(struct plan *p, char kind, uint64_t fileid, const struct kv_rows **ret)
{
	struct key prefix = key_prefix(kind, fileid);

	return plan_range(p, prefix, key_prefix_end(prefix), INDEX_XATTRS_MAX + 1, ret);
}

int xattrs_drop(struct plan *p, char kind, uint64_t fileid)
{
	const struct kv_rows *rows;
	struct bytes name;
	uint64_t id;
	int r = xattrs_read(p, kind, fileid, &rows);

	if (r)
		return r;
	for (uint32_t i = 0; i < rows->nrows; i++) {
		if (key_parse_xattr(rows->rows[i].key, &id, &name))
			return -EUCLEAN;
		plan_del(p, key_of(p, kind, fileid, name));
	}
	return 0;
}

int xattrs_chmod(struct plan *p, char from, char to, uint64_t fileid, uint32_t mode)
{
	struct acl acl;
	int r = acl_get(p, from, fileid, XATTR_ACL_ACCESS, &acl);

	if (r)
		return r == INDEX_MISS ? 0 : r;
	acl_chmod(&acl, mode);
	acl_put(p, to, fileid, XATTR_ACL_ACCESS, &acl);
	return 0;
}

/* The mode of a new object by its parent's default ACL, and the lists it gets. */
static int acl_inherit(struct plan *p, uint64_t parent, char kind, struct attr *a)
{
	struct acl acl;
	mode_t ignored;
	int r = acl_get(p, 'X', parent, XATTR_ACL_DEFAULT, &acl);

	if (r || !acl.n)
		return r;
	if (S_ISDIR(a->mode)) {
		acl_put(p, kind, a->fileid, XATTR_ACL_DEFAULT, &acl);
		a->has_default_acl = a->has_xattrs = true;
	}
	a->mode = acl_create(&acl, a->mode);
	if (!acl_is_mode(&acl, &ignored)) {
		acl_put(p, kind, a->fileid, XATTR_ACL_ACCESS, &acl);
		a->has_xattrs = true;
	}
	return 0;
}

/* What the directory says goes before what the caller does. */
static void keep_inherit(struct plan *p, const struct keep *parent, struct keep *k)
{
	keep_apply(k, keep_said(parent), parent);
	k->quota = 0;
	keep_begin(p, k);
}

int attr_inherit(struct plan *p, const struct index_op *op, const struct record *parent,
		 char kind, struct attr *ret)
{
	struct attr a = op->attr;
	int r = INDEX_MISS;

	a.fileid = op->fileid;
	a.version = 1;
	a.nlink = 1;
	a.size = a.pages = 0;
	a.has_xattrs = a.has_default_acl = false;
	a.atime = a.mtime = a.ctime = a.btime = plan_now(p);
	if (!S_ISCHR(a.mode) && !S_ISBLK(a.mode))
		a.rdev = 0;
	if (parent->attr.mode & S_ISGID) {
		a.gid = parent->attr.gid;
		if (S_ISDIR(a.mode))
			a.mode |= S_ISGID;
	}
	keep_inherit(p, &parent->attr.keep, &a.keep);
	if (S_ISLNK(a.mode)) {
		a.mode = S_IFLNK | 0777;
		*ret = a;
		return 0;
	}
	if (parent->attr.has_default_acl)
		r = acl_inherit(p, parent->attr.fileid, kind, &a);
	if (r < 0 || r == PLAN_WAIT)
		return r;
	if (r == INDEX_MISS)
		a.mode &= ~(op->umask & 0777);
	*ret = a;
	return 0;
}

/* Reading ------------------------------------------------------------------------ */

/* A draft has x keys only, a published object X keys only: no need to know which
 * of the two this one has become by now. */
static int getxattr_plan(struct plan *p, struct index_op *op)
{
	const struct kv_row *draft = NULL, *published = NULL;
	struct bytes name;
	int r = xattr_name(op, &name);

	if (!r)
		r = plan_both(plan_get(p, own_xattr(p, op->fileid, name), &draft),
			      plan_get(p, key_xattr(op->fileid, name), &published));
	if (r)
		return r;
	if (!draft && !published)
		return INDEX_MISS;
	return xattr_decode(draft ? draft->value : published->value, &op->bytes);
}

void index_getxattr(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, getxattr_plan);
}

static int listxattr_plan(struct plan *p, struct index_op *op)
{
	const struct kv_rows *rows[2];
	uint64_t fileid;
	struct bytes name;
	int r = plan_both(xattrs_read(p, 'x', op->fileid, &rows[0]),
			  xattrs_read(p, 'X', op->fileid, &rows[1]));

	if (r)
		return r;
	char *list = plan_alloc(p, (rows[0]->nrows + rows[1]->nrows) * (INDEX_NAME_MAX + 1u) + 1);
	if (!list)
		return -ENOMEM;
	char *end = list;
	for (uint32_t i = 0; i < 2; i++) {
		for (uint32_t j = 0; j < rows[i]->nrows; j++) {
			struct bytes key = rows[i]->rows[j].key;
			if (key_parse_xattr(key, &fileid, &name))
				return -EUCLEAN;
			if (!i && kv_key_session(key) != plan_session(p))
				continue;
			end = (char *)mempcpy(end, name.p, name.len);
			*end++ = 0;
		}
	}
	op->bytes = BYTES_OF(list, (size_t)(end - list));
	return 0;
}

void index_listxattr(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, listxattr_plan);
}

/* Changing ----------------------------------------------------------------------- */

struct xattr_change {
	struct object o;
	char kind;
	struct bytes name;
	bool access, dflt;     /* it is that ACL */
	bool there;            /* it is set, to `old` */
	struct bytes old;
	uint32_t others;       /* attributes beside it */
	size_t others_bytes;
	struct attr attr;      /* as it becomes */
};

static int change_begin(struct plan *p, struct index_op *op, struct xattr_change *c)
{
	const struct kv_rows *rows;
	struct bytes name;
	uint64_t fileid;
	int r = xattr_name(op, &c->name);

	if (!r)
		r = object_find(p, op->fileid, op->place, &c->o);
	if (r)
		return r;
	c->kind = c->o.draft ? 'x' : 'X';
	r = xattrs_read(p, c->kind, op->fileid, &rows);
	if (r)
		return r;
	for (uint32_t i = 0; i < rows->nrows; i++) {
		const struct kv_row *row = &rows->rows[i];
		if (key_parse_xattr(row->key, &fileid, &name))
			return -EUCLEAN;
		if (!bytes_eq(name, c->name)) {
			c->others++;
			c->others_bytes += row->key.len + row->value.len;
			continue;
		}
		c->there = true;
		r = xattr_decode(row->value, &c->old);
		if (r)
			return r;
	}
	c->access = bytes_eq(c->name, bytes_str(XATTR_ACL_ACCESS));
	c->dflt = bytes_eq(c->name, bytes_str(XATTR_ACL_DEFAULT));
	c->attr = c->o.draft ? op->attr : c->o.rec.attr;
	c->attr.fileid = op->fileid;
	return 0;
}

/* Writes the attribute (value.p NULL: removes it) and the record that goes with
 * it. */
static int change_end(struct plan *p, struct index_op *op, struct xattr_change *c,
		      struct bytes value)
{
	struct writer_state w;

	if (value.p)
		xattr_put(p, c->kind, op->fileid, c->name, value);
	else
		plan_del(p, key_of(p, c->kind, op->fileid, c->name));
	c->attr.has_xattrs = value.p || c->others;
	if (c->dflt)
		c->attr.has_default_acl = value.p;
	c->attr.ctime = plan_now(p);
	if (!c->o.draft) {
		c->o.rec.attr = c->attr;
		object_put(p, &c->o);
		return object_entry(p, &c->o, &op->entry);
	}
	int r = writer_get(p, op->fileid, &w);
	if (r)
		return r == INDEX_MISS ? -EUCLEAN : r;
	plan_expect_same(p, own_writer(p, op->fileid));
	writer_put(p, op->fileid, &w);
	op->entry = (struct entry){ .attr = c->attr, .place = c->o.place, .draft = true };
	return 0;
}

static int change_acl(struct plan *p, struct index_op *op, struct xattr_change *c)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	struct acl acl;
	mode_t mode;
	int r = acl_decode(op->value, &acl);

	if (r)
		return r;
	if (S_ISLNK(c->attr.mode))
		return -EOPNOTSUPP;
	if (c->dflt && !S_ISDIR(c->attr.mode))
		return acl.n ? -EACCES : 0;
	if (!acl.n)
		return change_end(p, op, c, BYTES_NONE);
	if (c->access) {
		bool is_mode = acl_is_mode(&acl, &mode);
		c->attr.mode = (c->attr.mode & ~0777u) | mode;
		if (is_mode)
			return change_end(p, op, c, BYTES_NONE);
	}
	acl_encode(&acl, &w);
	return w.bad ? -ENOMEM : change_end(p, op, c, writer_bytes(&w));
}

static int setxattr_plan(struct plan *p, struct index_op *op)
{
	struct xattr_change c = { 0 };
	struct bytes value = BYTES_OF(op->value.len ? op->value.p : "", op->value.len);
	int r = change_begin(p, op, &c);

	if (r)
		return r;
	bool done_before = plan_is_repeat(p) && c.there && bytes_eq(c.old, value);
	if (c.there && op->flags & XATTR_CREATE && !done_before)
		return -EEXIST;
	if (!c.there && op->flags & XATTR_REPLACE)
		return -ENODATA;
	if (value.len > XATTR_SIZE_MAX)
		return -E2BIG;
	if (c.others >= INDEX_XATTRS_MAX ||
	    c.others_bytes + c.name.len + value.len > INDEX_XATTRS_BYTES_MAX)
		return -ENOSPC;
	if (c.access || c.dflt)
		return change_acl(p, op, &c);
	return change_end(p, op, &c, value);
}

void index_setxattr(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, setxattr_plan);
}

/* As in the kernel's own file systems the mode stays as it is when its ACL goes. */
static int removexattr_plan(struct plan *p, struct index_op *op)
{
	struct xattr_change c = { 0 };
	int r = change_begin(p, op, &c);

	if (r)
		return r;
	if (!c.there && !plan_is_repeat(p))
		return -ENODATA;
	return change_end(p, op, &c, BYTES_NONE);
}

void index_removexattr(struct index *ix, struct index_op *op)
{
	plan_run(ix, op, removexattr_plan);
}
