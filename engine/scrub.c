/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk goes from record to record (index_all_bodies()), and from there to the bytes. Where
 * an extent's bytes are is known to look_at_extent() alone: a pool of another kind is another
 * case there.
 */
#include "engine/scrub.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/size.h"
#include "engine/fetch.h"
#include "engine/tier.h"
#include "engine/wire.h"

enum {
	KEEP_BAD = 10000,        /* that nobody has asked for yet; more are counted only */
	REPORT_BAD = 256,        /* of one report, */
	REPORT_BYTES = 48 << 10, /* and of their paths, about */
	MORE_LOOKS = 3,          /* at what moves on under it, before it is passed over */
	BURST_MS = 50,           /* what was not read in time may be read at once */
	LOWEST_PRIORITY = 19,
};

struct bad {
	struct scrub_bad what; /* its path points into `path` */
	struct bad *next;
	char path[];
};

struct scrub {
	struct scrubs *all;
	struct scrub_opts o;

	/* Under the lock. */
	bool is_owned, is_running, is_stopped;
	struct scrub_report far; /* without `bad` */
	struct bad *first, **last;
	uint32_t nkept;

	/* The thread's. */
	struct tier_look *look; /* at what is on the disk, if there is one */
	uint64_t due_ns; /* not to go on before */
	enum scrub_found found;
};

struct scrubs {
	struct engine *e;
	struct lock lock; /* LOCK_SCRUB */
	pthread_cond_t changed;
	struct scrub *running;
	bool has_thread; /* that of the last one, until it is joined */
	pthread_t thread;
	struct eviction watcher;
	bool is_telling;
};

static void scrub_free(struct scrub *s)
{
	struct bad *b;

	assert(!s->look);
	while ((b = s->first)) {
		s->first = b->next;
		free(b);
	}
	free(s);
}

/* True: it was told to stop. */
static bool wait_until(struct scrub *s, uint64_t ns)
{
	WITH_LOCK(&s->all->lock);

	while (!s->is_stopped && ns > clock_ns())
		lock_wait_until(&s->all->lock, &s->all->changed, ns);
	return s->is_stopped;
}

/* So many bytes have been read: no more before their time is over. True: as above. */
static bool pace(struct scrub *s, uint64_t bytes)
{
	uint64_t now = clock_ns(), burst = BURST_MS * NS_PER_MS;

	{
		WITH_LOCK(&s->all->lock);
		s->far.bytes += bytes;
	}
	metric_add(M_SCRUBBED_BYTES, (int64_t)bytes);
	if (s->o.rate) {
		if (s->due_ns + burst < now)
			s->due_ns = now - burst;
		s->due_ns += (uint64_t)((double)bytes * (double)NS_PER_S / (double)s->o.rate);
	}
	/* To sleep for less than a millisecond takes more than that. */
	return wait_until(s, s->due_ns > now + NS_PER_MS ? s->due_ns : 0);
}

/* Bytes ----------------------------------------------------------------------------- */

/* A block of 64 KiB; it is pinned only while it is read. */
static enum scrub_found look_at_block(struct scrub *s, const struct extent *x, uint32_t block,
				      uint64_t sum)
{
	struct pool *pool = s->all->e->pool;
	struct slice_id id = { x->slice, x->gen };
	uint64_t off = (uint64_t)block * SUM_PAGES * PAGE_BYTES;
	uint32_t bytes = fetch_block_bytes(x->slice_pages, block);
	enum scrub_found found = SCRUB_GONE;

	if (pool_pin(pool, id) < 0)
		return SCRUB_GONE;
	const uint8_t *p = pool_span(pool, id, off, bytes);
	if (p)
		found = fetch_sum(p, bytes) == sum ? SCRUB_SOUND : SCRUB_OTHER;
	if (found == SCRUB_SOUND && pool_needs_verify(pool, id, block))
		pool_verified(pool, id, block); /* who reads it next need not */
	if (found == SCRUB_OTHER) {
		pool_distrust(pool, id, block);
		metric_add(M_CHECKSUM_FAILURES, 1);
		log_error("scrub", "block %u of slice %u (generation %u) does not match its "
			  "checksum", block, id.page, id.gen);
	}
	pool_unpin(pool, id);
	return pace(s, bytes) ? SCRUB_STOPPED : found;
}

static enum scrub_found found_on_disk(int r)
{
	return r == -EUCLEAN ? SCRUB_OTHER : r == -EIO ? SCRUB_FAILED : SCRUB_GONE;
}

static enum scrub_found look_at_disk(struct scrub *s, const struct extent *x)
{
	for (uint32_t at = 0; at < x->npages;) {
		int n = tier_look(s->look, x, at);
		if (pace(s, n < 0 ? 0 : (uint64_t)n * PAGE_BYTES))
			return SCRUB_STOPPED;
		if (n < 0)
			return found_on_disk(n);
		at += (uint32_t)n;
	}
	return SCRUB_SOUND;
}

/* Reads and verifies an extent, wherever it is. */
static enum scrub_found look_at_extent(struct scrub *s, const struct extent *x)
{
	struct engine *e = s->all->e;
	uint32_t first = x->slice_off / SUM_PAGES;
	enum scrub_found found = SCRUB_SOUND;

	if (e->tier && x->pool_id == tier_id(e->tier))
		return look_at_disk(s, x);
	if (x->pool_id != pool_id(e->pool))
		return SCRUB_ELSEWHERE;
	if (x->slice_off + x->npages > x->slice_pages)
		return SCRUB_GONE;
	for (uint32_t i = 0; i < extent_nsums(x) && found == SCRUB_SOUND; i++)
		found = look_at_block(s, x, first + i, x->sums[i]);
	return found;
}

static int look_at_extents(void *arg, const struct attr *a, const struct extents *e)
{
	struct scrub *s = arg;

	(void)a;
	for (uint32_t i = 0; i < e->n; i++) {
		enum scrub_found found = look_at_extent(s, &e->v[i]);
		if (found == SCRUB_ELSEWHERE) {
			WITH_LOCK(&s->all->lock);
			s->far.elsewhere++;
		} else if (found != SCRUB_SOUND) {
			s->found = found;
			return -ECANCELED;
		}
	}
	return 0;
}

/* What is bad ----------------------------------------------------------------------------- */

/* Its record as it is now, and where. False: it has none any more. Of *ret no name is known if it
 * has moved. */
static bool read_again(struct scrub *s, const struct index_body *b, struct index_op *op,
		       struct index_body *ret)
{
	*op = (struct index_op){ .fileid = b->attr.fileid, .place = b->place };
	if (index_wait(s->all->e->ix, op, index_stat) || op->entry.draft)
		return false;
	*ret = (struct index_body){
		.place = op->entry.place, .attr = op->entry.attr, .body = op->entry.body,
		.copy = op->entry.copy,
	};
	if (place_is_same(b->place, ret->place))
		ret->name = b->name;
	return true;
}

/* Do both name the same bytes? A version may have gone to the disk meanwhile, or come back. */
static bool is_same(const struct index_body *a, const struct index_body *b)
{
	return a->attr.version == b->attr.version && bytes_eq(a->body.bytes, b->body.bytes);
}

struct names {
	struct scrub *s;
	struct index_name *v;
	size_t n, cap;
	char *path; /* of the first */
};

static int add_name(void *arg, const struct index_name *at, struct bytes name)
{
	struct names *n = arg;
	int r = array_room(n->v, n->cap, n->n + 1, 2);

	if (r < 0)
		return r;
	n->v[n->n++] = *at;
	if (n->n == 1 && index_path(n->s->all->e->ix, at->parent, name, n->path) < 0)
		*n->path = 0;
	return 0;
}

/* Its names, and the path of one of them in *path, or its number. */
static void find_names(struct scrub *s, const struct index_body *b, char path[INDEX_PATH_MAX],
		       struct names *ret)
{
	struct index *ix = s->all->e->ix;

	*ret = (struct names){ .s = s, .path = path };
	*path = 0;
	if (b->place.kind != PLACE_NAME || !b->name.p)
		index_names_of(ix, b->attr.fileid, add_name, ret);
	else if (index_path(ix, b->place.parent, b->name, path) < 0)
		*path = 0;
	if (!*path)
		snprintf(path, INDEX_PATH_MAX, "object %" PRIu64, b->attr.fileid);
}

/* Between these the watcher stays. */
static struct eviction tell_begin(struct scrubs *x)
{
	WITH_LOCK(&x->lock);

	x->is_telling = true;
	return x->watcher;
}

static void tell_end(struct scrubs *x)
{
	WITH_LOCK(&x->lock);

	x->is_telling = false;
	pthread_cond_broadcast(&x->changed);
}

static bool is_open(struct engine *e, uint64_t fileid)
{
	struct file *f = file_find(e, fileid);

	if (f)
		file_unref(f);
	return f;
}

/* As the eviction does it (evict.c). False: it is open here, somebody writes it, or it has
 * just changed: it stays. */
static bool evict(struct scrub *s, const struct index_body *b, const struct names *names)
{
	struct engine *e = s->all->e;
	_cleanup_(index_op_fini) struct index_op op = {
		.fileid = b->attr.fileid, .place = b->place,
		.names = names->v, .nnames = (uint32_t)names->n, .value = b->body.bytes,
	};

	if (is_open(e, op.fileid) || index_wait(e->ix, &op, index_evict))
		return false;
	const struct eviction v = tell_begin(s->all);
	if (v.evicted)
		v.evicted(v.arg, &op.gone, op.entries, op.nentries);
	tell_end(s->all);
	engine_drop(e, &op.gone);
	metric_add(M_EVICTED_BAD, 1);
	return true;
}

static void keep(struct scrub *s, struct scrub_bad what, const char *path)
{
	size_t len = strlen(path);
	struct bad *b = malloc(sizeof(*b) + len);

	if (b) {
		memcpy(b->path, path, len);
		what.path = BYTES_OF(b->path, len);
		*b = (struct bad){ .what = what };
	}
	WITH_LOCK(&s->all->lock);
	s->far.bad_objects++;
	s->far.evicted += what.evicted;
	if (!b || s->nkept == KEEP_BAD) {
		free(b);
		return;
	}
	s->nkept++;
	*s->last = b;
	s->last = &b->next;
}

static void is_bad(struct scrub *s, const struct index_body *b, enum scrub_reason reason)
{
	_cleanup_(freep) char *path = malloc(INDEX_PATH_MAX);
	struct scrub_bad what = { .fileid = b->attr.fileid, .reason = reason };
	struct names names;

	if (!path) {
		keep(s, what, "?");
		return;
	}
	find_names(s, b, path, &names);
	if (s->o.evict_bad && !b->damaged)
		what.evicted = evict(s, b, &names);
	log_error("scrub", "%s: %s%s", path, scrub_reason_text(reason),
		  what.evicted ? ": evicted" : "");
	keep(s, what, path);
	free(names.v);
}

/* The walk -------------------------------------------------------------------------------- */

static int look_at_body(struct scrub *s, const struct index_body *b)
{
	s->found = SCRUB_SOUND;
	int r = index_body_extents(s->all->e->ix, b, look_at_extents, s);
	if (s->found == SCRUB_STOPPED || wait_until(s, 0))
		return -ECANCELED;
	if (s->found == SCRUB_SOUND && r == -EUCLEAN)
		s->found = SCRUB_UNLISTED;
	return s->found == SCRUB_SOUND ? r : 0;
}

static int see_bytes(struct scrub *s, const struct index_body *b, unsigned looks)
{
	static const enum scrub_reason reasons[] = {
		[SCRUB_UNLISTED] = SCRUB_BLOCKS, [SCRUB_GONE] = SCRUB_NO_SLICE,
		[SCRUB_OTHER] = SCRUB_BYTES, [SCRUB_FAILED] = SCRUB_UNREAD,
	};
	_cleanup_(index_op_fini) struct index_op op = { 0 };
	struct index_body now;
	int r = look_at_body(s, b);

	if (r < 0 || s->found == SCRUB_SOUND)
		return r;
	enum scrub_reason reason = reasons[s->found];
	bool is_there = read_again(s, b, &op, &now);
	if (is_there && is_same(b, &now)) {
		is_bad(s, &now, reason);
		return 0;
	}
	if (is_there && looks)
		return see_bytes(s, &now, looks - 1);
	WITH_LOCK(&s->all->lock);
	s->far.changed++;
	return 0;
}

/* One that is damaged is done without: the object is in memory, and sound. */
static int see_copy(struct scrub *s, const struct index_body *b)
{
	struct index_body copy = *b;
	struct index_op op = { .fileid = b->attr.fileid, .place = b->place };

	if (!b->copy.len || !s->look)
		return 0;
	copy.body = (struct body){ BODY_EXTENTS, b->copy };
	int r = look_at_body(s, &copy);
	if (r < 0 || (s->found != SCRUB_OTHER && s->found != SCRUB_FAILED))
		return r;
	log_warn("scrub", "the copy on the disk of object %" PRIu64 " is damaged, and done without",
		 b->attr.fileid);
	r = index_wait(s->all->e->ix, &op, index_copy_drop);
	index_op_fini(&op);
	return r < 0 ? r : 0;
}

static int see_body(void *arg, const struct index_body *b)
{
	struct scrub *s = arg;
	int r = b->damaged ? 0 : see_bytes(s, b, MORE_LOOKS);

	if (!r && !b->damaged && s->found == SCRUB_SOUND)
		r = see_copy(s, b);
	if (r < 0)
		return r;
	if (b->damaged)
		is_bad(s, b, SCRUB_RECORD);
	WITH_LOCK(&s->all->lock);
	s->far.objects++;
	return 0;
}

static void say(const struct scrub *s, uint64_t begun_ns)
{
	log_info("scrub", "%" PRIu64 " objects, %s in %.1f s: %s%" PRIu64 " bad, %" PRIu64
		 " changed meanwhile, %" PRIu64 " extents elsewhere", s->far.objects,
		 size_text(s->far.bytes).s, (double)(clock_ns() - begun_ns) / NS_PER_S,
		 s->far.result == -ECANCELED ? "stopped: " : "", s->far.bad_objects,
		 s->far.changed, s->far.elsewhere);
}

static void *run(void *arg)
{
	struct scrub *s = arg;
	struct scrubs *x = s->all;
	uint64_t begun_ns = clock_ns();

	pthread_setname_np(pthread_self(), "scrub");
	setpriority(PRIO_PROCESS, 0, LOWEST_PRIORITY); /* on Linux, of this thread */
	int r = x->e->tier ? tier_look_new(x->e->tier, &s->look) : 0;
	if (!r)
		r = index_all_bodies(x->e->ix, see_body, s);
	s->look = tier_look_free(s->look);
	metric_add(M_SCRUBS, -1);
	WITH_LOCK(&x->lock);
	s->far.result = r;
	s->far.ended = true;
	say(s, begun_ns);
	s->is_running = false;
	x->running = NULL;
	if (!s->is_owned)
		scrub_free(s);
	pthread_cond_broadcast(&x->changed);
	return NULL;
}

/* Calls ------------------------------------------------------------------------------------- */

/* None is under way: a thread that is there still does nothing any more. */
static void join(struct scrubs *x)
{
	if (x->has_thread)
		pthread_join(x->thread, NULL);
	x->has_thread = false;
}

/* Under the lock, for which the thread waits at its end. */
static int start(struct scrubs *x, struct scrub *s)
{
	if (x->running)
		return -EBUSY;
	join(x);
	int r = -pthread_create(&x->thread, NULL, run, s);
	if (r < 0)
		return r;
	x->has_thread = true;
	x->running = s;
	metric_add(M_SCRUBS, 1);
	return 0;
}

static uint64_t bytes_there(struct engine *e)
{
	struct tier_space disk = { 0 };

	if (e->tier)
		tier_space(e->tier, &disk);
	return (uint64_t)(pool_npages(e->pool) - pool_nfree(e->pool)) * PAGE_BYTES + disk.live_bytes;
}

int scrub_begin(struct scrubs *x, const struct scrub_opts *o, struct scrub **ret)
{
	struct scrub *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->all = x;
	s->o = *o;
	s->is_owned = s->is_running = true;
	s->last = &s->first;
	s->far.total = bytes_there(x->e);
	WITH_LOCK(&x->lock);
	int r = start(x, s);
	if (r < 0)
		free(s);
	else
		*ret = s;
	return r;
}

void scrub_end(struct scrub *s)
{
	if (!s)
		return;
	struct scrubs *x = s->all;
	WITH_LOCK(&x->lock);
	s->is_stopped = true;
	s->is_owned = false;
	pthread_cond_broadcast(&x->changed);
	if (!s->is_running)
		scrub_free(s);
}

void scrub_write(struct scrub *s, struct writer *w)
{
	struct scrub_bad v[REPORT_BAD];
	struct bad *taken = NULL, **last = &taken;
	size_t bytes = 0;

	WITH_LOCK(&s->all->lock);
	struct scrub_report m = s->far;
	m.bad = v;
	while (s->first && bytes < REPORT_BYTES && m.nbad < REPORT_BAD) {
		struct bad *b = s->first;
		s->first = b->next;
		s->nkept--;
		bytes += b->what.path.len;
		v[m.nbad++] = b->what;
		b->next = NULL;
		*last = b;
		last = &b->next;
	}
	if (!s->first)
		s->last = &s->first;
	if (s->first) { /* there is more to be told first */
		m.ended = false;
		m.result = 0;
	}
	wire_write_scrub_report(w, &m);
	while (taken) {
		struct bad *b = taken;
		taken = b->next;
		free(b);
	}
}

int scrub_read(struct bytes report, struct scrub_report *ret)
{
	return wire_read_scrub_report(report, ret);
}

void scrub_report_fini(struct scrub_report *r)
{
	free(r->bad);
	r->bad = NULL;
}

const char *scrub_reason_text(enum scrub_reason reason)
{
	static const char *const texts[] = {
		[SCRUB_BYTES] = "its bytes do not match their checksum",
		[SCRUB_BLOCKS] = "a block that lists its extents is missing or damaged",
		[SCRUB_RECORD] = "its record in the index is damaged",
		[SCRUB_NO_SLICE] = "it names a slice that is not there",
		[SCRUB_UNREAD] = "the disk cannot read it",
	};

	return reason >= SCRUB_BYTES && reason <= SCRUB_UNREAD ? texts[reason] : "?";
}

void scrubs_watch(struct scrubs *x, const struct eviction *v)
{
	WITH_LOCK(&x->lock);

	while (x->is_telling)
		lock_wait(&x->lock, &x->changed);
	x->watcher = v ? *v : (struct eviction){ 0 };
}

int scrubs_new(struct engine *e, struct scrubs **ret)
{
	struct scrubs *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->e = e;
	lock_init(&x->lock, LOCK_SCRUB);
	lock_cond_init(&x->changed);
	*ret = x;
	return 0;
}

void scrubs_free(struct scrubs *x)
{
	if (!x)
		return;
	{
		WITH_LOCK(&x->lock);
		while (x->running) {
			x->running->is_stopped = true;
			pthread_cond_broadcast(&x->changed);
			lock_wait(&x->lock, &x->changed);
		}
	}
	join(x);
	pthread_cond_destroy(&x->changed);
	lock_fini(&x->lock);
	free(x);
}
