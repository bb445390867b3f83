/* SPDX-License-Identifier: Apache-2.0 */
/* The network that TCP goes through: speed of the link, size of packets, buffers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "common/clock.h"
#include "common/cleanup.h"
#include "common/size.h"
#include "tools/doctor.h"

enum {
	FAST_MBIT = 10000,
	USUAL_TRIP_US = 200, /* within a data centre, under load */
};

int64_t doctor_link_speed(const struct sys *s, const char *interface)
{
	int64_t v;

	return *interface && sys_number(s, &v, "/sys/class/net/%s/speed", interface) && v > 0 ? v :
											      0;
}

void doctor_link_mtu(struct doctor *d, uint32_t mtu_bytes)
{
	int64_t speed = doctor_link_speed(&d->sys, d->interface);
	char through[SYS_NAME + 64] = "";

	if (!mtu_bytes) {
		report_add(&d->report, CHECK_SKIPPED, "path MTU", "the kernel does not know it");
		return;
	}
	bool small = mtu_bytes <= 1500 && speed >= FAST_MBIT;
	if (speed)
		snprintf(through, sizeof(through), " by %s, %" PRId64 " Mbit/s", d->interface,
			 speed);
	else if (*d->interface)
		snprintf(through, sizeof(through), " by %s", d->interface);
	report_add(&d->report, small ? CHECK_WARN : CHECK_OK, "path MTU", "%u bytes%s%s", mtu_bytes,
		   through, small ? ": larger packets would take less processor time" : "");
	if (small)
		report_try(&d->report, "ip link set dev %s mtu 9000, on both hosts and the switch "
			   "between them", d->interface);
}

/* The interface towards the node, or else the fastest that is up. */
static int64_t fastest(struct doctor *d)
{
	_cleanup_(freep) struct sys_names *names = malloc(sizeof(*names));
	int64_t most = 0;

	if (*d->interface)
		return doctor_link_speed(&d->sys, d->interface);
	if (!names)
		return 0;
	sys_names(&d->sys, names, "/sys/class/net");
	for (unsigned i = 0; i < names->n; i++) {
		char state[16];
		if (!sys_text(&d->sys, state, sizeof(state), "/sys/class/net/%s/operstate",
			      names->v[i]) && !strcmp(state, "up"))
			most = MAX(most, doctor_link_speed(&d->sys, names->v[i]));
	}
	return most;
}

/* The third of "4096 131072 6291456": how far the kernel lets a buffer grow. */
static bool buffer_max(const struct sys *s, const char *name, long long *ret)
{
	char text[128];

	return sys_text(s, text, sizeof(text), "/proc/sys/net/ipv4/%s", name) == 0 &&
	       sscanf(text, "%*d %*d %lld", ret) == 1 && *ret > 0;
}

static void check_buffer(struct doctor *d, const char *name, const char *first, int64_t speed,
			 uint64_t trip_ns)
{
	/* Half of a buffer is for the kernel's own records. */
	uint64_t need = (uint64_t)speed / 8 * trip_ns / 1000 * 2;
	char check[64];
	long long max;

	snprintf(check, sizeof(check), "net.ipv4.%s", name);
	if (!buffer_max(&d->sys, name, &max)) {
		report_add(&d->report, CHECK_SKIPPED, check, "not known");
		return;
	}
	bool enough = (uint64_t)max >= need;
	report_add(&d->report, enough ? CHECK_OK : CHECK_WARN, check, "buffers grow to %s%s%s",
		   size_text((uint64_t)max).s,
		   enough ? "" : "; this link and distance fill ",
		   enough ? "" : size_text(need).s);
	if (!enough)
		report_try(&d->report, "as root: sysctl net.ipv4.%s='%s %" PRIu64 "'", name, first,
			   need);
}

static void check_core(struct doctor *d)
{
	int64_t r, w;

	if (sys_number(&d->sys, &r, "/proc/sys/net/core/rmem_max") &&
	    sys_number(&d->sys, &w, "/proc/sys/net/core/wmem_max"))
		report_add(&d->report, CHECK_OK, "net.core", "rmem_max %s, wmem_max %s; slicefs "
			   "leaves buffers to the kernel, so tcp_rmem and tcp_wmem count",
			   size_text((uint64_t)r).s, size_text((uint64_t)w).s);
	else
		report_add(&d->report, CHECK_SKIPPED, "net.core", "not known");
}

void doctor_sockets(struct doctor *d)
{
	int64_t speed = fastest(d);
	uint64_t trip = MAX(d->round_trip_ns, (uint64_t)USUAL_TRIP_US * 1000);

	check_core(d);
	check_buffer(d, "tcp_rmem", "4096 131072", speed, trip);
	check_buffer(d, "tcp_wmem", "4096 16384", speed, trip);
}
