/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A POSIX name space as plainly as it can be said, to compare the index with: what
 * is published under each name, each session's draft over it, and nothing about
 * keys. Objects and names are small tables; everything is recomputed by looking
 * through them. Sessions are 0, 1, ...
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "index/index.h"

enum { MODEL_OBJECTS = 24, MODEL_NAMES = 120, MODEL_XATTRS = 3, MODEL_SESSIONS = 3, NOBODY = -1 };

struct model_object {
	bool used;
	bool draft;    /* never published */
	int owner;     /* of a draft: its session */
	bool open[MODEL_SESSIONS]; /* a writer was announced */
	uint64_t base[MODEL_SESSIONS]; /* the version that it is based on there */
	struct attr attr;
	char content[24];
	int xattrs[MODEL_XATTRS]; /* 0: not set; else its value */
};

struct model_name {
	bool used;
	int dir;       /* object */
	char name[8];
	int pub;       /* object that is published here, or NOBODY */
	int draft[MODEL_SESSIONS]; /* what hides it there, or NOBODY */
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

/* The name, whoever sees it. */
static inline struct model_name *model_name_at(struct model *m, int dir, const char *name)
{
	for (int i = 0; i < MODEL_NAMES; i++)
		if (m->n[i].used && m->n[i].dir == dir && !strcmp(m->n[i].name, name))
			return &m->n[i];
	return NULL;
}

static inline int model_shown(const struct model_name *n, int s)
{
	if (!n || !n->used)
		return NOBODY;
	return n->draft[s] != NOBODY ? n->draft[s] : n->pub;
}

/* The name, if session s sees it. */
static inline struct model_name *model_find(struct model *m, int s, int dir, const char *name)
{
	struct model_name *n = model_name_at(m, dir, name);

	return model_shown(n, s) == NOBODY ? NULL : n;
}

/* Has another session than s a draft of it? */
static inline bool model_is_foreign(const struct model_name *n, int s)
{
	for (int i = 0; n && i < MODEL_SESSIONS; i++)
		if (i != s && n->draft[i] != NOBODY)
			return true;
	return false;
}

/* Is making it as a new one refused? */
static inline bool model_is_taken(struct model *m, int s, int dir, const char *name)
{
	struct model_name *n = model_name_at(m, dir, name);

	return model_shown(n, s) != NOBODY || model_is_foreign(n, s);
}

static inline bool model_is_dir(const struct model *m, int o)
{
	return S_ISDIR(m->o[o].attr.mode);
}

/* Names of an object, shown or hidden. */
static inline unsigned model_names_of(const struct model *m, int o)
{
	unsigned n = 0;

	for (int i = 0; i < MODEL_NAMES; i++) {
		if (!m->n[i].used)
			continue;
		n += m->n[i].pub == o;
		for (int s = 0; s < MODEL_SESSIONS; s++)
			n += m->n[i].draft[s] == o;
	}
	return n;
}

/* Those that s sees; NOBODY: all that there are. */
static inline unsigned model_names_in(const struct model *m, int s, int dir)
{
	unsigned n = 0;

	for (int i = 0; i < MODEL_NAMES; i++)
		n += m->n[i].used && m->n[i].dir == dir &&
		     (s == NOBODY || model_shown(&m->n[i], s) != NOBODY);
	return n;
}

/* Names of a published file, less those that s's drafts hide. */
static inline unsigned model_links(const struct model *m, int s, int o)
{
	unsigned n = model_names_of(m, o);

	for (int i = 0; i < MODEL_NAMES; i++)
		n -= m->n[i].used && m->n[i].pub == o && m->n[i].draft[s] != NOBODY;
	return n;
}

/* As s sees it. */
static inline unsigned model_nlink(const struct model *m, int s, int o)
{
	unsigned n = 2;

	if (!model_is_dir(m, o))
		return model_links(m, s, o) ? model_links(m, s, o) : 1;
	for (int i = 0; i < MODEL_NAMES; i++)
		n += m->n[i].used && m->n[i].dir == o && m->n[i].pub != NOBODY &&
		     model_is_dir(m, m->n[i].pub);
	return n;
}

static inline int model_parent(const struct model *m, int dir)
{
	for (int i = 0; i < MODEL_NAMES; i++)
		if (m->n[i].used && m->n[i].pub == dir)
			return m->n[i].dir;
	return 0;
}

static inline bool model_is_below(const struct model *m, int dir, int above)
{
	while (dir && dir != above)
		dir = model_parent(m, dir);
	return dir == above;
}

/* The name, made if it is not there. */
static inline struct model_name *model_have_name(struct model *m, int dir, const char *name)
{
	struct model_name *n = model_name_at(m, dir, name);

	for (int i = 0; !n && i < MODEL_NAMES; i++) {
		if (m->n[i].used)
			continue;
		n = &m->n[i];
		*n = (struct model_name){ .used = true, .dir = dir, .pub = NOBODY };
		for (int s = 0; s < MODEL_SESSIONS; s++)
			n->draft[s] = NOBODY;
		strcpy(n->name, name);
	}
	assert(n); /* else more names than the model has room for */
	return n;
}

static inline void model_tidy(struct model *m)
{
	for (int i = 0; i < MODEL_NAMES; i++) {
		struct model_name *n = &m->n[i];
		bool any = n->pub != NOBODY;
		for (int s = 0; s < MODEL_SESSIONS; s++)
			any |= n->draft[s] != NOBODY;
		n->used = n->used && any;
	}
}

static inline int model_new(const struct model *m)
{
	for (int i = 1; i < MODEL_OBJECTS; i++)
		if (!m->o[i].used)
			return i;
	return NOBODY;
}

static inline bool model_is_open(const struct model *m, int o)
{
	for (int s = 0; s < MODEL_SESSIONS; s++)
		if (m->o[o].open[s])
			return true;
	return false;
}

/* o has lost a name in s; `hidden`: it is only out of sight, as all that are left may be. */
static inline void model_lost(struct model *m, int s, int o, bool hidden, struct model_gone *g)
{
	unsigned nlink = model_is_dir(m, o) ? 0 : model_links(m, s, o) - hidden;
	int i = g->n++;

	g->v[i].object = o;
	g->v[i].nlink = nlink;
	g->v[i].draft = m->o[o].draft;
	g->v[i].hidden = hidden || (!model_is_dir(m, o) && !nlink && model_names_of(m, o));
	strcpy(g->v[i].content, m->o[o].content);
}

/* Nobody names it and nobody writes it: its number may be used again. */
static inline void model_forget(struct model *m)
{
	model_tidy(m);
	for (int i = 1; i < MODEL_OBJECTS; i++)
		if (m->o[i].used && !model_is_open(m, i) && !model_names_of(m, i))
			m->o[i].used = false;
}

/* What is published there is lost. */
static inline void model_lose_pub(struct model *m, int s, struct model_name *n,
				  struct model_gone *g)
{
	int o = n->pub;

	n->pub = NOBODY;
	if (o != NOBODY)
		model_lost(m, s, o, false, g);
}

/* What s sees there goes: what it hid, if anything, stays. */
static inline int model_take(struct model_name *n, int s)
{
	int o = model_shown(n, s);

	if (n->draft[s] != NOBODY)
		n->draft[s] = NOBODY;
	else
		n->pub = NOBODY;
	return o;
}

/* o comes there: a draft hides what is published, all else replaces it. */
static inline void model_place(struct model *m, struct model_name *n, int s, int o,
			       struct model_gone *g)
{
	if (m->o[o].draft) {
		n->draft[s] = o;
		return;
	}
	model_lose_pub(m, s, n, g);
	n->pub = o;
}

static inline int model_unlink(struct model *m, int s, int dir, const char *name, bool rmdir,
			       struct model_gone *g)
{
	struct model_name *n = model_find(m, s, dir, name);

	if (!n)
		return INDEX_MISS;
	int o = model_shown(n, s);
	if (model_is_dir(m, o) != rmdir)
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && model_names_in(m, NOBODY, o))
		return -ENOTEMPTY;
	model_take(n, s);
	model_lost(m, s, o, false, g);
	model_lose_pub(m, s, n, g);
	return 0;
}

/* `old` is what `to` shows. */
static inline void model_replace(struct model *m, int s, struct model_name *from,
				 struct model_name *to, int old, struct model_gone *g)
{
	int moved = model_take(from, s);

	if (m->o[old].draft || !m->o[moved].draft) {
		model_take(to, s);
		model_lost(m, s, old, false, g);
	} else {
		model_lost(m, s, old, true, g);
	}
	model_place(m, to, s, moved, g);
	model_lose_pub(m, s, from, g); /* last: what is hidden now may lose a name by it, too */
}

static inline void model_exchange(struct model *m, int s, struct model_name *from,
				  struct model_name *to, struct model_gone *g)
{
	int a = model_take(from, s), b = model_take(to, s);

	model_place(m, from, s, b, g);
	model_place(m, to, s, a, g);
}

static inline int model_rename_check(struct model *m, int s, struct model_name *from,
				     struct model_name *to, int dir2, unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE;
	int o = model_shown(from, s), o2 = model_shown(to, s);

	if (model_is_dir(m, o) && model_is_foreign(to, s))
		return -ENOTDIR;
	if (exchange && model_is_dir(m, o2) && model_is_foreign(from, s))
		return -ENOTDIR;
	if (o2 != NOBODY && !exchange && model_is_dir(m, o) != model_is_dir(m, o2))
		return model_is_dir(m, o) ? -ENOTDIR : -EISDIR;
	if (model_is_dir(m, o) && model_is_below(m, dir2, o))
		return -EINVAL;
	if (exchange && model_is_dir(m, o2) && model_is_below(m, from->dir, o2))
		return -EINVAL;
	if (o2 != NOBODY && !exchange && model_is_dir(m, o2) && model_names_in(m, NOBODY, o2))
		return -ENOTEMPTY;
	return 0;
}

static inline int model_rename(struct model *m, int s, int dir, const char *name, int dir2,
			       const char *name2, unsigned flags, struct model_gone *g)
{
	struct model_name *from = model_find(m, s, dir, name);
	struct model_name *to = model_name_at(m, dir2, name2);
	int o2 = model_shown(to, s);

	if (!from)
		return INDEX_MISS;
	if (model_is_taken(m, s, dir2, name2) && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (o2 == NOBODY && flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (o2 == model_shown(from, s))
		return 0;
	int r = model_rename_check(m, s, from, to, dir2, flags);
	if (r)
		return r;
	if (flags & RENAME_EXCHANGE) {
		model_exchange(m, s, from, to, g);
	} else if (o2 != NOBODY) {
		model_replace(m, s, from, to, o2, g);
	} else {
		to = model_have_name(m, dir2, name2);
		int o = model_take(from, s);
		model_lose_pub(m, s, from, g);
		model_place(m, to, s, o, g);
	}
	return 0;
}

/* The draft is published: what is published under its names is lost. */
static inline int model_publish(struct model *m, int s, int o, struct model_gone *g)
{
	bool draft = m->o[o].draft;

	if (!model_names_of(m, o))
		return INDEX_UNLINKED;
	m->o[o].draft = false;
	for (int i = 0; draft && i < MODEL_NAMES; i++) {
		if (!m->n[i].used || m->n[i].draft[s] != o)
			continue;
		m->n[i].draft[s] = NOBODY;
		model_lose_pub(m, s, &m->n[i], g);
		m->n[i].pub = o;
	}
	return 0;
}

/* Session s writes it no more: a draft's names go, what they hid shows. */
static inline void model_end(struct model *m, int s, int o)
{
	for (int i = 0; m->o[o].draft && i < MODEL_NAMES; i++)
		if (m->n[i].used && m->n[i].draft[s] == o)
			m->n[i].draft[s] = NOBODY;
	m->o[o].open[s] = false;
	model_tidy(m);
}
