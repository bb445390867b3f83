/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SENDs: what a hostile other side says neither gets it more buffers than there are nor
 * lets this side send more than it may. Each byte is a step, SENDs have theirs behind it.
 */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "engine/credits.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { CAME, FREE, SEND, GROW };

static void check(const struct credits *c, unsigned held)
{
	assert(c->told + c->free + held == c->all && c->all <= CREDITS_MAX);
	assert(c->may <= CREDITS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	uint8_t head[CREDITS_HEAD];
	struct credits c;
	unsigned held = 0;

	credits_init(&c);
	for (size_t at = 0; at < n;) {
		uint8_t kind = p[at] & 3, arg = p[at] >> 2;

		at++;
		if (kind == CAME) {
			uint32_t bytes = arg < n - at ? arg : (uint32_t)(n - at);
			struct credits before = c;
			int len = credits_came(&c, p + at, bytes);
			assert(len < 0 ? !memcmp(&c, &before, sizeof(c)) :
					 (uint32_t)len == bytes - CREDITS_HEAD);
			held += len >= 0;
			at += bytes;
		} else if (kind == FREE && held) {
			credits_free(&c);
			held--;
		} else if (kind == SEND && credits_may_send(&c)) {
			credits_send(&c, arg + 1, head);
		} else if (kind == SEND && credits_must_tell(&c)) {
			credits_send(&c, 0, head);
		} else if (kind == GROW && c.all == CREDITS_FIRST) {
			credits_grow(&c, CREDITS_MAX - CREDITS_FIRST);
		}
		check(&c, held);
	}
	return 0;
}
