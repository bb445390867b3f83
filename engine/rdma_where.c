/* SPDX-License-Identifier: Apache-2.0 */
/* Where ports are, by the addresses of interfaces, and where this process is. */
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "engine/rdma_port.h"

enum { NODES_MAX = 256 };

static bool is_mapped(const uint8_t ip[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(ip, prefix, sizeof(prefix));
}

static bool is_link_local(const uint8_t ip[16])
{
	return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

/* As in a GID. False: no IP address. */
static bool address_bytes(const struct sockaddr *a, uint8_t ret[16])
{
	if (a && a->sa_family == AF_INET) {
		memset(ret, 0, 10);
		ret[10] = ret[11] = 0xff;
		memcpy(ret + 12, &((const struct sockaddr_in *)a)->sin_addr, 4);
	} else if (a && a->sa_family == AF_INET6) {
		memcpy(ret, &((const struct sockaddr_in6 *)a)->sin6_addr, 16);
	} else {
		return false;
	}
	return true;
}

/* Of 128 bits. */
static unsigned prefix_len(const struct ifaddrs *i)
{
	uint8_t mask[16];
	unsigned bits = 0;

	if (!address_bytes(i->ifa_netmask, mask))
		return 128;
	if (i->ifa_addr->sa_family == AF_INET)
		memset(mask, 0xff, 12);
	while (bits < 128 && mask[bits / 8] & 0x80 >> bits % 8)
		bits++;
	return bits;
}

static bool is_of(const struct ifaddrs *i, const struct rdma_gid *g)
{
	uint8_t bytes[16];

	if (!address_bytes(i->ifa_addr, bytes) || memcmp(bytes, g->raw, 16))
		return false;
	return !is_link_local(g->raw) || !g->interface ||
	       ((const struct sockaddr_in6 *)i->ifa_addr)->sin6_scope_id == g->interface;
}

static void locate_roce(struct rdma_gid *g, const struct ifaddrs *i)
{
	while (i && !is_of(i, g))
		i = i->ifa_next;
	g->elsewhere = !i;
	g->prefix_len = i ? prefix_len(i) : 0;
}

/* Its hardware address is 4 bytes and the GID. */
static bool is_ipoib(const struct ifaddrs *i, const struct rdma_gid *g)
{
	const struct sockaddr_ll *a = (const struct sockaddr_ll *)i->ifa_addr;

	return a && a->sll_family == AF_PACKET && a->sll_halen == 20 &&
	       !memcmp(a->sll_addr + 4, g->raw, 16);
}

/* IPv4 before IPv6, link-local addresses not at all. */
static void locate_ib(struct rdma_gid *g, const struct ifaddrs *all)
{
	const struct ifaddrs *own = all;

	while (own && !is_ipoib(own, g))
		own = own->ifa_next;
	if (!own)
		return;
	g->interface = (unsigned)((const struct sockaddr_ll *)own->ifa_addr)->sll_ifindex;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		struct rdma_gid found = *g;

		if (strcmp(i->ifa_name, own->ifa_name) ||
		    !address_bytes(i->ifa_addr, found.ip) || is_link_local(found.ip) ||
		    is_mapped(g->ip))
			continue;
		found.prefix_len = prefix_len(i);
		*g = found;
	}
}

void rdma_ports_locate(struct rdma_port *v, unsigned n, const struct ifaddrs *interfaces)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < v[i].ngids; k++)
			if (v[i].gids[k].kind == RDMA_GID_IB)
				locate_ib(&v[i].gids[k], interfaces);
			else
				locate_roce(&v[i].gids[k], interfaces);
}

void rdma_ports_locate_here(struct rdma_port *v, unsigned n)
{
	struct ifaddrs *interfaces;

	if (getifaddrs(&interfaces) < 0)
		return;
	rdma_ports_locate(v, n, interfaces);
	freeifaddrs(interfaces);
}

/* This process ---------------------------------------------------------------------------- */

/* How many of these a list of the kernel's has, as "0-3,8". */
static int share_of(const char *list, const cpu_set_t *cpus)
{
	int from, to, n, found = 0;

	for (; sscanf(list, "%d%n", &from, &n) == 1; list += *list == ',') {
		list += n;
		to = from;
		if (*list == '-' && sscanf(list + 1, "%d%n", &to, &n) == 1)
			list += n + 1;
		for (int i = from; i <= to && i < CPU_SETSIZE; i++)
			found += CPU_ISSET(i, cpus) != 0;
	}
	return found;
}

int rdma_numa_node(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(getpid(), sizeof(cpus), &cpus) < 0)
		return -1;
	for (int node = 0; node < NODES_MAX; node++) {
		char path[64], list[4096] = "";
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
		_cleanup_(fclosep) FILE *f = fopen(path, "re");
		if (!f || !fgets(list, sizeof(list), f))
			continue;
		int found = share_of(list, &cpus);
		if (found)
			return found == CPU_COUNT(&cpus) ? node : -1;
	}
	return -1;
}
