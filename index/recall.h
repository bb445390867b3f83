/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What this process has read and written last of an index that is elsewhere (index/ only).
 * A plan that writes may run on it without asking first, if its request then compares all
 * that it was told: what is recalled need not be true. See plan.c.
 *
 * Threads: any.
 */
#include "index/kv.h"

struct plan;
struct recall;

int recall_new(struct recall **ret);
struct recall *recall_free(struct recall *r); /* NULL is fine, and returned */

void recall_clear(struct recall *r); /* another node may stand there now; NULL is fine */

/* It was read, or written by a request that got this revision. Without memory for
 * it, it is forgotten. */
void recall_read(struct recall *r, const struct kv_read *read, const struct kv_rows *rows);
void recall_wrote(struct recall *r, const struct kv_write *w, uint64_t revision);

/* What was known of it last; false: nothing. The rows are p's. */
bool recall_find(struct recall *r, const struct kv_read *read, struct plan *p,
		 struct kv_rows *ret);
