/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of metrics.def as Prometheus text. A family (one name, several
 * labels) is printed under one HELP and TYPE, so its lines in the table follow
 * each other and the first one has the sentence. Kinds of ops that never
 * happened and errors that nobody saw are left out.
 */
#include "common/metrics.h"

#include <inttypes.h>
#include <string.h>

#include "common/error.h"

_Atomic int64_t metric_values[M_COUNT];

static const struct {
	const char *name, *label, *sentence;
	enum metric_kind kind;
} metrics[M_COUNT] = {
#define METRIC(id, kind, name, label, sentence) [M_##id] = { name, label, sentence, kind },
#include "common/metrics.def"
#undef METRIC
};

static const char *const op_names[MOP_COUNT] = {
#define METRIC_OP(id, name) [MOP_##id] = name,
#include "common/metrics.def"
#undef METRIC_OP
};

/* Bucket b counts what took up to 2^b us: 1 us to 16.8 s; the last one, more.
 * Errors are errnos; the last one is whatever is no errno of Linux. */
enum { BUCKETS = 26, ERRORS = 135 };

static struct op {
	_Atomic uint64_t buckets[BUCKETS]; /* not cumulative */
	_Atomic uint64_t sum_ns;
	_Atomic uint64_t errors[ERRORS];
} ops[MOP_COUNT];

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint64_t get(_Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static unsigned bucket_of(uint64_t ns)
{
	uint64_t us = (ns + 999) / 1000;
	unsigned b = us <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(us - 1);

	return b < BUCKETS - 1 ? b : BUCKETS - 1;
}

void metric_op_done(enum metric_op op, uint64_t ns, int error)
{
	struct op *o = &ops[op];

	count(&o->buckets[bucket_of(ns)], 1);
	count(&o->sum_ns, ns);
	if (error < 0)
		error = -error;
	if (error)
		count(&o->errors[error > 0 && error < ERRORS ? error : ERRORS - 1], 1);
}

static void print_head(struct writer *w, const char *name, const char *type, const char *sentence)
{
	write_format(w, "# HELP slicefs_%s %s\n# TYPE slicefs_%s %s\n", name, sentence, name, type);
}

static void print_metrics(struct writer *w)
{
	for (unsigned m = 0; m < M_COUNT; m++) {
		const char *name = metrics[m].name, *label = metrics[m].label;

		if (!m || strcmp(name, metrics[m - 1].name))
			print_head(w, name, metrics[m].kind == METRIC_COUNTER ? "counter" : "gauge",
				   metrics[m].sentence);
		write_format(w, "slicefs_%s%s%s%s %" PRId64 "\n", name, *label ? "{" : "", label,
			     *label ? "}" : "", metric_get((enum metric)m));
	}
}

/* One op's histogram, consistent in itself: _count is what the buckets say. */
static void print_histogram(struct writer *w, const char *name, struct op *o)
{
	static const char series[] = "slicefs_op_duration_seconds";
	uint64_t n[BUCKETS], total = 0;

	for (unsigned b = 0; b < BUCKETS; b++)
		total += n[b] = get(&o->buckets[b]);
	if (!total)
		return;
	total = 0;
	for (unsigned b = 0; b < BUCKETS - 1; b++) {
		total += n[b];
		write_format(w, "%s_bucket{op=\"%s\",le=\"%.6f\"} %" PRIu64 "\n", series, name,
			     (double)(1ULL << b) / 1e6, total);
	}
	total += n[BUCKETS - 1];
	write_format(w,
		     "%s_bucket{op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n"
		     "%s_sum{op=\"%s\"} %.9f\n%s_count{op=\"%s\"} %" PRIu64 "\n",
		     series, name, total, series, name, (double)get(&o->sum_ns) / 1e9, series,
		     name, total);
}

static void print_errors(struct writer *w, const char *name, struct op *o)
{
	static const char series[] = "slicefs_op_errors_total";

	for (int e = 1; e < ERRORS; e++) {
		const char *error = e == ERRORS - 1 ? "other" : error_name(e);
		uint64_t n = get(&o->errors[e]);

		if (n)
			write_format(w, "%s{op=\"%s\",errno=\"%s\"} %" PRIu64 "\n", series, name,
				     error, n);
	}
}

void metrics_print(struct writer *w)
{
	print_metrics(w);
	print_head(w, "op_duration_seconds", "histogram", "Time to an answer by kind of operation");
	for (unsigned op = 0; op < MOP_COUNT; op++)
		print_histogram(w, op_names[op], &ops[op]);
	print_head(w, "op_errors_total", "counter", "Operations answered with an error");
	for (unsigned op = 0; op < MOP_COUNT; op++)
		print_errors(w, op_names[op], &ops[op]);
}

const char *metrics_busy(int64_t *ret_value)
{
	for (unsigned m = 0; m < M_COUNT; m++) {
		int64_t v = metric_get((enum metric)m);

		if (metrics[m].kind != METRIC_IN_FLIGHT || !v)
			continue;
		if (ret_value)
			*ret_value = v;
		return metrics[m].name;
	}
	return NULL;
}
