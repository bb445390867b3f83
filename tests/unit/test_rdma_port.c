/* SPDX-License-Identifier: Apache-2.0 */
/* Which RDMA port is chosen, and what is said where none can be. No device needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
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

static const struct rdma_want any = { .gid_index = -1 };

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
	struct rdma_want w = { .gid_index = -1, .local = &a };
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
	expect_none(&(struct rdma_want){ "mlx7", -1, NULL }, 3, "no RDMA device mlx7");
	expect_none(&(struct rdma_want){ "mlx1:2", -1, NULL }, 3, "mlx1:2");
	expect_none(&(struct rdma_want){ "mlx1", 4, NULL }, 3, "RoCE v1");
	expect_none(&(struct rdma_want){ "mlx1", 40, NULL }, 3, "no GID of that index");
	ports[0].active = false;
	ports[1].iwarp = true;
	ports[2].ngids = 0;
	expect_none(&any, 3, "ib0:1 is not active; mlx0:1 is iWARP, which is not supported; "
			     "mlx1:1 has no address");
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
	};

	rdma_ports_free(NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
