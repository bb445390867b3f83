/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The checks of `slicefs doctor`, in the order in which they run; each adds its lines
 * to the report. Those of doctor_{rdma,memory,numa,fuse,link}.c read texts below sys.root and
 * nothing else of this machine, so that tests can give them another one.
 *
 * Threads: one.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "engine/probe.h"
#include "engine/rdma_port.h"
#include "tools/report.h"
#include "tools/sysfile.h"

struct doctor {
	struct sys sys;
	struct report report;
	bool is_root;        /* stores are in /run/slicefs then */
	uint64_t pool_bytes; /* of the pool that is meant */
	uint32_t timeout_ms; /* of each step that waits for others */
	struct probe_memory memory;

	/* rdma_ports(), or what a test has in its place. */
	int (*ports)(struct rdma_port **ret, unsigned *ret_n, char **ret_why);

	/* Came of doctor_rdma(). */
	struct sys_names rdma_devices;

	/* Came of doctor_node(), or "" and 0: the interface towards the node, and how long
	 * a message takes to it and back. */
	char interface[SYS_NAME];
	uint64_t round_trip_ns;
};

struct fs_library;

void doctor_rdma(struct doctor *d);
void doctor_memlock(struct doctor *d);
void doctor_huge(struct doctor *d);
void doctor_memory(struct doctor *d);
void doctor_numa(struct doctor *d);
void doctor_fuse(struct doctor *d, const struct fs_library *lib);
void doctor_stores(struct doctor *d);
/* node: "host:port", or NULL: none was named. */
void doctor_node(struct doctor *d, const char *node, const char *token_file);
void doctor_sockets(struct doctor *d);

/* doctor_rdma.c: all ports, as sysfs has them; their MTU is not there, so 0. For
 * rdma_ports_free(). -ENOMEM. */
int doctor_rdma_ports(const struct sys *s, const struct sys_names *devices,
		      struct rdma_port **ret, unsigned *ret_n);

/* doctor_link.c: Mbit/s of a network interface, 0: unknown; and what is said of packets
 * of so many bytes to the node. */
int64_t doctor_link_speed(const struct sys *s, const char *interface);
void doctor_link_mtu(struct doctor *d, uint32_t mtu_bytes);
