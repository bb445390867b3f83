/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* For processes that use a mount while another one serves it: a failed expectation is
 * said, with its line, and ends this one with status 1. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(x)                                                              \
	do {                                                                   \
		if (!(x)) {                                                    \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #x,     \
				strerror(errno));                              \
			_exit(1);                                              \
		}                                                              \
	} while (0)
