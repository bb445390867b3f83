/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A few files, random operations on them, and what must be seen afterwards: two
 * byte arrays a file, of what readers of an open file see and of what was
 * published last. step() does one thing and compares.
 */
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/random.h"
#include "engine/open.h"
#include "tests/unit/file_kit.h"

enum {
	NFILES = 4,
	NHANDLES = 3,
	BYTES_MAX = 5 << 20, /* a region and a bit */
};

struct content {
	uint64_t size;
	uint8_t b[BYTES_MAX];
};

struct slot {
	char name[16];
	struct file *h[NHANDLES];
	bool writes[NHANDLES];
	bool named;        /* it has a name */
	bool published;    /* and a version under it */
	bool unsure;       /* the version may be pub, or now */
	bool dirty;
	uint64_t unclean;
	struct content now, pub;
};

struct world {
	uint64_t random;
	struct engine *e;
	bool faults;       /* calls may fail, and then do part of it */
	unsigned failed;
	int busy;          /* what step() is at, for who looks after a crash */
	bool publishing, unlinking;
	struct slot slot[NFILES];
	uint8_t buf[BYTES_MAX], old[BYTES_MAX];
};

static uint64_t pick(struct world *w, uint64_t n)
{
	return random_next(&w->random) % n;
}

/* Offsets near where things change: page, block, region, inline limit, end. */
static uint64_t pick_off(struct world *w, const struct slot *s)
{
	static const uint64_t edges[] = { 0, 1024, 4096, 65536, 1 << 20, 4 << 20 };
	uint64_t off;

	switch (pick(w, 6)) {
	case 0:
		off = pick(w, BYTES_MAX);
		break;
	case 1:
		off = edges[pick(w, 6)] + pick(w, 64);
		break;
	case 2:
		off = s->now.size + pick(w, 3) * pick(w, 5000);
		break;
	case 3:
		off = pick(w, s->now.size + 1) / 4096 * 4096;
		break;
	case 4:
		off = pick(w, 3000);
		break;
	default:
		off = pick(w, s->now.size + 1);
	}
	return off < BYTES_MAX ? off : BYTES_MAX - 1;
}

static uint64_t pick_len(struct world *w, uint64_t off)
{
	uint64_t len;

	switch (pick(w, 8)) {
	case 0:
		len = 1 + pick(w, BYTES_MAX / 4);
		break;
	case 1:
		len = 4096 * (1 + pick(w, 40));
		break;
	case 2:
		len = 1 + pick(w, 64);
		break;
	default:
		len = 1 + pick(w, 20000);
	}
	return off + len <= BYTES_MAX ? len : BYTES_MAX - off;
}

/* A call in ten fails, of the transport's or of the index's. */
static struct kv *armed_kv;

static inline int wrap_kv(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, 11, true, ret);

	if (!r)
		armed_kv = *ret;
	return r;
}

static inline void arm(struct world *w)
{
	static const int faults[] = { -EIO, -ENOSPC, -ETIMEDOUT, KV_UNKNOWN };

	if (pick(w, 3) == 0)
		transport_fault_arm(w->e->transport, 1 + pick(w, 6), pick(w, 8));
	if (pick(w, 3) == 0)
		kv_fault_arm(armed_kv, 1 + pick(w, 6), faults[pick(w, 4)]);
	if (pick(w, 3) == 0)
		node_fault_arm(w->e->node, 1 + pick(w, 3), faults[pick(w, 3)]);
}

static void disarm(struct world *w)
{
	transport_fault_arm(w->e->transport, 0, 0);
	kv_fault_arm(armed_kv, 0, 0);
	node_fault_arm(w->e->node, 0, 0);
}

/* What must hold ---------------------------------------------------------------- */

static void assert_bytes(const struct slot *s, uint64_t off, const uint8_t *is,
			 const uint8_t *should, uint64_t n)
{
	if (!memcmp(is, should, n))
		return;
	for (uint64_t i = 0; i < n; i++)
		if (is[i] != should[i])
			fail_msg("%s: byte %lu is %u, should be %u", s->name, off + i, is[i],
				 should[i]);
}

static void check_read(struct world *w, struct slot *s, struct file *f, uint64_t off,
		       uint64_t len)
{
	uint64_t want = off < s->now.size ? s->now.size - off : 0;
	int64_t r;

	if (want > len)
		want = len;
	do {
		r = kit_read(f, off, w->buf, len);
		w->failed += r < 0;
	} while (r < 0 && w->faults);
	if (r != (int64_t)want)
		fail_msg("%s: read of %lu at %lu says %ld, should be %lu", s->name, len, off, r,
			 want);
	assert_bytes(s, off, w->buf, s->now.b + off, want);
}

static void check_file(struct world *w, struct slot *s)
{
	struct attr a;

	for (int i = 0; i < NHANDLES; i++) {
		if (!s->h[i])
			continue;
		file_attr(s->h[i], &a);
		assert_int_equal(a.size, s->now.size);
		check_read(w, s, s->h[i], 0, BYTES_MAX);
		struct writer r = { 0 };
		{
			WITH_LOCK(&s->h[i]->lock);
			int bad = map_check(&s->h[i]->map, &r);
			if (bad)
				fail_msg("%s: %d:\n%.*s", s->name, bad, (int)r.len, r.p);
		}
		writer_fini(&r);
		return;
	}
}

/* What the name shows to who looks it up. */
static void check_name(struct world *w, struct slot *s)
{
	struct place place = { 0 };
	struct attr a = { 0 };
	int r;

	do {
		r = kit_lookup(w->e, s->name, &a, &place);
	} while (r < 0 && w->faults);
	if (!s->named) {
		assert_int_equal(r, INDEX_MISS);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(place.kind == PLACE_DRAFT, !s->published);
	if (!s->published || s->unsure)
		return;
	assert_int_equal(a.size, s->pub.size);
}

static inline void check_engine(struct world *w)
{
	kit_check_engine(w->e);
}

/* Handles -------------------------------------------------------------------------- */

static int nhandles(const struct slot *s, bool writers)
{
	int n = 0;

	for (int i = 0; i < NHANDLES; i++)
		n += s->h[i] && (!writers || s->writes[i]);
	return n;
}

static struct file *any_handle(struct slot *s, bool writer)
{
	for (int i = 0; i < NHANDLES; i++)
		if (s->h[i] && (!writer || s->writes[i]))
			return s->h[i];
	return NULL;
}

static void copy_content(struct content *to, const struct content *from)
{
	if (to->size > from->size)
		memset(to->b + from->size, 0, to->size - from->size);
	to->size = from->size;
	memcpy(to->b, from->b, from->size);
}

static void set_size(struct content *c, uint64_t size)
{
	if (size < c->size)
		memset(c->b + size, 0, c->size - size);
	c->size = size;
}

static void was_published(struct slot *s)
{
	copy_content(&s->pub, &s->now);
	s->published = true;
	s->dirty = s->unsure = false;
}

static void step_open(struct world *w, struct slot *s)
{
	int i = 0;
	bool writes = pick(w, 2), empty = writes && pick(w, 6) == 0;
	unsigned flags = writes ? FILE_WRITE | (empty ? FILE_TRUNCATE : 0) : 0;

	while (i < NHANDLES && s->h[i])
		i++;
	if (i == NHANDLES)
		return;
	if (s->named && (s->published || nhandles(s, false))) {
		struct file *f = any_handle(s, false);
		struct place place = { .kind = PLACE_DRAFT };
		int r;
		if (f && !s->published)
			r = kit_open(w->e, f->fileid, place, flags, &s->h[i]);
		else
			r = kit_open_name(w->e, s->name, flags, &s->h[i]);
		if (r < 0) {
			assert_true(w->faults);
			w->failed++;
			s->h[i] = NULL;
			return;
		}
		if (empty) {
			set_size(&s->now, 0);
			s->dirty = true;
		}
	} else if (!nhandles(s, false)) {
		if (w->faults)
			disarm(w); /* names are not what is tested here */
		assert_int_equal(kit_create(w->e, s->name, &s->h[i]), 0);
		set_size(&s->now, 0);
		s->named = true;
		s->published = s->dirty = s->unsure = false;
		writes = true;
	} else {
		return;
	}
	s->writes[i] = writes;
}

static void step_close(struct world *w, struct slot *s, int i)
{
	bool named = s->named, was_dirty = s->dirty || !s->published;

	if (!s->h[i])
		return;
	int r = kit_close(s->h[i], s->writes[i] ? FILE_WRITE : 0);
	bool last_writer = s->writes[i] && nhandles(s, true) == 1;
	s->h[i] = NULL;
	if (!nhandles(s, true) && named && was_dirty) {
		/* After a failure, the last one to leave tries again. */
		if (!r && (last_writer || !nhandles(s, false)))
			was_published(s);
		assert_true(!r || w->faults);
		w->failed += r < 0;
	}
	if (nhandles(s, false))
		return;
	if (!named) {
		set_size(&s->now, 0);
		s->published = s->dirty = false;
	} else if (!s->published) {
		s->named = false; /* the draft was lost */
		set_size(&s->now, 0);
	} else {
		copy_content(&s->now, &s->pub);
		s->dirty = false;
	}
}

static void step_unlink(struct world *w, struct slot *s)
{
	if (!s->named)
		return;
	int r = kit_unlink(w->e, s->name);
	if (r) {
		assert_true(r < 0 && w->faults);
		w->failed++;
		return;
	}
	s->named = false;
	if (!nhandles(s, false)) {
		set_size(&s->now, 0);
		s->published = s->dirty = false;
	}
}

/* Changes --------------------------------------------------------------------------- */

/*
 * After a call that failed: each byte is as it was, or as it should have become;
 * the size is as it was. The model takes over what there is.
 */
static void take_over(struct world *w, struct slot *s, struct file *f, uint64_t off,
		      const uint8_t *new, uint64_t len, int64_t r)
{
	int64_t n;

	assert_true(w->faults || r == -ENOSPC);
	w->failed++;
	if (!w->faults && new)
		return; /* a write that found no room: nothing of it may be there */
	if (off >= s->now.size)
		return;
	if (len > s->now.size - off)
		len = s->now.size - off;
	do {
		n = kit_read(f, off, w->old, len);
	} while (n < 0);
	assert_int_equal(n, len);
	for (uint64_t i = 0; i < len; i++) {
		uint8_t is = w->old[i], was = s->now.b[off + i];
		if (is != was && is != (new ? new[i] : 0))
			fail_msg("%s: byte %lu is %u after a failure, was %u", s->name, off + i,
				 is, was);
		s->now.b[off + i] = is;
	}
}

static void fill_buf(struct world *w, uint64_t len)
{
	uint64_t v = random_next(&w->random);

	for (uint64_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			v = v * 6364136223846793005ULL + 1442695040888963407ULL;
		w->buf[i] = (uint8_t)(v >> (i % 8 * 8) | 1); /* never zero */
	}
}

static void step_write(struct world *w, struct slot *s, struct file *f)
{
	uint64_t off = pick_off(w, s), len = pick_len(w, off);

	fill_buf(w, len);
	int64_t r = kit_write(f, off, w->buf, len);
	if (r < 0) {
		take_over(w, s, f, off, w->buf, len, r);
		return;
	}
	assert_int_equal(r, len);
	memcpy(s->now.b + off, w->buf, len);
	if (s->now.size < off + len)
		s->now.size = off + len;
	s->dirty = true;
}

/* As cp, tar and log files do. */
static void step_append(struct world *w, struct slot *s, struct file *f)
{
	uint64_t each = pick(w, 2) ? 4096 : 1 + pick(w, 3000);

	for (uint64_t n = pick(w, 200); n && s->now.size + each <= BYTES_MAX; n--) {
		uint64_t off = s->now.size;
		fill_buf(w, each);
		int64_t r = kit_write(f, off, w->buf, each);
		if (r < 0) {
			take_over(w, s, f, off, w->buf, each, r);
			continue;
		}
		memcpy(s->now.b + off, w->buf, each);
		s->now.size += each;
		s->dirty = true;
	}
}

static void step_truncate(struct world *w, struct slot *s, struct file *f)
{
	uint64_t size = pick_off(w, s);
	int64_t r = kit_truncate(f, size);

	if (r < 0) {
		uint64_t tail = 4096 - size % 4096;
		take_over(w, s, f, size, NULL, tail, r);
		return;
	}
	set_size(&s->now, size);
	s->dirty = true;
}

static void step_fallocate(struct world *w, struct slot *s, struct file *f)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	int mode = modes[pick(w, 6)];
	uint64_t off = pick_off(w, s), len = pick_len(w, off);
	bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	int64_t r = kit_fallocate(f, mode, off, len);

	if (r < 0) {
		if (zeroes)
			take_over(w, s, f, off, NULL, len, r);
		assert_true(w->faults || r == -ENOSPC);
		s->dirty |= file_is_dirty(f); /* an edge may have been zeroed */
		return;
	}
	if (zeroes && off < s->now.size) {
		uint64_t n = s->now.size - off < len ? s->now.size - off : len;
		memset(s->now.b + off, 0, n);
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) && s->now.size < off + len)
		s->now.size = off + len;
	s->dirty = true;
}

static void step_copy(struct world *w, struct slot *s, struct file *f)
{
	struct slot *from = &w->slot[pick(w, NFILES)];
	struct file *src = any_handle(from, false);
	uint64_t off = pick_off(w, from), off2 = pick_off(w, s), len;

	if (!src)
		return;
	if (pick(w, 2)) {
		off -= off % 4096;
		off2 -= off2 % 4096;
	}
	len = pick_len(w, off > off2 ? off : off2);
	if (pick(w, 3) == 0)
		len = BYTES_MAX - (off > off2 ? off : off2);
	if (from == s && off < off2 + len && off2 < off + len)
		return;
	uint64_t n = off < from->now.size ? from->now.size - off : 0;
	if (n > len)
		n = len;
	memcpy(w->buf, from->now.b + off, n);
	int64_t r = kit_copy(src, off, f, off2, len);
	uint64_t done = r > 0 ? (uint64_t)r : 0;
	assert_true(done <= n);
	memcpy(s->now.b + off2, w->buf, done);
	if (done && s->now.size < off2 + done)
		s->now.size = off2 + done;
	s->dirty |= done > 0;
	if (r < 0 || done < n)
		take_over(w, s, f, off2 + done, w->buf + done, n - done,
			  r < 0 ? r : -ENOSPC);
}

static void step_publish(struct world *w, struct slot *s, struct file *f)
{
	bool fsync = pick(w, 2);
	bool due = s->named && (s->dirty || (!s->published && fsync));
	int64_t r = kit_publish(f, fsync);

	if (r < 0) {
		assert_true(w->faults || r == -ENOSPC);
		w->failed++;
		return;
	}
	if (due)
		was_published(s);
	assert_int_equal(file_is_dirty(f), s->named ? 0 : file_is_dirty(f));
}

static void check_seek(struct world *w, struct slot *s, struct file *f)
{
	uint64_t off = pick_off(w, s);
	int64_t data = kit_seek(f, SEEK_DATA, off), hole = kit_seek(f, SEEK_HOLE, off);

	if (off >= s->now.size) {
		assert_int_equal(data, -ENXIO);
		assert_int_equal(hole, -ENXIO);
		return;
	}
	/* What is called a hole is zeros; data may be anything. */
	uint64_t end = data < 0 ? s->now.size : (uint64_t)data;
	assert_true(data == -ENXIO || (end >= off && end < s->now.size));
	for (uint64_t i = off; i < end; i++)
		if (s->now.b[i])
			fail_msg("%s: byte %lu is called a hole", s->name, i);
	assert_true(hole >= (int64_t)off && hole <= (int64_t)s->now.size);
	assert_true((data == (int64_t)off) == (hole > (int64_t)off));
}

/* The walk ---------------------------------------------------------------------------- */

static inline void step(struct world *w)
{
	w->busy = (int)pick(w, NFILES);
	struct slot *s = &w->slot[w->busy];
	struct file *f = any_handle(s, true), *r = any_handle(s, false);
	uint64_t what = pick(w, 100);

	w->publishing = (what >= 15 && what < 27) || (what >= 28 && what < 40);
	w->unlinking = what == 27;
	if (what < 15)
		step_open(w, s);
	else if (what < 27)
		step_close(w, s, (int)pick(w, NHANDLES));
	else if (what < 28)
		step_unlink(w, s);
	else if (what < 40 && f)
		step_publish(w, s, f);
	else if (what < 45 && r)
		check_seek(w, s, r);
	else if (what < 55 && r)
		check_read(w, s, r, pick_off(w, s), 1 + pick(w, 100000));
	else if (what < 72 && f)
		step_write(w, s, f);
	else if (what < 80 && f)
		step_append(w, s, f);
	else if (what < 85 && f)
		step_truncate(w, s, f);
	else if (what < 92 && f)
		step_fallocate(w, s, f);
	else if (f)
		step_copy(w, s, f);
	w->busy = -1;
	check_file(w, s);
	check_name(w, s);
}

static inline void close_all(struct world *w)
{
	for (int i = 0; i < NFILES; i++)
		for (int k = 0; k < NHANDLES; k++)
			step_close(w, &w->slot[i], k);
}
