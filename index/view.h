/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A request's compares and reads, evaluated against anything that can be looked
 * into: the one place that says what they mean, for all engines that evaluate
 * them in this process.
 *
 * Session keys lie between "a" and "{", durable ones below and above; so a
 * range is at most three runs, one behind the other, and needs no merging.
 */
#include "index/ordered.h"

/* Non-zero ends the scan, which returns it. The row's bytes are borrowed. */
typedef int view_visit(void *arg, const struct kv_row *row);

struct view {
	/* 0; 1: no such key; negative. The bytes live until the next call. */
	int (*get)(struct view *v, struct bytes key, struct kv_row *ret);
	int (*scan)(struct view *v, struct bytes from, struct bytes to,
		    view_visit *visit, void *arg);
};

struct views {
	struct view *durable, *session;
};

/* Rows in memory, `over` (may be NULL) hiding those of `base`. */
struct view_ordered {
	struct view view;
	const struct ordered *base, *over;
};
struct view_ordered view_of(const struct ordered *base,
			    const struct ordered *over);

/* A key is one of two kinds; a range may be of both, which is VIEW_MIXED too. */
enum { VIEW_DURABLE = 1, VIEW_SESSION = 2, VIEW_MIXED = 4, VIEW_ANY = 7 };

/* Do all compares of these kinds hold? KV_DONE, KV_CONFLICT, or the view's
 * error. What is of other kinds is left out. */
int views_compare(const struct views *v, const struct kv_req *req, unsigned kinds);

/* The same with the reads, into req->rows. 0, -ENOMEM, or the view's error. */
int views_read(const struct views *v, struct kv_req *req, unsigned kinds);

/* Which kinds its compares and reads look at; its writes change. */
unsigned views_looked_at(const struct kv_req *req);
unsigned views_written(const struct kv_req *req);
