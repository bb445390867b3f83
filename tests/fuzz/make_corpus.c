/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the fuzzers: make_corpus tests/fuzz/corpus. They
 * are kept beside what fuzzers found since; run it again after a format changed. */
#include <stdio.h>
#include <sys/stat.h>

#include "engine/tier_replay.h"
#include "index/keys.h"
#include "index/value.h"
#include "tests/fuzz/wire_trips.h"
#include "tests/unit/bodies_kit.h"

static const char *top;

static void seed(const char *fuzzer, const char *name, unsigned n, struct bytes b)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", top, fuzzer);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s-%u", top, fuzzer, name, n);
	FILE *f = fopen(path, "w");
	if (!f || fwrite(b.p, 1, b.len, f) != b.len || fclose(f)) {
		perror(path);
		exit(1);
	}
}

/* Without its frame: the fuzzer puts one on. */
static void seed_value(const char *name, unsigned n, struct writer *w)
{
	seed("record", name, n, BYTES_OF(w->p + VALUE_HEADER, w->len - VALUE_HEADER));
	writer_fini(w);
}

static void seed_records(struct dice *d)
{
	for (unsigned i = 0; i < 12; i++) {
		struct writer w = { 0 };
		char name[255];
		uint8_t body[64];
		struct record r = random_record(d, name, body);
		record_encode(&r, &w);
		seed_value("record", i, &w);
	}
}

/* The first byte: a file, or entries. */
static void seed_disk(struct dice *d)
{
	const struct record_head h = { RECORD_VERSION, 42, 7, 1 };
	struct writer entries = { 0 }, file = { 0 };
	uint64_t number = 0;
	char name[255];
	uint8_t body[64];

	write_u8(&file, 1);
	entry_head(&entries, &h);
	records_write(&file, &number, writer_bytes(&entries));
	entries.len = 0;
	write_u8(&entries, 0);
	for (unsigned i = 0; i < 4; i++) {
		struct record r = random_record(d, name, body);
		struct writer w = { 0 };
		record_encode(&r, &w);
		struct key k = key_file(i + 2);
		entry_put(&entries, key_bytes(&k), writer_bytes(&w));
		entry_del(&entries, key_bytes(&k));
		entry_segment(&entries, i, i + 1);
		writer_fini(&w);
	}
	entry_end(&entries);
	seed("records", "entries", 0, writer_bytes(&entries));
	records_write(&file, &number, BYTES_OF(entries.p + 1, entries.len - 1));
	seed("records", "file", 0, writer_bytes(&file));
	writer_fini(&entries);
	writer_fini(&file);
}

static void seed_small(struct dice *d)
{
	struct writer_name names[] = { { 1, 256, bytes_str("a"), 0 }, { 9, 512, bytes_str("bcd"), 7 } };
	struct writer_state draft = { .draft = true, .names = names, .nnames = 2 };
	struct writer_state placed = { .place = { PLACE_NAME, 5, 1024 } };
	struct dir_times t = { random_time(d), random_time(d), 77 };
	struct index_super s = { .fs_id = 1, .pool_id = 2, .made = random_time(d) };
	struct writer w[5] = { 0 };

	writer_state_encode(&draft, &w[0]);
	writer_state_encode(&placed, &w[1]);
	dir_times_encode(&t, &w[2]);
	super_encode(&s, &w[3]);
	number_encode(77, &w[4]);
	for (unsigned i = 0; i < 5; i++)
		seed_value("small", i, &w[i]);
}

static void seed_bodies(struct dice *d)
{
	for (unsigned i = 0; i < 8; i++) {
		struct extents e = random_extents(d, i * 2);
		struct block_ref *v = random_blocks(d, i);
		struct writer w[2] = { 0 };
		body_encode_extents(&e, &w[0]);
		body_encode_blocks(v, i, &w[1]);
		seed("body", "extents", i, writer_bytes(&w[0]));
		if (w[1].len)
			seed("body", "blocks", i, writer_bytes(&w[1]));
		writer_fini(&w[0]);
		writer_fini(&w[1]);
		extents_fini(&e);
		free(v);
	}
}

static void seed_keys(void)
{
	struct key keys[] = {
		key_name(1, 256, bytes_str("name")), key_draft_name(7, 99999, bytes_str("n"), 1),
		key_file(1), key_times(2), key_ndirs(3), key_writer(4, 1), key_draft_times(5, 2),
		key_xattr(6, bytes_str("user.x")), key_draft_xattr(6, bytes_str("user.y"), 3),
		key_block(7, 8), key_meta("super"), key_note(7, 8, 1),
		key_gone(9, 0, 1), key_hides(9, 1, 256, 1),
	};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		seed("keys", "key", i, key_bytes(&keys[i]));
}

/* Each kind of message three times, its kind in front. */
static void seed_wire(struct dice *d)
{
	for (unsigned i = 0; i < 3 * NTRIPS; i++) {
		struct writer w = { 0 };
		write_u8(&w, (uint8_t)(i % NTRIPS));
		random_message(d, i % NTRIPS, &w);
		seed("wire", "message", i, writer_bytes(&w));
		writer_fini(&w);
	}
}

/* A message of fuzz_server.c. */
static void say(struct writer *all, uint8_t type, const struct writer *body)
{
	write_u8(all, type);
	write_u8(all, 0);
	write_u16(all, (uint16_t)body->len);
	write_bytes(all, body->p, body->len);
}

/* Slices, and bytes to and from them, and some that are not there. */
static void seed_lanes(struct dice *d)
{
	for (unsigned i = 0; i < 8; i++) {
		struct writer all = { 0 }, w = { 0 };
		write_u8(&all, 3);
		write_u16(&w, 1);
		write_u32(&w, 3);
		say(&all, WIRE_ALLOC, &w);
		for (unsigned k = 0; k < 8; k++) {
			struct wire_span span = { { (uint32_t)roll(d, 2), 1 }, (uint32_t)roll(d, 9000),
						  1 + (uint32_t)roll(d, 4000) };
			bool writes = roll(d, 2);
			w.len = 0;
			if (!roll(d, 6)) {
				wire_write_fence(&w, 1 + (uint32_t)roll(d, 2));
				say(&all, WIRE_FENCE, &w);
				continue;
			}
			wire_write_span(&w, &span);
			if (writes)
				memset(write_room(&w, span.bytes), 7, span.bytes);
			say(&all, writes ? WIRE_WRITE : WIRE_READ, &w);
		}
		seed("server", "lane", i, writer_bytes(&all));
		writer_fini(&all);
		writer_fini(&w);
	}
}

/* Ten messages that parse, of one that was let in; see fuzz_server.c. */
static void seed_server(struct dice *d)
{
	static const struct {
		enum trip trip;
		uint8_t type;
	} says[] = {
		{ TRIP_KV, WIRE_KV }, { TRIP_WATCH, WIRE_WATCH }, { TRIP_NUMBER, WIRE_UNWATCH },
		{ TRIP_PAGES, WIRE_ALLOC }, { TRIP_SLICE_PAGES, WIRE_SEAL },
		{ TRIP_PIN, WIRE_PIN }, { TRIP_SESSION, WIRE_DROP_KEYS },
		{ TRIP_OPEN, WIRE_OPEN }, { TRIP_OBJECT, WIRE_EVICT }, { TRIP_OBJECT, WIRE_ABOUT },
		{ TRIP_RECALL, WIRE_RECALL },
	};
	enum { N = sizeof(says) / sizeof(says[0]) };

	for (unsigned i = 0; i < N; i++) {
		struct writer all = { 0 };
		write_u8(&all, 1);
		for (unsigned k = 0; k < 10; k++) {
			unsigned what = (unsigned)roll(d, N);
			struct writer w = { 0 };
			random_message(d, says[what].trip, &w);
			if (what == 3) { /* one of three pages: there is room */
				w.len = 0;
				write_u16(&w, 1);
				write_u32(&w, 3);
			}
			say(&all, says[what].type, &w);
			writer_fini(&w);
		}
		seed("server", "session", i, writer_bytes(&all));
		writer_fini(&all);
	}
}

/* Who asks for RDMA, and fences its numbers, among what else has no seed yet. */
static void seed_rdma(struct dice *d)
{
	static const uint8_t types[] = { WIRE_RDMA, WIRE_FENCE, WIRE_UNPIN, WIRE_STAT,
					WIRE_PING, WIRE_STATS };

	for (unsigned i = 0; i < 4; i++) {
		struct writer all = { 0 }, w = { 0 };
		write_u8(&all, i ? 5 : 1); /* one that does not know it asks, too */
		for (unsigned k = 0; k < 10; k++) {
			uint8_t type = types[roll(d, sizeof(types))];
			w.len = 0;
			if (type == WIRE_RDMA || type == WIRE_FENCE)
				wire_write_fence(&w, 1 + (uint32_t)roll(d, 4));
			else if (type == WIRE_UNPIN)
				random_list(d, TRIP_SLICES, &w);
			say(&all, type, &w);
		}
		say(&all, WIRE_BYE, &(struct writer){ 0 });
		seed("server", "rdma", i, writer_bytes(&all));
		writer_fini(&all);
		writer_fini(&w);
	}
}

int main(int argc, char **argv)
{
	struct dice d = { 1 };

	if (argc != 2) {
		fprintf(stderr, "usage: make_corpus DIR\n");
		return 2;
	}
	top = argv[1];
	seed_records(&d);
	seed_small(&d);
	seed_disk(&d);
	seed_bodies(&d);
	seed_keys();
	seed_wire(&d);
	seed_server(&d);
	seed_lanes(&d);
	seed_rdma(&d);
	return 0;
}
