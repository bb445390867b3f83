/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Several sessions in one key space: each a struct index, through an engine of its
 * own (kv_shaky.h, calm) before one that they share. */
#include "tests/unit/kv_shaky.h"
#include "tests/unit/names_kit.h"

enum { KIT_SESSIONS = 3 };

struct sessions {
	struct kv *kv;
	struct index *ix[KIT_SESSIONS];   /* of the sessions 1, 2, ... */
	struct shaky *shaky[KIT_SESSIONS];
};

static inline void sessions_begin(struct sessions *s, unsigned i, uint64_t number)
{
	s->shaky[i] = shaky_over(s->kv, (struct shaky_opts){ .keep = true });
	assert_int_equal(index_open(&s->shaky[i]->kv, number, true, &s->ix[i]), 0);
}

/* Takes kv over. */
static inline struct sessions sessions_over(struct kv *kv)
{
	struct sessions s = { .kv = kv };

	for (unsigned i = 0; i < KIT_SESSIONS; i++)
		sessions_begin(&s, i, i + 1);
	return s;
}

static inline struct sessions sessions_new(void)
{
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	return sessions_over(kv);
}

/* Keys of this session. */
static inline unsigned sessions_keys(const struct sessions *s, uint64_t number)
{
	struct kv_read all = { BYTES_OF("a", 1), BYTES_OF("{", 1), UINT32_MAX };
	struct kv_req req = { .reads = &all, .nreads = 1 };
	unsigned n = 0;

	assert_int_equal(kv_wait(s->kv, &req), KV_DONE);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++)
		n += kv_key_session(req.rows[0].rows[i].key) == number;
	kv_req_fini(&req);
	return n;
}

/* All invariants hold, and nobody has a key left. */
static inline void sessions_close(struct sessions *s, struct index_op *op)
{
	index_op_fini(op);
	for (unsigned i = 1; i < KIT_SESSIONS; i++)
		index_close(s->ix[i]);
	kit_close(s->ix[0], op);
	kv_close(s->kv);
}
