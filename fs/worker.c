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
 * for the next request for a while before it sleeps in the kernel's queue; one
 * at a time. It pays only where requests follow each other closely, so it goes
 * by how many of the last ones did: an idle mount, or one that is asked now and
 * then, does not spin at all. After a row of close ones the processors are kept
 * awake as well (awake.h), until nothing has come for AWAKE_MS: the spinning
 * worker is found at once, but so is the client that sleeps on the other core.
 * Measured on two cores with nothing else on them, requests per second of one
 * client: stat 28,400, spinning 48,000, and awake 60,000; create+write+close
 * 4,700, 8,500 and 13,500; 4 KiB reads 26,000, 52,000 and 95,000.
 * That another worker sleeps in the kernel's queue meanwhile, and is woken for
 * nothing, costs nothing that can be measured.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/log.h"
#include "fs/priv.h"

enum {
	/* Points for each request that came within the time, up to a limit, and
	 * off for each that did not; who has points spins. */
	SPIN_POINTS_MAX = 16,
	SPIN_MISS_POINTS = 4,
	AWAKE_MS = 5,

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
	atomic_bool spinning;          /* some worker is: it owns fs->awake */
	atomic_int spin_points;
	_Atomic uint64_t answered_ns;  /* when the last request was */
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

const struct fuse_in_header *rbuf_request(void)
{
	return current ? current->mem : NULL;
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

static bool came(struct pollfd *p, int timeout_ms)
{
	return poll(p, 1, timeout_ms) != 0;
}

/* Looks for a request until spin_us have passed since the last one was answered.
 * sched_yield(): whoever else wants this core gets it. Whoever spins last lets the
 * processors sleep again. */
static void spin_on(struct workers *all)
{
	struct pollfd p = { .fd = fuse_session_fd(all->fs->se), .events = POLLIN };
	uint64_t until = atomic_load(&all->answered_ns) + all->fs->spin_us * 1000ULL;

	if (atomic_load(&all->spin_points) == SPIN_POINTS_MAX)
		awake_hold(&all->fs->awake);
	while (clock_ns() < until) {
		if (came(&p, 0))
			return;
		sched_yield();
	}
	if (atomic_load(&all->fs->awake.held) && !came(&p, AWAKE_MS))
		awake_release(&all->fs->awake);
}

static void spin(struct workers *all)
{
	bool close = atomic_load(&all->spin_points) > 0 || atomic_load(&all->fs->awake.held);

	if (!all->fs->spin_us || !close || atomic_exchange(&all->spinning, true))
		return;
	spin_on(all);
	atomic_store(&all->spinning, false);
}

/* A request has come: would spinning have got it, or did it? */
static void spin_learn(struct workers *all)
{
	uint64_t gap = clock_ns() - atomic_load(&all->answered_ns);
	int points = atomic_load(&all->spin_points);

	/* Twice: who slept heard of it late. Points may get lost between two
	 * workers; it is a guess anyway. */
	points += gap < all->fs->spin_us * 2000ULL ? 1 : -SPIN_MISS_POINTS;
	points = points < 0 ? 0 : points;
	atomic_store(&all->spin_points,
		     points > SPIN_POINTS_MAX ? SPIN_POINTS_MAX : points);
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
	spin(w->all);
	int r = fuse_session_receive_buf(se, &fb);
	if (r <= 0)
		return r;
	spin_learn(w->all);
	current = w->buf;
	const struct fuse_in_header *h = w->buf->mem;
	if (!w->all->fs->tuned && h->opcode != FUSE_INIT)
		fs_tune(w->all->fs);
	fuse_session_process_buf(se, &fb);
	current = NULL;
	atomic_store(&w->all->answered_ns, clock_ns());
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
