/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/send.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/error.h"
#include "tools/carry.h"
#include "tools/cmd.h"

enum { TRIES = 16 };

int send_fail_here(const struct send *s, int err, const char *path)
{
	return cmd_fail(EXIT_FAILED, s->c->cmd, "%s: %s", path,
			err == -ESTALE ? "it was changed while it was read" : error_text(err));
}

/* ---- Attributes -------------------------------------------------------------- */

static struct attr attr_of(const struct send *s, const struct stat *st)
{
	return (struct attr){ .mode = st->st_mode, .uid = s->owner ? st->st_uid : geteuid(),
			      .gid = s->owner ? st->st_gid : getegid(),
			      .atime = st->st_atim, .mtime = st->st_mtim };
}

/* The mode of something new. */
static uint32_t new_mode(const struct send *s, uint32_t type, const struct stat *st)
{
	return type | (st->st_mode & (s->preserve ? 07777 : 0777));
}

int send_attr(const struct send *s, uint64_t fileid, struct place place, unsigned mask,
	      const struct stat *st)
{
	struct index_op op = { .fileid = fileid, .place = place, .mask = mask,
			       .attr = attr_of(s, st) };
	int r = client_index(s->c, &op, index_setattr);

	index_op_fini(&op);
	return r > 0 ? -ENOENT : r;
}

/* Of an open draft: what is published with it. */
static void set_times(struct file *f, const struct stat *st)
{
	struct attr a;

	file_attr(f, &a);
	a.atime = st->st_atim;
	a.mtime = st->st_mtim;
	file_set_attr(f, INDEX_SET_ATIME | INDEX_SET_MTIME, &a);
}

/* ---- A file ------------------------------------------------------------------ */

static int new_draft(const struct send *s, const struct found *at, const struct stat *st,
		     struct file **ret)
{
	struct index_op op = {
		.parent = at->parent, .name = at->name, .attr = attr_of(s, st),
		.umask = s->preserve ? 0 : s->umask,
		.flags = s->no_clobber ? O_EXCL : 0,
	};

	op.attr.mode = new_mode(s, S_IFREG, st);
	int r = client_index(s->c, &op, index_draft);
	if (!r)
		r = file_create(s->c->engine, &op.entry.attr, ret);
	index_op_fini(&op);
	return r;
}

static int open_there(const struct send *s, const struct found *at, struct file **ret)
{
	if (s->no_clobber)
		return SEND_LEFT;
	if (at->is_draft)
		return -EBUSY;
	if (!S_ISREG(at->attr.mode))
		return S_ISDIR(at->attr.mode) ? -EISDIR : -EINVAL;
	return client_open_file(s->c, at->attr.fileid, at->place, FILE_WRITE | FILE_TRUNCATE, ret);
}

/* What is looked up may be another thing by the time that it is opened: then anew. */
static int open_for(const struct send *s, const struct send_to *to, const struct stat *st,
		    struct file **ret, bool *ret_is_new)
{
	int r = -EEXIST;

	for (int n = 0; n < TRIES && (r == -EEXIST || r == -ESTALE); n++) {
		struct found at;
		r = client_find(s->c, to->dir, to->name, true, &at);
		if (r < 0)
			return r;
		*ret_is_new = !at.is_there;
		r = at.is_there ? open_there(s, &at, ret) : new_draft(s, &at, st, ret);
	}
	return r == -EEXIST && s->no_clobber ? SEND_LEFT : r;
}

/* It is not what it was when it was opened: a mix of two, perhaps. */
bool send_has_changed(int fd, const struct stat *st)
{
	struct stat now;

	return fstat(fd, &now) < 0 || now.st_size != st->st_size ||
	       now.st_mtim.tv_sec != st->st_mtim.tv_sec ||
	       now.st_mtim.tv_nsec != st->st_mtim.tv_nsec;
}

static int close_file(const struct send *s, struct file *f, bool is_new, const struct stat *st)
{
	unsigned mask = INDEX_SET_MODE | (s->owner ? INDEX_SET_UID | INDEX_SET_GID : 0);
	struct attr a;
	struct place place;

	if (s->preserve)
		set_times(f, st);
	file_attr(f, &a);
	file_place(f, &place);
	int r = client_close_file(s->c, f, FILE_WRITE);
	return r >= 0 && s->preserve && !is_new ? send_attr(s, a.fileid, place, mask, st) : r;
}

int send_file(const struct send *s, int fd, const struct stat *st, const struct send_to *to,
	      const char *local)
{
	struct carried by = { 0 };
	struct file *f;
	bool is_new = false;
	int r = open_for(s, to, st, &f, &is_new);

	if (!r) {
		r = carry_in(s->c, fd, f, to->shown, &by);
		if (!r && s->unchanged && send_has_changed(fd, st)) {
			by.is_local = true;
			r = -ESTALE;
		}
		/* Said first: where the node is gone, closing would take as long again. */
		if (r < 0 && by.is_local)
			send_fail_here(s, r, local);
		else if (r < 0)
			client_fail(s->c, r, to->shown);
		if (r < 0) {
			client_close_file(s->c, f, FILE_WRITE | FILE_DISCARD);
			return r;
		}
		r = close_file(s, f, is_new, st);
	}
	if (r < 0)
		client_fail(s->c, r, to->shown);
	return r;
}

/* ---- Folders and links ------------------------------------------------------- */

int send_unlink(const struct send *s, const struct send_to *to)
{
	struct index_op op = { .parent = to->dir, .name = to->name };
	int r = client_index(s->c, &op, index_unlink);

	if (!r)
		client_drop(s->c, &op);
	index_op_fini(&op);
	return r > 0 ? -ENOENT : r;
}

int send_link(const struct send *s, const char *target, const struct stat *st,
	      const struct send_to *to)
{
	struct index_op op = {
		.parent = to->dir, .name = to->name, .attr = attr_of(s, st),
		.body = { BODY_INLINE, bytes_str(target) },
	};

	op.attr.mode = S_IFLNK | 0777;
	int r = client_index(s->c, &op, index_make);
	index_op_fini(&op);
	if (r == -EEXIST && s->no_clobber)
		return SEND_LEFT;
	if (r != -EEXIST)
		return r;
	r = send_unlink(s, to);
	if (r < 0 && r != -ENOENT)
		return r;
	r = client_index(s->c, &op, index_make);
	index_op_fini(&op);
	return r;
}

int send_folder(const struct send *s, const struct stat *st, const struct send_to *to,
		uint64_t *ret_fileid, bool *ret_new)
{
	struct index_op op = { .parent = to->dir, .name = to->name, .attr = attr_of(s, st),
			       .umask = s->preserve ? 0 : s->umask };
	struct found at;

	op.attr.mode = new_mode(s, S_IFDIR, st);
	int r = strcmp(to->name, ".") ? client_index(s->c, &op, index_make) : -EEXIST;
	if (!r)
		*ret_fileid = op.entry.attr.fileid;
	index_op_fini(&op);
	*ret_new = !r;
	if (r != -EEXIST)
		return r;
	r = client_find(s->c, to->dir, to->name, true, &at);
	if (r >= 0 && (!at.is_there || !S_ISDIR(at.attr.mode)))
		return -ENOTDIR;
	if (r >= 0)
		*ret_fileid = at.attr.fileid;
	return r;
}
