/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the files of RDMA share, and nobody else. The connection manager is asked for
 * addresses, routes and handshakes only; queue pairs are our own, on a context of our
 * own, so that their rights, their timeouts and their end are in our hands.
 *
 *	RESOLVING -> ROUTING -> CONNECTING --.
 *	                                     +--> UP --.
 *	REQUESTED ----------> ACCEPTING -----'         |
 *	                                               v
 *	          from any of them: conn_close() --> DRAINING --> CLOSED
 *	                                     in ERR, being        destroyed,
 *	                                     flushed              closed() said
 */
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "common/lock.h"
#include "engine/rdma.h"

enum { DEV_MAGIC = 0x72644456, CONN_MAGIC = 0x7264434e, LISTENER_MAGIC = 0x72644c53 };
enum { SCRATCH_BYTES = 64, RUN_OPS = 16 };

/* In wr_id of a receive, with its number: a completion that failed has no opcode. */
#define RECEIVE (UINT64_C(1) << 63)

struct rdma_dev {
	struct loop *loop;
	struct rdma_choice choice;
	void (*lost)(void *arg, const char *why);
	void *arg;
	struct ibv_context *ctx;
	struct ibv_device_attr attr;
	struct ibv_pd *pd;
	struct ibv_comp_channel *comp; /* of all completion queues */
	struct rdma_event_channel *cm;
	struct loop_watch *watch_comp, *watch_cm, *watch_async;
	atomic_uint users; /* connections, listeners, memory, that are not freed */
	atomic_bool gone, port_up;
	atomic_bool has_address; /* choice.address */
	uint8_t *scratch; /* where the reads behind writes go; nobody looks */
	struct rdma_mem *scratch_mem;

	/* The loop thread's. */
	struct rdma_conn *conns;
	struct rdma_listener *listeners;
	unsigned nconns; /* not freed */
	char why[128];    /* that it is gone */
};

struct rdma_mem {
	struct rdma_dev *dev;
	struct ibv_mr *mr;
};

struct rdma_listener {
	uint32_t magic;
	struct rdma_dev *dev;
	struct rdma_cm_id *id; /* NULL: the device is gone */
	void (*request)(void *arg, struct rdma_conn *c, struct bytes ticket);
	void *arg;
	uint16_t port;
	struct rdma_listener *next;
};

enum conn_state {
	CONN_RESOLVING,
	CONN_ROUTING,
	CONN_CONNECTING,
	CONN_REQUESTED,
	CONN_ACCEPTING,
	CONN_UP,
	CONN_DRAINING,
	CONN_CLOSED,
};

struct rdma_conn {
	uint32_t magic;
	struct rdma_dev *dev;
	struct rdma_conn *next, **prev; /* in dev->conns */
	const struct rdma_conn_ops *ops;
	void *arg;
	struct rdma_conn_opts opts;
	uint32_t max_inline;

	/* The loop thread's. */
	enum conn_state state;
	struct rdma_cm_id *id;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct sockaddr_storage to;
	uint32_t resolve_ms; /* of the last attempt */
	uint8_t ticket[RDMA_TICKET_MAX];
	uint8_t ticket_len;
	uint8_t reads_out, reads_in; /* at a time, ours and the peer's */
	struct loop_timer *timer;
	int reason;
	char why[128];
	uint64_t done_ns, gap_ns; /* last completion; average between two */

	atomic_flag stop_asked;
	int stop_reason; /* of who set stop_asked */
	struct loop_call stop_call, poll_call, free_call;
	bool poll_posted, force; /* the loop thread's; force: do not wait for the flush */

	/* Requests in the send queue, oldest first: ring[head % depth] up to tail. Number
	 * n of them has wr_id n. An entry is an op, or NULL: a read behind writes. */
	struct lock lock;
	struct rdma_op **ring;
	uint64_t head, tail;
	bool open;               /* posts are taken */
	struct rdma_op *failed, **failed_end; /* done() when all is flushed */
	atomic_uint under_way;   /* tail - head, to glance at */
};

/* rdma_list.c: is choice.address among the port's? */
bool dev_has_address(struct rdma_dev *d);

/* rdma_dev.c */
void dev_lose(struct rdma_dev *d, const char *reason);

/* rdma_conn.c: on the loop's thread */
void dev_on_cm(void *dev);
void listener_lose(struct rdma_listener *x);
void conn_close(struct rdma_conn *c, int reason, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void conn_finish(struct rdma_conn *c);
void conn_go_up(struct rdma_conn *c);

/* rdma_qp.c: results are negative errnos */
int qp_new(struct rdma_conn *c);
int qp_to_init(struct rdma_conn *c);
int qp_to_rts(struct rdma_conn *c);
int qp_to_error(struct rdma_conn *c);
void qp_free(struct rdma_conn *c);

/* rdma_post.c */
void dev_on_completions(void *dev);
void conn_poll(struct rdma_conn *c);
int post_take(struct rdma_conn *c); /* the completions that are there; how many */
void conn_poll_posted(void *conn); /* poll_call */
void conn_failed(struct rdma_conn *c, enum ibv_wc_status status);
/* No further posts; a marker behind the last request says when all are flushed. */
void post_end(struct rdma_conn *c, bool mark);
bool post_is_drained(struct rdma_conn *c);
/* What is left has failed; the queue pair is gone. */
void post_fail_all(struct rdma_conn *c, int r);

/* rdma_recv.c */
int recv_first(struct rdma_conn *c); /* the queue pair is in INIT; negative errno */
void recv_done(struct rdma_conn *c, const struct ibv_wc *wc);
