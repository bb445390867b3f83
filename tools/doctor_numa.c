/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where network cards are, and where a pool's memory and the threads that serve it may be.
 * On a host of one node there is nothing to find.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "tools/doctor.h"

#define NODES "/sys/devices/system/node"

struct numa {
	char online[128];    /* "0-1" */
	char cpus[256];      /* that this process may use */
	char mems[128];      /* nodes whose memory it may use */
};

/* Which of the nodes, as numa_node of a device says; -1: none. */
static int64_t node_of(const struct sys *s, const char *class, const char *device)
{
	int64_t n = -1;

	return sys_number(s, &n, "/sys/class/%s/%s/device/numa_node", class, device) ? n : -1;
}

/* The greatest distance from node n to one whose memory may be used; 10 is its own. */
static unsigned long farthest(const struct sys *s, const struct numa *x, unsigned n)
{
	char text[1024], *at = text;
	unsigned long most = 0;

	if (sys_text(s, text, sizeof(text), NODES "/node%u/distance", n) < 0)
		return 0;
	for (unsigned to = 0; *at; to++) {
		char *end;
		unsigned long v = strtoul(at, &end, 10);
		if (end == at)
			break;
		if (sys_list_has(x->mems, to) && v > most)
			most = v;
		at = end;
	}
	return most;
}

static uint64_t memory_of(const struct sys *s, unsigned node)
{
	char name[64], text[64];

	snprintf(name, sizeof(name), "Node %u MemTotal:", node);
	if (!sys_field(s, name, text, sizeof(text), NODES "/node%u/meminfo", node))
		return 0;
	return strtoull(text, NULL, 10) * 1024;
}

static void check_card(struct doctor *d, const struct numa *x, const char *class,
		       const char *device)
{
	int64_t node = node_of(&d->sys, class, device);
	char name[SYS_NAME + 16], cpus[256], only[16];

	snprintf(name, sizeof(name), "numa %s", device);
	if (node < 0 || sys_text(&d->sys, cpus, sizeof(cpus), NODES "/node%u/cpulist",
				 (unsigned)node) < 0) {
		report_add(&d->report, CHECK_OK, name, "it does not say which node it is at");
		return;
	}
	snprintf(only, sizeof(only), "%u", (unsigned)node);
	if (sys_list_within(x->cpus, cpus) && sys_list_within(x->mems, only)) {
		report_add(&d->report, CHECK_OK, name, "at node %s, as all memory and threads from "
			   "here", only);
		return;
	}
	uint64_t has = memory_of(&d->sys, (unsigned)node);
	bool fits = d->pool_bytes <= has;
	report_add(&d->report, CHECK_WARN, name, "at node %s; memory may be on %s (distance up to "
		   "%lu, 10 is near), threads on processors %s%s", only, x->mems,
		   farthest(&d->sys, x, (unsigned)node), x->cpus,
		   fits ? "" : "; the pool does not fit on its node alone");
	report_try(&d->report, "numactl --cpunodebind=%s --%s=%s slicefs serve, with its options",
		   only, fits ? "membind" : "preferred", only);
}

/* Where there is no RDMA: the one towards the node, or all that are up and no software. */
static unsigned check_interfaces(struct doctor *d, const struct numa *x)
{
	_cleanup_(freep) struct sys_names *names = malloc(sizeof(*names));
	unsigned n = 0;

	if (!names)
		return 0;
	sys_names(&d->sys, names, "/sys/class/net");
	for (unsigned i = 0; i < names->n; i++) {
		char state[16];
		const char *name = names->v[i];
		if (!sys_exists(&d->sys, "/sys/class/net/%s/device", name) ||
		    (*d->interface && strcmp(d->interface, name)) ||
		    sys_text(&d->sys, state, sizeof(state), "/sys/class/net/%s/operstate", name) ||
		    strcmp(state, "up"))
			continue;
		check_card(d, x, "net", name);
		n++;
	}
	return n;
}

static void no_card(struct doctor *d, const struct numa *x)
{
	report_add(&d->report, CHECK_WARN, "numa cards", "no network card says which node it is at");
	report_try(&d->report, "numactl --interleave=%s slicefs serve, with its options",
		   x->online);
}

void doctor_numa(struct doctor *d)
{
	struct numa x;
	unsigned n;

	if (sys_text(&d->sys, x.online, sizeof(x.online), NODES "/online") < 0 ||
	    (n = sys_list_count(x.online)) < 2) {
		report_add(&d->report, CHECK_OK, "numa", "one node");
		return;
	}
	if (!sys_field(&d->sys, "Cpus_allowed_list:", x.cpus, sizeof(x.cpus), "/proc/self/status"))
		sys_text(&d->sys, x.cpus, sizeof(x.cpus), "/sys/devices/system/cpu/online");
	if (!sys_field(&d->sys, "Mems_allowed_list:", x.mems, sizeof(x.mems), "/proc/self/status"))
		snprintf(x.mems, sizeof(x.mems), "%s", x.online);
	report_add(&d->report, CHECK_OK, "numa", "%u nodes, %s", n, x.online);
	for (unsigned i = 0; i < d->rdma_devices.n; i++)
		check_card(d, &x, "infiniband", d->rdma_devices.v[i]);
	if (!d->rdma_devices.n && !check_interfaces(d, &x))
		no_card(d, &x);
}
