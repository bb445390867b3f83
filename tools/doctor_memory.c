/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for a pool: how much may be locked (RDMA pins what it registers), whether it
 * comes in huge pages, and whether there is enough.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "tools/doctor.h"

#define MIB (1ULL << 20)
#define HUGE "/sys/kernel/mm/transparent_hugepage"
#define UNIT "slicefs-node.service"

enum { CAP_IPC_LOCK_BIT = 14 };

/* Locked memory ------------------------------------------------------------------------ */

/* "8388608   8388608   bytes": what counts is the first; UINT64_MAX: no limit. */
static bool memlock_limit(const struct sys *s, uint64_t *ret, bool *ret_may_rise)
{
	char line[128], soft[32], hard[32];

	if (!sys_field(s, "Max locked memory", line, sizeof(line), "/proc/self/limits") ||
	    sscanf(line, "%31s %31s", soft, hard) != 2)
		return false;
	*ret = !strcmp(soft, "unlimited") ? UINT64_MAX : strtoull(soft, NULL, 10);
	*ret_may_rise = !strcmp(hard, "unlimited");
	return true;
}

static bool may_lock_all(const struct sys *s)
{
	char caps[32];

	return sys_field(s, "CapEff:", caps, sizeof(caps), "/proc/self/status") &&
	       strtoull(caps, NULL, 16) >> CAP_IPC_LOCK_BIT & 1;
}

static void check_shell(struct doctor *d)
{
	uint64_t limit;
	bool may_rise;

	if (!memlock_limit(&d->sys, &limit, &may_rise)) {
		report_add(&d->report, CHECK_SKIPPED, "locked memory",
			   "/proc/self/limits does not say");
		return;
	}
	if (limit == UINT64_MAX || limit >= d->pool_bytes) {
		report_add(&d->report, CHECK_OK, "locked memory", "%s for a pool of %s",
			   limit == UINT64_MAX ? "no limit" : size_text(limit).s,
			   size_text(d->pool_bytes).s);
		return;
	}
	if (may_lock_all(&d->sys)) {
		report_add(&d->report, CHECK_OK, "locked memory", "this user may exceed the limit "
			   "of %s", size_text(limit).s);
		return;
	}
	report_add(&d->report, d->rdma_devices.n ? CHECK_BAD : CHECK_SKIPPED, "locked memory",
		   "at most %s, and a pool of %s is %s", size_text(limit).s,
		   size_text(d->pool_bytes).s, d->rdma_devices.n ? "registered with RDMA devices" :
		   "not registered without RDMA");
	if (!d->rdma_devices.n)
		return;
	if (may_rise)
		report_try(&d->report, "ulimit -l unlimited");
	else
		report_try(&d->report, "as root: echo '* - memlock unlimited' >"
			   "/etc/security/limits.d/slicefs.conf; then log in again");
}

/* systemd's sizes: "infinity", "64G", "1024:64M" (soft:hard), in powers of 1024. */
static uint64_t systemd_size(const char *text)
{
	static const char units[] = "KMGTPE";
	char *end;
	uint64_t v = strtoull(text, &end, 10);
	const char *u = *end ? strchr(units, *end) : NULL;

	if (!strncmp(text, "infinity", 8))
		return UINT64_MAX;
	for (; u && u >= units && v < UINT64_MAX >> 10; u--)
		v <<= 10;
	return v;
}

/* The last of its setting in the unit and what is dropped in beside it. */
static bool unit_setting(const struct sys *s, const char *name, char *ret, size_t len)
{
	static const char *const places[] = { "/lib/systemd/system", "/usr/lib/systemd/system",
					      "/usr/local/lib/systemd/system",
					      "/etc/systemd/system" };
	_cleanup_(freep) struct sys_names *drops = malloc(sizeof(*drops));
	char one[128];
	bool found = false;

	if (!drops)
		return false;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (sys_field(s, name, one, sizeof(one), "%s/" UNIT, places[i])) {
			snprintf(ret, len, "%s", one);
			found = true;
		}
	sys_names(s, drops, "/etc/systemd/system/" UNIT ".d");
	for (unsigned i = 0; i < drops->n; i++)
		if (sys_field(s, name, one, sizeof(one), "/etc/systemd/system/" UNIT ".d/%s",
			      drops->v[i])) {
			snprintf(ret, len, "%s", one);
			found = true;
		}
	return found;
}

static void check_unit(struct doctor *d)
{
	char limit[128], user[128] = "root";
	bool has_limit = unit_setting(&d->sys, "LimitMEMLOCK=", limit, sizeof(limit));

	if (!unit_setting(&d->sys, "ExecStart=", user, sizeof(user))) {
		report_add(&d->report, CHECK_SKIPPED, "locked memory of " UNIT,
			   "it is not installed");
		return;
	}
	if (!unit_setting(&d->sys, "User=", user, sizeof(user)) || !*user)
		snprintf(user, sizeof(user), "root");
	if ((has_limit && systemd_size(limit) >= d->pool_bytes) || !strcmp(user, "root")) {
		report_add(&d->report, CHECK_OK, "locked memory of " UNIT, "LimitMEMLOCK=%s, as %s",
			   has_limit ? limit : "", user);
		return;
	}
	report_add(&d->report, d->rdma_devices.n ? CHECK_BAD : CHECK_WARN, "locked memory of " UNIT,
		   "LimitMEMLOCK=%s, as %s, for a pool of %s", has_limit ? limit : "", user,
		   size_text(d->pool_bytes).s);
	report_try(&d->report, "mkdir -p /etc/systemd/system/" UNIT ".d && printf "
		   "'[Service]\\nLimitMEMLOCK=infinity\\n' >/etc/systemd/system/" UNIT
		   ".d/memlock.conf && systemctl daemon-reload");
}

void doctor_memlock(struct doctor *d)
{
	check_shell(d);
	check_unit(d);
}

/* Huge pages --------------------------------------------------------------------------- */

/* The word in brackets. */
static void chosen(const char *text, char ret[32])
{
	const char *at = strchr(text, '[');

	*ret = '\0';
	if (at)
		snprintf(ret, 32, "%.*s", (int)strcspn(at + 1, "]"), at + 1);
}

/* What the mount of /dev/shm says of huge pages: "huge=advise" and its like, or "". */
static void shm_huge(const struct sys *s, char ret[32])
{
	char line[1024];
	const char *at;

	*ret = '\0';
	if (!sys_field(s, "tmpfs /dev/shm ", line, sizeof(line), "/proc/self/mounts") &&
	    !sys_field(s, "shm /dev/shm ", line, sizeof(line), "/proc/self/mounts"))
		return;
	at = strstr(line, "huge=");
	if (at)
		snprintf(ret, 32, "%.*s", (int)strcspn(at, ", "), at);
}

static void check_root_huge(struct doctor *d, const char *policy)
{
	bool denied = !strcmp(policy, "deny");

	report_add(&d->report, denied ? CHECK_WARN : CHECK_OK, "huge pages", "%s",
		   denied ? "shmem_enabled is \"deny\", so a tmpfs has none" :
			    "root's pools are on a tmpfs huge=always");
	if (denied)
		report_try(&d->report, "echo never >" HUGE "/shmem_enabled");
}

static void check_user_huge(struct doctor *d, const char *policy)
{
	char huge[32];

	shm_huge(&d->sys, huge);
	bool has = (*huge && strcmp(huge, "huge=never") && strcmp(policy, "deny")) ||
		   !strcmp(policy, "force");
	report_add(&d->report, has ? CHECK_OK : CHECK_WARN, "huge pages", "a user's pools are in "
		   "/dev/shm, which is mounted with %s%s", *huge ? huge : "no huge=",
		   has ? "" : ": pages of 4 KiB are several times slower");
	if (!has)
		report_try(&d->report, "as root: mount -o remount,huge=advise /dev/shm");
}

static void check_hugetlb(struct doctor *d)
{
	char text[64];
	unsigned long long n = 0, size = 0;

	if (sys_field(&d->sys, "HugePages_Free:", text, sizeof(text), "/proc/meminfo"))
		n = strtoull(text, NULL, 10);
	if (sys_field(&d->sys, "Hugepagesize:", text, sizeof(text), "/proc/meminfo"))
		size = strtoull(text, NULL, 10) * 1024;
	if (!n || !size) {
		report_add(&d->report, CHECK_OK, "hugetlb", "no page is set aside unused");
		return;
	}
	report_add(&d->report, CHECK_WARN, "hugetlb", "%llu pages of %s are set aside and not in "
		   "use; slicefs does not use them, and cannot have that memory otherwise", n,
		   size_text(size).s);
	report_try(&d->report, "as root: sysctl vm.nr_hugepages=0");
}

void doctor_huge(struct doctor *d)
{
	char text[128], policy[32];

	if (sys_text(&d->sys, text, sizeof(text), HUGE "/shmem_enabled") < 0) {
		report_add(&d->report, CHECK_WARN, "huge pages", "this kernel has none for a "
			   "tmpfs: pages of 4 KiB are several times slower");
		report_try(&d->report, "a kernel with CONFIG_TRANSPARENT_HUGEPAGE");
	} else {
		chosen(text, policy);
		if (d->is_root)
			check_root_huge(d, policy);
		else
			check_user_huge(d, policy);
	}
	check_hugetlb(d);
}

/* Room --------------------------------------------------------------------------------- */

static uint64_t index_of(uint64_t pool_bytes)
{
	return MAX(pool_bytes / 8, 64 * MIB);
}

/* The largest pool, in MiB, that fits with its index and a little besides. */
static uint64_t pool_that_fits(uint64_t room)
{
	const uint64_t slack = 4 * MIB;

	if (room < slack + 64 * MIB)
		return 0;
	return MIN((room - slack) / 9 * 8, room - slack - 64 * MIB) / MIB;
}

void doctor_memory(struct doctor *d)
{
	const struct probe_memory *m = &d->memory;
	uint64_t room = m->available_bytes - MIN(m->available_bytes, m->left_bytes);
	uint64_t fits = pool_that_fits(room);

	if (!m->total_bytes) {
		report_add(&d->report, CHECK_BAD, "memory", "/proc/meminfo does not say how much "
			   "there is");
		report_try(&d->report, "mount -t proc proc /proc");
		return;
	}
	bool enough = fits >= d->pool_bytes / MIB;
	report_add(&d->report, enough ? CHECK_OK : CHECK_BAD, "memory", "%s of %s are available, "
		   "%s of them for others: a pool of %s with an index of %s %s",
		   size_text(m->available_bytes).s, size_text(m->total_bytes).s,
		   size_text(m->left_bytes).s, size_text(d->pool_bytes).s,
		   size_text(index_of(d->pool_bytes)).s, enough ? "fits" : "does not fit");
	if (!enough && fits >= 16)
		report_try(&d->report, "slicefs mount --pool-size %lluM DIR",
			   (unsigned long long)fits);
	else if (!enough)
		report_try(&d->report, "slicefs store ls, and slicefs store rm of what is not "
			   "needed");
}
