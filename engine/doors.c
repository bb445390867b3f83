/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each port that can be used has a door:
 *
 *	      look()                    the device or the address is lost
 *	NONE ---------> OPEN, listening ----------------------------------> LOST
 *	  ^                                                                  |
 *	  '----------- its last connection was freed: shut() ----------------'
 *
 * Of a door, device and memory are the doors' own thread's, but before it begins and after it
 * has ended; everything else is the node's loop's, to which that thread goes and waits.
 * A port that is down keeps its door.
 */
#include "engine/doors.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/stream.h"
#include "index/index.h"

enum {
	LOOK_EVERY_MS = 2000,
	LOOK_ALL_EVERY = 5, /* of these, where nothing is missing */
};

struct memory { /* of a segment */
	struct rdma_mem *readable, *writable;
};

struct door {
	struct doors *doors;

	/* Our own thread's. */
	struct rdma_dev *dev; /* NULL: the door is not in use */
	struct memory *memory; /* of all segments */

	/* The node's loop's. */
	struct rdma_listener *listener;
	bool is_open; /* what is our own thread's stays as it is */
	bool is_lost;
};

struct doors {
	struct doors_opts o;
	struct sockaddr_storage wanted; /* to listen at; its address chooses the first port */
	struct loop *own;
	struct loop_timer *timer;
	uint32_t nsegments;

	/* Our own thread's. */
	struct door doors[RDMA_CHOICES_MAX];
	struct log_complaint complaint;
	unsigned nlooks;
	bool misses; /* a port that was there, or one that could not be opened */

	/* The node's loop's. */
	bool listens; /* doors_listen() has been called */
	char why[WIRE_WHY_MAX + 1];
};

/* What a call on the node's loop is about, and what came of it. */
struct errand {
	struct doors *doors;
	struct door *door;
	const char *text;
	int r;
};

static int on_node(void (*fn)(void *arg), struct errand e)
{
	loop_run(e.doors->o.loop, fn, &e);
	return e.r;
}

/* Device and memory --------------------------------------------------------------------- */

static void on_lost(void *arg, const char *text)
{
	struct door *x = arg;

	x->is_lost = true;
	x->is_open = false;
	snprintf(x->doors->why, sizeof(x->doors->why), "%s", text);
}

static bool is_any(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	return a->ss_family == AF_INET ? !v4->sin_addr.s_addr :
					 IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
}

static int register_pool(struct door *x, char **ret_why)
{
	struct doors *d = x->doors;
	int r = 0;

	for (uint32_t i = 0; !r && i < d->nsegments; i++) {
		struct pool_segment s = pool_segment(d->o.pool, i);
		uint64_t bytes = (uint64_t)s.npages * PAGE_BYTES;

		r = rdma_mem_new(x->dev, s.base, bytes, RDMA_PEERS_READ, &x->memory[i].readable,
				 ret_why);
		if (!r)
			r = rdma_mem_new(x->dev, s.base, bytes, RDMA_PEERS_WRITE,
					 &x->memory[i].writable, ret_why);
	}
	return r;
}

/* Nothing uses it any more. */
static void shut(struct door *x)
{
	for (uint32_t i = 0; i < x->doors->nsegments; i++) {
		rdma_mem_free(x->memory[i].readable);
		rdma_mem_free(x->memory[i].writable);
		x->memory[i] = (struct memory){ 0 };
	}
	rdma_dev_close(x->dev);
	x->dev = NULL;
}

/* Listening --------------------------------------------------------------------------- */

static void begin_listening(void *arg)
{
	struct errand *e = arg;
	struct door *x = e->door;
	struct doors *d = x->doors;
	const struct rdma_choice *c = rdma_dev_choice(x->dev);
	struct sockaddr_storage at = c->address.ss_family == AF_UNSPEC ? d->wanted : c->address;
	in_port_t *port = at.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&at)->sin6_port :
						     &((struct sockaddr_in *)&at)->sin_port;
	_cleanup_(freep) char *text = NULL;

	*port = ((struct sockaddr_in *)&d->wanted)->sin_port; /* at the same place in both */
	if (x->is_lost) {
		e->r = -ENODEV;
		return;
	}
	e->r = rdma_listener_new(x->dev, &at, d->o.request, d->o.arg, &x->listener, &text);
	if (e->r == -EADDRINUSE) {
		*port = 0;
		e->r = rdma_listener_new(x->dev, &at, d->o.request, d->o.arg, &x->listener, &text);
	}
	x->is_open = !e->r;
	if (x->is_open)
		log_info("node", "RDMA by %s:%u, port %u (%s)", c->device, c->port,
			 rdma_listener_port(x->listener), c->reason);
	else
		snprintf(d->why, sizeof(d->why), "%s", text ? text : error_text(e->r));
}

static void listen_if_told(void *arg)
{
	struct errand *e = arg;

	if (e->doors->listens)
		begin_listening(e);
}

/* Of no more use: the device is gone, it could not listen, or its address is gone and with
 * it all who came by it. */
static bool is_over(const struct door *x)
{
	if (x->is_lost || !x->is_open)
		return true;
	return !rdma_dev_has_address(x->dev) && !rdma_dev_nconns(x->dev);
}

static void ask_is_over(void *arg)
{
	struct errand *e = arg;

	e->r = is_over(e->door);
}

/* e->r: is the last connection freed? */
static void stop_listening(void *arg)
{
	struct errand *e = arg;
	struct door *x = e->door;

	rdma_listener_free(x->listener);
	x->listener = NULL;
	x->is_open = false;
	e->r = !rdma_dev_nconns(x->dev);
}

/* Looking for ports --------------------------------------------------------------------- */

static void set_why(void *arg)
{
	struct errand *e = arg;
	struct doors *d = e->doors;

	snprintf(d->why, sizeof(d->why), "%s", e->text);
}

/* Takes down what of it is up, once nobody uses it. */
static bool take_down(struct door *x)
{
	if (!x->dev)
		return true;
	if (!on_node(stop_listening, (struct errand){ .doors = x->doors, .door = x }))
		return false;
	shut(x);
	return true;
}

static struct door *door_of(struct doors *d, const struct rdma_choice *c)
{
	struct door *unused = NULL;

	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		const struct rdma_choice *is = x->dev ? rdma_dev_choice(x->dev) : NULL;

		if (is && rdma_is_same_port(is, c))
			return x;
		if (!is)
			unused = x;
	}
	return unused;
}

static int open_door(struct door *x, const struct rdma_choice *c, char **ret_why)
{
	struct doors *d = x->doors;

	x->is_lost = false;
	int r = rdma_dev_open(d->o.loop, c, on_lost, x, &x->dev, ret_why);
	if (!r)
		r = register_pool(x, ret_why);
	if (r >= 0) {
		r = on_node(listen_if_told, (struct errand){ .doors = d, .door = x });
		if (r < 0)
			why(ret_why, r, "%s", d->why);
	}
	if (r < 0)
		take_down(x);
	return r;
}

/* Opens those that have none. 0: there is one now; *ret_why: what is wrong with another. */
static int open_doors(struct doors *d, char **ret_why)
{
	struct rdma_choice found[RDMA_CHOICES_MAX];
	const struct sockaddr_storage *local = is_any(&d->wanted) ? NULL : &d->wanted;
	unsigned n, nopen = 0;
	int r = rdma_find(&d->o.rdma, local, found, &n, ret_why), failed = 0;

	for (unsigned i = 0; !r && i < n; i++) {
		_cleanup_(freep) char *text = NULL;
		struct door *x = door_of(d, &found[i]);
		int opened = !x || x->dev ? 0 : open_door(x, &found[i], &text);

		nopen += opened >= 0;
		if (opened < 0 && !failed)
			failed = why(ret_why, opened, "%s", text ? text : error_text(opened));
	}
	d->misses = r < 0 || failed;
	return r < 0 ? r : nopen ? 0 : failed;
}

static bool has_none(const struct doors *d)
{
	for (const struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++)
		if (x->dev)
			return false;
	return true;
}

static int look(struct doors *d, char **ret_why)
{
	int r = open_doors(d, ret_why);

	if (r < 0 && has_none(d)) {
		const char *said = *ret_why ? *ret_why : error_text(r);
		on_node(set_why, (struct errand){ .doors = d, .text = said });
	}
	return r;
}

static void complain(struct doors *d, const char *text)
{
	if (log_is_news(&d->complaint, text))
		log_warn("node", has_none(d) ? "no RDMA now: %s" : "RDMA, a port: %s", text);
}

static void on_tick(void *arg)
{
	struct doors *d = arg;
	_cleanup_(freep) char *text = NULL;

	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		if (x->dev && on_node(ask_is_over, (struct errand){ .doors = d, .door = x })) {
			d->misses = true;
			take_down(x); /* or at the next turn */
		}
	}
	if (!d->misses && ++d->nlooks % LOOK_ALL_EVERY)
		return;
	look(d, &text);
	complain(d, text);
}

int doors_listen(struct doors *d, const struct sockaddr_storage *at)
{
	int r = -ENODEV;

	d->wanted = *at;
	d->listens = true;
	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		struct errand e = { .doors = d, .door = x };
		if (!x->dev)
			continue;
		begin_listening(&e);
		r = r ? e.r : 0;
	}
	int timer = loop_timer_new(d->own, LOOK_EVERY_MS, LOOK_EVERY_MS, on_tick, d, &d->timer);
	return timer < 0 ? timer : r;
}

const char *doors_why(const struct doors *d)
{
	return d->why;
}

/* What sessions are told ------------------------------------------------------------------ */

static void put_address(const struct door *x, struct wire_port *p)
{
	const struct sockaddr_storage *a = &rdma_dev_choice(x->dev)->address;

	p->port = rdma_listener_port(x->listener);
	if (a->ss_family == AF_INET) {
		p->address[10] = p->address[11] = 0xff;
		memcpy(p->address + 12, &((const struct sockaddr_in *)a)->sin_addr, 4);
	} else if (a->ss_family == AF_INET6) {
		memcpy(p->address, &((const struct sockaddr_in6 *)a)->sin6_addr, 16);
	}
}

/* The keys are those of its own registration. */
static void tell_of(const struct door *x, bool read_only, struct wire_rdma *m)
{
	uint32_t *keys = m->keys + (size_t)m->nports * m->nsegments;

	for (uint32_t i = 0; i < m->nsegments; i++)
		keys[i] = rdma_mem_key(read_only ? x->memory[i].readable : x->memory[i].writable);
	put_address(x, &m->ports[m->nports++]);
}

/* One that is down is told of as well while another is up: who asks keeps the list. */
static void tell_all(struct doors *d, bool read_only, struct wire_rdma *m)
{
	bool is_open = false, is_up = false;

	for (uint32_t i = 0; i < d->nsegments; i++) {
		struct pool_segment s = pool_segment(d->o.pool, i);
		m->segments[i] = (struct wire_segment){ s.page, s.npages, (uintptr_t)s.base };
	}
	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		is_open |= x->is_open;
		if (!x->is_open || !rdma_dev_has_address(x->dev))
			continue;
		is_up |= rdma_dev_is_up(x->dev);
		tell_of(x, read_only, m);
	}
	if (is_open && !is_up)
		snprintf(d->why, sizeof(d->why), "its ports are down, or have lost their addresses");
	if (!is_up)
		m->nports = 0;
	if (!m->nports)
		m->why = BYTES_OF(d->why, strlen(d->why));
}

int doors_tell(struct doors *d, bool read_only, struct wire_rdma *ret)
{
	_cleanup_(wire_rdma_fini) struct wire_rdma m = { .nsegments = d->nsegments };

	m.segments = calloc(d->nsegments, sizeof(*m.segments));
	m.ports = calloc(RDMA_CHOICES_MAX, sizeof(*m.ports));
	m.keys = calloc((size_t)RDMA_CHOICES_MAX * d->nsegments, sizeof(*m.keys));
	if (!m.segments || !m.ports || !m.keys)
		return -ENOMEM;
	tell_all(d, read_only, &m);
	*ret = m;
	m = (struct wire_rdma){ 0 };
	return 0;
}

/* Opening and closing ------------------------------------------------------------------ */

void doors_close(struct doors *d)
{
	if (!d)
		return;
	loop_timer_free(d->timer);
	loop_free(d->own);
	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		bool down = take_down(x);
		assert(down);
		free(x->memory);
	}
	free(d);
}
DEFINE_CLEANUP(struct doors *, doors_close)

static struct doors *alloc(const struct doors_opts *o)
{
	_cleanup_(doors_closep) struct doors *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->o = *o;
	d->wanted = *o->at;
	d->nsegments = pool_nsegments(o->pool);
	for (struct door *x = d->doors; x < d->doors + RDMA_CHOICES_MAX; x++) {
		x->doors = d;
		x->memory = calloc(d->nsegments, sizeof(*x->memory));
		if (!x->memory)
			return NULL;
	}
	return steal(&d);
}

int doors_open(const struct doors_opts *o, struct doors **ret, char **ret_why)
{
	_cleanup_(freep) char *text = NULL;

	if (stream_is_loopback(o->at))
		return why(ret_why, -EOPNOTSUPP, "the node listens at loopback only");
	_cleanup_(doors_closep) struct doors *d = alloc(o);
	if (!d)
		return -ENOMEM;
	int r = look(d, &text);
	if (r == -EOPNOTSUPP)
		return why(ret_why, r, "%s", text ? text : error_text(r));
	if (r < 0)
		log_is_news(&d->complaint, text);
	else
		complain(d, text);
	int own = loop_new("node-doors", &d->own);
	if (own < 0)
		return own;
	*ret = steal(&d);
	return r < 0 ? why(ret_why, 0, "%s", text ? text : error_text(r)) : 0;
}
