/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lost session means for the files that are open here (peer.c).
 *
 * What was written and not published was the session's, and is gone with it: such
 * a file fails with EIO from then on, also when it is closed, so that nobody takes
 * what he wrote for stored. All others go on. The index does not know any more
 * that some of them are written to; it is told again, as an open for writing would.
 *
 * Between the two sessions nobody kept track of renames (index_writer()): if the
 * record is not where it was, the file is lost as well, rather than taken for one
 * without a name, whose changes nobody would miss.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/array.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/open.h"

static bool line_lost(struct file *f)
{
	WITH_LOCK(&f->lock);

	f->registered = false;
	if (f->lost || !(f->draft || f->dirty))
		return false;
	f->lost = true;
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

/* Telling the index again ------------------------------------------------------------ */

static void regain_closed(struct file_op *op, int64_t r)
{
	(void)r;
	free(op);
}

static void regained(struct file_op *op, int64_t r)
{
	struct file *f = op->arg;

	if (r < 0) {
		f->lost = true;
		log_error("file", "file %llu cannot be written to any more: %s",
			  (unsigned long long)f->fileid, error_text((int)r));
	}
	/* With the open's writer, if there is one, and ours. */
	if (r >= 0)
		files_put(f);
	op->file = f;
	op->done = regain_closed;
	file_close(op, r >= 0 ? FILE_WRITE : 0);
}

static void regain(struct engine *e, struct file *f)
{
	struct file_op *op = calloc(1, sizeof(*op));
	struct place place;

	if (!op) {
		f->lost = true; /* XXX: and the reference stays */
		return;
	}
	file_place(f, &place);
	op->arg = f;
	op->done = regained;
	op->known = f;
	file_open(e, f->fileid, place, FILE_WRITE | FILE_KNOWN, op);
}

static bool must_tell(struct file *f)
{
	WITH_LOCK(&f->lock);

	return f->nwriters && !f->lost && !f->registered && f->attr.nlink;
}

/* Those that are written to, each with a reference. */
static size_t take_writers(struct files *fs, struct file ***ret)
{
	size_t n = 0, cap = 0;
	struct file **v = NULL;

	WITH_LOCK(&fs->lock);
	for (struct file *f = fs->table; f; f = f->hh.next) {
		for (struct file *line = f; line; line = line->older) {
			if (!must_tell(line))
				continue;
			if (array_room(v, cap, n + 1, 16) < 0) {
				line->lost = true;
				continue;
			}
			line->refs++;
			v[n++] = line;
		}
	}
	*ret = v;
	return n;
}

void files_regained(struct engine *e)
{
	struct file **v;
	size_t n = take_writers(e->files, &v);

	for (size_t i = 0; i < n; i++)
		regain(e, v[i]);
	free(v);
}
