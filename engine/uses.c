/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows are told before they are committed, so there is a list of what they say: things that
 * stand somewhere from now on, or do no more. It is gone through when they have been,
 * object by object. One that moves stands nowhere for a moment, or in two places, in
 * whatever order its rows are written.
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
	bool has_complained;
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

/* What was committed ---------------------------------------------------------------------- */

static struct policy_object object_of(const struct index_row *row)
{
	uint64_t pages = row->attr.away ? 0 : row->attr.pages; /* of the pool */

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

/* Opening ------------------------------------------------------------------------------------ */

struct one {
	struct policy_object object;
	struct timespec used;
};

struct all {
	struct uses *uses;
	struct one *v;
	size_t n, cap;
};

static int see(void *arg, const struct index_row *row)
{
	struct all *all = arg;

	if (!row->is_record)
		return names_add(all->uses, row->attr.fileid, &row->name);
	int r = array_room(all->v, all->cap, all->n + 1, 1024);
	if (!r)
		all->v[all->n++] = (struct one){
			object_of(row), time_later(row->attr.atime, row->attr.mtime) };
	return r;
}

static int by_use(const void *a, const void *b)
{
	const struct one *x = a, *y = b;

	return time_is_after(x->used, y->used) - time_is_after(y->used, x->used);
}

static int see_all(struct uses *u, struct index *ix)
{
	struct all all = { .uses = u };
	int r = index_all_objects(ix, see, &all);

	if (!r && all.n)
		qsort(all.v, all.n, sizeof(*all.v), by_use);
	for (size_t i = 0; !r && i < all.n; i++)
		r = policy_put(u->policy, &all.v[i].object);
	free(all.v);
	return r;
}

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
	int r = see_all(u, ix);
	if (!r)
		r = kv_observe(index_kv(ix), &u->observer);
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
	free(u->events);
	lock_fini(&u->lock);
	free(u);
}
