/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that were sent away.
 *
 * Where other mounts change the index, too, what the kernel knows by a name, or of a
 * version, may be old when it asks to open it. To ESTALE its answer is to look up the
 * whole path again, whatever it has cached, and to ask again; but only once: a second
 * ESTALE is the application's, and so would be an ENOENT for a name that has been there
 * all the time, if it is replaced once more between that lookup and the open.
 *
 * So a thread that was answered ESTALE, to whatever it asked, is noted, and its next
 * lookup of a file makes a *promise*: a handle is opened, before it is answered, and held
 * for it; when it comes to open the nodeid, or to look at it, that is still open as what
 * it was shown, whatever has become of the name. That was published after its call began,
 * so it is what it may see (P2). The handle is a writer's, so that renames and unlinks keep
 * track of it (index_writer()).
 *
 * Is it the same call that comes back? It may have found no name and ended, and a later
 * call may have found one. So the kernel is not to keep a name that it was told with a
 * promise: each walk to it looks it up, and makes a promise anew. Else it is told from
 * its kind and from what else the thread has asked since. So what open(2) asks before
 * it opens, the attributes, is not answered ESTALE: inode.c remembers them
 * (inode_attr_missed()).
 *
 * Who comes back looks up all of the path, each name in what he was shown last. So a look-up
 * elsewhere is that of a later call (or of the other path of link(2) or rename(2), or what
 * a symbolic link says): it is sent away anew, and so is a request about what he was not
 * shown. That the later call begins with just that look-up, the kernel is not to keep any
 * name that it is told on such a way.
 *
 * A directory that has gone is not in the path that he looks up again, unless he began
 * there: then there is nothing of that name. But the kernel asks about a name that it has,
 * does not believe ESTALE, and asks once more; so the second in a row is ESTALE, too, if
 * it is not known that he began there (path.c).
 *
 * A promise that nobody comes for (he may not open it, or was killed) is given up after
 * PROMISE_MS, by the notify thread.
 */
#include <errno.h>
#include <string.h>

#include "common/table.h"
#include "fs/priv.h"

enum { PROMISE_MS = 2000, MISSES = 8, TRIES = 8 /* slots that a thread may have */ };

void promise_drop(struct fs *fs, struct handle *h)
{
	if (h)
		handle_close(fs, h, NULL, NULL);
}

/* Slots ------------------------------------------------------------------------------- */

/* Under the lock: empties it; what it promised is the caller's to drop. */
static struct handle *clear(struct sent_away *s)
{
	struct handle *h = s->promise;

	*s = (struct sent_away){ 0 };
	return h;
}

/* What it was sent away from is too long ago to be the same call. */
static bool is_over(const struct fs *fs, const struct sent_away *s, uint64_t now)
{
	return !s->ns || (now > s->ns && now - s->ns >= fs->timeout_ms * NS_PER_MS);
}

static struct sent_away *slot_at(struct fs *fs, pid_t pid, unsigned i)
{
	return &fs->away[((unsigned)pid + i) % SENT_AWAY_SLOTS];
}

/* The thread's, whatever has become of it; NULL: it has none. Under the lock, as the next. */
static struct sent_away *slot_of(struct req *q)
{
	pid_t pid = fuse_req_ctx(q->fuse)->pid;

	for (unsigned i = 0; i < TRIES; i++) {
		struct sent_away *s = slot_at(q->fs, pid, i);
		if (s->ns && s->pid == pid)
			return s;
	}
	return NULL;
}

/* And if the call that was sent away may go on. */
static struct sent_away *slot_in_use(struct req *q)
{
	struct sent_away *s = slot_of(q);

	return s && !is_over(q->fs, s, q->start_ns) ? s : NULL;
}

/* One for the thread: its own, or one that nobody needs, or that of who was sent away first. */
static struct sent_away *slot_for(struct req *q, pid_t pid)
{
	struct sent_away *s = slot_of(q), *first = slot_at(q->fs, pid, 0);
	uint64_t now = clock_ns();

	for (unsigned i = 0; !s && i < TRIES; i++) {
		struct sent_away *x = slot_at(q->fs, pid, i);
		if (is_over(q->fs, x, now))
			s = x;
		else if (x->ns < first->ns)
			first = x;
	}
	return s ? s : first;
}

/* Was q's thread sent away by the same request of the same object, and has asked nothing
 * since? */
static bool was_just_sent(const struct req *q, const struct sent_away *s, uint64_t from)
{
	return s->ns && s->pid == fuse_req_ctx(q->fuse)->pid && s->kind == q->kind &&
	       s->from == from && !s->looked;
}

bool away_note(struct req *q)
{
	pid_t pid = fuse_req_ctx(q->fuse)->pid;
	struct handle *h;

	if (!q->fs->shared)
		return false;
	if (q->back && q->kind != MOP_OPEN)
		return true;
	{
		WITH_LOCK(&q->fs->away_lock);
		struct sent_away *s = slot_for(q, pid);
		uint64_t from = q->inode ? q->inode->nodeid : q->ix.parent;
		bool twice = was_just_sent(q, s, from);
		h = clear(s);
		*s = (struct sent_away){
			.pid = pid, .ns = clock_ns(), .kind = q->kind, .from = from, .twice = twice,
		};
	}
	promise_drop(q->fs, h);
	return false;
}

bool away_may_go(struct req *q)
{
	uint64_t dir = q->ix.parent;
	struct sent_away s = { 0 };
	bool just;

	if (path_makes(q->fuse, q->ix.name))
		return false; /* filename_create() in Linux does not come back: away_error() */
	{
		WITH_LOCK(&q->fs->away_lock);
		const struct sent_away *is = slot_in_use(q);
		if (is)
			s = *is;
		just = is && was_just_sent(q, is, dir);
	}
	if (just)
		return !s.twice && !path_begins(q->fuse, q->ix.name);
	if (!s.strayed)
		return s.shown != dir;
	return (s.shown != dir && s.left != dir) || !path_has_other(q->fuse);
}

int away_error(const struct req *q)
{
	return q->fs->shared && !q->returns ? -ESTALE : -ENOENT;
}

bool away_is(struct req *q)
{
	if (!q->fs->shared)
		return false;
	WITH_LOCK(&q->fs->away_lock);
	struct sent_away *s = slot_in_use(q);
	if (s)
		s->looked = true;
	return s;
}

void away_promise(struct req *q, struct handle *h)
{
	uint64_t now = clock_ns();
	struct handle *old = h;

	q->promises = true;
	{
		WITH_LOCK(&q->fs->away_lock);
		struct sent_away *s = slot_in_use(q);
		if (s) {
			old = s->promise;
			s->promise = h;
			s->until_ns = now + PROMISE_MS * NS_PER_MS;
		}
	}
	promise_drop(q->fs, old);
	notify_wake_at(q->fs, now + PROMISE_MS * NS_PER_MS);
}

/* Who makes a name has missed that one before: once, since the kernel does not remember it. */
static bool makes_name(enum metric_op kind)
{
	return kind == MOP_LINK || kind == MOP_MKDIR || kind == MOP_MKNOD || kind == MOP_SYMLINK ||
	       kind == MOP_RENAME;
}

/* Requests that a walk to a name consists of, besides the one it is for. */
static bool is_of_walk(enum metric_op kind)
{
	return kind == MOP_LOOKUP || kind == MOP_GETATTR || kind == MOP_GETXATTR ||
	       kind == MOP_READLINK || kind == MOP_CREATE;
}

/* Those that a walk to a name may be for. */
static bool has_walk(enum metric_op kind)
{
	switch (kind) {
	case MOP_OPEN:
	case MOP_OPENDIR:
	case MOP_SETATTR:
	case MOP_SETXATTR:
	case MOP_REMOVEXATTR:
	case MOP_LISTXATTR:
	case MOP_STATFS:
	case MOP_UNLINK:
	case MOP_RMDIR:
		return true;
	default:
		return makes_name(kind);
	}
}

/* Was it that, or sent away on its walk? */
static bool was_sent(const struct sent_away *s, enum metric_op kind)
{
	return s->kind == kind || (is_of_walk(s->kind) && has_walk(kind));
}

static bool has_missed(struct req *q, const struct sent_away *s)
{
	return s->missed > makes_name(q->kind);
}

/* Is it the call that was sent away, and not a later one? That comes back as what it was;
 * without a lookup if it comes by a descriptor (/proc/self/fd). */
static bool is_same_call(const struct req *q, const struct sent_away *s)
{
	return s->promise ||
	       (!s->looked && s->kind == q->kind && s->from == q->inode->nodeid);
}

/* Is q's object what its thread has come to, looking the path up again? */
static bool has_come_to(const struct req *q, const struct sent_away *s)
{
	uint64_t nodeid = q->inode->nodeid;

	if (s->promise)
		return s->promise->inode == q->inode;
	if (s->kind == MOP_LINK && s->from == nodeid)
		return true; /* of link(2) by a descriptor there is the other path only */
	if (!s->strayed)
		return s->shown == nodeid;
	return q->kind == MOP_LINK && s->left == nodeid; /* then came the other path */
}

void away_begin(struct req *q)
{
	struct handle *h = NULL;

	if (is_of_walk(q->kind))
		return;
	{
		WITH_LOCK(&q->fs->away_lock);
		struct sent_away *s = slot_of(q);
		q->returns = s && s->kind == q->kind && s->looked && !is_over(q->fs, s, q->start_ns);
		if (s && !was_sent(s, q->kind))
			h = clear(s); /* the call that was sent away is over */
	}
	promise_drop(q->fs, h);
}

void away_take(struct req *q)
{
	struct handle *h = NULL;

	if (!q->fs->shared)
		return;
	{
		WITH_LOCK(&q->fs->away_lock);
		struct sent_away *s = slot_in_use(q);
		if (!s || !was_sent(s, q->kind))
			return;
		uint64_t ns = s->ns;
		q->back = s->looked && !has_missed(q, s) && has_come_to(q, s);
		bool same = is_same_call(q, s);
		h = clear(s);
		if (same && (!h || h->inode == q->inode)) {
			q->away_ns = ns;
			q->promise = steal(&h);
		}
	}
	promise_drop(q->fs, h);
}

/* Of a look-up: a name, so to say. */
static uint64_t name_looked_up(const struct req *q)
{
	return q->ix.parent ^ (uint64_t)table_hash(q->ix.name, strlen(q->ix.name)) << 32;
}

/* A look-up of his is answered. The kernel asks once more about a name if what it had was
 * another one. */
static void follow(struct req *q, struct sent_away *s)
{
	uint64_t name = name_looked_up(q);

	if (s->shown && q->ix.parent != s->shown && name != s->asked) {
		s->strayed = true;
		s->left = s->shown;
	}
	s->asked = name;
}

bool away_show(struct req *q, uint64_t nodeid)
{
	if (!q->fs->shared || q->kind != MOP_LOOKUP || !q->ix.name)
		return false;
	WITH_LOCK(&q->fs->away_lock);
	struct sent_away *s = slot_in_use(q);
	if (!s)
		return false;
	follow(q, s);
	s->shown = nodeid;
	return !s->strayed;
}

static void forget(struct req *q, unsigned least)
{
	struct handle *h = NULL;

	if (!q->fs->shared)
		return;
	{
		WITH_LOCK(&q->fs->away_lock);
		struct sent_away *s = slot_in_use(q);
		if (s)
			s->looked = true;
		if (s && q->kind == MOP_LOOKUP) {
			s->missed_name = name_looked_up(q);
			follow(q, s);
		}
		if (s && s->missed++ >= least)
			h = clear(s);
	}
	promise_drop(q->fs, h);
}

/* Some of them may have been whether names that the kernel has are right: then it looks
 * the name up again. */
void away_missed(struct req *q)
{
	forget(q, MISSES);
}

/* It was whether a name that the kernel had is right: the walk goes on. */
void away_found(struct req *q)
{
	if (!q->fs->shared)
		return;
	WITH_LOCK(&q->fs->away_lock);
	struct sent_away *s = slot_in_use(q);
	if (s && s->missed && s->missed_name == name_looked_up(q))
		s->missed--;
}

void away_end(struct req *q)
{
	forget(q, 0);
}

void away_over(struct req *q)
{
	if (has_walk(q->kind))
		forget(q, 0);
}

uint64_t away_expire(struct fs *fs, uint64_t now_ns)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < SENT_AWAY_SLOTS; i++) {
		struct sent_away *s = &fs->away[i];
		struct handle *h = NULL;
		{
			WITH_LOCK(&fs->away_lock);
			if (s->promise && s->until_ns <= now_ns)
				h = clear(s);
			else if (s->promise && (!next || s->until_ns < next))
				next = s->until_ns;
		}
		promise_drop(fs, h);
	}
	return next;
}
