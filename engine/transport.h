/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A transport moves one contiguous run of bytes between local memory and a
 * slice. Asynchronous by contract: a post that was accepted completes exactly
 * once by post->done(), possibly before post() returns, possibly after its
 * transfer timed out or its peer died (then with the reason); one that was
 * refused never does. `local` copies within the process; `fault` wraps another
 * and delays, reorders, fails; `tcp` (engine/transport_tcp.h) and `rdma` ask a node.
 *
 * Complete means placed: a write's bytes are in the slice at the node (I5).
 */
#include <stdint.h>
#include <stdbool.h>

#include "engine/pool.h"

enum post_kind { POST_READ, POST_WRITE };

/* The record of one posted request: lives from post() to the end of done(),
 * whatever becomes of the transfer that it is for (I9). */
struct post {
	enum post_kind kind;
	struct slice_id slice;
	uint64_t off;  /* bytes from the slice's beginning */
	void *local;   /* the transport reads from or writes to it until done() */
	uint32_t len;
	uint64_t deadline_ns; /* clock_ns(): it completes soon after; 0: none */
	void (*done)(struct post *p, int result); /* 0 or negative errno */
	struct post *next; /* the transport's */
};

struct transport;

struct transport_ops {
	const char *name;
	/* 0: accepted. -EAGAIN (no room: try later), -ENOTCONN, -EINVAL: refused */
	int (*post)(struct transport *t, struct post *p);
	/* Ends all posts that are out: each completes with -ECANCELED or as it
	 * had gone; returns when all have. For teardown: nobody posts
	 * meanwhile or after. */
	void (*quiesce)(struct transport *t);
	/* Where this process can reach the slice's bytes itself, or NULL. */
	void *(*map)(struct transport *t, struct slice_id s);
	void (*close)(struct transport *t); /* quiesced before */
};

struct transport {
	const struct transport_ops *ops;
};

int transport_local_open(struct pool *p, struct transport **ret);

struct fault_opts {
	uint64_t seed;
	uint32_t delay_us;     /* up to that much, at random, from its own thread */
	uint32_t fail_ppm;     /* completes with -EIO, done or not */
	uint32_t refuse_ppm;   /* post() says -EAGAIN */
	uint64_t fail_nth;     /* the n-th post from now fails; 0: none */
	uint64_t refuse_nth;
	bool hide_map;         /* map() says NULL: everything goes by posts */
};
/* Takes `inner` over; on failure it is the caller's still. */
int transport_fault_open(struct transport *inner, const struct fault_opts *o,
			 struct transport **ret);
/* Holds all completions back until told otherwise (late completions). */
void transport_fault_hold(struct transport *t, bool hold);
void transport_fault_arm(struct transport *t, uint64_t fail_nth,
			 uint64_t refuse_nth);
