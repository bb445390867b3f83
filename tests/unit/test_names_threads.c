/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that work in one small tree at once, of one session or of several. Which
 * of them wins is open; but
 * afterwards index_check() finds nothing, every version that was published is
 * either there or was handed out as gone, once, and no session key is left.
 */
#include "tests/unit/names_kit.h"
#include "tests/unit/kv_shaky.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { NTHREADS = 4, NDIRS = 4, IDS_MAX = 300000 };

static const char *const names[] = { "a", "b", "c" };

struct crowd {
	struct index *ix[NTHREADS]; /* of sessions; some threads share one */
	_Atomic unsigned nthreads;  /* that have begun */
	unsigned nsessions;
	uint64_t dirs[NDIRS];
	_Atomic uint64_t state;
	unsigned steps;
	/* By fileid: was it published, how often was its body handed out. */
	_Atomic unsigned published[IDS_MAX], gone[IDS_MAX];
	_Atomic unsigned ndone;
};

/* The session that this thread works for. */
static _Thread_local struct index *mine;

static unsigned pick(struct crowd *c, unsigned n)
{
	return (unsigned)(random_of(&c->state) % n);
}

static const char *pick_name(struct crowd *c) { return names[pick(c, 3)]; }

/* One of the fixed directories, or one that is found in it. */
static uint64_t pick_dir(struct crowd *c, struct index_op *op)
{
	uint64_t dir = c->dirs[pick(c, NDIRS)];

	if (pick(c, 3) == 0 && !kit_lookup(mine, op, dir, pick_name(c)) &&
	    S_ISDIR(op->entry.attr.mode))
		dir = op->entry.attr.fileid;
	return dir;
}

static void note_gone(struct crowd *c, const struct gone *g)
{
	if (!g->fileid || g->draft || g->hidden || !g->body.bytes.len)
		return;
	assert_int_equal(g->attr.nlink, 0);
	assert_true(g->fileid < IDS_MAX);
	atomic_fetch_add(&c->gone[g->fileid], 1);
}

static void note_all_gone(struct crowd *c, const struct index_op *op)
{
	note_gone(c, &op->gone);
	note_gone(c, &op->gone2);
	for (uint32_t i = 0; i < op->nmore_gone; i++)
		note_gone(c, &op->more_gone[i]);
}

/* Whatever may happen in a race, and nothing else. */
static void expect_outcome(struct crowd *c, int r)
{
	switch (r) {
	case 0:
		atomic_fetch_add(&c->ndone, 1);
		return;
	case INDEX_MISS:
	case -ENOENT:
	case -EEXIST:
	case -EISDIR:
	case -ENOTDIR:
	case -ENOTEMPTY:
	case -EPERM:
	case -EINVAL:
	case -EMLINK:
		return;
	default:
		fail_msg("outcome %d", r);
	}
}

static void step_make(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op);

	expect_outcome(c, kit_make(mine, op, dir, pick_name(c), S_IFDIR | 0755));
}

static void step_remove(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op);
	int r = (pick(c, 3) ? kit_unlink : kit_rmdir)(mine, op, dir, pick_name(c));

	expect_outcome(c, r);
	if (!r)
		note_all_gone(c, op);
}

static void step_rename(struct crowd *c, struct index_op *op)
{
	static const unsigned flags[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	uint64_t from = pick_dir(c, op), to = pick_dir(c, op);
	int r = kit_rename(mine, op, from, pick_name(c), to, pick_name(c), flags[pick(c, 4)]);

	expect_outcome(c, r);
	if (!r)
		note_all_gone(c, op);
}

static void step_link(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op), to = pick_dir(c, op);

	if (kit_lookup(mine, op, dir, pick_name(c)))
		return;
	struct entry e = op->entry;
	expect_outcome(c, kit_link(mine, op, e.attr.fileid, e.place, to, pick_name(c)));
}

static void step_change(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op);

	if (kit_lookup(mine, op, dir, pick_name(c)))
		return;
	struct entry e = op->entry;
	int r;
	if (pick(c, 2))
		r = kit_setxattr(mine, op, e.attr, e.place, "user.x", bytes_str("value"), 0);
	else
		r = kit(mine, op, index_setattr, (struct index_op){
			.fileid = e.attr.fileid, .place = e.place, .attr = { .mode = 0600 },
			.mask = INDEX_SET_MODE | (pick(c, 2) ? INDEX_SET_MTIME : 0) });
	expect_outcome(c, r);
}

static void step_list(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op);

	assert_int_equal(kit_list(mine, op, dir, 0, 100, true), 0);
	for (uint32_t i = 1; i < op->nentries; i++)
		assert_true(op->entries[i].h > op->entries[i - 1].h);
}

/* A file from its creation to its last close; sometimes it is never published. */
static void step_file(struct crowd *c, struct index_op *op)
{
	uint64_t dir = pick_dir(c, op);
	int r = kit_draft(mine, op, dir, pick(c, 10) ? pick_name(c) : NULL);

	expect_outcome(c, r);
	if (r)
		return;
	struct attr a = op->entry.attr;
	for (unsigned i = pick(c, 3); i > 0; i--) {
		r = kit_publish(mine, op, a, "some content");
		assert_true(!r || r == INDEX_UNLINKED);
		if (r)
			continue;
		assert_true(a.fileid < IDS_MAX);
		atomic_store(&c->published[a.fileid], 1);
		note_all_gone(c, op);
		assert_int_equal(op->entry.attr.version, a.version + 1);
		a = op->entry.attr;
		if (pick(c, 2))
			step_rename(c, op);
	}
	assert_int_equal(kit_end(mine, a.fileid), 0);
}

static void *crowd_thread(void *arg)
{
	struct crowd *c = arg;
	struct index_op op = { 0 };

	mine = c->ix[atomic_fetch_add(&c->nthreads, 1) % c->nsessions];
	for (unsigned i = 0; i < c->steps; i++) {
		switch (pick(c, 10)) {
		case 0:
			step_make(c, &op);
			break;
		case 1:
			step_remove(c, &op);
			break;
		case 2:
			step_link(c, &op);
			break;
		case 3:
			step_change(c, &op);
			break;
		case 4:
			step_list(c, &op);
			break;
		case 5:
		case 6:
			step_file(c, &op);
			break;
		default:
			step_rename(c, &op);
		}
	}
	index_op_fini(&op);
	return NULL;
}

/* Which fileids have a record. */
static void find_records(struct index *ix, char kind, bool *found)
{
	char end = (char)(kind + 1);
	struct kv_read all = { BYTES_OF(&kind, 1), BYTES_OF(&end, 1), UINT32_MAX };
	struct kv_req req = { .reads = &all, .nreads = 1 };
	struct record rec;

	assert_int_equal(kv_wait(index_kv(ix), &req), KV_DONE);
	for (uint32_t i = 0; i < req.rows[0].nrows; i++) {
		assert_int_equal(record_decode(req.rows[0].rows[i].value, &rec), 0);
		if (rec.kind == RECORD_WHOLE) {
			assert_false(found[rec.attr.fileid]);
			found[rec.attr.fileid] = true;
		}
	}
	kv_req_fini(&req);
}

static void check_after(struct crowd *c)
{
	bool *found = calloc(IDS_MAX, sizeof(*found));
	unsigned nthere = 0;

	find_records(c->ix[0], 'D', found);
	find_records(c->ix[0], 'F', found);
	for (unsigned i = 0; i < IDS_MAX; i++) {
		if (!c->published[i])
			continue;
		assert_int_equal(c->gone[i], found[i] ? 0 : 1);
		nthere += found[i];
	}
	assert_true(c->ndone > c->steps);
	print_message("%u done, %u files left\n", c->ndone, nthere);
	free(found);
}

static uint64_t seed;

/* Takes kv over. */
static void run_crowd(struct kv *kv, struct shaky_opts o, unsigned nsessions, unsigned steps)
{
	struct crowd *c = calloc(1, sizeof(*c));
	struct index_op op = { 0 };
	pthread_t threads[NTHREADS];
	struct shaky *s[NTHREADS];

	c->state = seed;
	c->steps = steps / KIT_SLOW;
	c->nsessions = nsessions;
	for (unsigned i = 0; i < nsessions; i++) {
		s[i] = shaky_over(kv, (struct shaky_opts){ .seed = seed + i, .keep = i,
							  .session = i + 1 });
		assert_int_equal(index_open(&s[i]->kv, i + 1, true, &c->ix[i]), 0);
	}
	c->dirs[0] = INDEX_ROOT;
	for (unsigned i = 1; i < NDIRS; i++)
		c->dirs[i] = kit_mkdir(c->ix[0], INDEX_ROOT, (char[]){ 'x', (char)('0' + i), 0 });
	for (unsigned i = 0; i < nsessions; i++) {
		o.keep = i;
		o.session = i + 1;
		s[i]->o = o;
	}
	for (unsigned i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_thread, c), 0);
	for (unsigned i = 0; i < NTHREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < nsessions; i++)
		s[i]->o = (struct shaky_opts){ .keep = i };
	check_after(c);
	for (unsigned i = 1; i < nsessions; i++)
		index_close(c->ix[i]);
	kit_close(c->ix[0], &op);
	free(c);
}

static void run_in_memory(struct shaky_opts o, unsigned nsessions, unsigned steps)
{
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	run_crowd(kv, o, nsessions, steps);
}

static void test_a_crowd(void **state)
{
	(void)state;
	run_in_memory((struct shaky_opts){ 0 }, 1, 20000);
}

static void test_a_crowd_with_late_answers(void **state)
{
	(void)state;
	run_in_memory((struct shaky_opts){ .later = 30, .conflict = 10, .unknown_lost = 5 }, 1,
		      3000);
}

static void test_a_crowd_of_sessions(void **state)
{
	(void)state;
	run_in_memory((struct shaky_opts){ 0 }, 2, 10000);
	run_in_memory((struct shaky_opts){ .later = 30, .conflict = 10, .unknown_lost = 5 }, 4,
		      2000);
}

static void test_a_crowd_of_sessions_over_lmdb(void **state)
{
	char dir[] = "/dev/shm/slicefs-crowd-XXXXXX", path[64], lock[80];
	struct kv *kv;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/index", dir);
	snprintf(lock, sizeof(lock), "%s-lock", path);
	struct kv_lmdb_opts o = { .path = path, .size_bytes = 16 << 20, .create = true };
	assert_int_equal(kv_lmdb_open(&o, &kv), 0);
	run_crowd(kv, (struct shaky_opts){ 0 }, 3, 6000);
	unlink(lock);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_crowd),
		cmocka_unit_test(test_a_crowd_with_late_answers),
		cmocka_unit_test(test_a_crowd_of_sessions),
		cmocka_unit_test(test_a_crowd_of_sessions_over_lmdb),
	};
	const char *env = getenv("SEED");

	seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
	print_message("SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
