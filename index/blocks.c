/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extent blocks: values under `E fileid id`, immutable, behind the frame of all
 * values. There may be more of them than one transaction takes, and none depends
 * on another: so these calls are no plans but go through the list a lot at a
 * time. A lot that may have been written is simply written again (it is the same
 * bytes); when one fails, those before it are deleted again.
 *
 * Nobody knows of a block that was put until a record names it, but for its
 * session: the transaction that puts a lot notes its ids under `b`, a session key,
 * at no cost of its own. Notes are numbered from 1 in each put, so that the next put
 * for the object writes over those of the last, which is published, or was taken
 * back; the end of writing takes them away. What is noted when a session ends is all
 * that may belong to nobody, found without looking at anything else (collect.c). So a
 * put stays with the session that it began in: if that ends meanwhile, the lots that
 * were put go with it, and the next one is refused.
 *
 * Threads: a run belongs to one thread at a time (index/relay.h).
 */
#include <assert.h>
#include <errno.h>

#include "common/log.h"
#include "index/keys.h"
#include "index/plan.h"
#include "index/priv.h"
#include "index/value.h"

enum { BLOCKS_TRIES_MAX = 100 };

enum blocks_job { BLOCKS_GET, BLOCKS_PUT, BLOCKS_DEL };

struct blocks_run {
	struct index *ix;
	struct index_op *op;
	struct plan *memory;
	struct kv_caps caps;

	uint64_t session; /* all notes are this one's */

	enum blocks_job job;
	uint32_t first, n, end; /* the lot under way: [first, first + n) of end */
	unsigned tries;
	int failed;             /* why a put is being undone */

	struct relay *relay;    /* of the lot */
	struct key *keys;       /* as many as a request takes */
	uint64_t *ids;          /* PUT: of the lot, for its note */
	struct key note;
	uint32_t nnotes;        /* lots that were put */
	struct kv_write *writes;
	struct kv_read *reads;
	struct kv_rows rows;    /* GET: what came so far */
};

/* Requests of lots -------------------------------------------------------------- */

static uint32_t lot_max(const struct blocks_run *b)
{
	uint32_t cap = b->job == BLOCKS_GET ? b->caps.max_reads : b->caps.max_writes;

	if (b->job != BLOCKS_GET)
		cap--; /* the note */
	return b->end < cap ? b->end : cap;
}

static struct key *lot_key(struct blocks_run *b, uint32_t i)
{
	b->keys[i] = key_block(b->op->fileid, b->op->blocks[b->first + i].id);
	return &b->keys[i];
}

static int lot_get(struct blocks_run *b)
{
	b->n = b->end - b->first < lot_max(b) ? b->end - b->first : lot_max(b);
	/* Rows end with the op: a request for each lot. */
	b->relay = plan_new_relay(b->memory);
	if (!b->relay)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->n; i++)
		b->reads[i] = (struct kv_read){ .from = key_bytes(lot_key(b, i)), .limit = 1 };
	b->relay->req.reads = b->reads;
	b->relay->req.nreads = b->n;
	return 0;
}

static int lot_frame(struct blocks_run *b, struct bytes v, struct bytes *ret)
{
	size_t len = VALUE_HEADER + v.len;
	/* A writer over memory that is enough: it does not grow. */
	struct writer w = { .p = plan_alloc(b->memory, len), .cap = len };

	if (!w.p)
		return -ENOMEM;
	size_t begin = value_begin(&w);
	write_bytes(&w, v.p, v.len);
	value_end(&w, begin);
	*ret = writer_bytes(&w);
	return 0;
}

/* Frames the values of as many blocks as fit a request, with what they add to its
 * note. */
static int lot_put_values(struct blocks_run *b)
{
	uint32_t bytes = VALUE_HEADER + sizeof(struct key);

	for (b->n = 0; b->n < lot_max(b) && b->first + b->n < b->end; b->n++) {
		struct bytes v = b->op->values[b->first + b->n];
		uint64_t more = v.len + VALUE_HEADER + sizeof(struct key) + sizeof(*b->ids);

		bool fits = bytes + more <= b->caps.max_bytes;

		if (v.len > KV_VALUE_MAX - VALUE_HEADER || (!fits && !b->n))
			return -E2BIG;
		if (!fits)
			break;
		bytes += (uint32_t)more;
		if (lot_frame(b, v, &b->writes[b->n].value) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int lot_note(struct blocks_run *b, struct kv_write *w)
{
	size_t len = VALUE_HEADER + b->n * sizeof(*b->ids);
	struct writer value = { .p = plan_alloc(b->memory, len), .cap = len };

	if (!value.p)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->n; i++)
		b->ids[i] = b->op->blocks[b->first + i].id;
	note_encode(b->ids, b->n, &value);
	b->note = key_note(b->op->fileid, b->nnotes + 1, b->session);
	*w = (struct kv_write){ key_bytes(&b->note), writer_bytes(&value) };
	return 0;
}

static int lot_put(struct blocks_run *b)
{
	bool noted = !(b->op->flags & PUT_UNNOTED);
	int r = lot_put_values(b);

	if (!r && noted)
		r = lot_note(b, &b->writes[b->n]);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < b->n; i++)
		b->writes[i].key = key_bytes(lot_key(b, i));
	b->relay->req.writes = b->writes;
	b->relay->req.nwrites = b->n + noted;
	b->relay->req.reserve = b->op->flags & PUT_RESERVE;
	return 0;
}

static int lot_del(struct blocks_run *b)
{
	b->n = b->end - b->first < lot_max(b) ? b->end - b->first : lot_max(b);
	for (uint32_t i = 0; i < b->n; i++)
		b->writes[i] = (struct kv_write){ .key = key_bytes(lot_key(b, i)) };
	b->relay->req.writes = b->writes;
	b->relay->req.nwrites = b->n;
	if (b->op->note && b->first + b->n == b->end) {
		b->note = key_gone(b->op->fileid, b->op->note, b->session);
		b->writes[b->n] = (struct kv_write){ .key = key_bytes(&b->note) };
		b->relay->req.nwrites++;
	}
	b->relay->req.reserve = true;
	return 0;
}

/* Answers ------------------------------------------------------------------------ */

static int lot_take_rows(struct blocks_run *b)
{
	for (uint32_t i = 0; i < b->n; i++) {
		const struct kv_rows *rows = &b->relay->req.rows[i];
		struct reader content;

		if (!rows->nrows)
			return -EUCLEAN;
		int r = value_open(rows->rows[0].value, &content);
		if (r < 0)
			return r;
		struct kv_row *row = &b->rows.rows[b->rows.nrows++];
		*row = rows->rows[0];
		row->value = BYTES_OF(content.p, content.left);
	}
	return 0;
}

/* Turns a put that failed into a delete of what it has written, as far as there
 * is any; whoever gave up waiting does not stop that. */
static int blocks_undo(struct blocks_run *b, int why)
{
	if (b->job != BLOCKS_PUT)
		return why;
	b->job = BLOCKS_DEL;
	b->failed = why;
	b->end = b->first + (b->tries ? b->n : 0);
	b->first = b->n = b->tries = 0;
	return 0;
}

/* 0: go on. Negative: the run ends with it. */
static int lot_answer(struct blocks_run *b)
{
	int outcome = b->relay->outcome;

	if (outcome == KV_UNKNOWN)
		return ++b->tries < BLOCKS_TRIES_MAX ? 0 : blocks_undo(b, -EIO);
	assert(outcome != KV_CONFLICT);
	if (outcome < 0)
		return blocks_undo(b, outcome);
	if (b->job == BLOCKS_GET) {
		int r = lot_take_rows(b);
		if (r < 0)
			return r;
	}
	b->first += b->n;
	b->n = b->tries = 0;
	b->nnotes++;
	return 0;
}

/* The run ----------------------------------------------------------------------- */

static void blocks_end(struct blocks_run *b, int r)
{
	struct index_op *op = b->op;

	if (b->failed) {
		if (r < 0) /* the next start collects them */
			log_warn("index", "blocks of a failed publish stay behind: %s",
				 strerror(-r));
		r = b->failed;
	}
	if (!r && b->job == BLOCKS_GET) {
		op->rows = plan_alloc(b->memory, sizeof(b->rows));
		if (op->rows)
			*op->rows = b->rows;
		else
			r = -ENOMEM;
	}
	op->done(op, r);
}

static int lot_prepare(struct blocks_run *b)
{
	if (b->job != BLOCKS_GET) {
		kv_req_fini(&b->relay->req);
		b->relay->req = (struct kv_req){ 0 };
	}
	switch (b->job) {
	case BLOCKS_GET:
		return lot_get(b);
	case BLOCKS_PUT:
		return lot_put(b);
	case BLOCKS_DEL:
		return lot_del(b);
	}
	return -EINVAL;
}

static void blocks_resume(struct relay *relay);

static void blocks_go_on(struct blocks_run *b)
{
	int r = 0;

	while (!r && b->first < b->end) {
		r = lot_prepare(b);
		if (r < 0) {
			r = blocks_undo(b, r);
			continue;
		}
		b->relay->owner = b;
		b->relay->req.call = b->failed ? NULL : &b->op->call;
		if (!relay_submit(index_kv(b->ix), b->relay, blocks_resume))
			return; /* b is the completer's now */
		r = lot_answer(b);
	}
	blocks_end(b, r);
}

static void blocks_resume(struct relay *relay)
{
	struct blocks_run *b = relay->owner;
	int r = lot_answer(b);

	if (r < 0)
		blocks_end(b, r);
	else
		blocks_go_on(b);
}

static struct blocks_run *blocks_new(struct index *ix, struct index_op *op, enum blocks_job job)
{
	struct plan *memory = plan_attach(ix, op);
	struct blocks_run *b = memory ? plan_alloc(memory, sizeof(*b)) : NULL;

	if (!b)
		return NULL;
	*b = (struct blocks_run){
		.ix = ix, .op = op, .memory = memory, .job = job,
		.session = index_session(ix),
		.caps = index_kv(ix)->ops->caps(index_kv(ix)),
		.end = op->nblocks,
	};
	uint32_t cap = lot_max(b);
	/* One more than a lot of a put: undoing it has no note. */
	b->keys = plan_alloc(memory, (cap + 1) * sizeof(*b->keys));
	if (job == BLOCKS_GET) {
		b->reads = plan_alloc(memory, cap * sizeof(*b->reads));
		b->rows.rows = plan_alloc(memory, op->nblocks * sizeof(*b->rows.rows));
		return b->keys && b->reads && b->rows.rows ? b : NULL;
	}
	b->writes = plan_alloc(memory, (cap + 1) * sizeof(*b->writes));
	b->ids = plan_alloc(memory, cap * sizeof(*b->ids));
	b->relay = plan_new_relay(memory);
	return b->keys && b->writes && b->ids && b->relay ? b : NULL;
}

static void blocks_run(struct index *ix, struct index_op *op, enum blocks_job job)
{
	struct blocks_run *b = blocks_new(ix, op, job);

	if (b)
		blocks_go_on(b);
	else
		op->done(op, -ENOMEM);
}

void index_put_blocks(struct index *ix, struct index_op *op)
{
	blocks_run(ix, op, BLOCKS_PUT);
}

void index_get_blocks(struct index *ix, struct index_op *op)
{
	blocks_run(ix, op, BLOCKS_GET);
}

void index_del_blocks(struct index *ix, struct index_op *op)
{
	blocks_run(ix, op, BLOCKS_DEL);
}
