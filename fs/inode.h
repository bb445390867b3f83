/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the kernel knows: a table from nodeid to object, and for each object
 * where its record is, and what of it is open here. No FUSE in it.
 *
 * A nodeid stands for an object, and in a *shared* table (other mounts change the
 * index, too) for one line of its versions: see lines.c.
 *
 * All functions are callable from any thread and block for nothing but the
 * table's lock. `struct file` pointers are the engine's; the table borrows them
 * from the handles that were opened.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/lock.h"
#include "common/table.h"
#include "engine/engine.h"

struct accesses;
struct opens;
struct relic;
struct req;

/* What a shared table knows besides. Times are clock_ns(). */
struct shown {
	uint64_t fileid;
	struct inode *inode;  /* whose it is */
	UT_hash_handle hh;    /* of the first nodeid of the object only */
	struct shown *next;   /* another one */
	uint64_t version;     /* that the kernel's pages are of */
	struct attr told;     /* what it was told last, */
	uint64_t told_ns;     /* then; 0: nothing */
	bool mixed;           /* it was told different things at about the same time:
				 which of them it believes is not known */
	uint64_t place_ns;    /* who found the record before has an older word */
	uint64_t doubt_ns;    /* until then the kernel may know it by a name that it
				 does not have any more */
	uint64_t seen_ns;     /* its line was what is published, the last time that
				 somebody looked */
	uint64_t heard_ns;    /* whether it has xattrs */
	uint64_t kept_ns, kept_until_ns; /* a name: inode_name_kept() */
	uint64_t dropped_ns;  /* inode_may_drop_attr() */
	bool unsized;         /* the kernel may have missed what it was told since */
};

/*
 * 136 bytes: there may be one for every file below the mount. Fields are the
 * table's, under its lock, but for nodeid and fileid, which never change.
 */
struct inode {
	uint64_t nodeid; /* the fileid, but for further lines of an object */
	uint64_t fileid;
	uint64_t nlookup;     /* references that the kernel will FORGET */
	struct place place;   /* where its record is; right at all times but
				 while a move is under way (req.c) */
	struct opens *opens;  /* while handles are open, else NULL */
	struct relic *relic;  /* what is left after its last name went */
	uint32_t refs;        /* requests and handles that use it */
	uint32_t mode;        /* as last heard of */
	bool maybe_xattrs : 1;
	bool maybe_keep : 1; /* struct keep says something */
	bool tainted : 1;     /* direct writes since the page cache was fresh */
	bool pages : 1;       /* the kernel may have pages of it */
	bool pieces : 1;      /* is read in small pieces, or mapped */
	bool lost : 1;        /* a draft that could not be published */
	bool gone : 1;        /* for good: who found it had looked before that */
	atomic_uchar listings; /* that have begun: dir.c */
	uint16_t publishing;  /* inode_publish_begin() */
	UT_hash_handle hh;
	struct shown shown[]; /* one in a shared table, else none */
};

struct inodes;

struct inodes *inodes_new(void);
/* Others change the index, and the kernel may know a name for window_ns after that (or
 * longer: inode_name_kept()). Before anything is in it. */
void inodes_share(struct inodes *t, uint64_t window_ns);
/* Who drops what was kept; called without a lock. Before inode_keep(). */
void inodes_set_drop(struct inodes *t, void (*drop)(void *arg, const struct gone *g),
		     void *arg);
/* What these have noted is shown. Before anything is in it. */
void inodes_set_accesses(struct inodes *t, struct accesses *a);
/* Asserts that nothing is open or in use. Returns NULL; NULL is fine. */
struct inodes *inodes_free(struct inodes *t);
void inodes_check(struct inodes *t); /* asserts all invariants */

/* A reference, or NULL: the kernel does not know it (any more). */
struct inode *inode_get(struct inodes *t, uint64_t nodeid);
struct inode *inode_ref(struct inodes *t, struct inode *i);
/* Returns NULL; NULL is fine. */
struct inode *inode_put(struct inodes *t, struct inode *i);

/* Counts one lookup of the object, entering it if it is new. The place is taken
 * over only then, or if the object had lost its own. A reference, or NULL: out
 * of memory. */
struct inode *inode_know(struct inodes *t, const struct attr *a, struct place p);
void inode_forget(struct inodes *t, uint64_t nodeid, uint64_t n);
/*
 * The same for what a lookup found that began at begun_ns: the nodeid that shows the
 * version that it found, with *a as this mount sees it. 0, -ENOMEM, or INODE_BUSY: it
 * depends on a publish that is under way, or has been done since.
 */
int inode_show(struct inodes *t, struct attr *a, struct place p, uint64_t begun_ns,
	       struct inode **ret);

struct place inode_place(struct inodes *t, struct inode *i);
/* The index has renamed or linked it: its new place, nlink and ctime. `linked`:
 * it has a name more. */
void inode_moved(struct inodes *t, const struct entry *e, bool linked);
/* A name of it is gone. Keeps its attributes if that was the last. */
void inode_gone(struct inodes *t, const struct gone *g);
/*
 * The same of what has lost its last name, after inode_gone(). Who has just looked
 * it up and opens it now is to get it, as everywhere, and not ESTALE: the kernel
 * would look the name up again but once. So true: what it consisted of is kept
 * while the kernel knows it, the table gives it to `drop` then; and not earlier.
 * False: the caller is to drop it (if it is open, its file is kept when that is
 * closed). What is g->hidden is not dropped, but may be kept; call it again when
 * it is lost.
 */
bool inode_keep(struct inodes *t, const struct gone *g);
/* f, of an object without a name, is about to be closed: keeps it instead. The
 * table does so by itself when the last handle goes. */
void inode_keep_file(struct inodes *t, struct inode *i, struct file *f);
/* What the index said of what is kept, a copy in one piece, heap; NULL: nothing
 * is, or the file is open. */
struct gone *inode_kept(struct inodes *t, struct inode *i);
/* Somebody writes to it: what was kept is not what it consists of any more. Its
 * file is open. */
void inode_drop_kept(struct inodes *t, struct inode *i);
/* Gives all that is kept up, because the room is needed. True: some was. */
bool inodes_drop_kept(struct inodes *t);
/* The same of what has been kept since before_ns or longer; since when the oldest is that
 * is left, or 0. In a shared table the kernel may have names that are gone, and for their
 * sake not forget what has none. */
uint64_t inodes_expire_kept(struct inodes *t, uint64_t before_ns);
/* How much room that would make, about. */
uint64_t inodes_kept_bytes(struct inodes *t);
/* The draft has been published by now, maybe: notes the place if so. */
void inode_published(struct inodes *t, struct inode *i);

/* Attributes ------------------------------------------------------------------ */

/* True: *ret is all there is to know, no index needed (a draft, or an object
 * without a name). */
bool inode_attr_here(struct inodes *t, struct inode *i, struct attr *ret);
/* *a is from the index: puts in what the open file knows better. */
void inode_attr_overlay(struct inodes *t, struct inode *i, struct attr *a);
/* The kernel is being told these. */
void inode_told(struct inodes *t, struct inode *i, const struct attr *a);
/* The index does not find it: another mount may have removed it, or an eviction that has not told
 * of it yet. Who has it open goes on with it as with an object without a name, and who has no
 * more than its nodeid sees it as the kernel knew it last (in shared tables). */
bool inode_attr_missed(struct inodes *t, struct inode *i, struct attr *ret);
bool inode_set_missed(struct inodes *t, struct inode *i, unsigned mask, const struct attr *a);
/* -ESTALE: the name was given up with its draft. */
int inode_check_lost(struct inodes *t, struct inode *i);

enum inode_outcome {
	INODE_INDEX = 1, /* the index has to do it, then inode_set_done() */
	INODE_BUSY = 2,  /* it is being published: again after that */
};
/* Changes attributes (INDEX_SET_*) of what lives here only. 0, or the above; or -ESTALE: of
 * what has lost its last name, by an eviction maybe, nothing can be said of how long it stays
 * (INDEX_SET_KEEP). Who came by a name looks that up again. */
int inode_set_here(struct inodes *t, struct inode *i, unsigned mask,
		   const struct attr *a);
/* The index has set them: tells the open file. */
void inode_set_done(struct inodes *t, struct inode *i, unsigned mask,
		    const struct attr *a);
/* It has lost its last name, for good. */
bool inode_is_gone(struct inodes *t, struct inode *i);
uint32_t inode_mode(struct inodes *t, struct inode *i);
/* holds: what was heard last is so. */
bool inode_maybe_xattrs(struct inodes *t, struct inode *i, bool holds);
bool inode_maybe_keep(struct inodes *t, struct inode *i);
void inode_has_xattrs(struct inodes *t, struct inode *i);
/*
 * security.capability, which goes with each write. True: i, which is open, may have one
 * for all that is known, and who has removed it (or found none) says so with *ret.
 */
bool inode_maybe_capability(struct inodes *t, struct inode *i, unsigned *ret);
void inode_no_capability(struct inodes *t, struct inode *i, unsigned seen);
/* This mount has set one, maybe. */
void inode_has_capability(struct inodes *t, struct inode *i);
/* Target of a symbolic link without a name, heap; NULL if it is none. */
char *inode_relic_target(struct inodes *t, struct inode *i);

/* Open handles and the page cache --------------------------------------------- */

struct open_how {
	int flags;   /* open(2)'s */
	bool writer; /* the handle holds a FILE_WRITE */
	bool stream; /* may be read past the page cache: see inode.c */
	/* In a shared table: */
	bool promise; /* is to be opened by the kernel yet */
	bool last;    /* as for inode_may_open() */
	uint64_t begun_ns; /* f was what is published at some moment after this */
};

/* What a handle has to do with the page cache. */
struct caching {
	bool direct; /* its reads and writes come here; what it maps is cached */
	bool fresh;  /* pages that the kernel has are to be dropped for this open, */
	bool told;   /* or attributes at least, before it is answered; then
			inode_dropped() */
	bool mapped; /* direct, and mapped since */
	bool promise; /* as asked: the kernel does not know of it */
	bool reads;
};

/* One more handle on f. *spare is from opens_new(), and taken if it is needed. -ESTALE:
 * as inode_may_open(). */
int inode_open(struct inodes *t, struct inode *i, struct file *f,
		const struct open_how *how, struct opens **spare,
		struct caching *ret);
/*
 * Shared tables: may i be opened as f? -ESTALE: it shows another version than f; a
 * fresh lookup finds the right nodeid, and tells the kernel the size. `last`: the
 * kernel has done that, and would not again: only if i is open, and not as f.
 */
int inode_may_open(struct inodes *t, struct inode *i, struct file *f, bool last);
/* i's file with a reference more, if it is open or kept; NULL. */
struct file *inode_file(struct inodes *t, struct inode *i);
/* The kernel may come to it by a name that it does not have any more. */
bool inode_in_doubt(struct inodes *t, struct inode *i);
/* Of an object that the kernel knows. */
bool inode_place_of(struct inodes *t, uint64_t fileid, struct place *ret);
void inode_doubt(struct inodes *t, uint64_t fileid);
/* Its record is where the name is that the kernel knows it by, beyond doubt. */
bool inode_is_at(struct inodes *t, struct inode *i, const struct place *p);
/* Somebody looked after since_ns, and i's line was what is published. */
bool inode_seen(struct inodes *t, struct inode *i, uint64_t since_ns);
struct opens *opens_new(void);
/*
 * Who opens beside one that has the kernel drop what it has (c->told) is not answered
 * before that, either. False: it need not wait. True: inode_dropped() gives q back, with
 * those that wait like it, each one's *next the next.
 */
bool inode_wait_dropped(struct inodes *t, struct inode *i, struct req *q, struct req **next);
/* The kernel has dropped what it had. Who waited for it, if it is the last; NULL. */
struct req *inode_dropped(struct inodes *t, struct inode *i);
/* The kernel is being told a name of it that it may keep until then. */
void inode_name_kept(struct inodes *t, struct inode *i, uint64_t until_ns);
/* It has forgotten all that it was told so before before_ns. */
void inode_name_dropped(struct inodes *t, uint64_t nodeid, uint64_t before_ns);
/*
 * The kernel is to be told now to ask for the attributes again. It takes no notice of
 * answers that are on their way then, which for a file that is opened next is the only
 * word of its size: so true only if it is no file, or the kernel has it open.
 */
bool inode_may_drop_attr(struct inodes *t, uint64_t nodeid);
/* The kernel fills pages through this direct handle: somebody has mapped it.
 * Before the bytes are looked up that answer the kernel. */
void inode_mapped(struct inodes *t, struct inode *i, struct caching *c);
/* It is read in pieces that a cache is good for. */
void inode_read_in_pieces(struct inodes *t, struct inode *i);
/* The handle stops writing; true: it was the last that did, and has to publish.
 * Once for each writer. */
bool inode_stop_writing(struct inodes *t, struct inode *i);
/* The handle is closed. Before it gives its reference of the file back, after
 * inode_stop_writing(). */
void inode_close(struct inodes *t, struct inode *i, const struct caching *c);
/* A direct write has been done. True: the kernel has to drop those pages
 * before the writer hears of it. */
bool inode_wrote(struct inodes *t, struct inode *i);
/* Around file_publish(), which said r: attributes of a draft stand still meanwhile, and what
 * somebody sets with a new ctime of what is published. The file need not be open as i
 * (truncate(2)), nor i be open at both times; a reference of i is held from one to the other. */
void inode_publish_begin(struct inodes *t, struct inode *i);
void inode_publish_end(struct inodes *t, struct inode *i, int64_t r);
