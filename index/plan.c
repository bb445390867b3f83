/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner of plans (docs/architecture.md, "Plans").
 *
 *	        .---------------------------------------------------.
 *	        v                                                   |
 *	  run the plan --PLAN_WAIT--> read all it asked for --------|
 *	        |                                                   |
 *	        |--0, writes--> compare, write --KV_CONFLICT--------|
 *	        |                    |---KV_UNKNOWN--> was it done? --no
 *	        |                    |                    | yes
 *	        '--outcome-----------'--> op->done() <----'
 *
 * The hard idea: a plan always sees one moment. Each read wave asks for
 * everything that the plan has asked for so far, not only for what is new, and
 * the engine answers one request atomically; so what a plan says without writing
 * anything ("no such name", "not empty") was true at one moment, that of its
 * last wave, and no plan has to think of two reads that do not fit together. A
 * plan with writes carries its reads along: when a compare fails, the engine
 * answers with fresh rows, and the next run costs no round trip for them. Most
 * plans have one wave, so nothing is read twice.
 *
 * Where the index is elsewhere, a plan that writes need not read first
 * (plan_run_ahead()): its first run is shown what this process knew last, and an empty
 * index beyond that, and its request compares every bit of it. If that holds, the plan
 * has seen the moment of its commit. If not, the answer brings all that it asked for, as a
 * read would have, so that a wrong guess costs no round trip either. What such a run says
 * without writing is not believed.
 *
 * No answer: what was to be written is read, and a request is done as a whole or not at all. So
 * one row that nobody else can have written says that it was done, whatever has become of the
 * others: somebody has written them since, or they went with their session. The outputs of the
 * run that made it are right then; nobody else could say what an unlink found. Such a row is
 * times of a directory with a number of their own (dir_times.by), or a whole record with its
 * name that replaces the row that was guarded (two mounts that do the same to the same object in
 * the same tick write the same; then what we say was done was done). Counts, references and
 * places are what others may have written alike, and say nothing.
 * In the same way one row that it guarded and was to replace, and that still has the revision
 * that it had, says that it was not done: it is as if it had never been sent.
 * Without either the plan runs again, with plan_is_repeat(), and acts on nothing but what it
 * has acted on before (plan_target()): what is under a name by now may be another one's.
 *
 * Memory: one allocation holds the plan, its tables and some KiB of arena; a
 * longer plan chains blocks behind it. Rows of the last wave and the arena live
 * until index_op_fini(); rows of earlier waves end with the next.
 *
 * Progress: a conflict means that somebody else's transaction was committed, so
 * the crowd always moves, and nobody waits: after some tries a thread offers its
 * CPU to the others, after PLAN_TRIES_MAX the answer is -EIO.
 *
 * Threads: a plan belongs to one thread at a time: the one that called
 * plan_run(), then whichever the engine completes on (index/relay.h).
 */
#include "index/plan.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "index/priv.h"
#include "index/recall.h"
#include "index/relay.h"

enum {
	PLAN_MAGIC = 0x706c616e,
	PLAN_TRIES_MAX = 1000,
	PLAN_TRIES_POLITE = 8, /* from here on others get the CPU first */
	ARENA_INLINE = 3072,   /* a create's keys and values take some 1.5 KiB */
	ARENA_BLOCK = 16384,
	READS_INLINE = 12,
	GUARDS_INLINE = 12,
	WRITES_INLINE = 10,
	GUESS_GUARDS_MAX = 64, /* more is not worth it */
};

struct arena_block {
	struct arena_block *next;
	max_align_t bytes[];
};

/* A request beside those of a plan function, whose rows live as long. */
struct plan_req {
	struct plan_req *next;
	struct relay relay;
};

struct plan {
	uint32_t magic;
	struct index *ix;
	struct index_op *op;
	plan_fn *fn;
	struct timespec now;
	uint64_t session; /* in whose name the current run writes */
	uint64_t began_in; /* the first run's */
	struct kv_call sure; /* op->call, but not cancelled with it */
	bool repeat, reserve, needs_room;
	bool probing;    /* what became of the last writes is to be found out */
	bool repeat_before; /* while probing: what `repeat` is if they were not done */
	uint64_t targets[PLAN_TARGETS];
	int failed;      /* of a call that cannot say so itself: no memory */
	unsigned tries;

	/* What has been read: rows[i] of `snapshot` belongs to reads[i], for
	 * i < nread; the others were asked for in this run. */
	struct kv_read *reads;
	uint32_t nreads, nread, reads_cap;
	uint32_t hint;   /* runs ask in the same order: try this one first */
	uint32_t nslots; /* a power of two; 0 before there are many reads */
	uint32_t *slots_of_reads;
	struct kv_req *snapshot;
	struct kv_rows *guesses; /* while `guessing`, of the first nguesses reads */
	bool guessing, is_ahead; /* the current request was made of guesses */
	bool torn;       /* two of them say different things of one key */
	uint32_t nguesses, guesses_cap;
	struct relay slots[2], *current; /* one has the snapshot, one is under way */

	struct kv_compare *guards;
	struct kv_write *writes;
	uint32_t nguards, guards_cap, nwrites, writes_cap;

	uint8_t *free;   /* arena: what is left of the current block */
	size_t nfree;
	struct arena_block *blocks;
	struct plan_req *more_reqs;

	struct kv_read reads_inline[READS_INLINE];
	struct kv_rows guesses_inline[READS_INLINE];
	struct kv_compare guards_inline[GUARDS_INLINE];
	struct kv_write writes_inline[WRITES_INLINE];
	max_align_t arena_inline[ARENA_INLINE / sizeof(max_align_t)];
};

/* Memory ---------------------------------------------------------------------- */

static void *plan_alloc_block(struct plan *p, size_t n)
{
	size_t size = n > ARENA_BLOCK ? n : ARENA_BLOCK;
	struct arena_block *b = malloc(sizeof(*b) + size);

	if (!b) {
		p->failed = -ENOMEM;
		return NULL;
	}
	b->next = p->blocks;
	p->blocks = b;
	if (size - n > p->nfree) {
		p->free = (uint8_t *)b->bytes + n;
		p->nfree = size - n;
	}
	return b->bytes;
}

void *plan_alloc(struct plan *p, size_t n)
{
	size_t align = sizeof(max_align_t);

	if (n > SIZE_MAX / 2) {
		p->failed = -ENOMEM;
		return NULL;
	}
	n = (n + align - 1) / align * align;
	if (n > p->nfree)
		return plan_alloc_block(p, n);
	void *ret = p->free;
	p->free += n;
	p->nfree -= n;
	return ret;
}

char *plan_name(struct plan *p, struct bytes name)
{
	char *to = plan_alloc(p, name.len + 1);

	if (!to)
		return NULL;
	memcpy(to, name.p ? name.p : "", name.len);
	to[name.len] = 0;
	return to;
}

static struct bytes plan_copy(struct plan *p, struct bytes b)
{
	void *to = plan_alloc(p, b.len ? b.len : 1);

	if (to && b.len)
		memcpy(to, b.p, b.len);
	return BYTES_OF(to, to ? b.len : 0);
}

/* Room for one more in a table of `n` of `cap` entries; false: no memory. */
static bool plan_grow(struct plan *p, void **table, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap)
		return true;
	void *more = plan_alloc(p, 2 * size * *cap);
	if (!more)
		return false;
	memcpy(more, *table, size * n);
	*table = more;
	*cap *= 2;
	return true;
}

#define PLAN_GROW(p, table, n, cap)                                            \
	plan_grow((p), (void **)&(p)->table, (p)->n, &(p)->cap, sizeof(*(p)->table))

/* All but the arena and the inline tables, which need no zeros. */
static struct plan *plan_new(struct index *ix, struct index_op *op)
{
	struct plan *p = malloc(sizeof(*p));

	if (!p)
		return NULL;
	memset(p, 0, offsetof(struct plan, reads_inline));
	p->magic = PLAN_MAGIC;
	p->ix = ix;
	p->op = op;
	p->reads = p->reads_inline;
	p->reads_cap = READS_INLINE;
	p->guesses = p->guesses_inline;
	p->guesses_cap = READS_INLINE;
	p->guards = p->guards_inline;
	p->guards_cap = GUARDS_INLINE;
	p->writes = p->writes_inline;
	p->writes_cap = WRITES_INLINE;
	p->free = (uint8_t *)p->arena_inline;
	p->nfree = sizeof(p->arena_inline);
	return p;
}

static void plan_free(struct plan *p)
{
	assert(p->magic == PLAN_MAGIC);
	p->magic = 0;
	kv_req_fini(&p->slots[0].req);
	kv_req_fini(&p->slots[1].req);
	for (struct plan_req *r = p->more_reqs; r; r = r->next)
		kv_req_fini(&r->relay.req);
	while (p->blocks) {
		struct arena_block *b = p->blocks;
		p->blocks = b->next;
		free(b);
	}
	free(p);
}

void index_op_fini(struct index_op *op)
{
	struct plan *p = steal(&op->plan);

	if (p)
		plan_free(p);
}

struct plan *plan_attach(struct index *ix, struct index_op *op)
{
	assert(!op->plan);
	op->plan = plan_new(ix, op);
	return op->plan;
}

struct relay *plan_new_relay(struct plan *p)
{
	struct plan_req *r = plan_alloc(p, sizeof(*r));

	if (!r)
		return NULL;
	*r = (struct plan_req){ .next = p->more_reqs };
	p->more_reqs = r;
	return &r->relay;
}

/* What plans call -------------------------------------------------------------- */

struct timespec plan_now(struct plan *p) { return p->now; }
struct index *plan_index(struct plan *p) { return p->ix; }
uint64_t plan_session(struct plan *p) { return p->session; }
bool plan_is_repeat(struct plan *p) { return p->repeat; }

uint64_t plan_target(struct plan *p, unsigned n, uint64_t fileid)
{
	assert(n < PLAN_TARGETS);
	if (!p->repeat)
		p->targets[n] = fileid;
	return p->targets[n];
}

bool plan_is_of_session(struct plan *p, uint64_t session)
{
	return p->session == (session ? session : p->began_in);
}

void plan_use_reserve(struct plan *p) { p->reserve = true; }
void plan_need_room(struct plan *p) { p->needs_room = true; }

static bool read_is(const struct kv_read *r, struct bytes from, struct bytes to, uint32_t limit)
{
	return r->limit == limit && bytes_eq(r->from, from) && bytes_eq(r->to, to);
}

/* Listings ask for hundreds of keys: from READS_INLINE on they are found by hash,
 * in a table of numbers + 1 that is never more than half full. */
static uint32_t *reads_slot(const struct plan *p, struct bytes from, struct bytes to,
			    uint32_t limit)
{
	uint32_t i = crc32c(from);

	for (;; i++) {
		uint32_t *slot = &p->slots_of_reads[i & (p->nslots - 1)];
		if (!*slot || read_is(&p->reads[*slot - 1], from, to, limit))
			return slot;
	}
}

/* Puts the newest read into the table, which grows with it; false: no memory. */
static bool reads_index(struct plan *p)
{
	uint32_t n = p->nreads - 1;

	if (p->nreads <= READS_INLINE)
		return true;
	if (p->nslots < 2 * p->nreads) {
		p->nslots = 64;
		while (p->nslots < 4 * p->nreads)
			p->nslots *= 2;
		p->slots_of_reads = plan_alloc(p, p->nslots * sizeof(*p->slots_of_reads));
		if (!p->slots_of_reads)
			return false;
		memset(p->slots_of_reads, 0, p->nslots * sizeof(*p->slots_of_reads));
		n = 0;
	}
	for (; n < p->nreads; n++)
		*reads_slot(p, p->reads[n].from, p->reads[n].to, p->reads[n].limit) = n + 1;
	return true;
}

/* The number of this read; nreads if it is new. */
static uint32_t reads_find(const struct plan *p, struct bytes from, struct bytes to,
			   uint32_t limit)
{
	if (p->hint < p->nreads && read_is(&p->reads[p->hint], from, to, limit))
		return p->hint;
	if (p->nreads > READS_INLINE) {
		uint32_t slot = *reads_slot(p, from, to, limit);
		return slot ? slot - 1 : p->nreads;
	}
	for (uint32_t i = 0; i < p->nreads; i++)
		if (read_is(&p->reads[i], from, to, limit))
			return i;
	return p->nreads;
}

/* The number of this read in the table, which it joins if need be; or negative. */
static int plan_ask(struct plan *p, struct bytes from, struct bytes to, uint32_t limit,
		    uint32_t *ret)
{
	uint32_t i = reads_find(p, from, to, limit);

	if (i == p->nreads) {
		if (!PLAN_GROW(p, reads, nreads, reads_cap))
			return -ENOMEM;
		struct kv_read r = { .from = plan_copy(p, from), .limit = limit };
		if (to.p)
			r.to = plan_copy(p, to);
		if (!r.from.p || (to.p && !r.to.p))
			return -ENOMEM;
		p->reads[p->nreads++] = r;
		if (!reads_index(p))
			return -ENOMEM;
	}
	p->hint = i + 1;
	*ret = i;
	return 0;
}

/* Reads are asked for one by one: those before it have their guesses. */
static const struct kv_rows *plan_guess(struct plan *p, uint32_t i)
{
	if (i < p->nguesses)
		return &p->guesses[i];
	assert(i == p->nguesses);
	if (!PLAN_GROW(p, guesses, nguesses, guesses_cap))
		return NULL;
	struct kv_rows *rows = &p->guesses[p->nguesses++];
	if (!recall_find(index_recall(p->ix), &p->reads[i], p, rows))
		*rows = (struct kv_rows){ 0 };
	return rows;
}

/* What this run sees of read i; NULL: nothing yet. */
static const struct kv_rows *plan_rows(struct plan *p, uint32_t i)
{
	if (i < p->nread)
		return &p->snapshot->rows[i];
	return p->guessing ? plan_guess(p, i) : NULL;
}

int plan_range(struct plan *p, struct key from, struct key to, uint32_t limit,
	       const struct kv_rows **ret)
{
	uint32_t i;
	int r = plan_ask(p, key_bytes(&from), key_bytes(&to), limit, &i);

	if (r < 0)
		return r;
	const struct kv_rows *rows = plan_rows(p, i);
	if (!rows)
		return PLAN_WAIT;
	*ret = rows;
	return 0;
}

int plan_get(struct plan *p, struct key k, const struct kv_row **ret)
{
	uint32_t i;
	int r = plan_ask(p, key_bytes(&k), BYTES_NONE, 1, &i);

	if (r < 0)
		return r;
	const struct kv_rows *rows = plan_rows(p, i);
	if (!rows)
		return PLAN_WAIT;
	if (!rows->nrows)
		return INDEX_MISS;
	*ret = &rows->rows[0];
	return 0;
}

static void plan_guard(struct plan *p, enum kv_compare_kind kind, struct bytes key,
		       struct bytes end, uint64_t revision)
{
	for (uint32_t i = 0; i < p->nguards; i++) {
		const struct kv_compare *g = &p->guards[i];
		if (g->kind == kind && bytes_eq(g->key, key) && bytes_eq(g->end, end)) {
			p->torn |= g->revision != revision;
			return;
		}
	}
	if (!PLAN_GROW(p, guards, nguards, guards_cap))
		return;
	struct kv_compare g = { .kind = kind, .key = plan_copy(p, key), .revision = revision };
	if (end.p)
		g.end = plan_copy(p, end);
	p->guards[p->nguards++] = g;
}

/* Does what was read say which revision this key has? 0: it is absent. */
static bool plan_revision_in(const struct kv_read *r, const struct kv_rows *rows,
			     struct bytes key, uint64_t *ret)
{
	if (!r->to.p && !bytes_eq(r->from, key))
		return false;
	if (r->to.p && (bytes_cmp(key, r->from) < 0 || bytes_cmp(key, r->to) >= 0))
		return false;
	for (uint32_t i = 0; i < rows->nrows; i++) {
		if (bytes_eq(rows->rows[i].key, key)) {
			*ret = rows->rows[i].revision;
			return true;
		}
	}
	*ret = 0;
	return !rows->more;
}

void plan_expect_same(struct plan *p, struct key k)
{
	uint64_t revision;

	for (uint32_t i = 0; i < (p->guessing ? p->nguesses : p->nread); i++) {
		if (plan_revision_in(&p->reads[i], plan_rows(p, i), key_bytes(&k), &revision)) {
			plan_guard(p, KV_REVISION, key_bytes(&k), BYTES_NONE, revision);
			return;
		}
	}
	assert(!"plan_expect_same() of a key that the plan has not read");
}

void plan_expect_present(struct plan *p, struct key k)
{
	plan_guard(p, KV_PRESENT, key_bytes(&k), BYTES_NONE, 0);
}

void plan_expect_absent(struct plan *p, struct key k)
{
	plan_guard(p, KV_ABSENT, key_bytes(&k), BYTES_NONE, 0);
}

void plan_expect_empty(struct plan *p, struct key from, struct key to)
{
	plan_guard(p, KV_RANGE_EMPTY, key_bytes(&from), key_bytes(&to), 0);
}

static void plan_guard_range(struct plan *p, struct bytes from, struct bytes to,
			     const struct kv_rows *rows)
{
	uint8_t behind[KV_KEY_MAX];
	struct bytes at = from;

	assert(!rows->more);
	for (uint32_t i = 0; i < rows->nrows; i++) {
		struct bytes key = rows->rows[i].key;
		if (bytes_cmp(at, key) < 0)
			plan_guard(p, KV_RANGE_EMPTY, at, key, 0);
		plan_guard(p, KV_REVISION, key, BYTES_NONE, rows->rows[i].revision);
		assert(key.len < sizeof(behind));
		memcpy(behind, key.p, key.len);
		behind[key.len] = 0;
		at = BYTES_OF(behind, key.len + 1);
	}
	if (bytes_cmp(at, to) < 0)
		plan_guard(p, KV_RANGE_EMPTY, at, to, 0);
}

void plan_expect_range(struct plan *p, struct key from, struct key to,
		       const struct kv_rows *rows)
{
	plan_guard_range(p, key_bytes(&from), key_bytes(&to), rows);
}

/* All that this run was shown without having been read. */
static void plan_guard_guesses(struct plan *p)
{
	for (uint32_t i = 0; i < p->nguesses; i++) {
		const struct kv_read *read = &p->reads[i];
		const struct kv_rows *rows = &p->guesses[i];
		if (read->to.p)
			plan_guard_range(p, read->from, read->to, rows);
		else
			plan_guard(p, KV_REVISION, read->from, BYTES_NONE,
				   rows->nrows ? rows->rows[0].revision : 0);
	}
}

/* The entry for this key in the writes, an older one or a new one; or NULL. */
static struct kv_write *plan_write(struct plan *p, struct bytes key)
{
	for (uint32_t i = 0; i < p->nwrites; i++)
		if (bytes_eq(p->writes[i].key, key))
			return &p->writes[i];
	if (!PLAN_GROW(p, writes, nwrites, writes_cap))
		return NULL;
	struct kv_write *w = &p->writes[p->nwrites++];
	*w = (struct kv_write){ .key = plan_copy(p, key) };
	return w;
}

void plan_put(struct plan *p, struct key k, struct bytes value)
{
	struct kv_write *w = plan_write(p, key_bytes(&k));

	if (w)
		w->value = plan_copy(p, value);
}

void plan_del(struct plan *p, struct key k)
{
	struct kv_write *w = plan_write(p, key_bytes(&k));

	if (w)
		w->value = BYTES_NONE;
}

void plan_put_writer(struct plan *p, struct key k, struct writer *w)
{
	if (w->bad)
		p->failed = -ENOMEM;
	else
		plan_put(p, k, writer_bytes(w));
	writer_fini(w);
}

/* The runner ------------------------------------------------------------------- */

/* All that comes of an op, from `entry` up to the plan. */
static void plan_clear_outputs(struct index_op *op)
{
	size_t begin = offsetof(struct index_op, entry);

	memset((uint8_t *)op + begin, 0, offsetof(struct index_op, plan) - begin);
}

static int plan_run_once(struct plan *p)
{
	plan_clear_outputs(p->op);
	p->nguards = p->nwrites = p->hint = 0;
	p->reserve = p->needs_room = false;
	p->failed = 0;
	p->session = index_session(p->ix);
	if (!p->began_in)
		p->began_in = p->session;
	int r = p->fn(p, p->op);
	return p->failed ? p->failed : r;
}

static void plan_end(struct plan *p, int outcome)
{
	struct index_op *op = p->op;

	/* What a plan meant to do and did not is nobody's business. */
	if (outcome < 0)
		plan_clear_outputs(op);
	op->unsure = (outcome < 0 || outcome == INDEX_CHANGED) && p->repeat;
	op->done(op, outcome); /* p may be gone after this */
}

/* After an answer that was none: is there time and patience for another try? */
static int plan_try_again(struct plan *p)
{
	struct kv_call *call = &p->op->call;

	p->tries++;
	if (!p->repeat && kv_call_is_cancelled(call))
		return -ECANCELED;
	if (call->deadline_ns && clock_ns() >= call->deadline_ns)
		return -ETIMEDOUT;
	if (p->tries >= PLAN_TRIES_MAX) {
		log_warn("index", "an operation on %llu lost %u races, giving up",
			 (unsigned long long)p->op->fileid, p->tries);
		return -EIO;
	}
	if (p->tries >= PLAN_TRIES_POLITE)
		sched_yield();
	if (p->tries % PLAN_TRIES_POLITE == 0)
		p->nreads = p->nread = p->nslots = 0; /* forget what only old runs asked */
	return PLAN_WAIT;
}

/* The current request becomes what the next run sees. */
static void plan_take_rows(struct plan *p)
{
	struct recall *recall = index_recall(p->ix);

	p->snapshot = &p->current->req;
	p->nread = p->current->req.nreads;
	for (uint32_t i = 0; recall && p->nread <= READS_INLINE && i < p->nread; i++)
		recall_read(recall, &p->reads[i], &p->snapshot->rows[i]);
}

/* The current request has been committed. */
static void plan_remember_writes(struct plan *p)
{
	struct recall *recall = index_recall(p->ix);

	for (uint32_t i = 0; recall && i < p->nwrites; i++)
		recall_wrote(recall, &p->writes[i], p->current->req.revision);
}

/* What a probe says of the writes that it looked for. */
enum found { FOUND_DONE, FOUND_NOT_DONE, FOUND_NOTHING };

/* The guard of a key's revision; or NULL. */
static const struct kv_compare *plan_guard_of(const struct plan *p, struct bytes key)
{
	for (uint32_t i = 0; i < p->nguards; i++)
		if (p->guards[i].kind == KV_REVISION && bytes_eq(p->guards[i].key, key))
			return &p->guards[i];
	return NULL;
}

static bool is_as_written(const struct kv_write *w, const struct kv_rows *rows)
{
	if (!w->value.p)
		return !rows->nrows;
	return rows->nrows && bytes_eq(rows->rows[0].value, w->value);
}

/* It is as it was written: can only this request have written it? */
static bool is_evidence(const struct plan *p, const struct kv_write *w, const struct kv_row *row)
{
	const struct kv_compare *g;
	struct dir_times t;
	struct record rec;

	switch (*(const char *)w->key.p) {
	case 'T':
	case 't':
		return !dir_times_decode(w->value, &t) && t.by;
	case 'D':
		g = plan_guard_of(p, w->key);
		return g && g->revision != row->revision && !record_decode(w->value, &rec) &&
		       rec.kind == RECORD_WHOLE;
	default:
		return false;
	}
}

/* It was guarded, was to be replaced, and is still there. */
static bool is_untouched(const struct plan *p, const struct kv_write *w, const struct kv_rows *rows)
{
	const struct kv_compare *g = rows->nrows ? plan_guard_of(p, w->key) : NULL;

	return g && g->revision == rows->rows[0].revision;
}

static enum found plan_finds(const struct plan *p, const struct kv_req *probe)
{
	bool all = true, untouched = false;

	for (uint32_t i = 0; i < p->nwrites; i++) {
		const struct kv_write *w = &p->writes[i];
		const struct kv_rows *rows = &probe->rows[i];
		bool is = is_as_written(w, rows);
		if (is && w->value.p && is_evidence(p, w, &rows->rows[0]))
			return FOUND_DONE;
		all &= is;
		untouched |= is_untouched(p, w, rows);
	}
	if (untouched)
		return FOUND_NOT_DONE;
	return all ? FOUND_DONE : FOUND_NOTHING;
}

/* 0: it was done after all, and the outputs of the run that wrote it are right;
 * PLAN_WAIT: it was not, or nobody can say. */
static int plan_answer_probe(struct plan *p)
{
	int outcome = p->current->outcome;

	if (outcome < 0)
		return outcome;
	if (outcome != KV_DONE)
		return plan_try_again(p);
	p->probing = false;
	enum found found = plan_finds(p, &p->current->req);
	if (found == FOUND_NOT_DONE)
		p->repeat = p->repeat_before;
	return found == FOUND_DONE ? 0 : plan_try_again(p);
}

static bool is_refusal(int outcome)
{
	return outcome == -E2BIG || outcome == -EINVAL;
}

/* What came of the current request: PLAN_WAIT to run again, or the outcome. */
static int plan_answer(struct plan *p)
{
	if (p->probing)
		return plan_answer_probe(p);
	bool wrote = p->current->req.nwrites;
	int outcome = p->current->outcome;

	switch (outcome) {
	case KV_DONE:
		if (wrote) {
			plan_remember_writes(p);
			return 0;
		}
		plan_take_rows(p);
		return PLAN_WAIT;
	case KV_CONFLICT:
		assert(wrote);
		plan_take_rows(p);
		return plan_try_again(p);
	case KV_UNKNOWN:
		p->repeat_before = p->repeat;
		p->repeat = p->repeat || wrote;
		p->probing = wrote;
		p->nread = 0; /* the next run's first wave reads it all */
		return plan_try_again(p);
	case -ESTALE:
		/* Written in the name of a session that has ended? */
		if (p->session == index_session(p->ix) && !p->is_ahead)
			return outcome;
		p->nread = 0;
		return plan_try_again(p);
	default:
		assert(outcome < 0);
		/* Refused may have been what follows from a wrong guess only. */
		if (p->is_ahead && is_refusal(outcome)) {
			p->nread = 0;
			return plan_try_again(p);
		}
		return outcome;
	}
}

/* After an answer was lost, cancelling ends nothing: it would leave unknown what
 * can be found out, and the caller with what he must not do again. */
static struct kv_call *plan_call(struct plan *p)
{
	if (!p->repeat)
		return &p->op->call;
	p->sure.deadline_ns = p->op->call.deadline_ns;
	return &p->sure;
}

/* In the slot that the snapshot is not in. */
static void plan_request(struct plan *p, bool writes)
{
	struct relay *s = &p->slots[p->snapshot == &p->slots[0].req];

	kv_req_fini(&s->req);
	s->owner = p;
	s->req = (struct kv_req){
		.reads = p->reads,
		.nreads = p->nreads,
		.call = plan_call(p),
		.reserve = p->reserve,
		.session = plan_session(p),
	};
	if (writes) {
		s->req.compares = p->guards;
		s->req.ncompares = p->nguards;
		s->req.writes = p->writes;
		s->req.nwrites = p->nwrites;
		s->req.needs_room = p->needs_room;
	}
	p->current = s;
	p->is_ahead = false;
}

/* Reads what a request without an answer was to write. The snapshot stays, since
 * the outputs point to its rows. false: no memory. */
static bool plan_request_probe(struct plan *p)
{
	struct relay *s = &p->slots[p->snapshot == &p->slots[0].req];
	struct kv_read *reads = plan_alloc(p, p->nwrites * sizeof(*reads));

	if (!reads)
		return false;
	for (uint32_t i = 0; i < p->nwrites; i++)
		reads[i] = (struct kv_read){ .from = p->writes[i].key, .limit = 1 };
	kv_req_fini(&s->req);
	s->owner = p;
	s->req = (struct kv_req){ .reads = reads, .nreads = p->nwrites, .call = plan_call(p) };
	p->current = s;
	return true;
}

/* A run on guesses. True: it has become a request. */
static bool plan_runs_ahead(struct plan *p)
{
	int r = plan_run_once(p);

	if (!r && p->nwrites)
		plan_guard_guesses(p);
	p->guessing = false;
	if (r || !p->nwrites || p->failed || p->torn || p->nguards > GUESS_GUARDS_MAX)
		return false;
	plan_request(p, true);
	p->is_ahead = true;
	return true;
}

/* Makes the next request, by a run of the plan if none is to be looked after.
 * True: there is none, the plan has ended with *ret_outcome. */
static bool plan_ends(struct plan *p, int *ret_outcome)
{
	int r;

	if (p->probing) {
		*ret_outcome = -ENOMEM;
		return !plan_request_probe(p);
	}
	if (p->guessing && plan_runs_ahead(p))
		return false;
	r = plan_run_once(p);
	if (r != PLAN_WAIT && (r || !p->nwrites)) {
		*ret_outcome = r;
		return true;
	}
	assert(r != PLAN_WAIT || p->nreads > p->nread);
	plan_request(p, r == 0);
	return false;
}

static void plan_resume(struct relay *relay);

static void plan_go_on(struct plan *p)
{
	int r;

	do {
		if (plan_ends(p, &r))
			break;
		if (!relay_submit(index_kv(p->ix), p->current, plan_resume))
			return; /* p is the completer's now */
		r = plan_answer(p);
	} while (r == PLAN_WAIT);
	plan_end(p, r);
}

static void plan_resume(struct relay *relay)
{
	struct plan *p = relay->owner;

	assert(p->magic == PLAN_MAGIC);
	int r = plan_answer(p);
	if (r == PLAN_WAIT)
		plan_go_on(p);
	else
		plan_end(p, r);
}

static void plan_begin(struct index *ix, struct index_op *op, plan_fn *fn, bool ahead)
{
	struct plan *p = plan_attach(ix, op);

	if (!p) {
		op->done(op, -ENOMEM);
		return;
	}
	p->fn = fn;
	p->now = clock_now();
	p->guessing = ahead && index_recall(ix);
	plan_go_on(p);
}

void plan_run(struct index *ix, struct index_op *op, plan_fn *fn)
{
	plan_begin(ix, op, fn, false);
}

void plan_run_ahead(struct index *ix, struct index_op *op, plan_fn *fn)
{
	plan_begin(ix, op, fn, true);
}
