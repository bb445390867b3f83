/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Going through what is stored, a page at a time, for index_scan() and
 * index_check() (index/ only). All of it blocks.
 */
#include "index/index.h"

/* A row of the walk; its bytes are borrowed. Not 0: ends the walk with it. */
typedef int walk_row(void *arg, const struct kv_row *row);

/* All keys whose first byte is `kind`, in order. What is written meanwhile may be
 * seen or not. 0, what `row` returned, or the engine's negative. */
int walk_kind(struct kv *kv, char kind, walk_row *row, void *arg);

/* The same of a durable kind, by n threads (1..CREW_MAX), each with its own of args, and then in
 * no order. row() is as of kv_ops.scan(), if the engine has that. */
int walk_rows(struct kv *kv, char kind, walk_row *row, void *const *args, unsigned n);

/* What a body consists of. What is NULL has nothing read for it. */
struct body_visitor {
	/* The extents of the whole body, or of one of its blocks. */
	int (*extents)(void *arg, const struct attr *a, const struct extents *e);
	/* Instead: each, without its sums. What is wrong may show behind some. */
	int (*extent)(void *arg, const struct attr *a, const struct extent *x);
	/* A block that it refers to, leaf or not; before its content is read. */
	int (*block)(void *arg, uint64_t fileid, uint64_t id);
	void *arg;
};

/* 0, what a visitor returned, -EUCLEAN (does not decode, a block is missing, or
 * holds another region's extents), or the engine's negative. */
int walk_body(struct index *ix, const struct attr *a, const struct body *b,
	      const struct body_visitor *v);
