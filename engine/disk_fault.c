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
#include <unistd.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/random.h"
#include "common/units.h"

enum { MILLION = 1000000 };

struct faulty {
	struct disk disk;
	struct disk *inner;
	struct disk_faults *f;
	struct disk_req *ended; /* in the order of their ending */
	uint64_t last_ns;       /* when the last one is to end */
};

/* Is it its turn? */
static bool counts(_Atomic uint64_t *n)
{
	uint64_t v = atomic_load(n);

	while (v && !atomic_compare_exchange_weak(n, &v, v - 1))
		;
	return v == 1;
}

static bool happens(struct disk_faults *f, enum disk_fault which)
{
	static _Atomic uint64_t state;
	uint32_t often = atomic_load(&f->often[which]);

	return often && random_mix(atomic_fetch_add(&state, RANDOM_STEP)) % MILLION < often;
}

/* The error that it ends with; 0: none. */
static int error_for(struct disk_faults *f, bool is_meant, bool is_write)
{
	if (is_meant && counts(&f->fail_in))
		return atomic_load(&f->error);
	if (is_meant && happens(f, DISK_EIO))
		return -EIO;
	return is_write && happens(f, DISK_ENOSPC) ? -ENOSPC : 0;
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

/* 0: when it does. */
static uint64_t due(struct faulty *x)
{
	uint64_t late_ms = atomic_load(&x->f->delay_ms), apart_ms = atomic_load(&x->f->apart_ms);

	if (!late_ms && !apart_ms)
		return 0;
	uint64_t ns = clock_ns() + late_ms * NS_PER_MS, next = x->last_ns + apart_ms * NS_PER_MS;
	x->last_ns = apart_ms && next > ns ? next : ns;
	return x->last_ns;
}

static int faulty_submit(struct disk *d, struct disk_req *r)
{
	struct faulty *x = (struct faulty *)d;
	int only = atomic_load(&x->f->only);
	bool is_meant = !only || (only == DISK_WRITES) == r->write;
	int error = error_for(x->f, is_meant, r->write);
	bool flips = is_meant && (counts(&x->f->flip_in) || happens(x->f, DISK_FLIP));
	bool tears = r->write && (counts(&x->f->tear_in) || happens(x->f, DISK_TEAR));

	atomic_fetch_add(&x->f->count, 1);
	r->due_ns = due(x);
	r->next = NULL;
	if (error) {
		end_now(x, r, error);
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
		struct timespec t = clock_timespec(until - now);
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

/* The n-th, or one after it? */
static bool has_come(_Atomic uint64_t *in)
{
	uint64_t n = atomic_load(in);

	while (n > 1 && !atomic_compare_exchange_weak(in, &n, n - 1))
		;
	return n == 1;
}

int disk_fault_of_journal(struct disk_faults *f)
{
	if (!f)
		return 0;
	return has_come(&f->journal_full_in) ? -ENOSPC : atomic_load(&f->journal_error);
}

int disk_fault_of_removal(struct disk_faults *f)
{
	return f && (atomic_load(&f->journal_stays) || has_come(&f->stays_in)) ? -EROFS : 0;
}

void disk_fault_sync(struct disk_faults *f, uint64_t bytes)
{
	uint64_t begun = clock_ns();

	if (!f)
		return;
	if (bytes)
		usleep((useconds_t)((bytes >> 10) * atomic_load(&f->sync_ms) >> 10) * 1000);
	else /* until it is so late, or the fault is taken away */
		while (clock_ns() - begun < atomic_load(&f->journal_ms) * NS_PER_MS)
			usleep(1000);
}

/* As text ---------------------------------------------------------------------------------- */

static const char *const shares[DISK_FAULTS + 1] = {
	[DISK_EIO] = "eio", [DISK_ENOSPC] = "enospc", [DISK_TEAR] = "tear", [DISK_FLIP] = "flip",
};
static const char *const only[] = { "both", "reads", "writes", NULL }; /* as DISK_READS */
static const char *const yes[] = { "no", "yes", NULL };

/* 0.01 as so many of a million. */
static int parse_share(const char *value, uint32_t *ret)
{
	char *end;

	if (!*value || strspn(value, "0123456789.") != strlen(value))
		return -EINVAL;
	double share = strtod(value, &end);
	if (*end || share > 1)
		return -EINVAL;
	*ret = (uint32_t)(share * MILLION + 0.5);
	return 0;
}

/* The place of a word. */
static int parse_word(const char *value, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(value, words[i]))
			return i;
	return -EINVAL;
}

static int parse_delay(const char *value, struct disk_faults *ret)
{
	uint64_t us;
	int r = units_time(value, &us);

	if (r < 0 || us / 1000 > UINT32_MAX)
		return -EINVAL;
	ret->delay_ms = (uint32_t)(us / 1000);
	return 0;
}

static int parse_count(const char *value, _Atomic uint64_t *ret)
{
	uint64_t n;

	if (units_digits(&value, &n) < 0 || *value || !n)
		return -EINVAL;
	*ret = n;
	return 0;
}

static int parse_fault(const char *name, const char *value, struct disk_faults *ret)
{
	int which = parse_word(name, shares), r;
	uint32_t often;

	if (which >= 0) {
		r = parse_share(value, &often);
		if (!r)
			ret->often[which] = often;
		return r;
	}
	if (!strcmp(name, "delay"))
		return parse_delay(value, ret);
	if (!strcmp(name, "journal"))
		return parse_count(value, &ret->journal_full_in);
	if (!strcmp(name, "stays")) {
		r = parse_word(value, yes);
		ret->journal_stays = r > 0;
	} else {
		r = strcmp(name, "only") ? -EINVAL : parse_word(value, only);
		ret->only = r < 0 ? 0 : r;
	}
	return r < 0 ? r : 0;
}

int disk_faults_parse(const char *list, struct disk_faults *ret, char **ret_why)
{
	_cleanup_(freep) char *copy = strdup(list);
	char *rest = copy, *word;

	if (!copy)
		return -ENOMEM;
	*ret = (struct disk_faults){ 0 };
	while ((word = strsep(&rest, ","))) {
		char *value = strchr(word, '='), quoted[64];
		error_quote(quoted, sizeof(quoted), word);
		if (value)
			*value++ = 0;
		if (!value || parse_fault(word, value, ret) < 0)
			return why(ret_why, -EINVAL, "SLICEFS_DISK_FAULTS: %s: not a fault of a disk. "
				   "Try: delay=20ms, eio=0.01, enospc=0.01, tear=0.01, flip=0.01, "
				   "only=reads, only=writes, journal=20, stays=yes", quoted);
	}
	return 0;
}

int disk_faults_env(struct disk_faults **ret, char **ret_why)
{
	int r = 0;

	*ret = NULL;
#ifdef SLICEFS_CRASH_POINTS
	static struct disk_faults faults;
	const char *env = getenv("SLICEFS_DISK_FAULTS");

	if (!env || !*env)
		return 0;
	r = disk_faults_parse(env, &faults, ret_why);
	if (!r)
		*ret = &faults;
#else
	(void)ret_why;
#endif
	return r;
}
