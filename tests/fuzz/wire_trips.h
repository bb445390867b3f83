/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Every message of the wire: a random one that is right, and what holds of any
 * bytes whatever: what is read is written as the very same bytes.
 */
#include "engine/wire.h"
#include "tests/fuzz/roundtrip.h"
#include "tests/unit/bodies_kit.h"

enum trip {
	TRIP_HEADER, TRIP_HELLO, TRIP_CHALLENGE, TRIP_PROOF, TRIP_WELCOME, TRIP_STAT,
	TRIP_KV, TRIP_KV_ANSWER, TRIP_WATCH, TRIP_NUMBER, TRIP_PAGES, TRIP_SLICES,
	TRIP_SLICE_PAGES, TRIP_RESULTS, TRIP_SPAN, TRIP_SESSION, TRIP_FENCE, TRIP_PIN,
	TRIP_OPEN, TRIP_OPENED, TRIP_RDMA, TRIP_OBJECT, TRIP_RECALL, TRIP_ABOUT, TRIP_SCRUB,
	TRIP_SCRUB_REPORT, TRIP_STATS, NTRIPS,
};

static inline int trip_fixed(enum trip t, struct bytes b, struct writer *w)
{
	union {
		struct wire_hello hello;
		struct wire_challenge challenge;
		struct wire_proof proof;
		struct wire_welcome welcome;
		struct wire_stat stat;
		struct wire_watch watch;
		struct wire_span span;
		struct wire_open open;
		struct wire_object object;
		struct wire_recall recall;
		struct wire_about about;
		struct wire_scrub scrub;
		struct bytes text;
		uint32_t number;
		uint64_t session;
	} m;

#define TRIP(what, name, ...)                                                                     \
	case what:                                                                                \
		if (wire_read_##name(b, &m.__VA_ARGS__) < 0)                                      \
			return -1;                                                                \
		wire_write_##name(w, &m.__VA_ARGS__);                                             \
		return 0;
	switch (t) {
	TRIP(TRIP_HELLO, hello, hello)
	TRIP(TRIP_CHALLENGE, challenge, challenge)
	TRIP(TRIP_PROOF, proof, proof)
	TRIP(TRIP_WELCOME, welcome, welcome)
	TRIP(TRIP_STAT, stat, stat)
	TRIP(TRIP_WATCH, watch, watch)
	TRIP(TRIP_SPAN, span, span)
	TRIP(TRIP_OPEN, open, open)
	TRIP(TRIP_OBJECT, object, object)
	TRIP(TRIP_RECALL, recall, recall)
	TRIP(TRIP_ABOUT, about, about)
	TRIP(TRIP_SCRUB, scrub, scrub)
	case TRIP_STATS:
		if (wire_read_stats(b, &m.text) < 0)
			return -1;
		wire_write_stats(w, m.text);
		return 0;
	case TRIP_SESSION:
		if (wire_read_session(b, &m.session) < 0)
			return -1;
		wire_write_session(w, m.session);
		return 0;
	case TRIP_FENCE:
		if (wire_read_fence(b, &m.number) < 0)
			return -1;
		wire_write_fence(w, m.number);
		return 0;
	default:
		if (wire_read_watch_number(b, &m.number) < 0)
			return -1;
		wire_write_watch_number(w, m.number);
		return 0;
	}
#undef TRIP
}

static inline int trip_header(struct bytes b, struct writer *w)
{
	struct wire_header h;

	if (b.len != WIRE_HEADER || wire_get_header(b.p, &h) < 0)
		return -1;
	must(h.len <= WIRE_BODY_MAX, "a header's length");
	wire_put_header(write_room(w, WIRE_HEADER), &h);
	return 0;
}

static inline int trip_kv(struct bytes b, struct writer *w)
{
	struct wire_kv m;

	if (wire_read_kv(b, &m) < 0)
		return -1;
	struct kv_req req = { .compares = m.compares, .writes = m.writes, .reads = m.reads,
			      .ncompares = m.ncompares, .nwrites = m.nwrites,
			      .nreads = m.nreads, .reserve = m.reserve,
			      .needs_room = m.needs_room,
			      .session = m.quiet };
	wire_write_kv(w, &req, m.after);
	wire_kv_fini(&m);
	return 0;
}

static inline int trip_kv_answer(struct bytes b, struct writer *w)
{
	struct kv_req req = { 0 };
	const uint8_t *p = b.p;

	if (b.len >= 10)
		req.nreads = p[8] | (uint32_t)p[9] << 8;
	int r = wire_read_kv_answer(b, &req);
	if (!r)
		wire_write_kv_answer(w, &req);
	kv_req_fini(&req);
	return r;
}

static inline int trip_rdma(struct bytes b, struct writer *w)
{
	struct wire_rdma m;

	if (wire_read_rdma(b, &m) < 0)
		return -1;
	for (uint32_t i = 1; i < m.nsegments; i++)
		must(m.segments[i].page >= m.segments[i - 1].page + m.segments[i - 1].pages,
		     "segments in order");
	wire_write_rdma(w, &m);
	wire_rdma_fini(&m);
	return 0;
}

static inline int trip_opened(struct bytes b, struct writer *w)
{
	struct wire_opened m;

	if (wire_read_opened(b, &m) < 0)
		return -1;
	wire_write_opened(w, &m);
	wire_results_fini(&m.pins);
	return 0;
}

static inline int trip_scrub_report(struct bytes b, struct writer *w)
{
	struct scrub_report m;

	if (wire_read_scrub_report(b, &m) < 0)
		return -1;
	wire_write_scrub_report(w, &m);
	scrub_report_fini(&m);
	return 0;
}

static inline int trip_list(enum trip t, struct bytes b, struct writer *w)
{
	enum wire_form form = t == TRIP_PAGES ? WIRE_PAGES :
			      t == TRIP_SLICES ? WIRE_SLICES : WIRE_SLICE_PAGES;
	struct wire_results results;
	struct wire_items items;
	struct wire_pin pin;

	if (t == TRIP_PIN) {
		if (wire_read_pin(b, &pin) < 0)
			return -1;
		wire_write_pin(w, &pin);
		wire_items_fini(&pin.items);
		return 0;
	}
	if (t == TRIP_RESULTS) {
		if (wire_read_results(b, &results) < 0)
			return -1;
		wire_write_results(w, &results);
		wire_results_fini(&results);
		return 0;
	}
	if (wire_read_items(b, form, &items) < 0)
		return -1;
	wire_write_items(w, form, &items);
	wire_items_fini(&items);
	return 0;
}

/* Does it parse as t? Aborts if it does not come out as it went in. */
static inline bool trip(enum trip t, struct bytes b)
{
	struct writer w = { 0 };
	int r;

	switch (t) {
	case TRIP_HEADER:
		r = trip_header(b, &w);
		break;
	case TRIP_KV:
		r = trip_kv(b, &w);
		break;
	case TRIP_KV_ANSWER:
		r = trip_kv_answer(b, &w);
		break;
	case TRIP_RDMA:
		r = trip_rdma(b, &w);
		break;
	case TRIP_OPENED:
		r = trip_opened(b, &w);
		break;
	case TRIP_SCRUB_REPORT:
		r = trip_scrub_report(b, &w);
		break;
	case TRIP_PAGES:
	case TRIP_SLICES:
	case TRIP_SLICE_PAGES:
	case TRIP_RESULTS:
	case TRIP_PIN:
		r = trip_list(t, b, &w);
		break;
	default:
		r = trip_fixed(t, b, &w);
	}
	if (r < 0) {
		must(!w.len, "what does not parse yields nothing");
		writer_fini(&w);
		return false;
	}
	same_bytes(b, &w, "a message");
	return true;
}

/* Random messages, all right -------------------------------------------------- */

static inline void random_fill(struct dice *d, void *to, size_t n)
{
	uint8_t *p = to;

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)roll(d, 256);
}

/* A run of a buffer that is full of chance, long ones seldom. */
static inline struct bytes random_run(struct dice *d, size_t least, size_t most)
{
	static uint8_t full[3000];

	if (!full[0] && !full[1])
		random_fill(d, full, sizeof(full));
	size_t n = least + roll(d, roll(d, 10) ? 20 : most - least + 1);
	if (n > most)
		n = most;
	return BYTES_OF(full + roll(d, sizeof(full) - n), n);
}

static inline void random_header(struct dice *d, struct writer *w)
{
	static const uint16_t types[] = { 16, 18, 19, 20, 21, 23, 32, 33, 34, 36, 37, 40, 41, 48, 49 };
	struct wire_header h = { .len = (uint32_t)roll(d, WIRE_BODY_MAX + 1), .id = 1 + roll(d, 99) };

	h.type = types[roll(d, sizeof(types) / sizeof(types[0]))];
	h.flags = (uint16_t)roll(d, 2);
	h.timeout_ms = (uint32_t)roll(d, 9);
	if (h.type == WIRE_KV && h.flags && h.len && !roll(d, 2))
		h.flags |= WIRE_MORE;
	if (!roll(d, 4))
		h = (struct wire_header){ .type = (uint16_t)(1 + roll(d, 5)) };
	wire_put_header(write_room(w, WIRE_HEADER), &h);
}

static inline void random_beginning(struct dice *d, enum trip t, struct writer *w)
{
	struct wire_hello hello = { .version_min = (uint16_t)roll(d, 3), .features = 1 };
	struct wire_challenge challenge = { .version = 1, .features = (uint32_t)roll(d, 2) };
	struct wire_welcome welcome = { .session = 1 + roll(d, 99), .incarnation = roll(d, 0),
					.pool_id = roll(d, 0), .pool_pages = (uint32_t)roll(d, 0),
					.keep_alive_ms = 10000, .max_requests = 64,
					.max_pins = 9, .max_lanes = 4, .kv_compares = 1024,
					.kv_writes = 1024,
					.kv_reads = 1024, .kv_bytes = 1 << 20 };

	hello.version_max = (uint16_t)(hello.version_min + roll(d, 3));
	hello.kind = (uint8_t)roll(d, 2);
	hello.session = hello.kind || !roll(d, 2) ? 1 + roll(d, 1000) : 0;
	hello.number = hello.kind ? 1 + (uint32_t)roll(d, 1000) : 0;
	hello.read_only = roll(d, 2);
	hello.name = random_run(d, 0, WIRE_NAME_MAX);
	random_fill(d, hello.nonce, WIRE_NONCE);
	random_fill(d, challenge.nonce, WIRE_NONCE);
	random_fill(d, challenge.proof, WIRE_NONCE);
	random_fill(d, welcome.secret, WIRE_NONCE);
	if (t == TRIP_HELLO)
		wire_write_hello(w, &hello);
	else if (t == TRIP_CHALLENGE)
		wire_write_challenge(w, &challenge);
	else
		wire_write_welcome(w, &welcome);
}

static inline void random_kv(struct dice *d, struct writer *w)
{
	struct kv_compare c[5];
	struct kv_write x[5];
	struct kv_read rd[5];

	for (unsigned i = 0; i < 5; i++) {
		c[i] = (struct kv_compare){ (enum kv_compare_kind)roll(d, 4),
					    random_run(d, 1, KV_KEY_MAX),
					    random_run(d, 1, KV_KEY_MAX), roll(d, 0) };
		x[i] = (struct kv_write){ random_run(d, 1, KV_KEY_MAX), random_run(d, 0, 2000) };
		rd[i] = (struct kv_read){ random_run(d, 1, KV_KEY_MAX),
					  random_run(d, 1, KV_KEY_MAX), (uint32_t)roll(d, 0) };
		if (roll(d, 2))
			x[i].value = rd[i].to = BYTES_NONE;
	}
	struct kv_req req = { .compares = c, .writes = x, .reads = rd,
			      .ncompares = (uint32_t)roll(d, 6), .nwrites = (uint32_t)roll(d, 6),
			      .nreads = (uint32_t)roll(d, 6), .reserve = roll(d, 2),
			      .needs_room = roll(d, 2) };
	wire_write_kv(w, &req, roll(d, 2));
}

static inline void random_kv_answer(struct dice *d, struct writer *w)
{
	struct kv_row row[6];
	struct kv_rows rows[4];

	for (unsigned i = 0; i < 6; i++)
		row[i] = (struct kv_row){ random_run(d, 1, KV_KEY_MAX), random_run(d, 0, 2000),
					  roll(d, 0) };
	for (unsigned i = 0; i < 4; i++)
		rows[i] = (struct kv_rows){ row, (uint32_t)roll(d, 7), roll(d, 2) };
	struct kv_req req = { .rows = roll(d, 4) ? rows : NULL, .nreads = (uint32_t)roll(d, 5),
			      .revision = roll(d, 0) };
	wire_write_kv_answer(w, &req);
}

static inline void random_list(struct dice *d, enum trip t, struct writer *w)
{
	struct wire_item v[20];
	int32_t results[20];
	uint32_t n = (uint32_t)roll(d, 21);

	for (unsigned i = 0; i < 20; i++) {
		v[i] = (struct wire_item){ { (uint32_t)roll(d, 0), (uint32_t)roll(d, 0) },
					   (uint32_t)roll(d, 0) };
		results[i] = (int32_t)roll(d, 0);
	}
	if (t == TRIP_RESULTS)
		wire_write_results(w, &(struct wire_results){ n, results });
	else if (t == TRIP_PIN)
		wire_write_pin(w, &(struct wire_pin){ roll(d, 2), { n, v } });
	else
		wire_write_items(w, t == TRIP_PAGES ? WIRE_PAGES : t == TRIP_SLICES ?
				 WIRE_SLICES : WIRE_SLICE_PAGES, &(struct wire_items){ n, v });
}

static inline void random_text(struct dice *d, struct writer *w)
{
	struct writer text = { 0 };
	uint64_t lines = roll(d, 8);

	for (uint64_t i = 0; i < lines; i++) {
		uint64_t n = roll(d, 60);
		for (uint64_t k = 0; k < n; k++)
			write_u8(&text, (uint8_t)(' ' + roll(d, 95)));
		write_u8(&text, '\n');
	}
	wire_write_stats(w, writer_bytes(&text));
	writer_fini(&text);
}

static inline void random_small(struct dice *d, enum trip t, struct writer *w)
{
	struct wire_stat s = { roll(d, 0), roll(d, 0), roll(d, 0), roll(d, 0), roll(d, 0), roll(d, 0),
			       roll(d, 0), roll(d, 0), roll(d, 0), roll(d, 2) };
	struct wire_watch watch = { (uint32_t)roll(d, 0), random_run(d, 0, KV_KEY_MAX) };
	struct wire_span span = { { (uint32_t)roll(d, 0), (uint32_t)roll(d, 0) },
				  (uint32_t)roll(d, 0), 1 + (uint32_t)roll(d, WIRE_RUN_MAX) };
	struct wire_object object = { 1 + roll(d, 100), { .kind = PLACE_FILEID } };
	struct wire_proof proof;

	if (roll(d, 2))
		object.place = (struct place){ PLACE_NAME, 1 + roll(d, 1000), roll(d, 0) };
	random_fill(d, proof.proof, WIRE_NONCE);
	random_fill(d, proof.before, WIRE_NONCE);
	if (t == TRIP_PROOF)
		wire_write_proof(w, &proof);
	else if (t == TRIP_STAT)
		wire_write_stat(w, &s);
	else if (t == TRIP_WATCH)
		wire_write_watch(w, &watch);
	else if (t == TRIP_SESSION)
		wire_write_session(w, roll(d, 0));
	else if (t == TRIP_FENCE)
		wire_write_fence(w, 1 + (uint32_t)roll(d, 1000));
	else if (t == TRIP_NUMBER)
		wire_write_watch_number(w, (uint32_t)roll(d, 0));
	else if (t == TRIP_OBJECT)
		wire_write_object(w, &object);
	else if (t == TRIP_RECALL)
		wire_write_recall(w, &(struct wire_recall){ object, roll(d, 2) });
	else if (t == TRIP_STATS)
		random_text(d, w);
	else if (t == TRIP_ABOUT)
		wire_write_about(w, &(struct wire_about){ roll(d, 0), (int64_t)roll(d, 0),
							  roll(d, 0) });
	else
		wire_write_span(w, &span);
}

static inline void random_open(struct dice *d, struct writer *w)
{
	struct wire_open m = { roll(d, 0), random_run(d, 1, KV_KEY_MAX),
			       random_run(d, 0, KV_KEY_MAX),
			       (uint32_t)roll(d, WIRE_OPEN_MAX + 1) };

	wire_write_open(w, &m);
}

static inline void random_rdma(struct dice *d, struct writer *w)
{
	struct wire_segment segments[3];
	struct wire_port ports[3];
	uint32_t keys[9];
	struct wire_rdma m = { .why = random_run(d, 0, WIRE_WHY_MAX),
			       .nsegments = (uint32_t)roll(d, 4), .nports = (uint32_t)roll(d, 4),
			       .segments = segments, .ports = ports, .keys = keys };

	random_fill(d, m.ticket, sizeof(m.ticket));
	for (unsigned i = 0; i < 3; i++) {
		segments[i] = (struct wire_segment){ i * 5000, 1 + (uint32_t)roll(d, 5000),
						     roll(d, 0) >> 1 };
		random_fill(d, ports[i].address, sizeof(ports[i].address));
		ports[i].port = (uint16_t)roll(d, 65536);
	}
	for (unsigned i = 0; i < 9; i++)
		keys[i] = (uint32_t)roll(d, 0);
	wire_write_rdma(w, &m);
}

static inline void random_scrub(struct dice *d, enum trip t, struct writer *w)
{
	struct wire_scrub m = { .begins = roll(d, 2) };
	struct scrub_bad bad[3];
	struct scrub_report r = { roll(d, 2), 0, roll(d, 0), roll(d, 0), roll(d, 0), roll(d, 0),
				  roll(d, 0), roll(d, 0), roll(d, 0), (uint32_t)roll(d, 4), bad };

	m.evict_bad = m.begins && roll(d, 2);
	m.rate = m.begins ? roll(d, 0) : 0;
	r.result = r.ended && roll(d, 2) ? -ECANCELED : 0;
	for (unsigned i = 0; i < 3; i++)
		bad[i] = (struct scrub_bad){ roll(d, 0), (enum scrub_reason)(1 + roll(d, 4)),
					     roll(d, 2), random_run(d, 0, 300) };
	if (t == TRIP_SCRUB)
		wire_write_scrub(w, &m);
	else
		wire_write_scrub_report(w, &r);
}

static inline void random_opened(struct dice *d, struct writer *w)
{
	int32_t results[20];
	struct wire_opened m = { roll(d, 0), random_run(d, 0, 2000),
				 { (uint32_t)roll(d, 21), results }, random_run(d, 0, 3000) };

	for (unsigned i = 0; i < 20; i++)
		results[i] = (int32_t)roll(d, 0);
	wire_write_opened(w, &m);
}

static inline void random_message(struct dice *d, enum trip t, struct writer *w)
{
	switch (t) {
	case TRIP_HEADER:
		random_header(d, w);
		break;
	case TRIP_HELLO:
	case TRIP_CHALLENGE:
	case TRIP_WELCOME:
		random_beginning(d, t, w);
		break;
	case TRIP_KV:
		random_kv(d, w);
		break;
	case TRIP_KV_ANSWER:
		random_kv_answer(d, w);
		break;
	case TRIP_OPEN:
		random_open(d, w);
		break;
	case TRIP_RDMA:
		random_rdma(d, w);
		break;
	case TRIP_SCRUB:
	case TRIP_SCRUB_REPORT:
		random_scrub(d, t, w);
		break;
	case TRIP_OPENED:
		random_opened(d, w);
		break;
	case TRIP_PAGES:
	case TRIP_SLICES:
	case TRIP_SLICE_PAGES:
	case TRIP_RESULTS:
	case TRIP_PIN:
		random_list(d, t, w);
		break;
	default:
		random_small(d, t, w);
	}
}
