/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modes DIR MOST BYTES: the matrix of how one file can be open at once.
 *
 * Seven ways to hold a file: a reader, a shared mapping, an O_DIRECT reader and
 * writer, an O_WRONLY writer, an O_RDWR writer, a mapping for reading only, a
 * reader by sendfile(2). For every order of opening any of them (all permutations
 * of all subsets of MOST), each that can write does so in turn, at a page of its
 * own and over a page that all share, and each that can read must see it at once
 * (P3). Reads and writes are of BYTES, the file is eight times as large, and a new
 * one for each order: what was learned about an earlier one does not count.
 * Exit status 1 and a line for what was stale.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { PAGES = 8 };
static int piece = 4096; /* bytes that are read and written at a time */
enum way { READER, MAPPING, DIRECT, WRITER, BOTH, VIEW, SENDER, NWAYS };
static const char *const names[] = {
	"reader", "mapping", "O_DIRECT", "writer", "read-writer", "view", "sender"
};
static const int flags[] = {
	O_RDONLY, O_RDWR, O_RDWR | O_DIRECT, O_WRONLY, O_RDWR, O_RDONLY, O_RDONLY
};

struct open_way {
	enum way way;
	int fd;
	unsigned char *map;
};

static char path[4096];
static unsigned char *page; /* aligned, for O_DIRECT */
static int sent; /* what a sender sends to */
static unsigned serial;
static unsigned long checked;

static void open_it(struct open_way *o, enum way w)
{
	o->way = w;
	o->map = NULL;
	o->fd = open(path, flags[w]);
	if (o->fd < 0)
		err(1, "open as %s", names[w]);
	if (w == MAPPING || w == VIEW) {
		int prot = w == VIEW ? PROT_READ : PROT_READ | PROT_WRITE;
		o->map = mmap(NULL, PAGES * piece, prot, MAP_SHARED, o->fd, 0);
		if (o->map == MAP_FAILED)
			err(1, "mmap");
		for (int i = 0; i < PAGES; i++) /* every page is in the cache now */
			page[0] = (unsigned char)(page[0] + o->map[i * piece]);
	}
	if (w == READER && pread(o->fd, page, piece, 0) < 0)
		err(1, "read");
}

static void close_it(struct open_way *o)
{
	if (o->map)
		munmap(o->map, PAGES * piece);
	if (close(o->fd))
		err(1, "close as %s", names[o->way]);
}

static bool can_write(enum way w) { return w != READER && w != VIEW && w != SENDER; }
static bool can_read(enum way w) { return w != WRITER; }

static void write_page(struct open_way *o, int n, unsigned char v)
{
	if (o->map) {
		memset(o->map + n * piece, v, piece);
		/* Other descriptors see a mapping's store when it is synced or
		 * through the same cache; O_DIRECT goes past that cache. */
		if (msync(o->map + n * piece, piece, MS_SYNC))
			err(1, "msync");
		return;
	}
	memset(page, v, piece);
	if (pwrite(o->fd, page, piece, (off_t)n * piece) != piece)
		err(1, "write as %s", names[o->way]);
}

static ssize_t send_page(int fd, int n)
{
	off_t at = (off_t)n * piece;

	if (lseek(sent, 0, SEEK_SET) || sendfile(sent, fd, &at, piece) != piece)
		return -1;
	return pread(sent, page, piece, 0);
}

static unsigned char read_page(struct open_way *o, int n)
{
	if (o->map) {
		for (int i = 1; i < piece; i++)
			if (o->map[n * piece + i] != o->map[n * piece])
				errx(1, "mapping: page %d is torn", n);
		return o->map[n * piece];
	}
	if ((o->way == SENDER ? send_page(o->fd, n) :
	     pread(o->fd, page, piece, (off_t)n * piece)) != piece)
		err(1, "read as %s", names[o->way]);
	for (int i = 1; i < piece; i++)
		if (page[i] != page[0])
			errx(1, "%s: page %d is torn", names[o->way], n);
	return page[0];
}

static void make_new(void)
{
	int fd;

	if ((unlink(path) && errno != ENOENT) ||
	    (fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0644)) < 0 ||
	    ftruncate(fd, PAGES * piece) || close(fd))
		err(1, "%s", path);
}

static void try_order(const enum way *order, int n)
{
	struct open_way open_ways[NWAYS];

	make_new();
	for (int i = 0; i < n; i++) {
		open_it(&open_ways[i], order[i]);
		for (int w = 0; w <= i; w++) {
			if (!can_write(order[w]))
				continue;
			for (int k = 0; k < 2; k++) {
				int at = k ? order[w] : PAGES - 1;
				unsigned char v = (unsigned char)(++serial % 251 + 1);
				write_page(&open_ways[w], at, v);
				for (int r = 0; r <= i; r++) {
					if (!can_read(order[r]))
						continue;
					checked++;
					unsigned char got = read_page(&open_ways[r], at);
					if (got == v)
						continue;
					fprintf(stderr, "modes: opened in this order:");
					for (int j = 0; j <= i; j++)
						fprintf(stderr, " %s", names[order[j]]);
					errx(1, "\nmodes: the %s wrote %u, the %s sees %u",
					     names[order[w]], v, names[order[r]], got);
				}
			}
		}
	}
	/* And closed in the other order, each still readable. */
	for (int i = n - 1; i >= 0; i--)
		close_it(&open_ways[i]);
	int fd = open(path, O_RDONLY);
	unsigned char last;
	if (fd < 0 || pread(fd, &last, 1, (PAGES - 1) * piece) != 1)
		err(1, "reading it again");
	close(fd);
}

static void permute(enum way *order, bool *used, int n, int want)
{
	if (n == want) {
		try_order(order, n);
		return;
	}
	for (int w = 0; w < NWAYS; w++) {
		if (used[w])
			continue;
		used[w] = true;
		order[n] = (enum way)w;
		permute(order, used, n + 1, want);
		used[w] = false;
	}
}

int main(int argc, char **argv)
{
	enum way order[NWAYS];
	bool used[NWAYS] = { false };

	if (argc != 4)
		errx(2, "usage: modes DIR MOST BYTES");
	int most = atoi(argv[2]);
	piece = atoi(argv[3]);
	snprintf(path, sizeof(path), "%s/modes", argv[1]);
	page = aligned_alloc(piece, piece);
	sent = memfd_create("sent", 0);
	if (!page || sent < 0)
		err(1, "memory");
	for (int n = 1; n <= most; n++)
		permute(order, used, 0, n);
	printf("modes: %lu reads, none stale\n", checked);
	return 0;
}
