/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A request of a state machine (index/ only). An engine may answer before
 * kv_submit() returns, or later, from another thread. Whoever comes second, the
 * submitter after its submit or the completer, goes on with the machine: so an
 * engine that answers inline makes a loop and no recursion, and nobody waits.
 *
 *	while (more_to_do(m)) {
 *		if (!relay_submit(kv, &m->relay, resume))
 *			return;         // resume() runs, or ran, elsewhere: m is its
 *		take_answer(m);         // m->relay.outcome
 *	}
 */
#include <stdatomic.h>

#include "index/kv.h"

struct relay {
	struct kv_req req;  /* first: a completion finds its relay by it */
	atomic_bool met;    /* one of the two has been there */
	int outcome;        /* written before `met` */
	void *owner;        /* the machine */
	void (*resume)(struct relay *r); /* takes the answer and goes on */
};

static inline void relay_done(struct kv_req *req, int outcome)
{
	struct relay *r = (struct relay *)req;

	r->outcome = outcome;
	if (atomic_exchange(&r->met, true))
		r->resume(r);
}

/* True: the answer is in r->outcome. False: r is not ours any more. */
static inline bool relay_submit(struct kv *kv, struct relay *r,
				void (*resume)(struct relay *r))
{
	r->req.done = relay_done;
	r->resume = resume;
	atomic_store(&r->met, false);
	kv_submit(kv, &r->req);
	return atomic_exchange(&r->met, true);
}
