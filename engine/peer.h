/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An engine whose pool and index are another host's: the link to that node, what
 * is known of its room, and what its sessions mean for open files.
 *
 * Threads: peer_open() and peer_close() block; peer_stat() is any thread's.
 */
#include "engine/priv.h"
#include "engine/remote.h"

struct peer;

/* Connects (o->node, token_file, name, read_only, timeout_ms). */
int peer_open(struct engine *e, const struct engine_opts *o, struct peer **ret, char **ret_why);
/* e->files and e->ix are there: from here on they are told of sessions. */
void peer_begin(struct peer *p);
/* No session follows any more: what waits for the node ends. */
void peer_last(struct peer *p);
/* The same, and files are told of nothing more. Once. */
void peer_end(struct peer *p);
void peer_close(struct peer *p); /* all that uses its link is closed; NULL is fine */

struct remote *peer_remote(struct peer *p);

/* The node's room: as it is, or what it said last, if it does not answer at once. Not
 * from the loop. */
void peer_stat(struct peer *p, struct wire_stat *ret);
