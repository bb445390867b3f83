/* SPDX-License-Identifier: Apache-2.0 */
/* latemap FILE: writes through a mapping after its descriptor was closed. */
#include <err.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: latemap FILE");
	int fd = open(argv[1], O_CREAT | O_TRUNC | O_RDWR, 0644);
	if (fd < 0 || ftruncate(fd, 8192))
		err(1, "%s", argv[1]);
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED || close(fd))
		err(1, "mmap");
	memcpy(p, "LATE", 4);
	if (munmap(p, 8192))
		err(1, "munmap");
	return 0;
}
