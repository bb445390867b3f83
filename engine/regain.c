/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lost session means for the files that are open here (peer.c).
 *
 * What was written and not published was the session's, and is gone with it: such
 * a file fails with EIO from then on, also when it is closed, so that nobody takes
 * what he wrote for stored. So does one that has only begun to change (a call of several
 * steps is at it, or has failed): it consists of other slices than what is published. All
 * others go on. The index does not know any more that some of them are written to; it is
 * told again, as an open for writing would.
 *
 * What was published and nobody had pinned between the two sessions may have gone, to the
 * node's disk or for good. A file of which slices are lost is torn: it is loaded again, now and
 * by each open until that succeeds, and if what is published is still its version then it
 * goes on. Until then, and else, what is lost of it is EIO.
 *
 * Between the two sessions nobody kept track of renames (index_writer()): if the
 * record is not where it was, the file is lost as well, rather than taken for one
 * without a name, whose changes nobody would miss.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/open.h"

enum { REGAIN_S = 10 };

/* Under its lock: pages of it are in slices of the session. Those without a page are of a put
 * that fails by itself (put_insert()), or of a reader. */
static bool has_begun(const struct file *f)
{
	for (struct hold *h = f->map.writing; h; h = h->next)
		if (h->pages)
			return true;
	return false;
}

static bool line_lost(struct file *f)
{
	WITH_LOCK(&f->lock);

	f->registered = false;
	f->dirty |= !f->lost && has_begun(f);
	if (f->lost || !(f->draft || f->dirty))
		return false;
	f->lost = true;
	file_count(f);
	return true;
}

unsigned files_lost(struct engine *e)
{
	unsigned n = 0;

	WITH_LOCK(&e->files->lock);
	for (struct file *f = e->files->table; f; f = f->hh.next)
		for (struct file *line = f; line; line = line->older)
			n += line_lost(line);
	return n;
}

/* What is torn ----------------------------------------------------------------------- */

/* Under f's lock. */
static bool has_lost(const struct file *f, const struct map *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		for (uint32_t k = 0; k < m->v[i]->n; k++)
			if (node_is_lost(f->e->node, m->v[i]->v[k].hold->id))
				return true;
	return false;
}

void files_torn(struct engine *e)
{
	WITH_LOCK(&e->files->lock);
	for (struct file *f = e->files->table; f; f = f->hh.next) {
		for (struct file *line = f; line; line = line->older) {
			WITH_LOCK(&line->lock);
			line->torn |= !line->lost && has_lost(line, &line->map);
		}
	}
}

bool file_is_torn(struct file *f)
{
	WITH_LOCK(&f->lock);

	f->torn = f->torn && !f->lost && has_lost(f, &f->map);
	return f->torn;
}

int file_mend(struct file *f, struct file *spare)
{
	struct map old;

	if (has_lost(spare, &spare->map))
		return -EIO;
	WITH_LOCK(&f->lock);
	if (!f->lost && (f->draft || f->dirty || f->map.writing))
		return 1;
	if (f->lost || f->attr.version != spare->attr.version || f->small != spare->small)
		return -ESTALE;
	old = f->map;
	f->map = spare->map;
	map_init(&spare->map, f->e->node);
	map_fini(&old);
	free(f->nodes);
	f->nodes = steal(&spare->nodes);
	f->nnodes = spare->nnodes;
	f->torn = false;
	return 0;
}

/* Telling the index again ------------------------------------------------------------ */

struct regain {
	struct file_op op;
	struct files *files;
	struct regain *next;
	unsigned flags; /* FILE_WRITE: it is to be told */
};

static void regain_closed(struct file_op *op, int64_t r)
{
	struct regain *g = op->arg;
	struct files *fs = g->files;

	(void)r;
	free(g);
	WITH_LOCK(&fs->lock);
	if (!--fs->nregains)
		pthread_cond_broadcast(&fs->regained);
}

static void regained(struct file_op *op, int64_t r)
{
	struct regain *g = op->arg;
	struct file *f = op->known;

	/* Who was not answered in time, or found no room to bring it back from the node's disk, is
	 * told of when it is published, or in the next session. */
	if (r == -ESTALE && g->flags & FILE_WRITE) {
		WITH_LOCK(&f->lock);
		f->lost = true;
		log_error("file", "file %llu cannot be written to any more: %s",
			  (unsigned long long)f->fileid, error_text((int)r));
	}
	/* With the open's writer, if there is one, and ours. */
	if (r >= 0)
		files_put(f);
	op->file = f;
	op->done = regain_closed;
	file_close(op, r >= 0 ? g->flags : 0);
}

static void regain(struct engine *e, struct regain *g)
{
	struct file *f = g->op.known;
	struct place place;

	file_place(f, &place);
	g->op.arg = g;
	g->op.done = regained;
	g->op.call.deadline_ns = clock_ns() + REGAIN_S * NS_PER_S; /* others wait for the file */
	file_open(e, f->fileid, place, g->flags | FILE_KNOWN, &g->op);
}

/* Has it to be told, or loaded again? One that is lost needs neither. */
static bool must_regain(struct file *f, struct regain *g)
{
	WITH_LOCK(&f->lock);
	bool writes = f->nwriters && !f->registered && f->attr.nlink;

	if (f->lost || !(writes || (f->torn && f->state == FILE_OPEN)))
		return false;
	if (g)
		g->flags = writes ? FILE_WRITE : 0;
	else
		f->lost = writes;
	return g;
}

/* Those that are to be regained, each with a reference. */
static struct regain *take_all(struct files *fs)
{
	struct regain *all = NULL, *g = NULL;

	WITH_LOCK(&fs->lock);
	for (struct file *f = fs->table; f; f = f->hh.next) {
		for (struct file *line = f; line; line = line->older) {
			if (!g)
				g = calloc(1, sizeof(*g));
			if (!must_regain(line, g))
				continue;
			line->refs++;
			fs->nregains++;
			g->files = fs;
			g->op.known = line;
			g->next = all;
			all = steal(&g);
		}
	}
	free(g);
	return all;
}

void files_regained(struct engine *e)
{
	for (struct regain *g = take_all(e->files), *next; g; g = next) {
		next = g->next;
		regain(e, g);
	}
}
