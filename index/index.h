/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The index: names -> objects -> extents, and no bytes. This is index/'s public
 * header. The engines below it are in index/kv.h; how things are stored is in
 * index/keys.h; each call here is a *plan* (index/plan.h): a pure function of
 * what it has read, ending in one conditional transaction, and run again when
 * somebody else was faster.
 *
 * All calls are asynchronous: op->done() is called exactly once, possibly
 * before the call returns, from any thread, with no lock held. What a caller
 * puts into `op` is borrowed until then; what comes out lives until
 * index_op_fini(). Names are 1..255 bytes, no '/' and no NUL.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "index/kv.h"

enum {
	INDEX_MISS = 1,     /* outcome: no such name, object or attribute */
	INDEX_UNLINKED = 2, /* outcome of publish: no name is left to publish to */
	INDEX_CHANGED = 3,  /* the same: another version has come meanwhile, and blocks that
			       this one consists of may have gone with the one before */
	INDEX_ON_DISK = 4,  /* outcome of index_writer(): it is away, or copied */
	PUBLISH_SHARES = 1, /* flag of it: it does share some */

	INDEX_ROOT = 1,         /* fileid of the root directory */
	INDEX_SESSION_OWN = 1,  /* of a process that has its index to itself */
	INDEX_NAME_MAX = 255,
	INDEX_INLINE_MAX = 1024,/* content up to this is kept in the record */
	INDEX_BODY_MAX = 4096,  /* extents beyond this go to blocks */
	/* Extended attributes of an object, and their bytes with names: they move and go in one
	 * transaction. */
	INDEX_XATTRS_MAX = 64,
	INDEX_XATTRS_BYTES_MAX = 131072,
	PAGE_BYTES = 4096,      /* unit of extents and slices */
	REGION_PAGES = 1024,    /* extents never cross a multiple of 4 MiB */
	SUM_PAGES = 16,         /* a checksum covers 64 KiB of a slice */
};

/* How long an object stays where there is an eviction. What is made in a directory begins
 * with what that one has, but for the quota. All zeros: nothing was said. */
enum { KEEP_LOW = -1, KEEP_NORMAL = 0, KEEP_HIGH = 1 };
#define KEEP_FOREVER INT64_MAX

struct keep {
	int64_t pinned;  /* until then it is not evicted: seconds since the epoch, or
			    KEEP_FOREVER; 0: it may be */
	int64_t since;   /* with ttl: when it was published, or ttl set, likewise; rounded up */
	uint32_t ttl;    /* seconds that it lives; 0: no end */
	bool ttl_by_use; /* from its last use on, not from `since` */
	int8_t priority; /* who has a lower one goes first */
	uint64_t quota;  /* of a directory: bytes of all that is below it; 0: any number */
};

struct attr {
	uint64_t fileid;
	uint64_t version; /* of the content; 1 is the first published one */
	uint64_t size;    /* bytes */
	uint64_t pages;   /* allocated, of PAGE_BYTES; st_blocks is 8 times it */
	uint64_t rdev;
	uint32_t mode;    /* type and permissions */
	uint32_t nlink;
	uint32_t uid, gid;
	struct timespec atime, mtime, ctime, btime;
	struct keep keep;
	bool has_xattrs;      /* there may be some; false: certainly none */
	bool has_default_acl; /* a directory whose children inherit an ACL */
	bool away;            /* of a file: its extents are on the node's disk, not in its pool */
	bool copied;          /* it is in the pool, and may be found on the disk as it is now when
				 memory is lost: not to be written before that is over */
};

/*
 * A run of pages of a file in a run of pages of a slice. sums[] are XXH3-64 of
 * the slice's 64 KiB blocks that the run touches, first block
 * slice_off / SUM_PAGES: they cover the *slice's* bytes (the last block of a
 * slice may be shorter), so that an extent can be split without reading.
 */
struct extent {
	uint64_t pool_id;
	uint64_t page;       /* in the file */
	uint32_t slice;      /* first page of the slice in its pool */
	uint32_t gen;        /* the slice's generation */
	uint16_t npages;
	uint16_t slice_pages;/* the whole slice */
	uint16_t slice_off;  /* where in the slice the run begins, pages */
	uint64_t *sums;      /* extent_nsums() of them; on the heap, its own */
};

static inline unsigned extent_nsums(const struct extent *e)
{
	return (e->slice_off + e->npages - 1u) / SUM_PAGES -
	       e->slice_off / SUM_PAGES + 1u;
}

/* Extents of one file or region, in order of `page`, not overlapping. */
struct extents {
	struct extent *v;
	uint32_t n, cap;
};

/* An extent block: all extents of one 4 MiB region of a file that has too many
 * of them for its record. Immutable; (fileid, id) names it. */
struct block_ref {
	uint64_t region; /* page / REGION_PAGES */
	uint64_t id;
};

enum body_kind {
	BODY_NONE,    /* nothing: empty file, directory, device, fifo, socket */
	BODY_INLINE,  /* the content itself, or a symlink's target */
	BODY_EXTENTS, /* encoded extents */
	BODY_BLOCKS,  /* encoded block references (up to 64 KiB of them) */
	BODY_TREE,    /* references to blocks of references, each block under
			 the first region in it */
};

/* What a version consists of. `bytes` is the encoding; index/body.c has pure
 * functions between it and struct extents. */
struct body {
	enum body_kind kind;
	struct bytes bytes;
};

/* Where an object's record is. Pass what the last call said; plans follow an
 * object that has moved where that can be known. */
enum place_kind {
	PLACE_NONE,   /* nowhere: unlinked */
	PLACE_NAME,   /* with its name: (parent, h) */
	PLACE_FILEID, /* under its fileid: directories, hard-linked files */
	PLACE_DRAFT,  /* not published yet; its names are the session's keys */
};

struct place {
	enum place_kind kind;
	uint64_t parent; /* PLACE_NAME */
	uint64_t h;
};

static inline bool place_is_same(struct place a, struct place b)
{
	return a.kind == b.kind && (a.kind != PLACE_NAME || (a.parent == b.parent && a.h == b.h));
}

#define INDEX_H_FREE ((uint64_t)0xfc) /* bits of an h that are never set */

/* One name and what it refers to. */
struct entry {
	struct attr attr;
	struct place place;
	struct body body;  /* as stored; empty for a draft */
	struct bytes copy; /* of what is copied: extents on the disk that have the same bytes;
			      empty: none do any more */
	uint64_t h;        /* of the name: the readdir offset */
	uint64_t parent;   /* of a directory: its parent; else the asked one */
	const char *name;  /* index_list() only, name_len bytes and a NUL */
	uint16_t name_len;
	bool draft;        /* attr has fileid and type only: ask the open file */
};

/* An object that lost a name, by unlink, rmdir, rename or a publish. */
struct gone {
	uint64_t fileid;   /* 0: nothing did */
	struct attr attr;  /* after it: nlink 0 if that was the last name */
	struct body body;  /* nlink 0: what it consisted of, to be dropped
			      (engine_drop()): until then it names its slices
			      under a key of the session. Else empty. */
	uint64_t note;     /* under which the body lies until index_gone_end() */
	bool draft;        /* it was a draft; its file knows what to free */
	bool hidden;       /* by a draft's name, which has replaced it: still stored
			      as it is, and lost when the draft is published */
};

enum {
	INDEX_SET_MODE = 1 << 0,
	INDEX_SET_UID = 1 << 1,
	INDEX_SET_GID = 1 << 2,
	INDEX_SET_ATIME = 1 << 3,
	INDEX_SET_MTIME = 1 << 4,
	INDEX_SET_CTIME = 1 << 5, /* the given one; else it becomes now */
	INDEX_SET_PIN = 1 << 6,
	INDEX_SET_TTL = 1 << 7,   /* begins now, whatever `since` says */
	INDEX_SET_PRIORITY = 1 << 8,
	INDEX_SET_QUOTA = 1 << 9, /* -ENOTDIR of anything else */
	INDEX_SET_KEEP = INDEX_SET_PIN | INDEX_SET_TTL | INDEX_SET_PRIORITY | INDEX_SET_QUOTA,
};

/* Takes from `from` what mask names: of the mode the permissions only, the type
 * stays; ctime only if it is named. Pure. */
void attr_apply(struct attr *a, unsigned mask, const struct attr *from);

/* Pure, too: what differs, of INDEX_SET_KEEP; and taking over what mask names. */
unsigned keep_diff(const struct keep *a, const struct keep *b);
unsigned keep_said(const struct keep *k); /* what differs from nothing */
void keep_apply(struct keep *k, unsigned mask, const struct keep *from);
/* Has it a time to live? *ret_at: when that ends, in seconds since the epoch. */
bool keep_end(const struct attr *a, int64_t *ret_at);

/*
 * As text, for users: what is "pin" ("forever", "2026-12-01T12:00:00Z"), "ttl" ("1h",
 * "7d after use"), "priority" ("low", "normal", "high") or "quota" ("10G"); more forms are
 * read than written, "none" for one (slicefs-pin(8)). -ENOENT: none of these. -EINVAL: no such value;
 * -ENODATA: nothing was said.
 */
struct keep_text {
	char s[48];
};
int keep_set(struct keep *k, const char *what, struct bytes value, unsigned *ret_mask);
int keep_unset(struct keep *k, const char *what, unsigned *ret_mask);
int keep_get(const struct keep *k, const char *what, struct keep_text *ret);
void keep_moment(int64_t at, struct keep_text *ret); /* "forever", "2026-12-01T12:00:00Z" */

struct index;
struct plan;

/* A time of reading, and what it was before. */
struct index_access {
	uint64_t fileid;
	struct place place;
	struct timespec before, at;
};

/* A name: where it is. */
struct index_name {
	uint64_t parent, h;
};

struct index_op {
	/* Asked; each call below says which of these it looks at. */
	uint64_t parent, parent2;
	const char *name, *name2;
	uint64_t fileid;
	struct place place;
	struct attr attr;
	struct body body;
	uint32_t umask;
	unsigned mask;  /* INDEX_SET_* */
	unsigned flags; /* LOOKUP_*, RENAME_*, XATTR_*, PUBLISH_* */
	uint64_t from;  /* index_list(): listing goes on behind this h */
	uint32_t limit;
	bool plus;
	struct bytes value;
	uint64_t note;
	uint64_t session; /* index_publish(), index_writer_end() */
	const struct block_ref *blocks;
	const struct bytes *values;
	uint32_t nblocks;
	const struct index_access *accesses;
	uint32_t naccesses;
	const struct index_name *names;
	uint32_t nnames;
	struct kv_call call;
	void (*done)(struct index_op *op, int outcome);
	void *arg; /* the caller's */

	/* Came of it. All of this, and nothing else, lies between entry and plan:
	 * each run of a plan begins with it cleared. */
	struct entry entry, entry2;
	struct gone gone, gone2;
	struct gone *more_gone; /* index_publish(): of a draft with several names */
	uint32_t nmore_gone;
	struct entry *entries;
	uint32_t nentries;
	bool more;
	struct bytes bytes;   /* xattr value or list */
	struct kv_rows *rows; /* one: a row for each of blocks[] */
	bool unsure;          /* the outcome is negative, or INDEX_CHANGED, and it may
				 have been done all the same: an answer was lost */

	struct plan *plan; /* the index's */
};

/* Frees what came out. The op may be used again after it. */
void index_op_fini(struct index_op *op);

/* call(ix, op), and waits for its outcome: for start-up, checks and tests, never
 * on a FUSE worker. Takes op->done and op->arg for itself. */
int index_wait(struct index *ix, struct index_op *op,
	       void (*call)(struct index *ix, struct index_op *op));

/* The file system itself -------------------------------------------------- */

struct index_super {
	uint64_t fs_id;
	uint64_t pool_id; /* of the pool that extents name; 0 before the first */
	uint8_t hash_key[16];
	struct timespec made;
};

/*
 * Takes kv over (also closes it on failure), for the session of this number: what
 * is written by way of *ret and not published is that session's, and seen by it
 * only. Several sessions may work on one engine, each through a struct index and
 * a kv of its own. If it is empty and `format` is
 * set, makes a file system with a root directory of mode 0755 owned by the
 * caller's euid, egid. Blocks; for start-up.
 * -ENOENT (empty, not to be formatted), -EUCLEAN (damaged),
 * -EPROTONOSUPPORT (a newer format), or the engine's.
 */
int index_open(struct kv *kv, uint64_t session, bool format, struct index **ret);
/* Ends the session, and no other. All ops must be done; NULL is fine. */
void index_close(struct index *ix);
uint64_t index_session(const struct index *ix);
/* Another session, of a greater number, has taken the place of that one, which has
 * ended with all that was its (an engine over a wire). Any thread; calls that are
 * under way are run again in the name of the new one; but a put of blocks, of which
 * a part may be gone with the old one, fails (-ESTALE), and a publish (-EIO). */
void index_set_session(struct index *ix, uint64_t session);
struct kv *index_kv(struct index *ix);
const struct index_super *index_super(struct index *ix);
int index_set_pool(struct index *ix, uint64_t pool_id); /* blocks */
/* The pool that extents of what is `away` are in; 0: there never was one. Both block. */
int index_disk(struct index *ix, uint64_t *ret_pool_id);
int index_set_disk(struct index *ix, uint64_t pool_id);

/* A number that was never used before, for fileids and block ids. They are
 * reserved in the index 65,536 at a time, ahead of need: this does not block.
 * 0 if that failed and none is left. */
uint64_t index_new_id(struct index *ix);

/* Names -------------------------------------------------------------------- */

/* parent, name, flags -> entry. INDEX_MISS. Drafts of this session are seen, here and in
 * all that follows, and those of others are not. */
enum {
	LOOKUP_CHECK_DIR = 1, /* -ESTALE if there is no such directory any more */
};
void index_lookup(struct index *ix, struct index_op *op);

/* fileid, place -> entry (no name). INDEX_MISS: not there any more. */
void index_stat(struct index *ix, struct index_op *op);

/* parent, from, limit, plus -> entries in order of h, more. Without `plus`,
 * attr holds fileid and type only. "." and ".." are the caller's. A page is
 * atomic, a listing is not: an entry that is there all the time is listed once. */
void index_list(struct index *ix, struct index_op *op);

/* parent, name, attr (mode with type, uid, gid, rdev), umask, body (a symlink's
 * target) -> entry: mkdir, mknod, symlink. Gives the fileid; inherits set-gid
 * and default ACL from the parent. -EEXIST (also a draft of another session),
 * -ENOENT (parent gone). */
void index_make(struct index *ix, struct index_op *op);

/* The same for a regular file as a draft: entry with all attributes (the caller
 * keeps them: a draft has no record). name NULL: no name yet (O_TMPFILE). flags
 * O_EXCL: -EEXIST also if another session has a draft of that name; without it both
 * have, and who publishes last replaces what the other one has published.
 * -ENOSPC: the index is too full for it to be published. */
void index_draft(struct index *ix, struct index_op *op);

/* fileid, place, parent, name -> entry (of the object, new place and nlink).
 * INDEX_MISS (the object is not there; it may have moved since its place was known),
 * -EEXIST (also a draft of another session), -ENOENT (parent gone), -EMLINK, -EPERM (a
 * directory). For a draft the caller counts nlink. */
void index_link(struct index *ix, struct index_op *op);

/* parent, name -> gone; gone2: what a draft's name hid (neither, if an answer was lost, and the
 * name does not show it any more: somebody has removed it). INDEX_MISS; unlink:
 * -EISDIR; rmdir: -ENOTDIR, -ENOTEMPTY (also drafts of other sessions). */
void index_unlink(struct index *ix, struct index_op *op);
void index_rmdir(struct index *ix, struct index_op *op);

/* parent, name, parent2, name2, flags (0, RENAME_NOREPLACE, RENAME_EXCHANGE,
 * RENAME_WHITEOUT is -EINVAL) -> entry: what moved, in its new place; entry2:
 * with EXCHANGE, what moved the other way; gone: what was replaced (a published
 * object that a draft replaces is `hidden`, and goes when the draft is published:
 * its body must not be dropped yet); gone2: what a draft's name hid and
 * hides no more. Two names of one object: nothing happens. INDEX_MISS (source),
 * -EEXIST (NOREPLACE: also a draft of another session), -EISDIR, -ENOTDIR (also a
 * directory to where another session has a draft), -ENOTEMPTY, -EINVAL (into
 * itself), -ENOENT (a directory vanished). */
void index_rename(struct index *ix, struct index_op *op);

/* May an entry with this h have this name? Certainly not, or very likely. */
bool index_name_fits(struct index *ix, const char *name, uint64_t h);

/*
 * A doorbell, as kv_watch_others() of this session: rings when another one has changed
 * something that names in the directory show, or that is its own; not for files with
 * several names (PLACE_FILEID), and not for times of a directory that change alone.
 * It takes two of an engine's watches. Unwatch: as kv_unwatch(); of none is fine.
 */
struct index_watch {
	struct kv_watch *names, *self;
};
int index_watch_dir(struct index *ix, uint64_t dir, void (*ring)(void *arg), void *arg,
		    struct index_watch *ret);
void index_unwatch(struct index *ix, struct index_watch *w);
bool index_watch_is_dead(const struct index_watch *w); /* as kv_watch_is_dead() */
/* The same, of one watch: rings when `name` in the directory `parent` may have come or gone
 * as something published, whoever does it; but where the index is over a wire not for what
 * this session does. Names of the same hash ring, too. */
int index_watch_name(struct index *ix, uint64_t parent, const char *name,
		     void (*ring)(void *arg), void *arg, struct index_watch *ret);

/* Objects ------------------------------------------------------------------ */

/* As index_stat(), of a file that has one name, in place.parent: of its h the upper bits are
 * known. entry.place is where it is. INDEX_MISS: it is not there, or not so. */
enum {
	INDEX_NEAR_BITS = 31, /* lower bits of place.h that do not count */
};
void index_stat_near(struct index *ix, struct index_op *op);

/* fileid, place, of several names (PLACE_FILEID) all of them: names, nnames -> gone; entries:
 * the names (and nothing else), all of which it lost at one moment. `value`, unless it is NULL:
 * the body that it has to have still, as bytes. mask INDEX_SET_TTL: only if its time to live has
 * ended by attr.mtime.tv_sec. INDEX_MISS: it is not there, or not so; -EBUSY: somebody writes it,
 * or hides a name of it. Never a directory. */
void index_evict(struct index *ix, struct index_op *op);

/* fileid of a directory, attr.mtime -> gone; entries: its name. It goes if what happened last to
 * its names was that one was evicted, and nothing else has happened in it, or to it, since attr.mtime.
 * Else -EBUSY; -ENOTEMPTY; INDEX_MISS: it is not there. Never one that has extended
 * attributes, or of which something was said (struct keep) that it did not inherit. */
void index_evict_dir(struct index *ix, struct index_op *op);
/* Those that may be such, of the next some directories; blocks. *at: 0 at first; then where to go
 * on, 0: these were the last. What is written meanwhile may be seen or not. */
int index_some_evicted(struct index *ix, struct timespec since, uint64_t *at,
		       int (*visit)(void *arg, uint64_t dir), void *arg);

/*
 * fileid, place, body, attr.away; value: the body that it has by now, as bytes -> entry; gone:
 * of a body of blocks the old one, to be dropped (engine_drop()); else its extents have gone
 * with this. Where its content lies is another place from now on, and it is the same content:
 * so a body of extents keeps its version. One of blocks has the next one, since who has it open
 * may be about to publish something that shares them. Its blocks were put before, PUT_UNNOTED.
 *
 * What comes back is copied; the extents that it had on the disk are its copy, if there are no
 * more than a record has room for. What goes there and says no body (BODY_NONE) becomes its copy.
 * INDEX_MISS: it is not there, or has another body, or no copy; -EBUSY: somebody writes it.
 */
void index_move(struct index *ix, struct index_op *op);

/* fileid, place -> entry: its copy is none any more, and does not outlive memory; it is still
 * copied. INDEX_MISS: it is not there, or not copied. */
void index_copy_drop(struct index *ix, struct index_op *op);
/* The same: it is copied no more. Once what index_copy_drop() did is on the disk. -EBUSY: it has
 * a copy. */
void index_copy_end(struct index *ix, struct index_op *op);
/* The same of all that are copied, where there is no disk any more. Blocks. */
int index_end_copies(struct index *ix);

/* fileid, place, mask, attr -> entry. INDEX_MISS. A chmod also rewrites the access
 * ACL. The attributes of a draft are the caller's: -ENOENT; but with PLACE_DRAFT,
 * 0: its access ACL, if there is one, is rewritten. */
void index_setattr(struct index *ix, struct index_op *op);
/* accesses, naccesses -> nothing: sets these times of reading, but of what has another one
 * than `before`, is a draft, or is not there. */
void index_accessed(struct index *ix, struct index_op *op);

/* fileid, place: this session is going to write the object (put once, however
 * many handles): renames, of whatever session, keep track of it from here on, and it is
 * not moved. INDEX_MISS; INDEX_ON_DISK: it is not to be written before the node has seen
 * to it that no disk can bring back what it is now (node_recall(), to write it). */
void index_writer(struct index *ix, struct index_op *op);

/* fileid: it has stopped; for a draft: gives its names and extended attributes
 * up. Call it once for each index_draft() and index_writer(), whatever publishing
 * said. Nobody writing is no error. session: that it wrote in, or 0, as of index_publish(); if
 * another one has followed, that one goes on writing. */
void index_writer_end(struct index *ix, struct index_op *op);

/*
 * fileid, attr (all of a draft's; of a published object: size, pages, times,
 * version: the one that the draft was based on), body -> entry: the record as
 * stored (version one up), place; gone: an object that a draft's name replaced;
 * gone2: nlink 0, the body of the version that this one replaced *if* it is not
 * the one it was based on (else the caller knows what it replaced: fileid 0),
 * because another session has published meanwhile. blocks: those of that version which
 * this one does without; if it is the one it was based on, they are noted under its number.
 * The draft's names, ACLs and attributes become durable in the same
 * transaction. flags: PUBLISH_SHARES: only if it replaces the version that it was
 * based on, else INDEX_CHANGED; which is also said after an answer that was lost, if another
 * version is there. more_gone, nmore_gone: what other names of a draft replaced.
 * session: the one that all it consists of is of (index_session(), before that was put); 0: the
 * one that this call begins in. If another one has followed it is not done: -EIO.
 * index_draft() or index_writer() went before (-EINVAL). INDEX_UNLINKED: nothing
 * has changed; a draft without a name (O_TMPFILE) may get one and be published.
 */
void index_publish(struct index *ix, struct index_op *op);

/* fileid, name; place -> bytes. INDEX_MISS. */
void index_getxattr(struct index *ix, struct index_op *op);
/* -> bytes: names, each with its NUL */
void index_listxattr(struct index *ix, struct index_op *op);
/* name, value, flags XATTR_CREATE, XATTR_REPLACE, attr (a draft's own) -> entry
 * (ctime, has_xattrs, has_default_acl; mode, where an access ACL says so; of a
 * draft: what becomes of attr). INDEX_MISS (no object), -EEXIST, -ENODATA (also
 * removing), -E2BIG, -ENOSPC (too many), -EINVAL (not an ACL), -EACCES (a default
 * ACL, but no directory). */
void index_setxattr(struct index *ix, struct index_op *op);
void index_removexattr(struct index *ix, struct index_op *op);

/* Extent blocks ------------------------------------------------------------ */

/* fileid, blocks, values: writes new blocks (immutable, not yet referred to), in as
 * many transactions as it takes: all those of one version, which is published, or
 * they are deleted again, before others are put for this object. -ENOSPC: none is
 * left behind. */
enum {
	PUT_UNNOTED = 1, /* flag: by who ends with the index itself: the next start collects them */
	PUT_RESERVE = 2, /* by who makes room, and is not to wait for himself */
};
void index_put_blocks(struct index *ix, struct index_op *op);
/* fileid, blocks -> rows: rows->rows[i].value is what blocks[i] was put with.
 * -EUCLEAN if one is missing or damaged. */
void index_get_blocks(struct index *ix, struct index_op *op);
/* fileid, blocks, note (0: none): the note that lists them goes with the last of them. */
void index_del_blocks(struct index *ix, struct index_op *op);

/* fileid, note (of struct gone): what was handed out as gone is not needed any
 * more. Its blocks were deleted before; extents in the body itself go with this. */
void index_gone_end(struct index *ix, struct index_op *op);

/*
 * Ends another session, which makes no call any more (its node has seen to that): its
 * drafts vanish, and the blocks that it had put and not published are deleted; the
 * cost goes by what the session had under way. Blocks; any thread but a FUSE
 * worker's. *ret_blocks (or NULL): how many. Negative: the session has ended all the
 * same (else the engine's), and blocks stay behind until the next start.
 */
int index_session_end(struct index *ix, uint64_t session, unsigned *ret_blocks);

/* May a session of this number ask that of the engine? Pure. -ESTALE: it would write
 * a key of another session, other than plans do. */
int index_request_check(const struct kv_req *req, uint64_t session);
/* Of one that has been done: was it a look-up of a name, and none was there? Pure. */
bool index_request_missed(const struct kv_req *req);

/* Records, for who reads them without an index of his own: pure --------------- */

/* Keys that begin with one of the object at a place. */
struct index_at {
	uint8_t from[32], to[32];
	uint8_t nfrom, nto; /* nto 0: the one key */
};

/* Where the record of fileid is if it is at place (PLACE_NAME, PLACE_FILEID, else
 * false): the first row of that. */
bool index_record_at(uint64_t fileid, struct place place, struct index_at *ret);

/* What such a row says: *ret without a place, its body in `value`. INDEX_MISS: it is
 * another object's, or a directory's, which is more than one row. */
int index_record(uint64_t fileid, struct bytes value, struct entry *ret);

/* Body encodings, pure (index/body.c) --------------------------------------- */

/* -EUCLEAN on anything that a correct encoder would not have written. */
int body_decode_extents(struct bytes b, struct extents *ret);
/* The same, one at a time, without their sums, and without allocating anything. What
 * is wrong may show behind some of them. Not 0 from visit: ends it with that. */
int body_each_extent(struct bytes b, int (*visit)(void *arg, const struct extent *e), void *arg);
int body_encode_extents(const struct extents *e, struct writer *w);
int body_decode_blocks(struct bytes b, struct block_ref **ret, uint32_t *ret_n);
/* The same, behind the *n that *v (heap, or NULL) has; on failure both stay. */
int body_append_blocks(struct bytes b, struct block_ref **v, uint32_t *n);
int body_encode_blocks(const struct block_ref *v, uint32_t n, struct writer *w);

void extents_fini(struct extents *e); /* with the sums */
/* Appends all of `from`, which is empty then. -ENOMEM: nothing has moved. */
int extents_move(struct extents *to, struct extents *from);

/* Everything, for rebuild and checks ---------------------------------------- */

struct index_visitor {
	/* One object (hard-linked: once) with a body, and its extents; return <0
	 * to stop. For BODY_BLOCKS and BODY_TREE, in several calls. */
	int (*extents)(void *arg, const struct attr *a, const struct extents *e);
	/* Instead, which costs less: each extent, without its sums. */
	int (*extent)(void *arg, const struct attr *a, const struct extent *x);
	/* A block that no record refers to. */
	int (*orphan_block)(void *arg, uint64_t fileid, uint64_t id);
	void *arg;
	/* If there are some (CREW_MAX at most): objects are visited by as many threads at
	 * once, each with its own of these instead of arg, and in no order. */
	void *const *args;
	unsigned nargs;
};

/* Visits all published objects; blocks; for start-up and checks. 0, the
 * visitor's negative, -EUCLEAN. What visits writes nothing to the index. Held in memory: one
 * page a thread, and 16 bytes for each extent block. */
int index_scan(struct index *ix, const struct index_visitor *v);

/*
 * Extents by the rows that they are in: records, extent blocks (whether a record
 * names them already or not), bodies of what is gone and not dropped yet. For who
 * counts them as they are written (kv_observe(), of these kinds).
 */
#define INDEX_EXTENT_KINDS "DEFg"
/* Each extent of a row, as body_each_extent(). */
int index_row_extents(struct bytes key, struct bytes value,
		      int (*visit)(void *arg, const struct extent *e), void *arg);
/* The same extents in both values of a row, at a glance; both decode. */
bool index_row_is_same(struct bytes key, struct bytes a, struct bytes b);
/*
 * What a row says of an object that is no directory: its record, or one of its names, or
 * both at once. For who follows what is there (kv_observe(), of these kinds).
 */
#define INDEX_OBJECT_KINDS "DF"
struct index_row {
	struct index_name name; /* is_name */
	bool is_name, is_record;
	bool is_temp;           /* the name says that it will be renamed: "*.tmp",
				   "*.tmp.*" */
	struct attr attr;       /* !is_record: fileid and type only. pages: of the pool */
};
/* Content in the record is shown as a page, and takes none of the pool, as what is on a disk. */
uint64_t index_pool_pages(const struct attr *a, const struct body *b);
/* INDEX_MISS: it is a directory's, or no such row; -EUCLEAN, -EPROTONOSUPPORT. Pure. */
int index_row_object(struct bytes key, struct bytes value, struct index_row *ret);
/* A directory's. INDEX_MISS: it is none. Pure. */
struct index_dir {
	uint64_t dir, parent;
	uint64_t quota; /* bytes */
};
int index_row_dir(struct bytes key, struct bytes value, struct index_dir *ret);
int index_all_dirs(struct index *ix, int (*visit)(void *arg, const struct index_dir *d), void *arg);

/* All of them, names first; blocks. As index_all_extents(). */
int index_all_objects(struct index *ix, int (*visit)(void *arg, const struct index_row *row),
		      void *arg);
/*
 * What is to be known of a store when its memory is lost and its disk is not: rows of
 * directories, of files whose extents are in the pool `disk`, and what belongs to either (where
 * that does not show in a row, of all). Times of directories are not among them. What such a
 * row is then: its value, or, of what is copied, as if it were away, written to w, which is
 * empty; BYTES_NONE: nothing of it is kept, or w is bad.
 */
#define INDEX_KEPT_KINDS "MDFLXE"
struct bytes index_row_kept(struct bytes key, struct bytes value, uint64_t disk, struct writer *w);
/* Every row of a kind, in order; blocks. As index_all_extents(). Not 0 from visit: ends it
 * with that. */
int index_rows(struct kv *kv, char kind, int (*visit)(void *arg, const struct kv_row *row),
	       void *arg);
/* All rows; blocks. What is written meanwhile may be seen or not. */
int index_all_extents(struct index *ix, int (*visit)(void *arg, uint64_t fileid,
			      const struct extent *e), void *arg);

/* What a record says that an object which is no directory consists of; borrowed. */
struct index_body {
	struct place place;
	struct bytes name; /* PLACE_NAME */
	struct attr attr;
	struct body body;
	struct bytes copy; /* as of struct entry */
	bool damaged;      /* it does not decode: attr and body are not known */
};
/* All of them; blocks. What is written meanwhile may be seen or not. Not 0 from visit: ends it
 * with that. */
int index_all_bodies(struct index *ix, int (*visit)(void *arg, const struct index_body *b),
		     void *arg);
/* Its extents, in several calls perhaps; blocks. -EUCLEAN: a block of it is damaged, or gone
 * since. */
int index_body_extents(struct index *ix, const struct index_body *b,
		       int (*visit)(void *arg, const struct attr *a, const struct extents *e),
		       void *arg);
/* All names of a file, in a walk over all names; blocks. */
int index_names_of(struct index *ix, uint64_t fileid,
		   int (*visit)(void *arg, const struct index_name *at, struct bytes name),
		   void *arg);
/* "a/b/name", from the root: of what has this name in that directory; blocks. -ENOENT: the
 * directory is not there; -ENAMETOOLONG. */
enum { INDEX_PATH_MAX = 4096 };
int index_path(struct index *ix, uint64_t dir, struct bytes name, char ret[INDEX_PATH_MAX]);

enum index_check_mode {
	INDEX_CHECK_LIVE,    /* others may be writing */
	INDEX_CHECK_REPAIR,  /* nobody is; frees or drops what it reports */
	INDEX_CHECK_STOPPED, /* nobody is: an extent block that a publish left
				behind, which the next start collects, is no
				violation */
};

/*
 * Walks all invariants of what is stored (list in check.c) and appends a line
 * for each violation to report. Returns the number of violations, or negative.
 * Repairs are one transaction each; they never invent a name, an attribute or a
 * byte. (ret_repaired may be NULL.)
 */
int index_check(struct index *ix, enum index_check_mode mode, struct writer *report,
		unsigned *ret_repaired);
