/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random walks through all operations of the index, compared after each step with
 * a model (names_model.h): every directory's whole listing, in pages of random
 * size, every name, every object by its place, every attribute. Over the engine in
 * memory, and over one where requests conflict, are lost, are answered late or not
 * at all: the outcome must be the same.
 */
#include "tests/unit/names_kit.h"
#include "tests/unit/kv_shaky.h"
#include "tests/unit/names_model.h"

#include <time.h>
#include <unistd.h>

static const char *const names[] = { "a", "b", "c", "d", "e" };
static const char *const xattr_names[MODEL_XATTRS] = { "user.x", "user.y", "trusted.z" };
enum { NNAMES = sizeof(names) / sizeof(*names) };

struct walk {
	struct index *ix;
	struct shaky *shaky; /* or NULL */
	char path[64];       /* of an LMDB file, or empty */
	struct model m;
	_Atomic uint64_t state;
	struct index_op op;
	unsigned nversions;
	unsigned done[16]; /* steps that succeeded, by kind */
};

static struct index *open_lmdb(const char *path, bool create)
{
	struct kv_lmdb_opts o = { .path = path, .size_bytes = 16 << 20, .create = create };
	struct index *ix;
	struct kv *kv;

	assert_int_equal(kv_lmdb_open(&o, &kv), 0);
	assert_int_equal(index_open(kv, INDEX_SESSION_OWN, create, &ix), 0);
	return ix;
}

static unsigned pick(struct walk *w, unsigned n)
{
	return (unsigned)(random_of(&w->state) % n);
}

static const char *pick_name(struct walk *w) { return names[pick(w, NNAMES)]; }

/* Any directory that is there. */
static int pick_dir(struct walk *w)
{
	for (;;) {
		int i = (int)pick(w, MODEL_OBJECTS);
		if (!i || (w->m.o[i].used && model_is_dir(&w->m, i) && model_names_of(&w->m, i)))
			return i;
	}
}

/* Any object but the root that is there or open; NOBODY if tried in vain. */
static int pick_object(struct walk *w, bool open)
{
	for (unsigned i = 0; i < 100; i++) {
		int o = 1 + (int)pick(w, MODEL_OBJECTS - 1);
		if (w->m.o[o].used && (!open || w->m.o[o].open))
			return o;
	}
	return NOBODY;
}

static uint64_t id(const struct walk *w, int o) { return w->m.o[o].attr.fileid; }

/* Its place as fs/ would know it: looked up, or a draft's. */
static struct place place_of(struct walk *w, int o)
{
	struct index_op op = { 0 };
	struct place place = { .kind = model_is_dir(&w->m, o) ? PLACE_FILEID : PLACE_NONE };

	if (w->m.o[o].draft)
		return (struct place){ .kind = PLACE_DRAFT };
	for (int i = 0; i < MODEL_NAMES; i++) {
		const struct model_name *n = &w->m.n[i];
		if (!n->used || n->shown != o)
			continue;
		assert_int_equal(kit_lookup(w->ix, &op, id(w, n->dir), n->name), 0);
		place = op.entry.place;
		index_op_fini(&op);
	}
	return place;
}

/* Comparing ---------------------------------------------------------------------- */

static void compare_entry(struct walk *w, int o, const struct entry *e)
{
	const struct model_object *mo = &w->m.o[o];

	assert_int_equal(e->attr.fileid, mo->attr.fileid);
	assert_int_equal(e->draft, mo->draft);
	assert_int_equal(e->attr.mode & S_IFMT, mo->attr.mode & S_IFMT);
	if (mo->draft) {
		assert_int_equal(e->place.kind, PLACE_DRAFT);
		return;
	}
	assert_int_equal(e->attr.mode, mo->attr.mode);
	assert_int_equal(e->attr.nlink, model_nlink(&w->m, o));
	assert_int_equal(e->attr.version, mo->attr.version);
	assert_int_equal(e->attr.uid, mo->attr.uid);
	assert_int_equal(e->attr.rdev, mo->attr.rdev);
	assert_true(bytes_eq(e->body.bytes, bytes_str(mo->content)));
	if (model_is_dir(&w->m, o))
		assert_int_equal(e->parent, id(w, model_parent(&w->m, o)));
	for (int i = 0; i < MODEL_XATTRS; i++)
		assert_true(!mo->xattrs[i] || e->attr.has_xattrs);
}

static void compare_listing(struct walk *w, int dir, bool plus)
{
	struct index_op op = { 0 };
	uint64_t from = 0;
	unsigned seen = 0;

	do {
		assert_int_equal(kit_list(w->ix, &op, id(w, dir), from, 1 + pick(w, 4), plus), 0);
		assert_true(op.nentries || !op.more);
		for (uint32_t i = 0; i < op.nentries; i++) {
			const struct entry *e = &op.entries[i];
			assert_true(e->h > from);
			from = e->h;
			struct model_name *n = model_find(&w->m, dir, e->name);
			assert_non_null(n);
			assert_int_equal(e->name_len, strlen(e->name));
			assert_int_equal(e->attr.fileid, id(w, n->shown));
			if (plus)
				compare_entry(w, n->shown, e);
			seen++;
		}
	} while (op.more);
	assert_int_equal(seen, model_names_in(&w->m, dir));
	index_op_fini(&op);
}

static void compare_names(struct walk *w, int dir)
{
	struct index_op op = { 0 };

	for (unsigned i = 0; i < NNAMES; i++) {
		struct model_name *n = model_find(&w->m, dir, names[i]);
		int r = kit_lookup(w->ix, &op, id(w, dir), names[i]);
		assert_int_equal(r, n ? 0 : INDEX_MISS);
		if (!n)
			continue;
		compare_entry(w, n->shown, &op.entry);
		struct place place = op.entry.place;
		assert_int_equal(kit_stat(w->ix, &op, id(w, n->shown), place), 0);
		compare_entry(w, n->shown, &op.entry);
	}
	index_op_fini(&op);
}

static void compare_xattrs(struct walk *w, int o)
{
	struct place place = place_of(w, o);
	struct index_op op = { 0 };
	size_t listed = 0;

	for (int i = 0; i < MODEL_XATTRS; i++) {
		int v = w->m.o[o].xattrs[i];
		int r = kit_getxattr(w->ix, &op, id(w, o), place, xattr_names[i]);
		assert_int_equal(r, v ? 0 : INDEX_MISS);
		if (v) {
			assert_int_equal(op.bytes.len, (size_t)v);
			listed += strlen(xattr_names[i]) + 1;
		}
	}
	assert_int_equal(kit(w->ix, &op, index_listxattr,
			     (struct index_op){ .fileid = id(w, o), .place = place }), 0);
	assert_int_equal(op.bytes.len, listed);
	index_op_fini(&op);
}

static void compare(struct walk *w)
{
	for (int o = 0; o < MODEL_OBJECTS; o++) {
		if (!w->m.o[o].used)
			continue;
		if (model_names_of(&w->m, o) || w->m.o[o].draft)
			compare_xattrs(w, o);
		if (!model_is_dir(&w->m, o))
			continue;
		compare_listing(w, o, true);
		compare_listing(w, o, false);
		compare_names(w, o);
	}
}

/* What the index says is gone is what the model lost. */
static void compare_one_gone(struct walk *w, const struct gone *g, struct model_gone *mg)
{
	if (!g->fileid)
		return;
	for (int i = 0; i < mg->n; i++) {
		int o = mg->v[i].object;
		if (o == NOBODY || id(w, o) != g->fileid)
			continue;
		assert_int_equal(g->draft, mg->v[i].draft);
		assert_int_equal(g->attr.nlink, mg->v[i].nlink);
		assert_int_equal(g->hidden, mg->v[i].hidden && !mg->v[i].draft);
		bool whole = !mg->v[i].nlink && !mg->v[i].draft;
		assert_true(bytes_eq(g->body.bytes,
				     whole ? bytes_str(mg->v[i].content) : BYTES_NONE));
		mg->v[i].object = NOBODY;
		return;
	}
	fail_msg("%llu is gone, and should not be", (unsigned long long)g->fileid);
}

/* An object that lost two names at once is reported once, as it is then. And what
 * is hidden in the same step in which it loses another name is reported for that
 * one. One that a rename moved says so in its entry. */
static void merge_gone(struct walk *w, struct model_gone *mg)
{
	for (int i = 0; i < mg->n; i++)
		for (int j = 0; j < i; j++)
			if (mg->v[j].object == mg->v[i].object)
				mg->v[j].object = NOBODY;
	for (int i = 0; i < mg->n; i++) {
		int o = mg->v[i].object;
		if (o != NOBODY && (w->op.entry.attr.fileid == id(w, o) ||
				    w->op.entry2.attr.fileid == id(w, o)))
			mg->v[i].object = NOBODY;
	}
}

static void compare_gone(struct walk *w, struct model_gone *mg)
{
	merge_gone(w, mg);
	compare_one_gone(w, &w->op.gone, mg);
	compare_one_gone(w, &w->op.gone2, mg);
	for (uint32_t i = 0; i < w->op.nmore_gone; i++)
		compare_one_gone(w, &w->op.more_gone[i], mg);
	for (int i = 0; i < mg->n; i++)
		assert_int_equal(mg->v[i].object, NOBODY);
	model_forget(&w->m);
}

/* Steps ---------------------------------------------------------------------------- */

static void model_made(struct walk *w, int o, const struct attr *a, const char *content)
{
	struct model_object *mo = &w->m.o[o];

	*mo = (struct model_object){ .used = true, .attr = *a };
	strcpy(mo->content, content);
}

static int step_make(struct walk *w)
{
	static const uint32_t types[] = { S_IFDIR | 0755, S_IFDIR | 0700, S_IFLNK, S_IFIFO | 0600,
					  S_IFCHR | 0660 };
	uint32_t mode = types[pick(w, 5)];
	const char *name = pick_name(w);
	int dir = pick_dir(w), o = model_new(&w->m);

	if (o == NOBODY)
		return -1;
	int r = kit_make(w->ix, &w->op, id(w, dir), name, mode);
	if (model_find(&w->m, dir, name)) {
		assert_int_equal(r, -EEXIST);
		return -1;
	}
	assert_int_equal(r, 0);
	model_made(w, o, &w->op.entry.attr, S_ISLNK(mode) ? "target" : "");
	model_add_name(&w->m, dir, name, o);
	compare_entry(w, o, &w->op.entry);
	return 0;
}

static int step_draft(struct walk *w)
{
	const char *name = pick(w, 8) ? pick_name(w) : NULL;
	int dir = pick_dir(w), o = model_new(&w->m);

	if (o == NOBODY)
		return -1;
	int r = kit_draft(w->ix, &w->op, id(w, dir), name);
	if (name && model_find(&w->m, dir, name)) {
		assert_int_equal(r, -EEXIST);
		return -1;
	}
	assert_int_equal(r, 0);
	model_made(w, o, &w->op.entry.attr, "");
	w->m.o[o].draft = w->m.o[o].open = true;
	assert_int_equal(w->op.entry.attr.nlink, name ? 1 : 0);
	if (name)
		model_add_name(&w->m, dir, name, o);
	compare_entry(w, o, &w->op.entry);
	return 0;
}

static int step_publish(struct walk *w)
{
	int o = pick_object(w, true);
	struct model_gone mg = { 0 };

	if (o == NOBODY)
		return -1;
	struct model_object *mo = &w->m.o[o];
	char content[24];
	snprintf(content, sizeof(content), "version %u", w->nversions++);
	int r = kit_publish(w->ix, &w->op, mo->attr, content);
	assert_int_equal(r, model_publish(&w->m, o, &mg));
	if (r)
		return -1;
	mo->attr.version++;
	strcpy(mo->content, content);
	mo->attr.has_xattrs = w->op.entry.attr.has_xattrs;
	compare_entry(w, o, &w->op.entry);
	compare_gone(w, &mg);
	return 0;
}

static int step_writer(struct walk *w)
{
	int o = pick_object(w, false);

	if (o == NOBODY || w->m.o[o].open || !S_ISREG(w->m.o[o].attr.mode))
		return -1;
	struct place place = place_of(w, o);
	if (place.kind == PLACE_NONE)
		return -1; /* hidden: nobody can open it */
	assert_int_equal(kit(w->ix, &w->op, index_writer,
			     (struct index_op){ .fileid = id(w, o), .place = place }), 0);
	compare_entry(w, o, &w->op.entry);
	w->m.o[o].open = true;
	return 0;
}

static int step_end(struct walk *w)
{
	int o = pick_object(w, true);

	if (o == NOBODY)
		return -1;
	assert_int_equal(kit_end(w->ix, id(w, o)), 0);
	model_end(&w->m, o);
	model_forget(&w->m);
	return 0;
}

static int step_link(struct walk *w)
{
	int o = pick_object(w, false), dir = pick_dir(w);
	const char *name = pick_name(w);

	if (o == NOBODY)
		return -1;
	struct place place = place_of(w, o);
	int r = kit_link(w->ix, &w->op, id(w, o), place, id(w, dir), name);
	if (model_find(&w->m, dir, name)) {
		assert_int_equal(r, -EEXIST);
		return -1;
	}
	if (model_is_dir(&w->m, o)) {
		assert_int_equal(r, -EPERM);
		return -1;
	}
	if (place.kind == PLACE_NONE && r)
		return -1; /* unlinked: nobody can link it again */
	assert_int_equal(r, 0);
	model_add_name(&w->m, dir, name, o);
	compare_entry(w, o, &w->op.entry);
	return 0;
}

static int step_unlink(struct walk *w)
{
	int dir = pick_dir(w), rmdir = pick(w, 3) == 0;
	const char *name = pick_name(w);
	struct model_gone mg = { 0 };
	int r = (rmdir ? kit_rmdir : kit_unlink)(w->ix, &w->op, id(w, dir), name);

	assert_int_equal(r, model_unlink(&w->m, dir, name, rmdir, &mg));
	if (r)
		return -1;
	compare_gone(w, &mg);
	return 0;
}

static int step_rename(struct walk *w)
{
	static const unsigned all_flags[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	int dir = pick_dir(w), dir2 = pick_dir(w);
	const char *name = pick_name(w), *name2 = pick_name(w);
	unsigned flags = all_flags[pick(w, 5)];
	struct model_gone mg = { 0 };
	struct model_name *s = model_find(&w->m, dir, name), *t = model_find(&w->m, dir2, name2);
	int o = s ? s->shown : NOBODY, o2 = t ? t->shown : NOBODY;
	int r = kit_rename(w->ix, &w->op, id(w, dir), name, id(w, dir2), name2, flags);

	assert_int_equal(r, model_rename(&w->m, dir, name, dir2, name2, flags, &mg));
	if (r)
		return -1;
	compare_entry(w, o, &w->op.entry);
	if (flags & RENAME_EXCHANGE && o != o2)
		compare_entry(w, o2, &w->op.entry2);
	compare_gone(w, &mg);
	return 0;
}

static int step_setattr(struct walk *w)
{
	int o = pick_object(w, false);

	if (o == NOBODY)
		return -1;
	struct attr a = { .mode = pick(w, 010000), .uid = pick(w, 5), .mtime = { 5, 6 } };
	unsigned mask = pick(w, 8) ? INDEX_SET_MODE | INDEX_SET_UID : INDEX_SET_MTIME;
	struct place place = place_of(w, o);
	int r = kit(w->ix, &w->op, index_setattr,
		    (struct index_op){ .fileid = id(w, o), .place = place, .mask = mask, .attr = a });
	if (place.kind == PLACE_NONE && r)
		return -1;
	assert_int_equal(r, 0);
	if (w->m.o[o].draft)
		return 0;
	struct attr *ma = &w->m.o[o].attr;
	if (mask & INDEX_SET_MODE) {
		ma->mode = (ma->mode & S_IFMT) | a.mode;
		ma->uid = a.uid;
	} else {
		assert_int_equal(w->op.entry.attr.mtime.tv_sec, 5);
	}
	compare_entry(w, o, &w->op.entry);
	return 0;
}

static int step_xattr(struct walk *w)
{
	int o = pick_object(w, false), i = (int)pick(w, MODEL_XATTRS), v = (int)pick(w, 6);
	static const unsigned all_flags[] = { 0, 0, XATTR_CREATE, XATTR_REPLACE };
	unsigned flags = all_flags[pick(w, 4)];
	char value[8] = "1234567";

	if (o == NOBODY)
		return -1;
	struct place place = place_of(w, o);
	if (place.kind == PLACE_NONE)
		return -1;
	int *mv = &w->m.o[o].xattrs[i], r, expected = 0;
	if (v) {
		r = kit_setxattr(w->ix, &w->op, w->m.o[o].attr, place, xattr_names[i],
				 BYTES_OF(value, (size_t)v), flags);
		if (*mv && flags == XATTR_CREATE)
			expected = -EEXIST;
		if (!*mv && flags == XATTR_REPLACE)
			expected = -ENODATA;
	} else {
		r = kit(w->ix, &w->op, index_removexattr, (struct index_op){
			.fileid = id(w, o), .place = place, .name = xattr_names[i],
			.attr = w->m.o[o].attr });
		if (!*mv)
			expected = -ENODATA;
	}
	assert_int_equal(r, expected);
	if (r)
		return -1;
	*mv = v;
	compare_entry(w, o, &w->op.entry);
	return 0;
}

/* The session is over: drafts vanish, what they hid is back. */
static int step_session_end(struct walk *w)
{
	struct kv *kv = index_kv(w->ix);

	if (pick(w, 20))
		return -1;
	if (*w->path) { /* by the end of the process, as it were */
		index_op_fini(&w->op);
		index_close(w->ix);
		w->ix = open_lmdb(w->path, false);
	} else {
		assert_int_equal(kv->ops->session_end(kv, INDEX_SESSION_OWN), 0);
	}
	for (int o = 0; o < MODEL_OBJECTS; o++)
		if (w->m.o[o].used && w->m.o[o].open)
			model_end(&w->m, o);
	model_forget(&w->m);
	return 0;
}

typedef int walk_step(struct walk *w);

static walk_step *const steps[] = {
	step_make, step_draft, step_draft, step_publish, step_publish, step_writer, step_end,
	step_link, step_unlink, step_rename, step_rename, step_rename, step_setattr, step_xattr,
	step_session_end,
};
enum { NSTEPS = sizeof(steps) / sizeof(*steps) };

static void walk(struct walk *w, unsigned n)
{
	w->m.o[0] = (struct model_object){ .used = true,
					   .attr = { .fileid = INDEX_ROOT, .version = 1,
						     .mode = S_IFDIR | 0755, .uid = geteuid() } };
	n /= KIT_SLOW;
	for (unsigned i = 0; i < n; i++) {
		unsigned kind = pick(w, NSTEPS);
		if (!steps[kind](w))
			w->done[kind]++;
		compare(w);
		if (!w->shaky && i % 64 == 0)
			kit_check(w->ix);
	}
	for (unsigned i = 0; i < NSTEPS; i++)
		assert_true(w->done[i] || n < 2500); /* shorter walks may miss a rare one */
	if (w->shaky)
		w->shaky->o = (struct shaky_opts){ 0 };
	for (int o = 0; o < MODEL_OBJECTS; o++)
		if (w->m.o[o].used && w->m.o[o].open)
			assert_int_equal(kit_end(w->ix, id(w, o)), 0);
	kit_close(w->ix, &w->op);
}

static uint64_t seed;

static void test_walk_over_memory(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct walk *w = calloc(1, sizeof(*w));
		w->ix = kit_open();
		w->state = seed + i;
		walk(w, 2500);
		free(w);
	}
}

static void walk_over(struct shaky_opts o, unsigned n)
{
	struct walk *w = calloc(1, sizeof(*w));
	struct shaky *s;
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	s = shaky_over(kv, (struct shaky_opts){ .seed = seed });
	assert_int_equal(index_open(&s->kv, INDEX_SESSION_OWN, true, &w->ix), 0);
	s->o = o;
	w->shaky = s;
	w->state = seed;
	walk(w, n);
	free(w);
}

static void test_walk_over_lmdb(void **state)
{
	char dir[] = "/dev/shm/slicefs-names-XXXXXX", lock[80];
	struct walk *w = calloc(1, sizeof(*w));

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(w->path, sizeof(w->path), "%s/index", dir);
	w->ix = open_lmdb(w->path, true);
	w->state = seed;
	walk(w, 2000);
	snprintf(lock, sizeof(lock), "%s-lock", w->path);
	unlink(lock);
	assert_int_equal(unlink(w->path), 0);
	assert_int_equal(rmdir(dir), 0);
	free(w);
}

static void test_walk_over_conflicts(void **state)
{
	(void)state;
	walk_over((struct shaky_opts){ .conflict = 30 }, 1500);
}

static void test_walk_over_late_answers(void **state)
{
	(void)state;
	walk_over((struct shaky_opts){ .later = 20, .conflict = 10 }, 300);
}

static void test_walk_over_lost_requests(void **state)
{
	(void)state;
	walk_over((struct shaky_opts){ .unknown_lost = 20 }, 1000);
}

static void test_walk_over_lost_answers(void **state)
{
	(void)state;
	walk_over((struct shaky_opts){ .unknown_done = 20, .unknown_lost = 10, .conflict = 10 }, 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_over_memory),
		cmocka_unit_test(test_walk_over_lmdb),
		cmocka_unit_test(test_walk_over_conflicts),
		cmocka_unit_test(test_walk_over_late_answers),
		cmocka_unit_test(test_walk_over_lost_requests),
		cmocka_unit_test(test_walk_over_lost_answers),
	};
	const char *env = getenv("SEED");
	int failed = 0;

	seed = env ? strtoull(env, NULL, 0) : 1;
	for (unsigned i = 0; i < (env ? 1 : 2) && !failed; i++) {
		print_message("SEED=%llu\n", (unsigned long long)seed);
		failed = cmocka_run_group_tests(tests, NULL, NULL);
		seed = (uint64_t)time(NULL);
	}
	return failed;
}
