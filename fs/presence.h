/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which directories of this mount processes stand in, or have open. It takes its time, so it is
 * done in steps, of which the next one goes on where the last one ended.
 *
 * Threads: one at a time for each struct presence.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs;

struct presence { /* all zeros at first */
	uint32_t major, minor; /* of the file system */
	DIR *proc;             /* what is left of it is to be looked at; NULL: nothing is */
	uint64_t *dirs;        /* fileids, that were found and not told yet */
	size_t n, cap;
};

void presence_fini(struct presence *p);

/* From the beginning, in the file system that path is in. False: it cannot be. */
bool presence_begin(struct presence *p, const char *path);
/* Looks at processes until then, at one at least. True: that was all, and in p->dirs is each once. */
bool presence_find(struct presence *p, uint64_t until_ns);

/* A step, from the beginning or from where it was: tells the index which directories processes are
 * in. True: that was all. Blocks; not a worker's. */
bool presence_tell(struct fs *fs, struct presence *p, bool begin);
/* How often that is to be done. */
unsigned presence_interval_ms(struct fs *fs);
