/* SPDX-License-Identifier: Apache-2.0 */
/* The choice among ports, and nothing that needs a device: rdma_list.c has that. */
#include "engine/rdma_port.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "engine/engine.h"

/* From worst to best. */
enum rank { RANK_NONE, RANK_LINK_LOCAL, RANK_IB, RANK_IPV6, RANK_IPV4, RANK_LOCAL };

static const char *const reasons[] = {
	[RANK_LINK_LOCAL] = "RoCE v2 with a link-local address: nothing better is there",
	[RANK_IB] = "InfiniBand",
	[RANK_IPV6] = "RoCE v2 with an IPv6 address",
	[RANK_IPV4] = "RoCE v2 with an IPv4 address",
	[RANK_LOCAL] = "it has the address of the TCP connection",
};

const char *rdma_gid_kind_name(enum rdma_gid_kind k)
{
	static const char *const names[] = { "IB", "RoCE v1", "RoCE v2" };

	return names[k];
}

const char *rdma_link_name(enum rdma_link l)
{
	static const char *const names[] = { "other", "InfiniBand", "Ethernet" };

	return names[l];
}

void rdma_ports_free(struct rdma_port *v, unsigned n)
{
	for (unsigned i = 0; v && i < n; i++)
		free(v[i].gids);
	free(v);
}

static const uint8_t no_address[16];

static const uint8_t *ip_of(const struct rdma_gid *g)
{
	return g->kind == RDMA_GID_IB ? g->ip : g->raw;
}

static bool is_mapped(const struct rdma_gid *g)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(ip_of(g), prefix, sizeof(prefix));
}

static bool is_link_local(const struct rdma_gid *g)
{
	return ip_of(g)[0] == 0xfe && (ip_of(g)[1] & 0xc0) == 0x80;
}

void rdma_gid_address(const struct rdma_gid *g, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	*ret = (struct sockaddr_storage){ 0 };
	if (!memcmp(ip_of(g), no_address, 16))
		return;
	if (is_mapped(g)) {
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_addr, ip_of(g) + 12, 4);
		return;
	}
	v6->sin6_family = AF_INET6;
	memcpy(&v6->sin6_addr, ip_of(g), 16);
	if (is_link_local(g))
		v6->sin6_scope_id = g->interface;
}

bool rdma_gid_is_address(const struct rdma_gid *g, const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	if (a->ss_family == AF_INET)
		return is_mapped(g) && !memcmp(&v4->sin_addr, ip_of(g) + 12, 4);
	return a->ss_family == AF_INET6 && !memcmp(&v6->sin6_addr, ip_of(g), 16);
}

/* ret_why_not: a constant, where the answer is RANK_NONE. */
static enum rank rank_gid(const struct rdma_port *p, const struct rdma_gid *g,
			  const struct rdma_want *w, const char **ret_why_not)
{
	if (w->gid_index >= 0 && g->index != (unsigned)w->gid_index)
		return RANK_NONE;
	if (w->local && p->link == RDMA_LINK_IB && rdma_gid_is_address(g, w->local))
		return RANK_LOCAL;
	if (p->link == RDMA_LINK_IB)
		return RANK_IB;
	if (g->kind != RDMA_GID_ROCE_V2) {
		*ret_why_not = "has RoCE v1 only, which connections cannot be made with";
		return RANK_NONE;
	}
	if (g->elsewhere) {
		*ret_why_not = "has no address in this network namespace";
		return RANK_NONE;
	}
	if (w->local && rdma_gid_is_address(g, w->local))
		return RANK_LOCAL;
	if (is_mapped(g))
		return RANK_IPV4;
	return is_link_local(g) ? RANK_LINK_LOCAL : RANK_IPV6;
}

/* Is it the port "device" or "device:port"? */
static bool is_named(const struct rdma_port *p, const char *name)
{
	char full[RDMA_NAME + 16];

	snprintf(full, sizeof(full), "%s:%u", p->device, p->port);
	return !strcmp(name, p->device) || !strcmp(name, full);
}

static const char *why_not(const struct rdma_port *p)
{
	if (p->iwarp)
		return "is iWARP, which is not supported";
	if (!p->active)
		return "is not active";
	return p->link == RDMA_LINK_OTHER ? "is neither InfiniBand nor Ethernet" : NULL;
}

static void add_address(struct rdma_choice *c, const struct rdma_gid *g, bool best)
{
	struct rdma_address a = { .prefix_len = g->prefix_len, .interface = g->interface };

	rdma_gid_address(g, &a.address);
	if (a.address.ss_family == AF_UNSPEC)
		return;
	if (c->naddresses < RDMA_ADDRESSES_MAX)
		c->naddresses++;
	else if (!best)
		return;
	c->addresses[c->naddresses - 1] = a;
	if (best) {
		c->addresses[c->naddresses - 1] = c->addresses[0];
		c->addresses[0] = a;
	}
}

/* The port by the best of its GIDs. */
static enum rank consider(const struct rdma_port *p, const struct rdma_want *w,
			  struct rdma_choice *ret, const char **ret_why_not)
{
	enum rank best = RANK_NONE;

	*ret = (struct rdma_choice){ .port = p->port, .link = p->link };
	memcpy(ret->device, p->device, sizeof(ret->device));
	ret->is_near = w->numa_node >= 0 && p->numa_node == w->numa_node;
	for (unsigned i = 0; i < p->ngids; i++) {
		const struct rdma_gid *g = &p->gids[i];
		enum rank rank = rank_gid(p, g, w, ret_why_not);

		if (rank == RANK_NONE)
			continue;
		add_address(ret, g, rank > best);
		if (rank <= best)
			continue;
		best = rank;
		ret->gid_index = g->index;
		ret->reason = reasons[rank];
		rdma_gid_address(g, &ret->address);
	}
	if (best != RANK_LOCAL && w->gid_index >= 0)
		ret->reason = "this GID was asked for";
	else if (best != RANK_LOCAL && w->device)
		ret->reason = "this device was asked for";
	return best;
}

static void say(struct writer *w, const struct rdma_port *p, const char *what)
{
	write_format(w, "%s%s:%u %s", w->len ? "; " : "", p->device, p->port, what);
}

static int none(const struct rdma_want *w, struct writer *faults, char **ret_why)
{
	write_u8(faults, 0);
	const char *found = faults->bad ? "" : (const char *)faults->p;

	if (*found)
		return why(ret_why, -ENODEV, "no RDMA port can be used: %s. Try: slicefs doctor",
			   found);
	if (w->device)
		return why(ret_why, -ENODEV, "there is no RDMA device %s. Try: slicefs doctor",
			   w->device);
	return why(ret_why, -ENODEV, "there is no RDMA device on this host");
}

/* Greater is better. */
static unsigned worth(enum rank r, const struct rdma_choice *c)
{
	return (r == RANK_LOCAL ? 64 : 0) + (c->is_near ? 32 : 0) + r;
}

struct ranking {
	struct rdma_choice *v;
	unsigned worth[RDMA_CHOICES_MAX];
	unsigned n, max;
};

/* Behind its equals; the worst one falls out where there are too many. */
static void insert(struct ranking *l, const struct rdma_choice *c, unsigned value)
{
	unsigned at = l->n;

	while (at && l->worth[at - 1] < value)
		at--;
	if (at == l->max)
		return;
	if (l->n < l->max)
		l->n++;
	for (unsigned i = l->n - 1; i > at; i--) {
		l->v[i] = l->v[i - 1];
		l->worth[i] = l->worth[i - 1];
	}
	l->v[at] = *c;
	l->worth[at] = value;
}

int rdma_choose_all(const struct rdma_port *v, unsigned n, const struct rdma_want *w,
		    struct rdma_choice *ret, unsigned max, unsigned *ret_n, char **ret_why)
{
	_cleanup_(writer_fini) struct writer faults = { 0 };
	struct ranking l = { .v = ret, .max = max < RDMA_CHOICES_MAX ? max : RDMA_CHOICES_MAX };

	for (unsigned i = 0; i < n; i++) {
		const char *fault = why_not(&v[i]);
		struct rdma_choice c;
		enum rank rank = RANK_NONE;

		if (w->device && !is_named(&v[i], w->device))
			continue;
		if (!fault) {
			fault = w->gid_index < 0 ? "has no address" : "has no GID of that index";
			rank = consider(&v[i], w, &c, &fault);
		}
		if (rank == RANK_NONE)
			say(&faults, &v[i], fault);
		else
			insert(&l, &c, worth(rank, &c));
	}
	if (!l.n)
		return none(w, &faults, ret_why);
	*ret_n = l.n;
	return 0;
}

int rdma_choose(const struct rdma_port *v, unsigned n, const struct rdma_want *w,
		struct rdma_choice *ret, char **ret_why)
{
	unsigned one;

	return rdma_choose_all(v, n, w, ret, 1, &one, ret_why);
}

bool rdma_is_same_port(const struct rdma_choice *a, const struct rdma_choice *b)
{
	return a->port == b->port && !strcmp(a->device, b->device);
}

int rdma_find(const struct engine_rdma *o, const struct sockaddr_storage *local,
	      struct rdma_choice *ret, unsigned *ret_n, char **ret_why)
{
	struct rdma_want want = {
		.device = o->device,
		.gid_index = o->gid_given ? o->gid_index : -1,
		.local = local,
		.numa_node = rdma_numa_node(),
	};
	struct rdma_port *v = NULL;
	unsigned n = 0;
	int r = rdma_ports(&v, &n, ret_why);

	if (!r && !n)
		r = why(ret_why, -ENOENT, "there is no RDMA device on this host");
	if (!r)
		r = rdma_choose_all(v, n, &want, ret, RDMA_CHOICES_MAX, ret_n, ret_why);
	rdma_ports_free(v, n);
	return r;
}
