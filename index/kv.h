/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An index engine: an ordered map from bytes to bytes with one conditional
 * mini-transaction. Everything that the index stores goes through submit();
 * dir.c, object.c and their like are written in terms of it, and lmdb.c, mem.c
 * (later: etcd.c, engine/index_remote.c) implement it. One conformance suite
 * (tests/unit/test_kv.c) holds for all of them.
 *
 * Durable and session keys. A key whose first byte is a lower-case letter
 * belongs to a session, whose number (never used twice while the engine is open)
 * is its last 8 bytes, big-endian: so the owner of a key is in the key, whoever
 * wrote it. session_end() deletes all keys of one session at one moment. All end
 * with the engine: `lmdb` and `mem` keep them in memory. Transactions over both
 * kinds are atomic all the same; one that writes session keys only costs no commit.
 *
 * Atomicity. A request's compares, writes and reads happen at one moment
 * (linearizable). A request larger than caps() is refused with -E2BIG, never
 * split. Each value carries the revision of the transaction that wrote it;
 * revisions of one key only rise, also over deletion and restart.
 *
 * Threads: any. submit() may call done() before it returns, and from any
 * thread afterwards; never with a lock held. done() may submit again.
 * (`fault` with late answers and `remote` answer from one thread: their done()
 * may not wait for another answer.)
 */
#include <endian.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/bytes.h"

enum {
	KV_KEY_MAX = 500,           /* LMDB's 511 less room for an engine's prefix */
	KV_VALUE_MAX = 128 * 1024,
	KV_LOCAL_MAX = 4096,        /* compares, and writes, and reads of one request here */
	KV_LOCAL_BYTES = 4 << 20,   /* and bytes */
};

enum kv_compare_kind {
	KV_ABSENT,      /* there is no `key` */
	KV_PRESENT,     /* there is one */
	KV_REVISION,    /* its revision is `revision`; 0 means absent */
	KV_RANGE_EMPTY, /* nothing in [key, end) */
};

struct kv_compare {
	enum kv_compare_kind kind;
	struct bytes key, end;
	uint64_t revision;
};

struct kv_write {
	struct bytes key;
	struct bytes value; /* p == NULL: delete; deleting nothing is no error */
};

/* to.p == NULL: the one key `from`. Else the first `limit` keys of [from, to). */
struct kv_read {
	struct bytes from, to;
	uint32_t limit;
};

struct kv_row {
	struct bytes key, value;
	uint64_t revision;
};

struct kv_rows {
	struct kv_row *rows; /* in key order */
	uint32_t nrows;
	bool more;           /* the limit ended it, not the range */
};

enum kv_outcome {
	KV_DONE = 0,     /* committed; or, where nothing is written, read */
	KV_CONFLICT = 1, /* a compare did not hold; nothing was written */
	KV_UNKNOWN = 2,  /* sent, and no answer: resolve it by reading */
};

/*
 * A call that may be given up: shared by all requests, batches and calls made on
 * its behalf. They look at it before each step, so nobody has to find them; what
 * was sent already is waited for.
 */
struct kv_call {
	uint64_t deadline_ns;  /* clock_ns(); 0: none */
	atomic_bool cancelled; /* set by whoever gives up; -ECANCELED follows */
	const struct kv_call *of; /* or NULL: it is a part of that one, which lives
				     longer, and is cancelled with it */
};

/* For what is done on behalf of `of`. */
static inline struct kv_call kv_call_of(const struct kv_call *of)
{
	return (struct kv_call){ .deadline_ns = of->deadline_ns, .of = of };
}

static inline bool kv_call_is_cancelled(const struct kv_call *call)
{
	for (; call; call = call->of)
		if (atomic_load(&call->cancelled))
			return true;
	return false;
}

struct kv_req {
	/* Asked. All bytes are borrowed until done(). */
	const struct kv_compare *compares;
	const struct kv_write *writes;
	const struct kv_read *reads;
	uint32_t ncompares, nwrites, nreads;
	bool reserve;         /* may use the space kept back for deleting */
	bool needs_room;      /* what it writes brings more later: -ENOSPC while stat()
				 says `full` */
	struct kv_call *call; /* or NULL: no deadline */
	uint64_t session;     /* whose it is, who is not rung for it; 0: nobody's */
	size_t max_memory;    /* of rows and their bytes; more is -ENOMEM. 0: any */

	/* Came of it. The reads are done if nothing is to be written, or if a
	 * compare failed; rows[i] belongs to reads[i] and lives until
	 * kv_req_fini(). With writes and KV_DONE, `revision` is theirs. */
	struct kv_rows *rows;
	uint64_t revision;

	/* outcome: enum kv_outcome, or negative: -ENOSPC (map full; nothing was
	 * written), -E2BIG, -ETIMEDOUT and -ECANCELED (nothing was sent),
	 * -EUCLEAN (corrupt store), -EIO, -ENOTCONN (its node is gone; nothing
	 * was sent, or nothing was to be written). */
	void (*done)(struct kv_req *req, int outcome);

	/* The engine's. */
	struct kv_req *next;
	void *memory; /* rows and their bytes, one chain of blocks */
};

struct kv_caps {
	uint32_t max_compares, max_writes, max_reads; /* in one request */
	uint32_t max_bytes;                           /* of all keys and values */
	bool alone; /* no other process writes: its own memory is the truth */
};

struct kv_stat {
	uint64_t used_bytes, size_bytes, keys; /* durable ones */
	uint64_t room_bytes; /* of size_bytes: without what is kept back for deleting */
	uint64_t session_keys;
	bool full; /* room is left for what may use the reserve only */
};

struct kv;
struct kv_watch;
struct kv_watches;

/*
 * Who looks on while rows of some kinds are written, and has a say in it. write()
 * comes for each such row that a request writes, before the commit and in the order
 * of commits, with its value before and after (p == NULL: none). A negative answer
 * refuses that request alone, with this error: nothing of it is written. end()
 * comes once for all write()s since the last one (or for none, if another observer was
 * told of some): they were committed, and nobody
 * has been told yet; or it is as if they had not been (the request was refused, a
 * commit failed, others of its group failed), and those that count come again.
 * The end of a session deletes its rows; a refusal is of no use then.
 * Several are told in turn, who came first first.
 *
 * Threads: one at a time, whichever commits. An engine's locks may be held, so both
 * take locks above LOCK_INDEX_WATCH only, and return soon.
 */
struct kv_observer {
	const char *kinds; /* first bytes of keys, durable or not */
	int (*write)(void *arg, struct bytes key, struct bytes before, struct bytes after);
	void (*end)(void *arg, bool committed);
	void *arg;
	struct kv_observer *next; /* the engine's */
};

struct kv_ops {
	const char *name;
	void (*submit)(struct kv *kv, struct kv_req *req);
	struct kv_caps (*caps)(struct kv *kv);
	int (*stat)(struct kv *kv, struct kv_stat *ret);
	/* Deletes all keys of this session, and of no other, at one moment; rings
	 * who watches session keys. The session's own requests are done by then,
	 * and it makes no others: what it would still write stays. Blocks a little. */
	int (*session_end)(struct kv *kv, uint64_t session);
	bool observes; /* tells its observers of what it writes */
	/* Durable rows of [from, to), in order, at one moment, until visit() returns something
	 * else than 0, which is returned; their bytes are borrowed, and nothing is
	 * copied. It returns soon (it keeps room from being used again), and asks this engine
	 * for nothing that writes. NULL: who wants to go through them reads them. */
	int (*scan)(struct kv *kv, struct bytes from, struct bytes to,
		    int (*visit)(void *arg, const struct kv_row *row), void *arg);
	/* Keys, rising, between which there was about as much each when it was opened: for who
	 * goes through them by several threads. The engine's own. NULL: it knows none. */
	const struct bytes *(*marks)(struct kv *kv, unsigned *ret_n);
	/* Of an engine around another one: the other one. Else NULL. */
	struct kv *(*inner)(struct kv *kv);
	/* Walks engine-level invariants; appends a line each to `report`.
	 * 0, or the number of violations. */
	int (*check)(struct kv *kv, struct writer *report);
	void (*close)(struct kv *kv);
	/* Of an engine that learns of others' commits by kv_ring_number(), else
	 * NULL: the watch `number` begins (what is committed after this returns
	 * and is seen by a later submit rings), has ended. No lock is held. */
	int (*watch)(struct kv *kv, uint32_t number, struct bytes prefix, uint64_t session);
	void (*unwatch)(struct kv *kv, uint32_t number);
};

/* See kv_make_room(). */
typedef bool kv_full_fn(void *arg, struct kv_req *req);

/* Engines embed this as their first member. */
struct kv {
	const struct kv_ops *ops;
	struct kv_watches *watches; /* kv.c's, under LOCK_INDEX_WATCH; NULL: there are none */
	struct kv_observer *observers; /* by kv_observe() */
	kv_full_fn *full;              /* by kv_make_room(), or NULL */
	void *full_arg;
};

/* Engines --------------------------------------------------------------- */

struct kv_lmdb_opts {
	const char *path;    /* of the LMDB file; its lock file is beside it */
	uint64_t size_bytes; /* of the map, allocated in full before use; on an
				existing larger one: the larger one stays */
	bool create;         /* else -ENOENT if it is not there */
	bool sync;           /* pool outlives a power cut: commits wait for disk */
	bool read_only;      /* for fsck and status on a stopped store */
};

/*
 * Opens the one LMDB environment of this process at opts->path. Group commit
 * has no thread of its own: whoever submits while nobody commits does the
 * commits of all that queue up meanwhile (see lmdb.c).
 * -ENOENT, -EBUSY (open elsewhere), -ENOSPC (no room for the map), -EUCLEAN
 * (not LMDB, or damaged), -EPROTONOSUPPORT (foreign version), -EACCES.
 */
int kv_lmdb_open(const struct kv_lmdb_opts *opts, struct kv **ret);

/* Everything in memory: for tests, and the model the others are compared to. */
int kv_mem_open(struct kv **ret);

/*
 * Wraps any engine: takes it over, and closes it. The n-th submit from now
 * fails as `fault` says (-EIO, -ENOSPC, -ETIMEDOUT: not done; KV_UNKNOWN: done
 * or not, by the seed's choice); 0 ends that. Later completions come from a
 * thread of its own if `async` (delay up to 1 ms, order random).
 */
int kv_fault_open(struct kv *inner, uint64_t seed, bool async, struct kv **ret);
void kv_fault_arm(struct kv *kv, uint64_t nth, int fault);
/* Holds all answers back until told otherwise; `async` only. */
void kv_fault_hold(struct kv *kv, bool hold);
uint64_t kv_fault_count(struct kv *kv); /* submits so far */

/*
 * For tests: another way to an engine that stays its owner's, who closes it last.
 * Who uses it is told that he is not alone (caps()), and has watches of his own.
 */
int kv_lend(struct kv *inner, struct kv **ret);

/* Calls ------------------------------------------------------------------ */

/* Checks req against caps and its own rules (-E2BIG; -EINVAL: a key that is
 * empty or too long, a value without end), counts it as an index call under
 * way, hands it to the engine. A req that is used again was kv_req_fini()d. */
void kv_submit(struct kv *kv, struct kv_req *req);

/* Submits and waits: for start-up, tools and tests. Never on a FUSE worker.
 * It may be called from a done(). req->done is not called. */
int kv_wait(struct kv *kv, struct kv_req *req);

/* Frees the rows, whatever the outcome was. The rest of req is the caller's. */
void kv_req_fini(struct kv_req *req);

/*
 * One observer more of an engine in this process, or of the one that it wraps: before
 * there are other threads, or while no request is under way, as is its end. *o is lent
 * until that, or until the engine is closed. -EOPNOTSUPP: it does not tell.
 */
int kv_observe(struct kv *kv, struct kv_observer *o);
void kv_observe_no_more(struct kv *kv, struct kv_observer *o); /* NULL: nobody any more */

/* For engines: does anybody observe the row? It is about to be written; what becomes of
 * all that was. */
bool kv_is_observed(const struct kv *kv, struct bytes key);
int kv_observe_write(struct kv *kv, struct bytes key, struct bytes before, struct bytes after);
void kv_observe_end(struct kv *kv, bool committed);

/*
 * Who makes room in an engine in this process, or in the one that it wraps: full() is called
 * where a request would end with -ENOSPC. If it returns true the request is the callee's, until
 * kv_submit_again() or, with that outcome after all, kv_end_full(). Set as an observer is, and
 * removed (NULL) when no request is under way.
 */
void kv_make_room(struct kv *kv, kv_full_fn *full, void *arg);
void kv_submit_again(struct kv *kv, struct kv_req *req);
void kv_end_full(struct kv *kv, struct kv_req *req);

/* For engines: the end of a request; calls done(). The engine touches neither
 * req nor, unless it has a hold of its own, itself afterwards. */
void kv_req_done(struct kv *kv, struct kv_req *req, int outcome);

/* The engine whose done() this thread is in, or NULL. Inside kv_wait(): NULL. */
extern _Thread_local struct kv *kv_completing;

/* For engines in this process: caps(). One for all, so that what fits in tests
 * fits in earnest. */
struct kv_caps kv_local_caps(struct kv *kv);

/* For engines: -ECANCELED, -ETIMEDOUT, or 0: nobody has given it up. */
int kv_req_given_up(const struct kv_req *req);

/* For engines: n bytes that live until kv_req_fini(); NULL if out of memory, or
 * of what req may take. */
void *kv_req_alloc(struct kv_req *req, size_t n);

void kv_close(struct kv *kv); /* NULL is fine; all requests must be done, and
				 it is not called from a done() */

static inline bool kv_key_is_session(struct bytes key)
{
	return key.len && *(const uint8_t *)key.p >= 'a' &&
	       *(const uint8_t *)key.p <= 'z';
}

/* Whose key it is. 0, which is no session's number: a durable key's, or one's that
 * is too short to name its owner. */
static inline uint64_t kv_key_session(struct bytes key)
{
	uint64_t be;

	if (!kv_key_is_session(key) || key.len < 1 + sizeof(be))
		return 0;
	memcpy(&be, (const uint8_t *)key.p + key.len - sizeof(be), sizeof(be));
	return be64toh(be);
}

/*
 * A doorbell: `ring` is called after a commit touched a key that begins with
 * `prefix`; it may also ring for nothing, and several commits may ring once.
 * Called from the committing thread, no lock held: return soon.
 */
int kv_watch(struct kv *kv, struct bytes prefix, void (*ring)(void *arg),
	     void *arg, struct kv_watch **ret);
/* The same, but for commits of requests of this session: it knows of those. (Over a
 * wire all requests with a session are the mount's own.) */
int kv_watch_others(struct kv *kv, struct bytes prefix, uint64_t session,
		    void (*ring)(void *arg), void *arg, struct kv_watch **ret);
/* It does not ring, as turned out later: where the engine is over a wire its other end may
 * refuse one. Begun before that was so, it has rung since. */
bool kv_watch_is_dead(const struct kv_watch *w);
/* Over a wire no more of a session's are taken at a time. */
enum { KV_WATCHES_MAX = 2048 };
/* Returns when no ring is under way; none comes afterwards. Not from a ring. */
void kv_unwatch(struct kv *kv, struct kv_watch *w);

/* For engines: req has been committed; rings whom it concerns. */
void kv_ring(struct kv *kv, const struct kv_req *req);
/* The same for one watch, if it is there still. */
void kv_ring_number(struct kv *kv, uint32_t number);
/* The same, and it has not begun: it is dead. */
void kv_watch_refused(struct kv *kv, uint32_t number);
/* For engines that may have missed commits: begins all watches again by ops->watch(),
 * and rings them all. */
void kv_watch_again(struct kv *kv);
/* The same, and no ring may come for a while: rings all. */
void kv_ring_all(struct kv *kv);
/* For engines: a session has ended; rings all that may watch a key of one. */
void kv_ring_session_end(struct kv *kv);
