/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of requests: where the oldest has ended its place is taken by the next, so that
 * at most WINDOW are under way, and what is read is used in order.
 *
 * Buffers are used again while they are in the processor's caches: copying a file into
 * them costs half of what mapping its pages does, and a file that becomes shorter is
 * noticed. Fewer and smaller requests leave the connections idle, larger ones the caches.
 */
#include "tools/carry.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/progress.h"

enum {
	LOT_BYTES = 1 << 20,
	WINDOW = 8,
};

struct lot {
	struct file_op op;
	struct client_wait wait;
	bool busy;
	uint8_t *buf; /* of a write */
};

struct ring {
	struct client *c;
	struct file *f;
	const char *about;
	unsigned next; /* the lot to be used next, which is the oldest */
	int fd;
	bool sparse; /* a file: bytes have places there, too */
	int error;
	struct carried by;
	struct lot lots[WINDOW];
};

static int ring_error(struct ring *g, int r, bool local)
{
	if (r < 0 && !g->error) {
		g->error = r;
		g->by.is_local = local;
	}
	return g->error;
}

/* All have ended, and nothing is lent any more. */
static int ring_end(struct ring *g, int (*end)(struct ring *g, struct lot *l), struct carried *ret)
{
	for (unsigned i = 0; i < WINDOW; i++)
		end(g, &g->lots[(g->next + i) % WINDOW]);
	for (unsigned i = 0; i < WINDOW; i++)
		free(g->lots[i].buf);
	*ret = g->by;
	return g->error;
}

/* ---- In ---------------------------------------------------------------------- */

static int end_write(struct ring *g, struct lot *l)
{
	if (!l->busy)
		return g->error;
	l->busy = false;
	return ring_error(g, (int)client_await(g->c, &l->wait, g->about), false);
}

static void begin_write(struct ring *g, struct lot *l, uint64_t off, uint64_t len)
{
	l->op = (struct file_op){ .file = g->f, .off = off, .buf = l->buf, .len = len };
	l->busy = true;
	client_begin(g->c, &l->op, &l->wait);
	file_write(&l->op);
	g->next = (g->next + 1) % WINDOW;
}

/* As much as there is, up to len; from where it is if it is no file. */
static ssize_t read_full(const struct ring *g, uint8_t *to, size_t len, uint64_t off)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = g->sparse ? pread(g->fd, to + at, len - at, (off_t)(off + at)) :
					read(g->fd, to + at, len - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		at += (size_t)n;
	}
	return (ssize_t)at;
}

/* Up to `end`, or as far as it goes. Returns where that was. */
static uint64_t in_run(struct ring *g, uint64_t off, uint64_t end)
{
	while (off < end) {
		struct lot *l = &g->lots[g->next];
		uint64_t to = (off / LOT_BYTES + 1) * LOT_BYTES;
		if (to > end)
			to = end;
		if (end_write(g, l) < 0)
			break;
		if (!l->buf && !(l->buf = malloc(LOT_BYTES))) {
			ring_error(g, -ENOMEM, true);
			break;
		}
		ssize_t n = read_full(g, l->buf, to - off, off);
		ring_error(g, n < 0 ? (int)n : 0, true);
		if (n <= 0)
			break;
		begin_write(g, l, off, (uint64_t)n);
		if (g->c->progress)
			progress_moved(g->c->progress, (uint64_t)n);
		off += (uint64_t)n;
		if (off < to)
			break;
	}
	return off;
}

bool carry_next_run(int fd, uint64_t size, uint64_t *off, uint64_t *end)
{
	off_t from = lseek(fd, (off_t)*off, SEEK_DATA);

	if (from < 0 && errno == ENXIO)
		return false;
	off_t to = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
	*off = from < 0 ? *off : (uint64_t)from;
	*end = to <= from || (uint64_t)to > size ? size : (uint64_t)to;
	return *off < size;
}

static void sparse_in(struct ring *g, uint64_t size)
{
	for (uint64_t off = 0, end; !g->error && carry_next_run(g->fd, size, &off, &end); off = end)
		if (in_run(g, off, end) != end)
			ring_error(g, -ESTALE, true);
}

static int set_size(struct ring *g, uint64_t size)
{
	struct file_op op = { .file = g->f, .off = size };

	return (int)client_file(g->c, &op, file_truncate);
}

int carry_in(struct client *c, int fd, struct file *f, const char *about, struct carried *ret)
{
	struct ring g = { .c = c, .f = f, .about = about, .fd = fd };
	struct stat st;

	if (fstat(fd, &st) < 0)
		ring_error(&g, -errno, true);
	/* Files of /proc say that they are empty. */
	g.sparse = !g.error && S_ISREG(st.st_mode) && st.st_size > 0 && !lseek(fd, 0, SEEK_CUR);
	if (g.sparse)
		sparse_in(&g, (uint64_t)st.st_size);
	else if (!g.error)
		in_run(&g, 0, UINT64_MAX);
	int r = ring_end(&g, end_write, ret);
	return !r && g.sparse ? set_size(&g, (uint64_t)st.st_size) : r; /* a hole at the end */
}

/* ---- Out --------------------------------------------------------------------- */

static int write_full(const struct ring *g, struct file_op *op)
{
	struct iovec *v = op->iov;
	off_t off = (off_t)op->off;
	unsigned n = op->niov;

	while (n) {
		int most = n < 512 ? (int)n : 512;
		ssize_t done = g->sparse ? pwritev(g->fd, v, most, off) : writev(g->fd, v, most);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		off += done;
		for (; n && (size_t)done >= v->iov_len; n--, v++)
			done -= (ssize_t)v->iov_len;
		if (n) {
			v->iov_base = (uint8_t *)v->iov_base + done;
			v->iov_len -= (size_t)done;
		}
	}
	return 0;
}

static int end_read(struct ring *g, struct lot *l)
{
	if (!l->busy)
		return g->error;
	l->busy = false;
	int64_t r = client_await(g->c, &l->wait, g->about);
	if (r >= 0 && (uint64_t)r != l->op.len)
		ring_error(g, -EIO, false);
	ring_error(g, r < 0 ? (int)r : 0, false);
	if (!g->error)
		ring_error(g, write_full(g, &l->op), true);
	if (r >= 0)
		file_read_end(&l->op);
	return g->error;
}

static int out_run(struct ring *g, uint64_t off, uint64_t end)
{
	while (off < end) {
		struct lot *l = &g->lots[g->next];
		uint64_t to = (off / LOT_BYTES + 1) * LOT_BYTES;
		if (to > end)
			to = end;
		if (end_read(g, l) < 0)
			break;
		l->op = (struct file_op){ .file = g->f, .off = off, .len = to - off };
		l->busy = true;
		client_begin(g->c, &l->op, &l->wait);
		file_read(&l->op);
		g->next = (g->next + 1) % WINDOW;
		off = to;
	}
	return g->error;
}

static int64_t seek(struct ring *g, uint64_t off, int mode)
{
	struct file_op op = { .file = g->f, .off = off, .mode = mode };

	return client_file(g->c, &op, file_seek);
}

static int sparse_out(struct ring *g, uint64_t size)
{
	int64_t from = 0, to = 0;

	while (!g->error && (uint64_t)to < size) {
		from = seek(g, (uint64_t)to, SEEK_DATA);
		if (from == -ENXIO)
			break;
		to = from < 0 ? from : seek(g, (uint64_t)from, SEEK_HOLE);
		if (ring_error(g, to < 0 ? (int)to : 0, false) < 0)
			break;
		out_run(g, (uint64_t)from, (uint64_t)to);
	}
	return g->error;
}

int carry_out(struct client *c, struct file *f, int fd, bool sparse, const char *about,
	      struct carried *ret)
{
	struct ring g = { .c = c, .f = f, .about = about, .fd = fd, .sparse = sparse };
	struct attr a;

	file_attr(f, &a);
	if (sparse)
		sparse_out(&g, a.size);
	else
		out_run(&g, 0, a.size);
	int r = ring_end(&g, end_read, ret);
	if (!r && sparse && ftruncate(fd, (off_t)a.size) < 0) {
		ret->is_local = true;
		r = -errno;
	}
	return r;
}
