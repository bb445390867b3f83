/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines. In a shared table a nodeid is one line of versions: what is published, and
 * what this mount has made of it since. What is open keeps its line (P4, P3), so an
 * object may have several nodeids, of which all but one are open:
 *
 *	a lookup that found version v gets
 *	  the open nodeid of v, or of a higher one (published here since)
 *	  else the one that is not open; its pages are dropped when it is opened (but
 *	  for one that the kernel may not take another size of)
 *	  else a new one
 *
 * The first has the fileid as its nodeid, further ones are numbered from NODEID_LINES
 * on; whoever looks at st_ino sees the fileid. Two nodeids never have one file.
 */
#include <errno.h>

#include "common/clock.h"
#include "fs/inode_priv.h"

struct shown *line_object(struct inodes *t, uint64_t fileid)
{
	struct shown *s;

	HASH_FIND(hh, t->objects, &fileid, sizeof(fileid), s);
	return s;
}

void line_add(struct inodes *t, struct inode *i)
{
	struct shown *s = i->shown, *first = line_object(t, i->fileid);

	s->fileid = i->fileid;
	s->inode = i;
	if (first) {
		s->next = first->next;
		first->next = s;
	} else {
		HASH_ADD(hh, t->objects, fileid, sizeof(s->fileid), s);
	}
}

void line_del(struct inodes *t, struct shown *s)
{
	struct shown *first = line_object(t, s->fileid);

	if (first != s) {
		while (first->next != s)
			first = first->next;
		first->next = s->next;
		return;
	}
	HASH_DEL(t->objects, s);
	if (s->next)
		HASH_ADD(hh, t->objects, fileid, sizeof(s->fileid), s->next);
}

struct inode *line_first(struct inodes *t, uint64_t fileid)
{
	if (!t->shared)
		return inode_find(t, fileid);
	struct shown *s = line_object(t, fileid);
	return s ? s->inode : NULL;
}

struct inode *line_next(struct inodes *t, struct inode *i)
{
	if (!t->shared || !i->shown->next)
		return NULL;
	return i->shown->next->inode;
}

/* Of an open nodeid: does it show version v? *busy: it may, when what it publishes now
 * has been published. */
static bool shows(struct inode *i, uint64_t v, bool *busy)
{
	struct file *f = i->opens->file;
	struct attr a;

	if (file_is_lost(f))
		return false;
	file_attr(f, &a);
	if (a.version >= v || file_is_draft(f))
		return true;
	*busy |= i->publishing;
	return false;
}

/* Answers that are under way together may reach the kernel in any order, and it drops
 * those that it takes for old. */
enum { TOLD_TOGETHER_NS = 1000000000 };

/* Nobody has it open any more, but the kernel has just been told to ask for its
 * attributes: it may take no notice of another size. */
static bool may_miss(const struct inode *i, const struct attr *a)
{
	const struct shown *s = i->shown;

	return (s->unsized || s->told.size != a->size) && s->dropped_ns &&
	       clock_ns() - s->dropped_ns < TOLD_TOGETHER_NS;
}

int line_pick(struct inodes *t, const struct attr *a, struct inode **ret)
{
	struct inode *idle = NULL;
	bool busy = false;

	FOR_LINES(t, i, a->fileid) {
		if (i->opens && shows(i, a->version, &busy)) {
			*ret = i;
			return 0;
		}
		if (!i->opens && !may_miss(i, a) && (!idle || i->nodeid == i->fileid))
			idle = i;
	}
	*ret = idle;
	return busy ? INODE_BUSY : 0;
}

/* An answer that is on its way may be dropped once more: watched.c. */
enum { DROPPED_TWICE_NS = 200000000 };

static uint64_t window_ends(const struct inodes *t)
{
	return clock_ns() + (t->window_ns > DROPPED_TWICE_NS ? t->window_ns : DROPPED_TWICE_NS);
}

void line_doubt(struct inodes *t, struct inode *i)
{
	struct shown *s = i->shown;

	s->doubt_ns = clock_ns() + t->window_ns;
	if (s->doubt_ns < s->kept_until_ns)
		s->doubt_ns = s->kept_until_ns;
}

void inode_name_kept(struct inodes *t, struct inode *i, uint64_t until_ns)
{
	WITH_LOCK(&t->lock);

	i->shown->kept_ns = clock_ns();
	i->shown->kept_until_ns = until_ns;
}

void inode_name_dropped(struct inodes *t, uint64_t nodeid, uint64_t before_ns)
{
	WITH_LOCK(&t->lock);
	struct inode *i = inode_find(t, nodeid);
	uint64_t end = window_ends(t);

	if (!i || i->shown->kept_ns >= before_ns)
		return;
	if (i->shown->kept_until_ns > end)
		i->shown->kept_until_ns = end;
	if (i->shown->doubt_ns > end)
		i->shown->doubt_ns = end;
}

void line_found(struct inodes *t, struct inode *i, struct place p, uint64_t begun_ns)
{
	struct shown *s = i->shown;

	if (begun_ns < s->place_ns)
		return;
	s->place_ns = begun_ns;
	/* A draft's is inode_published()'s, a lost one's know()'s to change. */
	if (i->place.kind == PLACE_DRAFT || i->place.kind == PLACE_NONE ||
	    p.kind == PLACE_DRAFT || place_is_same(i->place, p))
		return;
	i->place = p;
	line_doubt(t, i);
}

void line_told(struct inode *i, const struct attr *a)
{
	struct shown *s = i->shown;
	uint64_t now = clock_ns();

	if (!i->opens && (s->told.version != a->version || s->told.size != a->size) && s->told_ns &&
	    now - s->told_ns < TOLD_TOGETHER_NS)
		s->mixed = true;
	s->unsized = !i->opens && may_miss(i, a);
	s->told = *a;
	s->told_ns = now;
}

void inode_told(struct inodes *t, struct inode *i, const struct attr *a)
{
	if (!t->shared)
		return;
	WITH_LOCK(&t->lock);
	line_told(i, a);
}

bool line_is_open_as(struct inodes *t, struct inode *i, const struct file *f)
{
	FOR_LINES(t, other, i->fileid)
		if (other != i && other->opens && other->opens->file == f)
			return true;
	return false;
}

int line_may_open(struct inodes *t, struct inode *i, struct file *f, bool last)
{
	struct attr a;

	if (!t->shared)
		return 0;
	if (i->opens)
		return i->opens->file == f ? 0 : -ESTALE;
	if (last || i->place.kind == PLACE_NONE)
		return 0;
	file_attr(f, &a);
	return line_is_open_as(t, i, f) || i->shown->told.size != a.size || i->shown->unsized ?
		       -ESTALE : 0;
}

int inode_may_open(struct inodes *t, struct inode *i, struct file *f, bool last)
{
	WITH_LOCK(&t->lock);

	return line_may_open(t, i, f, last);
}

bool inode_in_doubt(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return t->shared && clock_ns() < i->shown->doubt_ns;
}

bool inode_place_of(struct inodes *t, uint64_t fileid, struct place *ret)
{
	WITH_LOCK(&t->lock);
	struct inode *i = line_first(t, fileid);

	if (i)
		*ret = i->place;
	return i;
}

void inode_doubt(struct inodes *t, uint64_t fileid)
{
	WITH_LOCK(&t->lock);

	FOR_LINES(t, i, fileid)
		line_doubt(t, i);
}

bool inode_is_at(struct inodes *t, struct inode *i, const struct place *p)
{
	WITH_LOCK(&t->lock);

	return place_is_same(i->place, *p) && clock_ns() >= i->shown->doubt_ns;
}

bool inode_seen(struct inodes *t, struct inode *i, uint64_t since_ns)
{
	WITH_LOCK(&t->lock);

	return i->shown->seen_ns >= since_ns;
}

void line_take(struct inode *i, struct file *f, const struct open_how *how, bool first,
		      struct caching *c)
{
	struct shown *s = i->shown;
	struct attr a;

	file_attr(f, &a);
	if (first) {
		if (s->version != a.version && i->pages)
			i->tainted = true;
		s->mixed |= s->told.version != a.version || s->told.size != a.size;
		s->version = a.version;
	}
	if (s->seen_ns < how->begun_ns)
		s->seen_ns = how->begun_ns;
	if (how->promise)
		return;
	/* Who opens it beside must not find old pages either: he waits as well. */
	c->told = s->mixed || i->tainted;
	s->mixed = false;
}
