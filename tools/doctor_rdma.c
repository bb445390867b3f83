/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA devices, by what sysfs says of them: so that something is said also where slicefs
 * was built without verbs, or where these do not see a device. Which port and GID would be
 * used is asked of the function that chooses them, rdma_choose(). With verbs
 * (d->ports()) the MTU in use is known, too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/doctor.h"

#define CLASS "/sys/class/infiniband"

enum {
	PORTS_MAX = 16,      /* of a device */
	GIDS_MAX = 1024,     /* of a port; rxe has as many */
	GIDS_SHOWN = 8,
	ROCE_HEADERS = 96,   /* what the kernel sets aside of the interface's MTU */
	ROCE_MTU_BEST = 4096,
};

/* Reading ---------------------------------------------------------------------------- */

static const char *state_name(int64_t state)
{
	static const char *const names[] = { "unknown", "down",   "initializing",
					     "armed",   "active", "deferred" };

	return state >= 0 && state < 6 ? names[state] : names[0];
}

static bool gid_kind(const struct sys *s, const struct rdma_port *p, unsigned index,
		     enum rdma_gid_kind *ret)
{
	char type[32];

	if (sys_text(s, type, sizeof(type), CLASS "/%s/ports/%u/gid_attrs/types/%u", p->device,
		     p->port, index) < 0)
		return false;
	*ret = !strcmp(type, "RoCE v2")		  ? RDMA_GID_ROCE_V2 :
	       p->link == RDMA_LINK_ETHERNET ? RDMA_GID_ROCE_V1 : RDMA_GID_IB;
	return true;
}

/* Of a GID, the number of its network interface; 0: none. */
static unsigned gid_interface(const struct sys *s, const struct rdma_port *p, unsigned index)
{
	char name[SYS_NAME];
	int64_t n = 0;

	if (sys_text(s, name, sizeof(name), CLASS "/%s/ports/%u/gid_attrs/ndevs/%u", p->device,
		     p->port, index) < 0 || strchr(name, '/') || !*name)
		return 0;
	return sys_number(s, &n, "/sys/class/net/%s/ifindex", name) ? (unsigned)n : 0;
}

static int add_gid(const struct sys *s, struct rdma_port *p, unsigned index)
{
	static const uint8_t none[16];
	struct rdma_gid g = { .index = index };
	char text[64];

	if (sys_text(s, text, sizeof(text), CLASS "/%s/ports/%u/gids/%u", p->device, p->port,
		     index) < 0 || inet_pton(AF_INET6, text, g.raw) != 1 ||
	    !memcmp(g.raw, none, sizeof(none)) || !gid_kind(s, p, index, &g.kind))
		return 0;
	g.interface = gid_interface(s, p, index);
	struct rdma_gid *v = reallocarray(p->gids, p->ngids + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	p->gids = v;
	v[p->ngids++] = g;
	return 0;
}

static void read_port(const struct sys *s, struct rdma_port *p)
{
	char link[32], type[32];
	int64_t state = 0;

	sys_number(s, &state, CLASS "/%s/ports/%u/state", p->device, p->port);
	sys_text(s, link, sizeof(link), CLASS "/%s/ports/%u/link_layer", p->device, p->port);
	sys_text(s, type, sizeof(type), CLASS "/%s/node_type", p->device);
	p->state = state_name(state);
	p->active = state == 4;
	p->iwarp = strstr(type, "RNIC") != NULL;
	p->link = p->iwarp ? RDMA_LINK_OTHER :
		  !strcmp(link, "Ethernet") ? RDMA_LINK_ETHERNET :
		  !strcmp(link, "InfiniBand") ? RDMA_LINK_IB : RDMA_LINK_OTHER;
}

/* The table has no gaps in its numbers: what is not in use is zero, or has no type. */
static int read_gids(const struct sys *s, struct rdma_port *p)
{
	int r = 0;

	for (unsigned i = 0; !r && i < GIDS_MAX; i++) {
		if (!sys_exists(s, CLASS "/%s/ports/%u/gids/%u", p->device, p->port, i))
			break;
		r = add_gid(s, p, i);
	}
	return r;
}

static int add_ports(const struct sys *s, const char *device, struct rdma_port **v, unsigned *n)
{
	for (unsigned port = 1; port <= PORTS_MAX; port++) {
		if (!sys_exists(s, CLASS "/%s/ports/%u", device, port))
			continue;
		struct rdma_port *more = reallocarray(*v, *n + 1, sizeof(**v));
		if (!more)
			return -ENOMEM;
		*v = more;
		struct rdma_port *p = &more[(*n)++];
		*p = (struct rdma_port){ .port = port, .numa_node = -1 };
		snprintf(p->device, sizeof(p->device), "%s", device);
		read_port(s, p);
		int r = read_gids(s, p);
		if (r < 0)
			return r;
	}
	return 0;
}

int doctor_rdma_ports(const struct sys *s, const struct sys_names *devices,
		      struct rdma_port **ret, unsigned *ret_n)
{
	struct rdma_port *v = NULL;
	unsigned n = 0;
	int r = 0;

	for (unsigned i = 0; !r && i < devices->n; i++)
		r = add_ports(s, devices->v[i], &v, &n);
	if (r < 0) {
		rdma_ports_free(v, n);
		return r;
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

/* What was built in, and loaded --------------------------------------------------------- */

/* The ports that verbs see get their MTU; one that they do not see is told of. */
static void ask_verbs(struct doctor *d, struct rdma_port *v, unsigned n)
{
	_cleanup_(freep) char *why = NULL;
	struct rdma_port *seen = NULL;
	unsigned nseen = 0;
	const char *missing = NULL;
	int r = d->ports(&seen, &nseen, &why);

	if (r < 0) {
		report_add(&d->report, d->rdma_devices.n ? CHECK_WARN : CHECK_SKIPPED,
			   "rdma library", "%s", r == -EOPNOTSUPP ?
			   "libibverbs and librdmacm are not built in: bytes go by TCP" :
			   why ? why : error_text(r));
		if (r == -EOPNOTSUPP && d->rdma_devices.n)
			report_try(&d->report, "apt-get install libibverbs-dev librdmacm-dev, and "
				   "build slicefs again");
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		bool found = false;
		for (unsigned k = 0; k < nseen; k++) {
			if (strcmp(v[i].device, seen[k].device) || v[i].port != seen[k].port)
				continue;
			found = true;
			v[i].mtu_bytes = seen[k].mtu_bytes;
		}
		missing = found ? missing : v[i].device;
	}
	rdma_ports_free(seen, nseen);
	report_add(&d->report, missing ? CHECK_BAD : CHECK_OK, "rdma library", "libibverbs and "
		   "librdmacm are built in%s%s", missing ? ", and do not see " : "",
		   missing ? missing : "");
	if (missing)
		report_try(&d->report, "apt-get install ibverbs-providers");
}

static void check_modules(struct doctor *d)
{
	static const struct {
		const char *name, *class;
	} modules[] = {
		{ "ib_uverbs", "/sys/class/infiniband_verbs" },
		{ "rdma_cm", "/sys/class/misc/rdma_cm" },
		{ "rdma_ucm", "/sys/class/misc/rdma_cm" },
	};
	char missing[64] = "";

	/* Built into the kernel they show by what they make only. */
	for (unsigned i = 0; i < 3; i++)
		if (!sys_exists(&d->sys, "/sys/module/%s", modules[i].name) &&
		    !sys_exists(&d->sys, "%s", modules[i].class))
			snprintf(missing + strlen(missing), sizeof(missing) - strlen(missing),
				 " %s", modules[i].name);
	if (!*missing) {
		report_add(&d->report, CHECK_OK, "rdma modules", "ib_uverbs, rdma_cm and rdma_ucm "
			   "are loaded");
		return;
	}
	report_add(&d->report, CHECK_BAD, "rdma modules", "not loaded:%s", missing);
	report_try(&d->report, "modprobe -a%s", missing);
}

/* One file in /dev; its name is prefixed to what is wrong with it. */
static int add_access(struct doctor *d, const char *name, char *ret, size_t len)
{
	int r = sys_access(&d->sys, R_OK | W_OK, "/dev/infiniband/%s", name);

	if (r < 0)
		snprintf(ret + strlen(ret), len - strlen(ret), " /dev/infiniband/%s", name);
	return r;
}

static void check_access(struct doctor *d)
{
	_cleanup_(freep) struct sys_names *verbs = malloc(sizeof(*verbs));
	char wrong[512] = "";
	int r;

	if (!verbs)
		return;
	sys_names(&d->sys, verbs, "/sys/class/infiniband_verbs");
	r = add_access(d, "rdma_cm", wrong, sizeof(wrong));
	for (unsigned i = 0; i < verbs->n; i++) {
		if (strncmp(verbs->v[i], "uverbs", 6))
			continue;
		int one = add_access(d, verbs->v[i], wrong, sizeof(wrong));
		r = one ? one : r;
	}
	if (!*wrong) {
		report_add(&d->report, CHECK_OK, "rdma access", "/dev/infiniband/rdma_cm and "
			   "uverbs* can be read and written");
		return;
	}
	report_add(&d->report, CHECK_BAD, "rdma access", "%s:%s", error_text(r), wrong);
	if (r == -EACCES || r == -EPERM)
		report_try(&d->report, "as root: chmod a+rw%s", wrong);
	else
		report_try(&d->report, "as root: udevadm trigger --subsystem-match=infiniband_verbs "
			   "--subsystem-match=misc; in a container: --device /dev/infiniband");
}

/* Ports ------------------------------------------------------------------------------- */

/* Its network interface, of one of its GIDs or of its device. False: none. */
static bool interface_of(const struct sys *s, const struct rdma_port *p, char ret[SYS_NAME])
{
	struct sys_names *names;
	bool found = false;

	for (unsigned i = 0; i < p->ngids; i++)
		if (sys_text(s, ret, SYS_NAME, CLASS "/%s/ports/%u/gid_attrs/ndevs/%u", p->device,
			     p->port, p->gids[i].index) == 0 && *ret)
			return true;
	names = malloc(sizeof(*names));
	if (!names)
		return false;
	sys_names(s, names, CLASS "/%s/device/net", p->device);
	if (names->n) {
		snprintf(ret, SYS_NAME, "%s", names->v[0]);
		found = true;
	}
	free(names);
	return found;
}

static void check_down(struct doctor *d, const struct rdma_port *p, const char *name)
{
	char interface[SYS_NAME];

	report_add(&d->report, CHECK_WARN, name, "%s, %s", p->state, rdma_link_name(p->link));
	if (p->link == RDMA_LINK_IB && !strcmp(p->state, "down"))
		report_try(&d->report, "ibportstate -C %s -D 0 %u enable, if its cable is in",
			   p->device, p->port);
	else if (p->link == RDMA_LINK_IB)
		report_try(&d->report, "systemctl start opensm, on one host of the fabric");
	else if (interface_of(&d->sys, p, interface))
		report_try(&d->report, "ip link set dev %s up", interface);
}

/* The largest packet of RDMA that packets of so many bytes can carry. */
static unsigned roce_mtu(int64_t interface_mtu)
{
	unsigned mtu = ROCE_MTU_BEST;

	while (mtu > 256 && mtu + ROCE_HEADERS > interface_mtu)
		mtu /= 2;
	return mtu;
}

static void check_roce(struct doctor *d, const struct rdma_port *p, const char *name,
		       const char *rate)
{
	char interface[SYS_NAME] = "";
	int64_t mtu = 0;

	interface_of(&d->sys, p, interface);
	if (!*interface || !sys_number(&d->sys, &mtu, "/sys/class/net/%s/mtu", interface)) {
		report_add(&d->report, CHECK_OK, name, "active, Ethernet, %s", rate);
		return;
	}
	unsigned can = roce_mtu(mtu), is = p->mtu_bytes ? p->mtu_bytes : can;
	bool best = is == ROCE_MTU_BEST;
	report_add(&d->report, best ? CHECK_OK : CHECK_WARN, name, "active, Ethernet, %s, MTU %u "
		   "of %u: %s has %lld", rate, is, ROCE_MTU_BEST, interface, (long long)mtu);
	if (!best)
		report_try(&d->report, "ip link set dev %s mtu 9000, on both hosts and the switch "
			   "between them", interface);
}

static void check_port(struct doctor *d, const struct rdma_port *p)
{
	char name[RDMA_NAME + 32], rate[64];

	snprintf(name, sizeof(name), "rdma port %s:%u", p->device, p->port);
	if (sys_text(&d->sys, rate, sizeof(rate), CLASS "/%s/ports/%u/rate", p->device,
		     p->port) < 0)
		snprintf(rate, sizeof(rate), "rate unknown");
	if (!p->active)
		check_down(d, p, name);
	else if (p->link == RDMA_LINK_ETHERNET)
		check_roce(d, p, name, rate);
	else if (p->mtu_bytes)
		report_add(&d->report, CHECK_OK, name, "active, %s, %s, MTU %u",
			   rdma_link_name(p->link), rate, p->mtu_bytes);
	else
		report_add(&d->report, CHECK_OK, name, "active, %s, %s", rdma_link_name(p->link),
			   rate);
}

/* GIDs -------------------------------------------------------------------------------- */

static void gid_text(const struct rdma_port *p, const struct rdma_gid *g, char *ret, size_t len)
{
	struct sockaddr_storage a;

	*ret = '\0';
	rdma_gid_address(g, &a);
	if (p->link == RDMA_LINK_ETHERNET && a.ss_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, ret, (socklen_t)len);
	else
		inet_ntop(AF_INET6, g->raw, ret, (socklen_t)len);
}

static void list_gids(struct doctor *d, const struct rdma_port *p, const struct rdma_choice *c)
{
	bool ours = c && !strcmp(c->device, p->device) && c->port == p->port;
	char name[RDMA_NAME + 32], text[INET6_ADDRSTRLEN];
	unsigned shown = 0;

	snprintf(name, sizeof(name), "rdma gid %s:%u", p->device, p->port);
	for (unsigned i = 0; i < p->ngids; i++) {
		const struct rdma_gid *g = &p->gids[i];
		bool chosen = ours && g->index == c->gid_index;
		if (shown == GIDS_SHOWN && !chosen)
			continue;
		shown += !chosen;
		gid_text(p, g, text, sizeof(text));
		report_add(&d->report, CHECK_OK, name, "%u: %s, %s%s", g->index, text,
			   rdma_gid_kind_name(g->kind), chosen ? ", chosen" : "");
	}
	if (!p->ngids)
		report_add(&d->report, CHECK_WARN, name, "none: its interface has no address");
	else if (p->ngids > GIDS_SHOWN + 1)
		report_add(&d->report, CHECK_OK, name, "%u in all", p->ngids);
}

/* What the first port lacks that could be used. */
static void try_choice(struct doctor *d, const struct rdma_port *v, unsigned n)
{
	char interface[SYS_NAME];

	for (unsigned i = 0; i < n; i++) {
		if (v[i].link != RDMA_LINK_ETHERNET || !interface_of(&d->sys, &v[i], interface))
			continue;
		if (v[i].active)
			report_try(&d->report, "ip address add ADDRESS/24 dev %s", interface);
		else
			report_try(&d->report, "ip link set dev %s up", interface);
		return;
	}
	report_try(&d->report, "what is said of its ports; until then bytes go by TCP");
}

static void check_choice(struct doctor *d, const struct rdma_port *v, unsigned n)
{
	_cleanup_(freep) char *why = NULL;
	struct rdma_want want = { .numa_node = -1, .gid_index = -1 };
	struct rdma_choice c;
	int r = rdma_choose(v, n, &want, &c, &why);

	for (unsigned i = 0; i < n; i++)
		list_gids(d, &v[i], r < 0 ? NULL : &c);
	if (r < 0) {
		/* Its advice is to ask the doctor. */
		char *end = why ? strstr(why, ". Try: ") : NULL;
		if (end)
			*end = '\0';
		report_add(&d->report, CHECK_BAD, "rdma choice", "%s", why ? why : error_text(r));
		try_choice(d, v, n);
		return;
	}
	report_add(&d->report, CHECK_OK, "rdma choice", "%s:%u, GID %u: %s", c.device, c.port,
		   c.gid_index, c.reason);
}

/* All of it ---------------------------------------------------------------------------- */

static void skip_all(struct doctor *d)
{
	static const char *const checks[] = { "rdma modules", "rdma access", "rdma choice" };

	report_add(&d->report, CHECK_SKIPPED, "rdma devices", "none on this host: bytes go by TCP");
	for (unsigned i = 0; i < 3; i++)
		report_add(&d->report, CHECK_SKIPPED, checks[i], "there is no RDMA device");
}

static void list_devices(struct doctor *d)
{
	char names[512] = "";

	for (unsigned i = 0; i < d->rdma_devices.n; i++)
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
			 i ? ", " : "", d->rdma_devices.v[i]);
	report_add(&d->report, CHECK_OK, "rdma devices", "%u: %s", d->rdma_devices.n, names);
}

void doctor_rdma(struct doctor *d)
{
	struct rdma_port *v = NULL;
	unsigned n = 0;

	sys_names(&d->sys, &d->rdma_devices, CLASS);
	if (!d->rdma_devices.n) {
		ask_verbs(d, NULL, 0);
		skip_all(d);
		return;
	}
	if (doctor_rdma_ports(&d->sys, &d->rdma_devices, &v, &n) < 0) {
		report_add(&d->report, CHECK_SKIPPED, "rdma devices", "out of memory");
		return;
	}
	if (!*d->sys.root)
		rdma_ports_locate_here(v, n);
	ask_verbs(d, v, n);
	list_devices(d);
	check_modules(d);
	check_access(d);
	for (unsigned i = 0; i < n; i++)
		check_port(d, &v[i]);
	check_choice(d, v, n);
	rdma_ports_free(v, n);
}
