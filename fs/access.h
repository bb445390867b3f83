/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Times of reading that the index has yet to be told. Who reads a file does not wait for
 * that, and many are told in one transaction, within a second; until then this mount
 * shows what is noted here. No FUSE in it.
 *
 * All functions are callable from any thread, block for nothing but the table's lock.
 */
#include <stdbool.h>
#include <stdint.h>

#include "index/index.h"

struct accesses;
struct inode;
struct inodes;

/* Its thread runs. timeout_ms: of a transaction. -ENOMEM, -EAGAIN. */
int accesses_new(struct index *ix, struct inodes *t, unsigned timeout_ms,
		 struct accesses **ret);
/* Tells the index what is noted. Nobody uses it any more, and no then() is waited for.
 * Returns NULL; NULL is fine. */
struct accesses *accesses_free(struct accesses *a);

/* The published object i was read at `at`, and its time of reading was `before` until
 * then. i is held until the index was told. False: there is no room. */
bool access_note(struct accesses *a, struct inode *i, struct timespec before,
		 struct timespec at);
/* What the index says of the object in *attr becomes what is noted. */
void access_overlay(struct accesses *a, uint64_t fileid, struct attr *attr);
/* The time is about to be set by hand: what was noted does not count. True: the index
 * is just being told, and then(arg) is called when it was. */
bool access_forget(struct accesses *a, uint64_t fileid, void (*then)(void *arg), void *arg);
