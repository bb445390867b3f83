/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port is opened and closed by the thread that looks, and used by the loop in between:
 * from show() to hide(), which that thread has run there and waits for.
 */
#include "engine/nics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"

enum { LOOK_ALL_EVERY = 5 /* calls, where nothing is missing */ };

struct nic {
	struct nics *nics;

	/* Whose thread looks. */
	struct rdma_dev *dev; /* NULL: not in use */
	struct rdma_mem *mem;

	/* The loop's. */
	bool is_open, is_lost;
};

struct nics {
	struct nics_opts o;

	/* In the order in which they are liked, as far as they came at one time. */
	struct nic v[RDMA_CHOICES_MAX];

	/* Whose thread looks. */
	unsigned nlooks;
	bool misses; /* one that was there, or one that could not be opened */
	struct log_complaint complaint;
};

struct rdma_dev *nic_dev(const struct nic *n)
{
	return n->dev;
}

const struct rdma_mem *nic_mem(const struct nic *n)
{
	return n->mem;
}

/* On the loop ---------------------------------------------------------------------------- */

static bool is_usable(const struct nic *n)
{
	return n->is_open && !n->is_lost && rdma_dev_is_up(n->dev) &&
	       rdma_dev_has_address(n->dev);
}

static void on_lost(void *arg, const char *text)
{
	struct nic *n = arg;
	struct nics *x = n->nics;

	n->is_lost = true;
	for (struct nic *other = x->v; other < x->v + RDMA_CHOICES_MAX; other++)
		if (other->is_open && !other->is_lost)
			return;
	x->o.lost(x->o.arg, text);
}

static void show(void *arg)
{
	struct nic *n = arg;

	n->is_open = true;
}

struct hiding {
	struct nic *nic;
	bool is_hidden;
};

/* Where the device, or the address, is gone, and with it all that used it. */
static void hide(void *arg)
{
	struct hiding *h = arg;
	struct nic *n = h->nic;

	h->is_hidden = (n->is_lost || !rdma_dev_has_address(n->dev)) && !rdma_dev_nconns(n->dev);
	n->is_open &= !h->is_hidden;
}

struct nic *nics_path(const struct nics *x, const struct rdma_far *far, unsigned nfar,
		      const struct rdma_turn *turn, struct rdma_path *ret)
{
	const struct rdma_choice *own[RDMA_CHOICES_MAX];
	const struct nic *nic[RDMA_CHOICES_MAX];
	unsigned n = 0;

	for (const struct nic *i = x->v; i < x->v + RDMA_CHOICES_MAX; i++)
		if (is_usable(i)) {
			nic[n] = i;
			own[n++] = rdma_dev_choice(i->dev);
		}
	return rdma_path(own, n, far, nfar, turn, ret) ? (struct nic *)nic[ret->own] : NULL;
}

bool nics_has_idle(const struct nics *x)
{
	for (const struct nic *n = x->v; n < x->v + RDMA_CHOICES_MAX; n++)
		if (is_usable(n) && !rdma_dev_nconns(n->dev))
			return true;
	return false;
}

/* Looking -------------------------------------------------------------------------------- */

static void shut(struct nic *n)
{
	rdma_mem_free(n->mem);
	rdma_dev_close(n->dev);
	n->mem = NULL;
	n->dev = NULL;
}

static struct nic *nic_of(struct nics *x, const struct rdma_choice *c)
{
	struct nic *unused = NULL;

	for (struct nic *n = x->v + RDMA_CHOICES_MAX; n-- > x->v;) {
		const struct rdma_choice *is = n->dev ? rdma_dev_choice(n->dev) : NULL;

		if (is && rdma_is_same_port(is, c))
			return n;
		if (!is)
			unused = n;
	}
	return unused;
}

static int open_nic(struct nic *n, const struct rdma_choice *c, char **ret_why)
{
	struct nics *x = n->nics;

	n->is_lost = false;
	int r = rdma_dev_open(x->o.loop, c, on_lost, n, &n->dev, ret_why);
	if (!r)
		r = staging_register(x->o.staging, n->dev, &n->mem, ret_why);
	if (r < 0) {
		shut(n);
		return r;
	}
	loop_run(x->o.loop, show, n);
	log_info("rdma", "uses %s:%u (%s)", c->device, c->port, c->reason);
	return 0;
}

unsigned nics_count(const struct nics *x)
{
	unsigned n = 0;

	for (const struct nic *i = x->v; i < x->v + RDMA_CHOICES_MAX; i++)
		n += i->dev != NULL;
	return n;
}

/* Of one of several: who has none says so himself. */
static void complain(struct nics *x, const char *text)
{
	if (log_is_news(&x->complaint, text) && nics_count(x))
		log_warn("rdma", "a port is not used: %s", text);
}

static int open_all(struct nics *x, const struct sockaddr_storage *local, char **ret_why)
{
	struct rdma_choice found[RDMA_CHOICES_MAX];
	unsigned n;
	int r = rdma_find(&x->o.rdma, local, found, &n, ret_why), failed = 0;

	for (unsigned i = 0; !r && i < n; i++) {
		_cleanup_(freep) char *text = NULL;
		struct nic *nic = nic_of(x, &found[i]);
		int opened = !nic || nic->dev ? 0 : open_nic(nic, &found[i], &text);

		if (opened < 0 && !failed)
			failed = why(ret_why, opened, "%s", text ? text : error_text(opened));
	}
	x->misses = r < 0 || failed;
	complain(x, *ret_why);
	return r < 0 ? r : nics_count(x) ? 0 : failed;
}

int nics_look(struct nics *x, const struct sockaddr_storage *local, char **ret_why)
{
	for (struct nic *n = x->v; n < x->v + RDMA_CHOICES_MAX; n++) {
		struct hiding h = { .nic = n };
		if (n->dev)
			loop_run(x->o.loop, hide, &h);
		if (h.is_hidden) {
			shut(n);
			x->misses = true;
		}
	}
	if (nics_count(x) && !x->misses && ++x->nlooks % LOOK_ALL_EVERY)
		return 0;
	_cleanup_(freep) char *text = NULL;
	int r = open_all(x, local, &text);
	return r < 0 ? why(ret_why, r, "%s", text ? text : error_text(r)) : 0;
}

/* Opening and closing ---------------------------------------------------------------------- */

int nics_new(const struct nics_opts *o, struct nics **ret)
{
	struct nics *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->o = *o;
	for (struct nic *n = x->v; n < x->v + RDMA_CHOICES_MAX; n++)
		n->nics = x;
	*ret = x;
	return 0;
}

void nics_free(struct nics *x)
{
	for (struct nic *n = x ? x->v : NULL; x && n < x->v + RDMA_CHOICES_MAX; n++)
		if (n->dev)
			shut(n);
	free(x);
}
