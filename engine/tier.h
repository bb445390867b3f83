/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The disk below the pool: what the eviction pushes out of memory goes to a file on a disk,
 * and comes back when it is opened. It is where pool and index are: in the mount of an own
 * store, in a node.
 *
 *	evict.c --- tier_demote() ---> tier_out.c ---> disk
 *	   ^                               |  says in the index where the bytes are
 *	   | what does not go there,       v
 *	   | or has to leave it      index: record, `away`, extents in the disk's pool
 *	   |                               ^  says that they are in the pool
 *	load.c --- tier_recall() ----> tier_back.c <--- disk
 *
 * It is a pool of its own, with an id: `struct extent.slice` is a page of its file, `.gen`
 * the generation of the segment of the log that it lies in (tier_log.h). Sums go along: what is
 * read is compared before anybody sees it (P9). An object is `away`, all of it on the disk; or in the
 * pool, all of it, and what has come back is `copied`: what it was on the disk stays, as its
 * copy, and is what it becomes when it goes there again. Nobody writes what is copied: first the
 * copy is dropped, and when the disk knows that, it is copied no more.
 *
 * Its folder has `data`, with a head that says whose it is, and the journal of what is on it
 * (tier_journal.h), by which it is found again when memory has been lost.
 *
 * Threads: "evict" for demoting and for what leaves; NBACK of its own ("recall") for what comes
 * back; "journal". Nobody who holds a lock, and no FUSE worker, waits for a disk here.
 */
#include "engine/disk.h"
#include "engine/node.h"
#include "engine/policy.h"

struct engine;
struct tier;

struct tier_opts {
	const char *dir;   /* its folder; made if it is not there */
	uint64_t bytes;    /* of its file; 0: as it is */
	const char *store; /* whose it is; "": nobody's that has a name */
	uint64_t id;       /* of the one that this store is known to have; 0: none, see tier_keep() */
	bool fresh;        /* what is there is moved aside, see tier_keep() */
	uint32_t wait_ms;  /* that who needs room may wait for the disk; 0: what is usual */
	uint32_t end_ms;   /* that the end waits for it, see tier_ending(); 0: what is usual */
	struct disk_faults *faults;
};

/*
 * Opens what is there, or makes it; nobody else may have it. The sentence says all of it.
 * -EBUSY, -ENOSPC, -EINVAL (another size; not a disk), -EUCLEAN (not ours, or damaged: it stays
 * as it is), -EPROTONOSUPPORT, -EEXIST (fresh, and something is aside already).
 */
int tier_open(const struct tier_opts *o, struct tier **ret, char **ret_why);
/* All else has been opened, and the store is noted to have this disk: what `fresh` moved aside stays
 * there. Until then it is put back by tier_free(). After a kill, who opens the folder the next time
 * does the one or the other: it is kept if the disk that is there is the one of opts.id. */
void tier_keep(struct tier *t);
/* Removes what a store has in this folder; nothing, if it is another one's. `id`: as opts.id. -EBUSY:
 * it is in use. After another error, or an interruption, it can be called again. */
int tier_remove(const char *dir, const char *store, uint64_t id);
/* The same of what is known of it, so that none of it comes back; its room stays taken. -ENOENT: it
 * is not there, nor is anything forgotten: it may be in a place that is not mounted now. */
int tier_forget(const char *dir, const char *store, uint64_t id);
uint64_t tier_id(const struct tier *t);
bool tier_is_new(const struct tier *t);   /* nothing is on it */
uint64_t tier_fs(const struct tier *t);   /* whose file system it has something of; 0: nobody's */
/* An empty index gets what is known of the one that was lost, without what has been written
 * over since, and what it has no room for. */
int tier_fill(struct tier *t, struct kv *kv, char **ret_why);
/* The rebuild: an extent of this object. -ESTALE, -EINVAL: it cannot be. */
int tier_adopt(struct tier *t, const struct extent *x, uint64_t fileid);

/* e's pool and index are open and rebuilt, nothing is under way. `evict` is called on the
 * thread that demotes: the object is to go, if it may: 0, or it stays. `condemn`, by any: it is
 * to go soon, for it cannot be read, if it is away then and has this body (lent). */
struct tier_calls {
	int (*evict)(void *arg, uint64_t fileid);
	void (*condemn)(void *arg, uint64_t fileid, struct bytes body);
	/* As index_stat(), of one that is known; the op is to be finished. */
	int (*find)(void *arg, uint64_t fileid, struct index_op *ret);
	bool (*is_waited)(void *arg); /* does somebody wait for room? */
	void *arg;
};
int tier_begin(struct tier *t, struct engine *e, char **ret_why);
void tier_set_calls(struct tier *t, const struct tier_calls *c); /* before the first demotion */
/* From now on, until the tier is freed, a disk that has not answered anything for end_ms (10 s) is left
 * as it is, and so is all else: a line in the log, and _exit(1). What has been lent to it cannot be
 * taken back, and the next start is one after a kill -9. */
void tier_ending(struct tier *t);
/* Nobody demotes any more: what is out comes to its end, who waits for something has -ESHUTDOWN. */
void tier_stop(struct tier *t);
/* Nothing is under way in the index, which is open still: what is to be known of it is written. */
void tier_end(struct tier *t);
/* Nobody observes the index any more. All four: NULL is fine. */
void tier_free(struct tier *t);

/* Demoting, by "evict" ----------------------------------------------------------------- */

enum {
	TIER_MAX = 256,/* victims at a time */
	TIER_NOT = 1,  /* outcome: it did not go to the disk, for a reason that is counted */
};

struct tier_victim {
	struct policy_object object;
	struct place place; /* of its record */
	int outcome; /* 0: it is on the disk; TIER_NOT; negative: it cannot go now */
	bool lent;   /* TIER_NOT: the disk has its slices still, each of them pinned once */
};

/* How many pages are to be taken at a time; 0: none now, the disk is slow, full or failing. Where it is
 * full what is oldest leaves it first, for a part of the time that somebody may wait. */
uint64_t tier_budget(struct tier *t, bool waited);
/* So many were evicted for it was 0. */
void tier_passed(struct tier *t, unsigned n);
/* Now and then, also when nothing is to go. */
void tier_tend(struct tier *t);
/* Of what is there as a copy nothing has to be written: it goes whatever the disk does. `record`: as
 * index_stat() has said. 0; else it has no copy, or is not so any more. */
int tier_go_back(struct tier *t, const struct index_op *record);
/* since_ns: somebody waits since then, so it ends soon, whatever the disk does; 0: nobody does, and
 * it ends in some seconds. */
void tier_demote(struct tier *t, struct tier_victim *v, unsigned n, uint64_t since_ns);

/* Coming back ------------------------------------------------------------------------------ */

/* done(c, 0): the object is in the pool by now, or has never been away, and with `writes` it is not
 * copied, most likely; look again. -EIO: what the disk has does not match its sums, or cannot be
 * read, and it is going to be evicted; or the index cannot take it. -EROFS: with `writes`, the
 * journal has failed, and its files would bring back after a reboot what it is now. -ENOSPC,
 * -ENOMEM, -ESHUTDOWN; -ETIMEDOUT, -ECANCELED of what c is a part of. */
void tier_recall(struct tier *t, uint64_t fileid, struct place place, bool writes,
		 struct node_call *c);

/* done(c, 0): what was committed before this call is known on the disk, or nothing is that could
 * bring back what was before. -EIO: neither; others as tier_recall(). */
void tier_sync(struct tier *t, struct node_call *c);

/* Reading it where it is: a scrub's thread -------------------------------------------------- */

struct tier_look;

/* Before tier_stop(), and ended before it. -ENOMEM, ... */
int tier_look_new(struct tier *t, struct tier_look **ret);
/* Reads and compares pages of x, whose pool is the disk's, from its page `at` on, where a block
 * begins: how many. -ESTALE: they are not there (any more); -EIO: they cannot be read;
 * -EUCLEAN: they do not match their sums. It waits for as long as the disk takes. */
int tier_look(struct tier_look *l, const struct extent *x, uint32_t at);
struct tier_look *tier_look_free(struct tier_look *l); /* NULL is fine, and returned */

/* ------------------------------------------------------------------------------------------- */

/* For who observes rows: references to its extents, see refs.h. */
struct tier_log *tier_log_of(struct tier *t);

struct tier_space {
	uint64_t total_bytes, live_bytes;
};
void tier_space(struct tier *t, struct tier_space *ret); /* and sets the gauges */
/* All x_check()s. Lines to report; violations. */
int tier_check(struct tier *t, struct writer *report);
