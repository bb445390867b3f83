/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows are told before they are committed, so there is a list of what they say: things that
 * stand somewhere from now on, or do no more. It is gone through when they have been,
 * object by object. One that moves stands nowhere for a moment, or in two places, in
 * whatever order its rows are written.
 *
 * What was there before is read while others write: of what has been told of since, that is the
 * truth, and what was read of it may be older (`told`).
 */
#include "engine/uses.h"

#include <errno.h>
#include <stdlib.h>

#include <uthash.h>

#include "common/array.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"

/* A record: the object stands here, with so many pages; or a name of one that has several. */
struct event {
	struct index_row row;
	size_t number; /* in order */
	bool gone, used;
};

struct names { /* of a file */
	uint64_t fileid;
	struct index_name *v;
	size_t n, cap;
	UT_hash_handle hh;
};

struct uses {
	struct kv_observer observer;
	struct kv *kv; /* or NULL: it does not observe yet */
	struct policy *policy;
	struct event *events; /* since the last end; the committer's */
	size_t nevents, cap;
	struct lock lock;
	struct names *names;
	bool is_filling;
	struct told *told; /* meanwhile */
	bool has_complained;
	atomic_bool stopped;
};

/* That the object, or that it has this name, was told of. */
struct told_key {
	uint64_t fileid;
	struct index_name name; /* or zeros */
};

struct told {
	struct told_key key;
	UT_hash_handle hh;
};

enum { KEEP_EVENTS = 1024 }; /* of the list's memory, from one commit to the next */

static void complain(struct uses *u, uint64_t fileid, int r)
{
	if (r >= 0 || u->has_complained)
		return;
	u->has_complained = true;
	log_warn("cache", "object %llu and maybe others are not known to the eviction until the "
		 "next start: %s", (unsigned long long)fileid, error_text(r));
}

/* Names of files that have several ------------------------------------------------------ */

static bool is_name(const struct index_name *a, const struct index_name *b)
{
	return a->parent == b->parent && a->h == b->h;
}

static int names_add(struct uses *u, uint64_t fileid, const struct index_name *name)
{
	struct names *s;

	HASH_FIND(hh, u->names, &fileid, sizeof(fileid), s);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return -ENOMEM;
		s->fileid = fileid;
		HASH_ADD(hh, u->names, fileid, sizeof(fileid), s);
	}
	for (size_t i = 0; i < s->n; i++)
		if (is_name(&s->v[i], name))
			return 0;
	int r = array_room(s->v, s->cap, s->n + 1, 2);
	if (!r)
		s->v[s->n++] = *name;
	return r;
}

static void names_remove(struct uses *u, uint64_t fileid, const struct index_name *name)
{
	struct names *s;

	HASH_FIND(hh, u->names, &fileid, sizeof(fileid), s);
	for (size_t i = 0; s && i < s->n; i++) {
		if (!is_name(&s->v[i], name))
			continue;
		s->v[i] = s->v[--s->n];
		break;
	}
	if (!s || s->n)
		return;
	HASH_DEL(u->names, s);
	free(s->v);
	free(s);
}

int uses_names(struct uses *u, uint64_t fileid, struct index_name **ret)
{
	WITH_LOCK(&u->lock);
	struct names *s;

	HASH_FIND(hh, u->names, &fileid, sizeof(fileid), s);
	if (!s)
		return -ENOENT;
	*ret = calloc(s->n, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, s->v, s->n * sizeof(**ret));
	return (int)s->n;
}

/* What was told of while it is filled ------------------------------------------------------ */

static struct told_key key_of(const struct index_row *row)
{
	struct told_key k;

	memset(&k, 0, sizeof(k)); /* what lies between, too */
	k.fileid = row->attr.fileid;
	if (!row->is_record)
		k.name = row->name;
	return k;
}

static bool is_told(struct uses *u, const struct told_key *k)
{
	struct told *t;

	HASH_FIND(hh, u->told, k, sizeof(*k), t);
	return t;
}

static void tell(struct uses *u, const struct index_row *row)
{
	struct told_key k = key_of(row);

	if (!u->is_filling || is_told(u, &k))
		return;
	struct told *t = calloc(1, sizeof(*t));
	if (!t) { /* rather too little than what is not there */
		complain(u, k.fileid, -ENOMEM);
		atomic_store(&u->stopped, true);
		return;
	}
	t->key = k;
	HASH_ADD(hh, u->told, key, sizeof(t->key), t);
}

static void forget_told(struct uses *u)
{
	struct told *t, *next;

	HASH_ITER(hh, u->told, t, next) {
		HASH_DEL(u->told, t);
		free(t);
	}
}

/* What was committed ---------------------------------------------------------------------- */

static struct policy_object object_of(const struct index_row *row)
{
	uint64_t pages = row->attr.pages;

	return (struct policy_object){ row->attr.fileid, row->name.parent, row->name.h,
				       pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX };
}

static int by_object(const void *a, const void *b)
{
	const struct event *x = a, *y = b;
	uint64_t fx = x->row.attr.fileid, fy = y->row.attr.fileid;

	if (fx != fy)
		return fx < fy ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* All n things said of one object, in order. It is where it came to last; that it went
 * counts if it is from there. */
static void apply_object(struct uses *u, const struct event *v, size_t n)
{
	uint64_t fileid = v->row.attr.fileid;
	const struct event *at = NULL;
	bool gone = false;

	for (size_t i = 0; i < n; i++) {
		const struct index_row *row = &v[i].row;
		tell(u, row);
		if (!row->is_record && v[i].gone) {
			names_remove(u, fileid, &row->name);
		} else if (!row->is_record) {
			complain(u, fileid, names_add(u, fileid, &row->name));
		} else if (!v[i].gone) {
			at = &v[i];
		} else if (!at || is_name(&at->row.name, &row->name)) {
			at = NULL;
			gone = true;
		}
		if (v[i].used)
			policy_use(u->policy, fileid);
	}
	if (at) {
		struct policy_object o = object_of(&at->row);
		complain(u, fileid, policy_put(u->policy, &o));
	} else if (gone) {
		policy_remove(u->policy, fileid);
	}
}

static void apply(struct uses *u)
{
	WITH_LOCK(&u->lock);

	if (u->nevents > 1)
		qsort(u->events, u->nevents, sizeof(*u->events), by_object);
	for (size_t i = 0, n; i < u->nevents; i += n) {
		for (n = 1; i + n < u->nevents; n++)
			if (u->events[i + n].row.attr.fileid != u->events[i].row.attr.fileid)
				break;
		apply_object(u, u->events + i, n);
	}
}

/* The observer ------------------------------------------------------------------------------ */

static bool is_use(const struct index_row *before, const struct index_row *after)
{
	return before->attr.version != after->attr.version ||
	       time_is_after(after->attr.atime, before->attr.atime);
}

/* What does not decode was said elsewhere, and refused (refs.c). */
static bool parse(struct bytes key, struct bytes value, struct index_row *ret)
{
	return value.p && !index_row_object(key, value, ret);
}

static bool is_same_thing(const struct index_row *a, const struct index_row *b)
{
	return a->attr.fileid == b->attr.fileid && a->is_record == b->is_record;
}

static void add(struct uses *u, const struct index_row *row, bool gone, bool used)
{
	u->events[u->nevents] = (struct event){ *row, u->nevents, gone, used };
	u->nevents++;
}

static int uses_write(void *arg, struct bytes key, struct bytes before, struct bytes after)
{
	struct uses *u = arg;
	struct index_row old, new;
	bool was = parse(key, before, &old), is = parse(key, after, &new);
	bool same = was && is && is_same_thing(&old, &new);

	if (array_room(u->events, u->cap, u->nevents + 2, 64) < 0)
		return -ENOMEM;
	if (was && !same)
		add(u, &old, true, false);
	if (is)
		add(u, &new, false, same && new.is_record && is_use(&old, &new));
	return 0;
}

static void uses_end(void *arg, bool committed)
{
	struct uses *u = arg;

	if (committed)
		apply(u);
	u->nevents = 0;
	if (u->cap <= KEEP_EVENTS)
		return;
	free(u->events);
	u->events = NULL;
	u->cap = 0;
}

/* What was there before ---------------------------------------------------------------------- */

struct one {
	int64_t used_ns;
	struct policy_object object;
};

struct all {
	struct uses *uses;
	struct one *v;
	size_t n, cap;
};

static int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * (int64_t)NS_PER_S + t.tv_nsec;
}

static int see_name(struct uses *u, const struct index_row *row)
{
	struct told_key k = key_of(row);
	WITH_LOCK(&u->lock);

	return is_told(u, &k) ? 0 : names_add(u, row->attr.fileid, &row->name);
}

static int see(void *arg, const struct index_row *row)
{
	struct all *all = arg;

	if (atomic_load(&all->uses->stopped))
		return -ECANCELED;
	if (!row->is_record)
		return see_name(all->uses, row);
	int r = array_room(all->v, all->cap, all->n + 1, 1024);
	if (!r)
		all->v[all->n++] = (struct one){
			ns_of(time_later(row->attr.atime, row->attr.mtime)), object_of(row) };
	return r;
}

static int by_use(const void *a, const void *b)
{
	int64_t x = ((const struct one *)a)->used_ns, y = ((const struct one *)b)->used_ns;

	return (x > y) - (x < y);
}

static int put(struct uses *u, const struct policy_object *o)
{
	const struct index_row row = { .is_record = true, .attr.fileid = o->fileid };
	struct told_key k = key_of(&row);
	WITH_LOCK(&u->lock);

	return is_told(u, &k) ? 0 : policy_put(u->policy, o);
}

static int see_all(struct uses *u, struct index *ix)
{
	struct all all = { .uses = u };
	int r = index_all_objects(ix, see, &all);

	if (!r && all.n)
		qsort(all.v, all.n, sizeof(*all.v), by_use);
	for (size_t i = 0; !r && i < all.n; i++)
		r = atomic_load(&u->stopped) ? -ECANCELED : put(u, &all.v[i].object);
	free(all.v);
	return r;
}

int uses_fill(struct uses *u, struct index *ix)
{
	int r = see_all(u, ix);
	WITH_LOCK(&u->lock);

	u->is_filling = false;
	forget_told(u);
	return r;
}

void uses_stop(struct uses *u)
{
	atomic_store(&u->stopped, true);
}

/* Opening ------------------------------------------------------------------------------------ */

int uses_open(struct index *ix, struct policy *p, struct uses **ret)
{
	struct uses *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->policy = p;
	lock_init(&u->lock, LOCK_USES);
	u->observer = (struct kv_observer){
		.kinds = INDEX_OBJECT_KINDS, .write = uses_write, .end = uses_end, .arg = u,
	};
	u->is_filling = true;
	int r = kv_observe(index_kv(ix), &u->observer);
	if (r < 0) {
		uses_close(u);
		return r;
	}
	u->kv = index_kv(ix);
	*ret = u;
	return 0;
}

void uses_close(struct uses *u)
{
	struct names *s, *next;

	if (!u)
		return;
	if (u->kv)
		kv_observe_no_more(u->kv, &u->observer);
	HASH_ITER(hh, u->names, s, next) {
		HASH_DEL(u->names, s);
		free(s->v);
		free(s);
	}
	forget_told(u);
	free(u->events);
	lock_fini(&u->lock);
	free(u);
}
