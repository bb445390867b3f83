/* SPDX-License-Identifier: Apache-2.0 */
/* Which ports and GIDs the devices of this host have. */
#include "engine/rdma_verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/error.h"

enum { GIDS_MAX = 1024 }; /* valid ones; a call of the kernel's takes 64 KiB at most */

struct list {
	struct rdma_port *v;
	unsigned n;
	size_t cap;
};

static void list_fini(struct list *l)
{
	rdma_ports_free(l->v, l->n);
}

static const char *state_name(enum ibv_port_state s)
{
	static const char *const names[] = { "unknown", "down",		"initializing",
					     "armed",	"active",	"deferred" };

	return s < sizeof(names) / sizeof(*names) ? names[s] : names[0];
}

static enum rdma_link link_of(const struct ibv_port_attr *a)
{
	if (a->link_layer == IBV_LINK_LAYER_ETHERNET)
		return RDMA_LINK_ETHERNET;
	/* Old drivers of InfiniBand say nothing. */
	return RDMA_LINK_IB;
}

static int number_in(const char *path)
{
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	int n = -1;

	return f && fscanf(f, "%d", &n) == 1 ? n : -1;
}

static int add_port(struct list *l, struct ibv_context *ctx, unsigned number)
{
	struct ibv_port_attr a;
	char path[IBV_SYSFS_PATH_MAX + 32];

	if (array_room(l->v, l->cap, l->n + 1, 4) < 0)
		return -ENOMEM;
	struct rdma_port *p = &l->v[l->n];
	*p = (struct rdma_port){ .port = number, .state = "unknown" };
	strncpy(p->device, ibv_get_device_name(ctx->device), sizeof(p->device) - 1);
	snprintf(path, sizeof(path), "%s/device/numa_node", ctx->device->ibdev_path);
	p->numa_node = number_in(path);
	l->n++;
	if (ibv_query_port(ctx, (uint8_t)number, &a))
		return 0;
	p->state = state_name(a.state);
	p->active = a.state == IBV_PORT_ACTIVE;
	p->iwarp = ctx->device->transport_type == IBV_TRANSPORT_IWARP;
	p->link = ctx->device->transport_type == IBV_TRANSPORT_IB ? link_of(&a) : RDMA_LINK_OTHER;
	p->mtu_bytes = 128u << a.active_mtu;
	return 0;
}

static struct rdma_gid gid_of(const struct ibv_gid_entry *e)
{
	struct rdma_gid g = { .index = e->gid_index, .interface = e->ndev_ifindex };

	g.kind = e->gid_type == IBV_GID_TYPE_ROCE_V2   ? RDMA_GID_ROCE_V2
		 : e->gid_type == IBV_GID_TYPE_ROCE_V1 ? RDMA_GID_ROCE_V1
						       : RDMA_GID_IB;
	memcpy(g.raw, &e->gid, sizeof(g.raw));
	return g;
}

static int add_gid(struct rdma_port *p, const struct ibv_gid_entry *e)
{
	struct rdma_gid *v = reallocarray(p->gids, p->ngids + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	p->gids = v;
	v[p->ngids++] = gid_of(e);
	return 0;
}

/* Those of the ports from `first` on, which are one device's. */
static int add_gids(struct list *l, unsigned first, struct ibv_context *ctx)
{
	_cleanup_(freep) struct ibv_gid_entry *v = calloc(GIDS_MAX, sizeof(*v));

	if (!v)
		return -ENOMEM;
	ssize_t n = ibv_query_gid_table(ctx, v, GIDS_MAX, 0);
	for (ssize_t i = 0; i < n; i++)
		for (unsigned k = first; k < l->n; k++)
			if (l->v[k].port == v[i].port_num && add_gid(&l->v[k], &v[i]) < 0)
				return -ENOMEM;
	return 0;
}

bool dev_has_address(struct rdma_dev *d)
{
	_cleanup_(freep) struct ibv_gid_entry *v = calloc(GIDS_MAX, sizeof(*v));
	ssize_t n = v ? ibv_query_gid_table(d->ctx, v, GIDS_MAX, 0) : -1;

	if (n < 0 || d->choice.link == RDMA_LINK_IB)
		return true; /* nobody knows */
	for (ssize_t i = 0; i < n; i++) {
		struct rdma_gid g = gid_of(&v[i]);
		if (v[i].port_num == d->choice.port && rdma_gid_is_address(&g, &d->choice.address))
			return true;
	}
	return false;
}

/* A device that cannot be opened, or is just going away, is left out. */
static int add_device(struct list *l, struct ibv_device *dev)
{
	struct ibv_context *ctx = ibv_open_device(dev);
	struct ibv_device_attr a;
	unsigned first = l->n;
	int r = 0;

	if (!ctx)
		return 0;
	if (!ibv_query_device(ctx, &a))
		for (unsigned i = 1; !r && i <= a.phys_port_cnt; i++)
			r = add_port(l, ctx, i);
	if (!r)
		r = add_gids(l, first, ctx);
	ibv_close_device(ctx);
	return r;
}

int rdma_ports(struct rdma_port **ret, unsigned *ret_n, char **ret_why)
{
	_cleanup_(list_fini) struct list l = { 0 };
	struct ibv_device **all = ibv_get_device_list(NULL);
	int r = 0;

	if (!all && errno == ENOMEM)
		return -ENOMEM;
	for (struct ibv_device **d = all; !r && d && *d; d++)
		r = add_device(&l, *d);
	if (all)
		ibv_free_device_list(all);
	if (r < 0)
		return why(ret_why, r, "no memory for the list of RDMA devices");
	rdma_ports_locate_here(l.v, l.n);
	*ret = l.v;
	*ret_n = l.n;
	l = (struct list){ 0 };
	return 0;
}
