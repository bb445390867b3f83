/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a node's counters say, for slicefs status: an object of JSON, and lines of text. */
#include <stdint.h>

#include <jansson.h>

/* The value of a line `slicefs_<series> <value>` of Prometheus text; 0: absent. A series that
 * ends with '{' is the sum of all that begin so. */
uint64_t stats_value(const char *text, const char *series);

/* Of a node that has answered with this text; NULL: with nothing, and `state` says why. */
json_t *status_node(const char *name, const char *text, const char *state);
void status_node_print(const json_t *node); /* to stdout */
