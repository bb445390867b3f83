/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A round lets some objects go, and ends: whoever waits looks for room again, and if there
 * is too little yet begins the next one. A round that finds none that can go has looked at
 * each once. But what nobody has open any more may be pinned for a moment still: by a mount whose
 * message is on its way, by what comes back from the disk, by a drop. So whoever it was for is held
 * (evict_inbox.h), and served by a later round, or when there are free pages. Where none may go (all
 * is pinned by its users, or written) it was in vain at once.
 */
#include "engine/evict.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/emptied.h"
#include "engine/evict_inbox.h"
#include "engine/pool.h"
#include "engine/priv.h"
#include "engine/tier.h"
#include "engine/victim.h"

enum what { POOL, INDEX, WHATS };

enum {
	ROUND = 32,     /* objects that go in one */
	LOOK_MS = 1000, /* how often watermarks are looked at; and again, after it was in vain */
	AGAIN_S = 10,   /* when it is tried again to end an object that was in use */
	QUOTA_SPARE = 32, /* of a quota one part goes in addition */
};

struct evict {
	struct engine *e;
	struct policy *policy;
	struct expiry *expiry;
	struct uses *uses;
	struct victims *victims;
	struct emptied *emptied;
	unsigned high, low; /* percent */

	struct inbox inbox;

	/* The thread's: is it on its way to the low watermark? Not before then. */
	bool above[WHATS];
	uint64_t rests_ns[WHATS];
	uint64_t *stay; /* taken in this round, and could not go */
	size_t nstay, stay_cap;
	uint64_t over;  /* the last directory that had more than its quota */
	bool has_thread;
	pthread_t thread;
};

static struct place place_of(const struct policy_object *o)
{
	return (struct place){ o->parent ? PLACE_NAME : PLACE_FILEID, o->parent, o->h };
}

/* As index_stat(): where its record is, is known about only. */
static int stat_object(struct evict *x, const struct policy_object *o, struct index_op *op)
{
	*op = (struct index_op){ .fileid = o->fileid, .place = place_of(o) };
	return index_wait(x->e->ix, op, o->parent ? index_stat_near : index_stat);
}

/* 0: nobody is at it. `lent`: but for the disk. *op is as stat_object()'s. */
static int look_at(struct evict *x, const struct policy_object *o, bool lent, struct index_op *op)
{
	int r = stat_object(x, o, op);

	return r ? r : victim_look(x->victims, &op->entry, lent);
}

/* 0: it has gone. */
static int let_go_lent(struct evict *x, const struct policy_object *o, bool lent,
		       enum metric reason)
{
	_cleanup_(index_op_fini) struct index_op op = { 0 };
	int r = look_at(x, o, lent, &op);

	return r ? r : victim_go_wait(x->victims, o->fileid, op.entry.place, reason);
}

static int let_go(struct evict *x, const struct policy_object *o, enum metric reason)
{
	return let_go_lent(x, o, false, reason);
}

/* What was taken cannot go, and has its turn again, but not in this round: else all turns of it
 * were those of a few that are open and come before all others. */
static void stays(struct evict *x, uint64_t fileid)
{
	if (array_room(x->stay, x->stay_cap, x->nstay + 1, 64))
		policy_keep(x->policy, fileid);
	else
		x->stay[x->nstay++] = fileid;
}

static void end_round(struct evict *x)
{
	for (size_t i = 0; i < x->nstay; i++)
		policy_keep(x->policy, x->stay[i]);
	free(steal(&x->stay));
	x->nstay = x->stay_cap = 0;
}

/* The same of one that was taken. What the disk has as well goes from memory only, if it may
 * (back: not NULL), and is counted there instead. */
static bool let_go_taken(struct evict *x, const struct policy_object *o, enum metric reason,
			 unsigned *back)
{
	_cleanup_(index_op_fini) struct index_op op = { 0 };
	int r = look_at(x, o, false, &op);

	if (!r && back && !tier_go_back(x->e->tier, &op)) {
		policy_keep(x->policy, o->fileid);
		++*back;
		return false;
	}
	if (!r)
		r = victim_go_wait(x->victims, o->fileid, op.entry.place, reason);
	if (r)
		stays(x, o->fileid);
	return !r;
}

_Static_assert((int)POLICY_H_LOW <= (int)INDEX_NEAR_BITS, "enough to find a record by");

/* Which go first: for the index those of which there are more. */
static enum policy_kind kind_for(struct evict *x, enum what what)
{
	struct policy_stat st;

	policy_stat(x->policy, &st);
	return what == INDEX && st.objects[POLICY_BARE] > st.objects[POLICY_PAGES] ?
		POLICY_BARE : POLICY_PAGES;
}

static enum policy_kind other(enum policy_kind kind)
{
	return kind == POLICY_PAGES ? POLICY_BARE : POLICY_PAGES;
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

/* Until it is no fuller than that, percent. Who waits is not to come again for each page. */
static unsigned enough(const struct evict *x, enum what what, bool waited)
{
	static const unsigned needed[] = { [POOL] = 99, [INDEX] = 97 };

	return waited ? needed[what] : x->low;
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
		int r = v[i].outcome;
		if (r == TIER_NOT) /* somebody may have opened it meanwhile */
			r = let_go_lent(x, o, v[i].lent, M_EVICTED_POOL);
		if (r)
			stays(x, o->fileid);
		else if (v[i].outcome != TIER_NOT)
			policy_keep(x->policy, o->fileid);
		gone += !r;
	}
	return gone;
}

/* As evict_round(), for what goes to the disk: pages, so many at a time, of *ret_tried objects.
 * since_ns: somebody waits since then, or 0. */
static unsigned demote_some(struct evict *x, uint64_t pages, uint64_t since_ns,
			    unsigned *ret_tried)
{
	_cleanup_(freep) struct tier_victim *v = calloc(TIER_MAX, sizeof(*v));
	bool waited = since_ns;
	uint64_t left = nobjects(x), taken = 0;
	uint64_t used = pool_npages(x->e->pool) - pool_nfree(x->e->pool);
	uint64_t low = (uint64_t)pool_npages(x->e->pool) * enough(x, POOL, waited) / 100;
	unsigned n = 0;

	for (; v && left && n < TIER_MAX && taken < pages; left--) {
		if ((n || !waited) && used < low + taken)
			break;
		if (!policy_take(x->policy, POLICY_PAGES, &v[n].object))
			break;
		_cleanup_(index_op_fini) struct index_op op = { 0 };
		if (look_at(x, &v[n].object, false, &op)) {
			stays(x, v[n].object.fileid);
			continue;
		}
		v[n].place = op.entry.place;
		taken += v[n++].object.pages;
	}
	*ret_tried = n;
	if (!n)
		return 0;
	tier_demote(x->e->tier, v, n, since_ns);
	return end_demotion(x, v, n);
}

/* Those that were taken may have been changed meanwhile, all of them: there are others. What the
 * disk takes of these is asked anew, for it may have been too slow with the first ones; *pages 0:
 * nothing, and they go without it. */
static unsigned demote_round(struct evict *x, uint64_t *pages, uint64_t since_ns)
{
	unsigned n, tried;

	do {
		n = demote_some(x, *pages, since_ns, &tried);
	} while (since_ns && !n && tried && (*pages = tier_budget(x->e->tier, true)));
	return n;
}

static int leave_disk(void *arg, uint64_t fileid)
{
	struct evict *x = arg;
	struct policy_object o;

	return policy_get(x->policy, fileid, &o) ? let_go(x, &o, M_EVICTED_DISK) : -ENOENT;
}

static int find(void *arg, uint64_t fileid, struct index_op *ret)
{
	struct evict *x = arg;
	struct policy_object o;

	return policy_get(x->policy, fileid, &o) ? stat_object(x, &o, ret) : INDEX_MISS;
}

/* Also what is pinned, which is no victim. */
static int find_any(void *arg, uint64_t fileid, struct index_op *ret)
{
	struct evict *x = arg;
	struct place place;

	if (!expiry_place(x->expiry, fileid, &place))
		return find(arg, fileid, ret);
	*ret = (struct index_op){ .fileid = fileid, .place = place };
	return index_wait(x->e->ix, ret, index_stat);
}

/* The thread's own question. */
static bool is_waited(void *arg)
{
	struct evict *x = arg;

	return inbox_is_waited(&x->inbox);
}

static void condemn(void *arg, uint64_t fileid, struct bytes body)
{
	struct evict *x = arg;

	inbox_condemn(&x->inbox, fileid, body);
}

/* It may have come back meanwhile, since a disk can be read the next time, and have been written. */
static void end_one(struct evict *x, const struct condemned *c)
{
	_cleanup_(index_op_fini) struct index_op op = { 0 };
	struct victim v = { .fileid = c->fileid, .reason = M_EVICTED_DISK,
			    .body = BYTES_OF(c->body, c->len) };

	if (find(x, c->fileid, &op) || !op.entry.attr.away ||
	    !bytes_eq(op.entry.body.bytes, v.body) || victim_look(x->victims, &op.entry, false))
		return;
	v.place = op.entry.place;
	victim_go_now(x->victims, &v);
}

static void end_condemned(struct evict *x)
{
	struct condemned *next;

	for (struct condemned *c = inbox_take_condemned(&x->inbox); c; c = next) {
		next = c->next;
		end_one(x, c);
		free(c);
	}
}

static void begin_disk(struct evict *x)
{
	const struct tier_calls c = { .evict = leave_disk, .condemn = condemn, .find = find_any,
				      .is_waited = is_waited, .arg = x };

	if (x->e->tier)
		tier_set_calls(x->e->tier, &c);
}

/* Of one kind: how many have gone. Those that went from memory only are in *back as well. */
static unsigned evict_kind(struct evict *x, enum what what, enum policy_kind kind, bool waited,
			   unsigned *back)
{
	enum metric reason = what == POOL ? M_EVICTED_POOL : M_EVICTED_INDEX;
	bool has_disk = what == POOL && x->e->tier;
	uint64_t left = nobjects(x);
	struct policy_object o;
	unsigned n = 0;

	for (; left && n + *back < ROUND; left--) {
		if ((n + *back || !waited) && !is_beyond(x, what, enough(x, what, waited)))
			break;
		if (!policy_take(x->policy, kind, &o))
			break;
		n += let_go_taken(x, &o, reason, has_disk ? back : NULL);
	}
	return n + *back;
}

/* How many have gone. Where somebody waits, one at least. An object of either kind makes room in
 * the index, and only one that has pages in the pool. */
static unsigned evict_round(struct evict *x, enum what what, bool waited)
{
	uint64_t since_ns = waited ? clock_ns() : 0;
	uint64_t pages = what == POOL && x->e->tier ? tier_budget(x->e->tier, waited) : 0;
	enum policy_kind kind = kind_for(x, what);
	unsigned n = 0, back = 0;

	if (pages)
		n = demote_round(x, &pages, since_ns);
	if (pages)
		return n;
	n = evict_kind(x, what, kind, waited, &back);
	if (!n && what == INDEX)
		n = evict_kind(x, what, other(kind), waited, &back);
	if (what == POOL && x->e->tier)
		tier_passed(x->e->tier, n - back);
	return n;
}

/* Begins above the high watermark, and ends below the low one, or in vain. */
static bool is_wanted(struct evict *x, enum what what)
{
	if (!x->high || clock_ns() < x->rests_ns[what])
		return false;
	x->above[what] = is_beyond(x, what, x->above[what] ? x->low : x->high);
	return x->above[what];
}

static bool serve(struct evict *x, enum what what);

/* Whoever waits for pages does not wait for all of that. False: it is the end. */
static bool serve_pool_between(struct evict *x)
{
	if (is_waited(x))
		serve(x, POOL);
	return !inbox_is_ending(&x->inbox);
}

static uint64_t index_bytes(struct evict *x)
{
	struct kv *kv = index_kv(x->e->ix);
	struct kv_stat st;

	return kv->ops->stat(kv, &st) < 0 ? 0 : st.used_bytes;
}

/* Nothing else can go for it: emptied directories, until some have gone, all were tried, or others
 * have made room. */
static unsigned press(struct evict *x)
{
	uint64_t used = index_bytes(x);
	unsigned gone;

	while (emptied_press(x->emptied, &gone) && !gone && serve_pool_between(x))
		if (index_bytes(x) < used)
			return 1;
	return gone;
}

static bool serve(struct evict *x, enum what what)
{
	struct evict_waiter *waiters = what == POOL ? inbox_take_waiters(&x->inbox) : NULL;
	struct kv_req *reqs = what == INDEX ? inbox_take_reqs(&x->inbox) : NULL;

	if (!waiters && !reqs && !is_wanted(x, what))
		return false;
	unsigned n = victims_spare(x->victims) ? 1 : evict_round(x, what, waiters || reqs);
	bool busy = x->nstay;
	end_round(x);
	if (!n && reqs)
		n = press(x);
	if (n) {
		atomic_fetch_add(&x->inbox.number, 1);
	} else if (!waiters && !reqs) {
		x->above[what] = false;
		x->rests_ns[what] = clock_ns() + LOOK_MS * NS_PER_MS;
	}
	inbox_answer(&x->inbox, waiters, n, busy, pool_nfree(x->e->pool));
	inbox_answer_reqs(&x->inbox, index_kv(x->e->ix), reqs, n, busy);
	return n;
}

/* Quotas ----------------------------------------------------------------------------------- */

/* The same of whoever waits. */
static bool serve_between(struct evict *x)
{
	if (is_waited(x)) {
		serve(x, POOL);
		serve(x, INDEX);
	}
	return !inbox_is_ending(&x->inbox);
}

struct found { /* below a directory */
	struct policy_object *v;
	size_t n, cap;
	uint64_t pages;
};

static bool is_below(const struct evict *x, const struct policy_object *o, uint64_t dir)
{
	return o->parent && uses_is_below(x->uses, o->parent, dir);
}

/* They go, until `*pages`, which become less, have gone. How many. */
static unsigned let_go_found(struct evict *x, struct found *f, uint64_t dir, uint64_t *pages)
{
	struct policy_object o;
	unsigned gone = 0;

	for (size_t i = 0; i < f->n && *pages; i++) {
		if (i % ROUND == 0 && !serve_between(x))
			break;
		if (!policy_take_this(x->policy, f->v[i].fileid, &o))
			continue;
		if (!is_below(x, &o, dir)) { /* by now it is elsewhere */
			policy_keep(x->policy, o.fileid);
			continue;
		}
		if (!let_go_taken(x, &o, M_EVICTED_QUOTA, NULL))
			continue;
		gone++;
		*pages -= *pages < o.pages ? *pages : o.pages;
	}
	f->n = 0;
	f->pages = 0;
	return gone;
}

/* What is below a directory goes until it has `pages` less, or all has been looked at, in the
 * order in which it would have gone anyway: those that were used last, after the others. First
 * so many are found: what goes would have the walk begin anew. */
static bool let_go_of(struct evict *x, uint64_t dir, uint64_t pages)
{
	struct policy_object v[ROUND];
	struct policy_cursor c = { 0 };
	struct found f = { .n = 0 };
	uint64_t left = nobjects(x);
	unsigned n, gone = 0;

	while (left && pages && serve_between(x) &&
	       (n = policy_see(x->policy, POLICY_PAGES, &c, v, ROUND))) {
		for (unsigned i = 0; i < n; i++) {
			if (!is_below(x, &v[i], dir))
				continue;
			if (array_room(f.v, f.cap, f.n + 1, ROUND) < 0)
				break; /* out of memory: another time */
			f.v[f.n++] = v[i];
			f.pages += v[i].pages;
		}
		left -= left < n ? left : n;
		if (f.pages >= pages)
			gone += let_go_found(x, &f, dir, &pages);
	}
	gone += let_go_found(x, &f, dir, &pages);
	free(f.v);
	return gone;
}

/* One directory that has more than it may have, and does not rest. A bit more goes than has to,
 * so that not each new file is a walk. */
static bool serve_quotas(struct evict *x)
{
	uint64_t pages, dir, below;

	x->over = dir = uses_over(x->uses, x->over, &pages);
	if (!dir)
		return false;
	below = uses_below(x->uses, dir);
	if (below > pages) /* not if much has just gone by itself */
		pages += (below - pages) / QUOTA_SPARE;
	bool gone = let_go_of(x, dir, pages);
	end_round(x);
	if (!gone)
		uses_rest(x->uses, dir, clock_ns() + LOOK_MS * NS_PER_MS);
	return true;
}

/* What has an end -------------------------------------------------------------------------- */

static int end_it(struct evict *x, const struct expiry_end *end, int64_t now)
{
	switch (end->reason) {
	case EXPIRY_PIN:
		return uses_look(x->uses, x->e->ix, end);
	case EXPIRY_TEMP: {
		_cleanup_(index_op_fini) struct index_op op = { .fileid = end->fileid,
								.place = end->place };
		int r = index_wait(x->e->ix, &op, index_stat);
		if (!r)
			r = victim_look(x->victims, &op.entry, false);
		return r ? r : victim_go_wait(x->victims, end->fileid, end->place,
					      M_EVICTED_TEMP);
	}
	default:
		return victim_go_now(x->victims, &(struct victim){
			.fileid = end->fileid, .place = end->place, .reason = M_EVICTED_TTL,
			.lived_at = now,
		});
	}
}

/* Some of them. Who is at one of these keeps it for a while. */
static bool serve_ends(struct evict *x)
{
	int64_t now = clock_now().tv_sec, next;
	struct expiry_end end;

	for (unsigned n = 0; n < ROUND; n++) {
		if (expiry_take(x->expiry, now, &end, &next))
			return false;
		int r = end_it(x, &end, now);
		if (!r || r == INDEX_MISS)
			continue;
		end.at = now + AGAIN_S;
		expiry_keep(x->expiry, &end);
	}
	return true;
}

/* The thread ----------------------------------------------------------------------------- */

/* What was there at the start. Who finds no room meanwhile waits for it. */
static void fill(struct evict *x)
{
	uint64_t begun_ns = clock_ns();
	int r = uses_fill(x->uses, x->e->ix);

	if (r < 0 && r != -ECANCELED)
		log_warn("cache", "not all objects are known to the eviction until the next start: "
			 "%s", error_text(r));
	uint64_t took_ms = (clock_ns() - begun_ns) / NS_PER_MS;
	if (!r && nobjects(x))
		log_info("cache", "%llu objects to evict, known after %llu ms",
			 (unsigned long long)nobjects(x), (unsigned long long)took_ms);
}

static void *run(void *arg)
{
	struct evict *x = arg;

	pthread_setname_np(pthread_self(), "evict");
	fill(x);
	bool more = true; /* what there was may be above a quota */
	while (inbox_sleep(&x->inbox, LOOK_MS, more)) {
		end_condemned(x);
		if (x->e->tier)
			tier_tend(x->e->tier);
		more = uses_count_more(x->uses);
		more |= serve_quotas(x);
		more |= serve(x, POOL);
		more |= serve(x, INDEX);
		more |= serve_ends(x);
		more |= emptied_serve(x->emptied);
	}
	return NULL;
}

/* Calls ------------------------------------------------------------------------------------ */

bool evict_makes_room(const struct evict *x)
{
	return x && x->high;
}

uint64_t evict_number(struct evict *x)
{
	return atomic_load(&x->inbox.number);
}

void evict_wait(struct evict *x, uint64_t number, struct evict_waiter *w)
{
	inbox_wait_pages(&x->inbox, number, w);
}

uint64_t evict_dirs_ms(const struct evict *x)
{
	return emptied_ms(x->emptied);
}

void evict_watch(struct evict *x, const struct eviction *v)
{
	victims_watch(x->victims, v);
}

void evict_go(struct evict *x, struct victim *v)
{
	v->reason = M_EVICTED_ASKED;
	victim_go(x->victims, v);
}

int evict_go_wait(struct evict *x, uint64_t fileid, struct place place)
{
	return victim_go_wait(x->victims, fileid, place, M_EVICTED_ASKED);
}

void evict_about(struct evict *x, uint64_t fileid, struct wire_about *ret)
{
	*ret = (struct wire_about){
		.hits = policy_hits(x->policy, fileid),
		.expires = expiry_at(x->expiry, fileid),
		.used = uses_below(x->uses, fileid) * PAGE_BYTES,
	};
}

void evict_count_quotas(struct evict *x)
{
	uint64_t over, n = uses_quotas(x->uses, &over);

	metric_set(M_QUOTAS, (int64_t)n);
	metric_set(M_QUOTAS_OVER, (int64_t)over);
}

uint64_t evict_bytes(struct evict *x)
{
	struct policy_stat st;

	if (!x->high)
		return 0;
	policy_stat(x->policy, &st);
	uint64_t held = pool_nheld(x->e->pool); /* somebody has it open: it cannot go now */
	return held < st.pages ? (st.pages - held) * PAGE_BYTES : 0;
}

uint64_t evict_objects(struct evict *x)
{
	return x->high ? nobjects(x) : 0;
}

void evict_use(struct evict *x, uint64_t fileid)
{
	policy_use(x->policy, fileid);
	expiry_use(x->expiry, fileid, time_up_s(clock_now()));
}

/* Ours are not among those that wait: they only delete, or take what is kept for that. */
static bool is_full(void *arg, struct kv_req *req)
{
	struct evict *x = arg;
	bool puts = false;

	for (uint32_t i = 0; i < req->nwrites; i++)
		puts |= req->writes[i].value.p != NULL;
	return puts && !req->reserve && inbox_wait_index(&x->inbox, req);
}

/* An alloc has left little, or a directory has too much. */
static void poke(void *arg)
{
	struct evict *x = arg;

	inbox_poke(&x->inbox);
}

static int open_parts(struct evict *x, const struct evict_opts *o)
{
	int r = policy_new(&x->policy);

	if (!r)
		r = expiry_new(&x->expiry);
	/* The disk's log asks for what it has a copy of, also if that is no victim. */
	struct uses_opts uo = { x->policy, x->expiry, o->temp_s, x->e->tier, poke, x };
	if (!r)
		r = uses_open(x->e->ix, &uo, &x->uses);
	if (!r)
		r = victims_new(x->e, x->uses, &x->victims);
	return r ? r : emptied_new(x->victims, x->e->ix, o->dirs_ms, &x->emptied);
}

int evict_open(struct engine *e, const struct evict_opts *o, struct evict **ret)
{
	struct evict *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->e = e;
	x->high = o->high;
	x->low = o->low < o->high ? o->low : o->high;
	inbox_init(&x->inbox);
	int r = open_parts(x, o);
	if (!r)
		begin_disk(x);
	if (!r)
		r = -pthread_create(&x->thread, NULL, run, x);
	x->has_thread = !r;
	if (r < 0) {
		evict_free(x);
		return r;
	}
	*ret = x;
	if (!x->high)
		return 0;
	pool_watch(e->pool, (uint32_t)((uint64_t)pool_npages(e->pool) * (100 - x->high) / 100), poke,
		   x);
	kv_make_room(index_kv(e->ix), is_full, x);
	return 0;
}

void evict_stop(struct evict *x)
{
	if (!x || !x->has_thread)
		return;
	pool_watch(x->e->pool, 0, NULL, NULL);
	inbox_end(&x->inbox);
	uses_stop(x->uses);
	pthread_join(x->thread, NULL);
	x->has_thread = false;
	inbox_answer_all(&x->inbox, index_kv(x->e->ix));
	kv_make_room(index_kv(x->e->ix), NULL, NULL);
}

void evict_free(struct evict *x)
{
	if (!x)
		return;
	emptied_free(x->emptied);
	victims_free(x->victims);
	uses_close(x->uses);
	expiry_free(x->expiry);
	policy_free(x->policy);
	inbox_fini(&x->inbox);
	free(x);
}

int evict_check(struct evict *x, struct writer *report)
{
	return uses_check(x->uses, x->policy, x->e->ix, report);
}
