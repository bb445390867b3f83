/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests find their object with the policy of engine/policy.h, with LRU and with
 * FIFO, all of the same size, and what a request costs. It reports; nothing passes or fails.
 *
 *	bench_policy [TRACE...]    TRACE: a file of lines "NAME [PAGES]", one a request
 *
 * Without traces: made ones. A cache of a hundredth, a tenth and a third of all objects.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

#include "common/array.h"
#include "common/clock.h"
#include "common/random.h"
#include "engine/policy.h"

struct trace {
	const char *what;
	uint32_t *v;     /* requests: names, from 1 on */
	uint32_t *pages; /* by name */
	size_t n;
	uint32_t nnames;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_policy: %s: %s\n", what, why);
	exit(1);
}

static void *all(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("memory", strerror(ENOMEM));
	return p;
}

/* LRU and FIFO ------------------------------------------------------------------------ */

struct node {
	struct node *prev, *next;
	uint32_t name;
	bool in;
};

static uint64_t run_list(const struct trace *t, uint64_t room, bool lru)
{
	struct node *nodes = all(t->nnames + 1, sizeof(*nodes)), *list = NULL;
	uint64_t hits = 0, used = 0;

	for (size_t i = 0; i < t->n; i++) {
		struct node *o = &nodes[t->v[i]];
		if (o->in) {
			hits++;
			if (lru) {
				DL_DELETE(list, o);
				DL_PREPEND(list, o);
			}
			continue;
		}
		while (list && used + t->pages[t->v[i]] > room) {
			struct node *last = list->prev;
			DL_DELETE(list, last);
			last->in = false;
			used -= t->pages[last->name];
		}
		*o = (struct node){ .name = t->v[i], .in = true };
		used += t->pages[t->v[i]];
		DL_PREPEND(list, o);
	}
	free(nodes);
	return hits;
}

/* Ours: who comes back is a new object of the same name -------------------------------- */

static uint64_t run_policy(const struct trace *t, uint64_t room, uint64_t *ret_bytes)
{
	uint64_t *fileids = all(t->nnames + 1, sizeof(*fileids)), next = 0, hits = 0;
	uint32_t *names = all(t->n + 1, sizeof(*names));
	struct policy_stat st;
	struct policy_object o;
	struct policy *p;
	uint64_t used = 0;

	if (policy_new(&p) < 0)
		die("memory", strerror(ENOMEM));
	for (size_t i = 0; i < t->n; i++) {
		uint32_t name = t->v[i];
		if (fileids[name]) {
			hits++;
			policy_use(p, fileids[name]);
			continue;
		}
		while (used + t->pages[name] > room && policy_take(p, POLICY_PAGES, &o)) {
			used -= o.pages;
			fileids[names[o.fileid]] = 0;
			policy_remove(p, o.fileid);
		}
		fileids[name] = ++next;
		names[next] = name;
		o = (struct policy_object){ next, 1, (uint64_t)name << 8, t->pages[name] };
		if (policy_put(p, &o) < 0)
			die("memory", strerror(ENOMEM));
		used += o.pages;
	}
	policy_stat(p, &st);
	*ret_bytes = st.bytes;
	policy_free(p);
	free(fileids);
	free(names);
	return hits;
}

/* Traces ------------------------------------------------------------------------------- */

static const double shares[] = { 0.01, 0.1, 0.3 };

static void report(const struct trace *t)
{
	uint64_t total = 0, bytes;

	for (uint32_t i = 1; i <= t->nnames; i++)
		total += t->pages[i];
	for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		uint64_t room = (uint64_t)((double)total * shares[i]);
		if (!room)
			continue;
		double n = (double)t->n / 100;
		uint64_t from = clock_ns(), ours = run_policy(t, room, &bytes);
		double ns = (double)(clock_ns() - from) / (double)t->n;
		printf("%-34s %4.0f %% %10.2f %8.2f %8.2f %8.0f\n", t->what, shares[i] * 100,
		       (double)ours / n, (double)run_list(t, room, true) / n,
		       (double)run_list(t, room, false) / n, ns);
	}
}

enum { NAMES = 100000, REQUESTS = 3000000 };

static struct trace trace_new(const char *what, uint32_t nnames, size_t n)
{
	struct trace t = { .what = what, .n = n, .nnames = nnames };

	t.v = all(n, sizeof(*t.v));
	t.pages = all(nnames + 1, sizeof(*t.pages));
	for (uint32_t i = 1; i <= nnames; i++)
		t.pages[i] = 1;
	return t;
}

static void trace_end(struct trace *t)
{
	report(t);
	free(t->v);
	free(t->pages);
}

/* Of rank r the share 1 / r^a: a table of sums, searched by halves. */
static double *zipf_new(uint32_t n, double a)
{
	double *sums = all(n + 1, sizeof(*sums));

	for (uint32_t i = 1; i <= n; i++)
		sums[i] = sums[i - 1] + pow(i, -a);
	return sums;
}

static uint32_t zipf_next(const double *sums, uint32_t n, uint64_t *seed)
{
	double x = (double)(random_next(seed) >> 11) / (double)(1ULL << 53) * sums[n];
	uint32_t lo = 1, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (sums[mid] > x)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* One in `every` requests begins a scan of `len` names that nobody else asks for. */
static void zipf(const char *what, double a, uint32_t every, uint32_t len)
{
	struct trace t = trace_new(what, len ? NAMES * 4 : NAMES, REQUESTS);
	double *sums = zipf_new(NAMES, a);
	uint64_t seed = 1;
	uint32_t scanned = 0, left = 0;

	for (size_t i = 0; i < t.n; i++) {
		if (len && !left && random_next(&seed) % every == 0)
			left = len;
		if (left) {
			left--;
			t.v[i] = NAMES + 1 + scanned++ % (NAMES * 3);
		} else {
			t.v[i] = zipf_next(sums, NAMES, &seed);
		}
	}
	free(sums);
	trace_end(&t);
}

/* All, again and again, in order. */
static void loop(void)
{
	struct trace t = trace_new("loop over all", NAMES, REQUESTS);

	for (size_t i = 0; i < t.n; i++)
		t.v[i] = 1 + (uint32_t)(i % NAMES);
	trace_end(&t);
}

/* What is asked for is what was new lately: names come, are used for a while, and never again. */
static void drift(void)
{
	struct trace t = trace_new("what was new lately", NAMES, REQUESTS);
	uint64_t seed = 1;

	for (size_t i = 0; i < t.n; i++) {
		double back = -log(1 - (double)(random_next(&seed) >> 11) / (double)(1ULL << 53));
		int64_t name = (int64_t)((double)i * NAMES / (double)t.n - back * NAMES / 50);
		t.v[i] = name < 1 ? 1 : (uint32_t)name;
	}
	trace_end(&t);
}

/* Each is asked for twice, and between that nine of a hundred others. */
static void twice(void)
{
	struct trace t = trace_new("each twice, 9 % later", NAMES, NAMES * 2);
	uint32_t lag = NAMES * 9 / 100, first = 1, second = 1;

	for (size_t i = 0; i < t.n; i++) {
		bool again = first > NAMES || (first > lag && i % 2);
		t.v[i] = again ? second++ : first++;
	}
	trace_end(&t);
}

struct name {
	uint32_t number;
	UT_hash_handle hh;
	char text[];
};

static uint32_t number_of(struct name **names, const char *text)
{
	struct name *n;

	HASH_FIND_STR(*names, text, n);
	if (n)
		return n->number;
	n = all(1, sizeof(*n) + strlen(text) + 1);
	strcpy(n->text, text);
	n->number = HASH_COUNT(*names) + 1;
	HASH_ADD_STR(*names, text, n);
	return n->number;
}

static void recorded(const char *path)
{
	FILE *f = fopen(path, "r");
	struct trace t = { .what = strrchr(path, '/') ? strrchr(path, '/') + 1 : path };
	struct name *names = NULL, *n, *next;
	size_t cap = 0, pages_cap = 0;
	char text[4100];
	unsigned pages;
	int got;

	if (!f)
		die(path, strerror(errno));
	while ((got = fscanf(f, "%4095s%*[ ]%u", text, &pages)) > 0) {
		uint32_t number = number_of(&names, text);
		if (array_room(t.v, cap, t.n + 1, 4096) < 0 ||
		    array_room(t.pages, pages_cap, number + 1, 4096) < 0)
			die(path, strerror(ENOMEM));
		t.v[t.n++] = number;
		if (number > t.nnames)
			t.pages[t.nnames = number] = got == 2 && pages ? pages : 1;
	}
	fclose(f);
	HASH_ITER(hh, names, n, next) {
		HASH_DEL(names, n);
		free(n);
	}
	trace_end(&t);
}

static void memory(void)
{
	enum { N = 1000000 };
	struct policy_stat st;
	struct policy *p;
	uint64_t from = clock_ns(), longest = 0;

	if (policy_new(&p) < 0)
		die("memory", strerror(ENOMEM));
	for (uint64_t i = 1; i <= N; i++) {
		struct policy_object o = { i, 1, i << 8, 1 };
		uint64_t one = clock_ns();
		policy_put(p, &o);
		one = clock_ns() - one;
		longest = one > longest ? one : longest;
	}
	policy_stat(p, &st);
	printf("\n%d objects: %.1f bytes each, %.0f ns a put, the longest %.0f us\n", N,
	       (double)st.bytes / N, (double)(clock_ns() - from) / N, (double)longest / 1000);
	policy_free(p);
}

int main(int argc, char **argv)
{
	printf("%-34s %6s %10s %8s %8s %8s\n", "hits, percent", "room", "S3-FIFO", "LRU", "FIFO", "ns");
	for (int i = 1; i < argc; i++)
		recorded(argv[i]);
	if (argc > 1)
		return 0;
	zipf("Zipf 0.7", 0.7, 0, 0);
	zipf("Zipf 1.0", 1.0, 0, 0);
	zipf("Zipf 1.0, a third of it scans", 1.0, 10000, 5000);
	zipf("Zipf 1.0, nine tenths scans", 1.0, 2000, 18000);
	loop();
	drift();
	twice();
	memory();
	return 0;
}
