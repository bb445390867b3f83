/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of an operation whose answer is lost, while another session goes on under the
 * same names, or its own session ends. */
#include "tests/unit/sessions_kit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

/* Session 2 asks, and has no answer to what it writes; session 1 is the other one. */
struct loss {
	struct sessions s;
	struct index *ix, *other;
	struct index_op op;
};

static void begin(struct loss *l)
{
	*l = (struct loss){ .s = sessions_new() };
	l->ix = l->s.ix[1];
	l->other = l->s.ix[0];
}

/* The next request that writes has no answer. `meanwhile` comes before that is found out. */
static void lose_answer(struct loss *l, bool done, void (*meanwhile)(void *arg))
{
	struct shaky_opts *o = &l->s.shaky[1]->o;

	o->nth_write = 1;
	o->nth_outcome = KV_UNKNOWN;
	o->nth_done = done;
	o->nth_lost = meanwhile;
	o->arg = l;
}

static void end(struct loss *l)
{
	assert_int_equal(l->s.shaky[1]->o.nth_write, 0);
	sessions_close(&l->s, &l->op);
}

static uint64_t shown(struct loss *l, const char *name)
{
	struct index_op op = { 0 };
	int r = kit_lookup(l->other, &op, INDEX_ROOT, name);
	uint64_t id = r ? 0 : op.entry.attr.fileid;

	assert_true(!r || r == INDEX_MISS);
	index_op_fini(&op);
	return id;
}

/* The times of the directory are the other one's. */
static void touch_dir(void *arg)
{
	struct loss *l = arg;
	struct index_op op = { 0 };

	assert_int_equal(kit_make(l->other, &op, INDEX_ROOT, "touched", S_IFIFO | 0600), 0);
	index_op_fini(&op);
}

static void move_away(struct loss *l, const char *from, const char *to)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_rename(l->other, &op, INDEX_ROOT, from, INDEX_ROOT, to, 0), 0);
	index_op_fini(&op);
}

static void make_f(void *arg)
{
	struct loss *l = arg;

	kit_file(l->other, INDEX_ROOT, "f", "a stranger's");
	touch_dir(l);
}

static void make_dir(void *arg)
{
	struct loss *l = arg;

	kit_mkdir(l->other, INDEX_ROOT, "f");
}

/* Moving ---------------------------------------------------------------------------- */

static uint64_t make_one(struct index *ix, const char *name, bool dir)
{
	return dir ? kit_mkdir(ix, INDEX_ROOT, name) : kit_file(ix, INDEX_ROOT, name, name);
}

static void test_what_was_exchanged_stays_so(void **state)
{
	(void)state;
	for (unsigned dirs = 0; dirs < 2; dirs++) {
		struct loss l;
		begin(&l);
		uint64_t a = make_one(l.ix, "a", dirs), b = make_one(l.ix, "b", dirs);
		lose_answer(&l, true, touch_dir);
		assert_int_equal(kit_rename(l.ix, &l.op, INDEX_ROOT, "a", INDEX_ROOT, "b",
					    RENAME_EXCHANGE), 0);
		assert_int_equal(l.op.entry.attr.fileid, a);
		assert_int_equal(l.op.entry2.attr.fileid, b);
		assert_int_equal(shown(&l, "a"), b);
		assert_int_equal(shown(&l, "b"), a);
		end(&l);
	}
}

static void chmod_a(void *arg)
{
	struct loss *l = arg;
	struct index_op op = { 0 };

	assert_int_equal(kit(l->other, &op, index_setattr, (struct index_op){
		.fileid = kit_entry(l->other, INDEX_ROOT, "a").attr.fileid,
		.place = kit_entry(l->other, INDEX_ROOT, "a").place,
		.mask = INDEX_SET_MODE, .attr.mode = 0600 }), 0);
	index_op_fini(&op);
}

/* It was not done, and nothing says so. */
static void test_what_was_not_exchanged_is(void **state)
{
	struct loss l;

	(void)state;
	begin(&l);
	uint64_t a = kit_file(l.ix, INDEX_ROOT, "a", "a"), b = kit_file(l.ix, INDEX_ROOT, "b", "b");
	lose_answer(&l, false, chmod_a);
	assert_int_equal(kit_rename(l.ix, &l.op, INDEX_ROOT, "a", INDEX_ROOT, "b",
				    RENAME_EXCHANGE), 0);
	assert_int_equal(shown(&l, "a"), b);
	assert_int_equal(shown(&l, "b"), a);
	end(&l);
}

static void rotate_away(void *arg)
{
	struct loss *l = arg;

	make_f(l);
	move_away(l, "f.1", "f.2");
}

/* A log is renamed, and written anew by somebody else: that one is not renamed over it. */
static void test_a_name_that_is_there_again_is_not_renamed(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct loss l;
		begin(&l);
		uint64_t f = kit_file(l.ix, INDEX_ROOT, "f", "old"), old = 0;
		if (how % 2)
			old = kit_file(l.ix, INDEX_ROOT, "f.1", "older");
		lose_answer(&l, true, how / 2 ? rotate_away : make_f);
		int r = kit_rename(l.ix, &l.op, INDEX_ROOT, "f", INDEX_ROOT, "f.1", 0);
		/* Nothing shows any more that it was done, if it was moved on. */
		assert_int_equal(r, how / 2 ? INDEX_MISS : 0);
		if (!r) {
			assert_int_equal(l.op.gone.fileid, old);
			assert_int_equal(l.op.entry.attr.fileid, f);
		}
		assert_int_equal(shown(&l, how / 2 ? "f.2" : "f.1"), f);
		assert_int_not_equal(shown(&l, "f"), 0);
		assert_int_not_equal(shown(&l, "f"), f);
		end(&l);
	}
}

/* Removing -------------------------------------------------------------------------- */

static void test_a_name_that_is_there_again_is_not_removed(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct loss l;
		begin(&l);
		if (how % 2)
			kit_mkdir(l.ix, INDEX_ROOT, "f");
		else
			kit_file(l.ix, INDEX_ROOT, "f", "mine");
		lose_answer(&l, true, how / 2 ? make_dir : make_f);
		assert_int_equal((how % 2 ? kit_rmdir : kit_unlink)(l.ix, &l.op, INDEX_ROOT, "f"), 0);
		assert_int_not_equal(shown(&l, "f"), 0);
		end(&l);
	}
}

/* It was done, and nothing shows it; or it was not, and something does. */
static void test_removing_among_others(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct loss l;
		begin(&l);
		uint64_t f = how / 2 ? kit_mkdir(l.ix, INDEX_ROOT, "f")
				     : kit_file(l.ix, INDEX_ROOT, "f", "mine");
		lose_answer(&l, how % 2, touch_dir);
		assert_int_equal((how / 2 ? kit_rmdir : kit_unlink)(l.ix, &l.op, INDEX_ROOT, "f"), 0);
		assert_int_equal(l.op.gone.fileid, how % 2 ? 0 : f);
		assert_int_equal(shown(&l, "f"), 0);
		end(&l);
	}
}

static void cancel(void *arg)
{
	struct loss *l = arg;

	touch_dir(l);
	atomic_store(&l->op.call.cancelled, true);
}

/* What was certainly not done may be given up. */
static void test_what_was_not_done_is_given_up(void **state)
{
	struct loss l;

	(void)state;
	begin(&l);
	uint64_t f = kit_file(l.ix, INDEX_ROOT, "f", "mine");
	lose_answer(&l, false, cancel);
	assert_int_equal(kit_unlink(l.ix, &l.op, INDEX_ROOT, "f"), -ECANCELED);
	assert_false(l.op.unsure);
	assert_int_equal(shown(&l, "f"), f);
	end(&l);
}

static void lose_session(void *arg)
{
	struct loss *l = arg;

	assert_int_equal(index_session_end(l->other, 2, NULL), 0);
	index_set_session(l->ix, 77);
}

static void begin_to_write(struct index *ix, const char *name)
{
	struct entry e = kit_entry(ix, INDEX_ROOT, name);
	struct index_op op = { 0 };

	assert_int_equal(kit(ix, &op, index_writer, (struct index_op){
		.fileid = e.attr.fileid, .place = e.place }), 0);
	index_op_fini(&op);
}

/* The session's keys are gone, and with them a part of what was written. */
static void test_what_was_done_outlives_its_session(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct loss l;
		begin(&l);
		uint64_t f = make_one(l.ix, "f", false), g = make_one(l.ix, "g", false);
		begin_to_write(l.ix, "f");
		lose_answer(&l, how % 2, lose_session);
		if (how / 2) {
			assert_int_equal(kit_rename(l.ix, &l.op, INDEX_ROOT, "g", INDEX_ROOT, "f",
						    0), 0);
			assert_int_equal(shown(&l, "f"), g);
			assert_int_equal(shown(&l, "g"), 0);
		} else {
			assert_int_equal(kit_unlink(l.ix, &l.op, INDEX_ROOT, "f"), 0);
			assert_int_equal(shown(&l, "f"), 0);
		}
		assert_int_equal(l.op.gone.fileid, f);
		end(&l);
	}
}

/* A draft goes with its session, and what it hid is what was to be removed, too. */
static void test_what_a_lost_draft_hid_is_removed(void **state)
{
	struct loss l;

	(void)state;
	begin(&l);
	uint64_t f = kit_file(l.ix, INDEX_ROOT, "f", "f");
	kit_new_draft(l.ix, INDEX_ROOT, "g");
	assert_int_equal(kit_rename(l.ix, &l.op, INDEX_ROOT, "g", INDEX_ROOT, "f", 0), 0);
	lose_answer(&l, false, lose_session);
	assert_int_equal(kit_unlink(l.ix, &l.op, INDEX_ROOT, "f"), 0);
	assert_int_equal(l.op.gone.fileid, f);
	assert_int_equal(shown(&l, "f"), 0);
	end(&l);
}

/* Making ----------------------------------------------------------------------------- */

static void move_it_on(void *arg)
{
	move_away(arg, "f", "h");
}

/* What was made has another name by now: no object is there twice. */
static void test_what_was_made_and_moved_is_made_once(void **state)
{
	static const uint32_t modes[] = { S_IFDIR | 0755, S_IFLNK | 0777, S_IFIFO | 0600 };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct loss l;
		begin(&l);
		lose_answer(&l, true, move_it_on);
		assert_int_equal(kit_make(l.ix, &l.op, INDEX_ROOT, "f", modes[i]), 0);
		assert_int_equal(shown(&l, "f"), l.op.entry.attr.fileid);
		assert_int_not_equal(shown(&l, "h"), 0);
		assert_int_not_equal(shown(&l, "h"), shown(&l, "f"));
		end(&l);
	}
}

/* Publishing ------------------------------------------------------------------------- */

struct writing {
	struct loss l;
	struct attr a; /* the other one's */
	const char *content;
	bool times;    /* sets the times only */
};

static void publish_too(void *arg)
{
	struct writing *w = arg;
	struct index_op op = { 0 };

	if (w->times) {
		struct entry e = kit_entry(w->l.other, INDEX_ROOT, "f");
		assert_int_equal(kit(w->l.other, &op, index_setattr, (struct index_op){
			.fileid = e.attr.fileid, .place = e.place, .mask = INDEX_SET_MODE,
			.attr.mode = 0600 }), 0);
	} else {
		assert_int_equal(kit_publish(w->l.other, &op, w->a, w->content), 0);
	}
	index_op_fini(&op);
}

/* What it consists of may be gone with the version that it was. */
static void test_another_version_has_come(void **state)
{
	static const char *const contents[] = { "theirs", "" };

	(void)state;
	for (unsigned how = 0; how < 6; how++) {
		struct writing w = { .content = contents[how / 2 % 2], .times = how >= 4 };
		begin(&w.l);
		kit_file(w.l.ix, INDEX_ROOT, "f", "f");
		begin_to_write(w.l.ix, "f");
		begin_to_write(w.l.other, "f");
		w.a = kit_entry(w.l.ix, INDEX_ROOT, "f").attr;
		w.a.mtime.tv_sec += 2;
		struct attr a = w.a;
		a.mtime.tv_sec++;
		a.size = 10; /* a hole: of the same body as an empty file */
		bool done = how % 2;
		lose_answer(&w.l, done, publish_too);
		int r = kit(w.l.ix, &w.l.op, index_publish, (struct index_op){
			.fileid = a.fileid, .attr = a, .body.kind = BODY_NONE });
		struct entry e = kit_entry(w.l.ix, INDEX_ROOT, "f");
		if (w.times) { /* it is there, or is put there */
			assert_int_equal(r, 0);
			assert_int_equal(e.attr.size, 10);
			assert_int_equal(e.attr.version, 2);
		} else {
			assert_int_equal(r, INDEX_CHANGED);
			assert_true(w.l.op.unsure);
			assert_int_equal(e.attr.size, strlen(w.content));
			assert_int_equal(e.attr.version, 2 + done);
		}
		assert_int_equal(kit_end(w.l.ix, a.fileid), 0);
		assert_int_equal(kit_end(w.l.other, a.fileid), 0);
		end(&w.l);
	}
}

/* Times ------------------------------------------------------------------------------- */

static void wait_a_tick(void)
{
	struct timespec from = clock_now();

	while (time_is_same(clock_now(), from))
		usleep(1000);
}

static void draft_too(void *arg)
{
	struct loss *l = arg;

	wait_a_tick();
	kit_new_draft(l->ix, INDEX_ROOT, "h");
	wait_a_tick();
}

static void link_too(void *arg)
{
	struct loss *l = arg;
	struct index_op op = { 0 };

	wait_a_tick();
	assert_int_equal(kit_make(l->other, &op, INDEX_ROOT, "h", S_IFIFO | 0600), 0);
	index_op_fini(&op);
	wait_a_tick();
}

/* What a publish says of its directory's times is neither earlier than what others say
 * meanwhile, nor instead of what its own session does. */
static void test_times_only_become_later(void **state)
{
	(void)state;
	for (unsigned own = 0; own < 2; own++) {
		struct loss l;
		begin(&l);
		struct attr a = kit_new_draft(l.ix, INDEX_ROOT, "f");
		l.s.shaky[1]->o.before_write = own ? draft_too : link_too;
		l.s.shaky[1]->o.arg = &l;
		struct timespec before = clock_now();
		assert_int_equal(kit_publish(l.ix, &l.op, a, "f"), 0);
		struct attr dir = kit_dir_attr(own ? l.ix : l.other, INDEX_ROOT);
		assert_true(time_is_after(dir.mtime, before));
		assert_int_equal(kit_end(l.ix, a.fileid), 0);
		if (own) {
			uint64_t h = kit_entry(l.ix, INDEX_ROOT, "h").attr.fileid;
			assert_int_equal(kit_end(l.ix, h), 0);
		}
		end(&l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_exchanged_stays_so),
		cmocka_unit_test(test_what_was_not_exchanged_is),
		cmocka_unit_test(test_a_name_that_is_there_again_is_not_renamed),
		cmocka_unit_test(test_a_name_that_is_there_again_is_not_removed),
		cmocka_unit_test(test_removing_among_others),
		cmocka_unit_test(test_what_was_not_done_is_given_up),
		cmocka_unit_test(test_what_was_done_outlives_its_session),
		cmocka_unit_test(test_what_a_lost_draft_hid_is_removed),
		cmocka_unit_test(test_what_was_made_and_moved_is_made_once),
		cmocka_unit_test(test_another_version_has_come),
		cmocka_unit_test(test_times_only_become_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
