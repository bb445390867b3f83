/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Counters, gauges and latency histograms of this process, declared once in
 * common/metrics.def. All are global atomics: a thing may be taken by one
 * thread and given back by another without any of them being wrong. Relaxed
 * order is enough: each is read on its own, none guards memory.
 *
 *     metric_add(M_PINS, 1); ... metric_add(M_PINS, -1);
 *
 * A gauge in the family "in flight" must be 0 when all is idle (P10).
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_IN_FLIGHT };

enum metric {
#define METRIC(id, kind, name, label, sentence) M_##id,
#include "common/metrics.def"
#undef METRIC
	M_COUNT
};

extern _Atomic int64_t metric_values[M_COUNT];

static inline void metric_add(enum metric m, int64_t n)
{
	atomic_fetch_add_explicit(&metric_values[m], n, memory_order_relaxed);
}

static inline int64_t metric_get(enum metric m)
{
	return atomic_load_explicit(&metric_values[m], memory_order_relaxed);
}

static inline void metric_set(enum metric m, int64_t v)
{
	atomic_store_explicit(&metric_values[m], v, memory_order_relaxed);
}

/* Latency of one kind of file system op: log2 buckets from 1 us to 16 s. */
enum metric_op {
#define METRIC_OP(id, name) MOP_##id,
#include "common/metrics.def"
#undef METRIC_OP
	MOP_COUNT
};

/* One op of this kind ended after ns; error is its errno, 0 if none. */
void metric_op_done(enum metric_op op, uint64_t ns, int error);

/* Appends all of them as Prometheus text (version 0.0.4) to w. */
void metrics_print(struct writer *w);

/* The name of the first in-flight gauge that is not 0, or NULL (P10).
 * Its value goes to *ret_value. */
const char *metrics_busy(int64_t *ret_value);
