/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The messages between a mount and a node, as docs/protocol.md has them: pure
 * functions between structs and bytes, which know no sockets.
 *
 * wire_write_*() appends a body to a writer. wire_read_*() takes a body apart
 * that may be anything: it reads nothing past its end, believes no count that
 * the bytes which are there could not hold, takes no bytes that are left over,
 * and accepts one encoding only: what was read is written as the same bytes.
 * 0, -EPROTO (it does not parse), -ENOMEM; the output is written on 0 only.
 *
 * Names, keys and values of what was read point into the body. Arrays are on
 * the heap, for the _fini() that is named with them.
 *
 * Threads: any; nothing here is shared.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "index/index.h"

enum {
	WIRE_HEADER = 24,
	WIRE_BODY_MAX = 1179648,  /* of one message: 1 MiB + 128 KiB */
	WIRE_VERSION = 6,
	WIRE_NONCE = 32,          /* bytes of a nonce, a proof, a secret */
	WIRE_NAME_MAX = 255,
	WIRE_KV_COMPARES = 1024,  /* what fits into one KV, whatever the engine */
	WIRE_KV_WRITES = 1024,
	WIRE_KV_READS = 1024,
	WIRE_KV_BYTES = 1 << 20,
	WIRE_SPAN = 16,           /* bytes of a span: READ, and the head of WRITE */
	WIRE_RUN_MAX = 1 << 20,   /* bytes of one READ or WRITE */
	WIRE_OPEN_MAX = 64 << 10, /* bytes of an object that come with its record */
	WIRE_WHY_MAX = 255,       /* bytes of a sentence */
	WIRE_TICKET = 32,
	WIRE_STATS_MAX = 1 << 20, /* bytes of counters as text */
};

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_CHALLENGE = 2,
	WIRE_PROOF = 3,
	WIRE_WELCOME = 4,
	WIRE_READY = 5,
	WIRE_PING = 16,
	WIRE_BYE = 17,
	WIRE_STAT = 18,
	WIRE_KV = 19,
	WIRE_WATCH = 20,
	WIRE_UNWATCH = 21,
	WIRE_RING = 22,
	WIRE_DROP_KEYS = 23,
	WIRE_ALLOC = 32,
	WIRE_SEAL = 33,
	WIRE_PIN = 34,
	WIRE_UNPIN = 35,
	WIRE_FENCE = 36,
	WIRE_OPEN = 37,
	WIRE_RDMA = 38,
	WIRE_SCRUB = 39,
	WIRE_EVICT = 40,
	WIRE_ABOUT = 41,
	WIRE_RECALL = 42,
	WIRE_STATS = 43,
	WIRE_READ = 48,
	WIRE_WRITE = 49,
};

enum wire_flag {
	WIRE_ANSWER = 1 << 0,
	WIRE_MORE = 1 << 1, /* of an answer: goes on in another message */
};

/* Headers ---------------------------------------------------------------------- */

struct wire_header {
	uint32_t len; /* of the body */
	uint16_t type, flags;
	uint64_t id;
	union {
		int32_t result;      /* of an answer */
		uint32_t timeout_ms; /* of a request; 0: none */
	};
};

void wire_put_header(uint8_t to[WIRE_HEADER], const struct wire_header *h);
/* Checks all that a header says by itself: whether a message of this type has
 * an id, and whether it is answered. -EPROTO. */
int wire_get_header(const uint8_t from[WIRE_HEADER], struct wire_header *ret);

/* "KV" for WIRE_KV; "?" for what is no type. */
const char *wire_type_name(uint16_t type);

/* An errno as the wire carries it, both ways: what it has no number for is EIO.
 * 0 and positive outcomes stay. */
int32_t wire_result(int r);
int wire_errno(int32_t result);

/* Beginning --------------------------------------------------------------------- */

enum wire_feature {
	WIRE_FEATURE_RDMA = 1 << 0,   /* knows type RDMA */
	WIRE_FEATURE_VERIFY = 1 << 1, /* of a node: whoever reads is to verify, always */
	WIRE_FEATURE_SCRUB = 1 << 2,  /* knows type SCRUB */
	WIRE_FEATURE_STATS = 1 << 3,  /* knows type STATS */
};

enum wire_kind { WIRE_CONTROL, WIRE_DATA };

struct wire_hello {
	uint16_t version_min, version_max;
	uint32_t features;
	uint8_t kind; /* enum wire_kind */
	bool read_only;
	uint64_t session; /* of a data connection; of a control connection: that it
			     takes the place of, or 0 */
	uint32_t number;  /* of a data connection, which has one; else 0 */
	uint8_t nonce[WIRE_NONCE];
	struct bytes name;
};

struct wire_challenge {
	uint16_t version;
	uint32_t features;
	uint8_t nonce[WIRE_NONCE], proof[WIRE_NONCE];
};

struct wire_proof {
	uint8_t proof[WIRE_NONCE];
	uint8_t before[WIRE_NONCE]; /* of the session that HELLO takes the place of */
};

struct wire_welcome {
	uint64_t session, incarnation, pool_id;
	uint32_t pool_pages, keep_alive_ms, max_requests, max_pins;
	uint32_t max_lanes; /* data connections; 0: READ and WRITE go another way */
	uint32_t kv_compares, kv_writes, kv_reads, kv_bytes; /* in one KV */
	uint8_t secret[WIRE_NONCE];
};

void wire_write_hello(struct writer *w, const struct wire_hello *m);
int wire_read_hello(struct bytes body, struct wire_hello *ret);
void wire_write_challenge(struct writer *w, const struct wire_challenge *m);
int wire_read_challenge(struct bytes body, struct wire_challenge *ret);
void wire_write_proof(struct writer *w, const struct wire_proof *m);
int wire_read_proof(struct bytes body, struct wire_proof *ret);
void wire_write_welcome(struct writer *w, const struct wire_welcome *m);
int wire_read_welcome(struct bytes body, struct wire_welcome *ret);

/* The index --------------------------------------------------------------------- */

struct wire_stat {
	uint64_t total, free, evictable; /* bytes of the pool */
	uint64_t evictable_objects;
	uint64_t evict_dirs_ms; /* as of struct engine_opts */
	uint64_t index_size, index_used, keys, session_keys;
	bool index_full;
};

void wire_write_stat(struct writer *w, const struct wire_stat *m);
int wire_read_stat(struct bytes body, struct wire_stat *ret);

struct wire_kv {
	bool reserve, needs_room; /* as in struct kv_req */
	bool after;   /* not before all that came before it has ended */
	bool quiet;   /* rings no doorbell of its own session */
	uint32_t ncompares, nwrites, nreads;
	struct kv_compare *compares;
	struct kv_write *writes;
	struct kv_read *reads;
};

/* The request fits kv's caps, none of them above WIRE_KV_*. */
void wire_write_kv(struct writer *w, const struct kv_req *req, bool after);
int wire_read_kv(struct bytes body, struct wire_kv *ret);
void wire_kv_fini(struct wire_kv *m);

/* What came of a request: its rows, if it has any, and its revision. */
void wire_write_kv_answer(struct writer *w, const struct kv_req *req);
/* Into req, which asked. Its rows are kv_req_alloc()ed, their bytes point into
 * body. -EPROTO as well for rows of another number of reads than req has. */
int wire_read_kv_answer(struct bytes body, struct kv_req *req);

struct wire_watch {
	uint32_t watch;
	struct bytes prefix;
};

void wire_write_watch(struct writer *w, const struct wire_watch *m);
int wire_read_watch(struct bytes body, struct wire_watch *ret);
/* UNWATCH and RING. */
void wire_write_watch_number(struct writer *w, uint32_t watch);
int wire_read_watch_number(struct bytes body, uint32_t *ret);

/* EVICT, ABOUT: an object, and where its record is. */
struct wire_object {
	uint64_t fileid;
	struct place place; /* PLACE_NAME or PLACE_FILEID */
};

void wire_write_object(struct writer *w, const struct wire_object *m);
int wire_read_object(struct bytes body, struct wire_object *ret);

struct wire_recall {
	struct wire_object object;
	bool writes; /* to be written to: it is to be copied no more, either */
};

void wire_write_recall(struct writer *w, const struct wire_recall *m);
int wire_read_recall(struct bytes body, struct wire_recall *ret);

/* The answer to ABOUT. */
struct wire_about {
	uint64_t hits;
	int64_t expires; /* seconds since the epoch; 0: never */
	uint64_t used;   /* bytes of the pool below a directory that has a quota */
};

void wire_write_about(struct writer *w, const struct wire_about *m);
int wire_read_about(struct bytes body, struct wire_about *ret);

/* The answer to STATS: lines of printable ASCII, which are looked at by people and programs
 * that believe the mount. */
void wire_write_stats(struct writer *w, struct bytes text);
int wire_read_stats(struct bytes body, struct bytes *ret);

/* DROP_KEYS: whose. */
void wire_write_session(struct writer *w, uint64_t session);
int wire_read_session(struct bytes body, uint64_t *ret);

struct wire_scrub {
	bool begins;    /* else: how far is it? */
	bool evict_bad; /* as the next, of what begins */
	uint64_t rate;
};

void wire_write_scrub(struct writer *w, const struct wire_scrub *m);
int wire_read_scrub(struct bytes body, struct wire_scrub *ret);

enum { WIRE_SCRUB_BUSY = 1 }; /* SCRUB's result: another one is under way */

void wire_write_scrub_report(struct writer *w, const struct scrub_report *m);
int wire_read_scrub_report(struct bytes body, struct scrub_report *ret); /* scrub_report_fini() */

/* Slices ------------------------------------------------------------------------- */

/* What each item of a list consists of. */
enum wire_form {
	WIRE_PAGES,       /* ALLOC */
	WIRE_SLICES,      /* UNPIN */
	WIRE_SLICE_PAGES, /* ALLOC's answer, SEAL; in PIN */
};

struct wire_item {
	struct slice_id slice;
	uint32_t pages;
};

struct wire_items {
	uint32_t n; /* UINT16_MAX at most */
	struct wire_item *v;
};

void wire_write_items(struct writer *w, enum wire_form form, const struct wire_items *m);
int wire_read_items(struct bytes body, enum wire_form form, struct wire_items *ret);
void wire_items_fini(struct wire_items *m);

struct wire_pin {
	bool each; /* as many as can be; else all or none */
	struct wire_items items;
};

void wire_write_pin(struct writer *w, const struct wire_pin *m);
int wire_read_pin(struct bytes body, struct wire_pin *ret); /* items: _fini() */

/* A slice's result in the answer to PIN: pinned, and not all of its bytes have been
 * compared with their checksums since the node started. */
enum { WIRE_UNVERIFIED = 1 };

/* The answers to SEAL and PIN. */
struct wire_results {
	uint32_t n;
	int32_t *v; /* as wire_result() makes them */
};

void wire_write_results(struct writer *w, const struct wire_results *m);
int wire_read_results(struct bytes body, struct wire_results *ret);
void wire_results_fini(struct wire_results *m);

struct wire_open {
	uint64_t fileid;
	struct bytes from, to; /* its record is the first in [from, to); to empty: at from */
	uint32_t max;          /* bytes that may come with it; WIRE_OPEN_MAX at most */
};

void wire_write_open(struct writer *w, const struct wire_open *m);
int wire_read_open(struct bytes body, struct wire_open *ret);

enum { WIRE_NOT_THERE = 1 }; /* OPEN's result: that is not its record */

struct wire_opened {
	uint64_t revision;
	struct bytes value;       /* of the record */
	struct wire_results pins; /* of its extents' slices, one each; none: not pinned */
	struct bytes pages;       /* of its extents, one behind the other; or none */
};

void wire_write_opened(struct writer *w, const struct wire_opened *m);
int wire_read_opened(struct bytes body, struct wire_opened *ret); /* pins: _fini() */

/* READ, and the head of WRITE: 1 to WIRE_RUN_MAX bytes. */
struct wire_span {
	struct slice_id slice;
	uint32_t off, bytes;
};

void wire_write_span(struct writer *w, const struct wire_span *m);
int wire_read_span(struct bytes body, struct wire_span *ret);

/* RDMA's answer: how the session may reach the pool by one connection. */
struct wire_segment {
	uint32_t page, pages; /* of the pool; in order, none of them empty */
	uint64_t base;        /* where its first byte is, for RDMA */
};

struct wire_port {
	uint8_t address[16]; /* IPv6, or IPv4 as ::ffff:1.2.3.4; zeros: the node's */
	uint16_t port;
};

struct wire_rdma {
	uint8_t ticket[WIRE_TICKET]; /* for one connection */
	struct bytes why;            /* there is no port */
	uint32_t nsegments, nports;  /* UINT16_MAX at most */
	struct wire_segment *segments;
	struct wire_port *ports;
	uint32_t *keys; /* of each port all segments' */
};

void wire_write_rdma(struct writer *w, const struct wire_rdma *m);
int wire_read_rdma(struct bytes body, struct wire_rdma *ret);
void wire_rdma_fini(struct wire_rdma *m);

/* FENCE, and RDMA's request: the number of a data connection, not 0. */
void wire_write_fence(struct writer *w, uint32_t number);
int wire_read_fence(struct bytes body, uint32_t *ret);
