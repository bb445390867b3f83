/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The engine: objects that are open here (`struct file`), their bytes in slices
 * of the pool, and the moving of those bytes. This is engine/'s public header;
 * it knows neither FUSE nor command lines.
 *
 * Every call on a file is asynchronous: op->done() is called exactly once,
 * possibly before the call returns, from any thread, with no lock held.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "index/index.h"

struct disk_faults;
struct engine;
struct file;
struct pool;

/* How bytes go between a mount and another host's node. NONE: not at all, for who asks for
 * names only. */
enum engine_bytes_by { ENGINE_AUTO, ENGINE_RDMA, ENGINE_TCP, ENGINE_NONE };

struct engine_rdma {
	enum engine_bytes_by by; /* AUTO: RDMA where both have it, TCP otherwise */
	const char *device;      /* "mlx5_0", "mlx5_0:1"; NULL: any */
	bool gid_given;
	int gid_index;
};

/* A store: the folder that pool and index of one directory live in ---------- */

enum store_state { STORE_NONE, STORE_STOPPED, STORE_RUNNING, STORE_DAMAGED };

struct engine_opts {
	const char *dir;       /* the store's folder; made if missing */
	uint64_t pool_bytes;   /* 0: as it was, or a quarter of the memory */
	uint64_t index_bytes;  /* 0: as it was, or an eighth of the pool, 64 MiB
				  at least */
	bool huge;             /* mount a tmpfs huge=always over dir (root) */
	bool fresh;            /* move what is there aside and start anew */
	bool read_only;        /* for fsck: changes nothing, makes nothing */
	bool repair;           /* for fsck: makes nothing, opens what a mount
				  refuses; engine_check() then drops it */
	bool in_memory;        /* tests: kv_mem and an anonymous pool; no dir */

	/* Another host's store instead of one's own: its node's "host" or "host:port".
	 * Then dir, sizes, huge, fresh and repair mean nothing. */
	const char *node;
	const char *token_file; /* or NULL: no token */
	const char *name;       /* of this mount, for the node's log; or NULL */
	uint32_t timeout_ms;    /* for the node to let us in; 0: 10 s */
	struct engine_rdma rdma;
	bool only_reads;        /* the node is to refuse changes */

	/* Percent of the pool, and of the index, from which and down to which objects are
	 * evicted; high 0: never, so that only what has an end, a quota and the user let go. */
	unsigned evict_high, evict_low;
	uint32_t temp_s; /* after its last use a temporary file (by its name) is
			    evicted as well; 0: not */
	uint64_t evict_dirs_ms; /* and a directory so long after that left it empty; 0: not */

	/* The disk below the pool, or NULL; then evict_high is 95 where it is 0. The size may be
	 * 0 of one that is there; the wait is that for it by who needs room, 0: 40 ms. */
	const char *ssd;
	uint64_t ssd_bytes;
	uint32_t ssd_wait_ms;
	uint32_t ssd_end_ms; /* that the end waits for a disk that does not answer; 0: 10 s */
	struct disk_faults *ssd_faults; /* tests */

	bool verify;           /* check checksums on every read */
	uint64_t fault_seed;   /* tests: transport_fault around the transport */
	/* tests: wraps the index engine as it is opened, or NULL */
	int (*wrap_kv)(struct kv *inner, struct kv **ret);
	/* tests: works in this index and this pool, which are another engine's or
	 * the test's and stay open, as the session of this number. An engine on
	 * another one's index sees a change of it as a mount elsewhere would. */
	struct kv *lent_kv;
	struct pool *lent_pool;
	uint64_t session;
};

/*
 * Opens or makes the store in opts->dir, maps and prefaults the pool, rebuilds
 * the slice table from the index (I2). Takes the store's lock. On failure
 * *ret_why (if not NULL) is a sentence for the user, to be freed: what, on
 * what, why, what to try. Blocks.
 * -EBUSY (mounted already), -ENOMEM (pool larger than what is available),
 * -ENOSPC, -EUCLEAN (damaged: refused and kept), -EPROTONOSUPPORT (newer),
 * -EINVAL (sizes that do not fit what is there), -EACCES, -EEXIST (fresh, and
 * something is kept aside already), -ENOENT (read_only, repair: no store; node: no
 * such host), -ECONNREFUSED and its like, -ETIMEDOUT, -EKEYREJECTED (the node has
 * another token), -EPROTO.
 *
 * With another host's node the engine outlives its sessions there: it connects again
 * by itself. What was written and not published when a session ended is lost, and
 * those files fail with EIO; all others go on (docs/semantics.md, P5).
 */
int engine_open(const struct engine_opts *opts, struct engine **ret,
		char **ret_why);

/* Of another host's store: no session follows the one that is there, and what waits for one
 * fails (-ENOTCONN). For who is about to close all files, before he waits for what has to be
 * brought to an end, however long the node is away. */
void engine_last_session(struct engine *e);

/* All files must be closed, all ops done. Ends the session: drops session keys;
 * pool and index stay for the next mount. NULL is fine. */
void engine_close(struct engine *e);

/* "host:port" of what a user calls a node: "host", "host:", "host:port". -EINVAL. */
int engine_node_name(const char *node, char *ret, size_t len);
/* Is there a host of this name? Blocks while it asks. */
bool engine_node_resolves(const char *name);

struct index *engine_index(struct engine *e);
struct pool *engine_pool(struct engine *e); /* for opts.lent_pool */
/* Nobody but this engine changes its index: no mount of a node's store, nor the node. */
bool engine_is_alone(const struct engine *e);

/* Is its store another host's? Then others may change it, and it may not answer. */
bool engine_is_remote(const struct engine *e);

struct engine_space {
	uint64_t total_bytes, free_bytes; /* of the pool */
	uint64_t evictable_bytes;         /* of what is not free, about; nobody has it open */
	uint64_t evictable_objects;       /* about */
	uint64_t index_size_bytes, index_used_bytes;
	uint64_t pool_id;
	uint64_t evict_dirs_ms; /* as of struct engine_opts */
	uint64_t disk_bytes, disk_used_bytes; /* 0: there is none */
};

void engine_space(struct engine *e, struct engine_space *ret); /* local, cheap */

/* How often a mount says which directories are in use, where unused ones go after evict_dirs_ms
 * (0: never). */
unsigned engine_dirs_tell_ms(uint64_t evict_dirs_ms);

/* Appends all counters of this process (metrics_print()), those up to date that are the
 * engine's to tell. Local. */
void engine_print_stats(struct engine *e, struct writer *w);

/*
 * Who has to do with what is evicted. All are called by a thread that others wait for, and
 * return soon; none where nothing is evicted, as by an engine on another host's node.
 */
struct eviction {
	/* An object has gone (index_evict()), and so have these names. */
	void (*evicted)(void *arg, const struct gone *g, const struct entry *names, uint32_t n);
	/* Room is wanted, and an object is about to go: can it be had without? */
	bool (*spare)(void *arg);
	/* Directories are about to go: who uses some is to say so in the index, by the time of
	 * reading. Some of that, from the beginning or from where it was; true: that was all. */
	bool (*look)(void *arg, bool begin);
	void *arg;
};
/* (Also of what a scrub evicts.) *v is copied. NULL: nobody; no call is under way when that
 * returns. */
void engine_watch_eviction(struct engine *e, const struct eviction *v);

/*
 * What is asked of where the eviction is, here or at the node. done(): once, possibly before the
 * call returns, from any thread, with no lock held; the ask is lent until then. -EOPNOTSUPP:
 * there is none.
 */
struct engine_ask {
	uint64_t fileid;
	struct place place;
	struct kv_call call;
	void (*done)(struct engine_ask *a, int r);
	void *arg;

	/* Came of it: of engine_about(). */
	uint64_t hits;   /* since the eviction knows of it */
	int64_t expires; /* when it ends, if it is not used; seconds since the epoch; 0: never */
	uint64_t used;   /* bytes of the pool below a directory that has a quota */

	struct writer text; /* of engine_node_stats(), for writer_fini() */
};

void engine_about(struct engine *e, struct engine_ask *a);
/* It goes, now, though somebody has it open (P4). INDEX_MISS: it is not there, or not so; -EBUSY:
 * somebody writes it; -EPERM: it is pinned. */
void engine_evict(struct engine *e, struct engine_ask *a);

/* What was done to names before this is so after a power loss as well: of an own store with a disk,
 * where nothing else outlives one. Of a node's store it is done at once. -EIO, -ETIMEDOUT, ... */
void engine_sync_names(struct engine *e, struct engine_ask *a);

/* The same as engine_print_stats() of another host's node, of which it asks: lines of printable
 * ASCII. -EOPNOTSUPP: the store is our own, or the node does not know the question; -ETIMEDOUT. */
void engine_node_stats(struct engine *e, struct engine_ask *a);

/* Frees what an object that is gone consisted of, in the background if need be
 * (gauge `drops`): its blocks and the note of it in the index are deleted, and its
 * slices go with them (pinned ones go on as DYING). Copies what it needs of g. */
void engine_drop(struct engine *e, const struct gone *g);

/* Appends a table of all slices that are not FREE: state, generation, pages,
 * references, pins, and which open file holds them since when. */
void engine_print_slices(struct engine *e, struct writer *w);

/* (Of another host's node: nothing; it looks after its own.)
 * All x_check()s: slice table against pool, index against itself, index against
 * slice table; a line each to report. The number of violations, or negative.
 * Without repair it may run on a live engine. With repair (opts->repair, else
 * -EINVAL) it drops the objects that it reports. On an engine that was opened
 * read_only or to repair, bytes are compared with their checksums, too. */
int engine_check(struct engine *e, bool repair, struct writer *report,
		 unsigned *ret_repaired);

/* Scrubbing: all that is published is compared with its checksums --------------- */

struct scrub;

struct scrub_opts {
	uint64_t rate;  /* bytes a second; 0: as fast as it goes */
	bool evict_bad; /* what is bad is evicted, so that who needs it makes it anew */
};

enum scrub_reason { SCRUB_BYTES = 1, SCRUB_BLOCKS, SCRUB_RECORD, SCRUB_NO_SLICE, SCRUB_UNREAD };
const char *scrub_reason_text(enum scrub_reason reason); /* "its bytes do not match ..." */

struct scrub_bad {
	uint64_t fileid;
	enum scrub_reason reason;
	bool evicted;
	struct bytes path; /* from the root, as it was called then; of several names one */
};

struct scrub_report {
	bool ended;
	int result;         /* ended: 0, -ECANCELED (scrub_end()), or why it could not go on */
	uint64_t objects, bytes;
	uint64_t total;     /* bytes that there are, about */
	uint64_t bad_objects, evicted;
	uint64_t changed;   /* objects that were changed under it, and passed over */
	uint64_t elsewhere; /* extents of other pools, the same */
	uint32_t nbad;      /* found since the last report; some, if there are many */
	struct scrub_bad *bad;
};
void scrub_report_fini(struct scrub_report *r);

/* Begins one in the background. -EBUSY: another one is under way; -EOPNOTSUPP: pool and index
 * are another host's; -EROFS. Not blocking, as all of these. */
int engine_scrub(struct engine *e, const struct scrub_opts *o, struct scrub **ret);
/* Appends a report for scrub_read(): how far it is, and what is bad since the last one: 64 KiB
 * at most. */
void scrub_write(struct scrub *s, struct writer *w);
/* Takes one apart, which may be anything: paths point into it. -EPROTO, -ENOMEM. */
int scrub_read(struct bytes report, struct scrub_report *ret);
/* Stops it if it has not ended, and gives it back. NULL is fine. */
void scrub_end(struct scrub *s);

/* The same at another host's node, in our session, with which it ends: at most one. Blocks, no
 * longer than until the deadline. -EBUSY, -EROFS, -EOPNOTSUPP (the node does not know it), or
 * what became of the call. */
enum scrub_call { SCRUB_BEGIN, SCRUB_LOOK };
int engine_scrub_there(struct engine *e, enum scrub_call call, const struct scrub_opts *o,
		       uint64_t deadline_ns, struct writer *ret_report);

/* A node: this engine's pool and index, served to mounts elsewhere ------------- */

struct serve_opts {
	const char *listen;     /* "host:port"; NULL: loopback and the usual port */
	const char *token_file; /* NULL: no token; then loopback only */
	bool insecure;          /* beyond loopback without a token: it was told to */
	/* 0: what is usual */
	uint32_t keep_alive_ms, max_sessions, threads;
	struct engine_rdma rdma;
};

/* Would they do? Looks at the token and the address, and is of use before there is an
 * engine. Errors as engine_serve(). */
int engine_serve_check(const struct serve_opts *o, char **ret_why);

/* Listens when it returns, and serves until engine_serve_end() or engine_close().
 * Once. -EPERM (beyond loopback without a token, or a token that others can read),
 * -EINVAL, -ENOENT, -EADDRINUSE, -EACCES: with a sentence. */
int engine_serve(struct engine *e, const struct serve_opts *o, char **ret_why);
uint16_t engine_serve_port(const struct engine *e);
/* "1.2.3.4:5", where it listens, for which ret has 64 bytes. */
void engine_serve_address(const struct engine *e, char *ret);

/* Lets nobody in any more, waits up to `ms` until those who are there have nothing
 * under way, ends their sessions, and returns when all that they held was given
 * back. */
void engine_serve_end(struct engine *e, uint32_t ms);

/* What is known of a store without opening it; for `slicefs store ls`. */
struct store_stat {
	enum store_state state;
	uint64_t pool_bytes, index_bytes;
	pid_t pid; /* of the daemon, if it runs */
	bool ends; /* it has been killed, and is not gone yet: who opens the store waits for that */
	char serves[64]; /* host:port that it serves it at, or "" */
};
int engine_store_stat(const char *dir, struct store_stat *ret);
/* The same when who ends is gone, and with him what else he had, as a port. Blocks, for as long
 * as who opens the store would. */
int engine_store_await(const char *dir, struct store_stat *ret);
/* Gives its memory back; with `disk`, what it has on one, too. -EBUSY if it runs, -ENOENT. */
int engine_store_remove(const char *dir, bool disk);

/* Files ---------------------------------------------------------------------- */

struct file_op {
	struct file *file; /* the caller holds it until done() */
	struct file *to;   /* file_copy(): the destination */
	struct file *known;/* file_open(): what the caller has of the object, or NULL */
	uint64_t off, off2, len;
	const void *buf;   /* file_write(): lent until done() (I10) */
	int mode;          /* FALLOC_FL_*, SEEK_DATA, SEEK_HOLE */
	struct kv_call call;
	/* r: bytes (read, write, copy), an offset (seek), 0, or negative errno */
	void (*done)(struct file_op *op, int64_t r);
	void *arg;

	/* file_publish(), file_close(), or NULL: is asked, without a lock, before an
	 * object is dropped that a draft's name replaced when it was published.
	 * True: the caller drops it, later. */
	bool (*replaced)(struct file_op *op, const struct gone *g);

	/* file_read(): where the bytes are. They stay there, and their slices
	 * pinned, until file_read_end(). */
	struct iovec *iov;
	unsigned niov;

	void *priv[8]; /* the engine's */
};

enum {
	FILE_WRITE = 1 << 0,    /* opens for writing (index_writer()) */
	FILE_TRUNCATE = 1 << 1, /* and makes it empty; with FILE_WRITE only */
	FILE_HERE = 1 << 2,     /* -ESTALE also if its record is elsewhere by now */
	FILE_KNOWN = 1 << 3,    /* op->known, whatever others have published since */
	FILE_DISCARD = 1 << 4,  /* file_close(), with FILE_WRITE: see there */
};

/*
 * Opens the published object (fileid, place): reads its record, pins its slices
 * (I4), then op->done(op, 0) with op->file set, a reference for the caller. An
 * object that is open already is shared: all handles see one draft (P3).
 * flags: FILE_*. -ESTALE: there is no such object there any more. -EIO.
 *
 * Where others change the index (engine_is_alone() is false), what is open is shared
 * only if it has grown from what is published now; else it stays as it is for who has
 * it (P4), and op->file is another one (P2): at some moment of this call its version
 * was the published one. What has no record any more is op->known, but for FILE_HERE.
 */
void file_open(struct engine *e, uint64_t fileid, struct place place,
	       unsigned flags, struct file_op *op);

/*
 * The same of an object that is open nowhere and has lost its last name, as g (of
 * which it copies what it needs) tells: for who looked it up before. What it
 * consisted of must not have been given to engine_drop() when this is called; if
 * it is meanwhile, -ESTALE.
 */
void file_open_gone(struct engine *e, const struct gone *g, unsigned flags,
		    struct file_op *op);

/* A draft with these attributes (from index_draft()), open for writing. */
int file_create(struct engine *e, const struct attr *a, struct file **ret);

/* The open file of that object with a reference more, or NULL. */
struct file *file_find(struct engine *e, uint64_t fileid);
struct file *file_ref(struct file *f);
/* Gives back a reference from file_ref(); if it is the last one by then, what is to be
 * done goes on by itself. */
void file_unref(struct file *f);

/*
 * Gives back one reference (and one FILE_WRITE, if `flags` says so; drafts have
 * one from birth). The last writer publishes what is not published yet, if it
 * has a name; the last reference unpins and frees. done() follows those; r is
 * what publishing said, logged and counted already. op->file is not the
 * caller's afterwards.
 *
 * With FILE_DISCARD the last writer publishes nothing: what is not published yet is
 * given up, and a draft with its names. Who has it open all the same gets EIO.
 */
void file_close(struct file_op *op, unsigned flags);

/* Attributes as readers on this mount see them: of the draft if there is one.
 * Size, times, pages and version are the file's; of a draft, all of them. */
void file_attr(struct file *f, struct attr *ret);
/* Takes over the attributes named by mask (INDEX_SET_*), and nlink, flags from
 * `a`, after the index said so; with `draft`, changes the draft's own. An nlink of 0
 * stays. */
void file_set_attr(struct file *f, unsigned mask, const struct attr *a);
/* Names of a draft came, went or (0) changed: its ctime moves. One that has none left is given
 * up, or about to be: who says late that one went changes nothing. */
void file_add_links(struct file *f, int n);
/* A draft that hid all names of f was given up, and they show again. What was opened
 * meanwhile becomes a writer for the index when it is published. */
void file_shown_again(struct file *f, uint32_t nlink);
bool file_is_draft(struct file *f);         /* never published */
/* Where the record went when it was last published here, or where file_open()
 * found it; PLACE_DRAFT for a draft. fs/ needs it once, when a draft becomes an
 * object; later moves it knows by itself. */
void file_place(struct file *f, struct place *ret);
bool file_is_dirty(struct file *f);
bool file_is_lost(struct file *f);          /* its session was: all calls fail */

/* off, len -> iov, niov (holes are zeros); r = bytes, 0 at or past the end.
 * Bytes that fail their checksum: -EIO (P9). */
void file_read(struct file_op *op);
/* After done(r >= 0), exactly once. Needs op only, not op->file: whoever got the
 * bytes may close it meanwhile. */
void file_read_end(struct file_op *op);

/* off, buf, len: all of it, or an error and nothing. -ENOSPC, -EFBIG. */
void file_write(struct file_op *op);
/* off: the new size. Grown bytes read as zero. */
void file_truncate(struct file_op *op);
/* mode, off, len: as fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE,
 * ZERO_RANGE. -EOPNOTSUPP. */
void file_fallocate(struct file_op *op);
/* off, mode: SEEK_DATA or SEEK_HOLE -> r. -ENXIO. */
void file_seek(struct file_op *op);
/* file, off -> to, off2, len: shares whole pages, copies the rest. */
void file_copy(struct file_op *op);

/*
 * Publishes everything written so far as one version (I5): seals, writes new
 * extent blocks, then one index transaction. 0 also if there is nothing to
 * publish, or no name left. A draft to which nothing has been written is
 * published only with `off` != 0 (fsync, last release), not by a FLUSH. With `len` != 0
 * (release) a new version is not published while others have it open for writing: they will. After
 * an error the draft is as before and may be published again.
 */
void file_publish(struct file_op *op);

/* "Has this version a backing descriptor?" For FUSE passthrough: -1: none. */
int file_backing_fd(struct file *f);
