/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve_recall.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/loop.h"

struct recall_ask {
	struct recalls *recalls;
	struct wire_header header;
	struct node_call call;
	struct kv_call of;
	struct loop_call post;
	int r;
	struct recall_ask *prev, *next;
};

static void answer(void *arg)
{
	struct recall_ask *k = arg;
	struct recalls *a = k->recalls;

	DL_DELETE(a->first, k);
	conn_answer(a->conn, &k->header, k->r, (struct writer){ 0 });
	free(k);
	if (!a->first && a->closing)
		a->gone(a->arg);
}

/* Any thread's, mostly the disk's. */
static void recalled(struct node_call *c, int r)
{
	struct recall_ask *k = (struct recall_ask *)((char *)c - offsetof(struct recall_ask, call));

	k->r = r;
	loop_post_call(k->recalls->loop, &k->post);
}

int recalls_ask(struct recalls *a, const struct wire_header *h, struct bytes body)
{
	struct wire_recall m;

	if (wire_read_recall(body, &m) < 0)
		return -EPROTO;
	if (m.writes && (a->read_only || !a->tier)) { /* a disk that is not here has a copy */
		conn_answer(a->conn, h, -EROFS, (struct writer){ 0 });
		return 0;
	}
	struct recall_ask *k = a->tier ? calloc(1, sizeof(*k)) : NULL;
	if (!k) {
		conn_answer(a->conn, h, a->tier ? -ENOMEM : -EIO, (struct writer){ 0 });
		return 0;
	}
	k->recalls = a;
	k->header = *h;
	k->of.deadline_ns = h->timeout_ms ? clock_ns() + h->timeout_ms * NS_PER_MS : 0;
	k->call = (struct node_call){ .of = &k->of, .done = recalled };
	k->post = (struct loop_call){ .fn = answer, .arg = k };
	DL_APPEND(a->first, k);
	tier_recall(a->tier, m.object.fileid, m.object.place, m.writes, &k->call);
	return 0;
}

bool recalls_close(struct recalls *a)
{
	struct recall_ask *k;

	a->closing = true;
	DL_FOREACH(a->first, k)
		atomic_store(&k->of.cancelled, true);
	return !a->first;
}
