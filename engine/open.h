/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An open file, for those who work on it: read.c, put.c, write.c, edit.c, copy.c,
 * seal.c, publish.c. One `struct file` per object that is open on this mount,
 * whoever opened it (P3).
 *
 * Unless other mounts change the index, too: then one for each *line*. A line is a
 * version and what this mount has made of it. Who has a file open keeps his line,
 * whatever is published elsewhere (P4); who opens it afterwards gets what is
 * published now (P2): the line whose version that is, or a new one (open.c).
 *
 * Two locks. `lock` is held for moments, over map and numbers, never over a
 * transfer, an index call or a callback. `ranges` orders those who change the
 * file, for as long as that takes, without a waiting thread: the map is changed
 * by holders of a range only, so whoever holds all of it (publish, open for
 * writing, close) sees a file that stands still. Readers take `lock` only.
 *
 * Content up to INDEX_INLINE_MAX bytes may be kept in `content` instead of in
 * slices: `small`. Then the map is empty. An empty new file begins so.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "common/lock.h"
#include "common/table.h"
#include "engine/file.h"
#include "engine/map.h"
#include "engine/put.h"
#include "engine/range.h"

#define FILE_BYTES_MAX (1ULL << 44) /* 16 TiB */

enum file_state { FILE_LOADING, FILE_OPEN };

struct file {
	struct engine *e;
	uint64_t fileid, since_ns;

	UT_hash_handle hh;    /* under the table's lock; of the newest line only */
	struct file *older;   /* an older line of the same object */
	uint32_t refs;
	atomic_bool lost;     /* its draft went with a session: all fails (regain.c) */

	struct lock lock;     /* guards the rest */
	enum file_state state;
	struct attr attr;     /* as readers here see it; version: our base's */
	struct place place;
	struct map map;
	struct ranges ranges;
	uint32_t nwriters;    /* FILE_WRITE opens */
	bool registered;      /* index_writer() or index_draft() was called, and the
				 index is to be told of the end by this line */
	bool ending;          /* it is being told, and there is no other line */
	bool draft;           /* never published */
	bool dirty;           /* changed since it was published */
	bool small;           /* the bytes are in content[] */
	bool publishing;      /* its transaction is under way: attr.version may be old */
	bool torn;            /* slices of it went with a session, maybe (regain.c) */
	bool counted;         /* in M_DRAFTS */
	uint64_t unclean;     /* bytes from the end to here may not be zeros */
	struct block_ref *nodes; /* BODY_TREE: blocks of block references */
	uint32_t nnodes;
	uint8_t *early;       /* all bytes, as they came with the record; or NULL:
				 also once somebody may write */
	uint8_t content[INDEX_INLINE_MAX]; /* zeros behind the end */
};

struct files {
	struct engine *e;
	struct lock lock;
	struct file *table; /* by fileid: the newest line, the others behind it */
	unsigned nregains;  /* of which the index is told again (regain.c) */
	pthread_cond_t regained;
};

/* file.c: finds or makes the file, with a reference more. A new one is
 * FILE_LOADING: whoever has all of its range first loads it. */
int files_get(struct engine *e, uint64_t fileid, struct file **ret);

enum files_outcome {
	FILES_LINE = 1, /* *ret is open, and has what is published */
	FILES_NEW = 2,  /* *ret is a new line, to be loaded */
	FILES_WAIT = 3, /* *ret is about to change: look again when it has */
	FILES_ASK = 4,  /* the index has to say what is published; no *ret */
};
/* The same where others publish, too. `is`: the record, as it was found a moment ago,
 * or NULL: it was not looked for. An outcome, or negative. */
int files_line(struct engine *e, uint64_t fileid, const struct attr *is, struct file **ret);
/* A new line has been loaded: opens find it from here on. -EAGAIN: there is another
 * one of its version, or will be, maybe: nothing has happened. */
int files_admit(struct file *f);
/* Gives a reference back. False: it is the last one, and the index still takes
 * us for a writer: nothing happened. */
bool files_put(struct file *f);
bool files_is_last(struct file *f);
/* f stops to write. True: there are other lines, one of which has it to tell the index, which
 * knows of one writer here; or f's session has ended, and with it that f writes. False: the caller
 * tells it; there is no new line until f->ending is over. */
bool files_hand_over(struct file *f);
/* One of f's object that is nobody's line: to be loaded, and freed. */
int file_spare_new(struct file *f, struct file **ret);
struct file *file_spare_free(struct file *f);
/* regain.c: the caller holds all of f, which is open. Are slices of it lost? */
bool file_is_torn(struct file *f);
/* It has those of `spare` instead, which has been loaded since. 1: it has been changed in this
 * session, and stays as it is until it is published, or all that is lost is written anew.
 * -ESTALE: `spare` is another version. -EIO. */
int file_mend(struct file *f, struct file *spare);
/* If it is open here, all its lines: it has lost names. */
void files_set_nlink(struct engine *e, uint64_t fileid, uint32_t nlink);

static inline uint64_t page_of(uint64_t off)
{
	return off / PAGE_BYTES;
}

static inline uint64_t page_end(uint64_t off)
{
	return (off + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* Zeros to write from and to read from: XFER_RUN_MAX bytes. */
extern uint8_t file_zeros[];

/* One call that changes the file, with the range that it holds. Allocated with
 * what its kind needs behind it (first member), freed by work_end(). */
struct work {
	struct file *f;
	struct file_op *op;
	struct range range;
	void (*run)(struct work *w, int r); /* the next step */
	void (*after)(struct work *w, int r); /* who goes on after a spill */
	int result;                         /* of the step that was put off */
	struct task task;
	struct seal *seal;                  /* seal.c's, while it is at it */
	struct publish *publish;            /* publish.c's */
	uint32_t ahead;                     /* for the next put */
	struct put put;
};

/* Takes pages [from, to), then calls run(w, 0), perhaps before it returns. */
void work_lock(struct work *w, uint64_t from, uint64_t to,
	       void (*run)(struct work *w, int r));
void work_unlock(struct work *w);
/* run(w, r) from a stack that does not grow. */
void work_later(struct work *w, void (*run)(struct work *w, int r), int r);
/* Gives the range back if it is held, frees w, answers the op. */
void work_end(struct work *w, int64_t r);
/* w->put of these bytes, then run(w, r). */
void work_put(struct work *w, uint64_t off, const void *buf, uint64_t len,
	      unsigned flags, void (*run)(struct work *w, int r));
/* Bytes behind the end are zeros again where a failed write has left others; the
 * caller holds the whole file. Then run(w, r). */
void work_clean(struct work *w, void (*run)(struct work *w, int r));
/* The same, and content leaves content[] for a slice. */
void work_spill(struct work *w, void (*run)(struct work *w, int r));

/* A new w of `size` bytes for op->file; on failure the op was answered. */
struct work *work_new(struct file_op *op, size_t size);

/* Under f->lock: it differs from what is published; sets mtime and ctime. */
void file_changed(struct file *f);
/* Under f->lock: keeps the gauge of drafts right after draft, dirty changed. */
void file_count(struct file *f);

/* publish.c: f's draft becomes a version; the caller holds all of the file.
 * done(w, r): 0 also if there was nothing to do or no name left. */
void publish_start(struct work *w, void (*done)(struct work *w, int r));

/* seal.c: moves what wastes slices, brings small content into content[], sums
 * and seals everything written in place; the caller holds all of the file. */
void seal_start(struct work *w, void (*done)(struct work *w, int r));
/* The same without moving anything: for sharing slices. */
void seal_only(struct work *w, void (*done)(struct work *w, int r));
