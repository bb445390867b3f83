/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Transfers and batches. A batch is a group of transfers with one completion;
 * it owns them. I9: a posted request has a record of its own that lives until
 * its completion was consumed. I10: done() is called when *all* transfers have
 * ended, also those that were never posted because an earlier post was refused,
 * and also after a timeout or a cancel: what the caller lent is his again only
 * then.
 *
 *	struct batch *b;
 *	batch_new(t, 3, &b);
 *	batch_add(b, POST_WRITE, slice, off, buf, len);   (up to 3 times)
 *	batch_submit(b, call, done, arg);                 (b is not ours any more)
 *
 * Threads: a batch is one thread's until it is submitted; batch_cancel() may
 * come from any that holds a reference.
 */
#include "engine/transport.h"
#include "index/index.h"

struct batch;

enum { XFER_RUN_MAX = 1 << 20 }; /* bytes of one transfer */

int batch_new(struct transport *t, unsigned capacity, struct batch **ret);

/* One run; longer ones are split. The memory is lent until done(). The slice
 * must stay pinned until then. -ENOSPC: more than `capacity` were added. */
int batch_add(struct batch *b, enum post_kind kind, struct slice_id s,
	      uint64_t off, void *local, uint64_t len);

/*
 * Takes b. done() once, from any thread, possibly before this returns: 0, or
 * the first error. A refused post (-EAGAIN) is tried again as room comes free.
 * When the call, of which this is a part (NULL: of none), is past its deadline or
 * is cancelled, nothing more is posted; what was posted completes, then done()
 * says -ETIMEDOUT or -ECANCELED. The call lives until then.
 */
void batch_submit(struct batch *b, const struct kv_call *call,
		  void (*done)(void *arg, int result), void *arg);

/* For batch_cancel(): taken before submit, or inside whoever holds one. */
struct batch *batch_ref(struct batch *b);
struct batch *batch_unref(struct batch *b);
/* Posts nothing more; done() comes, with -ECANCELED if anything was left. At
 * once, where a cancelled call is seen with the next post or try. */
void batch_cancel(struct batch *b);
void batch_free(struct batch *b); /* one that was never submitted */
