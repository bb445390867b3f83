/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's memory as a file. The hard idea: after segment_*() returned 0 no
 * access to the mapping can fail any more. A tmpfs that is full, or a file that
 * is cut short, shows while opening, as an error of madvise(2) or fallocate(2),
 * never later as SIGBUS. And a file that bears the segment's name is complete:
 * it is made under another name, its header is written last, then it is renamed.
 *
 * A tmpfs's file of which no page is missing cannot fail so. What is left to do then,
 * an entry in the page tables for each page, takes 0.1 s a GiB and more, and goes on
 * in the background, once its owner has no better use for the processors.
 *
 * On disk (little-endian):
 *
 *	0 ........................ bytes of slices (a multiple of 4 MiB)
 *	bytes + 0   8  magic "slicefsP"
 *	bytes + 8   4  version      one page; the checksum is where it is in
 *	bytes + 12  4  page size    all versions, so that damage is never taken
 *	bytes + 16  8  bytes        for a newer version
 *	bytes + 24  8  pool id
 *	bytes + 32 24  zero
 *	bytes + 56  8  XXH3-64 of the 56 bytes before
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/crew.h"
#include "engine/segment.h"
#include "index/index.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
	HEADER_BYTES = 64,
	SUM_AT = 56,
	MAGIC_BYTES = 8,
	PREFAULT_THREADS = 2,
	MAP_STEP = 8 << 20,
};

static const char magic[] = "slicefsP";

static void header_encode(const struct segment *s, uint8_t to[HEADER_BYTES])
{
	_cleanup_(writer_fini) struct writer w = { 0 };

	write_bytes(&w, magic, MAGIC_BYTES);
	write_u32(&w, SEGMENT_VERSION);
	write_u32(&w, PAGE_BYTES);
	write_u64(&w, s->bytes);
	write_u64(&w, s->pool_id);
	memset(to, 0, HEADER_BYTES);
	memcpy(to, w.p, w.len);
	uint64_t sum = XXH3_64bits(to, SUM_AT);
	for (unsigned i = 0; i < 8; i++)
		to[SUM_AT + i] = (uint8_t)(sum >> (8 * i));
}

/* s->bytes is what the file's size says. */
static int header_decode(const uint8_t h[HEADER_BYTES], struct segment *s)
{
	struct reader r = reader_of(BYTES_OF(h, HEADER_BYTES));

	if (memcmp(read_bytes(&r, MAGIC_BYTES), magic, MAGIC_BYTES))
		return -EUCLEAN;
	uint32_t version = read_u32(&r), page_bytes = read_u32(&r);
	uint64_t bytes = read_u64(&r), id = read_u64(&r);
	read_bytes(&r, SUM_AT - 32);
	if (read_u64(&r) != XXH3_64bits(h, SUM_AT))
		return -EUCLEAN;
	if (version > SEGMENT_VERSION)
		return -EPROTONOSUPPORT;
	if (version < 1 || page_bytes != PAGE_BYTES || bytes != s->bytes || !id)
		return -EUCLEAN;
	s->pool_id = id;
	return 0;
}

static int prefault_part(int fd, uint8_t *p, off_t off, size_t len)
{
	int r = 0;

	if (!len || !madvise(p, len, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL) {
		/* EFAULT and EHWPOISON: where a touch would be SIGBUS */
		return errno == ENOMEM ? -ENOMEM : -ENOSPC;
	}
	/* Linux before 5.14: allocate, so that a touch is safe. (Elsewhere this
	 * would only double the time: it zeroes or reserves every page too.) */
	if (fd >= 0) {
		do
			r = -posix_fallocate(fd, off, (off_t)len);
		while (r == -EINTR);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < len; i += PAGE_BYTES)
		atomic_fetch_or((_Atomic uint8_t *)p + i, 0);
	return 0;
}

static int prefault_some(void *arg, unsigned i)
{
	const struct segment *s = arg;
	size_t each = (s->bytes / PREFAULT_THREADS) & ~((size_t)(2 << 20) - 1), from = i * each;
	size_t len = i == PREFAULT_THREADS - 1 ? s->bytes - from : each;

	return prefault_part(s->fd, s->base + from, (off_t)from, len);
}

/* Zeroing pages is what takes the time: half of it on another core. */
static int prefault(struct segment *s)
{
	return crew_run(PREFAULT_THREADS, prefault_some, s);
}

/* In the background ------------------------------------------------------------ */

struct mapping {
	uint8_t *base;
	uint64_t bytes;
	atomic_bool stop;
	sem_t done; /* its thread is detached: a process that ends at once joins nobody */
};

/* A wish: what is not done is done by who touches it. */
static void *map_all(void *arg)
{
	struct mapping *m = arg;

	pthread_setname_np(pthread_self(), "map-pool");
	for (uint64_t at = 0; at < m->bytes && !atomic_load(&m->stop); at += MAP_STEP) {
		uint64_t n = m->bytes - at < MAP_STEP ? m->bytes - at : MAP_STEP;
		if (madvise(m->base + at, n, MADV_POPULATE_WRITE))
			break;
	}
	sem_post(&m->done);
	return NULL;
}

/* Is it a tmpfs's file of which every page is there? A hole has no blocks. */
static bool is_in_memory(int fd)
{
	struct statfs fs;
	struct stat st;

	return fd >= 0 && !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC && !fstat(fd, &st) &&
	       st.st_blocks >= st.st_size / 512;
}

void segment_map_rest(struct segment *s)
{
	struct mapping *m = s->has_rest ? calloc(1, sizeof(*m)) : NULL;
	pthread_t thread;

	s->has_rest = false;
	if (!m)
		return;
	m->base = s->base;
	m->bytes = s->bytes;
	sem_init(&m->done, 0, 0);
	if (pthread_create(&thread, NULL, map_all, m)) {
		sem_destroy(&m->done);
		free(m);
		return;
	}
	pthread_detach(thread);
	s->mapping = m;
}

void segment_wait(struct segment *s)
{
	if (!s->mapping)
		return;
	while (sem_wait(&s->mapping->done) && errno == EINTR)
		;
	sem_destroy(&s->mapping->done);
	free(s->mapping);
	s->mapping = NULL;
}

static int map(struct segment *s)
{
	int flags = s->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, flags, s->fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	s->base = p;
	/* Both are wishes: the first for speed, the second keeps a core dump
	 * of the daemon small. */
	madvise(p, s->bytes, MADV_HUGEPAGE);
	madvise(p, s->bytes, MADV_DONTDUMP);
	s->has_rest = is_in_memory(s->fd);
	return s->has_rest ? 0 : prefault(s);
}

static int new_pool_id(uint64_t *ret)
{
	uint64_t id = 0;

	while (!id)
		if (getrandom(&id, sizeof(id), 0) != sizeof(id) && errno != EINTR)
			return -errno;
	*ret = id;
	return 0;
}

void segment_fini(struct segment *s)
{
	if (s->mapping)
		atomic_store(&s->mapping->stop, true);
	segment_wait(s);
	if (s->base)
		munmap(s->base, s->bytes);
	if (s->fd >= 0)
		close(s->fd);
	*s = SEGMENT_NONE;
}

static int fill(struct segment *s)
{
	uint8_t header[HEADER_BYTES];
	int r;

	if (ftruncate(s->fd, (off_t)s->bytes + PAGE_BYTES) < 0)
		return -errno;
	r = new_pool_id(&s->pool_id);
	if (r < 0)
		return r;
	r = map(s);
	if (r < 0)
		return r;
	header_encode(s, header);
	ssize_t n = pwrite(s->fd, header, sizeof(header), (off_t)s->bytes);
	if (n != (ssize_t)sizeof(header))
		return n < 0 ? -errno : -ENOSPC;
	return 0;
}

int segment_create(const char *path, uint64_t bytes, struct segment *ret)
{
	_cleanup_(segment_fini) struct segment s = { .fd = -1, .bytes = bytes };
	_cleanup_(freep) char *tmp = NULL;

	if (!access(path, F_OK))
		return -EEXIST;
	if (asprintf(&tmp, "%s.new", path) < 0)
		return -ENOMEM;
	s.fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s.fd < 0)
		return -errno;
	int r = fill(&s);
	if (!r && renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return r;
	}
	*ret = s;
	s = SEGMENT_NONE;
	return 0;
}

int segment_open(const char *path, struct segment *ret)
{
	_cleanup_(segment_fini) struct segment s = SEGMENT_NONE;
	uint8_t header[HEADER_BYTES];
	struct stat st;

	s.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (s.fd < 0)
		return -errno;
	if (fstat(s.fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= PAGE_BYTES || st.st_size % PAGE_BYTES)
		return -EUCLEAN;
	s.bytes = (uint64_t)st.st_size - PAGE_BYTES;
	ssize_t n = pread(s.fd, header, sizeof(header), (off_t)s.bytes);
	if (n != (ssize_t)sizeof(header))
		return n < 0 ? -errno : -EUCLEAN;
	int r = header_decode(header, &s);
	if (r < 0)
		return r;
	r = map(&s);
	if (r < 0)
		return r;
	*ret = s;
	s = SEGMENT_NONE;
	return 0;
}

int segment_anonymous(uint64_t bytes, struct segment *ret)
{
	_cleanup_(segment_fini) struct segment s = { .fd = -1, .bytes = bytes };
	int r = new_pool_id(&s.pool_id);

	if (r < 0)
		return r;
	r = map(&s);
	if (r < 0)
		return r;
	*ret = s;
	s = SEGMENT_NONE;
	return 0;
}
