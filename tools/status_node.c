/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/status_node.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "tools/output.h"

/* In the order in which they are printed: what belongs together, in one line. */
static const struct value {
	const char *group, *name, *series;
	const char *less; /* a series to be taken off; or NULL */
	bool bytes;
} values[] = {
	{ "sessions", "open", "sessions", NULL, false },
	{ "pool", "size", "pool_bytes{", NULL, true },
	{ "pool", "used", "pool_bytes{", "pool_bytes{state=\"free\"}", true },
	{ "pool", "free", "pool_bytes{state=\"free\"}", NULL, true },
	{ "pool", "evictable", "evictable_bytes", NULL, true },
	{ "index", "size", "index_bytes{kind=\"size\"}", NULL, true },
	{ "index", "used", "index_bytes{kind=\"used\"}", NULL, true },
	{ "cache", "hits", "cache_requests_total{outcome=\"hit\"}", NULL, false },
	{ "cache", "misses", "cache_requests_total{outcome=\"miss\"}", NULL, false },
	{ "evicted", "pool", "evictions_total{reason=\"pool\"}", NULL, false },
	{ "evicted", "index", "evictions_total{reason=\"index\"}", NULL, false },
	{ "evicted", "quota", "evictions_total{reason=\"quota\"}", NULL, false },
	{ "evicted", "ttl", "evictions_total{reason=\"ttl\"}", NULL, false },
	{ "evicted", "temp", "evictions_total{reason=\"temp\"}", NULL, false },
	{ "evicted", "asked", "evictions_total{reason=\"asked\"}", NULL, false },
	{ "evicted", "empty", "evictions_total{reason=\"empty\"}", NULL, false },
	{ "evicted", "bad", "evictions_total{reason=\"bad\"}", NULL, false },
	{ "evicted", "disk", "evictions_total{reason=\"disk\"}", NULL, false },
	{ "evicted", "bytes", "evicted_bytes_total", NULL, true },
	{ "quotas", "set", "quotas{kind=\"set\"}", NULL, false },
	{ "quotas", "over", "quotas{kind=\"over\"}", NULL, false },
	{ "disk", "size", "disk_bytes{kind=\"size\"}", NULL, true },
	{ "disk", "used", "disk_bytes{kind=\"used\"}", NULL, true },
	{ "disk", "went", "disk_objects_total{to=\"disk\"}", NULL, false },
	{ "disk", "came back", "disk_objects_total{to=\"memory\"}", NULL, false },
	{ "disk", "written", "disk_bytes_total{to=\"disk\"}", NULL, true },
	{ "disk", "read", "disk_bytes_total{to=\"memory\"}", NULL, true },
	{ "disk", "refused", "disk_refused_total{", NULL, false },
	{ "disk", "failed writes", "disk_failures_total{to=\"disk\"}", NULL, false },
	{ "disk", "failed reads", "disk_failures_total{to=\"memory\"}", NULL, false },
};

enum { NVALUES = sizeof(values) / sizeof(*values) };

uint64_t stats_value(const char *text, const char *series)
{
	size_t n = strlen(series);
	bool all = n && series[n - 1] == '{';
	uint64_t sum = 0;

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (strncmp(p, "slicefs_", 8) || strncmp(p + 8, series, n))
			continue;
		const char *value = p + 8 + n;
		if (all)
			value += strcspn(value, " \n");
		if (*value == ' ')
			sum += strtoull(value + 1, NULL, 10);
		if (!all)
			break;
	}
	return sum;
}

static uint64_t value_of(const struct value *v, const char *text)
{
	uint64_t n = stats_value(text, v->series), less = v->less ? stats_value(text, v->less) : 0;

	return n > less ? n - less : 0;
}

/* A group is null if its first value, a size, is 0: that of the disk where there is none. */
static json_t *group_of(json_t *node, const struct value *v, uint64_t n)
{
	json_t *group = json_object_get(node, v->group);

	if (!group) {
		group = n || strcmp(v->name, "size") ? json_object() : json_null();
		json_object_set_new(node, v->group, group);
	}
	return group;
}

json_t *status_node(const char *name, const char *text, const char *state)
{
	json_t *node = json_object();

	json_object_set_new(node, "name", json_text(name, strlen(name)));
	json_object_set_new(node, "state", json_string(state));
	for (unsigned i = 0; text && i < NVALUES; i++) {
		uint64_t n = value_of(&values[i], text);
		json_t *group = group_of(node, &values[i], n);
		if (json_is_object(group))
			json_object_set_new(group, values[i].name,
					    json_integer(n < INT64_MAX ? (json_int_t)n : INT64_MAX));
	}
	return node;
}

static void print_value(const struct value *v, const json_t *group)
{
	uint64_t n = (uint64_t)json_integer_value(json_object_get(group, v->name));

	if (v->bytes)
		printf("%s %s", v->name, size_text(n).s);
	else
		printf("%s %" PRIu64, v->name, n);
}

void status_node_print(const json_t *node)
{
	const char *last = "";

	printf("\nnode %s: %s", json_string_value(json_object_get(node, "name")),
	       json_string_value(json_object_get(node, "state")));
	for (unsigned i = 0; i < NVALUES; i++) {
		const json_t *group = json_object_get(node, values[i].group);
		if (!json_is_object(group))
			continue;
		if (strcmp(last, values[i].group))
			printf("\n  %-9s ", values[i].group);
		else
			printf(", ");
		last = values[i].group;
		print_value(&values[i], group);
	}
	printf("\n");
}
