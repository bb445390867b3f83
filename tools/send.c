/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/send.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/carry.h"
#include "tools/cmd.h"
#include "tools/temps.h"

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
	return r;
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

/* ---- Names ------------------------------------------------------------------- */

static int unlink_at(const struct send *s, uint64_t dir, const char *name)
{
	struct index_op op = { .parent = dir, .name = name };
	int r = client_index(s->c, &op, index_unlink);

	if (!r)
		client_drop(s->c, &op);
	index_op_fini(&op);
	return r;
}

static int rename_at(const struct send *s, uint64_t dir, const char *from, const char *to)
{
	struct index_op op = { .parent = dir, .name = from, .parent2 = dir, .name2 = to };
	int r = client_index(s->c, &op, index_rename);

	if (!r)
		client_drop(s->c, &op);
	index_op_fini(&op);
	return r;
}

/* make(s, arg, dir, name) makes something that is no folder; where the name is taken, beside
 * it first, and then it has the name. Who is killed between leaves a "*.tmp", which goes by
 * itself. */
static int into_place(const struct send *s, const struct send_to *to,
		      int (*make)(const struct send *s, const void *arg, uint64_t dir,
				  const char *name), const void *arg)
{
	int r = make(s, arg, to->dir, to->name);

	if (r != -EEXIST)
		return r;
	if (s->no_clobber)
		return SEND_LEFT;
	for (int n = 0; n < TRIES && r == -EEXIST; n++) {
		_cleanup_(freep) char *temp = temps_name(to->name);
		r = temp ? make(s, arg, to->dir, temp) : -ENOMEM;
		if (r)
			continue;
		r = rename_at(s, to->dir, temp, to->name);
		unlink_at(s, to->dir, temp); /* it is there yet if both are one file's */
	}
	return r;
}

/* ---- A file ------------------------------------------------------------------ */

/* Where it goes to. */
struct sent {
	struct found at;
	char *temp;      /* its name until it is whole; NULL: its own. Heap */
	struct file *f;
	bool is_new;
};

static int new_draft(const struct send *s, struct sent *to, const struct stat *st)
{
	struct index_op op = {
		.parent = to->at.parent, .name = to->temp ? to->temp : to->at.name,
		.attr = attr_of(s, st), .umask = s->preserve ? 0 : s->umask,
		.flags = s->no_clobber ? O_EXCL : 0,
	};

	op.attr.mode = new_mode(s, S_IFREG, st);
	int r = client_index(s->c, &op, index_draft);
	if (!r)
		r = file_create(s->c->engine, &op.entry.attr, &to->f);
	index_op_fini(&op);
	to->is_new = true;
	return r;
}

static int open_there(const struct send *s, struct sent *to, const struct stat *st)
{
	const struct found *at = &to->at;

	if (s->no_clobber)
		return SEND_LEFT;
	if (at->is_draft)
		return -EBUSY;
	if (S_ISDIR(at->attr.mode))
		return -EISDIR;
	if (s->replaces) {
		to->temp = temps_name(at->name);
		return to->temp ? new_draft(s, to, st) : -ENOMEM;
	}
	if (!S_ISREG(at->attr.mode))
		return -EINVAL;
	return client_open_file(s->c, at->attr.fileid, at->place, FILE_WRITE | FILE_TRUNCATE,
				&to->f);
}

/* What is looked up may be another thing by the time that it is opened: then anew. */
static int open_for(const struct send *s, const struct send_to *name, const struct stat *st,
		    struct sent *to)
{
	int r = -EEXIST;

	for (int n = 0; n < TRIES && (r == -EEXIST || r == -ESTALE); n++) {
		free(steal(&to->temp));
		r = client_find(s->c, name->dir, name->name, !s->replaces, &to->at);
		if (r < 0)
			return r;
		r = to->at.is_there ? open_there(s, to, st) : new_draft(s, to, st);
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

/* All that it has, and is. *ret_local: it fails here. */
static int fill(const struct send *s, int fd, const struct stat *st, struct sent *to,
		const char *shown, bool *ret_local)
{
	struct carried by = { 0 };
	int r = carry_in(s->c, fd, to->f, shown, &by);

	*ret_local = by.is_local;
	if (!r && s->dress)
		r = s->dress(s, fd, st, to->f);
	if (!r && s->unchanged && send_has_changed(fd, st)) {
		*ret_local = true;
		r = -ESTALE;
	}
	if (!r && to->temp)
		r = rename_at(s, to->at.parent, to->temp, to->at.name);
	if (!r && s->preserve)
		set_times(to->f, st);
	return r;
}

static int close_file(const struct send *s, const struct sent *to, const struct stat *st)
{
	unsigned mask = INDEX_SET_MODE | (s->owner ? INDEX_SET_UID | INDEX_SET_GID : 0);
	struct attr a;
	struct place place;

	file_attr(to->f, &a);
	file_place(to->f, &place);
	int r = client_close_file(s->c, to->f, FILE_WRITE);
	return r >= 0 && s->preserve && !to->is_new ? send_attr(s, a.fileid, place, mask, st) : r;
}

int send_file(const struct send *s, int fd, const struct stat *st, const struct send_to *to,
	      const char *local)
{
	struct sent sent = { 0 };
	bool is_local = false;
	int r = open_for(s, to, st, &sent);
	bool is_open = !r;

	if (is_open)
		r = fill(s, fd, st, &sent, to->shown, &is_local);
	if (is_open && !r) {
		is_open = false;
		r = close_file(s, &sent, st);
	}
	free(sent.temp);
	if (r < 0 && is_local)
		send_fail_here(s, r, local);
	else if (r < 0)
		client_fail(s->c, r, to->shown);
	/* Said first: where the node is gone, closing would take as long again. */
	if (is_open)
		client_close_file(s->c, sent.f, FILE_WRITE | FILE_DISCARD);
	return r;
}

/* ---- Folders and links ------------------------------------------------------- */

struct link {
	const char *target;
	const struct stat *st;
};

static int make_link(const struct send *s, const void *arg, uint64_t dir, const char *name)
{
	const struct link *l = arg;
	struct index_op op = { .parent = dir, .name = name, .attr = attr_of(s, l->st),
			       .body = { BODY_INLINE, bytes_str(l->target) } };

	op.attr.mode = S_IFLNK | 0777;
	int r = client_index(s->c, &op, index_make);
	index_op_fini(&op);
	return r;
}

int send_link(const struct send *s, const char *target, const struct stat *st,
	      const struct send_to *to)
{
	return into_place(s, to, make_link, &(struct link){ target, st });
}

static int make_name(const struct send *s, const void *arg, uint64_t dir, const char *name)
{
	const struct found *of = arg;
	struct index_op op = { .fileid = of->attr.fileid, .place = of->place, .parent = dir,
			       .name = name };
	int r = client_index(s->c, &op, index_link);

	index_op_fini(&op);
	return r;
}

int send_name(const struct send *s, const struct found *of, const struct send_to *to)
{
	return into_place(s, to, make_name, of);
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
	r = client_find(s->c, to->dir, to->name, !s->replaces, &at);
	if (r >= 0 && (!at.is_there || !S_ISDIR(at.attr.mode)))
		return -ENOTDIR;
	if (r >= 0)
		*ret_fileid = at.attr.fileid;
	return r;
}
