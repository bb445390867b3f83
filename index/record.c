/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values: records, writer states, directory times, numbers, the superblock.
 * Little-endian, behind the frame of index/value.h:
 *
 *   whole   u8 kind, u8 flags, u8 body kind,
 *           u64 fileid, version, size, pages, rdev, u32 mode, nlink, uid, gid,
 *           4 times { s64 s, u32 ns } (a, m, c, birth)           112 bytes so far
 *           if flagged, what is to be kept: s64 pinned, since, u64 quota, u32 ttl,
 *           u8 by use, s8 priority
 *           if flagged, of a copy on the disk: u16 length, extents
 *           a directory: u64 parent, u8 name length, name
 *           body to the end
 *   ref     u8 kind, u64 fileid, u32 type
 *   w       u8 0, place, or u8 1, names: u64 parent, u64 h, u8 length, name
 *   g       u8 body kind, body to the end
 *   T, t    mtime, ctime, if known u64 by, then, if so, u8 1: evicted
 *   number  u64
 *   b       u64 each
 *   M super u64 fs_id, u64 pool_id, 16 bytes of hash key, time
 *
 * Each object has one encoding only: what decodes encodes to the same bytes.
 * Pure functions; any thread.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "index/keys.h"
#include "index/value.h"

enum { ATTR_BYTES = 104 };
enum {
	FLAG_XATTRS = 1,
	FLAG_DEFAULT_ACL = 2,
	FLAG_KEEP = 4,
	FLAG_AWAY = 8,
	FLAG_COPIED = 16,
	FLAGS_ALL = 31,
};

static void time_encode(struct timespec t, struct writer *w)
{
	write_u64(w, (uint64_t)t.tv_sec);
	write_u32(w, (uint32_t)t.tv_nsec);
}

static struct timespec time_decode(struct reader *r)
{
	struct timespec t = { .tv_sec = (time_t)read_u64(r) };
	uint32_t ns = read_u32(r);

	if (ns >= NS_PER_S)
		r->bad = true;
	t.tv_nsec = (long)ns;
	return t;
}

/* Length byte and name. `or_none`: may be empty (the root's own name). */
static struct bytes name_decode(struct reader *r, bool or_none)
{
	uint8_t len = read_u8(r);
	const void *p = read_bytes(r, len);

	if (!p || (!len && !or_none))
		r->bad = true;
	if (r->bad || memchr(p, '/', len) || memchr(p, 0, len)) {
		r->bad = true;
		return BYTES_NONE;
	}
	return BYTES_OF(p, len);
}

static void name_encode(struct bytes name, struct writer *w)
{
	assert(name.len <= INDEX_NAME_MAX);
	write_u8(w, (uint8_t)name.len);
	write_bytes(w, name.p, name.len);
}

static int end_of(const struct reader *r)
{
	return r->bad || r->left ? -EUCLEAN : 0;
}

/* Records ------------------------------------------------------------------ */

static void attr_encode(const struct attr *a, struct writer *w)
{
	const uint64_t wide[] = { a->fileid, a->version, a->size, a->pages, a->rdev };
	const uint32_t narrow[] = { a->mode, a->nlink, a->uid, a->gid };

	for (unsigned i = 0; i < 5; i++)
		write_u64(w, wide[i]);
	for (unsigned i = 0; i < 4; i++)
		write_u32(w, narrow[i]);
	time_encode(a->atime, w);
	time_encode(a->mtime, w);
	time_encode(a->ctime, w);
	time_encode(a->btime, w);
}

/* Bounds once for all of it: every record of the index is decoded when a store is opened. */
static void attr_decode(struct reader *from, struct attr *a)
{
	const void *p = read_bytes(from, ATTR_BYTES);
	struct reader fixed = { p, ATTR_BYTES, false }, *r = &fixed;

	if (!p)
		return;
	a->fileid = read_u64(r);
	a->version = read_u64(r);
	a->size = read_u64(r);
	a->pages = read_u64(r);
	a->rdev = read_u64(r);
	a->mode = read_u32(r);
	a->nlink = read_u32(r);
	a->uid = read_u32(r);
	a->gid = read_u32(r);
	a->atime = time_decode(r);
	a->mtime = time_decode(r);
	a->ctime = time_decode(r);
	a->btime = time_decode(r);
	from->bad |= r->bad;
}

static void keep_encode(const struct keep *k, struct writer *w)
{
	write_u64(w, (uint64_t)k->pinned);
	write_u64(w, (uint64_t)k->since);
	write_u64(w, k->quota);
	write_u32(w, k->ttl);
	write_u8(w, k->ttl_by_use);
	write_u8(w, (uint8_t)k->priority);
}

static bool keep_is_valid(const struct keep *k, uint8_t by_use, bool is_dir)
{
	return keep_said(k) && k->pinned >= 0 && k->since >= 0 && by_use <= 1 &&
	       k->since <= INT64_MAX - UINT32_MAX &&
	       (k->ttl || (!k->since && !by_use)) &&
	       k->priority >= KEEP_LOW && k->priority <= KEEP_HIGH && (is_dir || !k->quota);
}

static void keep_decode(struct reader *r, struct attr *a)
{
	struct keep *k = &a->keep;

	k->pinned = (int64_t)read_u64(r);
	k->since = (int64_t)read_u64(r);
	k->quota = read_u64(r);
	k->ttl = read_u32(r);
	uint8_t by_use = read_u8(r);
	k->ttl_by_use = by_use;
	k->priority = (int8_t)read_u8(r);
	if (!keep_is_valid(k, by_use, S_ISDIR(a->mode)))
		r->bad = true;
}

bool record_type_is_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

static bool type_is_valid(uint32_t mode)
{
	return record_type_is_known(mode) && !(mode & ~(uint32_t)(S_IFMT | 07777));
}

/* Which bodies an object of this type may have. */
static bool body_is_valid(uint32_t mode, enum body_kind kind, size_t len)
{
	switch (kind) {
	case BODY_NONE:
		return !len && !S_ISLNK(mode);
	case BODY_INLINE:
		return len && len <= PATH_MAX && (S_ISREG(mode) || S_ISLNK(mode));
	case BODY_EXTENTS:
	case BODY_BLOCKS:
	case BODY_TREE:
		return S_ISREG(mode);
	}
	return false;
}

static void copy_encode(struct bytes copy, struct writer *w)
{
	assert(copy.len <= INDEX_BODY_MAX);
	write_u16(w, (uint16_t)copy.len);
	write_bytes(w, copy.p, copy.len);
}

static void copy_decode(struct reader *r, struct bytes *ret)
{
	uint16_t len = read_u16(r);

	if (len > INDEX_BODY_MAX)
		r->bad = true;
	else if (len)
		*ret = BYTES_OF(read_bytes(r, len), len);
}

static void whole_encode(const struct record *r, struct writer *w)
{
	const struct attr *a = &r->attr;

	assert(type_is_valid(a->mode) && body_is_valid(a->mode, r->body.kind, r->body.bytes.len));
	bool has_keep = keep_said(&a->keep);

	assert((!a->away && !a->copied) || r->body.kind >= BODY_EXTENTS);
	assert(!(a->away && a->copied) && (a->copied || !r->copy.len));
	write_u8(w, (a->has_xattrs ? FLAG_XATTRS : 0) |
		    (a->has_default_acl ? FLAG_DEFAULT_ACL : 0) |
		    (has_keep ? FLAG_KEEP : 0) | (a->away ? FLAG_AWAY : 0) |
		    (a->copied ? FLAG_COPIED : 0));
	write_u8(w, (uint8_t)r->body.kind);
	attr_encode(a, w);
	if (has_keep)
		keep_encode(&a->keep, w);
	if (a->copied)
		copy_encode(r->copy, w);
	if (S_ISDIR(a->mode)) {
		write_u64(w, r->parent);
		name_encode(r->name, w);
	}
	write_bytes(w, r->body.bytes.p, r->body.bytes.len);
}

static int whole_decode(struct reader *r, struct record *rec)
{
	struct attr *a = &rec->attr;
	uint8_t flags = read_u8(r);
	uint8_t kind = read_u8(r);

	attr_decode(r, a);
	if (flags & FLAG_KEEP)
		keep_decode(r, a);
	a->has_xattrs = flags & FLAG_XATTRS;
	a->has_default_acl = flags & FLAG_DEFAULT_ACL;
	a->away = flags & FLAG_AWAY;
	a->copied = flags & FLAG_COPIED;
	if (a->copied)
		copy_decode(r, &rec->copy);
	if ((a->away || a->copied) && (kind < BODY_EXTENTS || (a->away && a->copied)))
		return -EUCLEAN;
	if (r->bad || flags & ~FLAGS_ALL || kind > BODY_TREE || !type_is_valid(a->mode))
		return -EUCLEAN;
	if (S_ISDIR(a->mode)) {
		rec->parent = read_u64(r);
		rec->name = name_decode(r, a->fileid == INDEX_ROOT);
		if (!rec->parent)
			return -EUCLEAN;
	}
	rec->body.kind = (enum body_kind)kind;
	if (r->left)
		rec->body.bytes = BYTES_OF(r->p, r->left);
	if (r->bad || !a->fileid || a->size > INT64_MAX)
		return -EUCLEAN;
	return body_is_valid(a->mode, rec->body.kind, r->left) ? 0 : -EUCLEAN;
}

static int ref_decode(struct reader *r, struct record *rec)
{
	rec->attr.fileid = read_u64(r);
	rec->attr.mode = read_u32(r);
	if (!rec->attr.fileid || rec->attr.mode & ~(uint32_t)S_IFMT)
		return -EUCLEAN;
	return type_is_valid(rec->attr.mode) ? end_of(r) : -EUCLEAN;
}

int record_decode(struct bytes v, struct record *ret)
{
	struct record rec = { 0 };
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	uint8_t kind = read_u8(&r);
	if (r.bad || kind > RECORD_REF)
		return -EUCLEAN;
	rec.kind = (enum record_kind)kind;
	e = kind == RECORD_REF ? ref_decode(&r, &rec) : whole_decode(&r, &rec);
	if (e < 0)
		return e;
	*ret = rec;
	return 0;
}

void record_encode(const struct record *r, struct writer *w)
{
	size_t begin = value_begin(w);

	write_u8(w, (uint8_t)r->kind);
	if (r->kind == RECORD_REF) {
		write_u64(w, r->attr.fileid);
		write_u32(w, r->attr.mode & S_IFMT);
	} else {
		whole_encode(r, w);
	}
	value_end(w, begin);
}

/* Writer states -------------------------------------------------------------- */

static int place_decode(struct reader *r, struct place *p)
{
	uint8_t kind = read_u8(r);

	if (r->bad || kind > PLACE_FILEID)
		return -EUCLEAN;
	p->kind = (enum place_kind)kind;
	if (p->kind == PLACE_NAME) {
		p->parent = read_u64(r);
		p->h = read_u64(r);
	}
	return end_of(r);
}

static int writer_names_decode(struct reader *r, struct writer_state *s)
{
	enum { NAME_BYTES_MIN = 8 + 8 + 8 + 1 + 1 };
	/* In proportion to the input, whatever it says. */
	_cleanup_(freep) struct writer_name *names =
		calloc(r->left / NAME_BYTES_MIN + 1, sizeof(*names));
	uint32_t n = 0;

	if (!names)
		return -ENOMEM;
	while (r->left && !r->bad) {
		if (r->left < NAME_BYTES_MIN)
			return -EUCLEAN;
		names[n].parent = read_u64(r);
		names[n].h = read_u64(r);
		names[n].hides = read_u64(r);
		names[n].name = name_decode(r, false);
		n++;
	}
	if (r->bad)
		return -EUCLEAN;
	s->names = steal(&names);
	s->nnames = n;
	return 0;
}

int writer_state_decode(struct bytes v, struct writer_state *ret)
{
	struct writer_state s = { 0 };
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	uint8_t draft = read_u8(&r);
	if (r.bad || draft > 1)
		return -EUCLEAN;
	s.draft = draft;
	e = draft ? writer_names_decode(&r, &s) : place_decode(&r, &s.place);
	if (e < 0)
		return e;
	*ret = s;
	return 0;
}

void writer_state_encode(const struct writer_state *s, struct writer *w)
{
	size_t begin = value_begin(w);

	write_u8(w, s->draft);
	for (uint32_t i = 0; s->draft && i < s->nnames; i++) {
		write_u64(w, s->names[i].parent);
		write_u64(w, s->names[i].h);
		write_u64(w, s->names[i].hides);
		assert(s->names[i].name.len);
		name_encode(s->names[i].name, w);
	}
	if (!s->draft) {
		assert(s->place.kind <= PLACE_FILEID);
		write_u8(w, (uint8_t)s->place.kind);
		if (s->place.kind == PLACE_NAME) {
			write_u64(w, s->place.parent);
			write_u64(w, s->place.h);
		}
	}
	value_end(w, begin);
}

void writer_state_fini(struct writer_state *s)
{
	free(s->names);
	*s = (struct writer_state){ 0 };
}

/* What is gone ---------------------------------------------------------------- */

bool gone_is_noted(const struct body *b)
{
	return b->kind == BODY_EXTENTS || b->kind == BODY_BLOCKS || b->kind == BODY_TREE;
}

int gone_decode(struct bytes v, struct body *ret)
{
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	struct body b = { .kind = read_u8(&r) };
	if (r.bad)
		return -EUCLEAN;
	b.bytes = BYTES_OF(r.p, r.left);
	if (!gone_is_noted(&b) && gone_ids(&b, NULL, NULL))
		return -EUCLEAN;
	*ret = b;
	return 0;
}

int gone_ids(const struct body *b, int (*visit)(void *arg, uint64_t id), void *arg)
{
	struct reader r = reader_of(b->bytes);

	if (b->kind != BODY_NONE || !r.left || r.left % sizeof(uint64_t))
		return -EUCLEAN;
	while (r.left) {
		uint64_t id = read_u64(&r);
		int bad = !id ? -EUCLEAN : visit ? visit(arg, id) : 0;
		if (bad)
			return bad;
	}
	return 0;
}

void gone_encode(const struct body *b, struct writer *w)
{
	size_t begin = value_begin(w);

	assert(gone_is_noted(b) || !gone_ids(b, NULL, NULL));
	write_u8(w, (uint8_t)b->kind);
	write_bytes(w, b->bytes.p, b->bytes.len);
	value_end(w, begin);
}

/* Small ones ------------------------------------------------------------------ */

int dir_times_decode(struct bytes v, struct dir_times *ret)
{
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	struct dir_times t = { .mtime = time_decode(&r) };
	t.ctime = time_decode(&r);
	bool has_by = r.left;
	if (has_by)
		t.by = read_u64(&r);
	t.evicted = has_by && r.left;
	if (t.evicted && read_u8(&r) != 1)
		return -EUCLEAN;
	e = end_of(&r);
	if (e < 0)
		return e;
	if (has_by && !t.by)
		return -EUCLEAN; /* 0 is not written */
	*ret = t;
	return 0;
}

void dir_times_encode(const struct dir_times *t, struct writer *w)
{
	size_t begin = value_begin(w);

	time_encode(t->mtime, w);
	time_encode(t->ctime, w);
	if (t->by)
		write_u64(w, t->by);
	if (t->evicted)
		write_u8(w, 1);
	value_end(w, begin);
}

int number_decode(struct bytes v, uint64_t *ret)
{
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	uint64_t n = read_u64(&r);
	e = end_of(&r);
	if (e < 0)
		return e;
	*ret = n;
	return 0;
}

void number_encode(uint64_t n, struct writer *w)
{
	size_t begin = value_begin(w);

	write_u64(w, n);
	value_end(w, begin);
}

int note_decode(struct bytes v, uint64_t **ret, uint32_t *ret_n)
{
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	if (!r.left || r.left % sizeof(uint64_t))
		return -EUCLEAN;
	uint32_t n = (uint32_t)(r.left / sizeof(uint64_t));
	_cleanup_(freep) uint64_t *ids = malloc(r.left);
	if (!ids)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		ids[i] = read_u64(&r);
		if (!ids[i])
			return -EUCLEAN;
	}
	*ret = steal(&ids);
	*ret_n = n;
	return 0;
}

void note_encode(const uint64_t *ids, uint32_t n, struct writer *w)
{
	size_t begin = value_begin(w);

	for (uint32_t i = 0; i < n; i++)
		write_u64(w, ids[i]);
	value_end(w, begin);
}

int super_decode(struct bytes v, struct index_super *ret)
{
	struct index_super s;
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	s.fs_id = read_u64(&r);
	s.pool_id = read_u64(&r);
	const void *hash_key = read_bytes(&r, sizeof(s.hash_key));
	s.made = time_decode(&r);
	e = end_of(&r);
	if (e < 0)
		return e;
	memcpy(s.hash_key, hash_key, sizeof(s.hash_key));
	*ret = s;
	return 0;
}

void super_encode(const struct index_super *s, struct writer *w)
{
	size_t begin = value_begin(w);

	write_u64(w, s->fs_id);
	write_u64(w, s->pool_id);
	write_bytes(w, s->hash_key, sizeof(s->hash_key));
	time_encode(s->made, w);
	value_end(w, begin);
}

int xattr_decode(struct bytes v, struct bytes *ret)
{
	struct reader r;
	int e = value_open(v, &r);

	if (e < 0)
		return e;
	*ret = BYTES_OF(r.p, r.left);
	return 0;
}

void xattr_encode(struct bytes value, struct writer *w)
{
	size_t begin = value_begin(w);

	write_bytes(w, value.p, value.len);
	value_end(w, begin);
}
