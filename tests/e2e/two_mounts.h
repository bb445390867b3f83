/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A random walk by one thread through two mounts of one index, against a model: what is
 * closed on one is seen by who opens on the other (P2), what is open stays (P4), names
 * are right. For tests/unit/test_mounts.c and tests/e2e/walk.c.
 *
 * What is open, published and named is known exactly. An object is a number; a name is
 * a row of the table below, NULL or an object. A version is a byte, again and again: as
 * many as its number says. What a descriptor shows is its line's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/random.h"
#include "tests/unit/expect.h"

enum { NAMES = 5, DIRS = 2, FDS = 8, OBJECTS = 64 };

struct version {
	char c;
	unsigned size;
};

struct object {
	struct version now;
	unsigned id;           /* of the version; 0: not published */
	unsigned links;        /* names */
	int draft_of;          /* the mount that makes it, or -1 */
};

struct line {
	unsigned fds, writers;
	int mount;
	struct object *o;
	unsigned id;
	struct version is;
	bool dirty;
};

struct fd {
	int fd;
	struct line *line;
	bool writes;
};

static struct {
	uint64_t random;
	int at[2];          /* one directory, by way of either mount */
	const char *path[2];
	bool moves; /* names too: not where the kernel remembers them (--cache) */
	unsigned last_id, nobjects;
	bool dir[DIRS];
	struct object *name[DIRS][NAMES];    /* that all see */
	struct object object[OBJECTS];
	struct line line[FDS];
	struct fd fd[FDS];
	unsigned done[20];
} W;

/* TRACE=1: what the walk does. */
#define DID(...)                                                               \
	do {                                                                   \
		if (getenv("TRACE"))                                           \
			fprintf(stderr, __VA_ARGS__);                          \
	} while (0)

static unsigned pick(unsigned n)
{
	return (unsigned)(random_next(&W.random) % n);
}

static char *path_at(unsigned d, unsigned n)
{
	static char buf[4][16];
	static unsigned at;
	char *p = buf[at++ % 4];

	snprintf(p, sizeof(buf[0]), "d%u/n%u", d, n);
	return p;
}

static struct object *object_new(void)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object *o = &W.object[(W.nobjects + i) % OBJECTS];
		bool used = o->links;
		for (unsigned k = 0; k < FDS; k++)
			used |= W.line[k].fds && W.line[k].o == o;
		if (used)
			continue;
		W.nobjects += i + 1;
		*o = (struct object){ .draft_of = -1 };
		return o;
	}
	abort();
}

/* What is open there of the published version, or NULL. */
static struct line *line_of(const struct object *o, int mount)
{
	for (unsigned i = 0; i < FDS; i++)
		if (W.line[i].fds && W.line[i].o == o && W.line[i].mount == mount &&
		    W.line[i].id == o->id)
			return &W.line[i];
	return NULL;
}

/* For one descriptor more, so there is a line left. */
static struct line *line_for(struct object *o, int mount)
{
	struct line *l = line_of(o, mount);

	if (l)
		return l;
	for (l = W.line; l->fds;)
		l++;
	*l = (struct line){ .o = o, .mount = mount, .id = o->id, .is = o->now };
	return l;
}

static void check_bytes(int fd, const struct version *v)
{
	static char buf[40000];
	ssize_t n = pread(fd, buf, sizeof(buf), 0);
	struct stat st;

	if (n != (ssize_t)v->size || (n && (buf[0] != v->c || buf[n - 1] != v->c))) {
		fprintf(stderr, "%zd bytes of '%c', not %u of '%c'\n", n, n > 0 ? buf[0] : '-',
			v->size, v->c);
		EXPECT(0);
	}
	EXPECT(fstat(fd, &st) == 0 && st.st_size == n);
}

static struct fd *fd_free(void)
{
	for (unsigned i = 0; i < FDS; i++)
		if (!W.fd[i].line)
			return &W.fd[i];
	return NULL;
}

static void publish_line(struct line *l)
{
	if (!l->dirty || !l->o->links)
		return;
	l->o->now = l->is;
	l->id = l->o->id = ++W.last_id;
	l->dirty = false;
}

static void walk_open(unsigned d, unsigned n)
{
	int mount = (int)pick(2);
	unsigned how = pick(6);
	int flags = how < 2 ? O_RDONLY : how < 4 ? O_RDWR : O_WRONLY;
	struct object *o = W.name[d][n];
	struct fd *f = fd_free();

	if (!f)
		return;
	if (how == 5)
		flags |= O_TRUNC;
	DID("open %c %s %#o object %ld\n", "AB"[mount], path_at(d, n), (unsigned)flags,
	    o ? o - W.object : -1);
	f->fd = openat(W.at[mount], path_at(d, n), flags);
	if (!o) {
		EXPECT(f->fd < 0 && errno == ENOENT);
		return;
	}
	EXPECT(f->fd >= 0);
	f->line = line_for(o, mount);
	f->line->fds++;
	f->writes = flags != O_RDONLY;
	f->line->writers += f->writes;
	if (how == 5) {
		f->line->is = (struct version){ 'x', 0 };
		f->line->dirty = true;
	}
	if ((flags & O_ACCMODE) != O_WRONLY)
		check_bytes(f->fd, &f->line->is);
}

static void walk_write(struct fd *f)
{
	static char buf[40000];
	struct version v = { (char)('a' + pick(26)), 1 + pick(pick(2) ? 2000 : sizeof(buf)) };

	DID("write %c object %ld %u of '%c'\n", "AB"[f->line->mount], f->line->o - W.object, v.size,
	    v.c);
	EXPECT(ftruncate(f->fd, v.size) == 0);
	memset(buf, v.c, v.size);
	EXPECT(pwrite(f->fd, buf, v.size, 0) == (ssize_t)v.size);
	f->line->is = v;
	f->line->dirty = true;
}

static void walk_close(struct fd *f)
{
	struct line *l = f->line;

	DID("close %c object %ld%s\n", "AB"[l->mount], l->o - W.object, l->dirty ? " dirty" : "");
	EXPECT(close(f->fd) == 0);
	if (f->writes) {
		publish_line(l);
		l->writers--;
	}
	l->fds--;
	f->line = NULL;
}

static void wait_until_there(int at, const char *path)
{
	int fd;

	for (unsigned i = 0; (fd = openat(at, path, O_RDONLY)) < 0; i++) {
		EXPECT(errno == ENOENT && i < 10000);
		usleep(1000);
	}
	close(fd);
}

/* A new object, published at once; over what is there. */
static void walk_put(unsigned d, unsigned n)
{
	int mount = (int)pick(2), at = W.at[mount];
	bool excl = pick(2), rename = pick(2);
	struct object *o = W.name[d][n];

	DID("put %c %s excl %d rename %d over %ld\n", "AB"[mount], path_at(d, n), excl, rename,
	    o ? o - W.object : -1);
	if (excl && !rename) {
		int fd = openat(at, path_at(d, n), O_WRONLY | O_CREAT | O_EXCL, 0644);
		EXPECT(o ? fd < 0 && errno == EEXIST : fd >= 0);
		if (o)
			return;
		/* Nobody else sees it until it is closed. */
		EXPECT(openat(W.at[!mount], path_at(d, n), O_RDONLY) < 0 && errno == ENOENT);
		EXPECT(write(fd, "e", 1) == 1 && close(fd) == 0);
		o = object_new();
		o->now = (struct version){ 'e', 1 };
	} else if (rename) {
		int fd = openat(at, "tmp", O_WRONLY | O_CREAT | O_EXCL, 0644);
		EXPECT(fd >= 0 && write(fd, "rrr", 3) == 3);
		bool early = pick(3);
		if (early)
			EXPECT(close(fd) == 0);
		EXPECT(renameat(at, "tmp", at, path_at(d, n)) == 0);
		if (!early)
			EXPECT(close(fd) == 0);
		if (o)
			o->links--;
		o = object_new();
		o->now = (struct version){ 'r', 3 };
	} else {
		if (o)
			return;
		int fd = openat(at, path_at(d, n), O_WRONLY | O_CREAT, 0644);
		EXPECT(fd >= 0 && close(fd) == 0);
		o = object_new();
		o->now = (struct version){ 'x', 0 };
		/* Published by the release, which nobody waits for. An open tells: stat may
		 * go by what the kernel remembers of the name (--cache). */
		wait_until_there(W.at[!mount], path_at(d, n));
	}
	o->id = ++W.last_id;
	o->links = 1;
	W.name[d][n] = o;
}

static void walk_unlink(unsigned d, unsigned n)
{
	int at = W.at[pick(2)];
	int r = unlinkat(at, path_at(d, n), 0);
	struct object *o = W.name[d][n];

	DID("unlink %c %s object %ld\n", "AB"[at == W.at[1]], path_at(d, n), o ? o - W.object : -1);

	EXPECT(o ? r == 0 : r < 0 && errno == ENOENT);
	if (o)
		o->links--;
	W.name[d][n] = NULL;
}

static void walk_rename(unsigned d, unsigned n, unsigned d2, unsigned n2)
{
	int at = W.at[pick(2)];
	struct object *o = W.name[d][n], *to = W.name[d2][n2];

	DID("rename %c %s object %ld to %s %ld\n", "AB"[at == W.at[1]], path_at(d, n),
	    o ? o - W.object : -1, path_at(d2, n2), to ? to - W.object : -1);
	int r = renameat(at, path_at(d, n), at, path_at(d2, n2));
	if (!o) {
		/* The kernel may take both names for those of one object yet. */
		EXPECT((r < 0 && errno == ENOENT) || to);
		return;
	}
	EXPECT(r == 0);
	if (to == o) /* also by another link: nothing happens */
		return;
	if (to)
		to->links--;
	W.name[d2][n2] = o;
	W.name[d][n] = NULL;
}

static void walk_link(unsigned d, unsigned n, unsigned d2, unsigned n2)
{
	int at = W.at[pick(2)];
	struct object *o = W.name[d][n];

	DID("link %c %s object %ld to %s\n", "AB"[at == W.at[1]], path_at(d, n), o ? o - W.object : -1,
	    path_at(d2, n2));
	int r = linkat(at, path_at(d, n), at, path_at(d2, n2), 0);
	if (!o) {
		EXPECT(r < 0 && (errno == ENOENT || (W.name[d2][n2] && errno == EEXIST)));
	} else if (W.name[d2][n2]) {
		EXPECT(r < 0 && errno == EEXIST);
	} else {
		/* The kernel may know the name as that of an object that is gone. */
		EXPECT(r == 0 || errno == ENOENT);
		if (r < 0)
			return;
		W.name[d2][n2] = o;
		o->links++;
	}
}

static void walk_truncate(unsigned d, unsigned n)
{
	int mount = (int)pick(2);
	struct object *o = W.name[d][n];
	unsigned size = pick(3) * 1000;
	char path[100];

	/* A version of one kind of byte can only get shorter. */
	if (o && (size > o->now.size || line_of(o, mount)))
		return;
	snprintf(path, sizeof(path), "%s/%s", W.path[mount], path_at(d, n));
	DID("truncate %s object %ld to %u\n", path, o ? o - W.object : -1, size);
	int r = truncate(path, size);
	EXPECT(o ? r == 0 : r < 0 && errno == ENOENT);
	if (o) {
		o->now.size = size;
		o->id = ++W.last_id;
	}
}

static void walk_step(void)
{
	unsigned d = pick(DIRS), n = pick(NAMES), what = pick(18);
	struct fd *f = &W.fd[pick(FDS)];

	W.done[what]++;
	if (what < 5)
		walk_open(d, n);
	else if (what < 7 && f->line && f->writes)
		walk_write(f);
	else if (what < 11 && f->line)
		walk_close(f);
	else if (what == 11 && f->line && f->writes) {
		EXPECT(fsync(f->fd) == 0);
		publish_line(f->line);
	} else if (what == 12)
		walk_put(d, n);
	else if (what == 13)
		walk_unlink(d, n);
	else if (what == 14 && W.moves)
		walk_rename(d, n, pick(DIRS), pick(NAMES));
	else if (what == 15 && W.moves)
		walk_link(d, n, pick(DIRS), pick(NAMES));
	else if (what == 16)
		walk_truncate(d, n);
	else if (what == 17 && f->line && (fcntl(f->fd, F_GETFL) & O_ACCMODE) != O_WRONLY)
		check_bytes(f->fd, &f->line->is);
}

/* Both mounts show what was published last, which is removed. */
static void walk_end(void)
{
	for (unsigned d = 0; d < DIRS; d++)
		for (unsigned n = 0; n < NAMES; n++) {
			struct object *o = W.name[d][n];
			for (unsigned i = 0; i < 2; i++) {
				int fd = openat(W.at[i], path_at(d, n), O_RDONLY);
				EXPECT((fd >= 0) == (o != NULL));
				if (o)
					check_bytes(fd, &o->now);
				close(fd);
			}
			EXPECT(!o || unlinkat(W.at[pick(2)], path_at(d, n), 0) == 0);
		}
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The directory is empty before and after. How long the longest step took, in
 * milliseconds. */
static uint64_t walk(const char *const path[2], uint64_t seed, unsigned steps, bool moves)
{
	uint64_t longest = 0;

	W.random = seed;
	W.moves = moves;
	for (unsigned i = 0; i < 2; i++) {
		W.path[i] = path[i];
		W.at[i] = open(path[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		EXPECT(W.at[i] >= 0);
	}
	EXPECT(mkdirat(W.at[0], "d0", 0755) == 0 && mkdirat(W.at[1], "d1", 0755) == 0);
	for (unsigned i = 0; i < steps; i++) {
		uint64_t start = now_ms();
		walk_step();
		uint64_t took = now_ms() - start;
		longest = took > longest ? took : longest;
	}
	for (unsigned i = 0; i < FDS; i++)
		if (W.fd[i].line)
			walk_close(&W.fd[i]);
	walk_end();
	EXPECT(unlinkat(W.at[1], "d0", AT_REMOVEDIR) == 0);
	EXPECT(unlinkat(W.at[0], "d1", AT_REMOVEDIR) == 0);
	close(W.at[0]);
	close(W.at[1]);
	return longest;
}
