/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A round lets some objects go, and ends: whoever waits looks for room again, and if there
 * is too little yet begins the next one. A round that finds none that can go has looked at
 * each once: then those wait in vain who waited when it began.
 *
 * Whether an object is in use is seen by what it consists of: an open file has pinned all of
 * its slices, so one of them will do. A body in the record has no slices: what is inline or a
 * symlink's target goes, and who has it open has a copy.
 */
#include "engine/evict.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "engine/pool.h"
#include "engine/priv.h"
#include "engine/tier.h"
#include "engine/uses.h"

enum what { POOL, INDEX, WHATS };

enum {
	ROUND = 32,     /* objects that go in one */
	LOOK_MS = 1000, /* how often watermarks are looked at; and again, after it was in vain */
};

/* What is to go, whatever room there is. */
struct condemned {
	uint64_t fileid;
	struct condemned *next;
};

struct evict {
	struct engine *e;
	struct policy *policy;
	struct uses *uses;
	unsigned high, low; /* percent */

	struct lock lock;
	pthread_cond_t more;
	struct evict_waiter *waiters; /* the newest first */
	struct kv_req *reqs;          /* that found the index full; the same */
	struct condemned *condemned;
	bool poked, ending;
	_Atomic uint64_t number;
	struct eviction watcher;
	bool is_telling;
	pthread_cond_t told;

	/* The thread's: is it on its way to the low watermark? Not before then. */
	bool above[WHATS];
	uint64_t rests_ns[WHATS];
	bool has_thread;
	pthread_t thread;
};

/* One object ----------------------------------------------------------------------------- */

static int one_pinned(void *arg, const struct extent *x)
{
	struct evict *ev = arg;
	struct slice_view v;

	return pool_next(ev->e->pool, x->slice, &v) && v.id.page == x->slice && v.pins;
}

/* The first block that a list of them names: its extents, or a list. */
static int first_block(struct evict *x, uint64_t fileid, struct bytes list, struct index_op *op)
{
	_cleanup_(freep) struct block_ref *v = NULL;
	uint32_t n = 0;
	int r = body_append_blocks(list, &v, &n);

	if (r < 0 || !n)
		return r < 0 ? r : -EUCLEAN;
	*op = (struct index_op){ .fileid = fileid, .blocks = v, .nblocks = 1 };
	return index_wait(x->e->ix, op, index_get_blocks);
}

/* 1: one of its slices is; 0; negative: it cannot be read. */
static int is_pinned(struct evict *x, uint64_t fileid, const struct body *b)
{
	_cleanup_(index_op_fini) struct index_op node = { 0 }, leaf = { 0 };
	struct bytes list = b->bytes;
	int r = 0;

	if (b->kind == BODY_EXTENTS)
		return body_each_extent(list, one_pinned, x);
	if (b->kind != BODY_BLOCKS && b->kind != BODY_TREE)
		return 0;
	if (b->kind == BODY_TREE) {
		r = first_block(x, fileid, list, &node);
		if (!r)
			list = node.rows->rows[0].value;
	}
	if (!r)
		r = first_block(x, fileid, list, &leaf);
	return r ? r : body_each_extent(leaf.rows->rows[0].value, one_pinned, x);
}

static bool is_open(struct evict *x, uint64_t fileid)
{
	struct file *f = file_find(x->e, fileid);

	if (f)
		file_unref(f);
	return f;
}

/* Between these the watcher stays. */
static struct eviction tell_begin(struct evict *x)
{
	WITH_LOCK(&x->lock);

	x->is_telling = true;
	return x->watcher;
}

static void tell_end(struct evict *x)
{
	WITH_LOCK(&x->lock);

	x->is_telling = false;
	pthread_cond_broadcast(&x->told);
}

static void tell(struct evict *x, const struct index_op *op)
{
	const struct eviction v = tell_begin(x);

	if (v.evicted)
		v.evicted(v.arg, &op->gone, op->entries, op->nentries);
	tell_end(x);
}

static bool spare(struct evict *x)
{
	const struct eviction v = tell_begin(x);
	bool has = v.spare && v.spare(v.arg);

	tell_end(x);
	return has;
}

/* Where its record is, as far as one knows. */
static struct index_op op_on(const struct policy_object *o)
{
	return (struct index_op){
		.fileid = o->fileid,
		.place = { o->parent ? PLACE_NAME : PLACE_FILEID, o->parent, o->h },
	};
}

/* 0: it has gone. */
static int let_go(struct evict *x, const struct policy_object *o)
{
	_cleanup_(freep) struct index_name *names = NULL;
	struct index_op op = op_on(o);
	int n = o->parent ? 0 : uses_names(x->uses, o->fileid, &names);

	if (n < 0)
		return n;
	op.names = names;
	op.nnames = (uint32_t)n;
	int r = index_wait(x->e->ix, &op, index_evict);
	if (!r) {
		metric_add(M_EVICTED_BYTES, (int64_t)o->pages * PAGE_BYTES);
		tell(x, &op);
		engine_drop(x->e, &op.gone);
	}
	index_op_fini(&op);
	return r;
}

static int look_at(struct evict *x, const struct policy_object *o)
{
	_cleanup_(index_op_fini) struct index_op op = op_on(o);
	int r = is_open(x, o->fileid) ? -EBUSY : index_wait(x->e->ix, &op, index_stat);

	if (!r)
		r = is_pinned(x, o->fileid, &op.entry.body) ? -EBUSY : 0;
	return r;
}

/* Of bare ones, or of any: of which there are more. */
static enum policy_kind kind_for(struct evict *x, enum what what)
{
	struct policy_stat st;

	policy_stat(x->policy, &st);
	return what == INDEX && st.objects[POLICY_BARE] > st.objects[POLICY_PAGES] ?
		POLICY_BARE : POLICY_PAGES;
}

/* Rounds ---------------------------------------------------------------------------------- */

static bool is_beyond(struct evict *x, enum what what, unsigned percent)
{
	uint64_t all = pool_npages(x->e->pool), used = all - pool_nfree(x->e->pool);

	if (what == INDEX) {
		struct kv *kv = index_kv(x->e->ix);
		struct kv_stat st;
		if (kv->ops->stat(kv, &st) < 0)
			return false;
		all = st.room_bytes;
		used = st.used_bytes;
	}
	return (double)used * 100 > (double)all * percent;
}

/* Who waits is not to come again for each page. */
static bool is_enough(struct evict *x, enum what what, bool waited)
{
	static const unsigned needed[] = { [POOL] = 99, [INDEX] = 97 };

	return !is_beyond(x, what, waited ? needed[what] : x->low);
}

static uint64_t nobjects(struct evict *x)
{
	struct policy_stat st;

	policy_stat(x->policy, &st);
	return st.objects[POLICY_PAGES] + st.objects[POLICY_BARE];
}

/* The disk ----------------------------------------------------------------------------- */

/* So many have gone, one way or the other. */
static unsigned end_demotion(struct evict *x, const struct tier_victim *v, unsigned n)
{
	unsigned gone = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct policy_object *o = &v[i].object;
		int r = v[i].outcome == TIER_NOT ? let_go(x, o) : v[i].outcome;
		if (r || v[i].outcome != TIER_NOT)
			policy_keep(x->policy, o->fileid);
		else
			metric_add(M_EVICTED_POOL, 1);
		gone += !r;
	}
	return gone;
}

/* As evict_round(), for what goes to the disk: pages, so many at a time. since_ns: somebody
 * waits since then, or 0. */
static unsigned demote_round(struct evict *x, uint64_t pages, uint64_t since_ns)
{
	_cleanup_(freep) struct tier_victim *v = calloc(TIER_MAX, sizeof(*v));
	bool waited = since_ns;
	uint64_t left = nobjects(x), taken = 0;
	uint64_t used = pool_npages(x->e->pool) - pool_nfree(x->e->pool);
	uint64_t low = (uint64_t)pool_npages(x->e->pool) * (waited ? 99 : x->low) / 100;
	unsigned n = 0;

	for (; v && left && n < TIER_MAX && taken < pages; left--) {
		if ((n || !waited) && used < low + taken)
			break;
		if (!policy_take(x->policy, POLICY_PAGES, &v[n].object))
			break;
		if (look_at(x, &v[n].object))
			policy_keep(x->policy, v[n].object.fileid);
		else
			taken += v[n++].object.pages;
	}
	/* What was being written when somebody began to wait has left room for him. */
	if (!n)
		return waited && used < low;
	tier_demote(x->e->tier, v, n, since_ns);
	return end_demotion(x, v, n);
}

static int leave_disk(void *arg, uint64_t fileid)
{
	struct evict *x = arg;
	struct policy_object o;

	return policy_get(x->policy, fileid, &o) ? let_go(x, &o) : -ENOENT;
}

static bool find(void *arg, uint64_t fileid, struct policy_object *ret)
{
	return policy_get(((struct evict *)arg)->policy, fileid, ret);
}

static bool is_waited(void *arg)
{
	struct evict *x = arg;

	WITH_LOCK(&x->lock);
	return x->waiters || x->reqs || x->ending;
}

static void condemn(void *arg, uint64_t fileid)
{
	struct evict *x = arg;
	struct condemned *c = malloc(sizeof(*c));

	if (!c)
		return; /* who opens it next will say so again */
	c->fileid = fileid;
	WITH_LOCK(&x->lock);
	LL_PREPEND(x->condemned, c);
	pthread_cond_signal(&x->more);
}

static void end_condemned(struct evict *x)
{
	struct condemned *c, *next;

	{
		WITH_LOCK(&x->lock);
		c = steal(&x->condemned);
	}
	for (; c; c = next) {
		next = c->next;
		if (!leave_disk(x, c->fileid))
			metric_add(M_EVICTED_DISK, 1);
		free(c);
	}
}

static void begin_disk(struct evict *x)
{
	const struct tier_calls c = { .evict = leave_disk, .condemn = condemn, .find = find,
				      .is_waited = is_waited, .arg = x };

	if (x->e->tier)
		tier_set_calls(x->e->tier, &c);
}

/* How many have gone. Where somebody waits, one at least. */
static unsigned evict_round(struct evict *x, enum what what, bool waited)
{
	uint64_t left = nobjects(x), since_ns = waited ? clock_ns() : 0;
	uint64_t pages = what == POOL && x->e->tier ? tier_budget(x->e->tier, waited) : 0;
	struct policy_object o;
	unsigned n = 0;

	if (pages)
		return demote_round(x, pages, since_ns);
	for (; left && n < ROUND; left--) {
		if ((n || !waited) && is_enough(x, what, waited))
			break;
		if (!policy_take(x->policy, kind_for(x, what), &o))
			break;
		int r = look_at(x, &o);
		if (!r)
			r = let_go(x, &o);
		if (r)
			policy_keep(x->policy, o.fileid);
		n += !r;
	}
	metric_add(what == POOL ? M_EVICTED_POOL : M_EVICTED_INDEX, n);
	if (what == POOL && x->e->tier)
		tier_passed(x->e->tier, n);
	return n;
}

/* In the order of their coming. */
static struct evict_waiter *take_waiters(struct evict *x)
{
	WITH_LOCK(&x->lock);
	struct evict_waiter *w, *in_order = NULL;

	while ((w = x->waiters)) {
		LL_DELETE(x->waiters, w);
		LL_PREPEND(in_order, w);
	}
	return in_order;
}

static void run_waiters(struct evict_waiter *w, bool in_vain)
{
	while (w) {
		struct evict_waiter *next = w->next;
		w->in_vain = in_vain;
		metric_add(M_EVICT_WAITS, -1);
		task_run(&w->task);
		w = next;
	}
}

/* Begins above the high watermark, and ends below the low one, or in vain. */
static bool is_wanted(struct evict *x, enum what what)
{
	if (!x->high || clock_ns() < x->rests_ns[what])
		return false;
	x->above[what] = is_beyond(x, what, x->above[what] ? x->low : x->high);
	return x->above[what];
}

/* Requests that the index has no room for: again, or to their end. */
static struct kv_req *take_reqs(struct evict *x)
{
	WITH_LOCK(&x->lock);
	struct kv_req *req, *in_order = NULL;

	while ((req = x->reqs)) {
		LL_DELETE(x->reqs, req);
		LL_PREPEND(in_order, req);
	}
	return in_order;
}

static void run_reqs(struct evict *x, struct kv_req *req, bool in_vain)
{
	struct kv *kv = index_kv(x->e->ix);

	while (req) {
		struct kv_req *next = req->next;
		req->next = NULL;
		metric_add(M_EVICT_WAITS, -1);
		if (in_vain)
			kv_end_full(kv, req);
		else
			kv_submit_again(kv, req);
		req = next;
	}
}

static bool serve(struct evict *x, enum what what)
{
	struct evict_waiter *waiters = what == POOL ? take_waiters(x) : NULL;
	struct kv_req *reqs = what == INDEX ? take_reqs(x) : NULL;

	if (!waiters && !reqs && !is_wanted(x, what))
		return false;
	unsigned n = spare(x) ? 1 : evict_round(x, what, waiters || reqs);
	if (n) {
		atomic_fetch_add(&x->number, 1);
	} else if (!waiters && !reqs) {
		x->above[what] = false;
		x->rests_ns[what] = clock_ns() + LOOK_MS * NS_PER_MS;
	}
	run_waiters(waiters, !n);
	run_reqs(x, reqs, !n);
	return n;
}

static void *run(void *arg)
{
	struct evict *x = arg;

	pthread_setname_np(pthread_self(), "evict");
	for (bool more = false;;) {
		{
			WITH_LOCK(&x->lock);
			if (!more && !x->waiters && !x->reqs && !x->poked && !x->ending &&
			    !x->condemned)
				lock_wait_until(&x->lock, &x->more,
						clock_ns() + LOOK_MS * NS_PER_MS);
			x->poked = false;
			if (x->ending)
				return NULL;
		}
		end_condemned(x);
		if (x->e->tier)
			tier_tend(x->e->tier);
		more = serve(x, POOL);
		more |= serve(x, INDEX);
	}
}

/* Calls ------------------------------------------------------------------------------------ */

uint64_t evict_number(struct evict *x)
{
	return atomic_load(&x->number);
}

void evict_wait(struct evict *x, uint64_t number, struct evict_waiter *w)
{
	{
		WITH_LOCK(&x->lock);
		w->in_vain = x->ending;
		if (!x->ending && atomic_load(&x->number) == number) {
			metric_add(M_EVICT_WAITS, 1);
			LL_PREPEND(x->waiters, w);
			pthread_cond_signal(&x->more);
			return;
		}
	}
	task_run(&w->task);
}

void evict_watch(struct evict *x, const struct eviction *v)
{
	WITH_LOCK(&x->lock);

	while (x->is_telling)
		lock_wait(&x->lock, &x->told);
	x->watcher = v ? *v : (struct eviction){ 0 };
}

uint64_t evict_bytes(struct evict *x)
{
	struct policy_stat st;

	policy_stat(x->policy, &st);
	return st.pages * PAGE_BYTES;
}

void evict_use(struct evict *x, uint64_t fileid)
{
	policy_use(x->policy, fileid);
}

/* An alloc has left little. */
static void poke(void *arg)
{
	struct evict *x = arg;

	WITH_LOCK(&x->lock);
	x->poked = true;
	pthread_cond_signal(&x->more);
}

/* Ours are not among those that wait: they only delete, or take what is kept for that. */
static bool is_full(void *arg, struct kv_req *req)
{
	struct evict *x = arg;
	bool puts = false;

	for (uint32_t i = 0; i < req->nwrites; i++)
		puts |= req->writes[i].value.p != NULL;
	WITH_LOCK(&x->lock);
	if (x->ending || !puts || req->reserve)
		return false;
	LL_PREPEND(x->reqs, req);
	metric_add(M_EVICT_WAITS, 1);
	pthread_cond_signal(&x->more);
	return true;
}

int evict_open(struct engine *e, unsigned high, unsigned low, struct evict **ret)
{
	struct evict *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->e = e;
	x->high = high;
	x->low = low < high ? low : high;
	lock_init(&x->lock, LOCK_EVICT);
	lock_cond_init(&x->more);
	pthread_cond_init(&x->told, NULL);
	int r = policy_new(&x->policy);
	if (!r)
		r = uses_open(e->ix, x->policy, &x->uses);
	if (!r)
		begin_disk(x);
	if (!r)
		r = -pthread_create(&x->thread, NULL, run, x);
	x->has_thread = !r;
	if (r < 0) {
		evict_free(x);
		return r;
	}
	if (high)
		pool_watch(e->pool, (uint32_t)((uint64_t)pool_npages(e->pool) * (100 - high) / 100),
			   poke, x);
	kv_make_room(index_kv(e->ix), is_full, x);
	*ret = x;
	return 0;
}

void evict_stop(struct evict *x)
{
	if (!x || !x->has_thread)
		return;
	pool_watch(x->e->pool, 0, NULL, NULL);
	{
		WITH_LOCK(&x->lock);
		x->ending = true;
		pthread_cond_signal(&x->more);
	}
	pthread_join(x->thread, NULL);
	x->has_thread = false;
	run_waiters(take_waiters(x), true);
	run_reqs(x, take_reqs(x), true);
	kv_make_room(index_kv(x->e->ix), NULL, NULL);
}

void evict_free(struct evict *x)
{
	if (!x)
		return;
	for (struct condemned *c; (c = x->condemned);) {
		LL_DELETE(x->condemned, c);
		free(c);
	}
	uses_close(x->uses);
	policy_free(x->policy);
	pthread_cond_destroy(&x->more);
	pthread_cond_destroy(&x->told);
	lock_fini(&x->lock);
	free(x);
}
