/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node's answer to OPEN: an object's record, pins on the slices that it names,
 * and the bytes of a small one, for a mount that would ask for one after the other.
 */
#include "engine/holds.h"
#include "index/index.h"

/* rows: what the index has at the asked place. 0: w has the answer's body, and h has
 * the pins that it tells of; WIRE_NOT_THERE; or negative: as holds_pin(), -EUCLEAN. */
int serve_open(struct holds *h, struct pool *p, const struct wire_open *asked,
	       const struct kv_rows *rows, struct writer *w);
