/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The mount's end of a data connection: it connects, proves that it is its session's,
 * and then carries READ and WRITE. It ends once, and another one has another number.
 *
 * Threads: the loop's only.
 */
#include "engine/conn.h"

struct remote_lane;

struct remote_lane_opts {
	struct loop *loop;
	const struct sockaddr_storage *to;
	uint64_t session;
	const uint8_t *secret; /* the session's, WIRE_NONCE bytes */
	uint32_t number;       /* of all of the session's another one; not 0 */
	uint32_t keep_alive_ms, max_calls;
	uint64_t until_ns;     /* to be let in */
	void (*up)(void *arg);
	/* After all calls have ended; then it is for remote_lane_free(). */
	void (*ended)(void *arg, int reason);
	void *arg;
};

/* up() or ended() follows, never before it returns. On failure neither. */
int remote_lane_open(const struct remote_lane_opts *o, struct remote_lane **ret);
void remote_lane_call(struct remote_lane *x, struct conn_call *call); /* conn_call() */
void remote_lane_stop(struct remote_lane *x, int reason);
void remote_lane_free(struct remote_lane *x); /* after ended(); NULL is fine */
