/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What will be known of the disk when memory is lost: the rows of the index that
 * index_row_is_kept() names, and the generations of segments. In the disk's folder:
 *
 *	rows-N      all of them, as they were while it was written
 *	journal-N   what has become of each since; absolute, by key
 *
 * Whoever reads takes the last whole rows-N and then journal-N, N+1, ... up to where each
 * ends: an event says what a row is from then on, so it does no harm that rows-N has some
 * that are younger than the beginning of journal-N. There is a new N at each start and when
 * the journal has grown: first its journal, then its rows, then what was before goes.
 *
 * The order that power loss may not break:
 *
 *	bytes of an object           before   the event that names them
 *	the next generation of a     before   the first byte that is written over
 *	segment
 *	an object's copy is none     before   whoever is going to write it has an answer
 *	any more
 *	commits that rows-N may      before   rows-N has its name
 *	have in part
 *
 * When it cannot be written, its files are removed before anybody has an answer, all rows first:
 * rows without their journals would be what there was before, journals without rows are nothing.
 * Where they stay, who is going to write has an error. So nothing that could be changed comes back
 * as it was before. What was unlinked or renamed over may, if that was in the last moment. An object
 * that is in memory and has a copy is kept as if it were away.
 *
 * Threads: one of its own ("journal"), which writes and waits for the disk. Observing and the
 * calls take LOCK_JOURNAL for moments.
 */
#include "engine/disk.h"
#include "engine/tier_log.h"
#include "engine/tier_replay.h"
#include "index/kv.h"

struct journal;

struct journal_opts {
	int dir, data;       /* descriptors, lent: the folder, the disk's file */
	struct kv *kv;       /* nothing is under way in it */
	struct tier_log *log;
	struct record_head head; /* number: of the files to be written */
	struct disk_faults *faults; /* or NULL */
	uint64_t rotate_bytes;      /* of a journal; 0: what is usual */
	_Atomic uint64_t *answered_ns; /* when the disk last did is noted there, or NULL */
};

/* Writes rows-N and journal-N, removes those before, and observes from then on. Blocks.
 * -ENOSPC, -EIO. */
int journal_open(const struct journal_opts *o, struct journal **ret);
/* Writes what is left, and nothing after it; nothing is under way in the index. False: it is not
 * done by then. */
bool journal_end(struct journal *j, uint64_t deadline_ns);
/* The same if that has not been done, for as long as it takes. NULL is fine. */
void journal_close(struct journal *j);

/* Notes that a segment has this generation; a mark, for journal_has(). */
uint64_t journal_segment(struct journal *j, uint32_t n, uint32_t gen);
/* What was committed until now. */
uint64_t journal_mark(struct journal *j);
/* Is it on the disk? Never again after an error. */
bool journal_has(struct journal *j, uint64_t mark);
/* 0, -ETIMEDOUT, or the error with which the journal has ended. */
int journal_wait(struct journal *j, uint64_t mark, uint64_t deadline_ns);
/* After that error: its files could not be removed, and what they know may be there again. */
bool journal_stays(struct journal *j);
/* Bytes were written to `data`: they are before whatever is committed from now on. */
void journal_data(struct journal *j);

/* What is in the folder, for who begins with it. */
struct journal_found {
	uint64_t next;     /* number for journal_opts */
	struct record_head head; /* of what was read; version 0: nothing was */
	bool torn;         /* a tail was cut off */
};

/* Reads all of that: rows as events. Journals without rows are what is left of one that failed, or
 * was to be removed: nothing is read. -EUCLEAN: the last rows-N are not whole; -ENOENT: one of
 * their journals is not there; and records_read_file()'s. *ret_file, on the heap: which one it is
 * about. */
int journal_read(int dir, const struct record_visitor *v, struct journal_found *ret,
		 char **ret_file);
