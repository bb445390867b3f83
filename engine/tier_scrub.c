/* SPDX-License-Identifier: Apache-2.0 */
/* What is on the disk is read and compared where it is: it neither comes back nor is used. */
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/tier_priv.h"

enum {
	LOOK_PAGES = 256, /* at a time: the segment is held for as long */
	LOOK_BYTES = LOOK_PAGES * PAGE_BYTES,
};

struct tier_look {
	struct tier *t;
	struct disk *disk;
	uint8_t *bytes;
};

int tier_look_new(struct tier *t, struct tier_look **ret)
{
	struct tier_look *l = calloc(1, sizeof(*l));
	int r = -ENOMEM;

	if (!l)
		return r;
	l->t = t;
	l->bytes = aligned_alloc(PAGE_BYTES, LOOK_BYTES);
	if (l->bytes)
		r = tier_disk(t, 1, &l->disk);
	if (r < 0)
		tier_look_free(l);
	else
		*ret = l;
	return r;
}

struct tier_look *tier_look_free(struct tier_look *l)
{
	if (l) {
		disk_close(l->disk);
		free(l->bytes);
		free(l);
	}
	return NULL;
}

/* For as long as the disk takes. */
static int read_pages(struct tier_look *l, uint32_t page, uint32_t npages)
{
	struct iovec iov = { l->bytes, npages * (size_t)PAGE_BYTES };
	struct disk_req q = {
		.off = (uint64_t)page * PAGE_BYTES, .bytes = iov.iov_len, .iov = &iov, .niov = 1,
	}, *done;
	int r = disk_submit(l->disk, &q);

	while (!r && (r = tier_reap(l->t, l->disk, tier_next_look(), &done)) == -ETIMEDOUT)
		r = 0;
	if (!r)
		r = q.result;
	if (r < 0) {
		metric_add(M_DISK_FAILED_READ, 1);
		log_error("scrub", "%s/data: cannot read page %u: %s", l->t->path, page,
			  error_text(r));
	}
	return r < 0 ? -EIO : 0;
}

static int compare(const struct tier_look *l, const struct extent *x, uint32_t at, uint32_t npages)
{
	int64_t bad = tier_body_bad_block(x, l->bytes, at, npages);

	if (bad < 0)
		return 0;
	metric_add(M_CHECKSUM_FAILURES, 1);
	log_error("scrub", "%s/data: page %u does not match its checksum", l->t->path,
		  x->slice + (uint32_t)bad * SUM_PAGES);
	return -EUCLEAN;
}

int tier_look(struct tier_look *l, const struct extent *x, uint32_t at)
{
	struct slice_run s = { { x->slice, x->gen }, x->npages };
	uint32_t n = x->npages - at < LOOK_PAGES ? x->npages - at : LOOK_PAGES;

	if (x->slice_off || x->slice_pages != x->npages)
		return -ESTALE;
	int r = tier_log_enter(l->t->log, &s);
	if (r < 0)
		return -ESTALE;
	r = read_pages(l, x->slice + at, n);
	tier_log_leave(l->t->log, &s);
	if (!r)
		r = compare(l, x, at, n);
	return r < 0 ? r : (int)n;
}
