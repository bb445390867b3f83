/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Loading a published object into an open file: load.c. */
#include "engine/open.h"

struct load {
	struct file *f;
	struct place place;
	const struct gone *gone; /* the record, of what has none; or NULL */
	bool spare; /* f is nobody's line (file_spare_new()), and stays so */
	const struct kv_call *call; /* that it is a part of */
	void (*done)(struct load *l, int r);

	/* load.c's */
	struct index_op op;
	struct task task;
	struct block_ref *refs; /* of extent blocks */
	uint32_t nrefs, at;
	struct block_ref *nodes; /* a tree's blocks of references */
	uint32_t nnodes;
	struct extents lot;     /* those that are taken now, */
	struct slice_run *runs; /* and their slices, */
	uint32_t nblocks;       /* from so many blocks at refs[at]; 0: the record */
	struct node_call taken;
	struct node_open opened; /* where the node reads the record */
	unsigned tries;
};

/* The caller holds all of the file, which is FILE_LOADING; after done(l, 0) it is
 * FILE_OPEN, all its slices pinned (I4). -ESTALE: it is not at `place`. -EAGAIN: it is
 * another line's version (files_admit()). */
void load_start(struct load *l);
