/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The disk's own records as bytes and back: pure but for tier_replay_file(). A file of them
 * is
 *
 *	record   u32 magic, u32 bytes of entries, u64 number, u64 XXH3 of these and of the
 *	         entries; entries
 *	entry    u8 HEAD      u32 version, u64 pool id, u64 file system id, u64 number of the file
 *	         u8 PUT       u16, u32 lengths, key, value of a row
 *	         u8 DEL       u16 length, key
 *	         u8 SEGMENT   u32 number, u32 generation
 *	         u8 END       the end of a whole snapshot
 *
 * all little-endian, records numbered from 0 in each file, the first with the HEAD alone. A
 * record is one commit's, and holds as a whole or not at all; what comes behind one that
 * does not hold was never written, as far as anybody will know.
 */
#include "common/bytes.h"

enum {
	RECORD_VERSION = 1,
	RECORD_HEADER = 24,
	RECORD_FIRST = RECORD_HEADER + 29, /* bytes of the first */
	RECORD_MAX = 4 << 20, /* bytes of entries; of a longer commit several are made */
};

struct record_head {
	uint32_t version;
	uint64_t pool_id, fs_id, number;
};

void entry_head(struct writer *w, const struct record_head *h);
void entry_put(struct writer *w, struct bytes key, struct bytes value);
void entry_del(struct writer *w, struct bytes key);
void entry_segment(struct writer *w, uint32_t n, uint32_t gen);
void entry_end(struct writer *w);

/* Records of these entries, the first of which has number *number; it goes up. */
void records_write(struct writer *w, uint64_t *number, struct bytes entries);

/* What is found; each may be NULL. Not 0: ends it with that. */
struct record_visitor {
	int (*head)(void *arg, const struct record_head *h);
	int (*put)(void *arg, struct bytes key, struct bytes value);
	int (*del)(void *arg, struct bytes key);
	int (*segment)(void *arg, uint32_t n, uint32_t gen);
	int (*end)(void *arg);
	void *arg;
};

/*
 * Takes whole records from the beginning of b, of which the first is to have *number; *number
 * and *ret_len say how far it came. 0: b is at its end, or within a record; 1: what follows
 * does not hold. Negative: the visitor's.
 */
int records_read(struct bytes b, uint64_t *number, const struct record_visitor *v, size_t *ret_len);

/* All of a file that holds. *ret_len: bytes of that; *ret_torn (or NULL): there are more.
 * -EUCLEAN: not even its head does; -EPROTONOSUPPORT (a newer version), -EIO, the visitor's. */
int records_read_file(int fd, const struct record_visitor *v, uint64_t *ret_len, bool *ret_torn);
