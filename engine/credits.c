/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/credits.h"

#include <assert.h>
#include <errno.h>

#include "common/bytes.h"

void credits_init(struct credits *c)
{
	*c = (struct credits){ .may = CREDITS_FIRST, .told = CREDITS_FIRST, .all = CREDITS_FIRST };
}

void credits_grow(struct credits *c, uint32_t n)
{
	c->all += n;
	c->free += n;
	assert(c->all <= CREDITS_MAX);
}

void credits_free(struct credits *c)
{
	c->free++;
	assert(c->told + c->free <= c->all);
}

bool credits_may_send(const struct credits *c)
{
	return c->may > 1;
}

bool credits_must_tell(const struct credits *c)
{
	return c->may && c->free >= c->all / 2;
}

void credits_send(struct credits *c, uint32_t len, uint8_t head[CREDITS_HEAD])
{
	assert(len ? credits_may_send(c) && len <= CREDITS_BYTES : credits_must_tell(c));
	put_le(head, c->free, 2);
	put_le(head + 2, 0, 2);
	put_le(head + 4, len, 4);
	c->may--;
	c->told += c->free;
	c->free = 0;
}

int credits_came(struct credits *c, const uint8_t *send, uint32_t bytes)
{
	struct reader r = reader_of(BYTES_OF(send, bytes));
	uint32_t credits = read_u16(&r), zero = read_u16(&r), len = read_u32(&r);

	if (r.bad || bytes > CREDITS_SEND || zero || len != r.left || (!len && !credits))
		return -EPROTO;
	if (!c->told || credits > CREDITS_MAX - c->may)
		return -EPROTO;
	c->told--;
	c->may += credits;
	return (int)len;
}
