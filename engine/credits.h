/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How a stream of bytes goes by SENDs (engine/stream_rdma.h), each of which needs a
 * buffer that waits for it at the other side: their heads, and who may send. Pure.
 *
 *	credits u16 | zero u16 | len u32 | len bytes of the stream
 *
 * Credits are buffers that wait since the last SEND told of some: the other side may
 * send as many more. Each side begins with CREDITS_FIRST, and has CREDITS_MAX at most.
 *
 * Nobody waits for ever. The last credit is kept for a SEND without bytes, which is sent
 * when half of the buffers, two at least, are free and not told of; its own buffer waits
 * again at once, also where bytes are not taken now. So who gets it may send bytes, and
 * tells of that buffer with the first of them.
 *
 *	 what the other side may use     it does not know of    in use
 *	|------------ told ------------|-------- free --------|--------|
 *	'---------------------------- all -----------------------------'
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	CREDITS_HEAD = 8,
	CREDITS_SEND = 16 * 1024, /* bytes of a SEND, its head included, at most */
	CREDITS_BYTES = CREDITS_SEND - CREDITS_HEAD,
	CREDITS_FIRST = 4,
	CREDITS_MAX = 16,
};

struct credits {
	uint32_t may;             /* SENDs that the other side waits for */
	uint32_t told, free, all; /* buffers of this side, see above */
};

void credits_init(struct credits *c);

/* n more buffers wait here: CREDITS_MAX in all at most. */
void credits_grow(struct credits *c, uint32_t n);
/* The buffer of a SEND that came waits again. */
void credits_free(struct credits *c);

bool credits_may_send(const struct credits *c);  /* bytes */
bool credits_must_tell(const struct credits *c); /* by a SEND without bytes, if there are none */

/* A SEND goes, with so many bytes behind this head; one of the above says so. */
void credits_send(struct credits *c, uint32_t len, uint8_t head[CREDITS_HEAD]);
/* A SEND of so many bytes came: how many are the stream's; they lie behind the head. 0: its
 * buffer is to wait again at once. -EPROTO: it is not one, or more than was allowed. */
int credits_came(struct credits *c, const uint8_t *send, uint32_t bytes);
