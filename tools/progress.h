/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How far a command has come that copies much: a line with a bar, a rate and the time that
 * is left on a terminal (stderr), or an object a line (stdout), one a second.
 *
 * Threads: any. The numbers are counted by whoever copies.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

struct progress {
	_Atomic uint64_t moved;      /* bytes, also of files that are not done yet */
	_Atomic uint64_t passed;     /* bytes that need not be moved: holes, what failed */
	_Atomic uint64_t files, bytes;                 /* copied */
	_Atomic uint64_t skipped, skipped_bytes;       /* there, and equal */
	_Atomic uint64_t failed;
	_Atomic uint64_t total_files, total_bytes;     /* found so far */
	atomic_bool is_total;                          /* that is all */
};

enum progress_how { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_LINES };

/* This thread has copied so much of a file. */
void progress_moved(struct progress *p, uint64_t bytes);
/* And is done with it, however that ended: it was counted in total_bytes with so many. */
void progress_ended(struct progress *p, uint64_t bytes);

/* Begins to show *p; once in a process. Without a thread nothing is shown. */
void progress_begin(struct progress *p, enum progress_how how);
/* The bar goes; nothing is shown any more. */
void progress_end(void);

/* A line of ASCII on the terminal (stderr), over the last one, and no wider than it. */
void progress_show(const char *line);

/* Prints {"event": event, ...} on stdout, with what `more` has (taken; or NULL). */
void progress_event(const char *event, json_t *more);

/* The numbers of p: {"files": ..., ...}. NULL: no memory. */
json_t *progress_numbers(const struct progress *p);
