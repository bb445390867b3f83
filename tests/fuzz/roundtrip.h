/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What holds of every encoding of the index, whatever the bytes: what decodes
 * encodes to the very same bytes. Each function takes hostile bytes, and aborts
 * if that is not so. The fuzzers call them, and so do the unit tests.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "index/keys.h"
#include "index/value.h"

static inline void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static inline void same_bytes(struct bytes in, struct writer *out, const char *what)
{
	must(!out->bad && bytes_eq(in, writer_bytes(out)), what);
	writer_fini(out);
}

/* Values --------------------------------------------------------------------- */

static inline bool trip_record(struct bytes v)
{
	struct writer w = { 0 };
	struct record r;

	if (record_decode(v, &r))
		return false;
	record_encode(&r, &w);
	same_bytes(v, &w, "a record");
	return true;
}

static inline bool trip_writer_state(struct bytes v)
{
	struct writer w = { 0 };
	struct writer_state s;

	if (writer_state_decode(v, &s))
		return false;
	writer_state_encode(&s, &w);
	writer_state_fini(&s);
	same_bytes(v, &w, "a writer state");
	return true;
}

static inline bool trip_gone(struct bytes v)
{
	struct writer w = { 0 };
	struct body b;

	if (gone_decode(v, &b))
		return false;
	gone_encode(&b, &w);
	same_bytes(v, &w, "what is gone");
	return true;
}

static inline bool trip_small(struct bytes v)
{
	struct writer w[5] = { 0 };
	uint64_t *ids;
	uint32_t nids;
	struct index_super s;
	struct dir_times t;
	struct bytes x;
	uint64_t n;
	bool any = false;

	if (!dir_times_decode(v, &t)) {
		dir_times_encode(&t, &w[0]);
		same_bytes(v, &w[0], "times");
		any = true;
	}
	if (!number_decode(v, &n)) {
		number_encode(n, &w[1]);
		same_bytes(v, &w[1], "a number");
		any = true;
	}
	if (!super_decode(v, &s)) {
		super_encode(&s, &w[2]);
		same_bytes(v, &w[2], "a superblock");
		any = true;
	}
	if (!note_decode(v, &ids, &nids)) {
		note_encode(ids, nids, &w[4]);
		free(ids);
		same_bytes(v, &w[4], "a note");
		any = true;
	}
	if (!xattr_decode(v, &x)) {
		xattr_encode(x, &w[3]);
		same_bytes(v, &w[3], "an attribute");
	}
	return any;
}

/* Any content, behind a frame that is right: so that bytes get to the decoders. */
static inline void framed(struct bytes content, struct writer *w)
{
	size_t begin = value_begin(w);

	write_bytes(w, content.p, content.len);
	value_end(w, begin);
}

/* Bodies ------------------------------------------------------------------------ */

static inline void extents_hold(const struct extents *e)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < e->n; i++) {
		const struct extent *x = &e->v[i];
		must(x->npages && x->page >= end, "order of extents");
		must(x->page / REGION_PAGES == (x->page + x->npages - 1) / REGION_PAGES,
		     "extents stay in their region");
		must(x->slice_pages <= 1024 && x->slice_off + x->npages <= x->slice_pages,
		     "extents stay in their slice");
		must(x->slice + (uint64_t)x->slice_pages <= UINT64_C(1) << 32,
		     "slices stay in a pool");
		must(x->sums && x->pool_id, "sums and pool");
		end = x->page + x->npages;
	}
}

struct each {
	const struct extents *e;
	uint32_t n;
};

static inline int each_is(void *arg, const struct extent *x)
{
	struct each *each = arg;
	const struct extent *y = &each->e->v[each->n++];

	must(x->pool_id == y->pool_id && x->page == y->page && x->slice == y->slice &&
	     x->gen == y->gen && x->npages == y->npages && x->slice_pages == y->slice_pages &&
	     x->slice_off == y->slice_off && !x->sums, "one extent after the other");
	return 0;
}

static inline int each_any(void *arg, const struct extent *x)
{
	(void)arg;
	(void)x;
	return 0;
}

static inline bool trip_extents(struct bytes b)
{
	struct writer w = { 0 };
	struct extents e;

	if (body_decode_extents(b, &e)) {
		must(body_each_extent(b, each_any, NULL) == -EUCLEAN, "neither decodes");
		return false;
	}
	struct each each = { .e = &e };
	must(!body_each_extent(b, each_is, &each) && each.n == e.n, "both decode");
	extents_hold(&e);
	must(e.cap <= b.len / 8 + 16, "memory in proportion to the input");
	must(!body_encode_extents(&e, &w), "what decodes can be encoded");
	extents_fini(&e);
	same_bytes(b, &w, "extents");
	return true;
}

static inline bool trip_blocks(struct bytes b)
{
	struct writer w = { 0 };
	struct block_ref *v;
	uint32_t n;

	if (body_decode_blocks(b, &v, &n))
		return false;
	for (uint32_t i = 0; i < n; i++)
		must(v[i].id && (!i || v[i].region > v[i - 1].region), "order of blocks");
	must(!body_encode_blocks(v, n, &w), "what decodes can be encoded");
	free(v);
	same_bytes(b, &w, "block references");
	return true;
}

/* Keys ---------------------------------------------------------------------------- */

static inline bool trip_key(struct bytes b)
{
	static const char kinds[] = "FTLwt";
	uint64_t session = kv_key_session(b);
	struct name_key n;
	struct bytes name;
	struct key k;
	uint64_t id, id2, h;

	if (!key_parse_name(b, &n)) {
		k = n.kind == 'D' ? key_name(n.parent, n.h, n.name)
				  : key_draft_name(n.parent, n.h, n.name, n.session);
		must(bytes_eq(key_bytes(&k), b), "a name's key");
		must(n.session == session && !session == (n.kind == 'D'), "a name's session");
		return true;
	}
	if (!key_parse_xattr(b, &id, &name)) {
		k = *(const char *)b.p == 'X' ? key_xattr(id, name)
					      : key_draft_xattr(id, name, session);
		must(bytes_eq(key_bytes(&k), b), "an attribute's key");
		return true;
	}
	if (!key_parse_block(b, &id, &id2)) {
		k = session ? key_note(id, id2, session) : key_block(id, id2);
		must(bytes_eq(key_bytes(&k), b), "a block's key");
		return true;
	}
	if (!key_parse_gone(b, &id, &id2)) {
		k = key_gone(id, id2, session);
		must(bytes_eq(key_bytes(&k), b), "the key of what is gone");
		return true;
	}
	if (!key_parse_hides(b, &id, &id2, &h)) {
		k = key_hides(id, id2, h, session);
		must(bytes_eq(key_bytes(&k), b), "the key of what is hidden");
		return true;
	}
	for (unsigned i = 0; i < 5; i++) {
		if (key_parse_id(b, kinds[i], &id))
			continue;
		k = kinds[i] == 'w' ? key_writer(id, session)
		  : kinds[i] == 't' ? key_draft_times(id, session) : key_prefix(kinds[i], id);
		must(bytes_eq(key_bytes(&k), b), "a key");
		return true;
	}
	return false;
}
