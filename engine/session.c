/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index requests are in one list from when they come to when they are answered,
 * in the order of their coming. One that must not overtake (`after`) is submitted
 * when it is the first of the list, all others at once.
 *
 * A doorbell may be rung by any thread: it posts the rest of the way, once until
 * that was gone. So it can outlive its UNWATCH, and even the session; then who
 * was posted frees it.
 */
#include "engine/session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/table.h"
#include "engine/auth.h"
#include "engine/serve_alloc.h"
#include "engine/scrub.h"
#include "engine/serve_open.h"
#include "engine/serve_recall.h"
#include "index/index.h"

struct job { /* a KV, or an OPEN */
	struct kv_req req; /* first: done() gets it */
	struct session *session;
	struct job *prev, *next;
	bool is_submitted;
	bool is_submitting, has_ended; /* the loop's thread only */
	struct wire_header header;
	struct wire_kv kv;
	bool opens;
	struct wire_open open;
	struct kv_read read; /* of an OPEN */
	struct kv_call call;
	int outcome;
	struct writer answer;
	struct loop_call post;
	uint8_t body[]; /* keys and values point into it */
};

struct bell { /* a WATCH */
	uint32_t number;
	struct session *session;
	struct kv_watch *watch;
	atomic_bool is_posted;
	bool is_dead; /* who was posted frees it */
	struct loop_call post;
	UT_hash_handle hh;
};

struct session {
	struct session_opts o;
	char name[300];
	uint8_t secret[WIRE_NONCE];
	struct holds *holds;
	struct lanes *lanes;
	struct ways *ways;
	struct allocs allocs;
	struct recalls recalls;
	bool lanes_gone, ways_gone, allocs_gone, recalls_gone;
	struct job *first, *last;
	struct bell *bells;
	uint32_t nbells;
	struct scrub *scrub; /* that it has begun */
	bool ending;
	struct loop_call end; /* on its way to `ends`, and back */
	int end_result;
};

static void settle(struct session *s);

/* The index ------------------------------------------------------------------------ */

static void job_unlink(struct job *j)
{
	struct session *s = j->session;

	*(j->prev ? &j->prev->next : &s->first) = j->next;
	*(j->next ? &j->next->prev : &s->last) = j->prev;
}

static void job_free(struct job *j)
{
	wire_kv_fini(&j->kv);
	writer_fini(&j->answer);
	free(j);
}

/* True: it has ended already, and is for job_finish(). */
static bool job_submit(struct job *j)
{
	j->is_submitted = j->is_submitting = true;
	kv_submit(j->session->o.kv, &j->req);
	j->is_submitting = false; /* it is freed by this thread only, later */
	return j->has_ended;
}

/* Answers at once, so that what the mount does not take is seen before its next
 * request is read (conn.h). */
static void job_finish(struct job *j)
{
	struct session *s = j->session;
	struct writer answer = j->answer;

	if (j->opens && j->outcome == KV_DONE) {
		j->outcome = serve_open(s->holds, s->o.pool, &j->open, j->req.rows, &answer);
		if (j->outcome == KV_DONE && s->o.evict)
			evict_use(s->o.evict, j->open.fileid);
		metric_add(M_HITS, j->outcome == KV_DONE);
		kv_req_fini(&j->req);
	}
	j->answer = (struct writer){ 0 };
	job_unlink(j);
	conn_answer(s->o.conn, &j->header, j->outcome, answer);
	job_free(j);
}

/* Those that waited to be the first of the list. They were read before the mount ceased to take
 * answers, if it has: then they wait for that, too. */
static void begin_first(struct session *s)
{
	while (s->first && !s->first->is_submitted && !conn_is_full(s->o.conn) &&
	       job_submit(s->first))
		job_finish(s->first);
}

/* On the loop's thread again. */
static void job_end(void *arg)
{
	struct job *j = arg;
	struct session *s = j->session;

	job_finish(j);
	begin_first(s);
	settle(s);
}

void session_taken(struct session *s)
{
	begin_first(s);
}

/* From any thread. Rows are written out here, not on the loop's. */
static void job_done(struct kv_req *req, int outcome)
{
	struct job *j = (struct job *)req;
	struct loop *loop = j->session->o.loop;

	j->outcome = outcome;
	if (outcome == KV_DONE && !j->opens)
		metric_add(M_MISSES, index_request_missed(req));
	if (outcome >= 0 && !j->opens)
		wire_write_kv_answer(&j->answer, req);
	if (j->answer.bad)
		j->outcome = outcome == KV_DONE && req->nwrites ? KV_UNKNOWN : -ENOMEM;
	if (outcome > 0 && j->opens)
		j->outcome = -EIO; /* the index did not say */
	if (outcome != KV_DONE || !j->opens)
		kv_req_fini(req);
	if (loop_is_current(loop) && j->is_submitting)
		j->has_ended = true;
	else
		loop_post_call(loop, &j->post);
}

static void refuse(struct session *s, const struct wire_header *h, int r)
{
	conn_answer(s->o.conn, h, r, (struct writer){ 0 });
}

static int job_open(struct job *j, struct bytes body)
{
	struct wire_open *m = &j->open;
	int r = wire_read_open(body, m);

	j->read = (struct kv_read){ .from = m->from };
	if (m->to.len) {
		j->read.to = m->to;
		j->read.limit = 1;
	}
	return r;
}

/* Takes apart a copy of the body, which is there as long as the job. */
static int job_new(struct session *s, const struct wire_header *h, struct bytes body,
		   struct job **ret)
{
	struct job *j = calloc(1, sizeof(*j) + body.len);

	if (!j)
		return -ENOMEM;
	memcpy(j->body, body.p, body.len);
	j->opens = h->type == WIRE_OPEN;
	int r = j->opens ? job_open(j, BYTES_OF(j->body, body.len))
			 : wire_read_kv(BYTES_OF(j->body, body.len), &j->kv);
	if (r < 0) {
		free(j);
		return r;
	}
	j->session = s;
	j->header = *h;
	j->post = (struct loop_call){ .fn = job_end, .arg = j };
	if (h->timeout_ms)
		j->call.deadline_ns = clock_ns() + h->timeout_ms * NS_PER_MS;
	j->req = (struct kv_req){
		.compares = j->kv.compares, .writes = j->kv.writes, .reads = j->kv.reads,
		.ncompares = j->kv.ncompares, .nwrites = j->kv.nwrites,
		.nreads = j->kv.nreads, .reserve = j->kv.reserve,
		.needs_room = j->kv.needs_room,
		.call = &j->call, .done = job_done, .max_memory = CONN_ANSWER_MAX,
		.session = j->kv.quiet ? s->o.number : 0,
	};
	if (j->opens) {
		j->req.reads = &j->read;
		j->req.nreads = 1;
	}
	*ret = j;
	return 0;
}

static int on_kv(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct job *j = NULL;
	int r = job_new(s, h, body, &j);

	if (r == -EPROTO)
		return r;
	if (!r && j->kv.nwrites && s->o.read_only)
		r = -EROFS;
	if (!r && s->o.ix)
		r = index_request_check(&j->req, s->o.number);
	if (r < 0) {
		refuse(s, h, r);
		if (j)
			job_free(j);
		return 0;
	}
	j->prev = s->last;
	*(s->last ? &s->last->next : &s->first) = j;
	s->last = j;
	if ((!j->kv.after || s->first == j) && job_submit(j))
		job_finish(j);
	return 0;
}

static int on_stat(struct session *s, const struct wire_header *h)
{
	struct writer w = { 0 };
	struct kv_stat st;
	int r = s->o.kv->ops->stat(s->o.kv, &st);

	if (r >= 0) {
		struct wire_stat m = {
			.total = (uint64_t)pool_npages(s->o.pool) * PAGE_BYTES,
			.free = (uint64_t)pool_nfree(s->o.pool) * PAGE_BYTES,
			.evictable = s->o.evict ? evict_bytes(s->o.evict) : 0,
			.evictable_objects = s->o.evict ? evict_objects(s->o.evict) : 0,
			.evict_dirs_ms = s->o.evict ? evict_dirs_ms(s->o.evict) : 0,
			.index_size = st.size_bytes, .index_used = st.used_bytes,
			.keys = st.keys, .session_keys = st.session_keys,
			.index_full = st.full,
		};
		wire_write_stat(&w, &m);
	}
	conn_answer(s->o.conn, h, r, w);
	return 0;
}

static int on_stats(struct session *s, const struct wire_header *h)
{
	_cleanup_(writer_fini) struct writer text = { 0 };
	struct writer w = { 0 };

	if (!s->o.print_stats)
		return -EPROTO;
	s->o.print_stats(s->o.stats_arg, &text);
	if (text.bad || text.len > WIRE_STATS_MAX) {
		refuse(s, h, text.bad ? -ENOMEM : -E2BIG);
		return 0;
	}
	wire_write_stats(&w, writer_bytes(&text));
	conn_answer(s->o.conn, h, 0, w);
	return 0;
}

/* Objects ---------------------------------------------------------------------------- */

static int on_about(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct wire_object m;
	struct wire_about answer = { 0 };
	struct writer w = { 0 };

	if (wire_read_object(body, &m) < 0)
		return -EPROTO;
	if (!s->o.evict) {
		refuse(s, h, -EOPNOTSUPP);
		return 0;
	}
	evict_about(s->o.evict, m.fileid, &answer);
	wire_write_about(&w, &answer);
	conn_answer(s->o.conn, h, 0, w);
	return 0;
}

/* On `ends`: what the session has in the index goes. */
static int end_in_index(struct session *s, uint64_t number)
{
	if (s->o.ix)
		return index_session_end(s->o.ix, number, NULL);
	return s->o.kv->ops->session_end(s->o.kv, number);
}

/* What blocks: a DROP_KEYS, an EVICT. It comes back before the session's own end does. */
struct chore {
	struct session *session;
	struct wire_header header;
	union {
		uint64_t number;
		struct wire_object object;
	};
	uint64_t deadline_ns; /* not begun after that; 0: whenever */
	int (*fn)(struct chore *c);
	int r;
	struct loop_call post;
};

static void chore_answer(void *arg)
{
	struct chore *c = arg;

	refuse(c->session, &c->header, c->r);
	free(c);
}

static void chore_on_ends(void *arg)
{
	struct chore *c = arg;

	c->r = c->deadline_ns && clock_ns() > c->deadline_ns ? -ETIMEDOUT : c->fn(c);
	c->post = (struct loop_call){ .fn = chore_answer, .arg = c };
	loop_post_call(c->session->o.loop, &c->post);
}

/* Copies *from; or refuses. */
static void chore_begin(const struct chore *from)
{
	struct session *s = from->session;
	struct chore *c = malloc(sizeof(*c));

	if (!c) {
		refuse(s, &from->header, -ENOMEM);
		return;
	}
	*c = *from;
	c->post = (struct loop_call){ .fn = chore_on_ends, .arg = c };
	loop_post_call(s->o.ends, &c->post);
}

static int drop_keys(struct chore *c)
{
	return end_in_index(c->session, c->number);
}

static int evict_object(struct chore *c)
{
	const struct wire_object *o = &c->object;

	return evict_go_wait(c->session->o.evict, o->fileid, o->place);
}

static int on_evict(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct chore c = { .session = s, .header = *h, .fn = evict_object };

	if (wire_read_object(body, &c.object) < 0)
		return -EPROTO;
	if (h->timeout_ms)
		c.deadline_ns = clock_ns() + h->timeout_ms * NS_PER_MS;
	if (s->o.read_only || !s->o.evict)
		refuse(s, h, s->o.evict ? -EROFS : -EOPNOTSUPP);
	else
		chore_begin(&c);
	return 0;
}

static int on_drop_keys(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct chore c = { .session = s, .header = *h, .fn = drop_keys };

	if (wire_read_session(body, &c.number) < 0)
		return -EPROTO;
	if (c.number == s->o.number || !s->o.ix)
		chore_begin(&c);
	else
		refuse(s, h, -ESTALE);
	return 0;
}

/* Doorbells ------------------------------------------------------------------------- */

static void bell_posted(void *arg)
{
	struct bell *b = arg;
	struct writer w = { 0 };

	atomic_store(&b->is_posted, false);
	if (b->is_dead) {
		free(b);
		return;
	}
	wire_write_watch_number(&w, b->number);
	conn_send(b->session->o.conn, WIRE_RING, w);
}

/* From any thread that commits. The loop's own sends it before its answer. */
static void bell_ring(void *arg)
{
	struct bell *b = arg;
	struct loop *loop = b->session->o.loop;

	if (atomic_exchange(&b->is_posted, true))
		return;
	if (loop_is_current(loop))
		bell_posted(b);
	else
		loop_post_call(loop, &b->post);
}

static void bell_free(struct session *s, struct bell *b)
{
	kv_unwatch(s->o.kv, b->watch); /* nothing rings from here on */
	HASH_DEL(s->bells, b);
	s->nbells--;
	b->is_dead = true;
	if (!atomic_load(&b->is_posted))
		free(b);
}

static int bell_new(struct session *s, const struct wire_watch *m)
{
	struct bell *b;

	HASH_FIND(hh, s->bells, &m->watch, sizeof(m->watch), b);
	if (b)
		return 0;
	if (s->nbells == KV_WATCHES_MAX)
		return -EAGAIN;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->number = m->watch;
	b->session = s;
	b->post = (struct loop_call){ .fn = bell_posted, .arg = b };
	int r = kv_watch_others(s->o.kv, m->prefix, s->o.number, bell_ring, b, &b->watch);
	if (r < 0) {
		free(b);
		return r;
	}
	HASH_ADD(hh, s->bells, number, sizeof(b->number), b);
	s->nbells++;
	return 0;
}

static int on_watch(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct wire_watch m;
	int r = wire_read_watch(body, &m);

	if (r < 0)
		return r;
	refuse(s, h, bell_new(s, &m));
	return 0;
}

static int on_unwatch(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct bell *b;
	uint32_t number;

	if (wire_read_watch_number(body, &number) < 0)
		return -EPROTO;
	HASH_FIND(hh, s->bells, &number, sizeof(number), b);
	if (b)
		bell_free(s, b);
	refuse(s, h, 0);
	return 0;
}

/* Slices ----------------------------------------------------------------------------- */

static int on_pin(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct wire_results results = { 0 };
	struct writer w = { 0 };
	struct wire_pin m;
	int r = wire_read_pin(body, &m);

	if (r == -EPROTO)
		return r;
	if (!r) {
		r = holds_pin(s->holds, &m, &results);
		wire_items_fini(&m.items);
	}
	wire_write_results(&w, &results);
	wire_results_fini(&results);
	conn_answer(s->o.conn, h, r, w);
	return 0;
}

static int on_items(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct wire_items asked;
	struct wire_results results = { 0 };
	struct writer w = { 0 };
	int r = wire_read_items(body, h->type == WIRE_ALLOC ? WIRE_PAGES : WIRE_SLICE_PAGES,
				&asked);

	if (r == -EPROTO)
		return r;
	if (!r && s->o.read_only) {
		r = -EROFS;
	} else if (!r && h->type == WIRE_ALLOC) {
		allocs_ask(&s->allocs, h, &asked);
		return 0;
	} else if (!r) {
		r = holds_seal(s->holds, &asked, &results);
		wire_write_results(&w, &results);
	}
	wire_items_fini(&asked);
	wire_results_fini(&results);
	conn_answer(s->o.conn, h, r, w);
	return 0;
}

static int on_unpin(struct session *s, struct bytes body)
{
	struct wire_items asked;
	int r = wire_read_items(body, WIRE_SLICES, &asked);

	if (r < 0)
		return r;
	r = holds_unpin(s->holds, &asked);
	wire_items_fini(&asked);
	return r;
}

/* Scrubbing -------------------------------------------------------------------------- */

/* One that has ended makes room for the next. */
static int begin_scrub(struct session *s, const struct wire_scrub *m)
{
	const struct scrub_opts o = { m->rate, m->evict_bad };
	struct scrub *scrub;

	if (m->evict_bad && s->o.read_only)
		return -EROFS;
	int r = scrub_begin(s->o.scrubs, &o, &scrub);
	if (r < 0)
		return r == -EBUSY ? WIRE_SCRUB_BUSY : r;
	scrub_end(s->scrub);
	s->scrub = scrub;
	return 0;
}

static int on_scrub(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct writer w = { 0 };
	struct wire_scrub m;

	if (!s->o.scrubs || wire_read_scrub(body, &m) < 0)
		return -EPROTO;
	int r = m.begins ? begin_scrub(s, &m) : s->scrub ? 0 : -EINVAL;
	if (!r && !m.begins)
		scrub_write(s->scrub, &w);
	conn_answer(s->o.conn, h, r, w);
	return 0;
}

/* Lanes ------------------------------------------------------------------------------ */

static void fenced(void *arg, const struct wire_header *h)
{
	refuse(arg, h, 0);
}

static int on_fence(struct session *s, const struct wire_header *h, struct bytes body)
{
	uint32_t number;

	if (wire_read_fence(body, &number) < 0)
		return -EPROTO;
	int r = ways_has(s->ways, number) ? ways_fence(s->ways, number, h, fenced, s) :
					    lanes_fence(s->lanes, number, h, fenced, s);
	if (r < 0)
		refuse(s, h, r);
	return 0;
}

int session_add_lane(struct session *s, struct loop *on, int fd, uint32_t number)
{
	if (!ways_has(s->ways, number))
		return lanes_add(s->lanes, on, fd, number);
	close(fd);
	return -EEXIST;
}

static int tell_rdma(struct session *s, uint32_t number, struct writer *w)
{
	_cleanup_(wire_rdma_fini) struct wire_rdma m = { 0 };
	int r = doors_tell(s->o.doors, s->o.read_only, &m);

	if (!r && m.nports)
		r = lanes_has(s->lanes, number) ? -EEXIST : ways_offer(s->ways, number, m.ticket);
	if (!r)
		wire_write_rdma(w, &m);
	return r == -EEXIST ? -EINVAL : r == -EUSERS ? -EAGAIN : r;
}

static int on_rdma(struct session *s, const struct wire_header *h, struct bytes body)
{
	struct writer w = { 0 };
	uint32_t number;

	if (wire_read_fence(body, &number) < 0 || !s->o.doors)
		return -EPROTO;
	int r = tell_rdma(s, number, &w);
	conn_answer(s->o.conn, h, r, w);
	return 0;
}

bool session_accept(struct session *s, struct rdma_conn *c, struct bytes ticket)
{
	return ways_accept(s->ways, c, ticket);
}

/* From here on nothing that the mount has sent can touch a slice (I6). */
static void lanes_are_gone(void *arg)
{
	struct session *s = arg;

	s->lanes_gone = true;
	settle(s);
}

/* Nor can any that it asks an adapter for. */
static void ways_are_gone(void *arg)
{
	struct session *s = arg;

	s->ways_gone = true;
	settle(s);
}

/* Nobody waits for slices. */
static void allocs_are_gone(void *arg)
{
	struct session *s = arg;

	s->allocs_gone = true;
	settle(s);
}

/* Nobody waits for the disk. */
static void recalls_are_gone(void *arg)
{
	struct session *s = arg;

	s->recalls_gone = true;
	settle(s);
}

static int begin_ways(struct session *s)
{
	struct ways_opts o = { .doors = s->o.doors, .read_only = s->o.read_only,
			       .max = s->o.max_ways, .gone = ways_are_gone, .arg = s };

	return ways_new(&o, &s->ways);
}

static int begin_lanes(struct session *s)
{
	struct lanes_opts o = {
		.loop = s->o.loop, .holds = s->holds, .read_only = s->o.read_only,
		.max = s->o.max_lanes, .max_requests = s->o.max_requests,
		.keep_alive_ms = s->o.keep_alive_ms, .gone = lanes_are_gone, .arg = s,
	};

	return lanes_new(&o, &s->lanes);
}

/* All of it -------------------------------------------------------------------------- */

int session_message(struct session *s, const struct wire_header *h, struct bytes body)
{
	switch (h->type) {
	case WIRE_KV:
	case WIRE_OPEN:
		return on_kv(s, h, body);
	case WIRE_WATCH:
		return on_watch(s, h, body);
	case WIRE_UNWATCH:
		return on_unwatch(s, h, body);
	case WIRE_ALLOC:
	case WIRE_SEAL:
		return on_items(s, h, body);
	case WIRE_RECALL:
		return recalls_ask(&s->recalls, h, body);
	case WIRE_PIN:
		return on_pin(s, h, body);
	case WIRE_UNPIN:
		return on_unpin(s, body);
	case WIRE_FENCE:
		return on_fence(s, h, body);
	case WIRE_RDMA:
		return on_rdma(s, h, body);
	case WIRE_SCRUB:
		return on_scrub(s, h, body);
	case WIRE_STAT:
		return body.len ? -EPROTO : on_stat(s, h);
	case WIRE_STATS:
		return body.len ? -EPROTO : on_stats(s, h);
	case WIRE_DROP_KEYS:
		return on_drop_keys(s, h, body);
	case WIRE_ABOUT:
		return on_about(s, h, body);
	case WIRE_EVICT:
		return on_evict(s, h, body);
	case WIRE_BYE:
		return body.len ? -EPROTO : -ESHUTDOWN;
	default:
		return -EPROTO;
	}
}

int session_new(const struct session_opts *o, struct session **ret)
{
	struct session *s = calloc(1, sizeof(*s));
	char name[WIRE_NAME_MAX + 1], quoted[256];

	if (!s)
		return -ENOMEM;
	s->o = *o;
	snprintf(name, sizeof(name), "%.*s", (int)o->name.len, (const char *)o->name.p);
	error_quote(quoted, sizeof(quoted), name);
	snprintf(s->name, sizeof(s->name), "%llu (%s)", (unsigned long long)o->number, quoted);
	auth_random(s->secret);
	int r = holds_new(o->pool, o->max_pins, &s->holds);
	if (!r)
		r = begin_lanes(s);
	if (!r)
		r = begin_ways(s);
	if (r < 0) {
		lanes_free(s->lanes);
		holds_free(s->holds);
		free(s);
		return r;
	}
	s->allocs = (struct allocs){ .loop = o->loop, .holds = s->holds, .evict = o->evict,
				     .conn = o->conn, .gone = allocs_are_gone, .arg = s };
	s->recalls = (struct recalls){ .loop = o->loop, .tier = o->tier, .conn = o->conn,
				       .read_only = o->read_only,
				       .gone = recalls_are_gone, .arg = s };
	metric_add(M_SESSIONS, 1);
	*ret = s;
	return 0;
}

const uint8_t *session_secret(const struct session *s)
{
	return s->secret;
}

const char *session_name(const struct session *s)
{
	return s->name;
}

bool session_is_busy(const struct session *s)
{
	return s->first || holds_nwriting(s->holds);
}

/* On the loop again, the last step. */
static void has_ended(void *arg)
{
	struct session *s = arg;
	struct bell *b, *next;

	if (s->end_result < 0)
		log_error("node", "session %s: some of what it had in the index stays: %s", s->name,
			  error_text(s->end_result));
	HASH_ITER(hh, s->bells, b, next)
		bell_free(s, b);
	uint32_t pins = holds_npins(s->holds);
	lanes_free(s->lanes);
	ways_free(s->ways);
	holds_free(s->holds);
	log_info("node", "session %s ended, %u pins given back", s->name, pins);
	void (*ended)(void *arg) = s->o.ended;
	void *ended_arg = s->o.arg;
	free(s);
	metric_add(M_SESSIONS, -1);
	ended(ended_arg);
}

static void end_on_ends(void *arg)
{
	struct session *s = arg;

	s->end_result = end_in_index(s, s->o.number);
	s->end = (struct loop_call){ .fn = has_ended, .arg = s };
	loop_post_call(s->o.loop, &s->end);
}

/* The order is the protocol's. Nothing comes any more, so this goes on once only. */
static void settle(struct session *s)
{
	if (!s->ending || s->first || !s->lanes_gone || !s->ways_gone || !s->allocs_gone ||
	    !s->recalls_gone)
		return;
	s->end = (struct loop_call){ .fn = end_on_ends, .arg = s };
	loop_post_call(s->o.ends, &s->end);
}

void session_end(struct session *s)
{
	assert(!s->ending);
	s->ending = true;
	scrub_end(s->scrub);
	s->scrub = NULL;
	for (struct job *j = s->first; j; j = j->next)
		atomic_store(&j->call.cancelled, true); /* what has not begun need not */
	begin_first(s);
	s->lanes_gone = lanes_close(s->lanes);
	s->ways_gone = ways_close(s->ways);
	s->allocs_gone = allocs_close(&s->allocs);
	s->recalls_gone = recalls_close(&s->recalls);
	settle(s);
}
