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
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
	bool *begins;    /* or NULL: here begins a row; what follows a miss in it is none either */
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

/* LRU, FIFO, and SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is simpler than LRU",
 * NSDI 2024) ------------------------------------------------------------------------- */

enum kind { OURS, LRU, FIFO, SIEVE, KINDS };

struct node {
	struct node *prev, *next;
	uint32_t name;
	bool in, visited;
};

struct list {
	enum kind kind;
	const struct trace *t;
	uint64_t room, used;
	struct node *nodes, *list; /* what is new first */
	struct node *hand;
};

/* From the oldest on, and over again (the first one's `prev` is the last). */
static struct node *sieve(struct list *c)
{
	struct node *o = c->hand ? c->hand : c->list->prev;

	for (; o->visited; o = o->prev)
		o->visited = false;
	c->hand = o == c->list ? NULL : o->prev;
	return o;
}

static bool list_has(struct list *c, uint32_t name)
{
	struct node *o = &c->nodes[name];

	if (o->in && c->kind == LRU) {
		DL_DELETE(c->list, o);
		DL_PREPEND(c->list, o);
	}
	o->visited = o->in;
	return o->in;
}

static void list_add(struct list *c, uint32_t name)
{
	struct node *o = &c->nodes[name];

	while (c->list && c->used + c->t->pages[name] > c->room) {
		struct node *last = c->kind == SIEVE ? sieve(c) : c->list->prev;
		DL_DELETE(c->list, last);
		last->in = false;
		c->used -= c->t->pages[last->name];
	}
	*o = (struct node){ .name = name, .in = true };
	c->used += c->t->pages[name];
	DL_PREPEND(c->list, o);
}

/* Ours: who comes back is a new object of the same name -------------------------------- */

struct ours {
	const struct trace *t;
	uint64_t room, used, next;
	uint64_t *fileids; /* by name */
	uint32_t *names;   /* by fileid */
	struct policy *p;
};

static bool ours_has(struct ours *c, uint32_t name)
{
	if (c->fileids[name])
		policy_use(c->p, c->fileids[name]);
	return c->fileids[name];
}

static void ours_add(struct ours *c, uint32_t name)
{
	struct policy_object o;

	while (c->used + c->t->pages[name] > c->room && policy_take(c->p, POLICY_PAGES, &o)) {
		uint32_t gone = c->names[o.fileid];
		c->used -= c->t->pages[gone];
		c->fileids[gone] = 0;
		policy_remove(c->p, o.fileid);
	}
	c->fileids[name] = ++c->next;
	c->names[c->next] = name;
	o = (struct policy_object){ c->next, 1, (uint64_t)name << POLICY_H_LOW, c->t->pages[name],
				       1 };
	if (policy_put(c->p, &o) < 0)
		die("memory", strerror(ENOMEM));
	c->used += o.pages;
}

/* Running a trace ------------------------------------------------------------------------ */

struct result {
	double hits, pages; /* percent */
	double ns;          /* a request */
};

static struct result run(const struct trace *t, uint64_t room, enum kind kind)
{
	struct list list = { .kind = kind, .t = t, .room = room };
	struct ours ours = { .t = t, .room = room };
	uint64_t hits = 0, pages = 0, all_pages = 0;
	bool broken = false;

	if (kind == OURS && policy_new(&ours.p) < 0)
		die("memory", strerror(ENOMEM));
	list.nodes = all(t->nnames + 1, sizeof(*list.nodes));
	ours.fileids = all(t->nnames + 1, sizeof(*ours.fileids));
	ours.names = all(t->n + 1, sizeof(*ours.names));
	uint64_t from = clock_ns();
	for (size_t i = 0; i < t->n; i++) {
		uint32_t name = t->v[i];
		bool hit = kind == OURS ? ours_has(&ours, name) : list_has(&list, name);
		if (!hit && t->pages[name] <= room)
			kind == OURS ? ours_add(&ours, name) : list_add(&list, name);
		if (t->begins)
			broken = (broken && !t->begins[i]) || !hit;
		all_pages += t->pages[name];
		if (!hit || broken)
			continue;
		hits++;
		pages += t->pages[name];
	}
	double ns = (double)(clock_ns() - from) / (double)t->n;
	policy_free(ours.p);
	free(list.nodes);
	free(ours.fileids);
	free(ours.names);
	return (struct result){ (double)hits * 100 / (double)t->n,
				(double)pages * 100 / (double)all_pages, ns };
}

static const double shares[] = { 0.01, 0.1, 0.3 };

/* Where sizes differ also in pages. */
static void report(const struct trace *t)
{
	uint64_t total = 0;
	bool sized = false;

	for (uint32_t i = 1; i <= t->nnames; i++) {
		total += t->pages[i];
		sized |= t->pages[i] != t->pages[1];
	}
	for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		struct result r[KINDS];
		for (unsigned kind = 0; kind < KINDS; kind++)
			r[kind] = run(t, (uint64_t)((double)total * shares[i]), kind);
		printf("%-34s %4.0f %%", t->what, shares[i] * 100);
		for (unsigned kind = 0; kind < KINDS; kind++)
			printf(" %8.2f", r[kind].hits);
		printf(" %6.0f\n", r[OURS].ns);
		if (!sized)
			continue;
		printf("%-41s", "    of pages");
		for (unsigned kind = 0; kind < KINDS; kind++)
			printf(" %8.2f", r[kind].pages);
		printf("\n");
	}
}

/* Traces ------------------------------------------------------------------------------- */

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
	free(t->begins);
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

/* Sizes of 1 to 1024 pages, as many from 1 to 2 as from 512 to 1024, whoever is asked for. */
static void sizes(void)
{
	struct trace t = trace_new("Zipf 1.0, 1 to 1024 pages", NAMES, REQUESTS);
	double *sums = zipf_new(NAMES, 1.0);
	uint64_t seed = 1;

	for (uint32_t i = 1; i <= NAMES; i++)
		t.pages[i] = (uint32_t)exp2((double)(random_next(&seed) % 1000) / 100);
	for (size_t i = 0; i < t.n; i++)
		t.v[i] = zipf_next(sums, NAMES, &seed);
	free(sums);
	trace_end(&t);
}

/* Somebody reads all of it, in order, ten times. */
static void scans_of_all(void)
{
	struct trace t = trace_new("Zipf 1.0, a third scans of all", NAMES, REQUESTS);
	double *sums = zipf_new(NAMES, 1.0);
	uint64_t seed = 1;

	for (size_t i = 0; i < t.n; i++) {
		size_t at = i % (t.n / 10);
		t.v[i] = at < NAMES ? (uint32_t)at + 1 : zipf_next(sums, NAMES, &seed);
	}
	free(sums);
	trace_end(&t);
}

/* Blocks of prompts, as engines look for them: in order up to the first that is not there. */
struct prompts {
	struct trace t;
	size_t cap;
};

static struct prompts prompts_new(const char *what)
{
	struct prompts p = { .t = trace_new(what, REQUESTS, REQUESTS), .cap = REQUESTS };

	p.t.begins = all(REQUESTS, sizeof(*p.t.begins));
	p.t.n = p.t.nnames = 0;
	return p;
}

static uint32_t prompts_names(struct prompts *p, uint32_t n)
{
	uint32_t first = p->t.nnames + 1;

	p->t.nnames += n;
	return first;
}

/* False: the trace is full. */
static bool prompts_ask(struct prompts *p, uint32_t first, uint32_t n, bool begins)
{
	if (p->t.n + n > p->cap)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		p->t.begins[p->t.n] = begins && !i;
		p->t.v[p->t.n++] = first + i;
	}
	return true;
}

/* One of 100 beginnings, one of 2,000 documents after it, and an end that is nobody else's. */
static void documents(void)
{
	enum { HEADS = 100, HEAD = 64, DOCUMENTS = 2000, DOCUMENT = 64, END = 32 };
	struct prompts p = prompts_new("prompts: documents, ends used once");
	double *sums = zipf_new(DOCUMENTS, 1.0);
	uint64_t seed = 1;
	uint32_t heads = prompts_names(&p, HEADS * HEAD);
	uint32_t documents = prompts_names(&p, DOCUMENTS * DOCUMENT);

	for (bool more = true; more;) {
		uint32_t d = zipf_next(sums, DOCUMENTS, &seed) - 1;
		more = prompts_ask(&p, heads + d % HEADS * HEAD, HEAD, true) &&
		       prompts_ask(&p, documents + d * DOCUMENT, DOCUMENT, false) &&
		       prompts_ask(&p, prompts_names(&p, END), END, false);
	}
	free(sums);
	trace_end(&p.t);
}

/* Talks over one of 100 beginnings: each turn reads all that was said before, in order, and
 * adds to it. Half of all turns are in one of the last 30 talks or so, which is over soon. */
static void talks(void)
{
	enum { HEADS = 100, HEAD = 64, TALKS = 20000, TURN = 16, TURNS = 16 };
	struct prompts p = prompts_new("prompts: talks");
	double *sums = zipf_new(HEADS, 1.0);
	uint32_t heads = prompts_names(&p, HEADS * HEAD), n = 0;
	struct talk {
		uint32_t head, first, turns;
	} *v = all(TALKS, sizeof(*v));
	uint64_t seed = 1;

	for (bool more = true; more && n < TALKS;) {
		uint32_t back = (uint32_t)(-log(1 - (double)(random_next(&seed) % 1000) / 1000) * 30);
		struct talk *k = &v[n > back ? n - 1 - back : 0];
		if (!n || k->turns == TURNS || random_next(&seed) % 8 == 0) {
			k = &v[n++];
			*k = (struct talk){ heads + (zipf_next(sums, HEADS, &seed) - 1) * HEAD,
					    prompts_names(&p, TURNS * TURN), 0 };
		}
		k->turns++;
		more = prompts_ask(&p, k->head, HEAD, true) &&
		       prompts_ask(&p, k->first, k->turns * TURN, false);
	}
	free(v);
	free(sums);
	trace_end(&p.t);
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

/* Memory, and what calls cost --------------------------------------------------------- */

enum { N = 1000000 };

static void put_one(struct policy *p, uint64_t fileid)
{
	struct policy_object o = { fileid, 1 + fileid % 1000, 0, 1, 1 };

	o.h = random_mix(fileid) >> 1;
	if (policy_put(p, &o) < 0)
		die("memory", strerror(ENOMEM));
}

static uint64_t resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	if (!f || fscanf(f, "%*u %lu", &pages) != 1)
		die("/proc/self/statm", "cannot be read");
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void size_of(struct policy *p, const char *when, uint64_t before)
{
	struct policy_stat st;

	policy_stat(p, &st);
	uint64_t n = st.objects[POLICY_PAGES] + st.objects[POLICY_BARE];
	printf("%-34s %7" PRIu64 " objects, bytes each: %.1f; resident %.1f\n", when, n,
	       (double)st.bytes / (double)n, (double)(resident() - before) / (double)n);
}

static struct policy *used;
static unsigned nthreads;

static void *uses(void *arg)
{
	uint64_t seed = (uintptr_t)arg, from = clock_ns();

	for (unsigned i = 0; i < 2 * N; i++)
		policy_use(used, 1 + random_next(&seed) % N);
	double all = (double)(clock_ns() - from) / (2 * N);
	from = clock_ns();
	for (unsigned i = 0; i < 20 * N; i++)
		policy_use(used, 1);
	printf("a use, %u threads: of any %.0f ns, of the same one %.1f ns\n", nthreads, all,
	       (double)(clock_ns() - from) / (20 * N));
	return NULL;
}

static void use_by(unsigned n)
{
	pthread_t t[2];

	nthreads = n;
	for (uintptr_t i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, uses, (void *)(i + 1)))
			die("thread", strerror(EAGAIN));
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

/* One new, one evicted, one that somebody removes and another one that he makes. */
static void churn(struct policy *p)
{
	uint64_t seed = 1, next = N + 1;
	struct policy_object o;

	for (unsigned i = 0; i < 5 * N; i++) {
		policy_use(p, next - 1 - random_next(&seed) % N);
		put_one(p, next++);
		if (policy_take(p, POLICY_PAGES, &o))
			policy_remove(p, o.fileid);
		uint64_t gone = next - 1 - random_next(&seed) % N;
		if (policy_get(p, gone, &o)) {
			policy_remove(p, gone);
			put_one(p, next++);
		}
	}
}

static void memory(void)
{
	uint64_t before = resident(), from, longest = 0;
	struct policy *p;

	if (policy_new(&p) < 0)
		die("memory", strerror(ENOMEM));
	from = clock_ns();
	for (uint64_t i = 1; i <= N; i++) {
		uint64_t one = clock_ns();
		put_one(p, i);
		one = clock_ns() - one;
		longest = one > longest ? one : longest;
	}
	from = clock_ns() - from;
	printf("a new one %.0f ns, the longest %.0f us\n", (double)from / N,
	       (double)longest / 1000);
	size_of(p, "filled", before);
	used = p;
	use_by(1);
	use_by(2);
	churn(p);
	size_of(p, "ten million came and went", before);
	printf("\n");
	policy_free(p);
}

int main(int argc, char **argv)
{
	if (argc == 1) /* before others have used the heap */
		memory();
	if (argc == 2 && !strcmp(argv[1], "memory")) {
		memory();
		return 0;
	}
	printf("%-34s %6s %8s %8s %8s %8s %6s\n", "hits, percent", "room", "S3-FIFO", "LRU",
	       "FIFO", "SIEVE", "ns");
	for (int i = 1; i < argc; i++)
		recorded(argv[i]);
	if (argc > 1)
		return 0;
	zipf("Zipf 0.7", 0.7, 0, 0);
	zipf("Zipf 1.0", 1.0, 0, 0);
	zipf("Zipf 1.0, a third of it scans", 1.0, 10000, 5000);
	zipf("Zipf 1.0, nine tenths scans", 1.0, 2000, 18000);
	scans_of_all();
	sizes();
	documents();
	talks();
	loop();
	drift();
	twice();
	return 0;
}
