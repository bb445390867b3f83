/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The steps of a walker (walk_model.h), on an engine. */
#include "tests/unit/file_kit.h"
#include "tests/unit/walk_model.h"

#include "engine/evict.h"
#include "engine/pool.h"
#include "engine/priv.h"

static struct engine *e;

static const char *name_of(const struct walker *w, unsigned i)
{
	static _Thread_local char names[2][40];
	static _Thread_local unsigned turn;
	char *name = names[turn++ % 2];

	snprintf(name, sizeof(names[0]), "w%u-%u%s", w->number, i, i < TEMPS ? ".tmp" : "");
	return name;
}

static uint64_t parent_of(const struct walker *w, unsigned i)
{
	return w->dir[i % PLACES];
}

/* Directories --------------------------------------------------------------------------- */

static void dir_name(const struct walker *w, unsigned d, char name[16])
{
	snprintf(name, 16, "dir%u-%u", w->number, d);
}

static int call_name(void (*call)(struct index *ix, struct index_op *op), uint64_t parent,
		     const char *name, struct attr *ret, struct place *ret_place)
{
	struct index_op op = { .parent = parent, .name = name, .attr.mode = S_IFDIR | 0755 };
	int r = index_wait(engine_index(e), &op, call);

	if (!r && ret)
		*ret = op.entry.attr;
	if (!r && ret_place)
		*ret_place = op.entry.place;
	index_op_fini(&op);
	return r;
}

static int set_attr(uint64_t fileid, struct place place, unsigned mask, struct keep keep)
{
	struct index_op op = { .fileid = fileid, .place = place, .mask = mask,
			       .attr.keep = keep };
	int r = index_wait(engine_index(e), &op, index_setattr);

	index_op_fini(&op);
	return r;
}

/* Its directories are as it left them, or not there: those that were emptied go by themselves. */
static void find_dirs(struct walker *w)
{
	w->dir[0] = INDEX_ROOT;
	for (unsigned d = 1; d < PLACES; d++) {
		struct attr a = { 0 };
		char name[16];
		dir_name(w, d, name);
		int r = call_name(index_lookup, INDEX_ROOT, name, &a, NULL);
		must(r == 0 || r == INDEX_MISS, "%s: %d", name, r);
		w->dir[d] = r ? 0 : a.fileid;
	}
}

static void make_dir(struct walker *w, unsigned d)
{
	struct keep keep = { .quota = QUOTA_BYTES };
	unsigned mask = INDEX_SET_QUOTA;
	struct attr a = { 0 };
	char name[16];

	if (d == 2) {
		keep = (struct keep){ .ttl = 3, .ttl_by_use = true };
		mask = INDEX_SET_TTL;
	}
	dir_name(w, d, name);
	int r = call_name(index_make, INDEX_ROOT, name, &a, NULL);
	must(r == 0 || r == -EEXIST, "mkdir %s: %d", name, r);
	find_dirs(w);
	r = set_attr(w->dir[d], (struct place){ .kind = PLACE_FILEID }, mask, keep);
	/* A directory that was there may go in this moment. */
	must(r == 0 || r == INDEX_MISS, "%s: %d", name, r);
}

/* Nothing is in it, or it is not there. */
static void is_empty(struct walker *w, unsigned d)
{
	for (unsigned i = d; i < NAMES; i += PLACES)
		if (w->now[i].v.id)
			is_gone(w, w->now[i].v.id);
}

static void new_name(const struct walker *w, char name[16])
{
	snprintf(name, 16, "new%u", w->number);
}

/* What is there ------------------------------------------------------------------------- */

/* INDEX_MISS: no, and the model says so from then on. */
static int find(struct walker *w, unsigned i, struct attr *a, struct place *place)
{
	int r = parent_of(w, i) ? call_name(index_lookup, parent_of(w, i), name_of(w, i), a, place)
				: INDEX_MISS;

	must(r == 0 || r == INDEX_MISS, "walker %u: name %u: %d", w->number, i, r);
	if (r == INDEX_MISS && w->now[i].v.id)
		is_gone(w, w->now[i].v.id);
	must(r == INDEX_MISS || w->now[i].v.id, "walker %u: name %u came from nowhere", w->number,
	     i);
	return r;
}

static struct version version_of(struct walker *w, struct file *f)
{
	int64_t n = kit_read(f, 0, w->buf, BYTES_MAX);

	must(n >= 0, "read: %lld", (long long)n);
	struct version v = which(w->buf, (uint64_t)n, w->want);
	must(v.id, "walker %u: %lld bytes are no version of anything: %.60s", w->number,
	     (long long)n, (const char *)w->buf);
	return v;
}

/* INDEX_MISS: as find(). */
static int open_name(struct walker *w, unsigned i, unsigned flags, struct file **ret)
{
	struct place place;
	struct attr a;
	int r = find(w, i, &a, &place);

	if (!r)
		r = kit_open(e, a.fileid, place, flags, ret);
	if (r == -ESTALE) { /* it went in between */
		is_gone(w, w->now[i].v.id);
		r = INDEX_MISS;
	}
	must(r == 0 || r == INDEX_MISS, "walker %u: open of name %u: %d", w->number, i, r);
	if (!r)
		touch(w, w->now[i].v.id);
	return r;
}

static void close_it(struct file *f, unsigned flags)
{
	int r = kit_close(f, flags);

	must(r == 0, "close: %d", r);
}

static void shows(struct walker *w, const char *what, struct file *f, struct version should)
{
	struct version v = version_of(w, f);

	must(is_same(v, should), "walker %u: %s shows %llu.%u, and not %llu.%u", w->number, what,
	     (unsigned long long)v.id, v.number, (unsigned long long)should.id, should.number);
}

static void step_read(struct walker *w, unsigned i)
{
	struct file *f;

	if (open_name(w, i, 0, &f))
		return;
	shows(w, name_of(w, i), f, w->now[i].v);
	close_it(f, 0);
}

/* Kept open over other steps, whatever becomes of its name (P4). */
static void step_hold(struct walker *w, unsigned i)
{
	if (w->open) {
		shows(w, "what is open", w->open, w->shows);
		close_it(w->open, 0);
		w->open = NULL;
	} else if (i >= TEMPS && !open_name(w, i, 0, &w->open)) {
		w->shows = w->now[i].v;
	}
}

/* As fs/ does: it lost a name. What a draft hides is dropped by who publishes that. */
static void take_gone(const struct gone *g)
{
	struct file *f = g->fileid && !g->hidden ? file_find(e, g->fileid) : NULL;

	if (f) {
		file_add_links(f, -1);
		close_it(f, 0);
	}
	if (g->fileid && !g->attr.nlink && !g->draft && !g->hidden)
		engine_drop(e, g);
}

static int unlink_name(uint64_t parent, const char *name)
{
	struct index_op op = { .parent = parent, .name = name };
	int r = index_wait(engine_index(e), &op, index_unlink);

	if (!r)
		take_gone(&op.gone);
	index_op_fini(&op);
	return r;
}

static int rename_name(uint64_t parent, const char *name, uint64_t parent2, const char *name2,
		       unsigned flags)
{
	struct index_op op = { .parent = parent, .name = name, .parent2 = parent2,
			       .name2 = name2, .flags = flags };
	int r = index_wait(engine_index(e), &op, index_rename);

	if (!r) {
		take_gone(&op.gone);
		take_gone(&op.gone2);
	}
	index_op_fini(&op);
	return r;
}

static void step_dir(struct walker *w)
{
	unsigned d = 1 + (unsigned)dice(w, PLACES - 1);
	bool full = false;
	char name[16];

	dir_name(w, d, name);
	int r = call_name(index_rmdir, INDEX_ROOT, name, NULL, NULL);
	for (unsigned i = d; i < NAMES; i += PLACES)
		full |= w->now[i].v.id != 0;
	/* What who was killed had not renamed yet. */
	if (r == -ENOTEMPTY && !full) {
		new_name(w, name);
		must(w->dir[d] && !unlink_name(w->dir[d], name), "%s is not empty", name);
		return;
	}
	must(r == 0 || r == INDEX_MISS || (r == -ENOTEMPTY && full), "rmdir %s: %d", name, r);
	if (r != -ENOTEMPTY)
		is_empty(w, d);
	if (!r || r == INDEX_MISS)
		make_dir(w, d);
}

/* Writing ------------------------------------------------------------------------------- */

/* Why is there no room? */
static void print_space(const struct walker *w)
{
	struct writer t = { 0 };

	engine_print_slices(e, &t);
	fprintf(stderr, "walker %u has pinned %llu bytes, %llu pages are free, %llu bytes could "
		"go\n%.*s", w->number, (unsigned long long)pinned_bytes(w),
		(unsigned long long)pool_nfree(e->pool), (unsigned long long)evict_bytes(e->evict),
		(int)t.len, (const char *)t.p);
	writer_fini(&t);
}

static void write_content(struct walker *w, struct file *f, struct version v)
{
	bool backwards = v.bytes > 65536 && dice(w, 4) == 0; /* a slice for each page */
	uint32_t piece = backwards ? PAGE_BYTES : 1 + (uint32_t)dice(w, 300000);
	uint32_t n = (v.bytes + piece - 1) / piece;

	make_content(v, w->buf);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t at = (backwards ? n - 1 - k : k) * piece;
		uint32_t len = v.bytes - at < piece ? v.bytes - at : piece;
		int64_t r = kit_write(f, at, w->buf + at, len);
		if (r == -ENOSPC)
			print_space(w);
		must(r == len, "write of %u bytes at %u: %lld", len, at, (long long)r);
	}
}

static struct version new_version(struct walker *w)
{
	return (struct version){ ++w->ids * WALKERS + w->number, 1,
				 some_bytes(random_next(&w->random)) };
}

/* A draft; INDEX_MISS: its directory had been empty, and has gone. */
static int new_file(struct walker *w, uint64_t parent, const char *name, struct keep *ret_keep,
		    struct file **ret)
{
	struct index_op op = { .parent = parent, .name = name, .attr.mode = S_IFREG | 0644 };
	int r = index_wait(engine_index(e), &op, index_draft);

	if (r == -EEXIST) { /* left over by who was killed */
		index_op_fini(&op);
		r = unlink_name(parent, name);
		must(r == 0 || r == INDEX_MISS, "unlink %s: %d", name, r);
		return new_file(w, parent, name, ret_keep, ret);
	}
	must(r == 0 || r == -ENOENT, "draft %s: %d", name, r);
	if (!r) {
		*ret_keep = op.entry.attr.keep; /* its directory's */
		must(!file_create(e, &op.entry.attr, ret), "create");
	}
	index_op_fini(&op);
	return r ? INDEX_MISS : 0;
}

/* A new file takes the name of another one: published before that, or by that. */
static void step_put(struct walker *w, unsigned i)
{
	struct object o = { .v = new_version(w), .touched_s = now_s() };
	bool before = dice(w, 2);
	struct file *f = NULL;
	char temp[16];
	int r = 0;

	new_name(w, temp);
	if (!parent_of(w, i) || new_file(w, parent_of(w, i), temp, &o.keep, &f)) {
		is_empty(w, i % PLACES);
		make_dir(w, i % PLACES);
		return;
	}
	write_content(w, f, o.v);
	if (before)
		close_it(f, FILE_WRITE);
	begin_step(w);
	w->next[i] = o;
	step_is_on(w);
	r = rename_name(parent_of(w, i), temp, parent_of(w, i), name_of(w, i), 0);
	must(r == 0 || (before && r == INDEX_MISS), "rename %s: %d", temp, r);
	if (!before)
		close_it(f, FILE_WRITE);
	step_done(w, !r);
	touch(w, o.v.id);
}

static void step_overwrite(struct walker *w, unsigned i)
{
	struct file *f;

	if (open_name(w, i, FILE_WRITE | FILE_TRUNCATE, &f))
		return;
	uint64_t id = w->now[i].v.id;
	struct version v = { id, w->now[i].v.number + 1, some_bytes(random_next(&w->random)) };
	if (is_pinned(&w->now[i]) && v.bytes > w->now[i].v.bytes)
		v.bytes = w->now[i].v.bytes;
	forget_past(w, id);
	if (w->open && w->shows.id == id) /* who has it open sees what becomes of it */
		w->shows = v;
	write_content(w, f, v);
	begin_step(w);
	each_name_of(w, id, k)
		w->next[k].v = v;
	step_is_on(w);
	close_it(f, FILE_WRITE);
	step_done(w, true);
	touch(w, id);
}

/* Names --------------------------------------------------------------------------------- */

static void step_unlink(struct walker *w, unsigned i)
{
	if (!parent_of(w, i))
		return;
	begin_step(w);
	w->next[i] = (struct object){ 0 };
	step_is_on(w);
	int r = unlink_name(parent_of(w, i), name_of(w, i));
	must(r == 0 || r == INDEX_MISS, "unlink: %d", r);
	must(r == INDEX_MISS || w->now[i].v.id, "name %u came from nowhere", i);
	step_done(w, !r);
	if (r && w->now[i].v.id)
		is_gone(w, w->now[i].v.id);
}

static void step_rename(struct walker *w, unsigned i, unsigned k)
{
	unsigned flags = dice(w, 4) ? 0 : 2; /* RENAME_EXCHANGE */
	uint64_t id = w->now[i].v.id, id2 = w->now[k].v.id;

	if (i == k || !parent_of(w, i) || !parent_of(w, k))
		return;
	begin_step(w);
	if (id != id2) {
		w->next[k] = w->now[i];
		w->next[i] = flags ? w->now[k] : (struct object){ 0 };
	}
	step_is_on(w);
	int r = rename_name(parent_of(w, i), name_of(w, i), parent_of(w, k), name_of(w, k), flags);
	must(r == 0 || r == INDEX_MISS || r == -ENOENT, "rename: %d", r);
	must(r || (id && (id2 || !flags)), "name %u or %u came from nowhere", i, k);
	step_done(w, !r);
	if (r == -ENOENT)
		find_dirs(w);
	else if (r == INDEX_MISS && id && !flags)
		is_gone(w, id);
	touch(w, id);
}

static void step_link(struct walker *w, unsigned i, unsigned k)
{
	struct index_op op;
	struct place place;
	struct attr a;

	if (i == k || !parent_of(w, k) || find(w, i, &a, &place))
		return;
	uint64_t id = w->now[i].v.id;
	op = (struct index_op){ .fileid = a.fileid, .place = place, .parent = parent_of(w, k),
				.name = name_of(w, k) };
	begin_step(w);
	w->next[k] = w->now[i];
	step_is_on(w);
	int r = index_wait(engine_index(e), &op, index_link);
	index_op_fini(&op);
	must(r == 0 || r == INDEX_MISS || r == -ENOENT || (r == -EEXIST && w->now[k].v.id),
	     "link of %u to %u: %d", i, k, r);
	struct file *f = r ? NULL : file_find(e, a.fileid);
	if (f) { /* as fs/ does: who has it open knows of each name */
		file_add_links(f, 1);
		close_it(f, 0);
	}
	uint64_t was = w->now[k].v.id;
	for (unsigned j = 0; !r && was && j < NAMES; j++) { /* it had gone */
		must(w->now[j].v.id != was || !is_pinned(&w->now[j]), "%u was pinned", j);
		if (j != k && w->now[j].v.id == was)
			w->next[j] = (struct object){ 0 };
	}
	step_done(w, !r);
	if (r == INDEX_MISS)
		is_gone(w, id);
	if (r == -ENOENT)
		find_dirs(w);
	touch(w, id);
}

/* What the user says -------------------------------------------------------------------- */

static void set_keep(struct walker *w, unsigned i, unsigned mask, struct keep keep)
{
	struct place place;
	struct attr a;

	if (find(w, i, &a, &place))
		return;
	uint64_t id = w->now[i].v.id;
	begin_step(w);
	each_name_of(w, id, k) {
		keep_apply(&w->next[k].keep, mask, &keep);
		w->next[k].touched_s = now_s();
	}
	step_is_on(w);
	int r = set_attr(a.fileid, place, mask, keep);
	must(r == 0 || r == INDEX_MISS, "setattr: %d", r);
	step_done(w, !r);
	if (r)
		is_gone(w, id);
	touch(w, id);
}

static void step_keep(struct walker *w, unsigned i)
{
	struct keep keep = { 0 };

	switch (dice(w, 4)) {
	case 0:
		if (pinned_bytes(w) + w->now[i].v.bytes > PINNED_BYTES)
			return;
		keep.pinned = dice(w, 2) ? KEEP_FOREVER : now_s() + 1 + (int64_t)dice(w, 3);
		set_keep(w, i, INDEX_SET_PIN, keep);
		break;
	case 1:
		set_keep(w, i, INDEX_SET_PIN, keep);
		break;
	case 2:
		keep.ttl = (uint32_t)dice(w, 4);
		keep.ttl_by_use = keep.ttl && dice(w, 2);
		set_keep(w, i, INDEX_SET_TTL, keep);
		break;
	default:
		keep.priority = (int8_t)(KEEP_LOW + (int)dice(w, 3));
		set_keep(w, i, INDEX_SET_PRIORITY, keep);
	}
}

static void step_evict(struct walker *w, unsigned i)
{
	struct place place;
	struct attr a;

	if (find(w, i, &a, &place))
		return;
	uint64_t id = w->now[i].v.id;
	bool pinned = is_pinned(&w->now[i]);
	begin_step(w);
	each_name_of(w, id, k)
		w->next[k] = (struct object){ 0 };
	step_is_on(w);
	struct engine_ask x = { .fileid = a.fileid, .place = place };
	int r = kit_ask(e, engine_evict, &x);
	must(r == 0 || r == INDEX_MISS || (r == -EPERM && pinned), "evict: %d", r);
	must(r || !is_pinned(&w->now[i]), "it was pinned, and evicted");
	step_done(w, !r);
	if (r == INDEX_MISS)
		is_gone(w, id);
}

/* Files that belong to nobody, and fill the index and the pool -------------------------- */

static void step_fill(struct walker *w)
{
	struct version v = new_version(w);
	char name[64];

	for (unsigned n = 0; n < 8; n++) {
		struct file *f;
		v.bytes = n ? HEAD_BYTES : 300000;
		snprintf(name, sizeof(name), "%s%u-%u", n ? "so-that-the-index-is-full-" : "fill-",
			 w->number, (unsigned)dice(w, n ? 100000 : 30));
		int r = kit_create(e, name, &f);
		must(r == 0 || r == -EEXIST, "create %s: %d", name, r);
		if (r)
			continue;
		write_content(w, f, v);
		close_it(f, FILE_WRITE);
	}
}

/* Names that all of them change; what is there is whole. */
static void step_shared(struct walker *w)
{
	char from[16], to[16];
	struct keep keep;
	struct file *f;

	snprintf(from, sizeof(from), "shared%u", (unsigned)dice(w, 6));
	snprintf(to, sizeof(to), "shared%u", (unsigned)dice(w, 6));
	int r = kit_open_name(e, from, 0, &f);
	must(r == 0 || r == -ENOENT || r == -ESTALE, "open %s: %d", from, r);
	if (!r) {
		must(version_of(w, f).id, "%s", from);
		close_it(f, 0);
	}
	if (r || dice(w, 2)) { /* made elsewhere, and moved there */
		snprintf(from, sizeof(from), "own%u", w->number);
		must(!new_file(w, INDEX_ROOT, from, &keep, &f), "create %s", from);
		write_content(w, f, new_version(w));
		close_it(f, FILE_WRITE);
	}
	r = rename_name(INDEX_ROOT, from, INDEX_ROOT, to, 0);
	must(r == 0 || r == INDEX_MISS, "rename %s to %s: %d", from, to, r);
}

static void step(struct walker *w)
{
	unsigned i = (unsigned)dice(w, NAMES), k = (unsigned)dice(w, NAMES);
	uint64_t what = dice(w, 100);

	say(w, "%u on %u, %u", (unsigned)what, i, k);

	if (what < 26)
		step_put(w, i);
	else if (what < 36)
		step_overwrite(w, i);
	else if (what < 52)
		step_read(w, i);
	else if (what < 58)
		step_hold(w, i);
	else if (what < 66)
		step_rename(w, i, k);
	else if (what < 71)
		step_link(w, i, k);
	else if (what < 74)
		step_unlink(w, i);
	else if (what < 86)
		step_keep(w, i);
	else if (what < 89)
		step_evict(w, i);
	else if (what < 91)
		step_dir(w);
	else if (what < 94)
		step_fill(w);
	else
		step_shared(w);
	w->done++;
}
