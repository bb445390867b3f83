/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes (engine/remote_lane.h) as a kind of engine/slots.h. */
#include "engine/transport_tcp.h"

#include <errno.h>

#include "engine/remote_lane.h"
#include "engine/slots.h"

struct tcp_op {
	struct slot_op op; /* first */
	struct conn_call call;
};

static void on_up(void *arg)
{
	slot_up(arg);
}

static void on_ended(void *arg, int reason)
{
	slot_ended(arg, reason, NULL);
}

static int tcp_open(struct slot *s, uint64_t until_ns)
{
	struct slots *t = s->slots;
	struct remote_lane_opts o = {
		.loop = slots_loop(t), .to = remote_address(slots_remote(t)),
		.session = s->session, .secret = slots_secret(t), .number = s->number,
		.keep_alive_ms = slots_keep_alive_ms(t), .max_calls = SLOT_POSTS + 1,
		.until_ns = until_ns, .up = on_up, .ended = on_ended, .arg = s,
	};
	struct remote_lane *lane;
	int r = remote_lane_open(&o, &lane);

	if (r >= 0)
		s->lane = lane;
	return r;
}

static void tcp_stop(struct slot *s, int reason)
{
	remote_lane_stop(s->lane, reason);
}

static void tcp_free(struct slot *s)
{
	remote_lane_free(s->lane);
}

static void on_answered(struct conn_call *call, int r, struct bytes body)
{
	struct tcp_op *x = (struct tcp_op *)((char *)call - offsetof(struct tcp_op, call));

	(void)body;
	slot_done(&x->op, call->answered   ? SLOT_ANSWERED :
			  r != -ENOTCONN   ? SLOT_FAILED :
			  call->sent	   ? SLOT_CUT :
					     SLOT_UNSENT, r);
}

static void tcp_send(struct slot *s, struct slot_op *op)
{
	struct tcp_op *x = (struct tcp_op *)op;
	struct post *p = op->post;
	struct wire_span span = { p->slice, (uint32_t)p->off, p->len };
	struct conn_call *call = &x->call;

	*call = (struct conn_call){ .done = on_answered };
	wire_write_span(&call->body, &span);
	if (p->kind == POST_WRITE) {
		call->type = WIRE_WRITE;
		call->tail = BYTES_OF(p->local, p->len);
	} else {
		call->type = WIRE_READ;
		call->into = p->local;
		call->into_len = p->len;
	}
	remote_lane_call(s->lane, call);
}

static const struct slot_kind tcp_kind = {
	.name = "tcp", .thread = "remote-bytes", .op_bytes = sizeof(struct tcp_op),
	.moved = M_MOVED_TCP, .nup = M_WAYS_TCP,
	.open = tcp_open, .send = tcp_send, .stop = tcp_stop, .free = tcp_free,
};

static uint32_t lesser(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

int transport_tcp_open(struct remote *x, const struct transport_tcp_opts *o,
		       struct transport **ret)
{
	uint32_t most = lesser(remote_welcome(x)->max_lanes, SLOTS_MAX);
	struct slots_opts so = { .kind = &tcp_kind, .conns = lesser(o->conns ? o->conns : 2, most),
				 .timeout_ms = o->timeout_ms, .max_posts = o->max_posts,
				 .max_bytes = o->max_bytes };
	struct slots *t;

	if (!most)
		return -EOPNOTSUPP;
	int r = slots_new(x, &so, &t);
	if (r >= 0)
		slots_begin(t, ret);
	return r;
}
