/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the index engines cost: bench_kv [DIR] prints microseconds per request
 * for reads, transactions and session-only transactions, on one thread and on
 * several. It reports; it does not pass or fail.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "index/kv.h"

enum { KEYS = 100000, SESSION_KEYS = 1000, ROUNDS = 200000, THREADS_MAX = 8 };

struct key {
	char b[24];
};

static struct key key_of(char kind, uint64_t n)
{
	struct key k;

	/* Spread: neighbours in time are not neighbours in the tree. */
	snprintf(k.b, sizeof(k.b), "%c%016" PRIx64, kind, n * 0x9e3779b97f4a7c15);
	return k;
}

static void must(int outcome, const char *what)
{
	if (outcome == KV_DONE)
		return;
	fprintf(stderr, "bench_kv: %s: outcome %d\n", what, outcome);
	exit(1);
}

static void run(struct kv *kv, struct kv_req *req)
{
	must(kv_wait(kv, req), "request");
	kv_req_fini(req);
}

static void get(struct kv *kv, uint64_t n)
{
	struct key k = key_of('D', n % KEYS);
	struct kv_read rd = { .from = bytes_str(k.b) };
	struct kv_req req = { .reads = &rd, .nreads = 1 };

	run(kv, &req);
}

/* As a lookup does it: the session's names, then the published ones. */
static void lookup(struct kv *kv, uint64_t n)
{
	struct key d = key_of('D', n % KEYS), d2 = d, s = key_of('n', n % KEYS), s2 = s;
	strcat(d2.b, "~");
	strcat(s2.b, "~");
	struct kv_read rd[] = {
		{ bytes_str(s.b), bytes_str(s2.b), 256 },
		{ bytes_str(d.b), bytes_str(d2.b), 256 },
	};
	struct kv_req req = { .reads = rd, .nreads = 2 };

	run(kv, &req);
}

static void txn_of(struct kv *kv, uint64_t n, const char *kinds)
{
	static const uint8_t value[200];
	struct key ks[3];
	struct kv_write ws[3];
	struct kv_compare c = { .kind = KV_ABSENT };
	struct key absent = key_of('Q', n);
	struct kv_req req = { .compares = &c, .ncompares = 1, .writes = ws, .nwrites = 3 };

	for (unsigned i = 0; i < 3; i++) {
		unsigned keys = kinds[i] >= 'a' ? SESSION_KEYS : KEYS;
		ks[i] = key_of(kinds[i], (3 * n + i) % keys);
		ws[i] = (struct kv_write){ bytes_str(ks[i].b),
					   BYTES_OF(value, sizeof(value)) };
	}
	if (kinds[0] >= 'a')
		absent.b[0] = 'q';
	c.key = bytes_str(absent.b);
	run(kv, &req);
}

static void txn(struct kv *kv, uint64_t n) { txn_of(kv, n, "DDF"); }
static void txn_mixed(struct kv *kv, uint64_t n) { txn_of(kv, n, "DDn"); }
static void txn_session(struct kv *kv, uint64_t n) { txn_of(kv, n, "nww"); }

struct job {
	struct kv *kv;
	void (*step)(struct kv *kv, uint64_t n);
	uint64_t from, to;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct job *j = arg;

	for (uint64_t n = j->from; n < j->to; n++)
		j->step(j->kv, n);
	return NULL;
}

static void bench(struct kv *kv, const char *name,
		  void (*step)(struct kv *kv, uint64_t n), unsigned threads)
{
	struct job jobs[THREADS_MAX];
	int64_t commits = metric_get(M_INDEX_COMMITS);
	uint64_t each = ROUNDS / threads, start = clock_ns(), ns;

	for (unsigned i = 0; i < threads; i++) {
		jobs[i] = (struct job){ .kv = kv, .step = step, .from = i * each,
					.to = (i + 1) * each };
		pthread_create(&jobs[i].thread, NULL, work, &jobs[i]);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(jobs[i].thread, NULL);
	ns = clock_ns() - start;
	commits = metric_get(M_INDEX_COMMITS) - commits;
	printf("%-6s %-24s %u threads  %8.2f us each  %9.0f/s", kv->ops->name, name,
	       threads, (double)ns / 1e3 / (double)(each * threads),
	       (double)(each * threads) * 1e9 / (double)ns);
	if (commits)
		printf("  %.1f a commit", (double)(each * threads) / (double)commits);
	putchar('\n');
}

static void bench_engine(struct kv *kv)
{
	for (uint64_t n = 0; n < KEYS; n++)
		txn(kv, n);
	for (unsigned threads = 1; threads <= 4; threads *= 2) {
		bench(kv, "get", get, threads);
		bench(kv, "lookup (2 ranges)", lookup, threads);
		bench(kv, "1 compare, 3 puts", txn, threads);
		bench(kv, "the same, 1 of session", txn_mixed, threads);
		bench(kv, "session keys only", txn_session, threads);
	}
	kv_close(kv);
}

int main(int argc, char **argv)
{
	char path[4096];
	struct kv_lmdb_opts opts = { .path = path, .size_bytes = 512 << 20,
				     .create = true };
	struct kv *kv;

	snprintf(path, sizeof(path), "%s/bench_kv.%d", argc > 1 ? argv[1] : "/dev/shm",
		 (int)getpid());
	must(kv_mem_open(&kv), "mem");
	bench_engine(kv);
	must(kv_lmdb_open(&opts, &kv), path);
	bench_engine(kv);
	unlink(path);
	strcat(path, "-lock");
	unlink(path);
	return 0;
}
