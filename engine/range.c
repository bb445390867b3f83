/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One list for holders and waiters. A range is granted when nothing before it in
 * the list overlaps; so nobody is overtaken, and a full lock (publishing) gets
 * its turn. Lists are short: as long as there are calls on one file.
 */
#include <assert.h>
#include <stddef.h>

#include "engine/range.h"

static bool is_free(const struct range *r)
{
	for (const struct range *o = r->prev; o; o = o->prev)
		if (o->from < r->to && r->from < o->to)
			return false;
	return true;
}

bool range_take(struct ranges *q, struct range *r)
{
	assert(r->from < r->to);
	r->next = NULL;
	r->prev = q->last;
	if (q->last)
		q->last->next = r;
	else
		q->first = r;
	q->last = r;
	r->granted = is_free(r);
	return r->granted;
}

struct task *range_give(struct ranges *q, struct range *r)
{
	struct task *list = NULL, **end = &list;
	struct range *after = r->next;

	assert(r->granted);
	if (r->prev)
		r->prev->next = r->next;
	else
		q->first = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		q->last = r->prev;
	for (struct range *o = after; o; o = o->next) {
		if (o->granted || !is_free(o))
			continue;
		o->granted = true;
		o->task.next = NULL;
		*end = &o->task;
		end = &o->task.next;
	}
	return list;
}

void range_wake(struct task *list)
{
	while (list) {
		struct task *next = list->next;
		task_run(list);
		list = next;
	}
}
