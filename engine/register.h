/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Telling the index that a file is going to be written (index_writer()). What the node's disk
 * could bring back as it is now is seen to first, by the node; so the index may have to be asked
 * more than once.
 *
 * Under all of the file's range, as an open and a publish are. Threads: any, one at a time.
 */
#include "engine/open.h"

struct registering {
	struct file *f;
	struct place place;
	const struct kv_call *call; /* what it is a part of, or NULL */
	/* Once, by any thread, perhaps before registering_start() returns. 0: f->registered;
	 * INDEX_MISS, or negative. f->registered is also set if it may have been done all the
	 * same: whoever leaves undoes it. The struct is the caller's again. */
	void (*done)(struct registering *g, int outcome);

	struct index_op op;
	struct node_call recall;
};

void registering_start(struct registering *g);
