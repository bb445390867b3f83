/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading directories, without handles: the offset of an entry is its h, which
 * the index can go on from at any time, so nothing is kept between two requests
 * and seekdir() is right whatever has changed (1 and 2 are the offsets of "."
 * and ".."; no h is below 256).
 *
 * OPENDIR is answered ENOSYS, upon which the kernel does without it and keeps listings
 * in its page cache; it drops them itself when it changes the directory. Where others
 * change it, too, it is asked at each OPENDIR whether it may use the list that it has
 * (watched.c).
 *
 * Only at the beginning of a listing does the kernel compare what it has kept with the
 * directory. What began without that goes on in it, if it finds its offset there, and what
 * it finds may be older. So each listing has offsets of its own: its number, in the bits that
 * no h has. What the kernel does not find, it asks for.
 *
 * readdirplus counts a lookup for each entry that the kernel gets, except for
 * those with nodeid 0.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>

#include "fs/priv.h"

enum {
	DOT = 1,
	DOTDOT = 2,
	LISTING = 4, /* the lowest of INDEX_H_FREE */
	PAGE_ENTRIES_MAX = 512,
	/* About what an entry takes in the answer, with a name of 16 bytes. */
	DIRENT_BYTES = 24 + 16,
	DIRENTPLUS_BYTES = 128 + 24 + 16,
};

struct listing {
	struct req *q;
	char *buf;
	size_t size, used;
	bool plus, full;
};

/* False: it does not fit any more. */
static bool add(struct listing *l, const char *name,
		const struct fuse_entry_param *e, uint64_t off)
{
	char *at = l->buf + l->used;
	size_t left = l->size - l->used, n;

	if (l->plus)
		n = fuse_add_direntry_plus(l->q->fuse, at, left, name, e,
					   (off_t)off);
	else
		n = fuse_add_direntry(l->q->fuse, at, left, name, &e->attr,
				      (off_t)off);
	l->full = n > left;
	if (!l->full)
		l->used += n;
	return !l->full;
}

static void add_dot(struct listing *l, const char *name, uint64_t fileid,
		    uint64_t off)
{
	struct fuse_entry_param e = {
		.attr = { .st_ino = fileid, .st_mode = S_IFDIR },
	};

	if (!l->full)
		add(l, name, &e, off);
}

static bool add_entry(struct listing *l, const struct entry *e)
{
	struct fs *fs = l->q->fs;
	struct fuse_entry_param p = { .attr = { .st_ino = e->attr.fileid,
						.st_mode = e->attr.mode } };
	struct inode *i = NULL;
	struct attr a;

	/* Else the kernel looks it up when it needs it. */
	if (l->plus && entry_attr(fs, e, &a) &&
	    inode_show(fs->inodes, &a, e->place, l->q->start_ns, &i))
		i = NULL;
	if (i) {
		p.ino = i->nodeid;
		p.generation = GENERATION;
		req_entry_keeps(l->q, e->name, i, &a, e->place, &p);
		attr_to_stat(&a, &p.attr);
	}
	bool fits = add(l, e->name, &p, e->h | l->q->listing);
	if (i && !fits)
		inode_forget(fs->inodes, i->nodeid, 1);
	inode_put(fs->inodes, i);
	return fits;
}

/* The kernel did not take the answer: the lookups in it do not count. */
static void forget_all(struct fs *fs, const struct listing *l)
{
	size_t at = 0;

	while (l->plus && at + FUSE_NAME_OFFSET_DIRENTPLUS <= l->used) {
		const struct fuse_direntplus *d = (const void *)(l->buf + at);
		if (d->entry_out.nodeid)
			inode_forget(fs->inodes, d->entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(d);
	}
}

static void list_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);
	struct listing l = {
		.q = q, .size = q->size, .plus = op->plus,
	};

	l.buf = r ? NULL : malloc(q->size);
	if (!l.buf) {
		req_error(q, r ? r : -ENOMEM);
		return;
	}
	if (q->off < DOT)
		add_dot(&l, ".", q->inode->fileid, DOT | q->listing);
	if (q->off < DOTDOT)
		add_dot(&l, "..", q->attr.fileid, DOTDOT | q->listing);
	for (uint32_t i = 0; i < op->nentries && !l.full; i++)
		if (!add_entry(&l, &op->entries[i]))
			break;
	if (fuse_reply_buf(req_answer(q, 0), l.buf, l.used) == -ENOENT)
		forget_all(q->fs, &l);
	free(l.buf);
	req_free(q);
}

/* Goes on behind that offset, or begins. */
static void set_off(struct req *q, uint64_t off)
{
	if (!off)
		off = atomic_fetch_add(&q->inode->listings, 1) * LISTING & INDEX_H_FREE;
	q->listing = off & INDEX_H_FREE;
	q->off = off & ~INDEX_H_FREE;
}

static void list_go(struct req *q)
{
	bool plus = q->kind == MOP_READDIRPLUS;
	size_t limit = q->size / (plus ? DIRENTPLUS_BYTES : DIRENT_BYTES) + 1;

	q->ix.parent = q->inode->fileid;
	q->ix.from = q->off;
	q->ix.limit = limit < PAGE_ENTRIES_MAX ? (uint32_t)limit : PAGE_ENTRIES_MAX;
	q->ix.plus = plus;
	q->ix.done = list_done;
	index_list(q->fs->ix, &q->ix);
}

/* The directory itself, for the number of "..". */
static void self_done(struct index_op *op, int r)
{
	struct req *q = req_of(op);

	q->attr.fileid = op->entry.parent ? op->entry.parent : q->inode->fileid;
	index_op_fini(op);
	if (r < 0)
		req_error(q, r);
	else
		list_go(q);
}

static void begin_list(fuse_req_t f, enum metric_op kind, fuse_ino_t ino,
		       size_t size, off_t off)
{
	struct req *q;

	if (is_control(ino)) {
		control_readdir(f, ino, size, off, kind == MOP_READDIRPLUS);
		return;
	}
	q = req_begin_on(f, kind, ino);
	if (!q)
		return;
	req_enter(q, ino);
	q->size = size;
	set_off(q, (uint64_t)off);
	req_place(q);
	if (q->off >= DOTDOT) {
		list_go(q);
		return;
	}
	q->ix.done = self_done;
	index_stat(q->fs->ix, &q->ix);
}

void fs_readdir(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi)
{
	(void)fi;
	begin_list(f, MOP_READDIR, ino, size, off);
}

void fs_readdirplus(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)fi;
	begin_list(f, MOP_READDIRPLUS, ino, size, off);
}

void fs_opendir(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fuse_req_userdata(f);

	if (fs->no_opendir) {
		fuse_reply_err(f, ENOSYS);
		return;
	}
	bool cache = !fs->shared, keep = cache;
	if (fs->watched && !is_control(ino)) {
		watched_use(fs->watched, ino);
		keep = watched_list(fs->watched, ino, &cache);
	}
	fi->keep_cache = keep;
	fi->cache_readdir = cache;
	fuse_reply_open(f, fi);
}

void fs_releasedir(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(f, 0);
}

static void synced(struct engine_ask *a, int r)
{
	struct req *q = a->arg;

	if (r)
		req_error(q, r);
	else
		req_ok(q);
}

/* Names outlive this process when an operation on them is answered. What a disk below the pool
 * would bring back after a power loss is known there a moment later. */
void fs_fsyncdir(fuse_req_t f, fuse_ino_t ino, int datasync,
		 struct fuse_file_info *fi)
{
	struct req *q;

	(void)datasync;
	(void)fi;
	if (is_control(ino)) {
		fuse_reply_err(f, 0);
		return;
	}
	q = req_begin(f, MOP_FSYNC);
	if (!q)
		return;
	q->ask = (struct engine_ask){ .call = kv_call_of(&q->ix.call), .done = synced, .arg = q };
	engine_sync_names(q->fs->engine, &q->ask);
}
