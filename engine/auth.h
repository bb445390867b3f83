/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The mutual proof with which a connection begins: both ends have the token,
 * and neither can be made to say it twice (docs/protocol.md, "Beginning").
 *
 * A proof is a keyed hash of a byte for the side that makes it, so that it
 * cannot be reflected, and of what both sent, with a nonce of each, so that it
 * cannot be replayed. Compared in constant time. Threads: any.
 */
#include <stdbool.h>
#include <stdint.h>

#include "engine/wire.h"

struct auth_key {
	uint8_t b[WIRE_NONCE];
};

enum auth_side { AUTH_NODE = 'N', AUTH_MOUNT = 'M' };

/*
 * The key of the token in the file at `path`: a hash of all its bytes, a final
 * newline among them. NULL: the key of who has no token. -ENOENT and its like,
 * -EINVAL (empty, no file, or over 64 KiB), -EPERM (others can read it): each
 * with a sentence in *ret_why.
 */
int auth_key_load(const char *path, struct auth_key *ret, char **ret_why);

/* Unpredictable bytes: a nonce, or the secret of a session. */
void auth_random(uint8_t ret[WIRE_NONCE]);
uint64_t auth_random_number(void);

/* `hello` is the body as it was sent; of `c` all but its proof counts. */
void auth_prove(const struct auth_key *key, enum auth_side side, struct bytes hello,
		const struct wire_challenge *c, uint8_t ret[WIRE_NONCE]);
bool auth_proves(const struct auth_key *key, enum auth_side side, struct bytes hello,
		 const struct wire_challenge *c, const uint8_t proof[WIRE_NONCE]);

/*
 * What a mount makes of the message that came after its HELLO (hello: as it was sent,
 * offered: the features in it): the challenge, of a node that has the key, and the proof
 * for it. -EPROTO (it is none, or hello is bad), -EKEYREJECTED, -EPROTONOSUPPORT (its
 * version, or features that were not offered).
 */
int auth_challenged(const struct auth_key *key, const struct writer *hello,
		    uint32_t offered, const struct wire_header *h, struct bytes body,
		    struct wire_challenge *ret, uint8_t ret_proof[WIRE_NONCE]);

/* Are these the same 32 bytes? It takes as long whichever differs. */
bool auth_is_secret(const uint8_t secret[WIRE_TICKET], const uint8_t *said);
