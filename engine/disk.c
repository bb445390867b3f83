/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk by io_uring. The only file that includes liburing.
 *
 * Less than was asked for is an error: offsets lie within a file that was allocated in full.
 */
#include "engine/disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <liburing.h>

#include "common/cleanup.h"
#include "common/clock.h"

struct ring {
	struct disk disk;
	struct io_uring ring;
	int fd;
};

static int ring_submit(struct disk *d, struct disk_req *r)
{
	struct ring *x = (struct ring *)d;
	struct io_uring_sqe *s = io_uring_get_sqe(&x->ring);

	if (!s)
		return -EAGAIN;
	if (r->write)
		io_uring_prep_writev(s, x->fd, r->iov, r->niov, r->off);
	else
		io_uring_prep_readv(s, x->fd, r->iov, r->niov, r->off);
	io_uring_sqe_set_data(s, r);
	int n;
	do {
		n = io_uring_submit(&x->ring);
	} while (n == -EINTR || n == -EAGAIN || n == -EBUSY);
	/* It is in the queue, and would go with the next one: nobody may take it back. */
	assert(n == 1);
	return 0;
}

static int ring_reap(struct disk *d, uint64_t deadline_ns, struct disk_req **ret)
{
	struct ring *x = (struct ring *)d;
	struct io_uring_cqe *c;
	int r;

	do {
		uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
		struct __kernel_timespec t = { (int64_t)(left / NS_PER_S),
					       (int64_t)(left % NS_PER_S) };
		r = deadline_ns ? io_uring_wait_cqe_timeout(&x->ring, &c, &t) :
				  io_uring_wait_cqe(&x->ring, &c);
	} while (r == -EINTR);
	if (r < 0)
		return r == -ETIME ? -ETIMEDOUT : r;
	struct disk_req *q = io_uring_cqe_get_data(c);
	q->result = c->res < 0 ? c->res : (uint64_t)c->res == q->bytes ? 0 : -EIO;
	io_uring_cqe_seen(&x->ring, c);
	*ret = q;
	return 0;
}

static int ring_sync(struct disk *d)
{
	return fdatasync(((struct ring *)d)->fd) ? -errno : 0;
}

static void ring_close(struct disk *d)
{
	struct ring *x = (struct ring *)d;

	io_uring_queue_exit(&x->ring);
	free(x);
}

static const struct disk_ops ring_ops = { ring_submit, ring_reap, ring_sync, ring_close };

int disk_open(int fd, unsigned depth, struct disk **ret)
{
	struct ring *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->disk = (struct disk){ .ops = &ring_ops, .depth = depth };
	x->fd = fd;
	int r = io_uring_queue_init(depth, &x->ring, 0);
	if (r < 0) {
		free(x);
		return r;
	}
	*ret = &x->disk;
	return 0;
}

int disk_submit(struct disk *d, struct disk_req *r)
{
	assert(d->out < d->depth);
	int e = d->ops->submit(d, r);
	d->out += !e;
	return e;
}

int disk_reap(struct disk *d, uint64_t deadline_ns, struct disk_req **ret)
{
	if (!d->out)
		return -ENOENT;
	int r = d->ops->reap(d, deadline_ns, ret);
	d->out -= !r;
	return r;
}

int disk_sync(struct disk *d)
{
	return d->ops->sync(d);
}

struct disk *disk_close(struct disk *d)
{
	if (d) {
		assert(!d->out);
		d->ops->close(d);
	}
	return NULL;
}
