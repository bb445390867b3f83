/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of open files, and what can be asked of one without waiting. A file
 * is in the table from the first open to the last close; while it is being
 * loaded, file_find() does not see it. Lines of one object (open.h) are a list, the
 * newest first; one that lost its draft (regain.c) is nobody's but its handles'.
 *
 * References are counted under the table's lock, so that nobody finds a file
 * whose last reference has gone. A file that the index knows as written to
 * (`registered`) does not lose its last reference: file_close() first publishes
 * and tells the index.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "engine/open.h"

int files_new(struct engine *e, struct files **ret)
{
	struct files *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	fs->e = e;
	lock_init(&fs->lock, LOCK_FILES);
	lock_cond_init(&fs->regained);
	*ret = fs;
	return 0;
}

struct files *files_free(struct files *fs)
{
	if (!fs)
		return NULL;
	{
		WITH_LOCK(&fs->lock);
		while (fs->nregains)
			lock_wait(&fs->lock, &fs->regained);
	}
	assert(!fs->table);
	pthread_cond_destroy(&fs->regained);
	lock_fini(&fs->lock);
	free(fs);
	return NULL;
}

static int file_new(struct engine *e, uint64_t fileid, struct file **ret)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->e = e;
	f->fileid = f->attr.fileid = fileid;
	f->since_ns = clock_ns();
	f->refs = 1;
	f->small = true;
	lock_init(&f->lock, LOCK_FILE);
	map_init(&f->map, e->node);
	metric_add(M_FILES, 1);
	*ret = f;
	return 0;
}

static void file_free(struct file *f)
{
	assert(!f->refs && ranges_idle(&f->ranges) && !f->registered);
	if (f->counted)
		metric_add(M_DRAFTS, -1);
	map_fini(&f->map);
	free(f->nodes);
	lock_fini(&f->lock);
	free(f->early);
	free(f);
	metric_add(M_FILES, -1);
}

int file_spare_new(struct file *f, struct file **ret)
{
	return file_new(f->e, f->fileid, ret);
}

struct file *file_spare_free(struct file *f)
{
	if (!f)
		return NULL;
	f->refs = 0;
	file_free(f);
	return NULL;
}

static struct file *table_find(struct files *fs, uint64_t fileid)
{
	struct file *f;

	HASH_FIND(hh, fs->table, &fileid, sizeof(fileid), f);
	return f;
}

/* Under the table's lock: f becomes the newest line. */
static void table_add(struct files *fs, struct file *f)
{
	f->older = table_find(fs, f->fileid);
	if (f->older)
		HASH_DEL(fs->table, f->older);
	HASH_ADD(hh, fs->table, fileid, sizeof(f->fileid), f);
}

static void table_del(struct files *fs, struct file *f)
{
	struct file *newer = table_find(fs, f->fileid);

	if (newer == f) {
		HASH_DEL(fs->table, f);
		if (f->older)
			HASH_ADD(hh, fs->table, fileid, sizeof(f->fileid), f->older);
		return;
	}
	while (newer->older != f)
		newer = newer->older;
	newer->older = f->older;
}

static int table_new(struct engine *e, uint64_t fileid, struct file **ret)
{
	struct file *f;
	int r = file_new(e, fileid, &f);

	if (r < 0)
		return r;
	table_add(e->files, f);
	*ret = f;
	return 0;
}

int files_get(struct engine *e, uint64_t fileid, struct file **ret)
{
	WITH_LOCK(&e->files->lock);
	struct file *f = table_find(e->files, fileid);

	if (!f)
		return table_new(e, fileid, ret);
	f->refs++;
	*ret = f;
	return 0;
}

/* Lines -------------------------------------------------------------------------- */

/* What one line is to an open that knows, or not, what is published. 0: it is old. */
static int line_is(struct file *f, const struct attr *is)
{
	WITH_LOCK(&f->lock);

	if (f->lost)
		return f->ending ? FILES_WAIT : 0;
	if (f->state == FILE_LOADING)
		return FILES_WAIT;
	/* A higher one was published here after the record was read. */
	if (f->draft || (is && f->attr.version >= is->version))
		return FILES_LINE;
	if (!is)
		return FILES_ASK;
	return f->publishing || f->ending ? FILES_WAIT : 0;
}

int files_line(struct engine *e, uint64_t fileid, const struct attr *is, struct file **ret)
{
	WITH_LOCK(&e->files->lock);
	struct file *found[FILES_ASK + 1] = { NULL };

	for (struct file *f = table_find(e->files, fileid); f; f = f->older) {
		int r = line_is(f, is);
		if (!found[r])
			found[r] = f;
	}
	if (found[FILES_ASK] && !found[FILES_LINE] && !found[FILES_WAIT])
		return FILES_ASK;
	int r = found[FILES_LINE] ? FILES_LINE : found[FILES_WAIT] ? FILES_WAIT : FILES_NEW;
	if (r == FILES_NEW) {
		int failed = table_new(e, fileid, ret);
		return failed ? failed : FILES_NEW;
	}
	found[r]->refs++;
	*ret = found[r];
	return r;
}

bool files_hand_over(struct file *f)
{
	WITH_LOCK(&f->e->files->lock);
	struct file *o = table_find(f->e->files, f->fileid);

	{
		WITH_LOCK(&f->lock);
		if (!f->registered) /* nor are the others (files_lost()) */
			return true;
	}
	if (o == f)
		o = f->older;
	if (o) {
		WITH_LOCK(&o->lock);
		o->registered = true;
	}
	WITH_LOCK(&f->lock);
	f->registered = !o;
	f->ending = !o;
	return o;
}

int files_admit(struct file *f)
{
	WITH_LOCK(&f->e->files->lock);

	for (struct file *o = table_find(f->e->files, f->fileid); o; o = o->older) {
		if (o == f || o->lost)
			continue;
		WITH_LOCK(&o->lock);
		if (o->publishing || (o->state == FILE_OPEN && o->attr.version >= f->attr.version))
			return -EAGAIN;
	}
	WITH_LOCK(&f->lock);
	f->state = FILE_OPEN;
	return 0;
}

bool files_put(struct file *f)
{
	struct files *fs = f->e->files;

	{
		WITH_LOCK(&fs->lock);
		if (f->refs > 1) {
			f->refs--;
			return true;
		}
		{
			WITH_LOCK(&f->lock);
			if (f->registered)
				return false;
		}
		f->refs = 0;
		table_del(fs, f);
	}
	file_free(f);
	return true;
}

bool files_is_last(struct file *f)
{
	WITH_LOCK(&f->e->files->lock);
	return f->refs == 1;
}

/* Under its lock. Who heard of the last name before it went may say so after it:
 * answers come in another order than commits. */
static void set_nlink(struct file *f, uint32_t nlink)
{
	if (f->attr.nlink)
		f->attr.nlink = nlink;
}

void files_set_nlink(struct engine *e, uint64_t fileid, uint32_t nlink)
{
	WITH_LOCK(&e->files->lock);
	for (struct file *f = table_find(e->files, fileid); f; f = f->older) {
		WITH_LOCK(&f->lock);
		set_nlink(f, nlink);
	}
}

int file_create(struct engine *e, const struct attr *a, struct file **ret)
{
	struct file *f;

	WITH_LOCK(&e->files->lock);
	assert(!table_find(e->files, a->fileid)); /* the index gave a new number */
	int r = file_new(e, a->fileid, &f);
	if (r < 0)
		return r;
	f->attr = *a;
	f->place.kind = PLACE_DRAFT;
	f->state = FILE_OPEN;
	f->draft = f->registered = true;
	f->nwriters = 1;
	file_count(f);
	table_add(e->files, f);
	*ret = f;
	return 0;
}

struct file *file_find(struct engine *e, uint64_t fileid)
{
	WITH_LOCK(&e->files->lock);
	struct file *f = table_find(e->files, fileid);
	if (!f)
		return NULL;
	WITH_LOCK(&f->lock);
	if (f->state != FILE_OPEN)
		return NULL;
	f->refs++;
	return f;
}

struct file *file_ref(struct file *f)
{
	WITH_LOCK(&f->e->files->lock);
	f->refs++;
	return f;
}

/* Attributes ------------------------------------------------------------------- */

void file_attr(struct file *f, struct attr *ret)
{
	WITH_LOCK(&f->lock);
	*ret = f->attr;
	/* Small content takes no page of the pool, but who sees no blocks at all
	 * takes a file for a hole. */
	ret->pages = f->small ? f->attr.size > 0 : f->map.npages;
}

void file_set_attr(struct file *f, unsigned mask, const struct attr *a)
{
	WITH_LOCK(&f->lock);
	struct attr *to = &f->attr;
	/* The index has said when, except of a draft, which it does not know. */
	if (!f->draft)
		to->ctime = a->ctime;
	else if (mask & INDEX_SET_CTIME)
		to->ctime = clock_now();
	attr_apply(to, mask, a);
	set_nlink(f, a->nlink);
	to->has_xattrs = a->has_xattrs;
	to->has_default_acl = a->has_default_acl;
}

void file_add_links(struct file *f, int n)
{
	WITH_LOCK(&f->lock);
	if (n < 0 && f->attr.nlink < (uint32_t)-n)
		f->attr.nlink = 0;
	else
		f->attr.nlink = (uint32_t)((int)f->attr.nlink + n);
	if (f->draft)
		f->attr.ctime = clock_now();
}

void file_shown_again(struct file *f, uint32_t nlink)
{
	WITH_LOCK(&f->lock);
	if (!f->draft)
		f->attr.nlink = nlink;
}

bool file_is_draft(struct file *f)
{
	WITH_LOCK(&f->lock);
	return f->draft;
}

void file_place(struct file *f, struct place *ret)
{
	WITH_LOCK(&f->lock);
	*ret = f->place;
}

bool file_is_dirty(struct file *f)
{
	WITH_LOCK(&f->lock);
	return f->dirty;
}

bool file_is_lost(struct file *f)
{
	return f->lost;
}

/* Slices live in segments that hold many: none of them is a descriptor. */
int file_backing_fd(struct file *f)
{
	(void)f;
	return -1;
}

/* Who holds what ---------------------------------------------------------------- */

struct snapshot {
	struct slice_id *v;
	size_t n, cap;
};

static int take_snapshot(struct file *f, struct snapshot *s)
{
	for (uint32_t i = 0; i < f->map.n; i++) {
		const struct region *g = f->map.v[i];
		if (array_room(s->v, s->cap, s->n + g->n, 16) < 0)
			return -ENOMEM;
		for (uint32_t k = 0; k < g->n; k++)
			s->v[s->n++] = g->v[k].hold->id;
	}
	return 0;
}

/* By number, not by reference: ours might be the last, and that is work. */
static int take_ids(struct files *fs, uint64_t **ret, size_t *ret_n)
{
	WITH_LOCK(&fs->lock);
	size_t n = 0;
	uint64_t *v = malloc((HASH_COUNT(fs->table) + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (struct file *f = fs->table; f; f = f->hh.next)
		v[n++] = f->fileid;
	*ret = v;
	*ret_n = n;
	return 0;
}

/* 1: it is closed by now. */
static int look_at(struct files *fs, uint64_t fileid, struct snapshot *s,
		   uint64_t *ret_since, bool *ret_draft)
{
	WITH_LOCK(&fs->lock);
	struct file *f = table_find(fs, fileid);
	int r = !f;
	s->n = 0;
	for (; f && r >= 0; f = f->older) {
		WITH_LOCK(&f->lock);
		*ret_since = f->since_ns; /* of the oldest line */
		*ret_draft = f->draft;
		r = take_snapshot(f, s);
	}
	return r;
}

int files_holders(struct files *fs, files_holder_fn *fn, void *arg)
{
	_cleanup_(freep) uint64_t *ids = NULL;
	struct snapshot s = { 0 };
	size_t n = 0;
	int r = take_ids(fs, &ids, &n);

	for (size_t i = 0; r >= 0 && i < n; i++) {
		uint64_t since = 0;
		bool draft = false;
		r = look_at(fs, ids[i], &s, &since, &draft);
		for (size_t k = 0; !r && k < s.n; k++)
			fn(arg, s.v[k], ids[i], since, draft);
	}
	free(s.v);
	return r < 0 ? r : 0;
}
