/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Bytes between descriptors here and open files on a node, several requests at a time.
 */
#include <stdbool.h>

#include "tools/client.h"

/* Whose fault an error is, when both sides can have it. */
struct carried {
	bool is_local; /* the descriptor's */
};

/*
 * All that fd has, from its beginning if it is a file, else from where it is, into f,
 * which is empty and open for writing. Holes stay holes. 0, or a negative errno, after
 * which nothing of it is under way; -ESTALE: a file became shorter meanwhile. `about`:
 * f's path, for a message.
 */
int carry_in(struct client *c, int fd, struct file *f, const char *about,
	     struct carried *ret);

/* Where the next bytes of a file of that size are, from *off on: [*off, *end). False:
 * nothing but a hole is left. */
bool carry_next_run(int fd, uint64_t size, uint64_t *off, uint64_t *end);

/* All of f into fd, a new file: `sparse`, with its holes; or else whatever it is, one
 * byte behind the other. The same errors. */
int carry_out(struct client *c, struct file *f, int fd, bool sparse, const char *about,
	      struct carried *ret);
