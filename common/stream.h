/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Streams of bytes on an event loop (common/loop.h), which their owner reads into
 * memory of its own; and TCP, which is one kind of them (common/stream_kind.h).
 *
 * A stream ends once, whoever ends it: first no callback but done() of writes
 * comes any more, then all of those have come, then ended(), and after that the
 * stream is gone. Bytes are read on the loop's thread, between room() and
 * arrived(): once stream_stop() was called, nothing is written into what
 * room() named.
 *
 * Threads: everything here is called, and calls back, on the loop's thread only,
 * but for stream_resolve(). No lock is held over callbacks. Each callback may
 * call anything here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/loop.h"

struct stream;
struct listener;

enum { STREAM_NAME = 64, STREAM_IOV_MAX = 4 };

struct stream_ops {
	void (*connected)(void *arg); /* of one that connects; reading begins with it */
	/* Where the next bytes are to go: memory of *ret_len bytes, at least 1. */
	void *(*room)(void *arg, size_t *ret_len);
	void (*arrived)(void *arg, size_t n); /* n of them are there */
	void (*woken)(void *arg);             /* stream_wake() */
	/* reason: what stream_stop() was given, -ECONNRESET where the other side
	 * closed, or the error of the socket. */
	void (*ended)(void *arg, int reason);
};

/* The address of "host", "host:port", "1.2.3.4:port" or "[::1]:port"; no host:
 * loopback. Blocks while it asks for names. -EINVAL, -ENOENT: no such host. */
int stream_resolve(const char *where, uint16_t default_port, struct sockaddr_storage *ret);
/* The address of this host from which `to` is reached. False: it cannot be. */
bool stream_source(const struct sockaddr_storage *to, struct sockaddr_storage *ret);
bool stream_is_loopback(const struct sockaddr_storage *a);
void stream_name(const struct sockaddr_storage *a, char ret[STREAM_NAME]); /* 1.2.3.4:5 */

/* Begins to connect. The stream is for stream_start() or stream_stop() at once;
 * connected() or ended() follows, never before that returns. -ENOMEM and its like. */
int stream_connect(struct loop *l, const struct sockaddr_storage *to, struct stream **ret);

/* accept(arg, s) for each connection that comes in: it calls stream_start(s) or
 * stream_stop(s) before it returns. -EADDRINUSE, -EADDRNOTAVAIL, -EACCES. */
int listener_new(struct loop *l, const struct sockaddr_storage *at,
		 void (*accept)(void *arg, struct stream *s), void *arg,
		 struct listener **ret);
void listener_address(struct listener *x, struct sockaddr_storage *ret);
/* No accept() any more; closed(arg) when its socket is closed, and it is gone. */
void listener_stop(struct listener *x, void (*closed)(void *arg), void *arg);

/* The socket of s once more, for stream_open(), maybe on another loop; both share what
 * comes, so s is to be stopped, without reading in between. -EOPNOTSUPP: a stream of
 * another kind; negative errno. */
int stream_socket(struct stream *s);
/* A stream of a socket that is connected, which it takes over, also on failure. As an
 * accepted one it is for stream_start() or stream_stop(). */
int stream_open(struct loop *l, int fd, struct stream **ret);

/* Gives a stream that was accepted, or connects, its owner; it reads once it is there. */
void stream_start(struct stream *s, const struct stream_ops *ops, void *arg);

/* Stops reading, and goes on: what is not read fills the other side's window. */
void stream_pause(struct stream *s, bool pause);

/* Sends up to STREAM_IOV_MAX runs of bytes behind what was sent before; they are
 * lent until done(arg, 0 or why not), which may come before it returns.
 * -ENOMEM, -ENOTCONN: no done(). An error of the socket ends the stream. */
int stream_write(struct stream *s, const struct iovec *iov, unsigned n,
		 void (*done)(void *arg, int r), void *arg);

/* woken() once at at_ns (clock_ns()) or, by a millisecond, later; replaces what
 * was asked before. 0: never. */
void stream_wake(struct stream *s, uint64_t at_ns);

/* Who is at the other side has proved it: as many buffers as are useful are worth their
 * memory, where there were as few as will do. */
void stream_widen(struct stream *s);

/* Ends it; later calls change nothing, the first reason (negative) stays. */
void stream_stop(struct stream *s, int reason);

const char *stream_peer(const struct stream *s); /* the other end's address */
