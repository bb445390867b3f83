/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rename by hand: each kind of source over each kind of target, with what is shown
 * and what is handed out as gone; and, after the session has ended without a
 * publish, what is shown then: whole old versions.
 */
#include "tests/unit/names_kit.h"

/* What a name can be. HIDING: a draft that hides a published file; LINKED: a file
 * that has another name. */
enum kind { NOTHING, PUBLISHED, DRAFT, HIDING, LINKED, NKINDS };

struct place_to_be {
	enum kind kind;
	uint64_t shown, hidden; /* fileids */
};

/* Makes `name` in the root what `kind` says; published content is `content`. */
static struct place_to_be prepare(struct index *ix, enum kind kind, const char *name,
				  const char *content)
{
	struct place_to_be p = { .kind = kind };
	struct index_op op = { 0 };
	char other[8];

	snprintf(other, sizeof(other), "%s2", name);
	switch (kind) {
	case PUBLISHED:
		p.shown = kit_file(ix, INDEX_ROOT, name, content);
		break;
	case DRAFT:
		p.shown = kit_new_draft(ix, INDEX_ROOT, name).fileid;
		break;
	case HIDING:
		p.hidden = kit_file(ix, INDEX_ROOT, name, content);
		p.shown = kit_new_draft(ix, INDEX_ROOT, other).fileid;
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, other, INDEX_ROOT, name, 0), 0);
		assert_int_equal(op.gone.fileid, p.hidden);
		assert_int_equal(op.gone.attr.nlink, 0);
		assert_true(op.gone.hidden);
		assert_true(bytes_eq(op.gone.body.bytes, bytes_str(content)));
		break;
	case LINKED:
		p.shown = kit_file(ix, INDEX_ROOT, name, content);
		struct place at = kit_entry(ix, INDEX_ROOT, name).place;
		assert_int_equal(kit_link(ix, &op, p.shown, at, INDEX_ROOT, other), 0);
		break;
	default:
		break;
	}
	index_op_fini(&op);
	return p;
}

static uint64_t shown_at(struct index *ix, const char *name)
{
	struct index_op op = { 0 };
	int r = kit_lookup(ix, &op, INDEX_ROOT, name);
	uint64_t fileid = r ? 0 : op.entry.attr.fileid;

	assert_true(!r || r == INDEX_MISS);
	index_op_fini(&op);
	return fileid;
}

static bool is_draft(enum kind k) { return k == DRAFT || k == HIDING; }

static const struct gone *gone_of(const struct index_op *op, uint64_t fileid)
{
	if (fileid && op->gone.fileid == fileid)
		return &op->gone;
	return fileid && op->gone2.fileid == fileid ? &op->gone2 : NULL;
}

/* Really gone: its body is handed out, or it has another name. */
static void assert_lost(const struct index_op *op, uint64_t fileid, enum kind kind,
			const char *content)
{
	const struct gone *g = gone_of(op, fileid);

	assert_non_null(g);
	assert_int_equal(g->attr.nlink, kind == LINKED ? 1 : 0);
	assert_int_equal(g->draft, is_draft(kind));
	if (kind == PUBLISHED)
		assert_true(bytes_eq(g->body.bytes, bytes_str(content)));
	else
		assert_null(g->body.bytes.p);
}

static void end_drafts(struct index *ix, const struct place_to_be *p)
{
	if (is_draft(p->kind))
		assert_int_equal(kit_end(ix, p->shown), 0);
}

/* What is left when the session ends here, without any publish. */
static void assert_after_end(struct index *ix, const struct place_to_be *from,
			     const struct place_to_be *to)
{
	uint64_t old = to->kind == HIDING ? to->hidden : is_draft(to->kind) ? 0 : to->shown;

	end_drafts(ix, from);
	end_drafts(ix, to);
	assert_int_equal(shown_at(ix, "from"), 0);
	assert_int_equal(shown_at(ix, "to"), is_draft(from->kind) ? old : from->shown);
}

static void assert_hidden(const struct index_op *op, uint64_t fileid, const char *content)
{
	const struct gone *g = &op->gone;

	assert_int_equal(g->fileid, fileid);
	assert_true(g->hidden);
	assert_true(bytes_eq(g->body.bytes, g->attr.nlink ? BYTES_NONE : bytes_str(content)));
}

static void check_plain(enum kind a, enum kind b)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be from = prepare(ix, a, "from", "old from");
	struct place_to_be to = prepare(ix, b, "to", "old to");
	int r = kit_rename(ix, &op, INDEX_ROOT, "from", INDEX_ROOT, "to", 0);

	assert_int_equal(r, a == NOTHING ? INDEX_MISS : 0);
	if (!r) {
		assert_int_equal(op.entry.attr.fileid, from.shown);
		assert_int_equal(op.entry.draft, is_draft(a));
		if (b == NOTHING)
			assert_int_equal(op.gone.fileid, 0);
		else if (is_draft(a) && !is_draft(b)) /* stays, hidden */
			assert_hidden(&op, to.shown, "old to");
		else
			assert_lost(&op, to.shown, b, "old to");
		if (a == HIDING)
			assert_lost(&op, from.hidden, PUBLISHED, "old from");
		if (b == HIDING && !is_draft(a))
			assert_lost(&op, to.hidden, PUBLISHED, "old to");
		assert_int_equal(shown_at(ix, "from"), 0);
		assert_int_equal(shown_at(ix, "to"), from.shown);
		kit_check(ix);
		assert_after_end(ix, &from, &to);
	}
	end_drafts(ix, &from);
	end_drafts(ix, &to);
	kit_close(ix, &op);
}

static void check_exchange(enum kind a, enum kind b)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be from = prepare(ix, a, "from", "old from");
	struct place_to_be to = prepare(ix, b, "to", "old to");
	int r = kit_rename(ix, &op, INDEX_ROOT, "from", INDEX_ROOT, "to", RENAME_EXCHANGE);

	assert_int_equal(r, a == NOTHING ? INDEX_MISS : b == NOTHING ? -ENOENT : 0);
	if (!r) {
		assert_int_equal(shown_at(ix, "from"), to.shown);
		assert_int_equal(shown_at(ix, "to"), from.shown);
		assert_int_equal(op.entry.attr.fileid, from.shown);
		assert_int_equal(op.entry2.attr.fileid, to.shown);
		assert_null(gone_of(&op, from.shown));
		assert_null(gone_of(&op, to.shown));
		if (a == HIDING && !is_draft(b))
			assert_lost(&op, from.hidden, PUBLISHED, "old from");
		if (b == HIDING && !is_draft(a))
			assert_lost(&op, to.hidden, PUBLISHED, "old to");
		kit_check(ix);
	}
	end_drafts(ix, &from);
	end_drafts(ix, &to);
	kit_close(ix, &op);
}

static void test_every_kind_over_every_kind(void **state)
{
	(void)state;
	for (enum kind a = NOTHING; a < NKINDS; a++) {
		for (enum kind b = NOTHING; b < NKINDS; b++) {
			check_plain(a, b);
			check_exchange(a, b);
		}
	}
}

/* A draft's rename over a published file, and then its publish. */
static void test_the_old_version_goes_at_publish(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be to = prepare(ix, HIDING, "f", "old");

	(void)state;
	assert_int_equal(kit_keys(ix, "D"), 1);
	struct attr a = { .fileid = to.shown, .mode = S_IFREG | 0644 };
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(op.entry.attr.version, 1);
	assert_lost(&op, to.hidden, PUBLISHED, "old");
	assert_int_equal(kit_keys(ix, "D"), 1);
	assert_int_equal(shown_at(ix, "f"), to.shown);
	assert_int_equal(kit_end(ix, to.shown), 0);
	kit_close(ix, &op);
}

/* One with two names, each hiding another object. */
static void test_a_publish_may_replace_several(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	static const char *const hidden[] = { "a", "b", "c" };
	uint64_t old[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		old[i] = kit_file(ix, INDEX_ROOT, hidden[i], hidden[i]);
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "tmp");
	for (unsigned i = 0; i < 3; i++) {
		char link[8];
		snprintf(link, sizeof(link), "l%u", i);
		assert_int_equal(kit_link(ix, &op, a.fileid, a_draft, INDEX_ROOT, link), 0);
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, link, INDEX_ROOT, hidden[i], 0), 0);
		assert_int_equal(op.gone.fileid, old[i]);
	}
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(op.entry.attr.nlink, 4);
	assert_int_equal(op.entry.place.kind, PLACE_FILEID);
	assert_int_equal(op.nmore_gone, 2);
	uint64_t gone = op.gone.fileid ^ op.more_gone[0].fileid ^ op.more_gone[1].fileid;
	assert_int_equal(gone, old[0] ^ old[1] ^ old[2]);
	assert_int_equal(op.more_gone[1].body.bytes.len, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(shown_at(ix, hidden[i]), a.fileid);
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

/* Both names of a hard-linked file are hidden by one draft: it goes, once. */
static void test_two_hidden_names_of_one_file(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be f = prepare(ix, LINKED, "f", "old"); /* f, f2 */

	(void)state;
	struct attr a = kit_new_draft(ix, INDEX_ROOT, "t");
	assert_int_equal(kit_link(ix, &op, a.fileid, a_draft, INDEX_ROOT, "t2"), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "t", INDEX_ROOT, "f", 0), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "t2", INDEX_ROOT, "f2", 0), 0);
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(op.gone.fileid, f.shown);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("old")));
	assert_int_equal(op.nmore_gone, 1);
	assert_int_equal(op.more_gone[0].fileid, 0); /* said already */
	assert_int_equal(kit_end(ix, a.fileid), 0);
	kit_close(ix, &op);
}

/* rename(f, f2) where a draft hides f2, which is another name of f. */
static void test_over_a_hidden_name_of_itself(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be f = prepare(ix, LINKED, "f", "old"); /* f, f2 */

	(void)state;
	uint64_t draft = kit_new_draft(ix, INDEX_ROOT, "t").fileid;
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "t", INDEX_ROOT, "f2", 0), 0);
	assert_int_equal(op.gone.attr.nlink, 1);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "f2", 0), 0);
	assert_int_equal(op.entry.attr.nlink, 1);
	assert_lost(&op, draft, DRAFT, NULL);
	assert_int_equal(op.gone2.fileid, 0);
	assert_int_equal(shown_at(ix, "f2"), f.shown);
	assert_int_equal(kit_end(ix, draft), 0);
	kit_close(ix, &op);
}

/* A draft hides one name of a file and is renamed over another one: the first name is
 * lost, the second is hidden, and still one of the file's. It is reported once. */
static void test_from_one_name_of_a_file_over_another(void **state)
{
	(void)state;
	for (unsigned links = 2; links <= 3; links++) {
		struct index *ix = kit_open();
		struct index_op op = { 0 };
		struct place_to_be f = prepare(ix, LINKED, "f", "old"); /* f, f2 */

		if (links == 3)
			assert_int_equal(kit_link(ix, &op, f.shown, by_id, INDEX_ROOT, "f3"), 0);
		struct attr a = kit_new_draft(ix, INDEX_ROOT, "t");
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "t", INDEX_ROOT, "f", 0), 0);
		assert_int_equal(op.gone.attr.nlink, links - 1);
		assert_true(op.gone.hidden);
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "f2", 0), 0);
		assert_int_equal(op.gone.fileid, 0);
		assert_int_equal(op.gone2.fileid, f.shown);
		/* Lost one name, and another one is out of sight. */
		assert_int_equal(op.gone2.attr.nlink, links - 2);
		assert_int_equal(op.gone2.hidden, links == 2);
		assert_true(bytes_eq(op.gone2.body.bytes, links == 2 ? bytes_str("old") : BYTES_NONE));
		assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
		assert_int_equal(op.gone.fileid, f.shown);
		assert_int_equal(op.gone.attr.nlink, links - 2);
		assert_int_equal(kit_end(ix, a.fileid), 0);
		kit_close(ix, &op);
	}
}

static void test_two_names_of_one_object(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	struct place_to_be f = prepare(ix, LINKED, "f", "x");

	(void)state;
	for (unsigned exchange = 0; exchange < 2; exchange++) {
		unsigned flags = exchange ? RENAME_EXCHANGE : 0;
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "f2", flags), 0);
		assert_int_equal(op.entry.attr.fileid, f.shown);
		assert_int_equal(op.gone.fileid, 0);
		assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "f", flags), 0);
		assert_int_equal(op.entry.attr.nlink, 2);
	}
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "f2", RENAME_NOREPLACE),
			 -EEXIST);
	kit_close(ix, &op);
}

/* Directories -------------------------------------------------------------------- */

static void test_directories_and_files(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	uint64_t e = kit_mkdir(ix, INDEX_ROOT, "e");
	uint64_t in_e = kit_mkdir(ix, e, "in");

	(void)state;
	kit_file(ix, INDEX_ROOT, "f", "x");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "d", INDEX_ROOT, "f", 0), -ENOTDIR);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", INDEX_ROOT, "d", 0), -EISDIR);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "d", INDEX_ROOT, "e", 0), -ENOTEMPTY);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "e", e, "x", 0), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "e", in_e, "x", 0), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, e, "in", INDEX_ROOT, "e", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "e", e, "in", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", 999, "f", 0), -ENOENT);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", d, "f", 8), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", d, "f",
				    RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
	/* An empty one is replaced. */
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "e", INDEX_ROOT, "d", 0), 0);
	assert_int_equal(op.gone.fileid, d);
	assert_int_equal(op.gone.attr.nlink, 0);
	assert_int_equal(op.entry.attr.nlink, 3);
	assert_int_equal(kit_dir_attr(ix, INDEX_ROOT).nlink, 3);
	kit_close(ix, &op);
}

static void test_links_of_directories(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t a = kit_mkdir(ix, INDEX_ROOT, "a"), b = kit_mkdir(ix, INDEX_ROOT, "b");
	uint64_t d = kit_mkdir(ix, a, "d");

	(void)state;
	kit_file(ix, b, "f", "x");
	assert_int_equal(kit_rename(ix, &op, a, "d", b, "f", RENAME_EXCHANGE), 0);
	assert_int_equal(op.entry.parent, b);
	assert_int_equal(kit_dir_attr(ix, a).nlink, 2);
	assert_int_equal(kit_dir_attr(ix, b).nlink, 3);
	kit_mkdir(ix, a, "e");
	assert_int_equal(kit_rename(ix, &op, a, "e", b, "f", RENAME_EXCHANGE), 0);
	assert_int_equal(op.entry2.attr.fileid, d);
	assert_int_equal(op.entry2.parent, a);
	assert_int_equal(kit_dir_attr(ix, a).nlink, 3);
	assert_int_equal(kit_dir_attr(ix, b).nlink, 3);
	assert_int_equal(kit_rename(ix, &op, a, "e", b, "f", 0), 0);
	assert_int_equal(kit_dir_attr(ix, a).nlink, 2);
	assert_int_equal(kit_dir_attr(ix, b).nlink, 3);
	kit_check(ix);
	kit_close(ix, &op);
}

/* A draft and a directory change places; and what the draft hid is lost then. */
static void test_exchange_draft_and_directory(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	struct place_to_be f = prepare(ix, HIDING, "f", "old");

	(void)state;
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "d", INDEX_ROOT, "f", RENAME_EXCHANGE), 0);
	assert_lost(&op, f.hidden, PUBLISHED, "old");
	assert_int_equal(shown_at(ix, "f"), d);
	assert_int_equal(shown_at(ix, "d"), f.shown);
	struct attr a = { .fileid = f.shown, .mode = S_IFREG | 0600 };
	assert_int_equal(kit_publish(ix, &op, a, "new"), 0);
	assert_int_equal(shown_at(ix, "d"), f.shown);
	assert_int_equal(kit_end(ix, f.shown), 0);
	kit_close(ix, &op);
}

/* What `w` says. */
static struct place writers_place(struct index *ix, uint64_t fileid)
{
	struct key k = key_writer(fileid, INDEX_SESSION_OWN);
	struct kv_read get = { .from = key_bytes(&k), .limit = 1 };
	struct kv_req req = { .reads = &get, .nreads = 1 };
	struct writer_state w;

	assert_int_equal(kv_wait(index_kv(ix), &req), KV_DONE);
	assert_int_equal(req.rows[0].nrows, 1);
	assert_int_equal(writer_state_decode(req.rows[0].rows[0].value, &w), 0);
	struct place place = w.place;
	assert_false(w.draft);
	writer_state_fini(&w);
	kv_req_fini(&req);
	return place;
}

/* A writer's publish finds the object wherever it has been moved. */
static void test_a_writer_follows(void **state)
{
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t d = kit_mkdir(ix, INDEX_ROOT, "d");
	uint64_t f = kit_file(ix, INDEX_ROOT, "f", "one");

	(void)state;
	struct entry e = kit_entry(ix, INDEX_ROOT, "f");
	assert_int_equal(kit(ix, &op, index_writer,
			     (struct index_op){ .fileid = f, .place = e.place }), 0);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "f", d, "g", 0), 0);
	assert_int_equal(kit_publish(ix, &op, e.attr, "two"), 0);
	assert_int_equal(op.entry.place.parent, d);
	e.attr = op.entry.attr;
	assert_int_equal(kit_stat(ix, &op, f, e.place), 0); /* the old place leads there */
	struct place now = op.entry.place;
	assert_int_equal(writers_place(ix, f).parent, d);
	assert_int_equal(kit_link(ix, &op, f, now, INDEX_ROOT, "h"), 0);
	assert_int_equal(writers_place(ix, f).kind, PLACE_FILEID);
	assert_int_equal(kit_unlink(ix, &op, d, "g"), 0);
	assert_int_equal(op.gone.attr.nlink, 1);
	assert_null(op.gone.body.bytes.p);
	assert_int_equal(kit_publish(ix, &op, e.attr, "three"), 0);
	assert_int_equal(op.entry.attr.version, 3);
	assert_int_equal(kit_unlink(ix, &op, INDEX_ROOT, "h"), 0);
	assert_true(bytes_eq(op.gone.body.bytes, bytes_str("three")));
	assert_int_equal(writers_place(ix, f).kind, PLACE_NONE);
	assert_int_equal(kit_publish(ix, &op, e.attr, "four"), INDEX_UNLINKED);
	assert_int_equal(kit_stat(ix, &op, f, now), INDEX_MISS);
	assert_int_equal(kit_end(ix, f), 0);
	kit_close(ix, &op);
}

/* More directories above than any fixed limit of a request would allow for. */
static void test_deep(void **state)
{
	enum { DEPTH = 200 };
	struct index *ix = kit_open();
	struct index_op op = { 0 };
	uint64_t dirs[DEPTH] = { INDEX_ROOT };

	(void)state;
	for (unsigned i = 1; i < DEPTH; i++)
		dirs[i] = kit_mkdir(ix, dirs[i - 1], "d");
	kit_mkdir(ix, INDEX_ROOT, "e");
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "d", dirs[DEPTH - 1], "x", 0), -EINVAL);
	assert_int_equal(kit_rename(ix, &op, INDEX_ROOT, "e", dirs[DEPTH - 1], "x", 0), 0);
	kit_close(ix, &op);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_over_every_kind),
		cmocka_unit_test(test_the_old_version_goes_at_publish),
		cmocka_unit_test(test_a_publish_may_replace_several),
		cmocka_unit_test(test_two_hidden_names_of_one_file),
		cmocka_unit_test(test_over_a_hidden_name_of_itself),
		cmocka_unit_test(test_from_one_name_of_a_file_over_another),
		cmocka_unit_test(test_two_names_of_one_object),
		cmocka_unit_test(test_directories_and_files),
		cmocka_unit_test(test_links_of_directories),
		cmocka_unit_test(test_exchange_draft_and_directory),
		cmocka_unit_test(test_a_writer_follows),
		cmocka_unit_test(test_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
