/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the engines of engines.c have in common.
 *
 * Calls: each goes through CALL(), which times it, and ends the test if it took longer than
 * the deadline or said anything but ENOENT (and what the engine itself takes for an answer:
 * the third argument). The parent sees one that does not come back at all.
 *
 * Listings: what its only writer had stored before one began, and can open after it, was in
 * it, once.
 *
 * Payloads: a file says in its first 28 bytes which key it belongs to, which version it is
 * and how long, and carries a checksum of all that follows. All that is read is checked
 * from the first byte to the last: a part of a file, another file's bytes, zeros, two
 * versions mixed, none passes.
 *
 * Versions: one counter for all. A key that has one owner is stored by no other process, so
 * once a version was published nobody who opens it later sees an older one (P2).
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/random.h"

enum { PROCS = 4, KEYS = 40000, BYTES_MAX = 4 << 20, PATH_BYTES = 512 };

#define CALLS(X)                                                                                  \
	X(access) X(stat) X(fstat) X(statvfs) X(mkdir) X(rmdir) X(open) X(opendir) X(readdir)     \
	X(closedir) X(ioctl) X(lseek) X(dup) X(read) X(readv) X(write) X(close) X(rename)         \
	X(linkat) X(unlink) X(utimensat) X(mmap) X(fault) X(munmap)

enum call {
#define X(name) C_##name,
	CALLS(X)
#undef X
	NCALLS
};

static const char *const call_names[] = {
#define X(name) #name,
	CALLS(X)
#undef X
};

/* Shared by all processes. */
static struct shared {
	_Atomic uint64_t written;              /* bytes */
	_Atomic uint32_t version;
	_Atomic uint32_t published[KEYS];      /* the newest version; 0: none yet */
	_Atomic bool there[KEYS];              /* stored, and neither missed nor removed since */
	_Atomic uint64_t stored, hits, misses;
	_Atomic uint64_t forgotten;            /* misses of what had been stored */
	_Atomic uint64_t lost;                 /* forgotten between close and rename, */
	_Atomic uint64_t lost_tmp;             /* of these: with a name like *.tmp */
	_Atomic uint64_t outlived;             /* mappings whose name had gone, or another file's */
	_Atomic uint64_t deleted;              /* by the engine's own evictor */
	_Atomic uint64_t listed;
	_Atomic uint64_t expected;             /* names that a listing had to have */
	_Atomic bool ended, failed;

	_Atomic uint64_t count[NCALLS], longest_ns[NCALLS];
	struct {
		_Atomic int pid;
		_Atomic uint64_t since_ns;     /* 0: in no call */
		_Atomic int call;
		char path[PATH_BYTES];
	} now[PROCS + 1];
} *S;

/* This process. */
static unsigned me;
static const char *dir;                        /* the mount it uses */
static uint64_t deadline_ns, dice;
static char *bytes;                            /* BYTES_MAX, aligned */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static unsigned pick(unsigned n)
{
	return (unsigned)(random_next(&dice) % n);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	va_list args;

	S->failed = true;
	flockfile(stderr);
	fprintf(stderr, "engines: process %u: ", me);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	funlockfile(stderr);
	_exit(1);
}

/* Calls ----------------------------------------------------------------------------- */

static void call_begin(enum call c, const char *path)
{
	snprintf(S->now[me].path, PATH_BYTES, "%s", path);
	S->now[me].call = (int)c;
	S->now[me].since_ns = now_ns();
	errno = 0;
}

/* Whether what a call returned says that errno does. readdir() returns NULL at the end, too. */
static bool has_failed(enum call c, long r, int e)
{
	return r == -1 || (!r && e && (c == C_opendir || c == C_readdir));
}

/* `fine`: one error more that is an answer; 0: none. */
static void call_end(long r, int fine)
{
	int e = errno;
	enum call c = (enum call)S->now[me].call;
	uint64_t took = now_ns() - S->now[me].since_ns, longest = S->longest_ns[c];

	S->now[me].since_ns = 0;
	S->count[c]++;
	while (took > longest && !atomic_compare_exchange_weak(&S->longest_ns[c], &longest, took))
		;
	if (took > deadline_ns)
		fail("%s %s took %.1f s", call_names[c], S->now[me].path, (double)took / 1e9);
	if (has_failed(c, r, e) && e != ENOENT && e != fine)
		fail("%s %s: %s", call_names[c], S->now[me].path, strerror(e));
	errno = e;
}

#define CALL(name, path, fine, expr)                                                              \
	({                                                                                        \
		call_begin(C_##name, path);                                                       \
		__typeof__(expr) call_r = (expr);                                                 \
		call_end((long)call_r, fine);                                                     \
		call_r;                                                                           \
	})

/* Where the file is, a failure is none that one can go on after. */
static void must(bool ok, const char *path, const char *what)
{
	if (!ok)
		fail("%s: %s: %s", path, what, strerror(errno));
}

/* Payloads -------------------------------------------------------------------------- */

struct __attribute__((packed)) head {
	uint64_t sum;     /* of all that follows */
	uint64_t key;
	uint32_t version;
	uint32_t length;  /* with this head */
	uint32_t magic;
};

enum { MAGIC = 0x53454e47 };

/* The length of LMCache's. */
_Static_assert(sizeof(struct head) == 28, "head of a payload");

static uint32_t fill(char *p, unsigned key, uint32_t length)
{
	struct head h = { .key = key, .version = ++S->version, .length = length, .magic = MAGIC };
	uint64_t state = random_mix((uint64_t)key << 32 | h.version);

	for (uint32_t at = sizeof(h); at < length; at += 8) {
		uint64_t v = random_next(&state);
		memcpy(p + at, &v, length - at < 8 ? length - at : 8);
	}
	memcpy(p, &h, sizeof(h));
	h.sum = XXH3_64bits(p + 8, length - 8);
	memcpy(p, &h, sizeof(h));
	return h.version;
}

/* n bytes that were read of key's file, all that there is of it; `least`: no version before
 * that one. The version. */
static uint32_t check(const char *p, size_t n, unsigned key, uint32_t least, const char *path)
{
	struct head h;

	if (n < sizeof(h))
		fail("%s: %zu bytes, no head", path, n);
	memcpy(&h, p, sizeof(h));
	if (h.magic != MAGIC || h.key != key || h.length != n)
		fail("%s: %zu bytes of key %llu, version %u of %u bytes, magic %x", path, n,
		     (unsigned long long)h.key, h.version, h.length, h.magic);
	if (XXH3_64bits(p + 8, n - 8) != h.sum)
		fail("%s: version %u is torn: its checksum is wrong", path, h.version);
	if (h.version < least)
		fail("%s: version %u, but %u had been published", path, h.version, least);
	return h.version;
}

/* What is known of a key ------------------------------------------------------------- */

/* Every second key is stored by whoever misses it, as by instances that compute the same
 * block; the others by one process. */
static bool is_owned(unsigned key)
{
	return key & 1;
}

static bool may_store(unsigned key)
{
	return !is_owned(key) || key / 2 % PROCS == me;
}

/* To be read before a file is opened. */
static uint32_t least_of(unsigned key)
{
	return is_owned(key) ? S->published[key] : 0;
}

static void stored(unsigned key, uint32_t version, uint32_t length)
{
	S->published[key] = version;
	S->there[key] = true;
	S->written += length;
	S->stored++;
}

static bool missed(unsigned key)
{
	S->misses++;
	if (atomic_exchange(&S->there[key], false))
		S->forgotten++;
	return false;
}
