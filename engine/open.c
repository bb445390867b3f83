/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing. What must not overlap on one file (loading it, telling
 * the index that we begin or cease to write, the last publish) is ordered by the
 * file's range lock: each takes all of it. An open for reading of a file that is
 * loaded takes nothing and waits for nobody.
 *
 *	open   load if nobody has, or if slices are lost -> register if first to write -> truncate
 *	close  publish if last to write -> index_writer_end() -> last: free
 *
 * An open that fails leaves like a close.
 *
 * Where others publish, too, it has to be found out first what is to be opened (P2):
 *
 *	nothing of it is open here         load; what comes of it is what is published
 *	else the record is read: a line    that one
 *	 of that version is open
 *	a line is loaded or published now  wait for that, and look again
 *	all lines are older                a new one is loaded
 *
 * A publish holds all of its file, so waiting for it is taking the range and giving
 * it back. Each round but the last follows somebody else's load or publish.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/evict.h"
#include "engine/load.h"
#include "engine/register.h"

enum { END_TRIES = 5 }; /* of index_writer_end() */

struct visit { /* one open or close */
	struct work w;
	unsigned tries;
	uint64_t session; /* whose `w` is to go */
	unsigned flags, asked; /* what is left of the flags, and all of them */
	int result;
	bool opens;
	bool again;   /* look again when this file has been left */
	struct engine *e;
	uint64_t fileid;
	struct place place;
	struct gone gone; /* file_open_gone(): its body is behind the struct */
	struct index_op op;
	struct registering writer;
	struct load load;
};

#define visit_of(ptr, member)                                                  \
	((struct visit *)((char *)(ptr) - offsetof(struct visit, member)))

/* Close ------------------------------------------------------------------------ */

static void leave_locked(struct work *w, int r);
static void look_again(struct work *w, int r);

/* Gives the reference back. A writer's work is left over if somebody who was
 * here too has gone meanwhile: then we do it. */
static void leave(struct visit *v)
{
	struct file *f = v->w.f;
	struct file_op *op = v->w.op;
	int r = v->result;

	if (!files_put(f)) {
		work_lock(&v->w, 0, RANGE_END, leave_locked);
		return;
	}
	op->file = NULL;
	if (v->again) {
		work_later(&v->w, look_again, 0);
		return;
	}
	free(v);
	op->done(op, r);
}

static void tell_end(struct visit *v);

static void writer_ended(struct index_op *op, int outcome)
{
	struct visit *v = visit_of(op, op);
	struct file *f = v->w.f;

	if (outcome < 0 && ++v->tries < END_TRIES) {
		tell_end(v);
		return;
	}
	if (outcome < 0)
		log_warn("file", "the index still takes us for a writer of file %" PRIu64
			 ": %s", f->fileid, strerror(-outcome));
	index_op_fini(op);
	{
		WITH_LOCK(&f->lock);
		f->registered = f->ending = false;
	}
	work_unlock(&v->w);
	leave(v);
}

static void tell_end(struct visit *v)
{
	struct file *f = v->w.f;

	index_op_fini(&v->op);
	v->op = (struct index_op){ .fileid = f->fileid, .session = v->session,
				  .done = writer_ended };
	index_writer_end(f->e->ix, &v->op);
}

static void end_writing(struct visit *v)
{
	if (!files_hand_over(v->w.f)) {
		tell_end(v);
		return;
	}
	work_unlock(&v->w);
	leave(v);
}

static void last_published(struct work *w, int r)
{
	struct visit *v = visit_of(w, w);
	struct file *f = w->f;
	bool last = files_is_last(f), registered;

	if (r < 0) {
		log_error("file", "file %" PRIu64 " could not be published%s: %s", f->fileid,
			  last ? ", what was written to it is lost" : "", strerror(-r));
		if (last)
			metric_add(M_DRAFTS_LOST, 1);
	}
	if (r < 0 && v->opens == false && !v->result)
		v->result = r;
	v->session = index_session(f->e->ix);
	{
		WITH_LOCK(&f->lock);
		registered = f->registered;
	}
	/* After a failure, who still has it open keeps what was written, and the
	 * last one to leave tries again. */
	if (registered && (!r || last)) {
		end_writing(v);
		return;
	}
	work_unlock(w);
	leave(v);
}

static void leave_locked(struct work *w, int r)
{
	struct visit *v = visit_of(w, w);
	struct file *f = w->f;
	bool others, discard;

	(void)r;
	{
		WITH_LOCK(&f->lock);
		if (!v->opens && v->flags & FILE_WRITE)
			f->nwriters--;
		v->flags &= ~(unsigned)FILE_WRITE;
		others = f->nwriters;
		discard = !others && v->flags & FILE_DISCARD;
		if (discard && (f->draft || f->dirty))
			f->lost = true;
	}
	if (others) {
		work_unlock(w);
		leave(v);
	} else if (discard) {
		last_published(w, 0);
	} else {
		publish_start(w, last_published);
	}
}

void file_close(struct file_op *op, unsigned flags)
{
	struct file *f = op->file;

	if (!(flags & FILE_WRITE) && files_put(f)) {
		op->file = NULL;
		op->done(op, 0);
		return;
	}
	struct visit *v = (struct visit *)work_new(op, sizeof(*v));
	/* XXX: without memory for this the file stays open. */
	if (!v)
		return;
	v->flags = flags;
	work_lock(&v->w, 0, RANGE_END, leave_locked);
}

static void unref_closed(struct file_op *op, int64_t r)
{
	(void)r;
	free(op);
}

void file_unref(struct file *f)
{
	if (files_put(f))
		return;
	struct file_op *op = calloc(1, sizeof(*op));
	/* XXX: without memory for this the file stays open. */
	if (!op)
		return;
	*op = (struct file_op){ .file = f, .done = unref_closed };
	file_close(op, 0);
}

/* Open ------------------------------------------------------------------------- */

static void open_end(struct visit *v, int r)
{
	if (!r) {
		work_end(&v->w, 0);
		return;
	}
	v->result = r;
	work_unlock(&v->w);
	leave(v);
}

/* Under the file's lock, which is all ours. */
static void make_empty(struct file *f)
{
	map_cut(&f->map, 0, UINT64_MAX);
	memset(f->content, 0, sizeof(f->content));
	f->attr.size = f->unclean = 0;
	f->small = true;
	file_changed(f);
}

static void open_writing(struct visit *v)
{
	struct file *f = v->w.f;

	if (v->flags & FILE_WRITE || v->flags & FILE_TRUNCATE) {
		WITH_LOCK(&f->lock);
		f->nwriters += !!(v->flags & FILE_WRITE);
		free(steal(&f->early));
		if (v->flags & FILE_TRUNCATE)
			make_empty(f);
	}
	open_end(v, 0);
}

static void writer_begun(struct registering *g, int outcome)
{
	struct visit *v = visit_of(g, writer);

	if (outcome)
		open_end(v, outcome == INDEX_MISS ? -ESTALE : outcome < 0 ? outcome : -EIO);
	else
		open_writing(v);
}

static void open_loaded(struct visit *v)
{
	struct file *f = v->w.f;
	bool known;

	{
		WITH_LOCK(&f->lock);
		/* One without a name is written privately: nobody need know. */
		known = f->registered || !f->attr.nlink;
	}
	if (known || !(v->flags & FILE_WRITE)) {
		open_writing(v);
		return;
	}
	v->writer = (struct registering){
		.f = f, .place = v->place, .call = &v->w.op->call, .done = writer_begun,
	};
	registering_start(&v->writer);
}

/* An open that has looked up the name finds it where that name is, or not at all. */
static bool is_here(const struct visit *v, const struct place *p)
{
	return !(v->flags & FILE_HERE) || place_is_same(*p, v->place);
}

/* What has lost its last name (file_open_gone()) has one line, and is in no record. */
static bool has_lines(const struct visit *v) { return v->e; }

static void loaded(struct load *l, int r)
{
	struct visit *v = visit_of(l, load);
	struct place place;

	v->again = r == -EAGAIN && has_lines(v);
	if (!r) {
		file_place(v->w.f, &place);
		if (!is_here(v, &place))
			r = -ESTALE;
	}
	if (r < 0)
		open_end(v, r);
	else
		open_loaded(v);
}

static bool is_open(struct file *f)
{
	WITH_LOCK(&f->lock);
	return f->state == FILE_OPEN;
}

static void load(struct visit *v, struct file *f, void (*done)(struct load *l, int r))
{
	v->load.f = f;
	v->load.spare = f != v->w.f;
	v->load.place = v->place;
	v->load.gone = v->gone.fileid ? &v->gone : NULL;
	v->load.call = &v->w.op->call;
	v->load.done = done;
	load_start(&v->load);
}

/* Who has it open goes on with what is left of it, others look again. */
static void mended(struct load *l, int r)
{
	struct visit *v = visit_of(l, load);

	if (!r)
		r = file_mend(v->w.f, l->f);
	file_spare_free(l->f);
	bool has_it = v->flags & FILE_KNOWN || !has_lines(v);
	v->again = r == -ESTALE && !has_it;
	if (r < 0 && has_it)
		log_warn("file", "file %llu was not loaded again: %s",
			 (unsigned long long)v->w.f->fileid, error_text(r));
	if (r >= 0 || has_it)
		open_loaded(v);
	else
		open_end(v, r);
}

static void mend(struct visit *v)
{
	struct file *spare;
	int r = file_spare_new(v->w.f, &spare);

	if (r < 0)
		open_end(v, r);
	else
		load(v, spare, mended);
}

static void open_locked(struct work *w, int r)
{
	struct visit *v = visit_of(w, w);
	enum file_state state;

	(void)r;
	{
		WITH_LOCK(&w->f->lock);
		state = w->f->state;
		/* Somebody read the record before the last name went. */
		if (state == FILE_OPEN && v->place.kind == PLACE_NONE)
			w->f->attr.nlink = 0;
	}
	if (state != FILE_OPEN)
		load(v, w->f, loaded);
	else if (file_is_torn(w->f))
		mend(v);
	else
		open_loaded(v);
}

/* Opens what is open already at once: NULL. Or a visit with room for `more` bytes,
 * to be visited; NULL: it has failed. */
static struct visit *visit_new(struct engine *e, uint64_t fileid, unsigned flags,
			       size_t more, struct file_op *op)
{
	struct visit *v = NULL;
	int r = files_get(e, fileid, &op->file);

	assert(flags & FILE_WRITE || !(flags & FILE_TRUNCATE));
	if (!r && !(flags & FILE_WRITE) && is_open(op->file)) {
		op->done(op, 0);
		return NULL;
	}
	if (!r) {
		v = (struct visit *)calloc(1, sizeof(*v) + more);
		r = v ? 0 : -ENOMEM;
		/* Whoever else has it keeps it; nobody else: nothing was loaded. */
		if (!v)
			files_put(op->file);
	}
	if (r < 0) {
		op->file = NULL;
		op->done(op, r);
		return NULL;
	}
	v->w.f = op->file;
	v->w.op = op;
	v->flags = flags;
	v->opens = true;
	return v;
}

static bool may_be_torn(struct file *f)
{
	WITH_LOCK(&f->lock);
	return f->torn;
}

/* Of several lines ----------------------------------------------------------------- */

static void look(struct visit *v, const struct attr *is);

/* Without a file in hand. */
static void look_end(struct visit *v, int r)
{
	struct file_op *op = v->w.op;

	op->file = r ? NULL : v->w.f;
	free(v);
	op->done(op, r);
}

static void look_again(struct work *w, int r)
{
	struct visit *v = visit_of(w, w);
	const struct kv_call *call = &w->op->call;

	(void)r;
	v->again = false;
	v->flags = v->asked;
	v->result = 0;
	w->f = NULL;
	if (kv_call_is_cancelled(call))
		look_end(v, -ECANCELED);
	else if (call->deadline_ns && clock_ns() > call->deadline_ns)
		look_end(v, -ETIMEDOUT);
	else
		look(v, NULL);
}

static void waited(struct work *w, int r)
{
	struct visit *v = visit_of(w, w);

	if (!is_open(w->f)) { /* who was to load it could not */
		open_locked(w, r);
		return;
	}
	v->again = true;
	work_unlock(w);
	leave(v);
}

/* A reference of f is the visit's. */
static void go_to(struct visit *v, struct file *f,
		  void (*run)(struct work *w, int r))
{
	v->w.f = v->w.op->file = f;
	work_lock(&v->w, 0, RANGE_END, run);
}

/* No record: unlinked, or renamed by somebody who did not know that it is open here. */
static void look_missed(struct visit *v)
{
	struct file *f = v->w.op->known;

	if (!f || v->flags & FILE_HERE) {
		look_end(v, -ESTALE);
		return;
	}
	v->flags |= FILE_KNOWN;
	go_to(v, file_ref(f), open_locked);
}

static void looked(struct index_op *op, int outcome)
{
	struct visit *v = visit_of(op, op);
	struct attr is = op->entry.attr;
	struct place place = op->entry.place;

	index_op_fini(op);
	if (outcome == INDEX_MISS) {
		look_missed(v);
	} else if (outcome) {
		look_end(v, outcome < 0 ? outcome : -EIO);
	} else if (!is_here(v, &place)) {
		look_end(v, -ESTALE);
	} else {
		v->place = place;
		look(v, &is);
	}
}

static void look_ask(struct visit *v)
{
	v->op = (struct index_op){
		.fileid = v->fileid, .place = v->place, .done = looked,
		.call = kv_call_of(&v->w.op->call),
	};
	index_stat(v->e->ix, &v->op);
}

/* `is`: the record, or NULL: not read yet. */
static void look(struct visit *v, const struct attr *is)
{
	struct file *f;
	int r = files_line(v->e, v->fileid, is, &f);

	switch (r) {
	case FILES_LINE:
		if (v->flags & FILE_WRITE || may_be_torn(f)) {
			go_to(v, f, open_locked);
		} else {
			v->w.f = f;
			look_end(v, 0);
		}
		break;
	case FILES_NEW:
		go_to(v, f, open_locked);
		break;
	case FILES_WAIT:
		go_to(v, f, waited);
		break;
	case FILES_ASK:
		look_ask(v);
		break;
	default:
		look_end(v, r);
	}
}

static void open_line(struct engine *e, uint64_t fileid, struct place place,
		      unsigned flags, struct file_op *op)
{
	struct visit *v = calloc(1, sizeof(*v));

	if (!v) {
		op->file = NULL;
		op->done(op, -ENOMEM);
		return;
	}
	v->e = e;
	v->fileid = fileid;
	v->w.op = op;
	v->flags = v->asked = flags;
	v->opens = true;
	v->place = place;
	if (flags & FILE_KNOWN)
		go_to(v, file_ref(op->known), open_locked);
	else
		look(v, NULL);
}

void file_open(struct engine *e, uint64_t fileid, struct place place,
	       unsigned flags, struct file_op *op)
{
	if (e->evict)
		evict_use(e->evict, fileid);
	if (!e->alone || flags & FILE_KNOWN) {
		open_line(e, fileid, place, flags, op);
		return;
	}
	struct visit *v = visit_new(e, fileid, flags & ~(unsigned)FILE_HERE, 0, op);
	if (!v)
		return;
	v->place = place;
	work_lock(&v->w, 0, RANGE_END, open_locked);
}

void file_open_gone(struct engine *e, const struct gone *g, unsigned flags,
		    struct file_op *op)
{
	size_t len = g->body.bytes.len;
	struct visit *v = visit_new(e, g->fileid, flags, len, op);

	if (!v)
		return;
	v->gone = *g;
	v->gone.body.bytes = BYTES_OF(v + 1, len);
	if (len)
		memcpy(v + 1, g->body.bytes.p, len);
	work_lock(&v->w, 0, RANGE_END, open_locked);
}
