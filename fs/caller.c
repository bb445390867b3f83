/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks: a request says user, group and thread only. Supplementary groups and
 * capabilities are in /proc/TID/status, which stands still while the thread waits
 * for us, and is believed if it is about the same user and group: a server in the
 * kernel acts for others.
 */
#include <ctype.h>
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

static void take_line(struct status *s, const char *line, const struct fuse_ctx *c,
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

bool caller_is_outside(struct req *q, gid_t gid)
{
	const struct fuse_ctx *c = fuse_req_ctx(q->fuse);
	_cleanup_(freep) char *line = NULL;
	struct status s = { 0 };
	char path[32];
	size_t cap = 0;

	if (c->gid == gid)
		return false;
	snprintf(path, sizeof(path), "/proc/%ld/status", (long)c->pid);
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	while (f && getline(&line, &cap, f) > 0)
		take_line(&s, line, c, gid);
	if (!s.same_user || !s.same_group)
		return c->uid != 0;
	return !s.in_group && !s.fsetid;
}
