/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_check(): objects under F, names under D with the objects in them, and the
 * tree that they form. What is checked, and how repair
 * goes, is said in check.c.
 */
#include <errno.h>

#include "common/array.h"
#include "index/check.h"

/* Objects --------------------------------------------------------------------- */

struct body_count {
	struct check *c;
	uint64_t pages;
};

static int count_extents(void *arg, const struct attr *a, const struct extents *e)
{
	struct body_count *b = arg;

	(void)a;
	for (uint32_t i = 0; i < e->n; i++)
		b->pages += e->v[i].npages;
	return 0;
}

static int count_block(void *arg, uint64_t fileid, uint64_t id)
{
	struct body_count *b = arg;

	if (id > b->c->max_id)
		b->c->max_id = id;
	return blockset_add(&b->c->blocks, fileid, id);
}

/* What of a record can be set right. */
static void record_mend(struct check *c, struct record *rec, uint64_t pages)
{
	struct attr *a = &rec->attr;
	unsigned long long id = a->fileid;

	if (rec->body.kind >= BODY_EXTENTS && a->pages != pages) {
		complain(c, "object %llu has %llu pages, its record says %llu", id,
			 (unsigned long long)pages, (unsigned long long)a->pages);
		a->pages = pages;
	}
	if (rec->body.kind == BODY_INLINE && a->size != rec->body.bytes.len) {
		complain(c, "object %llu has %zu bytes, its record says %llu", id,
			 rec->body.bytes.len, (unsigned long long)a->size);
		a->size = rec->body.bytes.len;
	}
	if (!a->has_xattrs && check_ids_find(&c->owners, a->fileid)) {
		complain(c, "object %llu has extended attributes, its record says none", id);
		a->has_xattrs = true;
	}
}

/* A copy that cannot be one is done without: the object is in memory. */
static int copy_mend(struct check *c, struct record *rec)
{
	struct body_count count = { .c = c };
	struct body_visitor v = { .extents = count_extents, .arg = &count };
	int r;

	if (!rec->copy.len)
		return 0;
	r = walk_body(c->ix, &rec->attr, &(struct body){ BODY_EXTENTS, rec->copy }, &v);
	if (r && r != -EUCLEAN)
		return r;
	if (r || count.pages != rec->attr.pages) {
		complain(c, "what object %llu has on the disk is no copy of it",
			 (unsigned long long)rec->attr.fileid);
		rec->copy = BYTES_NONE;
	}
	return 0;
}

/* A whole record, wherever it is. 0; 1: it was deleted; negative. */
static int object_check(struct check *c, const struct kv_row *row, struct record *rec)
{
	struct body_count count = { .c = c };
	struct body_visitor v = { .extents = count_extents, .block = count_block, .arg = &count };
	size_t nblocks = c->blocks.n;
	int r = walk_body(c->ix, &rec->attr, &rec->body, &v);

	if (rec->attr.fileid > c->max_id)
		c->max_id = rec->attr.fileid;
	if (r == -EUCLEAN || r == -EPROTONOSUPPORT) {
		complain(c, "the body of object %llu does not decode",
			 (unsigned long long)rec->attr.fileid);
		fix_del(c, row->key);
		c->blocks.n = nblocks; /* they are orphans now */
		return 1;
	}
	unsigned found = c->found;
	if (!r)
		r = copy_mend(c, rec);
	if (!r)
		record_mend(c, rec, count.pages);
	if (!r && c->found != found)
		fix_put_encoded(c, row->key, record_encode, rec);
	return r;
}

static int objects_add(struct check *c, struct check_object o)
{
	if (array_room(c->objects, c->objects_cap, c->nobjects + 1, 64) < 0)
		return -ENOMEM;
	c->objects[c->nobjects++] = o;
	return 0;
}

static int check_file_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct record rec;
	uint64_t id;
	int r = key_parse_id(row->key, 'F', &id);

	if (!r)
		r = record_decode(row->value, &rec);
	if (!r && (rec.kind != RECORD_WHOLE || rec.attr.fileid != id))
		r = -EUCLEAN;
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	r = object_check(c, row, &rec);
	if (r)
		return r < 0 ? r : 0;
	return objects_add(c, (struct check_object){
		.id = id, .parent = rec.parent, .nlink = rec.attr.nlink,
		.type = rec.attr.mode & S_IFMT, .rooted = id == INDEX_ROOT,
	});
}

int check_files(struct check *c)
{
	return walk_kind(c->kv, 'F', check_file_row, c);
}

/* Names: where they are ------------------------------------------------------------ */

struct names {
	struct check *c;
	uint64_t parent, h; /* of the name before */
};

/* The published keys of one name's hash in one directory that there are. */
struct slots {
	bool taken[NAME_SLOTS];
	uint64_t same; /* the h of a key with this very name, or 0 */
};

static int slots_read(struct check *c, uint64_t parent, uint64_t base,
		      struct bytes name, struct slots *s)
{
	struct key from = key_prefix_h('D', parent, base);
	struct key to = key_prefix_end(key_prefix_h('D', parent, base + NAME_STEP - 1));
	struct kv_read read = { key_bytes(&from), key_bytes(&to), 2 * NAME_SLOTS };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	int r = kv_wait(c->kv, &req);

	for (uint32_t i = 0; !r && i < req.rows[0].nrows; i++) {
		struct name_key k;
		if (key_parse_name(req.rows[0].rows[i].key, &k))
			continue;
		s->taken[k.h % NAME_STEP] = true;
		if (bytes_eq(k.name, name))
			s->same = k.h;
	}
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

/* Gives a name that lies wrong the place where a lookup finds it; if the very name
 * is there already, that is the one that counts. */
static int name_move(struct check *c, const struct kv_row *row, const struct name_key *k,
		     uint64_t base)
{
	struct slots s = { .same = 0 };
	unsigned slot = 0;

	if (!c->repair)
		return 0;
	int r = slots_read(c, k->parent, base, k->name, &s);
	if (r < 0)
		return r;
	while (slot < NAME_SLOTS && s.taken[slot])
		slot++;
	if ((s.same && s.same != k->h) || slot == NAME_SLOTS) {
		fix_del(c, row->key);
		return 0;
	}
	struct key to = key_name(k->parent, base + slot, k->name);
	fix_move(c, row->key, key_bytes(&to), row->value);
	return 0;
}

/* 0: it is where it should be, or negative; 1: it was not. */
static int name_check_place(struct names *n, const struct kv_row *row, const struct name_key *k)
{
	struct check *c = n->c;
	uint64_t base = name_hash(index_super(c->ix)->hash_key, k->name);
	bool taken = n->parent == k->parent && n->h == k->h;
	char shown[SHOWN_MAX];

	n->parent = k->parent;
	n->h = k->h;
	if (h_hash(k->h) == base && !taken)
		return 0;
	complain(c, "name %s in directory %llu lies %s", show_name(k->name, shown),
		 (unsigned long long)k->parent,
		 taken ? "where another one does" : "where its hash is not");
	int r = name_move(c, row, k, base);
	return r < 0 ? r : 1;
}

/* Names: what they refer to ---------------------------------------------------------- */

static void complain_name(struct check *c, const struct name_key *k, uint64_t id,
			  const char *what)
{
	char shown[SHOWN_MAX];

	complain(c, "name %s in directory %llu: object %llu %s", show_name(k->name, shown),
		 (unsigned long long)k->parent, (unsigned long long)id, what);
}

/* The record is with the name. */
static int name_check_whole(struct check *c, const struct kv_row *row, const struct name_key *k,
			    struct record *rec)
{
	uint64_t id = rec->attr.fileid;

	if (S_ISDIR(rec->attr.mode)) {
		complain_name(c, k, id, "is a directory and lies with its name");
		fix_del(c, row->key);
		return 0;
	}
	if (check_object_find(c, id)) {
		complain_name(c, k, id, "is there twice");
		fix_del(c, row->key);
		return 0;
	}
	int r = object_check(c, row, rec);
	if (r)
		return r < 0 ? r : 0;
	if (rec->attr.nlink != 1) {
		complain_name(c, k, id, "has one name and another link count");
		rec->attr.nlink = 1;
		fix_put_encoded(c, row->key, record_encode, rec);
	}
	return check_ids_add(&c->files, id);
}

/* Does a directory's record say that it is here? */
static int dir_is_here(struct check *c, const struct name_key *k, uint64_t id, bool *ret)
{
	struct key key = key_file(id);
	struct kv_read read = { .from = key_bytes(&key), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;
	int r = kv_wait(c->kv, &req);

	*ret = !r && req.rows[0].nrows && !record_decode(req.rows[0].rows[0].value, &rec) &&
	       rec.parent == k->parent && bytes_eq(rec.name, k->name);
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static int name_check_ref(struct check *c, const struct kv_row *row, const struct name_key *k,
			  struct record *rec)
{
	struct check_object *o = check_object_find(c, rec->attr.fileid);
	bool here = true;
	int r = 0;

	if (!o || o->id == INDEX_ROOT) {
		complain_name(c, k, rec->attr.fileid, o ? "is the root" : "is not there");
		fix_del(c, row->key);
		return 0;
	}
	if ((rec->attr.mode & S_IFMT) != o->type) {
		complain_name(c, k, o->id, "is of another type");
		rec->attr.mode = o->type;
		fix_put_encoded(c, row->key, record_encode, rec);
	}
	o->nrefs++;
	if (S_ISDIR(o->type)) {
		r = dir_is_here(c, k, o->id, &here);
		o->nright += here;
		struct check_object *parent = check_object_find(c, k->parent);
		if (parent)
			parent->ndirs++;
	}
	return r;
}

static int check_name_row(void *arg, const struct kv_row *row)
{
	struct names *n = arg;
	struct check *c = n->c;
	struct name_key k;
	struct record rec;
	int r = key_parse_name(row->key, &k);

	if (!r)
		r = record_decode(row->value, &rec);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	struct check_object *parent = check_object_find(c, k.parent);
	if (!parent || !S_ISDIR(parent->type)) {
		complain_name(c, &k, k.parent, "is no directory");
		fix_del(c, row->key);
		return 0;
	}
	r = name_check_place(n, row, &k);
	if (r < 0 || (r && c->repair)) /* the next round sees it in its place */
		return r < 0 ? r : 0;
	return rec.kind == RECORD_REF ? name_check_ref(c, row, &k, &rec)
				      : name_check_whole(c, row, &k, &rec);
}

/* The tree ---------------------------------------------------------------------------- */

/* A second look at the names, once all is counted: of directories that have
 * several, or that say another one; and of objects that are there twice. */
static int fix_ref(struct check *c, const struct kv_row *row, const struct name_key *k,
		   const struct record *ref)
{
	struct check_object *o = check_object_find(c, ref->attr.fileid);
	bool here;

	if (!o || !S_ISDIR(o->type) || o->id == INDEX_ROOT || (o->nrefs == 1 && o->nright == 1))
		return 0;
	int r = dir_is_here(c, k, o->id, &here);
	if (r < 0 || here)
		return r;
	if (o->nrefs > 1) {
		complain_name(c, k, o->id, "is a directory of another name, too");
		fix_del(c, row->key);
		o->nrefs--;
		return 0;
	}
	complain_name(c, k, o->id, "is a directory and says another name");
	struct key key = key_file(o->id);
	struct kv_read read = { .from = key_bytes(&key), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;
	r = kv_wait(c->kv, &req);
	if (!r && req.rows[0].nrows && !record_decode(req.rows[0].rows[0].value, &rec)) {
		rec.parent = k->parent;
		rec.name = k->name;
		fix_put_encoded(c, key_bytes(&key), record_encode, &rec);
	}
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static int fix_name_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct name_key k;
	struct record rec;

	if (key_parse_name(row->key, &k) || record_decode(row->value, &rec))
		return 0;
	if (rec.kind == RECORD_REF)
		return fix_ref(c, row, &k, &rec);
	struct check_id *f = check_ids_find(&c->files, rec.attr.fileid);
	if (!f)
		return 0;
	if (f->seen) {
		complain_name(c, &k, f->id, "is there twice");
		fix_del(c, row->key);
	}
	f->seen = true;
	return 0;
}

int check_names(struct check *c)
{
	struct names n = { .c = c };
	int r = walk_kind(c->kv, 'D', check_name_row, &n);

	check_ids_sort(&c->files);
	return r ? r : walk_kind(c->kv, 'D', fix_name_row, c);
}

/* Do the parents of o lead to the root? Marks all on the way that do. */
static bool lead_to_root(struct check *c, struct check_object *o)
{
	struct check_object *at = o;

	for (size_t n = 0; at && !at->rooted; n++) {
		if (n > c->nobjects || !S_ISDIR(at->type))
			return false;
		at = check_object_find(c, at->parent);
	}
	if (!at)
		return false;
	for (; !o->rooted; o = check_object_find(c, o->parent))
		o->rooted = true;
	return true;
}

static void object_check_refs(struct check *c, struct check_object *o)
{
	unsigned long long id = o->id;
	struct key key = key_file(o->id);

	if (!o->nrefs && o->id != INDEX_ROOT) {
		complain(c, "object %llu has no name", id);
		fix_del(c, key_bytes(&key));
	} else if (S_ISDIR(o->type) && !lead_to_root(c, o)) {
		complain(c, "directory %llu does not lie below the root", id);
		fix_del(c, key_bytes(&key));
	}
}

/* Sets the link count of an F record to what was counted. */
static int fix_nlink(struct check *c, const struct check_object *o)
{
	struct key key = key_file(o->id);
	struct kv_read read = { .from = key_bytes(&key), .limit = 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;
	int r = kv_wait(c->kv, &req);

	if (!r && req.rows[0].nrows && !record_decode(req.rows[0].rows[0].value, &rec)) {
		rec.attr.nlink = o->nrefs;
		fix_put_encoded(c, key_bytes(&key), record_encode, &rec);
	}
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

int check_tree(struct check *c)
{
	struct check_object *root = check_object_find(c, INDEX_ROOT);
	int r = 0;

	if (!root || !S_ISDIR(root->type))
		complain(c, "there is no root directory");
	for (size_t i = 0; !r && i < c->nobjects; i++) {
		struct check_object *o = &c->objects[i];
		object_check_refs(c, o);
		if (!S_ISDIR(o->type) && o->nrefs && o->nlink != o->nrefs) {
			complain(c, "object %llu has %u names, its record says %u",
				 (unsigned long long)o->id, o->nrefs, o->nlink);
			r = fix_nlink(c, o);
		}
	}
	return r;
}
