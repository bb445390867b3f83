/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the index. Made here only, and taken apart here only: one byte of
 * kind, big-endian numbers, then a name, so that the order of bytes is the order
 * of numbers and everything under one object is one range. Pure functions; any
 * thread.
 */
#include "index/keys.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <sodium/crypto_shorthash_siphash24.h>

static void key_u8(struct key *k, uint8_t v)
{
	k->b[k->len++] = v;
}

static void key_u64(struct key *k, uint64_t v)
{
	uint64_t be = htobe64(v);

	memcpy(k->b + k->len, &be, sizeof(be));
	k->len += sizeof(be);
}

static void key_append(struct key *k, struct bytes b)
{
	assert(b.len <= sizeof(k->b) - k->len);
	if (b.len)
		memcpy(k->b + k->len, b.p, b.len);
	k->len += (uint16_t)b.len;
}

static struct key key_of_id(char kind, uint64_t id)
{
	struct key k;

	k.len = 0;
	key_u8(&k, (uint8_t)kind);
	key_u64(&k, id);
	return k;
}

static struct key key_of_id2(char kind, uint64_t id, uint64_t id2)
{
	struct key k = key_of_id(kind, id);

	key_u64(&k, id2);
	return k;
}

static struct key key_of_name(char kind, uint64_t parent, uint64_t h, struct bytes name)
{
	struct key k = key_of_id2(kind, parent, h);

	assert(name.len <= INDEX_NAME_MAX);
	key_append(&k, name);
	return k;
}

static struct key key_of_xattr(char kind, uint64_t fileid, struct bytes name)
{
	struct key k = key_of_id(kind, fileid);

	assert(name.len <= INDEX_NAME_MAX);
	key_append(&k, name);
	return k;
}

struct key key_meta(const char *what)
{
	struct key k;

	k.len = 0;
	key_u8(&k, 'M');
	key_append(&k, bytes_str(what));
	return k;
}

struct key key_name(uint64_t parent, uint64_t h, struct bytes name)
{
	return key_of_name('D', parent, h, name);
}

static struct key key_of_session(struct key k, uint64_t session)
{
	key_u64(&k, session);
	return k;
}

struct key key_draft_name(uint64_t parent, uint64_t h, struct bytes name, uint64_t session)
{
	return key_of_session(key_of_name('n', parent, h, name), session);
}

struct key key_file(uint64_t fileid) { return key_of_id('F', fileid); }
struct key key_times(uint64_t fileid) { return key_of_id('T', fileid); }
struct key key_ndirs(uint64_t fileid) { return key_of_id('L', fileid); }

struct key key_writer(uint64_t fileid, uint64_t session)
{
	return key_of_session(key_of_id('w', fileid), session);
}

struct key key_draft_times(uint64_t fileid, uint64_t session)
{
	return key_of_session(key_of_id('t', fileid), session);
}

struct key key_block(uint64_t fileid, uint64_t id)
{
	return key_of_id2('E', fileid, id);
}

struct key key_note(uint64_t fileid, uint64_t number, uint64_t session)
{
	return key_of_session(key_of_id2('b', fileid, number), session);
}

struct key key_hides(uint64_t fileid, uint64_t parent, uint64_t h, uint64_t session)
{
	struct key k = key_of_id2('h', fileid, parent);

	key_u64(&k, h);
	return key_of_session(k, session);
}

struct key key_gone(uint64_t fileid, uint64_t number, uint64_t session)
{
	return key_of_session(key_of_id2('g', fileid, number), session);
}

struct key key_xattr(uint64_t fileid, struct bytes name)
{
	return key_of_xattr('X', fileid, name);
}

struct key key_draft_xattr(uint64_t fileid, struct bytes name, uint64_t session)
{
	return key_of_session(key_of_xattr('x', fileid, name), session);
}

struct key key_prefix(char kind, uint64_t id)
{
	return key_of_id(kind, id);
}

struct key key_prefix_h(char kind, uint64_t parent, uint64_t h)
{
	return key_of_id2(kind, parent, h);
}

/* The prefix as a number, plus one; carries drop off. The kind is a letter, so
 * that there is always a byte left to count up. */
struct key key_prefix_end(struct key prefix)
{
	while (prefix.len && prefix.b[prefix.len - 1] == 0xff)
		prefix.len--;
	assert(prefix.len);
	prefix.b[prefix.len - 1]++;
	return prefix;
}

static bool name_is_valid(struct bytes name)
{
	return name.len >= 1 && name.len <= INDEX_NAME_MAX &&
	       !memchr(name.p, '/', name.len) && !memchr(name.p, 0, name.len);
}

/* Reads what stands before the session's number, if it is a key that has one. */
static struct reader key_reader(struct bytes key)
{
	struct reader r = reader_of(key);

	if (!kv_key_is_session(key))
		return r;
	if (kv_key_session(key))
		r.left -= sizeof(uint64_t);
	else
		r.bad = true;
	return r;
}

int key_parse_name(struct bytes key, struct name_key *ret)
{
	struct reader r = key_reader(key);
	struct name_key nk = { .kind = (char)read_u8(&r) };

	nk.parent = read_be64(&r);
	nk.h = read_be64(&r);
	nk.name = BYTES_OF(r.p, r.left);
	nk.session = kv_key_session(key);
	if (r.bad || (nk.kind != 'D' && nk.kind != 'n'))
		return -EUCLEAN;
	if (!nk.parent || !h_is_valid(nk.h) || !name_is_valid(nk.name))
		return -EUCLEAN;
	*ret = nk;
	return 0;
}

int key_parse_id(struct bytes key, char kind, uint64_t *ret_id)
{
	struct reader r = key_reader(key);
	char k = (char)read_u8(&r);
	uint64_t id = read_be64(&r);

	if (r.bad || r.left || k != kind || !id)
		return -EUCLEAN;
	*ret_id = id;
	return 0;
}

int key_parse_xattr(struct bytes key, uint64_t *ret_id, struct bytes *ret_name)
{
	struct reader r = key_reader(key);
	char k = (char)read_u8(&r);
	uint64_t id = read_be64(&r);

	if (r.bad || (k != 'X' && k != 'x') || !id)
		return -EUCLEAN;
	if (r.left < 1 || r.left > INDEX_NAME_MAX || memchr(r.p, 0, r.left))
		return -EUCLEAN;
	*ret_id = id;
	*ret_name = BYTES_OF(r.p, r.left);
	return 0;
}

int key_parse_block(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_id)
{
	struct reader r = key_reader(key);
	char k = (char)read_u8(&r);
	uint64_t fileid = read_be64(&r);
	uint64_t id = read_be64(&r);

	if (r.bad || r.left || (k != 'E' && k != 'b') || !fileid || !id)
		return -EUCLEAN;
	*ret_fileid = fileid;
	*ret_id = id;
	return 0;
}

int key_parse_hides(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_parent, uint64_t *ret_h)
{
	struct reader r = key_reader(key);
	char k = (char)read_u8(&r);
	uint64_t fileid = read_be64(&r);
	uint64_t parent = read_be64(&r);
	uint64_t h = read_be64(&r);

	if (r.bad || r.left || k != 'h' || !fileid || !parent || !h_is_valid(h))
		return -EUCLEAN;
	*ret_fileid = fileid;
	*ret_parent = parent;
	*ret_h = h;
	return 0;
}

int key_parse_gone(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_number)
{
	struct reader r = key_reader(key);
	char k = (char)read_u8(&r);
	uint64_t fileid = read_be64(&r);
	uint64_t number = read_be64(&r);

	if (r.bad || r.left || k != 'g' || !fileid)
		return -EUCLEAN;
	*ret_fileid = fileid;
	*ret_number = number;
	return 0;
}

_Static_assert(crypto_shorthash_siphash24_KEYBYTES == 16, "the file system's hash key");

/* Keyed, so that nobody who chooses names can make them collide. */
uint64_t name_hash(const uint8_t hash_key[16], struct bytes name)
{
	uint8_t out[crypto_shorthash_siphash24_BYTES];

	crypto_shorthash_siphash24(out, name.p, name.len, hash_key);
	struct reader r = reader_of(BYTES_OF(out, sizeof(out)));
	uint64_t h = h_hash(read_u64(&r) >> 1);
	return h < NAME_STEP ? NAME_STEP : h;
}

_Static_assert(INDEX_H_FREE == NAME_STEP - NAME_SLOTS, "what is between hash and disambiguator");

uint64_t h_hash(uint64_t h)
{
	return h & ~(uint64_t)(NAME_STEP - 1);
}

bool h_is_valid(uint64_t h)
{
	return h >= NAME_STEP && h <= INT64_MAX && !(h & INDEX_H_FREE);
}
