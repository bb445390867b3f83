/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock is of the open file description: unlike flock() it can be asked for
 * without being taken, so that looking at a store never makes a mount fail; and it
 * ends with the process, however that ends.
 */
#include "engine/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

/* See proc_pid_stat(5): PF_EXITING of the kernel's flags, and a SIGKILL that its first thread has
 * not taken yet. When that has ended the others, and with them its memory and what it had open,
 * may take their time, while those who wait for its mount have been told already. */
static bool is_ending(pid_t pid)
{
	enum { EXITING = 4 };
	char path[32], line[1024], state;
	unsigned long pending;
	unsigned flags;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	const char *after_name = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	return after_name &&
	       sscanf(after_name, ") %c %*d %*d %*d %*d %*d %u"
		      " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
		      " %*s %*s %*s %lu", &state, &flags, &pending) == 3 &&
	       (state == 'Z' || state == 'X' || flags & EXITING || pending >> (SIGKILL - 1) & 1);
}

struct lockfile_owner lockfile_owner(int fd)
{
	struct lockfile_owner owner = { 0 };
	char s[96] = "";
	int pid;

	if (pread(fd, s, sizeof(s) - 1, 0) > 0 && sscanf(s, "%d serves %63s", &pid, owner.serves))
		owner.pid = pid;
	owner.ends = owner.pid && is_ending(owner.pid);
	return owner;
}

/* Begins with what is there: who looks meanwhile sees a pid. */
int lockfile_note(int fd, const char *serves)
{
	char s[96];
	int n = snprintf(s, sizeof(s), "%d serves %s\n", (int)getpid(), serves);

	if (n >= (int)sizeof(s))
		return -ENAMETOOLONG;
	return pwrite(fd, s, (size_t)n, 0) == n ? 0 : -errno;
}

bool lockfile_is_taken(int fd)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

int lockfile_take(const char *path, bool create, int *ret_fd, struct lockfile_owner *ret_owner)
{
	uint64_t until = clock_ns() + LOCKFILE_END_MS * NS_PER_MS;

	for (;;) {
		struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		struct stat mine, there;
		_cleanup_(closep) int fd = open(path, O_RDWR | (create ? O_CREAT : 0) |
						O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return -errno;
		if (fcntl(fd, F_OFD_SETLK, &l)) {
			int r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
			*ret_owner = lockfile_owner(fd);
			if (r != -EBUSY || !ret_owner->ends || clock_ns() >= until)
				return r;
			usleep(1000);
			continue;
		}
		/* Somebody may have removed the store between the two calls. */
		if (fstat(fd, &mine) || stat(path, &there) || mine.st_ino != there.st_ino)
			continue;
		if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0)
			return -errno;
		*ret_fd = fd;
		fd = -1;
		return 0;
	}
}
