/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The calls of engine.h made to wait, for tests of open files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/metrics.h"
#include "engine/engine.h"
#include "tests/unit/idle_kit.h"

static inline void kit_check_engine(struct engine *e)
{
	struct writer report = { 0 };
	int n = engine_check(e, false, &report, NULL);

	if (n)
		fail_msg("%d violations: %.*s", n, (int)report.len, (const char *)report.p);
	writer_fini(&report);
}

struct kit_wait {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	int64_t r;
};

static inline void kit_done(struct file_op *op, int64_t r)
{
	struct kit_wait *w = op->arg;

	pthread_mutex_lock(&w->mutex);
	assert(!w->done);
	w->done = true;
	w->r = r;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->mutex);
}

static inline int64_t kit_wait(struct kit_wait *w)
{
	pthread_mutex_lock(&w->mutex);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->mutex);
	pthread_mutex_unlock(&w->mutex);
	return w->r;
}

#define KIT_WAIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 }

static inline int64_t kit_call(struct file_op *op, void (*call)(struct file_op *op))
{
	struct kit_wait w = KIT_WAIT;

	op->done = kit_done;
	op->arg = &w;
	call(op);
	return kit_wait(&w);
}

static inline int kit_open(struct engine *e, uint64_t fileid, struct place place,
			   unsigned flags, struct file **ret)
{
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .done = kit_done, .arg = &w };

	file_open(e, fileid, place, flags, &op);
	int r = (int)kit_wait(&w);
	if (!r)
		*ret = op.file;
	return r;
}

static inline int kit_open_gone(struct engine *e, const struct gone *g, unsigned flags,
				struct file **ret)
{
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .done = kit_done, .arg = &w };

	file_open_gone(e, g, flags, &op);
	int r = (int)kit_wait(&w);
	if (!r)
		*ret = op.file;
	return r;
}

static inline int kit_close(struct file *f, unsigned flags)
{
	struct kit_wait w = KIT_WAIT;
	struct file_op op = { .file = f, .done = kit_done, .arg = &w };

	file_close(&op, flags);
	return (int)kit_wait(&w);
}

static inline void kit_asked(struct engine_ask *a, int r)
{
	kit_done(&(struct file_op){ .arg = a->arg }, r);
}

/* Of what a->fileid and place say; the answer is in it. */
static inline int kit_ask(struct engine *e, void (*call)(struct engine *e, struct engine_ask *a),
			  struct engine_ask *a)
{
	struct kit_wait w = KIT_WAIT;

	a->done = kit_asked;
	a->arg = &w;
	call(e, a);
	return (int)kit_wait(&w);
}

static inline int64_t kit_write(struct file *f, uint64_t off, const void *buf, uint64_t len)
{
	struct file_op op = { .file = f, .off = off, .buf = buf, .len = len };

	return kit_call(&op, file_write);
}

static inline int64_t kit_read(struct file *f, uint64_t off, void *buf, uint64_t len)
{
	struct file_op op = { .file = f, .off = off, .len = len };
	int64_t r = kit_call(&op, file_read);
	uint8_t *to = buf;

	if (r < 0)
		return r;
	for (unsigned i = 0; i < op.niov; i++) {
		memcpy(to, op.iov[i].iov_base, op.iov[i].iov_len);
		to += op.iov[i].iov_len;
	}
	assert(to - (uint8_t *)buf == r);
	file_read_end(&op);
	return r;
}

static inline int64_t kit_truncate(struct file *f, uint64_t size)
{
	struct file_op op = { .file = f, .off = size };

	return kit_call(&op, file_truncate);
}

static inline int64_t kit_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct file_op op = { .file = f, .mode = mode, .off = off, .len = len };

	return kit_call(&op, file_fallocate);
}

static inline int64_t kit_seek(struct file *f, int whence, uint64_t off)
{
	struct file_op op = { .file = f, .mode = whence, .off = off };

	return kit_call(&op, file_seek);
}

static inline int64_t kit_publish(struct file *f, bool fsync)
{
	struct file_op op = { .file = f, .off = fsync };

	return kit_call(&op, file_publish);
}

static inline int64_t kit_copy(struct file *f, uint64_t off, struct file *to,
			       uint64_t off2, uint64_t len)
{
	struct file_op op = { .file = f, .to = to, .off = off, .off2 = off2, .len = len };

	return kit_call(&op, file_copy);
}

/* A new file of that name in the root (NULL: without), open for writing. */
static inline int kit_create(struct engine *e, const char *name, struct file **ret)
{
	struct index_op op = {
		.parent = INDEX_ROOT, .name = name,
		.attr = { .mode = S_IFREG | 0644 },
	};
	int r = index_wait(engine_index(e), &op, index_draft);

	if (!r)
		r = file_create(e, &op.entry.attr, ret);
	index_op_fini(&op);
	return r;
}

static inline int kit_lookup(struct engine *e, const char *name, struct attr *ret,
			     struct place *ret_place)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name };
	int r = index_wait(engine_index(e), &op, index_lookup);

	if (!r) {
		*ret = op.entry.attr;
		*ret_place = op.entry.place;
	}
	index_op_fini(&op);
	return r;
}

static inline int kit_open_name(struct engine *e, const char *name, unsigned flags,
				struct file **ret)
{
	struct attr a;
	struct place place;
	int r = kit_lookup(e, name, &a, &place);

	return r ? (r > 0 ? -ENOENT : r) : kit_open(e, a.fileid, place, flags, ret);
}

static inline int kit_unlink(struct engine *e, const char *name)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name };
	int r = index_wait(engine_index(e), &op, index_unlink);

	if (!r && op.gone.fileid) {
		struct file *f = file_find(e, op.gone.fileid);
		if (f) {
			file_add_links(f, -1);
			int c = kit_close(f, 0);
			assert(!c);
		}
		if (!op.gone.attr.nlink && !op.gone.draft)
			engine_drop(e, &op.gone);
	}
	index_op_fini(&op);
	return r;
}
