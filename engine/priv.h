/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What engine/'s files know of each other's engine. Everything in it is set by
 * engine_open() before anybody else sees it and stays until engine_close(), so
 * it is read without a lock; what changes has its own.
 */
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/transport.h"

struct files;
struct store;

struct engine {
	struct store *store;         /* its folder and lock; NULL: in_memory */
	struct index *ix;
	struct pool *pool;
	struct transport *transport; /* to the pool; maybe with faults */
	struct files *files;         /* file.c's table of open files */
	bool verify;                 /* checksums on every read */
	bool read_only;
};
