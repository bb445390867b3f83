/* SPDX-License-Identifier: Apache-2.0 */
/* Which ways connections take between the ports of a mount and of a node: made-up tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "engine/rdma_path.h"

static struct rdma_choice own[3];
static const struct rdma_choice *const owns[3] = { &own[0], &own[1], &own[2] };
static struct rdma_far far[3];
static unsigned nown, nfar;

static struct sockaddr_storage ip(const char *text)
{
	struct sockaddr_storage a = { 0 };

	a.ss_family = strchr(text, ':') ? AF_INET6 : AF_INET;
	assert_int_equal(inet_pton(a.ss_family, text, a.ss_family == AF_INET ?
			 (void *)&((struct sockaddr_in *)&a)->sin_addr :
			 (void *)&((struct sockaddr_in6 *)&a)->sin6_addr), 1);
	return a;
}

/* An address of the last port of our own; bits of its own family. */
static void has(const char *address, unsigned bits)
{
	struct rdma_choice *c = &own[nown - 1];
	struct rdma_address *a = &c->addresses[c->naddresses++];

	a->address = ip(address);
	a->prefix_len = bits + (a->address.ss_family == AF_INET ? 96 : 0);
	a->interface = nown + 6;
}

static void own_port(const char *address, unsigned bits)
{
	own[nown++] = (struct rdma_choice){ 0 };
	if (address)
		has(address, bits);
}

static void far_port(const char *address)
{
	far[nfar++] = (struct rdma_far){ .address = ip(address) };
}

static int begin(void **state)
{
	(void)state;
	nown = nfar = 0;
	return 0;
}

static struct rdma_path path(unsigned conn, unsigned attempt, bool stays)
{
	struct rdma_turn t = { .conn = conn, .attempt = attempt, .stays = stays };
	struct rdma_path p;

	assert_true(rdma_path(owns, nown, far, nfar, &t, &p));
	assert_memory_equal((char *)&p.to + 2, (char *)&far[p.far].address + 2, 22);
	return p;
}

/* "own-far" of each attempt of a connection, until it begins anew. */
static void expect(unsigned conn, bool stays, const char *wanted)
{
	char got[256] = "";
	unsigned i = 0;

	for (; i == 0 || strlen(got) < strlen(wanted); i++) {
		struct rdma_path p = path(conn, i, stays);
		sprintf(got + strlen(got), "%s%u-%u", i ? " " : "", p.own, p.far);
	}
	assert_string_equal(got, wanted);
	struct rdma_path first = path(conn, 0, stays), again = path(conn, i, stays);
	assert_true(first.own == again.own && first.far == again.far);
}

static void two_rails(void **state)
{
	(void)state;
	own_port("10.1.0.2", 24);
	own_port("10.2.0.2", 24);
	far_port("10.2.0.1");
	far_port("10.1.0.1");
	assert_int_equal(path(0, 0, false).reach, RDMA_REACH_SUBNET);
	expect(0, true, "0-1 0-0");
	expect(1, true, "1-0 1-1");
	expect(0, false, "0-1 0-0 1-0 1-1");
	assert_int_equal(path(0, 1, false).reach, RDMA_REACH_FAMILY);
}

static void one_subnet_for_all(void **state)
{
	struct rdma_turn t = { .offset = 1 };
	struct rdma_path p;
	(void)state;

	own_port("10.1.0.2", 16);
	own_port("10.1.0.3", 16);
	far_port("10.1.1.1");
	far_port("10.1.1.2");
	expect(0, true, "0-0 0-1");
	expect(1, true, "1-1 1-0");
	expect(2, true, "0-1 0-0");
	expect(3, true, "1-0 1-1");
	far_port("10.1.1.3");
	expect(2, true, "0-2 0-0 0-1");
	assert_true(rdma_path(owns, nown, far, nfar, &t, &p));
	assert_int_equal(p.far, 1); /* another mount begins elsewhere */
}

static void more_ports_there_than_here(void **state)
{
	(void)state;
	own_port("10.1.0.2", 16);
	far_port("10.1.1.1");
	far_port("10.1.1.2");
	far_port("10.1.1.3");
	expect(0, false, "0-0 0-1 0-2");
	expect(1, false, "0-1 0-2 0-0");
	expect(2, false, "0-2 0-0 0-1");
}

static void a_port_of_another_network_is_the_last(void **state)
{
	(void)state;
	own_port("192.168.0.2", 24);
	own_port("10.1.0.2", 24);
	far_port("10.1.0.1");
	expect(0, true, "1-0");
	expect(1, true, "1-0");
	expect(0, false, "1-0 0-0");
}

static void behind_a_router_the_kernel_knows(void **state)
{
	struct rdma_path p;
	(void)state;

	own_port("10.1.0.2", 24);
	own_port("10.2.0.2", 24);
	far_port("10.9.0.1");
	far[0].from = ip("10.2.0.2");
	p = path(0, 0, false);
	assert_int_equal(p.own, 1);
	assert_int_equal(p.reach, RDMA_REACH_ROUTE);
	expect(0, false, "1-0 0-0");
}

static void each_address_of_a_port_counts(void **state)
{
	struct sockaddr_storage from = ip("fd77::2");
	struct rdma_path p;
	(void)state;

	own_port("10.1.0.2", 24);
	has("fd77::2", 64);
	far_port("fd77::1");
	p = path(0, 0, false);
	assert_int_equal(p.reach, RDMA_REACH_SUBNET);
	assert_memory_equal(&p.from, &from, sizeof(from));
	far_port("fd78::1");
	assert_int_equal(path(0, 1, false).reach, RDMA_REACH_FAMILY);
}

static void a_link_local_address_is_at_our_interface(void **state)
{
	struct rdma_path p;
	(void)state;

	own_port("10.1.0.2", 24);
	own_port("fe80::2", 64);
	far_port("fe80::1");
	p = path(0, 0, false);
	assert_int_equal(p.reach, RDMA_REACH_LINK_LOCAL);
	assert_int_equal(p.own, 1);
	assert_int_equal(((struct sockaddr_in6 *)&p.to)->sin6_scope_id, 8);
	far_port("10.1.0.1");
	assert_int_equal(path(0, 0, false).own, 0); /* what is surer goes before */
}

static void what_is_not_comparable_is_tried(void **state)
{
	struct rdma_path p;
	(void)state;

	own_port(NULL, 0);
	far_port("10.1.0.1");
	p = path(0, 0, false);
	assert_int_equal(p.reach, RDMA_REACH_OTHER);
	assert_int_equal(p.from.ss_family, AF_UNSPEC);
	own_port("fd77::1", 64);
	assert_int_equal(path(0, 0, false).own, 0);
	assert_int_equal(path(1, 0, false).own, 1);
}

static void prefixes_end_within_bytes(void **state)
{
	(void)state;
	own_port("10.1.0.2", 30);
	far_port("10.1.0.1");
	far_port("10.1.0.5");
	assert_int_equal(path(0, 0, true).reach, RDMA_REACH_SUBNET);
	assert_int_equal(path(0, 1, true).reach, RDMA_REACH_FAMILY);
	own[0].addresses[0].prefix_len = 128;
	assert_int_equal(path(0, 0, true).reach, RDMA_REACH_FAMILY);
	own[0].addresses[0].prefix_len = 0; /* not known */
	assert_int_equal(path(0, 0, true).reach, RDMA_REACH_FAMILY);
}

static void nothing_leads_nowhere(void **state)
{
	struct rdma_turn t = { 0 };
	struct rdma_path p;
	(void)state;

	own_port("10.1.0.2", 24);
	assert_false(rdma_path(owns, 1, far, 0, &t, &p));
	far_port("10.1.0.1");
	assert_false(rdma_path(owns, 0, far, 1, &t, &p));
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup(t, begin)
	const struct CMUnitTest tests[] = {
		TEST(two_rails),
		TEST(one_subnet_for_all),
		TEST(more_ports_there_than_here),
		TEST(a_port_of_another_network_is_the_last),
		TEST(behind_a_router_the_kernel_knows),
		TEST(each_address_of_a_port_counts),
		TEST(a_link_local_address_is_at_our_interface),
		TEST(what_is_not_comparable_is_tried),
		TEST(prefixes_end_within_bytes),
		TEST(nothing_leads_nowhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
