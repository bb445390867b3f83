/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `user.slicefs.*`: what the user says of how long an object stays (pin, ttl, priority,
 * quota), what there is to know about it (version, location, hits, expires), and `evict`,
 * which lets it go when it is set. They are attributes like mode and times, in the record
 * (index.h), but read and written as extended ones. What is to know is not listed, so that
 * who copies extended attributes does not meet what he cannot set.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/priv.h"

static const char *const settable[] = { "pin", "ttl", "priority", "quota" };
static const char *const readable[] = { "version", "location", "hits", "expires", "used" };
static const char *const asked[] = { "hits", "expires", "used" }; /* of the eviction */

#define IS_ONE_OF(what, of) is_one_of(what, of, sizeof(of) / sizeof((of)[0]))

static bool is_one_of(const char *what, const char *const *of, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(of[i], what))
			return true;
	return false;
}

const char *keep_what(const char *xattr)
{
	size_t n = strlen(KEEP_XATTR);

	return strncmp(xattr, KEEP_XATTR, n) ? NULL : xattr + n;
}

/* Reading -------------------------------------------------------------------------- */

static void reply_text(struct req *q, int r, const struct keep_text *text)
{
	if (r)
		req_error(q, r);
	else
		reply_bytes(q, bytes_str(text->s));
}

static void told(struct engine_ask *a, int r)
{
	struct req *q = a->arg;
	const char *what = keep_what(q->ix.name);
	struct keep_text text = { "" };

	if (!r && !strcmp(what, "hits"))
		snprintf(text.s, sizeof(text.s), "%" PRIu64, a->hits);
	else if (!r && !strcmp(what, "used"))
		snprintf(text.s, sizeof(text.s), "%" PRIu64, a->used);
	else if (!r)
		r = a->expires ? keep_moment(a->expires, &text), 0 : -ENODATA;
	reply_text(q, r == -EOPNOTSUPP ? -ENODATA : r, &text);
}

static struct engine_ask *ask_of(struct req *q, void (*done)(struct engine_ask *a, int r))
{
	q->ask = (struct engine_ask){
		.fileid = q->ix.fileid, .place = q->ix.place, .call = kv_call_of(&q->ix.call),
		.done = done, .arg = q,
	};
	return &q->ask;
}

static int about_file(const struct attr *a, const char *what, struct keep_text *ret)
{
	if (!S_ISREG(a->mode))
		return -ENODATA;
	if (!strcmp(what, "version"))
		snprintf(ret->s, sizeof(ret->s), "%" PRIu64, a->version);
	else
		snprintf(ret->s, sizeof(ret->s), "%s", a->away ? "ssd" :
			 a->size > INDEX_INLINE_MAX ? "memory" : "index");
	return 0;
}

static bool has_it(const struct attr *a, const char *what)
{
	return strcmp(what, "used") ? S_ISREG(a->mode) : a->keep.quota != 0;
}

static void get_learned(struct req *q)
{
	const char *what = keep_what(q->ix.name);
	struct keep_text text;

	if (IS_ONE_OF(what, settable))
		reply_text(q, keep_get(&q->now.keep, what, &text), &text);
	else if (IS_ONE_OF(what, asked) && has_it(&q->now, what))
		engine_about(q->fs->engine, ask_of(q, told));
	else
		reply_text(q, about_file(&q->now, what, &text), &text);
}

void keep_get_go(struct req *q)
{
	const char *what = keep_what(q->ix.name);

	if (IS_ONE_OF(what, settable) || IS_ONE_OF(what, readable))
		learn_attr(q, get_learned);
	else
		req_error(q, -ENODATA);
}

void keep_list(const struct keep *k, struct writer *w)
{
	struct keep_text text;

	for (size_t i = 0; i < sizeof(settable) / sizeof(settable[0]); i++) {
		if (keep_get(k, settable[i], &text))
			continue;
		write_bytes(w, KEEP_XATTR, strlen(KEEP_XATTR));
		write_bytes(w, settable[i], strlen(settable[i]) + 1);
	}
}

/* Writing -------------------------------------------------------------------------- */

static int set(struct req *q, struct keep *k, unsigned *ret_mask)
{
	const char *what = keep_what(q->ix.name);
	struct keep_text before;
	int there = keep_get(k, what, &before);

	if (q->kind == MOP_REMOVEXATTR)
		return keep_unset(k, what, ret_mask);
	if (!there && q->ix.flags & XATTR_CREATE)
		return -EEXIST;
	if (there && q->ix.flags & XATTR_REPLACE)
		return -ENODATA;
	return keep_set(k, what, q->ix.value, ret_mask);
}

static void set_learned(struct req *q)
{
	struct keep k = q->now.keep;
	unsigned mask;
	int r = set(q, &k, &mask);

	if (!r && mask & INDEX_SET_QUOTA && !S_ISDIR(q->now.mode))
		r = -ENOTDIR;
	if (r) {
		req_error(q, r);
		return;
	}
	q->mask = mask | INDEX_SET_CTIME;
	q->attr = (struct attr){ .keep = k, .ctime = clock_now() };
	change_attr(q, req_ok);
}

static void evicted(struct engine_ask *a, int r)
{
	struct req *q = a->arg;

	if (r == INDEX_MISS) /* it has moved meanwhile, or gone */
		r = -EAGAIN;
	if (r)
		req_error(q, r);
	else
		req_ok(q);
}

static void evict_learned(struct req *q)
{
	if (S_ISDIR(q->now.mode)) {
		req_error(q, -EISDIR);
		return;
	}
	req_place(q);
	engine_evict(q->fs->engine, ask_of(q, evicted));
}

void keep_set_go(struct req *q)
{
	const char *what = keep_what(q->ix.name);

	if (IS_ONE_OF(what, settable))
		learn_attr(q, set_learned);
	else if (!strcmp(what, "evict") && q->kind == MOP_SETXATTR)
		learn_attr(q, evict_learned);
	else if (IS_ONE_OF(what, readable))
		req_error(q, -EPERM);
	else
		req_error(q, q->kind == MOP_REMOVEXATTR ? -ENODATA : -EOPNOTSUPP);
}
