/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modes DIR: the matrix of how one file can be open at once.
 *
 * Five ways to hold a file: a cached reader, a shared mapping, an O_DIRECT
 * reader and writer, an O_WRONLY writer, an O_RDWR writer. For every order of
 * opening any of them (all permutations of all subsets), each that can write does
 * so in turn, at a page of its own and over a page that all share, and each that
 * can read must see it at once (P3). Exit status 1 and a line for what was stale.
 */
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 8, SIZE = PAGE * PAGES };
enum way { READER, MAPPING, DIRECT, WRITER, BOTH, NWAYS };
static const char *const names[] = { "reader", "mapping", "O_DIRECT", "writer", "read-writer" };
static const int flags[] = { O_RDONLY, O_RDWR, O_RDWR | O_DIRECT, O_WRONLY, O_RDWR };

struct open_way {
	enum way way;
	int fd;
	unsigned char *map;
};

static char path[4096];
static unsigned char *page; /* aligned, for O_DIRECT */
static unsigned serial;
static unsigned long checked;

static void open_it(struct open_way *o, enum way w)
{
	o->way = w;
	o->map = NULL;
	o->fd = open(path, flags[w]);
	if (o->fd < 0)
		err(1, "open as %s", names[w]);
	if (w == MAPPING) {
		o->map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, 0);
		if (o->map == MAP_FAILED)
			err(1, "mmap");
		for (int i = 0; i < PAGES; i++) /* every page is in the cache now */
			page[0] = (unsigned char)(page[0] + o->map[i * PAGE]);
	}
	if (w == READER && pread(o->fd, page, PAGE, 0) < 0)
		err(1, "read");
}

static void close_it(struct open_way *o)
{
	if (o->map)
		munmap(o->map, SIZE);
	if (close(o->fd))
		err(1, "close as %s", names[o->way]);
}

static bool can_write(enum way w) { return w != READER; }
static bool can_read(enum way w) { return w != WRITER; }

static void write_page(struct open_way *o, int n, unsigned char v)
{
	if (o->map) {
		memset(o->map + n * PAGE, v, PAGE);
		/* Other descriptors see a mapping's store when it is synced or
		 * through the same cache; O_DIRECT goes past that cache. */
		if (msync(o->map + n * PAGE, PAGE, MS_SYNC))
			err(1, "msync");
		return;
	}
	memset(page, v, PAGE);
	if (pwrite(o->fd, page, PAGE, (off_t)n * PAGE) != PAGE)
		err(1, "write as %s", names[o->way]);
}

static unsigned char read_page(struct open_way *o, int n)
{
	if (o->map) {
		for (int i = 1; i < PAGE; i++)
			if (o->map[n * PAGE + i] != o->map[n * PAGE])
				errx(1, "mapping: page %d is torn", n);
		return o->map[n * PAGE];
	}
	if (pread(o->fd, page, PAGE, (off_t)n * PAGE) != PAGE)
		err(1, "read as %s", names[o->way]);
	for (int i = 1; i < PAGE; i++)
		if (page[i] != page[0])
			errx(1, "%s: page %d is torn", names[o->way], n);
	return page[0];
}

static void try_order(const enum way *order, int n)
{
	struct open_way open_ways[NWAYS];

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
	if (fd < 0 || pread(fd, &last, 1, (PAGES - 1) * PAGE) != 1)
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

	if (argc != 2)
		errx(2, "usage: modes DIR");
	snprintf(path, sizeof(path), "%s/modes", argv[1]);
	page = aligned_alloc(PAGE, PAGE);
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0644);
	if (!page || fd < 0 || ftruncate(fd, SIZE) || close(fd))
		err(1, "%s", path);
	for (int n = 1; n <= NWAYS; n++)
		permute(order, used, 0, n);
	printf("modes: %lu reads, none stale\n", checked);
	return 0;
}
