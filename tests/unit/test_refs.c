/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References are counted by what is written to the index (engine/refs.h): random
 * rows against a model that counts anew after each step; what is refused; files,
 * where it shows that nobody else counts.
 */
#include "tests/unit/objects.h"

#include <unistd.h>

#include "engine/refs.h"
#include "index/keys.h"
#include "index/value.h"
#include "tests/unit/file_kit.h"

/* Rows by hand --------------------------------------------------------------------- */

enum { NROWS = 40, NSLICES = 60, ROW_EXTENTS = 12, KINDS = 4 };

struct row {
	bool there;
	uint32_t n;
	struct extent v[ROW_EXTENTS];
};

struct model {
	struct rng rng;
	struct kv *kv;
	struct pool *pool;
	struct refs *refs;
	struct row rows[NROWS]; /* kind: i % KINDS */
	struct {
		struct slice_id id;
		uint32_t npages;
		bool pinned, there;
	} slices[NSLICES];
	unsigned refused, written;
};

static uint64_t sums[REGION_PAGES / SUM_PAGES];

static struct key row_key(unsigned i)
{
	uint64_t id = 100 + i;

	switch (i % KINDS) {
	case 0: return key_name(INDEX_ROOT, 256 * id, bytes_str("name"));
	case 1: return key_file(id);
	case 2: return key_block(id, 7);
	default: return key_gone(id, 0, 5);
	}
}

static void row_value(unsigned i, const struct row *row, struct writer *w)
{
	struct record rec = { .attr = object_attr(100 + i, 1, 1) };
	struct extents x = { .v = (struct extent *)row->v, .n = row->n };
	struct writer body = { 0 };

	if (row->n)
		assert_int_equal(body_encode_extents(&x, &body), 0);
	if (i % KINDS == 2) {
		size_t begin = value_begin(w);
		write_bytes(w, body.p, body.len);
		value_end(w, begin);
	} else if (i % KINDS == 3) {
		gone_encode(&(struct body){ BODY_EXTENTS, writer_bytes(&body) }, w);
	} else {
		rec.body = (struct body){ row->n ? BODY_EXTENTS : BODY_NONE, writer_bytes(&body) };
		record_encode(&rec, w);
	}
	writer_fini(&body);
}

static uint32_t refs_of(const struct model *m, struct slice_id id)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < NROWS; i++)
		for (uint32_t k = 0; m->rows[i].there && k < m->rows[i].n; k++)
			n += m->rows[i].v[k].slice == id.page && m->rows[i].v[k].gen == id.gen;
	return n;
}

/* The pool is as the rows and the pins say. */
static void assert_counted(struct model *m)
{
	for (unsigned i = 0; i < NSLICES; i++) {
		struct slice_id id = m->slices[i].id;
		uint32_t refs = refs_of(m, id);
		struct slice_view v;
		bool is_there = pool_next(m->pool, id.page, &v) && v.id.page == id.page &&
				v.id.gen == id.gen;
		if (!m->slices[i].there)
			continue;
		m->slices[i].there = refs || m->slices[i].pinned;
		assert_int_equal(is_there, m->slices[i].there);
		if (!is_there)
			continue;
		assert_int_equal(v.refs, refs);
		assert_int_equal(v.pins, m->slices[i].pinned);
		if (refs)
			assert_int_equal(v.state, SLICE_LIVE);
	}
}

/* Any extent of a slice that is there, on pages from *page on. */
static bool any_extent(struct model *m, uint64_t *page, struct extent *ret)
{
	for (unsigned tries = 0; tries < 20; tries++) {
		unsigned i = (unsigned)rnd_below(&m->rng, NSLICES);
		uint32_t npages = m->slices[i].npages;
		if (!m->slices[i].there)
			continue;
		uint32_t off = (uint32_t)rnd_below(&m->rng, npages);
		*ret = (struct extent){
			.pool_id = pool_id(m->pool), .page = *page, .slice = m->slices[i].id.page,
			.gen = m->slices[i].id.gen, .slice_off = (uint16_t)off,
			.npages = (uint16_t)(1 + rnd_below(&m->rng, npages - off)),
			.slice_pages = (uint16_t)npages, .sums = sums,
		};
		*page += ret->npages + rnd_below(&m->rng, 3);
		return true;
	}
	return false;
}

static struct row any_row(struct model *m, unsigned i)
{
	uint32_t n = (uint32_t)rnd_below(&m->rng, ROW_EXTENTS);
	uint64_t page = 0;
	struct row row = { .there = rnd_below(&m->rng, 4) };

	while (row.there && row.n < n && any_extent(m, &page, &row.v[row.n]))
		row.n++;
	/* A block, or what is gone, without extents is none. */
	if (i % KINDS >= 2 && !row.n)
		row.there = false;
	return row;
}

/* Makes one extent of the row wrong; what is to be the answer. */
static int spoil(struct model *m, struct row *row)
{
	struct extent *x = &row->v[rnd_below(&m->rng, row->n)];
	struct slice_id s;
	uint32_t got;

	switch (rnd_below(&m->rng, 5)) {
	case 0:
		x->gen++;
		return -ESTALE;
	case 1:
		x->slice_pages++;
		return -ESTALE;
	case 2:
		x->slice = pool_npages(m->pool) + 1;
		return -ESTALE;
	case 3:
		x->pool_id ^= 1;
		return -EINVAL;
	default:
		/* It is not sealed. Freed below, while nothing has been taken since. */
		if (pool_alloc(m->pool, x->slice_pages, &s, &got))
			return 0;
		x->slice = s.page;
		x->gen = s.gen;
		x->slice_pages = (uint16_t)got;
		if (x->slice_off + x->npages > got) {
			x->slice_off = 0;
			x->npages = 1;
		}
		return -EINVAL;
	}
}

static void unpin_spoiled(struct model *m)
{
	struct slice_view v;

	for (uint32_t page = 0; pool_next(m->pool, page, &v); page = v.id.page + v.npages)
		if (v.state == SLICE_WRITING)
			assert_int_equal(pool_unpin(m->pool, v.id), 0);
}

/* One to three rows at once: moved, overwritten, copied, deleted. */
static void step_write(struct model *m)
{
	unsigned n = 1 + (unsigned)rnd_below(&m->rng, 3), at[3];
	bool moves = n > 1 && !rnd_below(&m->rng, 3), bad = !rnd_below(&m->rng, 6);
	struct writer values[3] = { 0 };
	struct kv_write writes[3];
	struct key keys[3];
	struct row rows[3];
	int expected = 0;

	for (unsigned i = 0; i < n; i++) {
		do {
			at[i] = (unsigned)rnd_below(&m->rng, NROWS);
		} while ((i > 0 && at[i] == at[0]) || (i > 1 && at[i] == at[1]));
		rows[i] = any_row(m, at[i]);
		if (moves && i == 1 && m->rows[at[0]].there &&
		    (m->rows[at[0]].n || at[1] % KINDS < 2)) { /* as rename does */
			rows[1] = m->rows[at[0]];
			rows[0] = (struct row){ 0 };
		}
	}
	if (bad && rows[n - 1].there && rows[n - 1].n)
		expected = spoil(m, &rows[n - 1]);
	for (unsigned i = 0; i < n; i++) {
		keys[i] = row_key(at[i]);
		writes[i] = (struct kv_write){ .key = key_bytes(&keys[i]) };
		if (!rows[i].there)
			continue;
		row_value(at[i], &rows[i], &values[i]);
		writes[i].value = writer_bytes(&values[i]);
	}
	struct kv_req req = { .writes = writes, .nwrites = n };
	assert_int_equal(kv_wait(m->kv, &req), expected);
	kv_req_fini(&req);
	for (unsigned i = 0; i < n; i++) {
		if (!expected)
			m->rows[at[i]] = rows[i];
		writer_fini(&values[i]);
	}
	m->refused += expected < 0;
	m->written += !expected;
	unpin_spoiled(m);
}

static void step_slice(struct model *m)
{
	unsigned i = (unsigned)rnd_below(&m->rng, NSLICES);
	struct slice_id s;
	uint32_t got;

	if (m->slices[i].there && m->slices[i].pinned) {
		m->slices[i].pinned = false;
		assert_int_equal(pool_unpin(m->pool, m->slices[i].id), 0);
	} else if (m->slices[i].there) {
		m->slices[i].pinned = true;
		assert_int_equal(pool_pin(m->pool, m->slices[i].id), 0);
	} else if (!pool_alloc(m->pool, 1 + (uint32_t)rnd_below(&m->rng, 40), &s, &got)) {
		assert_int_equal(pool_seal(m->pool, s), 0);
		m->slices[i].id = s;
		m->slices[i].npages = got;
		m->slices[i].pinned = m->slices[i].there = true;
	}
}

static void end_session(struct model *m)
{
	assert_int_equal(m->kv->ops->session_end(m->kv, 5), 0);
	for (unsigned i = 3; i < NROWS; i += KINDS)
		m->rows[i].there = false;
}

static void open_kv(struct model *m, unsigned engine, const char *path)
{
	struct kv_lmdb_opts o = { .path = path, .size_bytes = 8 << 20, .create = true };

	assert_int_equal(engine ? kv_lmdb_open(&o, &m->kv) : kv_mem_open(&m->kv), 0);
	if (engine == 2)
		assert_int_equal(kv_fault_open(m->kv, 7, true, &m->kv), 0);
}

static void walk_rows(unsigned engine)
{
	struct pool_opts o = { .bytes = 4 << 20 };
	struct model *m = calloc(1, sizeof(*m));
	char path[] = "/tmp/slicefs-refs.XXXXXX", file[64];

	m->rng.s = rnd_seed();
	assert_non_null(mkdtemp(path));
	snprintf(file, sizeof(file), "%s/index", path);
	open_kv(m, engine, file);
	assert_int_equal(pool_open(&o, &m->pool), 0);
	assert_int_equal(refs_open(m->pool, NULL, m->kv, &m->refs), 0);
	for (unsigned i = 0; i < (engine == 2 ? 1500 : 6000); i++) {
		if (rnd_below(&m->rng, 3))
			step_write(m);
		else
			step_slice(m);
		if (!rnd_below(&m->rng, 500))
			end_session(m);
		assert_counted(m);
	}
	assert_true(m->refused > 20 && m->written > 500);
	for (unsigned i = 0; i < NSLICES; i++) {
		if (!m->slices[i].there || !m->slices[i].pinned)
			continue;
		m->slices[i].pinned = false;
		assert_int_equal(pool_unpin(m->pool, m->slices[i].id), 0);
	}
	end_session(m);
	assert_counted(m);
	for (unsigned i = 0; i < NROWS; i++) {
		struct key k = row_key(i);
		struct kv_write w = { .key = key_bytes(&k) };
		struct kv_req req = { .writes = &w, .nwrites = 1 };
		assert_int_equal(kv_wait(m->kv, &req), 0);
		kv_req_fini(&req);
	}
	assert_int_equal(pool_nfree(m->pool), pool_npages(m->pool));
	kv_close(m->kv);
	refs_close(m->refs);
	pool_close(m->pool);
	unlink(file);
	snprintf(file, sizeof(file), "%s/index-lock", path);
	unlink(file);
	rmdir(path);
	free(m);
}

static void test_rows(void **state)
{
	(void)state;
	for (unsigned engine = 0; engine < 3; engine++)
		walk_rows(engine);
}

/* What is refused ------------------------------------------------------------------ */

static struct engine *open_engine(int (*wrap)(struct kv *, struct kv **))
{
	struct engine_opts o = { .in_memory = true, .pool_bytes = 32 << 20, .wrap_kv = wrap };
	struct engine *e = NULL;
	char *reason = NULL;

	if (engine_open(&o, &e, &reason))
		fail_msg("%s", reason);
	return e;
}

static void test_what_does_not_decode(void **state)
{
	struct engine *e = open_engine(NULL);
	struct attr a = object_attr(9, 1, 1);
	struct record rec = { .attr = a, .body = { BODY_EXTENTS, bytes_str("rubbish") } };
	struct block_ref refs[] = { { 0, 5 }, { 7, 6 } };
	struct writer w = { 0 }, block = { 0 }, nodes = { 0 };
	(void)state;

	record_encode(&rec, &w);
	assert_int_equal(put_row(e, object_key(e, 9), writer_bytes(&w)), -EINVAL);
	assert_int_equal(put_row(e, object_key(e, 9), bytes_str("no value")), -EINVAL);
	size_t begin = value_begin(&block);
	write_bytes(&block, "rubbish", 7);
	value_end(&block, begin);
	assert_int_equal(put_row(e, key_block(9, 1), writer_bytes(&block)), -EINVAL);
	/* A tree's block names no slices. */
	begin = value_begin(&nodes);
	assert_int_equal(body_encode_blocks(refs, 2, &nodes), 0);
	value_end(&nodes, begin);
	assert_int_equal(put_row(e, key_block(9, 1), writer_bytes(&nodes)), 0);
	assert_int_equal(put_row(e, key_block(9, 1), BYTES_NONE), 0);
	check_clean(e);
	writer_fini(&w);
	writer_fini(&block);
	writer_fini(&nodes);
	engine_close(e);
}

/* Files --------------------------------------------------------------------------- */

static struct kv *fault;

static int wrap_async(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, 7, true, ret);

	fault = *ret;
	return r;
}

/* Who unlinks may write as much at once, though the index answers later. */
static void test_room_at_once(void **state)
{
	uint64_t len = 30 << 20;
	uint8_t *buf = malloc(len);
	struct file *f;
	(void)state;

	memset(buf, 7, len);
	for (unsigned async = 0; async < 2; async++) {
		struct engine *e = open_engine(async ? wrap_async : NULL);
		assert_int_equal(kit_create(e, "a", &f), 0);
		assert_int_equal(kit_write(f, 0, buf, len), len);
		assert_int_equal(kit_publish(f, true), 0);
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		for (unsigned i = 0; i < 10; i++) {
			assert_int_equal(kit_create(e, "b", &f), 0);
			assert_int_equal(kit_write(f, 0, buf, len), -ENOSPC);
			assert_int_equal(kit_unlink(e, i ? "c" : "a"), 0);
			assert_int_equal(kit_write(f, 0, buf, len), len);
			assert_int_equal(kit_publish(f, true), 0);
			struct index_op op = { .parent = INDEX_ROOT, .name = "b",
					       .parent2 = INDEX_ROOT, .name2 = "c" };
			assert_int_equal(index_wait(e->ix, &op, index_rename), 0);
			index_op_fini(&op);
			assert_int_equal(kit_close(f, FILE_WRITE), 0);
		}
		drops_wait(&e->drops);
		check_clean(e);
		engine_close(e);
	}
	free(buf);
}

/* What has lost its last name can be opened until it is dropped, small or large; and
 * goes with the session, if nobody drops it. */
static void test_gone(void **state)
{
	static uint8_t buf[12 << 20], got[12 << 20];
	struct file *f;
	(void)state;

	for (unsigned i = 0; i < 4; i++) {
		struct engine *e = open_engine(NULL);
		uint64_t pages = i % 2 ? 1000 : 5, len = (pages - 1) * 12288 + 1;
		struct index_op op = { .parent = INDEX_ROOT, .name = "a" };

		assert_int_equal(kit_create(e, "a", &f), 0);
		for (uint64_t p = 0; p < pages; p++) { /* with holes between */
			assert_int_equal(kit_write(f, p * 12288, "x", 1), 1);
			buf[p * 12288] = 'x';
		}
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		uint32_t used = pool_npages(e->pool) - pool_nfree(e->pool);
		assert_int_equal(index_wait(e->ix, &op, index_unlink), 0);
		assert_int_equal(op.gone.body.kind, i % 2 ? BODY_BLOCKS : BODY_EXTENTS);
		assert_int_equal(pool_npages(e->pool) - pool_nfree(e->pool), used);
		check_clean(e);
		assert_int_equal(kit_open_gone(e, &op.gone, 0, &f), 0);
		if (i < 2)
			engine_drop(e, &op.gone);
		assert_int_equal(kit_read(f, 0, got, len), len);
		assert_memory_equal(buf, got, len);
		assert_int_equal(kit_close(f, 0), 0);
		if (i < 2)
			assert_int_equal(pool_nfree(e->pool), pool_npages(e->pool));
		check_clean(e);
		index_op_fini(&op);
		engine_close(e);
	}
}

/* Another one has replaced the version that ours shares blocks with. */
static void test_changed(void **state)
{
	static uint8_t buf[12 << 20], got[12 << 20];
	(void)state;

	for (unsigned async = 0; async < 2; async++) {
		struct engine *e = open_engine(async ? wrap_async : NULL);
		struct place place;
		struct file *f;
		struct attr a;

		assert_int_equal(kit_create(e, "a", &f), 0);
		for (uint64_t i = 0; i < 1000; i++) /* with holes: too many for a record */
			assert_int_equal(kit_write(f, i * 12288, "x", 1), 1);
		assert_int_equal(kit_publish(f, true), 0);
		assert_int_equal(kit_lookup(e, "a", &a, &place), 0);
		/* As another mount would: its version, and our blocks go. */
		struct index_op op = { .fileid = a.fileid, .attr = a };
		op.attr.version--;
		assert_int_equal(index_wait(e->ix, &op, index_publish), 0);
		assert_int_equal(op.gone2.fileid, a.fileid);
		engine_drop(e, &op.gone2);
		drops_wait(&e->drops);
		index_op_fini(&op);

		assert_int_equal(kit_write(f, 5000, "y", 1), 1);
		assert_int_equal(kit_publish(f, true), 0);
		check_clean(e);
		assert_int_equal(kit_write(f, 5001, "z", 1), 1); /* shares its own again */
		assert_int_equal(kit_close(f, FILE_WRITE), 0);
		drops_wait(&e->drops);
		check_clean(e);

		uint64_t len = 999 * 12288 + 1;
		for (uint64_t i = 0; i < 1000; i++)
			buf[i * 12288] = 'x';
		buf[5000] = 'y';
		buf[5001] = 'z';
		assert_int_equal(kit_open_name(e, "a", 0, &f), 0);
		assert_int_equal(kit_read(f, 0, got, len), len);
		assert_memory_equal(buf, got, len);
		assert_int_equal(kit_close(f, 0), 0);
		assert_int_equal(kit_unlink(e, "a"), 0);
		drops_wait(&e->drops);
		assert_int_equal(pool_nfree(e->pool), pool_npages(e->pool));
		engine_close(e);
	}
}

static int idle(void **state)
{
	(void)state;
	assert_idle();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_rows, idle),
		cmocka_unit_test_teardown(test_what_does_not_decode, idle),
		cmocka_unit_test_teardown(test_room_at_once, idle),
		cmocka_unit_test_teardown(test_gone, idle),
		cmocka_unit_test_teardown(test_changed, idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
