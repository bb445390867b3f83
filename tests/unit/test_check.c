/* SPDX-License-Identifier: Apache-2.0 */
/* index_check(): one thing is damaged, the report says exactly that, repair mends
 * it, and nothing is left to say. */
#include <time.h>

#include "kv_shaky.h"
#include "tests/unit/names_kit.h"

static uint64_t seed;

/* d/{sub/deep/, f, h1 = h2, l -> target, big, fifo}: f has an attribute, big has
 * two blocks of one extent each. */
struct tree {
	struct index *ix;
	uint64_t d, sub, deep, f, h, l, big, block[2];
};

/* Raw keys ---------------------------------------------------------------------- */

static void put(struct tree *t, struct key k, struct bytes v)
{
	kit_put(index_kv(t->ix), k, v);
}

static void del(struct tree *t, struct key k)
{
	kit_del(index_kv(t->ix), k);
}

#define PUT(t, k, encode, v)                                                   \
	do {                                                                   \
		struct writer w_ = { 0 };                                      \
		encode((v), &w_);                                              \
		put((t), (k), writer_bytes(&w_));                              \
		writer_fini(&w_);                                              \
	} while (0)

/* A copy of a value; the test frees it. */
static struct bytes get(struct tree *t, struct key k)
{
	struct kv_read read = { .from = key_bytes(&k), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };

	assert_int_equal(kv_wait(index_kv(t->ix), &req), 0);
	if (!req.rows[0].nrows) {
		kv_req_fini(&req);
		return BYTES_NONE;
	}
	struct bytes v = req.rows[0].rows[0].value;
	void *p = malloc(v.len + 1);
	memcpy(p, v.p, v.len);
	kv_req_fini(&req);
	return BYTES_OF(p, v.len);
}

static uint64_t hash(struct tree *t, const char *name)
{
	return name_hash(index_super(t->ix)->hash_key, bytes_str(name));
}

static struct key name_key_of(struct tree *t, uint64_t dir, const char *name)
{
	return key_name(dir, hash(t, name), bytes_str(name));
}

/* Changes a record in place: `change(rec)`. */
static void change_record(struct tree *t, struct key k, void (*change)(struct record *r))
{
	struct bytes v = get(t, k);
	struct record rec;

	assert_int_equal(record_decode(v, &rec), 0);
	change(&rec);
	PUT(t, k, record_encode, &rec);
	free((void *)v.p);
}

/* The tree ------------------------------------------------------------------------ */

static void make_big(struct tree *t)
{
	struct index_op op = { 0 };
	struct block_ref refs[2];
	struct bytes values[2];
	struct writer w[2] = { 0 }, body = { 0 };
	struct attr a = kit_new_draft(t->ix, t->d, "big");

	t->big = a.fileid;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t sum = 7;
		struct extent x = { .pool_id = 3, .page = i * 5 * REGION_PAGES + 1, .slice = 9 + i,
				    .gen = 1, .npages = 2, .slice_pages = 2, .sums = &sum };
		struct extents e = { &x, 1, 1 };
		t->block[i] = index_new_id(t->ix);
		refs[i] = (struct block_ref){ i * 5, t->block[i] };
		assert_int_equal(body_encode_extents(&e, &w[i]), 0);
		values[i] = writer_bytes(&w[i]);
	}
	assert_int_equal(kit(t->ix, &op, index_put_blocks, (struct index_op){
		.fileid = a.fileid, .blocks = refs, .values = values, .nblocks = 2 }), 0);
	assert_int_equal(body_encode_blocks(refs, 2, &body), 0);
	a.size = 6 * REGION_PAGES * (uint64_t)PAGE_BYTES;
	a.pages = 4;
	assert_int_equal(kit(t->ix, &op, index_publish, (struct index_op){
		.fileid = a.fileid, .attr = a,
		.body = { BODY_BLOCKS, writer_bytes(&body) } }), 0);
	index_op_fini(&op);
	assert_int_equal(kit_end(t->ix, a.fileid), 0);
	writer_fini(&w[0]);
	writer_fini(&w[1]);
	writer_fini(&body);
}

static void tree_make(struct tree *t)
{
	struct index_op op = { 0 };

	t->ix = kit_open();
	t->d = kit_mkdir(t->ix, INDEX_ROOT, "d");
	t->sub = kit_mkdir(t->ix, t->d, "sub");
	t->deep = kit_mkdir(t->ix, t->sub, "deep");
	t->f = kit_file(t->ix, t->d, "f", "hello");
	assert_int_equal(kit_lookup(t->ix, &op, t->d, "f"), 0);
	struct attr a = op.entry.attr;
	struct place place = op.entry.place;
	assert_int_equal(kit_setxattr(t->ix, &op, a, place, "user.a", bytes_str("1"), 0), 0);
	t->h = kit_file(t->ix, t->d, "h1", "linked");
	assert_int_equal(kit_lookup(t->ix, &op, t->d, "h1"), 0);
	assert_int_equal(kit_link(t->ix, &op, t->h, op.entry.place, t->d, "h2"), 0);
	assert_int_equal(kit_make(t->ix, &op, t->d, "l", S_IFLNK), 0);
	t->l = op.entry.attr.fileid;
	assert_int_equal(kit_make(t->ix, &op, t->d, "fifo", S_IFIFO | 0600), 0);
	index_op_fini(&op);
	make_big(t);
}

static void tree_end(struct tree *t)
{
	index_close(t->ix);
	assert_null(metrics_busy(NULL));
}

/* Damage, one kind a function ----------------------------------------------------- */

static void no_damage(struct tree *t) { (void)t; }
static void cut_deep(struct tree *t) { del(t, key_file(t->deep)); }
static void cut_sub(struct tree *t) { del(t, key_file(t->sub)); }
static void nameless_dir(struct tree *t) { del(t, name_key_of(t, t->sub, "deep")); }

static void five_links(struct record *r) { r->attr.nlink = 5; }
static void wrong_nlink(struct tree *t) { change_record(t, key_file(t->h), five_links); }
static void wrong_nlink_one(struct tree *t)
{
	change_record(t, name_key_of(t, t->d, "f"), five_links);
}

static void lost_link(struct tree *t) { del(t, name_key_of(t, t->d, "h2")); }
static void wrong_count(struct tree *t) { PUT(t, key_ndirs(t->d), number_encode, 4); }
static void no_count(struct tree *t) { del(t, key_ndirs(t->d)); }
static void count_of_none(struct tree *t) { PUT(t, key_ndirs(t->f), number_encode, 1); }
static void count_of_empty(struct tree *t) { PUT(t, key_ndirs(t->deep), number_encode, 1); }

static void times_of_none(struct tree *t)
{
	struct dir_times d = { .mtime = { 1, 2 } };
	PUT(t, key_times(t->f), dir_times_encode, &d);
}

static void bad_times(struct tree *t) { put(t, key_times(t->d), bytes_str("\1garbage")); }
static void bad_name_value(struct tree *t)
{
	put(t, name_key_of(t, t->d, "l"), bytes_str("\1garbage"));
}
static void newer_value(struct tree *t) { put(t, key_times(t->d), bytes_str("\2future")); }

static void xattr_of_none(struct tree *t)
{
	PUT(t, key_xattr(999, bytes_str("user.b")), xattr_encode, bytes_str("1"));
}

static void drop_flag(struct record *r) { r->attr.has_xattrs = false; }
static void hidden_xattr(struct tree *t)
{
	change_record(t, name_key_of(t, t->d, "f"), drop_flag);
}

static void orphan_block(struct tree *t)
{
	PUT(t, key_block(t->big, t->block[1] + 1), number_encode, 1);
}

static void lost_block(struct tree *t) { del(t, key_block(t->big, t->block[0])); }

static void nine_pages(struct record *r) { r->attr.pages = 9; }
static void wrong_pages(struct tree *t)
{
	change_record(t, name_key_of(t, t->d, "big"), nine_pages);
}

static struct writer two_pages;
static void copy_of_two_pages(struct record *r)
{
	r->attr.copied = true;
	r->copy = writer_bytes(&two_pages);
}

static void wrong_copy(struct tree *t)
{
	uint64_t sum = 7;
	struct extent x = { .pool_id = 4, .page = 1, .slice = 9, .gen = 1, .npages = 2,
			    .slice_pages = 2, .sums = &sum };

	assert_int_equal(body_encode_extents(&(struct extents){ &x, 1, 1 }, &two_pages), 0);
	change_record(t, name_key_of(t, t->d, "big"), copy_of_two_pages);
	writer_fini(&two_pages);
}

static void nine_bytes(struct record *r) { r->attr.size = 9; }
static void wrong_size(struct tree *t)
{
	change_record(t, name_key_of(t, t->d, "f"), nine_bytes);
}

static void ref_to(struct tree *t, struct key k, uint64_t id, uint32_t type)
{
	struct record rec = { .kind = RECORD_REF, .attr = { .fileid = id, .mode = type } };
	PUT(t, k, record_encode, &rec);
}

static void second_name(struct tree *t)
{
	ref_to(t, name_key_of(t, t->sub, "again"), t->deep, S_IFDIR);
	PUT(t, key_ndirs(t->sub), number_encode, 2);
}

static void other_parent(struct record *r) { r->parent = INDEX_ROOT; }
static void wrong_parent(struct tree *t) { change_record(t, key_file(t->deep), other_parent); }
static void wrong_type(struct tree *t)
{
	ref_to(t, name_key_of(t, t->d, "h1"), t->h, S_IFIFO);
}
static void ref_to_none(struct tree *t)
{
	ref_to(t, name_key_of(t, t->d, "no"), 888, S_IFREG);
}
static void ref_to_root(struct tree *t)
{
	ref_to(t, name_key_of(t, t->d, "no"), INDEX_ROOT, S_IFDIR);
}

/* sub's name moves into its own child. */
static struct record *cycle_rec;
static uint64_t cycle_parent;
static void into_itself(struct record *r)
{
	r->parent = cycle_parent;
	(void)cycle_rec;
}
static void cycle(struct tree *t)
{
	cycle_parent = t->deep;
	del(t, name_key_of(t, t->d, "sub"));
	del(t, key_ndirs(t->d));
	ref_to(t, name_key_of(t, t->deep, "sub"), t->sub, S_IFDIR);
	PUT(t, key_ndirs(t->deep), number_encode, 1);
	change_record(t, key_file(t->sub), into_itself);
}

static void move_raw(struct tree *t, struct key from, struct key to, bool keep)
{
	struct bytes v = get(t, from);

	assert_non_null(v.p);
	put(t, to, v);
	if (!keep)
		del(t, from);
	free((void *)v.p);
}

static void wrong_hash(struct tree *t)
{
	move_raw(t, name_key_of(t, t->d, "f"), key_name(t->d, hash(t, "f") ^ 1 << 20, bytes_str("f")),
		 false);
}

static void other_slot(struct tree *t)
{
	/* Not damage: slots have gaps when names of one hash go. */
	move_raw(t, name_key_of(t, t->d, "f"),
		 key_name(t->d, hash(t, "f") + NAME_SLOTS - 1, bytes_str("f")), false);
}

static void same_slot(struct tree *t)
{
	/* "f" < "fz": the second one in the slot is wrong in both ways. */
	move_raw(t, name_key_of(t, t->d, "fifo"), key_name(t->d, hash(t, "f"), bytes_str("fifo")),
		 false);
}

static void twice(struct tree *t)
{
	move_raw(t, name_key_of(t, t->d, "fifo"), name_key_of(t, t->d, "fifo2"), true);
}

static void twice_with_file(struct tree *t)
{
	move_raw(t, key_file(t->h), name_key_of(t, t->sub, "h3"), true);
}

static void dir_at_name(struct tree *t)
{
	move_raw(t, key_file(t->deep), name_key_of(t, t->d, "deep2"), true);
}

static void no_parent(struct tree *t)
{
	move_raw(t, name_key_of(t, t->d, "fifo"), name_key_of(t, 777, "fifo"), false);
}

static void low_next(struct tree *t) { PUT(t, key_meta("next"), number_encode, t->big); }
static void no_next(struct tree *t) { del(t, key_meta("next")); }
static void foreign_meta(struct tree *t) { put(t, key_meta("what"), bytes_str("x")); }

static void foreign_kind(struct tree *t)
{
	struct key k = key_file(5);
	k.b[0] = 'Q';
	put(t, k, bytes_str("x"));
}

static void bad_key(struct tree *t)
{
	struct key k = key_file(5);
	k.len--;
	put(t, k, bytes_str("x"));
}

static void block_twice(struct tree *t)
{
	struct bytes v = get(t, name_key_of(t, t->d, "big"));
	struct block_ref refs[2] = { { 0, t->block[0] }, { 5, t->block[0] } };
	struct writer body = { 0 };
	struct record rec;

	assert_int_equal(record_decode(v, &rec), 0);
	assert_int_equal(body_encode_blocks(refs, 2, &body), 0);
	rec.body.bytes = writer_bytes(&body);
	PUT(t, name_key_of(t, t->d, "big"), record_encode, &rec);
	writer_fini(&body);
	free((void *)v.p);
}

#define ZEROS "\\x00\\x00\\x00\\x00\\x00\\x00\\x00" /* of a small number in a key */

/* Keys of sessions 5 and 6. */
static void put_draft(struct tree *t, const char *name, unsigned slot, uint64_t session,
		      uint64_t id)
{
	PUT(t, key_draft_name(t->d, hash(t, name) + slot, bytes_str(name), session),
	    number_encode, id);
}

/* A draft's `w`, with one name or none. */
static void put_writer(struct tree *t, const char *name, unsigned slot, uint64_t session,
		       uint64_t id)
{
	struct writer_name n = { t->d, name ? hash(t, name) + slot : 0,
				 bytes_str(name ? name : ""), 0 };
	struct writer_state w = { .draft = true, .names = &n, .nnames = name ? 1 : 0 };

	PUT(t, key_writer(id, session), writer_state_encode, &w);
}

static void put_place(struct tree *t, uint64_t id, enum place_kind kind)
{
	struct writer_state w = { .place = { kind, t->d, hash(t, "h1") } };

	PUT(t, key_writer(id, 5), writer_state_encode, &w);
}

static void draft_of_nobody(struct tree *t) { put_draft(t, "n", 0, 5, 888); }
static void draft_of_another(struct tree *t)
{
	put_draft(t, "n", 0, 5, 888);
	put_writer(t, NULL, 0, 6, 888);
}

static void two_slots(struct tree *t)
{
	for (unsigned i = 0; i < 2; i++) {
		put_draft(t, "n", i, 5 + i, 888 + i);
		put_writer(t, "n", i, 5 + i, 888 + i);
	}
}

static void slot_of_published(struct tree *t)
{
	put_draft(t, "f", 1, 5, 888);
	put_writer(t, "f", 1, 5, 888);
}

static void unknown_name(struct tree *t)
{
	put_draft(t, "n", 0, 5, 888);
	put_writer(t, NULL, 0, 5, 888);
}

static void lost_name(struct tree *t) { put_writer(t, "n", 0, 5, 888); }
static void wrong_place(struct tree *t) { put_place(t, t->f, PLACE_FILEID); }
static void other_place(struct tree *t) { put_place(t, t->f, PLACE_NAME); }
static void no_place(struct tree *t) { put_place(t, t->f, PLACE_NONE); }
static void place_of_none(struct tree *t) { put_place(t, 888, PLACE_FILEID); }
static void published_draft(struct tree *t) { put_writer(t, NULL, 0, 5, t->f); }
static void draft_of_two(struct tree *t)
{
	put_writer(t, NULL, 0, 5, 888);
	put_writer(t, NULL, 0, 6, 888);
}

static void times_of_session(struct tree *t)
{
	struct dir_times now = { .mtime = { 1, 2 }, .ctime = { 3, 4 } };

	put_draft(t, "n", 0, 5, 888);
	put_writer(t, "n", 0, 5, 888);
	PUT(t, key_draft_times(t->d, 5), dir_times_encode, &now); /* that one may */
	PUT(t, key_draft_times(t->d, 6), dir_times_encode, &now);
}

static void xattr_of_no_draft(struct tree *t)
{
	put_writer(t, NULL, 0, 6, 888);
	PUT(t, key_draft_xattr(888, bytes_str("user.x"), 5), xattr_encode, bytes_str("v"));
}

static void bad_note(struct tree *t) { put(t, key_note(5, 1, 5), bytes_str("\1garbage")); }
static void foreign_session_kind(struct tree *t)
{
	struct key k = key_writer(5, 5);
	k.b[0] = 'q';
	put(t, k, bytes_str("x"));
}

/* Cases ------------------------------------------------------------------------------ */

/* In `says`: %D %S %E %F %H %L %B are ids of d sub deep f h l big; %0 %1 blocks. */
struct damage {
	void (*make)(struct tree *t);
	const char *says;
	bool stays; /* repair must leave it */
};

static const struct damage damages[] = {
	{ no_damage, "", false },
	{ other_slot, "", false },
	{ cut_deep, "name deep in directory %S: object %E is not there\n"
		    "directory %S has 0 directories, its count says 1\n", false },
	{ cut_sub, "name sub in directory %D: object %S is not there\n"
		   "name deep in directory %S: object %S is no directory\n"
		   "object %E has no name\n"
		   "directory %D has 0 directories, its count says 1\n"
		   "a count of directories in %S, which is none\n"
		   "times of directory %S, which is none\n", false },
	{ nameless_dir, "object %E has no name\n"
			"directory %S has 0 directories, its count says 1\n", false },
	{ wrong_nlink, "object %H has 2 names, its record says 5\n", false },
	{ wrong_nlink_one, "name f in directory %D: object %F has one name and another link count\n",
	  false },
	{ lost_link, "object %H has 1 names, its record says 2\n", false },
	{ wrong_count, "directory %D has 1 directories, its count says 4\n", false },
	{ no_count, "directory %D has 1 directories, its count says 0\n", false },
	{ count_of_none, "a count of directories in %F, which is none\n", false },
	{ count_of_empty, "directory %E has 0 directories, its count says 1\n", false },
	{ times_of_none, "times of directory %F, which is none\n", false },
	{ bad_times, "key T\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02 does not decode\n", false },
	{ newer_value, "key T\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02 does not decode: a newer "
		       "format\n", true },
	{ xattr_of_none, "attribute user.b of object 999, which is not there\n", false },
	{ hidden_xattr, "object %F has extended attributes, its record says none\n", false },
	{ orphan_block, "block %2 of object %B is not referred to\n", false },
	{ lost_block, "the body of object %B does not decode\n"
		      "block %1 of object %B is not referred to\n", false },
	{ wrong_pages, "object %B has 4 pages, its record says 9\n", false },
	{ wrong_copy, "what object %B has on the disk is no copy of it\n", false },
	{ wrong_size, "object %F has 5 bytes, its record says 9\n", false },
	{ second_name, "name again in directory %S: object %E is a directory of another name, too\n",
	  false },
	{ wrong_parent, "name deep in directory %S: object %E is a directory and says another name\n",
	  false },
	{ wrong_type, "name h1 in directory %D: object %H is of another type\n", false },
	{ ref_to_none, "name no in directory %D: object 888 is not there\n", false },
	{ ref_to_root, "name no in directory %D: object 1 is the root\n", false },
	{ cycle, "directory %S does not lie below the root\n"
		 "directory %E does not lie below the root\n", false },
	{ wrong_hash, "name f in directory %D lies where its hash is not\n", false },
	{ same_slot, "name fifo in directory %D lies where another one does\n", false },
	{ twice_with_file, "name h3 in directory %S: object %H is there twice\n", false },
	{ dir_at_name, "name deep2 in directory %D: object %E is a directory and lies with its "
		       "name\n", false },
	{ no_parent, "name fifo in directory 777: object 777 is no directory\n", false },
	{ low_next, "the next number is %B, and %1 is in use\n", false },
	{ no_next, "there is no next number\n", false },
	{ foreign_meta, "key Mwhat does not decode\n", false },
	{ foreign_kind, "key Q\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x05 does not decode\n", false },
	{ bad_key, "key F\\x00\\x00\\x00\\x00\\x00\\x00\\x00 does not decode\n", false },
	{ block_twice, "the body of object %B does not decode\n"
		       "block %0 of object %B is not referred to\n"
		       "block %1 of object %B is not referred to\n", false },
	{ draft_of_nobody, "draft name n in directory %D: nobody writes its object, 888\n", false },
	{ draft_of_another, "draft name n in directory %D: nobody writes its object, 888\n", false },
	{ two_slots, "draft name n in directory %D lies where another name does\n"
		     "draft name n in directory %D lies where another name does\n", false },
	{ slot_of_published, "draft name f in directory %D lies where another name does\n", false },
	{ unknown_name, "object 888, as session 5 writes it, has other draft names than it knows\n",
	  false },
	{ lost_name, "object 888, as session 5 writes it, has other draft names than it knows\n",
	  false },
	{ wrong_place, "object %F, as session 5 writes it, is somewhere else\n", false },
	{ other_place, "object %F, as session 5 writes it, is somewhere else\n", false },
	{ no_place, "object %F, as session 5 writes it, is somewhere else\n", false },
	{ place_of_none, "object 888, as session 5 writes it, is somewhere else\n", false },
	{ published_draft, "object %F, as session 5 writes it, is a draft, and published\n", false },
	{ draft_of_two, "object 888, as session 5 writes it, is a draft, and written by another "
			"one\nobject 888, as session 6 writes it, is a draft, and written by another "
			"one\n", false },
	{ times_of_session, "times of directory %D in session 6, which has no draft there\n", false },
	{ xattr_of_no_draft, "attribute user.x of draft 888, which is none\n", false },
	{ bad_note, "key b" ZEROS "\\x05" ZEROS "\\x01" ZEROS "\\x05 does not decode\n", false },
	{ foreign_session_kind, "key q" ZEROS "\\x05" ZEROS "\\x05 does not decode\n", false },
};

static uint64_t id_named(const struct tree *t, char c)
{
	switch (c) {
	case 'D': return t->d;
	case 'S': return t->sub;
	case 'E': return t->deep;
	case 'F': return t->f;
	case 'H': return t->h;
	case 'L': return t->l;
	case 'B': return t->big;
	case '0': return t->block[0];
	case '1': return t->block[1];
	default: return t->block[1] + 1;
	}
}

static void expected(const struct tree *t, const char *says, struct writer *w)
{
	for (; *says; says++) {
		if (*says == '%')
			write_format(w, "%llu", (unsigned long long)id_named(t, *++says));
		else
			write_u8(w, (uint8_t)*says);
	}
}

static void assert_report(const struct writer *is, const struct writer *should)
{
	if (bytes_eq(writer_bytes(is), writer_bytes(should)))
		return;
	fprintf(stderr, "is:\n%.*sshould be:\n%.*s", (int)is->len, is->p ? (char *)is->p : "",
		(int)should->len, should->p ? (char *)should->p : "");
	fail();
}

static int lines_in(const struct writer *w)
{
	int n = 0;

	for (size_t i = 0; i < w->len; i++)
		n += w->p[i] == '\n';
	return n;
}

static void check_damage(const struct damage *d)
{
	struct writer is = { 0 }, should = { 0 }, again = { 0 };
	struct tree t = { 0 };
	unsigned repaired = 0;

	tree_make(&t);
	d->make(&t);
	expected(&t, d->says, &should);
	int found = index_check(t.ix, INDEX_CHECK_LIVE, &is, NULL);
	assert_report(&is, &should);
	assert_int_equal(found, lines_in(&should));
	int mended = index_check(t.ix, INDEX_CHECK_REPAIR, &again, &repaired);
	assert_true(mended >= found);
	assert_int_equal(!!repaired, found && !d->stays);
	is.len = 0;
	assert_int_equal(index_check(t.ix, INDEX_CHECK_LIVE, &is, NULL), d->stays ? found : 0);
	writer_fini(&is);
	writer_fini(&should);
	writer_fini(&again);
	tree_end(&t);
}

static void test_each_damage_is_told_and_mended(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(damages) / sizeof(*damages); i++)
		check_damage(&damages[i]);
}

/* What repair keeps ------------------------------------------------------------------- */

/* The same number twice: either may be the right one; one stays. */
static void test_of_two_equal_objects_one_stays(void **state)
{
	struct writer report = { 0 };
	struct index_op op = { 0 };
	struct tree t = { 0 };

	(void)state;
	tree_make(&t);
	twice(&t);
	assert_int_equal(index_check(t.ix, INDEX_CHECK_LIVE, &report, NULL), 1);
	write_u8(&report, 0);
	assert_non_null(strstr((char *)report.p, "is there twice"));
	assert_true(index_check(t.ix, INDEX_CHECK_REPAIR, &report, NULL) >= 1);
	int a = kit_lookup(t.ix, &op, t.d, "fifo"), b = kit_lookup(t.ix, &op, t.d, "fifo2");
	assert_int_equal(a + b, INDEX_MISS);
	index_op_fini(&op);
	writer_fini(&report);
	tree_end(&t);
}

static void test_a_name_that_does_not_decode_goes(void **state)
{
	struct writer report = { 0 };
	struct index_op op = { 0 };
	struct tree t = { 0 };

	(void)state;
	tree_make(&t);
	bad_name_value(&t);
	assert_int_equal(index_check(t.ix, INDEX_CHECK_LIVE, &report, NULL), 1);
	write_u8(&report, 0);
	assert_memory_equal(report.p, "key D", 5);
	assert_non_null(strstr((char *)report.p, "l does not decode\n"));
	assert_int_equal(index_check(t.ix, INDEX_CHECK_REPAIR, &report, NULL), 1);
	assert_int_equal(kit_lookup(t.ix, &op, t.d, "l"), INDEX_MISS);
	index_op_fini(&op);
	writer_fini(&report);
	tree_end(&t);
}

static void test_misplaced_names_keep_their_objects(void **state)
{
	void (*const ways[])(struct tree *t) = { wrong_hash, same_slot, wrong_parent, lost_link };
	const char *const names[] = { "f", "fifo", "sub", "h1" };
	struct index_op op = { 0 };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct writer report = { 0 };
		struct tree t = { 0 };
		tree_make(&t);
		ways[i](&t);
		assert_true(index_check(t.ix, INDEX_CHECK_REPAIR, &report, NULL) >= 1);
		assert_int_equal(kit_lookup(t.ix, &op, t.d, names[i]), 0);
		index_op_fini(&op);
		writer_fini(&report);
		tree_end(&t);
	}
}

/* Random ------------------------------------------------------------------------------ */

/* All rows of the index. */
static void all_rows(struct tree *t, struct kv_req *req)
{
	static struct kv_read read;

	read = (struct kv_read){ bytes_str("A"), bytes_str("["), 1000 };
	*req = (struct kv_req){ .reads = &read, .nreads = 1 };
	assert_int_equal(kv_wait(index_kv(t->ix), req), 0);
}

/* Deletes a key, cuts or flips a value, or gives a key another one's value. */
static void damage_at_random(struct tree *t, _Atomic uint64_t *state)
{
	struct kv_req req;

	all_rows(t, &req);
	const struct kv_rows *rows = &req.rows[0];
	const struct kv_row *row = &rows->rows[random_of(state) % rows->nrows];
	uint8_t value[65536];
	size_t len = row->value.len;
	struct kv_write w = { row->key, BYTES_NONE };
	struct kv_req put_req = { .writes = &w, .nwrites = 1 };

	memcpy(value, row->value.p, len);
	switch (random_of(state) % 4) {
	case 0:
		break;
	case 1:
		w.value = BYTES_OF(value, random_of(state) % (len + 1));
		break;
	case 2:
		if (len)
			value[random_of(state) % len] ^= (uint8_t)(1 << random_of(state) % 8);
		w.value = BYTES_OF(value, len);
		break;
	default:
		w.value = rows->rows[random_of(state) % rows->nrows].value;
	}
	/* A superblock cannot be mended, a root not be invented, and a newer format
	 * is left alone. */
	struct key super = key_meta("super"), root = key_file(INDEX_ROOT);
	if (!bytes_eq(row->key, key_bytes(&super)) && !bytes_eq(row->key, key_bytes(&root)) &&
	    !(w.value.len && *(const uint8_t *)w.value.p > 1))
		assert_int_equal(kv_wait(index_kv(t->ix), &put_req), 0);
	kv_req_fini(&put_req);
	kv_req_fini(&req);
}

static void test_repair_always_ends_clean(void **state)
{
	_Atomic uint64_t random = seed;

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		struct writer report = { 0 };
		struct tree t = { 0 };
		tree_make(&t);
		for (unsigned n = 1 + (unsigned)(random_of(&random) % 5); n; n--)
			damage_at_random(&t, &random);
		assert_true(index_check(t.ix, INDEX_CHECK_REPAIR, &report, NULL) >= 0);
		report.len = 0;
		int left = index_check(t.ix, INDEX_CHECK_LIVE, &report, NULL);
		if (left)
			fprintf(stderr, "round %u:\n%.*s", i, (int)report.len, (char *)report.p);
		assert_int_equal(left, 0);
		writer_fini(&report);
		tree_end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_damage_is_told_and_mended),
		cmocka_unit_test(test_of_two_equal_objects_one_stays),
		cmocka_unit_test(test_a_name_that_does_not_decode_goes),
		cmocka_unit_test(test_misplaced_names_keep_their_objects),
		cmocka_unit_test(test_repair_always_ends_clean),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
