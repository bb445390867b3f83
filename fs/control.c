/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control directory, ".slicefs" in the root: looked up by name, never
 * listed there. Its files are texts made when they are opened, and nothing here
 * counts in the gauges, so that who looks at an idle mount sees an idle mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"
#include "common/log.h"
#include "fs/priv.h"

static int print_stats(struct fs *fs, struct writer *w)
{
	engine_print_stats(fs->engine, w);
	return 0;
}

static int print_slices(struct fs *fs, struct writer *w)
{
	engine_print_slices(fs->engine, w);
	return 0;
}

static int print_config(struct fs *fs, struct writer *w)
{
	write_bytes(w, fs->config, strlen(fs->config));
	return 0;
}

static int print_check(struct fs *fs, struct writer *w)
{
	int n = engine_check(fs->engine, false, w, NULL);

	return n < 0 ? n : 0;
}

/* See "scrub" and "node-stats" below. */
static int print_nothing(struct fs *fs, struct writer *w)
{
	(void)fs;
	(void)w;
	return 0;
}

static const struct {
	const char *name;
	int (*print)(struct fs *fs, struct writer *w);
	bool slow; /* not on a worker */
} files[] = {
	{ "stats", print_stats, false },
	{ "slices", print_slices, false },
	{ "config", print_config, false },
	{ "check", print_check, true },
	{ "scrub", print_nothing, false },
	{ "node-stats", print_nothing, false },
};

enum { NFILES = sizeof(files) / sizeof(files[0]), NODE_STATS = NFILES - 1, SCRUB = NFILES - 2 };

/* Of an own store there is no node to ask. */
static unsigned nfiles(const struct fs *fs)
{
	return NFILES - !engine_is_remote(fs->engine);
}

/* The files' nodeids are those behind the directory's. */
static fuse_ino_t nodeid_of(unsigned file)
{
	return CONTROL_NODEID + 1 + file;
}

bool is_control_name(const struct fs *fs, fuse_ino_t parent, const char *name)
{
	return parent == INDEX_ROOT && !strcmp(name, fs->control);
}

static struct stat stat_of(const struct fs *fs, fuse_ino_t ino)
{
	bool dir = ino == CONTROL_NODEID;

	return (struct stat){
		.st_ino = ino,
		.st_mode = dir ? S_IFDIR | 0555 :
			   S_IFREG | (ino == nodeid_of(SCRUB) ? 0600 : 0444),
		.st_nlink = dir ? 2 : 1,
		.st_uid = fs->uid,
		.st_gid = fs->gid,
		.st_blksize = PAGE_BYTES,
		.st_atim = fs->mounted,
		.st_mtim = fs->mounted,
		.st_ctim = fs->mounted,
	};
}

static struct fuse_entry_param entry_of(const struct fs *fs, fuse_ino_t ino)
{
	return (struct fuse_entry_param){
		.ino = ino,
		.generation = GENERATION,
		.attr = stat_of(fs, ino),
		.attr_timeout = KERNEL_CACHE_S,
		.entry_timeout = KERNEL_CACHE_S,
	};
}

static fuse_ino_t find(const struct fs *fs, fuse_ino_t parent, const char *name)
{
	if (is_control_name(fs, parent, name))
		return CONTROL_NODEID;
	if (!strcmp(name, "."))
		return parent;
	if (parent != CONTROL_NODEID)
		return 0;
	for (unsigned i = 0; i < nfiles(fs); i++)
		if (!strcmp(name, files[i].name))
			return nodeid_of(i);
	return 0;
}

void control_lookup(fuse_req_t f, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fuse_req_userdata(f);
	fuse_ino_t ino = find(fs, parent, name);
	struct fuse_entry_param e;

	if (!ino) {
		fuse_reply_err(f, ENOENT);
		return;
	}
	e = entry_of(fs, ino);
	fuse_reply_entry(f, &e);
}

int control_stat(const struct fs *fs, fuse_ino_t ino, struct stat *ret)
{
	if (ino >= nodeid_of(nfiles(fs)))
		return -ESTALE;
	*ret = stat_of(fs, ino);
	return 0;
}

void control_getattr(fuse_req_t f, fuse_ino_t ino)
{
	struct stat st;
	int r = control_stat(fuse_req_userdata(f), ino, &st);

	if (r < 0)
		fuse_reply_err(f, -r);
	else
		fuse_reply_attr(f, &st, KERNEL_CACHE_S);
}

/* Entry n of the directory; its offset is n + 1. */
static const char *entry_name(unsigned n, fuse_ino_t *ret_ino)
{
	*ret_ino = n == 1 ? INDEX_ROOT : n ? nodeid_of(n - 2) : CONTROL_NODEID;
	return n == 0 ? "." : n == 1 ? ".." : files[n - 2].name;
}

void control_readdir(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		     bool plus)
{
	struct fs *fs = fuse_req_userdata(f);
	_cleanup_(freep) char *buf = malloc(size);
	size_t used = 0, n;

	if (!buf || ino != CONTROL_NODEID || off < 0) {
		fuse_reply_err(f, buf ? ENOTDIR : ENOMEM);
		return;
	}
	for (off_t i = off; i < nfiles(fs) + 2; i++) {
		fuse_ino_t at;
		const char *name = entry_name((unsigned)i, &at);
		/* With nodeid 0 the kernel looks it up when it needs it. */
		struct fuse_entry_param e = { .attr = stat_of(fs, at) };
		if (i == 1)
			e.attr.st_mode = S_IFDIR;
		if (plus)
			n = fuse_add_direntry_plus(f, buf + used, size - used,
						   name, &e, i + 1);
		else
			n = fuse_add_direntry(f, buf + used, size - used, name,
					      &e.attr, i + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(f, buf, used);
}

/* open: makes the text -------------------------------------------------------- */

struct opening {
	fuse_req_t f;
	fuse_ino_t ino;
	struct fuse_file_info fi;
	struct engine_ask ask; /* of "node-stats" */
};

/* Takes the text; or an error. */
static void reply_text(struct opening *o, int r, struct writer w)
{
	struct fs *fs = fuse_req_userdata(o->f);
	struct handle *h = r < 0 || w.bad ? NULL : handle_new(fs, true);

	if (!h) {
		writer_fini(&w);
		fuse_reply_err(o->f, r == -ECANCELED ? EINTR : r < 0 ? -r : ENOMEM);
		return;
	}
	h->text = (char *)w.p;
	h->text_len = w.len;
	o->fi.fh = (uintptr_t)h;
	o->fi.direct_io = 1; /* its size is not known before */
	o->fi.noflush = 1;
	if (fuse_reply_open(o->f, &o->fi) == -ENOENT)
		handle_free(fs, h);
}

static void open_file(struct opening *o)
{
	struct writer w = { 0 };
	int r = files[o->ino - nodeid_of(0)].print(fuse_req_userdata(o->f), &w);

	reply_text(o, r, w);
}

static void *open_slowly(void *arg)
{
	struct opening *o = arg;
	struct fs *fs = fuse_req_userdata(o->f);

	pthread_setname_np(pthread_self(), "fs-check");
	open_file(o);
	free(o);
	atomic_fetch_sub(&fs->pending, 1);
	return NULL;
}

/* On a thread of its own, which the end of the mount waits for (pending). */
static int begin_slowly(struct fs *fs, const struct opening *o)
{
	struct opening *copy = malloc(sizeof(*copy));
	pthread_t t;
	int r;

	if (!copy)
		return -ENOMEM;
	*copy = *o;
	atomic_fetch_add(&fs->pending, 1);
	r = pthread_create(&t, NULL, open_slowly, copy);
	if (r) {
		atomic_fetch_sub(&fs->pending, 1);
		free(copy);
		return -r;
	}
	pthread_detach(t);
	return 0;
}

/*
 * "node-stats": the node is asked, and no thread waits for it. A node that does not answer fails
 * the open before the patience of who looks is at its end (slicefs status), and any signal does.
 */
enum { NODE_STATS_MS = 2000 };

static void interrupted(fuse_req_t f, void *arg)
{
	struct opening *o = arg;

	(void)f;
	atomic_store(&o->ask.call.cancelled, true);
}

static void node_told(struct engine_ask *a, int r)
{
	struct opening *o = a->arg;
	struct fs *fs = fuse_req_userdata(o->f);

	/* Waits for a running interrupted(). */
	fuse_req_interrupt_func(o->f, NULL, NULL);
	reply_text(o, r, a->text);
	free(o);
	atomic_fetch_sub(&fs->pending, 1);
}

static int begin_asking(struct fs *fs, const struct opening *o)
{
	struct opening *copy = malloc(sizeof(*copy));
	unsigned ms = fs->timeout_ms < NODE_STATS_MS ? fs->timeout_ms : NODE_STATS_MS;

	if (!copy)
		return -ENOMEM;
	*copy = *o;
	copy->ask = (struct engine_ask){ .done = node_told, .arg = copy,
					 .call.deadline_ns = clock_ns() + ms * NS_PER_MS };
	atomic_fetch_add(&fs->pending, 1);
	fuse_req_interrupt_func(o->f, interrupted, copy);
	engine_node_stats(fs->engine, &copy->ask);
	return 0;
}

void control_open(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fuse_req_userdata(f);
	struct opening o = { .f = f, .ino = ino, .fi = *fi };
	int r = 0;

	if (ino < nodeid_of(0) || ino >= nodeid_of(nfiles(fs)))
		r = -ENOENT;
	else if (ino != nodeid_of(SCRUB) && (fi->flags & O_ACCMODE) != O_RDONLY)
		r = -EACCES;
	else if (ino == nodeid_of(NODE_STATS))
		r = begin_asking(fs, &o);
	else if (files[ino - nodeid_of(0)].slow)
		r = begin_slowly(fs, &o);
	else
		open_file(&o);
	if (r < 0)
		fuse_reply_err(f, -r);
}

/* scrub ------------------------------------------------------------------------- */

/*
 * Who opens it and writes "RATE EVICT_BAD" begins one (bytes a second; 0 or 1). Each read gives
 * the next report, for scrub_read(), wherever it reads. Closing it ends it, so that none goes on
 * for somebody who is not there any more.
 */
enum { REPORT_ROOM = 64 << 10 };

static int begin_scrub(struct fs *fs, struct handle *h, const char *buf, size_t size)
{
	struct scrub_opts o = { 0 };
	char text[64], more;
	unsigned evict_bad;

	if (size >= sizeof(text))
		return -EINVAL;
	memcpy(text, buf, size);
	text[size] = 0;
	if (sscanf(text, "%" SCNu64 " %u %c", &o.rate, &evict_bad, &more) != 2 || evict_bad > 1)
		return -EINVAL;
	o.evict_bad = evict_bad;
	WITH_LOCK(&h->scrub_lock);
	return h->scrub ? -EINVAL : engine_scrub(fs->engine, &o, &h->scrub);
}

void control_write(fuse_req_t f, fuse_ino_t ino, struct handle *h, const char *buf, size_t size)
{
	int r = ino == nodeid_of(SCRUB) ? begin_scrub(fuse_req_userdata(f), h, buf, size) : -EACCES;

	if (r < 0)
		fuse_reply_err(f, -r);
	else
		fuse_reply_write(f, size);
}

static bool read_scrub(fuse_req_t f, struct handle *h, size_t size)
{
	_cleanup_(writer_fini) struct writer w = { 0 };

	{
		WITH_LOCK(&h->scrub_lock);
		if (!h->scrub)
			return false;
		if (size >= REPORT_ROOM)
			scrub_write(h->scrub, &w);
	}
	if (w.bad || size < REPORT_ROOM)
		fuse_reply_err(f, w.bad ? ENOMEM : EINVAL);
	else
		fuse_reply_buf(f, (const char *)w.p, w.len);
	return true;
}

void control_read(fuse_req_t f, struct handle *h, size_t size, off_t off)
{
	if (read_scrub(f, h, size))
		return;
	size_t at = off < 0 || (size_t)off > h->text_len ? h->text_len :
							    (size_t)off;
	size_t left = h->text_len - at;

	fuse_reply_buf(f, h->text + at, size < left ? size : left);
}
