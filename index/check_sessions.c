/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_check(): keys of sessions, of however many there are. Who writes what is read
 * first of all, since others ask for it; whether that fits to names and records, when
 * those are known. What is checked, and how repair goes, is said in check.c.
 */
#include <errno.h>

#include "common/cleanup.h"
#include "index/check.h"

/* Reading ----------------------------------------------------------------------------- */

static int writer_cmp(const void *a, const void *b)
{
	const struct check_writer *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (!x->session || !y->session)
		return 0; /* whichever */
	return (x->session > y->session) - (x->session < y->session);
}

struct check_writer *check_writer_find(const struct check *c, uint64_t id, uint64_t session)
{
	struct check_writer key = { .id = id, .session = session };

	return c->nwriters ? bsearch(&key, c->writers, c->nwriters, sizeof(key), writer_cmp)
			   : NULL;
}

int check_get(struct check *c, struct key k, struct kv_req *req)
{
	struct kv_read read = { .from = key_bytes(&k), .limit = 1 };

	*req = (struct kv_req){ .reads = &read, .nreads = 1 };
	int r = kv_wait(c->kv, req);
	if (!r && !req->rows[0].nrows)
		return INDEX_MISS;
	return r > 0 ? -EIO : r;
}

static int writers_add(struct check *c, struct check_writer w)
{
	if (c->nwriters == c->writers_cap) {
		size_t cap = c->writers_cap ? 2 * c->writers_cap : 64;
		struct check_writer *v = realloc(c->writers, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		c->writers = v;
		c->writers_cap = cap;
	}
	c->writers[c->nwriters++] = w;
	return 0;
}

static int check_writer_row(void *arg, const struct kv_row *row)
{
	_cleanup_(writer_state_fini) struct writer_state s = { 0 };
	struct check *c = arg;
	uint64_t id;
	int r = key_parse_id(row->key, 'w', &id);

	if (!r)
		r = writer_state_decode(row->value, &s);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	if (id > c->max_id)
		c->max_id = id;
	return writers_add(c, (struct check_writer){
		.id = id, .session = kv_key_session(row->key), .draft = s.draft,
		.place = s.place, .nnames = s.nnames,
	});
}

int check_writers(struct check *c)
{
	return walk_kind(c->kv, 'w', check_writer_row, c);
}

/* Draft names --------------------------------------------------------------------------- */

/* Does a key of this kind give the name another h, or its h to another name? */
static int name_clashes(struct check *c, char kind, const struct name_key *k, bool *ret)
{
	uint64_t base = h_hash(k->h);
	struct key from = key_prefix_h(kind, k->parent, base);
	struct key to = key_prefix_end(key_prefix_h(kind, k->parent, base + NAME_STEP - 1));
	struct kv_read read = { key_bytes(&from), key_bytes(&to), UINT32_MAX };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	int r = kv_wait(c->kv, &req);

	for (uint32_t i = 0; !r && i < req.rows[0].nrows; i++) {
		struct name_key other;
		if (!key_parse_name(req.rows[0].rows[i].key, &other) &&
		    bytes_eq(other.name, k->name) != (other.h == k->h))
			*ret = true;
	}
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static void complain_draft(struct check *c, const struct kv_row *row, const struct name_key *k,
			   const char *what)
{
	char shown[SHOWN_MAX];

	complain(c, "draft name %s in directory %llu%s", show_name(k->name, shown),
		 (unsigned long long)k->parent, what);
	fix_del(c, row->key);
}

static int check_draft_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct check_object *parent;
	struct check_writer *w;
	struct name_key k;
	uint64_t id;
	char what[64];
	bool clash = false;
	int r = key_parse_name(row->key, &k);

	if (!r)
		r = number_decode(row->value, &id);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	parent = check_object_find(c, k.parent);
	w = check_writer_find(c, id, k.session);
	if (!parent || !S_ISDIR(parent->type)) {
		complain_draft(c, row, &k, ": that is no directory");
	} else if (!w || !w->draft) {
		snprintf(what, sizeof(what), ": nobody writes its object, %llu",
			 (unsigned long long)id);
		complain_draft(c, row, &k, what);
	} else {
		w->nfound++;
		r = name_clashes(c, 'D', &k, &clash);
		if (!r)
			r = name_clashes(c, 'n', &k, &clash);
		if (!r && clash)
			complain_draft(c, row, &k, " lies where another name does");
	}
	return r;
}

/* Writers --------------------------------------------------------------------------------- */

static void complain_writer(struct check *c, const struct check_writer *w, const char *what)
{
	struct key k = key_writer(w->id, w->session);

	complain(c, "object %llu, as session %llu writes it, %s", (unsigned long long)w->id,
		 (unsigned long long)w->session, what);
	fix_del(c, key_bytes(&k));
}

/* Is the record with the name at this place? */
static int record_is_at(struct check *c, uint64_t id, struct place place, bool *ret)
{
	struct key from = key_prefix_h('D', place.parent, place.h), to = key_prefix_end(from);
	struct kv_read read = { key_bytes(&from), key_bytes(&to), 1 };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	struct record rec;
	int r = kv_wait(c->kv, &req);

	*ret = !r && req.rows[0].nrows && !record_decode(req.rows[0].rows[0].value, &rec) &&
	       rec.kind == RECORD_WHOLE && rec.attr.fileid == id;
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static int check_place(struct check *c, const struct check_writer *w)
{
	bool is = true;
	int r = 0;

	switch (w->place.kind) {
	case PLACE_NAME:
		r = record_is_at(c, w->id, w->place, &is);
		break;
	case PLACE_FILEID:
		is = check_object_find(c, w->id);
		break;
	default:
		is = !check_exists(c, w->id);
	}
	if (!r && !is)
		complain_writer(c, w, "is somewhere else");
	return r;
}

/* The names that it knows are its; then it knows all of them, if they are as many. */
static int check_known_names(struct check *c, const struct check_writer *w)
{
	_cleanup_(writer_state_fini) struct writer_state s = { 0 };
	_cleanup_(kv_req_fini) struct kv_req req = { 0 };
	int r = check_get(c, key_writer(w->id, w->session), &req);
	bool all = w->nfound == w->nnames;

	if (!r)
		r = writer_state_decode(req.rows[0].rows[0].value, &s);
	for (uint32_t i = 0; !r && all && i < s.nnames; i++) {
		_cleanup_(kv_req_fini) struct kv_req row = { 0 };
		const struct writer_name *n = &s.names[i];
		uint64_t id;
		int got = check_get(c, key_draft_name(n->parent, n->h, n->name, w->session), &row);
		all = !got && !number_decode(row.rows[0].rows[0].value, &id) && id == w->id;
		r = got < 0 ? got : 0;
	}
	if (!r && !all)
		complain_writer(c, w, "has other draft names than it knows");
	return r == INDEX_MISS ? 0 : r;
}

static int check_writer(struct check *c, size_t i)
{
	const struct check_writer *w = &c->writers[i];

	if (!w->draft)
		return check_place(c, w);
	if ((i && w[-1].id == w->id) || (i + 1 < c->nwriters && w[1].id == w->id))
		complain_writer(c, w, "is a draft, and written by another one");
	else if (check_exists(c, w->id))
		complain_writer(c, w, "is a draft, and published");
	else
		return check_known_names(c, w);
	return 0;
}

int check_drafts(struct check *c)
{
	int r = walk_kind(c->kv, 'n', check_draft_row, c);

	for (size_t i = 0; !r && i < c->nwriters; i++)
		r = check_writer(c, i);
	return r;
}

/* The rest -------------------------------------------------------------------------------- */

static int has_draft_in(struct check *c, uint64_t dir, uint64_t session, bool *ret)
{
	struct key from = key_prefix('n', dir), to = key_prefix_end(from);
	struct kv_read read = { key_bytes(&from), key_bytes(&to), UINT32_MAX };
	struct kv_req req = { .reads = &read, .nreads = 1 };
	int r = kv_wait(c->kv, &req);

	for (uint32_t i = 0; !r && i < req.rows[0].nrows; i++)
		*ret |= kv_key_session(req.rows[0].rows[i].key) == session;
	kv_req_fini(&req);
	return r > 0 ? -EIO : r;
}

static int check_draft_times_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct dir_times t;
	uint64_t id;
	bool any = false;
	int r = key_parse_id(row->key, 't', &id);

	if (!r)
		r = dir_times_decode(row->value, &t);
	if (r < 0) {
		complain_undecodable(c, row, r);
		return 0;
	}
	r = has_draft_in(c, id, kv_key_session(row->key), &any);
	if (!r && !any) {
		complain(c, "times of directory %llu in session %llu, which has no draft there",
			 (unsigned long long)id, (unsigned long long)kv_key_session(row->key));
		fix_del(c, row->key);
	}
	return r;
}

static int check_draft_xattr_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	struct bytes name;
	uint64_t id;

	if (!check_read_xattr(c, row, &id, &name))
		return 0;
	const struct check_writer *w = check_writer_find(c, id, kv_key_session(row->key));
	char shown[SHOWN_MAX];
	if (!w || !w->draft) {
		complain(c, "attribute %s of draft %llu, which is none", show_name(name, shown),
			 (unsigned long long)id);
		fix_del(c, row->key);
	}
	return 0;
}

static int check_note_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	_cleanup_(freep) uint64_t *ids = NULL;
	uint64_t id, number;
	uint32_t n;
	int r = key_parse_block(row->key, &id, &number);

	if (!r)
		r = note_decode(row->value, &ids, &n);
	/* Of blocks that may be there or not, of an object that may. */
	if (r < 0)
		complain_undecodable(c, row, r);
	return 0;
}

static int check_hides_row(void *arg, const struct kv_row *row)
{
	struct check *c = arg;
	uint64_t id, parent, h;
	int r = key_parse_hides(row->key, &id, &parent, &h);

	if (!r && row->value.len)
		r = -EUCLEAN;
	/* What it says may be over. */
	if (r < 0)
		complain_undecodable(c, row, r);
	return 0;
}

int check_session_rest(struct check *c)
{
	int r = walk_kind(c->kv, 't', check_draft_times_row, c);

	if (!r)
		r = walk_kind(c->kv, 'x', check_draft_xattr_row, c);
	if (!r)
		r = walk_kind(c->kv, 'h', check_hides_row, c);
	return r ? r : walk_kind(c->kv, 'b', check_note_row, c);
}
