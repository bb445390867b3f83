/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/rdma_path.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static bool is_link_local(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* The bytes of an address, and how many there are. */
static const uint8_t *bytes_of(const struct sockaddr_storage *a, unsigned *ret_len)
{
	*ret_len = a->ss_family == AF_INET ? 4 : 16;
	return a->ss_family == AF_INET ?
		       (const uint8_t *)&((const struct sockaddr_in *)a)->sin_addr :
		       (const uint8_t *)&((const struct sockaddr_in6 *)a)->sin6_addr;
}

/* Of one family. */
static bool is_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	unsigned len;
	const uint8_t *x = bytes_of(a, &len), *y = bytes_of(b, &len);

	return !memcmp(x, y, len);
}

static bool is_in_subnet(const struct rdma_address *own, const struct sockaddr_storage *a)
{
	unsigned len;
	const uint8_t *x = bytes_of(&own->address, &len), *y = bytes_of(a, &len);
	unsigned other = 128 - len * 8; /* the prefix is of 128 bits */

	if (own->prefix_len <= other)
		return false;
	unsigned bits = own->prefix_len - other, whole = bits / 8;
	uint8_t mask = (uint8_t)(0xff00 >> bits % 8);
	return !memcmp(x, y, whole) && (!mask || !((x[whole] ^ y[whole]) & mask));
}

static enum rdma_reach reach_from(const struct rdma_address *own, const struct rdma_far *far)
{
	if (own->address.ss_family != far->address.ss_family ||
	    is_link_local(&own->address) != is_link_local(&far->address))
		return RDMA_REACH_OTHER;
	if (is_link_local(&own->address))
		return RDMA_REACH_LINK_LOCAL;
	if (is_in_subnet(own, &far->address))
		return RDMA_REACH_SUBNET;
	return far->from.ss_family == own->address.ss_family &&
			       is_same(&far->from, &own->address) ? RDMA_REACH_ROUTE :
								    RDMA_REACH_FAMILY;
}

/* By the best of its addresses; NULL where none is any good. */
static enum rdma_reach reach_of(const struct rdma_choice *own, const struct rdma_far *far,
				const struct rdma_address **ret)
{
	enum rdma_reach best = RDMA_REACH_OTHER;

	*ret = NULL;
	for (unsigned i = 0; i < own->naddresses; i++) {
		enum rdma_reach r = reach_from(&own->addresses[i], far);
		if (r > best) {
			best = r;
			*ret = &own->addresses[i];
		}
	}
	return best;
}

/* All ways there are ------------------------------------------------------------------- */

struct reaches {
	unsigned nown, nfar;
	enum rdma_reach best; /* of all */
	enum rdma_reach reach[RDMA_CHOICES_MAX][RDMA_FAR_MAX];
};

static void find_reaches(struct reaches *w, const struct rdma_choice *const *own,
		      const struct rdma_far *far)
{
	const struct rdma_address *from;

	for (unsigned i = 0; i < w->nown; i++)
		for (unsigned k = 0; k < w->nfar; k++) {
			w->reach[i][k] = reach_of(own[i], &far[k], &from);
			if (w->reach[i][k] > w->best)
				w->best = w->reach[i][k];
		}
}

/* How many of the node's ports are reached best from this one. */
static unsigned count_best(const struct reaches *w, unsigned own)
{
	unsigned n = 0;

	for (unsigned k = 0; k < w->nfar; k++)
		n += w->reach[own][k] == w->best;
	return n;
}

/* The n-th of them. */
static unsigned nth_best(const struct reaches *w, unsigned own, unsigned n)
{
	unsigned k = 0;

	while (w->reach[own][k] != w->best || n--)
		k++;
	return k;
}

static unsigned least_common_multiple(unsigned a, unsigned b)
{
	unsigned x = a, y = b;

	while (y) {
		unsigned rest = x % y;
		x = y;
		y = rest;
	}
	return a / x * b;
}

/* The own port of a connection's home, and the first of the node's. Of own ports only those
 * count from which something is reached best. Both sides go round at once, which meets all
 * pairs only if one of them skips a step after each round of both. */
static void find_home(const struct reaches *w, const struct rdma_turn *turn, unsigned *ret_own,
		      unsigned *ret_far)
{
	unsigned good[RDMA_CHOICES_MAX], n = 0;

	for (unsigned i = 0; i < w->nown; i++)
		if (count_best(w, i))
			good[n++] = i;
	*ret_own = good[turn->conn % n];
	unsigned nfar = count_best(w, *ret_own);
	unsigned rounds = turn->conn / least_common_multiple(n, nfar);
	*ret_far = nth_best(w, *ret_own, (turn->conn + rounds + turn->offset) % nfar);
}

/* Its place in the order in which a connection tries them: by the own port of its home
 * first; the better reached ones first; equals from home on, and round. */
static unsigned place_of(const struct reaches *w, unsigned own, unsigned far, unsigned home_own,
			 unsigned home_far)
{
	unsigned round_own = (own + w->nown - home_own) % w->nown;
	unsigned round_far = (far + w->nfar - home_far) % w->nfar;
	unsigned worse = RDMA_REACH_SUBNET - w->reach[own][far];

	return (own != home_own) << 20 | worse << 16 | round_own << 8 | round_far;
}

struct candidate {
	unsigned own, far, place;
};

static int by_place(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->place < y->place ? -1 : x->place > y->place;
}

/* To another family only where there is nothing else. */
static unsigned list(const struct reaches *w, const struct rdma_turn *turn, struct candidate *ret)
{
	unsigned n = 0, own, far;

	find_home(w, turn, &own, &far);
	for (unsigned i = 0; i < w->nown; i++)
		for (unsigned k = 0; k < w->nfar; k++)
			if ((!turn->stays || i == own) &&
			    (w->reach[i][k] != RDMA_REACH_OTHER || w->best == RDMA_REACH_OTHER))
				ret[n++] = (struct candidate){ i, k,
							       place_of(w, i, k, own, far) };
	qsort(ret, n, sizeof(*ret), by_place);
	return n;
}

bool rdma_path(const struct rdma_choice *const *own, unsigned nown, const struct rdma_far *far,
	       unsigned nfar, const struct rdma_turn *turn, struct rdma_path *ret)
{
	static const struct rdma_address nowhere;
	struct candidate v[RDMA_CHOICES_MAX * RDMA_FAR_MAX];
	struct reaches w = { .nown = nown < RDMA_CHOICES_MAX ? nown : RDMA_CHOICES_MAX,
			  .nfar = nfar < RDMA_FAR_MAX ? nfar : RDMA_FAR_MAX };
	const struct rdma_address *from;

	if (!nown || !nfar)
		return false;
	find_reaches(&w, own, far);
	struct candidate *c = &v[turn->attempt % list(&w, turn, v)];
	*ret = (struct rdma_path){ .own = c->own, .far = c->far, .to = far[c->far].address };
	ret->reach = reach_of(own[c->own], &far[c->far], &from);
	ret->from = (from ? from : &nowhere)->address;
	if (is_link_local(&ret->to) && from)
		((struct sockaddr_in6 *)&ret->to)->sin6_scope_id = from->interface;
	return true;
}
