/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An ordered map in memory from keys to values with revisions: the session keys
 * of every engine, and all keys of mem.c. Rows are made beforehand
 * (ordered_row_new()), so that putting them in cannot fail half-way through a
 * transaction. Not thread-safe: the engine's locks guard it.
 */
#include <bsd/sys/tree.h>

#include "index/kv.h"

struct ordered_row {
	struct kv_row row; /* its bytes are behind this struct */
	bool gone;         /* in an overlay: hides the row of the map below */
	RB_ENTRY(ordered_row) link;
	uint8_t b[];
};

RB_HEAD(ordered_tree, ordered_row);

struct ordered {
	struct ordered_tree tree;
	uint64_t n;
};

/* Copies both. value.p == NULL makes one that says `gone`. */
int ordered_row_new(struct bytes key, struct bytes value, uint64_t revision,
		    struct ordered_row **ret);
void ordered_row_free(struct ordered_row *row);

/* Takes row; frees the one that it replaces. */
void ordered_insert(struct ordered *o, struct ordered_row *row);
bool ordered_remove(struct ordered *o, struct bytes key); /* was it there? */
void ordered_clear(struct ordered *o);

/* Removes all rows of this session's keys, and tells who observes kv. */
void ordered_end_session(struct ordered *o, uint64_t session, struct kv *kv);

/* Empties `from` into `to`: what is `gone` is removed there. */
void ordered_apply(struct ordered *to, struct ordered *from);

/* The row of key; the first one at or behind key; the next one. Or NULL. */
struct ordered_row *ordered_get(const struct ordered *o, struct bytes key);
struct ordered_row *ordered_at(const struct ordered *o, struct bytes key);
struct ordered_row *ordered_next(struct ordered_row *row);

/* Order and count; lines to report; violations. */
int ordered_check(const struct ordered *o, struct writer *report);
