/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are numbers: of entry n the memory is in chunk n / CHUNK, so that nothing is
 * moved when there are more. They are found by fileid in a table that grows by one bucket
 * at a time (linear hashing: W. Litwin, "Linear hashing: a new tool for file and table
 * addressing", VLDB 1980): no call pays for all.
 *
 * Ghosts are prints of names in sets of four, each with the number of the one that it was.
 * One that is older than there are objects is forgotten, as is the oldest of a full set.
 */
#include "engine/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/lock.h"
#include "common/random.h"

enum {
	CHUNK = 4096,
	SMALL_SHARE = 10, /* the small queue has one of so many parts */
	USES_MAX = 3,
	TURNS = 256,      /* that are looked at in one go, under the lock */
	WAYS = 4,
	GHOSTS_MIN = 1024,
	NAME_BITS = 8,    /* of h, that tell names of one hash apart: another one next time */
};

enum where { FREE, SMALL, MAIN, TAKEN };

struct entry {
	uint64_t fileid, parent, h;
	uint32_t pages;
	uint32_t prev, next; /* in its queue; 0: none. Of a free one: the next free one */
	uint32_t chain;      /* in its bucket */
	uint32_t hits;
	uint8_t where, kind, uses;
	bool ghostly;        /* TAKEN: out of the small queue */
};

_Static_assert(sizeof(struct entry) == 48, "48 bytes an object");

struct queue {
	uint32_t head, tail; /* what is new is at the head */
	uint64_t weight;
};

struct ghost {
	uint32_t print, number;
};

struct chunks {
	void **v;
	size_t n, cap;
};

struct policy {
	struct lock lock;
	struct chunks entries, buckets;
	uint32_t nentries;      /* ever used; 0 is none */
	uint32_t free;
	uint64_t nbuckets;      /* 1 << level, and those that have been split */
	unsigned level;
	struct queue queues[POLICY_KINDS][MAIN + 1];
	struct ghost *ghosts;   /* nghosts of them, sets of WAYS */
	uint64_t nghosts;
	uint32_t ghost_number;  /* of the last one */
	struct policy_stat stat;
};

/* Chunks ------------------------------------------------------------------------------ */

static struct entry *entry(struct policy *p, uint32_t n)
{
	return (struct entry *)p->entries.v[n / CHUNK] + n % CHUNK;
}

static uint32_t *bucket(struct policy *p, uint64_t n)
{
	return (uint32_t *)p->buckets.v[n / CHUNK] + n % CHUNK;
}

/* So that there are n at least, all zeros. */
static int chunks_room(struct policy *p, struct chunks *c, uint64_t n, size_t size)
{
	if (n <= c->n * CHUNK)
		return 0;
	int r = array_room(c->v, c->cap, c->n + 1, 16);
	if (r < 0)
		return r;
	c->v[c->n] = calloc(CHUNK, size);
	if (!c->v[c->n])
		return -ENOMEM;
	c->n++;
	p->stat.bytes += CHUNK * size;
	return 0;
}

static void chunks_fini(struct chunks *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->v[i]);
	free(c->v);
}

/* The table ---------------------------------------------------------------------------- */

static uint64_t bucket_of(const struct policy *p, uint64_t fileid)
{
	uint64_t h = random_mix(fileid), n = h & ((1ULL << p->level) - 1);

	if (n < p->nbuckets - (1ULL << p->level)) /* it has been split */
		n = h & ((2ULL << p->level) - 1);
	return n;
}

/* What leads to the entry, or the end of its chain. */
static uint32_t *find(struct policy *p, uint64_t fileid)
{
	uint32_t *at = bucket(p, bucket_of(p, fileid));

	while (*at && entry(p, *at)->fileid != fileid)
		at = &entry(p, *at)->chain;
	return at;
}

/* The next bucket in turn becomes two. Without memory the chains get longer. */
static void split(struct policy *p)
{
	if (chunks_room(p, &p->buckets, p->nbuckets + 1, sizeof(uint32_t)) < 0)
		return;
	uint32_t *from = bucket(p, p->nbuckets - (1ULL << p->level));
	uint32_t *to = bucket(p, p->nbuckets);
	uint32_t n = *from;

	*from = 0;
	p->nbuckets++;
	if (p->nbuckets == 2ULL << p->level)
		p->level++;
	while (n) {
		struct entry *e = entry(p, n);
		uint32_t *at = bucket(p, bucket_of(p, e->fileid)), next = e->chain;

		assert(at == from || at == to);
		e->chain = *at;
		*at = n;
		n = next;
	}
}

/* Queues --------------------------------------------------------------------------------- */

static uint64_t weight_of(const struct entry *e)
{
	return e->kind == POLICY_PAGES ? e->pages : 1;
}

static void push(struct policy *p, uint32_t n, enum where where)
{
	struct entry *e = entry(p, n);
	struct queue *q = &p->queues[e->kind][where];

	e->where = (uint8_t)where;
	e->prev = 0;
	e->next = q->head;
	if (q->head)
		entry(p, q->head)->prev = n;
	else
		q->tail = n;
	q->head = n;
	q->weight += weight_of(e);
}

static void pull(struct policy *p, uint32_t n)
{
	struct entry *e = entry(p, n);
	struct queue *q = &p->queues[e->kind][e->where];

	*(e->prev ? &entry(p, e->prev)->next : &q->head) = e->next;
	*(e->next ? &entry(p, e->next)->prev : &q->tail) = e->prev;
	q->weight -= weight_of(e);
}

/* Out of the queue that it is in; TAKEN, it is in none. */
static void leave(struct policy *p, uint32_t n)
{
	if (entry(p, n)->where != TAKEN)
		pull(p, n);
}

/* Ghosts --------------------------------------------------------------------------------- */

static uint32_t print_of(uint64_t parent, uint64_t h)
{
	return (uint32_t)(random_mix(parent * RANDOM_STEP ^ h >> NAME_BITS) >> 32);
}

static struct ghost *ghost_set(const struct policy *p, uint32_t print)
{
	return p->ghosts + (print & (p->nghosts / WAYS - 1)) * WAYS;
}

static uint64_t nobjects(const struct policy *p)
{
	return p->stat.objects[POLICY_PAGES] + p->stat.objects[POLICY_BARE];
}

/* As many as objects, at least. What was remembered is forgotten when there are twice as
 * many, and without memory there are none. */
static void ghosts_grow(struct policy *p)
{
	uint64_t n = p->nghosts ? p->nghosts : GHOSTS_MIN;

	while (n < nobjects(p))
		n *= 2;
	if (n == p->nghosts)
		return;
	struct ghost *v = calloc(n, sizeof(*v));
	if (!v)
		return;
	free(p->ghosts);
	p->stat.bytes += (n - p->nghosts) * sizeof(*v);
	p->ghosts = v;
	p->nghosts = n;
	p->ghost_number = UINT32_MAX / 2; /* zeros are too old */
}

static bool ghost_is_young(const struct policy *p, const struct ghost *g)
{
	return p->ghost_number - g->number < nobjects(p);
}

static void ghost_add(struct policy *p, const struct entry *e)
{
	ghosts_grow(p);
	if (!p->nghosts || !e->parent)
		return;
	uint32_t print = print_of(e->parent, e->h);
	struct ghost *set = ghost_set(p, print), *oldest = set;

	p->ghost_number++;
	for (unsigned i = 0; i < WAYS; i++) {
		if (p->ghost_number - set[i].number > p->ghost_number - oldest->number)
			oldest = &set[i];
		if (set[i].print == print) {
			oldest = &set[i];
			break;
		}
	}
	*oldest = (struct ghost){ print, p->ghost_number };
}

/* It is forgotten with that. */
static bool ghost_take(struct policy *p, uint64_t parent, uint64_t h)
{
	if (!p->nghosts || !parent)
		return false;
	uint32_t print = print_of(parent, h);
	struct ghost *set = ghost_set(p, print);

	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].print != print || !ghost_is_young(p, &set[i]))
			continue;
		set[i] = (struct ghost){ .number = p->ghost_number + INT32_MAX };
		p->stat.back++;
		return true;
	}
	return false;
}

/* Objects ---------------------------------------------------------------------------------- */

static uint32_t entry_new(struct policy *p)
{
	uint32_t n = p->free;

	if (n) {
		p->free = entry(p, n)->next;
		return n;
	}
	if (p->nentries == UINT32_MAX - 1 ||
	    chunks_room(p, &p->entries, p->nentries + 2ULL, sizeof(struct entry)) < 0)
		return 0;
	return ++p->nentries;
}

static void count(struct policy *p, const struct entry *e, int by)
{
	p->stat.objects[e->kind] += (uint64_t)by;
	p->stat.pages += (uint64_t)by * e->pages;
}

/* All of o. A name that comes back soon, also by a rename, has its object in the main queue. */
static void become(struct policy *p, uint32_t n, const struct policy_object *o, enum where where)
{
	struct entry *e = entry(p, n);

	if ((where == FREE || o->parent != e->parent || o->h != e->h) &&
	    ghost_take(p, o->parent, o->h) && where != TAKEN)
		where = MAIN;
	e->fileid = o->fileid;
	e->parent = o->parent;
	e->h = o->h;
	e->pages = o->pages;
	e->kind = o->pages ? POLICY_PAGES : POLICY_BARE;
	count(p, e, 1);
	if (where == TAKEN)
		return;
	push(p, n, where == FREE ? SMALL : where);
}

static bool is_same(const struct entry *e, const struct policy_object *o)
{
	return o->parent == e->parent && o->h == e->h && o->pages == e->pages;
}

int policy_put(struct policy *p, const struct policy_object *o)
{
	WITH_LOCK(&p->lock);
	uint32_t *at = find(p, o->fileid), n = *at;

	if (n) {
		struct entry *e = entry(p, n);
		if (is_same(e, o))
			return 0;
		leave(p, n);
		count(p, e, -1);
		become(p, n, o, e->where);
		return 0;
	}
	n = entry_new(p);
	if (!n)
		return -ENOMEM;
	*entry(p, n) = (struct entry){ 0 };
	*at = n;
	become(p, n, o, FREE);
	if (nobjects(p) > p->nbuckets)
		split(p);
	return 0;
}

void policy_remove(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t *at = find(p, fileid), n = *at;

	if (!n)
		return;
	struct entry *e = entry(p, n);
	leave(p, n);
	if (e->where == TAKEN)
		p->stat.taken--;
	if (e->where == TAKEN && e->ghostly)
		ghost_add(p, e);
	count(p, e, -1);
	*at = e->chain;
	*e = (struct entry){ .next = p->free };
	p->free = n;
}

void policy_use(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t n = *find(p, fileid);

	if (!n)
		return;
	entry(p, n)->hits++;
	if (entry(p, n)->uses < USES_MAX)
		entry(p, n)->uses++;
}

uint64_t policy_hits(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t n = *find(p, fileid);

	return n ? entry(p, n)->hits : 0;
}

static struct policy_object object_of(const struct entry *e)
{
	return (struct policy_object){ e->fileid, e->parent, e->h, e->pages };
}

bool policy_get(struct policy *p, uint64_t fileid, struct policy_object *ret)
{
	WITH_LOCK(&p->lock);
	uint32_t n = *find(p, fileid);

	if (n)
		*ret = object_of(entry(p, n));
	return n;
}

/* Victims ---------------------------------------------------------------------------------- */

static void take(struct policy *p, uint32_t n, struct policy_object *ret)
{
	struct entry *e = entry(p, n);

	pull(p, n);
	e->ghostly = e->where == SMALL;
	e->where = TAKEN;
	p->stat.taken++;
	*ret = object_of(e);
}

/* One turn: 1: it is taken; 0: the next one; -1: there is none. */
static int turn(struct policy *p, enum policy_kind kind, struct policy_object *ret)
{
	struct queue *small = &p->queues[kind][SMALL], *main = &p->queues[kind][MAIN];
	bool is_small = small->tail && (!main->tail || small->weight * SMALL_SHARE >=
							small->weight + main->weight);
	uint32_t n = is_small ? small->tail : main->tail;

	if (!n)
		return -1;
	struct entry *e = entry(p, n);
	if (!e->uses) {
		take(p, n, ret);
		return 1;
	}
	pull(p, n);
	e->uses -= !is_small;
	if (is_small)
		e->uses = 0;
	push(p, n, MAIN);
	return 0;
}

bool policy_take(struct policy *p, enum policy_kind kind, struct policy_object *ret)
{
	for (;;) {
		WITH_LOCK(&p->lock);
		for (unsigned i = 0; i < TURNS; i++) {
			int r = turn(p, kind, ret);
			if (r)
				return r > 0;
		}
	}
}

void policy_keep(struct policy *p, uint64_t fileid)
{
	WITH_LOCK(&p->lock);
	uint32_t n = *find(p, fileid);

	if (!n || entry(p, n)->where != TAKEN)
		return;
	p->stat.taken--;
	push(p, n, MAIN);
}

/* Opening, looking --------------------------------------------------------------------------- */

int policy_new(struct policy **ret)
{
	struct policy *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	lock_init(&p->lock, LOCK_POLICY);
	p->nbuckets = 1;
	if (chunks_room(p, &p->buckets, 1, sizeof(uint32_t)) < 0) {
		policy_free(p);
		return -ENOMEM;
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
	free(p->ghosts);
	lock_fini(&p->lock);
	free(p);
	return NULL;
}

void policy_stat(struct policy *p, struct policy_stat *ret)
{
	WITH_LOCK(&p->lock);

	*ret = p->stat;
}

static int complain(struct writer *report, const char *what, uint64_t number)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "policy: %" PRIu64 " %s\n", number, what);

	write_bytes(report, line, (size_t)n);
	return 1;
}

static int check_queue(struct policy *p, enum policy_kind kind, enum where where,
		       struct writer *report, uint64_t *nseen)
{
	const struct queue *q = &p->queues[kind][where];
	uint64_t weight = 0;
	uint32_t before = 0;
	int bad = 0;

	for (uint32_t n = q->head; n; n = entry(p, n)->next) {
		const struct entry *e = entry(p, n);
		if (e->prev != before || e->where != where || e->kind != kind)
			return complain(report, "stands in a wrong queue", n);
		weight += weight_of(e);
		before = n;
		++*nseen;
	}
	if (q->tail != before)
		bad += complain(report, "is not the last of its queue", q->tail);
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
		for (uint32_t n = *bucket(p, i); n; n = entry(p, n)->chain) {
			const struct entry *e = entry(p, n);
			if (bucket_of(p, e->fileid) != i || e->where == FREE)
				bad += complain(report, "is in a wrong bucket", e->fileid);
			sums.objects[e->kind]++;
			sums.pages += e->pages;
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

int policy_check(struct policy *p, struct writer *report)
{
	WITH_LOCK(&p->lock);
	uint64_t nseen = p->stat.taken;
	int bad = check_table(p, report);

	for (unsigned kind = 0; kind < POLICY_KINDS; kind++)
		for (unsigned where = SMALL; where <= MAIN; where++)
			bad += check_queue(p, kind, where, report, &nseen);
	if (nseen != nobjects(p))
		bad += complain(report, "is not the number of those in queues", nseen);
	return bad;
}
