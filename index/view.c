/* SPDX-License-Identifier: Apache-2.0 */
/* See view.h. Rows are copied into the request's own memory as they are seen. */
#include "index/view.h"

#include <errno.h>

static const struct bytes session_from = { "a", 1 }, session_to = { "{", 1 };

/* Rows in memory ------------------------------------------------------------ */

static int ordered_view_get(struct view *view, struct bytes key,
			    struct kv_row *ret)
{
	struct view_ordered *v = (struct view_ordered *)view;
	struct ordered_row *row = v->over ? ordered_get(v->over, key) : NULL;

	if (!row)
		row = ordered_get(v->base, key);
	if (!row || row->gone)
		return 1;
	*ret = row->row;
	return 0;
}

/* The next row of both maps, the upper one hiding the lower; NULL at the end. */
static struct ordered_row *next_of(struct ordered_row **base,
				   struct ordered_row **over)
{
	struct ordered_row *b = *base, *o = *over;
	int d;

	if (!b && !o)
		return NULL;
	d = !b ? 1 : !o ? -1 : bytes_cmp(b->row.key, o->row.key);
	if (d <= 0)
		*base = ordered_next(b);
	if (d >= 0)
		*over = ordered_next(o);
	return d < 0 ? b : o;
}

static int ordered_view_scan(struct view *view, struct bytes from,
			     struct bytes to, view_visit *visit, void *arg)
{
	struct view_ordered *v = (struct view_ordered *)view;
	struct ordered_row *base = ordered_at(v->base, from);
	struct ordered_row *over = v->over ? ordered_at(v->over, from) : NULL;
	struct ordered_row *row;

	while ((row = next_of(&base, &over)) &&
	       bytes_cmp(row->row.key, to) < 0) {
		int r = row->gone ? 0 : visit(arg, &row->row);
		if (r)
			return r;
	}
	return 0;
}

struct view_ordered view_of(const struct ordered *base,
			    const struct ordered *over)
{
	return (struct view_ordered){
		.view = { ordered_view_get, ordered_view_scan },
		.base = base,
		.over = over,
	};
}

/* Kinds of keys ------------------------------------------------------------------ */

static unsigned kind_of(struct bytes key)
{
	return kv_key_is_session(key) ? VIEW_SESSION : VIEW_DURABLE;
}

static unsigned kinds_in(struct bytes from, struct bytes to)
{
	unsigned kinds = 0;

	if (bytes_cmp(from, session_to) < 0 && bytes_cmp(session_from, to) < 0)
		kinds |= VIEW_SESSION;
	if (bytes_cmp(from, session_from) < 0 || bytes_cmp(session_to, to) < 0)
		kinds |= VIEW_DURABLE;
	return kinds == (VIEW_SESSION | VIEW_DURABLE) ? VIEW_ANY : kinds;
}

static unsigned compare_kinds(const struct kv_compare *c)
{
	return c->kind == KV_RANGE_EMPTY ? kinds_in(c->key, c->end) : kind_of(c->key);
}

static unsigned read_kinds(const struct kv_read *r)
{
	return r->to.p ? kinds_in(r->from, r->to) : kind_of(r->from);
}

unsigned views_looked_at(const struct kv_req *req)
{
	unsigned kinds = 0;

	for (uint32_t i = 0; i < req->ncompares; i++)
		kinds |= compare_kinds(&req->compares[i]);
	for (uint32_t i = 0; i < req->nreads; i++)
		kinds |= read_kinds(&req->reads[i]);
	return kinds;
}

unsigned views_written(const struct kv_req *req)
{
	unsigned kinds = 0;

	for (uint32_t i = 0; i < req->nwrites; i++)
		kinds |= kind_of(req->writes[i].key);
	return kinds;
}

/* Both kinds of keys ---------------------------------------------------------- */

static int get(const struct views *v, struct bytes key, struct kv_row *ret)
{
	struct view *view = kv_key_is_session(key) ? v->session : v->durable;

	return view->get(view, key, ret);
}

static int scan_run(struct view *view, struct bytes from, struct bytes to,
		    view_visit *visit, void *arg)
{
	if (bytes_cmp(from, to) >= 0)
		return 0;
	return view->scan(view, from, to, visit, arg);
}

static struct bytes least(struct bytes a, struct bytes b)
{
	return bytes_cmp(a, b) < 0 ? a : b;
}

static struct bytes greatest(struct bytes a, struct bytes b)
{
	return bytes_cmp(a, b) < 0 ? b : a;
}

static int scan(const struct views *v, struct bytes from, struct bytes to,
		view_visit *visit, void *arg)
{
	int r = scan_run(v->durable, from, least(to, session_from), visit, arg);

	if (!r)
		r = scan_run(v->session, greatest(from, session_from),
			     least(to, session_to), visit, arg);
	if (!r)
		r = scan_run(v->durable, greatest(from, session_to), to, visit, arg);
	return r;
}

/* Compares ------------------------------------------------------------------- */

static int visit_any(void *arg, const struct kv_row *row)
{
	(void)arg, (void)row;
	return KV_CONFLICT;
}

static int compare(const struct views *v, const struct kv_compare *c)
{
	struct kv_row row;
	bool holds;
	int r;

	if (c->kind == KV_RANGE_EMPTY)
		return scan(v, c->key, c->end, visit_any, NULL);
	r = get(v, c->key, &row);
	if (r < 0)
		return r;
	if (c->kind == KV_REVISION)
		holds = (r ? 0 : row.revision) == c->revision;
	else
		holds = (c->kind == KV_ABSENT) == (r == 1);
	return holds ? KV_DONE : KV_CONFLICT;
}

int views_compare(const struct views *v, const struct kv_req *req, unsigned kinds)
{
	for (uint32_t i = 0; i < req->ncompares; i++) {
		if (!(compare_kinds(&req->compares[i]) & kinds))
			continue;
		int r = compare(v, &req->compares[i]);
		if (r)
			return r;
	}
	return KV_DONE;
}

/* Reads ------------------------------------------------------------------------ */

static int copy_row(struct kv_req *req, const struct kv_row *row,
		    struct kv_row *ret)
{
	uint8_t *p = kv_req_alloc(req, row->key.len + row->value.len + 1);

	if (!p)
		return -ENOMEM;
	memcpy(p, row->key.p, row->key.len);
	if (row->value.len)
		memcpy(p + row->key.len, row->value.p, row->value.len);
	ret->key = BYTES_OF(p, row->key.len);
	ret->value = BYTES_OF(p + row->key.len, row->value.len);
	ret->revision = row->revision;
	return 0;
}

struct collect {
	struct kv_req *req;
	struct kv_rows *rows;
	uint32_t limit, cap;
};

static int visit_collect(void *arg, const struct kv_row *row)
{
	struct collect *c = arg;
	struct kv_rows *rows = c->rows;

	if (rows->nrows == c->limit) {
		rows->more = true;
		return 1;
	}
	if (rows->nrows == c->cap) {
		uint32_t cap = c->cap ? 4 * c->cap : 2;
		struct kv_row *p = kv_req_alloc(c->req, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		if (c->cap)
			memcpy(p, rows->rows, c->cap * sizeof(*p));
		rows->rows = p;
		c->cap = cap;
	}
	int r = copy_row(c->req, row, &rows->rows[rows->nrows]);
	if (r < 0)
		return r;
	rows->nrows++;
	return 0;
}

static int read_one(const struct views *v, struct kv_req *req,
		    const struct kv_read *read, struct kv_rows *ret)
{
	struct kv_row row;
	int r = get(v, read->from, &row);

	if (r)
		return r < 0 ? r : 0;
	ret->rows = kv_req_alloc(req, sizeof(*ret->rows));
	if (!ret->rows)
		return -ENOMEM;
	r = copy_row(req, &row, ret->rows);
	if (r < 0)
		return r;
	ret->nrows = 1;
	return 0;
}

static int read_range(const struct views *v, struct kv_req *req,
		      const struct kv_read *read, struct kv_rows *ret)
{
	struct collect c = { .req = req, .rows = ret, .limit = read->limit };
	int r = scan(v, read->from, read->to, visit_collect, &c);

	return r < 0 ? r : 0;
}

static int read_all(const struct views *v, struct kv_req *req, unsigned kinds)
{
	for (uint32_t i = 0; i < req->nreads; i++) {
		const struct kv_read *read = &req->reads[i];
		int r = 0;

		if (!(read_kinds(read) & kinds))
			continue;
		r = read->to.p ? read_range(v, req, read, &req->rows[i])
			       : read_one(v, req, read, &req->rows[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

int views_read(const struct views *v, struct kv_req *req, unsigned kinds)
{
	if (req->nreads && !req->rows) {
		size_t n = req->nreads * sizeof(*req->rows);

		req->rows = kv_req_alloc(req, n);
		if (!req->rows)
			return -ENOMEM;
		memset(req->rows, 0, n);
	}
	return read_all(v, req, kinds);
}
