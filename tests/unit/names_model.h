/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A POSIX name space as plainly as it can be said, to compare the index with: what
 * each name shows, what a draft hides under it, and nothing about keys. Objects
 * and names are small tables; everything is recomputed by looking through them.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "index/index.h"

enum { MODEL_OBJECTS = 24, MODEL_NAMES = 120, MODEL_XATTRS = 3, NOBODY = -1 };

struct model_object {
	bool used;
	bool draft;    /* never published */
	bool open;     /* a writer was announced */
	struct attr attr;
	char content[24];
	int xattrs[MODEL_XATTRS]; /* 0: not set; else its value */
};

struct model_name {
	bool used;
	int dir;       /* object */
	char name[8];
	int shown;     /* object */
	int hidden;    /* object that the draft hides, or NOBODY */
};

struct model {
	struct model_object o[MODEL_OBJECTS]; /* [0]: the root */
	struct model_name n[MODEL_NAMES];
};

/* What a step took names from; in any order. */
struct model_gone {
	int n;
	struct {
		int object;
		unsigned nlink;
		bool draft, hidden;
		char content[24];
	} v[8];
};

static inline struct model_name *model_find(struct model *m, int dir, const char *name)
{
	for (int i = 0; i < MODEL_NAMES; i++)
		if (m->n[i].used && m->n[i].dir == dir && !strcmp(m->n[i].name, name))
			return &m->n[i];
	return NULL;
}

static inline bool model_is_dir(const struct model *m, int o)
{
	return S_ISDIR(m->o[o].attr.mode);
}

/* Names of an object, shown or hidden. */
static inline unsigned model_names_of(const struct model *m, int o)
{
	unsigned n = 0;

	for (int i = 0; i < MODEL_NAMES; i++)
		if (m->n[i].used)
			n += (m->n[i].shown == o) + (m->n[i].hidden == o);
	return n;
}

static inline unsigned model_names_in(const struct model *m, int dir)
{
	unsigned n = 0;

	for (int i = 0; i < MODEL_NAMES; i++)
		n += m->n[i].used && m->n[i].dir == dir;
	return n;
}

static inline unsigned model_nlink(const struct model *m, int o)
{
	unsigned n = 2;

	if (!model_is_dir(m, o))
		return model_names_of(m, o);
	for (int i = 0; i < MODEL_NAMES; i++)
		n += m->n[i].used && m->n[i].dir == o && model_is_dir(m, m->n[i].shown);
	return n;
}

static inline int model_parent(const struct model *m, int dir)
{
	for (int i = 0; i < MODEL_NAMES; i++)
		if (m->n[i].used && m->n[i].shown == dir)
			return m->n[i].dir;
	return 0;
}

static inline bool model_is_below(const struct model *m, int dir, int above)
{
	while (dir && dir != above)
		dir = model_parent(m, dir);
	return dir == above;
}

static inline struct model_name *model_add_name(struct model *m, int dir, const char *name, int o)
{
	for (int i = 0; i < MODEL_NAMES; i++) {
		struct model_name *n = &m->n[i];
		if (n->used)
			continue;
		*n = (struct model_name){ .used = true, .dir = dir, .shown = o, .hidden = NOBODY };
		strcpy(n->name, name);
		return n;
	}
	assert(!"more names than the model has room for");
	return NULL;
}

static inline int model_new(const struct model *m)
{
	for (int i = 1; i < MODEL_OBJECTS; i++)
		if (!m->o[i].used)
			return i;
	return NOBODY;
}

/* o has lost a name; `hidden`: it is only out of sight. */
static inline void model_lost(struct model *m, int o, bool hidden, struct model_gone *g)
{
	unsigned nlink = model_is_dir(m, o) ? 0 : model_names_of(m, o) - hidden;
	int i = g->n++;

	g->v[i].object = o;
	g->v[i].nlink = nlink;
	g->v[i].draft = m->o[o].draft;
	g->v[i].hidden = hidden;
	strcpy(g->v[i].content, m->o[o].content);
}

/* Nobody names it and nobody writes it: its number may be used again. */
static inline void model_forget(struct model *m)
{
	for (int i = 1; i < MODEL_OBJECTS; i++)
		if (m->o[i].used && !m->o[i].open && !model_names_of(m, i))
			m->o[i].used = false;
}

static inline void model_lose_hidden(struct model *m, struct model_name *n, struct model_gone *g)
{
	int o = n->hidden;

	n->hidden = NOBODY;
	if (o != NOBODY)
		model_lost(m, o, false, g);
}

static inline int model_unlink(struct model *m, int dir, const char *name, bool rmdir,
			       struct model_gone *g)
{
	struct model_name *n = model_find(m, dir, name);

	if (!n)
		return INDEX_MISS;
	int o = n->shown;
	if (model_is_dir(m, o) != rmdir)
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && model_names_in(m, o))
		return -ENOTEMPTY;
	n->used = false;
	model_lost(m, o, false, g);
	model_lose_hidden(m, n, g);
	return 0;
}

static inline void model_replace(struct model *m, struct model_name *s, struct model_name *t,
				 struct model_gone *g)
{
	int moved = s->shown, old = t->shown;
	bool draft = m->o[moved].draft;

	s->used = false;
	t->shown = moved;
	if (!m->o[old].draft && draft) {
		t->hidden = old;
		model_lost(m, old, true, g);
	} else {
		model_lost(m, old, false, g);
	}
	if (!draft)
		model_lose_hidden(m, t, g);
	model_lose_hidden(m, s, g);
}

static inline void model_exchange(struct model *m, struct model_name *s, struct model_name *t,
				  struct model_gone *g)
{
	int moved = s->shown;

	s->shown = t->shown;
	t->shown = moved;
	if (!m->o[s->shown].draft)
		model_lose_hidden(m, s, g);
	if (!m->o[t->shown].draft)
		model_lose_hidden(m, t, g);
}

static inline int model_rename_check(struct model *m, struct model_name *s, struct model_name *t,
				     int dir2, unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE;

	if (t && !exchange && model_is_dir(m, s->shown) != model_is_dir(m, t->shown))
		return model_is_dir(m, s->shown) ? -ENOTDIR : -EISDIR;
	if (model_is_dir(m, s->shown) && model_is_below(m, dir2, s->shown))
		return -EINVAL;
	if (exchange && model_is_dir(m, t->shown) && model_is_below(m, s->dir, t->shown))
		return -EINVAL;
	if (t && !exchange && model_is_dir(m, t->shown) && model_names_in(m, t->shown))
		return -ENOTEMPTY;
	return 0;
}

static inline int model_rename(struct model *m, int dir, const char *name, int dir2,
			       const char *name2, unsigned flags, struct model_gone *g)
{
	struct model_name *s = model_find(m, dir, name);
	struct model_name *t = model_find(m, dir2, name2);

	if (!s)
		return INDEX_MISS;
	if (t && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!t && flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (t && t->shown == s->shown)
		return 0;
	int r = model_rename_check(m, s, t, dir2, flags);
	if (r)
		return r;
	if (flags & RENAME_EXCHANGE) {
		model_exchange(m, s, t, g);
	} else if (t) {
		model_replace(m, s, t, g);
	} else {
		model_add_name(m, dir2, name2, s->shown);
		s->used = false;
		model_lose_hidden(m, s, g);
	}
	return 0;
}

/* The draft is published: what its names hide is lost. */
static inline int model_publish(struct model *m, int o, struct model_gone *g)
{
	if (!model_names_of(m, o))
		return INDEX_UNLINKED;
	if (m->o[o].draft)
		for (int i = 0; i < MODEL_NAMES; i++)
			if (m->n[i].used && m->n[i].shown == o)
				model_lose_hidden(m, &m->n[i], g);
	m->o[o].draft = false;
	return 0;
}

/* Nobody writes it any more: a draft's names go, what they hid shows. */
static inline void model_end(struct model *m, int o)
{
	for (int i = 0; m->o[o].draft && i < MODEL_NAMES; i++) {
		struct model_name *n = &m->n[i];
		if (!n->used || n->shown != o)
			continue;
		n->shown = n->hidden;
		n->hidden = NOBODY;
		n->used = n->shown != NOBODY;
	}
	m->o[o].open = false;
}
