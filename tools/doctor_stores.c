/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts whose daemon is gone or stuck, and stores that take memory and are not used. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/bytes.h"
#include "common/error.h"
#include "common/size.h"
#include "engine/engine.h"
#include "tools/doctor.h"
#include "tools/mounts.h"
#include "tools/stores.h"

enum { HUNG_MAX = 4 /* mounts that are waited for in full */ };

struct mounts {
	struct doctor *d;
	unsigned n, hung;
	bool wrong;
};

static int check_mount(const struct mount_line *m, void *arg)
{
	struct mounts *x = arg;
	unsigned ms = x->hung < HUNG_MAX ? x->d->timeout_ms : 1000;
	int dead = mounts_is_dead(m->dir, ms);

	x->n++;
	if (!dead)
		return 0;
	x->wrong = true;
	x->hung += dead < 0;
	if (dead > 0)
		report_add(&x->d->report, CHECK_BAD, "mounts", "%s: its daemon is gone", m->dir);
	else
		report_add(&x->d->report, CHECK_BAD, "mounts", "%s: no answer within %g s", m->dir,
			   ms / 1000.0);
	report_try(&x->d->report, "slicefs umount %s%s", dead > 0 ? "" : "--abort ", m->dir);
	return 0;
}

static void check_mounts(struct doctor *d)
{
	struct mounts x = { .d = d };
	int r = mounts_each(check_mount, &x);

	if (r < 0)
		report_add(&d->report, CHECK_SKIPPED, "mounts", "/proc/self/mountinfo: %s",
			   error_text(r));
	else if (!x.wrong)
		report_add(&d->report, CHECK_OK, "mounts", "%u, none of them dead or stuck", x.n);
}

struct stores {
	struct doctor *d;
	unsigned n, stopped;
	uint64_t stopped_bytes;
	struct writer names; /* of the stopped */
	bool wrong;
};

static int check_store(const char *name, const char *dir, void *arg)
{
	struct stores *x = arg;
	struct store_stat st;

	if (engine_store_stat(dir, &st) < 0 || st.state == STORE_NONE)
		return 0;
	x->n++;
	if (st.state == STORE_DAMAGED) {
		x->wrong = true;
		report_add(&x->d->report, CHECK_BAD, "stores", "%s is damaged", name);
		report_try(&x->d->report, "slicefs fsck %s, or slicefs store rm %s, which gives "
			   "its objects up", name, name);
	}
	if (st.state != STORE_STOPPED)
		return 0;
	x->stopped++;
	x->stopped_bytes += st.pool_bytes + st.index_bytes;
	write_format(&x->names, " %s", name);
	return 0;
}

static void check_stores(struct doctor *d)
{
	struct stores x = { .d = d };

	stores_each(check_store, &x);
	write_u8(&x.names, 0);
	if (x.stopped) {
		report_add(&d->report, CHECK_WARN, "stores", "%u of %u are used by nobody and keep "
			   "%s for the next mount", x.stopped, x.n,
			   size_text(x.stopped_bytes).s);
		report_try(&d->report, "slicefs store rm%s, if their objects are not needed",
			   x.names.bad ? " NAME" : (const char *)x.names.p);
	} else if (!x.wrong) {
		report_add(&d->report, CHECK_OK, "stores", "%u, none of them unused", x.n);
	}
	writer_fini(&x.names);
}

static void check_shm(struct doctor *d)
{
	struct statvfs v;

	if (statvfs("/dev/shm", &v) < 0) {
		report_add(&d->report, d->is_root ? CHECK_WARN : CHECK_BAD, "/dev/shm", "%s",
			   error_text(errno));
		report_try(&d->report, "as root: mount -t tmpfs -o mode=1777 tmpfs /dev/shm");
		return;
	}
	uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
	bool enough = d->is_root || room >= d->pool_bytes + d->pool_bytes / 8;
	report_add(&d->report, enough ? CHECK_OK : CHECK_BAD, "/dev/shm", "%s are free%s",
		   size_text(room).s, d->is_root ? "; root's stores are on a tmpfs of their own" :
		   "");
	if (!enough)
		report_try(&d->report, "as root: mount -o remount,size=%lluM /dev/shm",
			   (unsigned long long)((d->pool_bytes + d->pool_bytes / 8 +
						 (uint64_t)v.f_blocks * v.f_frsize - room) >> 20) +
				   64);
}

void doctor_stores(struct doctor *d)
{
	check_mounts(d);
	check_stores(d);
	check_shm(d);
}
