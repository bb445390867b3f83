/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PR_SET_PDEATHSIG is sent when the thread that spawned the process ends, whatever the other
 * threads of that process wait for; it outlives execve(2). The descriptor is of this connection only:
 * when that has gone it names none, also if another one has the same number then.
 */
#include "tools/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "tools/cmd.h"
#include "tools/mounts.h"

#define NAME "guard"

extern char **environ;

static int spawn(int fd, char **argv)
{
	posix_spawn_file_actions_t files;
	pid_t pid;
	int r = -posix_spawn_file_actions_init(&files);

	if (r < 0)
		return r;
	r = -posix_spawn_file_actions_adddup2(&files, fd, STDIN_FILENO);
	for (int to = STDOUT_FILENO; !r && to <= STDERR_FILENO; to++)
		r = -posix_spawn_file_actions_addopen(&files, to, "/dev/null", O_WRONLY, 0);
	if (!r)
		r = -posix_spawn(&pid, "/proc/self/exe", &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	return r;
}

int guard_begin(const char *dir)
{
	char parent[16];
	char *argv[] = { (char *)"slicefs", (char *)NAME, (char *)dir, parent, NULL };
	struct mount_line m;

	if (!mounts_find(dir, &m))
		return -ENOENT;
	_cleanup_(closep) int fd = mounts_open_abort(&m);
	if (fd < 0)
		return fd;
	snprintf(parent, sizeof(parent), "%d", (int)getpid());
	return spawn(fd, argv);
}

static void watch(pid_t parent)
{
	static const int to_all[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	sigset_t gone;
	int sig;

	close_range(STDERR_FILENO + 1, ~0U, 0);
	(void)!chdir("/");
	/* What is said to a terminal's processes, or a service's, is the daemon's to follow. */
	for (unsigned i = 0; i < sizeof(to_all) / sizeof(*to_all); i++)
		signal(to_all[i], SIG_IGN);
	sigemptyset(&gone);
	sigaddset(&gone, SIGUSR1);
	sigprocmask(SIG_BLOCK, &gone, NULL);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	if (getppid() == parent)
		sigwait(&gone, &sig);
	(void)!write(STDIN_FILENO, "1", 1); /* of one that has ended in order nothing is left */
}

bool guard_main(int argc, char **argv, int *ret_status)
{
	if (argc != 4 || strcmp(argv[1], NAME))
		return false;
	watch((pid_t)atoi(argv[3]));
	*ret_status = EXIT_DONE;
	return true;
}
