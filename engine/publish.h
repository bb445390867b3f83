/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a version is made of, as the index takes it: publish.c's lower half. */
#include "engine/register.h"

struct publish {
	struct work *w;
	void (*done)(struct work *w, int r);
	uint64_t session;         /* what it consists of goes with */
	struct attr attr;         /* as it was when the version was put together;
				     then the record's */
	struct index_op op;
	struct registering writer;
	struct body body;
	struct writer bytes;      /* of the body */
	struct block_ref *put;    /* new blocks, */
	struct bytes *values;     /* their bytes (heap) */
	uint32_t nput, put_cap, values_cap;
	struct block_ref *del;    /* blocks that the version does without */
	uint32_t ndel, del_cap;
	uint64_t note;            /* under which the index has noted these, or 0 */
	struct block_ref *nodes;  /* of a tree */
	uint32_t nnodes;
	bool shares;              /* blocks with the version that it grew from */
	int result;
};

/* Fills attr, body, put and del from the file, which is sealed; gives changed
 * regions their next_block. Nothing of the file changes that readers see. */
int parts_build(struct publish *p);
void parts_fini(struct publish *p);
void parts_reset(struct publish *p); /* the same, to build once more */
