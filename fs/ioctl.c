/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FS_WAIT, a wait for a name. It is no request like the others: whoever waits has asked
 * for it, so it has a gauge of its own, and any signal ends it (P6).
 *
 * Who may open the directory may list it: so nothing is told here that he could not see.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/priv.h"

struct waiting {
	struct wait wait; /* first */
	fuse_req_t f;
	struct fs *fs;
};

static void interrupted(fuse_req_t f, void *arg)
{
	struct waiting *p = arg;

	(void)f;
	atomic_store(&p->wait.cancelled, true);
	waits_kick(p->fs->waits);
}

static void reply(fuse_req_t f, int r)
{
	if (r)
		fuse_reply_err(f, r == -ECANCELED ? EINTR : -r);
	else
		fuse_reply_ioctl(f, 0, NULL, 0);
}

static void waited(struct wait *w, int r)
{
	struct waiting *p = (struct waiting *)w;
	struct fs *fs = p->fs;

	/* Waits for a running interrupted(). */
	fuse_req_interrupt_func(p->f, NULL, NULL);
	reply(p->f, r);
	free(p);
	atomic_fetch_sub(&fs->pending, 1);
}

static int begin(fuse_req_t f, struct fs *fs, fuse_ino_t dir, const struct fs_wait *asked)
{
	size_t len = strlen(asked->name);
	uint32_t ms = asked->timeout_ms < FS_WAIT_MS_MAX ? asked->timeout_ms : FS_WAIT_MS_MAX;
	struct waiting *p;

	if (!len || len > INDEX_NAME_MAX)
		return len ? -ENAMETOOLONG : -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->f = f;
	p->fs = fs;
	p->wait.parent = dir;
	memcpy(p->wait.name, asked->name, len);
	p->wait.deadline_ns = clock_ns() + ms * NS_PER_MS;
	p->wait.done = waited;
	atomic_fetch_add(&fs->pending, 1);
	fuse_req_interrupt_func(f, interrupted, p);
	int r = waits_add(fs->waits, &p->wait);
	if (r < 0) {
		fuse_req_interrupt_func(f, NULL, NULL);
		free(p);
		atomic_fetch_sub(&fs->pending, 1);
	}
	return r;
}

void fs_ioctl(fuse_req_t f, fuse_ino_t ino, unsigned cmd, void *arg,
	      struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_len,
	      size_t out_len)
{
	struct fs *fs = fuse_req_userdata(f);
	struct fs_wait asked;
	int r;

	(void)arg;
	(void)fi;
	(void)out_len;
	if (cmd != FS_WAIT || !(flags & FUSE_IOCTL_DIR) || in_len != sizeof(asked) ||
	    is_control(ino)) {
		reply(f, -ENOTTY);
		return;
	}
	memcpy(&asked, in, sizeof(asked));
	asked.name[sizeof(asked.name) - 1] = '\0';
	r = is_control_name(fs, ino, asked.name) ? 1 : begin(f, fs, ino, &asked);
	if (r)
		reply(f, r > 0 ? 0 : r);
}
