/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hold FILE BYTES [OFFSET]: opens FILE for writing (makes it if missing), writes
 * BYTES bytes at OFFSET, prints "ready", and keeps it open until standard input
 * ends. A shell cannot do that: each `cmd >&8` closes a duplicate, which is a
 * FLUSH. With "sync" as a fourth argument: fsync, then BYTES more bytes.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(int fd, size_t n, off_t off)
{
	char buf[65536];

	memset(buf, 'H', sizeof(buf));
	while (n) {
		size_t len = n < sizeof(buf) ? n : sizeof(buf);
		if (pwrite(fd, buf, len, off) != (ssize_t)len)
			err(1, "write");
		n -= len;
		off += (off_t)len;
	}
}

int main(int argc, char **argv)
{
	char c;

	if (argc < 3)
		errx(2, "usage: hold FILE BYTES [OFFSET [sync]]");
	size_t n = strtoul(argv[2], NULL, 10);
	off_t off = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
	int fd = open(argv[1], O_CREAT | O_RDWR, 0644);
	if (fd < 0)
		err(1, "%s", argv[1]);
	put(fd, n, off);
	if (argc > 4) {
		if (fsync(fd))
			err(1, "fsync");
		put(fd, n, off + (off_t)n);
	}
	puts("ready");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	if (close(fd))
		err(1, "close");
	return 0;
}
