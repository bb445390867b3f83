/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the files of node_remote.h share: node_remote.c (pins, sessions), far_stock.c
 * (slices in stock), far_take.c (calls that take, open and seal), far_ask.c (requests).
 * The node's lock is held by who calls far_find() to far_post_turn() and
 * far_drop_stock(), and by nobody who calls the others.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/lock.h"
#include "common/table.h"
#include "engine/node_remote.h"

enum { FAR_BINS = 11 }; /* of slices in stock: 1 .. 1024 pages */

struct held {
	struct slice_id id;
	uint32_t npages;
	uint32_t pins;      /* of files and reads */
	uint32_t node_pins; /* of our session, that we know of */
	uint64_t verify;    /* bit n: block n is to be compared before it is believed */
	bool writing;       /* as far as we know */
	bool lost;
	bool dropped;       /* in the list of those that nobody has pinned */
	struct held *next;  /* in stock, or dropped */
	UT_hash_handle hh;
};

struct bin {
	struct held *first;
	uint32_t n;
	uint32_t least;          /* n was, since the last look at idle ones */
	uint32_t ahead;
	uint32_t refills;        /* since then, too */
	bool asking;             /* an ALLOC is out, or about to be */
	bool refill;             /* it is to be sent by the loop */
	struct node_call *waiting, **last;
};

struct remote_node {
	struct node node;
	struct remote *remote;
	struct loop *loop;
	struct remote_part part;
	uint32_t stock_max; /* pages */
	atomic_uint refs;   /* the opener's, and each ask's */

	struct lock lock;
	struct held *table;
	struct bin bins[FAR_BINS];
	uint32_t stock_pages;
	bool tight, closing;
	struct held *dropped;
	bool posted;              /* `turn` is */
	struct loop_call turn;
	struct loop_timer *look;  /* while somebody waits for slices */
	struct loop_timer *idle;  /* while there is stock */
	uint32_t nasks;           /* whose done() is to come */
	pthread_cond_t no_asks;
	struct kv_call ahead;     /* what ALLOCs are a part of */
};

static inline struct remote_node *far_of(struct node *n)
{
	return (struct remote_node *)n;
}

void far_unref(struct remote_node *n);

static inline void far_finish(struct node_call *c, int r)
{
	c->done(c, r);
}

/* Requests (far_ask.c) ------------------------------------------------------------ */

/* A request that is out. It lives until done(), or until late(). */
struct ask {
	struct conn_call call; /* first: done() gets it */
	struct remote_node *n;
	void (*answer)(struct ask *a, int r, struct bytes body, bool late);
	struct node_call *of;  /* of PIN, SEAL and OPEN */
	struct node_open *open;
	uint64_t fileid;       /* of OPEN, RECALL */
	struct place place;    /* of RECALL, */
	bool writes;           /* and of that */
	uint32_t bin;          /* of ALLOC */
	bool was_tight;
	uint32_t nv;
	struct ask_item {
		struct wire_item wire;
		uint32_t pins; /* that it is for */
		bool here;     /* was pinned at once */
	} v[];
};

/* With a reference to n; of nv slices, to be filled in. */
struct ask *far_ask_new(struct remote_node *n, uint16_t type, uint32_t nv,
			void (*answer)(struct ask *a, int r, struct bytes body, bool late));
void far_ask_free(struct ask *a); /* one that was not begun */
void far_ask_is_part_of(struct ask *a, struct node_call *c);
/* Sends it. answer() comes once; and again, late, if it was given up meanwhile. */
void far_ask_begin(struct ask *a);

/* A list of slices that grows; what it has no memory for ends the session, which
 * gives it back. */
struct unpins {
	struct wire_item *v;
	uint32_t n, cap;
	bool bad;
};

void far_unpins_add(struct unpins *u, struct slice_id s, uint32_t times);
void far_unpins_send(struct remote_node *n, struct unpins *u); /* and empties it; no lock */

/* The table (node_remote.c) --------------------------------------------------------- */

struct held *far_find(struct remote_node *n, struct slice_id s);
struct held *far_held_new(struct slice_id s, uint32_t npages);
void far_add(struct remote_node *n, struct held *h);
void far_pin(struct held *h);
void far_unpin(struct remote_node *n, struct held *h);
void far_post_turn(struct remote_node *n);

/* Stock (far_stock.c) --------------------------------------------------------------- */

int far_alloc(struct node *node, uint32_t npages, struct slice_id *ret, uint32_t *ret_npages);
void far_want(struct node *node, uint32_t npages, struct node_call *c);
int far_give_back(struct node *node, struct slice_id s);
void far_ask_alloc(struct remote_node *n, uint32_t bin); /* the bin is marked as asking */
void far_drop_stock(struct remote_node *n, struct unpins *ret);
bool far_is_slice(const struct remote_node *n, const struct wire_item *v);

/* Calls (far_take.c) ---------------------------------------------------------------- */

void far_take(struct node *node, const struct slice_run *v, uint32_t nv, struct node_call *c);
void far_open(struct node *node, struct node_open *o, struct node_call *c);
void far_recall(struct node *node, uint64_t fileid, struct place place, bool writes,
		struct node_call *c);
void far_seal(struct node *node, const struct slice_run *v, uint32_t nv, struct node_call *c);
uint64_t far_all_blocks(uint32_t npages);
