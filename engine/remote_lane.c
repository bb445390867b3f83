/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	CONNECTING --up--> GREETED --CHALLENGE--> PROVEN --READY--> UP
 *
 * as a session begins (remote.c), but under that session's secret.
 */
#include "engine/remote_lane.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/auth.h"

enum lane_state { LANE_CONNECTING, LANE_GREETED, LANE_PROVEN, LANE_UP };

enum { AHEAD = 16 * 1024 }; /* of a message: what is read ahead is copied */

struct remote_lane {
	struct remote_lane_opts o;
	struct auth_key key;
	struct conn *conn;
	enum lane_state state;
	struct writer hello;
};

static void on_up(void *arg)
{
	struct remote_lane *x = arg;
	struct wire_hello m = { .version_min = WIRE_VERSION, .version_max = WIRE_VERSION,
				.kind = WIRE_DATA, .session = x->o.session,
				.number = x->o.number };
	struct writer w = { 0 };

	auth_random(m.nonce);
	wire_write_hello(&x->hello, &m);
	write_bytes(&w, x->hello.p, x->hello.len);
	x->state = LANE_GREETED;
	conn_send(x->conn, WIRE_HELLO, w);
}

static int on_challenge(struct remote_lane *x, const struct wire_header *h, struct bytes body)
{
	struct wire_challenge c;
	struct wire_proof m = { 0 };
	struct writer w = { 0 };
	int r = auth_challenged(&x->key, &x->hello, 0, h, body, &c, m.proof);

	if (r < 0)
		return r;
	wire_write_proof(&w, &m);
	x->state = LANE_PROVEN;
	conn_send(x->conn, WIRE_PROOF, w);
	return 0;
}

/* One that is frozen is found out in half the time that ends a session, so that what
 * was out on it can go another way. */
static int on_ready(struct remote_lane *x, const struct wire_header *h, struct bytes body)
{
	if (h->type != WIRE_READY || body.len)
		return -EPROTO;
	struct conn_limits limits = {
		.max_body = WIRE_RUN_MAX, .max_calls = x->o.max_calls, .ahead = AHEAD,
		.idle_ms = (x->o.keep_alive_ms + 1) / 2, .ping_ms = (x->o.keep_alive_ms + 5) / 6,
	};
	x->state = LANE_UP;
	conn_set_limits(x->conn, &limits);
	x->o.up(x->o.arg);
	return 0;
}

static int on_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct remote_lane *x = arg;

	switch (x->state) {
	case LANE_GREETED:
		return on_challenge(x, h, body);
	case LANE_PROVEN:
		return on_ready(x, h, body);
	case LANE_CONNECTING:
	case LANE_UP:
		break;
	}
	return -EPROTO;
}

static void on_ended(void *arg, int reason)
{
	struct remote_lane *x = arg;

	x->o.ended(x->o.arg, reason);
}

static const struct conn_ops ops = { .up = on_up, .message = on_message, .ended = on_ended };

int remote_lane_open(const struct remote_lane_opts *o, struct remote_lane **ret)
{
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX, .until_ns = o->until_ns };
	struct remote_lane *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->o = *o;
	memcpy(x->key.b, o->secret, sizeof(x->key.b));
	int r = conn_connect(o->loop, o->to, &limits, &ops, x, &x->conn);
	if (r < 0) {
		free(x);
		return r;
	}
	*ret = x;
	return 0;
}

void remote_lane_call(struct remote_lane *x, struct conn_call *call)
{
	conn_call(x->conn, call);
}

void remote_lane_stop(struct remote_lane *x, int reason)
{
	conn_stop(x->conn, reason);
}

void remote_lane_free(struct remote_lane *x)
{
	if (!x)
		return;
	conn_free(x->conn);
	writer_fini(&x->hello);
	free(x);
}
