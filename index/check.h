/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the files of index_check() share (index/ only): check.c drives, and has
 * the tables; check_names.c looks at objects and names; check_rest.c at all that
 * belongs to an object; check_sessions.c at keys of sessions. One thread.
 */
#include "index/blockset.h"
#include "index/keys.h"
#include "index/walk.h"

/* An object with an F record, in order of their ids. */
struct check_object {
	uint64_t id;
	uint64_t parent; /* of a directory, as its record says */
	uint64_t ndirs;  /* directories in it, counted */
	uint32_t type;   /* S_IF* */
	uint32_t nlink;  /* as its record says */
	uint32_t nrefs;  /* names that refer to it, counted */
	uint32_t nright; /* of them, those that a directory's record names */
	bool rooted;     /* its parents lead to the root */
};

/* An object whose record is with its name, or that has extended attributes. */
struct check_id {
	uint64_t id;
	bool seen;
};

struct check_ids {
	struct check_id *v;
	size_t n, cap;
};

/* A `w`. */
struct check_writer {
	uint64_t id, session;
	bool draft;
	struct place place; /* !draft */
	uint32_t nnames;    /* of a draft, as it says */
	uint32_t nfound;    /* n rows of it, counted */
};

struct check {
	struct index *ix;
	struct kv *kv;
	bool repair;
	bool stopped;             /* nobody writes; orphaned blocks are no news */
	struct writer *report;
	unsigned found, repaired;
	int failed;               /* of the engine, while repairing */

	struct check_object *objects;
	size_t nobjects, objects_cap;
	struct check_ids files;   /* with a D record; sorted after the walk */
	struct check_ids owners;  /* of extended attributes; sorted */
	struct check_writer *writers; /* in order of id, session */
	size_t nwriters, writers_cap;
	struct check_ids gone;    /* with a `g`; sorted */
	struct blockset blocks;   /* that bodies refer to; sorted after the walks */
	uint64_t max_id;          /* the largest number in use */
};

/* A line of the report, a violation more. */
void complain(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* If something is to be repaired: one transaction that writes this. */
void fix_put(struct check *c, struct bytes key, struct writer *value); /* takes */
void fix_del(struct check *c, struct bytes key);
void fix_move(struct check *c, struct bytes from, struct bytes to, struct bytes value);

/* A row of an extended attribute, taken apart. False: it does not decode, and that was
 * said. */
bool check_read_xattr(struct check *c, const struct kv_row *row, uint64_t *ret_id,
		      struct bytes *ret_name);

/* Says that the row does not decode, and deletes it. */
void complain_undecodable(struct check *c, const struct kv_row *row, int why);

#define fix_put_encoded(c, key, encode, v)                                     \
	do {                                                                   \
		struct writer fix_w_ = { 0 };                                  \
		encode((v), &fix_w_);                                          \
		fix_put((c), (key), &fix_w_);                                  \
	} while (0)

int check_ids_add(struct check_ids *t, uint64_t id);
void check_ids_sort(struct check_ids *t);
struct check_id *check_ids_find(const struct check_ids *t, uint64_t id);
struct check_object *check_object_find(const struct check *c, uint64_t id);

/* Who writes it; session 0: any. Or NULL. */
struct check_writer *check_writer_find(const struct check *c, uint64_t id, uint64_t session);

/* The one row of this key, or of a range its first; the request is the caller's to
 * end. 0, INDEX_MISS or negative. */
int check_get(struct check *c, struct key k, struct kv_req *req);

/* Is there an object of this number, wherever its record is? */
bool check_exists(const struct check *c, uint64_t id);

/* Names as they are printed: what is not plain ASCII, as \xNN. */
enum { SHOWN_MAX = 4 * INDEX_NAME_MAX + 1 };
const char *show_name(struct bytes name, char buf[SHOWN_MAX]);

/* The passes, in this order; 0 or negative. */
int check_owners(struct check *c);  /* X: who has attributes */
int check_writers(struct check *c); /* w */
int check_files(struct check *c);   /* F: objects under their numbers */
int check_names(struct check *c);   /* D: names, and objects with them */
int check_tree(struct check *c);    /* references, link counts, the way up */
int check_counts(struct check *c);  /* L, T, X: they belong to something */
int check_blocks(struct check *c);  /* E */
int check_drafts(struct check *c);  /* n, and w once more */
int check_session_rest(struct check *c); /* t, x, b */
int check_meta(struct check *c);    /* M, and kinds that there are not */
