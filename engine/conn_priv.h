/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What conn.c, conn_in.c and conn_out.c share, and nobody else. */
#include "common/table.h"
#include "engine/conn.h"

enum { CONN_IN_BYTES = 64 * 1024 };

/* A call that has an id: the one thing that an answer can find. */
struct conn_entry {
	uint64_t id;
	uint16_t type;
	struct conn_call *call; /* NULL: ended before its answer; see owes_late */
	struct writer parts;    /* of an answer that goes on */
	bool is_sending;        /* its tail is lent to the stream */
	bool is_answered;       /* with `result`, and waits for that */
	int result;
	UT_hash_handle hh;
};

/* A message that is not handled where it lies: its rest is read straight to where
 * that goes. */
struct conn_rest {
	bool is_there;
	struct wire_header header;
	uint8_t head[CONN_HEAD];
	uint8_t *own;      /* memory for its body, freed when it was handled; or NULL */
	uint8_t *to;       /* NULL: the rest is thrown away */
	size_t len, at;    /* of the rest */
	struct bytes body; /* that is handled at last */
};

struct conn {
	struct loop *loop;
	const struct conn_ops *ops;
	void *arg;
	struct conn_limits limits;
	struct stream *stream;
	bool up, stopped, ended;
	atomic_flag stop_asked;
	int stop_reason; /* of who set stop_asked */
	struct loop_call stop_post, free_post;
	char peer[STREAM_NAME];

	uint8_t *in;
	size_t in_at, in_len;
	struct conn_rest rest;
	bool handling; /* somewhere below conn_handle_messages() */
	uint64_t last_id; /* of the other side's requests */
	uint32_t owed;

	uint64_t next_id;
	struct conn_entry *entries;
	uint32_t nentries;
	struct conn_call *first, **last; /* that have no entry yet */

	size_t out_bytes;
	uint64_t heard_ns, sent_ns; /* when something last came, or went */
	uint64_t wake_ns;           /* 0: none */
	struct conn_call ping;
	bool pinging;
};

/* conn.c */
void conn_stop_now(struct conn *c, int reason);
struct conn_entry *conn_entry_find(struct conn *c, uint64_t id); /* or NULL */
void conn_entry_end(struct conn *c, struct conn_entry *e, int r, struct bytes body);
void conn_start_waiting(struct conn *c);

/* conn_in.c */
void conn_handle_messages(struct conn *c);
void *conn_room(void *arg, size_t *ret_len);
void conn_arrived(void *arg, size_t n);

/* conn_out.c: a request, of which e is the entry. It takes the body, and calls nobody
 * back. Was it handed over? */
bool conn_send_request(struct conn *c, struct wire_header h, struct writer body,
		       struct bytes tail, struct conn_entry *e);
