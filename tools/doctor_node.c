/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node, from the first to the last thing that a mount needs of it. What comes behind
 * a step that failed is skipped, so that the lines are the same each time.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/size.h"
#include "common/stream.h"
#include "tools/doctor.h"

enum { PINGS = 100, MOVE_MS = 1000 };

static const char *const steps[] = {
	"node name", "node port", "path MTU", "node token", "node session", "node ping",
	"tcp write", "tcp read", "rdma way", "rdma ping", "rdma write", "rdma read",
	"rdma requests",
};

enum { NSTEPS = sizeof(steps) / sizeof(steps[0]) };

/* All from this step on. */
static void skip_from(struct doctor *d, const char *step, const char *why)
{
	bool on = false;

	for (unsigned i = 0; i < NSTEPS; i++) {
		on |= !strcmp(steps[i], step);
		if (on)
			report_add(&d->report, CHECK_SKIPPED, steps[i], "%s", why);
	}
}

/* Reaching it ------------------------------------------------------------------------- */

static bool find(struct doctor *d, const char *node, struct sockaddr_storage *ret)
{
	char name[STREAM_NAME];
	int r = probe_find(node, d->timeout_ms, ret);

	if (!r) {
		stream_name(ret, name);
		report_add(&d->report, CHECK_OK, "node name", "%s is %s", node, name);
		return true;
	}
	report_add(&d->report, CHECK_BAD, "node name", "%s: %s", node,
		   r == -ENOENT ? "no such host" : r == -EINVAL ? "not HOST or HOST:PORT" :
		   r == -ETIMEDOUT ? "name servers do not answer" : error_text(r));
	report_try(&d->report, r == -ETIMEDOUT ? "cat /etc/resolv.conf, or an address for the name"
					       : "getent hosts NAME, or an address for the name");
	return false;
}

static bool same_host(const struct sockaddr *a, const struct sockaddr_storage *b)
{
	if (!a || a->sa_family != b->ss_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return a->sa_family == AF_INET6 &&
	       !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
		       &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr));
}

/* The interface that has our end's address. */
static void note_interface(struct doctor *d, const struct sockaddr_storage *local)
{
	struct ifaddrs *all;

	if (getifaddrs(&all) < 0)
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next)
		if (same_host(i->ifa_addr, local) && strlen(i->ifa_name) < sizeof(d->interface))
			strcpy(d->interface, i->ifa_name);
	freeifaddrs(all);
}

static unsigned port_of(const struct sockaddr_storage *at)
{
	return ntohs(at->ss_family == AF_INET ? ((const struct sockaddr_in *)at)->sin_port :
						((const struct sockaddr_in6 *)at)->sin6_port);
}

static bool reach(struct doctor *d, const struct sockaddr_storage *at, struct probe_path *ret)
{
	int r = probe_reach(at, d->timeout_ms, ret);

	if (!r) {
		report_add(&d->report, CHECK_OK, "node port", "%s: connected after %.2f ms",
			   ret->name, (double)ret->connect_ns / 1e6);
		note_interface(d, &ret->local);
		doctor_link_mtu(d, ret->mtu_bytes);
		return true;
	}
	bool silent = r == -ETIMEDOUT;
	report_add(&d->report, CHECK_BAD, "node port", "%s", silent ?
		   "nothing answers: the host is down, or a firewall drops it" : error_text(r));
	if (silent)
		report_try(&d->report, "there: iptables -I INPUT -p tcp --dport %u -j ACCEPT",
			   port_of(at));
	else if (stream_is_loopback(at))
		report_try(&d->report, "slicefs serve --listen 127.0.0.1:%u", port_of(at));
	else
		report_try(&d->report, "there: slicefs serve --listen 0.0.0.0:%u --token-file PATH",
			   port_of(at));
	return false;
}

/* Being let in ------------------------------------------------------------------------ */

static void not_let_in(struct doctor *d, int r, const char *why, const char *token_file)
{
	bool token = r == -EKEYREJECTED || r == -EBADF;
	const char *check = token ? "node token" : "node session";

	if (!token)
		report_add(&d->report, CHECK_SKIPPED, "node token", "the node did not say");
	report_add(&d->report, CHECK_BAD, check, "%s", why ? why : error_text(r));
	if (r == -EKEYREJECTED)
		report_try(&d->report, token_file ?
			   "slicefs doctor without --token-file, or with that of the node" :
			   "slicefs doctor --token-file PATH, with a copy of the node's");
	else if (r == -ETIMEDOUT)
		report_try(&d->report, "there: kill -CONT its process, which slicefs store ls shows, "
			   "or kill -9 it and slicefs serve again");
	else if (r == -EPROTONOSUPPORT)
		report_try(&d->report, "slicefs version, here and there: install the same");
	else
		report_try(&d->report, "there: journalctl -u slicefs-node, or its --log, which say "
			   "why");
	if (token)
		skip_from(d, "node session", "it does not let us in");
	else
		skip_from(d, "node ping", "there is no session");
}

/* What it says may end in ". Try: ..."; a line has a place of its own for that. */
static bool let_in(struct doctor *d, const char *name, const char *token_file, struct probe **ret)
{
	_cleanup_(freep) char *why = NULL;
	int r = probe_open(name, token_file, d->timeout_ms, ret, &why);

	if (r < 0) {
		char *end = why && r != -EBADF ? strstr(why, ". Try: ") : NULL;
		if (end)
			*end = '\0';
		not_let_in(d, r, why, token_file);
		return false;
	}
	report_add(&d->report, CHECK_OK, "node token", "%s", token_file ?
		   "both have the same" : "the node wants none, and lets anybody in who reaches it");
	return true;
}

/* Using it ---------------------------------------------------------------------------- */

static void no_answer(struct doctor *d, const char *check, int r)
{
	report_add(&d->report, CHECK_BAD, check, "%s",
		   r == -ETIMEDOUT ? "it stopped answering" :
		   r == -ENOTCONN ? "the session has ended" : error_text(r));
	report_try(&d->report, "there: kill -CONT its process, which slicefs store ls shows, or "
		   "its log");
}

static bool session(struct doctor *d, struct probe *p)
{
	struct probe_node n;
	int r = probe_node(p, &n);

	if (r < 0) {
		no_answer(d, "node session", r);
		return false;
	}
	report_add(&d->report, CHECK_OK, "node session", "number %llu, protocol version %u, %u data "
		   "connections; pool of %s, %s free", (unsigned long long)n.session, n.version,
		   n.lanes, size_text(n.pool_bytes).s, size_text(n.free_bytes).s);
	return true;
}

static void pinged(struct doctor *d, const char *check, const char *what,
		   const struct probe_pings *m)
{
	report_add(&d->report, CHECK_OK, check, "%u %s: min %.3f, avg %.3f, max %.3f ms", m->n,
		   what, (double)m->min_ns / 1e6, (double)m->avg_ns / 1e6, (double)m->max_ns / 1e6);
}

static bool ping(struct doctor *d, struct probe *p)
{
	struct probe_pings m;
	int r = probe_ping(p, PINGS, &m);

	if (r < 0) {
		no_answer(d, "node ping", r);
		return false;
	}
	d->round_trip_ns = m.min_ns;
	pinged(d, "node ping", "by TCP", &m);
	return true;
}

static void speed(struct doctor *d, const char *check, const struct probe_moved *m)
{
	int64_t link = doctor_link_speed(&d->sys, d->interface);
	double mbit = m->ns ? (double)m->bytes * 8e3 / (double)m->ns : 0;

	if (link && mbit < 0.5 * (double)link) {
		report_add(&d->report, CHECK_WARN, check, "%.0f MB/s, %.0f %% of what the link has",
			   mbit / 8, 100 * mbit / (double)link);
		report_try(&d->report, "what is said of path MTU and buffers; or another who uses "
			   "the link: ip -s link show dev %s", d->interface);
		return;
	}
	report_add(&d->report, CHECK_OK, check, "%.0f MB/s", mbit / 8);
}

static bool move(struct doctor *d, struct probe *p, const char *check, enum probe_way way,
		 bool write)
{
	struct probe_moved m;
	int r = probe_move(p, way, write, MOVE_MS, &m);

	if (!r) {
		speed(d, check, &m);
	} else if (r == -EOPNOTSUPP) {
		report_add(&d->report, CHECK_SKIPPED, check, "the node has no data connections");
	} else if (r == -ENOSPC) {
		report_add(&d->report, CHECK_WARN, check, "the node's pool is full: not measured");
		report_try(&d->report, "slicefs serve with a larger --pool-size there, or remove "
			   "files");
	} else {
		no_answer(d, check, r);
	}
	return !r || r == -EOPNOTSUPP;
}

/* Where there is none on one of both sides, nothing is wrong. */
static bool rdma_way(struct doctor *d, struct probe *p)
{
	_cleanup_(freep) char *why = NULL;
	int r = probe_way(p, PROBE_RDMA, &why);
	const char *text = why ? why : error_text(r);

	if (!r) {
		report_add(&d->report, CHECK_OK, "rdma way", "there is one to the node");
		return true;
	}
	if (r == -ENOENT || r == -EOPNOTSUPP || r == -ENODEV) {
		report_add(&d->report, CHECK_SKIPPED, "rdma way", "%s", text);
	} else {
		report_add(&d->report, CHECK_WARN, "rdma way", "%s: mounts will use TCP", text);
		report_try(&d->report, "what is said of RDMA devices above; slicefs doctor on the "
			   "node; rping between both");
	}
	return false;
}

static bool rdma_ping(struct doctor *d, struct probe *p)
{
	struct probe_pings m;
	int r = probe_touch(p, PROBE_RDMA, PINGS, &m);

	if (r < 0) {
		no_answer(d, "rdma ping", r);
		return false;
	}
	pinged(d, "rdma ping", "reads of 64 bytes", &m);
	return true;
}

/* By which carrier a mount with --transport rdma would ask. */
static void rdma_requests(struct doctor *d, struct probe *p)
{
	struct probe_pings m;
	int r = probe_ping_rdma(p, PINGS, &m);

	if (!r) {
		pinged(d, "rdma requests", "by RDMA", &m);
	} else if (r == -EOPNOTSUPP) {
		report_add(&d->report, CHECK_WARN, "rdma requests", "requests go by TCP: the node "
			   "does not take them by RDMA at its own address and port");
		report_try(&d->report, "the address of its RDMA port as HOST; its log says which, "
			   "and at what port it listens");
	} else {
		no_answer(d, "rdma requests", r);
	}
}

static void use_rdma(struct doctor *d, struct probe *p)
{
	if (!rdma_way(d, p)) {
		skip_from(d, "rdma ping", "there is no way by RDMA");
		return;
	}
	if (!rdma_ping(d, p)) {
		skip_from(d, "rdma write", "there is no session");
		return;
	}
	if (!move(d, p, "rdma write", PROBE_RDMA, true)) {
		skip_from(d, "rdma read", "nothing was written");
		return;
	}
	if (move(d, p, "rdma read", PROBE_RDMA, false))
		rdma_requests(d, p);
	else
		skip_from(d, "rdma requests", "there is no session");
}

static void use(struct doctor *d, struct probe *p)
{
	if (!session(d, p)) {
		skip_from(d, "node ping", "there is no session");
		return;
	}
	if (!ping(d, p)) {
		skip_from(d, "tcp write", "there is no session");
		return;
	}
	if (!move(d, p, "tcp write", PROBE_TCP, true)) {
		skip_from(d, "tcp read", "nothing was written");
		return;
	}
	if (!move(d, p, "tcp read", PROBE_TCP, false)) {
		skip_from(d, "rdma way", "there is no session");
		return;
	}
	use_rdma(d, p);
}

void doctor_node(struct doctor *d, const char *node, const char *token_file)
{
	struct sockaddr_storage at;
	struct probe_path path;
	struct probe *p = NULL;

	if (!node) {
		skip_from(d, steps[0], "no HOST was named");
		return;
	}
	if (!find(d, node, &at)) {
		skip_from(d, "node port", "there is no address");
		return;
	}
	if (!reach(d, &at, &path)) {
		skip_from(d, "path MTU", "there is no connection");
		return;
	}
	if (!let_in(d, path.name, token_file, &p))
		return;
	use(d, p);
	probe_close(p);
}
