/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue pair and its completion queue: made, moved through their states, destroyed.
 * The connection manager says what the states want (addresses, numbers); rights,
 * timeouts and how many reads go at a time are ours.
 */
#include "engine/rdma_verbs.h"

#include <errno.h>
#include <stdlib.h>

enum { MARKER = 1, RNR_TIMER = 12 };

/* Small writes are sent from the queue itself, where the device likes that. */
enum { INLINE_WANTED = 256 };

static int create_qp(struct rdma_conn *c, uint32_t inlined)
{
	struct ibv_qp_init_attr a = {
		.qp_context = c,
		.send_cq = c->cq,
		.recv_cq = c->cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = c->opts.depth + MARKER,
			 .max_send_sge = RDMA_SGES_MAX,
			 /* Some devices do not take 0. */
			 .max_recv_wr = c->opts.max_receives ? c->opts.max_receives : 1,
			 .max_recv_sge = 1,
			 .max_inline_data = inlined },
	};

	c->qp = ibv_create_qp(c->dev->pd, &a);
	c->max_inline = c->qp ? a.cap.max_inline_data : 0;
	return c->qp ? 0 : -errno;
}

int qp_new(struct rdma_conn *c)
{
	unsigned n = c->opts.depth + MARKER + c->opts.max_receives;

	c->cq = ibv_create_cq(c->dev->ctx, (int)n, c, c->dev->comp, 0);
	if (!c->cq)
		return -errno;
	if (ibv_req_notify_cq(c->cq, 0))
		return -EIO;
	int r = create_qp(c, INLINE_WANTED);
	return r == -EINVAL || r == -ENOMEM ? create_qp(c, 0) : r;
}

void qp_free(struct rdma_conn *c)
{
	/* They fail only where the device is gone; all events are acknowledged. */
	if (c->qp)
		ibv_destroy_qp(c->qp);
	if (c->cq)
		ibv_destroy_cq(c->cq);
	c->qp = NULL;
	c->cq = NULL;
}

static int ask(struct rdma_conn *c, enum ibv_qp_state state, struct ibv_qp_attr *ret, int *ret_mask)
{
	*ret = (struct ibv_qp_attr){ .qp_state = state };
	return rdma_init_qp_attr(c->id, ret, ret_mask) ? -errno : 0;
}

int qp_to_init(struct rdma_conn *c)
{
	static const unsigned access[] = {
		[RDMA_MINE] = 0,
		[RDMA_PEERS_READ] = IBV_ACCESS_REMOTE_READ,
		[RDMA_PEERS_WRITE] = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	};
	struct ibv_qp_attr a;
	int mask, r = ask(c, IBV_QPS_INIT, &a, &mask);

	if (r < 0)
		return r;
	a.qp_access_flags = access[c->opts.peer];
	return -ibv_modify_qp(c->qp, &a, mask | IBV_QP_ACCESS_FLAGS);
}

static int qp_to_rtr(struct rdma_conn *c)
{
	struct ibv_qp_attr a;
	int mask, r = ask(c, IBV_QPS_RTR, &a, &mask);

	if (r < 0)
		return r;
	a.max_dest_rd_atomic = c->reads_in;
	a.min_rnr_timer = RNR_TIMER;
	return -ibv_modify_qp(c->qp, &a, mask);
}

int qp_to_rts(struct rdma_conn *c)
{
	struct ibv_qp_attr a;
	int mask, r = qp_to_rtr(c);

	if (!r)
		r = ask(c, IBV_QPS_RTS, &a, &mask);
	if (r < 0)
		return r;
	a.max_rd_atomic = c->reads_out;
	a.timeout = c->opts.ack_timeout ? c->opts.ack_timeout : RDMA_ACK_TIMEOUT;
	a.retry_cnt = RDMA_RETRIES;
	a.rnr_retry = RDMA_RETRIES; /* who sends knows that a buffer waits */
	return -ibv_modify_qp(c->qp, &a, mask);
}

int qp_to_error(struct rdma_conn *c)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };

	return -ibv_modify_qp(c->qp, &a, IBV_QP_STATE);
}
