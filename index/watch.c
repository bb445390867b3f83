/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings when a directory changes: the rows of its names, in which the records of
 * files with one name are, and its own record. Its times and its number of
 * sub-directories have rows of their own, but those change together with a name; only
 * when a draft is given up do the times change alone.
 *
 * One name is watched by the beginning of its key: all but the disambiguator of its hash.
 */
#include "index/keys.h"

void index_unwatch(struct index *ix, struct index_watch *w)
{
	struct kv *kv = index_kv(ix);

	kv_unwatch(kv, w->names);
	kv_unwatch(kv, w->self);
	*w = (struct index_watch){ 0 };
}

bool index_watch_is_dead(const struct index_watch *w)
{
	return (w->names && kv_watch_is_dead(w->names)) || (w->self && kv_watch_is_dead(w->self));
}

int index_watch_dir(struct index *ix, uint64_t dir, void (*ring)(void *arg), void *arg,
		    struct index_watch *ret)
{
	struct kv *kv = index_kv(ix);
	uint64_t session = index_session(ix);
	struct key names = key_prefix('D', dir), self = key_file(dir);
	struct index_watch w = { 0 };
	int r = kv_watch_others(kv, key_bytes(&names), session, ring, arg, &w.names);

	if (!r)
		r = kv_watch_others(kv, key_bytes(&self), session, ring, arg, &w.self);
	if (r < 0) {
		index_unwatch(ix, &w);
		return r;
	}
	*ret = w;
	return 0;
}

int index_watch_name(struct index *ix, uint64_t parent, const char *name,
		     void (*ring)(void *arg), void *arg, struct index_watch *ret)
{
	uint64_t h = name_hash(index_super(ix)->hash_key, bytes_str(name));
	struct key key = key_prefix_h('D', parent, h);
	struct index_watch w = { 0 };

	key.len--; /* the low 8 bits of h are its last byte */
	int r = kv_watch(index_kv(ix), key_bytes(&key), ring, arg, &w.names);
	if (!r)
		*ret = w;
	return r;
}
