/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * For who makes a kind of stream; common/stream.h is for who uses one. A kind is a
 * table of functions, and a struct of its own that begins with a `struct stream`. It
 * keeps what stream.h promises of the order of callbacks, and calls s->ops itself.
 */
#include "common/stream.h"

/* None but socket() is called once the stream was stopped. */
struct stream_kind {
	void (*start)(struct stream *s); /* it has its owner: s->ops; or NULL */
	void (*pause)(struct stream *s, bool pause);
	int (*write)(struct stream *s, const struct iovec *iov, unsigned n,
		     void (*done)(void *arg, int r), void *arg);
	void (*wake)(struct stream *s, uint64_t at_ns);
	void (*widen)(struct stream *s); /* or NULL */
	void (*stop)(struct stream *s);  /* begins the end, for s->reason */
	int (*socket)(struct stream *s); /* or NULL: it has none */
};

struct stream {
	const struct stream_kind *kind;
	const struct stream_ops *ops; /* NULL: it is nobody's yet */
	void *arg;
	int reason; /* not 0: it was stopped */
	char peer[STREAM_NAME];
};

/* The last thing that a kind does before it frees s: ended(), if it was anybody's. */
void stream_over(struct stream *s);
