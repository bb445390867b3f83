/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of fs/ know of each other. Nobody else includes this. */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/lock.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "fs/access.h"
#include "fs/awake.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "fs/presence.h"
#include "fs/waits.h"
#include "fs/watched.h"
#include "index/index.h"

struct notify;
struct rbuf;
struct req;
struct handle;
struct layout;
struct workers;

enum {
	REQUEST_BYTES = 1 << 20, /* max_write, max_readahead */
	/* Where names and attributes change through this mount only, which tells
	 * the kernel, it may keep them for a day. */
	KERNEL_CACHE_S = 24 * 60 * 60,
	/* Where others change them, and a doorbell rings when they do. */
	WATCHED_CACHE_S = 60,
	WATCHED_DIRS = 512, /* two watches each */
	WATCHED_NAMES = 1 << 17,
	SENT_AWAY_SLOTS = 256,
	GENERATION = 1, /* fileids are never used twice */
};

_Static_assert(2 * WATCHED_DIRS + WAITS_MAX <= KV_WATCHES_MAX, "a node takes them");

/* Moves: operations that change where records are (see req.c). */
struct moves {
	struct lock lock;
	uint64_t ended;       /* how many have; also read without the lock */
	unsigned busy;        /* how many are under way */
	struct req *waiting;
};

/* What the index said last of one directory: see lately.c. */
struct lately {
	struct lock lock;
	struct attr attr;     /* fileid 0: nothing is kept */
	uint64_t heard_ns;    /* it was asked for then, or later */
	uint64_t ended;       /* requests that change names or attributes: how many have */
	unsigned busy;        /* and are under way */
};

/* A thread that was answered ESTALE, so that it looks the path up again. */
struct sent_away {
	pid_t pid;
	uint64_t ns;          /* when; 0: nobody */
	struct handle *promise; /* what is held for him, or NULL */
	uint64_t until_ns;
	enum metric_op kind;    /* what he asked, */
	uint64_t from;          /* and of which nodeid, or where */
	bool twice;             /* twice in a row */
	bool looked;            /* he has looked up something since, */
	unsigned missed;        /* and so often found nothing, */
	uint64_t missed_name;   /* the last time of that one */
	/* His look-ups since, whatever came of them: */
	uint64_t asked;         /* the last one's name */
	uint64_t shown;         /* what the last that found something has shown; or 0 */
	bool strayed;           /* one was not beneath that: another path, or call */
	uint64_t left;          /* what the one before that has shown */
};

struct fs {
	/* Set by fs_mount(), then read only. */
	struct engine *engine;
	struct index *ix;
	struct fuse_session *se;
	struct inodes *inodes;
	struct notify *notify, *notify_names;
	struct workers *workers;
	char *dir, *source, *config, *control;
	dev_t dev;              /* of what is mounted at dir */
	unsigned nthreads, timeout_ms, spin_us;
	bool read_only, xattrs, noatime, no_opendir;
	struct keep keep;       /* of what is made, where its directory says nothing */
	bool shared;            /* other mounts change the index, too */
	double cache_s;         /* how long the kernel may keep what it is told */
	struct watched *watched; /* or NULL; set when INIT is answered */
	struct waits *waits;
	struct accesses *accesses; /* NULL: times of reading are not kept */
	/* Files from this size on are to be read past the page cache, if open.c
	 * does not know better; 0: none. The second: as agreed with the kernel. */
	uint64_t direct_from_bytes, stream_bytes;
	struct awake awake; /* the spinning worker's */
	atomic_int pieces_pids[64]; /* who was seen to read streams in pieces */
	uid_t uid; /* the control directory's owner */
	gid_t gid;
	struct timespec mounted;

	struct moves moves;
	struct lately lately;

	struct lock away_lock;
	struct sent_away away[SENT_AWAY_SLOTS]; /* from that of the pid on */

	struct lock handles_lock;
	struct handle *handles; /* all open ones, for the end */

	atomic_uint pending;    /* requests that have not been freed */
	atomic_bool stop_asked; /* by fs_stop() */
	atomic_bool stopping;   /* workers: leave */
	atomic_bool tuned;      /* what needs an answered INIT has been done */
	int wake_fd;            /* an eventfd: fs_run() waits for it */
	struct presence looked; /* for the eviction, by its thread */
	struct inode *root;     /* held */

	struct lock root_lock;
	struct attr root_attr;  /* as last heard of; fileid 0: never */
};

/* One request of the kernel, from its arrival to after its answer. */
struct req {
	fuse_req_t fuse;
	struct fs *fs;
	uint64_t start_ns;
	uint64_t since_ns;      /* what the index says is not older */
	uint64_t dirs[2];       /* that it has entered; or 0 */
	enum metric_op kind;
	bool answered;
	uint64_t moves_seen;
	bool changes;           /* lately_begin() has counted it */
	uint64_t changes_seen;  /* by lately_attr() */
	void (*again)(struct req *q);
	void (*then)(struct req *q);      /* after change_attr() */
	void (*learned)(struct req *q);   /* after learn_attr(): see `now` */
	void (*next_step)(struct req *q); /* after clear_setid(), drop_capability() */
	void (*opened)(struct file_op *op, int64_t r); /* open_inode()'s done() */
	void (*reply)(struct req *q);     /* of an open */
	struct req *next;       /* of those that wait for a move, or inode_dropped() */

	struct inode *inode;    /* held, or NULL */
	struct handle *handle;  /* made, and not opened yet: freed with it */
	struct handle *on;      /* the kernel's fh, borrowed */
	struct handle *made;    /* opened, and not answered yet */
	struct fuse_file_info fi; /* of it */
	struct rbuf *buf;       /* what names and file.buf point into, held */

	/* What the op keeps between its stages. */
	struct attr attr;
	struct attr now;        /* of the inode, by learn_attr() */
	unsigned mask;          /* INDEX_SET_* */
	unsigned open_mask;     /* FILE_* */
	unsigned open_flags;    /* those that open_inode() was called with */
	int flags;
	bool lenient;           /* change_attr(): go on if it cannot be done */
	bool statx;             /* getattr: also the time of birth is wanted */
	bool retried;           /* room was made for it */
	bool all_setid;         /* clear_setid(): not only what the kernel leaves */
	unsigned capability;    /* of inode_maybe_capability() */
	bool resize;            /* setattr: to `off` bytes */
	bool sync;              /* write: by O_DSYNC, and published before the answer */
	bool close;             /* setattr: file.file was opened for this only */
	bool sent_away;         /* open_inode() wants the path to be looked up again */
	uint64_t looked_ns;     /* CREATE: what it found there it looked for then */
	uint64_t away_ns;       /* this thread was sent away then, and is back; or 0 */
	struct handle *promise; /* with what it was promised: away.c */
	struct file *known;     /* held while it is opened */
	bool no_promise;        /* it could not be made */
	bool promises;          /* it was, or its thread is on its way back: the kernel is not
				   to keep the name */
	bool back;              /* of a thread that was sent away */
	bool returns;           /* it was sent away by the same request */
	size_t size;
	uint64_t off;
	uint64_t listing;       /* readdir: which one of the directory; in INDEX_H_FREE */
	const char *data;       /* in buf */
	char *text;             /* heap, freed with it */
	struct layout *layout;  /* layout.c's */

	struct index_op ix;
	struct file_op file;
	struct engine_ask ask;
};

enum { HANDLE_MAGIC = 0x48534c43 };

/* What fi->fh points to. */
struct handle {
	uint32_t magic;
	bool writer;            /* holds a FILE_WRITE */
	bool writable;          /* opened for writing by the user */
	struct caching caching;
	struct inode *inode;    /* held */
	struct file *file;      /* held; NULL for a control file */
	struct opens *spare;    /* for inode_open() */
	bool closing;
	atomic_bool has_read;   /* the access time has been seen to */
	atomic_uint pieces;     /* small reads in a row, of a stream */
	bool control;           /* of a control file: no inode, no file */
	struct handle *prev, *next;
	char *text;             /* a control file's */
	size_t text_len;
	struct lock scrub_lock;
	struct scrub *scrub;    /* begun by who writes to `scrub`; under the lock */
};

/* req.c ----------------------------------------------------------------------- */

/* A request record, or NULL: it was answered with an error. `on`: also holds
 * the inode, which must be known (else ESTALE). */
struct req *req_begin(fuse_req_t f, enum metric_op kind);
struct req *req_begin_on(fuse_req_t f, enum metric_op kind, fuse_ino_t ino);

/* Marks it as being answered (err: errno or 0, for the counters) and gives the
 * handle to do that with, once. req_free() follows. */
fuse_req_t req_answer(struct req *q, int err);
void req_free(struct req *q);

/* Names in dir are about to be looked at or changed; two at most. Before the index is
 * asked. */
void req_enter(struct req *q, uint64_t dir);

/* What has begun is brought to its end, whoever interrupts. */
void req_see_through(struct req *q);

void req_error(struct req *q, int r); /* answers a negative errno; frees */
/* The same of what is open: what it needed of the session before is lost, and no other path leads
 * there. */
void req_io_error(struct req *q, int64_t r);
void req_ok(struct req *q);
void req_attr(struct req *q, const struct attr *a);
/* An entry's attributes, of a draft from here; false: it was one when the index
 * looked and is not any more. */
bool entry_attr(struct fs *fs, const struct entry *e, struct attr *ret);
/* Answers with an entry: enters the inode. a->nlink etc. as the index has them.
 * again(q): it depends on a publish that is under way; called after it. */
void req_entry(struct req *q, const struct attr *a, struct place p,
	       void (*again)(struct req *q));
/* Its two halves. NULL: q was answered, or again(q) is called. The inode is the second
 * one's to give back. */
struct inode *req_show(struct req *q, struct attr *a, struct place p,
		       void (*again)(struct req *q));
void req_reply_entry(struct req *q, struct inode *i, const struct attr *a, struct place p);
/* Fills in how long the kernel may keep this name, in the directory that q entered, of
 * the object i, which is at p, and its attributes a. */
void req_entry_keeps(struct req *q, const char *name, struct inode *i,
		     const struct attr *a, struct place p, struct fuse_entry_param *e);
/* The same of q->inode's attributes alone, seconds. */
double req_attr_keeps(struct req *q, const struct attr *a);
/* There may be extended attributes of q->inode, for all that is known. */
bool req_maybe_xattrs(struct req *q);

void move_begin(struct fs *fs);
void move_end(struct fs *fs);
/* Notes how things stand and fills q->ix.fileid and .place from q->inode. */
void req_place(struct req *q);
/*
 * A record was not found where it should be. If it may have moved meanwhile:
 * true, and again(q) is called (now, or when a move has ended); q is no longer
 * the caller's. False: nothing has moved, it is not there.
 */
bool req_again(struct req *q, void (*again)(struct req *q));
/* The same of q->inode: who knew, when he looked, that it has lost its last name for good has
 * looked for what is left of it, and no move brings it back. */
bool req_inode_again(struct req *q, void (*again)(struct req *q));
/* The same after q->ix missed; if it is not there, answers err. */
void req_missed(struct req *q, void (*again)(struct req *q), int err);

/* lately.c -------------------------------------------------------------------- */

void lately_begin(struct req *q);
void lately_end(struct req *q, int err); /* before the answer */
/* q, which makes or removes a name in dir, has set its times to that; NULL: who knows. */
void lately_touched(struct fs *fs, uint64_t dir, const struct timespec *when);
/* False: the index is to be asked for q->inode, and lately_heard() told what it says. */
bool lately_attr(struct req *q, struct attr *ret);
void lately_heard(struct req *q, const struct attr *a);

/* away.c ---------------------------------------------------------------------- */

/* q is about to be answered ESTALE, upon which the kernel looks the name up again and
 * comes back. True: it has come back already, and what it found has gone, too; and
 * it is not an open, which is promised what it finds. */
bool away_note(struct req *q);
/* The directory in which q looks something up has gone. True: its thread has not looked its
 * path up again for that, and would upon ESTALE. */
bool away_may_go(struct req *q);
/* The directory in which q makes something has gone: -ESTALE, or -ENOENT if it has come back. */
int away_error(const struct req *q);
/* q has begun: its thread may not be on its way back any more. */
void away_begin(struct req *q);
/* Has q's thread been sent away? Then its lookups make promises. */
bool away_is(struct req *q);
/* Holds h for q's thread, until it opens h's inode. Takes it. */
void away_promise(struct req *q, struct handle *h);
/* q->inode is known. If q's thread comes back to it: q->away_ns, and q->promise (or
 * NULL). */
void away_take(struct req *q);
/* It found that there is no such name. */
void away_missed(struct req *q);
/* It found one, which it may have missed a moment before. */
void away_found(struct req *q);
/* It is about to be shown that. True: on its way back, so the kernel is not to keep the name. */
bool away_show(struct req *q, uint64_t nodeid);
/* It made one: it does not come back. */
void away_end(struct req *q);
/* It is answered, and not by ESTALE: what its thread called is over, if that was it. */
void away_over(struct req *q);
/* Drops promises that are too old at now_ns; when to look again, or 0. */
uint64_t away_expire(struct fs *fs, uint64_t now_ns);
/* NULL is fine. */
void promise_drop(struct fs *fs, struct handle *h);

/* req.c again ------------------------------------------------------------------ */

/* True: r is -ENOSPC, and room was made by giving up what only the kernel still
 * knows: try once more (P7). Once for each request. */
bool req_made_room(struct req *q, int64_t r);

/* q->file prepared for a file call: file, done, and the rest zero. */
struct file_op *req_file(struct req *q, struct file *f,
			 void (*done)(struct file_op *op, int64_t r));
static inline struct req *req_of(struct index_op *op)
{
	return op->arg;
}

/* caller.c -------------------------------------------------------------------- */

/* Neither in the group nor with CAP_FSETID: who changes a file loses its set-gid.
 * If nothing can be found out, all but root and the file's own group are. */
bool caller_is_outside(struct req *q, gid_t gid);
/* The signal that interrupted it will end the process. True if nothing can be
 * found out. */
bool caller_is_dying(fuse_req_t f);
/* He may open an object with these attributes by open(2)'s flags, beyond doubt. */
bool caller_may_open(struct req *q, const struct attr *a, int flags);

/* path.c ---------------------------------------------------------------------- */

/* Of the caller's system call. False if nothing can be found out: /proc/TID/syscall and the
 * memory may be root's to read. For a second, at most, it waits for that. */

/* It makes an object of that name, and not by open(2) or rename(2): it is the last of its path. */
bool path_makes(fuse_req_t f, const char *name);
/* It is the first of its path: that is where it begins to look. */
bool path_begins(fuse_req_t f, const char *name);
/* It has two of them. */
bool path_has_other(fuse_req_t f);

/* init.c ----------------------------------------------------------------------- */

/* What is agreed with the kernel: the op that begins the session. */
void fs_init(void *arg, struct fuse_conn_info *c);
/* Once, on the first request after INIT. */
void fs_tune(struct fs *fs);
/* After fuse_session_mount(), before the first request. */
int fs_amend_init(struct fs *fs);

/* mount.c --------------------------------------------------------------------- */

/* Checks the mount point, the device and the options; *ret: what fusermount3 and
 * the library are to be told, heap. */
int mount_options(const struct fs_opts *o, char **ret, char **ret_why);
/* Which file system is mounted there. Asks nobody: it may be for this process to answer. */
int mount_dev(const char *dir, dev_t *ret);
/* Unmounts the session's, of that device, unless somebody uses it: 0 or negative; -EINVAL:
 * somebody has unmounted it, or it is another one that is seen there. */
int mount_detach(struct fuse_session *se, const char *dir, dev_t dev);
/* Unmounts it, used or not, if it is still there, and closes the connection. */
void mount_end(struct fuse_session *se, const char *dir, dev_t dev);

/* attr.c ---------------------------------------------------------------------- */

void attr_to_stat(const struct attr *a, struct stat *st);
void fs_getattr(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_setattr(fuse_req_t f, fuse_ino_t ino, struct stat *st, int to_set,
		struct fuse_file_info *fi);
void fs_readlink(fuse_req_t f, fuse_ino_t ino);
void fs_statfs(fuse_req_t f, fuse_ino_t ino);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void fs_statx(fuse_req_t f, fuse_ino_t ino, int flags, int mask,
	      struct fuse_file_info *fi);
#endif
/* Answers q with a statx. */
void reply_statx(struct req *q, const struct attr *a);
/* Reads q->inode's attributes into q->now, then calls next(q). */
void learn_attr(struct req *q, void (*next)(struct req *q));

/* Sets q->attr's fields q->mask (INDEX_SET_*) of q->inode wherever they live,
 * then calls then(q). */
void change_attr(struct req *q, void (*then)(struct req *q));
/*
 * Clears set-id bits as a change of the content by q's caller does, then calls
 * next(q). `all`: the kernel leaves all of it to us; else only what it never
 * clears, set-gid without group execute.
 */
void clear_setid(struct req *q, bool all, void (*next)(struct req *q));

/* names.c --------------------------------------------------------------------- */

void fs_lookup(fuse_req_t f, fuse_ino_t parent, const char *name);
void fs_forget(fuse_req_t f, fuse_ino_t ino, uint64_t n);
void fs_forget_multi(fuse_req_t f, size_t n, struct fuse_forget_data *v);
void fs_mknod(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev);
void fs_mkdir(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode);
void fs_symlink(fuse_req_t f, const char *target, fuse_ino_t parent,
		const char *name);
void fs_link(fuse_req_t f, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void fs_unlink(fuse_req_t f, fuse_ino_t parent, const char *name);
void fs_rmdir(fuse_req_t f, fuse_ino_t parent, const char *name);
void fs_rename(fuse_req_t f, fuse_ino_t parent, const char *name,
	       fuse_ino_t parent2, const char *name2, unsigned flags);

/* keep.c ---------------------------------------------------------------------- */

#define KEEP_XATTR "user.slicefs."

/* What follows that in the name of an extended attribute; NULL: it is another one. */
const char *keep_what(const char *xattr);
/* q->ix.name is one of these: answer q. */
void keep_get_go(struct req *q);
void keep_set_go(struct req *q); /* and removexattr */
/* Appends the names of those that are set. */
void keep_list(const struct keep *k, struct writer *w);

/* xattr.c --------------------------------------------------------------------- */

void fs_setxattr(fuse_req_t f, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags);
void fs_getxattr(fuse_req_t f, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t f, fuse_ino_t ino, size_t size);
void fs_removexattr(fuse_req_t f, fuse_ino_t ino, const char *name);
/* Removes security.capability of q->inode, which is open, as each write does; then
 * next(q). Asks for nothing if it is known to be gone. */
void drop_capability(struct req *q, void (*next)(struct req *q));
/* Answers a query for an attribute of q->size bytes at most, 0: for its size. */
void reply_bytes(struct req *q, struct bytes b);

/* layout.c -------------------------------------------------------------------- */

/* Answers with `slicefs.layout` of q->inode. */
void layout_go(struct req *q);

/* ioctl.c --------------------------------------------------------------------- */

void fs_ioctl(fuse_req_t f, fuse_ino_t ino, unsigned cmd, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_len,
	      size_t out_len);

/* dir.c ----------------------------------------------------------------------- */

void fs_opendir(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_readdir(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi);
void fs_readdirplus(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void fs_releasedir(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_fsyncdir(fuse_req_t f, fuse_ino_t ino, int datasync,
		 struct fuse_file_info *fi);

/* open.c ---------------------------------------------------------------------- */

/* Opens q->inode, with or without a name, wherever its record is (req_place()).
 * Where others change the index: its version that is published; done() may be called
 * with -ESTALE for who is to be sent away, or to look for an end of a move. */
void open_inode(struct req *q, unsigned flags,
		void (*done)(struct file_op *op, int64_t r));
/* Closes q->file.file, opened with these flags, then next(q). */
void req_leave(struct req *q, unsigned flags, void (*next)(struct req *q));
/* After done(-ESTALE): again(q) is called after a move, or q is answered. */
void open_stale(struct req *q, void (*again)(struct req *q));
void fs_open(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
/* Where a process is noted that reads large files in small pieces. */
static inline atomic_int *pieces_pid(struct fs *fs, pid_t pid)
{
	return &fs->pieces_pids[(unsigned)pid % (sizeof(fs->pieces_pids) / sizeof(fs->pieces_pids[0]))];
}
void fs_create(fuse_req_t f, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void fs_tmpfile(fuse_req_t f, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi);
void fs_flush(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_fsync(fuse_req_t f, fuse_ino_t ino, int datasync,
	      struct fuse_file_info *fi);
void fs_release(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
/* Fills ix for a new object of mode in parent, owned by q's caller. */
void new_object(struct req *q, fuse_ino_t parent, const char *name, mode_t mode);
/* q's handle opens f as q->inode, and is not q's any more; fills what the kernel is to
 * know of it. NULL: q->inode is open as another line. */
struct handle *handle_open(struct req *q, struct file *f, bool writer,
			   struct fuse_file_info *ret);
/* file_publish() of all of f, which is open as q->inode; done() calls the second first. */
void req_publish(struct req *q, struct file *f, void (*done)(struct file_op *op, int64_t r));
void req_published(struct req *q, int64_t r);
/* Takes the handle. done(q, r) may be NULL; r: what publishing said. */
void handle_close(struct fs *fs, struct handle *h,
		  void (*done)(struct req *q, int64_t r), struct req *q);
/* Makes the new draft a published empty file and answers with its entry. */
void draft_for_mknod(struct index_op *op, int r);
/* Closes all handles; blocks until that is done. After the last request. */
void handles_close(struct fs *fs);
struct handle *handle_of(const struct fuse_file_info *fi);
struct handle *handle_new(struct fs *fs, bool control);
void handle_free(struct fs *fs, struct handle *h); /* one that is not open */

/* io.c ------------------------------------------------------------------------ */

void fs_read(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
	     struct fuse_file_info *fi);
void fs_write(fuse_req_t f, fuse_ino_t ino, const char *buf, size_t size,
	      off_t off, struct fuse_file_info *fi);
void fs_fallocate(fuse_req_t f, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
void fs_lseek(fuse_req_t f, fuse_ino_t ino, off_t off, int whence,
	      struct fuse_file_info *fi);
void fs_copy_file_range(fuse_req_t f, fuse_ino_t ino, off_t off,
			struct fuse_file_info *fi, fuse_ino_t to_ino,
			off_t to_off, struct fuse_file_info *to_fi, size_t len,
			int flags);

/* notify.c -------------------------------------------------------------------- */

int notify_new(struct fs *fs, const char *name, struct notify **ret); /* name: its thread's */
/* Sends what is queued, and waits for that: while requests are answered, which the kernel may
 * have to wait for. What is asked for from then on is not sent, and done at once; away_expire()
 * is the caller's. */
void notify_pass(struct notify *n);
/* Ends the thread when what is queued, if anything, has been sent. Returns NULL; NULL is fine. */
struct notify *notify_free(struct notify *n);
/* The kernel drops its pages of [off, off + len), then done(q) is called on the
 * notify thread. Out of memory, or at the end (notify_pass()): done(q) is called at once,
 * pages stay. */
void notify_range(struct fs *fs, uint64_t nodeid, uint64_t off, uint64_t len,
		  void (*done)(struct req *q), struct req *q);
/* The name is gone: the kernel drops it, and what it named if nobody uses that. One that was
 * made anew meanwhile it asks for again; a directory, in which somebody may stand, as any
 * name, which it only asks for again. */
void notify_name(struct fs *fs, uint64_t dir, const char *name, bool is_dir);
/* The kernel asks for the attributes again, then as notify_range(). */
void notify_attr(struct fs *fs, uint64_t nodeid, void (*done)(struct req *q),
		 struct req *q);
/* The kernel asks again what `name` (NULL: nothing) in dir is, and for the attributes
 * of nodeid, if it could have them without that. Not from the notify thread, nor from
 * one that a request waits for: it takes the lock of dir in the kernel. */
void notify_forget(struct fs *fs, uint64_t dir, const char *name, uint64_t nodeid);
/* Something may be kept from now on (inode_keep()): in a shared mount not for ever. */
void notify_kept(struct fs *fs);
/* away_expire() is called at that time, or before. */
void notify_wake_at(struct fs *fs, uint64_t ns);

/* control.c ------------------------------------------------------------------- */

/* nodeids from here on are the control directory and its files. */
#define CONTROL_NODEID (1ULL << 63)

static inline bool is_control(fuse_ino_t ino)
{
	return ino >= CONTROL_NODEID;
}
/* parent, name is the control directory: it cannot be made, moved or removed. */
bool is_control_name(const struct fs *fs, fuse_ino_t parent, const char *name);
void control_lookup(fuse_req_t f, fuse_ino_t parent, const char *name);
int control_stat(const struct fs *fs, fuse_ino_t ino, struct stat *ret);
void control_getattr(fuse_req_t f, fuse_ino_t ino);
void control_readdir(fuse_req_t f, fuse_ino_t ino, size_t size, off_t off,
		     bool plus);
void control_open(fuse_req_t f, fuse_ino_t ino, struct fuse_file_info *fi);
void control_read(fuse_req_t f, struct handle *h, size_t size, off_t off);
void control_write(fuse_req_t f, fuse_ino_t ino, struct handle *h, const char *buf, size_t size);

/* worker.c -------------------------------------------------------------------- */

/* Starts them; they end when the session has ended. */
int workers_start(struct fs *fs, struct workers **ret);
/* Makes them leave the kernel's queue, and waits for them. */
void workers_stop(struct workers *w);
/* The same; then frees them and the buffers: no request may hold one. Returns
 * NULL; NULL is fine. */
struct workers *workers_free(struct workers *w);
/* Holds on to the request that this thread is processing, so that what libfuse
 * handed out of it stays; NULL outside of a worker. */
struct rbuf *rbuf_hold(void);
void rbuf_drop(struct rbuf *b);
/* The request that this thread is processing, as it came: the kernel's header,
 * then what belongs to the opcode. For what libfuse does not pass on. NULL outside
 * of a worker. */
const struct fuse_in_header *rbuf_request(void);
