/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of slices, open objects, data connections and scrubs (wire.c). */
#include "common/cleanup.h"
#include "engine/wire_parts.h"
#include "index/index.h"

/* Scrubbing ---------------------------------------------------------------------- */

void wire_write_scrub(struct writer *w, const struct wire_scrub *m)
{
	write_u8(w, m->begins);
	write_u8(w, m->evict_bad);
	write_u64(w, m->rate);
}

int wire_read_scrub(struct bytes body, struct wire_scrub *ret)
{
	struct reader r = reader_of(body);
	struct wire_scrub m = { .begins = read_bool(&r) };

	m.evict_bad = read_bool(&r);
	m.rate = read_u64(&r);
	if (!m.begins && (m.evict_bad || m.rate))
		return -EPROTO;
	int e = finish(&r);
	if (!e)
		*ret = m;
	return e;
}

enum { BAD_MIN = 8 + 1 + 1 + 2 }; /* bytes of one that is bad, without its path */

void wire_write_scrub_report(struct writer *w, const struct scrub_report *m)
{
	write_u8(w, m->ended);
	write_u32(w, (uint32_t)wire_result(m->result));
	write_u64(w, m->objects);
	write_u64(w, m->bytes);
	write_u64(w, m->total);
	write_u64(w, m->bad_objects);
	write_u64(w, m->evicted);
	write_u64(w, m->changed);
	write_u64(w, m->elsewhere);
	write_u16(w, (uint16_t)m->nbad);
	for (uint32_t i = 0; i < m->nbad; i++) {
		write_u64(w, m->bad[i].fileid);
		write_u8(w, (uint8_t)m->bad[i].reason);
		write_u8(w, m->bad[i].evicted);
		write_short(w, m->bad[i].path);
	}
}

static int read_all_bad(struct reader *r, struct scrub_report *m)
{
	m->nbad = read_u16(r);
	m->bad = read_room(r, m->nbad, BAD_MIN, sizeof(*m->bad));
	if (!m->bad)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m->nbad; i++) {
		struct scrub_bad *b = &m->bad[i];
		b->fileid = read_u64(r);
		uint8_t reason = read_u8(r);
		b->evicted = read_bool(r);
		b->path = read_short(r);
		if (reason < SCRUB_BYTES || reason > SCRUB_UNREAD)
			return -EPROTO;
		b->reason = (enum scrub_reason)reason;
	}
	return finish(r);
}

int wire_read_scrub_report(struct bytes body, struct scrub_report *ret)
{
	struct reader r = reader_of(body);
	struct scrub_report m = { .ended = read_bool(&r) };
	int32_t result = (int32_t)read_u32(&r);

	m.result = wire_errno(result);
	m.objects = read_u64(&r);
	m.bytes = read_u64(&r);
	m.total = read_u64(&r);
	m.bad_objects = read_u64(&r);
	m.evicted = read_u64(&r);
	m.changed = read_u64(&r);
	m.elsewhere = read_u64(&r);
	/* One encoding: an errno, and none of what goes on. */
	int e = r.bad || result > 0 || wire_result(m.result) != result ||
		(result && !m.ended) ? -EPROTO : read_all_bad(&r, &m);
	if (e < 0)
		scrub_report_fini(&m);
	else
		*ret = m;
	return e;
}

/* Slices ------------------------------------------------------------------------- */

static void write_slice(struct writer *w, struct slice_id s)
{
	write_u32(w, s.page);
	write_u32(w, s.gen);
}

static struct slice_id read_slice(struct reader *r)
{
	struct slice_id s = { .page = read_u32(r) };

	s.gen = read_u32(r);
	return s;
}

static size_t item_bytes(enum wire_form form)
{
	return (form == WIRE_PAGES ? 0 : 8) + (form == WIRE_SLICES ? 0 : 4);
}

void wire_write_items(struct writer *w, enum wire_form form, const struct wire_items *m)
{
	write_u16(w, (uint16_t)m->n);
	for (uint32_t i = 0; i < m->n; i++) {
		if (form != WIRE_PAGES)
			write_slice(w, m->v[i].slice);
		if (form != WIRE_SLICES)
			write_u32(w, m->v[i].pages);
	}
}

/* To the end of the body. */
static int read_items(struct reader *r, enum wire_form form, struct wire_items *ret)
{
	struct wire_items m = { .n = read_u16(r) };

	if (r->bad || r->left != m.n * item_bytes(form))
		return -EPROTO;
	m.v = calloc(m.n ? m.n : 1, sizeof(*m.v));
	if (!m.v)
		return -ENOMEM;
	for (uint32_t i = 0; i < m.n; i++) {
		if (form != WIRE_PAGES)
			m.v[i].slice = read_slice(r);
		if (form != WIRE_SLICES)
			m.v[i].pages = read_u32(r);
	}
	*ret = m;
	return 0;
}

int wire_read_items(struct bytes body, enum wire_form form, struct wire_items *ret)
{
	struct reader r = reader_of(body);

	return read_items(&r, form, ret);
}

void wire_items_fini(struct wire_items *m)
{
	free(m->v);
	*m = (struct wire_items){ 0 };
}

void wire_write_pin(struct writer *w, const struct wire_pin *m)
{
	write_u8(w, m->each);
	wire_write_items(w, WIRE_SLICE_PAGES, &m->items);
}

int wire_read_pin(struct bytes body, struct wire_pin *ret)
{
	struct reader r = reader_of(body);
	struct wire_pin m = { .each = read_bool(&r) };
	int result = read_items(&r, WIRE_SLICE_PAGES, &m.items);

	if (!result)
		*ret = m;
	return result;
}

void wire_write_results(struct writer *w, const struct wire_results *m)
{
	write_u16(w, (uint16_t)m->n);
	for (uint32_t i = 0; i < m->n; i++)
		write_u32(w, (uint32_t)m->v[i]);
}

static int read_results(struct reader *r, struct wire_results *ret)
{
	struct wire_results m = { .n = read_u16(r) };

	m.v = read_room(r, m.n, 4, sizeof(*m.v));
	if (!m.v)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m.n; i++)
		m.v[i] = (int32_t)read_u32(r);
	*ret = m;
	return 0;
}

int wire_read_results(struct bytes body, struct wire_results *ret)
{
	struct reader r = reader_of(body);
	_cleanup_(wire_results_fini) struct wire_results m = { 0 };
	int result = read_results(&r, &m);

	if (result < 0)
		return result;
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = m;
	m = (struct wire_results){ 0 };
	return 0;
}

void wire_results_fini(struct wire_results *m)
{
	free(m->v);
	*m = (struct wire_results){ 0 };
}

void wire_write_open(struct writer *w, const struct wire_open *m)
{
	write_u64(w, m->fileid);
	write_short(w, m->from);
	write_short(w, m->to);
	write_u32(w, m->max);
}

int wire_read_open(struct bytes body, struct wire_open *ret)
{
	struct reader r = reader_of(body);
	struct wire_open m = { .fileid = read_u64(&r) };

	m.from = read_short(&r);
	m.to = read_short(&r);
	m.max = read_u32(&r);
	if (finish(&r) < 0 || !m.from.len || m.from.len > KV_KEY_MAX || m.to.len > KV_KEY_MAX ||
	    m.max > WIRE_OPEN_MAX)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_opened(struct writer *w, const struct wire_opened *m)
{
	write_u64(w, m->revision);
	write_long(w, m->value);
	wire_write_results(w, &m->pins);
	write_long(w, m->pages);
}

int wire_read_opened(struct bytes body, struct wire_opened *ret)
{
	struct reader r = reader_of(body);
	struct wire_opened m = { .revision = read_u64(&r) };

	m.value = read_long(&r);
	int result = read_results(&r, &m.pins);
	if (result < 0)
		return result;
	m.pages = read_long(&r);
	if (finish(&r) < 0) {
		wire_results_fini(&m.pins);
		return -EPROTO;
	}
	*ret = m;
	return 0;
}

void wire_write_span(struct writer *w, const struct wire_span *m)
{
	write_slice(w, m->slice);
	write_u32(w, m->off);
	write_u32(w, m->bytes);
}

int wire_read_span(struct bytes body, struct wire_span *ret)
{
	struct reader r = reader_of(body);
	struct wire_span m = { .slice = read_slice(&r) };

	m.off = read_u32(&r);
	m.bytes = read_u32(&r);
	if (finish(&r) < 0 || !m.bytes || m.bytes > WIRE_RUN_MAX)
		return -EPROTO;
	*ret = m;
	return 0;
}

void wire_write_rdma(struct writer *w, const struct wire_rdma *m)
{
	write_bytes(w, m->ticket, sizeof(m->ticket));
	write_short(w, m->why);
	write_u16(w, (uint16_t)m->nsegments);
	for (uint32_t i = 0; i < m->nsegments; i++) {
		write_u32(w, m->segments[i].page);
		write_u32(w, m->segments[i].pages);
		write_u64(w, m->segments[i].base);
	}
	write_u16(w, (uint16_t)m->nports);
	for (uint32_t i = 0; i < m->nports; i++) {
		write_bytes(w, m->ports[i].address, sizeof(m->ports[i].address));
		write_u16(w, m->ports[i].port);
		for (uint32_t k = 0; k < m->nsegments; k++)
			write_u32(w, m->keys[i * m->nsegments + k]);
	}
}

static bool segment_is_fine(const struct wire_segment *s, uint64_t from)
{
	uint64_t bytes = (uint64_t)s->pages * PAGE_BYTES;

	return s->page >= from && s->pages && s->pages <= UINT32_MAX - s->page &&
	       bytes <= UINT64_MAX - s->base;
}

static int read_segments(struct reader *r, struct wire_rdma *m)
{
	uint64_t from = 0;

	m->nsegments = read_u16(r);
	m->segments = read_room(r, m->nsegments, 16, sizeof(*m->segments));
	if (!m->segments)
		return r->bad ? -EPROTO : -ENOMEM;
	for (uint32_t i = 0; i < m->nsegments; i++) {
		struct wire_segment *s = &m->segments[i];

		s->page = read_u32(r);
		s->pages = read_u32(r);
		s->base = read_u64(r);
		if (!segment_is_fine(s, from))
			return -EPROTO;
		from = (uint64_t)s->page + s->pages;
	}
	return 0;
}

static int read_ports(struct reader *r, struct wire_rdma *m)
{
	m->nports = read_u16(r);
	m->ports = read_room(r, m->nports, 18 + 4 * (size_t)m->nsegments, sizeof(*m->ports));
	if (!m->ports)
		return r->bad ? -EPROTO : -ENOMEM;
	m->keys = calloc((size_t)m->nports * m->nsegments + 1, sizeof(*m->keys));
	if (!m->keys)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->nports; i++) {
		read_fixed(r, m->ports[i].address, sizeof(m->ports[i].address));
		m->ports[i].port = read_u16(r);
		for (uint32_t k = 0; k < m->nsegments; k++)
			m->keys[i * m->nsegments + k] = read_u32(r);
	}
	return 0;
}

int wire_read_rdma(struct bytes body, struct wire_rdma *ret)
{
	struct reader r = reader_of(body);
	_cleanup_(wire_rdma_fini) struct wire_rdma m = { 0 };

	read_fixed(&r, m.ticket, sizeof(m.ticket));
	m.why = read_short(&r);
	int result = read_segments(&r, &m);
	if (!result)
		result = read_ports(&r, &m);
	if (result < 0)
		return result;
	if (finish(&r) < 0 || m.why.len > WIRE_WHY_MAX)
		return -EPROTO;
	*ret = m;
	m = (struct wire_rdma){ 0 };
	return 0;
}

void wire_rdma_fini(struct wire_rdma *m)
{
	free(m->segments);
	free(m->ports);
	free(m->keys);
	*m = (struct wire_rdma){ 0 };
}

void wire_write_fence(struct writer *w, uint32_t number)
{
	write_u32(w, number);
}

int wire_read_fence(struct bytes body, uint32_t *ret)
{
	struct reader r = reader_of(body);
	uint32_t number = read_u32(&r);

	if (finish(&r) < 0 || !number)
		return -EPROTO;
	*ret = number;
	return 0;
}
