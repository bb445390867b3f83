/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows are told before they are committed, so there is a list of what they say: things that
 * stand somewhere from now on, or do no more. It is gone through when they have been,
 * object by object. One that moves stands nowhere for a moment, or in two places, in
 * whatever order its rows are written.
 *
 * What was there before is uses_fill.c's.
 */
#include "engine/uses_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/table.h"
#include "engine/dirs.h"

/* A record: the object stands here, with so many pages; or a name of one that has several. */
struct event {
	struct index_row row;
	size_t number; /* in order */
	bool gone, used;
};

/* Of directories: one that is there now, or gone; or pages of a file in it more or less. */
struct dir_event {
	struct index_dir dir;
	bool is_dir, gone;
	uint64_t fileid; /* the file's */
	int64_t pages;
};

struct names { /* of a file */
	uint64_t fileid;
	struct index_name *v;
	size_t n, cap;
	UT_hash_handle hh;
};

enum { KEEP_EVENTS = 1024 }; /* of the list's memory, from one commit to the next */

void uses_complain(struct uses *u, uint64_t fileid, int r)
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

int uses_names_add(struct uses *u, uint64_t fileid, const struct index_name *name)
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

/* Quotas --------------------------------------------------------------------------------- */

uint64_t uses_over(struct uses *u, uint64_t after, uint64_t *ret_pages)
{
	WITH_LOCK(&u->lock);

	return dirs_over(u->dirs, after, clock_ns(), ret_pages);
}

void uses_rest(struct uses *u, uint64_t dir, uint64_t until_ns)
{
	WITH_LOCK(&u->lock);

	dirs_rest(u->dirs, dir, until_ns);
}

uint64_t uses_below(struct uses *u, uint64_t dir)
{
	WITH_LOCK(&u->lock);

	return dirs_used(u->dirs, dir);
}

uint64_t uses_quotas(struct uses *u, uint64_t *ret_over)
{
	WITH_LOCK(&u->lock);

	return dirs_quotas(u->dirs, ret_over);
}

bool uses_count_more(struct uses *u)
{
	WITH_LOCK(&u->lock);

	return dirs_count_more(u->dirs);
}

bool uses_is_below(struct uses *u, uint64_t dir, uint64_t above)
{
	WITH_LOCK(&u->lock);

	return dirs_is_below(u->dirs, dir, above);
}

/* What was committed ---------------------------------------------------------------------- */

/* Apart from its pin. */
static bool own_end(const struct uses *u, const struct index_row *row, struct expiry_end *ret)
{
	const struct keep *k = &row->attr.keep;
	int64_t used = time_up_s(time_later(row->attr.atime, row->attr.mtime));
	int64_t changed = time_up_s(row->attr.ctime);

	if (k->ttl) {
		ret->reason = EXPIRY_TTL;
		ret->idle = k->ttl_by_use ? k->ttl : 0;
		return keep_end(&row->attr, &ret->at);
	}
	ret->reason = EXPIRY_TEMP;
	if (__builtin_add_overflow(used > changed ? used : changed, u->o.temp_s, &ret->at))
		return false; /* as far away as can be said */
	ret->idle = u->o.temp_s;
	return row->is_temp && u->o.temp_s;
}

bool uses_end_of(const struct uses *u, const struct index_row *row, int64_t now,
		 struct expiry_end *ret)
{
	int64_t pinned = row->attr.keep.pinned;

	*ret = (struct expiry_end){
		.fileid = row->attr.fileid,
		.place = { row->is_name ? PLACE_NAME : PLACE_FILEID, row->name.parent, row->name.h },
	};
	bool ends = own_end(u, row, ret);
	if (pinned <= now)
		return ends;
	if (!ends)
		ret->idle = 0;
	ret->then = ends ? ret->at : 0;
	ret->reason = EXPIRY_PIN;
	ret->is_temp = row->is_temp;
	ret->at = pinned;
	return pinned != KEEP_FOREVER || u->o.all_pinned;
}

/* Who writes a temporary file is about to rename it. */
struct policy_object uses_object_of(const struct index_row *row)
{
	uint64_t pages = row->attr.pages;
	int priority = row->is_temp ? KEEP_HIGH : row->attr.keep.priority;

	return (struct policy_object){ row->attr.fileid, row->name.parent, row->name.h,
				       pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX,
				       (uint8_t)(priority - KEEP_LOW) };
}

static int by_object(const void *a, const void *b)
{
	const struct event *x = a, *y = b;
	uint64_t fx = x->row.attr.fileid, fy = y->row.attr.fileid;

	if (fx != fy)
		return fx < fy ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

int uses_enter(struct uses *u, const struct index_row *row)
{
	struct policy_object o = uses_object_of(row);
	int64_t now = clock_now().tv_sec;
	struct expiry_end end;
	int r = 0;

	if (uses_end_of(u, row, now, &end))
		r = expiry_put(u->o.expiry, &end);
	else
		expiry_remove(u->o.expiry, o.fileid);
	if (row->attr.keep.pinned > now)
		policy_remove(u->o.policy, o.fileid);
	else if (!r)
		r = policy_put(u->o.policy, &o);
	return r;
}

static void leave(struct uses *u, uint64_t fileid)
{
	expiry_remove(u->o.expiry, fileid);
	policy_remove(u->o.policy, fileid);
}

/* All n things said of one object, in order. It is where it came to last; that it went
 * counts if it is from there. */
static void apply_object(struct uses *u, const struct event *v, size_t n)
{
	uint64_t fileid = v->row.attr.fileid;
	const struct event *at = NULL;
	bool gone = false;

	u->overtaken |= fileid == u->looked_at;
	for (size_t i = 0; i < n; i++) {
		const struct index_row *row = &v[i].row;
		uses_tell(u, row);
		if (!row->is_record && v[i].gone) {
			names_remove(u, fileid, &row->name);
		} else if (!row->is_record) {
			uses_complain(u, fileid, uses_names_add(u, fileid, &row->name));
		} else if (!v[i].gone) {
			at = &v[i];
		} else if (!at || is_name(&at->row.name, &row->name)) {
			at = NULL;
			gone = true;
		}
		if (v[i].used)
			policy_use(u->o.policy, fileid);
	}
	if (at)
		uses_complain(u, fileid, uses_enter(u, &at->row));
	else if (gone)
		leave(u, fileid);
}

static void apply_dir(struct uses *u, const struct dir_event *v)
{
	uint64_t dir = v->dir.dir;

	uses_tell_id(u, dir);
	if (v->gone)
		dirs_remove(u->dirs, dir);
	else
		uses_complain(u, dir, dirs_put(u->dirs, dir, v->dir.parent,
					       dirs_quota_of(v->dir.quota)));
}

static void apply_pages(struct uses *u, const struct dir_event *v)
{
	if (!uses_tell_pages(u, v->fileid, v->dir.dir, v->pages))
		uses_complain(u, v->dir.dir, dirs_add(u->dirs, v->dir.dir, v->pages));
}

/* Of pages those that are less first: a file that moves is less and more in one commit. */
static void apply_dirs(struct uses *u)
{
	for (size_t i = 0; i < u->ndir_events; i++)
		if (u->dir_events[i].is_dir)
			apply_dir(u, &u->dir_events[i]);
		else if (u->dir_events[i].pages < 0)
			apply_pages(u, &u->dir_events[i]);
	for (size_t i = 0; i < u->ndir_events; i++)
		if (u->dir_events[i].pages > 0)
			apply_pages(u, &u->dir_events[i]);
}

/* True: a directory has more than it may have, or it is not counted yet whether one has. */
static bool apply(struct uses *u)
{
	WITH_LOCK(&u->lock);

	apply_dirs(u);
	if (u->nevents > 1)
		qsort(u->events, u->nevents, sizeof(*u->events), by_object);
	for (size_t i = 0, n; i < u->nevents; i += n) {
		for (n = 1; i + n < u->nevents; n++)
			if (u->events[i + n].row.attr.fileid != u->events[i].row.attr.fileid)
				break;
		apply_object(u, u->events + i, n);
	}
	uint64_t pages;
	return u->ndir_events && (dirs_is_counting(u->dirs) ||
				  dirs_over(u->dirs, 0, clock_ns(), &pages));
}

int uses_look(struct uses *u, struct index *ix, const struct expiry_end *end)
{
	_cleanup_(index_op_fini) struct index_op op = { .fileid = end->fileid,
							.place = end->place };
	{
		WITH_LOCK(&u->lock);
		u->looked_at = end->fileid;
		u->overtaken = false;
	}
	int r = index_wait(ix, &op, index_stat);

	WITH_LOCK(&u->lock);
	u->looked_at = 0;
	struct place place = op.entry.place;
	/* Who has moved it has told of it. */
	if (r || u->overtaken || !place_is_same(place, end->place))
		return r;
	struct index_row row = {
		.name = { place.parent, place.h }, .is_name = place.kind == PLACE_NAME,
		.is_record = true, .is_temp = end->is_temp, .attr = op.entry.attr,
	};
	row.attr.pages = index_pool_pages(&op.entry.attr, &op.entry.body);
	r = uses_enter(u, &row);
	if (!r && end->used)
		expiry_use(u->o.expiry, end->fileid, end->used);
	return r;
}

/* The observer ------------------------------------------------------------------------------ */

static bool is_use(const struct index_row *before, const struct index_row *after)
{
	return before->attr.version != after->attr.version ||
	       time_is_after(after->attr.atime, before->attr.atime) ||
	       time_is_after(after->attr.mtime, before->attr.mtime);
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

static bool is_counted(const struct index_row *row)
{
	return row->is_record && row->is_name && row->attr.pages;
}

static void count(struct uses *u, const struct index_row *row, int64_t sign)
{
	if (is_counted(row))
		u->dir_events[u->ndir_events++] = (struct dir_event){
			.dir.dir = row->name.parent, .fileid = row->attr.fileid,
			.pages = sign * (int64_t)row->attr.pages };
}

static void see_dir_row(struct uses *u, struct bytes key, struct bytes before, struct bytes after)
{
	struct dir_event was = { .is_dir = true, .gone = true }, is = { .is_dir = true };
	bool w = before.p && !index_row_dir(key, before, &was.dir);

	if (after.p && !index_row_dir(key, after, &is.dir))
		u->dir_events[u->ndir_events++] = is;
	else if (w)
		u->dir_events[u->ndir_events++] = was;
}

static int uses_write(void *arg, struct bytes key, struct bytes before, struct bytes after)
{
	struct uses *u = arg;
	struct index_row old, new;
	bool was = parse(key, before, &old), is = parse(key, after, &new);
	bool same = was && is && is_same_thing(&old, &new);

	if (array_room(u->events, u->cap, u->nevents + 2, 64) < 0 ||
	    array_room(u->dir_events, u->dir_cap, u->ndir_events + 3, 64) < 0)
		return -ENOMEM;
	atomic_store(&u->is_told_of, true);
	if (was)
		count(u, &old, -1);
	if (is)
		count(u, &new, 1);
	if (!was && !is)
		see_dir_row(u, key, before, after);
	if (was && !same)
		add(u, &old, true, false);
	if (is)
		add(u, &new, false, same && new.is_record && is_use(&old, &new));
	return 0;
}

static void uses_end(void *arg, bool committed)
{
	struct uses *u = arg;

	if (committed && apply(u) && u->o.over)
		u->o.over(u->o.arg);
	u->nevents = u->ndir_events = 0;
	atomic_store(&u->is_told_of, false);
	atomic_fetch_add(&u->ends, 1);
	if (u->cap <= KEEP_EVENTS && u->dir_cap <= KEEP_EVENTS)
		return;
	free(steal(&u->events));
	free(steal(&u->dir_events));
	u->cap = u->dir_cap = 0;
}

/* Opening ------------------------------------------------------------------------------------ */

int uses_open(struct index *ix, const struct uses_opts *o, struct uses **ret)
{
	struct uses *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->o = *o;
	lock_init(&u->lock, LOCK_USES);
	u->observer = (struct kv_observer){
		.kinds = INDEX_OBJECT_KINDS, .write = uses_write, .end = uses_end, .arg = u,
	};
	u->is_filling = true;
	int r = dirs_new(&u->dirs);
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
	dirs_free(u->dirs);
	uses_forget_told(u);
	free(u->events);
	free(u->dir_events);
	lock_fini(&u->lock);
	free(u);
}
