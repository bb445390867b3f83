/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/ways.h"

#include <assert.h>
#include <errno.h>

#include "common/log.h"
#include "engine/auth.h"

struct fence {
	struct wire_header header;
	void (*done)(void *arg, const struct wire_header *h);
	void *arg;
	struct fence *next;
};

struct way {
	struct ways *ways;
	uint32_t number;
	uint8_t ticket[WIRE_TICKET];
	struct rdma_conn *conn; /* NULL: nobody has come with the ticket */
	struct fence *fences;
	struct way *prev, *next;
};

struct ways {
	struct ways_opts o;
	struct way *first;
	uint32_t n;
	bool closing;
};

int ways_new(const struct ways_opts *o, struct ways **ret)
{
	struct ways *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->o = *o;
	*ret = w;
	return 0;
}

void ways_free(struct ways *w)
{
	if (!w)
		return;
	assert(!w->first);
	free(w);
}

static struct way *find(const struct ways *w, uint32_t number)
{
	struct way *x = w->first;

	while (x && x->number != number)
		x = x->next;
	return x;
}

bool ways_has(const struct ways *w, uint32_t number)
{
	return find(w, number);
}

static void way_free(struct way *x)
{
	*(x->prev ? &x->prev->next : &x->ways->first) = x->next;
	if (x->next)
		x->next->prev = x->prev;
	x->ways->n--;
	for (struct fence *f; (f = x->fences);) {
		x->fences = f->next;
		f->done(f->arg, &f->header);
		free(f);
	}
	free(x);
}

int ways_offer(struct ways *w, uint32_t number, uint8_t ret_ticket[WIRE_TICKET])
{
	struct way *x;

	if (w->closing)
		return -ENOTCONN;
	if (w->n == w->o.max)
		return -EUSERS;
	if (find(w, number))
		return -EEXIST;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	*x = (struct way){ .ways = w, .number = number, .next = w->first };
	auth_random(x->ticket);
	if (x->next)
		x->next->prev = x;
	w->first = x;
	w->n++;
	memcpy(ret_ticket, x->ticket, sizeof(x->ticket));
	return 0;
}

/* Connections ---------------------------------------------------------------------------- */

static void on_up(void *arg)
{
	(void)arg; /* there is nothing to send */
}

/* From here on nothing reaches the pool by it. */
static void on_closed(void *arg, int reason, const char *text)
{
	struct way *x = arg;
	struct ways *w = x->ways;

	if (reason != -ECONNRESET && reason != -ECANCELED)
		log_warn("node", "RDMA connection %u has ended: %s", x->number, text);
	rdma_conn_free(x->conn);
	way_free(x);
	if (w->closing && !w->first)
		w->o.gone(w->o.arg);
}

static const struct rdma_conn_ops way_ops = { .up = on_up, .closed = on_closed };

static struct way *find_ticket(const struct ways *w, struct bytes ticket)
{
	struct way *x = w->first;

	if (ticket.len < WIRE_TICKET) /* zeros may follow */
		return NULL;
	while (x && (x->conn || !auth_is_secret(x->ticket, ticket.p)))
		x = x->next;
	return x;
}

bool ways_accept(struct ways *w, struct rdma_conn *c, struct bytes ticket)
{
	struct rdma_conn_opts o = { .peer = w->o.read_only ? RDMA_PEERS_READ : RDMA_PEERS_WRITE,
				    .depth = 1 };
	struct way *x = find_ticket(w, ticket);

	if (!x)
		return false;
	x->conn = c;
	rdma_conn_accept(c, &o, &way_ops, x);
	return true;
}

/* The end -------------------------------------------------------------------------------- */

int ways_fence(struct ways *w, uint32_t number, const struct wire_header *h,
	       void (*done)(void *arg, const struct wire_header *h), void *arg)
{
	struct way *x = find(w, number);
	struct fence *f = malloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	*f = (struct fence){ *h, done, arg, x->fences };
	x->fences = f;
	if (x->conn)
		rdma_conn_stop(x->conn, -ECANCELED);
	else
		way_free(x);
	return 0;
}

bool ways_close(struct ways *w)
{
	struct way *next;

	w->closing = true;
	for (struct way *x = w->first; x; x = next) {
		next = x->next;
		if (x->conn)
			rdma_conn_stop(x->conn, -ECANCELED);
		else
			way_free(x);
	}
	return !w->first;
}
