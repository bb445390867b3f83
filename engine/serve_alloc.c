/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve_alloc.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/loop.h"
#include "engine/pool.h"

struct ask {
	struct allocs *allocs;
	struct wire_header header;
	struct wire_items asked;
	struct evict_waiter waiter;
	struct loop_call post;
};

static void answer(struct allocs *a, const struct wire_header *h, int r, struct wire_items *got)
{
	struct writer w = { 0 };

	wire_write_items(&w, WIRE_SLICE_PAGES, got);
	wire_items_fini(got);
	conn_answer(a->conn, h, r, w);
}

/* True: there is nothing, and it is worth waiting. *ret_number: for evict_wait(). */
static bool is_full(struct allocs *a, const struct wire_items *asked, struct wire_items *got,
		    int *ret_r, uint64_t *ret_number)
{
	*ret_number = a->evict ? evict_number(a->evict) : 0;
	*ret_r = a->closing ? -ESHUTDOWN : holds_alloc(a->holds, asked, got);
	return evict_makes_room(a->evict) && *ret_r == POOL_FULL && !got->n;
}

static void ask_again(void *arg)
{
	struct ask *k = arg;
	struct allocs *a = k->allocs;
	struct wire_items got = { 0 };
	uint64_t number;
	int r;

	if (is_full(a, &k->asked, &got, &r, &number) && !k->waiter.in_vain) {
		wire_items_fini(&got);
		evict_wait(a->evict, number, &k->waiter);
		return;
	}
	answer(a, &k->header, r, &got);
	wire_items_fini(&k->asked);
	free(k);
	if (!--a->n && a->closing)
		a->gone(a->arg);
}

/* The eviction's thread. */
static void evicted(struct task *t)
{
	struct ask *k = (struct ask *)((char *)t - offsetof(struct ask, waiter.task));

	loop_post_call(k->allocs->loop, &k->post);
}

void allocs_ask(struct allocs *a, const struct wire_header *h, struct wire_items *asked)
{
	struct wire_items got = { 0 };
	uint64_t number;
	int r;
	struct ask *k = is_full(a, asked, &got, &r, &number) ? calloc(1, sizeof(*k)) : NULL;

	if (!k) {
		wire_items_fini(asked);
		answer(a, h, r, &got);
		return;
	}
	wire_items_fini(&got);
	*k = (struct ask){ .allocs = a, .header = *h, .asked = *asked,
			   .waiter = { .task.fn = evicted } };
	*asked = (struct wire_items){ 0 };
	k->post = (struct loop_call){ .fn = ask_again, .arg = k };
	a->n++;
	evict_wait(a->evict, number, &k->waiter);
}

bool allocs_close(struct allocs *a)
{
	a->closing = true;
	return !a->n;
}
