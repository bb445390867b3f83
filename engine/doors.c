/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	      look()                    the device is lost
 *	NONE ---------> OPEN, listening -------------------> LOST
 *	  ^                                                    |
 *	  '--- its last connection was freed: shut() ----------'
 *
 * Device and memory are the doors' own thread's, but before it begins and after it has
 * ended; everything else is the node's loop's, to which that thread goes and waits.
 */
#include "engine/doors.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/stream.h"
#include "index/index.h"

enum { LOOK_EVERY_MS = 2000 };

struct memory { /* of a segment */
	struct rdma_mem *readable, *writable;
};

struct doors {
	struct doors_opts o;
	struct sockaddr_storage wanted; /* to listen at; its address chooses the device */
	struct loop *own;
	struct loop_timer *timer;

	/* Our own thread's. */
	struct rdma_dev *dev;
	uint32_t nsegments;
	struct memory *memory;
	char complaint[WIRE_WHY_MAX + 1]; /* was logged */

	/* The node's loop's. */
	struct rdma_listener *listener;
	bool listens; /* doors_listen() has been called */
	bool is_open; /* what is our own thread's stays as it is */
	bool is_lost;
	uint32_t nconns;
	char why[WIRE_WHY_MAX + 1];
};

/* A call on the node's loop that is waited for. */
struct errand {
	struct doors *doors;
	void (*fn)(struct errand *e);
	struct loop_call call;
	sem_t done;
	const char *text;
	int r;
};

static void errand_on_loop(void *arg)
{
	struct errand *e = arg;

	e->fn(e);
	sem_post(&e->done);
}

static int on_node(struct errand *e)
{
	sem_init(&e->done, 0, 0);
	e->call = (struct loop_call){ .fn = errand_on_loop, .arg = e };
	loop_post_call(e->doors->o.loop, &e->call);
	while (sem_wait(&e->done) < 0)
		;
	sem_destroy(&e->done);
	return e->r;
}

/* Device and memory --------------------------------------------------------------------- */

static void on_lost(void *arg, const char *text)
{
	struct doors *d = arg;

	d->is_lost = true;
	d->is_open = false;
	snprintf(d->why, sizeof(d->why), "%s", text);
}

static bool is_any(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	return a->ss_family == AF_INET ? !v4->sin_addr.s_addr :
					 IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
}

static int register_pool(struct doors *d, char **ret_why)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < d->nsegments; i++) {
		struct pool_segment s = pool_segment(d->o.pool, i);
		uint64_t bytes = (uint64_t)s.npages * PAGE_BYTES;

		r = rdma_mem_new(d->dev, s.base, bytes, RDMA_PEERS_READ, &d->memory[i].readable,
				 ret_why);
		if (!r)
			r = rdma_mem_new(d->dev, s.base, bytes, RDMA_PEERS_WRITE,
					 &d->memory[i].writable, ret_why);
	}
	return r;
}

/* Nothing uses it any more. */
static void shut(struct doors *d)
{
	for (uint32_t i = 0; i < d->nsegments; i++) {
		rdma_mem_free(d->memory[i].readable);
		rdma_mem_free(d->memory[i].writable);
		d->memory[i] = (struct memory){ 0 };
	}
	rdma_dev_close(d->dev);
	d->dev = NULL;
}

/* Listening --------------------------------------------------------------------------- */

static void begin_listening(struct errand *e)
{
	struct doors *d = e->doors;
	const struct rdma_choice *c = rdma_dev_choice(d->dev);
	struct sockaddr_storage at = c->address.ss_family == AF_UNSPEC ? d->wanted : c->address;
	in_port_t *port = at.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&at)->sin6_port :
						     &((struct sockaddr_in *)&at)->sin_port;
	_cleanup_(freep) char *text = NULL;

	*port = ((struct sockaddr_in *)&d->wanted)->sin_port; /* at the same place in both */
	if (d->is_lost) {
		e->r = -ENODEV;
		return;
	}
	e->r = rdma_listener_new(d->dev, &at, d->o.request, d->o.arg, &d->listener, &text);
	if (e->r == -EADDRINUSE) {
		*port = 0;
		e->r = rdma_listener_new(d->dev, &at, d->o.request, d->o.arg, &d->listener, &text);
	}
	d->is_open = !e->r;
	snprintf(d->why, sizeof(d->why), "%s", text ? text : error_text(e->r));
	if (d->is_open)
		log_info("node", "RDMA by %s:%u, port %u (%s)", c->device, c->port,
			 rdma_listener_port(d->listener), c->reason);
}

static void listen_if_told(struct errand *e)
{
	if (e->doors->listens)
		begin_listening(e);
}

/* e->r: is the last connection freed? */
static void stop_listening(struct errand *e)
{
	struct doors *d = e->doors;

	rdma_listener_free(d->listener);
	d->listener = NULL;
	d->is_open = false;
	e->r = !d->nconns;
}

/* What was posted before, as connections that were freed, has been done by now. */
static void forget_loss(struct errand *e)
{
	e->doors->is_lost = false;
}

/* Looking for a device ------------------------------------------------------------------ */

static void set_why(struct errand *e)
{
	struct doors *d = e->doors;

	snprintf(d->why, sizeof(d->why), "%s", e->text);
}

static int open_device(struct doors *d, char **ret_why)
{
	struct rdma_choice found[RDMA_CHOICES_MAX];
	const struct sockaddr_storage *local = is_any(&d->wanted) ? NULL : &d->wanted;
	unsigned n;
	int r = rdma_find(&d->o.rdma, local, found, &n, ret_why);

	if (!r)
		r = rdma_dev_open(d->o.loop, found, on_lost, d, &d->dev, ret_why);
	if (!r)
		r = register_pool(d, ret_why);
	return r;
}

/* Takes down what of it is up, once nobody uses it. */
static bool take_down(struct doors *d)
{
	if (!d->dev)
		return true;
	if (!on_node(&(struct errand){ .doors = d, .fn = stop_listening }))
		return false;
	on_node(&(struct errand){ .doors = d, .fn = forget_loss });
	shut(d);
	return true;
}

static int look(struct doors *d, char **ret_why)
{
	_cleanup_(freep) char *text = NULL;
	int r = open_device(d, &text);

	if (r >= 0) {
		struct errand e = { .doors = d, .fn = listen_if_told };
		r = on_node(&e);
		if (r < 0)
			why(&text, r, "%s", d->why);
	}
	if (r >= 0)
		return 0;
	take_down(d);
	const char *said = text ? text : error_text(r);
	on_node(&(struct errand){ .doors = d, .fn = set_why, .text = said });
	return why(ret_why, r, "%s", said);
}

static void has_state(struct errand *e)
{
	e->r = e->doors->is_lost ? -1 : e->doors->is_open;
}

static void on_tick(void *arg)
{
	struct doors *d = arg;
	_cleanup_(freep) char *text = NULL;
	int state = on_node(&(struct errand){ .doors = d, .fn = has_state });

	if (state > 0 || !take_down(d))
		return;
	if (look(d, &text) >= 0) {
		*d->complaint = '\0';
	} else if (text && strncmp(d->complaint, text, sizeof(d->complaint) - 1)) {
		log_warn("node", "no RDMA now: %s", text);
		snprintf(d->complaint, sizeof(d->complaint), "%s", text);
	}
}

int doors_listen(struct doors *d, const struct sockaddr_storage *at)
{
	struct errand e = { .doors = d, .r = -ENODEV };

	d->wanted = *at;
	d->listens = true;
	if (d->dev)
		begin_listening(&e);
	int r = loop_timer_new(d->own, LOOK_EVERY_MS, LOOK_EVERY_MS, on_tick, d, &d->timer);
	return r < 0 ? r : e.r;
}

const char *doors_why(const struct doors *d)
{
	return d->why;
}

/* What sessions are told ------------------------------------------------------------------ */

static void put_address(struct doors *d, struct wire_port *p)
{
	const struct sockaddr_storage *a = &rdma_dev_choice(d->dev)->address;

	p->port = rdma_listener_port(d->listener);
	if (a->ss_family == AF_INET) {
		p->address[10] = p->address[11] = 0xff;
		memcpy(p->address + 12, &((const struct sockaddr_in *)a)->sin_addr, 4);
	} else if (a->ss_family == AF_INET6) {
		memcpy(p->address, &((const struct sockaddr_in6 *)a)->sin6_addr, 16);
	}
}

int doors_tell(struct doors *d, bool read_only, struct wire_rdma *ret)
{
	_cleanup_(wire_rdma_fini) struct wire_rdma m = { .nsegments = d->nsegments,
							 .nports = d->is_open };

	m.segments = calloc(d->nsegments, sizeof(*m.segments));
	m.ports = calloc(1, sizeof(*m.ports));
	m.keys = calloc(d->nsegments, sizeof(*m.keys));
	if (!m.segments || !m.ports || !m.keys)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nsegments; i++) {
		struct pool_segment s = pool_segment(d->o.pool, i);

		m.segments[i] = (struct wire_segment){ s.page, s.npages, (uintptr_t)s.base };
		if (d->is_open)
			m.keys[i] = rdma_mem_key(read_only ? d->memory[i].readable :
							     d->memory[i].writable);
	}
	if (d->is_open)
		put_address(d, m.ports);
	else
		m.why = BYTES_OF(d->why, strlen(d->why));
	*ret = m;
	m = (struct wire_rdma){ 0 };
	return 0;
}

void doors_count(struct doors *d, int change)
{
	d->nconns += (uint32_t)change;
}

/* Opening and closing ------------------------------------------------------------------ */

void doors_close(struct doors *d)
{
	if (!d)
		return;
	loop_timer_free(d->timer);
	loop_free(d->own);
	bool down = take_down(d);
	assert(down);
	free(d->memory);
	free(d);
}
DEFINE_CLEANUP(struct doors *, doors_close)

int doors_open(const struct doors_opts *o, struct doors **ret, char **ret_why)
{
	_cleanup_(doors_closep) struct doors *d = calloc(1, sizeof(*d));
	_cleanup_(freep) char *text = NULL;

	if (!d)
		return -ENOMEM;
	d->o = *o;
	d->wanted = *o->at;
	d->nsegments = pool_nsegments(o->pool);
	d->memory = calloc(d->nsegments, sizeof(*d->memory));
	if (!d->memory)
		return -ENOMEM;
	if (stream_is_loopback(o->at))
		return why(ret_why, -EOPNOTSUPP, "the node listens at loopback only");
	int r = look(d, &text);
	if (r == -EOPNOTSUPP)
		return why(ret_why, r, "%s", text ? text : error_text(r));
	if (r < 0)
		snprintf(d->complaint, sizeof(d->complaint), "%s", text ? text : "");
	int own = loop_new("node-doors", &d->own);
	if (own < 0)
		return own;
	*ret = steal(&d);
	return r < 0 ? why(ret_why, 0, "%s", text ? text : error_text(r)) : 0;
}
