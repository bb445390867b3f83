/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount needs of the kernel, of libfuse and of fusermount3. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/error.h"
#include "fs/fs.h"
#include "tools/doctor.h"

enum { PAGES_WANTED = 256 /* of a request: 1 MiB */ };

static void check_device(struct doctor *d)
{
	int r = sys_access(&d->sys, R_OK | W_OK, "/dev/fuse");

	if (!r) {
		report_add(&d->report, CHECK_OK, "/dev/fuse", "can be read and written");
		return;
	}
	report_add(&d->report, CHECK_BAD, "/dev/fuse", "%s", error_text(r));
	if (r == -ENOENT)
		report_try(&d->report, "as root: modprobe fuse; in a container: --device /dev/fuse "
			   "--cap-add SYS_ADMIN");
	else
		report_try(&d->report, "as root: chmod a+rw /dev/fuse");
}

static void check_fusermount(struct doctor *d)
{
	static const char *const places[] = { "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin",
					      "/sbin" };

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (!sys_access(&d->sys, X_OK, "%s/fusermount3", places[i])) {
			report_add(&d->report, CHECK_OK, "fusermount3", "%s/fusermount3",
				   places[i]);
			return;
		}
	report_add(&d->report, d->is_root ? CHECK_OK : CHECK_BAD, "fusermount3", "not found: %s",
		   d->is_root ? "root does without, other users cannot mount" :
				"only root can mount without it");
	if (!d->is_root)
		report_try(&d->report, "as root: apt-get install fuse3");
}

static void check_allow_other(struct doctor *d)
{
	char rest[64];
	bool allowed = sys_field(&d->sys, "user_allow_other", rest, sizeof(rest),
				 "/etc/fuse.conf") && !*rest;

	if (allowed || d->is_root) {
		report_add(&d->report, CHECK_OK, "user_allow_other", "%s",
			   allowed ? "is in /etc/fuse.conf" :
			   "not in /etc/fuse.conf, which does not concern root's mounts");
		return;
	}
	report_add(&d->report, CHECK_WARN, "user_allow_other", "not in /etc/fuse.conf: mounts of "
		   "this user are for him alone, and --allow-other is refused");
	report_try(&d->report, "as root: echo user_allow_other >>/etc/fuse.conf");
}

static void check_pages(struct doctor *d)
{
	int64_t pages;

	if (!sys_number(&d->sys, &pages, "/proc/sys/fs/fuse/max_pages_limit")) {
		report_add(&d->report, CHECK_OK, "fuse max_pages_limit", "this kernel has none to "
			   "set: %d pages", PAGES_WANTED);
		return;
	}
	report_add(&d->report, pages >= PAGES_WANTED ? CHECK_OK : CHECK_WARN,
		   "fuse max_pages_limit", "%lld pages; requests have up to %d", (long long)pages,
		   PAGES_WANTED);
	if (pages < PAGES_WANTED)
		report_try(&d->report, "as root: sysctl fs.fuse.max_pages_limit=%d", PAGES_WANTED);
}

/* The kernel ends a whole mount whose daemon takes longer than that for one request. */
static void check_timeouts(struct doctor *d)
{
	static const char *const names[] = { "default_request_timeout", "max_request_timeout" };
	unsigned long long ours_s = (d->timeout_ms + 999) / 1000;
	const char *bad = NULL;
	int64_t s = 0;

	for (unsigned i = 0; i < 2 && !bad; i++)
		if (sys_number(&d->sys, &s, "/proc/sys/fs/fuse/%s", names[i]) && s > 0 &&
		    (unsigned long long)s <= 2 * ours_s)
			bad = names[i];
	if (!bad) {
		report_add(&d->report, CHECK_OK, "fuse request timeouts",
			   "none that would end a mount");
		return;
	}
	report_add(&d->report, CHECK_BAD, "fuse request timeouts", "%s is %lld s: the kernel ends "
		   "the mount when a request takes so long, which may be %llu s", bad,
		   (long long)s, ours_s);
	report_try(&d->report, "as root: sysctl fs.fuse.%s=0", bad);
}

static void check_kernel(struct doctor *d)
{
	static const struct {
		unsigned major, minor;
		const char *what;
	} has[] = {
		{ 6, 6, "reading large files past the page cache" },
		{ 6, 9, "passthrough" },
		{ 6, 14, "FUSE over io_uring" },
	};
	char text[64], list[256] = "";
	unsigned major = 0, minor = 0;

	if (sys_text(&d->sys, text, sizeof(text), "/proc/sys/kernel/osrelease") < 0 ||
	    sscanf(text, "%u.%u", &major, &minor) != 2) {
		report_add(&d->report, CHECK_SKIPPED, "kernel", "it does not say its version");
		return;
	}
	for (unsigned i = 0; i < 3; i++)
		if (major > has[i].major || (major == has[i].major && minor >= has[i].minor))
			snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s %s",
				 *list ? "," : ": has", has[i].what);
	report_add(&d->report, *list ? CHECK_OK : CHECK_WARN, "kernel", "%s%s", text, *list ? list :
		   ": large files are read through the page cache, which takes twice the time");
	if (!*list)
		report_try(&d->report, "Linux 6.6 or newer");
}

static void check_library(struct doctor *d, const struct fs_library *lib)
{
	char uring[8];
	bool has = sys_text(&d->sys, uring, sizeof(uring),
			    "/sys/module/fuse/parameters/enable_uring") == 0;

	report_add(&d->report, CHECK_OK, "libfuse", "%s, built with %u.%u%s", lib->running,
		   lib->major, lib->minor, lib->major == 3 && lib->minor < 17 ?
		   ": without O_TMPFILE, which needs 3.17" : "");
	report_add(&d->report, CHECK_OK, "fuse io_uring", "%s; slicefs does not need it",
		   !has ? "this kernel has none" :
		   *uring == 'Y' || *uring == '1' ? "enabled" : "not enabled");
}

void doctor_fuse(struct doctor *d, const struct fs_library *lib)
{
	check_device(d);
	check_fusermount(d);
	check_allow_other(d);
	check_pages(d);
	check_timeouts(d);
	check_kernel(d);
	check_library(d, lib);
}
