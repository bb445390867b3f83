/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is agreed with the kernel when a session begins (FUSE_INIT), and what is
 * set outside of it.
 *
 * Reading large files past the page cache needs the kernel's word that such a
 * file can be mapped nonetheless (FUSE_DIRECT_IO_ALLOW_MMAP, Linux 6.6), and
 * libfuse before 3.17 does not know how to ask. So with an older library the
 * answer to INIT is amended on its way out.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/error.h"
#include "common/log.h"
#include "fs/priv.h"

static const uint64_t wanted[] = {
	FUSE_CAP_ASYNC_READ,
	FUSE_CAP_ASYNC_DIO,
	FUSE_CAP_ATOMIC_O_TRUNC,
	FUSE_CAP_EXPORT_SUPPORT,
	FUSE_CAP_DONT_MASK,    /* default ACLs decide before umask does */
	FUSE_CAP_PARALLEL_DIROPS,
	FUSE_CAP_READDIRPLUS,
	FUSE_CAP_READDIRPLUS_AUTO,
	FUSE_CAP_CACHE_SYMLINKS,
	FUSE_CAP_NO_OPENDIR_SUPPORT,
	FUSE_CAP_IOCTL_DIR,    /* waits for names */
	/* Instead of AUTO_INVAL_DATA: pages are dropped when we say so. */
	FUSE_CAP_EXPLICIT_INVAL_DATA,
};
/* Not: SPLICE_* (slower here), WRITEBACK_CACHE (slower, and hides when data is
 * written), POSIX_LOCKS and FLOCK_LOCKS (the kernel's own are right). */

/* Files may be mapped though they are read directly: then large ones are, if a
 * process that reads them in small pieces does not have to wait for the other
 * core to wake up with each of them. */
static void mappings_agreed(struct fs *fs)
{
	if (awake_possible(&fs->awake))
		fs->stream_bytes = fs->direct_from_bytes;
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
static void want_only(struct fuse_conn_info *c)
{
	fuse_unset_feature_flag(c, c->want_ext);
}

static void want(struct fuse_conn_info *c, uint64_t cap)
{
	fuse_set_feature_flag(c, cap);
}

static void want_mappings(struct fs *fs, struct fuse_conn_info *c)
{
	if (fuse_set_feature_flag(c, FUSE_CAP_DIRECT_IO_ALLOW_MMAP))
		mappings_agreed(fs);
}

int fs_amend_init(struct fs *fs)
{
	(void)fs;
	return 0;
}
#else
static void want_only(struct fuse_conn_info *c)
{
	c->want = 0;
}

static void want(struct fuse_conn_info *c, uint64_t cap)
{
	c->want |= c->capable & (unsigned)cap;
}

static void want_mappings(struct fs *fs, struct fuse_conn_info *c)
{
	(void)fs;
	(void)c;
}

/* Bits 32 and up of the flags, which stand in flags2. */
enum { DIRECT_IO_ALLOW_MMAP_2 = 1 << (36 - 32) };

static void amend(struct fs *fs, const struct fuse_init_in *in, struct iovec *answer)
{
	struct fuse_init_out *out = answer->iov_base;

	if (answer->iov_len < sizeof(*out) || !(out->flags & FUSE_INIT_EXT) ||
	    !(in->flags2 & DIRECT_IO_ALLOW_MMAP_2))
		return;
	out->flags2 |= DIRECT_IO_ALLOW_MMAP_2;
	mappings_agreed(fs);
}

/*
 * As soon as the kernel has the answer, its client may close the file, and another
 * worker may free what the answer was made of, or write the page that was read. The
 * sanitizers' writev() looks at the bytes, or notes that it has read them, once the call
 * is over: they are passed by. Then tsan must be told that what a request does comes after
 * what was answered before.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define writev(fd, iov, n) syscall(SYS_writev, fd, iov, n)
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define answered_before(fs) __tsan_release(fs)
#define asked_after(fs)     __tsan_acquire(fs)
#else
#define answered_before(fs) (void)(fs)
#define asked_after(fs)     (void)(fs)
#endif

/* iov: the kernel's fuse_out_header, then what it answers. */
static ssize_t answer(int fd, struct iovec *iov, int n, void *arg)
{
	const struct fuse_in_header *h = rbuf_request();

	if (h && h->opcode == FUSE_INIT && n == 2)
		amend(arg, (const void *)(h + 1), &iov[1]);
	answered_before(arg);
	return writev(fd, iov, n);
}

static ssize_t receive(int fd, void *buf, size_t len, void *arg)
{
	ssize_t n = read(fd, buf, len);

	asked_after(arg);
	return n;
}

int fs_amend_init(struct fs *fs)
{
	const struct fuse_custom_io io = { .writev = answer, .read = receive };

	return fuse_session_custom_io(fs->se, &io, fuse_session_fd(fs->se));
}
#endif

static void forget(void *arg, uint64_t dir, const char *name, uint64_t nodeid)
{
	notify_forget(arg, dir, name, nodeid);
}

/* Where others change names: if the kernel can be told to ask again for one without
 * losing what is mounted below it (FUSE_EXPIRE_ONLY, Linux 6.2), it may remember more. */
enum { HAS_EXPIRE_ONLY_2 = 1 << (35 - 32) };

static void watch(struct fs *fs)
{
	const struct watched_opts o = {
		.ix = fs->ix, .keep_ns = WATCHED_CACHE_S * NS_PER_S,
		.max_dirs = WATCHED_DIRS, .max_told = WATCHED_NAMES,
		.drop = forget, .arg = fs,
	};
	const struct fuse_in_header *h = rbuf_request();
	const struct fuse_init_in *in = h ? (const void *)(h + 1) : NULL;

	if (!fs->shared || !(fs->cache_s > 0) || fs->cache_s > WATCHED_CACHE_S)
		return;
	if (!in || !(in->flags & FUSE_INIT_EXT) || !(in->flags2 & HAS_EXPIRE_ONLY_2))
		return;
	int r = watched_new(&o, &fs->watched);
	if (r < 0)
		log_warn("fs", "%s: no directory is watched: %s", fs->dir, error_text(r));
}

void fs_init(void *arg, struct fuse_conn_info *c)
{
	struct fs *fs = arg;

	want_only(c);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		want(c, wanted[i]);
	if (fs->xattrs)
		want(c, FUSE_CAP_POSIX_ACL);
	want_mappings(fs, c);
	watch(fs);
	/* Without it the kernel keeps listings for as long as it likes. */
	fs->no_opendir = c->capable & FUSE_CAP_NO_OPENDIR_SUPPORT && !fs->shared;
	c->max_write = REQUEST_BYTES;
	c->max_readahead = REQUEST_BYTES;
	c->max_background = 128;
	c->congestion_threshold = 96;
	c->time_gran = 1;
}

/* The kernel takes max_readahead for a limit only; its default of 128 KiB makes
 * four requests of what one could be. Root may say so. */
void fs_tune(struct fs *fs)
{
	_cleanup_(closep) int fd = -1;
	struct statx st;
	char path[80];

	if (atomic_exchange(&fs->tuned, true))
		return;
	/* Of the kernel's own knowledge: asks nothing of us. */
	if (statx(AT_FDCWD, fs->dir, AT_STATX_DONT_SYNC, 0, &st) < 0)
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 st.stx_dev_major, st.stx_dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1024", 4) < 0)
		log_debug("fs", "%s: %s; reading ahead stays at the kernel's "
			  "default", path, error_text(errno));
}
