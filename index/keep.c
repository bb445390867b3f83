/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user says of how long an object stays, as text: the values of the extended
 * attributes `user.slicefs.*`, which are no rows of their own but in the record
 * (index.h). Each has one form in which it is written, and some more that are read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "index/index.h"

enum { US_PER_S = 1000000, TEXT_MAX = 64 };

static const struct keep nothing;
static const char none[] = "none"; /* no end, no quota */
static const int64_t YEAR_9999 = 253402300799; /* its last second */

struct word {
	const char *text;
	int value;
};

/* 1: none of these. The first of each value is the one that is written. */
static int word_of(const struct word *words, const char *s, int *ret)
{
	for (; words->text; words++)
		if (!strcmp(words->text, s)) {
			*ret = words->value;
			return 0;
		}
	return 1;
}

static const char *word_for(const struct word *words, int value)
{
	while (words->value != value)
		words++;
	return words->text;
}

static const struct word pins[] = {
	{ "forever", 1 }, { "1", 1 }, { "yes", 1 }, { "on", 1 }, { "true", 1 },
	{ "0", 0 }, { "no", 0 }, { "off", 0 }, { "false", 0 }, { NULL, 0 },
};

static const struct word priorities[] = {
	{ "low", KEEP_LOW }, { "-1", KEEP_LOW }, { "normal", KEEP_NORMAL }, { "0", KEEP_NORMAL },
	{ "high", KEEP_HIGH }, { "1", KEEP_HIGH }, { NULL, 0 },
};

/* "2026-12-01T12:00:00Z", "2026-12-01"; "@SECONDS". */
static int parse_moment(const char *s, int64_t *ret)
{
	static const char *const forms[] = { "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d" };
	uint64_t n;

	if (*s == '@') {
		s++;
		int r = units_digits(&s, &n);
		*ret = (int64_t)n;
		return r || *s || n > INT64_MAX / 2 ? -EINVAL : 0;
	}
	for (unsigned i = 0; i < 2; i++) {
		struct tm tm = { 0 };
		const char *end = strptime(s, forms[i], &tm);
		if (!end || *end)
			continue;
		int day = tm.tm_mday;
		*ret = timegm(&tm); /* makes the 3rd of March of the 31st of February */
		return *ret > 0 && tm.tm_mday == day ? 0 : -EINVAL;
	}
	return -EINVAL;
}

static int set_pin(struct keep *k, const char *s)
{
	int word;

	if (word_of(pins, s, &word))
		return parse_moment(s, &k->pinned);
	k->pinned = word ? KEEP_FOREVER : 0;
	return 0;
}

static int set_ttl(struct keep *k, char *s)
{
	char *rest = strchr(s, ' ');
	uint64_t us;

	if (rest)
		*rest++ = 0;
	int r = units_time(strcmp(s, none) ? s : "0", &us);
	if (r)
		return -EINVAL;
	k->ttl_by_use = rest && !strcmp(rest, "after use");
	if (rest && !k->ttl_by_use && strcmp(rest, "after publishing"))
		return -EINVAL;
	if (us % US_PER_S || us / US_PER_S > UINT32_MAX)
		return -EINVAL;
	k->ttl = (uint32_t)(us / US_PER_S);
	if (!k->ttl)
		k->ttl_by_use = false;
	return 0;
}

/* A part of the machine's memory would be of whichever machine it is said on. */
static int set_quota(struct keep *k, const char *s)
{
	return strchr(s, '%') ? -EINVAL : units_size(strcmp(s, none) ? s : "0", &k->quota);
}

static int set_priority(struct keep *k, const char *s)
{
	int v;

	if (word_of(priorities, s, &v))
		return -EINVAL;
	k->priority = (int8_t)v;
	return 0;
}

static unsigned mask_of(const char *what)
{
	static const struct {
		const char *name;
		unsigned mask;
	} all[] = { { "pin", INDEX_SET_PIN }, { "ttl", INDEX_SET_TTL },
		    { "priority", INDEX_SET_PRIORITY }, { "quota", INDEX_SET_QUOTA } };

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(all[i].name, what))
			return all[i].mask;
	return 0;
}

int keep_set(struct keep *k, const char *what, struct bytes value, unsigned *ret_mask)
{
	unsigned mask = mask_of(what);
	struct keep new = *k;
	char s[TEXT_MAX];
	int r;

	if (!mask)
		return -ENOENT;
	if (value.len >= sizeof(s) || memchr(value.p ? value.p : "", 0, value.len))
		return -EINVAL;
	memcpy(s, value.len ? value.p : "", value.len);
	s[value.len] = 0;
	if (mask == INDEX_SET_PIN)
		r = set_pin(&new, s);
	else if (mask == INDEX_SET_TTL)
		r = set_ttl(&new, s);
	else if (mask == INDEX_SET_PRIORITY)
		r = set_priority(&new, s);
	else
		r = set_quota(&new, s);
	if (r)
		return -EINVAL;
	*k = new;
	*ret_mask = mask;
	return 0;
}

int keep_unset(struct keep *k, const char *what, unsigned *ret_mask)
{
	unsigned mask = mask_of(what);

	if (!mask)
		return -ENOENT;
	bool is = keep_said(k) & mask;
	keep_apply(k, mask, &nothing);
	*ret_mask = mask;
	return is ? 0 : -ENODATA;
}

void keep_moment(int64_t at, struct keep_text *ret)
{
	time_t t = at;
	struct tm tm;

	if (at == KEEP_FOREVER)
		snprintf(ret->s, sizeof(ret->s), "%s", word_for(pins, 1));
	else if (at > YEAR_9999 || !gmtime_r(&t, &tm) ||
		 !strftime(ret->s, sizeof(ret->s), "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(ret->s, sizeof(ret->s), "@%" PRId64, at);
}

int keep_get(const struct keep *k, const char *what, struct keep_text *ret)
{
	unsigned mask = mask_of(what);

	if (!mask)
		return -ENOENT;
	if (!(keep_said(k) & mask))
		return -ENODATA;
	if (mask == INDEX_SET_PIN)
		keep_moment(k->pinned, ret);
	else if (mask == INDEX_SET_TTL)
		snprintf(ret->s, sizeof(ret->s), "%s%s",
			 units_text(units_of_time, (uint64_t)k->ttl * US_PER_S).s,
			 k->ttl_by_use ? " after use" : "");
	else if (mask == INDEX_SET_PRIORITY)
		snprintf(ret->s, sizeof(ret->s), "%s", word_for(priorities, k->priority));
	else
		snprintf(ret->s, sizeof(ret->s), "%s", units_text(units_of_size, k->quota).s);
	return 0;
}

unsigned keep_diff(const struct keep *a, const struct keep *b)
{
	return (a->pinned != b->pinned ? INDEX_SET_PIN : 0) |
	       (a->ttl != b->ttl || a->ttl_by_use != b->ttl_by_use ? INDEX_SET_TTL : 0) |
	       (a->priority != b->priority ? INDEX_SET_PRIORITY : 0) |
	       (a->quota != b->quota ? INDEX_SET_QUOTA : 0);
}

unsigned keep_said(const struct keep *k)
{
	return keep_diff(k, &nothing);
}

bool keep_end(const struct attr *a, int64_t *ret_at)
{
	const struct keep *k = &a->keep;
	int64_t used = time_up_s(time_later(a->atime, a->mtime));

	return k->ttl && !__builtin_add_overflow(k->ttl_by_use && used > k->since ? used : k->since,
						 k->ttl, ret_at);
}

void keep_apply(struct keep *k, unsigned mask, const struct keep *from)
{
	if (mask & INDEX_SET_PIN)
		k->pinned = from->pinned;
	if (mask & INDEX_SET_TTL) {
		k->ttl = from->ttl;
		k->ttl_by_use = from->ttl_by_use;
		k->since = from->since;
	}
	if (mask & INDEX_SET_PRIORITY)
		k->priority = from->priority;
	if (mask & INDEX_SET_QUOTA)
		k->quota = from->quota;
}
