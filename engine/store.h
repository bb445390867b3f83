/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A store's folder: who may use it, what is in it, how big it is. It knows
 * nothing of what pool and index consist of. store.c has the layout.
 */
#include "engine/engine.h"

struct store;

#define STORE_POOL  "pool.0"
#define STORE_INDEX "index.lmdb"

/*
 * Takes the lock of o->dir and finds what is there, or prepares a folder for a
 * new pool and index (nothing replaces anything before store_commit()).
 * Errors as engine_open(); *ret_why says more.
 */
int store_open(const struct engine_opts *o, struct store **ret, char **ret_why);

/* Is it to be made? Then: make the files, and store_commit(). */
bool store_is_new(const struct store *s);
uint64_t store_pool_bytes(const struct store *s);
uint64_t store_index_bytes(const struct store *s);
const char *store_dir(const struct store *s);

/* Path of one of its files, on the heap; NULL: no memory. */
char *store_path(const struct store *s, const char *file);

/* What was made is the store from now on; what was there is moved aside. */
int store_commit(struct store *s, char **ret_why);

/* Says in its lock file where it is served: "host:port". */
int store_note_served(struct store *s, const char *where);

/* Notes the folder of its disk (tier.h), which goes with it, and the disk's id. What is noted with a
 * store that is to be made is there when that is: store_commit(). */
int store_note_disk(struct store *s, const char *path, uint64_t id);
/* The id that is noted with the store that is there; 0: none. */
int store_disk(const struct store *s, uint64_t *ret_id);
/* What is on that is known no more: tier_forget(). `id`: of the disk, where the note has none. `now`:
 * the folder of the one that has taken its place, or NULL. The sentence says what is so, and how to
 * be rid of it. */
int store_forget_disk(struct store *s, uint64_t id, const char *now, char **ret_why);

/* Gives the lock back, and undoes what was made and not committed. NULL is
 * fine; returns NULL. */
struct store *store_free(struct store *s);
