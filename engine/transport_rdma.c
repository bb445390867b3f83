/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA connections as a kind of engine/slots.h. One begins with a question to the node:
 *
 *	open(): RDMA ---> told(): a ticket, ports, segments, keys
 *	                     '--> rdma_conn_new() ---> up ---> closed
 *
 * The keys are good for this connection only: those of a device that has come back are
 * others. Which of the ports it takes says rdma_path.h: at each failed attempt another one;
 * from its home's port of this side while other connections are up, else from all. One that
 * is up away from home is led back (transport_rdma_look()). Ops that are sent in one go are
 * one chain, and cost one completion.
 */
#include "engine/transport_rdma.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/stream.h"
#include "engine/nics.h"
#include "engine/rdma.h"
#include "engine/slots.h"
#include "engine/staging.h"

enum {
	CHAIN_MAX = 16,
	STAGING_BYTES = 32 << 20,
	OPEN_MS = 5000,
	/* A dead peer is seen after 2 s: with this, what was out goes another way well
	 * before its deadline. The first way to an address may take 2 s. */
	CONNECT_MS = 3000,
	AWAY_MS = 30000, /* until a port that did not answer is tried again */
};

struct rdma_way {
	struct transport_rdma_opts o;
	struct slots *slots;
	struct staging *staging;
	struct nics *nics;

	/* The loop's. */
	struct way_lane *lanes[SLOTS_MAX];  /* of each slot, or NULL */
	unsigned attempts[SLOTS_MAX]; /* that had failed when it came up, or have now */
};

struct way_op {
	struct slot_op op; /* first */
	struct rdma_op rdma;
	struct rdma_sge sge;
	void *at; /* staged; NULL: not yet */
};

struct way_lane {
	struct slot *slot;
	struct rdma_conn *conn; /* NULL: the node has not answered, or it has failed */
	uint64_t until_ns;
	int stopped;            /* before there was a connection: why */
	struct conn_call call;
	struct loop_call post;  /* from the link's loop to ours */
	int result;
	struct writer answer;
	struct wire_rdma told;  /* points into answer */
	struct rdma_far *far;   /* the same ports */
	struct nic *nic;        /* of this side */
	struct rdma_path path;
	uint64_t up_ns;         /* 0: it is not up yet */
	struct way_op *chain, *last; /* sent, and not posted yet */
	unsigned nchain;
	char why[192];
};

static struct rdma_way *way_of(const struct slot *s)
{
	return slots_arg(s->slots);
}

/* Ops ------------------------------------------------------------------------------------ */

static int way_prepare(struct slot_op *op)
{
	struct rdma_way *w = slots_arg(op->slots);
	struct way_op *x = (struct way_op *)op;
	struct post *p = op->post;

	int r = w->o.node ? node_covers(w->o.node, p->slice, p->off, p->len) : 0;
	if (r < 0)
		return r;
	if (p->kind == POST_WRITE && remote_reads_only(slots_remote(op->slots)))
		return -EROFS;
	if (x->at)
		return 0;
	x->at = staging_take(w->staging, p->len);
	if (!x->at)
		return -EAGAIN;
	if (p->kind == POST_WRITE)
		memcpy(x->at, p->local, p->len);
	return 0;
}

static void way_over(struct slot_op *op, int result)
{
	struct rdma_way *w = slots_arg(op->slots);
	struct way_op *x = (struct way_op *)op;
	struct post *p = op->post;

	if (!x->at)
		return;
	if (!result && p->kind == POST_READ)
		memcpy(p->local, x->at, p->len);
	staging_give(w->staging, x->at, p->len);
	x->at = NULL;
}

static void on_op(struct rdma_op *rdma, int r)
{
	struct way_op *x = (struct way_op *)((char *)rdma - offsetof(struct way_op, rdma));

	slot_done(&x->op, r < 0 ? SLOT_CUT : SLOT_ANSWERED, r);
}

/* Where it lies at the node. */
static int place(const struct way_lane *l, const struct post *p, struct rdma_op *ret)
{
	const struct wire_rdma *m = &l->told;
	const struct wire_segment *s = m->segments;
	uint32_t page = p->slice.page, i = 0;

	while (i < m->nsegments && (page < s[i].page || page - s[i].page >= s[i].pages))
		i++;
	if (i == m->nsegments)
		return -EIO;
	uint64_t off = (uint64_t)(page - s[i].page) * PAGE_BYTES + p->off;
	uint64_t bytes = (uint64_t)s[i].pages * PAGE_BYTES;
	if (off > bytes || p->len > bytes - off)
		return -EIO;
	ret->remote = s[i].base + off;
	ret->key = m->keys[l->path.far * m->nsegments + i];
	return 0;
}

static void post_chain(struct way_lane *l)
{
	struct way_op *x = l->chain, *next;

	l->chain = NULL;
	l->nchain = 0;
	if (!x)
		return;
	int r = rdma_post(l->conn, &x->rdma);
	for (; r < 0 && x; x = next) {
		next = x->rdma.next ? (struct way_op *)((char *)x->rdma.next -
							 offsetof(struct way_op, rdma)) : NULL;
		slot_done(&x->op, SLOT_UNSENT, r);
	}
}

static void way_send(struct slot *s, struct slot_op *op)
{
	struct way_lane *l = s->lane;
	struct way_op *x = (struct way_op *)op;
	struct post *p = op->post;

	x->sge = (struct rdma_sge){ x->at, p->len, nic_mem(l->nic) };
	x->rdma = (struct rdma_op){ .kind = p->kind == POST_WRITE ? RDMA_WRITE : RDMA_READ,
				    .nsge = 1, .sge = &x->sge, .done = on_op };
	int r = place(l, p, &x->rdma);
	if (r < 0) {
		slot_done(op, SLOT_FAILED, r);
		return;
	}
	if (l->chain)
		l->last->rdma.next = &x->rdma;
	else
		l->chain = x;
	l->last = x;
	if (++l->nchain == CHAIN_MAX)
		post_chain(l);
}

static void way_flush(struct slot *s)
{
	post_chain(s->lane);
}

/* Connections ---------------------------------------------------------------------------- */

/* After an attempt that has failed another way is tried. */
static void end_lane(struct way_lane *l, int reason, const char *text)
{
	struct rdma_way *w = way_of(l->slot);

	w->attempts[slot_index(l->slot)] = l->up_ns ? 0 : w->attempts[slot_index(l->slot)] + 1;
	w->lanes[slot_index(l->slot)] = NULL;
	slot_ended(l->slot, reason, text);
}

static void on_up(void *arg)
{
	struct way_lane *l = arg;

	l->up_ns = clock_ns();
	l->slot->cost = !rdma_dev_choice(nic_dev(l->nic))->is_near;
	slot_up(l->slot);
}

static void on_closed(void *arg, int reason, const char *text)
{
	struct way_lane *l = arg;

	rdma_conn_free(l->conn);
	l->conn = NULL;
	end_lane(l, reason, text);
}

static const struct rdma_conn_ops way_ops = { .up = on_up, .closed = on_closed };

static struct sockaddr_storage address_of(const struct wire_port *p, const struct remote *x)
{
	static const uint8_t none[16], mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct sockaddr_storage a = *remote_address(x);
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a;

	if (!memcmp(p->address, mapped, sizeof(mapped))) {
		a = (struct sockaddr_storage){ .ss_family = AF_INET };
		memcpy(&v4->sin_addr, p->address + 12, 4);
	} else if (memcmp(p->address, none, sizeof(none))) {
		a = (struct sockaddr_storage){ .ss_family = AF_INET6 };
		memcpy(&v6->sin6_addr, p->address, 16);
	}
	if (a.ss_family == AF_INET)
		v4->sin_port = htons(p->port);
	else
		v6->sin6_port = htons(p->port);
	return a;
}

static int find_far(struct way_lane *l)
{
	l->far = calloc(l->told.nports, sizeof(*l->far));
	if (!l->far)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->told.nports; i++) {
		struct rdma_far *f = &l->far[i];
		f->address = address_of(&l->told.ports[i], slots_remote(l->slot->slots));
		if (!stream_source(&f->address, &f->from))
			f->from = (struct sockaddr_storage){ 0 };
	}
	return 0;
}

/* Is another connection up? Then its port is left to it. */
static bool others_are_up(const struct rdma_way *w, const struct way_lane *l)
{
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		if (w->lanes[i] && w->lanes[i] != l && w->lanes[i]->up_ns)
			return true;
	return false;
}

static struct nic *find_path(const struct way_lane *l, unsigned attempt, struct rdma_path *ret)
{
	struct rdma_way *w = way_of(l->slot);
	struct rdma_turn turn = { .conn = slot_index(l->slot),
				  .offset = (unsigned)l->slot->session,
				  .attempt = attempt, .stays = others_are_up(w, l) };

	return nics_path(w->nics, l->far, l->told.nports, &turn, ret);
}

static int connect_lane(struct way_lane *l)
{
	struct rdma_way *w = way_of(l->slot);
	struct rdma_conn_opts o = { .peer = RDMA_MINE, .depth = RDMA_DEPTH,
				    .spin_us = RDMA_SPIN_US, .deadline_ns = l->until_ns };

	if (!l->told.nports) {
		snprintf(l->why, sizeof(l->why), "the node has none: %.*s",
			 (int)l->told.why.len, (const char *)l->told.why.p);
		return -ENODEV;
	}
	int r = find_far(l);
	if (r < 0)
		return r;
	l->nic = find_path(l, w->attempts[slot_index(l->slot)], &l->path);
	if (!l->nic) {
		snprintf(l->why, sizeof(l->why), "no port of this host is up");
		return -ENODEV;
	}
	o.from = l->path.from;
	return rdma_conn_new(nic_dev(l->nic), &l->path.to, BYTES_OF(l->told.ticket, WIRE_TICKET),
			     &o, &way_ops, l, &l->conn);
}

/* The node's answer, on our loop. */
static void told(void *arg)
{
	struct way_lane *l = arg;
	int r = l->result < 0 ? l->result : l->answer.bad ? -ENOMEM : l->stopped;

	if (!r)
		r = wire_read_rdma(writer_bytes(&l->answer), &l->told);
	if (!r)
		r = connect_lane(l);
	if (r < 0)
		end_lane(l, r, *l->why ? l->why : NULL);
}

/* On the link's loop. */
static void on_told(struct conn_call *call, int r, struct bytes body)
{
	struct way_lane *l = (struct way_lane *)((char *)call - offsetof(struct way_lane, call));

	l->result = r > 0 ? -EPROTO : r;
	if (!r)
		write_bytes(&l->answer, body.p, body.len);
	l->post = (struct loop_call){ .fn = told, .arg = l };
	loop_post_call(slots_loop(l->slot->slots), &l->post);
}

static int way_open(struct slot *s, uint64_t until_ns)
{
	struct way_lane *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->slot = s;
	l->until_ns = clock_ns() + CONNECT_MS * NS_PER_MS;
	if (l->until_ns > until_ns)
		l->until_ns = until_ns;
	l->call = (struct conn_call){ .type = WIRE_RDMA, .session = s->session,
				      .deadline_ns = l->until_ns, .done = on_told };
	wire_write_fence(&l->call.body, s->number);
	s->lane = l;
	way_of(s)->lanes[slot_index(s)] = l;
	remote_call(slots_remote(s->slots), &l->call);
	return 0;
}

static void way_stop(struct slot *s, int reason)
{
	struct way_lane *l = s->lane;

	if (l->conn)
		rdma_conn_stop(l->conn, reason);
	else if (!l->stopped)
		l->stopped = reason;
}

static void way_free(struct slot *s)
{
	struct way_lane *l = s->lane;

	assert(!l->chain && !l->conn);
	free(l->far);
	wire_rdma_fini(&l->told);
	writer_fini(&l->answer);
	free(l);
}

/* Leading them back ----------------------------------------------------------------------- */

static unsigned count_lanes(const struct rdma_way *w, const struct nic *nic)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SLOTS_MAX; i++)
		n += w->lanes[i] && w->lanes[i]->up_ns && w->lanes[i]->nic == nic;
	return n;
}

/* Where it is it came to since a port was missing that is there again: of this side, as can be
 * seen; of the node, as it may be: a port that did not answer, or that the node did not tell
 * of, so that a port here has nothing to do. */
static bool is_away(const struct way_lane *l)
{
	const struct rdma_way *w = way_of(l->slot);
	bool was_long = clock_ns() - l->up_ns > AWAY_MS * NS_PER_MS;
	struct rdma_path home;
	struct nic *nic = find_path(l, 0, &home);

	if (was_long && count_lanes(w, l->nic) > 1 && nics_has_idle(w->nics))
		return true;
	if (!nic || (nic == l->nic && home.far == l->path.far))
		return false;
	return was_long || !w->attempts[slot_index(l->slot)];
}

/* One at a time: the others have its posts meanwhile. */
static void tend(void *arg)
{
	struct rdma_way *w = arg;

	for (unsigned i = 0; i < SLOTS_MAX; i++) {
		struct way_lane *l = w->lanes[i];

		if (!l || !l->up_ns || l->stopped || !is_away(l))
			continue;
		slot_recall(l->slot);
		break;
	}
}

void transport_rdma_look(struct transport *t)
{
	struct rdma_way *w = slots_arg(slots_of(t));
	struct sockaddr_storage own;
	_cleanup_(freep) char *text = NULL;
	bool known = stream_source(remote_address(slots_remote(w->slots)), &own);

	nics_look(w->nics, known ? &own : NULL, &text); /* what is wrong was logged */
	loop_run(slots_loop(w->slots), tend, w);
}

/* Opening and closing ---------------------------------------------------------------------- */

static void on_lost(void *arg, const char *text)
{
	struct rdma_way *w = arg;

	slots_give_up(w->slots, text);
}

/* The loop runs still; ops and connections are over, what was freed has been. */
static void way_fini(void *arg)
{
	struct rdma_way *w = arg;

	nics_free(w->nics);
	staging_free(w->staging);
	free(w);
}

static const struct slot_kind way_kind = {
	.name = "rdma", .thread = "remote-rdma", .op_bytes = sizeof(struct way_op),
	.moved = M_MOVED_RDMA, .nup = M_WAYS_RDMA, .always_fences = true,
	.open = way_open, .prepare = way_prepare, .send = way_send, .flush = way_flush,
	.over = way_over, .stop = way_stop, .free = way_free, .fini = way_fini,
};

static int open_ports(struct rdma_way *w, const struct sockaddr_storage *own, char **ret_why)
{
	struct nics_opts no = { .loop = slots_loop(w->slots), .staging = w->staging,
				.rdma = w->o.rdma, .lost = on_lost, .arg = w };
	int r = nics_new(&no, &w->nics);

	return r < 0 ? r : nics_look(w->nics, own, ret_why);
}

static struct rdma_way *way_new(const struct transport_rdma_opts *o)
{
	struct rdma_way *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->o = *o;
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		w->attempts[i] = o->turn;
	return w;
}

/* One connection for each port, two at least: then one goes on while another one is fenced. */
static uint32_t conns_for(const struct transport_rdma_opts *o, unsigned nports)
{
	uint32_t n = o->conns ? o->conns : nports > 2 ? nports : 2;

	return n < SLOTS_MAX ? n : SLOTS_MAX;
}

static int new_slots(struct remote *x, const struct transport_rdma_opts *o, unsigned nports,
		     struct rdma_way **ret)
{
	struct rdma_way *w = way_new(o);

	if (!w)
		return -ENOMEM;
	struct slots_opts so = { .kind = &way_kind, .arg = w, .conns = conns_for(o, nports),
				 .timeout_ms = o->timeout_ms, .max_posts = o->max_posts,
				 .max_bytes = o->max_bytes, .gives_up = true };
	int r = slots_new(x, &so, &w->slots);
	if (r < 0) {
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

/* How many ports there are. */
static int count_ports(const struct engine_rdma *o, struct remote *x,
		       const struct sockaddr_storage *own, unsigned *ret_n, char **ret_why)
{
	struct rdma_choice found[RDMA_CHOICES_MAX];
	int r = rdma_find(o, own, found, ret_n, ret_why);

	if (!r && !remote_has_rdma(x))
		r = why(ret_why, -ENODEV, "the node has none: it listens at loopback, or was told "
			"--transport tcp, or was built without");
	return r;
}

int transport_rdma_open(struct remote *x, const struct transport_rdma_opts *o,
			struct transport **ret, char **ret_why)
{
	uint64_t until_ns = clock_ns() + (o->open_ms ? o->open_ms : OPEN_MS) * NS_PER_MS;
	uint64_t bytes = o->staging_bytes ? o->staging_bytes : STAGING_BYTES;
	struct sockaddr_storage address, *own = &address;
	struct transport *t;
	struct rdma_way *w;
	unsigned n;

	if (!stream_source(remote_address(x), own))
		own = NULL;
	/* First: where there is no device, this is all that is done every few seconds. */
	int r = count_ports(&o->rdma, x, own, &n, ret_why);
	if (r < 0)
		return r;
	r = new_slots(x, o, n, &w);
	if (r < 0)
		return r;
	r = staging_new(bytes, &w->staging, ret_why);
	if (!r)
		r = open_ports(w, own, ret_why);
	if (r < 0) {
		slots_free(w->slots);
		return r;
	}
	slots_begin(w->slots, &t);
	r = slots_wait_up(w->slots, until_ns, o->cancelled, ret_why);
	if (r < 0) {
		t->ops->quiesce(t);
		t->ops->close(t);
		return r;
	}
	*ret = t;
	return 0;
}

bool transport_rdma_is_over(struct transport *t, char **ret_why)
{
	return slots_has_given_up(slots_of(t), ret_why);
}
