/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs_probe: what an RDMA device gives, and whether it does what a transport
 * leans on.
 *
 *	verbs_probe caps DEVICE
 *	verbs_probe server ADDRESS PORT CONNECTIONS
 *	verbs_probe client ADDRESS PORT		three connections
 *
 * The client connects by rdma_cm and prints a line for each thing: one-sided
 * writes and reads of the server's buffer, messages, atomics, a window (these two
 * may be missing), a wrong key, and a queue pair that is moved to ERR with work in
 * flight: each request completes, in order, and nothing is written afterwards.
 * The first that does not hold ends it with status 1. "wr" is a work request.
 */
#include <arpa/inet.h>
#include <err.h>
#include <inttypes.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, SLICE = 64 << 10, DEPTH = 64, MESSAGE = 64, TIMES = 100 };

/* What the server tells in the answer to a connect request. */
struct hello {
	uint64_t addr;
	uint32_t rkey;
	uint32_t size;
};

struct conn {
	struct rdma_cm_id *id;
	struct ibv_qp_init_attr attr; /* .cap: as granted */
	struct ibv_mr *mr, *messages;
	uint8_t *buf;		       /* BUFFER bytes: what is written and read */
	char text[2 * DEPTH][MESSAGE]; /* received ones, then one to send */
	struct hello peer;
	unsigned answers; /* so many receives have been posted again */
};

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail(__LINE__, #cond, __VA_ARGS__);                                        \
	} while (0)

__attribute__((noreturn, format(printf, 3, 4))) static void fail(int line, const char *cond,
								  const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "verbs_probe: line %d, %s: ", line, cond);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t sum(const uint8_t *p, size_t n)
{
	uint64_t h = 14695981039346656037ULL;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211ULL;
	return h;
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		p[i] = seed >> 56;
	}
}

/* ---- both sides */

static void want(struct ibv_qp_init_attr *attr)
{
	*attr = (struct ibv_qp_init_attr){
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 2 * DEPTH,
			 .max_recv_wr = DEPTH,
			 .max_send_sge = 4,
			 .max_recv_sge = 1,
			 .max_inline_data = MESSAGE },
	};
}

static void post_receive(struct conn *c, unsigned slot)
{
	if (rdma_post_recv(c->id, (void *)(uintptr_t)slot, c->text[slot], MESSAGE, c->messages))
		err(1, "cannot post a receive");
}

static void prepare(struct conn *c)
{
	c->buf = aligned_alloc(4096, BUFFER);
	CHECK(c->buf, "no memory");
	memset(c->buf, 0, BUFFER);
	c->mr = ibv_reg_mr(c->id->pd, c->buf, BUFFER,
			   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |
				   IBV_ACCESS_MW_BIND);
	c->messages = ibv_reg_mr(c->id->pd, c->text, sizeof(c->text), IBV_ACCESS_LOCAL_WRITE);
	if (!c->mr || !c->messages)
		err(1, "cannot register memory");
	for (unsigned i = 0; i < DEPTH; i++)
		post_receive(c, i);
}

static void release(struct conn *c)
{
	ibv_dereg_mr(c->mr);
	ibv_dereg_mr(c->messages);
	rdma_destroy_ep(c->id);
	free(c->buf);
	free(c);
}

static int post(struct conn *c, struct ibv_send_wr wr)
{
	struct ibv_send_wr *bad;

	return ibv_post_send(c->id->qp, &wr, &bad);
}

/* A read or a write of the peer's buffer at the same offset, tagged with it. */
static int post_rdma(struct conn *c, enum ibv_wr_opcode op, size_t off, size_t len)
{
	struct ibv_sge sge = { (uintptr_t)c->buf + off, len, c->mr->lkey };

	return post(c, (struct ibv_send_wr){
			       .wr_id = off,
			       .sg_list = &sge,
			       .num_sge = 1,
			       .opcode = op,
			       .send_flags = IBV_SEND_SIGNALED,
			       .wr.rdma = { c->peer.addr + off, c->peer.rkey },
		       });
}

/* The next completion; false after too long. */
static bool next(struct ibv_cq *cq, struct ibv_wc *wc)
{
	double until = now() + 20;
	int n;

	while (!(n = ibv_poll_cq(cq, 1, wc)))
		if (now() > until)
			return false;
	CHECK(n == 1, "ibv_poll_cq: %d", n);
	return true;
}

static enum ibv_wc_status done(struct conn *c)
{
	struct ibv_wc wc;

	CHECK(next(c->id->send_cq, &wc), "no completion in 20 s");
	return wc.status;
}

static void must(struct conn *c, const char *what)
{
	enum ibv_wc_status status = done(c);

	CHECK(status == IBV_WC_SUCCESS, "%s: %s", what, ibv_wc_status_str(status));
}

static int state(struct conn *c)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(c->id->qp, &attr, IBV_QP_STATE, &init))
		err(1, "ibv_query_qp");
	return attr.qp_state;
}

static void to_error(struct conn *c)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };
	int r = ibv_modify_qp(c->id->qp, &attr, IBV_QP_STATE);

	CHECK(!r, "cannot go to ERR: %s", strerror(r));
}

/* ---- the server */

static bool disconnected(struct conn *c)
{
	struct pollfd p = { .fd = c->id->channel->fd, .events = POLLIN };
	struct rdma_cm_event *event;
	bool yes;

	if (poll(&p, 1, 0) != 1 || rdma_get_cm_event(c->id->channel, &event))
		return false;
	yes = event->event == RDMA_CM_EVENT_DISCONNECTED;
	rdma_ack_cm_event(event);
	return yes;
}

static void answer(struct conn *c, unsigned slot)
{
	snprintf(c->text[DEPTH], MESSAGE, "%016" PRIx64, sum(c->buf, BUFFER));
	if (rdma_post_send(c->id, NULL, c->text[DEPTH], MESSAGE, c->messages, IBV_SEND_SIGNALED))
		err(1, "cannot answer");
	must(c, "answer");
	post_receive(c, slot);
}

/* Answers messages with the sum of the buffer, until the client goes. */
static void serve(struct conn *c)
{
	unsigned posted = DEPTH, answers = 0, flushed = 0;
	struct ibv_wc wc;
	bool gone = false;

	while (!gone || posted) {
		if (!gone && disconnected(c)) {
			gone = true;
			/* rdma_disconnect() would wait half a second for TIMEWAIT_EXIT. */
			to_error(c);
		}
		if (gone && posted)
			CHECK(next(c->id->recv_cq, &wc), "%u receives not flushed", posted);
		else if (!ibv_poll_cq(c->id->recv_cq, 1, &wc))
			continue; /* all may be flushed before the client goes */
		posted--;
		if (wc.status == IBV_WC_SUCCESS) {
			answer(c, wc.wr_id);
			answers++;
			posted++;
		} else {
			CHECK(wc.status == IBV_WC_WR_FLUSH_ERR, "%s", ibv_wc_status_str(wc.status));
			flushed++;
		}
	}
	printf("server: %u answered, then %u receives flushed\n", answers, flushed);
	CHECK(flushed == DEPTH, "%u of %u", flushed, DEPTH);
}

static struct rdma_addrinfo *resolve(const char *addr, const char *port, int flags)
{
	struct rdma_addrinfo hints = { .ai_flags = flags, .ai_port_space = RDMA_PS_TCP }, *res;

	if (rdma_getaddrinfo(addr, port, &hints, &res))
		err(1, "%s port %s", addr, port);
	return res;
}

static void server(const char *addr, const char *port, int connections)
{
	struct rdma_addrinfo *res = resolve(addr, port, RAI_PASSIVE);
	struct ibv_qp_init_attr attr;
	struct rdma_cm_id *listener;

	want(&attr);
	if (rdma_create_ep(&listener, res, NULL, &attr) || rdma_listen(listener, 4))
		err(1, "cannot listen on %s", addr);
	while (connections-- > 0) {
		struct conn *c = calloc(1, sizeof(*c));
		struct hello hello;
		struct rdma_conn_param param = { .private_data = &hello,
						 .private_data_len = sizeof(hello),
						 .responder_resources = RDMA_MAX_RESP_RES,
						 .initiator_depth = RDMA_MAX_INIT_DEPTH,
						 .rnr_retry_count = 7 };

		CHECK(c, "no memory");
		if (rdma_get_request(listener, &c->id))
			err(1, "rdma_get_request");
		prepare(c);
		hello = (struct hello){ (uintptr_t)c->buf, c->mr->rkey, BUFFER };
		if (rdma_accept(c->id, &param))
			err(1, "rdma_accept");
		serve(c);
		release(c);
	}
	rdma_destroy_ep(listener);
	rdma_freeaddrinfo(res);
}

/* ---- the client */

static struct conn *dial(const char *addr, const char *port)
{
	struct rdma_addrinfo *res = resolve(addr, port, 0);
	struct rdma_conn_param param = { .responder_resources = RDMA_MAX_RESP_RES,
					 .initiator_depth = RDMA_MAX_INIT_DEPTH,
					 .retry_count = 7,
					 .rnr_retry_count = 7 };
	double begin = now();

	for (;;) {
		struct conn *c = calloc(1, sizeof(*c));

		CHECK(c, "no memory");
		want(&c->attr);
		if (rdma_create_ep(&c->id, res, NULL, &c->attr))
			err(1, "cannot make a queue pair to %s", addr);
		prepare(c);
		if (!rdma_connect(c->id, &param)) {
			const struct rdma_conn_param *got = &c->id->event->param.conn;

			CHECK(got->private_data_len >= sizeof(c->peer), "%d bytes of private data",
			      got->private_data_len);
			memcpy(&c->peer, got->private_data, sizeof(c->peer));
			printf("connect: %.0f ms, reads in flight: %d, to the peer: %d\n",
			       (now() - begin) * 1e3, got->initiator_depth,
			       got->responder_resources);
			rdma_freeaddrinfo(res);
			return c;
		}
		CHECK(now() - begin < 30, "cannot connect to %s", addr); /* not up yet? */
		release(c);
		usleep(100000);
	}
}

static void hang_up(struct conn *c)
{
	rdma_disconnect(c->id);
	release(c);
}

static void ask_sum(struct conn *c, unsigned flags)
{
	char expect[MESSAGE];
	struct ibv_wc wc;

	snprintf(expect, sizeof(expect), "%016" PRIx64, sum(c->buf, BUFFER));
	if (rdma_post_send(c->id, NULL, c->text[DEPTH], MESSAGE, c->messages,
			   flags | IBV_SEND_SIGNALED))
		err(1, "cannot send");
	must(c, "send");
	CHECK(next(c->id->recv_cq, &wc) && wc.status == IBV_WC_SUCCESS, "no answer");
	CHECK(!strcmp(c->text[wc.wr_id], expect), "sum: %s at the peer, %s here", c->text[wc.wr_id],
	      expect);
	post_receive(c, wc.wr_id);
	c->answers++;
}

/* All of the buffer in slices, all of them in flight at once. */
static void bulk(struct conn *c, enum ibv_wr_opcode op, const char *what)
{
	double begin = now();

	for (size_t off = 0; off < BUFFER; off += SLICE)
		if (post_rdma(c, op, off, SLICE))
			err(1, "cannot post a %s", what);
	for (size_t off = 0; off < BUFFER; off += SLICE)
		must(c, what);
	printf("%s: %d MiB in slices of %d KiB: %.0f MiB/s\n", what, BUFFER >> 20, SLICE >> 10,
	       BUFFER / 1048576.0 / (now() - begin));
}

static void one_sided(struct conn *c)
{
	uint64_t written;
	double begin;

	fill(c->buf, BUFFER, 1);
	written = sum(c->buf, BUFFER);
	bulk(c, IBV_WR_RDMA_WRITE, "write");
	ask_sum(c, 0);
	memset(c->buf, 0, BUFFER);
	bulk(c, IBV_WR_RDMA_READ, "read");
	CHECK(sum(c->buf, BUFFER) == written, "read something else than was written");
	begin = now();
	for (int i = 0; i < TIMES; i++) {
		if (post_rdma(c, IBV_WR_RDMA_READ, 0, 4096))
			err(1, "cannot post a read");
		must(c, "read of 4 KiB");
	}
	printf("read: 4 KiB alone: %.0f us\n", (now() - begin) * 1e6 / TIMES);
	begin = now();
	ask_sum(c, IBV_SEND_INLINE);
	printf("send, receive: with a sum of 1 MiB: %.0f us\n", (now() - begin) * 1e6);
}

/* Four pieces from all over the buffer to one place, and a word of news. */
static void gather(struct conn *c)
{
	struct ibv_sge sge[4];
	uint8_t expect[4 * 1000];

	for (unsigned i = 0; i < 4; i++) {
		sge[i] = (struct ibv_sge){ (uintptr_t)c->buf + i * 200001, 1000, c->mr->lkey };
		memcpy(expect + i * 1000, c->buf + i * 200001, 1000);
	}
	if (post(c, (struct ibv_send_wr){ .sg_list = sge,
					  .num_sge = 4,
					  .opcode = IBV_WR_RDMA_WRITE,
					  .send_flags = IBV_SEND_SIGNALED,
					  .wr.rdma = { c->peer.addr + 1000003, c->peer.rkey } }))
		err(1, "cannot post a gathering write");
	must(c, "gathering write");
	memset(c->buf + 1000003, 0, sizeof(expect));
	if (post_rdma(c, IBV_WR_RDMA_READ, 1000003, sizeof(expect)))
		err(1, "cannot post a read");
	must(c, "read");
	CHECK(!memcmp(c->buf + 1000003, expect, sizeof(expect)), "gathered wrongly");
	printf("write: from 4 pieces, at odd addresses\n");
}

static uint64_t atomic(struct conn *c, enum ibv_wr_opcode op, uint64_t a, uint64_t b)
{
	struct ibv_sge sge = { (uintptr_t)c->buf + 8, 8, c->mr->lkey };
	uint64_t before;

	if (post(c, (struct ibv_send_wr){ .sg_list = &sge,
					  .num_sge = 1,
					  .opcode = op,
					  .send_flags = IBV_SEND_SIGNALED,
					  .wr.atomic = { c->peer.addr, a, b, c->peer.rkey } }))
		err(1, "cannot post an atomic");
	must(c, "atomic");
	memcpy(&before, c->buf + 8, 8);
	return before;
}

static void atomics(struct conn *c)
{
	uint64_t zero = 0, before;

	memcpy(c->buf, &zero, 8);
	if (post_rdma(c, IBV_WR_RDMA_WRITE, 0, 8))
		err(1, "cannot post a write");
	must(c, "write");
	before = atomic(c, IBV_WR_ATOMIC_FETCH_AND_ADD, 5, 0);
	CHECK(before == 0, "%" PRIu64, before);
	before = atomic(c, IBV_WR_ATOMIC_CMP_AND_SWP, 5, 7);
	CHECK(before == 5, "%" PRIu64, before);
	before = atomic(c, IBV_WR_ATOMIC_CMP_AND_SWP, 5, 9);
	CHECK(before == 7, "%" PRIu64, before);
	printf("atomics: compare and swap, fetch and add\n");
}

/* A window of the client's own memory; says how far it gets. */
static void window(struct conn *c)
{
	struct ibv_mw *mw = ibv_alloc_mw(c->id->pd, IBV_MW_TYPE_2);
	int r = 0;

	if (!mw) {
		printf("window: none of type 2: %m\n");
		return;
	}
	r = post(c, (struct ibv_send_wr){
			    .opcode = IBV_WR_BIND_MW,
			    .send_flags = IBV_SEND_SIGNALED,
			    .bind_mw = { mw, ibv_inc_rkey(mw->rkey),
					 { c->mr, (uintptr_t)c->buf, 4096,
					   IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE } },
		    });
	if (r)
		printf("window: type 2 cannot be bound: %s\n", strerror(r));
	else
		printf("window: type 2, bound: %s\n", ibv_wc_status_str(done(c)));
	ibv_dealloc_mw(mw);
}

static void wrong_key(struct conn *c)
{
	enum ibv_wc_status first, second;
	double begin = now();

	c->peer.rkey ^= 0x5500;
	if (post_rdma(c, IBV_WR_RDMA_WRITE, 0, 4096) || post_rdma(c, IBV_WR_RDMA_READ, 0, 4096))
		err(1, "cannot post");
	first = done(c);
	second = done(c);
	printf("wrong key: %s, then %s, in %.1f ms, queue pair %s\n", ibv_wc_status_str(first),
	       ibv_wc_status_str(second), (now() - begin) * 1e3,
	       state(c) == IBV_QPS_ERR ? "in ERR" : "not in ERR");
	CHECK(first == IBV_WC_REM_ACCESS_ERR, "refused otherwise");
	CHECK(second == IBV_WC_WR_FLUSH_ERR, "what follows is not flushed");
}

/*
 * Takes DEPTH completions off a queue, of requests that are tagged in the order in
 * which they were posted, the first one with first; returns the flushed ones.
 */
static unsigned flushed(struct ibv_cq *cq, unsigned first, const char *what)
{
	unsigned count = 0;
	struct ibv_wc wc;

	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK(next(cq, &wc), "%s: %u of %u completed", what, i, DEPTH);
		CHECK(wc.wr_id == (first + i) % DEPTH, "%s: %u came as number %u", what,
		      (unsigned)wc.wr_id, i);
		if (wc.status == IBV_WC_SUCCESS)
			CHECK(!count, "%s %u: success after a flushed one", what, i);
		else
			CHECK(wc.status == IBV_WC_WR_FLUSH_ERR, "%s %u: %s", what, i,
			      ibv_wc_status_str(wc.status));
		count += wc.status != IBV_WC_SUCCESS;
	}
	CHECK(!ibv_poll_cq(cq, 1, &wc), "%s: more completions than requests", what);
	return count;
}

static void error_in_flight(struct conn *c, enum ibv_wr_opcode op, const char *what)
{
	unsigned sends, receives;
	double begin;
	uint64_t s;
	int r;

	for (unsigned i = 0; i < DEPTH; i++) {
		struct ibv_sge sge = { (uintptr_t)c->buf, BUFFER / 4, c->mr->lkey };

		if (post(c, (struct ibv_send_wr){ .wr_id = i,
						  .sg_list = &sge,
						  .num_sge = 1,
						  .opcode = op,
						  .send_flags = IBV_SEND_SIGNALED,
						  .wr.rdma = { c->peer.addr, c->peer.rkey } }))
			err(1, "cannot post");
	}
	begin = now();
	to_error(c);
	sends = flushed(c->id->send_cq, 0, what);
	receives = flushed(c->id->recv_cq, c->answers, "receive");
	printf("ERR: of %d %ss in flight %u flushed, %u receives, in %.1f ms\n", DEPTH, what, sends,
	       receives, (now() - begin) * 1e3);
	CHECK(sends && receives == DEPTH, "none was in flight");
	fill(c->buf, BUFFER, 3);
	s = sum(c->buf, BUFFER);
	usleep(300000);
	CHECK(s == sum(c->buf, BUFFER), "memory changed after all was flushed");
	r = post_rdma(c, op, 0, 4096);
	if (r)
		printf("ERR: a further %s is refused: %s\n", what, strerror(r));
	else
		printf("ERR: a further %s completes: %s\n", what, ibv_wc_status_str(done(c)));
}

static void client(const char *addr, const char *port)
{
	struct conn *c = dial(addr, port);

	printf("granted: send %u wr of %u sge, %u bytes inline; receive %u wr of %u sge\n",
	       c->attr.cap.max_send_wr, c->attr.cap.max_send_sge, c->attr.cap.max_inline_data,
	       c->attr.cap.max_recv_wr, c->attr.cap.max_recv_sge);
	one_sided(c);
	gather(c);
	atomics(c);
	window(c);
	error_in_flight(c, IBV_WR_RDMA_READ, "read");
	hang_up(c);
	c = dial(addr, port);
	wrong_key(c);
	hang_up(c);
	c = dial(addr, port);
	error_in_flight(c, IBV_WR_RDMA_WRITE, "write");
	hang_up(c);
}

/* ---- what the device says of itself */

static void limits(struct ibv_context *ctx)
{
	struct ibv_device_attr_ex ex;
	const struct ibv_device_attr *a = &ex.orig_attr;
	struct ibv_port_attr port;

	if (ibv_query_device_ex(ctx, NULL, &ex) || ibv_query_port(ctx, 1, &port))
		err(1, "cannot query the device");
	printf("max_qp %d max_qp_wr %d max_sge %d max_sge_rd %d\n", a->max_qp, a->max_qp_wr, a->max_sge,
	       a->max_sge_rd);
	printf("max_cq %d max_cqe %d max_mr %d max_mr_size %#" PRIx64 " max_pd %d\n", a->max_cq,
	       a->max_cqe, a->max_mr, a->max_mr_size, a->max_pd);
	printf("max_qp_rd_atom %d max_qp_init_rd_atom %d max_res_rd_atom %d\n", a->max_qp_rd_atom,
	       a->max_qp_init_rd_atom, a->max_res_rd_atom);
	printf("atomics %s\n", a->atomic_cap == IBV_ATOMIC_NONE	 ? "none"
			       : a->atomic_cap == IBV_ATOMIC_HCA ? "among queue pairs"
								 : "among processors as well");
	printf("max_mw %d, windows of type 1: %s, 2A: %s, 2B: %s\n", a->max_mw,
	       a->device_cap_flags & IBV_DEVICE_MEM_WINDOW ? "yes" : "no",
	       a->device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A ? "yes" : "no",
	       a->device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B ? "yes" : "no");
	printf("max_srq %d max_srq_wr %d\n", a->max_srq, a->max_srq_wr);
	printf("paging on demand: general %#" PRIx64 ", rc %#x\n", (uint64_t)ex.odp_caps.general_caps,
	       ex.odp_caps.per_transport_caps.rc_odp_caps);
	printf("active_mtu %d max_mtu %d max_msg_sz %u gids %d\n", 128 << port.active_mtu,
	       128 << port.max_mtu, port.max_msg_sz, port.gid_tbl_len);
}

/* The largest of a capability that a queue pair is made with. */
static unsigned largest(struct ibv_pd *pd, struct ibv_cq *cq, bool inlined)
{
	unsigned good = 0, bad = 1 << 16;

	while (good + 1 < bad) {
		unsigned n = (good + bad) / 2;
		struct ibv_qp_init_attr attr = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC };
		struct ibv_qp *qp;

		attr.cap = (struct ibv_qp_cap){ 4, 1, inlined ? 1 : n, 1, inlined ? n : 0 };
		qp = ibv_create_qp(pd, &attr);
		if (qp)
			good = n;
		else
			bad = n;
		if (qp)
			ibv_destroy_qp(qp);
	}
	return good;
}

static void registering(struct ibv_pd *pd)
{
	size_t size = 64 << 20;
	uint8_t *p = aligned_alloc(4096, size);
	struct ibv_mr *mr;
	double begin;

	CHECK(p, "no memory");
	memset(p, 1, size);
	begin = now();
	mr = ibv_reg_mr(pd, p, size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!mr)
		err(1, "cannot register 64 MiB");
	printf("registering 64 MiB: %.1f ms\n", (now() - begin) * 1e3);
	ibv_dereg_mr(mr);
	free(p);
}

static void caps(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL), **d;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_cq *cq;

	for (d = list; d && *d && strcmp(ibv_get_device_name(*d), name); d++)
		;
	CHECK(d && *d, "there is no device %s", name);
	ctx = ibv_open_device(*d);
	pd = ctx ? ibv_alloc_pd(ctx) : NULL;
	cq = pd ? ibv_create_cq(ctx, 16, NULL, NULL, 0) : NULL;
	if (!cq)
		err(1, "cannot use %s", name);
	limits(ctx);
	printf("a queue pair takes %u bytes inline, %u sge\n", largest(pd, cq, true),
	       largest(pd, cq, false));
	registering(pd);
	ibv_destroy_cq(cq);
	ibv_dealloc_pd(pd);
	ibv_close_device(ctx);
	ibv_free_device_list(list);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(120);
	if (argc == 3 && !strcmp(argv[1], "caps"))
		caps(argv[2]);
	else if (argc == 5 && !strcmp(argv[1], "server"))
		server(argv[2], argv[3], atoi(argv[4]));
	else if (argc == 4 && !strcmp(argv[1], "client"))
		client(argv[2], argv[3]);
	else
		errx(2, "usage: verbs_probe caps DEVICE | server ADDRESS PORT CONNECTIONS |"
			" client ADDRESS PORT");
	return 0;
}
