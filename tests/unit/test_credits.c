/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/credits.h: two sides that send as they may, stop taking and go on, come through
 * with all their bytes and then are silent; what breaks the rules is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/random.h"
#include "engine/credits.h"

enum { STEPS = 20000, ROUNDS = 200 };

/* One side, and what is on its way to it. */
struct side {
	struct credits c;
	uint8_t way[CREDITS_MAX][CREDITS_SEND];
	uint32_t bytes[CREDITS_MAX];
	unsigned first, nway; /* in way[], a ring */
	unsigned held;        /* buffers with bytes that nobody has taken */
	bool pauses;
	uint64_t to_send, sent, came, sends;
};

static void check(const struct side *s)
{
	assert_int_equal(s->c.told + s->c.free + s->held, s->c.all);
	assert_true(s->c.may <= CREDITS_MAX);
	assert_true(s->nway <= s->c.told); /* a buffer waits for each */
}

static void take(struct side *s)
{
	for (; s->held; s->held--)
		credits_free(&s->c);
}

/* One SEND, if there is anything that may be sent. */
static bool send_one(struct side *s, struct side *to)
{
	uint64_t left = s->to_send - s->sent;
	uint32_t len = 0;

	if (left && credits_may_send(&s->c))
		len = left < CREDITS_BYTES ? (uint32_t)left : CREDITS_BYTES;
	else if (!credits_must_tell(&s->c))
		return false;
	assert_true(to->nway < CREDITS_MAX);
	unsigned at = (to->first + to->nway++) % CREDITS_MAX;
	credits_send(&s->c, len, to->way[at]);
	memset(to->way[at] + CREDITS_HEAD, (int)(s->sent & 0xff), len);
	to->bytes[at] = CREDITS_HEAD + len;
	s->sent += len;
	s->sends++;
	return true;
}

static bool come_one(struct side *s)
{
	if (!s->nway)
		return false;
	const uint8_t *p = s->way[s->first];
	int len = credits_came(&s->c, p, s->bytes[s->first]);

	assert_true(len >= 0);
	if (len)
		assert_int_equal(p[CREDITS_HEAD], (uint8_t)s->came); /* in order */
	s->came += (uint32_t)len;
	s->first = (s->first + 1) % CREDITS_MAX;
	s->nway--;
	if (!len)
		credits_free(&s->c);
	else
		s->held++;
	if (!s->pauses)
		take(s);
	return true;
}

static void step(struct side *a, struct side *b, uint64_t dice)
{
	switch (dice % 8) {
	case 0:
		a->to_send += dice >> 8 & 0xfffff;
		break;
	case 1:
		a->to_send += dice >> 8 & 0xff;
		break;
	case 2:
		a->pauses = dice >> 8 & 1;
		if (!a->pauses)
			take(a);
		break;
	case 3:
		if (a->c.all < CREDITS_MAX && !(dice >> 8 & 0xff))
			credits_grow(&a->c, CREDITS_MAX - a->c.all);
		break;
	case 4:
	case 5:
		come_one(a);
		break;
	default:
		send_one(a, b);
	}
	check(a);
	check(b);
}

/* Until nothing happens any more; that is soon. */
static unsigned settle(struct side *a, struct side *b)
{
	unsigned n = 0;

	for (bool going = true; going; n++) {
		going = send_one(a, b);
		going |= come_one(a);
		going |= send_one(b, a);
		going |= come_one(b);
		check(a);
		check(b);
		assert_true(n < 10000000);
	}
	return n;
}

static void finish(struct side *a, struct side *b)
{
	a->pauses = b->pauses = false;
	take(a);
	take(b);
	settle(a, b);
	assert_int_equal(a->sent, a->to_send);
	assert_int_equal(b->came, a->to_send);
	assert_int_equal(b->sent, b->to_send);
	assert_int_equal(a->came, b->to_send);
}

static void open_both(struct side *a, struct side *b)
{
	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	credits_init(&a->c);
	credits_init(&b->c);
}

static struct side a, b;

static void random_walks_come_through(void **state)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	(void)state;
	printf("SEED=%llu\n", (unsigned long long)seed);
	for (unsigned round = 0; round < ROUNDS; round++) {
		open_both(&a, &b);
		for (unsigned i = 0; i < STEPS / ROUNDS; i++) {
			uint64_t dice = random_next(&seed);
			if (dice & 1)
				step(&a, &b, dice >> 1);
			else
				step(&b, &a, dice >> 1);
		}
		finish(&a, &b);
	}
}

/* Both have all that the other one has sent, and take nothing of it; then one does. */
static void two_full_sides_go_on(void **state)
{
	(void)state;
	for (unsigned grown = 0; grown < 4; grown++) {
		open_both(&a, &b);
		if (grown & 1)
			credits_grow(&a.c, CREDITS_MAX - CREDITS_FIRST);
		if (grown & 2)
			credits_grow(&b.c, CREDITS_MAX - CREDITS_FIRST);
		a.pauses = b.pauses = true;
		a.to_send = b.to_send = 10 << 20;
		settle(&a, &b);
		assert_true(a.held >= a.c.all - 2 && b.held >= b.c.all - 2);
		b.pauses = false;
		take(&b);
		settle(&a, &b);
		assert_int_equal(a.sent, a.to_send);
		assert_true(b.sent < b.to_send);
		finish(&a, &b);
	}
}

/* Telling of buffers takes buffers: that must not go on by itself, nor cost much. */
static void silence_is_silent(void **state)
{
	(void)state;
	open_both(&a, &b);
	credits_grow(&a.c, CREDITS_MAX - CREDITS_FIRST);
	credits_grow(&b.c, CREDITS_MAX - CREDITS_FIRST);
	assert_true(settle(&a, &b) < 10);
	a.to_send = UINT64_C(1000) * CREDITS_BYTES;
	settle(&a, &b);
	assert_int_equal(a.sent, a.to_send);
	assert_true(a.sends + b.sends < 1000 + 1000 / (CREDITS_MAX / 2) * 2);
}

static int came(struct credits *c, unsigned credits, unsigned zero, uint32_t len, uint32_t bytes)
{
	uint8_t p[CREDITS_SEND + 1] = { (uint8_t)credits, (uint8_t)(credits >> 8),
					(uint8_t)zero, (uint8_t)(zero >> 8), (uint8_t)len,
					(uint8_t)(len >> 8), (uint8_t)(len >> 16),
					(uint8_t)(len >> 24) };

	return credits_came(c, p, bytes);
}

static void the_head_is_what_the_protocol_says(void **state)
{
	static const uint8_t wanted[] = { 12, 0, 0, 0, 0xf8, 0x3f, 0, 0 };
	uint8_t head[CREDITS_HEAD];
	struct credits c;

	(void)state;
	credits_init(&c);
	credits_grow(&c, 12);
	credits_send(&c, CREDITS_BYTES, head);
	assert_memory_equal(head, wanted, sizeof(wanted));
	assert_int_equal(c.told, CREDITS_MAX);
	assert_int_equal(c.may, CREDITS_FIRST - 1);
}

static void what_breaks_the_rules_is_refused(void **state)
{
	struct credits c, before;

	(void)state;
	credits_init(&c);
	before = c;
	for (uint32_t bytes = 0; bytes < CREDITS_HEAD; bytes++)
		assert_int_equal(came(&c, 1, 0, 0, bytes), -EPROTO);
	assert_int_equal(came(&c, 0, 1, 5, 13), -EPROTO);
	assert_int_equal(came(&c, 0, 0x8000, 5, 13), -EPROTO);
	assert_int_equal(came(&c, 0, 0, 4, 13), -EPROTO);
	assert_int_equal(came(&c, 0, 0, 6, 13), -EPROTO);
	assert_int_equal(came(&c, 0, 0, UINT32_MAX, 13), -EPROTO);
	assert_int_equal(came(&c, 0, 0, CREDITS_BYTES + 1, CREDITS_SEND + 1), -EPROTO);
	assert_int_equal(came(&c, 0, 0, 0, 8), -EPROTO); /* says nothing */
	assert_int_equal(came(&c, CREDITS_MAX - CREDITS_FIRST + 1, 0, 5, 13), -EPROTO);
	assert_int_equal(came(&c, 0xffff, 0, 0, 8), -EPROTO);
	assert_memory_equal(&c, &before, sizeof(c));
	assert_int_equal(came(&c, CREDITS_MAX - CREDITS_FIRST, 0, CREDITS_BYTES, CREDITS_SEND),
			 CREDITS_BYTES);
	assert_int_equal(came(&c, 1, 0, 0, 8), -EPROTO);
	for (unsigned i = 1; i < CREDITS_FIRST; i++)
		assert_int_equal(came(&c, 0, 0, 5, 13), 5);
	assert_int_equal(came(&c, 0, 0, 5, 13), -EPROTO); /* nobody told it that it may */
	credits_free(&c);
	assert_int_equal(came(&c, 0, 0, 5, 13), -EPROTO); /* nor that */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_head_is_what_the_protocol_says),
		cmocka_unit_test(what_breaks_the_rules_is_refused),
		cmocka_unit_test(two_full_sides_go_on),
		cmocka_unit_test(silence_is_silent),
		cmocka_unit_test(random_walks_come_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
