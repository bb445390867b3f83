/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what the kernel knows.
 *
 * The hard idea is who decides between page cache and direct I/O. Pages of a
 * published version never change, so the kernel may keep them for ever; but each
 * 4 KiB that goes through them costs a copy and a page allocation, and what is
 * in them is in memory twice. So who only writes should not, nor who reads a large
 * file in large pieces. The two ways must not meet unawares, hence one state for
 * each inode:
 *
 *	cached > 0    some handle may fill pages
 *	pages         there may be some
 *	readers > 0   direct handles that read: by sendfile(2) or a mapping they
 *	              see pages that others filled, and may fill some
 *	tainted       something was written directly while there were pages and
 *	              nobody to see them: they may be old
 *	pieces        it was read in small pieces or mapped: pages are worth it
 *
 *	open O_DIRECT              direct, always
 *	open O_WRONLY, cached == 0 direct (it cannot be mapped)
 *	open O_RDONLY, cached == 0 direct, if the file is large (how->stream) and
 *	                           there were no pieces
 *	other opens                cached
 *	any open that reads        pages are dropped by the kernel if tainted (which
 *	                           ends the taint), before it is answered, or any
 *	                           that comes beside it
 *	page read through a        it has been mapped: counts as cached
 *	 direct handle
 *	direct write, no pages     nothing
 *	direct write, cached > 0   the range is dropped before the write is
 *	 or readers > 0            answered (notify.c)
 *	direct write, else         tainted
 *
 * A read that began before a direct write and fills its page after it holds the
 * page's lock all the while, so dropping the range waits for it.
 *
 * Places: name operations and publishes of this mount are all that moves a
 * record, and each says so here before it is answered. A lookup's word counts
 * only for what was not known: it may be older than the last move. In a shared
 * table it counts if it began after the last one; a place is that of the name that
 * the kernel was last shown, and what has been moved elsewhere is not found there.
 *
 * An object may have several nodeids there: lines.c.
 *
 * One lock for all: each call holds it for some ten instructions. The open
 * file's own lock ranks above it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "fs/access.h"
#include "fs/inode_priv.h"

#define NODEID_LINES (1ULL << 62)

struct inodes *inodes_new(void)
{
	struct inodes *t = calloc(1, sizeof(*t));

	if (t)
		lock_init(&t->lock, LOCK_FS_INODES);
	return t;
}

void inodes_share(struct inodes *t, uint64_t window_ns)
{
	t->shared = true;
	t->window_ns = window_ns;
}

void inodes_set_drop(struct inodes *t, void (*drop)(void *arg, const struct gone *g),
		     void *arg)
{
	t->drop = drop;
	t->drop_arg = arg;
}

void inodes_set_accesses(struct inodes *t, struct accesses *a)
{
	t->accesses = a;
}

/* Under the lock: nobody opens it any more. */
static struct kept *kept_take(struct inodes *t, struct kept *k)
{
	if (!k)
		return NULL;
	assert(k->relic->kept == k);
	DL_DELETE(t->kept, k);
	metric_add(M_KEPT, -1);
	k->relic->kept = NULL;
	return k;
}

static bool is_hidden(const struct kept *k)
{
	return k->gone && k->gone->hidden;
}

static void file_closed(struct file_op *op, int64_t r)
{
	(void)r; /* without a name there is nothing to publish */
	free(op->arg);
}

/* Without the lock, unless it is hidden. NULL is fine. */
static void kept_drop(struct inodes *t, struct kept *k)
{
	if (!k)
		return;
	if (k->file) {
		k->op = (struct file_op){ .file = k->file, .done = file_closed, .arg = k };
		file_close(&k->op, 0);
		return;
	}
	if (!is_hidden(k))
		t->drop(t->drop_arg, k->gone);
	free(k->gone);
	free(k);
}

/* The table -------------------------------------------------------------------------- */

struct inode *inode_find(struct inodes *t, uint64_t nodeid)
{
	struct inode *i;

	HASH_FIND(hh, t->table, &nodeid, sizeof(nodeid), i);
	return i;
}

/* Under the lock; then kept_drop() what it returns, without. */
static struct kept *drop(struct inodes *t, struct inode *i)
{
	struct kept *k = i->relic ? kept_take(t, i->relic->kept) : NULL;

	assert(!i->opens && !i->refs);
	HASH_DEL(t->table, i);
	if (t->shared)
		line_del(t, i->shown);
	free(i->relic);
	free(i);
	metric_add(M_INODES, -1);
	return k;
}

struct inodes *inodes_free(struct inodes *t)
{
	struct inode *i, *next;

	if (!t)
		return NULL;
	HASH_ITER(hh, t->table, i, next)
		kept_drop(t, drop(t, i));
	lock_fini(&t->lock);
	free(t);
	return NULL;
}

void inodes_check(struct inodes *t)
{
	WITH_LOCK(&t->lock);

	for (struct inode *i = t->table; i; i = i->hh.next) {
		const struct opens *o = i->opens;

		assert(i->nlookup || i->refs);
		assert(i->refs || !i->publishing);
		assert(!o || (o->file && o->handles && o->cached <= o->handles));
		assert(!o || (o->writers <= o->handles && o->promises <= o->handles));
		assert(!o || o->cached + o->readers <= o->handles);
		assert(!o || (o->dropping ? o->dropping <= o->handles : !o->waiting));
		assert(!o || !o->cached || i->pages);
		assert(!i->tainted || (i->pages && (!o || !(o->cached + o->readers))));
		assert(!i->relic || i->place.kind == PLACE_NONE);
		assert(!t->shared || line_object(t, i->fileid));
	}
}

struct inode *inode_get(struct inodes *t, uint64_t nodeid)
{
	WITH_LOCK(&t->lock);
	struct inode *i = inode_find(t, nodeid);

	if (i)
		i->refs++;
	return i;
}

struct inode *inode_ref(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	i->refs++;
	return i;
}

struct inode *inode_put(struct inodes *t, struct inode *i)
{
	if (!i)
		return NULL;
	struct kept *k = NULL;
	{
		WITH_LOCK(&t->lock);
		assert(i->refs);
		if (!--i->refs && !i->nlookup)
			k = drop(t, i);
	}
	kept_drop(t, k);
	return NULL;
}

static struct inode *enter(struct inodes *t, const struct attr *a, struct place p)
{
	struct inode *i = calloc(1, sizeof(*i) + (t->shared ? sizeof(i->shown[0]) : 0));

	if (!i)
		return NULL;
	i->nodeid = i->fileid = a->fileid;
	if (t->shared && inode_find(t, i->nodeid))
		i->nodeid = NODEID_LINES + ++t->last_line;
	i->place = p;
	HASH_ADD(hh, t->table, nodeid, sizeof(i->nodeid), i);
	if (t->shared)
		line_add(t, i);
	metric_add(M_INODES, 1);
	return i;
}

/* Extended attributes that are rows, or in the record. */
static void may_have(struct inode *i, const struct attr *a)
{
	i->maybe_xattrs |= a->has_xattrs;
	i->maybe_keep |= keep_said(&a->keep) != 0;
}

/* Under the lock: one lookup more. */
static void know(struct inodes *t, struct inode *i, const struct attr *a, struct place p)
{
	struct kept *k = i->relic ? i->relic->kept : NULL;

	if (i->place.kind == PLACE_NONE && !i->gone && p.kind != PLACE_NONE && a->nlink &&
	    (!k || is_hidden(k))) {
		/* A draft that hid it was given up. */
		kept_drop(t, kept_take(t, k));
		i->place = p;
		if (i->opens)
			file_shown_again(i->opens->file, a->nlink);
		i->lost = false;
		free(i->relic);
		i->relic = NULL;
	}
	i->mode = a->mode;
	may_have(i, a);
	i->nlookup++;
	i->refs++;
}

struct inode *inode_know(struct inodes *t, const struct attr *a, struct place p)
{
	WITH_LOCK(&t->lock);
	struct inode *i = inode_find(t, a->fileid);

	if (!i)
		i = enter(t, a, p);
	if (i)
		know(t, i, a, p);
	return i;
}

static void overlay(struct inodes *t, struct inode *i, struct attr *a);

/* It was a draft when it was found, and is none any more: drafts are open here. */
static bool is_overtaken(const struct inode *i, struct place p)
{
	return p.kind == PLACE_DRAFT && (!i || i->place.kind == PLACE_NONE);
}

static int show_line(struct inodes *t, struct attr *a, struct place p, uint64_t begun_ns,
		     struct inode **ret)
{
	struct inode *i;
	int r = line_pick(t, a, &i);

	if (r)
		return r;
	if (is_overtaken(i, p))
		return INODE_BUSY;
	if (!i)
		i = enter(t, a, p);
	if (!i)
		return -ENOMEM;
	struct shown *s = i->shown;
	if (i->opens && s->seen_ns < begun_ns)
		s->seen_ns = begun_ns;
	s->heard_ns = begun_ns;
	line_found(t, i, p, begun_ns);
	know(t, i, a, p);
	overlay(t, i, a);
	line_told(i, a);
	*ret = i;
	return 0;
}

int inode_show(struct inodes *t, struct attr *a, struct place p, uint64_t begun_ns,
	       struct inode **ret)
{
	WITH_LOCK(&t->lock);

	if (t->shared)
		return show_line(t, a, p, begun_ns, ret);
	struct inode *i = inode_find(t, a->fileid);
	if (is_overtaken(i, p))
		return INODE_BUSY;
	if (i)
		overlay(t, i, a);
	else
		i = enter(t, a, p);
	if (!i)
		return -ENOMEM;
	know(t, i, a, p);
	*ret = i;
	return 0;
}

void inode_forget(struct inodes *t, uint64_t nodeid, uint64_t n)
{
	struct kept *k = NULL;
	{
		WITH_LOCK(&t->lock);
		struct inode *i = inode_find(t, nodeid);
		if (!i)
			return;
		i->nlookup -= n < i->nlookup ? n : i->nlookup;
		if (!i->nlookup && !i->refs)
			k = drop(t, i);
	}
	kept_drop(t, k);
}

struct place inode_place(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return i->place;
}

static void moved(struct inodes *t, struct inode *i, const struct entry *e, bool linked)
{
	if (e->draft || e->place.kind == PLACE_DRAFT) {
		/* If it was published since, that counted all names. */
		if (i->opens && file_is_draft(i->opens->file))
			file_add_links(i->opens->file, linked);
		return;
	}
	if (t->shared) {
		i->shown->place_ns = clock_ns();
		/* Names of an object with several are not told apart by it. */
		if (e->place.kind == PLACE_FILEID && i->place.kind == PLACE_NAME)
			line_doubt(t, i);
	}
	/* That it was evicted came after this, and may have been heard of before. */
	if (!i->gone)
		i->place = e->place;
	if (i->opens)
		file_set_attr(i->opens->file, INDEX_SET_CTIME, &e->attr);
}

void inode_moved(struct inodes *t, const struct entry *e, bool linked)
{
	WITH_LOCK(&t->lock);

	FOR_LINES(t, i, e->attr.fileid)
		moved(t, i, e, linked);
}

/* Out of memory costs no more than a wrong fstat() of an unlinked file. */
static void keep_relic(struct inode *i, const struct attr *a, struct bytes target)
{
	struct relic *r = calloc(1, sizeof(*r) + target.len + 1);

	if (!r)
		return;
	r->attr = *a;
	r->attr.nlink = 0;
	if (target.len)
		memcpy(r->target, target.p, target.len);
	r->kept = i->relic ? i->relic->kept : NULL;
	if (r->kept)
		r->kept->relic = r;
	free(i->relic);
	i->relic = r;
}

static void gone(struct inodes *t, struct inode *i, const struct gone *g)
{
	if (g->draft) {
		if (i->opens)
			file_add_links(i->opens->file, -1);
		return;
	}
	if (i->opens)
		file_set_attr(i->opens->file, INDEX_SET_CTIME, &g->attr);
	if (g->attr.nlink)
		return;
	bool link = S_ISLNK(g->attr.mode) && g->body.kind == BODY_INLINE;
	keep_relic(i, &g->attr, link ? g->body.bytes : BYTES_NONE);
	i->place = (struct place){ .kind = PLACE_NONE };
	i->gone = !g->hidden;
	if (t->shared)
		i->shown->place_ns = clock_ns();
}

void inode_gone(struct inodes *t, const struct gone *g)
{
	WITH_LOCK(&t->lock);

	if (!g->fileid)
		return;
	FOR_LINES(t, i, g->fileid)
		gone(t, i, g);
}

/* In one piece: the body's bytes behind it. */
static struct gone *gone_copy(const struct gone *g)
{
	size_t len = g->body.bytes.len;
	struct gone *copy = malloc(sizeof(*copy) + len);

	if (!copy)
		return NULL;
	*copy = *g;
	copy->body.bytes = BYTES_OF(copy + 1, len);
	if (len)
		memcpy(copy + 1, g->body.bytes.p, len);
	return copy;
}

/* What was hidden until now is ours to drop. */
static bool kept_lost(struct kept *k)
{
	if (!is_hidden(k))
		return false;
	k->gone->hidden = false;
	return true;
}

static void kept_add(struct inodes *t, struct inode *i, struct kept *k)
{
	k->relic = i->relic;
	k->since_ns = clock_ns();
	i->relic->kept = k;
	DL_APPEND(t->kept, k);
	metric_add(M_KEPT, 1);
}

/* What is open as another line is that one's. */
static bool may_keep(struct inodes *t, struct inode *i)
{
	FOR_LINES(t, other, i->fileid)
		if (other != i && other->opens)
			return false;
	return true;
}

/* Under the lock: what is kept longest, of what may be dropped. */
static struct kept *kept_first(struct inodes *t)
{
	struct kept *k = t->kept;

	while (k && is_hidden(k))
		k = k->next;
	return k;
}

uint64_t inodes_expire_kept(struct inodes *t, uint64_t before_ns)
{
	for (;;) {
		struct kept *k;
		{
			WITH_LOCK(&t->lock);
			k = kept_first(t);
			if (!k || k->since_ns > before_ns)
				return k ? k->since_ns : 0;
			kept_take(t, k);
		}
		kept_drop(t, k);
	}
}

bool inode_keep(struct inodes *t, const struct gone *g)
{
	WITH_LOCK(&t->lock);
	struct inode *i = inode_find(t, g->fileid);

	if (i && !may_keep(t, i))
		return false;
	if (i && i->relic && i->relic->kept)
		return kept_lost(i->relic->kept);
	/* An open file holds its bytes itself. */
	if (!i || !i->nlookup || !i->relic || i->opens || !S_ISREG(g->attr.mode) ||
	    !t->drop)
		return false;
	struct kept *k = calloc(1, sizeof(*k));
	if (k)
		k->gone = gone_copy(g);
	if (!k || !k->gone) {
		free(k);
		return false;
	}
	kept_add(t, i, k);
	return true;
}

/* Out of memory: the next open is ESTALE. */
static void keep_file(struct inodes *t, struct inode *i, struct file *f)
{
	struct kept *k;

	if (!may_keep(t, i) || !i->nlookup || !i->relic || i->relic->kept || i->lost ||
	    !S_ISREG(i->relic->attr.mode))
		return;
	k = calloc(1, sizeof(*k));
	if (!k)
		return;
	k->file = file_ref(f);
	kept_add(t, i, k);
}

void inode_keep_file(struct inodes *t, struct inode *i, struct file *f)
{
	struct kept *old;
	struct attr a;
	{
		WITH_LOCK(&t->lock);
		if (i->place.kind != PLACE_NONE || !i->relic)
			return;
		/* It may have been opened before the name went; and it may
		 * have changed since. */
		struct attr *is = &i->relic->attr;
		file_attr(f, &a);
		is->size = a.size;
		is->pages = a.pages;
		is->mtime = a.mtime;
		is->ctime = a.ctime;
		file_set_attr(f, INDEX_SET_MODE | INDEX_SET_UID | INDEX_SET_GID |
			      INDEX_SET_CTIME, is);
		old = kept_take(t, i->relic->kept);
		keep_file(t, i, f);
	}
	kept_drop(t, old);
}

struct gone *inode_kept(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	if (i->place.kind != PLACE_NONE || !i->relic || !i->relic->kept ||
	    !i->relic->kept->gone)
		return NULL;
	return gone_copy(i->relic->kept->gone);
}

void inode_drop_kept(struct inodes *t, struct inode *i)
{
	struct kept *k;
	{
		WITH_LOCK(&t->lock);
		k = i->relic ? i->relic->kept : NULL;
		if (!k || k->file)
			return;
		kept_take(t, k);
	}
	kept_drop(t, k);
}

bool inodes_drop_kept(struct inodes *t)
{
	bool any = false;

	for (;;) {
		struct kept *k;
		{
			WITH_LOCK(&t->lock);
			k = kept_first(t);
			kept_take(t, k);
		}
		if (!k)
			return any;
		kept_drop(t, k);
		any = true;
	}
}

uint64_t inodes_kept_bytes(struct inodes *t)
{
	uint64_t pages = 0;
	WITH_LOCK(&t->lock);

	for (struct kept *k = t->kept; k; k = k->next)
		pages += is_hidden(k) ? 0 : k->relic->attr.pages;
	return pages * PAGE_BYTES;
}

void inode_published(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);
	/* Anything but a draft has moved by a rename or an unlink after it. */
	if (i->place.kind != PLACE_DRAFT || !i->opens)
		return;
	if (file_is_draft(i->opens->file))
		return;
	file_place(i->opens->file, &i->place);
	if (t->shared)
		i->shown->place_ns = clock_ns();
}

/* Attributes ------------------------------------------------------------------ */

static bool is_draft(const struct inode *i)
{
	return i->place.kind == PLACE_DRAFT && i->opens &&
	       file_is_draft(i->opens->file);
}

/* Of what has no name: as it is open, or as it was. */
static bool attr_left(const struct inode *i, struct attr *ret)
{
	if (i->opens)
		file_attr(i->opens->file, ret);
	else if (i->relic)
		*ret = i->relic->attr;
	else
		return false;
	ret->nlink = 0;
	return true;
}

bool inode_attr_here(struct inodes *t, struct inode *i, struct attr *ret)
{
	WITH_LOCK(&t->lock);

	if (is_draft(i)) {
		file_attr(i->opens->file, ret);
		return true;
	}
	return i->place.kind == PLACE_NONE && attr_left(i, ret);
}

bool inode_attr_missed(struct inodes *t, struct inode *i, struct attr *ret)
{
	WITH_LOCK(&t->lock);

	if (i->opens || !t->shared || !i->shown->told_ns)
		return attr_left(i, ret);
	*ret = i->shown->told;
	ret->nlink = 0;
	return true;
}

static void overlay_open(struct inodes *t, struct inode *i, struct attr *a)
{
	struct attr f;

	if (!i->opens)
		return;
	file_attr(i->opens->file, &f);
	if (is_draft(i)) {
		*a = f;
		return;
	}
	/* Somebody else may have set the times of what is published. */
	if (t->shared && f.version == a->version && !file_is_dirty(i->opens->file))
		return;
	a->size = f.size;
	a->pages = f.pages;
	a->version = f.version;
	a->atime = f.atime;
	a->mtime = f.mtime;
	a->ctime = time_later(a->ctime, f.ctime);
}

/* Under the lock. */
static void overlay(struct inodes *t, struct inode *i, struct attr *a)
{
	overlay_open(t, i, a);
	if (t->accesses)
		access_overlay(t->accesses, i->fileid, a);
}

void inode_attr_overlay(struct inodes *t, struct inode *i, struct attr *a)
{
	WITH_LOCK(&t->lock);

	overlay(t, i, a);
}

/* Of what is open, and only there. */
static void set_open(struct inode *i, unsigned mask, const struct attr *a)
{
	struct attr now;

	file_attr(i->opens->file, &now);
	attr_apply(&now, mask, a);
	file_set_attr(i->opens->file, mask, &now);
}

bool inode_set_missed(struct inodes *t, struct inode *i, unsigned mask, const struct attr *a)
{
	WITH_LOCK(&t->lock);

	if (!i->opens || mask & INDEX_SET_KEEP)
		return false;
	set_open(i, mask, a);
	if (mask & INDEX_SET_MODE)
		i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
	return true;
}

int inode_check_lost(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return i->lost && !i->opens ? -ESTALE : 0;
}

int inode_set_here(struct inodes *t, struct inode *i, unsigned mask,
		   const struct attr *a)
{
	WITH_LOCK(&t->lock);

	/* What is being published has the attributes that it began with. */
	if (i->opens && i->publishing &&
	    (i->place.kind == PLACE_DRAFT || mask & INDEX_SET_CTIME))
		return INODE_BUSY;
	if (i->place.kind == PLACE_NONE && mask & INDEX_SET_KEEP)
		return -ESTALE;
	if (is_draft(i) || (i->place.kind == PLACE_NONE && i->opens)) {
		set_open(i, mask, a);
	} else if (i->place.kind == PLACE_NONE && i->relic) {
		attr_apply(&i->relic->attr, mask, a);
	} else {
		return INODE_INDEX;
	}
	if (mask & INDEX_SET_MODE)
		i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
	i->maybe_keep |= (mask & INDEX_SET_KEEP) != 0;
	return 0;
}

void inode_set_done(struct inodes *t, struct inode *i, unsigned mask,
		    const struct attr *a)
{
	WITH_LOCK(&t->lock);

	i->mode = (i->mode & S_IFMT) | (a->mode & 07777);
	may_have(i, a);
	if (t->shared)
		i->shown->heard_ns = clock_ns();
	if (i->opens)
		file_set_attr(i->opens->file, mask, a);
}

bool inode_is_gone(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return i->gone;
}

uint32_t inode_mode(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return i->mode;
}

bool inode_maybe_xattrs(struct inodes *t, struct inode *i, bool holds)
{
	WITH_LOCK(&t->lock);

	return i->maybe_xattrs ||
	       (t->shared && !holds && clock_ns() - i->shown->heard_ns > t->window_ns);
}

bool inode_maybe_keep(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	return i->maybe_keep;
}

void inode_has_xattrs(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	i->maybe_xattrs = true;
}

bool inode_maybe_capability(struct inodes *t, struct inode *i, unsigned *ret)
{
	WITH_LOCK(&t->lock);

	*ret = i->opens->capability;
	return i->opens->no_capability != i->opens->capability;
}

void inode_no_capability(struct inodes *t, struct inode *i, unsigned seen)
{
	WITH_LOCK(&t->lock);

	i->opens->no_capability = seen;
}

void inode_has_capability(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	FOR_LINES(t, line, i->fileid)
		if (line->opens)
			line->opens->capability++;
}

char *inode_relic_target(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	if (!i->relic || !S_ISLNK(i->relic->attr.mode))
		return NULL;
	return strdup(i->relic->target);
}

/* Open handles and the page cache --------------------------------------------- */

static bool is_direct(const struct inode *i, const struct open_how *how)
{
	if (how->flags & O_DIRECT)
		return true;
	if (i->opens->cached)
		return false;
	return (how->flags & O_ACCMODE) == O_WRONLY || (how->stream && !i->pieces);
}

struct opens *opens_new(void)
{
	return calloc(1, sizeof(struct opens));
}

/* Under the lock: a handle of this kind comes (1) or goes (-1). */
static void count(struct inode *i, const struct caching *c, int n)
{
	if (!c->direct || c->mapped)
		i->opens->cached += (unsigned)n;
	else if (c->reads)
		i->opens->readers += (unsigned)n;
	i->pages |= i->opens->cached > 0;
}

/* Under the lock: pages that may be old do not outlive this open. */
static void refresh(struct inode *i, struct caching *c)
{
	c->fresh = i->tainted;
	c->told |= i->tainted;
	if (i->tainted)
		i->pages = i->tainted = false;
}

struct file *inode_file(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	if (i->opens)
		return file_ref(i->opens->file);
	return i->relic && i->relic->kept && i->relic->kept->file ?
		       file_ref(i->relic->kept->file) : NULL;
}

int inode_open(struct inodes *t, struct inode *i, struct file *f,
	       const struct open_how *how, struct opens **spare,
	       struct caching *ret)
{
	WITH_LOCK(&t->lock);
	bool first = !i->opens;
	int r = line_may_open(t, i, f, how->last);

	if (r < 0)
		return r;
	if (first)
		i->opens = steal(spare);
	*ret = (struct caching){
		/* Two nodeids have one file for once (inode_may_open(), last): so
		 * this one has no pages. */
		.direct = is_direct(i, how) || (t->shared && line_is_open_as(t, i, f)),
		.reads = (how->flags & O_ACCMODE) != O_WRONLY,
		.promise = how->promise,
	};
	if (t->shared)
		line_take(i, f, how, first, ret);
	if (ret->reads || !ret->direct)
		refresh(i, ret);
	i->opens->file = f;
	i->opens->handles++;
	i->opens->promises += how->promise;
	i->opens->writers += how->writer;
	i->opens->dropping += ret->told;
	/* Before it was open, or by another mount since the last open. */
	i->opens->capability += first || t->shared;
	count(i, ret, 1);
	return 0;
}

bool inode_wait_dropped(struct inodes *t, struct inode *i, struct req *q, struct req **next)
{
	WITH_LOCK(&t->lock);
	struct opens *o = i->opens;

	if (!o->dropping)
		return false;
	*next = o->waiting;
	o->waiting = q;
	return true;
}

struct req *inode_dropped(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);
	struct opens *o = i->opens;

	assert(o->dropping);
	return --o->dropping ? NULL : steal(&o->waiting);
}

void inode_mapped(struct inodes *t, struct inode *i, struct caching *c)
{
	WITH_LOCK(&t->lock);

	if (c->mapped)
		return;
	count(i, c, -1);
	c->mapped = true;
	count(i, c, 1);
	i->pieces = true;
}

void inode_read_in_pieces(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	i->pieces = true;
}

bool inode_stop_writing(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	assert(i->opens && i->opens->writers);
	return !--i->opens->writers;
}

/* The last handle goes: what only the file knew is kept, or known to be lost. */
static void last_close(struct inodes *t, struct inode *i)
{
	struct attr a;

	assert(!i->opens->dropping);
	if (i->place.kind == PLACE_DRAFT) {
		file_attr(i->opens->file, &a);
		/* Published to no name: an unlink is about to say so. */
		i->lost = i->opens->failed && a.nlink;
		keep_relic(i, &a, BYTES_NONE);
		i->place = (struct place){ .kind = PLACE_NONE };
	} else if (i->place.kind == PLACE_NONE) {
		file_attr(i->opens->file, &a);
		keep_relic(i, &a, BYTES_NONE);
	}
	if (i->place.kind == PLACE_NONE)
		keep_file(t, i, i->opens->file);
	/* What was written last is none of it: its pages go before anybody reads them. */
	i->tainted |= i->opens->failed && i->pages;
	if (t->shared) {
		file_attr(i->opens->file, &a);
		i->shown->version = a.version;
		line_told(i, &a);
		i->shown->mixed = false;
	}
	free(i->opens);
	i->opens = NULL;
}

void inode_close(struct inodes *t, struct inode *i, const struct caching *c)
{
	WITH_LOCK(&t->lock);
	struct opens *o = i->opens;

	assert(o && o->handles);
	o->promises -= c->promise;
	count(i, c, -1);
	if (!--o->handles)
		last_close(t, i);
}

bool inode_may_drop_attr(struct inodes *t, uint64_t nodeid)
{
	WITH_LOCK(&t->lock);
	struct inode *i = inode_find(t, nodeid);

	if (!i || (S_ISREG(i->mode) && !(i->opens && i->opens->handles > i->opens->promises)))
		return false;
	if (t->shared)
		i->shown->dropped_ns = clock_ns();
	return true;
}

bool inode_wrote(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	if (!i->pages)
		return false;
	if (i->opens && i->opens->cached + i->opens->readers)
		return true;
	i->tainted = true;
	return false;
}

void inode_publish_begin(struct inodes *t, struct inode *i)
{
	WITH_LOCK(&t->lock);

	i->publishing++;
}

void inode_publish_end(struct inodes *t, struct inode *i, int64_t r)
{
	WITH_LOCK(&t->lock);

	assert(i->publishing);
	i->publishing--;
	if (i->opens)
		i->opens->failed = r < 0;
}
