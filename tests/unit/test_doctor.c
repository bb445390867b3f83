/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs doctor on other machines than this one: trees with the texts of /sys, /proc
 * and /etc that it reads, of hosts with RDMA of several kinds and without, with two NUMA
 * nodes, with little locked memory; and trees of rubbish. SEED=n repeats the latter.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/error.h"
#include "fs/fs.h"
#include "tools/doctor.h"

#define GIB (1ULL << 30)
#define NET "/sys/class/net/"
#define IB "/sys/class/infiniband/"

static char root[64];
static struct doctor d;
static unsigned verbs_mtu; /* 0: not built in */
static const char *verbs_device;

/* A tree ------------------------------------------------------------------------------ */

static void make_parents(char *path)
{
	for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
}

static void put_bytes(const char *at, const void *p, size_t n)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s%s", root, at);
	make_parents(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static void put(const char *at, const char *text)
{
	char line[4096];
	int n = snprintf(line, sizeof(line), "%s\n", text);

	put_bytes(at, line, (size_t)n);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static int fake_ports(struct rdma_port **ret, unsigned *ret_n, char **ret_why)
{
	if (!verbs_mtu)
		return why(ret_why, -EOPNOTSUPP, "RDMA is not built in");
	*ret = calloc(1, sizeof(**ret));
	**ret = (struct rdma_port){ .port = 1, .mtu_bytes = verbs_mtu };
	snprintf((*ret)->device, sizeof((*ret)->device), "%s", verbs_device);
	*ret_n = 1;
	return 0;
}

static int begin(void **state)
{
	(void)state;
	strcpy(root, "/tmp/test_doctor.XXXXXX");
	assert_non_null(mkdtemp(root));
	verbs_mtu = 0;
	verbs_device = "mlx5_0";
	d = (struct doctor){ .sys = { root }, .ports = fake_ports, .pool_bytes = 4 * GIB,
			     .timeout_ms = 10000, .memory = { 16 * GIB, 12 * GIB, GIB / 2 } };
	report_init(&d.report);
	return 0;
}

static int end(void **state)
{
	(void)state;
	report_fini(&d.report);
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* What it said ------------------------------------------------------------------------ */

static void again(void)
{
	report_fini(&d.report);
	report_init(&d.report);
}

static void dump(void)
{
	report_print(&d.report, false);
}

/* There is a line of that check and verdict that says so, and, if `try` is not NULL, what to
 * try; "": nothing. */
static bool says(const char *check, const char *verdict, const char *found, const char *try)
{
	size_t i;
	json_t *row;

	json_array_foreach(d.report.rows, i, row) {
		const char *t = json_string_value(json_object_get(row, "try"));
		if (strcmp(json_string_value(json_object_get(row, "check")), check) ||
		    strcmp(json_string_value(json_object_get(row, "verdict")), verdict) ||
		    !strstr(json_string_value(json_object_get(row, "found")), found))
			continue;
		if (!try || (t && *try && strstr(t, try)) || (!t && !*try))
			return true;
	}
	dump();
	return false;
}

#define assert_says(...) assert_true(says(__VA_ARGS__))

/* What is bad, or could be better, can be mended. */
static void assert_mends(void)
{
	size_t i;
	json_t *row;

	json_array_foreach(d.report.rows, i, row) {
		const char *v = json_string_value(json_object_get(row, "verdict"));
		if (!strcmp(v, "bad") && !json_is_string(json_object_get(row, "try"))) {
			dump();
			fail();
		}
	}
}

/* Machines ---------------------------------------------------------------------------- */

static void interface(const char *name, const char *index, const char *mtu, const char *speed)
{
	char at[256];

	snprintf(at, sizeof(at), NET "%s/ifindex", name);
	put(at, index);
	snprintf(at, sizeof(at), NET "%s/mtu", name);
	put(at, mtu);
	snprintf(at, sizeof(at), NET "%s/operstate", name);
	put(at, "up");
	snprintf(at, sizeof(at), NET "%s/device/vendor", name);
	put(at, "0x15b3");
	snprintf(at, sizeof(at), NET "%s/speed", name);
	if (speed)
		put(at, speed);
}

static void port(const char *device, const char *link, const char *state, const char *rate)
{
	char at[256];

	snprintf(at, sizeof(at), IB "%s/node_type", device);
	put(at, "1: CA");
	snprintf(at, sizeof(at), IB "%s/ports/1/link_layer", device);
	put(at, link);
	snprintf(at, sizeof(at), IB "%s/ports/1/state", device);
	put(at, state);
	snprintf(at, sizeof(at), IB "%s/ports/1/rate", device);
	put(at, rate);
}

static void gid(const char *device, unsigned index, const char *raw, const char *type,
		const char *ndev)
{
	char at[256];

	snprintf(at, sizeof(at), IB "%s/ports/1/gids/%u", device, index);
	put(at, raw);
	snprintf(at, sizeof(at), IB "%s/ports/1/gid_attrs/types/%u", device, index);
	if (type)
		put(at, type);
	snprintf(at, sizeof(at), IB "%s/ports/1/gid_attrs/ndevs/%u", device, index);
	if (ndev)
		put(at, ndev);
}

#define ZERO "0000:0000:0000:0000:0000:0000:0000:0000"
#define LINK_LOCAL "fe80:0000:0000:0000:0e42:a1ff:fe00:0001"
#define MAPPED "0000:0000:0000:0000:0000:ffff:0a00:0007"

static void loaded(void)
{
	put("/sys/module/ib_uverbs/refcnt", "1");
	put("/sys/module/rdma_cm/refcnt", "1");
	put("/sys/module/rdma_ucm/refcnt", "1");
	put("/sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0");
	put("/sys/class/infiniband_verbs/abi_version", "6");
	put("/dev/infiniband/rdma_cm", "");
	put("/dev/infiniband/uverbs0", "");
}

static void mlx5(const char *mtu)
{
	loaded();
	interface("eth2", "7", mtu, "100000");
	port("mlx5_0", "Ethernet", "4: ACTIVE", "100 Gb/sec (4X EDR)");
	gid("mlx5_0", 0, LINK_LOCAL, "IB/RoCE v1", "eth2");
	gid("mlx5_0", 1, LINK_LOCAL, "RoCE v2", "eth2");
	gid("mlx5_0", 2, MAPPED, "IB/RoCE v1", "eth2");
	gid("mlx5_0", 3, MAPPED, "RoCE v2", "eth2");
	for (unsigned i = 4; i < 256; i++)
		gid("mlx5_0", i, ZERO, NULL, NULL);
}

/* RDMA -------------------------------------------------------------------------------- */

static void test_no_device_is_nothing_bad(void **state)
{
	(void)state;
	doctor_rdma(&d);
	assert_says("rdma devices", "skipped", "none on this host", "");
	assert_says("rdma library", "skipped", "not built in", "");
	assert_says("rdma choice", "skipped", "", "");
	assert_int_equal(d.report.nbad, 0);
	again();
	verbs_mtu = 1024;
	doctor_rdma(&d);
	assert_says("rdma library", "ok", "are built in", "");
}

static void test_roce(void **state)
{
	(void)state;
	mlx5("9000");
	doctor_rdma(&d);
	assert_says("rdma devices", "ok", "1: mlx5_0", "");
	assert_says("rdma library", "warn", "not built in", "apt-get install libibverbs-dev");
	assert_says("rdma modules", "ok", "ib_uverbs", "");
	assert_says("rdma access", "ok", "uverbs", "");
	assert_says("rdma port mlx5_0:1", "ok", "active, Ethernet, 100 Gb/sec (4X EDR), MTU 4096 of "
		    "4096: eth2 has 9000", "");
	assert_says("rdma gid mlx5_0:1", "ok", "0: fe80::e42:a1ff:fe00:1, RoCE v1", "");
	assert_says("rdma gid mlx5_0:1", "ok", "3: 10.0.0.7, RoCE v2, chosen", "");
	assert_says("rdma choice", "ok", "mlx5_0:1, GID 3: RoCE v2 with an IPv4 address", "");
	assert_int_equal(d.report.nbad, 0);
}

static void test_packets_of_roce(void **state)
{
	(void)state;
	mlx5("1500");
	doctor_rdma(&d);
	assert_says("rdma port mlx5_0:1", "warn", "MTU 1024 of 4096: eth2 has 1500",
		    "ip link set dev eth2 mtu 9000");
	again();
	mlx5("9000");
	verbs_mtu = 2048; /* what is in use, whatever the interface could do */
	doctor_rdma(&d);
	assert_says("rdma port mlx5_0:1", "warn", "MTU 2048 of 4096: eth2 has 9000", "mtu");
	again();
	verbs_device = "mlx5_9";
	doctor_rdma(&d);
	assert_says("rdma library", "bad", "do not see mlx5_0", "ibverbs-providers");
}

static void test_ports_that_are_down(void **state)
{
	(void)state;
	mlx5("9000");
	interface("eth3", "8", "9000", NULL);
	port("mlx5_1", "Ethernet", "1: DOWN", "40 Gb/sec (4X QDR)");
	gid("mlx5_1", 0, LINK_LOCAL, "RoCE v2", "eth3");
	doctor_rdma(&d);
	assert_says("rdma devices", "ok", "2: mlx5_0, mlx5_1", "");
	assert_says("rdma port mlx5_1:1", "warn", "down, Ethernet", "ip link set dev eth3 up");
	assert_says("rdma choice", "ok", "mlx5_0:1", "");
	again();
	port("mlx5_0", "Ethernet", "1: DOWN", "100 Gb/sec (4X EDR)");
	doctor_rdma(&d);
	assert_says("rdma choice", "bad", "mlx5_0:1 is not active", "ip link set dev eth2 up");
	assert_mends();
}

static void test_no_address(void **state)
{
	(void)state;
	loaded();
	interface("eth2", "7", "9000", "100000");
	port("mlx5_0", "Ethernet", "4: ACTIVE", "100 Gb/sec (4X EDR)");
	gid("mlx5_0", 0, LINK_LOCAL, "IB/RoCE v1", "eth2");
	doctor_rdma(&d);
	assert_says("rdma choice", "bad", "RoCE v1 only", "ip address add ADDRESS/24 dev eth2");
	again();
	gid("mlx5_0", 0, ZERO, NULL, NULL);
	put(IB "mlx5_0/device/net/eth2/ifindex", "7");
	doctor_rdma(&d);
	assert_says("rdma gid mlx5_0:1", "warn", "none", NULL);
	assert_says("rdma choice", "bad", "has no address", "ip address add ADDRESS/24 dev eth2");
	assert_mends();
}

static void test_infiniband(void **state)
{
	(void)state;
	loaded();
	port("mlx5_0", "InfiniBand", "4: ACTIVE", "200 Gb/sec (4X HDR)");
	gid("mlx5_0", 0, "fe80:0000:0000:0000:506b:4b03:00c8:1111", "IB/RoCE v1", NULL);
	verbs_mtu = 4096;
	doctor_rdma(&d);
	assert_says("rdma port mlx5_0:1", "ok", "active, InfiniBand, 200 Gb/sec (4X HDR), MTU 4096",
		    "");
	assert_says("rdma gid mlx5_0:1", "ok", ", IB, chosen", "");
	assert_says("rdma choice", "ok", "GID 0: InfiniBand", "");
	again();
	port("mlx5_0", "InfiniBand", "2: INIT", "200 Gb/sec (4X HDR)");
	doctor_rdma(&d);
	assert_says("rdma port mlx5_0:1", "warn", "initializing", "systemctl start opensm");
	assert_says("rdma choice", "bad", "not active", NULL);
	again();
	port("mlx5_0", "InfiniBand", "1: DOWN", "10 Gb/sec (4X SDR)");
	doctor_rdma(&d);
	assert_says("rdma port mlx5_0:1", "warn", "down", "ibportstate -C mlx5_0 -D 0 1 enable");
	assert_mends();
}

static void test_rxe_and_iwarp(void **state)
{
	(void)state;
	loaded();
	interface("veth0", "3", "1500", "10000");
	port("rxe0", "Ethernet", "4: ACTIVE", "2.5 Gb/sec (1X SDR)");
	gid("rxe0", 0, "fe80:0000:0000:0000:0000:00ff:fe00:0001", "RoCE v2", "veth0");
	gid("rxe0", 1, MAPPED, "RoCE v2", "veth0");
	for (unsigned i = 2; i < 1024; i++) /* a folder with so many names */
		gid("rxe0", i, ZERO, NULL, NULL);
	gid("rxe0", 1023, "fd77:0000:0000:0000:0000:0000:0000:0001", "RoCE v2", "veth0");
	doctor_rdma(&d);
	assert_says("rdma gid rxe0:1", "ok", "1023: fd77::1, RoCE v2", "");
	assert_says("rdma port rxe0:1", "warn", "MTU 1024 of 4096: veth0 has 1500", NULL);
	assert_says("rdma choice", "ok", "rxe0:1, GID 1: RoCE v2 with an IPv4 address", "");
	again();
	put(IB "rxe0/node_type", "4: RNIC");
	doctor_rdma(&d);
	assert_says("rdma choice", "bad", "is iWARP", "by TCP");
}

static void test_modules_and_files(void **state)
{
	(void)state;
	port("mlx5_0", "InfiniBand", "4: ACTIVE", "200 Gb/sec (4X HDR)");
	put("/sys/module/rdma_cm/refcnt", "1");
	doctor_rdma(&d);
	assert_says("rdma modules", "bad", "not loaded: ib_uverbs rdma_ucm",
		    "modprobe -a ib_uverbs rdma_ucm");
	assert_says("rdma access", "bad", "No such file or directory: /dev/infiniband/rdma_cm",
		    "udevadm trigger");
	again();
	loaded();
	put("/sys/class/infiniband_verbs/uverbs1/ibdev", "mlx5_1");
	doctor_rdma(&d);
	assert_says("rdma modules", "ok", "", "");
	assert_says("rdma access", "bad", ": /dev/infiniband/uverbs1", NULL);
}

/* Memory ------------------------------------------------------------------------------ */

static void limits(const char *soft, const char *hard)
{
	char text[256];

	snprintf(text, sizeof(text), "Limit                     Soft Limit           Hard Limit\n"
		 "Max locked memory         %-20s %-20s bytes     ", soft, hard);
	put("/proc/self/limits", text);
}

static void test_locked_memory(void **state)
{
	(void)state;
	d.rdma_devices.n = 1;
	put("/proc/self/status", "CapEff:\t0000000000000000");
	limits("8388608", "8388608");
	doctor_memlock(&d);
	assert_says("locked memory", "bad", "at most 8 MiB, and a pool of 4 GiB is registered",
		    "/etc/security/limits.d/slicefs.conf");
	again();
	limits("8388608", "unlimited");
	doctor_memlock(&d);
	assert_says("locked memory", "bad", "at most 8 MiB", "ulimit -l unlimited");
	again();
	d.rdma_devices.n = 0;
	doctor_memlock(&d);
	assert_says("locked memory", "skipped", "not registered without RDMA", "");
	again();
	d.rdma_devices.n = 1;
	put("/proc/self/status", "Name:\tslicefs\nCapEff:\t000001ffffffffff");
	doctor_memlock(&d);
	assert_says("locked memory", "ok", "may exceed the limit of 8 MiB", "");
	again();
	limits("unlimited", "unlimited");
	doctor_memlock(&d);
	assert_says("locked memory", "ok", "no limit", "");
}

static void test_locked_memory_of_the_unit(void **state)
{
	(void)state;
	d.rdma_devices.n = 1;
	doctor_memlock(&d);
	assert_says("locked memory of slicefs-node.service", "skipped", "not installed", "");
	again();
	put("/usr/local/lib/systemd/system/slicefs-node.service",
	    "[Service]\nExecStart=slicefs serve\nLimitMEMLOCK=64M\nUser=cache");
	doctor_memlock(&d);
	assert_says("locked memory of slicefs-node.service", "bad",
		    "LimitMEMLOCK=64M, as cache, for a pool of 4 GiB",
		    "printf '[Service]\\nLimitMEMLOCK=infinity\\n' >/etc/systemd");
	again();
	put("/etc/systemd/system/slicefs-node.service.d/memlock.conf",
	    "[Service]\nLimitMEMLOCK=8G");
	doctor_memlock(&d);
	assert_says("locked memory of slicefs-node.service", "ok", "8G", "");
	again();
	put("/etc/systemd/system/slicefs-node.service.d/z.conf", "[Service]\nLimitMEMLOCK=1\nUser=");
	doctor_memlock(&d);
	assert_says("locked memory of slicefs-node.service", "ok", "LimitMEMLOCK=1, as root", "");
}

#define SHMEM "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static void test_huge_pages(void **state)
{
	(void)state;
	doctor_huge(&d);
	assert_says("huge pages", "warn", "this kernel has none", "CONFIG_TRANSPARENT_HUGEPAGE");
	again();
	put(SHMEM, "always within_size advise [never] deny force");
	put("/proc/self/mounts", "proc /proc proc rw 0 0\ntmpfs /dev/shm tmpfs rw,nosuid 0 0");
	doctor_huge(&d);
	assert_says("huge pages", "warn", "mounted with no huge=",
		    "mount -o remount,huge=advise /dev/shm");
	again();
	put("/proc/self/mounts", "tmpfs /dev/shm tmpfs rw,nosuid,huge=advise,inode64 0 0");
	doctor_huge(&d);
	assert_says("huge pages", "ok", "with huge=advise", "");
	again();
	d.is_root = true;
	doctor_huge(&d);
	assert_says("huge pages", "ok", "root's pools", "");
	again();
	put(SHMEM, "always within_size advise never [deny] force");
	doctor_huge(&d);
	assert_says("huge pages", "warn", "deny", "echo never >" SHMEM);
}

static void test_hugetlb(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemTotal: 100 kB\nHugePages_Free: 0\nHugepagesize: 2048 kB");
	doctor_huge(&d);
	assert_says("hugetlb", "ok", "", "");
	again();
	put("/proc/meminfo", "HugePages_Total: 600\nHugePages_Free:     512\n"
			     "Hugepagesize:       2048 kB");
	doctor_huge(&d);
	assert_says("hugetlb", "warn", "512 pages of 2 MiB", "sysctl vm.nr_hugepages=0");
}

static void test_room(void **state)
{
	(void)state;
	doctor_memory(&d);
	assert_says("memory", "ok", "a pool of 4 GiB with an index of 512 MiB fits", "");
	again();
	d.memory.available_bytes = 4 * GIB;
	doctor_memory(&d);
	assert_says("memory", "bad", "does not fit", "slicefs mount --pool-size 3182M DIR");
	again();
	d.memory.available_bytes = GIB / 2;
	doctor_memory(&d);
	assert_says("memory", "bad", "does not fit", "slicefs store ls");
	again();
	d.memory = (struct probe_memory){ 0 };
	doctor_memory(&d);
	assert_says("memory", "bad", "/proc/meminfo", "mount -t proc");
}

/* NUMA -------------------------------------------------------------------------------- */

static void two_nodes(void)
{
	put("/sys/devices/system/node/online", "0-1");
	put("/sys/devices/system/node/node0/distance", "10 21");
	put("/sys/devices/system/node/node1/distance", "21 10");
	put("/sys/devices/system/node/node0/cpulist", "0-15,32-47");
	put("/sys/devices/system/node/node1/cpulist", "16-31,48-63");
	put("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:   8388608 kB\n"
						      "Node 1 MemFree:   4194304 kB");
	put("/proc/self/status", "Cpus_allowed_list:\t0-63\nMems_allowed_list:\t0-1");
	put(IB "mlx5_0/device/numa_node", "1");
}

static void test_one_node(void **state)
{
	(void)state;
	put("/sys/devices/system/node/online", "0");
	doctor_numa(&d);
	assert_says("numa", "ok", "one node", "");
	assert_int_equal(json_array_size(d.report.rows), 1);
}

static void test_two_nodes(void **state)
{
	(void)state;
	two_nodes();
	d.rdma_devices.n = 1;
	strcpy(d.rdma_devices.v[0], "mlx5_0");
	doctor_numa(&d);
	assert_says("numa", "ok", "2 nodes, 0-1", "");
	assert_says("numa mlx5_0", "warn", "at node 1; memory may be on 0-1 (distance up to 21",
		    "numactl --cpunodebind=1 --membind=1 slicefs serve");
	again();
	d.pool_bytes = 16 * GIB;
	doctor_numa(&d);
	assert_says("numa mlx5_0", "warn", "does not fit on its node", "--preferred=1");
	again();
	put("/proc/self/status", "Cpus_allowed_list:\t20-23,48\nMems_allowed_list:\t1");
	doctor_numa(&d);
	assert_says("numa mlx5_0", "ok", "at node 1, as all", "");
	again();
	put(IB "mlx5_0/device/numa_node", "-1");
	doctor_numa(&d);
	assert_says("numa mlx5_0", "ok", "does not say", "");
}

static void test_two_nodes_by_tcp(void **state)
{
	(void)state;
	two_nodes();
	doctor_numa(&d);
	assert_says("numa cards", "warn", "", "numactl --interleave=0-1");
	again();
	interface("eth0", "2", "1500", "25000");
	put(NET "eth0/device/numa_node", "0");
	interface("eth1", "3", "1500", "25000");
	put(NET "eth1/device/numa_node", "1");
	strcpy(d.interface, "eth1");
	doctor_numa(&d);
	assert_says("numa eth1", "warn", "at node 1", "--membind=1");
	assert_int_equal(json_array_size(d.report.rows), 2);
}

/* FUSE -------------------------------------------------------------------------------- */

static const struct fs_library library = { "3.14.0", 3, 14 };

static void test_fuse_that_is_there(void **state)
{
	(void)state;
	put("/dev/fuse", "");
	put("/usr/bin/fusermount3", "");
	put("/etc/fuse.conf", "# user_allow_other - lets users\nuser_allow_other\nmount_max = 1000");
	put("/proc/sys/fs/fuse/max_pages_limit", "256");
	put("/proc/sys/fs/fuse/default_request_timeout", "0");
	put("/proc/sys/kernel/osrelease", "6.12.3-amd64");
	put("/sys/module/fuse/parameters/enable_uring", "N");
	doctor_fuse(&d, &library);
	assert_says("/dev/fuse", "ok", "", "");
	assert_says("fusermount3", "ok", "/usr/bin/fusermount3", "");
	assert_says("user_allow_other", "ok", "is in", "");
	assert_says("fuse max_pages_limit", "ok", "256", "");
	assert_says("fuse request timeouts", "ok", "", "");
	assert_says("kernel", "ok", "6.12.3-amd64: has reading large files past the page cache, "
		    "passthrough", "");
	assert_says("libfuse", "ok", "3.14.0, built with 3.14: without O_TMPFILE", "");
	assert_says("fuse io_uring", "ok", "not enabled", "");
	assert_int_equal(d.report.nbad, 0);
}

static void test_fuse_that_is_not(void **state)
{
	(void)state;
	put("/etc/fuse.conf", "#user_allow_other\nuser_allow_others");
	put("/proc/sys/fs/fuse/max_pages_limit", "32");
	put("/proc/sys/fs/fuse/max_request_timeout", "15");
	put("/proc/sys/kernel/osrelease", "5.15.0");
	doctor_fuse(&d, &library);
	assert_says("/dev/fuse", "bad", "No such file", "modprobe fuse");
	assert_says("fusermount3", "bad", "not found", "apt-get install fuse3");
	assert_says("user_allow_other", "warn", "not in", "echo user_allow_other >>/etc/fuse.conf");
	assert_says("fuse max_pages_limit", "warn", "32", "sysctl fs.fuse.max_pages_limit=256");
	assert_says("fuse request timeouts", "bad", "max_request_timeout is 15 s",
		    "sysctl fs.fuse.max_request_timeout=0");
	assert_says("kernel", "warn", "5.15.0: large files", "6.6");
	assert_mends();
	again();
	d.is_root = true;
	doctor_fuse(&d, &library);
	assert_says("fusermount3", "ok", "root does without", "");
	assert_says("user_allow_other", "ok", "does not concern root", "");
}

/* Network ----------------------------------------------------------------------------- */

static void test_buffers(void **state)
{
	(void)state;
	put("/proc/sys/net/core/rmem_max", "212992");
	put("/proc/sys/net/core/wmem_max", "212992");
	put("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456");
	put("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304");
	interface("eth0", "2", "1500", "25000");
	doctor_sockets(&d);
	assert_says("net.core", "ok", "rmem_max 208 KiB", "");
	assert_says("net.ipv4.tcp_rmem", "ok", "6 MiB", "");
	again();
	interface("eth1", "3", "9000", "200000");
	doctor_sockets(&d); /* 25 GB/s for 200 us, twice */
	assert_says("net.ipv4.tcp_wmem", "warn", "grow to 4 MiB",
		    "sysctl net.ipv4.tcp_wmem='4096 16384 10000000'");
	again();
	strcpy(d.interface, "eth0");
	d.round_trip_ns = 20000000; /* far away */
	doctor_sockets(&d);
	assert_says("net.ipv4.tcp_rmem", "warn", "",
		    "sysctl net.ipv4.tcp_rmem='4096 131072 125000000'");
}

static void test_packets(void **state)
{
	(void)state;
	interface("eth0", "2", "1500", "25000");
	interface("eth1", "3", "1500", "1000");
	strcpy(d.interface, "eth0");
	doctor_link_mtu(&d, 1500);
	assert_says("path MTU", "warn", "1500 bytes by eth0, 25000 Mbit/s",
		    "ip link set dev eth0 mtu 9000");
	again();
	doctor_link_mtu(&d, 9000);
	strcpy(d.interface, "eth1");
	doctor_link_mtu(&d, 1500);
	assert_says("path MTU", "ok", "9000 bytes by eth0", "");
	assert_says("path MTU", "ok", "1500 bytes by eth1, 1000 Mbit/s", "");
}

/* Texts that are not as expected --------------------------------------------------------- */

static void test_lists(void **state)
{
	(void)state;
	assert_true(sys_list_has("0-3,8", 8) && sys_list_has("0-3,8", 0));
	assert_false(sys_list_has("0-3,8", 4) || sys_list_has("", 0) || sys_list_has("x", 0));
	assert_true(sys_list_within("1-2,8", "0-3,8") && sys_list_within("", "0"));
	assert_false(sys_list_within("1-4", "0-3,8"));
	assert_int_equal(sys_list_count("0-3,8"), 5);
	assert_int_equal(sys_list_count("0-99999999999"), 4096);
	assert_int_equal(sys_list_count("3-1"), 0);
}

static void test_texts_are_bounded(void **state)
{
	static char big[1 << 20];
	char text[16];
	int64_t n;

	(void)state;
	memset(big, '7', sizeof(big));
	put_bytes("/big", big, sizeof(big));
	put("/empty", "");
	put("/folder/x", "1");
	assert_int_equal(sys_text(&d.sys, text, sizeof(text), "/big"), 0);
	assert_int_equal(strlen(text), 15);
	assert_false(sys_number(&d.sys, &n, "/big"));
	assert_false(sys_number(&d.sys, &n, "/empty"));
	assert_false(sys_number(&d.sys, &n, "/missing"));
	assert_int_equal(sys_text(&d.sys, text, sizeof(text), "/folder"), -EISDIR);
	assert_int_equal(sys_text(&d.sys, text, sizeof(text), "/missing"), -ENOENT);
	assert_string_equal(text, "");
}

static const char *const paths[] = {
	IB "mlx5_0/node_type", IB "mlx5_0/ports/1/state", IB "mlx5_0/ports/1/link_layer",
	IB "mlx5_0/ports/1/rate", IB "mlx5_0/ports/1/gids/0", IB "mlx5_0/ports/1/gids/1",
	IB "mlx5_0/ports/1/gid_attrs/types/0", IB "mlx5_0/ports/1/gid_attrs/ndevs/0",
	IB "mlx5_0/device/numa_node", NET "eth2/mtu", NET "eth2/ifindex", NET "eth2/speed",
	NET "eth2/operstate", NET "eth2/device/numa_node", "/proc/self/limits",
	"/proc/self/status", "/proc/self/mounts", "/proc/meminfo", SHMEM,
	"/sys/devices/system/node/online", "/sys/devices/system/node/node0/distance",
	"/sys/devices/system/node/node0/cpulist", "/sys/devices/system/node/node0/meminfo",
	"/etc/fuse.conf", "/proc/sys/fs/fuse/max_pages_limit",
	"/proc/sys/fs/fuse/default_request_timeout", "/proc/sys/kernel/osrelease",
	"/sys/module/fuse/parameters/enable_uring", "/proc/sys/net/ipv4/tcp_rmem",
	"/proc/sys/net/core/rmem_max", "/lib/systemd/system/slicefs-node.service",
	"/etc/systemd/system/slicefs-node.service.d/a.conf", "/sys/class/infiniband_verbs/uverbs0/x",
};

static const char *const words[] = {
	"", "-1", "0", "1", "4: ACTIVE", "Ethernet", "InfiniBand", "RoCE v2", MAPPED, LINK_LOCAL,
	"eth2", "../../etc/passwd", "99999999999999999999999", "0-1", "0-4294967295", "10 21 x",
	"Max locked memory unlimited", "Max locked memory 1 2 bytes", "CapEff: zz",
	"Cpus_allowed_list: ,,-", "Mems_allowed_list: 0", "tmpfs /dev/shm tmpfs huge=",
	"HugePages_Free: -3\nHugepagesize: 99999999999999999 kB", "always [", "[deny]",
	"6", "6.", "6.6", "Node 0 MemTotal: -1 kB", "LimitMEMLOCK=9E\nExecStart=x\nUser=y",
	"ExecStart=", "LimitMEMLOCK=", "%s%n%s%n",
};

static void put_rubbish(const char *at)
{
	uint8_t b[3000];
	size_t n = (size_t)rand() % sizeof(b);

	if (rand() % 4) {
		put(at, words[(size_t)rand() % (sizeof(words) / sizeof(words[0]))]);
		return;
	}
	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)rand();
	put_bytes(at, b, n);
}

static void test_rubbish(void **state)
{
	const char *seed = getenv("SEED");
	unsigned s = seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)getpid();

	(void)state;
	printf("SEED=%u\n", s);
	srand(s);
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
			if (rand() % 3)
				put_rubbish(paths[i]);
		d.is_root = rand() % 2;
		verbs_mtu = (unsigned)rand() % 3 * 1024;
		strcpy(d.interface, rand() % 2 ? "eth2" : "");
		doctor_fuse(&d, &library);
		doctor_memory(&d);
		doctor_huge(&d);
		doctor_rdma(&d);
		doctor_memlock(&d);
		doctor_sockets(&d);
		doctor_numa(&d);
		assert_mends();
		again();
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_device_is_nothing_bad), TEST(roce), TEST(packets_of_roce),
		TEST(ports_that_are_down), TEST(no_address), TEST(infiniband),
		TEST(rxe_and_iwarp), TEST(modules_and_files), TEST(locked_memory),
		TEST(locked_memory_of_the_unit), TEST(huge_pages), TEST(hugetlb), TEST(room),
		TEST(one_node), TEST(two_nodes), TEST(two_nodes_by_tcp),
		TEST(fuse_that_is_there), TEST(fuse_that_is_not), TEST(buffers), TEST(packets),
		TEST(lists), TEST(texts_are_bounded), TEST(rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
