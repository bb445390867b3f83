/* SPDX-License-Identifier: Apache-2.0 */
/* cycles DIR N: N times open, write, close, unlink, in two processes. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void cycle(const char *dir, int who, unsigned long i, const char *buf)
{
	static const size_t sizes[] = { 0, 10, 900, 4096, 5000, 20000, 70000 };
	size_t n = sizes[i % 7];
	char path[4096];

	snprintf(path, sizeof(path), "%s/c%d.%lu", dir, who, i % 100);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0 || (n && write(fd, buf, n) != (ssize_t)n) || close(fd) || unlink(path))
		err(1, "%s", path);
}

int main(int argc, char **argv)
{
	static char buf[70000];

	if (argc != 3)
		errx(2, "usage: cycles DIR N");
	unsigned long n = strtoul(argv[2], NULL, 10);
	memset(buf, 'c', sizeof(buf));
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	for (unsigned long i = 0; i < n / 2; i++)
		cycle(argv[1], pid == 0, i, buf);
	if (pid == 0)
		_exit(0);
	int status;
	waitpid(pid, &status, 0);
	return status != 0;
}
