/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue and its completions. A chain is posted in runs of up to RUN_OPS ops;
 * behind a run that has a write goes a read of the last written bytes, which passes
 * no write on its way into the peer's memory; and only the last request of a run is
 * signalled:
 *
 *	op WRITE, op WRITE, op READ, (read)*     op READ, op READ*
 *
 * The queue completes in order, so a completion of request n is one of all before it.
 * With an error it is an error of all before it that had none of their own: an op is
 * never said to be done on a guess. Where the queue stops short (a post was refused
 * half-way) nothing is signalled at its end; the marker, posted behind it once the
 * queue pair is in ERR, is flushed last and tells that all are.
 *
 * Credits: a request holds its place from posting until the completion that covers it
 * was consumed. There are `depth` of them, and one for the marker.
 *
 * Polling: completions wake the loop by a descriptor, and waking takes tens of
 * microseconds. While they come more densely than spin_us on average, the loop polls
 * for so long before it arms the descriptor and sleeps.
 */
#include "engine/rdma_verbs.h"

#include <assert.h>
#include <errno.h>

#include "common/clock.h"
#include "common/metrics.h"

enum {
	POLL_BATCH = 32,
	POLL_NS = 500000,     /* then others of the loop have their turn */
	GAP_MAX_NS = 1000000, /* a longer pause counts as one of this length */
	FLUSH_BYTES = 8,
};

/* Posting -------------------------------------------------------------------------- */

struct run {
	struct ibv_send_wr wr[RUN_OPS + 1];
	struct ibv_sge sge[RUN_OPS][RDMA_SGES_MAX], scratch;
	unsigned n; /* requests */
	struct rdma_op *rest;
};

static uint64_t op_bytes(const struct rdma_op *op)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < op->nsge; i++)
		bytes += op->sge[i].len;
	return bytes;
}

static bool is_valid(const struct rdma_op *op)
{
	if (!op->nsge || op->nsge > RDMA_SGES_MAX)
		return false;
	uint64_t bytes = op_bytes(op);
	return bytes && bytes <= RDMA_OP_MAX;
}

/* How many requests the chain takes at most; 0: it is not valid. */
static uint64_t places(const struct rdma_op *chain)
{
	uint64_t n = 0;

	for (; chain; chain = chain->next, n++)
		if (!is_valid(chain))
			return 0;
	return n + (n + RUN_OPS - 1) / RUN_OPS;
}

static const enum ibv_wr_opcode opcodes[] = {
	[RDMA_READ] = IBV_WR_RDMA_READ,
	[RDMA_WRITE] = IBV_WR_RDMA_WRITE,
	[RDMA_SEND] = IBV_WR_SEND,
};

static void put_op(struct rdma_conn *c, struct run *run, struct rdma_op *op)
{
	struct ibv_send_wr *wr = &run->wr[run->n];
	struct ibv_sge *sge = run->sge[run->n];

	for (unsigned i = 0; i < op->nsge; i++)
		sge[i] = (struct ibv_sge){ (uintptr_t)op->sge[i].at, op->sge[i].len,
					   op->sge[i].mem->mr->lkey };
	*wr = (struct ibv_send_wr){
		.wr_id = c->tail,
		.sg_list = sge,
		.num_sge = (int)op->nsge,
		.opcode = opcodes[op->kind],
		.wr.rdma = { op->remote, op->key },
	};
	if (op->kind != RDMA_READ && op_bytes(op) <= c->max_inline)
		wr->send_flags = IBV_SEND_INLINE;
	run->n++;
}

/* The read behind the writes, of the last bytes of `op`. */
static void put_flush(struct rdma_conn *c, struct run *run, const struct rdma_op *op)
{
	uint64_t bytes = op_bytes(op), len = bytes < FLUSH_BYTES ? bytes : FLUSH_BYTES;

	run->scratch = (struct ibv_sge){ (uintptr_t)c->dev->scratch, (uint32_t)len,
					 c->dev->scratch_mem->mr->lkey };
	run->wr[run->n++] = (struct ibv_send_wr){
		.wr_id = c->tail,
		.sg_list = &run->scratch,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_READ,
		.wr.rdma = { op->remote + bytes - len, op->key },
	};
}

static void enter(struct rdma_conn *c, struct rdma_op *op)
{
	c->ring[c->tail++ % (c->opts.depth + 1)] = op;
}

static void build(struct rdma_conn *c, struct run *run, struct rdma_op *op)
{
	const struct rdma_op *written = NULL;

	run->n = 0;
	for (; op && run->n < RUN_OPS; op = op->next) {
		if (op->kind == RDMA_WRITE)
			written = op;
		put_op(c, run, op);
		enter(c, op);
	}
	if (written) {
		put_flush(c, run, written);
		enter(c, NULL);
	}
	run->wr[run->n - 1].send_flags |= IBV_SEND_SIGNALED;
	for (unsigned i = 0; i + 1 < run->n; i++)
		run->wr[i].next = &run->wr[i + 1];
	run->rest = op;
}

static void fail_later(struct rdma_conn *c, struct rdma_op *op)
{
	op->next = NULL;
	*c->failed_end = op;
	c->failed_end = &op->next;
}

/* A device that refuses what there is room for is broken. What it did not take, from
 * `bad` on, stays at the queue's end as if it had, and fails with the rest. */
static void give_up(struct rdma_conn *c, const struct run *run)
{
	struct rdma_op *next;

	for (struct rdma_op *op = run->rest; op; op = next) {
		next = op->next;
		enter(c, op);
	}
	c->open = false;
	rdma_conn_stop(c, -EIO);
}

/* The lock is held, which no completion can get past. */
static void post_runs(struct rdma_conn *c, struct rdma_op *chain)
{
	struct run run;
	struct ibv_send_wr *bad;

	while (chain) {
		build(c, &run, chain);
		chain = run.rest;
		if (ibv_post_send(c->qp, run.wr, &bad)) {
			give_up(c, &run);
			break;
		}
	}
	atomic_store_explicit(&c->under_way, (unsigned)(c->tail - c->head), memory_order_relaxed);
}

int rdma_post(struct rdma_conn *c, struct rdma_op *chain)
{
	uint64_t need = places(chain), n = 0;

	if (!need || need > c->opts.depth)
		return -EINVAL;
	for (const struct rdma_op *op = chain; op; op = op->next)
		n++;
	WITH_LOCK(&c->lock);
	if (!c->open)
		return -ENOTCONN;
	if (c->opts.depth - (c->tail - c->head) < need)
		return -EAGAIN;
	metric_add(M_RDMA_OPS, (int64_t)n);
	post_runs(c, chain);
	return 0;
}

/* Completions ------------------------------------------------------------------------ */

static void op_done(struct rdma_op *op, int r)
{
	metric_add(M_RDMA_OPS, -1);
	op->done(op, r);
}

static void all_done(struct rdma_op *list, int r)
{
	lock_assert_none();
	for (struct rdma_op *next; list; list = next) {
		next = list->next;
		op_done(list, r);
	}
}

static const struct {
	enum ibv_wc_status status;
	int reason;
	const char *text;
} causes[] = {
	{ IBV_WC_RETRY_EXC_ERR, -ETIMEDOUT, "the peer does not answer" },
	{ IBV_WC_RNR_RETRY_EXC_ERR, -ETIMEDOUT, "the peer is not ready" },
	{ IBV_WC_RESP_TIMEOUT_ERR, -ETIMEDOUT, "the peer does not answer" },
	{ IBV_WC_REM_ACCESS_ERR, -EACCES, "the peer has no such memory, or not for us" },
	{ IBV_WC_REM_INV_REQ_ERR, -EACCES, "the peer takes no such requests" },
	{ IBV_WC_REM_ABORT_ERR, -ECONNRESET, "the peer has given up" },
	{ IBV_WC_WR_FLUSH_ERR, -ECONNRESET, "the queue pair has failed" },
	{ IBV_WC_LOC_PROT_ERR, -EFAULT, "memory that is not registered" },
	{ IBV_WC_LOC_LEN_ERR, -EMSGSIZE, "the peer sends more than there is room for" },
};

void conn_failed(struct rdma_conn *c, enum ibv_wc_status status)
{
	for (unsigned i = 0; i < sizeof(causes) / sizeof(*causes); i++)
		if (causes[i].status == status) {
			conn_close(c, causes[i].reason, "%s", causes[i].text);
			return;
		}
	conn_close(c, -EIO, "%s", ibv_wc_status_str(status));
}

/* Takes all up to request n off the queue; those that are done, in order. */
static struct rdma_op *consume(struct rdma_conn *c, uint64_t n, bool failed)
{
	struct rdma_op *done = NULL, **end = &done;

	WITH_LOCK(&c->lock);
	while (c->head <= n) {
		struct rdma_op *op = c->ring[c->head++ % (c->opts.depth + 1)];
		if (!op)
			continue;
		if (failed) {
			fail_later(c, op);
			continue;
		}
		*end = op;
		end = &op->next;
	}
	*end = NULL;
	atomic_store_explicit(&c->under_way, (unsigned)(c->tail - c->head), memory_order_relaxed);
	return done;
}

static bool is_ours(struct rdma_conn *c, uint64_t n)
{
	WITH_LOCK(&c->lock);
	return n < c->tail; /* may be below head: covered by one that came before */
}

static void on_completion(struct rdma_conn *c, const struct ibv_wc *wc)
{
	bool failed = wc->status != IBV_WC_SUCCESS;

	if (wc->wr_id & RECEIVE) {
		recv_done(c, wc);
		return;
	}
	if (!is_ours(c, wc->wr_id)) {
		conn_close(c, -EIO, "the device completes what was not asked for");
		return;
	}
	if (failed)
		conn_failed(c, wc->status);
	all_done(consume(c, wc->wr_id, failed), 0);
}

/* How many completions there were; the connection may have begun to end. */
int post_take(struct rdma_conn *c)
{
	struct ibv_wc wc[POLL_BATCH];
	int n = ibv_poll_cq(c->cq, POLL_BATCH, wc);

	for (int i = 0; i < n; i++)
		on_completion(c, &wc[i]);
	if (n < 0)
		conn_close(c, -EIO, "completions cannot be read");
	return n < 0 ? 0 : n;
}

static void note_gap(struct rdma_conn *c, uint64_t now)
{
	uint64_t gap = now - c->done_ns;

	if (gap > GAP_MAX_NS)
		gap = GAP_MAX_NS;
	c->gap_ns = c->gap_ns - c->gap_ns / 4 + gap / 4;
	c->done_ns = now;
}

static bool is_dense(const struct rdma_conn *c)
{
	return c->gap_ns < (uint64_t)c->opts.spin_us * 1000 &&
	       atomic_load_explicit(&c->under_way, memory_order_relaxed) &&
	       c->state == CONN_UP;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Polls until nothing comes for a while. False: its time was over before that. */
static bool poll_all(struct rdma_conn *c)
{
	uint64_t begin = clock_ns(), now = begin;
	bool spun = false;

	while (now - begin < POLL_NS) {
		int n = post_take(c);

		now = clock_ns();
		if (n) {
			note_gap(c, now);
			metric_add(M_RDMA_POLLS_FOUND, spun);
			spun = false;
		} else if (!is_dense(c)) {
			return true;
		} else if (now - c->done_ns > (uint64_t)c->opts.spin_us * 1000) {
			metric_add(M_RDMA_POLLS_VAIN, spun);
			return true;
		} else {
			spun = true;
			relax();
		}
	}
	return false;
}

/* Polls and arms; false: there is more to do, later. */
static bool poll_and_arm(struct rdma_conn *c)
{
	do {
		if (!poll_all(c))
			return false;
		if (ibv_req_notify_cq(c->cq, 0))
			conn_close(c, -EIO, "completions cannot be waited for");
		/* What came before it was armed wakes nobody. */
	} while (post_take(c));
	return true;
}

void conn_poll(struct rdma_conn *c)
{
	if (c->poll_posted || c->state == CONN_CLOSED)
		return;
	if (c->cq && !poll_and_arm(c) && !c->force) {
		if (!c->poll_posted) /* by conn_close(), meanwhile */
			loop_post_call(c->dev->loop, &c->poll_call);
		c->poll_posted = true;
		return;
	}
	if (c->state == CONN_DRAINING && (c->force || post_is_drained(c)))
		conn_finish(c);
}

void conn_poll_posted(void *arg)
{
	struct rdma_conn *c = arg;

	c->poll_posted = false;
	conn_poll(c);
}

/* Acknowledged at once: destroying the queue waits for that. */
void dev_on_completions(void *arg)
{
	struct rdma_dev *d = arg;
	struct ibv_cq *cq;
	void *of;

	while (!ibv_get_cq_event(d->comp, &cq, &of)) {
		struct rdma_conn *c = of;

		ibv_ack_cq_events(cq, 1);
		assert(c->magic == CONN_MAGIC);
		conn_poll(c);
	}
}

/* The end -------------------------------------------------------------------------- */

void post_end(struct rdma_conn *c, bool mark)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED };
	struct ibv_send_wr *bad;

	WITH_LOCK(&c->lock);
	c->open = false;
	if (!mark || c->tail == c->head)
		return;
	wr.wr_id = c->tail;
	if (!ibv_post_send(c->qp, &wr, &bad))
		enter(c, NULL);
}

bool post_is_drained(struct rdma_conn *c)
{
	WITH_LOCK(&c->lock);
	return c->head == c->tail;
}

void post_fail_all(struct rdma_conn *c, int r)
{
	struct rdma_op *failed;

	{
		WITH_LOCK(&c->lock);
		for (; c->head < c->tail; c->head++) {
			struct rdma_op *op = c->ring[c->head % (c->opts.depth + 1)];
			if (op)
				fail_later(c, op);
		}
		failed = c->failed;
		c->failed = NULL;
		c->failed_end = &c->failed;
	}
	all_done(failed, r);
}
