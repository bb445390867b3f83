/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Another host's node behind engine/node.h: what its slices cost in messages.
 *
 *	alloc, give_back, pin, unpin   none: from stock, and counted here; an UNPIN
 *	                               without an answer when the last pin goes
 *	want                           one ALLOC, for all that wait for as much
 *	take                           one PIN, of those that are not pinned here yet
 *	seal                           one SEAL
 *
 * Sessions come and go below it. What was written in one that has ended is lost,
 * and so is what was unlinked while open: node_is_lost(). All else goes on.
 */
#include "engine/node.h"
#include "engine/remote.h"

/* Borrows x: node_close() before remote_close(), and not from the loop. */
int node_remote_open(struct remote *x, struct node **ret);
