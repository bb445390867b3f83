/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk: random file operations through two mounts of one index, against a model.
 *
 *	walk [-s SEED] [-n STEPS] DIR-OF-ONE-MOUNT THE-SAME-OF-THE-OTHER
 *
 * Both are one directory, empty, of mounts with --cache 0. The first thing that is
 * not as the model says ends it with status 1. The seed that repeats it is printed,
 * and how long the longest step took.
 */
#include <err.h>
#include <inttypes.h>

#include "tests/e2e/two_mounts.h"

int main(int argc, char **argv)
{
	uint64_t seed = (uint64_t)time(NULL);
	unsigned steps = 4000;
	int c;

	while ((c = getopt(argc, argv, "s:n:")) != -1)
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			steps = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	if (optind + 2 != argc)
		errx(2, "usage: walk [-s SEED] [-n STEPS] DIR SAME-DIR");
	printf("walk: seed %" PRIu64 ", %u steps\n", seed, steps);
	fflush(stdout);
	umask(0);
	uint64_t ms = walk((const char *const[]){ argv[optind], argv[optind + 1] }, seed,
			   steps, true);
	printf("walk: the longest step took %" PRIu64 " ms\n", ms);
	return 0;
}
