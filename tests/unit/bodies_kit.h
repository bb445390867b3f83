/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Random extents, block references and records, all of them right. */
#include "common/random.h"
#include "index/keys.h"

struct dice {
	uint64_t state;
};

static inline uint64_t roll(struct dice *d, uint64_t sides)
{
	uint64_t x = random_next(&d->state);

	return sides ? x % sides : x;
}

/* One of pages [*page, ...) of a region; steps over a gap first, now and then. */
static inline bool random_extent(struct dice *d, uint64_t region, uint32_t *at, struct extent *x)
{
	static const uint64_t pools[] = { 7, 7, 7, 7, 9, UINT64_MAX };

	if (!roll(d, 3))
		*at += (uint32_t)roll(d, 50);
	if (*at >= REGION_PAGES)
		return false;
	uint32_t most = REGION_PAGES - *at < 200 ? REGION_PAGES - *at : 200;
	x->npages = (uint16_t)(1 + roll(d, roll(d, 2) ? 3 < most ? 3 : most : most));
	x->page = region * REGION_PAGES + *at;
	x->pool_id = pools[roll(d, 6)];
	x->slice_pages = (uint16_t)(x->npages + roll(d, 1024u - x->npages + 1));
	x->slice_off = (uint16_t)roll(d, x->slice_pages - x->npages + 1u);
	x->slice = (uint32_t)roll(d, (UINT64_C(1) << 32) - x->slice_pages + 1);
	x->gen = (uint32_t)roll(d, 0);
	x->sums = malloc(extent_nsums(x) * sizeof(*x->sums));
	for (unsigned i = 0; i < extent_nsums(x); i++)
		x->sums[i] = roll(d, 0);
	*at += x->npages;
	return true;
}

/* Up to `most` of them in a region or several; extents_fini() frees them. */
static inline struct extents random_extents(struct dice *d, uint32_t most)
{
	struct extents e = { calloc(most + 1, sizeof(struct extent)), 0, most + 1 };
	uint64_t region = roll(d, 2) ? 0 : roll(d, 1000000);

	while (e.n < most) {
		uint32_t at = (uint32_t)roll(d, 20);
		for (uint64_t n = 1 + roll(d, 10); n && e.n < most; n--)
			if (random_extent(d, region, &at, &e.v[e.n]))
				e.n++;
		region += 1 + roll(d, roll(d, 2) ? 1 : 1000);
	}
	return e;
}

static inline struct block_ref *random_blocks(struct dice *d, uint32_t n)
{
	struct block_ref *v = calloc(n + 1, sizeof(*v));
	uint64_t region = roll(d, 3);

	for (uint32_t i = 0; i < n; i++) {
		v[i] = (struct block_ref){ region, 1 + roll(d, UINT64_MAX) };
		region += 1 + roll(d, roll(d, 2) ? 1 : 100000);
	}
	return v;
}

static inline struct timespec random_time(struct dice *d)
{
	return (struct timespec){ (time_t)roll(d, 0), (long)roll(d, 1000000000) };
}

static inline struct keep random_keep(struct dice *d, bool is_dir)
{
	struct keep k = { .pinned = roll(d, 2) ? KEEP_FOREVER : (int64_t)roll(d, 1000000),
			  .priority = (int8_t)(KEEP_LOW + (int)roll(d, 3)) };

	if (roll(d, 2)) {
		k.ttl = 1 + (uint32_t)roll(d, UINT32_MAX);
		k.ttl_by_use = roll(d, 2);
		k.since = (int64_t)roll(d, 1ULL << 40);
	}
	k.quota = is_dir ? roll(d, 0) : 0;
	return k;
}

/* name: 255 bytes of room; body: 64. The record points to them. */
static inline struct record random_record(struct dice *d, char *name, uint8_t *body)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR, S_IFSOCK };
	struct record r = { .kind = roll(d, 4) ? RECORD_WHOLE : RECORD_REF };
	uint32_t type = types[roll(d, 6)];

	r.attr.fileid = 2 + roll(d, UINT64_MAX - 2);
	r.attr.mode = type;
	if (r.kind == RECORD_REF)
		return r;
	r.attr = (struct attr){
		.fileid = r.attr.fileid, .version = roll(d, 0), .size = roll(d, 0) >> 1,
		.pages = roll(d, 0), .rdev = roll(d, 0), .mode = type | (uint32_t)roll(d, 07777),
		.nlink = (uint32_t)roll(d, 0), .uid = (uint32_t)roll(d, 0),
		.gid = (uint32_t)roll(d, 0), .atime = random_time(d), .mtime = random_time(d),
		.ctime = random_time(d), .btime = random_time(d),
		.has_xattrs = roll(d, 2), .has_default_acl = roll(d, 2),
	};
	if (roll(d, 2))
		r.attr.keep = random_keep(d, type == S_IFDIR);
	if (type == S_IFDIR) {
		r.parent = 1 + roll(d, 1000);
		r.name = BYTES_OF(name, 1 + roll(d, 255));
		memset(name, 'a' + (int)roll(d, 26), r.name.len);
	}
	if (type == S_IFLNK || (type == S_IFREG && roll(d, 2))) {
		r.body = (struct body){ BODY_INLINE, BYTES_OF(body, 1 + roll(d, 64)) };
		for (unsigned i = 0; i < 64; i++)
			body[i] = (uint8_t)roll(d, 256);
	}
	if (r.body.kind == BODY_INLINE && type == S_IFREG && roll(d, 2)) {
		r.body.kind = BODY_EXTENTS;
		r.attr.away = roll(d, 2);
		r.attr.copied = !r.attr.away && roll(d, 2);
		if (r.attr.copied)
			r.copy = BYTES_OF(body + roll(d, 32), roll(d, 32));
	}
	return r;
}
