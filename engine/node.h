/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node, as an engine that uses its pool sees it: who takes slices, seals them,
 * holds on to them and lets them go. Their bytes go by transport.h. `local` asks
 * the pool in this process and answers at once; `remote` (node_remote.h) is another
 * host's; `fault` wraps another, answers late and fails.
 *
 * Pins are the session's: an engine counts as many as it likes on a slice that it
 * has pinned already, without asking anybody; the first (alloc, take) and the last
 * are the node's to know.
 *
 * Threads: any. Calls that may take time end in call->done(), exactly once,
 * possibly before they return, with no lock held; the others block for a lock
 * (LOCK_POOL) at most and may be called under a file's lock.
 */
#include "engine/pool.h"
#include "index/index.h"

struct node;
struct tier;

enum {
	NODE_FULL = 1, /* no page is free */
	NODE_WAIT = 2, /* none in hand: node_want(), then again */
	NODE_MISS = 3, /* that is not the object's record */
};

struct node_call {
	const struct kv_call *of; /* that it is a part of, which lives longer; or NULL */
	void (*done)(struct node_call *c, int r);
	struct node_call *next; /* the node's, as the rest */
	uint32_t npages;
	int result;
};

struct node_open {
	uint64_t fileid;
	struct index_at at; /* where its record is, as far as one knows */
	uint32_t max;       /* bytes that may come with it */

	/* Came of it; for node_open_fini(). */
	struct bytes value; /* of the record, for index_record() */
	bool pinned;        /* its extents' slices are, once for each extent */
	struct bytes pages; /* of its extents, one behind the other; or none */
	void *memory;
};

struct node_ops {
	const char *name;
	int (*alloc)(struct node *n, uint32_t npages, struct slice_id *ret,
		     uint32_t *ret_npages);
	void (*want)(struct node *n, uint32_t npages, struct node_call *c);
	void (*take)(struct node *n, const struct slice_run *v, uint32_t nv,
		     struct node_call *c);
	void (*seal)(struct node *n, const struct slice_run *v, uint32_t nv,
		     struct node_call *c);
	void (*open)(struct node *n, struct node_open *o, struct node_call *c); /* or NULL */
	void (*recall)(struct node *n, uint64_t fileid, struct place place, bool writes,
		       struct node_call *c);
	int (*pin)(struct node *n, struct slice_id s);
	int (*unpin)(struct node *n, struct slice_id s);
	int (*give_back)(struct node *n, struct slice_id s);
	uint32_t (*nfree)(struct node *n);
	bool (*peek)(struct node *n, struct slice_id s, struct slice_view *ret);
	bool (*is_lost)(struct node *n, struct slice_id s);
	int (*covers)(struct node *n, struct slice_id s, uint64_t off, uint32_t len);
	bool (*needs_verify)(struct node *n, struct slice_id s, uint32_t block);
	void (*verified)(struct node *n, struct slice_id s, uint32_t block);
	void (*set_tier)(struct node *n, struct tier *t); /* where the pool is here */
	void (*close)(struct node *n); /* no call is under way */
};

static inline bool slice_covers(uint32_t npages, uint64_t off, uint32_t len)
{
	const uint64_t bytes = (uint64_t)npages * PAGE_BYTES;

	return off <= bytes && len <= bytes - off;
}

/* Nodes embed this as their first member. */
struct node {
	const struct node_ops *ops;
	uint64_t pool_id;
	uint32_t npages; /* of the pool */
};

int node_local_open(struct pool *p, struct node **ret);
/* The disk below it, of which it is told once there is one; also through a `fault`. */
void node_set_tier(struct node *n, struct tier *t);

/* Takes `inner` over. Allocs are NODE_WAIT now and then, and calls are answered
 * from a thread of its own. The n-th want, take or seal from now fails
 * with `error` and was not done; 0: none. */
int node_fault_open(struct node *inner, struct node **ret);
void node_fault_arm(struct node *n, uint64_t nth, int error);

void node_close(struct node *n); /* NULL is fine */

/*
 * A slice of `npages`, WRITING, with one pin. It may be longer (sealing gives the
 * rest back), and is shorter where there is none of that length. NODE_FULL,
 * NODE_WAIT. Its bytes are not zeroed (P9).
 */
static inline int node_alloc(struct node *n, uint32_t npages, struct slice_id *ret,
			     uint32_t *ret_npages)
{
	return n->ops->alloc(n, npages, ret, ret_npages);
}

/* Free pages, at a glance; UINT32_MAX: that is not known here. */
static inline uint32_t node_nfree(struct node *n)
{
	return n->ops->nfree(n);
}

/* After NODE_WAIT: done(c, 0) when it is worth to try again; -ENOSPC: the pool is
 * full. As all calls: -ETIMEDOUT and -ECANCELED of what c is a part of, soon. */
static inline void node_want(struct node *n, uint32_t npages, struct node_call *c)
{
	n->ops->want(n, npages, c);
}

/* Pins each of these slices, once for each time it is listed; all or none. v is
 * lent. -ESTALE: one of them has another generation, or length (I3), or is lost. */
static inline void node_take(struct node *n, const struct slice_run *v, uint32_t nv,
			     struct node_call *c)
{
	n->ops->take(n, v, nv, c);
}

/* Does the node read records for us? Else the index has to be asked, then it. */
static inline bool node_opens(const struct node *n)
{
	return n->ops->open != NULL;
}

/* A record, and a pin on each slice that its extents name, all or none. NODE_MISS;
 * -ESTALE: it has changed meanwhile, ask again. */
static inline void node_open(struct node *n, struct node_open *o, struct node_call *c)
{
	n->ops->open(n, o, c);
}

static inline void node_open_fini(struct node_open *o)
{
	free(o->memory);
	o->memory = NULL;
	o->value = o->pages = BYTES_NONE;
	o->pinned = false;
}

/* Has what is away (struct attr) brought back to the pool; `writes`: and has what is copied be so
 * no more. done(c, 0) when it is worth to look at the record again. As tier_recall(). */
static inline void node_recall(struct node *n, uint64_t fileid, struct place place, bool writes,
			       struct node_call *c)
{
	n->ops->recall(n, fileid, place, writes, c);
}

/* Each keeps its first npages, gives the others back, and goes WRITING -> SEALED;
 * its bytes must have been placed (I5). Sealed already is no error. v is lent. After
 * an error it may have been sealed, as far as one knows: nothing is written to it
 * any more. */
static inline void node_seal(struct node *n, const struct slice_run *v, uint32_t nv,
			     struct node_call *c)
{
	n->ops->seal(n, v, nv, c);
}

/* One pin more, or less, on a slice that this engine has pinned. The last one
 * frees what nothing else keeps. -ESTALE, -EINVAL: it has not. */
static inline int node_pin(struct node *n, struct slice_id s)
{
	return n->ops->pin(n, s);
}

static inline int node_unpin(struct node *n, struct slice_id s)
{
	return n->ops->unpin(n, s);
}

/* node_unpin() of what was not written to since node_alloc(), nor will be: the next
 * alloc may have it. */
static inline int node_give_back(struct node *n, struct slice_id s)
{
	return n->ops->give_back(n, s);
}

/* A slice that is pinned, and gone all the same: its session has ended. Whoever
 * would read it or write to it fails with -EIO; it is to be unpinned as others. */
static inline bool node_is_lost(struct node *n, struct slice_id s)
{
	return n->ops->is_lost(n, s);
}

/* May these bytes be read or written, as far as this engine knows? For who asks nobody
 * that would check it. -ESTALE: it has not pinned the slice, -EINVAL: they do not lie in
 * it, -EIO: it is lost. */
static inline int node_covers(struct node *n, struct slice_id s, uint64_t off, uint32_t len)
{
	return n->ops->covers(n, s, off, len);
}

/* A slice that this engine has pinned, as the node knows it. False: it does not
 * say; take others to use it as well. */
static inline bool node_peek(struct node *n, struct slice_id s, struct slice_view *ret)
{
	return n->ops->peek(n, s, ret);
}

/* Must this block of a sealed slice be compared with its checksum before it is
 * believed? node_verified() says that it has been. */
static inline bool node_needs_verify(struct node *n, struct slice_id s, uint32_t block)
{
	return n->ops->needs_verify(n, s, block);
}

static inline void node_verified(struct node *n, struct slice_id s, uint32_t block)
{
	n->ops->verified(n, s, block);
}
