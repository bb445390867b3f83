/* SPDX-License-Identifier: Apache-2.0 */
/* Which RDMA port is chosen, and what is said where none can be. No device needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "engine/rdma_port.h"

static struct rdma_gid gid(unsigned index, enum rdma_gid_kind kind, const char *address)
{
	struct rdma_gid g = { .index = index, .kind = kind, .interface = 3 };
	char mapped[64] = "";

	if (!strchr(address, ':'))
		strcpy(mapped, "::ffff:");
	strcat(mapped, address);
	assert_int_equal(inet_pton(AF_INET6, mapped, g.raw), 1);
	return g;
}

/* As a RoCE device has them: each address twice, in both versions. */
static struct rdma_gid roce[6];
static struct rdma_gid ib[1];

static struct rdma_port ports[3];

static int setup(void **state)
{
	static const char *const addresses[] = { "fe80::1", "fd77::1", "10.77.0.1" };
	(void)state;

	for (unsigned i = 0; i < 3; i++) {
		roce[2 * i] = gid(2 * i, RDMA_GID_ROCE_V1, addresses[i]);
		roce[2 * i + 1] = gid(2 * i + 1, RDMA_GID_ROCE_V2, addresses[i]);
	}
	ib[0] = gid(0, RDMA_GID_IB, "fe80::2");
	ports[0] = (struct rdma_port){ .device = "ib0", .port = 1, .state = "active", .active = true,
				       .link = RDMA_LINK_IB, .gids = ib, .ngids = 1 };
	ports[1] = (struct rdma_port){ .device = "mlx0", .port = 1, .state = "active",
				       .active = true, .link = RDMA_LINK_ETHERNET, .gids = roce,
				       .ngids = 6 };
	ports[2] = ports[1];
	strcpy(ports[2].device, "mlx1");
	return 0;
}

static const struct rdma_want any = { .gid_index = -1, .numa_node = -1 };

static void expect(const struct rdma_want *w, const char *device, unsigned gid_index)
{
	struct rdma_choice c;

	assert_int_equal(rdma_choose(ports, 3, w, &c, NULL), 0);
	assert_string_equal(c.device, device);
	assert_int_equal(c.gid_index, gid_index);
	assert_non_null(c.reason);
}

static void expect_none(const struct rdma_want *w, unsigned n, const char *word)
{
	_cleanup_(freep) char *text = NULL;
	struct rdma_choice c = { .port = 77 };

	assert_int_equal(rdma_choose(ports, n, w, &c, &text), -ENODEV);
	assert_int_equal(c.port, 77);
	assert_non_null(text);
	if (!strstr(text, word))
		fail_msg("no \"%s\" in: %s", word, text);
}

static struct sockaddr_storage address_of(const struct rdma_gid *g)
{
	struct sockaddr_storage a;

	rdma_gid_address(g, &a);
	return a;
}

static void ipv4_is_preferred(void **state)
{
	struct rdma_choice c;
	char text[64];
	(void)state;

	expect(&any, "mlx0", 5);
	assert_int_equal(rdma_choose(ports, 3, &any, &c, NULL), 0);
	assert_int_equal(c.address.ss_family, AF_INET);
	inet_ntop(AF_INET, &((struct sockaddr_in *)&c.address)->sin_addr, text, sizeof(text));
	assert_string_equal(text, "10.77.0.1");
}

static void worse_ones_are_taken_in_order(void **state)
{
	struct rdma_choice c;
	(void)state;

	ports[1].ngids = ports[2].ngids = 4;
	expect(&any, "mlx0", 3); /* IPv6 */
	ports[1].ngids = ports[2].ngids = 2;
	expect(&any, "ib0", 0);
	assert_int_equal(rdma_choose(ports, 3, &any, &c, NULL), 0);
	assert_int_equal(c.address.ss_family, AF_UNSPEC);
	ports[0].active = false;
	expect(&any, "mlx0", 1); /* link-local */
	assert_int_equal(rdma_choose(ports, 3, &any, &c, NULL), 0);
	assert_int_equal(((struct sockaddr_in6 *)&c.address)->sin6_scope_id, 3);
}

static void the_local_address_decides(void **state)
{
	struct sockaddr_storage a = address_of(&roce[3]);
	struct rdma_gid other = gid(1, RDMA_GID_ROCE_V2, "10.78.0.1");
	struct rdma_want w = { .gid_index = -1, .numa_node = -1, .local = &a };
	(void)state;

	expect(&w, "mlx0", 3);
	ports[2].gids = &other;
	ports[2].ngids = 1;
	a = address_of(&other);
	expect(&w, "mlx1", 1);
	a = address_of(&roce[5]);
	w.device = "mlx1"; /* what was asked for goes before */
	expect(&w, "mlx1", 1);
}

static void what_was_asked_for(void **state)
{
	(void)state;
	expect(&(struct rdma_want){ .device = "mlx1", .gid_index = -1 }, "mlx1", 5);
	expect(&(struct rdma_want){ .device = "mlx1:1", .gid_index = -1 }, "mlx1", 5);
	expect(&(struct rdma_want){ .device = "mlx1", .gid_index = 3 }, "mlx1", 3);
	expect(&(struct rdma_want){ .gid_index = 1 }, "mlx0", 1);
}

static void none_says_why(void **state)
{
	(void)state;
	expect_none(&any, 0, "no RDMA device on this host");
	expect_none(&(struct rdma_want){ "mlx7", -1, NULL, -1 }, 3, "no RDMA device mlx7");
	expect_none(&(struct rdma_want){ "mlx1:2", -1, NULL, -1 }, 3, "mlx1:2");
	expect_none(&(struct rdma_want){ "mlx1", 4, NULL, -1 }, 3, "RoCE v1");
	expect_none(&(struct rdma_want){ "mlx1", 40, NULL, -1 }, 3, "no GID of that index");
	ports[0].active = false;
	ports[1].iwarp = true;
	ports[2].ngids = 0;
	expect_none(&any, 3, "ib0:1 is not active; mlx0:1 is iWARP, which is not supported; "
			     "mlx1:1 has no address");
}

/* All that can be used ------------------------------------------------------------------- */

static void expect_all(const struct rdma_want *w, unsigned max, const char *wanted)
{
	struct rdma_choice c[RDMA_CHOICES_MAX];
	char got[256] = "";
	unsigned n = 77;

	assert_int_equal(rdma_choose_all(ports, 3, w, c, max, &n, NULL), 0);
	for (unsigned i = 0; i < n; i++)
		sprintf(got + strlen(got), "%s%s", i ? " " : "", c[i].device);
	assert_string_equal(got, wanted);
}

static void all_are_listed_the_best_first(void **state)
{
	struct sockaddr_storage a;
	struct rdma_gid other = gid(1, RDMA_GID_ROCE_V2, "10.78.0.1");
	struct rdma_want w = any;
	(void)state;

	expect_all(&any, 16, "mlx0 mlx1 ib0");
	expect_all(&any, 2, "mlx0 mlx1");
	ports[0].numa_node = 1;
	w.numa_node = 1;
	expect_all(&w, 16, "ib0 mlx0 mlx1"); /* near before a better address */
	expect_all(&w, 1, "ib0");
	ports[2].gids = &other;
	ports[2].ngids = 1;
	a = address_of(&other);
	w.local = &a;
	expect_all(&w, 16, "mlx1 ib0 mlx0"); /* the TCP connection's before all */
	w.device = "mlx0";
	expect_all(&w, 16, "mlx0");
	w.device = NULL;
	ports[1].active = false;
	expect_all(&w, 16, "mlx1 ib0");
}

static void all_of_its_addresses_are_told(void **state)
{
	struct sockaddr_storage a = address_of(&roce[3]);
	struct rdma_want w = any;
	struct rdma_choice c;
	(void)state;

	w.local = &a;
	assert_int_equal(rdma_choose(&ports[1], 1, &w, &c, NULL), 0);
	assert_int_equal(c.naddresses, 3);
	assert_memory_equal(&c.addresses[0].address, &c.address, sizeof(c.address));
	assert_memory_equal(&c.address, &a, sizeof(a));
	w.gid_index = 1;
	assert_int_equal(rdma_choose(&ports[1], 1, &w, &c, NULL), 0);
	assert_int_equal(c.naddresses, 1);
	assert_int_equal(c.addresses[0].interface, 3);
}

/* Where they are -------------------------------------------------------------------------- */

struct interface {
	struct ifaddrs entry;
	struct sockaddr_storage address, mask;
};

static void address_at(struct interface *x, struct interface *next, const char *name,
		       const char *address, const char *mask)
{
	struct rdma_gid a = gid(0, RDMA_GID_ROCE_V2, address), m = gid(0, RDMA_GID_ROCE_V2, mask);

	*x = (struct interface){ 0 };
	x->address = address_of(&a);
	x->mask = address_of(&m);
	x->entry = (struct ifaddrs){ .ifa_next = next ? &next->entry : NULL,
				     .ifa_name = (char *)name,
				     .ifa_addr = (struct sockaddr *)&x->address,
				     .ifa_netmask = (struct sockaddr *)&x->mask };
}

static void addresses_are_those_of_this_namespace(void **state)
{
	struct interface x[2];
	(void)state;

	address_at(&x[0], &x[1], "eth0", "10.77.0.1", "255.255.255.0");
	address_at(&x[1], NULL, "eth0", "fe80::1", "ffff:ffff:ffff:ffff::");
	rdma_ports_locate(ports, 3, &x[0].entry);
	assert_false(roce[5].elsewhere);
	assert_int_equal(roce[5].prefix_len, 120);
	assert_int_equal(roce[1].prefix_len, 64);
	assert_true(roce[3].elsewhere);
	roce[5].elsewhere = true;
	expect(&any, "ib0", 0);
	ports[0].active = false;
	expect(&any, "mlx0", 1); /* link-local is what is left */
	((struct sockaddr_in6 *)&x[1].address)->sin6_scope_id = 4; /* another interface's */
	rdma_ports_locate(ports, 3, &x[1].entry);
	expect_none(&any, 3, "mlx0:1 has no address in this network namespace");
}

/* Its hardware address is longer than sockaddr_ll says, as the kernel's is. */
static void infiniband_has_the_addresses_of_its_interface(void **state)
{
	struct interface x[5];
	struct sockaddr_ll *ll = (struct sockaddr_ll *)&x[0].address;
	struct rdma_choice c;
	char text[64];
	(void)state;

	address_at(&x[0], &x[1], "ib0", "0.0.0.0", "0.0.0.0");
	x[0].address = (struct sockaddr_storage){ .ss_family = AF_PACKET };
	ll->sll_ifindex = 9;
	ll->sll_halen = 20;
	memcpy((uint8_t *)ll + offsetof(struct sockaddr_ll, sll_addr) + 4, ib[0].raw, 16);
	address_at(&x[1], &x[2], "eth0", "10.77.0.1", "255.255.255.0");
	address_at(&x[2], &x[3], "ib0", "fe80::2", "ffff:ffff:ffff:ffff::");
	address_at(&x[3], &x[4], "ib0", "fd99::2", "ffff:ffff:ffff:ffff::");
	address_at(&x[4], NULL, "ib0", "10.99.0.2", "255.255.0.0");
	rdma_ports_locate(ports, 1, &x[0].entry);
	assert_int_equal(rdma_choose(ports, 1, &any, &c, NULL), 0);
	assert_int_equal(c.naddresses, 1);
	assert_int_equal(c.addresses[0].prefix_len, 112);
	assert_int_equal(c.addresses[0].interface, 9);
	inet_ntop(AF_INET, &((struct sockaddr_in *)&c.address)->sin_addr, text, sizeof(text));
	assert_string_equal(text, "10.99.0.2");
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup(t, setup)
	const struct CMUnitTest tests[] = {
		TEST(ipv4_is_preferred),
		TEST(worse_ones_are_taken_in_order),
		TEST(the_local_address_decides),
		TEST(what_was_asked_for),
		TEST(none_says_why),
		TEST(all_are_listed_the_best_first),
		TEST(all_of_its_addresses_are_told),
		TEST(addresses_are_those_of_this_namespace),
		TEST(infiniband_has_the_addresses_of_its_interface),
	};

	rdma_ports_free(NULL, 0);
	assert(rdma_numa_node() >= -1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
