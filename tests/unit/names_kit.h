/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Short calls of the index for tests of its operations: each waits. What came
 * out stays in *op until the next call with it (kit_ calls end it first). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "common/metrics.h"
#include "index/keys.h"
#include "index/priv.h"
#include "tests/unit/slow.h"

static const struct place by_id = { .kind = PLACE_FILEID };
static const struct place a_draft = { .kind = PLACE_DRAFT };

typedef void index_call(struct index *ix, struct index_op *op);

static inline int kit(struct index *ix, struct index_op *op, index_call *call,
		      struct index_op asked)
{
	index_op_fini(op);
	*op = asked;
	return index_wait(ix, op, call);
}

static inline struct index *kit_open(void)
{
	struct index *ix;
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(index_open(kv, INDEX_SESSION_OWN, true, &ix), 0);
	return ix;
}

static inline int kit_lookup(struct index *ix, struct index_op *op, uint64_t dir, const char *name)
{
	return kit(ix, op, index_lookup, (struct index_op){ .parent = dir, .name = name });
}

static inline int kit_stat(struct index *ix, struct index_op *op, uint64_t fileid,
			   struct place place)
{
	return kit(ix, op, index_stat, (struct index_op){ .fileid = fileid, .place = place });
}

/* What the name shows, which must be there; without a body. */
static inline struct entry kit_entry(struct index *ix, uint64_t dir, const char *name)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_lookup(ix, &op, dir, name), 0);
	struct entry e = op.entry;
	e.body = (struct body){ 0 };
	index_op_fini(&op);
	return e;
}

static inline struct attr kit_dir_attr(struct index *ix, uint64_t dir)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_stat(ix, &op, dir, by_id), 0);
	struct attr a = op.entry.attr;
	index_op_fini(&op);
	return a;
}

static inline int kit_list(struct index *ix, struct index_op *op, uint64_t dir, uint64_t from,
			   uint32_t limit, bool plus)
{
	return kit(ix, op, index_list, (struct index_op){ .parent = dir, .from = from,
							  .limit = limit, .plus = plus });
}

static inline int kit_make(struct index *ix, struct index_op *op, uint64_t dir, const char *name,
			   uint32_t mode)
{
	return kit(ix, op, index_make, (struct index_op){
		.parent = dir, .name = name, .attr = { .mode = mode, .uid = 7, .gid = 8 },
		.body = { S_ISLNK(mode) ? BODY_INLINE : BODY_NONE,
			  S_ISLNK(mode) ? bytes_str("target") : BYTES_NONE } });
}

static inline uint64_t kit_mkdir(struct index *ix, uint64_t dir, const char *name)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_make(ix, &op, dir, name, S_IFDIR | 0755), 0);
	uint64_t fileid = op.entry.attr.fileid;
	index_op_fini(&op);
	return fileid;
}

static inline int kit_draft(struct index *ix, struct index_op *op, uint64_t dir, const char *name)
{
	return kit(ix, op, index_draft, (struct index_op){
		.parent = dir, .name = name, .attr = { .mode = S_IFREG | 0644, .uid = 7, .gid = 8 } });
}

/* The attributes of a new one, which the caller keeps. */
static inline struct attr kit_new_draft(struct index *ix, uint64_t dir, const char *name)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_draft(ix, &op, dir, name), 0);
	struct attr a = op.entry.attr;
	index_op_fini(&op);
	return a;
}

/* Publishes `attr` with a body that says `content`. */
static inline int kit_publish(struct index *ix, struct index_op *op, struct attr attr,
			      const char *content)
{
	attr.size = strlen(content);
	return kit(ix, op, index_publish, (struct index_op){
		.fileid = attr.fileid, .attr = attr,
		.body = { *content ? BODY_INLINE : BODY_NONE, bytes_str(content) } });
}

static inline int kit_end(struct index *ix, uint64_t fileid)
{
	struct index_op op = { 0 };
	int r = kit(ix, &op, index_writer_end, (struct index_op){ .fileid = fileid });

	index_op_fini(&op);
	return r;
}

/* A published file with that content. */
static inline uint64_t kit_file(struct index *ix, uint64_t dir, const char *name,
				const char *content)
{
	struct index_op op = { 0 };
	struct attr a = kit_new_draft(ix, dir, name);

	assert_int_equal(kit_publish(ix, &op, a, content), 0);
	index_op_fini(&op);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	return a.fileid;
}

static inline int kit_link(struct index *ix, struct index_op *op, uint64_t fileid,
			   struct place place, uint64_t dir, const char *name)
{
	return kit(ix, op, index_link, (struct index_op){ .fileid = fileid, .place = place,
							  .parent = dir, .name = name });
}

static inline int kit_unlink(struct index *ix, struct index_op *op, uint64_t dir, const char *name)
{
	return kit(ix, op, index_unlink, (struct index_op){ .parent = dir, .name = name });
}

static inline int kit_rmdir(struct index *ix, struct index_op *op, uint64_t dir, const char *name)
{
	return kit(ix, op, index_rmdir, (struct index_op){ .parent = dir, .name = name });
}

static inline int kit_rename(struct index *ix, struct index_op *op, uint64_t dir, const char *name,
			     uint64_t dir2, const char *name2, unsigned flags)
{
	return kit(ix, op, index_rename, (struct index_op){ .parent = dir, .name = name,
							    .parent2 = dir2, .name2 = name2,
							    .flags = flags });
}

static inline int kit_setxattr(struct index *ix, struct index_op *op, struct attr attr,
			       struct place place, const char *name, struct bytes value,
			       unsigned flags)
{
	return kit(ix, op, index_setxattr, (struct index_op){
		.fileid = attr.fileid, .attr = attr, .place = place, .name = name,
		.value = value, .flags = flags });
}

static inline int kit_getxattr(struct index *ix, struct index_op *op, uint64_t fileid,
			       struct place place, const char *name)
{
	return kit(ix, op, index_getxattr, (struct index_op){ .fileid = fileid, .place = place,
							      .name = name });
}

/* Past all operations: a row; value.p NULL: none. */
static inline void kit_put(struct kv *kv, struct key k, struct bytes value)
{
	struct kv_write w = { key_bytes(&k), value };
	struct kv_req req = { .writes = &w, .nwrites = 1 };

	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	kv_req_fini(&req);
}

static inline void kit_del(struct kv *kv, struct key k)
{
	kit_put(kv, k, BYTES_NONE);
}

static inline void kit_put_record(struct kv *kv, struct key k, const struct record *r)
{
	struct writer w = { 0 };

	record_encode(r, &w);
	kit_put(kv, k, writer_bytes(&w));
	writer_fini(&w);
}

/* Some other object's record, as a collision of hashes would bring it there. */
static inline void kit_put_other(struct kv *kv, struct key k)
{
	struct record r = { .attr = { .fileid = 77, .mode = S_IFIFO, .nlink = 1 } };

	kit_put_record(kv, k, &r);
}

/* How many keys of these kinds there are. */
static inline unsigned kit_keys(struct index *ix, const char *kinds)
{
	unsigned n = 0;

	for (; *kinds; kinds++) {
		char end = (char)(*kinds + 1);
		struct kv_read all = { BYTES_OF(kinds, 1), BYTES_OF(&end, 1), UINT32_MAX };
		struct kv_req req = { .reads = &all, .nreads = 1 };
		assert_int_equal(kv_wait(index_kv(ix), &req), KV_DONE);
		n += req.rows[0].nrows;
		kv_req_fini(&req);
	}
	return n;
}

/* All invariants hold. */
static inline void kit_check(struct index *ix)
{
	struct writer report = { 0 };
	int r = index_check(ix, INDEX_CHECK_LIVE, &report, NULL);

	if (r)
		print_message("%.*s\n", (int)report.len, (char *)report.p);
	assert_int_equal(r, 0);
	writer_fini(&report);
}

/* Ends a test: no session key is left behind by anything. */
static inline void kit_close(struct index *ix, struct index_op *op)
{
	index_op_fini(op);
	assert_int_equal(kit_keys(ix, "nwtx"), 0);
	kit_check(ix);
	index_close(ix);
	assert_null(metrics_busy(NULL));
}
