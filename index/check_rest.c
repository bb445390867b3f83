/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_check(): what belongs to objects and directories beside their records:
 * attributes, times, counts, blocks; and the superblock. What is checked, and how
 * repair goes, is said in check.c.
 */
#include <errno.h>

#include "index/check.h"

/* Before the objects ------------------------------------------------------------ */

/* Rows come in order of their ids. */
static int ids_add_next(struct check_ids *t, uint64_t id)
{
	return t->n && t->v[t->n - 1].id == id ? 0 : check_ids_add(t, id);
}

bool check_read_xattr(struct check *c, const struct kv_row *row, uint64_t *ret_id,
		      struct bytes *ret_name)
{
	struct bytes value;
	int r = key_parse_xattr(row->key, ret_id, ret_name);

	if (!r)
		r = xattr_decode(row->value, &value);
	if (r < 0)
		complain_undecodable(c, row, r);
	return r >= 0;
}

static int check_owner_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct bytes name;
	uint64_t id;

	return check_read_xattr(c, row, &id, &name) ? ids_add_next(&c->owners, id) : 0;
}

int check_owners(struct check *c)
{
	return walk_kind(c->kv, 'X', check_owner_row, c);
}

/* What belongs to an object ------------------------------------------------------- */

static struct check_object *find_dir(const struct check *c, uint64_t id)
{
	struct check_object *o = check_object_find(c, id);

	return o && S_ISDIR(o->type) ? o : NULL;
}

static int check_ndirs_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	uint64_t id, n;
	int r = key_parse_id(row->key, 'L', &id);

	if (!r)
		r = number_decode(row->value, &n);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	struct check_object *dir = find_dir(c, id);
	if (!dir) {
		complain(c, "a count of directories in %llu, which is none",
			 (unsigned long long)id);
		fix_del(c, row->key);
		return 0;
	}
	if (n != dir->ndirs) {
		complain(c, "directory %llu has %llu directories, its count says %llu",
			 (unsigned long long)id, (unsigned long long)dir->ndirs,
			 (unsigned long long)n);
		if (dir->ndirs)
			fix_put_encoded(c, row->key, number_encode, dir->ndirs);
		else
			fix_del(c, row->key);
	}
	dir->ndirs = 0; /* done with it; what is left has no count */
	return 0;
}

static void check_ndirs_missing(struct check *c)
{
	for (size_t i = 0; i < c->nobjects; i++) {
		const struct check_object *o = &c->objects[i];
		struct key key = key_ndirs(o->id);
		if (!S_ISDIR(o->type) || !o->ndirs)
			continue;
		complain(c, "directory %llu has %llu directories, its count says 0",
			 (unsigned long long)o->id, (unsigned long long)o->ndirs);
		fix_put_encoded(c, key_bytes(&key), number_encode, o->ndirs);
	}
}

static int check_times_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct dir_times t;
	uint64_t id;
	int r = key_parse_id(row->key, 'T', &id);

	if (!r)
		r = dir_times_decode(row->value, &t);
	if (r < 0) {
		complain_undecodable(c, row, r);
	} else if (!find_dir(c, id)) {
		complain(c, "times of directory %llu, which is none", (unsigned long long)id);
		fix_del(c, row->key);
	}
	return 0;
}

static int check_xattr_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	char shown[SHOWN_MAX];
	struct bytes name;
	uint64_t id;

	if (key_parse_xattr(row->key, &id, &name) || check_exists(c, id))
		return 0;
	complain(c, "attribute %s of object %llu, which is not there", show_name(name, shown),
		 (unsigned long long)id);
	fix_del(c, row->key);
	return 0;
}

int check_counts(struct check *c)
{
	int r = walk_kind(c->kv, 'L', check_ndirs_row, c);

	if (!r)
		check_ndirs_missing(c);
	if (!r)
		r = walk_kind(c->kv, 'T', check_times_row, c);
	return r ? r : walk_kind(c->kv, 'X', check_xattr_row, c);
}

/* Blocks ----------------------------------------------------------------------------- */

static int check_block_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	uint64_t fileid, id;
	int r = key_parse_block(row->key, &fileid, &id);

	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	if (id > c->max_id)
		c->max_id = id;
	if (c->stopped || blockset_has(&c->blocks, fileid, id))
		return 0;
	/* Whoever is writing the object may be about to publish it, and who has
	 * unlinked it to delete it. */
	if (!c->repair && (check_writer_find(c, fileid, 0) || check_ids_find(&c->gone, fileid)))
		return 0;
	complain(c, "block %llu of object %llu is not referred to", (unsigned long long)id,
		 (unsigned long long)fileid);
	fix_del(c, row->key);
	return 0;
}

static int check_gone_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct body body;
	uint64_t fileid, note;
	int r = key_parse_gone(row->key, &fileid, &note);

	if (!r)
		r = gone_decode(row->value, &body);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	return ids_add_next(&c->gone, fileid);
}

/* A body that refers to one block twice cannot be told from damage: which of the
 * two places was meant nobody knows. It is reported, and left to its owner. */
static void check_blocks_once(struct check *c)
{
	const struct blockset *s = &c->blocks;

	for (size_t i = 1; i < s->n; i++)
		if (!blockset_cmp(&s->v[i - 1], &s->v[i]))
			complain(c, "block %llu of object %llu is referred to twice",
				 (unsigned long long)s->v[i].id,
				 (unsigned long long)s->v[i].fileid);
}

int check_blocks(struct check *c)
{
	blockset_sort(&c->blocks);
	check_blocks_once(c);
	int r = walk_kind(c->kv, 'g', check_gone_row, c);
	return r ? r : walk_kind(c->kv, 'E', check_block_row, c);
}

/* The whole ---------------------------------------------------------------------------- */

struct meta {
	struct check *c;
	bool has_super, has_next;
};

static int check_meta_row(void *arg, const struct kv_row *row)
{
	struct meta *m = arg;
	struct key super = key_meta("super"), next = key_meta("next"), disk = key_meta("disk");
	struct index_super s;
	uint64_t n;
	int r = -EUCLEAN;

	if (bytes_eq(row->key, key_bytes(&super))) {
		r = super_decode(row->value, &s);
		m->has_super = !r;
	} else if (bytes_eq(row->key, key_bytes(&disk))) {
		r = number_decode(row->value, &n);
	} else if (bytes_eq(row->key, key_bytes(&next))) {
		r = number_decode(row->value, &n);
		m->has_next = !r;
		if (!r && n <= m->c->max_id) {
			complain(m->c, "the next number is %llu, and %llu is in use",
				 (unsigned long long)n, (unsigned long long)m->c->max_id);
			fix_put_encoded(m->c, row->key, number_encode, m->c->max_id + 1);
		}
	}
	if (r < 0)
		complain_undecodable(m->c, row, r);
	return 0;
}

static int check_foreign_row(void *arg, const struct kv_row *row)
{
	complain_undecodable(arg, row, -EUCLEAN);
	return 0;
}

int check_meta(struct check *c)
{
	struct meta m = { .c = c };
	int r = walk_kind(c->kv, 'M', check_meta_row, &m);

	if (!r && !m.has_super)
		complain(c, "there is no superblock");
	if (!r && !m.has_next) {
		struct key next = key_meta("next");
		complain(c, "there is no next number");
		fix_put_encoded(c, key_bytes(&next), number_encode, c->max_id + 1);
	}
	for (char kind = 'A'; !r && kind <= 'Z'; kind++)
		if (!strchr("DEFLMTX", kind))
			r = walk_kind(c->kv, kind, check_foreign_row, c);
	for (char kind = 'a'; !r && kind <= 'z'; kind++)
		if (!strchr("bghntwx", kind))
			r = walk_kind(c->kv, kind, check_foreign_row, c);
	return r;
}
