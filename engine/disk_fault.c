/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is late, fails, tears a write or flips a bit, for tests. What fails is not
 * done; what is torn is done in part and reported as done; a bit that flips while it is
 * written flips in a copy, so that memory stays as it is.
 *
 * What has ended below and is not due yet waits in a list.
 */
#include "engine/disk.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <utlist.h>

#include "common/clock.h"

struct faulty {
	struct disk disk;
	struct disk *inner;
	struct disk_faults *f;
	struct disk_req *ended; /* in the order of their ending */
};

/* Is it its turn? */
static bool counts(_Atomic uint64_t *n)
{
	uint64_t v = atomic_load(n);

	while (v && !atomic_compare_exchange_weak(n, &v, v - 1))
		;
	return v == 1;
}

static void end_now(struct faulty *x, struct disk_req *r, int result)
{
	r->result = result;
	LL_APPEND(x->ended, r);
}

/* Does it here and now, from a copy. */
static int write_other(struct faulty *x, struct disk_req *r, bool torn)
{
	uint64_t n = torn ? r->bytes / 2 / 4096 * 4096 : r->bytes, at = 0;
	uint8_t *p = n ? aligned_alloc(4096, n) : NULL;
	struct disk_req *got;

	if (n && !p)
		return -ENOMEM;
	for (unsigned i = 0; i < r->niov && at < n; i++) {
		uint64_t len = r->iov[i].iov_len < n - at ? r->iov[i].iov_len : n - at;
		memcpy(p + at, r->iov[i].iov_base, len);
		at += len;
	}
	int e = 0;
	if (n) {
		struct iovec iov = { p, n };
		struct disk_req q = { .write = true, .off = r->off, .bytes = n, .iov = &iov,
				      .niov = 1 };
		p[0] ^= !torn;
		e = disk_submit(x->inner, &q);
		/* Others may end meanwhile. */
		while (!e && !(e = disk_reap(x->inner, 0, &got)) && got != &q)
			LL_APPEND(x->ended, got);
		e = e ? e : q.result;
	}
	free(p);
	end_now(x, r, e);
	return 0;
}

static int faulty_submit(struct disk *d, struct disk_req *r)
{
	struct faulty *x = (struct faulty *)d;
	uint32_t late_ms = atomic_load(&x->f->delay_ms);
	int only = atomic_load(&x->f->only);
	bool is_meant = !only || (only == DISK_WRITES) == r->write;
	bool fails = is_meant && counts(&x->f->fail_in);
	bool flips = is_meant && counts(&x->f->flip_in);
	bool tears = r->write && counts(&x->f->tear_in);

	atomic_fetch_add(&x->f->count, 1);
	r->due_ns = late_ms ? clock_ns() + late_ms * NS_PER_MS : 0;
	r->next = NULL;
	if (fails) {
		end_now(x, r, atomic_load(&x->f->error));
		return 0;
	}
	if (r->write && (tears || flips))
		return write_other(x, r, tears);
	if (flips)
		r->due_ns |= 1; /* noted: due_ns is no use to anybody else */
	else
		r->due_ns &= ~1ULL;
	return disk_submit(x->inner, r);
}

static void flip(struct disk_req *r)
{
	if (!r->write && r->due_ns & 1)
		((uint8_t *)r->iov[0].iov_base)[0] ^= 1;
}

static int faulty_reap(struct disk *d, uint64_t deadline_ns, struct disk_req **ret)
{
	struct faulty *x = (struct faulty *)d;
	struct disk_req *r = NULL;

	if (!x->ended) {
		int e = disk_reap(x->inner, deadline_ns, &r);
		if (e)
			return e;
		flip(r);
		LL_APPEND(x->ended, r);
	}
	r = x->ended;
	uint64_t now = clock_ns(), until = r->due_ns;
	bool late = deadline_ns && until > now && until > deadline_ns;
	if (late)
		until = deadline_ns;
	if (until > now) {
		struct timespec t = { (time_t)((until - now) / NS_PER_S),
				      (long)((until - now) % NS_PER_S) };
		nanosleep(&t, NULL);
	}
	if (late)
		return -ETIMEDOUT;
	LL_DELETE(x->ended, r);
	*ret = r;
	return 0;
}

static int faulty_sync(struct disk *d)
{
	return disk_sync(((struct faulty *)d)->inner);
}

static void faulty_close(struct disk *d)
{
	disk_close(((struct faulty *)d)->inner);
	free(d);
}

static const struct disk_ops faulty_ops = { faulty_submit, faulty_reap, faulty_sync,
					    faulty_close };

int disk_fault_open(struct disk *inner, struct disk_faults *f, struct disk **ret)
{
	struct faulty *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->disk = (struct disk){ .ops = &faulty_ops, .depth = inner->depth };
	x->inner = inner;
	x->f = f;
	*ret = &x->disk;
	return 0;
}
