/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each operation meets each other one at the worst moment: all has been read, and
 * nothing is written yet. In a small scene with every kind of name, A is begun; just
 * before it writes, B is done from beginning to end; then A goes on. Outcomes,
 * tree, and what was handed out as gone must be those of B and then A, or of A and
 * then B, done one after the other in another such scene; in the end all drafts are
 * published, and index_check() finds nothing.
 *
 * The same with A and B in two sessions, of which the second has nothing of its own
 * at first: then also what each of the two sees must be that of one after the other.
 *
 * The first session may also end in the middle of what the second does. And each
 * request of each operation fails, or is never answered: then the scene is
 * as before and the outcome says so, or it is as it should be.
 *
 *	d/          an empty directory, old   n    a draft
 *	e/s/, e/f   one that is not           h    a draft that hides a file, o
 *	a, b        files                     l, m two names of one file
 *	w, o        open for writing
 */
#include "tests/unit/names_kit.h"
#include "tests/unit/kv_shaky.h"

#include <time.h>

enum verb {
	MKDIR, DRAFT, UNLINK, RMDIR, RENAME, EXCHANGE, LINK, PUBLISH, END, WRITER, CHMOD, UTIMES,
	CTIME, XATTR, SESSION_END,
};

struct act {
	enum verb verb;
	const char *from, *to;
};

static const struct act acts[] = {
	{ MKDIR, "x", 0 }, { MKDIR, "d/x", 0 }, { DRAFT, "x", 0 }, { DRAFT, "d/x", 0 },
	{ UNLINK, "a", 0 }, { UNLINK, "b", 0 }, { UNLINK, "l", 0 }, { UNLINK, "m", 0 },
	{ UNLINK, "n", 0 }, { UNLINK, "h", 0 }, { UNLINK, "w", 0 }, { UNLINK, "e/f", 0 },
	{ RMDIR, "d", 0 }, { RMDIR, "e/s", 0 },
	{ RENAME, "a", "b" }, { RENAME, "a", "x" }, { RENAME, "a", "d/x" }, { RENAME, "b", "a" },
	{ RENAME, "l", "a" }, { RENAME, "l", "x" }, { RENAME, "l", "m" }, { RENAME, "a", "l" },
	{ RENAME, "n", "a" }, { RENAME, "n", "x" }, { RENAME, "n", "d/x" }, { RENAME, "n", "h" },
	{ RENAME, "n", "l" }, { RENAME, "h", "a" }, { RENAME, "h", "x" }, { RENAME, "h", "n" },
	{ RENAME, "h", "m" }, { RENAME, "a", "h" }, { RENAME, "a", "n" }, { RENAME, "l", "h" },
	{ RENAME, "w", "x" }, { RENAME, "w", "d/x" }, { RENAME, "a", "w" }, { RENAME, "n", "w" },
	{ RENAME, "d", "e/s/x" }, { RENAME, "e", "d/x" }, { RENAME, "d", "x" },
	{ RENAME, "d", "e/s" }, { RENAME, "e/s", "d" }, { RENAME, "e/s", "x" },
	{ RENAME, "e/s", "d/x" }, { RENAME, "e/f", "d/x" },
	{ EXCHANGE, "a", "b" }, { EXCHANGE, "a", "l" }, { EXCHANGE, "n", "a" },
	{ EXCHANGE, "h", "a" }, { EXCHANGE, "n", "h" }, { EXCHANGE, "d", "e" },
	{ EXCHANGE, "d", "a" }, { EXCHANGE, "e/s", "a" }, { EXCHANGE, "d", "e/s" },
	{ EXCHANGE, "h", "d" }, { EXCHANGE, "w", "a" }, { EXCHANGE, "e/f", "n" },
	{ LINK, "a", "x" }, { LINK, "a", "d/x" }, { LINK, "l", "x" }, { LINK, "n", "x" },
	{ LINK, "n", "d/x" }, { LINK, "h", "x" }, { LINK, "w", "x" }, { LINK, "a", "e/x" },
	{ PUBLISH, "n", 0 }, { PUBLISH, "h", 0 }, { PUBLISH, "w", 0 }, { PUBLISH, "o", 0 },
	{ END, "n", 0 }, { END, "h", 0 }, { END, "w", 0 }, { WRITER, "a", 0 },
	{ WRITER, "l", 0 }, { CHMOD, "a", 0 }, { CHMOD, "l", 0 }, { CHMOD, "d", 0 },
	{ CHMOD, "w", 0 }, { CHMOD, "o", 0 }, { CTIME, "d", 0 }, { UTIMES, "d", 0 },
	{ UTIMES, "e", 0 }, { XATTR, "a", 0 }, { XATTR, "l", 0 }, { XATTR, "d", 0 },
	{ XATTR, "n", 0 }, { XATTR, "h", 0 }, { XATTR, "w", 0 },
};
enum {
	NACTS = sizeof(acts) / sizeof(*acts),
	LETTERS = 128,
	OLD = 12345, OLDER = 999, /* times */
};

enum { SESSIONS = 2 };

struct scene {
	struct index *ix, *ixs[SESSIONS]; /* ix: of the session that acts, `by` */
	struct shaky *shaky, *shakys[SESSIONS];
	unsigned by;
	struct kv *fault;
	struct entry at[LETTERS]; /* by the letter that an object had first */
	uint64_t ids[LETTERS];
	bool open[SESSIONS][LETTERS]; /* it writes it */
	uint64_t more[2];         /* new drafts */
	unsigned more_by[2], nmore;
	unsigned version[LETTERS];
	char story[4096];         /* outcomes are apart; this is what came of it */
	unsigned gone[LETTERS];   /* bodies handed out, by their first letter */
};

/* "e/f": its directory and its last name. By number, as fs/ has them: the directory
 * that had this name at first. */
static uint64_t dir_of(const struct scene *s, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');

	*ret_name = slash ? slash + 1 : path;
	return slash ? s->ids[(int)slash[-1]] : INDEX_ROOT;
}

static struct entry lookup(struct scene *s, const char *path)
{
	const char *name;
	uint64_t dir = dir_of(s, path, &name);
	struct entry e = kit_entry(s->ix, dir, name);

	s->at[(int)*name] = e;
	s->ids[(int)*name] = e.attr.fileid;
	return e;
}

static void make_draft(struct scene *s, const char *name)
{
	struct index_op op = { 0 };

	assert_int_equal(kit_draft(s->ix, &op, INDEX_ROOT, name), 0);
	s->at[(int)*name] = op.entry;
	s->ids[(int)*name] = op.entry.attr.fileid;
	index_op_fini(&op);
}

static uint64_t seed;
static unsigned first; /* pair, where not all are tried */

static void act_as(struct scene *s, unsigned session)
{
	s->by = session;
	s->ix = s->ixs[session];
	s->shaky = s->shakys[session];
}

static void begin_sessions(struct scene *s)
{
	struct kv *kv;

	assert_int_equal(kv_mem_open(&kv), 0);
	assert_int_equal(kv_fault_open(kv, seed++, false, &s->fault), 0);
	for (unsigned i = 0; i < SESSIONS; i++) {
		s->shakys[i] = shaky_over(s->fault, (struct shaky_opts){ .keep = i,
							  .session = i + 1 });
		assert_int_equal(index_open(&s->shakys[i]->kv, i + 1, true, &s->ixs[i]), 0);
	}
	act_as(s, 0);
}

static struct scene *scene_new(void)
{
	static const char *const files[] = { "a", "b", "h", "l", "w", "f" };
	struct scene *s = calloc(1, sizeof(*s));
	struct index_op op = { 0 };

	begin_sessions(s);
	kit_mkdir(s->ix, INDEX_ROOT, "d");
	uint64_t e = kit_mkdir(s->ix, INDEX_ROOT, "e");
	kit_mkdir(s->ix, e, "s");
	for (unsigned i = 0; i < 6; i++)
		kit_file(s->ix, i == 5 ? e : INDEX_ROOT, files[i], files[i]);
	lookup(s, "d");
	lookup(s, "e");
	lookup(s, "e/s");
	lookup(s, "e/f");
	for (unsigned i = 0; i < 5; i++)
		lookup(s, files[i]);
	assert_int_equal(kit_link(s->ix, &op, s->ids['l'], s->at['l'].place, INDEX_ROOT, "m"), 0);
	lookup(s, "l");
	lookup(s, "m");
	make_draft(s, "n");
	make_draft(s, "i");
	s->at['o'] = s->at['h'];
	s->ids['o'] = s->ids['h'];
	assert_int_equal(kit_rename(s->ix, &op, INDEX_ROOT, "i", INDEX_ROOT, "h", 0), 0);
	s->at['h'] = s->at['i'];
	s->ids['h'] = s->ids['i'];
	for (const char *c = "wo"; *c; c++) {
		assert_int_equal(kit(s->ix, &op, index_writer, (struct index_op){
			.fileid = s->ids[(int)*c], .place = s->at[(int)*c].place }), 0);
		s->version[(int)*c] = 1;
	}
	for (const char *c = "wonh"; *c; c++)
		s->open[0][(int)*c] = true;
	assert_int_equal(kit(s->ix, &op, index_setattr, (struct index_op){
		.fileid = s->ids['d'], .place = s->at['d'].place, .mask = INDEX_SET_MTIME,
		.attr = { .mtime.tv_sec = OLD } }), 0);
	index_op_fini(&op);
	return s;
}

static void note_gone(struct scene *s, const struct gone *g)
{
	if (g->fileid && !g->draft && !g->hidden && g->body.bytes.len)
		s->gone[*(const uint8_t *)g->body.bytes.p]++;
}

static int publish(struct scene *s, struct index_op *op, char c)
{
	char content[2] = { (char)(c - 'a' + 'A') };
	struct attr a = { .fileid = s->ids[(int)c], .mode = S_IFREG | 0644,
			  .version = s->version[(int)c] };
	int r = kit_publish(s->ix, op, a, content);

	if (!r)
		s->version[(int)c]++;
	return r;
}

static int act_on_object(struct scene *s, struct index_op *op, const struct act *a)
{
	char c = a->from[strlen(a->from) - 1];
	struct index_op asked = { .fileid = s->ids[(int)c], .place = s->at[(int)c].place };
	int r;

	switch (a->verb) {
	case PUBLISH:
		return publish(s, op, c);
	case END:
		r = kit_end(s->ix, asked.fileid);
		if (!r)
			s->open[s->by][(int)c] = false;
		return r;
	case WRITER:
		r = kit(s->ix, op, index_writer, asked);
		s->open[s->by][(int)c] = !r;
		s->version[(int)c] = 1;
		return r;
	case CHMOD:
		asked.mask = INDEX_SET_MODE;
		asked.attr.mode = 0111;
		return kit(s->ix, op, index_setattr, asked);
	case UTIMES:
		asked.mask = INDEX_SET_MTIME;
		asked.attr.mtime.tv_sec = OLDER;
		return kit(s->ix, op, index_setattr, asked);
	case CTIME:
		asked.mask = INDEX_SET_CTIME;
		asked.attr.ctime.tv_sec = OLDER;
		return kit(s->ix, op, index_setattr, asked);
	default:
		return kit_setxattr(s->ix, op, s->at[(int)c].attr, asked.place, "user.x",
				    bytes_str("v"), 0);
	}
}

/* It is the acting session's: all that it had open is closed, without a word. */
static int end_session(struct scene *s)
{
	memset(s->open[s->by], 0, sizeof(s->open[s->by]));
	return s->fault->ops->session_end(s->fault, index_session(s->ix));
}

static int act(struct scene *s, const struct act *a)
{
	struct index_op op = { 0 };
	const char *from, *to = NULL;
	uint64_t dir = dir_of(s, a->from, &from), dir2 = a->to ? dir_of(s, a->to, &to) : 0;
	char c = *from;
	int r;

	switch (a->verb) {
	case SESSION_END:
		return end_session(s);
	case MKDIR:
		r = kit_make(s->ix, &op, dir, from, S_IFDIR | 0755);
		break;
	case DRAFT:
		r = kit_draft(s->ix, &op, dir, from);
		if (!r) {
			s->more_by[s->nmore] = s->by;
			s->more[s->nmore++] = op.entry.attr.fileid;
		}
		break;
	case UNLINK:
		r = kit_unlink(s->ix, &op, dir, from);
		break;
	case RMDIR:
		r = kit_rmdir(s->ix, &op, dir, from);
		break;
	case RENAME:
	case EXCHANGE:
		r = kit_rename(s->ix, &op, dir, from, dir2, to,
			       a->verb == EXCHANGE ? RENAME_EXCHANGE : 0);
		break;
	case LINK:
		r = kit_link(s->ix, &op, s->ids[(int)c], s->at[(int)c].place, dir2, to);
		break;
	default:
		r = act_on_object(s, &op, a);
	}
	assert_true(r != -EUCLEAN && r != -EIO);
	if (r >= 0) {
		note_gone(s, &op.gone);
		note_gone(s, &op.gone2);
		for (uint32_t i = 0; i < op.nmore_gone; i++)
			note_gone(s, &op.more_gone[i]);
	}
	index_op_fini(&op);
	return r;
}

/* What came of it, as text --------------------------------------------------------- */

static void tell(struct scene *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct scene *s, const char *fmt, ...)
{
	size_t n = strlen(s->story);
	va_list ap;

	va_start(ap, fmt);
	int m = vsnprintf(s->story + n, sizeof(s->story) - n, fmt, ap);
	va_end(ap);
	assert_true((size_t)m < sizeof(s->story) - n);
}

/* Which of the scene's objects is it? New ones are all alike. */
static char letter_of(const struct scene *s, uint64_t fileid)
{
	for (char c = 'a'; c < 'x'; c++)
		if (s->ids[(int)c] == fileid)
			return c;
	return '?';
}

static void tell_names(struct scene *s, uint64_t dir, const char *path)
{
	/* In the order of names: that of listings depends on the index's key. */
	for (const char *c = "abdefhlmnswx"; *c; c++) {
		struct index_op op = { 0 }, x = { 0 };
		char name[2] = { *c }, below[64];
		if (kit_lookup(s->ix, &op, dir, name)) {
			index_op_fini(&op);
			continue;
		}
		const struct entry *e = &op.entry;
		tell(s, "%s%c=%c%s", path, *c, letter_of(s, e->attr.fileid), e->draft ? "(draft)" : "");
		if (!e->draft)
			tell(s, " %o %u '%.*s' %llu%s%s", e->attr.mode, e->attr.nlink,
			     S_ISREG(e->attr.mode) ? (int)e->body.bytes.len : 0,
			     (const char *)e->body.bytes.p, (unsigned long long)e->attr.version,
			     e->attr.has_xattrs ? " x" : "",
			     e->attr.mtime.tv_sec == OLD ? " old" :
			     e->attr.mtime.tv_sec == OLDER ? " older" : "");
		if (!kit_getxattr(s->ix, &x, e->attr.fileid, e->place, "user.x"))
			tell(s, " user.x");
		index_op_fini(&x);
		tell(s, "\n");
		if (S_ISDIR(e->attr.mode)) {
			snprintf(below, sizeof(below), "%s%c/", path, *c);
			tell_names(s, e->attr.fileid, below);
		}
		index_op_fini(&op);
	}
}

/* What each session sees. */
static void tell_all(struct scene *s)
{
	for (unsigned i = 0; i < SESSIONS; i++) {
		act_as(s, i);
		tell(s, "session %u:\n", i);
		tell_names(s, INDEX_ROOT, "");
	}
	act_as(s, 0);
}

static void tell_gone(struct scene *s)
{
	for (int c = 0; c < LETTERS; c++) {
		assert_true(s->gone[c] <= 1); /* a body is handed out once */
		if (s->gone[c])
			tell(s, "gone %c\n", c);
	}
}

/* Publishes what the session whose turn it is has open still. */
static void publish_open(struct scene *s)
{
	struct index_op op = { 0 };

	for (const char *c = "hnwoal"; *c; c++) {
		if (!s->open[s->by][(int)*c])
			continue;
		int r = publish(s, &op, *c);
		if (r && r != INDEX_UNLINKED)
			fail_msg("publish of %c: %d", *c, r);
		note_gone(s, &op.gone);
		for (uint32_t i = 0; !r && i < op.nmore_gone; i++)
			note_gone(s, &op.more_gone[i]);
		tell(s, "publish %c: %d\n", *c, r);
	}
	index_op_fini(&op);
}

/* Publishes and ends all that is open still; then nothing of a session is left. */
static void scene_end(struct scene *s)
{
	struct index_op op = { 0 };

	kit_check(s->ix);
	for (unsigned i = 0; i < SESSIONS; i++) {
		act_as(s, i);
		publish_open(s);
	}
	for (unsigned i = 0; i < SESSIONS; i++)
		for (const char *c = "hnwoal"; *c; c++)
			assert_int_equal(kit_end(s->ixs[i], s->ids[(int)*c]), 0);
	for (unsigned i = 0; i < s->nmore; i++)
		assert_int_equal(kit_end(s->ixs[s->more_by[i]], s->more[i]), 0);
	act_as(s, 0);
	tell_names(s, INDEX_ROOT, "");
	tell_gone(s);
	for (unsigned i = 1; i < SESSIONS; i++)
		index_close(s->ixs[i]);
	kit_close(s->ix, &op);
	s->ix = NULL;
}

/* Pairs ------------------------------------------------------------------------------- */

struct pair {
	struct scene *s;
	const struct act *b;
	unsigned by_a, by_b;
	int r_b;
	bool met;
};

static int act_by(struct scene *s, unsigned session, const struct act *a)
{
	act_as(s, session);
	return act(s, a);
}

static void meet(void *arg)
{
	struct pair *p = arg;

	p->met = true;
	p->r_b = act_by(p->s, p->by_b, p->b);
	act_as(p->s, p->by_a);
}

/* A with B in its middle. */
static struct scene *interleave(const struct act *a, const struct act *b, unsigned by_a,
				unsigned by_b, int *ret_a, int *ret_b, bool *ret_met)
{
	struct scene *s = scene_new();
	struct pair p = { .s = s, .b = b, .by_a = by_a, .by_b = by_b };

	s->shakys[by_a]->o.before_write = meet;
	s->shakys[by_a]->o.arg = &p;
	*ret_a = act_by(s, by_a, a);
	s->shakys[by_a]->o.before_write = NULL;
	*ret_met = p.met;
	if (!p.met)
		p.r_b = act_by(s, by_b, b);
	*ret_b = p.r_b;
	tell_all(s);
	tell_gone(s);
	scene_end(s);
	return s;
}

static struct scene *in_turn(const struct act *a, const struct act *b, unsigned by_a,
			     unsigned by_b, int *ret_a, int *ret_b)
{
	struct scene *s = scene_new();

	*ret_a = act_by(s, by_a, a);
	*ret_b = act_by(s, by_b, b);
	tell_all(s);
	tell_gone(s);
	scene_end(s);
	return s;
}

/* Outcomes and story in one number. */
static uint64_t digest(const struct scene *s, int r_a, int r_b)
{
	uint64_t h = (uint64_t)(unsigned)r_a << 32 | (unsigned)r_b;

	for (const char *c = s->story; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3u;
	return h;
}

/* done[a][b][i][j]: session a does act i and then b act j, in turn. */
static uint64_t done[SESSIONS][SESSIONS][NACTS][NACTS];

static void show(const char *what, struct scene *s, int r_a, int r_b)
{
	print_message("%s: A %d, B %d:\n%s\n", what, r_a, r_b, s->story);
	free(s);
}

static void fail_pair(const struct act *a, const struct act *b, unsigned by_a, unsigned by_b,
		      struct scene *s, int r_a, int r_b)
{
	print_message("sessions %u and %u, ", by_a, by_b);
	print_message("A: %d %s %s, B: %d %s %s\n", a->verb, a->from, a->to ? a->to : "", b->verb,
		      b->from, b->to ? b->to : "");
	show("B within A", s, r_a, r_b);
	s = in_turn(a, b, by_a, by_b, &r_a, &r_b);
	show("A, then B", s, r_a, r_b);
	s = in_turn(b, a, by_b, by_a, &r_b, &r_a);
	show("B, then A", s, r_a, r_b);
	fail();
}

static void check_pair(unsigned i, unsigned j, unsigned by_a, unsigned by_b, unsigned *ret_met)
{
	const struct act *a = &acts[i], *b = &acts[j];
	int r_a, r_b;
	bool met;

	/* One file is published by one at a time. */
	if (a->verb == PUBLISH && i == j && by_a == by_b)
		return;
	struct scene *s = interleave(a, b, by_a, by_b, &r_a, &r_b, &met);
	*ret_met += met;
	if (digest(s, r_a, r_b) != done[by_a][by_b][i][j] &&
	    digest(s, r_b, r_a) != done[by_b][by_a][j][i])
		fail_pair(a, b, by_a, by_b, s, r_a, r_b);
	free(s);
}

/* All; of two sessions, and under a sanitizer, other ones each time. (i, j) and (j, i)
 * go together. */
static bool is_chosen(unsigned i, unsigned j, unsigned one_of)
{
	return (i + j + first) % one_of == 0;
}

static void do_in_turn(unsigned by_a, unsigned by_b, unsigned one_of)
{
	int r_a, r_b;

	for (unsigned i = 0; i < NACTS; i++) {
		for (unsigned j = 0; j < NACTS; j++) {
			if (!is_chosen(i, j, one_of))
				continue;
			struct scene *s = in_turn(&acts[i], &acts[j], by_a, by_b, &r_a, &r_b);
			done[by_a][by_b][i][j] = digest(s, r_a, r_b);
			free(s);
		}
	}
}

static void check_pairs(unsigned by_a, unsigned by_b, unsigned one_of)
{
	unsigned met = 0, ntried = 0;

	for (unsigned i = 0; i < NACTS; i++) {
		for (unsigned j = 0; j < NACTS; j++) {
			if (!is_chosen(i, j, one_of))
				continue;
			check_pair(i, j, by_a, by_b, &met);
			ntried++;
		}
	}
	print_message("%u of %u pairs met\n", met, ntried);
	/* Much is refused to one who has no drafts. */
	assert_true(met > ntried / (by_a ? 3 : 2));
}

static void test_all_pairs(void **state)
{
	(void)state;
	first = (unsigned)time(NULL);
	print_message("from %u\n", first);
	do_in_turn(0, 0, KIT_SLOW);
	check_pairs(0, 0, KIT_SLOW);
}

static void test_all_pairs_of_two_sessions(void **state)
{
	(void)state;
	first = (unsigned)time(NULL);
	print_message("from %u\n", first);
	for (unsigned by = 0; by < SESSIONS; by++)
		do_in_turn(by, !by, 3 * KIT_SLOW);
	for (unsigned by = 0; by < SESSIONS; by++)
		check_pairs(by, !by, 3 * KIT_SLOW);
}

/* Whatever the other one is doing: as if the session had ended before or after it. */
static void test_a_session_ends_meanwhile(void **state)
{
	static const struct act end = { SESSION_END, "", 0 };
	unsigned nmet = 0;
	int r_a, r_b;
	bool met;

	(void)state;
	for (unsigned i = 0; i < NACTS; i++) {
		uint64_t is, before, after;
		struct scene *s = interleave(&acts[i], &end, 1, 0, &r_a, &r_b, &met);
		is = digest(s, r_a, r_b);
		free(s);
		s = in_turn(&acts[i], &end, 1, 0, &r_a, &r_b);
		after = digest(s, r_a, r_b);
		free(s);
		s = in_turn(&end, &acts[i], 0, 1, &r_b, &r_a);
		before = digest(s, r_a, r_b);
		free(s);
		if (is != before && is != after)
			fail_msg("act %u", i);
		nmet += met;
	}
	assert_true(nmet > NACTS / 3);
}

/* Slots ------------------------------------------------------------------------------- */

static const struct act make_x = { MKDIR, "x", 0 }, draft_x = { DRAFT, "x", 0 };

/* The key of another name that has the hash of "x". */
static struct key collision(const struct scene *s)
{
	uint64_t h = name_hash(index_super(s->ix)->hash_key, bytes_str("x"));

	return key_name(INDEX_ROOT, h, bytes_str("other"));
}

static void put_collision(struct scene *s)
{
	kit_put_other(s->fault, collision(s));
}

static void del_collision(struct scene *s)
{
	kit_del(s->fault, collision(s));
}

/* The other name goes, and a maker of x finds the first slot free. */
static void meet_collision_gone(void *arg)
{
	del_collision(arg);
	assert_int_equal(act(arg, &make_x), 0);
}

/* Another name comes, a maker of x takes the slot behind it, and it goes again. */
static void meet_collision_passing(void *arg)
{
	put_collision(arg);
	assert_int_equal(act(arg, &make_x), 0);
	del_collision(arg);
}

/* Two makers of one name see different slots as the first free one. */
static void test_two_slots_for_one_name(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct scene *s = scene_new();
		if (!i)
			put_collision(s);
		s->shaky->o.before_write = i ? meet_collision_passing : meet_collision_gone;
		s->shaky->o.arg = s;
		assert_int_equal(act(s, &draft_x), -EEXIST);
		scene_end(s);
		free(s);
	}
}

/* Faults ------------------------------------------------------------------------------ */

/* The story of one act (or none) of which the n-th request meets a fault. *ret_nreqs:
 * how many there were. */
static uint64_t act_with_fault(const struct act *a, unsigned by, unsigned n, int fault,
			       int *ret_r, unsigned *ret_nreqs)
{
	struct scene *s = scene_new();
	uint64_t before = kv_fault_count(s->fault);

	kv_fault_arm(s->fault, n, fault);
	*ret_r = a ? act_by(s, by, a) : 0;
	kv_fault_arm(s->fault, 0, 0);
	*ret_nreqs = (unsigned)(kv_fault_count(s->fault) - before);
	tell_all(s);
	tell_gone(s);
	uint64_t d = digest(s, 0, 0);
	scene_end(s);
	free(s);
	return d;
}

static unsigned check_faults(const struct act *a, unsigned by, int fault)
{
	unsigned nreqs, nfailed = 0;
	int r, r_done;
	uint64_t not_done = act_with_fault(NULL, 0, 0, 0, &r, &nreqs);
	uint64_t is_done = act_with_fault(a, by, 0, 0, &r_done, &nreqs);

	for (unsigned n = 1, all = nreqs; n <= all; n++) {
		uint64_t d = act_with_fault(a, by, n, fault, &r, &nreqs);
		if (r == fault && r != r_done) {
			assert_true(d == not_done);
			nfailed++;
			continue;
		}
		assert_int_equal(r, r_done);
		assert_true(d == is_done);
	}
	return nfailed;
}

/* Where a sanitizer makes it slow, others of the acts each time. */
static unsigned first_act(unsigned *ret_step)
{
	*ret_step = kit_cut(KIT_SLOW, 1 + KIT_SLOW / 4);
	unsigned act = (unsigned)time(NULL) % *ret_step;
	print_message("from %u, each %u\n", act, *ret_step);
	return act;
}

static void test_each_request_fails(void **state)
{
	static const int faults[] = { -ENOSPC, -ETIMEDOUT };
	unsigned step;

	(void)state;
	for (unsigned i = first_act(&step); i < NACTS; i += step)
		for (unsigned k = 0; k < 2; k++)
			for (unsigned by = 0; by < SESSIONS; by++)
				assert_true(check_faults(&acts[i], by, faults[k]));
}

/* Done or not, by the seed's choice: several times. */
static void test_each_answer_is_lost(void **state)
{
	unsigned step;

	(void)state;
	for (unsigned i = first_act(&step); i < NACTS; i += step)
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(check_faults(&acts[i], k % SESSIONS, KV_UNKNOWN), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_pairs),
		cmocka_unit_test(test_all_pairs_of_two_sessions),
		cmocka_unit_test(test_a_session_ends_meanwhile),
		cmocka_unit_test(test_two_slots_for_one_name),
		cmocka_unit_test(test_each_request_fails),
		cmocka_unit_test(test_each_answer_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
