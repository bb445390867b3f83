/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that wait for what the peer sends. They are told apart by number, not kept:
 * what waits when the connection ends is its owner's with closed(), for then the queue
 * pair is gone.
 *
 * A node's queue pair can receive before the connection manager says that the connection
 * is established: then the send says it.
 */
#include "engine/rdma_verbs.h"

#include <assert.h>
#include <errno.h>

static int post(struct rdma_conn *c, unsigned number, const struct rdma_sge *at)
{
	struct ibv_sge sge = { (uintptr_t)at->at, at->len, at->mem->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = RECEIVE | number, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	assert(number < c->opts.max_receives);
	return ibv_post_recv(c->qp, &wr, &bad) ? -EIO : 0;
}

int recv_first(struct rdma_conn *c)
{
	int r = 0;

	for (unsigned i = 0; !r && i < c->opts.nfirst; i++)
		r = post(c, i, &c->opts.first[i]);
	return r;
}

int rdma_receive(struct rdma_conn *c, unsigned number, const struct rdma_sge *at)
{
	assert(loop_is_current(c->dev->loop));
	return c->state == CONN_UP ? post(c, number, at) : -ENOTCONN;
}

void recv_done(struct rdma_conn *c, const struct ibv_wc *wc)
{
	uint64_t number = wc->wr_id & ~RECEIVE;

	if (number >= c->opts.max_receives) {
		conn_close(c, -EIO, "the device completes what was not asked for");
		return;
	}
	if (wc->status != IBV_WC_SUCCESS) {
		conn_failed(c, wc->status);
		return;
	}
	if (c->state == CONN_ACCEPTING)
		conn_go_up(c);
	if (c->state == CONN_UP)
		c->ops->received(c->arg, (unsigned)number, wc->byte_len);
}
