/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do all invariants hold of what is stored? They are:
 *
 *   every value decodes, every key is one that we make
 *   a name's parent is a directory; its h is its hash, up to the slot, and no
 *     other name of the directory, published or draft, has it
 *   a directory's record lies under F and has one name, the one that it says; its
 *     parents lead to the root
 *   another object has its record with its one name, or under F, with as many
 *     links as names; no number is used twice, or is not below `M next`
 *   L is the number of directories in a directory; T, L, X belong to something
 *   a body decodes, has as many pages as the record says; each of its blocks is
 *     there, and each block there is referred to once
 *   a name has one h, published and as a draft of any session
 *   a draft name's object is written by the session whose name it is, and by no other;
 *     its `w` knows that name, and all the names that it knows are there
 *   `w` of a published object says where its record is, or that there is none
 *   t belongs to a directory in which its session has a draft name; x to a draft
 *
 * The walk goes kind by kind, with a table of all objects in memory (56 bytes of a
 * directory or linked file, 16 of another). On a live index it is not atomic: so
 * what it finds there counts only if each of some more walks finds it again, word by word: a number
 * that is wrong for a moment may be wrong by as much in the next one, by chance.
 *
 * Repair goes by what there is: it deletes what nothing refers to or what does not
 * decode, and sets counts and other copies of something (link counts, a
 * directory's own name, a slot) to what they are copies of. What that uncovers
 * (a subtree without its top) is found by the next round; the last finds nothing.
 *
 * Threads: the caller's own; it blocks.
 */
#include "index/check.h"

#include <errno.h>

#include "common/array.h"
#include "common/cleanup.h"

enum {
	ROUNDS_MAX = 100,
	LIVE_TRIES = 8,
	LINES_MAX = 10000, /* of one round; the rest is counted */
};

/* Tables ---------------------------------------------------------------------- */

int check_ids_add(struct check_ids *t, uint64_t id)
{
	if (array_room(t->v, t->cap, t->n + 1, 64) < 0)
		return -ENOMEM;
	t->v[t->n++] = (struct check_id){ .id = id };
	return 0;
}

static int id_cmp(const void *a, const void *b)
{
	const struct check_id *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

void check_ids_sort(struct check_ids *t)
{
	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), id_cmp);
}

struct check_id *check_ids_find(const struct check_ids *t, uint64_t id)
{
	struct check_id key = { .id = id };

	return t->n ? bsearch(&key, t->v, t->n, sizeof(key), id_cmp) : NULL;
}

static int object_cmp(const void *a, const void *b)
{
	const struct check_object *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

struct check_object *check_object_find(const struct check *c, uint64_t id)
{
	struct check_object key = { .id = id };

	return c->nobjects ? bsearch(&key, c->objects, c->nobjects, sizeof(key), object_cmp)
			   : NULL;
}

bool check_exists(const struct check *c, uint64_t id)
{
	return check_object_find(c, id) || check_ids_find(&c->files, id);
}

static void check_fini(struct check *c)
{
	free(c->objects);
	free(c->files.v);
	free(c->owners.v);
	free(c->writers);
	free(c->gone.v);
	blockset_fini(&c->blocks);
}

/* Saying so -------------------------------------------------------------------- */

void complain(struct check *c, const char *fmt, ...)
{
	char line[2 * SHOWN_MAX + 256];
	va_list ap;

	if (c->found++ >= LINES_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	write_format(c->report, "%s\n", line);
}

const char *show_name(struct bytes name, char buf[SHOWN_MAX])
{
	const uint8_t *p = name.p;
	char *to = buf;

	for (size_t i = 0; i < name.len && i < INDEX_NAME_MAX; i++) {
		if (p[i] >= ' ' && p[i] < 0x7f && p[i] != '\\')
			*to++ = (char)p[i];
		else
			to += sprintf(to, "\\x%02x", p[i]);
	}
	*to = 0;
	return buf;
}

void complain_undecodable(struct check *c, const struct kv_row *row, int why)
{
	char shown[SHOWN_MAX];

	complain(c, "key %s does not decode%s", show_name(row->key, shown),
		 why == -EPROTONOSUPPORT ? ": a newer format" : "");
	/* What a newer slicefs wrote is not ours to delete. */
	if (why != -EPROTONOSUPPORT)
		fix_del(c, row->key);
}

/* Repairing ---------------------------------------------------------------------- */

static void fix(struct check *c, const struct kv_write *writes, uint32_t n)
{
	struct kv_req req = { .writes = writes, .nwrites = n, .reserve = true };

	if (!c->repair || c->failed)
		return;
	int r = kv_wait(c->kv, &req);
	kv_req_fini(&req);
	if (r)
		c->failed = r < 0 ? r : -EIO;
	else
		c->repaired++;
}

void fix_put(struct check *c, struct bytes key, struct writer *value)
{
	struct kv_write w = { .key = key, .value = writer_bytes(value) };

	if (value->bad)
		c->failed = -ENOMEM;
	else
		fix(c, &w, 1);
	writer_fini(value);
}

void fix_del(struct check *c, struct bytes key)
{
	fix(c, &(struct kv_write){ .key = key }, 1);
}

void fix_move(struct check *c, struct bytes from, struct bytes to, struct bytes value)
{
	struct kv_write w[] = { { .key = from }, { .key = to, .value = value } };

	fix(c, w, 2);
}

/* Driving ---------------------------------------------------------------------- */

/* One walk over everything. Violations, or negative. */
static int check_once(struct check *c)
{
	static int (*const passes[])(struct check *c) = {
		check_owners, check_writers, check_files, check_names, check_tree,
		check_counts, check_blocks, check_drafts, check_session_rest, check_meta,
	};
	int r = 0;

	for (unsigned i = 0; !r && i < sizeof(passes) / sizeof(*passes); i++)
		r = passes[i](c);
	if (c->found > LINES_MAX)
		write_format(c->report, "and %u more\n", c->found - LINES_MAX);
	if (!r)
		r = c->report->bad ? -ENOMEM : c->failed;
	return r ? r : (int)c->found;
}

static int check_run(struct index *ix, enum index_check_mode mode, struct writer *report,
		     unsigned *repaired)
{
	_cleanup_(check_fini) struct check c = {
		.ix = ix, .kv = index_kv(ix), .report = report,
		.repair = mode == INDEX_CHECK_REPAIR,
		.stopped = mode == INDEX_CHECK_STOPPED,
	};
	int r = check_once(&c);

	*repaired += c.repaired;
	return r;
}

/* The next line of b, without its end; false: none. */
static bool next_line(struct bytes *b, struct bytes *ret)
{
	const uint8_t *end = b->len ? memchr(b->p, '\n', b->len) : NULL;

	if (!end)
		return false;
	*ret = BYTES_OF(b->p, (size_t)(end - (const uint8_t *)b->p));
	*b = BYTES_OF(end + 1, b->len - ret->len - 1);
	return true;
}

static bool has_line(struct bytes text, struct bytes line)
{
	struct bytes l;

	while (next_line(&text, &l))
		if (bytes_eq(l, line))
			return true;
	return false;
}

/* The lines that are in both. How many. */
static int lines_common(struct bytes a, struct bytes b, struct writer *ret)
{
	struct bytes line;
	int n = 0;

	while (next_line(&a, &line)) {
		if (!has_line(b, line))
			continue;
		write_bytes(ret, line.p, line.len);
		write_u8(ret, '\n');
		n++;
	}
	return n;
}

/* Somebody may be writing: what counts is what every try finds. */
static int check_live(struct index *ix, struct writer *report)
{
	_cleanup_(writer_fini) struct writer found = { 0 };
	unsigned none = 0;
	int n = check_run(ix, INDEX_CHECK_LIVE, &found, &none);

	for (unsigned try = 1; n > 0 && try < LIVE_TRIES; try++) {
		_cleanup_(writer_fini) struct writer again = { 0 };
		struct writer both = { 0 };
		n = check_run(ix, INDEX_CHECK_LIVE, &again, &none);
		if (n < 0)
			return n;
		n = lines_common(writer_bytes(&found), writer_bytes(&again), &both);
		writer_fini(&found);
		found = both;
	}
	if (n < 0)
		return n;
	if (found.bad)
		return -ENOMEM;
	write_bytes(report, found.p, found.len);
	return n;
}

int index_check(struct index *ix, enum index_check_mode mode, struct writer *report,
		unsigned *ret_repaired)
{
	unsigned repaired = 0;
	int found = 0, n;

	if (mode == INDEX_CHECK_REPAIR) {
		for (unsigned round = 0; round < ROUNDS_MAX; round++) {
			unsigned before = repaired;
			n = check_run(ix, mode, report, &repaired);
			if (n < 0)
				return n;
			found += n;
			if (repaired == before) /* nothing left that it can repair */
				break;
		}
	} else if (mode == INDEX_CHECK_STOPPED) {
		found = check_run(ix, mode, report, &repaired);
	} else {
		found = check_live(ix, report);
	}
	if (found >= 0 && ret_repaired)
		*ret_repaired = repaired;
	return found;
}
