/* SPDX-License-Identifier: Apache-2.0 */
/* Several sessions in one key space, case by case: what they see of each other, who
 * is refused, who wins, and what is left when one ends. Random walks of several
 * sessions are in test_names_random.c, races in test_names_races.c. */
#include "tests/unit/sessions_kit.h"

#include <fcntl.h>

static const struct place by_name = { .kind = PLACE_NAME };

static int draft_excl(struct index *ix, struct index_op *op, uint64_t dir, const char *name)
{
	return kit(ix, op, index_draft, (struct index_op){
		.parent = dir, .name = name, .flags = O_EXCL, .attr = { .mode = S_IFREG | 0644 } });
}

static int begin_writing(struct index *ix, uint64_t fileid, struct place place)
{
	struct index_op op = { 0 };
	int r = kit(ix, &op, index_writer, (struct index_op){ .fileid = fileid, .place = place });

	index_op_fini(&op);
	return r;
}

static bool shows(struct index *ix, uint64_t dir, const char *name, const char *content)
{
	struct index_op op = { 0 };
	int r = kit_lookup(ix, &op, dir, name);
	bool is = content ? !r && !op.entry.draft &&
			    bytes_eq(op.entry.body.bytes, bytes_str(content))
			  : r == INDEX_MISS;

	index_op_fini(&op);
	return is;
}

static unsigned count_names(struct index *ix, uint64_t dir, uint32_t limit)
{
	struct index_op op = { 0 };
	uint64_t from = 0;
	unsigned n = 0;

	do {
		assert_int_equal(kit_list(ix, &op, dir, from, limit, true), 0);
		assert_true(op.nentries || !op.more);
		assert_true(op.nentries <= limit);
		for (uint32_t i = 0; i < op.nentries; i++) {
			assert_true(op.entries[i].h > from);
			from = op.entries[i].h;
		}
		n += op.nentries;
	} while (op.more);
	index_op_fini(&op);
	return n;
}

/* Names ----------------------------------------------------------------------------- */

static void test_a_draft_is_seen_by_its_session_only(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };

	(void)state;
	struct attr d = kit_new_draft(a, INDEX_ROOT, "f");
	assert_int_equal(kit_setxattr(a, &op, d, a_draft, "user.x", bytes_str("v"), 0), 0);
	assert_int_equal(kit_lookup(a, &op, INDEX_ROOT, "f"), 0);
	assert_true(op.entry.draft);
	assert_true(shows(b, INDEX_ROOT, "f", NULL));
	assert_int_equal(count_names(a, INDEX_ROOT, 10), 1);
	assert_int_equal(count_names(b, INDEX_ROOT, 10), 0);
	assert_int_equal(kit_stat(b, &op, d.fileid, a_draft), INDEX_MISS);
	assert_int_equal(kit_getxattr(b, &op, d.fileid, a_draft, "user.x"), INDEX_MISS);
	assert_int_equal(kit_unlink(b, &op, INDEX_ROOT, "f"), INDEX_MISS);
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "f", INDEX_ROOT, "g", 0), INDEX_MISS);
	assert_int_equal(kit_link(b, &op, d.fileid, a_draft, INDEX_ROOT, "g"), INDEX_MISS);
	assert_int_equal(begin_writing(b, d.fileid, a_draft), INDEX_MISS);
	assert_int_equal(kit_publish(b, &op, d, "not mine"), -EINVAL);
	assert_int_equal(kit_end(b, d.fileid), 0); /* nor is it its to end */
	assert_int_equal(kit_publish(a, &op, d, "one"), 0);
	assert_true(shows(b, INDEX_ROOT, "f", "one"));
	assert_int_equal(kit_getxattr(b, &op, d.fileid, by_name, "user.x"), 0);
	assert_int_equal(kit_end(a, d.fileid), 0);
	sessions_close(&s, &op);
}

static void test_what_must_be_new_minds_the_drafts_of_others(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };

	(void)state;
	uint64_t g = kit_file(b, INDEX_ROOT, "g", "g");
	uint64_t d = kit_new_draft(a, INDEX_ROOT, "f").fileid;
	struct place place = kit_entry(b, INDEX_ROOT, "g").place;
	assert_int_equal(kit_make(b, &op, INDEX_ROOT, "f", S_IFDIR | 0755), -EEXIST);
	assert_int_equal(kit_make(b, &op, INDEX_ROOT, "f", S_IFLNK), -EEXIST);
	assert_int_equal(draft_excl(b, &op, INDEX_ROOT, "f"), -EEXIST);
	assert_int_equal(kit_link(b, &op, g, place, INDEX_ROOT, "f"), -EEXIST);
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "g", INDEX_ROOT, "f", RENAME_NOREPLACE),
			 -EEXIST);
	/* To exchange with it, it would have to be there. */
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "g", INDEX_ROOT, "f", RENAME_EXCHANGE),
			 -ENOENT);
	assert_int_equal(kit_end(a, d), 0);
	assert_int_equal(draft_excl(b, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_draft(a, &op, INDEX_ROOT, "f"), 0); /* that one need not be new */
	uint64_t d2 = op.entry.attr.fileid;
	assert_int_equal(kit_draft(a, &op, INDEX_ROOT, "f"), -EEXIST);
	assert_int_equal(kit_unlink(b, &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(kit_end(b, op.gone.fileid), 0);
	assert_int_equal(kit_end(a, d2), 0);
	sessions_close(&s, &op);
}

static void test_who_publishes_last_wins(void **state)
{
	struct sessions s = sessions_new();
	struct index_op op = { 0 };
	struct attr d[KIT_SESSIONS];
	uint64_t h = 0;

	(void)state;
	for (unsigned i = 0; i < KIT_SESSIONS; i++) {
		assert_int_equal(kit_draft(s.ix[i], &op, INDEX_ROOT, "f"), 0);
		d[i] = op.entry.attr;
		assert_true(!h || h == op.entry.h);
		h = op.entry.h;
	}
	assert_int_equal(kit_publish(s.ix[1], &op, d[1], "one"), 0);
	assert_int_equal(op.gone.fileid, 0);
	assert_true(shows(s.ix[1], INDEX_ROOT, "f", "one"));
	assert_int_equal(kit_lookup(s.ix[0], &op, INDEX_ROOT, "f"), 0);
	assert_true(op.entry.draft); /* still its own */
	assert_int_equal(kit_publish(s.ix[0], &op, d[0], "zero"), 0);
	assert_int_equal(op.gone.fileid, d[1].fileid);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("one")));
	assert_true(shows(s.ix[1], INDEX_ROOT, "f", "zero"));
	/* The one that was replaced is still open where it was written. */
	assert_int_equal(kit_publish(s.ix[1], &op, d[1], "one again"), INDEX_UNLINKED);
	assert_int_equal(kit_unlink(s.ix[1], &op, INDEX_ROOT, "f"), 0);
	assert_int_equal(op.gone.fileid, d[0].fileid);
	assert_true(shows(s.ix[0], INDEX_ROOT, "f", NULL));
	assert_int_equal(kit_publish(s.ix[2], &op, d[2], "two"), 0);
	assert_int_equal(op.gone.fileid, 0);
	assert_int_equal(op.entry.h ? op.entry.h : h, h);
	assert_true(shows(s.ix[0], INDEX_ROOT, "f", "two"));
	for (unsigned i = 0; i < KIT_SESSIONS; i++)
		assert_int_equal(kit_end(s.ix[i], d[i].fileid), 0);
	sessions_close(&s, &op);
}

static void test_directories_do_not_come_under_drafts(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(b, INDEX_ROOT, "dir");

	(void)state;
	uint64_t inside = kit_new_draft(a, dir, "draft").fileid;
	assert_int_equal(kit_rmdir(b, &op, INDEX_ROOT, "dir"), -ENOTEMPTY);
	kit_mkdir(b, INDEX_ROOT, "empty");
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "empty", INDEX_ROOT, "dir", 0),
			 -ENOTEMPTY);
	assert_int_equal(kit_end(a, inside), 0);
	assert_int_equal(kit_rmdir(b, &op, INDEX_ROOT, "empty"), 0);
	uint64_t d = kit_new_draft(a, INDEX_ROOT, "f").fileid;
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "dir", INDEX_ROOT, "f", 0), -ENOTDIR);
	kit_file(b, INDEX_ROOT, "g", "g");
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "g", INDEX_ROOT, "f", 0), 0);
	assert_true(shows(b, INDEX_ROOT, "f", "g"));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(kit_rename(b, &op, INDEX_ROOT, i ? "f" : "dir", INDEX_ROOT,
					    i ? "dir" : "f", RENAME_EXCHANGE), -ENOTDIR);
	assert_int_equal(kit_end(a, d), 0);
	assert_int_equal(kit_rename(b, &op, INDEX_ROOT, "dir", INDEX_ROOT, "f", RENAME_EXCHANGE),
			 0);
	assert_int_equal(kit_rmdir(a, &op, INDEX_ROOT, "f"), 0);
	sessions_close(&s, &op);
}

/* A draft comes over the name with which a directory is about to be exchanged. */
struct meeting {
	struct index *ix;
	const char *from, *to;
	int r;
};

static void rename_meanwhile(void *arg)
{
	struct meeting *m = arg;
	struct index_op op = { 0 };

	m->r = kit_rename(m->ix, &op, INDEX_ROOT, m->from, INDEX_ROOT, m->to, 0);
	index_op_fini(&op);
}

static void test_a_draft_and_a_directory_meet(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct sessions s = sessions_new();
		struct index_op op = { 0 };
		struct meeting m = { .ix = s.ix[0], .from = "draft", .to = "f" };

		kit_mkdir(s.ix[1], INDEX_ROOT, "dir");
		kit_file(s.ix[1], INDEX_ROOT, "f", "f");
		uint64_t d = kit_new_draft(s.ix[0], INDEX_ROOT, "draft").fileid;
		s.shaky[1]->o.before_write = rename_meanwhile;
		s.shaky[1]->o.arg = &m;
		assert_int_equal(kit_rename(s.ix[1], &op, INDEX_ROOT, i ? "f" : "dir", INDEX_ROOT,
					    i ? "dir" : "f", RENAME_EXCHANGE), -ENOTDIR);
		assert_int_equal(m.r, 0);
		assert_int_equal(kit_end(s.ix[0], d), 0);
		sessions_close(&s, &op);
	}
}

/* A name has the slot that another session gave it, though a lower one is free. */
static void test_slots_of_several_sessions(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };
	uint64_t base = name_hash(index_super(a)->hash_key, bytes_str("a"));
	struct key low = key_name(INDEX_ROOT, base, bytes_str("x"));
	struct key draft = key_draft_name(INDEX_ROOT, base + 1, bytes_str("y"), 3);

	(void)state;
	kit_put_other(s.kv, low);
	kit_put_other(s.kv, draft);
	struct attr d = kit_new_draft(a, INDEX_ROOT, "a");
	kit_del(s.kv, low);
	assert_int_equal(kit_draft(b, &op, INDEX_ROOT, "a"), 0);
	struct attr e = op.entry.attr;
	assert_int_equal(op.entry.h, base + 2);
	assert_int_equal(kit_publish(b, &op, e, "b"), 0);
	assert_int_equal(kit_publish(a, &op, d, "a"), 0);
	assert_int_equal(op.gone.fileid, e.fileid);
	assert_int_equal(kit_lookup(b, &op, INDEX_ROOT, "a"), 0);
	assert_int_equal(op.entry.h, base + 2);
	kit_del(s.kv, draft);
	assert_int_equal(kit_end(a, d.fileid), 0);
	assert_int_equal(kit_end(b, e.fileid), 0);
	sessions_close(&s, &op);
}

static void test_a_listing_among_drafts_of_others(void **state)
{
	enum { N = 2000, OWN = 40 };
	struct sessions s = sessions_new();
	struct index_op op = { 0 };
	uint64_t ids[OWN];
	char name[16];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%u", i);
		if (i % 50 == 7) { /* its own; half of them under a foreign one, too */
			assert_int_equal(kit_draft(s.ix[1], &op, INDEX_ROOT, name), 0);
			ids[i / 50] = op.entry.attr.fileid;
		}
		if (i % 50 == 9)
			kit_file(s.ix[2], INDEX_ROOT, name, name);
		else if (i % 50 != 7 || i % 100 == 7)
			assert_int_equal(kit_draft(s.ix[0], &op, INDEX_ROOT, name), 0);
	}
	static const uint32_t limits[] = { 1, 7, 100, 10000 };
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(count_names(s.ix[1], INDEX_ROOT, limits[i]), OWN + N / 50);
		assert_int_equal(count_names(s.ix[2], INDEX_ROOT, limits[i]), N / 50);
	}
	for (unsigned i = 0; i < OWN; i++) {
		assert_int_equal(kit_end(s.ix[1], ids[i]), 0);
		assert_int_equal(count_names(s.ix[1], INDEX_ROOT, 9), OWN - 1 - i + N / 50);
	}
	assert_int_equal(sessions_keys(&s, 2), 0);
	assert_int_equal(s.kv->ops->session_end(s.kv, 1), 0);
	sessions_close(&s, &op);
}

static void test_times_of_a_directory(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(a, INDEX_ROOT, "dir");
	struct index_op set = { .fileid = dir, .place = by_id, .mask = INDEX_SET_MTIME,
				.attr.mtime.tv_sec = 1000 };

	(void)state;
	assert_int_equal(kit(a, &op, index_setattr, set), 0);
	struct attr d = kit_new_draft(a, dir, "f");
	uint64_t e = kit_new_draft(b, dir, "f").fileid;
	struct attr seen = kit_dir_attr(a, dir);
	assert_true(seen.mtime.tv_sec > 1000);
	assert_int_equal(kit_dir_attr(s.ix[2], dir).mtime.tv_sec, 1000);
	assert_int_equal(kit(s.ix[2], &op, index_setattr, set), 0); /* for all of them */
	assert_int_equal(kit_keys(a, "t"), 0);
	assert_int_equal(kit_dir_attr(a, dir).mtime.tv_sec, 1000);
	assert_int_equal(kit_rename(a, &op, dir, "f", dir, "g", 0), 0);
	assert_true(kit_dir_attr(a, dir).mtime.tv_sec > 1000);
	assert_int_equal(kit_dir_attr(b, dir).mtime.tv_sec, 1000);
	assert_int_equal(kit_publish(a, &op, d, "x"), 0);
	assert_true(kit_dir_attr(b, dir).mtime.tv_sec > 1000);
	assert_int_equal(kit_end(a, d.fileid), 0);
	assert_int_equal(kit_end(b, e), 0);
	sessions_close(&s, &op);
}

/* A session's draft over one name of a file goes over another name of it: that costs
 * the file a name, for everybody, and hides the other one from this session only. */
static void test_a_draft_goes_from_name_to_name_of_a_file(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };
	uint64_t f = kit_file(b, INDEX_ROOT, "f", "old");

	(void)state;
	struct place place = kit_entry(b, INDEX_ROOT, "f").place;
	assert_int_equal(kit_link(b, &op, f, place, INDEX_ROOT, "g"), 0);
	struct attr d = kit_new_draft(a, INDEX_ROOT, "t");
	assert_int_equal(kit_rename(a, &op, INDEX_ROOT, "t", INDEX_ROOT, "f", 0), 0);
	assert_true(shows(b, INDEX_ROOT, "f", "old"));
	assert_int_equal(kit_rename(a, &op, INDEX_ROOT, "f", INDEX_ROOT, "g", 0), 0);
	assert_int_equal(op.gone.fileid, 0);
	assert_int_equal(op.gone2.fileid, f);
	assert_int_equal(op.gone2.attr.nlink, 0); /* here; the last one is hidden */
	assert_true(op.gone2.hidden);
	assert_true(shows(b, INDEX_ROOT, "f", NULL));
	assert_true(shows(b, INDEX_ROOT, "g", "old"));
	assert_int_equal(kit_entry(b, INDEX_ROOT, "g").attr.nlink, 1);
	assert_int_equal(kit_end(a, d.fileid), 0);
	assert_true(shows(a, INDEX_ROOT, "g", "old"));
	sessions_close(&s, &op);
}

/* Objects --------------------------------------------------------------------------- */

static void test_a_publish_finds_what_others_moved(void **state)
{
	struct sessions s = sessions_new();
	struct index *a = s.ix[0], *b = s.ix[1];
	struct index_op op = { 0 };
	uint64_t dir = kit_mkdir(a, INDEX_ROOT, "dir");
	uint64_t f = kit_file(a, INDEX_ROOT, "f", "old");

	(void)state;
	struct entry e = kit_entry(b, INDEX_ROOT, "f");
	assert_int_equal(begin_writing(b, f, e.place), 0);
	assert_int_equal(begin_writing(s.ix[2], f, e.place), 0);
	assert_int_equal(kit_rename(a, &op, INDEX_ROOT, "f", dir, "g", 0), 0);
	assert_int_equal(kit_publish(b, &op, e.attr, "new"), 0);
	assert_int_equal(op.gone2.fileid, 0);
	assert_true(shows(a, dir, "g", "new"));
	/* Another one, which was based on the first version. */
	assert_int_equal(kit_publish(s.ix[2], &op, e.attr, "newer"), 0);
	assert_int_equal(op.entry.attr.version, 3);
	assert_int_equal(op.gone2.fileid, f);
	assert_int_equal(op.gone2.attr.nlink, 0);
	assert_true(bytes_eq(op.gone2.body.bytes, bytes_str("new")));
	struct place place = kit_entry(a, dir, "g").place;
	assert_int_equal(kit_link(a, &op, f, place, INDEX_ROOT, "h"), 0);
	e.attr.version = 2;
	assert_int_equal(kit_publish(b, &op, e.attr, "newest"), 0);
	assert_int_equal(op.entry.attr.version, 4);
	assert_true(shows(a, INDEX_ROOT, "h", "newest"));
	assert_int_equal(kit_unlink(a, &op, dir, "g"), 0);
	assert_int_equal(kit_unlink(a, &op, INDEX_ROOT, "h"), 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("newest")));
	assert_int_equal(kit_publish(b, &op, e.attr, "late"), INDEX_UNLINKED);
	assert_int_equal(kit_publish(s.ix[2], &op, e.attr, "late"), INDEX_UNLINKED);
	assert_int_equal(kit_end(b, f), 0);
	assert_int_equal(kit_end(s.ix[2], f), 0);
	sessions_close(&s, &op);
}

struct writing {
	struct index *ix;
	uint64_t fileid;
	struct place place;
	bool ends;
	int r;
};

static void write_meanwhile(void *arg)
{
	struct writing *w = arg;

	w->r = w->ends ? kit_end(w->ix, w->fileid) : begin_writing(w->ix, w->fileid, w->place);
}

/* A writer comes, or goes, between the reads of a rename and its writes. */
static void test_writers_come_and_go_in_a_rename(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct sessions s = sessions_new();
		struct index *a = s.ix[0], *b = s.ix[1];
		struct index_op op = { 0 };
		uint64_t f = kit_file(a, INDEX_ROOT, "f", "old");
		struct entry e = kit_entry(a, INDEX_ROOT, "f");
		struct writing w = { .ix = b, .fileid = f, .place = e.place, .ends = i % 2 };

		if (w.ends)
			assert_int_equal(begin_writing(b, f, e.place), 0);
		assert_int_equal(begin_writing(s.ix[2], f, e.place), 0);
		s.shaky[0]->o.before_write = write_meanwhile;
		s.shaky[0]->o.arg = &w;
		if (i < 2)
			assert_int_equal(kit_rename(a, &op, INDEX_ROOT, "f", INDEX_ROOT, "g", 0), 0);
		else
			assert_int_equal(kit_unlink(a, &op, INDEX_ROOT, "f"), 0);
		assert_int_equal(w.r, 0);
		assert_int_equal(sessions_keys(&s, 2), w.ends ? 0 : 1);
		int expect = i < 2 ? 0 : INDEX_UNLINKED;
		if (!w.ends)
			assert_int_equal(kit_publish(b, &op, e.attr, "b"), expect);
		assert_int_equal(kit_publish(s.ix[2], &op, e.attr, "c"), expect);
		assert_int_equal(kit_end(b, f), 0);
		assert_int_equal(kit_end(s.ix[2], f), 0);
		sessions_close(&s, &op);
	}
}

/* Ends ------------------------------------------------------------------------------ */

/* What a session may have under way, and who ends it while another one is in the
 * middle of a call that changes its keys. */
static void end_meanwhile(void *arg)
{
	struct sessions *s = arg;

	assert_int_equal(s->kv->ops->session_end(s->kv, 2), 0);
	assert_int_equal(sessions_keys(s, 2), 0);
}

static void test_a_session_ends_in_the_middle_of_others(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct sessions s = sessions_new();
		struct index *a = s.ix[0], *b = s.ix[1];
		struct index_op op = { 0 };
		uint64_t dir = kit_mkdir(a, INDEX_ROOT, "dir");

		uint64_t f = kit_file(a, dir, "f", "old");
		struct entry e = kit_entry(b, dir, "f");
		assert_int_equal(begin_writing(b, f, e.place), 0);
		struct attr d = kit_new_draft(b, dir, "d");
		assert_int_equal(kit_setxattr(b, &op, d, a_draft, "user.x", bytes_str("v"), 0), 0);
		assert_true(sessions_keys(&s, 2) > 4);
		s.shaky[0]->o.before_write = end_meanwhile;
		s.shaky[0]->o.arg = &s;
		switch (i) {
		case 0:
			assert_int_equal(kit_rename(a, &op, dir, "f", dir, "g", 0), 0);
			break;
		case 1:
			assert_int_equal(kit_unlink(a, &op, dir, "f"), 0);
			break;
		case 2:
			assert_int_equal(kit_link(a, &op, f, e.place, INDEX_ROOT, "g"), 0);
			break;
		default:
			assert_int_equal(kit(a, &op, index_setattr, (struct index_op){
				.fileid = dir, .place = by_id, .mask = INDEX_SET_MTIME }), 0);
		}
		assert_int_equal(sessions_keys(&s, 2), 0);
		assert_true(shows(a, dir, "f", i < 2 ? NULL : "old"));
		sessions_close(&s, &op);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_draft_is_seen_by_its_session_only),
		cmocka_unit_test(test_what_must_be_new_minds_the_drafts_of_others),
		cmocka_unit_test(test_who_publishes_last_wins),
		cmocka_unit_test(test_directories_do_not_come_under_drafts),
		cmocka_unit_test(test_a_draft_and_a_directory_meet),
		cmocka_unit_test(test_slots_of_several_sessions),
		cmocka_unit_test(test_a_listing_among_drafts_of_others),
		cmocka_unit_test(test_times_of_a_directory),
		cmocka_unit_test(test_a_draft_goes_from_name_to_name_of_a_file),
		cmocka_unit_test(test_a_publish_finds_what_others_moved),
		cmocka_unit_test(test_writers_come_and_go_in_a_rename),
		cmocka_unit_test(test_a_session_ends_in_the_middle_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
