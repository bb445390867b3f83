/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the tests of index engines share: seeds, a folder, short requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "index/kv.h"

/* Chance ------------------------------------------------------------------- */

struct rng {
	uint64_t x;
};

static inline uint64_t draw(struct rng *g)
{
	return random_next(&g->x);
}

static inline uint64_t below(struct rng *g, uint64_t n)
{
	return draw(g) % n;
}

static inline bool chance(struct rng *g, unsigned percent)
{
	return below(g, 100) < percent;
}

/* Runs walk for a fixed seed and a random one, or for SEED=... only. */
static inline void for_seeds(const char *what, void (*walk)(void *arg, uint64_t seed),
			     void *arg)
{
	const char *env = getenv("SEED");
	uint64_t seeds[2] = { 1, 0 };

	if (getrandom(&seeds[1], sizeof(seeds[1]), 0) < 0)
		seeds[1] = clock_ns();
	if (env)
		seeds[0] = strtoull(env, NULL, 0);
	for (unsigned i = 0; i < (env ? 1 : 2); i++) {
		print_message("%s: SEED=%llu\n", what, (unsigned long long)seeds[i]);
		walk(arg, seeds[i]);
	}
}

/* A folder -------------------------------------------------------------------- */

struct folder {
	char path[64];
};

static inline void folder_make(struct folder *f)
{
	strcpy(f->path, "/dev/shm/slicefs-test.XXXXXX");
	if (!mkdtemp(f->path)) {
		strcpy(f->path, "/tmp/slicefs-test.XXXXXX");
		assert_non_null(mkdtemp(f->path));
	}
}

static inline const char *folder_file(struct folder *f, const char *name)
{
	static _Thread_local char path[400];

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	return path;
}

static inline unsigned folder_count(struct folder *f)
{
	DIR *d = opendir(f->path);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static inline void folder_remove(struct folder *f)
{
	DIR *d = opendir(f->path);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			unlink(folder_file(f, e->d_name));
	closedir(d);
	assert_int_equal(rmdir(f->path), 0);
}

/* Requests ----------------------------------------------------------------------- */

/* Waits for req, frees its rows. */
static inline int run(struct kv *kv, struct kv_req *req)
{
	int r = kv_wait(kv, req);

	kv_req_fini(req);
	return r;
}

static inline int put_bytes(struct kv *kv, struct bytes key, struct bytes value)
{
	struct kv_write w = { key, value };
	struct kv_req req = { .writes = &w, .nwrites = 1 };

	return run(kv, &req);
}

static inline int put(struct kv *kv, const char *key, const char *value)
{
	return put_bytes(kv, bytes_str(key), value ? bytes_str(value) : BYTES_NONE);
}

/* A session's key in buf, which has room for the name and 8 bytes. */
static inline struct bytes session_key(char *buf, const char *name, uint64_t session)
{
	size_t n = strlen(name);
	uint64_t be = htobe64(session);

	memcpy(buf, name, n);
	memcpy(buf + n, &be, sizeof(be));
	return BYTES_OF(buf, n + sizeof(be));
}

static inline int del(struct kv *kv, const char *key)
{
	return put(kv, key, NULL);
}

/* The value as a string of at most 63 bytes; "-" where there is no such key. */
static inline const char *get(struct kv *kv, const char *key)
{
	static _Thread_local char value[64];
	struct kv_read rd = { .from = bytes_str(key) };
	struct kv_req req = { .reads = &rd, .nreads = 1 };

	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	strcpy(value, "-");
	if (req.rows[0].nrows)
		snprintf(value, sizeof(value), "%.*s",
			 (int)req.rows[0].rows[0].value.len,
			 (const char *)req.rows[0].rows[0].value.p);
	kv_req_fini(&req);
	return value;
}

static inline uint64_t revision_of(struct kv *kv, const char *key)
{
	struct kv_read rd = { .from = bytes_str(key) };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	uint64_t revision;

	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	revision = req.rows[0].nrows ? req.rows[0].rows[0].revision : 0;
	kv_req_fini(&req);
	return revision;
}

static inline void assert_kv_fine(struct kv *kv)
{
	struct writer report = { 0 };
	int r = kv->ops->check(kv, &report);

	if (r)
		print_error("%.*s", (int)report.len, (const char *)report.p);
	assert_int_equal(r, 0);
	writer_fini(&report);
}

static inline void assert_nothing_in_flight(void)
{
	int64_t n = 0;
	const char *busy = metrics_busy(&n);

	if (busy)
		print_error("%s is %lld\n", busy, (long long)n);
	assert_null(busy);
}
