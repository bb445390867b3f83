/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session leaves that ends in the middle (index/collect.c): whatever it was
 * doing, afterwards there is no block that neither a record names nor another living
 * session has under way. At each step of a publish, and in random histories of
 * several sessions, over engines that fail and lose answers.
 */
#include "tests/unit/kv_kit.h"
#include "tests/unit/sessions_kit.h"

enum { FILES = 6, BLOCKS_MAX = 60 };

struct blocks {
	struct block_ref refs[BLOCKS_MAX];
	uint32_t n;
};

/* The extents of one page in the region of that number. */
static void encode_region(uint64_t region, struct writer *w)
{
	uint64_t sum = 7;
	struct extent x = { .pool_id = 3, .page = region * REGION_PAGES, .slice = 9, .gen = 1,
			    .npages = 1, .slice_pages = 1, .sums = &sum };
	struct extents e = { &x, 1, 1 };

	assert_int_equal(body_encode_extents(&e, w), 0);
}

/* Blocks of refs[]; in a tree, behind them their nodes: of references, four in each. */
static int put_refs(struct index *ix, uint64_t fileid, struct blocks *b, struct blocks *nodes)
{
	struct writer w[2 * BLOCKS_MAX] = { { 0 } };
	struct bytes values[2 * BLOCKS_MAX];
	struct block_ref refs[2 * BLOCKS_MAX];
	struct index_op op = { 0 };
	uint32_t n = 0;

	for (; n < b->n; n++) {
		refs[n] = b->refs[n] = (struct block_ref){ n, index_new_id(ix) };
		encode_region(n, &w[n]);
	}
	for (uint32_t i = 0; nodes && i < b->n; i += 4, n++) {
		refs[n] = nodes->refs[nodes->n++] = (struct block_ref){ i, index_new_id(ix) };
		assert_int_equal(body_encode_blocks(b->refs + i, b->n - i < 4 ? b->n - i : 4,
						    &w[n]), 0);
	}
	for (uint32_t i = 0; i < n; i++)
		values[i] = writer_bytes(&w[i]);
	int r = kit(ix, &op, index_put_blocks, (struct index_op){
		.fileid = fileid, .blocks = refs, .values = values, .nblocks = n });
	for (uint32_t i = 0; i < n; i++)
		writer_fini(&w[i]);
	index_op_fini(&op);
	return r;
}

static int put_blocks(struct index *ix, uint64_t fileid, uint32_t n, struct blocks *ret)
{
	ret->n = n;
	return put_refs(ix, fileid, ret, NULL);
}

static void del_noted(struct index *ix, uint64_t fileid, const struct block_ref *refs,
		      uint32_t n, uint64_t note)
{
	struct index_op op = { 0 };

	assert_int_equal(kit(ix, &op, index_del_blocks, (struct index_op){
		.fileid = fileid, .blocks = refs, .nblocks = n, .note = note }), 0);
	index_op_fini(&op);
}

static void del_blocks(struct index *ix, uint64_t fileid, const struct block_ref *refs,
		       uint32_t n)
{
	del_noted(ix, fileid, refs, n, 0);
}

/* without: what the version before had, and this one has not. */
static int publish_without(struct index *ix, struct index_op *op, struct attr a,
			   const struct blocks *b, bool tree, struct blocks *without)
{
	struct writer w = { 0 };
	uint32_t npages = tree ? 4 * b->n : b->n;

	assert_int_equal(body_encode_blocks(b->refs, b->n, &w), 0);
	a.size = npages * (uint64_t)REGION_PAGES * PAGE_BYTES;
	a.pages = npages;
	int r = kit(ix, op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a,
		.blocks = without->refs, .nblocks = without->n,
		.body = { tree ? BODY_TREE : BODY_BLOCKS, writer_bytes(&w) } });
	writer_fini(&w);
	return r;
}

static int publish_blocks(struct index *ix, struct index_op *op, struct attr a,
			  const struct blocks *b, bool tree)
{
	return publish_without(ix, op, a, b, tree, &(struct blocks){ 0 });
}

/* As the engine does it with what is handed out as gone. */
static void drop(struct index *ix, const struct gone *g)
{
	struct block_ref *refs;
	uint32_t n;

	if (!g->fileid || g->attr.nlink || g->hidden || g->body.kind != BODY_BLOCKS)
		return;
	assert_int_equal(body_decode_blocks(g->body.bytes, &refs, &n), 0);
	del_blocks(ix, g->fileid, refs, n);
	free(refs);
}

/* Orphans ---------------------------------------------------------------------------- */

struct orphans {
	struct sessions *s;
	unsigned n, unnoted;
};

struct sought {
	uint64_t id;
	bool found;
};

static int seek(void *arg, uint64_t id)
{
	struct sought *s = arg;

	s->found |= id == s->id;
	return 0;
}

/* By who published a version without it, and has not deleted it yet? */
static bool is_listed(struct kv *kv, uint64_t fileid, uint64_t id)
{
	struct key from = key_prefix('g', fileid), to = key_prefix_end(from);
	struct kv_read rd = { key_bytes(&from), key_bytes(&to), UINT32_MAX };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	struct sought s = { .id = id };
	struct body b;

	while (kv_wait(kv, &req) != KV_DONE)
		kv_req_fini(&req);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++) {
		assert_int_equal(gone_decode(req.rows[0].rows[i].value, &b), 0);
		if (b.kind == BODY_NONE)
			assert_int_equal(gone_ids(&b, seek, &s), 0);
	}
	kv_req_fini(&req);
	return s.found;
}

static bool is_noted(struct kv *kv, uint64_t fileid, uint64_t id)
{
	struct key from = key_prefix('b', fileid), to = key_prefix_end(from);
	struct kv_read rd = { key_bytes(&from), key_bytes(&to), UINT32_MAX };
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	bool found = false;

	while (kv_wait(kv, &req) != KV_DONE)
		kv_req_fini(&req);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++) {
		uint64_t *ids;
		uint32_t n;
		assert_int_equal(note_decode(req.rows[0].rows[i].value, &ids, &n), 0);
		for (uint32_t k = 0; k < n; k++)
			found |= ids[k] == id;
		free(ids);
	}
	kv_req_fini(&req);
	return found;
}

static int see_orphan(void *arg, uint64_t fileid, uint64_t id)
{
	struct orphans *o = arg;

	o->n++;
	o->unnoted += !is_noted(o->s->kv, fileid, id) && !is_listed(o->s->kv, fileid, id);
	return 0;
}

/* Blocks that no record names: all of them are noted by a session that lives. */
static unsigned orphans(struct sessions *s)
{
	struct orphans o = { .s = s };
	struct index_visitor v = { .orphan_block = see_orphan, .arg = &o };

	assert_int_equal(index_scan(s->ix[0], &v), 0);
	assert_int_equal(o.unnoted, 0);
	return o.n;
}

/* Step by step ------------------------------------------------------------------------- */

struct story {
	struct sessions s;
	struct attr a;
	struct blocks first, second, nodes;
};

static void story_draft(struct story *t)
{
	t->a = kit_new_draft(t->s.ix[1], INDEX_ROOT, "f");
}

static void story_put(struct story *t)
{
	assert_int_equal(put_blocks(t->s.ix[1], t->a.fileid, 8, &t->first), 0);
}

static void story_publish(struct story *t)
{
	struct index_op op = { 0 };

	assert_int_equal(publish_blocks(t->s.ix[1], &op, t->a, &t->first, false), 0);
	t->a = op.entry.attr;
	index_op_fini(&op);
}

static void story_rename(struct story *t)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_rename(t->s.ix[0], &op, INDEX_ROOT, "f", INDEX_ROOT, "g", 0), 0);
	index_op_fini(&op);
}

static void story_put_tree(struct story *t)
{
	t->second.n = 8;
	assert_int_equal(put_refs(t->s.ix[1], t->a.fileid, &t->second, &t->nodes), 0);
}

static void story_link(struct story *t)
{
	struct index_op op = { 0 };
	struct place place = kit_entry(t->s.ix[0], INDEX_ROOT, "g").place;

	assert_int_equal(kit_link(t->s.ix[0], &op, t->a.fileid, place, INDEX_ROOT, "h"), 0);
	index_op_fini(&op);
}

static void story_publish_tree(struct story *t)
{
	struct index_op op = { 0 };

	assert_int_equal(publish_blocks(t->s.ix[1], &op, t->a, &t->nodes, true), 0);
	index_op_fini(&op);
	del_blocks(t->s.ix[1], t->a.fileid, t->first.refs, t->first.n);
}

static void story_end(struct story *t)
{
	assert_int_equal(kit_end(t->s.ix[1], t->a.fileid), 0);
	assert_int_equal(sessions_keys(&t->s, 2), 0);
}

static void test_a_session_ends_at_each_step(void **state)
{
	static void (*const steps[])(struct story *t) = {
		story_draft, story_put, story_publish, story_rename, story_put_tree, story_link,
		story_publish_tree, story_end,
	};
	/* Blocks that its end deletes, after so many steps; and those that stay. */
	static const unsigned deleted[] = { 0, 0, 8, 0, 0, 10, 10, 0, 0 };
	static const unsigned stay[] = { 0, 0, 0, 8, 8, 8, 8, 10, 10 };

	(void)state;
	for (unsigned n = 0; n <= sizeof(steps) / sizeof(*steps); n++) {
		struct story t = { .s = sessions_new() };
		struct index_op op = { 0 };
		unsigned ndeleted;

		for (unsigned i = 0; i < n; i++)
			steps[i](&t);
		assert_int_equal(orphans(&t.s), deleted[n]);
		assert_int_equal(index_session_end(t.s.ix[2], 2, &ndeleted), 0);
		assert_int_equal(ndeleted, deleted[n]);
		assert_int_equal(sessions_keys(&t.s, 2), 0);
		assert_int_equal(orphans(&t.s), 0);
		assert_int_equal(kit_keys(t.s.ix[0], "E"), stay[n]);
		sessions_close(&t.s, &op);
	}
}

static void test_no_more_than_one_session_is_collected(void **state)
{
	struct sessions s = sessions_new();
	struct index_op op = { 0 };
	struct blocks b;
	unsigned n;

	(void)state;
	struct attr a1 = kit_new_draft(s.ix[0], INDEX_ROOT, "f");
	struct attr a2 = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
	assert_int_equal(put_blocks(s.ix[0], a1.fileid, 5, &b), 0);
	assert_int_equal(put_blocks(s.ix[1], a2.fileid, 7, &b), 0);
	assert_int_equal(index_session_end(s.ix[2], 77, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(orphans(&s), 12);
	assert_int_equal(index_session_end(s.ix[2], 2, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(orphans(&s), 5);
	assert_int_equal(index_session_end(s.ix[2], 1, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(kit_keys(s.ix[0], "E"), 0);
	sessions_close(&s, &op);
}

static void follow(void *arg)
{
	index_set_session(arg, 77);
}

/* Another session follows in the middle of a put: all its notes are of the one that it
 * began in, which alone is asked when that one ends. */
static void test_a_put_is_of_one_session(void **state)
{
	struct sessions s = sessions_new();
	struct index_op op = { 0 };
	struct blocks b;
	unsigned n;

	(void)state;
	struct attr a = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
	s.shaky[1]->o.caps = (struct kv_caps){ 1024, 4, 1024, 1 << 20, true };
	s.shaky[1]->o.before_write = follow;
	s.shaky[1]->o.arg = s.ix[1];
	assert_int_equal(put_blocks(s.ix[1], a.fileid, 8, &b), 0);
	assert_int_equal(index_session(s.ix[1]), 77);
	assert_int_equal(sessions_keys(&s, 77), 0);
	assert_int_equal(index_session_end(s.ix[2], 2, &n), 0);
	assert_int_equal(n, 8);
	assert_int_equal(orphans(&s), 0);
	sessions_close(&s, &op);
}

/* A publish that lost a race is about to be done once more, when its session ends: */
struct late {
	struct sessions *s;
	uint64_t fileid;
	struct place place;
	bool writes_again; /* the next one writes the object, too, */
	bool unknown;      /* of the request there is no answer */
};

/* The record is not as it was read. */
static void change_record(void *arg)
{
	struct late *l = arg;
	struct index_op op = { 0 };

	assert_int_equal(kit(l->s->ix[0], &op, index_setattr, (struct index_op){
		.fileid = l->fileid, .place = l->place, .mask = INDEX_SET_MODE,
		.attr.mode = 0600 }), 0);
	index_op_fini(&op);
}

static void end_and_follow(void *arg)
{
	struct late *l = arg;
	struct shaky_opts *o = &l->s->shaky[1]->o;
	struct index_op op = { 0 };

	assert_int_equal(index_session_end(l->s->ix[2], 2, NULL), 0);
	index_set_session(l->s->ix[1], 77);
	if (l->writes_again)
		assert_int_equal(kit(l->s->ix[1], &op, index_writer, (struct index_op){
			.fileid = l->fileid, .place = l->place }), 0);
	index_op_fini(&op);
	if (l->unknown) {
		o->nth_write = 1;
		o->nth_outcome = KV_UNKNOWN;
		o->nth_lost = change_record; /* else it would show that it was not done */
	}
}

static void lose_a_race(void *arg)
{
	struct late *l = arg;

	change_record(l);
	l->s->shaky[1]->o.before_write = end_and_follow;
}

static void test_a_publish_is_of_one_session(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct sessions s = sessions_new();
		struct index_op op = { 0 };
		struct blocks old = { .n = 3 }, new = { .n = 8 };

		struct attr a = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
		assert_int_equal(put_refs(s.ix[1], a.fileid, &old, NULL), 0);
		assert_int_equal(publish_blocks(s.ix[1], &op, a, &old, false), 0);
		a = op.entry.attr;
		struct late l = { &s, a.fileid, op.entry.place, how % 2, how / 2 };
		assert_int_equal(put_refs(s.ix[1], a.fileid, &new, NULL), 0);
		s.shaky[1]->o.before_write = lose_a_race;
		s.shaky[1]->o.arg = &l;
		assert_int_equal(publish_blocks(s.ix[1], &op, a, &new, false), -EIO);
		assert_int_equal(op.unsure, l.unknown);
		assert_int_equal(index_session(s.ix[1]), 77);
		assert_int_equal(kit_stat(s.ix[0], &op, a.fileid, l.place), 0);
		assert_int_equal(op.entry.attr.version, a.version);
		assert_int_equal(orphans(&s), 0);
		assert_int_equal(kit_keys(s.ix[0], "E"), old.n);
		assert_int_equal(kit_end(s.ix[1], a.fileid), 0);
		sessions_close(&s, &op);
	}
}

/* Begun by who knows what session it was put together in. */
static void test_a_publish_that_begins_late(void **state)
{
	struct sessions s = sessions_new();
	struct index_op op = { 0 };

	(void)state;
	struct attr a = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
	assert_int_equal(kit(s.ix[1], &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a, .session = 77 }), -EIO);
	assert_int_equal(kit(s.ix[1], &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a, .session = 2 }), 0);
	assert_int_equal(kit_end(s.ix[1], a.fileid), 0);
	sessions_close(&s, &op);
}

/* The end of writing meets the end of its session, and the next one writes the object. */
static void test_an_end_of_writing_is_of_one_session(void **state)
{
	struct sessions s = sessions_new();
	struct index_op op = { 0 };

	(void)state;
	struct attr a = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
	assert_int_equal(kit_publish(s.ix[1], &op, a, "one"), 0);
	struct late l = { &s, a.fileid, op.entry.place, true, true };
	s.shaky[1]->o.before_write = end_and_follow;
	s.shaky[1]->o.arg = &l;
	assert_int_equal(kit_end(s.ix[1], a.fileid), 0);
	assert_int_equal(sessions_keys(&s, 77), 1);
	assert_int_equal(kit(s.ix[1], &op, index_writer_end, (struct index_op){
		.fileid = a.fileid, .session = 2 }), 0);
	assert_int_equal(sessions_keys(&s, 77), 1);
	assert_int_equal(kit_end(s.ix[1], a.fileid), 0);
	assert_int_equal(sessions_keys(&s, 77), 0);
	sessions_close(&s, &op);
}

/* Whoever unlinked an object ended before it was dropped, or in the middle of that. */
static void test_what_was_unlinked_is_dropped(void **state)
{
	(void)state;
	for (unsigned half = 0; half < 6; half++) {
		bool tree = half % 2;
		struct sessions s = sessions_new();
		struct blocks b = { .n = 9 }, nodes = { 0 };
		struct index_op op = { 0 };
		unsigned n;

		struct attr a = kit_new_draft(s.ix[0], INDEX_ROOT, "f");
		assert_int_equal(put_refs(s.ix[0], a.fileid, &b, tree ? &nodes : NULL), 0);
		assert_int_equal(publish_blocks(s.ix[0], &op, a, tree ? &nodes : &b, tree), 0);
		assert_int_equal(kit(s.ix[0], &op, index_writer_end,
				     (struct index_op){ .fileid = a.fileid }), 0);
		assert_int_equal(kit(s.ix[1], &op, index_unlink, (struct index_op){
			.parent = INDEX_ROOT, .name = "f" }), 0);
		assert_int_equal(op.gone.fileid, a.fileid);
		if (half / 2 >= 1)
			del_blocks(s.ix[1], a.fileid, b.refs, half / 2 == 1 ? 4 : b.n);
		if (half / 2 == 2 && tree)
			del_blocks(s.ix[1], a.fileid, nodes.refs, 1);
		assert_int_equal(sessions_keys(&s, 2), 1);
		assert_int_equal(index_session_end(s.ix[2], 1, &n), 0);
		assert_int_equal(n, 0);
		assert_int_equal(index_session_end(s.ix[2], 2, &n), 0);
		assert_int_equal(sessions_keys(&s, 2), 0);
		assert_int_equal(kit_keys(s.ix[0], "E"), 0);
		sessions_close(&s, &op);
	}
}

/* Who published ends before he has deleted what the new version does without, after some
 * of it, or after all. */
static void test_what_a_version_did_without_is_deleted(void **state)
{
	(void)state;
	for (unsigned step = 0; step < 3; step++) {
		struct sessions s = sessions_new();
		struct index_op op = { 0 };
		struct blocks old = { .n = 9 }, new = { .n = 8 };
		unsigned n, left[] = { 9, 5, 0 };

		struct attr a = kit_new_draft(s.ix[1], INDEX_ROOT, "f");
		assert_int_equal(put_refs(s.ix[1], a.fileid, &old, NULL), 0);
		assert_int_equal(publish_blocks(s.ix[1], &op, a, &old, false), 0);
		a = op.entry.attr;
		index_op_fini(&op);
		assert_int_equal(put_refs(s.ix[1], a.fileid, &new, NULL), 0);
		unsigned keys = sessions_keys(&s, 2);
		assert_int_equal(publish_without(s.ix[1], &op, a, &new, false, &old), 0);
		assert_int_equal(op.entry.attr.version, a.version + 1);
		assert_int_equal(op.gone2.fileid, 0);
		assert_int_equal(sessions_keys(&s, 2), keys + 1);
		if (step == 1)
			del_blocks(s.ix[1], a.fileid, old.refs, 4);
		if (step == 2)
			del_noted(s.ix[1], a.fileid, old.refs, old.n, a.version);
		assert_int_equal(sessions_keys(&s, 2), keys + (step < 2));
		assert_int_equal(orphans(&s), left[step]);
		assert_int_equal(index_session_end(s.ix[2], 2, &n), 0);
		assert_int_equal(n, step == 2 ? 0 : 9);
		assert_int_equal(sessions_keys(&s, 2), 0);
		assert_int_equal(kit_keys(s.ix[0], "E"), new.n);
		sessions_close(&s, &op);
	}
}

/* Random ------------------------------------------------------------------------------ */

struct history {
	struct sessions s;
	struct kv *fault;
	struct rng g;
	uint64_t last; /* session number */
	uint64_t number[KIT_SESSIONS];
	struct {
		bool open;
		struct attr a;
		struct blocks base, put; /* what it had, and has under way */
	} at[KIT_SESSIONS][FILES];
};

static const char *file_name(unsigned f)
{
	static const char *const names[FILES] = { "a", "b", "c", "d", "e", "f" };

	return names[f];
}

static void blocks_of(const struct body *body, struct blocks *ret)
{
	struct block_ref *refs;

	ret->n = 0;
	if (body->kind != BODY_BLOCKS)
		return;
	assert_int_equal(body_decode_blocks(body->bytes, &refs, &ret->n), 0);
	memcpy(ret->refs, refs, ret->n * sizeof(*refs));
	free(refs);
}

static void step_open(struct history *h, unsigned i, unsigned f)
{
	struct index *ix = h->s.ix[i];
	struct index_op op = { 0 };
	int r = kit_lookup(ix, &op, INDEX_ROOT, file_name(f));

	h->at[i][f].base.n = h->at[i][f].put.n = 0;
	if (r == INDEX_MISS) {
		assert_int_equal(kit_draft(ix, &op, INDEX_ROOT, file_name(f)), 0);
	} else {
		assert_int_equal(r, 0);
		struct entry e = op.entry;
		if (e.draft) { /* it came here by a rename */
			index_op_fini(&op);
			return;
		}
		blocks_of(&e.body, &h->at[i][f].base);
		for (unsigned k = 0; k < FILES; k++)
			if (h->at[i][k].open && h->at[i][k].a.fileid == e.attr.fileid) {
				index_op_fini(&op);
				return;
			}
		assert_int_equal(kit(ix, &op, index_writer, (struct index_op){
			.fileid = e.attr.fileid, .place = e.place }), 0);
	}
	h->at[i][f].a = op.entry.attr;
	h->at[i][f].open = true;
	index_op_fini(&op);
}

static void step_publish(struct history *h, unsigned i, unsigned f)
{
	struct index *ix = h->s.ix[i];
	struct blocks *put = &h->at[i][f].put, *base = &h->at[i][f].base;
	struct attr *a = &h->at[i][f].a;
	struct index_op op = { 0 };
	uint64_t note = a->version;
	int r = publish_without(ix, &op, *a, put, false, base);

	/* An answer was lost, and another version was there before: its blocks are there still. */
	if (r == INDEX_CHANGED) {
		assert_true(op.unsure);
		r = publish_without(ix, &op, *a, put, false, base);
	}
	if (r == INDEX_UNLINKED) {
		del_blocks(ix, a->fileid, put->refs, put->n);
	} else {
		assert_int_equal(r, 0);
		*a = op.entry.attr;
		if (op.gone2.fileid)
			drop(ix, &op.gone2);
		else if (chance(&h->g, 80)) /* else it leaves them to the session's end */
			del_noted(ix, a->fileid, base->refs, base->n, note);
		drop(ix, &op.gone);
		*base = *put;
	}
	put->n = 0;
	index_op_fini(&op);
}

static void step_end(struct history *h, unsigned i)
{
	if (h->fault && chance(&h->g, 50))
		kv_fault_arm(h->fault, 1 + below(&h->g, 6), KV_UNKNOWN);
	/* Somebody else ends it; it had no time to close anything. */
	struct index *ix = h->s.ix[(i + 1) % KIT_SESSIONS];
	assert_int_equal(index_session_end(ix, h->number[i], NULL), 0);
	if (h->fault)
		kv_fault_arm(h->fault, 0, 0);
	assert_int_equal(sessions_keys(&h->s, h->number[i]), 0);
	index_close(h->s.ix[i]);
	for (unsigned f = 0; f < FILES; f++)
		h->at[i][f].open = false;
	h->number[i] = ++h->last;
	sessions_begin(&h->s, i, h->number[i]);
	h->s.shaky[i]->o.caps = (struct kv_caps){ 1024, 12, 1024, 1 << 20, true };
}

static void history_step(struct history *h)
{
	unsigned i = (unsigned)below(&h->g, KIT_SESSIONS), f = (unsigned)below(&h->g, FILES);
	struct index *ix = h->s.ix[i];
	struct index_op op = { 0 };

	if (h->fault)
		kv_fault_arm(h->fault, 1 + below(&h->g, 6), KV_UNKNOWN);
	if (chance(&h->g, 10)) {
		if (!kit_unlink(ix, &op, INDEX_ROOT, file_name(f))) {
			drop(ix, &op.gone);
			drop(ix, &op.gone2);
		}
	} else if (chance(&h->g, 15)) {
		const char *to = file_name((unsigned)below(&h->g, FILES));
		if (!kit_rename(ix, &op, INDEX_ROOT, file_name(f), INDEX_ROOT, to, 0)) {
			drop(ix, &op.gone);
			drop(ix, &op.gone2);
		}
	} else if (!h->at[i][f].open) {
		step_open(h, i, f);
	} else if (!h->at[i][f].put.n) {
		assert_int_equal(put_blocks(ix, h->at[i][f].a.fileid,
					    1 + (uint32_t)below(&h->g, 40), &h->at[i][f].put), 0);
	} else if (chance(&h->g, 70)) {
		step_publish(h, i, f);
	} else if (chance(&h->g, 30)) {
		del_blocks(ix, h->at[i][f].a.fileid, h->at[i][f].put.refs, h->at[i][f].put.n);
		assert_int_equal(kit_end(ix, h->at[i][f].a.fileid), 0);
		h->at[i][f].open = false;
	}
	if (h->fault)
		kv_fault_arm(h->fault, 0, 0);
	index_op_fini(&op);
	if (chance(&h->g, 5))
		step_end(h, i);
	orphans(&h->s);
}

static void history(struct kv *kv, struct kv *fault, uint64_t seed, unsigned steps)
{
	struct history *h = calloc(1, sizeof(*h));
	struct index_op op = { 0 };

	h->s = sessions_over(kv);
	h->fault = fault;
	h->g.x = seed;
	h->last = KIT_SESSIONS;
	for (unsigned i = 0; i < KIT_SESSIONS; i++) {
		h->number[i] = i + 1;
		h->s.shaky[i]->o.caps = (struct kv_caps){ 1024, 12, 1024, 1 << 20, true };
	}
	for (unsigned n = 0; n < steps / KIT_SLOW; n++)
		history_step(h);
	for (unsigned i = 0; i < KIT_SESSIONS; i++)
		step_end(h, i);
	assert_int_equal(orphans(&h->s), 0);
	sessions_close(&h->s, &op);
	free(h);
}

static void walk_mem(void *arg, uint64_t seed)
{
	struct kv *kv;

	(void)arg;
	assert_int_equal(kv_mem_open(&kv), 0);
	history(kv, NULL, seed, 3000);
}

static void walk_lmdb(void *arg, uint64_t seed)
{
	struct folder f;
	struct kv *kv;

	(void)arg;
	folder_make(&f);
	struct kv_lmdb_opts o = { .path = folder_file(&f, "index"), .size_bytes = 32 << 20,
				  .create = true };
	assert_int_equal(kv_lmdb_open(&o, &kv), 0);
	history(kv, NULL, seed, 1500);
	folder_remove(&f);
}

static void walk_fault(void *arg, uint64_t seed)
{
	struct kv *kv, *fault;

	(void)arg;
	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(kv_fault_open(kv, seed, false, &fault), 0);
	history(fault, fault, seed, 3000);
}

static void test_random_ends(void **state)
{
	(void)state;
	for_seeds("mem", walk_mem, NULL);
	for_seeds("lmdb", walk_lmdb, NULL);
	for_seeds("fault", walk_fault, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_session_ends_at_each_step),
		cmocka_unit_test(test_no_more_than_one_session_is_collected),
		cmocka_unit_test(test_a_put_is_of_one_session),
		cmocka_unit_test(test_a_publish_is_of_one_session),
		cmocka_unit_test(test_a_publish_that_begins_late),
		cmocka_unit_test(test_an_end_of_writing_is_of_one_session),
		cmocka_unit_test(test_what_was_unlinked_is_dropped),
		cmocka_unit_test(test_what_a_version_did_without_is_deleted),
		cmocka_unit_test(test_random_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
