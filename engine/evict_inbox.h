/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What an eviction's thread (evict.c) is asked to see to: who finds no room, in the pool or in
 * the index; what is to go, whatever room there is; and that it look again.
 *
 * Who waits is answered when something has gone. When nothing could go, but some of what is
 * there may in a moment, he is held, and asked for again now and then, a little while at most.
 *
 * Threads: calls from any but where it says that they are the thread's; LOCK_EVICT for moments.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/lock.h"
#include "engine/evict.h"
#include "index/kv.h"

/* What is to go, whatever room there is, if it has this body still. Freed by who takes it. */
struct condemned {
	uint64_t fileid;
	struct condemned *next;
	size_t len;
	uint8_t body[];
};

struct inbox {
	struct lock lock;
	pthread_cond_t more;
	struct evict_waiter *waiters; /* the newest first */
	struct kv_req *reqs;          /* that found the index full; the same */
	struct condemned *condemned;
	bool poked, ending;
	_Atomic uint64_t number;      /* so often room was made */

	struct held { /* the thread's */
		struct evict_waiter *waiters;
		struct pause {
			uint64_t until_ns; /* when the next round is for them */
			uint32_t ms;
		} pause;
		uint32_t nfree;   /* pages, when the last one was */
		uint64_t none_ns; /* until then nobody is held: it was in vain lately */
	} held;
	struct held_reqs { /* the same, all of one time */
		struct kv_req *reqs;
		uint64_t vain_ns; /* since when nothing could go for them; 0: there are none */
		uint64_t used;    /* bytes of the index, when the last round was */
		struct pause pause;
		uint64_t none_ns;
	} held_reqs;
};

void inbox_init(struct inbox *b);
void inbox_fini(struct inbox *b); /* nobody waits */

/* As evict_wait(). */
void inbox_wait_pages(struct inbox *b, uint64_t number, struct evict_waiter *w);
/* The index has no room for it. False: nor will it have. */
bool inbox_wait_index(struct inbox *b, struct kv_req *req);
void inbox_condemn(struct inbox *b, uint64_t fileid, struct bytes body);
void inbox_poke(struct inbox *b);
/* Is there anybody for whom a round is due? Or is it the end? */
bool inbox_is_waited(struct inbox *b);
bool inbox_is_ending(struct inbox *b);
/* Nobody waits from now on, and the thread is told. */
void inbox_end(struct inbox *b);

/* The thread's, or after its end. ------------------------------------------------------ */

/* Until there is something to see to, for `ms` at most; `more`: at once. False: it is the end. */
bool inbox_sleep(struct inbox *b, uint64_t ms, bool more);
struct condemned *inbox_take_condemned(struct inbox *b);
/* In the order of their coming, linked by `next`; those that were held come first. */
struct evict_waiter *inbox_take_waiters(struct inbox *b);
struct kv_req *inbox_take_reqs(struct inbox *b);
/* n have gone for them, nfree pages are free. `busy`: there are some that could not go now; else
 * who writes has nothing to wait for. */
void inbox_answer(struct inbox *b, struct evict_waiter *w, unsigned n, bool busy, uint32_t nfree);
/* The same of requests, which are run again, or, in vain, end. */
void inbox_answer_reqs(struct inbox *b, struct kv *kv, struct kv_req *req, unsigned n, bool busy);
/* All who wait, in vain. */
void inbox_answer_all(struct inbox *b, struct kv *kv);
