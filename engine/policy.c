/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object has a slot, by its number, in memory that stays where it is (chunks.h).
 *
 * A queue is a list from the oldest on, linked one way only, and ends with an empty slot:
 *
 *	oldest -> o -> o -> o -> end (empty)
 *
 * What is new comes into that one, and its own is the end then. Who goes from the middle
 * swaps slots with the one behind it, of whom it is known what stands behind. So slots
 * change their objects, and nobody outside knows a slot's number.
 *
 * They are found by fileid in a table that grows by one bucket at a time: no call pays for all.
 *
 * policy_use() goes through that without the lock, while others change it. No slot or bucket
 * is ever given back, and whoever finds a number in a link finds the slot filled: links are
 * stored with release and read with acquire. All else is relaxed: the worst that can happen
 * is a use that is not counted, or is another one's, of an object whose slot changes in that
 * moment.
 */
#include "engine/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/lock.h"
#include "common/random.h"
#include "engine/ghosts.h"

enum {
	LOAD = 3,         /* objects a bucket */
	CHAIN_MAX = 64,   /* links that a use follows: lists may change under it for ever */
	SMALL_SHARE = 10, /* the small queue has one of so many parts */
	USES_MAX = 3,
	USES_BITS = 2,
	HITS_MAX = 63,
	TURNS = 256,      /* that are looked at in one go, under the lock */
	PAGES_BITS = 11,
};

enum where { FREE, SMALL, MAIN, TAKEN };

struct entry {
	_Atomic uint32_t fileid;
	_Atomic uint16_t fileid_high;
	uint16_t parent_high;
	uint32_t parent, h;     /* of h the upper bits */
	uint16_t pages;         /* pages_pack() */
	uint8_t where : 2, priority : 2;
	bool ghostly : 1;       /* TAKEN: out of the small queue */
	_Atomic uint8_t uses;   /* USES_MAX of them count; above them USES_BITS, all hits */
	_Atomic uint32_t chain; /* the next one of its bucket; 0: none */
	uint32_t next;          /* the slot's, whatever is in it: in its queue, or of free ones */
};

_Static_assert(sizeof(struct entry) == 28, "28 bytes an object");

struct queue {
	uint32_t oldest, end;
	uint64_t weight;
};

struct policy {
	_Atomic uint64_t nbuckets;
	struct chunks entries, buckets; /* struct entry; links */

	struct lock lock;
	uint32_t nentries; /* ever used; 0 is none */
	uint32_t free;
	uint32_t spare;    /* an empty slot, for swaps */
	struct ghosts ghosts;
	struct queue queues[POLICY_KINDS][POLICY_PRIORITIES][MAIN + 1];
	struct policy_stat stat;
};

static struct entry *entry(struct policy *p, uint32_t n)
{
	return chunks_at(&p->entries, n, sizeof(struct entry));
}

static _Atomic uint32_t *bucket(struct policy *p, uint64_t n)
{
	return chunks_at(&p->buckets, n, sizeof(uint32_t));
}

/* Entries ------------------------------------------------------------------------------ */

/* A number of 11 bits, and by how many bits it is shifted: less than a thousandth is lost. */
static uint16_t pages_pack(uint32_t pages)
{
	unsigned shift = 0;

	while (pages >> shift >> PAGES_BITS)
		shift++;
	return (uint16_t)(shift << PAGES_BITS | pages >> shift);
}

static uint32_t pages_of(const struct entry *e)
{
	return (e->pages & ((1U << PAGES_BITS) - 1)) << (e->pages >> PAGES_BITS);
}

static uint64_t fileid_of(const struct entry *e)
{
	return (uint64_t)atomic_load_explicit(&e->fileid_high, memory_order_relaxed) << 32 |
	       atomic_load_explicit(&e->fileid, memory_order_relaxed);
}

static void fileid_set(struct entry *e, uint64_t fileid)
{
	atomic_store_explicit(&e->fileid, (uint32_t)fileid, memory_order_relaxed);
	atomic_store_explicit(&e->fileid_high, (uint16_t)(fileid >> 32), memory_order_relaxed);
}

/* With the hits, and without. */
static unsigned all_uses_of(const struct entry *e)
{
	return atomic_load_explicit(&e->uses, memory_order_relaxed);
}

static void all_uses_set(struct entry *e, unsigned n)
{
	atomic_store_explicit(&e->uses, (uint8_t)n, memory_order_relaxed);
}

static unsigned uses_of(const struct entry *e)
{
	return all_uses_of(e) & USES_MAX;
}

static void uses_set(struct entry *e, unsigned n)
{
	all_uses_set(e, (all_uses_of(e) & ~(unsigned)USES_MAX) | n);
}

static uint32_t link_of(const _Atomic uint32_t *at)
{
	return atomic_load_explicit(at, memory_order_acquire);
}

static void link_set(_Atomic uint32_t *at, uint32_t n)
{
	atomic_store_explicit(at, n, memory_order_release);
}

static struct policy_object object_of(const struct entry *e)
{
	return (struct policy_object){
		fileid_of(e), (uint64_t)e->parent_high << 32 | e->parent,
		(uint64_t)e->h << POLICY_H_LOW, pages_of(e), e->priority,
	};
}

static enum policy_kind kind_of(const struct entry *e)
{
	return e->pages ? POLICY_PAGES : POLICY_BARE;
}

static uint64_t weight_of(const struct entry *e)
{
	return e->pages ? pages_of(e) : 1;
}

static void blank(struct entry *e)
{
	fileid_set(e, 0);
	all_uses_set(e, 0);
	link_set(&e->chain, 0);
	e->where = FREE;
}

/* An empty one; 0: no memory. */
static uint32_t entry_new(struct policy *p)
{
	uint32_t n = p->free;

	if (n) {
		p->free = entry(p, n)->next;
		return n;
	}
	if (p->nentries == UINT32_MAX - 1 ||
	    chunks_room(&p->entries, p->nentries + 2ULL, sizeof(struct entry)) < 0)
		return 0;
	return ++p->nentries;
}

/* The table ---------------------------------------------------------------------------- */

static _Atomic uint32_t *bucket_of(struct policy *p, uint64_t fileid)
{
	uint64_t n = atomic_load_explicit(&p->nbuckets, memory_order_acquire); /* its chunk */

	return bucket(p, linear_place(random_mix(fileid), n));
}

/* What leads to the entry, or the end of its chain. */
static _Atomic uint32_t *find(struct policy *p, uint64_t fileid)
{
	_Atomic uint32_t *at = bucket_of(p, fileid);
	uint32_t n;

	while ((n = link_of(at)) && fileid_of(entry(p, n)) != fileid)
		at = &entry(p, n)->chain;
	return at;
}

/* The next bucket in turn becomes two. Without memory the chains get longer. */
static void split(struct policy *p)
{
	uint64_t nbuckets = p->nbuckets;

	if (chunks_room(&p->buckets, nbuckets + 1, sizeof(uint32_t)) < 0)
		return;
	_Atomic uint32_t *from = bucket(p, linear_split(nbuckets));
	uint32_t n = link_of(from);

	link_set(from, 0);
	atomic_store_explicit(&p->nbuckets, nbuckets + 1, memory_order_release);
	while (n) {
		struct entry *e = entry(p, n);
		_Atomic uint32_t *at = bucket_of(p, fileid_of(e));
		uint32_t next = link_of(&e->chain);

		assert(at == from || at == bucket(p, nbuckets));
		link_set(&e->chain, link_of(at));
		link_set(at, n);
		n = next;
	}
}

/* The object of a slot, to an empty one. */
static void move(struct policy *p, uint32_t from, uint32_t to)
{
	struct entry *a = entry(p, from), *b = entry(p, to);
	_Atomic uint32_t *at = find(p, fileid_of(a));

	assert(link_of(at) == from && b->where == FREE);
	fileid_set(b, fileid_of(a));
	b->parent_high = a->parent_high;
	b->parent = a->parent;
	b->h = a->h;
	b->pages = a->pages;
	b->where = a->where;
	b->priority = a->priority;
	b->ghostly = a->ghostly;
	all_uses_set(b, all_uses_of(a));
	link_set(&b->chain, link_of(&a->chain));
	link_set(at, to);
	blank(a);
}

/* Queues --------------------------------------------------------------------------------- */

static struct queue *queue_of(struct policy *p, const struct entry *e, enum where where)
{
	return &p->queues[kind_of(e)][e->priority][where];
}

static void push(struct policy *p, uint32_t n, enum where where)
{
	struct queue *q = queue_of(p, entry(p, n), where);
	struct entry *e = entry(p, q->end);

	move(p, n, q->end);
	e->where = where;
	e->next = n;
	q->end = n;
	q->weight += weight_of(e);
}

/* Out of its queue: the slot in which it is then. */
static uint32_t pull(struct policy *p, uint32_t n)
{
	struct entry *e = entry(p, n);
	struct queue *q = queue_of(p, e, e->where);
	uint32_t behind = e->next, spare = p->spare;

	q->weight -= weight_of(e);
	if (n == q->oldest) {
		q->oldest = behind;
		return n;
	}
	move(p, n, spare);
	if (behind == q->end) {
		q->end = n;
	} else {
		move(p, behind, n);
		e->next = entry(p, behind)->next;
	}
	p->spare = behind;
	return spare;
}

/* Objects ---------------------------------------------------------------------------------- */

static uint64_t nobjects(const struct policy *p)
{
	return p->stat.objects[POLICY_PAGES] + p->stat.objects[POLICY_BARE];
}

static void count(struct policy *p, const struct entry *e, int by)
{
	p->stat.objects[kind_of(e)] += (uint64_t)by;
	p->stat.pages += (uint64_t)by * pages_of(e);
}

static bool is_name(const struct policy_object *a, const struct policy_object *b)
{
	return a->parent == b->parent && a->h >> POLICY_H_LOW == b->h >> POLICY_H_LOW;
}

/* Has its name gone lately? That is forgotten then. */
static bool comes_back(struct policy *p, const struct policy_object *o)
{
	bool was = ghosts_take(&p->ghosts, o);

	p->stat.back += was;
	return was;
}

/* All of o, in no queue yet, but in the table. A name that comes back soon, also by a rename,
 * has its object in the main queue. */
static void become(struct policy *p, uint32_t n, const struct policy_object *o)
{
	struct entry *e = entry(p, n);
	struct policy_object before = object_of(e);
	enum where where = e->where;

	if ((where == FREE || !is_name(o, &before)) && comes_back(p, o) && where != TAKEN)
		where = MAIN;
	e->parent_high = (uint16_t)(o->parent >> 32);
	e->parent = (uint32_t)o->parent;
	e->h = (uint32_t)(o->h >> POLICY_H_LOW);
	e->pages = pages_pack(o->pages);
	e->priority = o->priority;
	count(p, e, 1);
	if (where != TAKEN)
		push(p, n, where == FREE ? SMALL : where);
}

static bool fits(const struct policy_object *o)
{
	return !((o->fileid | o->parent) >> 48) && !(o->h >> 32 >> POLICY_H_LOW) &&
	       o->priority < POLICY_PRIORITIES;
}

static int put_new(struct policy *p, const struct policy_object *o, _Atomic uint32_t *at)
{
	uint32_t n = entry_new(p);

	if (!n)
		return -ENOMEM;
	fileid_set(entry(p, n), o->fileid);
	link_set(at, n);
	become(p, n, o);
	if (nobjects(p) > p->nbuckets * LOAD)
		split(p);
	return 0;
}

int policy_put(struct policy *p, const struct policy_object *o)
{
	if (!fits(o))
		return -ERANGE;
	WITH_LOCK(&p->lock);
	_Atomic uint32_t *at = find(p, o->fileid);
	uint32_t n = link_of(at);
	if (!n)
		return put_new(p, o, at);
	struct entry *e = entry(p, n);
	struct policy_object before = object_of(e);

	if (is_name(o, &before) && pages_pack(o->pages) == e->pages &&
	    o->priority == e->priority)
		return 0;
	count(p, e, -1);
	become(p, e->where == TAKEN ? n : pull(p, n), o);
	return 0;
}

void policy_remove(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t n = link_of(find(p, fileid));

	if (!n)
		return;
	if (entry(p, n)->where != TAKEN)
		n = pull(p, n);
	struct entry *e = entry(p, n);
	struct policy_object o = object_of(e);

	if (e->where == TAKEN)
		p->stat.taken--;
	if (e->where == TAKEN && e->ghostly)
		ghosts_add(&p->ghosts, &o, nobjects(p));
	count(p, e, -1);
	link_set(find(p, fileid), link_of(&e->chain));
	blank(e);
	e->next = p->free;
	p->free = n;
}

static struct entry *find_unlocked(struct policy *p, uint64_t fileid)
{
	uint32_t n = link_of(bucket_of(p, fileid));

	for (unsigned i = 0; n && i < CHAIN_MAX; i++) {
		struct entry *e = entry(p, n);
		if (fileid_of(e) == fileid)
			return e;
		n = link_of(&e->chain);
	}
	return NULL;
}

void policy_use(struct policy *p, uint64_t fileid)
{
	struct entry *e = find_unlocked(p, fileid);

	if (!e)
		return;
	unsigned before = all_uses_of(e), uses = before & USES_MAX, hits = before >> USES_BITS;
	uses += uses < USES_MAX;
	hits += hits < HITS_MAX;
	if ((hits << USES_BITS | uses) != before) /* else its line stays with whoever reads it */
		all_uses_set(e, hits << USES_BITS | uses);
}

unsigned policy_hits(struct policy *p, uint64_t fileid)
{
	const struct entry *e = find_unlocked(p, fileid);

	return e ? all_uses_of(e) >> USES_BITS : 0;
}

bool policy_get(struct policy *p, uint64_t fileid, struct policy_object *ret)
{
	WITH_LOCK(&p->lock);
	uint32_t n = link_of(find(p, fileid));

	if (n)
		*ret = object_of(entry(p, n));
	return n;
}

/* Victims ---------------------------------------------------------------------------------- */

static void take(struct policy *p, uint32_t n, bool ghostly, struct policy_object *ret)
{
	struct entry *e = entry(p, n);

	e->ghostly = ghostly;
	e->where = TAKEN;
	p->stat.taken++;
	*ret = object_of(e);
}

/* One turn of queues of one priority: 1: it is taken; 0: the next one; -1: there is none. */
static int turn(struct policy *p, struct queue *queues, struct policy_object *ret)
{
	struct queue *small = &queues[SMALL], *main = &queues[MAIN];
	bool has_small = small->oldest != small->end, has_main = main->oldest != main->end;
	bool is_small = has_small && (!has_main || small->weight * SMALL_SHARE >=
							   small->weight + main->weight);

	if (!has_small && !has_main)
		return -1;
	uint32_t n = pull(p, is_small ? small->oldest : main->oldest);
	unsigned uses = uses_of(entry(p, n));

	if (uses) {
		uses_set(entry(p, n), is_small ? 0 : uses - 1);
		push(p, n, MAIN);
		return 0;
	}
	take(p, n, is_small, ret);
	return 1;
}

bool policy_take(struct policy *p, enum policy_kind kind, struct policy_object *ret)
{
	for (unsigned priority = 0; priority < POLICY_PRIORITIES;) {
		WITH_LOCK(&p->lock);
		for (unsigned i = 0; i < TURNS; i++) {
			int r = turn(p, p->queues[kind][priority], ret);
			if (r > 0)
				return true;
			if (r < 0 && ++priority == POLICY_PRIORITIES)
				return false;
		}
	}
	return false;
}

bool policy_take_this(struct policy *p, uint64_t fileid, struct policy_object *ret)
{
	WITH_LOCK(&p->lock);
	uint32_t n = link_of(find(p, fileid));

	if (!n || entry(p, n)->where == TAKEN)
		return false;
	take(p, pull(p, n), false, ret);
	return true;
}

/* Where c stands: an object, or the end of all. What stood there may have moved: then it goes on
 * with the oldest of that queue. */
static bool settle(struct policy *p, enum policy_kind kind, struct policy_cursor *c)
{
	for (; c->queue < POLICY_PRIORITIES * 2; c->queue++, c->slot = 0) {
		struct queue *q = &p->queues[kind][c->queue / 2][SMALL + c->queue % 2];
		const struct entry *e = entry(p, c->slot);
		bool is_here = c->slot == q->end || ((e->where == SMALL || e->where == MAIN) &&
						     queue_of(p, e, e->where) == q);
		if (!c->slot || !is_here)
			c->slot = q->oldest;
		if (c->slot != q->end)
			return true;
	}
	return false;
}

unsigned policy_see(struct policy *p, enum policy_kind kind, struct policy_cursor *c,
		    struct policy_object *v, unsigned n)
{
	WITH_LOCK(&p->lock);
	unsigned i = 0;

	for (; i < n && settle(p, kind, c); i++) {
		v[i] = object_of(entry(p, c->slot));
		c->slot = entry(p, c->slot)->next;
	}
	return i;
}

void policy_keep(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t n = link_of(find(p, fileid));

	if (!n || entry(p, n)->where != TAKEN)
		return;
	p->stat.taken--;
	push(p, n, MAIN);
}

/* Opening, looking --------------------------------------------------------------------------- */

enum { QUEUES = POLICY_KINDS * POLICY_PRIORITIES * 2 };

static struct queue *queue_at(struct policy *p, unsigned i)
{
	return &p->queues[i / 2 / POLICY_PRIORITIES][i / 2 % POLICY_PRIORITIES][SMALL + i % 2];
}

/* The ends of the queues and the spare one. */
static int first_slots(struct policy *p)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		struct queue *q = queue_at(p, i);
		q->oldest = q->end = entry_new(p);
		if (!q->end)
			return -ENOMEM;
	}
	p->spare = entry_new(p);
	return p->spare ? 0 : -ENOMEM;
}

int policy_new(struct policy **ret)
{
	struct policy *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	lock_init(&p->lock, LOCK_POLICY);
	p->nbuckets = 1;
	int r = chunks_init(&p->entries);
	if (!r)
		r = chunks_init(&p->buckets);
	if (!r)
		r = ghosts_init(&p->ghosts);
	if (!r)
		r = chunks_room(&p->buckets, 1, sizeof(uint32_t));
	if (!r)
		r = first_slots(p);
	if (r < 0) {
		policy_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct policy *policy_free(struct policy *p)
{
	if (!p)
		return NULL;
	chunks_fini(&p->entries);
	chunks_fini(&p->buckets);
	ghosts_fini(&p->ghosts);
	lock_fini(&p->lock);
	free(p);
	return NULL;
}

void policy_stat(struct policy *p, struct policy_stat *ret)
{
	WITH_LOCK(&p->lock);

	*ret = p->stat;
	ret->bytes = p->entries.bytes + p->buckets.bytes + p->ghosts.prints.bytes;
}

static int complain(struct writer *report, const char *what, uint64_t number)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "policy: %" PRIu64 " %s\n", number, what);

	write_bytes(report, line, (size_t)n);
	return 1;
}

static int check_queue(struct policy *p, struct queue *q, struct writer *report, uint64_t *nseen)
{
	uint64_t weight = 0;

	for (uint32_t n = q->oldest; n != q->end; n = entry(p, n)->next) {
		const struct entry *e = entry(p, n);
		if ((e->where != SMALL && e->where != MAIN) || queue_of(p, e, e->where) != q)
			return complain(report, "stands in a wrong queue", n);
		weight += weight_of(e);
		++*nseen;
	}
	int bad = entry(p, q->end)->where == FREE ?
		0 : complain(report, "is no end of a queue", q->end);
	if (q->weight != weight)
		bad += complain(report, "is not the weight of a queue", q->weight);
	return bad;
}

/* Each in the bucket where it is looked for; their sums are those of stat. */
static int check_table(struct policy *p, struct writer *report)
{
	struct policy_stat sums = { 0 };
	int bad = 0;

	for (uint64_t i = 0; i < p->nbuckets; i++) {
		for (uint32_t n = link_of(bucket(p, i)); n; n = link_of(&entry(p, n)->chain)) {
			const struct entry *e = entry(p, n);
			if (bucket_of(p, fileid_of(e)) != bucket(p, i) || e->where == FREE)
				bad += complain(report, "is in a wrong bucket", fileid_of(e));
			sums.objects[kind_of(e)]++;
			sums.pages += pages_of(e);
			sums.taken += e->where == TAKEN;
		}
	}
	if (sums.objects[POLICY_PAGES] != p->stat.objects[POLICY_PAGES] ||
	    sums.objects[POLICY_BARE] != p->stat.objects[POLICY_BARE])
		bad += complain(report, "is not the number of objects", nobjects(p));
	if (sums.pages != p->stat.pages || sums.taken != p->stat.taken)
		bad += complain(report, "is not the sum of pages, or of those taken", p->stat.pages);
	return bad;
}

/* Every slot is an object's, the end of a queue, the spare one, or free. */
static int check_slots(struct policy *p, struct writer *report)
{
	uint64_t n = nobjects(p) + QUEUES + 1;
	int bad = 0;

	for (uint32_t i = p->free; i; i = entry(p, i)->next, n++)
		if (entry(p, i)->where != FREE || fileid_of(entry(p, i)))
			return complain(report, "is not free, but among those that are", i);
	if (entry(p, p->spare)->where != FREE)
		bad += complain(report, "is not spare", p->spare);
	if (n != p->nentries)
		bad += complain(report, "is not the number of slots", n);
	return bad;
}

int policy_check(struct policy *p, struct writer *report)
{
	WITH_LOCK(&p->lock);
	uint64_t nseen = p->stat.taken;
	int bad = check_table(p, report) + check_slots(p, report);

	for (unsigned i = 0; i < QUEUES; i++)
		bad += check_queue(p, queue_at(p, i), report, &nseen);
	if (nseen != nobjects(p))
		bad += complain(report, "is not the number of those in queues", nseen);
	return bad;
}
