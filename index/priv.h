/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of index/ share beside keys.h, plan.h and value.h. */
#include "index/index.h"
#include "index/relay.h"

/* NULL: the index is here, and asked. */
struct recall *index_recall(struct index *ix);

/* Not 0, and another one each time, also of another process's. Any thread. */
uint64_t index_nonce(struct index *ix);

/* An op's memory without a plan function: for calls that talk to the engine
 * themselves (blocks.c). NULL: no memory. It ends with index_op_fini(). */
struct plan *plan_attach(struct index *ix, struct index_op *op);

/* A request whose rows end with the op; to be filled in and submitted. */
struct relay *plan_new_relay(struct plan *p);
