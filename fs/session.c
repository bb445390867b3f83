/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount from its beginning to its end: the table of ops, mounting, running,
 * stopping.
 *
 * The end: no more requests are taken (the kernel has unmounted, or fs_stop()
 * was called and the workers have left the queue); those under way are answered;
 * the handles that the kernel did not release, because a program still had them
 * open, are closed, which publishes; then the inode table goes.
 */
#include <errno.h>
#include <poll.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "common/error.h"
#include "common/log.h"
#include "fs/priv.h"

static const struct fuse_lowlevel_ops ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.forget = fs_forget,
	.forget_multi = fs_forget_multi,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.readlink = fs_readlink,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.symlink = fs_symlink,
	.rename = fs_rename,
	.link = fs_link,
	.open = fs_open,
	.create = fs_create,
	.read = fs_read,
	.write = fs_write,
	.flush = fs_flush,
	.fsync = fs_fsync,
	.release = fs_release,
	.opendir = fs_opendir,
	.readdir = fs_readdir,
	.readdirplus = fs_readdirplus,
	.releasedir = fs_releasedir,
	.fsyncdir = fs_fsyncdir,
	.statfs = fs_statfs,
	.setxattr = fs_setxattr,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.removexattr = fs_removexattr,
	.fallocate = fs_fallocate,
	.lseek = fs_lseek,
	.copy_file_range = fs_copy_file_range,
	.ioctl = fs_ioctl,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	.tmpfile = fs_tmpfile,
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
	.statx = fs_statx,
#endif
};

void fs_library(struct fs_library *ret)
{
	*ret = (struct fs_library){ fuse_pkgversion(), FUSE_MAJOR_VERSION, FUSE_MINOR_VERSION };
}

/* libfuse's own words ---------------------------------------------------------------- */

static char last_words[256];

static void fuse_says(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[sizeof(last_words)];

	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = 0;
	if (level <= FUSE_LOG_WARNING) {
		snprintf(last_words, sizeof(last_words), "%s", line);
		log_warn("fuse", "%s", line);
	}
}

/* Mounting --------------------------------------------------------------------------- */

static unsigned default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 2 ? 2 : n > 8 ? 8 : (unsigned)n;
}

static int copy_opts(struct fs *fs, const struct fs_opts *o)
{
	fs->dir = strdup(o->dir);
	fs->source = strdup(o->source ? o->source : "slicefs");
	fs->config = strdup(o->config ? o->config : "");
	fs->control = strdup(o->control ? o->control : ".slicefs");
	if (!fs->dir || !fs->source || !fs->config || !fs->control)
		return -ENOMEM;
	fs->nthreads = o->threads ? o->threads : default_threads();
	fs->timeout_ms = o->timeout_ms ? o->timeout_ms : 10000;
	fs->spin_us = o->spin_us;
	fs->direct_from_bytes = o->direct_from_bytes;
	fs->read_only = o->read_only;
	fs->xattrs = o->xattrs;
	fs->noatime = o->noatime;
	if (o->keep)
		fs->keep = *o->keep;
	fs->shared = !engine_is_alone(fs->engine);
	fs->cache_s = fs->shared ? (double)o->cache_ms / 1000 : KERNEL_CACHE_S;
	fs->uid = geteuid();
	fs->gid = getegid();
	fs->mounted = clock_now();
	return 0;
}

static void drop_kept(void *arg, const struct gone *g)
{
	struct fs *fs = arg;

	if (g->body.kind != BODY_NONE)
		engine_drop(fs->engine, g);
}

/* Also of what the kernel does not know yet: it may be about to be told, by a listing that began
 * before that. It has the directory locked until then, and the note waits for that. */
static void tell_name_gone(struct fs *fs, const struct entry *e, bool is_dir)
{
	struct inode *dir = inode_get(fs->inodes, e->parent);

	if (dir) {
		notify_name(fs, e->parent, e->name, is_dir);
		notify_attr(fs, e->parent, NULL, NULL);
	}
	inode_put(fs->inodes, dir);
}

/* As if it had been unlinked by another process, which the kernel would know of. */
static void evicted(void *arg, const struct gone *g, const struct entry *names, uint32_t n)
{
	struct fs *fs = arg;

	inode_gone(fs->inodes, g);
	for (uint32_t k = 0; k < n; k++)
		tell_name_gone(fs, &names[k], S_ISDIR(g->attr.mode));
	struct inode *i = inode_get(fs->inodes, g->fileid);
	if (i)
		notify_attr(fs, g->fileid, NULL, NULL);
	inode_put(fs->inodes, i);
}

/* What only the kernel still knows. */
static bool spare(void *arg)
{
	struct fs *fs = arg;

	return inodes_drop_kept(fs->inodes);
}

static int make_parts(struct fs *fs)
{
	const struct attr root = {
		.fileid = INDEX_ROOT, .mode = S_IFDIR | 0755, .nlink = 1,
		.has_xattrs = true, /* for all we know */
	};

	fs->inodes = inodes_new();
	if (!fs->inodes)
		return -ENOMEM;
	inodes_set_drop(fs->inodes, drop_kept, fs);
	if (fs->shared)
		inodes_share(fs->inodes, (uint64_t)(fs->cache_s * NS_PER_S));
	if (!fs->noatime && !fs->read_only) {
		int r = accesses_new(fs->ix, fs->inodes, fs->timeout_ms, &fs->accesses);
		if (r < 0)
			return r;
		inodes_set_accesses(fs->inodes, fs->accesses);
	}
	fs->root = inode_know(fs->inodes, &root,
			      (struct place){ .kind = PLACE_FILEID });
	if (!fs->root)
		return -ENOMEM;
	fs->waits = waits_new(fs->ix);
	if (!fs->waits)
		return -ENOMEM;
	fs->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (fs->wake_fd < 0)
		return -errno;
	return 0;
}

static int do_mount(struct fs *fs, const char *options, char **ret_why)
{
	char *argv[] = { "slicefs", "-o", (char *)options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int r = -EINVAL;

	last_words[0] = 0;
	fuse_set_log_func(fuse_says);
	fs->se = fuse_session_new(&args, &ops, sizeof(ops), fs);
	if (fs->se) {
		errno = 0;
		if (fuse_session_mount(fs->se, fs->dir) == 0) {
			r = mount_dev(fs->dir, &fs->dev);
			if (r == 0)
				r = fs_amend_init(fs);
			if (r == 0)
				r = notify_new(fs, "fs-notify", &fs->notify);
			if (r == 0)
				r = notify_new(fs, "fs-names", &fs->notify_names);
			if (r < 0)
				fuse_session_unmount(fs->se);
		} else {
			r = errno ? -errno : -EPERM;
			fuse_session_destroy(fs->se);
			fs->se = NULL;
		}
	}
	fuse_opt_free_args(&args);
	if (r < 0)
		return why(ret_why, r, "%s: cannot mount: %s", fs->dir,
			   last_words[0] ? last_words : error_text(r));
	return 0;
}

int fs_mount(struct engine *e, const struct fs_opts *o, struct fs **ret,
	     char **ret_why)
{
	_cleanup_(freep) char *options = NULL;
	struct fs *fs;
	int r = mount_options(o, &options, ret_why);

	if (r < 0)
		return r;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->engine = e;
	fs->ix = engine_index(e);
	fs->wake_fd = -1;
	awake_init(&fs->awake, o->spin_us);
	lock_init(&fs->moves.lock, LOCK_FS_INODE);
	lock_init(&fs->lately.lock, LOCK_FS_INODE);
	lock_init(&fs->handles_lock, LOCK_FS_INODE);
	lock_init(&fs->root_lock, LOCK_FS_INODE);
	lock_init(&fs->away_lock, LOCK_FS_INODE);
	r = copy_opts(fs, o);
	if (r == 0)
		r = make_parts(fs);
	if (r == 0)
		r = do_mount(fs, options, ret_why);
	if (r < 0) {
		fs_free(fs);
		return r;
	}
	*ret = fs;
	return 0;
}

/* Running ---------------------------------------------------------------------------- */

static void wait_for_end(struct fs *fs)
{
	struct pollfd end = { .fd = fs->wake_fd, .events = POLLIN };
	struct presence p = { 0 };
	bool all = true;
	uint64_t told;

	for (int n; (n = poll(&end, 1, all ? (int)presence_interval_ms(fs) : 0)) <= 0;)
		if (!n)
			all = presence_tell(fs, &p, all);
	presence_fini(&p);
	/* What was done before it was told is seen from here on. */
	while (read(fs->wake_fd, &told, sizeof(told)) < 0 && errno == EINTR)
		;
	if (!atomic_load(&fs->stop_asked))
		return;
	/* Programs that have nothing open see a clean unmount; the workers
	 * answer to the last and then find the session ended. */
	int r = mount_detach(fs->se, fs->dir, fs->dev);
	if (r == -EINVAL)
		log_info("fs", "%s: has been unmounted, and is used", fs->dir);
	else if (r < 0)
		log_info("fs", "%s: in use (%s): ending it for those who use it",
			 fs->dir, error_text(r));
}

static void finish(struct fs *fs)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	/* They have deadlines; what brings something to an end in a node has none. */
	engine_last_session(fs->engine);
	while (atomic_load(&fs->pending))
		nanosleep(&ms, NULL);
	away_expire(fs, UINT64_MAX);
	handles_close(fs);
	while (atomic_load(&fs->pending))
		nanosleep(&ms, NULL);
	fs->accesses = accesses_free(fs->accesses);
	fs->workers = workers_free(fs->workers);
	fs->watched = watched_free(fs->watched);
	fs->notify_names = notify_free(fs->notify_names);
	fs->notify = notify_free(fs->notify);
}

static bool look(void *arg, bool begin)
{
	struct fs *fs = arg;

	return presence_tell(fs, &fs->looked, begin);
}

int fs_run(struct fs *fs)
{
	int r = workers_start(fs, &fs->workers);

	if (r < 0)
		return r;
	engine_watch_eviction(fs->engine, &(struct eviction){ evicted, spare, look, fs });
	wait_for_end(fs);
	engine_watch_eviction(fs->engine, NULL);
	presence_fini(&fs->looked);
	waits_stop(fs->waits);
	/* While requests are answered, which the kernel may wait for: */
	watched_stop(fs->watched);
	notify_pass(fs->notify_names);
	notify_pass(fs->notify);
	workers_stop(fs->workers);
	finish(fs);
	return 0;
}

void fs_stop(struct fs *fs)
{
	const uint64_t one = 1;
	int err = errno;

	atomic_store(&fs->stop_asked, true);
	if (write(fs->wake_fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd's counter does not overflow by this */
	errno = err;
}

void fs_free(struct fs *fs)
{
	if (!fs)
		return;
	if (fs->se) {
		mount_end(fs->se, fs->dir, fs->dev);
		watched_free(fs->watched);
		notify_free(fs->notify_names);
		notify_free(fs->notify);
		fuse_session_destroy(fs->se);
	}
	accesses_free(fs->accesses);
	waits_free(fs->waits);
	inode_put(fs->inodes, fs->root);
	inodes_free(fs->inodes);
	if (fs->wake_fd >= 0)
		close(fs->wake_fd);
	awake_fini(&fs->awake);
	lock_fini(&fs->moves.lock);
	lock_fini(&fs->lately.lock);
	lock_fini(&fs->handles_lock);
	lock_fini(&fs->root_lock);
	lock_fini(&fs->away_lock);
	free(fs->dir);
	free(fs->source);
	free(fs->config);
	free(fs->control);
	free(fs);
}
