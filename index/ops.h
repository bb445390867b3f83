/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the plans of the operations share (dir.c, rename.c, object.c, publish.c,
 * xattr.c): names in a directory, finding an object's record, what an object
 * that loses names leaves behind, times of directories, who writes.
 *
 * All of it is called from within a plan function. Results are 0, INDEX_MISS
 * where said, PLAN_WAIT or negative; what has been guarded or written before a
 * PLAN_WAIT is forgotten by the runner, so that callers need no order.
 */
#include "index/plan.h"

enum {
	FILE_LINKS_MAX = 2000,     /* names of a published file: evicted in one transaction */
	DRAFT_NAMES_MAX = 32,      /* of a draft: published in one transaction */
};

/* Each name, the times of its directory, extended attributes; and what the object itself writes. */
_Static_assert(2 * FILE_LINKS_MAX + INDEX_XATTRS_MAX + 32 <= KV_LOCAL_MAX,
	       "evicted in one transaction");

/* The worse of two results: negative, PLAN_WAIT, else 0 (a miss is no trouble;
 * its output was not written). */
static inline int plan_both(int a, int b)
{
	if (a < 0 || b < 0)
		return a < 0 ? a : b;
	return a == PLAN_WAIT || b == PLAN_WAIT ? PLAN_WAIT : 0;
}

/* Keys of the session whose plan this is. */
static inline struct key own_writer(struct plan *p, uint64_t fileid)
{
	return key_writer(fileid, plan_session(p));
}

static inline struct key own_times(struct plan *p, uint64_t dir)
{
	return key_draft_times(dir, plan_session(p));
}

static inline struct key own_xattr(struct plan *p, uint64_t fileid, struct bytes name)
{
	return key_draft_xattr(fileid, name, plan_session(p));
}

static inline struct key own_name(struct plan *p, uint64_t parent, uint64_t h, struct bytes name)
{
	return key_draft_name(parent, h, name, plan_session(p));
}

/* names.c: a name in its directory ------------------------------------------- */

struct name_view {
	uint64_t parent;
	struct bytes name;
	uint64_t h;        /* the name's; of one that is not there: a free one, or
			      0 if there is none left */
	bool draft;        /* this session has a draft of it; it hides a published one */
	uint64_t fileid;   /* the draft's; else of the published one, or 0 */
	bool published;    /* there is a published one, maybe hidden */
	bool foreign;      /* other sessions have drafts of this name */
	struct record rec; /* then its D value */
	const struct kv_rows *rows_d, *rows_n; /* all names of this hash */
};

/* 0 also if there is no such name. */
int name_find(struct plan *p, uint64_t parent, const char *name, struct name_view *ret);

static inline bool name_exists(const struct name_view *v)
{
	return v->draft || v->published;
}

/* INDEX_MISS if there is no such name. */
int name_find_shown(struct plan *p, uint64_t parent, const char *name, struct name_view *ret);

static inline bool name_is_dir(const struct name_view *v)
{
	return !v->draft && v->published && S_ISDIR(v->rec.attr.mode);
}

static inline struct key name_key_d(const struct name_view *v)
{
	return key_name(v->parent, v->h, v->name);
}

static inline struct key name_key_n(struct plan *p, const struct name_view *v)
{
	return own_name(p, v->parent, v->h, v->name);
}

/* Guards that the name is as it was seen: there, or not there at all. */
void name_expect(struct plan *p, const struct name_view *v);

/* Guards that no other session has a draft of this name, which this one sees. */
void name_expect_alone(struct plan *p, const struct name_view *v);

/* Guards that v's parent is there. -ENOENT, -ENOTDIR. `ret` may be NULL. */
int parent_find(struct plan *p, uint64_t parent, struct record *ret);

/* dir.c: the directory at v goes; -ENOTEMPTY. `touch`: what becomes of its parent's times. The
 * name is the caller's to guard. */
int dir_remove(struct plan *p, const struct name_view *v,
	       void (*touch)(struct plan *p, uint64_t dir), struct gone *ret);

/* place.c: objects and where they are ---------------------------------------- */

struct object {
	uint64_t fileid;
	bool draft;         /* then there is no record */
	struct place place;
	struct key key;     /* of the record */
	struct record rec;
	uint32_t nhidden;   /* of several names: those that drafts of this session hide */
};

/* The links that this session sees. */
static inline uint32_t object_links(const struct object *o)
{
	uint32_t nlink = o->rec.attr.nlink;

	return nlink > o->nhidden ? nlink - o->nhidden : 0;
}

/* Follows an object that is not where `place` says. INDEX_MISS. */
int object_find(struct plan *p, uint64_t fileid, struct place place, struct object *ret);

/* The object that a name's D value is or refers to, also if a draft hides it. */
int object_published(struct plan *p, const struct name_view *v, struct object *ret);

/* What the name shows: the draft, or the published object. */
int object_of_name(struct plan *p, const struct name_view *v, struct object *ret);

/* Replaces the record, guarded by its being as it was read. */
void object_put(struct plan *p, const struct object *o);

/* The time that it has to live begins now. */
void keep_begin(struct plan *p, struct keep *k);

/* Writes a reference to an object whose record is under its fileid. */
void ref_put(struct plan *p, struct key k, const struct attr *a);

/* Fills ret, for a directory also with its times and links. A file that is there has
 * one link at least, also if all its names are hidden. */
int object_entry(struct plan *p, const struct object *o, struct entry *ret);

/* Of a directory's record: times from T and t, links from L. */
int dir_attr(struct plan *p, struct attr *a);

/* The times of directory `dir` are now. _draft: for this session and as long as it
 * lasts, without a commit; it must have a draft name in dir for as long. _evicted: since a name
 * was evicted, which it remembers as long as nothing else happens to its names. */
void dir_touch(struct plan *p, uint64_t dir);
void dir_touch_evicted(struct plan *p, uint64_t dir);
void dir_touch_draft(struct plan *p, uint64_t dir);

/* Draft names leave `dir`, of which `gone` lists all (and names elsewhere): touches
 * it, and sees to it that no `t` is left where this session has no draft. */
int dir_touch_left(struct plan *p, uint64_t dir, const struct writer_name *gone,
		   uint32_t ngone);

/* The number of directories in `dir` changes by n, guarded. */
int dir_add_dirs(struct plan *p, uint64_t dir, int n);

/* writers.c: who writes an object -------------------------------------------- */

/* This session's. INDEX_MISS: it does not. The names live as long as the plan. */
int writer_get(struct plan *p, uint64_t fileid, struct writer_state *ret);
void writer_put(struct plan *p, uint64_t fileid, const struct writer_state *s);

/* Where the object is that this session, or else another one, writes: *ret_draft,
 * if it is this session's draft, or its record's place. INDEX_MISS. */
int writer_knows(struct plan *p, uint64_t fileid, bool *ret_draft, struct place *ret);

/* A published object has moved: tells all sessions that write it. Guarded. */
int writer_moved(struct plan *p, uint64_t fileid, struct place to);

/* That a draft's name hides one of n->hides, or does no more: for object_links(). Nothing
 * where that is 0. */
void hides_put(struct plan *p, const struct writer_name *n);
void hides_del(struct plan *p, const struct writer_name *n);

/* This name of a draft hides one of n->hides from now on; guarded. */
int draft_hides(struct plan *p, uint64_t fileid, const struct writer_name *n);

/* A draft has one name less, more, or another; guarded. What the first one hid it does
 * no more; that the new one hides something is the caller's to put. *ret_left (or NULL): how
 * many there are then. -EMLINK. */
int draft_rename(struct plan *p, uint64_t fileid, const struct writer_name *from,
		 const struct writer_name *to, uint32_t *ret_left);

static inline struct writer_name writer_name_of(const struct name_view *v)
{
	return (struct writer_name){ v->parent, v->h, v->name, 0 };
}

/* The notes of what blocks this session has put for the object go: they are settled,
 * now that it stops to write. */
int notes_drop(struct plan *p, uint64_t fileid);

/* lose.c: objects that lose names --------------------------------------------- */

/* Deletes or lowers what is left of an object with n names less; an empty
 * directory with all that it has. Its D rows are the caller's. `o` is as it is
 * then. */
int object_lose(struct plan *p, struct object *o, uint32_t n, struct gone *ret);

/* Notes the body of g, which no record will name. `note`: 0 of an object that is
 * gone, its number of a version that was replaced. */
void gone_note(struct plan *p, struct gone *g, uint64_t note);

/* Notes n blocks of version `note` of an object, which its next version does without. */
void gone_note_blocks(struct plan *p, uint64_t fileid, uint64_t note,
		      const struct block_ref *blocks, uint32_t n);

/* What object_lose() would say, without doing it: a name is only hidden, from now on
 * (n 1), or all that are left have been (n 0). */
void object_hidden(const struct object *o, uint32_t n, struct gone *ret);

/* Several D values lose their names; two of them may refer to one object,
 * also to one of `kept`, which are the caller's to write: those lose links only.
 * ret[i]: what became of the i-th. */
int objects_lose(struct plan *p, const struct name_view *v, uint32_t n,
		 struct object *const *kept, uint32_t nkept, struct gone *ret);

/* The draft at v loses this name: its list, and its key. */
int draft_lose(struct plan *p, const struct name_view *v, struct gone *ret);

/* xattr.c ----------------------------------------------------------------------- */

#define XATTR_ACL_ACCESS  "system.posix_acl_access"
#define XATTR_ACL_DEFAULT "system.posix_acl_default"

/* Deletes all extended attributes ('X' or 'x') of an object. */
int xattrs_drop(struct plan *p, char kind, uint64_t fileid);

/* All of them: rows of keys X or x. */
int xattrs_read(struct plan *p, char kind, uint64_t fileid, const struct kv_rows **ret);

/* The object's mode has changed: so does its access ACL, if it has one among its
 * `from` attributes; it is written to `to` ('X', 'x'). */
int xattrs_chmod(struct plan *p, char from, char to, uint64_t fileid, uint32_t mode);

/* A new object's attributes: ids, times, set-gid, umask or the parent's default
 * ACL. Writes the ACLs that it inherits, as X or x. */
int attr_inherit(struct plan *p, const struct index_op *op, const struct record *parent,
		 char kind, struct attr *ret);
