/* SPDX-License-Identifier: Apache-2.0 */
/* uses_check(): what uses.h promises, of all that the index has. For tests. */
#include <stdlib.h>

#include "common/array.h"
#include "common/clock.h"
#include "engine/uses.h"
#include "engine/violations.h"

enum { PAGES_EXACT = 2048 }; /* more are counted about */

struct below { /* what is in a directory, itself */
	struct index_dir dir;
	uint64_t pages;
};

struct check {
	struct uses *u;
	struct policy *policy;
	uint64_t objects, pages;
	struct below *dirs;
	size_t ndirs, cap;
	struct violations found;
};

static struct below *find_dir(struct check *c, uint64_t dir)
{
	for (size_t i = 0; i < c->ndirs; i++)
		if (c->dirs[i].dir.dir == dir)
			return &c->dirs[i];
	return NULL;
}

static int note_dir(void *arg, const struct index_dir *d)
{
	struct check *c = arg;
	int r = array_room(c->dirs, c->cap, c->ndirs + 1, 16);

	if (!r)
		c->dirs[c->ndirs++] = (struct below){ .dir = *d };
	return r;
}

static void check_object(struct check *c, const struct index_row *row)
{
	unsigned long long fileid = row->attr.fileid;
	struct policy_object o;
	int64_t pinned = row->attr.keep.pinned, now = clock_now().tv_sec;
	bool known = policy_get(c->policy, fileid, &o);

	if (known) {
		c->objects++;
		c->pages += o.pages;
	}
	if (pinned > now && known)
		violation(&c->found, "object %llu is pinned, and the policy has it", fileid);
	/* What is not pinned any more comes when its end has its turn. */
	if (pinned || !known) {
		if (!pinned)
			violation(&c->found, "object %llu is not known to the policy", fileid);
		return;
	}
	if (o.parent != row->name.parent ||
	    o.h >> POLICY_H_LOW != row->name.h >> POLICY_H_LOW)
		violation(&c->found, "object %llu is known where it is not", fileid);
	if (row->attr.pages <= PAGES_EXACT && o.pages != row->attr.pages)
		violation(&c->found, "object %llu has %llu pages, and is known with %u", fileid,
			  (unsigned long long)row->attr.pages, o.pages);
}

static void check_name(struct check *c, const struct index_row *row)
{
	unsigned long long fileid = row->attr.fileid;
	struct index_name *names = NULL;
	int n = uses_names(c->u, fileid, &names), found = 0;

	for (int i = 0; i < n; i++)
		found += names[i].parent == row->name.parent && names[i].h == row->name.h;
	free(names);
	if (found != 1)
		violation(&c->found, "a name of object %llu is known %d times", fileid, found);
}

static int check_row(void *arg, const struct index_row *row)
{
	struct check *c = arg;
	struct below *d = row->is_record && row->is_name ? find_dir(c, row->name.parent) : NULL;

	if (!row->is_record)
		check_name(c, row);
	else
		check_object(c, row);
	if (row->is_record && row->is_name && !d)
		violation(&c->found, "object %llu is in no directory",
			  (unsigned long long)row->attr.fileid);
	for (; d; d = d->dir.dir == INDEX_ROOT ? NULL : find_dir(c, d->dir.parent))
		d->pages += row->attr.pages;
	return 0;
}

static int check_number_of_names(void *arg, const struct index_row *row)
{
	struct check *c = arg;
	struct index_name *names = NULL;

	if (!row->is_record || row->is_name)
		return 0;
	int n = uses_names(c->u, row->attr.fileid, &names);
	free(names);
	if (n != (int)row->attr.nlink)
		violation(&c->found, "object %llu has %u names, of which %d are known",
			  (unsigned long long)row->attr.fileid, row->attr.nlink, n);
	return 0;
}

static void check_sums(struct check *c)
{
	struct policy_stat st;

	policy_stat(c->policy, &st);
	uint64_t objects = st.objects[POLICY_PAGES] + st.objects[POLICY_BARE];
	if (objects != c->objects || st.pages != c->pages)
		violation(&c->found, "the policy has %llu objects of %llu pages, the index %llu "
			  "of %llu",
			  (unsigned long long)objects, (unsigned long long)st.pages,
			  (unsigned long long)c->objects, (unsigned long long)c->pages);
	for (size_t i = 0; i < c->ndirs; i++) {
		const struct below *d = &c->dirs[i];
		uint64_t is = uses_below(c->u, d->dir.dir), should = d->dir.quota ? d->pages : 0;
		if (is != should)
			violation(&c->found, "directory %llu has %llu pages below it, and is "
				  "known with %llu",
				  (unsigned long long)d->dir.dir, (unsigned long long)should,
				  (unsigned long long)is);
	}
}

int uses_check(struct uses *u, struct policy *p, struct index *ix, struct writer *report)
{
	struct check c = { .u = u, .policy = p, .found.report = report };
	int r = index_all_dirs(ix, note_dir, &c);

	if (!r)
		r = index_all_objects(ix, check_row, &c);
	if (!r)
		r = index_all_objects(ix, check_number_of_names, &c);
	while (uses_count_more(u))
		;
	if (!r)
		check_sums(&c);
	free(c.dirs);
	return r < 0 ? r : c.found.n + policy_check(p, report);
}
