/* SPDX-License-Identifier: Apache-2.0 */
/* To a folder of a node, by a session (send.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/cmd.h"
#include "tools/warm.h"

static const char *name_of(const struct warm_at *at)
{
	const char *slash = strrchr(at->rel, '/');

	return slash ? slash + 1 : at->rel;
}

/* To be freed. */
static char *shown_of(const struct warm_target *t, const struct warm_at *at)
{
	return *at->rel ? client_join(t->word, at->rel) : strdup(t->word);
}

static void say(struct warm_target *t, const struct warm_at *at, int err)
{
	_cleanup_(freep) char *shown = shown_of(t, at);

	client_fail(t->c, err, shown ? shown : at->rel);
}

static int find(struct warm_target *t, const struct warm_at *at, struct found *ret)
{
	/* The folder itself is looked up by its number. */
	int r = client_find(t->c, at->dir, *at->rel ? name_of(at) : ".", false, ret);

	return r ? r : ret->is_there ? 0 : -ENOENT;
}

static int look(struct warm_target *t, const struct warm_at *at, struct stat *ret)
{
	struct found f;
	int r = find(t, at, &f);

	if (!r)
		*ret = (struct stat){ .st_mode = f.attr.mode, .st_ino = f.attr.fileid,
				      .st_size = (off_t)f.attr.size, .st_mtim = f.attr.mtime };
	return r;
}

static bool is_same(const struct file_op *op, const unsigned char *buf)
{
	for (unsigned i = 0; i < op->niov; buf += op->iov[i++].iov_len)
		if (memcmp(op->iov[i].iov_base, buf, op->iov[i].iov_len))
			return false;
	return true;
}

static int same_bytes(struct warm_target *t, struct file *f, int fd, uint64_t size)
{
	unsigned char *buf = warm_buffer(0);
	bool equal = true;

	for (uint64_t off = 0; equal && off < size; off += WARM_LOT) {
		uint64_t len = size - off < WARM_LOT ? size - off : WARM_LOT;
		struct file_op op = { .file = f, .off = off, .len = len };
		ssize_t n = buf ? warm_read(fd, buf, len, off) : -ENOMEM;
		if (n < 0)
			return (int)n;
		int64_t r = client_file(t->c, &op, file_read);
		if (r < 0)
			return (int)r;
		equal = r == (int64_t)len && n == (ssize_t)len && is_same(&op, buf);
		file_read_end(&op);
	}
	return equal;
}

static int same(struct warm_target *t, const struct warm_at *at, int fd, uint64_t size)
{
	struct found there;
	struct file *f;
	int r = find(t, at, &there);

	if (!r)
		r = client_open_file(t->c, there.attr.fileid, there.place, 0, &f);
	if (r)
		return r < 0 ? r : -ENOENT;
	r = same_bytes(t, f, fd, size);
	client_close_file(t->c, f, 0);
	return r;
}

/* ---- What is written ------------------------------------------------------------------ */

struct dressed {
	struct client *c;
	struct attr attr;
	struct place place;
};

static int set_one(void *arg, const char *name, const void *value, size_t len)
{
	struct dressed *d = arg;
	struct index_op op = { .fileid = d->attr.fileid, .place = d->place, .attr = d->attr,
			       .name = name, .value = BYTES_OF(value, len) };
	int r = client_index(d->c, &op, index_setxattr);

	if (!r)
		d->attr = op.entry.attr;
	index_op_fini(&op);
	return r;
}

/* Of a draft, with which it is published: first the mode, of which a default ACL of the folder
 * may have taken something. */
static int dress(const struct send *s, int fd, const struct stat *st, struct file *f)
{
	struct dressed d = { .c = s->c };
	uint32_t mode = st->st_mode;
	int r = 0;

	file_attr(f, &d.attr);
	file_place(f, &d.place);
	if (d.attr.mode != mode) {
		d.attr.mode = mode;
		r = send_attr(s, d.attr.fileid, d.place, INDEX_SET_MODE, st);
	}
	if (!r)
		r = warm_xattrs(fd, set_one, &d);
	if (!r)
		file_set_attr(f, INDEX_SET_MODE, &d.attr);
	return r;
}

static int file(struct warm_target *t, const struct warm_at *at, int fd, const struct stat *st,
		const char *local)
{
	_cleanup_(freep) char *shown = shown_of(t, at);

	if (shown)
		return send_file(&t->s, fd, st, &(struct send_to){ at->dir, name_of(at), shown },
				 local);
	say(t, at, -ENOMEM);
	return -ENOMEM;
}

static int xattrs(struct warm_target *t, const struct warm_at *at, int fd)
{
	struct found f;
	int r = find(t, at, &f);

	return r ? r : warm_xattrs(fd, set_one,
				   &(struct dressed){ t->c, f.attr, f.place });
}

static int set_link(struct warm_target *t, const struct warm_at *at, const char *target,
		    const struct stat *st)
{
	int r = send_link(&t->s, target, st, &(struct send_to){ at->dir, name_of(at), NULL });
	struct found f;

	if (!r)
		r = find(t, at, &f);
	return r ? r : send_attr(&t->s, f.attr.fileid, f.place, INDEX_SET_ATIME | INDEX_SET_MTIME,
				 st);
}

static int read_link(struct warm_target *t, const struct warm_at *at, char ret[PATH_MAX])
{
	_cleanup_(freep) char *target = NULL;
	struct found f;
	int r = find(t, at, &f);

	if (!r)
		r = client_link(t->c, &f.attr, f.place, &target);
	if (!r)
		snprintf(ret, PATH_MAX, "%s", target);
	return r;
}

static int set_name(struct warm_target *t, const struct warm_at *at, const struct warm_at *first)
{
	struct found f;
	int r = find(t, first, &f);

	return r ? r : send_name(&t->s, &f, &(struct send_to){ at->dir, name_of(at), NULL });
}

static int folder(struct warm_target *t, const struct warm_at *at, const struct stat *st,
		  struct warm_at *ret)
{
	return send_folder(&t->s, st, &(struct send_to){ at->dir, name_of(at), NULL }, &ret->dir,
			   &ret->fresh);
}

static int attr(struct warm_target *t, const struct warm_at *at, const struct stat *st)
{
	unsigned mask = INDEX_SET_MODE | INDEX_SET_ATIME | INDEX_SET_MTIME |
			(t->s.owner ? INDEX_SET_UID | INDEX_SET_GID : 0);
	struct found f;
	int r = find(t, at, &f);

	return r ? r : send_attr(&t->s, f.attr.fileid, f.place, mask, st);
}

/* ---- The beginning and the end --------------------------------------------------------- */

static int begin(struct warm_target *t, const struct stat *st, struct warm_at *ret)
{
	struct found at;
	int status = client_open(t->c);

	t->s.replaces = true;
	t->s.dress = dress;
	if (status)
		return status;
	*ret = (struct warm_at){ .rel = "" };
	int r = client_find(t->c, INDEX_ROOT, t->path, true, &at);
	if (!r && at.is_there && !S_ISDIR(at.attr.mode))
		r = -ENOTDIR;
	if (!r && at.is_there)
		ret->dir = at.attr.fileid;
	else if (!r && t->only_looks)
		ret->fresh = true;
	else if (!r)
		r = send_folder(&t->s, st, &(struct send_to){ at.parent, at.name, t->word }, &ret->dir,
				&ret->fresh);
	if (!r)
		return EXIT_DONE;
	client_fail(t->c, r, t->word);
	client_close(t->c);
	return EXIT_FAILED;
}

static void end(struct warm_target *t)
{
	client_close(t->c);
}

const struct warm_ops warm_node_ops = {
	begin, end, look, same, file, set_link, read_link, set_name, folder, attr, xattrs, say,
};
