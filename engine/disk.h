/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A file on a disk, read and written past the page cache (O_DIRECT), several requests at a
 * time. `disk.c` is its one implementation, by io_uring; `disk_fault.c` wraps another and
 * is late, fails, tears and flips.
 *
 * Threads: one at a time, its owner's. Several disks may be opened on one descriptor.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct disk;

struct disk_req {
	bool write;
	uint64_t off;            /* as addresses and lengths below, a multiple of 4096 */
	uint64_t bytes;
	const struct iovec *iov; /* lent until the request is reaped (I9) */
	unsigned niov;
	int result;              /* 0: all bytes; or negative */

	struct disk_req *next;   /* the disk's, as the rest */
	uint64_t due_ns;
};

struct disk_ops {
	int (*submit)(struct disk *d, struct disk_req *r);
	int (*reap)(struct disk *d, uint64_t deadline_ns, struct disk_req **ret);
	int (*sync)(struct disk *d);
	void (*close)(struct disk *d);
};

struct disk { /* disks embed this as their first member */
	const struct disk_ops *ops;
	unsigned depth, out; /* requests that it takes, and has */
};

/* fd is lent, opened with O_DIRECT. -ENOSYS, -EPERM: this kernel has no io_uring, or none for us. */
int disk_open(int fd, unsigned depth, struct disk **ret);

/* What goes wrong; tests set it at any time. Counts are of requests from then on. */
enum { DISK_READS = 1, DISK_WRITES };
enum disk_fault { DISK_EIO, DISK_ENOSPC, DISK_TEAR, DISK_FLIP, DISK_FAULTS };

struct disk_faults {
	_Atomic int only;         /* DISK_*: fail and flip those; 0: both */
	_Atomic uint64_t fail_in; /* the n-th ends with `error`; 0: none does */
	_Atomic int error;        /* -EIO, -ENOSPC, ... */
	_Atomic uint32_t delay_ms;/* each ends so late, */
	_Atomic uint32_t apart_ms;/* and so long after the one before it */
	_Atomic uint64_t tear_in; /* of the n-th write only the first half is done, and nothing said */
	_Atomic uint64_t flip_in; /* the n-th request's first bit is another one, on disk or as read */
	_Atomic uint32_t often[DISK_FAULTS]; /* beside it: so many of a million (ENOSPC: writes) */
	_Atomic uint64_t count;   /* requests so far */
	_Atomic int journal_error;/* what is written to the journal ends with it; 0: it does not */
	_Atomic uint64_t journal_full_in; /* and its n-th write, and all after it, with ENOSPC */
	_Atomic uint32_t journal_ms; /* a sync of the journal takes so much longer, */
	_Atomic uint32_t sync_ms; /* and one of rows, for each MiB of them */
	_Atomic bool journal_stays; /* nor can its files be removed: EROFS */
	_Atomic uint64_t stays_in; /* nor its n-th file, and all after it */
};

/* Takes `inner` over. *f is lent. */
int disk_fault_open(struct disk *inner, struct disk_faults *f, struct disk **ret);

/* The error that a write to the journal ends with now; 0: none. NULL is fine. */
int disk_fault_of_journal(struct disk_faults *f);
/* The same of the removal of one of its files. */
int disk_fault_of_removal(struct disk_faults *f);
/* So many bytes of rows were synced, or, with 0, the journal was. */
void disk_fault_sync(struct disk_faults *f, uint64_t bytes);

/* "delay=20ms,eio=0.01,only=reads": a list of `delay=TIME`, `eio=`, `enospc=`, `tear=` and `flip=`
 * with the share of requests (0 to 1), `only=reads|writes|both` for eio and flip, and
 * `journal=N` for journal_full_in, `stays=yes|no` for journal_stays. -EINVAL: the sentence says what
 * is wrong. */
int disk_faults_parse(const char *list, struct disk_faults *ret, char **ret_why);
/* Those that SLICEFS_DISK_FAULTS lists, of all disks of the process; NULL: none, or not a test
 * build. -EINVAL: as above. */
int disk_faults_env(struct disk_faults **ret, char **ret_why);

/* The caller sees to it that no more than `depth` are out. Negative: it is not. */
int disk_submit(struct disk *d, struct disk_req *r);
/* Waits for one that has ended. -ETIMEDOUT: none has by then (clock_ns(); 0: waits for ever);
 * -ENOENT: none is out. */
int disk_reap(struct disk *d, uint64_t deadline_ns, struct disk_req **ret);
/* What was reaped before is on the disk, whatever happens. Blocks. */
int disk_sync(struct disk *d);
struct disk *disk_close(struct disk *d); /* nothing is out; NULL is fine, and returned */
