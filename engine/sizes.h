/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How large pool and index of a new store are to be, and whether that fits. */
#include "engine/engine.h"

struct sizes {
	uint64_t pool_bytes, index_bytes;
};

/* What is made when so much is asked for: whole units; 0 stays 0. */
uint64_t sizes_pool(uint64_t asked_bytes);
uint64_t sizes_index(uint64_t asked_bytes);

/* Of the tmpfs that holds both. */
uint64_t sizes_total(const struct sizes *s);

/* As asked, or by default; refused if memory does not suffice (-ENOMEM) or they
 * are too small (-EINVAL). old: a folder to be kept beside it, or NULL. */
int sizes_choose(const struct engine_opts *o, const char *old, struct sizes *ret,
		 char **ret_why);

/* Is there so much space in the file system of `folder`? -ENOSPC. */
int sizes_fit(const struct engine_opts *o, const char *folder, const struct sizes *s,
	      char **ret_why);
