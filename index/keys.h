/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Keys and values of the index, as pure functions; docs/architecture.md has the
 * table. Keys sort as their numbers do (big-endian); those of a session (lower-case)
 * end with its number, kv_key_session() says which. Values begin with a format
 * version and a crc32c of the rest: decoding takes hostile bytes and says
 * -EUCLEAN, or -EPROTONOSUPPORT for a version it does not know; it never reads
 * outside and never believes a length.
 */
#include "index/index.h"

struct key {
	uint16_t len;
	uint8_t b[8 + 8 + 1 + INDEX_NAME_MAX + 8];
};

static inline struct bytes key_bytes(const struct key *k)
{
	return BYTES_OF(k->b, k->len);
}

struct key key_meta(const char *what);                            /* M */
struct key key_name(uint64_t parent, uint64_t h, struct bytes name);   /* D */
struct key key_file(uint64_t fileid);                             /* F */
struct key key_times(uint64_t fileid);                            /* T */
struct key key_ndirs(uint64_t fileid);                            /* L */
struct key key_xattr(uint64_t fileid, struct bytes name);         /* X */
struct key key_block(uint64_t fileid, uint64_t id);               /* E */
struct key key_draft_name(uint64_t parent, uint64_t h, struct bytes name,
			  uint64_t session);                      /* n */
struct key key_writer(uint64_t fileid, uint64_t session);         /* w */
struct key key_draft_times(uint64_t fileid, uint64_t session);    /* t */
struct key key_draft_xattr(uint64_t fileid, struct bytes name, uint64_t session); /* x */
struct key key_note(uint64_t fileid, uint64_t number, uint64_t session); /* b */
struct key key_hides(uint64_t fileid, uint64_t parent, uint64_t h, uint64_t session); /* h */
struct key key_gone(uint64_t fileid, uint64_t number, uint64_t session); /* g */

/* The beginning of all keys of `kind` ('D', 'n', 'X', ...) under id, and, for D
 * and n, at or behind h; of all sessions. With key_prefix_end(): the range [from, to). */
struct key key_prefix(char kind, uint64_t id);
struct key key_prefix_h(char kind, uint64_t parent, uint64_t h);
struct key key_prefix_end(struct key prefix); /* first key behind all of them */

struct name_key { /* what D and n keys consist of */
	char kind;
	uint64_t parent, h;
	struct bytes name; /* points into the key */
	uint64_t session;  /* of n; else 0 */
};
int key_parse_name(struct bytes key, struct name_key *ret);
int key_parse_id(struct bytes key, char kind, uint64_t *ret_id); /* F T L w t */
int key_parse_xattr(struct bytes key, uint64_t *ret_id, struct bytes *ret_name);
int key_parse_block(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_id); /* E b */
int key_parse_hides(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_parent,
		    uint64_t *ret_h);
int key_parse_gone(struct bytes key, uint64_t *ret_fileid, uint64_t *ret_number);

/* The 63-bit hash of a name: a multiple of NAME_STEP, and no less than that. */
uint64_t name_hash(const uint8_t hash_key[16], struct bytes name);
/* An h is the name's hash and a disambiguator, so that few names of a directory may have one
 * hash. Bits between the two are never set (INDEX_H_FREE). */
enum { NAME_STEP = 256, NAME_SLOTS = 4 };
uint64_t h_hash(uint64_t h);
bool h_is_valid(uint64_t h);

/* Records: the value of D (whole or reference) and F ----------------------- */

enum record_kind {
	RECORD_WHOLE, /* D: a file that has this name only; F: the object */
	RECORD_REF,   /* D: look at F attr.fileid */
};

struct record {
	enum record_kind kind;
	struct attr attr;   /* RECORD_REF: fileid and type (in mode) only */
	struct body body;   /* points into the decoded bytes, as does */
	struct bytes copy;  /* attr.copied: extents, or none */
	uint64_t parent;    /* F of a directory: where it is */
	struct bytes name;  /* and its own name */
};
/* Is it one of the seven types that an object can have? */
bool record_type_is_known(uint32_t mode);
int record_decode(struct bytes v, struct record *ret);
void record_encode(const struct record *r, struct writer *w);

/* w: who writes, and where to. A draft has names (any number, also none), a
 * published object has a place. */
struct writer_name {
	uint64_t parent, h;
	struct bytes name;
	uint64_t hides; /* fileid of a file of several names, one of which is this; or 0 */
};
struct writer_state {
	bool draft;
	struct place place;        /* !draft; PLACE_NONE: unlinked meanwhile */
	struct writer_name *names; /* draft; heap, freed by writer_state_fini() */
	uint32_t nnames;
};
int writer_state_decode(struct bytes v, struct writer_state *ret);
void writer_state_encode(const struct writer_state *s, struct writer *w);
void writer_state_fini(struct writer_state *s);

/* g: a body that no record names any more: of extents or blocks. Or, with BODY_NONE,
 * blocks that a version did without, as a list of ids (gone_ids()). *ret points into v. */
bool gone_is_noted(const struct body *b); /* it is a body of those */
int gone_decode(struct bytes v, struct body *ret);
void gone_encode(const struct body *b, struct writer *w);
/* Of a list: the ids. */
int gone_ids(const struct body *b, int (*visit)(void *arg, uint64_t id), void *arg);

struct dir_times {
	struct timespec mtime, ctime;
	uint64_t by; /* the transaction that wrote it, so that one whose answer was
			lost knows itself from its like; 0: unknown */
	bool evicted; /* what went last was evicted; then `by` is known */
};
int dir_times_decode(struct bytes v, struct dir_times *ret);
void dir_times_encode(const struct dir_times *t, struct writer *w);

/* n: fileid. L: a number. M next: a number. All the same encoding. */
int number_decode(struct bytes v, uint64_t *ret);
void number_encode(uint64_t n, struct writer *w);

/* b: ids of blocks, one at least. *ret is on the heap. */
int note_decode(struct bytes v, uint64_t **ret, uint32_t *ret_n);
void note_encode(const uint64_t *ids, uint32_t n, struct writer *w);

/* X, x: an attribute's value; *ret points into v. */
int xattr_decode(struct bytes v, struct bytes *ret);
void xattr_encode(struct bytes value, struct writer *w);

int super_decode(struct bytes v, struct index_super *ret);
void super_encode(const struct index_super *s, struct writer *w);

uint32_t crc32c(struct bytes b);
