/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workers: each reads a request from the kernel, hands it to libfuse, which
 * calls the op, and reads the next. An op returns as soon as the core has taken
 * the call, so two workers are enough for two cores.
 *
 * Receive buffers are counted, because an op may still need the bytes of its
 * request when it returns: names, xattr values, data to be written. Who holds a
 * buffer keeps it; the worker goes on with another one. A buffer takes address
 * space for the largest request, and memory for what has been in it.
 *
 * Spinning. Waking a thread on another core costs more than most operations
 * (some 20 us on a virtual machine). So a worker that has just answered looks
 * for the next request for a while before it sleeps. Only one worker does so at
 * a time, and others must not sleep in the kernel's queue meanwhile, or the
 * kernel would wake one of them for each request: they wait for a turn at the
 * queue. The one at the queue passes the turn on before it works on a request
 * that may take long. The time is adaptive: it pays only if requests come
 * within it; each time none came the next spin is half as long, down to none,
 * and each request that came in time doubles it again.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/log.h"
#include "fs/priv.h"

enum {
	RBUF_BYTES = REQUEST_BYTES + 64 * 1024, /* and the headers */
	RBUFS_KEPT = 4,                         /* on the free list */
	WAKE_SIGNAL = SIGURG, /* ignored by default: harms nobody if it is late */
};

struct rbuf {
	atomic_uint refs;
	struct rbufs *pool;
	struct rbuf *next;
	void *mem;
};

struct rbufs {
	struct lock lock;
	struct rbuf *free;
	unsigned nfree;
};

struct worker {
	struct workers *all;
	pthread_t thread;
	bool started;
	atomic_bool ended;
	struct rbuf *buf;
};

struct workers {
	struct fs *fs;
	struct rbufs bufs;
	unsigned n;
	struct worker v[];
};

/* What this thread is processing. */
static _Thread_local struct rbuf *current;

/* Receive buffers --------------------------------------------------------------- */

static void rbuf_unmap(struct rbuf *b)
{
	munmap(b->mem, RBUF_BYTES);
	free(b);
}

static struct rbuf *rbuf_new(struct rbufs *pool)
{
	struct rbuf *b;
	{
		WITH_LOCK(&pool->lock);
		b = pool->free;
		if (b) {
			pool->free = b->next;
			pool->nfree--;
		}
	}
	if (!b) {
		b = calloc(1, sizeof(*b));
		if (!b)
			return NULL;
		b->pool = pool;
		b->mem = mmap(NULL, RBUF_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (b->mem == MAP_FAILED) {
			free(b);
			return NULL;
		}
	}
	atomic_store(&b->refs, 1);
	return b;
}

void rbuf_drop(struct rbuf *b)
{
	if (!b || atomic_fetch_sub(&b->refs, 1) > 1)
		return;
	struct rbufs *pool = b->pool;
	{
		WITH_LOCK(&pool->lock);
		if (pool->nfree < RBUFS_KEPT) {
			b->next = pool->free;
			pool->free = b;
			pool->nfree++;
			b = NULL;
		}
	}
	if (b)
		rbuf_unmap(b);
}

struct rbuf *rbuf_hold(void)
{
	if (current)
		atomic_fetch_add(&current->refs, 1);
	return current;
}

/* libfuse 3.14 does not pass these flags on; the request begins with the
 * kernel's headers, which are ABI. */
uint32_t rbuf_write_flags(void)
{
	const struct fuse_in_header *h = current ? current->mem : NULL;
	const struct fuse_write_in *w = h ? (const void *)(h + 1) : NULL;

	return h && h->opcode == FUSE_WRITE ? w->write_flags : 0;
}

static void rbufs_fini(struct rbufs *pool)
{
	struct rbuf *b;

	while ((b = pool->free)) {
		pool->free = b->next;
		rbuf_unmap(b);
	}
	lock_fini(&pool->lock);
}

/* The loop ------------------------------------------------------------------------ */

/* A buffer that nobody else holds. */
static int own_buffer(struct worker *w)
{
	if (w->buf && atomic_load(&w->buf->refs) == 1)
		return 0;
	rbuf_drop(w->buf);
	w->buf = rbuf_new(&w->all->bufs);
	return w->buf ? 0 : -ENOMEM;
}

/* 1: one request has been processed; 0: the session has ended; <0: again. */
static int serve_one(struct worker *w)
{
	struct fuse_session *se = w->all->fs->se;
	const struct timespec ms = { .tv_nsec = 1000000 };

	if (own_buffer(w) < 0) {
		nanosleep(&ms, NULL);
		return -ENOMEM;
	}
	struct fuse_buf fb = { .mem = w->buf->mem };
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	fb.mem_size = RBUF_BYTES;
#endif
	int r = fuse_session_receive_buf(se, &fb);
	if (r <= 0)
		return r;
	current = w->buf;
	const struct fuse_in_header *h = w->buf->mem;
	if (!w->all->fs->tuned && h->opcode != FUSE_INIT)
		fs_tune(w->all->fs);
	fuse_session_process_buf(se, &fb);
	current = NULL;
	return 1;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct fs *fs = w->all->fs;
	const uint64_t one = 1;
	int r = 1;

	pthread_setname_np(pthread_self(), "fs-worker");
	while (!fuse_session_exited(fs->se) && !atomic_load(&fs->stopping)) {
		r = serve_one(w);
		if (r == 0 || (r < 0 && r != -EINTR && r != -EAGAIN &&
			       r != -ENOMEM && r != -ENOENT))
			break;
	}
	rbuf_drop(w->buf);
	w->buf = NULL;
	if (r < 0 && r != -EINTR)
		log_error("fs", "reading from /dev/fuse: %s", strerror(-r));
	atomic_store(&w->ended, true);
	if (write(fs->wake_fd, &one, sizeof(one)) < 0)
		log_error("fs", "eventfd: %s", strerror(errno));
	return NULL;
}

static void wake(int sig)
{
	(void)sig;
}

int workers_start(struct fs *fs, struct workers **ret)
{
	struct workers *all = calloc(1, sizeof(*all) + fs->nthreads * sizeof(all->v[0]));
	struct sigaction act = { .sa_handler = wake }; /* no SA_RESTART: EINTR */

	if (!all)
		return -ENOMEM;
	all->fs = fs;
	all->n = fs->nthreads;
	lock_init(&all->bufs.lock, LOCK_FS_NOTIFY);
	sigaction(WAKE_SIGNAL, &act, NULL);
	for (unsigned i = 0; i < all->n; i++) {
		struct worker *w = &all->v[i];
		w->all = all;
		int r = pthread_create(&w->thread, NULL, work, w);
		if (r) {
			workers_free(all);
			return -r;
		}
		w->started = true;
	}
	*ret = all;
	return 0;
}

void workers_stop(struct workers *all)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	atomic_store(&all->fs->stopping, true);
	for (unsigned i = 0; i < all->n; i++) {
		struct worker *w = &all->v[i];
		if (!w->started)
			continue;
		/* The signal may come just before it sleeps: until it is heard. */
		while (!atomic_load(&w->ended)) {
			pthread_kill(w->thread, WAKE_SIGNAL);
			nanosleep(&ms, NULL);
		}
		pthread_join(w->thread, NULL);
		w->started = false;
	}
}

struct workers *workers_free(struct workers *all)
{
	if (!all)
		return NULL;
	workers_stop(all);
	rbufs_fini(&all->bufs);
	free(all);
	return NULL;
}
