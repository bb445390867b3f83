/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index engine in memory: two ordered maps and a lock. Each request is done
 * whole in kv_submit(), one at a time; done() is called there too, unlocked.
 */
#include <errno.h>

#include "common/lock.h"
#include "common/metrics.h"
#include "index/view.h"

struct mem {
	struct kv kv;

	struct lock lock; /* guards all below */
	struct ordered durable, session;
	uint64_t revision; /* the last one given */
	uint64_t bytes;    /* of durable keys and values */
};

static struct mem *mem_of(struct kv *kv)
{
	return (struct mem *)kv;
}

static void rows_clear(struct ordered *rows)
{
	ordered_clear(rows);
}

/* Makes the rows of all writes; the last one for a key counts. */
static int make_rows(const struct kv_req *req, uint64_t revision,
		     struct ordered *ret_durable, struct ordered *ret_session)
{
	for (uint32_t i = 0; i < req->nwrites; i++) {
		const struct kv_write *w = &req->writes[i];
		struct ordered_row *row;
		int r = ordered_row_new(w->key, w->value, revision, &row);

		if (r < 0)
			return r;
		ordered_insert(kv_key_is_session(w->key) ? ret_session : ret_durable,
			       row);
	}
	return 0;
}

static uint64_t row_bytes(const struct ordered_row *row)
{
	return row ? row->row.key.len + row->row.value.len : 0;
}

static void count_bytes(struct mem *m, const struct ordered *rows)
{
	struct ordered_row *row = ordered_at(rows, BYTES_NONE);

	for (; row; row = ordered_next(row)) {
		m->bytes -= row_bytes(ordered_get(&m->durable, row->row.key));
		m->bytes += row->gone ? 0 : row_bytes(row);
	}
}

static int observe_rows(struct mem *m, const struct ordered *now, const struct ordered *rows)
{
	struct ordered_row *row = ordered_at(rows, BYTES_NONE);
	int r = 0;

	for (; !r && row; row = ordered_next(row)) {
		struct bytes key = row->row.key;
		if (!kv_is_observed(&m->kv, key))
			continue;
		struct ordered_row *old = ordered_get(now, key);
		r = kv_observe_write(&m->kv, key, old ? old->row.value : BYTES_NONE,
				     row->gone ? BYTES_NONE : row->row.value);
	}
	return r;
}

static int observe(struct mem *m, const struct ordered *durable, const struct ordered *session)
{
	int r = 0;

	if (m->kv.observers)
		r = observe_rows(m, &m->durable, durable);
	if (!r && m->kv.observers)
		r = observe_rows(m, &m->session, session);
	if (r)
		kv_observe_end(&m->kv, false);
	return r;
}

static int write_rows(struct mem *m, struct kv_req *req)
{
	_cleanup_(rows_clear) struct ordered durable = { 0 }, session = { 0 };
	int64_t before = (int64_t)m->session.n;
	int r = make_rows(req, m->revision + 1, &durable, &session);

	if (!r)
		r = observe(m, &durable, &session);
	if (r < 0)
		return r;
	count_bytes(m, &durable);
	ordered_apply(&m->durable, &durable);
	ordered_apply(&m->session, &session);
	metric_add(M_SESSION_KEYS, (int64_t)m->session.n - before);
	req->revision = ++m->revision;
	if (m->kv.observers)
		kv_observe_end(&m->kv, true);
	return KV_DONE;
}

static int run(struct mem *m, struct kv_req *req)
{
	WITH_LOCK(&m->lock);
	struct view_ordered durable = view_of(&m->durable, NULL);
	struct view_ordered session = view_of(&m->session, NULL);
	struct views views = { &durable.view, &session.view };
	int r = views_compare(&views, req, VIEW_ANY), r2;

	if (r == KV_DONE && req->nwrites)
		return write_rows(m, req);
	if (r < 0)
		return r;
	r2 = views_read(&views, req, VIEW_ANY);
	return r2 < 0 ? r2 : r;
}

static void mem_submit(struct kv *kv, struct kv_req *req)
{
	int r = run(mem_of(kv), req);

	if (!req->nwrites) {
		metric_add(M_INDEX_READS, 1);
	} else if (r == KV_DONE) {
		metric_add(M_INDEX_TXNS, 1);
		kv_ring(kv, req);
	} else if (r == KV_CONFLICT) {
		metric_add(M_INDEX_CONFLICTS, 1);
	}
	kv_req_done(kv, req, r);
}

static int mem_stat(struct kv *kv, struct kv_stat *ret)
{
	struct mem *m = mem_of(kv);

	WITH_LOCK(&m->lock);
	*ret = (struct kv_stat){
		.used_bytes = m->bytes,
		.size_bytes = UINT32_MAX,
		.room_bytes = UINT32_MAX,
		.keys = m->durable.n,
		.session_keys = m->session.n,
	};
	return 0;
}

static int mem_session_end(struct kv *kv, uint64_t session)
{
	struct mem *m = mem_of(kv);

	{
		WITH_LOCK(&m->lock);
		int64_t before = (int64_t)m->session.n;
		ordered_end_session(&m->session, session, kv);
		metric_add(M_SESSION_KEYS, (int64_t)m->session.n - before);
	}
	kv_ring_session_end(kv);
	return 0;
}

static int mem_check(struct kv *kv, struct writer *report)
{
	struct mem *m = mem_of(kv);

	WITH_LOCK(&m->lock);
	return ordered_check(&m->durable, report) +
	       ordered_check(&m->session, report);
}

static void mem_close(struct kv *kv)
{
	struct mem *m = mem_of(kv);

	metric_add(M_SESSION_KEYS, -(int64_t)m->session.n);
	ordered_clear(&m->session);
	ordered_clear(&m->durable);
	lock_fini(&m->lock);
	free(m);
}

static const struct kv_ops mem_ops = {
	.name = "mem",
	.submit = mem_submit,
	.caps = kv_local_caps,
	.stat = mem_stat,
	.session_end = mem_session_end,
	.observes = true,
	.check = mem_check,
	.close = mem_close,
};

int kv_mem_open(struct kv **ret)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->kv.ops = &mem_ops;
	lock_init(&m->lock, LOCK_INDEX_STATE);
	*ret = &m->kv;
	return 0;
}
