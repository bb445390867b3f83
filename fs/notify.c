/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this mount tells the kernel unasked: drop these pages, ask for these
 * attributes again. The kernel may have to wait for a page that a request under
 * way has locked; so it is told from a thread of its own, which holds no lock
 * and whom no worker waits for. Dropping a name waits for its directory as a whole, in which
 * creates may be waiting in a row: so names have another thread, and who waits for an answer
 * does not wait for them.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <utlist.h>

#include "common/error.h"
#include "common/log.h"
#include "fs/priv.h"

struct note {
	uint64_t nodeid;        /* 0: nothing */
	off_t off, len;         /* off < 0: attributes only */
	uint64_t dir;           /* a name in it is forgotten, too */
	char *name;
	bool drop;              /* and what it named, if nobody uses that */
	void (*done)(struct req *q);
	struct req *q;
	struct note *prev, *next;
};

struct notify {
	struct lock lock;
	pthread_cond_t more;
	struct note *queue;
	uint64_t wake_ns;       /* for away_expire(); 0: not */
	bool busy;              /* one is under way, or away_expire() */
	bool passing;           /* the kernel is told no more, and nothing is left to expire() */
	bool ending;
	pthread_cond_t idle;    /* passing, and nothing is left */

	struct fs *fs;
	const char *name;       /* the thread's */
	pthread_t thread;
};

/* NULL: it is time for away_expire(), or for the end (*ret_end). */
static struct note *next_note(struct notify *n, bool *ret_end)
{
	WITH_LOCK(&n->lock);
	struct note *note;

	n->busy = false;
	if (n->passing && !n->queue)
		pthread_cond_signal(&n->idle);
	while (!n->queue && !n->ending && (!n->wake_ns || clock_ns() < n->wake_ns))
		lock_wait_until(&n->lock, &n->more, n->wake_ns);
	note = n->queue;
	if (note)
		DL_DELETE(n->queue, note);
	else
		n->wake_ns = 0;
	*ret_end = !note && n->ending;
	n->busy = !*ret_end;
	return note;
}

void notify_wake_at(struct fs *fs, uint64_t ns)
{
	struct notify *n = fs->notify;

	WITH_LOCK(&n->lock);
	if (n->passing || (n->wake_ns && n->wake_ns <= ns))
		return;
	n->wake_ns = ns;
	pthread_cond_signal(&n->more);
}

/* libfuse before 3.16 does not know how to say it. The header's name of `flags` was
 * `padding` before Linux 6.2. */
struct expire {
	struct fuse_out_header h;
	uint64_t parent;
	uint32_t namelen, flags;
};
enum { EXPIRE_ONLY = 1 };
_Static_assert(sizeof(struct expire) ==
	       sizeof(struct fuse_out_header) + sizeof(struct fuse_notify_inval_entry_out), "");

static void expire_name(struct fs *fs, uint64_t dir, const char *name)
{
	size_t len = strlen(name);
	struct expire e = {
		.h = { .len = (uint32_t)(sizeof(e) + len + 1), .error = FUSE_NOTIFY_INVAL_ENTRY },
		.parent = dir, .namelen = (uint32_t)len, .flags = EXPIRE_ONLY,
	};
	struct iovec iov[] = { { &e, sizeof(e) }, { (char *)name, len + 1 } };

	/* ENOENT: it has forgotten it already. Else it is unmounted. */
	if (writev(fuse_session_fd(fs->se), iov, 2) < 0 && errno != ENOENT)
		log_debug("fs", "a name that was not forgotten: %s", strerror(errno));
}

/* Had its name only expired, the kernel and inode.c would remember what is gone until the
 * kernel wants memory. */
static void drop_name(struct fs *fs, uint64_t dir, const char *name)
{
	int r = fuse_lowlevel_notify_inval_entry(fs->se, dir, name, strlen(name));

	if (r < 0 && r != -ENOENT)
		log_debug("fs", "a name that was not dropped: %s", error_text(r));
}

/* How long what has lost its last name is kept for who looked it up, in a shared mount. */
#define KEPT_NS (2 * NS_PER_S)

void notify_kept(struct fs *fs)
{
	if (fs->shared)
		notify_wake_at(fs, clock_ns() + KEPT_NS);
}

static void expire(struct notify *n)
{
	uint64_t now = clock_ns(), next = away_expire(n->fs, now), since;

	if (next)
		notify_wake_at(n->fs, next);
	since = n->fs->shared ? inodes_expire_kept(n->fs->inodes, now - KEPT_NS) : 0;
	if (since)
		notify_wake_at(n->fs, since + KEPT_NS);
}

static void *run(void *arg)
{
	struct notify *n = arg;
	struct note *note;

	pthread_setname_np(pthread_self(), n->name);
	for (bool end = false; (note = next_note(n, &end)) || !end;) {
		if (!note) {
			expire(n);
			continue;
		}
		/* -ENOENT: the kernel does not know it; nothing to drop. */
		if (note->nodeid)
			fuse_lowlevel_notify_inval_inode(n->fs->se, note->nodeid,
							 note->off, note->len);
		if (note->name && note->drop)
			drop_name(n->fs, note->dir, note->name);
		else if (note->name)
			expire_name(n->fs, note->dir, note->name);
		free(note->name);
		metric_add(M_NOTIFICATIONS, -1);
		if (note->done)
			note->done(note->q);
		free(note);
	}
	return NULL;
}

int notify_new(struct fs *fs, const char *name, struct notify **ret)
{
	struct notify *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->fs = fs;
	n->name = name;
	lock_init(&n->lock, LOCK_FS_NOTIFY);
	lock_cond_init(&n->more);
	lock_cond_init(&n->idle);
	int r = pthread_create(&n->thread, NULL, run, n);
	if (r) {
		free(n);
		return -r;
	}
	*ret = n;
	return 0;
}

void notify_pass(struct notify *n)
{
	WITH_LOCK(&n->lock);

	n->passing = true;
	n->wake_ns = 0;
	while (n->queue || n->busy)
		lock_wait_until(&n->lock, &n->idle, 0);
}

struct notify *notify_free(struct notify *n)
{
	if (!n)
		return NULL;
	{
		WITH_LOCK(&n->lock);
		n->ending = true;
		pthread_cond_signal(&n->more);
	}
	pthread_join(n->thread, NULL);
	assert(!n->queue);
	pthread_cond_destroy(&n->more);
	pthread_cond_destroy(&n->idle);
	lock_fini(&n->lock);
	free(n);
	return NULL;
}

/* False: the kernel is told no more. */
static bool append(struct notify *n, struct note *note)
{
	WITH_LOCK(&n->lock);

	if (n->passing)
		return false;
	metric_add(M_NOTIFICATIONS, 1);
	DL_APPEND(n->queue, note);
	pthread_cond_signal(&n->more);
	return true;
}

static void enqueue(struct notify *n, const struct note *what)
{
	struct note *note = malloc(sizeof(*note));

	if (note)
		*note = *what;
	if (note && append(n, note))
		return;
	free(note);
	free(what->name);
	if (what->done)
		what->done(what->q);
}

void notify_range(struct fs *fs, uint64_t nodeid, uint64_t off, uint64_t len,
		  void (*done)(struct req *q), struct req *q)
{
	enqueue(fs->notify, &(struct note){ .nodeid = nodeid,
					    .off = (off_t)off,
					    .len = (off_t)len,
					    .done = done,
					    .q = q });
}

void notify_attr(struct fs *fs, uint64_t nodeid, void (*done)(struct req *q), struct req *q)
{
	enqueue(fs->notify, &(struct note){ .nodeid = nodeid, .off = -1, .done = done, .q = q });
}

void notify_name(struct fs *fs, uint64_t dir, const char *name, bool is_dir)
{
	struct note note = { .dir = dir, .name = strdup(name), .drop = !is_dir };

	if (note.name)
		enqueue(fs->notify_names, &note);
}

void notify_forget(struct fs *fs, uint64_t dir, const char *name, uint64_t nodeid)
{
	uint64_t begun = clock_ns();
	bool known = watched_holds(fs->watched, nodeid, false); /* by another name */

	/* Who looks the name up is told what is so. */
	if (inode_may_drop_attr(fs->inodes, nodeid))
		fuse_lowlevel_notify_inval_inode(fs->se, nodeid, -1, 0);
	if (name)
		expire_name(fs, dir, name);
	if (name && !known)
		inode_name_dropped(fs->inodes, nodeid, begun);
}
