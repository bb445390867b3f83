/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks: a request says user, group and thread only. Supplementary groups,
 * capabilities and signals are in /proc/TID/status. The thread waits for us, so what it is
 * stands still; of groups and capabilities it is believed if it is about the same user and
 * group: a server in the kernel acts for others.
 */
#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "fs/priv.h"

enum { CAPABILITY_FSETID = 4 }; /* capability.h; a bit of CapEff */

struct status {
	bool same_user, same_group, fsetid, in_group;
};

/* The fourth of a line's numbers: real, effective, saved, and of the file system. */
static bool is_fsid(const char *numbers, unsigned id)
{
	unsigned v[4];

	return sscanf(numbers, "%u %u %u %u", &v[0], &v[1], &v[2], &v[3]) == 4 &&
	       v[3] == id;
}

static bool has_number(const char *p, unsigned long n)
{
	for (;;) {
		while (isspace((unsigned char)*p))
			p++;
		if (!*p)
			return false;
		char *end;
		if (strtoul(p, &end, 10) == n)
			return true;
		if (end == p)
			return false;
		p = end;
	}
}

static void take_who(struct status *s, const char *line, const struct fuse_ctx *c,
		     gid_t gid)
{
	const char *colon = strchr(line, ':');

	if (!colon)
		return;
	if (!strncmp(line, "Uid:", 4))
		s->same_user = is_fsid(colon + 1, c->uid);
	else if (!strncmp(line, "Gid:", 4))
		s->same_group = is_fsid(colon + 1, c->gid);
	else if (!strncmp(line, "Groups:", 7))
		s->in_group = has_number(colon + 1, gid);
	else if (!strncmp(line, "CapEff:", 7))
		s->fsetid = strtoull(colon + 1, NULL, 16) >> CAPABILITY_FSETID & 1;
}

static FILE *proc_open(const struct fuse_ctx *c, const char *what)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%ld/%s", (long)c->pid, what);
	return fopen(path, "re");
}

bool caller_is_outside(struct req *q, gid_t gid)
{
	const struct fuse_ctx *c = fuse_req_ctx(q->fuse);
	_cleanup_(freep) char *line = NULL;
	struct status s = { 0 };
	size_t cap = 0;

	if (c->gid == gid)
		return false;
	_cleanup_(fclosep) FILE *f = proc_open(c, "status");
	while (f && getline(&line, &cap, f) > 0)
		take_who(&s, line, c, gid);
	if (!s.same_user || !s.same_group)
		return c->uid != 0;
	return !s.in_group && !s.fsetid;
}

bool caller_may_open(struct req *q, const struct attr *a, int flags)
{
	static const uint32_t needs[O_ACCMODE + 1] = { 4, 2, 6, 6 };
	const struct fuse_ctx *c = fuse_req_ctx(q->fuse);
	uint32_t need = needs[flags & O_ACCMODE], may = a->mode >> 3 & a->mode;

	if (c->uid == 0)
		return true;
	if (flags & O_TRUNC)
		need |= 2;
	if (c->uid == a->uid)
		may = a->mode >> 6;
	else if (a->has_xattrs)
		return false; /* an ACL may say otherwise */
	return (may & need) == need;
}

/* Signals ----------------------------------------------------------------------- */

struct signals {
	uint64_t pending, held; /* held: blocked, ignored or caught */
};

static void take_signals(struct signals *s, const char *line)
{
	char name[8];
	uint64_t bits;

	if (sscanf(line, "%7[A-Za-z]: %" SCNx64, name, &bits) != 2)
		return;
	if (!strcmp(name, "SigPnd") || !strcmp(name, "ShdPnd"))
		s->pending |= bits;
	if (!strcmp(name, "SigBlk") || !strcmp(name, "SigIgn") || !strcmp(name, "SigCgt"))
		s->held |= bits;
}

/* Those that kill nobody who has not asked for them. */
static uint64_t harmless(void)
{
	static const int list[] = { SIGCHLD, SIGCONT, SIGURG, SIGWINCH,
				    SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU };
	uint64_t bits = 0;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		bits |= UINT64_C(1) << (list[i] - 1);
	return bits;
}

bool caller_is_dying(fuse_req_t f)
{
	_cleanup_(fclosep) FILE *status = proc_open(fuse_req_ctx(f), "status");
	_cleanup_(freep) char *line = NULL;
	struct signals s = { 0 };
	size_t cap = 0;

	while (status && getline(&line, &cap, status) > 0)
		take_signals(&s, line);
	return !status || (s.pending & ~s.held & ~harmless());
}
