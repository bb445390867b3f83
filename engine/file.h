/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The table of open files, for engine.c; the file_* calls are in engine.h. */
#include "engine/priv.h"

/* Called last in engine_open(): the rest of *e is there. It may be kept. */
int files_new(struct engine *e, struct files **ret);

/* After files_regained() has been called last; waits for what it began. Asserts that no
 * file is open. Returns NULL; NULL is fine. */
struct files *files_free(struct files *fs);

/*
 * One call of fn for each pin that an open file's map holds, from a moment for
 * each file on its own; no lock is held over fn. since_ns: when the file was
 * opened (clock_ns()).
 */
typedef void files_holder_fn(void *arg, struct slice_id s, uint64_t fileid,
			     uint64_t since_ns, bool draft);
int files_holders(struct files *fs, files_holder_fn *fn, void *arg);

/*
 * regain.c. A session at another node has ended: files with what was not published
 * are lost (EIO from here on); how many. And another has begun: what slices were lost of
 * is noted, before anybody asks the node; then that is loaded again, and the index is told
 * again who writes. No lock is held.
 */
unsigned files_lost(struct engine *e);
void files_torn(struct engine *e);
void files_regained(struct engine *e);
